//! A cache of what was read of processes, which saves time and decides nothing.
//!
//! Promises: the answer is the same with an empty cache, but for one trust: a process *above* a caller that is still alive
//! is taken for what it was at most [`TRUST`] ago. The caller itself is looked at each time: its parent, POSIX session
//! and last exec by one line of its `stat`, its uid by its pidfd, which also says that the pid is still its own; and its
//! environment is read again, unless it is a root of a session, which it stays whatever it writes there.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::proc::{Stat, Status, environ, is_interpreter, pid_namespace, program, variables};
use super::{
    POLLED_MAX, Processes, any_exited, descriptor_limit, exited, first_of_namespace, is_shortage,
    is_task_of, pidfd_euid, pidfd_inode, pidfd_open, thread_time,
};
use crate::core::Process;
use crate::core::agents::Agent;
use crate::core::identity::{Facts, Marked, Sight, Variable, View};

/// How many processes are kept at most, each with two descriptors; never with more than a quarter of those that there
/// may be, which are for the roots of sessions.
const KNOWN_MAX: usize = 512;

/// For how long what was read of a process is trusted where that is above a caller. A walk that is used again may be as
/// old once more: 50 ms in all.
const TRUST: Duration = Duration::from_millis(25);

/// What one walk may cost the others: time of the processor, and bytes of environments.
const TIME_MAX: Duration = Duration::from_millis(50);
const ENVIRONS_MAX: usize = 16 << 20;

/// For how long a process whose walk cost more is not walked again, nor what is below it.
const TOO_DEEP: Duration = Duration::from_secs(1);

/// How many of those are remembered.
const TOO_DEEP_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Cache {
    /// Processes whose walk cost too much, and when.
    too_deep: Mutex<HashMap<Process, Instant>>,
    entries: Mutex<HashMap<u32, Entry>>,
    /// The pidfd of the task that called last, if that is a process that was not known.
    called: Mutex<Option<(u32, OwnedFd)>>,
    /// The inode of the mount's own pid namespace.
    pidns: Option<u64>,
    max: usize,
}

#[derive(Debug)]
struct Entry {
    pidfd: Arc<OwnedFd>,
    stat: File,
    mark: Mark,
    facts: Facts,
    /// What its environment said when it was looked at.
    variable: Option<Environment>,
    looked: Instant,
}

/// What an environment says: its session variable, and the variables of agents.
type Environment = (Variable, Arc<Marked>);

/// What tells that a process is as it was: `environ` is where its last exec has put its environment, 0 if that cannot
/// be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    parent: u32,
    sid: u32,
    environ: u64,
}

impl From<&Stat<'_>> for Mark {
    fn from(stat: &Stat) -> Self {
        Self {
            parent: stat.parent,
            sid: stat.sid,
            environ: stat.environ,
        }
    }
}

