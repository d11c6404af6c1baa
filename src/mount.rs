//! A mount's life: what must be there before it, how its parts are wired, and how it ends.
//!
//! Promises: an error is a sentence that names the thing, the reason and the way out; SIGTERM and SIGINT unmount; a
//! mount of ours that lost its server is cleaned away, anybody else's never.
//!
//! Deliberately ignorant of: every rule.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use std::{env, panic, process, thread};

use fuser::{PollHandle, Session, SessionACL};

use crate::agents::Agent;
use crate::connection::Connection;
use crate::fs::ClaimFs;
use crate::herald::Herald;
use crate::journal::{self, Disk, Recovered, Unusable};
use crate::keeper::{self, Charge, Told, device};
use crate::mounts::{self, FS_TYPE};
use crate::process::{
    Boot, Processes, Signals, descriptor_limit, effective_uid, expect_children, give_back_memory,
    raise_descriptor_limit, signal, wait_unread,
};
use crate::reaper;
use crate::store::Store;
use crate::table::{Table, Watches};
use crate::texts::Texts;
use crate::tree::Tree;

/// How many leases a mount holds unless it is told otherwise.
pub const DEFAULT_MAX_LEASES: usize = 1 << 20;

/// How long a mount must be busy to be in use: the helper that was ended may leave it a moment later.
const BUSY: Duration = Duration::from_millis(300);

/// How long a server without a keeper may take to unmount.
const ORPHAN: Duration = Duration::from_secs(10);

/// What a server ends with that has made way for another.
const MADE_WAY: i32 = 75;

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
    /// Flags of the mount.
    pub options: device::Options,
}

/// What a server is told of the connection that it serves.
#[derive(Clone, Debug)]
pub struct Link {
    /// No other connection of this boot has it.
    pub nonce: String,
    /// What the kernel can do, where it has said so to a server before.
    pub capabilities: Option<u64>,
}

/// What a server tells its keeper.
#[derive(Clone, Copy, Debug)]
pub enum Report<'a> {
    /// Something was lost.
    Lost(&'a str),
    /// It answers from now on; the kernel can do this.
    Ready(u64),
    /// A request has reached it.
    Asked,
    /// It has answered one.
    Answered,
}

/// How many descriptors are for root and for the server itself.
const RESERVE: usize = 256;

/// How many processes each uid has watched at least, however few descriptors there are.
const WATCHES_MIN: usize = 16;

