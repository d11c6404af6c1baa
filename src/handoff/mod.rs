//! What one connection to the kernel is owed, whichever server answers on it: the answers to requests that were carried out,
//! and what its open descriptors stand for.
//!
//! A connection outlives its servers (`supervisor.rs`). When one is killed, the kernel sends every request again that it had not
//! answered, with the same number and [`AGAIN`] set; and descriptors that it had opened are read, written and closed as if
//! nothing had been. What of this does not follow from the table is here, and in the journal.
//!
//! Promises: what was carried out is known until it is certain that the kernel has its answer.
//!
//! Deliberately ignorant of: how it is written down, fuser, processes.

pub mod spool;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::core::table::{Effects, Table};
use crate::core::wire;
use crate::core::{Event, Name, NodeId, Outcome, Process, SessionId, SessionKey, WaiterId};
use crate::render;

/// The bit of a request's number that says that it was sent before (`FUSE_UNIQUE_RESEND`, Linux 6.9 on).
pub const AGAIN: u64 = 1 << 63;

/// How many threads carry requests out, each one at a time: the one that the kernel gives them to, and the one that it hands on to what
/// takes long.
pub const THREADS: usize = 2;

/// How many lines are kept for readers of `events` while a journal is read.
const LINES_MAX: usize = 65_536;

/// Which request, and which part of it where it asks for several things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key(pub u64, pub u32);

/// A request, or a part of one, as a thread of a server has it before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Key, u64, bool)", into = "(Key, u64, bool)")]
pub struct Sent {
    /// Which.
    pub key: Key,
    /// It was sent before.
    pub again: bool,
    /// Which thread, of all that there ever were: each has one request before it at a time.
    pub thread: u64,
}

impl From<(Key, u64, bool)> for Sent {
    fn from((key, thread, again): (Key, u64, bool)) -> Self {
        Self { key, again, thread }
    }
}

impl From<Sent> for (Key, u64, bool) {
    fn from(sent: Sent) -> Self {
        (sent.key, sent.thread, sent.again)
    }
}

/// Where a reader of `events` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// In bytes from its opening.
    pub offset: u64,
    /// The event whose line comes next, or the first after it that has one.
    pub seq: u64,
    /// How many bytes of that line it has.
    pub skip: usize,
}

/// What the next server must know of a reader of `events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Where its newest read began.
    pub from: Position,
    /// Where the next one does.
    pub to: Position,
    /// The rest of the line that it is in.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "wire::bytes")]
    pub rest: Vec<u8>,
    /// The number of lines after that which are lost.
    #[serde(default)]
    pub missed: u64,
    /// The bytes of its newest read, where the lines do not tell them.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "wire::bytes")]
    pub last: Vec<u8>,
}

/// What an open descriptor stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Open {
    /// A file in `sessions/`, open for writing.
    Registering {
        /// The session.
        id: SessionId,
        /// Who opened it.
        process: Process,
        /// Its uid.
        uid: u32,
        /// `O_EXCL`, and nothing has come of it yet.
        exclusive: bool,
        /// Something was written to it, whatever came of it.
        written: bool,
    },
    /// A file in `queue/` whose reader was told that its session holds the name, and reads to the end.
    Seated,
    /// The same, where the name was granted to it: it reads to the end as long as that holds.
    Granted {
        /// Its place in the line that was.
        waiter: WaiterId,
        /// Its session.
        key: SessionKey,
        /// The name.
        name: Name,
    },
    /// `events`.
    Reading(Reading),
}

impl Open {
    /// Whether a handle can be that of such a descriptor.
    fn fits(&self, fh: NodeId) -> bool {
        match self {
            Self::Registering { .. } => matches!(fh, NodeId::Registration(_)),
            Self::Seated => matches!(fh, NodeId::Seated(_) | NodeId::Waiter(_)),
            Self::Granted { waiter, .. } => fh == NodeId::Waiter(*waiter),
            Self::Reading(_) => matches!(fh, NodeId::Reader(_)),
        }
    }
}

