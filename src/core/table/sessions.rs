//! The rules of sessions: joining one, its roots, its end, and the death of a process.
//!
//! Does not know: how the session of a caller is found (`identity.rs`).

use std::sync::Arc;

use super::{Draft, Session, SessionKey, Table};
use crate::core::{
    Above, Asker, End, EndedBy, Ending, Member, Process, Refusal, Root, Rule, Scope, SessionId,
    WaiterId, What,
};

impl Table {
    pub(super) fn decide_join(
        &self,
        draft: &mut Draft,
        exclusive: bool,
        by: &Member,
    ) -> Result<(), Refusal> {
        if exclusive && self.session(&by.id).is_some() {
            return Err(Refusal::Exists);
        }
        let key = self.enter(draft, by)?;
        // A process is registered in one session at a time: the newest registration counts.
        for root in by.roots.iter().filter(|root| root.registered) {
            let others = self.roots.get(&root.process).into_iter().flatten();
            for other in others.filter(|other| **other != key) {
                self.leave(draft, *other, root);
            }
        }
        Ok(())
    }

    /// Takes a registration back. If the session holds nothing and has no other process, it ends,
    /// so that a script that registers itself again and again leaves no sessions behind.
    fn leave(&self, draft: &mut Draft, key: SessionKey, root: &Root) {
        let Some(session) = self.sessions.get(&key) else {
            return;
        };
        let itself = |there: &&Root| there.process == root.process;
        if !session
            .roots
            .iter()
            .any(|there| itself(&there) && there.registered)
        {
            return;
        }
        let idle = session.leases.is_empty() && session.waiters.is_empty();
        if idle && session.roots.iter().all(|there| itself(&there)) {
            let why = End::Ended;
            let by = None;
            draft.push(What::SessionEnded { key, why, by });
            return;
        }
        let above = session.roots.iter().find(itself).map(|there| there.above);
        let root = Root {
            registered: false,
            above: above.unwrap_or_default(),
            ..root.clone()
        };
        draft.push(What::Joined { key, root });
    }

    pub(super) fn decide_end(
        &self,
        draft: &mut Draft,
        id: &SessionId,
        by: &Asker,
    ) -> Result<(), Refusal> {
        let session = self.session(id).ok_or(Refusal::NotFound)?;
        if !reaches(session, by) {
            return Err(Refusal::NotPermitted);
        }
        let by = EndedBy {
            uid: by.uid,
            pid: by.chain.first().map_or(0, |process| process.pid),
            command: Arc::clone(&by.command),
        };
        draft.push(What::SessionEnded {
            key: session.key,
            why: End::Ended,
            by: Some(Arc::new(by)),
        });
        Ok(())
    }

    /// Ends a session by removing its file. A program that deletes every file must take nothing
    /// from others, so the answer is EBUSY to callers outside of the session, also to root. It is
    /// EBUSY to all callers if the processes of the session only share a terminal or a sandbox
    /// (rules 4 and 5), or if it has no processes.
    pub(super) fn decide_end_own(
        &self,
        draft: &mut Draft,
        id: &SessionId,
        by: Option<&Member>,
    ) -> Result<(), Refusal> {
        let session = self.session(id).ok_or(Refusal::NotFound)?;
        let is_said = match session.rule {
            Rule::Registered | Rule::Variable | Rule::Agent => true,
            Rule::Sandbox | Rule::Posix | Rule::Remote => false,
        };
        let is_own = by.is_some_and(|by| {
            by.id == *id && self.joinable(by).ok().flatten() == Some(session.key)
        });
        if !is_said || !is_own {
            return Err(Refusal::Busy);
        }
        let by = by.map(|by| {
            Arc::new(EndedBy {
                uid: by.uid,
                pid: by.pid,
                command: Arc::clone(&by.command),
            })
        });
        draft.push(What::SessionEnded {
            key: session.key,
            why: End::Ended,
            by,
        });
        Ok(())
    }

    pub(super) fn decide_died(&self, draft: &mut Draft, process: &Process, ending: Option<Ending>) {
        let signal = ending.and_then(Ending::killed_by);
        let inodes = self.bound.get(process).into_iter().flatten();
        let inodes = inodes.filter_map(|ino| self.inode(*ino));
        let bound = inodes.filter(|inode| inode.bound.as_ref().is_some_and(|bound| !bound.passes));
        for token in bound.flat_map(|inode| &inode.names) {
            if let Some(name) = self.names.get(*token).cloned() {
                let token = *token;
                draft.push(What::Reaped {
                    name,
                    token,
                    signal,
                });
            }
        }
        let keys = self.roots.get(process).into_iter().flatten();
        for session in keys.filter_map(|key| self.sessions.get(key)) {
            self.decide_left(draft, session, process, ending);
        }
    }

