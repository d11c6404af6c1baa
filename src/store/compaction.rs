//! A new journal in the place of the old one, most of it written without the store's lock: see
//! [`crate::journal::Copy`].
//!
//! Promises: nobody waits for it for longer than a few KiB take to copy. One copy is made at a
//! time.
//!
//! Does not know: what a journal looks like, or when it is due.

use std::fs::File;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

use super::{Inner, Store};
use crate::core::NodeId;
use crate::events::EventStream;
use crate::handoff::{Handoff, Open};
use crate::journal::{Copy, LEFT_MAX, Live, Place};
use crate::logging::limited;
use crate::sys::thread::yielding;

/// The number of lines of `events` that a new journal keeps for readers that lag behind.
const LINES_KEPT: usize = 4096;

/// The largest newest read of such a reader that a new journal keeps, in bytes.
const LAST_KEPT: usize = 4096;

/// After a compaction that failed, wait so long before the next.
const AGAIN: Duration = Duration::from_secs(1);

/// Frames that were appended since the last look are copied so often, before the rest is under the
/// lock.
const ROUNDS_MAX: usize = 100;

/// Who compacts the journal, and whether it is due.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    is_due: Mutex<bool>,
    due: Condvar,
    /// Held while a new journal is written. Taken before the store's lock.
    one: Mutex<()>,
    /// A new journal is needed for another reason, so a compaction makes way.
    makes_way: AtomicBool,
}

impl Compaction {
    /// Asks for a compaction.
    pub(super) fn ask(&self) {
        *self.is_due.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.due.notify_one();
    }

    fn wait(&self) {
        let mut is_due = self.is_due.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_due {
            let woken = self.due.wait(is_due);
            is_due = woken.unwrap_or_else(PoisonError::into_inner);
        }
        *is_due = false;
    }

    fn one(&self) -> MutexGuard<'_, ()> {
        self.one.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Compacts the journal whenever that is due.
    pub(crate) fn compact_when_due(&self) -> ! {
        loop {
            self.compaction.wait();
            if let Err(error) = self.compact() {
                log::debug!("the journal cannot be compacted, and goes on growing: {error}");
                thread::sleep(AGAIN);
            }
        }
    }

    fn compact(&self) -> io::Result<()> {
        let _one = self.compaction.one();
        let goes_on = || !self.compaction.makes_way.load(SeqCst);
        self.write_anew(Place::Kept, &goes_on)
    }

    /// Writes all that is known into the state directory again.
    pub(crate) fn rewrite(&self) -> io::Result<()> {
        self.compaction.makes_way.store(true, SeqCst);
        let _one = self.compaction.one();
        self.compaction.makes_way.store(false, SeqCst);
        self.lock().history.rewrite();
        self.write_anew(Place::Lost, &|| true)
    }

    fn write_anew(&self, place: Place, goes_on: &(dyn Fn() -> bool + Sync)) -> io::Result<()> {
        let (mut copy, unrecorded) = {
            let mut inner = self.lock();
            let (live, unrecorded) = (inner.live(), inner.unrecorded);
            let inner = &mut *inner;
            let copy = inner.journal.begin_copy(&inner.table, live, place)?;
            (copy, unrecorded)
        };
        let switched = self.make(&mut copy, goes_on);
        if let Err(error) = switched {
            let mut inner = self.lock();
            inner.journal.give_up(&copy);
            if copy.is_damaged() {
                return inner.write_what_is_known(&error);
            }
            return Err(error);
        }
        self.lock().unrecorded -= unrecorded;
        copy.sync_place()
    }

    /// The steps of a copy. Returns the old file, which is closed with the store unlocked.
    fn make(&self, copy: &mut Copy, goes_on: &(dyn Fn() -> bool + Sync)) -> io::Result<File> {
        // All that the thread has allocated goes with it.
        yielding("copy", || copy.write(goes_on))??;
        let lines = self.lock().history.begin_write();
        if let Some(lines) = lines {
            let length = lines.write();
            let dropped = self.lock().history.wrote(lines, length);
            drop(dropped);
        }
        for _ in 0..ROUNDS_MAX {
            let (end, debt) = self.lock().journal.reach();
            let is_little = copy.left(end) <= LEFT_MAX;
            copy.follow(end)?;
            copy.make_room(debt + LEFT_MAX)?;
            if is_little {
                break;
            }
        }
        let lasts = self.lock().journal.mirror(copy)?;
        copy.sync(lasts)?;
        self.lock().journal.switch(copy)
    }
}

impl Inner {
    /// The facts that a journal does not have, for the next server.
    fn live(&mut self) -> Live {
        let live = live(&self.handoff, &self.stream, self.unrecorded > 0);
        self.handoff.lines_from = live.lines_from;
        live
    }

    /// Writes the journal from what is known, since it cannot be read back. That takes in
    /// proportion to what is held.
    fn write_what_is_known(&mut self, why: &io::Error) -> io::Result<()> {
        self.history.write();
        let mut handoff = self.handoff.clone();
        let live = live(&self.handoff, &self.stream, false);
        self.handoff.lines_from = live.lines_from;
        live.complete(&mut handoff);
        let written = self.journal.rewrite(&self.table, &handoff);
        let outcome = match &written {
            Ok(()) => String::from("was written anew from memory"),
            Err(error) => format!("cannot be written anew: {error}"),
        };
        limited!(
            None,
            log::Level::Error,
            "the journal was damaged while this server was using it, and {outcome}; the damage: {why}"
        );
        written
    }
}

/// The lines of `events` that the readers of a connection may read again, and all else of it if
/// `whole`.
fn live(handoff: &Handoff, stream: &EventStream, whole: bool) -> Live {
    let wanted = handoff.descriptors.wanted();
    let kept = wanted.map(|wanted| stream.since(wanted, LINES_KEPT));
    let mut live = Live {
        handoff: whole.then(|| handoff.clone()),
        ..Live::default()
    };
    (live.lines, live.lines_from) = kept.unwrap_or_default();
    // A reader that lags behind these lines may ask again for its newest read.
    for (fh, open) in &handoff.descriptors.open {
        if let (NodeId::Reader(reader), Open::Reading(reading)) = (fh, open)
            && reading.from.seq < live.lines_from
        {
            let left_out = stream.left_out(*reader, reading.from.seq, live.lines_from);
            let mut reading = reading.clone();
            (reading.missed, reading.again) = (left_out.unread, left_out.read);
            if left_out.last.len() <= LAST_KEPT {
                reading.last = left_out.last;
            }
            live.readers.insert(*fh, Open::Reading(reading));
        }
    }
    live
}
