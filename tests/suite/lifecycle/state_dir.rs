//! The state directory: where it may be, and that no other user reads, locks or changes its files.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{
    CLAIMFS, Guard, Mount, TempDir, can_mount, plain, root_or_skip, text, unmount, wait_until,
};

/// `claimfs mount`, in the background.
fn mount(state: &Path, dir: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(CLAIMFS);
    command
        .args(["mount", "--state-dir"])
        .arg(state)
        .args(arguments)
        .arg(dir);
    plain(&mut command);
    let output = command.current_dir("/").stdin(Stdio::null()).output();
    let (code, _, err) = text(&output.unwrap());
    (code, err)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Everything in a directory and below it, with its mode.
fn modes(dir: &Path) -> Vec<(String, u32)> {
    let mut modes = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        modes.push((path.display().to_string(), mode(&path)));
        if path.is_dir() {
            modes.extend(self::modes(&path));
        }
    }
    modes
}

struct Cleanup<'a>(&'a Path);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        _ = Command::new(CLAIMFS).arg("umount").arg(self.0).output();
        unmount(self.0);
    }
}

#[test]
fn a_state_directory_that_the_mount_would_hide_is_refused_before_anything_is_made() {
    if !can_mount() {
        return;
    }
    let temp = TempDir::new();
    let dir = temp.path().join("dir");
    fs::create_dir_all(dir.join("there")).unwrap();
    symlink(&dir, temp.path().join("link")).unwrap();
    symlink("dir/there", temp.path().join("deep")).unwrap();
    for state in [
        "dir",
        "dir/.state",
        "dir/a/b/c",
        "dir/there",
        "link/.state",
        "deep",
        "deep/x",
        "none/../dir/x",
        "dir/../dir/x",
    ] {
        let (code, err) = mount(&temp.path().join(state), &dir, &["-o", "nonempty"]);
        assert!(
            code == 3
                && err.contains("the state directory may not be in ")
                && err.contains("keep it outside of"),
            "{state}: {err}"
        );
        assert_eq!(
            fs::read_dir(&dir).unwrap().count(),
            1,
            "{state}: nothing was made"
        );
    }
    let none = temp.path().join("new");
    let (code, err) = mount(&none.join("state"), &none, &[]);
    assert!(code == 3 && err.contains("may not be in "), "{err}");
    assert!(!none.exists());
    // The other way round it may be, but where the server keeps files of its own.
    let state = temp.path().join("state");
    let (code, err) = mount(&state, &state.join("texts"), &[]);
    assert!(code == 3 && !state.exists(), "{err}");
    fs::create_dir_all(state.join("texts")).unwrap();
    set_mode(&state, 0o700);
    let (code, err) = mount(&state, &state.join("texts"), &[]);
    assert!(
        code == 3 && err.contains("the server keeps files of its own here"),
        "{err}"
    );
    let inside = state.join("mount");
    let _cleanup = Cleanup(&inside);
    let (code, err) = mount(&state, &inside, &[]);
    assert_eq!(code, 0, "{err}");
    // A similar name is another.
    assert!(temp.path().join("dir").is_dir());
    let beside = temp.path().join("dir-state");
    let _cleanup = Cleanup(&dir);
    let (code, err) = mount(&beside, &dir, &["-o", "nonempty"]);
    assert_eq!(code, 0, "{err}");
}

#[test]
fn a_state_directory_that_is_reached_through_a_mount_is_refused() {
    if !root_or_skip("bind a directory") {
        return;
    }
    let Some(other) = Mount::new() else { return };
    let temp = TempDir::new();
    let (dir, bound) = (temp.path().join("dir"), temp.path().join("bound"));
    fs::create_dir(&dir).unwrap();
    fs::create_dir(&bound).unwrap();
    // In a mount namespace of its own, so that nothing of it is left behind.
    let script =
        "mount --bind $1 $2 && exec \"$claimfs\" mount --state-dir $2/state -o nonempty $1";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(&dir)
        .arg(&bound);
    plain(&mut command);
    let (code, _, err) = text(&command.env("claimfs", CLAIMFS).output().unwrap());
    assert!(
        code == 3 && err.contains("the state directory may not be in "),
        "{err}"
    );
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    let mut holder = other.actor(Some("w1"));
    holder.mkdir("claims/dir").unwrap();
    let (code, err) = mount(&other.path("claims/dir/state"), &dir, &[]);
    assert!(
        code == 3 && err.contains("the state directory may not be in a claimfs"),
        "{err}"
    );
}

