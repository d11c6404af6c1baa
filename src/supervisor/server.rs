//! One server, as its supervisor sees it: a process, and the reports that it writes to its standard
//! output; and how often servers may crash.

use std::io::{self, BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use super::program::Program;
use super::report::Report;
use crate::core::failure::Failure;

/// An input that the supervisor reacts to. Inputs from a server carry its number.
pub(super) enum Input {
    /// A signal has arrived.
    Signal(i32),
    /// A server has reported something.
    Reported(u64, Report),
    /// A server has closed its standard output: it ends, or has ended.
    Closed(u64),
    /// A program has proved that it can serve, or has failed to.
    Tried(Result<Program, Failure>),
}

/// A server.
pub(super) struct Server {
    /// The first has number 1.
    pub number: u64,
    pub child: Child,
    pub is_ready: bool,
    /// A request has reached it.
    pub is_asked: bool,
    /// It has answered a request.
    pub has_answered: bool,
    /// Why it could not begin.
    pub failure: Option<String>,
}

impl Server {
    /// Starts it, and a thread that reads its reports.
    pub(super) fn start(
        number: u64,
        mut command: Command,
        sender: Sender<Input>,
    ) -> io::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take();
        thread::spawn(move || {
            let lines = stdout
                .into_iter()
                .flat_map(|pipe| BufReader::new(pipe).lines());
            for line in lines.map_while(Result::ok) {
                if let Some(report) = Report::parse(&line) {
                    _ = sender.send(Input::Reported(number, report));
                }
            }
            _ = sender.send(Input::Closed(number));
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

/// The mount is given up after this many crashes without an answer in between, within this time.
const CRASHES_MAX: usize = 5;
const CRASHES_WITHIN: Duration = Duration::from_secs(10);

/// How long to wait before the next server after a crash without an answer; twice as long after
/// each further one.
const PAUSE: Duration = Duration::from_millis(10);

/// When servers that had answered nothing crashed, since the last answer.
#[derive(Default)]
pub(super) struct Crashes(Vec<Instant>);

impl Crashes {
    /// Counts the end of a server. Returns how long to wait before the next one is started, or why
    /// there is no point in another, and whether the dead mount stays.
    pub(super) fn count(
        &mut self,
        server: &Server,
        status: ExitStatus,
        why: &str,
        stays: bool,
    ) -> Result<Duration, Failure> {
        let is_killed = status.signal() == Some(libc::SIGKILL);
        if server.has_answered {
            self.0.clear();
        } else if !(server.is_ready && is_killed && !server.is_asked) {
            // A SIGKILL while idle says nothing about the server's health: it does not count.
            self.0.push(Instant::now());
        }
        self.0.retain(|crash| crash.elapsed() < CRASHES_WITHIN);
        if self.0.len() < CRASHES_MAX {
            let by_itself = u32::from(!is_killed);
            let pauses = u32::try_from(1 << self.0.len() >> 1).unwrap_or(0);
            return Ok(PAUSE * pauses.max(by_itself));
        }
        Err(Failure::unavailable(format!(
            "{CRASHES_MAX} servers ended within {} s without answering a request, the last one so: \
             {why}; {}",
            CRASHES_WITHIN.as_secs(),
            if stays {
                "the mount stays, and answers nothing, so that nobody gets a name that may be held"
            } else {
                "the mount is taken away"
            }
        )))
    }
}
