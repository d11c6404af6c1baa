//! The rules: who is granted what, who is refused, and when a name is free.
//!
//! [`Table::decide`] holds every rule and changes nothing; [`Table::apply`] changes the state and decides nothing.
//! Between the two an event is written down, so that replaying the events gives the same table again.
//!
//! Invariants, after each event:
//! - a name has at most one lease, and every lease one holder: the session of its inode;
//! - tokens, inode numbers and session keys only rise;
//! - a session that is over holds nothing that anybody sees, though its leases are swept one event at a time;
//! - a session that is not over has at least one root.
//!
//! Deliberately ignorant of: clocks, threads, files, `/proc`, fuser. That a process is dead reaches the table as a
//! command, and so does the time.

mod inside;
mod line;
mod sessions;
mod state;
mod terms;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use self::sessions::reaches;
use self::terms::renews;
use crate::content::{Content, INSIDE_MAX};
use crate::lease::{
    Binding, Change, Command, Creation, Deadline, End, Event, Ino, Label, Member, Moment, Name,
    Place, Process, Refusal, Root, Rule, SessionId, SessionKey, Shape, Token, WaiterId, What,
};

/// The first inode number for claims: the ones below belong to the fixed files of the mount.
pub const FIRST_INO: u64 = 1024;

/// A name that is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its fencing token.
    pub token: Token,
    /// The inode behind it, which knows the holder.
    pub ino: Ino,
    /// When it was granted.
    pub since: SystemTime,
    /// The process that claimed it.
    pub pid: u32,
    /// That process's command name.
    pub command: Arc<str>,
}

/// What stands behind one name, or several, or, while it is still open, none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// The session that holds all of its names.
    pub holder: SessionKey,
    /// Its names, by their tokens, oldest first.
    pub names: Vec<Token>,
    /// The process that its leases end with, if not only with the session.
    pub bound: Option<Binding>,
    /// When its leases end, if its holder does not renew them.
    pub deadline: Option<Deadline>,
    /// What it contains.
    pub content: Content,
    /// What is below it, if it is a directory.
    pub below: Below,
}

/// What a directory claim and the directories in it contain, all in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Below {
    /// The inodes, those included that are open without a name.
    pub inodes: BTreeSet<Ino>,
    /// The names.
    pub entries: usize,
    /// The bytes of the inodes' contents.
    pub bytes: usize,
}

/// An inode inside a directory claim.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    pub since: SystemTime,
    /// The processes that keep it alive.
    pub roots: Vec<Root>,
    /// What it holds, oldest first.
    pub leases: BTreeSet<Token>,
    /// Its places in lines.
    pub waiters: BTreeSet<WaiterId>,
    over: Option<End>,
}

/// A place in the line for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// The session that waits.
    pub key: SessionKey,
    /// Since when.
    pub since: SystemTime,
    /// What the claim starts with when its turn has come.
    pub creation: Creation,
    /// The process that waits.
    pub pid: u32,
    /// Its command name.
    pub command: Arc<str>,
}

/// The state, and the rules for what may happen to it.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    max_leases: usize,
    seq: u64,
    next_token: u64,
    next_ino: u64,
    next_key: u64,
    next_waiter: u64,
    leases: HashMap<Name, Lease>,
    names: BTreeMap<Token, Name>,
    inodes: HashMap<Ino, Inode>,
    children: HashMap<Ino, Child>,
    sessions: BTreeMap<SessionKey, Session>,
    ids: HashMap<SessionId, SessionKey>,
    roots: HashMap<Process, Vec<SessionKey>>,
    bound: HashMap<Process, Vec<Ino>>,
    deadlines: BTreeSet<(Duration, Ino)>,
    /// Who stands in line, by name.
    lines: BTreeMap<Name, BTreeMap<WaiterId, Waiter>>,
    /// In which line a waiter stands.
    waiting: HashMap<WaiterId, Name>,
    /// What waiters were granted that do not know it yet.
    granted: HashMap<WaiterId, (Name, Token)>,
    over: BTreeSet<SessionKey>,
    unswept: usize,
}

