//! The terms of a lease: the process that it ends with, its deadline, its transfer to another
//! session, and breaking it. All names of an inode share their terms.
//!
//! Does not know: how a body asks for terms (`content`), or the clock. The time is an argument.

use std::sync::Arc;
use std::time::Duration;

use super::sessions::reaches;
use super::{Draft, Inode, Node, Session, Table};
use crate::core::content::{Ask, REASON};
use crate::core::{
    Asker, Attributes, Binding, Change, Deadline, Ino, Member, Name, Refusal, Rule, Scope,
    SessionId, Token, What,
};

impl Table {
    /// Decides the request in the body of a claim. A request that the writer may not make is only
    /// text; EFBIG for a reason that is too long.
    pub(super) fn decide_ask(
        &self,
        draft: &mut Draft,
        ino: Ino,
        inode: &Inode,
        by: &Member,
        ask: Ask,
    ) -> Result<(), Refusal> {
        match ask {
            Ask::Pid(pid) => {
                if let Some(binding) = binding(inode, by, pid) {
                    draft.push(What::Bound { ino, binding });
                }
            }
            Ask::Terms {
                session,
                ttl,
                reason,
            } => {
                if let Some(ttl) = ttl {
                    draft.limit(ino, ttl);
                }
                let receiver = session.and_then(|id| self.receiver(&id, by).ok());
                let receiver = receiver.filter(|there| there.key != inode.holder);
                // With a new holder the inode gets a new number, so this comes first.
                if let Some(reason) = reason {
                    let change = reason_is(Some(reason));
                    inode.content.check(&change)?;
                    draft.push(What::Altered { ino, change });
                } else if receiver.is_some() {
                    drop_reason(draft, ino, inode);
                }
                if let Some(receiver) = receiver {
                    self.hand(draft, inode, receiver);
                }
            }
        }
        Ok(())
    }

    pub(super) fn decide_limit(
        &self,
        draft: &mut Draft,
        ino: Ino,
        by: &Member,
        ttl: Option<Duration>,
    ) -> Result<(), Refusal> {
        let inode = self.own_claim(ino, by)?;
        for token in &inode.names {
            self.know(draft, *token);
        }
        match ttl {
            Some(ttl) => draft.limit(ino, ttl),
            None if inode.deadline.is_some() => {
                let deadline = None;
                draft.push(What::Limited { ino, deadline });
            }
            None => return Err(Refusal::NoAttribute),
        }
        Ok(())
    }

    pub(super) fn decide_give(
        &self,
        draft: &mut Draft,
        ino: Ino,
        to: &SessionId,
        by: &Member,
    ) -> Result<(), Refusal> {
        let inode = self.own_claim(ino, by)?;
        let receiver = self.receiver(to, by)?;
        if receiver.key != inode.holder {
            drop_reason(draft, ino, inode);
            self.hand(draft, inode, receiver);
        }
        Ok(())
    }

    pub(super) fn decide_break(
        &self,
        draft: &mut Draft,
        name: &Name,
        token: Token,
        by: &Asker,
    ) -> Result<(), Refusal> {
        let lease = self.lease(name).ok_or(Refusal::NotFound)?;
        let (_, _, session) = self.last(name).ok_or(Refusal::NotFound)?;
        if !reaches(session, by) {
            return Err(Refusal::NotPermitted);
        }
        if lease.token != token {
            return Err(Refusal::Lost);
        }
        draft.push(What::Broken {
            name: name.clone(),
            token,
            uid: by.uid,
            pid: by.chain.first().map_or(0, |process| process.pid),
            command: Arc::clone(&by.command),
        });
        Ok(())
    }

    pub(super) fn decide_expire(&self, draft: &mut Draft, ino: Ino) {
        let Some(inode) = self.inode(ino) else {
            return;
        };
        if inode
            .deadline
            .is_none_or(|deadline| draft.boot < deadline.until)
        {
            return;
        }
        for token in &inode.names {
            if let Some(name) = self.names.get(*token).cloned() {
                let token = *token;
                draft.push(What::Expired { name, token });
            }
        }
    }

    /// Renews a directory claim whose entries change, as a write renews a file.
    pub(super) fn renew_for_entries(&self, draft: &mut Draft) {
        let dir = draft.events.iter().find_map(|event| match &event.what {
            What::Linked { dir, .. } | What::Unlinked { dir, .. } => Some(*dir),
            _ => None,
        });
        if let Some(node) = dir.and_then(|dir| self.node(dir)) {
            draft.renew(&node);
        }
    }

