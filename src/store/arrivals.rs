//! The arrival times of requests that are carried out later.
//!
//! Promises: while a request waits, the deadlines of the claims and sessions that it names do not
//! pass, if they were ahead when it came. So a renewal counts from its arrival, however busy the
//! server is. All other deadlines pass on time, and so do all of other uids.
//!
//! Does not know: what the requests ask for.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::core::{Name, SessionId};
use crate::process::{self, Processes};

/// The requests that have come and are not carried out yet. The mutex is taken under the store's,
/// and no other is taken under it.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<Pending>);

#[derive(Debug, Default)]
struct Pending {
    /// In the order in which they came.
    requests: BTreeMap<u64, Request>,
    next: u64,
    /// A deadline would have passed without these.
    postponed: bool,
}

/// The claims and sessions that a request names.
#[derive(Debug, Default)]
pub(crate) struct Concerns {
    /// Claims.
    pub names: Vec<Name>,
    /// Sessions.
    pub sessions: Vec<SessionId>,
}

struct Request {
    /// Its arrival: the time since boot.
    at: Duration,
    uid: u32,
    /// Computed when a deadline of its uid passes before it is carried out.
    concerns: LazyLock<Concerns, Box<dyn FnOnce() -> Concerns + Send>>,
}

impl Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { at, uid, .. } = self;
        write!(f, "a request of uid {uid} at {at:?}")
    }
}

/// A request that has come. Dropped once it was carried out.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Its time: the time since boot.
    pub at: Duration,
    number: u64,
    arrivals: Arc<Arrivals>,
    processes: Arc<Processes>,
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the arrival of a request. Once it was carried out, the reaper wakes if a deadline was
    /// postponed.
    pub(super) fn arrive(
        self: &Arc<Self>,
        processes: &Arc<Processes>,
        uid: u32,
        concerns: impl FnOnce() -> Concerns + Send + 'static,
    ) -> Arrival {
        let mut pending = self.lock();
        let (number, at) = (pending.next, process::now().boot);
        pending.next += 1;
        let concerns = LazyLock::new(Box::new(concerns) as Box<dyn FnOnce() -> Concerns + Send>);
        let request = Request { at, uid, concerns };
        pending.requests.insert(number, request);
        drop(pending);
        Arrival {
            at,
            number,
            arrivals: Arc::clone(self),
            processes: Arc::clone(processes),
        }
    }

    /// Whether a deadline that has passed is postponed: a request of the same uid that came before
    /// it names its claim or session.
    pub(super) fn is_postponed(
        &self,
        until: Duration,
        uid: u32,
        is_named: impl Fn(&Concerns) -> bool,
    ) -> bool {
        let mut pending = self.lock();
        if pending.requests.is_empty() || until > process::now().boot {
            return false;
        }
        let mut earlier = pending.requests.values();
        let is_postponed =
            earlier.any(|that| that.at < until && that.uid == uid && is_named(&that.concerns));
        pending.postponed |= is_postponed;
        is_postponed
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut pending = self.arrivals.lock();
        pending.requests.remove(&self.number);
        if std::mem::take(&mut pending.postponed) {
            drop(pending);
            self.processes.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Arrivals, Concerns};
    use crate::core::Name;
    use crate::process::{self, Processes, Search};

    #[test]
    fn what_waits_puts_off_no_deadline_but_those_of_its_uid_that_it_names() {
        let processes =
            Arc::new(Processes::new(Vec::new(), Vec::new(), false, Search::default()).unwrap());
        let arrivals = Arc::<Arrivals>::default();
        let name = |text: &str| Name::new(text.as_bytes()).unwrap();
        let named = name("named");
        let concerns = move || Concerns {
            names: vec![named],
            sessions: Vec::new(),
        };
        let before = process::now().boot;
        let arrival = arrivals.arrive(&processes, 7, concerns);
        let after = arrival.at + Duration::from_nanos(1);
        while process::now().boot < after {}
        let is_postponed = |until, uid, text: &str| {
            arrivals.is_postponed(until, uid, |that| that.names.contains(&name(text)))
        };
        assert!(is_postponed(after, 7, "named"));
        assert!(!is_postponed(after, 7, "other"));
        assert!(!is_postponed(after, 8, "named"));
        // A deadline that had passed when it came is not postponed, nor is one that is ahead.
        assert!(!is_postponed(before, 7, "named"));
        assert!(!is_postponed(after + Duration::from_secs(60), 7, "named"));
        drop(arrival);
        assert!(!is_postponed(after, 7, "named"));
    }
}
