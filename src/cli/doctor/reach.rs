//! Which mounts the caller can use, and why the others cannot be used: they are hidden, of another
//! user, in another mount namespace, or not where `$CLAIMFS_MOUNT` says.
//!
//! Does not check: whether a mount works, which `doctor.rs` does.

use std::path::Path;

use super::{Report, check_mount, layer};
use crate::cli::tool;
use crate::mount::default_mount::counts;
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
