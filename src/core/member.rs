//! Callers and their sessions: the rule that decides the session, and the scope of its claims.
//!
//! Does not know: how the rule is found (`identity.rs`).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Process, Root, SessionId};

/// The processes that may change a lease of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Each process of the session.
    Session,
    /// The process that made it and those below it. When it exits, its parent takes its place.
    Process,
}

impl Scope {
    /// The word in the file `self`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Process => "process",
        }
    }
}

/// A process as a root of a session.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// The session.
    pub id: &'a SessionId,
    /// The rule that made the session, or `Registered` if one of its roots was registered: but that
    /// of a terminal stays what it is.
    pub rule: Rule,
    /// True if the process itself was registered.
    pub registered: bool,
    /// See [`Root::environ`].
    pub environ: u64,
}

/// The rule that gave a caller its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// Rule 1: a root registered in `sessions/`.
    Registered,
    /// Rule 2: a session variable in the environment.
    Variable,
    /// Rule 3: a known coding agent above the caller.
    Agent,
    /// Rule 4: the caller's sandbox, a pid namespace below the mount's.
    Sandbox,
    /// Rule 5: the POSIX session, which all processes of a terminal share.
    Posix,
    /// No rule: the mount sees none of its processes, and only its deadline ends it.
    // The name in journals.
    #[serde(rename = "Named")]
    Remote,
}

impl Rule {
    /// Session scope if the whole session is one worker because somebody declared it or because it
    /// is an agent's. Process scope if its processes only share a terminal or a sandbox.
    pub fn scope(self) -> Scope {
        match self {
            Self::Registered | Self::Variable | Self::Agent | Self::Remote => Scope::Session,
            Self::Sandbox | Self::Posix => Scope::Process,
        }
    }

    /// The word in records and in the file `self`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Variable => "variable",
            Self::Agent => "agent",
            Self::Sandbox => "sandbox",
            Self::Posix => "posix",
            Self::Remote => "named",
        }
    }
}

/// A resolved caller: its session, and the processes that it would add to the session's roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The id of its session, which need not exist yet.
    pub id: SessionId,
    /// The rule that decided.
    pub rule: Rule,
    /// The scope of its claims: that of the rule, but session scope if the kernel does not report
    /// how a process ended.
    pub scope: Scope,
    /// Its uid. It joins only sessions of the same uid.
    pub uid: u32,
    /// The pid namespace of the topmost root. A process that is not related to a session's roots
    /// joins it only from the same namespace.
    pub pidns: u64,
    /// Its own pid namespace, which may be below `pidns`. 0 for the mount's own.
    pub sandbox: u64,
    /// The processes from the topmost one that the rule finds down to the caller.
    pub roots: Vec<Root>,
    /// Under process scope, the process to which claims pass after the topmost root: the first of a
    /// sandbox or a container.
    pub heir: Option<Root>,
    /// The caller, its parent, and so on up while the uid is the same.
    pub lineage: Vec<Kin>,
    /// Its process id.
    pub pid: u32,
    /// Its command name.
    pub command: Arc<str>,
}

impl Member {
    /// Under process scope, the process that holds a claim which the caller makes: the caller.
    pub fn maker(&self) -> Option<Process> {
        let caller = self.roots.last().map(|root| root.process);
        caller.filter(|_| self.scope == Scope::Process)
    }
}

/// A process in a caller's lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kin {
    /// Which process.
    pub process: Process,
    /// Its pid in the caller's own pid namespace. 0 if it has none there.
    pub pid: u32,
}
