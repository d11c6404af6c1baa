//! The process that holds the `/dev/fuse` descriptor of a mount, so that the mount outlives its servers: it starts one, waits for
//! its end, and starts the next on the same descriptor.
//!
//! ```text
//! claimfs mount          the keeper                                   claimfs serve, one after the other
//!                        holds the descriptor  ── standard input ──▶  answers requests on it
//!                        reads what it reports ◀─ standard output ──  "lost …", "ready CAPABILITIES", "answered", "failed …"
//!                        hands on what it gets ── signals ──────────▶ SIGTERM and SIGINT unmount, SIGUSR2 makes way
//! ```
//!
//! Promises: it never touches the mount, so that nothing that a server does or leaves undone can hang it; after a crash it
//! starts the program that it holds open, whatever has become of the file of that name; and there is never a second server
//! before the first is gone.
//!
//! Deliberately ignorant of: everything that is served.
#![allow(unsafe_code)]

pub mod device;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::{Signals, signal};

/// So many deaths, one after the other without an answer between them, within so long: it will not get better.
const DEATHS: usize = 5;
const DEATHS_WITHIN: Duration = Duration::from_secs(10);

/// How long it rests after a death without an answer before; twice as long after each further one.
const PAUSE: Duration = Duration::from_millis(10);

/// How long a server may take to make way, and a new program to prove itself and to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// `FUSE_HAS_RESEND`: the kernel sends again what a dead server had not answered (`include/uapi/linux/fuse.h`, Linux 6.9 on).
const HAS_RESEND: u64 = 1 << 39;

/// What is to be kept.
pub struct Charge<'a> {
    /// Mounts, and returns the descriptor on which requests arrive.
    pub mount: &'a dyn Fn() -> Result<OwnedFd, String>,
    /// Takes the mount away.
    pub unmount: &'a dyn Fn(),
    /// Makes a server of the program, but for what is said of the connection.
    pub words: Vec<std::ffi::OsString>,
    /// What the first server is told besides.
    pub first_words: &'a [&'a str],
    /// Where the program lies, for an upgrade.
    pub program: PathBuf,
    /// As on a kernel that sends nothing again.
    pub without_resend: bool,
}

/// What whoever started the keeper is told.
pub enum Told {
    /// Requests are answered, for the first time.
    Ready,
    /// What was lost.
    Lost(String),
    /// What came of a wish for an upgrade.
    Upgraded(Result<(), String>),
}

/// What wakes the keeper; of a server, with its number.
enum Turn {
    Signal(i32),
    Said(u64, String),
    Gone(u64),
}

struct Server {
    number: u64,
    child: Child,
    /// It has answered a request.
    has_answered: bool,
    /// Why it could not begin.
    failure: Option<String>,
}

struct Keeper<'a> {
    charge: &'a Charge<'a>,
    signals: Signals,
    turns: Receiver<Turn>,
    sender: Sender<Turn>,
    program: File,
    device: OwnedFd,
    /// What the kernel can do on this connection, once it has said so.
    capabilities: Option<u64>,
    nonce: String,
    servers: u64,
}

/// Keeps a mount until it is gone. An error is a sentence.
pub fn keep(charge: &Charge, signals: Signals, mut tell: impl FnMut(Told)) -> Result<(), String> {
    let failed = |error: io::Error| format!("the keeper: {error}");
    let (sender, turns) = mpsc::channel();
    let to_keeper = sender.clone();
    thread::spawn(move || while to_keeper.send(Turn::Signal(signals.wait().0)).is_ok() {});
    let mut keeper = Keeper {
        charge,
        signals,
        turns,
        sender,
        program: File::open("/proc/self/exe").map_err(failed)?,
        device: (charge.mount)()?,
        capabilities: None,
        nonce: nonce(),
        servers: 0,
    };
    let kept = keeper.run(&mut tell);
    if kept.is_err() {
        (charge.unmount)();
    }
    kept
}

/// What no other connection of this boot has.
fn nonce() -> String {
    let at = crate::process::now().boot;
    format!("{}-{}", std::process::id(), at.as_nanos())
}

