//! The system's own tools: systemd's unit, mount(8)'s helper.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use crate::support::{
    CLAIMFS, Guard, Mount, TempDir, can_mount, root_or_skip, skip, text, unmount, wait_until,
};

fn script(name: &str) -> String {
    format!("{}/mount-scripts/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn systemd_is_told_when_the_mount_is_ready() {
    if !can_mount() {
        return;
    }
    let temp = TempDir::new();
    let socket = temp.path().join("notify");
    let listener = UnixDatagram::bind(&socket).unwrap();
    listener
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let dir = temp.path().join("mount");
    let mut server = Command::new(CLAIMFS);
    server
        .args(["mount", "--foreground", "--state-dir"])
        .arg(temp.path().join("state"))
        .arg(&dir);
    server.env("NOTIFY_SOCKET", &socket).stderr(Stdio::null());
    let mut server = Guard::spawn(&mut server);
    let mut buffer = [0; 64];
    let count = listener.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"READY=1");
    assert!(dir.join("claims").is_dir(), "it is ready");
    unmount(&dir);
    assert!(server.0.wait().unwrap().success());
}

/// The settings of a unit, as KEY=VALUE.
fn settings(unit: &str) -> Vec<String> {
    let unit = fs::read_to_string(script(unit)).unwrap();
    let lines = unit
        .lines()
        .filter(|line| line.contains('=') && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_units_start_what_there_is() {
    let help = |verb: &str| {
        let output = Command::new(CLAIMFS).args([verb, "--help"]).output();
        text(&output.unwrap()).1
    };
    for unit in ["claimfs@.service", "claimfs.user.service"] {
        let settings = settings(unit);
        let commands = settings.iter().filter_map(|line| {
            let (key, command) = line.split_once('=').unwrap();
            ["ExecStart", "ExecStop", "ExecReload"]
                .contains(&key)
                .then_some(command)
        });
        let commands: Vec<&str> = commands.collect();
        assert_eq!(commands.len(), 3, "{unit}");
        for command in commands {
            // systemd looks for it where 'cargo install' and the package put it.
            let words: Vec<&str> = command.trim_start_matches('-').split(' ').collect();
            assert_eq!(words[0], "claimfs", "{unit}");
            // Each option of it is one that the verb knows.
            let help = help(words[1]);
            for option in words.iter().filter(|word| word.starts_with("--")) {
                assert!(help.contains(option), "{option}");
            }
        }
        let path = settings
            .iter()
            .find_map(|line| line.strip_prefix("ExecSearchPath="));
        let path: Vec<&str> = path.unwrap().split(':').collect();
        for dir in ["/usr/local/bin", "/usr/bin"] {
            assert!(path.contains(&dir), "{unit}: {dir}");
        }
        assert!(
            path.iter().any(|dir| dir.ends_with("/.cargo/bin")),
            "{unit}"
        );
        // Settings that would give it a mount namespace of its own.
        for line in &settings {
            let key = line.split('=').next().unwrap();
            assert!(
                ![
                    "ProtectSystem",
                    "ProtectHome",
                    "PrivateTmp",
                    "PrivateDevices",
                    "ReadOnlyPaths",
                    "PrivateMounts"
                ]
                .contains(&key)
            );
        }
    }
    // fusermount3 is set-user-ID, and of a user's unit most confinement implies NoNewPrivileges=.
    let confines = |line: &String| {
        [
            "NoNew",
            "Restrict",
            "SystemCall",
            "Lock",
            "MemoryDeny",
            "Protect",
            "Private",
        ]
        .iter()
        .any(|key| line.starts_with(key))
    };
    let settings = settings("claimfs.user.service");
    assert_eq!(settings.iter().find(|line| confines(line)), None);
}

#[test]
fn systemd_takes_the_units_wherever_claimfs_is_installed() {
    let has = Command::new("systemd-analyze").arg("--version").output();
    if has.is_err() {
        skip("systemd-analyze is not installed (package systemd)");
        return;
    }
    if !root_or_skip("make a mount namespace") {
        return;
    }
    let temp = TempDir::new();
    let [system, user] = [
        ("claimfs@.service", "claimfs@run-claims.service"),
        ("claimfs.user.service", "claimfs.service"),
    ]
    .map(|(from, to)| {
        let to = temp.path().join(to);
        fs::copy(script(from), &to).unwrap();
        to
    });
    for dir in ["/usr/local/bin", "/usr/bin"] {
        // In the namespace alone.
        let verify = r#"set -e
            mount -t overlay -o "lowerdir=$3/bin:$4" overlay "$4"
            systemd-analyze verify "$1"
            XDG_RUNTIME_DIR=$3 systemd-analyze verify --user "$2""#;
        let bin = temp.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy(CLAIMFS, bin.join("claimfs")).unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", verify, "sh"])
            .args([&system, &user]);
        command.arg(temp.path()).arg(dir).current_dir("/");
        let output = command.output().unwrap();
        assert_eq!(text(&output), (0, String::new(), String::new()), "{dir}");
    }
}

#[test]
fn mount_8_finds_its_helper_as_it_expects_it() {
    if !can_mount() {
        return;
    }
    let temp = TempDir::new();
    let (dir, state) = (temp.path().join("a mount"), temp.path().join("state"));
    fs::create_dir(&dir).unwrap();
    let path = format!(
        "{}:{}",
        Path::new(CLAIMFS).parent().unwrap().display(),
        env::var("PATH").unwrap()
    );
    // mount(8) says the type, too.
    let run = |arguments: &[&str]| {
        let mut helper = Command::new(script("mount.fuse.claimfs"));
        helper
            .arg(&state)
            .arg(&dir)
            .args(arguments)
            .args(["-t", "fuse.claimfs"])
            .env("PATH", &path);
        text(&helper.output().unwrap())
    };
    // As mount(8) calls it: the type is cut off, and -o has the options of the file system and its
    // own.
    assert_eq!(run(&["-f", "-o", "rw"]).0, 0);
    assert!(
        !dir.join("claims").exists(),
        "it was only asked what it would do"
    );
    let (code, out, err) = run(&["-v", "-o", "rw,nofail,max_leases=7,x-systemd.automount"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("claimfs: mounted on "), "{out}");
    assert!(dir.join("claims").is_dir() && state.join("journal").exists());
    let (_, out, _) = text(
        &Command::new("stat")
            .args(["-f", "-c", "%c"])
            .arg(&dir)
            .output()
            .unwrap(),
    );
    assert_eq!(out, "7\n", "as many as the option says");
    let server: i32 = fs::read_to_string(state.join("lock"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    unmount(&dir);
    wait_until("its server ends", || unsafe { libc::kill(server, 0) } != 0);
    let (code, _, err) = run(&["-o", "nonsense"]);
    assert!(code != 0 && err.contains("no such option"), "{err}");
}

/// The helper, as mount(8) calls it for a mount that is there.
fn remount(mount: &Mount, source: &Path, options: &str) -> (i32, String) {
    let path = Path::new(CLAIMFS).parent().unwrap().display();
    let mut helper = Command::new(script("mount.fuse.claimfs"));
    helper
        .arg(source)
        .arg(&mount.dir)
        .args(["-o", options, "-t", "fuse.claimfs"])
        .env("PATH", format!("{path}:{}", env::var("PATH").unwrap()));
    let (code, _, err) = text(&helper.output().unwrap());
    (code, err)
}

/// The options of the mount, as mountinfo has them.
fn flags(mount: &Mount) -> Vec<String> {
    let info = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut lines = info.lines();
    let line = lines.find(|line| line.split(' ').nth(4) == mount.dir.to_str());
    let options = line.unwrap().split(' ').nth(5).unwrap();
    options.split(',').map(str::to_owned).collect()
}

#[test]
fn a_remount_changes_the_flags_and_no_lease() {
    if !root_or_skip("remount") {
        return;
    }
    let Some(mount) = Mount::with(&["-o", "max_leases=7", "--allow-other"]) else {
        return;
    };
    let mut holder = mount.actor(Some("w1"));
    holder.claim("held").unwrap();
    let server = mount.pid();
    // mount(8) passes this for 'mount -o remount,…', for mounts in mountinfo and in fstab(5).
    let state = mount.state.clone();
    let found = "nosuid,nodev,relatime,nosymfollow,remount,user_id=0,group_id=0,allow_other";
    let listed = "remount,allow_other,max_leases=7,nofail,_netdev,x-systemd.automount";
    for (source, rest) in [(&*state, found), (Path::new("claims"), listed)] {
        let (code, err) = remount(&mount, source, &format!("ro,{rest}"));
        assert_eq!(code, 0, "{err}");
        assert_eq!(holder.claim("new"), Err(libc::EROFS));
        assert_eq!(holder.unlink("claims/held"), Err(libc::EROFS));
        assert_eq!(mount.claims(), ["held"]);
        let (code, err) = remount(&mount, source, &format!("rw,{rest}"));
        assert_eq!(code, 0, "{err}");
        holder.claim("new").unwrap();
        holder.unlink("claims/new").unwrap();
    }
    let (code, err) = remount(&mount, &state, "rw,remount,noexec");
    assert_eq!(code, 0, "{err}");
    // It keeps its options, whatever the next remount passes.
    for options in [
        "remount,nosuid",
        "remount,nodev",
        "rw,remount",
        "remount,ro",
        "remount,rw",
    ] {
        let (code, err) = remount(&mount, Path::new("claims"), options);
        assert_eq!(code, 0, "{options}: {err}");
        for flag in ["nosuid", "nodev", "noexec"] {
            assert!(
                flags(&mount).iter().any(|there| there == flag),
                "{options}: {flag}"
            );
        }
    }
    let before = flags(&mount);
    let refused = [
        ("remount,ro,dotfiles", "dotfiles"),
        ("remount,max_leases=8", "max_leases=8"),
        ("remount,suid", "suid"),
        ("remount,dev", "dev"),
        ("remount,exec", "exec"),
        ("remount,nonsense", "nonsense"),
        // As mount(8) says 'remount,exec' of a mount that it found.
        (
            "rw,nosuid,nodev,relatime,nosymfollow,remount,user_id=0",
            "exec",
        ),
    ];
    for (options, option) in refused {
        let (code, err) = remount(&mount, Path::new("claims"), options);
        let said = format!("-o remount,{option}: ");
        assert!(
            code != 0 && err.contains(&said) && err.contains("; unmount")
                || option != "exec" && err.contains("always nosuid"),
            "{options}: {err}"
        );
        assert_eq!(flags(&mount), before, "{options}");
    }
    let switch = mount
        .claimfs(&["mount", "--dotfiles", "-o", "remount,ro"])
        .arg(&mount.dir)
        .output();
    let (code, _, err) = text(&switch.unwrap());
    assert!(
        code == 2 && err.contains("--dotfiles: not changed by a remount"),
        "{err}"
    );
    let (code, err) = {
        let temp = TempDir::new();
        let mut command = Command::new(CLAIMFS);
        let command = command.args(["mount", "-o", "remount,ro"]).arg(temp.path());
        let (code, _, err) = text(&command.output().unwrap());
        (code, err)
    };
    assert!(
        code == 3 && err.contains("no claimfs is mounted here"),
        "{err}"
    );
    assert_eq!(mount.pid(), server);
    assert_eq!(mount.record("held").unwrap()["session"], "w1");
}

#[test]
fn a_mount_that_began_read_only_becomes_writable() {
    if !root_or_skip("remount") {
        return;
    }
    let Some(mount) = Mount::with(&["-o", "ro"]) else {
        return;
    };
    let mut me = mount.actor(Some("w1"));
    assert_eq!(me.claim("x"), Err(libc::EROFS));
    assert_eq!(remount(&mount, Path::new("claims"), "remount,rw").0, 0);
    me.claim("x").unwrap();
}

/// What systemd does to stop the unit: its command, then SIGTERM to the main process. Whether the
/// command succeeded, and with what the main process ended.
fn stop(mount: &mut Mount) -> (bool, Option<i32>) {
    let mut command = Command::new(CLAIMFS);
    let stopped = command
        .arg("umount")
        .arg(&mount.dir)
        .current_dir("/")
        .output();
    (stopped.unwrap().status.success(), mount.stop())
}

#[test]
fn the_unit_stops_and_starts_beside_a_sandbox_within_seconds_also_while_it_is_in_use() {
    if !root_or_skip("make mount namespaces") {
        return;
    }
    let unit = fs::read_to_string(script("claimfs@.service")).unwrap();
    for line in [
        "ExecStop=-claimfs umount %f",
        "KillMode=mixed",
        "TimeoutStopSec=10",
    ] {
        assert!(unit.lines().any(|there| there == line), "{line}");
    }
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let inside = |mount: &Mount| {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", "echo begun; read x"])
            .current_dir("/");
        crate::support::plain(&mut command);
        command.env_clear().env("PATH", env::var("PATH").unwrap());
        let mut sandbox = Guard::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        assert_eq!(sandbox.line(), "begun");
        assert!(mount.dir.is_dir());
        sandbox
    };
    let mut holder = mount.actor(Some("w1"));
    holder.claim("held").unwrap();
    for is_busy in [true, false] {
        let _sandbox = inside(&mount);
        let start = Instant::now();
        let (succeeded, code) = stop(&mut mount);
        assert_eq!(code, Some(0), "the unit has not failed");
        assert!(start.elapsed() < Duration::from_secs(8));
        // The holder has its working directory in the first mount.
        assert_eq!(succeeded, !is_busy);
        let start = Instant::now();
        mount.start(&[]);
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(mount.claims(), ["held"]);
    }
}

#[test]
fn the_script_that_installs_the_benchs_peers_says_how_it_is_used_and_installs_nothing_by_mistake() {
    let run = |arguments: &[&str]| {
        let mut script = Command::new(script("bench-peers"));
        text(&script.args(arguments).output().unwrap())
    };
    let (code, out, err) = run(&["--help"]);
    assert_eq!((code, &*err), (0, ""));
    assert_eq!(out, "usage: bench-peers [--install-only | --no-install]\n");
    for wrong in [&["--nonsense"][..], &["--install-only", "--no-install"]] {
        let (code, out, err) = run(wrong);
        assert_eq!((code, &*out), (2, ""));
        assert!(err.starts_with("usage: bench-peers "), "{err}");
    }
}
