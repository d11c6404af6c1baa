//! The rules of what is inside a directory claim: the holder of the claim changes it, anyone looks, and it is bounded.
//!
//! A directory claim is like a filesystem of its own: nothing is linked or renamed across its edge (EXDEV), so that
//! what it contains is counted in one place and goes in one step.
//!
//! Deliberately ignorant of: who holds a claim and for how long (`table.rs`).

use super::{Below, Draft, Ino, Label, Node, Table};
use crate::core::content::{Content, INSIDE_MAX};
use crate::core::{Creation, Member, Place, Refusal, Shape};

/// How many entries a directory claim may contain, all in all (ENOSPC past it).
pub const ENTRIES_MAX: usize = 4096;

/// How deep directories may lie in a directory claim: an entry of the claim itself has depth 1 (ENOSPC past it).
pub const DEPTH_MAX: usize = 16;

impl<'a> Node<'a> {
    /// What it contains.
    pub fn content(&self) -> &'a Content {
        self.child
            .map_or(&self.inode.content, |child| &child.content)
    }

    /// How many names it has.
    pub fn links(&self) -> u32 {
        let names = u32::try_from(self.inode.names.len()).unwrap_or(u32::MAX);
        self.child.map_or(names, |child| child.links)
    }
}

impl Table {
    /// A directory that the caller may change and that has a name still: ENOTDIR, EBUSY, ENOENT otherwise.
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

    /// Creates an entry in a directory of the caller's own, where its name is free.
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
        check_room(&node.inode.below, target)?;
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
        if target.content().entries.get(label).is_some() {
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
        check_room(&target.inode.below, 0)?;
        draft.link(dir, label, ino, None);
        Ok(())
    }

    /// Swaps two names of which at least one is inside a claim.
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

    /// Whether an inode may move from one place to another: not across the edge of a claim (EXDEV), not into itself (EINVAL),
    /// not too deep (ENOSPC).
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

    /// A directory inside a claim and those above it, up to the claim's own.
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

    /// How many levels an inode takes: 1, and for a directory one more for each level below it.
    fn height(&self, ino: Ino) -> usize {
        let Some(child) = self.children.get(&ino) else {
            return 1;
        };
        let below = child.content.entries.after(0);
        1 + below.map(|(_, _, ino)| self.height(ino)).max().unwrap_or(0)
    }
}

/// Whether there is room for a further entry with so many bytes: ENOSPC.
fn check_room(below: &Below, bytes: usize) -> Result<(), Refusal> {
    if below.entries >= ENTRIES_MAX || below.bytes + bytes > INSIDE_MAX {
        Err(Refusal::Full)
    } else {
        Ok(())
    }
}
