//! The event stream: lines for the readers of `events`, and wake-ups for whoever serves waiting
//! requests.
//!
//! Promises: a reader gets every line since its open, in order, or is told how many it missed.
//! While there are no readers, no line is kept, and none need be rendered. A reader that never
//! reads costs no more than the lines that are kept.
//!
//! Lock order: this lock is the last one but for that of the wake-ups. Nothing else is called while
//! it is held.
//!
//! Does not know: the meaning of a line, but for `missed`, or fuser.

mod wake_ups;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use self::wake_ups::{WakeUp, WakeUps, later};
use crate::handoff::{LINES_MAX, Position, Reading};

/// The number of the first line. The numbers below it stand for lines that a resumed reader missed.
const FIRST: u64 = 1 << 32;

/// Lines for readers, and wake-ups for the thread that serves them.
#[derive(Default)]
pub(crate) struct EventStream {
    state: Mutex<State>,
    /// Who is to be served.
    pub wake_ups: WakeUps,
}

#[derive(Debug)]
struct State {
    /// Each line with the number of its event.
    lines: VecDeque<(u64, Arc<str>)>,
    /// The number of the oldest line that is kept.
    first: u64,
    /// One more than the event number of the newest line.
    seq: u64,
    /// The lines are complete from this event on.
    from: u64,
    readers: HashMap<u64, Reader>,
    next_reader: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            lines: VecDeque::new(),
            first: FIRST,
            seq: 0,
            from: 0,
            readers: HashMap::new(),
            next_reader: 0,
        }
    }
}

impl State {
    /// The line with this number.
    fn line(&self, number: u64) -> Option<&(u64, Arc<str>)> {
        let at = number.checked_sub(self.first)?;
        self.lines.get(usize::try_from(at).ok()?)
    }

    /// The number of the first line whose event is `seq` or later.
    fn line_of(&self, seq: u64) -> u64 {
        let before = self.lines.partition_point(|(line, _)| *line < seq);
        self.first + before as u64
    }

    /// A reader's position in terms of events, which the next server can find in its own lines.
    fn position(&self, reader: &Reader) -> Position {
        let (mut number, mut left) = (reader.next, reader.rest.len());
        let mut skip = 0;
        while left > 0 && number > self.first {
            number -= 1;
            let length = self.line(number).map_or(0, |(_, line)| line.len());
            skip = length.saturating_sub(left);
            left = left.saturating_sub(length);
        }
        Position {
            offset: reader.at,
            seq: self.line(number).map_or(self.seq, |(seq, _)| *seq),
            skip,
        }
    }

    /// The text between two positions; `next` is the line after the second.
    fn between(&self, from: Position, to: Position, next: u64) -> Vec<u8> {
        let (mut number, mut text) = self.resume(from);
        while number < next
            && let Some((_, line)) = self.line(number)
        {
            text.extend_from_slice(line.as_bytes());
            number += 1;
        }
        text.truncate(usize::try_from(to.offset - from.offset).unwrap_or(usize::MAX));
        text
    }

    /// The number of the next line after a position, and the unread rest of the line before it.
    fn resume(&self, at: Position) -> (u64, Vec<u8>) {
        let next = self.line_of(at.seq);
        match self.line(next) {
            Some((seq, line)) if *seq == at.seq && at.skip > 0 => {
                let rest = line.as_bytes().get(at.skip..).unwrap_or_default();
                (next + 1, rest.to_vec())
            }
            _ => (next, Vec::new()),
        }
    }
}

/// A reader of `events`.
#[derive(Debug)]
struct Reader {
    /// The number of its next line.
    next: u64,
    /// The unread rest of a line that was longer than its buffer.
    rest: Vec<u8>,
    /// Its offset in bytes since it opened the file.
    at: u64,
    /// The bytes of its last read. A reader may seek back into them, as shells and head(1) do after
    /// reading past a line.
    last: Vec<u8>,
    /// The number of the first line of its last read, if the server before has read those lines and
    /// they are lost.
    lost: Option<u64>,
}

impl Reader {
    fn seek(&mut self, to: u64) {
        let back = usize::try_from(self.at.saturating_sub(to)).unwrap_or(usize::MAX);
        if let Some(kept) = self.last.len().checked_sub(back) {
            let again = self.last.split_off(kept);
            self.rest.splice(0..0, again);
        } else if let Some(lost) = self.lost {
            self.rest.clear();
            self.next = lost;
        }
        self.at = to;
    }
}

impl EventStream {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if a published line would have a reader.
    pub(crate) fn has_readers(&self) -> bool {
        !self.lock().readers.is_empty()
    }

    /// Adds the line of an event, if there are readers.
    pub(crate) fn publish(&self, seq: u64, line: String) {
        let mut state = self.lock();
        if state.readers.is_empty() {
            return;
        }
        state.lines.push_back((seq, Arc::from(line)));
        state.seq = seq + 1;
        while state.lines.len() > LINES_MAX {
            let lost = state.lines.pop_front();
            state.from = lost.map_or(0, |(seq, _)| seq + 1);
            state.first += 1;
        }
        self.wake_ups.tell_readers();
    }

