//! Reads that wait, and pollers: parked here until there is something for them, and for at most a second.
//!
//! The kernel lets nobody out of a request that the server has taken, not even by SIGKILL, and fuser does not hand on its
//! interrupts. So each parked read is answered within a second, whatever happens, and its reader then sees its signals.
//!
//! Lock order: the lot, then what the tree takes. Nothing is answered while the lot is locked.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fuser::{PollNotifier, ReplyData};

use super::errno::errno;
use crate::core::Refusal;
use crate::events::Ring;
use crate::tree::Tree;

/// How long a read waits at most.
const TICK: Duration = Duration::from_secs(1);
/// Ticks come together at multiples of this, so that a thousand readers wake nobody a thousand times a second.
const BEAT: Duration = Duration::from_millis(250);

struct Parked {
    /// The thread that reads.
    task: u32,
    fh: u64,
    offset: u64,
    size: usize,
    until: Instant,
    reply: ReplyData,
}

#[derive(Default)]
struct State {
    parked: Vec<Parked>,
    pollers: HashMap<u64, PollNotifier>,
}

/// Serves those who wait.
pub(super) struct PendingReplies {
    tree: Arc<Tree>,
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

    /// Answers a read, or parks it.
    pub(super) fn read(
        &self,
        task: u32,
        fh: u64,
        offset: u64,
        size: usize,
        may_wait: bool,
        reply: ReplyData,
    ) {
        let mut state = self.lock();
        let answer = self.tree.read_stream(task, fh, offset, size, false);
        // What happens from here on rings the bell, and the thread of pending replies then finds the read in the lot.
        if let Some(answer) = answer.or((!may_wait).then_some(Err(Refusal::Unsettled))) {
            drop(state);
            send(reply, answer);
            return;
        }
        let is_first = state.parked.is_empty();
        state.parked.push(Parked {
            task,
            fh,
            offset,
            size,
            until: self.next_beat(),
            reply,
        });
        drop(state);
        if is_first {
            self.tree.stream().wake();
        }
    }

    /// Whether a descriptor is ready. Its poller is told whenever something happens, until it is closed: one that is told of edges
    /// alone asks no second time.
    pub(super) fn poll(&self, fh: u64, notifier: Option<PollNotifier>) -> bool {
        let mut state = self.lock();
        let is_ready = self.tree.is_ready(fh);
        if let Some(notifier) = notifier {
            let kh = notifier.handle();
            let known = state.pollers.insert(fh, notifier);
            if known.is_none_or(|known| known.handle().0 != kh.0) {
                self.tree.polled(fh, kh.0);
            }
        }
        is_ready
    }

    /// A descriptor is closed.
    pub(super) fn close(&self, fh: u64) {
        self.lock().pollers.remove(&fh);
    }

    /// The last beat within a tick from now.
    fn next_beat(&self) -> Instant {
        let latest = self.start.elapsed() + TICK;
        let beats = latest.as_nanos() / BEAT.as_nanos();
        let beats = u32::try_from(beats).unwrap_or(u32::MAX);
        self.start + BEAT * beats
    }

    fn run(&self) {
        loop {
            let state = self.lock();
            let until = state.parked.iter().map(|parked| parked.until).min();
            drop(state);
            let ring = self.tree.stream().wait(until);
            self.serve(&ring);
        }
    }

    fn serve(&self, ring: &Ring) {
        let now = Instant::now();
        let mut answers: Vec<(ReplyData, Answer)> = Vec::new();
        let mut state = self.lock();
        let mut index = 0;
        while let Some(parked) = state.parked.get(index) {
            let tick = parked.until <= now;
            let concerned = tick || Tree::concerns(ring, parked.fh);
            let answer = concerned
                .then(|| {
                    self.tree
                        .read_stream(parked.task, parked.fh, parked.offset, parked.size, tick)
                })
                .flatten();
            match answer {
                Some(answer) => answers.push((state.parked.swap_remove(index).reply, answer)),
                None => index += 1,
            }
        }
        let pollers = state.pollers.iter();
        let concerned = pollers.filter(|(fh, _)| Tree::concerns(ring, **fh));
        let told: Vec<PollNotifier> = concerned.map(|(_, poller)| poller.clone()).collect();
        drop(state);
        for (reply, answer) in answers {
            send(reply, answer);
        }
        for notifier in told {
            if let Err(error) = notifier.notify() {
                log::debug!("a poller has gone away: {error}");
            }
        }
    }
}

fn send(reply: ReplyData, answer: Answer) {
    match answer.map_err(errno) {
        Ok(bytes) => reply.data(&bytes),
        Err(errno) => reply.error(errno),
    }
}
