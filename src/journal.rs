//! Events on disk: checksummed frames behind a picture of the table, and the tokens that were set aside.
//!
//! ```text
//! journal      frame: head, with the table as it was        written anew and renamed into place when it has grown
//!              frame: the events of one decision            appended before they are applied
//!              …
//! tokens       no token up to this number is granted again  written with fsync, a block of tokens ahead
//!
//! frame        length u32, checksum u32 of length and payload (CRC-32), payload: JSON
//! ```
//!
//! Promises: a decision is written down whole or not at all; what was cut off at the end was never answered; what is
//! corrupt before the end is never passed over in silence; and each lease has room set aside for the event that frees it,
//! so that a full disk refuses claims but no release.
//!
//! There is no fsync for a claim whose holder dies with the machine, nor for a journal written anew that has no others: a killed server
//! loses nothing that it has written. There is one for each deadline of a session without processes, which lives on.
//!
//! Deliberately ignorant of: what events mean, and who is alive.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::connection::{Connection, Note, Sent};
use crate::lease::{Event, Name, What, printable};
use crate::process::{Boot, set_aside};
use crate::store::Journal;
use crate::table::{NUMBER_MAX, Table};

/// How many tokens are set aside at once.
const TOKENS: u64 = 1 << 16;

/// How much may be added before it is looked whether the journal wants to be written anew, in bytes.
const CHECK: u64 = 256 * 1024;

/// How many names may be freed before it is looked so too, and as many as an eighth of those that there are.
const FREED: usize = 8;

/// What is set aside beyond the events that free what is held, in bytes.
const SLACK: u64 = 64 * 1024;

/// How much more is set aside than is needed, so that it need not be done for each claim, in bytes.
const STRIDE: u64 = 256 * 1024;

/// What an event that frees something takes at most, but for the name in it, in bytes.
const FREEING: u64 = 224;

/// The largest payload that is taken for one: a table of a million leases has less.
const PAYLOAD_MAX: usize = 1 << 31;

const VERSION: u32 = 1;

/// The first frame.
#[derive(Serialize, Deserialize)]
struct Head<T, C> {
    claimfs_journal: u32,
    boot: Boot,
    table: T,
    // A claimfs that knew of none has written none.
    #[serde(default)]
    connection: C,
}

/// What is looked at before the rest of it.
#[derive(Deserialize)]
struct Version {
    claimfs_journal: u32,
}

/// Each of the others: the events of a decision, with the request that it answers if there is one, or what else there is to know
/// of a connection.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    sent: Option<Sent>,
    #[serde(default)]
    events: Vec<Event>,
    #[serde(default)]
    note: Option<Note>,
}

/// The same, as it is written.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<Sent>,
    #[serde(skip_serializing_if = "<[Event]>::is_empty")]
    events: &'a [Event],
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a Note>,
}

/// Why a journal is not gone on with: a sentence for people.
#[derive(Debug)]
pub struct Unusable(pub String);

/// What a state directory remembers.
#[derive(Debug)]
pub struct Recovered {
    /// The table, as far as it is known.
    pub table: Table,
    /// The connection that the server before answered on.
    pub connection: Connection,
    /// It was written in this boot, so that its processes may be alive.
    pub same_boot: bool,
    /// What was lost, if anything: a sentence for the log.
    pub lost: Option<String>,
    /// The journal must be kept aside before it is written anew.
    corrupt: bool,
    /// Where its last whole frame ends.
    end: usize,
    /// How large the table was when it was last written, in bytes, and by its own reckoning.
    base: (u64, usize),
}

fn journal(dir: &Path) -> PathBuf {
    dir.join("journal")
}

/// Reads what a state directory remembers, and changes nothing. With `repair`, and where it was left by an earlier boot, whose
/// processes are all dead, what comes before the first corrupt byte.
pub fn read(
    dir: &Path,
    boot: &Boot,
    max_leases: usize,
    repair: bool,
) -> Result<Recovered, Unusable> {
    let path = journal(dir);
    let unreadable =
        |error: &dyn std::fmt::Display| Unusable(format!("{}: {error}", path.display()));
    let bytes = match fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(unreadable(&error)),
    };
    let reserved = Reserved::read(dir).map_err(|error| unreadable(&error))?;
    // Whatever the journal itself says: no server has begun here in this boot.
    let earlier = reserved
        .boot
        .as_ref()
        .is_some_and(|there| *there != boot.id);
    let mut recovered = match bytes {
        Some(bytes) => replay(&path, &bytes, boot, max_leases, repair || earlier)?,
        None => Recovered {
            table: Table::new(max_leases),
            same_boot: false,
            connection: Connection::default(),
            lost: None,
            corrupt: false,
            end: 0,
            base: (0, 0),
        },
    };
    // A journal that goes on where it stopped knows the newest token; any other may have lost some.
    if !recovered.same_boot || recovered.lost.is_some() {
        recovered.table.skip_tokens(reserved.tokens);
    }
    Ok(recovered)
}

