//! Files: room on the disk (fallocate(2)), the mode of new ones (umask(2)), and which is which.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, Mode, fallocate};
use rustix::io::retry_on_intr;

/// Sets room on the disk aside for a file, whose size stays as it is. EOPNOTSUPP where the file
/// system cannot.
pub(crate) fn allocate(file: &File, from: u64, length: u64) -> io::Result<()> {
    let kept = FallocateFlags::KEEP_SIZE;
    Ok(retry_on_intr(|| fallocate(file, kept, from, length))?)
}

/// With less room than this on a disk, in bytes, only what must be is written there.
pub(crate) const ROOM_MIN: u64 = 64 << 20;

/// Whether the disk of a directory has room to spare.
pub(crate) fn has_room_to_spare(dir: &Path) -> bool {
    rustix::fs::statvfs(dir)
        .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= ROOM_MIN)
}

/// Whether an open file is the one at a path.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let identity = |there: fs::Metadata| (there.dev(), there.ino());
    let there = fs::symlink_metadata(path).map(identity);
    there.is_ok_and(|there| file.metadata().map(identity).is_ok_and(|it| it == there))
}

/// Makes the files that this process and its children create accessible to their user alone.
pub(crate) fn keep_private() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}
