//! Compares the table with the reference, and checks the table's events on their own.

use claimfs::core::table;
use claimfs::core::{Event, SessionId, Token, WaiterId, What};

use super::commands::process;
use super::words::{NAMES, Session, is_above};
use super::world::World;

/// The failure, as a sentence.
pub type Outcome<T = ()> = Result<T, String>;

macro_rules! same {
    ($seen:expr, $expected:expr, $($what:tt)+) => {
        let (seen, expected) = (&$seen, &$expected);
        if seen != expected {
            let what = format!($($what)+);
            return Err(format!("{what}: the table says {seen:?}, the reference {expected:?}"));
        }
    };
}

pub(super) use same;

impl World {
    /// By the events alone: a name is granted when nobody has it, and tokens rise.
    pub(super) fn watch(&mut self, event: &Event) -> Outcome {
        if let What::Claimed { ino, created, .. } = &event.what
            && created.is_some()
        {
            same!(ino.0 > self.newest_ino, true, "{ino:?} is new");
            self.newest_ino = ino.0;
        }
        let (name, was, is, how) = match &event.what {
            What::Claimed { name, token, .. } => (name, None, Some(*token), ""),
            What::Handed {
                name, was, token, ..
            } => (name, Some(*was), Some(*token), ""),
            What::Released { name, token } => (name, Some(*token), None, "released"),
            What::Reaped { name, token, .. } => (name, Some(*token), None, "reaped"),
            What::Expired { name, token } => (name, Some(*token), None, "expired"),
            What::Broken { name, token, .. } => (name, Some(*token), None, "broken"),
            _ => return Ok(()),
        };
        let at = self.names.iter().position(|there| there == name).unwrap();
        same!(self.holders[at], was, "{event:?} while that is held by");
        self.holders[at] = is;
        let held = (0..NAMES.len() as u8).filter(|name| self.holders[*name as usize].is_some());
        let held: Vec<u8> = held.collect();
        let overlaps = |one: &u8| held.iter().any(|other| is_above(*one, *other));
        same!(held.iter().any(overlaps), false, "{event:?}: two overlap");
        if let Some(Token(token)) = is {
            same!(
                token > self.newest,
                true,
                "token {token} is granted after {}",
                self.newest
            );
            self.newest = token;
        } else {
            self.went.push((at as u8, how));
        }
        Ok(())
    }

    pub(super) fn compare(&mut self) -> Outcome {
        same!(
            self.replay == self.table,
            true,
            "a replay of the journal is the same"
        );
        for (name, how) in self.went.drain(..) {
            let gone = &mut self.reference.gone;
            let first = gone.iter().position(|(there, _)| *there == name);
            let expected = first.map(|first| gone.remove(first).1);
            same!(Some(how), expected, "how {} went", NAMES[name as usize]);
        }
        let (table, reference) = (&self.table, &self.reference);
        let unswept = table.names().count() - table.lease_count();
        same!(unswept, reference.gone.len(), "how many are to be swept");
        same!(
            table.lease_count(),
            reference.leases.len(),
            "how many leases"
        );
        let mut files = Vec::new();
        for (number, name) in self.names.iter().enumerate() {
            let there = table.lease(name);
            let lease = reference.lease(number as u8).ok();
            let holder = table.last(name).filter(|_| there.is_some());
            let seen = holder.map(|(_, inode, session)| {
                (
                    session.id.as_str(),
                    inode.deadline.map(|it| it.until.as_secs()),
                )
            });
            let expected = lease.map(|lease| {
                let holder = reference.sessions.iter().find(|it| it.key == lease.key);
                (
                    holder.map_or("", |it| it.by.id),
                    lease.deadline.map(|(_, until)| until),
                )
            });
            same!(seen, expected, "who holds {name}, until when");
            files.extend(
                there
                    .zip(lease)
                    .map(|(there, lease)| (there.ino, lease.file)),
            );
            let line = table.queue(name).map(|(waiter, _)| waiter.0);
            let places = reference
                .line
                .iter()
                .filter(|place| place.1 == number as u8);
            let (seen, expected): (Vec<_>, Vec<_>) =
                (line.collect(), places.map(|it| it.0).collect());
            same!(seen, expected, "who waits for {name}");
        }
        for (ino, file) in &files {
            let one = files.iter().filter(|(other, _)| other == ino).count();
            let same = files.iter().filter(|both| **both == (*ino, *file)).count();
            let other = files.iter().filter(|(_, other)| other == file).count();
            same!((one, one), (same, other), "the names of a file");
        }
        for (_, file, ino) in &self.open {
            same!(
                table.inode(*ino).is_none(),
                reference.lost.contains(file),
                "whether {ino:?} is lost"
            );
        }
        let known = reference.granted.iter().map(|(place, grant)| {
            let holds = reference.leases.iter().any(|lease| lease.grant == *grant);
            table.granted(WaiterId(*place)).is_some() == holds
        });
        same!(
            known.into_iter().all(|is| is),
            true,
            "what is granted to whom"
        );
        let waiting = reference.line.len() + reference.granted.len();
        same!(table.waiters().count(), waiting, "how many wait");
        self.compare_sessions()
    }

    fn compare_sessions(&self) -> Outcome {
        let (table, reference) = (&self.table, &self.reference);
        same!(
            table.session_count(),
            reference.sessions.len(),
            "how many sessions"
        );
        let shown = |session: &table::Session| {
            let until = session.deadline.map(|it| it.until.as_secs());
            let roots = session.roots.iter().map(|it| (it.process, it.registered));
            (session.uid, until, roots.collect::<Vec<_>>())
        };
        let expected = |session: &Session| {
            let roots = session
                .roots
                .iter()
                .map(|(it, registered)| (process(*it), *registered));
            (
                session.by.uid,
                session.deadline.map(|(_, until)| until),
                roots.collect(),
            )
        };
        for session in &reference.sessions {
            let id = SessionId::new(session.by.id.as_bytes()).unwrap();
            let seen = table.session(&id).map(shown);
            same!(seen, Some(expected(session)), "session {id}");
        }
        Ok(())
    }
}