/// What the bytes of a journal say: see [`read`]. Its path is for sentences.
pub fn replay(
    path: &Path,
    bytes: &[u8],
    boot: &Boot,
    max_leases: usize,
    repair: bool,
) -> Result<Recovered, Unusable> {
    let (mut table, mut written, mut at) = (Table::new(max_leases), None, 0);
    let (mut connection, mut base) = (Connection::default(), (0, 0));
    let mut problem = None;
    while at < bytes.len() {
        let frame = frame_at(bytes, at);
        let read = frame.ok_or_else(|| String::from("its checksum is wrong"));
        let read = read.and_then(|(payload, next)| {
            if let Some(head) = first_frame(at, payload)? {
                let read = head.table.completed(max_leases);
                read.check_numbers()?;
                table = read;
                connection = head.connection;
                base = (
                    (next as u64).saturating_sub(size(&connection)),
                    table.weight(),
                );
                written = Some(head.boot);
                return Ok(next);
            }
            let entry: Entry = parse(payload)?;
            check_events(&table, &entry.events)?;
            connection.replay(&mut table, &entry.events, entry.sent);
            if let Some(note) = entry.note {
                connection.note(note, entry.sent);
            }
            Ok(next)
        });
        match read {
            Ok(next) => at = next,
            Err(why) => {
                problem = Some(why);
                break;
            }
        }
    }
    table = table.indexed_anew();
    if let Err(flaw) = table.check() {
        // Which event was the wrong one nobody can tell, so nothing of it is believed.
        let why = format!("it contradicts itself: {flaw}");
        (table, connection) = (Table::new(max_leases), Connection::default());
        (problem, at, base) = (Some(why), 0, (0, 0));
    }
    let same_boot = written.as_ref().is_some_and(|there| there.id == boot.id);
    if same_boot
        && written
            .as_ref()
            .is_some_and(|there| there.pidns != boot.pidns)
    {
        return Err(Unusable(format!(
            "{}: written in another pid namespace, whose processes cannot be told from here; mount from there, or name \
             another directory with --state-dir DIR",
            path.display()
        )));
    }
    let mut lost = None;
    if let Some(why) = problem {
        let left = bytes.len() - at;
        // One that is whole was answered, perhaps, even if it says nothing that this claimfs understands.
        let torn = at > 0 && !(at..bytes.len()).any(|at| frame_at(bytes, at).is_some());
        if torn {
            log::info!(
                "{}: the last {left} bytes are of an event that was never answered, and are passed over",
                path.display()
            );
        } else if !repair && (same_boot || written.is_none()) {
            return Err(Unusable(format!(
                "{}: corrupt at byte {at} of {}: {why}; whoever claimed after that may be alive, so nothing is served; once \
                 they are gone, 'claimfs mount --repair' sets the rest aside",
                path.display(),
                bytes.len()
            )));
        } else {
            lost = Some(format!(
                "{}: corrupt at byte {at} of {}: {why}; the last {left} bytes are lost, with what was claimed and released in them",
                path.display(),
                bytes.len()
            ));
        }
    }
    Ok(Recovered {
        table,
        connection,
        same_boot,
        corrupt: lost.is_some(),
        lost,
        end: at,
        base,
    })
}

/// Whether events follow on those that made a table: none is missing, and none is there twice.
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
        if event.largest_number() >= NUMBER_MAX {
            return Err(format!("a number in event {seq} is too large"));
        }
    }
    Ok(())
}

/// The head, if this is the first frame.
fn first_frame(at: usize, payload: &[u8]) -> Result<Option<Head<Table, Connection>>, String> {
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
    // The error may quote what it has found there.
    serde_json::from_slice(payload).map_err(|error| printable(&error.to_string()))
}

