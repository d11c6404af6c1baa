//! Sandboxes, each started for real by its script in `mount-scripts/`, and what is there for
//! agents.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libc::{EBUSY, EEXIST};
use serde_json::Value;

use crate::support::{
    CLAIMFS, Guard, Mount, TempDir, names, parsed, plain, root_or_skip, skip, text, wait_until,
};

const USER: u32 = 4242;

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("mount-scripts")
}

fn told(name: &str) -> String {
    fs::read_to_string(scripts().join(name)).unwrap()
}

/// A way into a sandbox.
#[derive(Clone, Copy)]
pub struct Way {
    pub script: &'static str,
    tool: &'static str,
    package: &'static str,
    /// Whether it runs in a root directory of a test's own.
    rooted: bool,
}

pub const BWRAP: Way = Way {
    script: "claims-bwrap",
    tool: "bwrap",
    package: "bubblewrap",
    rooted: false,
};
pub const UNSHARE: Way = Way {
    script: "claims-unshare",
    tool: "unshare",
    package: "util-linux",
    rooted: false,
};
pub const CHROOT: Way = Way {
    script: "claims-chroot",
    tool: "unshare",
    package: "util-linux",
    rooted: true,
};
pub const NSPAWN: Way = Way {
    script: "claims-nspawn",
    tool: "systemd-nspawn",
    package: "systemd-container",
    rooted: true,
};
pub const PODMAN: Way = Way {
    script: "claims-podman",
    tool: "podman",
    package: "podman",
    rooted: true,
};

/// A mount, and a way into sandboxes that have it.
pub struct Place {
    pub mount: Mount,
    way: Way,
    root: TempDir,
}

impl Place {
    pub fn new(way: Way, options: &[&str]) -> Option<Self> {
        let found = Command::new(way.tool).arg("--version").output();
        if found.is_err() {
            skip(&format!(
                "{} is not installed (package {})",
                way.tool, way.package
            ));
            return None;
        }
        if way.rooted && !root_or_skip("make a root directory") {
            return None;
        }
        let mut mount = Mount::unmounted()?;
        // A path that has to be quoted; no comma for podman, and a colon for systemd-nspawn.
        let name = if way.tool == "podman" {
            "the mount's"
        } else {
            "the: mount's \"%d\", $x"
        };
        mount.dir = mount.state.with_file_name(name);
        mount.start(options);
        let root = TempDir::new();
        let place = Self { mount, way, root };
        if place.way.rooted {
            place.furnish();
        }
        let probe = place.enter(&[], "exit 7").output().unwrap();
        if probe.status.code() == Some(7) {
            return Some(place);
        }
        let said = String::from_utf8_lossy(&probe.stderr).into_owned();
        // Where the tool alone cannot make a sandbox, its script is not at fault.
        assert!(!place.works_alone(), "{said}");
        skip(&format!("{} makes no sandbox here: {said}", place.way.tool));
        None
    }

    fn works_alone(&self) -> bool {
        let root = self.root.path().display();
        let alone = match self.way.script {
            "claims-bwrap" => "bwrap --unshare-all --ro-bind / / true".to_owned(),
            "claims-unshare" => "unshare -Ur --mount --pid --fork true".to_owned(),
            "claims-chroot" => "unshare --mount --pid --fork true".to_owned(),
            "claims-nspawn" => {
                format!("systemd-nspawn -q --register=no --keep-unit --directory={root} /bin/true")
            }
            _ => format!(
                "{root}/podman run --rm {} {root} /bin/true",
                PODMAN_OPTIONS.join(" ")
            ),
        };
        let status = Command::new("sh").arg("-c").arg(alone).status();
        status.unwrap().success()
    }

    /// A root directory with a shell.
    fn furnish(&self) {
        furnish(self.root.path());
    }

