//! The rules of queues: first come, first served, and a name with a queue is never free.
//!
//! The grant to the first in the queue is part of the decision that frees the name, so no claim
//! comes in between. A session or process that ends costs as much as it holds, or as there are
//! queued names.
//!
//! Does not know: how a waiter waits, or how it is woken.

use std::collections::HashSet;

use super::{Draft, Inode, Table, Waiter};
use crate::core::{
    Creation, End, Event, Member, Name, Process, Refusal, Rule, SessionKey, Token, WaiterId, What,
};

/// The state of a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It holds the name.
    Granted,
    /// Its session holds the name in another way.
    Held,
    /// It waits.
    Waits,
    /// It is in no queue any more: its session is over, or it has lost the name that it was
    /// granted.
    Over,
}

impl Table {
    /// The state of a session's waiter for a name. Who is told that it is another one:
    /// [`Effects::woken`](super::Effects::woken).
    pub fn turn(&self, waiter: WaiterId, key: SessionKey, name: &Name) -> Turn {
        if self.granted(waiter).is_some() {
            return Turn::Granted;
        }
        let waits = self.waiter(waiter).is_some();
        let is_held = self.lease(name).is_some();
        let Some((_, inode, holder)) = self.last(name).filter(|_| is_held) else {
            return Turn::Over;
        };
        // The name was given to the session, or granted to another of its descriptors. If a process
        // holds it, the holder is another script.
        let is_shared = inode.bound.is_none() && (!waits || holder.shares());
        if holder.key == key && is_shared {
            Turn::Held
        } else if waits {
            Turn::Waits
        } else {
            Turn::Over
        }
    }

    /// The queue for a name, in order.
    pub fn queue(&self, name: &Name) -> impl Iterator<Item = (WaiterId, &Waiter)> {
        let queue = self.queues.get(name).into_iter().flatten();
        queue.map(|(waiter, there)| (*waiter, there))
    }

    /// The number of waiters for a name.
    pub fn queue_length(&self, name: &Name) -> usize {
        self.queues
            .get(name)
            .map_or(0, std::collections::BTreeMap::len)
    }

    /// The names with a queue.
    pub fn queued_names(&self) -> impl Iterator<Item = &Name> {
        self.queues.keys()
    }

    /// The number of waiters in all queues.
    pub fn waiter_count(&self) -> usize {
        self.waiting.len()
    }

    /// The waiter that has waited longest of all.
    pub fn oldest_waiter(&self) -> Option<&Waiter> {
        let (waiter, _) = self.waiting.first_key_value()?;
        self.waiter(*waiter)
    }

    /// A waiter in a queue.
    pub fn waiter(&self, waiter: WaiterId) -> Option<&Waiter> {
        self.queues.get(self.waiting.get(&waiter)?)?.get(&waiter)
    }

    /// The waiters of a session for which this process will hold the name.
    pub(super) fn waiters_by(
        &self,
        key: SessionKey,
        maker: &Process,
    ) -> impl Iterator<Item = WaiterId> {
        let waiters = self.makers.get(maker).into_iter().flatten().copied();
        waiters.filter(move |waiter| self.waiter(*waiter).is_some_and(|there| there.key == key))
    }

    /// The newest waiter of all, which may have left its queue.
    pub(super) fn newest_waiter(&self) -> WaiterId {
        WaiterId(self.next_waiter - 1)
    }

    /// The name that a waiter waits for, and the number of waiters ahead of it.
    pub fn waits_for(&self, waiter: WaiterId) -> Option<(&Name, usize)> {
        let name = self.waiting.get(&waiter)?;
        let before = self.queues.get(name)?.range(..waiter).count();
        Some((name, before))
    }

    /// The name that a waiter was granted, if it does not know yet and still holds the name.
    pub fn granted(&self, waiter: WaiterId) -> Option<(&Name, Token)> {
        let (name, token) = self.granted.get(&waiter)?;
        let lease = self.lease(name)?;
        (lease.token == *token).then_some((name, *token))
    }

    /// The waiter that does not know yet that it was granted the lease with this token.
    pub fn grantee(&self, token: Token) -> Option<WaiterId> {
        self.grantees.get(&token).copied()
    }

