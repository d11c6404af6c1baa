//! The thread that waits for deaths and deadlines.
//!
//! Promises: the store learns of the death of a session's root, and of a deadline, within
//! milliseconds; otherwise this thread sleeps. No answer depends on it: a request about a name is
//! answered after its holder was checked.
//!
//! Does not know: rules, fuser.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::process::Processes;
use crate::store::Store;

/// How many leases are recorded as gone before other threads get their turn at the store.
const SWEEP: usize = 8;

/// How long they have for it. To yield is not enough: this thread would take the lock again before
/// one that waits for it has woken up.
const REST: Duration = Duration::from_micros(20);

/// Starts the thread; it ends with the process.
pub(crate) fn start(processes: Arc<Processes>, store: Arc<Store>) -> io::Result<()> {
    thread::Builder::new()
        .name(String::from("reaper"))
        .spawn(move || run(&processes, &store))
        .map(|_| ())
}

fn run(processes: &Processes, store: &Store) {
    loop {
        match processes.wait() {
            // Who has waited for what they held is answered by this thread.
            Ok(dead) => dead
                .into_iter()
                .for_each(|process| store.serving(|| store.died(process))),
            Err(error) => {
                log::error!(
                    "no further deaths are seen as they happen, only when somebody asks: {error}"
                );
                return;
            }
        }
        while store.expire(SWEEP) {
            thread::sleep(REST);
        }
        while store.sweep(SWEEP) {
            thread::sleep(REST);
        }
    }
}
