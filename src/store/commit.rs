//! The write path, with the lock held: look at the holder, decide, watch, append, apply, publish.
//!
//! Everything here takes the locked state as its receiver, so that the signature proves the locking.

use std::io;

use log::Level;

use super::observers::{Observed, Observers};
use super::{Caller, Inner, Principal};
use crate::core::{
    Command, Event, Ino, NodeId, Outcome, Process, Refusal, SessionKey, Token, WaiterId,
};
use crate::handoff::{Note, Open};
use crate::logging::{self, limited};
use crate::process::{self, Watch};
use crate::render;
use crate::sys::descriptors::is_shortage;

// The log has room for the lines of one session.
const _: () = assert!(render::LOGGED < logging::UID.burst as usize);

/// How many lines are written down with the table for readers of `events` that lag behind.
const LINES_KEPT: usize = 4096;

/// How much is written down, in bytes, of what one of them got last.
const LAST_KEPT: usize = 4096;

impl Inner {
    pub(super) fn next_lease(&self, after: Token) -> Option<(Token, SessionKey)> {
        let (_, lease) = self.table.leases(after).next()?;
        Some((lease.token, self.table.inode(lease.ino)?.holder))
    }

    /// Carries out a command for whoever asks, after a look at what it is about.
    pub(super) fn carry_out(
        &mut self,
        who: &Principal,
        command: &Command,
    ) -> Result<Outcome, Refusal> {
        let by = who.ancestry().ok().map(|ancestry| &**ancestry);
        for about in command.subjects() {
            self.check(about, by);
        }
        let next = self.table.next_ino();
        let mut outcome = match self.commit(command, who.caller) {
            // The dead hold no room either, though nobody has asked about them yet.
            Err(Refusal::Full | Refusal::Quota)
                if command.takes_name() && self.check_all_sessions_at_times() =>
            {
                self.commit(command, who.caller)?
            }
            result => result?,
        };
        if let Command::Claim { name, .. } = command {
            // Its own already, or new.
            outcome.ino = self.table.at(name);
            outcome.is_new = outcome.ino >= Some(next);
        }
        Ok(outcome)
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
                if let (NodeId::Reader(reader), Open::Reading(reading)) = (fh, open)
                    && reading.from.seq < handoff.lines_from
                {
                    (reading.last, reading.missed) = stream.left_out(*reader, handoff.lines_from);
                    if reading.last.len() > LAST_KEPT {
                        reading.last.clear();
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
    ) -> Result<Outcome, Refusal> {
        let mut events = self.decide(command, caller)?;
        if events.is_empty() {
            return Ok(Outcome::default());
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
        let mut observers = Observers::new(&self.stream, &self.metrics);
        let outcome = self
            .handoff
            .commit(&mut self.table, &events, sent, &mut observers);
        let Observed {
            unneeded,
            unlinked,
            woken,
            vanished,
        } = observers.observed;
        self.vanished.extend(vanished);
        self.tidy();
        // Only now: what one event lets go of, a later one of the same decision may hold on to.
        for process in &unneeded {
            if !self.table.depends_on(process) {
                self.processes.forget(process);
            }
        }
        for ino in unlinked {
            self.forget(ino);
        }
        for process in dead {
            self.died(process);
        }
        for waiter in woken {
            self.stream.tell(waiter);
        }
        self.set_alarm();
        if self.table.wants_sweep() {
            self.processes.wake();
        }
        Ok(outcome)
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
            let receiver = events.iter().find_map(Event::receiver);
            let before = self.table.seq();
            if receiver.is_some_and(|key| !self.check_session(key)) && self.table.seq() > before {
                continue;
            }
            let granted = events.iter().filter_map(Event::granted_waiter);
            let granted = granted.filter_map(|waiter| {
                let place = self.table.waiter(waiter)?;
                Some((waiter, place.key, place.pid))
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

    /// Watches the processes that become roots, before anything is granted that depends on them. Those that are dead
    /// by now are returned: they are reported once they are roots.
    fn watch(&self, events: &[Event], caller: Option<Caller>) -> Result<Vec<Process>, Refusal> {
        let mut dead = Vec::new();
        for (process, environ) in events.iter().filter_map(Event::dependence) {
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
                    return Err(if is_shortage(&error) {
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
        let joining = events.iter().filter_map(Event::dependence);
        let joining = joining.map(|(process, _)| process);
        for process in joining.filter(|process| !self.table.depends_on(process)) {
            self.processes.forget(process);
        }
    }
}

fn is_full(result: &io::Result<()>) -> bool {
    let error = result.as_ref().err();
    error.is_some_and(|error| error.kind() == io::ErrorKind::StorageFull)
}
