//! The vocabulary: names, sessions, leases, and the commands, events and refusals that the rules speak in.
//!
//! Promises: every value that exists is valid ([`Name`] and [`SessionId`] cannot be made of anything that the name
//! rule refuses), and one [`Event`] type is what the table applies, what a journal records and what watchers read.
//!
//! Deliberately ignorant of: files, clocks, `/proc`, fuser. Times and processes arrive as values.

pub mod agents;
mod command;
pub mod content;
mod event;
pub mod failure;
pub mod identity;
mod node_id;
mod outcome;
pub mod rare;
pub mod table;
pub mod wire;

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

pub use self::command::{Asker, Attributes, Change, Command, NOWHERE, RemoteSession, Subject};
pub use self::event::{Durability, End, Event, SpaceDelta, What};
pub use self::node_id::{COUNT_END, FIRST_INO, Fixed, INO_END, KEY_END, NodeId, WAITER_END};
pub use self::outcome::Outcome;

/// The longest name of a claim or a session, in bytes: what `NAME_MAX` is on other filesystems.
pub const NAME_MAX: usize = 255;

/// The name of a lease: the file name under `claims/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(Arc<str>);

/// The id of a session: the file name under `sessions/`, and the value of a session variable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
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

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// A name is looked up by its text, of which nothing need be made first.
impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Name {
    /// A claim's name, if the name rule admits it: EINVAL or ENAMETOOLONG otherwise.
    pub fn new(raw: &[u8]) -> Result<Self, Refusal> {
        valid(raw).map(Self)
    }

    /// A claim's name, or that of a scratch entry, which follows the same rule but for its leading `.`.
    pub fn with_scratch(raw: &[u8]) -> Result<Self, Refusal> {
        let dots = raw.iter().take_while(|byte| **byte == b'.').count();
        if dots == 0 {
            return Self::new(raw);
        }
        if raw.len() > NAME_MAX {
            return Err(Refusal::LongName);
        }
        let rest = valid(&raw[dots..])?;
        Ok(Self(Arc::from(format!("{}{rest}", ".".repeat(dots)))))
    }

    /// A scratch entry of its session: kept and closed to others as a claim is, but no lease that anybody is told of.
    pub fn is_scratch(&self) -> bool {
        self.0.starts_with('.')
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

    /// The id of an agent's session (rule 3): the agent's name, its process, and the uid.
    pub fn agent(name: &str, process: &Process, uid: u32) -> Self {
        let Process { pid, start, .. } = process;
        Self(Arc::from(format!("{name}-{pid}-{start}-uid-{uid}")))
    }

    /// The id of a sandbox's session (rule 4), by its pid namespace and the uid: several may live in one.
    pub fn sandbox(pidns: u64, uid: u32) -> Self {
        Self(Arc::from(format!("sandbox-{pidns}-uid-{uid}")))
    }

    /// The id of a POSIX session that has no number in the mount's pid namespace, by the topmost of its processes there
    /// and the uid.
    pub fn outside(top: &Process, uid: u32) -> Self {
        Self::agent("outside", top, uid)
    }

    /// The uid in the id of a POSIX session; `None` for any other id.
    pub fn posix_uid(&self) -> Option<u32> {
        let (sid, uid) = self.0.strip_prefix("sid-")?.split_once("-uid-")?;
        sid.parse::<u32>().ok()?;
        uid.parse().ok()
    }

    /// The uid in an id of the form that rules 3 to 5 make; `None` for any other id.
    pub fn owner(&self) -> Option<u32> {
        let (rest, uid) = self.0.rsplit_once("-uid-")?;
        let uid = uid.parse().ok()?;
        let (head, last) = rest.rsplit_once('-')?;
        last.parse::<u64>().ok()?;
        let numbered = head
            .rsplit_once('-')
            .is_some_and(|(_, pid)| pid.parse::<u32>().is_ok());
        (numbered || matches!(head, "sid" | "sandbox")).then_some(uid)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of an entry inside a directory claim, where the rule is that of any filesystem: any bytes but `/` and NUL, no `.` and no
/// `..`, at most 255.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Label(#[serde(with = "wire::bytes")] Arc<[u8]>);

impl Label {
    /// An entry's name: EINVAL or ENAMETOOLONG if it can be none.
    pub fn new(raw: &[u8]) -> Result<Self, Refusal> {
        if raw.len() > NAME_MAX {
            return Err(Refusal::LongName);
        }
        if raw.is_empty()
            || raw == b"."
            || raw == b".."
            || raw.iter().any(|b| matches!(b, 0 | b'/'))
        {
            return Err(Refusal::BadName);
        }
        Ok(Self(Arc::from(raw)))
    }

    /// The name as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Where a name is, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In `claims/`: a lease.
    Claim(Name),
    /// In a directory claim, or a directory in one: whose the claim is decides who changes it.
    Inside {
        /// The directory.
        dir: Ino,
        /// The name in it.
        label: Label,
    },
}

impl From<Name> for Place {
    fn from(name: Name) -> Self {
        Self::Claim(name)
    }
}

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::with_scratch(text.as_bytes()).map_err(|_| "no name of a claim")
    }
}

impl TryFrom<String> for SessionId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text.as_bytes()).map_err(|_| "no id of a session")
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

