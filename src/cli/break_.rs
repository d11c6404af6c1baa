//! `claimfs break NAME`

use std::path::Path;

use serde_json::json;

use super::tool::{self, Mount};
use super::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The name to free
    name: String,
}

impl Arguments {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let name = tool::lease_name(&self.name)?;
        let mount = Mount::find(mount)?;
        let Some(record) = mount.lease(&name)? else {
            return Ok(Exit::Done);
        };
        let command = json!({ "break": name.as_str(), "token": record["token"] });
        let written = mount.control(&command);
        let (session, pid) = (tool::field(&record, "session"), tool::field(&record, "pid"));
        match written.map_err(|error| (error.raw_os_error(), error)) {
            Ok(()) => {
                tool::say(&format!(
                    "{}: taken from session {session} (pid {pid}), which lives",
                    name.file()
                ));
                Ok(Exit::Done)
            }
            // Released in the meantime, as requested.
            Err((Some(libc::ENOENT), _)) => Ok(Exit::Done),
            Err((Some(libc::ESTALE), _)) => Err(Failure::held(format!(
                "{}: it has changed hands meanwhile; see 'claimfs show {name}'",
                name.file()
            ))),
            Err((Some(libc::EPERM), _)) => Err(Failure::held(format!(
                "{}: held by session {session} of another user or sandbox; only that user and root may break it",
                name.file()
            ))),
            Err((_, error)) => Err(Failure::unavailable(format!("control: {error}"))),
        }
    }
}
