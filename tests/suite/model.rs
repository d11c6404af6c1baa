//! Random commands against a naive map, in the pure core, and then the rules of the table one by one.
//!
//! The random test decides each command twice: once by [`Table`], and once by a reference model of plain maps that
//! forgets at once what is over. The model invents no numbers: tokens, inodes and keys are taken from the events, and
//! are checked there to rise. After each command the two must show the same. From time to time the table is thrown
//! away and made again of all events so far, and the test goes on with the new one.
//!
//! A failure prints its seed and the last commands; `CLAIMFS_MODEL_SEED=N` runs that seed alone.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use claimfs::content::BODY_MAX;
use claimfs::lease::{
    Asker, Change, Command, Creation, End, Event, Ino, Member, Moment, Name, Process, Refusal,
    Root, Rule, SessionId, SessionKey, Token, What,
};
use claimfs::table::{FIRST_INO, Table};

const SEEDS: u64 = 800;
const STEPS: usize = 300;
/// A seed replays all of its events, on average, once in so many steps.
const REPLAY: u64 = 60;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const IDS: [&str; 4] = ["w1", "w2", "w3", "w4"];
const TAG: &str = "user.note";

// What both halves need.

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn id(text: &str) -> SessionId {
    SessionId::new(text.as_bytes()).unwrap()
}

fn at(seconds: usize) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds as u64)
}

fn now(seconds: usize) -> Moment {
    Moment {
        wall: at(seconds),
        boot: Duration::from_secs(seconds as u64),
    }
}

fn root(process: Process, registered: bool) -> Root {
    Root {
        process,
        command: Arc::from("sh"),
        started: UNIX_EPOCH,
        registered,
    }
}

pub fn creation(uid: u32) -> Creation {
    Creation {
        shape: claimfs::lease::Shape::File,
        mode: 0o644,
        uid,
        gid: uid,
    }
}

/// A command with all that it needs, so that it can be printed later.
#[derive(Clone, Debug)]
enum Op {
    Claim {
        name: Name,
        exclusive: bool,
    },
    Reclaim {
        ino: u64,
        truncate: bool,
    },
    Alter {
        ino: u64,
        change: Change,
    },
    Release {
        name: Name,
    },
    Rename {
        from: Name,
        to: Name,
        noreplace: bool,
    },
    Join,
    End {
        id: SessionId,
        uid: u32,
    },
    Died {
        process: Process,
    },
    Sweep {
        limit: usize,
    },
    Forget {
        ino: u64,
    },
}

impl Op {
    fn command<'a>(&self, by: &'a Member) -> Command<'a> {
        match self.clone() {
            Self::Claim { name, exclusive } => Command::Claim {
                name: name.into(),
                by,
                creation: creation(by.uid),
                exclusive,
                truncate: false,
            },
            Self::Reclaim { ino, truncate } => Command::Reclaim {
                ino: Ino(ino),
                by,
                truncate,
            },
            Self::Alter { ino, change } => Command::Alter {
                ino: Ino(ino),
                by,
                change,
            },
            Self::Release { name } => Command::Release {
                directory: false,
                name: name.into(),
                by,
            },
            Self::Rename {
                from,
                to,
                noreplace,
            } => Command::Rename {
                from: from.into(),
                to: to.into(),
                noreplace,
                by,
            },
            Self::Join => Command::Join {
                exclusive: false,
                by,
            },
            Self::End { id, uid } => Command::End {
                id,
                by: asker(uid, 0, &[]),
            },
            Self::Died { process } => Command::Died { process },
            Self::Sweep { limit } => Command::Sweep { limit },
            Self::Forget { ino } => Command::Forget { ino: Ino(ino) },
        }
    }
}

// The model.

/// What the events of one decision say, apart from the rules: the numbers, and the names that they take away.
#[derive(Default)]
struct Told {
    keys: Vec<u64>,
    grants: Vec<(u64, u64)>,
    gone: Vec<(Name, u64, End)>,
}

impl Told {
    fn of(events: &[Event]) -> Self {
        let mut told = Self::default();
        for event in events {
            match &event.what {
                What::SessionStarted { key, .. } => told.keys.push(key.0),
                What::Claimed { token, ino, .. } => told.grants.push((token.0, ino.0)),
                What::Released { name, token } => {
                    told.gone.push((name.clone(), token.0, End::Ended));
                }
                What::Reaped { name, token } => told.gone.push((name.clone(), token.0, End::Died)),
                _ => {}
            }
        }
        told.gone.sort_by_key(|(_, token, _)| *token);
        told
    }
}

/// What the model expects of the events: whether a session starts, whether a name is granted, which names go.
#[derive(Debug, Default, PartialEq)]
struct Expected {
    starts: usize,
    grants: usize,
    gone: Vec<(Name, u64, End)>,
}

#[derive(Default)]
struct File {
    holder: u64,
    body: Vec<u8>,
    tagged: bool,
}

struct Scope {
    key: u64,
    uid: u32,
    pidns: u64,
    by_rule_1: bool,
    terminal: bool,
    /// Process, whether it was registered, and a number that rises with each join of anything.
    roots: Vec<(Process, bool, u64)>,
}

/// The rules, as naively as they can be said: nothing is left of what is over but the names that nobody swept.
#[derive(Default)]
struct Model {
    most: usize,
    joins: u64,
    /// Token and inode.
    claims: BTreeMap<Name, (u64, u64)>,
    /// The files behind claims, and those that are only open.
    files: BTreeMap<u64, File>,
    sessions: BTreeMap<SessionId, Scope>,
    /// What sessions left behind, with the token, and how they ended.
    unswept: BTreeMap<Name, (u64, End)>,
}

