//! A mount's life: what must be there before it, how its parts are wired, and how it ends.
//!
//! Promises: an error is a sentence that names the thing, the reason and the way out; SIGTERM and SIGINT unmount; a
//! mount of ours that lost its server is cleaned away, anybody else's never.
//!
//! Deliberately ignorant of: every rule.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, panic, process, thread};

use fuser::{Session, SessionACL};

use crate::fs::ClaimFs;
use crate::herald::Herald;
use crate::journal::{self, Disk, Recovered, Unusable};
use crate::keeper;
use crate::metrics::Metrics;
use crate::mounts::{self, FS_TYPE};
use crate::news::News;
use crate::process::{
    Boot, Processes, Signals, effective_uid, expect_children, raise_descriptor_limit,
};
use crate::reaper;
use crate::store::Store;
use crate::tree::Tree;

/// How many leases a mount holds unless it is told otherwise.
pub const DEFAULT_MAX_LEASES: usize = 1 << 20;

/// What to mount, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where: an absolute path without symlinks.
    pub dir: PathBuf,
    /// Where the server keeps its log and its lock.
    pub state_dir: PathBuf,
    /// Session variables, in the order in which they are asked for.
    pub variables: Vec<Arc<str>>,
    /// How many leases there may be.
    pub max_leases: usize,
    /// A corrupt journal is set aside.
    pub repair: bool,
    /// Scratch entries with a leading dot are admitted.
    pub dotfiles: bool,
    /// Mount over a directory that is not empty.
    pub nonempty: bool,
    /// Flags of the mount.
    pub options: keeper::Options,
}

/// A reason not to mount, as a sentence for a person.
#[derive(Debug)]
pub struct Problem(pub String);

impl Problem {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// An absolute path without symlinks for a directory that may be a dead mount, and is made if it does not exist.
pub fn resolve_dir(dir: &Path) -> Result<PathBuf, Problem> {
    let shown = dir.display();
    match fs::canonicalize(dir) {
        Ok(path) => return Ok(path),
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(dir).map_err(|error| {
            Problem::new(format!("{shown}: there is no such directory and it cannot be made: {error}; make it first"))
        })?,
        Err(error) => return Err(Problem::new(format!("{shown}: {error}"))),
    }
    beneath_parent(dir)
}

/// An absolute path without symlinks for a directory that exists, and may be a dead mount.
pub fn resolve_existing(dir: &Path) -> Result<PathBuf, Problem> {
    match fs::canonicalize(dir) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => beneath_parent(dir),
        result => result.map_err(|error| Problem::new(format!("{}: {error}", dir.display()))),
    }
}

fn beneath_parent(dir: &Path) -> Result<PathBuf, Problem> {
    let shown = dir.display();
    let name = dir
        .file_name()
        .ok_or_else(|| Problem::new(format!("{shown}: give the path of a directory")))?;
    let parent = dir
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let parent =
        fs::canonicalize(parent).map_err(|error| Problem::new(format!("{shown}: {error}")))?;
    Ok(parent.join(name))
}

/// The state directory that a mount has unless it is told otherwise: `/var/lib/claimfs/ESCAPED-DIR` for root, the
/// same below `$XDG_STATE_HOME` (`~/.local/state`) for a user.
pub fn default_state_dir(dir: &Path) -> Result<PathBuf, Problem> {
    let base = if effective_uid() == 0 {
        PathBuf::from("/var/lib")
    } else if let Some(base) = env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|base| base.is_absolute())
    {
        base
    } else {
        let home = env::var_os("HOME").ok_or_else(|| {
            Problem::new("neither XDG_STATE_HOME nor HOME is set: say where the state belongs with --state-dir DIR")
        })?;
        PathBuf::from(home).join(".local/state")
    };
    Ok(base.join("claimfs").join(escape(dir)))
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

