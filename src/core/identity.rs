//! Whose lease is it? From a caller to its session, as a function over a view of processes.
//!
//! Promises: the same view gives the same answer; a tree that changes while it is read is read again; a process of
//! another uid, pid 1 and subreapers never become roots of a session, but for the first process of a sandbox or a
//! container, to which claims pass at last; and looking at it changes nothing.
//!
//! The rules, of which the first that answers decides (of 1 and 2, the one whose root is nearer to the caller):
//! 1. a registered root above the caller, or the caller itself;
//! 2. a session variable in the caller's environment;
//! 3. the nearest known coding agent above the caller, or the caller itself (`agents.rs`);
//! 4. the pid namespace that the caller is in, if it is one below the mount's;
//! 5. the POSIX session.
//!
//! Deliberately ignorant of: where facts come from (`process.rs` reads them) and what a session holds.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use crate::core::agents::Agent;
use crate::core::{Above, Kin, Member, Process, Refusal, Root, Rule, Scope, SessionId, Standing};

/// The session variables, in the order in which they are asked for. Sources: claimfs itself; looop 0.29 (worker
/// sessions); babysit; Gas Town.
pub const SESSION_VARIABLES: [&str; 4] = [
    "CLAIMFS_SESSION",
    "LOOOP_SESSION_ID",
    "BABYSIT_SESSION_ID",
    "GT_SESSION",
];

/// How many processes above a caller are looked at, itself included.
pub const CHAIN_MAX: usize = 1024;

/// How often a tree that changes under the eye is read again before the answer is EAGAIN.
const ATTEMPTS: usize = 1000;

/// What there is to know of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Which process.
    pub process: Process,
    /// Its parent's pid; 0 if it has none that the mount can see.
    pub parent: u32,
    /// Its POSIX session.
    pub sid: u32,
    /// Its effective uid.
    pub uid: u32,
    /// Its pid namespace, by inode number.
    pub pidns: u64,
    /// Its pid as its own namespace numbers it.
    pub local_pid: u32,
    /// Its command name.
    pub command: Arc<str>,
    /// What it runs: its command name, or the script's name where that is an interpreter.
    pub program: Arc<str>,
    /// When it started.
    pub started: SystemTime,
    /// Its parent is not the one it was first seen with: whoever is its parent now adopts orphans.
    pub adopted: bool,
    /// Which of its execs it has made last: where that put its environment, which a fork leaves as it is. 0 where that
    /// cannot be seen, or does not tell one exec from another.
    pub environ: u64,
}

/// What the environment of a process says about its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// No session variable.
    Unset,
    /// The first session variable that is set, and its value.
    Set {
        /// Its name.
        name: Arc<str>,
        /// Its value, as it stands there.
        value: Vec<u8>,
    },
    /// The environment cannot be read: the parent's answer counts.
    Unreadable,
}

/// The variables of known agents in an environment, with their values.
pub type Marked = Vec<(Arc<str>, Vec<u8>)>;

/// What comes of a look at a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight<T> {
    /// This.
    Seen(T),
    /// It is not there any more.
    Gone,
    /// It is there, and the mount may not see it (`hidepid`, a kernel thread).
    Hidden,
    /// It could not be looked at: out of descriptors, say. Nothing may be concluded from that.
    Failed,
}

impl<T> Sight<T> {
    /// The same, of something else.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Sight<U> {
        match self {
            Self::Seen(seen) => Sight::Seen(change(seen)),
            Self::Gone => Sight::Gone,
            Self::Hidden => Sight::Hidden,
            Self::Failed => Sight::Failed,
        }
    }
}

