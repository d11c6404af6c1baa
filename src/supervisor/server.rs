//! One server, as its supervisor sees it: a process, and the lines that it says on its standard output; and how one dies after the other.

use std::io::{self, BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use super::program::Program;

/// What wakes the supervisor; of a server, with its number.
pub(super) enum Turn {
    /// A signal has come.
    Signal(i32),
    /// A server has said a line.
    Said(u64, String),
    /// It says no more: it ends, or has ended.
    Gone(u64),
    /// A program has proved itself for an upgrade, or has not.
    Proved(Result<Program, String>),
}

/// A server.
pub(super) struct Server {
    /// The first has number 1.
    pub number: u64,
    pub child: Child,
    pub is_ready: bool,
    /// A request has reached it.
    pub is_asked: bool,
    /// It has answered one.
    pub has_answered: bool,
    /// Why it could not begin.
    pub failure: Option<String>,
}

impl Server {
    /// Starts it, and a thread that hands on what it says.
    pub fn start(number: u64, mut command: Command, sender: Sender<Turn>) -> io::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take();
        thread::spawn(move || {
            let lines = stdout
                .into_iter()
                .flat_map(|pipe| BufReader::new(pipe).lines());
            for line in lines.map_while(Result::ok) {
                _ = sender.send(Turn::Said(number, line));
            }
            _ = sender.send(Turn::Gone(number));
        });
        Ok(Self {
            number,
            child,
            is_ready: false,
            is_asked: false,
            has_answered: false,
            failure: None,
        })
    }
}

/// So many deaths, one after the other without an answer between them, within so long: it will not get better.
const DEATHS: usize = 5;
const DEATHS_WITHIN: Duration = Duration::from_secs(10);

/// How long it rests after a death without an answer before; twice as long after each further one.
const PAUSE: Duration = Duration::from_millis(10);

/// When servers died, one after the other, that had answered nothing.
#[derive(Default)]
pub(super) struct Deaths(Vec<Instant>);

impl Deaths {
    /// A server has died: how long to rest before the next, or why there is no point in another.
    pub fn one_more(
        &mut self,
        server: &Server,
        status: ExitStatus,
        why: &str,
    ) -> Result<Duration, String> {
        let is_killed = status.signal() == Some(libc::SIGKILL);
        if server.has_answered {
            self.0.clear();
        } else if !(server.is_ready && is_killed && !server.is_asked) {
            // Of one that somebody kills while nobody asks it anything, nothing can be said.
            self.0.push(Instant::now());
        }
        self.0.retain(|death| death.elapsed() < DEATHS_WITHIN);
        if self.0.len() < DEATHS {
            let by_itself = u32::from(!is_killed);
            let pauses = u32::try_from(1 << self.0.len() >> 1).unwrap_or(0);
            return Ok(PAUSE * pauses.max(by_itself));
        }
        Err(format!(
            "{DEATHS} servers ended within {} s without answering a request, the last one so: {why}; the mount is taken away",
            DEATHS_WITHIN.as_secs()
        ))
    }
}
