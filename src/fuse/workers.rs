//! Threads for requests that take long: they wait for a disk, render the whole table or read many
//! processes. Meanwhile fuser's own thread serves all other requests.
//!
//! Promises: one request of each uid is carried out at a time, and the uids take turns. So nobody
//! waits for more than one request of each other uid.
//!
//! Does not know: what the requests are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// A pool of threads, which end with the process.
pub(super) struct Workers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
}

#[derive(Default)]
struct Queue {
    /// Requests that wait, by uid.
    jobs: BTreeMap<u32, VecDeque<Job>>,
    /// The uids that have a request carried out now.
    busy: BTreeSet<u32>,
    /// The uid whose turn it was last.
    last: u32,
}

impl Queue {
    /// The next request, of the next uid that has none carried out.
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
    /// Starts a number of threads.
    pub(super) fn start(name: &str, threads: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        for _ in 0..threads {
            let own = Arc::clone(&shared);
            let work = move || own.work();
            thread::Builder::new().name(name.to_owned()).spawn(work)?;
        }
        Ok(Self(shared))
    }

    /// Queues a request of a uid. The queue is bounded by the number of threads that make requests.
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
