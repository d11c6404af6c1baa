//! One server of a mount: how its parts are wired, and how it ends.
//!
//! Promises: the state is recovered before any request is answered; SIGTERM and SIGINT unmount, and
//! SIGUSR2 makes way for another server at a moment at which nothing is half done.
//!
//! Does not know: any rule, or how the mount came to be.

mod keep;
mod reaper;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::{mem, panic, process, thread};

use fuser::{PollHandle, Session, SessionACL};

use crate::core::failure::Failure;
use crate::core::table::{Table, Watches};
use crate::fuse::ClaimFs;
use crate::handoff::Handoff;
use crate::handoff::spool::Spool;
use crate::inotify::Notifier;
use crate::journal::{self, Disk, History, Log, Recovered};
use crate::logging::limited;
use crate::mount::Plan;
use crate::mount::state_dir::Lock;
use crate::process::{Boot, Processes};
use crate::render::metrics::Began;
use crate::store::Store;
use crate::supervisor::device;
use crate::supervisor::report::Report;
use crate::sys::files::keep_private;
use crate::sys::ids::real_ids;
use crate::sys::poll::wait_unread;
use crate::sys::signals::{Signals, expect_children};
use crate::sys::{descriptors, memory};
use crate::tree::Tree;

/// A mount that is busy for longer than this is in use. The inotify helper that was ended may leave
/// it a moment later.
const BUSY: Duration = Duration::from_millis(300);

/// How long to wait for a session to end by itself after the unmounting. It does not while another
/// mount namespace has the mount.
const BESIDE: Duration = Duration::from_millis(300);

/// The exit code of a server that has made way for another.
const MADE_WAY: i32 = 75;

/// The connection that a server serves.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// A name that no other connection of this boot has.
    pub nonce: String,
    /// The capabilities of the kernel, if it has told an earlier server.
    pub capabilities: Option<u64>,
    /// The number of servers before this one, on this connection and those before it, and when the
    /// mount was made, in seconds since 1970. Older supervisors do not say.
    pub restarts: Option<u64>,
    /// See `restarts`.
    pub mounted_at: Option<u64>,
}

impl Link {
    /// The history of the mount, if this connection had so many servers before.
    fn began(&self, lives: u64) -> Began {
        Began {
            restarts: self.restarts.unwrap_or(lives),
            mounted_at: self.mounted_at,
        }
    }
}

/// How many descriptors are reserved for root and for the server itself.
const RESERVE: usize = 256;

/// How many processes each uid may have watched at least, however few descriptors there are.
const WATCHES_MIN: usize = 16;

/// How many processes may be watched for users but root, if there are so many descriptors.
fn watches(descriptors: usize) -> Watches {
    let left = descriptors.saturating_sub(RESERVE).max(2 * WATCHES_MIN);
    Watches {
        uid: left / 2,
        all: left,
    }
}

impl Plan {
    /// Reads the state, as a server does that takes over a connection.
    pub(crate) fn prove(&self, nonce: &str) -> Result<(), Failure> {
        let boot = Boot::current().map_err(|error| self.failed(&error))?;
        self.belongs(&self.recall(&boot)?, nonce)
    }

    /// Refuses a recovered state that is not that of this connection.
    fn belongs(&self, recovered: &Recovered, nonce: &str) -> Result<(), Failure> {
        if recovered.same_boot && recovered.handoff.nonce == nonce {
            return Ok(());
        }
        Err(Failure::unavailable(format!(
            "{}: the journal is not the one of this mount, so what is held is not known, and nothing is served",
            self.state_dir.path().display()
        )))
    }

    fn recall(&self, boot: &Boot) -> Result<Recovered, Failure> {
        journal::read(self.state_dir.path(), boot, self.max_leases, self.repair)
    }

    /// Reads the state for a connection, and reports what is lost of it.
    fn recall_for(
        &self,
        link: &Link,
        boot: &Boot,
        report: &impl Fn(Report),
    ) -> Result<Recovered, Failure> {
        let recovered = self.recall(boot)?;
        if let Some(lost) = &recovered.lost {
            log::warn!("{lost}");
            report(Report::Lost(lost.clone()));
        }
        if link.capabilities.is_some() {
            let belongs = self.belongs(&recovered, &link.nonce);
            belongs.inspect_err(|_| report(Report::Unknown))?;
        }
        Ok(recovered)
    }

