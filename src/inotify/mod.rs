//! Makes inotify tell watchers of `claims/` and of `paths/` about names that went without a call:
//! by a reap, an expiry, a break, the end of a session, or a line in `control`.
//!
//! The kernel tells watchers of a directory only about calls in it. So a helper process of ours
//! calls unlink(2) there, through the mount, for each name that has gone, and the server answers it
//! as if the name were still there: see [`Notifier::is`].
//!
//! The helper is no thread of the server: a server that is killed inside a request of its own would
//! hang, and the mount with it. It has no `/dev/fuse` descriptor, reads names from a pipe, ends
//! when that is closed, and nothing waits for it but an unmount, for 200 ms. It is paced, and so
//! late: a name is free long before.
//!
//! Does not know: why a name has gone.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::core::Name;
use crate::logging::limited;
use crate::sys::signals;

/// How many names may wait for the helper; watchers are not told of further ones.
const WAITING_MAX: usize = 65_536;

/// The pause after each name, so that callers get their turn in the directory.
const PACE: Duration = Duration::from_millis(2);

/// The pause after the helper could not be started, or was killed.
const PAUSE: Duration = Duration::from_secs(1);

/// In place of a pid: the helper has been ended for good.
const ENDED: u32 = u32::MAX;

/// How long to wait for the end of the helper, which would keep the mount busy.
const END: Duration = Duration::from_millis(200);

/// How much time passes at least between two complaints about too many names.
const COMPLAINT: Duration = Duration::from_secs(10);

/// A name that has gone, and whether it was a directory.
type Removal = (Name, bool);

/// The server's side.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    removals: OnceLock<SyncSender<Removal>>,
    /// The helper's pid; 0 while there is none, [`ENDED`] once there will be none.
    helper: Arc<AtomicU32>,
    /// The waiting names that were directories.
    directories: Mutex<HashSet<Name>>,
    /// When the last complaint about too many names was logged.
    complained: Mutex<Option<Instant>>,
}

impl Notifier {
    /// Starts the thread that passes names to the helper, which is started with the first of them.
    /// `device` is the mount's device number, as mountinfo shows it: the helper touches nothing
    /// else.
    pub(crate) fn start(&self, mount: &Path, device: &str) -> io::Result<()> {
        let (sender, removals) = mpsc::sync_channel(WAITING_MAX);
        let helper = Arc::clone(&self.helper);
        let words = [OsString::from("notify"), mount.into(), device.into()];
        thread::Builder::new()
            .name(String::from("notifier"))
            .spawn(move || hand_on(&removals, &words, &helper))?;
        _ = self.removals.set(sender);
        Ok(())
    }

    /// Has watchers told of a name that has gone. Never waits.
    pub(crate) fn tell(&self, name: &Name, is_directory: bool) {
        let Some(removals) = self.removals.get() else {
            return;
        };
        if is_directory {
            self.directories().insert(name.clone());
        } else {
            self.directories().remove(name);
        }
        if let Err(TrySendError::Full(_)) = removals.try_send((name.clone(), is_directory)) {
            self.told(name);
            let mut complained = self
                .complained
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if complained.is_none_or(|at| at.elapsed() > COMPLAINT) {
                log::warn!(
                    "{}: more than {WAITING_MAX} names go at once; watchers are not told of this one and others",
                    name.file()
                );
                *complained = Some(Instant::now());
            }
        }
    }

