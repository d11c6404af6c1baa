//! Pending replies: reads that wait, and pollers. Each read is answered once it has data, or after
//! at most a second.
//!
//! The kernel keeps a caller in a request that the server has taken, also after SIGKILL, and fuser
//! does not pass interrupts on. So each pending read is answered within a second, and its reader
//! then sees its signals.
//!
//! A few waiters are served by the thread that has told them, once its own work is done and its
//! caller answered; all others, and the readers of `events`, by a thread of their own. A wake-up
//! costs as much as it concerns, however many wait.
//!
//! Promises: no call to the tree and no reply is made while the list is locked. A read is out of
//! the list while its answer is computed. If a wake-up comes meanwhile, its answer is computed
//! again.
//!
//! Does not know: what the readers wait for.

mod reads;

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fuser::{PollNotifier, ReplyData};

use self::reads::Reads;
use super::errno::errno;
use crate::core::{NodeId, Refusal};
use crate::events::{WakeUp, WakeUps};
use crate::tree::Tree;

/// A read waits for at most this long.
const TICK: Duration = Duration::from_secs(1);
/// Reads time out at multiples of this, so that a thousand readers do not wake the thread a
/// thousand times a second.
const BEAT: Duration = Duration::from_millis(250);

/// If more readers of `events` than this were served at once, they are served again after so many
/// times as long, or after this at most. Else each event would wake all of them, and whoever claims
/// would wait for that.
const CROWD: usize = 2;
const REST: u32 = 4;
const REST_MAX: Duration = Duration::from_millis(250);

/// The handles of readers of `events`.
const READERS: RangeInclusive<NodeId> = NodeId::Reader(0)..=NodeId::Reader(u64::MAX);

/// A read that waits.
struct Waiting {
    /// The thread of the reader.
    task: u32,
    offset: u64,
    size: usize,
    reply: ReplyData,
}

#[derive(Default)]
struct State {
    reads: Reads<Waiting>,
    pollers: BTreeMap<NodeId, PollNotifier>,
}

impl State {
    /// Removes the reads that a wake-up concerns or that are due, and finds the pollers that it
    /// concerns.
    fn concerned(&mut self, wake_up: &WakeUp, now: Instant) -> Concerned {
        let mut told: Vec<NodeId> = wake_up
            .waiters
            .iter()
            .copied()
            .map(NodeId::Waiter)
            .collect();
        told.sort_unstable();
        told.dedup();
        let mut pollers: Vec<PollNotifier> = Vec::new();
        pollers.extend(told.iter().filter_map(|fh| self.pollers.get(fh)).cloned());
        if wake_up.lines {
            let polled = self.pollers.range(READERS);
            pollers.extend(polled.map(|(_, poller)| poller.clone()));
            told.extend(self.reads.within(READERS));
        }
        told.extend(self.reads.due(now));
        // One that is told and due is taken once.
        let taken = told
            .into_iter()
            .flat_map(|fh| self.reads.take(fh).into_iter().map(move |read| (fh, read)));
        Concerned {
            reads: taken.collect(),
            pollers,
        }
    }
}

/// Those that a wake-up concerns.
struct Concerned {
    reads: Vec<(NodeId, (Instant, Waiting))>,
    pollers: Vec<PollNotifier>,
}

/// The list of pending replies, and the thread that answers them.
pub(super) struct PendingReplies {
    tree: Arc<Tree>,
    /// No other lock is taken while this one is held.
    state: Mutex<State>,
    start: Instant,
}

type Answer = Result<Vec<u8>, Refusal>;

