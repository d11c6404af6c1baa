//! The tests, in one binary, a module for each thing that they are about. How they work, and how to run one of them,
//! stands in `support.rs`.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![allow(missing_docs, clippy::float_cmp, clippy::format_push_string)]
// The actor is one match over the calls that it makes.
#![allow(clippy::too_many_lines)]

// A process that makes the system calls that a test asks it for.
mod actor;
// What strangers try, and what comes of it: the table of the README.
mod attacks;
// Unmounting and mounting again while sandboxes have the mount.
mod beside;
// Names taken from holders that live.
mod breaking;
// Programs that delete or repair all that they find.
mod cleaners;
// The command line.
mod cli;
// `claimfs run`, and the other verbs that wait and watch.
mod command;
// Every command and every promise that the documentation prints.
mod docs;
// Coding agents and sandboxes, made up and with stand-ins.
mod agents;
// Scripts in containers.
mod containers;
// The same calls on a claim and on tmpfs.
mod alike;
// What is wrong, and what to do about it.
mod doctor;
// How a process ended, as each source of it tells.
mod endings;
// What happens, as it happens.
mod events;
// The journal on a disk that is full.
mod full_disk;
// What real processes were told under every fault there is, and a checker that judges it afterwards.
mod histories;
// Whose lease is it, in the pure core: a made-up tree of processes.
mod identity;
// Nobody keeps others waiting.
mod fairness;
// The bodies of the fuzz targets, over what was found so far.
mod fuzzed;
// Waiters that are killed as they are granted a name.
mod granted;
// What is inside a directory claim.
mod inside;
// What inotify tells of claims.
mod watchers;
// Claims that are directories, symlinks and further names.
mod kinds;
// Clients that notice nothing while the server is killed again and again.
mod kills;
// How much the log says, and how large it becomes.
mod logs;
// The mount's life: what it refuses, how it ends, what it leaves.
mod life;
// What a server leaves to the next one.
mod journal;
// Damage to a journal, all that one bit can do among it.
mod journal_damage;
// Everything at random, and nothing that stays behind.
mod leaks;
// Sessions without processes, for callers that the mount cannot see.
mod named;
// Mounts of other users.
mod other_mounts;
// The pid-file idiom.
mod pidfile;
// The rules of the table one by one, in the pure core.
mod model;
// Each row of the tables, with raw system calls.
mod mount;
// Debian's older kernels, in virtual machines.
mod old_kernels;
// Second users: the uid rules.
mod permission;
// Standing in line for a name.
mod queue;
// Processes that die, stop, and come back with the same pid.
mod race;
// Eight processes that are released together on a name.
#[path = "../bench/race.rs"]
#[allow(unused_imports)]
mod racers;
// A mount that outlives its servers.
mod supervisor;
// Programs that have workers.
mod programs;
// Names, numbers and environments that prove nothing.
mod proofs;
// Everything at random, against the README said naively, in the pure core.
mod reference;
// Servers that are killed at the worst of moments.
mod restart;
// Sandboxes that have the mount in them, and what is there for agents.
mod sandbox;
// Names with a leading dot.
mod scratch;
// Scripts of one terminal, in each shell.
mod scripts;
// Who has no part in what a script holds, though it started them.
mod strangers;
// All that three sessions can do with two names, in the pure core.
mod small_world;
// Where the state may be kept, and who may see it.
mod state_dir;
// What the system's own tools start: systemd, mount(8).
mod service;
// Whose lease is it, with real processes.
mod session;
// Process scope, in the pure core.
mod scope;
// Mounts and actors that clean up after themselves.
mod support;
// The form of the repository's own files.
mod tidy;
// Deadlines, and leases that change hands.
mod terms;
// The story of the README, wherever it is played.
mod try_it;
