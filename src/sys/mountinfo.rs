//! The claimfs mounts of this mount namespace, as `/proc/self/mountinfo` lists them (proc(5)).
//!
//! Does not know: how they come and go.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The file system type that claimfs mounts have.
pub const FS_TYPE: &str = "fuse.claimfs";

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The directory that it is on.
    pub dir: PathBuf,
    /// The part of the file system that it shows: `/` unless it is a bind mount of a part.
    pub root: PathBuf,
    /// The device number, as `MAJOR:MINOR`.
    pub device: String,
    /// The options of this mount alone, separated by commas.
    pub flags: String,
    /// The options of the file system, separated by commas.
    pub super_options: String,
    /// The file system type.
    pub fs_type: String,
    /// The source: for claimfs, its state directory.
    pub source: PathBuf,
}

impl Mount {
    /// Whether this mount or its file system is read-only.
    pub fn is_read_only(&self) -> bool {
        self.has("ro")
    }

    /// Whether this mount or its file system has this option.
    pub fn has(&self, option: &str) -> bool {
        self.options().any(|there| there == option)
    }

    /// The value of an option that has one.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.options()
            .find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
    }

    /// The uid that a FUSE file system was mounted by.
    pub fn owner(&self) -> Option<u32> {
        self.value("user_id")?.parse().ok()
    }

    /// The options of this mount, then those of the file system.
    fn options(&self) -> impl Iterator<Item = &str> {
        self.flags.split(',').chain(self.super_options.split(','))
    }
}

/// All mounts, in the order in which they were made.
pub fn all() -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// All mounts of the mount namespace of a process, below its root directory.
pub fn of(pid: u32) -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read(format!("/proc/{pid}/mountinfo"))?))
}

/// The mount that a canonical path lies on.
pub fn holding(path: &Path) -> io::Result<Option<Mount>> {
    let around = all()?.into_iter();
    let around = around.filter(|mount| path.starts_with(&mount.dir));
    // Of several on one directory, the last hides the others.
    Ok(around.max_by_key(|mount| mount.dir.components().count()))
}

/// The claimfs mounts that show the whole tree, without those that another mount hides.
pub fn ours() -> io::Result<Vec<Mount>> {
    let mut seen = HashSet::new();
    let mut mounts = all()?;
    mounts.reverse();
    mounts.retain(|mount| seen.insert(mount.dir.clone()));
    mounts.retain(|mount| mount.fs_type == FS_TYPE && mount.root == Path::new("/"));
    mounts.reverse();
    Ok(mounts)
}

/// The topmost mount on a directory.
pub fn on(dir: &Path) -> io::Result<Option<Mount>> {
    Ok(all()?.into_iter().rfind(|mount| mount.dir == dir))
}

/// Whether this process may not enter a directory that a mount is on, as is so with another user's
/// mount.
pub fn is_denied(dir: &Path) -> bool {
    let looked = fs::metadata(dir.join("."));
    looked.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// The mounts that a mountinfo file lists, line by line.
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

/// `ID PARENT MAJOR:MINOR ROOT DIR OPTIONS [TAG …] - TYPE SOURCE OPTIONS`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    Some(Mount {
        dir: unescape(fields.get(4)?),
        root: unescape(fields.get(3)?),
        device: String::from_utf8_lossy(fields.get(2)?).into_owned(),
        flags: String::from_utf8_lossy(fields.get(5)?).into_owned(),
        super_options: String::from_utf8_lossy(fields.get(dash + 3)?).into_owned(),
        fs_type: unescape(fields.get(dash + 1)?).to_str()?.to_owned(),
        source: unescape(fields.get(dash + 2)?),
    })
}

/// White space and backslashes come as three octal digits behind a backslash.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [byte, tail @ ..] = rest {
        let code = tail.get(..3).filter(|_| *byte == b'\\').and_then(octal);
        out.push(code.unwrap_or(*byte));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(out))
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::{Path, parse};

    #[test]
    fn a_line_with_tags_and_escapes_is_read() {
        let text = b"36 35 98:0 / /mnt/a\\040b\\134 rw,noatime shared:1 - fuse.claimfs /var/lib/x\\040y rw,user_id=0\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].dir, Path::new("/mnt/a b\\"));
        assert_eq!(mounts[0].source, Path::new("/var/lib/x y"));
        assert_eq!(mounts[0].fs_type, "fuse.claimfs");
        assert_eq!(mounts[0].owner(), Some(0));
        assert!(mounts[0].has("noatime") && !mounts[0].has("user_id"));
    }

    #[test]
    fn what_is_no_line_is_no_mount() {
        assert!(parse(b"\n1 2 3\n - \n1 2 3 4 5 6 -\n").is_empty());
    }
}
