//! The one place where the table changes: under one mutex, decide, append, apply, publish, reply.
//!
//! Promises: what a caller is told has been written down and applied before; whatever a caller asks about a session
//! is answered after its roots were looked at, so that a holder that is proven dead holds nothing; and every root of a
//! live session is watched.
//!
//! Lock order: the store's mutex, then that of [`Processes`]. Callers are walked before either is taken.
//!
//! Deliberately ignorant of: fuser, files, how things are shown.

mod ancestries;
mod arrivals;
mod check;
mod commit;
mod observers;
mod principal;
mod read;
mod recovery;
mod waiting;

use std::collections::HashMap;
use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::ancestries::Ancestries;
use self::arrivals::Arrivals;
pub use self::arrivals::{Arrival, Concerns};
pub use self::principal::{Caller, Principal};
pub use self::waiting::{Seat, Turn};
use crate::core::identity::Ancestry;
use crate::core::table::{Node, Table};
use crate::core::{
    Command, Creation, Ino, Member, Moment, Name, Outcome, Place, Process, Refusal, Subject,
};
use crate::events::EventStream;
use crate::handoff::{Handoff, Note};
use crate::inotify::Notifier;
use crate::journal::Log;
use crate::logging::limited;
use crate::process::{self, Processes, Source};
use crate::render::metrics::Metrics;

/// The leases of one mount.
pub struct Store {
    inner: Mutex<Inner>,
    processes: Arc<Processes>,
    metrics: Arc<Metrics>,
    stream: Arc<EventStream>,
    arrivals: Arc<Arrivals>,
    notifier: Arc<Notifier>,
    ancestries: Ancestries,
}

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
    /// Names that went without a call. The notifier is told once the lock is released.
    vanished: Vec<(Name, bool)>,
    arrivals: Arc<Arrivals>,
    /// The deadline that the reaper is to be woken for.
    alarm: Option<Duration>,
    /// When all sessions were looked at last.
    checked: Option<Instant>,
}

/// The locked state. Fields are dropped in their order: the notifier is told once the lock is released.
struct Locked<'a> {
    inner: MutexGuard<'a, Inner>,
    outbox: Outbox<'a>,
}

/// Names for the notifier.
struct Outbox<'a> {
    names: Vec<(Name, bool)>,
    notifier: &'a Notifier,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.outbox.names = std::mem::take(&mut self.inner.vanished);
    }
}

impl Drop for Outbox<'_> {
    fn drop(&mut self) {
        for (name, is_directory) in &self.names {
            self.notifier.tell(name, *is_directory);
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
            vanished: Vec::new(),
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
            notifier,
            ancestries: Ancestries::default(),
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

    fn lock(&self) -> Locked<'_> {
        // A panic under the lock has answered EIO; what it left undone was not applied.
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let outbox = Outbox {
            names: Vec::new(),
            notifier: &self.notifier,
        };
        Locked { inner, outbox }
    }

    /// Who makes a request, with the processes above. A caller that the mount cannot see is a principal
    /// too: of some commands that is enough.
    pub fn principal(&self, caller: Caller) -> Result<Principal, Refusal> {
        let ancestry = match caller.task {
            0 => None,
            _ => Some(self.ancestries.get(&self.processes, caller)?),
        };
        Ok(Principal::new(caller, ancestry))
    }

    /// The parent of a caller, as if it had made the request. EPERM if it has none that the mount can see.
    pub fn parent_ancestry(&self, ancestry: &Ancestry) -> Result<Ancestry, Refusal> {
        let parent = Some(ancestry.caller().parent)
            .filter(|parent| *parent != 0)
            .ok_or(Refusal::NotPermitted)?;
        self.processes.ancestry(None, parent, ancestry.uid())
    }

    /// The session that a caller belongs to, by whichever rule says so.
    pub fn member(&self, ancestry: &Ancestry) -> Result<Member, Refusal> {
        self.lock().member(ancestry)
    }

    /// Carries out a command.
    pub fn execute(&self, who: &Principal, command: &Command) -> Result<Outcome, Refusal> {
        self.lock().carry_out(who, command)
    }

    /// Carries out a command that the session of whoever asks is part of. `command` makes it of that
    /// session, or of the reason why that cannot be told.
    pub fn execute_as_member(
        &self,
        who: &Principal,
        command: impl for<'m> FnOnce(Result<&'m Member, Refusal>) -> Result<Command<'m>, Refusal>,
    ) -> Result<Outcome, Refusal> {
        let mut inner = self.lock();
        let member = who.ancestry().and_then(|ancestry| inner.member(ancestry));
        let command = command(member.as_ref().map_err(|refusal| *refusal))?;
        inner.carry_out(who, &command)
    }

    /// Creates a claim or an entry of one, or opens one's own if `exclusive` is not set; the inode counts
    /// as opened. `show` is told whether it is new.
    pub fn create<R>(
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

    /// Opens a claim, for anybody, to look at it.
    pub fn open_to_read(&self, ino: Ino) -> Result<(), Refusal> {
        let mut inner = self.lock();
        inner.check(Subject::Inode(ino), None);
        inner.table.node(ino).ok_or(Refusal::Lost)?;
        inner.opened(ino);
        Ok(())
    }

    /// Opens a claim to write to it: for its holder alone.
    pub fn open_to_write(&self, who: &Principal, ino: Ino, truncate: bool) -> Result<(), Refusal> {
        let mut inner = self.lock();
        let by = &inner.member(who.ancestry()?)?;
        inner.carry_out(who, &Command::Reclaim { ino, by, truncate })?;
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

    /// What came of a request that is sent again, if it was carried out when it was sent first.
    pub fn outcome(&self, caller: Caller) -> Option<Outcome> {
        if !caller.is_again() {
            return None;
        }
        self.lock().handoff.outcome(caller.key())
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

    /// Where it is said how a process ended.
    pub fn source(&self) -> Source {
        self.processes.source()
    }

    /// How often more processes ended than could be read of.
    pub fn status_overflows(&self) -> u64 {
        self.processes.status_overflows()
    }

    /// Stops for good, at a moment at which nothing is half done: whatever has not been answered then never is by this server.
    pub fn freeze(&self) {
        std::mem::forget(self.lock());
    }

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
