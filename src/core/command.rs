//! What is asked of the table, and the changes that a holder makes of what is its.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::core::wire;

use super::{
    Creation, Due, Ending, Ino, Member, Name, Place, Process, SessionId, SessionKey, Token,
    WaiterId,
};

/// A change of what a claim contains, made by its holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Bytes at an offset.
    Write {
        /// Where, in bytes; the gap to the old end reads as zeros.
        offset: u64,
        /// What.
        #[serde(with = "wire::bytes")]
        data: Vec<u8>,
    },
    /// Bytes at the end, wherever that is by now (`O_APPEND`).
    Append {
        /// What.
        #[serde(with = "wire::bytes")]
        data: Vec<u8>,
    },
    /// Another size in bytes: cut off, or filled up with zeros.
    Resize {
        /// The new size.
        size: u64,
    },
    /// Mode and times, each if given.
    Attributes(Attributes),
    /// An extended attribute outside `user.claimfs.`; `None` removes it.
    Tag {
        /// Its full name.
        name: String,
        /// Its value.
        #[serde(with = "wire::maybe_bytes")]
        value: Option<Vec<u8>>,
    },
}

/// What chmod and utimes set, each if given. Times are kept to the nanosecond, in the future too.
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

/// Who asks, where it is the uid and the sandbox that count and not the session.
#[derive(Clone, Debug)]
pub struct Asker<'a> {
    /// The uid.
    pub uid: u32,
    /// The pid namespace; 0 for the mount's own.
    pub pidns: u64,
    /// The process and those above it.
    pub chain: &'a [Process],
    /// The command name of the process.
    pub command: Arc<str>,
}

/// The pid namespace of what lives in none that the mount can see.
pub const NOWHERE: u64 = u64::MAX;

/// A caller whose processes the mount cannot see, and who says what session it speaks for.
#[derive(Clone, Debug)]
pub struct RemoteSession {
    /// The session.
    pub id: SessionId,
    /// The uid of the caller, and so of the session.
    pub uid: u32,
    /// Its pid namespace: 0 for the mount's own, [`NOWHERE`] where the mount cannot see it.
    pub pidns: u64,
    /// The gid of the caller.
    pub gid: u32,
}

