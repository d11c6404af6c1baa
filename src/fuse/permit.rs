//! The uid rules, as any filesystem has them: mode bits, ownership, the sticky bit. They come before the rules of leases,
//! and know nothing of them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use fuser::{INodeNo, OpenAccMode, OpenFlags};

use super::ClaimFs;
use super::convert::node;
use crate::core::Refusal;
use crate::store::Caller;
use crate::tree::{Attr, Kind, Tree};

pub(super) const READ: u8 = 4;
pub(super) const WRITE: u8 = 2;
pub(super) const EXECUTE: u8 = 1;

impl ClaimFs {
    /// The node, if its mode lets the caller do what `wants` says: EACCES otherwise.
    pub(super) fn permit(&self, caller: Caller, ino: INodeNo, wants: u8) -> Result<Attr, Refusal> {
        let attr = self.tree.attr(node(ino)?)?;
        if permits(&attr, caller, wants) {
            Ok(attr)
        } else {
            Err(Refusal::Denied)
        }
    }

    /// What the sticky bit of a directory says: only the owner of a file or of the directory removes it, EPERM
    /// otherwise. The kernel leaves this to us, as it does all that `default_permissions` stands for.
    pub(super) fn permit_removal(
        &self,
        caller: Caller,
        parent: INodeNo,
        name: &OsStr,
    ) -> Result<(), Refusal> {
        let parent = node(parent)?;
        if !Tree::is_sticky(parent) {
            return Ok(());
        }
        let dir = self.tree.attr(parent)?;
        if dir.mode & 0o1000 == 0 || owns(&dir, caller).is_ok() {
            return Ok(());
        }
        match self.tree.lookup(parent, name.as_bytes()) {
            Ok(attr) => owns(&attr, caller),
            Err(_) => Ok(()),
        }
    }
}

/// The mode bits, as any filesystem reads them: root may all, but execute what nobody may.
pub(super) fn permits(attr: &Attr, caller: Caller, wants: u8) -> bool {
    let bits = |shift: u16| u8::try_from(attr.mode >> shift & 7).unwrap_or(0);
    if caller.uid == 0 {
        let executable = attr.kind == Kind::Directory || attr.mode & 0o111 != 0;
        return wants & EXECUTE == 0 || executable;
    }
    let granted = match caller {
        Caller { uid, .. } if uid == attr.uid => bits(6),
        Caller { gid, .. } if gid == attr.gid => bits(3),
        _ => bits(0),
    };
    wants & !granted == 0
}

/// Only the owner and root may set what a node is, not what is in it: EPERM.
pub(super) fn owns(attr: &Attr, caller: Caller) -> Result<(), Refusal> {
    if caller.uid == attr.uid || caller.uid == 0 {
        Ok(())
    } else {
        Err(Refusal::NotPermitted)
    }
}

/// What an open(2) with these flags wants to do.
pub(super) fn wants(flags: OpenFlags) -> u8 {
    let mode = match flags.acc_mode() {
        OpenAccMode::O_RDONLY => READ,
        OpenAccMode::O_WRONLY => WRITE,
        OpenAccMode::O_RDWR => READ | WRITE,
    };
    if flags.0 & libc::O_TRUNC == 0 {
        mode
    } else {
        mode | WRITE
    }
}
