//! Payloads: the head of a journal, and the entries after it, in the binary form and in the JSON of
//! version 1.
//!
//! ```text
//! version 2  {"claimfs_journal":2}                     an older claimfs reads this, and says so
//!            B2 boot weight table handoff BE           the state
//!            B1 parts [sent] [events] [note] BE        a decision, or a note
//! version 1  {"claimfs_journal":1,"boot":…,"table":…}  the state
//!            {"sent":…,"events":…} or {"note":…}       a decision, or a note
//! ```
//!
//! Entries of version 1 may stand in a journal of version 2, as fillers do.
//!
//! Does not know: frames, or which of them count.

use std::io;

use serde::{Deserialize, Serialize};

use super::frame::{ENTRY, OBJECT, SNAPSHOT, binary, frame, inside};
use crate::core::encoding::{Encode, Flaw, Reader, read_events, write_events};
use crate::core::table::Table;
use crate::core::{Event, printable};
use crate::handoff::{Handoff, Note, Sent};
use crate::process::Boot;

/// The form of a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Version 1.
    Json,
    /// Version 2.
    #[default]
    Binary,
}

impl Format {
    /// Its version.
    pub(super) fn version(self) -> u32 {
        match self {
            Self::Json => 1,
            Self::Binary => 2,
        }
    }

    /// The form of a version, if this claimfs knows it.
    pub(super) fn of(version: u32) -> Option<Self> {
        let all = [Self::Json, Self::Binary];
        all.into_iter().find(|format| format.version() == version)
    }
}

/// The first frame of version 1.
#[derive(Serialize, Deserialize)]
struct Head<T, C> {
    claimfs_journal: u32,
    boot: Boot,
    table: T,
    // Absent in journals of older versions.
    #[serde(default, rename = "connection")]
    handoff: C,
}

/// The part of the first frame that every version has.
#[derive(Serialize, Deserialize)]
pub(super) struct Version {
    pub(super) claimfs_journal: u32,
}

/// The state at the beginning of a journal.
pub(super) struct State {
    pub(super) boot: Boot,
    pub(super) table: Table,
    pub(super) handoff: Handoff,
    /// The weight of the table: see [`Table::weight`].
    pub(super) weight: usize,
    /// The size of the handoff, in bytes.
    pub(super) rest: u64,
}

/// The beginning of a journal: the whole current state.
pub fn snapshot(
    format: Format,
    boot: &Boot,
    table: &Table,
    handoff: &Handoff,
) -> io::Result<Vec<u8>> {
    let claimfs_journal = format.version();
    match format {
        Format::Json => frame(&Head {
            claimfs_journal,
            boot: boot.clone(),
            table,
            handoff,
        }),
        Format::Binary => {
            let mut frames = frame(&Version { claimfs_journal })?;
            frames.append(&mut binary(SNAPSHOT, |to| {
                boot.id.write(to);
                boot.pidns.write(to);
                // So that the next server need not look at each lease for it.
                table.weight().write(to);
                table.write(to);
                handoff.write(to);
            })?);
            Ok(frames)
        }
    }
}

/// The size of a handoff in a snapshot, in bytes.
pub(super) fn size(format: Format, handoff: &Handoff) -> u64 {
    let bytes = match format {
        Format::Json => serde_json::to_vec(handoff).unwrap_or_default(),
        Format::Binary => {
            let mut bytes = Vec::new();
            handoff.write(&mut bytes);
            bytes
        }
    };
    bytes.len() as u64
}

impl State {
    /// Reads the payload of the frame that has the state.
    pub(super) fn read(format: Format, payload: &[u8], max_leases: usize) -> Result<Self, String> {
        match format {
            Format::Json => {
                let Head {
                    boot,
                    table,
                    handoff,
                    ..
                } = parse::<Head<Table, Handoff>>(payload)?;
                let table = table.completed(max_leases);
                Ok(Self {
                    boot,
                    weight: table.weight(),
                    table,
                    rest: size(format, &handoff),
                    handoff,
                })
            }
            Format::Binary => {
                let bytes = inside(payload).filter(|_| payload.first() == Some(&SNAPSHOT));
                let bytes = bytes.ok_or("it does not begin with a state")?;
                let mut from = Reader::new(bytes);
                let state = Self::decode(&mut from, max_leases);
                let state = state.and_then(|state| ended(&from, state));
                state.map_err(sentence)
            }
        }
    }

