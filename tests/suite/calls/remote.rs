//! Sessions without processes: callers that the mount cannot see name one, and it lives by its
//! deadline.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command as Program, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use claimfs::core::table::Table;
use claimfs::core::{
    Command, Due, Event, Moment, NOWHERE, Refusal, RemoteSession, SessionId, WaiterId, What,
};
use claimfs::journal::Log;
use claimfs::journal::{self, Disk};
use claimfs::process::Boot;
use libc::{EBUSY, EEXIST, EINVAL, ENOENT, EPERM, O_CREAT, O_EXCL, O_RDONLY, O_WRONLY};

use crate::core::model::{claim, member, name, process};
use crate::support::{Actor, CLAIMFS, Guard, Mount, TempDir, root_or_skip, skip, text, wait_until};

fn at(seconds: u64) -> Moment {
    Moment {
        wall: UNIX_EPOCH + Duration::from_secs(seconds),
        boot: Duration::from_secs(seconds),
    }
}

fn run(table: &mut Table, command: &Command, now: Moment) -> Result<Vec<Event>, Refusal> {
    let events = table.decide(command, now)?;
    for event in &events {
        table.apply(event);
    }
    Ok(events)
}

fn named(id: &str, uid: u32) -> RemoteSession {
    let id = SessionId::new(id.as_bytes()).unwrap();
    RemoteSession {
        id,
        uid,
        pidns: NOWHERE,
        gid: 1000,
    }
}

fn hold<'a>(what: &str, by: &'a RemoteSession, seconds: u64) -> Command<'a> {
    Command::Hold {
        name: name(what),
        by,
        ttl: Duration::from_secs(seconds),
    }
}

fn give_up<'a>(what: &str, by: &'a RemoteSession) -> Command<'a> {
    Command::Yield {
        name: name(what),
        by,
    }
}

#[test]
fn it_holds_what_it_takes_until_its_deadline_and_each_claim_moves_that_on() {
    let mut table = Table::new(2);
    let (box1, box2) = (named("box1", 1000), named("box2", 1000));
    run(&mut table, &hold("x", &box1, 10), at(100)).unwrap();
    let token = table.lease(&name("x")).unwrap().token;
    assert_eq!(
        run(&mut table, &hold("x", &box2, 10), at(101)),
        Err(Refusal::Busy)
    );
    run(&mut table, &hold("x", &box1, 10), at(105)).unwrap();
    assert_eq!(
        table.lease(&name("x")).unwrap().token,
        token,
        "the same lease"
    );
    // A request with a shorter deadline does not shorten the one before.
    run(&mut table, &hold("x", &box1, 1), at(105)).unwrap();
    let session = table.session(&box1.id).unwrap().key;
    let due = Due::Session(session);
    assert_eq!(table.next_deadline(), Some((Duration::from_secs(115), due)));
    assert_eq!(
        run(&mut table, &Command::Expire { due }, at(114)),
        Ok(vec![])
    );
    run(&mut table, &hold("y", &box1, 10), at(114)).unwrap();
    assert_eq!(
        run(&mut table, &hold("z", &box1, 10), at(114)),
        Err(Refusal::Full)
    );
    run(&mut table, &Command::Expire { due }, at(124)).unwrap();
    assert!(table.lease(&name("x")).is_none() && table.session(&box1.id).is_none());
    let swept = run(&mut table, &Command::Sweep { limit: 9 }, at(124)).unwrap();
    assert!(
        swept
            .iter()
            .all(|event| matches!(event.what, What::Expired { .. }))
    );
    assert_eq!((swept.len(), table.remembered()), (2, 0));
}

