//! The terminal of this process (setsid(2), `ioctl_tty(2)`, termios(3)).

use std::io;
use std::thread::sleep;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, read, retry_on_intr, write as write_once};
use rustix::process::{Signal, getpgrp, kill_current_process_group, setsid};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetpgrp,
    tcgetwinsize, tcsetattr,
};

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

/// The mode that the terminal on standard input had before [`Mode::take`].
#[derive(Debug)]
pub(crate) struct Mode(Termios);

impl Mode {
    /// Has keys read one by one, and not echoed; those that send signals still do. A process in the
    /// background stops until it is in the foreground. `None` if standard input is no terminal, or
    /// not one of this process.
    pub(crate) fn take() -> Option<Self> {
        if !isatty(stdin()) || !wait_foreground() {
            return None;
        }
        let mode = Self(tcgetattr(stdin()).ok()?);
        mode.take_again().ok()?;
        Some(mode)
    }

    /// As [`Mode::take`], with the same mode before.
    pub(crate) fn take_again(&self) -> io::Result<()> {
        let mut keys = self.0.clone();
        keys.local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ECHONL);
        keys.special_codes[SpecialCodeIndex::VMIN] = 1;
        keys.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(stdin(), OptionalActions::Now, &keys)?;
        Ok(())
    }

    /// The mode as it was. A process in the background changes nothing: another has the terminal.
    pub(crate) fn restore(&self) {
        if is_foreground() {
            _ = tcsetattr(stdin(), OptionalActions::Now, &self.0);
        }
    }
}

/// Waits for keys on standard input. None if there are no more.
pub(crate) fn keys(buffer: &mut [u8]) -> io::Result<&[u8]> {
    let input = stdin();
    retry_on_intr(|| poll(&mut [PollFd::new(&input, PollFlags::IN)], None))?;
    let count = match retry_on_intr(|| read(input, &mut *buffer)) {
        Err(Errno::IO) => 0,
        count => count?,
    };
    Ok(buffer.get(..count).unwrap_or_default())
}

/// Whether the terminal on standard input takes orders of this process, or is not the one of its
/// job control.
fn is_foreground() -> bool {
    tcgetpgrp(stdin()).map_or(true, |foreground| foreground == getpgrp())
}

/// How often a process in the background stops itself until it gives up: it does not stop where
/// nobody could continue it.
const STOPS: u32 = 50;

/// The time that a stop may take.
const STOPPING: Duration = Duration::from_millis(20);

/// Stops in the background, as the kernel stops a process that reads there.
fn wait_foreground() -> bool {
    for _ in 0..STOPS {
        if is_foreground() {
            return true;
        }
        _ = kill_current_process_group(Signal::TTIN);
        sleep(STOPPING);
    }
    is_foreground()
}
