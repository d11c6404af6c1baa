//! The holders, and since and until when, as far as the answers of the clients show.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Display};

use super::{Finding, Rule};
use crate::faults::histories::history::{Answer, Call, History, Lease, Life, Operation};

/// A grant of a name to a process, and what became of it. Intervals are from and until.
#[derive(Clone, Debug)]
pub struct Hold {
    pub name: String,
    pub process: u32,
    pub token: Option<u64>,
    /// It was granted at some moment of this, if it was at all.
    pub granted: (u64, u64),
    /// From when it was told until it asked for something that ends it, was to be killed, or could
    /// be too late. Empty if it does not know.
    pub certain: (u64, u64),
    /// From when it could have been granted until it is certainly over.
    pub possible: (u64, u64),
}

impl Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let token = self.token.map_or("?".to_owned(), |token| token.to_string());
        let (from, until) = (self.granted.0 / 1000, self.possible.1 / 1000);
        let Self { process, name, .. } = self;
        write!(
            f,
            "{name} of {process} (token {token}, {from} us to {until} us)"
        )
    }
}

/// A place in a queue.
#[derive(Debug)]
pub struct Wait {
    pub name: String,
    pub process: u32,
    pub joined: (u64, u64),
    /// The hold that it was granted, by its index.
    pub served: Option<usize>,
    /// When it was told last that its turn had not come.
    pub unserved: u64,
    /// From when on it may be out of the queue without having been served.
    pub left: u64,
}

/// A claim that was handed over, or perhaps was.
struct Gift<'a> {
    name: &'a str,
    to: &'a str,
    asked: u64,
    /// The end of time if its giver did not live to see it.
    told: u64,
    taken: bool,
}

pub struct Holds {
    pub all: Vec<Hold>,
    pub waits: Vec<Wait>,
}

impl Holds {
    pub fn of(history: &History, findings: &mut Vec<Finding>) -> Self {
        let mut gifts = gifts(history);
        let mut holds = Self {
            all: Vec::new(),
            waits: Vec::new(),
        };
        let mut operations: HashMap<u32, Vec<&Operation>> = HashMap::new();
        for operation in &history.operations {
            operations
                .entry(operation.process)
                .or_default()
                .push(operation);
        }
        for (process, life) in &history.lives {
            let mut replay = Replay {
                process: *process,
                life,
                holds: &mut holds,
                open: HashMap::new(),
                wait: None,
                gifts: &mut gifts,
                findings,
            };
            for operation in operations.get(process).into_iter().flatten() {
                replay.step(operation);
            }
            replay.end();
        }
        holds
    }
}

fn gifts(history: &History) -> Vec<Gift<'_>> {
    let mut gifts = Vec::new();
    for operation in &history.operations {
        let Call::Give { name, to } = &operation.call else {
            continue;
        };
        let told = match operation.told {
            Some((at, Answer::Done)) => at,
            None => u64::MAX,
            Some(_) => continue,
        };
        gifts.push(Gift {
            name,
            to,
            asked: operation.asked,
            told,
            taken: false,
        });
    }
    gifts.sort_by_key(|gift| gift.asked);
    gifts
}

/// The life of one process, from one answer to the next.
struct Replay<'a, 'h> {
    process: u32,
    life: &'a Life,
    holds: &'a mut Holds,
    /// The names that it believes to hold.
    open: HashMap<String, usize>,
    /// The line that it stands in.
    wait: Option<usize>,
    gifts: &'a mut Vec<Gift<'h>>,
    findings: &'a mut Vec<Finding>,
}

impl Replay<'_, '_> {
    /// A grant between two moments that it was told of at the second, or may have been granted if
    /// it never was.
    fn begin(&mut self, name: &str, granted: (u64, Option<u64>)) -> usize {
        let (from, told) = (granted.0, granted.1.unwrap_or(u64::MAX));
        let index = self.holds.all.len();
        self.holds.all.push(Hold {
            name: name.to_owned(),
            process: self.process,
            token: None,
            granted: (from, told),
            certain: (told, self.life.killed),
            possible: (from, self.life.gone),
        });
        if granted.1.is_some() {
            self.open.insert(name.to_owned(), index);
        }
        index
    }

