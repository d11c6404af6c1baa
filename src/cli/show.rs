//! `claimfs show NAME`

use std::path::Path;
use std::time::SystemTime;

use serde_json::Value;

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
            tool::say_json(&record);
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
        if record.get("expires_in").is_some() {
            let (left, ttl) = (cell("expires_in"), cell("ttl"));
            tool::say(&format!("expires  in {left} s, if not renewed ({ttl} s)"));
        }
        // Who claimed may be long gone: what keeps the session alive is what is worth a look.
        for root in roots(&mount, &record) {
            let (pid, command) = (tool::field(&root, "pid"), tool::field(&root, "command"));
            tool::say(&format!("alive    pid {pid}, {command}"));
        }
        Ok(Exit::Done)
    }
}

/// The roots of the session that holds a lease, unless it has ended since.
fn roots(mount: &Mount, record: &Value) -> Vec<Value> {
    let id = record["session"].as_str().unwrap_or_default();
    let text = mount.read(&["sessions", id]).unwrap_or_default();
    let session: Value = serde_json::from_str(&text).unwrap_or_default();
    session["roots"].as_array().cloned().unwrap_or_default()
}
