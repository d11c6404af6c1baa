//! Children that are copies of this process: one that only exits, to find out what the kernel tells
//! about ended processes, and one that may hang, which is left behind then.
#![allow(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Signal, WaitOptions, kill_process, waitpid};

use super::{pidfd, poll};

/// The pid and the pidfd of a child that has exited with this code and been waited for. `before` is
/// called before it exits.
pub(crate) fn exited(
    code: u8,
    before: impl FnOnce(u32, &Arc<OwnedFd>),
) -> io::Result<(u32, Arc<OwnedFd>)> {
    // The child reads until nobody can write, so that it does not outlive this process, should that
    // be killed: it would keep the mount's descriptor open.
    let (reader, writer) = io::pipe()?;
    // SAFETY: the child makes three system calls, with a byte of its own and descriptors that are
    // open, and does not return.
    let child = unsafe {
        let child = libc::fork();
        if child == 0 {
            let mut byte = 0_u8;
            libc::close(writer.as_raw_fd());
            libc::read(reader.as_raw_fd(), (&raw mut byte).cast(), 1);
            libc::_exit(code.into());
        }
        child
    };
    let child = u32::try_from(child).map_err(|_| io::Error::last_os_error())?;
    let pidfd = pidfd::open(child).map(Arc::new);
    if let Ok(pidfd) = &pidfd {
        before(child, pidfd);
    }
    drop(writer);
    loop {
        match waitpid(super::pid(child), WaitOptions::empty()) {
            Ok(_) => return Ok((child, pidfd?)),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The bytes that `work` returns in a copy of this process; `None` if there are none within this
/// time. A copy that takes longer is killed and not waited for: in a call on a file system whose
/// server does not answer, it may not die before that does.
///
/// The copy has no descriptor of this process, so that nobody who waits for the end of its output
/// waits for the copy. An error if this process has other threads, of which a copy would lack the
/// locks that they hold.
pub(crate) fn in_copy(
    limit: Duration,
    work: impl FnOnce() -> Vec<u8>,
) -> io::Result<Option<Vec<u8>>> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("this process has other threads"));
    }
    let until = Instant::now() + limit;
    let nothing = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    let (reader, writer) = io::pipe()?;
    // SAFETY: this process has one thread, so the copy is whole. It does not return from here.
    let child = unsafe { libc::fork() };
    if child == 0 {
        copy(&nothing, writer, work);
    }
    let child = u32::try_from(child).map_err(|_| io::Error::last_os_error())?;
    drop(writer);
    let bytes = read_until(reader, until)?;
    if bytes.is_none()
        && let Some(child) = super::pid(child)
    {
        _ = kill_process(child, Signal::KILL);
    }
    Ok(bytes)
}

/// The life of the copy.
fn copy(nothing: &impl AsRawFd, mut writer: PipeWriter, work: impl FnOnce() -> Vec<u8>) -> ! {
    // SAFETY: calls with numbers alone. No value of this process owns one of the descriptors that
    // are closed: its standard streams, and what it inherited beyond them, are not used here.
    unsafe {
        for stream in 0..3 {
            libc::dup2(nothing.as_raw_fd(), stream);
        }
        let kept = writer.as_raw_fd();
        let kept = u32::try_from(kept).unwrap_or(u32::MAX);
        if kept > 3 {
            libc::syscall(libc::SYS_close_range, 3_u32, kept - 1, 0_u32);
        }
        libc::syscall(
            libc::SYS_close_range,
            kept.saturating_add(1),
            u32::MAX,
            0_u32,
        );
    }
    let done = catch_unwind(AssertUnwindSafe(work));
    let code = match done {
        Ok(bytes) if writer.write_all(&bytes).is_ok() => 0,
        _ => 1,
    };
    drop(writer);
    // SAFETY: ends this process at once, without what the original has left to do at its end.
    unsafe { libc::_exit(code) }
}

/// All that comes from a pipe, if it ends in time.
fn read_until(mut pipe: PipeReader, until: Instant) -> io::Result<Option<Vec<u8>>> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if !poll::wait_readable(&pipe, Some(left))? {
            return Ok(None);
        }
        match pipe.read(&mut buffer)? {
            0 => return Ok(Some(bytes)),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}
