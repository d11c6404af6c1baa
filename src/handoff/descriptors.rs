//! Open descriptors, and files in `queue/` that the kernel knows, as the next server must know
//! them.
//!
//! Does not know: what is read from a descriptor, or written to it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Note;
use crate::core::table::Effects;
use crate::core::wire;
use crate::core::{Name, NodeId, Process, SessionId, SessionKey, Token, WaiterId};

/// The position of a reader of `events`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// In bytes from its opening.
    pub offset: u64,
    /// The event whose line comes next, or the first after it that has one.
    pub seq: u64,
    /// The number of bytes of that line that it has read.
    pub skip: usize,
}

impl Position {
    /// Whether the line of an event was read, at least in part. The rest is kept then.
    fn is_past(&self, seq: u64) -> bool {
        seq < self.seq || (seq == self.seq && self.skip > 0)
    }
}

/// A reader of `events`, as the next server must know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The position at which its newest read began.
    pub from: Position,
    /// The position of its next read.
    pub to: Position,
    /// The rest of the line that it has begun.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "wire::bytes")]
    pub rest: Vec<u8>,
    /// The number of lines after that which are lost, if the lines that are kept do not have them.
    #[serde(default)]
    pub missed: u64,
    /// The number of lines of its newest read that the lines that are kept do not have.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub again: u64,
    /// The bytes of its newest read, if the lines that are kept do not have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "wire::bytes")]
    pub last: Vec<u8>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An open descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Open {
    /// A file in `sessions/`, open for writing.
    Registering {
        /// The session.
        id: SessionId,
        /// The process that opened it.
        process: Process,
        /// Its uid.
        uid: u32,
        /// It was opened with `O_EXCL`, and has not registered anything yet.
        exclusive: bool,
        /// Something was written to it, even if that was refused.
        written: bool,
    },
    /// A file in `queue/` whose reader was told that its session holds the name. It reads to the
    /// end.
    Seated,
    /// A file in `queue/` whose reader was told that it holds the name, or was to be told when its
    /// server ended. It reads to the end while the name is as it was granted.
    Granted {
        /// The place that it had in the queue.
        waiter: WaiterId,
        /// Its session.
        key: SessionKey,
        /// The name.
        name: Name,
        /// The token of the grant. `None` in journals from before it was recorded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<Token>,
    },
    /// `events`.
    Reading(Reading),
}

impl Open {
    /// Whether a handle can be that of such a descriptor.
    pub(super) fn fits(&self, fh: NodeId) -> bool {
        match self {
            Self::Registering { .. } => matches!(fh, NodeId::Registration(_)),
            Self::Seated => matches!(fh, NodeId::Seated(_) | NodeId::Waiter(_)),
            Self::Granted { waiter, .. } => fh == NodeId::Waiter(*waiter),
            Self::Reading(_) => matches!(fh, NodeId::Reader(_)),
        }
    }
}

pub(super) fn is_queue_file(ino: NodeId) -> bool {
    matches!(ino, NodeId::QueueFile(_))
}

/// The descriptors of one connection.
#[derive(Clone, Debug, Default)]
pub struct Descriptors {
    /// The files in `queue/` that the kernel knows, by inode.
    pub files: BTreeMap<NodeId, Name>,
    /// Descriptors, by handle.
    pub open: BTreeMap<NodeId, Open>,
    /// Waiters whose descriptors the kernel may never have received.
    pub unconfirmed: BTreeSet<WaiterId>,
    /// The kernel's poll handles of the descriptors that are polled.
    pub pollers: BTreeMap<NodeId, u64>,
}

impl Descriptors {
    /// Whether each number is of the right kind.
    pub(super) fn fit(&self) -> bool {
        let files = self.files.keys().all(|ino| is_queue_file(*ino));
        let open = self.open.iter().all(|(fh, open)| open.fits(*fh));
        let pollers = self.pollers.keys().all(|fh| fh.is_stream());
        files && open && pollers
    }

    /// The first event whose line a reader may read again. `None` if there are no readers.
    pub fn wanted(&self) -> Option<u64> {
        let open = self.open.values();
        let from = open.filter_map(|open| match open {
            Open::Reading(reading) => Some(reading.from.seq),
            _ => None,
        });
        from.min()
    }

    /// The readers of `events`, by the number of their handles.
    pub fn readers(&self) -> Vec<(u64, Reading)> {
        let open = self.open.iter();
        let readers = open.filter_map(|(fh, open)| match (fh, open) {
            (NodeId::Reader(reader), Open::Reading(reading)) => Some((*reader, reading.clone())),
            _ => None,
        });
        readers.collect()
    }

    /// Applies a note, as far as it is about descriptors.
    pub(super) fn note(&mut self, note: Note) {
        match note {
            Note::Told { ino, name } => _ = self.files.insert(ino, name),
            Note::Forgotten { ino } => _ = self.files.remove(&ino),
            Note::Opened { fh, open } => _ = self.open.insert(fh, open),
            Note::Polled { fh, kh } => _ = self.pollers.insert(fh, kh),
            Note::Closed { fh } => {
                self.open.remove(&fh);
                self.pollers.remove(&fh);
            }
            Note::Confirmed { waiter } => _ = self.unconfirmed.remove(&waiter),
            Note::Scaffold(_)
            | Note::Standing { .. }
            | Note::Dismantled { .. }
            | Note::TakenOver
            | Note::Began { .. } => {}
        }
    }

    /// Counts the line of an event for the readers to which it is lost: they have not read it, or
    /// read it last and may read it again.
    pub(super) fn lose(&mut self, seq: u64) {
        for open in self.open.values_mut() {
            if let Open::Reading(reading) = open {
                if !reading.to.is_past(seq) {
                    reading.missed = reading.missed.saturating_add(1);
                } else if !reading.from.is_past(seq) {
                    reading.again = reading.again.saturating_add(1);
                }
            }
        }
    }

    /// Follows an event that was applied.
    pub(super) fn follow(&mut self, effects: &Effects) {
        self.unconfirmed.extend(effects.queued);
        if let Some(waiter) = effects.left {
            self.unconfirmed.remove(&waiter);
        }
        if let Some(accepted) = &effects.accepted {
            let open = Open::Granted {
                waiter: accepted.waiter,
                key: accepted.key,
                name: accepted.name.clone(),
                token: Some(accepted.token),
            };
            self.open.insert(NodeId::Waiter(accepted.waiter), open);
        }
    }
}
