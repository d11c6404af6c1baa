//! The rules of reservations, and of several names at once: all or none.
//!
//! A reservation covers its path and all below it, so it is refused while another session has one
//! above or below.
//!
//! Does not know: scaffolding, the directories between reservations.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::terms::reason_is;
use super::{Draft, Lease, Table};
use crate::core::{Creation, Member, Name, Refusal, SessionId, Shape, Token, What};

impl Table {
    /// All reservations with their tokens, also those that are lost and not swept yet.
    pub fn paths(&self) -> impl Iterator<Item = (Name, Token)> {
        let tokens = |name: &Name| Some((name.clone(), self.leases.get(name)?.token));
        self.paths.iter().filter_map(tokens)
    }

    /// The reservations below a path, in the order of their names, also those that are lost and not
    /// swept yet. `after` is one of them to go on from.
    pub fn below(&self, path: &Name, after: Option<&Name>) -> impl Iterator<Item = &Name> {
        let (first, end) = path.below();
        let start = match after {
            Some(after) => Bound::Excluded(after.as_str()),
            None => Bound::Included(&*first),
        };
        // A range that is empty since it starts behind its end would panic.
        let is_in = after.is_none_or(|after| after.as_str() < &*end);
        let range = is_in.then(|| self.paths.range::<str, _>((start, Bound::Excluded(&*end))));
        range.into_iter().flatten()
    }

    /// The reservation that covers a path: its own or the nearest above it. Also one that is lost
    /// and not swept yet.
    pub fn covering(&self, path: &Name) -> Option<&Name> {
        let itself = std::iter::once(path.as_str());
        let mut covering = itself.chain(path.above());
        covering.find_map(|name| self.paths.get(name))
    }

    /// The live lease that covers a path.
    fn cover(&self, path: &Name) -> Option<&Lease> {
        let itself = std::iter::once(path.as_str());
        let mut covering = itself.chain(path.above());
        covering.find_map(|name| self.lease(name))
    }

    /// The first live reservation that is in the way of a path: the one that covers it, else
    /// one below it that the member does not hold.
    pub fn obstacle(&self, path: &Name, by: &Member) -> Option<&Name> {
        if let Some(lease) = self.cover(path) {
            return self.name(lease.token).filter(|_| !self.has(by, lease));
        }
        let live = self.below(path, None).filter_map(|name| {
            let lease = self.lease(name)?;
            Some((name, lease))
        });
        let mut others = live.filter(|(_, lease)| !self.has(by, lease));
        others.next().map(|(name, _)| name)
    }

    fn has(&self, by: &Member, lease: &Lease) -> bool {
        self.inode(lease.ino)
            .is_some_and(|inode| self.holds(by, inode))
    }

    /// Checks that a path may be reserved by creating a file: ENOTDIR below a reservation, EISDIR
    /// above one, EPERM for what is no file and, except for root, for a path of one component.
    pub(super) fn check_path(
        &self,
        path: &Name,
        by: &Member,
        creation: &Creation,
    ) -> Result<(), Refusal> {
        if creation.shape != Shape::File {
            return Err(Refusal::NotPermitted);
        }
        check_levels(path, by)?;
        if self.cover(path).is_some() {
            return Err(Refusal::NotDirectory);
        }
        let mut below = self.below(path, None);
        if below.any(|name| self.lease(name).is_some()) {
            return Err(Refusal::IsDirectory);
        }
        Ok(())
    }

