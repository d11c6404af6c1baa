//! Timers that make a descriptor readable (`timerfd_create(2)`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// A timer that is not set until it is told to.
#[derive(Debug)]
pub(crate) struct Timer(OwnedFd);

impl Timer {
    /// One that goes on while the machine is suspended: for [`Timer::set`].
    pub(crate) fn since_boot() -> io::Result<Self> {
        Self::new(TimerfdClockId::Boottime)
    }

    /// One that stops while the machine is suspended: for [`Timer::start`].
    pub(crate) fn monotonic() -> io::Result<Self> {
        Self::new(TimerfdClockId::Monotonic)
    }

    fn new(clock: TimerfdClockId) -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self(timerfd_create(clock, flags)?))
    }

    /// Sets it to a time since boot; `None` stops it.
    pub(crate) fn set(&self, at: Option<Duration>) -> io::Result<()> {
        self.arm(TimerfdTimerFlags::ABSTIME, at)
    }

    /// Sets it to this time from now.
    pub(crate) fn start(&self, after: Duration) -> io::Result<()> {
        self.arm(TimerfdTimerFlags::empty(), Some(after))
    }

    fn arm(&self, flags: TimerfdTimerFlags, at: Option<Duration>) -> io::Result<()> {
        const NEVER: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // A value of zero would stop it.
        let value = at.map_or(NEVER, |at| Timespec {
            tv_sec: at.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: at.subsec_nanos().max(1).into(),
        });
        let spec = Itimerspec {
            it_interval: NEVER,
            it_value: value,
        };
        timerfd_settime(&self.0, flags, &spec)?;
        Ok(())
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
