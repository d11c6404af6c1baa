//! The mount, as files.
//!
//! ```text
//! MOUNT/                0555
//! ├── README            0444  the manual
//! ├── claims/           1777  the leases: create = acquire, remove = release
//! │   └── NAME                exists exactly while a live session holds it
//! ├── queue/            0555  lists nothing, and has a file for every name
//! │   └── NAME          0444  reads to its end once claims/NAME is the reader's
//! ├── waiters           0444  who waits for what, a line each
//! ├── sessions/         1777  the live sessions: create = register, remove = end
//! │   └── ID            0644
//! ├── self              0444  the session of whoever reads it
//! ├── leases            0444  every live lease, a line each
//! ├── control           0222  commands, a line each
//! ├── metrics           0444  counters
//! └── events            0444  what happens from the opening on, a line each: not listed
//! ```
//!
//! Promises: a fixed file has size 0 (what one waits on, a page) and reads in full; what is read from one descriptor from its start on is one
//! picture of one moment. A handle of a claim is its inode number.
//!
//! Deliberately ignorant of: fuser, and of how the store comes by its answers.

pub mod control;
mod kept;
mod open;
mod waiting;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use self::control::Setting;
use self::kept::Kept;
use self::waiting::{QueueFiles, Waiting};
use crate::core::identity::Ancestry;
use crate::core::table::{FIRST_INO, Inode, Lease, Node, Session, Table};
use crate::core::{
    Attributes, Change, Command, Creation, Ino, Label, Member, NAME_MAX, Name, Outcome, Place,
    Refusal, SessionId, SessionKey, Shape, Subject, Token,
};
use crate::events::{EventStream, Resumed};
use crate::handoff::spool::Spool;
use crate::handoff::{EVENT_HANDLE, Handoff, Note, Open, QUEUE_HANDLE};
use crate::inotify::Notifier;
use crate::render;
use crate::render::metrics::Metrics;
use crate::store::{Arrival, Caller, Principal, Store};

/// The mount itself.
pub const ROOT: u64 = 1;
const README: u64 = 2;
/// The directory of the leases.
pub const CLAIMS: u64 = 3;
/// The directory of the sessions.
pub const SESSIONS: u64 = 4;
const SELF: u64 = 5;
const LEASES: u64 = 6;
const CONTROL: u64 = 7;
const METRICS: u64 = 8;
const QUEUE: u64 = 9;
const WAITERS: u64 = 10;
const EVENTS: u64 = 11;

/// The fixed files: inode, name, directory or not, mode.
const FIXED: [(u64, &str, Kind, u16); 11] = [
    (ROOT, "", Kind::Directory, 0o555),
    (README, "README", Kind::File, 0o444),
    (CLAIMS, "claims", Kind::Directory, 0o1777),
    (SESSIONS, "sessions", Kind::Directory, 0o1777),
    (SELF, "self", Kind::File, 0o444),
    (LEASES, "leases", Kind::File, 0o444),
    (CONTROL, "control", Kind::File, 0o222),
    (METRICS, "metrics", Kind::File, 0o444),
    (QUEUE, "queue", Kind::Directory, 0o555),
    (WAITERS, "waiters", Kind::File, 0o444),
    (EVENTS, "events", Kind::File, 0o444),
];

/// What is found by its name and not listed: a program that reads all that is listed would never end.
const UNLISTED: [u64; 1] = [EVENTS];

/// Inode numbers of session files: this plus the session's key, so that they too are never used twice.
const SESSION_INO: u64 = 1 << 40;
/// Inode numbers of files in `sessions/` that are open but have registered nothing yet, and handles of all of them.
const REGISTRATION: u64 = 1 << 41;
/// Handles of fixed files and session files that are read.
const SNAPSHOT: u64 = 1 << 42;

/// Inode numbers of files in `queue/`, for as long as the kernel knows them.
const QUEUE_INO: u64 = 1 << 43;

/// Inode numbers of names that have gone, as only the notifier's helper sees them.
const TOMBSTONE_INO: u64 = 1 << 46;

/// How far the numbers of handles that two servers in a row give are apart, and after how many they begin again.
const LIFE: u64 = 1 << 32;
const LIVES: u64 = 256;

