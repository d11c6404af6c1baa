//! Sessions after an event: their roots, what passes between these, and the end.
//!
//! Does not know: why a process is dead.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::{Lost, Session, Table};
use crate::core::{
    Above, Deadline, Due, End, EndedBy, Event, Ino, Predecessor, Process, Root, Rule, SessionKey,
    What,
};

impl Table {
    pub(super) fn apply_to_session(&mut self, event: &Event) {
        match &event.what {
            What::SessionStarted {
                key,
                id,
                uid,
                pidns,
                rule,
            } => {
                let session = Session {
                    key: *key,
                    id: id.clone(),
                    uid: *uid,
                    pidns: *pidns,
                    rule: *rule,
                    since: event.at,
                    roots: Vec::new(),
                    deadline: None,
                    leases: BTreeSet::new(),
                    waiters: BTreeSet::new(),
                    lost: Vec::new(),
                    over: None,
                    ended_by: None,
                };
                self.next_key = self.next_key.max(key.0 + 1);
                self.ids.insert(id.clone(), *key);
                self.sessions.insert(*key, session);
            }
            What::Joined { key, root } => self.apply_joined(*key, root),
            What::Passed {
                key,
                from,
                to,
                exit,
            } => self.apply_passed(*key, from, to, *exit),
            What::Left {
                key,
                process,
                killed,
            } => self.apply_left(*key, process, *killed),
            What::Prolonged { key, deadline, .. } => self.apply_prolonged(*key, *deadline),
            What::SessionEnded { key, why, by } => self.apply_ended(*key, *why, by.as_ref()),
            _ => {}
        }
    }

    fn apply_joined(&mut self, key: SessionKey, root: &Root) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        if root.registered && session.rule != Rule::Posix {
            // Descendants of its roots belong to it from now on. A terminal's session stays as it
            // is: there, a registration covers that process and those below it, and rule 5 applies
            // to all others.
            session.rule = Rule::Registered;
        }
        if let Some(there) = session
            .roots
            .iter_mut()
            .find(|there| there.process == root.process)
        {
            (there.registered, there.environ) = (root.registered, root.environ);
            there.above = root.above;
        } else {
            session.roots.push(root.clone());
            self.roots.entry(root.process).or_default().insert(key);
        }
    }

    /// Moves the leases that a process holds of a session to another process.
    fn apply_passed(&mut self, key: SessionKey, from: &Process, to: &Process, exit: Option<u8>) {
        let Some(session) = self.sessions.get(&key) else {
            return;
        };
        let root = session.roots.iter().find(|root| root.process == *from);
        let from_whom = root.map(|root| {
            Arc::new(Predecessor {
                pid: from.pid,
                command: Arc::clone(&root.command),
                exit,
            })
        });
        let moved: Vec<Ino> = self.held_by(key, from).collect();
        let Some(there) = self.bound.get_mut(from) else {
            return;
        };
        if moved.len() == there.len() {
            self.bound.remove(from);
        } else {
            there.retain(|ino| moved.binary_search(ino).is_err());
        }
        for ino in &moved {
            if let Some(bound) = self.inodes.get_mut(ino).and_then(|it| it.bound.as_mut()) {
                bound.process = *to;
                bound.from.clone_from(&from_whom);
            }
        }
        if !moved.is_empty() {
            self.bound.entry(*to).or_default().extend(moved);
        }
    }

    /// Removes a root. The roots below it are linked to the one above it or, if it was killed, to
    /// none. Leases that it still holds are lost, and count as unswept.
    fn apply_left(&mut self, key: SessionKey, process: &Process, killed: Option<u8>) {
        self.unsettled.remove(process);
        let lost: usize = {
            let held = self.held_by(key, process);
            let inodes = held.filter_map(|ino| self.inodes.get(&ino));
            inodes.map(|inode| inode.names.len()).sum()
        };
        if let Some(session) = self.sessions.get_mut(&key) {
            let at = session
                .roots
                .iter()
                .position(|root| root.process == *process);
            let gone = at.map(|at| session.roots.remove(at));
            let command = gone.as_ref().map(|root| Arc::clone(&root.command));
            let above = match gone.map(|root| root.above).filter(|_| killed.is_none()) {
                Some(Above::Process(above)) => Above::Process(above),
                _ => Above::Nobody,
            };
            for root in &mut session.roots {
                if root.above == Above::Process(*process) {
                    root.above = above;
                }
            }
            if lost > 0 && session.over.is_none() {
                session.lost.push(Lost {
                    process: *process,
                    command,
                    signal: killed,
                    leases: lost,
                });
                self.unswept += lost;
                self.over.insert(key);
            }
            self.pass_waiters(key, process, above.process());
        }
        self.unroot(key, process);
    }

    fn apply_prolonged(&mut self, key: SessionKey, deadline: Deadline) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let due = Due::Session(key);
        if let Some(before) = session.deadline.replace(deadline) {
            self.deadlines.remove(&(before.until, due));
        }
        self.deadlines.insert((deadline.until, due));
    }

    fn unroot(&mut self, key: SessionKey, process: &Process) {
        if let Some(keys) = self.roots.get_mut(process) {
            keys.remove(&key);
            if keys.is_empty() {
                self.roots.remove(process);
            }
        }
    }

    fn apply_ended(&mut self, key: SessionKey, why: End, by: Option<&Arc<EndedBy>>) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let roots = std::mem::take(&mut session.roots);
        session.over = Some(why);
        session.ended_by = by.cloned();
        if let Some(deadline) = session.deadline {
            self.deadlines.remove(&(deadline.until, Due::Session(key)));
        }
        let waiters = std::mem::take(&mut session.waiters);
        self.ids.remove(&session.id);
        self.unswept += session.leases.len().saturating_sub(session.lost_leases());
        if session.leases.is_empty() {
            self.sessions.remove(&key);
        } else {
            self.over.insert(key);
        }
        for waiter in waiters {
            self.apply_left_queue(waiter);
        }
        for root in roots {
            self.unroot(key, &root.process);
        }
    }
}
