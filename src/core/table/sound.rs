//! Checks that a table which was read has all invariants, so that events can have made it.
//!
//! A checksum shows that a journal is as it was written, but not which program wrote it. The rules
//! rely on the invariants. Without them, a lease could have two holders, or one that can never
//! release it.
//!
//! Does not know: which event broke an invariant, or what happens to the table then.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Below, Child, Inode, Lost, Session, Table};
use crate::core::content::{BODY_MAX, Content, Entries, INSIDE_MAX, TTL_MAX};
use crate::core::{
    Deadline, FIRST_INO, INO_END, Ino, KEY_END, Name, Process, SessionKey, Shape, Token,
    WAITER_END, WaiterId,
};

/// Numbers of events, tokens, inodes, sessions and waiters are below this, so that none overflows.
pub const NUMBER_MAX: u64 = 1 << 62;

/// The latest deadline, in seconds since boot.
const UNTIL_MAX: u64 = 1 << 40;

impl Table {
    /// Checks every invariant. An error describes the first that does not hold.
    pub fn check(&self) -> Result<(), String> {
        self.check_numbers()?;
        let mut inside: HashMap<Ino, HashMap<Ino, &Child>> = HashMap::new();
        for (ino, child) in &self.children {
            inside.entry(child.claim).or_default().insert(*ino, child);
        }
        // One pass, since each inode is somewhere else in memory.
        let mut known: Vec<(Token, Ino, SessionKey)> = Vec::with_capacity(self.leases.len());
        let mut lost: HashMap<(SessionKey, Process), usize> = HashMap::new();
        let mut checked = Ok(());
        for (ino, inode) in &self.inodes {
            known.extend(inode.names.iter().map(|token| (*token, *ino, inode.holder)));
            if let Some(bound) = &inode.bound
                && !inode.names.is_empty()
                && self.is_lost(inode)
                && self.is_alive(inode.holder)
            {
                *lost.entry((inode.holder, bound.process)).or_default() += inode.names.len();
            }
            let below = if inside.is_empty() {
                HashMap::new()
            } else {
                inside.remove(ino).unwrap_or_default()
            };
            if checked.is_ok() {
                checked = self
                    .check_inode(inode, &below)
                    .map_err(|why| format!("inode {}: {why}", ino.0));
            }
        }
        self.check_leases(known)?;
        self.check_lost(&lost)?;
        for (key, session) in &self.sessions {
            self.check_session(*key, session)
                .map_err(|why| format!("session {}: {why}", session.id))?;
        }
        self.check_queues()?;
        checked?;
        ensure(inside.is_empty(), "what is inside a claim is in none")
    }

    /// Checks that the next numbers were never used and are in range. Applying events requires
    /// this.
    pub fn check_numbers(&self) -> Result<(), String> {
        let bounds = [
            (self.seq, NUMBER_MAX),
            (self.next_token, NUMBER_MAX),
            (self.next_ino, INO_END),
            (self.next_key, KEY_END),
            (self.next_waiter, WAITER_END),
        ];
        let is_bounded = bounds.iter().all(|(next, end)| next <= end);
        ensure(is_bounded, "a number is too large")?;
        let token = self.names.newest().map(|token| token.0);
        let (inodes, children) = (self.inodes.keys(), self.children.keys());
        let newest = inodes.clone().next_back().max(children.clone().next_back());
        let key = self.sessions.keys().next_back().map(|key| key.0);
        let waiters = self.waiters().map(|waiter| waiter.0);
        let fresh = token < Some(self.next_token)
            && newest.map(|ino| ino.0) < Some(self.next_ino)
            && key < Some(self.next_key)
            && waiters.max() < Some(self.next_waiter)
            && self.next_waiter > 0;
        ensure(fresh, "a number was given out that is still to come")?;
        let oldest = [inodes.clone().next(), children.clone().next()]
            .into_iter()
            .flatten()
            .min();
        let claims = oldest.is_none_or(|ino| ino.0 >= FIRST_INO);
        ensure(claims, "an inode has the number of a fixed file")
    }

    /// Checks that every lease has its own token, and that its inode and its holder know it.
    fn check_leases(&self, known: Vec<(Token, Ino, SessionKey)>) -> Result<(), String> {
        self.check_tokens(known)?;
        for path in &self.paths {
            let live = |name: &str| self.lease(name).is_some();
            if live(path.as_str()) && path.above().any(live) {
                return Err(format!("{path} is reserved twice"));
            }
        }
        let left = |session: &Session| {
            if session.is_alive() {
                session.lost_leases()
            } else {
                session.leases.len()
            }
        };
        let unswept: usize = self.sessions.values().map(left).sum();
        ensure(
            unswept == self.unswept,
            "what is to be swept is not counted right",
        )
    }

