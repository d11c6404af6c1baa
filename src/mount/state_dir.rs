//! The state directory: where it may be, who may write to it, and its locks.
//!
//! Promises: what the server keeps there is readable by its owner alone, whatever the umask and the mode of the directory; a lock is a
//! regular file, never reached through a symbolic link.
//!
//! Deliberately ignorant of: what stands in the files.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{process, thread};

use super::Problem;
use super::holder::{self, Holder};
use crate::process::effective_uid;
use crate::sys::mountinfo::{self, FS_TYPE};

/// The lock of the supervisor: one mount at a time has a state directory.
pub const LOCK: &str = "lock";

/// The lock of the server: one process at a time appends to the journal.
pub const SERVING: &str = "serving";

/// The directory of the texts that readers read in several reads.
pub const TEXTS: &str = "texts";

/// How the names of our files begin: what else is there is none of our business.
const FILES: [&str; 7] = ["log", LOCK, SERVING, "journal", "tokens", "upgraded", TEXTS];

/// How long a lock may be had by somebody who only looks whether it is had.
const LOOK: Duration = Duration::from_millis(300);

/// Refuses a state directory that the mount would hide from its own server, or that another mount may take away.
pub fn check_apart(state_dir: &Path, dir: &Path) -> Result<(), Problem> {
    let (shown, on) = (state_dir.display(), dir.display());
    let real = real(state_dir);
    let identity = |path: &Path| {
        fs::metadata(path)
            .map(|there| (there.dev(), there.ino()))
            .ok()
    };
    // By their identity, too: a bind mount shows the directory under another path.
    let there = identity(dir);
    let is_dir = |path: &Path| path == dir || there.is_some() && identity(path) == there;
    if real.ancestors().any(is_dir) {
        return Err(Problem::new(format!(
            "{shown}: the state directory may not be in {on}, where the mount would hide it from its own server; \
             keep it outside of {on}"
        )));
    }
    if dir.starts_with(real.join(TEXTS)) {
        return Err(Problem::new(format!(
            "{on}: the server keeps files of its own here, in its state directory {shown}; name a directory outside of it"
        )));
    }
    match mountinfo::holding(&real) {
        Ok(Some(mount)) if mount.fs_type == FS_TYPE => Err(Problem::new(format!(
            "{shown}: the state directory may not be in a claimfs, and {} is one; keep it outside",
            mount.dir.display()
        ))),
        _ => Ok(()),
    }
}

/// An absolute path without symlinks, as far as there is something.
fn real(path: &Path) -> PathBuf {
    let there = path
        .ancestors()
        .find_map(|above| Some((fs::canonicalize(above).ok()?, above)));
    let Some((mut real, above)) = there else {
        return path.to_owned();
    };
    for part in path.strip_prefix(above).into_iter().flatten() {
        if part == ".." {
            real.pop();
        } else {
            real.push(part);
        }
    }
    real
}

/// Why others can change what is in a state directory, each with the way out. Empty for one that does not exist.
pub fn faults(state_dir: &Path) -> Vec<String> {
    let me = effective_uid();
    let mut faults = Vec::new();
    let Ok(there) = fs::metadata(state_dir) else {
        return faults;
    };
    let shown = state_dir.display();
    if !is_trusted(there.uid()) {
        faults.push(format!(
            "{shown}: the state directory is owned by uid {}, who could change what is held; make it yours with \
             'chown {me} {shown}'",
            there.uid()
        ));
    }
    if there.mode() & 0o022 != 0 {
        faults.push(format!(
            "{shown}: others may write to the state directory (mode {:04o}), and could change what is held; \
             take that away with 'chmod go-w {shown}'",
            there.mode() & 0o7777
        ));
    }
    // Whose the journal is it looks at itself, and `--repair` is the way out.
    let checked = |path: &PathBuf| !path.ends_with("journal") && !path.ends_with("tokens");
    for path in files(state_dir).into_iter().filter(checked) {
        if let Ok(there) = fs::symlink_metadata(&path)
            && !is_trusted(there.uid())
        {
            let shown = path.display();
            faults.push(format!(
                "{shown}: owned by uid {}, who could change what is held; make it yours with 'chown -h {me} {shown}'",
                there.uid()
            ));
        }
    }
    faults
}

