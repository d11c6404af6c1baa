//! Eight processes that are released together on a name, for the bench `racers` and for the suite.
//!
//! A racer that wins believes that it holds the name until the round is ended, which is once all
//! have answered. So two that have won in a round are two holders at a time.
//!
//! They wait at a gate, a FIFO without a writer: open(2) of it blocks, and the one writer's open
//! lets all go at once.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::plain;

pub const RACERS: usize = 8;

/// How long a racer may be silent, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// A kind of racer: each is run as `words`, with its role in the environment.
#[derive(Debug)]
pub struct Client {
    pub name: &'static str,
    /// A command that succeeds where it is installed.
    pub probe: &'static [&'static str],
    pub words: &'static [&'static str],
    pub variables: &'static [(&'static str, &'static str)],
    /// Whether each racer has a session variable, or is the POSIX session that it is anyway.
    pub named: bool,
    /// Whether the holders that die are forked by one process of the client, which is faster than
    /// to start it each time.
    pub nests: bool,
}

macro_rules! racer {
    ($script:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/", $script)
    };
}
pub(crate) use racer;

pub const DASH: Client = Client {
    name: "sh (dash): set -C",
    probe: &["dash", "-c", ""],
    words: &["dash", racer!("racer.sh"), "noclobber"],
    variables: &[],
    named: false,
    nests: false,
};

pub const BASH: Client = Client {
    name: "bash: set -C",
    probe: &["bash", "-c", ""],
    words: &["bash", racer!("racer.sh"), "noclobber"],
    named: true,
    ..DASH
};

pub const PYTHON: Client = Client {
    name: "Python: os.open, O_EXCL",
    probe: &["python3", "-c", ""],
    words: &["python3", racer!("racer.py"), "open"],
    nests: true,
    ..DASH
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Won,
    Lost,
    /// Neither: an error that does not say that somebody else has it.
    Failed(String),
}

/// A process that is spoken with by lines. It is killed when it is dropped.
struct Speaker {
    child: Child,
    stream: BufReader<UnixStream>,
}

impl Speaker {
    fn start(mut command: Command) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        let mut speaker = Self {
            child: command.spawn().unwrap(),
            stream: BufReader::new(ours),
        };
        // Else the command's own end of the socket hides that its process has ended.
        drop(command);
        assert_eq!(speaker.hear(), "ready");
        speaker
    }

    fn say(&mut self, line: &str) {
        self.stream
            .get_mut()
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "it ended: {line:?}");
        line.trim_end().to_owned()
    }

    /// Whether it sleeps, by proc(5).
    fn sleeps(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        stat.rsplit(") ").next().unwrap().starts_with('S')
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Racers of one client, at home in one directory.
pub struct Race {
    client: &'static Client,
    dir: PathBuf,
    scratch: PathBuf,
    racers: Vec<Speaker>,
    nest: Option<Speaker>,
    round: usize,
}

impl Client {
    pub fn is_installed(&self) -> bool {
        let mut probe = Command::new(self.probe[0]);
        probe
            .args(&self.probe[1..])
            .envs(self.variables.iter().copied());
        probe.stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    }

    /// In a POSIX session of its own, and in a claimfs session of its own if it is named.
    fn command(&self, role: &str, session: &str, dir: &Path, scratch: &Path) -> Command {
        let mut command = Command::new(self.words[0]);
        command
            .args(&self.words[1..])
            .envs(self.variables.iter().copied());
        plain(&mut command);
        if self.named {
            command.env("CLAIMFS_SESSION", session);
        }
        command
            .env("RACER_ROLE", role)
            .env("RACER_ERRORS", scratch.join(format!("errors-{session}")));
        command.current_dir(dir).stdout(Stdio::null());
        command
    }
}

impl Race {
    /// Starts the racers in a directory; in another, which is on tmpfs at best, they have their
    /// gates.
    pub fn start(client: &'static Client, dir: &Path, scratch: &Path) -> Self {
        let start =
            |role: &str, session: &str| Speaker::start(client.command(role, session, dir, scratch));
        for gate in 0..2 {
            let gate = scratch.join(format!("gate-{gate}"));
            if !gate.exists() {
                let path = CString::new(gate.as_os_str().as_bytes()).unwrap();
                assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
            }
        }
        let racers = (0..RACERS).map(|index| start("racer", &format!("racer-{index}")));
        Self {
            client,
            dir: dir.to_owned(),
            scratch: scratch.to_owned(),
            racers: racers.collect(),
            nest: client.nests.then(|| start("nest", "nest")),
            round: 0,
        }
    }

    #[allow(dead_code)]
    pub fn pid(&self, racer: usize) -> u32 {
        self.racers[racer].child.id()
    }

    /// A process of the client takes a name and is killed, and its parent has waited for it.
    pub fn die_holding(&mut self, name: &str) {
        if let Some(nest) = &mut self.nest {
            nest.say(name);
            assert_eq!(nest.hear(), "dead");
            return;
        }
        let mut holder = self
            .client
            .command("hold", "dead", &self.dir, &self.scratch);
        let holder = holder.env("RACER_NAME", name).stdin(Stdio::null());
        let status = holder.status().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "it held {name}");
    }

    /// Lets all go for a name, for so long if they do not get it, and waits until each has
    /// answered.
    pub fn run(&mut self, name: &str, patience: Duration) -> Vec<Answer> {
        // One gate is open until all have answered, so they wait at the other.
        let gate = self.scratch.join(format!("gate-{}", self.round % 2));
        self.round += 1;
        for racer in &mut self.racers {
            let gate = gate.display();
            racer.say(&format!("{gate} {name} {}", patience.as_millis()));
        }
        for racer in &mut self.racers {
            assert_eq!(racer.hear(), "at");
        }
        while !self.racers.iter().all(Speaker::sleeps) {
            thread::yield_now();
        }
        // To open a FIFO for both never waits.
        let gate = File::options().read(true).write(true).open(gate).unwrap();
        let answers = self.racers.iter_mut().map(|racer| {
            let answer = racer.hear();
            match answer.as_str() {
                "won" => Answer::Won,
                "lost" => Answer::Lost,
                _ => Answer::Failed(answer),
            }
        });
        let answers = answers.collect();
        drop(gate);
        answers
    }

    /// Ends the round: who believes that it holds the name gives it back. What they complained of.
    pub fn end(&mut self) -> Vec<String> {
        for racer in &mut self.racers {
            racer.say("end");
        }
        let ends = self.racers.iter_mut().map(Speaker::hear);
        ends.filter(|end| end != "ended").collect()
    }
}
