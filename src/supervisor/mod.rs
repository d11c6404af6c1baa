//! The process that holds the `/dev/fuse` descriptor of a mount, so that the mount outlives its servers: it starts one, waits for
//! its end, and starts the next on the same descriptor.
//!
//! ```text
//! claimfs mount          the supervisor                                   claimfs serve, one after the other
//!                        holds the descriptor  ── standard input ──▶  answers requests on it
//!                        reads what it reports ◀─ standard output ──  lost, ready, asked, answered, failed
//!                        hands on what it gets ── signals ──────────▶ SIGTERM and SIGINT unmount, SIGUSR2 makes way
//! ```
//!
//! Promises: it never touches the mount, so that nothing that a server does or leaves undone can hang it; after a crash it
//! starts the program that it holds open, whatever has become of the file of that name; and there is never a second server
//! before the first is gone.
//!
//! Deliberately ignorant of: everything that is served.

pub mod device;
pub mod program;
mod server;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use self::program::Program;
use self::server::{Deaths, Server, Turn};
use crate::logging;
use crate::process::{Signals, signal};

/// How long a server may take to make way, and a new program to prove itself and to begin.
const PATIENCE: Duration = Duration::from_secs(10);

/// `FUSE_HAS_RESEND`: the kernel sends again what a dead server had not answered (`include/uapi/linux/fuse.h`, Linux 6.9 on).
const HAS_RESEND: u64 = 1 << 39;

/// What is to be kept.
pub struct Charge<'a> {
    /// Mounts, and returns the descriptor on which requests arrive.
    pub mount: &'a dyn Fn() -> Result<OwnedFd, String>,
    /// Takes the mount away. Whether it was still there.
    pub unmount: &'a dyn Fn() -> bool,
    /// Makes a server of the program, but for what is said of the connection.
    pub words: Vec<std::ffi::OsString>,
    /// What the first server is told besides.
    pub first_words: &'a [&'a str],
    /// Where the program lies, for an upgrade.
    pub program: PathBuf,
    /// As on a kernel that sends nothing again.
    pub without_resend: bool,
}

/// What whoever started the supervisor is told.
pub enum Told {
    /// Requests are answered, for the first time.
    Ready,
    /// What was lost.
    Lost(String),
    /// What came of a wish for an upgrade.
    Upgraded(Result<(), String>),
}

/// How far an upgrade has come.
enum Upgrade {
    /// The server is to make way for this program.
    Asked(Program),
    /// A server of another program begins; this is the one from before.
    Begun(Program),
}

struct Supervisor<'a> {
    charge: &'a Charge<'a>,
    signals: Signals,
    sender: Sender<Turn>,
    program: Program,
    device: OwnedFd,
    /// What the kernel can do on this connection, once it has said so.
    capabilities: Option<u64>,
    nonce: String,
    servers: u64,
    deaths: Deaths,
    /// The signal that is to end it all: a server that begins has yet to get it.
    ending: Option<i32>,
    /// A program is to prove itself for an upgrade.
    is_trying: bool,
    /// An upgrade, and how long the server has for its part in it.
    upgrade: Option<(Upgrade, Instant)>,
}

/// Keeps a mount until it is gone. An error is a sentence.
pub fn keep(charge: &Charge, signals: Signals, mut tell: impl FnMut(Told)) -> Result<(), String> {
    let (sender, turns) = mpsc::channel();
    let to_supervisor = sender.clone();
    thread::spawn(move || {
        loop {
            match signals.wait() {
                // That a terminal closes is no wish for an upgrade.
                (libc::SIGHUP, true) => {}
                (number, _) => _ = to_supervisor.send(Turn::Signal(number)),
            }
        }
    });
    let mut supervisor = Supervisor {
        charge,
        signals,
        sender,
        program: Program::current()?,
        device: (charge.mount)()?,
        capabilities: None,
        nonce: nonce(),
        servers: 0,
        deaths: Deaths::default(),
        ending: None,
        is_trying: false,
        upgrade: None,
    };
    let kept = supervisor.run(&turns, &mut tell);
    kept.inspect_err(|_| _ = (charge.unmount)())
}

/// What no other connection of this boot has.
fn nonce() -> String {
    let at = crate::process::now().boot;
    format!("{}-{}", std::process::id(), at.as_nanos())
}

