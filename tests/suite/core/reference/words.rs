//! Operations of the reference, in types that the table does not know, and the callers.

/// One of the names.
pub type Name = u8;
/// One of [`PEOPLE`].
pub type Who = u8;
/// One of [`IDS`].
pub type Id = u8;
/// A pid, and which of those that had it.
pub type Process = (u32, u64);

/// Done, or an errno.
pub type Answer<T = ()> = Result<T, &'static str>;

pub fn need(is: bool, otherwise: &'static str) -> Answer {
    if is { Ok(()) } else { Err(otherwise) }
}

/// A step. All numbers are small, and are taken relative to what there is by then: with any of a
/// sequence left out, the rest still says something. Whatever nobody is there for is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Create a name: exclusively, emptying it.
    Claim(Who, Name, bool, bool),
    /// Open a name for writing, emptying it, and keep the descriptor.
    Open(Who, Name, bool),
    Write(Who, Name),
    /// Write to one of the descriptors that are open.
    WriteTo(Who, u64),
    Close(u64),
    Release(Who, Name),
    /// From, to, without replacing.
    Rename(Who, Name, Name, bool),
    Exchange(Who, Name, Name),
    /// A further name of one's file.
    Link(Who, Name, Name),
    /// Give a deadline in so many seconds, or take it away.
    Limit(Who, Name, u64),
    Give(Who, Name, Id),
    /// With the token of an earlier grant.
    Break(Who, Name, bool),
    /// Register the caller in a session, which must be new.
    Join(Who, Id, bool),
    End(Who, Id),
    /// Remove the file of a session.
    EndOwn(Who, Id),
    /// Take a place in the queue.
    Queue(Who, Name),
    /// One of those that have a place learns what it was granted.
    Accept(u64),
    /// One of those that have a place, or do not know what they were granted, is gone.
    Leave(u64),
    /// One of [`NAMED`] holds a name for so many seconds.
    Hold(Who, Name, u64),
    Yield(Who, Name),
    /// Take two names in one step, or give them up.
    Take(Who, Name, Name),
    Drop(Who, Name, Name),
    /// Give all reservations below a path.
    GiveBelow(Who, Name, Id),
    /// A process dies, and another has its pid. The table is told at once, before its descriptors
    /// are closed.
    Kill(Who, bool),
    /// The table is told of all that died.
    Tell,
    /// A process is stopped, or goes on.
    Stop(Who, bool),
    /// So many seconds pass; what is past its deadline ends.
    Wait(u64, bool),
    /// The leases of dead sessions are swept, so many at a time.
    Sweep(u64),
    /// The server dies, and another goes on from the journal.
    Crash,
    /// The server dies in the middle of the next append, at one of its bytes.
    Tear(u64),
    /// The server dies with the mount, and so with all descriptors.
    Remount,
    /// The machine loses its power.
    Reboot,
}

/// Claims, then reservations.
pub const NAMES: [&str; 9] = [
    "a",
    "b",
    "c",
    "d",
    "e",
    "paths/p",
    "paths/p/q",
    "paths/p/q/r",
    "paths/p/s",
];

/// True for a reservation.
pub fn is_path(name: Name) -> bool {
    NAMES[name as usize].contains('/')
}

/// True if the first is a reservation above the second.
pub fn is_above(one: Name, other: Name) -> bool {
    let rest = NAMES[other as usize].strip_prefix(NAMES[one as usize]);
    is_path(one) && rest.is_some_and(|rest| rest.starts_with('/'))
}

pub const IDS: [&str; 7] = ["w1", "w2", "t1", "v1", "r1", "n1", "n2"];

/// Which session each person is of, its uid, and whether that is a terminal's.
pub const PEOPLE: [(&str, u32, bool); 8] = [
    ("w1", 1000, false),
    ("w1", 1000, false),
    ("w2", 1000, false),
    ("w3", 1000, false),
    ("t1", 1000, true),
    ("t1", 1000, true),
    ("v1", 1001, false),
    ("r1", 0, false),
];

/// For which session each speaks that has no processes, and its uid.
pub const NAMED: [(&str, u32); 5] = [
    ("n1", 1000),
    ("n2", 1000),
    ("n1", 1001),
    ("w1", 1000),
    ("n3", 0),
];

/// The caller.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller {
    /// Its session.
    pub id: &'static str,
    pub uid: u32,
    /// It is a terminal's session.
    pub terminal: bool,
    /// It is a session without processes.
    pub named: bool,
    pub me: Process,
}

/// A time to live, and when it is over.
pub type Deadline = Option<(u64, u64)>;

#[derive(Clone)]
pub struct Session {
    pub key: u64,
    /// Its parent.
    pub by: Caller,
    /// Each with whether it is registered.
    pub roots: Vec<(Process, bool)>,
    pub deadline: Deadline,
}

impl Session {
    pub fn new(key: u64, by: Caller) -> Self {
        let (roots, deadline) = (Vec::new(), None);
        Self {
            key,
            by,
            roots,
            deadline,
        }
    }

    /// The caller is a root from now on, unless it has no process.
    pub fn add(&mut self, by: Caller) {
        if !by.named && self.roots.iter().all(|(root, _)| *root != by.me) {
            self.roots.push((by.me, false));
        }
    }

    /// A root is registered, or is not any more.
    pub fn register(&mut self, process: Process, is_registered: bool) {
        let mut roots = self.roots.iter_mut();
        if let Some(root) = roots.find(|(root, _)| *root == process) {
            root.1 = is_registered;
        }
    }
}

/// A name of a file. Whose that is, and until when, is the same in all of its names.
#[derive(Clone, Copy, Default)]
pub struct Lease {
    pub name: Name,
    pub grant: u64,
    pub file: u64,
    pub key: u64,
    pub deadline: Deadline,
}

impl Lease {
    /// Of a new file, that has yet to be granted.
    pub fn new(file: u64, key: u64) -> Self {
        Self {
            file,
            key,
            ..Self::default()
        }
    }
}