    /// Serves a connection until the mount is gone. `report` sends reports to the supervisor.
    pub(crate) fn serve(
        &self,
        link: &Link,
        report: impl Fn(Report) + Send + Sync + 'static,
    ) -> Result<(), Failure> {
        let failed = |error: io::Error| self.failed(&error);
        if link.capabilities.is_some() && self.state_dir.is_without_journal() {
            report(Report::Unknown);
        }
        let (lock, signals) = self.prepare()?;
        let notifier = Arc::new(Notifier::default());
        // Started before anything is reaped, so that watchers are told of it.
        let device = self.device(&io::stdin());
        if let Some(device) = device
            .as_deref()
            .filter(|device| self.is_on_top(Some(device)))
        {
            notifier.start(&self.dir, device).map_err(failed)?;
        }
        let boot = Boot::current().map_err(failed)?;
        let mut recovered = self.recall_for(link, &boot, &report)?;
        let same_boot = recovered.same_boot;
        let goes_on = same_boot && recovered.handoff.nonce == link.nonce;
        let handoff = goes_on.then(|| recovered.handoff.clone());
        let handoff = handoff.unwrap_or_else(|| Handoff::new(&link.nonce));
        let began = link.began(handoff.lives + u64::from(goes_on));
        let log = self.begin_journal(boot, &mut recovered, &handoff)?;
        let (store, processes) = self
            .store(recovered.table, handoff, log, &notifier)
            .map_err(failed)?;
        store.metrics().began(began);
        if goes_on {
            store.take_over();
        }
        // Made before anything is reaped, so that readers of events are told of it.
        let tree = self.tree(&store, &notifier);
        store.recover(same_boot, goes_on);
        reaper::start(processes, Arc::clone(&store)).map_err(failed)?;
        start_compactor(Arc::clone(&store)).map_err(failed)?;
        let pollers = tree.pollers();
        let report = Arc::new(report);
        let touched = Arc::clone(&report);
        let touched = move || touched(Report::Touched);
        keep::start(self.state_dir.clone(), lock, Arc::clone(&store), touched).map_err(failed)?;
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
            // A poller that is gone is no loss.
            _ = kernel.poll(PollHandle(kh));
        }
        let plan = self.clone();
        let settled = Arc::clone(&store);
        let end = move || plan.watch_signals(&signals, device.as_deref(), &notifier, &store);
        let watch = thread::Builder::new().name(String::from("signals"));
        watch.spawn(end).map_err(failed)?;
        report(Report::Ready(offered.load(Relaxed)));
        settled.settle();
        self.run(session, link).map_err(failed)
    }

    /// Takes the lock, and prepares this process. Returns the lock and the blocked signals.
    fn prepare(&self) -> Result<(File, Signals), Failure> {
        keep_private();
        self.state_dir.make_private();
        for fault in self.state_dir.faults() {
            log::warn!("{fault}");
        }
        let lock = self.state_dir.take(Lock::Server)?;
        panic::set_hook(Box::new(end_unless_caught));
        memory::give_back();
        // Blocked before any thread starts, so that none of them is killed by one.
        let signals = Signals::block(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR2]);
        expect_children();
        if let Err(error) = descriptors::raise_limit() {
            log::warn!("the limit of descriptors stays as it is: {error}");
        }
        Ok((lock, signals))
    }

    fn begin_journal(
        &self,
        boot: Boot,
        recovered: &mut Recovered,
        handoff: &Handoff,
    ) -> Result<(Box<dyn Log>, History), Failure> {
        let dir = self.state_dir.path();
        let unwritten = mem::take(&mut recovered.history);
        let mut history = History::begin(dir, recovered.same_boot, unwritten);
        if recovered.handoff.nonce != handoff.nonce {
            // A new journal begins, without these events.
            history.write();
        }
        let disk = Disk::begin(dir, boot, recovered, handoff).map_err(|error| {
            Failure::unavailable(format!(
                "{}: the journal cannot be written: {error}; make room there",
                dir.display()
            ))
        })?;
        Ok((Box::new(disk), history))
    }

    /// Answers requests until the mount is gone.
    fn run(&self, session: Session<ClaimFs>, link: &Link) -> io::Result<()> {
        let what = if link.capabilities.is_some() {
            "another server takes over"
        } else {
            "mounted"
        };
        let (dir, state) = (self.dir.display(), self.state_dir.path().display());
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
            log::error!("the mount on {dir} breaks off: {error}");
        }
        log::info!("no longer mounted on {dir}");
        served
    }

    fn connect(&self, fs: ClaimFs, link: &Link) -> io::Result<Session<ClaimFs>> {
        let mut config = fuser::Config::default();
        // With several threads the kernel wakes one for each request, while a single one that has
        // work goes on with the next request: that gives 1.5 times as many claims a second with 8
        // clients. Slow requests go to workers.
        config.n_threads = Some(crate::fuse::FUSER_THREADS);
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
        mut table: Table,
        handoff: Handoff,
        log: (Box<dyn Log>, History),
        notifier: &Arc<Notifier>,
    ) -> io::Result<(Arc<Store>, Arc<Processes>)> {
        table.limit_each(self.max_per_uid);
        table.limit_watches(watches(descriptors::limit()));
        let processes = Arc::new(Processes::new(
            self.variables.clone(),
            self.agents.clone(),
            !self.without_caches,
            self.endings,
        )?);
        let store = Store::new(
            table,
            handoff,
            log,
            Arc::clone(&processes),
            Arc::clone(notifier),
        );
        store.limit_scaffolding(self.scaffolding);
        Ok((Arc::new(store), processes))
    }

    fn tree(&self, store: &Arc<Store>, notifier: &Arc<Notifier>) -> Tree {
        let (uid, gid) = real_ids();
        let (store, notifier) = (Arc::clone(store), Arc::clone(notifier));
        let spool = Spool::new(self.state_dir.spool());
        Tree::new(store, notifier, spool, self.dotfiles, uid, gid)
    }

    /// Waits for a signal and unmounts, or makes way for another server. A mount that is in use is
    /// detached: its users get ENOTCONN, as do those who have it in other mount namespaces.
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
            keep::end();
            notifier.end();
            match device::unmount_patiently(&self.dir, false, BUSY) {
                // The session ends by itself, and the process with it, unless another namespace has
                // the mount.
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

/// Starts the thread that compacts the journal; it ends with the process.
fn start_compactor(store: Arc<Store>) -> io::Result<()> {
    let named = thread::Builder::new().name(String::from("journal"));
    let run = move || {
        store.compact_when_due();
    };
    named.spawn(run).map(|_| ())
}

/// Ends the server at a panic outside of a request handler. A panic in a handler is caught and
/// answered. Any other would leave a request without an answer, and its caller waiting for ever,
/// deaf to SIGKILL; once the server has ended, the next one answers.
fn end_unless_caught(panic: &panic::PanicHookInfo) {
    limited!(None, log::Level::Error, "{panic}");
    if !crate::fuse::is_handling() {
        process::abort();
    }
}
