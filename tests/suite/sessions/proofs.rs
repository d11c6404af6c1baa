//! No name and no number proves an identity: neither the name or the environment that a process
//! gives itself, nor a pid or session number that another process had before.

use std::process::{Command, Stdio};
use std::{env, fs};

use libc::{EBUSY, EEXIST};

use crate::support::{
    Guard, Mount, TempDir, UNCACHED, can_mount, compiled, plain, root_or_skip, text, wait_until,
};

#[test]
fn a_number_that_another_gets_brings_no_identity_with_it() {
    if !root_or_skip("choose the number of a process") {
        return;
    }
    let Some(mount) = Mount::new() else { return };
    let temp = TempDir::new();
    let program = compiled(&temp, "proofs/number.c");
    let busy = format!("{EBUSY} {EEXIST}\n");
    for _ in 0..20 {
        let mut command = Command::new(&program);
        plain(command.arg(&mount.dir).arg("set"));
        assert_eq!(
            text(&command.output().unwrap()),
            (0, busy.clone(), String::new())
        );
    }
    // Where the numbers go round by themselves: a pid namespace may have few (Linux 6.14 on).
    let few = "set -e; echo 400 > /proc/sys/kernel/pid_max; exec \"$0\" \"$1\" round";
    let small = |script: &str| {
        let mut command = Command::new("unshare");
        command.args([
            "--pid",
            "--mount-proc",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            script,
        ]);
        plain(command.arg(&program).arg(&mount.dir));
        command.output().unwrap()
    };
    let host = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    let is_own = small("echo 400 > /proc/sys/kernel/pid_max; cat /proc/sys/kernel/pid_max");
    if fs::read_to_string("/proc/sys/kernel/pid_max").unwrap() != host {
        fs::write("/proc/sys/kernel/pid_max", host).unwrap();
        return;
    }
    assert_eq!(text(&is_own).1, "400\n");
    for _ in 0..5 {
        assert_eq!(text(&small(few)), (0, busy.clone(), String::new()));
    }
}

#[test]
fn what_a_script_is_called_takes_nothing_from_it() {
    let Some(mount) = Mount::new() else { return };
    let temp = TempDir::new();
    for name in ["init", "systemd", "tini", "conmon", "dumb-init", "worker"] {
        for session in [None, Some("w1")] {
            let script = temp.path().join(name);
            let words = "#!/bin/sh\nmkdir claims/x && echo done\nread line\n";
            fs::write(&script, words).unwrap();
            let mut command = mount.sh("chmod +x \"$0\"; exec \"$0\"");
            command
                .arg(&script)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped());
            command.envs(session.map(|session| ("CLAIMFS_SESSION", session)));
            let mut worker = Guard::spawn(&mut command);
            assert_eq!(worker.line(), "done", "{name}");
            assert_eq!(
                mount.actor(Some("other")).mkdir("claims/x"),
                Err(EEXIST),
                "{name}"
            );
            drop(worker);
            wait_until("its claim is free", || mount.claims().is_empty());
        }
    }
}

#[test]
fn who_is_known_well_and_becomes_another_is_another_at_once() {
    let temp = TempDir::new();
    let program = compiled(&temp, "proofs/warm.c");
    for how in ["exec", "shared", "thread", "setsid"] {
        let Some(mount) = Mount::new() else { return };
        let mut command = Command::new(&program);
        plain(command.arg(how).current_dir(&mount.dir));
        if how != "setsid" {
            command.env("CLAIMFS_SESSION", "w1");
        }
        let mut changing = Guard::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        assert_eq!(changing.line(), "done", "{how}");
        let [before, after] = ["x", "y"].map(|name| mount.session_of(name));
        if how == "setsid" {
            assert!(before.is_some() && after.is_some(), "{before:?} {after:?}");
            assert_ne!(before, after, "{how}");
        } else {
            assert_eq!(after.as_deref(), Some("w2"), "{how}");
            assert_eq!(before.as_deref(), Some("w1"), "{how}");
        }
    }
}

/// Claims, then writes other things over its environment, and asks after each line of standard
/// input whether it may still write to its claim, as itself and as a copy.
const OVERWRITES: &str = r"
import os, sys
def mine():
    try:
        os.close(os.open('claims/x', os.O_WRONLY))
        return 'mine'
    except OSError as error:
        return error.strerror
def copy():
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, mine().encode())
        os._exit(0)
    os.wait()
    return os.read(reader, 99).decode()
def over(what):
    fields = open('/proc/self/stat').read().rsplit(')', 1)[1].split()
    start, end = int(fields[47]), int(fields[48])
    with open('/proc/self/mem', 'r+b', buffering=0) as memory:
        memory.seek(start)
        memory.write((what + b'\0' * (end - start))[:end - start])
os.close(os.open('claims/x', os.O_CREAT | os.O_EXCL | os.O_WRONLY))
print('claimed', flush=True)
for line in sys.stdin:
    if line.strip():
        over(line.strip().encode())
    print(mine(), copy(), flush=True)
";

#[test]
fn a_process_of_a_session_stays_so_whatever_it_writes_over_its_environment() {
    for session in [None, Some("w1")] {
        let Some(mount) = Mount::new() else {
            return;
        };
        let mut command = Command::new("python3");
        command.args(["-c", OVERWRITES]).current_dir(&mount.dir);
        plain(&mut command);
        command.envs(session.map(|session| ("CLAIMFS_SESSION", session)));
        let mut holder = Guard::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        assert_eq!(holder.line(), "claimed");
        let mut ask = |what: &str| {
            let stdin = holder.0.stdin.as_mut().unwrap();
            std::io::Write::write_all(stdin, format!("{what}\n").as_bytes()).unwrap();
            holder.line()
        };
        for over in [
            "",
            "xxxxxxxxxxxxxxx",
            "CLAIMFS_SESSION=w2",
            "CLAIMFS_SESSION=.",
            "CLAUDE_CODE_SESSION_ID=1",
        ] {
            assert_eq!(ask(over), "mine mine", "{session:?}: {over}");
            // So it is for a server that knows nothing but the journal.
            mount.kill_server();
            assert_eq!(ask(""), "mine mine", "{session:?}: {over}, another server");
        }
        let holder = mount.record("x").unwrap()["session"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(session.unwrap_or(&holder), holder);
        assert_eq!(
            mount.actor(Some("w2")).open("claims/x", libc::O_WRONLY),
            Err(EBUSY)
        );
    }
}

/// Whose a claim is does not depend on whether anything is kept: each test of it, once more, on
/// servers that keep nothing.
#[test]
fn no_answer_depends_on_a_cache() {
    if env::var_os(UNCACHED).is_some() || !can_mount() {
        return;
    }
    let mut again = Command::new(env::current_exe().unwrap());
    again.args([
        "session::",
        "agents::",
        "pidfile::",
        "proofs::",
        "race::",
        "sandbox::",
    ]);
    again.args(["--test-threads=2"]).env(UNCACHED, "1");
    let (code, out, err) = text(&again.output().unwrap());
    // Each line of theirs would hide why one of them failed.
    let why = out.split_once("\nfailures:").map_or(&*out, |(_, why)| why);
    assert_eq!(code, 0, "{why}{err}");
    let ran = out.lines().filter(|line| line.ends_with("... ok")).count();
    assert!(ran > 60, "{ran} tests: {out}");
}
