//! A mount that outlives its servers: to its clients the death of one is a stall, and so is an
//! upgrade.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use claimfs::core::What;
use libc::{EBUSY, EEXIST, ENOTCONN, O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_WRONLY};
use serde_json::{Value, json};

use super::journal::entries;
use crate::support::{CLAIMFS, Guard, Mount, TempDir, is_over, names, text, unmount, wait_until};

/// Whatever is asked of it now is answered by another server.
fn replaced(mount: &Mount, replace: impl FnOnce(&Mount)) {
    let begun = || mount.log().matches("another server takes over").count();
    let before = begun();
    replace(mount);
    wait_until("another server is there", || begun() > before);
}

fn killed(mount: &Mount) {
    replaced(mount, Mount::kill_server);
}

#[test]
fn whoever_holds_something_notices_nothing() {
    let Some(mount) = Mount::new() else { return };
    let (mut me, mut other) = (mount.actor(Some("me")), mount.actor(Some("other")));
    let fd = me
        .open("claims/x", O_RDWR | O_CREAT | O_EXCL | O_APPEND)
        .unwrap();
    me.write(fd, "one\n").unwrap();
    me.link("claims/x", "claims/y").unwrap();
    me.mkdir("claims/d").unwrap();
    let inside = me.open("claims/d/f", O_RDWR | O_CREAT).unwrap();
    me.claim("blank").unwrap();
    let (record, stat) = (mount.record("x").unwrap(), me.fstat(fd).unwrap());
    let line = mount.read("claims/blank");

    killed(&mount);
    assert_eq!(other.claim("x"), Err(EEXIST));
    assert_eq!(other.unlink("claims/x"), Err(EBUSY));
    assert_eq!(mount.record("x").unwrap(), record);
    assert_eq!(me.fstat(fd).unwrap(), stat);
    me.write(fd, "two\n").unwrap();
    assert_eq!(me.pread(fd, 99, 0).unwrap(), "one\ntwo\n");
    assert_eq!(mount.read("claims/blank"), line);
    me.write(inside, "inside").unwrap();
    assert_eq!(mount.read("claims/d/f"), "inside");
    killed(&mount);
    me.unlink("claims/x").unwrap();
    assert_eq!(mount.read("claims/y"), "one\ntwo\n");
    // And a death that nobody asks about is seen all the same.
    drop(me);
    wait_until("the reap is told", || {
        mount.log().contains("reaped claims/y")
    });
    other.claim("y").unwrap();
    assert!(mount.record("y").unwrap()["token"].as_u64() > record["token"].as_u64());
}

#[test]
fn what_is_open_without_a_name_lives_as_long_as_it_is_open() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    let open = |me: &mut crate::support::Actor, name: &str| {
        let fd = me
            .open(&format!("claims/{name}"), O_RDWR | O_CREAT | O_EXCL)
            .unwrap();
        me.write(fd, name).unwrap();
        fd
    };
    let (before, after) = (open(&mut me, "before"), open(&mut me, "after"));
    me.unlink("claims/before").unwrap();
    killed(&mount);
    me.unlink("claims/after").unwrap();
    // A second descriptor, which this server knows of, is closed: the first, which it does not,
    // stays.
    let twice = open(&mut me, "twice");
    killed(&mount);
    let again = me.open("claims/twice", O_RDWR).unwrap();
    me.unlink("claims/twice").unwrap();
    me.close(again).unwrap();
    for (fd, body) in [(before, "before"), (after, "after"), (twice, "twice")] {
        assert_eq!(me.pread(fd, 99, 0).unwrap(), body);
        me.write(fd, "!").unwrap();
        assert_eq!(me.pread(fd, 99, 0).unwrap(), format!("{body}!"));
        me.close(fd).unwrap();
    }
    // Nothing of it is left to the next server: it is in the journal that they are gone.
    let forgotten = || {
        let entries = entries(&fs::read(mount.state.join("journal")).unwrap());
        let events = entries.iter().flat_map(|entry| &entry.events);
        let forgotten = |what: &What| matches!(what, What::Forgotten { .. });
        events.filter(|event| forgotten(&event.what)).count()
    };
    wait_until("they are forgotten", || forgotten() >= 3);
}

