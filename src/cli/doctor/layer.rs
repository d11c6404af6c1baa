//! File systems over a mount, or between it and its callers. They show its files but are not
//! claimfs.
//!
//! Does not check: mounts of claimfs itself, which `doctor.rs` does.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::probe;
use crate::mount::default_mount::OF_ROOT;
use crate::sys::mountinfo::{self, FS_TYPE, Mount};

/// Printed for a directory that has the files of a mount.
pub(super) const TREE: &str = "tree";

/// The effect of a file system on a mount that it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// New files go to a layer of its own.
    Overlay,
    /// A daemon of this system makes the calls.
    Daemon,
    /// Another system makes the calls.
    Remote,
    /// It only has files of the same names.
    Copy,
}

fn kind(fs_type: &str) -> Kind {
    match fs_type {
        "overlay" | "overlayfs" | "aufs" | "unionfs" | "fuse.fuse-overlayfs" | "fuse.unionfs" => {
            Kind::Overlay
        }
        "nfs" | "nfs4" | "9p" | "virtiofs" | "cifs" | "smb3" | "smbfs" | "ceph" | "afs"
        | "vboxsf" | "prl_fs" | "fakeowner" | "fuse.sshfs" | "fuse.grpcfuse" | "fuse.glusterfs" => {
            Kind::Remote
        }
        fuse if fuse.starts_with("fuse") => Kind::Daemon,
        _ => Kind::Copy,
    }
}

/// A directory that shows a mount, and the file system that it is really on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layer {
    root: PathBuf,
    mount: Mount,
}

impl Layer {
    /// The problem and the remedy.
    pub(super) fn sentence(&self) -> String {
        let (root, fs_type) = (self.root.display(), &self.mount.fs_type);
        let bind = "bind the mount itself instead ('mount --bind', 'bwrap --bind', 'docker -v'), and lay nothing over it";
        match kind(fs_type) {
            Kind::Overlay => format!(
                "{root}: {fs_type} lies over a claimfs: what is created here is in a layer of its own, is no claim, and keeps nobody out; {bind}"
            ),
            Kind::Daemon => format!(
                "{root}: {fs_type} (as bindfs makes it, of {}) shows a claimfs, which sees a daemon in place of all who call here: nobody \
                 is kept out, and no claim ends with its holder; {bind}",
                self.mount.source.display()
            ),
            Kind::Remote => format!(
                "{root}: {fs_type} shows a claimfs of another system, which does not see who calls here: nobody is kept out, and no claim \
                 ends with its holder; claim on that system, or mount one of this system's own"
            ),
            Kind::Copy => format!(
                "{root}: has the files of a claimfs, but is {fs_type}, perhaps a copy: what is created here is no claim, and keeps nobody \
                 out; {bind}"
            ),
        }
    }
}

/// The file system that shows a mount at a place, or above it.
pub(super) fn around(place: &Path) -> Option<Layer> {
    let mount = mountinfo::holding(place).ok()??;
    let inside = place
        .ancestors()
        .take_while(|above| above.starts_with(&mount.dir));
    let inside: Vec<PathBuf> = inside.map(Path::to_owned).collect();
    shown(&mount, &inside)
}

/// All mounted file systems that show a mount.
pub(super) fn seen() -> Vec<Layer> {
    let all = mountinfo::all().unwrap_or_default();
    let claimed: Vec<&Path> = all
        .iter()
        .filter(|mount| mount.fs_type == FS_TYPE)
        .map(|mount| &*mount.dir)
        .chain([Path::new(OF_ROOT)])
        .collect();
    let mut seen = HashSet::new();
    let others = all.iter().rev().filter(|mount| seen.insert(&mount.dir));
    let others =
        others.filter(|mount| mount.fs_type != FS_TYPE && kind(&mount.fs_type) != Kind::Copy);
    let mut layers: Vec<Layer> = others
        .filter_map(|mount| {
            let mut places = vec![mount.dir.clone()];
            for dir in &claimed {
                let below = [Path::new("/"), &mount.source].map(|base| dir.strip_prefix(base));
                places.extend(below.into_iter().flatten().map(|part| mount.dir.join(part)));
            }
            shown(mount, &places)
        })
        .collect();
    layers.reverse();
    layers
}

/// The first of these places that shows a claimfs, unless `mount`, which has all of them, is one.
fn shown(mount: &Mount, places: &[PathBuf]) -> Option<Layer> {
    if mount.fs_type == FS_TYPE {
        return None;
    }
    let layer = |root: PathBuf| Layer {
        root,
        mount: mount.clone(),
    };
    // The directories that it is made of, if it names them.
    let parts = mount.super_options.split(',');
    let parts = parts.filter_map(|option| {
        option
            .strip_prefix("lowerdir")?
            .trim_start_matches('+')
            .strip_prefix('=')
    });
    let parts = parts.flat_map(|lower| lower.split(':')).map(PathBuf::from);
    let mut parts = parts
        .chain([mount.source.clone()])
        .filter(|part| part.is_absolute());
    if kind(&mount.fs_type) != Kind::Copy && parts.any(|part| is_claimfs(&part)) {
        return Some(layer(mount.dir.clone()));
    }
    // Skip places on file systems that are mounted further below.
    let is_its = |place: &&PathBuf| {
        mountinfo::holding(place)
            .ok()
            .flatten()
            .is_some_and(|there| there.dir == mount.dir)
    };
    let places: Vec<&PathBuf> = places.iter().filter(is_its).collect();
    let found = probe(
        ["--tree"]
            .iter()
            .map(AsRef::as_ref)
            .chain(places.iter().map(|place| place.as_os_str())),
    )?;
    let root = found
        .trim()
        .strip_prefix(TREE)?
        .trim()
        .parse::<usize>()
        .ok()?;
    Some(layer((*places.get(root)?).clone()))
}

/// Whether a path leads into a claimfs, perhaps through symbolic links such as `/var/run`. Nothing
/// in a claimfs is looked at, whose server may not answer.
fn is_claimfs(path: &Path) -> bool {
    let mut real = PathBuf::from("/");
    for component in path.components() {
        real.push(component);
        let there = mountinfo::holding(&real).ok().flatten();
        if there.is_some_and(|there| there.fs_type == FS_TYPE) {
            return true;
        }
        real = fs::canonicalize(&real).unwrap_or(real);
    }
    false
}

/// True if a directory has the files of a mount.
pub(super) fn is_tree(dir: &Path) -> bool {
    let has = |name: &str| dir.join(name).symlink_metadata().ok();
    has("claims").is_some_and(|there| there.is_dir())
        && ["leases", "self", "control"]
            .iter()
            .all(|name| has(name).is_some_and(|there| there.is_file()))
}

pub(super) fn here() -> Option<PathBuf> {
    env::current_dir().ok()
}
