//! Events: the one type that the table applies, a journal records and readers of `events` see.
//!
//! Does not know: the rules that decide an event, or how one is recorded.

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::core::wire;

use super::table::NUMBER_MAX;
use super::{
    Binding, Change, Creation, Deadline, FIRST_INO, INO_END, Ino, KEY_END, Label, Name, Process,
    Root, Rule, SessionId, SessionKey, Token, WAITER_END, WaiterId,
};

/// The reason why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// All of its roots are proven dead. Its leases are reaped.
    Died,
    /// It removed `sessions/ID`, or its uid or root ended it. Its leases are released.
    Ended,
    /// It had no processes, and its deadline passed. Its leases expire.
    Lapsed,
}

/// Who ended a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedBy {
    /// The uid.
    pub uid: u32,
    /// The pid of the process.
    pub pid: u32,
    /// Its command name.
    pub command: Arc<str>,
}

/// An event: a record of the journal, a line of `events`, a step of the model in the tests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number; the next event has the next number.
    pub seq: u64,
    /// The time of the decision, by the wall clock.
    #[serde(with = "wire::moment")]
    pub at: SystemTime,
    /// The content.
    pub what: What,
}

impl Event {
    /// True if every number in it is in the range of its kind.
    pub fn has_valid_numbers(&self) -> bool {
        let is_ino = |ino: &Ino| (FIRST_INO..INO_END).contains(&ino.0);
        let of_its_kind = match &self.what {
            What::SessionStarted { key, .. } => key.0 < KEY_END,
            What::Claimed { token, ino, .. } | What::Handed { token, ino, .. } => {
                token.0 < NUMBER_MAX && is_ino(ino)
            }
            What::Queued { waiter, .. } | What::Granted { waiter, .. } => waiter.0 < WAITER_END,
            What::Linked { ino, .. } => is_ino(ino),
            _ => true,
        };
        self.seq < NUMBER_MAX && of_its_kind
    }
}

/// The largest size in bytes of a record that frees a name, without the name itself.
const FREEING: u64 = 224;

/// The effect of an event on the space to reserve for the records that will free everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceDelta {
    /// The bytes of the records that will undo it.
    pub adds: u64,
    /// The bytes that were reserved for it.
    pub frees: u64,
    /// It only cleans up and is rare, so that a fixed reserve is enough.
    pub is_small: bool,
}

/// The losses that an event must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// None but that of the server: it means nothing after a reboot.
    Boot,
    /// A loss of power.
    Power,
    /// A loss of power, but an older event is enough, since each deadline starts again at a boot.
    Renewal,
}