impl Cache {
    /// One that keeps nothing, unless `keeps`.
    pub(super) fn new(keeps: bool) -> Self {
        let max = KNOWN_MAX.min(descriptor_limit() / 8);
        Self {
            too_deep: Mutex::default(),
            entries: Mutex::default(),
            called: Mutex::default(),
            pidns: pid_namespace("self"),
            max: if keeps { max } else { 0 },
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a chain of processes that was read a moment ago is the same still: the task is of the caller, which waits,
    /// is as it was and a root of a session by its last exec, so that its environment does not count; and of those above
    /// it none has died, without which none gets another parent. That one of those has changed otherwise shows at the
    /// next reading. As whom the caller acts is in its request.
    pub(super) fn is_unchanged(
        &self,
        task: u32,
        chain: &[Facts],
        is_known: impl FnOnce(&Process, u64) -> bool,
    ) -> bool {
        let Some((caller, above)) = chain.split_first().filter(|_| chain.len() <= POLLED_MAX)
        else {
            return false;
        };
        if task != caller.process.pid && !is_task_of(task, caller.process.pid) {
            return false;
        }
        if !is_known(&caller.process, caller.environ) {
            return false;
        }
        let entries = self.lock();
        let same = |facts: &Facts| {
            let entry = entries.get(&facts.process.pid);
            entry.filter(|entry| entry.facts.process == facts.process)
        };
        let Some(entry) = same(caller) else {
            return false;
        };
        let mut buffer = [0; 1024];
        let is_same = entry.read_again(&mut buffer).is_some_and(|stat| {
            Mark::from(&stat) == entry.mark && *stat.command == *caller.command
        });
        let mut pidfds = [-1; POLLED_MAX];
        for (pidfd, facts) in pidfds.iter_mut().zip(above) {
            let Some(entry) = same(facts) else {
                return false;
            };
            *pidfd = entry.pidfd.as_raw_fd();
        }
        is_same && !any_exited(&pidfds[..above.len()])
    }

    /// Whether a task is known as a process that is still alive, so that the number is its own.
    pub(super) fn is_process(&self, task: u32) -> bool {
        self.lock()
            .get(&task)
            .is_some_and(|entry| !exited(&entry.pidfd))
    }

    /// Keeps the pidfd of a task that calls, which is a process, until that is read.
    pub(super) fn called(&self, task: u32, pidfd: OwnedFd) {
        *self.last_called() = Some((task, pidfd));
    }

    fn last_called(&self) -> MutexGuard<'_, Option<(u32, OwnedFd)>> {
        self.called.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a look comes to; if it lacks descriptors, what it comes to once all that are kept here are given back.
    pub(super) fn relieved<T>(&self, look: impl Fn() -> io::Result<T>) -> io::Result<T> {
        look().or_else(|error| {
            if !is_shortage(&error) {
                return Err(error);
            }
            self.lock().clear();
            look()
        })
    }

    /// The pidfd of a process that is known, and its parent.
    pub(super) fn pidfd(&self, process: &Process) -> Option<(Arc<OwnedFd>, u32)> {
        let entries = self.lock();
        let entry = entries.get(&process.pid)?;
        let same = entry.facts.process == *process;
        same.then(|| (Arc::clone(&entry.pidfd), entry.facts.parent))
    }

    fn keep(&self, entry: Entry) {
        let mut entries = self.lock();
        let pid = entry.facts.process.pid;
        if entries.len() >= self.max && !entries.contains_key(&pid) {
            entries.retain(|_, entry| !exited(&entry.pidfd));
            if entries.len() >= self.max {
                // Not those of a walk that goes on, and none that another walk needs at this moment.
                entries.retain(|_, entry| entry.looked.elapsed() < TRUST);
            }
            if entries.len() >= self.max {
                return;
            }
        }
        entries.insert(pid, entry);
    }

    /// A process that is known, as it was if that is trusted and not long ago, else as it is now. One that has changed is
    /// forgotten.
    fn recall(&self, pid: u32, trusts: bool) -> Option<Facts> {
        let mut entries = self.lock();
        let entry = entries.get_mut(&pid)?;
        if trusts && entry.looked.elapsed() < TRUST && !exited(&entry.pidfd) {
            return Some(entry.facts.clone());
        }
        let mut buffer = [0; 1024];
        if let Some(stat) = entry.look_again(&mut buffer) {
            if *stat.command != *entry.facts.command {
                // What it runs may be another program by now: all of it is read again.
                entries.remove(&pid);
                return None;
            }
            // Its environment may have been written over.
            (entry.variable, entry.looked) = (None, Instant::now());
            return Some(entry.facts.clone());
        }
        entries.remove(&pid);
        None
    }

    /// What the environment of a process said when it was looked at.
    fn environment(&self, process: &Process) -> Option<Environment> {
        let entries = self.lock();
        let entry = entries.get(&process.pid)?;
        let is_it = entry.facts.process == *process;
        entry.variable.clone().filter(|_| is_it)
    }

    fn keep_environment(&self, process: &Process, environment: &Environment) {
        let mut entries = self.lock();
        let entry = entries.get_mut(&process.pid);
        if let Some(entry) = entry.filter(|entry| entry.facts.process == *process) {
            entry.variable = Some(environment.clone());
        }
    }

    fn too_deep(&self) -> MutexGuard<'_, HashMap<Process, Instant>> {
        self.too_deep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a walk from a process, or from one below it, has cost too much a moment ago.
    fn is_too_deep(&self, process: &Process) -> bool {
        let too_deep = self.too_deep();
        let found = too_deep.get(process);
        found.is_some_and(|at| at.elapsed() < TOO_DEEP)
    }

    /// The walk from these processes on has cost too much.
    fn remember_too_deep(&self, processes: &[Process]) {
        let mut too_deep = self.too_deep();
        too_deep.retain(|_, at| at.elapsed() < TOO_DEEP);
        if too_deep.len() < TOO_DEEP_MAX {
            too_deep.extend(processes.iter().map(|process| (*process, Instant::now())));
        }
    }
}

impl Entry {
    /// Its stat as it is now. The open file is about this process and no other that gets its pid.
    fn read_again<'a>(&self, buffer: &'a mut [u8]) -> Option<Stat<'a>> {
        let length = self.stat.read_at(buffer, 0).ok()?;
        Stat::parse(&buffer[..length])
    }

