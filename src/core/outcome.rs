//! Outcomes: the answer to a request, and to the same request when the kernel sends it again.
//!
//! Does not know: requests, or how an outcome is kept.

use serde::{Deserialize, Serialize};

use super::{Event, Ino, NodeId, SessionKey, WaiterId, What};

/// The outcome of a command. The journal keeps it until the kernel has the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The handle of the descriptor that was opened.
    pub fh: Option<NodeId>,
    /// The inode that was created, emptied or opened.
    pub ino: Option<Ino>,
    /// The waiter in a queue, and its session.
    pub seat: Option<(WaiterId, SessionKey)>,
    /// True if that inode is new. Not kept, since a request that is sent again does not need it.
    #[serde(skip)]
    pub is_new: bool,
}

impl Outcome {
    /// The outcome of the events of one decision.
    pub fn of(events: &[Event]) -> Self {
        let mut outcome = Self::default();
        let (mut holder, mut granted) = (None, None);
        for event in events {
            match &event.what {
                What::Claimed {
                    ino, created, key, ..
                } if created.is_some() => {
                    outcome.ino = outcome.ino.or(Some(*ino));
                    holder = Some(*key);
                }
                What::Linked { ino, created, .. } if created.is_some() => {
                    outcome.ino = outcome.ino.or(Some(*ino));
                }
                What::Altered { ino, .. } => outcome.ino = outcome.ino.or(Some(*ino)),
                What::Queued { waiter, key, .. } => outcome.seat = Some((*waiter, *key)),
                What::Granted { waiter, .. } => granted = holder.map(|key| (*waiter, key)),
                _ => {}
            }
        }
        outcome.seat = outcome.seat.or(granted);
        outcome
    }
}
