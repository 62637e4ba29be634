//! A tree that is understood says the same when it is written again; one that we would write holds safe names only.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seaworthy_repository::Id;
use seaworthy_repository::tree::{decode, encode, encode_unchecked};

fuzz_target!(|bytes: &[u8]| {
    let id = Id::of(bytes);
    if let Ok(nodes) = decode(&id, bytes) {
        assert_eq!(decode(&id, &encode_unchecked(&nodes)).expect("what we wrote"), nodes);
        if encode(&nodes).is_ok() {
            assert!(nodes.iter().all(seaworthy_repository::Node::name_is_safe));
        }
    }
});