impl Model {
    fn step(&mut self, op: &Op, by: &Member, told: &Told) -> Result<Expected, Refusal> {
        let mut expected = Expected::default();
        match op {
            Op::Claim { name, exclusive } => match self.claims.get(name) {
                Some(_) if *exclusive => return Err(Refusal::Exists),
                Some((_, ino)) => {
                    self.own(*ino, by)?;
                    self.join(by, told, &mut expected)?;
                }
                None if self.claims.len() >= self.most => return Err(Refusal::Full),
                None => {
                    let holder = self.join(by, told, &mut expected)?;
                    let ino = told.grants.first().map_or(0, |grant| grant.1);
                    let file = File {
                        holder,
                        ..File::default()
                    };
                    self.files.insert(ino, file);
                    self.grant(name, ino, told, &mut expected);
                }
            },
            Op::Reclaim { ino, truncate } => {
                self.own(*ino, by)?;
                if self.has_name(*ino) {
                    self.join(by, told, &mut expected)?;
                } else if !self.is_theirs(*ino, by) {
                    return Err(Refusal::Lost);
                }
                if *truncate {
                    self.files.get_mut(ino).unwrap().body.clear();
                }
            }
            Op::Alter { ino, change } => {
                self.own(*ino, by)?;
                alter(self.files.get_mut(ino).unwrap(), change)?;
            }
            Op::Release { name } => {
                let (_, ino) = *self.claims.get(name).ok_or(Refusal::NotFound)?;
                self.own(ino, by)?;
                self.release(name, &mut expected);
            }
            Op::Rename {
                from,
                to,
                noreplace,
            } => self.rename((from, to, *noreplace), by, told, &mut expected)?,
            Op::Join => {
                let key = self.join(by, told, &mut expected)?;
                let registered = by.roots.iter().filter(|root| root.registered);
                for root in registered.map(|root| root.process) {
                    self.unregister(root, key);
                }
            }
            Op::End { id, uid } => {
                let scope = self.sessions.get(id).ok_or(Refusal::NotFound)?;
                if *uid != 0 && *uid != scope.uid {
                    return Err(Refusal::NotPermitted);
                }
                self.over(&id.clone(), End::Ended);
            }
            Op::Died { process } => {
                for scope in self.sessions.values_mut() {
                    scope.roots.retain(|there| there.0 != *process);
                }
                let dead = self.sessions.iter().filter(|(_, s)| s.roots.is_empty());
                for id in dead.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
                    self.over(&id, End::Died);
                }
            }
            Op::Sweep { limit } => {
                // Which ones go first is the table's own affair; how many is not.
                let count = (*limit).min(self.unswept.len());
                for (name, ..) in told.gone.iter().take(count) {
                    self.bury(name, &mut expected);
                }
            }
            Op::Forget { ino } => {
                if !self.has_name(*ino) {
                    self.files.remove(ino);
                }
            }
        }
        expected.gone.sort_by_key(|(_, token, _)| *token);
        Ok(expected)
    }

    fn rename(
        &mut self,
        (from, to, noreplace): (&Name, &Name, bool),
        by: &Member,
        told: &Told,
        expected: &mut Expected,
    ) -> Result<(), Refusal> {
        let (_, ino) = *self.claims.get(from).ok_or(Refusal::NotFound)?;
        let target = self.claims.get(to).copied();
        if noreplace && target.is_some() {
            return Err(Refusal::Exists);
        }
        self.own(ino, by)?;
        if let Some((_, target)) = target {
            self.own(target, by)?;
            if from == to {
                return Ok(());
            }
            self.release(to, expected);
        }
        self.join(by, told, expected)?;
        self.release(from, expected);
        self.grant(to, ino, told, expected);
        Ok(())
    }

    fn has_name(&self, ino: u64) -> bool {
        self.claims.values().any(|(_, of)| *of == ino)
    }

    fn own(&self, ino: u64, by: &Member) -> Result<(), Refusal> {
        self.files.get(&ino).ok_or(Refusal::Lost)?;
        if self.has_name(ino) && !self.is_theirs(ino, by) {
            return Err(Refusal::Busy);
        }
        Ok(())
    }

    fn is_theirs(&self, ino: u64, by: &Member) -> bool {
        matches!(self.joinable(by), Ok(Some(key)) if key == self.files[&ino].holder)
    }

    /// A process is registered in one session at a time; what it was alone in, and what holds nothing, is over.
    fn unregister(&mut self, root: Process, but: u64) {
        let holders: Vec<u64> = self
            .claims
            .values()
            .map(|(_, ino)| self.files[ino].holder)
            .collect();
        let mut over = Vec::new();
        for (id, scope) in self
            .sessions
            .iter_mut()
            .filter(|(_, scope)| scope.key != but)
        {
            let alone = scope.roots.len() == 1 && !holders.contains(&scope.key);
            for there in scope
                .roots
                .iter_mut()
                .filter(|there| there.0 == root && there.1)
            {
                there.1 = false;
                if alone {
                    over.push(id.clone());
                }
            }
        }
        for id in over {
            self.over(&id, End::Ended);
        }
    }

    fn joinable(&self, by: &Member) -> Result<Option<u64>, Refusal> {
        let Some(scope) = self.sessions.get(&by.id) else {
            return Ok(None);
        };
        let mut roots = scope.roots.iter();
        let related = roots.any(|there| by.roots.iter().any(|root| root.process == there.0));
        if scope.uid != by.uid || (scope.pidns != by.pidns && !related) {
            return Err(Refusal::NotPermitted);
        }
        Ok(Some(scope.key))
    }

    fn join(&mut self, by: &Member, told: &Told, expected: &mut Expected) -> Result<u64, Refusal> {
        if self.joinable(by)?.is_none() {
            expected.starts += 1;
            let scope = Scope {
                key: told.keys.first().copied().unwrap_or(0),
                uid: by.uid,
                pidns: by.pidns,
                by_rule_1: by.rule == Rule::Registered,
                terminal: by.rule == Rule::Posix,
                roots: Vec::new(),
            };
            self.sessions.insert(by.id.clone(), scope);
        }
        let scope = self.sessions.get_mut(&by.id).unwrap();
        for root in &by.roots {
            self.joins += 1;
            scope.by_rule_1 |= root.registered && !scope.terminal;
            match scope.roots.iter_mut().find(|r| r.0 == root.process) {
                Some(there) => there.1 |= root.registered,
                None => scope
                    .roots
                    .push((root.process, root.registered, self.joins)),
            }
        }
        Ok(scope.key)
    }

    fn grant(&mut self, name: &Name, ino: u64, told: &Told, expected: &mut Expected) {
        self.bury(name, expected);
        expected.grants += 1;
        let token = told.grants.first().map_or(0, |grant| grant.0);
        self.claims.insert(name.clone(), (token, ino));
    }

    fn release(&mut self, name: &Name, expected: &mut Expected) {
        let (token, _) = self.claims.remove(name).unwrap();
        expected.gone.push((name.clone(), token, End::Ended));
    }

    fn bury(&mut self, name: &Name, expected: &mut Expected) {
        if let Some((token, why)) = self.unswept.remove(name) {
            expected.gone.push((name.clone(), token, why));
        }
    }

    fn over(&mut self, id: &SessionId, why: End) {
        let key = self.sessions.remove(id).unwrap().key;
        for (name, (token, ino)) in std::mem::take(&mut self.claims) {
            if self.files[&ino].holder == key {
                self.files.remove(&ino);
                self.unswept.insert(name, (token, why));
            } else {
                self.claims.insert(name, (token, ino));
            }
        }
    }

    fn registered(&self, process: &Process) -> Option<(&SessionId, bool)> {
        let named = |s: &Scope, root: &(Process, bool, u64)| s.by_rule_1 || root.1;
        let mut roots: Vec<_> = self
            .sessions
            .iter()
            .flat_map(|(id, s)| {
                s.roots
                    .iter()
                    .filter(move |root| named(s, root))
                    .map(move |root| (id, s.key, root))
            })
            .filter(|(.., root)| root.0 == *process)
            .collect();
        // Of several sessions the oldest.
        roots.sort_by_key(|(_, key, root)| (!root.1, *key));
        assert!(roots.iter().filter(|(.., root)| root.1).count() < 2);
        roots.first().map(|(id, _, root)| (*id, root.1))
    }
}

fn alter(file: &mut File, change: &Change) -> Result<(), Refusal> {
    let end = match change {
        Change::Write { offset, data } => *offset as usize + data.len(),
        Change::Append { data } => file.body.len() + data.len(),
        Change::Resize { size } => *size as usize,
        Change::Attributes(_) | Change::Tag { .. } => 0,
    };
    if end > BODY_MAX {
        return Err(Refusal::TooLarge);
    }
    match change {
        Change::Write { offset, data } => {
            file.body.resize(file.body.len().max(end), 0);
            file.body[*offset as usize..end].copy_from_slice(data);
        }
        Change::Append { data } => file.body.extend(data),
        Change::Resize { size } => file.body.resize(*size as usize, 0),
        Change::Attributes(_) => {}
        Change::Tag { name, .. } if name != TAG => return Err(Refusal::NotPermitted),
        Change::Tag { value: None, .. } if !file.tagged => return Err(Refusal::NoAttribute),
        Change::Tag { value, .. } => file.tagged = value.is_some(),
    }
    Ok(())
}

