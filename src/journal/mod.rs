//! Events on disk: checksummed frames after a snapshot of the table, and reserved tokens.
//!
//! ```text
//! journal  frame: head, with a snapshot of the table   compaction writes a new file and renames it
//!          frame: the events of one decision           appended before they are applied
//!          …
//! tokens   the highest token that may be granted       written with fsync, a block of tokens ahead
//!
//! frame    length u32, checksum u32 of length and payload (CRC-32), payload: JSON
//! ```
//!
//! Promises: a decision is recorded whole or not at all. A journal of this boot is served only if
//! every frame in it is whole, but for a torn last frame, which was never answered. All other
//! damage is refused, as is a missing journal if `tokens` says that a server began here in this
//! boot. Space is reserved for the event that frees each lease, so a full disk refuses claims but
//! no release.
//!
//! Before the next write, the remains of a torn write become part of an empty frame, so that they
//! never look like damage. Truncating them would give up the space behind them, which another
//! program may take.
//!
//! A claim whose holder dies with the machine needs no fsync, nor does the compaction of a journal
//! that holds only such claims: a killed server loses nothing that it wrote. Each deadline of a
//! remote session is synced, since these sessions outlive the machine.
//!
//! Does not know: the rules, or who is alive. Of an event it knows how much space to reserve for
//! the event that undoes it, and whether it must survive a loss of power.

mod file;
mod frame;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use self::file::{Unfit, load};
use self::frame::{ENTRY_MAX, Filler, HEADER, PAYLOAD_MAX, flaw, frame, frame_at, is_torn};
use crate::core::failure::Failure;
use crate::core::table::{NUMBER_MAX, Table};
use crate::core::{Durability, Event, Token, printable};
use crate::handoff::{Handoff, Note, Recovery, Sent};
use crate::logging::limited;
use crate::process::Boot;
use crate::sys::files::allocate;

/// Records events before they are applied.
pub trait Log: Send {
    /// Appends the events of one decision, all or none, and the request that it answers, if any. An
    /// error refuses the decision.
    fn append(&mut self, events: &[Event], sent: Option<Sent>) -> io::Result<()>;

    /// The files to sync before the caller is answered, if an event was appended that must survive
    /// a loss of power. A compaction syncs its own file.
    fn unsynced(&mut self) -> io::Result<Vec<File>>;

    /// Appends a fact about a connection that no event states.
    fn note(&mut self, note: &Note, sent: Option<Sent>) -> io::Result<()>;

    /// Called after the appended events were applied to this table.
    fn applied(&mut self, table: &Table, handoff: &mut dyn FnMut() -> Handoff);
}

/// How many tokens are reserved at once.
const TOKENS: u64 = 1 << 16;

/// How many bytes may be appended before the next check for compaction.
const CHECK: u64 = 256 * 1024;

/// Check for compaction after this many names were freed, plus an eighth of all leases.
const FREED: usize = 8;

/// Bytes reserved beyond those for the events that free everything.
const SLACK: u64 = 64 * 1024;

/// Reserve this many bytes more than needed, so that not every claim reserves space.
const STRIDE: u64 = 256 * 1024;

/// The longest journal, in bytes, that is written or served.
pub const JOURNAL_MAX: u64 = 1 << 33;

// A journal is compacted at three times the size of its table, which is one frame.
const _: () = assert!(JOURNAL_MAX >= 4 * PAYLOAD_MAX as u64);

/// The longest file `tokens`, in bytes: a number and a boot id.
const TOKENS_MAX: u64 = 256;

/// The name of the journal in a state directory.
pub(crate) const JOURNAL: &str = "journal";

/// The name of the file that says which tokens are reserved.
pub(crate) const RESERVED: &str = "tokens";

const VERSION: u32 = 1;

/// The first frame.
#[derive(Serialize, Deserialize)]
struct Head<T, C> {
    claimfs_journal: u32,
    boot: Boot,
    table: T,
    // Absent in journals of older versions.
    #[serde(default, rename = "connection")]
    handoff: C,
}

/// The part of the first frame that is checked before the rest.
#[derive(Deserialize)]
struct Version {
    claimfs_journal: u32,
}

/// Every other frame: the events of a decision and the request that it answers, if any; or a fact
/// about a connection.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    sent: Option<Sent>,
    #[serde(default)]
    events: Vec<Event>,
    #[serde(default)]
    note: Option<Note>,
}

