//! The state from a journal: which frames count, and what is refused.
//!
//! Does not know: how a journal is written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::disk::Reserved;
use super::entry::{Entry, Format, State, Version, parse};
use super::file::{self, Unfit, load};
use super::frame::{HEADER, SNAPSHOT, flaw, frame_at, is_torn, payload_length};
use super::history::{EVENTS_MAX, Unwritten};
use super::{JOURNAL, JOURNAL_MAX, RESERVED};
use crate::core::Event;
use crate::core::failure::Failure;
use crate::core::table::Table;
use crate::handoff::{Handoff, Recovery};
use crate::process::Boot;
use crate::render::EventRecord;

/// The content of a state directory.
#[derive(Debug)]
pub struct Recovered {
    /// The table, as far as it could be read.
    pub table: Table,
    /// The connection that the previous server answered on.
    pub handoff: Handoff,
    /// True if it was written in this boot, so that its processes may be alive.
    pub same_boot: bool,
    /// A sentence for the log about the data that was lost, if any.
    pub lost: Option<String>,
    /// Its events, for the history.
    pub(crate) history: Unwritten,
    /// The form of the journal.
    pub(super) format: Format,
    /// Files to set aside before they are replaced.
    pub(super) aside: Vec<&'static str>,
    /// The end of the last whole frame.
    pub(super) end: usize,
    /// The size of the table when it was last written: in bytes, and as [`Table::weight`].
    pub(super) base: (u64, usize),
    /// The content of `tokens`.
    pub(super) reserved: Reserved,
}

impl Recovered {
    /// An empty state.
    fn nothing(max_leases: usize) -> Self {
        Self {
            table: Table::new(max_leases),
            handoff: Handoff::default(),
            same_boot: false,
            lost: None,
            history: Unwritten::default(),
            format: Format::default(),
            aside: Vec::new(),
            end: 0,
            base: (0, 0),
            reserved: Reserved::default(),
        }
    }

    /// An empty state, since the journal is set aside. `lost` is a sentence.
    fn without_journal(max_leases: usize, lost: String) -> Self {
        Self {
            lost: Some(lost),
            aside: vec![JOURNAL],
            ..Self::nothing(max_leases)
        }
    }

    /// True if its journal may be appended to.
    pub(super) fn may_continue(&self) -> bool {
        self.same_boot && !self.aside.contains(&JOURNAL)
    }
}

/// The bytes of a journal, and facts about it from elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its path, for messages.
    pub path: &'a Path,
    /// Its content, or the beginning if no whole frame can follow.
    pub bytes: &'a [u8],
    /// Its length in bytes.
    pub size: u64,
    /// The last boot in which a server began here, according to `tokens`.
    pub began: Option<&'a str>,
}

impl Source<'_> {
    fn is_all(&self) -> bool {
        self.bytes.len() as u64 == self.size
    }
}

/// Why a damaged journal is not served.
const ALIVE: &str =
    "may be alive, so nothing is served; once they are gone, 'claimfs mount --repair'";

/// The loss if no journal is left: the end of a sentence.
const ALL_LOST: &str = "all that was held here is lost, and who held it may still be alive";

/// Reads a state directory without changing it.
///
/// A damaged journal is refused if its claimants may be alive. With `repair`, or if `tokens` says
/// that no server began here in this boot, what comes before the damage is used.
pub fn read(
    dir: &Path,
    boot: &Boot,
    max_leases: usize,
    repair: bool,
) -> Result<Recovered, Failure> {
    let (reserved, unknown) = match Reserved::read(dir) {
        Ok(reserved) => (reserved, None),
        Err(why) => {
            let path = dir.join(RESERVED);
            let why = foreign(&path, why)?;
            if !repair {
                return Err(Failure::unavailable(format!(
                    "{why}; which tokens were granted is not known, so nothing is served; \
                     'claimfs mount --repair' sets it aside",
                )));
            }
            let lost = format!("{why}; if the journal is lost too, tokens are granted again");
            (Reserved::default(), Some(lost))
        }
    };
    let began = reserved.boot.as_deref();
    let mut recovered = read_journal(dir, boot, began, max_leases, repair)?;
    // Only a journal that is continued knows the newest token; any other may have lost some.
    if !recovered.same_boot || recovered.lost.is_some() {
        recovered.table.skip_tokens(reserved.tokens);
    }
    recovered.reserved = reserved;
    if let Some(unknown) = unknown {
        let before = recovered.lost.take().map(|lost| format!("{lost}; "));
        recovered.lost = Some(before.unwrap_or_default() + &unknown);
        recovered.aside.push(RESERVED);
    }
    Ok(recovered)
}

