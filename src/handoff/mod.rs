//! The state of one connection to the kernel that the next server needs: the reply cache, and the
//! open descriptors.
//!
//! A connection outlives its servers (see `supervisor`). When one is killed, the kernel sends each
//! request again that was not answered, with the same number and [`AGAIN`] set. The descriptors
//! that were open stay open: programs read, write and close them as if nothing had happened. All
//! that the next server must know of this, and that does not follow from the table, is here and in
//! the journal.
//!
//! Promises: the outcome of a request is known until it is certain that the kernel has the answer.
//! A live server and a recovery apply events and notes by the same functions.
//!
//! Does not know: the journal's frames, fuser, who is alive.

mod descriptors;
mod encoding;
mod replies;
pub(crate) mod spool;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::descriptors::is_queue_file;
pub use self::descriptors::{Descriptors, Open, Position, Reading};
pub use self::replies::{AGAIN, Key, Sent, THREADS};
use self::replies::{ReplyCache, pairs};
use crate::core::scaffolding::{Plank, Scaffolding};
use crate::core::table::{Effects, Table};
use crate::core::{Event, Name, NodeId, Outcome, WaiterId};
use crate::render::EventRecord;

/// The number of lines that are kept for slow readers of `events`.
pub(crate) const LINES_MAX: usize = 65_536;

/// A change that is no event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// The kernel was told of a file in `queue/`.
    Told {
        /// Its inode.
        ino: NodeId,
        /// Its name.
        name: Name,
    },
    /// The kernel has forgotten such a file.
    Forgotten {
        /// Its inode.
        ino: NodeId,
    },
    /// A directory below `paths/` was made.
    Scaffold(Plank),
    /// A directory below `paths/` has so many open descriptors.
    Standing {
        /// Its number.
        number: u64,
        /// The number of descriptors.
        opens: u32,
    },
    /// A directory below `paths/` has gone, and all below it.
    Dismantled {
        /// Its number.
        number: u64,
    },
    /// A descriptor was opened, or the next server must know something else of it.
    Opened {
        /// Its handle.
        fh: NodeId,
        /// Its new state.
        open: Open,
    },
    /// A descriptor is polled.
    Polled {
        /// Its handle.
        fh: NodeId,
        /// The kernel's poll handle (`kh` of `struct fuse_poll_in`).
        kh: u64,
    },
    /// A descriptor was closed.
    Closed {
        /// Its handle.
        fh: NodeId,
    },
    /// The kernel has the descriptor of a waiter.
    Confirmed {
        /// The waiter.
        waiter: WaiterId,
    },
    /// A server has taken over the connection from one that has ended.
    TakenOver,
    /// A connection has begun. Everything that was open on the one before is closed.
    Began {
        /// See [`Handoff::nonce`].
        nonce: String,
    },
}

impl Note {
    /// Refuses a number of the wrong kind. The error is a sentence.
    pub fn check(&self) -> Result<(), String> {
        let is_right = match self {
            Self::Told { ino, .. } | Self::Forgotten { ino } => is_queue_file(*ino),
            Self::Opened { fh, open } => open.fits(*fh),
            Self::Polled { fh, .. } => fh.is_stream(),
            Self::Closed { fh } => fh.is_stream() || matches!(fh, NodeId::Registration(_)),
            Self::Scaffold(plank) => plank.is_sound(),
            Self::Standing { .. }
            | Self::Dismantled { .. }
            | Self::Confirmed { .. }
            | Self::TakenOver
            | Self::Began { .. } => true,
        };
        ensure(is_right)
    }
}

fn ensure(is_right: bool) -> Result<(), String> {
    let why = "the number of a descriptor or a file is that of another kind";
    is_right.then_some(()).ok_or_else(|| String::from(why))
}

/// One connection. It is serialized as `Flat`.
#[derive(Clone, Debug, Default)]
pub struct Handoff {
    /// The id of the connection, unique in this boot.
    pub nonce: String,
    /// The number of servers before this one.
    pub lives: u64,
    /// Its descriptors.
    pub descriptors: Descriptors,
    /// The newest lines of `events` with their events' numbers, for readers that lag behind.
    pub lines: VecDeque<(u64, String)>,
    /// None of the lines from this event on is missing.
    pub lines_from: u64,
    /// The directories below `paths/`.
    pub scaffolding: Scaffolding,
    replies: ReplyCache,
}

