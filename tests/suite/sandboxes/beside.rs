//! Unmounting and mounting again while other mount namespaces, as of sandboxes, have the mount.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{
    CLAIMFS, Guard, Mount, TempDir, is_over, plain, root_or_skip, text, unmount, wait_until,
};

/// How long mounting again may take, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(5);

/// A script in a mount namespace of its own, which has all that is mounted now. It has begun once
/// it has said a line.
fn sandbox(mount: &Mount, session: &str, script: &str) -> Guard {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]);
    plain(&mut command);
    command
        .env("dir", &mount.dir)
        .env("CLAIMFS_SESSION", session)
        .current_dir("/");
    let mut guard = Guard::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    assert_eq!(guard.line(), "begun");
    guard
}

/// One that only is there.
fn idle(mount: &Mount) -> Guard {
    sandbox(mount, "idle", "echo begun; read x")
}

/// One that holds a name.
fn holding(mount: &Mount, name: &str) -> Guard {
    sandbox(
        mount,
        name,
        &format!("mkdir $dir/claims/{name} && echo begun; read x"),
    )
}

fn claimfs(mount: &Mount, verb: &str, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(CLAIMFS);
    command.arg(verb);
    if verb == "mount" {
        command
            .arg("--no-agents")
            .arg("--state-dir")
            .arg(&mount.state);
    }
    plain(&mut command);
    let command = command.args(arguments).arg(&mount.dir).current_dir("/");
    text(&command.stdin(Stdio::null()).output().unwrap())
}

fn umount_8(dir: &Path, lazy: bool) {
    let mut command = Command::new("umount");
    command.args(lazy.then_some("--lazy")).arg(dir);
    assert!(command.status().unwrap().success());
}

/// The mount as the processes of a sandbox see it.
fn in_sandbox(sandbox: &Guard, mount: &Mount) -> Option<i32> {
    let path = format!(
        "/proc/{}/root{}/leases",
        sandbox.0.id(),
        mount.dir.display()
    );
    fs::read(path).err().and_then(|error| error.raw_os_error())
}

fn pid(state: &Path, lock: &str) -> u32 {
    let text = fs::read_to_string(state.join(lock)).unwrap();
    text.trim().parse().unwrap()
}

/// Ends what `claimfs mount` has put into the background.
struct Background {
    state: PathBuf,
    dir: PathBuf,
}

impl Background {
    fn of(mount: &Mount) -> Self {
        let (state, dir) = (mount.state.clone(), mount.dir.clone());
        Self { state, dir }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let lock = self.state.join("lock");
        let is_locked = || fs::File::open(&lock).is_ok_and(|lock| lock.try_lock_shared().is_err());
        // It takes its pid out of the lock when it ends.
        let said = fs::read_to_string(&lock).unwrap_or_default();
        if let Ok(supervisor) = said.trim().parse()
            && is_locked()
        {
            unsafe { libc::kill(supervisor, libc::SIGTERM) };
        }
        let deadline = Instant::now() + SOON;
        while is_locked() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        unmount(&self.dir);
    }
}

#[test]
fn umount_names_who_has_the_mount_elsewhere_and_ends_it_for_them() {
    if !root_or_skip("make mount namespaces") {
        return;
    }
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let sandbox = idle(&mount);
    let (supervisor, server) = (mount.supervisor(), mount.pid());
    assert_eq!(in_sandbox(&sandbox, &mount), None);
    let (code, out, err) = claimfs(&mount, "umount", &[]);
    assert_eq!((code, &*out), (0, ""), "{err}");
    for said in [
        "other mount namespaces have this mount, too",
        &format!("pid {} (sh)", sandbox.0.id()),
        "ENOTCONN ('Transport endpoint is not connected')",
    ] {
        assert!(err.contains(said), "{said}: {err}");
    }
    assert!(is_over(server) && is_over(supervisor), "both have ended");
    assert_eq!(mount.wait(), Some(0));
    assert_eq!(in_sandbox(&sandbox, &mount), Some(libc::ENOTCONN));
}

/// How a mount comes to an end, or to be without its supervisor.
type Way = fn(&mut Mount);