/// Processes, as they are seen.
pub trait View {
    /// What there is to know of a process above the caller.
    fn facts(&self, pid: u32) -> Sight<Facts>;
    /// What there is to know of the caller, as of now.
    fn caller(&self, pid: u32) -> Sight<Facts> {
        self.facts(pid)
    }
    /// More was looked at by now than one caller may cost the others.
    fn is_exhausted(&self) -> bool {
        false
    }
    /// The first process of the pid namespace that a process is in, as far as the mount can see it.
    fn init_of(&self, process: &Facts) -> Option<Facts> {
        let _ = process;
        None
    }
    /// Something changed while it was read: from now on nothing is taken for what it was a moment ago.
    fn has_changed(&self) {}
    /// What the environment of a process says, as of its last exec. `task` is a thread of it that waits for an answer of the mount, so
    /// that the process can neither exec nor exit meanwhile, if there is one.
    fn variable(&self, process: &Process, task: Option<u32>) -> Sight<Variable>;
    /// The agents that are known.
    fn agents(&self) -> &[Agent] {
        &[]
    }
    /// The variables of known agents that its environment has, as of its last exec.
    fn marks(&self, process: &Process, task: Option<u32>) -> Sight<Marked> {
        let _ = (process, task);
        Sight::Seen(Vec::new())
    }
}

/// The caller and the processes above it, read once.
#[derive(Clone, Debug)]
pub struct Ancestry {
    uid: u32,
    /// The caller first, then its parent, as far as uids are the caller's.
    chain: Vec<Facts>,
    /// The process above those, if it is another user's.
    beyond: Option<Facts>,
    /// The variable that the caller carries, and how far up the chain the same value reaches.
    variable: Option<Carried>,
    /// The nearest agent, if rule 3 is asked at all.
    agent: Option<Agency>,
    /// The first process of the caller's sandbox, where it is not above the caller: something has
    /// entered that from outside.
    init: Option<Facts>,
    /// Which session is the caller's while none of the chain is registered: it is asked for twice in each claim.
    unregistered: OnceLock<Result<Member, Refusal>>,
}

/// A known agent in the chain.
#[derive(Clone, Debug)]
struct Agency {
    name: Arc<str>,
    /// Where it is; or, if it has gone, the topmost process that it has left behind.
    top: usize,
    has_gone: bool,
}