impl PendingReplies {
    /// Starts the thread, which ends with the process.
    pub(super) fn start(tree: Arc<Tree>) -> io::Result<Arc<Self>> {
        let pending = Arc::new(Self {
            tree,
            state: Mutex::default(),
            start: Instant::now(),
        });
        let own = Arc::downgrade(&pending);
        pending.wake_ups().serve_by(move |wake_up| {
            if let Some(own) = own.upgrade() {
                own.serve(wake_up, None);
            }
        });
        let own = Arc::clone(&pending);
        thread::Builder::new()
            .name(String::from("replies"))
            .spawn(move || own.run())?;
        Ok(pending)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_ups(&self) -> &WakeUps {
        &self.tree.stream().wake_ups
    }

    /// Answers a read, or adds it to the list.
    pub(super) fn read(
        &self,
        task: u32,
        fh: NodeId,
        offset: u64,
        size: usize,
        may_wait: bool,
        reply: ReplyData,
    ) {
        let before = self.wake_ups().generation();
        let answer = (!may_wait || !self.rests(fh))
            .then(|| self.tree.read_stream(task, fh, offset, size, false))
            .flatten();
        if let Some(answer) = answer.or((!may_wait).then_some(Err(Refusal::Unsettled))) {
            send(reply, answer);
            return;
        }
        let read = Waiting {
            task,
            offset,
            size,
            reply,
        };
        let is_first = self.lock().reads.add(fh, self.next_beat(), read);
        if self.wake_ups().generation() != before {
            self.wake_ups().wake_for(fh);
        } else if is_first {
            // The thread sleeps for longer, or without a deadline.
            self.wake_ups().wake();
        }
    }

    /// Whether a descriptor is ready. Its poller is notified at each wake-up until the descriptor
    /// is closed, since an edge-triggered poller does not poll again.
    pub(super) fn poll(&self, fh: NodeId, notifier: Option<PollNotifier>) -> bool {
        if let Some(notifier) = notifier {
            let kh = notifier.handle();
            let known = self.lock().pollers.insert(fh, notifier);
            if known.is_none_or(|known| known.handle().0 != kh.0) {
                self.tree.polled(fh, kh.0);
            }
        }
        self.tree.is_ready(fh)
    }

    /// Forgets the poller of a descriptor that is closed.
    pub(super) fn close(&self, fh: NodeId) {
        self.lock().pollers.remove(&fh);
    }

    /// The last multiple of [`BEAT`] within a [`TICK`] from now.
    fn next_beat(&self) -> Instant {
        let latest = self.start.elapsed() + TICK;
        let beats = latest.as_nanos() / BEAT.as_nanos();
        let beats = u32::try_from(beats).unwrap_or(u32::MAX);
        self.start + BEAT * beats
    }

    /// Does the work of a request that may free a name, which answers its caller last. Then whoever
    /// has the name now is answered, if that can be told by this thread.
    pub(super) fn serving<T>(&self, work: impl FnOnce() -> T) -> T {
        self.wake_ups().serving(work)
    }

    fn run(&self) {
        loop {
            let until = self.lock().reads.next();
            let wake_up = self.wake_ups().wait(until);
            let start = Instant::now();
            let is_crowd = wake_up.lines && self.lock().reads.within(READERS).len() > CROWD;
            if is_crowd {
                // Those that are served first would ask again meanwhile.
                self.wake_ups().rest(start + REST_MAX);
            }
            let served = self.serve(&wake_up, Some(start));
            if is_crowd {
                let times = if served > CROWD { REST } else { 0 };
                let rest = start.elapsed().saturating_mul(times).min(REST_MAX);
                self.wake_ups().rest(Instant::now() + rest);
            }
        }
    }

    /// Whether a reader of `events` is served later, with many others. One that polls is not: it
    /// was told that a read would not wait.
    fn rests(&self, fh: NodeId) -> bool {
        matches!(fh, NodeId::Reader(_))
            && self.wake_ups().rests()
            && !self.lock().pollers.contains_key(&fh)
    }

    /// Answers the reads that a wake-up concerns, if they have an answer, and notifies the pollers.
    /// With a time, it also answers those that are due by then. Returns how many it has served.
    fn serve(&self, wake_up: &WakeUp, now: Option<Instant>) -> usize {
        // Nothing is due at the start.
        let now = now.unwrap_or(self.start);
        let Concerned { reads, pollers } = self.lock().concerned(wake_up, now);
        let count = reads.len() + pollers.len();
        let before = self.wake_ups().generation();
        let mut left = Vec::new();
        for (fh, (until, read)) in reads {
            let (task, offset, size) = (read.task, read.offset, read.size);
            let tick = until <= now;
            match self.tree.read_stream(task, fh, offset, size, tick) {
                Some(answer) => send(read.reply, answer),
                None => left.push((fh, until, read)),
            }
        }
        for notifier in pollers {
            if let Err(error) = notifier.notify() {
                log::debug!("a poller has gone away: {error}");
            }
        }
        let count = count - left.len();
        if !left.is_empty() {
            self.put_back(left, before);
        }
        count
    }

    /// Adds reads to the list again that have no answer yet. `before` is from before they were
    /// asked for.
    fn put_back(&self, left: Vec<(NodeId, Instant, Waiting)>, before: u64) {
        let waiting: Vec<NodeId> = left.iter().map(|(fh, ..)| *fh).collect();
        let mut state = self.lock();
        let mut is_first = false;
        for (fh, until, read) in left {
            is_first |= state.reads.add(fh, until, read);
        }
        drop(state);
        if self.wake_ups().generation() != before {
            for fh in waiting {
                self.wake_ups().wake_for(fh);
            }
        } else if is_first {
            self.wake_ups().wake();
        }
    }
}

fn send(reply: ReplyData, answer: Answer) {
    match answer.map_err(|refusal| errno(refusal).0) {
        Ok(bytes) => reply.data(&bytes),
        Err(errno) => reply.error(errno),
    }
}
