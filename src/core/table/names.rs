//! The rules of names: taking one, changing its inode, giving it up.
//!
//! Does not know: what ends a session (`sessions.rs`), or the other ends of a lease (`terms.rs`).

use super::terms::renews;
use super::{Draft, Inode, Lost, Node, Table};
use crate::core::content::{INSIDE_MAX, REASON};
use crate::core::{
    Change, Creation, End, Ino, Member, Name, Place, Refusal, SessionKey, Shape, What,
};

impl Table {
    pub(super) fn decide_claim(
        &self,
        draft: &mut Draft,
        place: &Place,
        by: &Member,
        creation: &Creation,
    ) -> Result<(), Refusal> {
        let name = match place {
            Place::Claim(name) => name,
            Place::Inside { dir, label } => {
                return self.decide_create(draft, *dir, label, creation);
            }
        };
        if name.is_path() {
            self.check_path(name, by, creation)?;
        }
        if self.lease_count() >= self.max_leases {
            return Err(Refusal::Full);
        }
        let key = self.enter(draft, by)?;
        self.record_losses(draft, std::iter::once(name));
        let ino = draft.ino();
        draft.grant(name, key, ino, Some(creation.clone()), by);
        Ok(())
    }

    pub(super) fn decide_reclaim(
        &self,
        draft: &mut Draft,
        ino: Ino,
        by: &Member,
        truncate: bool,
    ) -> Result<(), Refusal> {
        let node = self.own(ino, by)?;
        let is_nameless = node.inode.names.is_empty();
        // The kernel found it by a name that has just gone. ESTALE makes it look up the name again.
        if is_nameless && !self.holds(by, node.inode) {
            return Err(Refusal::Lost);
        }
        if node.child.is_none() && !is_nameless {
            self.enter_for(draft, by, node.inode)?;
        }
        self.know_all(draft, &node);
        if truncate {
            if node.content().size() > 0 {
                draft.push(What::Altered {
                    ino,
                    change: Change::Resize { size: 0 },
                });
            }
            draft.renew(&node);
        }
        Ok(())
    }

    pub(super) fn decide_alter(
        &self,
        draft: &mut Draft,
        ino: Ino,
        by: &Member,
        change: &Change,
    ) -> Result<(), Refusal> {
        let node = self.own(ino, by)?;
        node.content().check(change)?;
        if let (Change::Tag { name, .. }, Some(_)) = (change, node.child)
            && name == REASON
        {
            // An entry inside a claim is no lease.
            return Err(Refusal::NotPermitted);
        }
        self.know_all(draft, &node);
        if let Some(child) = node.child {
            let others = node.inode.below().bytes - child.content.weight();
            let weight = child.content.weight_after(change);
            if weight > child.content.weight() && others + weight > INSIDE_MAX {
                return Err(Refusal::Full);
            }
        }
        draft.push(What::Altered {
            ino,
            change: change.clone(),
        });
        let terms = node.child.is_none() && !node.inode.names.is_empty();
        let ask = terms.then(|| node.content().ask_after(change)).flatten();
        if renews(change) {
            draft.renew(&node);
        }
        if let Some(ask) = ask {
            self.decide_ask(draft, ino, node.inode, by, ask)?;
        }
        Ok(())
    }

    pub(super) fn know_all(&self, draft: &mut Draft, node: &Node) {
        for token in &node.inode.names {
            self.know(draft, *token);
        }
    }

    /// The inode at a place, if there is one. EBUSY if the caller may not change the directory.
    pub(super) fn found(&self, place: &Place, by: &Member) -> Result<Option<Ino>, Refusal> {
        match place {
            Place::Claim(name) => Ok(self.lease(name).map(|lease| lease.ino)),
            Place::Inside { dir, label } => {
                Ok(self.own_directory(*dir, by)?.content().entries().get(label))
            }
        }
    }

    pub(super) fn decide_release(
        &self,
        draft: &mut Draft,
        place: &Place,
        directory: bool,
        by: &Member,
    ) -> Result<(), Refusal> {
        let ino = self.found(place, by)?.ok_or(Refusal::NotFound)?;
        self.check_removal(ino, directory, by)?;
        self.remove(draft, place);
        Ok(())
    }

