//! Checks before a mount is made, and mounting itself.
//!
//! Promises: an error is a sentence that names the thing, the reason and the way out; a dead mount
//! of this plan is removed, and never anybody else's.
//!
//! Does not know: any rule. Serving is `Plan::serve` in `server`.

pub(crate) mod default_mount;
pub(crate) mod holder;
pub(crate) mod state_dir;
pub(crate) mod takeover;

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::default_mount::Answer;
use self::state_dir::{Lock, StateDir};
use crate::core::agents::Agent;
use crate::core::failure::Failure;
use crate::core::scaffolding::Limits;
use crate::process::Search;
use crate::supervisor::{self, Notice, Service, device};
use crate::sys::files::keep_private;
use crate::sys::ids::effective_uid;
use crate::sys::mountinfo::{self, FS_TYPE};
use crate::sys::signals::{Signals, expect_children};

/// How many leases a mount holds by default.
pub(crate) const DEFAULT_MAX_LEASES: usize = 1 << 20;

/// The plan of a mount: the directory and the options.
// Each is a switch of the command line.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where: an absolute path without symlinks.
    pub dir: PathBuf,
    /// Where the log and the state are kept.
    pub state_dir: StateDir,
    /// Session variables. The first that is set counts.
    pub variables: Vec<Arc<str>>,
    /// The known coding agents.
    pub agents: Vec<Agent>,
    /// How many leases there may be.
    pub max_leases: usize,
    /// How many leases, sessions or places in queues each uid may have; root may have all.
    pub max_per_uid: usize,
    /// Set a corrupt journal aside.
    pub repair: bool,
    /// Admit scratch entries, which have a leading dot.
    pub dotfiles: bool,
    /// Mount over a directory that is not empty.
    pub nonempty: bool,
    /// After the death of a server, act as on a kernel that sends nothing again.
    pub without_resend: bool,
    /// Cache nothing that was read of a process.
    pub without_caches: bool,
    /// Where to read how processes ended.
    pub endings: Search,
    /// The limits of the directories below `paths/`.
    pub scaffolding: Limits,
    /// Flags of the mount.
    pub options: device::Options,
}

/// An absolute path without symlinks for a directory that may be a dead mount, or be missing.
pub(crate) fn resolve_dir(dir: &Path) -> Result<PathBuf, Failure> {
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
        Err(error) => Err(Failure::unavailable(format!("{}: {error}", dir.display()))),
    }
}

fn missing(dir: &Path, error: &io::Error) -> Failure {
    Failure::unavailable(format!(
        "{}: there is no such directory and it cannot be made: {error}; make it first",
        dir.display()
    ))
}

/// An absolute path without symlinks for a directory that exists, and may be a dead mount.
pub(crate) fn resolve_existing(dir: &Path) -> Result<PathBuf, Failure> {
    match fs::canonicalize(dir) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => beneath_parent(dir),
        result => {
            result.map_err(|error| Failure::unavailable(format!("{}: {error}", dir.display())))
        }
    }
}

fn beneath_parent(dir: &Path) -> Result<PathBuf, Failure> {
    let shown = dir.display();
    let name = dir
        .file_name()
        .ok_or_else(|| Failure::unavailable(format!("{shown}: give the path of a directory")))?;
    let parent = dir
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let parent = fs::canonicalize(parent)
        .map_err(|error| Failure::unavailable(format!("{shown}: {error}")))?;
    Ok(parent.join(name))
}