/// What changed, other than by an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// The kernel was told of a file in `queue/`.
    Told {
        /// Its inode.
        ino: NodeId,
        /// Its name.
        name: Name,
    },
    /// The kernel has forgotten it.
    Forgotten {
        /// Its inode.
        ino: NodeId,
    },
    /// A descriptor stands for this from now on.
    Opened {
        /// Its handle.
        fh: NodeId,
        /// What for.
        open: Open,
    },
    /// A descriptor is polled.
    Polled {
        /// Its handle.
        fh: NodeId,
        /// The kernel's own handle of it (`kh` of `struct fuse_poll_in`).
        kh: u64,
    },
    /// A descriptor was closed.
    Closed {
        /// Its handle.
        fh: NodeId,
    },
    /// The kernel has the descriptor of a place in a line.
    Confirmed {
        /// Which.
        waiter: WaiterId,
    },
    /// A server has taken over from one that has ended.
    TakenOver,
    /// A connection has begun; whatever was open on another is closed.
    Began {
        /// See [`Handoff::nonce`].
        nonce: String,
    },
}

impl Note {
    /// Refuses a number of the wrong kind, in words.
    pub fn check(&self) -> Result<(), String> {
        let is_right = match self {
            Self::Told { ino, .. } | Self::Forgotten { ino } => is_queue_file(*ino),
            Self::Opened { fh, open } => open.fits(*fh),
            Self::Polled { fh, .. } => fh.is_stream(),
            Self::Closed { fh } => fh.is_stream() || matches!(fh, NodeId::Registration(_)),
            Self::Confirmed { .. } | Self::TakenOver | Self::Began { .. } => true,
        };
        ensure(is_right)
    }
}

fn is_queue_file(ino: NodeId) -> bool {
    matches!(ino, NodeId::QueueFile(_))
}

fn ensure(is_right: bool) -> Result<(), String> {
    let why = "the number of a descriptor or a file is that of another kind";
    is_right.then_some(()).ok_or_else(|| String::from(why))
}

/// One connection.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Handoff {
    /// No other of this boot has it.
    pub nonce: String,
    /// How many servers there were before this one.
    pub lives: u64,
    /// Files in `queue/`, by inode.
    pub files: BTreeMap<NodeId, Name>,
    /// Descriptors, by handle.
    pub open: BTreeMap<NodeId, Open>,
    /// Waiters whose descriptors the kernel may have never got.
    pub unconfirmed: BTreeSet<WaiterId>,
    /// The kernel's handles of those that are polled.
    pub pollers: BTreeMap<NodeId, u64>,
    /// The newest lines of `events`, for readers that have not got them yet, by event.
    pub lines: VecDeque<(u64, String)>,
    /// No line of an event from this one on is missing among them.
    pub lines_from: u64,
    #[serde(with = "pairs")]
    done: HashMap<Key, Outcome>,
    /// What each thread has carried out of its newest request.
    newest: BTreeMap<u64, Vec<Key>>,
    /// The threads of the newest server that have gone on to what is not sent again.
    past: BTreeSet<u64>,
}

impl Handoff {
    /// One that has just begun.
    pub fn new(nonce: &str) -> Self {
        Self {
            nonce: nonce.to_owned(),
            ..Self::default()
        }
    }

    /// Refuses a number of the wrong kind, in words.
    pub fn check(&self) -> Result<(), String> {
        let files = self.files.keys().all(|ino| is_queue_file(*ino));
        let open = self.open.iter().all(|(fh, open)| open.fits(*fh));
        let pollers = self.pollers.keys().all(|fh| fh.is_stream());
        ensure(files && open && pollers)
    }

    /// What came of a request, if it was carried out and its answer may not have arrived.
    pub fn outcome(&self, key: Key) -> Option<Outcome> {
        self.done.get(&key).copied()
    }

    /// The event from which on some reader may want lines again.
    pub fn wanted(&self) -> Option<u64> {
        let open = self.open.values();
        let from = open.filter_map(|open| match open {
            Open::Reading(reading) => Some(reading.from.seq),
            _ => None,
        });
        from.min()
    }

