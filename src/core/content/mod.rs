//! The content of a claim: bytes, permission bits, times and extended attributes, exactly as the
//! holder set them.
//!
//! Promises: reads return the bytes that were written and the times that were set, to the
//! nanosecond. Nothing grows beyond its limit. (That a blank body reads as the record is `tree`'s.)
//!
//! Does not know: who holds the claim, or whether anybody does.

mod ask;
mod encoding;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

pub use self::ask::{Ask, TTL_MAX, ttl};
use crate::core::wire;
use crate::core::{Attributes, Change, Creation, Ino, Label, Refusal, Shape};

/// The largest body of a claim, in bytes (EFBIG past it).
pub const BODY_MAX: usize = 64 * 1024;

/// The largest body of a reservation, in bytes (EFBIG past it): moving a larger file to `paths/`
/// fails before it is deleted.
pub const PATH_BODY_MAX: usize = 4 * 1024;

/// The largest total size within a directory claim, in bytes (ENOSPC past it), and so of a file
/// there (EFBIG).
pub const INSIDE_MAX: usize = 1024 * 1024;

/// The largest total size of the names and values of a claim's extended attributes, in bytes
/// (ENOSPC past it).
pub const TAGS_MAX: usize = 4 * 1024;

/// The prefix of the extended attributes that show the record. Nobody may set them.
pub const RECORD_TAGS: &str = "user.claimfs.";

/// The extended attribute with the reason for a claim, in the words of its holder, who may set it.
/// The record shows it.
pub const REASON: &str = "user.claimfs.reason";

/// The longest reason, in bytes of UTF-8.
pub const REASON_MAX: usize = 256;

/// The content of an inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// File, directory or symlink. It never changes.
    pub shape: Shape,
    #[serde(with = "wire::bytes")]
    body: Vec<u8>,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last access. Only utimes changes it.
    #[serde(with = "wire::moment")]
    pub atime: SystemTime,
    /// Time of last modification. Writes and utimes change it.
    #[serde(with = "wire::moment")]
    pub mtime: SystemTime,
    /// Time of last change. Any change sets it, also of names.
    #[serde(with = "wire::moment")]
    pub ctime: SystemTime,
    /// Boxed, since most inodes have none. Never empty.
    #[serde(with = "wire::boxed")]
    tags: Option<Box<Tags>>,
    /// The limit of the body, in bytes.
    room: usize,
    /// Boxed, since most inodes have none. Never the default.
    #[serde(with = "wire::boxed")]
    entries: Option<Box<Entries>>,
}

impl Content {
    /// An empty file or directory, or a symlink. `room` is the limit of the body in bytes.
    pub fn new(creation: Creation, room: usize, at: SystemTime) -> Self {
        Self {
            room,
            entries: None,
            shape: creation.shape,
            body: Vec::new(),
            mode: creation.mode,
            uid: creation.uid,
            gid: creation.gid,
            atime: at,
            mtime: at,
            ctime: at,
            tags: None,
        }
    }

    /// Rebuilds the fields that are not serialized.
    pub(in crate::core) fn complete(&mut self) {
        if let Some(entries) = &mut self.entries {
            entries.complete();
        }
    }

    /// The limit of the body, in bytes.
    pub fn room(&self) -> usize {
        self.room
    }

    /// The bytes, as they were written.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The size in bytes; for a symlink, that of its target.
    pub fn size(&self) -> u64 {
        match &self.shape {
            Shape::File | Shape::Directory => self.body.len() as u64,
            Shape::Symlink(target) => target.len() as u64,
        }
    }

    /// The size that counts towards the limit of a directory claim: body or target, and attributes.
    pub fn weight(&self) -> usize {
        let target = match &self.shape {
            Shape::Symlink(target) => target.len(),
            Shape::File | Shape::Directory => 0,
        };
        let tags = self
            .tags()
            .iter()
            .map(|(name, value)| name.len() + value.len());
        self.body.len() + target + tags.sum::<usize>()
    }

    /// The [`Content::weight`] after a change.
    pub fn weight_after(&self, change: &Change) -> usize {
        let body = self.body.len();
        let end = match change {
            Change::Write { offset, data } if !data.is_empty() => body.max(
                usize::try_from(*offset)
                    .unwrap_or(usize::MAX)
                    .saturating_add(data.len()),
            ),
            Change::Append { data } => body.saturating_add(data.len()),
            Change::Resize { size } => usize::try_from(*size).unwrap_or(usize::MAX),
            Change::Write { .. } | Change::Attributes(_) => body,
            Change::Tag { name, value } => {
                let there = self
                    .tags()
                    .get(name)
                    .map_or(0, |there| name.len() + there.len());
                let then = value.as_ref().map_or(0, |value| name.len() + value.len());
                return self.weight() - there + then;
            }
        };
        (self.weight() - body).saturating_add(end)
    }

