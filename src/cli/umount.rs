//! `claimfs umount DIR`

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Exit, Failure, tool};
use crate::keeper::device;

/// How long the server has to go after its mount has.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a mount must be busy to be in use: its own helper, which tells inotify of names that have gone, keeps it so for less than a
/// millisecond at a time.
const BUSY: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Unmount also if it is in use: it vanishes at once, and ends with its last user
    #[arg(short, long)]
    lazy: bool,
    /// Where claimfs is mounted
    dir: PathBuf,
}

impl Arguments {
    pub fn run(&self) -> Result<Exit, Failure> {
        let (dir, mount) = tool::mounted_on(&self.dir)?;
        let shown = dir.display();
        // A mount that lost its server has nobody to be busy for.
        let dead =
            fs::metadata(&dir).is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN));
        device::unmount_patiently(&dir, self.lazy || dead, BUSY).map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => Failure::held(format!(
                "{shown}: in use, by an open file or a working directory; leave it, or detach it with \
                 'claimfs umount --lazy {shown}'"
            )),
            _ => Failure::unavailable(format!("{shown}: cannot be unmounted: {error}")),
        })?;
        if !self.lazy {
            wait_for_server(&mount.source);
        }
        Ok(Exit::Done)
    }
}

/// Waits until the server has let go of its state directory, so that the next mount finds it free.
fn wait_for_server(state_dir: &Path) {
    let Ok(lock) = File::open(state_dir.join("lock")) else {
        return;
    };
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match lock.try_lock_shared() {
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(2)),
            Ok(()) | Err(fs::TryLockError::Error(_)) => return,
        }
    }
}