impl Table {
    /// An empty table that holds at most `max_leases` leases (ENOSPC past it).
    pub fn new(max_leases: usize) -> Self {
        Self {
            max_leases,
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
            deadlines: BTreeSet::new(),
            lines: BTreeMap::new(),
            waiting: HashMap::new(),
            granted: HashMap::new(),
            over: BTreeSet::new(),
            unswept: 0,
        }
    }

    /// What a command makes happen, or why not. Changes nothing.
    pub fn decide(&self, command: &Command, now: Moment) -> Result<Vec<Event>, Refusal> {
        let mut draft = Draft::new(self, now);
        match command {
            Command::Claim {
                name,
                by,
                creation,
                exclusive,
                truncate,
            } => match self.found(name, by)? {
                Some(_) if *exclusive => return Err(Refusal::Exists),
                Some(ino) => self.decide_reclaim(&mut draft, ino, by, *truncate)?,
                None => match name {
                    Place::Claim(name) => self.decide_claim(&mut draft, name, by, creation)?,
                    Place::Inside { dir, label } => {
                        self.decide_create(&mut draft, *dir, label, creation)?;
                    }
                },
            },
            Command::Reclaim { ino, by, truncate } => {
                self.decide_reclaim(&mut draft, *ino, by, *truncate)?;
            }
            Command::Alter { ino, by, change } => {
                self.decide_alter(&mut draft, *ino, by, change)?;
            }
            Command::Release {
                name,
                directory,
                by,
            } => {
                let ino = self.found(name, by)?.ok_or(Refusal::NotFound)?;
                self.check_removal(ino, *directory, by)?;
                self.remove(&mut draft, name);
            }
            Command::Link { ino, name, by } => match name {
                Place::Claim(name) => self.decide_link(&mut draft, *ino, name, by)?,
                Place::Inside { dir, label } => {
                    self.decide_link_inside(&mut draft, *ino, *dir, label, by)?;
                }
            },
            Command::Exchange { one, other, by } => match (one, other) {
                (Place::Claim(one), Place::Claim(other)) => {
                    self.decide_exchange(&mut draft, one, other, by)?;
                }
                _ => self.decide_exchange_inside(&mut draft, one, other, by)?,
            },
            Command::Rename {
                from,
                to,
                noreplace,
                by,
            } => self.decide_rename(&mut draft, from, to, *noreplace, by)?,
            Command::Join { exclusive, by } => self.decide_join(&mut draft, *exclusive, by)?,
            Command::End {
                id,
                uid,
                pidns,
                chain,
            } => self.decide_end(&mut draft, id, *uid, *pidns, chain)?,
            Command::Break {
                name,
                token,
                uid,
                pidns,
                chain,
                command,
            } => {
                let lease = self.lease(name).ok_or(Refusal::NotFound)?;
                let (_, _, session) = self.last(name).ok_or(Refusal::NotFound)?;
                if !reaches(session, *uid, *pidns, chain) {
                    return Err(Refusal::NotPermitted);
                }
                if lease.token != *token {
                    return Err(Refusal::Lost);
                }
                draft.push(What::Broken {
                    name: name.clone(),
                    token: *token,
                    uid: *uid,
                    pid: chain.first().map_or(0, |process| process.pid),
                    command: Arc::clone(command),
                });
            }
            Command::Queue { name, by, creation } => {
                self.decide_queue(&mut draft, name, by, creation)?;
            }
            Command::Accept { waiter } => {
                if self.granted.contains_key(waiter) {
                    draft.push(What::Accepted { waiter: *waiter });
                }
            }
            Command::Leave { waiter } => self.decide_leave(&mut draft, *waiter),
            Command::Limit { ino, by, ttl } => self.decide_limit(&mut draft, *ino, by, *ttl)?,
            Command::Give { ino, to, by } => self.decide_give(&mut draft, *ino, to, by)?,
            Command::Expire { ino } => self.decide_expire(&mut draft, *ino),
            Command::Died { process } => self.decide_died(&mut draft, process),
            Command::Sweep { limit } => self.decide_sweep(&mut draft, *limit),
            Command::Forget { ino } => {
                if self.is_nameless(*ino) {
                    draft.push(What::Forgotten { ino: *ino });
                }
            }
        }
        self.renew_for_entries(&mut draft);
        self.serve_lines(&mut draft);
        Ok(draft.events)
    }

