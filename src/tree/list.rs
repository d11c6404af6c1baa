//! Listings of directories.
//!
//! Promises: a listing that goes on from an offset skips nothing that is there all the time.
//! Offsets follow from tokens, session keys and cookies, not from positions.
//!
//! Does not know: who lists. The mode of the directory was checked when it was opened.

use super::attr::{claim_attr, fixed, node_attr};
use super::{Attr, Kind, Tree};
use crate::core::scaffolding::TOP;
use crate::core::{Fixed, Ino, NodeId, Refusal, SessionKey, Token};

/// A file that is found by its name and not listed. A program that reads everything that is listed
/// would never end.
const UNLISTED: Fixed = Fixed::Events;

/// The number of entries before all others: `.` and `..`.
pub(super) const DOTS: u64 = 2;

/// An entry of a directory.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// The offset from which a listing goes on after it.
    pub offset: u64,
    /// Its attributes.
    pub attr: Attr,
}

impl Tree {
    /// Lists a directory from an offset on, until `emit` returns false: it has enough.
    pub(crate) fn list(
        &self,
        ino: NodeId,
        offset: u64,
        mut emit: impl FnMut(Entry) -> bool,
    ) -> Result<(), Refusal> {
        let dir = self.attr(ino)?;
        let up = match ino {
            NodeId::Fixed(Fixed::Root) => dir,
            NodeId::Claim(ino) => self.attr(self.above(ino))?,
            NodeId::Scaffold(dir) => self.attr(self.above_directory(dir))?,
            _ => self.attr(NodeId::ROOT)?,
        };
        for (at, name, attr) in [(1, &b"."[..], dir), (2, b"..", up)] {
            let entry = Entry {
                name,
                offset: at,
                attr,
            };
            if offset < at && !emit(entry) {
                return Ok(());
            }
        }
        let after = offset.saturating_sub(DOTS);
        match ino {
            NodeId::Fixed(Fixed::Root) => self.list_root(after, emit),
            NodeId::Fixed(Fixed::Claims) => self.list_claims(after, emit),
            NodeId::Fixed(Fixed::Sessions) => self.list_sessions(after, emit),
            NodeId::Fixed(Fixed::Queue) => {}
            NodeId::Fixed(Fixed::Paths) => self.list_paths(TOP, after, emit),
            NodeId::Scaffold(dir) => self.list_paths(dir, after, emit),
            NodeId::Claim(ino) if dir.kind == Kind::Directory => {
                self.list_inside(ino, after, emit);
            }
            _ => return Err(Refusal::NotDirectory),
        }
        Ok(())
    }

    /// Whether a part of a listing may take long, since many claims are over and not swept yet.
    pub(crate) fn is_littered(&self, ino: NodeId) -> bool {
        ino == NodeId::Fixed(Fixed::Claims) && self.store.is_littered()
    }

    fn list_root(&self, after: u64, mut emit: impl FnMut(Entry) -> bool) {
        let listed = Fixed::ALL.iter().copied();
        let listed = listed.filter(|file| ![Fixed::Root, UNLISTED].contains(file));
        let numbered = listed.map(|file| (file, NodeId::Fixed(file).number()));
        for (file, number) in numbered.filter(|(_, number)| *number > after) {
            let entry = Entry {
                name: fixed(file).0.as_bytes(),
                offset: number + DOTS,
                attr: self.fixed(file),
            };
            if !emit(entry) {
                return;
            }
        }
    }

    fn list_claims(&self, after: u64, mut emit: impl FnMut(Entry) -> bool) {
        self.store.claims(Token(after), |_, name, lease, inode| {
            emit(Entry {
                name: name.as_str().as_bytes(),
                offset: lease.token.0 + DOTS,
                attr: claim_attr(lease, inode),
            })
        });
    }

    fn list_sessions(&self, after: u64, mut emit: impl FnMut(Entry) -> bool) {
        self.store.sessions(SessionKey(after), |_, session| {
            emit(Entry {
                name: session.id.as_str().as_bytes(),
                offset: session.key.0 + DOTS,
                attr: self.session_attr(session),
            })
        });
    }

    /// Lists a directory that is a claim, or that is inside one.
    fn list_inside(&self, ino: Ino, after: u64, mut emit: impl FnMut(Entry) -> bool) {
        self.node(ino, |table, node| {
            for (cookie, label, ino) in node.content().entries().after(after) {
                let Some(child) = table.node(ino) else {
                    continue;
                };
                let entry = Entry {
                    name: label.as_bytes(),
                    offset: cookie + DOTS,
                    attr: node_attr(ino, child),
                };
                if !emit(entry) {
                    return;
                }
            }
        });
    }

    /// The parent directory of a claim that is a directory, or of a directory inside one.
    fn above(&self, ino: Ino) -> NodeId {
        let dir = self.node(ino, |_, node| node.child.map(|child| child.dir));
        dir.flatten()
            .map_or(NodeId::Fixed(Fixed::Claims), NodeId::Claim)
    }
}
