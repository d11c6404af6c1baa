//! `claimfs release NAME`

use std::fs;
use std::io;
use std::path::Path;

use serde_json::json;

use super::tool::{self, Mount};
use super::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The name to give back
    name: String,
    /// The session that holds it, where the mount cannot see this process
    #[arg(long, value_name = "ID")]
    session: Option<String>,
}

impl Arguments {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let name = tool::claim_name(&self.name)?;
        let mount = Mount::find(mount)?;
        let path = mount.path(&["claims", name.as_str()]);
        let removed = match &self.session {
            Some(id) => {
                let id = tool::session_id(id)?;
                mount.control(&json!({ "release": name.as_str(), "session": id.as_str() }))
            }
            None => fs::remove_file(&path).or_else(|error| {
                if error.kind() == io::ErrorKind::IsADirectory {
                    fs::remove_dir(&path)
                } else {
                    Err(error)
                }
            }),
        };
        match removed {
            Ok(()) => Ok(Exit::Done),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Exit::Done),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EPERM)) => {
                // Its holder released it in the meantime, as requested.
                let Some(record) = mount.lease(&name)? else {
                    return Ok(Exit::Done);
                };
                Err(Failure::held(tool::held_by(&name, &record)))
            }
            Err(error) => Err(Failure::unavailable(format!("claims/{name}: {error}"))),
        }
    }
}
