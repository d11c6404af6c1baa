//! The spool: snapshots in the state directory whose reader has not read all of them, for a server
//! that takes over between two reads.
//!
//! Does not know: the content of the snapshots.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::core::{NodeId, Refusal};
use crate::logging::limited;
use crate::sys::files::has_room_to_spare;

/// The largest size of all snapshots, in bytes, so that many readers do not fill the disk. Past the
/// first MiB it must have room to spare, since the journal may need it.
const BYTES_MAX: usize = 16 << 20;
const BYTES_FREE: usize = 1 << 20;

/// The extension of the name of a file that says that a text was not kept.
const LOST: &str = "lost";

/// The snapshots of one mount. Each file has the number of its reader's handle as its name.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    /// The lengths of those that this server has kept. No file is written under this lock.
    kept: Mutex<HashMap<NodeId, usize>>,
}

impl Spool {
    /// A spool in a directory.
    pub(crate) fn new(dir: PathBuf) -> Self {
        let kept = Mutex::default();
        Self { dir, kept }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, usize>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this server has kept a text.
    pub(crate) fn has(&self, fh: NodeId) -> bool {
        self.lock().contains_key(&fh)
    }

    fn path(&self, fh: NodeId) -> PathBuf {
        self.dir.join(fh.number().to_string())
    }

    fn has_room(&self) -> bool {
        // Its own directory is made when it is needed.
        has_room_to_spare(self.dir.parent().unwrap_or(&self.dir))
    }

    fn lost(&self, fh: NodeId) -> PathBuf {
        self.path(fh).with_extension(LOST)
    }

    /// Keeps a text, or that it was not kept: there may be too much of them already.
    pub(crate) fn keep(&self, fh: NodeId, text: &str) {
        let is_kept = {
            let mut kept = self.lock();
            let sum = kept.values().sum::<usize>() + text.len();
            let fits = sum <= BYTES_FREE || (sum <= BYTES_MAX && self.has_room());
            kept.insert(fh, if fits { text.len() } else { 0 });
            fits
        };
        let write = || {
            if is_kept {
                fs::write(self.path(fh), text)
            } else {
                fs::write(self.lost(fh), "")
            }
        };
        let kept = write().or_else(|_| fs::create_dir_all(&self.dir).and_then(|()| write()));
        if let Err(error) = kept {
            limited!(
                None,
                log::Level::Warn,
                "{}: {error}",
                self.path(fh).display()
            );
            // The room for an empty file may be there.
            _ = fs::write(self.lost(fh), "");
        }
    }

    /// A text that was kept; `None` if there was nothing to keep, since one read took all. ESTALE
    /// if it was too much.
    pub(crate) fn find(&self, fh: NodeId) -> Result<Option<String>, Refusal> {
        if fs::exists(self.lost(fh)).unwrap_or(false) {
            return Err(Refusal::Lost);
        }
        Ok(fs::read_to_string(self.path(fh)).ok())
    }

    /// Removes a text that nobody reads any more.
    pub(crate) fn forget(&self, fh: NodeId) {
        self.lock().remove(&fh);
        for path in [self.path(fh), self.lost(fh)] {
            _ = fs::remove_file(path);
        }
    }

    /// Removes all snapshots: on a new connection nobody reads them.
    pub(crate) fn clear(&self) {
        _ = fs::remove_dir_all(&self.dir);
    }
}
