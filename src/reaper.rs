//! The thread that waits for deaths and deadlines.
//!
//! Promises: a death among the roots of sessions, and a deadline, reaches the store within milliseconds, and while nobody
//! dies this thread sleeps. Nobody has to wait for it: whoever asks about a name is answered after a look at its holder.
//!
//! Deliberately ignorant of: rules, fuser.

use std::io;
use std::sync::Arc;
use std::thread;

use crate::process::Processes;
use crate::store::Store;

/// How many leases are recorded as gone before others get their turn at the store.
const SWEEP: usize = 256;

/// Starts the thread; it ends with the process.
pub fn start(processes: Arc<Processes>, store: Arc<Store>) -> io::Result<()> {
    thread::Builder::new()
        .name(String::from("reaper"))
        .spawn(move || run(&processes, &store))
        .map(|_| ())
}

fn run(processes: &Processes, store: &Store) {
    loop {
        match processes.wait() {
            Ok(dead) => dead.into_iter().for_each(|process| store.died(process)),
            Err(error) => {
                log::error!(
                    "no further deaths are seen as they happen, only when somebody asks: {error}"
                );
                return;
            }
        }
        while store.expire(SWEEP) {
            thread::yield_now();
        }
        while store.sweep(SWEEP) {
            thread::yield_now();
        }
    }
}
