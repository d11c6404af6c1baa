//! `claimfs log [NAME]`

use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

use super::output;
use super::tool::{self, Mount};
use super::{Exit, Failure};
use crate::core::Name;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only what happened to this name, or to the reservation of this path
    name: Option<String>,
    /// Print the events as JSON, as the file history has them
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let name = self.name.as_deref().map(tool::lease_name).transpose()?;
        let mount = Mount::find(mount)?;
        let there = fs::symlink_metadata(mount.path(&[HISTORY]));
        if there.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Err(Failure::unavailable(format!(
                "{HISTORY}: the server of this mount is of an older claimfs, which keeps none; \
                 'claimfs upgrade' brings this one"
            )));
        }
        let history = mount.read(&[HISTORY])?;
        let mut is_empty = true;
        for line in history.lines() {
            let Ok(event) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            if name.as_ref().is_some_and(|name| !concerns(&event, name)) {
                continue;
            }
            is_empty = false;
            let is_read = if self.json {
                output::list_json(&event)?
            } else {
                output::list_line(&sentence(&event, name.as_ref()))?
            };
            if !is_read {
                break;
            }
        }
        if is_empty && !self.json {
            let whose = name.map_or(String::new(), |name| format!("{}: ", name.file()));
            tool::complain(&format!("{whose}nothing in the history"));
        }
        Ok(Exit::Done)
    }
}

/// The file of the mount.
const HISTORY: &str = "history";

/// Whether an event is about a name.
fn concerns(event: &Value, name: &Name) -> bool {
    let is_it = |value: &Value| value == name.as_str();
    let several = event["claims"].as_array();
    is_it(&event["claim"]) || several.is_some_and(|names| names.iter().any(is_it))
}

/// An event as a sentence, which does not repeat the name that was asked for.
fn sentence(event: &Value, name: Option<&Name>) -> String {
    let whose = match (name, event.get("claim")) {
        (None, Some(_)) => format!("{}: ", tool::field(event, "claim")),
        _ => String::new(),
    };
    let at = tool::field(event, "at");
    format!("{at}  {whose}{}", happened(event))
}

/// The sentence of an event, without time and name.
pub(super) fn happened(event: &Value) -> String {
    let field = |key: &str| tool::field(event, key);
    let session = field("session");
    let process = || tool::process(event);
    match event["event"].as_str().unwrap_or_default() {
        "session_started" => format!("session {session} began"),
        "session_ended" => match event["why"].as_str() {
            Some("died") => format!("session {session} ended: all of its processes have ended"),
            Some("lapsed") => format!("session {session} ended: its time was over"),
            _ => format!("session {session} was ended {}", ended_by(event)),
        },
        "claimed" => format!(
            "claimed by {}, session {session}, token {}",
            process(),
            field("token")
        ),
        "queued" => format!("waited for by {}, session {session}", process()),
        "granted" => format!(
            "its turn came: session {session} has it, token {}",
            field("token")
        ),
        "left_queue" => format!("{}, session {session}, waits no longer", process()),
        "released" if event["why"] == "session_ended" => format!(
            "free: session {session} was ended {}; {} lost it",
            ended_by(event),
            process()
        ),
        "released" => format!("given back by session {session}; {} had it", process()),
        "handed" => format!(
            "handed by session {} to session {session}, token {}",
            field("from"),
            field("token")
        ),
        "broken" => {
            let by = &event["by"];
            format!(
                "broken by {}, uid {}; {}, session {session}, lost it",
                tool::process(by),
                tool::field(by, "uid"),
                process()
            )
        }
        "expired" => format!(
            "free: its time was over; {}, session {session}, lost it",
            process()
        ),
        "reaped" => format!("free: {}", reaped(event)),
        "passed" => passed(event),
        other => other.to_owned(),
    }
}

/// Who ended a session on purpose.
fn ended_by(event: &Value) -> String {
    let by = &event["by"];
    if by.is_object() {
        format!("by {}, uid {}", tool::process(by), tool::field(by, "uid"))
    } else {
        String::from("on purpose")
    }
}

/// Why a dead holder's name is free.
fn reaped(event: &Value) -> String {
    let (process, session) = (tool::process(event), tool::field(event, "session"));
    match event["why"].as_str() {
        Some("killed") => format!(
            "{process}, which held it, was killed by signal {}",
            tool::field(event, "signal")
        ),
        Some("exited") => {
            format!("{process}, which held it, exited, and no process above it could have it")
        }
        Some("tied_process_ended") => format!("{process}, which it was tied to, ended"),
        _ => format!("all processes of session {session}, which held it, have ended"),
    }
}

/// A process exited, and the one above it holds what it held.
fn passed(event: &Value) -> String {
    let (from, to) = (&event["from"], &event["to"]);
    let how = match &from["exit"] {
        Value::Null => String::from("ended"),
        code => format!("exited with {code}"),
    };
    let others = match event["leases"].as_u64() {
        Some(count) if count > 1 => format!(", with {} others", count - 1),
        _ => String::new(),
    };
    format!(
        "{} {how}, so {} holds it{others}",
        tool::process(from),
        tool::process(to)
    )
}
