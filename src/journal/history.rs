//! The newest events, as the file `history` shows them.
//!
//! ```text
//! history    lines of events, oldest first     appended when the journal is compacted
//! history.1  the lines before those            `history` takes its place past HISTORY_MAX bytes
//! ```
//!
//! The journal has the events since its compaction, so they need no second copy on disk: a server
//! keeps their records in memory, and the next one makes them again from the journal. Before a
//! compaction drops them from the journal, they are appended here. If a server is killed in
//! between, the next one finds them in both places, and knows them by their numbers.
//!
//! Promises: what is kept is bounded, in memory and on disk. A history that cannot be read or
//! written is a warning in the log, and never refuses an event. It takes no room that the journal
//! may need: on a disk that is nearly full it is in memory alone. It is of one boot.
//!
//! Does not know: what an event says.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::file;
use crate::logging::limited;
use crate::render::EventRecord;
use crate::sys::files::has_room_to_spare;

/// The largest number of events that `history` shows.
pub(super) const EVENTS_MAX: usize = 10_000;

/// The largest size of `history`, in bytes.
const HISTORY_MAX: u64 = 4 << 20;

/// The file. The name of the other begins with it.
pub(crate) const HISTORY: &str = "history";
const OLDER: &str = "history.1";

/// The history of one mount.
#[derive(Debug)]
pub(crate) struct History {
    dir: PathBuf,
    /// The file, and its length in bytes. `None` if it cannot be used.
    file: Option<(File, u64)>,
    /// The events that are in the journal, and in no file yet.
    unwritten: Unwritten,
    /// The last event in the files.
    written: u64,
    /// The number of times that the file was written again.
    number: u64,
}

/// The newest events of a journal, bounded.
#[derive(Debug, Default)]
pub(crate) struct Unwritten {
    records: VecDeque<EventRecord>,
    bytes: usize,
}

impl Unwritten {
    /// Adds an event. The oldest ones go if there are too many.
    pub(crate) fn push(&mut self, record: EventRecord) {
        self.bytes += record.size();
        self.records.push_back(record);
        while self.records.len() > EVENTS_MAX || self.bytes as u64 > HISTORY_MAX {
            let oldest = self.records.pop_front();
            self.bytes -= oldest.map_or(self.bytes, |record| record.size());
        }
    }
}

/// The number of an event, read back from its line.
#[derive(Deserialize)]
struct Seq {
    seq: u64,
}

impl History {
    /// Continues the history of a state directory with the events of its journal. Without
    /// `same_boot` a new one begins.
    pub(crate) fn begin(dir: &Path, same_boot: bool, journal: Unwritten) -> Self {
        let mut history = Self {
            dir: dir.to_path_buf(),
            file: None,
            unwritten: journal,
            written: 0,
            number: 0,
        };
        if !same_boot {
            for name in [HISTORY, OLDER] {
                _ = fs::remove_file(dir.join(name));
            }
        }
        if let Err(error) = history.open() {
            limited!(
                None,
                log::Level::Warn,
                "{}: {error}; should this server be killed, 'history' begins anew",
                dir.join(HISTORY).display()
            );
        }
        let written = history.written;
        let is_new = |record: &EventRecord| record.seq > written;
        history.unwritten.records.retain(is_new);
        let sizes = history.unwritten.records.iter().map(EventRecord::size);
        history.unwritten.bytes = sizes.sum();
        history
    }

    /// Opens the file, cuts a torn last line off, and reads the number of the last event.
    fn open(&mut self) -> io::Result<()> {
        let path = self.dir.join(HISTORY);
        let file = match file::open(&path, true) {
            Ok(Some(file)) => file,
            Ok(None) => file::create(&path)?,
            Err(file::Unfit::Foreign(_)) => {
                file::set_aside(&self.dir, HISTORY)?;
                file::create(&path)?
            }
            Err(file::Unfit::Unreadable(error)) => return Err(error),
        };
        let length = file.metadata()?.len();
        let tail = read_tail(&file, length, HISTORY_MAX)?;
        let end = tail.iter().rposition(|byte| *byte == b'\n');
        let whole = &tail[..end.map_or(0, |end| end + 1)];
        let torn = (tail.len() - whole.len()) as u64;
        file.set_len(length - torn)?;
        let lines = whole.split(|byte| *byte == b'\n').rev();
        let mut numbers = lines.filter_map(|line| serde_json::from_slice(line).ok());
        self.written = numbers.next().map_or(0, |Seq { seq }| seq);
        self.file = Some((file, length - torn));
        Ok(())
    }

    /// Writes the file again into its directory, which may be another one at the same path.
    pub(crate) fn rewrite(&mut self) {
        self.number += 1;
        let Some((file, length)) = &self.file else {
            return;
        };
        let write = || {
            let bytes = read_tail(file, *length, HISTORY_MAX)?;
            let file = file::create(&self.dir.join(HISTORY))?;
            file.write_all_at(&bytes, 0)?;
            Ok((file, bytes.len() as u64))
        };
        let written: io::Result<_> = write();
        self.file = written
            .inspect_err(|error| {
                log::warn!(
                    "{}: {error}; it begins anew",
                    self.dir.join(HISTORY).display()
                );
            })
            .ok();
    }

