//! Processes as the kernel shows them: pidfds, `/proc`, signals.
//!
//! Promises: a process is called dead only on proof (its pidfd says that its whole thread group has
//! exited, or no process with its pid is the one that was meant), and whatever cannot be found out
//! counts as alive. With `supervisor.rs` and its own `process/connector.rs` the only file with `unsafe`
//! in it: each block is one system call on values that live across it.
//!
//! Deliberately ignorant of: rules. It neither knows what a session is nor what becomes of the
//! dead.
#![allow(unsafe_code)]

mod connector;
mod endings;
mod known;
pub mod proc;
mod reader;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use self::endings::Endings;
pub use self::endings::{Search, Source};
use self::proc::{Stat, Status};
use crate::core::agents::Agent;
use crate::core::identity::{self, Ancestry, Facts, Sight, View};
use crate::core::{Ending, Moment, Process, Refusal};
use crate::logging::limited;

/// `f_type` of a pidfd where the kernel has pidfs (`include/uapi/linux/magic.h`).
const PIDFS_MAGIC: i64 = 0x5049_4446;

/// How many deaths one call of [`Processes::wait`] returns at most.
const WAIT_BATCH: usize = 64;
const WAIT_BATCH_COUNT: i32 = 64;

/// What came of a wish to watch a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// It is alive, and its death will be told.
    Watched,
    /// It is dead already.
    Dead,
}

/// The processes of this machine, and the ones among them whose death matters.
#[derive(Debug)]
pub struct Processes {
    variables: Vec<Arc<str>>,
    agents: Vec<Agent>,
    /// All variables of theirs.
    marks: Vec<Arc<str>>,
    /// The names of all those variables.
    wanted: HashSet<Vec<u8>>,
    booted: SystemTime,
    ticks: u64,
    epoll: OwnedFd,
    wake: OwnedFd,
    timer: OwnedFd,
    watched: Mutex<Watched>,
    known: known::Cache,
    readers: reader::Readers,
    endings: Endings,
    /// Somebody who was told of deaths has not asked again yet.
    is_telling: AtomicBool,
}

/// What the epoll event of [`Processes::wake`] and of the alarm carries instead of the id of a process.
const WAKE: u64 = u64::MAX;

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
    /// The parent that it was first seen with.
    parent: u32,
    /// As a root of a session, which of its execs it is known by: see [`crate::core::Root::environ`].
    environ: u64,
}

