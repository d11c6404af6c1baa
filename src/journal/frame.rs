//! Frames: the format of a record, recognition of a torn write, and the filler that replaces one.
//!
//! Promises: a tail is torn only if it is a proper prefix of a frame with nothing after it. A
//! filler replaces a torn frame in steps: a kill between any two of them leaves a torn tail again.
//!
//! Does not know: files, or the meaning of a payload; of an entry only whether bytes begin one.

use std::io;

use serde::Serialize;
use serde::de::IgnoredAny;

use super::entry;

/// The first byte of a payload that is a JSON object: the first of a journal, those of older
/// versions, and fillers.
pub(super) const OBJECT: u8 = b'{';

/// The first byte of an entry in binary form.
pub(super) const ENTRY: u8 = 0xB1;

/// The first byte of a table and a connection in binary form.
pub(super) const SNAPSHOT: u8 = 0xB2;

/// The last byte of a payload in binary form.
pub(super) const END: u8 = 0xBE;

/// The largest payload in bytes. A table of a million leases takes less.
pub(super) const PAYLOAD_MAX: usize = 1 << 31;

/// The largest payload of an appended frame in bytes. Requests need a hundredth of it. Text that is
/// read as a length gives more.
pub(super) const ENTRY_MAX: usize = 1 << 28;

/// The smallest payload in bytes: `{}`, or the first and the last byte of a binary form.
const PAYLOAD_MIN: usize = 2;

/// The length and checksum before a payload, in bytes.
pub(super) const HEADER: usize = 8;

/// The smallest page of memory, in bytes.
const PAGE: u64 = 4096;

/// Most frames are at most this long, in bytes.
const USUAL: usize = 1024;

/// The payload of the frame at an offset, and the offset of the next frame. `None` if there is no
/// whole frame.
pub(super) fn frame_at(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (length, rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let size = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    // This check keeps a search at every offset cheap.
    let payload = rest.get(..size).filter(|payload| {
        let first = payload.first();
        first.is_some_and(|first| [OBJECT, ENTRY, SNAPSHOT].contains(first))
    })?;
    (checksum(*length, payload) == u32::from_le_bytes(*sum))
        .then_some((payload, at + HEADER + size))
}

/// The payload length that the first frame states, if a frame can have that length.
pub(super) fn payload_length(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*bytes.first_chunk::<4>()?);
    let length = usize::try_from(length).ok()?;
    (PAYLOAD_MIN..=PAYLOAD_MAX)
        .contains(&length)
        .then_some(length)
}

/// Why these bytes do not begin with a whole frame.
pub(super) fn flaw(bytes: &[u8]) -> &'static str {
    match payload_length(bytes) {
        Some(length) if bytes.len() < HEADER + length => {
            "its length leads past the end, and it does not break off as an unfinished write does"
        }
        Some(_) => "its checksum is wrong",
        None => "no frame has such a length",
    }
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

/// A frame with this value as its payload.
pub(super) fn frame(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = Vec::with_capacity(USUAL);
    frame.extend([0; HEADER]);
    serde_json::to_writer(&mut frame, value)?;
    sealed(frame)
}