/// What a root of a session, or a copy of one, stays: see [`Ancestry::stays`].
enum Stay<'a> {
    /// Of the session that its variable named, whose topmost root is there in the chain.
    Variable(&'a SessionId, usize),
    /// Of the session of an agent.
    Agent(&'a SessionId, usize),
    /// Of a registered session: no variable and no agent was nearer.
    Registered,
    /// Without a session variable and an agent: where it is counts.
    Place,
}

#[derive(Clone, Debug)]
struct Carried {
    name: Arc<str>,
    value: Vec<u8>,
    top: usize,
}

/// Reads the caller (the process `pid`, acting as `uid`, of which `task` waits for the answer if any does) and its
/// ancestors. EAGAIN if they change faster than they can be read, E2BIG if there is more to look at than may be, EPERM
/// if the mount cannot see the caller, ENFILE if it lacks descriptors or memory to look.
pub fn ancestry(
    view: &impl View,
    task: Option<u32>,
    pid: u32,
    uid: u32,
) -> Result<Ancestry, Refusal> {
    for _ in 0..ATTEMPTS {
        let (chain, beyond) = match ancestors(view, pid, uid) {
            Ok(found) => found,
            Err(Obstacle::Changed) => {
                view.has_changed();
                continue;
            }
            Err(Obstacle::Refused(refusal)) => return Err(refusal),
        };
        let found = carried(view, task, &chain).and_then(|variable| match variable {
            Some(_) => Ok((variable, None)),
            None => Ok((None, agency(view, task, &chain)?)),
        });
        match found {
            Ok((variable, agent)) => {
                let init = entered(view, &chain);
                return Ok(Ancestry {
                    uid,
                    chain,
                    beyond,
                    variable,
                    agent,
                    init,
                    unregistered: OnceLock::new(),
                });
            }
            Err(Obstacle::Changed) => view.has_changed(),
            Err(Obstacle::Refused(refusal)) => return Err(refusal),
        }
    }
    Err(Refusal::Unsettled)
}

/// The first process of a sandbox that the caller is in and does not descend from.
fn entered(view: &impl View, chain: &[Facts]) -> Option<Facts> {
    let caller = chain.first().filter(|caller| caller.pidns != 0)?;
    let is_init = |facts: &Facts| facts.pidns == caller.pidns && facts.local_pid == 1;
    if chain.iter().any(is_init) {
        return None;
    }
    let init = view.init_of(caller)?;
    (is_init(&init) && init.uid == caller.uid).then_some(init)
}

/// Why a look at a process failed: it took too long, or there is nothing to look with.
fn failed(view: &impl View) -> Refusal {
    if view.is_exhausted() {
        Refusal::TooDeep
    } else {
        Refusal::Shortage
    }
}

/// Why a walk came to nothing.
enum Obstacle {
    /// The tree changed while it was read: start again.
    Changed,
    /// Another try would end as this one.
    Refused(Refusal),
}

/// The chain up to where the uid changes, and who is there; or to where the mount may see no
/// further. It has changed if one of them vanished meanwhile, or is younger than its child and so
/// is not its parent but another process with the pid.
fn ancestors(
    view: &impl View,
    pid: u32,
    uid: u32,
) -> Result<(Vec<Facts>, Option<Facts>), Obstacle> {
    let mut chain: Vec<Facts> = Vec::new();
    let mut next = pid;
    loop {
        if chain.len() >= CHAIN_MAX || view.is_exhausted() {
            return Err(Obstacle::Refused(Refusal::TooDeep));
        }
        let sight = if chain.is_empty() {
            view.caller(next)
        } else {
            view.facts(next)
        };
        let facts = match sight {
            Sight::Seen(facts) => facts,
            Sight::Gone => return Err(Obstacle::Changed),
            Sight::Hidden if chain.is_empty() => {
                return Err(Obstacle::Refused(Refusal::NotPermitted));
            }
            Sight::Hidden => return Ok((chain, None)),
            Sight::Failed => return Err(Obstacle::Refused(failed(view))),
        };
        if let Some(child) = chain.last() {
            if facts.process.start > child.process.start {
                return Err(Obstacle::Changed);
            }
            if facts.uid != uid {
                return Ok((chain, Some(facts)));
            }
        }
        next = facts.parent;
        chain.push(facts);
        if next == 0 {
            return Ok((chain, None));
        }
    }
}

/// What the chain's environments say. It has changed if one may be the environment of another process than was walked.
fn carried(
    view: &impl View,
    task: Option<u32>,
    chain: &[Facts],
) -> Result<Option<Carried>, Obstacle> {
    let mut found: Option<Carried> = None;
    for (index, facts) in chain.iter().enumerate() {
        if view.is_exhausted() {
            return Err(Obstacle::Refused(Refusal::TooDeep));
        }
        let task = task.filter(|_| index == 0);
        let variable = match view.variable(&facts.process, task) {
            Sight::Seen(variable) => variable,
            Sight::Hidden => Variable::Unreadable,
            Sight::Gone => return Err(Obstacle::Changed),
            Sight::Failed => return Err(Obstacle::Refused(failed(view))),
        };
        match (variable, &mut found) {
            // The parent's answer is its answer, so the chain goes on through it.
            (Variable::Unreadable, _) => {}
            (Variable::Set { name, value }, None) => {
                found = Some(Carried {
                    name,
                    value,
                    top: index,
                });
            }
            (Variable::Set { value, .. }, Some(carried)) if carried.value == value => {
                carried.top = index;
            }
            _ => break,
        }
    }
    Ok(found)
}

/// The environments of a chain, as far as agents' variables go, each read when it is asked for first. `None` for one that
/// cannot be read: its parent's answer is its answer.
struct Marks<'a, V: View> {
    view: &'a V,
    task: Option<u32>,
    chain: &'a [Facts],
    read: Vec<Option<Marked>>,
}

