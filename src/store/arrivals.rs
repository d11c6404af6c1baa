//! When requests came that are carried out later.
//!
//! Promises: while a request waits for its turn, no deadline passes that was ahead when it came. So a renewal counts
//! from its arrival, whatever the server has to do before.
//!
//! Deliberately ignorant of: what the requests are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::process::{self, Processes};

/// The requests that have come and are not carried out.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<Pending>);

#[derive(Debug, Default)]
struct Pending {
    /// In the order in which they came: the time since boot.
    times: BTreeMap<u64, Duration>,
    next: u64,
    /// A deadline would have passed but for these.
    postponed: bool,
}

/// A request that has come. It is carried out once this is dropped.
#[derive(Debug)]
pub struct Arrival {
    /// When: the time since boot.
    pub at: Duration,
    number: u64,
    arrivals: Arc<Arrivals>,
    processes: Arc<Processes>,
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has come. Once it is carried out, whoever waits for deadlines is woken, if one was postponed.
    pub(super) fn arrive(self: &Arc<Self>, processes: &Arc<Processes>) -> Arrival {
        let mut pending = self.lock();
        let (number, at) = (pending.next, process::now().boot);
        pending.next += 1;
        pending.times.insert(number, at);
        drop(pending);
        Arrival {
            at,
            number,
            arrivals: Arc::clone(self),
            processes: Arc::clone(processes),
        }
    }

    /// The time that deadlines go by.
    pub(super) fn present(&self, now: Duration) -> Duration {
        let pending = self.lock();
        let oldest = pending.times.first_key_value().map(|(_, at)| *at);
        oldest.map_or(now, |at| at.min(now))
    }

    /// Whether a deadline has passed, as far as it is certain that nothing that came before moves it on.
    pub(super) fn is_past(&self, until: Duration) -> bool {
        let now = process::now().boot;
        if until > now {
            return false;
        }
        let mut pending = self.lock();
        let oldest = pending.times.first_key_value().map(|(_, at)| *at);
        let is_past = oldest.is_none_or(|at| until <= at);
        pending.postponed |= !is_past;
        is_past
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut pending = self.arrivals.lock();
        pending.times.remove(&self.number);
        if std::mem::take(&mut pending.postponed) {
            drop(pending);
            self.processes.wake();
        }
    }
}
