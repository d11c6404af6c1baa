//! The record of each operation: when it was asked and when it was answered, by the clock
//! that all processes of the machine share, by whom, what, and the answer. A process that is killed
//! leaves an operation without an answer.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::support::memory::clock;

/// A request of a client. Names are those below `claims/` and `queue/`, or begin with `paths/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// `O_CREAT | O_EXCL`.
    Create(String),
    Mkdir(String),
    /// Reserves a path by a line in `control`.
    Reserve(String),
    /// By unlink(2), or of a path by a line in `control`.
    Unlink(String),
    Rmdir(String),
    /// Opens `queue/NAME`, which takes a place in the queue.
    Join(String),
    /// Reads it, or polls it first.
    Await(String),
    /// Closes it without having been served.
    Leave(String),
    /// Looks until neither `waiters` nor `leases` knows of the one that has left.
    Gone(String),
    /// Renames a claim of one's own; `replaces` says that it is without `RENAME_NOREPLACE`.
    Rename {
        from: String,
        to: String,
        replaces: bool,
    },
    Link {
        from: String,
        to: String,
    },
    /// Hands a claim to another session, by `control`.
    Give {
        name: String,
        to: String,
    },
    /// Gives a claim a deadline so many nanoseconds ahead.
    Limit {
        name: String,
        nanos: u64,
    },
    /// Reads the token of a claim of one's own.
    Token(String),
    /// Reads `leases`.
    Look,
}

impl Call {
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Mkdir(_) => "mkdir",
            Self::Reserve(_) => "reserve",
            Self::Unlink(_) => "unlink",
            Self::Rmdir(_) => "rmdir",
            Self::Join(_) => "join a line",
            Self::Await(_) => "wait in line",
            Self::Leave(_) => "leave a line",
            Self::Gone(_) => "look whether it has left",
            Self::Rename { .. } => "rename",
            Self::Link { .. } => "link",
            Self::Give { .. } => "give",
            Self::Limit { .. } => "give a deadline",
            Self::Token(_) => "read a token",
            Self::Look => "read leases",
        }
    }

    /// The name that it wants, or else is about.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Create(name)
            | Self::Mkdir(name)
            | Self::Reserve(name)
            | Self::Unlink(name)
            | Self::Rmdir(name)
            | Self::Join(name)
            | Self::Await(name)
            | Self::Leave(name)
            | Self::Gone(name)
            | Self::Token(name)
            | Self::Rename { to: name, .. }
            | Self::Link { to: name, .. }
            | Self::Give { name, .. }
            | Self::Limit { name, .. } => Some(name),
            Self::Look => None,
        }
    }

    pub fn concerns(&self, name: &str) -> bool {
        let from = match self {
            Self::Rename { from, .. } | Self::Link { from, .. } => Some(&**from),
            _ => None,
        };
        [self.name(), from].contains(&Some(name))
    }
}

/// Of reservations that overlap, the topmost: only one of them can be held at a time.
pub fn place(name: &str) -> &str {
    let top = "paths/h/p";
    if name.starts_with(top) { top } else { name }
}

/// A line of `leases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub name: String,
    pub session: String,
    pub token: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Done,
    /// An errno.
    Refused(i32),
    /// The end of `queue/NAME`: it is the reader's.
    Served,
    /// Not yet served, at some moment of the operation.
    Waiting,
    /// Something that says nothing about the name.
    Noted,
    Token(u64),
    Listed(Vec<Lease>),
}

/// A line that a client appends to its file, before or after each call.
#[derive(Serialize, Deserialize)]
enum Line {
    Asks(u64, Call),
    Told(u64, Answer),
}

/// The file of one process. What it was asking when it was killed stands there too.
pub struct Recorder(File);

impl Recorder {
    pub fn new(path: &Path) -> Self {
        let options = OpenOptions::new().create(true).append(true).open(path);
        Self(options.unwrap())
    }

    fn write(&mut self, line: &Line) {
        let mut text = serde_json::to_vec(line).unwrap();
        text.push(b'\n');
        self.0.write_all(&text).unwrap();
    }

    pub fn record(&mut self, call: Call, act: impl FnOnce() -> Answer) -> Answer {
        self.write(&Line::Asks(clock(), call));
        let answer = act();
        self.write(&Line::Told(clock(), answer.clone()));
        answer
    }
}

/// Times are nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Debug)]
pub struct Operation {
    pub process: u32,
    pub call: Call,
    pub asked: u64,
    /// `None` if the process was killed before it was told.
    pub told: Option<(u64, Answer)>,
}

impl Operation {
    /// The request, and in short its outcome.
    pub fn kind(&self) -> String {
        let verb = self.call.verb();
        match &self.told {
            None => format!("{verb}: killed"),
            Some((_, Answer::Refused(errno))) => {
                let kind = std::io::Error::from_raw_os_error(*errno).kind();
                format!("{verb}: {kind:?}")
            }
            Some((_, Answer::Waiting | Answer::Noted)) => format!("{verb}: not yet"),
            Some(_) => verb.to_owned(),
        }
    }
}

/// One process: it has a session of its own, though perhaps one of the same id as a dead one before
/// it.
#[derive(Clone, Debug)]
pub struct Life {
    pub session: String,
    /// Before it was started.
    pub start: u64,
    /// Before the signal was sent.
    pub killed: u64,
    /// After its parent had waited for it.
    pub gone: u64,
}

/// All that is known of a stretch of time at whose beginning and end nobody holds anything.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub lives: BTreeMap<u32, Life>,
    /// Those of one process are in its order.
    pub operations: Vec<Operation>,
    /// When the state directory may have been full.
    pub full: Vec<(u64, u64)>,
    /// The faults that the nemesis injected, and when.
    pub faults: Vec<(u64, String)>,
}

impl History {
    /// Takes in the file of a process that is over.
    pub fn read(&mut self, process: u32, path: &Path) {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        for line in text.split_inclusive('\n') {
            // A process may be killed in the middle of a write, whose call it did not make then.
            let Ok(line) = serde_json::from_str(line) else {
                assert!(!line.ends_with('\n'), "{line}");
                continue;
            };
            match line {
                Line::Asks(asked, call) => self.operations.push(Operation {
                    process,
                    call,
                    asked,
                    told: None,
                }),
                Line::Told(at, answer) => {
                    self.operations.last_mut().unwrap().told = Some((at, answer));
                }
            }
        }
    }

    /// When a process was last heard of.
    pub fn last_word(&self, process: u32) -> Option<u64> {
        let last = self.operations.iter().rfind(|of| of.process == process)?;
        Some(last.told.as_ref().map_or(last.asked, |told| told.0))
    }

    /// Whether the state directory may have been full at some moment between two.
    pub fn is_full(&self, from: u64, to: u64) -> bool {
        self.full.iter().any(|full| full.0 <= to && from <= full.1)
    }
}

/// A text in one read: between two a server that cannot keep what it has begun to show, for want of
/// space, may die, and the next one shows no more of it.
pub fn whole(path: &str) -> io::Result<String> {
    let mut text = vec![0; 1 << 17];
    let size = File::open(path)?.read(&mut text)?;
    assert!(size < text.len());
    text.truncate(size);
    Ok(String::from_utf8(text).unwrap())
}

/// The leases that the mount lists, or why it does not.
pub fn leases(path: &str) -> Answer {
    match whole(path) {
        Ok(text) => {
            let lines = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            Answer::Listed(lines.collect())
        }
        Err(error) => Answer::Refused(error.raw_os_error().unwrap_or(-1)),
    }
}
