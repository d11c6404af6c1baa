//! Looking names up. Also the names that are gone and that the inotify notifier unlinks once more.
//!
//! Does not know: which caller asks; the mode bits were checked before.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::attr::{claim_attr, fixed, node_attr};
use super::{Attr, Kind, Tree, hide};
use crate::core::scaffolding::TOP;
use crate::core::table::{Node, Session, Table};
use crate::core::{Fixed, Label, NAME_MAX, Name, NodeId, Refusal, SessionId, Shape};

impl Tree {
    /// The node of a name in a directory. ENOENT also for a name that cannot be created.
    pub(crate) fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<Attr, Refusal> {
        match parent {
            NodeId::Fixed(Fixed::Root) => {
                let mut all = Fixed::ALL.iter().filter(|file| **file != Fixed::Root);
                let found = all.find(|file| fixed(**file).0.as_bytes() == name);
                let found = found.ok_or(Refusal::NotFound)?;
                Ok(self.fixed(*found))
            }
            NodeId::Fixed(Fixed::Claims) => {
                let found = match str::from_utf8(name) {
                    // The name needs no check: no lease has an invalid one.
                    Ok(text) if name.len() <= NAME_MAX && !text.starts_with('.') => {
                        self.lease(text, claim_attr)
                    }
                    _ => {
                        let name = self.name(name).map_err(hide)?;
                        self.lease(name.as_str(), claim_attr)
                    }
                };
                found.ok_or(Refusal::NotFound)
            }
            NodeId::Fixed(Fixed::Queue) => Ok(self.queue_file(Name::new(name).map_err(hide)?)),
            NodeId::Fixed(Fixed::Sessions) => {
                let id = SessionId::new(name).map_err(hide)?;
                let attr = |session: &Session| self.session_attr(session);
                self.session(&id, |_, session| attr(session))
                    .ok_or(Refusal::NotFound)
            }
            NodeId::Fixed(Fixed::Paths) => self.look_up_path(TOP, name),
            NodeId::Scaffold(dir) => self.look_up_path(dir, name),
            NodeId::Claim(dir) => {
                let label = Label::new(name).map_err(hide)?;
                let found = self.node(dir, |table, node| {
                    if node.content().shape != Shape::Directory {
                        return Err(Refusal::NotDirectory);
                    }
                    let found = node.content().entries().get(&label);
                    let child = found.and_then(|ino| Some((ino, table.node(ino)?)));
                    let attr = child.map(|(ino, child)| node_attr(ino, child));
                    attr.ok_or(Refusal::NotFound)
                });
                found.ok_or(Refusal::Lost)?
            }
            _ => Err(Refusal::NotDirectory),
        }
    }

    /// The target of a symlink, byte for byte.
    pub(crate) fn target(&self, ino: NodeId) -> Result<Arc<[u8]>, Refusal> {
        let NodeId::Claim(ino) = ino else {
            return Err(Refusal::Lost);
        };
        let target = self.node(ino, |_, node| match &node.content().shape {
            Shape::Symlink(target) => Ok(Arc::clone(target)),
            Shape::File | Shape::Directory => Err(Refusal::Invalid),
        });
        target.ok_or(Refusal::Lost)?
    }

    /// The largest size that a file can have, in bytes.
    pub(crate) fn room(&self, ino: NodeId) -> Result<u64, Refusal> {
        let NodeId::Claim(ino) = ino else {
            return Err(Refusal::Lost);
        };
        let room = |_: &Table, node: Node| node.content().room() as u64;
        self.node(ino, room).ok_or(Refusal::Lost)
    }

    /// Whether the caller is the helper process that makes inotify fire.
    pub(crate) fn is_notifier(&self, task: u32) -> bool {
        self.notifier.is(task)
    }

    /// The node of a name that is gone, for the helper process: a file or directory that it can
    /// remove. If the name is held again, the node that it has.
    pub(crate) fn tombstone(&self, parent: NodeId, name: &[u8]) -> Result<Attr, Refusal> {
        let found = self.lookup(parent, name);
        if found.is_ok() || found == Err(Refusal::Lost) {
            return found;
        }
        let Some(gone) = self.leased(parent, name) else {
            return found;
        };
        let ino = NodeId::Tombstone(self.next_handle.fetch_add(1, Relaxed));
        let file = self.virtual_file(ino, 0);
        let kind = if self.notifier.was_directory(&gone?) {
            Kind::Directory
        } else {
            Kind::File
        };
        Ok(Attr { kind, ..file })
    }

    /// Answers the helper process, which removes a name that is gone. EBUSY if it is held again.
    pub(crate) fn remove_tombstone(&self, parent: NodeId, name: &[u8]) -> Result<(), Refusal> {
        let gone = self.leased(parent, name).ok_or(Refusal::Busy)??;
        self.notifier.told(&gone);
        match self.lookup(parent, name) {
            Err(Refusal::NotFound) => Ok(()),
            _ => Err(Refusal::Busy),
        }
    }

    /// The name of a lease in `claims/`, or in a directory of reservations. `None` in others.
    fn leased(&self, parent: NodeId, name: &[u8]) -> Option<Result<Name, Refusal>> {
        match parent {
            NodeId::Fixed(Fixed::Claims) => Some(self.name(name)),
            _ => self.path_in(parent, name),
        }
    }
}
