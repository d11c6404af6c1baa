//! The life of a mount: refused mounts and their messages, the ways to end it, and that it sleeps
//! while nothing happens.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{
    CLAIMFS, Guard, Mount, TempDir, can_mount, plain, root_or_skip, text, unmount, wait_until,
};

/// `claimfs mount`, in the background, with a state directory beside the mountpoint.
fn mount(temp: &TempDir, arguments: &[&str], dir: &Path) -> (i32, String, String) {
    let mut command = Command::new(CLAIMFS);
    command
        .args(["mount", "--state-dir"])
        .arg(temp.path().join("state"))
        .args(arguments)
        .arg(dir);
    plain(&mut command);
    text(
        &command
            .current_dir(temp.path())
            .stdin(Stdio::null())
            .output()
            .unwrap(),
    )
}

fn umount(dir: &Path) -> (i32, String, String) {
    text(
        &Command::new(CLAIMFS)
            .arg("umount")
            .arg(dir)
            .output()
            .unwrap(),
    )
}

fn is_mounted(dir: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts
        .lines()
        .any(|line| line.split(' ').nth(4) == dir.to_str())
}

/// Unmounts what a failed test left.
struct Cleanup<'a>(&'a Path);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        unmount(self.0);
    }
}

#[test]
fn in_the_background_it_answers_when_the_command_returns_and_says_where_it_logs() {
    if !can_mount() {
        return;
    }
    let temp = TempDir::new();
    let dir = temp.path().join("mount");
    let _cleanup = Cleanup(&dir);
    // A relative path, and a directory that does not exist yet.
    let (code, out, err) = mount(&temp, &[], Path::new("mount"));
    let log = temp.path().join("state/log");
    let said = format!(
        "claimfs: mounted on {}; its log is {}\n",
        dir.display(),
        log.display()
    );
    assert_eq!((code, out, err), (0, said, String::new()));
    assert!(
        fs::read_to_string(dir.join("README"))
            .unwrap()
            .starts_with("claimfs")
    );
    assert!(fs::read_to_string(&log).unwrap().contains("mounted on"));
    let info = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = info
        .lines()
        .find(|line| line.split(' ').nth(4) == dir.to_str())
        .unwrap();
    let (before, after) = line.split_once(" - ").unwrap();
    assert_eq!(
        after.split(' ').take(2).collect::<Vec<_>>(),
        ["fuse.claimfs", temp.path().join("state").to_str().unwrap()]
    );
    assert!(before.contains("nosuid,nodev"), "{line}");
    assert_eq!(umount(&dir), (0, String::new(), String::new()));
    assert!(!is_mounted(&dir));
    // The server is gone too, so that its place can be taken at once.
    for _ in 0..3 {
        assert_eq!(mount(&temp, &[], &dir).0, 0);
        assert_eq!(umount(&dir).0, 0);
    }
    let (code, _, err) = umount(&dir);
    assert_eq!(
        (code, err.contains("no claimfs is mounted here")),
        (3, true),
        "{err}"
    );
}

