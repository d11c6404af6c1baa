//! The spool: snapshots in the state directory whose reader has not read all of them, for a server
//! that takes over between two reads.
//!
//! Does not know: the content of the snapshots.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::core::NodeId;
use crate::logging::limited;

/// The largest size of all snapshots, in bytes, so that many readers do not fill the disk.
const BYTES_MAX: usize = 1 << 20;

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

    /// Keeps a text, unless there is too much. If a text is not kept and the server dies, its
    /// reader finds the end of the file too early.
    pub(crate) fn keep(&self, fh: NodeId, text: &str) {
        let write = || fs::write(self.path(fh), text);
        {
            let mut kept = self.lock();
            if kept.values().sum::<usize>() + text.len() > BYTES_MAX {
                return;
            }
            kept.insert(fh, text.len());
        }
        let kept = write().or_else(|_| fs::create_dir_all(&self.dir).and_then(|()| write()));
        if let Err(error) = kept {
            limited!(
                None,
                log::Level::Warn,
                "{}: {error}",
                self.path(fh).display()
            );
        }
    }

    /// A text that was kept.
    pub(crate) fn find(&self, fh: NodeId) -> Option<String> {
        fs::read_to_string(self.path(fh)).ok()
    }

    /// Removes a text that nobody reads any more.
    pub(crate) fn forget(&self, fh: NodeId) {
        self.lock().remove(&fh);
        _ = fs::remove_file(self.path(fh));
    }

    /// Removes all snapshots: on a new connection nobody reads them.
    pub(crate) fn clear(&self) {
        _ = fs::remove_dir_all(&self.dir);
    }
}
