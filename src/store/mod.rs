//! The one place where the table changes: under one mutex, decide, append, apply, publish, reply.
//!
//! Promises: what a caller is told has been written down and applied before; whatever a caller asks about a session
//! is answered after its roots were looked at, so that a holder that is proven dead holds nothing; and every root of a
//! live session is watched.
//!
//! Lock order: the store's mutex, then that of [`Processes`]. Callers are walked before either is taken.
//!
//! Deliberately ignorant of: fuser, files, how things are shown.

mod arrivals;
mod commit;

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use self::arrivals::Arrivals;
pub use self::arrivals::{Arrival, Concerns};
use crate::core::identity::Ancestry;
use crate::core::table::{Inode, Lease, Node, Session, Table};
use crate::core::{
    Asker, Change, Command, Creation, Ino, Member, Moment, NOWHERE, Name, Place, Process, Refusal,
    RemoteSession, Rule, SessionId, SessionKey, Shape, Token, WaiterId,
};
use crate::events::EventStream;
use crate::handoff::{AGAIN, Done, Handoff, Key, Note, Sent};
use crate::inotify::Notifier;
use crate::journal::Log;
use crate::logging::limited;
use crate::process::{self, Processes, Source, Watch};
use crate::render::metrics::Metrics;

/// Who makes a request, as the kernel says it.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The thread; 0 if it lives where the mount cannot see it.
    pub task: u32,
    /// Its uid for files.
    pub uid: u32,
    /// Its gid for files.
    pub gid: u32,
    /// The number of the request, as the kernel gave it.
    pub request: u64,
    /// Which part of it, where it asks for several things.
    pub step: u32,
    /// When it came, if it is carried out later: the time since boot.
    pub arrived: Option<Duration>,
}

impl Caller {
    fn key(self) -> Key {
        Key(self.request & !AGAIN, self.step)
    }

    fn is_again(self) -> bool {
        self.request & AGAIN != 0
    }

    fn sent(self, lives: u64) -> Sent {
        Sent {
            key: self.key(),
            again: self.is_again(),
            thread: THREAD.with(|number| lives << 16 | number),
        }
    }
}

/// How many threads have numbers.
static NUMBERED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static THREAD: u64 = NUMBERED.fetch_add(1, Relaxed);
}

/// A place in a line.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Its number, and the session that waits; `None` if the caller's session holds the name already.
    pub waiter: Option<(WaiterId, SessionKey)>,
    /// The caller's session, if the caller is its only root: the lease would end with the caller.
    pub alone: Option<SessionId>,
}

/// How it stands with a waiter.
#[derive(Clone, Debug)]
pub enum Turn {
    /// The name is its own.
    Granted,
    /// Its session holds the name by another way.
    Held,
    /// It waits.
    Waits {
        /// For what this session holds.
        holder: SessionId,
        /// Since this moment.
        since: SystemTime,
        /// With so many before it.
        before: usize,
        /// The process above the waiter's that holds it, if one does.
        ancestor: Option<Process>,
    },
    /// It is in no line any more: its session is over, or it has lost what it was granted.
    Over,
}

/// The leases of one mount.
pub struct Store {
    inner: Mutex<Inner>,
    processes: Arc<Processes>,
    metrics: Arc<Metrics>,
    stream: Arc<EventStream>,
    arrivals: Arc<Arrivals>,
    /// The newest walks, by the tasks that called, and when they were begun.
    ancestries: Mutex<HashMap<u32, (Instant, Arc<Ancestry>)>>,
}

/// Reuse a walk for at most this long. What it says of those above its caller may have been as old as that when it began, so
/// that an exec of an ancestor goes unnoticed for 50 ms at most.
const ANCESTRY_AGE: Duration = Duration::from_millis(25);

/// How many sessions or leases are looked at before others get their turn at the store, and how long they have it then.
const TURN: usize = 256;
const REST: Duration = Duration::from_micros(20);

/// How many are kept.
const ANCESTRIES_MAX: usize = 1024;