    /// Adds an event, which is in the journal.
    pub(crate) fn push(&mut self, record: EventRecord) {
        self.unwritten.push(record);
    }

    /// The events that are in no file yet, since the journal is about to drop them. They are
    /// written after the store's lock was released. `None` if there are none, or no room.
    pub(crate) fn begin_write(&mut self) -> Option<Lines> {
        self.unwritten.records.back()?;
        match self.current() {
            Ok((file, at)) => Some(Lines {
                dir: self.dir.clone(),
                records: self.unwritten.records.clone(),
                file,
                at,
                number: self.number,
            }),
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    /// Takes note of what was written, and returns it, since it takes a while to drop. Should that
    /// have failed, the events stay in memory.
    pub(crate) fn wrote(&mut self, mut lines: Lines, length: io::Result<Option<u64>>) -> Lines {
        match length {
            Ok(None) => {}
            Ok(Some(length)) => {
                // A file that was written again meanwhile has them from memory.
                if let Some((_, at)) = self.file.as_mut().filter(|_| lines.number == self.number) {
                    *at = lines.at + length;
                    let records = &mut self.unwritten.records;
                    let last = lines.records.back().map_or(0, |record| record.seq);
                    let new = records.partition_point(|record| record.seq <= last);
                    let newest = records.split_off(new);
                    lines.records = mem::replace(records, newest);
                    self.unwritten.bytes = records.iter().map(EventRecord::size).sum();
                    self.written = last;
                }
            }
            Err(error) => self.failed(&error),
        }
        lines
    }

    fn failed(&self, error: &io::Error) {
        limited!(
            None,
            log::Level::Warn,
            "{}: {error}; should this server be killed, 'history' lacks some events",
            self.dir.join(HISTORY).display()
        );
    }

    /// Appends the events to the file at once.
    pub(crate) fn write(&mut self) {
        if let Some(lines) = self.begin_write() {
            let length = lines.write();
            self.wrote(lines, length);
        }
    }

    /// The file to append to, and its length. One that is too long takes its other name.
    fn current(&mut self) -> io::Result<(File, u64)> {
        if self.file.as_ref().is_none_or(|(_, at)| *at >= HISTORY_MAX) {
            let path = self.dir.join(HISTORY);
            match fs::rename(&path, self.dir.join(OLDER)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.file = Some((file::create(&path)?, 0)),
            }
        }
        let (file, at) = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok((file.try_clone()?, *at))
    }

    /// The history as of now. It is read after the store's lock was released.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let file = self.file.as_ref();
        Snapshot {
            older: file::open(&self.dir.join(OLDER), false).unwrap_or_default(),
            file: file.and_then(|(file, length)| Some((file.try_clone().ok()?, *length))),
            unwritten: self.unwritten.records.iter().cloned().collect(),
        }
    }
}

/// Events that are to be appended to the file.
#[derive(Debug)]
pub(crate) struct Lines {
    dir: PathBuf,
    records: VecDeque<EventRecord>,
    file: File,
    at: u64,
    /// See [`History::number`].
    number: u64,
}

impl Lines {
    /// Appends them to the file in this directory, and returns their length in bytes. `None` if
    /// the disk is nearly full.
    pub(crate) fn write(&self) -> io::Result<Option<u64>> {
        if !has_room_to_spare(&self.dir) {
            log::debug!("the disk is nearly full, so the history stays in memory");
            return Ok(None);
        }
        let lines = self.records.iter().map(EventRecord::line);
        let lines = lines.collect::<String>();
        if let Err(error) = self.file.write_all_at(lines.as_bytes(), self.at) {
            // Nothing of it counts. The next write begins where this one did.
            _ = self.file.set_len(self.at);
            return Err(error);
        }
        Ok(Some(lines.len() as u64))
    }
}

/// A history as of one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    older: Option<File>,
    file: Option<(File, u64)>,
    unwritten: Vec<EventRecord>,
}

impl Snapshot {
    /// The lines, at most [`EVENTS_MAX`] and [`HISTORY_MAX`] bytes, the newest last.
    pub(crate) fn render(&self) -> io::Result<String> {
        let newest = self.unwritten.iter().map(EventRecord::line);
        let newest = newest.collect::<String>();
        let room = HISTORY_MAX.saturating_sub(newest.len() as u64);
        let file = self.file.as_ref();
        let file = file.map_or_else(|| Ok(Vec::new()), |(file, at)| read_tail(file, *at, room))?;
        let room = room - (file.len() as u64).min(room);
        let mut bytes = match &self.older {
            Some(older) => read_tail(older, older.metadata()?.len(), room)?,
            None => Vec::new(),
        };
        bytes.extend_from_slice(&file);
        bytes.extend_from_slice(newest.as_bytes());
        Ok(last_lines(&bytes))
    }
}

