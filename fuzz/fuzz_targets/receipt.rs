//! Nothing verifies that nobody has signed, and nothing is silently passed over.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seaworthy_model::ledger::{Known, verify_export};
use seaworthy_model::receipt::read_unverified;
use seaworthy_model::signature::{Envelope, TrustedKeys};

fuzz_target!(|text: &str| {
    if let Ok(envelope) = Envelope::from_json(text.as_bytes()) {
        let _read = read_unverified(&envelope);
    }
    let report = verify_export(text, &TrustedKeys::default(), &Known::default());
    assert_eq!(report.verified, 0);
    assert!(!report.findings.is_empty());
});
