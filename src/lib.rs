//! claimfs exposes leases as files: creating an entry in `claims/` exclusively is an atomic, liveness-aware
//! test-and-set. This page is the map of the crate; the manual for users is README.md, or `cat MOUNT/README`.
//!
//! # One idea
//!
//! There is one [`core::Event`] type. [`table::Table::decide`] holds every rule and changes nothing; it turns a
//! [`core::Command`] into events or a [`core::Refusal`]. [`table::Table::apply`] makes an event part of the state and
//! decides nothing. An event is what a journal records, what watchers read and what tests step through. The write path,
//! under one mutex: **decide, append, apply, publish, reply**.
//!
//! # The parts
//!
//! ```text
//!  argv ─ main ─ cli ── files of a mount            (the command uses nothing that a shell could not)
//!                 └── mount ─ supervisor, mounts         (a mount's life)
//!
//!  kernel ─ fs ─ tree ─ store ─ table ─ lease        (a request's way down)
//!                         │       └──── content
//!                         ├── identity               (whose lease is it?)
//!                         ├── process ─ /proc, pidfds
//!                         ├── journal                (appended to before anything is applied)
//!                         ├── news ─ readers, waiters (what happens, for those who wait for it)
//!                         └── notifier                 (what went by itself, for those who watch)
//!  reaper ─────────────── ┘                          (deaths, deadlines)
//! ```
//!
//! | file | knows | *deliberately absent* |
//! |---|---|---|
//! | `lease.rs`, `lease/*.rs` | names, sessions, commands, events, refusals | I/O, clocks, fuser |
//! | `table.rs`, `table/*.rs` | the rules: grant, refuse, release, reap, join, end; the state | I/O, clocks, threads, fuser |
//! | `content.rs`, `content/ask.rs` | what a claim contains and asks for, and its limits | who holds it |
//! | `rare.rs` | parts that most values have nothing in | what they are parts of |
//! | `agents.rs` | the known coding agents: data | everything |
//! | `identity.rs` | from a caller to its session, over a view of processes | `/proc`, pidfds |
//! | `record.rs` | leases and sessions as JSON | rules |
//! | `process.rs`, `process/*.rs` | pidfds, `/proc`, signals, what was read of processes a moment ago, how they ended; `unsafe` in the first and in `process/connector.rs` | rules |
//! | `store.rs`, `store/*.rs` | the mutex: table, journal, publishing; when requests came that wait | fuser |
//! | `journal.rs`, `journal/*.rs`, `wire.rs` | checksummed frames, what damage is, the picture of a table, tokens set aside | what events mean |
//! | `texts.rs` | what is read in several reads, for the server after this one | what it says |
//! | `stream.rs` | lines for readers of `events`, and the bell for those who wait | what the lines say |
//! | `notifier.rs` | the helper that tells inotify | why a name has gone |
//! | `reaper.rs` | waits on pidfds and deadlines, tells the store | rules, fuser |
//! | `tree.rs`, `tree/*.rs` | the mount as files: nodes, modes, rendering, waiting | fuser, the inside of the store |
//! | `fs.rs`, `fs/*.rs` | decode, call, reply; the errno table; the uid rules | `/proc`, journals |
//! | `connection.rs` | what one connection to the kernel is owed, whichever server answers on it | how it is kept |
//! | `supervisor.rs`, `supervisor/*.rs` | the `/dev/fuse` descriptor, and servers on it; `unsafe` in `device.rs` | what is served |
//! | `mounts.rs` | `/proc/self/mountinfo` | how mounts come and go |
//! | `mount.rs` | mounting, signals, wiring | rules |
//! | `mount/*.rs` | the state directory and its locks, who else has a mount, ending the server from before | what is served |
//! | `metrics.rs` | counters | what they mean |
//! | `logging.rs`, `logging/*.rs` | how many lines the log takes, and its file | what the lines say |
//! | `cli.rs`, `cli/*.rs` | clap, exit codes, plain file calls | the store |
//!
//! # Invariants
//!
//! 1. A name has at most one lease, and a lease one holder: the table's maps cannot say otherwise.
//! 2. A holder is dead only on proof; an error, a stopped process or a zombie leader with living threads is none.
//! 3. Whoever asks about a name is answered after its holder was looked at: no timeout stands between a death that
//!    its parent has seen and the next grant.
//! 4. Tokens, inode numbers and session keys only rise, so neither a lock client that compares inodes nor a restarted
//!    session id is ever taken for its predecessor.
//! 5. Nothing is granted before it was appended, and every root of a live session is watched before it counts.
//! 6. A request is carried out once, however often it is sent: what was carried out is in the journal with its number, for as long as
//!    the kernel may not have its answer.
//!
//! # Locks
//!
//! In this order: the thread of pending replies's lot of parked reads (`fs/lot.rs`), the tree's map of waiting descriptors, the store's mutex,
//! the one inside [`process::Processes`], that of [`events::EventStream`]. Leaves, under which nothing is called: the store's walks, the
//! requests that wait (`store/arrivals.rs`), the tree's other maps of open files, the queues of `fs/workers.rs`, what is kept of
//! processes (`process/known.rs`), what is told of their ends (`process/connector.rs`) and the readers of their memory
//! (`process/reader.rs`). Nobody is answered, and no kernel notified, under any of them but the store's.

pub mod cli;
pub mod core;
pub mod events;
pub mod fuse;
pub mod handoff;
pub mod inotify;
pub mod journal;
pub mod logging;
pub mod mount;
pub mod process;
pub mod render;
pub mod server;
pub mod store;
pub mod supervisor;
pub mod sys;
pub mod tree;
