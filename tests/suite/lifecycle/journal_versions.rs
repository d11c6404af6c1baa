//! Journals of other versions: older ones are read and go on, newer ones are refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use claimfs::core::failure::Failure;
use claimfs::core::table::Table;
use claimfs::handoff::Handoff;
use claimfs::journal::{self, Disk, Entry, Format, Live, Log, Recovered, Source, entry, snapshot};
use claimfs::process::Boot;
use serde_json::Value;

use super::journal::{another, boot, framed, now, payloads};
use crate::core::model::{claim, member, process};
use crate::support::{TempDir, program};

/// Journals that claimfs 0.1 wrote, with every kind of event and of note: as they came, and as one
/// snapshot. And the table and the connection that it read from them.
const EVENTS: &[u8] = include_bytes!("journals/version-1-events");
const SNAPSHOT: &[u8] = include_bytes!("journals/version-1-snapshot");
const EXPECTED: &str = include_str!("journals/version-1.json");

fn read(bytes: &[u8]) -> Result<Recovered, Failure> {
    let source = Source {
        path: Path::new("journal"),
        bytes,
        size: bytes.len() as u64,
        began: None,
    };
    journal::replay(source, &boot(), 999, false)
}

/// The table and the connection, as JSON.
fn content(table: &Table, handoff: &Handoff) -> Value {
    let mut connection = serde_json::to_value(handoff).unwrap();
    // The answers that are owed stand in no order.
    let done = connection["done"].as_array_mut().unwrap();
    done.sort_by_cached_key(ToString::to_string);
    let table = serde_json::to_value(table).unwrap();
    serde_json::json!({ "table": table, "connection": connection })
}

fn is_expected(recovered: &Recovered) {
    assert!(recovered.same_boot && recovered.lost.is_none());
    let expected: Value = serde_json::from_str(EXPECTED).unwrap();
    let there = content(&recovered.table, &recovered.handoff);
    assert!(there == expected, "{there}");
}

/// A directory with this journal.
fn with(bytes: &[u8]) -> TempDir {
    let dir = TempDir::new();
    fs::write(dir.path().join("journal"), bytes).unwrap();
    fs::write(dir.path().join("tokens"), "65536 this-boot\n").unwrap();
    dir
}

fn bytes(dir: &TempDir) -> Vec<u8> {
    fs::read(dir.path().join("journal")).unwrap()
}

/// The files and what is in them.
fn files(dir: &TempDir) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir.path()).unwrap().map(|file| {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        (name.to_owned(), fs::read(&path).unwrap())
    });
    files.collect()
}

#[test]
fn a_journal_of_version_1_is_read_as_the_claimfs_that_wrote_it_read_it() {
    for bytes in [EVENTS, SNAPSHOT] {
        is_expected(&read(bytes).unwrap());
    }
}

#[test]
fn it_says_the_same_in_version_2() {
    let recovered = read(EVENTS).unwrap();
    let frames = snapshot(
        Format::Binary,
        &boot(),
        &recovered.table,
        &recovered.handoff,
    )
    .unwrap();
    is_expected(&read(&frames).unwrap());
    // And event by event.
    let payloads = payloads(EVENTS);
    let handoff = Handoff::new("connection");
    let mut frames = snapshot(Format::Binary, &boot(), &Table::new(999), &handoff).unwrap();
    for payload in &payloads[1..] {
        let there = Entry::read(payload).unwrap();
        let note = there.note.as_ref();
        let frame = entry(Format::Binary, there.sent, &there.events, note).unwrap();
        assert!(frame.len() < 8 + payload.len());
        let again = Entry::read(&frame[8..]).unwrap();
        assert!(again.sent == there.sent && again.events == there.events);
        assert_eq!(again.note, there.note);
        frames.extend(frame);
    }
    is_expected(&read(&frames).unwrap());
    let (before, after) = (EVENTS.len(), frames.len());
    assert!(after < before / 3, "{after} bytes of {before}");
}

