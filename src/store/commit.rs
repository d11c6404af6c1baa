//! The write path, with the lock held: check the holder, decide, watch, append, apply, publish.
//!
//! All functions have the locked state as their receiver, so that the signature proves the locking.
//!
//! Promises: a process is watched before anything is granted that depends on it. An event that
//! cannot be appended is not applied.
//!
//! Does not know: the rules, or how the journal is written or compacted.

use std::collections::HashMap;
use std::io;

use log::Level;

use super::observers::{Observed, Observers};
use super::{Caller, Inner, Principal};
use crate::core::{Command, Event, Ino, NodeId, Outcome, Process, Refusal, SessionKey, WaiterId};
use crate::handoff::{Note, Open, Sent};
use crate::logging::{self, limited};
use crate::process::{self, Watch};
use crate::render;
use crate::sys::descriptors::is_shortage;

// A session that ends logs no more lines than one uid may log at once.
const _: () = assert!(render::LOGGED < logging::UID.burst as usize);

impl Inner {
    /// Carries out a command, after the liveness of its subjects was checked.
    pub(super) fn carry_out(
        &mut self,
        who: &Principal,
        command: &Command,
    ) -> Result<Outcome, Refusal> {
        let by = who.ancestry().ok().map(|ancestry| &**ancestry);
        for about in command.subjects() {
            self.check(about, by);
        }
        if let Command::Take { names, by, .. } = command {
            self.check_directories(names, by.uid)?;
        }
        let next = self.table.next_ino();
        let mut outcome = match self.commit(command, who.caller) {
            // Sessions that are dead, and that nobody has asked about since, may hold the space.
            Err(Refusal::Full | Refusal::Quota)
                if command.takes_name() && self.check_all_sessions_at_times() =>
            {
                self.commit(command, who.caller)?
            }
            result => result?,
        };
        if let Command::Claim { name, .. } = command {
            outcome.ino = self.table.at(name);
            outcome.is_new = outcome.ino >= Some(next);
        }
        Ok(outcome)
    }

    /// Counts a descriptor of an inode.
    pub(super) fn opened(&mut self, ino: Ino) {
        *self.opens.entry(ino).or_default() += 1;
    }

    /// Drops an inode that has no name and no descriptor.
    pub(super) fn forget(&mut self, ino: Ino) {
        if !self.is_open(ino) {
            self.drop_nameless(ino);
        }
    }

    /// Whether a descriptor of an inode may be open.
    fn is_open(&self, ino: Ino) -> bool {
        ino < self.inherited || self.opens.contains_key(&ino)
    }

    /// Drops an inode that has no name. The caller knows that it has no descriptor.
    pub(super) fn drop_nameless(&mut self, ino: Ino) {
        if !self.table.is_nameless(ino) {
            return;
        }
        let claim = self.table.node(ino).map(|node| node.claim);
        self.commit_own(&Command::Forget { ino });
        // A claim without a name stays while an entry of it is open.
        if let Some(claim) = claim.filter(|claim| *claim != ino) {
            self.forget(claim);
        }
    }

    /// Carries out a command that no rule refuses. False if it cannot be appended: then the state
    /// stays as it was, so what is held stays held.
    pub(super) fn commit_own(&mut self, command: &Command) -> bool {
        let committed = self.commit(command, None);
        if let Err(refusal) = committed {
            limited!(
                None,
                Level::Error,
                "{command:?} could not be recorded ({refusal:?}); what it concerns stays held"
            );
        }
        committed.is_ok()
    }

    /// Appends and applies a note. If it cannot be appended, nothing happens, and the answer is
    /// ENOSPC or EIO.
    pub(super) fn note_surely(&mut self, note: Note, caller: Caller) -> Result<(), Refusal> {
        let sent = Some(caller.sent(self.handoff.lives));
        let noted = self.journal.note(&note, sent);
        if let Err(error) = noted {
            self.compact_if_due();
            return Err(refusal(&error));
        }
        self.handoff.note(note, sent);
        self.compact_if_due();
        Ok(())
    }

