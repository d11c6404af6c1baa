//! The terminal of this process (setsid(2), `ioctl_tty(2)`).

use std::io;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::{retry_on_intr, write as write_once};
use rustix::process::setsid;
use rustix::stdio::stdout;
use rustix::termios::tcgetwinsize;

/// Leaves the terminal: a session and a process group of its own.
pub(crate) fn leave() -> io::Result<()> {
    setsid()?;
    Ok(())
}

/// How wide and how high the terminal on standard output is, in columns and lines.
pub(crate) fn size() -> Option<(usize, usize)> {
    let size = tcgetwinsize(stdout()).ok()?;
    let is_known = size.ws_col > 0 && size.ws_row > 0;
    is_known.then_some((size.ws_col.into(), size.ws_row.into()))
}

/// Writes a text to standard output, in one call if the terminal takes it.
pub(crate) fn write(text: &str) -> io::Result<()> {
    let mut left = text.as_bytes();
    while !left.is_empty() {
        let written = retry_on_intr(|| write_once(stdout(), left))?;
        left = left.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// How long a terminal may take until it takes more, in nanoseconds.
const PATIENCE: i64 = 200_000_000;

/// Whether standard output takes more soon. One that is stopped, or far away, does not.
pub(crate) fn takes_more() -> bool {
    let stdout = stdout();
    let mut polls = [PollFd::new(&stdout, PollFlags::OUT)];
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: PATIENCE,
    };
    poll(&mut polls, Some(&patience)).is_ok_and(|ready| ready > 0)
}

/// Whether standard output is a pipe or a socket, which may lose its reader.
pub(crate) fn is_pipe() -> bool {
    let kind = fstat(stdout()).map(|there| FileType::from_raw_mode(there.st_mode));
    kind.is_ok_and(|kind| matches!(kind, FileType::Fifo | FileType::Socket))
}
