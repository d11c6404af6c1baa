//! The journal, by which a server leaves its state to the next: leases of the living, and nothing
//! of the dead.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use claimfs::core::failure::Failure;
use claimfs::core::table::Table;
use claimfs::core::{Change, Command as Ask, Creation, Event, Member, Moment, Shape, What};
use claimfs::handoff::Handoff;
use claimfs::journal::{self, Disk, Entry, Format, Live, Log, snapshot};
use claimfs::process::Boot;
use libc::{EBUSY, EEXIST, O_CREAT, O_EXCL, O_RDWR, O_WRONLY};

use crate::core::model::{claim, member, name, process};
use crate::support::{Mount, TempDir, program, wait_until};

#[test]
fn the_living_keep_what_they_hold_when_the_server_is_killed_and_the_dead_do_not() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let (mut me, mut dead) = (mount.actor(Some("me")), mount.actor(Some("dead")));
    let fd = me.open("claims/x", O_RDWR | O_CREAT | O_EXCL).unwrap();
    me.write(fd, "body").unwrap();
    me.utimes("claims/x", 5, 4_102_444_800_123_456_789).unwrap();
    me.setxattr("claims/x", "user.claimfs.ttl", "1h", 0)
        .unwrap();
    me.setxattr("claims/x", "user.note", "n", 0).unwrap();
    me.link("claims/x", "claims/y").unwrap();
    me.mkdir("claims/d").unwrap();
    me.mkdir("claims/d/sub").unwrap();
    me.symlink("somewhere", "claims/d/sub/s").unwrap();
    dead.claim("stale").unwrap();
    let mut waiter = mount.actor(Some("waiter"));
    waiter.open("queue/x", libc::O_RDONLY).unwrap();
    let (record, stat) = (mount.record("x").unwrap(), me.stat("claims/y").unwrap());
    let newest = mount.record("stale").unwrap()["token"].as_u64().unwrap();

    mount.kill();
    dead.kill();
    mount.start(&[]);
    assert_eq!(mount.claims(), ["d", "x", "y"]);
    let again = mount.record("x").unwrap();
    for key in [
        "session",
        "token",
        "pid",
        "command",
        "uid",
        "acquired_at",
        "ttl",
    ] {
        assert_eq!(again[key], record[key], "{key}");
    }
    assert_eq!(
        mount.read("waiters"),
        "",
        "a place in a line is its descriptor's"
    );
    wait_until("the reap is told", || {
        mount
            .log()
            .contains("reaped claims/stale: session dead (pid ")
    });
    // The holder's working directory was on the mount that died: by its path it is the same holder.
    let (x, y) = (mount.path("claims/x"), mount.path("claims/y"));
    let (x, y) = (x.to_str().unwrap(), y.to_str().unwrap());
    assert_eq!(me.stat(y).unwrap(), stat);
    assert_eq!(mount.read("claims/x"), "body");
    assert_eq!(me.getxattr(x, "user.note").unwrap(), "n");
    assert_eq!(
        fs::read_link(mount.path("claims/d/sub/s")).unwrap(),
        Path::new("somewhere")
    );
    let mut other = mount.actor(Some("other"));
    assert_eq!(other.unlink("claims/x"), Err(EBUSY));
    assert_eq!(other.claim("x"), Err(EEXIST));
    other.claim("stale").unwrap();
    assert!(mount.record("stale").unwrap()["token"].as_u64().unwrap() > newest);
    me.unlink(x).unwrap();
    me.kill();
    wait_until("the watch goes on", || mount.claims() == ["stale"]);
}

#[test]
fn an_orderly_unmount_ends_no_lease_either() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let mut me = mount.actor(Some("me"));
    me.claim("x").unwrap();
    mount.stop();
    mount.start(&[]);
    assert_eq!(mount.record("x").unwrap()["session"], "me");
    let mut other = mount.actor(Some("other"));
    assert_eq!(other.claim("x"), Err(EEXIST));
    me.kill();
    other.claim("x").unwrap();
}