#[test]
fn waiters_keep_their_places() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.actor(Some("holder"));
    holder.claim("x").unwrap();
    let mut waiters: Vec<_> = (0..4)
        .map(|n| mount.actor(Some(&format!("w{n}"))))
        .collect();
    let mut fds = Vec::new();
    for waiter in &mut waiters {
        fds.push(waiter.open("queue/x", O_RDONLY).unwrap());
    }
    let line = mount.read("waiters");
    assert_eq!(line.lines().count(), 4);
    // The first blocks in read(2), the second in poll(2), the third does nothing yet, the fourth
    // goes away.
    waiters[0].send("read", json!({"fd": fds[0], "size": 4096}));
    waiters[1].send("poll", json!({"fd": fds[1], "timeout": 20_000}));
    killed(&mount);
    assert_eq!(mount.read("waiters"), line);
    waiters[3].close(fds[3]).unwrap();
    wait_until("it has left", || mount.read("waiters").lines().count() == 3);
    killed(&mount);
    holder.unlink("claims/x").unwrap();
    let mut said = waiters[0].receive().unwrap();
    while said != "" {
        said = waiters[0]
            .call("read", json!({"fd": fds[0], "size": 4096}))
            .unwrap();
    }
    assert_eq!(mount.record("x").unwrap()["session"], "w0");
    // Granted, and told before this server: the end stays the end.
    killed(&mount);
    assert_eq!(waiters[0].read(fds[0]).unwrap(), "");
    waiters[0].unlink("claims/x").unwrap();
    assert_eq!(waiters[1].receive().unwrap(), 1);
    // Granted, and not told before this server.
    killed(&mount);
    while !waiters[1].read(fds[1]).unwrap().is_empty() {}
    assert_eq!(mount.record("x").unwrap()["session"], "w1");
    waiters[1].kill();
    while !waiters[2].read(fds[2]).unwrap().is_empty() {}
    assert_eq!(mount.record("x").unwrap()["session"], "w2");
    assert_eq!(mount.read("waiters"), "");
}

#[test]
fn readers_of_events_miss_nothing_and_get_nothing_twice() {
    let Some(mount) = Mount::new() else { return };
    let (mut me, mut reader) = (mount.actor(Some("me")), mount.actor(Some("reader")));
    let (lines, letters) = (
        reader.open("events", O_RDONLY).unwrap(),
        reader.open("events", O_RDONLY).unwrap(),
    );
    let mut count = 0;
    let (mut by_lines, mut by_letters) = (String::new(), String::new());
    for round in 0..20 {
        for _ in 0..3 {
            count += 1;
            me.claim(&format!("é{count}")).unwrap();
        }
        if round % 2 == 0 {
            killed(&mount);
        }
        by_lines += &reader.read(lines).unwrap();
        // The end of a line, and then the middle of one, and of a letter.
        for _ in 0..round % 5 {
            let bytes = reader
                .call("read", json!({"fd": letters, "size": 7}))
                .unwrap();
            by_letters += bytes.as_str().unwrap();
        }
        if round % 3 == 0 {
            killed(&mount);
        }
    }
    let last = format!("é{count}");
    while !by_letters.contains(&last) || !by_letters.ends_with('\n') {
        by_letters += &reader.read(letters).unwrap();
    }
    while !by_lines.contains(&last) {
        by_lines += &reader.read(lines).unwrap();
    }
    let claimed: Vec<String> = by_lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["event"] == "claimed")
        .map(|event| event["claim"].as_str().unwrap().to_owned())
        .collect();
    let all: Vec<String> = (1..=count).map(|number| format!("é{number}")).collect();
    assert_eq!(claimed, all);
    // The actor says what is not whole with another letter; what is whole is the same.
    let whole = |text: &str| {
        let lines = text.lines().filter(|line| !line.contains('\u{fffd}'));
        lines.map(String::from).collect::<Vec<_>>()
    };
    let every = whole(&by_lines);
    let kept = whole(&by_letters);
    assert!(kept.len() > 40 && by_letters.lines().count() == every.len());
    assert!(kept.iter().all(|line| every.contains(line)), "{kept:?}");
    // One that waits, in either way, is woken.
    reader.send("poll", json!({"fd": letters, "timeout": 20_000}));
    killed(&mount);
    me.claim("more").unwrap();
    assert_eq!(reader.receive().unwrap(), 1);
    assert!(reader.read(letters).unwrap().contains("\"more\""));
}

