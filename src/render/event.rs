//! Events as lines of `events` and of `history`.
//!
//! A record is taken while the table still is as it was before the event, costs no formatting, and
//! becomes a line only for who reads it.
//!
//! Does not know: who reads the lines, or where they are kept.

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::{escaped, moment};
use crate::core::table::{Inode, Lease, Session, Table};
use crate::core::{End, EndedBy, Event, Name, Process, SessionId, SessionKey, What};

/// At most this many names are listed where leases pass.
const PASSED_MAX: usize = 16;

/// An event, as readers of `events` and `history` are told of it.
#[derive(Clone, Debug, Serialize)]
pub struct EventRecord {
    /// The number of the event.
    pub seq: u64,
    #[serde(serialize_with = "rfc_3339")]
    at: SystemTime,
    event: &'static str,
    #[serde(flatten)]
    about: About,
}

/// The part that depends on the kind of the event.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
enum About {
    Session(SessionPart),
    Pass(PassPart),
    Claim(Arc<ClaimPart>),
}

#[derive(Clone, Debug, Serialize)]
struct SessionPart {
    session: SessionId,
    uid: u32,
    key: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<By>,
}

/// A process exited, and what it held passed to another.
#[derive(Clone, Debug, Serialize)]
struct PassPart {
    session: SessionId,
    from: Named,
    to: Named,
    leases: usize,
    /// The name, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<Name>,
    /// The names, if they are a few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    claims: Vec<Name>,
}

/// A process.
#[derive(Clone, Debug, Serialize)]
struct Named {
    pid: u32,
    command: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<u8>,
}

#[derive(Clone, Debug, Serialize)]
struct ClaimPart {
    claim: Name,
    session: Option<SessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<Arc<str>>,
    /// The session that gave it, and its token there.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Giver>,
    #[serde(skip_serializing_if = "Option::is_none")]
    was_token: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<By>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<u8>,
}

/// The session that gave a lease, if its id is known.
#[derive(Clone, Debug, Serialize)]
struct Giver(Option<SessionId>);

/// Who broke a lease, or ended a session.
#[derive(Clone, Debug, Serialize)]
struct By {
    uid: u32,
    pid: u32,
    command: Arc<str>,
}

impl From<&EndedBy> for By {
    fn from(by: &EndedBy) -> Self {
        Self {
            uid: by.uid,
            pid: by.pid,
            command: Arc::clone(&by.command),
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn rfc_3339<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&moment(*at))
}

impl EventRecord {
    /// The record of an event that is about to be applied. `None` if the event is internal.
    pub fn of(table: &Table, event: &Event) -> Option<Self> {
        let (word, about) = about(table, &event.what)?;
        Some(Self {
            seq: event.seq,
            at: event.at,
            event: word,
            about,
        })
    }

    /// True if such an event has a record, whatever the table is.
    pub(crate) fn has(what: &What) -> bool {
        match what {
            What::SessionStarted { .. } => true,
            What::Claimed { name, .. }
            | What::Released { name, .. }
            | What::Reaped { name, .. }
            | What::Expired { name, .. }
            | What::Broken { name, .. }
            | What::Handed { name, .. }
            | What::Queued { name, .. }
            | What::Granted { name, .. } => !name.is_scratch(),
            _ => false,
        }
    }

    /// The line.
    pub fn line(&self) -> String {
        // Of these types none fails to be written.
        escaped(&serde_json::to_string(self).unwrap_or_default())
    }

