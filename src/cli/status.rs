//! The lines on standard error of a command that waits: on a terminal one that is kept up to date;
//! elsewhere one when the wait begins, and one more when another holder is in the way.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::Failure;
use super::columns;
use super::tool::{self, Mount};
use crate::core::Name;
use crate::render::ring;

/// The shortest time between two lines about holders where there is no terminal.
const QUIET: Duration = Duration::from_secs(30);

/// The time after which the first look is followed by a second one where there is no terminal.
/// Each next pause is twice as long, up to [`QUIET`]: all who wait look at all who wait.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The lines of a wait where there is no terminal.
#[derive(Debug)]
pub(super) struct Notes {
    /// The lease that the last line was about, and when that was printed.
    last: Option<(String, Instant)>,
}

impl Notes {
    pub(super) fn new() -> Self {
        Self { last: None }
    }

    /// Whether a line may be printed.
    pub(super) fn is_due(&self) -> bool {
        self.last
            .as_ref()
            .is_none_or(|(_, at)| at.elapsed() >= QUIET)
    }

    /// Prints who is waited for, unless the last line was about the same lease.
    pub(super) fn waiting(&mut self, text: &str, record: &Value) {
        let is_told = |(last, _): &(String, Instant)| *last == about(record);
        if self.is_due() && !self.last.as_ref().is_some_and(is_told) {
            tool::complain_of(&format!("waiting for {text}"), record);
            self.told(record);
        }
    }

    /// Notes that a line about this lease was printed.
    fn told(&mut self, record: &Value) {
        self.last = Some((about(record), Instant::now()));
    }
}

/// The lease and its holder, as a text to compare.
fn about(record: &Value) -> String {
    let keys = ["name", "session", "token", "pid"];
    keys.map(|key| record[key].to_string()).join(" ")
}

/// The lines of a wait for names.
pub(super) struct Status<'a> {
    mount: &'a Mount,
    names: &'a [Name],
    on_terminal: bool,
    /// Whether a line is on the terminal.
    shown: bool,
    /// The ring that was shown last, in words.
    ring: Option<String>,
    notes: Notes,
    /// When to look again where there is no terminal, and the pause after that.
    next: (Instant, Duration),
}

impl<'a> Status<'a> {
    pub(super) fn new(mount: &'a Mount, names: &'a [Name]) -> Self {
        Self {
            mount,
            names,
            on_terminal: io::stderr().is_terminal(),
            shown: false,
            ring: None,
            notes: Notes::new(),
            next: (Instant::now(), FIRST_PAUSE),
        }
    }

    /// Notes that a line about this lease was printed by others.
    pub(super) fn told(&mut self, record: &Value) {
        self.notes.told(record);
    }

    /// Shows who holds the first of these names that is held.
    pub(super) fn show(&mut self) -> Result<(), Failure> {
        if !self.on_terminal {
            let (now, (next, pause)) = (Instant::now(), self.next);
            if now < next {
                return Ok(());
            }
            self.next = (now + pause, QUIET.min(pause * 2));
        }
        let Some((name, record)) = self.held()? else {
            return Ok(());
        };
        let all = self.mount.waiters()?;
        let is_own = |waiter: &Value| waiter["pid"] == std::process::id();
        let queue = all.iter().filter(|waiter| waiter["claim"] == name.as_str());
        let queue: Vec<&Value> = queue.collect();
        let own = queue.iter().position(|waiter| is_own(waiter));
        let place = own.map(|own| format!("you are {} of {}", own + 1, queue.len()));
        if self.on_terminal {
            self.draw(name, &record, place);
        } else {
            let mut text = tool::held_by(self.mount, name, &record);
            if let Some(place) = place {
                text = format!("{text}; {place}");
            }
            self.notes.waiting(&text, &record);
        }
        let mut own = all.iter().filter(|waiter| is_own(waiter));
        self.show_ring(own.find_map(ring::sentence));
        Ok(())
    }

    /// The first of the names that is held, with its record.
    fn held(&self) -> Result<Option<(&'a Name, Value)>, Failure> {
        for name in self.names {
            if let Some(record) = self.mount.lease(name)? {
                return Ok(Some((name, record)));
            }
        }
        Ok(None)
    }

    /// Replaces the line on the terminal.
    fn draw(&mut self, name: &Name, record: &Value, place: Option<String>) {
        let more = match self.names.len() {
            0 | 1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let place = place.map_or_else(String::new, |place| format!("{place} for "));
        let mut text = format!(
            "{place}claims/{name}{more}: held by {} ({}) for {}",
            tool::field(record, "session"),
            tool::living(self.mount, record).map_or_else(
                || String::from("by its deadline"),
                |holder| format!(
                    "pid {}, {}",
                    tool::field(&holder, "pid"),
                    tool::field(&holder, "command")
                ),
            ),
            tool::ago(record, "acquired_at", SystemTime::now()),
        );
        self.shown = true;
        // A line that wraps could not be erased.
        columns::clip(&mut text, columns::SCREEN - 1);
        _ = write!(io::stderr().lock(), "\r\x1b[K{text}");
    }

    /// Shows a ring in lines of its own, which stay, unless it was shown already.
    fn show_ring(&mut self, ring: Option<String>) {
        if let Some(ring) = &ring
            && self.ring.as_ref() != Some(ring)
        {
            self.erase();
            tool::complain(ring);
        }
        if ring.is_some() || self.on_terminal {
            self.ring = ring;
        }
    }

    /// Removes the line from the terminal.
    fn erase(&mut self) {
        if self.shown {
            _ = write!(io::stderr().lock(), "\r\x1b[K");
            self.shown = false;
        }
    }
}

impl Drop for Status<'_> {
    fn drop(&mut self) {
        self.erase();
    }
}
