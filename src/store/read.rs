//! Reading the table, after the liveness of the holders was checked.
//!
//! Does not know: who asks.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use super::Store;
use crate::core::table::{Inode, Lease, Session, Table};
use crate::core::{Ino, Name, SessionKey, Subject, Token};
use crate::render::metrics::Gauges;

/// The number of sessions or leases that are checked before the store is unlocked for others, and
/// the time for which it is.
const TURN: usize = 256;
const REST: Duration = Duration::from_micros(20);

impl Store {
    /// Shows the table, after the liveness of the subject was checked.
    pub(crate) fn read<R>(&self, about: Subject, show: impl FnOnce(&Table) -> R) -> R {
        let mut inner = self.lock();
        inner.check(about, None);
        show(&inner.table)
    }

    /// The gauges of `metrics`. Costs the same however much there is.
    pub(crate) fn gauges(&self) -> Gauges {
        let (status_overflows, source) = (self.status_overflows(), self.source());
        let inner = self.lock();
        let table = &inner.table;
        Gauges {
            leases: table.lease_count(),
            leases_max: table.max_leases(),
            sessions: table.session_count(),
            waiters: table.waiter_count(),
            waits_since: table.oldest_waiter().map(|waiter| waiter.since),
            journal_bytes: inner.journal.length(),
            status_overflows,
            status_source: source.as_str(),
        }
    }

    /// Shows the live claims after a token in the order of their tokens, until `show` returns
    /// false.
    pub(crate) fn claims(
        &self,
        after: Token,
        mut show: impl FnMut(&Table, &Name, &Lease, &Inode) -> bool,
    ) {
        let mut inner = self.lock();
        let mut alive: HashMap<SessionKey, bool> = HashMap::new();
        let mut last = after;
        loop {
            // The check may change the table, so the next claim is found by the token of the last.
            let Some((token, holder)) = inner.next_claim(last) else {
                return;
            };
            let is_alive = *alive
                .entry(holder)
                .or_insert_with(|| inner.check_session(holder));
            last = token;
            if is_alive
                && let Some(ino) = inner
                    .table
                    .name(token)
                    .and_then(|name| Some(inner.table.lease(name)?.ino))
            {
                inner.check_terms(ino);
            }
            if let Some(name) = inner.table.name(token).filter(|_| is_alive)
                && let Some(lease) = inner.table.lease(name)
                && let Some(inode) = inner.table.inode(lease.ino)
                && !show(&inner.table, name, lease, inode)
            {
                return;
            }
        }
    }

    /// Shows all live leases as a snapshot, in the order of their tokens. Returns the number of the
    /// newest event that it reflects, as the error: `known` had no result for that number. It is
    /// not asked while any lease has a deadline, since records show the time that is left.
    pub(crate) fn snapshot<R>(
        &self,
        known: impl FnOnce(u64) -> Option<R>,
        mut show: impl FnMut(&Table, &Name),
    ) -> Result<R, u64> {
        self.check_all();
        let inner = self.lock();
        let seq = inner.table.seq();
        let is_timeless = inner.table.next_deadline().is_none();
        if let Some(known) = Some(seq).filter(|_| is_timeless).and_then(known) {
            return Ok(known);
        }
        for (name, _) in inner.table.leases(Token(0)) {
            show(&inner.table, name);
        }
        Err(seq)
    }

    /// Checks the holder of every lease, and unlocks the store in between for others.
    fn check_all(&self) {
        let mut last = SessionKey(0);
        loop {
            let mut inner = self.lock();
            let sessions = inner.table.sessions(last);
            let keys: Vec<SessionKey> = sessions.take(TURN).map(|session| session.key).collect();
            for key in &keys {
                inner.check_session(*key);
                last = *key;
            }
            drop(inner);
            if keys.len() < TURN {
                break;
            }
            thread::sleep(REST);
        }
        let mut last = Token(0);
        loop {
            let mut inner = self.lock();
            let leases = inner.table.leases(last).take(TURN);
            let leases: Vec<(Token, Ino)> =
                leases.map(|(_, lease)| (lease.token, lease.ino)).collect();
            for (token, ino) in &leases {
                inner.check_terms(*ino);
                last = *token;
            }
            drop(inner);
            if leases.len() < TURN {
                break;
            }
            thread::sleep(REST);
        }
    }

    /// Shows the live sessions after a key, until `show` returns false.
    pub(crate) fn sessions(
        &self,
        after: SessionKey,
        mut show: impl FnMut(&Table, &Session) -> bool,
    ) {
        let mut inner = self.lock();
        let mut last = after;
        loop {
            let next = inner.table.sessions(last).next().map(|session| session.key);
            let Some(key) = next else { return };
            last = key;
            if inner.check_session(key)
                && let Some(session) = inner.table.session_by_key(key)
                && !show(&inner.table, session)
            {
                return;
            }
        }
    }
}