/// Why a file is not used, as the beginning of a sentence.
fn foreign(path: &Path, why: Unfit) -> Result<String, Failure> {
    match why {
        Unfit::Foreign(why) => Ok(format!("{}: {why}", path.display())),
        Unfit::Unreadable(error) => {
            Err(Failure::unavailable(format!("{}: {error}", path.display())))
        }
    }
}

fn read_journal(
    dir: &Path,
    boot: &Boot,
    began: Option<&str>,
    max_leases: usize,
    repair: bool,
) -> Result<Recovered, Failure> {
    let path = &dir.join(JOURNAL);
    let began_here = began == Some(boot.id.as_str());
    let began_earlier = began.is_some() && !began_here;
    let file = match file::open(path, false) {
        Ok(file) => file,
        Err(why) => {
            let why = foreign(path, why)?;
            if !repair && !began_earlier {
                return Err(Failure::unavailable(format!(
                    "{why}; whoever claimed here {ALIVE} sets it aside and begins with nothing held"
                )));
            }
            let lost = format!("{why}; {ALL_LOST}");
            return Ok(Recovered::without_journal(max_leases, lost));
        }
    };
    let Some(file) = file else {
        if !began_here {
            return Ok(Recovered::nothing(max_leases));
        }
        let path = path.display();
        let why = format!("{path}: it is missing, although a server began here in this boot");
        if !repair {
            return Err(Failure::unavailable(format!(
                "{why}; whoever claimed here {ALIVE} begins with nothing held"
            )));
        }
        let lost = format!("{why}; {ALL_LOST}");
        return Ok(Recovered::without_journal(max_leases, lost));
    };
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    if length == 0 && began.is_none() {
        // Another program made this file: a server renames the complete file into place.
        return Ok(Recovered::nothing(max_leases));
    }
    if length > JOURNAL_MAX && !repair && !began_earlier {
        return Err(Failure::unavailable(format!(
            "{}: it is {length} bytes long, and no journal is longer than {JOURNAL_MAX}; whoever \
             claimed here {ALIVE} keeps what is whole at its beginning and sets the rest aside",
            path.display()
        )));
    }
    let (bytes, size, loaded) = load(&file);
    if let Err(error) = loaded
        && !repair
        && !began_earlier
    {
        return Err(Failure::unavailable(format!(
            "{}: byte {} cannot be read: {error}; whoever claimed after that {ALIVE} sets the rest \
             aside",
            path.display(),
            bytes.len()
        )));
    }
    let bytes = &bytes[..];
    let source = Source {
        path,
        bytes,
        size,
        began,
    };
    replay(source, boot, max_leases, repair)
}

/// The state that the bytes of a journal describe: see [`read`].
pub fn replay(
    source: Source,
    boot: &Boot,
    max_leases: usize,
    repair: bool,
) -> Result<Recovered, Failure> {
    let path = source.path.display();
    let Replayed {
        mut table,
        mut handoff,
        written,
        mut end,
        mut base,
        mut problem,
        history,
        format,
        newer,
        has_events,
        ..
    } = replay_frames(source, max_leases);
    if let Some(version) = newer.filter(|_| !repair) {
        return Err(too_new(source.path, version));
    }
    if has_events {
        table = table.reindexed();
    }
    if let Err(flaw) = table.check() {
        // Nobody can tell which event was wrong, so discard all of them.
        let why = format!("it contradicts itself: {flaw}");
        (table, handoff) = (Table::new(max_leases), Handoff::default());
        (problem, end, base) = (Some(why), 0, (0, 0));
    }
    let same_boot = written.as_ref().is_some_and(|there| there.id == boot.id);
    let is_here = |there: &Boot| there.pidns == boot.pidns;
    if same_boot && !written.as_ref().is_some_and(is_here) {
        return Err(foreign_namespace(source.path));
    }
    let began_here = source.began == Some(boot.id.as_str());
    let began_earlier = source.began.is_some() && !began_here;
    // A process that claimed in an earlier boot is dead, even if its record is lost.
    let may_live = same_boot || began_here || (written.is_none() && !began_earlier);
    let left = source.size - end as u64;
    if problem.is_some() && end > 0 && was_never_answered(source, end, may_live) {
        log::info!(
            "{path}: the last {left} bytes are of an event that was never answered, and are passed over"
        );
        problem = None;
    }
    let lost = match damage(source.size, end, problem, began_here && !same_boot) {
        Some((why, _)) if may_live && !repair => {
            return Err(Failure::unavailable(format!(
                "{path}: {why}; whoever claimed after that {ALIVE} sets the rest aside"
            )));
        }
        Some((why, lost)) => Some(format!("{path}: {why}; {lost}")),
        None => None,
    };
    Ok(Recovered {
        table,
        handoff,
        same_boot,
        aside: lost.iter().map(|_| JOURNAL).collect(),
        lost,
        history,
        format,
        end,
        base,
        reserved: Reserved::default(),
    })
}

