//! Whose lease is it? Finds the session of a caller, as a function over a view of processes.
//!
//! Promises: the same view gives the same answer, and reading has no effect. An ancestry that
//! changes while it is read is read again. A process above the caller that is of another uid, pid
//! 1, or known as a subreaper never becomes a root of a session. The exception is the first process
//! of a sandbox or a container: claims pass to it last, and it may be the agent.
//!
//! The first of these rules that applies decides; of 1 and 2, the one whose root is nearer to the
//! caller:
//! 1. a registered root above the caller, or the caller itself;
//! 2. a session variable in the caller's environment;
//! 3. the nearest known coding agent above the caller, or the caller itself (`agents.rs`);
//! 4. the pid namespace that the caller is in, if it is one below the mount's;
//! 5. the POSIX session.
//!
//! Does not know: where the facts come from, or what a session holds.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use crate::core::agents::Agent;
use crate::core::{Above, Kin, Member, Process, Refusal, Root, Rule, Scope, SessionId, Standing};

/// The session variables, in the order of precedence. Sources: claimfs itself; looop 0.29 (worker
/// sessions); babysit; Gas Town.
pub const SESSION_VARIABLES: [&str; 4] = [
    "CLAIMFS_SESSION",
    "LOOOP_SESSION_ID",
    "BABYSIT_SESSION_ID",
    "GT_SESSION",
];

/// Read at most this many processes from the caller up.
const CHAIN_MAX: usize = 1024;

/// Answer EAGAIN after this many attempts to read an ancestry that keeps changing.
const ATTEMPTS: usize = 1000;

/// The facts about a process.
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
    /// The name of its program: the command name, or the script's name for an interpreter.
    pub program: Arc<str>,
    /// When it started.
    pub started: SystemTime,
    /// Its parent is not its first one: the current parent adopts orphans.
    pub adopted: bool,
    /// Identifies its last exec by the address of its environment, which a fork keeps. 0 if that is
    /// unknown or does not differ between execs.
    pub environ: u64,
}

/// The session variable in an environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// No session variable.
    Unset,
    /// The first session variable that is set.
    Set {
        /// Its name.
        name: Arc<str>,
        /// Its value, as it is in the environment.
        value: Vec<u8>,
    },
    /// The environment cannot be read. The parent's counts instead.
    Unreadable,
}

/// The variables of known agents in an environment, with their values.
pub type Marked = Vec<(Arc<str>, Vec<u8>)>;

/// The result of reading a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight<T> {
    /// It was read.
    Seen(T),
    /// It does not exist any more.
    Gone,
    /// It exists, but the mount may not read it (`hidepid`, a kernel thread).
    Hidden,
    /// The read failed, say for lack of descriptors. It proves nothing.
    Failed,
}

impl<T> Sight<T> {
    /// Converts the value that was read.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Sight<U> {
        match self {
            Self::Seen(seen) => Sight::Seen(change(seen)),
            Self::Gone => Sight::Gone,
            Self::Hidden => Sight::Hidden,
            Self::Failed => Sight::Failed,
        }
    }
}

/// A view of the processes of the system.
pub trait View {
    /// The facts about a process above the caller.
    fn facts(&self, pid: u32) -> Sight<Facts>;
    /// The facts about the caller, not from a cache.
    fn caller(&self, pid: u32) -> Sight<Facts> {
        self.facts(pid)
    }
    /// True if this caller has used up its share of reading.
    fn is_exhausted(&self) -> bool {
        false
    }
    /// The first process of the pid namespace of a process, if the mount can see it.
    fn init_of(&self, process: &Facts) -> Option<Facts> {
        let _ = process;
        None
    }
    /// Called when something changed during the reading: cached facts are not valid any more.
    fn has_changed(&self) {}
    /// Whether what was read of a process is what one would read now: it has had no exec since.
    fn is_current(&self, process: &Process) -> bool {
        let _ = process;
        true
    }
    /// The session variable in the environment of a process, as of its last exec. `task` is a
    /// thread of it that waits for the mount, if any: while it waits, the process can neither exec
    /// nor exit.
    fn variable(&self, process: &Process, task: Option<u32>) -> Sight<Variable>;
    /// The known agents.
    fn agents(&self) -> &[Agent] {
        &[]
    }
    /// The variables of known agents in the environment of a process, as of its last exec.
    fn marks(&self, process: &Process, task: Option<u32>) -> Sight<Marked> {
        let _ = (process, task);
        Sight::Seen(Vec::new())
    }
}