#[test]
fn every_entry_of_version_2_that_breaks_off_is_passed_over_and_every_wrong_bit_refused() {
    let head = snapshot(Format::Binary, &boot(), &Table::new(999), &another()).unwrap();
    let payloads = payloads(EVENTS);
    let entries = payloads[1..].iter().map(|payload| {
        let there = Entry::read(payload).unwrap();
        entry(
            Format::Binary,
            there.sent,
            &there.events,
            there.note.as_ref(),
        )
        .unwrap()
    });
    let mut whole = head;
    for frame in entries {
        let bytes = [&whole[..], &frame].concat();
        let end = whole.len();
        for cut in end..bytes.len() {
            let recovered = read(&bytes[..cut]).unwrap_or_else(|why| panic!("{}", why.text));
            assert!(recovered.lost.is_none(), "cut at {cut}");
        }
        let mut flipped = bytes.clone();
        for bit in 8 * end..8 * bytes.len() {
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&flipped).is_err(), "bit {bit}");
            flipped[bit / 8] ^= 1 << (bit % 8);
        }
        for at in end..bytes.len() - 1 {
            let mut other = bytes.clone();
            other.remove(at);
            let is_prefix = other == bytes[..other.len()];
            assert_eq!(read(&other).is_ok(), is_prefix, "without byte {at}");
        }
        whole = bytes;
    }
}

#[test]
fn it_goes_on_in_version_1_until_a_server_answers_and_in_version_2_from_then_on() {
    let dir = with(EVENTS);
    let recovered = journal::read(dir.path(), &boot(), 999, false).unwrap();
    let handoff = recovered.handoff.clone();
    let mut disk = Disk::begin(dir.path(), boot(), &recovered, &handoff).unwrap();
    let mut table = recovered.table;
    let by = &member("w9", &[process(9)]);
    let run = |disk: &mut Disk, table: &mut Table, of: &str| {
        let events = table.decide(&claim(of, by), now(9)).unwrap();
        disk.append(&events, None).unwrap();
        for event in &events {
            table.apply(event);
        }
        disk.compact_if_due(table, Live::default()).unwrap();
    };
    run(&mut disk, &mut table, "before");
    // The program from before reads this, should it have to take over again.
    let written = bytes(&dir);
    assert!(written.starts_with(EVENTS));
    assert!(payloads(&written).iter().all(|payload| payload[0] == b'{'));
    disk.settled();
    run(&mut disk, &mut table, "after");
    let written = bytes(&dir);
    assert_eq!(payloads(&written)[0], b"{\"claimfs_journal\":2}");
    assert!(written.len() < EVENTS.len() / 2);
    run(&mut disk, &mut table, "last");
    let written = bytes(&dir);
    assert!(
        payloads(&written)[1..]
            .iter()
            .all(|payload| payload[0] != b'{')
    );
    let again = journal::read(dir.path(), &boot(), 999, false).unwrap();
    assert!(again.table == table && again.lost.is_none());
    assert_eq!(again.handoff.nonce, handoff.nonce);
}

#[test]
fn a_new_mount_after_an_older_claimfs_goes_on_in_version_1_too_until_it_answers() {
    let dir = with(EVENTS);
    let recovered = journal::read(dir.path(), &boot(), 999, false).unwrap();
    let handoff = another();
    let mut disk = Disk::begin(dir.path(), boot(), &recovered, &handoff).unwrap();
    assert_eq!(read_as_version_1(&bytes(&dir)), Ok(()));
    disk.settled();
    disk.compact_if_due(&recovered.table, Live::default())
        .unwrap();
    assert!(read_as_version_1(&bytes(&dir)).is_err());
    let again = journal::read(dir.path(), &boot(), 999, false).unwrap();
    assert!(again.table == recovered.table && again.lost.is_none());
}

/// How claimfs 0.1 begins to read a journal.
fn read_as_version_1(bytes: &[u8]) -> Result<(), String> {
    let payload = payloads(bytes)[0];
    if payload[0] != b'{' {
        return Err(String::from("its checksum is wrong"));
    }
    let head: Value = serde_json::from_slice(payload).map_err(|why| why.to_string())?;
    match head["claimfs_journal"].as_u64().unwrap() {
        1 => Ok(()),
        other => Err(format!(
            "it is of version {other}, and this claimfs knows version 1"
        )),
    }
}

#[test]
fn a_downgrade_is_refused_in_a_sentence() {
    let dir = TempDir::new();
    let recovered = journal::read(dir.path(), &boot(), 99, false).unwrap();
    drop(Disk::begin(dir.path(), boot(), &recovered, &another()).unwrap());
    assert_eq!(
        read_as_version_1(&bytes(&dir)),
        Err(String::from(
            "it is of version 2, and this claimfs knows version 1"
        ))
    );
}

