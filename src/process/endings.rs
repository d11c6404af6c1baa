//! How a process ended: by an exit, or by a signal.
//!
//! Promises: an answer is right, or says that it cannot be known yet, or never can.
//!
//! Since Linux 6.15 a pidfd that was opened before the process was waited for shows its wait status
//! (`PIDFD_INFO_EXIT`). A zombie shows it in the last field of its `stat` to those who may trace
//! it; others read 0 there, so that 0 proves nothing. On older kernels the proc connector tells
//! root, outside of all containers.
//!
//! Does not know: what the process held.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::connector::{BUFFER, Connector};
use super::proc::Stat;
use crate::core::{Ending, Process};
use crate::sys::child;
use crate::sys::pidfd::{has_exited, is_reaped, wait_status};

/// Where it can be read how a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// In its pidfd (Linux 6.15).
    Pidfd,
    /// In the messages of the proc connector, for root.
    Connector,
    /// Nowhere, or not of each process.
    Nothing,
}

impl Source {
    /// The words for it in `self`, in `metrics` and for `claimfs doctor`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pidfd => "pidfd",
            Self::Connector => "proc connector",
            Self::Nothing => "none",
        }
    }
}

/// Where a server looks for the endings of processes. By default it takes the best source that the
/// kernel has; anything else is for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Search {
    only: Option<Source>,
    /// Of the proc connector, in bytes.
    buffer: Option<usize>,
}

/// `pidfd`, `connector`, `connector:BYTES` or `none`.
impl FromStr for Search {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, bytes) = match text.split_once(':') {
            Some((name, bytes)) => (name, Some(bytes)),
            None => (text, None),
        };
        let only = match (name, bytes) {
            ("pidfd", None) => Source::Pidfd,
            ("connector", _) => Source::Connector,
            ("none", None) => Source::Nothing,
            _ => return Err(String::from("pidfd, connector, connector:BYTES or none")),
        };
        let buffer = bytes.map(str::parse).transpose();
        Ok(Self {
            only: Some(only),
            buffer: buffer.map_err(|error| format!("{text}: {error}"))?,
        })
    }
}

impl fmt::Display for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.only {
            None => return Ok(()),
            Some(Source::Pidfd) => "pidfd",
            Some(Source::Connector) => "connector",
            Some(Source::Nothing) => "none",
        })?;
        match self.buffer {
            Some(bytes) => write!(f, ":{bytes}"),
            None => Ok(()),
        }
    }
}

impl Serialize for Search {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Search {
    fn admits(self, source: Source) -> bool {
        self.only.is_none_or(|only| only == source)
    }
}

/// The source of endings that this kernel has.
#[derive(Debug)]
pub(super) struct Endings {
    says: Says,
}

#[derive(Debug)]
enum Says {
    Pidfd,
    Connector(Connector),
    Nothing,
}

impl Endings {
    /// Finds the best source that works, by children that exit.
    pub(super) fn new(search: Search) -> Self {
        let says = Self::try_out(search).unwrap_or_else(|error| {
            log::warn!("it cannot be tried whether this kernel says how a process ended: {error}");
            Says::Nothing
        });
        Self { says }
    }

    fn try_out(search: Search) -> io::Result<Says> {
        /// Any code but 0, which is what there is where nothing is known.
        const CODE: u8 = 3;
        if search.admits(Source::Pidfd) {
            let (_, pidfd) = child::exited(CODE, |_, _| {})?;
            if ending_of(&pidfd) == Some(Ending::Exited(CODE)) {
                return Ok(Says::Pidfd);
            }
        }
        if search.admits(Source::Connector)
            && let Ok(connector) = Connector::open(search.buffer.unwrap_or(BUFFER))
        {
            let process = |pid| Process {
                pid,
                start: 0,
                pidfs: 0,
            };
            let watch = |pid, pidfd: &_| connector.watch(&process(pid), pidfd);
            let (pid, _pidfd) = child::exited(CODE, watch)?;
            let child = process(pid);
            let ending = connector.of(&child, || None);
            connector.forget(&child);
            if ending == Some(Ending::Exited(CODE)) {
                return Ok(Says::Connector(connector));
            }
        }
        Ok(Says::Nothing)
    }

    pub(super) fn source(&self) -> Source {
        match self.says {
            Says::Pidfd => Source::Pidfd,
            Says::Connector(_) => Source::Connector,
            Says::Nothing => Source::Nothing,
        }
    }

    pub(super) fn connector(&self) -> Option<&Connector> {
        match &self.says {
            Says::Connector(connector) => Some(connector),
            Says::Pidfd | Says::Nothing => None,
        }
    }

    /// Keeps messages about a process from now on. False if it has exited by then, so that one may
    /// have been missed.
    pub(super) fn watch(&self, process: &Process, pidfd: &Arc<OwnedFd>) -> bool {
        let Some(connector) = self.connector() else {
            return true;
        };
        connector.watch(process, pidfd);
        let is_alive = !has_exited(pidfd);
        if !is_alive {
            connector.forget(process);
        }
        is_alive
    }

    pub(super) fn forget(&self, process: &Process) {
        if let Some(connector) = self.connector() {
            connector.forget(process);
        }
    }

    /// How a process ended whose pidfd says that it has exited; `None` if that can be found out
    /// only once it has been waited for.
    pub(super) fn of(&self, process: &Process, pidfd: &OwnedFd) -> Option<Ending> {
        if let Some(connector) = self.connector() {
            let zombie = || zombie(process).filter(|ending| *ending != Ending::Exited(0));
            return connector.of(process, zombie).or(Some(Ending::Unknown));
        }
        let is_certain = |ending: &Ending| *ending != Ending::Exited(0);
        let found = ending_of(pidfd).or_else(|| zombie(process).filter(is_certain));
        match self.source() {
            // It may have been waited for in between, and then the pidfd says it now. Its stat may
            // have been hidden.
            Source::Pidfd => found.or_else(|| {
                let ending = || ending_of(pidfd).unwrap_or(Ending::Unknown);
                is_reaped(pidfd).then(ending)
            }),
            Source::Connector | Source::Nothing => found.or(Some(Ending::Unknown)),
        }
    }
}

/// The ending of a zombie, by its stat. It reads as an exit with 0 for those who may not trace it.
pub(super) fn zombie(process: &Process) -> Option<Ending> {
    let stat = Stat::read(process.pid).ok()?;
    let is_it = stat.start == process.start && stat.is_zombie();
    is_it.then(|| Ending::of_status(stat.status))
}

/// The ending of a process that has been waited for, by its pidfd.
fn ending_of(pidfd: &OwnedFd) -> Option<Ending> {
    wait_status(pidfd).map(Ending::of_status)
}