    /// Checks that the caller may remove an inode by rmdir(2), if `directory` is set, or unlink(2).
    pub(super) fn check_removal(
        &self,
        ino: Ino,
        directory: bool,
        by: &Member,
    ) -> Result<(), Refusal> {
        let content = self.own(ino, by)?.content();
        match (content.shape == Shape::Directory, directory) {
            (true, false) => Err(Refusal::IsDirectory),
            (false, true) => Err(Refusal::NotDirectory),
            (true, true) if !content.entries().is_empty() => Err(Refusal::NotEmpty),
            _ => Ok(()),
        }
    }

    /// Records that a name is given up, if it exists.
    pub(super) fn remove(&self, draft: &mut Draft, place: &Place) {
        match place {
            Place::Claim(name) => {
                if let Some(lease) = self.lease(name) {
                    let (name, token) = (name.clone(), lease.token);
                    draft.push(What::Released { name, token });
                }
            }
            Place::Inside { dir, label } => draft.push(What::Unlinked {
                dir: *dir,
                label: label.clone(),
            }),
        }
    }

    pub(super) fn decide_link(
        &self,
        draft: &mut Draft,
        ino: Ino,
        place: &Place,
        by: &Member,
    ) -> Result<(), Refusal> {
        let name = match place {
            Place::Claim(name) => name,
            Place::Inside { dir, label } => {
                return self.decide_link_inside(draft, ino, *dir, label, by);
            }
        };
        let node = self.node(ino).ok_or(Refusal::Lost)?;
        if self.lease(name).is_some() {
            return Err(Refusal::Exists);
        }
        if name.is_path() || self.is_reserved(&node) {
            return Err(Refusal::NotPermitted);
        }
        let node = self.own(ino, by)?;
        if node.links() == 0 {
            return Err(Refusal::NotFound);
        }
        if node.child.is_some() {
            return Err(Refusal::CrossDevice);
        }
        if node.content().shape == Shape::Directory {
            return Err(Refusal::NotPermitted);
        }
        if self.lease_count() >= self.max_leases {
            return Err(Refusal::Full);
        }
        let key = self.enter_for(draft, by, node.inode)?;
        self.record_loss(draft, name);
        draft.grant(name, key, ino, None, by);
        Ok(())
    }

    /// The session that holds an inode which the caller may change. The caller becomes a root of
    /// the session, unless a process holds the inode.
    pub(super) fn enter_for(
        &self,
        draft: &mut Draft,
        by: &Member,
        inode: &Inode,
    ) -> Result<SessionKey, Refusal> {
        match inode.bound {
            Some(_) => Ok(inode.holder),
            None => self.enter(draft, by),
        }
    }

    /// Exchanges two names. Each gets a new token.
    pub(super) fn decide_exchange(
        &self,
        draft: &mut Draft,
        one: &Place,
        other: &Place,
        by: &Member,
    ) -> Result<(), Refusal> {
        if is_path(one) || is_path(other) {
            return Err(Refusal::NotPermitted);
        }
        let (Place::Claim(one), Place::Claim(other)) = (one, other) else {
            return self.decide_exchange_inside(draft, one, other, by);
        };
        let (a, b) = (self.lease(one), self.lease(other));
        let (a, b) = (a.ok_or(Refusal::NotFound)?, b.ok_or(Refusal::NotFound)?);
        self.own(a.ino, by)?;
        self.own(b.ino, by)?;
        if a.ino == b.ino {
            return Ok(());
        }
        let keys = [
            self.enter_for(draft, by, self.own(b.ino, by)?.inode)?,
            self.enter_for(draft, by, self.own(a.ino, by)?.inode)?,
        ];
        for (name, token) in [(one, a.token), (other, b.token)] {
            let name = name.clone();
            draft.push(What::Released { name, token });
        }
        draft.grant(one, keys[0], b.ino, None, by);
        draft.grant(other, keys[1], a.ino, None, by);
        // Both inodes lost their terms when they lost their names.
        for ino in [a.ino, b.ino] {
            let Some(inode) = self.inode(ino) else {
                continue;
            };
            if let Some(binding) = inode.bound.as_deref().cloned() {
                draft.push(What::Bound { ino, binding });
            }
            if inode.deadline.is_some() {
                let deadline = inode.deadline;
                draft.push(What::Limited { ino, deadline });
            }
        }
        Ok(())
    }

