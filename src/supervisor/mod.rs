//! The process that holds the `/dev/fuse` descriptor of a mount, so that the mount outlives its
//! servers: it starts one, waits for its end, and starts the next on the same descriptor.
//!
//! ```text
//! claimfs mount, the supervisor                 claimfs serve, one after the other
//! holds the descriptor   ── standard input ──▶  answers requests on it
//! reads its reports      ◀─ standard output ──  lost, ready, asked, answered, failed, touched
//! passes signals on      ── signals ──────────▶ SIGTERM and SIGINT unmount, SIGUSR2 makes way
//! ```
//!
//! Promises: it makes no call that a server must answer, so that no fault of one can hang it; after
//! a crash it starts the program that it holds open, whatever has become of its file; and it never
//! starts a second server before the first is gone.
//!
//! Does not know: anything that is served.

pub mod device;
mod program;
pub(crate) mod report;
mod server;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::program::Program;
use self::report::Report;
use self::server::{Crashes, Input, Server};
use crate::core::failure::Failure;
use crate::logging;
use crate::sys::clock;
use crate::sys::signals::{self, Signals};

/// How long a server may take to make way, and a new program to prove itself and to begin.
const PATIENCE: Duration = Duration::from_secs(10);

/// `FUSE_HAS_RESEND`: the kernel sends again what a dead server had not answered
/// (`include/uapi/linux/fuse.h`, Linux 6.9 on).
const HAS_RESEND: u64 = 1 << 39;

/// The environment variables in which a supervisor tells a server how many servers were before it,
/// and when the mount was made, in seconds since 1970. An older program ignores them, while it
/// would refuse arguments that it does not know.
pub(crate) const RESTARTS: &str = "CLAIMFS_SERVER_RESTARTS";
/// See [`RESTARTS`].
pub(crate) const MOUNTED_AT: &str = "CLAIMFS_MOUNTED_AT";

/// The mount that is supervised.
pub(crate) struct Service<'a> {
    /// Mounts, and returns the descriptor on which requests arrive.
    pub mount: &'a dyn Fn() -> Result<OwnedFd, Failure>,
    /// Takes the mount away. Whether it was still there.
    pub unmount: &'a dyn Fn() -> bool,
    /// Takes the lock of the state directory again, if it was removed.
    pub lock: &'a dyn Fn(),
    /// The arguments of `claimfs serve`, but for those about the connection.
    pub words: Vec<OsString>,
    /// Further arguments of the first server.
    pub first_words: &'a [&'a str],
    /// Where the program is, for an upgrade.
    pub program: PathBuf,
    /// Act as on a kernel that sends nothing again.
    pub without_resend: bool,
}

/// A notice for the process that started the supervisor.
pub(crate) enum Notice {
    /// Requests are answered, for the first time.
    Ready,
    /// Something was lost.
    Lost(String),
    /// An upgrade that was asked for is done, or has failed.
    Upgraded(Result<(), Failure>),
}

/// How far an upgrade has come.
enum Upgrade {
    /// The server is to make way for this program.
    Asked(Program),
    /// A server of another program begins; this is the one from before.
    Begun(Program),
}

struct Supervisor<'a> {
    service: &'a Service<'a>,
    signals: Signals,
    sender: Sender<Input>,
    program: Program,
    device: OwnedFd,
    /// The capabilities of the kernel on this connection, once a server has reported them.
    capabilities: Option<u64>,
    nonce: String,
    mounted_at: SystemTime,
    servers: u64,
    crashes: Crashes,
    /// Nobody knows what is held. The mount is the only sign of that, and stays when it is dead.
    is_unknown: bool,
    /// The signal that ends the mount. A server that begins gets it once it is ready.
    ending: Option<i32>,
    /// A program is to prove itself for an upgrade.
    is_trying: bool,
    /// An upgrade, and how long the server has for its part in it.
    upgrade: Option<(Upgrade, Instant)>,
}

