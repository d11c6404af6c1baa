//! `events`: every line from the opening on, in order, for any program that reads lines.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libc::{EAGAIN, EINTR, O_NONBLOCK, O_RDONLY, O_WRONLY};
use serde_json::{Value, json};

use crate::support::{Guard, Mount, wait_until};

/// The lines that there are by now.
fn lines(events: &mut File) -> Vec<Value> {
    let mut text = String::new();
    let mut buffer = vec![0; 65536];
    loop {
        match events.read(&mut buffer) {
            Ok(count) => text.push_str(std::str::from_utf8(&buffer[..count]).unwrap()),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(EAGAIN));
                let lines = text.lines();
                return lines
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect();
            }
        }
    }
}

fn open(mount: &Mount) -> File {
    let mut options = File::options();
    options.read(true).custom_flags(O_NONBLOCK);
    options.open(mount.path("events")).unwrap()
}

/// An event without what differs from one run to the next.
fn word(event: &Value) -> String {
    let get = |key: &str| {
        event
            .get(key)
            .map_or(String::new(), |value| format!(" {value}"))
    };
    let text = format!(
        "{}{}{}{}{}{}",
        get("event"),
        get("claim"),
        get("session"),
        get("token"),
        get("why"),
        get("from")
    );
    text.replace('"', "").trim().to_owned()
}

#[test]
fn each_thing_that_happens_is_a_line() {
    let Some(mount) = Mount::new() else { return };
    let mut events = open(&mount);
    let (mut me, mut other) = (mount.actor(Some("me")), mount.actor(Some("other")));
    me.claim("x").unwrap();
    other.claim("own").unwrap();
    let fd = other.open("queue/x", O_RDONLY).unwrap();
    me.unlink("claims/x").unwrap();
    while !other.read(fd).unwrap().is_empty() {}
    let control = |command: Value| fs::write(mount.path("control"), command.to_string()).unwrap();
    control(json!({"break": "x", "token": 3}));
    me.claim("y").unwrap();
    me.setxattr("claims/y", "user.claimfs.ttl", "20ms", 0)
        .unwrap();
    wait_until("y expires", || mount.record("y").is_none());
    me.claim("z").unwrap();
    let own = me.open("control", libc::O_WRONLY).unwrap();
    me.write(own, "{\"give\":\"z\",\"to\":\"other\"}").unwrap();
    me.rename("claims/z", "claims/w", 0).unwrap_err();
    other.rename("claims/z", "claims/w", 0).unwrap();
    other.mkdir("claims/d").unwrap();
    other.mkdir("claims/d/inside").unwrap();
    other.kill();
    me.kill();
    wait_until("all is told", || {
        mount.read("sessions/../leases").starts_with("{\"seq\":") && mount.claims().is_empty()
    });
    let mut told = Vec::new();
    wait_until("both sessions are over", || {
        told.extend(lines(&mut events));
        told.iter()
            .filter(|event| event["event"] == "session_ended")
            .count()
            == 2
            && told
                .iter()
                .filter(|event| event["event"] == "reaped")
                .count()
                == 3
    });
    let ended = told
        .iter()
        .position(|event| event["event"] == "session_ended")
        .unwrap();
    assert_eq!(
        told[..ended].iter().map(word).collect::<Vec<_>>(),
        [
            "session_started me",
            "claimed x me 1",
            "session_started other",
            "claimed own other 2",
            "queued x other",
            "released x me 1",
            "claimed x other 3",
            "granted x other 3",
            "broken x other 3",
            "claimed y me 4",
            "expired y me 4",
            "claimed z me 5",
            "handed z other 6 me",
            "claimed w other 7",
            "released z other 6",
            "claimed d other 8",
        ]
    );
    let mut rest: Vec<String> = told[ended..].iter().map(word).collect();
    rest.sort();
    assert_eq!(
        rest,
        [
            "reaped d other 8 session_died",
            "reaped own other 2 session_died",
            "reaped w other 7 session_died",
            "session_ended me died",
            "session_ended other died"
        ]
    );
    let seqs: Vec<u64> = told
        .iter()
        .map(|event| event["seq"].as_u64().unwrap())
        .collect();
    assert!(seqs.is_sorted_by(|a, b| a < b));
    for event in &told {
        assert!(event["at"].as_str().unwrap().ends_with('Z'));
    }
    // looop's claim_reaped {claim, session} is there to be read off.
    let reaped = told
        .iter()
        .find(|event| event["event"] == "reaped")
        .unwrap();
    assert!(reaped["claim"].is_string() && reaped["session"] == "other");
    let broken = told
        .iter()
        .find(|event| event["event"] == "broken")
        .unwrap();
    assert_eq!(broken["by"]["uid"], unsafe { libc::geteuid() });
}

