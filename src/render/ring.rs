//! Rings of waiters, as JSON and as a sentence.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::core::table::{Ring, Table};
use crate::core::{Name, SessionId};

/// A ring of waiters: who waits for which name of the next.
#[derive(Clone, Debug)]
pub(crate) struct RingRecord {
    links: Vec<Link>,
    is_whole: bool,
}

#[derive(Clone, Debug)]
struct Link {
    session: SessionId,
    pid: u32,
    name: Name,
}

impl RingRecord {
    /// A ring as it is now. `None` if one of its waiters has left.
    pub(crate) fn of(table: &Table, ring: &Ring) -> Option<Self> {
        let link = |waiter| {
            let place = table.waiter(waiter)?;
            Some(Link {
                session: table.session_by_key(place.key)?.id.clone(),
                pid: place.pid,
                name: table.waits_for(waiter)?.0.clone(),
            })
        };
        let links = ring.waiters.iter().map(|waiter| link(*waiter));
        Some(Self {
            links: links.collect::<Option<_>>()?,
            is_whole: ring.is_whole,
        })
    }

    /// Adds the ring to the record of its first waiter.
    pub(super) fn add_to(&self, record: &mut Value) {
        let link = |link: &Link| {
            json!({
                "session": link.session.as_str(),
                "pid": link.pid,
                "name": link.name.as_str(),
            })
        };
        record["ring"] = self.links.iter().map(link).collect();
        if !self.is_whole {
            record["ring_is_longer"] = json!(true);
        }
    }

    /// The ring in words, for its first waiter.
    pub(crate) fn sentence(&self) -> String {
        let mut record = json!({});
        self.add_to(&mut record);
        sentence(&record).unwrap_or_default()
    }
}

/// The ring in the record of a waiter in words, for that waiter: `a ring: you wait for x, which S2
/// holds, which waits for y, which you hold`. A process of the waiter's own session is shown by its
/// pid.
pub(crate) fn sentence(record: &Value) -> Option<String> {
    let links = record["ring"].as_array()?;
    let text = |link: &Value, key: &str| {
        let text = link[key].as_str().unwrap_or_default();
        crate::core::printable(text)
    };
    let (first, others) = links.split_first()?;
    let mut sentence = format!("a ring: you wait for {}", text(first, "name"));
    for link in others {
        let who = if link["session"] == first["session"] {
            format!("pid {}", link["pid"])
        } else {
            text(link, "session")
        };
        let name = text(link, "name");
        _ = write!(sentence, ", which {who} holds, which waits for {name}");
    }
    sentence.push_str(if record["ring_is_longer"] == true {
        ", and so on"
    } else {
        ", which you hold"
    });
    Some(sentence)
}
