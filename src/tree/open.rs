//! Opening and closing files.
//!
//! Promises: the store counts each open and each close of a claim's inode. A claim that was created
//! for a kernel lock, which is refused, is released when its last writer closes it, unless
//! something was written to it.
//!
//! Does not know: what is read or written.

use std::sync::atomic::Ordering::Relaxed;

use super::attr::node_attr;
use super::{Attr, Tree, guard};
use crate::core::{Creation, Fixed, Ino, NodeId, Refusal, SessionId, Shape};
use crate::store::Caller;

/// An open descriptor, as the reply to the kernel describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    /// Its number.
    pub fh: NodeId,
    /// The kind of its file.
    pub opened: Opened,
}

impl Handle {
    /// A descriptor of a claim or of an entry of one. Its handle is its inode number.
    pub(super) fn of_claim(ino: NodeId) -> Self {
        Self {
            fh: ino,
            opened: Opened::Claim,
        }
    }
}

/// The kind of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// A claim. It needs no FLUSH at each close.
    Claim,
    /// A text that is rendered for the descriptor, or that is written to it; or `events`.
    Text,
    /// A file in `queue/`, which has no positions.
    Stream,
}

/// A claim that was created by open(2), and that nothing was written to.
pub(super) struct Unwritten {
    /// The number of descriptors that may write to it.
    writers: usize,
    /// A kernel lock on it was refused, so its creator takes it for another kind of file.
    lock_refused: bool,
}

impl Tree {
    /// Creates a file: a claim, or a registration in `sessions/`.
    pub(crate) fn create(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &[u8],
        mode: u16,
        exclusive: bool,
        truncate: bool,
    ) -> Result<(Attr, Handle), Refusal> {
        if parent == NodeId::Fixed(Fixed::Sessions) {
            let id = SessionId::new(name)?;
            if exclusive && self.session(&id, |_, _| ()).is_some() {
                return Err(Refusal::Exists);
            }
            let handle = self.registration(caller, id, exclusive, false)?;
            return Ok((self.attr(handle.fh)?, handle));
        }
        let creation = Creation {
            shape: Shape::File,
            mode,
            uid: caller.uid,
            gid: caller.gid,
        };
        let place = self.place(parent, name)?;
        let flags = (exclusive, truncate);
        let who = self.store.principal(caller)?;
        self.store
            .create(&who, place, creation, flags, |ino, node, is_new| {
                if is_new && node.child.is_none() {
                    let unwritten = Unwritten {
                        writers: 1,
                        lock_refused: false,
                    };
                    guard(&self.unwritten).insert(ino, unwritten);
                }
                (node_attr(ino, node), Handle::of_claim(NodeId::Claim(ino)))
            })
    }

    /// Opens a file. Its mode was checked before.
    pub(crate) fn open(
        &self,
        caller: Caller,
        ino: NodeId,
        write: bool,
        truncate: bool,
    ) -> Result<Handle, Refusal> {
        let fixed = match ino {
            NodeId::Claim(ino) => return self.open_claim(caller, ino, write, truncate),
            NodeId::Session(_) if write || truncate => {
                let id = self
                    .session_file(ino, |session| session.id.clone())
                    .ok_or(Refusal::Lost)?;
                // Opening a live session and writing nothing changes nothing, as touch(1) does.
                return self.registration(caller, id, false, true);
            }
            // Root passes every mode, but nobody writes to these.
            NodeId::QueueFile(_) if write => return Err(Refusal::Denied),
            NodeId::QueueFile(_) => return self.open_queue(caller, ino),
            NodeId::Scaffold(_) => return Err(Refusal::IsDirectory),
            NodeId::Fixed(fixed) => fixed,
            _ => return Ok(self.text()),
        };
        match fixed {
            Fixed::Root | Fixed::Claims | Fixed::Sessions | Fixed::Queue | Fixed::Paths => {
                Err(Refusal::IsDirectory)
            }
            Fixed::Control => Ok(self.text()),
            _ if write => Err(Refusal::Denied),
            Fixed::Events => Ok(self.open_events(caller)),
            _ => Ok(self.text()),
        }
    }

    fn open_claim(
        &self,
        caller: Caller,
        ino: Ino,
        write: bool,
        truncate: bool,
    ) -> Result<Handle, Refusal> {
        if write || truncate {
            let who = self.store.principal(caller)?;
            self.store.open_to_write(&who, ino, truncate)?;
        } else {
            self.store.open_to_read(ino)?;
        }
        // A reader may be shown the record, which changes by itself: its handle has a snapshot.
        let fh = if write {
            NodeId::Claim(ino)
        } else {
            self.text().fh
        };
        if write && let Some(unwritten) = guard(&self.unwritten).get_mut(&ino) {
            unwritten.writers += 1;
        }
        let opened = Opened::Claim;
        Ok(Handle { fh, opened })
    }

    /// Opens a directory. That of a claim exists while it is open, also without a name.
    pub(crate) fn open_directory(&self, ino: NodeId) -> Result<NodeId, Refusal> {
        match ino {
            NodeId::Claim(ino) => self.store.open_to_read(ino)?,
            NodeId::Scaffold(dir) => {
                self.store.open_directory(dir)?;
                // So that the next server knows that it is older.
                return Ok(self.text().fh);
            }
            _ => {}
        }
        Ok(ino)
    }

    /// A handle for a text that is rendered at the first read.
    fn text(&self) -> Handle {
        Handle {
            fh: NodeId::Text(self.next_handle.fetch_add(1, Relaxed)),
            opened: Opened::Text,
        }
    }

    /// Closes a descriptor that may have written to a claim.
    fn close_unwritten(&self, ino: Ino) {
        let mut all = guard(&self.unwritten);
        let Some(unwritten) = all.get_mut(&ino) else {
            return;
        };
        unwritten.writers = unwritten.writers.saturating_sub(1);
        if unwritten.writers == 0 {
            let withdraws = unwritten.lock_refused;
            all.remove(&ino);
            drop(all);
            if withdraws {
                self.store.withdraw(ino);
            }
        }
    }

    /// Closes a descriptor: the kernel has no copy of it left.
    pub(crate) fn release(&self, caller: Caller, ino: NodeId, fh: NodeId) {
        if self.spool.has(fh) || self.is_older(fh) {
            self.spool.forget(fh);
        }
        if let NodeId::Claim(ino) = ino {
            if fh == NodeId::Claim(ino) {
                self.close_unwritten(ino);
            }
            self.store.close(ino);
        }
        if let NodeId::Scaffold(dir) = ino {
            self.store.close_directory(dir, self.is_older(fh));
        }
        match fh {
            NodeId::Text(_) => guard(&self.kept).close(fh),
            NodeId::Registration(_) => self.close_registration(caller, fh),
            fh if fh.is_stream() => self.close_stream(fh),
            _ => {}
        }
    }

    /// Notes that a kernel lock on a file was refused. If the file was created for it and nothing
    /// is written to it, its claim is released when it is closed. Otherwise it would exclude others
    /// as long as its session lives, and nobody would know why.
    pub(crate) fn lock_refused(&self, ino: NodeId) {
        if let NodeId::Claim(ino) = ino
            && let Some(unwritten) = guard(&self.unwritten).get_mut(&ino)
        {
            unwritten.lock_refused = true;
        }
    }
}