    /// Records the losses of names, and of reservations above and below those that are paths.
    pub(super) fn record_losses<'a>(
        &self,
        draft: &mut Draft,
        names: impl Iterator<Item = &'a Name>,
    ) {
        if self.unswept == 0 {
            return;
        }
        // Two paths may be below the same one.
        let mut lost: BTreeSet<&Name> = BTreeSet::new();
        for name in names {
            let itself = std::iter::once(name.as_str());
            let covering = itself.chain(name.above());
            lost.extend(covering.filter_map(|name| Some(self.leases.get_key_value(name)?.0)));
            let below = name.is_path().then(|| self.below(name, None));
            lost.extend(below.into_iter().flatten());
        }
        for name in lost {
            self.record_loss(draft, name);
        }
    }

    pub(super) fn decide_take(
        &self,
        draft: &mut Draft,
        names: &[Name],
        by: &Member,
        creation: &Creation,
        reason: Option<&str>,
    ) -> Result<(), Refusal> {
        let mut wanted = Vec::new();
        for name in topmost(names) {
            let lease = if name.is_path() {
                self.cover(name)
            } else {
                self.lease(name)
            };
            match lease {
                Some(lease) if !self.has(by, lease) => return Err(Refusal::Busy),
                Some(lease) => self.know(draft, lease.token),
                None => wanted.push(name),
            }
        }
        let mut replaced = Vec::new();
        for name in wanted.iter().filter(|name| name.is_path()) {
            check_levels(name, by)?;
            for below in self.below(name, None) {
                if let Some(lease) = self.lease(below) {
                    if !self.has(by, lease) {
                        return Err(Refusal::Busy);
                    }
                    replaced.push((below, lease.token));
                }
            }
        }
        if self.lease_count() + wanted.len() > self.max_leases + replaced.len() {
            return Err(Refusal::Full);
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let key = self.enter(draft, by)?;
        for (name, token) in replaced {
            let name = name.clone();
            draft.push(What::Released { name, token });
        }
        self.record_losses(draft, wanted.iter().copied());
        for name in wanted {
            let ino = draft.ino();
            draft.grant(name, key, ino, Some(creation.clone()), by);
            if let Some(reason) = reason {
                let change = reason_is(Some(reason.to_owned()));
                draft.push(What::Altered { ino, change });
            }
        }
        Ok(())
    }

    pub(super) fn decide_drop(
        &self,
        draft: &mut Draft,
        names: &[Name],
        by: &Member,
    ) -> Result<(), Refusal> {
        for name in topmost(names) {
            let own = self.lease(name).map(|lease| (name, lease));
            if own.is_some_and(|(_, lease)| !self.has(by, lease)) {
                return Err(Refusal::Busy);
            }
            let is_path = name.is_path();
            let below = is_path.then(|| self.below(name, None));
            let below = below.into_iter().flatten().filter_map(|name| {
                let lease = self.lease(name)?;
                self.has(by, lease).then_some((name, lease))
            });
            for (name, lease) in own.into_iter().chain(below) {
                let content = &self.inode(lease.ino).ok_or(Refusal::Lost)?.content;
                self.check_removal(lease.ino, content.shape == Shape::Directory, by)?;
                let (name, token) = (name.clone(), lease.token);
                draft.push(What::Released { name, token });
            }
        }
        Ok(())
    }

    pub(super) fn decide_give_below(
        &self,
        draft: &mut Draft,
        path: &Name,
        to: &SessionId,
        by: &Member,
    ) -> Result<(), Refusal> {
        let live = self.below(path, None);
        let live = live.filter_map(|name| self.lease(name));
        let inodes: Vec<_> = live.map(|lease| lease.ino).collect();
        if inodes.is_empty() {
            return Err(Refusal::NotFound);
        }
        for ino in inodes {
            self.decide_give(draft, ino, to, by)?;
        }
        Ok(())
    }
}

/// Only root may reserve a path of one component, such as `/home`: it would stop everybody. Else
/// EPERM.
fn check_levels(path: &Name, by: &Member) -> Result<(), Refusal> {
    if by.uid != 0 && path.above().next().is_none() {
        return Err(Refusal::NotPermitted);
    }
    Ok(())
}

/// The names, each once, without those below another of them.
fn topmost(names: &[Name]) -> Vec<&Name> {
    let mut sorted: Vec<&Name> = names.iter().collect();
    // All names below a path come after it, though others may come between.
    sorted.sort_unstable();
    sorted.dedup();
    let is_listed = |name: &str| {
        let found = sorted.binary_search_by(|there| there.as_str().cmp(name));
        found.is_ok()
    };
    let top = sorted.iter().filter(|name| !name.above().any(is_listed));
    top.copied().collect()
}