/// An [`Entry`], as it is written.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<Sent>,
    #[serde(skip_serializing_if = "<[Event]>::is_empty")]
    events: &'a [Event],
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a Note>,
}

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
    /// Files to set aside before they are replaced.
    aside: Vec<&'static str>,
    /// The end of the last whole frame.
    end: usize,
    /// The size of the table when it was last written: in bytes, and as [`Table::weight`].
    base: (u64, usize),
    /// The content of `tokens`.
    reserved: Reserved,
}

impl Recovered {
    /// An empty state.
    fn nothing(max_leases: usize) -> Self {
        Self {
            table: Table::new(max_leases),
            handoff: Handoff::default(),
            same_boot: false,
            lost: None,
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
    fn may_continue(&self) -> bool {
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
    } = replay_frames(source, max_leases);
    table = table.reindexed();
    if let Err(flaw) = table.check() {
        // Nobody can tell which event was wrong, so discard all of them.
        let why = format!("it contradicts itself: {flaw}");
        (table, handoff) = (Table::new(max_leases), Handoff::default());
        (problem, end, base) = (Some(why), 0, (0, 0));
    }
    let same_boot = written.as_ref().is_some_and(|there| there.id == boot.id);
    if same_boot
        && written
            .as_ref()
            .is_some_and(|there| there.pidns != boot.pidns)
    {
        return Err(Failure::unavailable(format!(
            "{path}: written in another pid namespace, whose processes cannot be told from here; mount from there",
        )));
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
    let stale = began_here && !same_boot;
    let lost = match damage(source.size, end, problem, stale) {
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
        end,
        base,
        reserved: Reserved::default(),
    })
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
}

fn replay_frames(source: Source, max_leases: usize) -> Replayed {
    let bytes = source.bytes;
    let mut replayed = Replayed {
        table: Table::new(max_leases),
        handoff: Handoff::default(),
        written: None,
        end: 0,
        base: (0, 0),
        problem: bytes.is_empty().then(|| String::from("it is empty")),
    };
    while replayed.end < bytes.len() {
        if let Err(why) = replayed.frame(bytes, max_leases) {
            replayed.problem = Some(why);
            return replayed;
        }
    }
    if !source.is_all() && replayed.problem.is_none() {
        replayed.problem = Some(String::from("it cannot be read from there on"));
    }
    replayed
}

impl Replayed {
    /// Replays one frame.
    fn frame(&mut self, bytes: &[u8], max_leases: usize) -> Result<(), String> {
        let frame = frame_at(bytes, self.end);
        let (payload, next) = frame.ok_or_else(|| String::from(flaw(&bytes[self.end..])))?;
        if let Some(head) = first_frame(self.end, payload)? {
            let read = head.table.completed(max_leases);
            read.check_numbers()?;
            self.table = read;
            head.handoff.check()?;
            self.handoff = head.handoff;
            let before = size(&self.handoff);
            self.base = ((next as u64).saturating_sub(before), self.table.weight());
            self.written = Some(head.boot);
        } else {
            let entry: Entry = parse(payload)?;
            check_events(&self.table, &entry.events)?;
            let (table, events) = (&mut self.table, &entry.events);
            self.handoff
                .commit(table, events, entry.sent, &mut Recovery);
            if let Some(note) = entry.note {
                note.check()?;
                self.handoff.note(note, entry.sent);
            }
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

/// The head, if this is the first frame.
fn first_frame(at: usize, payload: &[u8]) -> Result<Option<Head<Table, Handoff>>, String> {
    if at > 0 {
        return Ok(None);
    }
    let Version { claimfs_journal } = parse(payload)?;
    if claimfs_journal != VERSION {
        return Err(format!(
            "it is of version {claimfs_journal}, and this claimfs knows version {VERSION}"
        ));
    }
    parse(payload).map(Some)
}

fn parse<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, String> {
    // The error may quote bytes of the file.
    serde_json::from_slice(payload).map_err(|error| printable(&error.to_string()))
}

/// The file `tokens`.
#[derive(Debug, Default)]
struct Reserved {
    /// The highest token that may have been granted.
    tokens: u64,
    /// The last boot in which a server began here.
    boot: Option<String>,
}

impl Reserved {
    fn read(dir: &Path) -> Result<Self, Unfit> {
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

/// Writes a whole file with space reserved up to an offset, and renames it over the old one. With
/// `lasting`, it survives a loss of power. Returns whether space could be reserved.
fn replace(
    dir: &Path,
    name: &str,
    bytes: &[u8],
    room: u64,
    lasting: bool,
) -> io::Result<(File, bool)> {
    let new = dir.join(format!("{name}.new"));
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
fn has_room(file: &File, room: u64) -> io::Result<bool> {
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
        let mut is_whole = !(may_continue && is_same);
        let written = if is_whole {
            match write_table(dir, &boot, table, handoff, true) {
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
        };
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

    /// Compacts the journal once most of it is obsolete.
    fn compact_if_due(&mut self, table: &Table, handoff: impl FnOnce() -> Handoff) {
        // Events that free leases are small, yet may make most of the journal obsolete.
        if self.end < self.check && self.freed < FREED + table.lease_count() / 8 {
            return;
        }
        // Leases of ended sessions are swept first, so that the snapshot is small. On a full disk,
        // do not wait for that.
        if table.wants_sweep() && self.check > 0 {
            return;
        }
        let (size, weight) = self.base;
        // An estimate of the snapshot's size now, from its size at the last one.
        let live = table.weight() as u64 * size / (weight as u64).max(1);
        // Estimating takes time in proportion to the table, so do it less often in a large journal.
        self.check = self.end + CHECK.max(live / 8);
        self.freed = 0;
        if self.end <= 3 * (live + self.rest) + 2 * CHECK {
            return;
        }
        // Claims that die with the machine need no sync, and everybody waits for one.
        let lasting = table.outlives_machine();
        match write_table(&self.dir, &self.boot, table, &handoff(), lasting) {
            Ok(written) => {
                (self.owes_place, self.has_remains) = (!lasting, false);
                log::debug!("the journal is {} bytes, and was {}", written.end, self.end);
                (self.base, self.rest) = (written.base, written.rest);
                (self.file, self.end, self.room) = (written.file, written.end, written.room);
                (self.check, self.debt) = (self.end + CHECK, debt(table));
            }
            Err(error) => {
                log::debug!(
                    "{}: the journal cannot be written anew, and goes on growing: {error}",
                    self.dir.display()
                );
            }
        }
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

/// The first frame of a journal: the whole current state.
pub fn snapshot(boot: &Boot, table: &Table, handoff: &Handoff) -> io::Result<Vec<u8>> {
    frame(&Head {
        claimfs_journal: VERSION,
        boot: boot.clone(),
        table,
        handoff,
    })
}

fn write_table(
    dir: &Path,
    boot: &Boot,
    table: &Table,
    handoff: &Handoff,
    lasting: bool,
) -> io::Result<Written> {
    let frame = snapshot(boot, table, handoff)?;
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
    let rest = size(handoff);
    Ok(Written {
        file,
        end,
        room: has_room.then_some(room),
        base: (end - rest, table.weight()),
        rest,
    })
}

/// The size of a connection's part of the first frame, in bytes.
fn size(handoff: &Handoff) -> u64 {
    serde_json::to_vec(handoff).map_or(0, |bytes| bytes.len() as u64)
}

/// The size of all events that would free everything, in bytes.
fn debt(table: &Table) -> u64 {
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
        let note = None;
        let frame = frame(&Line { sent, events, note })?;
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
        self.debt = debt;
        self.freed += freed;
        Ok(())
    }

    fn note(&mut self, note: &Note, sent: Option<Sent>) -> io::Result<()> {
        let (note, events) = (Some(note), &[][..]);
        let frame = frame(&Line { sent, events, note })?;
        self.reserve_space(frame.len() as u64, self.debt)?;
        self.write(&frame)
    }

    fn unsynced(&mut self) -> io::Result<Vec<File>> {
        let mut files = Vec::new();
        if std::mem::take(&mut self.owes_sync) {
            files.push(self.file.try_clone()?);
            if std::mem::take(&mut self.owes_place) {
                files.push(File::open(&self.dir)?);
            }
        }
        Ok(files)
    }

    fn applied(&mut self, table: &Table, handoff: &mut dyn FnMut() -> Handoff) {
        self.compact_if_due(table, handoff);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs, io};

    use super::{Boot, Disk, Entry, Filler, HEADER, Handoff, JOURNAL_MAX, Log, SLACK, parse, read};
    use crate::handoff::Note;

    #[test]
    fn a_frame_that_fills_remains_says_nothing() {
        let filler = Filler::new(300).unwrap();
        let mut frame = vec![0; filler.len()];
        for (from, bytes) in filler.writes(0) {
            frame[from..from + bytes.len()].copy_from_slice(bytes);
        }
        let entry: Entry = parse(&frame[HEADER..]).unwrap();
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