impl Processes {
    /// Looks for the session variables `variables`, in this order, and for what these agents leave
    /// behind. `caches` is for tests: nothing but time depends on whether something is kept. So is
    /// any `search` but the default.
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
        // SAFETY: epoll_create1 takes no pointer.
        let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: sysconf takes no pointer.
        let ticks = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) })
            .unwrap_or(100)
            .max(1);
        let booted = SystemTime::now() - uptime()?;
        // SAFETY: eventfd takes no pointer.
        let wake = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: timerfd_create takes no pointer.
        let timer = unsafe {
            libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK)
        };
        let timer = owned(timer)?;
        for fd in [&wake, &timer] {
            epoll_add(&epoll, fd, libc::EPOLLIN | libc::EPOLLET, WAKE)?;
        }
        let endings = Endings::new(search);
        if let Some(connector) = endings.connector() {
            connector.wake_by(&epoll)?;
        }
        Ok(Self {
            variables,
            agents,
            marks,
            wanted,
            booted,
            ticks,
            epoll,
            wake,
            timer,
            watched: Mutex::default(),
            known: known::Cache::new(caches),
            readers: reader::Readers::default(),
            endings,
            is_telling: AtomicBool::new(false),
        })
    }

    /// Lets [`Processes::wait`] return although nobody has died.
    pub fn wake(&self) {
        // SAFETY: eventfd_write takes no pointer. It fails only if the counter is full: then a wake-up is due anyway.
        unsafe { libc::eventfd_write(self.wake.as_raw_fd(), 1) };
    }

    /// Lets [`Processes::wait`] return at this time since boot, although nobody has died; `None` takes it back.
    pub fn alarm(&self, at: Option<Duration>) {
        let mut spec = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
        };
        if let Some(at) = at {
            spec.it_value.tv_sec =
                libc::time_t::try_from(at.as_secs()).unwrap_or(libc::time_t::MAX);
            // A value of zero would take the alarm back.
            spec.it_value.tv_nsec = libc::c_long::from(at.subsec_nanos()).max(1);
        }
        // SAFETY: `spec` outlives the call, and the old value is not asked for.
        let set = unsafe {
            libc::timerfd_settime(
                self.timer.as_raw_fd(),
                libc::TFD_TIMER_ABSTIME,
                &raw const spec,
                std::ptr::null_mut(),
            )
        };
        if set != 0 {
            let error = io::Error::last_os_error();
            limited!(
                None,
                log::Level::Error,
                "no alarm for the next deadline, which is seen when somebody asks: {error}"
            );
        }
    }

    /// The process that a task belongs to: EPERM for a kernel thread, which lives for ever, or for a task that the mount may
    /// not see; EIO if it could not look.
    pub fn of_task(&self, task: u32) -> Result<u32, Refusal> {
        if self.known.is_process(task) {
            return Ok(task);
        }
        // A pidfd is of a process, and of no other task.
        if let Ok(pidfd) = pidfd_open(task) {
            self.known.called(task, pidfd);
            return Ok(task);
        }
        match self.known.relieved(|| Status::read(task)) {
            Ok(status) if !status.kernel => Ok(status.tgid),
            Err(error) if is_shortage(&error) => Err(Refusal::Failed),
            _ => Err(Refusal::NotPermitted),
        }
    }

    /// Whether a process has a signal to see that will end it, though it cannot before it has its answer.
    pub fn is_doomed(&self, pid: u32) -> bool {
        Status::read(pid).is_ok_and(|status| status.doomed)
    }

    /// The caller, the process `pid` that acts as `uid`, and the processes above it: see [`identity::ancestry`].
    pub fn ancestry(&self, task: Option<u32>, pid: u32, uid: u32) -> Result<Ancestry, Refusal> {
        let looking = known::Looking::new(self, uid);
        let ancestry = identity::ancestry(&looking, task, pid, uid);
        if ancestry
            .as_ref()
            .is_err_and(|refusal| *refusal == Refusal::TooDeep)
        {
            looking.was_too_deep();
            limited!(
                Some(uid),
                log::Level::Warn,
                "uid {uid}, pid {pid}: more above it than is looked at (1,024 processes, 16 MiB of environments, 50 ms): \
                 what it claims is refused (E2BIG)"
            );
        }
        ancestry
    }

    /// What there is to know of a process now.
    pub fn facts(&self, pid: u32) -> Sight<Facts> {
        known::Looking::new(self, 0).caller(pid)
    }

    /// Whether a caller, of which `task` waits, and those above it are as they were a moment ago.
    pub fn is_unchanged(&self, task: u32, chain: &[Facts]) -> bool {
        let is_known = |process: &Process, environ: u64| {
            let watched = self.lock();
            let entry = watched.by_process.get(process);
            environ != 0 && entry.is_some_and(|entry| entry.environ == environ)
        };
        self.known.is_unchanged(task, chain, is_known)
    }

    /// Makes sure that a process is watched, or finds it dead. An error leaves it unknown: nothing may be granted that
    /// depends on it. `environ` says by which of its execs it is known from now on, if it is a root of a session.
    pub fn watch(&self, process: &Process, environ: u64) -> io::Result<Watch> {
        let mut watched = self.lock();
        if let Some(entry) = watched.by_process.get_mut(process) {
            if environ != 0 {
                entry.environ = environ;
            }
            return Ok(if exited(&entry.pidfd) {
                Watch::Dead
            } else {
                Watch::Watched
            });
        }
        let (pidfd, parent) = match self.known.pidfd(process) {
            Some((pidfd, _)) if exited(&pidfd) => return Ok(Watch::Dead),
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
        epoll_add(&self.epoll, &pidfd, libc::EPOLLIN | libc::EPOLLONESHOT, id)
            .inspect_err(|_| self.endings.forget(process))?;
        watched.next_id += 1;
        watched.by_id.insert(id, *process);
        watched.by_process.insert(
            *process,
            Entry {
                id,
                pidfd,
                parent,
                environ,
            },
        );
        Ok(Watch::Watched)
    }

    /// The pidfd of a process, and its parent; `None` if it is proven dead.
    fn look_up(&self, process: &Process) -> io::Result<Option<(OwnedFd, u32)>> {
        let pidfd = match self.known.relieved(|| pidfd_open(process.pid)) {
            Ok(pidfd) => pidfd,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(error) => return Err(error),
        };
        let stat = self.known.relieved(|| Stat::read(process.pid));
        // Not yet exited after its stat was read: so that stat was its own. What cannot be read proves nothing.
        if exited(&pidfd) {
            return Ok(None);
        }
        let stat = stat?;
        let same = stat.start == process.start && pidfd_inode(&pidfd)? == process.pidfs;
        Ok(same.then_some((pidfd, stat.parent)))
    }

    /// Stops watching a process.
    pub fn forget(&self, process: &Process) {
        let mut watched = self.lock();
        if let Some(entry) = watched.by_process.remove(process) {
            watched.by_id.remove(&entry.id);
            // It may stay open as that of a process that is known.
            epoll_remove(&self.epoll, &entry.pidfd);
            self.endings.forget(process);
        }
    }

    /// Whether a watched process is proven dead. One that is not watched is not.
    pub fn is_dead(&self, process: &Process) -> bool {
        self.lock()
            .by_process
            .get(process)
            .is_some_and(|entry| exited(&entry.pidfd))
    }

    /// Where it is said how a process ended.
    pub fn source(&self) -> Source {
        self.endings.source()
    }

    /// How often more processes ended than could be read of. Those count as exited.
    pub fn status_overflows(&self) -> u64 {
        let connector = self.endings.connector();
        connector.map_or(0, connector::Connector::overflows)
    }

    /// Whether it is said of each process that is watched how it ended.
    pub fn tells_endings(&self) -> bool {
        self.source() != Source::Nothing
    }

    /// How a process ended that is dead; `None` for a watched one that nobody has waited for, as
    /// long as nobody can tell.
    pub fn ending(&self, process: &Process) -> Option<Ending> {
        let pidfd = self
            .lock()
            .by_process
            .get(process)
            .map(|entry| Arc::clone(&entry.pidfd));
        match pidfd {
            Some(pidfd) => self.endings.of(process, &pidfd),
            // It died while nobody watched it. If nobody has waited for it, its status is left.
            None => Some(endings::zombie(process).unwrap_or(Ending::Unknown)),
        }
    }

    /// Lets [`Processes::wait`] tell of a dead process once more, when somebody has waited for it.
    pub fn watch_reaping(&self, process: &Process) {
        let watched = self.lock();
        if let Some(entry) = watched.by_process.get(process) {
            epoll_modify(&self.epoll, &entry.pidfd, libc::EPOLLONESHOT, entry.id);
        }
    }

    /// Sleeps until watched processes have died, and says which, or until [`Processes::wake`] or the alarm. Each death is told once.
    pub fn wait(&self) -> io::Result<Vec<Process>> {
        self.is_telling.store(false, SeqCst);
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; WAIT_BATCH];
        // SAFETY: `events` has room for the WAIT_BATCH events that the call may write.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                WAIT_BATCH_COUNT,
                -1,
            )
        };
        self.is_telling.store(true, SeqCst);
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted {
                Ok(Vec::new())
            } else {
                Err(error)
            };
        };
        if let Some(connector) = self.endings.connector() {
            connector.woken(&self.epoll, events[..count].iter().map(|event| event.u64));
        }
        let watched = self.lock();
        Ok(events[..count]
            .iter()
            .filter_map(|event| watched.by_id.get(&{ event.u64 }).copied())
            .collect())
    }

    /// Whether watched processes may have died of which [`Processes::wait`] has not told yet, or
    /// only now.
    pub fn has_pending(&self) -> bool {
        self.is_telling.load(SeqCst) || is_readable(&self.epoll)
    }

    /// The parent that a watched process was first seen with.
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

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the system call has just returned this descriptor, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn epoll_add(epoll: &OwnedFd, fd: &OwnedFd, events: i32, id: u64) -> io::Result<()> {
    let mut event = libc::epoll_event {
        events: events.cast_unsigned(),
        u64: id,
    };
    // SAFETY: both descriptors are open and `event` outlives the call, which copies it.
    let added = unsafe {
        libc::epoll_ctl(
            epoll.as_raw_fd(),
            libc::EPOLL_CTL_ADD,
            fd.as_raw_fd(),
            &raw mut event,
        )
    };
    if added == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Changes what epoll waits for. A descriptor that is not there has been removed.
fn epoll_modify(epoll: &OwnedFd, fd: &OwnedFd, events: i32, id: u64) {
    let mut event = libc::epoll_event {
        events: events.cast_unsigned(),
        u64: id,
    };
    let (epoll, fd) = (epoll.as_raw_fd(), fd.as_raw_fd());
    // SAFETY: both descriptors are open and `event` outlives the call, which copies it.
    unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_MOD, fd, &raw mut event) };
}

