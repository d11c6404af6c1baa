//! A table that was read: its indexes, which are not written, are built from the rest.
//!
//! Does not know: where a table is written.

use super::{Inode, Table};
use crate::core::{Due, Ino, Name, Token};

impl Table {
    /// Builds the indexes of a table that was read, and sets its limit of leases.
    #[must_use]
    pub fn completed(mut self, max_leases: usize) -> Self {
        self.max_leases = max_leases;
        self.complete();
        self
    }

    /// Builds the indexes again, after events that may have broken them: all but the names of the
    /// tokens, of which [`Table::check`] looks at each.
    #[must_use]
    pub fn reindexed(mut self) -> Self {
        self.shares.clear();
        self.watched = 0;
        self.paths.clear();
        self.ids.clear();
        self.roots.clear();
        self.bound.clear();
        self.unsettled.clear();
        self.deadlines.clear();
        self.waiting.clear();
        self.makers.clear();
        self.grantees.clear();
        self.over.clear();
        self.unswept = 0;
        self.complete();
        self
    }

    fn complete(&mut self) {
        let mut inodes = std::mem::take(&mut self.inodes);
        for (ino, inode) in &mut inodes {
            self.index_inode(*ino, inode);
        }
        self.inodes = inodes;
        self.index();
    }

    /// Adds an inode that was read to the indexes.
    pub(super) fn index_inode(&mut self, ino: Ino, inode: &mut Inode) {
        inode.content.complete();
        if let Some(bound) = &inode.bound {
            self.bound.entry(bound.process).or_default().insert(ino);
            if !bound.passes {
                self.count_binding(inode.content.uid, true);
            }
        }
        let deadline = inode.deadline;
        let due = deadline.map(|deadline| (deadline.until, Due::Claim(ino)));
        self.deadlines.extend(due);
    }

    /// Builds the indexes of all but the inodes.
    pub(super) fn index(&mut self) {
        if self.names.len() != self.leases.len() {
            self.name_tokens();
        }
        self.paths.extend(self.names.paths().cloned());
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
        for (name, queue) in &self.queues {
            for (waiter, there) in queue {
                self.waiting.insert(*waiter, name.clone());
                if let Some(maker) = there.maker {
                    self.makers.entry(maker).or_default().insert(*waiter);
                }
            }
        }
        let granted = self.granted.iter();
        self.grantees = granted
            .map(|(waiter, (_, token))| (*token, *waiter))
            .collect();
    }

    /// Finds the name of each token. In their order, as a sorted map is filled the fastest.
    fn name_tokens(&mut self) {
        self.names.clear();
        let leases = self.leases.iter();
        let mut names: Vec<(Token, &Name)> =
            leases.map(|(name, lease)| (lease.token, name)).collect();
        names.sort_unstable_by_key(|(token, _)| *token);
        for (token, name) in names {
            self.names.insert(token, name.clone());
        }
    }

    /// Never grants a token up to this one, even if no grant of it is known.
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