impl Supervisor<'_> {
    fn run(&mut self, turns: &Receiver<Turn>, tell: &mut dyn FnMut(Told)) -> Result<(), String> {
        let mut server = self.start()?;
        loop {
            let until = self.upgrade.as_ref().map(|(_, until)| *until);
            let turn = match until {
                Some(until) => turns.recv_timeout(until.saturating_duration_since(Instant::now())),
                None => turns.recv().map_err(RecvTimeoutError::from),
            };
            match turn {
                Ok(Turn::Signal(libc::SIGHUP)) => self.try_upgrade(),
                Ok(Turn::Proved(Ok(new))) => {
                    self.is_trying = false;
                    // It finishes what it is about, and what it has not answered is sent again to the next.
                    _ = signal(server.child.id(), libc::SIGUSR2);
                    self.set_upgrade(Upgrade::Asked(new));
                }
                Ok(Turn::Proved(Err(why))) => {
                    self.is_trying = false;
                    tell(Told::Upgraded(Err(self.as_before(&why))));
                }
                Ok(Turn::Signal(number)) => {
                    self.ending = Some(number);
                    self.hand_on(&server);
                }
                Ok(Turn::Said(of, line)) if of == server.number => {
                    self.hear(&mut server, &line, tell);
                }
                Ok(Turn::Gone(of)) if of == server.number => {
                    let status = server.child.wait().map_err(|error| error.to_string())?;
                    let begins = matches!(self.upgrade, Some((Upgrade::Begun(_), _)));
                    if status.success() && (server.is_ready || !begins) {
                        return Ok(());
                    }
                    self.mourn(&mut server, status, tell)?;
                    server = self.start_again()?;
                }
                Ok(Turn::Said(..) | Turn::Gone(_)) => {}
                // It neither makes way nor begins: what follows follows from its end.
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

    /// Hands on the signal that ends it all, once there is somebody who knows what to do then.
    fn hand_on(&self, server: &Server) {
        if let Some(number) = self.ending.filter(|_| server.is_ready) {
            // It may have ended by now.
            _ = signal(server.child.id(), number);
        }
    }

    /// Starts a server on the connection.
    fn start(&mut self) -> Result<Server, String> {
        self.servers += 1;
        let number = self.servers;
        let failed = |error: io::Error| format!("a server cannot be started: {error}");
        let known = self
            .capabilities
            .map(|bits| format!("--capabilities={bits}"));
        let mut words = vec!["--connection", &self.nonce];
        words.extend(known.as_deref());
        words.extend(self.charge.first_words.iter().filter(|_| number == 1));
        let mut command = self
            .program
            .server(&words, &self.charge.words, self.signals);
        let device = self.device.try_clone().map_err(failed)?;
        command.stdin(device);
        logging::follow();
        Server::start(number, command, self.sender.clone()).map_err(failed)
    }

    /// Starts a server after another: on the same connection, if the kernel sends again what that one has left undone.
    fn start_again(&mut self) -> Result<Server, String> {
        let sends_again = self.capabilities.is_some_and(|bits| bits & HAS_RESEND != 0);
        if !sends_again || self.charge.without_resend {
            log::warn!(
                "this kernel (before 6.9) does not send again what the server had not answered: the mount is taken away \
                 and made anew, and whoever used it is told ENOTCONN"
            );
            if !(self.charge.unmount)() {
                return Err(String::from(
                    "the server has died, and the mount was gone already",
                ));
            }
            self.device = (self.charge.mount)()?;
            (self.capabilities, self.nonce) = (None, nonce());
        }
        self.start()
    }

    fn hear(&mut self, server: &mut Server, line: &str, tell: &mut dyn FnMut(Told)) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "ready" => {
                server.is_ready = true;
                self.hand_on(server);
                if self.capabilities.is_none() {
                    self.capabilities = rest.parse().ok();
                }
                if server.number == 1 {
                    tell(Told::Ready);
                }
                if let Some((Upgrade::Begun(_), _)) = &self.upgrade {
                    self.upgrade = None;
                    tell(Told::Upgraded(Ok(())));
                }
            }
            "lost" => tell(Told::Lost(rest.to_owned())),
            "asked" => server.is_asked = true,
            "answered" => server.has_answered = true,
            "failed" => server.failure = Some(rest.to_owned()),
            _ => {}
        }
    }

    /// A server has died: another is to take over, unless there is no point in that.
    fn mourn(
        &mut self,
        server: &mut Server,
        status: ExitStatus,
        tell: &mut dyn FnMut(Told),
    ) -> Result<(), String> {
        let why = server.failure.take().unwrap_or_else(|| status.to_string());
        match self.upgrade.take() {
            Some((Upgrade::Asked(new), _)) => {
                let old = std::mem::replace(&mut self.program, new);
                self.set_upgrade(Upgrade::Begun(old));
                return Ok(());
            }
            Some((Upgrade::Begun(old), _)) => {
                self.program = old;
                tell(Told::Upgraded(Err(self.as_before(&why))));
                return Ok(());
            }
            None => {}
        }
        if server.number == 1 && !server.is_ready {
            return Err(why);
        }
        log::error!("the server ended ({why}); another takes over");
        thread::sleep(self.deaths.one_more(server, status, &why)?);
        Ok(())
    }

    fn set_upgrade(&mut self, upgrade: Upgrade) {
        self.upgrade = Some((upgrade, Instant::now() + PATIENCE));
    }

    fn as_before(&self, why: &str) -> String {
        let program = self.charge.program.display();
        format!("{program}: {why}; the claimfs from before goes on")
    }

    /// Lets the program that lies on the disk now prove itself, unless another does so already.
    fn try_upgrade(&mut self) {
        if self.upgrade.is_some() || self.is_trying {
            return;
        }
        self.is_trying = true;
        let (path, words) = (self.charge.program.clone(), self.charge.words.clone());
        let (signals, connection) = (self.signals, self.nonce.clone());
        let sender = self.sender.clone();
        thread::spawn(move || {
            let proved = Program::proved(&path, &connection, &words, signals, PATIENCE);
            _ = sender.send(Turn::Proved(proved));
        });
    }
}
