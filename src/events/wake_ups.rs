//! Wake-ups: which waiting requests something has happened for, and the thread that serves them.
//!
//! Promises: whoever is told is served soon: by the thread that waits here or, if there are few, by
//! the one that has told them. Many readers of `events` are served in batches.
//!
//! Lock order: this lock is the last one. Nothing is called while it is held.
//!
//! Does not know: what is served, or how.

use std::cell::{Cell, RefCell};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use crate::core::{NodeId, WaiterId};

/// At most so many waiters are served by the thread that has told them.
const FEW: usize = 4;

thread_local! {
    /// This thread serves those that it tells.
    static SERVES: Cell<bool> = const { Cell::new(false) };
    /// Its work for once they are served.
    static LATER: RefCell<Option<Vec<Work>>> = const { RefCell::new(None) };
}

type Work = Box<dyn FnOnce()>;

/// Does what no caller waits for: in [`WakeUps::serving`] once the waiters are served, else at
/// once.
pub(crate) fn later(work: impl FnOnce() + 'static) {
    let now = LATER.with_borrow_mut(|later| match later {
        Some(later) => {
            later.push(Box::new(work));
            None
        }
        None => Some(work),
    });
    if let Some(work) = now {
        work();
    }
}

/// Who is to be served.
#[derive(Debug, Default)]
pub(crate) struct WakeUp {
    /// Waiters whose state has changed.
    pub waiters: Vec<WaiterId>,
    /// There are new lines.
    pub lines: bool,
}

type Server = Box<dyn Fn(&WakeUp) + Send + Sync>;

/// The wake-ups since the thread was last woken.
#[derive(Default)]
pub(crate) struct WakeUps {
    state: Mutex<State>,
    woken: Condvar,
    /// Serves in any thread.
    server: OnceLock<Server>,
}

#[derive(Debug, Default)]
struct State {
    wake_up: WakeUp,
    is_woken: bool,
    /// It rises with each line and each waiter that is told.
    generation: u64,
    /// Readers of `events` are served from then on.
    rest: Option<Instant>,
}

