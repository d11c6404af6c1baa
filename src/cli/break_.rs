//! `claimfs break NAME`

use std::path::Path;

use serde_json::json;

use super::output;
use super::tool::{self, Mount};
use super::{Exit, Failure};
use crate::core::Name;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The name to free
    name: String,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let name = tool::lease_name(&self.name)?;
        let mount = Mount::find(mount)?;
        let Some(record) = mount.lease(&name)? else {
            return self.absent(&name);
        };
        let command = json!({ "break": name.as_str(), "token": record["token"] });
        let written = mount.control(&command);
        let (session, pid) = (tool::field(&record, "session"), tool::field(&record, "pid"));
        match written.map_err(|error| (error.raw_os_error(), error)) {
            Ok(()) => {
                let sentence = format!(
                    "{}: taken from session {session} (pid {pid}), which lives",
                    name.file()
                );
                let mut broken = json!({ "name": name.as_str(), "broken": true });
                for key in ["session", "token", "pid", "command", "uid"] {
                    broken[key] = record[key].clone();
                }
                output::done(self.json, &sentence, &broken)?;
                Ok(Exit::Done)
            }
            // Released in the meantime.
            Err((Some(libc::ENOENT), _)) => self.absent(&name),
            Err((Some(libc::ESTALE), _)) => Err(Failure::held(format!(
                "{}: it has changed hands meanwhile; see 'claimfs show {name}'",
                name.file()
            ))),
            Err((Some(libc::EPERM), _)) => Err(Failure::held(format!(
                "{}: held by session {session} of another user or sandbox; only that user and root may break it",
                name.file()
            ))),
            Err((_, error)) => Err(mount.failed(&["control"], &error)),
        }
    }

    /// Nobody holds the name.
    fn absent(&self, name: &Name) -> Result<Exit, Failure> {
        let sentence = format!("{}: free already; there is nothing to break", name.file());
        let value = json!({ "name": name.as_str(), "broken": false });
        output::done_quietly(self.json, &sentence, &value)?;
        Err(Failure::absent(sentence))
    }
}
