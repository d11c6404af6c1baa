//! The processes that hold the locks of a state directory or have a mount in their namespace, and
//! how to end an old server.
//!
//! Promises: a process is signalled only while `/proc` shows that it holds the lock and has
//! `/dev/fuse` open; a process that cannot be read is left alone and is no reason to fail. No file
//! of a mount is touched, so that nothing here can hang.
//!
//! Does not know: when a server is to be ended.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use super::state_dir::{Lock, StateDir, real};
use crate::core::printable;
use crate::supervisor::device::DEVICE;
use crate::sys::mountinfo::{self, FS_TYPE, Mount};
use crate::sys::signals;

/// How long to wait after SIGTERM before SIGKILL. A server that knows that its mount is gone ends
/// within milliseconds, any other within the two pauses of its unmounting.
const TERM: Duration = Duration::from_secs(1);

/// How long to wait until a killed process has released its lock.
const KILL: Duration = Duration::from_secs(5);

/// The end of the path of a file in `/proc/PID/fd` that was removed (proc(5)).
const REMOVED: &str = " (deleted)";

/// How many processes a sentence names at most.
const NAMED_MAX: usize = 5;

/// A process, for a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    /// Its pid in this pid namespace.
    pub pid: u32,
    /// The name that ps(1) shows.
    pub command: String,
}

impl Who {
    fn new(pid: u32) -> Self {
        let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let command = printable(command.trim_end());
        Self { pid, command }
    }

    /// With the first word of its command line as its name: ps(1) may show the number of the
    /// descriptor that a server was started from.
    fn named(pid: u32) -> Self {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let first = words.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = Path::new(OsStr::from_bytes(first)).file_name();
        match name {
            Some(name) => Self {
                pid,
                command: printable(&name.to_string_lossy()),
            },
            None => Self::new(pid),
        }
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "pid {} ({})", self.pid, self.command)
    }
}

/// Processes as a part of a sentence: the first of them, and how many more there are.
pub(crate) fn list(all: &[Who]) -> String {
    let named: Vec<String> = all.iter().take(NAMED_MAX).map(Who::to_string).collect();
    let named = named.join(", ");
    match all.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// The process that has a lock of a state directory.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    /// The process.
    pub who: Who,
    /// The uid that it runs as.
    pub uid: Option<u32>,
    /// It has `/dev/fuse` open, as supervisors and servers do.
    pub has_device: bool,
    /// The device number of its mount, where the kernel tells it (`fuse_connection` in
    /// `/proc/PID/fdinfo`).
    device: Option<String>,
}

impl Holder {
    /// Its mounts with this state directory in its own mount namespace. An error if they cannot be
    /// read.
    pub(crate) fn mounts(&self, state_dir: &Path) -> io::Result<Vec<Mount>> {
        let mut mounts = mountinfo::of(self.who.pid)?;
        mounts.retain(|mount| {
            let is_its = || same_place(&mount.source, state_dir);
            let device = self.device.as_ref();
            mount.fs_type == FS_TYPE && device.map_or_else(is_its, |device| mount.device == *device)
        });
        Ok(mounts)
    }

    /// The device number of its mount, where the kernel tells it.
    pub(crate) fn device(&self) -> Option<&str> {
        self.device.as_deref()
    }

    /// Whether it is in the mount namespace of this process.
    pub(crate) fn is_here(&self) -> bool {
        let own = namespace("self");
        own.is_some() && own == namespace(&self.who.pid.to_string())
    }

    /// The directory of its mount, according to the command line of a server.
    pub(crate) fn dir(&self) -> Option<PathBuf> {
        let words = fs::read(format!("/proc/{}/cmdline", self.who.pid)).ok()?;
        let mut words = words.split(|byte| *byte == 0);
        words.find(|word| *word == b"--")?;
        let dir = words.next().filter(|dir| !dir.is_empty())?;
        Some(PathBuf::from(OsStr::from_bytes(dir)))
    }
}

/// Whether two paths are the same, or lead to the same directory.
pub(crate) fn same_place(one: &Path, other: &Path) -> bool {
    let identity = |path| {
        fs::metadata(path)
            .map(|there| (there.dev(), there.ino()))
            .ok()
    };
    one == other || identity(one).is_some_and(|one| Some(one) == identity(other))
}

