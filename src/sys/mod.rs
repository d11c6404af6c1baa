//! Facilities of the kernel, one file each: system calls as safe functions.
//!
//! Promises: `unsafe` is allowed only here, by name, in the files that need it (`child`,
//! `descriptors`, `exec`, `memory`, `namespace`, `pidfd`, `poll`, `signals`, `thread`); all other
//! calls go through rustix. A call that a signal interrupts is repeated where the function says so,
//! and is an error of kind `Interrupted` elsewhere.
//!
//! Does not know: anything of claimfs but the type of its file system.

pub(crate) mod child;
pub(crate) mod clock;
pub(crate) mod descriptors;
pub(crate) mod epoll;
pub(crate) mod eventfd;
pub(crate) mod exec;
pub(crate) mod files;
pub(crate) mod ids;
pub(crate) mod inotify;
pub(crate) mod memory;
pub(crate) mod mount;
pub mod mountinfo;
pub(crate) mod namespace;
pub(crate) mod pidfd;
pub(crate) mod poll;
pub(crate) mod proc_events;
pub(crate) mod signals;
pub(crate) mod terminal;
pub(crate) mod thread;
pub(crate) mod timer;

use rustix::process::Pid;

/// A pid as rustix takes it; `None` for 0 and for numbers that no process can have.
fn pid(number: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(number).ok()?)
}
