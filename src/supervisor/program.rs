//! The program that servers are made of: held open, so that it is the one that is started whatever becomes of the file of its name.
//!
//! Deliberately ignorant of: what servers do.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::Signals;

/// What a program says that has proved itself.
pub const PROVED: &str = "proved";

/// A program, held open.
#[derive(Debug)]
pub struct Program(File);

impl Program {
    /// The one that runs.
    pub fn current() -> Result<Self, String> {
        Self::open(Path::new("/proc/self/exe"))
    }

    /// The one that lies there now.
    pub fn open(path: &Path) -> Result<Self, String> {
        File::open(path)
            .map(Self)
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    /// A command that makes a server of it: first words about this one, then those that are about all.
    pub fn server(&self, first: &[&str], words: &[OsString], signals: Signals) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
        command.arg0("claimfs").arg("serve").args(first).args(words);
        signals.unkept_in(&mut command);
        command
    }

    /// The program that lies there now, if it shows that it starts and that it can read the state of a connection, which changes
    /// nothing.
    pub fn proved(
        path: &Path,
        connection: &str,
        words: &[OsString],
        signals: Signals,
        patience: Duration,
    ) -> Result<Self, String> {
        let program = Self::open(path)?;
        let first = ["--prove", "--connection", connection];
        let mut command = program.server(&first, words, signals);
        let pipes = command.stdin(Stdio::null()).stdout(Stdio::piped());
        let cannot = |error: io::Error| format!("it cannot be started: {error}");
        let mut child = pipes.stderr(Stdio::piped()).spawn().map_err(cannot)?;
        let until = Instant::now() + patience;
        let status = loop {
            match child.try_wait().map_err(cannot)? {
                Some(status) => break status,
                None if Instant::now() > until => _ = child.kill(),
                None => thread::sleep(Duration::from_millis(2)),
            }
        };
        let said = child.stdout.take().map(io::read_to_string);
        if status.success()
            && said
                .and_then(Result::ok)
                .is_some_and(|said| said.trim() == PROVED)
        {
            return Ok(program);
        }
        let why = child.stderr.take().map(io::read_to_string);
        let why = why.and_then(Result::ok).unwrap_or_default();
        let line = why
            .lines()
            .next()
            .unwrap_or("it does not say that it is a claimfs");
        Err(format!("it cannot take over ({status}): {line}"))
    }
}
