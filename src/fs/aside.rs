//! Requests that take long, because they wait for a disk or make a text of everything: carried out one after another by a thread
//! of their own, while the one that the kernel gives requests to serves all others.
//!
//! Deliberately ignorant of: what they are.

use std::io;
use std::sync::mpsc::{self, SendError, Sender};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// The thread, which ends with the process.
pub(super) struct Aside(Sender<Job>);

impl Aside {
    pub(super) fn start() -> io::Result<Self> {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name(String::from("aside"))
            .spawn(move || jobs.iter().for_each(|job| job()))?;
        Ok(Self(sender))
    }

    /// Has this done, after what was given before. There are as many at most as there are threads in requests.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        if let Err(SendError(job)) = self.0.send(Box::new(job)) {
            job();
        }
    }
}