    pub(super) fn decide_rename(
        &self,
        draft: &mut Draft,
        from: &Place,
        to: &Place,
        noreplace: bool,
        by: &Member,
    ) -> Result<(), Refusal> {
        if is_path(from) || is_path(to) {
            return Err(Refusal::NotPermitted);
        }
        let source = self.found(from, by)?.ok_or(Refusal::NotFound)?;
        let target = self.found(to, by)?;
        if noreplace && target.is_some() {
            return Err(Refusal::Exists);
        }
        let is_directory = self.own(source, by)?.content().shape == Shape::Directory;
        if let Some(target) = target {
            self.own(target, by)?;
            // rename(2) does nothing for two names of one file.
            if target == source {
                return Ok(());
            }
            self.check_move(source, from, to)?;
            self.check_removal(target, is_directory, by)?;
            self.remove(draft, to);
        } else {
            self.check_move(source, from, to)?;
        }
        match to {
            Place::Claim(name) => {
                let key = self.enter_for(draft, by, self.own(source, by)?.inode)?;
                self.record_loss(draft, name);
                draft.grant(name, key, source, None, by);
            }
            Place::Inside { dir, label } => draft.link(*dir, label, source, None),
        }
        self.remove(draft, from);
        Ok(())
    }

    /// Releases the only name of a file to which nothing was written.
    pub(super) fn decide_withdraw(&self, draft: &mut Draft, ino: Ino) {
        let inode = self
            .inode(ino)
            .filter(|inode| inode.content.shape == Shape::File && inode.content.size() == 0);
        if let Some([token]) = inode.map(|inode| &*inode.names)
            && let Some(name) = self.names.get(*token).cloned()
        {
            let token = *token;
            draft.push(What::Released { name, token });
        }
    }

    pub(super) fn decide_sweep(&self, draft: &mut Draft, limit: usize) {
        let sessions = || self.over.iter().filter_map(|key| self.sessions.get(key));
        let over = sessions().filter(|session| !session.is_alive());
        let alive = sessions().filter(|session| session.is_alive());
        let lost = alive.flat_map(|session| {
            let held = |lost: &Lost| self.held_by(session.key, &lost.process);
            session.lost.iter().flat_map(held)
        });
        let lost = lost.filter_map(|ino| self.inodes.get(&ino));
        let lost = lost.flat_map(|inode| &inode.names);
        let tokens = over.flat_map(|session| &session.leases);
        let names = tokens
            .chain(lost)
            .filter_map(|token| self.names.get(*token));
        for name in names.take(limit) {
            self.record_loss(draft, name);
        }
    }

    /// An inode that the caller may change, because it holds the claim or because the claim has no
    /// name and is only open: else EBUSY.
    pub(super) fn own(&self, ino: Ino, by: &Member) -> Result<Node<'_>, Refusal> {
        let node = self.node(ino).ok_or(Refusal::Lost)?;
        if node.inode.names.is_empty() || self.holds(by, node.inode) {
            Ok(node)
        } else {
            Err(Refusal::Busy)
        }
    }

    /// True for the inode of a reservation, which has one name only.
    fn is_reserved(&self, node: &Node) -> bool {
        let mut names = node.inode.names.iter();
        names.any(|token| self.names.get(*token).is_some_and(Name::is_path))
    }

    /// Records the loss of a name whose session is over or whose process is dead, if it is not
    /// recorded yet.
    pub(super) fn record_loss(&self, draft: &mut Draft, name: &Name) {
        let Some(lease) = self.leases.get(name) else {
            return;
        };
        let Some(inode) = self.inodes.get(&lease.ino) else {
            return;
        };
        let holder = self.sessions.get(&inode.holder);
        let signal = holder.and_then(|session| {
            let bound = inode.bound.as_ref()?;
            let is_it = |lost: &&Lost| lost.process == bound.process;
            session.lost.iter().find(is_it)?.signal
        });
        let (name, token) = (name.clone(), lease.token);
        let reaped = |name| What::Reaped {
            name,
            token,
            signal,
        };
        match holder.and_then(|session| session.over) {
            Some(End::Died) => draft.push(reaped(name)),
            Some(End::Lapsed) => draft.push(What::Expired { name, token }),
            Some(End::Ended) => draft.push(What::Released { name, token }),
            None if self.is_lost(inode) => draft.push(reaped(name)),
            None => {}
        }
    }
}

/// Reservations are not linked, renamed or exchanged (EPERM).
fn is_path(place: &Place) -> bool {
    matches!(place, Place::Claim(name) if name.is_path())
}
