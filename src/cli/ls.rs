//! `claimfs ls`

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::tool::{self, Mount};
use super::{Exit, Failure};
use crate::sys::poll::wait_readable;
use crate::sys::terminal;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print the records as JSON, a line each
    #[arg(long)]
    json: bool,
    /// Go on, and show each change
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

/// The default size of a screen: columns and lines.
const SCREEN: (usize, usize) = (80, 24);

/// The width of each column on a terminal, at most: 79 in all, with two between each.
const WIDTHS: [usize; 6] = [18, 16, 7, 10, 11, 7];

impl Arguments {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let mount = Mount::find(mount)?;
        if self.watch {
            return watch(&mount);
        }
        let records = mount.leases()?;
        if self.json {
            for record in &records {
                tool::say_json(record);
            }
            return Ok(Exit::Done);
        }
        let now = SystemTime::now();
        let rows: Vec<Vec<String>> = records.iter().map(|record| row(record, now)).collect();
        tool::table(&HEADING[..5], &rows);
        Ok(Exit::Done)
    }
}

const HEADING: [&str; 6] = ["CLAIM", "SESSION", "PID", "COMMAND", "HELD FOR", "WAITERS"];

fn row(record: &Value, now: SystemTime) -> Vec<String> {
    let cell = |key| tool::field(record, key);
    vec![
        cell("name"),
        cell("session"),
        cell("pid"),
        cell("command"),
        tool::ago(record, "acquired_at", now),
    ]
}

/// Shows the leases after each change; on a terminal also once a second, in place.
fn watch(mount: &Mount) -> Result<Exit, Failure> {
    let failed = |error: io::Error| Failure::unavailable(format!("events: {error}"));
    let mut events = File::open(mount.path(&["events"])).map_err(failed)?;
    let on_terminal = io::stdout().is_terminal();
    let tick = on_terminal.then_some(Duration::from_secs(1));
    let mut buffer = vec![0; 1 << 16];
    let mut before = None;
    loop {
        let records = mount.leases()?;
        let changed = before.as_ref() != Some(&records);
        if changed || on_terminal {
            let mut out = io::stdout().lock();
            let shown = out.write_all(snapshot(&records, on_terminal).as_bytes());
            if shown.and_then(|()| out.flush()).is_err() {
                return Ok(Exit::Done);
            }
            before = Some(records);
        }
        if wait_readable(&events, tick).map_err(failed)? {
            match events.read(&mut buffer) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(failed(error));
                }
                _ => {}
            }
        }
    }
}

fn snapshot(records: &[Value], on_terminal: bool) -> String {
    let now = SystemTime::now();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for record in records {
        let mut cells = row(record, now);
        let waiters = record["waiters"].as_u64().unwrap_or(0);
        cells.push(waiters.to_string());
        if on_terminal {
            let columns = cells.iter_mut().zip(WIDTHS);
            columns.for_each(|(cell, width)| clip(cell, width));
        }
        rows.push(cells);
    }
    let mut lines = tool::aligned(&HEADING, &rows);
    if !on_terminal {
        lines.extend([String::new(), String::new()]);
        return lines.join("\n");
    }
    let (width, height) = terminal::size().unwrap_or(SCREEN);
    let room = height.saturating_sub(2).max(1);
    if lines.len() > room {
        let hidden = lines.len() - room;
        lines.truncate(room);
        lines.push(format!("and {hidden} more"));
    }
    let mut text = String::from("\x1b[H");
    for mut line in lines {
        clip(&mut line, width.saturating_sub(1));
        text.push_str(&line);
        text.push_str("\x1b[K\n");
    }
    text.push_str("\x1b[J");
    text
}

/// Truncates a text to a number of characters, visibly.
fn clip(text: &mut String, width: usize) {
    if text.chars().count() > width {
        *text = text.chars().take(width.saturating_sub(1)).collect();
        text.push('…');
    }
}