    /// The entries of a directory.
    pub fn entries(&self) -> &Entries {
        static NONE: Entries = Entries {
            by_label: BTreeMap::new(),
            by_cookie: BTreeMap::new(),
            next: 0,
            directories: 0,
        };
        self.entries.as_deref().unwrap_or(&NONE)
    }

    /// Adds an entry. Its name must not exist yet.
    pub fn link(&mut self, label: Label, ino: Ino, is_directory: bool, at: SystemTime) {
        let entries = self.entries.get_or_insert_default();
        entries.insert(label, ino, is_directory);
        (self.mtime, self.ctime) = (at, at);
    }

    /// Removes an entry.
    pub fn unlink(&mut self, label: &Label, is_directory: bool, at: SystemTime) {
        if let Some(entries) = &mut self.entries {
            entries.remove(label, is_directory);
        }
        (self.mtime, self.ctime) = (at, at);
    }

    /// Replaces the inode numbers of the entries.
    pub(in crate::core) fn renumber(&mut self, number: impl Fn(Ino) -> Ino) {
        if let Some(entries) = &mut self.entries {
            entries.renumber(number);
        }
    }

    /// True for a file of white space only. Such a claim reads as its record.
    pub fn is_blank(&self) -> bool {
        self.shape == Shape::File && self.body.iter().all(u8::is_ascii_whitespace)
    }

    /// The holder's extended attributes.
    pub fn tags(&self) -> &BTreeMap<String, Vec<u8>> {
        static NONE: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        self.tags.as_deref().map_or(&NONE, |tags| &tags.0)
    }

    /// The reason for the claim, as its holder gave it: any text.
    pub fn reason(&self) -> Option<&str> {
        std::str::from_utf8(self.tags().get(REASON)?).ok()
    }

    /// Checks a change. Writing to a directory is [`Refusal::IsDirectory`] (EISDIR), to a symlink
    /// [`Refusal::Invalid`] (EINVAL). Past a limit it is [`Refusal::TooLarge`] (EFBIG) for the body
    /// or the reason, and [`Refusal::Full`] (ENOSPC) for the attributes. A reason that is no UTF-8
    /// is [`Refusal::Invalid`] (EINVAL). Removing a missing attribute is [`Refusal::NoAttribute`]
    /// (ENODATA), and changing another one of the record [`Refusal::NotPermitted`] (EPERM).
    pub fn check(&self, change: &Change) -> Result<(), Refusal> {
        let end = match change {
            Change::Write { offset, data } => offset.checked_add(data.len() as u64),
            Change::Append { data } => Some(self.size() + data.len() as u64),
            Change::Resize { size } => Some(*size),
            Change::Attributes(_) => return Ok(()),
            Change::Tag { name, value } => return self.check_tag(name, value.as_deref()),
        };
        match self.shape {
            Shape::File => {}
            Shape::Directory => return Err(Refusal::IsDirectory),
            Shape::Symlink(_) => return Err(Refusal::Invalid),
        }
        match end {
            Some(end) if end <= self.room as u64 => Ok(()),
            _ => Err(Refusal::TooLarge),
        }
    }

    fn check_tag(&self, name: &str, value: Option<&[u8]>) -> Result<(), Refusal> {
        if name.starts_with(RECORD_TAGS) && name != REASON {
            return Err(Refusal::NotPermitted);
        }
        let Some(value) = value else {
            return self
                .tags()
                .get(name)
                .map(|_| ())
                .ok_or(Refusal::NoAttribute);
        };
        if name == REASON {
            return match std::str::from_utf8(value) {
                _ if value.len() > REASON_MAX => Err(Refusal::TooLarge),
                Err(_) => Err(Refusal::Invalid),
                Ok(_) => Ok(()),
            };
        }
        let others: usize = self
            .tags()
            .iter()
            .filter(|(n, _)| *n != name && *n != REASON)
            .map(|(n, v)| n.len() + v.len())
            .sum();
        if others + name.len() + value.len() > TAGS_MAX {
            Err(Refusal::Full)
        } else {
            Ok(())
        }
    }

