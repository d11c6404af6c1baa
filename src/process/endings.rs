//! How a process ended: by an exit, or by a signal.
//!
//! Promises: an answer is right, or it is that nobody can tell yet, or that nobody ever will.
//!
//! Linux 6.15 keeps the wait status of a process for whoever has a pidfd of it from before it was
//! waited for (`PIDFD_INFO_EXIT`). A zombie shows it in the last field of its `stat`, if that may
//! be seen; 0 is also what those see who may not, so it proves nothing. On older kernels the proc
//! connector tells root, outside of all containers.
//!
//! Deliberately ignorant of: what becomes of what the process held.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::sync::Arc;

use super::connector::{BUFFER, Connector};
use super::proc::Stat;
use super::{Info, exited, forked_child, is_reaped, pidfd_info};
use crate::core::{Ending, Process};

/// Where it is said how a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A pidfd says it (Linux 6.15).
    Pidfd,
    /// The kernel tells a listener who is root.
    Connector,
    /// Nothing does, or not of each process.
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

/// Where a server looks for how processes ended. By default wherever its kernel says it; anything
/// else is for tests.
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

impl Search {
    fn admits(self, source: Source) -> bool {
        self.only.is_none_or(|only| only == source)
    }
}

/// How processes ended.
#[derive(Debug)]
pub struct Endings {
    says: Says,
}

#[derive(Debug)]
enum Says {
    Pidfd,
    Connector(Connector),
    Nothing,
}

impl Endings {
    /// Finds out what this kernel says, by children that exit.
    pub(super) fn new(search: Search) -> Self {
        let says = Self::try_out(search).unwrap_or_else(|error| {
            log::warn!("it cannot be tried whether this kernel says how a process ended: {error}");
            Says::Nothing
        });
        Self { says }
    }

    fn try_out(search: Search) -> io::Result<Says> {
        /// Any but 0, which is what there is where nothing is.
        const CODE: u8 = 3;
        if search.admits(Source::Pidfd) {
            let (_, pidfd) = forked_child(CODE, |_, _| {})?;
            if told(&pidfd) == Some(Ending::Exited(CODE)) {
                return Ok(Says::Pidfd);
            }
        }
        if search.admits(Source::Connector)
            && let Ok(connector) = Connector::open(search.buffer.unwrap_or(BUFFER))
        {
            let (child, _pidfd) = forked_child(CODE, |child, pidfd| connector.watch(child, pidfd))?;
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

    /// Keeps from now on what is said of a process. False if it has exited by then: something may
    /// have been missed.
    pub(super) fn watch(&self, process: &Process, pidfd: &Arc<OwnedFd>) -> bool {
        let Some(connector) = self.connector() else {
            return true;
        };
        connector.watch(process, pidfd);
        let is_alive = !exited(pidfd);
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

    /// How a process ended whose pidfd says that it has; `None` for one that nobody has waited for
    /// yet, as long as nobody can tell.
    pub(super) fn of(&self, process: &Process, pidfd: &OwnedFd) -> Option<Ending> {
        if let Some(connector) = self.connector() {
            let zombie = || zombie(process).filter(|ending| *ending != Ending::Exited(0));
            return connector.of(process, zombie).or(Some(Ending::Unknown));
        }
        let is_said = |ending: &Ending| *ending != Ending::Exited(0);
        let said = told(pidfd).or_else(|| zombie(process).filter(is_said));
        match self.source() {
            // One that was waited for in between says it now. A zombie may be hidden.
            Source::Pidfd => said.or_else(|| {
                let ending = || told(pidfd).unwrap_or(Ending::Unknown);
                is_reaped(pidfd).then(ending)
            }),
            Source::Connector | Source::Nothing => said.or(Some(Ending::Unknown)),
        }
    }
}

/// The ending of a zombie, by its stat. An exit with 0 is also what those see who may not look.
pub(super) fn zombie(process: &Process) -> Option<Ending> {
    let stat = Stat::read(process.pid).ok()?;
    let is_it = stat.start == process.start && stat.is_zombie();
    is_it.then(|| Ending::of_status(stat.status))
}

/// The ending of a process that has been waited for, by its pidfd.
fn told(pidfd: &OwnedFd) -> Option<Ending> {
    let info: io::Result<Info> = pidfd_info(pidfd, Info::EXIT);
    let info = info.ok().filter(|info| info.mask & Info::EXIT != 0)?;
    Some(Ending::of_status(info.exit_code))
}
