//! mount(2) and umount2(2).

use std::ffi::CStr;
use std::io;
use std::path::Path;

use rustix::mount::{self, UnmountFlags};

pub(crate) use rustix::mount::MountFlags;

/// Mounts a file system of this type on a directory.
pub(crate) fn mount(
    dir: &Path,
    source: &Path,
    fs_type: &str,
    flags: MountFlags,
    data: &CStr,
) -> io::Result<()> {
    Ok(mount::mount(source, dir, fs_type, flags, data)?)
}

/// Changes the flags of the mount on a directory.
pub(crate) fn remount(dir: &Path, flags: MountFlags) -> io::Result<()> {
    Ok(mount::mount_remount(dir, flags, c"")?)
}

/// Unmounts a directory, which is not followed if it is a symlink. `lazy` also if it is in use.
pub(crate) fn unmount(dir: &Path, lazy: bool) -> io::Result<()> {
    let mut flags = UnmountFlags::NOFOLLOW;
    flags.set(UnmountFlags::DETACH, lazy);
    Ok(mount::unmount(dir, flags)?)
}