#[test]
fn nobody_else_reads_or_locks_what_is_in_it_whatever_its_mode_and_the_umask() {
    if !root_or_skip("be another user") || !can_mount() {
        return;
    }
    let temp = TempDir::new();
    set_mode(temp.path(), 0o755);
    let (dir, state) = (temp.path().join("dir"), temp.path().join("state"));
    fs::create_dir(&state).unwrap();
    set_mode(&state, 0o755);
    // Of a claimfs from before, and of somebody else.
    for name in ["log", "lock", "journal", "upgraded", "others"] {
        fs::write(state.join(name), "").unwrap();
        set_mode(&state.join(name), 0o644);
    }
    fs::create_dir(state.join("texts")).unwrap();
    fs::write(state.join("texts/7"), "").unwrap();
    let _cleanup = Cleanup(&dir);
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "umask 0; exec \"$0\" mount --state-dir $1 $2",
        CLAIMFS,
    ]);
    plain(&mut command);
    let mounted = command
        .arg(&state)
        .arg(&dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(text(&mounted).0, 0, "{mounted:?}");
    // Texts that are read in several reads, a server that dies, and an upgrade.
    let script = "cd $0; exec 3< README; head -c 1 <&3; kill -9 $(cat $1/serving); cat README; exec \"$2\" upgrade $0";
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .arg(&dir)
        .arg(&state)
        .arg(CLAIMFS);
    let used = command.output().unwrap();
    assert!(used.status.success(), "{used:?}");
    for (path, mode) in modes(&state) {
        let expected = if path.ends_with("/others") {
            0o644
        } else if Path::new(&path).is_dir() {
            0o700
        } else {
            0o600
        };
        assert_eq!(mode, expected, "{path}");
    }
    assert_eq!(mode(&state), 0o755, "the directory is as it was");
    let script = "cat $0/journal || flock --nonblock $0/lock true || flock --shared --nonblock $0/serving true";
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=1001",
        "--regid=1001",
        "--clear-groups",
        "sh",
        "-c",
        script,
    ]);
    let (code, _, err) = text(&command.arg(&state).output().unwrap());
    assert!(
        code != 0 && err.matches("Permission denied").count() == 3,
        "{err}"
    );
}

#[test]
fn one_that_others_can_change_is_refused_with_the_remedy() {
    if !root_or_skip("give directories away") || !can_mount() {
        return;
    }
    let temp = TempDir::new();
    let (dir, state) = (temp.path().join("dir"), temp.path().join("state"));
    fs::create_dir(&state).unwrap();
    let refused = |said: &[String]| {
        let (code, err) = mount(&state, &dir, &[]);
        assert!(
            code == 3 && said.iter().all(|said| err.contains(said)),
            "{err}"
        );
        assert_eq!(fs::read_dir(&state).unwrap().count(), 0, "{err}");
        assert!(!dir.exists(), "{err}");
    };
    let shown = state.display();
    for mode in [0o777, 0o775, 0o757, 0o1777, 0o720] {
        set_mode(&state, mode);
        refused(&[
            format!("(mode {mode:04o})"),
            format!("'chmod go-w {shown}'"),
        ]);
    }
    set_mode(&state, 0o700);
    chown(&state, Some(1001), None).unwrap();
    refused(&[
        String::from("owned by uid 1001"),
        format!("'chown 0 {shown}'"),
    ]);
    chown(&state, Some(0), None).unwrap();
    let lock = state.join("lock");
    fs::write(&lock, "").unwrap();
    chown(&lock, Some(1001), None).unwrap();
    let (code, err) = mount(&state, &dir, &[]);
    let remedy = format!("'chown -h 0 {}'", lock.display());
    assert!(code == 3 && err.contains(&remedy), "{err}");
    chown(&lock, Some(0), None).unwrap();
    let _cleanup = Cleanup(&dir);
    let (code, err) = mount(&state, &dir, &[]);
    assert_eq!(code, 0, "{err}");
}