#[test]
fn what_cannot_be_mounted_on_is_refused_in_a_sentence() {
    if !can_mount() {
        return;
    }
    let temp = TempDir::new();
    let file = temp.path().join("file");
    fs::write(&file, "").unwrap();
    let (code, _, err) = mount(&temp, &[], &file);
    assert_eq!(
        (
            code,
            err.contains("/file: not a directory; name one to mount on")
        ),
        (3, true),
        "{err}"
    );
    let full = temp.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("x"), "").unwrap();
    let (code, _, err) = mount(&temp, &[], &full);
    assert_eq!(
        (
            code,
            err.contains("/full: not empty; name an empty directory")
        ),
        (3, true),
        "{err}"
    );
    let (code, _, err) = mount(&temp, &[], &temp.path().join("no/such/dir"));
    assert_eq!(
        (
            code,
            err.contains("there is no such directory and it cannot be made")
        ),
        (3, true),
        "{err}"
    );
    let (code, _, err) = mount(&temp, &["-o", "nonsense"], &temp.path().join("mount"));
    assert_eq!(
        (code, err.contains("-o nonsense: no such option")),
        (2, true),
        "{err}"
    );
    let (code, _, err) = mount(&temp, &["--session-var", "A=B"], &temp.path().join("mount"));
    assert_eq!(
        (code, err.contains("no name of an environment variable")),
        (2, true),
        "{err}"
    );
    let _cleanup = Cleanup(&full);
    assert_eq!(
        mount(
            &temp,
            &["-o", "nonempty,rw,noatime,x-systemd.automount"],
            &full
        )
        .0,
        0
    );
    let (code, _, err) = mount(&temp, &[], &full);
    assert_eq!(
        (
            code,
            err.contains("claimfs is already mounted here; use it, or unmount it with")
        ),
        (3, true),
        "{err}"
    );
    let second = temp.path().join("second");
    let (code, _, err) = mount(&temp, &[], &second);
    assert_eq!(
        (
            code,
            err.contains("/state: the state directory of the mount on ")
                && err.contains("/second one of its own with --state-dir DIR")
        ),
        (3, true),
        "{err}"
    );
    assert_eq!(umount(&full).0, 0);
}

#[test]
fn signals_unmount() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        for whom in [Mount::supervisor, Mount::pid] {
            let Some(mut mount) = Mount::new() else {
                return;
            };
            mount.actor(Some("w1")).claim("x").unwrap();
            assert_eq!(unsafe { libc::kill(whom(&mount) as i32, signal) }, 0);
            wait_until("it is unmounted", || !is_mounted(&mount.dir));
            assert_eq!(mount.stop(), Some(0));
        }
    }
}

#[test]
fn a_signal_detaches_a_mount_that_is_in_use() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let mut user = mount.actor(Some("w1"));
    let fd = user
        .open("claims/x", libc::O_RDWR | libc::O_CREAT | libc::O_EXCL)
        .unwrap();
    let (code, _, err) = umount(&mount.dir);
    assert_eq!(
        (
            code,
            err.contains("in use, by an open file or a working directory")
        ),
        (1, true),
        "{err}"
    );
    assert!(is_mounted(&mount.dir));
    assert_eq!(mount.stop(), Some(0));
    assert!(!is_mounted(&mount.dir));
    assert_eq!(user.pread(fd, 9, 0), Err(libc::ENOTCONN));
}

#[test]
fn a_dead_mount_of_its_own_is_cleaned_away_and_no_other() {
    let Some(mut dead) = Mount::new() else { return };
    dead.kill();
    assert_eq!(
        fs::metadata(&dead.dir).unwrap_err().raw_os_error(),
        Some(libc::ENOTCONN)
    );
    let (code, _, err) = text(&dead.claimfs(&["ls"]).current_dir("/").output().unwrap());
    assert_eq!(
        (
            code,
            err.contains("the server of this mount is gone; mount it again with")
        ),
        (3, true),
        "{err}"
    );
    let temp = TempDir::new();
    let (code, _, err) = mount(&temp, &[], &dead.dir);
    assert_eq!(
        (code, err.contains("the dead mount here has its state in")),
        (3, true),
        "{err}"
    );
    dead.start(&[]);
    assert_eq!(dead.claims(), [""; 0]);
    dead.kill();
    assert_eq!(umount(&dead.dir), (0, String::new(), String::new()));
}

