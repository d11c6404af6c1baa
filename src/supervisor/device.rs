//! The `/dev/fuse` descriptor: how it is opened, mounted and unmounted, and how a server takes over
//! one that is in use.
//!
//! Root mounts by mount(2), others by fusermount3 with the protocol of `fusermount.c` of libfuse 3:
//! it sends the descriptor over the socket whose number is in `_FUSE_COMMFD`.
//!
//! Does not know: anything that is served on the descriptor.

use std::ffi::{CString, OsStr};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fuser::{Filesystem, Session, SessionACL};

use crate::sys;
use crate::sys::descriptors;
use crate::sys::ids::real_ids;
use crate::sys::mount::MountFlags;
use crate::sys::mountinfo::FS_TYPE;

/// The device that FUSE mounts are made of.
pub(crate) const DEVICE: &str = "/dev/fuse";

/// `FUSE_NOTIFY_RESEND`: the kernel is to send again what is not answered yet.
const NOTIFY_RESEND: u32 = 7;

/// How to mount.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Serve every uid.
    pub allow_other: bool,
    /// Admit no execution.
    pub noexec: bool,
    /// Admit no writes.
    pub read_only: bool,
}

/// Mounts on a directory, given by its canonical path, and returns the descriptor on which requests
/// arrive.
pub fn mount(dir: &Path, source: &Path, options: &Options) -> io::Result<OwnedFd> {
    match mount_directly(dir, source, options) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            mount_by_helper(dir, source, options)
        }
        result => result,
    }
}

fn mount_directly(dir: &Path, source: &Path, options: &Options) -> io::Result<OwnedFd> {
    let device = OwnedFd::from(OpenOptions::new().read(true).write(true).open(DEVICE)?);
    let (uid, gid) = real_ids();
    let allow = if options.allow_other {
        ",allow_other"
    } else {
        ""
    };
    let data = format!(
        "fd={},rootmode=40000,user_id={uid},group_id={gid}{allow}",
        device.as_raw_fd()
    );
    let data = CString::new(data)?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOSYMFOLLOW;
    flags.set(MountFlags::NOEXEC, options.noexec);
    flags.set(MountFlags::RDONLY, options.read_only);
    match sys::mount::mount(dir, source, FS_TYPE, flags, &data) {
        // Before Linux 5.10, nosymfollow is not known.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            flags.remove(MountFlags::NOSYMFOLLOW);
            sys::mount::mount(dir, source, FS_TYPE, flags, &data)?;
        }
        result => result?,
    }
    Ok(device)
}

/// The new flags of a mount, which stays `nosuid` and `nodev`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags {
    /// Follow no symlinks.
    pub nosymfollow: bool,
    /// Admit no execution.
    pub noexec: bool,
    /// Admit no writes, or admit them, wherever the file system is mounted. `None` leaves that
    /// unchanged.
    pub read_only: Option<bool>,
    /// This mount admits no writes now.
    pub is_read_only: bool,
}

/// Changes the flags of the mount on a directory.
pub(crate) fn remount(dir: &Path, flags: Flags) -> io::Result<()> {
    let read_only = flags.read_only.unwrap_or(flags.is_read_only);
    let mut bits = MountFlags::NOSUID | MountFlags::NODEV;
    bits.set(MountFlags::NOSYMFOLLOW, flags.nosymfollow);
    bits.set(MountFlags::NOEXEC, flags.noexec);
    bits.set(MountFlags::RDONLY, read_only);
    // A bind remount changes this mount only, and not the file system.
    bits.set(MountFlags::BIND, flags.read_only.is_none());
    sys::mount::remount(dir, bits)
}

