//! One server of a mount: how its parts are wired, and how it ends.
//!
//! Promises: what the state directory remembers is recovered before anybody is answered; SIGTERM and
//! SIGINT unmount, and SIGUSR2 makes way for another server at a moment at which nothing is half done.
//!
//! Deliberately ignorant of: every rule, and how the mount came to be.

pub mod reaper;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::{panic, process, thread};

use fuser::{PollHandle, Session, SessionACL};

use crate::core::table::{Table, Watches};
use crate::fuse::ClaimFs;
use crate::handoff::Handoff;
use crate::handoff::spool::Spool;
use crate::inotify::Notifier;
use crate::journal::{self, Disk, Recovered, Unusable};
use crate::logging::limited;
use crate::mount::state_dir::{self, SERVING};
use crate::mount::{Plan, Problem};
use crate::process::{
    Boot, Processes, Signals, descriptor_limit, expect_children, give_back_memory, keep_private,
    raise_descriptor_limit, wait_unread,
};
use crate::store::Store;
use crate::supervisor::device;
use crate::tree::Tree;
/// How long a mount must be busy to be in use: the helper that was ended may leave it a moment later.
const BUSY: Duration = Duration::from_millis(300);

/// How long a session may take to end by itself once it is unmounted: it does not while another mount namespace has the mount.
const BESIDE: Duration = Duration::from_millis(300);

/// What a server ends with that has made way for another.
const MADE_WAY: i32 = 75;

/// What a server is told of the connection that it serves.
#[derive(Clone, Debug)]
pub struct Link {
    /// No other connection of this boot has it.
    pub nonce: String,
    /// What the kernel can do, where it has said so to a server before.
    pub capabilities: Option<u64>,
}

/// What a server tells its supervisor.
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

impl Plan {
    /// Reads what the state directory remembers, as a server would that takes over a connection.
    pub fn prove(&self, nonce: &str) -> Result<(), Problem> {
        let boot = Boot::current().map_err(|error| self.failed(&error))?;
        self.belongs(&self.recall(&boot)?, nonce)
    }

    /// Whether what was recovered is what the server before on this connection has left.
    fn belongs(&self, recovered: &Recovered, nonce: &str) -> Result<(), Problem> {
        if recovered.same_boot && recovered.handoff.nonce == nonce {
            return Ok(());
        }
        Err(Problem::new(format!(
            "{}: the journal is not the one of this mount, so what is held is not known, and nothing is served",
            self.state_dir.display()
        )))
    }

    fn recall(&self, boot: &Boot) -> Result<Recovered, Problem> {
        journal::read(&self.state_dir, boot, self.max_leases, self.repair)
            .map_err(|Unusable(text)| Problem::new(text))
    }

    /// Serves a connection until the mount is gone: what the supervisor starts. `report` takes what the supervisor is to know.
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
        let notifier = Arc::new(Notifier::default());
        // Before anything is reaped, which watchers are to be told of.
        let device = self.device(&io::stdin());
        if let Some(device) = device
            .as_deref()
            .filter(|device| self.is_on_top(Some(device)))
        {
            notifier.start(&self.dir, device).map_err(failed)?;
        }
        let boot = Boot::current().map_err(failed)?;
        let recovered = self.recall(&boot)?;
        if let Some(lost) = &recovered.lost {
            log::warn!("{lost}");
            report(Report::Lost(lost));
        }
        let goes_on = recovered.same_boot && recovered.handoff.nonce == link.nonce;
        if link.capabilities.is_some() {
            self.belongs(&recovered, &link.nonce)?;
        }
        let handoff = if goes_on {
            recovered.handoff.clone()
        } else {
            Handoff::new(&link.nonce)
        };
        let disk = Disk::begin(&self.state_dir, boot, &recovered, &handoff).map_err(|error| {
            Problem::new(format!(
                "{}: the journal cannot be written: {error}; make room there",
                self.state_dir.display()
            ))
        })?;
        let (same_boot, mut table) = (recovered.same_boot, recovered.table);
        table.limit_each(self.max_per_uid);
        table.limit_watches(watches(descriptor_limit()));
        let (store, processes) = self
            .store(table, handoff, disk, &notifier)
            .map_err(failed)?;
        if goes_on {
            store.take_over();
        }
        // Before anything is reaped, which readers of events are to be told of.
        let tree = self.tree(&store, &notifier);
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
        let kernel = session.notifier();
        for (_, kh) in pollers {
            // One that is gone is nobody's.
            _ = kernel.poll(PollHandle(kh));
        }
        let plan = self.clone();
        let end = move || plan.watch_signals(&signals, device.as_deref(), &notifier, &store);
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
                    "the supervisor of this mount has died: should this server die too, the mount dies with it; \
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
        handoff: Handoff,
        disk: Disk,
        notifier: &Arc<Notifier>,
    ) -> io::Result<(Arc<Store>, Arc<Processes>)> {
        let processes = Arc::new(Processes::new(
            self.variables.clone(),
            self.agents.clone(),
            !self.without_caches,
            self.endings,
        )?);
        let store = Store::new(
            table,
            handoff,
            Box::new(disk),
            Arc::clone(&processes),
            Arc::clone(notifier),
        );
        Ok((Arc::new(store), processes))
    }

    fn tree(&self, store: &Arc<Store>, notifier: &Arc<Notifier>) -> Tree {
        let (uid, gid) = crate::process::real_ids();
        let (store, notifier) = (Arc::clone(store), Arc::clone(notifier));
        let spool = Spool::new(self.state_dir.join(state_dir::TEXTS));
        Tree::new(store, notifier, spool, self.dotfiles, uid, gid)
    }

    /// Waits for a signal and unmounts; a mount that is in use is detached, and whoever uses it is told ENOTCONN, as are those who have it
    /// in other mount namespaces. Or makes way for another server.
    fn watch_signals(
        &self,
        signals: &Signals,
        device: Option<&str>,
        notifier: &Notifier,
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
            notifier.end();
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

/// A panic in a handler is caught and answered. Any other leaves a request without an answer and whoever made it
/// waiting for ever, deaf to SIGKILL: better that the server ends, and the kernel answers them all.
fn end_unless_caught(panic: &panic::PanicHookInfo) {
    limited!(None, log::Level::Error, "{panic}");
    if !crate::fuse::is_handling() {
        process::abort();
    }
}