    /// Decides the death of a root. If it exited, its leases pass to the process above it. If it
    /// was killed, they are free, and nothing passes through it. If its ending matters and is not
    /// known, nothing happens yet.
    fn decide_left(
        &self,
        draft: &mut Draft,
        session: &Session,
        process: &Process,
        ending: Option<Ending>,
    ) {
        let key = session.key;
        let itself = |root: &&Root| root.process == *process;
        let root = session.roots.iter().find(itself);
        let above = root.and_then(|root| root.above.process());
        let holds = self.held_by(key, process).next().is_some();
        let is_above = |root: &Root| root.above == Above::Process(*process);
        let waiters: Vec<WaiterId> = self.waiters_by(key, process).collect();
        let matters = holds || !waiters.is_empty() || session.roots.iter().any(is_above);
        if ending.is_none() && matters && above.is_some() {
            return;
        }
        let ending = ending.unwrap_or(Ending::Unknown);
        let killed = ending.killed_by();
        match above.filter(|_| killed.is_none()) {
            Some(to) if holds => draft.push(What::Passed {
                key,
                from: *process,
                to,
                exit: ending.code(),
            }),
            Some(_) => {}
            // Other processes may have the files of these waiters open, but no process would hold
            // the claims.
            None => {
                for waiter in waiters {
                    draft.push(What::LeftQueue { waiter });
                }
            }
        }
        draft.push(What::Left {
            key,
            process: *process,
            killed,
        });
        if session.roots.iter().all(|root| itself(&root)) {
            let (why, by) = (End::Died, None);
            draft.push(What::SessionEnded { key, why, by });
        }
    }

    /// The live session that the member would join. `None` if it would start one. EPERM if the
    /// session has another uid, or another namespace and no root above the member.
    pub(super) fn joinable(&self, by: &Member) -> Result<Option<SessionKey>, Refusal> {
        let Some(session) = self.session(&by.id) else {
            return Ok(None);
        };
        let related = || {
            by.roots.iter().any(|root| {
                session
                    .roots
                    .iter()
                    .any(|other| other.process == root.process)
            })
        };
        let has_processes = session.rule != Rule::Remote;
        if has_processes && session.uid == by.uid && (session.pidns == by.pidns || related()) {
            Ok(Some(session.key))
        } else {
            Err(Refusal::NotPermitted)
        }
    }

    /// True unless the live session of the member's id is one that it may not join.
    pub fn admits(&self, by: &Member) -> bool {
        self.joinable(by).is_ok()
    }

    /// Makes the member's processes roots of its session. Starts the session if there is none.
    pub(super) fn enter(&self, draft: &mut Draft, by: &Member) -> Result<SessionKey, Refusal> {
        let known = self.joinable(by)?;
        let key = known.unwrap_or_else(|| draft.start(by));
        let roots = known
            .and_then(|key| self.sessions.get(&key))
            .map_or(&[][..], |session| &session.roots);
        let heir = by.heir.iter().filter(|_| by.scope == Scope::Process);
        for root in heir.chain(&by.roots) {
            let there = roots.iter().find(|there| there.process == root.process);
            let registered = there.is_some_and(|there| there.registered);
            // A root that called exec since has a new environment.
            let is_known = |there: &Root| root.environ == 0 || there.environ == root.environ;
            let is_linked = there.is_some_and(|there| {
                by.scope == Scope::Process
                    && there.above == Above::Unknown
                    && root.above != Above::Unknown
            });
            let is_changed = (root.registered && !registered) || is_linked;
            if is_changed || !there.is_some_and(is_known) {
                let registered = root.registered || registered;
                // The link of a root is set once, when it joins.
                let above = match by.scope {
                    Scope::Process if there.is_none() || is_linked => root.above,
                    _ => there.map_or(Above::Unknown, |there| there.above),
                };
                let root = Root {
                    registered,
                    above,
                    ..root.clone()
                };
                draft.push(What::Joined { key, root });
            }
        }
        Ok(key)
    }
}

/// True if a caller may end a session or break its leases: root may, and the session's uid from the
/// session's pid namespace, from the mount's, or from below one of its roots. A sandboxed process
/// reaches nothing outside of its sandbox.
pub(super) fn reaches(session: &Session, by: &Asker) -> bool {
    let mut roots = session.roots.iter();
    let near = by.pidns == 0
        || by.pidns == session.pidns
        || roots.any(|root| by.chain.contains(&root.process));
    by.uid == 0 || (by.uid == session.uid && near)
}
