//! A frame of `ls --watch`: records, waiters and events in as many lines as a terminal has.
//!
//! Promises: never more lines or wider ones than there is room for; of what does not fit it shows
//! the most interesting and counts the rest. First come the leases that somebody waits for, the
//! longest wait first; then those whose deadline is near; then the newest.
//!
//! Does not know: the mount, the terminal, or the clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write;
use std::time::SystemTime;

use serde_json::Value;

use super::sections::{Line, Section, shares};
use super::tree;
use crate::cli::columns::{clip, tail, width};
use crate::cli::ls::{HOLDER, NOTHING};
use crate::cli::{log, tool};
use crate::core::printable;
use crate::render;

/// The content of the mount that is shown.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// The mount.
    pub mount: String,
    /// The records of the leases.
    pub records: Vec<Value>,
    /// The waiters, by name and in order.
    pub waiters: Vec<Value>,
    /// The newest events that are about names, oldest first.
    pub events: Vec<Value>,
    /// A fault of the mount, as a sentence.
    pub fault: Option<String>,
}

/// A screen is narrow below this many columns: it has the session or the holder, not both.
const NARROW: usize = 60;

/// With at least this many lines there are empty lines between sections.
const ROOMY: usize = 16;

/// How to leave.
const HINT: &str = "q quits";

/// A deadline is near if at most this many seconds are left, and at most a quarter of its time.
const NEAR: f64 = 60.0;

/// The lines of a screen of this many columns and lines, at a time.
pub(super) fn lines(snapshot: &Snapshot, size: (usize, usize), now: SystemTime) -> Vec<String> {
    let (columns, height) = size;
    // Not the last column: what clears the rest of a line would clear it.
    let view = View::new(snapshot, (columns.saturating_sub(1), height), now);
    let mut lines = vec![view.title()];
    lines.extend(view.snapshot.fault.clone());
    lines.extend(view.rings((height / 4).max(1)));
    let (claims, paths, events) = (view.claims(), view.paths(), view.events());
    let left = height.saturating_sub(lines.len());
    let wants = [claims.wants(), paths.wants(), events.wants()];
    let shown = wants.iter().filter(|wants| **wants > 0).count();
    let gap = usize::from(height >= ROOMY);
    let room = left.saturating_sub(gap * shown);
    let urgent = view.urgent();
    let (of_claims, of_paths) = shares(room, (wants[0], urgent), wants[1], wants[2]);
    let claims = claims.lines(of_claims, view.width);
    let paths = view.fitted_paths(of_paths, paths);
    let events = events.newest(room.saturating_sub(claims.len() + paths.len()));
    for section in [claims, paths, events] {
        if !section.is_empty() {
            lines.extend((0..gap).map(|_| String::new()));
            lines.extend(section);
        }
    }
    lines.truncate(height);
    for line in &mut lines {
        clip(line, view.width);
    }
    lines
}

/// The tokens of the leases that a screen of so many lines may show.
pub(super) fn shown(snapshot: &Snapshot, height: usize) -> HashSet<u64> {
    // Their order does not depend on the time.
    let view = View::new(snapshot, (0, height), SystemTime::UNIX_EPOCH);
    let (claims, paths) = (view.claims.iter(), view.paths.iter());
    let shown = claims.take(height).chain(paths.take(height));
    shown
        .filter_map(|record| record["token"].as_u64())
        .collect()
}

/// Says at the right of the first line how to leave, if there is room.
pub(super) fn add_hint(lines: &mut [String], columns: usize) {
    let Some(title) = lines.first_mut() else {
        return;
    };
    let used = width(title) + width(HINT);
    // Not the last column, as in all lines.
    let free = columns.saturating_sub(1).checked_sub(used);
    if let Some(free) = free.filter(|free| *free >= 2) {
        title.extend(std::iter::repeat_n(' ', free));
        title.push_str(HINT);
    }
}

/// A snapshot, sorted by [`interest`].
struct View<'a> {
    snapshot: &'a Snapshot,
    width: usize,
    /// No section has more lines than this.
    height: usize,
    now: SystemTime,
    queues: BTreeMap<&'a str, Vec<&'a Value>>,
    /// The claims, and the reservations.
    claims: Vec<&'a Value>,
    paths: Vec<&'a Value>,
    all_are_processes: bool,
}

