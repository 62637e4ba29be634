//! A file of a key is understood or refused, whatever it asks of scrypt.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seaworthy_repository::key::is_understood;

fuzz_target!(|bytes: &[u8]| {
    let _understood = is_understood(bytes);
});