    fn held(&mut self, name: &str) -> Option<&mut Hold> {
        let index = *self.open.get(name)?;
        Some(&mut self.holds.all[index])
    }

    /// From a moment on it may hold a name no more.
    fn doubt(&mut self, name: &str, from: u64) {
        if let Some(hold) = self.held(name) {
            hold.certain.1 = hold.certain.1.min(from);
        }
    }

    /// Since a moment it does not hold a name.
    fn over(&mut self, name: &str, at: u64) {
        if let Some(hold) = self.held(name) {
            hold.possible.1 = hold.possible.1.min(at);
        }
        self.open.remove(name);
    }

    /// A call on a claim of its own that succeeds as long as it certainly holds it.
    fn must_succeed(&mut self, operation: &Operation, name: &str, told: u64, answer: &Answer) {
        let asked = operation.asked;
        let Answer::Refused(errno) = answer else {
            if self.held(name).is_none() {
                self.report(operation, name, told, "it was never granted that");
            }
            return;
        };
        // A full disk may refuse it, though not the end of a lease; the rule of errors looks at
        // that.
        let may_lack_space = !matches!(operation.call, Call::Unlink(_) | Call::Rmdir(_));
        if may_lack_space && [libc::ENOSPC, libc::EIO].contains(errno) {
            return;
        }
        let lost = self.held(name).is_some_and(|hold| {
            let (from, until) = hold.certain;
            from <= asked && told < until
        });
        if lost {
            let error = std::io::Error::from_raw_os_error(*errno);
            self.report(operation, name, told, &format!("it holds that: {error}"));
        }
    }

    fn report(&mut self, operation: &Operation, name: &str, told: u64, what: &str) {
        self.findings.push(Finding {
            rule: Rule::HeldIsHeld,
            name: Some(name.to_owned()),
            at: (operation.asked, told),
            what: format!("process {}: {:?}: {what}", self.process, operation.call),
        });
    }

    fn step(&mut self, operation: &Operation) {
        let (asked, told) = (operation.asked, &operation.told);
        let at = told.as_ref().map(|told| told.0);
        let is_done = matches!(told, Some((_, Answer::Done)));
        let is_possible = is_done || told.is_none();
        match &operation.call {
            Call::Create(name) | Call::Mkdir(name) | Call::Reserve(name) => {
                if is_possible {
                    self.begin(name, (asked, at));
                }
            }
            Call::Unlink(name) | Call::Rmdir(name) => {
                if let Some((at, answer)) = told {
                    self.must_succeed(operation, name, *at, answer);
                    self.doubt(name, asked);
                    self.over(name, *at);
                } else {
                    self.doubt(name, asked);
                }
            }
            Call::Rename { from, to, .. } => {
                if is_possible {
                    self.doubt(from, asked);
                    if let Some(at) = at {
                        self.over(from, at);
                    }
                    self.begin(to, (asked, at));
                }
            }
            Call::Link { to, .. } => {
                if is_possible {
                    self.begin(to, (asked, at));
                }
            }
            Call::Give { name, .. } => {
                if is_possible {
                    self.doubt(name, asked);
                    if let Some(at) = at {
                        self.over(name, at);
                    }
                }
            }
            Call::Limit { name, nanos } => {
                if let Some((at, answer)) = told {
                    self.must_succeed(operation, name, *at, answer);
                }
                if is_possible {
                    self.doubt(name, asked + nanos);
                }
                if let (true, Some(at)) = (is_done, at)
                    && let Some(hold) = self.held(name)
                {
                    hold.possible.1 = hold.possible.1.min(at + nanos);
                }
            }
            Call::Token(name) => {
                if let Some((at, answer)) = told {
                    self.must_succeed(operation, name, *at, answer);
                }
                if let Some((_, Answer::Token(token))) = told {
                    self.token(operation, name, *token);
                }
            }
            Call::Look => {
                if let Some((at, Answer::Listed(listed))) = told {
                    self.find_gifts(listed, *at);
                }
            }
            Call::Join(_) | Call::Await(_) | Call::Leave(_) | Call::Gone(_) => {
                self.step_in_line(operation);
            }
        }
    }