fn epoll_remove(epoll: &OwnedFd, fd: &OwnedFd) {
    let (epoll, fd) = (epoll.as_raw_fd(), fd.as_raw_fd());
    // SAFETY: both descriptors are open, and this operation takes no event. That it was not there is what is asked for.
    unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
}

fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes no pointer.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    owned(RawFd::try_from(fd).unwrap_or(-1))
}

/// Whether the whole thread group behind a pidfd has exited. An error is no proof.
fn exited(pidfd: &OwnedFd) -> bool {
    is_readable(pidfd)
}

/// Whether a descriptor is readable now. False on an error.
fn is_readable(fd: &OwnedFd) -> bool {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd, which outlives the call.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready == 1 && poll.revents & libc::POLLIN != 0
}

/// Whether the process behind a pidfd has been waited for (Linux 6.11). An error is no proof.
fn is_reaped(pidfd: &OwnedFd) -> bool {
    let mut poll = libc::pollfd {
        fd: pidfd.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: one pollfd, which outlives the call.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready == 1 && poll.revents & libc::POLLHUP != 0
}

/// Whether any of these whole thread groups has exited. An error is no proof.
fn any_exited(pidfds: &[RawFd]) -> bool {
    let mut polls = [libc::pollfd {
        fd: -1,
        events: libc::POLLIN,
        revents: 0,
    }; POLLED_MAX];
    for (poll, pidfd) in polls.iter_mut().zip(pidfds) {
        poll.fd = *pidfd;
    }
    let count = pidfds.len().min(POLLED_MAX) as libc::nfds_t;
    // SAFETY: `polls` has at least as many pollfds as the call is told, and outlives it.
    unsafe { libc::poll(polls.as_mut_ptr(), count, 0) > 0 }
}

/// How many processes above a caller are looked at in one call.
const POLLED_MAX: usize = 32;

/// The inode of a pidfd, unique for the boot; 0 where the kernel has no pidfs.
fn pidfd_inode(pidfd: &OwnedFd) -> io::Result<u64> {
    /// What the first one has said: all are of the same kind.
    static HAS_PIDFS: OnceLock<bool> = OnceLock::new();
    let has_pidfs = if let Some(has_pidfs) = HAS_PIDFS.get() {
        *has_pidfs
    } else {
        let mut fs = MaybeUninit::<libc::statfs>::zeroed();
        // SAFETY: the descriptor is open, and the buffer of the type that the call fills; zeroed is valid for it.
        let told = unsafe {
            let done = libc::fstatfs(pidfd.as_raw_fd(), fs.as_mut_ptr());
            (done == 0).then(|| fs.assume_init().f_type)
        };
        let told = told.ok_or_else(io::Error::last_os_error)?;
        *HAS_PIDFS.get_or_init(|| told == PIDFS_MAGIC)
    };
    if !has_pidfs {
        return Ok(0);
    }
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: as above.
    unsafe {
        let done = libc::fstat(pidfd.as_raw_fd(), stat.as_mut_ptr());
        (done == 0).then(|| stat.assume_init().st_ino)
    }
    .ok_or_else(io::Error::last_os_error)
}

/// Whether an error says that there are no more descriptors or no more memory, and nothing else.
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)
    )
}