#[test]
fn readers_of_events_are_told_of_those_who_died_while_there_was_no_server() {
    let Some(mount) = Mount::new() else { return };
    let mut reader = mount.actor(Some("reader"));
    let fd = reader.open("events", O_RDONLY).unwrap();
    let (mut holder, mut waiter) = (mount.actor(Some("holder")), mount.actor(Some("waiter")));
    holder.claim("x").unwrap();
    waiter.open("queue/x", O_RDONLY).unwrap();
    let (supervisor, server) = (mount.supervisor() as i32, mount.pid());
    unsafe { libc::kill(supervisor, libc::SIGSTOP) };
    unsafe { libc::kill(server as i32, libc::SIGKILL) };
    wait_until("the server is gone", || is_over(server));
    holder.kill();
    unsafe { libc::kill(supervisor, libc::SIGCONT) };
    let mut said = String::new();
    while !said.contains("\"granted\"") {
        said += &reader.read(fd).unwrap();
    }
    let words: Vec<String> = said
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["event"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .filter(|word| word != "session_started")
        .collect();
    assert_eq!(
        words,
        [
            "claimed",
            "queued",
            "session_ended",
            "reaped",
            "claimed",
            "granted"
        ]
    );
}

#[test]
fn a_session_that_is_being_registered_is_registered() {
    let Some(mount) = Mount::new() else { return };
    let (mut me, mut other) = (mount.actor(None), mount.actor(None));
    let fd = me.open("sessions/w1", O_WRONLY | O_CREAT | O_EXCL).unwrap();
    let blank = other.open("sessions/w2", O_WRONLY | O_CREAT).unwrap();
    killed(&mount);
    me.write(fd, &me.pid().to_string()).unwrap();
    me.close(fd).unwrap();
    other.close(blank).unwrap();
    let registered = ["w1", "w2"];
    wait_until("both are", || {
        let there = names(&mount.path("sessions"));
        registered
            .iter()
            .all(|id| there.iter().any(|name| name == id))
    });
    me.claim("x").unwrap();
    assert_eq!(mount.record("x").unwrap()["session"], "w1");
}

#[test]
fn one_that_is_killed_while_nobody_asks_anything_is_replaced_however_often() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    me.claim("x").unwrap();
    for _ in 0..12 {
        killed(&mount);
    }
    assert_eq!(mount.record("x").unwrap()["session"], "me");
    let held = |pid: u32| names(Path::new(&format!("/proc/{pid}/fd"))).len();
    let before = held(mount.supervisor());
    killed(&mount);
    wait_until("its descriptors are back", || {
        held(mount.supervisor()) <= before
    });
}

