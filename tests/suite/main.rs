//! The tests, in one binary, with a folder for each subject. They share `tests/support`, whose head
//! explains how they work and how to run one of them.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![allow(missing_docs, clippy::float_cmp, clippy::format_push_string)]
// A step of a random test is one match over all operations.
#![allow(clippy::too_many_lines)]

mod calls;
mod cli;
mod core;
mod faults;
mod lifecycle;
// The pages of src/manual.
mod manual;
// Eight processes that are released together on a name.
#[path = "../bench/race.rs"]
#[allow(unused_imports)]
mod racers;
mod sandboxes;
mod sessions;
#[path = "../support/mod.rs"]
mod support;
// The form of the repository's own files.
mod tidy;
mod waiting;