// The world: processes that are born, die and come back under their pids, and ask for things.

/// xorshift64*.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let mut random = Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        random.below(1);
        random
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }

    fn one_in(&mut self, limit: u64) -> bool {
        self.below(limit) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }
}

#[derive(Clone, Copy)]
struct Person {
    process: Process,
    uid: u32,
    pidns: u64,
}

/// One run of a seed. Says what it was doing if it is dropped by a panic.
struct World {
    seed: u64,
    step: usize,
    random: Random,
    table: Table,
    model: Model,
    events: Vec<Event>,
    names: Vec<Name>,
    ids: Vec<SessionId>,
    /// Those that run, one a pid.
    alive: Vec<Person>,
    /// Dead, and another may run under the pid, but the table does not know it yet.
    untold: Vec<Process>,
    /// Every process that ever was.
    ever: Vec<Process>,
    /// The highest of each number so far.
    highest: (u64, u64, u64),
    history: VecDeque<(usize, Op, Member, Result<usize, Refusal>)>,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut text = String::new();
            for (step, op, by, result) in &self.history {
                let roots: Vec<_> = by.roots.iter().map(|r| (r.process, r.registered)).collect();
                writeln!(text, "{step:4} {op:?}\n     by {} {:?} uid {} pidns {} roots {roots:?}\n     -> {result:?}",
                    by.id, by.rule, by.uid, by.pidns)
                .unwrap();
            }
            let (seed, step) = (self.seed, self.step);
            eprintln!(
                "seed {seed} failed at step {step} (CLAIMFS_MODEL_SEED={seed}). The last commands:\n{text}"
            );
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let most = 1 + random.below(NAMES.len() as u64) as usize;
        let mut world = Self {
            seed,
            step: 0,
            random,
            table: Table::new(most),
            model: Model {
                most,
                ..Model::default()
            },
            events: Vec::new(),
            names: NAMES.map(name).to_vec(),
            ids: IDS.map(id).to_vec(),
            alive: Vec::new(),
            untold: Vec::new(),
            ever: Vec::new(),
            highest: (0, FIRST_INO - 1, 0),
            history: VecDeque::new(),
        };
        for pid in 100..106 {
            let person = world.birth(pid, None);
            world.alive.push(person);
        }
        world
    }

    /// A process under a pid, which may have been another's: then it differs by its start or, where the kernel has
    /// pidfs (every other seed), perhaps by the pidfd's inode alone.
    fn birth(&mut self, pid: u32, before: Option<Process>) -> Person {
        let pidfs = if self.seed.is_multiple_of(2) {
            self.ever.len() as u64 + 1
        } else {
            0
        };
        let start = match before {
            Some(before) if pidfs > 0 && self.random.one_in(2) => before.start,
            _ => 1000 + self.ever.len() as u64,
        };
        let process = Process { pid, start, pidfs };
        self.ever.push(process);
        Person {
            process,
            uid: self.random.pick(&[1000, 1000, 1001]),
            pidns: self.random.pick(&[0, 0, 7]),
        }
    }

    /// Somebody who asks: a process and up to two of its uid above it. Now and then one of those is dead already,
    /// which the table cannot know.
    fn member(&mut self, registers: bool) -> Member {
        let (id, caller) = self.who();
        let mut chain = vec![caller];
        while chain.len() < 3 && self.random.one_in(3) {
            let above = self.random.pick(&self.alive);
            let known = chain.iter().any(|p| p.process == above.process);
            if above.uid == caller.uid && !known {
                chain.insert(0, above);
            }
        }
        let pidns = chain[0].pidns;
        let mut roots: Vec<Root> = chain.iter().map(|p| root(p.process, false)).collect();
        if registers {
            roots.truncate(1);
            roots[0].registered = !self.random.one_in(4);
        } else if !self.untold.is_empty() && self.random.one_in(10) {
            let ghost = self.random.pick(&self.untold);
            roots.insert(0, root(ghost, false));
        }
        let rules = [Rule::Variable, Rule::Posix, Rule::Registered];
        Member {
            id,
            rule: self.random.pick(&rules),
            uid: caller.uid,
            pidns,
            sandbox: 0,
            roots,
            lineage: Vec::new(),
            pid: caller.process.pid,
            command: Arc::from("sh"),
        }
    }

    /// A session's id and the caller: mostly a root of that session, who has something to lose.
    fn who(&mut self) -> (SessionId, Person) {
        let caller = self.random.pick(&self.alive);
        if self.random.one_in(3) {
            return (self.random.pick(&self.ids), caller);
        }
        let mut sessions = self.model.sessions.iter();
        let own = sessions.find(|(_, s)| s.roots.iter().any(|root| root.0 == caller.process));
        match own {
            Some((id, _)) => (id.clone(), caller),
            None => (self.random.pick(&self.ids), caller),
        }
    }

    /// A name: mostly one that the member holds.
    fn name(&mut self, by: &Member) -> Name {
        let held: Vec<Name> = match self.model.sessions.get(&by.id) {
            Some(scope) => {
                let files = &self.model.files;
                let claims = self.model.claims.iter();
                claims
                    .filter(|(_, (_, ino))| files[ino].holder == scope.key)
                    .map(|(name, _)| name.clone())
                    .collect()
            }
            None => Vec::new(),
        };
        if held.is_empty() || self.random.one_in(3) {
            self.random.pick(&self.names)
        } else {
            self.random.pick(&held)
        }
    }

    /// An inode: mostly one that is there.
    fn ino(&mut self) -> u64 {
        let there: Vec<u64> = self.model.files.keys().copied().collect();
        if there.is_empty() || self.random.one_in(8) {
            FIRST_INO + self.random.below(self.highest.1 + 2 - FIRST_INO)
        } else {
            self.random.pick(&there)
        }
    }

    fn change(&mut self) -> Change {
        let length = self.random.below(4) as usize;
        let data = vec![self.step as u8; length];
        match self.random.below(8) {
            0 | 1 => Change::Append { data },
            2 if length > 0 => Change::Write {
                offset: self.random.below(10),
                data,
            },
            3 => Change::Resize {
                size: self.random.below(10),
            },
            4 => Change::Resize {
                size: BODY_MAX as u64 + self.random.below(2),
            },
            5 => Change::Tag {
                name: "user.claimfs.token".into(),
                value: None,
            },
            _ => Change::Tag {
                name: TAG.into(),
                value: self.random.one_in(2).then_some(data),
            },
        }
    }

    /// What somebody asks, or what happens meanwhile.
    fn next(&mut self, by: &Member) -> Op {
        match self.random.below(100) {
            0..34 => Op::Claim {
                name: self.random.pick(&self.names),
                exclusive: self.random.one_in(2),
            },
            34..42 => Op::Reclaim {
                ino: self.ino(),
                truncate: self.random.one_in(2),
            },
            42..52 => Op::Alter {
                ino: self.ino(),
                change: self.change(),
            },
            52..63 => Op::Release {
                name: self.name(by),
            },
            63..78 => Op::Rename {
                from: self.name(by),
                to: self.random.pick(&self.names),
                noreplace: self.random.one_in(3),
            },
            78..81 => Op::End {
                id: self.random.pick(&self.ids),
                uid: self.random.pick(&[1000, 1000, 1001, 0]),
            },
            81..85 => {
                // A pid changes hands, and the table is not told.
                let slot = self.random.below(self.alive.len() as u64) as usize;
                let dead = self.alive[slot].process;
                self.alive[slot] = self.birth(dead.pid, Some(dead));
                self.untold.push(dead);
                Op::Sweep { limit: 0 }
            }
            85..92 if !self.untold.is_empty() => {
                let index = self.random.below(self.untold.len() as u64) as usize;
                Op::Died {
                    process: self.untold.swap_remove(index),
                }
            }
            92..95 => Op::Forget { ino: self.ino() },
            _ => Op::Sweep {
                limit: self.random.below(4) as usize,
            },
        }
    }

    fn random_step(&mut self) {
        let registers = self.random.one_in(10);
        let by = self.member(registers);
        let op = if registers { Op::Join } else { self.next(&by) };
        self.take(op, by);
        if self.random.one_in(REPLAY) {
            self.replay();
        }
    }

    fn take(&mut self, op: Op, by: Member) {
        self.step += 1;
        let decision = self.table.decide(&op.command(&by), now(self.step));
        if self.history.len() == 25 {
            self.history.pop_front();
        }
        let result = decision.as_ref().map(Vec::len).map_err(|refusal| *refusal);
        self.history.push_back((self.step, op, by, result));
        let (_, op, by, _) = self.history.back().unwrap();

        let told = Told::of(decision.as_deref().unwrap_or_default());
        let expected = self.model.step(op, by, &told);
        let seen = decision
            .as_ref()
            .map_err(|refusal| *refusal)
            .map(|_| Expected {
                starts: told.keys.len(),
                grants: told.grants.len(),
                gone: told.gone,
            });
        assert_eq!(seen, expected, "left the table, right the model");
        let events = decision.unwrap_or_default();
        // Without an event the table is what it was; should the model not be, the next comparison tells.
        let changed = !events.is_empty();
        for event in events {
            self.apply(event);
        }
        if changed {
            self.compare();
        }
    }

    fn apply(&mut self, event: Event) {
        assert_eq!(event.seq, self.events.len() as u64 + 1);
        assert_eq!(event.at, at(self.step));
        let (token_before, ino_before, key_before) = &mut self.highest;
        match &event.what {
            What::SessionStarted { key, .. } => {
                assert!(key.0 > *key_before, "a session's key is new");
                *key_before = key.0;
            }
            What::Claimed {
                token,
                ino,
                created,
                ..
            } => {
                assert!(token.0 > *token_before, "tokens rise");
                *token_before = token.0;
                if created.is_some() {
                    assert!(ino.0 > *ino_before, "inode numbers are never used again");
                    *ino_before = ino.0;
                }
            }
            _ => {}
        }
        self.table.apply(&event);
        self.events.push(event);
        assert_eq!(self.table.seq(), self.events.len() as u64);
    }

    /// The table shows what the model has, and nothing else.
    fn compare(&self) {
        let (table, model) = (&self.table, &self.model);
        let seen: Vec<_> = table
            .leases(Token(0))
            .map(|(name, lease)| (lease.token.0, lease.ino.0, name.clone()))
            .collect();
        let mut expected: Vec<_> = model
            .claims
            .iter()
            .map(|(name, (token, ino))| (*token, *ino, name.clone()))
            .collect();
        expected.sort();
        assert_eq!(seen, expected, "each name with its one holder, by token");
        assert_eq!(table.lease_count(), expected.len());

        for name in &self.names {
            let seen = table.lease(name).map(|lease| (lease.token.0, lease.ino.0));
            assert_eq!(seen, model.claims.get(name).copied());
            let last = table.last(name).map(|(lease, ..)| lease.token.0);
            let left = model.unswept.get(name).map(|(token, _)| *token);
            assert_eq!(last, seen.map(|(token, _)| token).or(left));
        }
        assert_eq!(table.wants_sweep(), !model.unswept.is_empty());

        for (ino, file) in &model.files {
            let inode = table.inode(Ino(*ino)).expect("an inode that is there");
            let names = expected.iter().filter(|(_, of, _)| of == ino);
            let names: Vec<_> = names.map(|(token, ..)| Token(*token)).collect();
            assert_eq!((inode.holder.0, &inode.names), (file.holder, &names));
            assert_eq!(inode.content.body(), file.body);
            assert_eq!(inode.content.tags().contains_key(TAG), file.tagged);
        }
        self.compare_sessions();
    }

    fn compare_sessions(&self) {
        let (table, model) = (&self.table, &self.model);
        assert_eq!(table.session_count(), model.sessions.len());
        assert_eq!(table.sessions(SessionKey(0)).count(), model.sessions.len());
        for (id, scope) in &model.sessions {
            let session = table.session(id).expect("a session that is alive");
            assert_eq!(
                (session.key.0, session.uid, session.pidns),
                (scope.key, scope.uid, scope.pidns)
            );
            assert_eq!(session.rule == Rule::Registered, scope.by_rule_1);
            let seen = session.roots.iter().map(|r| (&r.process, r.registered));
            assert!(seen.eq(scope.roots.iter().map(|r| (&r.0, r.1))), "{id}");
            let held = |(_, (_, ino)): &(_, &(u64, u64))| model.files[ino].holder == scope.key;
            assert_eq!(
                session.leases.len(),
                model.claims.iter().filter(held).count()
            );
        }
        let alive = self.alive.iter().map(|person| &person.process);
        for process in alive.chain(&self.untold) {
            let mut roots = model.sessions.values().flat_map(|scope| &scope.roots);
            assert_eq!(table.depends_on(process), roots.any(|r| r.0 == *process));
            assert_eq!(table.registered(process), model.registered(process));
        }
    }

    /// All that a table shows, by its public methods, but for what the inodes contain.
    fn shown(&self, table: &Table) -> String {
        let mut text = format!("{} {} ", table.seq(), table.max_leases());
        let all: Vec<_> = table.leases(Token(0)).collect();
        writeln!(text, "{all:?}").unwrap();
        for token in (0..=self.highest.0).map(Token) {
            let next = table.leases(token).next().map(|(_, lease)| lease.token);
            let first = all.iter().map(|(_, lease)| lease.token);
            assert_eq!(next, first.filter(|there| *there > token).min());
            if let Some(name) = table.name(token) {
                writeln!(text, "{token:?} {name}").unwrap();
            }
        }
        for name in &self.names {
            let last = table.last(name).map(|(lease, _, session)| (lease, session));
            writeln!(text, "{:?} {last:?}", table.lease(name)).unwrap();
        }
        for ino in FIRST_INO..=self.highest.1 + 1 {
            let inode = table.inode(Ino(ino));
            assert_eq!(inode.is_some(), self.model.files.contains_key(&ino));
            if let Some(inode) = inode {
                let (holder, names) = (inode.holder, &inode.names);
                writeln!(text, "{ino} {holder:?} {names:?}").unwrap();
            }
        }
        for key in 0..=self.highest.2 {
            if let Some(session) = table.session_by_key(SessionKey(key)) {
                writeln!(text, "{session:?}").unwrap();
            }
        }
        for process in &self.ever {
            let (registered, root) = (table.registered(process), table.depends_on(process));
            writeln!(text, "{registered:?} {root}").unwrap();
        }
        let counts = (table.lease_count(), table.session_count());
        write!(text, "{counts:?} {}", table.wants_sweep()).unwrap();
        text
    }

    /// Begins again from the events alone, and goes on with that.
    fn replay(&mut self) {
        let mut again = Table::new(self.model.most);
        for event in &self.events {
            again.apply(event);
        }
        assert_eq!(
            self.shown(&again),
            self.shown(&self.table),
            "left from the events"
        );
        for ino in self.model.files.keys().map(|ino| Ino(*ino)) {
            let content = |table: &Table| table.inode(ino).map(|inode| inode.content.clone());
            assert!(content(&again) == content(&self.table), "{ino:?}");
        }
        self.table = again;
    }

    /// Everybody dies, in some order, and everything is swept and closed.
    fn doom(&mut self) {
        let nobody = self.member(false);
        let mut dying = self.ever.clone();
        while !dying.is_empty() {
            let index = self.random.below(dying.len() as u64) as usize;
            let process = dying.swap_remove(index);
            self.take(Op::Died { process }, nobody.clone());
        }
        assert_eq!(
            (self.table.lease_count(), self.table.session_count()),
            (0, 0)
        );
        while self.table.wants_sweep() {
            self.take(Op::Sweep { limit: 2 }, nobody.clone());
        }
        for ino in self.model.files.keys().copied().collect::<Vec<_>>() {
            self.take(Op::Forget { ino }, nobody.clone());
        }
        self.replay();
        assert!(self.table.leases(Token(0)).next().is_none());
        assert!(self.table.sessions(SessionKey(0)).next().is_none());
        assert!(!self.table.wants_sweep());
        for ino in FIRST_INO..=self.highest.1 {
            assert!(self.table.inode(Ino(ino)).is_none());
        }
        for key in 0..=self.highest.2 {
            assert!(self.table.session_by_key(SessionKey(key)).is_none());
        }
        for process in &self.ever {
            assert!(!self.table.depends_on(process));
        }
        for name in &self.names {
            assert!(self.table.last(name).is_none());
        }
    }
}

