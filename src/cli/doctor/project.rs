//! The project of the working directory: whether its path is the same for all.

use std::env;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Report;
use crate::cli::real_path::{PATH_MAP, path_map};
use crate::sys::mountinfo::{self, FS_TYPE};

/// Notes if the project is a mount point, as a folder is that a sandbox or a container sees at
/// another path than its host, and says if the map of paths does not parse.
pub(super) fn check(report: &mut Report) {
    let map = match path_map() {
        Ok(map) => map,
        Err(failure) => return report.bad("paths", &failure.text),
    };
    let Ok(cwd) = env::current_dir() else { return };
    let is_top = |dir: &&Path| dir.join(".git").exists();
    let project = cwd.ancestors().find(is_top).unwrap_or(&cwd);
    let is_mapped = map.translate(project.as_os_str().as_bytes()).is_some();
    // A claimfs is nobody's project.
    let there = mountinfo::on(project).ok().flatten();
    let is_mounted = there.is_some_and(|mount| mount.fs_type != FS_TYPE);
    if project == Path::new("/") || is_mapped || !is_mounted {
        return;
    }
    let shown = project.display();
    report.note("paths", &format!(
        "{shown}: a mount point, so others may see this folder at another path, and 'claimfs reserve' compares paths: \
         if so, set {PATH_MAP}={shown}=PATH, with the path that they see"
    ));
}
