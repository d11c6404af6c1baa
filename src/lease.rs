//! The vocabulary: names, sessions, leases, and the commands, events and refusals that the rules speak in.
//!
//! Promises: every value that exists is valid ([`Name`] and [`SessionId`] cannot be made of anything that the name
//! rule refuses), and one [`Event`] type is what the table applies, what a journal records and what watchers read.
//!
//! Deliberately ignorant of: files, clocks, `/proc`, fuser. Times and processes arrive as values.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// The longest name of a claim or a session, in bytes: what `NAME_MAX` is on other filesystems.
pub const NAME_MAX: usize = 255;

/// The name of a lease: the file name under `claims/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// The id of a session: the file name under `sessions/`, and the value of a session variable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

/// looop's rule for names, which holds for session ids too: not empty, no leading `.` (and so neither `.` nor `..`),
/// no `/` and no `\`, no NUL; UTF-8 ([`Refusal::BadName`], EINVAL) and at most 255 bytes ([`Refusal::LongName`],
/// ENAMETOOLONG).
fn valid(raw: &[u8]) -> Result<Arc<str>, Refusal> {
    if raw.len() > NAME_MAX {
        return Err(Refusal::LongName);
    }
    let text = std::str::from_utf8(raw).map_err(|_| Refusal::BadName)?;
    if text.is_empty() || text.starts_with('.') || text.contains(['/', '\\', '\0']) {
        return Err(Refusal::BadName);
    }
    Ok(Arc::from(text))
}

impl Name {
    /// A claim's name, if the name rule admits it: EINVAL or ENAMETOOLONG otherwise.
    pub fn new(raw: &[u8]) -> Result<Self, Refusal> {
        valid(raw).map(Self)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SessionId {
    /// A session's id, if the name rule admits it: EINVAL or ENAMETOOLONG otherwise.
    pub fn new(raw: &[u8]) -> Result<Self, Refusal> {
        valid(raw).map(Self)
    }

    /// The id of a POSIX session (rule 5): the number of the session and the uid, which stay when its leader dies.
    pub fn posix(sid: u32, uid: u32) -> Self {
        Self(Arc::from(format!("sid-{sid}-uid-{uid}")))
    }

    /// The id of a POSIX session that has no number in the mount's pid namespace, by the topmost of its processes there.
    pub fn outside(top: &Process) -> Self {
        Self(Arc::from(format!("outside-{}-{}", top.pid, top.start)))
    }

    /// The uid in the id of a POSIX session; `None` for any other id.
    pub fn posix_uid(&self) -> Option<u32> {
        let (sid, uid) = self.0.strip_prefix("sid-")?.split_once("-uid-")?;
        sid.parse::<u32>().ok()?;
        uid.parse().ok()
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

/// Text that a stranger chose, fit for a terminal or a log line: control characters come out escaped.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// The fencing token: rises with every grant of any name, and is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// An inode number: unique and never used again, since lock clients compare them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

/// Which session, of all that ever bore an id: a restarted id is another session and inherits nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub u64);

/// One process of this boot, told from every other that had or will have its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// The pid, as the mount's own pid namespace numbers it.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`, proc(5)).
    pub start: u64,
    /// The inode of its pidfd, unique for the boot where the kernel has pidfs (6.9 on); else 0.
    pub pidfs: u64,
}

/// A process that keeps a session alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The process.
    pub process: Process,
    /// Its command name when it became a root (`/proc/PID/comm`).
    pub command: Arc<str>,
    /// When it started.
    pub started: SystemTime,
    /// Named in `sessions/` or by `claimfs session run`: its descendants belong to the session by rule 1.
    pub registered: bool,
}

/// How a caller came by its session. Rules 3 and 4 (known agents, sandboxes) come between these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Rule 1: a root that was registered in `sessions/`.
    Registered,
    /// Rule 2: a session variable in the environment.
    Variable,
    /// Rule 5: the POSIX session, shared by whatever runs in one terminal.
    Posix,
}

impl Rule {
    /// The word for it in records and in `self`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Variable => "variable",
            Self::Posix => "posix",
        }
    }
}

