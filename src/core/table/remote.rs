//! The rules of remote sessions, which have no processes. Callers that the mount cannot see name
//! their session, and each request extends its deadline.
//!
//! Does not know: the clock. The time is an argument.

use std::sync::Arc;
use std::time::Duration;

use super::{Draft, Table};
use crate::core::{
    Creation, Deadline, End, Name, Refusal, RemoteSession, Rule, SessionKey, Shape, What,
};

impl Table {
    pub(super) fn decide_hold(
        &self,
        draft: &mut Draft,
        name: &Name,
        by: &RemoteSession,
        ttl: Duration,
    ) -> Result<(), Refusal> {
        let known = self.speaks_for(by)?;
        let lease = self.lease(name).and_then(|lease| self.inode(lease.ino));
        if lease.is_some_and(|inode| known != Some(inode.holder)) {
            return Err(Refusal::Busy);
        }
        if lease.is_none() && self.lease_count() >= self.max_leases {
            return Err(Refusal::Full);
        }
        let key = known.unwrap_or_else(|| {
            let (id, uid) = (by.id.clone(), by.uid);
            draft.start_with(id, uid, by.pidns, Rule::Remote)
        });
        // A shorter time does not replace a longer one that the session asked for before.
        let asked = known.and_then(|key| self.sessions.get(&key)?.deadline);
        let before = asked.map_or(Duration::ZERO, |asked| asked.ttl);
        draft.prolong(key, before.max(ttl), before >= ttl);
        if lease.is_none() {
            self.record_loss(draft, name);
            let creation = Creation {
                shape: Shape::File,
                mode: 0o644,
                uid: by.uid,
                gid: by.gid,
            };
            let ino = draft.ino();
            draft.grant_to(name, key, ino, Some(creation), (0, &Arc::from(""), None));
        }
        Ok(())
    }

    pub(super) fn decide_yield(
        &self,
        draft: &mut Draft,
        name: &Name,
        by: &RemoteSession,
    ) -> Result<(), Refusal> {
        let known = self.speaks_for(by)?;
        let lease = self.lease(name).ok_or(Refusal::NotFound)?;
        let holder = self.inode(lease.ino).map(|inode| inode.holder);
        if known.is_none() || holder != known {
            return Err(Refusal::Busy);
        }
        let (name, token) = (name.clone(), lease.token);
        draft.push(What::Released { name, token });
        Ok(())
    }

    /// The live session that the caller names, if there is one. EPERM if it has another uid, has
    /// processes, or is outside of the caller's sandbox.
    fn speaks_for(&self, by: &RemoteSession) -> Result<Option<SessionKey>, Refusal> {
        match self.session(&by.id) {
            Some(session)
                if session.uid == by.uid
                    && session.rule == Rule::Remote
                    && (by.pidns == 0 || by.pidns == session.pidns) =>
            {
                Ok(Some(session.key))
            }
            None if by.id.owner().is_none() => Ok(None),
            _ => Err(Refusal::NotPermitted),
        }
    }

    pub(super) fn decide_lapse(&self, draft: &mut Draft, key: SessionKey) {
        let session = self.sessions.get(&key).filter(|session| session.is_alive());
        let deadline = session.and_then(|session| session.deadline);
        if deadline.is_some_and(|deadline| deadline.until <= draft.boot) {
            let (why, by) = (End::Lapsed, None);
            draft.push(What::SessionEnded { key, why, by });
        }
    }

    pub(super) fn decide_restart(&self, draft: &mut Draft, key: SessionKey) {
        let session = self.sessions.get(&key).filter(|session| session.is_alive());
        if let Some(deadline) = session.and_then(|session| session.deadline) {
            draft.prolong(key, deadline.ttl, true);
        }
    }
}

impl Draft {
    fn prolong(&mut self, key: SessionKey, ttl: Duration, renews: bool) {
        let until = self.boot.saturating_add(ttl);
        let deadline = Deadline { ttl, until };
        self.push(What::Prolonged {
            key,
            deadline,
            renews,
        });
    }
}