impl Event {
    /// The bytes of the records that free all names, sessions, roots and waiters of a table.
    pub fn space_to_free<'a>(
        names: impl Iterator<Item = &'a Name>,
        sessions: usize,
        roots: usize,
        waiters: usize,
    ) -> u64 {
        // A root that exits may take two records: its leases pass, and it leaves.
        let people = sessions + 2 * roots + 2 * waiters;
        names.map(space_of).sum::<u64>() + people as u64 * FREEING
    }

    /// See [`SpaceDelta`].
    pub fn space_delta(&self) -> SpaceDelta {
        let (adds, frees) = match &self.what {
            What::Claimed { name, .. } => (space_of(name), 0),
            What::Released { name, .. }
            | What::Reaped { name, .. }
            | What::Expired { name, .. }
            | What::Broken { name, .. } => (0, space_of(name)),
            What::SessionStarted { .. } => (FREEING, 0),
            What::SessionEnded { .. } => (0, FREEING),
            What::Queued { .. } | What::Joined { .. } => (2 * FREEING, 0),
            What::LeftQueue { .. } | What::Accepted { .. } | What::Left { .. } => (0, 2 * FREEING),
            What::Passed { .. }
            | What::Prolonged { .. }
            | What::Handed { .. }
            | What::Granted { .. }
            | What::Altered { .. }
            | What::Linked { .. }
            | What::Unlinked { .. }
            | What::Bound { .. }
            | What::Limited { .. }
            | What::Forgotten { .. } => (0, 0),
        };
        let is_small = matches!(self.what, What::Forgotten { .. } | What::Unlinked { .. });
        SpaceDelta {
            adds,
            frees,
            is_small,
        }
    }

    /// See [`Durability`].
    pub fn durability(&self) -> Durability {
        match self.what {
            What::Prolonged { renews: true, .. } => Durability::Renewal,
            What::Prolonged { .. } => Durability::Power,
            _ => Durability::Boot,
        }
    }

    /// The token that it grants.
    pub fn token(&self) -> Option<Token> {
        match &self.what {
            What::Claimed { token, .. } | What::Handed { token, .. } => Some(*token),
            _ => None,
        }
    }

    /// The process that something depends on from now on, with its [`Root::environ`] or 0.
    pub fn dependence(&self) -> Option<(&Process, u64)> {
        match &self.what {
            What::Joined { root, .. } => Some((&root.process, root.environ)),
            What::Bound { binding, .. } => Some((&binding.process, 0)),
            // The heir, and a maker, are roots already.
            What::Passed { .. }
            | What::Claimed { .. }
            | What::SessionStarted { .. }
            | What::Left { .. }
            | What::Prolonged { .. }
            | What::SessionEnded { .. }
            | What::Handed { .. }
            | What::Released { .. }
            | What::Reaped { .. }
            | What::Expired { .. }
            | What::Broken { .. }
            | What::Queued { .. }
            | What::Granted { .. }
            | What::Accepted { .. }
            | What::LeftQueue { .. }
            | What::Altered { .. }
            | What::Linked { .. }
            | What::Unlinked { .. }
            | What::Limited { .. }
            | What::Forgotten { .. } => None,
        }
    }

    /// The session that gets a name from its holder.
    pub fn receiver(&self) -> Option<SessionKey> {
        match &self.what {
            What::Handed { key, .. } => Some(*key),
            _ => None,
        }
    }

    /// The waiter that gets a name.
    pub fn granted_waiter(&self) -> Option<WaiterId> {
        match &self.what {
            What::Granted { waiter, .. } => Some(*waiter),
            _ => None,
        }
    }
}

/// The largest size in bytes of the record that frees a name. JSON writes control characters,
/// quotes and backslashes in up to six.
fn space_of(name: &Name) -> u64 {
    let text = name.as_str();
    let is_escaped = |c: char| c.is_control() || matches!(c, '"' | '\\');
    let length = if text.is_ascii() {
        let bytes = text.bytes();
        text.len() + 5 * bytes.filter(|byte| is_escaped(char::from(*byte))).count()
    } else {
        let chars = text.chars();
        chars
            .map(|c| if is_escaped(c) { 6 } else { c.len_utf8() })
            .sum()
    };
    FREEING + length as u64
}

