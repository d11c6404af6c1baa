//! What has just happened, for those who wait for it: readers of `events`, and whoever a name was granted to.
//!
//! Promises: a reader gets every line from its opening on, in order, or is told how many it missed; while nobody reads,
//! nothing is kept and nothing is rendered; and a reader that never reads costs nobody more than the lines that are
//! kept.
//!
//! Lock order: this lock is the last, and nothing is called while it is held.
//!
//! Deliberately ignorant of: what a line says, and of fuser.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::lease::WaiterId;

/// How many lines are kept for readers that lag behind.
pub const LINES_MAX: usize = 65_536;

/// What rang the bell.
#[derive(Debug, Default)]
pub struct Ring {
    /// Something has changed for these.
    pub waiters: Vec<WaiterId>,
    /// There are new lines.
    pub lines: bool,
}

/// Lines for readers, and a bell for whoever serves them.
#[derive(Debug, Default)]
pub struct News {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Arc<str>>,
    /// The number of the oldest line that is kept.
    first: u64,
    readers: HashMap<u64, Reader>,
    next_reader: u64,
    rung: bool,
    ring: Ring,
}

/// Where a reader is.
#[derive(Debug)]
struct Reader {
    /// The number of the line that it gets next.
    next: u64,
    /// What it has not got yet of a line that was longer than its buffer.
    rest: Vec<u8>,
    /// Where it is, in bytes from its opening.
    at: u64,
    /// What it got last, to which it may go back: shells and head(1) do when they have read past a line.
    last: Vec<u8>,
}

impl Reader {
    fn seek(&mut self, to: u64) {
        let back = usize::try_from(self.at.saturating_sub(to)).unwrap_or(usize::MAX);
        if let Some(kept) = self.last.len().checked_sub(back) {
            let again = self.last.split_off(kept);
            self.rest.splice(0..0, again);
        }
        self.at = to;
    }
}

impl News {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody would read a line now.
    pub fn has_readers(&self) -> bool {
        !self.lock().readers.is_empty()
    }

    /// Adds lines, for the readers that are there.
    pub fn publish(&self, lines: impl IntoIterator<Item = String>) {
        let mut state = self.lock();
        if state.readers.is_empty() {
            return;
        }
        let before = state.lines.len();
        state.lines.extend(lines.into_iter().map(Arc::from));
        if state.lines.len() == before {
            return;
        }
        while state.lines.len() > LINES_MAX {
            state.lines.pop_front();
            state.first += 1;
        }
        state.ring.lines = true;
        self.ring(&mut state);
    }

    /// Tells that something has changed for a waiter: its turn has come, or it stands in no line any more.
    pub fn tell(&self, waiter: WaiterId) {
        let mut state = self.lock();
        state.ring.waiters.push(waiter);
        self.ring(&mut state);
    }

    /// Rings the bell: whoever waits at it looks around.
    pub fn wake(&self) {
        self.ring(&mut self.lock());
    }

    fn ring(&self, state: &mut State) {
        state.rung = true;
        self.bell.notify_one();
    }

    /// Sleeps until the bell rings, or until a moment.
    pub fn wait(&self, until: Option<Instant>) -> Ring {
        let mut state = self.lock();
        while !state.rung {
            let Some(until) = until else {
                state = self
                    .bell
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.bell.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.rung = false;
        std::mem::take(&mut state.ring)
    }

    /// A reader of what happens from now on.
    pub fn open(&self) -> u64 {
        let mut state = self.lock();
        state.next_reader += 1;
        let (id, next) = (state.next_reader, state.first + state.lines.len() as u64);
        let reader = Reader {
            next,
            rest: Vec::new(),
            at: 0,
            last: Vec::new(),
        };
        state.readers.insert(id, reader);
        id
    }

    /// A reader is gone. With the last of them goes what is kept.
    pub fn close(&self, reader: u64) {
        let mut state = self.lock();
        state.readers.remove(&reader);
        if state.readers.is_empty() {
            state.first += state.lines.len() as u64;
            state.lines = VecDeque::new();
        }
    }

    /// Whether there is something to read.
    pub fn is_ready(&self, reader: u64) -> bool {
        let state = self.lock();
        let end = state.first + state.lines.len() as u64;
        let reader = state.readers.get(&reader);
        reader.is_some_and(|reader| reader.next < end || !reader.rest.is_empty())
    }

    /// At most `size` bytes of what is new to a reader, or of what it has gone back to: whole lines, if its buffer has room
    /// for one. `None` if there is nothing.
    pub fn read(&self, reader: u64, offset: u64, size: usize) -> Option<Vec<u8>> {
        let mut state = self.lock();
        let state = &mut *state;
        let reader = state.readers.get_mut(&reader)?;
        if offset != reader.at {
            reader.seek(offset);
        }
        let mut bytes = std::mem::take(&mut reader.rest);
        if reader.next < state.first {
            let missed = state.first - reader.next;
            reader.next = state.first;
            bytes.extend_from_slice(format!("{{\"missed\":{missed}}}\n").as_bytes());
        }
        let at = usize::try_from(reader.next - state.first).unwrap_or(usize::MAX);
        for line in state.lines.iter().skip(at) {
            if !bytes.is_empty() && bytes.len() + line.len() > size {
                break;
            }
            bytes.extend_from_slice(line.as_bytes());
            reader.next += 1;
        }
        if bytes.len() > size {
            reader.rest = bytes.split_off(size);
        }
        if bytes.is_empty() {
            return None;
        }
        reader.at += bytes.len() as u64;
        reader.last.clone_from(&bytes);
        Some(bytes)
    }
}