/// How many descriptors this process may have open.
pub fn descriptor_limit() -> usize {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` outlives the call.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

/// `struct pidfd_info` of `include/uapi/linux/pidfd.h`, as long as its first version was.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    ids: [u32; 3],
    /// Real uid and gid, effective, saved, file system.
    creds: [u32; 8],
    exit_code: i32,
}

impl Info {
    /// `PIDFD_INFO_CREDS`.
    const CREDS: u64 = 1 << 1;
    /// `PIDFD_INFO_EXIT`: the wait status, once somebody has waited for the process.
    const EXIT: u64 = 1 << 3;
}

/// What the kernel says of the process behind a pidfd, as far as it can: `mask` says what of it is
/// there. ESRCH once that has been waited for and nothing is left, ENOTTY before Linux 6.13.
fn pidfd_info(pidfd: &OwnedFd, mask: u64) -> io::Result<Info> {
    /// `_IOWR(0xFF, 11, struct pidfd_info)` with those 64 bytes.
    const PIDFD_GET_INFO: libc::c_ulong = 0xC040_FF0B;
    let mut info = Info {
        mask,
        ..Info::default()
    };
    // SAFETY: the kernel writes at most the 64 bytes that the request says, and `info` is that long.
    let told = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    if told == 0 {
        Ok(info)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The effective uid behind a pidfd; `None` if the process is gone or the kernel cannot say it
/// (before 6.13).
fn pidfd_euid(pidfd: &OwnedFd) -> Option<u32> {
    let info = pidfd_info(pidfd, Info::CREDS).ok()?;
    (info.mask & Info::CREDS != 0).then_some(info.creds[2])
}

/// A child that has exited with this code and been waited for, and its pidfd. `before` is called
/// before it exits.
fn forked_child(
    code: u8,
    before: impl FnOnce(&Process, &Arc<OwnedFd>),
) -> io::Result<(Process, Arc<OwnedFd>)> {
    // The child reads until nobody can write, so that it does not outlive this process, should that
    // be killed: it would keep the mount's descriptor open.
    let (reader, writer) = io::pipe()?;
    // SAFETY: the child makes three system calls, with a byte of its own and descriptors that are
    // open, and does not return.
    let child = unsafe {
        let child = libc::fork();
        if child == 0 {
            let mut byte = 0_u8;
            libc::close(writer.as_raw_fd());
            libc::read(reader.as_raw_fd(), (&raw mut byte).cast(), 1);
            libc::_exit(code.into());
        }
        child
    };
    let pid = u32::try_from(child).map_err(|_| io::Error::last_os_error())?;
    let process = Process {
        pid,
        start: 0,
        pidfs: 0,
    };
    let pidfd = pidfd_open(pid).map(Arc::new);
    if let Ok(pidfd) = &pidfd {
        before(&process, pidfd);
    }
    drop(writer);
    // SAFETY: the status may be left out, and `child` is a child of this process that nobody else
    // waits for.
    while unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok((process, pidfd?))
}

/// The first process of the pid namespace that a process is in, as this one's namespace numbers it.
/// ENOTTY before Linux 6.11.
fn first_of_namespace(pid: u32) -> io::Result<u32> {
    /// `_IOR(0xb7, 6, int)` (`NS_GET_PID_FROM_PIDNS` of `include/uapi/linux/nsfs.h`).
    const FROM_NAMESPACE: libc::c_ulong = 0x8004_B706;
    let namespace = File::open(format!("/proc/{pid}/ns/pid"))?;
    // SAFETY: the argument is a number, and the descriptor is open.
    let init = unsafe { libc::ioctl(namespace.as_raw_fd(), FROM_NAMESPACE, 1) };
    u32::try_from(init).map_err(|_| io::Error::last_os_error())
}

/// Whether a task is a thread of a process. An error is no proof that it is.
fn is_task_of(task: u32, pid: u32) -> bool {
    // SAFETY: tgkill takes no pointer, and signal 0 is only looked whether it could be sent.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, pid, task, 0) };
    // Who may not send a signal is told so only where there is such a thread.
    sent == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

/// Has memory that is no longer used given back to the machine, where the allocator would keep it: of large texts.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt takes no pointer. A threshold that is set does not grow by itself any more (mallopt(3)).
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
    }
}

/// From how many bytes on a piece of memory is given back once it is free.
#[cfg(target_env = "gnu")]
const LARGE: i32 = 256 * 1024;

/// Lets other threads of this process, and other processes, go first. What is refused changes nothing but time.
pub fn yield_to_others() {
    // SAFETY: setpriority takes no pointer. 0 is this thread (setpriority(2), C library/kernel differences).
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, YIELDING) };
}

/// The niceness of threads that let others go first.
const YIELDING: i32 = 10;

/// The number of this thread.
fn thread_number() -> u32 {
    // SAFETY: gettid takes nothing and cannot fail.
    u32::try_from(unsafe { libc::gettid() }).unwrap_or(0)
}

/// How long the processor has worked for this thread.
fn thread_time() -> Duration {
    clock(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or_default()
}

/// How long ago this machine booted, suspension included.
fn uptime() -> io::Result<Duration> {
    clock(libc::CLOCK_BOOTTIME)
}

fn clock(which: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` outlives the call.
    if unsafe { libc::clock_gettime(which, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    ))
}

