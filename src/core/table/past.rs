//! The leases as of an earlier event, while the table goes on.
//!
//! Promises: what is shown in pieces is what was held at that event, no lease missing and none
//! twice. The rest of a record is as of that event or a later one, of which an event tells.
//!
//! Does not know: what is shown of a lease.

use std::collections::{HashMap, HashSet};

use super::{Inode, Table};
use crate::core::{Event, Name, Process, SessionKey, Token, What};

/// The leases that were held at an event, and are shown in the order of their tokens.
#[derive(Debug)]
pub struct Past {
    /// All up to this one were shown.
    shown: Token,
    /// The token that was granted next.
    end: Token,
    /// The sessions that are over since, each with the processes whose leases were lost before.
    ended: HashMap<SessionKey, Vec<Process>>,
    /// The roots that have left since.
    left: HashSet<(SessionKey, Process)>,
}

impl Past {
    /// The leases that are held now.
    pub fn of(table: &Table) -> Self {
        Self {
            shown: Token(0),
            end: Token(table.next_token),
            ended: HashMap::new(),
            left: HashSet::new(),
        }
    }

    /// Follows an event that is about to be applied. Returns the names that were not shown yet and
    /// whose leases it ends or changes. They must be shown now.
    pub fn before(&mut self, table: &Table, event: &Event) -> Vec<Name> {
        match &event.what {
            What::SessionEnded { key, .. } => {
                let lost = table
                    .sessions
                    .get(key)
                    .map_or(&[][..], |session| &session.lost);
                let lost = lost.iter().map(|lost| lost.process);
                let lost = lost.filter(|process| !self.left.contains(&(*key, *process)));
                self.ended.insert(*key, lost.collect());
            }
            What::Left { key, process, .. } => _ = self.left.insert((*key, *process)),
            What::Released { name, .. }
            | What::Reaped { name, .. }
            | What::Expired { name, .. }
            | What::Broken { name, .. } => return self.of_name(table, name, false),
            What::Handed { name, .. } => return self.of_name(table, name, true),
            _ => {}
        }
        Vec::new()
    }

    /// A name, or all names of its inode, as far as they are to be shown.
    fn of_name(&self, table: &Table, name: &Name, all: bool) -> Vec<Name> {
        let Some((lease, inode, _)) = table.last(name) else {
            return Vec::new();
        };
        let tokens = inode.names.iter().copied();
        let tokens = tokens.filter(|token| all || *token == lease.token);
        let is_ahead = |token: &Token| *token > self.shown && *token < self.end;
        if !self.had(table, inode) {
            return Vec::new();
        }
        let names = tokens.filter(is_ahead);
        names
            .filter_map(|token| table.name(token).cloned())
            .collect()
    }

    /// Whether an inode was held then.
    fn had(&self, table: &Table, inode: &Inode) -> bool {
        let key = inode.holder;
        let ended = self.ended.get(&key);
        if ended.is_none() && !table.is_alive(key) {
            return false;
        }
        let passes = inode.bound.as_ref().filter(|bound| bound.passes);
        let Some(process) = passes.map(|bound| bound.process) else {
            return true;
        };
        match ended {
            Some(lost) => !lost.contains(&process),
            None => !table.is_lost(inode) || self.left.contains(&(key, process)),
        }
    }

    /// Shows the next leases, after a look at this many. Whether there are more.
    pub fn show(&mut self, table: &Table, limit: usize, mut show: impl FnMut(&Name)) -> bool {
        let mut left = limit;
        for (token, name) in table.names.after(self.shown) {
            if token >= self.end {
                return false;
            }
            if left == 0 {
                return true;
            }
            left -= 1;
            self.shown = token;
            let inode = table.leases.get(name);
            let inode = inode.and_then(|lease| table.inodes.get(&lease.ino));
            if inode.is_some_and(|inode| self.had(table, inode)) {
                show(name);
            }
        }
        false
    }
}