#[test]
fn a_claim_is_one_frame_and_its_release_another_with_what_goes_with_it() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    let journal = mount.dir.parent().unwrap().join("state/journal");
    let frames = || {
        let entries = entries(&fs::read(&journal).unwrap());
        let decisions = entries.iter().filter(|entry| !entry.events.is_empty());
        let events = || entries.iter().flat_map(|entry| &entry.events);
        let of = |is: fn(&What) -> bool| events().filter(|event| is(&event.what)).count();
        (
            decisions.count(),
            of(|what| matches!(what, What::Released { .. })),
            of(|what| matches!(what, What::Forgotten { .. })),
        )
    };
    me.claim("session").unwrap();
    let (before, ..) = frames();
    me.claim("x").unwrap();
    assert_eq!(frames(), (before + 1, 0, 0));
    me.unlink("claims/x").unwrap();
    assert_eq!(frames(), (before + 2, 1, 1));
    // A file that is open, or has another name, is not gone yet.
    let mut open = mount.actor(Some("open"));
    open.claim("y").unwrap();
    let file = fs::File::open(mount.path("claims/y")).unwrap();
    open.unlink("claims/y").unwrap();
    assert_eq!((frames().1, frames().2), (2, 1));
    drop(file);
    wait_until("it is closed", || frames().2 == 2);
    open.claim("z").unwrap();
    open.link("claims/z", "claims/more").unwrap();
    open.unlink("claims/z").unwrap();
    assert_eq!((frames().1, frames().2), (3, 2));
}

#[test]
fn tokens_rise_although_the_journal_is_lost() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let mut me = mount.actor(Some("me"));
    for number in 0..3 {
        me.claim(&number.to_string()).unwrap();
    }
    let newest = mount.record("2").unwrap()["token"].as_u64().unwrap();
    mount.stop();
    fs::remove_file(mount.state.join("journal")).unwrap();
    mount.start(&["--repair"]);
    let mut other = mount.actor(Some("other"));
    other.claim("0").unwrap();
    assert!(mount.record("0").unwrap()["token"].as_u64().unwrap() > newest);
}

#[test]
fn a_journal_of_a_claimfs_that_knew_of_no_connections_is_read() {
    let dir = TempDir::new();
    let first = journal::read(dir.path(), &boot(), 99, false).unwrap();
    drop(Disk::begin(dir.path(), boot(), &first, &another()).unwrap());
    let mut head = head(&Table::new(99));
    assert!(head.as_object_mut().unwrap().remove("connection").is_some());
    fs::write(dir.path().join("journal"), framed(&head.to_string())).unwrap();
    let read = journal::read(dir.path(), &boot(), 99, false).unwrap();
    assert!(read.same_boot && read.lost.is_none());
}

/// The entries of a journal.
pub fn entries(bytes: &[u8]) -> Vec<Entry> {
    let payloads = payloads(bytes);
    // Before them are the version and the state.
    payloads[2..]
        .iter()
        .map(|payload| Entry::read(payload).unwrap())
        .collect()
}

/// The payloads of whole frames.
pub fn payloads(bytes: &[u8]) -> Vec<&[u8]> {
    let mut payloads = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        payloads.push(&bytes[at + 8..at + 8 + length]);
        at += 8 + length;
    }
    payloads
}

/// The first frame of a journal of version 1.
fn head(table: &Table) -> serde_json::Value {
    let frame = snapshot(Format::Json, &boot(), table, &another()).unwrap();
    serde_json::from_slice(&frame[8..]).unwrap()
}

pub fn boot() -> Boot {
    Boot {
        id: "this-boot".into(),
        pidns: 7,
    }
}

/// A connection that no other test, and no server before, has had.
pub fn another() -> Handoff {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    Handoff::new(&COUNT.fetch_add(1, Ordering::Relaxed).to_string())
}

