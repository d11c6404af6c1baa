//! A new journal that is written while the old one goes on: a compaction, and the return to a
//! directory that was removed.
//!
//! ```text
//! locked    Log::begin_copy   how far the journal goes
//!           Copy::write       recovers the table up to there, as the next server would, and writes
//!                             it as the first frame of `journal.new`
//!           Copy::follow      appends the frames that were appended since, as they are
//! locked    Log::mirror       the last of them; from now on each frame is written to both files
//!           Copy::sync        if anything in it must survive a loss of power
//! locked    Log::switch       renames the new file over the old one
//! ```
//!
//! Promises: the next server recovers the same from the new journal as from the old one, since the
//! first frame was recovered from that. Under the lock, there are only steps whose cost does not
//! depend on how much is held. If a step fails, the old journal goes on, and a server that is
//! killed leaves that, or the new one.
//!
//! Does not know: when a journal is due (`disk`), or who holds the lock (`store`).

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::disk::{SLACK, STRIDE, debt, has_room, new_path};
use super::entry::{Format, size, snapshot};
use super::recovery::replay_file;
use super::{JOURNAL, JOURNAL_MAX, file};
use crate::core::NodeId;
use crate::core::table::Table;
use crate::handoff::{Handoff, Open};
use crate::process::Boot;
use crate::sys::files::is_at;

/// How much is copied at once, in bytes.
const SOME: usize = 1 << 18;

/// How much of the old journal may be left to copy under the lock, in bytes.
pub(crate) const LEFT_MAX: u64 = 1 << 16;

/// Where a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the place of the old journal.
    Kept,
    /// Where that was: the directory or a file in it is gone.
    Lost,
}

/// The facts about its connection that the live server knows, and the old journal does not.
#[derive(Debug, Default)]
pub struct Live {
    /// All of it, if not all was recorded.
    pub handoff: Option<Handoff>,
    /// See [`Handoff::lines`].
    pub lines: VecDeque<(u64, String)>,
    /// See [`Handoff::lines_from`].
    pub lines_from: u64,
    /// The readers of `events`, as these lines leave them.
    pub readers: BTreeMap<NodeId, Open>,
}

impl Live {
    /// Completes what was recorded of the connection.
    pub(crate) fn complete(self, handoff: &mut Handoff) {
        if let Some(whole) = self.handoff {
            *handoff = whole;
        }
        (handoff.lines, handoff.lines_from) = (self.lines, self.lines_from);
        handoff.descriptors.open.extend(self.readers);
    }
}

/// The old journal.
#[derive(Debug)]
pub(super) struct Source {
    pub file: File,
    /// The end of its last whole frame.
    pub end: u64,
    /// The size of all events that would free everything.
    pub debt: u64,
    pub boot: Boot,
    /// The form of the new journal. The frames that are copied as they are may be of an older one.
    pub format: Format,
}

/// The first frame of the new journal.
#[derive(Debug, Clone, Copy)]
pub(super) struct First {
    /// The size of the table: in bytes, and as [`Table::weight`].
    pub base: (u64, usize),
    /// The size of the connection's part, in bytes.
    pub rest: u64,
    /// Space is reserved up to here; `None` if the filesystem cannot do that.
    pub room: Option<u64>,
    /// The size of all events that would free everything, as the old journal counted it.
    pub debt_before: u64,
    /// The same, as it is.
    pub debt: u64,
    pub format: Format,
    lasts: bool,
}

/// The new file, once its first frame is written.
#[derive(Debug)]
struct New {
    file: File,
    end: u64,
    first: First,
}

/// A copy in the making. Its file is removed when it is dropped, unless it has taken its place.
#[derive(Debug)]
pub struct Copy {
    dir: PathBuf,
    source: Source,
    /// How far the old journal is copied.
    at: u64,
    live: Live,
    /// Numbers of the table at the beginning: those of what was recovered must be the same.
    numbers: [u64; 6],
    max_leases: usize,
    pub(super) place: Place,
    pub(super) number: u64,
    /// The file as it was created.
    created: Option<File>,
    new: Option<New>,
    is_damaged: bool,
    is_in_place: bool,
}

fn numbers(table: &Table) -> [u64; 6] {
    [
        table.seq(),
        table.next_token(),
        table.next_ino().0,
        table.lease_count() as u64,
        table.session_count() as u64,
        table.waiter_count() as u64,
    ]
}

impl Copy {
    pub(super) fn new(
        dir: &Path,
        source: Source,
        table: &Table,
        live: Live,
        (place, number): (Place, u64),
    ) -> Self {
        Self {
            dir: dir.to_path_buf(),
            at: source.end,
            source,
            live,
            numbers: numbers(table),
            max_leases: table.max_leases(),
            place,
            number,
            created: None,
            new: None,
            is_damaged: false,
            is_in_place: false,
        }
    }

    fn path(&self) -> PathBuf {
        new_path(&self.dir, JOURNAL)
    }

