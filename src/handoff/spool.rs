//! Texts that are read in several reads, kept in the state directory for a server that takes over between two of them.
//!
//! Deliberately ignorant of: what they say.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::core::NodeId;
use crate::logging::limited;

/// How much is kept, all in all, in bytes: whoever opens very much is not to fill the disk.
const BYTES_MAX: usize = 1 << 20;

/// The texts of one mount, by the handles of their readers.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    /// Those that this server has kept, and how long each is.
    kept: Mutex<HashMap<NodeId, usize>>,
}

impl Spool {
    /// Keeps them below a directory.
    pub fn new(dir: PathBuf) -> Self {
        let kept = Mutex::default();
        Self { dir, kept }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, usize>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this server has kept one.
    pub fn has(&self, fh: NodeId) -> bool {
        self.lock().contains_key(&fh)
    }

    fn path(&self, fh: NodeId) -> PathBuf {
        self.dir.join(fh.number().to_string())
    }

    /// Keeps a text, unless there are too many. A reader whose text is not kept, and whose server dies meanwhile, comes to its end too
    /// early.
    pub fn keep(&self, fh: NodeId, text: &str) {
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
    pub fn find(&self, fh: NodeId) -> Option<String> {
        fs::read_to_string(self.path(fh)).ok()
    }

    /// Nobody reads it any more.
    pub fn forget(&self, fh: NodeId) {
        self.lock().remove(&fh);
        _ = fs::remove_file(self.path(fh));
    }

    /// Nobody reads any: the connection is new.
    pub fn clear(&self) {
        _ = fs::remove_dir_all(&self.dir);
    }
}
