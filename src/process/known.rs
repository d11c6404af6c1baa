//! A cache of reads from `/proc`, which saves time and decides nothing.
//!
//! Promises: an answer is the same with an empty cache, with two exceptions. Facts about a process
//! *above* a caller that is still alive may be [`TRUST`] old, except of the process where the chain
//! of a variable ends, which is looked at again; and the command that is shown of a caller may be
//! so. The caller itself is checked each time: its uid is part of its request; its POSIX session
//! and its last exec show in its `stat`, or in what the kernel has put into its memory ([`Seed`]);
//! it gets another parent only when a process above it dies; and its environment is read again,
//! unless it is a root of a session, which it stays whatever it writes there.
//!
//! Whether any process above a caller has died is one call ([`Cache::settle`]), however many there
//! are: their pidfds are in one epoll.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Processes;
use super::proc::{Stat, Status, environ, is_interpreter, program, variables};
use crate::core::Process;
use crate::core::agents::Agent;
use crate::core::identity::{Facts, Marked, Sight, Variable, View};
use crate::sys::descriptors::{self, is_shortage};
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::exec::{self, Seed};
use crate::sys::pidfd::{self, has_exited};
use crate::sys::{clock, namespace, thread};

/// How many processes are cached at most, each with two descriptors. They never take more than a
/// quarter of the descriptors, which are for the roots of sessions.
const KNOWN_MAX: usize = 512;

/// How old the facts about a process above a caller may be. An ancestry that is used again may be
/// as old once more: 50 ms in all.
const TRUST: Duration = Duration::from_millis(25);

/// How much one ancestry may cost: time of the processor, and bytes of environments.
const TIME_MAX: Duration = Duration::from_millis(50);
const ENVIRONS_MAX: usize = 16 << 20;

/// How many things are looked at between two looks at the time, each of which is a system call.
const LOOKS: u32 = 16;

/// How often an unchanged caller has called before its seed is read, which takes as long as it
/// saves in two calls. Most processes call three times, for a claim and its release.
const CALLS: u32 = 4;

/// For how long the ancestry of a process, and of those below it, is not read again after it cost
/// more.
const TOO_DEEP: Duration = Duration::from_secs(1);

/// How many such processes are remembered at most.
const TOO_DEEP_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Cache {
    /// The processes whose ancestry cost too much, and when.
    too_deep: Mutex<HashMap<Process, Instant>>,
    entries: Mutex<HashMap<u32, Entry>>,
    /// The pidfd of the task that called last, if it is a process that is not cached.
    called: Mutex<Option<(u32, OwnedFd)>>,
    /// The pidfds of cached processes that are above others, under their pids.
    above: Arc<Epoll>,
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
    /// Its environment, as it was read last.
    variable: Option<Environment>,
    looked: Instant,
    /// Its death shows in [`Cache::settle`], since it is above others.
    listed: Option<Listed>,
    /// How often it has called, and was unchanged.
    calls: u32,
    /// Of the exec that `mark` is of. `None` if it is not known, or not yet.
    seed: Option<Seed>,
}

/// A pidfd in an epoll, from which it is removed when this is dropped: others may keep it open.
#[derive(Debug)]
struct Listed(Arc<Epoll>, Arc<OwnedFd>);

impl Drop for Listed {
    fn drop(&mut self) {
        self.0.remove(&self.1);
    }
}

/// The session variable in an environment, and the variables of agents.
type Environment = (Variable, Arc<Marked>);

