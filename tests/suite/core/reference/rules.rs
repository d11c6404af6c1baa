//! The rules of the manual and of DESIGN.md, written naively: lists that are searched, and that
//! contain only what exists now. It shares no code with the table. Where those pages are silent, as
//! on which of two refusals comes first, it does what the table does.

use super::words::{
    Answer, Caller, IDS, Lease, NAMES, Op, Process, Session, is_above, is_path, need,
};

#[derive(Clone, Default)]
pub struct Reference {
    /// How many leases there may be, and of how much each uid may have how many.
    pub limits: (usize, usize),
    pub now: u64,
    pub newest: u64,
    pub sessions: Vec<Session>,
    pub leases: Vec<Lease>,
    /// Files whose descriptors answer `ESTALE`.
    pub lost: Vec<u64>,
    /// Places in all lines, by when they were taken: the number, the name, the session.
    pub line: Vec<(u64, u8, u64)>,
    pub places: u64,
    /// Places that do not know yet what they were granted: the number, the grant.
    pub granted: Vec<(u64, u64)>,
    /// Which names went, and how, since somebody looked.
    pub gone: Vec<(u8, &'static str)>,
}

impl Reference {
    pub fn step(&mut self, op: Op, by: Caller) -> Answer {
        let now = self.now;
        match op {
            Op::Claim(_, name, exclusive, truncate) => {
                need(!exclusive || self.lease(name).is_err(), "EEXIST")?;
                self.claim(by, name, truncate)?;
            }
            Op::Open(_, name, truncate) => self.open(by, name, truncate)?,
            Op::Write(_, name) => self.write(by, self.lease(name)?.file, true)?,
            Op::WriteTo(_, file) => self.write(by, file, true)?,
            Op::Release(_, name) | Op::Yield(_, name) => {
                need(!by.named || self.joinable(by).is_ok(), "EPERM")?;
                self.mine(by, name)?;
                self.lose("released", |there| there.name == name);
            }
            Op::Rename(_, from, to, noreplace) => {
                need(!is_path(from) && !is_path(to), "EPERM")?;
                self.lease(from)?;
                need(!noreplace || self.lease(to).is_err(), "EEXIST")?;
                let there = self.mine(by, from)?;
                if self.lease(to).is_err() || self.mine(by, to)?.file != there.file {
                    self.enter(by, 0, 0)?;
                    self.lose("released", |there| there.name == to);
                    self.grant(to, there);
                    self.lose("released", |there| there.name == from);
                }
            }
            Op::Exchange(_, one, other) => {
                need(!is_path(one) && !is_path(other), "EPERM")?;
                self.lease(one).and(self.lease(other))?;
                let (a, b) = (self.mine(by, one)?, self.mine(by, other)?);
                if a.file != b.file {
                    self.enter(by, 0, 0)?;
                    self.gone.extend([(one, "released"), (other, "released")]);
                    self.grant(one, b);
                    self.grant(other, a);
                }
            }
            Op::Link(_, name, new) => {
                self.lease(name)?;
                need(self.lease(new).is_err(), "EEXIST")?;
                need(!is_path(name) && !is_path(new), "EPERM")?;
                let there = self.mine(by, name)?;
                self.space()?;
                self.enter(by, 1, 0)?;
                self.grant(new, there);
            }
            Op::Limit(_, name, ttl) => {
                let there = self.mine(by, name)?;
                need(ttl > 0 || there.deadline.is_some(), "ENODATA")?;
                self.write(by, there.file, false)?;
                for lease in self.names(there.file) {
                    lease.deadline = (ttl > 0).then_some((ttl, now + ttl));
                }
            }
            Op::Give(_, name, to) => self.give(by, name, to)?,
            Op::GiveBelow(_, path, to) => {
                let mut given = self.clone();
                let below = self.below(path);
                need(!below.is_empty(), "ENOENT")?;
                for name in below {
                    given.give(by, name, to)?;
                }
                *self = given;
            }
            Op::Take(_, one, other) => self.take(by, &topmost(one, other))?,
            Op::Drop(_, one, other) => self.drop(by, &topmost(one, other))?,
            Op::Break(_, name, is_stale) => {
                let holder = self.uid(self.lease(name)?.key);
                need(by.uid == 0 || by.uid == holder, "EPERM")?;
                need(!is_stale, "ESTALE")?;
                self.lose("broken", |there| there.name == name);
            }
            Op::Join(_, _, exclusive) => {
                need(!exclusive || self.session(by.id).is_none(), "EEXIST")?;
                let key = self.enter(by, 0, 0)?;
                self.register(by.me, key);
            }
            Op::End(_, id) => {
                let there = self.session(IDS[id as usize]).ok_or("ENOENT")?.by;
                need(by.uid == 0 || by.uid == there.uid, "EPERM")?;
                self.over("released", |session| session.by.id == there.id);
            }
            Op::EndOwn(_, id) => {
                let there = self.session(IDS[id as usize]).ok_or("ENOENT")?;
                let (key, by_rule) = (there.key, there.by.terminal || there.by.named);
                need(!by_rule && self.joinable(by) == Ok(Some(key)), "EBUSY")?;
                self.over("released", |session| session.key == key);
            }
            Op::Queue(_, name) if !by.terminal && self.mine(by, name).is_ok() => {
                self.open(by, name, false)?;
            }
            Op::Queue(_, name) => {
                let free = usize::from(self.lease(name).is_err());
                need(free == 0 || self.space().is_ok(), "ENOSPC")?;
                need(self.line.len() < self.limits.0, "ENOSPC")?;
                let key = self.enter(by, free, 1 - free)?;
                self.places += 1;
                self.line.push((self.places, name, key));
            }
            Op::Accept(place) => self.granted.retain(|there| there.0 != place),
            // A grant to a waiter that leaves before it knows of it goes to the next.
            Op::Leave(place) => {
                let mut granted = self.granted.iter();
                let grant = granted.find(|there| there.0 == place).map(|it| it.1);
                self.lose("released", |there| Some(there.grant) == grant);
                self.line.retain(|there| there.0 != place);
                self.granted.retain(|there| there.0 != place);
            }
            // A session without processes takes a name, or shows that it is there, and lives for
            // the longest time it asked for.
            Op::Hold(_, name, ttl) => {
                self.joinable(by)?;
                self.claim(by, name, false)?;
                let mut sessions = self.sessions.iter_mut();
                let there = sessions.find(|there| there.by.id == by.id).unwrap();
                let ttl = there.deadline.map_or(ttl, |(longest, _)| longest.max(ttl));
                there.deadline = Some((ttl, now + ttl));
            }
            _ => {}
        }
        self.serve();
        Ok(())
    }

