//! Whose lease it is, with real processes: shells, programs, coding agents, and how they end. The
//! rules themselves are tested in `core`.

/// Coding agents, each played by a stand-in.
pub mod agents;
/// How a process ended, as each source of it reports.
mod endings;
/// Programs that have workers.
mod programs;
/// Names, numbers and environments that prove nothing.
mod proofs;
/// Processes that die, stop, and come back with the same pid.
mod race;
/// Scripts of one terminal, in each shell.
mod scripts;
/// A variable, a POSIX session and a registration.
mod session;
/// Workers and orphans, which hold nothing of the script that started them.
mod strangers;
/// Makers, parents and the server, which end in every order.
mod trees;
