//! One server, as its keeper sees it: a process, and the lines that it says on its standard output.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::thread;

/// What wakes the keeper; of a server, with its number.
pub(super) enum Turn {
    /// A signal has come.
    Signal(i32),
    /// A server has said a line.
    Said(u64, String),
    /// It says no more: it ends, or has ended.
    Gone(u64),
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
