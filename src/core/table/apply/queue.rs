//! Queues after an event.
//!
//! Does not know: which waiter is next.

use super::super::{Table, Waiter};
use crate::core::{Event, Name, WaiterId, What};

impl Table {
    pub(super) fn apply_to_queue(&mut self, event: &Event) {
        match &event.what {
            What::Queued {
                name,
                waiter,
                key,
                creation,
                pid,
                command,
                maker,
            } => {
                let there = Waiter {
                    key: *key,
                    since: event.at,
                    creation: creation.clone(),
                    pid: *pid,
                    command: command.clone(),
                    maker: *maker,
                };
                self.apply_queued(name, *waiter, there);
            }
            What::Granted {
                name,
                waiter,
                token,
            } => {
                self.apply_left_queue(*waiter);
                self.granted.insert(*waiter, (name.clone(), *token));
                self.grantees.insert(*token, *waiter);
            }
            What::Accepted { waiter } | What::LeftQueue { waiter } => {
                self.apply_left_queue(*waiter);
            }
            _ => {}
        }
    }

    fn apply_queued(&mut self, name: &Name, waiter: WaiterId, there: Waiter) {
        self.next_waiter = self.next_waiter.max(waiter.0 + 1);
        if let Some(session) = self.sessions.get_mut(&there.key) {
            session.waiters.insert(waiter);
        }
        self.waiting.insert(waiter, name.clone());
        let queue = self.queues.entry(name.clone()).or_default();
        queue.insert(waiter, there);
    }

    pub(super) fn apply_left_queue(&mut self, waiter: WaiterId) {
        if let Some((_, token)) = self.granted.remove(&waiter) {
            self.grantees.remove(&token);
        }
        let Some(name) = self.waiting.remove(&waiter) else {
            return;
        };
        let Some(queue) = self.queues.get_mut(&name) else {
            return;
        };
        if let Some(place) = queue.remove(&waiter)
            && let Some(session) = self.sessions.get_mut(&place.key)
        {
            session.waiters.remove(&waiter);
        }
        if queue.is_empty() {
            self.queues.remove(&name);
        }
    }
}
