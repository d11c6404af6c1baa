//! `claimfs give NAME SESSION`

use std::path::Path;

use serde_json::json;

use super::output;
use super::tool::{self, Mount};
use super::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The name to hand over, or the path of a reservation
    name: String,
    /// The live session to hand it to
    session: String,
    /// Print the lease's record as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let name = tool::lease_name(&self.name)?;
        let id = tool::session_id(&self.session)?;
        let mount = Mount::find(mount)?;
        let Some(record) = mount.lease(&name)? else {
            return Err(Failure::absent(format!(
                "{}: free; there is nothing to hand over",
                name.file()
            )));
        };
        let command = json!({ "give": name.as_str(), "to": id.as_str() });
        let given = mount.control(&command);
        match given.map_err(|error| (error.raw_os_error(), error)) {
            Ok(()) => {
                let record = mount.lease(&name)?.unwrap_or_else(|| tool::nobody(&name));
                let token = tool::field(&record, "token");
                let sentence = format!("{}: handed to session {id}, token {token}", name.file());
                output::done(self.json, &sentence, &record)?;
                Ok(Exit::Done)
            }
            Err((Some(libc::EBUSY), _)) => {
                Err(Failure::held(tool::held_by(&mount, &name, &record)))
            }
            Err((Some(libc::ENOENT), _)) => Err(Failure::absent(format!(
                "{}: no live session {id} to hand it to; see 'claimfs session ls'",
                name.file()
            ))),
            Err((Some(libc::EPERM), _)) => Err(Failure::held(format!(
                "{}: session {id} is another user's, or outside your sandbox; see 'claimfs session ls'",
                name.file()
            ))),
            Err((_, error)) => Err(mount.failed(&["control"], &error)),
        }
    }
}
