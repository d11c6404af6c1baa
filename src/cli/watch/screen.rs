//! The terminal as a screen that is painted again and again.
//!
//! Promises: a frame is one write, over the one before, so that nothing flickers; one that is on
//! the screen already is not written again. Keys are not echoed; q ends this process. The terminal
//! is as it was once this is dropped, and when q, a panic or a signal ends or stops this process,
//! also while a call on the mount hangs. It is taken again when a stopped process goes on.
//!
//! Does not know: what is painted.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use crate::cli::{Exit, Failure, output};
use crate::sys::eventfd::EventFd;
use crate::sys::signals::{self, Signals};
use crate::sys::terminal::{self, Mode};

/// The signals that end this.
const ENDING: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// To the other screen of the terminal, without a cursor, and without a new line where one is full.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J";

/// Back. Terminals that have one screen only go on below the frame.
const LEAVE: &str = "\x1b[999;1H\r\n\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Where the size of the terminal is not known: columns and lines.
const SIZE: (usize, usize) = (80, 24);

/// The key that ends this.
const QUIT: u8 = b'q';

/// At most this many bytes of keys are read at once.
const KEYS: usize = 256;

/// How often, and how long after each look, another thread is waited for that writes.
const LOOKS: u32 = 20;
const LOOK: Duration = Duration::from_millis(10);

/// The screen.
pub(super) struct Screen {
    terminal: Arc<Terminal>,
    shown: String,
    reads_keys: bool,
}

impl Screen {
    /// Takes the screen, until this is dropped.
    pub(super) fn take() -> io::Result<Self> {
        let ending = ENDING.into_iter().chain([libc::SIGTSTP]);
        let mut taken: Vec<i32> = ending
            .filter(|signal| !signals::is_ignored(*signal))
            .collect();
        taken.extend([libc::SIGWINCH, libc::SIGCONT]);
        let signals = Signals::block(&taken);
        let terminal = Arc::new(Terminal {
            changed: EventFd::new()?,
            is_taken: Mutex::default(),
            mode: Mutex::default(),
        });
        let reads_keys = terminal.enter()?;
        let (of_panic, before) = (Arc::clone(&terminal), panic::take_hook());
        panic::set_hook(Box::new(move |info| {
            // Its message is below the screen.
            of_panic.leave();
            before(info);
        }));
        let of_signals = Arc::clone(&terminal);
        thread::spawn(move || follow(signals, &of_signals));
        if reads_keys {
            let of_keys = Arc::clone(&terminal);
            thread::spawn(move || obey(&of_keys));
        }
        Ok(Self {
            terminal,
            shown: String::new(),
            reads_keys,
        })
    }

    /// How wide and how high it is now.
    pub(super) fn size() -> (usize, usize) {
        terminal::size().unwrap_or(SIZE)
    }

    /// Whether q ends this.
    pub(super) fn reads_keys(&self) -> bool {
        self.reads_keys
    }

    /// Paints these lines, of which none is too wide. False if nobody can see it any more.
    pub(super) fn paint(&mut self, lines: &[String]) -> Result<bool, Failure> {
        let frame = frame(lines);
        if frame == self.shown {
            return Ok(true);
        }
        let is_seen = output::written(self.terminal.write(&frame))?;
        self.shown = frame;
        Ok(is_seen)
    }

    /// Whether its size has changed, or all on it is to be painted again.
    pub(super) fn has_changed(&mut self) -> bool {
        let has_changed = self.terminal.changed.clear();
        if has_changed {
            self.shown.clear();
        }
        has_changed
    }
}

impl AsFd for Screen {
    /// Readable once [`Screen::has_changed`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.terminal.changed.as_fd()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.terminal.leave();
    }
}

/// The terminal, which any thread may give back.
struct Terminal {
    changed: EventFd,
    /// Whether its other screen is shown. Locked while a frame is written, which may take long.
    is_taken: Mutex<bool>,
    /// The mode before, while keys are read.
    mode: Mutex<Option<Mode>>,
}

impl Terminal {
    /// Takes it, also where it is taken already: another may have had it. Whether keys are read.
    fn enter(&self) -> io::Result<bool> {
        let mut mode = lock(&self.mode);
        match &*mode {
            Some(mode) => _ = mode.take_again(),
            None => *mode = Mode::take(),
        }
        let mut is_taken = lock(&self.is_taken);
        terminal::write(ENTER)?;
        *is_taken = true;
        self.changed.wake();
        Ok(mode.is_some())
    }

    /// Gives it back, unless that is done already or it takes nothing.
    fn leave(&self) {
        let takes_more = terminal::takes_more();
        let is_taken = self.patiently();
        if takes_more && is_taken.as_ref().is_none_or(|is_taken| **is_taken) {
            _ = terminal::write(LEAVE);
        }
        if let Some(mut is_taken) = is_taken {
            *is_taken = false;
        }
        if let Some(mode) = lock(&self.mode).take() {
            mode.restore();
        }
    }

    /// Writes a frame, unless the terminal has been given back.
    fn write(&self, frame: &str) -> io::Result<()> {
        let is_taken = lock(&self.is_taken);
        if *is_taken {
            terminal::write(frame)?;
        }
        Ok(())
    }

    /// `None` if another thread writes for long, since the terminal is stopped.
    fn patiently(&self) -> Option<MutexGuard<'_, bool>> {
        for _ in 0..LOOKS {
            match self.is_taken.try_lock() {
                Ok(is_taken) => return Some(is_taken),
                Err(TryLockError::Poisoned(held)) => return Some(held.into_inner()),
                Err(TryLockError::WouldBlock) => thread::sleep(LOOK),
            }
        }
        None
    }
}

/// A thread that panics leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From the upper left corner on, each line over the one that was there.
fn frame(lines: &[String]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("{line}\x1b[K")).collect();
    // No new line after the last, which would scroll.
    format!("\x1b[H{}\x1b[J", lines.join("\r\n"))
}

/// Gives the terminal back before a signal ends or stops this process.
fn follow(signals: Signals, terminal: &Terminal) {
    loop {
        match signals.wait().0 {
            libc::SIGWINCH => terminal.changed.wake(),
            libc::SIGCONT => _ = terminal.enter(),
            libc::SIGTSTP => {
                terminal.leave();
                signals.stop_by(libc::SIGTSTP);
                _ = terminal.enter();
            }
            signal => {
                terminal.leave();
                signals.end_by(signal);
            }
        }
    }
}

/// Reads keys, and ends this process at [`QUIT`], also while a call on the mount hangs.
fn obey(terminal: &Terminal) {
    let mut buffer = [0; KEYS];
    loop {
        match terminal::keys(&mut buffer) {
            Ok([]) | Err(_) => return,
            Ok(keys) if keys.contains(&QUIT) => {
                terminal.leave();
                process::exit(Exit::Done.code().into());
            }
            Ok(_) => {}
        }
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
