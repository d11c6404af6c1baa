//! Rings of waiters: each waits for a name that the next one holds, and the last for a name that
//! the first holds.
//!
//! Promises: a waiter is in a ring exactly if it waits, in however many steps, for itself. To find
//! all rings costs as much as there are waiters, and roots of sessions that wait by process.
//!
//! Does not know: whether a ring is a deadlock. Another process of a session may release a name.

use std::collections::{HashMap, HashSet};

use super::Table;
use crate::core::{Name, Process, SessionKey, WaiterId};

/// The largest number of waits of a ring that are named.
pub const RING_MAX: usize = 16;

/// Who holds names and waits for others: a process under process scope, else a whole session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Party {
    Session(SessionKey),
    Process(SessionKey, Process),
}

/// One party waits for another.
#[derive(Clone, Copy, Debug)]
struct Wait {
    from: usize,
    to: usize,
    /// The waiter. `None` if a process counts as waiting for one below it.
    waiter: Option<WaiterId>,
}

/// A ring, as one of its waiters sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Its waiters in order, beginning with this one: each waits for a name of the next.
    pub waiters: Vec<WaiterId>,
    /// False if it has more than [`RING_MAX`] waits, of which these are the first.
    pub is_whole: bool,
}

/// The rings of a table. A party belongs to the same component as each that it waits for and that
/// waits for it.
#[derive(Debug, Default)]
pub struct Rings {
    parties: HashMap<Party, usize>,
    waits: Vec<Wait>,
    by_waiter: HashMap<WaiterId, usize>,
    /// The waits of each party, and those for each party.
    out: Vec<Vec<usize>>,
    into: Vec<Vec<usize>>,
    /// The first party of the component of each.
    first: Vec<Option<usize>>,
    /// The next wait on the way from each party to the first of its component.
    toward: Vec<Option<usize>>,
    /// The last wait on the way to each party from the first of its component.
    away: Vec<Option<usize>>,
}

impl Table {
    /// The rings of all waiters.
    pub fn rings(&self) -> Rings {
        let mut rings = Rings::default();
        let mut above: HashMap<SessionKey, HashMap<Process, Process>> = HashMap::new();
        let mut climbed = HashSet::new();
        for (name, queue) in &self.queues {
            let Some(holder) = self.party_of(name) else {
                continue;
            };
            let holder = rings.party(holder);
            for (waiter, place) in queue {
                let whole = Party::Session(place.key);
                let Some(maker) = place.maker else {
                    let from = rings.party(whole);
                    rings.add(from, holder, Some(*waiter));
                    continue;
                };
                let from = rings.party(Party::Process(place.key, maker));
                rings.add(from, holder, Some(*waiter));
                if climbed.insert(from) {
                    let whole = rings.party(whole);
                    rings.add(whole, from, None);
                    let above = above
                        .entry(place.key)
                        .or_insert_with(|| self.processes_above(place.key));
                    rings.add_above((place.key, maker), above, &mut climbed);
                }
            }
        }
        rings.find();
        rings
    }

    /// The holder of a name.
    fn party_of(&self, name: &Name) -> Option<Party> {
        let inode = self.inode(self.lease(name)?.ino)?;
        Some(match self.holder(inode) {
            Some(process) => Party::Process(inode.holder, process),
            None => Party::Session(inode.holder),
        })
    }

    /// The process above each root of a session.
    fn processes_above(&self, key: SessionKey) -> HashMap<Process, Process> {
        let roots = self.sessions.get(&key).map(|session| &session.roots);
        let roots = roots.into_iter().flatten();
        let above = roots.filter_map(|root| Some((root.process, root.above.process()?)));
        above.collect()
    }

    /// True if each of these waiters still waits for a name of the session of the next one.
    pub fn is_still(&self, ring: &Ring) -> bool {
        let count = ring.waiters.len();
        let is_wait = |(at, waiter): (usize, &WaiterId)| {
            let Some((name, _)) = self.waits_for(*waiter) else {
                return false;
            };
            if at + 1 == count && !ring.is_whole {
                return true;
            }
            let next = self.waiter(ring.waiters[(at + 1) % count]);
            let inode = self.lease(name).and_then(|lease| self.inode(lease.ino));
            next.zip(inode)
                .is_some_and(|(next, inode)| next.key == inode.holder)
        };
        ring.waiters.iter().enumerate().all(is_wait)
    }
}

impl Rings {
    /// The number of a party.
    fn party(&mut self, party: Party) -> usize {
        let next = self.out.len();
        let number = *self.parties.entry(party).or_insert(next);
        if number == next {
            self.out.push(Vec::new());
            self.into.push(Vec::new());
        }
        number
    }