impl<V: View> Marks<'_, V> {
    fn at(&mut self, index: usize) -> Result<Option<&Marked>, Obstacle> {
        while self.read.len() <= index {
            if self.view.is_exhausted() {
                return Err(Obstacle::Refused(Refusal::TooDeep));
            }
            let next = self.read.len();
            let facts = &self.chain[next];
            let task = self.task.filter(|_| next == 0);
            self.read.push(match self.view.marks(&facts.process, task) {
                Sight::Seen(marks) => Some(marks),
                Sight::Hidden => None,
                Sight::Gone => return Err(Obstacle::Changed),
                Sight::Failed => return Err(Obstacle::Refused(failed(self.view))),
            });
        }
        Ok(self.read[index].as_ref())
    }

    /// The value of a variable there.
    fn value(&mut self, index: usize, name: &str) -> Result<Carries, Obstacle> {
        let Some(marks) = self.at(index)? else {
            return Ok(Carries::Unknown);
        };
        let found = marks.iter().find(|(known, _)| **known == *name);
        Ok(found.map_or(Carries::Nothing, |(_, value)| Carries::Value(value.clone())))
    }

    /// How far up the chain reaches what the caller carries of a variable, and its value.
    fn reach(&mut self, name: &str) -> Result<Option<(usize, Vec<u8>)>, Obstacle> {
        let mut found: Option<(usize, Vec<u8>)> = None;
        for index in 0..self.chain.len() {
            match (self.value(index, name)?, &mut found) {
                (Carries::Unknown, _) => {}
                (Carries::Value(value), None) => found = Some((index, value)),
                (Carries::Value(value), Some((top, there))) if *there == value => *top = index,
                _ => break,
            }
        }
        Ok(found)
    }

    /// Where the agent is, by the pid that is declared: above the topmost process that carries the declaration, since below,
    /// in a sandbox, other processes have the number.
    fn declared(&mut self, agent: &Agent) -> Result<Option<usize>, Obstacle> {
        let Some(name) = &agent.pid else {
            return Ok(None);
        };
        let Some((top, value)) = self.reach(name)? else {
            return Ok(None);
        };
        let pid: Option<u32> = std::str::from_utf8(&value)
            .ok()
            .and_then(|text| text.parse().ok());
        let is_it = |facts: &Facts| pid == Some(facts.local_pid) && !is_adopter(facts);
        Ok((top + 1..self.chain.len()).find(|index| is_it(&self.chain[*index])))
    }

    /// Whether a process of the agent's program is a helper of it. One that carries a value of its own, or a mark, which all have, is an
    /// agent in an agent. One that carries the same value as what is below it is a helper, and so is the caller with any.
    fn is_helper(&mut self, agent: &Agent, index: usize) -> Result<bool, Obstacle> {
        for name in &agent.marks {
            if let Carries::Value(_) = self.value(index, name)? {
                return Ok(false);
            }
        }
        for name in &agent.values {
            let Carries::Value(value) = self.value(index, name)? else {
                continue;
            };
            let mut below = Carries::Unknown;
            for index in (0..index).rev() {
                below = self.value(index, name)?;
                if !matches!(below, Carries::Unknown) {
                    break;
                }
            }
            match below {
                Carries::Value(below) if below != value => {}
                Carries::Nothing => {}
                Carries::Value(_) | Carries::Unknown => return Ok(true),
            }
        }
        Ok(false)
    }

    /// The agent, where processes of its program follow on each other and nobody may read what they carry: the topmost, since
    /// those below it are its helpers.
    fn past_helpers(&mut self, agent: &Agent, mut index: usize) -> Result<usize, Obstacle> {
        while runs(&self.chain[index], agent) && self.at(index)?.is_none() {
            let above = self.chain.get(index + 1);
            let is_parent = |facts: &&Facts| !self.chain[index].adopted && !is_adopter(facts);
            let Some(_) = above.filter(is_parent).filter(|facts| runs(facts, agent)) else {
                break;
            };
            if self.at(index + 1)?.is_some() {
                break;
            }
            index += 1;
        }
        Ok(index)
    }
}

