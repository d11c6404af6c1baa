//! Namespaces of pids (`pid_namespaces(7)`, `ioctl_nsfs(2)`).
#![allow(unsafe_code)]

use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

/// The inode number of the pid namespace of a process.
pub(crate) fn of_pids(pid: impl Display) -> io::Result<u64> {
    Ok(fs::metadata(format!("/proc/{pid}/ns/pid"))?.ino())
}

/// The first process of the pid namespace that a process is in, as this one's namespace numbers it.
/// ENOTTY before Linux 6.11.
pub(crate) fn first_process(pid: u32) -> io::Result<u32> {
    /// `_IOR(0xb7, 6, int)` (`NS_GET_PID_FROM_PIDNS` of `include/uapi/linux/nsfs.h`).
    // The type of a request is unsigned long in glibc, and int in musl.
    #[allow(clippy::cast_lossless, clippy::cast_possible_wrap)]
    const FROM_NAMESPACE: libc::Ioctl = 0x8004_B706_u32 as libc::Ioctl;
    let namespace = File::open(format!("/proc/{pid}/ns/pid"))?;
    // SAFETY: the argument is a number, and the descriptor is open. rustix has no ioctl that
    // returns its result and takes a number.
    let first = unsafe { libc::ioctl(namespace.as_raw_fd(), FROM_NAMESPACE, 1) };
    u32::try_from(first).map_err(|_| io::Error::last_os_error())
}
