//! Threads: their numbers, names and priorities (gettid(2), tgkill(2), setpriority(2)).
#![allow(unsafe_code)]

use std::fs;
use std::{io, thread};

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

/// Does work on a thread of its own, which lets all other threads go first. It must hold no lock:
/// whoever waited for that would wait for all others too. A priority that cannot be set costs only
/// time.
pub(crate) fn yielding<R: Send>(name: &str, work: impl FnOnce() -> R + Send) -> io::Result<R> {
    let yields = || {
        // Without a pid it is this thread (setpriority(2), C library/kernel differences).
        _ = setpriority_process(None, YIELDING);
        work()
    };
    thread::scope(|scope| {
        let named = thread::Builder::new().name(name.to_owned());
        let worked = named.spawn_scoped(scope, yields)?.join();
        worked.map_err(|_| io::Error::other("it panicked"))
    })
}

/// Whether a task is a thread of a process. An error is no proof that it is.
pub(crate) fn is_of_process(task: u32, pid: u32) -> bool {
    // SAFETY: tgkill takes no pointer, and signal 0 is not sent. rustix has no safe call for it.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, pid, task, 0) };
    // The lack of a right to send signals shows only where there is such a thread.
    sent == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}
