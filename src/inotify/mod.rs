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

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::core::Name;
use crate::logging::limited;
use crate::sys::signals;

/// How many names may wait for the helper; watchers are not told of further ones. Long names count
/// several times.
const WAITING_MAX: usize = 65_536;

/// The bytes of a name that count as one.
const SHORT: usize = 256;

/// So many directories are remembered that were passed to the helper. It may never come for one: if
/// the directory above it has gone too.
const PASSED_MAX: usize = 1024;

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

/// How many names of one uid may wait.
const WAITING_OF_UID: usize = WAITING_MAX / 4;

/// A name that has gone.
#[derive(Clone, Debug)]
pub(crate) struct Removal {
    /// The name.
    pub name: Name,
    /// Whether it was a directory.
    pub is_directory: bool,
    /// The uid whose it was. Those of one uid wait for each other, not for those of others.
    pub uid: u32,
}

impl Removal {
    fn weight(&self) -> usize {
        self.name.as_str().len().div_ceil(SHORT)
    }
}

/// The names that wait for the helper: a queue for each uid, and their turns.
#[derive(Debug, Default)]
struct Waiting {
    /// With the weight of each.
    queues: HashMap<u32, (VecDeque<Removal>, usize)>,
    turns: VecDeque<u32>,
    count: usize,
}

impl Waiting {
    /// Adds a name. False if there are too many.
    fn add(&mut self, removal: Removal) -> bool {
        let (uid, weight) = (removal.uid, removal.weight());
        let (queue, own) = self.queues.entry(uid).or_default();
        if self.count + weight > WAITING_MAX || *own + weight > WAITING_OF_UID {
            return false;
        }
        if queue.is_empty() {
            self.turns.push_back(uid);
        }
        queue.push_back(removal);
        *own += weight;
        self.count += weight;
        true
    }

    /// The next name of the uid whose turn it is.
    fn next(&mut self) -> Option<Removal> {
        let uid = self.turns.pop_front()?;
        let (queue, own) = self.queues.get_mut(&uid)?;
        let next = queue.pop_front()?;
        *own -= next.weight();
        self.count -= next.weight();
        if queue.is_empty() {
            self.queues.remove(&uid);
        } else {
            self.turns.push_back(uid);
        }
        Some(next)
    }
}

/// The names that wait, and the thread that waits for them.
#[derive(Debug, Default)]
struct Removals(Mutex<Waiting>, Condvar);

impl Removals {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Removal {
        let mut waiting = self.lock();
        loop {
            if let Some(next) = waiting.next() {
                return next;
            }
            let woken = self.1.wait(waiting);
            waiting = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The server's side.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    /// Set once the thread runs that passes them to the helper.
    removals: OnceLock<Arc<Removals>>,
    /// The helper's pid; 0 while there is none, [`ENDED`] once there will be none.
    helper: Arc<AtomicU32>,
    /// The names that were directories, and wait or were passed to the helper.
    directories: Arc<Mutex<HashSet<Name>>>,
    /// When the last complaint about too many names was logged.
    complained: Mutex<Option<Instant>>,
}

impl Notifier {
    /// Starts the thread that passes names to the helper, which is started with the first of them.
    /// `device` is the mount's device number, as mountinfo shows it: the helper touches nothing
    /// else.
    pub(crate) fn start(&self, mount: &Path, device: &str) -> io::Result<()> {
        let removals = Arc::<Removals>::default();
        let waiting = Arc::clone(&removals);
        let helper = Arc::clone(&self.helper);
        let passed = Passed::new(Arc::clone(&self.directories));
        let words = [OsString::from("notify"), mount.into(), device.into()];
        thread::Builder::new()
            .name(String::from("notifier"))
            .spawn(move || hand_on(&waiting, &words, &helper, passed))?;
        _ = self.removals.set(removals);
        Ok(())
    }