#[test]
fn random_commands_do_to_the_table_what_they_do_to_a_naive_map() {
    let only = std::env::var("CLAIMFS_MODEL_SEED").ok();
    let seeds = match only.and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..SEEDS,
    };
    let (mut steps, mut granted, mut refused) = (0, 0, 0);
    let began = Instant::now();
    for seed in seeds.clone() {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.random_step();
            refused += usize::from(world.history.back().is_some_and(|last| last.3.is_err()));
        }
        world.doom();
        steps += world.step;
        granted += world.highest.0;
    }
    let took = began.elapsed();
    println!("{steps} steps, {granted} grants, {refused} refusals in {took:?}");
    // A generator that gets nowhere would pass all the same.
    assert!(granted > (seeds.end - seeds.start) * 10 && refused > steps / 10);
}

// The rules, one by one.

pub fn process(pid: u32) -> Process {
    Process {
        pid,
        start: u64::from(pid) * 10,
        pidfs: u64::from(pid) + 5000,
    }
}

fn asker(uid: u32, pidns: u64, chain: &[Process]) -> Asker<'_> {
    Asker {
        uid,
        pidns,
        chain,
        command: Arc::from("sh"),
    }
}

pub fn member(session: &str, roots: &[Process]) -> Member {
    Member {
        id: id(session),
        rule: Rule::Variable,
        uid: 1000,
        pidns: 0,
        sandbox: 0,
        roots: roots.iter().map(|process| root(*process, false)).collect(),
        lineage: roots
            .iter()
            .rev()
            .map(|process| claimfs::lease::Kin {
                process: *process,
                pid: process.pid,
            })
            .collect(),
        pid: roots.last().unwrap().pid,
        command: Arc::from("sh"),
    }
}

