//! A tree walk is no administrator: programs that delete or "repair" all that they find take
//! nothing from anybody else, as any user.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use serde_json::{Value, json};

use crate::support::{Actor, Guard, Mount, TempDir, plain, root_or_skip, text};

const USER: u32 = 4242;

/// The scripts of strangers, for `$M`, the mount, and `$R`, the repository that it lies in. `$E` is
/// an empty directory, `$O` one for what is moved away.
const STRANGERS: &[&str] = &[
    "rm -rf $M",
    "rm -rf $R",
    "rm -f $M/claims/* $M/sessions/*",
    "rmdir $M/claims/* $M/sessions/*",
    "cd $R && git clean -fdxq",
    "cd $R && git clean -ffdxq",
    "cd $R && git stash -u -q",
    "find $M -delete",
    "find $M -depth -exec rm -rf {} +",
    "find $M -size 0 -delete",
    "find $M -type f -mmin +0 -delete",
    "find $R -empty -delete",
    "rsync -r --delete $E/ $M/",
    "rsync -a --delete $E/ $M/",
    "rsync -a --delete --force $E/ $R/",
    "busybox rm -rf $M",
    "python3 -c \"import shutil; shutil.rmtree('$M', ignore_errors=True)\"",
    "perl -e 'unlink glob(\"$ENV{M}/*/*\"); rmdir for glob(\"$ENV{M}/*/*\")'",
    "node -e \"require('fs').rmSync('$M', {recursive: true, force: true})\"",
    "mv $M/claims/* $O; mv $M/sessions/* $O",
    "mv -f $E $M/claims/x",
    "cp /dev/null $M/sessions/w1; cp -f /dev/null $M/claims/x",
    "chmod -R 777 $M",
    "chmod -R a-rwx $M",
    "chown -R 4242:4242 $M",
    "chown -R 0:0 $M",
    "find $M -exec touch {} +",
    "find $M -exec touch -c {} +",
    "find $M -exec touch -d yesterday {} +",
    "find $M -type f -exec sed -i s/a/b/ {} +",
    "find $M -type f -exec perl -pi -e s/a/b/ {} +",
    "find $M -type f -exec truncate -s 0 {} +",
    "find $M -type f -exec truncate -s 9 {} +",
    "find $M -type f -exec dd if=/dev/null conv=notrunc status=none of={} ;",
    "for f in $M/*/*; do : > $f; done",
    "for f in $M/*/*; do : >> $f; done",
    "python3 -c \"import os; [os.utime(os.path.join(d, f)) for d, _, fs in os.walk('$M') for f in fs]\"",
];

/// Everything that somebody has: leases, sessions, places in lines, what directory claims contain.
fn everything(mount: &Mount) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for file in ["leases", "waiters"] {
        all.extend(mount.read(file).lines().map(String::from));
    }
    // The first line of `leases` counts events.
    all.retain(|line| !line.starts_with("{\"seq\""));
    let mut sessions: Vec<_> = fs::read_dir(mount.path("sessions")).unwrap().collect();
    sessions.sort_by_key(|entry| entry.as_ref().unwrap().file_name());
    for session in sessions {
        all.push(fs::read_to_string(session.unwrap().path()).unwrap());
    }
    let mut all: Vec<String> = all.iter().map(|line| without_times_left(line)).collect();
    for inside in ["claims/d/file", "claims/d/sub/more", "claims/body"] {
        all.push(fs::read_to_string(mount.path(inside)).unwrap());
    }
    let target = fs::read_link(mount.path("claims/s")).unwrap();
    all.push(target.to_str().unwrap().to_owned());
    all
}

fn without_times_left(line: &str) -> String {
    let mut record: Value = serde_json::from_str(line).unwrap();
    let Some(object) = record.as_object_mut() else {
        return line.to_owned();
    };
    object.retain(|key, _| !key.contains("left") && !key.contains("expires"));
    record.to_string()
}

/// A script of a stranger, which may fail; what it says is of no interest.
fn stranger(mount: &Mount, temp: &Path, uid: u32, script: &str) {
    let mut command = Command::new("sh");
    let words = format!("exec 2> /dev/null > /dev/null\n{script}");
    command.arg("-c").arg(words).current_dir("/");
    plain(&mut command);
    command
        .env("CLAIMFS_SESSION", "stranger")
        .env("M", &mount.dir)
        .env("R", temp.join("repo"))
        .env("E", temp.join("empty"))
        .env("O", temp.join("out"))
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .stdin(Stdio::null());
    if uid != 0 {
        command.uid(uid).gid(uid);
    }
    command.status().unwrap();
}

/// Makes the directories around the mount again, as earlier strangers may have emptied them.
fn repository(temp: &Path) {
    for dir in ["empty", "out", "repo"] {
        _ = fs::create_dir(temp.join(dir));
    }
    let script = "chmod 777 . empty out repo; cd repo && rm -rf .git && git init -q . && echo locks/ > .gitignore \
        && echo text > kept && git add -A && git -c user.name=a -c user.email=a@b commit -qm x && chmod -R a+rwX .git";
    let mut sh = Command::new("sh");
    let made = sh.args(["-c", script]).current_dir(temp).output().unwrap();
    assert!(made.status.success(), "{:?}", text(&made));
}