    /// A shell in the sandbox, with further options of its script and then of its tool.
    fn enter(&self, options: &[&str], script: &str) -> Command {
        let mut command = Command::new(scripts().join(self.way.script));
        command.arg("--mount").arg(&self.mount.dir).args(options);
        let root = self.root.path();
        match self.way.script {
            "claims-chroot" => _ = command.arg("--").arg(root),
            "claims-nspawn" => _ = command.arg("--directory").arg(root).arg("--"),
            "claims-podman" => {
                command.env("CLAIMS_ENGINE", root.join("podman"));
                command.args(PODMAN_OPTIONS).arg("--").arg(root);
            }
            _ => _ = command.arg("--"),
        }
        command.args(["/bin/sh", "-c", &format!("cd /claims && {{ {script}\n}}")]);
        command.current_dir("/").stdin(Stdio::null());
        plain(&mut command);
        command
    }

    fn run(&self, options: &[&str], script: &str) -> (i32, String, String) {
        text(&self.enter(options, script).output().unwrap())
    }

    /// A sandbox that goes on until its standard input ends, if it ends by itself.
    pub fn start(&self, script: &str) -> Guard {
        let mut command = self.enter(&[], script);
        Guard::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))
    }

    fn holder(&self, name: &str) -> Value {
        let record = self.mount.record(name);
        record.map_or(Value::Null, |record| record["session"].clone())
    }

    /// The init of the sandbox that holds a name.
    fn init(&self, name: &str) -> i32 {
        let session = self.holder(name);
        let file = format!("sessions/{}", session.as_str().unwrap());
        let roots = parsed(&self.mount.read(&file))["roots"].clone();
        roots[0]["pid"].as_i64().unwrap() as i32
    }
}

/// Makes a root directory with a shell, and with a podman that runs inside a container.
pub fn furnish(root: &Path) {
    let script = "set -e; mkdir bin dev etc proc run sys tmp usr var; : > etc/os-release
        cp \"$(command -v busybox)\" bin/busybox
        ldd bin/busybox | grep -o '/[^ ]*' | sort -u | while read -r library; do cp --parents \"$library\" .; done
        for tool in sh ls cat head rm sleep true id kill stat grep; do ln -s busybox \"bin/$tool\"; done";
    let made = Command::new("sh")
        .args(["-c", script])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(made.status.success(), "busybox is needed: {made:?}");
    // podman with a storage of the test's own, and without what a container inside a container
    // cannot have: a network and higher limits.
    let engine = root.join("podman");
    let at = root.join("var").display().to_string();
    let runtime = if Command::new("runc").arg("--version").output().is_ok() {
        "--runtime runc"
    } else {
        ""
    };
    let text = format!(
        "#!/bin/sh\n\
         [ \"$1\" != run ] || {{ shift; set -- run --network=none --ulimit=nofile=1024:1024 --ulimit=nproc=1024:1024 \"$@\"; }}\n\
         exec podman --root {at}/store --runroot {at}/run --tmpdir {at}/tmp --storage-driver vfs \
         --cgroup-manager cgroupfs --events-backend none {runtime} \"$@\"\n"
    );
    fs::write(&engine, text).unwrap();
    fs::set_permissions(&engine, fs::Permissions::from_mode(0o755)).unwrap();
}

const PODMAN_OPTIONS: [&str; 2] = ["--interactive", "--rootfs"];