/// The content of an event.
///
/// Journals have these names, and those of the fields, so they stay; a claimfs of before refuses a
/// journal with a new one. A new one concerns `apply` (the compiler says where), the rest of this
/// file, [`super::Outcome`], the effects, `freed` in the queues, the quotas, and for people
/// `render`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// A session began.
    SessionStarted {
        /// Its key.
        key: SessionKey,
        /// Its id.
        id: SessionId,
        /// Its uid.
        uid: u32,
        /// Its pid namespace.
        pidns: u64,
        /// The rule that made it.
        rule: Rule,
    },
    /// A process became a root of a session, or was registered as one.
    Joined {
        /// The session.
        key: SessionKey,
        /// The process.
        root: Root,
    },
    /// All leases of a session that a process held under process scope passed to the process above
    /// it.
    Passed {
        /// The session.
        key: SessionKey,
        /// The process that has exited.
        from: Process,
        /// The process above it.
        to: Process,
        /// The exit code, if it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit: Option<u8>,
    },
    /// A root died. Its remaining leases are free from now on, although each gets its own event.
    Left {
        /// The session.
        key: SessionKey,
        /// The process.
        process: Process,
        /// The signal that killed it. If there is one, nothing passes through it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        killed: Option<u8>,
    },
    /// A session without processes got another deadline.
    Prolonged {
        /// The session.
        key: SessionKey,
        /// The deadline.
        deadline: Deadline,
        /// True if its time to live is not longer than before.
        #[serde(default)]
        renews: bool,
    },
    /// A session is over. Its leases are free from now on, although each gets its own event.
    SessionEnded {
        /// The session.
        key: SessionKey,
        /// The reason.
        why: End,
        /// Who ended it, if somebody did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Arc<EndedBy>>,
    },
    /// A name was granted.
    Claimed {
        /// The name.
        name: Name,
        /// Its token.
        token: Token,
        /// The holder.
        key: SessionKey,
        /// The inode behind the name.
        ino: Ino,
        /// The first state of a new inode. `None` if the inode has a name already.
        created: Option<Creation>,
        /// The pid of the process that claimed it.
        pid: u32,
        /// Its command name.
        command: Arc<str>,
        /// Under process scope, the process that holds the new inode.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        maker: Option<Process>,
    },
    /// A name was given up by its holder.
    Released {
        /// The name.
        name: Name,
        /// Its token.
        token: Token,
    },
    /// A name was taken from a dead holder.
    Reaped {
        /// The name.
        name: Name,
        /// Its token.
        token: Token,
        /// The signal that killed the process that held it, if one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<u8>,
    },
    /// A name was taken because its deadline had passed.
    Expired {
        /// The name.
        name: Name,
        /// Its token.
        token: Token,
    },
    /// A name was granted to another session by its holder.
    Handed {
        /// The name.
        name: Name,
        /// Its token before.
        was: Token,
        /// Its token from now on.
        token: Token,
        /// The giver.
        from: SessionKey,
        /// The new holder.
        key: SessionKey,
        /// The inode under its new number. The descriptors of the giver are lost.
        ino: Ino,
        /// The pid of a process of the new holder.
        pid: u32,
        /// Its command name.
        command: Arc<str>,
    },
    /// A name was taken from a living holder.
    Broken {
        /// The name.
        name: Name,
        /// Its token.
        token: Token,
        /// The uid that did it.
        uid: u32,
        /// The pid of the process that did it.
        pid: u32,
        /// Its command name.
        command: Arc<str>,
    },
    /// A waiter joined the queue for a name.
    Queued {
        /// The name.
        name: Name,
        /// The waiter.
        waiter: WaiterId,
        /// Its session.
        key: SessionKey,
        /// The first state of its claim.
        creation: Creation,
        /// The pid of the process that waits.
        pid: u32,
        /// Its command name.
        command: Arc<str>,
        /// Under process scope, the process that will hold the claim.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        maker: Option<Process>,
    },
    /// A name that was just claimed is the waiter's, which has not read this yet.
    Granted {
        /// The name.
        name: Name,
        /// The waiter.
        waiter: WaiterId,
        /// Its token.
        token: Token,
    },
    /// The waiter has read its grant.
    Accepted {
        /// The waiter.
        waiter: WaiterId,
    },
    /// The waiter left the queue, or closed its file before it read its grant.
    // The name in journals.
    #[serde(rename = "LeftLine")]
    LeftQueue {
        /// The waiter.
        waiter: WaiterId,
    },
    /// The content of an inode changed.
    Altered {
        /// The inode.
        ino: Ino,
        /// The change.
        change: Change,
    },
    /// A process holds an inode from now on.
    Bound {
        /// The inode.
        ino: Ino,
        /// The process, and what happens when it exits.
        binding: Binding,
    },
    /// The deadline of an inode changed.
    Limited {
        /// The inode.
        ino: Ino,
        /// The deadline. `None` if it has none any more.
        deadline: Option<Deadline>,
    },
    /// An entry was added inside a directory claim.
    Linked {
        /// The directory.
        dir: Ino,
        /// The name.
        label: Label,
        /// The inode behind it.
        ino: Ino,
        /// The first state of a new inode. `None` if the inode has a name already, or had one in
        /// the same decision.
        created: Option<Creation>,
    },
    /// An entry inside a directory claim was removed.
    Unlinked {
        /// The directory.
        dir: Ino,
        /// The name.
        label: Label,
    },
    /// An inode without a name was closed.
    Forgotten {
        /// The inode.
        ino: Ino,
    },
}
