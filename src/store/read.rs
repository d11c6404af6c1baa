//! Reading the table, after the liveness of the holders was checked.
//!
//! Does not know: who asks.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use super::{Inner, Store};
use crate::core::table::{Inode, Lease, Past, Session, Table};
use crate::core::{Event, Ino, Name, SessionId, SessionKey, Subject, Token};
use crate::render::metrics::Gauges;
use crate::render::{Record, SessionRecord};

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

    /// Whether so many leases are not swept yet that a listing of the claims may take long.
    pub(crate) fn is_littered(&self) -> bool {
        self.lock().table.unswept() > TURN
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
            let lease = match inner.table.claim_after(last, TURN) {
                Ok(Some(lease)) => lease,
                Ok(None) => return,
                // Others have a turn, since there may be many of these.
                Err(token) => {
                    last = token;
                    drop(inner);
                    thread::sleep(REST);
                    inner = self.lock();
                    continue;
                }
            };
            let (token, inode) = (lease.token, inner.table.inode(lease.ino));
            let Some(holder) = inode.map(|inode| inode.holder) else {
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

    /// The records of all live leases as of one event, in the order of their tokens, and the number
    /// of that event. `known` may have a result for that number. It is not asked while any lease
    /// has a deadline, since records show the time that is left.
    pub(crate) fn snapshot<R>(
        &self,
        known: impl FnOnce(u64) -> Option<R>,
    ) -> Result<R, (u64, Vec<Record>)> {
        self.check_all();
        let (number, seq) = {
            let mut inner = self.lock();
            let seq = inner.table.seq();
            let is_timeless = inner.table.next_deadline().is_none();
            if let Some(known) = Some(seq).filter(|_| is_timeless).and_then(known) {
                return Ok(known);
            }
            let past = Past::of(&inner.table);
            (inner.listings.begin(past), seq)
        };
        let mut records = Vec::new();
        loop {
            // No memory is moved under the lock.
            records.reserve(TURN);
            let mut inner = self.lock();
            let Inner {
                table, listings, ..
            } = &mut *inner;
            if !listings.go_on(number, table, &mut records) {
                break;
            }
            drop(inner);
            thread::sleep(REST);
        }
        let kept = self.lock().listings.end(number);
        records.extend(kept);
        records.sort_unstable_by_key(|record| record.token);
        Err((seq, records))
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

    /// The record of a session, and its leases in steps: those that it got or lost meanwhile may
    /// be in it.
    pub(crate) fn session_record(&self, id: &SessionId, key: SessionKey) -> Option<SessionRecord> {
        let mut record = self.read(Subject::Roots(id), |table| {
            let session = table.session(id).filter(|session| session.key == key);
            session.map(SessionRecord::of)
        })?;
        let mut last = Some(Token(0));
        while let Some(after) = last {
            let inner = self.lock();
            last = record.add_leases(&inner.table, key, after, TURN);
            drop(inner);
            if last.is_some() {
                thread::sleep(REST);
            }
        }
        Some(record)
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

/// The listings of all leases that are in the making.
#[derive(Debug, Default)]
pub(super) struct Listings {
    all: Vec<Listing>,
    count: u64,
}

#[derive(Debug)]
struct Listing {
    number: u64,
    past: Past,
    /// The records of leases that ended before they were shown.
    kept: Vec<Record>,
}

impl Listings {
    fn begin(&mut self, past: Past) -> u64 {
        self.count += 1;
        self.all.push(Listing {
            number: self.count,
            past,
            kept: Vec::new(),
        });
        self.count
    }

    /// Adds the next records. Whether there are more.
    fn go_on(&mut self, number: u64, table: &Table, records: &mut Vec<Record>) -> bool {
        let mut all = self.all.iter_mut();
        let Some(listing) = all.find(|listing| listing.number == number) else {
            return false;
        };
        listing
            .past
            .show(table, TURN, |name| records.extend(Record::of(table, name)))
    }

    /// The records that were kept.
    fn end(&mut self, number: u64) -> Vec<Record> {
        let at = self.all.iter().position(|listing| listing.number == number);
        at.map_or_else(Vec::new, |at| self.all.swap_remove(at).kept)
    }

    /// Follows an event that is about to be applied.
    pub(super) fn before(&mut self, table: &Table, event: &Event) {
        for Listing { past, kept, .. } in &mut self.all {
            let names = past.before(table, event);
            kept.extend(names.iter().filter_map(|name| Record::of(table, name)));
        }
    }
}