    fn decode(from: &mut Reader, max_leases: usize) -> Result<Self, Flaw> {
        let (id, pidns) = (Encode::read(from)?, Encode::read(from)?);
        let weight = Encode::read(from)?;
        let table = Table::read(from, max_leases)?;
        let before = from.left();
        Ok(Self {
            boot: Boot { id, pidns },
            weight,
            table,
            handoff: Encode::read(from)?,
            rest: (before - from.left()) as u64,
        })
    }
}

/// Every other frame: the events of a decision and the request that it answers, if any; or a fact
/// about a connection.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The request.
    #[serde(default)]
    pub sent: Option<Sent>,
    /// The events.
    #[serde(default)]
    pub events: Vec<Event>,
    /// The fact.
    #[serde(default)]
    pub note: Option<Note>,
}

/// An [`Entry`], as it is written.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<Sent>,
    #[serde(skip_serializing_if = "<[Event]>::is_empty")]
    events: &'a [Event],
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a Note>,
}

/// The parts of an entry, of which it has some.
const SENT: u8 = 1;
const EVENTS: u8 = 1 << 1;
const NOTE: u8 = 1 << 2;

/// The frame of an entry.
pub fn entry(
    format: Format,
    sent: Option<Sent>,
    events: &[Event],
    note: Option<&Note>,
) -> io::Result<Vec<u8>> {
    if format == Format::Json {
        return frame(&Line { sent, events, note });
    }
    binary(ENTRY, |to| {
        let has = |part, is: bool| if is { part } else { 0 };
        let has_events = has(EVENTS, !events.is_empty());
        to.push(has(SENT, sent.is_some()) | has_events | has(NOTE, note.is_some()));
        if let Some(sent) = sent {
            sent.write(to);
        }
        if !events.is_empty() {
            write_events(events, to);
        }
        if let Some(note) = note {
            note.write(to);
        }
    })
}

impl Entry {
    /// Reads a payload. The error is a sentence.
    pub fn read(payload: &[u8]) -> Result<Self, String> {
        match payload.first() {
            Some(&OBJECT) => parse(payload),
            Some(&ENTRY) => {
                let bytes = inside(payload).ok_or("an entry in it has no end")?;
                let mut from = Reader::new(bytes);
                let read = Self::decode(&mut from).and_then(|entry| ended(&from, entry));
                read.map_err(sentence)
            }
            _ => Err(String::from("a state stands where an entry belongs")),
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, Flaw> {
        let parts = from.byte()?;
        if parts & !(SENT | EVENTS | NOTE) != 0 {
            return Err(Flaw::Wrong(
                "an entry in it has a part that this claimfs does not know",
            ));
        }
        let mut entry = Self::default();
        if parts & SENT != 0 {
            entry.sent = Some(Encode::read(from)?);
        }
        if parts & EVENTS != 0 {
            entry.events = read_events(from)?;
        }
        if parts & NOTE != 0 {
            entry.note = Some(Encode::read(from)?);
        }
        Ok(entry)
    }
}

/// True if these bytes begin an entry in binary form of this length, and break off: at the latest
/// before the byte that ends a payload, which is not among the `length`.
pub(super) fn is_begun(bytes: &[u8], length: usize) -> bool {
    let mut from = Reader::of_length(bytes, length);
    bytes.len() <= length
        && match Entry::decode(&mut from) {
            Ok(_) => from.left() == 0,
            Err(flaw) => flaw == Flaw::Short,
        }
}

fn ended<T>(from: &Reader, value: T) -> Result<T, Flaw> {
    if from.left() == 0 {
        Ok(value)
    } else {
        Err(Flaw::Wrong("something follows in a frame of it"))
    }
}

fn sentence(flaw: Flaw) -> String {
    String::from(match flaw {
        Flaw::Short => "a frame of it breaks off",
        Flaw::Wrong(why) => why,
    })
}

pub(super) fn parse<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, String> {
    // The error may quote bytes of the file.
    serde_json::from_slice(payload).map_err(|error| printable(&error.to_string()))
}
