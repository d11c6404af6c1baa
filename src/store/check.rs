//! Liveness, with the lock held. Each answer about a session or a lease is given after its holder
//! was checked.
//!
//! All functions have the locked state as their receiver, so that the signature proves the locking.
//!
//! Does not know: who asks, and why.

use std::time::{Duration, Instant};

use super::Inner;
use crate::core::identity::{Ancestry, Sight};
use crate::core::table::BELOW_MAX;
use crate::core::{
    Command, Due, Ending, Ino, Member, Name, Process, Refusal, Root, Rule, Scope, SessionId,
    SessionKey, Subject, Token,
};
use crate::process;

/// After a check of all sessions, a refusal causes no other one for this time.
const CHECK_ALL: Duration = Duration::from_millis(100);

impl Inner {
    /// Whether a process on which something depends is proven dead. All answers in one hold of the
    /// lock are as old as the first at most, and none is older than the request.
    pub(super) fn is_dead(&self, process: &Process) -> bool {
        let pulse = self.pulse.get().unwrap_or_else(|| self.processes.pulse());
        self.pulse.set(Some(pulse));
        self.processes.is_dead(process, pulse)
    }

    /// Checks whether a session is alive, and ends it if each of its roots is proven dead.
    pub(super) fn check_session(&mut self, key: SessionKey) -> bool {
        let Some(session) = self.table.session_by_key(key) else {
            return false;
        };
        if let Some(deadline) = session.deadline {
            let due = Due::Session(key);
            let is_over = session.is_alive() && self.is_past(deadline.until, due);
            if is_over {
                self.commit_own(&Command::Expire { due });
                self.processes.wake();
            }
            return !is_over;
        }
        if session
            .roots
            .iter()
            .any(|root| !self.is_dead(&root.process))
        {
            return true;
        }
        let dead: Vec<Process> = session.roots.iter().map(|root| root.process).collect();
        // With no root left, nothing passes to another process, so no ending need be waited for.
        for process in dead {
            let ending = self.processes.ending(&process);
            let ending = Some(ending.unwrap_or(Ending::Unknown));
            self.commit_own(&Command::Died { process, ending });
        }
        // Its names are free from now on. The reaper records the end of each lease.
        self.processes.wake();
        false
    }

    /// Checks every session. Whether any was over.
    pub(super) fn check_all_sessions(&mut self) -> bool {
        let sessions = self.table.sessions(SessionKey(0));
        let keys: Vec<SessionKey> = sessions.map(|session| session.key).collect();
        let mut over = false;
        for key in keys {
            over |= !self.check_session(key);
        }
        over
    }

    /// Checks every session, unless it did so lately and nothing has died since. A caller that is
    /// refused again and again must not delay all others.
    pub(super) fn check_all_sessions_at_times(&mut self) -> bool {
        let is_recent = self.checked.is_some_and(|at| at.elapsed() < CHECK_ALL);
        if is_recent && !self.processes.has_pending() {
            return false;
        }
        let over = self.check_all_sessions();
        self.checked = Some(Instant::now());
        over
    }

    /// Checks the liveness of a subject. If the caller is a root of the session, that is alive: the
    /// caller cannot exit before it has its answer.
    pub(super) fn check(&mut self, about: Subject, by: Option<&Ancestry>) {
        match about {
            Subject::Name(name) => self.check_name(name, by),
            Subject::Names(names, member) => {
                let mut left = BELOW_MAX + 1;
                for name in names {
                    self.check_name(name.as_str(), by);
                    self.check_paths(name, member, by, &mut left);
                }
            }
            Subject::Inode(ino) => {
                let node = self.table.node(ino);
                let node = node.filter(|node| !node.inode.names.is_empty());
                if let Some((claim, holder)) = node.map(|node| (node.claim, node.inode.holder)) {
                    self.check_holder(claim, holder, by);
                }
            }
            Subject::Session(id) => {
                if let Some(key) = self.table.session(id).map(|session| session.key) {
                    self.check_session(key);
                }
            }
            Subject::Roots(id) => self.check_roots(id),
            Subject::Nothing => {}
        }
    }