/// The refusal of a journal that a newer claimfs wrote.
fn too_new(path: &Path, version: u32) -> Failure {
    Failure::unavailable(format!(
        "{}: it is of version {version}, and this claimfs knows version {} at most, so nothing is served; \
         start the newer claimfs that wrote it, or, once those who claimed are gone, 'claimfs mount --repair' \
         sets it aside",
        path.display(),
        Format::default().version(),
    ))
}

/// The boot in which a journal was written is this one, in another pid namespace.
fn foreign_namespace(path: &Path) -> Failure {
    Failure::unavailable(format!(
        "{}: written in another pid namespace, whose processes cannot be told from here; mount from \
         there or, if that namespace is gone and with it all who claimed there, remove this file first",
        path.display(),
    ))
}

/// The flaw of a journal that is whole up to `end`, and what a repair would lose. A `stale` journal
/// is older than the last server here.
fn damage(size: u64, end: usize, problem: Option<String>, stale: bool) -> Option<(String, String)> {
    let left = size - end as u64;
    match problem {
        Some(why) => Some((
            format!("corrupt at byte {end} of {size}: {why}"),
            format!("the last {left} bytes are lost, with what was claimed and released in them"),
        )),
        None if stale => Some((
            String::from("written in an earlier boot, although a server began here in this one"),
            String::from(ALL_LOST),
        )),
        None => None,
    }
}

/// True if the bytes after the last whole frame were never answered, or died with the machine.
fn was_never_answered(source: Source, end: usize, may_live: bool) -> bool {
    let tail = &source.bytes[end..];
    let holds_frames = || (0..tail.len()).any(|at| frame_at(tail, at).is_some());
    source.is_all() && (is_torn(tail) || (!may_live && !holds_frames()))
}

/// The content of the whole frames, up to the first frame that is damaged or impossible.
struct Replayed {
    table: Table,
    handoff: Handoff,
    /// The boot in which the head was written.
    written: Option<Boot>,
    end: usize,
    base: (u64, usize),
    /// Why the rest could not be read.
    problem: Option<String>,
    history: Unwritten,
    /// The offset of the first frame with events that the history shows.
    shown_from: usize,
    format: Format,
    /// The version, if this claimfs does not know it.
    newer: Option<u32>,
    has_events: bool,
    /// True if somebody reads `events`.
    has_readers: bool,
}

fn replay_frames(source: Source, max_leases: usize) -> Replayed {
    let bytes = source.bytes;
    let mut replayed = Replayed {
        problem: bytes.is_empty().then(|| String::from("it is empty")),
        shown_from: shown_from(bytes),
        ..Replayed::new(max_leases)
    };
    while replayed.end < bytes.len() {
        let read = match replayed.end {
            0 => replayed.head(bytes, max_leases),
            _ => replayed.entry(&bytes[replayed.end..]),
        };
        if let Err(why) = read {
            replayed.problem = Some(why);
            return replayed;
        }
    }
    if !source.is_all() && replayed.problem.is_none() {
        replayed.problem = Some(String::from("it cannot be read from there on"));
    }
    replayed
}

/// The offset of a frame from which on the events make a whole history: it shows no older ones.
fn shown_from(bytes: &[u8]) -> usize {
    let mut frames = Vec::new();
    let mut at = 0;
    while let Some(length) = bytes.get(at..).and_then(payload_length) {
        frames.push(at);
        at += HEADER + length;
    }
    let mut shown = 0;
    for at in frames.into_iter().skip(1).rev() {
        if bytes.get(at + HEADER) == Some(&SNAPSHOT) {
            break;
        }
        let entry = frame_at(bytes, at).and_then(|(payload, _)| Entry::read(payload).ok());
        let events = entry.map(|entry| entry.events).unwrap_or_default();
        let records = events.iter().filter(|event| EventRecord::has(&event.what));
        shown += records.count();
        if shown >= EVENTS_MAX {
            return at;
        }
    }
    0
}

fn whole_frame(bytes: &[u8], at: usize) -> Result<(&[u8], usize), String> {
    let rest = bytes.get(at..).unwrap_or_default();
    frame_at(bytes, at).ok_or_else(|| String::from(flaw(rest)))
}

/// How much of a journal [`replay_file`] reads at once, in bytes.
const SOME: usize = 1 << 20;

