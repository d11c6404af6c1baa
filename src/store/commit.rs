//! The write path, with the lock held: look at the holder, decide, watch, append, apply, publish.
//!
//! Everything here takes the locked state as its receiver, so that the signature proves the locking.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use log::Level;

use super::{Caller, Inner};
use crate::core::identity::{Ancestry, Sight};
use crate::core::printable;
use crate::core::{
    Command, Creation, Due, Ending, Event, Ino, Member, Place, Process, Refusal, Root, Rule, Scope,
    SessionId, SessionKey, Shape, Token, WaiterId, What,
};
use crate::handoff::{EVENT_HANDLE, Note, Open};
use crate::logging::{self, limited};
use crate::process::{self, Watch};
use crate::render;

/// How long nobody's refusal makes all sessions be looked at again.
const CHECK_ALL: Duration = Duration::from_millis(100);

/// How many leases of a session that is over are told of in the log, a line each: to write a line takes longer than all else.
const LOGGED: usize = 100;
// Their uid has room for them.
const _: () = assert!(LOGGED < logging::UID.burst as usize);

/// How many lines are written down with the table for readers of `events` that lag behind.
const LINES_KEPT: usize = 4096;

/// How much is written down, in bytes, of what one of them got last.
const LAST_KEPT: usize = 4096;

impl Inner {
    pub(super) fn next_lease(&self, after: Token) -> Option<(Token, SessionKey)> {
        let (_, lease) = self.table.leases(after).next()?;
        Some((lease.token, self.table.inode(lease.ino)?.holder))
    }

