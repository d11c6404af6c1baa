//! The processes of this machine: who they are, what is known of them, and when they die.
//!
//! Promises: a process is called dead only on proof (its pidfd says that its whole thread group has
//! exited, or no process with its pid is the one that was meant), and whatever cannot be found out
//! counts as alive.
//!
//! Does not know: leases, or what becomes of the dead; of sessions only what `core::identity` asks
//! for. The system calls themselves are in [`crate::sys`].

mod boot;
mod connector;
mod endings;
mod known;
pub mod proc;
mod reader;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

pub use self::boot::Boot;
use self::endings::Endings;
pub use self::endings::{Search, Source};
use self::proc::{Stat, Status};
use crate::core::agents::Agent;
use crate::core::identity::{self, Ancestry, Facts, Sight, View};
use crate::core::{Ending, Moment, Process, Refusal};
use crate::logging::limited;
use crate::sys::descriptors::is_shortage;
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::eventfd::EventFd;
use crate::sys::pidfd::{self, has_exited};
use crate::sys::timer::Timer;
use crate::sys::{clock, poll};

/// The result of [`Processes::watch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// The process is alive, and [`Processes::wait`] will return its death.
    Watched,
    /// The process is dead already.
    Dead,
}

/// The processes of this machine. Those whose death matters are watched.
#[derive(Debug)]
pub struct Processes {
    variables: Vec<Arc<str>>,
    agents: Vec<Agent>,
    /// All environment variables of the agents.
    marks: Vec<Arc<str>>,
    /// The names of the session variables and of `marks`.
    wanted: HashSet<Vec<u8>>,
    booted: SystemTime,
    ticks: u64,
    epoll: Epoll,
    wake: EventFd,
    timer: Timer,
    watched: Mutex<Watched>,
    known: known::Cache,
    readers: reader::Readers,
    endings: Endings,
    /// The caller of [`Processes::wait`] works on what that returned, and has not called again yet.
    is_telling: AtomicBool,
}

/// The id of the wake-up and of the alarm in epoll events; the others are of processes.
const WAKE: u64 = u64::MAX;

/// The result of one look at all watched processes: whether any has died that [`Processes::wait`]
/// has not returned yet. It is as old as that look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    may_have_died: bool,
}

#[derive(Debug, Default)]
struct Watched {
    by_process: HashMap<Process, Entry>,
    by_id: HashMap<u64, Process>,
    next_id: u64,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    pidfd: Arc<OwnedFd>,
    /// [`Processes::wait`] has returned it: it is dead, and `epoll` says nothing of it.
    is_dead: bool,
    /// Its parent when it was first seen.
    parent: u32,
    /// The exec by which a root of a session is known: see [`crate::core::Root::environ`].
    environ: u64,
}

impl Processes {
    /// Will look for the session variables `variables`, in this order, and for the traces of these
    /// agents. Without `caches`, which is for tests, everything takes longer and nothing else
    /// changes. Any `search` but the default is for tests too.
    pub fn new(
        variables: Vec<Arc<str>>,
        agents: Vec<Agent>,
        caches: bool,
        search: Search,
    ) -> io::Result<Self> {
        let names = agents
            .iter()
            .flat_map(|agent| agent.values.iter().chain(&agent.marks).chain(&agent.pid));
        let marks: Vec<Arc<str>> = names.map(|name| Arc::from(&**name)).collect();
        let wanted = variables.iter().chain(&marks);
        let wanted = wanted.map(|name| name.as_bytes().to_vec()).collect();
        let (epoll, wake, timer) = (Epoll::new()?, EventFd::new()?, Timer::since_boot()?);
        epoll.add(&wake, Interest::IN | Interest::ET, WAKE)?;
        epoll.add(&timer, Interest::IN | Interest::ET, WAKE)?;
        let endings = Endings::new(search);
        if let Some(connector) = endings.connector() {
            connector.wake_by(&epoll)?;
        }
        Ok(Self {
            variables,
            agents,
            marks,
            wanted,
            booted: SystemTime::now() - clock::since_boot(),
            ticks: clock::ticks_per_second(),
            epoll,
            wake,
            timer,
            watched: Mutex::default(),
            known: known::Cache::new(caches)?,
            readers: reader::Readers::default(),
            endings,
            is_telling: AtomicBool::new(false),
        })
    }

