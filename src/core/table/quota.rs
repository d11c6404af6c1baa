//! How much of the table one uid may take: so many leases, so many sessions, so many places in lines, so many processes
//! that are watched. Root may take all.
//!
//! What a uid gets by what another does is not refused: a release never fails because the next in line has enough.
//!
//! Deliberately ignorant of: what is claimed, and why.

use super::Table;
use crate::core::{Binding, Command, Event, Refusal, SessionKey, What};

/// What a uid has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    leases: usize,
    sessions: usize,
    waiters: usize,
    roots: usize,
}

/// How many processes may be watched, each of which takes a descriptor of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watches {
    /// For each uid but root's.
    pub uid: usize,
    /// For all of those together.
    pub all: usize,
}

impl Table {
    /// Lets no uid but root have more than so many leases, sessions, or places in lines.
    pub fn limit_each(&mut self, most: usize) {
        self.max_per_uid = Some(most);
    }

    /// Lets no uid but root's have more than so many processes watched, nor all of those together.
    pub fn limit_watches(&mut self, watches: Watches) {
        self.watches = Some(watches);
    }

    /// A claim is bound to a process, or no longer.
    pub(super) fn count_binding(&mut self, uid: u32, is_bound: bool) {
        let count = self.bindings.entry(uid).or_default();
        *count = if is_bound {
            *count + 1
        } else {
            count.saturating_sub(1)
        };
        if *count == 0 {
            self.bindings.remove(&uid);
        }
    }

    /// EDQUOT if these events would have more processes watched for the uid that asks for them than may be.
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
        let has = |uid: u32| {
            let roots = self.shares.get(&uid).map_or(0, |share| share.roots);
            roots + self.bindings.get(&uid).copied().unwrap_or(0)
        };
        let others = self.shares.keys().chain(self.bindings.keys());
        let mut uids: Vec<u32> = others.copied().filter(|uid| *uid != 0).collect();
        uids.sort_unstable();
        uids.dedup();
        let all: usize = uids.into_iter().map(has).sum();
        if has(uid) + more > watches.uid || all + more > watches.all {
            return Err(Refusal::Quota);
        }
        Ok(())
    }

    /// What a session is of its uid's share; nothing once it is over.
    fn share(&self, key: SessionKey) -> Option<(u32, Share)> {
        let session = self.sessions.get(&key)?;
        let share = Share {
            leases: session.leases.len().saturating_sub(session.lost_leases()),
            sessions: 1,
            waiters: session.waiters.len(),
            roots: session.roots.len(),
        };
        session.is_alive().then_some((session.uid, share))
    }

    /// Applies an event, and keeps the shares of those that it concerns.
    pub(super) fn shared(&mut self, event: &Event, apply: impl FnOnce(&mut Self)) {
        let [one, other] = self.concerned(event);
        let keys = [one, other.filter(|other| Some(*other) != one)];
        for key in keys.into_iter().flatten() {
            if let Some((uid, share)) = self.share(key)
                && let Some(there) = self.shares.get_mut(&uid)
            {
                there.leases = there.leases.saturating_sub(share.leases);
                there.sessions = there.sessions.saturating_sub(share.sessions);
                there.waiters = there.waiters.saturating_sub(share.waiters);
                there.roots = there.roots.saturating_sub(share.roots);
                if *there == Share::default() {
                    self.shares.remove(&uid);
                }
            }
        }
        apply(self);
        for key in keys.into_iter().flatten() {
            self.add_share(key);
        }
    }

    pub(super) fn add_share(&mut self, key: SessionKey) {
        if let Some((uid, share)) = self.share(key) {
            let there = self.shares.entry(uid).or_default();
            there.leases += share.leases;
            there.sessions += share.sessions;
            there.waiters += share.waiters;
            there.roots += share.roots;
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

    /// EDQUOT if these events would give more to the uid that asks for them than one may have, and more than it has.
    pub(super) fn check_quota(&self, command: &Command, events: &[Event]) -> Result<(), Refusal> {
        let uid = match command {
            Command::Claim { by, .. }
            | Command::Link { by, .. }
            | Command::Rename { by, .. }
            | Command::Join { by, .. }
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
        // What an ended session left is written down only now, and was nobody's share since it ended.
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