/// Supervises a mount until it is gone.
pub(crate) fn run(
    service: &Service,
    signals: Signals,
    mut notify: impl FnMut(Notice),
) -> Result<(), Failure> {
    let (sender, inputs) = mpsc::channel();
    let to_supervisor = sender.clone();
    thread::spawn(move || {
        loop {
            match signals.wait() {
                // A terminal that closes asks for no upgrade.
                (libc::SIGHUP, true) => {}
                (number, _) => _ = to_supervisor.send(Input::Signal(number)),
            }
        }
    });
    let mut supervisor = Supervisor {
        service,
        signals,
        sender,
        program: Program::current()?,
        device: (service.mount)()?,
        capabilities: None,
        nonce: nonce(),
        mounted_at: SystemTime::now(),
        servers: 0,
        crashes: Crashes::default(),
        is_unknown: false,
        ending: None,
        is_trying: false,
        upgrade: None,
    };
    let ended = supervisor.run(&inputs, &mut notify);
    let stays = supervisor.is_unknown;
    ended.inspect_err(|_| {
        if !stays {
            (service.unmount)();
        }
    })
}

/// A name for a connection that no other connection of this boot has.
fn nonce() -> String {
    let at = clock::since_boot();
    format!("{}-{}", std::process::id(), at.as_nanos())
}

