//! The program that servers run. It is held open, so that the same program is started again
//! whatever becomes of its file.
//!
//! Does not know: what servers do.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::report::Report;
use crate::core::failure::Failure;
use crate::sys::signals::Signals;

/// A program, held open.
#[derive(Debug)]
pub(crate) struct Program(File);

impl Program {
    /// The program of this process.
    pub(crate) fn current() -> Result<Self, Failure> {
        Self::open(Path::new("/proc/self/exe"))
    }

    /// The program that is at a path now.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let opened = File::open(path).map(Self);
        opened.map_err(|error| Failure::unavailable(format!("{}: {error}", path.display())))
    }

    /// A command that serves with it: first the words about this server, then those about the
    /// mount.
    pub(crate) fn server(&self, first: &[&str], words: &[OsString], signals: Signals) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
        command.arg0("claimfs").arg("serve").args(first).args(words);
        signals.unblock_in(&mut command);
        command
    }

    /// The program that is at a path now, if it shows that it starts and can read the state of a
    /// connection, which changes nothing.
    pub(crate) fn proved(
        path: &Path,
        connection: &str,
        words: &[OsString],
        signals: Signals,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let program = Self::open(path)?;
        let first = ["--prove", "--connection", connection];
        let mut command = program.server(&first, words, signals);
        let pipes = command.stdin(Stdio::null()).stdout(Stdio::piped());
        let cannot =
            |error: io::Error| Failure::unavailable(format!("it cannot be started: {error}"));
        let mut child = pipes.stderr(Stdio::piped()).spawn().map_err(cannot)?;
        let until = Instant::now() + patience;
        let status = loop {
            match child.try_wait().map_err(cannot)? {
                Some(status) => break status,
                None if Instant::now() > until => _ = child.kill(),
                None => thread::sleep(Duration::from_millis(2)),
            }
        };
        let output = child.stdout.take().map(io::read_to_string);
        let is_proved = |output: String| Report::parse(output.trim()) == Some(Report::Proved);
        if status.success() && output.and_then(Result::ok).is_some_and(is_proved) {
            return Ok(program);
        }
        let errors = child.stderr.take().map(io::read_to_string);
        let errors = errors.and_then(Result::ok).unwrap_or_default();
        let line = errors.lines().next();
        let why = line.unwrap_or("it does not say that it is a claimfs");
        Err(Failure::unavailable(format!(
            "it cannot take over ({status}): {why}"
        )))
    }
}
