//! Unmodified lock clients in `claims/`: each acquires, contends from another session, releases,
//! and dies by SIGKILL.
//!
//! Each holder and each contender is a process in a POSIX session of its own, as two terminals are.
//! They run the scripts beside this file, which play one of three roles:
//!
//! - `hold` acquires, says `held`, releases when told to on its standard input, says `released`,
//!   and lives on;
//! - `try` attempts once without waiting, and releases what it got; if it got nothing it ends as
//!   the client does then;
//! - `wait` attempts once, says `busy`, acquires with the retries that the client has, says `got`,
//!   and releases.
//!
//! `.ci/run` installs the clients; those that are not Debian's own commands, into `target/clients`.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![allow(missing_docs)]

// The clients, a test for each.
mod clients;
// Processes of which nothing is left when they are dropped.
mod process;
// The stages that each client passes.
mod stages;
// The same on a tmpfs, printed side by side.
mod table;

#[path = "../support/mod.rs"]
mod support;
