//! `claimfs release NAME`, or a path

use std::fs;
use std::io;
use std::path::Path;

use serde_json::json;

use super::covering;
use super::output;
use super::tool::{self, Mount};
use super::{Exit, Failure};
use crate::core::Name;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The name to give back; or the path of a reservation, which is given back alone, while
    /// 'claimfs unreserve' also gives back those below it
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
        let name = tool::lease_name(&self.name)?;
        if name.is_path() && self.session.is_some() {
            return Err(Failure::usage(NO_PATH));
        }
        let mount = Mount::find(mount)?;
        let file = name.file();
        let path = mount.path(&[&file]);
        let removed = match &self.session {
            Some(id) => {
                let id = tool::session_id(id)?;
                mount.control(&json!({ "release": name.as_str(), "session": id.as_str() }))
            }
            None => fs::remove_file(&path).or_else(|error| {
                if error.kind() == io::ErrorKind::IsADirectory && !name.is_path() {
                    fs::remove_dir(&path)
                } else {
                    Err(error)
                }
            }),
        };
        match removed {
            Ok(()) => self.done(&mount, &name, true),
            Err(error) if is_absent(&name, &error) => self.done(&mount, &name, false),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EPERM)) => {
                // Its holder released it in the meantime, as requested.
                let Some(record) = mount.lease(&name)? else {
                    return self.done(&mount, &name, false);
                };
                let held = tool::held_by(&mount, &name, &record);
                output::done_quietly(self.json, &held, &record)?;
                Err(Failure::held(held))
            }
            Err(error) => Err(mount.failed(&[&file], &error)),
        }
    }

    /// The name is free: whether it was given back or was free already.
    fn done(&self, mount: &Mount, name: &Name, released: bool) -> Result<Exit, Failure> {
        let how = if released {
            "given back"
        } else {
            "free already"
        };
        if name.is_path() && !released {
            say_rest(mount, name)?;
        }
        let value = json!({ "name": name.as_str(), "released": released });
        output::done_quietly(self.json, &format!("{}: {how}", name.file()), &value)?;
        Ok(Exit::Done)
    }
}

/// The message for a reservation of a session that lives by a deadline.
const NO_PATH: &str =
    "--session is for a name: a session that lives by a deadline has no reservations";

/// Whether nothing was there to remove. A path below a reservation has no directory, and one above
/// a reservation is one.
fn is_absent(name: &Name, error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
    match error.kind() {
        NotFound => true,
        IsADirectory | NotADirectory => name.is_path(),
        _ => false,
    }
}

/// Says what is reserved above or below a path that has no reservation of its own.
fn say_rest(mount: &Mount, name: &Name) -> Result<(), Failure> {
    if let Some((by, record)) = covering::covering(mount, name)? {
        let whole = covering::held(mount, name, &by, &record);
        tool::complain(&format!(
            "{whole}; 'claimfs release {by}' gives back all of that"
        ));
        return Ok(());
    }
    let below = covering::below(mount, name)?;
    if !below.is_empty() {
        let path = covering::shown(name);
        tool::complain(&format!(
            "{path}: not reserved itself; 'claimfs unreserve {path}' gives back what you have below it:"
        ));
        for line in covering::below_lines(mount, &below) {
            tool::complain(&line);
        }
    }
    Ok(())
}
