//! Namespaces of pids (`pid_namespaces(7)`, `ioctl_nsfs(2)`).
#![allow(unsafe_code)]

use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::fs::fstat;

/// The inode number of the pid namespace of a process.
pub(crate) fn of_pids(pid: impl Display) -> io::Result<u64> {
    Ok(fs::metadata(format!("/proc/{pid}/ns/pid"))?.ino())
}

/// The same, of the process behind a pidfd. ENOTTY before Linux 6.11, ESRCH once the process has
/// exited.
pub(crate) fn of_pidfd(pidfd: &OwnedFd) -> io::Result<u64> {
    /// `_IO(0xFF, 5)` (`PIDFD_GET_PID_NAMESPACE` of `include/uapi/linux/pidfd.h`).
    // See below.
    #[allow(clippy::cast_lossless, clippy::cast_possible_wrap)]
    const GET_PID_NAMESPACE: libc::Ioctl = 0xFF05_u32 as libc::Ioctl;
    // SAFETY: the argument is a number, and the descriptor is open. See below.
    let namespace = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_PID_NAMESPACE, 0) };
    if namespace < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is a new descriptor, which nothing else owns.
    let namespace = unsafe { OwnedFd::from_raw_fd(namespace) };
    Ok(fstat(&namespace)?.st_ino)
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