/// A caller, resolved: the session that it speaks for and the processes that it would add to that session's roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The session it belongs to, which need not exist yet.
    pub id: SessionId,
    /// The rule that says so.
    pub rule: Rule,
    /// The caller's uid: only sessions of the same uid are joined.
    pub uid: u32,
    /// The pid namespace of the topmost root: only a session of the same one is joined by an unrelated tree.
    pub pidns: u64,
    /// From the topmost process that the rule finds down to the caller.
    pub roots: Vec<Root>,
    /// The caller, its parent, and so on up as far as the uid is the same.
    pub lineage: Vec<Kin>,
    /// The caller's own process id.
    pub pid: u32,
    /// The caller's command name.
    pub command: Arc<str>,
}

/// A process of a caller's lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kin {
    /// Which process.
    pub process: Process,
    /// Its pid as the caller's own pid namespace numbers it; 0 if it has none there.
    pub pid: u32,
}

/// The process that a lease ends with although its session may live on: the pid-file idiom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Which process.
    pub process: Process,
    /// The processes above it when it was bound: they are of its tree too.
    pub above: Vec<Process>,
}

impl Binding {
    /// Whether a member is of the bound process's tree: that process, one above it, or one below it.
    pub fn admits(&self, by: &Member) -> bool {
        let below = by.lineage.iter().any(|kin| kin.process == self.process);
        let caller = by.lineage.first().map(|kin| kin.process);
        below || caller.is_some_and(|caller| self.above.contains(&caller))
    }
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All of its roots are proven dead: what it held is reaped.
    Died,
    /// Its uid or root removed `sessions/ID`: what it held is released.
    Ended,
}

/// What a claim is made as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to this, which need not exist.
    Symlink(Arc<[u8]>),
}

/// What a new inode starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// A change of what a claim contains, made by its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Bytes at an offset.
    Write {
        /// Where, in bytes; the gap to the old end reads as zeros.
        offset: u64,
        /// What.
        data: Vec<u8>,
    },
    /// Bytes at the end, wherever that is by now (`O_APPEND`).
    Append {
        /// What.
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
        value: Option<Vec<u8>>,
    },
}

/// What chmod and utimes set, each if given. Times are kept to the nanosecond, in the future too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Time of last access.
    pub atime: Option<SystemTime>,
    /// Time of last modification.
    pub mtime: Option<SystemTime>,
}

/// What somebody asks of the table.
#[derive(Clone, Debug)]
pub enum Command<'a> {
    /// Create a claim, or open one's own for writing if `exclusive` is not set.
    Claim {
        /// Which.
        name: Name,
        /// Who asks.
        by: &'a Member,
        /// What the file starts with.
        creation: Creation,
        /// `O_EXCL`: even the holder is told EEXIST.
        exclusive: bool,
        /// `O_TRUNC`: what the holder opens again is emptied.
        truncate: bool,
    },
    /// Open a claim for writing: the idempotent re-claim, for its holder alone.
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
    /// Remove a claim.
    Release {
        /// Which.
        name: Name,
        /// By rmdir(2), which wants a directory, or by unlink(2), which wants none.
        directory: bool,
        /// Who asks.
        by: &'a Member,
    },
    /// Take `to` and release `from` in one step, keeping the inode.
    Rename {
        /// The claim that one holds.
        from: Name,
        /// The name to take.
        to: Name,
        /// `RENAME_NOREPLACE`: refuse a name that anybody holds.
        noreplace: bool,
        /// Who asks.
        by: &'a Member,
    },
    /// Give an inode that one holds a further name: a lease of its own.
    Link {
        /// Which inode.
        ino: Ino,
        /// The name to take.
        name: Name,
        /// Who asks.
        by: &'a Member,
    },
    /// Swap two names that one holds.
    Exchange {
        /// The one.
        one: Name,
        /// The other.
        other: Name,
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
    /// End a session and release all that it holds.
    End {
        /// Which.
        id: SessionId,
        /// The uid that asks.
        uid: u32,
        /// Its pid namespace; 0 for the mount's own.
        pidns: u64,
        /// The process that asks and those above it.
        chain: &'a [Process],
    },
    /// Take a name from a holder that lives.
    Break {
        /// Which.
        name: Name,
        /// The token that it was granted with: a later grant is not meant.
        token: Token,
        /// The uid that asks.
        uid: u32,
        /// Its pid namespace; 0 for the mount's own.
        pidns: u64,
        /// The process that asks and those above it.
        chain: &'a [Process],
        /// Its command name.
        command: Arc<str>,
    },
    /// A process is proven dead.
    Died {
        /// Which.
        process: Process,
    },
    /// Record, for at most `limit` leases of sessions that are over, that they are gone.
    Sweep {
        /// How many events at most.
        limit: usize,
    },
    /// Nobody has the nameless inode open any more.
    Forget {
        /// Which inode.
        ino: Ino,
    },
}