#[test]
fn it_is_its_uids_and_none_of_any_process() {
    let mut table = Table::new(9);
    let me = member("w1", &[process(100)]);
    run(&mut table, &claim("mine", &me), at(1)).unwrap();
    let box1 = named("box1", me.uid);
    run(&mut table, &hold("x", &box1, 10), at(1)).unwrap();
    // Another uid, and a session of processes, by either's name.
    for (by, refusal) in [
        (named("box1", me.uid + 1), Refusal::NotPermitted),
        (named("w1", me.uid), Refusal::NotPermitted),
        (named("sid-1-uid-1000", me.uid), Refusal::NotPermitted),
    ] {
        assert_eq!(run(&mut table, &hold("y", &by, 10), at(2)), Err(refusal));
        assert_eq!(run(&mut table, &give_up("x", &by), at(2)), Err(refusal));
    }
    let posing = member("box1", &[process(200)]);
    assert_eq!(
        run(&mut table, &claim("y", &posing), at(2)),
        Err(Refusal::NotPermitted)
    );
    let release = Command::Release {
        name: name("x").into(),
        directory: false,
        by: &me,
    };
    assert_eq!(run(&mut table, &release, at(2)), Err(Refusal::Busy));
    assert_eq!(
        run(&mut table, &give_up("mine", &box1), at(2)),
        Err(Refusal::Busy)
    );
    assert_eq!(
        run(&mut table, &give_up("nothing", &box1), at(2)),
        Err(Refusal::NotFound)
    );
    // Nothing is given to it, since nobody could be told.
    let give = Command::Give {
        ino: table.lease(&name("mine")).unwrap().ino,
        to: box1.id.clone(),
        by: &me,
    };
    assert_eq!(run(&mut table, &give, at(2)), Err(Refusal::NotPermitted));
    run(&mut table, &give_up("x", &box1), at(2)).unwrap();
    assert!(table.lease(&name("x")).is_none());
}

#[test]
fn who_waits_for_what_it_holds_is_next() {
    let mut table = Table::new(9);
    let box1 = named("box1", 1000);
    run(&mut table, &hold("x", &box1, 10), at(1)).unwrap();
    let me = member("w1", &[process(100)]);
    let queue = Command::Queue {
        name: name("x"),
        by: &me,
        creation: crate::core::model::creation(1000),
    };
    run(&mut table, &queue, at(2)).unwrap();
    let (_, due) = table.next_deadline().unwrap();
    run(&mut table, &Command::Expire { due }, at(11)).unwrap();
    assert!(table.granted(WaiterId(1)).is_some());
    assert_eq!(table.session(&me.id).unwrap().leases.len(), 1);
}

#[test]
fn it_survives_the_loss_of_power_and_lives_for_its_whole_time_again() {
    let dir = TempDir::new();
    let boot = |id: &str| Boot {
        id: id.into(),
        pidns: 7,
    };
    let connection = claimfs::handoff::Handoff::new;
    let first = journal::read(dir.path(), &boot("one"), 9, false).unwrap();
    let mut disk = Disk::begin(dir.path(), boot("one"), &first, &connection("1")).unwrap();
    let mut table = first.table;
    let box1 = named("box1", 1000);
    for command in [
        claim("gone", &member("w1", &[process(100)])),
        hold("x", &box1, 10),
    ] {
        let events = run(&mut table, &command, at(1000)).unwrap();
        disk.append(&events, None).unwrap();
    }
    let there = journal::read(dir.path(), &boot("two"), 9, false).unwrap();
    assert!(!there.same_boot);
    let mut table = there.table;
    let key = table.session(&box1.id).unwrap().key;
    // The clock of the new boot has only begun.
    run(&mut table, &Command::Restart { key }, at(3)).unwrap();
    let due = Due::Session(key);
    assert_eq!(table.next_deadline(), Some((Duration::from_secs(13), due)));
    assert!(table.lease(&name("x")).is_some());
}

/// A mount whose server lives in a pid namespace of its own, so that it cannot see who calls.
fn blind(temp: &TempDir) -> Option<Mount> {
    if !root_or_skip("make a pid namespace") {
        return None;
    }
    let mut mount = Mount::unmounted()?;
    mount.program = temp.path().join("blind");
    let script = format!("#!/bin/sh\nexec unshare --pid --fork --kill-child '{CLAIMFS}' \"$@\"\n");
    fs::write(&mount.program, script).unwrap();
    fs::set_permissions(&mount.program, fs::Permissions::from_mode(0o755)).unwrap();
    mount.start(&[]);
    Some(mount)
}

fn control(actor: &mut Actor, line: &str) -> Result<(), i32> {
    let fd = actor.open("control", O_WRONLY).unwrap();
    let written = actor.write(fd, line).map(|_| ());
    actor.close(fd).unwrap();
    written
}

