//! The rules: grants, refusals, and when a name is free.
//!
//! [`Table::decide`] holds every rule of the table and changes nothing. [`Table::apply`] changes
//! the state and decides nothing. The events between the two are recorded, so that applying them
//! again gives the same table.
//!
//! Invariants after each decision:
//! - a name has at most one lease, and a lease is of one session: that of its inode, which may name
//!   a process of it as the holder;
//! - tokens, inode numbers and session keys only rise;
//! - a session that is over shows no leases, although these are swept one event at a time; the same
//!   holds for a process that died and whose leases passed to nobody;
//! - a process that holds a lease under process scope is a root of the lease's session, or the
//!   lease is lost;
//! - a session that is not over has a root or a deadline;
//! - of two reservations, neither path is above the other's, unless one is lost.
//!
//! One change of the state is no event: [`Table::leave_unsettled`] records a dead process whose
//! ending is not known yet. The next server finds it out again.
//!
//! Does not know: clocks, threads, files, `/proc`, fuser. The death of a process and the time are
//! arguments.

mod apply;
mod effects;
mod encoding;
mod inside;
mod names;
mod parts;
mod past;
mod paths;
mod queue;
mod quota;
mod remote;
mod rings;
mod sessions;
mod sound;
mod state;
mod terms;
mod tokens;
mod written;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

pub use self::effects::{Count, Effects};
use self::parts::Parts;
pub use self::past::Past;
pub use self::paths::BELOW_MAX;
pub use self::queue::Turn;
pub use self::quota::Watches;
pub use self::rings::{RING_MAX, Ring, Rings};
pub use self::sound::NUMBER_MAX;
use self::tokens::Tokens;
use crate::core::content::Content;
use crate::core::wire;
use crate::core::{
    Binding, Command, Creation, Deadline, Due, End, EndedBy, Event, FIRST_INO, INO_END, Ino,
    KEY_END, Label, Member, Moment, Name, Process, Refusal, Root, Rule, SessionId, SessionKey,
    Token, WAITER_END, WaiterId, What,
};

/// A granted name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its fencing token.
    pub token: Token,
    /// Its inode, which knows the holder.
    pub ino: Ino,
    /// When it was granted.
    #[serde(with = "wire::moment")]
    pub since: SystemTime,
    /// The process that claimed it.
    pub pid: u32,
    /// That process's command name.
    pub command: Arc<str>,
}

/// The inode behind the names of a claim. While it is open, it may have no name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inode {
    /// The session that holds all of its names.
    pub holder: SessionKey,
    /// The tokens of its names, oldest first.
    pub names: Vec<Token>,
    /// The process that holds it, if the whole session does not.
    pub bound: Option<Box<Binding>>,
    /// The end of its leases, unless the holder renews them.
    pub deadline: Option<Deadline>,
    /// Its content.
    pub content: Content,
    /// The totals of a directory. Boxed, since most inodes have nothing inside; never the default.
    #[serde(with = "wire::boxed")]
    below: Option<Box<Below>>,
}

impl Inode {
    /// The totals of the inodes inside it.
    pub fn below(&self) -> &Below {
        static NOTHING: Below = Below {
            inodes: BTreeSet::new(),
            entries: 0,
            bytes: 0,
        };
        self.below.as_deref().unwrap_or(&NOTHING)
    }

    fn change_below(&mut self, change: impl FnOnce(&mut Below)) {
        let mut below = self.below.take().unwrap_or_default();
        change(&mut below);
        self.below = (*below != Below::default()).then_some(below);
    }
}

/// The totals of a directory claim and the directories in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Below {
    /// The inodes, also those that are open without a name.
    pub inodes: BTreeSet<Ino>,
    /// The names.
    pub entries: usize,
    /// The weight of the inodes' contents, in bytes.
    pub bytes: usize,
}

/// An inode inside a directory claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// The claim that it is inside.
    pub claim: Ino,
    /// The directory of its newest name.
    pub dir: Ino,
    /// The number of its names.
    pub links: u32,
    /// Its content.
    pub content: Content,
}

/// An inode: that of a claim, or one inside a claim.
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
    /// Its key.
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
    /// The end of a session without processes.
    pub deadline: Option<Deadline>,
    /// The tokens of its leases, oldest first.
    pub leases: BTreeSet<Token>,
    /// Its waiters.
    pub waiters: BTreeSet<WaiterId>,
    /// Dead processes whose leases are not swept yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lost: Vec<Lost>,
    over: Option<End>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_by: Option<Arc<EndedBy>>,
}

/// A dead process whose leases, under process scope, passed to nobody. They are free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lost {
    process: Process,
    /// Its command name, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<Arc<str>>,
    /// The signal that killed it, if one did.
    signal: Option<u8>,
    /// The number of its leases that are not swept yet.
    leases: usize,
}