struct Inner {
    table: Table,
    journal: Box<dyn Log>,
    handoff: Handoff,
    /// How many descriptors are open on an inode: a nameless one lives as long as they do.
    opens: HashMap<Ino, u32>,
    /// Inodes below this one are older than this server, so that nobody has counted their descriptors: a nameless one lives until
    /// the kernel forgets it.
    inherited: Ino,
    processes: Arc<Processes>,
    metrics: Arc<Metrics>,
    stream: Arc<EventStream>,
    notifier: Arc<Notifier>,
    arrivals: Arc<Arrivals>,
    /// The deadline that the reaper is to be woken for.
    alarm: Option<Duration>,
    /// When all sessions were looked at last.
    checked: Option<Instant>,
}

impl Store {
    /// A store for a table, and for a connection: see [`Store::recover`].
    pub fn new(
        table: Table,
        handoff: Handoff,
        journal: Box<dyn Log>,
        processes: Arc<Processes>,
        notifier: Arc<Notifier>,
    ) -> Self {
        let (metrics, stream) = (Arc::<Metrics>::default(), Arc::<EventStream>::default());
        let arrivals = Arc::<Arrivals>::default();
        let inner = Inner {
            table,
            journal,
            handoff,
            opens: HashMap::new(),
            inherited: Ino(0),
            processes: Arc::clone(&processes),
            metrics: Arc::clone(&metrics),
            stream: Arc::clone(&stream),
            notifier,
            arrivals: Arc::clone(&arrivals),
            alarm: None,
            checked: None,
        };
        Self {
            inner: Mutex::new(inner),
            processes,
            metrics,
            stream,
            arrivals,
            ancestries: Mutex::default(),
        }
    }

    /// A request has come that is carried out later.
    pub fn arrive(
        &self,
        uid: u32,
        concerns: impl FnOnce() -> Concerns + Send + 'static,
    ) -> Arrival {
        self.arrivals.arrive(&self.processes, uid, concerns)
    }

