//! The proc connector: the kernel tells a privileged listener of every process that is created,
//! execs or exits, with its wait status (`include/uapi/linux/cn_proc.h`; since Linux 2.6.15).
//!
//! Promises: a status is that of the process which was meant, whoever has its number by now. After
//! an overflow of the socket, a process that was dead by then, and of which nothing had been read,
//! is lost: nobody can tell how it ended.
//!
//! Deliberately ignorant of: sessions, leases, and any process that nobody watches.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{epoll_add, epoll_modify, exited, owned};
use crate::core::{Ending, Process};
use crate::logging::limited;

/// How much the kernel keeps for this server while it does not read, in bytes. The default holds
/// 128 exits.
pub(super) const BUFFER: usize = 8 * 1024 * 1024;

/// The ids of the socket, and of its pause, in epoll events; all others are of processes.
const SOCKET: u64 = u64::MAX - 1;
const PAUSE: u64 = u64::MAX - 2;

/// How long the socket wakes nobody once it has: a machine may start thousands of processes a
/// second.
const REST: Duration = Duration::from_millis(20);

/// How long an event may be late. The kernel says that a process has exited first by its pidfd, and
/// then here.
const LATE: Duration = Duration::from_millis(50);

/// How long the exit of the last of several threads may be behind those of others.
const SETTLED: Duration = Duration::from_millis(5);

/// How often it is looked for what is late.
const STEP: Duration = Duration::from_micros(200);

/// The longest datagram that is read whole; the kernel's are 76 bytes long.
const DATAGRAM: usize = 4096;

/// `CN_IDX_PROC` and `CN_VAL_PROC`, of which the first is the multicast group too.
const GROUP: u32 = 1;
const LISTEN: u32 = 1;

/// The lengths of `struct nlmsghdr` and of `struct cn_msg`, and where the data of an event begin in
/// `struct proc_event`.
const NETLINK: usize = 16;
const MESSAGE: usize = 20;
const DATA: usize = 16;

/// `NLMSG_DONE`, the type of all that connectors send.
const DONE: u16 = 3;

/// `proc_event.what`.
const FORK: u32 = 1;
const EXEC: u32 = 2;
const EXIT: u32 = 0x8000_0000;

/// A message of the kernel about a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// A task was created: a process, if both numbers are the same, else a thread.
    Forked { task: u32, process: u32 },
    /// A process runs another program, in what is now its only thread.
    Executed { process: u32 },
    /// A task has exited; all of a process that ends together have the same status.
    Exited {
        task: u32,
        process: u32,
        status: i32,
    },
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

/// The messages in a datagram, without those that are cut off or of another kind.
fn parse(mut datagram: &[u8]) -> Vec<Change> {
    let mut changes = Vec::new();
    while let Some(length) = number(datagram, 0) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(message) = datagram.get(..length).filter(|_| length >= NETLINK) else {
            break;
        };
        changes.extend(change(message));
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    changes
}

/// One message, with its `struct nlmsghdr`.
fn change(message: &[u8]) -> Option<Change> {
    let is_event = half(message, 4)? == DONE
        && number(message, NETLINK)? == GROUP
        && number(message, NETLINK + 4)? == LISTEN;
    let length = half(message, NETLINK + 16)?;
    let event = message.get(NETLINK + MESSAGE..)?;
    let event = event.get(..length.into()).filter(|_| is_event)?;
    let field = |index: usize| number(event, DATA + 4 * index);
    Some(match number(event, 0)? {
        FORK => Change::Forked {
            task: field(2)?,
            process: field(3)?,
        },
        EXEC => Change::Executed { process: field(1)? },
        EXIT => Change::Exited {
            task: field(0)?,
            process: field(1)?,
            status: field(2)?.cast_signed(),
        },
        _ => return None,
    })
}

/// The statuses of the processes that are watched.
#[derive(Debug, Default)]
struct Ledger {
    by_process: HashMap<Process, Record>,
    /// Whose number it is, as far as that process is watched.
    by_pid: HashMap<u32, Process>,
}

#[derive(Debug)]
struct Record {
    pidfd: Arc<OwnedFd>,
    /// The wait status, as its threads that have exited so far tell it, and when it was read.
    status: Option<(i32, Instant)>,
    /// It has, or had, several threads.
    has_threads: bool,
    /// Nothing more will be told of it.
    is_lost: bool,
}

/// The answer about a process that has exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Status(i32),
    /// This, if no other thread of it says anything else until then.
    Until(i32, Instant),
    Nothing,
    Lost,
}