/// Whether a terminal may show something else for it than a sign of its own: a control character, also one of those that Unicode has
/// beyond ASCII's, what turns the direction of writing, and what is not to be seen.
pub fn misleads(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    c.is_control() || turns
}

/// Text that a stranger chose, fit for a terminal or a log line: control characters come out escaped, and so does what turns the
/// direction of writing or is not to be seen.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if misleads(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// The fencing token: rises with every grant of any name, and is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Token(pub u64);

/// An inode number: unique and never used again, since lock clients compare them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ino(pub u64);

/// Which session, of all that ever bore an id: a restarted id is another session and inherits nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionKey(pub u64);

/// A place in a line, by when it was taken: the first in a line has the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WaiterId(pub u64);

/// One process of this boot, told from every other that had or will have its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// The pid, as the mount's own pid namespace numbers it.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`, proc(5)).
    pub start: u64,
    /// The inode of its pidfd, unique for the boot where the kernel has pidfs (6.9 on); else 0.
    pub pidfs: u64,
}

/// A process that keeps a session alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The process.
    pub process: Process,
    /// Its command name when it became a root (`/proc/PID/comm`).
    pub command: Arc<str>,
    /// When it started.
    #[serde(with = "wire::moment")]
    pub started: SystemTime,
    /// Named in `sessions/` or by `claimfs session run`: its descendants belong to the session by rule 1.
    pub registered: bool,
    /// Which of its execs it had made by then: where that put its environment. 0 if that is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub environ: u64,
    /// The process that holds what this one held once it has exited, under process scope.
    #[serde(default, skip_serializing_if = "Above::is_unknown")]
    pub above: Above,
}

/// The process above a root of a session, when that became a root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Above {
    /// Nobody has looked: its session has session scope, or a journal of before says nothing of it.
    #[default]
    Unknown,
    /// There is none, or it was killed since: what passes from here is free.
    Nobody,
    /// This root of the same session.
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
    /// It is dead, and nobody can tell any more how it ended: that counts as an exit.
    Unknown,
}

impl Ending {
    /// The end that a wait status tells of (wait(2)); the bit for a core dump counts for nothing.
    pub fn of_status(status: i32) -> Self {
        let low = status & 0x7f;
        if low == 0 {
            Self::Exited(u8::try_from(status >> 8 & 0xff).unwrap_or(0))
        } else {
            Self::Killed(u8::try_from(low).unwrap_or(0))
        }
    }

    /// The signal that killed it, if what it held is free for that. SIGPIPE says only that a reader
    /// went away.
    pub fn killed_by(self) -> Option<u8> {
        match self {
            Self::Killed(SIGPIPE) | Self::Exited(_) | Self::Unknown => None,
            Self::Killed(signal) => Some(signal),
        }
    }

    /// The exit code as a shell says it, if it is known and what it held passes on.
    pub fn code(self) -> Option<u8> {
        match self {
            Self::Exited(code) => Some(code),
            Self::Killed(SIGPIPE) => Some(128 + SIGPIPE),
            Self::Killed(_) | Self::Unknown => None,
        }
    }
}

/// The same on every architecture of Linux (signal(7)).
const SIGPIPE: u8 = 13;

/// The processes that may change a lease of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Each process of the session.
    Session,
    /// The process that made it, until that exits and its parent holds it, and those below it.
    Process,
}

impl Scope {
    /// The word for it in `self`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Process => "process",
        }
    }
}

// The signature is what serde wants.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A process as a root of a session.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// The session.
    pub id: &'a SessionId,
    /// The rule that made the session, or `Registered` since one of its roots is.
    pub rule: Rule,
    /// The process itself was registered.
    pub registered: bool,
    /// See [`Root::environ`].
    pub environ: u64,
}

