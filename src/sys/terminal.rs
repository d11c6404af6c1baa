//! The terminal of this process (setsid(2), `ioctl_tty(2)`).

use std::io;

use rustix::process::setsid;
use rustix::termios::tcgetwinsize;

/// Leaves the terminal: a session and a process group of its own.
pub(crate) fn leave() -> io::Result<()> {
    setsid()?;
    Ok(())
}

/// How wide and how high the terminal on standard output is, in columns and lines.
pub(crate) fn size() -> Option<(usize, usize)> {
    let size = tcgetwinsize(rustix::stdio::stdout()).ok()?;
    let is_known = size.ws_col > 0 && size.ws_row > 0;
    is_known.then_some((size.ws_col.into(), size.ws_row.into()))
}