impl Keeper<'_> {
    fn run(&mut self, tell: &mut impl FnMut(Told)) -> Result<(), String> {
        let mut server = self.start()?;
        let mut deaths: Vec<Instant> = Vec::new();
        let mut is_ready = false;
        loop {
            match self.turns.recv().map_err(|error| error.to_string())? {
                Turn::Signal(libc::SIGHUP) => tell(Told::Upgraded(self.upgrade(&mut server))),
                Turn::Signal(number) => _ = signal(server.child.id(), number),
                Turn::Said(of, line) if of == server.number => match self.heard(&mut server, &line)
                {
                    Some(Told::Ready) if is_ready => {}
                    Some(told) => {
                        is_ready |= matches!(told, Told::Ready);
                        tell(told);
                    }
                    None => {}
                },
                Turn::Gone(of) if of == server.number => {
                    let status = server.child.wait().map_err(|error| error.to_string())?;
                    if status.success() {
                        return Ok(());
                    }
                    if !is_ready {
                        let why = server.failure.take();
                        return Err(why.unwrap_or_else(|| format!("the server ended ({status})")));
                    }
                    if server.has_answered {
                        deaths.clear();
                    } else {
                        Self::bear(&mut deaths, status, server.failure.as_deref())?;
                    }
                    log::error!("the server ended ({status}); another takes over");
                    server = self.start_again()?;
                }
                Turn::Said(..) | Turn::Gone(_) => {}
            }
        }
    }

    /// A server has died that never answered: rests for a while, or gives up.
    fn bear(
        deaths: &mut Vec<Instant>,
        status: ExitStatus,
        failure: Option<&str>,
    ) -> Result<(), String> {
        deaths.push(Instant::now());
        deaths.retain(|death| death.elapsed() < DEATHS_WITHIN);
        if deaths.len() < DEATHS {
            let doublings = u32::try_from(deaths.len() - 1).unwrap_or(0);
            thread::sleep(PAUSE * (1 << doublings));
            return Ok(());
        }
        let why = failure.map_or_else(|| status.to_string(), String::from);
        Err(format!(
            "{DEATHS} servers ended within {} s without answering a request, the last one so: {why}; the mount is taken away",
            DEATHS_WITHIN.as_secs()
        ))
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
        words.extend(
            (number == 1)
                .then_some(self.charge.first_words)
                .into_iter()
                .flatten(),
        );
        let mut command = self.command(&self.program, &words);
        let device = self.device.try_clone().map_err(failed)?;
        command.stdin(device).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let stdout = child.stdout.take();
        let sender = self.sender.clone();
        thread::spawn(move || {
            let lines = stdout
                .into_iter()
                .flat_map(|pipe| BufReader::new(pipe).lines());
            for line in lines.map_while(Result::ok) {
                _ = sender.send(Turn::Said(number, line));
            }
            _ = sender.send(Turn::Gone(number));
        });
        Ok(Server {
            number,
            child,
            has_answered: false,
            failure: None,
        })
    }

    /// Starts a server after another: on the same connection, if the kernel sends again what that one has left undone.
    fn start_again(&mut self) -> Result<Server, String> {
        let sends_again = self.capabilities.is_some_and(|bits| bits & HAS_RESEND != 0);
        if !sends_again || self.charge.without_resend {
            log::warn!(
                "this kernel (before 6.9) does not send again what the server had not answered: the mount is taken away \
                 and made anew, and whoever used it is told ENOTCONN"
            );
            (self.charge.unmount)();
            self.device = (self.charge.mount)()?;
            (self.capabilities, self.nonce) = (None, nonce());
        }
        self.start()
    }

    fn command(&self, program: &File, words: &[&str]) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
        command.arg0("claimfs").arg("serve").args(words);
        command.args(&self.charge.words);
        command.stdin(Stdio::null());
        self.signals.unkept_in(&mut command);
        command
    }

    fn heard(&mut self, server: &mut Server, line: &str) -> Option<Told> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "ready" => {
                self.capabilities = self.capabilities.or_else(|| rest.parse().ok());
                return Some(Told::Ready);
            }
            "lost" => return Some(Told::Lost(rest.to_owned())),
            "answered" => server.has_answered = true,
            "failed" => server.failure = Some(rest.to_owned()),
            _ => {}
        }
        None
    }

    /// Lets the program that lies on the disk now take over. If it cannot, the one from before goes on.
    fn upgrade(&mut self, server: &mut Server) -> Result<(), String> {
        let path = self.charge.program.display();
        let goes_on = |why: &str| format!("{path}: {why}; the server from before goes on");
        let new = File::open(&self.charge.program).map_err(|error| goes_on(&error.to_string()))?;
        self.prove(&new).map_err(|why| goes_on(&why))?;
        // It finishes what it is about and ends. Whatever it has not answered is sent again to the next.
        _ = signal(server.child.id(), libc::SIGUSR2);
        let status = Self::end(server).map_err(|error| error.to_string())?;
        if status.success() {
            // It was unmounted meanwhile: whoever waits for this server finds it so.
            _ = self.sender.send(Turn::Gone(server.number));
            return Err(format!("{path}: the mount is gone"));
        }
        let old = std::mem::replace(&mut self.program, new);
        let why = match self.begin_anew(server) {
            Ok(()) => return Ok(()),
            Err(why) => why,
        };
        log::error!("the new program cannot serve ({why}); the one from before takes over");
        self.program = old;
        self.begin_anew(server)?;
        Err(goes_on(&why))
    }

    /// Lets a program show that it starts and that it can read the state: it changes nothing.
    fn prove(&self, program: &File) -> Result<(), String> {
        let mut command = self.command(program, &["--prove"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let until = Instant::now() + PATIENCE;
        loop {
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    let said = child.stderr.take().map(io::read_to_string);
                    let said = said.and_then(Result::ok).unwrap_or_default();
                    let line = said.lines().next().unwrap_or("it says nothing");
                    return Err(format!("it cannot take over ({status}): {line}"));
                }
                None if Instant::now() > until => {
                    _ = child.kill();
                    _ = child.wait();
                    return Err(String::from("it does not come to an end when it is tried"));
                }
                None => thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// Waits until a server has ended, and kills it if it does not.
    fn end(server: &mut Server) -> io::Result<ExitStatus> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = server.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(1));
        }
        server.child.kill()?;
        server.child.wait()
    }

    /// Starts a server after another that has ended, and waits until it answers.
    fn begin_anew(&mut self, server: &mut Server) -> Result<(), String> {
        *server = self.start_again()?;
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.turns.recv_timeout(left) {
                Ok(Turn::Signal(libc::SIGHUP)) => {}
                Ok(Turn::Signal(number)) => _ = signal(server.child.id(), number),
                Ok(Turn::Said(of, line)) if of == server.number => {
                    if let Some(Told::Ready) = self.heard(server, &line) {
                        return Ok(());
                    }
                }
                Ok(Turn::Gone(of)) if of == server.number => {
                    let status = server.child.wait().map_err(|error| error.to_string())?;
                    let why = server.failure.take();
                    return Err(why.unwrap_or_else(|| status.to_string()));
                }
                Ok(Turn::Said(..) | Turn::Gone(_)) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    _ = server.child.kill();
                    _ = server.child.wait();
                    return Err(String::from("it does not begin"));
                }
            }
        }
    }
}
