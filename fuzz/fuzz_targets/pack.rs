//! A header of a pack that is understood says the same when it is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seaworthy_repository::pack::{decode_header, encode_header};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(blobs) = decode_header(bytes) {
        assert_eq!(decode_header(&encode_header(&blobs)).expect("what we wrote"), blobs);
    }
});