fn mount_by_helper(dir: &Path, source: &Path, options: &Options) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut text = OsStr::new("subtype=claimfs,nosuid,nodev").to_owned();
    for (wanted, option) in [
        (options.allow_other, ",allow_other"),
        (options.noexec, ",noexec"),
        (options.read_only, ",ro"),
    ] {
        if wanted {
            text.push(option);
        }
    }
    text.push(",fsname=");
    for byte in source.as_os_str().as_bytes() {
        // A backslash keeps the next byte from ending the option.
        if matches!(byte, b',' | b'\\') {
            text.push("\\");
        }
        text.push(OsStr::from_bytes(&[*byte]));
    }
    let mut helper = Command::new("fusermount3")
        .arg("-o")
        .arg(&text)
        .arg("--")
        .arg(dir)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let received = descriptors::receive(&ours);
    let mut complaint = String::new();
    if let Some(mut stderr) = helper.stderr.take() {
        stderr.read_to_string(&mut complaint)?;
    }
    helper.wait()?;
    let none = || io::Error::other("fusermount3 mounted nothing");
    let received = received.and_then(|device| device.ok_or_else(none));
    received.map_err(|error| {
        let complaint = complaint.trim();
        if complaint.is_empty() {
            error
        } else {
            io::Error::other(complaint.to_owned())
        }
    })
}

/// Begins to serve a connection that an earlier server has served, and has the kernel send again
/// the requests that were not answered.
///
/// The kernel sends INIT only once, and fuser insists on it. So fuser gets one end of a pair of
/// sockets, on which it reads an INIT with the contents of the kernel's own; then that end is
/// replaced by the real descriptor.
pub(crate) fn adopt<FS: Filesystem>(
    fs: FS,
    device: &OwnedFd,
    capabilities: u64,
    acl: SessionACL,
    config: fuser::Config,
) -> io::Result<Session<FS>> {
    let (ours, theirs) = descriptors::message_pair()?;
    let ours = File::from(ours);
    (&ours).write_all(&init(capabilities))?;
    let session = Session::from_fd(fs, theirs, acl, config)?;
    let mut answer = [0; 256];
    if (&ours).read(&mut answer)? == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    descriptors::replace(&session, device)?;
    let mut resend = [0; 16];
    resend[..4].copy_from_slice(&16_u32.to_ne_bytes());
    resend[4..8].copy_from_slice(&NOTIFY_RESEND.to_ne_bytes());
    let mut device = File::from(session.as_fd().try_clone_to_owned()?);
    device.write_all(&resend)?;
    Ok(session)
}

/// `struct fuse_in_header` and `struct fuse_init_in` (`include/uapi/linux/fuse.h`).
fn init(capabilities: u64) -> [u8; 104] {
    const OPCODE_INIT: u32 = 26;
    const VERSION: [u32; 2] = [7, 40];
    const MAX_READAHEAD: u32 = 128 * 1024;
    const EXT: u64 = 1 << 30;
    // After a header of ten words, most of them zero: version, read-ahead, and the two halves of
    // the capabilities.
    let halves = [capabilities & 0xffff_ffff | EXT, capabilities >> 32];
    let mut words = [0_u32; 26];
    (words[0], words[1], words[2]) = (104, OPCODE_INIT, 1);
    words[10..12].copy_from_slice(&VERSION);
    words[12] = MAX_READAHEAD;
    for (word, half) in words[13..15].iter_mut().zip(halves) {
        *word = u32::try_from(half).unwrap_or(0);
    }
    let mut bytes = [0; 104];
    for (at, word) in bytes.chunks_exact_mut(4).zip(words) {
        at.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// Unmounts a directory. `lazy` also if it is in use: it vanishes at once, and ends with its last
/// user.
pub(crate) fn unmount(dir: &Path, lazy: bool) -> io::Result<()> {
    let Err(error) = sys::mount::unmount(dir, lazy) else {
        return Ok(());
    };
    if error.raw_os_error() != Some(libc::EPERM) {
        return Err(error);
    }
    let output = Command::new("fusermount3")
        .arg(if lazy { "-uz" } else { "-u" })
        .arg("--")
        .arg(dir)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(if complaint.contains("busy") {
        io::Error::from_raw_os_error(libc::EBUSY)
    } else {
        io::Error::other(complaint)
    })
}

/// The same, repeated while the mount is busy, for this time: a mount may be busy for a moment
/// although it is not in use.
pub(crate) fn unmount_patiently(dir: &Path, lazy: bool, patience: Duration) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        match unmount(dir, lazy) {
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(3));
            }
            unmounted => return unmounted,
        }
    }
}