/// An entry is valid while its process has this mark. `environ` is where the last exec has put the
/// environment, 0 if that cannot be read.
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
    /// An empty cache, which stays so unless `keeps`.
    pub(super) fn new(keeps: bool) -> io::Result<Self> {
        let max = KNOWN_MAX.min(descriptors::limit() / 8);
        Ok(Self {
            too_deep: Mutex::default(),
            entries: Mutex::default(),
            called: Mutex::default(),
            above: Arc::new(Epoll::new()?),
            pidns: namespace::of_pids("self").ok(),
            max: if keeps { max } else { 0 },
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes all processes above others that have died. Each that is left, and listed, was alive
    /// during this call. False if it could not be found out.
    fn settle(&self) -> bool {
        loop {
            let Ok(mut exited) = self.above.look().map(Iterator::peekable) else {
                return false;
            };
            if exited.peek().is_none() {
                return true;
            }
            let mut entries = self.lock();
            for pid in exited.filter_map(|id| u32::try_from(id).ok()) {
                entries.remove(&pid);
            }
        }
    }

    /// Whether an ancestry is unchanged since it was read. The task must be a thread of the caller,
    /// and the caller, which waits, must have its mark and be a root of a session by its last exec,
    /// so that its environment does not count. None of the processes above may have died: none gets
    /// another parent before. Any other change of those shows at the next read. The uid of the
    /// caller is part of its request.
    pub(super) fn is_unchanged(
        &self,
        task: u32,
        chain: &[Facts],
        is_known: impl FnOnce(&Process, u64) -> bool,
    ) -> bool {
        let Some((caller, above)) = chain.split_first() else {
            return false;
        };
        if task != caller.process.pid && !thread::is_of_process(task, caller.process.pid) {
            return false;
        }
        if !is_known(&caller.process, caller.environ) || !self.settle() {
            return false;
        }
        let mut entries = self.lock();
        let is_alive = |facts: &Facts| {
            let entry = entries.get(&facts.process.pid);
            let entry = entry.filter(|entry| entry.facts.process == facts.process);
            entry.is_some_and(|entry| entry.listed.is_some())
        };
        if !above.iter().all(is_alive) {
            return false;
        }
        let entry = entries.get_mut(&caller.process.pid);
        let entry = entry.filter(|entry| entry.facts.process == caller.process);
        entry.is_some_and(|entry| entry.is_as_it_was(caller))
    }

    /// Whether a task is a cached process that is still alive, so that the number is its own.
    pub(super) fn is_process(&self, task: u32) -> bool {
        self.lock()
            .get(&task)
            .is_some_and(|entry| !has_exited(&entry.pidfd))
    }

    /// Keeps the pidfd of a task that calls, which is a process, until the process is read.
    pub(super) fn called(&self, task: u32, pidfd: OwnedFd) {
        *self.last_called() = Some((task, pidfd));
    }

    fn last_called(&self) -> MutexGuard<'_, Option<(u32, OwnedFd)>> {
        self.called.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `look`, and once more with an empty cache if it fails for lack of descriptors.
    pub(super) fn relieved<T>(&self, look: impl Fn() -> io::Result<T>) -> io::Result<T> {
        look().or_else(|error| {
            if !is_shortage(&error) {
                return Err(error);
            }
            self.lock().clear();
            look()
        })
    }

    /// The pidfd of a cached process, and its parent.
    pub(super) fn pidfd(&self, process: &Process) -> Option<(Arc<OwnedFd>, u32)> {
        let entries = self.lock();
        let entry = entries.get(&process.pid)?;
        let same = entry.facts.process == *process;
        same.then(|| (Arc::clone(&entry.pidfd), entry.facts.parent))
    }

    /// Has the death of a process show in [`Cache::settle`]. If that fails, it is looked at itself
    /// each time.
    fn list(&self, entry: &mut Entry) {
        let id = entry.facts.process.pid.into();
        if self.above.add(&entry.pidfd, Interest::IN, id).is_ok() {
            entry.listed = Some(Listed(Arc::clone(&self.above), Arc::clone(&entry.pidfd)));
        }
    }

    fn keep(&self, entry: Entry) {
        let mut entries = self.lock();
        let pid = entry.facts.process.pid;
        if entries.len() >= self.max && !entries.contains_key(&pid) {
            entries.retain(|_, entry| !has_exited(&entry.pidfd));
            if entries.len() >= self.max {
                // Entries that an ancestry being read may need stay.
                entries.retain(|_, entry| entry.looked.elapsed() < TRUST);
            }
            if entries.len() >= self.max {
                return;
            }
        }
        entries.insert(pid, entry);
    }

    /// The facts about a cached process: as they were if `trusts` and they are recent, else as they
    /// are now. The entry of a process that has changed is removed.
    fn recall(&self, pid: u32, trusts: bool) -> Option<Facts> {
        let mut entries = self.lock();
        let entry = entries.get_mut(&pid)?;
        if trusts && entry.looked.elapsed() < TRUST {
            let is_alive = entry.listed.is_some() || {
                self.list(entry);
                !has_exited(&entry.pidfd)
            };
            if is_alive {
                return Some(entry.facts.clone());
            }
        }
        let mut buffer = [0; 1024];
        if let Some(stat) = entry.look_again(&mut buffer) {
            if *stat.command != *entry.facts.command {
                // It may run another program by now: everything is read again.
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

    /// Whether a process is as it was when it was read last, or is not cached.
    fn is_current(&self, process: &Process) -> bool {
        let entries = self.lock();
        let entry = entries.get(&process.pid);
        entry
            .filter(|entry| entry.facts.process == *process)
            .is_none_or(|entry| {
                let mut buffer = [0; 1024];
                let stat = entry.look_again(&mut buffer);
                stat.is_some_and(|stat| *stat.command == *entry.facts.command)
            })
    }

    /// The environment of a process, as it was read last.
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

    /// Whether the ancestry of a process, or of one below it, has cost too much a moment ago.
    fn is_too_deep(&self, process: &Process) -> bool {
        let too_deep = self.too_deep();
        let found = too_deep.get(process);
        found.is_some_and(|at| at.elapsed() < TOO_DEEP)
    }

    /// Records that the ancestry of these processes has cost too much.
    fn remember_too_deep(&self, processes: &[Process]) {
        let mut too_deep = self.too_deep();
        too_deep.retain(|_, at| at.elapsed() < TOO_DEEP);
        if too_deep.len() < TOO_DEEP_MAX {
            too_deep.extend(processes.iter().map(|process| (*process, Instant::now())));
        }
    }
}

impl Entry {
    /// Whether a caller, which waits, is in the POSIX session and after the exec of its mark.
    fn is_as_it_was(&mut self, caller: &Facts) -> bool {
        let pid = caller.process.pid;
        if self.seed.is_some_and(|seed| seed.is_of(pid)) {
            return exec::posix_session(pid).is_ok_and(|sid| sid == self.mark.sid);
        }
        self.calls = self.calls.saturating_add(1);
        // If the mark is as before when it has been read, the seed is of the same exec.
        self.seed = if self.calls == CALLS {
            Seed::read(pid)
        } else {
            None
        };
        let mut buffer = [0; 1024];
        self.read_again(&mut buffer)
            .is_some_and(|stat| Mark::from(&stat) == self.mark && *stat.command == *caller.command)
    }

    /// Its stat as it is now. The open file is that of this process, and of no other with its pid.
    fn read_again<'a>(&self, buffer: &'a mut [u8]) -> Option<Stat<'a>> {
        let length = self.stat.read_at(buffer, 0).ok()?;
        Stat::parse(&buffer[..length])
    }

    /// Its stat, if it is alive and neither its mark nor its uid has changed.
    fn look_again<'a>(&self, buffer: &'a mut [u8]) -> Option<Stat<'a>> {
        let stat = self.read_again(buffer)?;
        let uid = || {
            let asked = pidfd::effective_uid(&self.pidfd);
            asked.or_else(|| Some(Status::read(self.facts.process.pid).ok()?.uid))
        };
        let same = Mark::from(&stat) == self.mark && uid() == Some(self.facts.uid);
        (same && !has_exited(&self.pidfd)).then_some(stat)
    }
}

/// The meaning of an error of a read. A process that has exited is gone, however the read failed.
fn obstacle<T>(error: &io::Error, pidfd: Option<&OwnedFd>) -> Sight<T> {
    if error.raw_os_error() == Some(libc::ESRCH) || pidfd.is_some_and(has_exited) {
        Sight::Gone
    } else if is_shortage(error) || error.kind() == io::ErrorKind::TimedOut {
        Sight::Failed
    } else {
        Sight::Hidden
    }
}

impl Processes {
    /// Reads a process. One that `waits` for an answer cannot exit meanwhile.
    fn read(&self, pid: u32, waits: bool) -> Sight<Entry> {
        let called = self.known.last_called().take_if(|(task, _)| *task == pid);
        let pidfd = match called.map_or_else(|| pidfd::open(pid), |(_, pidfd)| Ok(pidfd)) {
            Ok(pidfd) => pidfd,
            Err(error) => return obstacle(&error, None),
        };
        match self.read_behind(pid, &pidfd) {
            // It had not exited when all was read, so that all is about the process behind the
            // pidfd.
            Ok(_) if !waits && has_exited(&pidfd) => Sight::Gone,
            Ok(Some((stat, mark, facts))) => Sight::Seen(Entry {
                pidfd: Arc::new(pidfd),
                stat,
                mark,
                facts,
                variable: None,
                looked: Instant::now(),
                listed: None,
                calls: 0,
                seed: None,
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
        // For most processes, which are in the mount's own namespace, this is faster than to read
        // the status.
        let own = self.known.pidns;
        let pidns = || namespace::of_pidfd(pidfd).or_else(|_| namespace::of_pids(pid));
        let here = || own.is_some() && pidns().ok() == own;
        let (uid, local_pid, pidns) = match pidfd::effective_uid(pidfd).filter(|_| here()) {
            Some(uid) => (uid, pid, 0),
            None => status(pid)?,
        };
        let process = Process {
            pid,
            start: stat.start,
            pidfs: pidfd::inode(pidfd)?,
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
            // Only with a randomised address space is the next exec sure to put it elsewhere.
            environ: if stat.is_random() { stat.environ } else { 0 },
        };
        let mark = Mark::from(&stat);
        Ok(Some((file, mark, facts)))
    }

    /// The program of a process, for which its memory may have to be read.
    fn program(&self, uid: u32, pid: u32, command: &str) -> io::Result<Arc<str>> {
        if !is_interpreter(command) {
            return Ok(Arc::from(command));
        }
        let command: Arc<str> = Arc::from(command);
        self.readers.read(uid, move || Ok(program(pid, &command)))
    }

    fn read_variable(&self, environ: &[u8]) -> Environment {
        // One pass over the environment, since there are dozens of names to look for.
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
    // A namespace that cannot be read counts as one that no other process is in.
    let unknown = u64::MAX - u64::from(pid);
    let pidns = if nested {
        namespace::of_pids(pid).unwrap_or(unknown)
    } else {
        0
    };
    let local_pid = status.local_pids.last().copied().unwrap_or(pid);
    Ok((status.uid, local_pid, pidns))
}

/// Processes, as they are read for one ancestry, which ends before it costs too much.
pub(super) struct Lookup<'a> {
    processes: &'a Processes,
    /// The uid that the caller acts as.
    uid: u32,
    /// The caller waits for an answer, and is the first process that is read.
    waits: bool,
    /// A process has blocked a read.
    is_blocked: Cell<bool>,
    /// When the time was looked at first.
    begun: Cell<Option<Duration>>,
    /// Bytes of environments that were read.
    bytes: Cell<usize>,
    /// Something changed while it was read: only fresh facts count from then on.
    distrusts: Cell<bool>,
    /// The ancestry of a process above the caller has cost too much a moment ago.
    is_too_deep: Cell<bool>,
    /// How often [`View::is_exhausted`] was called.
    looks: Cell<u32>,
    /// The caller, and its parent.
    first: RefCell<Vec<Process>>,
    environments: RefCell<Vec<(Process, Environment)>>,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(processes: &'a Processes, uid: u32, waits: bool) -> Self {
        let is_settled = processes.known.settle();
        Self {
            processes,
            uid,
            waits,
            is_blocked: Cell::new(false),
            begun: Cell::new(None),
            bytes: Cell::new(0),
            distrusts: Cell::new(!is_settled),
            is_too_deep: Cell::new(false),
            looks: Cell::new(0),
            first: RefCell::default(),
            environments: RefCell::default(),
        }
    }

    /// Records that the ancestry costs too much. For a moment, lookups from the caller's parent on
    /// fail at once.
    pub(super) fn was_too_deep(&self) {
        if !self.is_too_deep.get() && !self.is_blocked.get() {
            self.processes.known.remember_too_deep(&self.first.borrow());
        }
    }

    fn look(&self, pid: u32, trusts: bool) -> Sight<Facts> {
        let known = &self.processes.known;
        let is_caller = self.first.borrow().is_empty();
        let waits = self.waits && is_caller;
        let mut facts = if let Some(facts) = known.recall(pid, trusts) {
            facts
        } else {
            let mut sight = self.processes.read(pid, waits);
            if matches!(sight, Sight::Failed) {
                // Out of descriptors: the cached ones are closed first.
                known.lock().clear();
                sight = self.processes.read(pid, waits);
            }
            let mut entry = match sight {
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
            if !is_caller && known.max > 0 {
                known.list(&mut entry);
            }
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

    /// The environment of a process. That of a caller, whose thread `task` waits, is read again.
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
        // The pidfd is opened before and checked after the read, so that the process is the right
        // one.
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
        if task.is_none() && has_exited(&pidfd) {
            return Sight::Gone;
        }
        let environ = match environ {
            Ok(environ) => environ,
            Err(error) if is_denied(&error) => return Sight::Hidden,
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                self.bytes.set(ENVIRONS_MAX);
                return Sight::Failed;
            }
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

impl View for Lookup<'_> {
    fn facts(&self, pid: u32) -> Sight<Facts> {
        self.look(pid, !self.distrusts.get())
    }

    fn caller(&self, pid: u32) -> Sight<Facts> {
        self.first.borrow_mut().clear();
        self.look(pid, false)
    }

    fn init_of(&self, process: &Facts) -> Option<Facts> {
        let init = namespace::first_process(process.process.pid).ok()?;
        match self.look(init, true) {
            Sight::Seen(facts) => Some(facts),
            Sight::Gone | Sight::Hidden | Sight::Failed => None,
        }
    }

    fn is_exhausted(&self) -> bool {
        self.looks.set(self.looks.get().wrapping_add(1));
        let is_late = || {
            let now = clock::of_thread();
            let begun = self.begun.get().unwrap_or(now);
            self.begun.set(Some(begun));
            now.saturating_sub(begun) > TIME_MAX
        };
        self.is_too_deep.get()
            || self.is_blocked.get()
            || self.bytes.get() >= ENVIRONS_MAX
            || (self.looks.get().is_multiple_of(LOOKS) && is_late())
    }

    fn has_changed(&self) {
        self.distrusts.set(true);
        self.environments.borrow_mut().clear();
    }

    fn is_current(&self, process: &Process) -> bool {
        // Without trust, everything has just been read.
        self.distrusts.get() || self.processes.known.is_current(process)
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

/// Whether an error says that the mount may not read a process: another user's, or one that is not
/// dumpable (prctl(2)).
fn is_denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM))
}
