//! The state after an event.
//!
//! Promises: no event fails, and no count overflows, whatever a journal contains. `sound.rs` checks
//! afterwards whether events that were read have led to a valid state.
//!
//! Does not know: whether an event was right. It was decided before it arrives here; what follows
//! from it is here.

mod inode;
mod names;
mod queue;
mod sessions;

use super::{Effects, Table};
use crate::core::{Event, What};

impl Table {
    /// Applies an event and returns what it changes for others. Decides nothing.
    pub fn apply(&mut self, event: &Event) -> Effects {
        let effects = self.effects(event);
        self.shared(event, |table| table.apply_alone(event));
        effects
    }

    /// Applies an event that a journal has, and returns its effects on queues. The shares of uids
    /// are wrong until the table is [`Table::reindexed`].
    pub(crate) fn replay(&mut self, event: &Event) -> Effects {
        let effects = self.queue_effects(&event.what);
        self.apply_alone(event);
        effects
    }

    fn apply_alone(&mut self, event: &Event) {
        self.seq = event.seq;
        match &event.what {
            What::SessionStarted { .. }
            | What::Joined { .. }
            | What::Passed { .. }
            | What::Left { .. }
            | What::Prolonged { .. }
            | What::SessionEnded { .. } => self.apply_to_session(event),
            What::Claimed { .. }
            | What::Handed { .. }
            | What::Released { .. }
            | What::Reaped { .. }
            | What::Expired { .. }
            | What::Broken { .. } => self.apply_to_name(event),
            What::Queued { .. }
            | What::Granted { .. }
            | What::Accepted { .. }
            | What::LeftQueue { .. } => self.apply_to_queue(event),
            What::Altered { .. }
            | What::Linked { .. }
            | What::Unlinked { .. }
            | What::Bound { .. }
            | What::Limited { .. }
            | What::Forgotten { .. } => self.apply_to_inode(event),
        }
    }
}
