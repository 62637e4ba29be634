//! A snapshot that is understood says the same when it is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seaworthy_repository::{Snapshot, SnapshotId};

fuzz_target!(|bytes: &[u8]| {
    let id = SnapshotId::of(bytes);
    if let Ok(snapshot) = Snapshot::decode(&id, bytes) {
        assert_eq!(Snapshot::decode(&id, &snapshot.encode()).expect("what we wrote"), snapshot);
    }
});
