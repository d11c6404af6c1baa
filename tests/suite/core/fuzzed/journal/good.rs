//! Makes from the data a journal as claimfs writes it, and then damages it as a bad disk does, or
//! as somebody who corrects the checksums.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use claimfs::core::table::Table;
use claimfs::core::{
    Asker, Change, Command, Creation, Due, Ending, Event, Ino, Label, Member, Moment, Name, NodeId,
    Place, Process, RemoteSession, Root, Rule, SessionId, SessionKey, Shape, Token, WaiterId,
};
use claimfs::handoff::{Handoff, Key, Note, Open, Position, Reading, Sent};
use claimfs::journal::{Entry, Format, entry, snapshot};

use super::{MAX_LEASES, boot, framed};

pub const FIRST: Moment = Moment {
    wall: UNIX_EPOCH,
    boot: Duration::ZERO,
};

/// After every deadline that there can be.
pub const LAST: Moment = Moment {
    wall: UNIX_EPOCH,
    boot: Duration::from_secs(1 << 41),
};

/// As many things happen at most.
const STEPS: usize = 64;

/// How the journal is spoiled, and what happens before: four bytes each.
pub fn parts(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((count, rest)) = data.split_first() else {
        return (&[], &[]);
    };
    rest.split_at(rest.len().min(4 * usize::from(count % 8)))
}

fn member(number: u32) -> Member {
    let process = |pid: u32| Process {
        pid,
        start: pid.into(),
        pidfs: pid.into(),
    };
    let root = Root {
        process: process(100 + number),
        command: Arc::from("sh"),
        started: UNIX_EPOCH,
        registered: number == 1,
        environ: 0,
        above: claimfs::core::Above::Unknown,
    };
    let kin = claimfs::core::Kin {
        process: root.process,
        pid: 100 + number,
    };
    let rule = [Rule::Variable, Rule::Registered, Rule::Posix, Rule::Agent][number as usize % 4];
    Member {
        id: SessionId::new(format!("w{number}").as_bytes()).unwrap(),
        rule,
        uid: if number == 3 { 0 } else { 1000 },
        pidns: 0,
        sandbox: 0,
        scope: rule.scope(),
        heir: None,
        roots: vec![root],
        lineage: vec![kin],
        pid: 100 + number,
        command: Arc::from("sh"),
    }
}

fn creation(shape: Shape) -> Creation {
    Creation {
        shape,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
    }
}

fn wall(step: usize) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(step as u64 * 300)
}

/// The frames of a journal, and the table that they make.
pub fn history(format: Format, data: &[u8]) -> (Vec<Vec<u8>>, Table) {
    let mut table = Table::new(MAX_LEASES);
    let connection = Handoff::new("a");
    let mut frames = vec![snapshot(format, &boot(false), &table, &connection).unwrap()];
    for (step, bytes) in data.chunks_exact(4).take(STEPS).enumerate() {
        let [op, who, what, more] = [bytes[0], bytes[1], bytes[2], bytes[3]];
        let sent = Sent {
            key: Key(step as u64, 0),
            again: op & 0x80 != 0,
            thread: u64::from(who >> 6),
        };
        if op & 0x7F == 0x7F {
            let note = note(what, more);
            frames.push(entry(format, Some(sent), &[], Some(&note)).unwrap());
            continue;
        }
        let now = Moment {
            wall: wall(step),
            boot: Duration::from_millis(step as u64 * 300),
        };
        let Some(events) = events(&table, op, who, what, more, now) else {
            continue;
        };
        frames.push(entry(format, Some(sent), &events, None).unwrap());
        for event in &events {
            table.apply(event);
        }
    }
    (frames, table)
}

fn note(what: u8, more: u8) -> Note {
    let (ino, fh) = (
        NodeId::QueueFile((more % 8).into()),
        NodeId::Reader((more % 8).into()),
    );
    let name = Name::new(b"a").unwrap();
    let position = |seq: u8| Position {
        offset: 0,
        seq: seq.into(),
        skip: 0,
    };
    match what % 8 {
        0 => Note::Told { ino, name },
        1 => Note::Forgotten { ino },
        2 => {
            let open = Open::Reading(Reading {
                from: position(more),
                to: position(more),
                rest: vec![more],
                missed: u64::from(more % 3),
                again: u64::from(more % 2),
                last: vec![],
            });
            Note::Opened { fh, open }
        }
        3 => Note::Polled { fh, kh: 7 },
        4 => Note::Closed { fh },
        5 => {
            let waiter = WaiterId(more.into());
            Note::Confirmed { waiter }
        }
        6 => Note::TakenOver,
        _ => Note::Began { nonce: "b".into() },
    }
}

