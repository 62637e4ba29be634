//! A configuration is understood, or everything that is wrong with it is said: at least one thing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seaworthy_model::config::{SourceText, includes, parse};

fuzz_target!(|text: &str| {
    let _included = includes(text);
    if let Err(diagnostics) = parse(&[SourceText::new("seaworthy.toml", text)]) {
        assert!(!diagnostics.to_string().is_empty());
    }
});
