//! Names: of leases, of sessions, and of entries inside a directory claim.
//!
//! Promises: every value is valid. A [`Name`], [`SessionId`] or [`Label`] cannot be made from bytes
//! that its rule refuses.
//!
//! Does not know: which names are taken.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Ino, Process, Refusal, wire};

/// The longest name of a claim or a session, in bytes, as `NAME_MAX` on other filesystems.
pub const NAME_MAX: usize = 255;

/// The longest reserved path, in bytes, as `PATH_MAX` on other filesystems.
pub const PATH_BYTES_MAX: usize = 4096;

/// The largest number of components of a reserved path.
pub const PATH_LEVELS_MAX: usize = 64;

/// The directory of all reservations, and the beginning of their names.
const PATHS: &str = "paths/";

/// The name of a lease: the file name under `claims/`, or the path of a reservation, as a file of
/// the mount (`paths/home/me/app`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(Arc<str>);

/// The id of a session: the file name under `sessions/`, and the value of a session variable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct SessionId(Arc<str>);

/// Applies looop's rule for names, which holds for session ids too: not empty, no leading `.` (so
/// neither `.` nor `..`), no `/`, `\` or NUL, and UTF-8, else [`Refusal::BadName`] (EINVAL); at
/// most 255 bytes, else [`Refusal::LongName`] (ENAMETOOLONG).
fn valid(raw: &[u8]) -> Result<Arc<str>, Refusal> {
    if raw.len() > NAME_MAX {
        return Err(Refusal::LongName);
    }
    let text = std::str::from_utf8(raw).map_err(|_| Refusal::BadName)?;
    let is_banned = |byte: &u8| matches!(byte, b'/' | b'\\' | 0);
    if text.is_empty() || text.starts_with('.') || raw.iter().any(is_banned) {
        return Err(Refusal::BadName);
    }
    Ok(Arc::from(text))
}

