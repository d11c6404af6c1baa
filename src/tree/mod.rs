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
mod descriptors;
mod kept;
mod open;
mod waiting;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use self::control::Setting;
use self::descriptors::Descriptors;
use self::kept::Kept;
use self::waiting::QueueFiles;
use crate::core::table::{Inode, Lease, Node, Session, Table};
use crate::core::{
    Attributes, COUNT_END, Change, Command, Creation, Fixed, Ino, Label, Member, NAME_MAX, Name,
    NodeId, Outcome, Place, Refusal, SessionId, SessionKey, Shape, Subject, Token,
};
use crate::events::EventStream;
use crate::handoff::Note;
use crate::handoff::spool::Spool;
use crate::inotify::Notifier;
use crate::render;
use crate::render::metrics::Metrics;
use crate::store::{Arrival, Caller, Principal, Store};

/// The fixed files: name, directory or not, mode.
const fn fixed(fixed: Fixed) -> (&'static str, Kind, u16) {
    match fixed {
        Fixed::Root => ("", Kind::Directory, 0o555),
        Fixed::Readme => ("README", Kind::File, 0o444),
        Fixed::Claims => ("claims", Kind::Directory, 0o1777),
        Fixed::Sessions => ("sessions", Kind::Directory, 0o1777),
        Fixed::Own => ("self", Kind::File, 0o444),
        Fixed::Leases => ("leases", Kind::File, 0o444),
        Fixed::Control => ("control", Kind::File, 0o222),
        Fixed::Metrics => ("metrics", Kind::File, 0o444),
        Fixed::Queue => ("queue", Kind::Directory, 0o555),
        Fixed::Waiters => ("waiters", Kind::File, 0o444),
        Fixed::Events => ("events", Kind::File, 0o444),
    }
}

/// A file that is found by its name and not listed: a program that reads all that is listed would never
/// end.
const UNLISTED: Fixed = Fixed::Events;

/// How far the numbers of handles that two servers in a row give are apart, and after how many they begin again.
const LIFE: u64 = 1 << 32;
const LIVES: u64 = 256;
const _: () = assert!(LIFE * (LIVES + 1) <= COUNT_END);

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
    pub ino: NodeId,
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
        matches!(self.ino, NodeId::Fixed(_) | NodeId::QueueFile(_))
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
    pub fh: NodeId,
    /// What it is open on.
    pub opened: Opened,
}

