#![no_main]

#[path = "../../suite/core/fuzzed/body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
