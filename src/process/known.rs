//! Processes that were looked at before: what was read of one is right while its mark is.
//!
//! Promises: facts are never staler than the last look at the process. Its parent, its POSIX session and its exec are
//! in its mark, which is read again each time; its uid is asked of its pidfd, which also says that the pid is still its
//! own. An environment is kept only where an exec is sure to move the mark: where the kernel has laid out the address space
//! at random.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::proc::{Stat, Status, environ, pid_namespace, program, variables};
use super::{
    CHAIN_MAX, Processes, any_exited, descriptor_limit, exited, is_shortage, pidfd_euid,
    pidfd_inode, pidfd_open,
};
use crate::agents::Agent;
use crate::identity::{Facts, Marked, Sight, Variable, View};
use crate::lease::Process;

/// How many processes are kept at most, each with two descriptors; never with more than a quarter of those that there
/// may be, which are for the roots of sessions.
const KNOWN_MAX: usize = 512;

#[derive(Debug)]
pub(super) struct Cache {
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
    /// Its next exec is sure to move the mark.
    is_random: bool,
    variable: Option<(Variable, Arc<Marked>)>,
}

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
    pub(super) fn new() -> Self {
        Self {
            entries: Mutex::default(),
            called: Mutex::default(),
            pidns: pid_namespace("self"),
            max: KNOWN_MAX.min(descriptor_limit() / 8),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a chain of processes that was read a moment ago is the same still: the caller itself, which waits, is as it was, and of those
    /// above it none has died, without which none gets another parent. That one of those has changed otherwise shows at the next reading. As whom the
    /// caller acts is in its request.
    pub(super) fn is_unchanged(&self, chain: &[Facts]) -> bool {
        let Some((caller, above)) = chain.split_first().filter(|_| chain.len() <= CHAIN_MAX) else {
            return false;
        };
        let entries = self.lock();
        let same = |facts: &Facts| {
            let entry = entries.get(&facts.process.pid);
            entry.filter(|entry| entry.facts.process == facts.process)
        };
        // What its environment says is kept only if its next exec is sure to show.
        let Some(entry) = same(caller).filter(|entry| entry.variable.is_some()) else {
            return false;
        };
        let mut buffer = [0; 1024];
        let is_same = entry.read_again(&mut buffer).is_some_and(|stat| {
            Mark::from(&stat) == entry.mark && *stat.command == *caller.command
        });
        let mut pidfds = [-1; CHAIN_MAX];
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
        if entries.len() >= self.max {
            entries.retain(|_, entry| !exited(&entry.pidfd));
        }
        if entries.len() >= self.max {
            entries.clear();
        }
        entries.insert(entry.facts.process.pid, entry);
    }

    /// A process that is known and as it was. One that is not is forgotten.
    fn recall(&self, pid: u32) -> Option<Facts> {
        let mut entries = self.lock();
        let entry = entries.get_mut(&pid)?;
        let mut buffer = [0; 1024];
        if let Some(stat) = entry.look_again(&mut buffer) {
            if *stat.command != *entry.facts.command {
                entry.facts.program = program(pid, &stat.command);
                entry.facts.command = Arc::from(stat.command);
            }
            return Some(entry.facts.clone());
        }
        entries.remove(&pid);
        None
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
    } else if is_shortage(error) {
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
            Ok(Some((stat, mark, is_random, facts))) => Sight::Seen(Entry {
                pidfd: Arc::new(pidfd),
                stat,
                mark,
                facts,
                is_random,
                variable: None,
            }),
            // A kernel thread is nobody's parent that matters.
            Ok(None) => Sight::Hidden,
            Err(error) => obstacle(&error, Some(&pidfd)),
        }
    }

    fn read_behind(
        &self,
        pid: u32,
        pidfd: &OwnedFd,
    ) -> io::Result<Option<(File, Mark, bool, Facts)>> {
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
            program: program(pid, &stat.command),
            command: Arc::from(&*stat.command),
            started: self.booted + age,
            adopted: false,
        };
        let is_random = stat.is_random() && stat.environ != 0;
        let mark = Mark::from(&stat);
        Ok(Some((file, mark, is_random, facts)))
    }

    fn read_variable(&self, environ: &[u8]) -> (Variable, Arc<Marked>) {
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

    /// What the environment of a process says.
    fn environment(&self, process: &Process, task: Option<u32>) -> Sight<(Variable, Arc<Marked>)> {
        let same = |entry: &&mut Entry| entry.facts.process == *process;
        {
            let mut entries = self.known.lock();
            // Another request may have made room here: then the walk starts again.
            let Some(entry) = entries.get_mut(&process.pid).filter(same) else {
                return Sight::Gone;
            };
            if let Some(variable) = &entry.variable {
                return Sight::Seen(variable.clone());
            }
        }
        let environ = environ(task.unwrap_or(process.pid));
        let mut entries = self.known.lock();
        let Some(entry) = entries.get_mut(&process.pid).filter(same) else {
            return Sight::Gone;
        };
        if task.is_none() && exited(&entry.pidfd) {
            return Sight::Gone;
        }
        let variable = match environ {
            Ok(environ) => self.read_variable(&environ),
            Err(error) if is_denied(&error) => return Sight::Hidden,
            Err(error) if is_shortage(&error) => return Sight::Failed,
            Err(_) => return Sight::Gone,
        };
        let mut buffer = [0; 1024];
        let mut is_as_marked = || {
            let stat = entry.read_again(&mut buffer);
            stat.is_some_and(|stat| stat.is_random() && Mark::from(&stat) == entry.mark)
        };
        // One that waits was looked at in the same wait.
        if entry.is_random && (task.is_some() || is_as_marked()) {
            entry.variable = Some(variable.clone());
        }
        Sight::Seen(variable)
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

impl View for Processes {
    fn facts(&self, pid: u32) -> Sight<Facts> {
        let mut facts = if let Some(facts) = self.known.recall(pid) {
            facts
        } else {
            let mut sight = self.read(pid);
            if matches!(sight, Sight::Failed) {
                // Out of descriptors: those that are kept for known processes come first.
                self.known.lock().clear();
                sight = self.read(pid);
            }
            let entry = match sight {
                Sight::Seen(entry) => entry,
                Sight::Gone => return Sight::Gone,
                Sight::Hidden => return Sight::Hidden,
                Sight::Failed => return Sight::Failed,
            };
            let facts = entry.facts.clone();
            self.known.keep(entry);
            facts
        };
        let first_parent = self.first_parent(&facts.process);
        facts.adopted = first_parent.is_some_and(|parent| parent != facts.parent);
        Sight::Seen(facts)
    }

    fn variable(&self, process: &Process, task: Option<u32>) -> Sight<Variable> {
        self.environment(process, task)
            .map(|(variable, _)| variable)
    }

    fn agents(&self) -> &[Agent] {
        &self.agents
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
