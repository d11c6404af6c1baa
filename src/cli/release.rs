//! `claimfs release NAME`

use std::fs;
use std::io;
use std::path::Path;

use super::tool::{self, Mount};
use super::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The name to give back
    name: String,
}

impl Arguments {
    pub fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let name = tool::claim_name(&self.name)?;
        let mount = Mount::find(mount)?;
        let path = mount.path(&["claims", name.as_str()]);
        let removed = fs::remove_file(&path).or_else(|error| {
            let is_directory = error.kind() == io::ErrorKind::IsADirectory;
            if is_directory {
                fs::remove_dir(&path)
            } else {
                Err(error)
            }
        });
        match removed {
            Ok(()) => Ok(Exit::Done),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Exit::Done),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EPERM)) => {
                // Freed by its holder since it was refused: what was asked for is so.
                let Some(record) = mount.lease(&name)? else {
                    return Ok(Exit::Done);
                };
                Err(Failure::held(tool::held_by(&name, &record)))
            }
            Err(error) => Err(Failure::unavailable(format!("claims/{name}: {error}"))),
        }
    }
}