    fn check_name(&mut self, name: &str, by: Option<&Ancestry>) {
        let last = self.table.last(name);
        if let Some((ino, holder)) = last.map(|(lease, inode, _)| (lease.ino, inode.holder)) {
            self.check_holder(ino, holder, by);
        }
    }

    /// Checks the reservations above a path, and below it up to the first that another holds, or
    /// until so many live ones were found that the command is refused.
    fn check_paths(
        &mut self,
        path: &Name,
        member: &Member,
        by: Option<&Ancestry>,
        left: &mut usize,
    ) {
        if !path.is_path() {
            return;
        }
        for above in path.above() {
            self.check_name(above, by);
        }
        let mut last: Option<Name> = None;
        loop {
            let next = self.table.below(path, last.as_ref()).next().cloned();
            let Some(name) = next else {
                return;
            };
            self.check_name(name.as_str(), by);
            let lease = self.table.lease(&name);
            let inode = lease.and_then(|lease| self.table.inode(lease.ino));
            let is_live = inode.is_some();
            if inode.is_some_and(|inode| !self.table.holds(member, inode)) {
                return;
            }
            *left = left.saturating_sub(usize::from(is_live));
            if *left == 0 {
                return;
            }
            last = Some(name);
        }
    }

    fn check_holder(&mut self, ino: Ino, holder: SessionKey, by: Option<&Ancestry>) {
        if !by.is_some_and(|by| self.is_kept_alive(holder, by)) {
            self.check_session(holder);
        }
        self.check_terms(ino);
    }

    /// Whether a session is alive because the caller is a root of it.
    fn is_kept_alive(&self, key: SessionKey, by: &Ancestry) -> bool {
        let caller = by.caller().process;
        let session = self.table.session_by_key(key);
        session.is_some_and(|session| {
            session.is_alive()
                && session.deadline.is_none()
                && session.roots.iter().any(|root| root.process == caller)
        })
    }

    /// Checks the deadline of an inode's leases, and the process that holds them. If that is dead,
    /// they end, or the process above holds them and is checked too.
    pub(super) fn check_terms(&mut self, ino: Ino) {
        let due = Due::Claim(ino);
        let Some(inode) = self.table.inode(ino) else {
            return;
        };
        if inode
            .deadline
            .is_some_and(|deadline| self.is_past(deadline.until, due))
        {
            self.commit_own(&Command::Expire { due });
            return;
        }
        // In each round a process is removed, or the one above it is checked.
        let mut above: Option<Process> = None;
        loop {
            let Some(inode) = self.table.inode(ino) else {
                return;
            };
            let key = inode.holder;
            let bound = inode.bound.as_ref().map(|bound| bound.process);
            let Some(process) = above.or(bound) else {
                return;
            };
            if !self.is_dead(&process) {
                self.check_heir(key, &process);
                return;
            }
            let before = self.table.seq();
            self.died(process);
            above = if self.table.seq() == before {
                match self.table.above(key, &process) {
                    Some(above) => Some(above),
                    None => return,
                }
            } else {
                None
            };
        }
    }

    /// Checks the process above a holder, so that no record names a dead one as the heir. Each
    /// round removes one.
    fn check_heir(&mut self, key: SessionKey, holder: &Process) {
        while let Some(heir) = self.table.above(key, holder)
            && self.is_dead(&heir)
        {
            let before = self.table.seq();
            self.died(heir);
            if self.table.seq() == before {
                return;
            }
        }
    }

    /// Whether a deadline has passed, and is not postponed.
    fn is_past(&self, until: Duration, due: Due) -> bool {
        until <= process::now().boot && !self.is_postponed(until, due)
    }

    /// Whether a deadline that has passed is postponed: see [`super::arrivals`].
    fn is_postponed(&self, until: Duration, due: Due) -> bool {
        let (names, holder) = match due {
            Due::Claim(ino) => match self.table.inode(ino) {
                Some(inode) => (&inode.names[..], inode.holder),
                None => return false,
            },
            Due::Session(key) => (&[][..], key),
        };
        let Some(session) = self.table.session_by_key(holder) else {
            return false;
        };
        self.arrivals.is_postponed(until, session.uid, |concerns| {
            let is_of = |token: &Token| {
                let name = self.table.name(*token);
                name.is_some_and(|name| concerns.names.contains(name))
            };
            match due {
                Due::Claim(_) => names.iter().any(is_of),
                Due::Session(_) => concerns.sessions.contains(&session.id),
            }
        })
    }

