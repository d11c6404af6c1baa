//! The user and group ids of this process (credentials(7)).

use rustix::process::{geteuid, getgid, getuid};

/// The uid that this process acts as: files that it creates get it.
pub(crate) fn effective_uid() -> u32 {
    geteuid().as_raw()
}

/// The real uid and gid of this process: its mounts belong to them.
pub(crate) fn real_ids() -> (u32, u32) {
    (getuid().as_raw(), getgid().as_raw())
}
