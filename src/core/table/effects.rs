//! The effects of an event outside of the table.
//!
//! Promises: observers match on no event, since they get the effects. Sentences about events are in
//! `render`.
//!
//! Does not know: who the observers are.

use super::Table;
use crate::core::{Event, Ino, Name, Process, SessionKey, Shape, Token, WaiterId, What};

/// The effects of one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Processes on which something depended. A later event of the same decision may depend on
    /// them.
    pub unneeded: Vec<Process>,
    /// An inode that lost a name. It may have others, or be open.
    pub unlinked: Option<Ino>,
    /// Waiters that were granted the name, that hold it since their session got it in another way,
    /// or whose wait is over. No other waiter's turn changes.
    pub woken: Vec<WaiterId>,
    /// A waiter that the table did not know before.
    pub queued: Option<WaiterId>,
    /// A waiter that left its queue.
    pub left: Option<WaiterId>,
    /// A waiter that knows now that its session holds the name.
    pub accepted: Option<Accepted>,
    /// A name that went.
    pub vanished: Option<Vanished>,
    /// A reservation that was granted, with its token.
    pub reserved: Option<(Name, Token)>,
    /// A reservation that no longer has this token.
    pub unreserved: Option<(Name, Token)>,
    /// The counter for it. Scratch entries are not counted.
    pub count: Option<Count>,
}

/// A name that went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vanished {
    /// The name.
    pub name: Name,
    /// True if it was a directory.
    pub is_directory: bool,
    /// The uid of its holder.
    pub uid: u32,
    /// True if its holder released it, so that unlink(2), rmdir(2) or rename(2) was called for it,
    /// or a line in `control` names it.
    pub by_call: bool,
}

/// A grant that the waiter knows of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The waiter.
    pub waiter: WaiterId,
    /// The session that the name was granted to.
    pub key: SessionKey,
    /// The name.
    pub name: Name,
    /// The token of the grant.
    pub token: Token,
}

/// The counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// A name was granted.
    Grant,
    /// A holder gave a name up.
    Release,
    /// A name was taken from a dead holder.
    Reap,
    /// A deadline passed.
    Expiry,
    /// A holder gave a name to another session.
    Handover,
    /// A name was taken from a living holder.
    Break,
}

impl Table {
    /// The effects that an event will have. The table is as it was before the event.
    pub(super) fn effects(&self, event: &Event) -> Effects {
        let what = &event.what;
        let mut effects = Effects {
            unneeded: self.unneeded(what),
            woken: self.woken(what),
            vanished: self.vanished(what),
            reserved: reserved(what),
            unreserved: unreserved(what),
            count: count(what),
            ..self.queue_effects(what)
        };
        match what {
            What::Released { name, .. } => {
                effects.unlinked = self.last(name).map(|(lease, ..)| lease.ino);
            }
            What::Unlinked { dir, label } => effects.unlinked = self.entry(*dir, label),
            _ => {}
        }
        effects
    }

    /// The effects of an event on the descriptors of waiters.
    pub(super) fn queue_effects(&self, what: &What) -> Effects {
        let mut effects = Effects::default();
        match what {
            What::Queued { waiter, .. } | What::Granted { waiter, .. } => {
                effects.queued = Some(*waiter).filter(|waiter| *waiter > self.newest_waiter());
            }
            What::LeftQueue { waiter } => effects.left = Some(*waiter),
            What::Accepted { waiter } => {
                let granted = self.granted(*waiter);
                let held = granted.and_then(|grant| Some((grant, self.last(&grant.0)?)));
                effects.accepted = held.map(|((name, token), (_, inode, _))| Accepted {
                    waiter: *waiter,
                    key: inode.holder,
                    name: name.clone(),
                    token,
                });
            }
            _ => {}
        }
        effects
    }