#[test]
fn a_caller_that_the_mount_cannot_see_looks_and_claims_for_a_named_session_only() {
    let temp = TempDir::new();
    let Some(mut mount) = blind(&temp) else {
        return;
    };
    let (mut me, mut other) = (mount.actor(Some("me")), mount.actor(Some("other")));
    assert_eq!(me.open("claims/x", O_WRONLY | O_CREAT | O_EXCL), Err(EPERM));
    assert_eq!(me.mkdir("claims/x"), Err(EPERM));
    assert_eq!(me.open("queue/x", O_RDONLY), Err(EPERM));
    assert_eq!(me.open("sessions/me", O_WRONLY | O_CREAT), Err(EPERM));
    let said = mount.read("self");
    assert!(
        said.contains("cannot see your process") && said.contains("> control"),
        "{said}"
    );

    let line = "{\"claim\":\"x\",\"session\":\"box1\",\"seconds\":1}\n";
    control(&mut me, line).unwrap();
    let start = Instant::now();
    let record = mount.record("x").unwrap();
    assert_eq!(
        (record["session"].as_str(), record["ttl"].as_u64()),
        (Some("box1"), Some(1))
    );
    assert_eq!(
        mount
            .read("sessions/box1")
            .matches("\"rule\":\"named\"")
            .count(),
        1
    );
    control(&mut me, line).unwrap();
    assert_eq!(mount.record("x").unwrap()["token"], record["token"]);
    let others = "{\"claim\":\"x\",\"session\":\"box2\",\"seconds\":60}";
    assert_eq!(control(&mut other, others), Err(EBUSY));
    assert_eq!(me.unlink("claims/x"), Err(EPERM));
    for (bad, errno) in [
        ("{\"claim\":\"x\",\"session\":\"box1\"}", EINVAL),
        ("{\"claim\":\"x\",\"seconds\":1}", EINVAL),
        ("{\"claim\":\"x\",\"session\":\"\",\"seconds\":1}", EINVAL),
        (
            "{\"claim\":\"../x\",\"session\":\"box1\",\"seconds\":1}",
            EINVAL,
        ),
        (
            "{\"claim\":\"x\",\"session\":\"box1\",\"seconds\":0}",
            EINVAL,
        ),
        (
            "{\"claim\":\"x\",\"session\":\"box1\",\"seconds\":-1}",
            EINVAL,
        ),
        ("{\"release\":\"nothing\",\"session\":\"box1\"}", ENOENT),
        ("{\"release\":\"x\",\"session\":\"box2\"}", EBUSY),
    ] {
        assert_eq!(control(&mut me, bad), Err(errno), "{bad}");
    }
    assert!(mount.record("x").is_some());
    wait_until("it lapses by itself", || mount.record("x").is_none());
    assert!(start.elapsed() >= Duration::from_secs(1));
    control(&mut other, others).unwrap();
    control(&mut other, "{\"release\":\"x\",\"session\":\"box2\"}").unwrap();
    assert!(mount.record("x").is_none());

    // By the command; and the session outlives the server.
    let claimfs = |arguments: &[&str]| text(&mount.claimfs(arguments).output().unwrap());
    let claimed = claimfs(&["claim", "y", "--session", "box1", "--ttl", "60s"]);
    assert_eq!((claimed.0, claimed.2.as_str()), (0, ""));
    assert!(
        claimed
            .1
            .starts_with("claims/y: taken by session box1, token "),
        "{}",
        claimed.1
    );
    let (code, _, err) = claimfs(&["claim", "y", "--session", "box2", "--ttl", "60s"]);
    assert_eq!(
        (code, err.contains("held by session box1")),
        (1, true),
        "{err}"
    );
    let (code, _, err) = claimfs(&["claim", "y", "--session", "box1"]);
    assert_eq!((code, err.contains("--ttl")), (2, true), "{err}");
    let (code, _, err) = claimfs(&["claim", "z"]);
    assert_eq!(
        (code, err.contains("--session ID --ttl TIME")),
        (2, true),
        "{err}"
    );
    assert_eq!(claimfs(&["release", "y", "--session", "box2"]).0, 1);
    assert_eq!(claimfs(&["release", "y", "--session", "box1"]).0, 0);
    assert_eq!(claimfs(&["release", "y", "--session", "box1"]).0, 0);
    assert_eq!(mount.claims(), [""; 0]);
    drop((me, other));
    let mut umount = Program::new(CLAIMFS);
    assert!(
        umount
            .arg("umount")
            .arg(&mount.dir)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(mount.wait(), Some(0));
}

/// strace at the server of a mount, from when it is attached until the guard is dropped.
fn traced(mount: &Mount, trace: &Path, what: &str) -> Option<Guard> {
    let mut strace = Program::new("strace");
    strace
        .args(["-f", "-e", what, "-o"])
        .arg(trace)
        .args(["-p", &mount.pid().to_string()])
        .stderr(Stdio::piped());
    let Ok(child) = strace.spawn() else {
        skip("strace is not installed");
        return None;
    };
    let mut strace = Guard(child);
    let mut said = BufReader::new(strace.0.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("attached")));
    // It says so of each new thread, too, and would end if nobody could hear it.
    thread::spawn(move || said.for_each(drop));
    Some(strace)
}

