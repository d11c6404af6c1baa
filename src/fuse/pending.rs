//! Pending replies: reads that wait, and pollers. Each read is answered once it has data, or after
//! at most a second.
//!
//! The kernel keeps a caller in a request that the server has taken, also after SIGKILL, and fuser
//! does not pass interrupts on. So each pending read is answered within a second, and its reader
//! then sees its signals.
//!
//! Promises: no call to the tree and no reply is made while the list is locked. A read is out of
//! the list while its answer is computed. If a wake-up comes meanwhile, its answer is computed
//! again.
//!
//! Does not know: what the readers wait for.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fuser::{PollNotifier, ReplyData};

use super::errno::errno;
use crate::core::{NodeId, Refusal};
use crate::events::WakeUp;
use crate::tree::Tree;

/// A read waits for at most this long.
const TICK: Duration = Duration::from_secs(1);
/// Reads time out at multiples of this, so that a thousand readers do not wake the thread a
/// thousand times a second.
const BEAT: Duration = Duration::from_millis(250);

/// A read that waits.
struct Waiting {
    /// The thread of the reader.
    task: u32,
    fh: NodeId,
    offset: u64,
    size: usize,
    until: Instant,
    reply: ReplyData,
}

#[derive(Default)]
struct State {
    reads: Vec<Waiting>,
    pollers: HashMap<NodeId, PollNotifier>,
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
        let own = Arc::clone(&pending);
        thread::Builder::new()
            .name(String::from("replies"))
            .spawn(move || own.run())?;
        Ok(pending)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        let before = self.tree.stream().generation();
        let answer = self.tree.read_stream(task, fh, offset, size, false);
        if let Some(answer) = answer.or((!may_wait).then_some(Err(Refusal::Unsettled))) {
            send(reply, answer);
            return;
        }
        let mut state = self.lock();
        let is_first = state.reads.is_empty();
        state.reads.push(Waiting {
            task,
            fh,
            offset,
            size,
            until: self.next_beat(),
            reply,
        });
        drop(state);
        if self.tree.stream().generation() != before {
            self.tree.stream().wake_for(fh);
        } else if is_first {
            // The thread sleeps without a deadline.
            self.tree.stream().wake();
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

    fn run(&self) {
        loop {
            let until = self.lock().reads.iter().map(|read| read.until).min();
            let wake_up = self.tree.stream().wait(until);
            self.serve(&wake_up);
        }
    }

    fn serve(&self, wake_up: &WakeUp) {
        let now = Instant::now();
        let mut state = self.lock();
        let concerned = |read: &mut Waiting| read.until <= now || wake_up.concerns(read.fh);
        let reads: Vec<Waiting> = state.reads.extract_if(.., concerned).collect();
        let pollers = state.pollers.iter();
        let notified = pollers.filter(|(fh, _)| wake_up.concerns(**fh));
        let notified: Vec<PollNotifier> = notified.map(|(_, poller)| poller.clone()).collect();
        drop(state);
        let before = self.tree.stream().generation();
        let mut left = Vec::new();
        for read in reads {
            let tick = read.until <= now;
            let (task, fh, offset, size) = (read.task, read.fh, read.offset, read.size);
            match self.tree.read_stream(task, fh, offset, size, tick) {
                Some(answer) => send(read.reply, answer),
                None => left.push(read),
            }
        }
        if !left.is_empty() {
            let waiting: Vec<NodeId> = left.iter().map(|read| read.fh).collect();
            self.lock().reads.append(&mut left);
            if self.tree.stream().generation() != before {
                for fh in waiting {
                    self.tree.stream().wake_for(fh);
                }
            }
        }
        for notifier in notified {
            if let Err(error) = notifier.notify() {
                log::debug!("a poller has gone away: {error}");
            }
        }
    }
}

fn send(reply: ReplyData, answer: Answer) {
    match answer.map_err(|refusal| errno(refusal).0) {
        Ok(bytes) => reply.data(&bytes),
        Err(errno) => reply.error(errno),
    }
}
