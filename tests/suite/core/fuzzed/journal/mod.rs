//! Recovery from an arbitrary journal: it is refused in a sentence, or gives a sound table that is
//! the same once it is written again, and of which nothing is left when every process has died.
//!
//! The first byte selects the form of the rest: the bytes of the journal, or the payload of a frame
//! in each line, or the events of a good journal, of version 1 or 2, and then the damage to it.

mod good;
mod sound;

use std::path::Path;

use claimfs::core::failure::Failure;
use claimfs::core::table::Table;
use claimfs::core::{Command, Event, Ino, Moment, Process, SessionKey, WaiterId};
use claimfs::handoff::Handoff;
use claimfs::journal::{Format, Recovered, Source, replay, snapshot};
use claimfs::process::Boot;

const MAX_LEASES: usize = 99;

pub fn run(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else {
        return;
    };
    let bytes = match how % 4 {
        0 => rest.to_vec(),
        1 => rest.split(|byte| *byte == b'\n').flat_map(framed).collect(),
        _ => {
            let (spoils, steps) = good::parts(rest);
            let format = if how & 0x20 == 0 {
                Format::Json
            } else {
                Format::Binary
            };
            let (frames, table) = good::history(format, steps);
            if spoils.is_empty() {
                is_what_was(&frames, &table);
            }
            good::spoiled(format, frames, spoils)
        }
    };
    let later = how & 0x40 != 0;
    let repair = how & 0x80 != 0;
    match read(&bytes, &boot(later), repair) {
        Ok(recovered) => is_well(recovered, &boot(later)),
        Err(Failure { text: why, .. }) => {
            let elsewhere = why.contains("another pid namespace");
            // Whose it is nobody knows; that no server has begun in this boot, `journal::read`
            // finds out elsewhere.
            let nameless = why.contains("corrupt at byte 0 ");
            assert!(elsewhere || (!repair && (!later || nameless)), "{why}");
            is_a_sentence(&why);
        }
    }
}

fn boot(later: bool) -> Boot {
    let id = if later { "a-later-boot" } else { "this-boot" };
    Boot {
        id: id.into(),
        pidns: 7,
    }
}

fn read(bytes: &[u8], boot: &Boot, repair: bool) -> Result<Recovered, Failure> {
    let source = Source {
        path: Path::new("journal"),
        bytes,
        size: bytes.len() as u64,
        began: None,
    };
    replay(source, boot, MAX_LEASES, repair)
}

/// A frame as the journal's first comment draws it.
fn framed(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    let mut sum = crc32fast::Hasher::new();
    sum.update(&length);
    sum.update(payload);
    let sum = sum.finalize().to_le_bytes();
    [&length[..], &sum, payload].concat()
}

fn is_a_sentence(why: &str) {
    assert!(why.starts_with("journal: "), "{why:?}");
    assert!(!why.contains(char::is_control), "{why:?}");
}

/// A good journal says what there is, and that is sound.
fn is_what_was(frames: &[Vec<u8>], table: &Table) {
    let recovered = read(&frames.concat(), &boot(false), false).unwrap();
    assert!(recovered.same_boot && recovered.lost.is_none());
    assert!(recovered.table == *table);
    sound::check(&serde_json::to_value(table).unwrap());
    is_answered_or_torn(frames);
}

/// A last frame of which a bit flips is refused; one that was cut short was never answered.
fn is_answered_or_torn(frames: &[Vec<u8>]) {
    let Some((last, before)) = frames.split_last().filter(|(_, before)| !before.is_empty()) else {
        return;
    };
    let before = before.concat();
    let step = last.len().div_ceil(8);
    for at in (0..last.len()).step_by(step) {
        let mut flipped = [&before[..], last].concat();
        flipped[before.len() + at] ^= 1 << (at % 8);
        assert!(read(&flipped, &boot(false), false).is_err(), "byte {at}");
        let cut = [&before[..], &last[..at]].concat();
        let recovered = read(&cut, &boot(false), false).unwrap();
        assert!(recovered.lost.is_none(), "cut at {at}");
    }
}

fn is_well(recovered: Recovered, boot: &Boot) {
    if let Some(lost) = &recovered.lost {
        is_a_sentence(lost);
    }
    let Recovered {
        table,
        handoff: connection,
        ..
    } = recovered;
    let written = serde_json::to_value(&table).unwrap();
    sound::check(&written);
    // Its indexes are those that follow from the rest.
    let again: Table = serde_json::from_value(written).unwrap();
    assert!(again.completed(MAX_LEASES) == table);
    is_same_anew(&table, &connection, boot);
    dies(table);
}

fn is_same_anew(table: &Table, connection: &Handoff, boot: &Boot) {
    // The answers that are owed stand in no order.
    let same = |connection: &Handoff| {
        let mut written = serde_json::to_value(connection).unwrap();
        let done = written["done"].as_array_mut().unwrap();
        done.sort_by_cached_key(ToString::to_string);
        written
    };
    for format in [Format::Json, Format::Binary] {
        let bytes = snapshot(format, boot, table, connection).unwrap();
        let again = read(&bytes, boot, false).unwrap();
        assert!(again.same_boot && again.lost.is_none());
        assert!(again.table == *table);
        assert_eq!(same(&again.handoff), same(connection));
    }
}

/// Everybody dies and all that was open is closed, as at the start after a loss of power; then
/// deadlines pass.
fn dies(mut table: Table) {
    let early = |table: &mut Table, command: &Command| decide(table, command, good::FIRST);
    let processes: Vec<Process> = table.processes().map(|(process, _)| *process).collect();
    for process in processes {
        early(
            &mut table,
            &Command::Died {
                process,
                ending: Some(claimfs::core::Ending::Exited(0)),
            },
        );
    }
    let waiters: Vec<WaiterId> = table.waiters().collect();
    for waiter in waiters {
        early(&mut table, &Command::Leave { waiter });
    }
    let sessions = table.sessions(SessionKey(0));
    let keys: Vec<SessionKey> = sessions.map(|there| there.key).collect();
    for key in keys {
        early(&mut table, &Command::Restart { key });
    }
    sweep(&mut table);
    while let Some((_, due)) = table.next_deadline() {
        assert!(
            decide(&mut table, &Command::Expire { due }, good::LAST),
            "{due:?}"
        );
        sweep(&mut table);
    }
    loop {
        let nameless: Vec<Ino> = table.nameless().collect();
        let forget = |ino: Ino| decide(&mut table, &Command::Forget { ino }, good::LAST);
        if nameless.into_iter().map(forget).filter(|is| *is).count() == 0 {
            break;
        }
    }
    assert_eq!(table.remembered(), 0, "{table:?}");
}

fn sweep(table: &mut Table) {
    while table.wants_sweep() {
        assert!(decide(table, &Command::Sweep { limit: 3 }, good::LAST));
    }
}

/// Whether anything came of it.
fn decide(table: &mut Table, command: &Command, now: Moment) -> bool {
    let events: Vec<Event> = table.decide(command, now).unwrap();
    for event in &events {
        table.apply(event);
    }
    !events.is_empty()
}