/// A waiter in the queue for a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    /// The session that waits.
    pub key: SessionKey,
    /// When it joined the queue.
    #[serde(with = "wire::moment")]
    pub since: SystemTime,
    /// The first state of its claim.
    pub creation: Creation,
    /// The process that waits.
    pub pid: u32,
    /// Its command name.
    pub command: Arc<str>,
    /// Under process scope, the process that will hold the claim: the one that opened the file, or
    /// one to which it passed.
    #[serde(default)]
    pub maker: Option<Process>,
}

/// The state and its rules.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    max_leases: usize,
    #[serde(skip)]
    max_per_uid: Option<usize>,
    #[serde(skip)]
    watches: Option<Watches>,
    #[serde(skip)]
    shares: BTreeMap<u32, quota::Share>,
    /// The watched processes in the shares of all uids except root.
    #[serde(skip)]
    watched: usize,
    seq: u64,
    next_token: u64,
    next_ino: u64,
    next_key: u64,
    next_waiter: u64,
    leases: Parts<Name, Lease>,
    #[serde(skip)]
    names: Tokens,
    /// The reservations among the names, in their order.
    #[serde(skip)]
    paths: BTreeSet<Name>,
    /// Boxed, since a map keeps spare room for as many entries again. In their order, in which they
    /// are in memory, too.
    inodes: BTreeMap<Ino, Box<Inode>>,
    children: BTreeMap<Ino, Child>,
    sessions: BTreeMap<SessionKey, Session>,
    #[serde(skip)]
    ids: Parts<SessionId, SessionKey>,
    #[serde(skip)]
    roots: HashMap<Process, BTreeSet<SessionKey>>,
    #[serde(skip)]
    bound: HashMap<Process, BTreeSet<Ino>>,
    /// Dead roots whose ending is not known yet. Until it is, the process above each counts as the
    /// holder of its leases.
    #[serde(skip)]
    unsettled: HashSet<Process>,
    #[serde(skip)]
    deadlines: BTreeSet<(Duration, Due)>,
    /// The queues, by name.
    // The name in journals.
    #[serde(rename = "lines")]
    queues: BTreeMap<Name, BTreeMap<WaiterId, Waiter>>,
    /// The name that each waiter waits for, the oldest waiter first.
    #[serde(skip)]
    waiting: BTreeMap<WaiterId, Name>,
    /// The waiters in queues, by the process that will hold the name.
    #[serde(skip)]
    makers: HashMap<Process, BTreeSet<WaiterId>>,
    /// Grants that their waiters have not read yet.
    granted: HashMap<WaiterId, (Name, Token)>,
    /// The waiters in `granted`, by token.
    #[serde(skip)]
    grantees: HashMap<Token, WaiterId>,
    /// The sessions with leases to sweep: all leases of a session that is over, else those of its
    /// dead processes.
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
            shares: BTreeMap::new(),
            watched: 0,
            seq: 0,
            next_token: 1,
            next_ino: FIRST_INO,
            next_key: 1,
            next_waiter: 1,
            leases: Parts::default(),
            names: Tokens::default(),
            paths: BTreeSet::new(),
            inodes: BTreeMap::new(),
            children: BTreeMap::new(),
            sessions: BTreeMap::new(),
            ids: Parts::default(),
            roots: HashMap::new(),
            bound: HashMap::new(),
            unsettled: HashSet::new(),
            deadlines: BTreeSet::new(),
            queues: BTreeMap::new(),
            waiting: BTreeMap::new(),
            makers: HashMap::new(),
            granted: HashMap::new(),
            grantees: HashMap::new(),
            over: BTreeSet::new(),
            unswept: 0,
        }
    }

    /// The events of a command, or the reason to refuse it. Changes nothing.
    pub fn decide(&self, command: &Command, now: Moment) -> Result<Vec<Event>, Refusal> {
        self.check_numbers_left(command)?;
        let mut draft = Draft::new(self, now);
        self.decide_into(&mut draft, command)?;
        self.check_quota(command, &draft.events)?;
        self.renew_for_entries(&mut draft);
        self.serve_queues(&mut draft);
        Ok(draft.events)
    }

    /// ENOSPC once nearly all numbers are used: see [`crate::core::NodeId`]. The rest are for
    /// waiters that are granted names which others release.
    fn check_numbers_left(&self, command: &Command) -> Result<(), Refusal> {
        let takes = matches!(
            command,
            Command::Claim { .. }
                | Command::Hold { .. }
                | Command::Queue { .. }
                | Command::Give { .. }
                | Command::Take { .. }
                | Command::GiveBelow { .. }
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
            Command::Take {
                names,
                by,
                creation,
                reason,
            } => self.decide_take(draft, names, by, creation, reason.as_deref()),
            Command::Drop { names, by } => self.decide_drop(draft, names, by),
            Command::GiveBelow { path, to, by } => self.decide_give_below(draft, path, to, by),
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

    /// Decides a command that no caller asks for. It is never refused.
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

/// The number of inodes, sessions and waiters that are kept back from callers that ask for new
/// ones.
const NUMBERS_LEFT: u64 = 1 << 24;

/// The events of one decision. Their numbers continue the table's.
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
