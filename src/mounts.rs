//! The claimfs mounts of this mount namespace, as `/proc/self/mountinfo` lists them (proc(5)).
//!
//! Deliberately ignorant of: how they come and go.

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
    /// Where.
    pub dir: PathBuf,
    /// What part of the file system: `/` unless it is a bind mount of a part.
    pub root: PathBuf,
    /// The number of its device, as `MAJOR:MINOR`.
    pub device: String,
    /// Its options, separated by commas: those of this mount, then those of the file system.
    pub options: String,
    /// The file system type.
    pub fs_type: String,
    /// The source: for claimfs, its state directory.
    pub source: PathBuf,
}

impl Mount {
    /// Nothing is written here: the mount itself, or this bind of it, is read-only.
    pub fn is_read_only(&self) -> bool {
        self.options.split(',').any(|option| option == "ro")
    }
}

/// All mounts, in the order in which they were made.
pub fn all() -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// The claimfs mounts that show the whole tree.
pub fn ours() -> io::Result<Vec<Mount>> {
    let whole = |mount: &Mount| mount.fs_type == FS_TYPE && mount.root == Path::new("/");
    Ok(all()?.into_iter().filter(whole).collect())
}

/// The topmost mount on a directory.
pub fn on(dir: &Path) -> io::Result<Option<Mount>> {
    Ok(all()?.into_iter().rfind(|mount| mount.dir == dir))
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
        options: format!(
            "{},{}",
            String::from_utf8_lossy(fields.get(5)?),
            String::from_utf8_lossy(fields.get(dash + 3)?)
        ),
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
    }

    #[test]
    fn what_is_no_line_is_no_mount() {
        assert!(parse(b"\n1 2 3\n - \n1 2 3 4 5 6 -\n").is_empty());
    }
}