#[test]
fn a_reader_waits_in_pieces_of_a_second() {
    let Some(mount) = Mount::new() else { return };
    let (mut me, mut other) = (mount.actor(Some("me")), mount.actor(Some("other")));
    let fd = me.open("events", O_RDONLY).unwrap();
    let start = Instant::now();
    assert_eq!(me.read(fd), Err(EINTR));
    assert!(start.elapsed() < Duration::from_millis(1500));
    assert!(!me.poll(fd, 0).unwrap());
    me.send("poll", json!({"fd": fd, "timeout": 20_000}));
    other.claim("x").unwrap();
    let start = Instant::now();
    assert_eq!(me.receive().unwrap(), 1);
    assert!(start.elapsed() < Duration::from_secs(1));
    // A byte at a time, as shells read: no line is lost or torn.
    let mut text = String::new();
    while !text.contains("claimed") || !text.ends_with('\n') {
        let byte = me.call("read", json!({"fd": fd, "size": 1})).unwrap();
        text.push_str(byte.as_str().unwrap());
    }
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines.iter().map(word).collect::<Vec<_>>(),
        ["session_started other", "claimed x other 1"]
    );
}

#[test]
fn what_reads_lines_reads_these_and_ends_when_it_is_told_to() {
    let Some(mount) = Mount::new() else { return };
    let readers = [
        "head -n 3 events",
        "grep -m 1 --line-buffered released events",
        "while read -r line; do case $line in *released*) echo \"$line\"; break;; esac; done < events",
        "python3 -u -c 'for line in open(\"events\"):\n    if \"released\" in line: print(line, end=\"\"); break'",
        "tail -n +1 -f events | grep -m 1 released",
        "cat events | grep -m 1 --line-buffered released",
        "dd if=events bs=4096 count=3 status=none",
        "busybox head -n 3 events",
    ];
    for reader in readers {
        let mut command = mount.sh(&format!("echo ready; {reader}"));
        let mut running = Guard::spawn(command.stdout(Stdio::piped()).stdin(Stdio::null()));
        assert_eq!(running.line(), "ready");
        let mut me = mount.actor(Some("me"));
        let start = Instant::now();
        // When it opens is its own affair: something happens until it has seen it.
        let mut lines = 0;
        while running.0.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(15), "{reader}");
            me.claim("x").unwrap();
            me.unlink("claims/x").unwrap();
            lines += 1;
        }
        assert!(lines > 0);
        let mut out = String::new();
        running
            .0
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut out)
            .unwrap();
        let released = out
            .lines()
            .filter(|line| line.contains("\"event\":\"released\""))
            .count();
        assert!(released >= 1, "{reader}: {out}");
    }
    for signal in ["INT", "TERM", "KILL"] {
        let start = Instant::now();
        mount.run(&format!("timeout -s {signal} 0.2 cat events; true"));
        assert!(start.elapsed() < Duration::from_millis(1900), "{signal}");
    }
}

