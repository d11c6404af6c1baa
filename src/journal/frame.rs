//! Frames: how a record is delimited, what a write that was cut short leaves of one, and what takes
//! its place.
//!
//! Promises: a tail is torn only if it is a proper prefix of a frame and nothing comes behind it;
//! and a frame that fills the place of a torn one can be written so that a kill at any moment
//! leaves a torn tail again.
//!
//! Deliberately ignorant of: what a payload says, files.

use std::io;

use serde::Serialize;
use serde::de::IgnoredAny;

/// The largest payload in bytes: a table of a million leases has less.
pub const PAYLOAD_MAX: usize = 1 << 31;

/// The largest payload in bytes of a frame that is appended: a request has a hundredth of it. A
/// length that is read out of text is larger.
pub const ENTRY_MAX: usize = 1 << 28;

/// The smallest payload in bytes: `{}`.
const PAYLOAD_MIN: usize = 2;

/// Length and checksum in front of a payload, in bytes.
pub const HEADER: usize = 8;

/// The smallest page of memory, in bytes.
const PAGE: u64 = 4096;

/// Most frames are at most this long, in bytes.
const USUAL: usize = 1024;

/// The payload of the frame at an offset, and where the next one begins; `None` if no whole frame
/// is there.
pub fn frame_at(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (length, rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let size = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    // Every payload is an object. To check that first keeps a search at each offset cheap.
    let payload = rest
        .get(..size)
        .filter(|payload| payload.first() == Some(&b'{'))?;
    (checksum(*length, payload) == u32::from_le_bytes(*sum))
        .then_some((payload, at + HEADER + size))
}

/// How long the payload is that a frame at the beginning announces, if a frame can be so long.
pub fn payload_length(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*bytes.first_chunk::<4>()?);
    let length = usize::try_from(length).ok()?;
    (PAYLOAD_MIN..=PAYLOAD_MAX)
        .contains(&length)
        .then_some(length)
}

/// Why no whole frame is at the beginning of these bytes.
pub fn flaw(bytes: &[u8]) -> &'static str {
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

/// A frame with this as its payload.
pub fn frame(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = Vec::with_capacity(USUAL);
    frame.extend([0; HEADER]);
    serde_json::to_writer(&mut frame, value)?;
    sealed(frame)
}

/// Puts length and checksum in front of a payload, where room was left for them.
fn sealed(mut frame: Vec<u8>) -> io::Result<Vec<u8>> {
    let size = frame.len() - HEADER;
    let length = u32::try_from(size).ok().filter(|_| size <= PAYLOAD_MAX);
    let length = length.ok_or(io::ErrorKind::FileTooLarge)?.to_le_bytes();
    let sum = checksum(length, &frame[HEADER..]).to_le_bytes();
    frame[..4].copy_from_slice(&length);
    frame[4..HEADER].copy_from_slice(&sum);
    Ok(frame)
}

/// A frame that says nothing, to take the place of what is left of a torn one.
///
/// It is longer than that: by one byte, unless less is left than the smallest frame takes.
pub struct Filler {
    frame: Vec<u8>,
    remains: usize,
}

impl Filler {
    pub fn new(remains: usize) -> io::Result<Self> {
        let mut frame = vec![b' '; (remains + 1).max(HEADER + PAYLOAD_MIN)];
        frame[HEADER] = b'{';
        if let Some(last) = frame.last_mut() {
            *last = b'}';
        }
        let frame = sealed(frame)?;
        Ok(Self { frame, remains })
    }

    pub fn len(&self) -> usize {
        self.frame.len()
    }

    /// The writes that put it in its place, in order, each with its offset behind `at`, where it
    /// begins in the file: a write within a page is not cut short by a signal.
    ///
    /// If they end anywhere, [`is_torn`] is true of what there is. First the end of the remains
    /// becomes spaces, backwards. Then the header follows: its length is not larger than that of
    /// the torn frame, and still leads past the end, also while only some of its bytes are
    /// written. Last comes the byte that completes the frame.
    pub fn writes(&self, at: u64) -> Vec<(usize, &[u8])> {
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

/// Whether the bytes behind the last whole frame are what is left of a frame whose write was cut
/// short: a proper prefix of it, perhaps with spaces in place of its end, which come before a
/// [`Filler`]. Such a frame was never answered. Anything else was whole once, or is no frame.
pub fn is_torn(tail: &[u8]) -> bool {
    if tail.len() < 4 {
        return true;
    }
    let Some(length) = payload_length(tail).filter(|length| *length <= ENTRY_MAX) else {
        return false;
    };
    let Some(payload) = tail.get(HEADER..).filter(|payload| !payload.is_empty()) else {
        return true;
    };
    if payload.len() >= length || !is_begun(payload) {
        return false;
    }
    // Of an object that lacks one byte, that byte is known.
    let is_filled = payload == b"{" || payload.ends_with(b" ");
    is_filled || payload.len() + 1 < length || { frame_at(&[tail, b"}"].concat(), 0).is_some() }
}

/// Whether these bytes are the beginning of an object in JSON, and not all of it.
fn is_begun(payload: &[u8]) -> bool {
    // The parser calls a number wrong that ends with its sign or its point.
    let is_cut = |byte: &u8| !b" +-.0123456789Ee".contains(byte);
    let end = payload.iter().rposition(is_cut).map_or(0, |last| last + 1);
    let parsed = serde_json::from_slice::<IgnoredAny>(&payload[..end]);
    payload.starts_with(b"{") && parsed.is_err_and(|error| error.is_eof())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Filler, HEADER, frame, frame_at, is_torn};

    /// Frames of some lengths, with all that a payload may break off in.
    fn frames() -> Vec<Vec<u8>> {
        let payload = |body: &str| {
            serde_json::json!({
                "sent": [[17, 0], -3, false], "nothing": null, "list": [[], {}, 1.5e3],
                "body": body, "end": true,
            })
        };
        let bodies = ["", "\\\"\u{1}\u{e4}\u{1F512} ", &"}]{\"x".repeat(1500)];
        bodies.map(|body| frame(&payload(body)).unwrap()).to_vec()
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
                        // Only the header may lie in two pages.
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
