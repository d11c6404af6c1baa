//! The binary form of a content.
//!
//! Does not know: whose content it is.

use super::{Content, Entries, Tags};
use crate::core::encoding::{Encode, Flaw, Reader, write_count};
use crate::core::{Ino, Label};

/// The parts that most contents lack, or have like the part before, are not written. These bits say
/// which.
const SAME_MTIME: u8 = 1;
const SAME_CTIME: u8 = 1 << 1;
const TAGS: u8 = 1 << 2;
const ENTRIES: u8 = 1 << 3;
const ALL: u8 = SAME_MTIME | SAME_CTIME | TAGS | ENTRIES;

impl Encode for Content {
    fn write(&self, to: &mut Vec<u8>) {
        let Self {
            shape,
            body,
            mode,
            uid,
            gid,
            atime,
            mtime,
            ctime,
            tags,
            room,
            entries,
        } = self;
        let parts = [
            (SAME_MTIME, mtime == atime),
            (SAME_CTIME, ctime == mtime),
            (TAGS, tags.is_some()),
            (ENTRIES, entries.is_some()),
        ];
        let parts = parts.iter().filter(|(_, is)| *is);
        let parts = parts.fold(0, |parts, (part, _)| parts | part);
        to.push(parts);
        shape.write(to);
        body.write(to);
        mode.write(to);
        uid.write(to);
        gid.write(to);
        atime.write(to);
        if parts & SAME_MTIME == 0 {
            mtime.write(to);
        }
        if parts & SAME_CTIME == 0 {
            ctime.write(to);
        }
        if let Some(tags) = tags {
            tags.0.write(to);
        }
        room.write(to);
        if let Some(entries) = entries {
            entries.write(to);
        }
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        let parts = from.byte()?;
        if parts & !ALL != 0 {
            return Err(Flaw::Wrong(
                "it has a part of a content that this claimfs does not know",
            ));
        }
        let (shape, body) = (Encode::read(from)?, Encode::read(from)?);
        let (mode, uid, gid) = (
            Encode::read(from)?,
            Encode::read(from)?,
            Encode::read(from)?,
        );
        let atime = Encode::read(from)?;
        let mtime = if parts & SAME_MTIME == 0 {
            Encode::read(from)?
        } else {
            atime
        };
        let ctime = if parts & SAME_CTIME == 0 {
            Encode::read(from)?
        } else {
            mtime
        };
        let tags = (parts & TAGS != 0).then(|| Encode::read(from).map(Tags));
        let tags = tags.transpose()?.filter(|tags| !tags.0.is_empty());
        let room = Encode::read(from)?;
        let entries = (parts & ENTRIES != 0).then(|| Entries::read(from));
        let entries = entries
            .transpose()?
            .filter(|entries| *entries != Entries::default());
        Ok(Self {
            shape,
            body,
            mode,
            uid,
            gid,
            atime,
            mtime,
            ctime,
            tags: tags.map(Box::new),
            room,
            entries: entries.map(Box::new),
        })
    }
}

impl Encode for Entries {
    fn write(&self, to: &mut Vec<u8>) {
        let Self {
            by_label: _,
            by_cookie,
            next,
            directories,
        } = self;
        next.write(to);
        directories.write(to);
        write_count(by_cookie.len(), to);
        for (cookie, (label, ino)) in by_cookie {
            cookie.write(to);
            label.write(to);
            ino.write(to);
        }
    }

    /// The names are found again once it is completed.
    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        let (next, directories) = (Encode::read(from)?, Encode::read(from)?);
        let entries = Vec::<(u64, (Label, Ino))>::read(from)?;
        let is_sorted = entries.windows(2).all(|two| two[0].0 < two[1].0);
        if !is_sorted {
            return Err(Flaw::Wrong(
                "the entries of a directory in it are not in their order",
            ));
        }
        Ok(Self {
            by_cookie: entries.into_iter().collect(),
            next,
            directories,
            ..Self::default()
        })
    }
}
