//! inotify reports changes that no client made: names freed by reap, expiry, break and the end of a
//! session.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Guard, Mount, skip, wait_until};

/// inotifywait on `claims/`, once it watches: each of its lines is events and a name.
fn watch(mount: &Mount, events: &str) -> Option<Guard> {
    let mut command = Command::new("inotifywait");
    command.args(["-m", "--format", "%e %f", "-e", events, "claims"]);
    command
        .current_dir(&mount.dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if Command::new("inotifywait").arg("--help").output().is_err() {
        skip("inotifywait is not installed");
        return None;
    }
    let mut watcher = Guard::spawn(&mut command);
    let stderr = BufReader::new(watcher.0.stderr.take().unwrap());
    let ready = stderr
        .lines()
        .map(Result::unwrap)
        .any(|line| line == "Watches established.");
    assert!(ready);
    Some(watcher)
}

fn helper(mount: &Mount) -> Option<i32> {
    let children = crate::support::children(mount.pid());
    children
        .into_iter()
        .find(|pid| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).any(|word| word == b"notify")
        })
        .map(|pid| pid as i32)
}

#[test]
fn what_goes_by_itself_is_deleted_to_watchers() {
    let Some(mount) = Mount::new() else { return };
    let Some(mut watcher) = watch(&mount, "create,delete,moved_to") else {
        return;
    };
    let mut me = mount.actor(Some("me"));
    me.claim("x").unwrap();
    assert_eq!(watcher.line(), "CREATE x");
    me.unlink("claims/x").unwrap();
    assert_eq!(watcher.line(), "DELETE x");
    assert_eq!(helper(&mount), None, "callers do that themselves");

    me.mkdir("claims/d").unwrap();
    me.mkdir("claims/d/inside").unwrap();
    assert_eq!(watcher.line(), "CREATE,ISDIR d");
    me.kill();
    assert_eq!(watcher.line(), "DELETE,ISDIR d");

    let mut me = mount.actor(Some("me"));
    me.claim("t").unwrap();
    me.setxattr("claims/t", "user.claimfs.ttl", "20ms", 0)
        .unwrap();
    assert_eq!(
        (watcher.line(), watcher.line()),
        ("CREATE t".into(), "DELETE t".into())
    );

    me.claim("b").unwrap();
    let token = mount.record("b").unwrap()["token"].clone();
    fs::write(
        mount.path("control"),
        json!({"break": "b", "token": token}).to_string(),
    )
    .unwrap();
    assert_eq!(
        (watcher.line(), watcher.line()),
        ("CREATE b".into(), "DELETE b".into())
    );

    me.symlink("nowhere", "claims/s").unwrap();
    mount.end_session("me");
    assert_eq!(
        (watcher.line(), watcher.line()),
        ("CREATE s".into(), "DELETE s".into())
    );
    assert_eq!(mount.claims(), [""; 0]);
}

#[test]
fn what_is_held_again_by_then_stays() {
    let Some(mount) = Mount::new() else { return };
    let Some(mut watcher) = watch(&mount, "delete") else {
        return;
    };
    let mut heir = mount.actor(Some("heir"));
    for round in 0..20 {
        let mut dead = mount.actor(Some("dead"));
        dead.claim("x").unwrap();
        dead.kill();
        // At once, before or after the watchers are told.
        heir.claim("x").unwrap();
        let end = format!("end{round}");
        let mut marker = mount.actor(Some("marker"));
        marker.claim(&end).unwrap();
        marker.kill();
        while watcher.line() != format!("DELETE {end}") {}
        assert_eq!(mount.record("x").unwrap()["session"], "heir");
        heir.unlink("claims/x").unwrap();
    }
}

