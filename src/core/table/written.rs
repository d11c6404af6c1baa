//! A table as it is written down whole, and made again from that.
//!
//! What can be told from the rest is not written: the indexes. Deliberately ignorant of: where it is written.

use super::Table;
use crate::core::{Due, Ino};

impl Table {
    /// The table that was read, with its indexes, and with room for so many leases now.
    #[must_use]
    pub fn completed(mut self, max_leases: usize) -> Self {
        self.max_leases = max_leases;
        self.complete();
        self
    }

    /// The same table, its indexes made again of the rest, whatever the events did to them that it was made of.
    #[must_use]
    pub fn indexed_anew(mut self) -> Self {
        self.shares.clear();
        self.bindings.clear();
        self.names.clear();
        self.ids.clear();
        self.roots.clear();
        self.bound.clear();
        self.unsettled.clear();
        self.deadlines.clear();
        self.waiting.clear();
        self.over.clear();
        self.unswept = 0;
        self.complete();
        self
    }

    fn complete(&mut self) {
        for (name, lease) in &self.leases {
            self.names.insert(lease.token, name.clone());
        }
        for (ino, inode) in &mut self.inodes {
            inode.content.complete();
            if let Some(bound) = &inode.bound {
                self.bound.entry(bound.process).or_default().insert(*ino);
                if !bound.passes {
                    *self.bindings.entry(inode.content.uid).or_default() += 1;
                }
            }
            self.deadlines.extend(
                inode
                    .deadline
                    .map(|deadline| (deadline.until, Due::Claim(*ino))),
            );
        }
        for child in self.children.values_mut() {
            child.content.complete();
        }
        for (key, session) in &self.sessions {
            if session.over.is_some() {
                self.over.insert(*key);
                self.unswept += session.leases.len();
                continue;
            }
            if !session.lost.is_empty() {
                self.over.insert(*key);
                self.unswept += session.lost_leases();
            }
            self.ids.insert(session.id.clone(), *key);
            let deadline = session.deadline;
            self.deadlines
                .extend(deadline.map(|deadline| (deadline.until, Due::Session(*key))));
            for root in &session.roots {
                self.roots.entry(root.process).or_default().insert(*key);
            }
        }
        let keys: Vec<_> = self.sessions.keys().copied().collect();
        for key in keys {
            self.add_share(key);
        }
        for (name, line) in &self.queues {
            for waiter in line.keys() {
                self.waiting.insert(*waiter, name.clone());
            }
        }
    }

    /// At least these tokens were granted, though nothing else may be known of them.
    pub fn skip_tokens(&mut self, granted: u64) {
        self.next_token = self.next_token.max(granted + 1);
    }

    /// The number of the next inode.
    pub fn next_ino(&self) -> Ino {
        Ino(self.next_ino)
    }

    /// The token that is granted next.
    pub fn next_token(&self) -> u64 {
        self.next_token
    }
}
