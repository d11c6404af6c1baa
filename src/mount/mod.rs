//! A mount's life: what must be there before it, how its parts are wired, and how it ends.
//!
//! Promises: an error is a sentence that names the thing, the reason and the way out; SIGTERM and SIGINT unmount; a
//! mount of ours that lost its server is cleaned away, anybody else's never.
//!
//! Deliberately ignorant of: every rule.

pub mod holder;
pub mod state_dir;
pub mod takeover;

use std::cell::RefCell;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::state_dir::{LOCK, SERVING};
use crate::core::agents::Agent;
use crate::process::{Search, Signals, effective_uid, expect_children, keep_private};
use crate::supervisor::{self, Charge, Told, device};
use crate::sys::mountinfo::{self, FS_TYPE};

/// How many leases a mount holds unless it is told otherwise.
pub const DEFAULT_MAX_LEASES: usize = 1 << 20;

/// What to mount, and how.
// Each is a switch of the command line.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where: an absolute path without symlinks.
    pub dir: PathBuf,
    /// Where the server keeps its log and its lock.
    pub state_dir: PathBuf,
    /// Session variables, in the order in which they are asked for.
    pub variables: Vec<Arc<str>>,
    /// The coding agents that are known.
    pub agents: Vec<Agent>,
    /// How many leases there may be.
    pub max_leases: usize,
    /// How many leases, sessions or places in lines a uid may have; root may have all.
    pub max_per_uid: usize,
    /// A corrupt journal is set aside.
    pub repair: bool,
    /// Scratch entries with a leading dot are admitted.
    pub dotfiles: bool,
    /// Mount over a directory that is not empty.
    pub nonempty: bool,
    /// After the death of a server, as on a kernel that sends nothing again.
    pub without_resend: bool,
    /// Nothing that was read of a process is kept.
    pub without_caches: bool,
    /// Where to look for how processes ended.
    pub endings: Search,
    /// Flags of the mount.
    pub options: device::Options,
}

/// A reason not to mount, as a sentence for a person.
#[derive(Debug)]
pub struct Problem(pub String);

impl Problem {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// An absolute path without symlinks for a directory that may be a dead mount, or be missing.
pub fn resolve_dir(dir: &Path) -> Result<PathBuf, Problem> {
    match fs::canonicalize(dir) {
        Ok(path) => Ok(path),
        Err(error)
            if error.raw_os_error() == Some(libc::ENOTCONN)
                || error.kind() == io::ErrorKind::NotFound =>
        {
            beneath_parent(dir).map_err(|problem| match error.kind() {
                io::ErrorKind::NotFound => missing(dir, &error),
                _ => problem,
            })
        }
        Err(error) => Err(Problem::new(format!("{}: {error}", dir.display()))),
    }
}

fn missing(dir: &Path, error: &io::Error) -> Problem {
    Problem::new(format!(
        "{}: there is no such directory and it cannot be made: {error}; make it first",
        dir.display()
    ))
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
    /// Everything that can be known to be wrong before mounting. Makes the directory if there is none, cleans a dead mount of this very
    /// plan away, and ends a server from before whose mount is gone: `tell` takes sentences about those whom that concerns.
    pub fn check(&self, tell: &mut dyn FnMut(&str)) -> Result<(), Problem> {
        let dir = self.dir.display();
        if !Path::new(device::DEVICE).exists() {
            return Err(Problem::new(format!(
                "{}: there is no such device; load the module with 'modprobe fuse', or give the container {0}",
                device::DEVICE
            )));
        }
        state_dir::check_apart(&self.state_dir, &self.dir)?;
        if let Some(fault) = state_dir::faults(&self.state_dir).into_iter().next() {
            return Err(Problem::new(fault));
        }
        let there = mountinfo::on(&self.dir)
            .map_err(|error| Problem::new(format!("/proc/self/mountinfo: {error}")))?;
        let metadata = fs::metadata(&self.dir);
        if metadata.as_ref().is_err_and(is_disconnected) {
            self.clean_dead(there.as_ref(), tell)?;
            return self.check(tell);
        }
        if let Some(mount) = there.filter(|mount| mount.fs_type == FS_TYPE) {
            if self.has_lost_supervisor(&mount) {
                self.make_way(tell)?;
                return self.check(tell);
            }
            return Err(self.is_mounted(&mount));
        }
        if metadata.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            self.make_way(tell)?;
            return fs::create_dir(&self.dir).map_err(|error| missing(&self.dir, &error));
        }
        let metadata = fs::metadata(&self.dir).map_err(|error| self.failed(&error))?;
        if !metadata.is_dir() {
            return Err(Problem::new(format!(
                "{dir}: not a directory; name one to mount on"
            )));
        }
        let mut entries = fs::read_dir(&self.dir).map_err(|error| self.failed(&error))?;
        if !self.nonempty && entries.next().is_some() {
            return Err(Problem::new(format!(
                "{dir}: not empty; name an empty directory, or hide what is in it with '-o nonempty'"
            )));
        }
        self.make_way(tell)
    }

    /// Whether the mount that is there is of this plan, and its supervisor is dead, but not its server.
    fn has_lost_supervisor(&self, mount: &mountinfo::Mount) -> bool {
        holder::same_place(&mount.source, &self.state_dir)
            && !holder::is_locked(&self.state_dir.join(LOCK))
            && holder::is_locked(&self.state_dir.join(SERVING))
    }