#[test]
fn what_is_to_survive_the_loss_of_power_is_on_the_disk_before_it_is_answered() {
    let Some(mount) = Mount::new() else { return };
    let temp = TempDir::new();
    let trace = temp.path().join("trace");
    let Some(_strace) = traced(&mount, &trace, "trace=fdatasync,fsync") else {
        return;
    };
    let mut me = mount.actor(Some("me"));
    let syncs = || fs::read_to_string(&trace).unwrap().matches("sync(").count();
    me.claim("y").unwrap();
    let journal = || fs::metadata(mount.state.join("journal")).unwrap().ino();
    let before = journal();
    let fd = me.open("claims/y", O_WRONLY).unwrap();
    let body = "x".repeat(32 * 1024);
    wait_until("the journal is written anew", || {
        me.pwrite(fd, &body, 0).unwrap();
        journal() != before
    });
    let new = mount.state.join("journal.new");
    wait_until("that is over, and is not due again", || {
        let length = fs::metadata(mount.state.join("journal")).unwrap().len();
        let is_over = !new.exists() && length < 256 * 1024;
        if !is_over {
            me.pwrite(fd, "x", 0).unwrap();
        }
        is_over
    });
    assert_eq!(syncs(), 0, "what dies with the machine costs none");
    control(
        &mut me,
        "{\"claim\":\"x\",\"session\":\"box1\",\"seconds\":60}",
    )
    .unwrap();
    // With the place of the new journal.
    wait_until("strace has written", || syncs() == 2);
    // The renewal need not survive: the deadline starts again then.
    control(
        &mut me,
        "{\"claim\":\"x\",\"session\":\"box1\",\"seconds\":60}",
    )
    .unwrap();
    control(
        &mut me,
        "{\"claim\":\"x\",\"session\":\"box1\",\"seconds\":90}",
    )
    .unwrap();
    wait_until("strace has written", || syncs() == 3);
}

#[test]
fn nobody_waits_for_the_disk_but_who_asked_for_it() {
    let Some(mount) = Mount::new() else { return };
    let temp = TempDir::new();
    let slow = "inject=fdatasync:delay_enter=2000000";
    let Some(_strace) = traced(&mount, &temp.path().join("trace"), slow) else {
        return;
    };
    let (mut me, mut other) = (mount.actor(Some("me")), mount.actor(Some("other")));
    let waits = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            let line = "{\"claim\":\"x\",\"session\":\"box1\",\"seconds\":60}";
            control(&mut me, line).unwrap();
            waits.store(false, SeqCst);
        });
        wait_until("it is held", || mount.path("claims/x").exists());
        other.claim("y").unwrap();
        other.unlink("claims/y").unwrap();
        assert_eq!(other.claim("x"), Err(EEXIST));
        assert!(
            waits.load(SeqCst),
            "the others were served, and it still waits"
        );
    });
}

#[test]
fn any_caller_may_and_what_it_holds_outlives_processes_and_servers() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    control(
        &mut me,
        "{\"claim\":\"x\",\"session\":\"cooldown\",\"seconds\":3600}\n",
    )
    .unwrap();
    drop(me);
    mount.kill_server();
    let record = mount.record("x").unwrap();
    assert_eq!(
        (record["session"].as_str(), record["pid"].as_u64()),
        (Some("cooldown"), Some(0))
    );
    let mut other = mount.actor(Some("other"));
    assert_eq!(other.unlink("claims/x"), Err(EBUSY));
    // Its own user takes it away.
    assert_eq!(other.unlink("sessions/cooldown"), Err(EBUSY));
    mount.end_session("cooldown");
    other.claim("x").unwrap();
}