    fn give(&mut self, by: Caller, name: u8, to: u8) -> Answer {
        let there = self.mine(by, name)?;
        let to = self.session(IDS[to as usize]).ok_or("ENOENT")?;
        let may = to.by.uid == by.uid && !to.by.named && !to.by.terminal;
        need(may, "EPERM")?;
        if to.key != there.key {
            let (key, file) = (to.key, self.newest + 1);
            let names = self.leases.clone().into_iter();
            for mut lease in names.filter(|lease| lease.file == there.file) {
                (lease.key, lease.file) = (key, file);
                self.grant(lease.name, lease);
            }
            self.lost.push(there.file);
        }
        Ok(())
    }

    /// All names or none. What is the caller's already, or below what is, needs nothing more.
    fn take(&mut self, by: Caller, names: &[u8]) -> Answer {
        let (mut wanted, mut known) = (Vec::new(), Vec::new());
        for name in names {
            match self.cover(*name) {
                Some(there) => {
                    self.mine(by, there.name).map_err(|_| "EBUSY")?;
                    known.push(there.grant);
                }
                None => wanted.push(*name),
            }
        }
        let mut replaced = Vec::new();
        for name in &wanted {
            topmost_is_roots(by, *name)?;
            for below in self.below(*name) {
                self.mine(by, below).map_err(|_| "EBUSY")?;
                replaced.push(below);
            }
        }
        let (more, fewer) = (wanted.len(), replaced.len());
        need(self.leases.len() + more <= self.limits.0 + fewer, "ENOSPC")?;
        if wanted.is_empty() {
            self.granted.retain(|place| !known.contains(&place.1));
            return Ok(());
        }
        let key = self.enter(by, more.saturating_sub(fewer), 0)?;
        self.granted.retain(|place| !known.contains(&place.1));
        self.lose("released", |there| replaced.contains(&there.name));
        for name in wanted {
            self.grant(name, Lease::new(self.newest + 1, key));
        }
        Ok(())
    }