impl Plan {
    /// Everything that can be known to be wrong before mounting. Cleans a dead mount of this very plan away.
    pub fn check(&self) -> Result<(), Problem> {
        let dir = self.dir.display();
        if !Path::new(keeper::DEVICE).exists() {
            return Err(Problem::new(format!(
                "{}: there is no such device; load the module with 'modprobe fuse', or give the container {0}",
                keeper::DEVICE
            )));
        }
        let there = mounts::on(&self.dir)
            .map_err(|error| Problem::new(format!("/proc/self/mountinfo: {error}")))?;
        let metadata = fs::metadata(&self.dir);
        if metadata
            .as_ref()
            .is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN))
        {
            self.clean_dead(there.as_ref())?;
            return self.check();
        }
        if there.is_some_and(|mount| mount.fs_type == FS_TYPE) {
            return Err(Problem::new(format!(
                "{dir}: claimfs is already mounted here; use it, or unmount it with 'claimfs umount {dir}'"
            )));
        }
        let metadata = metadata.map_err(|error| Problem::new(format!("{dir}: {error}")))?;
        if !metadata.is_dir() {
            return Err(Problem::new(format!(
                "{dir}: not a directory; name one to mount on"
            )));
        }
        let mut entries =
            fs::read_dir(&self.dir).map_err(|error| Problem::new(format!("{dir}: {error}")))?;
        if !self.nonempty && entries.next().is_some() {
            return Err(Problem::new(format!(
                "{dir}: not empty; name an empty directory, or hide what is in it with '-o nonempty'"
            )));
        }
        Ok(())
    }

    fn clean_dead(&self, there: Option<&mounts::Mount>) -> Result<(), Problem> {
        let dir = self.dir.display();
        let Some(mount) = there.filter(|mount| mount.fs_type == FS_TYPE) else {
            return Err(Problem::new(format!(
                "{dir}: a dead mount that is not claimfs's is here; unmount it with 'umount -l {dir}'"
            )));
        };
        if mount.source != self.state_dir {
            return Err(Problem::new(format!(
                "{dir}: the dead mount here has its state in {}, not in {}; give '--state-dir {0}' to go on with it, \
                 or unmount it with 'claimfs umount {dir}'",
                mount.source.display(),
                self.state_dir.display(),
            )));
        }
        keeper::unmount(&self.dir, true).map_err(|error| {
            Problem::new(format!(
                "{dir}: the dead mount here cannot be unmounted: {error}"
            ))
        })
    }

    /// Makes the state directory.
    pub fn make_state_dir(&self) -> Result<(), Problem> {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.state_dir);
        made.map_err(|error| {
            Problem::new(format!(
                "{}: the state directory cannot be made: {error}; name another with --state-dir DIR",
                self.state_dir.display()
            ))
        })
    }

    /// Where a server in the background logs to.
    pub fn log_file(&self) -> PathBuf {
        self.state_dir.join("log")
    }

    fn lock_state_dir(&self) -> Result<File, Problem> {
        let path = self.state_dir.join("lock");
        let problem =
            |error: &dyn std::fmt::Display| Problem::new(format!("{}: {error}", path.display()));
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let mut file = open.map_err(|error| problem(&error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let owner = io::read_to_string(&file).unwrap_or_default();
                return Err(Problem::new(format!(
                    "{}: another server (pid {}) has this state directory; name another with --state-dir DIR",
                    self.state_dir.display(),
                    owner.trim(),
                )));
            }
            Err(TryLockError::Error(error)) => return Err(problem(&error)),
        }
        file.set_len(0).map_err(|error| problem(&error))?;
        writeln!(file, "{}", process::id()).map_err(|error| problem(&error))?;
        Ok(file)
    }

    /// Mounts and serves until the mount is gone. `ready` is called when requests are answered.
    pub fn serve(&self, ready: impl FnOnce()) -> Result<(), Problem> {
        self.check()?;
        self.make_state_dir()?;
        let _lock = self.lock_state_dir()?;
        panic::set_hook(Box::new(end_unless_caught));
        // Kept before any thread starts, so that none of them is killed by one.
        let signals = Signals::keep(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP]);
        // Whoever started this may ignore the end of children, and their pids would be used again.
        expect_children();
        if let Err(error) = raise_descriptor_limit() {
            log::warn!("the limit of descriptors stays as it is: {error}");
        }
        let failed = |error: io::Error| Problem::new(format!("{}: {error}", self.dir.display()));
        let herald = Arc::new(Herald::default());
        let boot = Boot::current().map_err(failed)?;
        let recovered = journal::read(&self.state_dir, &boot, self.max_leases, self.repair)
            .map_err(|Unusable(text)| Problem::new(text))?;
        let disk = Disk::begin(&self.state_dir, boot, &recovered).map_err(|error| {
            Problem::new(format!(
                "{}: the journal cannot be written: {error}; make room there, or name another with --state-dir DIR",
                self.state_dir.display()
            ))
        })?;
        let fs = self.wire(&herald, disk, recovered).map_err(failed)?;
        let device = keeper::mount(&self.dir, &self.state_dir, &self.options)
            .map_err(|error| self.explain(&error))?;
        let mut config = fuser::Config::default();
        config.n_threads = Some(2);
        let acl = if self.options.allow_other {
            SessionACL::All
        } else {
            SessionACL::Owner
        };
        let session = Session::from_fd(fs, device, acl, config)
            .inspect_err(|_| _ = keeper::unmount(&self.dir, true));
        let session = session.map_err(failed)?;
        log::info!(
            "mounted on {}, state in {}",
            self.dir.display(),
            self.state_dir.display()
        );
        if let Some(there) = mounts::on(&self.dir).map_err(failed)? {
            herald.start(&self.dir, &there.device).map_err(failed)?;
        }
        let dir = self.dir.clone();
        let watch = thread::Builder::new().name(String::from("signals"));
        watch
            .spawn(move || unmount_on(&signals, &dir, &herald))
            .map_err(failed)?;
        ready();
        let served = session.run();
        if let Err(error) = &served {
            log::error!("the mount on {} breaks off: {error}", self.dir.display());
            _ = keeper::unmount(&self.dir, true);
        }
        log::info!("no longer mounted on {}", self.dir.display());
        served.map_err(failed)
    }

    fn wire(&self, herald: &Arc<Herald>, disk: Disk, recovered: Recovered) -> io::Result<ClaimFs> {
        if let Some(lost) = &recovered.lost {
            log::warn!("{lost}");
        }
        let Recovered {
            table, same_boot, ..
        } = recovered;
        let metrics = Arc::new(Metrics::default());
        let news = Arc::new(News::default());
        let processes = Arc::new(Processes::new(self.variables.clone())?);
        let store = Store::new(
            table,
            Box::new(disk),
            Arc::clone(&processes),
            Arc::clone(&metrics),
            Arc::clone(&news),
            Arc::clone(herald),
        );
        let store = Arc::new(store);
        store.recover(same_boot);
        reaper::start(processes, Arc::clone(&store))?;
        let (uid, gid) = crate::process::real_ids();
        ClaimFs::new(Tree::new(
            store,
            metrics,
            news,
            Arc::clone(herald),
            self.dotfiles,
            uid,
            gid,
        ))
    }

    /// Why mounting failed, and the way out.
    fn explain(&self, error: &io::Error) -> Problem {
        let dir = self.dir.display();
        if error.kind() == io::ErrorKind::NotFound {
            return Problem::new(format!(
                "{dir}: only root may mount without fusermount3, which is not installed; \
                 install it ('apt install fuse3') or mount as root"
            ));
        }
        if error.to_string().contains("user_allow_other") {
            return Problem::new(format!(
                "{dir}: --allow-other is for root unless 'user_allow_other' stands in /etc/fuse.conf; \
                 put it there, or mount without --allow-other"
            ));
        }
        if error.raw_os_error() == Some(libc::EACCES) {
            return Problem::new(format!(
                "{dir}: {} cannot be opened: {error}; mount as root, or as a user who may open it",
                keeper::DEVICE
            ));
        }
        Problem::new(format!("{dir}: {error}"))
    }
}

/// A panic in a handler is caught and answered. Any other leaves a request without an answer and whoever made it
/// waiting for ever, deaf to SIGKILL: better that the server ends, and the kernel answers them all.
fn end_unless_caught(panic: &panic::PanicHookInfo) {
    log::error!("{panic}");
    if !crate::fs::is_handling() {
        process::abort();
    }
}

/// Waits for a signal and unmounts; a mount that is in use is detached, and whoever uses it is told ENOTCONN.
fn unmount_on(signals: &Signals, dir: &Path, herald: &Herald) {
    loop {
        let (signal, _) = signals.wait();
        if signal == libc::SIGHUP {
            continue;
        }
        log::info!("signal {signal}: unmounting {}", dir.display());
        herald.end();
        match keeper::unmount(dir, false) {
            // The session ends by itself, and the process with it.
            Ok(()) => return,
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                log::warn!("{} is in use; it is detached", dir.display());
                _ = keeper::unmount(dir, true);
                process::exit(0);
            }
            Err(error) => log::error!("{} cannot be unmounted: {error}", dir.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Path, escape};

    #[test]
    fn a_path_becomes_a_file_name_as_systemd_makes_it() {
        // What `systemd-escape --path` prints for them.
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
