//! A child that only exits, to find out what the kernel tells about ended processes.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::process::{WaitOptions, waitpid};

use super::pidfd;

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
