//! The journal on a disk: appending, reserving space and tokens, compaction.
//!
//! Does not know: how a journal is read.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::mem;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::copy::{Copy, Live, Place, Source};
use super::entry::{Format, entry, size, snapshot};
use super::file::{self, Unfit};
use super::frame::{ENTRY_MAX, Filler, HEADER};
use super::recovery::Recovered;
use super::{JOURNAL, JOURNAL_MAX, Log, RESERVED};
use crate::core::table::{NUMBER_MAX, Table};
use crate::core::{Durability, Event, Token};
use crate::handoff::{Handoff, Note, Sent};
use crate::logging::limited;
use crate::process::Boot;
use crate::sys::files::{allocate, is_at};

/// How many tokens are reserved at once.
const TOKENS: u64 = 1 << 16;

/// How many bytes may be appended before the next check for compaction.
const CHECK: u64 = 256 * 1024;

/// Check for compaction after this many names were freed, plus an eighth of all leases.
const FREED: usize = 8;

/// Bytes reserved beyond those for the events that free everything.
pub(super) const SLACK: u64 = 64 * 1024;

/// Reserve this many bytes more than needed, so that not every claim reserves space.
pub(super) const STRIDE: u64 = 256 * 1024;

/// The longest file `tokens`, in bytes: a number and a boot id.
const TOKENS_MAX: u64 = 256;

/// The file `tokens`.
#[derive(Debug, Default)]
pub(super) struct Reserved {
    /// The highest token that may have been granted.
    pub(super) tokens: u64,
    /// The last boot in which a server began here.
    pub(super) boot: Option<String>,
}

impl Reserved {
    pub(super) fn read(dir: &Path) -> Result<Self, Unfit> {
        let Some(file) = file::open(&dir.join(RESERVED), false)? else {
            return Ok(Self::default());
        };
        let mut bytes = Vec::new();
        file.take(TOKENS_MAX).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let mut words = text.split_whitespace();
        let tokens = words.next().and_then(|word| word.parse().ok());
        let tokens = tokens.filter(|tokens| *tokens < NUMBER_MAX);
        let wrong = || Unfit::Foreign(String::from("no number of a token stands in it"));
        Ok(Self {
            tokens: tokens.ok_or_else(wrong)?,
            boot: words.next().map(String::from),
        })
    }

    fn write(dir: &Path, tokens: u64, boot: &Boot) -> io::Result<()> {
        replace(
            dir,
            RESERVED,
            format!("{tokens} {}\n", boot.id).as_bytes(),
            0,
            true,
        )
        .map(|_| ())
    }
}

/// The path of a new file before it takes the place of the old one.
pub(super) fn new_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.new"))
}

/// Writes a whole file with space reserved up to an offset, and renames it over the old one. With
/// `lasting`, it survives a loss of power. Returns whether space could be reserved.
fn replace(
    dir: &Path,
    name: &str,
    bytes: &[u8],
    room: u64,
    lasting: bool,
) -> io::Result<(File, bool)> {
    let new = new_path(dir, name);
    let write = || {
        let mut file = file::create(&new)?;
        // Reserve first, so that a full disk is noticed early.
        let has_room = room > 0 && has_room(&file, room)?;
        file.write_all(bytes)?;
        if lasting {
            file.sync_all()?;
        }
        fs::rename(&new, dir.join(name))?;
        if lasting {
            File::open(dir)?.sync_all()?;
        }
        Ok((file, has_room))
    };
    let written = write();
    if written.is_err() {
        // Give its space back.
        _ = fs::remove_file(&new);
    }
    written
}

/// Reserves space. False if the filesystem cannot do that.
pub(super) fn has_room(file: &File, room: u64) -> io::Result<bool> {
    match allocate(file, 0, room) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            limited!(
                None,
                log::Level::Warn,
                "no room can be set aside for the journal: on a full disk, releases may fail"
            );
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// A journal that is appended to.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    boot: Boot,
    /// The form of the journal, in which it goes on.
    format: Format,
    /// The form to write a new journal in.
    next_format: Format,
    file: File,
    /// The end of the last whole frame.
    end: u64,
    /// Space is reserved up to here; `None` if the filesystem cannot do that.
    room: Option<u64>,
    /// The size of all events that would free everything.
    debt: u64,
    /// No token up to this one is granted after a crash.
    granted: u64,
    /// The size of the table when it was last written: in bytes, and as [`Table::weight`].
    base: (u64, usize),
    /// The size of the connection's part when it was last written, in bytes.
    rest: u64,
    /// The length at which to check for compaction next.
    check: u64,
    /// Names freed since the last check.
    freed: usize,
    /// An event was appended that must survive a loss of power.
    owes_sync: bool,
    /// The journal was compacted without a sync since.
    owes_place: bool,
    /// There may be remains of an interrupted write after the last whole frame.
    has_remains: bool,
    /// The number of copies that were begun. Only the newest may take the place of this journal.
    copies: u64,
    /// The newest copy, while it is in the making.
    copy: Option<Making>,
}