#[test]
fn whoever_deletes_or_repairs_all_that_there_is_takes_nothing_from_others() {
    if !root_or_skip("run a cleaner as root and as another user") {
        return;
    }
    let Some(mut mount) = Mount::unmounted() else {
        return;
    };
    let temp = TempDir::new();
    repository(temp.path());
    mount.dir = temp.path().join("repo/locks");
    fs::create_dir(&mount.dir).unwrap();
    mount.start(&["--allow-other"]);
    let mut worker = mount.actor(Some("w1"));
    worker.claim("x").unwrap();
    worker.mkdir("claims/d").unwrap();
    worker.mkdir("claims/d/sub").unwrap();
    worker.symlink("nowhere", "claims/s").unwrap();
    for (name, body) in [
        ("d/file", "inside"),
        ("d/sub/more", "below"),
        ("body", "text\n"),
    ] {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        let fd = worker.open(&format!("claims/{name}"), flags).unwrap();
        worker.write(fd, body).unwrap();
        worker.close(fd).unwrap();
    }
    let mut terminal = mount.actor(None);
    terminal.claim("typed").unwrap();
    let mut user = Actor::start(&mount, Some("u1"), |command| {
        command.uid(USER).gid(USER);
    });
    user.claim("users").unwrap();
    let held = |script: &str| {
        let mut command = mount.sh(script);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut guard = Guard::spawn(&mut command);
        assert_eq!(guard.line(), "done");
        guard
    };
    let _registered = held("echo $$ > sessions/r1; echo > claims/reg; echo done; read x");
    let inside =
        "exec unshare --pid --fork --kill-child sh -c 'echo > claims/boxed; echo done; read x'";
    let _sandbox = held(inside);
    let named = json!({"claim": "far", "session": "far1", "seconds": 3600});
    fs::write(mount.path("control"), named.to_string()).unwrap();
    let mut waiter = mount.actor(Some("q1"));
    let place = waiter.open("queue/x", libc::O_RDONLY).unwrap();
    let before = everything(&mount);
    assert_eq!(
        before
            .iter()
            .filter(|line| line.contains("\"token\""))
            .count(),
        9
    );
    let mut changed = Vec::new();
    for script in STRANGERS {
        for uid in [0, USER] {
            stranger(&mount, temp.path(), uid, script);
            if env::var_os("CLAIMFS_TEST_TABLE").is_some() {
                eprintln!("uid {uid}: {script}");
            }
            let after = everything(&mount);
            if after != before {
                changed.push((uid, script, after));
            }
        }
        repository(temp.path());
    }
    for (uid, script, after) in &changed {
        eprintln!("uid {uid}: {script}: {after:#?}");
    }
    assert!(changed.is_empty(), "of {before:#?}");
    worker.unlink("claims/x").unwrap();
    assert!(
        waiter.poll(place, 10_000).unwrap(),
        "its place in the line is its own still"
    );
}

#[test]
fn a_session_is_ended_by_its_own_processes_and_on_purpose_by_its_uid_and_root() {
    let Some(mount) = Mount::new() else { return };
    let mut stranger = mount.actor(Some("stranger"));
    // Rules 1 to 3: one of its processes removes its file.
    let mut worker = mount.actor(Some("w1"));
    worker.claim("x").unwrap();
    assert_eq!(stranger.unlink("sessions/w1"), Err(libc::EBUSY));
    worker.unlink("sessions/w1").unwrap();
    assert_eq!(worker.unlink("sessions/w1"), Err(libc::ENOENT));
    let own = "echo $$ > sessions/r1; echo > claims/x; sh -c 'rm sessions/r1'; ls claims sessions";
    assert_eq!(
        mount.run(own),
        "claims:\n\nsessions:\nstranger\n".replace("stranger\n", "")
    );
    // Rules 4 and 5: nobody does, since others may just happen to be in it.
    let mut terminal = mount.actor(None);
    terminal.claim("x").unwrap();
    let id = mount.record("x").unwrap()["session"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(terminal.unlink(&format!("sessions/{id}")), Err(libc::EBUSY));
    assert_eq!(mount.claims(), ["x"]);
    mount.end_session(&id);
    assert_eq!(mount.claims(), [""; 0]);
    // One without processes: by whoever may claim for it, and not by its file.
    let named = json!({"claim": "far", "session": "far1", "seconds": 3600});
    fs::write(mount.path("control"), named.to_string()).unwrap();
    assert_eq!(stranger.unlink("sessions/far1"), Err(libc::EBUSY));
    let ended = mount.claimfs(&["session", "end", "far1"]).output().unwrap();
    assert_eq!(text(&ended), (0, String::new(), String::new()));
    assert_eq!(mount.claims(), [""; 0]);
    let again = mount.claimfs(&["session", "end", "far1"]).output().unwrap();
    assert_eq!(text(&again).0, 4, "it has ended");
}

#[test]
fn to_open_a_session_and_write_nothing_joins_it_not() {
    let Some(mount) = Mount::new() else { return };
    let mut worker = mount.actor(Some("w1"));
    worker.claim("x").unwrap();
    let before = mount.read("sessions/w1");
    for script in [
        "touch sessions/w1",
        ": > sessions/w1",
        ": >> sessions/w1",
        "cp /dev/null sessions/w1",
    ] {
        mount.run(&format!("sh -c '{script}'; cat self > /dev/null"));
        assert_eq!(mount.read("sessions/w1"), before, "{script}");
    }
}
