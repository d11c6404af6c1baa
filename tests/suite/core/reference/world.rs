//! A table and the reference side by side: each step is done to both, and then they must show the
//! same.
//!
//! A second table is made from the journal alone. It takes part in every step, and replaces the
//! first when the server dies.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::time::{Duration, UNIX_EPOCH};

use claimfs::core::table::Table;
use claimfs::core::{
    Command, Ino, Moment, Name, RemoteSession, SessionId, SessionKey, Token, WaiterId,
};
use claimfs::handoff::Handoff;
use claimfs::journal::Log;
use claimfs::journal::{self, Disk, Live};
use claimfs::process::Boot;

use super::commands::{errno, member, process};
use super::rules::Reference;
use super::same::{Outcome, same};
use super::words::{self, Answer, Caller, IDS, NAMED, NAMES, Op, PEOPLE, is_path};
use crate::core::woken::Waiters;
use crate::support::TempDir;

/// A name, and how it went.
pub(super) type Gone = (u8, &'static str);

pub struct World {
    limits: (usize, usize),
    pub table: Table,
    /// Made of the newest snapshot of the table and of the events since.
    pub(super) replay: Table,
    disk: Option<(TempDir, Disk)>,
    pub reference: Reference,
    pub(super) names: Vec<Name>,
    pub(super) ids: Vec<SessionId>,
    /// The clock that people read, which no crash sets back.
    wall: u64,
    people: Vec<Caller>,
    stopped: [bool; PEOPLE.len()],
    /// Dead, and the table does not know it yet.
    untold: Vec<words::Process>,
    /// Descriptors: whose, of which file, and its inode.
    pub(super) open: Vec<(u8, u64, Ino)>,
    /// Whose places are.
    seats: Vec<(u8, u64)>,
    /// The server dies in the middle of the next append.
    tears: Option<u64>,
    /// The holder of each name by the events, with the newest token of all.
    pub(super) holders: [Option<Token>; NAMES.len()],
    pub(super) newest: u64,
    pub(super) newest_ino: u64,
    pub(super) went: Vec<Gone>,
    /// The answers that there were.
    pub answers: BTreeSet<&'static str>,
}

fn boot() -> Boot {
    Boot {
        id: "this-boot".into(),
        pidns: 7,
    }
}

impl World {
    pub fn new(limits: (usize, usize), on_disk: bool) -> Self {
        let caller = |(number, (id, uid, terminal)): (usize, (&'static str, u32, bool))| Caller {
            id,
            uid,
            terminal,
            named: false,
            me: (100 + number as u32, 1),
        };
        let empty = || {
            let mut table = Table::new(limits.0);
            table.limit_each(limits.1);
            table
        };
        let mut world = Self {
            limits,
            table: empty(),
            replay: empty(),
            disk: None,
            reference: Reference {
                limits,
                now: 1,
                ..Reference::default()
            },
            names: NAMES
                .map(|name| Name::listed(name.as_bytes()).unwrap())
                .to_vec(),
            ids: IDS
                .map(|id| SessionId::new(id.as_bytes()).unwrap())
                .to_vec(),
            wall: 1,
            people: PEOPLE.into_iter().enumerate().map(caller).collect(),
            stopped: [false; PEOPLE.len()],
            untold: Vec::new(),
            open: Vec::new(),
            seats: Vec::new(),
            tears: None,
            holders: [None; NAMES.len()],
            newest: 0,
            newest_ino: 0,
            went: Vec::new(),
            answers: BTreeSet::new(),
        };
        if on_disk {
            let dir = TempDir::in_memory();
            let recovered = journal::read(dir.path(), &boot(), limits.0, false).unwrap();
            let connection = Handoff::new("this");
            let disk = Disk::begin(dir.path(), boot(), &recovered, &connection).unwrap();
            world.disk = Some((dir, disk));
        }
        world
    }

    /// Does a step to both, and compares them.
    pub fn step(&mut self, op: Op) -> Outcome {
        self.perform(op)?;
        // As the store does: what has no name and is not open is forgotten.
        let nameless: Vec<Ino> = self.table.nameless().collect();
        for ino in nameless {
            if self.open.iter().all(|(_, _, open)| *open != ino) {
                while !self.happen(&Command::Forget { ino })? {}
            }
        }
        self.compare()
    }

    fn perform(&mut self, op: Op) -> Outcome {
        match op {
            Op::Close(at) => {
                if !self.open.is_empty() {
                    self.open.remove(at as usize % self.open.len());
                }
            }
            Op::Accept(at) => {
                if let Some((_, place)) = self.seat(at) {
                    let waiter = WaiterId(place);
                    if self.happen(&Command::Accept { waiter })? {
                        self.reference
                            .step(Op::Accept(place), Caller::default())
                            .unwrap();
                    }
                }
            }
            Op::Leave(at) => {
                if let Some((_, place)) = self.seat(at) {
                    self.leave(place)?;
                }
            }
            Op::Kill(who, told) => self.kill(who, told)?,
            Op::Tell => self.tell()?,
            Op::Stop(who, stops) => self.stopped[who as usize] = stops,
            Op::Wait(seconds, looks) => {
                self.wall += seconds;
                self.reference.now += seconds;
                if looks {
                    self.expire()?;
                }
            }
            Op::Sweep(limit) => {
                let limit = limit as usize;
                self.happen(&Command::Sweep { limit })?;
            }
            Op::Crash => self.recover()?,
            Op::Tear(at) => self.tears = Some(at),
            Op::Remount => self.remount()?,
            Op::Reboot => {
                self.recover()?;
                for who in 0..PEOPLE.len() as u8 {
                    self.kill(who, true)?;
                }
                self.tell()?;
                self.remount()?;
                self.reference.now = 1;
                let there: Vec<_> = self.table.sessions(SessionKey(0)).collect();
                let keys: Vec<_> = there.iter().map(|session| session.key).collect();
                for key in keys {
                    while !self.happen(&Command::Restart { key })? {}
                }
                for session in &mut self.reference.sessions {
                    session.deadline = session.deadline.map(|(ttl, _)| (ttl, 1 + ttl));
                }
            }
            Op::WriteTo(_, _) if self.open.is_empty() => {}
            // There is no queue for paths, and sessions without processes reserve none.
            Op::Queue(_, name) | Op::Hold(_, name, _) | Op::Yield(_, name) if is_path(name) => {}
            Op::GiveBelow(_, name, _) if !is_path(name) => {}
            Op::Hold(who, ..) | Op::Yield(who, ..) => {
                let (id, uid) = NAMED[who as usize % NAMED.len()];
                let by = Caller {
                    id,
                    uid,
                    named: true,
                    ..Caller::default()
                };
                self.ask(op, by)?;
            }
            _ => {
                if let Some(by) = self.caller(op) {
                    self.ask(op, by)?;
                }
            }
        }
        Ok(())
    }

    /// The caller, unless it is stopped.
    fn caller(&self, op: Op) -> Option<Caller> {
        let (Op::Claim(who, ..)
        | Op::Open(who, ..)
        | Op::Write(who, ..)
        | Op::WriteTo(who, ..)
        | Op::Release(who, ..)
        | Op::Rename(who, ..)
        | Op::Exchange(who, ..)
        | Op::Link(who, ..)
        | Op::Limit(who, ..)
        | Op::Give(who, ..)
        | Op::Break(who, ..)
        | Op::Join(who, ..)
        | Op::End(who, ..)
        | Op::EndOwn(who, ..)
        | Op::Queue(who, ..)
        | Op::Take(who, ..)
        | Op::Drop(who, ..)
        | Op::GiveBelow(who, ..)) = op
        else {
            return None;
        };
        let mut by = self.people[who as usize];
        if let Op::Join(_, id, _) = op {
            (by.id, by.terminal) = (IDS[id as usize], false);
        }
        (!self.stopped[who as usize]).then_some(by)
    }

    fn now(&self) -> Moment {
        Moment {
            wall: UNIX_EPOCH + Duration::from_secs(self.wall),
            boot: Duration::from_secs(self.reference.now),
        }
    }

    /// Both perform the request, and answer alike.
    fn ask(&mut self, op: Op, by: Caller) -> Outcome {
        let op = match op {
            Op::WriteTo(who, at) => Op::WriteTo(who, at % self.open.len() as u64),
            op => op,
        };
        let id = SessionId::new(by.id.as_bytes()).unwrap();
        let registers = matches!(op, Op::Join(..));
        let member = member(&by, id.clone(), registers);
        let chain = [process(by.me)];
        let named = RemoteSession {
            id,
            uid: by.uid,
            pidns: 0,
            gid: by.uid,
        };
        let command = self.command(op, &member, &chain, &named);
        let seen = match command {
            Ok(command) => self.decide(&command)?,
            Err(errno) => Err(errno),
        };
        if seen == Ok(false) {
            // It never came to be written down, nor answered.
            return Ok(());
        }
        let seen = seen.map(|_| ());
        let for_reference = match op {
            Op::WriteTo(who, at) => Op::WriteTo(who, self.open[at as usize].1),
            op => op,
        };
        let expected = self.reference.step(for_reference, by);
        same!(seen, expected, "{op:?}");
        self.answers.insert(seen.err().unwrap_or("done"));
        if seen.is_ok() {
            self.asked(op, by);
        }
        Ok(())
    }

    /// The part of an answer that the caller sees.
    fn asked(&mut self, op: Op, by: Caller) {
        match op {
            Op::Open(who, name, _) => {
                let ino = self.table.lease(&self.names[name as usize]).unwrap().ino;
                let file = self.reference.lease(name).unwrap().file;
                self.open.push((who, file, ino));
            }
            Op::Join(who, ..) => self.people[who as usize] = by,
            Op::Queue(who, _) => {
                let place = self.reference.places;
                if self.seats.last().is_none_or(|(_, last)| *last < place) && place > 0 {
                    self.seats.push((who, place));
                }
            }
            _ => {}
        }
    }

    // Events that no caller asks for.

    fn seat(&self, at: u64) -> Option<(u8, u64)> {
        let at = (at as usize).checked_rem(self.seats.len())?;
        self.seats.get(at).copied()
    }

    fn leave(&mut self, place: u64) -> Outcome {
        let waiter = WaiterId(place);
        while !self.happen(&Command::Leave { waiter })? {}
        self.reference
            .step(Op::Leave(place), Caller::default())
            .unwrap();
        self.seats.retain(|(_, there)| *there != place);
        Ok(())
    }

    fn kill(&mut self, who: u8, told: bool) -> Outcome {
        let person = &mut self.people[who as usize];
        self.untold.push(person.me);
        let (id, _, terminal) = PEOPLE[who as usize];
        (person.id, person.terminal) = (id, terminal);
        person.me.1 += 1;
        self.stopped[who as usize] = false;
        if told {
            self.tell()?;
        }
        self.open.retain(|(whose, ..)| *whose != who);
        let theirs = self.seats.iter().filter(|(whose, _)| *whose == who);
        let theirs: Vec<u64> = theirs.map(|(_, place)| *place).collect();
        for place in theirs {
            self.leave(place)?;
        }
        Ok(())
    }

    fn tell(&mut self) -> Outcome {
        for dead in std::mem::take(&mut self.untold) {
            let process = process(dead);
            while !self.happen(&Command::Died {
                process,
                ending: Some(claimfs::core::Ending::Exited(0)),
            })? {}
            self.reference.died(dead);
        }
        Ok(())
    }

    /// As the reaper does: what is due, and then what is over, which may stand before what is due.
    fn expire(&mut self) -> Outcome {
        let now = Duration::from_secs(self.reference.now);
        for _ in 0..1000 {
            let next = self.table.next_deadline();
            if let Some((until, due)) = next {
                // Before its time, nothing comes of it.
                let done = self.happen(&Command::Expire { due })?;
                if until <= now && (!done || self.table.next_deadline() != next) {
                    continue;
                }
            }
            if !self.table.wants_sweep() {
                break;
            }
            self.happen(&Command::Sweep { limit: 3 })?;
        }
        self.reference.expire();
        Ok(())
    }

    fn remount(&mut self) -> Outcome {
        self.recover()?;
        self.open.clear();
        while let Some((_, place)) = self.seats.first().copied() {
            self.leave(place)?;
        }
        Ok(())
    }

    /// All that is needed for nothing to be left.
    pub fn end(&mut self) -> Outcome {
        for who in 0..PEOPLE.len() as u8 {
            self.step(Op::Kill(who, who % 2 == 0))?;
        }
        self.step(Op::Tell)?;
        self.step(Op::Wait(1 << 20, true))?;
        while self.table.wants_sweep() {
            self.step(Op::Sweep(2))?;
        }
        same!(self.table.remembered(), 0, "what is left");
        same!(
            self.holders,
            [None::<Token>; NAMES.len()],
            "who holds what by the events"
        );
        Ok(())
    }

    // The journal.

    /// Decides, writes to the journal and applies, unless the server dies in between.
    fn decide(&mut self, command: &Command) -> Outcome<Answer<bool>> {
        let events = match self.table.decide(command, self.now()) {
            Ok(events) => events,
            Err(refusal) => return Ok(Err(errno(refusal))),
        };
        if events.is_empty() {
            return Ok(Ok(true));
        }
        let torn = self.tears.take();
        if let Some((dir, disk)) = &mut self.disk {
            let path = dir.path().join("journal");
            let file = OpenOptions::new().write(true).open(path).unwrap();
            let size = || file.metadata().unwrap().len();
            let before = size();
            disk.append(&events, None).unwrap();
            if let Some(at) = torn {
                file.set_len(before + at % (size() - before)).unwrap();
            }
        }
        if torn.is_some() {
            self.recover()?;
            return Ok(Ok(false));
        }
        let (waiters, mut woken) = (Waiters::of(&self.table), Vec::new());
        for event in &events {
            self.watch(event)?;
            woken.extend(self.table.apply(event).woken);
            self.replay.apply(event);
        }
        waiters.check(&self.table, &woken)?;
        if let Some((_, disk)) = &mut self.disk {
            disk.compact_if_due(&self.table, Live::default()).unwrap();
        }
        Ok(Ok(true))
    }

    /// A command that is never refused; false if the server died in it.
    fn happen(&mut self, command: &Command) -> Outcome<bool> {
        let done = self.decide(command)?;
        done.map_err(|errno| format!("{command:?} is refused: {errno}"))
    }

    /// Goes on from the journal, with a new picture of what it says.
    fn recover(&mut self) -> Outcome {
        let (most, each) = self.limits;
        let snapshot = serde_json::to_string(&self.replay).unwrap();
        let read: Table = serde_json::from_str(&snapshot).unwrap();
        let mut read = read.completed(most);
        read.limit_each(each);
        same!(read == self.table, true, "what a picture of the table says");
        if let Some((dir, disk)) = self.disk.take() {
            drop(disk);
            let mut recovered = journal::read(dir.path(), &boot(), most, false)
                .map_err(|error| format!("the journal cannot be read: {}", error.text))?;
            recovered.table.limit_each(each);
            same!(recovered.table == self.table, true, "what the journal says");
            let connection = Handoff::new("this");
            let disk = Disk::begin(dir.path(), boot(), &recovered, &connection).unwrap();
            self.replay = recovered.table;
            self.disk = Some((dir, disk));
        }
        self.table = std::mem::replace(&mut self.replay, read);
        Ok(())
    }
}
