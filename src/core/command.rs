//! Commands: the requests to the table, and the changes of a claim's content.
//!
//! Does not know: whether a command is granted.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::core::wire;

use super::{
    Creation, Due, Ending, Ino, Member, Name, Place, Process, SessionId, SessionKey, Token,
    WaiterId,
};

/// A change of the content of an inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Write bytes at an offset.
    Write {
        /// The offset in bytes. A gap after the old end reads as zeros.
        offset: u64,
        /// The bytes.
        #[serde(with = "wire::bytes")]
        data: Vec<u8>,
    },
    /// Write bytes at the end, as of when the change is applied (`O_APPEND`).
    Append {
        /// The bytes.
        #[serde(with = "wire::bytes")]
        data: Vec<u8>,
    },
    /// Cut the body off, or fill it up with zeros.
    Resize {
        /// The new size in bytes.
        size: u64,
    },
    /// Set mode and times.
    Attributes(Attributes),
    /// Set or remove an extended attribute outside of `user.claimfs.`.
    Tag {
        /// Its full name.
        name: String,
        /// Its value. `None` removes it.
        #[serde(with = "wire::maybe_bytes")]
        value: Option<Vec<u8>>,
    },
}

/// The attributes that chmod and utimes set, each if given. Times are kept to the nanosecond, also
/// in the future.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Time of last access.
    #[serde(with = "wire::maybe_moment")]
    pub atime: Option<SystemTime>,
    /// Time of last modification.
    #[serde(with = "wire::maybe_moment")]
    pub mtime: Option<SystemTime>,
}

/// A caller whose uid and sandbox decide, and not its session.
#[derive(Clone, Debug)]
pub struct Asker<'a> {
    /// The uid.
    pub uid: u32,
    /// The pid namespace. 0 for the mount's own.
    pub pidns: u64,
    /// The process and those above it.
    pub chain: &'a [Process],
    /// The command name of the process.
    pub command: Arc<str>,
}

/// A pid namespace that the mount cannot see.
pub const NOWHERE: u64 = u64::MAX;

/// A caller whose processes the mount cannot see, and which names its session.
#[derive(Clone, Debug)]
pub struct RemoteSession {
    /// The session.
    pub id: SessionId,
    /// The uid of the caller, and so of the session.
    pub uid: u32,
    /// Its pid namespace: 0 for the mount's own, [`NOWHERE`] if the mount cannot see it.
    pub pidns: u64,
    /// The gid of the caller.
    pub gid: u32,
}

/// A request to the table.
#[derive(Clone, Debug)]
pub enum Command<'a> {
    /// Create a claim or an entry of one. If `exclusive` is not set, the holder may open an
    /// existing one for writing.
    Claim {
        /// The place.
        name: Place,
        /// The caller.
        by: &'a Member,
        /// The first state of the inode.
        creation: Creation,
        /// `O_EXCL`: EEXIST also for the holder.
        exclusive: bool,
        /// `O_TRUNC`: empty a file that the holder opens again.
        truncate: bool,
    },
    /// Open for writing, which only the holder may: the idempotent re-claim.
    Reclaim {
        /// The inode.
        ino: Ino,
        /// The caller.
        by: &'a Member,
        /// `O_TRUNC`.
        truncate: bool,
    },
    /// Change the content of an inode.
    Alter {
        /// The inode.
        ino: Ino,
        /// The caller.
        by: &'a Member,
        /// The change.
        change: Change,
    },
    /// Remove a claim or an entry of one.
    Release {
        /// The place.
        name: Place,
        /// By rmdir(2), which removes directories, or by unlink(2), which removes all others.
        directory: bool,
        /// The caller.
        by: &'a Member,
    },
    /// Take `to` and release `from` in one step, keeping the inode.
    Rename {
        /// A name of the caller.
        from: Place,
        /// The name to take.
        to: Place,
        /// `RENAME_NOREPLACE`: refuse a name that exists.
        noreplace: bool,
        /// The caller.
        by: &'a Member,
    },
    /// Give an inode of the caller another name. In `claims/`, that name has its own lease.
    Link {
        /// The inode.
        ino: Ino,
        /// The name to take.
        name: Place,
        /// The caller.
        by: &'a Member,
    },
    /// Exchange two names of the caller.
    Exchange {
        /// The first name.
        one: Place,
        /// The second name.
        other: Place,
        /// The caller.
        by: &'a Member,
    },
    /// Join or start a session with the processes of the member: a registration.
    Join {
        /// `O_EXCL`: EEXIST if the session is alive.
        exclusive: bool,
        /// The member.
        by: &'a Member,
    },
    /// End a session and release its leases.
    End {
        /// The session.
        id: SessionId,
        /// The caller.
        by: Asker<'a>,
    },
    /// End a session by removing its file. Only for the caller's own session, by rules 1 to 3.
    EndOwn {
        /// The session.
        id: SessionId,
        /// The caller. `None` if it has no session.
        by: Option<&'a Member>,
    },
    /// Set or remove the deadline of a claim.
    Limit {
        /// The inode.
        ino: Ino,
        /// The caller.
        by: &'a Member,
        /// The time from now and from each renewal to the deadline. `None` removes it.
        ttl: Option<Duration>,
    },
    /// Hand a claim to another live session.
    Give {
        /// The inode, with all of its names.
        ino: Ino,
        /// The session.
        to: SessionId,
        /// The caller.
        by: &'a Member,
    },
    /// Hand all reservations below a path to another live session.
    GiveBelow {
        /// The path.
        path: Name,
        /// The session.
        to: SessionId,
        /// The caller.
        by: &'a Member,
    },
    /// Take several names for the caller, all or none. Those that it holds already stay. A
    /// reservation takes the place of the caller's own ones below it.
    Take {
        /// The names.
        names: Vec<Name>,
        /// The caller.
        by: &'a Member,
        /// The first state of each new inode.
        creation: Creation,
        /// The reason for each that is new.
        reason: Option<String>,
    },
    /// Give up several names, all or none, and the caller's reservations below those that are
    /// paths. A name that is free stays so.
    Drop {
        /// The names.
        names: Vec<Name>,
        /// The caller.
        by: &'a Member,
    },
    /// End a claim or a session at its deadline.
    Expire {
        /// The claim or the session.
        due: Due,
    },
    /// Take a name for a session without processes, or renew the session.
    Hold {
        /// The name.
        name: Name,
        /// The caller.
        by: &'a RemoteSession,
        /// The time from now to the deadline of the session.
        ttl: Duration,
    },
    /// Give up a name of such a session.
    Yield {
        /// The name.
        name: Name,
        /// The caller.
        by: &'a RemoteSession,
    },
    /// Start the full time of such a session again, after a boot.
    Restart {
        /// The session.
        key: SessionKey,
    },
    /// Join the queue for a name, or take the name if it is free.
    Queue {
        /// The name.
        name: Name,
        /// The caller.
        by: &'a Member,
        /// The first state of the claim.
        creation: Creation,
    },
    /// Record that the waiter has read its grant.
    Accept {
        /// The waiter.
        waiter: WaiterId,
    },
    /// Remove a waiter from its queue. A grant that it has not read goes to the next one.
    Leave {
        /// The waiter.
        waiter: WaiterId,
    },
    /// Take a name from a living holder.
    Break {
        /// The name.
        name: Name,
        /// Its token. A later grant is not broken.
        token: Token,
        /// The caller.
        by: Asker<'a>,
    },
    /// Record that a process is proven dead.
    Died {
        /// The process.
        process: Process,
        /// How it ended. `None` if that is not known yet.
        ending: Option<Ending>,
    },
    /// Record the loss of leases whose session is over or whose process is dead.
    Sweep {
        /// The largest number of events.
        limit: usize,
    },
    /// Remove an empty file that was created for a kernel lock which was then refused.
    Withdraw {
        /// The inode.
        ino: Ino,
    },
    /// Remove an inode without a name that nobody has open any more.
    Forget {
        /// The inode.
        ino: Ino,
    },
}