    fn token(&mut self, operation: &Operation, name: &str, token: u64) {
        let Some(hold) = self.held(name) else { return };
        let before = *hold.token.get_or_insert(token);
        if before != token {
            let finding = Finding {
                rule: Rule::TokensRise,
                name: Some(name.to_owned()),
                at: (operation.asked, operation.asked),
                what: format!("the token {token} of {hold} was {before}"),
            };
            self.findings.push(finding);
        }
    }

    fn step_in_line(&mut self, operation: &Operation) {
        let (asked, at) = (operation.asked, operation.told.as_ref().map(|told| told.0));
        let answer = operation.told.as_ref().map(|told| &told.1);
        match (&operation.call, answer) {
            (Call::Join(name), None | Some(Answer::Done)) => {
                self.wait = Some(self.holds.waits.len());
                self.holds.waits.push(Wait {
                    name: name.clone(),
                    process: self.process,
                    joined: (asked, at.unwrap_or(u64::MAX)),
                    served: None,
                    unserved: asked,
                    left: self.life.killed,
                });
            }
            (Call::Await(name), Some(Answer::Served)) => {
                if let Some(wait) = self.wait.take() {
                    let since = self.holds.waits[wait].unserved;
                    let hold = self.begin(name, (since, at));
                    self.holds.waits[wait].served = Some(hold);
                }
            }
            (Call::Await(_), Some(Answer::Waiting)) => {
                if let Some(wait) = self.wait {
                    self.holds.waits[wait].unserved = asked;
                }
            }
            (Call::Leave(_), _) => {
                if let Some(wait) = self.wait {
                    self.holds.waits[wait].left = asked;
                }
            }
            (Call::Gone(_), Some(Answer::Done)) => {
                if let (Some(hold), Some(at)) = (self.unwait(), at) {
                    self.holds.all[hold].possible.1 = at;
                }
            }
            _ => {}
        }
    }

    /// It was never told that it was served. It may hold the name all the same.
    fn unwait(&mut self) -> Option<usize> {
        let wait = &self.holds.waits[self.wait.take()?];
        let (name, since) = (wait.name.clone(), wait.unserved);
        Some(self.begin(&name, (since, None)))
    }

    /// Claims that a client holds and was not told of were given to it. What had been given before
    /// it began was given to another process of its session.
    fn find_gifts(&mut self, listed: &[Lease], told: u64) {
        for lease in listed {
            if lease.session != self.life.session || self.open.contains_key(&lease.name) {
                continue;
            }
            let earlier = self.gifts.iter_mut().filter(|gift| {
                gift.name == lease.name
                    && gift.to == lease.session
                    && gift.asked < told
                    && self.life.start < gift.told
            });
            // If there is one that was certainly given it is the one: nobody can give it again
            // before this one does.
            let mut found: Option<(u64, u64)> = None;
            for gift in earlier.filter(|gift| !gift.taken) {
                gift.taken = true;
                if gift.told != u64::MAX || found.is_none_or(|found| found.1 == u64::MAX) {
                    found = Some((gift.asked, gift.told));
                }
            }
            if let Some((asked, given)) = found {
                self.begin(&lease.name, (asked, Some(given.min(told))));
            }
        }
    }

    fn end(&mut self) {
        self.unwait();
        // Claims that it was given and did not look for.
        let mut given = HashSet::new();
        for (index, gift) in self.gifts.iter().enumerate() {
            let lives = gift.asked < self.life.gone && self.life.start < gift.told;
            if !gift.taken && gift.to == self.life.session && lives {
                given.insert((index, gift.name.to_owned(), gift.asked, gift.told));
            }
        }
        for (_, name, asked, told) in given {
            // To a session that began meanwhile nobody may have given it.
            let is_sure = told != u64::MAX && self.life.start < asked;
            let hold = self.begin(&name, (asked, is_sure.then_some(told)));
            if !is_sure {
                self.holds.all[hold].granted.1 = told;
            }
        }
    }
}
