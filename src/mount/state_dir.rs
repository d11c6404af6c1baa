//! The state directory: where it may be, who may write to it, its files and its locks.
//!
//! Promises: only this module and the journal, whose files are [`JOURNAL`] and [`RESERVED`], know
//! the names of its files. They are readable by their owner alone, whatever the umask and the mode
//! of the directory. A lock is a regular file, never reached through a symbolic link.
//!
//! Does not know: what is written in the files, but for the pid in a lock.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{self, Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, process, thread};

use super::holder::{self, Holder};
use crate::core::failure::Failure;
use crate::journal::{HISTORY, JOURNAL, RESERVED};
use crate::sys::files::{ROOM_MIN, is_at};
use crate::sys::ids::effective_uid;
use crate::sys::mountinfo::{self, FS_TYPE, Mount};

/// The log; a former one is `log.1`.
const LOG: &str = "log";

/// The file that says what came of an upgrade: nothing if all is well.
const UPGRADED: &str = "upgraded";

/// The spool: renderings that are read in several reads.
const SPOOL: &str = "texts";

/// The beginnings of the names of all files. Files with other names are none of our business.
const FILES: [&str; 9] = [
    LOG,
    Lock::Supervisor.name(),
    Lock::Server.name(),
    Lock::Mounting.name(),
    JOURNAL,
    RESERVED,
    HISTORY,
    UPGRADED,
    SPOOL,
];

/// How long to wait for a lock that somebody may only have taken to see whether it was free.
const LOOK: Duration = Duration::from_millis(300);

/// How long another may take to make a mount.
const MOUNTING: Duration = Duration::from_secs(60);

/// On a disk with fewer bytes than these, the journal may be refused its next piece.
const ROOM_TO_CLAIM: u64 = 256 * 1024;

/// The room on the disk of a state directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is enough.
    Enough,
    /// So few bytes are left that the history stays in memory.
    Little(u64),
    /// There is none for new claims.
    None,
}

/// A lock of a state directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    /// The supervisor's: a state directory has one mount at a time.
    Supervisor,
    /// The server's: one process at a time appends to the journal.
    Server,
    /// Of whoever makes the mount: one at a time looks for a mount, makes one and waits until it
    /// answers.
    Mounting,
}

impl Lock {
    const fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "lock",
            Self::Server => "serving",
            Self::Mounting => "mounting",
        }
    }
}

/// A state directory, by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateDir(PathBuf);

impl StateDir {
    /// The files without which it is not known what is held, or who may write it.
    pub(crate) const VITAL: [&str; 4] = [
        JOURNAL,
        RESERVED,
        Lock::Supervisor.name(),
        Lock::Server.name(),
    ];

    /// The directory at a path, which becomes absolute.
    pub(crate) fn at(path: &Path) -> Result<Self, Failure> {
        let absolute = path::absolute(path);
        absolute
            .map(Self)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
    }

    /// The state directory of a mount, which is its source.
    pub(crate) fn of(mount: &Mount) -> Self {
        Self(mount.source.clone())
    }

    /// The state directory that a mount has unless it is told otherwise:
    /// `/var/lib/claimfs/ESCAPED-DIR` for root, the same below `$XDG_STATE_HOME` (`~/.local/state`)
    /// for a user.
    pub(crate) fn default_of(dir: &Path) -> Result<Self, Failure> {
        let base = if effective_uid() == 0 {
            PathBuf::from("/var/lib")
        } else if let Some(base) = env::var_os("XDG_STATE_HOME")
            .map(PathBuf::from)
            .filter(|base| base.is_absolute())
        {
            base
        } else {
            let home = env::var_os("HOME").ok_or_else(|| {
                Failure::unavailable(
                    "neither XDG_STATE_HOME nor HOME is set: say where the state belongs with --state-dir DIR",
                )
            })?;
            PathBuf::from(home).join(".local/state")
        };
        Ok(Self(base.join("claimfs").join(escape(dir))))
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The log, of the supervisor and of servers in the background.
    pub(crate) fn log(&self) -> PathBuf {
        self.0.join(LOG)
    }

    /// A lock.
    pub(crate) fn lock(&self, lock: Lock) -> PathBuf {
        self.0.join(lock.name())
    }

    /// The file that says what came of an upgrade: nothing if all is well.
    pub(crate) fn upgraded(&self) -> PathBuf {
        self.0.join(UPGRADED)
    }

    /// The spool: renderings that are read in several reads.
    pub(crate) fn spool(&self) -> PathBuf {
        self.0.join(SPOOL)
    }

    /// Makes the directory, and what is in it private.
    pub(crate) fn make(&self) -> Result<(), Failure> {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0);
        made.map_err(|error| {
            Failure::unavailable(format!(
                "{0}: the state directory cannot be made: {error}; make it first, with 'mkdir -m 700 {0}'",
                self.0.display()
            ))
        })?;
        self.make_private();
        Ok(())
    }

