//! Programs that have workers: a killed worker's claim is its sibling's at the first try, one that
//! exits leaves it to the master, and no worker takes a living one's.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Guard, Mount, TempDir, compiled, skip, text, wait_until};

/// The expected output of a master and of its three workers.
const MASTER: &str = "first done True
second EEXIST EBUSY
master EEXIST EBUSY
second done True
third EEXIST EBUSY
master True
third EEXIST
master EEXIST done
";

/// The same of a pool, which chooses for itself which worker does what.
const POOL: &str = "first done True
second EEXIST EBUSY
master EEXIST EBUSY
second done True
worker done
master True
master EEXIST done
";

fn source(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/suite/sessions/programs")
        .join(name)
}

/// Runs a master in a terminal, below its shell: what it prints.
fn play(mount: &Mount, program: &str, file: &str, kind: &str) -> String {
    let mut terminal = mount.sh("\"$@\"; exit $?");
    terminal.args(["sh", program]).arg(source(file)).arg(kind);
    let (code, out, err) = text(&terminal.output().unwrap());
    assert_eq!(code, 0, "{program} {kind}: {out}{err}");
    assert_eq!(mount.claims(), [""; 0], "{program} {kind}");
    out
}

#[test]
fn workers_of_python_hold_what_they_claim_until_they_end() {
    let Some(mount) = Mount::new() else { return };
    for kind in ["subprocess", "prefork", "fork", "spawn"] {
        let said = play(&mount, "python3", "workers.py", kind);
        assert_eq!(said, MASTER, "{kind}");
    }
    assert_eq!(play(&mount, "python3", "workers.py", "pool"), POOL);
}

#[test]
fn workers_of_node_hold_what_they_claim_until_they_end() {
    let Some(mount) = Mount::new() else { return };
    if Command::new("node").arg("--version").output().is_err() {
        skip("node is not installed (package nodejs)");
        return;
    }
    let said = play(&mount, "node", "cluster.js", "");
    assert_eq!(said, MASTER.replace("True", "true"));
}

#[test]
fn workers_of_go_hold_what_they_claim_until_they_end() {
    let Some(mount) = Mount::new() else { return };
    let temp = TempDir::new();
    let program = temp.path().join("workers");
    let mut go = Command::new("go");
    go.arg("build")
        .arg("-o")
        .arg(&program)
        .arg(source("workers.go"));
    // Its cache is left nowhere else.
    go.env("GOCACHE", temp.path().join("cache"));
    go.env("GO111MODULE", "off").env("CGO_ENABLED", "0");
    match go.output() {
        Err(_) => skip("go is not installed (package golang-go)"),
        Ok(built) => {
            assert!(built.status.success(), "{:?}", text(&built));
            assert_eq!(
                play(&mount, program.to_str().unwrap(), "workers.go", ""),
                MASTER
            );
        }
    }
}

#[test]
fn a_daemon_holds_what_it_claims_and_leaves_behind_what_its_starter_did() {
    let Some(mount) = Mount::new() else { return };
    let temp = TempDir::new();
    let program = compiled(&temp, "programs/daemon.c");
    let mut terminal = mount.sh("\"$1\"; echo started; read end");
    terminal
        .arg("sh")
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut terminal = Guard::spawn(&mut terminal);
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != "ready") {
        lines.push(terminal.line());
        assert_ne!(lines.last().unwrap(), "", "{lines:?}");
    }
    // The shell says so while the daemon works.
    lines.retain(|line| line != "started");
    let daemon = lines
        .remove(1)
        .strip_prefix("daemon ")
        .unwrap()
        .parse()
        .unwrap();
    let expected = [
        "starter done",
        "daemon EBUSY",
        "daemon done",
        "worker done",
        "worker EEXIST",
        "daemon EBUSY",
        "worker done",
        "daemon EEXIST",
        "daemon done",
        "ready",
    ];
    let holder = |name: &str| mount.record(name).unwrap()["pid"].clone();
    let left = (holder("before"), holder("after"));
    unsafe { libc::kill(daemon, libc::SIGKILL) };
    assert_eq!(lines, expected);
    assert_eq!(left, (terminal.0.id().into(), daemon.into()));
    wait_until("what the daemon held is free", || {
        mount.claims() == ["before"]
    });
    // It ends with the terminal.
    drop(terminal);
    assert_eq!(mount.claims(), [""; 0]);
}