/// Something that happened: a line of the journal, a line of `events`, a step of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number; the next event has the next number.
    pub seq: u64,
    /// The wall clock when it was decided.
    pub at: SystemTime,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A session began.
    SessionStarted {
        /// Which of all sessions.
        key: SessionKey,
        /// Its id.
        id: SessionId,
        /// Its uid.
        uid: u32,
        /// Its pid namespace.
        pidns: u64,
        /// The rule that made it.
        rule: Rule,
    },
    /// A process became a root of a session, or was registered as one.
    Joined {
        /// Which session.
        key: SessionKey,
        /// Which process.
        root: Root,
    },
    /// A root died.
    Left {
        /// Which session.
        key: SessionKey,
        /// Which process.
        process: Process,
    },
    /// A session is over; its names are free from here on, though each lease still gets an event of its own.
    SessionEnded {
        /// Which session.
        key: SessionKey,
        /// Why.
        why: End,
    },
    /// A name was granted.
    Claimed {
        /// Which.
        name: Name,
        /// Its token.
        token: Token,
        /// The holder.
        key: SessionKey,
        /// The inode behind the name.
        ino: Ino,
        /// The inode is new and starts with this; otherwise it has a name already.
        created: Option<Creation>,
        /// The process that claimed.
        pid: u32,
        /// Its command name.
        command: Arc<str>,
    },
    /// A name was given up by its holder.
    Released {
        /// Which.
        name: Name,
        /// The token that it was granted with.
        token: Token,
    },
    /// A name was taken from a dead holder.
    Reaped {
        /// Which.
        name: Name,
        /// The token that it was granted with.
        token: Token,
    },
    /// A name was taken from a holder that lives.
    Broken {
        /// Which.
        name: Name,
        /// The token that it was granted with.
        token: Token,
        /// The uid that did it.
        uid: u32,
        /// The process that did it.
        pid: u32,
        /// Its command name.
        command: Arc<str>,
    },
    /// What a claim contains has changed.
    Altered {
        /// Which inode.
        ino: Ino,
        /// How.
        change: Change,
    },
    /// The leases of an inode end with a process from now on.
    Bound {
        /// Which inode.
        ino: Ino,
        /// Which process.
        binding: Binding,
    },
    /// A nameless inode is gone.
    Forgotten {
        /// Which inode.
        ino: Ino,
    },
}

/// Why the answer is no. Which errno each becomes is decided in one place, in `fs.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The name is taken, and the caller insisted on a new one.
    Exists,
    /// Another live session holds this.
    Busy,
    /// No such claim, session or file.
    NotFound,
    /// The lease behind this descriptor was lost.
    Lost,
    /// A name that the name rule refuses.
    BadName,
    /// A name over 255 bytes.
    LongName,
    /// An argument that means nothing here.
    Invalid,
    /// The caller may not: another uid, another namespace, or a thing that nobody changes.
    NotPermitted,
    /// The mode bits say no.
    Denied,
    /// A limit on how many is reached.
    Full,
    /// A limit on how large is passed.
    TooLarge,
    /// No extended attribute of that name.
    NoAttribute,
    /// Not an operation for this file.
    Unsupported,
    /// A directory, where a file is needed.
    IsDirectory,
    /// A file, where a directory is needed.
    NotDirectory,
    /// The processes above the caller changed faster than they could be read.
    Unsettled,
    /// Something under claimfs failed: nothing was granted.
    Failed,
}