    /// The next deadline that is not postponed.
    fn next_deadline(&self) -> Option<(Duration, Due)> {
        let mut deadlines = self.table.deadlines();
        deadlines.find(|(until, due)| !self.is_postponed(*until, *due))
    }

    /// Ends the lease or session with the next deadline, if that has passed. Whether it ended.
    pub(super) fn expire_next(&mut self) -> bool {
        let next = self.next_deadline();
        let past = next.filter(|(until, _)| *until <= process::now().boot);
        // The leases of a session that is over end in a sweep.
        past.is_some_and(|(until, due)| {
            self.commit_own(&Command::Expire { due }) && !self.table.has_deadline(until, due)
        })
    }

    /// Sets the alarm for the next deadline.
    pub(super) fn set_alarm(&mut self) {
        let next = self.next_deadline().map(|(until, _)| until);
        let next = next.into_iter().chain(self.scaffolding_alarm()).min();
        if next != self.alarm {
            self.alarm = next;
            self.processes.alarm(next);
        }
    }

    /// Checks every root of a session, and removes those that are proven dead.
    fn check_roots(&mut self, id: &SessionId) {
        let roots = self
            .table
            .session(id)
            .map_or(&[][..], |session| &session.roots);
        let dead = roots.iter().map(|root| root.process);
        let dead: Vec<Process> = dead.filter(|process| self.is_dead(process)).collect();
        for process in dead {
            self.died(process);
        }
    }

    /// The caller as a member of its session, which is alive or does not exist yet.
    pub(super) fn member(&mut self, ancestry: &Ancestry) -> Result<Member, Refusal> {
        let mut member = ancestry.member(|process, show| self.table.standings(process, show))?;
        if member.rule == Rule::Agent && ancestry.is_left_behind() {
            let roots = member.roots.iter().rev();
            let mut left = roots.filter_map(|root| self.table.left_behind(&root.process));
            if let Some(id) = left.next().cloned() {
                member.id = id;
            }
        }
        let key = self.table.session(&member.id).map(|session| session.key);
        if let Some(key) = key.filter(|key| !self.is_kept_alive(*key, ancestry)) {
            self.check_session(key);
        }
        if !self.processes.tells_endings() {
            (member.scope, member.heir) = (Scope::Session, None);
        }
        if member.rule == Rule::Posix && !self.is_same_terminal(ancestry, &member) {
            return Err(Refusal::NotPermitted);
        }
        Ok(member)
    }

    /// Whether the live session of this id, if there is one, is the POSIX session of the caller. If
    /// all processes leave a POSIX session by setsid(2), its number is used again while they live.
    fn is_same_terminal(&self, ancestry: &Ancestry, member: &Member) -> bool {
        let Some(session) = self.table.session(&member.id) else {
            return true;
        };
        let sid = ancestry.caller().sid;
        let kin = |root: &Root| member.roots.iter().any(|own| own.process == root.process);
        let there = |root: &Root| match self.processes.facts(root.process.pid) {
            Sight::Seen(facts) => facts.process == root.process && facts.sid == sid,
            Sight::Gone | Sight::Hidden | Sight::Failed => false,
        };
        session.roots.iter().any(kin) || session.roots.iter().any(there)
    }

    /// Whether a lease of the caller ends with it: the caller is the only root of its session, or
    /// no process above it inherits.
    pub(super) fn is_alone(&self, ancestry: &Ancestry, by: &Member) -> bool {
        let itself = ancestry.caller().process;
        let Some(session) = self.table.session(&by.id) else {
            return false;
        };
        match by.scope {
            Scope::Session => session.roots.iter().all(|root| root.process == itself),
            Scope::Process => self.table.above(session.key, &itself).is_none(),
        }
    }

    /// Records the death of a process. Until its ending is known, if that matters, the process
    /// above holds its leases (see `Table::holder`).
    pub(super) fn died(&mut self, process: Process) {
        let ending = self.processes.ending(&process);
        self.commit_own(&Command::Died { process, ending });
        if ending.is_none() && self.table.leave_unsettled(&process) {
            self.processes.watch_reaping(&process);
        }
    }
}