pub fn now(seconds: u64) -> Moment {
    Moment {
        wall: UNIX_EPOCH + Duration::from_secs(seconds),
        boot: Duration::from_secs(seconds),
    }
}

/// A journal with a history, the tables after each of its frames, and where these end.
struct History {
    dir: TempDir,
    tables: Vec<(u64, Table)>,
}

fn copy(table: &Table) -> Table {
    let text = serde_json::to_string(table).unwrap();
    let read: Table = serde_json::from_str(&text).unwrap();
    read.completed(99)
}

impl History {
    fn new(steps: usize) -> Self {
        let dir = TempDir::new();
        let recovered = journal::read(dir.path(), &boot(), 99, false).unwrap();
        let mut disk = Disk::begin(dir.path(), boot(), &recovered, &another()).unwrap();
        let mut table = recovered.table;
        let mut tables = vec![(size(dir.path()), copy(&table))];
        let by: [Member; 2] = [member("w1", &[process(1)]), member("w2", &[process(2)])];
        for step in 0..steps {
            let by = &by[step % 2];
            let of = ["a", "b", "c"][step % 3];
            let lease = table.lease(&name(of)).map(|lease| lease.ino);
            let ask = match lease {
                None => claim(of, by),
                Some(ino) if step % 5 < 3 => {
                    let data = vec![b'x', step as u8, 0xFF, b'"'];
                    Ask::Alter {
                        ino,
                        by,
                        change: Change::Append { data },
                    }
                }
                Some(_) => Ask::Release {
                    name: name(of).into(),
                    directory: false,
                    by,
                },
            };
            let events: Vec<Event> = table.decide(&ask, now(step as u64)).unwrap_or_default();
            if events.is_empty() {
                continue;
            }
            disk.append(&events, None).unwrap();
            for event in &events {
                table.apply(event);
            }
            disk.compact_if_due(&table, Live::default()).unwrap();
            tables.push((size(dir.path()), copy(&table)));
        }
        Self { dir, tables }
    }

    /// A directory with these bytes as its journal.
    fn with(&self, bytes: &[u8]) -> TempDir {
        let dir = TempDir::new();
        fs::write(dir.path().join("journal"), bytes).unwrap();
        fs::copy(self.dir.path().join("tokens"), dir.path().join("tokens")).unwrap();
        dir
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.dir.path().join("journal")).unwrap()
    }
}

fn size(dir: &Path) -> u64 {
    fs::metadata(dir.join("journal")).unwrap().len()
}

#[test]
fn a_journal_cut_at_any_byte_is_what_was_whole() {
    let history = History::new(60);
    let bytes = history.bytes();
    let head = history.tables[0].0 as usize;
    let first = bytes.len().saturating_sub(4096).max(head);
    for cut in first..=bytes.len() {
        let dir = history.with(&bytes[..cut]);
        let recovered = journal::read(dir.path(), &boot(), 99, false).unwrap();
        let whole = history
            .tables
            .iter()
            .rfind(|(end, _)| *end <= cut as u64)
            .unwrap();
        assert!(recovered.table == whole.1, "cut at {cut}");
        assert!(recovered.same_boot && recovered.lost.is_none());
    }
    // And it goes on from there.
    let dir = history.with(&bytes[..bytes.len() - 3]);
    let recovered = journal::read(dir.path(), &boot(), 99, false).unwrap();
    drop(Disk::begin(dir.path(), boot(), &recovered, &another()).unwrap());
    let again = journal::read(dir.path(), &boot(), 99, false).unwrap();
    assert!(again.table == recovered.table);
}

