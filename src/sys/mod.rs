//! Facilities of the kernel, one file each: system calls as safe functions with `io::Result`s.
//!
//! Promises: `unsafe` is allowed only here, by name, in the files that need it (`child`,
//! `descriptors`, `memory`, `namespace`, `pidfd`, `poll`, `signals`, `thread`); all other calls go
//! through rustix. A call that a signal interrupts is repeated where the function says so, and is
//! an error of kind `Interrupted` elsewhere.
//!
//! Does not know: everything of claimfs but the type of its file system.

pub mod child;
pub mod clock;
pub mod descriptors;
pub mod epoll;
pub mod eventfd;
pub mod files;
pub mod ids;
pub mod memory;
pub mod mount;
pub mod mountinfo;
pub mod namespace;
pub mod pidfd;
pub mod poll;
pub mod proc_events;
pub mod signals;
pub mod terminal;
pub mod thread;
pub mod timer;

use rustix::process::Pid;

/// A pid as rustix takes it; `None` for 0 and for numbers that no process can have.
fn pid(number: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(number).ok()?)
}
