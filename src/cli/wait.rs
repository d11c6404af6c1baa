//! `claimfs wait NAME`

use std::path::Path;

use super::queue::{self, Patience};
use super::tool::{self, Mount};
use super::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The name to wait for
    name: String,
    /// No longer than this, such as 30s
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
}

impl Arguments {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let name = tool::claim_name(&self.name)?;
        let patience = match &self.timeout {
            Some(time) => Patience::For(tool::ttl(time)?),
            None => Patience::Endless,
        };
        let mount = Mount::find(mount)?;
        if queue::until_free(&mount, &name, patience.end())? {
            return Ok(Exit::Done);
        }
        let record = mount.lease(&name)?.unwrap_or_default();
        Err(Failure::held(format!(
            "{}; waited in vain",
            tool::held_by(&name, &record)
        )))
    }
}