    /// Compares the tokens of the leases with those that the inodes, the sessions and the index
    /// know. As sorted lists: to look each up in as many maps takes several times as long.
    fn check_tokens(&self, mut known: Vec<(Token, Ino, SessionKey)>) -> Result<(), String> {
        let leases = self.leases.iter();
        let leases = leases.map(|(name, lease)| (lease.token, lease.ino, name));
        let mut leases: Vec<(Token, Ino, &Name)> = leases.collect();
        leases.sort_unstable_by_key(|(token, ..)| *token);
        known.sort_unstable();
        let mut held: Vec<(Token, SessionKey)> = Vec::with_capacity(leases.len());
        for (key, session) in &self.sessions {
            held.extend(session.leases.iter().map(|token| (*token, *key)));
        }
        held.sort_unstable();
        let mut known = known.into_iter().peekable();
        let mut held = held.into_iter().peekable();
        let mut names = self.names.after(Token(0));
        let mut is_all = true;
        for (token, ino, name) in leases {
            if names.next() != Some((token, name)) {
                return Err(format!("the token of {name} is not its own"));
            }
            while known.next_if(|at| (at.0, at.1) < (token, ino)).is_some() {
                is_all = false;
            }
            let holder = known.next_if(|at| (at.0, at.1) == (token, ino));
            let holder = holder.map(|(.., holder)| (token, holder));
            while held.next_if(|at| Some(*at) < holder).is_some() {
                is_all = false;
            }
            if holder.is_none_or(|holder| held.next_if_eq(&holder).is_none()) {
                return Err(format!("nobody holds {name}"));
            }
        }
        is_all &= known.next().is_none() && held.next().is_none() && names.next().is_none();
        ensure(is_all, "a token is of no lease")
    }

    /// Checks that each session counts the leases that are lost with its dead processes.
    fn check_lost(&self, lost: &HashMap<(SessionKey, Process), usize>) -> Result<(), String> {
        let alive = self.sessions.values().filter(|session| session.is_alive());
        let known = alive.flat_map(|session| {
            let of = |lost: &Lost| ((session.key, lost.process), lost.leases);
            session.lost.iter().map(of)
        });
        let known: Vec<_> = known.collect();
        let is_right = known.len() == lost.len()
            && known
                .iter()
                .all(|(whose, leases)| lost.get(whose) == Some(leases));
        ensure(is_right, "what dead processes held is not counted right")
    }

    fn check_session(&self, key: SessionKey, session: &Session) -> Result<(), String> {
        ensure(session.key == key, "it has another's number")?;
        ensure_deadline(session.deadline.as_ref())?;
        let waits = |waiter: &WaiterId| self.waiter(*waiter).is_some_and(|there| there.key == key);
        ensure(session.waiters.iter().all(waits), "it waits in no queue")?;
        if !session.is_alive() {
            let is_bare = session.roots.is_empty() && session.waiters.is_empty();
            return ensure(
                is_bare && !session.leases.is_empty(),
                "it is over, and not swept away",
            );
        }
        let lives = !session.roots.is_empty() || session.deadline.is_some();
        ensure(lives, "nothing keeps it alive")?;
        let above: HashMap<_, _> = session
            .roots
            .iter()
            .map(|root| (root.process, root.above.process()))
            .collect();
        ensure(above.len() == session.roots.len(), "it has a root twice")?;
        for root in &session.roots {
            let next = |at: &Process| above.get(at).copied().flatten();
            let chain = std::iter::successors(root.above.process(), next);
            // A circle would be longer than this.
            let mut chain = chain.take(above.len() + 1);
            let is_linked = chain.all(|at| at != root.process && above.contains_key(&at));
            ensure(is_linked, "what passes from a root of it goes nowhere")?;
        }
        ensure(
            self.ids.get(&session.id) == Some(&key),
            "another has its id",
        )
    }

    fn check_queues(&self) -> Result<(), String> {
        let (mut count, mut made) = (0, 0);
        for (name, queue) in &self.queues {
            ensure(!queue.is_empty(), &format!("nobody waits for {name}"))?;
            for (waiter, there) in queue {
                let session = self.sessions.get(&there.key);
                let is_theirs = session.is_some_and(|session| session.waiters.contains(waiter));
                let is_here = self.waiting.get(waiter) == Some(name);
                ensure(
                    is_theirs && is_here && !self.granted.contains_key(waiter),
                    &format!("nobody knows who waits for {name}"),
                )?;
                if let Some(maker) = there.maker {
                    let waiters = self.makers.get(&maker);
                    made += 1;
                    ensure(
                        waiters.is_some_and(|waiters| waiters.contains(waiter)),
                        &format!("nobody knows for whom {name} is waited for"),
                    )?;
                }
            }
            count += queue.len();
        }
        ensure(count == self.waiting.len(), "a waiter is in no queue")?;
        let known: usize = self.makers.values().map(BTreeSet::len).sum();
        let is_bare = self.makers.values().any(BTreeSet::is_empty);
        ensure(known == made && !is_bare, "a process waits in no queue")
    }