    /// About how many bytes the line has.
    pub(crate) fn size(&self) -> usize {
        let names = match &self.about {
            About::Session(_) => 0,
            About::Pass(pass) => pass.claims.iter().map(|name| name.as_str().len()).sum(),
            About::Claim(claim) => claim.claim.as_str().len(),
        };
        256 + names
    }
}

fn about(table: &Table, what: &What) -> Option<(&'static str, About)> {
    let (word, name, key, token) = match what {
        What::SessionStarted { key, id, uid, .. } => {
            let part = SessionPart {
                session: id.clone(),
                uid: *uid,
                key: key.0,
                why: None,
                by: None,
            };
            return Some(("session_started", About::Session(part)));
        }
        What::SessionEnded { key, why, by } => {
            let part = session_ended(table.session_by_key(*key)?, *why, by.as_deref());
            return Some(("session_ended", About::Session(part)));
        }
        What::Passed {
            key,
            from,
            to,
            exit,
        } => {
            let pass = passed(table, *key, (from, to, *exit))?;
            return Some(("passed", About::Pass(pass)));
        }
        What::Claimed {
            name, token, key, ..
        } => ("claimed", name, Some(*key), Some(*token)),
        What::Released { name, token } => ("released", name, None, Some(*token)),
        What::Reaped { name, token, .. } => ("reaped", name, None, Some(*token)),
        What::Expired { name, token } => ("expired", name, None, Some(*token)),
        What::Broken { name, token, .. } => ("broken", name, None, Some(*token)),
        What::Handed {
            name, token, key, ..
        } => ("handed", name, Some(*key), Some(*token)),
        What::Queued { name, key, .. } => ("queued", name, Some(*key), None),
        What::Granted { name, token, .. } => ("granted", name, None, Some(*token)),
        // Not of one whose turn has come: that it leaves is a release.
        What::LeftQueue { waiter } => {
            let (name, _) = table.waits_for(*waiter)?;
            let key = table.waiter(*waiter).map(|place| place.key);
            ("left_queue", name, key, None)
        }
        _ => return None,
    };
    if name.is_scratch() {
        return None;
    }
    let last = table.last(name);
    let session = match key {
        Some(key) => table.session_by_key(key),
        None => last.map(|(_, _, session)| session),
    };
    let mut part = ClaimPart {
        claim: name.clone(),
        session: session.map(|session| session.id.clone()),
        token: token.map(|token| token.0),
        pid: None,
        command: None,
        from: None,
        was_token: None,
        by: None,
        why: None,
        signal: None,
    };
    part.add_details(table, what, last);
    Some((word, About::Claim(Arc::new(part))))
}

impl ClaimPart {
    /// Adds the fields that only some events have. `last` is the lease before the event.
    fn add_details(
        &mut self,
        table: &Table,
        what: &What,
        last: Option<(&Lease, &Inode, &Session)>,
    ) {
        match what {
            What::Claimed { pid, command, .. } | What::Queued { pid, command, .. } => {
                (self.pid, self.command) = (Some(*pid), Some(Arc::clone(command)));
            }
            What::Handed {
                pid,
                command,
                from,
                was,
                ..
            } => {
                (self.pid, self.command) = (Some(*pid), Some(Arc::clone(command)));
                let giver = table.session_by_key(*from);
                self.from = Some(Giver(giver.map(|session| session.id.clone())));
                self.was_token = Some(was.0);
            }
            What::Broken {
                uid, pid, command, ..
            } => {
                self.by = Some(By {
                    uid: *uid,
                    pid: *pid,
                    command: Arc::clone(command),
                });
                self.add_holder(table, last);
            }
            What::Reaped { signal, .. } => {
                self.signal = *signal;
                self.why = last.map(|(_, inode, session)| cause(inode, session, *signal));
                self.add_holder(table, last);
            }
            What::Released { .. } => {
                if let Some((.., session)) = last.filter(|(.., session)| session.was_ended()) {
                    self.why = Some("session_ended");
                    self.by = session.ended_by().map(By::from);
                }
                self.add_holder(table, last);
            }
            What::LeftQueue { waiter } => {
                let place = table.waiter(*waiter);
                self.pid = place.map(|place| place.pid);
                self.command = place.map(|place| Arc::clone(&place.command));
            }
            What::Expired { .. } => self.add_holder(table, last),
            _ => {}
        }
    }

    /// Adds the process that held the lease until now.
    fn add_holder(&mut self, table: &Table, last: Option<(&Lease, &Inode, &Session)>) {
        let Some((lease, inode, session)) = last else {
            return;
        };
        let holder = table.holder(inode);
        let pid = holder.map_or(lease.pid, |holder| holder.pid);
        self.pid = Some(pid);
        self.command = if pid == lease.pid {
            Some(Arc::clone(&lease.command))
        } else {
            let command = holder.and_then(|holder| session.command_of(&holder));
            command.map(Arc::clone)
        };
    }
}

/// Why a lease was reaped, in a word.
fn cause(inode: &Inode, session: &Session, signal: Option<u8>) -> &'static str {
    match (inode.bound.as_deref(), signal) {
        (Some(_), Some(_)) => "killed",
        (Some(bound), None) if bound.passes => "exited",
        (Some(_), None) if session.is_alive() => "tied_process_ended",
        _ => "session_died",
    }
}

fn session_ended(session: &Session, why: End, by: Option<&EndedBy>) -> SessionPart {
    SessionPart {
        session: session.id.clone(),
        uid: session.uid,
        key: session.key.0,
        why: Some(match why {
            End::Died => "died",
            End::Ended => "ended",
            End::Lapsed => "lapsed",
        }),
        by: by.map(By::from),
    }
}

/// A process whose leases pass to another.
fn passed(
    table: &Table,
    key: SessionKey,
    (from, to, exit): (&Process, &Process, Option<u8>),
) -> Option<PassPart> {
    let session = table.session_by_key(key)?;
    let process = |process: &Process, exit| Named {
        pid: process.pid,
        command: session.root(process).map(|root| Arc::clone(&root.command)),
        exit,
    };
    let held = table.held_names(key, from);
    let (claim, claims) = match held[..] {
        [name] => (Some(name.clone()), Vec::new()),
        ref names if names.len() <= PASSED_MAX => (None, names.iter().copied().cloned().collect()),
        _ => (None, Vec::new()),
    };
    Some(PassPart {
        session: session.id.clone(),
        from: process(from, exit),
        to: process(to, None),
        leases: held.len(),
        claim,
        claims,
    })
}