impl Ledger {
    fn watch(&mut self, process: Process, pidfd: &Arc<OwnedFd>) {
        if let Some(other) = self.by_pid.insert(process.pid, process)
            && other != process
        {
            self.freeze(&other);
        }
        let pidfd = Arc::clone(pidfd);
        self.by_process.entry(process).or_insert(Record {
            pidfd,
            status: None,
            has_threads: false,
            is_lost: false,
        });
    }

    fn forget(&mut self, process: &Process) {
        self.by_process.remove(process);
        if self.by_pid.get(&process.pid) == Some(process) {
            self.by_pid.remove(&process.pid);
        }
    }

    /// From now on its number is another's.
    fn freeze(&mut self, process: &Process) {
        if let Some(record) = self.by_process.get_mut(process) {
            (record.is_lost, record.has_threads) = (true, false);
        }
    }

    fn of_pid(&mut self, pid: u32) -> Option<&mut Record> {
        self.by_process.get_mut(self.by_pid.get(&pid)?)
    }

    fn apply(&mut self, change: Change, now: Instant) {
        match change {
            Change::Forked { task, process } if task == process => {
                if let Some(before) = self.by_pid.remove(&task) {
                    self.freeze(&before);
                }
            }
            Change::Forked { process, .. } => {
                if let Some(record) = self.of_pid(process) {
                    record.has_threads = true;
                }
            }
            // What exited was its other threads, among them perhaps the first, whose number it has
            // taken.
            Change::Executed { process } => {
                if let Some(record) = self.of_pid(process) {
                    record.status = None;
                }
            }
            Change::Exited {
                task,
                process,
                status,
            } => {
                let Some(record) = self.of_pid(process) else {
                    return;
                };
                record.has_threads |= task != process;
                // A signal ends all threads. One that exited before, and whose event comes after,
                // denies nothing.
                if !record.status.is_some_and(|(status, _)| is_killed(status)) {
                    record.status = Some((status, now));
                }
            }
        }
    }

    /// Messages were lost. Of the dead among those that nothing is known of, nothing more will
    /// come; those of the living will.
    fn lose(&mut self, is_over: impl Fn(&OwnedFd) -> bool) {
        for record in self.by_process.values_mut() {
            record.is_lost |= is_over(&record.pidfd);
        }
    }

    fn of(&self, process: &Process) -> Said {
        let Some(record) = self.by_process.get(process) else {
            return Said::Lost;
        };
        match record.status {
            Some((status, at)) if record.has_threads && !record.is_lost && !is_killed(status) => {
                Said::Until(status, at + SETTLED)
            }
            Some((status, _)) => Said::Status(status),
            None if record.is_lost => Said::Lost,
            None => Said::Nothing,
        }
    }
}

fn is_killed(status: i32) -> bool {
    matches!(Ending::of_status(status), Ending::Killed(_))
}

/// A socket on which the kernel tells of processes.
#[derive(Debug)]
pub(super) struct Connector {
    socket: OwnedFd,
    /// When it may wake somebody again.
    pause: OwnedFd,
    ledger: Mutex<Ledger>,
    overflows: AtomicU64,
}

