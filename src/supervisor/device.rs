//! The `/dev/fuse` descriptor: how it is opened, mounted and unmounted, and how a server takes over one that is in use.
//!
//! As root by mount(2), else by fusermount3 with the protocol that `fusermount.c` of libfuse 3 speaks: it sends the
//! descriptor over the socket whose number stands in `_FUSE_COMMFD`.
//!
//! Deliberately ignorant of: everything that is served on the descriptor.
#![allow(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fuser::{Filesystem, Session, SessionACL};

use crate::sys::mountinfo::FS_TYPE;

/// The device that FUSE mounts are made of.
pub const DEVICE: &str = "/dev/fuse";

/// mount(2): do not follow symlinks (Linux 5.10 on); the libc crate does not name it everywhere.
const MS_NOSYMFOLLOW: libc::c_ulong = 256;

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

/// Mounts on a directory, given by its canonical path, and returns the descriptor on which requests arrive.
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
    // SAFETY: neither takes a pointer, neither can fail.
    let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
    let allow = if options.allow_other {
        ",allow_other"
    } else {
        ""
    };
    let data = format!(
        "fd={},rootmode=40000,user_id={uid},group_id={gid}{allow}",
        device.as_raw_fd()
    );
    let mut flags = libc::MS_NOSUID | libc::MS_NODEV | MS_NOSYMFOLLOW;
    if options.noexec {
        flags |= libc::MS_NOEXEC;
    }
    if options.read_only {
        flags |= libc::MS_RDONLY;
    }
    match mount_syscall(dir, source, flags, &data) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            mount_syscall(dir, source, flags & !MS_NOSYMFOLLOW, &data)?;
        }
        result => result?,
    }
    Ok(device)
}

fn mount_syscall(dir: &Path, source: &Path, flags: libc::c_ulong, data: &str) -> io::Result<()> {
    let source = CString::new(source.as_os_str().as_bytes())?;
    let (dir, data, fs_type) = (c_path(dir)?, CString::new(data)?, CString::new(FS_TYPE)?);
    // SAFETY: all pointers are to NUL-terminated strings that outlive the call.
    let mounted = unsafe {
        libc::mount(
            source.as_ptr(),
            dir.as_ptr(),
            fs_type.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    };
    if mounted == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What a mount is to be like from now on: it stays `nosuid` and `nodev`.
#[derive(Clone, Copy, Debug)]
pub struct Flags {
    /// Follow no symlinks.
    pub nosymfollow: bool,
    /// Admit no execution.
    pub noexec: bool,
    /// Admit no writes, or admit them, wherever the file system is mounted. `None` leaves it as it is.
    pub read_only: Option<bool>,
    /// This mount admits no writes now.
    pub is_read_only: bool,
}

/// Changes the flags of the mount on a directory.
pub fn remount(dir: &Path, flags: &Flags) -> io::Result<()> {
    let mut bits = libc::MS_REMOUNT | libc::MS_NOSUID | libc::MS_NODEV;
    for (is_set, bit) in [
        (flags.nosymfollow, MS_NOSYMFOLLOW),
        (flags.noexec, libc::MS_NOEXEC),
        (
            flags.read_only.unwrap_or(flags.is_read_only),
            libc::MS_RDONLY,
        ),
        // Then only this mount is changed, and not the file system.
        (flags.read_only.is_none(), libc::MS_BIND),
    ] {
        if is_set {
            bits |= bit;
        }
    }
    let path = c_path(dir)?;
    let none = std::ptr::null();
    // SAFETY: the path is a NUL-terminated string that outlives the call; mount(2) ignores the others when it remounts.
    if unsafe { libc::mount(none, path.as_ptr(), none, bits, none.cast()) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
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
        // A backslash keeps what follows from ending the option.
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
    let received = receive_descriptor(&ours);
    let mut complaint = String::new();
    if let Some(mut stderr) = helper.stderr.take() {
        stderr.read_to_string(&mut complaint)?;
    }
    helper.wait()?;
    received.map_err(|error| {
        let complaint = complaint.trim();
        if complaint.is_empty() {
            error
        } else {
            io::Error::other(complaint.to_owned())
        }
    })
}

/// Receives one descriptor, close-on-exec, as an `SCM_RIGHTS` message (unix(7)).
fn receive_descriptor(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0_u8; 1];
    let mut iov = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    let mut control = [0_u64; 8];
    let mut message = MaybeUninit::<libc::msghdr>::zeroed();
    // SAFETY: a msghdr of zeros is valid; its pointers are set to buffers that outlive the call and are as long as it
    // says; the control buffer is aligned for cmsghdr. The header that CMSG_FIRSTHDR returns lies inside that buffer,
    // and its data is read only if it says that it is one descriptor, which is ours from then on.
    unsafe {
        let header = message.assume_init_mut();
        header.msg_iov = &raw mut iov;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        if libc::recvmsg(socket.as_raw_fd(), header, libc::MSG_CMSG_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        let first = libc::CMSG_FIRSTHDR(header);
        let whole = libc::CMSG_LEN(u32::try_from(size_of::<RawFd>()).unwrap_or(4)) as usize;
        if first.is_null() || (*first).cmsg_type != libc::SCM_RIGHTS || (*first).cmsg_len < whole {
            return Err(io::Error::other("fusermount3 mounted nothing"));
        }
        Ok(OwnedFd::from_raw_fd(
            libc::CMSG_DATA(first).cast::<RawFd>().read_unaligned(),
        ))
    }
}

/// Begins to serve a connection that the kernel has opened already, with another server, and asks for what that one has left
/// undone.
///
/// The kernel sends INIT once, and fuser insists on it. So it is given one end of a pair of sockets, on which it gets an INIT that
/// says what the kernel's own had said, and then the real descriptor in the place of that end.
pub fn adopt<FS: Filesystem>(
    fs: FS,
    device: &OwnedFd,
    capabilities: u64,
    acl: SessionACL,
    config: fuser::Config,
) -> io::Result<Session<FS>> {
    let mut ends = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: socketpair(2) fills the two numbers, which are ours and nobody else's from then on.
    let (ours, theirs) = unsafe {
        if libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) < 0 {
            return Err(io::Error::last_os_error());
        }
        (
            File::from(OwnedFd::from_raw_fd(ends[0])),
            OwnedFd::from_raw_fd(ends[1]),
        )
    };
    (&ours).write_all(&init(capabilities))?;
    let session = Session::from_fd(fs, theirs, acl, config)?;
    let mut answer = [0; 256];
    if (&ours).read(&mut answer)? == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    let (device, session_fd) = (device.as_raw_fd(), session.as_fd().as_raw_fd());
    // SAFETY: dup3(2) takes no pointer, and both descriptors are open.
    if unsafe { libc::dup3(device, session_fd, libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
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
    // Behind a header of ten words, most of them zero: version, read-ahead, and the two halves of what the kernel can do.
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

/// Unmounts a directory. `lazy` also if it is in use: it vanishes at once, and is gone with its last user.
pub fn unmount(dir: &Path, lazy: bool) -> io::Result<()> {
    let path = c_path(dir)?;
    let flags = if lazy { libc::MNT_DETACH } else { 0 } | libc::UMOUNT_NOFOLLOW;
    // SAFETY: the path is a NUL-terminated string that outlives the call.
    if unsafe { libc::umount2(path.as_ptr(), flags) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
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

/// The same, tried again and again for as long as a mount may be busy that is not in use.
pub fn unmount_patiently(dir: &Path, lazy: bool, patience: Duration) -> io::Result<()> {
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

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
