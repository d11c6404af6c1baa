//! The processes of `tests/suite/faults/kills.rs`: `kills client FILE SEED INCARNATION` and
//! `kills reader FILE blocks|polls`. FILE is the memory that all of them share.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![allow(missing_docs, clippy::too_many_lines, clippy::format_push_string)]

mod client;
mod reader;
#[allow(dead_code)]
mod shared;
#[allow(dead_code)]
#[path = "../../support"]
mod support {
    pub mod dice;
    pub mod memory;
}
mod world;

use std::env;
use std::path::Path;

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["client", file, seed, incarnation] => client::serve(
            Path::new(file),
            seed.parse().unwrap(),
            incarnation.parse().unwrap(),
        ),
        ["reader", file, how] => reader::serve(Path::new(file), how == "polls"),
        _ => panic!("unexpected arguments: {words:?}"),
    }
}
