#![no_main]

#[path = "../../suite/core/fuzzed/attributes.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