    /// Appends and applies a note. `caller` has the request that opened the descriptor, if one did.
    pub(super) fn note(&mut self, mut note: Note, caller: Option<Caller>) {
        if let Note::Opened { fh, open } = &mut note {
            self.add_what_is_left_out(*fh, open);
        }
        let sent = caller.map(|caller| caller.sent(self.handoff.lives));
        if let Err(error) = self.journal.note(&note, sent) {
            self.unrecorded += 1;
            limited!(
                caller.map(|caller| caller.uid),
                Level::Warn,
                "{note:?} cannot be recorded, and is lost if this server is killed: {error}"
            );
        }
        self.handoff.note(note, sent);
        self.compact_if_due();
    }

    /// Has the journal compacted, if it is due.
    fn compact_if_due(&mut self) {
        if self.journal.is_due(&self.table) {
            self.compaction.ask();
        }
    }

    /// Lets the journal go on in its newest form: see [`crate::journal::Log::settled`].
    pub(super) fn settle(&mut self) {
        self.journal.settled();
        self.compact_if_due();
    }

    /// A reader of `events` may be behind the lines that the journal has since it was compacted.
    fn add_what_is_left_out(&self, fh: NodeId, open: &mut Open) {
        let lines_from = self.handoff.lines_from;
        if let (NodeId::Reader(reader), Open::Reading(reading)) = (&fh, open)
            && reading.from.seq < lines_from
        {
            let left_out = self.stream.left_out(*reader, reading.from.seq, lines_from);
            (reading.missed, reading.again) = (left_out.unread, left_out.read);
        }
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
        self.append(&events, sent).map_err(|error| {
            limited!(
                caller.map(|caller| caller.uid),
                Level::Error,
                "the journal refuses {} events: {error}",
                events.len()
            );
            self.unwatch(&events);
            refusal(&error)
        })?;
        let is_line = command.is_line();
        let followers = (&mut self.history, &mut self.listings);
        let mut observers = Observers::new(&self.stream, &self.metrics, followers, is_line);
        let outcome = self
            .handoff
            .commit(&mut self.table, &events, sent, &mut observers);
        let observed = observers.observed;
        let uid = caller.map_or(0, |caller| caller.uid);
        self.follow_up(observed, dead, uid);
        Ok(outcome)
    }

    /// Appends events to the journal. If the disk is full, a compaction may make room for the next.
    fn append(&mut self, events: &[Event], sent: Option<Sent>) -> io::Result<()> {
        let appended = self.journal.append(events, sent);
        if appended.is_err() {
            self.compact_if_due();
        }
        appended
    }