/// The rule of [`Label`].
fn check_label(raw: &[u8]) -> Result<(), Refusal> {
    if raw.len() > NAME_MAX {
        return Err(Refusal::LongName);
    }
    if raw.is_empty() || raw == b"." || raw == b".." || raw.iter().any(|b| matches!(b, 0 | b'/')) {
        return Err(Refusal::BadName);
    }
    Ok(())
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Maps find a name by its text, without an allocation.
impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Name {
    /// The name of a claim, by the name rule: else EINVAL or ENAMETOOLONG.
    pub fn new(raw: &[u8]) -> Result<Self, Refusal> {
        valid(raw).map(Self)
    }

    /// The name of a claim or of a scratch entry. The rule is the same, but leading dots are
    /// allowed.
    pub fn with_scratch(raw: &[u8]) -> Result<Self, Refusal> {
        let dots = raw.iter().take_while(|byte| **byte == b'.').count();
        if dots == 0 {
            return Self::new(raw);
        }
        if raw.len() > NAME_MAX {
            return Err(Refusal::LongName);
        }
        let rest = valid(&raw[dots..])?;
        Ok(Self(Arc::from(format!("{}{rest}", ".".repeat(dots)))))
    }

    /// The name of a reservation. `raw` is the path from `/` on; a first `/` may be left out. Its
    /// components are valid labels and UTF-8, else EINVAL; ENAMETOOLONG past 255 bytes in one, past
    /// [`PATH_LEVELS_MAX`] of them, and past [`PATH_BYTES_MAX`] in all.
    pub fn path(raw: &[u8]) -> Result<Self, Refusal> {
        let path = raw.strip_prefix(b"/").unwrap_or(raw);
        if path.len() > PATH_BYTES_MAX {
            return Err(Refusal::LongName);
        }
        let mut levels = 0;
        for label in path.split(|byte| *byte == b'/') {
            check_label(label)?;
            levels += 1;
        }
        if levels > PATH_LEVELS_MAX {
            return Err(Refusal::LongName);
        }
        let path = std::str::from_utf8(path).map_err(|_| Refusal::BadName)?;
        Ok(Self(Arc::from(format!("{PATHS}{path}"))))
    }

    /// A name as `leases` shows it: a claim, or a reservation if it begins with `paths/`.
    pub fn listed(raw: &[u8]) -> Result<Self, Refusal> {
        match raw.strip_prefix(PATHS.as_bytes()) {
            Some(path) if path.starts_with(b"/") => Err(Refusal::BadName),
            Some(path) => Self::path(path),
            None => Self::new(raw),
        }
    }

    /// A name as a journal has it: of any lease.
    pub(in crate::core) fn recorded(text: &str) -> Result<Self, Refusal> {
        if text.starts_with(PATHS) {
            Self::listed(text.as_bytes())
        } else {
            Self::with_scratch(text.as_bytes())
        }
    }

    /// The reserved path, without the first `/`. `None` for a claim.
    pub fn as_path(&self) -> Option<&str> {
        self.0.strip_prefix(PATHS)
    }

    /// True for a reservation.
    pub fn is_path(&self) -> bool {
        self.as_path().is_some()
    }

    /// The reservations that would cover this one, from the nearest on.
    pub fn above(&self) -> impl Iterator<Item = &str> {
        let path = self.as_path().unwrap_or_default();
        let ends = path.rmatch_indices('/').map(|(at, _)| PATHS.len() + at);
        ends.map(|end| &self.0[..end])
    }

    /// The first name below this path and the first behind all of those, in the order of names.
    pub fn below(&self) -> (String, String) {
        // `0` comes after `/`.
        (format!("{}/", self.0), format!("{}0", self.0))
    }

    /// True if this is a path below another.
    pub fn is_below(&self, other: &Self) -> bool {
        let rest = self.0.strip_prefix(&*other.0);
        rest.is_some_and(|rest| other.is_path() && rest.starts_with('/'))
    }

    /// The name as a file of the mount, for people: `claims/x`, `paths/home/me`.
    pub fn file(&self) -> String {
        let dir = if self.is_path() { "" } else { "claims/" };
        format!("{dir}{self}")
    }

    /// True for a scratch entry: closed to other sessions like a claim, but not shown as a lease.
    pub fn is_scratch(&self) -> bool {
        self.0.starts_with('.')
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SessionId {
    /// The id of a session, by the name rule: else EINVAL or ENAMETOOLONG.
    pub fn new(raw: &[u8]) -> Result<Self, Refusal> {
        valid(raw).map(Self)
    }

    /// The id of a POSIX session (rule 5): its number and the uid. Both survive its leader.
    pub fn posix(sid: u32, uid: u32) -> Self {
        Self(Arc::from(format!("sid-{sid}-uid-{uid}")))
    }

    /// The id of an agent's session (rule 3): the agent's name, its process and the uid.
    pub fn agent(name: &str, process: &Process, uid: u32) -> Self {
        let Process { pid, start, .. } = process;
        Self(Arc::from(format!("{name}-{pid}-{start}-uid-{uid}")))
    }

    /// The id of a sandbox's session (rule 4): its pid namespace and the uid. Processes of several
    /// uids may run in one sandbox.
    pub fn sandbox(pidns: u64, uid: u32) -> Self {
        Self(Arc::from(format!("sandbox-{pidns}-uid-{uid}")))
    }

    /// The id of a POSIX session that has no number in the mount's pid namespace: its topmost
    /// process there and the uid.
    pub fn outside(top: &Process, uid: u32) -> Self {
        Self::agent("outside", top, uid)
    }

    /// The uid in the id of a POSIX session. `None` for any other id.
    pub fn posix_uid(&self) -> Option<u32> {
        let (sid, uid) = self.0.strip_prefix("sid-")?.split_once("-uid-")?;
        sid.parse::<u32>().ok()?;
        uid.parse().ok()
    }

    /// The uid in an id of the form that rules 3 to 5 make. `None` for any other id.
    pub fn owner(&self) -> Option<u32> {
        let (rest, uid) = self.0.rsplit_once("-uid-")?;
        let uid = uid.parse().ok()?;
        let (head, last) = rest.rsplit_once('-')?;
        last.parse::<u64>().ok()?;
        let numbered = head
            .rsplit_once('-')
            .is_some_and(|(_, pid)| pid.parse::<u32>().is_ok());
        (numbered || matches!(head, "sid" | "sandbox")).then_some(uid)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of an entry inside a directory claim. The rule is that of any filesystem: 1 to 255
/// bytes except `/` and NUL, but neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Label(#[serde(with = "wire::bytes")] Arc<[u8]>);

impl Label {
    /// The name of an entry, by that rule: else EINVAL or ENAMETOOLONG.
    pub fn new(raw: &[u8]) -> Result<Self, Refusal> {
        check_label(raw)?;
        Ok(Self(Arc::from(raw)))
    }

    /// The name as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The place of a name, whether it exists or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In `claims/` or below `paths/`: a lease.
    Claim(Name),
    /// In a directory claim, or in a directory below it. The holder of the claim may change it.
    Inside {
        /// The directory.
        dir: Ino,
        /// The name in it.
        label: Label,
    },
}

impl From<Name> for Place {
    fn from(name: Name) -> Self {
        Self::Claim(name)
    }
}

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::recorded(&text).map_err(|_| "no name of a claim")
    }
}

impl TryFrom<String> for SessionId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text.as_bytes()).map_err(|_| "no id of a session")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

/// True for a character that a terminal may not show as itself: a control character, in Unicode's
/// sense; one that changes the direction of writing; an invisible one.
pub fn misleads(c: char) -> bool {
    let is_mark = matches!(
        c,
        '\u{61c}' | '\u{180e}' | '\u{feff}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
    );
    c.is_control() || is_mark
}

/// Escapes the characters that [`misleads`] names, so that text of unknown origin is safe in a
/// terminal and in a log.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if misleads(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}