/// What somebody asks of the table.
#[derive(Clone, Debug)]
pub enum Command<'a> {
    /// Create a claim or an entry of one, or open one's own for writing if `exclusive` is not set.
    Claim {
        /// Which.
        name: Place,
        /// Who asks.
        by: &'a Member,
        /// What the file starts with.
        creation: Creation,
        /// `O_EXCL`: even the holder is told EEXIST.
        exclusive: bool,
        /// `O_TRUNC`: what the holder opens again is emptied.
        truncate: bool,
    },
    /// Open for writing: the idempotent re-claim, for the holder alone.
    Reclaim {
        /// Which inode.
        ino: Ino,
        /// Who asks.
        by: &'a Member,
        /// `O_TRUNC`.
        truncate: bool,
    },
    /// Change what a claim contains.
    Alter {
        /// Which inode.
        ino: Ino,
        /// Who asks.
        by: &'a Member,
        /// What to change.
        change: Change,
    },
    /// Remove a claim or an entry of one.
    Release {
        /// Which.
        name: Place,
        /// By rmdir(2), which wants a directory, or by unlink(2), which wants none.
        directory: bool,
        /// Who asks.
        by: &'a Member,
    },
    /// Take `to` and release `from` in one step, keeping the inode.
    Rename {
        /// The name that one holds.
        from: Place,
        /// The name to take.
        to: Place,
        /// `RENAME_NOREPLACE`: refuse a name that is there.
        noreplace: bool,
        /// Who asks.
        by: &'a Member,
    },
    /// Give an inode that one holds a further name: in `claims/`, a lease of its own.
    Link {
        /// Which inode.
        ino: Ino,
        /// The name to take.
        name: Place,
        /// Who asks.
        by: &'a Member,
    },
    /// Swap two names that one holds.
    Exchange {
        /// The one.
        one: Place,
        /// The other.
        other: Place,
        /// Who asks.
        by: &'a Member,
    },
    /// Join a session, or start it, with the roots of the member: a registration.
    Join {
        /// `O_EXCL`: a live session of that id is EEXIST.
        exclusive: bool,
        /// Who.
        by: &'a Member,
    },
    /// End a session on purpose and release all that it holds.
    End {
        /// Which.
        id: SessionId,
        /// Who asks.
        by: Asker<'a>,
    },
    /// Remove the file of a session, which ends it: one's own, if somebody said what it is.
    EndOwn {
        /// Which.
        id: SessionId,
        /// Who asks; `None` for a caller that is of no session.
        by: Option<&'a Member>,
    },
    /// Give what one holds a deadline, or none.
    Limit {
        /// Which inode.
        ino: Ino,
        /// Who asks.
        by: &'a Member,
        /// How long it is held from now, and from each renewal, on.
        ttl: Option<Duration>,
    },
    /// Hand what one holds to another live session.
    Give {
        /// Which inode: all of its names.
        ino: Ino,
        /// To which session.
        to: SessionId,
        /// Who asks.
        by: &'a Member,
    },
    /// End what has reached its deadline.
    Expire {
        /// What.
        due: Due,
    },
    /// Take a name for a session without processes, or show that it still wants what it holds.
    Hold {
        /// Which.
        name: Name,
        /// Who asks.
        by: &'a RemoteSession,
        /// How long the session lives from now on.
        ttl: Duration,
    },
    /// Give up a name of such a session.
    Yield {
        /// Which.
        name: Name,
        /// Who asks.
        by: &'a RemoteSession,
    },
    /// The clock that deadlines go by has begun again: such a session lives for its whole time once more.
    Restart {
        /// Which session.
        key: SessionKey,
    },
    /// Stand in line for a name, or take it if it is free.
    Queue {
        /// Which.
        name: Name,
        /// Who asks.
        by: &'a Member,
        /// What the claim starts with when its turn has come.
        creation: Creation,
    },
    /// The waiter knows that the name is its own now.
    Accept {
        /// Which waiter.
        waiter: WaiterId,
    },
    /// The waiter is gone: out of the line, and what it was granted without knowing it goes to the next.
    Leave {
        /// Which waiter.
        waiter: WaiterId,
    },
    /// Take a name from a holder that lives.
    Break {
        /// Which.
        name: Name,
        /// The token that it was granted with: a later grant is not meant.
        token: Token,
        /// Who asks.
        by: Asker<'a>,
    },
    /// A process is proven dead.
    Died {
        /// Which.
        process: Process,
        /// How it ended; `None` for one that nobody has waited for, and that may have been killed
        /// or not.
        ending: Option<Ending>,
    },
    /// Record, for at most `limit` leases of sessions that are over, that they are gone.
    Sweep {
        /// How many events at most.
        limit: usize,
    },
    /// A file that was made for a kernel lock, which was refused, and that nothing was written to, is closed.
    Withdraw {
        /// Which inode.
        ino: Ino,
    },
    /// Nobody has the nameless inode open any more.
    Forget {
        /// Which inode.
        ino: Ino,
    },
}

/// What must be looked at before an answer about it is given: whether its holder lives.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// The holder of a name in `claims/`.
    Name(&'a str),
    /// The holder of an inode.
    Inode(Ino),
    /// A session.
    Session(&'a SessionId),
    /// A session and each of its roots.
    Roots(&'a SessionId),
    /// Nothing: the answer is about the table as it stands.
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
    /// What it is about.
    pub fn subjects(&self) -> [Subject<'_>; 2] {
        let one = |subject| [subject, Subject::Nothing];
        match self {
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

    /// Whether it takes a name in `claims/`, or a place in the queue for one: of these there are only
    /// so many.
    pub fn takes_name(&self) -> bool {
        matches!(
            self,
            Command::Claim {
                name: Place::Claim(_),
                ..
            } | Command::Hold { .. }
                | Command::Queue { .. }
        )
    }
}
