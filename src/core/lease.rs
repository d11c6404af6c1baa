//! The parts of a lease: its numbers, its times, the process that it is bound to, and its first
//! content.
//!
//! Does not know: who is granted a lease, or when it ends.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Process, wire};

/// A fencing token. It rises with every grant of any name and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Token(pub u64);

/// An inode number. It is never reused, since lock clients compare inode numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ino(pub u64);

/// Tells apart the sessions that had the same id one after another. A new session inherits nothing
/// from an older one of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionKey(pub u64);

/// A waiter in a queue. The first in a queue has the lowest number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WaiterId(pub u64);

/// The present, by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock, which may jump. Only people use it.
    pub wall: SystemTime,
    /// The time since boot, with time in suspension. All deadlines use it.
    pub boot: Duration,
}

/// The time at which a lease ends unless its holder renews it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// The time from a renewal to the end.
    pub ttl: Duration,
    /// The end, as time since boot.
    pub until: Duration,
}

/// The thing that ends at a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// The leases of an inode.
    Claim(Ino),
    /// A session without processes.
    Session(SessionKey),
}

/// The process that holds a lease, if the whole session does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Only this process and those below it may change the lease.
    pub process: Process,
    /// When the process exits, the process above it holds the lease (process scope). If false, the
    /// lease ends with the process, however that ends (the pid-file idiom).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passes: bool,
    /// The process that held it before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Arc<Predecessor>>,
}

/// A process that held a lease and has exited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predecessor {
    /// Its pid.
    pub pid: u32,
    /// Its command name.
    pub command: Arc<str>,
    /// Its exit code, if it is known.
    pub exit: Option<u8>,
}

/// The kind of an inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to this target, which need not exist.
    Symlink(#[serde(with = "wire::bytes")] Arc<[u8]>),
}

/// The first state of a new inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Creation {
    /// File, directory or symlink.
    pub shape: Shape,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}
