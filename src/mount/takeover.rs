//! How a new mount deals with an earlier server of the same state directory.
//!
//! umount(2) removes a mount from one mount namespace. A sandbox that has a copy keeps the file
//! system, and with it the server and the locks of the state directory. Such a server is ended. A
//! server is never ended while its mount is there for the processes of its own namespace.
//!
//! Promises: there are never two servers on one state directory, since nothing is mounted before
//! both locks are free; a supervisor that has not mounted yet is not taken for one whose mount is
//! gone.
//!
//! Does not know: how to mount.

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::Plan;
use super::holder::{self, Holder, Who, is_locked};
use super::state_dir::{Lock, StateDir, taken};
use crate::core::failure::Failure;
use crate::sys::mountinfo::{self, Mount};

/// How long a supervisor may be without a server: while it mounts, or after the death of one.
const STARTING: Duration = Duration::from_secs(2);

/// The state of a state directory.
enum Found {
    /// No process holds a lock.
    Free,
    /// The server has lost its mount or its supervisor: it is to be ended.
    Old(Servers),
    /// The server is alive and has these mounts: it is to be left alone.
    Live(Holder, Vec<Mount>),
    /// A process holds a lock, and no server is known.
    Unclear(Failure),
}

/// The processes that serve a mount, with their locks: the supervisor first, since it would start
/// another server.
#[derive(Debug)]
struct Servers(Vec<(PathBuf, Holder)>);

impl Servers {
    /// Those of a state directory: a supervisor, a server that outlived it, or both.
    fn of(state_dir: &StateDir) -> Self {
        let locks = [Lock::Supervisor, Lock::Server].map(|lock| state_dir.lock(lock));
        let holders = locks.into_iter().filter_map(|lock| {
            let holder = holder::of(&lock).filter(|holder| holder.has_device)?;
            Some((lock, holder))
        });
        Self(holders.collect())
    }

    /// Ends them. Whether they are gone.
    fn end(&self) -> bool {
        let mut servers = self.0.iter();
        servers.all(|(lock, holder)| holder::end(lock, holder.who.pid))
    }

    /// Waits for their end. Whether it came in time.
    fn wait(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let left = || until.saturating_duration_since(Instant::now());
        let mut servers = self.0.iter();
        servers.all(|(lock, holder)| holder::wait_gone(lock, holder.who.pid, left()))
    }
}