#[test]
fn a_mount_that_no_server_can_serve_is_given_up() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let mut me = mount.actor(Some("me"));
    for name in ["x", "y", "z"] {
        me.claim(name).unwrap();
    }
    let journal = mount.state.join("journal");
    let mut bytes = fs::read(&journal).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4].copy_from_slice(b"oops");
    fs::write(&journal, bytes).unwrap();
    let start = Instant::now();
    assert_eq!(unsafe { libc::kill(mount.pid() as i32, libc::SIGKILL) }, 0);
    assert_eq!(mount.wait(), Some(3));
    assert!(start.elapsed() < Duration::from_secs(5));
    let log = mount.log();
    for part in [
        "servers ended within 10 s without answering a request",
        "the mount is taken away",
        "corrupt at byte",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(!mount.path("claims").exists());
    // A person must decide about the rest; until then no call is answered.
    let output = mount
        .claimfs(&["mount", "--repair", "--state-dir"])
        .arg(&mount.state)
        .arg(&mount.dir)
        .current_dir("/")
        .output()
        .unwrap();
    let (code, _, err) = text(&output);
    assert_eq!((code, err.contains("bytes are lost")), (0, true), "{err}");
    let supervisor: i32 = fs::read_to_string(mount.state.join("lock"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    unmount(&mount.dir);
    wait_until("it ends", || is_over(supervisor as u32));
}

#[test]
fn a_mount_whose_journal_went_with_its_server_stays_and_nobody_gets_what_may_be_held() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let mut holder = mount.actor(Some("me"));
    holder.claim("held").unwrap();
    // Stopped, it cannot write the directory again.
    let server = mount.pid() as i32;
    unsafe { libc::kill(server, libc::SIGSTOP) };
    fs::remove_dir_all(&mount.state).unwrap();
    unsafe { libc::kill(server, libc::SIGKILL) };
    assert_eq!(mount.wait(), Some(3));
    let log = mount.log();
    assert!(
        log.contains("so that nobody gets a name that may be held"),
        "{log}"
    );
    let claimfs = |words: &[&str]| {
        let mut command = Command::new(CLAIMFS);
        crate::support::plain(&mut command);
        command.args(words).arg(&mount.dir).current_dir("/");
        let (code, out, err) = text(&command.output().unwrap());
        (code, out + &err)
    };
    let state = mount.state.to_str().unwrap();
    for (words, says) in [
        (
            &["mount", "--state-dir", state][..],
            "the journal of the dead mount here is missing",
        ),
        (&["umount"], "whoever claimed here may be alive"),
        (&["doctor"], "its journal is missing"),
    ] {
        let (code, said) = claimfs(words);
        assert!(
            code == 3 && said.contains(says) && said.contains("--repair"),
            "{words:?}: {said}"
        );
    }
    let (code, said) = claimfs(&["mount", "--repair", "--state-dir", state]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(mount.claims(), [""; 0]);
    assert_eq!(claimfs(&["umount"]).0, 0);
}

#[test]
fn a_kernel_that_sends_nothing_again_gets_another_mount() {
    let Some(mut mount) = Mount::with(&["--without-resend"]) else {
        return;
    };
    let (mut me, mut other) = (mount.actor(Some("me")), mount.actor(Some("other")));
    let fd = me.open("claims/x", O_RDWR | O_CREAT | O_EXCL).unwrap();
    other.open("queue/x", O_RDONLY).unwrap();
    mount.kill_server();
    wait_until("it is mounted again", || mount.path("claims").is_dir());
    assert_eq!(me.pread(fd, 9, 0), Err(ENOTCONN));
    assert_eq!(mount.record("x").unwrap()["session"], "me");
    assert_eq!(mount.read("waiters"), "", "their descriptors are gone");
    assert!(
        mount
            .log()
            .contains("does not send again what the server had not answered")
    );
    assert_eq!(mount.stop(), Some(0));
}

#[test]
fn without_its_keeper_a_server_goes_on_and_mounting_again_brings_all_back() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let mut me = mount.actor(Some("me"));
    me.claim("x").unwrap();
    let server = mount.pid();
    mount.kill_supervisor();
    wait_until("it says so", || {
        mount
            .log()
            .contains("the supervisor of this mount has died")
    });
    assert_eq!(mount.record("x").unwrap()["session"], "me");
    me.claim("y").unwrap();
    let (code, _, err) = text(
        &mount
            .claimfs(&["upgrade"])
            .arg(&mount.dir)
            .output()
            .unwrap(),
    );
    assert_eq!(
        (code, err.contains("has died; 'claimfs mount")),
        (3, true),
        "{err}"
    );
    mount.start(&[]);
    wait_until("the one from before is gone", || is_over(server));
    assert_eq!(mount.claims(), ["x", "y"]);
    let mut other = mount.actor(Some("other"));
    assert_eq!(other.claim("x"), Err(EEXIST));
    killed(&mount);
    me.kill();
    other.claim("x").unwrap();
}

#[test]
fn a_signal_that_comes_while_a_server_begins_is_not_lost() {
    for _ in 0..10 {
        let Some(mut mount) = Mount::new() else {
            return;
        };
        let server = mount.pid();
        unsafe { libc::kill(server as i32, libc::SIGKILL) };
        assert_eq!(mount.stop(), Some(0));
        assert!(!mount.path("claims").exists());
    }
}

/// Copies a program in another process: whatever this one starts meanwhile would have the copy open
/// for writing.
fn copy(from: &Path, to: &Path) {
    assert!(
        Command::new("cp")
            .arg(from)
            .arg(to)
            .status()
            .unwrap()
            .success()
    );
}

/// A mount of a program of its own, which can be replaced.
fn with_own_program(temp: &TempDir) -> Option<Mount> {
    let mut mount = Mount::unmounted()?;
    mount.program = temp.path().join("claimfs");
    copy(Path::new(CLAIMFS), &mount.program);
    mount.start(&[]);
    Some(mount)
}

fn upgrade(mount: &Mount) -> (i32, String, String) {
    text(
        &mount
            .claimfs(&["upgrade"])
            .arg(&mount.dir)
            .output()
            .unwrap(),
    )
}

/// Puts a program in the place of the one that is there, as an installer does.
fn install(mount: &Mount, program: &Path) {
    let new = mount.program.with_extension("new");
    copy(program, &new);
    fs::rename(&new, &mount.program).unwrap();
}

fn inode(path: impl AsRef<Path>) -> u64 {
    fs::metadata(path).unwrap().ino()
}

#[test]
fn an_upgrade_changes_the_program_and_nothing_else() {
    let temp = TempDir::new();
    let Some(mount) = with_own_program(&temp) else {
        return;
    };
    let (mut me, mut waiter) = (mount.actor(Some("me")), mount.actor(Some("waiter")));
    let fd = me.open("claims/x", O_RDWR | O_CREAT | O_EXCL).unwrap();
    let line = waiter.open("queue/x", O_RDONLY).unwrap();
    let record = mount.record("x").unwrap();
    waiter.send("read", json!({"fd": line, "size": 4096}));
    let before = inode(&mount.program);
    install(&mount, Path::new(CLAIMFS));
    let new = inode(&mount.program);
    assert_ne!(new, before);
    assert_eq!(upgrade(&mount), (0, String::new(), String::new()));
    assert_eq!(inode(format!("/proc/{}/exe", mount.pid())), new);
    assert_eq!(mount.record("x").unwrap(), record);
    me.write(fd, "body").unwrap();
    // After a crash it is the new one that is started, whatever has become of its file.
    fs::remove_file(&mount.program).unwrap();
    fs::write(&mount.program, "half").unwrap();
    killed(&mount);
    assert_eq!(inode(format!("/proc/{}/exe", mount.pid())), new);
    assert_eq!(mount.read("claims/x"), "body");
    me.unlink("claims/x").unwrap();
    while waiter.receive().unwrap() != "" {
        waiter.send("read", json!({"fd": line, "size": 4096}));
    }
    assert_eq!(mount.record("x").unwrap()["session"], "waiter");
}

#[test]
fn nobody_notices_upgrades_while_they_work() {
    let temp = TempDir::new();
    let Some(mount) = with_own_program(&temp) else {
        return;
    };
    let workers: Vec<_> = (0..3)
        .map(|number| {
            let mut me = mount.actor(Some(&format!("w{number}")));
            std::thread::spawn(move || {
                let path = format!("claims/{number}");
                for _ in 0..400 {
                    let fd = me
                        .open(&path, O_RDWR | O_CREAT | O_EXCL | O_APPEND)
                        .unwrap();
                    me.write(fd, "a").unwrap();
                    me.write(fd, "b").unwrap();
                    assert_eq!(me.pread(fd, 9, 0).unwrap(), "ab");
                    me.close(fd).unwrap();
                    me.unlink(&path).unwrap();
                }
            })
        })
        .collect();
    let mut upgrades = 0;
    while workers.iter().any(|worker| !worker.is_finished()) {
        assert_eq!(upgrade(&mount), (0, String::new(), String::new()));
        upgrades += 1;
    }
    assert!(upgrades > 0);
    for worker in workers {
        worker.join().unwrap();
    }
    assert_eq!(mount.claims(), [""; 0]);
}

#[test]
fn a_program_that_cannot_serve_leaves_or_brings_back_the_one_from_before() {
    let temp = TempDir::new();
    let Some(mount) = with_own_program(&temp) else {
        return;
    };
    let mut me = mount.actor(Some("me"));
    me.claim("x").unwrap();
    let old = inode(format!("/proc/{}/exe", mount.pid()));
    let half = temp.path().join("half");
    let whole = fs::read(CLAIMFS).unwrap();
    fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    // It proves itself, and then it does not serve.
    let (source, liar) = (temp.path().join("liar.c"), temp.path().join("liar"));
    fs::write(
        &source,
        "#include <stdio.h>\n#include <string.h>\nint main(int n, char **v) {\n\
         if (n > 2 && !strcmp(v[2], \"--prove\")) { puts(\"proved\"); return 0; }\nreturn n > 2 ? CODE : 1; }\n",
    )
    .unwrap();
    let compiled = |code: &str| {
        let mut compiler = Command::new("cc");
        compiler
            .arg(format!("-DCODE={code}"))
            .arg("-o")
            .arg(&liar)
            .arg(&source);
        compiler.status().is_ok_and(|status| status.success())
    };
    for (program, why) in [
        (half.as_path(), "it cannot"),
        (
            Path::new("/bin/true"),
            "it does not say that it is a claimfs",
        ),
        (Path::new("/bin/false"), "it cannot take over"),
    ] {
        let server = mount.pid();
        install(&mount, program);
        let (code, _, err) = upgrade(&mount);
        assert_eq!(code, 3);
        assert!(err.contains(why), "{err}");
        assert!(
            err.trim_end().ends_with("the claimfs from before goes on"),
            "{err}"
        );
        assert_eq!(mount.pid(), server, "it was left in peace");
    }
    for code in ["7", "0"] {
        if !compiled(code) {
            crate::support::skip("there is no C compiler");
            continue;
        }
        install(&mount, &liar);
        let (code, _, err) = upgrade(&mount);
        assert_eq!((code, err.contains("goes on")), (3, true), "{err}");
        assert_eq!(mount.record("x").unwrap()["session"], "me");
        assert_eq!(inode(format!("/proc/{}/exe", mount.pid())), old);
    }
    install(&mount, Path::new(CLAIMFS));
    assert_eq!(upgrade(&mount).0, 0);
    assert_eq!(mount.record("x").unwrap()["session"], "me");
}

#[test]
fn keeper_and_server_killed_together_lose_nothing_that_was_acknowledged() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let mut me = mount.actor(Some("me"));
    let mut newest = 0;
    for round in 0..5 {
        for number in 0..20 {
            me.claim_at(&mount.path(&format!("claims/{round}-{number}")));
        }
        let token = mount.record(&format!("{round}-19")).unwrap()["token"].as_u64();
        assert!(token.unwrap() > newest);
        newest = token.unwrap();
        mount.kill();
        mount.start(&[]);
        assert_eq!(mount.claims().len(), 20 * (round + 1));
    }
    me.kill();
    let mut other = mount.actor(Some("other"));
    other.claim("0-0").unwrap();
    assert!(mount.record("0-0").unwrap()["token"].as_u64().unwrap() > newest);
}

