//! The rules inside a directory claim. The holder of the claim changes the entries, and anyone may
//! read them. Their number and size are limited.
//!
//! A directory claim is like a filesystem of its own. Links and renames across its edge are refused
//! (EXDEV), so that its totals are in one place and all entries go in one step.
//!
//! Does not know: how a claim is taken, or for how long it is held.

use super::{Below, Draft, Ino, Label, Node, Table};
use crate::core::content::{Content, INSIDE_MAX};
use crate::core::{Creation, Member, Place, Refusal, Shape};

/// The largest number of entries in a directory claim, at all depths (ENOSPC past it).
pub(super) const ENTRIES_MAX: usize = 4096;

/// The greatest depth of an entry (ENOSPC past it). An entry of the claim itself has depth 1.
pub(super) const DEPTH_MAX: usize = 16;

impl<'a> Node<'a> {
    /// Its content.
    pub fn content(&self) -> &'a Content {
        self.child
            .map_or(&self.inode.content, |child| &child.content)
    }

    /// The number of its names.
    pub fn links(&self) -> u32 {
        let names = u32::try_from(self.inode.names.len()).unwrap_or(u32::MAX);
        self.child.map_or(names, |child| child.links)
    }
}

impl Table {
    /// A directory with a name that the caller may change: else ENOTDIR, EBUSY or ENOENT.
    pub(super) fn own_directory(&self, dir: Ino, by: &Member) -> Result<Node<'_>, Refusal> {
        let node = self.own(dir, by)?;
        if node.content().shape != Shape::Directory {
            return Err(Refusal::NotDirectory);
        }
        if node.links() == 0 || node.inode.names.is_empty() {
            return Err(Refusal::NotFound);
        }
        Ok(node)
    }

    /// Creates an entry. The caller may change the directory, and the name is free.
    pub(super) fn decide_create(
        &self,
        draft: &mut Draft,
        dir: Ino,
        label: &Label,
        creation: &Creation,
    ) -> Result<(), Refusal> {
        let node = self.node(dir).ok_or(Refusal::Lost)?;
        let target = match &creation.shape {
            Shape::Symlink(target) => target.len(),
            Shape::File | Shape::Directory => 0,
        };
        check_room(node.inode.below(), target)?;
        self.check_depth(dir, 1)?;
        let ino = draft.ino();
        draft.link(dir, label, ino, Some(creation.clone()));
        Ok(())
    }

    pub(super) fn decide_link_inside(
        &self,
        draft: &mut Draft,
        ino: Ino,
        dir: Ino,
        label: &Label,
        by: &Member,
    ) -> Result<(), Refusal> {
        let target = self.own_directory(dir, by)?;
        if target.content().entries().get(label).is_some() {
            return Err(Refusal::Exists);
        }
        let node = self.own(ino, by)?;
        if node.links() == 0 {
            return Err(Refusal::NotFound);
        }
        if node.child.is_none() || node.claim != target.claim {
            return Err(Refusal::CrossDevice);
        }
        if node.content().shape == Shape::Directory {
            return Err(Refusal::NotPermitted);
        }
        check_room(target.inode.below(), 0)?;
        draft.link(dir, label, ino, None);
        Ok(())
    }

    /// Exchanges two names, of which at least one is inside a claim.
    pub(super) fn decide_exchange_inside(
        &self,
        draft: &mut Draft,
        one: &Place,
        other: &Place,
        by: &Member,
    ) -> Result<(), Refusal> {
        let a = self.found(one, by)?.ok_or(Refusal::NotFound)?;
        let b = self.found(other, by)?.ok_or(Refusal::NotFound)?;
        self.own(a, by)?;
        self.own(b, by)?;
        self.check_move(a, one, other)?;
        self.check_move(b, other, one)?;
        if a == b {
            return Ok(());
        }
        self.remove(draft, one);
        self.remove(draft, other);
        for (place, ino) in [(one, b), (other, a)] {
            if let Place::Inside { dir, label } = place {
                draft.link(*dir, label, ino, None);
            }
        }
        Ok(())
    }

    /// Checks a move to another place: not across the edge of a claim (EXDEV), not into itself
    /// (EINVAL), not too deep (ENOSPC).
    pub(super) fn check_move(&self, ino: Ino, from: &Place, to: &Place) -> Result<(), Refusal> {
        let (from, to) = match (from, to) {
            (Place::Claim(_), Place::Claim(_)) => return Ok(()),
            (Place::Inside { dir: from, .. }, Place::Inside { dir: to, .. }) => (*from, *to),
            _ => return Err(Refusal::CrossDevice),
        };
        let claim = |dir| self.node(dir).map(|node| node.claim);
        if claim(from) != claim(to) {
            return Err(Refusal::CrossDevice);
        }
        if self.path(to).any(|above| above == ino) {
            return Err(Refusal::Invalid);
        }
        self.check_depth(to, self.height(ino))
    }

    /// A directory inside a claim and those above it, up to the claim itself.
    fn path(&self, dir: Ino) -> impl Iterator<Item = Ino> {
        let above = |dir: &Ino| self.children.get(dir).map(|child| child.dir);
        std::iter::successors(Some(dir), above).take(DEPTH_MAX + 1)
    }

    fn check_depth(&self, dir: Ino, height: usize) -> Result<(), Refusal> {
        if self.path(dir).count() - 1 + height > DEPTH_MAX {
            Err(Refusal::Full)
        } else {
            Ok(())
        }
    }

    /// The number of levels of an inode: 1, and for a directory one more for each level below it.
    fn height(&self, ino: Ino) -> usize {
        let Some(child) = self.children.get(&ino) else {
            return 1;
        };
        let below = child.content.entries().after(0);
        1 + below.map(|(_, _, ino)| self.height(ino)).max().unwrap_or(0)
    }
}

/// Checks for space for another entry of this size: ENOSPC.
fn check_room(below: &Below, bytes: usize) -> Result<(), Refusal> {
    if below.entries >= ENTRIES_MAX || below.bytes + bytes > INSIDE_MAX {
        Err(Refusal::Full)
    } else {
        Ok(())
    }
}