    /// All names or none, with what the caller has below those that are paths.
    fn drop(&mut self, by: Caller, names: &[u8]) -> Answer {
        let mut dropped = Vec::new();
        for name in names {
            if self.lease(*name).is_ok() {
                self.mine(by, *name)?;
                dropped.push(*name);
            }
            let below = self.below(*name).into_iter();
            dropped.extend(below.filter(|below| self.mine(by, *below).is_ok()));
        }
        self.lose("released", |there| dropped.contains(&there.name));
        Ok(())
    }

    /// The reservations below a path, in their order.
    fn below(&self, path: u8) -> Vec<u8> {
        let mut names: Vec<u8> = self.leases.iter().map(|there| there.name).collect();
        names.retain(|name| is_above(path, *name));
        names.sort_by_key(|name| NAMES[*name as usize]);
        names
    }

    /// The lease of a name, or of a path above it.
    fn cover(&self, name: u8) -> Option<Lease> {
        let mut leases = self.leases.iter();
        let covers = |it: &&Lease| it.name == name || is_above(it.name, name);
        leases.find(covers).copied()
    }

    pub fn died(&mut self, process: Process) {
        for there in &mut self.sessions {
            there.roots.retain(|root| root.0 != process);
        }
        self.over("reaped", |it| !it.by.named && it.roots.is_empty());
        self.serve();
    }

    /// Leases past their deadlines end.
    pub fn expire(&mut self) {
        let now = self.now;
        let is_due = |(_, until)| until <= now;
        self.lose("expired", |there| there.deadline.is_some_and(is_due));
        self.over("expired", |there| there.deadline.is_some_and(is_due));
        self.serve();
    }

    fn over(&mut self, how: &'static str, is: impl Fn(&Session) -> bool) {
        while let Some(at) = self.sessions.iter().position(&is) {
            let key = self.sessions.remove(at).key;
            self.line.retain(|place| place.2 != key);
            self.lose(how, |there| there.key == key);
        }
    }

    /// A file that its holder released stays while it is open; one whose lease was lost does not.
    fn lose(&mut self, how: &'static str, is: impl Fn(&Lease) -> bool) {
        while let Some(at) = self.leases.iter().position(&is) {
            let it = self.leases.remove(at);
            self.gone.push((it.name, how));
            let is_over = self.sessions.iter().all(|there| there.key != it.key);
            if self.names(it.file).count() == 0 && (is_over || how != "released") {
                self.lost.push(it.file);
            }
        }
    }

    /// A name with waiters is never free: it goes to the first of them.
    fn serve(&mut self) {
        let is_free = |all: &Self, name| all.lease(name).is_err();
        while let Some(at) = self.line.iter().position(|place| is_free(self, place.1)) {
            let (place, name, key) = self.line.remove(at);
            self.grant(name, Lease::new(self.newest + 1, key));
            self.granted.push((place, self.newest));
        }
    }

    fn grant(&mut self, name: u8, mut like: Lease) {
        self.newest += 1;
        (like.name, like.grant) = (name, self.newest);
        self.leases.retain(|there| there.name != name);
        self.leases.push(like);
    }

    fn claim(&mut self, by: Caller, name: u8, truncate: bool) -> Answer {
        if self.lease(name).is_ok() {
            return self.open(by, name, truncate);
        }
        topmost_is_roots(by, name)?;
        need(self.cover(name).is_none(), "ENOTDIR")?;
        need(self.below(name).is_empty(), "EISDIR")?;
        self.space()?;
        let key = self.enter(by, 1, 0)?;
        self.grant(name, Lease::new(self.newest + 1, key));
        Ok(())
    }

    fn open(&mut self, by: Caller, name: u8, truncate: bool) -> Answer {
        let there = self.mine(by, name)?;
        self.enter(by, 0, 0)?;
        self.write(by, there.file, truncate)
    }

