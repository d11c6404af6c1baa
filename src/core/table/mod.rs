//! The rules: who is granted what, who is refused, and when a name is free.
//!
//! [`Table::decide`] holds every rule and changes nothing; [`Table::apply`] changes the state and decides nothing.
//! Between the two an event is written down, so that replaying the events gives the same table again.
//!
//! Invariants, after each event:
//! - a name has at most one lease, and every lease one holder: the session of its inode;
//! - tokens, inode numbers and session keys only rise;
//! - a session that is over holds nothing that anybody sees, though its leases are swept one event at a time, and so with
//!   a process that is dead and passed what it held to nobody;
//! - a process that holds a lease under process scope is a root of the lease's session, or the lease is lost;
//! - a session that is not over has at least one root, or a deadline.
//!
//! Deliberately ignorant of: clocks, threads, files, `/proc`, fuser. That a process is dead reaches the table as a
//! command, and so does the time.

mod apply;
mod effects;
mod inside;
mod names;
mod queue;
mod quota;
mod remote;
mod sessions;
mod sound;
mod state;
mod terms;
mod written;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

pub use self::effects::{Count, Effects};
pub use self::quota::Watches;
pub use self::sound::NUMBER_MAX;
use crate::core::content::Content;
use crate::core::rare::{Blank, Rare};
use crate::core::wire;
use crate::core::{
    Binding, Command, Creation, Deadline, Due, End, Event, FIRST_INO, INO_END, Ino, KEY_END, Label,
    Member, Moment, Name, Process, Refusal, Root, Rule, SessionId, SessionKey, Token, WAITER_END,
    WaiterId, What,
};

/// A name that is granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its fencing token.
    pub token: Token,
    /// The inode behind it, which knows the holder.
    pub ino: Ino,
    /// When it was granted.
    #[serde(with = "wire::moment")]
    pub since: SystemTime,
    /// The process that claimed it.
    pub pid: u32,
    /// That process's command name.
    pub command: Arc<str>,
}

/// What stands behind one name, or several, or, while it is still open, none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inode {
    /// The session that holds all of its names.
    pub holder: SessionKey,
    /// Its names, by their tokens, oldest first.
    pub names: Vec<Token>,
    /// The process that holds it, if not the whole session does.
    pub bound: Option<Box<Binding>>,
    /// When its leases end, if its holder does not renew them.
    pub deadline: Option<Deadline>,
    /// What it contains.
    pub content: Content,
    /// What is below it, if it is a directory.
    pub below: Rare<Below>,
}

/// What a directory claim and the directories in it contain, all in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Below {
    /// The inodes, those included that are open without a name.
    pub inodes: BTreeSet<Ino>,
    /// The names.
    pub entries: usize,
    /// The bytes of the inodes' contents.
    pub bytes: usize,
}

impl Blank for Below {
    fn blank() -> &'static Self {
        static BLANK: Below = Below {
            inodes: BTreeSet::new(),
            entries: 0,
            bytes: 0,
        };
        &BLANK
    }
}

/// An inode inside a directory claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// The claim that it is part of.
    pub claim: Ino,
    /// The directory of its newest name.
    pub dir: Ino,
    /// How many names it has.
    pub links: u32,
    /// What it contains.
    pub content: Content,
}

/// An inode, whether it is a claim's own or one inside a claim.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    /// The number of the claim's own inode.
    pub claim: Ino,
    /// The claim's own inode.
    pub inode: &'a Inode,
    /// The inode itself, if it is inside the claim.
    pub child: Option<&'a Child>,
}

/// A session: alive while one of its roots is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Which of all sessions.
    pub key: SessionKey,
    /// Its id.
    pub id: SessionId,
    /// Its uid.
    pub uid: u32,
    /// Its pid namespace.
    pub pidns: u64,
    /// The rule that made it.
    pub rule: Rule,
    /// When it began.
    #[serde(with = "wire::moment")]
    pub since: SystemTime,
    /// The processes that keep it alive.
    pub roots: Vec<Root>,
    /// When it is over, if it has none.
    pub deadline: Option<Deadline>,
    /// What it holds, oldest first.
    pub leases: BTreeSet<Token>,
    /// Its places in lines.
    pub waiters: BTreeSet<WaiterId>,
    /// Processes that are dead, and what they held is not swept yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lost: Vec<Lost>,
    over: Option<End>,
}

/// A process that held leases of a session under process scope, and that passed them to nobody:
/// they are free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lost {
    process: Process,
    /// The signal that killed it, if one did.
    signal: Option<u8>,
    /// How many of its leases are still to be swept.
    leases: usize,
}

/// A place in the line for a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    /// The session that waits.
    pub key: SessionKey,
    /// Since when.
    #[serde(with = "wire::moment")]
    pub since: SystemTime,
    /// What the claim starts with when its turn has come.
    pub creation: Creation,
    /// The process that waits.
    pub pid: u32,
    /// Its command name.
    pub command: Arc<str>,
    /// Under process scope, the process that will hold the claim: the one that opened the file, or
    /// whom that passed to.
    #[serde(default)]
    pub maker: Option<Process>,
}

