//! Inodes after an event: content, terms, and the inodes inside a directory claim.
//!
//! Does not know: which process has an inode open.

use std::collections::HashMap;
use std::time::SystemTime;

use super::super::{Below, Child, Inode, Table};
use crate::core::content::{Content, INSIDE_MAX};
use crate::core::{Binding, Change, Creation, Deadline, Due, Event, Ino, Label, Shape, What};

impl Table {
    pub(super) fn apply_to_inode(&mut self, event: &Event) {
        match &event.what {
            What::Altered { ino, change } => self.apply_altered(*ino, change, event.at),
            What::Linked {
                dir,
                label,
                ino,
                created,
            } => self.apply_linked(*dir, label, *ino, created.as_ref(), event.at),
            What::Unlinked { dir, label } => self.apply_unlinked(*dir, label, event.at),
            What::Bound { ino, binding } => self.apply_bound(*ino, binding),
            What::Limited { ino, deadline } => self.apply_limited(*ino, *deadline),
            What::Forgotten { ino } => self.drop_inode(*ino),
            _ => {}
        }
    }

    fn apply_bound(&mut self, ino: Ino, binding: &Binding) {
        self.unbind(ino);
        let Some(inode) = self.inodes.get_mut(&ino) else {
            return;
        };
        inode.bound = Some(Box::new(binding.clone()));
        let uid = inode.content.uid;
        self.bound.entry(binding.process).or_default().insert(ino);
        if !binding.passes {
            self.count_binding(uid, true);
        }
    }

    fn apply_limited(&mut self, ino: Ino, deadline: Option<Deadline>) {
        self.unlimit(ino);
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.deadline = deadline;
            let due = deadline.map(|deadline| (deadline.until, Due::Claim(ino)));
            self.deadlines.extend(due);
        }
    }

    fn content_mut(&mut self, ino: Ino) -> Option<&mut Content> {
        match self.children.get_mut(&ino) {
            Some(child) => Some(&mut child.content),
            None => self.inodes.get_mut(&ino).map(|inode| &mut inode.content),
        }
    }

    /// Changes the totals of the claim that an inode is part of.
    fn change_below(&mut self, ino: Ino, change: impl FnOnce(&mut Below)) {
        let claim = self.children.get(&ino).map_or(ino, |child| child.claim);
        if let Some(inode) = self.inodes.get_mut(&claim) {
            inode.change_below(change);
        }
    }

    fn apply_altered(&mut self, ino: Ino, change: &Change, at: SystemTime) {
        let Some(content) = self.content_mut(ino) else {
            return;
        };
        let before = content.weight();
        content.apply(change, at);
        let after = content.weight();
        if self.children.contains_key(&ino) {
            self.change_below(ino, |below| {
                below.bytes = (below.bytes + after).saturating_sub(before);
            });
        }
    }

    fn apply_linked(
        &mut self,
        dir: Ino,
        label: &Label,
        ino: Ino,
        created: Option<&Creation>,
        at: SystemTime,
    ) {
        if let Some(creation) = created {
            self.next_ino = self.next_ino.max(ino.0 + 1);
            let claim = self.children.get(&dir).map_or(dir, |child| child.claim);
            let content = Content::new(creation.clone(), INSIDE_MAX, at);
            self.change_below(dir, |below| {
                below.inodes.insert(ino);
                below.bytes += content.weight();
            });
            let child = Child {
                claim,
                dir,
                links: 0,
                content,
            };
            self.children.insert(ino, child);
        }
        let Some(child) = self.children.get_mut(&ino) else {
            return;
        };
        child.dir = dir;
        child.links += 1;
        child.content.ctime = at;
        let is_directory = child.content.shape == Shape::Directory;
        if let Some(content) = self.content_mut(dir) {
            content.link(label.clone(), ino, is_directory, at);
        }
        self.change_below(dir, |below| below.entries += 1);
    }

    fn apply_unlinked(&mut self, dir: Ino, label: &Label, at: SystemTime) {
        let ino = self
            .content_mut(dir)
            .and_then(|content| content.entries().get(label));
        let Some(child) = ino.and_then(|ino| self.children.get_mut(&ino)) else {
            return;
        };
        child.links = child.links.saturating_sub(1);
        child.content.ctime = at;
        let is_directory = child.content.shape == Shape::Directory;
        if let Some(content) = self.content_mut(dir) {
            content.unlink(label, is_directory, at);
        }
        self.change_below(dir, |below| {
            below.entries = below.entries.saturating_sub(1);
        });
    }

    /// Removes an inode, with all inodes inside it.
    pub(super) fn drop_inode(&mut self, ino: Ino) {
        if let Some(child) = self.children.remove(&ino) {
            self.change_below(child.claim, |below| {
                below.inodes.remove(&ino);
                below.bytes = below.bytes.saturating_sub(child.content.weight());
            });
        } else if let Some(inode) = self.inodes.remove(&ino) {
            for below in &inode.below().inodes {
                self.children.remove(below);
            }
        }
    }

    /// Gives the inodes inside a claim the numbers after the claim's own new one, so that older
    /// descriptors are lost. Inodes without a name, which are only open, are removed.
    pub(super) fn renumber(&mut self, inode: &mut Inode, from: Ino, to: Ino) {
        let Some(mut below) = inode.below.take() else {
            return;
        };
        let old = std::mem::take(&mut below.inodes);
        let next = (to.0 + 1..).map(Ino);
        let mut numbers: HashMap<Ino, Ino> = old.into_iter().zip(next).collect();
        self.next_ino = self.next_ino.max(to.0 + 1 + numbers.len() as u64);
        numbers.insert(from, to);
        let number = |ino: Ino| numbers.get(&ino).copied().unwrap_or(ino);
        for (was, is) in numbers.iter().filter(|(was, _)| **was != from) {
            let Some(mut child) = self.children.remove(was) else {
                continue;
            };
            if child.links == 0 {
                let weight = child.content.weight();
                below.bytes = below.bytes.saturating_sub(weight);
                continue;
            }
            (child.claim, child.dir) = (to, number(child.dir));
            child.content.renumber(number);
            below.inodes.insert(*is);
            self.children.insert(*is, child);
        }
        inode.content.renumber(number);
        inode.change_below(|there| *there = *below);
    }

    pub(super) fn unlimit(&mut self, ino: Ino) {
        let inode = self.inodes.get_mut(&ino);
        if let Some(deadline) = inode.and_then(|inode| inode.deadline.take()) {
            self.deadlines.remove(&(deadline.until, Due::Claim(ino)));
        }
    }

    pub(super) fn unbind(&mut self, ino: Ino) {
        let inode = self.inodes.get_mut(&ino);
        let bound = inode.and_then(|inode| Some((inode.bound.take()?, inode.content.uid)));
        let Some((bound, uid)) = bound else {
            return;
        };
        // The counts are of processes that are watched for a claim. Under process scope, a process
        // is watched as a root of its session.
        if !bound.passes {
            self.count_binding(uid, false);
        }
        let process = bound.process;
        if let Some(inodes) = self.bound.get_mut(&process) {
            inodes.remove(&ino);
            if inodes.is_empty() {
                self.bound.remove(&process);
            }
        }
    }
}