impl Handle {
    /// A descriptor of a claim, or of what is inside one: its handle is its inode number.
    pub fn of_claim(ino: NodeId) -> Self {
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
    unwritten: Mutex<HashMap<Ino, Unwritten>>,
    descriptors: Descriptors,
    queue_files: Mutex<QueueFiles>,
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
            descriptors: Descriptors::new(Arc::clone(&store)),
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
            queue_files: Mutex::default(),
            stream,
            notifier,
        };
        guard(&tree.queue_files).resume(handoff.files.clone());
        tree.descriptors.resume(handoff, &tree.stream);
        tree
    }

    /// Whether an inode is that of `control`, where a command may wait for the disk.
    pub fn is_control(ino: NodeId) -> bool {
        ino == NodeId::Fixed(Fixed::Control)
    }

    /// Whether reading an inode makes a text of everything that there is, or of all that a session holds, or looks at
    /// all processes above the caller.
    pub fn is_long(ino: NodeId) -> bool {
        matches!(
            ino,
            NodeId::Fixed(Fixed::Leases | Fixed::Waiters | Fixed::Own) | NodeId::Session(_)
        )
    }

    /// A kernel lock on a file was refused. If it was created for that, and nothing is written to it, it goes when it is
    /// closed: it would keep others out for as long as its session lives, and nobody would know why.
    pub fn lock_refused(&self, ino: NodeId) {
        if let NodeId::Claim(ino) = ino
            && let Some(unwritten) = guard(&self.unwritten).get_mut(&ino)
        {
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
    pub fn pollers(&self) -> Vec<(NodeId, u64)> {
        self.store.handoff().pollers.into_iter().collect()
    }

    /// A descriptor is polled: with the kernel's own handle of it.
    pub fn polled(&self, fh: NodeId, kh: u64) {
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
    fn node<R>(&self, ino: Ino, show: impl FnOnce(&Table, Node) -> R) -> Option<R> {
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
    pub fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<Attr, Refusal> {
        match parent {
            NodeId::Fixed(Fixed::Root) => {
                let mut all = Fixed::ALL.iter().filter(|file| **file != Fixed::Root);
                let found = all.find(|file| fixed(**file).0.as_bytes() == name);
                let found = found.ok_or(Refusal::NotFound)?;
                Ok(self.fixed(*found))
            }
            NodeId::Fixed(Fixed::Claims) => {
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
            NodeId::Fixed(Fixed::Queue) => Ok(self.queue_file(Name::new(name).map_err(hide)?)),
            NodeId::Fixed(Fixed::Sessions) => {
                let id = SessionId::new(name).map_err(hide)?;
                let attr = |session: &Session| self.session_attr(session);
                self.session(&id, |_, session| attr(session))
                    .ok_or(Refusal::NotFound)
            }
            NodeId::Claim(dir) => {
                let label = Label::new(name).map_err(hide)?;
                let found = self.node(dir, |table, node| {
                    if node.content().shape != Shape::Directory {
                        return Err(Refusal::NotDirectory);
                    }
                    let found = node.content().entries().get(&label);
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
    pub fn room(&self, ino: NodeId) -> Result<u64, Refusal> {
        let NodeId::Claim(ino) = ino else {
            return Err(Refusal::Lost);
        };
        let room = |_: &Table, node: Node| node.content().room() as u64;
        self.node(ino, room).ok_or(Refusal::Lost)
    }

    /// The caller is the helper that tells watchers of names that have gone.
    pub fn is_notifier(&self, task: u32) -> bool {
        self.notifier.is(task)
    }

    /// A name that has gone, as the helper sees it: there, and to be removed. One that is held again is what it is.
    pub fn tombstone(&self, parent: NodeId, name: &[u8]) -> Result<Attr, Refusal> {
        let found = self.lookup(parent, name);
        if parent != NodeId::Fixed(Fixed::Claims) || found.is_ok() {
            return found;
        }
        let ino = NodeId::Tombstone(self.next_handle.fetch_add(1, Relaxed));
        let file = self.virtual_file(ino, 0);
        let kind = if self.notifier.was_directory(&self.name(name)?) {
            Kind::Directory
        } else {
            Kind::File
        };
        Ok(Attr { kind, ..file })
    }

    /// The helper removes a name that has gone; EBUSY for one that is held again.
    pub fn remove_tombstone(&self, parent: NodeId, name: &[u8]) -> Result<(), Refusal> {
        let name = self.name(name)?;
        self.notifier.told(&name);
        if parent != NodeId::Fixed(Fixed::Claims) || self.lease(name.as_str(), |_, _| ()).is_some()
        {
            return Err(Refusal::Busy);
        }
        Ok(())
    }

    /// The attributes of a node; ESTALE for one that was lost.
    pub fn attr(&self, ino: NodeId) -> Result<Attr, Refusal> {
        match ino {
            NodeId::Fixed(fixed) => Ok(self.fixed(fixed)),
            NodeId::Claim(ino) => self
                .node(ino, |_, node| node_attr(ino, node))
                .ok_or(Refusal::Lost),
            NodeId::Session(_) => self
                .session_file(ino, |session| self.session_attr(session))
                .ok_or(Refusal::Lost),
            NodeId::QueueFile(_) => Ok(self.queue_file_attr(ino)),
            NodeId::Tombstone(_) => Ok(self.virtual_file(ino, 0)),
            _ => {
                let open = self.descriptors.registration(ino).ok_or(Refusal::Lost)?;
                Ok(Attr {
                    uid: open.ancestry.uid(),
                    ..self.virtual_file(ino, 0o644)
                })
            }
        }
    }

    fn virtual_file(&self, ino: NodeId, mode: u16) -> Attr {
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

    fn fixed(&self, file: Fixed) -> Attr {
        let (_, kind, mode) = fixed(file);
        Attr {
            kind,
            nlink: if kind == Kind::Directory { 2 } else { 1 },
            size: if file == Fixed::Events {
                STREAM_SIZE
            } else {
                0
            },
            ..self.virtual_file(NodeId::Fixed(file), mode)
        }
    }

    fn session_attr(&self, session: &Session) -> Attr {
        let since = session.since;
        let file = self.virtual_file(NodeId::Session(session.key), 0o644);
        Attr {
            uid: session.uid,
            atime: since,
            mtime: since,
            ctime: since,
            ..file
        }
    }

    fn session_file<R>(&self, ino: NodeId, show: impl FnOnce(&Session) -> R) -> Option<R> {
        let NodeId::Session(key) = ino else {
            return None;
        };
        let id = self.store.read(Subject::Nothing, |table| {
            table.session_by_key(key).map(|session| session.id.clone())
        })?;
        let mine = |session: &Session| (session.key == key).then(|| show(session));
        self.session(&id, |_, session| mine(session)).flatten()
    }

    /// Lists a directory from an offset on, until `emit` says that it has enough.
    pub fn list(
        &self,
        ino: NodeId,
        offset: u64,
        mut emit: impl FnMut(Entry) -> bool,
    ) -> Result<(), Refusal> {
        let dir = self.attr(ino)?;
        let up = match ino {
            NodeId::Fixed(Fixed::Root) => dir,
            NodeId::Claim(ino) => self.attr(self.above(ino))?,
            _ => self.attr(NodeId::ROOT)?,
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
            NodeId::Fixed(Fixed::Root) => {
                let listed = Fixed::ALL.into_iter();
                let listed = listed.filter(|file| ![Fixed::Root, UNLISTED].contains(file));
                for file in listed {
                    let number = NodeId::Fixed(file).number();
                    if number <= after {
                        continue;
                    }
                    if !emit(Entry {
                        name: fixed(file).0.as_bytes(),
                        offset: number + 2,
                        attr: self.fixed(file),
                    }) {
                        break;
                    }
                }
            }
            NodeId::Fixed(Fixed::Claims) => {
                self.store.leases(Token(after), |_, name, lease, inode| {
                    let attr = claim_attr(lease, inode);
                    emit(Entry {
                        name: name.as_str().as_bytes(),
                        offset: lease.token.0 + 2,
                        attr,
                    })
                })
            }
            NodeId::Fixed(Fixed::Sessions) => {
                self.store.sessions(SessionKey(after), |_, session| {
                    let attr = self.session_attr(session);
                    emit(Entry {
                        name: session.id.as_str().as_bytes(),
                        offset: session.key.0 + 2,
                        attr,
                    })
                })
            }
            NodeId::Fixed(Fixed::Queue) => {}
            NodeId::Claim(ino) if dir.kind == Kind::Directory => {
                self.node(ino, |table, node| {
                    for (cookie, label, ino) in node.content().entries().after(after) {
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
    fn above(&self, ino: Ino) -> NodeId {
        let dir = self.node(ino, |_, node| node.child.map(|child| child.dir));
        dir.flatten()
            .map_or(NodeId::Fixed(Fixed::Claims), NodeId::Claim)
    }

    // Changes.

    /// Sets size, mode and times, each if given; that the caller may was checked.
    pub fn set_attr(
        &self,
        caller: Caller,
        ino: NodeId,
        size: Option<u64>,
        attributes: Attributes,
    ) -> Result<Attr, Refusal> {
        match ino {
            NodeId::Claim(ino) => {
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
            NodeId::Registration(_) if attributes.mtime.is_some() => {
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
    pub fn is_sticky(parent: NodeId) -> bool {
        parent != NodeId::Fixed(Fixed::Sessions)
    }

    /// Removes a file or, by rmdir(2), a directory: releases a claim, ends a session.
    pub fn remove(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &[u8],
        directory: bool,
    ) -> Result<(), Refusal> {
        match parent {
            NodeId::Fixed(Fixed::Sessions) if directory => Err(Refusal::NotDirectory),
            NodeId::Fixed(Fixed::Sessions) => {
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
        parent: NodeId,
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
        self.attr(NodeId::Claim(made.ino.ok_or(Refusal::Lost)?))
    }

    /// Gives a file a further name.
    pub fn link(
        &self,
        caller: Caller,
        ino: NodeId,
        parent: NodeId,
        name: &[u8],
    ) -> Result<Attr, Refusal> {
        let NodeId::Claim(ino) = ino else {
            return Err(Refusal::NotPermitted);
        };
        let name = self.place(parent, name)?;
        self.execute(caller, |by| {
            let by = by?;
            Ok(Command::Link { ino, name, by })
        })?;
        self.attr(NodeId::Claim(ino))
    }

    /// What a symlink points to, byte for byte.
    pub fn target(&self, ino: NodeId) -> Result<Arc<[u8]>, Refusal> {
        let NodeId::Claim(ino) = ino else {
            return Err(Refusal::Lost);
        };
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
        (one_parent, one): (NodeId, &[u8]),
        (other_parent, other): (NodeId, &[u8]),
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
        (from_parent, from): (NodeId, &[u8]),
        (to_parent, to): (NodeId, &[u8]),
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
    fn alter(&self, caller: Caller, ino: Ino, change: Change) -> Result<(), Refusal> {
        self.execute(caller, |by| {
            let by = by?;
            Ok(Command::Alter { ino, by, change })
        })
    }

    /// Gives a deadline, or none.
    fn limit(&self, caller: Caller, ino: Ino, ttl: Option<Duration>) -> Result<(), Refusal> {
        self.execute(caller, |by| {
            let by = by?;
            Ok(Command::Limit { ino, by, ttl })
        })
    }

    /// Hands all names of an inode to another live session.
    fn give(&self, caller: Caller, ino: Ino, to: SessionId) -> Result<(), Refusal> {
        self.execute(caller, |by| {
            let by = by?;
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
    fn place(&self, parent: NodeId, name: &[u8]) -> Result<Place, Refusal> {
        match parent {
            NodeId::Fixed(Fixed::Claims) => self.name(name).map(Place::Claim),
            NodeId::Claim(dir) => Label::new(name).map(|label| Place::Inside { dir, label }),
            _ => Err(Refusal::NotPermitted),
        }
    }

    // Extended attributes.

    /// All extended attributes of a node: the record's, then the holder's own. A file in `queue/` has
    /// those of the record of its name.
    pub fn tags(&self, ino: NodeId) -> Result<Vec<(String, Vec<u8>)>, Refusal> {
        let now = self.store.now().boot;
        match ino {
            NodeId::Claim(ino) => {
                let tags = self.node(ino, |table, node| {
                    let name = first_name(table, node);
                    let mut tags =
                        name.map_or_else(Vec::new, |name| render::tags(table, name, now));
                    let own = node.content().tags().iter();
                    tags.extend(own.map(|(name, value)| (name.clone(), value.clone())));
                    tags
                });
                tags.ok_or(Refusal::Lost)
            }
            NodeId::QueueFile(_) => {
                let name = self.queued_name(ino).ok_or(Refusal::Lost)?;
                let tags = self.store.read(Subject::Name(name.as_str()), |table| {
                    let lease = table.lease(&name);
                    lease.map(|_| render::queue_tags(table, &name, now))
                });
                Ok(tags.unwrap_or_default())
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Sets an extended attribute of the holder's own, or removes it; `user.claimfs.break`, set to the lease's token, takes the
    /// name from its holder; `user.claimfs.ttl` is its deadline,
    /// and `user.claimfs.session` its holder. EOPNOTSUPP outside `user.`.
    pub fn set_tag(
        &self,
        caller: Caller,
        ino: NodeId,
        name: &str,
        value: Option<&[u8]>,
    ) -> Result<(), Refusal> {
        let NodeId::Claim(ino) = ino else {
            return Err(Refusal::Unsupported);
        };
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
        Shape::Directory => (Kind::Directory, 2 + content.entries().directories()),
        Shape::Symlink(_) => (Kind::Symlink, node.links()),
    };
    Attr {
        ino: NodeId::Claim(ino),
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