/// The columns that say who has a lease.
enum Who {
    Both,
    Session,
    Holder,
}

impl<'a> View<'a> {
    fn new(snapshot: &'a Snapshot, (width, height): (usize, usize), now: SystemTime) -> Self {
        let mut queues: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for waiter in &snapshot.waiters {
            queues
                .entry(text(waiter, "claim"))
                .or_default()
                .push(waiter);
        }
        let mut sorted: Vec<&Value> = snapshot.records.iter().collect();
        sorted.sort_by_cached_key(|record| interest(record, &queues));
        let is_path = |record: &&Value| path(record).is_some();
        let all_are_processes = snapshot.records.iter().all(is_process);
        let (paths, claims) = sorted.into_iter().partition(is_path);
        Self {
            snapshot,
            width,
            height,
            now,
            queues,
            claims,
            paths,
            all_are_processes,
        }
    }

    /// How much there is of everything, and where.
    fn title(&self) -> String {
        let waiting = self.snapshot.waiters.len();
        let mut counts = Vec::new();
        for (count, one, several) in [
            (self.claims.len(), "claim", "claims"),
            (self.paths.len(), "reservation", "reservations"),
            (waiting, "waiter", "waiters"),
        ] {
            if count > 0 {
                let word = if count == 1 { one } else { several };
                counts.push(format!("{count} {word}"));
            }
        }
        if counts.is_empty() {
            counts.push(NOTHING.to_owned());
        }
        format!(
            "{} in {}",
            counts.join(", "),
            printable(&self.snapshot.mount)
        )
    }