#[test]
fn mounting_again_beside_a_sandbox_leaves_every_lease_held_that_a_living_process_of_it_holds() {
    if !root_or_skip("make mount namespaces") {
        return;
    }
    let ways: [(&str, Way); 6] = [
        ("claimfs umount", |mount| {
            assert_eq!(claimfs(mount, "umount", &[]).0, 0);
        }),
        ("claimfs umount --lazy", |mount| {
            assert_eq!(claimfs(mount, "umount", &["--lazy"]).0, 0);
        }),
        ("umount(8)", |mount| umount_8(&mount.dir, false)),
        ("the death of the supervisor", Mount::kill_supervisor),
        ("the death of the supervisor, and umount(8)", |mount| {
            mount.kill_supervisor();
            umount_8(&mount.dir, false);
        }),
        ("the death of both", Mount::kill),
    ];
    for (way, leave) in ways {
        let Some(mut mount) = Mount::new() else {
            return;
        };
        let (living, mut dead) = (holding(&mount, "living"), holding(&mount, "dead"));
        let old = mount.pid();
        leave(&mut mount);
        dead.0.kill().unwrap();
        dead.0.wait().unwrap();
        let start = Instant::now();
        let _background = Background::of(&mount);
        let (code, _, err) = claimfs(&mount, "mount", &[]);
        let took = start.elapsed();
        assert_eq!(code, 0, "{way}: {err}");
        assert!(took < SOON, "{way}: {took:?}");
        assert!(!err.contains("--state-dir"), "{way}: {err}");
        assert!(is_over(old), "{way}: there is one server");
        assert_eq!(mount.claims(), ["living"], "{way}");
        assert_eq!(
            mount.actor(Some("other")).mkdir("claims/living"),
            Err(libc::EEXIST),
            "{way}"
        );
        assert_eq!(in_sandbox(&living, &mount), Some(libc::ENOTCONN), "{way}");
        drop(living);
        wait_until("the name is free", || mount.claims().is_empty());
    }
}

#[test]
fn mount_says_whom_it_concerns_that_the_server_from_before_ends() {
    if !root_or_skip("make mount namespaces") {
        return;
    }
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let sandbox = idle(&mount);
    umount_8(&mount.dir, false);
    let _background = Background::of(&mount);
    let (code, _, err) = claimfs(&mount, "mount", &[]);
    assert_eq!(code, 0, "{err}");
    let who = format!("pid {} (sh)", sandbox.0.id());
    assert!(
        err.contains("the server from before ends") && err.contains(&who),
        "{err}"
    );
    assert_eq!(mount.wait(), Some(0));
}

#[test]
fn a_server_from_before_that_does_not_react_is_killed() {
    if !root_or_skip("make mount namespaces") {
        return;
    }
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let _sandbox = holding(&mount, "living");
    let (supervisor, server) = (mount.supervisor(), mount.pid());
    umount_8(&mount.dir, false);
    for pid in [server, supervisor] {
        unsafe { libc::kill(pid as i32, libc::SIGSTOP) };
    }
    let _background = Background::of(&mount);
    let (code, _, err) = claimfs(&mount, "mount", &[]);
    assert_eq!(code, 0, "{err}");
    assert!(is_over(server) && is_over(supervisor));
    mount.kill_supervisor();
    assert_eq!(mount.claims(), ["living"]);
}