    /// Its stat, if it is alive and neither its mark nor its uid has changed.
    fn look_again<'a>(&self, buffer: &'a mut [u8]) -> Option<Stat<'a>> {
        let stat = self.read_again(buffer)?;
        let uid = || {
            let asked = pidfd_euid(&self.pidfd);
            asked.or_else(|| Some(Status::read(self.facts.process.pid).ok()?.uid))
        };
        let same = Mark::from(&stat) == self.mark && uid() == Some(self.facts.uid);
        (same && !exited(&self.pidfd)).then_some(stat)
    }
}

/// What an error of a look at a process means. One that has exited is gone, however the look failed.
fn obstacle<T>(error: &io::Error, pidfd: Option<&OwnedFd>) -> Sight<T> {
    if error.raw_os_error() == Some(libc::ESRCH) || pidfd.is_some_and(exited) {
        Sight::Gone
    } else if is_shortage(error) || error.kind() == io::ErrorKind::TimedOut {
        Sight::Failed
    } else {
        Sight::Hidden
    }
}

impl Processes {
    fn read(&self, pid: u32) -> Sight<Entry> {
        let called = self.known.last_called().take_if(|(task, _)| *task == pid);
        let pidfd = match called.map_or_else(|| pidfd_open(pid), |(_, pidfd)| Ok(pidfd)) {
            Ok(pidfd) => pidfd,
            Err(error) => return obstacle(&error, None),
        };
        match self.read_behind(pid, &pidfd) {
            // Not yet exited after all of it was read: so all of it is about the process behind the pidfd.
            Ok(_) if exited(&pidfd) => Sight::Gone,
            Ok(Some((stat, mark, facts))) => Sight::Seen(Entry {
                pidfd: Arc::new(pidfd),
                stat,
                mark,
                facts,
                variable: None,
                looked: Instant::now(),
            }),
            // A kernel thread is nobody's parent that matters.
            Ok(None) => Sight::Hidden,
            Err(error) => obstacle(&error, Some(&pidfd)),
        }
    }

    fn read_behind(&self, pid: u32, pidfd: &OwnedFd) -> io::Result<Option<(File, Mark, Facts)>> {
        let file = File::open(format!("/proc/{pid}/stat"))?;
        let mut buffer = [0; 1024];
        let length = file.read_at(&mut buffer, 0)?;
        let stat = Stat::parse(&buffer[..length]).ok_or(io::ErrorKind::InvalidData)?;
        if stat.is_kernel() {
            return Ok(None);
        }
        // What most are, in the mount's own namespace, is said faster than by the whole of the status.
        let own = self.known.pidns;
        let here = || own.is_some() && pid_namespace(pid) == own;
        let (uid, local_pid, pidns) = match pidfd_euid(pidfd).filter(|_| here()) {
            Some(uid) => (uid, pid, 0),
            None => status(pid)?,
        };
        let process = Process {
            pid,
            start: stat.start,
            pidfs: pidfd_inode(pidfd)?,
        };
        let age = Duration::from_millis(stat.start.saturating_mul(1000) / self.ticks);
        let facts = Facts {
            process,
            parent: stat.parent,
            sid: stat.sid,
            uid,
            pidns,
            local_pid,
            program: self.program(uid, pid, &stat.command)?,
            command: Arc::from(&*stat.command),
            started: self.booted + age,
            adopted: false,
            // Where the kernel has laid out the address space at random, the next exec is sure to put it elsewhere.
            environ: if stat.is_random() { stat.environ } else { 0 },
        };
        let mark = Mark::from(&stat);
        Ok(Some((file, mark, facts)))
    }

