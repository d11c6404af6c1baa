//! The attributes of nodes, as stat(2) shows them, and the table of the fixed files.
//!
//! Does not know: what the files contain.

use std::time::SystemTime;

use super::Tree;
use crate::core::table::{Inode, Lease, Node, Session};
use crate::core::{Fixed, Ino, NodeId, Refusal, Shape};

/// Name, kind and mode of a fixed file.
pub(super) const fn fixed(fixed: Fixed) -> (&'static str, Kind, u16) {
    match fixed {
        Fixed::Root => ("", Kind::Directory, 0o555),
        Fixed::Readme => ("README", Kind::File, 0o444),
        Fixed::Claims => ("claims", Kind::Directory, 0o1777),
        Fixed::Sessions => ("sessions", Kind::Directory, 0o1777),
        Fixed::Own => ("self", Kind::File, 0o444),
        Fixed::Leases => ("leases", Kind::File, 0o444),
        Fixed::Control => ("control", Kind::File, 0o222),
        Fixed::Metrics => ("metrics", Kind::File, 0o444),
        Fixed::Queue => ("queue", Kind::Directory, 0o555),
        Fixed::Waiters => ("waiters", Kind::File, 0o444),
        Fixed::History => ("history", Kind::File, 0o444),
        Fixed::Events => ("events", Kind::File, 0o444),
        Fixed::Paths => ("paths", Kind::Directory, 0o1777),
    }
}

/// The size of a file that is waited on: a page, as in sysfs. splice(2) and sendfile(2) read
/// through the page cache, which takes size 0 for the end of the file and asks nobody. The end of a
/// queue file means that the reader holds the name.
pub(super) const STREAM_SIZE: u64 = 4096;

/// The kind of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
}

/// The attributes of a node, as stat(2) shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attr {
    /// Inode number.
    pub ino: NodeId,
    /// Kind.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u16,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Time of last access.
    pub atime: SystemTime,
    /// Time of last modification.
    pub mtime: SystemTime,
    /// Time of last change.
    pub ctime: SystemTime,
}

impl Attr {
    /// Whether the node exists as long as the mount does.
    pub(crate) fn is_fixed(&self) -> bool {
        matches!(self.ino, NodeId::Fixed(_) | NodeId::QueueFile(_))
    }
}

impl Tree {
    /// The attributes of a node. ESTALE if it was lost.
    pub(crate) fn attr(&self, ino: NodeId) -> Result<Attr, Refusal> {
        match ino {
            NodeId::Fixed(fixed) => Ok(self.fixed(fixed)),
            NodeId::Claim(ino) => self
                .node(ino, |_, node| node_attr(ino, node))
                .ok_or(Refusal::Lost),
            NodeId::Session(_) => self
                .session_file(ino, |session| self.session_attr(session))
                .ok_or(Refusal::Lost),
            NodeId::QueueFile(_) => Ok(self.queue_file_attr(ino)),
            NodeId::Scaffold(dir) => self.directory_attr(dir),
            NodeId::Tombstone(_) => Ok(self.virtual_file(ino, 0)),
            _ => {
                let open = self.descriptors.registration(ino).ok_or(Refusal::Lost)?;
                Ok(Attr {
                    uid: open.ancestry.uid(),
                    ..self.virtual_file(ino, 0o644)
                })
            }
        }
    }

    pub(super) fn virtual_file(&self, ino: NodeId, mode: u16) -> Attr {
        let (uid, gid, born) = (self.uid, self.gid, self.born);
        let (kind, nlink, size) = (Kind::File, 1, 0);
        Attr {
            ino,
            kind,
            mode,
            nlink,
            uid,
            gid,
            size,
            atime: born,
            mtime: born,
            ctime: born,
        }
    }

    pub(super) fn fixed(&self, file: Fixed) -> Attr {
        let (_, kind, mode) = fixed(file);
        Attr {
            kind,
            nlink: if kind == Kind::Directory { 2 } else { 1 },
            size: if file == Fixed::Events {
                STREAM_SIZE
            } else {
                0
            },
            ..self.virtual_file(NodeId::Fixed(file), mode)
        }
    }

    pub(super) fn session_attr(&self, session: &Session) -> Attr {
        let since = session.since;
        let file = self.virtual_file(NodeId::Session(session.key), 0o644);
        Attr {
            uid: session.uid,
            atime: since,
            mtime: since,
            ctime: since,
            ..file
        }
    }
}

pub(super) fn claim_attr(lease: &Lease, inode: &Inode) -> Attr {
    let node = Node {
        claim: lease.ino,
        inode,
        child: None,
    };
    node_attr(lease.ino, node)
}

pub(super) fn node_attr(ino: Ino, node: Node) -> Attr {
    let content = node.content();
    let (kind, nlink) = match content.shape {
        Shape::File => (Kind::File, node.links()),
        Shape::Directory if node.links() == 0 => (Kind::Directory, 0),
        Shape::Directory => (Kind::Directory, 2 + content.entries().directories()),
        Shape::Symlink(_) => (Kind::Symlink, node.links()),
    };
    Attr {
        ino: NodeId::Claim(ino),
        kind,
        mode: content.mode,
        nlink,
        uid: content.uid,
        gid: content.gid,
        size: content.size(),
        atime: content.atime,
        mtime: content.mtime,
        ctime: content.ctime,
    }
}