    fn unneeded(&self, what: &What) -> Vec<Process> {
        match what {
            What::Left { process, .. } => vec![*process],
            What::Released { name, .. }
            | What::Reaped { name, .. }
            | What::Expired { name, .. }
            | What::Handed { name, .. }
            | What::Broken { name, .. } => {
                let last = self.last(name);
                let bound = last.and_then(|(_, inode, _)| inode.bound.as_ref());
                bound.map(|bound| bound.process).into_iter().collect()
            }
            What::Bound { ino, .. } => {
                let bound = self.inode(*ino).and_then(|inode| inode.bound.as_ref());
                bound.map(|bound| bound.process).into_iter().collect()
            }
            What::SessionEnded { key, .. } => {
                let session = self.sessions.get(key);
                let roots = session.into_iter().flat_map(|session| &session.roots);
                roots.map(|root| root.process).collect()
            }
            _ => Vec::new(),
        }
    }

    fn woken(&self, what: &What) -> Vec<WaiterId> {
        match what {
            What::Granted { waiter, .. } | What::LeftQueue { waiter } => vec![*waiter],
            What::SessionEnded { key, .. } => {
                let session = self.sessions.get(key);
                let waiters = session.into_iter().flat_map(|session| &session.waiters);
                waiters.copied().collect()
            }
            What::Claimed {
                name,
                key,
                ino,
                created,
                maker,
                ..
            } => {
                let is_bound = if created.is_some() {
                    maker.is_some()
                } else {
                    let inode = self.inodes.get(ino);
                    inode.is_some_and(|inode| inode.bound.is_some())
                };
                self.sharers(name, *key, is_bound)
            }
            // Its inode is of no process from now on.
            What::Handed { name, key, .. } => self.sharers(name, *key, false),
            _ => Vec::new(),
        }
    }

    /// The waiters of a session for a name that it gets. None if they go on waiting, since one
    /// process of it holds the name: a line of a thousand would be woken for each grant.
    fn sharers(&self, name: &Name, key: SessionKey, is_bound: bool) -> Vec<WaiterId> {
        let session = self.sessions.get(&key);
        let Some(session) = session.filter(|session| !is_bound && session.shares()) else {
            return Vec::new();
        };
        if session.waiters.len() < self.queue_length(name) {
            let own = session.waiters.iter().copied();
            let here = own.filter(|waiter| self.waiting.get(waiter) == Some(name));
            return here.collect();
        }
        let queue = self.queue(name);
        let own = queue.filter(|(_, waiter)| waiter.key == key);
        own.map(|(waiter, _)| waiter).collect()
    }

    fn vanished(&self, what: &What) -> Option<Vanished> {
        let (name, by_call) = match what {
            What::Reaped { name, .. } | What::Expired { name, .. } | What::Broken { name, .. } => {
                (name, false)
            }
            // The end of a session releases its names without a call for each.
            What::Released { name, .. } => (name, true),
            _ => return None,
        };
        let (_, inode, session) = self.last(name)?;
        let is_directory = inode.content.shape == Shape::Directory;
        Some(Vanished {
            name: name.clone(),
            is_directory,
            uid: session.uid,
            by_call: by_call && session.is_alive(),
        })
    }
}

fn reserved(what: &What) -> Option<(Name, Token)> {
    match what {
        What::Claimed { name, token, .. } | What::Handed { name, token, .. } => {
            name.is_path().then(|| (name.clone(), *token))
        }
        _ => None,
    }
}

fn unreserved(what: &What) -> Option<(Name, Token)> {
    match what {
        What::Released { name, token }
        | What::Reaped { name, token, .. }
        | What::Expired { name, token }
        | What::Broken { name, token, .. }
        | What::Handed {
            name, was: token, ..
        } => name.is_path().then(|| (name.clone(), *token)),
        _ => None,
    }
}

fn count(what: &What) -> Option<Count> {
    let (name, count) = match what {
        What::Claimed { name, .. } => (name, Count::Grant),
        What::Released { name, .. } => (name, Count::Release),
        What::Reaped { name, .. } => (name, Count::Reap),
        What::Expired { name, .. } => (name, Count::Expiry),
        What::Handed { name, .. } => (name, Count::Handover),
        What::Broken { name, .. } => (name, Count::Break),
        _ => return None,
    };
    (!name.is_scratch() || count == Count::Break).then_some(count)
}