    fn add(&mut self, from: usize, to: usize, waiter: Option<WaiterId>) {
        let number = self.waits.len();
        self.waits.push(Wait { from, to, waiter });
        self.out[from].push(number);
        self.into[to].push(number);
        if let Some(waiter) = waiter {
            self.by_waiter.insert(waiter, number);
        }
    }

    /// Each process above a maker counts as waiting for the one below it, which is its command.
    /// Ends at the first that was climbed from before.
    fn add_above(
        &mut self,
        (key, maker): (SessionKey, Process),
        above: &HashMap<Process, Process>,
        climbed: &mut HashSet<usize>,
    ) {
        let mut at = maker;
        while let Some(parent) = above.get(&at) {
            let from = self.party(Party::Process(key, *parent));
            let to = self.party(Party::Process(key, at));
            self.add(from, to, None);
            if !climbed.insert(from) {
                return;
            }
            at = *parent;
        }
    }

    /// Finds the components: Kosaraju's algorithm, whose second part also finds the ways.
    fn find(&mut self) {
        let count = self.out.len();
        self.first = vec![None; count];
        self.toward = vec![None; count];
        self.away = vec![None; count];
        for first in self.finished().into_iter().rev() {
            if self.first[first].is_some() {
                continue;
            }
            self.first[first] = Some(first);
            let (mut found, mut at) = (vec![first], 0);
            while let Some(party) = found.get(at).copied() {
                at += 1;
                for wait in &self.into[party] {
                    let from = self.waits[*wait].from;
                    if self.first[from].is_none() {
                        self.first[from] = Some(first);
                        self.toward[from] = Some(*wait);
                        found.push(from);
                    }
                }
            }
            let (mut found, mut at) = (vec![first], 0);
            while let Some(party) = found.get(at).copied() {
                at += 1;
                for wait in &self.out[party] {
                    let to = self.waits[*wait].to;
                    let is_new = to != first && self.away[to].is_none();
                    if is_new && self.first[to] == Some(first) {
                        self.away[to] = Some(*wait);
                        found.push(to);
                    }
                }
            }
        }
    }

    /// All parties, each after all that it waits for, as far as rings allow.
    fn finished(&self) -> Vec<usize> {
        let count = self.out.len();
        let (mut seen, mut order) = (vec![false; count], Vec::with_capacity(count));
        for first in 0..count {
            if std::mem::replace(&mut seen[first], true) {
                continue;
            }
            let mut stack = vec![(first, 0)];
            while let Some((at, next)) = stack.last_mut() {
                let Some(wait) = self.out[*at].get(*next) else {
                    order.push(*at);
                    stack.pop();
                    continue;
                };
                *next += 1;
                let to = self.waits[*wait].to;
                if !std::mem::replace(&mut seen[to], true) {
                    stack.push((to, 0));
                }
            }
        }
        order
    }

    /// The ring that a waiter is part of. A process that waits for one above it, and nobody else,
    /// is in none.
    pub fn of(&self, waiter: WaiterId) -> Option<Ring> {
        let own = *self.by_waiter.get(&waiter)?;
        let Wait { from: me, to, .. } = self.waits[own];
        let first = self.first[me]?;
        if self.first[to] != Some(first) {
            return None;
        }
        // To the first of the component, unless this party comes earlier, and from there to it.
        let (mut path, mut at) = (vec![own], to);
        while at != me && at != first && path.len() < RING_MAX {
            let wait = self.toward[at]?;
            path.push(wait);
            at = self.waits[wait].to;
        }
        if at != me && at == first {
            let (mut back, mut end) = (Vec::new(), me);
            while end != first && path.len() + back.len() < RING_MAX {
                let wait = self.away[end]?;
                back.push(wait);
                end = self.waits[wait].from;
            }
            if end == first {
                path.extend(back.into_iter().rev());
                at = me;
            }
        }
        let is_whole = at == me;
        let waiters = self.without_detours(me, &path);
        (waiters.len() > 1 || !is_whole).then_some(Ring { waiters, is_whole })
    }

    /// The waiters on a way that leads back to a party, which may pass others twice.
    fn without_detours(&self, me: usize, path: &[usize]) -> Vec<WaiterId> {
        let mut kept: Vec<usize> = Vec::new();
        for wait in path {
            let to = self.waits[*wait].to;
            match kept.iter().position(|wait| self.waits[*wait].to == to) {
                Some(before) => kept.truncate(before + 1),
                None => kept.push(*wait),
            }
            if to == me {
                break;
            }
        }
        let waiters = kept.iter().filter_map(|wait| self.waits[*wait].waiter);
        waiters.collect()
    }
}