#[test]
fn what_is_corrupt_before_the_end_is_refused_unless_it_is_of_an_earlier_boot_or_to_be_repaired() {
    let history = History::new(60);
    let bytes = history.bytes();
    let head = history.tables[0].0 as usize;
    // Every byte of a frame in the middle, its length and its checksum too, and some of the head.
    let (from, to) = (history.tables[9].0 as usize, history.tables[10].0 as usize);
    for at in (from..to).chain([0, 5, 8, head / 2, head - 1]) {
        let mut corrupt = bytes.clone();
        corrupt[at] ^= 0x41;
        let dir = history.with(&corrupt);
        let Err(Failure { text: why, .. }) = journal::read(dir.path(), &boot(), 99, false) else {
            panic!("byte {at}: passed over");
        };
        assert!(
            why.contains("corrupt at byte ") && why.contains("'claimfs mount --repair'"),
            "{why}"
        );

        let repaired = journal::read(dir.path(), &boot(), 99, true).unwrap();
        let kept = if at < head {
            None
        } else {
            Some(&history.tables[9].1)
        };
        assert!(
            repaired.lost.as_ref().unwrap().contains("are lost"),
            "byte {at}"
        );
        if let Some(kept) = kept {
            let mut kept = copy(kept);
            kept.skip_tokens(1 << 16);
            let mut there = copy(&repaired.table);
            there.skip_tokens(1 << 16);
            assert!(
                there.next_token() > 1 << 16
                    && there.leases(claimfs::core::Token(0)).count()
                        == kept.leases(claimfs::core::Token(0)).count()
            );
        }
        drop(Disk::begin(dir.path(), boot(), &repaired, &another()).unwrap());
        assert_eq!(
            fs::read(dir.path().join("journal.corrupt.0")).unwrap(),
            corrupt
        );
        assert!(
            journal::read(dir.path(), &boot(), 99, false)
                .unwrap()
                .lost
                .is_none()
        );

        // Power loss: all that it can speak of is dead.
        let dir = history.with(&corrupt);
        let later = Boot {
            id: "a-later-boot".into(),
            pidns: 7,
        };
        let recovered = journal::read(dir.path(), &later, 99, false).unwrap();
        assert!(recovered.lost.is_some() && !recovered.same_boot);
        assert!(recovered.table.next_token() > 1 << 16);
    }
}

/// A frame whose checksum is right, whatever it says.
pub fn framed(payload: &str) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    let mut sum = crc32fast::Hasher::new();
    sum.update(&length);
    sum.update(payload.as_bytes());
    let sum = sum.finalize().to_le_bytes();
    [&length[..], &sum, payload.as_bytes()].concat()
}

fn is_refused(dir: &TempDir, because: &str) {
    let Err(Failure { text: why, .. }) = journal::read(dir.path(), &boot(), 99, false) else {
        panic!("{because}: passed over");
    };
    assert!(
        why.contains("corrupt at byte ") && why.contains(because),
        "{why}"
    );
    let repaired = journal::read(dir.path(), &boot(), 99, true).unwrap();
    assert!(repaired.lost.unwrap().contains(because));
    assert!(repaired.table.next_token() > 1 << 16);
}

#[test]
fn a_last_event_that_is_whole_was_answered_perhaps_and_is_not_cut_off() {
    let history = History::new(10);
    // Of a claimfs to come, say.
    let unheard = r#"{"events":[{"seq":1,"at":[0,0],"what":{"Unheard":{}}}]}"#;
    let dir = history.with(&[history.bytes(), framed(unheard)].concat());
    is_refused(&dir, "unknown variant `Unheard`");
}

#[test]
fn events_that_are_missing_or_doubled_or_in_another_order_are_refused() {
    let history = History::new(20);
    let bytes = history.bytes();
    let ends: Vec<usize> = history
        .tables
        .iter()
        .map(|(end, _)| *end as usize)
        .collect();
    let frame = |number: usize| &bytes[ends[number - 1]..ends[number]];
    let (before, after) = (&bytes[..ends[4]], &bytes[ends[6]..]);
    for middle in [
        [frame(5), &[]],
        [&[], frame(6)],
        [frame(6), frame(5)],
        [frame(5), frame(5)],
    ] {
        let spoiled = [before, &middle.concat(), after].concat();
        is_refused(&history.with(&spoiled), " belongs");
    }
    let whole = [before, frame(5), frame(6), after].concat();
    let recovered = journal::read(history.with(&whole).path(), &boot(), 99, false).unwrap();
    assert!(recovered.table == history.tables.last().unwrap().1);
}