    /// Does what follows from a decision once all its events are applied. `dead` are new roots that
    /// died before they were watched. `uid` is that of the caller.
    fn follow_up(&mut self, observed: Observed, dead: Vec<Process>, uid: u32) {
        let Observed {
            unneeded,
            unlinked,
            woken,
            vanished,
            shifts,
        } = observed;
        self.vanished.extend(vanished);
        self.shift(shifts, uid);
        self.compact_if_due();
        // A later event of the decision may depend on a process that an earlier one released.
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
            self.stream.wake_ups.tell(waiter);
        }
        self.set_alarm();
        if self.table.wants_sweep() {
            self.processes.wake();
        }
    }

    /// Decides. Sessions that would be granted something and are over end first, and waiters that
    /// are dying leave their queue first. Then the decision is made again.
    fn decide(&mut self, command: &Command, caller: Option<Caller>) -> Result<Vec<Event>, Refusal> {
        loop {
            let mut now = process::now();
            if let Some(arrived) = caller.and_then(|caller| caller.arrived) {
                now.boot = arrived;
            }
            let events = self.table.decide(command, now)?;
            if self.ends_receiver(&events) {
                continue;
            }
            let doomed = self.doomed(&events);
            // All at once: to decide again after each of a thousand would take minutes.
            let mut have_left = false;
            for waiter in doomed {
                have_left |= self.commit_own(&Command::Leave { waiter });
            }
            if !have_left {
                return Ok(events);
            }
        }
    }

    /// The waiters that are dying, of those that events grant a name to. Many may be of one
    /// process, which is looked at once.
    fn doomed(&self, events: &[Event]) -> Vec<WaiterId> {
        let mut known: HashMap<(SessionKey, u32), Option<bool>> = HashMap::new();
        let granted = self.granted(events).into_iter();
        let doomed = granted.filter(|(waiter, key, pid)| {
            let process = known.entry((*key, *pid));
            let is_doomed = *process.or_insert_with(|| self.is_process_doomed(*key, *pid));
            is_doomed.unwrap_or_else(|| self.handoff.descriptors.unconfirmed.contains(waiter))
        });
        doomed.map(|(waiter, ..)| waiter).collect()
    }

    /// Checks the sessions to which events grant something. Whether one ended, so that the decision
    /// no longer holds.
    fn ends_receiver(&mut self, events: &[Event]) -> bool {
        let before = self.table.seq();
        let receiver = events.iter().find_map(Event::receiver);
        if receiver.is_some_and(|key| !self.check_session(key)) && self.table.seq() > before {
            return true;
        }
        let granted = self.granted(events).into_iter();
        let mut keys: Vec<SessionKey> = granted.map(|(_, key, _)| key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.iter().any(|key| !self.check_session(*key)) && self.table.seq() > before
    }

    /// The waiters that events grant a name to.
    fn granted(&self, events: &[Event]) -> Vec<Grant> {
        let granted = events.iter().filter_map(Event::granted_waiter);
        let granted = granted.filter_map(|waiter| {
            let place = self.table.waiter(waiter)?;
            Some((waiter, place.key, place.pid))
        });
        granted.collect()
    }

    /// Whether a waiting process is dying. It cannot die before its call is answered. `None` if it
    /// is no root of its session that lives: then a waiter of it is dying if its descriptor may
    /// never have arrived.
    fn is_process_doomed(&self, key: SessionKey, pid: u32) -> Option<bool> {
        // The pid is the waiter's while a live root of its session has it.
        let session = self.table.session_by_key(key);
        let mut roots = session.iter().flat_map(|session| &session.roots);
        let is_alive = roots.any(|root| root.process.pid == pid && !self.is_dead(&root.process));
        is_alive.then(|| self.processes.is_doomed(pid))
    }

    /// Watches the processes that become roots, before anything is granted that depends on them.
    /// Returns those that are dead by now. `follow_up` records their deaths.
    fn watch(&self, events: &[Event], caller: Option<Caller>) -> Result<Vec<Process>, Refusal> {
        let (mut dead, mut watched) = (Vec::new(), Vec::new());
        for (process, environ) in events.iter().filter_map(Event::dependence) {
            match self.processes.watch(process, environ) {
                Ok(Watch::Watched) => watched.push(process),
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
        if !watched.is_empty() {
            let pulse = self.processes.pulse();
            let has_died = |process: &&&Process| self.processes.is_dead(process, pulse);
            dead.extend(watched.iter().filter(has_died).copied());
        }
        Ok(dead)
    }

    /// Takes back [`Inner::watch`].
    fn unwatch(&self, events: &[Event]) {
        let joining = events.iter().filter_map(Event::dependence);
        let joining = joining.map(|(process, _)| process);
        for process in joining.filter(|process| !self.table.depends_on(process)) {
            self.processes.forget(process);
        }
    }
}

/// A waiter, its session and the pid that waits.
type Grant = (WaiterId, SessionKey, u32);

/// The refusal of a command whose events cannot be appended.
fn refusal(error: &io::Error) -> Refusal {
    if error.kind() == io::ErrorKind::StorageFull {
        Refusal::Full
    } else {
        Refusal::Failed
    }
}