    /// Writes what came of an upgrade: why it failed, or nothing.
    pub(crate) fn write_upgraded(&self, why: &str) -> io::Result<()> {
        let path = self.upgraded();
        let new = path.with_extension("new");
        fs::write(&new, why)?;
        fs::rename(&new, &path)
    }

    /// Refuses a state directory that the mount on `dir` would hide from its own server, or that
    /// another mount may take away.
    pub(crate) fn check_apart(&self, dir: &Path) -> Result<(), Failure> {
        let (shown, on) = (self.0.display(), dir.display());
        let real = real(&self.0);
        let identity = |path: &Path| {
            fs::metadata(path)
                .map(|there| (there.dev(), there.ino()))
                .ok()
        };
        // By their identity, too: a bind mount shows the directory under another path.
        let there = identity(dir);
        let is_dir = |path: &Path| path == dir || there.is_some() && identity(path) == there;
        if real.ancestors().any(is_dir) {
            return Err(Failure::unavailable(format!(
                "{shown}: the state directory may not be in {on}, where the mount would hide it from its own server; \
                 keep it outside of {on}"
            )));
        }
        if dir.starts_with(real.join(SPOOL)) {
            return Err(Failure::unavailable(format!(
                "{on}: the server keeps files of its own here, in its state directory {shown}; name a directory outside of it"
            )));
        }
        match mountinfo::holding(&real) {
            Ok(Some(mount)) if mount.fs_type == FS_TYPE => Err(Failure::unavailable(format!(
                "{shown}: the state directory may not be in a claimfs, and {} is one; keep it outside",
                mount.dir.display()
            ))),
            _ => Ok(()),
        }
    }

    /// Why others can change what is in the directory, each with the way out. Empty for one that
    /// does not exist.
    pub(crate) fn faults(&self) -> Vec<String> {
        let me = effective_uid();
        let mut faults = Vec::new();
        let Ok(there) = fs::metadata(&self.0) else {
            return faults;
        };
        let shown = self.0.display();
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
        // The journal checks its own files, and `--repair` is the way out for those.
        let checked = |path: &PathBuf| !path.ends_with(JOURNAL) && !path.ends_with(RESERVED);
        for path in self.files().into_iter().filter(checked) {
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
    pub(crate) fn is_without_journal(&self) -> bool {
        match fs::symlink_metadata(self.0.join(JOURNAL)) {
            Ok(there) => there.is_file() && there.len() == 0,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// The files of ours that are there, and those in the spool.
    fn files(&self) -> Vec<PathBuf> {
        let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
        let is_ours = |name: &OsStr| {
            let name = name.as_bytes();
            FILES.iter().any(|file| name.starts_with(file.as_bytes()))
        };
        let ours = entries(&self.0).filter(|entry| is_ours(&entry.file_name()));
        let spool = entries(&self.spool());
        ours.chain(spool).map(|entry| entry.path()).collect()
    }

    /// Takes the rights to our files away from everybody else. Files of an earlier version may have
    /// been made readable by its umask.
    pub(crate) fn make_private(&self) {
        for path in self.files() {
            if let Err(error) = narrow(&path) {
                log::warn!("{}: others may read it: {error}", path.display());
            }
        }
    }

    /// Whether a lock that this process took is still the one in the directory.
    pub(crate) fn has_in_place(&self, lock: Lock, taken: &File) -> bool {
        is_at(taken, &self.lock(lock))
    }

    /// The room on its disk. A state directory that is out of sight has enough.
    pub(crate) fn room(&self) -> Room {
        let is_there = fs::symlink_metadata(self.lock(Lock::Server)).is_ok();
        let (Ok(disk), Ok(there), true) = (
            rustix::fs::statvfs(&self.0),
            fs::metadata(&self.0),
            is_there,
        ) else {
            return Room::Enough;
        };
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        // Of root's state directory the server may use what is kept for root.
        let left = if there.uid() == 0 {
            disk.f_bfree
        } else {
            disk.f_bavail
        };
        match bytes(disk.f_bavail) {
            _ if bytes(left) < ROOM_TO_CLAIM => Room::None,
            free if free < ROOM_MIN => Room::Little(free),
            _ => Room::Enough,
        }
    }

    /// Takes the pids of the mount's processes out of their locks, once they have ended: the
    /// numbers may soon be others'.
    pub(crate) fn forget_pids(&self) {
        for lock in [Lock::Supervisor, Lock::Server] {
            // Whether this succeeds matters to nobody: no lock is believed that is not held.
            _ = forget(&self.lock(lock));
        }
    }

    /// Takes a lock, and writes the pid of this process into it.
    pub(crate) fn take(&self, lock: Lock) -> Result<File, Failure> {
        let path = self.lock(lock);
        let failed = |error: &dyn std::fmt::Display| {
            Failure::unavailable(format!("{}: {error}", path.display()))
        };
        let mut file = open_lock(&path)?;
        let patience = match lock {
            Lock::Mounting => MOUNTING,
            Lock::Supervisor | Lock::Server => LOOK,
        };
        let until = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    thread::sleep(Duration::from_millis(2));
                }
                Err(TryLockError::WouldBlock) if lock == Lock::Mounting => {
                    return Err(is_mounting(&path));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(taken(&path, holder::of(&path).as_ref()));
                }
                Err(TryLockError::Error(error)) => return Err(failed(&error)),
            }
        }
        file.set_len(0).map_err(|error| failed(&error))?;
        writeln!(file, "{}", process::id()).map_err(|error| failed(&error))?;
        Ok(file)
    }
}

/// Takes the pid out of the file of a lock that nobody holds. A lock that somebody holds, and one
/// that may not be written to, is left.
fn forget(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(());
    }
    // A killed process may close its files one by one, the device before the lock.
    let until = Instant::now() + LOOK;
    while file.try_lock().is_err() {
        if Instant::now() >= until {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(2));
    }
    file.set_len(0)
}

