//! `claimfs enter SESSION -- CMD`. Internal: `claimfs run` starts it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;

use super::tool::{self, Mount};
use super::{Exit, Failure, child, session};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The session
    id: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

impl Arguments {
    /// Makes this process a root of the session, then executes the command.
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let mount = Mount::find(mount)?;
        session::register(&mount, &self.id, false)
            .map_err(|error| Failure::unavailable(format!("sessions/{}: {error}", self.id)))?;
        // From here on this process holds the session. If that ended before, this is a new session,
        // which holds nothing.
        let claim = std::env::var("CLAIMFS_CLAIM").unwrap_or_default();
        let token = std::env::var("CLAIMFS_TOKEN").unwrap_or_default();
        let record = mount.lease(&tool::claim_name(&claim)?)?.unwrap_or_default();
        if record["session"] != self.id.as_str() || tool::field(&record, "token") != token {
            return Err(Failure::held(format!(
                "claims/{claim}: lost before the command was started"
            )));
        }
        let mut command = child::command(&self.command)?;
        let error = command.exec();
        Err(child::unstarted(&command, &error))
    }
}
