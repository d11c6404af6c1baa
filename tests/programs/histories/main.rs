//! A client of `tests/suite/faults/histories.rs`: `histories FILE SHARED SLOT SEED`. It writes down
//! in FILE what it was told; SHARED is the memory that all clients share.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![allow(missing_docs, clippy::too_many_lines)]

mod client;
#[allow(dead_code)]
mod history;
#[allow(dead_code)]
mod shared;
#[allow(dead_code)]
#[path = "../../support"]
mod support {
    pub mod dice;
    pub mod memory;
}

use std::env;
use std::path::Path;

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let [file, shared, slot, seed] = &words[..] else {
        panic!("unexpected arguments: {words:?}");
    };
    client::serve(
        Path::new(file),
        Path::new(shared),
        slot.parse().unwrap(),
        seed.parse().unwrap(),
    );
}
