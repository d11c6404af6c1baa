//! What the system's own tools start: systemd's unit, mount(8)'s helper.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use crate::support::{CLAIMFS, Guard, TempDir, can_mount, text, unmount, wait_until};

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

#[test]
fn the_unit_starts_what_there_is() {
    let unit = fs::read_to_string(script("claimfs@.service")).unwrap();
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .unwrap();
    let words: Vec<&str> = start.split(' ').collect();
    assert_eq!(words[0], "/usr/local/bin/claimfs");
    // Each option of it is one that 'claimfs mount' knows.
    let (_, help, _) = text(
        &Command::new(CLAIMFS)
            .args(["mount", "--help"])
            .output()
            .unwrap(),
    );
    for option in words.iter().filter(|word| word.starts_with("--")) {
        assert!(help.contains(option), "{option}");
    }
    // What would give it a mount namespace of its own.
    for line in unit.lines().filter(|line| !line.starts_with('#')) {
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
    let run = |arguments: &[&str]| {
        let mut helper = Command::new(script("mount.fuse.claimfs"));
        helper
            .arg(&state)
            .arg(&dir)
            .args(arguments)
            .env("PATH", &path);
        text(&helper.output().unwrap())
    };
    // As mount(8) calls it: the type is cut off, and -o has the options of the file system and its own.
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
