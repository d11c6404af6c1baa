//! claimfs exposes leases as files: an exclusive create in `claims/` is an atomic, liveness-aware
//! test-and-set. This page is the map of the crate. The manual for users is `manual/`:
//! `claimfs help`, or `cat MOUNT/README` for the short form.
//!
//! # Bird's-eye view
//!
//! One [`core::Event`] type carries it. [`core::table::Table::decide`] holds every rule about
//! leases, sessions and queues and changes nothing: it turns a [`core::Command`] into events or a
//! [`core::Refusal`]. [`core::table::Table::apply`] makes an event part of the state, decides
//! nothing, and returns what the event changed for others ([`core::table::Effects`]). An event is a
//! record of the journal, a line of `events`, and a step of the model in the tests. The write path,
//! under one mutex: **decide, append, apply, publish, reply**. Recovery applies the same events
//! through the same [`handoff::Handoff::commit`].
//!
//! A module uses lower layers only. From the top:
//!
//! | folder | knows | does not know |
//! |---|---|---|
//! | `main.rs`, [`cli`] | arguments, exit codes, the files of a mount; one file a verb | the store, rules: what the command can do, a shell can |
//! | [`server`] | how the parts of a server are wired, signals, the reaper | rules |
//! | [`mount`] | options, checks before mounting, the state directory, who else has the mount | rules |
//! | [`fuse`] | decode, call, reply; the errno table; replies that wait | `/proc`, journals, rules |
//! | [`tree`] | the mount as files: nodes, attributes, listings, permissions, control lines | fuser, how a death is found out, how a change is recorded |
//! | [`store`] | the mutex, liveness before each answer, the write path, observers | fuser |
//! | [`journal`] | frames, recovery, compaction, reserved space and tokens, the history | what events mean, but for sizes and durability |
//! | [`events`] | lines for readers of `events`, wake-ups | what the lines say |
//! | [`handoff`] | what the next server on this connection must know | who asks, rules, fuser |
//! | [`render`] | leases, sessions and events as JSON and as sentences, counters | rules |
//! | [`inotify`] | the helper that makes inotify fire | why a name has gone |
//! | [`supervisor`] | the process that holds `/dev/fuse` and starts servers | what is served |
//! | [`process`] | the death watch, the cache of `/proc`, how processes ended | rules |
//! | [`logging`] | how many lines the log takes, and its file | what the lines say |
//! | [`manual`] | what users read: the pages, as plain text and as man pages; the mount's `README` | the rest |
//! | [`sys`] | facilities of the kernel, one file each | claimfs |
//! | [`core`] | vocabulary, commands, events, refusals, the table, content, identity, agents | I/O, clocks, threads, fuser |
//!
//! # Entry points
//!
//! - `claimfs VERB`: [`cli::main`], then the file of the verb.
//! - `claimfs mount`: `cli/mount.rs`, then [`mount::Plan`], which hands over to
//!   [`supervisor::run`], which starts `claimfs serve`: the server.
//! - A request of the kernel: `impl Filesystem` in [`fuse`], then [`tree::Tree`], then
//!   [`store::Store`].
//! - A death: [`process::Processes::wait`] in the thread of `server/reaper.rs`, then
//!   [`store::Store::died`]; `Table::decide` (`decide_died`, `serve_queues`),
//!   [`handoff::Handoff::commit`], and `follow_up`, which wakes the next waiter's thread
//!   (`fuse/pending.rs`): [`tree::Tree::read_stream`], [`store::Store::accept`].
//! - A rule: the `decide_…` functions below [`core::table`]. Who the caller is: [`core::identity`].
//!   Mode bits: `tree/permissions.rs`. Sizes: [`core::content`]. Which paths exclude each other:
//!   `core/table/paths.rs`; when a directory in between goes: [`core::scaffolding`].
//!
//! To add
//!
//! - a refusal: [`core::Refusal`] and the compiler; then who treats some of them differently:
//!   `Inner::carry_out` (tries again after two), `render::unseen`, and the verbs in [`cli`] that
//!   look at an errno. Another errno for one: `fuse/errno.rs`, and the tables in `manual/`;
//! - a fixed file: [`core::Fixed`] at its end, and the compiler; `tree/open.rs` if it is more than
//!   a text, `tree/list.rs` if it is not listed, `manual/mount.txt`
//!   and `manual/semantics.md`;
//! - an event: [`core::What`], which lists what follows;
//! - an agent: a row in [`core::agents`], and in `manual/agents.md`;
//! - a page: [`manual::PAGES`].
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | session | the scope that lives or dies: an id, a uid, roots, perhaps a deadline |
//! | root | a process that keeps a session alive |
//! | lease, claim | a name that a session holds; the file that shows it, and the verb |
//! | reservation, scaffolding | a lease of a path and all below it; the directories around those |
//! | token | the fencing token: it rises with every grant |
//! | holder, maker | who may change a lease now: a session or a process; the process that made it |
//! | scope | session scope: the whole session holds. Process scope: the maker, and who is below it |
//! | pass | the holder exited, and its parent holds |
//! | release, expire, reap | the holder gives up; a deadline passed; the holder is proven dead |
//! | binding | a lease that ends with a process: the pid-file idiom |
//! | ancestry | a caller and the processes above it |
//! | member, principal | a caller as part of a session; a caller, resolved |
//! | queue, waiter, seat | who waits for a name, in order; one of them; its place |
//! | ring | waiters of which each waits for a name of the next, and the last for one of the first |
//! | command, event, effects, outcome | what is asked; what happened; what that changed; the answer |
//! | remote session | a session without processes, which lives by a deadline |
//! | hand off | what a server leaves to the next: replies, descriptors, the spool |
//!
//! # One claim, followed through the house
//!
//! `set -C; echo > claims/x`:
//!
//! 1. The kernel asks LOOKUP. [`fuse`] calls [`tree::Tree::lookup`], which reads the lease by
//!    [`store::Store::read`]. That checks the liveness of its holder first: a dead one is recorded
//!    as dead, and `x` does not exist.
//! 2. The kernel sends CREATE. The tree resolves the caller to a [`store::Principal`]: its ancestry
//!    is read before any lock is taken.
//! 3. [`store::Store::create`] takes the mutex, resolves the caller's session to a [`core::Member`]
//!    and has the table decide. The answer is EEXIST, or the events `SessionStarted`, `Joined`,
//!    `Claimed`.
//! 4. The processes that become roots are watched. The journal has the events before anything else
//!    does.
//! 5. The events are applied, and observers follow: counters, readers of `events`, waiters, the
//!    log.
//! 6. The [`core::Outcome`] is the answer, and is kept until the kernel has it: should this server
//!    be killed, the kernel sends the request again, and the next server gives the same answer.
//!
//! # Invariants
//!
//! 1. A name has at most one lease, and a lease one holder: the table's maps cannot say otherwise.
//! 2. A holder is dead only on proof. An error, a stopped process or a zombie leader with living
//!    threads is no proof.
//! 3. An answer about a name is given after a look at its holder: no timeout stands between a death
//!    that its parent has seen and the next grant. Only who waits, and what a waiter is told
//!    meanwhile, is told without one.
//! 4. Tokens, inode numbers and session keys only rise.
//! 5. Nothing is granted before the journal has it, and every root of a live session is watched
//!    before it counts.
//! 6. A request is carried out once, however often it is sent.
//! 7. Each range of numbers has one meaning ([`core::NodeId`]), and a journal that breaks this is
//!    refused.
//!
//! # Locks
//!
//! In this order: one descriptor of `queue/`, the store's mutex, the one inside
//! [`process::Processes`], that of [`events::EventStream`] and that of its wake-ups. All others are
//! leaves, under which no other is taken: pending replies, the tree's maps, ancestries and arrivals
//! of the store, the queues of workers, the caches of [`process`], the log. The kernel is notified
//! under none of them, and the inotify notifier, which never waits, is told outside of the store's.

// Only what the binary, the tests and the fuzz targets use is `pub`.
#![warn(unreachable_pub)]
// This page is for who changes the source: cargo doc --no-deps --document-private-items --open
#![allow(rustdoc::private_intra_doc_links)]

pub mod cli;
pub mod core;
mod events;
pub mod fuse;
pub mod handoff;
mod inotify;
pub mod journal;
mod logging;
pub mod manual;
mod mount;
pub mod process;
pub mod render;
mod server;
mod store;
pub mod supervisor;
pub mod sys;
pub mod tree;