impl Plan {
    /// Ends the earlier server, if it has no mount here or no supervisor, and tells which processes
    /// that affects. Refuses if one is alive.
    pub(super) fn make_way(&self, tell: &mut dyn FnMut(&str)) -> Result<(), Failure> {
        let until = Instant::now() + STARTING;
        loop {
            match self.find() {
                Found::Free => return Ok(()),
                Found::Old(servers) => self.end(&servers, tell)?,
                Found::Live(live, mounts) => return Err(self.refuse(&live, &mounts)),
                Found::Unclear(problem) if Instant::now() > until => return Err(problem),
                Found::Unclear(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn find(&self) -> Found {
        let [lock, serving] =
            [Lock::Supervisor, Lock::Server].map(|lock| self.state_dir.lock(lock));
        // First the server, then the mounts: a server begins after its mount was made, so that a
        // mount that is not there by then is gone.
        let servers = Servers::of(&self.state_dir);
        let is_kept = is_locked(&lock);
        if !is_kept && !is_locked(&serving) {
            return Found::Free;
        }
        let holder_of = |path| servers.0.iter().find(|(lock, _)| lock == path);
        let server = holder_of(&serving).filter(|_| !is_kept || holder_of(&lock).is_some());
        let Some((_, server)) = server else {
            let path = if is_kept { &lock } else { &serving };
            return Found::Unclear(taken(path, holder::of(path).as_ref()));
        };
        let Ok(mounts) = server.mounts(self.state_dir.path()) else {
            let is_gone = holder::wait_gone(&serving, server.who.pid, Duration::ZERO);
            return if is_gone {
                Found::Unclear(taken(&serving, None))
            } else {
                Found::Live(server.clone(), Vec::new())
            };
        };
        let has_this = mounts.iter().any(|there| there.dir == self.dir);
        if mounts.is_empty() || !is_kept && has_this && server.is_here() {
            Found::Old(servers)
        } else {
            Found::Live(server.clone(), mounts)
        }
    }

    fn end(&self, old: &Servers, tell: &mut dyn FnMut(&str)) -> Result<(), Failure> {
        let dir = self.dir.display();
        let device = old.0.iter().find_map(|(_, holder)| holder.device());
        let beside = device.map(holder::beside).unwrap_or_default();
        if !beside.is_empty() {
            tell(&format!(
                "{dir}: the server from before ends, whose mount other mount namespaces still have: {}; they get ENOTCONN \
                 ('Transport endpoint is not connected') until they are started again",
                holder::list(&beside)
            ));
        }
        if old.end() {
            return Ok(());
        }
        let who: Vec<Who> = old.0.iter().map(|(_, holder)| holder.who.clone()).collect();
        Err(Failure::unavailable(format!(
            "{dir}: the server from before, {}, does not end, not even by SIGKILL; end what it waits for, and mount again",
            holder::list(&who)
        )))
    }

    /// Why a server that is alive prevents this mount, and the way out, which is never a second
    /// server for one directory.
    fn refuse(&self, live: &Holder, mounts: &[Mount]) -> Failure {
        let (dir, who, pid) = (self.dir.display(), &live.who, live.who.pid);
        let Some(there) = mounts.first().map(|mount| mount.dir.display()) else {
            return Failure::unavailable(format!(
                "{dir}: {who} serves its state directory {}, and its mounts cannot be read; mount as root, or end it with \
                 'kill {pid}'",
                self.state_dir.path().display()
            ));
        };
        if !live.is_here() {
            return Failure::unavailable(format!(
                "{dir}: its server, {who}, lives in another mount namespace, where it is mounted on {there}; \
                 use that, or unmount it there with 'nsenter --target {pid} --mount umount {there}'"
            ));
        }
        match live.dir() {
            Some(other) if other != self.dir => Failure::unavailable(format!(
                "{}: the state directory of the mount on {} ({who}); give {dir} one of its own with --state-dir DIR",
                self.state_dir.path().display(),
                other.display()
            )),
            _ => Failure::unavailable(format!(
                "{dir}: its server, {who}, still has it mounted on {there}; unmount that too with 'claimfs umount {there}', \
                 or have the same claims here with 'mount --bind {there} {dir}'"
            )),
        }
    }
}

/// Who else has a file system that is unmounted in one place.
#[derive(Debug)]
pub(crate) struct Leaving {
    /// The processes of other mount namespaces that have it too.
    pub beside: Vec<Who>,
    /// Where else it is mounted in this mount namespace.
    pub here: Vec<PathBuf>,
    /// Its servers, if they are in this mount namespace: they end with the last mount here.
    servers: Option<Servers>,
}

impl Leaving {
    /// Finds that out, before the mount is unmounted.
    pub(crate) fn look(mount: &Mount) -> io::Result<Self> {
        let here = mountinfo::all()?.into_iter();
        let here = here.filter(|other| other.device == mount.device && other.dir != mount.dir);
        let servers = Servers::of(&StateDir::of(mount));
        let is_its = |holder: &Holder| holder.device().is_none_or(|device| device == mount.device);
        let is_here = |(_, holder): &(PathBuf, Holder)| holder.is_here() && is_its(holder);
        let has_any = !servers.0.is_empty() && servers.0.iter().all(is_here);
        Ok(Self {
            beside: holder::beside(&mount.device),
            here: here.map(|other| other.dir).collect(),
            servers: has_any.then_some(servers),
        })
    }

    /// Whether the server ends once this is unmounted.
    pub(crate) fn is_end(&self) -> bool {
        self.here.is_empty() && self.servers.is_some()
    }

    /// Ends the server after the unmounting. It ends by itself if nobody else has the mount.
    /// Whether it is gone.
    pub(crate) fn end(&self, patience: Duration) -> bool {
        let Some(servers) = self.servers.as_ref().filter(|_| self.is_end()) else {
            return true;
        };
        self.beside.is_empty() && servers.wait(patience) || servers.end()
    }
}
