//! `claimfs notify DIR`, which a server starts: not for people.

use std::io;
use std::path::PathBuf;

use super::{Exit, Failure};
use crate::inotify;
use crate::sys::terminal;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The mount
    dir: PathBuf,
    /// Its device, as mountinfo has it
    device: String,
}

impl Arguments {
    pub(super) fn run(&self) -> Result<Exit, Failure> {
        // So that it is a member of no session, even if it outlives the server.
        terminal::leave().map_err(|error| Failure::unavailable(format!("setsid: {error}")))?;
        inotify::serve(&self.dir, &self.device, io::stdin().lock())
            .map(|()| Exit::Done)
            .map_err(|error| Failure::unavailable(error.to_string()))
    }
}