    /// What is counted.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Where it is told what happens.
    pub fn stream(&self) -> Arc<EventStream> {
        Arc::clone(&self.stream)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic under the lock has answered EIO; what it left undone was not applied.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The caller and the processes above it. EPERM for one that the mount cannot see.
    pub fn ancestry(&self, caller: Caller) -> Result<Arc<Ancestry>, Refusal> {
        if caller.task == 0 {
            return Err(Refusal::NotPermitted);
        }
        let known = self.ancestries().get(&caller.task).cloned();
        if let Some((start, ancestry)) = known
            && start.elapsed() < ANCESTRY_AGE
            && ancestry.uid() == caller.uid
            && self.processes.is_unchanged(caller.task, ancestry.chain())
        {
            return Ok(ancestry);
        }
        let pid = self.processes.of_task(caller.task)?;
        let start = Instant::now();
        let ancestry = self
            .processes
            .ancestry(Some(caller.task), pid, caller.uid)?;
        let ancestry = Arc::new(ancestry);
        let mut ancestries = self.ancestries();
        if ancestries.len() >= ANCESTRIES_MAX {
            ancestries.clear();
        }
        ancestries.insert(caller.task, (start, Arc::clone(&ancestry)));
        Ok(ancestry)
    }

    fn ancestries(&self) -> MutexGuard<'_, HashMap<u32, (Instant, Arc<Ancestry>)>> {
        self.ancestries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The parent of a caller, as if it had made the request. EPERM if it has none that the mount can see.
    pub fn parent_ancestry(&self, ancestry: &Ancestry) -> Result<Ancestry, Refusal> {
        let parent = Some(ancestry.caller().parent)
            .filter(|parent| *parent != 0)
            .ok_or(Refusal::NotPermitted)?;
        self.processes.ancestry(None, parent, ancestry.uid())
    }

    // Looking. Nobody's identity matters here.

    /// Shows the lease of a name, if its holder is alive.
    pub fn look<R>(
        &self,
        name: &(impl AsRef<str> + ?Sized),
        show: impl FnOnce(&Lease, &Inode) -> R,
    ) -> Option<R> {
        let mut inner = self.lock();
        inner.check_name(name);
        let lease = inner.table.lease(name)?;
        inner.table.inode(lease.ino).map(|inode| show(lease, inode))
    }

    /// Shows an inode, if its holder is alive or it is still open without a name.
    pub fn look_at<R>(&self, ino: Ino, show: impl FnOnce(&Table, Node) -> R) -> Option<R> {
        let mut inner = self.lock();
        inner.check_inode(ino);
        inner.table.node(ino).map(|node| show(&inner.table, node))
    }

    /// Shows the live leases after a token in the order of their tokens, until `show` says that it has enough.
    pub fn leases(
        &self,
        after: Token,
        mut show: impl FnMut(&Table, &Name, &Lease, &Inode) -> bool,
    ) {
        let mut inner = self.lock();
        let mut alive: HashMap<SessionKey, bool> = HashMap::new();
        let mut last = after;
        loop {
            // Judging may change the table, so the walk over it is taken up again from the token that it had reached.
            let Some((token, holder)) = inner.next_lease(last) else {
                return;
            };
            let is_alive = *alive
                .entry(holder)
                .or_insert_with(|| inner.check_session(holder));
            last = token;
            if is_alive
                && let Some(ino) = inner
                    .table
                    .name(token)
                    .and_then(|name| Some(inner.table.lease(name)?.ino))
            {
                inner.check_terms(ino);
            }
            if let Some(name) = inner.table.name(token).filter(|_| is_alive)
                && let Some(lease) = inner.table.lease(name)
                && let Some(inode) = inner.table.inode(lease.ino)
                && !show(&inner.table, name, lease, inode)
            {
                return;
            }
        }
    }

    /// Shows all live leases as they are at one moment, in the order of their tokens: the number of the newest event
    /// that they reflect. `known` is asked first whether it has them, by that number, unless they show a time that runs.
    pub fn snapshot<R>(
        &self,
        known: impl FnOnce(u64) -> Option<R>,
        mut show: impl FnMut(&Table, &Name),
    ) -> Result<R, u64> {
        self.look_at_all();
        let inner = self.lock();
        let seq = inner.table.seq();
        let is_timeless = inner.table.next_deadline().is_none();
        if let Some(known) = Some(seq).filter(|_| is_timeless).and_then(known) {
            return Ok(known);
        }
        for (name, _) in inner.table.leases(Token(0)) {
            show(&inner.table, name);
        }
        Err(seq)
    }

    /// Looks at the holder of every lease, in turns, so that others have theirs.
    fn look_at_all(&self) {
        let mut last = SessionKey(0);
        loop {
            let mut inner = self.lock();
            let sessions = inner.table.sessions(last);
            let keys: Vec<SessionKey> = sessions.take(TURN).map(|session| session.key).collect();
            for key in &keys {
                inner.check_session(*key);
                last = *key;
            }
            drop(inner);
            if keys.len() < TURN {
                break;
            }
            thread::sleep(REST);
        }
        let mut last = Token(0);
        loop {
            let mut inner = self.lock();
            let leases = inner.table.leases(last).take(TURN);
            let leases: Vec<(Token, Ino)> =
                leases.map(|(_, lease)| (lease.token, lease.ino)).collect();
            for (token, ino) in &leases {
                inner.check_terms(*ino);
                last = *token;
            }
            drop(inner);
            if leases.len() < TURN {
                break;
            }
            thread::sleep(REST);
        }
    }

    /// Shows a session, if it is alive, with the roots that are.
    pub fn session<R>(
        &self,
        id: &SessionId,
        show: impl FnOnce(&Table, &Session) -> R,
    ) -> Option<R> {
        let mut inner = self.lock();
        inner.check_roots(id);
        inner
            .table
            .session(id)
            .map(|session| show(&inner.table, session))
    }

    /// Shows the live sessions after a key, until `show` says that it has enough.
    pub fn sessions(&self, after: SessionKey, mut show: impl FnMut(&Table, &Session) -> bool) {
        let mut inner = self.lock();
        let mut last = after;
        loop {
            let next = inner.table.sessions(last).next().map(|session| session.key);
            let Some(key) = next else { return };
            last = key;
            if inner.check_session(key)
                && let Some(session) = inner.table.session_by_key(key)
                && !show(&inner.table, session)
            {
                return;
            }
        }
    }

    /// Shows the table as it stands, without looking at any process.
    pub fn glance<R>(&self, show: impl FnOnce(&Table) -> R) -> R {
        show(&self.lock().table)
    }

    /// Where it is said how a process ended.
    pub fn source(&self) -> Source {
        self.processes.source()
    }

    /// How often more processes ended than could be read of.
    pub fn status_overflows(&self) -> u64 {
        self.processes.status_overflows()
    }

    /// The session that a caller belongs to, by whichever rule says so.
    pub fn member(&self, ancestry: &Ancestry) -> Result<Member, Refusal> {
        self.lock().member(ancestry)
    }

    /// What came of a request that is sent again, if it was carried out when it was sent first.
    pub fn done(&self, caller: Caller) -> Option<Done> {
        if !caller.is_again() {
            return None;
        }
        self.lock().handoff.done(caller.key())
    }

    // Claiming. The caller is walked first, and judged with the rest under the lock.

    /// Creates a claim or an entry of one, or opens one's own if `exclusive` is not set; the inode counts as opened.
    /// `show` is told whether it is new.
    pub fn create<R>(
        &self,
        caller: Caller,
        name: &Place,
        creation: Creation,
        (exclusive, truncate): (bool, bool),
        show: impl FnOnce(Ino, Node, bool) -> R,
    ) -> Result<R, Refusal> {
        let ancestry = self.ancestry(caller)?;
        let mut inner = self.lock();
        let next = inner.table.next_ino();
        let ino = inner.claim(caller, &ancestry, name, creation, exclusive, truncate)?;
        let node = inner.table.node(ino).ok_or(Refusal::Lost)?;
        let shown = show(ino, node, ino >= next);
        inner.opened(ino);
        Ok(shown)
    }

    /// Makes a claim or an entry of one that is not opened.
    pub fn make(&self, caller: Caller, name: &Place, creation: Creation) -> Result<Ino, Refusal> {
        let ancestry = self.ancestry(caller)?;
        self.lock()
            .claim(caller, &ancestry, name, creation, true, false)
    }

    /// Gives an inode that one holds a further name.
    pub fn link(&self, caller: Caller, ino: Ino, name: &Place) -> Result<(), Refusal> {
        let ancestry = self.ancestry(caller)?;
        let mut inner = self.lock();
        inner.check_inode(ino);
        inner.check_place(name, &ancestry);
        let by = &inner.member(&ancestry)?;
        let name = name.clone();
        inner.commit_request(caller, &Command::Link { ino, name, by })
    }

    /// Swaps two names that one holds.
    pub fn exchange(&self, caller: Caller, one: &Place, other: &Place) -> Result<(), Refusal> {
        let ancestry = self.ancestry(caller)?;
        let mut inner = self.lock();
        inner.check_place(one, &ancestry);
        inner.check_place(other, &ancestry);
        let by = &inner.member(&ancestry)?;
        let (one, other) = (one.clone(), other.clone());
        inner.commit_request(caller, &Command::Exchange { one, other, by })
    }

    /// Opens a claim: for its holder alone if it is to be written.
    pub fn open(
        &self,
        caller: Caller,
        ino: Ino,
        write: bool,
        truncate: bool,
    ) -> Result<(), Refusal> {
        let ancestry = if write || truncate {
            Some(self.ancestry(caller)?)
        } else {
            None
        };
        let mut inner = self.lock();
        inner.check_inode(ino);
        if let Some(ancestry) = ancestry {
            let by = &inner.member(&ancestry)?;
            inner.commit_request(caller, &Command::Reclaim { ino, by, truncate })?;
        }
        inner.table.node(ino).ok_or(Refusal::Lost)?;
        inner.opened(ino);
        Ok(())
    }

    /// A file is closed that was made for a kernel lock, which was refused, and that nothing was written to.
    pub fn withdraw(&self, ino: Ino) {
        self.lock().commit_own(&Command::Withdraw { ino });
    }

    /// A descriptor is closed.
    pub fn close(&self, ino: Ino) {
        let mut inner = self.lock();
        if let Some(count) = inner.opens.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                inner.opens.remove(&ino);
                inner.forget(ino);
            }
        }
    }

    /// The kernel has forgotten an inode: nobody has it open.
    pub fn forgotten(&self, ino: Ino) {
        let mut inner = self.lock();
        if ino < inner.inherited {
            inner.drop_nameless(ino);
        }
    }

    /// Changes what a claim contains.
    pub fn alter(&self, caller: Caller, ino: Ino, change: Change) -> Result<(), Refusal> {
        let ancestry = self.ancestry(caller)?;
        let mut inner = self.lock();
        inner.check_inode(ino);
        let by = &inner.member(&ancestry)?;
        inner.commit_request(caller, &Command::Alter { ino, by, change })
    }

    /// Removes a claim or an entry of one.
    pub fn release(&self, caller: Caller, name: &Place, directory: bool) -> Result<(), Refusal> {
        let ancestry = self.ancestry(caller)?;
        let mut inner = self.lock();
        inner.check_place(name, &ancestry);
        let by = &inner.member(&ancestry)?;
        let name = name.clone();
        inner.commit_request(
            caller,
            &Command::Release {
                name,
                directory,
                by,
            },
        )
    }

    /// Renames a claim or an entry of one.
    pub fn rename(
        &self,
        caller: Caller,
        from: &Place,
        to: &Place,
        noreplace: bool,
    ) -> Result<(), Refusal> {
        let ancestry = self.ancestry(caller)?;
        let mut inner = self.lock();
        inner.check_place(from, &ancestry);
        inner.check_place(to, &ancestry);
        let by = &inner.member(&ancestry)?;
        inner.commit_request(
            caller,
            &Command::Rename {
                from: from.clone(),
                to: to.clone(),
                noreplace,
                by,
            },
        )
    }

    /// Registers a session for a caller who was walked before, or a further root of one: see [`Ancestry::register`] for
    /// `body`, and `caller` for the request that asks for it, if it is one that may be sent again.
    pub fn register(
        &self,
        ancestry: &Ancestry,
        id: &SessionId,
        body: &[u8],
        exclusive: bool,
        caller: Option<Caller>,
    ) -> Result<(), Refusal> {
        let by = &ancestry.register(id.clone(), body)?;
        let mut inner = self.lock();
        inner.check_session_id(id);
        inner.commit(&Command::Join { exclusive, by }, caller)
    }

    /// Ends a session: for root, and for its uid as far as its sandbox reaches. A caller that the mount cannot see
    /// ends those of its uid that it may claim for.
    pub fn end(&self, caller: Caller, id: &SessionId) -> Result<(), Refusal> {
        let ancestry = match caller.task {
            0 => None,
            _ => Some(self.ancestry(caller)?),
        };
        let chain = ancestry.as_ref().map(|ancestry| ancestry.processes());
        let by = match (&ancestry, &chain) {
            (Some(ancestry), Some(chain)) => asker(ancestry, chain),
            _ => Asker {
                uid: caller.uid,
                pidns: NOWHERE,
                chain: &[],
                command: Arc::from(""),
            },
        };
        let mut inner = self.lock();
        inner.check_session_id(id);
        let id = id.clone();
        inner.commit_request(caller, &Command::End { id, by })
    }

    /// Ends the caller's own session by removing its file: EBUSY for any other.
    pub fn end_own(&self, caller: Caller, id: &SessionId) -> Result<(), Refusal> {
        let ancestry = self.ancestry(caller);
        let mut inner = self.lock();
        inner.check_session_id(id);
        // A caller whose session cannot be told is of none.
        let by = ancestry.and_then(|ancestry| inner.member(&ancestry)).ok();
        let id = id.clone();
        let by = by.as_ref();
        inner.commit_request(caller, &Command::EndOwn { id, by })
    }

    /// Takes a name from a holder that lives, for its uid and root. ESTALE for another token than the lease's.
    pub fn break_lease(&self, caller: Caller, name: &Name, token: Token) -> Result<(), Refusal> {
        let ancestry = self.ancestry(caller)?;
        let mut inner = self.lock();
        inner.check_name(name);
        let name = name.clone();
        let chain = &ancestry.processes();
        let by = asker(&ancestry, chain);
        inner.commit_request(caller, &Command::Break { name, token, by })
    }

    /// Gives a claim that one holds a deadline, or none.
    pub fn limit(&self, caller: Caller, name: &Name, ttl: Option<Duration>) -> Result<(), Refusal> {
        let ino = self.look(name, |lease, _| lease.ino);
        self.limit_inode(caller, ino.ok_or(Refusal::NotFound)?, ttl)
    }

    /// Gives an inode that one holds a deadline, or none.
    pub fn limit_inode(
        &self,
        caller: Caller,
        ino: Ino,
        ttl: Option<Duration>,
    ) -> Result<(), Refusal> {
        let ancestry = self.ancestry(caller)?;
        let mut inner = self.lock();
        inner.check_inode(ino);
        let by = &inner.member(&ancestry)?;
        inner.commit_request(caller, &Command::Limit { ino, by, ttl })
    }

    /// Hands a claim that one holds to another live session.
    pub fn give(&self, caller: Caller, name: &Name, to: &SessionId) -> Result<(), Refusal> {
        let ino = self.look(name, |lease, _| lease.ino);
        self.give_inode(caller, ino.ok_or(Refusal::NotFound)?, to)
    }

    /// Hands all names of an inode that one holds to another live session.
    pub fn give_inode(&self, caller: Caller, ino: Ino, to: &SessionId) -> Result<(), Refusal> {
        let ancestry = self.ancestry(caller)?;
        let mut inner = self.lock();
        inner.check_inode(ino);
        inner.check_session_id(to);
        let by = &inner.member(&ancestry)?;
        let to = to.clone();
        inner.commit_request(caller, &Command::Give { ino, to, by })
    }

    // For callers that the mount cannot see.

    /// Takes a claim for a session without processes, which lives for `ttl` from now on; so it does if the claim is its own already.
    pub fn hold(
        &self,
        caller: Caller,
        name: &Name,
        id: SessionId,
        ttl: Duration,
    ) -> Result<(), Refusal> {
        let by = &self.remote(caller, id)?;
        let mut inner = self.lock();
        inner.check_name(name);
        inner.check_session_id(&by.id);
        let name = name.clone();
        let hold = Command::Hold { name, by, ttl };
        let answer = match inner.commit_request(caller, &hold) {
            Err(Refusal::Full | Refusal::Quota) if inner.check_all_sessions_at_times() => {
                inner.commit_request(caller, &hold)
            }
            result => result,
        };
        drop(inner);
        answer.and_then(|()| self.sync())
    }

    /// Waits until what is to survive a loss of power would. Nobody else waits for it. EIO if it cannot be known: then it is held, until its
    /// deadline.
    pub fn sync(&self) -> Result<(), Refusal> {
        let unsynced = self.lock().journal.unsynced();
        let synced = unsynced.and_then(|files| files.iter().try_for_each(File::sync_data));
        synced.map_err(|error| {
            limited!(
                None,
                log::Level::Error,
                "the journal cannot be synced: {error}"
            );
            Refusal::Failed
        })
    }

    fn remote(&self, caller: Caller, id: SessionId) -> Result<RemoteSession, Refusal> {
        let pidns = match caller.task {
            0 => NOWHERE,
            _ => self.ancestry(caller)?.caller().pidns,
        };
        let (uid, gid) = (caller.uid, caller.gid);
        Ok(RemoteSession {
            id,
            uid,
            pidns,
            gid,
        })
    }

    /// Gives up a claim of such a session.
    pub fn yield_up(&self, caller: Caller, name: &Name, id: SessionId) -> Result<(), Refusal> {
        let by = &self.remote(caller, id)?;
        let mut inner = self.lock();
        inner.check_name(name);
        inner.check_session_id(&by.id);
        let name = name.clone();
        inner.commit_request(caller, &Command::Yield { name, by })
    }

    // Waiting.

    /// Stands in line for a name: see [`Seat`].
    pub fn queue(&self, caller: Caller, name: &Name) -> Result<Seat, Refusal> {
        let ancestry = self.ancestry(caller)?;
        let mut inner = self.lock();
        inner.check_name(name);
        let by = &inner.member(&ancestry)?;
        let creation = Creation {
            shape: Shape::File,
            mode: 0o644,
            uid: caller.uid,
            gid: caller.gid,
        };
        let newest = inner.table.newest_waiter();
        let queue = Command::Queue {
            name: name.clone(),
            by,
            creation,
        };
        match inner.commit_request(caller, &queue) {
            Err(Refusal::Full | Refusal::Quota) if inner.check_all_sessions_at_times() => {
                inner.commit_request(caller, &queue)?;
            }
            result => result?,
        }
        let waiter = Some(inner.table.newest_waiter()).filter(|waiter| *waiter > newest);
        let session = inner.table.session(&by.id);
        let waiter = waiter.and_then(|waiter| Some((waiter, session?.key)));
        let alone = inner.is_alone(&ancestry, by).then(|| by.id.clone());
        Ok(Seat { waiter, alone })
    }

    /// The caller's session, if the caller is its only root.
    pub fn alone(&self, caller: Caller) -> Option<SessionId> {
        let ancestry = self.ancestry(caller).ok()?;
        let mut inner = self.lock();
        let by = inner.member(&ancestry).ok()?;
        inner.is_alone(&ancestry, &by).then_some(by.id)
    }

    /// How it stands with a waiter of a session for a name.
    pub fn turn(&self, waiter: WaiterId, key: SessionKey, name: &Name) -> Turn {
        let inner = self.lock();
        if inner.table.granted(waiter).is_some() {
            return Turn::Granted;
        }
        let waits = inner.table.waits_for(waiter);
        let held = inner.table.lease(name).is_some();
        let last = inner.table.last(name).filter(|_| held);
        let Some((lease, inode, holder)) = last else {
            return Turn::Over;
        };
        // Handed to it, or granted to another of its descriptors. Where a process holds it, or a
        // terminal's session does, that is another script.
        let is_shared = inode.bound.is_none() && (waits.is_none() || holder.rule != Rule::Posix);
        if holder.key == key && is_shared {
            return Turn::Held;
        }
        let Some((_, before)) = waits else {
            return Turn::Over;
        };
        let place = inner.table.waiter(waiter);
        let above = place.is_some_and(|place| inner.table.waits_for_ancestor(place, inode));
        Turn::Waits {
            holder: holder.id.clone(),
            since: lease.since,
            before,
            ancestor: above.then(|| inner.table.holder(inode)).flatten(),
        }
    }

    /// Whether a task has a signal to see that will end it.
    pub fn is_doomed(&self, task: u32) -> bool {
        task != 0 && self.processes.is_doomed(task)
    }

    /// The waiter is told that it holds the name. False if it holds it no more.
    pub fn accept(&self, waiter: WaiterId) -> bool {
        let mut inner = self.lock();
        if let Some((name, _)) = inner.table.granted(waiter) {
            let name = name.clone();
            inner.check_name(&name);
        }
        inner.table.granted(waiter).is_some() && inner.commit_own(&Command::Accept { waiter })
    }

    /// A waiter is gone.
    pub fn leave(&self, waiter: WaiterId) {
        self.lock().commit_own(&Command::Leave { waiter });
    }

    // The connection.

    /// Something changed that is no event. Should it not be written down, it is lost with this server.
    pub fn note(&self, note: Note) {
        self.lock().note(note, None);
    }

    /// The same, for what a request has opened: should it be sent again, its answer is the same.
    pub fn opened(&self, caller: Caller, note: Note) {
        self.lock().note(note, Some(caller));
    }

    /// What there is to know of the connection.
    pub fn handoff(&self) -> Handoff {
        self.lock().handoff.clone()
    }

    /// Everybody who waits, for what, and for which session.
    pub fn seats(&self) -> Vec<(WaiterId, SessionKey, Name)> {
        let inner = self.lock();
        let table = &inner.table;
        let waiting = table.waiters().filter_map(|waiter| {
            if let Some((name, _)) = table.waits_for(waiter) {
                return Some((waiter, table.waiter(waiter)?.key, name.clone()));
            }
            let (name, _) = table.granted(waiter)?;
            Some((waiter, table.last(name)?.1.holder, name.clone()))
        });
        waiting.collect()
    }

    /// A process that is still there, and those above it, as if it had made a request.
    pub fn ancestry_again(&self, process: &Process, uid: u32) -> Option<Ancestry> {
        let ancestry = self.processes.ancestry(None, process.pid, uid).ok()?;
        (ancestry.caller().process == *process).then_some(ancestry)
    }

    /// Stops for good, at a moment at which nothing is half done: whatever has not been answered then never is by this server.
    pub fn freeze(&self) {
        std::mem::forget(self.lock());
    }

    // Recovery.

    /// Goes on with a connection: what is open on it was opened on another server.
    pub fn take_over(&self) {
        let mut inner = self.lock();
        inner.inherited = inner.table.next_ino();
        inner.note(Note::TakenOver, None);
    }

    /// Takes up what was recovered: ends what ended meanwhile, and watches who lives. `same_boot` says whether any process of
    /// then may be alive, and `same_connection` whether any descriptor may be: if not, nobody waits, and nothing is open.
    pub fn recover(&self, same_boot: bool, same_connection: bool) {
        let mut inner = self.lock();
        let processes = inner.table.processes();
        let processes: Vec<(Process, u64)> = processes
            .map(|(process, environ)| (*process, environ))
            .collect();
        for (process, environ) in processes {
            let watched = if same_boot {
                self.processes.watch(&process, environ)
            } else {
                Ok(Watch::Dead)
            };
            match watched {
                Ok(Watch::Watched) => {}
                Ok(Watch::Dead) => inner.died(process),
                Err(error) => limited!(
                    None,
                    log::Level::Error,
                    "pid {} cannot be watched: {error}; what depends on it stays held",
                    process.pid
                ),
            }
        }
        if !same_connection {
            let waiters: Vec<WaiterId> = inner.table.waiters().collect();
            for waiter in waiters {
                inner.commit_own(&Command::Leave { waiter });
            }
            let nameless: Vec<Ino> = inner.table.nameless().collect();
            for ino in nameless {
                inner.forget(ino);
            }
        }
        if !same_boot {
            let sessions = inner.table.sessions(SessionKey(0));
            let keys: Vec<SessionKey> = sessions.map(|session| session.key).collect();
            for key in keys {
                inner.commit_own(&Command::Restart { key });
            }
        }
        inner.set_alarm();
        self.processes.wake();
    }

    // Reaping.

    /// The present.
    pub fn now(&self) -> Moment {
        process::now()
    }

    /// Ends some of the leases whose deadline has passed. Whether there are more.
    pub fn expire(&self, limit: usize) -> bool {
        let mut inner = self.lock();
        let has_more = (0..limit).all(|_| inner.expire_next());
        inner.set_alarm();
        has_more
    }

    /// A process is proven dead.
    pub fn died(&self, process: Process) {
        self.lock().died(process);
    }

    /// Records some of the leases that sessions left behind. Whether there are more.
    pub fn sweep(&self, limit: usize) -> bool {
        let mut inner = self.lock();
        inner.commit_own(&Command::Sweep { limit }) && inner.table.wants_sweep()
    }
}

fn asker<'a>(ancestry: &Ancestry, chain: &'a [Process]) -> Asker<'a> {
    Asker {
        uid: ancestry.uid(),
        pidns: ancestry.caller().pidns,
        chain,
        command: Arc::clone(&ancestry.caller().command),
    }
}