fn registrant(session: &str, process: Process) -> Member {
    let mut member = member(session, &[process]);
    member.rule = Rule::Registered;
    member.roots[0].registered = true;
    member
}

pub fn claim<'a>(of: &str, by: &'a Member) -> Command<'a> {
    Command::Claim {
        name: name(of).into(),
        by,
        creation: creation(by.uid),
        exclusive: true,
        truncate: false,
    }
}

fn rename<'a>(from: &str, to: &str, noreplace: bool, by: &'a Member) -> Command<'a> {
    Command::Rename {
        from: name(from).into(),
        to: name(to).into(),
        noreplace,
        by,
    }
}

/// Decides, applies, and says what happened.
fn run(table: &mut Table, command: &Command) -> Result<Vec<What>, Refusal> {
    let events = table.decide(command, now(1))?;
    for event in &events {
        table.apply(event);
    }
    Ok(events.into_iter().map(|event| event.what).collect())
}

fn died(table: &mut Table, process: Process) -> Vec<What> {
    run(table, &Command::Died { process }).unwrap()
}

/// The events in a word each: what happened to which name.
fn words(events: &[What]) -> Vec<String> {
    let word = |what: &What| match what {
        What::SessionStarted { id, .. } => format!("started {id}"),
        What::Joined { root, .. } if root.registered => format!("registered {}", root.process.pid),
        What::Joined { root, .. } => format!("joined {}", root.process.pid),
        What::Prolonged { .. } => "prolonged".into(),
        What::Left { process, .. } => format!("left {}", process.pid),
        What::SessionEnded { why, .. } => format!("over {why:?}"),
        What::Claimed { name, .. } => format!("claimed {name}"),
        What::Released { name, .. } => format!("released {name}"),
        What::Reaped { name, .. } => format!("reaped {name}"),
        What::Altered { .. } => "altered".into(),
        What::Broken { name, .. } => format!("broken {name}"),
        What::Bound { binding, .. } => format!("bound {}", binding.process.pid),
        What::Expired { name, .. } => format!("expired {name}"),
        What::Handed { name, .. } => format!("handed {name}"),
        What::Limited { deadline, .. } => format!("limited {:?}", deadline.map(|d| d.until)),
        What::Queued { name, .. } => format!("queued {name}"),
        What::Granted { name, .. } => format!("granted {name}"),
        What::Accepted { .. } => "accepted".into(),
        What::LeftLine { .. } => "left the line".into(),
        What::Linked { .. } => "linked".into(),
        What::Unlinked { .. } => "unlinked".into(),
        What::Forgotten { .. } => "forgotten".into(),
    };
    events.iter().map(word).collect()
}

fn token(table: &Table, of: &str) -> Token {
    table.lease(&name(of)).unwrap().token
}

fn ino(table: &Table, of: &str) -> Ino {
    table.lease(&name(of)).unwrap().ino
}

fn holder(table: &Table, of: &str) -> Option<String> {
    let inode = table.inode(table.lease(&name(of))?.ino)?;
    let session = table.session_by_key(inode.holder)?;
    Some(session.id.as_str().into())
}

