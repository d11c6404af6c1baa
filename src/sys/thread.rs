//! Threads: their numbers, names and priorities (gettid(2), tgkill(2), setpriority(2)).
#![allow(unsafe_code)]

use std::fs;
use std::io;

use rustix::process::setpriority_process;
use rustix::thread::gettid;

/// The niceness of threads that let others go first.
const YIELDING: i32 = 10;

/// The number of this thread.
pub(crate) fn number() -> u32 {
    gettid().as_raw_pid().cast_unsigned()
}

/// Sets the name that ps(1) shows for this process. A failure changes nothing else.
pub(crate) fn name_process(name: &str) {
    _ = fs::write("/proc/self/comm", name);
}

/// Lets the other threads of this process, and other processes, go before this thread. A failure
/// costs only time.
pub(crate) fn yield_to_others() {
    // Without a pid it is this thread (setpriority(2), C library/kernel differences).
    _ = setpriority_process(None, YIELDING);
}

/// Whether a task is a thread of a process. An error is no proof that it is.
pub(crate) fn is_of_process(task: u32, pid: u32) -> bool {
    // SAFETY: tgkill takes no pointer, and signal 0 is not sent. rustix has no safe call for it.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, pid, task, 0) };
    // The lack of a right to send signals shows only where there is such a thread.
    sent == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}