    /// What a process runs, which may have to be asked of its memory.
    fn program(&self, uid: u32, pid: u32, command: &str) -> io::Result<Arc<str>> {
        if !is_interpreter(command) {
            return Ok(Arc::from(command));
        }
        let command: Arc<str> = Arc::from(command);
        self.readers.read(uid, move || Ok(program(pid, &command)))
    }

    fn read_variable(&self, environ: &[u8]) -> Environment {
        // Once through it: there are dozens of names to look for.
        let wanted = |(name, _): &(&[u8], &[u8])| self.wanted.contains(*name);
        let found: Vec<_> = variables(environ).filter(wanted).collect();
        let set = |name: &Arc<str>| {
            let is_it = |(found, _): &&(&[u8], &[u8])| *found == name.as_bytes();
            let (_, value) = found.iter().find(is_it)?;
            Some((Arc::clone(name), value.to_vec()))
        };
        let marked = self.marks.iter().filter_map(set).collect();
        let set = self.variables.iter().find_map(set);
        let variable = set.map_or(Variable::Unset, |(name, value)| Variable::Set {
            name,
            value,
        });
        (variable, Arc::new(marked))
    }
}

/// The uid, the pid in its own namespace, and that namespace, of any process at all.
fn status(pid: u32) -> io::Result<(u32, u32, u64)> {
    let status = Status::read(pid)?;
    let nested = status.local_pids.len() > 1;
    // One that cannot be read is nobody else's either.
    let unknown = u64::MAX - u64::from(pid);
    let pidns = if nested {
        pid_namespace(pid).unwrap_or(unknown)
    } else {
        0
    };
    let local_pid = status.local_pids.last().copied().unwrap_or(pid);
    Ok((status.uid, local_pid, pidns))
}

/// Processes, as one walk sees them: it ends before it costs the others too much.
pub(super) struct Looking<'a> {
    processes: &'a Processes,
    /// As whom the caller acts.
    uid: u32,
    /// A process has blocked a look at it.
    is_blocked: Cell<bool>,
    begun: Duration,
    /// Bytes of environments that were read.
    bytes: Cell<usize>,
    /// It was in vain once, as something had changed.
    distrusts: Cell<bool>,
    /// It has met a process whose walk has cost too much a moment ago.
    is_too_deep: Cell<bool>,
    /// How often it was asked whether it is exhausted.
    looks: Cell<u32>,
    /// The caller, and its parent.
    first: RefCell<Vec<Process>>,
    environments: RefCell<Vec<(Process, Environment)>>,
}

impl<'a> Looking<'a> {
    pub(super) fn new(processes: &'a Processes, uid: u32) -> Self {
        Self {
            processes,
            uid,
            is_blocked: Cell::new(false),
            begun: thread_time(),
            bytes: Cell::new(0),
            distrusts: Cell::new(false),
            is_too_deep: Cell::new(false),
            looks: Cell::new(0),
            first: RefCell::default(),
            environments: RefCell::default(),
        }
    }

    /// It came to nothing, as it would have cost too much: so do those from its caller's parent, for a moment.
    pub(super) fn was_too_deep(&self) {
        if !self.is_too_deep.get() && !self.is_blocked.get() {
            self.processes.known.remember_too_deep(&self.first.borrow());
        }
    }

    fn look(&self, pid: u32, trusts: bool) -> Sight<Facts> {
        let known = &self.processes.known;
        let mut facts = if let Some(facts) = known.recall(pid, trusts) {
            facts
        } else {
            let mut sight = self.processes.read(pid);
            if matches!(sight, Sight::Failed) {
                // Out of descriptors: those that are kept for known processes come first.
                known.lock().clear();
                sight = self.processes.read(pid);
            }
            let entry = match sight {
                Sight::Seen(entry) => entry,
                Sight::Gone => return Sight::Gone,
                Sight::Hidden => return Sight::Hidden,
                Sight::Failed => {
                    let is_blocked = self.processes.readers.is_blocked(self.uid);
                    self.is_blocked.set(is_blocked);
                    return Sight::Failed;
                }
            };
            let facts = entry.facts.clone();
            known.keep(entry);
            facts
        };
        let first_parent = self.processes.first_parent(&facts.process);
        facts.adopted = first_parent.is_some_and(|parent| parent != facts.parent);
        if known.is_too_deep(&facts.process) {
            self.is_too_deep.set(true);
        }
        let mut first = self.first.borrow_mut();
        if first.len() < 2 {
            first.push(facts.process);
        }
        Sight::Seen(facts)
    }

