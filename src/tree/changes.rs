//! Changes of names and of attributes. Each becomes one command for the store.
//!
//! Does not know: who may do what. The uid rules were checked before, and the store has all others.

use std::time::Duration;

use super::{Attr, Tree, hide, paths};
use crate::core::{
    Attributes, Change, Command, Creation, Fixed, Ino, Name, NodeId, Refusal, SessionId, Shape,
    Token,
};
use crate::store::{Caller, Principal};

impl Tree {
    /// Sets size, mode and times, each if given.
    pub(crate) fn set_attr(
        &self,
        caller: Caller,
        ino: NodeId,
        size: Option<u64>,
        attributes: Attributes,
    ) -> Result<Attr, Refusal> {
        match ino {
            NodeId::Claim(ino) => {
                let size = size.map(|size| Change::Resize { size });
                let rest = Some(Change::Attributes(attributes))
                    .filter(|_| attributes != Attributes::default());
                for (step, change) in (0..).zip([size, rest]) {
                    let caller = Caller { step, ..caller };
                    if let Some(change) = change
                        && self.outcome(caller).is_none()
                    {
                        self.alter(caller, ino, change)?;
                    }
                }
            }
            // Directories of reservations are the same for all: their modes and times stay.
            NodeId::Scaffold(_) => {}
            // `touch sessions/w1` registers, and gets an error if it cannot.
            NodeId::Registration(_) if attributes.mtime.is_some() => {
                if self.outcome(caller).is_none() {
                    self.register(ino, b"", Some(caller))?;
                }
            }
            // `> sessions/w1` and `> control` truncate files that have no size.
            _ if attributes.mode.is_none() => {}
            _ => return Err(Refusal::NotPermitted),
        }
        self.attr(ino)
    }

    /// Removes a file, or a directory by rmdir(2): releases a claim, or ends a session.
    pub(crate) fn remove(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &[u8],
        directory: bool,
    ) -> Result<(), Refusal> {
        match parent {
            NodeId::Fixed(Fixed::Sessions) if directory => Err(Refusal::NotDirectory),
            NodeId::Fixed(Fixed::Sessions) => {
                let id = SessionId::new(name).map_err(hide)?;
                self.end_own(caller, id)
            }
            _ => {
                self.check_no_directory(parent, name, directory)?;
                let place = self.place(parent, name).map_err(hide)?;
                self.execute(caller, |by| {
                    let by = by?;
                    Ok(Command::Release {
                        name: place,
                        directory,
                        by,
                    })
                })
            }
        }
    }

    /// Creates a claim or an entry of one without opening it: a file, a directory or a symlink.
    pub(crate) fn make(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &[u8],
        shape: Shape,
        mode: u16,
    ) -> Result<Attr, Refusal> {
        if let Some(dir) = paths::directory(parent).filter(|_| shape == Shape::Directory) {
            return self.make_directory(caller, dir, name);
        }
        let place = self.place(parent, name)?;
        let (uid, gid) = (caller.uid, caller.gid);
        let creation = Creation {
            shape,
            mode,
            uid,
            gid,
        };
        let who = self.store.principal(caller)?;
        let outcome = self.store.execute_as_member(&who, |by| {
            Ok(Command::Claim {
                name: place,
                by: by?,
                creation,
                exclusive: true,
                truncate: false,
            })
        })?;
        self.attr(NodeId::Claim(outcome.ino.ok_or(Refusal::Lost)?))
    }

    /// Gives a file another name, by link(2).
    pub(crate) fn link(
        &self,
        caller: Caller,
        ino: NodeId,
        parent: NodeId,
        name: &[u8],
    ) -> Result<Attr, Refusal> {
        let NodeId::Claim(ino) = ino else {
            return Err(Refusal::NotPermitted);
        };
        let name = self.place(parent, name)?;
        self.execute(caller, |by| {
            let by = by?;
            Ok(Command::Link { ino, name, by })
        })?;
        self.attr(NodeId::Claim(ino))
    }