#[test]
fn the_terminals_interrupt_ends_both() {
    let Some(mut mount) = Mount::unmounted() else {
        return;
    };
    let mut command = Command::new(CLAIMFS);
    command
        .args(["mount", "--foreground", "--state-dir"])
        .arg(&mount.state)
        .arg(&mount.dir)
        .stderr(std::process::Stdio::null());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut supervisor = Guard::spawn(&mut command);
    wait_until("it is mounted", || mount.path("claims").is_dir());
    unsafe { libc::kill(-(supervisor.0.id() as i32), libc::SIGINT) };
    assert!(supervisor.0.wait().unwrap().success());
    assert!(!mount.path("claims").exists());
    mount.wait();
}

#[test]
fn a_server_serves_under_a_supervisor_from_before() {
    if !crate::support::can_mount() {
        return;
    }
    let temp = TempDir::new();
    let (dir, state) = (temp.path().join("mount"), temp.path().join("state"));
    fs::create_dir(&dir).unwrap();
    fs::create_dir(&state).unwrap();
    let options = claimfs::supervisor::device::Options::default();
    let device = claimfs::supervisor::device::mount(&dir, &state, &options).unwrap();
    // The words as the first supervisors wrote them.
    let serve = |first: &[&str]| {
        let mut command = Command::new(CLAIMFS);
        command.arg("serve").args(first);
        command.arg("--state-dir").arg(&state);
        command.args(["--max-leases", "1048576", "--max-per-uid", "9"]);
        command.args(["--log-bytes", "65536", "--endings", "none"]);
        command.args(["--dotfiles", "--no-agents", "--agent", "name=a,mark=A"]);
        command.args(["--session-var", "ONE", "-o", "noexec,nosuid", "--"]);
        command.arg(&dir).env_remove("RUST_LOG");
        command.stdin(device.try_clone().unwrap());
        command.stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::null());
        command
    };
    let mut first = Guard::spawn(&mut serve(&["--connection", "1-2"]));
    let ready = first.line();
    let bits = ready.strip_prefix("ready ").unwrap().to_owned();
    assert!(bits.parse::<u64>().is_ok(), "{ready}");
    fs::File::create_new(dir.join("claims/x")).unwrap();
    assert_eq!([first.line(), first.line()], ["asked ", "answered "]);
    let leases = fs::read_to_string(dir.join("leases")).unwrap();
    assert!(leases.contains("\"name\":\"x\""), "{leases}");
    let proved = serve(&["--prove", "--connection", "1-2"]).output().unwrap();
    assert_eq!(text(&proved), (0, "proved\n".into(), String::new()));
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    let known = format!("--capabilities={bits}");
    let mut next = Guard::spawn(&mut serve(&["--connection", "1-2", &known]));
    assert_eq!(next.line(), ready);
    assert_eq!(fs::read_to_string(dir.join("leases")).unwrap(), leases);
    unsafe { libc::kill(next.0.id() as i32, libc::SIGTERM) };
    assert!(next.0.wait().unwrap().success());
    let elsewhere = serve(&["--connection", "3-4", &known]).output().unwrap();
    let (code, said, _) = text(&elsewhere);
    assert!(
        code == 3 && said.starts_with("unknown \nfailed "),
        "{code}: {said}"
    );
}