/// The table and the connection that a journal describes up to an offset, while more is appended to
/// it. `goes_on` is asked from time to time, and may break this off.
pub(super) fn replay_file(
    file: &File,
    until: u64,
    max_leases: usize,
    goes_on: &dyn Fn() -> bool,
) -> io::Result<(Table, Handoff)> {
    let mut replayed = Replayed::new(max_leases);
    // The bytes that are read and not replayed yet, and how many of them are replayed after all.
    let (mut bytes, mut done, mut at) = (Vec::new(), 0, 0);
    while at < until {
        if !goes_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        bytes.drain(..done);
        // The first frame is the whole table.
        bytes.shrink_to(4 * SOME);
        let (more, had) = ((SOME as u64).min(until - at), bytes.len());
        bytes.resize(had + usize::try_from(more).map_err(io::Error::other)?, 0);
        file.read_exact_at(&mut bytes[had..], at)?;
        (at, done) = (at + more, 0);
        while let rest = &bytes[done..]
            && frames_are_whole(rest, replayed.end == 0)
        {
            let before = replayed.end;
            let read = match before {
                0 => replayed.head(rest, max_leases),
                _ => replayed.entry(rest),
            };
            read.map_err(|why| io::Error::other(format!("corrupt at byte {before}: {why}")))?;
            done += replayed.end - before;
        }
    }
    if replayed.end as u64 != until {
        let why = format!("corrupt at byte {}: {}", replayed.end, flaw(&bytes[done..]));
        return Err(io::Error::other(why));
    }
    Ok((replayed.table, replayed.handoff))
}

/// Whether the next frame is there, or the first ones that belong together.
fn frames_are_whole(bytes: &[u8], are_first: bool) -> bool {
    let length = |at: usize| {
        let length = payload_length(bytes.get(at..)?)?;
        Some(at + HEADER + length).filter(|end| *end <= bytes.len())
    };
    let Some(end) = length(0) else {
        return false;
    };
    let version = || parse::<Version>(&bytes[HEADER..end]).ok();
    let is_binary = || {
        let format = version().and_then(|version| Format::of(version.claimfs_journal));
        format == Some(Format::Binary)
    };
    !are_first || !is_binary() || length(end).is_some()
}

impl Replayed {
    fn new(max_leases: usize) -> Self {
        Self {
            table: Table::new(max_leases),
            handoff: Handoff::default(),
            written: None,
            end: 0,
            base: (0, 0),
            problem: None,
            history: Unwritten::default(),
            shown_from: usize::MAX,
            format: Format::default(),
            newer: None,
            has_events: false,
            has_readers: false,
        }
    }

    /// Reads the frames with the version and the state.
    fn head(&mut self, bytes: &[u8], max_leases: usize) -> Result<(), String> {
        let (mut payload, mut next) = whole_frame(bytes, 0)?;
        let Version { claimfs_journal } = parse(payload)?;
        let Some(format) = Format::of(claimfs_journal) else {
            self.newer = Some(claimfs_journal).filter(|version| *version > 0);
            let known = Format::default().version();
            return Err(format!(
                "it is of version {claimfs_journal}, and this claimfs knows version {known} at most"
            ));
        };
        if format == Format::Binary {
            (payload, next) = whole_frame(bytes, next)?;
        }
        let state = State::read(format, payload, max_leases)?;
        // Applying events requires this.
        state.table.check_numbers()?;
        state.handoff.check()?;
        self.table = state.table;
        self.handoff = state.handoff;
        self.has_readers = self.handoff.descriptors.wanted().is_some();
        self.base = ((next as u64).saturating_sub(state.rest), state.weight);
        self.written = Some(state.boot);
        (self.format, self.end) = (format, next);
        Ok(())
    }

    /// Replays one frame after these, the first of the bytes from [`Replayed::end`] on.
    fn entry(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (payload, length) = whole_frame(bytes, 0)?;
        let next = self.end + length;
        let Entry { sent, events, note } = Entry::read(payload)?;
        check_events(&self.table, &events)?;
        let history = &mut self.history;
        let mut recovery = Recovery {
            keep: |record| history.push(record),
            is_kept: self.end >= self.shown_from,
            has_readers: self.has_readers,
        };
        self.has_events |= !events.is_empty();
        self.handoff
            .commit(&mut self.table, &events, sent, &mut recovery);
        if let Some(note) = note {
            note.check()?;
            self.handoff.note(note, sent);
            self.has_readers = self.handoff.descriptors.wanted().is_some();
        }
        self.end = next;
        Ok(())
    }
}

/// Checks that events follow those of a table: none missing, none repeated.
fn check_events(table: &Table, events: &[Event]) -> Result<(), String> {
    let mut seq = table.seq();
    for event in events {
        seq += 1;
        if event.seq != seq {
            return Err(format!(
                "event {} stands where event {seq} belongs",
                event.seq
            ));
        }
        if !event.has_valid_numbers() {
            return Err(format!(
                "a number in event {seq} is of no kind that it could be"
            ));
        }
    }
    Ok(())
}
