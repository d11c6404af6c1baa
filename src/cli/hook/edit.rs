//! An agent's event: reserves the files of an edit, and gives them back.
//!
//! A reservation of a hook is known by its reason, which is all the state there is.

use std::env;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

use super::answer::Answer;
use super::{Errand, Failure, REFUSED, Trouble, find};
use crate::cli::claim::identity;
use crate::cli::covering::{Obstacle, is_own, obstacles, shown};
use crate::cli::real_path::{self, path_map};
use crate::cli::reserve::{self, ATTEMPTS, PARTS, listed};
use crate::cli::tool::{self, Mount};
use crate::core::hook::{Asked, Files, REASON, is_of_git, is_within, quoted};
use crate::core::{Name, PathMap, printable};

/// The most paths in a line of `control`, far below its bounds in number and in bytes.
const LINE_PATHS: usize = 12;

/// The directory that an agent was started for, in the environment of its hooks.
const PROJECT: &str = "CLAUDE_PROJECT_DIR";

pub(super) fn answer(
    named: Option<&Path>,
    asked: &Asked,
    errand: &Errand,
) -> Result<Answer, Trouble> {
    match asked {
        Asked::Nothing => Ok(Answer::silence()),
        Asked::Introduction => introduce(&find::mount(named)?, errand),
        Asked::Reserve(files) => {
            let files = edited(files).map_err(Trouble::Input)?;
            if files.is_empty() {
                return Ok(Answer::silence());
            }
            let mount = find::mount(named)?;
            reserve(&mount, &outside_of(&mount, files), errand)
        }
        Asked::GiveBack(files) => {
            let files = edited(files).map_err(Trouble::Input)?;
            let mount = find::mount(named)?;
            give_back(&mount, Some(&outside_of(&mount, files)))
        }
        Asked::GiveAllBack => give_back(&find::mount(named)?, None),
    }
}

/// A file that is edited.
struct Edited {
    /// As the agent has it, with symlinks resolved.
    path: PathBuf,
    name: Name,
}

/// The files that are in the project, and not in its `.git`.
fn edited(files: &Files) -> Result<Vec<Edited>, Failure> {
    let map = path_map()?;
    let cwd = PathBuf::from(&files.cwd);
    let variable = env::var_os(PROJECT).map(PathBuf::from);
    let project = variable.filter(|dir| dir.is_absolute());
    let given: Vec<PathBuf> = project.into_iter().chain([cwd.clone()]).collect();
    let resolved = given.iter().filter_map(|dir| fs::canonicalize(dir).ok());
    let dirs = given.iter().cloned().chain(resolved);
    let dirs: Vec<String> = dirs.map(|dir| text(&dir)).collect();
    let dirs: Vec<&str> = dirs.iter().map(String::as_str).collect();
    let is_in = |path: &str| dirs.iter().any(|dir| is_within(path, dir));
    let mut edited = Vec::new();
    for path in &files.paths {
        let written = cwd.join(path);
        let path = real_path::resolved(&written)?;
        // As it is written it says where it is only if it does not lead up.
        let leads_up = written
            .components()
            .any(|part| part == Component::ParentDir);
        let as_written = (!leads_up).then(|| text(&written));
        let mut both = as_written.into_iter().chain([text(&path)]);
        if !both.clone().any(|path| is_in(&path)) || both.any(|path| is_of_git(&path, &dirs)) {
            continue;
        }
        edited.push(named(&map, &written, path)?);
    }
    Ok(edited)
}

