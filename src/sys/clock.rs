//! Clocks (`clock_gettime(2)`). Every kernel since 2.6.39 has the ones used here, so that no call
//! fails.

use std::time::Duration;

use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};

/// How long ago this machine booted, suspension included.
pub(crate) fn since_boot() -> Duration {
    read(ClockId::Boottime)
}

/// How long the processor has worked for this thread.
pub(crate) fn of_thread() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// The unit of times in `/proc` (proc(5)).
pub(crate) fn ticks_per_second() -> u64 {
    clock_ticks_per_second().max(1)
}

fn read(clock: ClockId) -> Duration {
    // These clocks begin at 0 and run forward.
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}
