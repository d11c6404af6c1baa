//! `claimfs release NAME`

use std::fs;
use std::io;
use std::path::Path;

use serde_json::json;

use super::output;
use super::tool::{self, Mount};
use super::{Exit, Failure};
use crate::core::Name;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The name to give back
    name: String,
    /// The session that holds it, where the mount cannot see this process
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
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
            Ok(()) => self.done(&name, true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.done(&name, false),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EPERM)) => {
                // Its holder released it in the meantime, as requested.
                let Some(record) = mount.lease(&name)? else {
                    return self.done(&name, false);
                };
                let held = tool::held_by(&name, &record);
                output::done_quietly(self.json, &held, &record)?;
                Err(Failure::held(held))
            }
            Err(error) => Err(mount.failed(&["claims", name.as_str()], &error)),
        }
    }

    /// The name is free: whether it was given back or was free already.
    fn done(&self, name: &Name, released: bool) -> Result<Exit, Failure> {
        let how = if released {
            "given back"
        } else {
            "free already"
        };
        let value = json!({ "name": name.as_str(), "released": released });
        output::done_quietly(self.json, &format!("{}: {how}", name.file()), &value)?;
        Ok(Exit::Done)
    }
}
