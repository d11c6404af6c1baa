//! The wait statuses of watched processes, from the messages of the proc connector
//! ([`crate::sys::proc_events`]).
//!
//! Promises: a status belongs to the process that was meant, even if its pid has been used again.
//! After an overflow of the socket, the processes that had died by then without a message are lost:
//! it cannot be found out how they ended.
//!
//! Does not know: sessions, leases, and any process that is not watched.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::core::{Ending, Process};
use crate::logging::limited;
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::pidfd::has_exited;
use crate::sys::proc_events::{Change, ProcEvents};
use crate::sys::timer::Timer;

/// The receive buffer of the socket, in bytes. The kernel's default holds 128 exits.
pub(super) const BUFFER: usize = 8 * 1024 * 1024;

/// The ids of the socket and of its pause in epoll events.
const SOCKET: u64 = u64::MAX - 1;
const PAUSE: u64 = u64::MAX - 2;

/// How long the socket wakes nobody after it has once: a machine may start thousands of processes a
/// second.
const REST: Duration = Duration::from_millis(20);

/// How late a message may be. A pidfd tells of an exit before the connector does.
const LATE: Duration = Duration::from_millis(50);

/// How long after the messages of other threads that of the last one may come.
const SETTLED: Duration = Duration::from_millis(5);

/// How long to wait before reading again while a message is late.
const STEP: Duration = Duration::from_micros(200);

/// The statuses of the processes that are watched.
#[derive(Debug, Default)]
struct Ledger {
    by_process: HashMap<Process, Record>,
    /// The watched process that has a pid now.
    by_pid: HashMap<u32, Process>,
}

#[derive(Debug)]
struct Record {
    pidfd: Arc<OwnedFd>,
    /// The wait status according to the threads that have exited so far, and when it was read.
    status: Option<(i32, Instant)>,
    /// The process has, or had, several threads.
    has_threads: bool,
    /// No further message about the process will come.
    is_lost: bool,
}

/// The content of the messages about a process that has exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Status(i32),
    /// This status, unless a message about another thread changes it before that time.
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

    /// Closes the record of a process whose pid another process has now.
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
            // The other threads have exited, perhaps the first among them: its number has passed to
            // the thread that called exec.
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
                // A signal ends all threads. The late message of a thread that exited before
                // changes nothing.
                if !record.status.is_some_and(|(status, _)| is_killed(status)) {
                    record.status = Some((status, now));
                }
            }
        }
    }

    /// Records that messages were lost: no more will come about the processes that are dead. Those
    /// about the living are still to come.
    fn lose(&mut self, is_over: impl Fn(&OwnedFd) -> bool) {
        for record in self.by_process.values_mut() {
            record.is_lost |= is_over(&record.pidfd);
        }
    }

    fn of(&self, process: &Process) -> Answer {
        let Some(record) = self.by_process.get(process) else {
            return Answer::Lost;
        };
        match record.status {
            Some((status, at)) if record.has_threads && !record.is_lost && !is_killed(status) => {
                Answer::Until(status, at + SETTLED)
            }
            Some((status, _)) => Answer::Status(status),
            None if record.is_lost => Answer::Lost,
            None => Answer::Nothing,
        }
    }
}

fn is_killed(status: i32) -> bool {
    matches!(Ending::of_status(status), Ending::Killed(_))
}

/// The socket, and what its messages have told of watched processes.
#[derive(Debug)]
pub(super) struct Connector {
    events: ProcEvents,
    /// Runs until the socket may wake somebody again.
    pause: Timer,
    ledger: Mutex<Ledger>,
    overflows: AtomicU64,
}

impl Connector {
    /// Subscribes, with a buffer of so many bytes. Without the right to do so, or in a namespace of
    /// its own, this may succeed and no message ever come.
    pub(super) fn open(buffer: usize) -> io::Result<Self> {
        Ok(Self {
            events: ProcEvents::subscribe(buffer)?,
            pause: Timer::monotonic()?,
            ledger: Mutex::default(),
            overflows: AtomicU64::new(0),
        })
    }

    /// Makes the epoll that [`super::Processes::wait`] sleeps in return when there is something to
    /// read.
    pub(super) fn wake_by(&self, epoll: &Epoll) -> io::Result<()> {
        epoll.add(&self.pause, Interest::IN | Interest::ET, PAUSE)?;
        epoll.add(&self.events, Interest::IN | Interest::ONESHOT, SOCKET)
    }

