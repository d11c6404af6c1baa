//! `claimfs notify DIR`, which the server starts: not for people.

use std::io;
use std::path::PathBuf;

use super::{Exit, Failure};
use crate::inotify;
use crate::process::leave_terminal;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The mount
    dir: PathBuf,
    /// Its device, as mountinfo has it
    device: String,
}

impl Arguments {
    pub fn run(&self) -> Result<Exit, Failure> {
        // So that it belongs to nobody's session, whatever becomes of the server.
        leave_terminal().map_err(|error| Failure::unavailable(format!("setsid: {error}")))?;
        inotify::serve(&self.dir, &self.device, io::stdin().lock())
            .map(|()| Exit::Done)
            .map_err(|error| Failure::unavailable(error.to_string()))
    }
}
