//! What an event makes of the state.
//!
//! Deliberately ignorant of: every rule. What arrives here was decided; or it was read, and whether the state that it makes is sound is
//! looked at afterwards (`sound.rs`), so that no count overflows here, whatever arrives.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use super::{Below, Child, Effects, Inode, Lease, Lost, Session, Table, Waiter};
use crate::core::content::{BODY_MAX, Content, INSIDE_MAX};
use crate::core::rare::Rare;
use crate::core::{
    Above, Binding, Change, Creation, Due, End, Event, Ino, Label, Name, Predecessor, Process,
    Root, Rule, SessionKey, Shape, Token, WaiterId, What,
};

impl Table {
    /// Makes an event part of the state, and returns what it changed for others. Decides nothing.
    pub fn apply(&mut self, event: &Event) -> Effects {
        let effects = self.effects(event);
        self.shared(event, |table| table.apply_alone(event));
        effects
    }

    fn apply_alone(&mut self, event: &Event) {
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
                    deadline: None,
                    leases: BTreeSet::new(),
                    waiters: BTreeSet::new(),
                    lost: Vec::new(),
                    over: None,
                };
                self.sessions.insert(*key, session);
            }
            What::Joined { key, root } => self.apply_joined(*key, root),
            What::Passed {
                key,
                from,
                to,
                exit,
            } => self.apply_passed(*key, from, to, *exit),
            What::Left {
                key,
                process,
                killed,
            } => self.apply_left(*key, process, *killed),
            What::Prolonged { key, deadline, .. } => {
                if let Some(session) = self.sessions.get_mut(key) {
                    let before = session.deadline.replace(*deadline);
                    let due = Due::Session(*key);
                    if let Some(before) = before {
                        self.deadlines.remove(&(before.until, due));
                    }
                    self.deadlines.insert((deadline.until, due));
                }
            }
            What::SessionEnded { key, why } => self.apply_ended(*key, *why),
            What::Claimed { .. }
            | What::Handed { .. }
            | What::Queued { .. }
            | What::Granted { .. } => self.apply_grant(event),
            What::Released { name, .. } => self.apply_gone(name, false, event.at),
            What::Reaped { name, .. } | What::Expired { name, .. } | What::Broken { name, .. } => {
                self.apply_gone(name, true, event.at);
            }
            What::Limited { ino, deadline } => {
                self.unlimit(*ino);
                if let Some(inode) = self.inodes.get_mut(ino) {
                    inode.deadline = *deadline;
                    self.deadlines
                        .extend(deadline.map(|deadline| (deadline.until, Due::Claim(*ino))));
                }
            }
            What::Accepted { waiter } | What::LeftQueue { waiter } => self.apply_left_line(*waiter),
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
                    inode.bound = Some(Box::new(binding.clone()));
                    let uid = inode.content.uid;
                    self.bound.entry(binding.process).or_default().insert(*ino);
                    if !binding.passes {
                        self.count_binding(uid, true);
                    }
                }
            }
            What::Forgotten { ino } => self.drop_inode(*ino),
        }
    }

    /// A name has a holder, or will have.
    fn apply_grant(&mut self, event: &Event) {
        match &event.what {
            What::Claimed {
                name,
                token,
                key,
                ino,
                created,
                pid,
                command,
                maker,
            } => {
                self.next_token = self.next_token.max(token.0 + 1);
                let lease = Lease {
                    token: *token,
                    ino: *ino,
                    since: event.at,
                    pid: *pid,
                    command: Arc::clone(command),
                };
                self.apply_claimed(name, lease, *key, created.as_ref(), *maker);
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
            What::Queued {
                name,
                waiter,
                key,
                creation,
                pid,
                command,
                maker,
            } => {
                let place = Waiter {
                    key: *key,
                    since: event.at,
                    creation: creation.clone(),
                    pid: *pid,
                    command: Arc::clone(command),
                    maker: *maker,
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
            _ => {}
        }
    }

    fn apply_queued(&mut self, name: &Name, waiter: WaiterId, place: Waiter) {
        self.next_waiter = self.next_waiter.max(waiter.0 + 1);
        if let Some(session) = self.sessions.get_mut(&place.key) {
            session.waiters.insert(waiter);
        }
        self.waiting.insert(waiter, name.clone());
        let line = self.queues.entry(name.clone()).or_default();
        line.insert(waiter, place);
    }

    fn apply_left_line(&mut self, waiter: WaiterId) {
        self.granted.remove(&waiter);
        let Some(name) = self.waiting.remove(&waiter) else {
            return;
        };
        let Some(line) = self.queues.get_mut(&name) else {
            return;
        };
        if let Some(place) = line.remove(&waiter)
            && let Some(session) = self.sessions.get_mut(&place.key)
        {
            session.waiters.remove(&waiter);
        }
        if line.is_empty() {
            self.queues.remove(&name);
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
        self.inodes.get_mut(&claim).map(|inode| &mut *inode.below)
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
            below.bytes = (below.bytes + after).saturating_sub(before);
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
        child.links = child.links.saturating_sub(1);
        child.content.ctime = at;
        let is_directory = child.content.shape == Shape::Directory;
        if let Some(content) = self.content_mut(dir) {
            content.entries.remove(label, is_directory);
            content.touched(at);
        }
        if let Some(below) = self.below(dir) {
            below.entries = below.entries.saturating_sub(1);
        }
    }

    /// An inode goes, with all that is below it.
    fn drop_inode(&mut self, ino: Ino) {
        if let Some(child) = self.children.remove(&ino) {
            if let Some(claim) = self.inodes.get_mut(&child.claim) {
                claim.below.inodes.remove(&ino);
                let weight = child.content.weight();
                claim.below.bytes = claim.below.bytes.saturating_sub(weight);
            }
        } else if let Some(inode) = self.inodes.remove(&ino) {
            for below in &inode.below.inodes {
                self.children.remove(below);
            }
        }
    }

    fn unlimit(&mut self, ino: Ino) {
        let inode = self.inodes.get_mut(&ino);
        if let Some(deadline) = inode.and_then(|inode| inode.deadline.take()) {
            self.deadlines.remove(&(deadline.until, Due::Claim(ino)));
        }
    }

    fn unbind(&mut self, ino: Ino) {
        let inode = self.inodes.get_mut(&ino);
        let bound = inode.and_then(|inode| Some((inode.bound.take()?, inode.content.uid)));
        let Some((bound, uid)) = bound else {
            return;
        };
        // A process that claims pass by way of is watched as a root of its session.
        if !bound.passes {
            self.count_binding(uid, false);
        }
        let process = bound.process;
        if let Some(inodes) = self.bound.get_mut(&process) {
            inodes.remove(&ino);
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
            (there.registered, there.environ) = (root.registered, root.environ);
            there.above = root.above;
        } else {
            session.roots.push(root.clone());
            self.roots.entry(root.process).or_default().insert(key);
        }
    }

    /// Moves the leases that a process holds of a session to another process.
    fn apply_passed(&mut self, key: SessionKey, from: &Process, to: &Process, exit: Option<u8>) {
        let Some(session) = self.sessions.get(&key) else {
            return;
        };
        let root = session.roots.iter().find(|root| root.process == *from);
        let from_whom = root.map(|root| {
            Arc::new(Predecessor {
                pid: from.pid,
                command: Arc::clone(&root.command),
                exit,
            })
        });
        let moved: Vec<Ino> = self.held_by(key, from).collect();
        let Some(there) = self.bound.get_mut(from) else {
            return;
        };
        if moved.len() == there.len() {
            self.bound.remove(from);
        } else {
            there.retain(|ino| moved.binary_search(ino).is_err());
        }
        for ino in &moved {
            if let Some(bound) = self.inodes.get_mut(ino).and_then(|it| it.bound.as_mut()) {
                bound.process = *to;
                bound.from.clone_from(&from_whom);
            }
        }
        if !moved.is_empty() {
            self.bound.entry(*to).or_default().extend(moved);
        }
    }

    /// A root goes. Those below it are linked to the one above it, or, if it was killed, to nobody.
    /// What it still holds is lost, and to be swept.
    fn apply_left(&mut self, key: SessionKey, process: &Process, killed: Option<u8>) {
        self.unsettled.remove(process);
        let lost: usize = {
            let held = self.held_by(key, process);
            let inodes = held.filter_map(|ino| self.inodes.get(&ino));
            inodes.map(|inode| inode.names.len()).sum()
        };
        if let Some(session) = self.sessions.get_mut(&key) {
            let at = session
                .roots
                .iter()
                .position(|root| root.process == *process);
            let gone = at.map(|at| session.roots.remove(at));
            let above = match gone.map(|root| root.above).filter(|_| killed.is_none()) {
                Some(Above::Process(above)) => Above::Process(above),
                _ => Above::Nobody,
            };
            for root in &mut session.roots {
                if root.above == Above::Process(*process) {
                    root.above = above;
                }
            }
            for waiter in &session.waiters {
                let line = self.waiting.get(waiter);
                let line = line.and_then(|name| self.queues.get_mut(name));
                if let Some(place) = line.and_then(|line| line.get_mut(waiter))
                    && place.maker == Some(*process)
                {
                    place.maker = above.process();
                }
            }
            if lost > 0 && session.over.is_none() {
                session.lost.push(Lost {
                    process: *process,
                    signal: killed,
                    leases: lost,
                });
                self.unswept += lost;
                self.over.insert(key);
            }
        }
        self.unroot(key, process);
    }

    fn unroot(&mut self, key: SessionKey, process: &Process) {
        if let Some(keys) = self.roots.get_mut(process) {
            keys.remove(&key);
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
        if let Some(deadline) = session.deadline {
            self.deadlines.remove(&(deadline.until, Due::Session(key)));
        }
        let waiters = std::mem::take(&mut session.waiters);
        self.ids.remove(&session.id);
        self.unswept += session.leases.len().saturating_sub(session.lost_leases());
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
        maker: Option<Process>,
    ) {
        self.next_ino = self.next_ino.max(lease.ino.0 + 1);
        if let Some(creation) = created {
            let bound = maker.map(|process| {
                self.bound.entry(process).or_default().insert(lease.ino);
                Box::new(Binding {
                    process,
                    passes: true,
                    from: None,
                })
            });
            let content = Content::new(creation.clone(), BODY_MAX, lease.since);
            self.inodes.insert(
                lease.ino,
                Box::new(Inode {
                    holder: key,
                    names: Vec::with_capacity(1),
                    bound,
                    deadline: None,
                    content,
                    below: Rare::default(),
                }),
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
            .extend(deadline.map(|deadline| (deadline.until, Due::Claim(to))));
        self.renumber(&mut inode, from, to);
        self.inodes.insert(to, inode);
    }

    /// Gives what is inside a claim the numbers after the claim's own new one, so that descriptors of before are lost. What is
    /// only such a descriptor goes.
    fn renumber(&mut self, inode: &mut Inode, from: Ino, to: Ino) {
        let Some(below) = inode.below.changed() else {
            return;
        };
        let old = std::mem::take(&mut below.inodes);
        let next = (to.0 + 1..).map(Ino);
        let mut numbers: HashMap<Ino, Ino> = old.into_iter().zip(next).collect();
        self.next_ino = self.next_ino.max(to.0 + 1 + numbers.len() as u64);
        numbers.insert(from, to);
        let number = |ino: Ino| numbers.get(&ino).copied().unwrap_or(ino);
        for (was, is) in numbers.iter().filter(|(was, _)| **was != from) {
            let Some(mut child) = self.children.remove(was) else {
                continue;
            };
            if child.links == 0 {
                let weight = child.content.weight();
                below.bytes = below.bytes.saturating_sub(weight);
                continue;
            }
            (child.claim, child.dir) = (to, number(child.dir));
            child.content.entries.renumber(number);
            below.inodes.insert(*is);
            self.children.insert(*is, child);
        }
        inode.content.entries.renumber(number);
    }

    /// A name goes. The inode of a lost lease goes with it, so that descriptors answer ESTALE; that of a released one
    /// stays until it is forgotten, as an open file does on any filesystem.
    fn apply_gone(&mut self, name: &Name, lost: bool, at: SystemTime) {
        let Some(lease) = self.leases.remove(name) else {
            return;
        };
        self.names.remove(&lease.token);
        let holder = self.inodes.get(&lease.ino).and_then(|inode| {
            let bound = inode.bound.as_ref().map(|bound| bound.process);
            bound.filter(|_| self.is_lost(inode))
        });
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
        if nameless && (lost || over || holder.is_some()) {
            self.drop_inode(lease.ino);
        }
        if over || holder.is_some() {
            self.unswept = self.unswept.saturating_sub(1);
        }
        if let Some(session) = self.sessions.get_mut(&key) {
            session.leases.remove(&lease.token);
            if let Some(process) = holder {
                session.swept(&process);
            }
            if over && session.leases.is_empty() {
                self.sessions.remove(&key);
                self.over.remove(&key);
            } else if !over && session.lost.is_empty() {
                self.over.remove(&key);
            }
        }
    }
}
