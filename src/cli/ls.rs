//! `claimfs ls`

use std::collections::{HashMap, HashSet};
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::columns::{self, SCREEN};
use super::output;
use super::tool::{self, Mount};
use super::{Exit, Failure, watch};
use crate::core::printable;
use crate::sys::terminal;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print the records as JSON, a line each
    #[arg(long)]
    json: bool,
    /// Show who holds what, who waits and the last events, on a screen that follows each change
    /// until q [where standard output is no terminal: the table again after each change]
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// Truncate nothing [as where standard output is no terminal]
    #[arg(long, conflicts_with_all = ["json", "watch"])]
    wide: bool,
}

/// Printed where there are no leases.
pub(super) const NOTHING: &str = "nothing is held";

pub(super) const HEADING: [&str; 7] = [
    "CLAIM", "SESSION", "HOLDER", "AGE", "LEFT", "WAITERS", "REASON",
];

impl Arguments {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let mount = Mount::find(mount)?;
        let on_terminal = io::stdout().is_terminal();
        if self.watch {
            return watch::run(&mount, on_terminal);
        }
        let records = mount.leases()?;
        if self.json {
            for record in &records {
                if !output::list_json(record)? {
                    break;
                }
            }
            return Ok(Exit::Done);
        }
        if records.is_empty() {
            tool::complain(NOTHING);
            return Ok(Exit::Done);
        }
        let rows = rows(&mount, &records)?;
        let lines = if on_terminal && !self.wide {
            let room = terminal::size().map_or(SCREEN, |(width, _)| width);
            columns::fitted(&HEADING, &rows, room)
        } else {
            columns::aligned(&HEADING, &rows)
        };
        output::list_line(&lines.join("\n"))?;
        Ok(Exit::Done)
    }
}

/// The rows of the table of these leases.
pub(super) fn rows(mount: &Mount, records: &[Value]) -> Result<Vec<Vec<String>>, Failure> {
    let now = SystemTime::now();
    let is_waited_for = records.iter().any(|record| record["waiters"].is_u64());
    let mut waiting: HashMap<String, Vec<String>> = HashMap::new();
    let waiters = is_waited_for.then(|| mount.waiters()).transpose()?;
    for waiter in waiters.iter().flatten() {
        let name = waiter["claim"].as_str().unwrap_or_default();
        let queue = waiting.entry(name.to_owned()).or_default();
        queue.push(waiter_name(waiter));
    }
    let mut roots = Roots::default();
    let rows = records.iter().map(|record| {
        let cell = |key| tool::field(record, key);
        let holder = roots.holder(mount, record).unwrap_or_else(none);
        let age = tool::age(record, "acquired_at", now).map_or_else(none, tool::short);
        let name = record["name"].as_str().unwrap_or_default();
        vec![
            cell("name"),
            cell("session"),
            holder,
            age,
            left(record),
            waiting
                .get(name)
                .map_or_else(none, |queue| queue.join(", ")),
            record["reason"].as_str().map_or_else(none, printable),
        ]
    });
    Ok(rows.collect())
}

/// The roots of sessions, each read once.
#[derive(Default)]
struct Roots(HashMap<String, Vec<Value>>);

impl Roots {
    /// The living process of a lease. `None` if its session lives by a deadline.
    fn holder(&mut self, mount: &Mount, record: &Value) -> Option<String> {
        let session = record["session"].as_str().unwrap_or_default();
        if !self.0.contains_key(session) {
            let roots = tool::roots(mount, session);
            self.0.insert(session.to_owned(), roots);
        }
        let process = tool::living_of(self.0.get(session)?, record)?;
        let (pid, command) = (
            tool::field(&process, "pid"),
            tool::field(&process, "command"),
        );
        Some(format!("{pid} {command}"))
    }
}

/// The field that [`name_holders`] adds to a record.
pub(super) const HOLDER: &str = "holder";

/// Adds the holder, as the table shows it, to the records of these tokens that have none yet.
pub(super) fn name_holders(mount: &Mount, records: &mut [Value], tokens: &HashSet<u64>) {
    let mut roots = Roots::default();
    for record in records {
        let token = record["token"].as_u64().unwrap_or_default();
        if tokens.contains(&token) && record.get(HOLDER).is_none() {
            record[HOLDER] = roots.holder(mount, record).into();
        }
    }
}

/// An empty cell.
fn none() -> String {
    columns::NOTHING.to_owned()
}

/// A waiter as a table shows it: its place, and its session.
fn waiter_name(waiter: &Value) -> String {
    let place = tool::field(waiter, "place");
    match &waiter["session"] {
        Value::Null => format!("{place}. pid {}", tool::field(waiter, "pid")),
        _ => format!("{place}. {}", tool::field(waiter, "session")),
    }
}

/// The time until a lease ends unless it is renewed.
fn left(record: &Value) -> String {
    let left = record["expires_in"].as_f64();
    let left = left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    left.map_or_else(none, |left| tool::short(left.as_secs()))
}
