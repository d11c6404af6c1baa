//! The binary form of events.
//!
//! The events of one decision have one time, and numbers that follow on one another: these are
//! written once. Other events each have their own.
//!
//! Does not know: what events mean.

use super::{Encode, Flaw, Reader, record, variants, write_count};
use crate::core::{End, EndedBy, Event, What};

/// Appends events.
pub fn write_events(events: &[Event], to: &mut Vec<u8>) {
    write_count(events.len(), to);
    let Some(first) = events.first() else {
        return;
    };
    let numbers = first.seq..=u64::MAX;
    let is_one = |(event, seq): (&Event, u64)| event.seq == seq && event.at == first.at;
    let is_decision =
        events.len() as u64 <= u64::MAX - first.seq && events.iter().zip(numbers).all(is_one);
    is_decision.write(to);
    if is_decision {
        first.seq.write(to);
        first.at.write(to);
        for event in events {
            event.what.write(to);
        }
    } else {
        Event::write_each(events, to);
    }
}

/// Reads events.
pub fn read_events(from: &mut Reader) -> Result<Vec<Event>, Flaw> {
    let count = from.count()?;
    if count == 0 {
        return Ok(Vec::new());
    }
    let is_decision = bool::read(from)?;
    if !is_decision {
        return Event::read_each(count, from);
    }
    let (first, at) = (u64::read(from)?, Encode::read(from)?);
    if count as u64 > u64::MAX - first {
        return Err(Flaw::Wrong("the number of an event in it is too large"));
    }
    let mut events = Vec::with_capacity(from.room_for::<Event>(count));
    for seq in (first..).take(count) {
        let what = What::read(from)?;
        events.push(Event { seq, at, what });
    }
    Ok(events)
}

record!(Event { seq, at, what });
record!(EndedBy { uid, pid, command });
variants!(End {
    0 => Died,
    1 => Ended,
    2 => Lapsed,
});
variants!(What {
    1 => SessionStarted { key, id, uid, pidns, rule },
    2 => Joined { key, root },
    3 => Passed { key, from, to, exit },
    4 => Left { key, process, killed },
    5 => Prolonged { key, deadline, renews },
    6 => SessionEnded { key, why, by },
    7 => Claimed { name, token, key, ino, created, pid, command, maker },
    8 => Released { name, token },
    9 => Reaped { name, token, signal },
    10 => Expired { name, token },
    11 => Handed { name, was, token, from, key, ino, pid, command },
    12 => Broken { name, token, uid, pid, command },
    13 => Queued { name, waiter, key, creation, pid, command, maker },
    14 => Granted { name, waiter, token },
    15 => Accepted { waiter },
    16 => LeftQueue { waiter },
    17 => Altered { ino, change },
    18 => Bound { ino, binding },
    19 => Limited { ino, deadline },
    20 => Linked { dir, label, ino, created },
    21 => Unlinked { dir, label },
    22 => Forgotten { ino },
});