#[test]
fn what_one_command_has_read_too_much_the_next_one_gets() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    me.claim("own").unwrap();
    let mut script = mount.sh("exec 3<events; echo open; read -r go; { head -n 1; grep -m 1 released; IFS= read -r line; echo \"$line\"; head -n 2; } <&3");
    let mut script = Guard::spawn(
        script
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()),
    );
    assert_eq!(script.line(), "open");
    for name in ["a", "b", "c"] {
        me.claim(name).unwrap();
        me.unlink(&format!("claims/{name}")).unwrap();
    }
    script.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let got: Vec<String> = (0..5)
        .map(|_| word(&serde_json::from_str(&script.line()).unwrap()))
        .collect();
    assert_eq!(
        got,
        [
            "claimed a me 2",
            "released a me 2",
            "claimed b me 3",
            "released b me 3",
            "claimed c me 4"
        ]
    );
}

#[test]
fn events_from_before_the_listing_and_the_listing_miss_nothing_together() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    me.claim("before").unwrap();
    let mut script = mount
        .sh("exec 3<events; echo open; read -r go; cat leases; echo end of leases; exec cat <&3");
    let mut script = Guard::spawn(script.stdin(Stdio::piped()).stdout(Stdio::piped()));
    assert_eq!(script.line(), "open");
    me.claim("between").unwrap();
    script.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let mut leases = vec![script.line()];
    while leases.last().unwrap() != "end of leases" {
        leases.push(script.line());
    }
    me.claim("after").unwrap();
    let first: Value = serde_json::from_str(&leases[0]).unwrap();
    let seen = first["seq"].as_u64().unwrap();
    let (mut known, mut stream) = (Vec::new(), Vec::new());
    while !stream.contains(&json!("after")) {
        let event: Value = serde_json::from_str(&script.line()).unwrap();
        let list = if event["seq"].as_u64().unwrap() <= seen {
            &mut known
        } else {
            &mut stream
        };
        list.push(event["claim"].clone());
    }
    assert_eq!(
        (known, stream),
        (vec![json!("between")], vec![json!("after")])
    );
    assert_eq!(leases.len(), 4);
}

#[test]
fn a_reader_that_lags_too_far_is_told_how_many_it_missed() {
    let Some(mount) = Mount::new() else { return };
    let mut events = open(&mount);
    let idle = open(&mount);
    // Two lines each: more than 65,536 in all.
    let pairs = 33_000;
    let script = "import os\nos.mkdir('claims/x')\nfor i in range(16500):\n    os.rename('claims/x', 'claims/y')\n    os.rename('claims/y', 'claims/x')";
    let mut python = Command::new("python3");
    python
        .args(["-c", script])
        .current_dir(&mount.dir)
        .env("CLAIMFS_SESSION", "me");
    assert!(python.status().unwrap().success());
    wait_until("its end is told", || {
        !mount.path("sessions/me").exists()
            && mount.read("metrics").contains("claimfs_reaps_total 1\n")
    });
    let told = lines(&mut events);
    let missed = told[0]["missed"].as_u64().unwrap();
    assert_eq!(
        missed as usize + told.len() - 1,
        2 * pairs + 4,
        "with the session's start and end, and one claim more"
    );
    assert_eq!(told.len() - 1, 65_536);
    assert!(
        told[1..]
            .iter()
            .map(|event| event["seq"].as_u64().unwrap())
            .is_sorted_by(|a, b| a < b)
    );
    drop(idle);
}

