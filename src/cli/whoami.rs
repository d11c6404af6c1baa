//! `claimfs whoami`

use std::path::Path;

use super::tool::{self, Mount};
use super::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print all of it as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let me = Mount::find(mount)?.whoami()?;
        if self.json {
            tool::say_json(&me);
            return Ok(Exit::Done);
        }
        if me["session"].is_null() {
            return Err(Failure::usage(format!(
                "no session: {}",
                tool::field(&me, "why")
            )));
        }
        tool::say(&format!(
            "{} ({}: {})",
            tool::field(&me, "session"),
            tool::field(&me, "rule"),
            tool::field(&me, "why")
        ));
        Ok(Exit::Done)
    }
}
