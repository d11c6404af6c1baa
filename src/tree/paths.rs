//! The files and directories below `paths/`.
//!
//! Promises: a directory is the same for all callers. It is made by mkdir(2) and removed by nobody:
//! it goes once it is empty and unused.
//!
//! Does not know: when a directory goes, and which reservations exclude each other.

use super::attr::claim_attr;
use super::list::{DOTS, Entry};
use super::{Attr, Kind, Tree, hide};
use crate::core::scaffolding::{Scaffolding, TOP};
use crate::core::{Fixed, Name, NodeId, Refusal, SessionId, Token};
use crate::store::{Caller, Spot};

/// The mode of all directories.
const MODE: u16 = 0o1777;

/// The offsets of reservations in a listing come after those of directories.
const FILES: u64 = 1 << 62;

/// The number of a directory of reservations: `paths/` or one below it.
pub(super) fn directory(ino: NodeId) -> Option<u64> {
    match ino {
        NodeId::Fixed(Fixed::Paths) => Some(TOP),
        NodeId::Scaffold(number) => Some(number),
        _ => None,
    }
}

/// The inode of such a directory.
fn node_of(number: u64) -> NodeId {
    if number == TOP {
        NodeId::Fixed(Fixed::Paths)
    } else {
        NodeId::Scaffold(number)
    }
}

impl Tree {
    /// The name of a reservation in a directory of them. `None` if the directory is no such one.
    pub(super) fn path_in(&self, dir: NodeId, label: &[u8]) -> Option<Result<Name, Refusal>> {
        let dir = directory(dir)?;
        let name = |all: &Scaffolding| all.name(dir, label);
        Some(self.store.scaffolding(name))
    }

    /// The attributes of a directory. ESTALE if it is gone.
    pub(super) fn directory_attr(&self, dir: u64) -> Result<Attr, Refusal> {
        let inside = self.store.scaffolding(|all| all.directories(dir));
        Ok(self.scaffold(dir, inside.ok_or(Refusal::Lost)?))
    }

    fn scaffold(&self, dir: u64, inside: usize) -> Attr {
        Attr {
            kind: Kind::Directory,
            nlink: u32::try_from(inside).unwrap_or(u32::MAX).saturating_add(2),
            ..self.virtual_file(node_of(dir), MODE)
        }
    }

    /// The node of a name in a directory.
    pub(super) fn look_up_path(&self, dir: u64, label: &[u8]) -> Result<Attr, Refusal> {
        let show = |spot: Spot| match spot {
            Spot::Directory(dir, inside) => self.scaffold(dir, inside),
            Spot::Reservation(lease, inode) => claim_attr(lease, inode),
        };
        self.store.look_up(dir, label, show).map_err(hide)
    }

    /// Makes a directory, or finds it again if the request is sent again.
    pub(super) fn make_directory(
        &self,
        caller: Caller,
        dir: u64,
        label: &[u8],
    ) -> Result<Attr, Refusal> {
        let made = self.store.make_directory(caller, dir, label)?;
        self.directory_attr(made)
    }

    /// Checks that a name is not that of a directory, which no call removes: EBUSY for rmdir(2),
    /// EISDIR for unlink(2).
    pub(super) fn check_no_directory(
        &self,
        dir: NodeId,
        label: &[u8],
        by_rmdir: bool,
    ) -> Result<(), Refusal> {
        let Some(dir) = directory(dir) else {
            return Ok(());
        };
        let label = str::from_utf8(label).unwrap_or_default();
        match self.store.scaffolding(|all| all.get(dir, label)) {
            None => Ok(()),
            Some(_) if by_rmdir => Err(Refusal::Busy),
            Some(_) => Err(Refusal::IsDirectory),
        }
    }

    /// Lists a directory: the directories in it, then the reservations.
    pub(super) fn list_paths(&self, dir: u64, after: u64, mut emit: impl FnMut(Entry) -> bool) {
        if after < FILES {
            let all = self.store.scaffolding(|all| {
                let dirs = all.dirs_after(dir, after);
                let dirs = dirs.map(|(number, name)| {
                    let inside = all.directories(number).unwrap_or_default();
                    (number, String::from(name), inside)
                });
                dirs.take(LISTED).collect::<Vec<_>>()
            });
            let is_whole = all.len() < LISTED;
            for (number, name, inside) in all {
                let entry = Entry {
                    name: name.as_bytes(),
                    offset: number + DOTS,
                    attr: self.scaffold(number, inside),
                };
                if !emit(entry) {
                    return;
                }
            }
            if !is_whole {
                return;
            }
        }
        let after = Token(after.saturating_sub(FILES));
        self.store
            .reservations(dir, after, |_, name, lease, inode| {
                let path = name.as_path().unwrap_or_default();
                let label = path.rsplit('/').next().unwrap_or_default();
                emit(Entry {
                    name: label.as_bytes(),
                    offset: FILES + lease.token.0 + DOTS,
                    attr: claim_attr(lease, inode),
                })
            });
    }

    /// The directory above a directory.
    pub(super) fn above_directory(&self, dir: u64) -> NodeId {
        if dir == TOP {
            return NodeId::ROOT;
        }
        let up = self.store.scaffolding(|all| all.up(dir));
        node_of(up.unwrap_or(TOP))
    }

    /// Gives all reservations in a directory, and in those below it, to another session.
    pub(super) fn give_directory(
        &self,
        caller: Caller,
        dir: u64,
        to: SessionId,
    ) -> Result<(), Refusal> {
        let path = self.store.scaffolding(|all| all.path(dir));
        let path = Name::path(path.ok_or(Refusal::Lost)?.as_bytes());
        self.give_below(caller, path.map_err(|_| Refusal::Unsupported)?, to)
    }
}

/// So many directories are listed before the store is unlocked for others.
const LISTED: usize = 256;
