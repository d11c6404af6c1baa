//! How much of the table one uid may take: so many leases, so many sessions, so many places in lines. Root may take all.
//!
//! What a uid gets by what another does is not refused: a release never fails because the next in line has enough.
//!
//! Deliberately ignorant of: what is claimed, and why.

use super::Table;
use crate::lease::{Command, Event, Refusal, SessionKey, What};

/// What a uid has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    leases: usize,
    sessions: usize,
    waiters: usize,
}

impl Table {
    /// Lets no uid but root have more than so many leases, sessions, or places in lines.
    pub fn limit_each(&mut self, most: usize) {
        self.max_per_uid = Some(most);
    }

    /// What a session is of its uid's share; nothing once it is over.
    fn share(&self, key: SessionKey) -> Option<(u32, Share)> {
        let session = self.sessions.get(&key)?;
        let share = Share {
            leases: session.leases.len(),
            sessions: 1,
            waiters: session.waiters.len(),
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
        }
    }

    /// The sessions whose shares an event changes.
    fn concerned(&self, event: &Event) -> [Option<SessionKey>; 2] {
        match &event.what {
            What::SessionStarted { key, .. }
            | What::SessionEnded { key, .. }
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
            | What::LeftLine { waiter } => [self.waiter(*waiter).map(|there| there.key), None],
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
            _ => return Ok(()),
        };
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
