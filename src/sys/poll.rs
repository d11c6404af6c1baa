//! Waiting for one descriptor (poll(2)).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};

/// The number of these that are ready now. Each look at a holder is one call of this, and rustix
/// knows only ppoll(2), which takes a fifth more CPU time.
#[allow(unsafe_code)]
pub(super) fn look(polls: &mut [PollFd]) -> Result<usize, Errno> {
    let count = libc::nfds_t::try_from(polls.len()).map_err(|_| Errno::INVAL)?;
    // SAFETY: a `PollFd` has the layout of `struct pollfd`, as which rustix passes it to the
    // kernel, and the slice lives across the call.
    let ready = unsafe { libc::poll(polls.as_mut_ptr().cast(), count, 0) };
    let failed = || Errno::from_io_error(&io::Error::last_os_error());
    usize::try_from(ready).map_err(|_| failed().unwrap_or(Errno::IO))
}

/// Whether a descriptor is readable now. False on an error.
pub(crate) fn is_readable(fd: &impl AsFd) -> bool {
    let mut polls = [PollFd::new(fd, PollFlags::IN)];
    look(&mut polls) == Ok(1) && polls[0].revents().contains(PollFlags::IN)
}

/// Waits until a descriptor is readable; false if it is not within this time. A signal is no reason
/// to return.
pub(crate) fn wait_readable(fd: &impl AsFd, timeout: Option<Duration>) -> io::Result<bool> {
    let until = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        // Longer than any poll lasts is for ever.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut polls = [PollFd::new(fd, PollFlags::IN)];
        match poll(&mut polls, left.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until one of these descriptors is readable: the places of those that are, which are none
/// after this time. A signal is no reason to return.
pub(crate) fn wait_any_readable(
    fds: &[BorrowedFd],
    timeout: Option<Duration>,
) -> io::Result<Vec<usize>> {
    let until = timeout.map(|timeout| Instant::now() + timeout);
    let polls = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN));
    let mut polls: Vec<PollFd> = polls.collect();
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut polls, left.as_ref()) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let ready = polls.iter().enumerate();
    let ready = ready.filter(|(_, poll)| !poll.revents().is_empty());
    Ok(ready.map(|(place, _)| place).collect())
}

/// Waits until nobody can read any more what is written to a pipe.
pub(crate) fn wait_unread(pipe: &impl AsFd) -> io::Result<()> {
    let wait = || poll(&mut [PollFd::new(pipe, PollFlags::empty())], None);
    retry_on_intr(wait)?;
    Ok(())
}

/// A file whose reads wait in `poll` first. A process that is to end while it waits there ends at
/// once; one that waits in the read of a FUSE file ends when the server has answered.
#[derive(Debug)]
pub(crate) struct Polled(pub File);

impl Read for Polled {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        wait_readable(&self.0, None)?;
        self.0.read(buffer)
    }
}
