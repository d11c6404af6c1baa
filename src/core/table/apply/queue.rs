//! Queues after an event.
//!
//! Does not know: which waiter is next.

use super::super::{Table, Waiter};
use crate::core::{Event, Name, Process, SessionKey, WaiterId, What};

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
        if let Some(maker) = there.maker {
            self.makers.entry(maker).or_default().insert(waiter);
        }
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
        let place = queue.remove(&waiter);
        if queue.is_empty() {
            self.queues.remove(&name);
        }
        let Some(place) = place else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(&place.key) {
            session.waiters.remove(&waiter);
        }
        if let Some(maker) = place.maker {
            self.unmake(&maker, waiter);
        }
    }

    fn unmake(&mut self, maker: &Process, waiter: WaiterId) {
        if let Some(waiters) = self.makers.get_mut(maker) {
            waiters.remove(&waiter);
            if waiters.is_empty() {
                self.makers.remove(maker);
            }
        }
    }

    /// The waiters of a session for which a process would hold the name wait for another, or for
    /// nobody.
    pub(super) fn pass_waiters(&mut self, key: SessionKey, from: &Process, to: Option<Process>) {
        let waiters: Vec<WaiterId> = self.waiters_by(key, from).collect();
        for waiter in waiters {
            self.unmake(from, waiter);
            let queue = self.waiting.get(&waiter);
            let queue = queue.and_then(|name| self.queues.get_mut(name));
            if let Some(there) = queue.and_then(|queue| queue.get_mut(&waiter)) {
                there.maker = to;
            }
            if let Some(to) = to {
                self.makers.entry(to).or_default().insert(waiter);
            }
        }
    }
}