/// The last whole lines of a file of this length, at most `most` bytes, and the beginning of a torn
/// one after them.
fn read_tail(file: &File, length: u64, most: u64) -> io::Result<Vec<u8>> {
    let from = length.saturating_sub(most);
    let mut bytes = vec![0; usize::try_from(length - from).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, from)?;
    if from > 0 {
        let first = bytes.iter().position(|byte| *byte == b'\n');
        bytes.drain(..first.map_or(bytes.len(), |end| end + 1));
    }
    Ok(bytes)
}

/// The last lines of a text.
fn last_lines(bytes: &[u8]) -> String {
    let mut ends = bytes
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n');
    let before = ends.nth(EVENTS_MAX);
    let newest = &bytes[before.map_or(0, |(end, _)| end + 1)..];
    String::from_utf8_lossy(newest).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::PathBuf;
    use std::time::SystemTime;

    use super::*;
    use crate::core::table::Table;
    use crate::core::{Event, Rule, SessionId, SessionKey, What};

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let name = format!("claimfs-history-{name}-{}", std::process::id());
            let dir = std::env::temp_dir().join(name);
            fs::create_dir(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            _ = fs::remove_dir_all(&self.0);
        }
    }

    fn record(seq: u64) -> EventRecord {
        let what = What::SessionStarted {
            key: SessionKey(seq),
            id: SessionId::new("s".repeat(200).as_bytes()).unwrap(),
            uid: 7,
            pidns: 7,
            rule: Rule::Posix,
        };
        let at = SystemTime::UNIX_EPOCH;
        EventRecord::of(&Table::new(9), &Event { seq, at, what }).unwrap()
    }

    fn journal(numbers: std::ops::Range<u64>) -> Unwritten {
        let mut unwritten = Unwritten::default();
        numbers.for_each(|seq| unwritten.push(record(seq)));
        unwritten
    }

    /// The numbers of the events that a history shows.
    fn shown(history: &History) -> Vec<u64> {
        let text = history.snapshot().render().unwrap();
        let numbers = text.lines().map(|line| {
            let Seq { seq } = serde_json::from_str(line).unwrap();
            seq
        });
        numbers.collect()
    }

    #[test]
    fn events_that_a_file_and_the_journal_have_are_shown_once() {
        let dir = Dir::new("once");
        let mut history = History::begin(&dir.0, true, journal(1..4));
        history.write();
        history.push(record(4));
        assert_eq!(shown(&history), [1, 2, 3, 4]);
        // The server is killed before the journal drops them.
        let history = History::begin(&dir.0, true, journal(2..6));
        assert_eq!(shown(&history), [1, 2, 3, 4, 5]);
        let history = History::begin(&dir.0, false, journal(5..6));
        assert_eq!(shown(&history), [5], "another boot");
    }

    #[test]
    fn a_torn_line_is_cut_off() {
        let dir = Dir::new("torn");
        let mut history = History::begin(&dir.0, true, journal(1..4));
        history.write();
        let path = dir.0.join(HISTORY);
        let whole = fs::read(&path).unwrap();
        let line = whole.len() / 3;
        for length in line..=whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let mut history = History::begin(&dir.0, true, journal(9..10));
            history.write();
            let before = 1..=u64::try_from(length / line).unwrap();
            let expected: Vec<u64> = before.chain([9]).collect();
            assert_eq!(shown(&history), expected, "{length}");
        }
    }

    #[test]
    fn it_is_bounded_in_memory_and_on_disk() {
        let dir = Dir::new("bounded");
        let mut history = History::begin(&dir.0, true, Unwritten::default());
        let events = EVENTS_MAX as u64;
        for seq in 1..=6 * events {
            history.push(record(seq));
            if seq % 4_321 == 0 {
                history.write();
            }
        }
        assert_eq!(history.unwritten.records.len(), 60_000 % 4_321);
        let newest: Vec<u64> = (5 * events + 1..=6 * events).collect();
        assert_eq!(shown(&history), newest);
        for name in [HISTORY, OLDER] {
            let length = fs::metadata(dir.0.join(name)).unwrap().len();
            // A write of fewer than 4,321 lines of 330 bytes may be the last that fits.
            assert!(length < HISTORY_MAX + 4_321 * 330, "{name}: {length}");
        }
        for seq in 6 * events + 1..=9 * events {
            history.push(record(seq));
        }
        assert!(history.unwritten.records.len() <= EVENTS_MAX);
        let newest: Vec<u64> = (8 * events + 1..=9 * events).collect();
        assert_eq!(shown(&history), newest);
    }

    #[test]
    fn a_file_that_cannot_be_used_costs_no_event_of_this_server() {
        let dir = Dir::new("foreign");
        fs::create_dir(dir.0.join(HISTORY)).unwrap();
        fs::create_dir(dir.0.join(OLDER)).unwrap();
        let mut history = History::begin(&dir.0, true, journal(1..3));
        history.write();
        history.push(record(3));
        assert_eq!(shown(&history), [1, 2, 3]);
        fs::write(dir.0.join(HISTORY), "no event\n\n{}\n").unwrap();
        let history = History::begin(&dir.0, true, journal(4..5));
        let text = history.snapshot().render().unwrap();
        assert!(text.ends_with(&record(4).line()), "{text}");
    }
}