/// The state of this journal while a copy of it is made.
#[derive(Debug, Default)]
struct Making {
    /// An event was appended that must survive a loss of power.
    lasts: bool,
    /// The copy has all of this journal. From now on each frame is written to both.
    mirror: Option<(File, u64)>,
}

impl Disk {
    /// Continues what was recovered: appends to the journal if the connection continues too, and
    /// writes a new journal otherwise. Corrupt files are set aside.
    pub fn begin(
        dir: &Path,
        boot: Boot,
        recovered: &Recovered,
        handoff: &Handoff,
    ) -> io::Result<Self> {
        for name in &recovered.aside {
            file::set_aside(dir, name)?;
        }
        let (table, reserved) = (&recovered.table, &recovered.reserved);
        let may_continue = recovered.may_continue();
        let is_same = recovered.handoff.nonce == handoff.nonce;
        let format = recovered.format;
        let mut is_whole = !(may_continue && is_same);
        let written = if is_whole {
            match write_table(dir, &boot, (table, handoff), format, true) {
                // On a full disk, continue the existing journal.
                Err(error) if error.kind() == io::ErrorKind::StorageFull && may_continue => {
                    is_whole = false;
                    reopen(dir, recovered)?
                }
                written => written?,
            }
        } else {
            reopen(dir, recovered)?
        };
        let is_new = reserved.boot.as_ref() != Some(&boot.id);
        let mut disk = Self {
            dir: dir.to_path_buf(),
            boot,
            format,
            next_format: format,
            // Check early: earlier servers may each have written too little to reach a check.
            check: written.base.0 + CHECK,
            freed: 0,
            // Assume that the previous server died before its last fsync.
            owes_sync: true,
            owes_place: !is_whole,
            has_remains: !is_whole,
            base: written.base,
            rest: written.rest,
            file: written.file,
            end: written.end,
            room: written.room,
            debt: debt(table),
            granted: if is_new { 0 } else { reserved.tokens },
            copies: 0,
            copy: None,
        };
        // A server that was killed may have left it.
        _ = fs::remove_file(new_path(dir, JOURNAL));
        disk.reserve_tokens(table.next_token())?;
        if disk.end == recovered.end as u64 && !is_same {
            let nonce = handoff.nonce.clone();
            disk.note(&Note::Began { nonce }, None).unwrap_or_else(|error| {
                log::warn!(
                    "{}: should this server be killed, requests that it has not answered may fail: {error}",
                    dir.display()
                );
            });
        }
        Ok(disk)
    }

    /// Whether most of the journal is obsolete.
    fn is_mostly_obsolete(&mut self, table: &Table) -> bool {
        // Events that free leases are small, yet may make most of the journal obsolete.
        if self.end < self.check && self.freed < FREED + table.lease_count() / 8 {
            return false;
        }
        // Leases of ended sessions are swept first, so that the snapshot is small. On a full disk,
        // do not wait for that.
        if table.wants_sweep() && self.check > 0 {
            return false;
        }
        let (size, weight) = self.base;
        // An estimate of the snapshot's size now, from its size at the last one.
        let live = table.weight() as u64 * size / (weight as u64).max(1);
        self.check = self.end + CHECK;
        self.freed = 0;
        let is_older = self.format != self.next_format;
        is_older || self.end > 3 * (live + self.rest) + 2 * CHECK
    }