    pub(super) fn decide_queue(
        &self,
        draft: &mut Draft,
        name: &Name,
        by: &Member,
        creation: &Creation,
    ) -> Result<(), Refusal> {
        if let Some(lease) = self.lease(name) {
            if let Ok(node) = self.own(lease.ino, by)
                && self.is_told(node.inode, by)
            {
                self.enter_for(draft, by, node.inode)?;
                self.know_all(draft, &node);
                return Ok(());
            }
        } else if self.lease_count() >= self.max_leases() {
            return Err(Refusal::Full);
        }
        if self.waiting.len() >= self.max_leases() {
            return Err(Refusal::Full);
        }
        let key = self.enter(draft, by)?;
        let waiter = WaiterId(self.next_waiter);
        draft.push(What::Queued {
            name: name.clone(),
            waiter,
            key,
            creation: creation.clone(),
            pid: by.pid,
            command: by.command.clone(),
            maker: by.maker(),
        });
        if self.lease(name).is_none() {
            self.record_loss(draft, name);
            let ino = draft.ino();
            let maker = (by.pid, &by.command, by.maker());
            let token = draft.grant_to(name, key, ino, Some(creation.clone()), maker);
            let name = name.clone();
            draft.push(What::Granted {
                name,
                waiter,
                token,
            });
        }
        Ok(())
    }

    /// True if a caller that may change a lease is told at once that it has it, instead of waiting.
    /// If a process holds the lease, this applies to the process and its children only, since
    /// deeper descendants may be other scripts. If a terminal's session holds it, every caller
    /// waits.
    fn is_told(&self, inode: &Inode, by: &Member) -> bool {
        match self.holder(inode) {
            Some(holder) => {
                let mut near = by.lineage.iter().take(2);
                near.any(|kin| kin.process == holder)
            }
            None => by.rule != Rule::Posix,
        }
    }

    /// True if the process that waits is below the process that holds the name now.
    pub fn waits_for_ancestor(&self, waiter: &Waiter, inode: &Inode) -> bool {
        let holder = self.holder(inode).filter(|_| waiter.key == inode.holder);
        let above = waiter.maker.map(|maker| self.heirs(waiter.key, &maker));
        holder.is_some_and(|holder| above.is_some_and(|above| above.contains(&holder)))
    }

    /// Records that the holder knows of a grant that its waiter has not read yet. From now on, the
    /// waiter may close its descriptor without releasing the name.
    pub(super) fn know(&self, draft: &mut Draft, token: Token) {
        if let Some(waiter) = self.grantees.get(&token) {
            draft.push(What::Accepted { waiter: *waiter });
        }
    }

    pub(super) fn decide_leave(&self, draft: &mut Draft, waiter: WaiterId) {
        if !self.waiting.contains_key(&waiter) && !self.granted.contains_key(&waiter) {
            return;
        }
        draft.push(What::LeftQueue { waiter });
        if let Some((name, token)) = self.granted(waiter) {
            let name = name.clone();
            draft.push(What::Released { name, token });
        }
    }

    /// Grants each queued name that a decision frees to the first in its queue.
    pub(super) fn serve_queues(&self, draft: &mut Draft) {
        if self.queues.is_empty() {
            return;
        }
        let freed = self.freed(&draft.events);
        if freed.is_empty() {
            return;
        }
        let (mut over, mut left) = (HashSet::new(), HashSet::new());
        for event in &draft.events {
            match &event.what {
                What::SessionEnded { key, .. } => _ = over.insert(*key),
                What::LeftQueue { waiter } => _ = left.insert(*waiter),
                _ => {}
            }
        }
        for (name, gone) in freed {
            let next = self.queue(&name).find(|(waiter, there)| {
                self.is_alive(there.key) && !over.contains(&there.key) && !left.contains(waiter)
            });
            let Some((waiter, next)) = next else {
                continue;
            };
            if let Some(gone) = gone {
                draft.push(gone);
            }
            let ino = draft.ino();
            let created = Some(next.creation.clone());
            let maker = (next.pid, &next.command, next.maker);
            let token = draft.grant_to(&name, next.key, ino, created, maker);
            draft.push(What::Granted {
                name,
                waiter,
                token,
            });
        }
    }

