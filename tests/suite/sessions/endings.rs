//! The ends of processes, as each source reports them: a pidfd, the proc connector of older
//! kernels, or nothing. `endings/ends.py` are the processes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{CLAIMFS, Guard, Mount, TempDir, plain, root_or_skip, text, wait_until};

const ENDS: &str = include_str!("endings/ends.py");

/// The names of the sources in `--endings`, and in `self`.
const SOURCES: [(&str, &str); 2] = [("pidfd", "pidfd"), ("connector", "proc connector")];

/// A mount whose server hears of the ends of processes in this way alone, if it can here.
fn mount(name: &str, source: &str) -> Option<Mount> {
    if name == "connector" && !root_or_skip("be told of all processes") {
        return None;
    }
    let mount = Mount::with(&["--endings", name])?;
    assert_eq!(source_of(&mount), source);
    Some(mount)
}

fn source_of(mount: &Mount) -> String {
    let own: Value = serde_json::from_str(&mount.run("head -n 9 self")).unwrap();
    own["status_from"].as_str().unwrap().to_owned()
}

/// A script in the mount, whose standard input and output are pipes. `$ENDS` is the program.
fn script(mount: &Mount, script: &str, words: &[&str], cores: &TempDir) -> Guard {
    let mut command = mount.sh(script);
    command.arg("script").args(words);
    command.env("ENDS", ENDS).env("CORES", cores.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    Guard::spawn(&mut command)
}

fn say(guard: &mut Guard, line: &str) {
    let stdin = guard.0.stdin.as_mut().unwrap();
    stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Asks, and hears the answer.
fn ask(guard: &mut Guard, line: &str) -> String {
    say(guard, line);
    guard.line()
}

/// The claims that pass on, with this exit code; the others are free.
const WAYS: [(&str, Option<u8>); 10] = [
    ("exit 0", Some(0)),
    ("exit 3", Some(3)),
    ("kill", None),
    // With the bit that says that there is a core.
    ("dump", None),
    ("pipe", Some(141)),
    // Another thread than the first runs another program, which ends.
    ("exec exit", Some(4)),
    ("exec kill", None),
    ("thread exit", Some(6)),
    // The first thread has gone, another ends the process.
    ("leader exit", Some(5)),
    ("leader kill", None),
];

#[test]
fn who_exits_passes_its_claim_and_who_is_killed_frees_it_as_each_source_says() {
    let cores = TempDir::new();
    for (name, source) in SOURCES {
        let Some(mount) = mount(name, source) else {
            return;
        };
        for (way, passes) in WAYS {
            let parent = "python3 -c \"$ENDS\" \"$1\" 2> /dev/null; echo over; read line";
            let mut parent = script(&mount, parent, &[way], &cores);
            assert_eq!(parent.line(), "over");
            let record = mount.record("x");
            let shown = record.map(|record| (record["pid"].clone(), record["from_exit"].clone()));
            let expected = passes.map(|code| (json!(parent.0.id()), json!(code)));
            assert_eq!(shown, expected, "{source}: {way}");
            drop(parent);
            assert_eq!(mount.claims(), [""; 0], "{source}: {way}");
        }
        assert!(
            mount
                .read("metrics")
                .contains("claimfs_status_overflows_total 0\n# HELP claimfs_refusals_total")
        );
        let line = format!("claimfs_status_source{{source=\"{source}\"}} 1\n");
        assert!(mount.read("metrics").contains(&line));
        let (_, out, _) = text(&mount.claimfs(&["doctor"]).arg(&mount.dir).output().unwrap());
        let known = if name == "pidfd" {
            "how a process ended is known from its pidfd"
        } else {
            "how a process ended is known from the proc connector"
        };
        assert!(out.contains(known), "{out}");
    }
}

#[test]
fn who_waits_for_a_process_does_not_matter() {
    let cores = TempDir::new();
    for (name, source) in SOURCES {
        let Some(mount) = mount(name, source) else {
            return;
        };
        for (way, passes) in [("exit 3", true), ("kill", false)] {
            let reaper = "exec python3 -c \"$ENDS\" orphan \"$1\"";
            let mut reaper = script(&mount, reaper, &[way], &cores);
            assert_eq!(reaper.line(), "reaped");
            let holder = mount.record("x").map(|record| record["pid"].clone());
            let expected = passes.then(|| json!(reaper.0.id()));
            assert_eq!(holder, expected, "{source}: {way}");
        }
    }
}

const HELD: &str = "Device or resource busy, File exists";
const FREE: &str = "No such file or directory, done";

/// A process that has ended and that its parent has not waited for, in a session whose first
/// process is the guard.
fn zombie(mount: &Mount, way: &str, cores: &TempDir) -> Guard {
    let first = "exec python3 -c \"$ENDS\" zombie \"$1\"";
    let mut first = script(mount, first, &[way], cores);
    assert_eq!(first.line(), "dead");
    first
}

#[test]
fn a_zombie_that_exited_is_stood_for_by_its_parent_and_one_that_was_killed_by_nobody() {
    let cores = TempDir::new();
    for (name, source) in SOURCES {
        let Some(mount) = mount(name, source) else {
            return;
        };
        for (way, passes) in [("exit 0", Some(0)), ("exit 3", Some(3)), ("kill", None)] {
            let mut first = zombie(&mount, way, &cores);
            if passes.is_none() {
                assert_eq!(ask(&mut first, "sibling"), FREE, "{source}: {way}");
                continue;
            }
            assert_eq!(ask(&mut first, "sibling"), HELD, "{source}: {way}");
            // Of 0, a pidfd says nothing before somebody has waited.
            if way != "exit 0" {
                assert_eq!(mount.record("x").unwrap()["from_exit"], json!(passes));
            }
            assert_eq!(ask(&mut first, "remove"), "done", "{source}: {way}");
            let mut first = zombie(&mount, way, &cores);
            assert_eq!(ask(&mut first, "reap"), "reaped");
            assert_eq!(mount.record("x").unwrap()["from_exit"], json!(passes));
            assert_eq!(ask(&mut first, "sibling"), HELD, "{source}: {way}");
        }
    }
}

const USER: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups";

/// A mount of another user, in a mount namespace of its own, in which everybody may open the device
/// and in which this was done besides.
fn of_another_user(besides: &str, source: &str) -> Option<Mount> {
    if !root_or_skip("be another user") {
        return None;
    }
    let mut mount = Mount::unmounted()?;
    let parent = mount.dir.parent().unwrap().to_owned();
    let program = parent.join("as-user");
    let words = format!(
        r#"#!/bin/sh
cd "${{0%/*}}" && exec unshare --mount sh -c '
    mknod -m 666 fuse c 10 229 && mount --bind fuse /dev/fuse && {besides} &&
    exec {USER} ./claimfs "$@"' sh "$@"
"#
    );
    fs::write(&program, words).unwrap();
    for path in [&program, &parent] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    chown(&parent, Some(65534), Some(65534)).unwrap();
    fs::copy(CLAIMFS, parent.join("claimfs")).unwrap();
    mount.program = program;
    mount.start(&["--endings", source]);
    Some(mount)
}

/// A command of its user there.
fn as_user(mount: &Mount, script: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--mount", "--target", &mount.supervisor().to_string()]);
    command
        .args(USER.split(' '))
        .args(["sh", "-c", script])
        .arg(&mount.dir);
    plain(&mut command);
    command.current_dir("/");
    command
}

#[test]
fn a_zombie_that_a_server_may_not_trace_is_stood_for_until_it_is_waited_for() {
    // It may not even see it, where /proc is mounted so.
    for besides in ["true", "mount -t proc -o hidepid=2 proc /proc"] {
        let Some(mount) = of_another_user(besides, "pidfd") else {
            return;
        };
        for way in ["exit 3", "kill"] {
            let script = "cd \"$0\" && exec python3 -c \"$ENDS\" zombie \"$1\"";
            let mut command = as_user(&mount, script);
            command.arg(way).env("ENDS", ENDS).env("HIDDEN", "1");
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut first = Guard::spawn(&mut command);
            assert_eq!(first.line(), "dead");
            assert_eq!(ask(&mut first, "sibling"), HELD, "{besides}: {way}");
            assert_eq!(ask(&mut first, "reap"), "reaped");
            let expected = if way == "kill" { FREE } else { HELD };
            assert_eq!(ask(&mut first, "sibling"), expected, "{besides}: {way}");
        }
    }
}

#[test]
fn a_server_that_may_not_listen_says_so() {
    let Some(mount) = of_another_user("true", "connector") else {
        return;
    };
    let doctor = "cd \"${0%/*}\" && ./claimfs doctor \"$0\"";
    let (_, out, _) = text(&as_user(&mount, doctor).output().unwrap());
    assert!(
        out.contains("how a process ended is not known") && out.contains("CAP_NET_ADMIN"),
        "{out}"
    );
}

#[test]
fn where_nothing_tells_all_of_a_terminal_holds_what_any_of_it_claims() {
    let Some(mount) = mount("none", "none") else {
        return;
    };
    let cores = TempDir::new();
    let own: Value = serde_json::from_str(&mount.run("head -n 9 self")).unwrap();
    assert_eq!(
        (&own["scope"], &own["ends_with"]),
        (&json!("session"), &json!("the session"))
    );
    assert!(
        own["why"]
            .as_str()
            .unwrap()
            .contains("does not say how a process ended")
    );
    for way in ["exit 3", "kill"] {
        let first = "python3 -c \"$ENDS\" \"$1\" 2> /dev/null; echo over; read line
            rm claims/x && echo done; read line";
        let mut first = script(&mount, first, &[way], &cores);
        assert_eq!(first.line(), "over");
        assert_eq!(mount.claims(), ["x"]);
        assert_eq!(mount.record("x").unwrap()["scope"], Value::Null);
        assert_eq!(ask(&mut first, ""), "done", "{way}");
    }
    let (_, out, _) = text(&mount.claimfs(&["doctor"]).arg(&mount.dir).output().unwrap());
    assert!(out.contains("how a process ended is not known"), "{out}");
}

/// Two children that claim x and y; the first is killed behind so many other ends that what is told
/// of them is lost.
const FLOOD: &str = r"
sh -c 'set -C; echo > claims/x; exec sleep 1000' & x=$!
sh -c 'set -C; echo > claims/y; exec sleep 1000' & y=$!
until [ -e claims/x ] && [ -e claims/y ]; do sleep 0.01; done
echo claimed; read line
i=0; while [ $i -lt 1000 ]; do /bin/true; i=$((i + 1)); done
kill -9 $x; wait $x
echo flooded; read line
kill -9 $y; wait $y
echo over; read line
";

#[test]
fn a_death_that_is_lost_in_a_flood_counts_as_an_exit_and_is_said() {
    if !root_or_skip("be told of all processes") {
        return;
    }
    let Some(mount) = Mount::with(&["--endings", "connector:524288"]) else {
        return;
    };
    let cores = TempDir::new();
    let mut first = script(&mount, FLOOD, &[], &cores);
    assert_eq!(first.line(), "claimed");
    let server = mount.pid() as i32;
    unsafe { libc::kill(server, libc::SIGSTOP) };
    let is_stopped = || {
        let stat = fs::read_to_string(format!("/proc/{server}/stat"));
        stat.is_ok_and(|stat| stat.contains(") T "))
    };
    wait_until("the server has stopped", is_stopped);
    let said = ask(&mut first, "");
    unsafe { libc::kill(server, libc::SIGCONT) };
    assert_eq!(said, "flooded");
    let record = mount.record("x").unwrap();
    assert_eq!(record["pid"], json!(first.0.id()), "{record}");
    assert_eq!(record["from_exit"], Value::Null, "{record}");
    let metrics = mount.read("metrics");
    assert!(
        !metrics.contains("claimfs_status_overflows_total 0\n"),
        "{metrics}"
    );
    let (code, out, _) = text(&mount.claimfs(&["doctor"]).arg(&mount.dir).output().unwrap());
    assert!(code == 0 && out.contains("counted as exited"), "{out}");
    // Of who was alive then it is told as ever, unless what else ends on this machine is a flood of
    // its own by then.
    let count = || {
        let metrics = mount.read("metrics");
        let mut lines = metrics.lines();
        let line = lines.find(|line| line.starts_with("claimfs_status_overflows_total "));
        line.unwrap().to_owned()
    };
    let before = count();
    assert_eq!(ask(&mut first, ""), "over");
    let claims = mount.claims();
    let is_told = count() == before && !mount.log().contains("has not said how process");
    assert_eq!(claims, if is_told { &["x"][..] } else { &["x", "y"] });
}
