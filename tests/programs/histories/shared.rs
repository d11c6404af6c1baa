//! The memory that all processes of the test share: a file that each of them maps. It steers them,
//! and proves nothing.

use std::ffi::OsStr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};

use crate::support::memory::map;

/// The clients.
pub const SLOTS: usize = 8;

/// A client holds something.
pub const HOLDS: u64 = 1;
/// A client waits in a queue.
pub const WAITS: u64 = 2;

/// A client that says nothing of a session: what it claims is its process's.
pub fn is_in_terminal(slot: usize) -> bool {
    slot >= SLOTS / 2
}

/// The session of such a client, by its pid: it is the first process of a POSIX session.
pub fn in_terminal(pid: u64) -> String {
    format!("sid-{pid}-uid-{}", unsafe { libc::geteuid() })
}

#[repr(C)]
pub struct Shared {
    /// Seconds that the wall clock of the server is ahead of the machine's. `clock.c` reads this,
    /// at the very beginning.
    pub ahead: AtomicI64,
    /// The clients are to give up what they hold, and end.
    pub stop: AtomicU64,
    /// How many clients have given up all that they knew of, and give nothing to others any more.
    pub idle: AtomicU64,
    /// [`HOLDS`] and [`WAITS`] of each client.
    pub state: [AtomicU64; SLOTS],
    /// The number of the session of each client.
    pub sessions: [AtomicU64; SLOTS],
}

impl Shared {
    /// Makes the file, or opens it if it is there.
    pub fn open(file: impl AsRef<OsStr>) -> &'static Self {
        // It is nothing but atomics.
        unsafe { map(file.as_ref().as_ref()) }
    }

    /// The session of a client.
    pub fn session(&self, slot: usize) -> String {
        let number = self.sessions[slot].load(SeqCst);
        if is_in_terminal(slot) {
            in_terminal(number)
        } else {
            format!("c{number}")
        }
    }
}