    /// A line for each ring of waiters, in at most this many.
    fn rings(&self, room: usize) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let mut rings = Vec::new();
        for waiter in &self.snapshot.waiters {
            let Some(links) = waiter["ring"].as_array() else {
                continue;
            };
            let mut members: Vec<String> = links.iter().map(Value::to_string).collect();
            members.sort_unstable();
            if seen.insert(members) {
                rings.push(ring(links, waiter["ring_is_longer"] == true));
            }
        }
        if rings.len() > room {
            let hidden = rings.len() - (room - 1);
            rings.truncate(room - 1);
            rings.push(format!("… and {hidden} more rings"));
        }
        rings
    }

    /// The lines of the claims that are waited for or end soon, with a heading, and one that counts
    /// the rest.
    fn urgent(&self) -> usize {
        let lines = self
            .claims
            .iter()
            .map(|record| match interest(record, &self.queues).0 {
                WAITED_FOR => 2,
                ENDS_SOON => 1,
                _ => 0,
            });
        match lines.sum() {
            0 => 0,
            lines => lines + 2,
        }
    }

    fn claims(&self) -> Section {
        let mut lines = Vec::new();
        for record in self.claims.iter().take(self.height) {
            lines.push(Line::Lease(self.cells(record, tool::field(record, "name"))));
            lines.extend(self.queue(record).map(Line::Under));
        }
        Section {
            heading: self.heading("CLAIM"),
            more: self.claims.len().saturating_sub(self.height),
            waited: self
                .claims
                .iter()
                .filter(|of| self.queues.contains_key(text(of, "name")))
                .count(),
            lines,
        }
    }

    /// Those who wait for a lease, in order, as far as a line goes.
    fn queue(&self, record: &Value) -> Option<String> {
        let queue = self.queues.get(text(record, "name"))?;
        let mut sessions: Vec<&str> = queue.iter().map(|waiter| text(waiter, "session")).collect();
        sessions.push(text(record, "session"));
        let mut line = String::from("  waits: ");
        for (at, waiter) in queue.iter().enumerate() {
            let session = text(waiter, "session");
            let is_alone = sessions.iter().filter(|other| **other == session).count() == 1;
            let who = if is_alone && !session.is_empty() {
                printable(session)
            } else {
                tool::process(waiter)
            };
            let since = tool::age(waiter, "since", self.now).map(tool::short);
            let place = tool::field(waiter, "place");
            let separator = if at == 0 { "" } else { ", " };
            let next = format!("{separator}{place}. {who} {}", since.unwrap_or_default());
            let left = queue.len() - at;
            let more = format!(", … and {left} more");
            let reserve = if left > 1 { width(&more) } else { 0 };
            if at > 0 && width(&line) + width(&next) + reserve > self.width {
                line.push_str(&more);
                break;
            }
            line.push_str(&next);
        }
        Some(line)
    }

    /// The reservations as a tree.
    fn paths(&self) -> Section {
        let count = self.paths.len().min(self.height);
        let mut tree = self.tree(count);
        tree.more = self.paths.len() - count;
        tree
    }

    /// The tree of so many reservations, the most interesting.
    fn tree(&self, count: usize) -> Section {
        let shown = self.paths.get(..count).unwrap_or(&self.paths);
        let numbered: Vec<(&str, usize)> =
            shown.iter().filter_map(|of| path(of)).zip(0..).collect();
        let line = |branch: tree::Branch| {
            let indent = "  ".repeat(branch.depth);
            let record = branch.number.and_then(|number| shown.get(number));
            let label = printable(&branch.label);
            if let Some(record) = record {
                let room = (self.width / 2).saturating_sub(width(&indent));
                Line::Lease(self.cells(record, format!("{indent}{}", tail(&label, room))))
            } else {
                let room = self.width.saturating_sub(width(&indent));
                Line::Over(format!("{indent}{}", tail(&label, room)))
            }
        };
        Section {
            heading: self.heading("PATH"),
            more: 0,
            waited: 0,
            lines: tree::branches(&numbered).into_iter().map(line).collect(),
        }
    }

    /// The tree in so many lines: as many of the reservations as fit, with their headings.
    fn fitted_paths(&self, room: usize, whole: Section) -> Vec<String> {
        if whole.wants() <= room {
            return whole.lines(room, self.width);
        }
        let all = self.paths.len();
        // The heading, and the line that counts the rest.
        let fits = |count: &usize| self.tree(*count).wants() < room;
        let most = (1..=all.min(room)).rev().find(fits).unwrap_or(0);
        let mut lines = Vec::new();
        if most > 0 {
            lines = self.tree(most).lines(room, self.width);
        }
        if room > 0 {
            lines.push(match most {
                0 => format!("… {all} reservations"),
                _ => format!("… and {} more", all - most),
            });
        }
        lines
    }

    fn events(&self) -> Section {
        let line = |event: &Value| Line::Under(self.event(event));
        Section {
            heading: vec![String::from("LAST EVENTS")],
            more: 0,
            waited: 0,
            lines: self.snapshot.events.iter().map(line).collect(),
        }
    }

    /// An event: its time in UTC, with the day unless that is today, its name, and its sentence.
    fn event(&self, event: &Value) -> String {
        if let Some(missed) = event["missed"].as_u64() {
            return format!("({missed} events missed)");
        }
        let at = tool::field(event, "at");
        let (day, today) = (at.get(..10), render::moment(self.now));
        let time = if day == today.get(..10) {
            at.get(11..19)
        } else {
            at.get(..16)
        };
        let time = time.unwrap_or(&at);
        let whose = match event["claim"].as_str() {
            Some(name) => {
                let name = path_of(name).unwrap_or(name);
                format!("{}: ", tail(&printable(name), (self.width / 3).max(8)))
            }
            None => String::new(),
        };
        format!("{time}Z {whose}{}", happened(event))
    }

    /// In a narrow screen one column says who has a lease: the process, if all are held by one.
    fn who(&self) -> Who {
        if self.width >= NARROW {
            Who::Both
        } else if self.all_are_processes {
            Who::Holder
        } else {
            Who::Session
        }
    }

    /// The names of the columns of a table whose first has this one.
    fn heading(&self, first: &str) -> Vec<String> {
        let who: &[&str] = match self.who() {
            Who::Both => &["SESSION", "HOLDER"],
            Who::Session => &["SESSION"],
            Who::Holder => &["HOLDER"],
        };
        let names = [first].into_iter().chain(who.iter().copied());
        let names = names.chain(["AGE", "LEFT", "REASON"]);
        names.map(str::to_owned).collect()
    }

    /// The cells of a lease; one that says nothing is empty.
    fn cells(&self, record: &Value, first: String) -> Vec<String> {
        let session = || tool::field(record, "session");
        let mut cells = vec![first];
        match self.who() {
            Who::Both => cells.extend([session(), holder(record)]),
            Who::Session => cells.push(session()),
            Who::Holder => cells.push(holder(record)),
        }
        let age = tool::age(record, "acquired_at", self.now).map(tool::short);
        let left = left(record).map(|left| {
            // Not negative, and no more than a century.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            tool::short(left.max(0.0) as u64)
        });
        let reason = record["reason"].as_str().map(printable);
        cells.extend([age, left, reason].map(Option::unwrap_or_default));
        cells
    }
}

