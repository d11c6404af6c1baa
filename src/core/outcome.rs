//! What a command came to: the answer to a request, and to the same request when it is sent again.

use serde::{Deserialize, Serialize};

use super::{Event, Ino, NodeId, SessionKey, WaiterId, What};

/// What a command came to. The journal keeps it until the kernel has the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The handle of the descriptor that was opened.
    pub fh: Option<NodeId>,
    /// The inode that was made, emptied or opened.
    pub ino: Option<Ino>,
    /// The place in a queue, and the session that waits.
    pub seat: Option<(WaiterId, SessionKey)>,
    /// That inode is new. Not kept: a request that is sent again need not know.
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