/// The caller and the processes above it, read once.
#[derive(Clone, Debug)]
pub struct Ancestry {
    uid: u32,
    /// The caller first, then its parent, and so on, as long as the uid is the caller's.
    chain: Vec<Facts>,
    /// The next process above, if it belongs to another user.
    beyond: Option<Facts>,
    /// The session variable of the caller, and how far up the chain it has the same value.
    variable: Option<Carried>,
    /// The nearest agent. Not read if there is a session variable.
    agent: Option<Agency>,
    /// The first process of the caller's sandbox, if it is not above the caller because the caller
    /// entered the sandbox from outside.
    init: Option<Facts>,
    /// The caller's session if no process of the chain is registered. Cached, since each claim asks
    /// twice.
    unregistered: OnceLock<Result<Member, Refusal>>,
}

/// A known agent in the chain.
#[derive(Clone, Debug)]
struct Agency {
    name: Arc<str>,
    /// Its index in the chain; or, if it has exited, that of the topmost process that it left
    /// behind.
    top: usize,
    has_gone: bool,
}

/// The session that a root, or a fork of one, keeps: see [`Ancestry::stays`].
enum Stay<'a> {
    /// The session of its variable, and the index of its topmost root in the chain.
    Variable(&'a SessionId, usize),
    /// The session of an agent, and the index of its topmost root in the chain.
    Agent(&'a SessionId, usize),
    /// A registered session. No variable and no agent was nearer.
    Registered,
    /// The session of its sandbox or terminal, since it had no variable and no agent.
    Place,
}

#[derive(Clone, Debug)]
struct Carried {
    name: Arc<str>,
    value: Vec<u8>,
    top: usize,
}

/// Reads the caller (process `pid`, acting as `uid`) and its ancestors. `task` is the caller's
/// thread that waits for the answer, if any. EAGAIN if they change faster than they can be read,
/// E2BIG if there is too much to read, EPERM if the mount cannot see the caller, ENFILE if the
/// server lacks descriptors or memory.
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

/// Why a read failed: its time is used up, or resources are.
fn failed(view: &impl View) -> Refusal {
    if view.is_exhausted() {
        Refusal::TooDeep
    } else {
        Refusal::Shortage
    }
}

/// Why an ancestry could not be read.
enum Obstacle {
    /// It changed while it was read: start again.
    Changed,
    /// Another attempt would fail too.
    Refused(Refusal),
}

/// The chain up to where the uid changes, and the process there; or up to where the mount may see
/// no further. The ancestry has changed if a process vanished, or if a parent is younger than its
/// child: then another process has got its pid.
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

/// The session variable that the caller carries. The ancestry has changed if the environment may
/// belong to another process than the one in the chain.
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
            // The parent's environment counts, so the chain continues.
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
            // Here the chain ends, unless the process has run `env CLAIMFS_SESSION=… COMMAND` since
            // it was read: then it is the root, as it will be in a moment.
            (_, Some(_)) if !view.is_current(&facts.process) => return Err(Obstacle::Changed),
            _ => break,
        }
    }
    Ok(found)
}

