//! The rules of waiting: first come, first served, and a name that is waited for is never free.
//!
//! The grant to the next in line is part of the decision that frees the name, so that nobody comes between.
//!
//! Deliberately ignorant of: how one waits, and how a waiter is told.

use super::{Draft, Inode, Table, Waiter};
use crate::core::{
    Creation, End, Event, Member, Name, Refusal, Rule, SessionKey, Token, WaiterId, What,
};

impl Table {
    /// The line for a name, first come first.
    pub fn queue(&self, name: &Name) -> impl Iterator<Item = (WaiterId, &Waiter)> {
        let line = self.queues.get(name).into_iter().flatten();
        line.map(|(waiter, there)| (*waiter, there))
    }

    /// How many wait for a name.
    pub fn queue_length(&self, name: &Name) -> usize {
        self.queues
            .get(name)
            .map_or(0, std::collections::BTreeMap::len)
    }

    /// The names that are waited for.
    pub fn queued_names(&self) -> impl Iterator<Item = &Name> {
        self.queues.keys()
    }

    /// A waiter that stands in a line.
    pub fn waiter(&self, waiter: WaiterId) -> Option<&Waiter> {
        self.queues.get(self.waiting.get(&waiter)?)?.get(&waiter)
    }

    /// The newest waiter, wherever it stands.
    pub fn newest_waiter(&self) -> WaiterId {
        WaiterId(self.next_waiter - 1)
    }

    /// The name that a waiter waits for, and how many are before it.
    pub fn waits_for(&self, waiter: WaiterId) -> Option<(&Name, usize)> {
        let name = self.waiting.get(&waiter)?;
        let before = self.queues.get(name)?.range(..waiter).count();
        Some((name, before))
    }

    /// What a waiter was granted and does not know of yet, if it holds it still.
    pub fn granted(&self, waiter: WaiterId) -> Option<(&Name, Token)> {
        let (name, token) = self.granted.get(&waiter)?;
        let lease = self.lease(name)?;
        (lease.token == *token).then_some((name, *token))
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

    /// Whether a caller that may change a lease is told that it has it already. Where a process
    /// holds it, these are that process and its children, since further down it may be another
    /// script; and so where a terminal's session does.
    fn is_told(&self, inode: &Inode, by: &Member) -> bool {
        match self.holder(inode) {
            Some(holder) => {
                let mut near = by.lineage.iter().take(2);
                near.any(|kin| kin.process == holder)
            }
            None => by.rule != Rule::Posix,
        }
    }

    /// Whether the process that will hold what a waiter waits for is below the one that holds it
    /// now.
    pub fn waits_for_ancestor(&self, waiter: &Waiter, inode: &Inode) -> bool {
        let holder = self.holder(inode).filter(|_| waiter.key == inode.holder);
        let above = waiter.maker.map(|maker| self.heirs(waiter.key, &maker));
        holder.is_some_and(|holder| above.is_some_and(|above| above.contains(&holder)))
    }

    /// Whoever else of the session was granted this without having read it: the session knows now, and that a descriptor is closed
    /// takes nothing back.
    pub(super) fn know(&self, draft: &mut Draft, token: Token) {
        let mut granted = self.granted.iter();
        if let Some((waiter, _)) = granted.find(|(_, (_, granted))| *granted == token) {
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

    /// Grants each name that a decision frees, and that is waited for, to the first in its line.
    pub(super) fn serve_queues(&self, draft: &mut Draft) {
        if self.queues.is_empty() {
            return;
        }
        for (name, gone) in self.freed(&draft.events) {
            let is_over = |key: SessionKey| {
                let ends = |event: &Event| matches!(&event.what, What::SessionEnded { key: over, .. } if *over == key);
                !self.is_alive(key) || draft.events.iter().any(ends)
            };
            let leaves = |waiter: WaiterId| {
                let left = |event: &Event| matches!(&event.what, What::LeftQueue { waiter: gone } if *gone == waiter);
                draft.events.iter().any(left)
            };
            let next = self
                .queue(&name)
                .find(|(waiter, there)| !is_over(there.key) && !leaves(*waiter));
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
            let name = name.clone();
            draft.push(What::Granted {
                name,
                waiter,
                token,
            });
        }
    }

    /// The names with a line that these events leave free, and what is to be written down yet of the lease that was.
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
                    let lost = self.queues.keys().filter_map(|name| {
                        let (lease, inode, _) = self.last(name)?;
                        let bound = inode.bound.as_ref().filter(|bound| bound.passes)?;
                        let is_held = bound.process == *process && inode.holder == *key;
                        (is_held && !self.is_lost(inode)).then(|| (name.clone(), lease.token))
                    });
                    for (name, token) in lost {
                        let gone = What::Reaped {
                            name: name.clone(),
                            token,
                            signal: *killed,
                        };
                        freed.push((name, Some(gone)));
                    }
                }
                What::SessionEnded { key, why } => {
                    let theirs = self.queues.keys().filter_map(|name| {
                        let (lease, inode, _) = self.last(name)?;
                        let (name, token) = (name.clone(), lease.token);
                        let gone = match why {
                            End::Died => What::Reaped {
                                name,
                                token,
                                signal: None,
                            },
                            End::Lapsed => What::Expired { name, token },
                            End::Ended => What::Released { name, token },
                        };
                        (inode.holder == *key).then_some(gone)
                    });
                    for gone in theirs {
                        if let What::Reaped { name, .. }
                        | What::Expired { name, .. }
                        | What::Released { name, .. } = &gone
                            && freed.iter().all(|(there, _)| there != name)
                        {
                            freed.push((name.clone(), Some(gone)));
                        }
                    }
                }
                _ => {}
            }
        }
        freed
    }
}