    /// Makes [`Processes::wait`] return although no process has died.
    pub fn wake(&self) {
        self.wake.wake();
    }

    /// Makes [`Processes::wait`] return at this time since boot, although no process has died;
    /// `None` cancels that.
    pub fn alarm(&self, at: Option<Duration>) {
        if let Err(error) = self.timer.set(at) {
            limited!(
                None,
                log::Level::Error,
                "no alarm for the next deadline, which is seen when somebody asks: {error}"
            );
        }
    }

    /// The process that a task belongs to. EPERM for a kernel thread, which lives for ever, and for
    /// a task that the mount may not see; EIO if the lookup failed for lack of descriptors or
    /// memory.
    pub fn of_task(&self, task: u32) -> Result<u32, Refusal> {
        if self.known.is_process(task) {
            return Ok(task);
        }
        // pidfd_open succeeds only for the first thread of a process.
        if let Ok(pidfd) = pidfd::open(task) {
            self.known.called(task, pidfd);
            return Ok(task);
        }
        match self.known.relieved(|| Status::read(task)) {
            Ok(status) if !status.kernel => Ok(status.tgid),
            Err(error) if is_shortage(&error) => Err(Refusal::Failed),
            _ => Err(Refusal::NotPermitted),
        }
    }

    /// Whether a signal that will end a process is pending, while the process waits for an answer.
    pub fn is_doomed(&self, pid: u32) -> bool {
        Status::read(pid).is_ok_and(|status| status.doomed)
    }

    /// The caller, which is the process `pid` and acts as `uid`, and the processes above it: see
    /// [`identity::ancestry`].
    pub fn ancestry(&self, task: Option<u32>, pid: u32, uid: u32) -> Result<Ancestry, Refusal> {
        let lookup = known::Lookup::new(self, uid, task.is_some());
        let ancestry = identity::ancestry(&lookup, task, pid, uid);
        if ancestry
            .as_ref()
            .is_err_and(|refusal| *refusal == Refusal::TooDeep)
        {
            lookup.was_too_deep();
            limited!(
                Some(uid),
                log::Level::Warn,
                "uid {uid}, pid {pid}: more above it than is looked at (1,024 processes, 16 MiB of environments, 50 ms): \
                 what it claims is refused (E2BIG)"
            );
        }
        ancestry
    }

    /// The facts about a process, as they are now.
    pub fn facts(&self, pid: u32) -> Sight<Facts> {
        known::Lookup::new(self, 0, false).caller(pid)
    }

    /// Whether a caller, whose thread `task` waits, and the processes above it are unchanged since
    /// `chain` was read.
    pub fn is_unchanged(&self, task: u32, chain: &[Facts]) -> bool {
        let is_known = |process: &Process, environ: u64| {
            let watched = self.lock();
            let entry = watched.by_process.get(process);
            environ != 0 && entry.is_some_and(|entry| entry.environ == environ)
        };
        self.known.is_unchanged(task, chain, is_known)
    }

