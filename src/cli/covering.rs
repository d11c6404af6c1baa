//! The reservations at, above and below a path. Shared by the verbs that take a path.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::time::{Instant, SystemTime};

use serde_json::Value;

use super::Failure;
use super::tool::{self, Mount};
use crate::core::{Name, printable};
use crate::sys::poll::wait_readable;

/// The reserved path, as a person writes it.
pub(super) fn shown(name: &Name) -> String {
    printable(&format!("/{}", name.as_path().unwrap_or_default()))
}

/// The reservation that covers a path, with its record: the file itself, or the nearest above.
pub(super) fn covering(mount: &Mount, name: &Name) -> Result<Option<(Name, Value)>, Failure> {
    let itself = std::iter::once(name.as_str());
    for name in itself.chain(name.above()) {
        // The attribute of a directory that a reservation has just replaced is looked up again; its
        // kind may not be.
        if let Ok(name) = Name::listed(name.as_bytes())
            && let Some(record) = mount.lease(&name)?
        {
            return Ok(Some((name, record)));
        }
    }
    Ok(None)
}

/// The reservations below a path, each with its record, in the order of their names.
pub(super) fn below(mount: &Mount, name: &Name) -> Result<Vec<(Name, Value)>, Failure> {
    let named = mount.leases()?.into_iter().filter_map(|record| {
        let listed = Name::listed(record["name"].as_str()?.as_bytes()).ok()?;
        listed.is_below(name).then_some((listed, record))
    });
    let mut below: Vec<(Name, Value)> = named.collect();
    below.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(below)
}

/// The first few reservations below a path with their holders, and how many more there are: a line
/// each.
pub(super) fn below_lines(mount: &Mount, below: &[(Name, Value)]) -> Vec<String> {
    let line = |(name, record): &(Name, Value)| {
        let time = tool::ago(record, "acquired_at", SystemTime::now());
        let why = tool::reason(record).map_or_else(String::new, |why| format!(", who says {why}"));
        let holder = tool::holder(mount, record);
        format!("{}: reserved by {holder} for {time}{why}", shown(name))
    };
    let mut lines: Vec<String> = below.iter().take(SHOWN).map(line).collect();
    match below.len().saturating_sub(SHOWN) {
        0 => {}
        more => lines.push(format!("and {more} more; see 'claimfs ls'")),
    }
    lines
}

/// The number of reservations below a path that are shown one by one.
const SHOWN: usize = 5;

/// A reservation of another that is in the way of a path.
#[derive(Debug)]
pub(super) struct Obstacle {
    /// The path that it is in the way of.
    pub name: Name,
    pub record: Value,
    /// Who has it, for how long and why.
    pub text: String,
}

impl Obstacle {
    fn of(mount: &Mount, name: &Name, by: &Name, record: Value) -> Self {
        let text = held(mount, name, by, &record);
        let name = name.clone();
        Self { name, record, text }
    }
}

/// The first reservation of another that is in the way.
pub(super) fn obstacles(
    mount: &Mount,
    names: &[Name],
    me: &Value,
) -> Result<Option<Obstacle>, Failure> {
    for name in names {
        if let Some((by, record)) = covering(mount, name)?
            && !is_own(me, &record)
        {
            return Ok(Some(Obstacle::of(mount, name, &by, record)));
        }
        let mut dirs = vec![mount.path(&[name.as_str()])];
        while let Some(dir) = dirs.pop() {
            let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
            for entry in entries {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    dirs.push(path);
                    continue;
                }
                let below = path.strip_prefix(mount.path(&[])).unwrap_or(&path);
                if let Ok(below) = Name::listed(below.as_os_str().as_bytes())
                    && let Some(record) = mount.lease(&below)?
                    && !is_own(me, &record)
                {
                    return Ok(Some(Obstacle::of(mount, name, &below, record)));
                }
            }
        }
    }
    Ok(None)
}

/// True if the caller may count on a reservation: its session holds it or, under process scope,
/// this process or one above it.
pub(super) fn is_own(me: &Value, record: &Value) -> bool {
    if record["session"] != me["session"] {
        return false;
    }
    let above = me["then"].as_array().map_or(&[][..], Vec::as_slice);
    let is_above = above.iter().any(|next| next["pid"] == record["pid"]);
    me["scope"] != "process" || record["pid"] == me["pid"] || is_above
}

/// The message for a path of which another holds a part, or all.
pub(super) fn held(mount: &Mount, name: &Name, by: &Name, record: &Value) -> String {
    let time = tool::ago(record, "acquired_at", SystemTime::now());
    let why = tool::reason(record).map_or_else(String::new, |why| format!(", who says {why}"));
    let which = if by == name {
        String::new()
    } else if name.is_below(by) {
        format!(", as a part of {},", shown(by))
    } else {
        format!(" in part ({})", shown(by))
    };
    format!(
        "{}: reserved{which} by {} for {time}{why}; see 'claimfs show {by}'",
        shown(name),
        tool::holder(mount, record)
    )
}

/// The events of the mount, to try again when a reservation may have gone.
pub(super) struct Changes<'a> {
    mount: &'a Mount,
    events: File,
    /// The end of what was read: a word may be cut in two.
    tail: Vec<u8>,
}

impl<'a> Changes<'a> {
    pub(super) fn open(mount: &'a Mount) -> Result<Self, Failure> {
        let events = File::open(mount.path(&["events"]));
        let events = events.map_err(|error| mount.failed(&["events"], &error))?;
        let tail = Vec::new();
        Ok(Self {
            mount,
            events,
            tail,
        })
    }

    /// Waits until something happened to a reservation. False if time runs out before.
    pub(super) fn wait(&mut self, end: Option<Instant>) -> Result<bool, Failure> {
        let failed = |error: io::Error| self.mount.failed(&["events"], &error);
        let mut buffer = [0; 8 * 1024];
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if !wait_readable(&self.events, left).map_err(failed)? {
                return Ok(false);
            }
            let count = self.events.read(&mut buffer).map_err(failed)?;
            if count == 0 {
                return Err(Failure::unavailable(
                    "events: the mount has ended; see 'claimfs doctor'",
                ));
            }
            self.tail.extend_from_slice(&buffer[..count]);
            let has = |word: &[u8]| self.tail.windows(word.len()).any(|part| part == word);
            let is_it = has(b"\"paths/") || has(b"\"missed\"");
            let keep = self.tail.len().saturating_sub(8);
            self.tail.drain(..keep);
            if is_it {
                self.tail.clear();
                return Ok(true);
            }
        }
    }
}