impl Connector {
    /// Subscribes, with so many bytes of buffer. Without the right to do so, or in a namespace of
    /// its own, it may succeed and nothing ever comes.
    pub(super) fn open(buffer: usize) -> io::Result<Self> {
        // SAFETY: neither call takes a pointer.
        let (socket, pause) = unsafe {
            let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            (
                libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_CONNECTOR),
                libc::timerfd_create(
                    libc::CLOCK_MONOTONIC,
                    libc::TFD_CLOEXEC | libc::TFD_NONBLOCK,
                ),
            )
        };
        let connector = Self {
            socket: owned(socket)?,
            pause: owned(pause)?,
            ledger: Mutex::default(),
            overflows: AtomicU64::new(0),
        };
        connector.enlarge(buffer)?;
        connector.bind()?;
        connector.subscribe()?;
        Ok(connector)
    }

    fn enlarge(&self, buffer: usize) -> io::Result<()> {
        let bytes = libc::c_int::try_from(buffer).unwrap_or(libc::c_int::MAX);
        // SAFETY: the option is an int, which outlives the call, and its length is told.
        let done = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const bytes).cast(),
                length_of(&bytes),
            )
        };
        check(done)
    }

    fn bind(&self) -> io::Result<()> {
        // SAFETY: plain numbers, for which zeroes are valid.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::sa_family_t::try_from(libc::AF_NETLINK).unwrap_or_default();
        address.nl_groups = GROUP;
        // SAFETY: the address outlives the call, and its length is told.
        let done = unsafe {
            libc::bind(
                self.socket.as_raw_fd(),
                (&raw const address).cast(),
                length_of(&address),
            )
        };
        check(done)
    }

    /// Sends `PROC_CN_MCAST_LISTEN`.
    fn subscribe(&self) -> io::Result<()> {
        const LENGTH: usize = NETLINK + MESSAGE + 4;
        let mut message = Vec::with_capacity(LENGTH);
        message.extend(u32::try_from(LENGTH).unwrap_or_default().to_ne_bytes());
        message.extend(DONE.to_ne_bytes());
        // Flags, sequence and sender, who is whoever sends it.
        message.extend([0; 10]);
        message.extend(GROUP.to_ne_bytes());
        message.extend(LISTEN.to_ne_bytes());
        // Sequence and acknowledgement; then the length of what follows, and flags.
        message.extend([0; 8]);
        message.extend(4u16.to_ne_bytes());
        message.extend([0; 2]);
        message.extend(LISTEN.to_ne_bytes());
        // SAFETY: the message outlives the call, and its length is told.
        let sent = unsafe {
            libc::send(
                self.socket.as_raw_fd(),
                message.as_ptr().cast(),
                message.len(),
                0,
            )
        };
        check(i32::try_from(sent).unwrap_or(-1))
    }

    /// Has the epoll that the death watch waits in return when there is something to read.
    pub(super) fn wake_by(&self, epoll: &OwnedFd) -> io::Result<()> {
        epoll_add(epoll, &self.pause, libc::EPOLLIN | libc::EPOLLET, PAUSE)?;
        let events = libc::EPOLLIN | libc::EPOLLONESHOT;
        epoll_add(epoll, &self.socket, events, SOCKET)
    }

    /// That epoll has returned with events of these ids.
    pub(super) fn woken(&self, epoll: &OwnedFd, ids: impl Iterator<Item = u64>) {
        for id in ids {
            match id {
                SOCKET => self.rest(),
                PAUSE => {
                    let events = libc::EPOLLIN | libc::EPOLLONESHOT;
                    epoll_modify(epoll, &self.socket, events, SOCKET);
                }
                _ => {}
            }
        }
        self.drain();
    }

    fn rest(&self) {
        let mut spec: libc::itimerspec =
            // SAFETY: plain numbers, for which zeroes are valid.
            unsafe { std::mem::zeroed() };
        spec.it_value.tv_nsec = REST.subsec_nanos().into();
        // SAFETY: `spec` outlives the call, and the old value is not asked for. It fails only for
        // times that are none.
        unsafe {
            let pause = self.pause.as_raw_fd();
            libc::timerfd_settime(pause, 0, &raw const spec, std::ptr::null_mut());
        }
    }

    /// Keeps from now on what is told of a process, which has not exited if its pidfd says so after
    /// this.
    pub(super) fn watch(&self, process: &Process, pidfd: &Arc<OwnedFd>) {
        // First the messages about the process that had its number before.
        self.drain();
        self.lock().watch(*process, pidfd);
        let tasks = fs::metadata(format!("/proc/{}/task", process.pid));
        // Two links, and one for each thread.
        if tasks.is_ok_and(|tasks| tasks.nlink() > 3)
            && let Some(record) = self.lock().by_process.get_mut(process)
        {
            record.has_threads = true;
        }
    }

    pub(super) fn forget(&self, process: &Process) {
        self.lock().forget(process);
    }

    /// How often messages were lost.
    pub(super) fn overflows(&self) -> u64 {
        self.overflows.load(Relaxed)
    }

    /// How a watched process ended that has exited; `None` if that is lost. `zombie` looks whether
    /// it can be seen elsewhere.
    pub(super) fn of(
        &self,
        process: &Process,
        zombie: impl Fn() -> Option<Ending>,
    ) -> Option<Ending> {
        let patience = Instant::now() + LATE;
        loop {
            self.drain();
            let said = self.lock().of(process);
            let now = Instant::now();
            match said {
                Said::Status(status) => return Some(Ending::of_status(status)),
                Said::Until(status, at) if at <= now => return Some(Ending::of_status(status)),
                Said::Lost => return zombie(),
                Said::Until(..) => {}
                Said::Nothing if now < patience => {
                    if let Some(ending) = zombie() {
                        return Some(ending);
                    }
                }
                Said::Nothing => {
                    limited!(
                        None,
                        log::Level::Warn,
                        "the kernel has not said how process {} ended: that counts as an exit",
                        process.pid
                    );
                    return zombie();
                }
            }
            thread::sleep(STEP);
        }
    }

    /// Reads all that has come.
    fn drain(&self) {
        let mut ledger = self.lock();
        let mut has_lost = false;
        let mut buffer = [0; DATAGRAM];
        loop {
            match self.receive(&mut buffer) {
                Ok(datagram) => {
                    let now = Instant::now();
                    for change in parse(datagram) {
                        ledger.apply(change, now);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => has_lost = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    limited!(
                        None,
                        log::Level::Error,
                        "how processes end cannot be read from the proc connector: {error}"
                    );
                    has_lost = true;
                    break;
                }
            }
        }
        // Messages are lost until all that is there has been read: so this comes last.
        if has_lost {
            self.overflows.fetch_add(1, Relaxed);
            ledger.lose(exited);
            limited!(
                None,
                log::Level::Warn,
                "more processes ended than could be read of: those count as exited"
            );
        }
    }

    /// The next datagram; an empty one if it is not from the kernel.
    fn receive<'a>(&self, buffer: &'a mut [u8; DATAGRAM]) -> io::Result<&'a [u8]> {
        // SAFETY: plain numbers, for which zeroes are valid.
        let mut from: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        let mut length = length_of(&from);
        // SAFETY: buffer and address outlive the call, which is told their lengths.
        let got = unsafe {
            libc::recvfrom(
                self.socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
                (&raw mut from).cast(),
                &raw mut length,
            )
        };
        let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        Ok(buffer
            .get(..got)
            .filter(|_| from.nl_pid == 0)
            .unwrap_or_default())
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(done: i32) -> io::Result<()> {
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The length of a value, as the socket calls want it.
fn length_of<T>(value: &T) -> libc::socklen_t {
    libc::socklen_t::try_from(size_of_val(value)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// A message as the kernel sends it: `struct nlmsghdr`, `struct cn_msg`, `struct proc_event`.
    fn message(what: u32, fields: [u32; 6]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |number: u32| bytes.extend(number.to_ne_bytes());
        put(76);
        // NLMSG_DONE, no flags; sequence; the kernel.
        put(3);
        put(7);
        put(0);
        // CN_IDX_PROC, CN_VAL_PROC; sequence; no acknowledgement; 40 bytes.
        for number in [1, 1, 7, 0, 40] {
            put(number);
        }
        // The processor, and the time.
        for number in [what, 1, 0, 0] {
            put(number);
        }
        fields.into_iter().for_each(put);
        bytes
    }

    const EXITED: [u32; 6] = [12, 10, 0x0300, 17, 1, 1];

    #[test]
    fn messages_are_read_as_the_kernel_writes_them() {
        let fork = message(FORK, [1, 1, 12, 10, 0, 0]);
        let exec = message(EXEC, [10, 10, 0, 0, 0, 0]);
        let exit = message(EXIT, EXITED);
        let (task, process) = (12, 10);
        let exited = Change::Exited {
            task,
            process,
            status: 0x300,
        };
        assert_eq!(parse(&fork), [Change::Forked { task, process }]);
        assert_eq!(parse(&exec), [Change::Executed { process }]);
        assert_eq!(parse(&exit), [exited]);
        let all = [fork, exec, exit].concat();
        assert_eq!(
            parse(&all),
            [
                Change::Forked { task, process },
                Change::Executed { process },
                exited
            ]
        );
    }

    #[test]
    fn a_message_that_is_cut_off_or_of_another_kind_says_nothing() {
        let exit = message(EXIT, EXITED);
        for length in 0..exit.len() {
            assert_eq!(parse(&exit[..length]), [], "{length} bytes");
        }
        let changed = |at: usize, value: u8| {
            let mut other = exit.clone();
            other[at] = value;
            parse(&other)
        };
        let little =
            |at: usize, value: u8| cfg!(target_endian = "big") || changed(at, value).is_empty();
        // Longer and shorter than it is, no length at all, and one that leads nowhere.
        for length in [0, 1, 15, 16, 35, 36, 60, 63, 77, 255] {
            assert!(little(0, length), "{length}");
        }
        assert!(little(4, 2), "an error");
        assert!(little(16, 2), "another connector");
        assert!(little(20, 2), "another value of it");
        for length in [0, 1, 16, 27, 41, 255] {
            assert!(little(32, length), "{length} bytes of event");
        }
        // PROC_EVENT_NONE is the answer to the subscription; UID, PTRACE and COREDUMP tell nothing
        // that is asked for.
        for what in [0, 4, 0x100, 0x4000_0000, 0x8000_0001] {
            assert_eq!(parse(&message(what, EXITED)), []);
        }
        // What is behind a message of another kind is read; what is behind a good one and none does
        // no harm.
        let mut both = message(0, EXITED);
        both.extend(&exit);
        both.extend([0; 3]);
        assert_eq!(parse(&both).len(), 1);
    }

    fn process(pid: u32, start: u64) -> Process {
        Process {
            pid,
            start,
            pidfs: start,
        }
    }

    fn watched(processes: &[Process]) -> Ledger {
        let null = std::fs::File::open("/dev/null").unwrap();
        let pidfd = Arc::new(OwnedFd::from(null));
        let mut ledger = Ledger::default();
        for process in processes {
            ledger.watch(*process, &pidfd);
        }
        ledger
    }

    fn exit(ledger: &mut Ledger, task: u32, process: u32, status: i32) {
        let change = Change::Exited {
            task,
            process,
            status,
        };
        ledger.apply(change, Instant::now());
    }

    #[test]
    fn what_is_not_watched_is_not_kept() {
        let one = process(10, 1);
        let mut ledger = watched(&[one]);
        exit(&mut ledger, 11, 11, 9);
        assert_eq!(ledger.of(&one), Said::Nothing);
        assert_eq!(ledger.of(&process(11, 1)), Said::Lost);
        exit(&mut ledger, 10, 10, 9);
        assert_eq!(ledger.of(&one), Said::Status(9));
        ledger.forget(&one);
        assert!(ledger.by_process.is_empty() && ledger.by_pid.is_empty());
    }

    #[test]
    fn a_number_that_is_given_again_takes_nothing_from_who_had_it() {
        let (first, second) = (process(10, 1), process(10, 2));
        let fork = Change::Forked {
            task: 10,
            process: 10,
        };
        for had_status in [false, true] {
            // It is told of, or found out by who is watched next.
            for is_told in [false, true] {
                let mut ledger = watched(&[first]);
                if had_status {
                    exit(&mut ledger, 10, 10, 0x300);
                }
                if is_told {
                    ledger.apply(fork, Instant::now());
                    exit(&mut ledger, 10, 10, 9);
                }
                let pidfd = Arc::clone(&ledger.by_process[&first].pidfd);
                ledger.watch(second, &pidfd);
                exit(&mut ledger, 10, 10, 15);
                let before = if had_status {
                    Said::Status(0x300)
                } else {
                    Said::Lost
                };
                assert_eq!(ledger.of(&first), before);
                assert_eq!(ledger.of(&second), Said::Status(15));
                // To forget the first is not to forget the second.
                ledger.forget(&first);
                assert_eq!(ledger.of(&second), Said::Status(15));
                assert_eq!(ledger.by_pid.len(), 1);
            }
        }
    }

    #[test]
    fn of_threads_a_signal_counts_and_else_the_last() {
        let one = process(10, 1);
        let mut ledger = watched(&[one]);
        // The first thread exits, another after it.
        exit(&mut ledger, 10, 10, 0);
        exit(&mut ledger, 12, 10, 0x500);
        assert!(matches!(ledger.of(&one), Said::Until(0x500, _)));
        // All are killed, and the event of one that exited comes late.
        let mut ledger = watched(&[one]);
        exit(&mut ledger, 12, 10, 9);
        exit(&mut ledger, 10, 10, 0);
        assert_eq!(ledger.of(&one), Said::Status(9));
        // Another thread than the first execs: what exited before was not the process.
        let mut ledger = watched(&[one]);
        exit(&mut ledger, 10, 10, 0);
        exit(&mut ledger, 12, 10, 0);
        ledger.apply(Change::Executed { process: 10 }, Instant::now());
        assert_eq!(ledger.of(&one), Said::Nothing);
        exit(&mut ledger, 10, 10, 0x400);
        assert!(matches!(ledger.of(&one), Said::Until(0x400, _)));
        // A thread makes no process, and takes no number from one.
        let mut ledger = watched(&[one]);
        let (task, process) = (12, 10);
        ledger.apply(Change::Forked { task, process }, Instant::now());
        assert_eq!(ledger.of(&one), Said::Nothing);
    }

    #[test]
    fn what_is_lost_is_lost_of_the_dead_alone() {
        let (dead, told, alive) = (process(10, 1), process(11, 1), process(12, 1));
        let mut ledger = watched(&[dead, told]);
        exit(&mut ledger, 11, 11, 9);
        ledger.lose(|_| true);
        assert_eq!(ledger.of(&dead), Said::Lost);
        assert_eq!(ledger.of(&told), Said::Status(9));
        let mut ledger = watched(&[alive]);
        ledger.lose(|_| false);
        assert_eq!(ledger.of(&alive), Said::Nothing);
        exit(&mut ledger, 12, 12, 9);
        assert_eq!(ledger.of(&alive), Said::Status(9));
    }
}
