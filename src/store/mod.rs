//! The one place where the table changes: under one mutex, decide, append, apply, publish, reply.
//!
//! Promises: an event is in the journal and applied before any caller is told of it. Each answer
//! about a session is given after its roots were checked, so a holder that is proven dead holds
//! nothing; only who waits is told without that. Every root of a live session is watched.
//!
//! Lock order: one descriptor of a file in `queue/` (`tree`) or the right to write a new journal
//! (`compaction`), then the store's mutex, then one of those of [`Processes`], [`EventStream`],
//! `Arrivals`, the log, the maps of `tree` and whether a compaction is due. None of the latter
//! locks the store. Ancestries are read before the store is locked, and the inotify
//! notifier is told after it was unlocked.
//!
//! Does not know: fuser, what a file shows, how a record or an event is formatted.

mod ancestries;
mod arrivals;
mod check;
mod commit;
mod compaction;
mod observers;
mod principal;
mod read;
mod recovery;
mod scaffolding;
mod waiting;

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::ancestries::Ancestries;
use self::arrivals::Arrivals;
pub(crate) use self::arrivals::{Arrival, Concerns};
use self::compaction::Compaction;
pub(crate) use self::principal::{Caller, Principal};
use self::read::Listings;
pub(crate) use self::scaffolding::Spot;
pub(crate) use self::waiting::Seat;
use crate::core::identity::Ancestry;
use crate::core::table::{Node, Rings, Table};
use crate::core::{
    Command, Creation, Ino, Member, Moment, Outcome, Place, Process, Refusal, Subject,
};
use crate::events::{EventStream, later};
use crate::handoff::{Handoff, Note};
use crate::inotify::{Notifier, Removal};
use crate::journal::{History, Log, Snapshot};
use crate::logging::limited;
use crate::process::{self, Processes, Pulse, Source};
use crate::render::metrics::Metrics;

/// The leases of one mount.
pub(crate) struct Store {
    /// The store's mutex. See the lock order of this module.
    inner: Mutex<Inner>,
    processes: Arc<Processes>,
    metrics: Arc<Metrics>,
    stream: Arc<EventStream>,
    arrivals: Arc<Arrivals>,
    /// Told by [`Outbox`] alone, with the store unlocked.
    notifier: Arc<Notifier>,
    /// A lock of its own, which is never held together with another.
    ancestries: Ancestries,
    compaction: Arc<Compaction>,
}

/// The state that the mutex guards.
struct Inner {
    table: Table,
    journal: Box<dyn Log>,
    handoff: Handoff,
    /// The number of open descriptors of each inode. An inode without a name exists as long as it
    /// has any.
    opens: HashMap<Ino, u32>,
    /// Inodes below this one are older than this server, so their descriptors were not counted. One
    /// without a name exists until the kernel forgets it.
    inherited: Ino,
    processes: Arc<Processes>,
    metrics: Arc<Metrics>,
    stream: Arc<EventStream>,
    history: History,
    /// Names that went without a call. The inotify notifier is told once the lock is released.
    vanished: Vec<Removal>,
    arrivals: Arc<Arrivals>,
    /// The deadline at which the reaper wakes.
    alarm: Option<Duration>,
    /// See [`Inner::scaffolding_alarm`].
    scaffolding_due: Option<Duration>,
    /// The time of the last check of all sessions.
    checked: Option<Instant>,
    /// The rings of waiters, as of this time.
    rings: Option<(Instant, Rings)>,
    /// Whether any watched process had died, as of the first look since the store was locked.
    pulse: Cell<Option<Pulse>>,
    /// Listings of all leases, each as of an earlier event.
    listings: Listings,
    compaction: Arc<Compaction>,
    /// The number of notes that are in `handoff` and not in the journal.
    unrecorded: u64,
}

/// The locked state. When it is dropped, its own `drop` fills the outbox. Then its fields are
/// dropped in their order: `inner` unlocks the store, and `outbox` tells the notifier.
struct Locked<'a> {
    inner: MutexGuard<'a, Inner>,
    outbox: Outbox<'a>,
}

/// Names for the inotify notifier, which is told of them when this is dropped.
struct Outbox<'a> {
    names: Vec<Removal>,
    notifier: &'a Arc<Notifier>,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.outbox.names = std::mem::take(&mut self.inner.vanished);
    }
}

impl Drop for Outbox<'_> {
    fn drop(&mut self) {
        for removal in self.names.drain(..) {
            let notifier = Arc::clone(self.notifier);
            later(move || notifier.tell(&removal));
        }
    }
}