/// The serialized form of a [`Handoff`]: one object without inner ones. Journals have it, so it
/// stays the same when the types are divided in another way.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename = "Handoff")]
struct Flat<'a> {
    nonce: Cow<'a, str>,
    lives: u64,
    files: Cow<'a, BTreeMap<NodeId, Name>>,
    open: Cow<'a, BTreeMap<NodeId, Open>>,
    unconfirmed: Cow<'a, BTreeSet<WaiterId>>,
    pollers: Cow<'a, BTreeMap<NodeId, u64>>,
    lines: Cow<'a, VecDeque<(u64, String)>>,
    lines_from: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scaffolding: Vec<Plank>,
    /// The number of the next directory.
    #[serde(skip_serializing_if = "is_first")]
    next_scaffold: u64,
    #[serde(with = "pairs")]
    done: Cow<'a, BTreeMap<Key, Outcome>>,
    newest: Cow<'a, BTreeMap<u64, Vec<Key>>>,
    past: Cow<'a, BTreeSet<u64>>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_first(next: &u64) -> bool {
    *next <= Scaffolding::default().next()
}

impl Serialize for Handoff {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let flat = Flat {
            nonce: Cow::Borrowed(&self.nonce),
            lives: self.lives,
            files: Cow::Borrowed(&self.descriptors.files),
            open: Cow::Borrowed(&self.descriptors.open),
            unconfirmed: Cow::Borrowed(&self.descriptors.unconfirmed),
            pollers: Cow::Borrowed(&self.descriptors.pollers),
            lines: Cow::Borrowed(&self.lines),
            lines_from: self.lines_from,
            scaffolding: self.scaffolding.planks().collect(),
            next_scaffold: self.scaffolding.next(),
            done: Cow::Borrowed(&self.replies.done),
            newest: Cow::Borrowed(&self.replies.newest),
            past: Cow::Borrowed(&self.replies.past),
        };
        flat.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Handoff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let flat = Flat::deserialize(deserializer)?;
        Ok(Self {
            nonce: flat.nonce.into_owned(),
            lives: flat.lives,
            descriptors: Descriptors {
                files: flat.files.into_owned(),
                open: flat.open.into_owned(),
                unconfirmed: flat.unconfirmed.into_owned(),
                pollers: flat.pollers.into_owned(),
            },
            lines: flat.lines.into_owned(),
            lines_from: flat.lines_from,
            scaffolding: Scaffolding::of(&flat.scaffolding, flat.next_scaffold),
            replies: ReplyCache {
                done: flat.done.into_owned(),
                newest: flat.newest.into_owned(),
                past: flat.past.into_owned(),
            },
        })
    }
}

impl Handoff {
    /// A connection that has just begun.
    pub fn new(nonce: &str) -> Self {
        Self {
            nonce: nonce.to_owned(),
            ..Self::default()
        }
    }

    /// Refuses a number of the wrong kind. The error is a sentence.
    pub fn check(&self) -> Result<(), String> {
        ensure(self.descriptors.fit())
    }

    /// The outcome of a request, if it was carried out and its answer may not have arrived.
    pub fn outcome(&self, key: Key) -> Option<Outcome> {
        self.replies.outcome(key)
    }

    /// Applies a note. `sent` is the request that opened the descriptor of `Opened`, or made the
    /// directory of `Scaffold`, if one did.
    pub fn note(&mut self, note: Note, sent: Option<Sent>) {
        let made = match &note {
            Note::Opened { fh, .. } => Some(*fh),
            Note::Scaffold(plank) => Some(NodeId::Scaffold(plank.number)),
            _ => None,
        };
        if let Some((fh, sent)) = made.zip(sent) {
            let outcome = Outcome {
                fh: Some(fh),
                ..Outcome::default()
            };
            self.replies.carried_out(sent, outcome);
        }
        match &note {
            Note::TakenOver => {
                self.lives = self.lives.saturating_add(1);
                self.replies.taken_over();
            }
            Note::Began { nonce } => {
                *self = Self::new(nonce);
                return;
            }
            Note::Opened {
                open: Open::Reading(reading),
                ..
            } if self.descriptors.wanted().is_none() => self.lines_from = reading.to.seq,
            Note::Scaffold(plank) => self.scaffolding.add(plank),
            Note::Standing { number, opens } => self.scaffolding.noted(*number, *opens),
            Note::Dismantled { number } => self.scaffolding.remove(*number),
            _ => {}
        }
        let is_closed = matches!(note, Note::Closed { .. });
        self.descriptors.note(note);
        if is_closed && self.descriptors.wanted().is_none() {
            self.lines.clear();
        }
    }