    /// The queued names that these events free, each with the event that is still to be recorded
    /// about its lease.
    fn freed(&self, events: &[Event]) -> Vec<(Name, Option<What>)> {
        let mut freed: Vec<(Name, Option<What>)> = Vec::new();
        let mut passed = None;
        for event in events {
            match &event.what {
                What::Released { name, .. }
                | What::Reaped { name, .. }
                | What::Expired { name, .. }
                | What::Broken { name, .. }
                    if self.queues.contains_key(name) =>
                {
                    freed.push((name.clone(), None));
                }
                What::Claimed { name, .. } => freed.retain(|(there, _)| there != name),
                What::Passed { key, from, .. } => passed = Some((*key, *from)),
                What::Left {
                    key,
                    process,
                    killed,
                } if passed != Some((*key, *process)) => {
                    freed.extend(self.freed_by_exit(*key, process, *killed));
                }
                What::SessionEnded { key, why, .. } => {
                    let known: HashSet<Name> = freed.iter().map(|(name, _)| name.clone()).collect();
                    let ended = self.freed_by_end(*key, *why).into_iter();
                    freed.extend(ended.filter(|(name, _)| !known.contains(name)));
                }
                // Not for anybody in the queue: what changes the holder or the inode alone.
                _ => {}
            }
        }
        freed
    }

    /// The queued names that a process holds of a session, and passes to nobody.
    fn freed_by_exit(
        &self,
        key: SessionKey,
        process: &Process,
        signal: Option<u8>,
    ) -> Vec<(Name, Option<What>)> {
        let inodes = self.held_by(key, process);
        let inodes = inodes.filter_map(|ino| self.inodes.get(&ino));
        let tokens = inodes.flat_map(|inode| &inode.names);
        let is_held = |inode: &Inode| {
            let bound = inode.bound.as_ref().filter(|bound| bound.passes);
            let is_theirs = bound.is_some_and(|bound| bound.process == *process);
            is_theirs && inode.holder == key && !self.is_lost(inode)
        };
        let lost = self.queued_of(tokens, is_held).into_iter();
        let lost = lost.map(|(name, token)| {
            let gone = What::Reaped {
                name: name.clone(),
                token,
                signal,
            };
            (name, Some(gone))
        });
        lost.collect()
    }

    /// The queued names that a session holds, each with the event about its lease.
    fn freed_by_end(&self, key: SessionKey, why: End) -> Vec<(Name, Option<What>)> {
        let Some(session) = self.sessions.get(&key) else {
            return Vec::new();
        };
        let is_held = |inode: &Inode| inode.holder == key;
        let ended = self.queued_of(session.leases.iter(), is_held).into_iter();
        let ended = ended.map(|(name, token)| {
            let there = name.clone();
            let gone = match why {
                End::Died => What::Reaped {
                    name,
                    token,
                    signal: None,
                },
                End::Lapsed => What::Expired { name, token },
                End::Ended => What::Released { name, token },
            };
            (there, Some(gone))
        });
        ended.collect()
    }

    /// The names among these leases that have a queue, in the order of names. Goes through the
    /// leases or through the queues, whichever are fewer.
    fn queued_of<'a>(
        &'a self,
        tokens: impl Iterator<Item = &'a Token>,
        is_held: impl Fn(&Inode) -> bool,
    ) -> Vec<(Name, Token)> {
        let most = self.queues.len();
        let tokens: Vec<&Token> = tokens.take(most + 1).collect();
        let names: Vec<&Name> = if tokens.len() > most {
            self.queues.keys().collect()
        } else {
            let names = tokens
                .into_iter()
                .filter_map(|token| self.names.get(*token));
            let queued = names.filter(|name| self.queues.contains_key(*name));
            let mut names: Vec<&Name> = queued.collect();
            names.sort_unstable();
            names
        };
        let held = names.into_iter().filter_map(|name| {
            let (lease, inode, _) = self.last(name)?;
            is_held(inode).then(|| (name.clone(), lease.token))
        });
        held.collect()
    }
}
