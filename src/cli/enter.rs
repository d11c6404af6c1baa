//! `claimfs enter SESSION -- CMD`. Internal: `claimfs run` starts it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use serde_json::Value;

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
        self.take_name();
        session::register(&mount, &self.id, false)
            .map_err(|error| Failure::unavailable(format!("sessions/{}: {error}", self.id)))?;
        // From here on this process holds the session. If that ended before, this is a new session,
        // which holds nothing.
        let claim = std::env::var("CLAIMFS_CLAIM").unwrap_or_default();
        let token = std::env::var("CLAIMFS_TOKEN").unwrap_or_default();
        if !self.is_held(&mount, &claim, &token)? {
            return Err(Failure::held(format!(
                "claims/{claim}: lost before the command was started"
            )));
        }
        let mut command = child::command(&self.command)?;
        let error = command.exec();
        Err(child::unstarted(&command, &error))
    }

    /// Takes the name that the command will have, since a root of a session is shown by the name
    /// with which it became one.
    fn take_name(&self) {
        let program = self.command.first().map(Path::new);
        if let Some(name) = program.and_then(Path::file_name) {
            _ = fs::write("/proc/self/comm", name.as_bytes());
        }
    }

    /// Whether the session holds the name by this token; of several names, by these tokens.
    fn is_held(&self, mount: &Mount, claim: &str, token: &str) -> Result<bool, Failure> {
        let tokens: Vec<&str> = token.split(' ').collect();
        if tokens.len() < 2 {
            let record = mount.lease(&tool::claim_name(claim)?)?.unwrap_or_default();
            let is_own = record["session"] == self.id.as_str();
            return Ok(is_own && tool::field(&record, "token") == token);
        }
        // A name may contain spaces, so the tokens say which leases these are.
        let session: Value = serde_json::from_str(&mount.read(&["sessions", &self.id])?)
            .map_err(|error| Failure::unavailable(format!("sessions/{}: {error}", self.id)))?;
        let mut held = Vec::new();
        for name in session["leases"].as_array().into_iter().flatten() {
            let name = tool::claim_name(name.as_str().unwrap_or_default())?;
            let record = mount.lease(&name)?.unwrap_or_default();
            held.push(tool::field(&record, "token"));
        }
        Ok(tokens
            .iter()
            .all(|token| held.iter().any(|held| held == token)))
    }
}