    /// Restores the lines, which are complete from event `from` on, and the readers of the previous
    /// server.
    pub(crate) fn resume(
        &self,
        lines: impl IntoIterator<Item = (u64, String)>,
        from: u64,
        readers: Vec<(u64, Reading)>,
    ) {
        let mut state = self.lock();
        let lines = lines.into_iter();
        state.lines = lines.map(|(seq, line)| (seq, Arc::from(line))).collect();
        state.from = from;
        let newest = state.lines.back().map_or(0, |(seq, _)| seq + 1);
        let reached = readers.iter().map(|(_, reader)| reader.to.seq).max();
        state.seq = newest.max(reached.unwrap_or(0));
        for (id, there) in readers {
            let (next, _) = state.resume(there.to);
            // A server that is killed while it compacts its journal has told more than it wrote.
            let is_complete = there.to.seq >= from;
            let missing = if is_complete {
                0
            } else {
                there.missed.min(FIRST)
            };
            let is_kept = there.from.seq >= from;
            let first_lost = (!is_kept && there.last.is_empty() && there.again > 0)
                .then(|| (state.first - missing).saturating_sub(there.again));
            let last = if there.last.is_empty() && is_kept {
                state.between(there.from, there.to, next)
            } else {
                there.last
            };
            let reader = Reader {
                next: if missing > 0 {
                    state.first - missing
                } else {
                    next
                },
                rest: there.rest,
                at: there.to.offset,
                last,
                lost: first_lost,
            };
            state.readers.insert(id, reader);
            state.next_reader = state.next_reader.max(id);
        }
        self.wake_ups.tell_readers();
    }

    /// The lines of event `seq` and later, at most `limit` of the newest; and the event from which
    /// on they are complete.
    pub(crate) fn since(&self, seq: u64, limit: usize) -> (VecDeque<(u64, String)>, u64) {
        let state = self.lock();
        let wanted = usize::try_from(state.line_of(seq) - state.first).unwrap_or(usize::MAX);
        let skip = wanted.max(state.lines.len().saturating_sub(limit));
        let left_out = skip.checked_sub(1).and_then(|last| state.lines.get(last));
        let from = left_out.map_or(state.from, |(seq, _)| seq + 1);
        let lines = state.lines.iter().skip(skip);
        let lines = lines.map(|(seq, line)| (*seq, line.to_string()));
        (lines.collect(), from)
    }

    /// The lines of events before `before` that a reader may still ask for. Its last read began at
    /// the event `from`.
    pub(crate) fn left_out(&self, reader: u64, from: u64, before: u64) -> LeftOut {
        let state = self.lock();
        let Some(reader) = state.readers.get(&reader) else {
            return LeftOut::default();
        };
        let end = state.line_of(before);
        LeftOut {
            last: reader.last.clone(),
            read: reader.next.min(end).saturating_sub(state.line_of(from)),
            unread: end.saturating_sub(reader.next),
        }
    }

    /// Opens a reader at the current end of the stream.
    pub(crate) fn open(&self) -> (u64, Position) {
        let mut state = self.lock();
        state.next_reader += 1;
        let (id, next) = (state.next_reader, state.first + state.lines.len() as u64);
        let reader = Reader {
            next,
            rest: Vec::new(),
            at: 0,
            last: Vec::new(),
            lost: None,
        };
        let position = state.position(&reader);
        state.readers.insert(id, reader);
        (id, position)
    }

    /// Removes a reader. The last one takes all lines with it.
    pub(crate) fn close(&self, reader: u64) {
        let mut state = self.lock();
        state.readers.remove(&reader);
        if state.readers.is_empty() {
            state.first += state.lines.len() as u64;
            state.lines = VecDeque::new();
        }
    }

    /// True if a read would return something.
    pub(crate) fn is_ready(&self, reader: u64) -> bool {
        let state = self.lock();
        let end = state.first + state.lines.len() as u64;
        let reader = state.readers.get(&reader);
        reader.is_some_and(|reader| reader.next < end || !reader.rest.is_empty())
    }

    /// Reads at most `size` bytes at an offset: whole lines, if the buffer fits one. `None` if
    /// there is nothing to read.
    pub(crate) fn read(&self, reader: u64, offset: u64, size: usize) -> Option<Read> {
        let mut state = self.lock();
        let mut open = state.readers.remove(&reader)?;
        let read = state.read(&mut open, offset, size);
        state.readers.insert(reader, open);
        read
    }
}

/// Lines that a reader may still ask for, and that are not kept for the next server.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    /// The bytes of its last read.
    pub last: Vec<u8>,
    /// The number of lines that its last read had.
    pub read: u64,
    /// The number of lines that it has not read.
    pub unread: u64,
}