impl WakeUps {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, state: &mut State) {
        state.is_woken = true;
        self.woken.notify_one();
    }

    /// From now on, this serves whoever is told in [`WakeUps::serving`].
    pub(crate) fn serve_by(&self, server: impl Fn(&WakeUp) + Send + Sync + 'static) {
        _ = self.server.set(Box::new(server));
    }

    /// Does some work, and then serves the waiters that it has told in this thread, which saves the
    /// switch to another. If they are many, the other thread serves them.
    pub(crate) fn serving<T>(&self, work: impl FnOnce() -> T) -> T {
        let server = self.server.get().filter(|_| !SERVES.get());
        let Some(serve) = server else {
            return work();
        };
        SERVES.set(true);
        LATER.set(Some(Vec::new()));
        let result = work();
        SERVES.set(false);
        if let Some(wake_up) = self.few() {
            serve(&wake_up);
        }
        let later = LATER.take();
        later.into_iter().flatten().for_each(|work| work());
        result
    }

    /// The waiters that were told, if they are few. Many are left to the other thread.
    fn few(&self) -> Option<WakeUp> {
        let mut state = self.lock();
        match state.wake_up.waiters.len() {
            0 => None,
            1..=FEW => Some(WakeUp {
                waiters: std::mem::take(&mut state.wake_up.waiters),
                lines: false,
            }),
            _ => {
                self.notify(&mut state);
                None
            }
        }
    }

    /// Tells a waiter whose turn has come or that left its queue.
    pub(crate) fn tell(&self, waiter: WaiterId) {
        let mut state = self.lock();
        state.wake_up.waiters.push(waiter);
        state.generation += 1;
        if !SERVES.get() {
            self.notify(&mut state);
        }
    }

    /// Tells the readers of `events` that there are lines.
    pub(super) fn tell_readers(&self) {
        let mut state = self.lock();
        state.wake_up.lines = true;
        state.generation += 1;
        if state.rest.is_none() {
            self.notify(&mut state);
        }
    }

    /// Wakes the thread: the next moment at which it has to wake by itself has changed.
    pub(crate) fn wake(&self) {
        self.notify(&mut self.lock());
    }

    /// Has a reader served again, for which something may have happened while nobody knew of it.
    pub(crate) fn wake_for(&self, fh: NodeId) {
        let mut state = self.lock();
        match fh {
            NodeId::Reader(_) => state.wake_up.lines = true,
            NodeId::Waiter(waiter) => state.wake_up.waiters.push(waiter),
            _ => {}
        }
        self.notify(&mut state);
    }

    /// A number that is another one once anything has happened.
    pub(crate) fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Readers of `events` are not served before this moment, and then all of them are.
    pub(crate) fn rest(&self, until: Instant) {
        self.lock().rest = Some(until);
    }

    /// Whether a reader of `events` that asks now is served later. There may be lines for it.
    pub(crate) fn rests(&self) -> bool {
        let mut state = self.lock();
        let rests = state.rest.is_some_and(|rest| Instant::now() < rest);
        state.wake_up.lines |= rests;
        rests
    }

    /// Blocks until a wake-up or a deadline.
    pub(crate) fn wait(&self, until: Option<Instant>) -> WakeUp {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.rest.is_some_and(|rest| rest <= now) {
                state.rest = None;
                state.is_woken |= state.wake_up.lines;
            }
            if state.is_woken || until.is_some_and(|until| until <= now) {
                break;
            }
            let next = until.into_iter().chain(state.rest).min();
            state = match next {
                Some(next) => {
                    let waited = self.woken.wait_timeout(state, next - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .woken
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.is_woken = false;
        let rests = state.rest.is_some();
        WakeUp {
            waiters: std::mem::take(&mut state.wake_up.waiters),
            lines: !rests && std::mem::take(&mut state.wake_up.lines),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use super::{FEW, WakeUps, later};
    use crate::core::WaiterId;

    fn waiters(range: std::ops::Range<u64>) -> Vec<WaiterId> {
        range.map(WaiterId).collect()
    }

    /// Wake-ups whose server notes whom it serves.
    fn wake_ups() -> (WakeUps, Arc<Mutex<Vec<WaiterId>>>) {
        let (wake_ups, served) = (WakeUps::default(), Arc::<Mutex<Vec<WaiterId>>>::default());
        let own = Arc::clone(&served);
        wake_ups.serve_by(move |wake_up| {
            assert!(!wake_up.lines);
            own.lock().unwrap().extend(&wake_up.waiters);
        });
        (wake_ups, served)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(5)
    }

    #[test]
    fn a_few_are_served_by_the_thread_that_tells_them_and_many_by_the_other() {
        let (wake_ups, served) = wake_ups();
        let few = waiters(0..FEW as u64);
        wake_ups.serving(|| {
            for waiter in &few {
                wake_ups.tell(*waiter);
            }
            assert!(served.lock().unwrap().is_empty(), "served amid the work");
        });
        assert_eq!(*served.lock().unwrap(), few);
        assert!(wake_ups.wait(Some(soon())).waiters.is_empty());
        let many = waiters(0..FEW as u64 + 1);
        wake_ups.serving(|| {
            for waiter in &many {
                wake_ups.tell(*waiter);
            }
        });
        assert_eq!(*served.lock().unwrap(), few);
        assert_eq!(wake_ups.wait(None).waiters, many);
        // Outside of it, each is for the other thread.
        wake_ups.tell(WaiterId(7));
        assert_eq!(wake_ups.wait(None).waiters, [WaiterId(7)]);
    }

    #[test]
    fn what_nobody_waits_for_is_done_once_they_are_served() {
        let (wake_ups, served) = wake_ups();
        let (done, seen) = (Arc::<Mutex<Vec<usize>>>::default(), Arc::clone(&served));
        let note = || {
            let (done, seen) = (Arc::clone(&done), Arc::clone(&seen));
            later(move || done.lock().unwrap().push(seen.lock().unwrap().len()));
        };
        wake_ups.serving(|| {
            note();
            wake_ups.tell(WaiterId(1));
            note();
        });
        note();
        wake_ups.tell(WaiterId(2));
        assert_eq!(*done.lock().unwrap(), [1, 1, 1]);
    }

    #[test]
    fn readers_are_served_once_the_rest_is_over_and_waiters_at_once() {
        let (wake_ups, _) = wake_ups();
        let over = Instant::now() + Duration::from_millis(50);
        wake_ups.rest(over);
        wake_ups.tell_readers();
        wake_ups.tell(WaiterId(1));
        let woken = wake_ups.wait(None);
        assert_eq!((woken.waiters, woken.lines), (waiters(1..2), false));
        let woken = wake_ups.wait(None);
        assert!(woken.lines && Instant::now() >= over);
        wake_ups.tell_readers();
        assert!(wake_ups.wait(None).lines);
    }
}