/// The holder whose liveness must be checked before an answer.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// The holder of a name in `claims/`.
    Name(&'a str),
    /// The holders of names, and of all reservations above and below those that are paths, as far
    /// as they decide whether the member may take them.
    Names(&'a [Name], &'a Member),
    /// The holder of an inode.
    Inode(Ino),
    /// A session.
    Session(&'a SessionId),
    /// A session and each of its roots.
    Roots(&'a SessionId),
    /// Nobody: the answer needs no check.
    Nothing,
}

impl<'a> From<&'a Place> for Subject<'a> {
    fn from(place: &'a Place) -> Self {
        match place {
            Place::Claim(name) => Self::Name(name.as_str()),
            Place::Inside { dir, .. } => Self::Inode(*dir),
        }
    }
}

impl Command<'_> {
    /// The holders to check before it is decided.
    pub fn subjects(&self) -> [Subject<'_>; 2] {
        let one = |subject| [subject, Subject::Nothing];
        match self {
            Command::Claim {
                name: Place::Claim(name),
                by,
                ..
            } if name.is_path() => one(Subject::Names(std::slice::from_ref(name), by)),
            Command::GiveBelow { path, to, by } => [
                Subject::Names(std::slice::from_ref(path), by),
                Subject::Session(to),
            ],
            Command::Take { names, by, .. } | Command::Drop { names, by } => {
                one(Subject::Names(names, by))
            }
            Command::Claim { name, .. } | Command::Release { name, .. } => one(name.into()),
            Command::Reclaim { ino, .. }
            | Command::Alter { ino, .. }
            | Command::Limit { ino, .. } => one(Subject::Inode(*ino)),
            Command::Rename { from, to, .. } => [from.into(), to.into()],
            Command::Link { ino, name, .. } => [Subject::Inode(*ino), name.into()],
            Command::Exchange { one, other, .. } => [one.into(), other.into()],
            Command::Join { by, .. } => one(Subject::Session(&by.id)),
            Command::End { id, .. } | Command::EndOwn { id, .. } => one(Subject::Session(id)),
            Command::Give { ino, to, .. } => [Subject::Inode(*ino), Subject::Session(to)],
            Command::Hold { name, by, .. } | Command::Yield { name, by } => {
                [Subject::Name(name.as_str()), Subject::Session(&by.id)]
            }
            Command::Queue { name, .. } | Command::Break { name, .. } => {
                one(Subject::Name(name.as_str()))
            }
            Command::Expire { .. }
            | Command::Restart { .. }
            | Command::Accept { .. }
            | Command::Leave { .. }
            | Command::Died { .. }
            | Command::Sweep { .. }
            | Command::Withdraw { .. }
            | Command::Forget { .. } => [Subject::Nothing; 2],
        }
    }

    /// True for a command that gives names up and is only a line in `control`, no call.
    pub fn is_line(&self) -> bool {
        matches!(
            self,
            Command::Take { .. } | Command::Drop { .. } | Command::Yield { .. }
        )
    }

    /// True if it takes a name in `claims/` or a place in a queue, of which the number is limited.
    pub fn takes_name(&self) -> bool {
        matches!(
            self,
            Command::Claim {
                name: Place::Claim(_),
                ..
            } | Command::Hold { .. }
                | Command::Take { .. }
                | Command::Queue { .. }
        )
    }
}