    /// Compacts the journal if it is due, in the steps in which a server does that beside its
    /// requests: see [`struct@Copy`].
    pub fn compact_if_due(&mut self, table: &Table, live: Live) -> io::Result<()> {
        if !self.is_due(table) {
            return Ok(());
        }
        let mut copy = self.begin_copy(table, live, Place::Kept)?;
        let mut steps = || {
            copy.write(&|| true)?;
            copy.follow(self.end)?;
            let lasts = self.mirror(&mut copy)?;
            copy.sync(lasts)?;
            self.switch(&mut copy)
        };
        let done = steps().map(|_| ());
        self.give_up(&copy);
        done
    }

    /// Goes on in a new journal, which begins with this table.
    fn write_table(&mut self, table: &Table, handoff: &Handoff, lasting: bool) -> io::Result<()> {
        // A copy in the making lacks what is appended to this one.
        self.copies += 1;
        self.copy = None;
        let format = self.next_format;
        let written = write_table(&self.dir, &self.boot, (table, handoff), format, lasting)?;
        self.format = format;
        (self.owes_place, self.has_remains) = (!lasting, false);
        log::debug!("the journal is {} bytes, and was {}", written.end, self.end);
        (self.base, self.rest) = (written.base, written.rest);
        (self.file, self.end, self.room) = (written.file, written.end, written.room);
        (self.check, self.debt) = (self.end + CHECK, debt(table));
        Ok(())
    }

    /// Makes sure that a token is reserved. Reserves the next block early, so that a full disk
    /// leaves some for the waiters of a released name.
    fn reserve_tokens(&mut self, token: u64) -> io::Result<()> {
        if token + TOKENS / 2 < self.granted {
            return Ok(());
        }
        let granted = token + TOKENS;
        match Reserved::write(&self.dir, granted, &self.boot) {
            Ok(()) => self.granted = granted,
            Err(error) if token >= self.granted => return Err(error),
            Err(_) => {}
        }
        Ok(())
    }

    /// Reserves space for a frame and, after it, for the events that would free everything.
    fn reserve_space(&mut self, frame: u64, debt: u64) -> io::Result<()> {
        let wanted = self.end + frame + debt + SLACK;
        if wanted > JOURNAL_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let Some(room) = self.room else {
            return Ok(());
        };
        if wanted <= room {
            return Ok(());
        }
        let room = wanted + STRIDE;
        self.room = has_room(&self.file, room)?.then_some(room);
        Ok(())
    }

    fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        if frame.len() > HEADER + ENTRY_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if self.has_remains {
            self.fill_remains()?;
        }
        let end = self.end + frame.len() as u64;
        if end > JOURNAL_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.has_remains = true;
        self.file.write_all_at(frame, self.end)?;
        self.has_remains = false;
        self.end = end;
        if let Some(Making { mirror, .. }) = &mut self.copy
            && let Some((file, end)) = mirror
        {
            match file.write_all_at(frame, *end) {
                Ok(()) => *end += frame.len() as u64,
                // It is of no use any more: see `switch`.
                Err(_) => self.copy = None,
            }
        }
        Ok(())
    }

    /// Makes the remains of an interrupted write part of an empty frame.
    fn fill_remains(&mut self) -> io::Result<()> {
        let remains = self.file.metadata()?.len().saturating_sub(self.end);
        if remains == 0 {
            return Ok(());
        }
        let filler = Filler::new(usize::try_from(remains).map_err(io::Error::other)?)?;
        for (from, bytes) in filler.writes(self.end) {
            self.file.write_all_at(bytes, self.end + from as u64)?;
        }
        self.end += filler.len() as u64;
        Ok(())
    }
}

/// A journal to append to.
struct Written {
    file: File,
    end: u64,
    room: Option<u64>,
    /// The size of the table when it was last written: in bytes, and as [`Table::weight`].
    base: (u64, usize),
    /// The size of the connection's part, in bytes.
    rest: u64,
}

/// Continues the existing journal after its last whole frame.
fn reopen(dir: &Path, recovered: &Recovered) -> io::Result<Written> {
    let file = match file::open(&dir.join(JOURNAL), true) {
        Ok(file) => file.ok_or(io::ErrorKind::NotFound)?,
        Err(Unfit::Foreign(why)) => return Err(io::Error::other(why)),
        Err(Unfit::Unreadable(error)) => return Err(error),
    };
    Ok(Written {
        file,
        end: recovered.end as u64,
        room: Some(0),
        base: recovered.base,
        rest: 0,
    })
}

