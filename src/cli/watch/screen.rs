//! The terminal as a screen that is painted again and again.
//!
//! Promises: a frame is one write, over the one before, so that nothing flickers; one that is on
//! the screen already is not written again. The terminal is as it was once this is dropped, and
//! when a signal ends or stops this process, also while a call on the mount hangs.
//!
//! Does not know: what is painted.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;

use crate::cli::Failure;
use crate::cli::output;
use crate::sys::eventfd::EventFd;
use crate::sys::signals::{self, Signals};
use crate::sys::terminal;

/// The signals that end this.
const ENDING: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// To the other screen of the terminal, without a cursor, and without a new line where one is full.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J";

/// Back. Terminals that have one screen only go on below the frame.
const LEAVE: &str = "\x1b[999;1H\r\n\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Where the size of the terminal is not known: columns and lines.
const SIZE: (usize, usize) = (80, 24);

/// The screen.
pub(super) struct Screen {
    changed: Arc<EventFd>,
    shown: String,
}

impl Screen {
    /// Takes the screen, until this is dropped.
    pub(super) fn take() -> io::Result<Self> {
        let ending = ENDING.into_iter().chain([libc::SIGTSTP]);
        let mut taken: Vec<i32> = ending
            .filter(|signal| !signals::is_ignored(*signal))
            .collect();
        taken.push(libc::SIGWINCH);
        let signals = Signals::block(&taken);
        let changed = Arc::new(EventFd::new()?);
        terminal::write(ENTER)?;
        let wake = Arc::clone(&changed);
        thread::spawn(move || follow(signals, &wake));
        Ok(Self {
            changed,
            shown: String::new(),
        })
    }

    /// How wide and how high it is now.
    pub(super) fn size() -> (usize, usize) {
        terminal::size().unwrap_or(SIZE)
    }

    /// Paints these lines, of which none is too wide. False if nobody can see it any more.
    pub(super) fn paint(&mut self, lines: &[String]) -> Result<bool, Failure> {
        let frame = frame(lines);
        if frame == self.shown {
            return Ok(true);
        }
        let is_seen = output::written(terminal::write(&frame))?;
        self.shown = frame;
        Ok(is_seen)
    }

    /// Whether its size has changed, or all on it is to be painted again.
    pub(super) fn has_changed(&mut self) -> bool {
        let has_changed = self.changed.clear();
        if has_changed {
            self.shown.clear();
        }
        has_changed
    }
}

impl AsFd for Screen {
    /// Readable once [`Screen::has_changed`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.changed.as_fd()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        _ = terminal::write(LEAVE);
    }
}

/// From the upper left corner on, each line over the one that was there.
fn frame(lines: &[String]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("{line}\x1b[K")).collect();
    // No new line after the last, which would scroll.
    format!("\x1b[H{}\x1b[J", lines.join("\r\n"))
}

/// Gives the terminal back before a signal ends or stops this process.
fn follow(signals: Signals, wake: &EventFd) {
    loop {
        match signals.wait().0 {
            libc::SIGWINCH => {}
            libc::SIGTSTP => {
                leave();
                _ = signals::send(std::process::id(), libc::SIGSTOP);
                _ = terminal::write(ENTER);
            }
            signal => {
                leave();
                signals.end_by(signal);
            }
        }
        wake.wake();
    }
}

/// Gives the terminal back, unless it takes nothing.
fn leave() {
    if terminal::takes_more() {
        _ = terminal::write(LEAVE);
    }
}

#[cfg(test)]
mod tests {
    use super::frame;

    #[test]
    fn a_frame_begins_at_home_and_ends_without_a_new_line() {
        let lines = [String::from("a"), String::from("b")];
        assert_eq!(frame(&lines), "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J");
        assert_eq!(frame(&[]), "\x1b[H\x1b[J");
    }
}