/// How a caller came by its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// Rule 1: a root that was registered in `sessions/`.
    Registered,
    /// Rule 2: a session variable in the environment.
    Variable,
    /// Rule 3: a known coding agent above the caller.
    Agent,
    /// Rule 4: the sandbox that the caller is in, a pid namespace below the mount's.
    Sandbox,
    /// Rule 5: the POSIX session, shared by whatever runs in one terminal.
    Posix,
    /// None of them: it has no processes that the mount can see, and lives by its deadline alone.
    #[serde(rename = "Named")]
    Remote,
}

impl Rule {
    /// Session scope where somebody said, or an agent is known to mean, that all of it is one
    /// worker; process scope where a process just happens to be.
    pub fn scope(self) -> Scope {
        match self {
            Self::Registered | Self::Variable | Self::Agent | Self::Remote => Scope::Session,
            Self::Sandbox | Self::Posix => Scope::Process,
        }
    }

    /// The word for it in records and in `self`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Variable => "variable",
            Self::Agent => "agent",
            Self::Sandbox => "sandbox",
            Self::Posix => "posix",
            Self::Remote => "named",
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
    /// The scope of the caller's claims: that of the rule, or session scope where the kernel does
    /// not say how a process ended.
    pub scope: Scope,
    /// The caller's uid: only sessions of the same uid are joined.
    pub uid: u32,
    /// The pid namespace of the topmost root: only a session of the same one is joined by an unrelated tree.
    pub pidns: u64,
    /// The caller's own pid namespace, which may be one below that; 0 for the mount's own.
    pub sandbox: u64,
    /// From the topmost process that the rule finds down to the caller.
    pub roots: Vec<Root>,
    /// Under process scope, the process that the topmost of them passes to: the first of a sandbox
    /// or a container.
    pub heir: Option<Root>,
    /// The caller, its parent, and so on up as far as the uid is the same.
    pub lineage: Vec<Kin>,
    /// The caller's own process id.
    pub pid: u32,
    /// The caller's command name.
    pub command: Arc<str>,
}

impl Member {
    /// The process that holds what the caller claims, under process scope: the caller itself.
    pub fn maker(&self) -> Option<Process> {
        let caller = self.roots.last().map(|root| root.process);
        caller.filter(|_| self.scope == Scope::Process)
    }
}

/// A process of a caller's lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kin {
    /// Which process.
    pub process: Process,
    /// Its pid as the caller's own pid namespace numbers it; 0 if it has none there.
    pub pid: u32,
}

/// The present, by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock: for people to read, and may jump.
    pub wall: SystemTime,
    /// The time since boot, suspension included: deadlines go by it alone.
    pub boot: Duration,
}

/// When a lease ends unless its holder shows that it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// How long it is held from each renewal on.
    pub ttl: Duration,
    /// When it ends: the time since boot.
    pub until: Duration,
}

/// What ends at its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// The leases of an inode.
    Claim(Ino),
    /// A session that has no processes.
    Session(SessionKey),
}

/// The process that holds a lease, where it is not the whole session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Which process: it and those below it change the lease, and nobody else.
    pub process: Process,
    /// Once it has exited, the process above it holds the lease (process scope). Otherwise the
    /// lease ends with it, however it ends: the pid-file idiom.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passes: bool,
    /// Whom it passed from last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Arc<Predecessor>>,
}

/// A process that held a lease, and has exited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predecessor {
    /// Its pid.
    pub pid: u32,
    /// Its command name.
    pub command: Arc<str>,
    /// Its exit code, if it is known.
    pub exit: Option<u8>,
}

/// What a claim is made as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to this, which need not exist.
    Symlink(#[serde(with = "wire::bytes")] Arc<[u8]>),
}

/// What a new inode starts with.
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
    /// The caller's uid has as many as one may have.
    Quota,
    /// A limit on how large is passed.
    TooLarge,
    /// More processes above the caller, or more of their environments, than are looked at.
    TooDeep,
    /// The server has no descriptors or no memory left.
    Shortage,
    /// No extended attribute of that name.
    NoAttribute,
    /// Not an operation for this file.
    Unsupported,
    /// A directory, where a file is needed.
    IsDirectory,
    /// A file, where a directory is needed.
    NotDirectory,
    /// A directory that has entries.
    NotEmpty,
    /// From one directory claim into another, or out of one: each is bounded by itself, as a filesystem is.
    CrossDevice,
    /// Nothing yet: the caller may see its signals, and ask again.
    Interrupted,
    /// The processes above the caller changed faster than they could be read.
    Unsettled,
    /// Something under claimfs failed: nothing was granted.
    Failed,
}
