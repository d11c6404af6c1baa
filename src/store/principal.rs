//! Who asks: the kernel's caller and, resolved, the principal.
//!
//! Does not know: what is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::core::identity::Ancestry;
use crate::core::{Asker, NOWHERE, Process, Refusal, RemoteSession, SessionId};
use crate::handoff::{AGAIN, Key, Sent};

/// The caller of a request, as the kernel describes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// The thread. 0 if it is in a pid namespace that the mount cannot see.
    pub task: u32,
    /// Its uid for files.
    pub uid: u32,
    /// Its gid for files.
    pub gid: u32,
    /// The number of the request, as the kernel sent it.
    pub request: u64,
    /// The number of a part of the request, if it asks for several things.
    pub step: u32,
    /// Its arrival, if it is carried out later: the time since boot.
    pub arrived: Option<Duration>,
}

impl Caller {
    pub(super) fn key(self) -> Key {
        Key(self.request & !AGAIN, self.step)
    }

    pub(super) fn is_again(self) -> bool {
        self.request & AGAIN != 0
    }

    pub(super) fn sent(self, lives: u64) -> Sent {
        Sent {
            key: self.key(),
            again: self.is_again(),
            thread: THREAD.with(|number| lives << 16 | number),
        }
    }
}

/// The number of threads that have numbers.
static NUMBERED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static THREAD: u64 = NUMBERED.fetch_add(1, Relaxed);
}

/// The caller of a request, resolved. The processes above it are read before any lock is taken.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    /// The request, if there is one that may be sent again.
    pub(super) caller: Option<Caller>,
    ancestry: Option<Arc<Ancestry>>,
    uid: u32,
    gid: u32,
}

impl Principal {
    /// The principal of a request. It has no ancestry if the mount cannot see the caller.
    pub(crate) fn new(caller: Caller, ancestry: Option<Arc<Ancestry>>) -> Self {
        Self {
            caller: Some(caller),
            ancestry,
            uid: caller.uid,
            gid: caller.gid,
        }
    }

    /// The principal of a command that is carried out after its request was answered.
    pub(crate) fn of_ancestry(ancestry: Arc<Ancestry>) -> Self {
        Self {
            caller: None,
            uid: ancestry.uid(),
            gid: 0,
            ancestry: Some(ancestry),
        }
    }

    /// The caller and the processes above it. EPERM if the mount cannot see the caller.
    pub(crate) fn ancestry(&self) -> Result<&Arc<Ancestry>, Refusal> {
        self.ancestry.as_ref().ok_or(Refusal::NotPermitted)
    }

    /// Its uid for files.
    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    /// Its gid for files.
    pub(crate) fn gid(&self) -> u32 {
        self.gid
    }

    /// The caller's process and those above it, nearest first.
    pub(crate) fn chain(&self) -> Vec<Process> {
        let ancestry = self.ancestry.as_ref();
        ancestry.map_or_else(Vec::new, |ancestry| ancestry.processes())
    }

    /// The caller of a command that depends on its uid and sandbox, not on its session. `chain` is
    /// that of [`Principal::chain`].
    pub(crate) fn asker<'a>(&self, chain: &'a [Process]) -> Asker<'a> {
        let caller = self.ancestry.as_ref().map(|ancestry| ancestry.caller());
        Asker {
            uid: self.uid,
            pidns: caller.map_or(NOWHERE, |caller| caller.pidns),
            chain,
            command: caller.map_or_else(|| Arc::from(""), |caller| Arc::clone(&caller.command)),
        }
    }

    /// The remote session of this id, for which the caller acts.
    pub(crate) fn remote(&self, id: SessionId) -> RemoteSession {
        let pidns = self.ancestry.as_ref();
        RemoteSession {
            id,
            uid: self.uid,
            pidns: pidns.map_or(NOWHERE, |ancestry| ancestry.caller().pidns),
            gid: self.gid,
        }
    }
}
