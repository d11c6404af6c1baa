//! Quotas: the leases, sessions, waiters and watched processes that one uid may have. Root has no
//! quota.
//!
//! Promises: no command is refused for what another uid gets by it. A release succeeds even if the
//! first in the queue is at its quota. A check costs the same however many uids there are.
//!
//! Does not know: which names are claimed, and why.

use super::Table;
use crate::core::{Binding, Command, Event, PATH_LEVELS_MAX, Refusal, SessionKey, What};

/// The resources of a uid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    leases: usize,
    sessions: usize,
    waiters: usize,
    roots: usize,
    /// Claims that end with a process.
    bound: usize,
}

impl Share {
    fn watched(&self) -> usize {
        self.roots + self.bound
    }
}

/// The limits of watched processes, each of which takes a file descriptor of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watches {
    /// For each uid except root.
    pub uid: usize,
    /// For all uids except root together.
    pub all: usize,
}

impl Table {
    /// Limits the leases, the sessions and the waiters of each uid except root.
    pub fn limit_each(&mut self, most: usize) {
        self.max_per_uid = Some(most);
    }

    /// Limits the watched processes of all uids except root.
    pub fn limit_watches(&mut self, watches: Watches) {
        self.watches = Some(watches);
    }

    /// Counts a claim of a uid that now ends with a process, or no longer does.
    pub(super) fn count_binding(&mut self, uid: u32, is_bound: bool) {
        self.change_share(uid, |share| {
            share.bound = if is_bound {
                share.bound + 1
            } else {
                share.bound.saturating_sub(1)
            };
        });
    }

    /// EDQUOT if the leases of a uid, and so many directories below `paths/`, are more than its
    /// quota.
    pub fn check_share(&self, uid: u32, directories: usize) -> Result<(), Refusal> {
        let leases = self.shares.get(&uid).map_or(0, |share| share.leases);
        let most = self.max_per_uid.filter(|_| uid != 0);
        if most.is_some_and(|most| leases + directories > most) {
            return Err(Refusal::Quota);
        }
        Ok(())
    }

    /// EDQUOT for a directory below `paths/`, also if there are more than the levels of the
    /// uid's reservations, and more than `unreserved`.
    pub fn check_directories(
        &self,
        uid: u32,
        directories: usize,
        unreserved: usize,
    ) -> Result<(), Refusal> {
        let leases = self.shares.get(&uid).map_or(0, |share| share.leases);
        if directories > unreserved + PATH_LEVELS_MAX * leases {
            return Err(Refusal::Quota);
        }
        self.check_share(uid, directories)
    }

    /// Changes the share of a uid, and the total of all shares.
    fn change_share(&mut self, uid: u32, change: impl FnOnce(&mut Share)) {
        let share = self.shares.entry(uid).or_default();
        let before = share.watched();
        change(share);
        if uid != 0 {
            self.watched = (self.watched + share.watched()).saturating_sub(before);
        }
        if *share == Share::default() {
            self.shares.remove(&uid);
        }
    }

    /// EDQUOT if the events need more watched processes than the uid, or all uids, may have.
    fn check_watches(&self, uid: u32, events: &[Event]) -> Result<(), Refusal> {
        let Some(watches) = self.watches.filter(|_| uid != 0) else {
            return Ok(());
        };
        let is_new = |what: &What| match what {
            What::Joined { key, root } => {
                let keys = self.roots.get(&root.process);
                !keys.is_some_and(|keys| keys.contains(key))
            }
            What::Bound { ino, .. } => {
                let bound = |bound: &Binding| !bound.passes;
                let inode = self.inode(*ino).and_then(|inode| inode.bound.as_deref());
                !inode.is_some_and(bound)
            }
            _ => false,
        };
        let more = events.iter().filter(|event| is_new(&event.what)).count();
        if more == 0 {
            return Ok(());
        }
        let own = self.shares.get(&uid).map_or(0, Share::watched);
        if own + more > watches.uid || self.watched + more > watches.all {
            return Err(Refusal::Quota);
        }
        Ok(())
    }