/// The classes of [`interest`].
const WAITED_FOR: u8 = 0;
const ENDS_SOON: u8 = 1;

/// Smaller for what is more interesting.
fn interest<'a>(
    record: &'a Value,
    queues: &BTreeMap<&str, Vec<&'a Value>>,
) -> (u8, &'a str, u64, Reverse<u64>) {
    let token = Reverse(record["token"].as_u64().unwrap_or_default());
    let queue = queues.get(text(record, "name"));
    if let Some(first) = queue.and_then(|queue| queue.first()) {
        // Times in UTC as RFC 3339 sort like their bytes.
        return (WAITED_FOR, text(first, "since"), 0, token);
    }
    match left(record) {
        Some(left) if left <= NEAR && left * 4.0 <= record["ttl"].as_f64().unwrap_or_default() => {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let millis = (left.max(0.0) * 1000.0) as u64;
            (ENDS_SOON, "", millis, token)
        }
        _ => (ENDS_SOON + 1, "", 0, token),
    }
}

/// The seconds until a lease ends unless it is renewed.
fn left(record: &Value) -> Option<f64> {
    record["expires_in"].as_f64()
}

/// The living process of a lease. Empty if its session lives by a deadline.
fn holder(record: &Value) -> String {
    text(record, HOLDER).to_owned()
}

/// An event in the words of `claimfs log`. The session comes first: a line may be cut.
fn happened(event: &Value) -> String {
    let by = || {
        format!(
            "session {}, {}",
            tool::field(event, "session"),
            tool::process(event)
        )
    };
    match text(event, "event") {
        "claimed" => format!("claimed by {}", by()),
        "queued" => format!("waited for by {}", by()),
        _ => log::happened(event),
    }
}

/// Whether a process holds a lease, and not its session.
fn is_process(record: &Value) -> bool {
    record["scope"] == "process" || record.get("bound_pid").is_some()
}

/// A ring in words: `a ring: w1 waits for x of w2, who waits for y of w1`.
fn ring(links: &[Value], is_longer: bool) -> String {
    let first = links.first();
    let is_one = links
        .iter()
        .all(|link| Some(&link["session"]) == first.map(|one| &one["session"]));
    let who = |link: &Value| {
        if is_one {
            format!("pid {}", link["pid"])
        } else {
            tool::field(link, "session")
        }
    };
    let mut words = format!("a ring: {}", first.map_or(String::new(), &who));
    for (at, link) in links.iter().enumerate() {
        let waits = if at == 0 { "" } else { ", who" };
        let next = links.get(at + 1).or(first.filter(|_| !is_longer));
        let of = next.map_or(String::new(), |next| format!(" of {}", who(next)));
        let name = tool::field(link, "name");
        _ = write!(words, "{waits} waits for {name}{of}");
    }
    if is_longer {
        words.push_str(", and so on");
    }
    words
}

fn text<'a>(record: &'a Value, key: &str) -> &'a str {
    record[key].as_str().unwrap_or_default()
}

/// The path of a reservation.
fn path(record: &Value) -> Option<&str> {
    path_of(record["name"].as_str()?)
}

/// The path in the name of a reservation: `paths/srv/app` is `/srv/app`.
fn path_of(name: &str) -> Option<&str> {
    let path = name.strip_prefix("paths")?;
    path.starts_with('/').then_some(path)
}

#[cfg(test)]
mod tests;
