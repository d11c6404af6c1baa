//! `claimfs hook pre-commit`: refuses a commit of files that another has reserved.
//!
//! To git any exit code but 0 is a refusal, so failures are said and end with 0.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::answer::Answer;
use super::edit::held;
use super::{Trouble, find, is_required, within_limit};
use crate::cli::covering::is_own;
use crate::cli::real_path::{self, path_map};
use crate::core::printable;

/// The exit code of a refusal.
const REFUSED: u8 = 1;

/// So many files are named.
const NAMED: usize = 20;

pub(super) fn run(mount: Option<&Path>) -> Answer {
    let required = is_required().then_some(REFUSED);
    let staged = match staged() {
        Ok(staged) => staged,
        Err(why) => return Answer::coded(required.unwrap_or(0), why),
    };
    within_limit(required, 0, || check(mount, &staged))
}

/// The staged files, absolute. A renamed file counts by both of its names.
fn staged() -> Result<Vec<PathBuf>, String> {
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let top = top.strip_suffix(b"\n").unwrap_or(&top);
    let top = Path::new(OsStr::from_bytes(top));
    let names = git(&["diff", "--cached", "--name-only", "--no-renames", "-z"])?;
    let names = names.split(|byte| *byte == 0);
    let names = names.filter(|name| !name.is_empty());
    Ok(names
        .map(|name| top.join(OsStr::from_bytes(name)))
        .collect())
}

fn git(words: &[&str]) -> Result<Vec<u8>, String> {
    let mut git = Command::new("git");
    let output = git.args(words).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("git: {error}"))?;
    if !output.status.success() {
        return Err(format!("'git {}' failed", words.join(" ")));
    }
    Ok(output.stdout)
}

fn check(named: Option<&Path>, staged: &[PathBuf]) -> Result<Answer, Trouble> {
    if staged.is_empty() {
        return Ok(Answer::silence());
    }
    let mount = find::mount(named)?;
    let me = mount.whoami()?;
    let others = mount.leases()?.into_iter();
    let others = others.filter(|record| !is_own(&me, record));
    let others: HashMap<String, Value> = others
        .filter_map(|record| Some((record["name"].as_str()?.to_owned(), record)))
        .filter(|(name, _)| name.starts_with("paths/"))
        .collect();
    if others.is_empty() {
        return Ok(Answer::silence());
    }
    let mut lines = Vec::new();
    let mut dirs = HashMap::new();
    let map = path_map().map_err(Trouble::Input)?;
    for path in staged {
        let resolved = beside(&mut dirs, path);
        // A path that cannot be reserved is nobody's.
        let Ok(name) = real_path::name(&map, path, &resolved) else {
            continue;
        };
        let covering = std::iter::once(name.as_str()).chain(name.above());
        let mut found = covering.filter_map(|by| others.get(by));
        if let Some(record) = found.next() {
            let path = printable(&path.to_string_lossy());
            lines.push(format!("{path}: {}", held(&name, record)));
        }
    }
    Ok(refusal(lines))
}

/// The path of a file itself, also if that is a symlink, in its real directory.
fn beside(dirs: &mut HashMap<PathBuf, PathBuf>, path: &Path) -> PathBuf {
    let (Some(dir), Some(file)) = (path.parent(), path.file_name()) else {
        return path.to_owned();
    };
    let real = dirs.entry(dir.to_owned()).or_insert_with(|| {
        let resolved = fs::canonicalize(dir).ok();
        resolved
            .or_else(|| real_path::resolved(dir).ok())
            .unwrap_or_else(|| dir.to_owned())
    });
    real.join(file)
}

fn refusal(mut lines: Vec<String>) -> Answer {
    if lines.is_empty() {
        return Answer::silence();
    }
    let count = lines.len();
    lines.truncate(NAMED);
    if count > NAMED {
        lines.push(format!("and {} more", count - NAMED));
    }
    lines.push(String::from(
        "the commit is refused, as others have these staged files reserved: unstage them, or wait with \
         'claimfs reserve --wait PATH'",
    ));
    Answer::coded(REFUSED, lines.join("\n"))
}