impl Drop for Place {
    fn drop(&mut self) {
        let engine = self.root.path().join("podman");
        if self.way.tool == "podman" && engine.exists() {
            // It cleans up after a container that was killed, a little later.
            let mut clean = Command::new(&engine);
            clean.args(["rm", "--all", "--force"]);
            _ = clean.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
        // Where /run is no tmpfs, systemd-nspawn leaves this.
        let name = self.root.path().file_name().unwrap();
        _ = fs::remove_dir(Path::new("/run/systemd/nspawn/propagate").join(name));
    }
}

fn it_is_a_session_that_contends_with_those_outside(way: Way) {
    let Some(place) = Place::new(way, &[]) else {
        return;
    };
    let mut outside = place.mount.actor(Some("outside"));
    outside.claim("theirs").unwrap();
    let mut sandbox = place.start(
        "head -n 9 self; echo \"$CLAIMFS_MOUNT\"; set -C; echo > claims/mine && head -n 1 claims/mine
         echo > claims/theirs || echo refused; rm claims/theirs || echo refused
         cat queue/theirs && head -n 1 claims/theirs
         read -r word; rm claims/mine && echo released; read -r word",
    );
    let me = parsed(&sandbox.line());
    assert_eq!(me["rule"], "sandbox", "{me}");
    assert_eq!(sandbox.line(), "/claims");
    let record = parsed(&sandbox.line());
    assert_eq!(record["session"], me["session"]);
    assert_eq!(place.holder("mine"), me["session"]);
    // Neither takes what the other has.
    assert_eq!(
        (sandbox.line(), sandbox.line()),
        ("refused".into(), "refused".into())
    );
    assert_eq!(outside.claim("mine"), Err(EEXIST));
    assert_eq!(outside.unlink("claims/mine"), Err(EBUSY));
    // It waits its turn.
    wait_until("it waits", || {
        place.mount.read("waiters").contains("theirs")
    });
    outside.unlink("claims/theirs").unwrap();
    let mut line = sandbox.line();
    while line.starts_with("you are ") {
        line = sandbox.line();
    }
    assert_eq!(parsed(&line)["session"], me["session"], "it is its turn");
    // The name that it releases is free, and it keeps the rest.
    std::io::Write::write_all(sandbox.0.stdin.as_mut().unwrap(), b"go\n").unwrap();
    assert_eq!(sandbox.line(), "released");
    outside.claim("mine").unwrap();
    assert_eq!(outside.claim("theirs"), Err(EEXIST));
    // When the command ends, so does all that it holds.
    drop(sandbox.0.stdin.take());
    sandbox.0.wait().unwrap();
    // bwrap exits a moment before its init does.
    wait_until("the sandbox is dead", || outside.claim("theirs").is_ok());
}

fn killing_its_init_frees_what_it_held_at_once(way: Way) {
    let Some(place) = Place::new(way, &[]) else {
        return;
    };
    let mut outside = place.mount.actor(Some("outside"));
    let mut slowest = Duration::ZERO;
    for _ in 0..3 {
        // Also with a job in it that would live on.
        let mut sandbox =
            place.start("sleep 1000 & set -C; echo > claims/x; echo ready; read -r word");
        assert_eq!(sandbox.line(), "ready");
        assert_eq!(outside.claim("x"), Err(EEXIST));
        let init = place.init("x");
        let start = Instant::now();
        assert_eq!(unsafe { libc::kill(init, libc::SIGKILL) }, 0);
        wait_until("the name is free", || outside.claim("x").is_ok());
        slowest = slowest.max(start.elapsed());
        outside.unlink("claims/x").unwrap();
        drop(sandbox.0.stdin.take());
        sandbox.0.wait().unwrap();
    }
    println!("{}: claimable {slowest:?} after the kill", place.way.script);
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

fn it_outlives_the_server_and_an_upgrade(way: Way) {
    let Some(place) = Place::new(way, &[]) else {
        return;
    };
    let mut outside = place.mount.actor(Some("outside"));
    let mut sandbox = place.start(
        "set -C; echo > claims/before; echo ready; while read -r name; do
             echo > \"claims/$name\" && cat queue/q > /dev/null && [ -e claims/before ] && rm claims/q && echo \"$name\"
         done",
    );
    assert_eq!(sandbox.line(), "ready");
    let session = place.holder("before");
    for name in ["killed", "upgraded"] {
        if name == "killed" {
            place.mount.kill_server();
        } else {
            let dir = place.mount.dir.to_str().unwrap();
            let (code, _, err) = text(&place.mount.claimfs(&["upgrade", dir]).output().unwrap());
            assert_eq!(code, 0, "{err}");
        }
        let line = format!("{name}\n");
        std::io::Write::write_all(sandbox.0.stdin.as_mut().unwrap(), line.as_bytes()).unwrap();
        assert_eq!(sandbox.line(), name);
        assert_eq!(place.holder(name), session);
        assert_eq!(outside.claim("before"), Err(EEXIST));
    }
    let init = place.init("before");
    assert_eq!(unsafe { libc::kill(init, libc::SIGKILL) }, 0);
    wait_until("its names are free", || place.mount.claims().is_empty());
    drop(sandbox.0.stdin.take());
    sandbox.0.wait().unwrap();
}

fn read_only_it_looks_and_changes_nothing(way: Way) {
    let Some(place) = Place::new(way, &[]) else {
        return;
    };
    place.mount.actor(Some("outside")).claim("gone").unwrap();
    let mut outside = place.mount.actor(Some("outside"));
    outside.claim("theirs").unwrap();
    for attempt in [
        "set -C; echo > claims/x",
        "echo > claims/x",
        "rm claims/theirs",
        "echo $$ > sessions/x",
        "echo '{}' > control",
    ] {
        let (code, _, err) = place.run(&["--read-only"], attempt);
        assert!(
            code != 0 && err.contains("Read-only file system"),
            "{attempt}: {err}"
        );
    }
    let (code, out, err) = place.run(
        &["--read-only"],
        "head -n 9 leases; head -n 9 self; ls claims",
    );
    assert!(
        code == 0 && out.contains("\"name\":\"theirs\"") && out.contains("\"rule\":\"sandbox\""),
        "{out}{err}"
    );
    // To open for reading is no change to the kernel, so that this claims even there.
    let (code, out, err) = place.run(&["--read-only"], "cat queue/q && head -n 1 claims/q");
    assert!(code == 0 && out.contains("\"name\":\"q\""), "{out}{err}");
    wait_until("it goes with the sandbox", || {
        place.mount.claims() == ["theirs"]
    });
}

macro_rules! in_each {
    ($($module:ident: $way:expr;)*) => {$(
        mod $module {
            #[test]
            fn it_is_a_session_that_contends_with_those_outside() {
                super::it_is_a_session_that_contends_with_those_outside($way);
            }

            #[test]
            fn killing_its_init_frees_what_it_held_at_once() {
                super::killing_its_init_frees_what_it_held_at_once($way);
            }

            #[test]
            fn it_outlives_the_server_and_an_upgrade() {
                super::it_outlives_the_server_and_an_upgrade($way);
            }

            #[test]
            fn read_only_it_looks_and_changes_nothing() {
                super::read_only_it_looks_and_changes_nothing($way);
            }
        }
    )*};
}

in_each! {
    bwrap: super::BWRAP;
    unshare: super::UNSHARE;
    chroot: super::CHROOT;
    nspawn: super::NSPAWN;
    podman: super::PODMAN;
}

/// The script is ended, and not what is in it: but for podman, whose containers are nobody's
/// children.
#[test]
fn killing_the_script_ends_the_sandbox() {
    for way in [BWRAP, UNSHARE, CHROOT, NSPAWN] {
        let Some(place) = Place::new(way, &[]) else {
            continue;
        };
        let mut sandbox = place.start("set -C; echo > claims/x; echo ready; sleep 1000");
        assert_eq!(sandbox.line(), "ready");
        let start = Instant::now();
        // A systemd-nspawn that is killed outright leaves its container running.
        let is_nspawn = way.tool == NSPAWN.tool;
        let signal = if is_nspawn {
            libc::SIGTERM
        } else {
            libc::SIGKILL
        };
        assert_eq!(unsafe { libc::kill(sandbox.0.id() as i32, signal) }, 0);
        sandbox.0.wait().unwrap();
        let mut outside = place.mount.actor(Some("outside"));
        wait_until("the name is free", || outside.claim("x").is_ok());
        let took = start.elapsed();
        println!(
            "{}: claimable {took:?} after its script was ended",
            place.way.script
        );
    }
}

#[test]
fn a_poll_from_inside_is_woken() {
    let poll = "import os, select\n\
                fd = os.open('/claims/queue/x', os.O_RDONLY | os.O_NONBLOCK)\n\
                poll = select.poll(); poll.register(fd, select.POLLIN)\n\
                assert not poll.poll(50), 'held'\n\
                print('waits', flush=True)\n\
                assert poll.poll(20000), 'granted'\n\
                print(open('/claims/claims/x').read(), end='', flush=True)";
    for way in [BWRAP, UNSHARE] {
        let Some(place) = Place::new(way, &[]) else {
            continue;
        };
        let mut outside = place.mount.actor(Some("outside"));
        outside.claim("x").unwrap();
        let mut sandbox = place.start(&format!("python3 -c \"{poll}\""));
        assert_eq!(sandbox.line(), "waits");
        outside.unlink("claims/x").unwrap();
        let record = parsed(&sandbox.line());
        assert!(record["session"].as_str().unwrap().starts_with("sandbox-"));
    }
}

#[test]
fn what_is_nearer_than_the_sandbox_counts() {
    let Some(place) = Place::new(BWRAP, &[]) else {
        return;
    };
    // A session variable above it, or in it alone: that of another sandbox is not joined.
    let mut above = place.enter(&[], "echo > claims/above; echo ready; read -r word");
    above.env("CLAIMFS_SESSION", "w1");
    let mut above = Guard::spawn(above.stdin(Stdio::piped()).stdout(Stdio::piped()));
    assert_eq!(above.line(), "ready");
    assert_eq!(place.holder("above"), "w1");
    let stranger = "export CLAIMFS_SESSION=w1; sh -c 'echo > claims/stolen'";
    let (code, _, err) = place.run(&[], stranger);
    assert!(
        code != 0 && err.contains("Operation not permitted"),
        "{err}"
    );
    let own = "echo $$ > sessions/own; echo > claims/own; head -n 1 claims/own";
    assert_eq!(parsed(&place.run(&[], own).1)["session"], "own");
    assert_eq!(place.mount.claims(), ["above"]);
}

#[test]
fn options_of_the_tool_come_behind_the_defaults() {
    if let Some(place) = Place::new(BWRAP, &[]) {
        assert_eq!(place.run(&[], "id -u").1, "1000\n", "another uid inside");
        assert_eq!(place.run(&["--uid", "7"], "id -u").1, "7\n");
        let root = place.root.path().to_str().unwrap();
        let write = format!("echo > '{root}/x'");
        assert_ne!(place.run(&[], &write).0, 0);
        assert_eq!(place.run(&["--bind", root, root], &write).0, 0);
        assert!(place.root.path().join("x").exists());
        assert_ne!(
            place.run(&[], "echo > /etc/x").0,
            0,
            "the system is not changed"
        );
    }
    if let Some(place) = Place::new(UNSHARE, &[]) {
        assert_eq!(place.run(&[], "id -u; echo $$").1, "0\n1\n");
        let count = "grep -c : /proc/net/dev";
        assert_eq!(place.run(&["--net"], count).1, "1\n", "the loopback alone");
        let nested = "unshare --user --map-root-user head -n 9 self";
        assert!(place.run(&[], nested).1.contains("\"rule\":\"sandbox\""));
    }
    if let Some(place) = Place::new(CHROOT, &[]) {
        let before = names(place.root.path());
        assert_eq!(place.run(&[], "echo $$; pwd").1, "1\n/claims\n");
        assert_eq!(names(place.root.path()), before, "nothing is left in ROOT");
    }
}

#[test]
fn a_dangling_symlink_is_not_followed_in_a_sandbox() {
    for way in [BWRAP, UNSHARE, CHROOT, NSPAWN, PODMAN] {
        let Some(place) = Place::new(way, &[]) else {
            continue;
        };
        let mut outside = place.mount.actor(Some("outside"));
        outside
            .symlink("/tmp/claimfs-followed", "claims/x")
            .unwrap();
        let (code, _, err) = place.run(
            &[],
            "echo > claims/x; [ ! -e /tmp/claimfs-followed ] || echo followed; exit 7",
        );
        assert_eq!(code, 7, "{}: {err}", way.script);
        assert!(
            err.contains("Too many levels of symbolic links") || err.contains("loop"),
            "{}: {err}",
            way.script
        );
    }
}

#[test]
fn another_user_inside_needs_allow_other() {
    if !root_or_skip("become another user") {
        return;
    }
    // Copies, where another user may read them.
    let copies = TempDir::new();
    for name in ["claims-bwrap", "claims-unshare", "claims-lib.sh"] {
        fs::copy(scripts().join(name), copies.path().join(name)).unwrap();
    }
    for (way, uid) in [(BWRAP, "1000\n"), (UNSHARE, "0\n")] {
        let name = way.script;
        let enter = |place: &Place| {
            let mut command = Command::new(copies.path().join(name));
            command.arg("--mount").arg(&place.mount.dir).arg("--");
            command.args([
                "sh",
                "-c",
                "id -u; echo > /claims/claims/x; cat /claims/claims/x",
            ]);
            command
                .uid(USER)
                .gid(USER)
                .current_dir("/")
                .stdin(Stdio::null());
            plain(&mut command);
            text(&command.output().unwrap())
        };
        if let Some(place) = Place::new(way, &["--allow-other"]) {
            let (code, out, err) = enter(&place);
            if err.contains("ermission") || err.contains("not permitted") {
                skip(&format!("no user namespaces for other users here: {err}"));
                continue;
            }
            assert_eq!(code, 0, "{err}");
            let record = parsed(out.strip_prefix(uid).unwrap());
            assert_eq!(record["uid"], USER, "whatever it is inside");
            let private = Place::new(place.way, &[]).unwrap();
            let (code, _, err) = enter(&private);
            assert!(
                code == 3 && err.contains("another user's mount"),
                "{code}: {err}"
            );
        }
    }
    if let Some(place) = Place::new(PODMAN, &["--allow-other"]) {
        let script = "echo > claims/x; head -n 1 claims/x";
        let (_, out, err) = place.run(&["--user=1000"], script);
        assert!(out.contains("\"uid\":1000"), "{out}{err}");
    }
}

#[test]
fn the_scripts_find_the_mount_and_say_how_they_are_used() {
    let ways = [BWRAP, UNSHARE, CHROOT, NSPAWN, PODMAN];
    let run = |script: &str, arguments: &[&str]| {
        let mut command = Command::new(scripts().join(script));
        command.args(arguments).env_remove("CLAIMFS_MOUNT");
        text(&command.output().unwrap())
    };
    for way in &ways {
        let said = told(way.script);
        let usage = format!("usage='{} [--mount DIR] [--read-only] ", way.script);
        assert!(said.starts_with("#!/bin/sh\n# Runs a ") && said.contains(&usage));
        let wrong: [&[&str]; 5] = [&[], &["--"], &["true"], &["--mount"], &["--mount", "/"]];
        for arguments in wrong {
            let (code, out, err) = run(way.script, arguments);
            assert_eq!((code, out), (2, String::new()), "{arguments:?}");
            assert!(err.starts_with("usage: claims-"), "{err}");
        }
        let (code, out, _) = run(way.script, &["--help"]);
        assert!(code == 0 && out.starts_with("usage: claims-"));
        let (code, _, err) = run(way.script, &["--mount", "/", "--", "/", "true"]);
        assert!(code == 3 && err.contains("/: not a claimfs mount"), "{err}");
    }
    // In a mount namespace with nothing but these.
    let (Some(one), Some(two)) = (Place::new(UNSHARE, &[]), Mount::new()) else {
        return;
    };
    if !root_or_skip("unmount in a mount namespace of its own") {
        return;
    }
    let find = |keep: &[&Path]| {
        let keep: Vec<String> = keep.iter().map(|dir| dir.display().to_string()).collect();
        let script = "self=$1; shift; mount --make-rprivate /
            findmnt --noheadings --list --output TARGET --types fuse.claimfs | while read -r dir; do
                kept=; for keep; do [ \"$dir\" != \"$keep\" ] || kept=yes; done
                [ -n \"$kept\" ] || umount -l \"$dir\"
            done
            exec \"$self\" -- head -n 9 /claims/leases";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "find"]);
        command.arg(scripts().join("claims-unshare")).args(keep);
        command.env_remove("CLAIMFS_MOUNT");
        text(&command.output().unwrap())
    };
    two.actor(Some("w1")).claim("gone").unwrap();
    let (code, out, err) = find(&[&one.mount.dir]);
    assert!(code == 0 && out.contains("\"leases\":0"), "{out}{err}");
    for (keep, count) in [(&[][..], 0), (&[&*one.mount.dir, &two.dir], 2)] {
        let (code, _, err) = find(keep);
        let complaint = format!("{count} claimfs are mounted here");
        assert!(code == 3 && err.contains(&complaint), "{err}");
    }
}

#[test]
fn the_commands_of_the_manual_make_sandboxes() {
    let page = fs::read_to_string(scripts().join("../src/manual/sandboxes.md")).unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", scripts().display());
    for way in [BWRAP, UNSHARE, CHROOT, NSPAWN, PODMAN] {
        let fence = format!("```sh\n{} ", way.script);
        let (_, command) = page.split_once(&fence).unwrap();
        let (command, _) = command.split_once("```").unwrap();
        let command = format!("{} {command}", way.script);
        let Some(place) = Place::new(way, &[]) else {
            continue;
        };
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &command])
            .current_dir("/")
            .env("PATH", &path)
            .env("ROOT", place.root.path())
            .env("CLAIMFS_MOUNT", &place.mount.dir)
            .env("CLAIMS_ENGINE", place.root.path().join("podman"))
            .stdin(Stdio::null());
        plain(&mut shell);
        let (code, out, err) = text(&shell.output().unwrap());
        assert!(
            code == 0 && out.contains("\"rule\":\"sandbox\""),
            "{command}: {out}{err}"
        );
        assert!(out.contains("\"live\":true"), "it has claimed: {out}{err}");
    }
}