    /// A holder that uses its claim has accepted the grant.
    fn write(&mut self, by: Caller, file: u64, renews: bool) -> Answer {
        self.own(by, file)?;
        let (now, mut granted) = (self.now, std::mem::take(&mut self.granted));
        for there in self.names(file) {
            granted.retain(|place| place.1 != there.grant);
            let renewed = |(ttl, until)| (ttl, if renews { now + ttl } else { until });
            there.deadline = there.deadline.map(renewed);
        }
        self.granted = granted;
        Ok(())
    }

    fn names(&mut self, file: u64) -> impl Iterator<Item = &mut Lease> {
        let names = self.leases.iter_mut();
        names.filter(move |there| there.file == file)
    }

    pub fn session(&self, id: &str) -> Option<&Session> {
        self.sessions.iter().find(|there| there.by.id == id)
    }

    fn uid(&self, key: u64) -> u32 {
        let there = self.sessions.iter().find(|there| there.key == key);
        there.unwrap().by.uid
    }

    pub fn lease(&self, name: u8) -> Answer<Lease> {
        let there = self.leases.iter().find(|there| there.name == name);
        there.copied().ok_or("ENOENT")
    }

    fn joinable(&self, by: Caller) -> Answer<Option<u64>> {
        let there = self.session(by.id);
        let may = there.is_none_or(|it| it.by.uid == by.uid && it.by.named == by.named);
        need(may, "EPERM").map(|()| there.map(|there| there.key))
    }

    /// Nobody but its holder changes a file that has a name.
    fn own(&self, by: Caller, file: u64) -> Answer {
        need(!self.lost.contains(&file), "ESTALE")?;
        let theirs = |there: &Lease| there.file == file && self.joinable(by) != Ok(Some(there.key));
        need(!self.leases.iter().any(theirs), "EBUSY")
    }

    fn mine(&self, by: Caller, name: u8) -> Answer<Lease> {
        let there = self.lease(name)?;
        self.own(by, there.file).map(|()| there)
    }

    fn space(&self) -> Answer {
        need(self.leases.len() < self.limits.0, "ENOSPC")
    }

    /// To claim is to become a root of one's session, which starts if it is not there. A uid has
    /// its share of sessions, of leases and of places in lines.
    fn enter(&mut self, by: Caller, leases: usize, places: usize) -> Answer<u64> {
        let known = self.joinable(by)?;
        let is = |key: u64| self.uid(key) == by.uid;
        let may = |has: usize, more: usize| by.uid == 0 || more == 0 || has + more <= self.limits.1;
        let sessions = self.sessions.iter().filter(|there| is(there.key)).count();
        let held = self.leases.iter().filter(|there| is(there.key)).count();
        let waits = self.line.iter().filter(|place| is(place.2)).count();
        let may_start = known.is_some() || may(sessions, 1);
        let may_have = may(held, leases) && may(waits, places);
        need(may_start && may_have, "EDQUOT")?;
        let key = known.unwrap_or(self.newest + 1);
        self.newest = self.newest.max(key);
        if known.is_none() {
            self.sessions.push(Session::new(key, by));
        }
        let there = self.sessions.iter_mut().find(|there| there.key == key);
        there.unwrap().add(by);
        Ok(key)
    }

    /// A process is registered in one session at a time. One that has nothing, and was that process
    /// alone, is over.
    fn register(&mut self, me: Process, key: u64) {
        let held = self.leases.iter().map(|there| there.key);
        let busy: Vec<u64> = held.chain(self.line.iter().map(|place| place.2)).collect();
        let is_idle = |it: &Session| it.roots == [(me, true)] && !busy.contains(&it.key);
        self.over("released", |there| there.key != key && is_idle(there));
        for there in &mut self.sessions {
            there.register(me, there.key == key);
        }
    }
}

/// Two names in their order, without the second if the first is the same or above it.
fn topmost(one: u8, other: u8) -> Vec<u8> {
    let mut names = vec![one, other];
    names.sort_by_key(|name| NAMES[*name as usize]);
    if names[0] == names[1] || is_above(names[0], names[1]) {
        names.pop();
    }
    names
}

/// Only root reserves a path of one component.
fn topmost_is_roots(by: Caller, name: u8) -> Answer {
    let levels = NAMES[name as usize].matches('/').count();
    need(levels != 1 || by.uid == 0, "EPERM")
}