/// The sentence for a directory that has a mount.
fn is_mounted(dir: &Path, mount: &mountinfo::Mount) -> Failure {
    let is_denied = mountinfo::is_denied(dir);
    let (dir, me) = (dir.display(), effective_uid());
    let other = mount.owner().filter(|owner| *owner != me);
    let remedy = match (other, is_denied) {
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
    Failure::unavailable(format!("{dir}: claimfs is already mounted here; {remedy}"))
}

/// The topmost mount on a directory.
fn topmost(dir: &Path) -> Result<Option<mountinfo::Mount>, Failure> {
    mountinfo::on(dir)
        .map_err(|error| Failure::unavailable(format!("/proc/self/mountinfo: {error}")))
}

/// The claimfs on a directory, once it answers this process. `None` if there is none, or if its
/// server is gone. An error if it does not admit this process or does not answer, or if another
/// file system is mounted there.
pub(crate) fn usable_on(dir: &Path) -> Result<Option<mountinfo::Mount>, Failure> {
    let Some(mount) = topmost(dir)? else {
        return Ok(None);
    };
    let shown = dir.display();
    if mount.fs_type != FS_TYPE || mount.root != Path::new("/") {
        let there = match &*mount.fs_type {
            FS_TYPE => String::from("only a part of a claimfs"),
            other => format!("{other}, not claimfs,"),
        };
        return Err(Failure::unavailable(format!(
            "{shown}: {there} is mounted here; unmount it with 'umount {shown}', or give another directory"
        )));
    }
    let answer = default_mount::ask(dir);
    // It may have been taken away meanwhile, and another be there, even one of the same numbers:
    // what answered first may have been neither.
    let is_another = || {
        let is_same = topmost(dir)?.as_ref() == Some(&mount);
        Ok::<_, Failure>(!is_same || default_mount::ask(dir) != answer)
    };
    if answer != Answer::Usable && is_another()? {
        return usable_on(dir);
    }
    match answer {
        Answer::Usable => Ok(Some(mount)),
        Answer::Dead => Ok(None),
        Answer::Denied => Err(is_mounted(dir, &mount)),
        Answer::Silent | Answer::Other => Err(Failure::unavailable(format!(
            "{shown}: claimfs is mounted here and does not answer; see 'claimfs doctor', or take it away with \
             'claimfs umount --lazy {shown}'"
        ))),
    }
}

impl Plan {
    /// Refuses what can be known to be wrong before mounting, and changes nothing.
    pub(crate) fn inspect(&self) -> Result<(), Failure> {
        let dir = self.dir.display();
        if !Path::new(device::DEVICE).exists() {
            return Err(Failure::unavailable(format!(
                "{}: there is no such device; load the module with 'modprobe fuse', or give the container {0}",
                device::DEVICE
            )));
        }
        self.check_outside()?;
        self.state_dir.check_apart(&self.dir)?;
        if let Some(fault) = self.state_dir.faults().into_iter().next() {
            return Err(Failure::unavailable(fault));
        }
        let there = topmost(&self.dir)?.filter(|mount| mount.fs_type == FS_TYPE);
        if is_dead(&self.dir) {
            return Ok(());
        }
        let metadata = match (fs::metadata(&self.dir), there) {
            (_, Some(mount)) if self.has_lost_supervisor(&mount) => return Ok(()),
            (_, Some(mount)) => return Err(is_mounted(&self.dir, &mount)),
            (Err(error), None) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            (metadata, None) => metadata.map_err(|error| self.failed(&error))?,
        };
        if !metadata.is_dir() {
            return Err(Failure::unavailable(format!(
                "{dir}: not a directory; name one to mount on"
            )));
        }
        let mut entries = fs::read_dir(&self.dir).map_err(|error| self.failed(&error))?;
        if !self.nonempty && entries.next().is_some() {
            return Err(Failure::unavailable(format!(
                "{dir}: not empty; name an empty directory, or hide what is in it with '-o nonempty'"
            )));
        }
        Ok(())
    }

    /// Refuses the same, makes the directory if there is none, removes a dead mount of this plan,
    /// and ends an earlier server whose mount is gone. `tell` gets sentences about the processes
    /// that this affects.
    pub(crate) fn check(&self, tell: &mut dyn FnMut(&str)) -> Result<(), Failure> {
        self.inspect()?;
        let there = topmost(&self.dir)?;
        if is_dead(&self.dir) {
            self.clean_dead(there.as_ref(), tell)?;
            return self.check(tell);
        }
        match fs::metadata(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_way(tell)?;
                // Others can enter it, as the umask may not have it.
                let made = fs::create_dir(&self.dir);
                let open = || fs::set_permissions(&self.dir, PermissionsExt::from_mode(0o755));
                return made
                    .and_then(|()| open())
                    .map_err(|error| missing(&self.dir, &error));
            }
            _ => self.make_way(tell)?,
        }
        // The mount of a server that had lost its supervisor is dead now.
        match there.filter(|mount| mount.fs_type == FS_TYPE) {
            Some(_) => self.check(tell),
            None => Ok(()),
        }
    }

    /// Refuses a directory in a claimfs: a claim there would be one name of the other's.
    fn check_outside(&self) -> Result<(), Failure> {
        let around = mountinfo::holding(&self.dir)
            .map_err(|error| Failure::unavailable(format!("/proc/self/mountinfo: {error}")))?;
        match around.filter(|mount| mount.fs_type == FS_TYPE && mount.dir != self.dir) {
            None => Ok(()),
            Some(mount) => Err(Failure::unavailable(format!(
                "{}: in the claimfs that is mounted on {}, where directories are claims; name a directory outside of it",
                self.dir.display(),
                mount.dir.display()
            ))),
        }
    }

    /// Whether a mount is of this plan, and its server has outlived its supervisor.
    fn has_lost_supervisor(&self, mount: &mountinfo::Mount) -> bool {
        let is_locked = |lock| holder::is_locked(&self.state_dir.lock(lock));
        holder::same_place(&mount.source, self.state_dir.path())
            && !is_locked(Lock::Supervisor)
            && is_locked(Lock::Server)
    }

    fn clean_dead(
        &self,
        there: Option<&mountinfo::Mount>,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(), Failure> {
        let dir = self.dir.display();
        let Some(mount) = there.filter(|mount| mount.fs_type == FS_TYPE) else {
            return Err(Failure::unavailable(format!(
                "{dir}: a dead mount that is not claimfs's is here; unmount it with 'umount -l {dir}'"
            )));
        };
        if !holder::same_place(&mount.source, self.state_dir.path()) {
            return Err(Failure::unavailable(format!(
                "{dir}: the dead mount here has its state in {}, not in {}; give '--state-dir {0}' to go on with it, \
                 or unmount it with 'claimfs umount {dir}'",
                mount.source.display(),
                self.state_dir.path().display(),
            )));
        }
        // Only the dead mount still shows that a server of this boot began here.
        if !self.repair && self.state_dir.is_without_journal() {
            return Err(Failure::unavailable(format!(
                "{dir}: the journal of the dead mount here is missing in {}; whoever claimed here may be alive, so nothing is \
                 served; once they are gone, 'claimfs mount --repair' begins with nothing held",
                self.state_dir.path().display()
            )));
        }
        self.make_way(tell)?;
        // Another `claimfs mount` has the lock, or will find no dead mount.
        let _lock = self.state_dir.take(Lock::Supervisor)?;
        match device::unmount(&self.dir, true) {
            Err(error) if is_dead(&self.dir) => Err(Failure::unavailable(format!(
                "{dir}: the dead mount here cannot be unmounted: {error}"
            ))),
            _ => Ok(()),
        }
    }

    /// Mounts, and supervises servers on the mount until it is gone. `words` are the arguments of
    /// `claimfs serve`.
    pub(crate) fn supervise(
        &self,
        program: PathBuf,
        words: Vec<OsString>,
        notify: impl FnMut(Notice),
    ) -> Result<(), Failure> {
        self.check(&mut |text| log::warn!("{text}"))?;
        keep_private();
        self.state_dir.make()?;
        let lock = RefCell::new(self.state_dir.take(Lock::Supervisor)?);
        let take_again = || {
            let taken = lock.borrow();
            let is_there = self.state_dir.has_in_place(Lock::Supervisor, &taken);
            drop(taken);
            // The server says which fault there is.
            if !is_there && self.state_dir.faults().is_empty() {
                match self.state_dir.take(Lock::Supervisor) {
                    Ok(taken) => _ = lock.replace(taken),
                    Err(failure) => log::error!("{}", failure.text),
                }
            }
        };
        // Blocked before any thread starts, so that none of them is killed by one.
        let signals = Signals::block(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP]);
        expect_children();
        let mounted = RefCell::new(None);
        let mount = || {
            let device = device::mount(&self.dir, self.state_dir.path(), &self.options);
            let device = device.map_err(|error| self.explain(&error))?;
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
        let service = Service {
            mount: &mount,
            unmount: &unmount,
            lock: &take_again,
            words,
            first_words: if self.repair { &["--repair"] } else { &[] },
            program,
            without_resend: self.without_resend,
        };
        let dir = format!("{}: ", self.dir.display());
        let ended = supervisor::run(&service, signals, notify);
        drop(lock);
        self.state_dir.forget_pids();
        ended.map_err(|why| {
            let why = why.text.strip_prefix(&dir).unwrap_or(&why.text);
            Failure::unavailable(format!("{dir}{why}"))
        })
    }

    /// The device number of the mount that is served on a descriptor, as mountinfo shows it. Where
    /// the kernel does not tell, that of the mount on the directory, if it has this state
    /// directory.
    pub(crate) fn device(&self, device: &impl AsRawFd) -> Option<String> {
        holder::served_on(device).or_else(|| {
            let there = mountinfo::on(&self.dir).ok()??;
            let is_its = there.fs_type == FS_TYPE && there.source == self.state_dir.path();
            is_its.then_some(there.device)
        })
    }

    /// Whether the mount with this device number is on the directory, and no other on top of it.
    pub(crate) fn is_on_top(&self, device: Option<&str>) -> bool {
        let there = mountinfo::on(&self.dir).ok().flatten();
        there.is_some_and(|there| Some(&*there.device) == device)
    }

    pub(crate) fn failed(&self, error: &io::Error) -> Failure {
        Failure::unavailable(format!("{}: {error}", self.dir.display()))
    }

    /// Why mounting failed, and the way out.
    fn explain(&self, error: &io::Error) -> Failure {
        let dir = self.dir.display();
        if error.kind() == io::ErrorKind::NotFound {
            return Failure::unavailable(format!(
                "{dir}: only root may mount without fusermount3, which is not installed; \
                 install it ('apt install fuse3') or mount as root"
            ));
        }
        if error.to_string().contains("user_allow_other") {
            return Failure::unavailable(format!(
                "{dir}: --allow-other is for root unless 'user_allow_other' stands in /etc/fuse.conf; \
                 put it there, or mount without --allow-other"
            ));
        }
        if error.raw_os_error() == Some(libc::EACCES) {
            return Failure::unavailable(format!(
                "{dir}: {} cannot be opened: {error}; mount as root, or as a user who may open it",
                device::DEVICE
            ));
        }
        Failure::unavailable(format!("{dir}: {error}"))
    }
}

/// Whether the server of the mount on a directory is gone. The kernel may still know the attributes
/// of the directory, so it asks for those of the file system.
pub(crate) fn is_dead(dir: &Path) -> bool {
    rustix::fs::statfs(dir).is_err_and(|error| error == rustix::io::Errno::NOTCONN)
}
