//! `claimfs wait NAME`

use std::path::Path;

use super::output;
use super::queue::{self, Patience};
use super::tool::{self, Mount};
use super::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The name to wait for
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
        let name = tool::claim_name(&self.name)?;
        let patience = match &self.timeout {
            Some(time) => Patience::limit(time)?,
            None => Patience::Endless,
        };
        let mount = Mount::find(mount)?;
        if queue::until_free(&mount, &name, patience.end())? {
            let sentence = format!("{}: free", name.file());
            output::done_quietly(self.json, &sentence, &tool::nobody(&name))?;
            return Ok(Exit::Done);
        }
        let record = mount.lease(&name)?.unwrap_or_else(|| tool::nobody(&name));
        output::done_quietly(self.json, &tool::held_by(&name, &record), &record)?;
        Err(Failure::held(format!(
            "{}; waited in vain",
            tool::held_by(&name, &record)
        )))
    }
}