#[test]
fn a_handler_that_fails_or_a_name_that_is_odd_does_not_end_the_server() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    let fd = me
        .open("claims/x", libc::O_RDWR | libc::O_CREAT | libc::O_EXCL)
        .unwrap();
    assert_eq!(me.pread(fd, 16, i64::MAX - 16).unwrap(), "");
    assert_eq!(me.pwrite(fd, "x", i64::MAX - 16), Err(libc::EFBIG));
    assert_eq!(me.ftruncate(fd, i64::MAX), Err(libc::EFBIG));
    me.utimes("claims/x", i64::MIN / 2, i64::MAX / 2).unwrap();
    assert_eq!(me.stat("claims/x").unwrap()["atime"], i64::MIN / 2);
    assert!(
        me.getxattr("claims/x", &format!("user.{}", "n".repeat(240)))
            .is_err()
    );
    me.claim("y").unwrap();
}

/// How often the threads of a process have given up the processor of their own accord.
fn switches(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let count = |status: String| {
        let line = status.lines().find_map(|line| {
            line.strip_prefix("voluntary_ctxt_switches:")
                .map(str::to_owned)
        });
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    tasks
        .map(|task| count(fs::read_to_string(task.unwrap().path().join("status")).unwrap()))
        .sum()
}

#[test]
fn while_nothing_happens_it_sleeps() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.actor(Some("w1"));
    for name in ["a", "b", "c"] {
        holder.claim(name).unwrap();
    }
    // The claims may still cause work; once it is done there may be none.
    let switches = || switches(mount.pid()) + switches(mount.supervisor());
    wait_until("it has come to rest", || {
        let before = switches();
        std::thread::sleep(std::time::Duration::from_millis(200));
        switches() == before
    });
    let before = switches();
    std::thread::sleep(std::time::Duration::from_secs(10));
    assert_eq!(switches(), before, "a wake-up in 10 s of rest");
}

/// A user's mounts (a user who has a name, which fusermount3 asks for): with no fusermount3 in
/// reach, without `user_allow_other`, and as they should be. The device is one that everybody may
/// open, as udev makes it.
const AS_USER: &str = r#"
mknod -m 666 "$1/fuse" c 10 229 && mount --bind "$1/fuse" /dev/fuse || exit 1
[ ! -e /etc/fuse.conf ] || mount --bind /dev/null /etc/fuse.conf || exit 1
user() { setpriv --reuid 65534 --regid 65534 --clear-groups env HOME="$home" "$@" 2>&1; }
home=$1/home
cd "$home"
echo "--- without fusermount3"
user env PATH=/nonexistent "$1/claimfs" mount "$home/m"
echo "exit $?"
echo "--- without user_allow_other"
user "$1/claimfs" mount --allow-other "$home/m"
echo "exit $?"
echo "--- as it should be"
# Also where the processes of others are hidden from it.
mount -t proc -o hidepid=2 proc /proc || exit 1
user "$1/claimfs" mount "$home/m"
echo "exit $?"
user env CLAIMFS_SESSION=u1 sh -c 'set -C; echo > m/claims/x && cat m/claims/x'
cat "$home/m/leases" 2>&1
user "$1/claimfs" umount "$home/m"
echo "exit $?"
chmod 600 "$1/fuse"
echo "--- without the device"
user "$1/claimfs" mount "$home/m"
echo "exit $?"
mount -t tmpfs none /dev
echo "--- without any device"
"$1/claimfs" mount "$home/m" 2>&1
echo "exit $?"
"#;

