//! The mount of a hook: as every verb finds it, but that there is none is no failure.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::{env, io};

use super::{Failure, Trouble};
use crate::cli::tool::{self, Mount};
use crate::mount::resolve_existing;
use crate::sys::mountinfo::{self, FS_TYPE};

pub(super) fn mount(named: Option<&Path>) -> Result<Mount, Trouble> {
    let variable = || {
        let dir = env::var_os("CLAIMFS_MOUNT").filter(|dir| !dir.is_empty());
        dir.map(PathBuf::from)
    };
    match named.map(Path::to_path_buf).or_else(variable) {
        Some(dir) => at(&dir),
        None => any(),
    }
}

fn at(dir: &Path) -> Result<Mount, Trouble> {
    // An open reaches the server; an attribute may still be in the kernel.
    match File::open(dir.join("self")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_ours(dir) => {
            Err(Trouble::NoMount(Some(dir.to_owned())))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => Err(dead(dir).into()),
        _ => Ok(Mount::find(Some(dir))?),
    }
}

/// The only mount that this user can use.
fn any() -> Result<Mount, Trouble> {
    let mounts = mountinfo::ours()
        .map_err(|error| Failure::unavailable(format!("/proc/self/mountinfo: {error}")))?;
    let found = match mounts.as_slice() {
        [] => return Err(Trouble::NoMount(None)),
        [only] => at(&only.dir),
        _ => Mount::find(None).map_err(Trouble::from),
    };
    found.map_err(|trouble| {
        let is_others = mounts.iter().all(|mount| mountinfo::is_denied(&mount.dir));
        if is_others {
            Trouble::NoMount(None)
        } else {
            trouble
        }
    })
}

fn dead(dir: &Path) -> Failure {
    let shown = dir.display();
    let around = mountinfo::holding(&resolve_existing(dir).unwrap_or_else(|_| dir.to_owned()));
    let again = around.ok().flatten().map_or_else(
        || format!("mount it again with 'claimfs mount {shown}'"),
        |mount| tool::again(&mount),
    );
    Failure::unavailable(format!(
        "{shown}: the server of this mount is gone; {again}"
    ))
}

/// True if a directory is one of a claimfs, or of a part of one.
fn is_ours(dir: &Path) -> bool {
    let resolved = resolve_existing(dir).unwrap_or_else(|_| dir.to_owned());
    let around = mountinfo::holding(&resolved).ok().flatten();
    around.is_some_and(|mount| mount.fs_type == FS_TYPE)
}
