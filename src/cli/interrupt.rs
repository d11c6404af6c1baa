//! Signals that end a wait, so that names which were taken are given back before this process ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::thread;

use super::Exit;
use crate::sys::eventfd::EventFd;
use crate::sys::signals::{self, Signals};

/// The signals that ask a command to end.
const ASKING: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// Those signals, of which the first that arrives makes this readable.
pub(super) struct Interrupt {
    signals: Signals,
    arrived: Arc<AtomicI32>,
    wake: Arc<EventFd>,
}

impl Interrupt {
    /// From now on they no longer end this process by themselves. Those that it ignores it goes on
    /// to ignore.
    pub(super) fn new() -> io::Result<Self> {
        let asking = ASKING.into_iter();
        let asking: Vec<i32> = asking
            .filter(|signal| !signals::is_ignored(*signal))
            .collect();
        let (arrived, wake) = (Arc::<AtomicI32>::default(), Arc::new(EventFd::new()?));
        let interrupt = Self {
            signals: Signals::block(&asking),
            arrived: Arc::clone(&arrived),
            wake: Arc::clone(&wake),
        };
        let signals = interrupt.signals;
        if !asking.is_empty() {
            thread::spawn(move || {
                arrived.store(signals.wait().0, SeqCst);
                wake.wake();
            });
        }
        Ok(interrupt)
    }

    /// Whether a signal has arrived.
    pub(super) fn is_over(&self) -> bool {
        self.arrived.load(SeqCst) != 0
    }

    /// Ends this process by the signal that has arrived, as a shell expects of it.
    pub(super) fn end(&self) -> Exit {
        let signal = self.arrived.load(SeqCst);
        self.signals.end_by(signal);
        Exit::Child(u8::try_from(128 + signal).unwrap_or(u8::MAX))
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