    /// Watches a process, unless it is watched already or proven dead. After an error nothing may
    /// be granted that depends on the process. Whether it has died by then, a [`Pulse`] that is
    /// felt afterwards tells. `environ` is the exec by which a root of a session is known from now
    /// on; 0 changes nothing.
    pub fn watch(&self, process: &Process, environ: u64) -> io::Result<Watch> {
        let mut watched = self.lock();
        if let Some(entry) = watched.by_process.get_mut(process) {
            if environ != 0 {
                entry.environ = environ;
            }
            return Ok(Watch::Watched);
        }
        let (pidfd, parent) = match self.known.pidfd(process) {
            Some(known) => known,
            None => match self.look_up(process)? {
                Some((pidfd, parent)) => (Arc::new(pidfd), parent),
                None => return Ok(Watch::Dead),
            },
        };
        if !self.endings.watch(process, &pidfd) {
            return Ok(Watch::Dead);
        }
        let id = watched.next_id;
        self.epoll
            .add(&pidfd, Interest::IN, id)
            .inspect_err(|_| self.endings.forget(process))?;
        watched.next_id += 1;
        watched.by_id.insert(id, *process);
        watched.by_process.insert(
            *process,
            Entry {
                id,
                pidfd,
                is_dead: false,
                parent,
                environ,
            },
        );
        Ok(Watch::Watched)
    }

    /// The pidfd of a process and its parent; `None` if the process is proven dead.
    fn look_up(&self, process: &Process) -> io::Result<Option<(OwnedFd, u32)>> {
        let pidfd = match self.known.relieved(|| pidfd::open(process.pid)) {
            Ok(pidfd) => pidfd,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(error) => return Err(error),
        };
        let stat = self.known.relieved(|| Stat::read(process.pid));
        // It had not exited when its stat was read, so that the stat is its own. A failed read
        // proves nothing.
        if has_exited(&pidfd) {
            return Ok(None);
        }
        let stat = stat?;
        let same = stat.start == process.start && pidfd::inode(&pidfd)? == process.pidfs;
        Ok(same.then_some((pidfd, stat.parent)))
    }

    /// Stops watching a process.
    pub fn forget(&self, process: &Process) {
        let mut watched = self.lock();
        if let Some(entry) = watched.by_process.remove(process) {
            watched.by_id.remove(&entry.id);
            // The cache may keep the descriptor open.
            self.epoll.remove(&entry.pidfd);
            self.endings.forget(process);
        }
    }

    /// Looks at all watched processes at once: one system call, however many they are.
    pub fn pulse(&self) -> Pulse {
        Pulse {
            may_have_died: poll::is_readable(&self.epoll),
        }
    }

    /// Whether a process is watched and proven dead, as of a look at all or of now.
    pub fn is_dead(&self, process: &Process, pulse: Pulse) -> bool {
        let watched = self.lock();
        let entry = watched.by_process.get(process);
        entry.is_some_and(|entry| entry.is_dead || pulse.may_have_died && has_exited(&entry.pidfd))
    }

    /// Where it can be read how a process ended.
    pub fn source(&self) -> Source {
        self.endings.source()
    }

    /// How often messages about ended processes were lost. Those processes count as exited.
    pub fn status_overflows(&self) -> u64 {
        let connector = self.endings.connector();
        connector.map_or(0, connector::Connector::overflows)
    }

    /// Whether it can be found out of each watched process how it ended.
    pub fn tells_endings(&self) -> bool {
        self.source() != Source::Nothing
    }

    /// How a dead process ended. `None` for a watched one that has not been waited for, if that
    /// cannot be found out before.
    pub fn ending(&self, process: &Process) -> Option<Ending> {
        let pidfd = self
            .lock()
            .by_process
            .get(process)
            .map(|entry| Arc::clone(&entry.pidfd));
        match pidfd {
            Some(pidfd) => self.endings.of(process, &pidfd),
            // It was not watched when it died. Its status is still there if it has not been waited
            // for.
            None => Some(endings::zombie(process).unwrap_or(Ending::Unknown)),
        }
    }

    /// Makes [`Processes::wait`] return a dead process once more, when it has been waited for.
    pub fn watch_reaping(&self, process: &Process) {
        let mut watched = self.lock();
        if let Some(entry) = watched.by_process.get_mut(process) {
            entry.is_dead = true;
            // It is there unless `wait` has returned it.
            self.epoll.remove(&entry.pidfd);
            if let Err(error) = self.epoll.add(&entry.pidfd, Interest::ONESHOT, entry.id) {
                limited!(
                    None,
                    log::Level::Error,
                    "pid {}: how it ended is found out when somebody asks: {error}",
                    process.pid
                );
            }
        }
    }

