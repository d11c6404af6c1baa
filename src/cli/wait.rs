//! `claimfs wait NAME`, or a path

use std::path::Path;

use super::covering::{self, Changes, Obstacle};
use super::output;
use super::queue::{self, Patience};
use super::status::Notes;
use super::take;
use super::tool::{self, Mount};
use super::{Exit, Failure};
use crate::core::Name;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The name to wait for; or a path, such as /home/me/app or ./src: until no other session has a
    /// reservation of it, above it or below it
    name: String,
    /// No longer than this, such as 30s [0 is not at all]
    #[arg(short = 'w', long, value_name = "TIME")]
    timeout: Option<String>,
    /// Print the name as JSON once it is free, or else the record of its holder
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let name = tool::lease_name(&self.name)?;
        if !name.is_path() {
            tool::single_name(&self.name)?;
        }
        let patience = match &self.timeout {
            Some(time) => Patience::limit(time)?,
            None => Patience::Endless,
        };
        let mount = Mount::find(mount)?;
        if name.is_path() {
            return match until_clear(&mount, &name, patience)? {
                None => {
                    mount.check_there()?;
                    self.free(&name)
                }
                Some(obstacle) => {
                    output::done_quietly(self.json, &obstacle.text, &obstacle.record)?;
                    let text = format!("{}; waited in vain", obstacle.text);
                    Err(Failure::held(text))
                }
            };
        }
        if patience != Patience::None
            && let Some(record) = mount.lease(&name)?
        {
            take::say_own(&mount, mount.whoami().ok().as_ref(), &name, &record);
        }
        if queue::until_free(&mount, &name, patience.end())? {
            mount.check_there()?;
            return self.free(&name);
        }
        let record = mount.lease(&name)?.unwrap_or_else(|| tool::nobody(&name));
        let held = tool::held_by(&mount, &name, &record);
        output::done_quietly(self.json, &held, &record)?;
        Err(Failure::held(format!("{held}; waited in vain")))
    }

    fn free(&self, name: &Name) -> Result<Exit, Failure> {
        let sentence = format!("{}: free", name.file());
        output::done_quietly(self.json, &sentence, &tool::nobody(name))?;
        Ok(Exit::Done)
    }
}

/// Waits until no other has a reservation of a path, above it or below it: the one that is still
/// there when time runs out.
fn until_clear(
    mount: &Mount,
    name: &Name,
    patience: Patience,
) -> Result<Option<Obstacle>, Failure> {
    let (end, names) = (patience.end(), std::slice::from_ref(name));
    let me = mount.whoami()?;
    let mut changes = Changes::open(mount)?;
    let mut notes = Notes::new();
    while let Some(obstacle) = covering::obstacles(mount, names, &me)? {
        if patience == Patience::None {
            return Ok(Some(obstacle));
        }
        notes.waiting(&obstacle.text, &obstacle.record);
        if !changes.wait(end)? {
            return covering::obstacles(mount, names, &me);
        }
    }
    Ok(None)
}