    /// Checks the inode of a claim and all inodes inside it: that the totals are right, and the
    /// directories a tree.
    fn check_inode(&self, inode: &Inode, inside: &HashMap<Ino, &Child>) -> Result<(), String> {
        let is_single = inode.names.len() < 2;
        let is_once = || inode.names.iter().collect::<BTreeSet<_>>().len() == inode.names.len();
        ensure(is_single || is_once(), "it has a name twice")?;
        let ends = inode.bound.is_some() || inode.deadline.is_some();
        ensure(
            !(inode.names.is_empty() && ends),
            "it has no name, and is to end with one",
        )?;
        ensure_deadline(inode.deadline.as_ref())?;
        ensure_content(&inode.content, BODY_MAX)?;
        let is_gone = inode.names.is_empty() && !inode.content.entries().is_empty();
        let is_left = |child: &&Child| child.links == 0 && !child.content.entries().is_empty();
        ensure(
            !is_gone && !inside.values().any(is_left),
            "a directory without a name has entries",
        )?;
        if inside.is_empty() && *inode.content.entries() == Entries::default() {
            let is_empty = *inode.below() == Below::default();
            return ensure(is_empty, "what is inside it is not counted right");
        }
        let mut links: BTreeMap<Ino, u32> = BTreeMap::new();
        let mut bytes = 0;
        let contents = inside.values().map(|child| &child.content);
        for content in std::iter::once(&inode.content).chain(contents) {
            let mut directories = 0;
            for (_, _, ino) in content.entries().after(0) {
                let child = inside
                    .get(&ino)
                    .ok_or("an entry is of no inode inside it")?;
                *links.entry(ino).or_default() += 1;
                directories += u32::from(child.content.shape == Shape::Directory);
            }
            let is_right =
                content.entries().is_sound() && directories == content.entries().directories();
            ensure(is_right, "a directory's entries are not counted right")?;
        }
        for (ino, child) in inside {
            ensure_content(&child.content, INSIDE_MAX)?;
            bytes += child.content.weight();
            let count = links.get(ino).copied().unwrap_or_default();
            let is_single = child.content.shape != Shape::Directory || count <= 1;
            ensure(
                count == child.links && is_single && !self.inodes.contains_key(ino),
                "the names of an inode inside it are not counted right",
            )?;
        }
        let below = inode.below();
        let entries: u32 = links.values().sum();
        let is_right = below.entries == entries as usize
            && below.bytes == bytes
            && below.inodes.len() == inside.len()
            && below.inodes.iter().all(|ino| inside.contains_key(ino));
        ensure(is_right, "what is inside it is not counted right")?;
        ensure(
            is_tree(&inode.content, inside),
            "a directory is inside itself",
        )
    }
}

/// True if no directory is inside itself. Each directory has at most one name, so one that cannot
/// be reached from the claim or from a directory without a name is part of a circle.
fn is_tree(top: &Content, inside: &HashMap<Ino, &Child>) -> bool {
    let unlinked = inside.values().filter(|child| child.links == 0);
    let mut open: Vec<&Content> = unlinked.map(|child| &child.content).collect();
    let mut reached = open
        .iter()
        .filter(|content| content.shape == Shape::Directory)
        .count();
    open.push(top);
    while let Some(content) = open.pop() {
        for (_, _, ino) in content.entries().after(0) {
            let below = inside.get(&ino).map(|child| &child.content);
            if let Some(below) = below.filter(|below| below.shape == Shape::Directory) {
                reached += 1;
                open.push(below);
            }
        }
    }
    let directories = inside.values().map(|child| &child.content.shape);
    reached
        == directories
            .filter(|shape| **shape == Shape::Directory)
            .count()
}

fn ensure(is: bool, otherwise: &str) -> Result<(), String> {
    if is {
        Ok(())
    } else {
        Err(otherwise.to_owned())
    }
}

fn ensure_deadline(deadline: Option<&Deadline>) -> Result<(), String> {
    let is_possible =
        |deadline: &Deadline| deadline.ttl <= TTL_MAX && deadline.until.as_secs() <= UNTIL_MAX;
    ensure(
        deadline.is_none_or(is_possible),
        "its deadline is none that can be given",
    )
}

fn ensure_content(content: &Content, room: usize) -> Result<(), String> {
    let body = content.body().len();
    let fits = content.room() <= room && body <= content.room();
    let is_file = body == 0 || content.shape == Shape::File;
    let holds = content.entries().is_empty() || content.shape == Shape::Directory;
    ensure(
        fits && is_file && holds,
        "it contains what it has no room for",
    )
}