#[test]
fn a_recycled_pid_is_another_process() {
    let recycled = [
        Process {
            start: 9999,
            ..process(10)
        },
        // In the same clock tick, told apart by its pidfd alone.
        Process {
            pidfs: 9999,
            ..process(10)
        },
    ];
    for again in recycled {
        let mut table = Table::new(10);
        run(
            &mut table,
            &Command::Join {
                exclusive: false,
                by: &registrant("old", process(10)),
            },
        )
        .unwrap();
        run(&mut table, &claim("x", &member("old", &[process(10)]))).unwrap();
        assert_eq!(table.registered(&process(10)), Some((&id("old"), true)));
        assert_eq!(table.registered(&again), None);
        assert!(!table.depends_on(&again));

        // Nobody has said yet that the old one is dead: on doubt, hold.
        let stranger = member("new", &[again]);
        assert_eq!(
            run(&mut table, &claim("x", &stranger)),
            Err(Refusal::Exists)
        );
        run(&mut table, &claim("y", &stranger)).unwrap();
        assert_eq!(
            words(&died(&mut table, process(10))),
            ["left 10", "over Died"]
        );
        assert_eq!(holder(&table, "x"), None);
        assert_eq!(holder(&table, "y").unwrap(), "new");

        run(&mut table, &claim("x", &stranger)).unwrap();
        assert_eq!(died(&mut table, process(10)), []);
        assert_eq!(holder(&table, "x").unwrap(), "new");
        died(&mut table, again);
        assert_eq!(table.lease_count(), 0);
    }
}

#[test]
fn a_restarted_id_inherits_nothing() {
    let mut table = Table::new(10);
    let (old, new) = (member("w", &[process(10)]), member("w", &[process(20)]));
    run(&mut table, &claim("x", &old)).unwrap();
    run(&mut table, &claim("y", &old)).unwrap();
    let (lost, key) = (ino(&table, "x"), table.session(&id("w")).unwrap().key);
    died(&mut table, process(10));

    let events = run(&mut table, &claim("x", &new)).unwrap();
    let expected = ["started w", "joined 20", "reaped x", "claimed x"];
    assert_eq!(words(&events), expected);
    let session = table.session(&id("w")).unwrap();
    assert!(session.key > key);
    assert_eq!(session.leases.len(), 1);
    assert_eq!(session.roots, [root(process(20), false)]);

    // The old descriptor is no way in, and the other name is nobody's.
    let truncate = Command::Reclaim {
        ino: lost,
        by: &new,
        truncate: true,
    };
    assert_eq!(run(&mut table, &truncate), Err(Refusal::Lost));
    assert_eq!(holder(&table, "y"), None);
    let release = Command::Release {
        directory: false,
        name: name("y").into(),
        by: &new,
    };
    assert_eq!(run(&mut table, &release), Err(Refusal::NotFound));
    assert_ne!(ino(&table, "x"), lost);
    // What is swept later is the old session's alone.
    let swept = run(&mut table, &Command::Sweep { limit: 10 }).unwrap();
    assert_eq!(words(&swept), ["reaped y"]);
    assert_eq!(holder(&table, "x").unwrap(), "w");
}

#[test]
fn a_session_is_joined_by_its_own_uid_and_namespace_or_by_a_related_tree() {
    let mut table = Table::new(10);
    run(&mut table, &claim("x", &member("w", &[process(10)]))).unwrap();
    let mut foreign = member("w", &[process(20)]);
    foreign.uid = 1001;
    let mut boxed = member("w", &[process(30)]);
    boxed.pidns = 7;
    for by in [&foreign, &boxed] {
        let before = table.seq();
        assert_eq!(run(&mut table, &claim("y", by)), Err(Refusal::NotPermitted));
        assert_eq!(
            run(
                &mut table,
                &Command::Join {
                    exclusive: false,
                    by
                }
            ),
            Err(Refusal::NotPermitted)
        );
        // Of a name that is held, another session is told what anybody is.
        assert_eq!(run(&mut table, &claim("x", by)), Err(Refusal::Exists));
        let reclaim = Command::Reclaim {
            ino: ino(&table, "x"),
            by,
            truncate: true,
        };
        assert_eq!(run(&mut table, &reclaim), Err(Refusal::Busy));
        let release = Command::Release {
            directory: false,
            name: name("x").into(),
            by,
        };
        assert_eq!(run(&mut table, &release), Err(Refusal::Busy));
        assert_eq!(table.seq(), before, "a refusal changes nothing");
    }

    // A sandbox below a root of the session; from then on its own processes are roots, and related by themselves.
    let mut below = member("w", &[process(10), process(30)]);
    below.pidns = 7;
    run(&mut table, &claim("y", &below)).unwrap();
    run(&mut table, &claim("z", &boxed)).unwrap();
    // An unrelated tree of the same uid and namespace gains that tree's roots.
    let events = run(&mut table, &claim("u", &member("w", &[process(40)]))).unwrap();
    assert_eq!(words(&events), ["joined 40", "claimed u"]);
    assert_eq!(table.session_count(), 1);
    assert_eq!(table.session(&id("w")).unwrap().leases.len(), 4);

    // Another uid stays out even if it is related, and even if it is root.
    foreign.roots = vec![root(process(10), false)];
    for uid in [1001, 0] {
        foreign.uid = uid;
        let refused = run(&mut table, &claim("v", &foreign));
        assert_eq!(refused, Err(Refusal::NotPermitted));
    }
}

#[test]
fn the_limit_counts_live_leases_only() {
    let mut table = Table::new(2);
    let (a, b) = (member("a", &[process(10)]), member("b", &[process(20)]));
    run(&mut table, &claim("x", &a)).unwrap();
    run(&mut table, &claim("y", &a)).unwrap();
    assert_eq!(run(&mut table, &claim("z", &b)), Err(Refusal::Full));
    assert_eq!(
        table.session_count(),
        1,
        "nobody who is refused starts a session"
    );
    // A full table still tells who holds a name, renames, and re-claims.
    assert_eq!(run(&mut table, &claim("x", &b)), Err(Refusal::Exists));
    run(&mut table, &rename("x", "w", false, &a)).unwrap();
    let again = Command::Claim {
        name: name("w").into(),
        by: &a,
        creation: creation(1000),
        exclusive: false,
        truncate: false,
    };
    assert_eq!(run(&mut table, &again), Ok(vec![]));

    // Not swept, and yet out of the way.
    died(&mut table, process(10));
    assert!(table.wants_sweep());
    assert_eq!(table.lease_count(), 0);
    run(&mut table, &claim("z", &b)).unwrap();
    run(&mut table, &claim("w", &b)).unwrap();
    assert_eq!(run(&mut table, &claim("v", &b)), Err(Refusal::Full));
    run(&mut table, &Command::Sweep { limit: 10 }).unwrap();
    assert_eq!(table.lease_count(), 2);
    let release = Command::Release {
        directory: false,
        name: name("z").into(),
        by: &b,
    };
    run(&mut table, &release).unwrap();
    run(&mut table, &claim("v", &b)).unwrap();
}

