//! `claimfs show NAME`

use std::path::Path;
use std::time::SystemTime;

use serde_json::Value;

use super::tool::{self, Mount};
use super::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The name to show
    name: String,
    /// Print the record as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let name = tool::lease_name(&self.name)?;
        let mount = Mount::find(mount)?;
        let Some(record) = mount.lease(&name)? else {
            tool::complain(&format!("{}: free", name.file()));
            return Ok(Exit::Done);
        };
        if self.json {
            tool::say_json(&record);
            return Ok(Exit::Done);
        }
        let cell = |key| tool::field(&record, key);
        tool::say(&format!("claim    {name}"));
        tool::say(&format!("session  {}", cell("session")));
        let is_process = record["scope"] == "process" || record.get("bound_pid").is_some();
        let who = if is_process { "holder " } else { "process" };
        tool::say(&format!(
            "{who}  pid {}, {}, uid {}",
            cell("pid"),
            cell("command"),
            cell("uid")
        ));
        if record.get("from_pid").is_some() {
            let how = match &record["from_exit"] {
                Value::Null => String::from("which has ended, so it passed on"),
                code => format!("which exited with {code}, so it passed on"),
            };
            let (pid, command) = (cell("from_pid"), cell("from_command"));
            tool::say(&format!("from     pid {pid}, {command}, {how}"));
        }
        let held = tool::ago(&record, "acquired_at", SystemTime::now());
        tool::say(&format!("since    {} ({held})", cell("acquired_at")));
        tool::say(&format!("token    {}", cell("token")));
        if let Some(reason) = tool::reason(&record) {
            tool::say(&format!("reason   {reason}, as the holder says"));
        }
        if record.get("expires_in").is_some() {
            let (left, ttl) = (cell("expires_in"), cell("ttl"));
            tool::say(&format!("expires  in {left} s, if not renewed ({ttl} s)"));
        }
        if record.get("bound_pid").is_some() {
            let pid = cell("bound_pid");
            tool::say(&format!("free     when pid {pid} ends, in any way"));
            return Ok(Exit::Done);
        }
        let roots = roots(&mount, &record);
        if let Some(holder) = roots.iter().find(|root| is_maker(root, &record)) {
            for line in successor_lines(holder, &roots) {
                tool::say(&line);
            }
            return Ok(Exit::Done);
        }
        // The process that claimed may have exited. Show the processes that keep the session alive.
        for root in roots {
            let (pid, command) = (tool::field(&root, "pid"), tool::field(&root, "command"));
            tool::say(&format!("alive    pid {pid}, {command}"));
        }
        Ok(Exit::Done)
    }
}

/// True if this process holds the lease under process scope.
fn is_maker(root: &Value, record: &Value) -> bool {
    record["scope"] == "process" && root["pid"] == record["pid"]
}

/// The processes that a lease under process scope will pass to, as lines.
fn successor_lines(holder: &Value, roots: &[Value]) -> Vec<String> {
    let by_pid = |pid: &Value| roots.iter().find(|root| root["pid"] == *pid);
    let next = |root: &&Value| by_pid(&root["next_pid"]);
    let all: Vec<&Value> = std::iter::successors(Some(holder), next)
        .take(roots.len())
        .collect();
    let successors = all.get(1..).unwrap_or_default();
    let mut lines: Vec<String> = successors
        .iter()
        .map(|root| {
            let (pid, command) = (tool::field(root, "pid"), tool::field(root, "command"));
            format!("next     pid {pid}, {command}, once the one before exits")
        })
        .collect();
    lines.push(match successors.last() {
        Some(last) => format!(
            "free     once {} exits, or as soon as its holder is killed",
            tool::process(last)
        ),
        None => String::from("free     once the holder exits or is killed"),
    });
    lines
}

/// The attribute of a file in `sessions/` that has the roots of the session.
const ROOTS: &str = "user.claimfs.roots";

/// The roots of the session that holds a lease. Empty if it has ended.
fn roots(mount: &Mount, record: &Value) -> Vec<Value> {
    let id = record["session"].as_str().unwrap_or_default();
    if let Some(roots) = mount.attribute(&["sessions", id], ROOTS) {
        return roots.as_array().cloned().unwrap_or_default();
    }
    let text = mount.read(&["sessions", id]).unwrap_or_default();
    let session: Value = serde_json::from_str(&text).unwrap_or_default();
    session["roots"].as_array().cloned().unwrap_or_default()
}
