//! The journal is written anew while the server goes on: nobody waits for it, and nothing is lost
//! whenever it is interrupted.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use claimfs::core::Command as Ask;
use claimfs::core::table::Table;
use claimfs::journal::{self, Disk, Live, Log, Place};
use libc::{O_CREAT, O_TRUNC, O_WRONLY};

use super::journal::{another, boot, now};
use crate::core::model::{claim, member, name, process};
use crate::faults::full_disk::{Small, fill};
use crate::support::{Actor, Guard, Mount, TempDir, program, root_or_skip, skip, wait_until};

/// A journal that is appended to.
struct Journal {
    disk: Disk,
    table: Table,
}

impl Journal {
    fn begin(dir: &Path) -> Self {
        let recovered = journal::read(dir, &boot(), 9999, false).unwrap();
        let disk = Disk::begin(dir, boot(), &recovered, &another()).unwrap();
        let table = recovered.table;
        Self { disk, table }
    }

    fn run(&mut self, ask: &Ask) {
        let events = self.table.decide(ask, now(1)).unwrap();
        self.disk.append(&events, None).unwrap();
        for event in &events {
            self.table.apply(event);
        }
    }

    fn claim(&mut self, of: &str) {
        self.run(&claim(of, &member("w1", &[process(1)])));
    }
}

#[test]
fn at_each_step_the_next_server_would_know_what_this_one_does() {
    let dir = TempDir::new();
    let mut journal = Journal::begin(dir.path());
    let mut step = 0;
    let mut check = |journal: &mut Journal| {
        step += 1;
        journal.claim(&format!("n{step}"));
        let read = journal::read(dir.path(), &boot(), 9999, false).unwrap();
        assert!(read.table == journal.table, "step {step}");
    };
    (0..5).for_each(|_| check(&mut journal));
    let (disk, table) = (&mut journal.disk, &journal.table);
    let mut copy = disk
        .begin_copy(table, Live::default(), Place::Kept)
        .unwrap();
    check(&mut journal);
    copy.write(&|| true).unwrap();
    check(&mut journal);
    copy.follow(journal.disk.length()).unwrap();
    check(&mut journal);
    journal.disk.mirror(&mut copy).unwrap();
    check(&mut journal);
    let before = journal.disk.length();
    drop(journal.disk.switch(&mut copy).unwrap());
    drop(copy);
    assert!(journal.disk.length() != before && !dir.path().join("journal.new").exists());
    check(&mut journal);
    // A copy that lacks something does not take its place.
    let (disk, table) = (&mut journal.disk, &journal.table);
    let mut first = disk
        .begin_copy(table, Live::default(), Place::Kept)
        .unwrap();
    first.write(&|| true).unwrap();
    assert!(disk.switch(&mut first).is_err());
    drop(first);
    check(&mut journal);
    assert!(!dir.path().join("journal.new").exists());
}

#[test]
fn a_copy_is_interrupted_at_every_system_call() {
    if Command::new("strace").arg("-V").output().is_err() {
        skip("strace is not installed");
        return;
    }
    let dir = TempDir::new();
    let mut journal = Journal::begin(dir.path());
    (0..5).for_each(|number| journal.claim(&format!("n{number}")));
    drop(journal.disk);
    let before = journal.table.lease_count();
    let claims: Vec<String> = (0..7).map(|number| format!("new{number}")).collect();
    let mut interrupted = 0;
    for fault in ["signal=KILL", "error=EIO", "error=ENOSPC"] {
        for call in [
            "openat",
            "pread64",
            "pwrite64",
            "fallocate",
            "fsync",
            "rename",
            "unlink",
        ] {
            for when in 1.. {
                let again = TempDir::new();
                for file in ["journal", "tokens"] {
                    fs::copy(dir.path().join(file), again.path().join(file)).unwrap();
                }
                let mut strace = Command::new("strace");
                strace.args(["-f", "-qq", "-o", "/dev/null", "-P"]);
                strace.arg(again.path());
                for file in ["journal", "journal.new", "tokens", "tokens.new"] {
                    strace.arg("-P").arg(again.path().join(file));
                }
                strace.arg("-e");
                strace.arg(format!("inject={call}:{fault}:when={when}"));
                let writer = program("journal_writer");
                let output = strace.arg(writer).arg(again.path()).args(&claims).output();
                let output = output.unwrap();
                let told = String::from_utf8(output.stdout.clone()).unwrap();
                let told = told.lines().count();
                let left = journal::read(again.path(), &boot(), 9999, false).unwrap();
                let held = left.table.lease_count() - before;
                // The last may have been appended, and its writer killed before it said so.
                assert!(
                    (told..=told + 1).contains(&held) && left.lost.is_none(),
                    "{call} {when} {fault}: {told} told, {held} held"
                );
                let mut next = Journal::begin(again.path());
                next.claim("next");
                let read = journal::read(again.path(), &boot(), 9999, false).unwrap();
                assert!(read.table == next.table);
                assert!(
                    !again.path().join("journal.new").exists(),
                    "{call} {when} {fault}"
                );
                if output.status.success() {
                    break;
                }
                interrupted += 1;
                assert!(when < 50, "{call} {fault}: {output:?}");
            }
        }
    }
    assert!(interrupted >= 30, "{interrupted}");
}

