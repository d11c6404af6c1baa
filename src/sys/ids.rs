//! The user and group ids of this process (credentials(7)).

use std::fs;

use rustix::process::{geteuid, getgid, getuid};

/// `/proc/self/uid_map` outside of all user namespaces (`user_namespaces(7)`).
const ALL_UIDS: [&str; 3] = ["0", "0", "4294967295"];

/// The uid that this process acts as: files that it creates get it.
pub(crate) fn effective_uid() -> u32 {
    geteuid().as_raw()
}

/// The real uid and gid of this process: its mounts belong to them.
pub(crate) fn real_ids() -> (u32, u32) {
    (getuid().as_raw(), getgid().as_raw())
}

/// Whether this process is root of the machine, and not only of a user namespace.
pub(crate) fn is_root() -> bool {
    let map = || fs::read_to_string("/proc/self/uid_map");
    effective_uid() == 0 && map().is_ok_and(|map| map.split_whitespace().eq(ALL_UIDS))
}