impl Deref for Locked<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl Store {
    /// A store for a table and a connection. [`Store::recover`] comes next.
    pub(crate) fn new(
        table: Table,
        mut handoff: Handoff,
        (journal, history): (Box<dyn Log>, History),
        processes: Arc<Processes>,
        notifier: Arc<Notifier>,
    ) -> Self {
        let (metrics, stream) = (Arc::<Metrics>::default(), Arc::<EventStream>::default());
        // Before the journal may be compacted: it gets the lines from the stream.
        let readers = handoff.descriptors.readers();
        if !readers.is_empty() {
            let lines = std::mem::take(&mut handoff.lines);
            stream.resume(lines, handoff.lines_from, readers);
        }
        let arrivals = Arc::<Arrivals>::default();
        let compaction = Arc::<Compaction>::default();
        let inner = Inner {
            table,
            journal,
            handoff,
            opens: HashMap::new(),
            inherited: Ino(0),
            processes: Arc::clone(&processes),
            metrics: Arc::clone(&metrics),
            stream: Arc::clone(&stream),
            history,
            vanished: Vec::new(),
            arrivals: Arc::clone(&arrivals),
            alarm: None,
            scaffolding_due: None,
            checked: None,
            rings: None,
            pulse: Cell::new(None),
            listings: Listings::default(),
            compaction: Arc::clone(&compaction),
            unrecorded: 0,
        };
        Self {
            inner: Mutex::new(inner),
            processes,
            metrics,
            stream,
            arrivals,
            notifier,
            ancestries: Ancestries::default(),
            compaction,
        }
    }

    /// Notes the arrival of a request that is carried out later.
    pub(crate) fn arrive(
        &self,
        uid: u32,
        concerns: impl FnOnce() -> Concerns + Send + 'static,
    ) -> Arrival {
        self.arrivals.arrive(&self.processes, uid, concerns)
    }

    /// The counters.
    pub(crate) fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// The stream of events: lines for readers, and wake-ups for who serves them.
    pub(crate) fn subscribe(&self) -> Arc<EventStream> {
        Arc::clone(&self.stream)
    }

    /// Does some work, and then serves in this thread the few waiters that it has told.
    pub(crate) fn serving<T>(&self, work: impl FnOnce() -> T) -> T {
        self.stream.wake_ups.serving(work)
    }