/// The state, and the rules for what may happen to it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    max_leases: usize,
    #[serde(skip)]
    max_per_uid: Option<usize>,
    #[serde(skip)]
    watches: Option<Watches>,
    #[serde(skip)]
    shares: HashMap<u32, quota::Share>,
    /// How many claims of a uid are bound to a process.
    #[serde(skip)]
    bindings: HashMap<u32, usize>,
    seq: u64,
    next_token: u64,
    next_ino: u64,
    next_key: u64,
    next_waiter: u64,
    leases: HashMap<Name, Lease>,
    #[serde(skip)]
    names: BTreeMap<Token, Name>,
    /// Boxed, as a map keeps room for as many again.
    inodes: HashMap<Ino, Box<Inode>>,
    children: HashMap<Ino, Child>,
    sessions: BTreeMap<SessionKey, Session>,
    #[serde(skip)]
    ids: HashMap<SessionId, SessionKey>,
    #[serde(skip)]
    roots: HashMap<Process, BTreeSet<SessionKey>>,
    #[serde(skip)]
    bound: HashMap<Process, BTreeSet<Ino>>,
    /// Dead roots of which nobody can tell yet how they ended. Until somebody can, the process
    /// above each counts as the holder of what it holds.
    #[serde(skip)]
    unsettled: HashSet<Process>,
    #[serde(skip)]
    deadlines: BTreeSet<(Duration, Due)>,
    /// Who stands in line, by name.
    #[serde(rename = "lines")]
    queues: BTreeMap<Name, BTreeMap<WaiterId, Waiter>>,
    /// In which line a waiter stands.
    #[serde(skip)]
    waiting: HashMap<WaiterId, Name>,
    /// What waiters were granted that do not know it yet.
    granted: HashMap<WaiterId, (Name, Token)>,
    /// The sessions that have something to be swept: all of what they have if they are over, else
    /// what dead processes held.
    #[serde(skip)]
    over: BTreeSet<SessionKey>,
    #[serde(skip)]
    unswept: usize,
}

impl Table {
    /// An empty table that holds at most `max_leases` leases (ENOSPC past it).
    pub fn new(max_leases: usize) -> Self {
        Self {
            max_leases,
            max_per_uid: None,
            watches: None,
            shares: HashMap::new(),
            bindings: HashMap::new(),
            seq: 0,
            next_token: 1,
            next_ino: FIRST_INO,
            next_key: 1,
            next_waiter: 1,
            leases: HashMap::new(),
            names: BTreeMap::new(),
            inodes: HashMap::new(),
            children: HashMap::new(),
            sessions: BTreeMap::new(),
            ids: HashMap::new(),
            roots: HashMap::new(),
            bound: HashMap::new(),
            unsettled: HashSet::new(),
            deadlines: BTreeSet::new(),
            queues: BTreeMap::new(),
            waiting: HashMap::new(),
            granted: HashMap::new(),
            over: BTreeSet::new(),
            unswept: 0,
        }
    }

    /// What a command makes happen, or why not. Changes nothing.
    pub fn decide(&self, command: &Command, now: Moment) -> Result<Vec<Event>, Refusal> {
        self.check_numbers_left(command)?;
        let mut draft = Draft::new(self, now);
        self.decide_into(&mut draft, command)?;
        self.check_quota(command, &draft.events)?;
        self.renew_for_entries(&mut draft);
        self.serve_queues(&mut draft);
        Ok(draft.events)
    }

    /// ENOSPC once nearly all numbers are given out: see [`NodeId`]. What is left is for those who are
    /// granted what others release.
    fn check_numbers_left(&self, command: &Command) -> Result<(), Refusal> {
        let takes = matches!(
            command,
            Command::Claim { .. }
                | Command::Hold { .. }
                | Command::Queue { .. }
                | Command::Give { .. }
                | Command::Join { .. }
        );
        let is_short = self.next_ino >= INO_END - NUMBERS_LEFT
            || self.next_key >= KEY_END - NUMBERS_LEFT
            || self.next_waiter >= WAITER_END - NUMBERS_LEFT;
        if takes && is_short {
            return Err(Refusal::Full);
        }
        Ok(())
    }

