//! The command line, and the documentation that prints it.

/// `claimfs run`, and the other verbs that wait and watch.
mod command;
/// Completion scripts, and the words that they complete.
mod completions;
/// Every command and every promise that the documentation prints.
mod docs;
/// `claimfs doctor`.
mod doctor;
/// `claimfs hook`, which agents and git call.
mod hook;
/// `--any LIST` and `--all LIST`.
mod lists;
/// The manual as plain text and as man pages.
mod manual;
/// The file `metrics`.
mod metrics;
/// Faults that newcomers met.
mod newcomers;
/// Standard output: JSON, and what cannot be written.
mod output;
/// Reserving real paths.
mod paths;
/// `claimfs setup`.
mod setup;
/// `claimfs ls` on a terminal.
mod table;
/// The demonstration of the README.
pub mod try_it;
/// The output and the exit code of each verb.
mod verbs;
/// The words of a command that waits.
mod waits;
/// `claimfs ls --watch`.
mod watch;
/// Words of a command line: times, names, exit codes.
mod words;