/// What a process carries of a variable.
enum Carries {
    /// That cannot be told.
    Unknown,
    Nothing,
    Value(Vec<u8>),
}

/// The most bytes that a command name has: the kernel cuts off the rest (proc(5), `/proc/PID/comm`).
const COMMAND_MAX: usize = 15;

fn runs(facts: &Facts, agent: &Agent) -> bool {
    let cut = |program: &str| {
        let start = program.as_bytes().get(..COMMAND_MAX);
        start.is_some_and(|start| start == facts.command.as_bytes())
    };
    agent
        .programs
        .iter()
        .any(|program| *program == *facts.program || cut(program))
}

/// The nearest agent above the caller, or the caller itself.
fn agency(
    view: &impl View,
    task: Option<u32>,
    chain: &[Facts],
) -> Result<Option<Agency>, Obstacle> {
    let mut marks = Marks {
        view,
        task,
        chain,
        read: Vec::new(),
    };
    let mut nearest: Option<Agency> = None;
    let mut nearer = |name: &str, top: usize, has_gone: bool| {
        if nearest.as_ref().is_none_or(|there| top < there.top) {
            let name = Arc::from(name);
            nearest = Some(Agency {
                name,
                top,
                has_gone,
            });
        }
    };
    for agent in view.agents() {
        for name in agent.values.iter().chain(&agent.marks) {
            let Some((top, _)) = marks.reach(name)? else {
                continue;
            };
            let declared = marks.declared(agent)?;
            // What orphans have for a parent is no agent.
            let parent = Some(top + 1).filter(|above| {
                let is_agent = |facts: &Facts| {
                    // In a container it may be the first process, which adopts what its commands leave behind.
                    let is_first = facts.process.pid == 1 && runs(facts, agent);
                    is_first || (!chain[top].adopted && !is_adopter(facts))
                };
                chain.get(*above).is_some_and(is_agent)
            });
            match declared.or(parent) {
                Some(above) => nearer(&agent.name, marks.past_helpers(agent, above)?, false),
                None => nearer(&agent.name, top, true),
            }
        }
        for (index, facts) in chain.iter().enumerate() {
            if !runs(facts, agent) {
                continue;
            }
            if !marks.is_helper(agent, index)? {
                nearer(&agent.name, marks.past_helpers(agent, index)?, false);
                break;
            }
        }
    }
    Ok(nearest)
}

/// An id as this uid may use it. The ids of POSIX sessions are their own uid's: EPERM for any other, who could otherwise
/// take the id of a terminal before its owner claims anything.
fn usable(id: SessionId, uid: u32) -> Result<SessionId, Refusal> {
    match id.owner() {
        Some(owner) if owner != uid => Err(Refusal::NotPermitted),
        _ => Ok(id),
    }
}

impl Ancestry {
    /// The caller itself.
    pub fn caller(&self) -> &Facts {
        &self.chain[0]
    }

    /// Whether a process above the caller is what runs a command for another user of the same
    /// terminal, as sudo(8) does: it ends with that.
    pub fn is_errand(&self, process: &Process) -> bool {
        let is_near = |facts: &Facts| facts.sid == self.caller().sid;
        let top = self.chain.last().filter(|_| self.chain.len() > 1);
        self.beyond.as_ref().is_some_and(is_near) && top.is_some_and(|top| top.process == *process)
    }

    /// What was seen of the processes from the caller up.
    pub fn chain(&self) -> &[Facts] {
        &self.chain
    }