    /// Writes the first frame. `goes_on` is asked from time to time, and may break this off.
    pub fn write(&mut self, goes_on: &dyn Fn() -> bool) -> io::Result<()> {
        let new = file::create(&self.path())?;
        self.created = Some(new.try_clone()?);
        let debt_before = self.source.debt;
        // Reserve first, so that a full disk is noticed early.
        has_room(&new, debt_before + SLACK)?;
        let recovered = self.recover(goes_on);
        let is_stop = |error: &io::Error| error.kind() == io::ErrorKind::Interrupted;
        self.is_damaged = recovered.as_ref().is_err_and(|error| !is_stop(error));
        let (table, handoff) = recovered?;
        let format = self.source.format;
        let frame = snapshot(format, &self.source.boot, &table, &handoff)?;
        let (length, rest) = (frame.len() as u64, size(format, &handoff));
        let mut first = First {
            base: (length.saturating_sub(rest), table.weight()),
            rest,
            room: None,
            debt_before,
            debt: debt(&table),
            format,
            lasts: table.outlives_machine(),
        };
        drop((table, handoff));
        first.room = room(&new, length + first.debt + SLACK)?;
        for (number, part) in frame.chunks(SOME).enumerate() {
            if !goes_on() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            new.write_all_at(part, (number * SOME) as u64)?;
        }
        self.new = Some(New {
            file: new,
            end: length,
            first,
        });
        Ok(())
    }

    /// The state that the old journal describes.
    fn recover(&mut self, goes_on: &dyn Fn() -> bool) -> io::Result<(Table, Handoff)> {
        let Source { file, end, .. } = &self.source;
        let (table, mut handoff) = replay_file(file, *end, self.max_leases, goes_on)?;
        if numbers(&table) != self.numbers {
            return Err(io::Error::other("it does not say what is held"));
        }
        std::mem::take(&mut self.live).complete(&mut handoff);
        Ok((table, handoff))
    }

    /// Whether the old journal cannot be read back, so that no copy can be made.
    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// How much of the old journal, which ends there, is not copied.
    pub(crate) fn left(&self, end: u64) -> u64 {
        end.saturating_sub(self.at)
    }

    /// Copies the frames of the old journal, which ends there.
    pub fn follow(&mut self, end: u64) -> io::Result<()> {
        let new = self.new.as_mut().ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = Vec::new();
        while self.at < end {
            let length = (SOME as u64).min(end - self.at);
            bytes.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
            self.source.file.read_exact_at(&mut bytes, self.at)?;
            new.file.write_all_at(&bytes, new.end)?;
            (self.at, new.end) = (self.at + length, new.end + length);
        }
        Ok(())
    }

    /// Reserves space for the events that would free everything.
    pub(crate) fn make_room(&mut self, debt: u64) -> io::Result<()> {
        let new = self.new.as_mut().ok_or(io::ErrorKind::NotFound)?;
        let wanted = new.end + debt + SLACK;
        if wanted > JOURNAL_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if new.first.room.is_some_and(|room| room < wanted) {
            new.first.room = room(&new.file, wanted)?;
        }
        Ok(())
    }

    /// The new file, and where it ends.
    pub(super) fn mirror(&self) -> io::Result<(File, u64)> {
        let new = self.new.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok((new.file.try_clone()?, new.end))
    }

    /// Syncs what is written, if the table needs that, or if `lasts` says so of what came since.
    pub fn sync(&self, lasts: bool) -> io::Result<()> {
        let new = self.new.as_ref().ok_or(io::ErrorKind::NotFound)?;
        if lasts || new.first.lasts || self.place == Place::Lost {
            new.file.sync_all()?;
        }
        Ok(())
    }

    /// Syncs the name of the new file, if no other file has what it has.
    pub(crate) fn sync_place(&self) -> io::Result<()> {
        if self.place == Place::Lost {
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(())
    }

    /// Renames the new file, which ends there, over the old one.
    pub(super) fn put_in_place(&mut self, end: u64, debt: u64) -> io::Result<First> {
        if let Some(new) = &mut self.new {
            new.end = end;
        }
        self.make_room(debt)?;
        let new = self.new.as_ref().ok_or(io::ErrorKind::NotFound)?;
        fs::rename(self.path(), self.dir.join(JOURNAL))?;
        self.is_in_place = true;
        Ok(new.first)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // Another claimfs may have begun here meanwhile.
        let path = self.path();
        let is_own = |file: &File| is_at(file, &path);
        if !self.is_in_place && self.created.as_ref().is_some_and(is_own) {
            _ = fs::remove_file(&path);
        }
    }
}

/// Reserves space for so many bytes and some more, if there is.
fn room(file: &File, wanted: u64) -> io::Result<Option<u64>> {
    let more = match has_room(file, wanted + STRIDE) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            return Ok(has_room(file, wanted)?.then_some(wanted));
        }
        has_room => has_room?,
    };
    Ok(more.then_some(wanted + STRIDE))
}
