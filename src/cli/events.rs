//! `claimfs events`

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

use super::output;
use super::tool::{self, Mount};
use super::{Exit, Failure};
use crate::core::printable;
use crate::sys::poll::Polled;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Go on; without it, this ends with the first thing that happens
    #[arg(short, long)]
    follow: bool,
    /// Print the events as JSON, as the file events has them
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let mount = Mount::find(mount)?;
        let failed = |error: io::Error| mount.failed(&["events"], &error);
        let events = File::open(mount.path(&["events"])).map_err(failed)?;
        for line in BufReader::new(Polled(events)).lines() {
            let line = line.map_err(failed)?;
            let text = if self.json { line } else { sentence(&line) };
            if !output::list_line(&text)? || !self.follow {
                break;
            }
        }
        Ok(Exit::Done)
    }
}

/// A field, or a process in one, as words.
fn one(event: &Value, key: &str) -> String {
    let process = &event[key];
    if !process.is_object() {
        return tool::field(event, key);
    }
    let name = tool::process(process);
    match &process["exit"] {
        Value::Null => name,
        code => format!("{name} that exited with {code}"),
    }
}

/// Why a session or a lease ended, in words, unless its signal says it.
fn why(event: &Value) -> Option<String> {
    let why = match event.get("why")?.as_str()? {
        "killed" => return None,
        "exited" => "its holder exited",
        "tied_process_ended" => "the process that it was tied to ended",
        "session_died" => "its session ended",
        "session_ended" => "its session was ended",
        _ => return Some(tool::field(event, "why")),
    };
    Some(String::from(why))
}

/// An event as a sentence: time, kind, claim, session and details.
fn sentence(line: &str) -> String {
    let Ok(event) = serde_json::from_str::<Value>(line) else {
        return printable(line);
    };
    if let Some(missed) = event["missed"].as_u64() {
        return format!("({missed} events missed)");
    }
    let field = |key| tool::field(&event, key);
    let mut more = Vec::new();
    for (key, label) in [
        ("token", "token"),
        ("pid", "pid"),
        ("command", ""),
        ("from", "from"),
        ("to", "to"),
        ("signal", "killed by signal"),
    ] {
        // A session that lives by its deadline has no process.
        let is_none = event["pid"] == 0 && ["pid", "command"].contains(&key);
        if event.get(key).is_some() && !is_none {
            more.push(format!("{label} {}", one(&event, key)).trim().to_owned());
        }
    }
    more.extend(why(&event));
    let by = &event["by"];
    if by.is_object() {
        let who = (tool::field(by, "uid"), tool::field(by, "pid"));
        more.push(format!("by uid {}, pid {}", who.0, who.1));
    }
    let at = field("at");
    // In UTC, as the Z says.
    let time = at.get(11..).unwrap_or(&at);
    let claim = if event.get("claim").is_some() {
        field("claim")
    } else {
        String::from("-")
    };
    format!(
        "{time}  {:<15}  {claim}  {}  {}",
        field("event"),
        field("session"),
        more.join(", ")
    )
    .trim_end()
    .to_owned()
}
