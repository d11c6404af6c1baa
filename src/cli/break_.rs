//! `claimfs break NAME`, or a path

use std::path::Path;

use serde_json::{Value, json};

use super::covering;
use super::output;
use super::tool::{self, Mount};
use super::{Exit, Failure};
use crate::core::Name;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The name to free, or the path of a reservation
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
            return self.absent(&mount, &name);
        };
        let holder = tool::holder(&mount, &record);
        let command = json!({ "break": name.as_str(), "token": record["token"] });
        let written = mount.control(&command);
        match written.map_err(|error| (error.raw_os_error(), error)) {
            Ok(()) => {
                let sentence = format!("{}: taken from {holder}, which lives", name.file());
                let mut broken = json!({ "name": name.as_str(), "broken": true });
                for key in ["session", "token", "pid", "command", "uid"] {
                    broken[key] = record[key].clone();
                }
                output::done(self.json, &sentence, &broken)?;
                Ok(Exit::Done)
            }
            // Released in the meantime.
            Err((Some(libc::ENOENT), _)) => self.absent(&mount, &name),
            Err((Some(libc::ESTALE), _)) => Err(Failure::held(format!(
                "{}: it has changed hands meanwhile; see 'claimfs show {name}'",
                name.file()
            ))),
            Err((Some(libc::EPERM), _)) => Err(Failure::held(format!(
                "{}: held by {holder}, of another user or sandbox; only that user and root may break it",
                name.file()
            ))),
            Err((_, error)) => Err(mount.failed(&["control"], &error)),
        }
    }

    /// Nobody holds the name. Reservations above or below a path are left alone.
    fn absent(&self, mount: &Mount, name: &Name) -> Result<Exit, Failure> {
        let mut sentence = format!("{}: free already; there is nothing to break", name.file());
        let mut value = json!({ "name": name.as_str(), "broken": false });
        if let Some((by, record)) = covered(mount, name)? {
            let held = covering::held(mount, name, &by, &record);
            sentence = format!("{held}; 'claimfs break {by}' frees all of that");
            value["covered_by"] = json!(by.as_str());
        } else if name.is_path() {
            let below = covering::below(mount, name)?;
            let lines = covering::below_lines(mount, &below);
            if !lines.is_empty() {
                let path = covering::shown(name);
                let lines = lines.join("\n  ");
                sentence = format!(
                    "{path}: not reserved itself; break what is below it one by one:\n  {lines}"
                );
                let below = below.iter().map(|(name, _)| name.as_str());
                value["below"] = json!(below.collect::<Vec<_>>());
            }
        }
        output::done_quietly(self.json, &sentence, &value)?;
        Err(Failure::absent(sentence))
    }
}

/// The reservation above a path, which covers it.
fn covered(mount: &Mount, name: &Name) -> Result<Option<(Name, Value)>, Failure> {
    if name.is_path() {
        covering::covering(mount, name)
    } else {
        Ok(None)
    }
}