/// The agents' variables in the environments of a chain, each read on first use. `None` if an
/// environment cannot be read: the parent's counts instead.
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

    /// The value of a variable in a process's environment.
    fn value(&mut self, index: usize, name: &str) -> Result<Carries, Obstacle> {
        let Some(marks) = self.at(index)? else {
            return Ok(Carries::Unknown);
        };
        let found = marks.iter().find(|(known, _)| **known == *name);
        Ok(found.map_or(Carries::Nothing, |(_, value)| Carries::Value(value.clone())))
    }

    /// The caller's value of a variable, and the index of the topmost process that has the same.
    fn reach(&mut self, name: &str) -> Result<Option<(usize, Vec<u8>)>, Obstacle> {
        let mut found: Option<(usize, Vec<u8>)> = None;
        for index in 0..self.chain.len() {
            match (self.value(index, name)?, &mut found) {
                (Carries::Unknown, _) => {}
                (Carries::Value(value), None) => found = Some((index, value)),
                (Carries::Value(value), Some((top, there))) if *there == value => *top = index,
                (_, Some(_)) if !self.view.is_current(&self.chain[index].process) => {
                    return Err(Obstacle::Changed);
                }
                _ => break,
            }
        }
        Ok(found)
    }

    /// The index of the agent by the pid that it declares. It is above the topmost process that
    /// carries the declaration: below, in a sandbox, other processes may have that pid.
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

    /// True if a process that runs the agent's program is a helper. With a mark, or a value of its
    /// own, it is an agent within an agent. With the same value as the process below it, it is a
    /// helper, and so is the caller with any value.
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

    /// The agent, if processes of its program follow each other and their environments cannot be
    /// read: the topmost one, since those below are helpers.
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

/// A variable in a process's environment.
enum Carries {
    /// The environment cannot be read.
    Unknown,
    Nothing,
    Value(Vec<u8>),
}