type Spoil<'a> = &'a dyn Fn(&mut serde_json::Value);

#[test]
fn a_table_that_cannot_be_is_refused_although_its_checksum_is_right() {
    let history = History::new(30);
    let head = head(&Table::new(99));
    let (_, newest) = history.tables.last().unwrap();
    let table = serde_json::to_value(newest).unwrap();
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let (mut head, mut table) = (head.clone(), table.clone());
        change(&mut table);
        head["table"] = table;
        history.with(&framed(&head.to_string()))
    };
    let first = |value: &serde_json::Value| value.as_object().unwrap().keys().next().cloned();
    let name = first(&table["leases"]).unwrap();
    let (ino, key) = (
        table["leases"][&name]["ino"].to_string(),
        first(&table["sessions"]).unwrap(),
    );
    let whole = with(&|_| {});
    let recovered = journal::read(whole.path(), &boot(), 99, false).unwrap();
    assert!(recovered.table == *newest);
    let changes: [(&str, Spoil); 8] = [
        ("still to come", &|table| table["next_token"] = 1.into()),
        ("still to come", &|table| table["next_ino"] = 1024.into()),
        ("too large", &|table| table["next_key"] = u64::MAX.into()),
        ("nobody holds ", &|table| {
            table["inodes"].as_object_mut().unwrap().remove(&ino);
        }),
        ("nobody holds ", &|table| {
            table["sessions"].as_object_mut().unwrap().remove(&key);
        }),
        ("of no lease", &|table| {
            let names = table["inodes"][&ino]["names"].as_array_mut();
            names.unwrap().push(5000.into());
        }),
        ("keeps it alive", &|table| {
            table["sessions"][&key]["roots"] = Vec::<u8>::new().into();
        }),
        ("not counted right", &|table| {
            table["inodes"][&ino]["below"]["bytes"] = 7.into();
        }),
    ];
    for (because, change) in changes {
        is_refused(&with(change), because);
    }
}

#[test]
fn a_number_of_tokens_that_leaves_none_is_refused() {
    let history = History::new(10);
    fs::write(
        history.dir.path().join("tokens"),
        format!("{} this-boot\n", u64::MAX),
    )
    .unwrap();
    let Err(Failure { text: why, .. }) = journal::read(history.dir.path(), &boot(), 99, false)
    else {
        panic!("no token is left");
    };
    assert!(why.contains("tokens: "), "{why}");
}

#[test]
fn another_pid_namespace_is_refused() {
    let history = History::new(10);
    let elsewhere = Boot {
        id: "this-boot".into(),
        pidns: 8,
    };
    let Err(Failure { text: why, .. }) = journal::read(history.dir.path(), &elsewhere, 99, false)
    else {
        panic!("pids mean other processes there");
    };
    assert!(why.contains("another pid namespace"), "{why}");
}