#[test]
fn a_disk_that_fills_up_meanwhile_costs_nothing() {
    if !root_or_skip("mount a small filesystem") {
        return;
    }
    let small = Small::new(4096);
    let dir = small.0.path();
    let mut journal = Journal::begin(dir);
    (0..500).for_each(|number| journal.claim(&format!("n{number}")));
    fill(dir);
    let (disk, table) = (&mut journal.disk, &journal.table);
    let mut copy = disk
        .begin_copy(table, Live::default(), Place::Kept)
        .unwrap();
    let full = copy.write(&|| true).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    disk.give_up(&copy);
    drop(copy);
    assert!(!dir.join("journal.new").exists());
    // What frees has its room.
    for number in 0..500 {
        journal.run(&Ask::Release {
            name: name(&format!("n{number}")).into(),
            directory: false,
            by: &member("w1", &[process(1)]),
        });
    }
    let read = journal::read(dir, &boot(), 9999, false).unwrap();
    assert!(read.table == journal.table);
}

/// Writes bodies until the journal is written anew.
fn until(me: &mut Actor, what: &str, is_so: impl Fn() -> bool) {
    let body = "x".repeat(60_000);
    wait_until(what, || {
        let fd = me
            .open("claims/body", O_WRONLY | O_CREAT | O_TRUNC)
            .unwrap();
        me.write(fd, &body).unwrap();
        me.close(fd).unwrap();
        is_so()
    });
}

/// strace(1), which keeps the server in its first write to the new journal. `None` if it cannot.
fn kept(mount: &Mount) -> Option<Guard> {
    let strace = Command::new("strace").arg("-V").output();
    if !strace.is_ok_and(|output| output.status.success()) {
        skip("strace is not installed");
        return None;
    }
    let mut strace = Command::new("strace");
    strace.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-p",
        &mount.pid().to_string(),
    ]);
    strace.arg("-P").arg(mount.state.join("journal.new"));
    strace.args(["-e", "inject=pwrite64:delay_enter=60000000:when=1"]);
    let strace = Guard::spawn(strace.stdin(Stdio::null()).stderr(Stdio::null()));
    let status = format!("/proc/{}/status", mount.pid());
    wait_until("strace has it", || {
        let status = fs::read_to_string(&status).unwrap();
        !status.contains("TracerPid:\t0\n")
    });
    Some(strace)
}

#[test]
fn claims_are_answered_and_kept_while_the_journal_is_written_anew() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    let new = mount.state.join("journal.new");
    let Some(_strace) = kept(&mount) else { return };
    until(&mut me, "a copy is begun", || new.exists());
    for number in 0..100 {
        me.claim(&format!("n{number}")).unwrap();
        me.claim("x").unwrap();
        me.unlink("claims/x").unwrap();
    }
    for file in ["leases", "metrics", "history"] {
        assert!(!mount.read(file).is_empty());
    }
    assert!(new.exists(), "it is not written yet");
    mount.kill_server();
    wait_until("the next one answers", || mount.claims().len() == 101);
    // The next one may begin a copy of its own at once.
    wait_until("what was left of it is gone", || !new.exists());
    let journal = || {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(mount.state.join("journal")).unwrap().ino()
    };
    let before = journal();
    until(&mut me, "it is written anew", || journal() != before);
    mount.kill_server();
    wait_until("the next one answers", || mount.claims().len() == 101);
}

#[test]
fn a_journal_that_is_damaged_in_place_is_written_anew_from_memory() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    me.claim("x").unwrap();
    let path = mount.state.join("journal");
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0; 64], 0).unwrap();
    until(&mut me, "that is told", || {
        mount.log().contains("written anew from memory")
    });
    mount.kill_server();
    wait_until("the next one answers", || mount.claims() == ["body", "x"]);
}