    /// What the environment of a process says. That of a caller, of which `task` waits, is read again.
    fn environment(&self, process: &Process, task: Option<u32>) -> Sight<Environment> {
        let read = self.environments.borrow();
        if let Some((_, environment)) = read.iter().find(|(there, _)| there == process) {
            return Sight::Seen(environment.clone());
        }
        drop(read);
        let processes = self.processes;
        let trusts = !self.distrusts.get() && task.is_none();
        let known = processes.known.environment(process).filter(|_| trusts);
        let environment = match known {
            Some(environment) => environment,
            None => match self.read_environment(process, task) {
                Sight::Seen(environment) => environment,
                other => return other,
            },
        };
        let kept = (*process, environment.clone());
        self.environments.borrow_mut().push(kept);
        Sight::Seen(environment)
    }

    fn read_environment(&self, process: &Process, task: Option<u32>) -> Sight<Environment> {
        let processes = self.processes;
        // Taken before and asked after: what is read in between is this process's.
        let pidfd = match processes.known.pidfd(process) {
            Some((pidfd, _)) => pidfd,
            None => match processes.look_up(process) {
                Ok(Some((pidfd, _))) => Arc::new(pidfd),
                Ok(None) => return Sight::Gone,
                Err(error) => return obstacle(&error, None),
            },
        };
        let left = ENVIRONS_MAX.saturating_sub(self.bytes.get());
        let (task_or_pid, waits) = (task.unwrap_or(process.pid), task.is_some());
        let read = || {
            let read = move || environ(task_or_pid, waits, left);
            processes.readers.read(self.uid, read)
        };
        let environ = processes.known.relieved(read);
        if task.is_none() && exited(&pidfd) {
            return Sight::Gone;
        }
        let environ = match environ {
            Ok(environ) => environ,
            Err(error) if is_denied(&error) => return Sight::Hidden,
            Err(error) if is_shortage(&error) => return Sight::Failed,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.is_blocked.set(true);
                return Sight::Failed;
            }
            Err(_) => return Sight::Gone,
        };
        self.bytes.set(self.bytes.get() + environ.len());
        let environment = processes.read_variable(&environ);
        processes.known.keep_environment(process, &environment);
        Sight::Seen(environment)
    }
}

impl View for Looking<'_> {
    fn facts(&self, pid: u32) -> Sight<Facts> {
        self.look(pid, !self.distrusts.get())
    }

    fn caller(&self, pid: u32) -> Sight<Facts> {
        self.first.borrow_mut().clear();
        self.look(pid, false)
    }

    fn init_of(&self, process: &Facts) -> Option<Facts> {
        let init = first_of_namespace(process.process.pid).ok()?;
        match self.look(init, true) {
            Sight::Seen(facts) => Some(facts),
            Sight::Gone | Sight::Hidden | Sight::Failed => None,
        }
    }

    fn is_exhausted(&self) -> bool {
        self.looks.set(self.looks.get().wrapping_add(1));
        // To ask for the time is a system call.
        let is_late = || thread_time().saturating_sub(self.begun) > TIME_MAX;
        self.is_too_deep.get()
            || self.is_blocked.get()
            || self.bytes.get() >= ENVIRONS_MAX
            || (self.looks.get().is_multiple_of(8) && is_late())
    }

    fn has_changed(&self) {
        self.distrusts.set(true);
        self.environments.borrow_mut().clear();
    }

    fn variable(&self, process: &Process, task: Option<u32>) -> Sight<Variable> {
        self.environment(process, task)
            .map(|(variable, _)| variable)
    }

    fn agents(&self) -> &[Agent] {
        &self.processes.agents
    }

    fn marks(&self, process: &Process, task: Option<u32>) -> Sight<Marked> {
        self.environment(process, task)
            .map(|(_, marked)| marked.to_vec())
    }
}

/// environ(7) of a process that the mount may not look into: another user's, or one that is not dumpable (prctl(2)).
fn is_denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM))
}