    /// The request that a change makes, if it makes one. A change that [`Content::check`] refuses
    /// makes none.
    pub fn ask_after(&self, change: &Change) -> Option<Ask> {
        let (offset, data) = match change {
            Change::Write { offset, data } => (usize::try_from(*offset).ok()?, data),
            Change::Append { data } => (self.body.len(), data),
            Change::Resize { .. } | Change::Attributes(_) | Change::Tag { .. } => return None,
        };
        if data.is_empty() || self.check(change).is_err() {
            return None;
        }
        // A repeated request is ignored, but a pid is checked against its writer each time.
        Ask::after(&self.body, offset, data)
            .filter(|ask| matches!(ask, Ask::Pid(_)) || Ask::of(&self.body).as_ref() != Some(ask))
    }

    /// Applies a change that [`Content::check`] has admitted. A change past a limit has no effect.
    pub fn apply(&mut self, change: &Change, at: SystemTime) {
        if self.check(change).is_err() {
            return;
        }
        self.ctime = at;
        match change {
            Change::Write { offset, data } => {
                self.write(usize::try_from(*offset).unwrap_or(usize::MAX), data, at);
            }
            Change::Append { data } => self.write(self.body.len(), data, at),
            Change::Resize { size } => {
                self.body
                    .resize(usize::try_from(*size).unwrap_or(self.room), 0);
                self.mtime = at;
            }
            Change::Attributes(Attributes { mode, atime, mtime }) => {
                self.mode = mode.unwrap_or(self.mode);
                self.atime = atime.unwrap_or(self.atime);
                self.mtime = mtime.unwrap_or(self.mtime);
            }
            Change::Tag {
                name,
                value: Some(value),
            } => {
                let tags = self.tags.get_or_insert_default();
                tags.0.insert(name.clone(), value.clone());
            }
            Change::Tag { name, value: None } => {
                if let Some(tags) = &mut self.tags {
                    tags.0.remove(name);
                }
                self.tags.take_if(|tags| tags.0.is_empty());
            }
        }
    }

    fn write(&mut self, offset: usize, data: &[u8], at: SystemTime) {
        // A write of no bytes changes no times and fills no gap: write(2).
        if data.is_empty() {
            return;
        }
        let end = offset + data.len();
        if self.body.len() < end {
            self.body.resize(end, 0);
        }
        self.body[offset..end].copy_from_slice(data);
        self.mtime = at;
    }
}

/// The holder's extended attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Tags(#[serde(with = "wire::named_bytes")] BTreeMap<String, Vec<u8>>);

/// The entries of a directory in the order of their creation, so that a listing can continue where
/// it stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    #[serde(skip)]
    by_label: BTreeMap<Label, u64>,
    by_cookie: BTreeMap<u64, (Label, Ino)>,
    next: u64,
    directories: u32,
}

impl Entries {
    fn complete(&mut self) {
        let labels = self.by_cookie.iter();
        self.by_label = labels
            .map(|(cookie, (label, _))| (label.clone(), *cookie))
            .collect();
    }

    /// Checks that names are unique and the next cookie is new.
    pub(in crate::core) fn is_sound(&self) -> bool {
        let newest = self.by_cookie.keys().next_back().copied().unwrap_or(0);
        let first = self.by_cookie.keys().next().copied().unwrap_or(1);
        first > 0
            && newest <= self.next
            && self.next < u64::MAX / 2
            && self.by_label.len() == self.by_cookie.len()
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.by_label.len()
    }

    /// True if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.by_label.is_empty()
    }

    /// The number of directories among them.
    pub fn directories(&self) -> u32 {
        self.directories
    }

    /// The inode of a name.
    pub fn get(&self, label: &Label) -> Option<Ino> {
        let cookie = self.by_label.get(label)?;
        self.by_cookie.get(cookie).map(|(_, ino)| *ino)
    }

    /// The entries after a cookie, in the order of their creation, each with its cookie.
    pub fn after(&self, cookie: u64) -> impl Iterator<Item = (u64, &Label, Ino)> {
        let rest = self
            .by_cookie
            .range((Bound::Excluded(cookie), Bound::Unbounded));
        rest.map(|(cookie, (label, ino))| (*cookie, label, *ino))
    }

    fn renumber(&mut self, number: impl Fn(Ino) -> Ino) {
        for (_, ino) in self.by_cookie.values_mut() {
            *ino = number(*ino);
        }
    }

    fn insert(&mut self, label: Label, ino: Ino, is_directory: bool) {
        self.next = self.next.saturating_add(1);
        self.by_label.insert(label.clone(), self.next);
        self.by_cookie.insert(self.next, (label, ino));
        self.directories += u32::from(is_directory);
    }

    fn remove(&mut self, label: &Label, is_directory: bool) {
        if let Some(cookie) = self.by_label.remove(label) {
            self.by_cookie.remove(&cookie);
            self.directories = self.directories.saturating_sub(is_directory.into());
        }
    }
}