    /// The inode of a claim that has a name and that the caller holds: else ENOENT or EBUSY, and
    /// EOPNOTSUPP for an inode inside a claim.
    fn own_claim(&self, ino: Ino, by: &Member) -> Result<&Inode, Refusal> {
        let node = self.own(ino, by)?;
        if node.child.is_some() {
            return Err(Refusal::Unsupported);
        }
        if node.inode.names.is_empty() {
            return Err(Refusal::NotFound);
        }
        Ok(node.inode)
    }

    /// The live session that receives a claim: of the caller's uid, within its sandbox, and with
    /// session scope, since under process scope there is no one process to hold it. Else ENOENT or
    /// EPERM.
    fn receiver(&self, id: &SessionId, by: &Member) -> Result<&Session, Refusal> {
        let session = self.session(id).ok_or(Refusal::NotFound)?;
        let chain: Vec<_> = by.lineage.iter().map(|kin| kin.process).collect();
        let asker = Asker {
            uid: by.uid,
            pidns: by.sandbox,
            chain: &chain,
            command: Arc::clone(&by.command),
        };
        let has_processes = !session.roots.is_empty();
        let is_said = session.rule.scope() == Scope::Session;
        if session.uid == by.uid && has_processes && is_said && reaches(session, &asker) {
            Ok(session)
        } else {
            Err(Refusal::NotPermitted)
        }
    }

    /// Grants all names of an inode to another session, with new tokens.
    fn hand(&self, draft: &mut Draft, inode: &Inode, to: &Session) {
        let Some(root) = to.roots.first() else {
            return;
        };
        let ino = draft.ino();
        // The inodes inside get the numbers after it.
        draft.next_ino += inode.below().inodes.len() as u64;
        for was in &inode.names {
            let Some(name) = self.names.get(*was) else {
                continue;
            };
            let token = draft.token();
            draft.push(What::Handed {
                name: name.clone(),
                was: *was,
                token,
                from: inode.holder,
                key: to.key,
                ino,
                pid: root.process.pid,
                command: Arc::clone(&root.command),
            });
        }
    }
}

pub(super) fn reason_is(reason: Option<String>) -> Change {
    Change::Tag {
        name: String::from(REASON),
        value: reason.map(String::into_bytes),
    }
}

/// The reason is in the words of a holder that gives the claim away.
fn drop_reason(draft: &mut Draft, ino: Ino, inode: &Inode) {
    if inode.content.reason().is_some() {
        let change = reason_is(None);
        draft.push(What::Altered { ino, change });
    }
}

impl Draft {
    /// Starts the full time of a claim again.
    pub(super) fn renew(&mut self, node: &Node) {
        if let Some(deadline) = node.inode.deadline {
            self.limit(node.claim, deadline.ttl);
        }
    }

    fn limit(&mut self, ino: Ino, ttl: Duration) {
        let until = self.boot.saturating_add(ttl);
        let deadline = Some(Deadline { ttl, until });
        self.push(What::Limited { ino, deadline });
    }
}

/// True for a change that renews a claim: a write, or setting a time. Mode and extended attributes
/// do not renew it.
pub(super) fn renews(change: &Change) -> bool {
    match change {
        Change::Write { .. } | Change::Append { .. } | Change::Resize { .. } => true,
        Change::Attributes(Attributes { atime, mtime, .. }) => atime.is_some() || mtime.is_some(),
        Change::Tag { .. } => false,
    }
}

/// The pid-file idiom: a first line with the pid of the writer binds the lease to it. In a
/// terminal, the pid may be that of any process above the writer, in a sandbox that of its parent.
/// Only under rules 4 and 5: in an agent's session, the pid is that of a shell which exits a second
/// later. A 1 is probably data and no pid.
fn binding(inode: &Inode, by: &Member, pid: u32) -> Option<Binding> {
    let levels = match by.rule {
        Rule::Posix => usize::MAX,
        Rule::Sandbox => 2,
        Rule::Registered | Rule::Variable | Rule::Agent | Rule::Remote => 0,
    };
    let mut kin = by.lineage.iter().take(levels);
    let process = kin.find(|kin| kin.pid == pid && pid != 1)?.process;
    let is_bound = |bound: &Binding| !bound.passes && bound.process == process;
    if inode.bound.as_deref().is_some_and(is_bound) {
        return None;
    }
    Some(Binding {
        process,
        passes: false,
        from: None,
    })
}
