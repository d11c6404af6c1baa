//! The claimfs mounts of this mount namespace, as `/proc/self/mountinfo` lists them (proc(5)).
//!
//! Does not know: how they come and go.

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
    /// Its number, which no other mount of the machine has.
    pub id: u64,
    /// The number of the mount that it is mounted on.
    pub parent: u64,
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
    let all = all()?;
    let around = all.iter().filter(|mount| path.starts_with(&mount.dir));
    let around = around.filter(|mount| hider(&all, mount).is_none());
    let nearest = around.max_by_key(|mount| mount.dir.components().count());
    Ok(nearest.cloned())
}

/// The claimfs mounts that show the whole tree, without those that another mount hides.
pub fn ours() -> io::Result<Vec<Mount>> {
    let all = all()?;
    let is_ours = |mount: &&Mount| mount.fs_type == FS_TYPE && mount.root == Path::new("/");
    let ours = all.iter().filter(is_ours);
    let ours = ours.filter(|mount| hider(&all, mount).is_none());
    Ok(ours.cloned().collect())
}

/// The topmost mount on a directory. `None` also if all of them are hidden by one above.
pub fn on(dir: &Path) -> io::Result<Option<Mount>> {
    let all = all()?;
    let mut there = all.iter().filter(|mount| mount.dir == dir);
    let topmost = there.find(|mount| hider(&all, mount).is_none());
    Ok(topmost.cloned())
}

/// The mount that hides another: one that was mounted later on its directory, or on one above it.
/// `None` if it can be reached by its path.
pub fn hider<'a>(all: &'a [Mount], mount: &Mount) -> Option<&'a Mount> {
    let mut below = vec![mount.id];
    let mut next = mount.parent;
    while let Some(there) = all.iter().find(|there| there.id == next) {
        if below.contains(&next) {
            break;
        }
        below.push(next);
        next = there.parent;
    }
    all.iter().find(|other| {
        mount.dir.starts_with(&other.dir)
            && below.contains(&other.parent)
            && !below.contains(&other.id)
    })
}

/// A claimfs on a directory that cannot be reached there, and the mount that hides it.
pub fn hidden_on(dir: &Path) -> io::Result<Option<(Mount, Mount)>> {
    let all = all()?;
    let hidden = all
        .iter()
        .filter(|mount| mount.dir == dir && mount.fs_type == FS_TYPE)
        .find_map(|mount| Some((mount.clone(), hider(&all, mount)?.clone())));
    Ok(hidden)
}

/// One of several mounts of the same file system, as binds of it are: that on a preferred
/// directory, else that with the shortest path.
pub fn distinct(mounts: &[Mount], preferred: &[PathBuf]) -> Vec<Mount> {
    let rank = |mount: &Mount| {
        let dir = mount.dir.as_os_str();
        (!preferred.contains(&mount.dir), dir.len(), dir.to_owned())
    };
    let is_first = |mount: &&Mount| {
        let mut same = mounts.iter().filter(|same| same.device == mount.device);
        same.all(|same| rank(mount) <= rank(same))
    };
    mounts.iter().filter(is_first).cloned().collect()
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
    let number = |at: usize| std::str::from_utf8(fields.get(at)?).ok()?.parse().ok();
    Some(Mount {
        id: number(0)?,
        parent: number(1)?,
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
    use super::{Mount, Path, PathBuf, distinct, hider, parse};

    #[test]
    fn a_line_with_tags_and_escapes_is_read() {
        let text = b"36 35 98:0 / /mnt/a\\040b\\134 rw,noatime shared:1 - fuse.claimfs /var/lib/x\\040y rw,user_id=0\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 1);
        assert_eq!((mounts[0].id, mounts[0].parent), (36, 35));
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

    /// A mount with these numbers on this directory, of a file system of the same number as it.
    fn line(id: u64, parent: u64, dir: &str) -> Mount {
        let text = format!("{id} {parent} 0:{id} / {dir} rw - tmpfs tmpfs rw");
        parse(text.as_bytes()).remove(0)
    }

    #[test]
    fn a_mount_is_hidden_by_a_later_one_on_its_directory_or_above_and_by_no_other() {
        let all = [
            line(1, 0, "/"),
            line(2, 1, "/run"),
            line(3, 2, "/run/claims"),
            line(4, 1, "/runner"),
            line(5, 3, "/run/claims/claims/x"),
        ];
        for mount in &all {
            assert_eq!(hider(&all, mount), None, "{mount:?}");
        }
        let by = |later: Mount| {
            let all: Vec<Mount> = all.iter().cloned().chain([later]).collect();
            let hidden = all.iter().filter(|mount| hider(&all, mount).is_some());
            hidden.map(|mount| mount.id).collect::<Vec<u64>>()
        };
        assert_eq!(by(line(9, 3, "/run/claims")), [3, 5]);
        assert_eq!(by(line(9, 2, "/run")), [2, 3, 5]);
        assert_eq!(by(line(9, 1, "/")), [1, 2, 3, 4, 5]);
        assert_eq!(by(line(9, 1, "/srv")), [0; 0]);
        // A circle of numbers, which the kernel does not write, is no endless loop.
        assert_eq!(
            hider(&[line(1, 2, "/"), line(2, 1, "/")], &line(1, 2, "/")),
            None
        );
    }

    #[test]
    fn of_the_mounts_of_one_file_system_one_counts() {
        let bound = |id, dir| Mount {
            device: String::from("0:7"),
            ..line(id, 0, dir)
        };
        let mounts = [
            bound(1, "/long/way"),
            bound(2, "/way"),
            line(3, 0, "/z"),
            bound(4, "/zzz"),
        ];
        let dirs = |preferred: &[PathBuf]| -> Vec<PathBuf> {
            let distinct = distinct(&mounts, preferred);
            distinct.into_iter().map(|mount| mount.dir).collect()
        };
        assert_eq!(dirs(&[]), [Path::new("/way"), Path::new("/z")]);
        let preferred = dirs(&[PathBuf::from("/long/way")]);
        assert_eq!(preferred, [Path::new("/long/way"), Path::new("/z")]);
    }
}