/// The payload of the frame at an offset, and where the next one begins; `None` if no whole frame is there.
fn frame_at(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (length, rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let size = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    // An object, whatever it says; so that one is not looked for in vain at each offset of a megabyte.
    let payload = rest
        .get(..size)
        .filter(|payload| payload.first() == Some(&b'{'))?;
    (checksum(*length, payload) == u32::from_le_bytes(*sum)).then_some((payload, at + 8 + size))
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

/// How long most frames are at most, in bytes.
const FRAME_USUAL: usize = 1024;

fn frame(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = Vec::with_capacity(FRAME_USUAL);
    frame.extend([0; 8]);
    serde_json::to_writer(&mut frame, value)?;
    let size = frame.len() - 8;
    let length = u32::try_from(size).ok().filter(|_| size <= PAYLOAD_MAX);
    let length = length.ok_or(io::ErrorKind::FileTooLarge)?.to_le_bytes();
    let sum = checksum(length, &frame[8..]).to_le_bytes();
    frame[..4].copy_from_slice(&length);
    frame[4..8].copy_from_slice(&sum);
    Ok(frame)
}

/// The file `tokens`.
#[derive(Debug, Default)]
struct Reserved {
    /// The highest token that may have been granted.
    tokens: u64,
    /// The newest boot in which a server has begun here.
    boot: Option<String>,
}

impl Reserved {
    fn read(dir: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(dir.join("tokens")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut words = text.split_whitespace();
        let tokens = words.next().and_then(|word| word.parse().ok());
        Ok(Self {
            tokens: tokens
                .filter(|tokens| *tokens < NUMBER_MAX)
                .ok_or_else(|| io::Error::other("tokens: no number of a token stands in it"))?,
            boot: words.next().map(String::from),
        })
    }

    fn write(dir: &Path, tokens: u64, boot: &Boot) -> io::Result<()> {
        replace(
            dir,
            "tokens",
            format!("{tokens} {}\n", boot.id).as_bytes(),
            0,
            true,
        )
        .map(|_| ())
    }
}

/// Writes a file whole, and safe against power loss if it is to be, sets room aside up to an offset, and then puts it in the place of the
/// old one. Whether room could be set aside.
fn replace(
    dir: &Path,
    name: &str,
    bytes: &[u8],
    room: u64,
    lasting: bool,
) -> io::Result<(File, bool)> {
    let new = dir.join(format!("{name}.new"));
    let write = || {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&new)?;
        // First, so that what there is no room for costs nobody much.
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
        // It takes room that others have a use for.
        _ = fs::remove_file(&new);
    }
    written
}

/// Sets room aside; false where the filesystem cannot do that.
fn has_room(file: &File, room: u64) -> io::Result<bool> {
    match set_aside(file, 0, room) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            log::warn!(
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
    /// Where the last whole frame ends.
    end: u64,
    /// Up to where there is room set aside; `None` where the filesystem cannot do that.
    room: Option<u64>,
    /// What the events that free everything would take.
    debt: u64,
    /// No token up to this one is granted after a crash.
    granted: u64,
    /// How large the table was when it was last written, in bytes, and by its own reckoning.
    base: (u64, usize),
    /// Where it is looked next whether to write it anew.
    check: u64,
    /// How many names were freed since it was looked.
    freed: usize,
    /// Something was appended that is to survive a loss of power.
    owes_sync: bool,
    /// It was written anew since without being synced.
    owes_place: bool,
}

impl Disk {
    /// Goes on with what was recovered: where the connection goes on too, at the end of the journal; else that is written anew. What
    /// was corrupt is kept aside.
    pub fn begin(
        dir: &Path,
        boot: Boot,
        recovered: &Recovered,
        connection: &Connection,
    ) -> io::Result<Self> {
        if recovered.corrupt {
            let aside = (0..).map(|number| dir.join(format!("journal.corrupt.{number}")));
            if let Some(aside) = aside.into_iter().find(|path| !path.exists()) {
                fs::hard_link(journal(dir), aside)?;
            }
        }
        let table = &recovered.table;
        let reserved = Reserved::read(dir)?;
        let may_go_on = recovered.same_boot && !recovered.corrupt;
        let is_same = recovered.connection.nonce == connection.nonce;
        let mut is_whole = !(may_go_on && is_same);
        let written = if is_whole {
            match write_table(dir, &boot, table, connection, true) {
                // On a full disk, what is there is gone on with.
                Err(error) if error.kind() == io::ErrorKind::StorageFull && may_go_on => {
                    is_whole = false;
                    go_on(dir, recovered)?
                }
                written => written?,
            }
        } else {
            go_on(dir, recovered)?
        };
        let is_new = reserved.boot.as_ref() != Some(&boot.id);
        let mut disk = Self {
            dir: dir.to_path_buf(),
            boot,
            // One that goes on may be due, however little each of those before it has written.
            check: written.base.0 + CHECK,
            freed: 0,
            // Whatever the server before was to sync, and was killed before it had.
            owes_sync: true,
            owes_place: !is_whole,
            base: written.base,
            file: written.file,
            end: written.end,
            room: written.room,
            debt: debt(table),
            granted: if is_new { 0 } else { reserved.tokens },
        };
        disk.set_tokens_aside(table.next_token())?;
        if disk.end == recovered.end as u64 && !is_same {
            let nonce = connection.nonce.clone();
            disk.note(&Note::Began { nonce }, None).unwrap_or_else(|error| {
                log::warn!(
                    "{}: should this server be killed, requests that it has not answered may fail: {error}",
                    dir.display()
                );
            });
        }
        Ok(disk)
    }

    /// Writes everything anew once there is much that is over.
    fn tidy(&mut self, table: &Table, connection: impl FnOnce() -> Connection) {
        // What is freed takes little to write down, and may have been most of what there was.
        if self.end < self.check && self.freed < FREED + table.lease_count() / 8 {
            return;
        }
        // What is gone with a session that is over is written down first, and then there is little left to write: unless there is no room.
        if table.wants_sweep() && self.check > 0 {
            return;
        }
        let (size, weight) = self.base;
        // What the table would take now, as it took then.
        let live = table.weight() as u64 * size / (weight as u64).max(1);
        // To look takes time in proportion to the table: so that it takes as little of each event, it is done as much less often.
        self.check = self.end + CHECK.max(live / 8);
        self.freed = 0;
        if self.end <= 3 * live + 2 * CHECK {
            return;
        }
        // What dies with the machine need not be safe from that, and everybody waits.
        let lasting = table.outlives_machine();
        match write_table(&self.dir, &self.boot, table, &connection(), lasting) {
            Ok(written) => {
                self.owes_place = !lasting;
                log::debug!("the journal is {} bytes, and was {}", written.end, self.end);
                self.base = written.base;
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

    /// Makes sure that a token is set aside. The next ones are in good time, so that on a full disk there are some left for
    /// those in line for what is released.
    fn set_tokens_aside(&mut self, token: u64) -> io::Result<()> {
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

    /// Makes sure that there is room for a frame, and behind it for what frees everything then.
    fn set_room_aside(&mut self, frame: u64, debt: u64) -> io::Result<()> {
        let Some(room) = self.room else {
            return Ok(());
        };
        let wanted = self.end + frame + debt + SLACK;
        if wanted <= room {
            return Ok(());
        }
        let room = wanted + STRIDE;
        self.room = has_room(&self.file, room)?.then_some(room);
        Ok(())
    }

    fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        // What is written of it in vain is written over by the next, or passed over when it is read. To cut it off here would give
        // back the room that is set aside behind it, which somebody else may take.
        self.file.write_all_at(frame, self.end)?;
        self.end += frame.len() as u64;
        Ok(())
    }
}

/// A journal that is to be gone on with.
struct Written {
    file: File,
    end: u64,
    room: Option<u64>,
    /// How large the table was when it was last written, in bytes, and by its own reckoning.
    base: (u64, usize),
}

/// Goes on with the journal that is there, behind its last whole frame. What is torn is written over: to cut it off would give
/// back the room behind it, which the server before has set aside.
fn go_on(dir: &Path, recovered: &Recovered) -> io::Result<Written> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).open(journal(dir))?;
    Ok(Written {
        file,
        end: recovered.end as u64,
        room: Some(0),
        base: recovered.base,
    })
}

/// The first frame of a journal: everything as it is now.
pub fn picture(boot: &Boot, table: &Table, connection: &Connection) -> io::Result<Vec<u8>> {
    frame(&Head {
        claimfs_journal: VERSION,
        boot: boot.clone(),
        table,
        connection,
    })
}

fn write_table(
    dir: &Path,
    boot: &Boot,
    table: &Table,
    connection: &Connection,
    lasting: bool,
) -> io::Result<Written> {
    let frame = picture(boot, table, connection)?;
    let end = frame.len() as u64;
    let mut room = end + debt(table) + SLACK + STRIDE;
    let mut replaced = replace(dir, "journal", &frame, room, lasting);
    if let Err(error) = &replaced
        && error.kind() == io::ErrorKind::StorageFull
    {
        // With the old one goes what it has: more can be set aside then.
        room -= STRIDE;
        replaced = replace(dir, "journal", &frame, room, lasting);
    }
    let (file, has_room) = replaced?;
    Ok(Written {
        file,
        end,
        room: has_room.then_some(room),
        base: (end - size(connection), table.weight()),
    })
}

/// What a connection takes of the first frame.
fn size(connection: &Connection) -> u64 {
    serde_json::to_vec(connection).map_or(0, |bytes| bytes.len() as u64)
}

/// What the events that free everything take.
fn debt(table: &Table) -> u64 {
    let names: u64 = table.names().map(cost).sum();
    let people = table.session_count() + table.root_count() + 2 * table.waiters().count();
    names + people as u64 * FREEING
}

/// What the event takes that frees a name.
fn cost(name: &Name) -> u64 {
    let escaped = |c: char| {
        if c.is_control() || matches!(c, '"' | '\\') {
            6
        } else {
            c.len_utf8()
        }
    };
    FREEING + name.as_str().chars().map(escaped).sum::<usize>() as u64
}

/// What an event adds to what freeing everything takes, and what it takes off that.
fn balance(what: &What) -> (u64, u64) {
    match what {
        What::Claimed { name, .. } => (cost(name), 0),
        What::Released { name, .. }
        | What::Reaped { name, .. }
        | What::Expired { name, .. }
        | What::Broken { name, .. } => (0, cost(name)),
        What::Queued { .. } => (2 * FREEING, 0),
        What::LeftLine { .. } | What::Accepted { .. } => (0, 2 * FREEING),
        What::SessionStarted { .. } | What::Joined { .. } => (FREEING, 0),
        What::SessionEnded { .. } | What::Left { .. } => (0, FREEING),
        _ => (0, 0),
    }
}

/// What clears up, and never comes in numbers: it may take of the slack.
fn is_small(what: &What) -> bool {
    matches!(what, What::Forgotten { .. } | What::Unlinked { .. })
}

impl Journal for Disk {
    fn append(&mut self, events: &[Event], sent: Option<Sent>) -> io::Result<()> {
        let newest = events.iter().filter_map(|event| match &event.what {
            What::Claimed { token, .. } | What::Handed { token, .. } => Some(token.0),
            _ => None,
        });
        if let Some(token) = newest.max() {
            self.set_tokens_aside(token)?;
        }
        let note = None;
        let frame = frame(&Line { sent, events, note })?;
        let (mut more, mut less, mut freed) = (0, 0, 0);
        for event in events {
            let (adds, takes) = balance(&event.what);
            (more, less) = (more + adds, less + takes);
            freed += usize::from(takes > 0);
        }
        let debt = (self.debt + more).saturating_sub(less);
        // What frees is never refused for want of room: that is what the room is for.
        if less == 0 && !events.iter().all(|event| is_small(&event.what)) {
            let aside = self.set_room_aside(frame.len() as u64, debt);
            if aside.is_err() {
                // There may be room in what is over.
                self.check = 0;
            }
            aside?;
        }
        self.write(&frame)?;
        // What does not die with the machine is not to be lost with its memory; that it was renewed is, since it begins anew then.
        let outlives = |event: &Event| matches!(event.what, What::Prolonged { .. });
        let renews = |event: &Event| matches!(event.what, What::Prolonged { renews: true, .. });
        self.owes_sync |=
            events.iter().any(outlives) && !(events.len() == 1 && events.iter().all(renews));
        self.debt = debt;
        self.freed += freed;
        Ok(())
    }

    fn note(&mut self, note: &Note, sent: Option<Sent>) -> io::Result<()> {
        let (note, events) = (Some(note), &[][..]);
        let frame = frame(&Line { sent, events, note })?;
        self.set_room_aside(frame.len() as u64, self.debt)?;
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

    fn applied(&mut self, table: &Table, connection: &mut dyn FnMut() -> Connection) {
        self.tidy(table, connection);
    }
}
