//! The line of the log about an event.
//!
//! Does not know: where the log is, and how many lines it takes.

use log::Level;

use super::{is_trap, reaped};
use crate::core::table::Table;
use crate::core::{Event, Name, What, printable};

/// The number of leases of an ended session that get a line each. To write a line takes longer than
/// everything else that is done about a lease.
pub(crate) const LOGGED: usize = 100;

/// A line for the log.
pub(crate) struct Notice<'a> {
    /// The uid whose share of lines it counts against.
    pub uid: u32,
    /// Its level.
    pub level: Level,
    /// Makes the line, once it is known that the log takes it.
    pub text: Box<dyn Fn() -> String + 'a>,
}

impl<'a> Notice<'a> {
    fn new(uid: u32, level: Level, text: impl Fn() -> String + 'a) -> Self {
        let text = Box::new(text);
        Self { uid, level, text }
    }
}

/// The line for an event. The table is as it was before.
pub(crate) fn notice<'a>(table: &'a Table, event: &'a Event) -> Option<Notice<'a>> {
    match &event.what {
        What::Reaped { name, .. } | What::Expired { name, .. } | What::Handed { name, .. }
            if name.is_scratch() =>
        {
            None
        }
        What::Reaped { name, signal, .. } => {
            let (lease, inode, session) = table.last(name)?;
            let level = if session.leases.len() > LOGGED {
                Level::Debug
            } else if is_trap(lease, session, event.at) {
                Level::Warn
            } else {
                Level::Info
            };
            let text = move || reaped(name, lease, inode, session, *signal, event.at);
            Some(Notice::new(session.uid, level, text))
        }
        What::SessionEnded { key, .. } => {
            let session = table.session_by_key(*key)?;
            let count = session.leases.len();
            let text = move || {
                format!(
                    "session {} is over, and its {count} claims are free; 'events' tells of each, \
                     and this log of the last {LOGGED}",
                    session.id
                )
            };
            (count > LOGGED).then(|| Notice::new(session.uid, Level::Info, text))
        }
        What::Expired { name, .. } => expired(table, name),
        What::Handed { .. } => handed(table, event),
        What::Broken { .. } => broken(table, event),
        _ => None,
    }
}

fn expired<'a>(table: &'a Table, name: &'a Name) -> Option<Notice<'a>> {
    let (lease, inode, session) = table.last(name)?;
    let ttl = inode.deadline.map(|deadline| deadline.ttl);
    let seconds = ttl.unwrap_or_default().as_secs_f64();
    let text = move || {
        format!(
            "expired {}: session {} did not renew it for {seconds:.3} s; token {}",
            name.file(),
            session.id,
            lease.token.0,
        )
    };
    Some(Notice::new(session.uid, Level::Info, text))
}

fn handed<'a>(table: &'a Table, event: &'a Event) -> Option<Notice<'a>> {
    let What::Handed {
        name, key, token, ..
    } = &event.what
    else {
        return None;
    };
    let (lease, _, giver) = table.last(name)?;
    let session = table.session_by_key(*key)?;
    let text = move || {
        format!(
            "handed {}: session {} gave it to session {}; token {}, now {}",
            name.file(),
            giver.id,
            session.id,
            lease.token.0,
            token.0,
        )
    };
    Some(Notice::new(giver.uid, Level::Info, text))
}

fn broken<'a>(table: &'a Table, event: &'a Event) -> Option<Notice<'a>> {
    let What::Broken {
        name,
        uid,
        pid,
        command,
        ..
    } = &event.what
    else {
        return None;
    };
    let (lease, _, session) = table.last(name)?;
    let holder = match lease.pid {
        0 => String::from("no process"),
        pid => format!("pid {pid}, {}", printable(&lease.command)),
    };
    let text = move || {
        format!(
            "broken {}: uid {uid} (pid {pid}, {}) took it from session {} ({holder}), which lives; \
             token {}",
            name.file(),
            printable(command),
            session.id,
            lease.token.0,
        )
    };
    Some(Notice::new(*uid, Level::Warn, text))
}
