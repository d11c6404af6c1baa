//! Reads of the table's state.
//!
//! Promises: no read shows a lost lease or a session that is over, except [`Table::last`] and the
//! reads that say so.
//!
//! Does not know: what is refused, or how the state came to be (`apply`).

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::{Inode, Lease, Node, Session, Table};
use crate::core::{
    Due, End, EndedBy, Event, Ino, Label, Member, Name, Place, Process, Root, Rule, SessionId,
    SessionKey, Standing, Token, WaiterId, What,
};

impl Session {
    /// True if it is not over.
    pub fn is_alive(&self) -> bool {
        self.over.is_none()
    }

    /// True if a lease that no process of it holds is held by all of them. In a terminal's session
    /// it is not: the holder is another script.
    pub fn shares(&self) -> bool {
        self.rule != Rule::Posix
    }

    /// The number of its leases that are lost while it lives.
    pub(super) fn lost_leases(&self) -> usize {
        self.lost.iter().map(|lost| lost.leases).sum()
    }

    /// Counts a swept lease of a dead process.
    pub(super) fn swept(&mut self, process: &Process) {
        for lost in &mut self.lost {
            if lost.process == *process {
                lost.leases = lost.leases.saturating_sub(1);
            }
        }
        self.lost.retain(|lost| lost.leases > 0);
    }

    /// One of its roots.
    pub fn root(&self, process: &Process) -> Option<&Root> {
        self.roots.iter().find(|root| root.process == *process)
    }

    /// The command name of a process that is a root, or was one and left leases that are not swept
    /// yet.
    pub fn command_of(&self, process: &Process) -> Option<&Arc<str>> {
        let root = self.root(process).map(|root| &root.command);
        root.or_else(|| {
            let mut lost = self.lost.iter();
            lost.find(|lost| lost.process == *process)?.command.as_ref()
        })
    }

    /// Who ended it on purpose, if it is known.
    pub fn ended_by(&self) -> Option<&EndedBy> {
        self.ended_by.as_deref()
    }

    /// True if it was ended on purpose.
    pub fn was_ended(&self) -> bool {
        self.over == Some(End::Ended)
    }
}

impl Table {
    /// The number of the newest event.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The largest number of leases.
    pub fn max_leases(&self) -> usize {
        self.max_leases
    }

    /// The number of leases.
    pub fn lease_count(&self) -> usize {
        self.leases.len() - self.unswept
    }

    /// The number of entries in all maps: 0 once every process is dead and nothing is open.
    pub fn remembered(&self) -> usize {
        let people = self.sessions.len() + self.ids.len() + self.roots.len() + self.over.len();
        let names = self.leases.len() + self.names.len() + self.unswept;
        let inodes = self.inodes.len() + self.children.len();
        let queues =
            self.queues.len() + self.waiting.len() + self.granted.len() + self.grantees.len();
        self.shares.len()
            + self.watched
            + people
            + names
            + inodes
            + queues
            + self.bound.len()
            + self.makers.len()
            + self.unsettled.len()
            + self.deadlines.len()
    }

    /// Every process that a session or a lease depends on, with its [`Root::environ`] or 0.
    pub fn processes(&self) -> impl Iterator<Item = (&Process, u64)> {
        let sessions = self.sessions.values();
        let roots = sessions.flat_map(|session| &session.roots);
        let roots = roots.map(|root| (&root.process, root.environ));
        roots.chain(self.bound.keys().map(|process| (process, 0)))
    }

    /// Every waiter, also those that have not read their grant yet.
    pub fn waiters(&self) -> impl Iterator<Item = WaiterId> {
        self.waiting.keys().chain(self.granted.keys()).copied()
    }

    /// Every inode without a name.
    pub fn nameless(&self) -> impl Iterator<Item = Ino> {
        let children = self.children.iter().filter(|(_, child)| child.links == 0);
        let claims = self
            .inodes
            .iter()
            .filter(|(_, inode)| inode.names.is_empty());
        let children = children.map(|(ino, _)| *ino);
        children.chain(claims.map(|(ino, _)| *ino))
    }

