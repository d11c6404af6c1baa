//! All observers of the events of a live server.
//!
//! The log, the history, the listings and the readers of `events` get each event with the table as
//! it was before. The counters, the waiters, the watches and the inotify notifier get its effects.
//!
//! Does not know: the kinds of events.

use super::read::Listings;
use super::scaffolding::Shift;
use crate::core::table::{Effects, Table};
use crate::core::{Event, Ino, Process, WaiterId};
use crate::events::{EventStream, later};
use crate::handoff::{Handoff, Observer};
use crate::inotify::Removal;
use crate::journal::History;
use crate::logging;
use crate::render::metrics::Metrics;
use crate::render::{self, EventRecord, Notice};

/// The work that is left once all events of a decision are applied.
#[derive(Default)]
pub(super) struct Observed {
    /// Processes on which nothing may depend any more.
    pub unneeded: Vec<Process>,
    /// Inodes that lost a name.
    pub unlinked: Vec<Ino>,
    /// Waiters to wake.
    pub woken: Vec<WaiterId>,
    /// Names that went without a call.
    pub vanished: Vec<Removal>,
    /// Reservations that came and went.
    pub shifts: Vec<Shift>,
}

pub(super) struct Observers<'a> {
    stream: &'a EventStream,
    metrics: &'a Metrics,
    history: &'a mut History,
    listings: &'a mut Listings,
    has_readers: bool,
    /// The command is a line in `control`, so that no call tells watchers of the names that go.
    is_line: bool,
    pub observed: Observed,
}

impl<'a> Observers<'a> {
    pub(super) fn new(
        stream: &'a EventStream,
        metrics: &'a Metrics,
        (history, listings): (&'a mut History, &'a mut Listings),
        is_line: bool,
    ) -> Self {
        Self {
            stream,
            metrics,
            history,
            listings,
            has_readers: stream.has_readers(),
            is_line,
            observed: Observed::default(),
        }
    }
}

impl Observer for Observers<'_> {
    fn before(&mut self, _: &mut Handoff, table: &Table, event: &Event) {
        self.listings.before(table, event);
        if let Some(record) = EventRecord::of(table, event) {
            if self.has_readers {
                self.stream.publish(event.seq, record.line());
            }
            self.history.push(record);
        }
        if let Some(Notice { uid, level, text }) = render::notice(table, event)
            && logging::admits(Some(uid), level)
        {
            let text = text();
            later(move || log::log!(level, "{text}"));
        }
    }

    fn after(&mut self, effects: Effects) {
        if let Some(count) = effects.count {
            self.metrics.count(count);
        }
        let observed = &mut self.observed;
        observed.unneeded.extend(effects.unneeded);
        observed.unlinked.extend(effects.unlinked);
        observed.woken.extend(effects.woken);
        let vanished = effects
            .vanished
            .filter(|gone| !gone.by_call || self.is_line);
        observed.vanished.extend(vanished.map(|gone| Removal {
            name: gone.name,
            is_directory: gone.is_directory,
            uid: gone.uid,
        }));
        let gone = effects
            .unreserved
            .map(|(name, token)| Shift::Take(name, token));
        let come = effects
            .reserved
            .map(|(name, token)| Shift::Put(name, token));
        observed.shifts.extend(gone.into_iter().chain(come));
    }
}