/// The events of one step, if any.
fn events(table: &Table, op: u8, who: u8, what: u8, more: u8, now: Moment) -> Option<Vec<Event>> {
    let by = &member(u32::from(who % 4));
    let named = &RemoteSession {
        id: SessionId::new(if who & 1 == 0 { b"n0" } else { b"n1" }).unwrap(),
        uid: 1000,
        pidns: claimfs::core::NOWHERE,
        gid: 1000,
    };
    let name = |number: u8| Name::new(&[b'a' + number % 4]).unwrap();
    let inos = inos(table);
    let ino = inos.get(usize::from(what) % inos.len().max(1)).copied();
    let place = |number: u8| match number >> 2 {
        0..32 => Place::Claim(name(number)),
        _ => Place::Inside {
            dir: inos
                .get(usize::from(number >> 2) % inos.len().max(1))
                .copied()
                .unwrap_or(Ino(1)),
            label: Label::new(&[b'x' + number % 2, 0xFF]).unwrap(),
        },
    };
    let (name, session) = (name(what), SessionKey(u64::from(more)));
    let ttl = Duration::from_millis(u64::from(more) * 50 + 1);
    let waiter = WaiterId(what.into());
    let process = member(u32::from(what % 4)).roots[0].process;
    let asker = Asker {
        uid: by.uid,
        pidns: 0,
        chain: &[],
        command: Arc::from("sh"),
    };
    let command = match op % 24 {
        op @ 0..3 => Command::Claim {
            name: place(what),
            by,
            creation: creation(match op {
                0 => Shape::File,
                1 => Shape::Directory,
                _ => Shape::Symlink(Arc::from(&b"to"[..])),
            }),
            exclusive: more & 1 == 0,
            truncate: more & 2 == 0,
        },
        3 => Command::Reclaim {
            ino: ino?,
            by,
            truncate: more & 1 == 0,
        },
        4 | 5 => Command::Alter {
            ino: ino?,
            by,
            change: change(more, by),
        },
        op @ (6 | 7) => Command::Release {
            name: place(what),
            directory: op == 7,
            by,
        },
        8 => Command::Rename {
            from: place(what),
            to: place(more),
            noreplace: who & 0x10 != 0,
            by,
        },
        9 => Command::Link {
            ino: ino?,
            name: place(more),
            by,
        },
        10 => Command::Exchange {
            one: place(what),
            other: place(more),
            by,
        },
        11 => Command::Join {
            exclusive: more & 1 == 0,
            by,
        },
        12 => Command::End {
            id: member(u32::from(what % 4)).id,
            by: asker,
        },
        13 => {
            let creation = creation(Shape::File);
            Command::Queue { name, by, creation }
        }
        14 => Command::Accept { waiter },
        15 => Command::Leave { waiter },
        16 => Command::Limit {
            ino: ino?,
            by,
            ttl: (more != 0).then_some(ttl),
        },
        17 => Command::Give {
            ino: ino?,
            to: member(u32::from(more % 4)).id,
            by,
        },
        18 => Command::Break {
            token: table.lease(&name)?.token,
            name,
            by: asker,
        },
        19 if more & 1 == 0 => Command::Yield { name, by: named },
        19 => Command::Hold {
            name,
            by: named,
            ttl,
        },
        20 => Command::Died {
            process,
            ending: match more % 3 {
                0 => Some(Ending::Exited(0)),
                1 => Some(Ending::Killed(9)),
                _ => None,
            },
        },
        21 => Command::Sweep {
            limit: usize::from(more % 3),
        },
        22 => Command::Forget {
            ino: table.nameless().min().filter(|_| more & 1 == 0).or(ino)?,
        },
        _ if more & 1 == 0 => Command::Restart { key: session },
        _ => Command::Expire {
            due: table
                .next_deadline()
                .map_or(Due::Session(session), |(_, due)| due),
        },
    };
    let events = table.decide(&command, now).ok()?;
    (!events.is_empty()).then_some(events)
}

/// The inodes of all that has a name, in the order of their numbers.
fn inos(table: &Table) -> Vec<Ino> {
    let claims = table.leases(Token(0)).map(|(_, lease)| lease.ino);
    let mut inos: Vec<Ino> = claims.collect();
    let mut at = 0;
    while let Some(ino) = inos.get(at).copied() {
        if let Some(node) = table.node(ino) {
            inos.extend(node.content().entries().after(0).map(|(_, _, ino)| ino));
        }
        at += 1;
    }
    inos.sort_unstable();
    inos.dedup();
    inos
}

