//! Processes that are read from with a deadline, and of whose process group nothing is left when
//! they are dropped.

use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Guard, PATIENCE, plain};

/// A process that leads a POSIX session, and so a process group, of its own.
pub struct Process {
    guard: Guard,
    output: PipeReader,
    /// All that it has written so far, to standard output and standard error alike.
    pub text: String,
    /// How much of the text has been looked at.
    read: usize,
    /// Whether it and all that write to the same place have ended, or closed it.
    pub ended: bool,
    /// Whether it has been waited for: its number is nobody's then, or another's.
    waited: bool,
}

impl Process {
    pub fn spawn(command: &mut Command) -> Self {
        let (output, writer) = io::pipe().unwrap();
        plain(command);
        command
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer);
        let guard = Guard::spawn(command);
        // Else the writing end that the command keeps hides the end of the output.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self {
            guard,
            output,
            text: String::new(),
            read: 0,
            ended: false,
            waited: false,
        }
    }

    /// Whether it says this line before it ends and before a deadline.
    pub fn says(&mut self, line: &str, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            while let Some(length) = self.text[self.read..].find('\n') {
                let start = self.read;
                self.read += length + 1;
                if &self.text[start..start + length] == line {
                    return true;
                }
            }
            if !self.more(deadline) {
                return false;
            }
        }
    }

    /// Reads once; false at the end and at the deadline.
    fn more(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut poll = libc::pollfd {
            fd: self.output.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let milliseconds = i32::try_from(left.as_millis()).unwrap();
        if unsafe { libc::poll(&raw mut poll, 1, milliseconds) } != 1 {
            return false;
        }
        let mut bytes = [0; 4096];
        let count = self.output.read(&mut bytes).unwrap();
        self.text += &String::from_utf8_lossy(&bytes[..count]);
        self.ended = count == 0;
        count > 0
    }

    /// Says a line to it.
    pub fn tell(&mut self, line: &str) {
        let stdin = self.guard.0.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
    }

    /// Its exit code, once its output has ended; None if that is not in time, or if it was killed.
    pub fn exit(&mut self) -> Option<i32> {
        self.drain();
        if !self.ended {
            return None;
        }
        self.waited = true;
        self.guard.0.wait().unwrap().code()
    }

    fn drain(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.more(deadline) {}
    }

    /// Kills the process group, and waits for its leader.
    pub fn kill(&mut self) {
        if !self.waited {
            let group = self.guard.0.id() as i32;
            unsafe { libc::kill(-group, libc::SIGKILL) };
            self.waited = true;
            self.guard.0.wait().unwrap();
            // The rest has nobody here to wait for it. It has ended once it has closed its output.
            self.drain();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