/// The longest text that registers a session, in bytes: a pid and white space.
const REGISTRATION_MAX: usize = 64;

/// The manual, as the mount itself shows it.
pub const MANUAL: &str = include_str!("../manual/mount.txt");

/// What stat(2) says of the size of what one waits on, as sysfs does: a page. The page cache, which splice(2) and sendfile(2)
/// read through, takes size 0 for the end without asking, and the end of a queue file says that it is one's turn.
const STREAM_SIZE: u64 = 4096;

/// What kind of node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
}

/// What stat(2) shows of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: u64,
    /// Kind.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u16,
    /// Names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Time of last access.
    pub atime: SystemTime,
    /// Time of last modification.
    pub mtime: SystemTime,
    /// Time of last change.
    pub ctime: SystemTime,
}

impl Attr {
    /// It is there as long as the mount is.
    pub fn is_fixed(&self) -> bool {
        self.ino < FIRST_INO || (QUEUE_INO..QUEUE_HANDLE).contains(&self.ino)
    }
}

/// An entry of a directory.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Where a listing goes on after it.
    pub offset: u64,
    /// What it is.
    pub attr: Attr,
}

/// A descriptor as the kernel is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// Its number.
    pub fh: u64,
    /// What it is open on.
    pub opened: Opened,
}

impl Handle {
    /// A descriptor of a claim, or of what is inside one: its handle is its inode number.
    pub fn of_claim(ino: u64) -> Self {
        Self {
            fh: ino,
            opened: Opened::Claim,
        }
    }
}

/// What a descriptor is open on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// A claim, whose closes need not be told one by one.
    Claim,
    /// A text that was made for it, or one that it makes.
    Text,
    /// What comes as it comes, and has no positions.
    Stream,
}

/// A file in `sessions/` that is open for writing.
struct Registration {
    id: SessionId,
    ancestry: Arc<Ancestry>,
    /// Something was written to it, whatever came of it; or it was there before, so that it registers nothing
    /// unless something is written.
    written: bool,
    /// `O_EXCL`: it must not register a session that is there by then.
    exclusive: bool,
}

impl Registration {
    /// What a server that takes over is to know of it.
    fn note(&self, fh: u64) -> Note {
        let open = Open::Registering {
            id: self.id.clone(),
            process: self.ancestry.caller().process,
            uid: self.ancestry.uid(),
            exclusive: self.exclusive,
            written: self.written,
        };
        Note::Opened { fh, open }
    }
}

/// A claim that was created by opening it, and that nothing was written to.
struct Unwritten {
    /// How many descriptors may write to it.
    writers: usize,
    /// A kernel lock on it was refused: whoever made it for that takes it for another kind of file.
    lock_refused: bool,
}