#[test]
fn a_claimfs_of_before_is_upgraded_and_brought_back_under_load() {
    const BEFORE: &str = "CLAIMFS_TEST_BEFORE";
    let Some(before) = std::env::var_os(BEFORE) else {
        println!("not asked for: {BEFORE} names no claimfs of before");
        return;
    };
    for (old, new) in [
        (before.as_os_str(), CLAIMFS.as_ref()),
        (CLAIMFS.as_ref(), before.as_os_str()),
    ] {
        let temp = TempDir::new();
        let Some(mut mount) = Mount::unmounted() else {
            return;
        };
        mount.program = temp.path().join("claimfs");
        copy(Path::new(old), &mount.program);
        mount.start(&["--dotfiles", "--session-var", "OTHER"]);
        let mut me = mount.actor(Some("me"));
        me.claim("held").unwrap();
        let record = mount.record("held").unwrap();
        let workers: Vec<_> = (0..2)
            .map(|number| {
                let mut me = mount.actor(Some(&format!("w{number}")));
                std::thread::spawn(move || {
                    let path = format!("claims/{number}");
                    for _ in 0..400 {
                        let fd = me.open(&path, O_RDWR | O_CREAT | O_EXCL).unwrap();
                        me.write(fd, "a").unwrap();
                        me.close(fd).unwrap();
                        me.unlink(&path).unwrap();
                    }
                })
            })
            .collect();
        let mut upgrades = 0;
        while upgrades < 4 || workers.iter().any(|worker| !worker.is_finished()) {
            // The new one first, then the one of before again.
            let program = [new, old][upgrades % 2];
            install(&mount, Path::new(program));
            assert_eq!(upgrade(&mount), (0, String::new(), String::new()));
            let installed = inode(&mount.program);
            assert_eq!(inode(format!("/proc/{}/exe", mount.pid())), installed);
            upgrades += 1;
        }
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!(mount.record("held").unwrap(), record);
        assert_eq!(mount.claims(), ["held"]);
        killed(&mount);
        assert_eq!(mount.record("held").unwrap(), record);
    }
}
