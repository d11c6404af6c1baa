//! Real paths as names of reservations: absolute, with symlinks resolved as far as they exist, and
//! as those see them with whom they are shared.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use super::Failure;
use crate::core::{Name, PATH_BYTES_MAX, PATH_LEVELS_MAX, PathMap, Refusal, printable};

/// Translates paths that a sandbox sees into those of all others: `SEEN=SHARED`, several divided by
/// `:`.
pub(super) const PATH_MAP: &str = "CLAIMFS_PATH_MAP";

/// The map in the environment, which is empty unless it is set.
pub(super) fn path_map() -> Result<PathMap, Failure> {
    let text = std::env::var_os(PATH_MAP).unwrap_or_default();
    PathMap::parse(text.as_bytes()).map_err(|why| {
        Failure::usage(format!(
            "{PATH_MAP}: {why}; write it like /work=/home/me/app, several divided by ':'"
        ))
    })
}

/// The names of reservations of real paths.
pub(super) fn names(paths: &[PathBuf]) -> Result<Vec<Name>, Failure> {
    let map = path_map()?;
    let names = paths.iter().map(|path| name(&map, path, &resolved(path)?));
    names.collect()
}

/// The name of the reservation of a resolved path. `path` is what the message calls it.
pub(super) fn name(map: &PathMap, path: &Path, resolved: &Path) -> Result<Name, Failure> {
    let shown = printable(&path.to_string_lossy());
    let path = translated(map, resolved);
    Name::path(path.as_os_str().as_bytes()).map_err(|refusal| {
        Failure::usage(match refusal {
            Refusal::LongName => format!(
                "'{shown}': too long; a path has at most {PATH_BYTES_MAX} bytes, {PATH_LEVELS_MAX} levels, and 255 bytes in each"
            ),
            _ if path == Path::new("/") => {
                format!("'{shown}': everything; reserve a directory in it")
            }
            _ => format!("'{shown}': no path in UTF-8; rename it, or reserve the directory above"),
        })
    })
}

/// A path, as all others have it.
pub(super) fn translated(map: &PathMap, path: &Path) -> PathBuf {
    let shared = map.translate(path.as_os_str().as_bytes());
    shared.map_or_else(
        || path.to_path_buf(),
        |path| OsString::from_vec(path).into(),
    )
}

/// The most symlinks to nothing that are followed, as the kernel does (`MAXSYMLINKS`).
const LINKS_MAX: usize = 40;

/// An absolute path, with symlinks resolved as far as it exists, and also those that lead to what
/// is not there yet.
pub(super) fn resolved(path: &Path) -> Result<PathBuf, Failure> {
    let shown = printable(&path.to_string_lossy());
    let mut absolute = std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("'{shown}': no path: {error}")))?;
    for _ in 0..LINKS_MAX {
        match followed(&absolute, &shown)? {
            Followed::Real(path) => return Ok(path),
            Followed::Link(path) => absolute = path,
        }
    }
    Err(Failure::usage(format!(
        "'{shown}': too many symlinks; name the file that they lead to"
    )))
}

enum Followed {
    /// The path, resolved.
    Real(PathBuf),
    /// The path without its first symlink to nothing.
    Link(PathBuf),
}

fn followed(absolute: &Path, shown: &str) -> Result<Followed, Failure> {
    let mut rest: Vec<&OsStr> = Vec::new();
    let mut there = absolute;
    loop {
        let on = |path: PathBuf| rest.iter().rev().fold(path, |path, part| path.join(part));
        if let Ok(real) = fs::canonicalize(there) {
            return Ok(Followed::Real(on(real)));
        }
        if let Ok(target) = fs::read_link(there) {
            let dir = there.parent().unwrap_or(Path::new("/"));
            return Ok(Followed::Link(on(dir.join(target))));
        }
        let Some(Component::Normal(last)) = there.components().next_back() else {
            return Err(Failure::usage(format!(
                "'{shown}': leads up from a directory that does not exist; write it without '..'"
            )));
        };
        rest.push(last);
        there = there.parent().unwrap_or(Path::new("/"));
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::resolved;

    #[test]
    fn paths_are_resolved_as_far_as_they_exist() {
        let resolve = |path: &str| resolved(Path::new(path)).ok();
        assert_eq!(
            resolve("/proc/self/../../no such/file"),
            Some(PathBuf::from("/no such/file"))
        );
        assert_eq!(resolve("/no such/../file"), None);
        let here = std::env::current_dir().unwrap();
        assert_eq!(resolve("./no such"), Some(here.join("no such")));
        let dir = std::env::temp_dir().join(format!("claimfs-links-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, dir.join(name)).unwrap();
        link("new/file", "first");
        link("first", "second");
        link("third", "third");
        let real = std::fs::canonicalize(&dir).unwrap();
        let follow = |name: &str| resolved(&dir.join(name)).ok();
        let found = [follow("second"), follow("first/x"), follow("third")];
        std::fs::remove_dir_all(&dir).unwrap();
        let file = real.join("new/file");
        assert_eq!(found, [Some(file.clone()), Some(file.join("x")), None]);
    }
}