/// The files of one mount.
pub struct Tree {
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    dotfiles: bool,
    uid: u32,
    gid: u32,
    born: SystemTime,
    next_handle: AtomicU64,
    /// The first handle that this server gives.
    oldest_handle: u64,
    spool: Spool,
    kept: Mutex<Kept>,
    unwritten: Mutex<HashMap<u64, Unwritten>>,
    registrations: Mutex<HashMap<u64, Registration>>,
    queue_files: Mutex<QueueFiles>,
    waiting: Mutex<HashMap<u64, Waiting>>,
    stream: Arc<EventStream>,
    notifier: Arc<Notifier>,
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tree {
    /// The files of a mount whose fixed ones belong to `uid` and `gid`, and which admits scratch entries with a leading dot
    /// if `dotfiles` says so.
    pub fn new(
        store: Arc<Store>,
        notifier: Arc<Notifier>,
        spool: Spool,
        dotfiles: bool,
        uid: u32,
        gid: u32,
    ) -> Self {
        let handoff = store.handoff();
        let (metrics, stream) = (store.metrics(), store.stream());
        let oldest_handle = 1 + (handoff.lives % LIVES) * LIFE;
        if handoff.lives == 0 {
            spool.clear();
        }
        let tree = Self {
            store,
            metrics,
            dotfiles,
            uid,
            gid,
            born: SystemTime::now(),
            // None that a server before this one has given.
            next_handle: AtomicU64::new(oldest_handle),
            oldest_handle,
            spool,
            kept: Mutex::default(),
            unwritten: Mutex::default(),
            registrations: Mutex::default(),
            queue_files: Mutex::default(),
            waiting: Mutex::default(),
            stream,
            notifier,
        };
        tree.resume(handoff);
        tree
    }

    /// Takes up what the descriptors of a connection stand for.
    fn resume(&self, handoff: Handoff) {
        let mut readers = Vec::new();
        for (fh, open) in handoff.open {
            match open {
                Open::Registering {
                    id,
                    process,
                    uid,
                    exclusive,
                    written,
                } => {
                    // Of one that is gone nothing can be registered any more.
                    let Some(ancestry) = self.store.ancestry_again(&process, uid) else {
                        self.store.note(Note::Closed { fh });
                        continue;
                    };
                    let open = Registration {
                        id,
                        ancestry: Arc::new(ancestry),
                        written,
                        exclusive,
                    };
                    guard(&self.registrations).insert(fh, open);
                }
                Open::Seated => _ = guard(&self.waiting).insert(fh, Waiting::seated()),
                Open::Granted { waiter, key, name } => {
                    let open = Waiting::in_line(waiter, key, name);
                    guard(&self.waiting).insert(fh, open);
                }
                Open::Reading {
                    from,
                    to,
                    rest,
                    missed,
                    last,
                } => readers.push(Resumed {
                    id: fh - EVENT_HANDLE,
                    from,
                    to,
                    rest,
                    missed,
                    last,
                }),
            }
        }
        for (waiter, key, name) in self.store.seats() {
            let fh = QUEUE_HANDLE + waiter.0;
            guard(&self.waiting).insert(fh, Waiting::in_line(waiter, key, name));
        }
        guard(&self.queue_files).resume(handoff.files);
        if !readers.is_empty() {
            self.stream
                .resume(handoff.lines, handoff.lines_from, readers);
        }
    }

    /// Whether an inode is that of `control`, where a command may wait for the disk.
    pub fn is_control(ino: u64) -> bool {
        ino == CONTROL
    }

    /// Whether reading an inode makes a text of everything that there is, or of all that a session holds, or looks at
    /// all processes above the caller.
    pub fn is_long(ino: u64) -> bool {
        matches!(ino, LEASES | WAITERS | SELF | SESSION_INO..REGISTRATION)
    }

    /// A kernel lock on a file was refused. If it was created for that, and nothing is written to it, it goes when it is
    /// closed: it would keep others out for as long as its session lives, and nobody would know why.
    pub fn lock_refused(&self, ino: u64) {
        if let Some(unwritten) = guard(&self.unwritten).get_mut(&ino) {
            unwritten.lock_refused = true;
        }
    }

    /// A write to `control` has come that is carried out later.
    pub fn arrive(&self, uid: u32, data: &[u8]) -> Arrival {
        let data = data.to_vec();
        self.store.arrive(uid, move || control::concerns(&data))
    }

    /// What came of a request that is sent again, if it was carried out when it was sent first.
    pub fn outcome(&self, caller: Caller) -> Option<Outcome> {
        self.store.outcome(caller)
    }

    /// The descriptors that were polled before this server, with the kernel's own handles of them: their pollers are to ask again.
    pub fn pollers(&self) -> Vec<(u64, u64)> {
        self.store.handoff().pollers.into_iter().collect()
    }

    /// A descriptor is polled: with the kernel's own handle of it.
    pub fn polled(&self, fh: u64, kh: u64) {
        self.store.note(Note::Polled { fh, kh });
    }

    /// The counters of this mount.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How many leases there are, and how many there may be.
    pub fn usage(&self) -> (usize, usize) {
        self.store.read(Subject::Nothing, |table| {
            (table.lease_count(), table.max_leases())
        })
    }

    // Asking the store.

    /// Carries out a command for the session of a caller.
    fn execute(
        &self,
        caller: Caller,
        command: impl for<'m> FnOnce(Result<&'m Member, Refusal>) -> Result<Command<'m>, Refusal>,
    ) -> Result<(), Refusal> {
        let who = self.store.principal(caller)?;
        self.store.execute_as_member(&who, command)?;
        Ok(())
    }