/// The result of a read.
#[derive(Debug)]
pub(crate) struct Read {
    /// The lines.
    pub bytes: Vec<u8>,
    /// Where the reader is now.
    pub reading: Reading,
}

impl State {
    fn read(&self, reader: &mut Reader, offset: u64, size: usize) -> Option<Read> {
        // A read after a seek cannot be reproduced from the lines later.
        let mut is_odd = offset != reader.at;
        if is_odd {
            reader.seek(offset);
        }
        let from = self.position(reader);
        let mut bytes = std::mem::take(&mut reader.rest);
        if reader.next < self.first {
            is_odd = true;
            let missed = self.first - reader.next;
            reader.next = self.first;
            bytes.extend_from_slice(format!("{{\"missed\":{missed}}}\n").as_bytes());
        }
        let at = usize::try_from(reader.next - self.first).unwrap_or(usize::MAX);
        for (_, line) in self.lines.iter().skip(at) {
            if !bytes.is_empty() && bytes.len() + line.len() > size {
                break;
            }
            bytes.extend_from_slice(line.as_bytes());
            reader.next += 1;
        }
        if bytes.len() > size {
            reader.rest = bytes.split_off(size);
        }
        if bytes.is_empty() {
            return None;
        }
        reader.at += bytes.len() as u64;
        reader.last.clone_from(&bytes);
        reader.lost = None;
        let to = self.position(reader);
        let rest = reader.rest.clone();
        is_odd |= !rest.is_empty() || from.skip > 0;
        let last = if is_odd { bytes.clone() } else { Vec::new() };
        let reading = Reading {
            from,
            to,
            rest,
            missed: 0,
            again: 0,
            last,
        };
        Some(Read { bytes, reading })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{EventStream, Position, Reading};

    fn line(seq: u64) -> String {
        format!("{{\"seq\":{seq}}}\n")
    }

    /// A stream with lines 10 to 19, whose reader has read 10 to 12 of them, 12 last; and that.
    fn stream() -> (EventStream, u64, Reading) {
        let stream = EventStream::default();
        let (reader, at) = stream.open();
        (10..20).for_each(|seq| stream.publish(seq, line(seq)));
        let mut offset = at.offset;
        let mut reading = Reading::default();
        for size in [2 * line(10).len(), line(12).len()] {
            let read = stream.read(reader, offset, size).unwrap();
            assert_eq!(read.bytes.len(), size);
            (offset, reading) = (read.reading.to.offset, read.reading);
        }
        (stream, reader, reading)
    }

    /// The next read at this offset, on the next server, which has the lines from `from` on.
    fn next(from: u64, reading: &Reading, offset: u64) -> String {
        let next = EventStream::default();
        let lines = (from..20).map(|seq| (seq, line(seq)));
        next.resume(lines, from, vec![(1, reading.clone())]);
        let read = next.read(1, offset, 65_536).unwrap();
        String::from_utf8(read.bytes).unwrap()
    }

    #[test]
    fn what_the_next_server_has_not_is_counted_whether_the_last_answer_arrived_or_not() {
        let (stream, reader, reading) = stream();
        let (seen, unseen) = (reading.to.offset, reading.from.offset);
        let lines = |from| (from..20).map(line).collect::<String>();
        for from in 10..20_u64 {
            let left_out = stream.left_out(reader, reading.from.seq, from);
            let kept = Reading {
                missed: left_out.unread,
                again: left_out.read,
                ..reading.clone()
            };
            let told = |missed| format!("{{\"missed\":{missed}}}\n{}", lines(from));
            let (read_on, read_again) = match from {
                ..=12 => (lines(13), lines(12)),
                13 => (lines(13), told(1)),
                _ => (told(from - 13), told(from - 12)),
            };
            assert_eq!(next(from, &kept, seen), read_on, "{from}");
            assert_eq!(next(from, &kept, unseen), read_again, "{from}");
            // A compacted journal has the bytes of a short read.
            let last = left_out.last;
            let kept = Reading { last, ..kept };
            assert_eq!(next(from, &kept, seen), read_on, "{from}");
            let with_last = if from > 12 {
                line(12) + &read_on
            } else {
                lines(12)
            };
            assert_eq!(next(from, &kept, unseen), with_last, "{from}");
            // The journal was not compacted after all.
            assert_eq!(next(10, &kept, seen), lines(13), "{from}");
            assert_eq!(next(10, &kept, unseen), lines(12), "{from}");
        }
    }

    #[test]
    fn positions_are_those_of_events_and_bytes() {
        let (_, _, reading) = stream();
        let length = line(10).len() as u64;
        let at = |lines, seq| Position {
            offset: lines * length,
            seq,
            skip: 0,
        };
        assert_eq!((reading.from, reading.to), (at(2, 12), at(3, 13)));
    }
}