    /// A thread has carried out a request. Whatever it did before is answered; and since the kernel sends what it sends again before
    /// anything else, once every thread has done something new, so is all that other servers did.
    fn carried_out(&mut self, sent: Sent, done: Outcome) {
        let newest = self.newest.entry(sent.thread).or_default();
        if newest.first().is_some_and(|before| before.0 != sent.key.0) {
            for answered in newest.drain(..) {
                self.done.remove(&answered);
            }
        }
        newest.push(sent.key);
        self.done.insert(sent.key, done);
        if !sent.again && self.past.insert(sent.thread) && self.past.len() == THREADS {
            let past = &self.past;
            self.newest.retain(|thread, _| past.contains(thread));
            let newest: HashSet<Key> = self.newest.values().flatten().copied().collect();
            self.done.retain(|known, _| newest.contains(known));
        }
    }

    /// Something changed, by a request if it is one that opens what the note is about.
    pub fn note(&mut self, note: Note, sent: Option<Sent>) {
        if let (Note::Opened { fh, .. }, Some(sent)) = (&note, sent) {
            let done = Outcome {
                fh: Some(*fh),
                ..Outcome::default()
            };
            self.carried_out(sent, done);
        }
        match note {
            Note::Told { ino, name } => _ = self.files.insert(ino, name),
            Note::Forgotten { ino } => _ = self.files.remove(&ino),
            Note::Opened { fh, open } => {
                if let Open::Reading(reading) = &open
                    && self.wanted().is_none()
                {
                    self.lines_from = reading.to.seq;
                }
                self.open.insert(fh, open);
            }
            Note::Polled { fh, kh } => _ = self.pollers.insert(fh, kh),
            Note::Closed { fh } => {
                self.open.remove(&fh);
                self.pollers.remove(&fh);
                if self.wanted().is_none() {
                    self.lines.clear();
                }
            }
            Note::Confirmed { waiter } => _ = self.unconfirmed.remove(&waiter),
            Note::TakenOver => {
                self.lives = self.lives.saturating_add(1);
                self.past.clear();
            }
            Note::Began { nonce } => *self = Self::new(&nonce),
        }
    }

    /// Follows an event that was applied.
    fn follow(&mut self, effects: &Effects) {
        self.unconfirmed.extend(effects.queued);
        if let Some(waiter) = effects.left {
            self.unconfirmed.remove(&waiter);
        }
        if let Some((waiter, key, name)) = &effects.accepted {
            let open = Open::Granted {
                waiter: *waiter,
                key: *key,
                name: name.clone(),
            };
            self.open.insert(NodeId::Waiter(*waiter), open);
        }
    }

    /// Applies the events of one decision, which the journal has, and remembers the outcome for the
    /// request that asked for them. A live server and recovery do the same here.
    pub fn commit(
        &mut self,
        table: &mut Table,
        events: &[Event],
        sent: Option<Sent>,
        observer: &mut impl Observer,
    ) -> Outcome {
        for event in events {
            observer.before(self, table, event);
            let effects = table.apply(event);
            self.follow(&effects);
            observer.after(effects);
        }
        let outcome = Outcome::of(events);
        if let Some(sent) = sent.filter(|_| !events.is_empty()) {
            self.carried_out(sent, outcome);
        }
        outcome
    }
}

/// Whoever follows what happens, one event after the other.
pub trait Observer {
    /// An event is about to be applied: the table is as it was before.
    fn before(&mut self, handoff: &mut Handoff, table: &Table, event: &Event);

    /// An event was applied and had these effects.
    fn after(&mut self, effects: Effects);
}

/// Recovery: keeps lines of `events` for the readers that have not got them yet.
pub struct Recovery;

impl Observer for Recovery {
    fn before(&mut self, handoff: &mut Handoff, table: &Table, event: &Event) {
        if handoff.wanted().is_none() {
            return;
        }
        let Some(line) = render::event(table, event) else {
            return;
        };
        handoff.lines.push_back((event.seq, line));
        while handoff.lines.len() > LINES_MAX {
            let lost = handoff.lines.pop_front();
            handoff.lines_from = lost.map_or(0, |(seq, _)| seq.saturating_add(1));
        }
    }

    fn after(&mut self, _: Effects) {}
}

/// A map as a list of pairs: the keys of JSON are strings.
mod pairs {
    use std::collections::HashMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Key, Outcome};

    pub fn serialize<S: Serializer>(
        map: &HashMap<Key, Outcome>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<HashMap<Key, Outcome>, D::Error> {
        Vec::<(Key, Outcome)>::deserialize(deserializer).map(|pairs| pairs.into_iter().collect())
    }
}