fn write_table(
    dir: &Path,
    boot: &Boot,
    (table, handoff): (&Table, &Handoff),
    format: Format,
    lasting: bool,
) -> io::Result<Written> {
    let frame = snapshot(format, boot, table, handoff)?;
    let end = frame.len() as u64;
    let mut room = end + debt(table) + SLACK + STRIDE;
    let mut replaced = replace(dir, JOURNAL, &frame, room, lasting);
    if let Err(error) = &replaced
        && error.kind() == io::ErrorKind::StorageFull
    {
        // Replacing the old file frees its space, and more can be reserved then.
        room -= STRIDE;
        replaced = replace(dir, JOURNAL, &frame, room, lasting);
    }
    let (file, has_room) = replaced?;
    let rest = size(format, handoff);
    Ok(Written {
        file,
        end,
        room: has_room.then_some(room),
        base: (end - rest, table.weight()),
        rest,
    })
}

/// The size of all events that would free everything, in bytes.
pub(super) fn debt(table: &Table) -> u64 {
    let waiters = table.waiters().count();
    Event::space_to_free(
        table.names(),
        table.session_count(),
        table.root_count(),
        waiters,
    )
}

impl Log for Disk {
    fn append(&mut self, events: &[Event], sent: Option<Sent>) -> io::Result<()> {
        let newest = events.iter().filter_map(Event::token);
        if let Some(Token(token)) = newest.max() {
            self.reserve_tokens(token)?;
        }
        let frame = entry(self.format, sent, events, None)?;
        let (mut more, mut less, mut freed) = (0, 0, 0);
        let mut is_small = true;
        for delta in events.iter().map(Event::space_delta) {
            (more, less) = (more + delta.adds, less + delta.frees);
            freed += usize::from(delta.frees > 0);
            is_small &= delta.is_small;
        }
        let debt = (self.debt + more).saturating_sub(less);
        // Never refuse an event that frees a name for lack of space: the reserve is for these.
        if less == 0 && !is_small {
            let reserved = self.reserve_space(frame.len() as u64, debt);
            if reserved.is_err() {
                // A compaction may free space.
                self.check = 0;
            }
            reserved?;
        }
        self.write(&frame)?;
        // A remote session outlives the machine, so its deadline is synced. A renewal alone is not:
        // after a reboot the deadline begins again.
        let durability = |event: &Event| event.durability();
        let must_last = events
            .iter()
            .any(|event| durability(event) != Durability::Boot);
        let only_renews = events.len() == 1 && durability(&events[0]) == Durability::Renewal;
        self.owes_sync |= must_last && !only_renews;
        if let Some(copy) = &mut self.copy {
            copy.lasts |= must_last;
        }
        self.debt = debt;
        self.freed += freed;
        Ok(())
    }

    fn note(&mut self, note: &Note, sent: Option<Sent>) -> io::Result<()> {
        let frame = entry(self.format, sent, &[], Some(note))?;
        self.reserve_space(frame.len() as u64, self.debt)?;
        self.write(&frame)
    }

    fn unsynced(&mut self) -> io::Result<Vec<File>> {
        let mut files = Vec::new();
        if std::mem::take(&mut self.owes_sync) {
            files.push(self.file.try_clone()?);
            if let Some(Making { mirror, .. }) = &self.copy
                && let Some((file, _)) = mirror
            {
                files.push(file.try_clone()?);
            }
            if std::mem::take(&mut self.owes_place) {
                files.push(File::open(&self.dir)?);
            }
        }
        Ok(files)
    }

    fn is_in_place(&self) -> bool {
        let has_reserved = || fs::symlink_metadata(self.dir.join(RESERVED)).is_ok();
        is_at(&self.file, &self.dir.join(JOURNAL)) && has_reserved()
    }

    fn rewrite(&mut self, table: &Table, handoff: &Handoff) -> io::Result<()> {
        if !self.is_in_place() {
            file::set_aside(&self.dir, JOURNAL)?;
        }
        Reserved::write(&self.dir, self.granted, &self.boot)?;
        self.write_table(table, handoff, true)
    }

    fn length(&self) -> u64 {
        self.end
    }

    fn settled(&mut self) {
        self.next_format = Format::default();
        if self.format != self.next_format {
            self.check = 0;
        }
    }

    fn reach(&self) -> (u64, u64) {
        (self.end, self.debt)
    }

    fn is_due(&mut self, table: &Table) -> bool {
        self.copy.is_none() && self.is_mostly_obsolete(table)
    }

