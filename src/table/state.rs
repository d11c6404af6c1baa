//! The state of the table: what there is to see of it, and what an event makes of it.
//!
//! Nothing that is shown here belongs to a session that is over, but what [`Table::last`] shows.
//!
//! Deliberately ignorant of: every rule. What arrives here was decided.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Below, Child, Inode, Lease, Node, Session, Table, Waiter};
use crate::content::{BODY_MAX, Content, INSIDE_MAX};
use crate::lease::{
    Change, Creation, End, Event, Ino, Label, Member, Name, Place, Process, Root, Rule, SessionId,
    SessionKey, Shape, Token, WaiterId, What,
};

impl Session {
    /// It is not over.
    pub fn is_alive(&self) -> bool {
        self.over.is_none()
    }
}

impl Table {
    /// The number of the newest event.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// How many leases there may be.
    pub fn max_leases(&self) -> usize {
        self.max_leases
    }

    /// How many leases there are.
    pub fn lease_count(&self) -> usize {
        self.leases.len() - self.unswept
    }

    /// How many things it remembers, all in all: none once everybody is dead and nothing is open.
    pub fn remembered(&self) -> usize {
        let people = self.sessions.len() + self.ids.len() + self.roots.len() + self.over.len();
        let names = self.leases.len() + self.names.len() + self.unswept;
        let inodes = self.inodes.len() + self.children.len();
        let lines = self.lines.len() + self.waiting.len() + self.granted.len();
        people + names + inodes + lines + self.bound.len() + self.deadlines.len()
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.ids.len()
    }

    /// The lease of a name.
    pub fn lease(&self, name: &Name) -> Option<&Lease> {
        self.leases.get(name).filter(|lease| self.is_held(lease))
    }

    /// The leases from a token on, in the order they were granted: `after` excluded.
    pub fn leases(&self, after: Token) -> impl Iterator<Item = (&Name, &Lease)> {
        let rest = self.names.range((Bound::Excluded(after), Bound::Unbounded));
        rest.filter_map(|(_, name)| Some((name, self.lease(name)?)))
    }

    /// An inode that has a name, or is still open without one.
    pub fn inode(&self, ino: Ino) -> Option<&Inode> {
        self.inodes
            .get(&ino)
            .filter(|inode| inode.names.is_empty() || self.is_alive(inode.holder))
    }