/// Whether there is no journal, or nothing in it.
pub fn is_without_journal(state_dir: &Path) -> bool {
    match fs::symlink_metadata(state_dir.join("journal")) {
        Ok(there) => there.is_file() && there.len() == 0,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn is_trusted(uid: u32) -> bool {
    uid == effective_uid() || uid == 0
}

/// The files of ours that are there, and those in `spool`.
fn files(state_dir: &Path) -> Vec<PathBuf> {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    let is_ours = |name: &OsStr| {
        let name = name.as_bytes();
        FILES.iter().any(|file| name.starts_with(file.as_bytes()))
    };
    let ours = entries(state_dir).filter(|entry| is_ours(&entry.file_name()));
    let spool = entries(&state_dir.join(TEXTS));
    ours.chain(spool).map(|entry| entry.path()).collect()
}

/// Takes from everybody else what they may do with our files: those of before, whose umask let them be made readable.
pub fn make_private(state_dir: &Path) {
    for path in files(state_dir) {
        let narrowed = narrow(&path);
        if let Err(error) = narrowed {
            log::warn!("{}: others may read it: {error}", path.display());
        }
    }
}

fn narrow(path: &Path) -> io::Result<()> {
    // By its descriptor, so that it is this file whose mode is changed.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let there = file.metadata()?;
    let mode = if there.is_dir() { 0o700 } else { 0o600 };
    let is_ours = there.uid() == effective_uid() && (there.is_file() || there.is_dir());
    if is_ours && there.mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Takes a lock, and writes the pid of this process into it.
pub fn lock(state_dir: &Path, name: &str) -> Result<File, Problem> {
    let path = state_dir.join(name);
    let problem =
        |error: &dyn std::fmt::Display| Problem::new(format!("{}: {error}", path.display()));
    let mut file = open_lock(&path)?;
    let until = Instant::now() + LOOK;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                thread::sleep(Duration::from_millis(2));
            }
            Err(TryLockError::WouldBlock) => return Err(taken(&path, holder::of(&path).as_ref())),
            Err(TryLockError::Error(error)) => return Err(problem(&error)),
        }
    }
    file.set_len(0).map_err(|error| problem(&error))?;
    writeln!(file, "{}", process::id()).map_err(|error| problem(&error))?;
    Ok(file)
}

fn open_lock(path: &Path) -> Result<File, Problem> {
    let shown = path.display();
    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let no_file = || Problem::new(format!("{shown}: not a regular file; remove it"));
    let file = match open {
        Ok(file) => file,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EISDIR)) => {
            return Err(no_file());
        }
        Err(error) => return Err(Problem::new(format!("{shown}: {error}"))),
    };
    match file.metadata() {
        Ok(there) if there.is_file() => Ok(file),
        _ => Err(no_file()),
    }
}

/// The sentence for a lock that another process has.
pub fn taken(path: &Path, holder: Option<&Holder>) -> Problem {
    let shown = path.display();
    let Some(holder) = holder else {
        return Problem::new(format!(
            "{shown}: a process that cannot be seen from here has this lock, perhaps in a container; end it first"
        ));
    };
    let (who, pid) = (&holder.who, holder.who.pid);
    if holder.has_device {
        return Problem::new(format!(
            "{shown}: another claimfs, {who}, has this lock; wait for it, or end it with 'kill {pid}'"
        ));
    }
    let uid = holder
        .uid
        .map_or(String::new(), |uid| format!(" of uid {uid}"));
    Problem::new(format!(
        "{shown}: {who}{uid}, which is no claimfs, has a lock on this file; end it with 'kill {pid}'"
    ))
}