    /// The names of all leases, swept or not.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.names.after(Token(0)).map(|(_, name)| name)
    }

    /// The number of roots of all sessions. A process may be counted several times.
    pub fn root_count(&self) -> usize {
        self.sessions
            .values()
            .map(|session| session.roots.len())
            .sum()
    }

    /// An estimate of the size of a snapshot, in bytes, from the numbers of things alone. It costs
    /// the same however many there are.
    pub fn weight(&self) -> usize {
        1000 + 500 * self.leases.len().max(self.inodes.len())
            + 400 * self.children.len()
            + 300 * self.sessions.len()
            + 200 * self.roots.len()
            + 300 * self.waiting.len()
            + 50 * self.paths.len()
    }

    /// The number of sessions.
    pub fn session_count(&self) -> usize {
        self.ids.len()
    }

    /// The lease of a name.
    pub fn lease(&self, name: &(impl AsRef<str> + ?Sized)) -> Option<&Lease> {
        let lease = self.leases.get(name.as_ref());
        lease.filter(|lease| self.is_held(lease))
    }

    /// The leases after a token, in the order of their grants.
    pub fn leases(&self, after: Token) -> impl Iterator<Item = (&Name, &Lease)> {
        let rest = self.names.after(after);
        rest.filter_map(|(_, name)| Some((name, self.lease(name)?)))
    }

    /// The first claim after a token, in the order of their grants. If none of so many is held: the
    /// last token of these, which are not swept yet.
    pub fn claim_after(&self, after: Token, limit: usize) -> Result<Option<&Lease>, Token> {
        let mut last = after;
        for (at, (token, name)) in self.names.claims_after(after).enumerate() {
            if at == limit {
                return Err(last);
            }
            last = token;
            if let Some(lease) = self.lease(name) {
                return Ok(Some(lease));
            }
        }
        Ok(None)
    }

    /// The number of leases that are over and not swept yet.
    pub fn unswept(&self) -> usize {
        self.unswept
    }

    /// The inode of a claim, also while it is only open and has no name.
    pub fn inode(&self, ino: Ino) -> Option<&Inode> {
        self.inodes
            .get(&ino)
            .map(|inode| &**inode)
            .filter(|inode| inode.names.is_empty() || self.holds_still(inode))
    }

    /// An inode that [`Table::inode`] shows, or one inside it.
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
        self.node(dir)?.content().entries().get(label)
    }

    /// The inode at a place.
    pub fn at(&self, place: &Place) -> Option<Ino> {
        match place {
            Place::Claim(name) => self.lease(name).map(|lease| lease.ino),
            Place::Inside { dir, label } => self.entry(*dir, label),
        }
    }

    /// If the events are the release of a name whose inode nobody has open, the event that removes
    /// the inode too.
    pub fn gone_with(&self, events: &[Event], is_open: impl FnOnce(Ino) -> bool) -> Option<Event> {
        let [event] = events else { return None };
        let What::Released { name, token } = &event.what else {
            return None;
        };
        let (lease, inode, _) = self.last(name)?;
        let is_last = inode.names == [*token] && inode.below().inodes.is_empty();
        (is_last && !is_open(lease.ino)).then(|| Event {
            seq: event.seq + 1,
            at: event.at,
            what: What::Forgotten { ino: lease.ino },
        })
    }

    /// True if the inode has no name, and no inode inside it is open.
    pub fn is_nameless(&self, ino: Ino) -> bool {
        match self.children.get(&ino) {
            Some(child) => child.links == 0,
            None => self
                .inodes
                .get(&ino)
                .is_some_and(|inode| inode.names.is_empty() && inode.below().inodes.is_empty()),
        }
    }

    /// The name of a token.
    pub fn name(&self, token: Token) -> Option<&Name> {
        self.names.get(token)
    }

    /// The lease of a name with its inode and its session, also if the lease is lost and not swept
    /// yet.
    pub fn last(&self, name: &(impl AsRef<str> + ?Sized)) -> Option<(&Lease, &Inode, &Session)> {
        let lease = self.leases.get(name.as_ref())?;
        let inode = self.inodes.get(&lease.ino)?;
        Some((lease, inode, self.sessions.get(&inode.holder)?))
    }

    /// The session of an id, if it is not over.
    pub fn session(&self, id: &SessionId) -> Option<&Session> {
        self.sessions.get(self.ids.get(id)?)
    }

    /// The session of a key, also if it is over.
    pub fn session_by_key(&self, key: SessionKey) -> Option<&Session> {
        self.sessions.get(&key)
    }

    /// The sessions after a key that are not over.
    pub fn sessions(&self, after: SessionKey) -> impl Iterator<Item = &Session> {
        let rest = self
            .sessions
            .range((Bound::Excluded(after), Bound::Unbounded));
        rest.map(|(_, session)| session)
            .filter(|session| session.over.is_none())
    }

    /// Shows each session that a process is a root of.
    pub fn standings<'a>(&'a self, process: &Process, show: &mut dyn FnMut(Standing<'a>)) {
        let keys = self.roots.get(process).into_iter().flatten();
        for session in keys.filter_map(|key| self.sessions.get(key)) {
            let itself = |root: &&Root| root.process == *process;
            if let Some(root) = session.roots.iter().find(itself) {
                show(Standing {
                    id: &session.id,
                    rule: session.rule,
                    registered: root.registered,
                    environ: root.environ,
                });
            }
        }
    }

    /// The live session of an agent that a process is a root of.
    pub fn left_behind(&self, process: &Process) -> Option<&SessionId> {
        let sessions = self.roots.get(process)?.iter();
        let mut sessions = sessions.filter_map(|key| self.sessions.get(key));
        let theirs = sessions.find(|session| session.rule == Rule::Agent);
        theirs.map(|session| &session.id)
    }

    /// True if a session without processes exists, which survives a loss of power.
    pub fn outlives_machine(&self) -> bool {
        self.sessions
            .values()
            .any(|session| session.rule == Rule::Remote)
    }

    /// True if there are leases for [`crate::core::Command::Sweep`].
    pub fn wants_sweep(&self) -> bool {
        !self.over.is_empty()
    }

    /// The first deadline, as time since boot.
    pub fn next_deadline(&self) -> Option<(Duration, Due)> {
        self.deadlines.first().copied()
    }

    /// All deadlines in their order.
    pub fn deadlines(&self) -> impl Iterator<Item = (Duration, Due)> {
        self.deadlines.iter().copied()
    }

    /// True if this deadline exists.
    pub fn has_deadline(&self, until: Duration, due: Due) -> bool {
        self.deadlines.contains(&(until, due))
    }

    /// True if a session or a lease depends on the process.
    pub fn depends_on(&self, process: &Process) -> bool {
        self.roots.contains_key(process) || self.bound.contains_key(process)
    }

    /// True if the member holds the inode. If a process holds it, the member must be that process,
    /// or be below it and still of the same session.
    pub fn holds(&self, by: &Member, inode: &Inode) -> bool {
        let is_own = || self.joinable(by).ok().flatten() == Some(inode.holder);
        let Some(holder) = self.holder(inode) else {
            return is_own();
        };
        let mut lineage = by.lineage.iter().map(|kin| kin.process);
        if lineage.next() == Some(holder) {
            let session = self.sessions.get(&inode.holder);
            return session.is_some_and(|session| session.uid == by.uid);
        }
        lineage.any(|above| above == holder) && is_own()
    }

    /// The process that holds an inode. `None` if the whole session does.
    pub fn holder(&self, inode: &Inode) -> Option<Process> {
        let bound = inode.bound.as_ref()?;
        let mut holder = bound.process;
        while bound.passes && self.unsettled.contains(&holder) {
            match self.above(inode.holder, &holder) {
                Some(above) => holder = above,
                None => break,
            }
        }
        Some(holder)
    }

    /// The process to which the leases of a root pass when it exits.
    pub fn above(&self, key: SessionKey, process: &Process) -> Option<Process> {
        let root = self.sessions.get(&key)?.root(process)?;
        root.above.process()
    }

    /// The processes to which the leases of a process pass, one after another as each exits.
    pub fn heirs(&self, key: SessionKey, process: &Process) -> Vec<Process> {
        let roots = self
            .sessions
            .get(&key)
            .map_or(0, |session| session.roots.len());
        let above = |process: &Process| self.above(key, process);
        let chain = std::iter::successors(above(process), above);
        chain.take(roots).collect()
    }

    /// Records that a process is dead and its ending is not known yet. False if it is no root.
    pub fn leave_unsettled(&mut self, process: &Process) -> bool {
        let is_root = self.roots.contains_key(process);
        if is_root {
            self.unsettled.insert(*process);
        }
        is_root
    }

    /// The inodes that a process holds of a session under process scope, also if they are lost.
    pub(super) fn held_by<'a>(
        &'a self,
        key: SessionKey,
        process: &Process,
    ) -> impl Iterator<Item = Ino> + use<'a> {
        let inodes = self.bound.get(process).into_iter().flatten();
        let is_held = move |ino: &&Ino| {
            let inode = self.inodes.get(ino);
            let is_of = |inode: &Inode| {
                let passes = inode.bound.as_ref().is_some_and(|bound| bound.passes);
                passes && inode.holder == key
            };
            inode.is_some_and(|inode| is_of(inode))
        };
        inodes.filter(is_held).copied()
    }

    /// The names that a process holds of a session under process scope, without scratch entries.
    pub fn held_names(&self, key: SessionKey, process: &Process) -> Vec<&Name> {
        let inodes = self.held_by(key, process);
        let inodes = inodes.filter_map(|ino| self.inodes.get(&ino));
        let names = inodes.flat_map(|inode| &inode.names);
        let names = names.filter_map(|token| self.names.get(*token));
        names.filter(|name| !name.is_scratch()).collect()
    }

    /// True if the process that held the inode is dead and it passed to nobody.
    pub(super) fn is_lost(&self, inode: &Inode) -> bool {
        inode.bound.as_ref().is_some_and(|bound| {
            let keys = self.roots.get(&bound.process);
            bound.passes && !keys.is_some_and(|keys| keys.contains(&inode.holder))
        })
    }

    /// True if the inode is not lost and its session is not over.
    pub(super) fn holds_still(&self, inode: &Inode) -> bool {
        self.is_alive(inode.holder) && !self.is_lost(inode)
    }

    pub(super) fn is_alive(&self, key: SessionKey) -> bool {
        self.sessions
            .get(&key)
            .is_some_and(|session| session.over.is_none())
    }

    fn is_held(&self, lease: &Lease) -> bool {
        self.inodes
            .get(&lease.ino)
            .is_some_and(|inode| self.holds_still(inode))
    }
}