    /// An inode that [`Table::inode`] would show, or one inside such a claim.
    pub fn node(&self, ino: Ino) -> Option<Node<'_>> {
        let child = self.children.get(&ino);
        let claim = child.map_or(ino, |child| child.claim);
        let inode = self.inode(claim)?;
        Some(Node {
            claim,
            inode,
            child,
        })
    }

    /// The inode of a name in a directory.
    pub fn entry(&self, dir: Ino, label: &Label) -> Option<Ino> {
        self.node(dir)?.content().entries.get(label)
    }

    /// The inode of a name.
    pub fn at(&self, place: &Place) -> Option<Ino> {
        match place {
            Place::Claim(name) => self.lease(name).map(|lease| lease.ino),
            Place::Inside { dir, label } => self.entry(*dir, label),
        }
    }

    /// The inode has no name any more, nor anything below it that is still open.
    pub fn is_nameless(&self, ino: Ino) -> bool {
        match self.children.get(&ino) {
            Some(child) => child.links == 0,
            None => self
                .inodes
                .get(&ino)
                .is_some_and(|inode| inode.names.is_empty() && inode.below.inodes.is_empty()),
        }
    }

    /// The name that a token was granted for.
    pub fn name(&self, token: Token) -> Option<&Name> {
        self.names.get(&token)
    }

    /// The lease of a name with its inode and its session, also while the session is over and the lease not swept yet.
    pub fn last(&self, name: &Name) -> Option<(&Lease, &Inode, &Session)> {
        let lease = self.leases.get(name)?;
        let inode = self.inodes.get(&lease.ino)?;
        Some((lease, inode, self.sessions.get(&inode.holder)?))
    }

    /// A session that is not over, by its id.
    pub fn session(&self, id: &SessionId) -> Option<&Session> {
        self.sessions.get(self.ids.get(id)?)
    }

    /// A session, over or not, by its key.
    pub fn session_by_key(&self, key: SessionKey) -> Option<&Session> {
        self.sessions.get(&key)
    }

    /// The sessions that are not over, from a key on: `after` excluded.
    pub fn sessions(&self, after: SessionKey) -> impl Iterator<Item = &Session> {
        let rest = self
            .sessions
            .range((Bound::Excluded(after), Bound::Unbounded));
        rest.map(|(_, session)| session)
            .filter(|session| session.over.is_none())
    }

    /// The session that rule 1 gives the descendants of a process, and whether the process itself was registered in
    /// it, or is a root of it only as a claimant below one that was.
    pub fn registered(&self, process: &Process) -> Option<(&SessionId, bool)> {
        let sessions = self.roots.get(process)?.iter();
        let mut found = None;
        for session in sessions.filter_map(|key| self.sessions.get(key)) {
            let itself = |root: &Root| root.process == *process && root.registered;
            if session.roots.iter().any(itself) {
                return Some((&session.id, true));
            }
            if session.rule == Rule::Registered && found.is_none() {
                found = Some((&session.id, false));
            }
        }
        found
    }

    /// Whether leases of sessions that are over wait for [`crate::lease::Command::Sweep`].
    pub fn wants_sweep(&self) -> bool {
        !self.over.is_empty()
    }

    /// The inode whose leases end first, and when: the time since boot.
    pub fn next_deadline(&self) -> Option<(Duration, Ino)> {
        self.deadlines.first().copied()
    }

    /// Whether any session or lease depends on a process.
    pub fn depends_on(&self, process: &Process) -> bool {
        self.roots.contains_key(process) || self.bound.contains_key(process)
    }

    /// Whether the member's own session holds this inode, and the member is of the tree of the process that it is bound to.
    pub fn holds(&self, by: &Member, inode: &Inode) -> bool {
        self.joinable(by).ok().flatten() == Some(inode.holder)
            && inode.bound.as_ref().is_none_or(|bound| bound.admits(by))
    }

    pub(super) fn is_alive(&self, key: SessionKey) -> bool {
        self.sessions
            .get(&key)
            .is_some_and(|session| session.over.is_none())
    }

    fn is_held(&self, lease: &Lease) -> bool {
        self.inodes
            .get(&lease.ino)
            .is_some_and(|inode| self.is_alive(inode.holder))
    }

    /// Makes an event part of the state. Decides nothing.
    pub fn apply(&mut self, event: &Event) {
        self.seq = event.seq;
        match &event.what {
            What::SessionStarted {
                key,
                id,
                uid,
                pidns,
                rule,
            } => {
                self.next_key = self.next_key.max(key.0 + 1);
                self.ids.insert(id.clone(), *key);
                let session = Session {
                    key: *key,
                    id: id.clone(),
                    uid: *uid,
                    pidns: *pidns,
                    rule: *rule,
                    since: event.at,
                    roots: Vec::new(),
                    leases: BTreeSet::new(),
                    waiters: BTreeSet::new(),
                    over: None,
                };
                self.sessions.insert(*key, session);
            }
            What::Joined { key, root } => self.apply_joined(*key, root),
            What::Left { key, process } => self.apply_left(*key, process),
            What::SessionEnded { key, why } => self.apply_ended(*key, *why),
            What::Claimed {
                name,
                token,
                key,
                ino,
                created,
                pid,
                command,
            } => {
                self.next_token = self.next_token.max(token.0 + 1);
                let lease = Lease {
                    token: *token,
                    ino: *ino,
                    since: event.at,
                    pid: *pid,
                    command: Arc::clone(command),
                };
                self.apply_claimed(name, lease, *key, created.as_ref());
            }
            What::Released { name, .. } => self.apply_gone(name, false, event.at),
            What::Reaped { name, .. } | What::Expired { name, .. } | What::Broken { name, .. } => {
                self.apply_gone(name, true, event.at);
            }
            What::Handed {
                name,
                was,
                token,
                from,
                key,
                ino,
                pid,
                command,
            } => {
                self.next_token = self.next_token.max(token.0 + 1);
                self.next_ino = self.next_ino.max(ino.0 + 1);
                let lease = Lease {
                    token: *token,
                    ino: *ino,
                    since: event.at,
                    pid: *pid,
                    command: Arc::clone(command),
                };
                self.apply_handed(name, *was, lease, *from, *key);
            }
            What::Limited { ino, deadline } => {
                self.unlimit(*ino);
                if let Some(inode) = self.inodes.get_mut(ino) {
                    inode.deadline = *deadline;
                    self.deadlines
                        .extend(deadline.map(|deadline| (deadline.until, *ino)));
                }
            }
            What::Queued {
                name,
                waiter,
                key,
                creation,
                pid,
                command,
            } => {
                let place = Waiter {
                    key: *key,
                    since: event.at,
                    creation: creation.clone(),
                    pid: *pid,
                    command: Arc::clone(command),
                };
                self.apply_queued(name, *waiter, place);
            }
            What::Granted {
                name,
                waiter,
                token,
            } => {
                self.apply_left_line(*waiter);
                self.granted.insert(*waiter, (name.clone(), *token));
            }
            What::Accepted { waiter } | What::LeftLine { waiter } => self.apply_left_line(*waiter),
            What::Altered { ino, change } => self.apply_altered(*ino, change, event.at),
            What::Linked {
                dir,
                label,
                ino,
                created,
            } => self.apply_linked(*dir, label, *ino, created.as_ref(), event.at),
            What::Unlinked { dir, label } => self.apply_unlinked(*dir, label, event.at),
            What::Bound { ino, binding } => {
                self.unbind(*ino);
                if let Some(inode) = self.inodes.get_mut(ino) {
                    inode.bound = Some(binding.clone());
                    self.bound.entry(binding.process).or_default().push(*ino);
                }
            }
            What::Forgotten { ino } => self.drop_inode(*ino),
        }
    }

    fn apply_queued(&mut self, name: &Name, waiter: WaiterId, place: Waiter) {
        self.next_waiter = self.next_waiter.max(waiter.0 + 1);
        if let Some(session) = self.sessions.get_mut(&place.key) {
            session.waiters.insert(waiter);
        }
        self.waiting.insert(waiter, name.clone());
        let line = self.lines.entry(name.clone()).or_default();
        line.insert(waiter, place);
    }

    fn apply_left_line(&mut self, waiter: WaiterId) {
        self.granted.remove(&waiter);
        let Some(name) = self.waiting.remove(&waiter) else {
            return;
        };
        let Some(line) = self.lines.get_mut(&name) else {
            return;
        };
        if let Some(place) = line.remove(&waiter)
            && let Some(session) = self.sessions.get_mut(&place.key)
        {
            session.waiters.remove(&waiter);
        }
        if line.is_empty() {
            self.lines.remove(&name);
        }
    }

    fn content_mut(&mut self, ino: Ino) -> Option<&mut Content> {
        match self.children.get_mut(&ino) {
            Some(child) => Some(&mut child.content),
            None => self.inodes.get_mut(&ino).map(|inode| &mut inode.content),
        }
    }

    /// What the claim that an inode is part of has below it.
    fn below(&mut self, ino: Ino) -> Option<&mut Below> {
        let claim = self.children.get(&ino).map_or(ino, |child| child.claim);
        self.inodes.get_mut(&claim).map(|inode| &mut inode.below)
    }

    fn apply_altered(&mut self, ino: Ino, change: &Change, at: SystemTime) {
        let Some(content) = self.content_mut(ino) else {
            return;
        };
        let before = content.weight();
        content.apply(change, at);
        let after = content.weight();
        if self.children.contains_key(&ino)
            && let Some(below) = self.below(ino)
        {
            below.bytes = below.bytes - before + after;
        }
    }

    fn apply_linked(
        &mut self,
        dir: Ino,
        label: &Label,
        ino: Ino,
        created: Option<&Creation>,
        at: SystemTime,
    ) {
        if let Some(creation) = created {
            self.next_ino = self.next_ino.max(ino.0 + 1);
            let claim = self.children.get(&dir).map_or(dir, |child| child.claim);
            let content = Content::new(creation.clone(), INSIDE_MAX, at);
            if let Some(below) = self.below(dir) {
                below.inodes.insert(ino);
                below.bytes += content.weight();
            }
            let child = Child {
                claim,
                dir,
                links: 0,
                content,
            };
            self.children.insert(ino, child);
        }
        let Some(child) = self.children.get_mut(&ino) else {
            return;
        };
        child.dir = dir;
        child.links += 1;
        child.content.ctime = at;
        let is_directory = child.content.shape == Shape::Directory;
        if let Some(content) = self.content_mut(dir) {
            content.entries.insert(label.clone(), ino, is_directory);
            content.touched(at);
        }
        if let Some(below) = self.below(dir) {
            below.entries += 1;
        }
    }

    fn apply_unlinked(&mut self, dir: Ino, label: &Label, at: SystemTime) {
        let ino = self
            .content_mut(dir)
            .and_then(|content| content.entries.get(label));
        let Some(child) = ino.and_then(|ino| self.children.get_mut(&ino)) else {
            return;
        };
        child.links -= 1;
        child.content.ctime = at;
        let is_directory = child.content.shape == Shape::Directory;
        if let Some(content) = self.content_mut(dir) {
            content.entries.remove(label, is_directory);
            content.touched(at);
        }
        if let Some(below) = self.below(dir) {
            below.entries -= 1;
        }
    }

    /// An inode goes, with all that is below it.
    fn drop_inode(&mut self, ino: Ino) {
        if let Some(child) = self.children.remove(&ino) {
            if let Some(claim) = self.inodes.get_mut(&child.claim) {
                claim.below.inodes.remove(&ino);
                claim.below.bytes -= child.content.weight();
            }
        } else if let Some(inode) = self.inodes.remove(&ino) {
            for below in inode.below.inodes {
                self.children.remove(&below);
            }
        }
    }

    fn unlimit(&mut self, ino: Ino) {
        let inode = self.inodes.get_mut(&ino);
        if let Some(deadline) = inode.and_then(|inode| inode.deadline.take()) {
            self.deadlines.remove(&(deadline.until, ino));
        }
    }

    fn unbind(&mut self, ino: Ino) {
        let bound = self
            .inodes
            .get_mut(&ino)
            .and_then(|inode| inode.bound.take());
        let Some(process) = bound.map(|bound| bound.process) else {
            return;
        };
        if let Some(inodes) = self.bound.get_mut(&process) {
            inodes.retain(|other| *other != ino);
            if inodes.is_empty() {
                self.bound.remove(&process);
            }
        }
    }

    fn apply_joined(&mut self, key: SessionKey, root: &Root) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        if root.registered && session.rule != Rule::Posix {
            // What descends from its roots belongs to it from now on. Not so a terminal's: there a registration is for
            // that process and what is below it, and whoever else claimed there goes on under rule 5.
            session.rule = Rule::Registered;
        }
        if let Some(there) = session
            .roots
            .iter_mut()
            .find(|there| there.process == root.process)
        {
            there.registered = root.registered;
        } else {
            session.roots.push(root.clone());
            self.roots.entry(root.process).or_default().push(key);
        }
    }

    fn apply_left(&mut self, key: SessionKey, process: &Process) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.roots.retain(|root| root.process != *process);
        }
        self.unroot(key, process);
    }

    fn unroot(&mut self, key: SessionKey, process: &Process) {
        if let Some(keys) = self.roots.get_mut(process) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.roots.remove(process);
            }
        }
    }

    fn apply_ended(&mut self, key: SessionKey, why: End) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let roots = std::mem::take(&mut session.roots);
        session.over = Some(why);
        let waiters = std::mem::take(&mut session.waiters);
        self.ids.remove(&session.id);
        self.unswept += session.leases.len();
        if session.leases.is_empty() {
            self.sessions.remove(&key);
        } else {
            self.over.insert(key);
        }
        for waiter in waiters {
            self.apply_left_line(waiter);
        }
        for root in roots {
            self.unroot(key, &root.process);
        }
    }

    fn apply_claimed(
        &mut self,
        name: &Name,
        lease: Lease,
        key: SessionKey,
        created: Option<&Creation>,
    ) {
        self.next_ino = self.next_ino.max(lease.ino.0 + 1);
        if let Some(creation) = created {
            let content = Content::new(creation.clone(), BODY_MAX, lease.since);
            self.inodes.insert(
                lease.ino,
                Inode {
                    holder: key,
                    names: Vec::with_capacity(1),
                    bound: None,
                    deadline: None,
                    content,
                    below: Below::default(),
                },
            );
        }
        if let Some(inode) = self.inodes.get_mut(&lease.ino) {
            inode.names.push(lease.token);
            inode.content.ctime = lease.since;
        }
        if let Some(session) = self.sessions.get_mut(&key) {
            session.leases.insert(lease.token);
        }
        self.names.insert(lease.token, name.clone());
        self.leases.insert(name.clone(), lease);
    }

    /// A name changes hands. The first of an inode's names takes the inode along, under its new number.
    fn apply_handed(
        &mut self,
        name: &Name,
        was: Token,
        lease: Lease,
        from: SessionKey,
        key: SessionKey,
    ) {
        let Some(old) = self.leases.get(name).map(|lease| lease.ino) else {
            return;
        };
        if old != lease.ino && !self.inodes.contains_key(&lease.ino) {
            self.move_inode(old, lease.ino, key);
        }
        if let Some(inode) = self.inodes.get_mut(&lease.ino) {
            inode.names.retain(|token| *token != was);
            inode.names.push(lease.token);
            inode.content.ctime = lease.since;
        }
        self.names.remove(&was);
        self.names.insert(lease.token, name.clone());
        if let Some(session) = self.sessions.get_mut(&from) {
            session.leases.remove(&was);
        }
        if let Some(session) = self.sessions.get_mut(&key) {
            session.leases.insert(lease.token);
        }
        self.leases.insert(name.clone(), lease);
    }

    fn move_inode(&mut self, from: Ino, to: Ino, holder: SessionKey) {
        self.unbind(from);
        let Some(deadline) = self.inodes.get(&from).map(|inode| inode.deadline) else {
            return;
        };
        self.unlimit(from);
        let Some(mut inode) = self.inodes.remove(&from) else {
            return;
        };
        (inode.holder, inode.deadline) = (holder, deadline);
        self.deadlines
            .extend(deadline.map(|deadline| (deadline.until, to)));
        for below in &inode.below.inodes {
            if let Some(child) = self.children.get_mut(below) {
                child.claim = to;
                if child.dir == from {
                    child.dir = to;
                }
            }
        }
        self.inodes.insert(to, inode);
    }

    /// A name goes. The inode of a lost lease goes with it, so that descriptors answer ESTALE; that of a released one
    /// stays until it is forgotten, as an open file does on any filesystem.
    fn apply_gone(&mut self, name: &Name, lost: bool, at: SystemTime) {
        let Some(lease) = self.leases.remove(name) else {
            return;
        };
        self.names.remove(&lease.token);
        let Some(inode) = self.inodes.get_mut(&lease.ino) else {
            return;
        };
        inode.names.retain(|token| *token != lease.token);
        inode.content.ctime = at;
        let (key, nameless) = (inode.holder, inode.names.is_empty());
        let over = !self.is_alive(key);
        if nameless {
            self.unbind(lease.ino);
            self.unlimit(lease.ino);
        }
        if nameless && (lost || over) {
            self.drop_inode(lease.ino);
        }
        if let Some(session) = self.sessions.get_mut(&key) {
            session.leases.remove(&lease.token);
            if over {
                self.unswept -= 1;
                if session.leases.is_empty() {
                    self.sessions.remove(&key);
                    self.over.remove(&key);
                }
            }
        }
    }
}
