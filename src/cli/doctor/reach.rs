//! Which mounts the caller can use, and why the others cannot be used: they are hidden, of another
//! user, in another mount namespace, or not where `$CLAIMFS_MOUNT` says.
//!
//! Does not check: whether a mount works, which `doctor.rs` does.

use std::fs;
use std::path::Path;

use super::{Report, check_mount, layer};
use crate::cli::tool;
use crate::mount::default_mount::counts;
use crate::mount::state_dir::{Lock, StateDir};
use crate::mount::{holder, resolve_existing};
use crate::sys::mountinfo::{self, FS_TYPE, Mount};

/// Checks each of these mounts. Whether the caller can use one of them. `named` is the directory
/// that the caller has named, if any.
pub(super) fn check_mounts(
    report: &mut Report,
    all: &[Mount],
    ours: &[&Mount],
    named: Option<&Path>,
) -> bool {
    let is_named = |mount: &Mount| named.is_some_and(|dir| mount.dir == *dir);
    let mut usable = Vec::new();
    let (mut hidden, mut denied, mut foreign) = (Vec::new(), Vec::new(), Vec::new());
    for mount in ours {
        if let Some(hider) = mountinfo::hider(all, mount) {
            hidden.push((mount, hider));
            continue;
        }
        match check_mount(report, mount) {
            None => denied.push(mount),
            Some(true) if !counts(mount) && !is_named(mount) => foreign.push(mount),
            Some(true) => usable.push(mount),
            Some(false) => {}
        }
    }
    // A mount out of reach does no harm if there is another, and is a fault if there is none.
    let mut find = |is_fault: bool, text: &str| {
        if is_fault {
            report.bad("mount", text);
        } else {
            report.note("mount", text);
        }
    };
    let is_none = usable.is_empty();
    for (mount, hider) in hidden {
        let is_same = |other: &&&Mount| other.device == mount.device;
        // A new mount over a dead one.
        if hider.fs_type == FS_TYPE && hider.dir == mount.dir {
            continue;
        }
        let is_fault = is_named(mount) || !usable.iter().any(is_same);
        find(is_fault, &tool::hidden_by(mount, hider));
    }
    for mount in denied {
        find(is_none, &tool::denied(mount));
    }
    for mount in foreign {
        find(is_none, &foreign_sentence(mount));
    }
    !is_none
}

fn foreign_sentence(mount: &Mount) -> String {
    format!(
        "{}: the mount of uid {}, which root uses only if it is named: its server could tell root that a name is free, or held; \
         mount one of root's own with 'claimfs mount'",
        mount.dir.display(),
        mount.owner().unwrap_or_default()
    )
}

/// Checks that `$CLAIMFS_MOUNT` names a mount. A layer over it is a finding of its own.
pub(super) fn check_variable(report: &mut Report, dir: &Path) {
    let resolved = resolve_existing(dir).unwrap_or_else(|_| dir.to_owned());
    let there = mountinfo::on(&resolved).ok().flatten();
    let is_whole = |mount: &Mount| mount.fs_type == FS_TYPE && mount.root == Path::new("/");
    if layer::around(&resolved).is_some() {
        return;
    }
    if there.as_ref().is_some_and(is_whole) {
        let text = format!(
            "CLAIMFS_MOUNT={}: commands use this mount alone",
            dir.display()
        );
        report.ok("variable", &text);
    } else {
        let text = format!("CLAIMFS_MOUNT={}", tool::no_mount(dir));
        report.bad("variable", &text);
    }
}

/// Names the mounts that other mount namespaces have and this one lacks, where it has none that can
/// be used.
pub(super) fn check_namespaces(report: &mut Report, all: &[Mount]) {
    for (who, mount) in holder::in_other_namespaces(all) {
        let (dir, pid) = (mount.dir.display(), who.pid);
        report.note(
            "namespace",
            &format!(
                "{dir}: a claimfs is mounted here in another mount namespace, that of {who}, and so not for you; mount it outside of \
                 that namespace (a service without PrivateTmp= and the like), or enter it with 'nsenter --target {pid} --mount'"
            ),
        );
    }
}

/// Looks for what is mounted over a part of a mount: files that are created there are no claims.
pub(super) fn check_parts(report: &mut Report, mount: &Mount) {
    let all = mountinfo::all().unwrap_or_default();
    let is_over = |over: &&Mount| over.dir != mount.dir && over.dir.starts_with(&mount.dir);
    for over in all.iter().filter(is_over) {
        report.bad("mount", &format!(
            "{0}: {1} is mounted over a part of the claimfs on {2}, so files that are created there are no claims; \
             unmount it with 'umount {0}'",
            over.dir.display(),
            over.fs_type,
            mount.dir.display()
        ));
    }
}

/// The message for a mount that does not answer.
pub(super) fn silent(mount: &Mount) -> String {
    let dir = mount.dir.display();
    let state_dir = StateDir::of(mount);
    let locks = [Lock::Server, Lock::Supervisor].map(|lock| state_dir.lock(lock));
    let stopped = locks.iter().filter_map(|lock| holder::of(lock));
    let mut stopped = stopped.map(|holder| holder.who).filter(|who| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", who.pid)).unwrap_or_default();
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        state.is_some_and(|state| state.starts_with(['T', 't']))
    });
    match stopped.next() {
        Some(who) => format!(
            "{dir}: does not answer, as {who}, which serves it, is stopped; let it go on with 'kill -CONT {}'",
            who.pid
        ),
        None => format!(
            "{dir}: does not answer; 'umount -f {dir} || umount -l {dir}', and then {}",
            tool::again(mount)
        ),
    }
}