// Files for agents.

#[test]
fn the_snippet_for_agents_is_short_and_right() {
    let Some(mount) = Mount::new() else { return };
    let text = told("AGENTS.md");
    let snippet: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("<!--") && !line.is_empty())
        .collect();
    assert!(snippet.len() <= 10, "{} lines", snippet.len());
    // Each command in it, as it stands there.
    let mut commands: Vec<String> = Vec::new();
    for line in &snippet {
        for code in line
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|code| code.contains(" /run/claims"))
        {
            commands.push(code.replace("/run/claims", "\"$CLAIMFS_MOUNT\""));
        }
    }
    assert_eq!(commands.len(), 6, "{commands:?}");
    let mut worker = mount.sh(&format!("set -e\n{}", commands.join("\n")));
    worker
        .env("CLAIMFS_MOUNT", &mount.dir)
        .env("CLAIMFS_SESSION", "me");
    let worker = worker.output().unwrap();
    assert!(worker.status.success(), "{worker:?}");
}

/// The command of an event in the example for Claude Code, as that runs it: in a shell, with the
/// event on standard input. `/run` and `/var/lib` are of its own, so that the default mount is.
fn hook(mount: Option<&Path>, event: &str, session: &str) -> (i32, String, String) {
    const ALONE: &str = "mount -t tmpfs none /run && mount -t tmpfs none /var/lib || exit 9
        [ -n \"$CLAIMFS_MOUNT\" ] || while at=$(findmnt --noheadings --raw --output TARGET --types fuse.claimfs | head -n 1)
            [ -n \"$at\" ]; do umount -l \"$(printf '%b' \"$at\")\" 2> /dev/null || :; done
        sh -c \"$0\"; code=$?; claimfs umount /run/claims > /dev/null 2>&1; exit $code";
    let settings = parsed(&told("claude-code-hook.json"));
    let hook = &settings["hooks"][event][0]["hooks"][0];
    assert_eq!(hook["type"], "command");
    assert!(hook["timeout"].is_u64());
    let path = format!(
        "{}:{}",
        Path::new(CLAIMFS).parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let input = serde_json::json!({
        "hook_event_name": event, "tool_name": "Edit", "cwd": "/x/repo",
        "tool_input": { "file_path": "/x/repo/file" },
    });
    let mut command = Command::new("unshare");
    plain(&mut command);
    command
        .args(["--mount", "sh", "-c", ALONE])
        .arg(hook["command"].as_str().unwrap())
        .env("CLAIMFS_MOUNT", mount.unwrap_or(Path::new("")))
        .env("CLAUDE_PROJECT_DIR", "/x/repo")
        .env("CLAIMFS_SESSION", session)
        .env("PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut command = command.spawn().unwrap();
    let mut stdin = command.stdin.take().unwrap();
    stdin.write_all(input.to_string().as_bytes()).unwrap();
    drop(stdin);
    text(&command.wait_with_output().unwrap())
}

#[test]
fn the_hooks_for_claude_code_do_what_they_say() {
    if !root_or_skip("make a mount namespace") {
        return;
    }
    let Some(mount) = Mount::new() else { return };
    let settings = parsed(&told("claude-code-hook.json"));
    let keys: Vec<&String> = settings.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["sandbox", "hooks"]);
    let events: Vec<&String> = settings["hooks"].as_object().unwrap().keys().collect();
    assert_eq!(events, ["SessionStart", "PreToolUse", "Stop", "SessionEnd"]);

    let on = |event: &str, session: &str| hook(Some(&mount.dir), event, session);
    let silent = (0, String::new(), String::new());
    let mut holders: Vec<_> = ["me", "w1"].map(|id| mount.actor(Some(id))).into();
    for (holder, id) in holders.iter_mut().zip(["me", "w1"]) {
        holder.claim(id).unwrap();
    }
    let (code, out, err) = on("SessionStart", "me");
    assert_eq!((code, err), (0, String::new()));
    assert!(out.contains("(id me)"), "{out}");
    let edit = |session: &str| on("PreToolUse", session);
    assert_eq!(edit("me"), silent, "free");
    assert_eq!(edit("me"), silent, "one's own");
    let (code, _, err) = edit("w1");
    assert_eq!(code, 2, "what stops an edit");
    assert!(
        err.contains("/x/repo/file: reserved by session me since"),
        "{err}"
    );
    assert_eq!(on("Stop", "me"), silent);
    assert_eq!(edit("w1"), silent);
    assert_eq!(on("SessionEnd", "w1"), silent);
    assert_eq!(edit("me"), silent);
    holders.remove(0).kill();
    assert_eq!(edit("w1"), silent, "its holder is dead");
    assert_eq!(
        hook(Some(&mount.state), "PreToolUse", "me"),
        silent,
        "no mount"
    );
}

#[test]
fn the_hook_for_the_start_of_a_session_mounts() {
    if !crate::support::can_mount() || !root_or_skip("make a mount namespace") {
        return;
    }
    let (code, out, err) = hook(None, "SessionStart", "me");
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("(id me)"), "{out}");
}

#[test]
fn the_config_for_codex_is_toml() {
    let script =
        "import json, sys, tomllib; print(json.dumps(tomllib.load(open(sys.argv[1], 'rb'))))";
    let output = Command::new("python3")
        .args(["-c", script])
        .arg(scripts().join("codex-config.toml"))
        .output()
        .unwrap();
    let (code, out, err) = text(&output);
    if err.contains("No module named 'tomllib'") {
        skip("python3 is older than 3.11");
        return;
    }
    assert_eq!(code, 0, "{err}");
    let config = parsed(&out);
    assert_eq!(config["sandbox_mode"], "workspace-write");
    let roots = &config["sandbox_workspace_write"]["writable_roots"];
    assert_eq!(roots, &serde_json::json!(["/run/claims"]));
    for event in ["PreToolUse", "Stop"] {
        let hook = &config["hooks"][event][0]["hooks"][0];
        assert_eq!(hook["command"], "claimfs hook");
    }
}