fn change(more: u8, by: &Member) -> Change {
    let pid = by.pid.to_string();
    let text = |text: &str| Change::Append {
        data: text.as_bytes().to_vec(),
    };
    match more % 8 {
        0 => text("{\"ttl\":\"1s\"}"),
        1 => text("{\"session\":\"w2\",\"ttl\":5}"),
        2 => text(&pid),
        3 => text("\n\u{fffd}"),
        4 => Change::Resize {
            size: u64::from(more) * 200,
        },
        5 => Change::Write {
            offset: u64::from(more) * 4096,
            data: vec![0xFF, more],
        },
        6 => Change::Tag {
            name: "user.note".into(),
            value: (more & 8 == 0).then(|| vec![more; 40]),
        },
        _ => Change::Attributes(claimfs::core::Attributes {
            mode: Some(more.into()),
            atime: Some(UNIX_EPOCH - Duration::from_millis(u64::from(more) * 250)),
            mtime: None,
        }),
    }
}

const NUMBERS: [&str; 12] = [
    "0",
    "1",
    "2",
    "3",
    "1024",
    "1026",
    "-1",
    "4294967295",
    "4611686018427387904",
    "9223372036854775807",
    "18446744073709551615",
    "1e3",
];

/// The journal of these frames with this damage.
pub fn spoiled(format: Format, mut frames: Vec<Vec<u8>>, spoils: &[u8]) -> Vec<u8> {
    // The first frame says the version; a state follows.
    let version = match format {
        Format::Json => Vec::new(),
        Format::Binary => {
            let length = 8 + usize::from(frames[0][0]);
            frames[0].drain(..length).collect()
        }
    };
    let mut cut = 0;
    for bytes in spoils.chunks_exact(4) {
        let [op, which, at, value] = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if frames.is_empty() {
            break;
        }
        let index = usize::from(which) % frames.len();
        let place = usize::from(at) + 256 * usize::from(op >> 4);
        let frame = &mut frames[index];
        match op % 8 {
            0 => {
                let place = place % frame.len();
                frame[place] ^= value;
            }
            1 => {
                let mut payload = frame[8..].to_vec();
                let place = place % payload.len().max(1);
                if let Some(there) = payload.get_mut(place) {
                    *there = value;
                }
                *frame = framed(&payload);
            }
            2 => _ = frames.remove(index),
            3 => {
                let copy = frame.clone();
                frames.insert(usize::from(at) % (frames.len() + 1), copy);
            }
            4 => {
                let other = usize::from(at) % frames.len();
                frames.swap(index, other);
            }
            5 => cut = place,
            6 => *frame = framed(&renumbered(&frame[8..], place, value)),
            _ => {
                // An event is repeated later, and then the journal ends.
                let last = usize::from(at) % frames.len();
                if let Some(frame) = again(format, &frames[index], &frames[last]) {
                    frames.truncate(last + 1);
                    frames.push(frame);
                }
            }
        }
    }
    let mut bytes = [version, frames.concat()].concat();
    bytes.truncate(bytes.len() - cut.min(bytes.len()));
    bytes
}

/// A payload in which one of the numbers is another.
fn renumbered(payload: &[u8], which: usize, value: u8) -> Vec<u8> {
    let is_start = |at: &usize| {
        let before = at.checked_sub(1).map(|at| payload[at]);
        let digit = payload[*at].is_ascii_digit();
        digit && before.is_none_or(|before| !before.is_ascii_digit())
    };
    let starts: Vec<usize> = (0..payload.len()).filter(is_start).collect();
    let Some(start) = starts.get(which % starts.len().max(1)).copied() else {
        return payload.to_vec();
    };
    let length = payload[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    let end = start + length.count();
    let number = NUMBERS[usize::from(value) % NUMBERS.len()];
    [&payload[..start], number.as_bytes(), &payload[end..]].concat()
}

/// A frame's events, numbered so that they follow on another frame.
fn again(format: Format, frame: &[u8], after: &[u8]) -> Option<Vec<u8>> {
    let mut frame = Entry::read(&frame[8..]).ok()?;
    let after = Entry::read(&after[8..]).unwrap_or_default();
    let newest = after.events.last().map_or(0, |newest| newest.seq);
    for (event, after) in frame.events.iter_mut().zip(1..) {
        event.seq = newest.wrapping_add(after);
    }
    entry(format, frame.sent, &frame.events, frame.note.as_ref()).ok()
}
