//! A witness that is understood names its checks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seaworthy_model::witness::Witness;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(witness) = serde_json::from_slice::<Witness>(bytes) {
        let _checks = witness.checks();
        let text = serde_json::to_vec(&witness).expect("a witness can be spelled");
        assert_eq!(serde_json::from_slice::<Witness>(&text).expect("what we wrote"), witness);
    }
});
