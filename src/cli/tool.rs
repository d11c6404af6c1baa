//! What the verbs share: finding the mount, reading its files, printing.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{env, fs};

use jiff::Timestamp;
use serde_json::Value;

use super::Failure;
use crate::content;
use crate::lease::{Name, Refusal, SessionId, printable};
use crate::mount::resolve_existing;
use crate::mounts::{self, FS_TYPE};
use crate::record;

/// Prints a line on standard output. A reader that has gone away is not an error.
pub fn say(text: &str) {
    _ = writeln!(io::stdout().lock(), "{text}");
}

/// Prints JSON on standard output, in one line.
pub fn say_json(value: &Value) {
    _ = write!(io::stdout().lock(), "{}", record::line(value));
}

/// Prints a line on standard error.
pub fn complain(text: &str) {
    _ = writeln!(io::stderr().lock(), "claimfs: {text}");
}

/// The root of a mount.
#[derive(Clone, Debug)]
pub struct Mount(PathBuf);

impl Mount {
    /// `--mount DIR`, else `$CLAIMFS_MOUNT`, else the only claimfs mount of this mount namespace.
    pub fn find(named: Option<&Path>) -> Result<Self, Failure> {
        let named = named.map(Path::to_path_buf);
        let named = named.or_else(|| {
            env::var_os("CLAIMFS_MOUNT")
                .filter(|dir| !dir.is_empty())
                .map(PathBuf::from)
        });
        if let Some(dir) = named {
            return Self::at(dir);
        }
        let mounts = mounts::ours()
            .map_err(|error| Failure::unavailable(format!("/proc/self/mountinfo: {error}")))?;
        match mounts.as_slice() {
            [] => Err(Failure::unavailable(
                "no claimfs is mounted here; mount one with 'claimfs mount DIR', or name one with --mount DIR",
            )),
            [mount] => Self::at(mount.dir.clone()),
            several => {
                let list: Vec<String> = several
                    .iter()
                    .map(|mount| format!("  {}", mount.dir.display()))
                    .collect();
                Err(Failure::unavailable(format!(
                    "several claimfs are mounted here; name one with --mount DIR or $CLAIMFS_MOUNT:\n{}",
                    list.join("\n")
                )))
            }
        }
    }

    fn at(dir: PathBuf) -> Result<Self, Failure> {
        if dir.join("claims").is_dir() && dir.join("leases").exists() {
            return Ok(Self(dir));
        }
        let shown = dir.display();
        Err(Failure::unavailable(match fs::metadata(&dir) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {
                format!(
                    "{shown}: the server of this mount is gone; mount it again with 'claimfs mount {shown}'"
                )
            }
            Err(error) => format!("{shown}: {error}; mount one with 'claimfs mount {shown}'"),
            Ok(_) => {
                format!("{shown}: not a claimfs mount; mount one with 'claimfs mount {shown}'")
            }
        }))
    }

    /// A file of the mount.
    pub fn path(&self, parts: &[&str]) -> PathBuf {
        parts
            .iter()
            .fold(self.0.clone(), |path, part| path.join(part))
    }

    /// The text of a file of the mount.
    pub fn read(&self, parts: &[&str]) -> Result<String, Failure> {
        let path = self.path(parts);
        fs::read_to_string(&path)
            .map_err(|error| Failure::unavailable(format!("{}: {error}", path.display())))
    }

    /// Writes a command to `control`.
    pub fn control(&self, command: &Value) -> io::Result<()> {
        let mut control = OpenOptions::new()
            .write(true)
            .open(self.path(&["control"]))?;
        control.write_all(format!("{command}\n").as_bytes())
    }

    /// The reader's own session, as `self` says.
    pub fn whoami(&self) -> Result<Value, Failure> {
        let text = self.read(&["self"])?;
        serde_json::from_str(&text).map_err(|error| Failure::unavailable(format!("self: {error}")))
    }

    /// The records of all leases, oldest first.
    pub fn leases(&self) -> Result<Vec<Value>, Failure> {
        let text = self.read(&["leases"])?;
        let records = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(records
            .filter(|record| record.get("name").is_some())
            .collect())
    }

    /// Everybody who stands in a line.
    pub fn waiters(&self) -> Result<Vec<Value>, Failure> {
        let text = self.read(&["waiters"])?;
        let records = text.lines();
        Ok(records
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }

    /// The record of one lease.
    pub fn lease(&self, name: &Name) -> Result<Option<Value>, Failure> {
        Ok(self
            .leases()?
            .into_iter()
            .find(|record| record["name"] == name.as_str()))
    }
}