    /// Applies the events of one decision, which the journal has, and remembers their outcome for
    /// the request that asked for them.
    pub(crate) fn commit(
        &mut self,
        table: &mut Table,
        events: &[Event],
        sent: Option<Sent>,
        observer: &mut impl Observer,
    ) -> Outcome {
        for event in events {
            observer.before(self, table, event);
            let effects = observer.apply(table, event);
            self.descriptors.follow(&effects);
            observer.after(effects);
        }
        let outcome = Outcome::of(events);
        if let Some(sent) = sent.filter(|_| !events.is_empty()) {
            self.replies.carried_out(sent, outcome);
        }
        outcome
    }
}

/// Follows the events, one after the other.
pub(crate) trait Observer {
    /// Called before an event is applied, with the table as it is then.
    fn before(&mut self, handoff: &mut Handoff, table: &Table, event: &Event);

    /// Applies an event, and returns at least the effects that descriptors follow.
    fn apply(&self, table: &mut Table, event: &Event) -> Effects {
        table.apply(event)
    }

    /// Called after an event was applied, with its effects.
    fn after(&mut self, effects: Effects);
}

/// The observer of a recovery. It passes the records of events on, and keeps the lines of `events`
/// for readers that lag behind.
pub(crate) struct Recovery<F> {
    /// Is given the records.
    pub keep: F,
    /// True if records are wanted: those of the newest events.
    pub is_kept: bool,
    /// True if somebody reads `events`.
    pub has_readers: bool,
}

impl<F: FnMut(EventRecord)> Observer for Recovery<F> {
    fn before(&mut self, handoff: &mut Handoff, table: &Table, event: &Event) {
        if !self.is_kept && !self.has_readers {
            return;
        }
        let Some(record) = EventRecord::of(table, event) else {
            return;
        };
        let line = self.has_readers.then(|| record.line());
        (self.keep)(record);
        let Some(line) = line else {
            return;
        };
        handoff.lines.push_back((event.seq, line));
        while handoff.lines.len() > LINES_MAX {
            if let Some((lost, _)) = handoff.lines.pop_front() {
                handoff.lines_from = lost.saturating_add(1);
                handoff.descriptors.lose(lost);
            }
        }
    }

    fn apply(&self, table: &mut Table, event: &Event) -> Effects {
        table.replay(event)
    }

    fn after(&mut self, _: Effects) {}
}

#[cfg(test)]
mod tests {
    use super::{Handoff, Key, Note, Outcome, Sent};
    use crate::core::NodeId;

    #[test]
    fn the_serialized_form_has_no_inner_objects_for_the_types() {
        let mut handoff = Handoff::new("a");
        let (fh, kh) = (NodeId::of(NodeId::Seated(5).number()).unwrap(), 7);
        handoff.note(Note::Polled { fh, kh }, None);
        handoff.note(Note::TakenOver, None);
        let sent = Sent {
            key: Key(9, 2),
            again: false,
            thread: 65_537,
        };
        handoff.replies.carried_out(sent, Outcome::default());
        let json = serde_json::to_string(&handoff).unwrap();
        let outcome = serde_json::to_string(&Outcome::default()).unwrap();
        let number = fh.number();
        let expected = format!(
            "{{\"nonce\":\"a\",\"lives\":1,\"files\":{{}},\"open\":{{}},\"unconfirmed\":[],\
             \"pollers\":{{\"{number}\":7}},\"lines\":[],\"lines_from\":0,\
             \"done\":[[[9,2],{outcome}]],\"newest\":{{\"65537\":[[9,2]]}},\"past\":[65537]}}"
        );
        assert_eq!(json, expected);
        let again: Handoff = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), expected);
    }
}
