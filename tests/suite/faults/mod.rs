//! Faults, from outside and from within: full disks, damaged journals, floods and attacks, and long
//! random runs that are judged by a checker.

/// Attacks by strangers, and their outcome: the tables of `security.md`.
mod attacks;
/// Agents that edit the files of one tree, and are killed.
mod edits;
/// One caller that keeps the others waiting.
mod fairness;
/// The journal on a full disk.
pub mod full_disk;
/// Real processes under every fault, and a checker that judges what they were told.
mod histories;
/// Agents that know nothing of claimfs, with its hook.
mod hooked;
/// Damage to a journal.
mod journal_damage;
/// Clients that notice nothing while the server is killed again and again.
pub mod kills;
/// Racers for paths that overlap, and a referee.
mod overlaps;