#[test]
fn a_user_mounts_with_fusermount3_and_is_told_what_is_missing() {
    if !root_or_skip("make a device and become another user") || !can_mount() {
        return;
    }
    if Command::new("fusermount3").arg("-V").output().is_err() {
        crate::support::skip("fusermount3 is not installed (package fuse3)");
        return;
    }
    let temp = TempDir::new();
    let home = temp.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o777)).unwrap();
    fs::copy(CLAIMFS, temp.path().join("claimfs")).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", AS_USER, "sh"])
        .arg(temp.path())
        .env_remove("XDG_STATE_HOME");
    plain(&mut command);
    let (_, out, err) = text(&command.stdin(Stdio::null()).output().unwrap());
    let parts: Vec<&str> = out.split("--- ").skip(1).collect();
    assert_eq!(parts.len(), 5, "{out}{err}");
    assert!(
        parts[0].contains(
            "only root may mount without fusermount3, which is not installed; install it"
        ),
        "{out}"
    );
    assert!(
        parts[1].contains("'user_allow_other' stands in /etc/fuse.conf; put it there"),
        "{out}"
    );
    assert!(
        parts[0].ends_with("exit 3\n") && parts[1].ends_with("exit 3\n"),
        "{out}"
    );
    assert!(
        parts[2].contains("its log is ") && parts[2].contains("home/.local/state/claimfs/"),
        "{out}"
    );
    assert!(
        parts[2].contains("\"session\":\"u1\"") && parts[2].contains("\"uid\":65534"),
        "{out}"
    );
    assert!(
        parts[2].contains("Permission denied"),
        "a private mount is its owner's alone: {out}"
    );
    assert_eq!(parts[2].matches("exit 0").count(), 2, "{out}");
    assert!(
        parts[3].contains("/dev/fuse cannot be opened") && parts[3].ends_with("exit 3\n"),
        "{out}"
    );
    assert!(
        parts[4].contains("/dev/fuse: there is no such device; load the module with")
            && parts[4].ends_with("exit 3\n"),
        "{out}"
    );
}

#[test]
fn in_the_foreground_it_logs_to_standard_error_as_much_as_rust_log_says() {
    if !can_mount() {
        return;
    }
    let temp = TempDir::new();
    let dir = temp.path().join("mount");
    let _cleanup = Cleanup(&dir);
    for (level, says) in [("info", true), ("error", false)] {
        let mut command = Command::new(CLAIMFS);
        command
            .args(["mount", "-f", "--state-dir"])
            .arg(temp.path().join("state"));
        plain(&mut command);
        let server = command
            .arg(&dir)
            .env("RUST_LOG", level)
            .stderr(Stdio::piped());
        let mut server = Guard::spawn(server);
        wait_until("it answers", || dir.join("README").exists());
        assert_eq!(unsafe { libc::kill(server.0.id() as i32, libc::SIGINT) }, 0);
        let mut log = String::new();
        std::io::Read::read_to_string(server.0.stderr.as_mut().unwrap(), &mut log).unwrap();
        assert_eq!(server.0.wait().unwrap().code(), Some(0));
        assert_eq!(log.contains("mounted on"), says, "{level}: {log}");
    }
}

#[test]
fn a_server_that_stops_for_three_seconds_is_a_stall_and_nothing_more() {
    let Some(mount) = Mount::new() else { return };
    let (mut holder, mut me) = (mount.actor(Some("holder")), mount.actor(Some("me")));
    let mut dead = mount.actor(Some("dead"));
    holder.claim("held").unwrap();
    holder
        .setxattr("claims/held", "user.claimfs.ttl", "1h", 0)
        .unwrap();
    dead.claim("stale").unwrap();
    let line = me.open("queue/held", libc::O_RDONLY).unwrap();
    let server = mount.pid() as i32;
    unsafe { libc::kill(server, libc::SIGSTOP) };
    dead.kill();
    let start = std::time::Instant::now();
    me.send("open", serde_json::json!({"path": "claims/stale", "flags": libc::O_CREAT | libc::O_EXCL, "mode": 0o644}));
    std::thread::sleep(std::time::Duration::from_secs(3));
    unsafe { libc::kill(server, libc::SIGCONT) };
    assert!(me.receive().is_ok(), "the name of the dead is granted");
    assert!(start.elapsed() >= std::time::Duration::from_secs(3));
    assert_eq!(mount.record("held").unwrap()["session"], "holder");
    holder.unlink("claims/held").unwrap();
    while !me.read(line).unwrap().is_empty() {}
    assert_eq!(mount.record("held").unwrap()["session"], "me");
}