/// How many processes may be watched for uids but root's, if there are so many descriptors.
fn watches(descriptors: usize) -> Watches {
    let left = descriptors.saturating_sub(RESERVE).max(2 * WATCHES_MIN);
    Watches {
        uid: left / 2,
        all: left,
    }
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
        if !Path::new(device::DEVICE).exists() {
            return Err(Problem::new(format!(
                "{}: there is no such device; load the module with 'modprobe fuse', or give the container {0}",
                device::DEVICE
            )));
        }
        let there = mounts::on(&self.dir)
            .map_err(|error| Problem::new(format!("/proc/self/mountinfo: {error}")))?;
        let metadata = fs::metadata(&self.dir);
        if metadata.as_ref().is_err_and(is_disconnected) {
            self.clean_dead(there.as_ref())?;
            return self.check();
        }
        if let Some(mount) = there.filter(|mount| mount.fs_type == FS_TYPE) {
            if mount.source == self.state_dir && self.end_orphan() {
                return self.check();
            }
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
        // Whoever else mounts here has it, or will find that nothing is left to be cleaned.
        let _lock = self.lock("lock")?;
        let is_dead = || fs::metadata(&self.dir).is_err_and(|error| is_disconnected(&error));
        match device::unmount(&self.dir, true) {
            Err(error) if is_dead() => Err(Problem::new(format!(
                "{dir}: the dead mount here cannot be unmounted: {error}"
            ))),
            _ => Ok(()),
        }
    }

    /// Ends a server of this plan whose keeper has died, and with it the mount. Whether there was one.
    fn end_orphan(&self) -> bool {
        let Ok(_lock) = self.lock("lock") else {
            return false;
        };
        let serving = self.state_dir.join("serving");
        let pid = fs::read_to_string(&serving).unwrap_or_default();
        let is_there = || File::open(&serving).is_ok_and(|file| file.try_lock_shared().is_err());
        let Some(pid) = pid.trim().parse().ok().filter(|_| is_there()) else {
            return false;
        };
        // Its pid is its own as long as it has the lock.
        if signal(pid, libc::SIGTERM).is_err() {
            return false;
        }
        let until = Instant::now() + ORPHAN;
        while is_there() && Instant::now() < until {
            thread::sleep(Duration::from_millis(2));
        }
        !is_there()
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

    /// Takes a lock of the state directory: `lock` is the keeper's, `serving` that of whoever appends to the journal.
    fn lock(&self, name: &str) -> Result<File, Problem> {
        let path = self.state_dir.join(name);
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

    /// Mounts, and keeps servers on the mount until it is gone. `words` make a server of this program.
    pub fn keep(
        &self,
        program: PathBuf,
        words: Vec<OsString>,
        tell: impl FnMut(Told),
    ) -> Result<(), Problem> {
        self.check()?;
        self.make_state_dir()?;
        let _lock = self.lock("lock")?;
        // Kept before any thread starts, so that none of them is killed by one.
        let signals = Signals::keep(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP]);
        // Whoever started this may ignore the end of children, and their pids would be used again.
        expect_children();
        let mount = || {
            let mounted = device::mount(&self.dir, &self.state_dir, &self.options);
            mounted.map_err(|error| self.explain(&error).0)
        };
        let charge = Charge {
            mount: &mount,
            unmount: &|| _ = device::unmount(&self.dir, true),
            words,
            first_words: if self.repair { &["--repair"] } else { &[] },
            program,
            without_resend: self.without_resend,
        };
        keeper::keep(&charge, signals, tell)
            .map_err(|why| Problem::new(format!("{}: {why}", self.dir.display())))
    }

    /// Reads what the state directory remembers, as a server would that takes over a connection.
    pub fn prove(&self, nonce: &str) -> Result<(), Problem> {
        let boot = Boot::current().map_err(|error| self.failed(&error))?;
        self.belongs(&self.recall(&boot)?, nonce)
    }

    /// Whether what was recovered is what the server before on this connection has left.
    fn belongs(&self, recovered: &Recovered, nonce: &str) -> Result<(), Problem> {
        if recovered.same_boot && recovered.connection.nonce == nonce {
            return Ok(());
        }
        Err(Problem::new(format!(
            "{}: the journal is not the one of this mount, so what is held is not known, and nothing is served",
            self.state_dir.display()
        )))
    }

    fn failed(&self, error: &io::Error) -> Problem {
        Problem::new(format!("{}: {error}", self.dir.display()))
    }

    fn recall(&self, boot: &Boot) -> Result<Recovered, Problem> {
        journal::read(&self.state_dir, boot, self.max_leases, self.repair)
            .map_err(|Unusable(text)| Problem::new(text))
    }

    /// Serves a connection until the mount is gone: what the keeper starts. `report` takes what the keeper is to know.
    pub fn serve(
        &self,
        link: &Link,
        report: impl Fn(Report) + Send + Sync + 'static,
    ) -> Result<(), Problem> {
        let failed = |error: io::Error| self.failed(&error);
        let _lock = self.lock("serving")?;
        panic::set_hook(Box::new(end_unless_caught));
        give_back_memory();
        // Kept before any thread starts, so that none of them is killed by one.
        let kept = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR2];
        let signals = Signals::keep(&kept);
        expect_children();
        if let Err(error) = raise_descriptor_limit() {
            log::warn!("the limit of descriptors stays as it is: {error}");
        }
        let herald = Arc::new(Herald::default());
        // Before anything is reaped, which watchers are to be told of.
        if let Some(there) = mounts::on(&self.dir).map_err(failed)? {
            herald.start(&self.dir, &there.device).map_err(failed)?;
        }
        let boot = Boot::current().map_err(failed)?;
        let recovered = self.recall(&boot)?;
        if let Some(lost) = &recovered.lost {
            log::warn!("{lost}");
            report(Report::Lost(lost));
        }
        let goes_on = recovered.same_boot && recovered.connection.nonce == link.nonce;
        if link.capabilities.is_some() {
            self.belongs(&recovered, &link.nonce)?;
        }
        let connection = if goes_on {
            recovered.connection.clone()
        } else {
            Connection::new(&link.nonce)
        };
        let disk = Disk::begin(&self.state_dir, boot, &recovered, &connection).map_err(|error| {
            Problem::new(format!(
                "{}: the journal cannot be written: {error}; make room there, or name another with --state-dir DIR",
                self.state_dir.display()
            ))
        })?;
        let (same_boot, mut table) = (recovered.same_boot, recovered.table);
        table.limit_each(self.max_per_uid);
        table.limit_watches(watches(descriptor_limit()));
        let (store, processes) = self
            .store(table, connection, disk, &herald)
            .map_err(failed)?;
        if goes_on {
            store.take_over();
        }
        // Before anything is reaped, which readers of events are to be told of.
        let tree = self.tree(&store, &herald);
        store.recover(same_boot, goes_on);
        reaper::start(processes, Arc::clone(&store)).map_err(failed)?;
        let pollers = tree.pollers();
        let report = Arc::new(report);
        let first = Arc::clone(&report);
        let first = move |is_answered| {
            first(if is_answered {
                Report::Answered
            } else {
                Report::Asked
            });
        };
        let fs = ClaimFs::new(tree, first).map_err(failed)?;
        let offered = fs.offered();
        let session = self.connect(fs, link).map_err(failed)?;
        let notifier = session.notifier();
        for (_, kh) in pollers {
            // One that is gone is nobody's.
            _ = notifier.poll(PollHandle(kh));
        }
        let dir = self.dir.clone();
        let end = move || watch_signals(&signals, &dir, &herald, &store);
        let watch = thread::Builder::new().name(String::from("signals"));
        watch.spawn(end).map_err(failed)?;
        report(Report::Ready(offered.load(Relaxed)));
        let what = if link.capabilities.is_some() {
            "another server takes over"
        } else {
            "mounted"
        };
        let (dir, state) = (self.dir.display(), self.state_dir.display());
        log::info!("{what} on {dir}, state in {state}");
        thread::spawn(|| {
            if wait_unread(&io::stdout()).is_ok() {
                log::warn!(
                    "the keeper of this mount has died: should this server die too, the mount dies with it; \
                     'claimfs mount' makes it anew"
                );
            }
        });
        let served = session.run();
        if let Err(error) = &served {
            log::error!("the mount on {} breaks off: {error}", self.dir.display());
        }
        log::info!("no longer mounted on {}", self.dir.display());
        served.map_err(failed)
    }

    fn connect(&self, fs: ClaimFs, link: &Link) -> io::Result<Session<ClaimFs>> {
        let mut config = fuser::Config::default();
        // The kernel wakes a thread for each request if there are several, while one that has work goes on with the next: 1.5 times as
        // many claims a second with 8 clients. What takes long is done aside.
        config.n_threads = Some(1);
        let acl = if self.options.allow_other {
            SessionACL::All
        } else {
            SessionACL::Owner
        };
        let device = io::stdin().as_fd().try_clone_to_owned()?;
        match link.capabilities {
            Some(capabilities) => device::adopt(fs, &device, capabilities, acl, config),
            None => Session::from_fd(fs, device, acl, config),
        }
    }

    fn store(
        &self,
        table: Table,
        connection: Connection,
        disk: Disk,
        herald: &Arc<Herald>,
    ) -> io::Result<(Arc<Store>, Arc<Processes>)> {
        let processes = Arc::new(Processes::new(
            self.variables.clone(),
            self.agents.clone(),
            !self.without_caches,
        )?);
        let store = Store::new(
            table,
            connection,
            Box::new(disk),
            Arc::clone(&processes),
            Arc::clone(herald),
        );
        Ok((Arc::new(store), processes))
    }

    fn tree(&self, store: &Arc<Store>, herald: &Arc<Herald>) -> Tree {
        let (uid, gid) = crate::process::real_ids();
        let (store, herald) = (Arc::clone(store), Arc::clone(herald));
        let texts = Texts::new(self.state_dir.join("texts"));
        Tree::new(store, herald, texts, self.dotfiles, uid, gid)
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

/// A panic in a handler is caught and answered. Any other leaves a request without an answer and whoever made it
/// waiting for ever, deaf to SIGKILL: better that the server ends, and the kernel answers them all.
fn end_unless_caught(panic: &panic::PanicHookInfo) {
    log::error!("{panic}");
    if !crate::fs::is_handling() {
        process::abort();
    }
}

/// Waits for a signal and unmounts; a mount that is in use is detached, and whoever uses it is told ENOTCONN. Or makes way for
/// another server.
fn watch_signals(signals: &Signals, dir: &Path, herald: &Herald, store: &Store) {
    loop {
        let (signal, _) = signals.wait();
        match signal {
            libc::SIGHUP => continue,
            libc::SIGUSR2 => {
                store.freeze();
                log::info!("making way for another server");
                process::exit(MADE_WAY);
            }
            _ => {}
        }
        log::info!("signal {signal}: unmounting {}", dir.display());
        herald.end();
        match device::unmount_patiently(dir, false, BUSY) {
            // The session ends by itself, and the process with it.
            Ok(()) => return,
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                log::warn!("{} is in use; it is detached", dir.display());
                _ = device::unmount(dir, true);
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
