//! The state directory of a mount, as far as it is in sight.
//!
//! Does not check: who may write to it, which mounting does.

use std::thread;
use std::time::Duration;

use super::Report;
use crate::mount::holder;
use crate::mount::state_dir::{Room, StateDir};
use crate::sys::mountinfo::Mount;

/// How long a server has to write again what was removed.
const MENDING: Duration = Duration::from_millis(300);

/// Checks that the state directory is there, and that its disk has room.
pub(super) fn check(report: &mut Report, mount: &Mount) {
    let dir = mount.dir.display();
    let state_dir = StateDir::of(mount);
    let shown = state_dir.path().display();
    let lost = || holder::has_lost_files(mount, &state_dir);
    // The server writes again what was removed, if it can.
    let is_lost = lost().is_some() && {
        thread::sleep(MENDING);
        true
    };
    if let Some(who) = is_lost.then(lost).flatten() {
        report.bad("state", &format!(
            "{dir}: its state directory {shown} was removed, and its server ({who}) cannot write it again, as its log says: should \
             it end, the mount ends, and nobody knows who holds what; put a directory there that is the server's user's alone \
             ('mkdir -m 700 {shown}'), and it is filled within a second"
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
