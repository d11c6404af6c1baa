//! The content of a claim: bytes, permission bits, times and extended attributes, exactly as the
//! holder set them.
//!
//! Promises: reads return the bytes that were written and the times that were set, to the
//! nanosecond. Nothing grows beyond its limit.
//!
//! Does not know: who holds the claim, or whether anybody does.

mod ask;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

pub use self::ask::{Ask, TTL_MAX, ttl};
use crate::core::rare::{Blank, Rare};
use crate::core::wire;
use crate::core::{Attributes, Change, Creation, Ino, Label, Refusal, Shape};

/// The largest body of a claim, in bytes (EFBIG past it).
pub const BODY_MAX: usize = 64 * 1024;

/// The largest total size within a directory claim, in bytes (ENOSPC past it), and so of a file
/// there (EFBIG).
pub const INSIDE_MAX: usize = 1024 * 1024;

/// The largest total size of the names and values of a claim's extended attributes, in bytes
/// (ENOSPC past it).
pub const TAGS_MAX: usize = 4 * 1024;

/// The prefix of the extended attributes that show the record. Nobody may set them.
pub const RECORD_TAGS: &str = "user.claimfs.";

/// The inode behind a claim.
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
    tags: Rare<Tags>,
    /// The limit of the body, in bytes.
    room: usize,
    /// The entries of a directory.
    pub entries: Rare<Entries>,
}

impl Content {
    /// An empty file or directory, or a symlink. `room` is the limit of the body in bytes.
    pub fn new(creation: Creation, room: usize, at: SystemTime) -> Self {
        Self {
            room,
            entries: Rare::default(),
            shape: creation.shape,
            body: Vec::new(),
            mode: creation.mode,
            uid: creation.uid,
            gid: creation.gid,
            atime: at,
            mtime: at,
            ctime: at,
            tags: Rare::default(),
        }
    }

    /// Rebuilds the fields that are not serialized.
    pub fn complete(&mut self) {
        if let Some(entries) = self.entries.changed() {
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

    /// Updates the times after an entry was added or removed.
    pub fn touched(&mut self, at: SystemTime) {
        (self.mtime, self.ctime) = (at, at);
    }

    /// True for a file of white space only. Such a claim reads as its record.
    pub fn is_blank(&self) -> bool {
        self.shape == Shape::File && self.body.iter().all(u8::is_ascii_whitespace)
    }

    /// The holder's extended attributes.
    pub fn tags(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.tags.0
    }

    /// Checks a change. Writing to a directory is [`Refusal::IsDirectory`] (EISDIR), to a symlink
    /// [`Refusal::Invalid`] (EINVAL). Past a limit it is [`Refusal::TooLarge`] (EFBIG) for the body
    /// and [`Refusal::Full`] (ENOSPC) for the attributes. Removing a missing attribute is
    /// [`Refusal::NoAttribute`] (ENODATA), and changing one of the record [`Refusal::NotPermitted`]
    /// (EPERM).
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
        if name.starts_with(RECORD_TAGS) {
            return Err(Refusal::NotPermitted);
        }
        let Some(value) = value else {
            return self
                .tags()
                .get(name)
                .map(|_| ())
                .ok_or(Refusal::NoAttribute);
        };
        let others: usize = self
            .tags()
            .iter()
            .filter(|(n, _)| *n != name)
            .map(|(n, v)| n.len() + v.len())
            .sum();
        if others + name.len() + value.len() > TAGS_MAX {
            Err(Refusal::Full)
        } else {
            Ok(())
        }
    }

    /// The request that a change makes, if it makes one.
    pub fn ask_after(&self, change: &Change) -> Option<Ask> {
        let touches = match change {
            Change::Write { data, .. } | Change::Append { data } => !data.is_empty(),
            Change::Resize { .. } | Change::Attributes(_) | Change::Tag { .. } => false,
        };
        if !touches || self.shape != Shape::File {
            return None;
        }
        let mut after = self.clone();
        after.apply(change, self.mtime);
        // A repeated request is ignored, but a pid is checked against its writer each time.
        Ask::of(&after.body)
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
                self.tags.0.insert(name.clone(), value.clone());
            }
            Change::Tag { name, value: None } => {
                self.tags.0.remove(name);
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

impl Blank for Tags {
    fn blank() -> &'static Self {
        static BLANK: Tags = Tags(BTreeMap::new());
        &BLANK
    }
}

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

impl Blank for Entries {
    fn blank() -> &'static Self {
        static BLANK: Entries = Entries {
            by_label: BTreeMap::new(),
            by_cookie: BTreeMap::new(),
            next: 0,
            directories: 0,
        };
        &BLANK
    }
}

impl Entries {
    fn complete(&mut self) {
        let labels = self.by_cookie.iter();
        self.by_label = labels
            .map(|(cookie, (label, _))| (label.clone(), *cookie))
            .collect();
    }

    /// Checks that names are unique and the next cookie is new.
    pub fn is_sound(&self) -> bool {
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

    /// Replaces the inode numbers.
    pub fn renumber(&mut self, number: impl Fn(Ino) -> Ino) {
        for (_, ino) in self.by_cookie.values_mut() {
            *ino = number(*ino);
        }
    }

    /// Adds a name. It must not exist yet.
    pub fn insert(&mut self, label: Label, ino: Ino, is_directory: bool) {
        self.next = self.next.saturating_add(1);
        self.by_label.insert(label.clone(), self.next);
        self.by_cookie.insert(self.next, (label, ino));
        self.directories += u32::from(is_directory);
    }

    /// Removes a name.
    pub fn remove(&mut self, label: &Label, is_directory: bool) {
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