    /// Handles the events that epoll has returned, by their ids, and reads the messages.
    pub(super) fn woken(&self, epoll: &Epoll, ids: impl Iterator<Item = u64>) {
        for id in ids {
            match id {
                SOCKET => self.rest(),
                PAUSE => {
                    epoll.modify(&self.events, Interest::IN | Interest::ONESHOT, SOCKET);
                }
                _ => {}
            }
        }
        self.drain();
    }

    fn rest(&self) {
        // It fails only for times that are none.
        _ = self.pause.start(REST);
    }

    /// Keeps messages about a process from now on. None is missed if its pidfd says after this call
    /// that it has not exited.
    pub(super) fn watch(&self, process: &Process, pidfd: &Arc<OwnedFd>) {
        // The messages that are there may be about the process that had its pid before.
        self.drain();
        self.lock().watch(*process, pidfd);
        let tasks = fs::metadata(format!("/proc/{}/task", process.pid));
        // The directory has two links, and one for each thread.
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

    /// How a watched process that has exited ended; `None` if that is lost. `zombie` reads it from
    /// another source, if it can.
    pub(super) fn of(
        &self,
        process: &Process,
        zombie: impl Fn() -> Option<Ending>,
    ) -> Option<Ending> {
        let patience = Instant::now() + LATE;
        loop {
            self.drain();
            let answer = self.lock().of(process);
            let now = Instant::now();
            match answer {
                Answer::Status(status) => return Some(Ending::of_status(status)),
                Answer::Until(status, at) if at <= now => return Some(Ending::of_status(status)),
                Answer::Lost => return zombie(),
                Answer::Until(..) => {}
                Answer::Nothing if now < patience => {
                    if let Some(ending) = zombie() {
                        return Some(ending);
                    }
                }
                Answer::Nothing => {
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

    /// Reads all messages that have come.
    fn drain(&self) {
        let mut ledger = self.lock();
        let mut has_lost = false;
        loop {
            match self.events.receive() {
                Ok(changes) => {
                    let now = Instant::now();
                    for change in changes {
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
        // The kernel drops messages until all that are there have been read: so this comes last.
        if has_lost {
            self.overflows.fetch_add(1, Relaxed);
            ledger.lose(has_exited);
            limited!(
                None,
                log::Level::Warn,
                "more processes ended than could be read of: those count as exited"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

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
        assert_eq!(ledger.of(&one), Answer::Nothing);
        assert_eq!(ledger.of(&process(11, 1)), Answer::Lost);
        exit(&mut ledger, 10, 10, 9);
        assert_eq!(ledger.of(&one), Answer::Status(9));
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
                    Answer::Status(0x300)
                } else {
                    Answer::Lost
                };
                assert_eq!(ledger.of(&first), before);
                assert_eq!(ledger.of(&second), Answer::Status(15));
                // To forget the first is not to forget the second.
                ledger.forget(&first);
                assert_eq!(ledger.of(&second), Answer::Status(15));
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
        assert!(matches!(ledger.of(&one), Answer::Until(0x500, _)));
        // All are killed, and the event of one that exited comes late.
        let mut ledger = watched(&[one]);
        exit(&mut ledger, 12, 10, 9);
        exit(&mut ledger, 10, 10, 0);
        assert_eq!(ledger.of(&one), Answer::Status(9));
        // Another thread than the first execs: what exited before was not the process.
        let mut ledger = watched(&[one]);
        exit(&mut ledger, 10, 10, 0);
        exit(&mut ledger, 12, 10, 0);
        ledger.apply(Change::Executed { process: 10 }, Instant::now());
        assert_eq!(ledger.of(&one), Answer::Nothing);
        exit(&mut ledger, 10, 10, 0x400);
        assert!(matches!(ledger.of(&one), Answer::Until(0x400, _)));
        // A thread makes no process, and takes no number from one.
        let mut ledger = watched(&[one]);
        let (task, process) = (12, 10);
        ledger.apply(Change::Forked { task, process }, Instant::now());
        assert_eq!(ledger.of(&one), Answer::Nothing);
    }

    #[test]
    fn what_is_lost_is_lost_of_the_dead_alone() {
        let (dead, told, alive) = (process(10, 1), process(11, 1), process(12, 1));
        let mut ledger = watched(&[dead, told]);
        exit(&mut ledger, 11, 11, 9);
        ledger.lose(|_| true);
        assert_eq!(ledger.of(&dead), Answer::Lost);
        assert_eq!(ledger.of(&told), Answer::Status(9));
        let mut ledger = watched(&[alive]);
        ledger.lose(|_| false);
        assert_eq!(ledger.of(&alive), Answer::Nothing);
        exit(&mut ledger, 12, 12, 9);
        assert_eq!(ledger.of(&alive), Answer::Status(9));
    }
}
