//! Pidfds: descriptors of processes (`pidfd_open(2)`).
//!
//! Promises: a process is called exited only if its pidfd says so of its whole thread group; an
//! error is no proof.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{fstat, fstatfs};
use rustix::io::Errno;
use rustix::ioctl::{Updater, ioctl};
use rustix::process::{PidfdFlags, pidfd_open};

use super::poll;

/// `f_type` of a pidfd where the kernel has pidfs (`include/uapi/linux/magic.h`).
const PIDFS_MAGIC: u64 = 0x5049_4446;

/// The pidfd of a process. An error for a thread that is not the first of its process.
pub(crate) fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = super::pid(pid).ok_or(Errno::INVAL)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Whether the whole thread group behind a pidfd has exited.
pub(crate) fn has_exited(pidfd: &OwnedFd) -> bool {
    poll::is_readable(pidfd)
}

/// Whether the process behind a pidfd has been waited for (Linux 6.11).
pub(crate) fn is_reaped(pidfd: &OwnedFd) -> bool {
    let mut polls = [PollFd::new(pidfd, PollFlags::empty())];
    let ready = poll::look(&mut polls);
    ready == Ok(1) && polls[0].revents().contains(PollFlags::HUP)
}

/// The inode of a pidfd, unique for the boot; 0 where the kernel has no pidfs.
pub(crate) fn inode(pidfd: &OwnedFd) -> io::Result<u64> {
    /// Found out from the first pidfd: all are of the same kind.
    static HAS_PIDFS: OnceLock<bool> = OnceLock::new();
    let has_pidfs = if let Some(has_pidfs) = HAS_PIDFS.get() {
        *has_pidfs
    } else {
        let kind = u64::try_from(fstatfs(pidfd)?.f_type);
        *HAS_PIDFS.get_or_init(|| kind == Ok(PIDFS_MAGIC))
    };
    Ok(if has_pidfs { fstat(pidfd)?.st_ino } else { 0 })
}

/// Whether the kernel gives each process an inode of its own, which is never used again in this
/// boot.
pub(crate) fn has_pidfs() -> bool {
    let own = open(std::process::id());
    own.and_then(|own| inode(&own))
        .is_ok_and(|inode| inode != 0)
}

/// `struct pidfd_info` of `include/uapi/linux/pidfd.h`, as long as its first version was.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    ids: [u32; 3],
    /// Real uid and gid, effective, saved, file system.
    creds: [u32; 8],
    exit_code: i32,
}

/// `PIDFD_INFO_CREDS`.
const CREDS: u64 = 1 << 1;

/// `PIDFD_INFO_EXIT`: the wait status, once somebody has waited for the process.
const EXIT: u64 = 1 << 3;

/// The effective uid behind a pidfd; `None` if the process is gone or the kernel cannot tell
/// (before Linux 6.13).
pub(crate) fn effective_uid(pidfd: &OwnedFd) -> Option<u32> {
    Some(info(pidfd, CREDS)?.creds[2])
}

/// The wait status of a process that has been waited for; `None` if it has not been, or the kernel
/// cannot tell (before Linux 6.15).
pub(crate) fn wait_status(pidfd: &OwnedFd) -> Option<i32> {
    Some(info(pidfd, EXIT)?.exit_code)
}

/// The facts about the process behind a pidfd, if what is wanted is among them. The call fails with
/// ESRCH once the process has been waited for and nothing is left of it, and with ENOTTY before
/// Linux 6.13.
fn info(pidfd: &OwnedFd, wanted: u64) -> Option<Info> {
    /// `_IOWR(0xFF, 11, struct pidfd_info)` with those 64 bytes.
    const PIDFD_GET_INFO: u32 = 0xC040_FF0B;
    const _: () = assert!(size_of::<Info>() == 64);
    let mut info = Info {
        mask: wanted,
        ..Info::default()
    };
    // SAFETY: the kernel writes at most the 64 bytes that the request says, and `info` is that long
    // and valid for any of them.
    let told = unsafe { ioctl(pidfd, Updater::<PIDFD_GET_INFO, Info>::new(&mut info)) };
    (told.is_ok() && info.mask & wanted != 0).then_some(info)
}