#[test]
fn a_server_that_is_restarted_or_upgraded_in_one_that_others_can_change_goes_on_and_says_so() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.actor(Some("w1"));
    holder.claim("x").unwrap();
    set_mode(&mount.state, 0o777);
    let warnings = || {
        mount
            .log()
            .matches("others may write to the state directory")
            .count()
    };
    assert_eq!(warnings(), 0);
    mount.kill_server();
    wait_until("another takes over", || {
        mount.server().is_some() && mount.claims() == ["x"]
    });
    wait_until("it says so", || warnings() == 1);
    let upgraded = Command::new(CLAIMFS)
        .arg("upgrade")
        .arg(&mount.dir)
        .output()
        .unwrap();
    assert!(upgraded.status.success(), "{upgraded:?}");
    assert_eq!(mount.claims(), ["x"]);
    wait_until("it says so again", || warnings() == 2);
}

#[test]
fn a_lock_that_is_no_file_or_is_anothers_is_explained_and_nobody_is_ended_for_it() {
    if !can_mount() {
        return;
    }
    let temp = TempDir::new();
    let (dir, state) = (temp.path().join("dir"), temp.path().join("state"));
    fs::create_dir(&state).unwrap();
    set_mode(&state, 0o700);
    let (lock, target) = (state.join("lock"), temp.path().join("target"));
    let makers: [(&str, &dyn Fn()); 3] = [
        ("a symbolic link", &|| symlink(&target, &lock).unwrap()),
        ("a directory", &|| fs::create_dir(&lock).unwrap()),
        ("a pipe", &|| {
            assert!(
                Command::new("mkfifo")
                    .arg(&lock)
                    .status()
                    .unwrap()
                    .success()
            );
        }),
    ];
    for (what, make) in makers {
        make();
        let (code, err) = mount(&state, &dir, &[]);
        assert!(
            code == 3 && err.contains("/lock: not a regular file; remove it"),
            "{what}: {err}"
        );
        assert!(!target.exists());
        _ = fs::remove_file(&lock).or_else(|_| fs::remove_dir(&lock));
    }
    let mut flock = Command::new("sh");
    flock
        .args(["-c", "exec 3> \"$0\"; flock 3; echo locked; read x"])
        .arg(&lock);
    let mut flock = Guard::spawn(flock.stdin(Stdio::piped()).stdout(Stdio::piped()));
    assert_eq!(flock.line(), "locked");
    let (code, err) = mount(&state, &dir, &[]);
    let who = format!("pid {} (sh)", flock.0.id());
    assert!(
        code == 3
            && err.contains(&who)
            && err.contains("which is no claimfs, has a lock on this file"),
        "{err}"
    );
    assert!(!err.contains("--state-dir"), "{err}");
    assert!(flock.0.try_wait().unwrap().is_none(), "it was left alone");
}

#[test]
fn a_lock_that_somebody_looks_at_keeps_nobody_from_mounting() {
    let Some(mount) = Mount::unmounted() else {
        return;
    };
    fs::create_dir(&mount.state).unwrap();
    set_mode(&mount.state, 0o700);
    let lock = fs::File::create(mount.state.join("lock")).unwrap();
    lock.lock_shared().unwrap();
    let looker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(lock);
    });
    let start = Instant::now();
    let _cleanup = Cleanup(&mount.dir);
    let (code, err) = self::mount(&mount.state, &mount.dir, &[]);
    assert_eq!(code, 0, "{err} after {:?}", start.elapsed());
    looker.join().unwrap();
}

