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
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::{env, panic, process, thread};

use fuser::{PollHandle, Session, SessionACL};

use self::state_dir::{LOCK, SERVING};
use crate::agents::Agent;
use crate::connection::Connection;
use crate::fs::ClaimFs;
use crate::herald::Herald;
use crate::journal::{self, Disk, Recovered, Unusable};
use crate::keeper::{self, Charge, Told, device};
use crate::logging::limited;
use crate::mounts::{self, FS_TYPE};
use crate::process::{
    Boot, Processes, Search, Signals, descriptor_limit, effective_uid, expect_children,
    give_back_memory, keep_private, raise_descriptor_limit, wait_unread,
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

/// How long a session may take to end by itself once it is unmounted: it does not while another mount namespace has the mount.
const BESIDE: Duration = Duration::from_millis(300);

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
    /// Where to look for how processes ended.
    pub endings: Search,
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
        let there = mounts::on(&self.dir)
            .map_err(|error| Problem::new(format!("/proc/self/mountinfo: {error}")))?;
        let metadata = fs::metadata(&self.dir);
        if metadata.as_ref().is_err_and(is_disconnected) {
            self.clean_dead(there.as_ref(), tell)?;
            return self.check(tell);
        }
        if let Some(mount) = there.filter(|mount| mount.fs_type == FS_TYPE) {
            if self.has_lost_keeper(&mount) {
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

    /// Whether the mount that is there is of this plan, and its keeper is dead, but not its server.
    fn has_lost_keeper(&self, mount: &mounts::Mount) -> bool {
        holder::same_place(&mount.source, &self.state_dir)
            && !holder::is_locked(&self.state_dir.join(LOCK))
            && holder::is_locked(&self.state_dir.join(SERVING))
    }

    /// The sentence for a directory that has a mount.
    fn is_mounted(&self, mount: &mounts::Mount) -> Problem {
        let dir = self.dir.display();
        let me = effective_uid();
        let other = mount.owner().filter(|owner| *owner != me);
        let remedy = match (other, mounts::is_denied(&self.dir)) {
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
        there: Option<&mounts::Mount>,
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
    pub fn keep(
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
        keeper::keep(&charge, signals, tell)
            .map_err(|why| Problem::new(format!("{}: {why}", self.dir.display())))
    }

    /// The number of the device of the mount that is served on a descriptor, as mountinfo has it. Where the kernel does not say it, that
    /// of the mount on the directory, if it has this state directory.
    fn device(&self, device: &impl AsRawFd) -> Option<String> {
        holder::served_on(device).or_else(|| {
            let there = mounts::on(&self.dir).ok()??;
            let is_its = there.fs_type == FS_TYPE && there.source == self.state_dir;
            is_its.then_some(there.device)
        })
    }

    /// Whether the mount of a device is what is on the directory: it may be gone from there, and another mount be in its place.
    fn is_on_top(&self, device: Option<&str>) -> bool {
        let there = mounts::on(&self.dir).ok().flatten();
        there.is_some_and(|there| Some(&*there.device) == device)
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
        keep_private();
        state_dir::make_private(&self.state_dir);
        for fault in state_dir::faults(&self.state_dir) {
            log::warn!("{fault}");
        }
        let _lock = state_dir::lock(&self.state_dir, SERVING)?;
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
        let device = self.device(&io::stdin());
        if let Some(device) = device
            .as_deref()
            .filter(|device| self.is_on_top(Some(device)))
        {
            herald.start(&self.dir, device).map_err(failed)?;
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
        let disk =
            Disk::begin(&self.state_dir, boot, &recovered, &connection).map_err(|error| {
                Problem::new(format!(
                    "{}: the journal cannot be written: {error}; make room there",
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
        let plan = self.clone();
        let end = move || plan.watch_signals(&signals, device.as_deref(), &herald, &store);
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
            self.endings,
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
        let texts = Texts::new(self.state_dir.join(state_dir::TEXTS));
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

    /// Waits for a signal and unmounts; a mount that is in use is detached, and whoever uses it is told ENOTCONN, as are those who have it
    /// in other mount namespaces. Or makes way for another server.
    fn watch_signals(
        &self,
        signals: &Signals,
        device: Option<&str>,
        herald: &Herald,
        store: &Store,
    ) {
        let dir = self.dir.display();
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
            if !self.is_on_top(device) {
                log::info!(
                    "signal {signal}: no longer mounted on {dir}; those who have it elsewhere are told ENOTCONN"
                );
                process::exit(0);
            }
            log::info!("signal {signal}: unmounting {dir}");
            herald.end();
            match device::unmount_patiently(&self.dir, false, BUSY) {
                // The session ends by itself, and the process with it.
                Ok(()) => {
                    thread::sleep(BESIDE);
                    log::info!(
                        "other mount namespaces have {dir}, too; who has it there is told ENOTCONN"
                    );
                    process::exit(0);
                }
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    log::warn!("{dir} is in use; it is detached");
                    _ = device::unmount(&self.dir, true);
                    process::exit(0);
                }
                Err(_) if !self.is_on_top(device) => process::exit(0),
                Err(error) => log::error!("{dir} cannot be unmounted: {error}"),
            }
        }
    }
}

/// What a mount answers whose server is gone.
fn is_disconnected(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOTCONN)
}

/// A panic in a handler is caught and answered. Any other leaves a request without an answer and whoever made it
/// waiting for ever, deaf to SIGKILL: better that the server ends, and the kernel answers them all.
fn end_unless_caught(panic: &panic::PanicHookInfo) {
    limited!(None, log::Level::Error, "{panic}");
    if !crate::fs::is_handling() {
        process::abort();
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