    /// The sentence for a directory that has a mount.
    fn is_mounted(&self, mount: &mountinfo::Mount) -> Problem {
        let dir = self.dir.display();
        let me = effective_uid();
        let other = mount.owner().filter(|owner| *owner != me);
        let remedy = match (other, mountinfo::is_denied(&self.dir)) {
            (None, _) => format!("use it, or unmount it with 'claimfs umount {dir}'"),
            (Some(owner), true) if me == 0 => format!(
                "by uid {owner}, for that user alone; name another directory, or unmount it with 'claimfs umount {dir}'"
            ),
            (Some(owner), true) => format!(
                "by uid {owner}, for that user alone; name another directory, or have that user or root unmount it"
            ),
            (Some(_), false) if me == 0 => {
                format!("use it, or unmount it with 'claimfs umount {dir}'")
            }
            (Some(owner), false) => {
                format!("use it, or have uid {owner}, who mounted it, or root unmount it")
            }
        };
        Problem::new(format!("{dir}: claimfs is already mounted here; {remedy}"))
    }

    fn clean_dead(
        &self,
        there: Option<&mountinfo::Mount>,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(), Problem> {
        let dir = self.dir.display();
        let Some(mount) = there.filter(|mount| mount.fs_type == FS_TYPE) else {
            return Err(Problem::new(format!(
                "{dir}: a dead mount that is not claimfs's is here; unmount it with 'umount -l {dir}'"
            )));
        };
        if !holder::same_place(&mount.source, &self.state_dir) {
            return Err(Problem::new(format!(
                "{dir}: the dead mount here has its state in {}, not in {}; give '--state-dir {0}' to go on with it, \
                 or unmount it with 'claimfs umount {dir}'",
                mount.source.display(),
                self.state_dir.display(),
            )));
        }
        // The dead mount is the last that remembers that a server of this boot began here.
        if !self.repair && state_dir::is_without_journal(&self.state_dir) {
            return Err(Problem::new(format!(
                "{dir}: the journal of the dead mount here is missing in {}; whoever claimed here may be alive, so nothing is \
                 served; once they are gone, 'claimfs mount --repair' begins with nothing held",
                self.state_dir.display()
            )));
        }
        self.make_way(tell)?;
        // Whoever else mounts here has it, or will find that nothing is left to be cleaned.
        let _lock = state_dir::lock(&self.state_dir, LOCK)?;
        let is_dead = || fs::metadata(&self.dir).is_err_and(|error| is_disconnected(&error));
        match device::unmount(&self.dir, true) {
            Err(error) if is_dead() => Err(Problem::new(format!(
                "{dir}: the dead mount here cannot be unmounted: {error}"
            ))),
            _ => Ok(()),
        }
    }

    /// Makes the state directory, and what is in it private.
    pub fn make_state_dir(&self) -> Result<(), Problem> {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.state_dir);
        made.map_err(|error| {
            Problem::new(format!(
                "{0}: the state directory cannot be made: {error}; make it first, with 'mkdir -m 700 {0}'",
                self.state_dir.display()
            ))
        })?;
        state_dir::make_private(&self.state_dir);
        Ok(())
    }

    /// Where a server in the background logs to.
    pub fn log_file(&self) -> PathBuf {
        self.state_dir.join("log")
    }

    /// Mounts, and keeps servers on the mount until it is gone. `words` make a server of this program.
    pub fn supervise(
        &self,
        program: PathBuf,
        words: Vec<OsString>,
        tell: impl FnMut(Told),
    ) -> Result<(), Problem> {
        self.check(&mut |text| log::warn!("{text}"))?;
        keep_private();
        self.make_state_dir()?;
        let _lock = state_dir::lock(&self.state_dir, LOCK)?;
        // Kept before any thread starts, so that none of them is killed by one.
        let signals = Signals::keep(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP]);
        // Whoever started this may ignore the end of children, and their pids would be used again.
        expect_children();
        let mounted = RefCell::new(None);
        let mount = || {
            let device = device::mount(&self.dir, &self.state_dir, &self.options);
            let device = device.map_err(|error| self.explain(&error).0)?;
            mounted.replace(self.device(&device));
            Ok(device)
        };
        let unmount = || {
            let is_there = self.is_on_top(mounted.borrow().as_deref());
            if is_there {
                _ = device::unmount(&self.dir, true);
            }
            is_there
        };
        let charge = Charge {
            mount: &mount,
            unmount: &unmount,
            words,
            first_words: if self.repair { &["--repair"] } else { &[] },
            program,
            without_resend: self.without_resend,
        };
        supervisor::keep(&charge, signals, tell)
            .map_err(|why| Problem::new(format!("{}: {why}", self.dir.display())))
    }

    /// The number of the device of the mount that is served on a descriptor, as mountinfo has it. Where the kernel does not say it, that
    /// of the mount on the directory, if it has this state directory.
    pub(crate) fn device(&self, device: &impl AsRawFd) -> Option<String> {
        holder::served_on(device).or_else(|| {
            let there = mountinfo::on(&self.dir).ok()??;
            let is_its = there.fs_type == FS_TYPE && there.source == self.state_dir;
            is_its.then_some(there.device)
        })
    }

    /// Whether the mount of a device is what is on the directory: it may be gone from there, and another mount be in its place.
    pub(crate) fn is_on_top(&self, device: Option<&str>) -> bool {
        let there = mountinfo::on(&self.dir).ok().flatten();
        there.is_some_and(|there| Some(&*there.device) == device)
    }

    pub(crate) fn failed(&self, error: &io::Error) -> Problem {
        Problem::new(format!("{}: {error}", self.dir.display()))
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
                device::DEVICE
            ));
        }
        Problem::new(format!("{dir}: {error}"))
    }
}

/// What a mount answers whose server is gone.
fn is_disconnected(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOTCONN)
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
