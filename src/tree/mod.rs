//! The mount, as files.
//!
//! ```text
//! MOUNT/                0555
//! ├── README            0444  the manual
//! ├── claims/           1777  the leases: create = acquire, remove = release
//! │   └── NAME                exists exactly while a live session holds it
//! ├── paths/            1777  reservations of paths: a file covers its path and all below it
//! │   └── DIR/NAME            directories are nobody's, and go once they are empty and unused
//! ├── queue/            0555  lists nothing, and has a file for every name
//! │   └── NAME          0444  reads to its end once claims/NAME is the reader's
//! ├── waiters           0444  who waits for what, a line each
//! ├── sessions/         1777  the live sessions: create = register, remove = end
//! │   └── ID            0644
//! ├── self              0444  the session of its reader
//! ├── leases            0444  every live lease, a line each
//! ├── control           0222  commands, a line each
//! ├── metrics           0444  counters
//! └── events            0444  what happens from the opening on, a line each: not listed
//! ```
//!
//! Promises: a fixed file has size 0, or the size of a page if it is waited on, and reads in full
//! (`events` has no end). A text that is rendered is one snapshot for all reads of a descriptor,
//! from its start on. The handle of a claim that is open for writing is its inode number.
//!
//! Lock order: a descriptor of a file in `queue/` (`waiting::Waiting`), then the store. The maps
//! of [`Tree`] are taken last, also under the store's lock; nothing is called under them.
//!
//! Does not know: fuser, how a death is found out, how a change is recorded.

mod attr;
mod changes;
pub mod control;
mod descriptors;
mod kept;
mod list;
mod lookup;
mod open;
mod paths;
pub(crate) mod permissions;
mod read;
mod registering;
mod waiting;
mod write;
pub mod xattrs;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

pub(crate) use self::attr::{Attr, Kind};
use self::descriptors::Descriptors;
use self::kept::Kept;
use self::open::Unwritten;
pub(crate) use self::open::{Handle, Opened};
use self::waiting::QueueFiles;
use crate::core::table::{Inode, Lease, Node, Session, Table};
use crate::core::{
    COUNT_END, Command, Fixed, Ino, Label, Member, Name, NodeId, Outcome, Place, Refusal,
    SessionId, Subject,
};
use crate::events::EventStream;
use crate::handoff::Note;
use crate::handoff::spool::Spool;
use crate::inotify::Notifier;
use crate::render::metrics::Metrics;
use crate::store::{Caller, Store};

/// The number of handles that each server in a row can give before it runs into those of the next,
/// and the number of servers after which the numbers begin again.
const LIFE: u64 = 1 << 32;
const LIVES: u64 = 256;
const _: () = assert!(LIFE * (LIVES + 1) <= COUNT_END);

/// The files of one mount.
pub(crate) struct Tree {
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    /// Names with a leading dot are admitted in `claims/`.
    dotfiles: bool,
    /// Owner of the fixed files.
    uid: u32,
    gid: u32,
    born: SystemTime,
    next_handle: AtomicU64,
    /// The first handle that this server gives.
    oldest_handle: u64,
    spool: Spool,
    /// Taken last, also under the store's lock.
    kept: Mutex<Kept>,
    /// Taken last, also under the store's lock.
    unwritten: Mutex<HashMap<Ino, Unwritten>>,
    descriptors: Descriptors,
    /// Taken last.
    queue_files: Mutex<QueueFiles>,
    stream: Arc<EventStream>,
    notifier: Arc<Notifier>,
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tree {
    /// The files of a mount. The fixed ones belong to `uid` and `gid`; `dotfiles` admits scratch
    /// entries with a leading dot.
    pub(crate) fn new(
        store: Arc<Store>,
        notifier: Arc<Notifier>,
        spool: Spool,
        dotfiles: bool,
        uid: u32,
        gid: u32,
    ) -> Self {
        let handoff = store.handoff();
        let (metrics, stream) = (store.metrics(), store.subscribe());
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
            // No earlier server has given it.
            next_handle: AtomicU64::new(oldest_handle),
            oldest_handle,
            spool,
            kept: Mutex::default(),
            unwritten: Mutex::default(),
            queue_files: Mutex::default(),
            stream,
            notifier,
        };
        guard(&tree.queue_files).resume(handoff.descriptors.files.clone());
        tree.descriptors.resume(handoff);
        tree
    }

    /// The outcome of a request that is sent again, if it was carried out when it was sent first.
    pub(crate) fn outcome(&self, caller: Caller) -> Option<Outcome> {
        self.store.outcome(caller)
    }

    /// The descriptors that were polled on an earlier server, with the kernel's poll handles. Their
    /// pollers must be notified, so that they poll again.
    pub(crate) fn pollers(&self) -> Vec<(NodeId, u64)> {
        let handoff = self.store.handoff();
        handoff.descriptors.pollers.into_iter().collect()
    }

    /// Records that a descriptor is polled, with the kernel's poll handle.
    pub(crate) fn polled(&self, fh: NodeId, kh: u64) {
        self.store.note(Note::Polled { fh, kh });
    }

    /// The counters of this mount.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The number of leases, and their maximum.
    pub(crate) fn usage(&self) -> (usize, usize) {
        self.store.read(Subject::Nothing, |table| {
            (table.lease_count(), table.max_leases())
        })
    }

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

    /// Shows the session of a file in `sessions/`, if it lives.
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

    /// A name in `claims/`, as this mount admits it.
    fn name(&self, raw: &[u8]) -> Result<Name, Refusal> {
        if self.dotfiles {
            Name::with_scratch(raw)
        } else {
            Name::new(raw)
        }
    }

    /// The place of a name in a directory. EPERM where nothing can be created.
    fn place(&self, parent: NodeId, name: &[u8]) -> Result<Place, Refusal> {
        match parent {
            NodeId::Fixed(Fixed::Claims) => self.name(name).map(Place::Claim),
            NodeId::Claim(dir) => Label::new(name).map(|label| Place::Inside { dir, label }),
            _ => match self.path_in(parent, name) {
                Some(path) => path.map(Place::Claim),
                None => Err(Refusal::NotPermitted),
            },
        }
    }
}

/// The refusal of an invalid name, for calls that create nothing: ENOENT, since it cannot exist.
/// Any filesystem refuses a name that is too long.
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
