//! The thread that keeps the state directory in its place.
//!
//! Promises: whoever removes the directory of a mount, or moves it or a file of it away, takes
//! nothing from those who hold something: what this server knows is written there again within
//! milliseconds, as it is now. Nothing is written where another claimfs has begun meanwhile.
//!
//! Does not know: what is written.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;

use crate::core::failure::Failure;
use crate::logging::limited;
use crate::mount::state_dir::{Lock, StateDir};
use crate::store::Store;
use crate::sys::inotify::Departures;

/// How long to wait before the next attempt where the directory cannot be made or written.
const AGAIN: Duration = Duration::from_secs(1);

/// How long one who removes a whole tree has for the rest of it.
const REST: Duration = Duration::from_millis(5);

/// The mount is being taken away: its state directory may go.
static ENDS: AtomicBool = AtomicBool::new(false);

/// Writes nothing more, since the mount is about to end.
pub(crate) fn end() {
    ENDS.store(true, SeqCst);
}

/// Starts the thread, which ends with the process. `lock` is the server's. `touched` is called
/// when something has left the directory.
pub(crate) fn start(
    state_dir: StateDir,
    lock: File,
    store: Arc<Store>,
    touched: impl Fn() + Send + 'static,
) -> io::Result<()> {
    let mut kept = Kept {
        state_dir,
        lock,
        store,
    };
    let run = move || {
        loop {
            if let Err(failure) = kept.watch(&touched) {
                limited!(
                    None,
                    log::Level::Error,
                    "{}; should this server die before that is mended, the mount dies with it",
                    failure.text
                );
                thread::sleep(AGAIN);
            }
        }
    };
    let named = thread::Builder::new().name(String::from("state"));
    named.spawn(run).map(|_| ())
}

struct Kept {
    state_dir: StateDir,
    lock: File,
    store: Arc<Store>,
}

impl Kept {
    /// Waits until something is missing, or writes what is missing again.
    fn watch(&mut self, touched: &impl Fn()) -> Result<(), Failure> {
        let dir = self.state_dir.path();
        let watch = match Departures::of(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.state_dir.make()?;
                Departures::of(dir)
            }
            watch => watch,
        };
        // Only now, since it may have gone before it was watched.
        if self.is_whole() {
            match watch.and_then(|watch| watch.wait(&StateDir::VITAL)) {
                Ok(()) => {
                    thread::sleep(REST);
                    touched();
                }
                // Where there may be no further watch, it is looked at from time to time.
                Err(_) => thread::sleep(AGAIN),
            }
            return Ok(());
        }
        if ENDS.load(SeqCst) {
            thread::sleep(AGAIN);
            return Ok(());
        }
        if let Some(fault) = self.state_dir.faults().into_iter().next() {
            return Err(Failure::unavailable(fault));
        }
        if !self.state_dir.has_in_place(Lock::Server, &self.lock) {
            self.lock = self.state_dir.take(Lock::Server)?;
        }
        let shown = dir.display();
        self.store.rewrite().map_err(|error| {
            Failure::unavailable(format!(
                "{shown}: the state directory, or a file in it, is gone and cannot be written again: {error}"
            ))
        })?;
        touched();
        log::error!(
            "{shown}: the state directory, or a file in it, was removed or moved away; what is held is written there again"
        );
        Ok(())
    }

    /// Whether the directory and its files are where they belong.
    fn is_whole(&self) -> bool {
        self.state_dir.has_in_place(Lock::Server, &self.lock) && self.store.is_in_place()
    }
}