/// The longest command name in bytes. The kernel truncates it (proc(5), `/proc/PID/comm`).
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
            // The parent of an orphan is not its agent.
            let parent = Some(top + 1).filter(|above| {
                let is_agent = |facts: &Facts| {
                    // In a container, the agent may be the first process, which also adopts
                    // orphans.
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

/// Checks that this uid may use an id. EPERM for the id of another uid's POSIX session, which could
/// otherwise be taken before its owner claims anything.
fn usable(id: SessionId, uid: u32) -> Result<SessionId, Refusal> {
    match id.owner() {
        Some(owner) if owner != uid => Err(Refusal::NotPermitted),
        _ => Ok(id),
    }
}

impl Ancestry {
    /// The caller.
    pub fn caller(&self) -> &Facts {
        &self.chain[0]
    }

    /// True if a process above the caller only runs a command for another user in the same
    /// terminal, as sudo(8) does: it exits with that command.
    pub fn is_errand(&self, process: &Process) -> bool {
        let is_near = |facts: &Facts| facts.sid == self.caller().sid;
        let top = self.chain.last().filter(|_| self.chain.len() > 1);
        self.beyond.as_ref().is_some_and(is_near) && top.is_some_and(|top| top.process == *process)
    }

    /// The facts about the processes from the caller up.
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

    /// The caller's session. `standings` calls back with each session that a process is a root of.
    /// EINVAL if the value of a session variable is not a valid id.
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
            let decided = || self.decide(None, self.variable.as_ref());
            return self.unregistered.get_or_init(decided).clone();
        }
        match stays {
            None => self.decide(by_registration, self.variable.as_ref()),
            Some(Stay::Variable(id, top)) => {
                let carried = Carried {
                    name: Arc::from(SESSION_VARIABLES[0]),
                    value: id.as_str().as_bytes().to_vec(),
                    top,
                };
                self.decide(by_registration, Some(&carried))
            }
            Some(Stay::Agent(id, top)) if by_registration.is_none() => {
                Ok(self.as_member(id.clone(), Rule::Agent, top))
            }
            Some(Stay::Place) if by_registration.is_none() => Ok(self.by_place()),
            Some(Stay::Agent(..) | Stay::Place | Stay::Registered) => {
                self.decide(by_registration, None)
            }
        }
    }

    /// The session that the caller keeps, whatever it writes over its environment: a root stays in
    /// its session, and so does a fork of it, since the session knows the environment of its last
    /// exec. Only another exec, with another session variable or below an agent, changes that.
    /// `None` if the environment decides.
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
                // After another exec, the previous session counts if nothing else decides.
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

    /// Chooses between rules. `by_registration` is the nearest registered process of the chain: its
    /// index, its session, and whether it was registered itself. `variable` is the session variable
    /// that the caller carries.
    fn decide(
        &self,
        by_registration: Option<(usize, &SessionId, bool)>,
        variable: Option<&Carried>,
    ) -> Result<Member, Refusal> {
        match (by_registration, variable) {
            // On a tie, the registration of the process itself takes precedence over an inherited
            // variable, and a variable from its exec over an earlier claim for the session above
            // it.
            (Some((index, id, itself)), Some(carried))
                if index < carried.top || (index == carried.top && itself) =>
            {
                Ok(self.as_member(id.clone(), Rule::Registered, index))
            }
            (Some((index, id, _)), None) => Ok(self.as_member(id.clone(), Rule::Registered, index)),
            (_, Some(carried)) => {
                let id = SessionId::new(&carried.value).map_err(|_| Refusal::Invalid)?;
                Ok(self.as_member(usable(id, self.uid)?, Rule::Variable, carried.top))
            }
            (None, None) => match &self.agent {
                Some(Agency { name, top, .. }) => {
                    let id = SessionId::agent(name, &self.chain[*top].process, self.uid);
                    Ok(self.as_member(id, Rule::Agent, *top))
                }
                None => Ok(self.by_place()),
            },
        }
    }

    /// The session of the caller's sandbox or terminal: rules 4 and 5.
    fn by_place(&self) -> Member {
        let pidns = self.caller().pidns;
        if pidns != 0 {
            let same = |facts: &&Facts| facts.pidns == pidns;
            let top = self.chain.iter().take_while(same).count() - 1;
            return self.as_member(SessionId::sandbox(pidns, self.uid), Rule::Sandbox, top);
        }
        let sid = self.caller().sid;
        let same = |facts: &&Facts| facts.sid == sid;
        let top = self.chain.iter().take_while(same).count() - 1;
        let id = if sid == 0 {
            // It came from outside the mount's pid namespace, so its session has no number here.
            SessionId::outside(&self.chain[top].process, self.uid)
        } else {
            SessionId::posix(sid, self.uid)
        };
        self.as_member(id, Rule::Posix, top)
    }

    /// True if the agent of rule 3 has exited. The processes that it left behind belong to the
    /// session that any of them is a root of.
    pub fn is_left_behind(&self) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.has_gone)
    }

    /// The agent above the caller: its name, and its process or the topmost one that it left
    /// behind.
    pub fn agent(&self) -> Option<(&str, &Process)> {
        let agent = self.agent.as_ref()?;
        Some((&agent.name, &self.chain[agent.top].process))
    }

    /// The caller as a member of a session that it registers. The root is the process whose pid, in
    /// the caller's namespace, is in `body`; if the body is blank, the leader of the caller's POSIX
    /// session. EINVAL if the body is not a pid, EPERM if the process is neither the caller nor
    /// above it.
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

    /// The process that claims pass to after the topmost of these roots: the first process of the
    /// sandbox; or the first one of the mount's own container, if it is in the same POSIX session.
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

    /// The caller as a member: the roots are the processes from `top` down to itself. The chain
    /// ends below a process that adopts orphans, since those may not descend from the processes
    /// above it.
    fn as_member(&self, id: SessionId, rule: Rule, top: usize) -> Member {
        let caller = self.caller();
        let mut chain = vec![caller];
        for facts in &self.chain[1..=top] {
            // A sandbox lives as long as its first process, even though that adopts orphans.
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

/// True if a process is known to adopt orphans. The kernel shows that only of pid 1, and a
/// process's name proves nothing. Other subreapers are noticed when a process changes its parent
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