    /// Looks whether a session is alive, and ends it if every one of its roots is proven dead.
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
            .any(|root| !self.processes.is_dead(&root.process))
        {
            return true;
        }
        let dead: Vec<Process> = session.roots.iter().map(|root| root.process).collect();
        // Nobody is left to whom anything could pass.
        for process in dead {
            let ending = self.processes.ending(&process);
            let ending = Some(ending.unwrap_or(Ending::Unknown));
            self.commit_own(&Command::Died { process, ending });
        }
        // What it held is free from now on; that each lease is gone is written down by the reaper.
        self.processes.wake();
        false
    }

    /// Looks at every session. Whether any was over.
    pub(super) fn check_all_sessions(&mut self) -> bool {
        let sessions = self.table.sessions(SessionKey(0));
        let keys: Vec<SessionKey> = sessions.map(|session| session.key).collect();
        let mut over = false;
        for key in keys {
            over |= !self.check_session(key);
        }
        over
    }

    /// The same, but not again and again, unless something has died: whoever is refused without end
    /// is not to keep all others waiting.
    pub(super) fn check_all_sessions_at_times(&mut self) -> bool {
        let is_recent = self.checked.is_some_and(|at| at.elapsed() < CHECK_ALL);
        if is_recent && !self.processes.has_pending() {
            return false;
        }
        let over = self.check_all_sessions();
        self.checked = Some(Instant::now());
        over
    }

    pub(super) fn check_name(&mut self, name: &(impl AsRef<str> + ?Sized)) {
        if let Some((lease, inode, _)) = self.table.last(name) {
            let (ino, holder) = (lease.ino, inode.holder);
            self.check_session(holder);
            self.check_terms(ino);
        }
    }

    pub(super) fn check_inode(&mut self, ino: Ino) {
        let Some(node) = self.table.node(ino) else {
            return;
        };
        if !node.inode.names.is_empty() {
            let (claim, holder) = (node.claim, node.inode.holder);
            self.check_session(holder);
            self.check_terms(claim);
        }
    }

    /// Looks at the holder of what a caller asks for.
    pub(super) fn check_place(&mut self, place: &Place, by: &Ancestry) {
        match place {
            Place::Claim(name) => {
                let last = self.table.last(name);
                match last.map(|(lease, inode, _)| (lease.ino, inode.holder)) {
                    Some((ino, holder)) if self.is_kept_alive(holder, by) => self.check_terms(ino),
                    Some(_) => self.check_name(name),
                    None => {}
                }
            }
            Place::Inside { dir, .. } => self.check_inode(*dir),
        }
    }

    /// Whether a session is alive since the caller is a root of it: the caller cannot exit before it has its answer.
    fn is_kept_alive(&self, key: SessionKey, by: &Ancestry) -> bool {
        let caller = by.caller().process;
        let session = self.table.session_by_key(key);
        session.is_some_and(|session| {
            session.is_alive()
                && session.deadline.is_none()
                && session.roots.iter().any(|root| root.process == caller)
        })
    }

    /// Looks whether the process that holds an inode is alive and whether its deadline is ahead. If
    /// not, its leases end, or are held by the process above, at which is looked then.
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
        // Each time round, a process has gone, or is one higher.
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
            if !self.processes.is_dead(&process) {
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

    /// Looks whether the process above a holder is alive, so that no record names a dead one as the
    /// next. Each time round, one is struck out.
    fn check_heir(&mut self, key: SessionKey, holder: &Process) {
        while let Some(heir) = self.table.above(key, holder)
            && self.processes.is_dead(&heir)
        {
            let before = self.table.seq();
            self.died(heir);
            if self.table.seq() == before {
                return;
            }
        }
    }

    /// Whether a deadline has passed, as far as it is certain that nothing that came before moves it on.
    fn is_past(&self, until: Duration, due: Due) -> bool {
        until <= process::now().boot && !self.is_put_off(until, due)
    }

    /// Whether a deadline has passed, and a request waits that may move it on: see [`super::arrivals`].
    fn is_put_off(&self, until: Duration, due: Due) -> bool {
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
        self.arrivals.is_put_off(until, session.uid, |concerns| {
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

    /// The next deadline that is not put off.
    fn next_deadline(&self) -> Option<(Duration, Due)> {
        let mut deadlines = self.table.deadlines();
        deadlines.find(|(until, due)| !self.is_put_off(*until, *due))
    }

    /// Ends what has the next deadline, if that has passed. Whether it had.
    pub(super) fn expire_next(&mut self) -> bool {
        let next = self.next_deadline();
        let past = next.filter(|(until, _)| *until <= process::now().boot);
        // What a session that is over leaves behind goes when it is swept.
        past.is_some_and(|(until, due)| {
            self.commit_own(&Command::Expire { due }) && !self.table.has_deadline(until, due)
        })
    }

    /// Sets the alarm for the next deadline.
    pub(super) fn set_alarm(&mut self) {
        let next = self.next_deadline().map(|(until, _)| until);
        if next != self.alarm {
            self.alarm = next;
            self.processes.alarm(next);
        }
    }

    pub(super) fn check_session_id(&mut self, id: &SessionId) {
        if let Some(key) = self.table.session(id).map(|session| session.key) {
            self.check_session(key);
        }
    }

    /// Looks at every root of a session, and strikes out those that are proven dead.
    pub(super) fn check_roots(&mut self, id: &SessionId) {
        let roots = self
            .table
            .session(id)
            .map_or(&[][..], |session| &session.roots);
        let dead = roots.iter().map(|root| root.process);
        let dead: Vec<Process> = dead
            .filter(|process| self.processes.is_dead(process))
            .collect();
        for process in dead {
            self.died(process);
        }
    }

    /// The caller as a member; the session that it would join is alive, or does not exist.
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

    /// Whether the live session of this id, if there is one, is the POSIX session that the caller is in. The number of one
    /// whose processes have all left it, by setsid(2), is given out again, though they live: then it is another's.
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

    /// Whether what the caller claims ends with it: it is the only root of its session, or nothing
    /// passes beyond it.
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

    pub(super) fn claim(
        &mut self,
        caller: Caller,
        ancestry: &Ancestry,
        name: &Place,
        creation: Creation,
        exclusive: bool,
        truncate: bool,
    ) -> Result<Ino, Refusal> {
        let by = &self.member(ancestry)?;
        self.check_place(name, ancestry);
        let claim = Command::Claim {
            name: name.clone(),
            by,
            creation,
            exclusive,
            truncate,
        };
        match self.commit_request(caller, &claim) {
            // The dead hold no room either, though nobody has asked about them yet.
            Err(Refusal::Full | Refusal::Quota)
                if matches!(name, Place::Claim(_)) && self.check_all_sessions_at_times() =>
            {
                self.commit_request(caller, &claim)?;
            }
            result => result?,
        }
        self.table.at(name).ok_or(Refusal::Lost)
    }

    /// A process is dead. As long as nobody can tell how it ended, and that counts, the process
    /// above it stands for it.
    pub(super) fn died(&mut self, process: Process) {
        let ending = self.processes.ending(&process);
        self.commit_own(&Command::Died { process, ending });
        if ending.is_none() && self.table.is_unsettled(&process) {
            self.processes.watch_reaping(&process);
        }
    }

    pub(super) fn opened(&mut self, ino: Ino) {
        *self.opens.entry(ino).or_default() += 1;
    }

    pub(super) fn forget(&mut self, ino: Ino) {
        if !self.is_open(ino) {
            self.drop_nameless(ino);
        }
    }

    /// Whether somebody may have an inode open.
    fn is_open(&self, ino: Ino) -> bool {
        ino < self.inherited || self.opens.contains_key(&ino)
    }

    /// Nobody has an inode open: it is gone, if it has no name.
    pub(super) fn drop_nameless(&mut self, ino: Ino) {
        if !self.table.is_nameless(ino) {
            return;
        }
        let claim = self.table.node(ino).map(|node| node.claim);
        self.commit_own(&Command::Forget { ino });
        // The claim may have waited for the last that was open of what is inside it.
        if let Some(claim) = claim.filter(|claim| *claim != ino) {
            self.forget(claim);
        }
    }

    /// Carries out a command that no rule refuses. If it cannot be written down the state stays: held. Whether it could.
    pub(super) fn commit_own(&mut self, command: &Command) -> bool {
        let settled = self.commit(command, None);
        if let Err(refusal) = settled {
            limited!(
                None,
                Level::Error,
                "{command:?} could not be recorded ({refusal:?}); what it concerns stays held"
            );
        }
        settled.is_ok()
    }

    /// Carries out what a request asks for.
    pub(super) fn commit_request(
        &mut self,
        caller: Caller,
        command: &Command,
    ) -> Result<(), Refusal> {
        self.commit(command, Some(caller))
    }

    /// Writes down what is no event.
    pub(super) fn note(&mut self, note: Note, caller: Option<Caller>) {
        let sent = caller.map(|caller| caller.sent(self.handoff.lives));
        if let Err(error) = self.journal.note(&note, sent) {
            limited!(
                caller.map(|caller| caller.uid),
                Level::Warn,
                "{note:?} cannot be recorded, and is lost if this server is killed: {error}"
            );
        }
        self.handoff.note(note, sent);
        self.tidy();
    }

    fn tidy(&mut self) {
        let (handoff, stream) = (&self.handoff, &self.stream);
        self.journal.applied(&self.table, &mut || {
            let mut handoff = handoff.clone();
            let wanted = handoff.wanted();
            let kept = wanted.map(|wanted| stream.since(wanted, LINES_KEPT));
            (handoff.lines, handoff.lines_from) = kept.unwrap_or_default();
            // Of those that lag behind more than that, what they got last, should they ask for it again.
            for (fh, open) in &mut handoff.open {
                if let Open::Reading {
                    from, last, missed, ..
                } = open
                    && from.seq < handoff.lines_from
                {
                    (*last, *missed) = stream.left_out(fh - EVENT_HANDLE, handoff.lines_from);
                    if last.len() > LAST_KEPT {
                        last.clear();
                    }
                }
            }
            handoff
        });
    }

    /// The write path.
    pub(super) fn commit(
        &mut self,
        command: &Command,
        caller: Option<Caller>,
    ) -> Result<(), Refusal> {
        let mut events = self.decide(command, caller)?;
        if events.is_empty() {
            return Ok(());
        }
        let gone = self.table.gone_with(&events, |ino| self.is_open(ino));
        events.extend(gone);
        let dead = self.watch(&events, caller)?;
        let sent = caller.map(|caller| caller.sent(self.handoff.lives));
        let mut appended = self.journal.append(&events, sent);
        if is_full(&appended) {
            self.tidy();
            appended = self.journal.append(&events, sent);
        }
        if let Err(error) = appended {
            limited!(
                caller.map(|caller| caller.uid),
                Level::Error,
                "the journal refuses {} events: {error}",
                events.len()
            );
            self.unwatch(&events);
            return Err(if error.kind() == io::ErrorKind::StorageFull {
                Refusal::Full
            } else {
                Refusal::Failed
            });
        }
        let mut nameless = Vec::new();
        let mut concerned = Vec::new();
        let mut freed = Vec::new();
        let has_readers = self.stream.has_readers();
        for event in &events {
            if has_readers && let Some(line) = render::event(&self.table, event) {
                self.stream.publish(event.seq, line);
            }
            concerned.extend(self.concerned(&event.what));
            nameless.extend(self.loses_name(&event.what));
            freed.extend(self.frees_roots(&event.what));
            self.publish(event);
            self.handoff.observe(&self.table, event);
            self.table.apply(event);
        }
        if let Some(sent) = sent {
            self.handoff.answers(sent, &events);
        }
        self.tidy();
        // Only now: what one event lets go of, a later one of the same decision may hold on to.
        for process in freed
            .iter()
            .filter(|process| !self.table.depends_on(process))
        {
            self.processes.forget(process);
        }
        for ino in nameless {
            self.forget(ino);
        }
        for process in dead {
            self.died(process);
        }
        for waiter in concerned {
            self.stream.tell(waiter);
        }
        self.set_alarm();
        if self.table.wants_sweep() {
            self.processes.wake();
        }
        Ok(())
    }

    /// Decides. A waiter that would be granted something and is dying by now, though it cannot die before its read is
    /// answered, is struck from its line first.
    fn decide(&mut self, command: &Command, caller: Option<Caller>) -> Result<Vec<Event>, Refusal> {
        loop {
            let mut now = process::now();
            if let Some(arrived) = caller.and_then(|caller| caller.arrived) {
                now.boot = arrived;
            }
            let events = self.table.decide(command, now)?;
            // Nothing is granted to the dead, though nobody may have looked at them yet.
            let receiver = events.iter().find_map(|event| match &event.what {
                What::Handed { key, .. } => Some(*key),
                _ => None,
            });
            let before = self.table.seq();
            if receiver.is_some_and(|key| !self.check_session(key)) && self.table.seq() > before {
                continue;
            }
            let granted = events.iter().filter_map(|event| match &event.what {
                What::Granted { waiter, .. } => {
                    let place = self.table.waiter(*waiter)?;
                    Some((*waiter, place.key, place.pid))
                }
                _ => None,
            });
            let granted: Vec<(WaiterId, SessionKey, u32)> = granted.collect();
            if granted.iter().any(|(_, key, _)| !self.check_session(*key))
                && self.table.seq() > before
            {
                continue;
            }
            let doomed = granted
                .iter()
                .find(|(waiter, key, pid)| {
                    // The number is the waiter's as long as that is a root of its session, and alive.
                    let session = self.table.session_by_key(*key);
                    let mut roots = session.iter().flat_map(|session| &session.roots);
                    let is_alive = roots.any(|root| {
                        root.process.pid == *pid && !self.processes.is_dead(&root.process)
                    });
                    if is_alive {
                        self.processes.is_doomed(*pid)
                    } else {
                        self.handoff.unconfirmed.contains(waiter)
                    }
                })
                .map(|(waiter, ..)| *waiter);
            match doomed {
                Some(waiter) if self.commit_own(&Command::Leave { waiter }) => {}
                _ => return Ok(events),
            }
        }
    }

    /// The waiters for whom an event changes something, before it is applied: their turn has come, their session holds the name by
    /// another way, or they are in no line any more.
    fn concerned(&self, what: &What) -> Vec<WaiterId> {
        match what {
            What::Granted { waiter, .. } | What::LeftQueue { waiter } => vec![*waiter],
            What::SessionEnded { key, .. } => {
                let session = self.table.session_by_key(*key);
                session
                    .into_iter()
                    .flat_map(|session| session.waiters.iter().copied())
                    .collect()
            }
            What::Claimed { name, key, .. } | What::Handed { name, key, .. } => {
                let line = self.table.queue(name);
                line.filter(|(_, place)| place.key == *key)
                    .map(|(waiter, _)| waiter)
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// Watches the processes that become roots, before anything is granted that depends on them. Those that are dead
    /// by now are returned: they are reported once they are roots.
    fn watch(&self, events: &[Event], caller: Option<Caller>) -> Result<Vec<Process>, Refusal> {
        let mut dead = Vec::new();
        for (process, environ) in joining(events) {
            match self.processes.watch(process, environ) {
                Ok(Watch::Watched) => {}
                Ok(Watch::Dead) => dead.push(*process),
                Err(error) => {
                    limited!(
                        caller.map(|caller| caller.uid),
                        Level::Error,
                        "pid {} cannot be watched, so nothing is granted to it: {error}",
                        process.pid
                    );
                    self.unwatch(events);
                    return Err(if process::is_shortage(&error) {
                        Refusal::Shortage
                    } else {
                        Refusal::Failed
                    });
                }
            }
        }
        Ok(dead)
    }

    fn unwatch(&self, events: &[Event]) {
        let joining = joining(events).map(|(process, _)| process);
        for process in joining.filter(|process| !self.table.depends_on(process)) {
            self.processes.forget(process);
        }
    }

    fn loses_name(&self, what: &What) -> Option<Ino> {
        match what {
            What::Released { name, .. } => self.table.last(name).map(|(lease, ..)| lease.ino),
            What::Unlinked { dir, label } => self.table.entry(*dir, label),
            _ => None,
        }
    }

    fn frees_roots(&self, what: &What) -> Vec<Process> {
        match what {
            What::Left { process, .. } => vec![*process],
            What::Released { name, .. }
            | What::Reaped { name, .. }
            | What::Expired { name, .. }
            | What::Handed { name, .. }
            | What::Broken { name, .. } => {
                let bound = self
                    .table
                    .last(name)
                    .and_then(|(_, inode, _)| inode.bound.as_ref());
                bound.map(|bound| bound.process).into_iter().collect()
            }
            What::Bound { ino, .. } => {
                let bound = self
                    .table
                    .inode(*ino)
                    .and_then(|inode| inode.bound.as_ref());
                bound.map(|bound| bound.process).into_iter().collect()
            }
            What::SessionEnded { key, .. } => {
                let session = self.table.session_by_key(*key);
                session
                    .into_iter()
                    .flat_map(|session| &session.roots)
                    .map(|root| root.process)
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// Tells those who watch the directory of a name that goes without a call that removes it.
    fn tell_watchers(&self, what: &What) {
        let (name, by_call) = match what {
            What::Reaped { name, .. } | What::Expired { name, .. } | What::Broken { name, .. } => {
                (name, false)
            }
            // Where its session was ended, too.
            What::Released { name, .. } => (name, true),
            _ => return,
        };
        if let Some((_, inode, session)) = self.table.last(name)
            && (!by_call || !session.is_alive())
        {
            let is_directory = inode.content.shape == Shape::Directory;
            self.notifier.tell(name, is_directory);
        }
    }

    /// Tells the world: the log and the counters, before the state is what the event makes of it.
    fn publish(&self, event: &Event) {
        self.tell_watchers(&event.what);
        match &event.what {
            What::Claimed { name, .. }
            | What::Released { name, .. }
            | What::Reaped { name, .. }
            | What::Expired { name, .. }
            | What::Handed { name, .. }
                if name.is_scratch() => {}
            What::Claimed { .. } => _ = self.metrics.grants.fetch_add(1, Relaxed),
            What::Released { .. } => _ = self.metrics.releases.fetch_add(1, Relaxed),
            What::Reaped { name, signal, .. } => {
                self.metrics.reaps.fetch_add(1, Relaxed);
                if let Some((lease, inode, session)) = self.table.last(name) {
                    let level = if session.leases.len() > LOGGED {
                        Level::Debug
                    } else if render::is_trap(lease, session, event.at) {
                        Level::Warn
                    } else {
                        Level::Info
                    };
                    let text = || render::obituary(name, lease, inode, session, *signal, event.at);
                    limited!(Some(session.uid), level, "{}", text());
                }
            }
            What::SessionEnded { key, .. } => {
                let session = self.table.session_by_key(*key);
                if let Some(session) = session.filter(|session| session.leases.len() > LOGGED) {
                    limited!(
                        Some(session.uid),
                        Level::Info,
                        "session {} is over, and its {} claims are free; 'events' tells of each, and this log of the last {LOGGED}",
                        session.id,
                        session.leases.len(),
                    );
                }
            }
            What::Expired { name, .. } => {
                self.metrics.expiries.fetch_add(1, Relaxed);
                if let Some((lease, inode, session)) = self.table.last(name) {
                    let ttl = inode
                        .deadline
                        .map(|deadline| deadline.ttl)
                        .unwrap_or_default();
                    limited!(
                        Some(session.uid),
                        Level::Info,
                        "expired claims/{name}: session {} did not renew it for {:.3} s; token {}",
                        session.id,
                        ttl.as_secs_f64(),
                        lease.token.0,
                    );
                }
            }
            What::Handed {
                name, key, token, ..
            } => {
                self.metrics.handovers.fetch_add(1, Relaxed);
                if let Some((lease, _, giver)) = self.table.last(name)
                    && let Some(session) = self.table.session_by_key(*key)
                {
                    limited!(
                        Some(giver.uid),
                        Level::Info,
                        "handed claims/{name}: session {} gave it to session {}; token {}, now {}",
                        giver.id,
                        session.id,
                        lease.token.0,
                        token.0,
                    );
                }
            }
            What::Broken {
                name,
                uid,
                pid,
                command,
                ..
            } => {
                self.metrics.breaks.fetch_add(1, Relaxed);
                if let Some((lease, _, session)) = self.table.last(name) {
                    let by = format!("uid {uid} (pid {pid}, {})", printable(command));
                    limited!(
                        Some(*uid),
                        Level::Warn,
                        "broken claims/{name}: {by} took it from session {} (pid {}, {}), which lives; token {}",
                        session.id,
                        lease.pid,
                        printable(&lease.command),
                        lease.token.0,
                    );
                }
            }
            _ => {}
        }
    }
}

fn is_full(result: &io::Result<()>) -> bool {
    let error = result.as_ref().err();
    error.is_some_and(|error| error.kind() == io::ErrorKind::StorageFull)
}

/// The processes that something will depend on, and as which of its execs each is known: see [`Root::environ`].
fn joining(events: &[Event]) -> impl Iterator<Item = (&Process, u64)> {
    events.iter().filter_map(|event| match &event.what {
        What::Joined { root, .. } => Some((&root.process, root.environ)),
        What::Bound { binding, .. } => Some((&binding.process, 0)),
        _ => None,
    })
}
