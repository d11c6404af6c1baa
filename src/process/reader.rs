//! Reads of a process's own memory: its environment and its command line. The process can delay
//! them for as long as it likes, by a page fault that is answered late while another of its threads
//! waits to map memory.
//!
//! Promises: if a process of another user blocks a read, the caller waits for [`PATIENCE`] at most,
//! and further reads of that user's processes fail at once until the blocked one is over. A read
//! that is only slow, since the machine is busy, is waited for.
//!
//! Does not know: the meaning of what is read.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::sys::ids::effective_uid;
use crate::sys::thread::number;

/// How long to wait for a read that is blocked.
const PATIENCE: Duration = Duration::from_millis(50);

/// How many times [`PATIENCE`] to wait for a read that is not blocked but has no processor.
const PATIENCE_MAX: u32 = 100;

/// How long a thread waits for the next read before it ends, and how many threads there are at
/// most.
const IDLE: Duration = Duration::from_secs(10);
const READERS_MAX: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that reads for one uid.
#[derive(Clone, Debug)]
struct Reader {
    jobs: Sender<Job>,
    /// The number of the thread; 0 until it has begun.
    thread: Arc<AtomicU32>,
    is_blocked: Arc<AtomicBool>,
}

/// The threads that read, by uid.
#[derive(Debug, Default)]
pub(super) struct Readers(Arc<Mutex<HashMap<u32, Reader>>>);

fn lock(readers: &Mutex<HashMap<u32, Reader>>) -> MutexGuard<'_, HashMap<u32, Reader>> {
    readers.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Readers {
    /// Runs `read`, which reads the memory of a process that acts as `uid`; `TimedOut` if that is
    /// blocked. For root and the server's own uid it runs in the calling thread: they have other
    /// ways to stop the server.
    pub(super) fn read<T: Send + 'static>(
        &self,
        uid: u32,
        read: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if uid == 0 || uid == effective_uid() {
            return read();
        }
        let reader = self.reader(uid)?;
        if reader.is_blocked.load(SeqCst) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (sender, result) = mpsc::channel();
        let job = Box::new(move || _ = sender.send(read()));
        let sent = reader.jobs.send(job);
        sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        for _ in 0..PATIENCE_MAX {
            match result.recv_timeout(PATIENCE) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) if reader.has_no_processor() => {}
                Err(_) => break,
            }
        }
        reader.is_blocked.store(true, SeqCst);
        // It may have ended in between, and then nothing would reset the flag.
        let ended = result.try_recv();
        if ended.is_ok() {
            reader.is_blocked.store(false, SeqCst);
        }
        ended.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether a process of this uid blocks the reads of that uid's processes.
    pub(super) fn is_blocked(&self, uid: u32) -> bool {
        let readers = lock(&self.0);
        let reader = readers.get(&uid);
        reader.is_some_and(|reader| reader.is_blocked.load(SeqCst))
    }

    fn reader(&self, uid: u32) -> io::Result<Reader> {
        let mut readers = lock(&self.0);
        if let Some(reader) = readers.get(&uid) {
            return Ok(reader.clone());
        }
        if readers.len() >= READERS_MAX {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (jobs, waiting) = mpsc::channel::<Job>();
        let reader = Reader {
            jobs,
            thread: Arc::default(),
            is_blocked: Arc::default(),
        };
        let (own, all) = (reader.clone(), Arc::clone(&self.0));
        // With a sender of its own, the thread would never see that no other is left.
        let (thread, is_blocked) = (own.thread, own.is_blocked);
        thread::Builder::new()
            .name(String::from("reader"))
            .spawn(move || {
                thread.store(number(), SeqCst);
                while let Some(job) = next_job(&waiting, &all, uid) {
                    job();
                    is_blocked.store(false, SeqCst);
                }
            })?;
        readers.insert(uid, reader.clone());
        Ok(reader)
    }
}

/// The next read for a uid. `None` if there is none for [`IDLE`]: then the thread is no longer
/// listed, and ends.
fn next_job(waiting: &Receiver<Job>, all: &Mutex<HashMap<u32, Reader>>, uid: u32) -> Option<Job> {
    if let Ok(job) = waiting.recv_timeout(IDLE) {
        return Some(job);
    }
    let mut all = lock(all);
    let job = waiting.try_recv().ok();
    if job.is_none() {
        all.remove(&uid);
    }
    job
}

impl Reader {
    /// Whether its thread only waits for a processor: proc(5) calls it running.
    fn has_no_processor(&self) -> bool {
        let thread = self.thread.load(SeqCst);
        let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
        let state = stat.ok().and_then(|stat| {
            let (_, rest) = stat.rsplit_once(") ")?;
            rest.chars().next()
        });
        thread == 0 || state == Some('R')
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_blocked_read_fails_for_its_uid_alone_until_it_is_over() {
        let readers = Readers::default();
        let uid = effective_uid() + 1000;
        let (release, wait) = mpsc::channel::<()>();
        let start = Instant::now();
        let blocked = readers.read(uid, move || {
            _ = wait.recv();
            Ok(1)
        });
        assert_eq!(blocked.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= PATIENCE);
        let again = Instant::now();
        let next = readers.read(uid, || Ok(2));
        assert_eq!(next.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(again.elapsed() < PATIENCE, "at once");
        assert_eq!(readers.read(uid + 1, || Ok(3)).unwrap(), 3);
        release.send(()).unwrap();
        while readers.read(uid, || Ok(4)).is_err() {
            thread::yield_now();
        }
    }
}