#[test]
fn many_that_go_at_once_are_all_told_and_hold_nobody_up() {
    let Some(mount) = Mount::new() else { return };
    let Some(mut watcher) = watch(&mount, "delete") else {
        return;
    };
    let (mut many, mut me) = (mount.actor(Some("many")), mount.actor(Some("me")));
    for number in 0..400 {
        many.claim(&number.to_string()).unwrap();
    }
    many.kill();
    // All are free at once, whatever watchers know.
    let start = Instant::now();
    for number in 0..400 {
        me.claim(&format!("new{number}")).unwrap();
        me.unlink(&format!("claims/new{number}")).unwrap();
    }
    let took = start.elapsed();
    let mut left: Vec<String> = (0..400).map(|number| format!("DELETE {number}")).collect();
    while !left.is_empty() {
        let line = watcher.line();
        left.retain(|there| *there != line);
    }
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_helper_that_dies_is_started_again_and_one_that_stops_harms_nobody() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let Some(mut watcher) = watch(&mount, "delete") else {
        return;
    };
    let dies = |mount: &Mount, name: &str| {
        let mut actor = mount.actor(Some(name));
        actor.claim(name).unwrap();
        actor.kill();
    };
    dies(&mount, "a");
    assert_eq!(watcher.line(), "DELETE a");
    let first = helper(&mount).unwrap();
    unsafe { libc::kill(first, libc::SIGKILL) };
    let mut number = 0;
    wait_until("another helper is started", || {
        number += 1;
        dies(&mount, &format!("b{number}"));
        helper(&mount).is_some_and(|pid| pid != first)
    });
    dies(&mount, "c");
    while watcher.line() != "DELETE c" {}

    let second = helper(&mount).unwrap();
    unsafe { libc::kill(second, libc::SIGSTOP) };
    for number in 0..20 {
        dies(&mount, &format!("d{number}"));
    }
    let mut me = mount.actor(Some("me"));
    me.claim("d0").unwrap();
    assert_eq!(mount.claims(), ["d0"]);
    unsafe { libc::kill(second, libc::SIGCONT) };
    while watcher.line() != "DELETE d19" {}
    drop((watcher, me));
    mount.stop();
    let gone = || unsafe { libc::kill(second, 0) } != 0;
    wait_until("it ends with the server", gone);
}

#[test]
fn a_server_that_is_killed_meanwhile_leaves_nothing_wedged() {
    for _ in 0..5 {
        let Some(mut mount) = Mount::new() else {
            return;
        };
        let Some(watcher) = watch(&mount, "delete") else {
            return;
        };
        let mut many = mount.actor(Some("many"));
        for number in 0..100 {
            many.claim(&number.to_string()).unwrap();
        }
        many.kill();
        wait_until("the helper is there", || helper(&mount).is_some());
        let helper = helper(&mount).unwrap();
        mount.kill();
        wait_until("it ends", || unsafe { libc::kill(helper, 0) } != 0);
        drop(watcher);
    }
}

#[test]
fn regression_the_helper_touches_nothing_but_the_mount() {
    if !crate::support::root_or_skip("detach a mount that is in use") {
        return;
    }
    let Some(mut mount) = Mount::new() else {
        return;
    };
    // The directory below the mount has entries with the names of claims.
    mount.stop();
    fs::create_dir(mount.path("claims")).unwrap();
    for name in ["a", "b"] {
        fs::write(mount.path("claims").join(name), "precious").unwrap();
    }
    mount.start(&["-o", "nonempty"]);
    let mut actor = mount.actor(Some("w"));
    for name in ["a", "b"] {
        actor.claim(name).unwrap();
    }
    let mut other = mount.actor(Some("other"));
    other.claim("own").unwrap();
    // Detached, it is served on for those who are in it.
    assert!(
        Command::new("umount")
            .arg("-l")
            .arg(&mount.dir)
            .status()
            .unwrap()
            .success()
    );
    actor.kill();
    wait_until("what it held is reaped", || {
        let log = mount.log();
        ["a", "b"]
            .iter()
            .all(|name| log.contains(&format!("reaped claims/{name}: ")))
    });
    wait_until("the helper had its order", || {
        mount.log().contains("no longer of the mount")
    });
    for name in ["a", "b"] {
        assert_eq!(
            fs::read_to_string(mount.path("claims").join(name)).unwrap(),
            "precious"
        );
    }
    fs::remove_dir_all(mount.path("claims")).unwrap();
}

#[test]
fn regression_a_signal_unmounts_although_the_helper_is_at_work() {
    for _ in 0..5 {
        let Some(mut mount) = Mount::new() else {
            return;
        };
        let mut many = mount.actor(Some("many"));
        for number in 0..300 {
            many.claim(&number.to_string()).unwrap();
        }
        many.kill();
        wait_until("the helper is there", || helper(&mount).is_some());
        assert_eq!(mount.stop(), Some(0));
        assert!(!mount.log().contains("is in use"), "{}", mount.log());
    }
}

#[test]
fn regression_umount_is_not_kept_from_it_by_the_helper() {
    for _ in 0..5 {
        let Some(mount) = Mount::new() else { return };
        let mut many = mount.actor(Some("many"));
        for number in 0..500 {
            many.claim(&number.to_string()).unwrap();
        }
        many.kill();
        wait_until("the helper is there", || helper(&mount).is_some());
        let mut umount = Command::new(crate::support::CLAIMFS);
        let output = umount.arg("umount").arg(&mount.dir).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
