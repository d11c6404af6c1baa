//! The uid rules of any filesystem: mode bits, ownership, the sticky bit. The mount has no
//! `default_permissions`, so the kernel checks none of them.
//!
//! Promises: a check depends on the attributes of nodes and on the caller's uid and gid only.
//!
//! Does not know: leases and sessions. Their rules come after these.

use super::{Attr, Kind, Tree};
use crate::core::{Fixed, NodeId, Refusal};
use crate::store::Caller;

/// The permission bits of access(2).
pub(crate) const READ: u8 = 4;
/// See [`READ`].
pub(crate) const WRITE: u8 = 2;
/// See [`READ`].
pub(crate) const EXECUTE: u8 = 1;

/// The sticky bit of a directory's mode.
const STICKY: u16 = 0o1000;

/// The times that a setattr sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    /// None.
    Kept,
    /// All that it sets, to the present.
    Now,
    /// At least one to a given time.
    Given,
}

/// A setattr, as far as permissions depend on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttrChange {
    /// It sets the mode.
    pub mode: bool,
    /// It sets the size, and not through a descriptor that is open for writing.
    pub size: bool,
    /// The times that it sets.
    pub times: Times,
    /// The owner that it sets.
    pub uid: Option<u32>,
    /// The group that it sets.
    pub gid: Option<u32>,
}

impl Tree {
    /// The attributes of a node whose mode lets the caller do what `wants` says. EACCES if not.
    pub(crate) fn permit(&self, caller: Caller, ino: NodeId, wants: u8) -> Result<Attr, Refusal> {
        let attr = self.attr(ino)?;
        permits(&attr, caller, wants)?;
        Ok(attr)
    }

    /// Checks that the caller may create and remove names in a directory, as far as its mode says.
    pub(crate) fn permit_entry(&self, caller: Caller, parent: NodeId) -> Result<(), Refusal> {
        self.permit(caller, parent, WRITE | EXECUTE)?;
        Ok(())
    }

    /// Checks that the caller may remove a name: also the sticky bit of the directory, which leaves
    /// this to the owners of the file and of the directory (EPERM).
    pub(crate) fn permit_removal(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &[u8],
    ) -> Result<(), Refusal> {
        // In `sessions/` the session of the caller decides.
        if parent == NodeId::Fixed(Fixed::Sessions) {
            return Ok(());
        }
        let dir = self.attr(parent)?;
        if dir.mode & STICKY == 0 || owns(&dir, caller).is_ok() {
            return Ok(());
        }
        match self.lookup(parent, name) {
            // Nobody removes a directory of reservations: EBUSY says so.
            Ok(attr) if matches!(attr.ino, NodeId::Scaffold(_)) => Ok(()),
            Ok(attr) => owns(&attr, caller),
            Err(_) => Ok(()),
        }
    }

    /// Checks that the caller may change these attributes of a node.
    pub(crate) fn permit_change(
        &self,
        caller: Caller,
        ino: NodeId,
        change: AttrChange,
    ) -> Result<(), Refusal> {
        let attr = self.attr(ino)?;
        // A directory of reservations has no owner. Its mode and its times stay as they are.
        if let NodeId::Scaffold(_) = ino {
            let (mode, times) = (false, Times::Kept);
            return may_change(
                &attr,
                caller,
                AttrChange {
                    mode,
                    times,
                    ..change
                },
            );
        }
        may_change(&attr, caller, change)
    }
}

/// EACCES if the mode does not let the caller do what `wants` says. Root may do everything, but
/// execute only what somebody may.
fn permits(attr: &Attr, caller: Caller, wants: u8) -> Result<(), Refusal> {
    let bits = |shift: u16| u8::try_from(attr.mode >> shift & 7).unwrap_or(0);
    let is_executable = attr.kind == Kind::Directory || attr.mode & 0o111 != 0;
    let granted = match caller {
        Caller { uid: 0, .. } if is_executable => READ | WRITE | EXECUTE,
        Caller { uid: 0, .. } => READ | WRITE,
        Caller { uid, .. } if uid == attr.uid => bits(6),
        Caller { gid, .. } if gid == attr.gid => bits(3),
        _ => bits(0),
    };
    if wants & !granted == 0 {
        Ok(())
    } else {
        Err(Refusal::Denied)
    }
}

