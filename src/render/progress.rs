//! The progress lines of files in `queue/`: whom a waiter waits for.
//!
//! Does not know: how often one is told.

use std::sync::Arc;
use std::time::SystemTime;

use super::living;
use super::ring::RingRecord;
use crate::core::table::Table;
use crate::core::{Name, Process, SessionId, WaiterId, printable};

/// Whom a waiter waits for.
pub(crate) struct Progress {
    name: Name,
    /// The session that holds the name.
    holder: SessionId,
    /// Its living process, and the command of that. `None` if it lives by its deadline.
    living: Option<(u32, Arc<str>)>,
    /// The time since which it holds it.
    since: SystemTime,
    /// The waiter's place, from 1 on, and the number of waiters.
    place: (usize, usize),
    /// The process that holds it, if it is above the waiter's process.
    ancestor: Option<Process>,
    /// The ring that the waiter is part of.
    pub ring: Option<RingRecord>,
}

impl Progress {
    /// As it is now, without the ring. `None` if it does not wait any more.
    pub(crate) fn of(table: &Table, waiter: WaiterId) -> Option<Self> {
        let (name, before) = table.waits_for(waiter)?;
        table.lease(name)?;
        let (lease, inode, holder) = table.last(name)?;
        let seat = table.waiter(waiter)?;
        let above = table.waits_for_ancestor(seat, inode);
        Some(Self {
            name: name.clone(),
            holder: holder.id.clone(),
            living: living(table, lease, inode, holder),
            since: lease.since,
            place: (before + 1, table.queue_length(name)),
            ancestor: above.then(|| table.holder(inode)).flatten(),
            ring: None,
        })
    }

    /// The line that a waiter reads once a second: its place in a queue of this length comes first.
    pub(crate) fn line(&self) -> String {
        let Self { name, holder, .. } = self;
        let (place, length) = self.place;
        let held = SystemTime::now()
            .duration_since(self.since)
            .unwrap_or_default();
        let held = held.as_secs();
        let living_pid = self.living.as_ref().map(|(pid, _)| *pid);
        let living = self.living.as_ref().map_or_else(
            || String::from("no process"),
            |(pid, command)| format!("pid {pid}, {}", printable(command)),
        );
        let above = self
            .ancestor
            .map_or_else(String::new, |process| match living_pid {
                Some(pid) if pid == process.pid => String::from(", which is above you"),
                _ => format!(", by pid {}, which is above you", process.pid),
            });
        let ring = self
            .ring
            .as_ref()
            .map_or_else(String::new, |ring| format!("; {}", ring.sentence()));
        format!(
            "you are {place} of {length} for {name}: held by {holder} ({living}{above}) for {held} s{ring}\n"
        )
    }
}