    /// Swaps two names.
    pub(crate) fn exchange(
        &self,
        caller: Caller,
        (one_parent, one): (NodeId, &[u8]),
        (other_parent, other): (NodeId, &[u8]),
    ) -> Result<(), Refusal> {
        let one = self.place(one_parent, one).map_err(hide)?;
        let other = self.place(other_parent, other).map_err(hide)?;
        self.execute(caller, |by| {
            let by = by?;
            Ok(Command::Exchange { one, other, by })
        })
    }

    /// Renames a claim or an entry of one.
    pub(crate) fn rename(
        &self,
        caller: Caller,
        (from_parent, from): (NodeId, &[u8]),
        (to_parent, to): (NodeId, &[u8]),
        noreplace: bool,
    ) -> Result<(), Refusal> {
        let from = self.place(from_parent, from).map_err(hide)?;
        let to = self.place(to_parent, to)?;
        self.execute(caller, |by| {
            let by = by?;
            Ok(Command::Rename {
                from,
                to,
                noreplace,
                by,
            })
        })
    }

    /// Changes the content of a claim.
    pub(super) fn alter(&self, caller: Caller, ino: Ino, change: Change) -> Result<(), Refusal> {
        self.execute(caller, |by| {
            let by = by?;
            Ok(Command::Alter { ino, by, change })
        })
    }

    /// Sets or removes the deadline of an inode's leases.
    pub(super) fn limit(
        &self,
        caller: Caller,
        ino: Ino,
        ttl: Option<Duration>,
    ) -> Result<(), Refusal> {
        self.execute(caller, |by| {
            let by = by?;
            Ok(Command::Limit { ino, by, ttl })
        })
    }

    /// Gives all names of an inode to another live session.
    pub(super) fn give(&self, caller: Caller, ino: Ino, to: SessionId) -> Result<(), Refusal> {
        self.execute(caller, |by| {
            let by = by?;
            Ok(Command::Give { ino, to, by })
        })
    }

    /// Gives all reservations below a path to another live session.
    pub(super) fn give_below(
        &self,
        caller: Caller,
        path: Name,
        to: SessionId,
    ) -> Result<(), Refusal> {
        self.execute(caller, |by| {
            let by = by?;
            Ok(Command::GiveBelow { path, to, by })
        })
    }

    /// Takes several names for the caller, all or none.
    pub(super) fn take(
        &self,
        caller: Caller,
        names: Vec<Name>,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        let creation = Creation {
            shape: Shape::File,
            mode: 0o644,
            uid: caller.uid,
            gid: caller.gid,
        };
        let who = self.store.principal(caller)?;
        self.store.execute_as_member(&who, |by| {
            Ok(Command::Take {
                names,
                by: by?,
                creation,
                reason,
            })
        })?;
        Ok(())
    }

    /// Gives up several names of the caller, all or none.
    pub(super) fn give_up(&self, caller: Caller, names: Vec<Name>) -> Result<(), Refusal> {
        let who = self.store.principal(caller)?;
        self.store
            .execute_as_member(&who, |by| Ok(Command::Drop { names, by: by? }))?;
        Ok(())
    }

    /// Takes a name from a live holder. The holder's uid and root may. ESTALE if the token is not
    /// that of the lease.
    pub(super) fn break_lease(
        &self,
        caller: Caller,
        name: Name,
        token: Token,
    ) -> Result<(), Refusal> {
        let who = self.store.principal(caller)?;
        // Refuses a caller that the mount cannot see.
        who.ancestry()?;
        let chain = who.chain();
        let by = who.asker(&chain);
        self.store
            .execute(&who, &Command::Break { name, token, by })?;
        Ok(())
    }

    /// Ends the caller's own session by removing its file. EBUSY for any other session.
    fn end_own(&self, caller: Caller, id: SessionId) -> Result<(), Refusal> {
        // A caller whose session is unknown has none.
        let who = self.store.principal(caller);
        let who = who.unwrap_or_else(|_| Principal::new(caller, None));
        self.store
            .execute_as_member(&who, |by| Ok(Command::EndOwn { id, by: by.ok() }))?;
        Ok(())
    }
}