    fn decide_claim(
        &self,
        draft: &mut Draft,
        name: &Name,
        by: &Member,
        creation: &Creation,
    ) -> Result<(), Refusal> {
        if self.lease_count() >= self.max_leases {
            return Err(Refusal::Full);
        }
        let key = self.enter(draft, by)?;
        self.bury(draft, name);
        let ino = draft.ino();
        draft.grant(name, key, ino, Some(creation.clone()), by);
        Ok(())
    }

    fn decide_reclaim(
        &self,
        draft: &mut Draft,
        ino: Ino,
        by: &Member,
        truncate: bool,
    ) -> Result<(), Refusal> {
        let node = self.own(ino, by)?;
        if node.child.is_none() && !node.inode.names.is_empty() {
            self.enter(draft, by)?;
        }
        if truncate {
            if node.content().size() > 0 {
                draft.push(What::Altered {
                    ino,
                    change: Change::Resize { size: 0 },
                });
            }
            draft.renew(&node);
        }
        Ok(())
    }

    fn decide_alter(
        &self,
        draft: &mut Draft,
        ino: Ino,
        by: &Member,
        change: &Change,
    ) -> Result<(), Refusal> {
        let node = self.own(ino, by)?;
        node.content().check(change)?;
        if let Some(child) = node.child {
            let others = node.inode.below.bytes - child.content.weight();
            let weight = child.content.weight_after(change);
            if weight > child.content.weight() && others + weight > INSIDE_MAX {
                return Err(Refusal::Full);
            }
        }
        draft.push(What::Altered {
            ino,
            change: change.clone(),
        });
        let terms = node.child.is_none() && !node.inode.names.is_empty();
        let ask = node.content().ask_after(change).filter(|_| terms);
        if renews(change) {
            draft.renew(&node);
        }
        if let Some(ask) = ask {
            self.decide_ask(draft, ino, node.inode, by, ask);
        }
        Ok(())
    }

    /// The inode of a name, if there is one. That the caller may change the directory is checked first: EBUSY.
    fn found(&self, place: &Place, by: &Member) -> Result<Option<Ino>, Refusal> {
        match place {
            Place::Claim(name) => Ok(self.lease(name).map(|lease| lease.ino)),
            Place::Inside { dir, label } => {
                Ok(self.own_directory(*dir, by)?.content().entries.get(label))
            }
        }
    }

    /// Whether the caller may remove what has a name, by rmdir(2) or by unlink(2).
    fn check_removal(&self, ino: Ino, directory: bool, by: &Member) -> Result<(), Refusal> {
        let content = self.own(ino, by)?.content();
        match (content.shape == Shape::Directory, directory) {
            (true, false) => Err(Refusal::IsDirectory),
            (false, true) => Err(Refusal::NotDirectory),
            (true, true) if !content.entries.is_empty() => Err(Refusal::NotEmpty),
            _ => Ok(()),
        }
    }

    /// Writes down that a name is given up, if it is there.
    fn remove(&self, draft: &mut Draft, place: &Place) {
        match place {
            Place::Claim(name) => {
                if let Some(lease) = self.lease(name) {
                    let (name, token) = (name.clone(), lease.token);
                    draft.push(What::Released { name, token });
                }
            }
            Place::Inside { dir, label } => draft.push(What::Unlinked {
                dir: *dir,
                label: label.clone(),
            }),
        }
    }

    fn decide_link(
        &self,
        draft: &mut Draft,
        ino: Ino,
        name: &Name,
        by: &Member,
    ) -> Result<(), Refusal> {
        self.node(ino).ok_or(Refusal::Lost)?;
        if self.lease(name).is_some() {
            return Err(Refusal::Exists);
        }
        let node = self.own(ino, by)?;
        if node.links() == 0 {
            return Err(Refusal::NotFound);
        }
        if node.child.is_some() {
            return Err(Refusal::CrossDevice);
        }
        if node.content().shape == Shape::Directory {
            return Err(Refusal::NotPermitted);
        }
        if self.lease_count() >= self.max_leases {
            return Err(Refusal::Full);
        }
        let key = self.enter(draft, by)?;
        self.bury(draft, name);
        draft.grant(name, key, ino, None, by);
        Ok(())
    }