    /// The part of a session in its uid's share. `None` once it is over.
    fn share(&self, key: SessionKey) -> Option<(u32, Share)> {
        let session = self.sessions.get(&key)?;
        let share = Share {
            leases: session.leases.len().saturating_sub(session.lost_leases()),
            sessions: 1,
            waiters: session.waiters.len(),
            roots: session.roots.len(),
            bound: 0,
        };
        session.is_alive().then_some((session.uid, share))
    }

    /// Applies an event and updates the shares that it changes.
    pub(super) fn shared(&mut self, event: &Event, apply: impl FnOnce(&mut Self)) {
        let [one, other] = self.concerned(event);
        let keys = [one, other.filter(|other| Some(*other) != one)];
        for key in keys.into_iter().flatten() {
            if let Some((uid, share)) = self.share(key) {
                self.change_share(uid, |there| {
                    there.leases = there.leases.saturating_sub(share.leases);
                    there.sessions = there.sessions.saturating_sub(share.sessions);
                    there.waiters = there.waiters.saturating_sub(share.waiters);
                    there.roots = there.roots.saturating_sub(share.roots);
                });
            }
        }
        apply(self);
        for key in keys.into_iter().flatten() {
            self.add_share(key);
        }
    }

    pub(super) fn add_share(&mut self, key: SessionKey) {
        if let Some((uid, share)) = self.share(key) {
            self.change_share(uid, |there| {
                there.leases += share.leases;
                there.sessions += share.sessions;
                there.waiters += share.waiters;
                there.roots += share.roots;
            });
        }
    }

    /// The sessions whose shares an event changes.
    fn concerned(&self, event: &Event) -> [Option<SessionKey>; 2] {
        match &event.what {
            What::SessionStarted { key, .. }
            | What::SessionEnded { key, .. }
            | What::Joined { key, .. }
            | What::Left { key, .. }
            | What::Claimed { key, .. }
            | What::Queued { key, .. } => [Some(*key), None],
            What::Handed { from, key, .. } => [Some(*from), Some(*key)],
            What::Released { name, .. }
            | What::Reaped { name, .. }
            | What::Expired { name, .. }
            | What::Broken { name, .. } => {
                let holder = self.last(name).map(|(_, inode, _)| inode.holder);
                [holder, None]
            }
            What::Granted { waiter, .. }
            | What::Accepted { waiter }
            | What::LeftQueue { waiter } => [self.waiter(*waiter).map(|there| there.key), None],
            _ => [None, None],
        }
    }

    /// EDQUOT if the events give the uid that asks for them more than its quota and more than it
    /// has.
    pub(super) fn check_quota(&self, command: &Command, events: &[Event]) -> Result<(), Refusal> {
        let uid = match command {
            Command::Claim { by, .. }
            | Command::Link { by, .. }
            | Command::Rename { by, .. }
            | Command::Join { by, .. }
            | Command::Take { by, .. }
            | Command::Queue { by, .. } => by.uid,
            Command::Hold { by, .. } => by.uid,
            Command::Alter { by, .. }
            | Command::Reclaim { by, .. }
            | Command::Exchange { by, .. } => return self.check_watches(by.uid, events),
            _ => return Ok(()),
        };
        self.check_watches(uid, events)?;
        let Some(most) = self.max_per_uid.filter(|_| uid != 0) else {
            return Ok(());
        };
        let has = self.shares.get(&uid).copied().unwrap_or_default();
        let count =
            |is_one: fn(&What) -> bool| events.iter().filter(|event| is_one(&event.what)).count();
        let more =
            |has: usize, gains: usize, loses: usize| gains > loses && has + gains - loses > most;
        let leases = count(|what| matches!(what, What::Claimed { .. }));
        // Leases of ended sessions may be released here too. They are in no share.
        let released = events.iter().filter(|event| {
            matches!(&event.what, What::Released { name, .. } if self.lease(name).is_some())
        });
        let released = released.count();
        let sessions = count(|what| matches!(what, What::SessionStarted { .. }));
        let waiters = count(|what| matches!(what, What::Queued { .. }));
        let served = count(|what| matches!(what, What::Granted { .. }));
        if more(has.leases, leases, released)
            || more(has.sessions, sessions, 0)
            || more(has.waiters, waiters, served)
        {
            return Err(Refusal::Quota);
        }
        Ok(())
    }
}
