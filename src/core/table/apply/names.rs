//! Leases after an event: granted, handed over, gone.
//!
//! Does not know: why a lease ends.

use std::time::SystemTime;

use super::super::{Inode, Lease, Table};
use crate::core::content::{BODY_MAX, Content, PATH_BODY_MAX};
use crate::core::{Binding, Creation, Due, Event, Ino, Name, Process, SessionKey, Token, What};

impl Table {
    pub(super) fn apply_to_name(&mut self, event: &Event) {
        match &event.what {
            What::Claimed {
                name,
                token,
                key,
                ino,
                created,
                pid,
                command,
                maker,
            } => {
                let lease = Lease {
                    token: *token,
                    ino: *ino,
                    since: event.at,
                    pid: *pid,
                    command: command.clone(),
                };
                self.use_numbers(&lease);
                self.apply_claimed(name, lease, *key, created.as_ref(), *maker);
            }
            What::Handed {
                name,
                was,
                token,
                from,
                key,
                ino,
                pid,
                command,
            } => {
                let lease = Lease {
                    token: *token,
                    ino: *ino,
                    since: event.at,
                    pid: *pid,
                    command: command.clone(),
                };
                self.use_numbers(&lease);
                self.apply_handed(name, *was, lease, *from, *key);
            }
            What::Released { name, .. } => self.apply_gone(name, false, event.at),
            What::Reaped { name, .. } | What::Expired { name, .. } | What::Broken { name, .. } => {
                self.apply_gone(name, true, event.at);
            }
            _ => {}
        }
    }

    fn use_numbers(&mut self, lease: &Lease) {
        self.next_token = self.next_token.max(lease.token.0 + 1);
        self.next_ino = self.next_ino.max(lease.ino.0 + 1);
    }

    fn apply_claimed(
        &mut self,
        name: &Name,
        lease: Lease,
        key: SessionKey,
        created: Option<&Creation>,
        maker: Option<Process>,
    ) {
        if let Some(creation) = created {
            let bound = maker.map(|process| {
                self.bound.entry(process).or_default().insert(lease.ino);
                Box::new(Binding {
                    process,
                    passes: true,
                    from: None,
                })
            });
            let room = if name.is_path() {
                PATH_BODY_MAX
            } else {
                BODY_MAX
            };
            let content = Content::new(creation.clone(), room, lease.since);
            self.inodes.insert(
                lease.ino,
                Box::new(Inode {
                    holder: key,
                    names: Vec::with_capacity(1),
                    bound,
                    deadline: None,
                    content,
                    below: None,
                }),
            );
        }
        if let Some(inode) = self.inodes.get_mut(&lease.ino) {
            inode.names.push(lease.token);
            inode.content.ctime = lease.since;
        }
        if let Some(session) = self.sessions.get_mut(&key) {
            session.leases.insert(lease.token);
        }
        self.names.insert(lease.token, name.clone());
        if name.is_path() {
            self.paths.insert(name.clone());
        }
        self.leases.insert(name.clone(), lease);
    }

    /// Gives a name to another session. The first of an inode's names moves the inode to its new
    /// number.
    fn apply_handed(
        &mut self,
        name: &Name,
        was: Token,
        lease: Lease,
        from: SessionKey,
        key: SessionKey,
    ) {
        let Some(old) = self.leases.get(name).map(|lease| lease.ino) else {
            return;
        };
        if old != lease.ino && !self.inodes.contains_key(&lease.ino) {
            self.move_inode(old, lease.ino, key);
        }
        if let Some(inode) = self.inodes.get_mut(&lease.ino) {
            inode.names.retain(|token| *token != was);
            inode.names.push(lease.token);
            inode.content.ctime = lease.since;
        }
        self.names.remove(was);
        self.names.insert(lease.token, name.clone());
        if let Some(session) = self.sessions.get_mut(&from) {
            session.leases.remove(&was);
        }
        if let Some(session) = self.sessions.get_mut(&key) {
            session.leases.insert(lease.token);
        }
        self.leases.insert(name.clone(), lease);
    }

    fn move_inode(&mut self, from: Ino, to: Ino, holder: SessionKey) {
        self.unbind(from);
        let Some(deadline) = self.inodes.get(&from).map(|inode| inode.deadline) else {
            return;
        };
        self.unlimit(from);
        let Some(mut inode) = self.inodes.remove(&from) else {
            return;
        };
        (inode.holder, inode.deadline) = (holder, deadline);
        self.deadlines
            .extend(deadline.map(|deadline| (deadline.until, Due::Claim(to))));
        self.renumber(&mut inode, from, to);
        self.inodes.insert(to, inode);
    }

    /// Removes a name. The inode of a lost lease goes with its last name, so that descriptors
    /// answer ESTALE. The inode of a released one stays until it is forgotten, like an open file on
    /// any filesystem.
    fn apply_gone(&mut self, name: &Name, lost: bool, at: SystemTime) {
        let Some(lease) = self.leases.remove(name) else {
            return;
        };
        self.names.remove(lease.token);
        if name.is_path() {
            self.paths.remove(name);
        }
        let holder = self.inodes.get(&lease.ino).and_then(|inode| {
            let bound = inode.bound.as_ref().map(|bound| bound.process);
            bound.filter(|_| self.is_lost(inode))
        });
        let Some(inode) = self.inodes.get_mut(&lease.ino) else {
            return;
        };
        inode.names.retain(|token| *token != lease.token);
        inode.content.ctime = at;
        let (key, nameless) = (inode.holder, inode.names.is_empty());
        let over = !self.is_alive(key);
        if nameless {
            self.unbind(lease.ino);
            self.unlimit(lease.ino);
        }
        if nameless && (lost || over || holder.is_some()) {
            self.drop_inode(lease.ino);
        }
        if over || holder.is_some() {
            self.unswept = self.unswept.saturating_sub(1);
        }
        if let Some(session) = self.sessions.get_mut(&key) {
            session.leases.remove(&lease.token);
            if let Some(process) = holder {
                session.swept(&process);
            }
            if over && session.leases.is_empty() {
                self.sessions.remove(&key);
                self.over.remove(&key);
            } else if !over && session.lost.is_empty() {
                self.over.remove(&key);
            }
        }
    }
}