    fn decide_into(&self, draft: &mut Draft, command: &Command) -> Result<(), Refusal> {
        match command {
            Command::Claim {
                name,
                by,
                creation,
                exclusive,
                truncate,
            } => match self.found(name, by)? {
                Some(_) if *exclusive => Err(Refusal::Exists),
                Some(ino) => self.decide_reclaim(draft, ino, by, *truncate),
                None => self.decide_claim(draft, name, by, creation),
            },
            Command::Reclaim { ino, by, truncate } => {
                self.decide_reclaim(draft, *ino, by, *truncate)
            }
            Command::Alter { ino, by, change } => self.decide_alter(draft, *ino, by, change),
            Command::Release {
                name,
                directory,
                by,
            } => self.decide_release(draft, name, *directory, by),
            Command::Link { ino, name, by } => self.decide_link(draft, *ino, name, by),
            Command::Exchange { one, other, by } => self.decide_exchange(draft, one, other, by),
            Command::Rename {
                from,
                to,
                noreplace,
                by,
            } => self.decide_rename(draft, from, to, *noreplace, by),
            Command::Join { exclusive, by } => self.decide_join(draft, *exclusive, by),
            Command::End { id, by } => self.decide_end(draft, id, by),
            Command::EndOwn { id, by } => self.decide_end_own(draft, id, *by),
            Command::Queue { name, by, creation } => self.decide_queue(draft, name, by, creation),
            Command::Limit { ino, by, ttl } => self.decide_limit(draft, *ino, by, *ttl),
            Command::Give { ino, to, by } => self.decide_give(draft, *ino, to, by),
            Command::Break { name, token, by } => self.decide_break(draft, name, *token, by),
            Command::Hold { name, by, ttl } => self.decide_hold(draft, name, by, *ttl),
            Command::Yield { name, by } => self.decide_yield(draft, name, by),
            Command::Accept { .. }
            | Command::Restart { .. }
            | Command::Leave { .. }
            | Command::Expire { .. }
            | Command::Died { .. }
            | Command::Sweep { .. }
            | Command::Withdraw { .. }
            | Command::Forget { .. } => {
                self.decide_for_nobody(draft, command);
                Ok(())
            }
        }
    }

    /// What happens by itself, and is never refused.
    fn decide_for_nobody(&self, draft: &mut Draft, command: &Command) {
        match command {
            Command::Accept { waiter } if self.granted.contains_key(waiter) => {
                draft.push(What::Accepted { waiter: *waiter });
            }
            Command::Leave { waiter } => self.decide_leave(draft, *waiter),
            Command::Expire {
                due: Due::Claim(ino),
            } => self.decide_expire(draft, *ino),
            Command::Expire {
                due: Due::Session(key),
            } => self.decide_lapse(draft, *key),
            Command::Restart { key } => self.decide_restart(draft, *key),
            Command::Died { process, ending } => self.decide_died(draft, process, *ending),
            Command::Sweep { limit } => self.decide_sweep(draft, *limit),
            Command::Withdraw { ino } => self.decide_withdraw(draft, *ino),
            Command::Forget { ino } if self.is_nameless(*ino) => {
                draft.push(What::Forgotten { ino: *ino });
            }
            _ => {}
        }
    }
}

/// How many inodes, sessions and waiters are left when no more are given to those who ask for new
/// ones.
const NUMBERS_LEFT: u64 = 1 << 24;

/// The events of one decision, numbered on from the table's.
struct Draft {
    events: Vec<Event>,
    at: SystemTime,
    boot: Duration,
    next_seq: u64,
    next_token: u64,
    next_ino: u64,
    next_key: u64,
}

impl Draft {
    fn new(table: &Table, now: Moment) -> Self {
        Self {
            events: Vec::new(),
            at: now.wall,
            boot: now.boot,
            next_seq: table.seq + 1,
            next_token: table.next_token,
            next_ino: table.next_ino,
            next_key: table.next_key,
        }
    }

    fn push(&mut self, what: What) {
        self.events.push(Event {
            seq: self.next_seq,
            at: self.at,
            what,
        });
        self.next_seq += 1;
    }

    fn ino(&mut self) -> Ino {
        self.next_ino += 1;
        Ino(self.next_ino - 1)
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token - 1)
    }

    fn start(&mut self, by: &Member) -> SessionKey {
        self.start_with(by.id.clone(), by.uid, by.pidns, by.rule)
    }

    fn start_with(&mut self, id: SessionId, uid: u32, pidns: u64, rule: Rule) -> SessionKey {
        let key = SessionKey(self.next_key);
        self.next_key += 1;
        self.push(What::SessionStarted {
            key,
            id,
            uid,
            pidns,
            rule,
        });
        key
    }

    fn link(&mut self, dir: Ino, label: &Label, ino: Ino, created: Option<Creation>) {
        let label = label.clone();
        self.push(What::Linked {
            dir,
            label,
            ino,
            created,
        });
    }

    fn grant(
        &mut self,
        name: &Name,
        key: SessionKey,
        ino: Ino,
        created: Option<Creation>,
        by: &Member,
    ) {
        let maker = by.maker().filter(|_| created.is_some());
        let by = (by.pid, &by.command, maker);
        self.grant_to(name, key, ino, created, by);
    }

    fn grant_to(
        &mut self,
        name: &Name,
        key: SessionKey,
        ino: Ino,
        created: Option<Creation>,
        (pid, command, maker): (u32, &Arc<str>, Option<Process>),
    ) -> Token {
        let token = self.token();
        self.push(What::Claimed {
            name: name.clone(),
            token,
            key,
            ino,
            created,
            pid,
            command: Arc::clone(command),
            maker,
        });
        token
    }
}
