//! Processes that were looked at before: what was read of one is right while its mark is.
//!
//! Promises: facts are never staler than the last look at the process. Its parent, its POSIX session and its exec are
//! in its mark, which is read again each time; its uid is asked of its pidfd, which also says that the pid is still its
//! own. An environment is kept only where an exec is sure to move the mark: where the kernel lays out address spaces at
//! random.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::proc::{Stat, Status, environ, pid_namespace};
use super::{Processes, exited, pidfd_euid, pidfd_inode, pidfd_open};
use crate::identity::{Facts, Variable, View};
use crate::lease::Process;

/// How many processes are kept, each with two descriptors.
const KNOWN_MAX: usize = 512;

/// `ADDR_NO_RANDOMIZE` of personality(2).
const NOT_RANDOM: u32 = 0x0004_0000;

#[derive(Debug)]
pub(super) struct Cache {
    entries: Mutex<HashMap<u32, Entry>>,
    /// Whether the kernel lays out address spaces at random at all.
    random: bool,
}

#[derive(Debug)]
struct Entry {
    pidfd: OwnedFd,
    stat: File,
    mark: Mark,
    facts: Facts,
    variable: Option<Variable>,
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
        let setting = fs::read_to_string("/proc/sys/kernel/randomize_va_space");
        let random = setting.is_ok_and(|setting| setting.trim() != "0");
        Self {
            entries: Mutex::default(),
            random,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a task is known as a process that is still alive, so that the number is its own.
    pub(super) fn is_process(&self, task: u32) -> bool {
        self.lock()
            .get(&task)
            .is_some_and(|entry| !exited(&entry.pidfd))
    }

    fn keep(&self, entry: Entry) {
        let mut entries = self.lock();
        if entries.len() >= KNOWN_MAX {
            entries.retain(|_, entry| !exited(&entry.pidfd));
        }
        if entries.len() >= KNOWN_MAX {
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
                entry.facts.command = Arc::from(stat.command);
            }
            return Some(entry.facts.clone());
        }
        entries.remove(&pid);
        None
    }
}

impl Entry {
    /// Its stat, if it is alive and neither its mark nor its uid has changed. The open file is about this process and
    /// no other that gets its pid.
    fn look_again<'a>(&self, buffer: &'a mut [u8]) -> Option<Stat<'a>> {
        let length = self.stat.read_at(buffer, 0).ok()?;
        let stat = Stat::parse(&buffer[..length])?;
        let uid = || {
            let asked = pidfd_euid(&self.pidfd);
            asked.or_else(|| Status::read(self.facts.process.pid).map(|status| status.uid))
        };
        let same = Mark::from(&stat) == self.mark && uid() == Some(self.facts.uid);
        (same && !exited(&self.pidfd)).then_some(stat)
    }
}

impl Processes {
    fn read(&self, pid: u32) -> Option<Entry> {
        let pidfd = pidfd_open(pid).ok()?;
        let file = File::open(format!("/proc/{pid}/stat")).ok()?;
        let mut buffer = [0; 1024];
        let length = file.read_at(&mut buffer, 0).ok()?;
        let stat = Stat::parse(&buffer[..length])?;
        let status = Status::read(pid)?;
        let nested = status.local_pids.len() > 1;
        let pidns = if nested { pid_namespace(pid) } else { 0 };
        // Not yet exited after all of it was read: so all of it is about the process behind the pidfd.
        if exited(&pidfd) {
            return None;
        }
        let process = Process {
            pid,
            start: stat.start,
            pidfs: pidfd_inode(&pidfd),
        };
        let age = Duration::from_millis(stat.start.saturating_mul(1000) / self.ticks);
        let facts = Facts {
            process,
            parent: stat.parent,
            sid: stat.sid,
            uid: status.uid,
            pidns,
            local_pid: status.local_pids.last().copied().unwrap_or(pid),
            command: Arc::from(&*stat.command),
            started: self.booted + age,
            adopted: false,
        };
        Some(Entry {
            mark: Mark::from(&stat),
            pidfd,
            stat: file,
            facts,
            variable: None,
        })
    }

    fn read_variable(&self, task: u32) -> Variable {
        let Ok(environ) = environ(task) else {
            return Variable::Unreadable;
        };
        let set = |name: &Arc<str>| {
            let value = environ.split(|byte| *byte == 0).find_map(|entry| {
                entry
                    .strip_prefix(name.as_bytes())?
                    .strip_prefix(b"=")
                    .map(<[u8]>::to_vec)
            })?;
            Some(Variable::Set {
                name: Arc::clone(name),
                value,
            })
        };
        let set = self.variables.iter().find_map(set);
        set.unwrap_or(Variable::Unset)
    }

    /// Whether the next exec of a process is sure to move its mark.
    fn is_random(&self, pid: u32) -> bool {
        let personality = || fs::read_to_string(format!("/proc/{pid}/personality")).ok();
        let bits = || u32::from_str_radix(personality()?.trim(), 16).ok();
        self.known.random && bits().is_some_and(|bits| bits & NOT_RANDOM == 0)
    }
}

impl View for Processes {
    fn facts(&self, pid: u32) -> Option<Facts> {
        let mut facts = if let Some(facts) = self.known.recall(pid) {
            facts
        } else {
            let entry = self.read(pid)?;
            let facts = entry.facts.clone();
            self.known.keep(entry);
            facts
        };
        let first_parent = self.first_parent(&facts.process);
        facts.adopted = first_parent.is_some_and(|parent| parent != facts.parent);
        Some(facts)
    }

    fn variable(&self, process: &Process, task: u32) -> Option<Variable> {
        let same = |entry: &&mut Entry| entry.facts.process == *process;
        let kept = self
            .known
            .lock()
            .get_mut(&process.pid)
            .filter(same)?
            .variable
            .clone();
        if kept.is_some() {
            return kept;
        }
        let variable = self.read_variable(task);
        let random = self.is_random(process.pid);
        let mut entries = self.known.lock();
        let entry = entries.get_mut(&process.pid).filter(same)?;
        let mut buffer = [0; 1024];
        if entry.look_again(&mut buffer).is_some() {
            if random && entry.mark.environ != 0 {
                entry.variable = Some(variable.clone());
            }
            return Some(variable);
        }
        // It has changed, but may be the caller, which is as it is: what was read is its own if it lives.
        (!exited(&entry.pidfd)).then_some(variable)
    }
}
