//! The state directory of a mount, as far as it is in sight.
//!
//! Does not check: who may write to it, which mounting does.

use super::Report;
use crate::mount::holder;
use crate::mount::state_dir::{Room, StateDir};
use crate::sys::mountinfo::Mount;

/// Checks that the state directory is there, and that its disk has room.
pub(super) fn check(report: &mut Report, mount: &Mount) {
    let dir = mount.dir.display();
    let state_dir = StateDir::of(mount);
    let shown = state_dir.path().display();
    if let Some(who) = holder::has_lost_files(mount, &state_dir) {
        report.bad("state", &format!(
            "{dir}: its state directory {shown} was removed below its server ({who}): when that ends, nobody knows any more \
             who holds what, also at an upgrade; have the holders release what 'claimfs ls' shows, then run 'claimfs umount {dir}' \
             and 'claimfs mount {dir}'"
        ));
        return;
    }
    match state_dir.room() {
        Room::Enough => {}
        Room::Little(bytes) => report.note("state", &format!(
            "{shown}: only {} MiB are free on this disk, so the mount's 'history' stays in memory, and may lack events once its server \
             has ended; make room",
            bytes / (1 << 20)
        )),
        Room::None => report.bad("state", &format!(
            "{shown}: the disk is full: new claims on {dir} are refused (ENOSPC), or will be soon, while releases still work; make room"
        )),
    }
}