    fn lock(&self) -> Locked<'_> {
        // The caller of a request that panicked under the lock was told EIO.
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.pulse.set(None);
        let outbox = Outbox {
            names: Vec::new(),
            notifier: &self.notifier,
        };
        Locked { inner, outbox }
    }

    /// The caller of a request, with the processes above it. A caller that the mount cannot see is
    /// a principal too, which some commands accept.
    pub(crate) fn principal(&self, caller: Caller) -> Result<Principal, Refusal> {
        let ancestry = match caller.task {
            0 => None,
            _ => Some(self.ancestries.get(&self.processes, caller)?),
        };
        Ok(Principal::new(caller, ancestry))
    }

    /// The ancestry of a caller's parent. EPERM if the mount cannot see the parent.
    pub(crate) fn parent_ancestry(&self, ancestry: &Ancestry) -> Result<Ancestry, Refusal> {
        let parent = Some(ancestry.caller().parent)
            .filter(|parent| *parent != 0)
            .ok_or(Refusal::NotPermitted)?;
        self.processes.ancestry(None, parent, ancestry.uid())
    }

    /// The session of a caller.
    pub(crate) fn member(&self, ancestry: &Ancestry) -> Result<Member, Refusal> {
        self.lock().member(ancestry)
    }

    /// Carries out a command.
    pub(crate) fn execute(&self, who: &Principal, command: &Command) -> Result<Outcome, Refusal> {
        self.lock().carry_out(who, command)
    }

    /// Carries out a command for the session of the caller. `command` makes it from that session,
    /// or from the reason why the session cannot be found.
    pub(crate) fn execute_as_member(
        &self,
        who: &Principal,
        command: impl for<'m> FnOnce(Result<&'m Member, Refusal>) -> Result<Command<'m>, Refusal>,
    ) -> Result<Outcome, Refusal> {
        let mut inner = self.lock();
        let member = who.ancestry().and_then(|ancestry| inner.member(ancestry));
        let command = command(member.as_ref().map_err(|refusal| *refusal))?;
        inner.carry_out(who, &command)
    }

    /// Creates a claim or an entry of one, or opens the caller's own if `exclusive` is not set. The
    /// inode counts as opened. `show` is told whether it is new, under the lock.
    pub(crate) fn create<R>(
        &self,
        who: &Principal,
        name: Place,
        creation: Creation,
        (exclusive, truncate): (bool, bool),
        show: impl FnOnce(Ino, Node, bool) -> R,
    ) -> Result<R, Refusal> {
        let mut inner = self.lock();
        let by = &inner.member(who.ancestry()?)?;
        let claim = Command::Claim {
            name,
            by,
            creation,
            exclusive,
            truncate,
        };
        let outcome = inner.carry_out(who, &claim)?;
        let ino = outcome.ino.ok_or(Refusal::Lost)?;
        let node = inner.table.node(ino).ok_or(Refusal::Lost)?;
        let shown = show(ino, node, outcome.is_new);
        inner.opened(ino);
        Ok(shown)
    }

    /// Opens a claim for reading, which anybody may.
    pub(crate) fn open_to_read(&self, ino: Ino) -> Result<(), Refusal> {
        let mut inner = self.lock();
        inner.check(Subject::Inode(ino), None);
        inner.table.node(ino).ok_or(Refusal::Lost)?;
        inner.opened(ino);
        Ok(())
    }

    /// Opens a claim for writing, which its holder alone may.
    pub(crate) fn open_to_write(
        &self,
        who: &Principal,
        ino: Ino,
        truncate: bool,
    ) -> Result<(), Refusal> {
        let mut inner = self.lock();
        let by = &inner.member(who.ancestry()?)?;
        inner.carry_out(who, &Command::Reclaim { ino, by, truncate })?;
        inner.table.node(ino).ok_or(Refusal::Lost)?;
        inner.opened(ino);
        Ok(())
    }

    /// Releases a claim that was created for a kernel lock, which was refused, and that nothing was
    /// written to.
    pub(crate) fn withdraw(&self, ino: Ino) {
        self.lock().commit_own(&Command::Withdraw { ino });
    }

    /// Counts a descriptor of an inode as closed.
    pub(crate) fn close(&self, ino: Ino) {
        let mut inner = self.lock();
        if let Some(count) = inner.opens.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                inner.opens.remove(&ino);
                inner.forget(ino);
            }
        }
    }

    /// Notes that the kernel has forgotten an inode: it has no descriptor.
    pub(crate) fn forgotten(&self, ino: Ino) {
        let mut inner = self.lock();
        if ino < inner.inherited {
            inner.drop_nameless(ino);
        }
    }

    /// The outcome of a request that is sent again, if it was carried out when it was sent first.
    pub(crate) fn outcome(&self, caller: Caller) -> Option<Outcome> {
        if !caller.is_again() {
            return None;
        }
        self.lock().handoff.outcome(caller.key())
    }

    /// Waits until all events that must survive a loss of power are on disk. The store is not
    /// locked meanwhile. After an error (EIO) the lease stays held until its deadline.
    pub(crate) fn sync(&self) -> Result<(), Refusal> {
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

    /// Called once this server answers.
    pub(crate) fn settle(&self) {
        self.lock().settle();
    }

    /// Whether the journal is still the one in the state directory.
    pub(crate) fn is_in_place(&self) -> bool {
        self.lock().journal.is_in_place()
    }

    /// The newest events, as of now.
    pub(crate) fn history(&self) -> Snapshot {
        self.lock().history.snapshot()
    }

    /// Records a note. If it cannot be appended, it is lost if this server is killed.
    pub(crate) fn note(&self, note: Note) {
        self.lock().note(note, None);
    }

    /// Records that a request has opened a descriptor, so that it is answered in the same way if it
    /// is sent again.
    pub(crate) fn opened(&self, caller: Caller, note: Note) {
        self.lock().note(note, Some(caller));
    }

    /// The state of the connection.
    pub(crate) fn handoff(&self) -> Handoff {
        self.lock().handoff.clone()
    }

    /// The source from which the store learns how a process ended.
    pub(crate) fn source(&self) -> Source {
        self.processes.source()
    }

    /// The number of times that endings of processes were lost, since too many came at once.
    pub(crate) fn status_overflows(&self) -> u64 {
        self.processes.status_overflows()
    }

    /// Locks the store for ever, between two requests. This server answers no other.
    pub(crate) fn freeze(&self) {
        std::mem::forget(self.lock());
    }

    /// The present.
    pub(crate) fn now() -> Moment {
        process::now()
    }

    /// Ends at most `limit` leases whose deadline has passed, and removes directories that nobody
    /// uses any more. Whether there are more.
    pub(crate) fn expire(&self, limit: usize) -> bool {
        let mut inner = self.lock();
        let has_more = (0..limit).all(|_| inner.expire_next());
        let has_more = inner.remove_unused() || has_more;
        inner.set_alarm();
        has_more
    }

    /// Records the death of a process, which is proven.
    pub(crate) fn died(&self, process: Process) {
        self.lock().died(process);
    }

    /// Records at most `limit` of the leases that ended sessions left behind. Whether there are
    /// more.
    pub(crate) fn sweep(&self, limit: usize) -> bool {
        let mut inner = self.lock();
        inner.commit_own(&Command::Sweep { limit }) && inner.table.wants_sweep()
    }
}