/// The journal keeps 4,096 lines when it is compacted.
#[test]
fn regression_who_lags_behind_a_compaction_and_reads_on_is_told_what_the_next_server_has_not() {
    let Some(mount) = Mount::new() else { return };
    let mut actor = mount.actor(Some("me"));
    actor.claim("first").unwrap();
    actor.claim("body").unwrap();
    let body = actor.open("claims/body", O_WRONLY).unwrap();
    let script = "import os
for i in range(10000):
    os.rename('claims/first', 'claims/x')
    os.rename('claims/x', 'claims/first')";
    let pairs = 20_000;
    for size in [4096, 65_536] {
        let mut events = open(&mount);
        let mut python = Command::new("python3");
        python.args(["-c", script]).current_dir(&mount.dir);
        assert!(
            python
                .env("CLAIMFS_SESSION", "me")
                .status()
                .unwrap()
                .success()
        );
        // What is written is no event that is told.
        let journal = || fs::metadata(mount.state.join("journal")).unwrap().ino();
        let before = journal();
        wait_until("the journal is compacted", || {
            actor.pwrite(body, &"x".repeat(60_000), 0).unwrap();
            journal() != before
        });
        let mut buffer = vec![0; size];
        let count = events.read(&mut buffer).unwrap();
        let text = std::str::from_utf8(&buffer[..count]).unwrap();
        let before = text.lines().count();
        mount.kill_server();
        actor.claim("between").unwrap();
        // The second server may have compacted the journal before it has answered anything.
        mount.kill_server();
        actor.claim("last").unwrap();
        let told = lines(&mut events);
        let missed: u64 = told.iter().filter_map(|line| line["missed"].as_u64()).sum();
        let whole = told.iter().filter(|line| line["missed"].is_null()).count();
        assert!(missed > 0, "it lagged, and the journal was compacted");
        assert_eq!(before + missed as usize + whole, 2 * pairs + 2);
        actor.unlink("claims/last").unwrap();
        actor.unlink("claims/between").unwrap();
    }
}

#[test]
fn a_hundred_readers_of_ten_thousand_claims_lose_no_line() {
    let Some(mount) = Mount::new() else { return };
    let ready = std::sync::Barrier::new(101);
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let file = File::open(mount.path("events")).unwrap();
                ready.wait();
                let (mut claimed, mut released, mut last) = (0, 0, 0);
                for line in BufReader::new(file).lines() {
                    // Two million lines are too many to be parsed in full.
                    let line = line.unwrap();
                    let rest = line.strip_prefix("{\"seq\":").unwrap();
                    let seq: u64 = rest.split(',').next().unwrap().parse().unwrap();
                    assert!(seq > last);
                    last = seq;
                    let is = |event: &str| line.contains(&format!("\"event\":\"{event}\""));
                    claimed += u32::from(is("claimed"));
                    released += u32::from(is("released"));
                    if is("session_ended") {
                        break;
                    }
                }
                assert_eq!((claimed, released), (10_000, 10_000));
            });
        }
        ready.wait();
        let script = "import os\nfor i in range(10000):\n    os.close(os.open('claims/x', os.O_CREAT | os.O_EXCL))\n    os.remove('claims/x')";
        let mut python = Command::new("python3");
        python
            .args(["-c", script])
            .current_dir(&mount.dir)
            .env("CLAIMFS_SESSION", "me");
        assert!(python.status().unwrap().success());
    });
}

#[test]
fn regression_the_listing_and_the_events_after_it_never_contradict() {
    let Some(mount) = Mount::new() else { return };
    let mut static_ones = mount.actor(Some("static"));
    for number in 0..500 {
        static_ones.claim(&format!("s{number}")).unwrap();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let script = "import os\nwhile not os.path.exists('claims/stop'):\n    os.close(os.open('claims/x', os.O_CREAT | os.O_EXCL))\n    os.remove('claims/x')";
            let mut python = Command::new("python3");
            python.args(["-c", script]).current_dir(&mount.dir).env("CLAIMFS_SESSION", "me");
            assert!(python.status().unwrap().success());
        });
        for _ in 0..60 {
            let mut events = open(&mount);
            let listing = mount.read("leases");
            let head: Value = serde_json::from_str(listing.lines().next().unwrap()).unwrap();
            let seen = head["seq"].as_u64().unwrap();
            let mut is_held = listing.contains("\"name\":\"x\"");
            for event in lines(&mut events) {
                if event["seq"].as_u64().unwrap() > seen && event["claim"] == "x" {
                    let takes = event["event"] == "claimed";
                    assert_ne!(is_held, takes, "{event}");
                    is_held = takes;
                }
            }
        }
        static_ones.claim("stop").unwrap();
    });
}
