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
use crate::core::{Creation, Member, Name, Process, Refusal, SessionId, Shape, Token, What};

/// The most reservations below its paths that a line may replace, give up or give to another, and
/// look at (EFBIG past it): all others wait meanwhile.
pub const BELOW_MAX: usize = 1024;

/// A session with so many leases has few.
const FEW: usize = 4 * BELOW_MAX;

/// A name that a caller may take.
struct Wanted<'a> {
    name: &'a Name,
    /// Under process scope, the process that will hold it.
    maker: Option<Process>,
    /// The caller's reservations below it, with their tokens.
    replaces: Vec<(&'a Name, Token)>,
}

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
        let mut left = BELOW_MAX;
        let wanted = wanted
            .into_iter()
            .map(|name| self.want(name, by, &mut left));
        let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
        let replaced = BELOW_MAX - left;
        if self.lease_count() + wanted.len() > self.max_leases + replaced {
            return Err(Refusal::Full);
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let key = self.enter(draft, by)?;
        for (name, token) in wanted.iter().flat_map(|wanted| &wanted.replaces) {
            let (name, token) = ((*name).clone(), *token);
            draft.push(What::Released { name, token });
        }
        self.record_losses(draft, wanted.iter().map(|wanted| wanted.name));
        for Wanted { name, maker, .. } in wanted {
            let ino = draft.ino();
            let by = (by.pid, &by.command, maker);
            draft.grant_to(name, key, ino, Some(creation.clone()), by);
            if let Some(reason) = reason {
                let change = reason_is(Some(reason.to_owned()));
                draft.push(What::Altered { ino, change });
            }
        }
        Ok(())
    }

    /// A name that is free, and the caller's reservations that it replaces. Under process scope it
    /// is the process's that has those, which may be one above the caller: it must not lose them
    /// with the caller. EBUSY if several processes have them.
    fn want<'a>(
        &'a self,
        name: &'a Name,
        by: &Member,
        left: &mut usize,
    ) -> Result<Wanted<'a>, Refusal> {
        let (mut maker, mut replaces) = (by.maker(), Vec::new());
        if !name.is_path() {
            return Ok(Wanted {
                name,
                maker,
                replaces,
            });
        }
        check_levels(name, by)?;
        for below in self.below(name, None) {
            let Some(lease) = self.lease(below) else {
                continue;
            };
            let inode = self.inode(lease.ino).ok_or(Refusal::Lost)?;
            let holder = self.holder(inode).filter(|_| maker.is_some());
            let is_another = !replaces.is_empty() && maker.is_some() && holder != maker;
            if !self.holds(by, inode) || is_another {
                return Err(Refusal::Busy);
            }
            let session = self.sessions.get(&inode.holder);
            let lives_on = |holder| session.is_some_and(|session| session.root(holder).is_some());
            // One that is tied to a process passes to nobody.
            let passes = inode.bound.as_ref().is_some_and(|bound| bound.passes);
            if holder != by.maker() && !(passes && holder.as_ref().is_some_and(lives_on)) {
                return Err(Refusal::Busy);
            }
            maker = holder;
            replaces.push((below, lease.token));
            *left = left.checked_sub(1).ok_or(Refusal::TooLarge)?;
        }
        Ok(Wanted {
            name,
            maker,
            replaces,
        })
    }

    pub(super) fn decide_drop(
        &self,
        draft: &mut Draft,
        names: &[Name],
        by: &Member,
    ) -> Result<(), Refusal> {
        let few = self.few_paths(by);
        let mut left = BELOW_MAX;
        for name in topmost(names) {
            let itself = self.lease(name).map(|lease| (name, lease));
            if itself.is_some_and(|(_, lease)| !self.has(by, lease)) {
                return Err(Refusal::Busy);
            }
            let below: Vec<&Name> = match &few {
                Some(few) => few
                    .iter()
                    .filter(|own| own.is_below(name))
                    .copied()
                    .collect(),
                None if name.is_path() => self.below(name, None).take(left + 1).collect(),
                None => Vec::new(),
            };
            left = left.checked_sub(below.len()).ok_or(Refusal::TooLarge)?;
            let below = below.into_iter().filter_map(|name| {
                let lease = self.lease(name)?;
                self.has(by, lease).then_some((name, lease))
            });
            for (name, lease) in itself.into_iter().chain(below) {
                let content = &self.inode(lease.ino).ok_or(Refusal::Lost)?.content;
                self.check_removal(lease.ino, content.shape == Shape::Directory, by)?;
                let (name, token) = (name.clone(), lease.token);
                draft.push(What::Released { name, token });
            }
        }
        Ok(())
    }

    /// The reservations of the caller's session, if it has few leases: then those of others do not
    /// matter, however many there are.
    fn few_paths(&self, by: &Member) -> Option<Vec<&Name>> {
        let key = self.joinable(by).ok().flatten();
        let Some(session) = key.and_then(|key| self.sessions.get(&key)) else {
            return Some(Vec::new());
        };
        let tokens = session.leases.iter();
        let names = tokens.filter_map(|token| self.names.get(*token));
        (session.leases.len() <= FEW).then(|| names.filter(|name| name.is_path()).collect())
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
        let inodes: Vec<_> = live.map(|lease| lease.ino).take(BELOW_MAX + 1).collect();
        if inodes.len() > BELOW_MAX {
            return Err(Refusal::TooLarge);
        }
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