    /// Shows the lease of a name, if its holder lives.
    fn lease<R>(&self, name: &str, show: impl FnOnce(&Lease, &Inode) -> R) -> Option<R> {
        self.store.read(Subject::Name(name), |table| {
            let lease = table.lease(name)?;
            table.inode(lease.ino).map(|inode| show(lease, inode))
        })
    }

    /// Shows an inode, if its holder lives or it is still open without a name.
    fn node<R>(&self, ino: u64, show: impl FnOnce(&Table, Node) -> R) -> Option<R> {
        let ino = Ino(ino);
        self.store.read(Subject::Inode(ino), |table| {
            table.node(ino).map(|node| show(table, node))
        })
    }

    /// Shows a session, if it lives, with the roots that do.
    fn session<R>(&self, id: &SessionId, show: impl FnOnce(&Table, &Session) -> R) -> Option<R> {
        self.store.read(Subject::Roots(id), |table| {
            table.session(id).map(|session| show(table, session))
        })
    }

    // Looking.

    /// The node of a name in a directory. ENOENT also for a name that could not be created.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Attr, Refusal> {
        match parent {
            ROOT => {
                let found = FIXED
                    .iter()
                    .find(|(ino, text, ..)| *ino != ROOT && text.as_bytes() == name);
                found
                    .and_then(|(ino, ..)| self.fixed(*ino))
                    .ok_or(Refusal::NotFound)
            }
            CLAIMS => {
                let found = match str::from_utf8(name) {
                    // What is no name is nobody's.
                    Ok(text) if name.len() <= NAME_MAX && !text.starts_with('.') => {
                        self.lease(text, claim_attr)
                    }
                    _ => {
                        let name = self.name(name).map_err(hide)?;
                        self.lease(name.as_str(), claim_attr)
                    }
                };
                found.ok_or(Refusal::NotFound)
            }
            QUEUE => Ok(self.queue_file(Name::new(name).map_err(hide)?)),
            SESSIONS => {
                let id = SessionId::new(name).map_err(hide)?;
                let attr = |session: &Session| self.session_attr(session);
                self.session(&id, |_, session| attr(session))
                    .ok_or(Refusal::NotFound)
            }
            FIRST_INO..SESSION_INO => {
                let label = Label::new(name).map_err(hide)?;
                let found = self.node(parent, |table, node| {
                    if node.content().shape != Shape::Directory {
                        return Err(Refusal::NotDirectory);
                    }
                    let found = node.content().entries.get(&label);
                    let child = found.and_then(|ino| Some((ino, table.node(ino)?)));
                    let attr = child.map(|(ino, child)| node_attr(ino, child));
                    attr.ok_or(Refusal::NotFound)
                });
                found.ok_or(Refusal::Lost)?
            }
            _ => Err(Refusal::NotDirectory),
        }
    }

    /// How large a file may become, in bytes.
    pub fn room(&self, ino: u64) -> Result<u64, Refusal> {
        let room = |_: &Table, node: Node| node.content().room() as u64;
        self.node(ino, room).ok_or(Refusal::Lost)
    }

    /// The caller is the helper that tells watchers of names that have gone.
    pub fn is_notifier(&self, task: u32) -> bool {
        self.notifier.is(task)
    }

    /// A name that has gone, as the helper sees it: there, and to be removed. One that is held again is what it is.
    pub fn tombstone(&self, parent: u64, name: &[u8]) -> Result<Attr, Refusal> {
        let found = self.lookup(parent, name);
        if parent != CLAIMS || found.is_ok() {
            return found;
        }
        let ino = TOMBSTONE_INO + self.next_handle.fetch_add(1, Relaxed);
        let file = self.virtual_file(ino, 0);
        let kind = if self.notifier.was_directory(&self.name(name)?) {
            Kind::Directory
        } else {
            Kind::File
        };
        Ok(Attr { kind, ..file })
    }

    /// The helper removes a name that has gone; EBUSY for one that is held again.
    pub fn remove_tombstone(&self, parent: u64, name: &[u8]) -> Result<(), Refusal> {
        let name = self.name(name)?;
        self.notifier.told(&name);
        if parent != CLAIMS || self.lease(name.as_str(), |_, _| ()).is_some() {
            return Err(Refusal::Busy);
        }
        Ok(())
    }

    /// The attributes of a node; ESTALE for one that was lost.
    pub fn attr(&self, ino: u64) -> Result<Attr, Refusal> {
        match ino {
            ..FIRST_INO => self.fixed(ino).ok_or(Refusal::Lost),
            FIRST_INO..SESSION_INO => self
                .node(ino, |_, node| node_attr(Ino(ino), node))
                .ok_or(Refusal::Lost),
            SESSION_INO..REGISTRATION => self
                .session_file(ino, |session| self.session_attr(session))
                .ok_or(Refusal::Lost),
            QUEUE_INO..QUEUE_HANDLE => Ok(self.queue_file_attr(ino)),
            TOMBSTONE_INO.. => Ok(self.virtual_file(ino, 0)),
            _ => {
                let ancestry = guard(&self.registrations)
                    .get(&ino)
                    .map(|open| Arc::clone(&open.ancestry));
                let ancestry = ancestry.ok_or(Refusal::Lost)?;
                Ok(Attr {
                    uid: ancestry.uid(),
                    ..self.virtual_file(ino, 0o644)
                })
            }
        }
    }

    fn virtual_file(&self, ino: u64, mode: u16) -> Attr {
        let (uid, gid, born) = (self.uid, self.gid, self.born);
        let (kind, nlink, size) = (Kind::File, 1, 0);
        Attr {
            ino,
            kind,
            mode,
            nlink,
            uid,
            gid,
            size,
            atime: born,
            mtime: born,
            ctime: born,
        }
    }

    fn fixed(&self, ino: u64) -> Option<Attr> {
        let (_, _, kind, mode) = FIXED.iter().find(|(fixed, ..)| *fixed == ino)?;
        let nlink = if *kind == Kind::Directory { 2 } else { 1 };
        Some(Attr {
            kind: *kind,
            nlink,
            size: if ino == EVENTS { STREAM_SIZE } else { 0 },
            ..self.virtual_file(ino, *mode)
        })
    }

    fn session_attr(&self, session: &Session) -> Attr {
        let since = session.since;
        let file = self.virtual_file(SESSION_INO + session.key.0, 0o644);
        Attr {
            uid: session.uid,
            atime: since,
            mtime: since,
            ctime: since,
            ..file
        }
    }

    fn session_file<R>(&self, ino: u64, show: impl FnOnce(&Session) -> R) -> Option<R> {
        let key = SessionKey(ino - SESSION_INO);
        let id = self.store.read(Subject::Nothing, |table| {
            table.session_by_key(key).map(|session| session.id.clone())
        })?;
        let mine = |session: &Session| (session.key == key).then(|| show(session));
        self.session(&id, |_, session| mine(session)).flatten()
    }

    /// Lists a directory from an offset on, until `emit` says that it has enough.
    pub fn list(
        &self,
        ino: u64,
        offset: u64,
        mut emit: impl FnMut(Entry) -> bool,
    ) -> Result<(), Refusal> {
        let dir = self.attr(ino)?;
        let up = match ino {
            ROOT => dir,
            FIRST_INO..SESSION_INO => self.attr(self.above(ino))?,
            _ => self.attr(ROOT)?,
        };
        for (at, name, attr) in [(1, &b"."[..], dir), (2, b"..", up)] {
            if offset < at
                && !emit(Entry {
                    name,
                    offset: at,
                    attr,
                })
            {
                return Ok(());
            }
        }
        let after = offset.saturating_sub(2);
        match ino {
            ROOT => {
                let listed = FIXED.iter().filter(|(ino, ..)| !UNLISTED.contains(ino));
                for (ino, name, ..) in listed.filter(|(ino, ..)| *ino > after.max(ROOT)) {
                    let Some(attr) = self.fixed(*ino) else {
                        continue;
                    };
                    if !emit(Entry {
                        name: name.as_bytes(),
                        offset: *ino + 2,
                        attr,
                    }) {
                        break;
                    }
                }
            }
            CLAIMS => self.store.leases(Token(after), |_, name, lease, inode| {
                let attr = claim_attr(lease, inode);
                emit(Entry {
                    name: name.as_str().as_bytes(),
                    offset: lease.token.0 + 2,
                    attr,
                })
            }),
            SESSIONS => self.store.sessions(SessionKey(after), |_, session| {
                let attr = self.session_attr(session);
                emit(Entry {
                    name: session.id.as_str().as_bytes(),
                    offset: session.key.0 + 2,
                    attr,
                })
            }),
            QUEUE => {}
            _ if dir.kind == Kind::Directory => {
                self.node(ino, |table, node| {
                    for (cookie, label, ino) in node.content().entries.after(after) {
                        let attr = table.node(ino).map(|child| node_attr(ino, child));
                        let is_enough = attr.is_some_and(|attr| {
                            !emit(Entry {
                                name: label.as_bytes(),
                                offset: cookie + 2,
                                attr,
                            })
                        });
                        if is_enough {
                            break;
                        }
                    }
                });
            }
            _ => return Err(Refusal::NotDirectory),
        }
        Ok(())
    }

    /// The directory that a directory claim, or a directory in one, lies in.
    fn above(&self, ino: u64) -> u64 {
        let above = self.node(ino, |_, node| {
            node.child.map_or(CLAIMS, |child| child.dir.0)
        });
        above.unwrap_or(CLAIMS)
    }

    // Changes.

    /// Sets size, mode and times, each if given; that the caller may was checked.
    pub fn set_attr(
        &self,
        caller: Caller,
        ino: u64,
        size: Option<u64>,
        attributes: Attributes,
    ) -> Result<Attr, Refusal> {
        match ino {
            FIRST_INO..SESSION_INO => {
                let size = size.map(|size| Change::Resize { size });
                let rest = Some(Change::Attributes(attributes))
                    .filter(|_| attributes != Attributes::default());
                for (step, change) in (0..).zip([size, rest]) {
                    let caller = Caller { step, ..caller };
                    if let Some(change) = change
                        && self.outcome(caller).is_none()
                    {
                        self.alter(caller, ino, change)?;
                    }
                }
            }
            // `touch sessions/w1` registers, and is told if it cannot.
            REGISTRATION.. if attributes.mtime.is_some() => {
                if self.outcome(caller).is_none() {
                    self.register(ino, b"", Some(caller))?;
                }
            }
            // `> sessions/w1` and `> control` truncate what has no size.
            _ if attributes.mode.is_none() => {}
            _ => return Err(Refusal::NotPermitted),
        }
        self.attr(ino)
    }

    /// Whether the sticky bit decides who removes a name in a directory. In `sessions/` the rule of sessions does.
    pub fn is_sticky(parent: u64) -> bool {
        parent != SESSIONS
    }

    /// Removes a file or, by rmdir(2), a directory: releases a claim, ends a session.
    pub fn remove(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
        directory: bool,
    ) -> Result<(), Refusal> {
        match parent {
            SESSIONS if directory => Err(Refusal::NotDirectory),
            SESSIONS => {
                let id = SessionId::new(name).map_err(hide)?;
                self.end_own(caller, id)
            }
            _ => {
                let place = self.place(parent, name).map_err(hide)?;
                self.execute(caller, |by| {
                    let by = by?;
                    Ok(Command::Release {
                        name: place,
                        directory,
                        by,
                    })
                })
            }
        }
    }

    /// Makes a claim, or an entry of one, without opening it: a file, a directory or a symlink.
    pub fn make(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
        shape: Shape,
        mode: u16,
    ) -> Result<Attr, Refusal> {
        let place = self.place(parent, name)?;
        let (uid, gid) = (caller.uid, caller.gid);
        let creation = Creation {
            shape,
            mode,
            uid,
            gid,
        };
        let who = self.store.principal(caller)?;
        let made = self.store.execute_as_member(&who, |by| {
            Ok(Command::Claim {
                name: place,
                by: by?,
                creation,
                exclusive: true,
                truncate: false,
            })
        })?;
        self.attr(made.ino.ok_or(Refusal::Lost)?.0)
    }

    /// Gives a file a further name.
    pub fn link(
        &self,
        caller: Caller,
        ino: u64,
        parent: u64,
        name: &[u8],
    ) -> Result<Attr, Refusal> {
        if !(FIRST_INO..SESSION_INO).contains(&ino) {
            return Err(Refusal::NotPermitted);
        }
        let name = self.place(parent, name)?;
        self.execute(caller, |by| {
            let (ino, by) = (Ino(ino), by?);
            Ok(Command::Link { ino, name, by })
        })?;
        self.attr(ino)
    }

    /// What a symlink points to, byte for byte.
    pub fn target(&self, ino: u64) -> Result<Arc<[u8]>, Refusal> {
        let target = self.node(ino, |_, node| match &node.content().shape {
            Shape::Symlink(target) => Ok(Arc::clone(target)),
            Shape::File | Shape::Directory => Err(Refusal::Invalid),
        });
        target.ok_or(Refusal::Lost)?
    }

    /// Swaps two names.
    pub fn exchange(
        &self,
        caller: Caller,
        (one_parent, one): (u64, &[u8]),
        (other_parent, other): (u64, &[u8]),
    ) -> Result<(), Refusal> {
        let one = self.place(one_parent, one).map_err(hide)?;
        let other = self.place(other_parent, other).map_err(hide)?;
        self.execute(caller, |by| {
            let by = by?;
            Ok(Command::Exchange { one, other, by })
        })
    }

    /// Renames a claim or an entry of one.
    pub fn rename(
        &self,
        caller: Caller,
        (from_parent, from): (u64, &[u8]),
        (to_parent, to): (u64, &[u8]),
        noreplace: bool,
    ) -> Result<(), Refusal> {
        let from = self.place(from_parent, from).map_err(hide)?;
        let to = self.place(to_parent, to)?;
        self.execute(caller, |by| {
            let by = by?;
            Ok(Command::Rename {
                from,
                to,
                noreplace,
                by,
            })
        })
    }

    /// Changes what a claim contains.
    fn alter(&self, caller: Caller, ino: u64, change: Change) -> Result<(), Refusal> {
        self.execute(caller, |by| {
            let (ino, by) = (Ino(ino), by?);
            Ok(Command::Alter { ino, by, change })
        })
    }

    /// Gives a deadline, or none.
    fn limit(&self, caller: Caller, ino: u64, ttl: Option<Duration>) -> Result<(), Refusal> {
        self.execute(caller, |by| {
            let (ino, by) = (Ino(ino), by?);
            Ok(Command::Limit { ino, by, ttl })
        })
    }

    /// Hands all names of an inode to another live session.
    fn give(&self, caller: Caller, ino: u64, to: SessionId) -> Result<(), Refusal> {
        self.execute(caller, |by| {
            let (ino, by) = (Ino(ino), by?);
            Ok(Command::Give { ino, to, by })
        })
    }

    /// Takes a name from a holder that lives, for its uid and root. ESTALE for another token than the
    /// lease's.
    fn break_lease(&self, caller: Caller, name: Name, token: Token) -> Result<(), Refusal> {
        let who = self.store.principal(caller)?;
        // By a caller that the mount can see.
        who.ancestry()?;
        let chain = who.chain();
        let by = who.asker(&chain);
        self.store
            .execute(&who, &Command::Break { name, token, by })?;
        Ok(())
    }

    /// Ends the caller's own session by removing its file: EBUSY for any other.
    fn end_own(&self, caller: Caller, id: SessionId) -> Result<(), Refusal> {
        // A caller whose session cannot be told is of none.
        let who = self.store.principal(caller);
        let who = who.unwrap_or_else(|_| Principal::new(caller, None));
        self.store
            .execute_as_member(&who, |by| Ok(Command::EndOwn { id, by: by.ok() }))?;
        Ok(())
    }

    /// A name in `claims/`, as this mount admits it.
    fn name(&self, raw: &[u8]) -> Result<Name, Refusal> {
        if self.dotfiles {
            Name::with_scratch(raw)
        } else {
            Name::new(raw)
        }
    }

    /// The place of a name in a directory: EPERM where nothing is ever made.
    fn place(&self, parent: u64, name: &[u8]) -> Result<Place, Refusal> {
        match parent {
            CLAIMS => self.name(name).map(Place::Claim),
            FIRST_INO..SESSION_INO => Label::new(name).map(|label| Place::Inside {
                dir: Ino(parent),
                label,
            }),
            _ => Err(Refusal::NotPermitted),
        }
    }

    // Extended attributes.

    /// All extended attributes of a node: the record's, then the holder's own.
    pub fn tags(&self, ino: u64) -> Result<Vec<(String, Vec<u8>)>, Refusal> {
        if !(FIRST_INO..SESSION_INO).contains(&ino) {
            return Ok(Vec::new());
        }
        let now = self.store.now().boot;
        let tags = self.node(ino, |table, node| {
            let name = first_name(table, node);
            let mut tags = name.map_or_else(Vec::new, |name| render::tags(table, name, now));
            let own = node.content().tags().iter();
            tags.extend(own.map(|(name, value)| (name.clone(), value.clone())));
            tags
        });
        tags.ok_or(Refusal::Lost)
    }

    /// Sets an extended attribute of the holder's own, or removes it; `user.claimfs.break`, set to the lease's token, takes the
    /// name from its holder; `user.claimfs.ttl` is its deadline,
    /// and `user.claimfs.session` its holder. EOPNOTSUPP outside `user.`.
    pub fn set_tag(
        &self,
        caller: Caller,
        ino: u64,
        name: &str,
        value: Option<&[u8]>,
    ) -> Result<(), Refusal> {
        if !(FIRST_INO..SESSION_INO).contains(&ino) {
            return Err(Refusal::Unsupported);
        }
        match Setting::parse(name, value)? {
            Setting::Break(token) => {
                // A token names one lease, also where the file has several names.
                let broken = self.node(ino, |table, node| {
                    let names = node.inode.names.iter();
                    let mut names = names.filter(|known| node.child.is_none() && **known == token);
                    let broken = names.find_map(|known| table.name(*known));
                    broken.filter(|name| !name.is_scratch()).cloned()
                });
                let broken = broken.flatten().ok_or(Refusal::Lost)?;
                self.break_lease(caller, broken, token)
            }
            Setting::Limit(ttl) => self.limit(caller, ino, ttl),
            Setting::Give(to) => self.give(caller, ino, to),
            Setting::Keep(change) => self.alter(caller, ino, change),
        }
    }
}