    /// Each name is granted anew, so that both have new tokens.
    fn decide_exchange(
        &self,
        draft: &mut Draft,
        one: &Name,
        other: &Name,
        by: &Member,
    ) -> Result<(), Refusal> {
        let (a, b) = (self.lease(one), self.lease(other));
        let (a, b) = (a.ok_or(Refusal::NotFound)?, b.ok_or(Refusal::NotFound)?);
        self.own(a.ino, by)?;
        self.own(b.ino, by)?;
        if a.ino == b.ino {
            return Ok(());
        }
        let key = self.enter(draft, by)?;
        for (name, token) in [(one, a.token), (other, b.token)] {
            let name = name.clone();
            draft.push(What::Released { name, token });
        }
        draft.grant(one, key, b.ino, None, by);
        draft.grant(other, key, a.ino, None, by);
        // For a moment neither had a name, and so nothing to end with.
        for ino in [a.ino, b.ino] {
            let Some(inode) = self.inode(ino) else {
                continue;
            };
            if let Some(binding) = inode.bound.clone() {
                draft.push(What::Bound { ino, binding });
            }
            if inode.deadline.is_some() {
                let deadline = inode.deadline;
                draft.push(What::Limited { ino, deadline });
            }
        }
        Ok(())
    }

    fn decide_rename(
        &self,
        draft: &mut Draft,
        from: &Place,
        to: &Place,
        noreplace: bool,
        by: &Member,
    ) -> Result<(), Refusal> {
        let source = self.found(from, by)?.ok_or(Refusal::NotFound)?;
        let target = self.found(to, by)?;
        if noreplace && target.is_some() {
            return Err(Refusal::Exists);
        }
        let is_directory = self.own(source, by)?.content().shape == Shape::Directory;
        if let Some(target) = target {
            self.own(target, by)?;
            // Two names of one file: rename(2) leaves both.
            if target == source {
                return Ok(());
            }
            self.check_move(source, from, to)?;
            self.check_removal(target, is_directory, by)?;
            self.remove(draft, to);
        } else {
            self.check_move(source, from, to)?;
        }
        match to {
            Place::Claim(name) => {
                let key = self.enter(draft, by)?;
                self.bury(draft, name);
                draft.grant(name, key, source, None, by);
            }
            Place::Inside { dir, label } => draft.link(*dir, label, source, None),
        }
        self.remove(draft, from);
        Ok(())
    }

    fn decide_sweep(&self, draft: &mut Draft, limit: usize) {
        let sessions = self.over.iter().filter_map(|key| self.sessions.get(key));
        let names = sessions
            .flat_map(|session| &session.leases)
            .filter_map(|token| self.names.get(token));
        for name in names.take(limit) {
            self.bury(draft, name);
        }
    }

    /// The inode, if the caller may change it: its session holds the claim, or there is no name left and it is only a
    /// descriptor. EBUSY otherwise.
    fn own(&self, ino: Ino, by: &Member) -> Result<Node<'_>, Refusal> {
        let node = self.node(ino).ok_or(Refusal::Lost)?;
        if node.links() == 0 || node.inode.names.is_empty() || self.holds(by, node.inode) {
            Ok(node)
        } else {
            Err(Refusal::Busy)
        }
    }

    /// Writes down that a name of a session that is over is gone, if it has one such.
    fn bury(&self, draft: &mut Draft, name: &Name) {
        let Some(lease) = self.leases.get(name) else {
            return;
        };
        let holder = self
            .inodes
            .get(&lease.ino)
            .and_then(|inode| self.sessions.get(&inode.holder));
        let (name, token) = (name.clone(), lease.token);
        match holder.and_then(|session| session.over) {
            Some(End::Died) => draft.push(What::Reaped { name, token }),
            Some(End::Ended) => draft.push(What::Released { name, token }),
            None => {}
        }
    }
}

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
        let key = SessionKey(self.next_key);
        self.next_key += 1;
        let (id, uid, pidns, rule) = (by.id.clone(), by.uid, by.pidns, by.rule);
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
        self.grant_to(name, key, ino, created, by.pid, &by.command);
    }

    fn grant_to(
        &mut self,
        name: &Name,
        key: SessionKey,
        ino: Ino,
        created: Option<Creation>,
        pid: u32,
        command: &Arc<str>,
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
        });
        token
    }
}
