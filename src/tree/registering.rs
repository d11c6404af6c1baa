//! Files in `sessions/` that are open for writing. A write or a touch registers the session.
//!
//! Promises: a registration that is refused registers nothing.
//!
//! Does not know: which process becomes a root of the session: see [`Ancestry::register`].

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::descriptors::{Descriptor, Registration};
use super::{Handle, Opened, Tree, guard};
use crate::core::identity::Ancestry;
use crate::core::{Command, NodeId, Refusal, SessionId};
use crate::logging::limited;
use crate::store::{Caller, Principal};

/// The longest text that registers a session, in bytes: a pid and white space.
pub(super) const REGISTRATION_MAX: usize = 64;

impl Tree {
    /// Opens a file in `sessions/` for writing. If it is `written` already, closing it registers
    /// nothing.
    pub(super) fn registration(
        &self,
        caller: Caller,
        id: SessionId,
        exclusive: bool,
        written: bool,
    ) -> Result<Handle, Refusal> {
        let ancestry = Arc::clone(self.store.principal(caller)?.ancestry()?);
        let fh = NodeId::Registration(self.next_handle.fetch_add(1, Relaxed));
        let open = Descriptor::Registration(Registration {
            id,
            ancestry,
            written,
            exclusive,
        });
        self.descriptors.open(caller, fh, open);
        Ok(Handle {
            fh,
            opened: Opened::Text,
        })
    }

    /// Registers the session of an open file, for the text that was written to it.
    pub(super) fn register(
        &self,
        fh: NodeId,
        body: &[u8],
        caller: Option<Caller>,
    ) -> Result<(), Refusal> {
        // Also if this is refused, the file was not left empty.
        let open = self.descriptors.update(fh, |open| open.written = true);
        let open = open.ok_or(Refusal::Lost)?;
        self.join(&open.ancestry, open.id, body, open.exclusive, caller)?;
        self.registered(fh);
        Ok(())
    }

    /// Registers a session, or another root of one. [`Ancestry::register`] reads `body`. `caller`
    /// has the request, if it may be sent again.
    fn join(
        &self,
        ancestry: &Arc<Ancestry>,
        id: SessionId,
        body: &[u8],
        exclusive: bool,
        caller: Option<Caller>,
    ) -> Result<(), Refusal> {
        let by = &ancestry.register(id, body)?;
        let ancestry = Arc::clone(ancestry);
        let who = match caller {
            Some(caller) => Principal::new(caller, Some(ancestry)),
            None => Principal::of_ancestry(ancestry),
        };
        self.store.execute(&who, &Command::Join { exclusive, by })?;
        Ok(())
    }

    /// Notes that a descriptor has registered its session. The session that exists is now its own,
    /// so `O_EXCL` no longer refuses it.
    pub(crate) fn registered(&self, fh: NodeId) {
        self.descriptors.update(fh, |open| open.exclusive = false);
    }

    /// Closes a file in `sessions/`. If it was created and left empty, it registers only here:
    /// until now a pid may have followed, since a shell closes a copy of the descriptor before it
    /// writes.
    pub(super) fn close_registration(&self, caller: Caller, fh: NodeId) {
        guard(&self.kept).close(fh);
        self.descriptors.close(fh, |descriptor| {
            if let Descriptor::Registration(open) = descriptor
                && !open.written
                && self.outcome(caller).is_none()
            {
                let (id, exclusive) = (open.id.clone(), open.exclusive);
                let joined = self.join(&open.ancestry, id, b"", exclusive, Some(caller));
                if let Err(refusal) = joined {
                    limited!(
                        Some(caller.uid),
                        log::Level::Warn,
                        "sessions/{}: not registered, since the file was left empty and {refusal:?}",
                        open.id
                    );
                }
            }
        });
    }
}
