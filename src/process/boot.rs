//! The boot of the machine and the pid namespace, on which the meaning of a pid depends.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use crate::sys::namespace;

/// A boot of the machine, as seen from a pid namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The kernel's id for it.
    pub id: String,
    /// The inode of the pid namespace: pids of another mean other processes.
    pub pidns: u64,
}

impl Boot {
    /// This boot, as this process sees it.
    pub fn current() -> io::Result<Self> {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Self {
            id: String::from(id.trim()),
            pidns: namespace::of_pids("self")?,
        })
    }
}
