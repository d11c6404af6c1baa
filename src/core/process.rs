//! Processes as the rules know them: identity, ancestry within a session, and how one ended.
//!
//! Does not know: how a process is observed.

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::wire;

/// A process of this boot. No other process is equal to it, even if it gets the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// The pid in the mount's own pid namespace.
    pub pid: u32,
    /// The start, in clock ticks since boot (field 22 of `/proc/PID/stat`, proc(5)).
    pub start: u64,
    /// The inode of its pidfd, unique for the boot if the kernel has pidfs (Linux 6.9), else 0.
    pub pidfs: u64,
}

/// A process that keeps a session alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The process.
    pub process: Process,
    /// Its command name when it became a root (`/proc/PID/comm`).
    pub command: Arc<str>,
    /// When it started, by the wall clock.
    #[serde(with = "wire::moment")]
    pub started: SystemTime,
    /// Named in `sessions/` or by `claimfs session run`. Its descendants belong to the session by
    /// rule 1.
    pub registered: bool,
    /// The address of its environment, which changes with each exec. 0 if it is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub environ: u64,
    /// Under process scope, the process to which its leases pass when it exits.
    #[serde(default, skip_serializing_if = "Above::is_unknown")]
    pub above: Above,
}

/// The process above a root of a session, as of when the root joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Above {
    /// Not recorded: the session has session scope, or an older journal does not contain it.
    #[default]
    Unknown,
    /// None, or it was killed since. Leases that would pass to it are free.
    Nobody,
    /// This other root of the same session.
    Process(Process),
}

impl Above {
    /// The process, if there is one.
    pub fn process(self) -> Option<Process> {
        match self {
            Self::Process(process) => Some(process),
            Self::Unknown | Self::Nobody => None,
        }
    }

    // The signature is what serde wants.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn is_unknown(&self) -> bool {
        *self == Self::Unknown
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It exited with this code.
    Exited(u8),
    /// This signal killed it.
    Killed(u8),
    /// It is dead, and its status is lost. This counts as an exit.
    Unknown,
}

impl Ending {
    /// Reads a wait status (wait(2)). The bit for a core dump is ignored.
    pub fn of_status(status: i32) -> Self {
        let low = status & 0x7f;
        if low == 0 {
            Self::Exited(u8::try_from(status >> 8 & 0xff).unwrap_or(0))
        } else {
            Self::Killed(u8::try_from(low).unwrap_or(0))
        }
    }

    /// The signal that killed it, if its leases are free because of that. SIGPIPE does not count:
    /// it only means that a reader closed a pipe.
    pub(in crate::core) fn killed_by(self) -> Option<u8> {
        match self {
            Self::Killed(SIGPIPE) | Self::Exited(_) | Self::Unknown => None,
            Self::Killed(signal) => Some(signal),
        }
    }

    /// The exit code as a shell reports it, if it is known and the leases pass on.
    pub fn code(self) -> Option<u8> {
        match self {
            Self::Exited(code) => Some(code),
            Self::Killed(SIGPIPE) => Some(128 + SIGPIPE),
            Self::Killed(_) | Self::Unknown => None,
        }
    }
}

/// The same number on every architecture of Linux (signal(7)).
const SIGPIPE: u8 = 13;

// The signature is what serde wants.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
