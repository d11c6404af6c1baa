//! Scripts in containers: with the mount outside and inside, as the first process, and entered from
//! outside.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use libc::{EBUSY, EEXIST};
use serde_json::Value;

use crate::sandboxes::sandbox::{BWRAP, CHROOT, NSPAWN, PODMAN, Place, UNSHARE};
use crate::support::{CLAIMFS, Guard, Mount, TempDir, plain, root_or_skip, text, wait_until};

/// A script in a container, which prints its results. The claims of its parts that end become its
/// own; that of a killed part is free at the first try; a body that says a pid binds to the writer
/// or its parent, as the container numbers them.
const INSIDE: &str = r#"set -C
sh -c ': > claims/exited'
busybox mkdir claims/command
sh -c ': > claims/x; echo ready; exec sleep 1000' & part=$!
read -r go
sh -c ': > claims/x' 2> /dev/null || echo taken
rm claims/x 2> /dev/null || echo busy
kill -KILL $part; wait $part 2> /dev/null
: > claims/x && echo free
sh -c 'echo $$ > claims/own'; [ -e claims/own ] || echo 'bound to itself'
sh -c 'sh -c "echo \$PPID > claims/of-parent; :"; [ -e claims/of-parent ] && echo "bound to the parent"'
[ -e claims/of-parent ] || echo 'and ended with it'
sh -c 'sh -c "echo $PPID > claims/of-grandparent; :"; :'
echo 1 > claims/one
echo done
read -r end
"#;

const SAID: [&str; 7] = [
    "taken",
    "busy",
    "free",
    "bound to itself",
    "bound to the parent",
    "and ended with it",
    "done",
];

fn pid(record: &Value) -> u32 {
    record["pid"].as_u64().unwrap() as u32
}

/// The pid of a process in its own namespace, which is the last of the numbers that it has.
fn inner_pid(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("NSpid:"));
    let number = line.unwrap().split_whitespace().last();
    number.unwrap().parse().unwrap()
}

fn go(container: &mut Guard) {
    container
        .0
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"go\n")
        .unwrap();
}

#[test]
fn a_script_in_a_container_holds_what_its_parts_leave_and_a_killed_part_frees_its_own() {
    for way in [BWRAP, UNSHARE, CHROOT, NSPAWN, PODMAN] {
        let Some(place) = Place::new(way, &[]) else {
            continue;
        };
        let mount = &place.mount;
        let mut container = place.start(INSIDE);
        assert_eq!(container.line(), "ready", "{}", way.script);
        let mut outside = mount.actor(None);
        assert_eq!(outside.claim("x"), Err(EEXIST));
        assert_eq!(outside.unlink("claims/x"), Err(EBUSY));
        go(&mut container);
        for word in &SAID {
            assert_eq!(container.line(), *word, "{}", way.script);
        }
        let script = pid(&mount.record("x").unwrap());
        for name in ["exited", "command", "of-grandparent", "one"] {
            let record = mount.record(name).unwrap();
            assert_eq!(pid(&record), script, "{}: {record}", way.script);
            assert!(record.get("bound_pid").is_none(), "{record}");
        }
        // A script that has been entered from outside, as `docker exec` does.
        let init = enter(mount, script);
        assert_eq!(inner_pid(init), 1, "{}", way.script);
        go(&mut container);
        container.0.wait().unwrap();
        wait_until("all ends with the container", || mount.claims().is_empty());
    }
}

/// Two scripts that are entered: one is killed, one exits. Who has its claim then.
fn enter(mount: &Mount, script: u32) -> u32 {
    let entered = |script_of: &str| {
        let mut command = Command::new("nsenter");
        let target = script.to_string();
        command.args(["--target", &target, "--pid", "--mount", "--root"]);
        command.args([
            "/bin/sh",
            "-c",
            &format!("cd /claims && {{ {script_of}\n}}"),
        ]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        plain(&mut command);
        Guard::spawn(&mut command)
    };
    let mut killed = entered(": > claims/entered; echo ready; read -r end");
    assert_eq!(killed.line(), "ready");
    let inner = pid(&mount.record("entered").unwrap());
    let mut outside = mount.actor(None);
    assert_eq!(outside.claim("entered"), Err(EEXIST));
    unsafe { libc::kill(inner as i32, libc::SIGKILL) };
    killed.0.wait().unwrap();
    let mut exits = entered("set -C; : > claims/entered && echo free");
    assert_eq!(exits.line(), "free", "at the first try");
    exits.0.wait().unwrap();
    assert_eq!(outside.unlink("claims/entered"), Err(EBUSY));
    pid(&mount.record("entered").unwrap())
}

#[test]
fn the_first_process_of_a_container_that_has_the_mount_in_it_is_the_last_heir() {
    if !root_or_skip("make a pid namespace with a mount in it") {
        return;
    }
    if Mount::new().is_none() {
        return;
    }
    let temp = TempDir::new();
    let script = format!(
        "mkdir mount; '{CLAIMFS}' mount --foreground --announce --no-agents --state-dir state mount > log 2>&1 &
         until grep -q ready log; do :; done; cd mount; {INSIDE}"
    );
    std::fs::write(temp.path().join("log"), "").unwrap();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount", "--mount-proc", "--kill-child"]);
    command.args(["sh", "-c", &script]).current_dir(temp.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    plain(&mut command);
    let mut container = Guard::spawn(&mut command);
    assert_eq!(container.line(), "ready");
    go(&mut container);
    for word in &SAID {
        assert_eq!(container.line(), *word);
    }
    // It is the script itself: number 1 as the server sees it.
    let init = crate::support::children(container.0.id())[0];
    let mut look = Command::new("nsenter");
    let dir = temp.path().join("mount");
    look.args(["--target", &init.to_string(), "--pid", "--mount", "cat"]);
    let (_, leases, err) = text(&look.arg(Path::new(&dir).join("leases")).output().unwrap());
    let records = leases
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let held: Vec<(String, u32)> = records
        .filter(|record| record["name"].is_string())
        .map(|record| (record["name"].as_str().unwrap().to_owned(), pid(&record)))
        .collect();
    assert_eq!(held.len(), 5, "{leases}{err}");
    for (name, pid) in held {
        assert_eq!(pid, 1, "{name}: {leases}");
    }
    go(&mut container);
    container.0.wait().unwrap();
}