#[test]
fn a_signal_ends_a_keeper_whose_mount_is_gone_and_leaves_what_is_mounted_there_now() {
    if !root_or_skip("make mount namespaces") {
        return;
    }
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let sandbox = idle(&mount);
    umount_8(&mount.dir, false);
    let tmpfs = Command::new("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(&mount.dir)
        .status();
    assert!(tmpfs.unwrap().success());
    let device = fs::metadata(&mount.dir).unwrap().dev();
    let supervisor = mount.supervisor();
    unsafe { libc::kill(supervisor as i32, libc::SIGTERM) };
    wait_until("the supervisor ends", || is_over(supervisor));
    assert_eq!(mount.wait(), Some(0));
    assert_eq!(fs::metadata(&mount.dir).unwrap().dev(), device);
    umount_8(&mount.dir, false);
    assert_eq!(in_sandbox(&sandbox, &mount), Some(libc::ENOTCONN));
}

#[test]
fn a_server_that_dies_after_its_mount_is_gone_leaves_what_is_mounted_there_now() {
    if !root_or_skip("make mount namespaces") {
        return;
    }
    // As on a kernel that sends nothing again, where the mount is removed and made again.
    let Some(mut mount) = Mount::with(&["--without-resend", "-o", "nonempty"]) else {
        return;
    };
    let _sandbox = idle(&mount);
    umount_8(&mount.dir, false);
    let tmpfs = Command::new("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(&mount.dir)
        .status();
    assert!(tmpfs.unwrap().success());
    fs::write(mount.path("other"), "").unwrap();
    let supervisor = mount.supervisor();
    unsafe { libc::kill(mount.pid() as i32, libc::SIGKILL) };
    wait_until("the supervisor ends", || is_over(supervisor));
    assert_eq!(mount.wait(), Some(3), "there is nothing to keep any more");
    assert!(mount.path("other").exists(), "the other mount is as it was");
    assert!(!mount.path("claims").exists());
    umount_8(&mount.dir, false);
}

#[test]
fn a_signal_ends_a_mount_that_a_sandbox_has_too() {
    if !root_or_skip("make mount namespaces") {
        return;
    }
    for whom in [Mount::supervisor, Mount::pid] {
        let Some(mut mount) = Mount::new() else {
            return;
        };
        let sandbox = idle(&mount);
        let start = Instant::now();
        let supervisor = mount.supervisor();
        unsafe { libc::kill(whom(&mount) as i32, libc::SIGTERM) };
        wait_until("the supervisor ends", || is_over(supervisor));
        assert_eq!(mount.wait(), Some(0));
        assert!(start.elapsed() < SOON);
        assert_eq!(in_sandbox(&sandbox, &mount), Some(libc::ENOTCONN));
    }
}

#[test]
fn another_place_in_the_same_namespace_keeps_its_server() {
    if !root_or_skip("bind a mount") {
        return;
    }
    let Some(mount) = Mount::new() else { return };
    let temp = TempDir::new();
    let bind = || {
        let mut command = Command::new("mount");
        let command = command.arg("--bind").arg(&mount.dir).arg(temp.path());
        assert!(command.status().unwrap().success());
    };
    bind();
    let umount = |dir: &Path| {
        text(
            &Command::new(CLAIMFS)
                .arg("umount")
                .arg(dir)
                .output()
                .unwrap(),
        )
    };
    let (code, _, err) = umount(temp.path());
    let said = format!("are mounted on {}, too", mount.dir.display());
    assert!(code == 0 && err.contains(&said), "{err}");
    mount.actor(Some("w1")).claim("x").unwrap();
    bind();
    assert_eq!(claimfs(&mount, "umount", &[]).0, 0);
    assert!(temp.path().join("claims").is_dir(), "it answers there");
    let (code, _, err) = claimfs(&mount, "mount", &[]);
    let bound = temp.path().display();
    assert!(
        code == 3
            && err.contains(&format!("still has it mounted on {bound}"))
            && err.contains(&format!("'claimfs umount {bound}'")),
        "{err}"
    );
    assert!(!err.contains("--state-dir"), "{err}");
    let (code, out, err) = umount(temp.path());
    assert_eq!((code, &*out), (0, ""), "{err}");
    // A mount namespace that another test makes meanwhile has a copy of this mount, which is said.
    let is_of_copies = |line: &str| line.contains("other mount namespaces have this mount, too");
    assert!(err.lines().all(is_of_copies), "{err}");
    assert!(is_over(mount.supervisor()));
}

#[test]
fn a_server_whose_mount_lives_in_another_namespace_is_left_alone_and_named() {
    if !root_or_skip("make mount namespaces") {
        return;
    }
    let Some(mount) = Mount::unmounted() else {
        return;
    };
    fs::create_dir(&mount.dir).unwrap();
    let script = "\"$claimfs\" mount --no-agents --state-dir $state $dir > /dev/null && echo begun; read x; \
                  \"$claimfs\" umount $dir; echo ended; read x";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]);
    plain(&mut command);
    command
        .env("claimfs", CLAIMFS)
        .env("dir", &mount.dir)
        .env("state", &mount.state);
    command
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut inside = Guard::spawn(&mut command);
    assert_eq!(inside.line(), "begun");
    let server = pid(&mount.state, "serving");
    for keeper_is_there in [true, false] {
        let (code, _, err) = claimfs(&mount, "mount", &[]);
        let way_out = format!(
            "'nsenter --target {server} --mount umount {}'",
            mount.dir.display()
        );
        assert!(
            code == 3
                && err.contains(&format!("its server, pid {server} (claimfs)"))
                && err.contains("lives in another mount namespace")
                && err.contains(&way_out),
            "{err}"
        );
        assert!(!err.contains("--state-dir"), "{err}");
        assert!(!is_over(server));
        if keeper_is_there {
            let supervisor = pid(&mount.state, "lock");
            unsafe { libc::kill(supervisor as i32, libc::SIGKILL) };
            wait_until("it is gone", || is_over(supervisor));
        }
    }
    std::io::Write::write_all(inside.0.stdin.as_mut().unwrap(), b"\n").unwrap();
    assert_eq!(inside.line(), "ended");
    let _background = Background::of(&mount);
    assert_eq!(claimfs(&mount, "mount", &[]).0, 0);
}

#[test]
fn umount_in_a_sandbox_is_the_sandboxs_alone() {
    if !root_or_skip("make mount namespaces") {
        return;
    }
    let Some(mount) = Mount::new() else { return };
    let server = mount.pid();
    let mut command = Command::new("unshare");
    command.args(["--mount", CLAIMFS, "umount"]).arg(&mount.dir);
    let said = text(&command.current_dir("/").output().unwrap());
    assert_eq!(said, (0, String::new(), String::new()));
    mount.actor(Some("w1")).claim("x").unwrap();
    assert_eq!(mount.pid(), server);
}

#[test]
fn of_two_that_mount_again_at_once_one_does_and_neither_ends_the_other() {
    if !root_or_skip("make mount namespaces") {
        return;
    }
    for _ in 0..5 {
        let Some(mount) = Mount::new() else { return };
        let _sandbox = holding(&mount, "living");
        umount_8(&mount.dir, false);
        let _background = Background::of(&mount);
        let both: Vec<_> = std::thread::scope(|scope| {
            let threads = [0, 1].map(|_| scope.spawn(|| claimfs(&mount, "mount", &[])));
            threads.map(|thread| thread.join().unwrap()).into()
        });
        let mounted = both.iter().filter(|(code, _, _)| *code == 0).count();
        assert_eq!(mounted, 1, "{both:?}");
        assert!(
            !both.iter().any(|(_, _, err)| err.contains("--state-dir")),
            "{both:?}"
        );
        assert_eq!(mount.claims(), ["living"], "{both:?}");
    }
}
