//! Places in the queue of a name.
//!
//! Does not know: how a waiter is told, or which descriptor is its own.

use std::time::{Duration, Instant};

use super::{Inner, Principal, Store};
use crate::core::table::Turn;
use crate::core::{
    Command, Creation, Name, Refusal, SessionId, SessionKey, Shape, Subject, Token, WaiterId,
};
use crate::render::progress::Progress;
use crate::render::ring::RingRecord;

/// The rings of all waiters are found at most once in this time for the progress lines.
const RINGS_AGE: Duration = Duration::from_secs(1);

/// A place in a queue.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    /// The waiter and its session. `None` if the caller's session holds the name already.
    pub waiter: Option<(WaiterId, SessionKey)>,
    /// The caller's session, if the caller is its only root. The lease will end with the caller.
    pub alone: Option<SessionId>,
}

impl Store {
    /// Takes a place in the queue of a name, or the name if it is free.
    pub(crate) fn queue(&self, who: &Principal, name: &Name) -> Result<Seat, Refusal> {
        let ancestry = who.ancestry()?;
        let mut inner = self.lock();
        let creation = Creation {
            shape: Shape::File,
            mode: 0o644,
            uid: who.uid(),
            gid: who.gid(),
        };
        let by = inner.member(ancestry)?;
        let queue = Command::Queue {
            name: name.clone(),
            by: &by,
            creation,
        };
        let outcome = inner.carry_out(who, &queue)?;
        let alone = inner.is_alone(ancestry, &by).then(|| by.id.clone());
        Ok(Seat {
            waiter: outcome.seat,
            alone,
        })
    }

    /// Whether a name is held, by the grant of this token.
    pub(crate) fn has_token(&self, name: &Name, token: Token) -> bool {
        self.read(Subject::Name(name.as_str()), |table| {
            table.lease(name).is_some_and(|lease| lease.token == token)
        })
    }

    /// The caller's session, if the caller is its only root.
    pub(crate) fn alone(&self, who: &Principal) -> Option<SessionId> {
        let ancestry = who.ancestry().ok()?;
        let mut inner = self.lock();
        let by = inner.member(ancestry).ok()?;
        inner.is_alone(ancestry, &by).then_some(by.id)
    }

    /// The state of a session's waiter for a name.
    pub(crate) fn turn(&self, waiter: WaiterId, key: SessionKey, name: &Name) -> Turn {
        self.lock().table.turn(waiter, key, name)
    }

    /// The same for a thread that is told of it. If the session holds the name by a grant that
    /// another of its descriptors has not read, closing that one does not release it from now on.
    pub(crate) fn turn_to_tell(
        &self,
        task: u32,
        waiter: WaiterId,
        key: SessionKey,
        name: &Name,
    ) -> Turn {
        let turn = self.turn(waiter, key, name);
        // The store is not locked while `/proc` is read, and it is read only if it matters.
        if !matches!(turn, Turn::Held) || self.is_doomed(task) {
            return turn;
        }
        let mut inner = self.lock();
        let turn = inner.table.turn(waiter, key, name);
        if let Turn::Held = turn
            && let Some(lease) = inner.table.lease(name)
            && let Some(waiter) = inner.table.grantee(lease.token)
            && !inner.commit_own(&Command::Accept { waiter })
        {
            return Turn::Over;
        }
        turn
    }

    /// Whom a waiter waits for. `None` if it does not wait any more. A new ring may not be known
    /// for a second.
    pub(crate) fn progress(&self, waiter: WaiterId) -> Option<Progress> {
        let mut inner = self.lock();
        let mut progress = Progress::of(&inner.table, waiter)?;
        inner.find_rings();
        let ring = inner.rings.as_ref().and_then(|(_, rings)| rings.of(waiter));
        let ring = ring.filter(|ring| inner.table.is_still(ring));
        progress.ring = ring.and_then(|ring| RingRecord::of(&inner.table, &ring));
        Some(progress)
    }

    /// Whether a thread has a pending signal that will end it.
    pub(crate) fn is_doomed(&self, task: u32) -> bool {
        task != 0 && self.processes.is_doomed(task)
    }

    /// Records that a waiter is told that it holds the name. False if it does not hold it any more.
    pub(crate) fn accept(&self, waiter: WaiterId) -> bool {
        let mut inner = self.lock();
        if let Some((name, _)) = inner.table.granted(waiter) {
            let name = name.clone();
            inner.check(Subject::Name(name.as_str()), None);
        }
        inner.table.granted(waiter).is_some() && inner.commit_own(&Command::Accept { waiter })
    }

    /// Removes a waiter from its queue.
    pub(crate) fn leave(&self, waiter: WaiterId) {
        self.lock().commit_own(&Command::Leave { waiter });
    }

    /// All waiters, with their sessions and names.
    pub(crate) fn seats(&self) -> Vec<(WaiterId, SessionKey, Name)> {
        let inner = self.lock();
        let table = &inner.table;
        let waiting = table.waiters().filter_map(|waiter| {
            if let Some((name, _)) = table.waits_for(waiter) {
                return Some((waiter, table.waiter(waiter)?.key, name.clone()));
            }
            let (name, _) = table.granted(waiter)?;
            Some((waiter, table.last(name)?.1.holder, name.clone()))
        });
        waiting.collect()
    }
}

impl Inner {
    /// Finds the rings of all waiters, unless they were found a moment ago.
    fn find_rings(&mut self) {
        let now = Instant::now();
        let is_recent = |at: &Instant| now.duration_since(*at) < RINGS_AGE;
        if !self.rings.as_ref().is_some_and(|(at, _)| is_recent(at)) {
            self.rings = Some((now, self.table.rings()));
        }
    }
}