#[test]
fn only_its_uid_and_root_end_a_session() {
    for (uid, may) in [(1001, false), (1000, true), (0, true)] {
        let mut table = Table::new(10);
        run(&mut table, &claim("x", &member("w", &[process(10)]))).unwrap();
        let end = |id| Command::End {
            id,
            by: asker(uid, 0, &[]),
        };
        assert_eq!(run(&mut table, &end(id("v"))), Err(Refusal::NotFound));
        let ended = run(&mut table, &end(id("w")));
        if !may {
            assert_eq!(ended, Err(Refusal::NotPermitted));
            assert_eq!(holder(&table, "x").unwrap(), "w");
            continue;
        }
        assert_eq!(words(&ended.unwrap()), ["over Ended"]);
        assert_eq!(run(&mut table, &end(id("w"))), Err(Refusal::NotFound));
        assert_eq!(holder(&table, "x"), None);
        assert!(!table.depends_on(&process(10)));
        // Released, not reaped: nobody is proven dead.
        let swept = run(&mut table, &Command::Sweep { limit: 10 }).unwrap();
        assert_eq!(words(&swept), ["released x"]);
        assert_eq!(died(&mut table, process(10)), []);
    }
}

#[test]
fn a_process_is_registered_in_one_session_at_a_time() {
    let mut table = Table::new(10);
    let (first, second) = (registrant("a", process(10)), registrant("b", process(10)));
    run(
        &mut table,
        &Command::Join {
            exclusive: false,
            by: &first,
        },
    )
    .unwrap();
    assert_eq!(
        run(
            &mut table,
            &Command::Join {
                exclusive: false,
                by: &first
            }
        ),
        Ok(vec![])
    );
    // Each holds something, or it would be over without its only process.
    run(&mut table, &claim("x", &first)).unwrap();
    run(
        &mut table,
        &Command::Join {
            exclusive: false,
            by: &second,
        },
    )
    .unwrap();
    run(&mut table, &claim("y", &second)).unwrap();
    assert_eq!(table.registered(&process(10)), Some((&id("b"), true)));
    let registered =
        |table: &Table, session| table.session(&id(session)).unwrap().roots[0].registered;
    assert!(!registered(&table, "a") && registered(&table, "b"));
    // And back again: the newest registration counts.
    run(
        &mut table,
        &Command::Join {
            exclusive: false,
            by: &first,
        },
    )
    .unwrap();
    assert_eq!(table.registered(&process(10)), Some((&id("a"), true)));
    assert!(registered(&table, "a") && !registered(&table, "b"));
    // It is still a root of both, and both go with it.
    let events = died(&mut table, process(10));
    assert_eq!(
        words(&events),
        ["left 10", "over Died", "left 10", "over Died"]
    );
    assert_eq!(table.session_count(), 0);
    assert_eq!(table.registered(&process(10)), None);
}

#[test]
fn a_claimant_below_a_registered_root_is_a_root_but_not_registered() {
    let mut table = Table::new(10);
    run(
        &mut table,
        &Command::Join {
            exclusive: false,
            by: &registrant("w", process(10)),
        },
    )
    .unwrap();
    run(
        &mut table,
        &claim("x", &member("w", &[process(10), process(20)])),
    )
    .unwrap();
    assert_eq!(table.registered(&process(10)), Some((&id("w"), true)));
    assert_eq!(table.registered(&process(20)), Some((&id("w"), false)));
    // A claim by what was registered does not take that back.
    died(&mut table, process(10));
    assert_eq!(holder(&table, "x").unwrap(), "w");
    assert_eq!(table.registered(&process(20)), Some((&id("w"), false)));
    died(&mut table, process(20));
    assert_eq!(holder(&table, "x"), None);

    // Roots of a session that nobody registered answer no rule 1.
    run(&mut table, &claim("x", &member("v", &[process(30)]))).unwrap();
    assert_eq!(table.registered(&process(30)), None);
}

#[test]
fn a_session_lives_while_one_of_its_roots_does() {
    let mut table = Table::new(10);
    let tree = [process(10), process(20), process(30)];
    run(&mut table, &claim("x", &member("w", &tree))).unwrap();
    assert_eq!(words(&died(&mut table, process(20))), ["left 20"]);
    assert_eq!(words(&died(&mut table, process(10))), ["left 10"]);
    assert_eq!(died(&mut table, process(10)), []);
    // An orphan of it whose chain is gone joins it by its id.
    run(&mut table, &claim("y", &member("w", &[process(40)]))).unwrap();
    assert_eq!(words(&died(&mut table, process(30))), ["left 30"]);
    assert_eq!(holder(&table, "x").unwrap(), "w");
    assert_eq!(
        words(&died(&mut table, process(40))),
        ["left 40", "over Died"]
    );
    assert_eq!(table.lease_count(), 0);
}

#[test]
fn a_stale_name_is_reaped_and_granted_in_one_decision() {
    let mut table = Table::new(10);
    run(&mut table, &claim("x", &member("old", &[process(10)]))).unwrap();
    let (before, lost) = (token(&table, "x"), ino(&table, "x"));
    died(&mut table, process(10));
    let events = run(&mut table, &claim("x", &member("new", &[process(20)]))).unwrap();
    let expected = ["started new", "joined 20", "reaped x", "claimed x"];
    assert_eq!(words(&events), expected);
    assert!(matches!(&events[2], What::Reaped { token, .. } if *token == before));
    assert!(matches!(&events[3], What::Claimed { token, created: Some(_), .. } if *token > before));
    assert_eq!(holder(&table, "x").unwrap(), "new");
    assert!(table.inode(lost).is_none());
    assert!(!table.wants_sweep());
}

#[test]
fn rename_takes_the_new_name_before_it_releases_the_old_one() {
    let mut table = Table::new(10);
    let (me, other) = (
        member("me", &[process(10)]),
        member("other", &[process(20)]),
    );
    run(&mut table, &claim("x", &me)).unwrap();
    let (first, file) = (token(&table, "x"), ino(&table, "x"));

    // Onto a free name.
    let events = run(&mut table, &rename("x", "y", false, &me)).unwrap();
    assert_eq!(words(&events), ["claimed y", "released x"]);
    assert!(matches!(&events[1], What::Released { token, .. } if *token == first));
    assert!(token(&table, "y") > first);
    assert_eq!(ino(&table, "y"), file, "the inode stays");
    assert!(matches!(&events[0], What::Claimed { created: None, .. }));

    // Onto one's own: what was there goes first, and its inode is nameless but not lost.
    run(&mut table, &claim("z", &me)).unwrap();
    let replaced = ino(&table, "z");
    assert_eq!(
        run(&mut table, &rename("y", "z", true, &me)),
        Err(Refusal::Exists)
    );
    let events = run(&mut table, &rename("y", "z", false, &me)).unwrap();
    assert_eq!(words(&events), ["released z", "claimed z", "released y"]);
    assert_eq!(ino(&table, "z"), file);
    assert_eq!(table.inode(replaced).unwrap().names, []);

    // Onto itself: nothing.
    assert_eq!(run(&mut table, &rename("z", "z", false, &me)), Ok(vec![]));
    assert_eq!(
        run(&mut table, &rename("z", "z", true, &me)),
        Err(Refusal::Exists)
    );

    // Onto what a dead session left.
    run(&mut table, &claim("w", &other)).unwrap();
    assert_eq!(
        run(&mut table, &rename("z", "w", false, &me)),
        Err(Refusal::Busy)
    );
    assert_eq!(
        run(&mut table, &rename("w", "q", false, &me)),
        Err(Refusal::Busy)
    );
    assert_eq!(
        run(&mut table, &rename("w", "z", false, &me)),
        Err(Refusal::Busy)
    );
    assert_eq!(
        run(&mut table, &rename("q", "z", false, &me)),
        Err(Refusal::NotFound)
    );
    died(&mut table, process(20));
    assert_eq!(
        run(&mut table, &rename("w", "q", false, &me)),
        Err(Refusal::NotFound)
    );
    let events = run(&mut table, &rename("z", "w", true, &me)).unwrap();
    assert_eq!(words(&events), ["reaped w", "claimed w", "released z"]);
    assert_eq!(table.lease_count(), 1);
}

