//! `claimfs whoami`

use std::path::Path;

use serde_json::Value;

use super::output;
use super::tool::{self, Mount};
use super::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print all of it as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let me = Mount::find(mount)?.whoami()?;
        if self.json {
            output::list_json(&me)?;
            return Ok(Exit::Done);
        }
        if me["session"].is_null() {
            return Err(Failure::usage(format!(
                "no session: {}",
                tool::field(&me, "why")
            )));
        }
        let who = format!(
            "{} ({}: {})",
            tool::field(&me, "session"),
            tool::field(&me, "rule"),
            tool::field(&me, "why")
        );
        output::list_line(&if me["foreign"] == true {
            who
        } else {
            format!("{who}\n{}", lasts(&me))
        })?;
        Ok(Exit::Done)
    }
}

/// Who holds a claim of this command, and until when.
fn lasts(me: &Value) -> String {
    if me["scope"] != "process" {
        return String::from(
            "session scope: what one process of it claims, all of it holds, until the last of them exits",
        );
    }
    let last = tool::field(me, "ends_with");
    let next = &me["then"][0];
    if !next.is_object() {
        return String::from("process scope: what this command claims would be free once it exits");
    }
    let next = tool::process(next);
    if next == last {
        format!(
            "process scope: what 'claimfs claim' takes here is {next}'s, and free when that exits or is killed"
        )
    } else {
        format!(
            "process scope: what 'claimfs claim' takes here is {next}'s, its parent's when that exits, and free when \
             {last} exits or its holder is killed"
        )
    }
}
