//! The mount of a caller who names no directory, and the mounts that make another one unnecessary.
//!
//! Promises: no call here hangs on a mount whose server does not answer; nothing is changed.
//!
//! Does not know: how to mount.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::core::failure::Failure;
use crate::sys::ids::{effective_uid, is_root};
use crate::sys::mountinfo::{self, Mount};

/// Where the default mount of root is.
pub(crate) const OF_ROOT: &str = "/run/claims";

/// The variable that names a user's directory for the time of a login, and the name of the default
/// mount in it.
const RUNTIME: &str = "XDG_RUNTIME_DIR";
const NAME: &str = "claims";

/// How long a mount may take to answer. A mount that is being made answers once it is ready.
const PATIENCE: Duration = Duration::from_secs(20);

/// The directory of the caller's default mount: [`OF_ROOT`] for root, `$XDG_RUNTIME_DIR/claims` for
/// a user. `verb` is the command that needs it.
pub(crate) fn dir(verb: &str) -> Result<PathBuf, Failure> {
    let me = effective_uid();
    if me == 0 {
        return Ok(PathBuf::from(OF_ROOT));
    }
    let Some(runtime) = env::var_os(RUNTIME).filter(|dir| !dir.is_empty()) else {
        return Err(Failure::unavailable(format!(
            "{RUNTIME} is not set, so you have no usual directory for a mount; give one, as in 'claimfs {verb} DIR'"
        )));
    };
    let runtime = PathBuf::from(runtime);
    let why = match fs::metadata(&runtime) {
        _ if runtime.is_relative() => String::from("not an absolute path"),
        Err(error) => error.to_string(),
        Ok(there) if !there.is_dir() => String::from("not a directory"),
        Ok(there) if there.uid() != me => format!("owned by uid {}, and you are {me}", there.uid()),
        Ok(_) => return Ok(runtime.join(NAME)),
    };
    Err(Failure::unavailable(format!(
        "{RUNTIME}={}: {why}; give a directory, as in 'claimfs {verb} DIR'",
        runtime.display()
    )))
}

/// Refuses `--allow-other` where others cannot reach the mount: a directory above it is closed.
pub(crate) fn check_reachable(dir: &Path) -> Result<(), Failure> {
    let is_closed =
        |above: &&Path| fs::metadata(above).is_ok_and(|there| there.mode() & 0o001 == 0);
    match dir.ancestors().skip(1).find(is_closed) {
        None => Ok(()),
        Some(closed) => Err(Failure::unavailable(format!(
            "{}: --allow-other would admit nobody here, as {} is closed to others; give a directory that they reach, as in \
             'claimfs mount --allow-other DIR'",
            dir.display(),
            closed.display()
        ))),
    }
}

/// The answer of a mount to this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It can be used.
    Usable,
    /// It admits other users only.
    Denied,
    /// Its server is gone (`ENOTCONN`), or went while it was asked (`ECONNABORTED`).
    Dead,
    /// It did not answer in time.
    Silent,
    /// It has no `README`, so it is no whole claimfs.
    Other,
}

/// Asks the mount on a directory, and waits for its answer, also while it is being made.
pub(crate) fn ask(dir: &Path) -> Answer {
    answer(&asked(dir), Instant::now() + PATIENCE)
}

fn asked(dir: &Path) -> Receiver<Answer> {
    let (sender, receiver) = mpsc::channel();
    let file = dir.join("README");
    thread::spawn(move || {
        let answer = match fs::read(file) {
            Ok(_) => Answer::Usable,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Answer::Denied,
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOTCONN | libc::ECONNABORTED) => Answer::Dead,
                _ => Answer::Other,
            },
        };
        sender.send(answer)
    });
    receiver
}

fn answer(asked: &Receiver<Answer>, until: Instant) -> Answer {
    let left = until.saturating_duration_since(Instant::now());
    asked.recv_timeout(left).unwrap_or(Answer::Silent)
}

/// The mounts that count where none is named: each file system once, and for root only those of
/// root. Another user's server could tell root that a name is free, or held.
pub(crate) fn candidates() -> io::Result<Vec<Mount>> {
    let ours: Vec<Mount> = mountinfo::ours()?.into_iter().filter(counts).collect();
    let usual: Vec<PathBuf> = dir("mount").into_iter().chain([OF_ROOT.into()]).collect();
    Ok(mountinfo::distinct(&ours, &usual))
}

/// Whether a mount counts for the caller although nobody named it.
pub(crate) fn counts(mount: &Mount) -> bool {
    mount.owner().is_none_or(|owner| owner == 0) || !is_root()
}

/// A mount on another directory than this one that the caller can use. A mount that does not answer
/// in time counts, since it may answer later.
pub(crate) fn elsewhere(dir: Option<&Path>) -> io::Result<Option<Mount>> {
    let others = candidates()?.into_iter();
    let others = others.filter(|mount| Some(&*mount.dir) != dir);
    // All are asked before the first answer is waited for.
    let asked: Vec<_> = others.map(|mount| (asked(&mount.dir), mount)).collect();
    let until = Instant::now() + PATIENCE;
    let mut asked = asked.into_iter();
    let usable =
        asked.find(|(asked, _)| matches!(answer(asked, until), Answer::Usable | Answer::Silent));
    Ok(usable.map(|(_, mount)| mount))
}
