//! `claimfs show NAME`

use std::path::Path;
use std::time::SystemTime;

use super::tool::{self, Mount};
use super::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The name to show
    name: String,
    /// Print the record as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let name = tool::claim_name(&self.name)?;
        let mount = Mount::find(mount)?;
        let Some(record) = mount.lease(&name)? else {
            tool::complain(&format!("claims/{name}: free"));
            return Ok(Exit::Done);
        };
        if self.json {
            tool::say(&record.to_string());
            return Ok(Exit::Done);
        }
        let cell = |key| tool::field(&record, key);
        tool::say(&format!("claim    {name}"));
        tool::say(&format!("session  {}", cell("session")));
        tool::say(&format!(
            "process  pid {}, {}, uid {}",
            cell("pid"),
            cell("command"),
            cell("uid")
        ));
        let held = tool::ago(&record, "acquired_at", SystemTime::now());
        tool::say(&format!("since    {} ({held})", cell("acquired_at")));
        tool::say(&format!("token    {}", cell("token")));
        Ok(Exit::Done)
    }
}