    /// The processes from the caller up.
    pub fn processes(&self) -> Vec<Process> {
        self.chain.iter().map(|facts| facts.process).collect()
    }

    fn lineage(&self) -> Vec<Kin> {
        let pidns = self.caller().pidns;
        let kin = |facts: &Facts| Kin {
            process: facts.process,
            pid: if facts.pidns == pidns {
                facts.local_pid
            } else {
                0
            },
        };
        self.chain.iter().map(kin).collect()
    }

    /// The uid that the caller acts as.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The session variable that the caller carries: its name and its value.
    pub fn variable(&self) -> Option<(&str, &[u8])> {
        self.variable
            .as_ref()
            .map(|carried| (&*carried.name, &*carried.value))
    }

    /// The caller's session. `standings` shows of a process each session that it is a root of. A variable whose value is
    /// no valid id is EINVAL.
    pub fn member<'a>(
        &self,
        standings: impl Fn(&Process, &mut dyn FnMut(Standing<'a>)),
    ) -> Result<Member, Refusal> {
        let by_registration = self.chain.iter().enumerate().find_map(|(index, facts)| {
            let mut found = None;
            standings(&facts.process, &mut |standing| {
                if standing.registered {
                    found = Some((standing.id, true));
                } else if standing.rule == Rule::Registered && found.is_none() {
                    found = Some((standing.id, false));
                }
            });
            found.map(|(id, itself)| (index, id, itself))
        });
        let stays = self.stays(&standings);
        if by_registration.is_none() && stays.is_none() {
            let said = || self.settle(None, self.variable.as_ref());
            return self.unregistered.get_or_init(said).clone();
        }
        match stays {
            None => self.settle(by_registration, self.variable.as_ref()),
            Some(Stay::Variable(id, top)) => {
                let carried = Carried {
                    name: Arc::from(SESSION_VARIABLES[0]),
                    value: id.as_str().as_bytes().to_vec(),
                    top,
                };
                self.settle(by_registration, Some(&carried))
            }
            Some(Stay::Agent(id, top)) if by_registration.is_none() => {
                Ok(self.speak_for(id.clone(), Rule::Agent, top))
            }
            Some(Stay::Place) if by_registration.is_none() => Ok(self.by_place()),
            Some(Stay::Agent(..) | Stay::Place | Stay::Registered) => {
                self.settle(by_registration, None)
            }
        }
    }

    /// A root of a session stays of it, whatever it writes over its environment, and so does what it has forked since:
    /// what its environment was at its exec is known by the session. Only another exec, with another session variable
    /// or below an agent, is another matter. `None` where what the environment says is what counts.
    fn stays<'a>(
        &self,
        standings: &impl Fn(&Process, &mut dyn FnMut(Standing<'a>)),
    ) -> Option<Stay<'a>> {
        let exec = self.caller().environ;
        let is_copy = |facts: &&Facts| exec != 0 && facts.environ == exec;
        for (index, facts) in self.chain.iter().enumerate() {
            if index > 0 && !is_copy(&facts) {
                break;
            }
            let mut found: Option<Standing> = None;
            standings(&facts.process, &mut |standing| {
                let same_exec = exec != 0 && standing.environ == exec;
                let is_said = matches!(standing.rule, Rule::Variable | Rule::Agent);
                // Of one that has made another exec, or may have, the session is what is left if nothing else is said.
                let is_left =
                    index == 0 && is_said && self.variable.is_none() && self.agent.is_none();
                let rank = |rule: Rule| match rule {
                    Rule::Variable => 3,
                    Rule::Agent => 2,
                    Rule::Registered => 1,
                    _ => 0,
                };
                if (same_exec || is_left)
                    && found.is_none_or(|there| rank(there.rule) < rank(standing.rule))
                {
                    found = Some(standing);
                }
            });
            let Some(there) = found else { continue };
            let is_root = |facts: &Facts| {
                let mut is_root = false;
                standings(&facts.process, &mut |other| is_root |= other.id == there.id);
                is_root
            };
            let top = || {
                let above = self.chain.iter().rposition(is_root);
                above.unwrap_or(index)
            };
            return Some(match there.rule {
                Rule::Variable => Stay::Variable(there.id, top()),
                Rule::Agent => Stay::Agent(there.id, top()),
                Rule::Registered => Stay::Registered,
                Rule::Sandbox | Rule::Posix | Rule::Remote => Stay::Place,
            });
        }
        None
    }

    /// Which of the rules it is that decides: `by_registration` is the nearest of the chain that is registered, and its
    /// session, and `variable` what the caller carries.
    fn settle(
        &self,
        by_registration: Option<(usize, &SessionId, bool)>,
        variable: Option<&Carried>,
    ) -> Result<Member, Refusal> {
        match (by_registration, variable) {
            // On a tie, what was said of the process itself outweighs what it inherited, and what it was exec'd with
            // outweighs that it once claimed for the session above it.
            (Some((index, id, itself)), Some(carried))
                if index < carried.top || (index == carried.top && itself) =>
            {
                Ok(self.speak_for(id.clone(), Rule::Registered, index))
            }
            (Some((index, id, _)), None) => Ok(self.speak_for(id.clone(), Rule::Registered, index)),
            (_, Some(carried)) => {
                let id = SessionId::new(&carried.value).map_err(|_| Refusal::Invalid)?;
                Ok(self.speak_for(usable(id, self.uid)?, Rule::Variable, carried.top))
            }
            (None, None) => match &self.agent {
                Some(Agency { name, top, .. }) => {
                    let id = SessionId::agent(name, &self.chain[*top].process, self.uid);
                    Ok(self.speak_for(id, Rule::Agent, *top))
                }
                None => Ok(self.by_place()),
            },
        }
    }

    /// The session of where the caller happens to be: rules 4 and 5.
    fn by_place(&self) -> Member {
        let pidns = self.caller().pidns;
        if pidns != 0 {
            let same = |facts: &&Facts| facts.pidns == pidns;
            let top = self.chain.iter().take_while(same).count() - 1;
            return self.speak_for(SessionId::sandbox(pidns, self.uid), Rule::Sandbox, top);
        }
        let sid = self.caller().sid;
        let same = |facts: &&Facts| facts.sid == sid;
        let top = self.chain.iter().take_while(same).count() - 1;
        let id = if sid == 0 {
            // It came from outside the mount's pid namespace: its session has no number here.
            SessionId::outside(&self.chain[top].process, self.uid)
        } else {
            SessionId::posix(sid, self.uid)
        };
        self.speak_for(id, Rule::Posix, top)
    }

    /// The agent that rule 3 has found has gone: what it has left behind is of the session that any of it is a root of.
    pub fn is_left_behind(&self) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.has_gone)
    }

    /// The agent above the caller: its name, and its process or what it has left behind.
    pub fn agent(&self) -> Option<(&str, &Process)> {
        let agent = self.agent.as_ref()?;
        Some((&agent.name, &self.chain[agent.top].process))
    }

    /// The caller as a member of a session that it registers: its root is the process that `body` names, by the pid
    /// that the caller's own namespace gives it, or, if the body is blank, the leader of the caller's POSIX session.
    /// EINVAL for what is no pid, EPERM for a process that is neither the caller nor above it.
    pub fn register(&self, id: SessionId, body: &[u8]) -> Result<Member, Refusal> {
        let id = usable(id, self.uid)?;
        let text = std::str::from_utf8(body)
            .map_err(|_| Refusal::Invalid)?
            .trim();
        let caller = self.caller();
        let at = if text.is_empty() {
            self.chain
                .iter()
                .position(|facts| facts.process.pid == caller.sid)
        } else {
            let pid: u32 = text.parse().map_err(|_| Refusal::Invalid)?;
            let named = |facts: &Facts| facts.local_pid == pid && facts.pidns == caller.pidns;
            self.chain.iter().position(named)
        };
        let at = at.ok_or(Refusal::NotPermitted)?;
        let root = &self.chain[at];
        if at > 0 && (is_adopter(root) || self.chain[at - 1].adopted) {
            return Err(Refusal::NotPermitted);
        }
        Ok(Member {
            id,
            rule: Rule::Registered,
            scope: Scope::Session,
            uid: self.uid,
            pidns: root.pidns,
            sandbox: caller.pidns,
            lineage: self.lineage(),
            heir: None,
            roots: vec![Root {
                registered: true,
                ..as_root(root)
            }],
            pid: caller.process.pid,
            command: Arc::clone(&caller.command),
        })
    }

    /// The process that claims pass to beyond the topmost of these roots: the first of the sandbox,
    /// or of the container that the mount is in too, if that is in the same POSIX session.
    fn heir(&self, rule: Rule, roots: &[Root]) -> Option<Root> {
        let caller = self.caller();
        let is_heir = |facts: &&Facts| match rule {
            Rule::Sandbox => facts.pidns == caller.pidns && facts.local_pid == 1,
            _ => facts.process.pid == 1 && facts.sid == caller.sid,
        };
        let heir = self.chain.iter().chain(&self.init).find(is_heir)?;
        let is_new = roots.iter().all(|root| root.process != heir.process);
        is_new.then(|| Root {
            above: Above::Nobody,
            ..as_root(heir)
        })
    }

    /// The caller as a member: the roots are the processes from `top` down to itself. The chain is broken at one that
    /// adopts orphans, since what is below it may not descend from what is above it.
    fn speak_for(&self, id: SessionId, rule: Rule, top: usize) -> Member {
        let caller = self.caller();
        let mut chain = vec![caller];
        for facts in &self.chain[1..=top] {
            // A sandbox lives and dies with its init, though that adopts what is in it.
            let is_init = rule == Rule::Sandbox && facts.local_pid == 1;
            // So does a container whose first process is the agent.
            let is_top = facts.process == self.chain[top].process;
            let is_agent = rule == Rule::Agent && is_top && facts.process.pid == 1;
            let adopts = is_adopter(facts) || chain.last().is_some_and(|child| child.adopted);
            if adopts && !is_init && !is_agent {
                break;
            }
            chain.push(facts);
        }
        let pidns = chain.last().map_or(caller.pidns, |facts| facts.pidns);
        let mut roots: Vec<Root> = chain.into_iter().rev().map(as_root).collect();
        let scope = rule.scope();
        let heir = match scope {
            Scope::Process => self.heir(rule, &roots),
            Scope::Session => None,
        };
        if scope == Scope::Process {
            let heir = heir.as_ref().map(|heir| heir.process);
            let mut above = heir.map_or(Above::Nobody, Above::Process);
            for root in &mut roots {
                root.above = above;
                above = Above::Process(root.process);
            }
        }
        let (pid, command) = (caller.process.pid, Arc::clone(&caller.command));
        Member {
            id,
            rule,
            scope,
            heir,
            uid: self.uid,
            pidns,
            sandbox: caller.pidns,
            lineage: self.lineage(),
            roots,
            pid,
            command,
        }
    }
}

/// Whether a process is known to adopt the orphans of others. The kernel shows that of pid 1 alone, and what a process
/// calls itself proves nothing; any other is found out when a process turns up with another parent than it had
/// ([`Facts::adopted`]).
fn is_adopter(facts: &Facts) -> bool {
    facts.process.pid == 1
}

fn as_root(facts: &Facts) -> Root {
    Root {
        process: facts.process,
        command: Arc::clone(&facts.command),
        started: facts.started,
        registered: false,
        environ: facts.environ,
        above: Above::Unknown,
    }
}