    /// Has watchers told of a name that has gone. Never waits.
    pub(crate) fn tell(&self, removal: &Removal) {
        let Some(removals) = self.removals.get() else {
            return;
        };
        let Removal {
            name, is_directory, ..
        } = removal;
        if *is_directory {
            self.directories().insert(name.clone());
        } else {
            self.directories().remove(name);
        }
        if removals.lock().add(removal.clone()) {
            removals.1.notify_one();
            return;
        }
        self.told(name);
        let complained = self.complained.lock();
        let mut complained = complained.unwrap_or_else(PoisonError::into_inner);
        if complained.is_none_or(|at| at.elapsed() > COMPLAINT) {
            log::warn!(
                "{}: more than {WAITING_OF_UID} names of one user, or {WAITING_MAX} of all, go at once; \
                 watchers are not told of this one and others",
                name.file()
            );
            *complained = Some(Instant::now());
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

/// The directories that were passed to the helper, oldest first.
struct Passed {
    order: VecDeque<Name>,
    directories: Arc<Mutex<HashSet<Name>>>,
}

impl Passed {
    fn new(directories: Arc<Mutex<HashSet<Name>>>) -> Self {
        let order = VecDeque::new();
        Self { order, directories }
    }

    /// Remembers one, and forgets the oldest if there are too many.
    fn add(&mut self, name: Name) {
        self.order.push_back(name);
        if self.order.len() > PASSED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            let directories = self.directories.lock();
            let mut directories = directories.unwrap_or_else(PoisonError::into_inner);
            directories.remove(&oldest);
        }
    }
}

fn hand_on(removals: &Removals, words: &[OsString], helper: &AtomicU32, mut passed: Passed) {
    let mut running: Option<(Child, ChildStdin)> = None;
    loop {
        let Removal {
            name, is_directory, ..
        } = removals.next();
        if helper.load(SeqCst) == ENDED {
            return;
        }
        if is_directory {
            passed.add(name.clone());
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Name, Notifier, PASSED_MAX, Passed, Removal, WAITING_OF_UID, Waiting};

    #[test]
    fn names_of_one_uid_wait_for_each_other_and_not_for_those_of_others() {
        let mut waiting = Waiting::default();
        let removal = |uid, at: usize| Removal {
            name: Name::path(format!("{uid}/{at}").as_bytes()).unwrap(),
            is_directory: false,
            uid,
        };
        let all = (0..WAITING_OF_UID).filter(|at| waiting.add(removal(7, *at)));
        assert_eq!(all.count(), WAITING_OF_UID);
        assert!(!waiting.add(removal(7, 0)));
        assert!(waiting.add(removal(8, 0)) && waiting.add(removal(8, 1)));
        let next: Vec<u32> = (0..5).map(|_| waiting.next().unwrap().uid).collect();
        assert_eq!(next, [7, 8, 7, 8, 7]);
        let rest = std::iter::from_fn(|| waiting.next()).count();
        assert_eq!((rest, waiting.count), (WAITING_OF_UID - 3, 0));
        assert!(waiting.queues.is_empty() && waiting.turns.is_empty());
        let long = Removal {
            name: Name::path([&*"n".repeat(250); 3].join("/").as_bytes()).unwrap(),
            ..removal(7, 0)
        };
        let (most, weight) = (WAITING_OF_UID / long.weight(), long.weight());
        let all = (0..WAITING_OF_UID).filter(|_| waiting.add(long.clone()));
        assert_eq!((all.count(), waiting.count), (most, most * weight));
    }

    #[test]
    fn directories_that_the_helper_never_comes_for_are_forgotten() {
        let notifier = Notifier::default();
        let mut passed = Passed::new(Arc::clone(&notifier.directories));
        let name = |at: usize| Name::path(format!("a/{at}").as_bytes()).unwrap();
        for at in 0..3 * PASSED_MAX {
            notifier.directories().insert(name(at));
            passed.add(name(at));
        }
        assert_eq!(notifier.directories().len(), PASSED_MAX);
        assert!(notifier.was_directory(&name(3 * PASSED_MAX - 1)));
        assert!(!notifier.was_directory(&name(0)));
    }
}