/// The claimfs that is mounted on a directory, dead or alive, and its canonical path.
pub fn mounted_on(dir: &Path) -> Result<(PathBuf, mounts::Mount), Failure> {
    let dir = resolve_existing(dir).map_err(|problem| Failure::unavailable(problem.0))?;
    let there = mounts::on(&dir)
        .map_err(|error| Failure::unavailable(format!("/proc/self/mountinfo: {error}")))?;
    let Some(mount) = there.filter(|mount| mount.fs_type == FS_TYPE) else {
        return Err(Failure::unavailable(format!(
            "{}: no claimfs is mounted here",
            dir.display()
        )));
    };
    Ok((dir, mount))
}

/// A claim's name, or a sentence that says what is wrong with it.
pub fn claim_name(text: &str) -> Result<Name, Failure> {
    Name::new(text.as_bytes()).map_err(|refusal| bad_name("name", text, refusal))
}

/// A session's id, or a sentence that says what is wrong with it.
pub fn session_id(text: &str) -> Result<SessionId, Failure> {
    SessionId::new(text.as_bytes()).map_err(|refusal| bad_name("session id", text, refusal))
}

/// A time to live, or a sentence that says how to write one.
pub fn ttl(text: &str) -> Result<Duration, Failure> {
    content::ttl(text).ok_or_else(|| {
        let shown = printable(text);
        Failure::usage(format!(
            "'{shown}': no time; write it like 30s, 5m or '1h 30m', from 1ms to 100 years"
        ))
    })
}

fn bad_name(what: &str, text: &str, refusal: Refusal) -> Failure {
    let shown = printable(text);
    Failure::usage(match refusal {
        Refusal::LongName => {
            format!("'{shown}': a {what} has at most 255 bytes; choose a shorter one")
        }
        _ => format!(
            "'{shown}': no {what}; it may not be empty, start with '.', or contain '/' or '\\'"
        ),
    })
}

/// A field of a record as text for a terminal.
pub fn field(record: &Value, key: &str) -> String {
    match &record[key] {
        Value::String(text) => printable(text),
        Value::Null => String::from("?"),
        other => other.to_string(),
    }
}

/// How long ago a moment of a record was: `12 s`, `5 min`, `3 h 20 min`, `4 d 2 h`.
pub fn ago(record: &Value, key: &str, now: SystemTime) -> String {
    let since = record[key]
        .as_str()
        .and_then(|text| text.parse::<Timestamp>().ok());
    let Some(since) = since.map(SystemTime::from) else {
        return String::from("?");
    };
    let seconds = now.duration_since(since).unwrap_or_default().as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min"),
        3600..86400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// The sentence for a name that another holds.
pub fn held_by(name: &Name, record: &Value) -> String {
    format!(
        "claims/{name}: held by session {} (pid {}, {}) for {}; see 'claimfs show {name}'",
        field(record, "session"),
        field(record, "pid"),
        field(record, "command"),
        ago(record, "acquired_at", SystemTime::now()),
    )
}

/// Prints rows under a heading; nothing at all where there are none and nobody watches.
pub fn table(heading: &[&str], rows: &[Vec<String>]) {
    if io::stdout().is_terminal() || !rows.is_empty() {
        for line in aligned(heading, rows) {
            say(&line);
        }
    }
}

/// Rows under a heading, each column as wide as its widest cell.
pub fn aligned(heading: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let heading: Vec<String> = heading.iter().map(|cell| (*cell).to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&heading).chain(rows).collect();
    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let pad = |line: &&Vec<String>| {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        text.trim_end().to_owned()
    };
    lines.iter().map(pad).collect()
}
