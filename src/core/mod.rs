//! The vocabulary and the rules: names, processes, leases, contents, commands, events, refusals,
//! numbers of nodes, failures; whose a caller is, and the table that decides.
//!
//! Promises: every name and id is valid, so a [`Name`] or [`SessionId`] cannot be made from bytes
//! that the name rule refuses. One type, [`Event`], is what the table applies, what a journal
//! records and what readers of `events` see.
//!
//! Does not know: I/O, clocks, threads, `/proc`, fuser. Times and processes arrive as values.

pub mod agents;
mod command;
pub mod content;
pub mod encoding;
mod event;
pub mod failure;
pub mod hook;
pub mod identity;
mod lease;
mod member;
mod name;
mod node_id;
mod outcome;
mod path_map;
mod process;
mod refusal;
pub mod scaffolding;
pub mod table;
pub mod wire;

pub use self::command::{Asker, Attributes, Change, Command, NOWHERE, RemoteSession, Subject};
pub use self::event::{Durability, End, EndedBy, Event, SpaceDelta, What};
pub use self::lease::{
    Binding, Creation, Deadline, Due, Ino, Moment, Predecessor, SessionKey, Shape, Token, WaiterId,
};
pub use self::member::{Kin, Member, Rule, Scope, Standing};
pub use self::name::{
    Label, NAME_MAX, Name, PATH_BYTES_MAX, PATH_LEVELS_MAX, Place, SessionId, misleads, printable,
};
pub use self::node_id::{COUNT_END, FIRST_INO, Fixed, INO_END, KEY_END, NodeId, WAITER_END};
pub use self::outcome::Outcome;
pub use self::path_map::PathMap;
pub use self::process::{Above, Ending, Process, Root};
pub use self::refusal::Refusal;
