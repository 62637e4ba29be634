//! An index that is understood says the same when it is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seaworthy_repository::Id;
use seaworthy_repository::index::{decode, encode};

fuzz_target!(|bytes: &[u8]| {
    let id = Id::of(bytes);
    if let Ok(packs) = decode(&id, bytes) {
        assert_eq!(decode(&id, &encode(&packs)).expect("what we wrote"), packs);
    }
});
