//! Requests that take long, because they wait for a disk, make a text of everything or look at many processes: carried
//! out by threads of their own, while the one that the kernel gives requests to serves all others.
//!
//! Promises: of one uid one request is carried out at a time, and the uids take turns, so that nobody waits for more
//! than one request of each other uid.
//!
//! Deliberately ignorant of: what the requests are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::sys::thread::yield_to_others;

type Job = Box<dyn FnOnce() + Send>;

/// Some threads, which end with the process.
pub(super) struct Workers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
}

/// What is to be done, by uid.
#[derive(Default)]
struct Queue {
    jobs: BTreeMap<u32, VecDeque<Job>>,
    /// The uids of which a request is carried out now.
    busy: BTreeSet<u32>,
    /// The uid whose turn it was last.
    last: u32,
}

impl Queue {
    /// The next request, of the next uid of which none is carried out.
    fn next(&mut self) -> Option<(u32, Job)> {
        let after = self.jobs.range((self.last.saturating_add(1))..);
        let all = after.chain(self.jobs.range(..=self.last));
        let uid = all
            .map(|(uid, _)| *uid)
            .find(|uid| !self.busy.contains(uid))?;
        let jobs = self.jobs.get_mut(&uid)?;
        let job = jobs.pop_front()?;
        if jobs.is_empty() {
            self.jobs.remove(&uid);
        }
        self.busy.insert(uid);
        self.last = uid;
        Some((uid, job))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut queue = self.lock();
        loop {
            let Some((uid, job)) = queue.next() else {
                queue = self
                    .more
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(queue);
            job();
            queue = self.lock();
            queue.busy.remove(&uid);
            // Another thread may have passed over a request of this uid.
            self.more.notify_one();
        }
    }
}

impl Workers {
    /// Starts so many threads. `yields` says that they have the processor when no other thread of the server wants it.
    pub(super) fn start(name: &str, threads: usize, yields: bool) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        for _ in 0..threads {
            let own = Arc::clone(&shared);
            let work = move || {
                if yields {
                    yield_to_others();
                }
                own.work();
            };
            thread::Builder::new().name(name.to_owned()).spawn(work)?;
        }
        Ok(Self(shared))
    }

    /// Has this done for a uid. There are as many requests at most as there are threads in requests.
    pub(super) fn run(&self, uid: u32, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.0.lock();
        queue.jobs.entry(uid).or_default().push_back(Box::new(job));
        drop(queue);
        self.0.more.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;

    #[test]
    fn uids_take_turns_and_each_has_one_request_at_a_time() {
        let mut queue = Queue::default();
        for (uid, count) in [(1, 3), (2, 1), (7, 2)] {
            for _ in 0..count {
                queue
                    .jobs
                    .entry(uid)
                    .or_default()
                    .push_back(Box::new(|| {}));
            }
        }
        let mut next = |done: Option<u32>| {
            done.map(|uid| queue.busy.remove(&uid));
            queue.next().map(|(uid, _)| uid)
        };
        assert_eq!(
            [next(None), next(None), next(None), next(None)],
            [Some(1), Some(2), Some(7), None]
        );
        assert_eq!(next(Some(7)), Some(7));
        assert_eq!(next(Some(1)), Some(1));
        assert_eq!([next(Some(7)), next(Some(2))], [None, None]);
        assert_eq!([next(Some(1)), next(None)], [Some(1), None]);
    }
}