    fn begin_copy(&mut self, table: &Table, live: Live, place: Place) -> io::Result<Copy> {
        if place == Place::Lost {
            Reserved::write(&self.dir, self.granted, &self.boot)?;
        }
        let source = Source {
            file: self.file.try_clone()?,
            end: self.end,
            debt: self.debt,
            boot: self.boot.clone(),
            format: self.next_format,
        };
        self.copies += 1;
        self.copy = Some(Making::default());
        Ok(Copy::new(
            &self.dir,
            source,
            table,
            live,
            (place, self.copies),
        ))
    }

    fn mirror(&mut self, copy: &mut Copy) -> io::Result<bool> {
        let Some(making) = self.copy.as_mut().filter(|_| copy.number == self.copies) else {
            return Err(io::ErrorKind::Interrupted.into());
        };
        copy.follow(self.end)?;
        // The file is as long as its frames: the room behind them does not count.
        copy.make_room(self.debt)?;
        making.mirror = Some(copy.mirror()?);
        Ok(making.lasts)
    }

    fn switch(&mut self, copy: &mut Copy) -> io::Result<File> {
        let making = self.copy.take().filter(|_| copy.number == self.copies);
        let mirror = making.and_then(|making| making.mirror);
        let (file, end) = mirror.ok_or(io::ErrorKind::Interrupted)?;
        if !self.is_in_place() {
            match copy.place {
                Place::Lost => file::set_aside(&self.dir, JOURNAL)?,
                Place::Kept => return Err(io::ErrorKind::NotFound.into()),
            }
        }
        let first = copy.put_in_place(end, self.debt)?;
        log::debug!("the journal is {end} bytes, and was {}", self.end);
        // The name of the new file is not on disk yet, but the old one has all as well until the
        // next that must be.
        (self.owes_place, self.has_remains) = (true, false);
        (self.base, self.rest) = (first.base, first.rest);
        (self.end, self.room) = (end, first.room);
        self.format = first.format;
        self.debt = (self.debt + first.debt).saturating_sub(first.debt_before);
        (self.check, self.freed) = (self.end + CHECK, 0);
        Ok(mem::replace(&mut self.file, file))
    }

    fn give_up(&mut self, copy: &Copy) {
        if copy.number == self.copies {
            self.copy = None;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs, io};

    use super::super::entry::Entry;
    use super::super::recovery::read;
    use super::super::{JOURNAL_MAX, Log};
    use super::{Boot, Disk, Filler, HEADER, Handoff, SLACK};
    use crate::handoff::Note;

    #[test]
    fn a_frame_that_fills_remains_says_nothing() {
        let filler = Filler::new(300).unwrap();
        let mut frame = vec![0; filler.len()];
        for (from, bytes) in filler.writes(0) {
            frame[from..from + bytes.len()].copy_from_slice(bytes);
        }
        let entry = Entry::read(&frame[HEADER..]).unwrap();
        assert!(entry.sent.is_none() && entry.events.is_empty() && entry.note.is_none());
    }

    #[test]
    fn a_journal_becomes_as_long_as_it_may_be_and_what_frees_has_the_end_of_it() {
        let dir = std::env::temp_dir().join(format!("claimfs-longest-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let boot = Boot {
            id: "this-boot".into(),
            pidns: 7,
        };
        let recovered = read(&dir, &boot, 9, false).unwrap();
        let mut disk = Disk::begin(&dir, boot, &recovered, &Handoff::new("a")).unwrap();
        // Do not allocate up to that length.
        disk.room = None;
        let length = {
            let before = disk.end;
            disk.note(&Note::TakenOver, None).unwrap();
            disk.end - before
        };
        let is_full = |result: io::Result<()>| {
            result.is_err_and(|error| error.kind() == io::ErrorKind::StorageFull)
        };
        disk.end = JOURNAL_MAX - SLACK - length;
        disk.note(&Note::TakenOver, None).unwrap();
        assert!(is_full(disk.note(&Note::TakenOver, None)));
        disk.end = JOURNAL_MAX - length;
        disk.write(&vec![0; usize::try_from(length).unwrap()])
            .unwrap();
        assert!(disk.end == JOURNAL_MAX && is_full(disk.write(&[0])));
        fs::remove_dir_all(&dir).unwrap();
    }
}