/// A frame with a payload in binary form, without its first and last byte.
pub(super) fn binary(first: u8, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<Vec<u8>> {
    let mut frame = Vec::with_capacity(USUAL);
    frame.extend([0; HEADER]);
    frame.push(first);
    write(&mut frame);
    frame.push(END);
    sealed(frame)
}

/// The binary form in a payload: all but its first and last byte.
pub(super) fn inside(payload: &[u8]) -> Option<&[u8]> {
    match payload {
        [_, inside @ .., END] => Some(inside),
        _ => None,
    }
}

/// Fills in the length and checksum in the space before a payload.
fn sealed(mut frame: Vec<u8>) -> io::Result<Vec<u8>> {
    let size = frame.len() - HEADER;
    let length = u32::try_from(size).ok().filter(|_| size <= PAYLOAD_MAX);
    let length = length.ok_or(io::ErrorKind::FileTooLarge)?.to_le_bytes();
    let sum = checksum(length, &frame[HEADER..]).to_le_bytes();
    frame[..4].copy_from_slice(&length);
    frame[4..HEADER].copy_from_slice(&sum);
    Ok(frame)
}

/// An empty frame that replaces the remains of a torn one.
///
/// It is one byte longer than the remains, or as long as the smallest frame if that is more.
pub(super) struct Filler {
    frame: Vec<u8>,
    remains: usize,
}

impl Filler {
    pub(super) fn new(remains: usize) -> io::Result<Self> {
        let mut frame = vec![b' '; (remains + 1).max(HEADER + PAYLOAD_MIN)];
        frame[HEADER] = b'{';
        if let Some(last) = frame.last_mut() {
            *last = b'}';
        }
        let frame = sealed(frame)?;
        Ok(Self { frame, remains })
    }

    pub(super) fn len(&self) -> usize {
        self.frame.len()
    }

    /// The writes that put the filler in place, in order, each with its offset after `at`, the
    /// filler's own offset in the file. A signal does not interrupt a write within a page.
    ///
    /// After any of these writes [`is_torn`] is true of the tail. First, the end of the remains is
    /// overwritten with spaces, backwards. Then comes the header: its length is not larger than
    /// that of the torn frame, and reaches past the end even while only some of its bytes are
    /// written. The last byte completes the frame.
    pub(super) fn writes(&self, at: u64) -> Vec<(usize, &[u8])> {
        let (first, last) = (HEADER + 1, self.frame.len() - 1);
        let mut writes = Vec::new();
        let mut until = self.remains;
        while until > first {
            let in_page = usize::try_from((at + until as u64 - 1) % PAGE).unwrap_or(0) + 1;
            let from = until.saturating_sub(in_page).max(first);
            writes.push((from, &self.frame[from..until]));
            until = from;
        }
        writes.push((0, &self.frame[..first]));
        writes.push((last, &self.frame[last..]));
        writes
    }
}

/// True if the bytes after the last whole frame are the remains of an interrupted write: a proper
/// prefix of a frame, perhaps with spaces at its end that a [`Filler`] wrote. Such a frame was
/// never answered. Any other tail was once whole, or is not a frame.
pub(super) fn is_torn(tail: &[u8]) -> bool {
    if tail.len() < 4 {
        return true;
    }
    let Some(length) = payload_length(tail).filter(|length| *length <= ENTRY_MAX) else {
        return false;
    };
    let Some(payload) = tail.get(HEADER..).filter(|payload| !payload.is_empty()) else {
        return true;
    };
    if payload.len() >= length || !is_begun(payload, length) {
        return false;
    }
    // A payload that lacks only one byte must lack its last.
    let last = if payload[0] == ENTRY { END } else { b'}' };
    let is_filled = payload.len() == 1 || payload.ends_with(b" ");
    is_filled || payload.len() + 1 < length || frame_at(&[tail, &[last]].concat(), 0).is_some()
}

/// True if these bytes begin a payload of this length, other than a snapshot, and break off.
///
/// The spaces of a filler may be at their end. A snapshot is never torn, since its file is renamed
/// into place.
pub(super) fn is_begun(payload: &[u8], length: usize) -> bool {
    match payload.first() {
        Some(&ENTRY) => {
            let spaces = payload.iter().rev().take_while(|byte| **byte == b' ');
            let written = &payload[1..payload.len() - spaces.count()];
            // The length may be that of the smallest filler by now.
            written.is_empty() || entry::is_begun(written, length.saturating_sub(2))
        }
        Some(&OBJECT) => is_begun_object(payload),
        _ => false,
    }
}

/// True if these bytes are an incomplete JSON object.
fn is_begun_object(payload: &[u8]) -> bool {
    // The parser rejects a number that ends with a sign or a decimal point.
    let is_cut = |byte: &u8| !b" +-.0123456789Ee".contains(byte);
    let end = payload.iter().rposition(is_cut).map_or(0, |last| last + 1);
    let parsed = serde_json::from_slice::<IgnoredAny>(&payload[..end]);
    parsed.is_err_and(|error| error.is_eof())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::entry::{Format, entry};
    use super::{ENTRY, Filler, HEADER, frame, frame_at, is_torn};
    use crate::core::{Change, Event, Ino, Name, Token, WaiterId, What};
    use crate::handoff::{Key, Note, Sent};

    /// Frames of several lengths that can break off in any construct of JSON or of an entry.
    fn frames() -> Vec<Vec<u8>> {
        let payload = |body: &str| {
            serde_json::json!({
                "sent": [[17, 0], -3, false], "nothing": null, "list": [[], {}, 1.5e3],
                "body": body, "end": true,
            })
        };
        let bodies = ["", "\\\"\u{1}\u{e4}\u{1F512} ", &"}]{\"x".repeat(1500)];
        let objects = bodies.map(|body| frame(&payload(body)).unwrap());
        let event = |seq, what| Event {
            seq,
            at: UNIX_EPOCH,
            what,
        };
        let released = |name: &[u8], token| What::Released {
            name: Name::new(name).unwrap(),
            token: Token(token),
        };
        let written = |data: Vec<u8>| What::Altered {
            ino: Ino(5000),
            change: Change::Append { data },
        };
        let sent = Sent {
            key: Key(1 << 40, 3),
            again: true,
            thread: 9,
        };
        let entries = [
            entry(Format::Binary, None, &[], None),
            entry(
                Format::Binary,
                None,
                &[event(7, released(b"a", 0x20))],
                None,
            ),
            entry(
                Format::Binary,
                Some(sent),
                &[event(1, released(b"a  ", 1 << 50))],
                None,
            ),
            entry(
                Format::Binary,
                Some(sent),
                &[
                    event(7, written(b"  ".to_vec())),
                    event(8, released(b"\xC3\xA4", 0xBE)),
                ],
                None,
            ),
            entry(
                Format::Binary,
                None,
                &[event(7, written(vec![b' '; 5000]))],
                None,
            ),
            entry(
                Format::Binary,
                None,
                &[
                    event(7, written(vec![0xBE; 300])),
                    event(9, written(vec![0xB1; 3])),
                ],
                Some(&Note::Confirmed {
                    waiter: WaiterId(32),
                }),
            ),
        ];
        objects
            .into_iter()
            .chain(entries.map(Result::unwrap))
            .collect()
    }

    #[test]
    fn every_proper_prefix_of_a_frame_is_torn() {
        for frame in frames() {
            assert!((0..frame.len()).all(|cut| is_torn(&frame[..cut])));
        }
    }

    #[test]
    fn a_whole_frame_of_another_length_or_with_a_byte_less_is_not_torn() {
        for frame in frames() {
            for bit in 0..32 {
                let mut other = frame.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                assert!(!is_torn(&other), "bit {bit} of the length");
            }
            for at in 0..frame.len() - 1 {
                let mut other = frame.clone();
                other.remove(at);
                let is_prefix = other == frame[..other.len()];
                assert_eq!(is_torn(&other), is_prefix, "without byte {at}");
            }
        }
    }

    #[test]
    fn an_entry_with_more_behind_it_or_with_a_wrong_length_in_it_is_not_torn() {
        for frame in frames().iter().filter(|frame| frame[HEADER] == ENTRY) {
            let mut other = [&frame[..], &[0; 40]].concat();
            other[0] = other[0].wrapping_add(60);
            assert!(!is_torn(&other));
        }
        // The text would lead past the end of the frame.
        let mut tail = vec![20, 0, 0, 0, 1, 2, 3, 4, ENTRY, 2, 1, 1, 7, 0, 0, 8];
        tail.push(17);
        assert!(!is_torn(&tail));
        tail.pop();
        tail.push(6);
        assert!(is_torn(&tail));
    }

    #[test]
    fn zeros_and_text_are_not_torn() {
        for tail in [
            &[0; 4][..],
            &[0; 8],
            &[0; 5000],
            b"text",
            b"no frame of a journal",
        ] {
            assert!(!is_torn(tail));
        }
    }

    #[test]
    fn remains_that_are_being_filled_are_torn_at_every_moment_and_then_a_frame() {
        for frame in frames() {
            for remains in 1..frame.len() {
                let filler = Filler::new(remains).unwrap();
                for at in [0, 4090] {
                    let mut tail = frame[..remains].to_vec();
                    for (from, bytes) in filler.writes(at) {
                        // Only the header may cross a page boundary.
                        let end = (at + (from + bytes.len()) as u64 - 1) / 4096;
                        let cuts = if from == 0 { 1..bytes.len() } else { 0..0 };
                        assert!(from == 0 || (at + from as u64) / 4096 == end);
                        for cut in cuts {
                            let mut tail = tail.clone();
                            write(&mut tail, from, &bytes[..cut]);
                            assert!(is_torn(&tail), "{remains} left, {cut} of the header");
                        }
                        assert!(is_torn(&tail), "{remains} left, before {from}");
                        write(&mut tail, from, bytes);
                    }
                    let (payload, end) = frame_at(&tail, 0).unwrap();
                    assert!(end == tail.len() && end == filler.len());
                    assert_eq!(payload.trim_ascii_end().last(), Some(&b'}'));
                    assert!(tail.len() <= (remains + 1).max(HEADER + 2));
                }
            }
        }
    }

    fn write(tail: &mut Vec<u8>, from: usize, bytes: &[u8]) {
        tail.resize(tail.len().max(from + bytes.len()), 0);
        tail[from..from + bytes.len()].copy_from_slice(bytes);
    }
}
