//! A racer with nothing but system calls, for `tests/suite/sessions/race.rs`. It has its role in
//! the environment, as the racers in other languages do.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![allow(missing_docs, clippy::too_many_lines)]

#[path = "../bench/play.rs"]
mod play;

fn main() {
    assert!(play::play(), "RACER_ROLE is not set");
}
