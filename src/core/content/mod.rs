//! What a claim contains: bytes, permission bits, times and tags, kept exactly as the holder set them.
//!
//! Promises: bytes come back as they were written, times as they were set to the nanosecond, and nothing grows past
//! its limit. Deliberately ignorant of: who holds the claim, and whether anybody does.

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

/// The largest sum of what is inside a directory claim, in bytes (ENOSPC past it), and so the largest file there (EFBIG).
pub const INSIDE_MAX: usize = 1024 * 1024;

/// The largest sum of names and values of a claim's extended attributes, in bytes (ENOSPC past it).
pub const TAGS_MAX: usize = 4 * 1024;

/// What the names of the record's own extended attributes begin with; nobody sets those.
pub const RECORD_TAGS: &str = "user.claimfs.";

/// The inode behind a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// File, directory or symlink: for good.
    pub shape: Shape,
    #[serde(with = "wire::bytes")]
    body: Vec<u8>,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last access: moved by utimes alone.
    #[serde(with = "wire::moment")]
    pub atime: SystemTime,
    /// Time of last modification: moved by writes and utimes.
    #[serde(with = "wire::moment")]
    pub mtime: SystemTime,
    /// Time of last change: moved by any change, names included.
    #[serde(with = "wire::moment")]
    pub ctime: SystemTime,
    tags: Rare<Tags>,
    /// How large the body may become, in bytes.
    room: usize,
    /// What is in a directory.
    pub entries: Rare<Entries>,
}

impl Content {
    /// An empty file or directory, or a symlink, with room for a body of so many bytes.
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

    /// What is not written down, since the rest says it.
    pub fn complete(&mut self) {
        if let Some(entries) = self.entries.changed() {
            entries.complete();
        }
    }

    /// How large the body may become, in bytes.
    pub fn room(&self) -> usize {
        self.room
    }

    /// The bytes as written.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The size in bytes: of a symlink, that of its target.
    pub fn size(&self) -> u64 {
        match &self.shape {
            Shape::File | Shape::Directory => self.body.len() as u64,
            Shape::Symlink(target) => target.len() as u64,
        }
    }

    /// How many bytes it takes of what a directory claim may contain: the body or the target, and the attributes.
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

    /// How many bytes it takes once a change is made.
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

    /// An entry came or went.
    pub fn touched(&mut self, at: SystemTime) {
        (self.mtime, self.ctime) = (at, at);
    }

    /// A file with nothing in it but white space: such a claim reads as its record.
    pub fn is_blank(&self) -> bool {
        self.shape == Shape::File && self.body.iter().all(u8::is_ascii_whitespace)
    }

    /// The holder's extended attributes.
    pub fn tags(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.tags.0
    }

    /// Whether a change is none for this shape ([`Refusal::IsDirectory`], EISDIR, or [`Refusal::Invalid`], EINVAL, for
    /// bytes), or would pass a limit: [`Refusal::TooLarge`] (EFBIG) for the body, [`Refusal::Full`] (ENOSPC)
    /// for the attributes, [`Refusal::NoAttribute`] (ENODATA) for removing one that is not there,
    /// [`Refusal::NotPermitted`] (EPERM) for one that is the record's.
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

    /// What the body asks for once a change is made, if the change can have asked it.
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
        // What it asked already is not asked again, but a pid is checked against its writer each time.
        Ask::of(&after.body)
            .filter(|ask| matches!(ask, Ask::Pid(_)) || Ask::of(&self.body).as_ref() != Some(ask))
    }

    /// Makes a change that [`Content::check`] has admitted; what would pass a limit all the same is left undone.
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
        // A write of nothing neither moves times nor fills the gap before it: write(2).
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

/// What is in a directory: names, in the order they came, so that a listing can go on where it stopped.
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

    /// Whether each has a name of its own, and the next one will have a cookie of its own.
    pub fn is_sound(&self) -> bool {
        let newest = self.by_cookie.keys().next_back().copied().unwrap_or(0);
        let first = self.by_cookie.keys().next().copied().unwrap_or(1);
        first > 0
            && newest <= self.next
            && self.next < u64::MAX / 2
            && self.by_label.len() == self.by_cookie.len()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_label.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.by_label.is_empty()
    }

    /// How many of them are directories.
    pub fn directories(&self) -> u32 {
        self.directories
    }

    /// The inode of a name.
    pub fn get(&self, label: &Label) -> Option<Ino> {
        let cookie = self.by_label.get(label)?;
        self.by_cookie.get(cookie).map(|(_, ino)| *ino)
    }

    /// The entries after a cookie, in the order they came, each with its own.
    pub fn after(&self, cookie: u64) -> impl Iterator<Item = (u64, &Label, Ino)> {
        let rest = self
            .by_cookie
            .range((Bound::Excluded(cookie), Bound::Unbounded));
        rest.map(|(cookie, (label, ino))| (*cookie, label, *ino))
    }

    /// Gives the inodes behind the names other numbers.
    pub fn renumber(&mut self, number: impl Fn(Ino) -> Ino) {
        for (_, ino) in self.by_cookie.values_mut() {
            *ino = number(*ino);
        }
    }

    /// Adds a name that is not there.
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

/// At most `size` bytes of `bytes` from `offset` on; none past the end.
pub fn slice(bytes: &[u8], offset: u64, size: usize) -> &[u8] {
    let start = usize::try_from(offset).map_or(bytes.len(), |o| o.min(bytes.len()));
    &bytes[start..bytes.len().min(start.saturating_add(size))]
}