#[test]
fn a_released_file_stays_until_it_is_forgotten_and_a_lost_one_does_not() {
    let mut table = Table::new(10);
    let me = member("me", &[process(10)]);
    run(&mut table, &claim("x", &me)).unwrap();
    run(&mut table, &claim("y", &me)).unwrap();
    let (released, lost) = (ino(&table, "x"), ino(&table, "y"));
    // What has a name is not forgotten.
    assert_eq!(
        run(&mut table, &Command::Forget { ino: released }),
        Ok(vec![])
    );
    let release = Command::Release {
        directory: false,
        name: name("x").into(),
        by: &me,
    };
    run(&mut table, &release).unwrap();
    died(&mut table, process(10));
    assert!(table.inode(lost).is_none());

    // The descriptor of an unlinked file works on, whatever became of its session.
    let alter = |ino| Command::Alter {
        ino,
        by: &me,
        change: Change::Append {
            data: b"more".to_vec(),
        },
    };
    run(&mut table, &alter(released)).unwrap();
    assert_eq!(table.inode(released).unwrap().content.body(), b"more");
    assert_eq!(run(&mut table, &alter(lost)), Err(Refusal::Lost));
    let forgotten = run(&mut table, &Command::Forget { ino: released }).unwrap();
    assert_eq!(words(&forgotten), ["forgotten"]);
    assert_eq!(run(&mut table, &alter(released)), Err(Refusal::Lost));
    assert_eq!(
        run(&mut table, &Command::Forget { ino: released }),
        Ok(vec![])
    );
}

#[test]
fn sweeping_writes_down_at_most_so_many_and_all_in_the_end() {
    let mut table = Table::new(10);
    for (session, pid) in [("a", 10), ("b", 20)] {
        for of in ["1", "2", "3"] {
            let by = member(session, &[process(pid)]);
            run(&mut table, &claim(&format!("{session}{of}"), &by)).unwrap();
        }
    }
    died(&mut table, process(10));
    let end = Command::End {
        id: id("b"),
        by: asker(1000, 0, &[]),
    };
    run(&mut table, &end).unwrap();
    let mut gone = Vec::new();
    while table.wants_sweep() {
        let swept = run(&mut table, &Command::Sweep { limit: 4 }).unwrap();
        assert!(!swept.is_empty() && swept.len() <= 4);
        gone.extend(words(&swept));
    }
    gone.sort();
    let expected = [
        "reaped a1",
        "reaped a2",
        "reaped a3",
        "released b1",
        "released b2",
        "released b3",
    ];
    assert_eq!(gone, expected);
    assert_eq!(run(&mut table, &Command::Sweep { limit: 4 }), Ok(vec![]));
}

#[test]
fn a_session_that_holds_nothing_is_over_when_its_only_process_registers_elsewhere() {
    let mut table = Table::new(10);
    for round in 0..100 {
        let by = registrant(&format!("s{round}"), process(10));
        let exclusive = true;
        run(&mut table, &Command::Join { exclusive, by: &by }).unwrap();
        assert_eq!(table.session_count(), 1);
        // The id is taken now, for whoever insists on a new one.
        let again = run(&mut table, &Command::Join { exclusive, by: &by });
        assert_eq!(again.map(|_| ()), Err(Refusal::Exists));
    }
}

#[test]
fn a_terminals_session_makes_nobody_registered_who_is_not() {
    let mut table = Table::new(10);
    let mut by = member("sid-10-uid-1000", &[process(10), process(20)]);
    by.rule = Rule::Posix;
    run(&mut table, &claim("x", &by)).unwrap();
    let exclusive = false;
    let by = registrant("sid-10-uid-1000", process(20));
    run(&mut table, &Command::Join { exclusive, by: &by }).unwrap();
    assert_eq!(table.registered(&process(20)), Some((&by.id, true)));
    assert_eq!(table.registered(&process(10)), None);
}

#[test]
fn a_sandbox_ends_its_own_sessions_and_none_outside() {
    let end = |table: &mut Table, pidns, chain: &[Process]| {
        let (id, uid) = (id("w"), 1000);
        let end = Command::End {
            id,
            by: asker(uid, pidns, chain),
        };
        run(table, &end).map(|_| ())
    };
    let start = |pidns| {
        let mut table = Table::new(10);
        let mut by = member("w", &[process(10)]);
        by.pidns = pidns;
        run(&mut table, &claim("x", &by)).unwrap();
        table
    };
    assert_eq!(
        end(&mut start(0), 7, &[process(30)]),
        Err(Refusal::NotPermitted)
    );
    assert_eq!(
        end(&mut start(8), 7, &[process(30)]),
        Err(Refusal::NotPermitted)
    );
    assert_eq!(end(&mut start(7), 7, &[process(30)]), Ok(()));
    assert_eq!(end(&mut start(7), 0, &[process(30)]), Ok(()));
    assert_eq!(
        end(&mut start(0), 7, &[process(30), process(10)]),
        Ok(()),
        "it descends from a root"
    );
}

#[test]
fn a_create_that_meets_its_own_claim_empties_it_if_it_is_to_truncate() {
    // Two creates of one session that both found the name free: the kernel sends CREATE for each.
    let mut table = Table::new(10);
    let by = member("w", &[process(10)]);
    run(&mut table, &claim("x", &by)).unwrap();
    let ino = table.lease(&name("x")).unwrap().ino;
    let change = Change::Append {
        data: b"body".to_vec(),
    };
    run(
        &mut table,
        &Command::Alter {
            ino,
            by: &by,
            change,
        },
    )
    .unwrap();
    for (truncate, size) in [(false, 4), (true, 0)] {
        let again = Command::Claim {
            name: name("x").into(),
            by: &by,
            creation: creation(1000),
            exclusive: false,
            truncate,
        };
        run(&mut table, &again).unwrap();
        assert_eq!(table.inode(ino).unwrap().content.size(), size);
    }
}

#[test]
fn what_an_ended_session_left_is_of_the_share_of_who_takes_it() {
    let mut table = Table::new(10);
    table.limit_each(2);
    run(&mut table, &claim("x", &member("a", &[process(10)]))).unwrap();
    let end = Command::End {
        id: id("a"),
        by: asker(1000, 0, &[]),
    };
    run(&mut table, &end).unwrap();
    assert!(table.wants_sweep());
    let by = member("b", &[process(20)]);
    run(&mut table, &claim("y", &by)).unwrap();
    run(&mut table, &claim("z", &by)).unwrap();
    assert_eq!(run(&mut table, &claim("x", &by)), Err(Refusal::Quota));
}