/// At most `size` bytes from `offset` on; none past the end.
pub fn slice(bytes: &[u8], offset: u64, size: usize) -> &[u8] {
    let start = usize::try_from(offset).map_or(bytes.len(), |o| o.min(bytes.len()));
    &bytes[start..bytes.len().min(start.saturating_add(size))]
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::{Ask, BODY_MAX, Content};
    use crate::core::{Change, Creation, Shape};

    fn file(body: &[u8]) -> Content {
        let creation = Creation {
            shape: Shape::File,
            mode: 0o644,
            uid: 1,
            gid: 2,
        };
        let mut file = Content::new(creation, BODY_MAX, UNIX_EPOCH);
        let data = body.to_vec();
        file.apply(&Change::Append { data }, UNIX_EPOCH);
        file
    }

    #[test]
    fn parts_that_are_not_there_are_written_as_their_defaults() {
        let mut file = file(b"1");
        let expected = concat!(
            r#"{"shape":"File","body":"1","mode":420,"uid":1,"gid":2,"#,
            r#""atime":[0,0],"mtime":[0,0],"ctime":[0,0],"tags":{},"room":65536,"#,
            r#""entries":{"by_cookie":{},"next":0,"directories":0}}"#,
        );
        assert_eq!(serde_json::to_string(&file).unwrap(), expected);
        assert_eq!(serde_json::from_str::<Content>(expected).unwrap(), file);
        // A part that has become empty again is the same as one that never was.
        for value in [Some(vec![1]), None] {
            let name = String::from("user.a");
            file.apply(&Change::Tag { name, value }, UNIX_EPOCH);
        }
        assert_eq!(serde_json::from_str::<Content>(expected).unwrap(), file);
    }

    /// The request in a body that is one slice.
    fn naive(body: &[u8]) -> Option<Ask> {
        let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
        if first == Some(&b'{') {
            return Ask::of(body);
        }
        let line = body.split(|byte| *byte == b'\n').next()?.trim_ascii();
        let digits = !line.is_empty() && line.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(line).ok().filter(|_| digits)?;
        text.parse().ok().filter(|pid| *pid != 0).map(Ask::Pid)
    }

    #[test]
    fn a_write_asks_for_what_the_whole_body_asks_for_after_it() {
        let padded = |length: usize, text: &str| format!("{}{text}", " ".repeat(length));
        let mut bodies: Vec<Vec<u8>> = Vec::new();
        for text in [
            "",
            " ",
            "\n",
            "7",
            "0",
            "12\n",
            " 12 \nx",
            "\n12",
            "1 2",
            "1x",
            "4294967295",
            "4294967296",
            "0042\t",
            "+5",
            "{",
            "}",
            "{}",
            r#"{"ttl":"30s"}"#,
            r#"{"ttl":30}"#,
            r#"{"session":"w1"}"#,
            r#"{"session":"w1","x":1}"#,
            "\0",
        ] {
            bodies.push(text.into());
        }
        let ttl = r#"{"ttl":"30s"}"#;
        for length in [4082, 4083, 4084] {
            bodies.push(padded(length, ttl).into());
            bodies.push(padded(length, "77").into());
            bodies.push(format!("{ttl}{}", " ".repeat(length)).into());
            bodies.push(format!("{}1", "0".repeat(length)).into());
        }
        let (mut asked, mut tried) = (0, 0);
        for before in &bodies {
            for data in &bodies {
                let length = before.len() as u64;
                let mut offsets = vec![0, 1, 2, length / 2, length.saturating_sub(1), length];
                offsets.extend([length + 1, 4095, 4096, 65_535, 65_536, u64::MAX]);
                let writes = offsets.into_iter().map(|offset| {
                    let data = data.clone();
                    Change::Write { offset, data }
                });
                let (is_empty, data) = (data.is_empty(), data.clone());
                for change in writes.chain([Change::Append { data }]) {
                    let file = file(before);
                    let mut after = file.clone();
                    after.apply(&change, UNIX_EPOCH);
                    let expected = naive(after.body()).filter(|ask| {
                        matches!(ask, Ask::Pid(_)) || naive(before).as_ref() != Some(ask)
                    });
                    let is_written = !is_empty && file.check(&change).is_ok();
                    let expected = expected.filter(|_| is_written);
                    assert_eq!(file.ask_after(&change), expected, "{before:?} {change:?}");
                    (asked, tried) = (asked + usize::from(expected.is_some()), tried + 1);
                }
            }
        }
        assert!(asked > 1000 && tried > 5 * asked / 4, "{asked} of {tried}");
    }
}