/// The present.
pub fn now() -> Moment {
    Moment {
        wall: SystemTime::now(),
        // A clock that every kernel since 2.6.39 has does not fail; if it did, nothing would expire.
        boot: uptime().unwrap_or_default(),
    }
}

/// Which boot of the machine this is, and which processes are seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The kernel's id for it.
    pub id: String,
    /// The inode of this process's pid namespace: pids of another mean other processes.
    pub pidns: u64,
}

impl Boot {
    /// This boot, from here.
    pub fn current() -> io::Result<Self> {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Self {
            id: String::from(id.trim()),
            pidns: fs::metadata("/proc/self/ns/pid")?.ino(),
        })
    }
}

/// Sets room on the disk aside for a file, whose size stays what it is. EOPNOTSUPP where the filesystem cannot.
pub fn set_aside(file: &File, from: u64, length: u64) -> io::Result<()> {
    let bound = |value: u64| libc::off_t::try_from(value).map_err(io::Error::other);
    let (from, length) = (bound(from)?, bound(length)?);
    loop {
        // SAFETY: fallocate takes no pointer, and the descriptor is open.
        let done =
            unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, from, length) };
        if done == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// This process's uid, as files that it creates get it.
pub fn effective_uid() -> u32 {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// This process's real uid and gid: whom its mounts belong to.
pub fn real_ids() -> (u32, u32) {
    // SAFETY: neither takes anything, neither can fail.
    unsafe { (libc::getuid(), libc::getgid()) }
}

/// Lets this process have as many descriptors open as it may at all: each root of a session is one.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` outlives both calls.
    let done = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    if done {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Lets the pid of a child that has ended be its own until it is waited for, as it is by default.
pub fn expect_children() {
    // SAFETY: the default action takes no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Whether the kernel gives each process an inode of its own, which is never used again in this boot.
pub fn has_pidfs() -> bool {
    let own = pidfd_open(std::process::id());
    own.and_then(|own| pidfd_inode(&own))
        .is_ok_and(|inode| inode != 0)
}

/// What ps(1) calls this process.
pub fn call_this(name: &str) {
    // What cannot be written is not worth failing for.
    _ = fs::write("/proc/self/comm", name);
}

/// Makes what this process creates, and what its children do, its user's alone.
pub fn keep_private() {
    // SAFETY: umask takes no pointer and cannot fail.
    unsafe { libc::umask(0o077) };
}

/// Leaves the terminal: a session and a process group of its own.
pub fn leave_terminal() -> io::Result<()> {
    // SAFETY: setsid takes nothing.
    if unsafe { libc::setsid() } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// `si_code` of what the kernel sends (sigaction(2)).
const SI_KERNEL: i32 = 0x80;

/// Signals that are kept until [`Signals::wait`] takes them, in this thread and those that it starts from now on.
#[derive(Clone, Copy)]
pub struct Signals {
    kept: libc::sigset_t,
    before: libc::sigset_t,
}

impl Signals {
    /// Keeps these signals.
    pub fn keep(signals: &[i32]) -> Self {
        let mut kept = MaybeUninit::<libc::sigset_t>::zeroed();
        let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: sigemptyset initialises the set that the other calls use; both sets outlive the calls.
        unsafe {
            libc::sigemptyset(kept.as_mut_ptr());
            for signal in signals {
                libc::sigaddset(kept.as_mut_ptr(), *signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, kept.as_ptr(), before.as_mut_ptr());
            Self {
                kept: kept.assume_init(),
                before: before.assume_init(),
            }
        }
    }

    /// Lets a command be born with the signals that this process was born with: what is kept is inherited otherwise.
    pub fn unkept_in(self, command: &mut Command) {
        let before = self.before;
        // SAFETY: the closure makes one system call, which may be made between fork and exec, on a set that it owns.
        unsafe {
            command.pre_exec(move || {
                libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
                Ok(())
            });
        }
    }

    /// Sleeps until one of them arrives, and says which, and whether the kernel itself sent it: a terminal's go to the whole
    /// foreground, children included.
    pub fn wait(&self) -> (i32, bool) {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        loop {
            // SAFETY: the set is initialised, and `info`, for which zeroes are valid, outlives the call.
            let (signal, info) = unsafe {
                let signal = libc::sigwaitinfo(&raw const self.kept, info.as_mut_ptr());
                (signal, info.assume_init())
            };
            if signal > 0 {
                return (signal, info.si_code == SI_KERNEL);
            }
        }
    }
}

/// Waits until nobody can read any more what is written to a pipe.
pub fn wait_unread(pipe: &impl AsRawFd) -> io::Result<()> {
    let mut poll = libc::pollfd {
        fd: pipe.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    loop {
        // SAFETY: `poll` is one pollfd, as the call is told, and outlives it.
        if unsafe { libc::poll(&raw mut poll, 1, -1) } > 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Waits until a descriptor is readable; false if it is not within this time. A signal is no reason to return.
pub fn wait_readable(fd: &impl AsRawFd, timeout: Option<Duration>) -> io::Result<bool> {
    let until = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        // Rounded up, so that it does not return early.
        let left = left.map_or(-1, |left| {
            i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        });
        let mut poll = libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd, which outlives the call.
        match unsafe { libc::poll(&raw mut poll, 1, left) } {
            0 => return Ok(false),
            1.. => return Ok(true),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// A file whose reads wait in `poll` first. A process that is to end while it waits there ends at once; one that waits in
/// the read of a FUSE file does so when the server has answered.
#[derive(Debug)]
pub struct Polled(pub File);

impl Read for Polled {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        wait_readable(&self.0, None)?;
        self.0.read(buffer)
    }
}

/// How wide and how high the terminal on standard output is, in columns and lines.
pub fn terminal_size() -> Option<(usize, usize)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: `size` outlives the call, and is what this request fills.
    let asked = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    let known = asked == 0 && size.ws_col > 0 && size.ws_row > 0;
    known.then_some((size.ws_col.into(), size.ws_row.into()))
}

/// Sends a signal to a process: to this one, or to a child of it that has not been waited for yet.
pub fn signal(pid: u32, signal: i32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: kill takes no pointer.
    if unsafe { libc::kill(pid, signal) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