/// The names in a directory; nothing if there is none.
fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_state_directory_that_is_removed_or_moved_away_is_written_again_and_nothing_is_lost() {
    let Some(mount) = Mount::new() else { return };
    let (mut one, mut two) = (mount.actor(Some("w1")), mount.actor(Some("w2")));
    let aside = mount.state.with_extension("aside");
    let mut holder = mount.actor(Some("w1"));
    holder.claim("held").unwrap();
    let token = mount.token("held");
    let remove: [(&str, &dyn Fn()); 6] = [
        ("all", &|| fs::remove_dir_all(&mount.state).unwrap()),
        ("moved", &|| fs::rename(&mount.state, &aside).unwrap()),
        ("journal", &|| {
            fs::remove_file(mount.state.join("journal")).unwrap();
        }),
        ("tokens", &|| {
            fs::remove_file(mount.state.join("tokens")).unwrap();
        }),
        ("serving", &|| {
            fs::remove_file(mount.state.join("serving")).unwrap();
        }),
        ("lock", &|| {
            fs::remove_file(mount.state.join("lock")).unwrap();
        }),
    ];
    for (what, remove) in remove {
        remove();
        wait_until(what, || {
            let there = files(&mount.state);
            let is_there = |name: &&str| there.iter().any(|file| file == name);
            let is_locked = |name: &str| {
                let file = fs::File::open(mount.state.join(name));
                file.is_ok_and(|file| file.try_lock_shared().is_err())
            };
            ["journal", "tokens"].iter().all(is_there) && is_locked("lock") && is_locked("serving")
        });
        // Nobody else begins here.
        let beside = mount.state.with_extension("beside");
        let (code, err) = self::mount(&mount.state, &beside, &[]);
        assert_eq!(code, 3, "{what}: {err}");
        let server = mount.pid();
        mount.kill_server();
        wait_until("another server", || {
            mount.server().is_some_and(|next| next != server)
        });
        assert_eq!(two.claim("held"), Err(libc::EEXIST), "{what}");
        assert_eq!(mount.token("held"), token, "{what}");
        let name = format!("after-{what}");
        one.claim(&name).unwrap();
        assert!(mount.token(&name) > token);
        one.unlink(&format!("claims/{name}")).unwrap();
    }
    let history = mount.read("history");
    assert!(
        history.contains("\"claimed\",\"claim\":\"held\""),
        "{history}"
    );
    assert!(
        mount.log().contains("was removed or moved away"),
        "{}",
        mount.log()
    );
    one.kill();
    holder.kill();
    two.claim("held").unwrap();
}

#[test]
fn a_journal_that_is_put_in_its_place_is_set_aside() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.actor(Some("w1"));
    holder.claim("held").unwrap();
    // A backup is put in its place.
    let aside = mount.state.with_extension("aside");
    let new = mount.state.with_extension("new");
    fs::create_dir(&new).unwrap();
    set_mode(&new, 0o700);
    fs::write(new.join("journal"), "from elsewhere").unwrap();
    fs::rename(&mount.state, &aside).unwrap();
    // It may be made again at once: then the backup cannot get there.
    if fs::rename(&new, &mount.state).is_ok() {
        let set_aside = mount.state.join("journal.corrupt.0");
        wait_until("the journal", || set_aside.exists());
        assert_eq!(fs::read_to_string(set_aside).unwrap(), "from elsewhere");
    }
    wait_until("the journal", || {
        fs::metadata(mount.state.join("journal")).is_ok_and(|there| there.len() > 20)
    });
    let server = mount.pid();
    mount.kill_server();
    wait_until("another server", || {
        mount.server().is_some_and(|next| next != server)
    });
    assert_eq!(mount.actor(Some("w2")).claim("held"), Err(libc::EEXIST));
}