/// Whether somebody holds a lock. It takes the lock itself for a moment, which
/// [`super::state_dir::StateDir::take`] waits out.
pub(crate) fn is_locked(lock: &Path) -> bool {
    let tried = open(lock).map(|file| file.try_lock_shared());
    matches!(tried, Ok(Err(TryLockError::WouldBlock)))
}

/// Whether the supervisor of a mount with this state directory has died. The state directory may be
/// out of sight, which says nothing.
pub(crate) fn is_without_supervisor(state_dir: &StateDir) -> bool {
    let lock = state_dir.lock(Lock::Supervisor);
    pid_in(&lock).is_ok() && !is_locked(&lock)
}

/// Opens a lock for reading, without waiting. An error if it is no regular file.
fn open(lock: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(lock)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::from(io::ErrorKind::InvalidInput))
    }
}

/// The pid in the file of a lock.
pub(crate) fn pid_in(lock: &Path) -> io::Result<Option<u32>> {
    let said = io::read_to_string(open(lock)?)?;
    Ok(said.trim().parse().ok())
}

/// The process that holds a lock. `None` also if it cannot be seen from here.
pub(crate) fn of(lock: &Path) -> Option<Holder> {
    let path = fs::canonicalize(lock).ok()?;
    let device = mountinfo::holding(&path).ok()??.device;
    let (major, minor) = device.split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    // In the format of proc_locks(5).
    let inode = fs::metadata(&path).ok()?.ino();
    let lock_id = format!(" {major:02x}:{minor:02x}:{inode} ");
    // The pid in the file is right while that process holds the lock, unless it is of another pid
    // namespace. Another process may hold the lock: then all are searched.
    let said = pid_in(&path).ok()?;
    said.into_iter()
        .chain(pids())
        .find_map(|pid| holder(pid, &lock_id))
}

/// The process, if it holds the lock with this number.
fn holder(pid: u32, lock_id: &str) -> Option<Holder> {
    let mut has_lock = false;
    let mut device = None;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()?.flatten() {
        let info = fs::read_to_string(entry.path()).unwrap_or_default();
        for line in info.lines() {
            has_lock |=
                line.starts_with("lock:") && line.contains(" FLOCK ") && line.contains(lock_id);
            let connection = line.strip_prefix("fuse_connection:");
            device = device.or_else(|| Some(format!("0:{}", connection?.trim())));
        }
    }
    let opened = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let mut opened = opened.filter_map(|entry| fs::read_link(entry.path()).ok());
    has_lock.then(|| Holder {
        who: Who::named(pid),
        uid: fs::metadata(format!("/proc/{pid}"))
            .ok()
            .map(|there| there.uid()),
        has_device: opened.any(|path| path == Path::new(DEVICE)),
        device,
    })
}

/// The device number of the mount that is served on a descriptor of this process, as mountinfo
/// shows it, where the kernel tells it.
pub(crate) fn served_on(device: &impl AsRawFd) -> Option<String> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", device.as_raw_fd())).ok()?;
    connection_in(&info)
}

/// The processes of other mount namespaces that have a mount of this device, in the order of their
/// pids.
pub(crate) fn beside(device: &str) -> Vec<Who> {
    let own = namespace("self");
    // Each namespace is read once.
    let mut has_it: HashMap<PathBuf, bool> = HashMap::new();
    let mut found = Vec::new();
    for pid in pids() {
        let Some(namespace) =
            namespace(&pid.to_string()).filter(|there| Some(there) != own.as_ref())
        else {
            continue;
        };
        let has_it = has_it.entry(namespace).or_insert_with(|| {
            let mounts = mountinfo::of(pid).unwrap_or_default();
            mounts.iter().any(|mount| mount.device == device)
        });
        if *has_it {
            found.push(Who::new(pid));
        }
    }
    found
}