fn named(map: &PathMap, written: &Path, path: PathBuf) -> Result<Edited, Failure> {
    let name = real_path::name(map, written, &path)?;
    Ok(Edited { path, name })
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Without what is in the mount itself.
fn outside_of(mount: &Mount, mut files: Vec<Edited>) -> Vec<Edited> {
    let dir = mount.path(&[]);
    let dir = fs::canonicalize(&dir).unwrap_or(dir);
    files.retain(|file| !file.path.starts_with(&dir));
    files
}

/// The content of `self`, if what this process reserves would outlive the hook.
fn lasting(mount: &Mount, errand: &Errand) -> Result<Value, Failure> {
    let me = identity(mount)?;
    if outlives(&me, errand) {
        return Ok(me);
    }
    Err(Failure::unavailable(
        "nothing is reserved: the agent that runs this hook is not known here, so the reservation would not be its own; \
         start it with 'claimfs session run -- AGENT', or with CLAIMFS_SESSION=ID in its environment",
    ))
}

/// True if this is a session of rules 1 to 4 with a process beside those that end with the hook.
/// This process is a child of the hook.
fn outlives(me: &Value, errand: &Errand) -> bool {
    let list = |key: &str| me[key].as_array().map_or(&[][..], Vec::as_slice);
    let above = match me["scope"].as_str() {
        Some("process") if me["alone"] == true => return false,
        // A sandbox is its agent's own.
        Some("process") if me["rule"] == "sandbox" => list("then"),
        // Of an agent that is not known, it would pass to the terminal that the agent was started
        // from, and be everybody's there.
        Some("process") => return false,
        _ => list("roots"),
    };
    let mut others = above.iter().filter(|root| root["pid"] != me["pid"]);
    // In a sandbox the mount sees other pids, and those of the errand are only counted.
    if me["pid"] == u64::from(std::process::id()) {
        others.any(|root| !errand.has(&root["pid"]))
    } else {
        others.count() > errand.0.len()
    }
}

fn reserve(mount: &Mount, files: &[Edited], errand: &Errand) -> Result<Answer, Trouble> {
    let Some(first) = files.first() else {
        return Ok(Answer::silence());
    };
    let me = lasting(mount, errand)?;
    let names: Vec<Name> = files.iter().map(|file| file.name.clone()).collect();
    let command = json!({ "reserve": listed(&names), "reason": REASON });
    for _ in 0..ATTEMPTS {
        match mount.control(&command) {
            Ok(()) => return Ok(Answer::silence()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(unwritten(mount, &names, &error).into()),
        }
        if let Some(Obstacle { name, record, .. }) = obstacles(mount, &names, &me)? {
            let file = files.iter().find(|file| file.name == name);
            let path = text(&file.unwrap_or(first).path);
            return Ok(Answer::coded(REFUSED, refusal(&path, &name, &record)));
        }
    }
    Err(Failure::unavailable(format!("{}: {PARTS}", shown(&first.name))).into())
}

fn unwritten(mount: &Mount, names: &[Name], error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::EROFS) => Failure::unavailable(
            "nothing is reserved: the mount is read-only here; let the agent's sandbox write to it",
        ),
        _ => reserve::refused(mount, names, error),
    }
}

/// The message for an edit of a path of which another has a part, or all.
fn refusal(path: &str, name: &Name, record: &Value) -> String {
    format!(
        "{}: {}; wait for it, read it again, and then edit it: claimfs reserve --wait=60 {} -m '{REASON}'",
        printable(path),
        held(name, record),
        quoted(path)
    )
}

/// Who has a path, since when and why: ids escaped, and of the holder's own words only the reason.
pub(super) fn held(name: &Name, record: &Value) -> String {
    let by = Name::listed(record["name"].as_str().unwrap_or_default().as_bytes());
    let by = by.unwrap_or_else(|_| name.clone());
    let why = tool::reason(record);
    let why = why.map_or_else(
        || String::from("without a reason"),
        |why| format!("who says {why}"),
    );
    let which = if by == *name {
        String::new()
    } else if name.is_below(&by) {
        format!(", as a part of {},", shown(&by))
    } else {
        format!(" in part ({})", shown(&by))
    };
    let now = std::time::SystemTime::now();
    // Under session scope it is a hook that made it, which is over.
    let pid = if record["scope"] == "process" {
        format!(" (pid {})", tool::field(record, "pid"))
    } else {
        String::new()
    };
    format!(
        "reserved{which} by session {}{pid} since {}, {} ago, {why}",
        tool::field(record, "session"),
        tool::field(record, "acquired_at"),
        tool::ago(record, "acquired_at", now)
    )
}

/// Gives back what hooks of this session reserved: of these files, or all.
fn give_back(mount: &Mount, files: Option<&[Edited]>) -> Result<Answer, Trouble> {
    let me = mount.whoami()?;
    let is_hooks = |record: &Value| record["reason"] == REASON && is_own(&me, record);
    let mut names = Vec::new();
    match files {
        Some(files) => {
            for file in files {
                let record = mount.lease(&file.name)?;
                names.extend(record.filter(is_hooks).map(|_| file.name.clone()));
            }
        }
        None if me["live"] == true => {
            let records = mount.leases()?.into_iter().filter(is_hooks);
            let listed = records.filter_map(|record| {
                let name = Name::listed(record["name"].as_str()?.as_bytes());
                name.ok().filter(Name::is_path)
            });
            names.extend(listed);
        }
        None => {}
    }
    for names in names.chunks(LINE_PATHS) {
        mount
            .control(&json!({ "unreserve": listed(names) }))
            .map_err(|error| unwritten(mount, names, &error))?;
    }
    Ok(Answer::silence())
}

/// Tells the agent, in its context, what happens to its edits.
fn introduce(mount: &Mount, errand: &Errand) -> Result<Answer, Trouble> {
    let me = lasting(mount, errand)?;
    let text = format!(
        "claimfs reserves each file that this session (id {}) edits until its turn ends, so that no other session edits \
         it meanwhile. An edit of a file that another session has reserved is refused, and the refusal says who has it \
         and how to wait for it. 'claimfs ls' lists who has what.",
        tool::field(&me, "session")
    );
    let output = json!({
        "hookSpecificOutput": { "hookEventName": "SessionStart", "additionalContext": text }
    });
    Ok(Answer::saying(format!("{output}\n")))
}