impl Supervisor<'_> {
    fn run(
        &mut self,
        inputs: &Receiver<Input>,
        notify: &mut dyn FnMut(Notice),
    ) -> Result<(), Failure> {
        let mut server = self.start()?;
        loop {
            let until = self.upgrade.as_ref().map(|(_, until)| *until);
            let input = match until {
                Some(until) => inputs.recv_timeout(until.saturating_duration_since(Instant::now())),
                None => inputs.recv().map_err(RecvTimeoutError::from),
            };
            match input {
                Ok(Input::Signal(libc::SIGHUP)) => self.try_upgrade(),
                Ok(Input::Tried(Ok(new))) => {
                    self.is_trying = false;
                    // The server finishes the requests in its hands. The kernel sends those that it
                    // has not answered to the next one.
                    _ = signals::send(server.child.id(), libc::SIGUSR2);
                    self.set_upgrade(Upgrade::Asked(new));
                }
                Ok(Input::Tried(Err(why))) => {
                    self.is_trying = false;
                    notify(Notice::Upgraded(Err(self.no_upgrade(&why.text))));
                }
                Ok(Input::Signal(number)) => {
                    self.ending = Some(number);
                    self.pass_ending_on(&server);
                }
                Ok(Input::Reported(of, report)) if of == server.number => {
                    self.reported(&mut server, report, notify);
                }
                Ok(Input::Closed(of)) if of == server.number => {
                    let status = server.child.wait();
                    let status = status.map_err(|error| Failure::unavailable(error.to_string()))?;
                    let begins = matches!(self.upgrade, Some((Upgrade::Begun(_), _)));
                    if status.success() && (server.is_ready || !begins) {
                        return Ok(());
                    }
                    self.ended(&mut server, status, notify)?;
                    server = self.start_again()?;
                }
                Ok(Input::Reported(..) | Input::Closed(_)) => {}
                // The server neither makes way nor begins. Its end is handled like any other.
                Err(RecvTimeoutError::Timeout) => {
                    _ = server.child.kill();
                    server.failure = Some(String::from("it does not begin"));
                    self.upgrade
                        .iter_mut()
                        .for_each(|(_, until)| *until += PATIENCE);
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Passes the signal that ends the mount on to the server, if that is ready to handle it.
    fn pass_ending_on(&self, server: &Server) {
        if let Some(number) = self.ending.filter(|_| server.is_ready) {
            // It may have ended by now.
            _ = signals::send(server.child.id(), number);
        }
    }

    /// Starts a server on the connection.
    fn start(&mut self) -> Result<Server, Failure> {
        self.servers += 1;
        let number = self.servers;
        let failed =
            |error: io::Error| Failure::unavailable(format!("a server cannot be started: {error}"));
        let known = self
            .capabilities
            .map(|bits| format!("--capabilities={bits}"));
        let mut words = vec!["--connection", &self.nonce];
        words.extend(known.as_deref());
        words.extend(self.service.first_words.iter().filter(|_| number == 1));
        let mut command = self
            .program
            .server(&words, &self.service.words, self.signals);
        command.env(RESTARTS, (number - 1).to_string());
        if let Ok(mounted_at) = self.mounted_at.duration_since(UNIX_EPOCH) {
            command.env(MOUNTED_AT, mounted_at.as_secs().to_string());
        }
        let device = self.device.try_clone().map_err(failed)?;
        command.stdin(device);
        logging::follow();
        Server::start(number, command, self.sender.clone()).map_err(failed)
    }

    /// Starts the next server: on the same connection, if the kernel sends again the requests that
    /// were not answered.
    fn start_again(&mut self) -> Result<Server, Failure> {
        let sends_again = self.capabilities.is_some_and(|bits| bits & HAS_RESEND != 0);
        if !sends_again || self.service.without_resend {
            log::warn!(
                "this kernel (before 6.9) does not send again what the server had not answered: the mount is taken away \
                 and made anew, and whoever used it is told ENOTCONN"
            );
            if !(self.service.unmount)() {
                return Err(Failure::unavailable(
                    "the server has died, and the mount was gone already",
                ));
            }
            self.device = (self.service.mount)()?;
            (self.capabilities, self.nonce) = (None, nonce());
        }
        self.start()
    }

    fn reported(&mut self, server: &mut Server, report: Report, notify: &mut dyn FnMut(Notice)) {
        match report {
            Report::Ready(capabilities) => {
                server.is_ready = true;
                self.pass_ending_on(server);
                self.is_unknown = false;
                self.capabilities.get_or_insert(capabilities);
                if server.number == 1 {
                    notify(Notice::Ready);
                }
                if let Some((Upgrade::Begun(_), _)) = &self.upgrade {
                    self.upgrade = None;
                    notify(Notice::Upgraded(Ok(())));
                }
            }
            Report::Lost(what) => notify(Notice::Lost(what)),
            Report::Asked => server.is_asked = true,
            Report::Answered => server.has_answered = true,
            Report::Failed(why) => server.failure = Some(why),
            Report::Touched => (self.service.lock)(),
            Report::Unknown => self.is_unknown = true,
            // Only a program that is tried reports it, and not on this pipe.
            Report::Proved => {}
        }
    }

    /// Prepares the next server after one has ended; an error if there is no point in another.
    fn ended(
        &mut self,
        server: &mut Server,
        status: ExitStatus,
        notify: &mut dyn FnMut(Notice),
    ) -> Result<(), Failure> {
        let why = server.failure.take().unwrap_or_else(|| status.to_string());
        match self.upgrade.take() {
            Some((Upgrade::Asked(new), _)) => {
                let old = std::mem::replace(&mut self.program, new);
                self.set_upgrade(Upgrade::Begun(old));
                return Ok(());
            }
            Some((Upgrade::Begun(old), _)) => {
                self.program = old;
                notify(Notice::Upgraded(Err(self.no_upgrade(&why))));
                return Ok(());
            }
            None => {}
        }
        if server.number == 1 && !server.is_ready {
            return Err(Failure::unavailable(why));
        }
        log::error!("the server ended ({why}); another takes over");
        thread::sleep(self.crashes.count(server, status, &why, self.is_unknown)?);
        Ok(())
    }

    fn set_upgrade(&mut self, upgrade: Upgrade) {
        self.upgrade = Some((upgrade, Instant::now() + PATIENCE));
    }

    fn no_upgrade(&self, why: &str) -> Failure {
        let program = self.service.program.display();
        Failure::unavailable(format!("{program}: {why}; the claimfs from before goes on"))
    }

    /// Has the program that is on the disk now prove itself, unless another does so already.
    fn try_upgrade(&mut self) {
        if self.upgrade.is_some() || self.is_trying {
            return;
        }
        self.is_trying = true;
        let (path, words) = (self.service.program.clone(), self.service.words.clone());
        let (signals, connection) = (self.signals, self.nonce.clone());
        let sender = self.sender.clone();
        thread::spawn(move || {
            let proved = Program::proved(&path, &connection, &words, signals, PATIENCE);
            _ = sender.send(Input::Tried(proved));
        });
    }
}