/// A path as one file name, as `systemd-escape --path` makes it (systemd.unit(5)).
fn escape(dir: &Path) -> String {
    use std::fmt::Write;
    let text = dir.to_string_lossy();
    let trimmed = text.trim_matches('/');
    if trimmed.is_empty() {
        return String::from("-");
    }
    let mut out = String::new();
    for (index, byte) in trimmed.bytes().enumerate() {
        match byte {
            b'/' => out.push('-'),
            b'.' if index == 0 => out.push_str("\\x2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => {
                out.push(char::from(byte));
            }
            _ => _ = write!(out, "\\x{byte:02x}"),
        }
    }
    out
}

/// An absolute path without symlinks, as far as it exists.
pub(super) fn real(path: &Path) -> PathBuf {
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

fn is_trusted(uid: u32) -> bool {
    uid == effective_uid() || uid == 0
}

fn narrow(path: &Path) -> io::Result<()> {
    // By its descriptor, so that the mode is changed of the file that was looked at.
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

fn open_lock(path: &Path) -> Result<File, Failure> {
    let shown = path.display();
    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let no_file = || Failure::unavailable(format!("{shown}: not a regular file; remove it"));
    let file = match open {
        Ok(file) => file,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EISDIR)) => {
            return Err(no_file());
        }
        Err(error) => return Err(Failure::unavailable(format!("{shown}: {error}"))),
    };
    match file.metadata() {
        Ok(there) if there.is_file() => Ok(file),
        _ => Err(no_file()),
    }
}

/// The sentence for the lock of somebody who has been making a mount for too long.
fn is_mounting(path: &Path) -> Failure {
    let who = holder::of(path).map(|holder| holder.who);
    let remedy = who.map_or(String::from("end the process that has this lock"), |who| {
        format!("end {who} with 'kill {}'", who.pid)
    });
    Failure::unavailable(format!(
        "{}: another 'claimfs mount' has been making this mount for {} seconds; {remedy}, and mount again",
        path.display(),
        MOUNTING.as_secs()
    ))
}

/// The sentence for a lock that another process has.
pub(crate) fn taken(path: &Path, holder: Option<&Holder>) -> Failure {
    let shown = path.display();
    let Some(holder) = holder else {
        return Failure::unavailable(format!(
            "{shown}: a process that cannot be seen from here has this lock, perhaps in a container; end it first"
        ));
    };
    let (who, pid) = (&holder.who, holder.who.pid);
    if holder.has_device {
        return Failure::unavailable(format!(
            "{shown}: another claimfs, {who}, has this lock; wait for it, or end it with 'kill {pid}'"
        ));
    }
    let uid = holder
        .uid
        .map_or(String::new(), |uid| format!(" of uid {uid}"));
    Failure::unavailable(format!(
        "{shown}: {who}{uid}, which is no claimfs, has a lock on this file; end it with 'kill {pid}'"
    ))
}

#[cfg(test)]
mod tests {
    use super::{Path, escape};

    #[test]
    fn a_path_becomes_a_file_name_as_systemd_makes_it() {
        // The output of `systemd-escape --path`.
        for (path, name) in [
            ("/", "-"),
            ("/tmp/claims-demo", "tmp-claims\\x2ddemo"),
            ("/.hidden/a b", "\\x2ehidden-a\\x20b"),
            ("/run/x.y_z:1", "run-x.y_z:1"),
        ] {
            assert_eq!(escape(Path::new(path)), name);
        }
    }
}
