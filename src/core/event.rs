//! What happened: the one type that the table applies, a journal records and watchers read.

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::core::wire;

use super::table::NUMBER_MAX;
use super::{
    Binding, Change, Creation, Deadline, FIRST_INO, INO_END, Ino, KEY_END, Label, Name, Process,
    Root, Rule, SessionId, SessionKey, Token, WAITER_END, WaiterId,
};

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// All of its roots are proven dead: what it held is reaped.
    Died,
    /// It removed `sessions/ID`, or its uid or root ended it: what it held is released.
    Ended,
    /// It had no processes, and its deadline has passed: what it held expires.
    Lapsed,
}

/// Something that happened: a line of the journal, a line of `events`, a step of the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number; the next event has the next number.
    pub seq: u64,
    /// The wall clock when it was decided.
    #[serde(with = "wire::moment")]
    pub at: SystemTime,
    /// What happened.
    pub what: What,
}

impl Event {
    /// Whether every number in it is in the range of what it is the number of.
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

/// The bytes of the record that frees one thing, at most, but for the name in it.
const FREEING: u64 = 224;

/// How an event changes the space that the records need which will free everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceDelta {
    /// The bytes of the records that it makes necessary.
    pub adds: u64,
    /// The bytes of the records that are not needed any more, since it is one of them.
    pub frees: u64,
    /// It only clears up and never comes in numbers: a reserve is enough for it.
    pub is_small: bool,
}

/// What must survive of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It means nothing once the processes of this boot are gone.
    Boot,
    /// It must survive a loss of power.
    Power,
    /// The same, but it only renews what has already survived: a deadline begins again at a boot.
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
        // Before a root leaves, what it held may pass.
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
            _ => (0, 0),
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

    /// The process that something depends on from now on, and its exec: see [`Root::environ`].
    pub fn dependence(&self) -> Option<(&Process, u64)> {
        match &self.what {
            What::Joined { root, .. } => Some((&root.process, root.environ)),
            What::Bound { binding, .. } => Some((&binding.process, 0)),
            _ => None,
        }
    }

    /// The session that gets a name without asking for it: from its holder, who gives it.
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

/// The bytes of the record that frees a name. Control characters, quotes and backslashes take six.
fn space_of(name: &Name) -> u64 {
    let escaped = |c: char| {
        if c.is_control() || matches!(c, '"' | '\\') {
            6
        } else {
            c.len_utf8()
        }
    };
    FREEING + name.as_str().chars().map(escaped).sum::<usize>() as u64
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// A session began.
    SessionStarted {
        /// Which of all sessions.
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
        /// Which session.
        key: SessionKey,
        /// Which process.
        root: Root,
    },
    /// All leases of a session that a process held under process scope pass to the process above
    /// it.
    Passed {
        /// Which session.
        key: SessionKey,
        /// The process that has exited.
        from: Process,
        /// The process above it.
        to: Process,
        /// The exit code, if it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit: Option<u8>,
    },
    /// A root died. What it holds still is free from here on, though each lease gets an event of
    /// its own.
    Left {
        /// Which session.
        key: SessionKey,
        /// Which process.
        process: Process,
        /// The signal that killed it: then nothing passes by way of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        killed: Option<u8>,
    },
    /// A session without processes lives until this from now on.
    Prolonged {
        /// Which session.
        key: SessionKey,
        /// Until when.
        deadline: Deadline,
        /// It lived for as long at a time before.
        #[serde(default)]
        renews: bool,
    },
    /// A session is over; its names are free from here on, though each lease still gets an event of its own.
    SessionEnded {
        /// Which session.
        key: SessionKey,
        /// Why.
        why: End,
    },
    /// A name was granted.
    Claimed {
        /// Which.
        name: Name,
        /// Its token.
        token: Token,
        /// The holder.
        key: SessionKey,
        /// The inode behind the name.
        ino: Ino,
        /// The inode is new and starts with this; otherwise it has a name already.
        created: Option<Creation>,
        /// The process that claimed.
        pid: u32,
        /// Its command name.
        command: Arc<str>,
        /// Under process scope, the process that holds the new inode.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        maker: Option<Process>,
    },
    /// A name was given up by its holder.
    Released {
        /// Which.
        name: Name,
        /// The token that it was granted with.
        token: Token,
    },
    /// A name was taken from a dead holder.
    Reaped {
        /// Which.
        name: Name,
        /// The token that it was granted with.
        token: Token,
        /// The signal that killed the process that held it, if that is why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<u8>,
    },
    /// A name was taken because its deadline had passed.
    Expired {
        /// Which.
        name: Name,
        /// The token that it was granted with.
        token: Token,
    },
    /// A name was granted to another session by its holder.
    Handed {
        /// Which.
        name: Name,
        /// The token that it was granted with before.
        was: Token,
        /// Its token from now on.
        token: Token,
        /// The giver.
        from: SessionKey,
        /// The new holder.
        key: SessionKey,
        /// The inode behind the name from now on: another number, so that the giver's descriptors are lost.
        ino: Ino,
        /// A process of the new holder's.
        pid: u32,
        /// Its command name.
        command: Arc<str>,
    },
    /// A name was taken from a holder that lives.
    Broken {
        /// Which.
        name: Name,
        /// The token that it was granted with.
        token: Token,
        /// The uid that did it.
        uid: u32,
        /// The process that did it.
        pid: u32,
        /// Its command name.
        command: Arc<str>,
    },
    /// A session stands in line for a name.
    Queued {
        /// Which.
        name: Name,
        /// Its place.
        waiter: WaiterId,
        /// The session.
        key: SessionKey,
        /// What the claim starts with when its turn has come.
        creation: Creation,
        /// The process that waits.
        pid: u32,
        /// Its command name.
        command: Arc<str>,
        /// Under process scope, the process that will hold the claim.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        maker: Option<Process>,
    },
    /// The name that was just claimed is the waiter's, who does not know it yet.
    Granted {
        /// Which.
        name: Name,
        /// To whom.
        waiter: WaiterId,
        /// The token that it was granted with.
        token: Token,
    },
    /// The waiter knows.
    Accepted {
        /// Which waiter.
        waiter: WaiterId,
    },
    /// The waiter has left the line, or is gone before it knew.
    #[serde(rename = "LeftLine")]
    LeftQueue {
        /// Which waiter.
        waiter: WaiterId,
    },
    /// What a claim contains has changed.
    Altered {
        /// Which inode.
        ino: Ino,
        /// How.
        change: Change,
    },
    /// The leases of an inode end with a process from now on.
    Bound {
        /// Which inode.
        ino: Ino,
        /// Which process.
        binding: Binding,
    },
    /// The leases of an inode end at another time from now on, or at none.
    Limited {
        /// Which inode.
        ino: Ino,
        /// When.
        deadline: Option<Deadline>,
    },
    /// A name was given inside a directory claim.
    Linked {
        /// In which directory.
        dir: Ino,
        /// Which name.
        label: Label,
        /// The inode behind it.
        ino: Ino,
        /// The inode is new and starts with this; otherwise it has a name already, or had one a moment ago.
        created: Option<Creation>,
    },
    /// A name inside a directory claim was removed.
    Unlinked {
        /// In which directory.
        dir: Ino,
        /// Which name.
        label: Label,
    },
    /// A nameless inode is gone.
    Forgotten {
        /// Which inode.
        ino: Ino,
    },
}