/// For looking, a name that cannot exist does not exist; one that is too long is refused on any filesystem.
fn hide(refusal: Refusal) -> Refusal {
    if refusal == Refusal::BadName {
        Refusal::NotFound
    } else {
        refusal
    }
}

/// The oldest lease among the names of a claim's own inode.
fn first_name<'a>(table: &'a Table, node: Node) -> Option<&'a Name> {
    let tokens = node.child.is_none().then_some(&node.inode.names)?;
    let mut names = tokens.iter().filter_map(|token| table.name(*token));
    names.find(|name| !name.is_scratch())
}

fn claim_attr(lease: &Lease, inode: &Inode) -> Attr {
    let node = Node {
        claim: lease.ino,
        inode,
        child: None,
    };
    node_attr(lease.ino, node)
}

fn node_attr(ino: Ino, node: Node) -> Attr {
    let content = node.content();
    let (kind, nlink) = match content.shape {
        Shape::File => (Kind::File, node.links()),
        Shape::Directory if node.links() == 0 => (Kind::Directory, 0),
        Shape::Directory => (Kind::Directory, 2 + content.entries.directories()),
        Shape::Symlink(_) => (Kind::Symlink, node.links()),
    };
    Attr {
        ino: ino.0,
        kind,
        mode: content.mode,
        nlink,
        uid: content.uid,
        gid: content.gid,
        size: content.size(),
        atime: content.atime,
        mtime: content.mtime,
        ctime: content.ctime,
    }
}