#[test]
fn a_journal_of_a_version_to_come_is_refused_in_every_boot_and_nothing_is_changed() {
    let newer = [framed("{\"claimfs_journal\":3}"), vec![7; 300]].concat();
    for began in ["this-boot", "an-earlier-boot"] {
        let dir = with(&newer);
        fs::write(dir.path().join("tokens"), format!("65536 {began}\n")).unwrap();
        let before = files(&dir);
        let Err(Failure { text: why, .. }) = journal::read(dir.path(), &boot(), 99, false) else {
            panic!("{began}: served");
        };
        assert!(
            why.contains("it is of version 3, and this claimfs knows version 2"),
            "{why}"
        );
        assert!(why.contains("start the newer claimfs"), "{why}");
        assert_eq!(files(&dir), before);
        let repaired = journal::read(dir.path(), &boot(), 99, true).unwrap();
        assert!(repaired.lost.is_some() && repaired.table.next_token() > 1 << 16);
        drop(Disk::begin(dir.path(), boot(), &repaired, &another()).unwrap());
        assert_eq!(files(&dir)["journal.corrupt.0"], newer);
    }
    // A version that never was is damage.
    let dir = with(&framed("{\"claimfs_journal\":0}"));
    let Err(Failure { text: why, .. }) = journal::read(dir.path(), &boot(), 99, false) else {
        panic!("served");
    };
    assert!(
        why.contains("corrupt at byte 0 ") && !why.contains("newer"),
        "{why}"
    );
}

#[test]
fn a_state_that_is_missing_or_stands_elsewhere_is_refused() {
    let head = snapshot(Format::Binary, &boot(), &Table::new(999), &another()).unwrap();
    let version = 8 + usize::from(head[0]);
    let (version, state) = head.split_at(version);
    let entry = entry(Format::Binary, None, &[], None).unwrap();
    for wrong in [
        version.to_vec(),
        state.to_vec(),
        [version, &entry].concat(),
        [version, version, state].concat(),
        [&head[..], state].concat(),
        [&head[..], version].concat(),
    ] {
        let Err(Failure { text: why, .. }) = read(&wrong) else {
            panic!("served");
        };
        assert!(why.contains("corrupt at byte "), "{why}");
    }
    assert!(read(&[&head[..], &entry].concat()).is_ok());
}

#[test]
fn an_upgrade_is_interrupted_at_every_system_call() {
    if Command::new("strace").arg("-V").output().is_err() {
        crate::support::skip("strace is not installed");
        return;
    }
    let mut interrupted = 0;
    for fault in ["signal=KILL", "error=EIO", "error=ENOSPC"] {
        for call in ["openat", "write", "fallocate", "fsync", "rename", "unlink"] {
            for when in 1.. {
                let dir = with(EVENTS);
                let mut strace = Command::new("strace");
                strace
                    .args(["-f", "-qq", "-o", "/dev/null", "-P"])
                    .arg(dir.path());
                for file in ["journal", "journal.new", "tokens", "tokens.new"] {
                    strace.arg("-P").arg(dir.path().join(file));
                }
                strace
                    .arg("-e")
                    .arg(format!("inject={call}:{fault}:when={when}"));
                strace.arg(program("journal_writer")).arg(dir.path());
                let output = strace.arg("settled").output().unwrap();
                is_expected(&journal::read(dir.path(), &boot(), 999, false).unwrap());
                let version = usize::from(read_as_version_1(&bytes(&dir)).is_err());
                let is_done = output.status.success() && version == 1;
                // It begins with what was there, or is the new one.
                assert!(
                    version == 1 || bytes(&dir).starts_with(EVENTS),
                    "{call} {when}"
                );
                if is_done {
                    break;
                }
                interrupted += 1;
                assert!(when < 50, "{call} {fault}: {output:?}");
            }
        }
    }
    assert!(interrupted >= 10, "{interrupted}");
}

#[test]
fn an_older_journal_of_another_boot_is_of_the_dead() {
    let later = Boot {
        id: "a-later-boot".into(),
        pidns: 7,
    };
    let dir = with(EVENTS);
    let recovered = journal::read(dir.path(), &later, 999, false).unwrap();
    assert!(!recovered.same_boot && recovered.lost.is_none());
}