#[test]
fn a_journal_stays_small_and_says_the_same_once_it_is_written_anew() {
    let dir = TempDir::new();
    let recovered = journal::read(dir.path(), &boot(), 9999, false).unwrap();
    let mut disk = Disk::begin(dir.path(), boot(), &recovered, &another()).unwrap();
    let mut table = recovered.table;
    let by = &member("w1", &[process(1)]);
    let mut run = |table: &mut Table, ask: &Ask| {
        let events = table.decide(ask, now(1)).unwrap();
        disk.append(&events, None).unwrap();
        for event in &events {
            table.apply(event);
        }
        disk.compact_if_due(table, Live::default()).unwrap();
        let live = serde_json::to_string(table).unwrap().len() as u64;
        let length = size(dir.path());
        assert!(length <= 4 * live + (1 << 20), "{length} bytes for {live}");
    };
    // Nothing lives on; then a thousand with bodies; then none of them.
    for _ in 0..4000 {
        run(&mut table, &claim("x", by));
        run(
            &mut table,
            &Ask::Release {
                name: name("x").into(),
                directory: false,
                by,
            },
        );
        let nameless: Vec<_> = table.nameless().collect();
        for ino in nameless {
            run(&mut table, &Ask::Forget { ino });
        }
    }
    let created = |of: &str| Creation {
        shape: Shape::File,
        mode: 0o600,
        uid: of.len() as u32,
        gid: 1,
    };
    let names: Vec<String> = (0..150).map(|number| format!("n{number}")).collect();
    for of in &names {
        let ask = Ask::Claim {
            name: name(of).into(),
            by,
            creation: created(of),
            exclusive: true,
            truncate: false,
        };
        run(&mut table, &ask);
        let ino = table.lease(&name(of)).unwrap().ino;
        let data = vec![b'b'; 20_000];
        run(
            &mut table,
            &Ask::Alter {
                ino,
                by,
                change: Change::Append { data },
            },
        );
    }
    for of in &names {
        run(
            &mut table,
            &Ask::Release {
                name: name(of).into(),
                directory: false,
                by,
            },
        );
    }
    let again = journal::read(dir.path(), &boot(), 9999, false).unwrap();
    assert!(again.table == table);
}

#[test]
fn writing_anew_is_interrupted_at_every_system_call() {
    if Command::new("strace").arg("-V").output().is_err() {
        crate::support::skip("strace is not installed");
        return;
    }
    let history = History::new(40);
    let bytes = history.bytes();
    let (_, newest) = history.tables.last().unwrap();
    let mut interrupted = 0;
    for fault in ["signal=KILL", "error=EIO", "error=ENOSPC"] {
        for call in ["openat", "write", "fallocate", "fsync", "rename", "unlink"] {
            for when in 1.. {
                let dir = history.with(&bytes);
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
                let output = strace.output().unwrap();
                let done = output.status.success();
                // Whatever came of it, nothing is lost, and the next one goes on.
                let left = journal::read(dir.path(), &boot(), 99, false).unwrap();
                assert!(
                    left.table == *newest && left.lost.is_none(),
                    "{call} {when} {fault}"
                );
                let mut disk = Disk::begin(dir.path(), boot(), &left, &another()).unwrap();
                let mut table = left.table;
                let by = &member("w3", &[process(3)]);
                let events = table.decide(&claim("new", by), now(99)).unwrap();
                disk.append(&events, None).unwrap();
                for event in &events {
                    table.apply(event);
                }
                assert!(table.lease(&name("new")).unwrap().token.0 >= newest.next_token());
                assert!(journal::read(dir.path(), &boot(), 99, false).unwrap().table == table);
                if done {
                    break;
                }
                interrupted += 1;
                assert!(when < 50, "{call} {fault}: {output:?}");
            }
        }
    }
    assert!(interrupted >= 20, "{interrupted}");
}

#[test]
fn what_a_dead_session_held_is_not_written_anew_but_gone_from_the_journal_once_it_is_swept() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.actor(Some("holder"));
    let body = "x".repeat(60 * 1024);
    for number in 0..60 {
        let path = format!("claims/{number}");
        let fd = holder.open(&path, O_WRONLY | O_CREAT | O_EXCL).unwrap();
        holder.write(fd, &body).unwrap();
        holder.close(fd).unwrap();
    }
    let size = || fs::metadata(mount.state.join("journal")).unwrap().len();
    assert!(size() > 60 * 60 * 1024, "{}", size());
    holder.kill();
    wait_until("it is swept", || {
        mount.read("metrics").contains("\nclaimfs_reaps_total 60\n")
    });
    wait_until("it is written anew", || size() < 1024 * 1024);
}
