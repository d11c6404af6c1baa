//! The file `log` of the state directory, which the supervisor and its servers append to.
//!
//! Promises: past its bound it becomes `log.1`, once, whichever process notices first, and no line
//! is lost; one that was moved away, as logrotate does, is followed, and so is a state directory
//! that was made again, if it is private; nothing is made where there is none. No call waits for
//! another process.
//!
//! Does not know: what the lines say.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::stdio::dup2_stderr;

use crate::sys::ids::effective_uid;

/// How long the log may be by default, in bytes. With the one before it, it takes twice as much.
pub(crate) const BYTES_MAX: u64 = 8 << 20;

/// Standard error of this process.
const STDERR: &str = "/proc/self/fd/2";

/// The kernel shows the path of a deleted file with this suffix.
const DELETED: &[u8] = b" (deleted)";

/// The identity of a file: its device and its inode number.
type Identity = (u64, u64);

/// The log, open to append to.
pub(super) struct LogFile {
    path: PathBuf,
    /// Where it is moved when it is full.
    before: PathBuf,
    /// The directory that it is in.
    dir: Identity,
    bytes_max: u64,
    file: File,
}

impl LogFile {
    /// The log at a path, if standard error is that file, or the one that it was moved to.
    pub(super) fn behind_stderr(path: &Path, bytes_max: u64) -> Option<Self> {
        let dir = fs::canonicalize(path.parent()?).ok()?;
        let path = dir.join(path.file_name()?);
        let mut before = path.clone().into_os_string();
        before.push(".1");
        let before = PathBuf::from(before);
        if !is_stderr(&path, &before) {
            return None;
        }
        let mut log = Self {
            dir: identity(&fs::metadata(&dir).ok()?),
            // Opened again: a lock on the inherited descriptor would be held by all that inherit
            // it.
            file: open(&path).ok()?,
            path,
            before,
            bytes_max,
        };
        log.go_on_with(log.file.try_clone().ok()?);
        Some(log)
    }

    /// Appends a line.
    pub(super) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        self.follow();
        let size = self.file.metadata().map_or(0, |there| there.len());
        if size > 0 && size + line.len() as u64 > self.bytes_max {
            self.rotate();
        }
        self.file.write_all(line)
    }

    /// Goes on with the file that is at the path by now, which is made if there is none. If that
    /// fails, the open file takes the lines.
    pub(super) fn follow(&mut self) {
        let is_other = match fs::symlink_metadata(&self.path) {
            Ok(there) => there.is_file() && !self.is_open(&there),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        let dir = self.path.parent().and_then(|dir| fs::metadata(dir).ok());
        let Some(dir) = dir.filter(|_| is_other) else {
            return;
        };
        let is_private = dir.uid() == effective_uid() && dir.mode().trailing_zeros() >= 6;
        if (identity(&dir) == self.dir || is_private)
            && let Ok(file) = open(&self.path)
        {
            self.dir = identity(&dir);
            self.go_on_with(file);
        }
    }

    /// Moves the file aside and begins another.
    fn rotate(&mut self) {
        // Another process that holds the lock is about to do the same, or is a stranger, for which
        // nothing waits.
        if self.file.try_lock().is_err() {
            return;
        }
        let there = fs::symlink_metadata(&self.path);
        let is_current = there.is_ok_and(|there| self.is_open(&there));
        let locked = self.file.try_clone();
        if is_current && fs::rename(&self.path, &self.before).is_ok() {
            self.follow();
        }
        // Children may have it open, and with it the lock.
        _ = locked.map(|locked| locked.unlock());
    }

    fn is_open(&self, there: &Metadata) -> bool {
        let open = self.file.metadata();
        open.is_ok_and(|open| identity(&open) == identity(there))
    }

    /// Makes the file standard error, too: panics are written there, and children inherit it.
    fn go_on_with(&mut self, file: File) {
        _ = dup2_stderr(&file);
        self.file = file;
    }
}

/// Whether standard error is the log at a path, or was before another process moved it.
fn is_stderr(path: &Path, before: &Path) -> bool {
    let Ok(stderr) = fs::metadata(STDERR) else {
        return false;
    };
    let there = fs::symlink_metadata(path);
    // A symlink there is the user's own arrangement.
    if !stderr.is_file() || there.as_ref().is_ok_and(|there| !there.is_file()) {
        return false;
    }
    if there.is_ok_and(|there| identity(&there) == identity(&stderr)) {
        return true;
    }
    let shown = fs::read_link(STDERR)
        .map_or_else(|_| Vec::new(), |shown| shown.into_os_string().into_vec());
    let shown = shown.strip_suffix(DELETED).unwrap_or(&shown);
    let shown = PathBuf::from(OsString::from_vec(shown.to_owned()));
    shown == path || shown == before
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::from(io::ErrorKind::InvalidInput))
    }
}

fn identity(there: &Metadata) -> Identity {
    (there.dev(), there.ino())
}