/// EPERM if the caller is neither the owner nor root.
fn owns(attr: &Attr, caller: Caller) -> Result<(), Refusal> {
    if caller.uid == attr.uid || caller.uid == 0 {
        Ok(())
    } else {
        Err(Refusal::NotPermitted)
    }
}

/// The owner alone sets the mode, and times other than the present. Those who may write set the
/// size, and the times to the present. Nobody sets the owner: that of a claim is its holder's uid.
fn may_change(attr: &Attr, caller: Caller, change: AttrChange) -> Result<(), Refusal> {
    if change.mode || change.times == Times::Given {
        owns(attr, caller)?;
    }
    if change.size || change.times == Times::Now && caller.uid != attr.uid {
        permits(attr, caller, WRITE)?;
    }
    let is_other = |wanted: Option<u32>, own| wanted.is_some_and(|wanted| wanted != own);
    if is_other(change.uid, attr.uid) || is_other(change.gid, attr.gid) {
        return Err(Refusal::NotPermitted);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::{AttrChange, EXECUTE, READ, Times, WRITE, may_change, owns, permits};
    use crate::core::{Ino, NodeId, Refusal};
    use crate::store::Caller;
    use crate::tree::{Attr, Kind};

    const KEPT: AttrChange = AttrChange {
        mode: false,
        size: false,
        times: Times::Kept,
        uid: None,
        gid: None,
    };

    fn file(mode: u16) -> Attr {
        let time = SystemTime::UNIX_EPOCH;
        Attr {
            ino: NodeId::Claim(Ino(1)),
            kind: Kind::File,
            mode,
            nlink: 1,
            uid: 10,
            gid: 20,
            size: 0,
            atime: time,
            mtime: time,
            ctime: time,
        }
    }

    fn caller(uid: u32, gid: u32) -> Caller {
        Caller {
            task: 1,
            uid,
            gid,
            request: 1,
            step: 0,
            arrived: None,
        }
    }

    #[test]
    fn the_first_class_that_fits_the_caller_decides() {
        let attr = file(0o264);
        let check = |uid, gid, wants| permits(&attr, caller(uid, gid), wants);
        assert_eq!(check(10, 20, WRITE), Ok(()));
        assert_eq!(check(10, 20, READ), Err(Refusal::Denied));
        assert_eq!(check(11, 20, READ | WRITE), Ok(()));
        assert_eq!(check(11, 21, READ), Ok(()));
        assert_eq!(check(11, 21, READ | WRITE), Err(Refusal::Denied));
    }

    #[test]
    fn root_may_do_all_but_execute_what_nobody_may() {
        let root = caller(0, 0);
        assert_eq!(permits(&file(0), root, READ | WRITE), Ok(()));
        assert_eq!(permits(&file(0o666), root, EXECUTE), Err(Refusal::Denied));
        assert_eq!(permits(&file(0o001), root, EXECUTE), Ok(()));
        let directory = Attr {
            kind: Kind::Directory,
            ..file(0)
        };
        assert_eq!(permits(&directory, root, EXECUTE), Ok(()));
    }

    #[test]
    fn only_owner_and_root_set_the_mode_and_given_times() {
        let attr = file(0o666);
        let other = caller(11, 21);
        assert_eq!(owns(&attr, caller(10, 0)), Ok(()));
        assert_eq!(owns(&attr, caller(0, 0)), Ok(()));
        let mode = AttrChange { mode: true, ..KEPT };
        let times = |times| AttrChange { times, ..KEPT };
        assert_eq!(may_change(&attr, other, mode), Err(Refusal::NotPermitted));
        let given = may_change(&attr, other, times(Times::Given));
        assert_eq!(given, Err(Refusal::NotPermitted));
        assert_eq!(may_change(&attr, other, times(Times::Now)), Ok(()));
        let now = may_change(&file(0o600), other, times(Times::Now));
        assert_eq!(now, Err(Refusal::Denied));
    }

    #[test]
    fn nobody_gives_a_file_away() {
        let given = |uid| AttrChange { uid, ..KEPT };
        let attr = file(0o644);
        assert_eq!(may_change(&attr, caller(10, 20), given(Some(10))), Ok(()));
        for uid in [0, 10] {
            let changed = may_change(&attr, caller(uid, 20), given(Some(11)));
            assert_eq!(changed, Err(Refusal::NotPermitted));
        }
    }
}
