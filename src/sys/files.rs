//! Files: room on the disk (fallocate(2)), and the mode of new ones (umask(2)).

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, Mode, fallocate};
use rustix::io::retry_on_intr;

/// Sets room on the disk aside for a file, whose size stays as it is. EOPNOTSUPP where the file
/// system cannot.
pub(crate) fn allocate(file: &File, from: u64, length: u64) -> io::Result<()> {
    let kept = FallocateFlags::KEEP_SIZE;
    Ok(retry_on_intr(|| fallocate(file, kept, from, length))?)
}

/// Makes the files that this process and its children create accessible to their user alone.
pub(crate) fn keep_private() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}