/// The processes that keep a mount busy, as far as this process may look at them: by a working
/// directory, a root directory or an open file in it.
pub(crate) fn users(mount: &Mount) -> Vec<Who> {
    let line = format!("mnt_id:\t{}", mount.id);
    let is_there = |info: &Path| {
        let info = fs::read_to_string(info).unwrap_or_default();
        info.lines().any(|there| there == line)
    };
    // Opening a directory only as a path asks its file system nothing.
    let is_at = |place: &str| {
        let opened = rustix::fs::open(place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        opened.is_ok_and(|fd| is_there(Path::new(&format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))))
    };
    let has_open = |pid: u32| {
        let opened = fs::read_dir(format!("/proc/{pid}/fdinfo"));
        let mut opened = opened.into_iter().flatten().flatten();
        opened.any(|entry| is_there(&entry.path()))
    };
    let uses = |pid: &u32| {
        let places = ["cwd", "root"].map(|place| format!("/proc/{pid}/{place}"));
        *pid != std::process::id() && (places.iter().any(|place| is_at(place)) || has_open(*pid))
    };
    pids().into_iter().filter(uses).map(Who::new).collect()
}

/// The server or supervisor of a mount whose lock was removed from the state directory, as `rm -r`
/// of it does. `None` if nothing was removed, or if it cannot be seen from here.
pub(crate) fn has_lost_files(mount: &Mount, state_dir: &StateDir) -> Option<Who> {
    let locks = [Lock::Supervisor, Lock::Server].map(|lock| {
        let mut lost = real(&state_dir.lock(lock)).into_os_string();
        lost.push(REMOVED);
        PathBuf::from(lost)
    });
    let has_lost = |pid: &u32| {
        let opened = fs::read_dir(format!("/proc/{pid}/fd"));
        let opened = opened.into_iter().flatten().flatten();
        let mut opened = opened.filter_map(|entry| fs::read_link(entry.path()).ok());
        opened.any(|path| locks.contains(&path))
    };
    // Another mount namespace may have another directory at the same path.
    let is_its = |pid: &u32| connection(*pid).is_none_or(|device| device == mount.device);
    let found = pids().into_iter().find(|pid| has_lost(pid) && is_its(pid));
    found.map(Who::named)
}

/// The device number of the mount that a process serves, where the kernel tells it.
fn connection(pid: u32) -> Option<String> {
    let opened = fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()?.flatten();
    let mut infos = opened.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    infos.find_map(|info| connection_in(&info))
}

fn connection_in(info: &str) -> Option<String> {
    let mut lines = info.lines();
    let connection = lines.find_map(|line| line.strip_prefix("fuse_connection:"))?;
    Some(format!("0:{}", connection.trim()))
}

/// The claimfs mounts of other mount namespaces that are not among these, each with the first
/// process that has it.
pub(crate) fn in_other_namespaces(here: &[Mount]) -> Vec<(Who, Mount)> {
    let own = namespace("self");
    let mut namespaces = HashSet::new();
    let mut known: HashSet<String> = here.iter().map(|mount| mount.device.clone()).collect();
    let mut found = Vec::new();
    for pid in pids() {
        let there = namespace(&pid.to_string());
        let Some(there) = there.filter(|there| Some(there) != own.as_ref()) else {
            continue;
        };
        if !namespaces.insert(there) {
            continue;
        }
        for mount in mountinfo::of(pid).unwrap_or_default() {
            if mount.fs_type == FS_TYPE && known.insert(mount.device.clone()) {
                found.push((Who::new(pid), mount));
            }
        }
    }
    found
}

/// Ends a process that holds a lock, if it is a supervisor or a server: by SIGTERM, and by SIGKILL
/// if that does not help. Whether it is gone.
pub(crate) fn end(lock: &Path, pid: u32) -> bool {
    for (number, patience) in [(libc::SIGTERM, TERM), (libc::SIGKILL, KILL)] {
        // Checked again before each signal: the pid is its own only while it holds the lock.
        if of(lock).is_some_and(|holder| holder.who.pid == pid && holder.has_device) {
            _ = signals::send(pid, number);
        }
        if wait_gone(lock, pid, patience) {
            return true;
        }
    }
    false
}

/// Waits until a process no longer holds a lock. Whether that happened in time.
pub(crate) fn wait_gone(lock: &Path, pid: u32, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    while is_locked(lock) && of(lock).is_none_or(|holder| holder.who.pid == pid) {
        if Instant::now() > until {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

/// The mount namespace of a process, if it may be read.
fn namespace(pid: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids
}