    /// Ends the helper, before the mount goes: while it works it keeps it busy.
    pub(crate) fn end(&self) {
        let helper = self.helper.swap(ENDED, SeqCst);
        // It is a child that has not been waited for, so that its pid is still its own.
        if helper == 0 || helper == ENDED || signals::send(helper, libc::SIGKILL).is_err() {
            return;
        }
        let executable = format!("/proc/{helper}/exe");
        let start = Instant::now();
        while start.elapsed() < END && fs::read_link(&executable).is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn directories(&self) -> MutexGuard<'_, HashSet<Name>> {
        let directories = self.directories.lock();
        directories.unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a name that has gone was a directory.
    pub(crate) fn was_directory(&self, name: &Name) -> bool {
        self.directories().contains(name)
    }

    /// The watchers have been told of a name.
    pub(crate) fn told(&self, name: &Name) {
        self.directories().remove(name);
    }

    /// Whether a caller is the helper. For the helper, a name that has gone is still there, and may
    /// be removed.
    pub(crate) fn is(&self, task: u32) -> bool {
        task != 0 && self.helper.load(SeqCst) == task
    }
}

fn hand_on(removals: &Receiver<Removal>, words: &[OsString], helper: &AtomicU32) {
    let mut running: Option<(Child, ChildStdin)> = None;
    for (name, is_directory) in removals {
        if helper.load(SeqCst) == ENDED {
            return;
        }
        if running.is_none() {
            match spawn(words) {
                Ok((mut child, pipe)) => {
                    if helper
                        .compare_exchange(0, child.id(), SeqCst, SeqCst)
                        .is_err()
                    {
                        _ = child.kill();
                        return;
                    }
                    running = Some((child, pipe));
                }
                Err(error) => {
                    limited!(
                        None,
                        log::Level::Warn,
                        "watchers are not told that {} has gone: {error}",
                        name.file()
                    );
                    thread::sleep(PAUSE);
                    continue;
                }
            }
        }
        let Some((child, pipe)) = &mut running else {
            continue;
        };
        let kind: &[u8] = if is_directory { b"d" } else { b"f" };
        let removal = [kind, name.as_str().as_bytes(), b"\0"].concat();
        if let Err(error) = pipe.write_all(&removal) {
            limited!(
                None,
                log::Level::Warn,
                "watchers are not told that {} has gone: {error}",
                name.file()
            );
            if helper
                .compare_exchange(child.id(), 0, SeqCst, SeqCst)
                .is_err()
            {
                return;
            }
            // It is dead, or will be soon. To wait for its end could take long.
            _ = child.try_wait();
            running = None;
            thread::sleep(PAUSE);
        }
        thread::sleep(PACE);
    }
}

fn spawn(words: &[OsString]) -> io::Result<(Child, ChildStdin)> {
    let mut child = Command::new("/proc/self/exe");
    // Without variables that would make it a member of a session: if it outlives this server, it is
    // a caller like any other.
    child.env_clear();
    let mut child = child
        .args(words)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let pipe = child.stdin.take();
    let pipe = pipe.ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
    Ok((child, pipe))
}

/// The helper's side: removes the names that it reads, until there are no more, or until its path
/// leads to another file system: the mount may be detached, and what is below it is not ours.
pub(crate) fn serve(mount: &Path, device: &str, mut removals: impl Read) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let mut removal: Vec<u8> = Vec::new();
    loop {
        let count = removals.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        for byte in &buffer[..count] {
            if *byte == 0 {
                // A reservation has a `/` in its name, and is below `paths/`.
                let dir = if removal.contains(&b'/') {
                    "paths"
                } else {
                    "claims"
                };
                let dir = match open(&mount.join(dir), device) {
                    // The mount is gone.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                    dir => dir?,
                };
                carry_out(&dir, &removal);
                removal.clear();
            } else {
                removal.push(*byte);
            }
        }
    }
}

/// The directory, if it is still that of the mount.
fn open(claims: &Path, device: &str) -> io::Result<File> {
    let dir = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(claims)?;
    let there = dir.metadata()?.dev();
    let there = format!("{}:{}", libc::major(there), libc::minor(there));
    if there == device {
        Ok(dir)
    } else {
        Err(io::Error::other(format!(
            "{}: no longer of the mount",
            claims.display()
        )))
    }
}

/// Removes one name. A refusal, as when the name is held again, changes nothing.
fn carry_out(dir: &File, removal: &[u8]) {
    let Some((kind, name)) = removal.split_first() else {
        return;
    };
    // Below the directory that was checked, even if its path leads elsewhere by now.
    let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    let name = name.strip_prefix(b"paths/").unwrap_or(name);
    let path = path.join(OsStr::from_bytes(name));
    _ = if *kind == b'd' {
        fs::remove_dir(path)
    } else {
        fs::remove_file(path)
    };
}