    /// Sleeps until watched processes have died, or until [`Processes::wake`] or the alarm. Returns
    /// the dead, each once.
    pub fn wait(&self) -> io::Result<Vec<Process>> {
        self.is_telling.store(false, SeqCst);
        let woken = self.epoll.wait();
        self.is_telling.store(true, SeqCst);
        let ids = match woken {
            Ok(ids) => ids,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        if let Some(connector) = self.endings.connector() {
            connector.woken(&self.epoll, ids.clone());
        }
        let mut watched = self.lock();
        let dead = ids.filter_map(|id| {
            let process = *watched.by_id.get(&id)?;
            let entry = watched.by_process.get_mut(&process)?;
            // Until here `epoll` says that it has died, and from here on the entry does.
            entry.is_dead = true;
            self.epoll.remove(&entry.pidfd);
            Some(process)
        });
        Ok(dead.collect())
    }

    /// Whether watched processes may have died that [`Processes::wait`] has not returned yet, or
    /// that its caller still works on.
    pub fn has_pending(&self) -> bool {
        self.is_telling.load(SeqCst) || poll::is_readable(&self.epoll)
    }

    /// The parent of a watched process when it was first seen.
    fn first_parent(&self, process: &Process) -> Option<u32> {
        self.lock()
            .by_process
            .get(process)
            .map(|entry| entry.parent)
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The present.
pub(crate) fn now() -> Moment {
    Moment {
        wall: SystemTime::now(),
        boot: clock::since_boot(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::{Processes, Search, Sight, Watch};
    use crate::core::Process;

    fn sleeper(processes: &Processes) -> (Child, Process) {
        let mut command = Command::new("cat");
        let child = command.stdin(Stdio::piped()).spawn().unwrap();
        let Sight::Seen(facts) = processes.facts(child.id()) else {
            panic!("it is there")
        };
        (child, facts.process)
    }

    #[test]
    fn one_look_tells_of_all_watched_processes_whether_any_has_died() {
        let processes = Processes::new(Vec::new(), Vec::new(), true, Search::default()).unwrap();
        let all: Vec<_> = (0..3).map(|_| sleeper(&processes)).collect();
        let (mut children, all): (Vec<Child>, Vec<Process>) = all.into_iter().unzip();
        for process in &all {
            assert_eq!(processes.watch(process, 0).unwrap(), Watch::Watched);
        }
        let dead = |processes: &Processes| {
            let pulse = processes.pulse();
            let dead = all.iter().map(|process| processes.is_dead(process, pulse));
            (pulse.may_have_died, dead.collect::<Vec<_>>())
        };
        assert_eq!(dead(&processes), (false, vec![false; 3]));
        let (before, process) = (processes.pulse(), all[1]);
        children[1].kill().unwrap();
        children[1].wait().unwrap();
        // An old look is no proof of a death, and each new one is until it is waited for.
        assert!(!processes.is_dead(&process, before));
        for _ in 0..3 {
            assert_eq!(dead(&processes), (true, vec![false, true, false]));
        }
        assert_eq!(processes.wait().unwrap(), [process]);
        // From then on it is known without a look.
        assert_eq!(dead(&processes), (false, vec![false, true, false]));
        assert!(processes.is_dead(&process, before));
        processes.watch_reaping(&process);
        assert_eq!(processes.wait().unwrap(), [process]);
        assert_eq!(dead(&processes), (false, vec![false, true, false]));
        processes.forget(&process);
        assert_eq!(dead(&processes), (false, vec![false; 3]));
        for mut child in children {
            _ = child.kill();
            child.wait().unwrap();
        }
    }
}
