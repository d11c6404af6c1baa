//! Programs that read all that they find: over a mount, and over a folder that a mount is in, each
//! ends, leaves no process behind and changes nothing, and the mount can be unmounted afterwards.
//!
//! A binary of its own, which has the machine to itself: cargo runs one after the other.
//! `CLAIMFS_TEST_TABLE=1` prints how long each took (`-- --nocapture`).
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![allow(missing_docs, clippy::too_many_lines)]

// Mounts and actors that clean up after themselves.
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use serde_json::{Value, json};

use self::support::{
    Actor, Guard, Mount, TempDir, children, is_over, is_root, plain, skip, text, wait_until,
};

/// How long a program may take from its start to its end, with all that it starts.
const LIMIT: Duration = Duration::from_secs(2);

/// When one that does not end is killed.
const GIVE_UP: Duration = Duration::from_secs(10);

/// One program: what it is called, the command that must be there, what is done before the clock
/// starts, and what is run. `$D` is to be read, `$O` is an empty directory elsewhere, `$G` a git
/// directory for `$D`.
struct Walker {
    name: &'static str,
    needs: &'static str,
    before: &'static str,
    script: &'static str,
    /// It takes long to start, whatever it reads: it has the limit on top of what it takes for a
    /// plain folder of as many files.
    starts_slowly: bool,
}

const fn walker(name: &'static str, needs: &'static str, script: &'static str) -> Walker {
    Walker {
        name,
        needs,
        before: "",
        script,
        starts_slowly: false,
    }
}

const fn backup(
    name: &'static str,
    needs: &'static str,
    before: &'static str,
    script: &'static str,
) -> Walker {
    Walker {
        before,
        starts_slowly: true,
        ..walker(name, needs, script)
    }
}

const WALKERS: &[Walker] = &[
    walker("rg", "rg", "rg -uuu e \"$D\""),
    walker("grep -r", "grep", "grep -r e \"$D\""),
    walker("ag", "ag", "ag -u e \"$D\""),
    walker("busybox grep -r", "busybox", "busybox grep -r e \"$D\""),
    walker("git add -A", "git", "cd \"$D\" && git add -A"),
    walker(
        "git add -A, on",
        "git",
        "cd \"$D\" && git add -A --ignore-errors",
    ),
    walker("git stash -u", "git", "cd \"$D\" && git stash -u"),
    walker("tar", "tar", "tar -cf \"$O/x.tar\" -C \"$D\" ."),
    walker("cp -r", "cp", "cp -r \"$D\" \"$O/copy\""),
    walker("cp -a", "cp", "cp -a \"$D\" \"$O/copy\""),
    walker("rsync -a", "rsync", "rsync -a \"$D/\" \"$O/copy/\""),
    backup(
        "restic",
        "restic",
        "restic init -q",
        "restic backup -q \"$D\"",
    ),
    backup(
        "borg",
        "borg",
        "borg init -e none \"$O/borg\"",
        "borg create \"$O/borg::x\" \"$D\"",
    ),
    walker("zip -r", "zip", "zip -qr \"$O/x.zip\" \"$D\""),
    walker(
        "find -exec cat ;",
        "find",
        "find \"$D\" -type f -exec cat {} ';'",
    ),
    walker(
        "find -exec cat +",
        "find",
        "find \"$D\" -type f -exec cat {} +",
    ),
    walker(
        "copytree",
        "python3",
        "python3 -c 'import os, shutil; shutil.copytree(os.environ[\"D\"], os.environ[\"O\"] + \"/copy\", symlinks=True)'",
    ),
    walker(
        "rglob",
        "python3",
        "python3 -c 'import os, pathlib\nfor p in pathlib.Path(os.environ[\"D\"]).rglob(\"*\"):\n try: p.read_bytes()\n except OSError: pass'",
    ),
];

/// One after the other: each is to have the machine to itself.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Processes that a program leaves become children of this one, in whatever session they are.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    one
}

/// The children of this process that have not exited.
fn living() -> BTreeSet<u32> {
    let all = children(std::process::id()).into_iter();
    all.filter(|pid| !is_over(*pid)).collect()
}

/// How a program ended.
#[derive(Debug)]
struct Ended {
    /// How long it took, with all that it started.
    took: Duration,
    /// Its exit code was 0.
    well: bool,
}

/// Runs a program to its end, and to that of all that it starts; or who is still there after a
/// while.
fn run(command: &mut Command) -> Result<Ended, String> {
    plain(command);
    command
        .env("CLAIMFS_SESSION", "walker")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let before = living();
    let start = Instant::now();
    let mut child = command.spawn().unwrap();
    loop {
        let status = child.try_wait().unwrap();
        let left: Vec<u32> = living().difference(&before).copied().collect();
        if let Some(status) = status.filter(|_| left.is_empty()) {
            let (took, well) = (start.elapsed(), status.success());
            return Ok(Ended { took, well });
        }
        if start.elapsed() > GIVE_UP {
            let names = left.iter().map(|pid| {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                format!("{pid} ({})", name.trim())
            });
            let names: Vec<String> = names.collect();
            // Its process group, and what has left that.
            unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
            for pid in &left {
                unsafe { libc::kill(*pid as i32, libc::SIGKILL) };
            }
            _ = child.wait();
            return Err(format!("still there: {}", names.join(", ")));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// A mount in a folder with ten files, on which others hold something of each kind.
struct Scene {
    // Dropped first: they have the mount open.
    holders: (Vec<Actor>, Vec<Guard>),
    mount: Mount,
    temp: TempDir,
}

impl Scene {
    fn new() -> Option<Self> {
        let mut mount = Mount::unmounted()?;
        let temp = TempDir::new();
        for folder in ["folder", "plain"] {
            let folder = temp.path().join(folder);
            fs::create_dir(&folder).unwrap();
            for number in 0..10 {
                fs::write(folder.join(format!("file{number}")), "one\ntwo\n").unwrap();
            }
        }
        mount.dir = temp.path().join("folder/locks");
        fs::create_dir(&mount.dir).unwrap();
        mount.start(&[]);
        let create = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        let mut worker = mount.actor(Some("w1"));
        for name in ["blank", "repo"] {
            worker.claim(name).unwrap();
        }
        worker.mkdir("claims/dir").unwrap();
        worker.mkdir("claims/dir/sub").unwrap();
        worker.symlink("repo", "claims/link").unwrap();
        worker.symlink("..", "claims/dir/up").unwrap();
        for (name, body) in [
            ("body", "text\n"),
            ("dir/file", "inside"),
            ("dir/sub/more", "below"),
        ] {
            let fd = worker.open(&format!("claims/{name}"), create).unwrap();
            worker.write(fd, body).unwrap();
            worker.close(fd).unwrap();
        }
        let mut terminal = mount.actor(None);
        terminal.claim("typed").unwrap();
        let script = "echo $$ > sessions/r1; echo > claims/registered; echo done; read x";
        let mut command = mount.sh(script);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut registered = Guard::spawn(&mut command);
        assert_eq!(registered.line(), "done");
        let far = json!({"claim": "far", "session": "far1", "seconds": 3600});
        fs::write(mount.path("control"), far.to_string()).unwrap();
        let mut waiter = mount.actor(Some("q1"));
        waiter.open("queue/repo", libc::O_RDONLY).unwrap();
        let mut command = mount.sh("exec cat queue/body");
        let waiting = Guard::spawn(command.stdout(Stdio::null()));
        wait_until("two wait", || mount.read("waiters").lines().count() == 2);
        let holders = (vec![worker, terminal, waiter], vec![registered, waiting]);
        Some(Self {
            holders,
            mount,
            temp,
        })
    }

    fn folder(&self) -> PathBuf {
        self.temp.path().join("folder")
    }

    /// Everything that somebody has: leases, places in lines, sessions, what claims contain.
    fn everything(&self) -> Vec<String> {
        let mount = &self.mount;
        let mut all: Vec<String> = Vec::new();
        for file in ["leases", "waiters"] {
            all.extend(mount.read(file).lines().map(without_times));
        }
        all.retain(|line| !line.starts_with("{\"seq\""));
        for session in support::names(&mount.path("sessions")) {
            all.push(without_times(&mount.read(&format!("sessions/{session}"))));
        }
        for inside in ["body", "dir/file", "dir/sub/more"] {
            all.push(mount.read(&format!("claims/{inside}")));
        }
        let target = fs::read_link(mount.path("claims/link")).unwrap();
        all.push(target.display().to_string());
        all
    }

    /// Runs one program over a directory.
    fn walk(&self, walker: &Walker, dir: &Path) -> Result<Ended, String> {
        let (out, git) = (self.temp.path().join("out"), self.temp.path().join("git"));
        for dir in [&out, &git] {
            _ = fs::remove_dir_all(dir);
            fs::create_dir(dir).unwrap();
        }
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).current_dir("/");
            command
                .env("D", dir)
                .env("PATH", path())
                .env("O", &out)
                .env("HOME", &out)
                .env("GIT_DIR", &git)
                .env("GIT_WORK_TREE", dir)
                .env("RESTIC_REPOSITORY", out.join("restic"))
                .env("RESTIC_PASSWORD", "none")
                .env("BORG_BASE_DIR", &out)
                .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes");
            command
        };
        if walker.needs == "git" {
            // The last file is new.
            let script = "git init -q && git config user.name a && git config user.email a@b && cd \"$D\" && \
                { git add -- file[0-8] 2>&1 || true; } && git commit -q --allow-empty -m x";
            let (code, _, err) = text(&shell(script).output().unwrap());
            assert_eq!(code, 0, "{err}");
        }
        let (code, _, err) = text(&shell(walker.before).output().unwrap());
        assert_eq!(code, 0, "{}: {err}", walker.before);
        let took = run(&mut shell(walker.script));
        if walker.needs == "git" && dir != self.mount.dir {
            // The stashed changes.
            fs::write(dir.join("file9"), "one\ntwo\n").unwrap();
        }
        took
    }
}

fn without_times(line: &str) -> String {
    let mut record: Value = serde_json::from_str(line).unwrap();
    if let Some(object) = record.as_object_mut() {
        object.retain(|key, _| !key.contains("left") && !key.contains("expires"));
    }
    record.to_string()
}

/// The system's own programs first: a version manager's stand-ins for them take a second to start.
fn path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let own = ["/usr/bin", "/bin"].map(PathBuf::from);
    env::join_paths(own.into_iter().chain(env::split_paths(&path))).unwrap()
}

fn is_there(program: &str) -> bool {
    env::split_paths(&path()).any(|dir| dir.join(program).is_file())
}

#[test]
fn programs_that_read_all_that_they_find_end_and_change_nothing() {
    let _alone = alone();
    let Some(mut scene) = Scene::new() else {
        return;
    };
    let before = scene.everything();
    assert_eq!(
        before
            .iter()
            .filter(|line| line.contains("\"token\""))
            .count(),
        8
    );
    let places = [scene.mount.dir.clone(), scene.folder()];
    let plain = scene.temp.path().join("plain");
    let mut wrong = Vec::new();
    for walker in WALKERS {
        if !is_there(walker.needs) {
            // Not asked for, but tried where it is.
            if walker.needs != "ag" {
                skip(&format!("{} is not installed", walker.needs));
            }
            continue;
        }
        let over_plain = scene.walk(walker, &plain).unwrap();
        assert!(over_plain.well, "{} does not work", walker.name);
        let start = if walker.starts_slowly {
            over_plain.took
        } else {
            Duration::ZERO
        };
        let took = places.clone().map(|dir| scene.walk(walker, &dir));
        if env::var_os("CLAIMFS_TEST_TABLE").is_some() {
            let shown = took.each_ref().map(|ended| match ended {
                Ok(ended) => format!("{} ms", ended.took.as_millis()),
                Err(why) => why.clone(),
            });
            let [mount, folder] = shown;
            let plain = over_plain.took.as_millis();
            let line = format!(
                "{:16} mount {mount:>8}, folder {folder:>8}, plain {plain:>5} ms",
                walker.name
            );
            _ = writeln!(io::stderr(), "{line}");
        }
        for (took, place) in took.into_iter().zip(["the mount", "the folder"]) {
            match took {
                Ok(Ended { took, .. }) if took <= LIMIT + start => {}
                Ok(Ended { took, .. }) => {
                    wrong.push(format!("{} over {place} took {took:?}", walker.name));
                }
                Err(why) => wrong.push(format!("{} over {place}: {why}", walker.name)),
            }
        }
        let after = scene.everything();
        if after != before {
            wrong.push(format!("{} changed {before:#?} to {after:#?}", walker.name));
        }
        // Each that does not end takes a while, and one is enough.
        if !wrong.is_empty() {
            break;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    scene.holders = (Vec::new(), Vec::new());
    let umount: &[&str] = if is_root() {
        &["umount"]
    } else {
        &["fusermount3", "-u"]
    };
    // Busy for a moment, while watchers are told of what the holders had.
    wait_until("it can be unmounted", || {
        let mut command = Command::new(umount[0]);
        command.args(&umount[1..]).arg(&scene.mount.dir);
        command.stderr(Stdio::null()).status().unwrap().success()
    });
    assert_eq!(scene.mount.wait(), Some(0));
}

#[test]
fn each_file_that_is_listed_can_be_read_to_its_end() {
    let _alone = alone();
    let Some(scene) = Scene::new() else { return };
    let list = scene.temp.path().join("list");
    let mut find = Command::new("sh");
    find.args([
        "-c",
        "find \"$1\" ! -type d ! -type l -print0 > \"$2\"",
        "sh",
    ]);
    let ended = run(find.arg(&scene.mount.dir).arg(&list)).unwrap();
    assert!(ended.well && ended.took <= LIMIT, "to list them: {ended:?}");
    let listed = fs::read(&list).unwrap();
    let listed = listed
        .split(|byte| *byte == 0)
        .filter(|path| !path.is_empty());
    let listed: Vec<PathBuf> = listed.map(|path| OsStr::from_bytes(path).into()).collect();
    for name in [
        "README",
        "leases",
        "waiters",
        "self",
        "metrics",
        "claims/dir/sub/more",
        "sessions/w1",
    ] {
        assert!(
            listed.contains(&scene.mount.path(name)),
            "{name} is not listed"
        );
    }
    for path in &listed {
        for program in ["cat", "head -c 1", "md5sum"] {
            let mut words = program.split(' ');
            let mut command = Command::new(words.next().unwrap());
            let ended = run(command.args(words).arg(path));
            let is_quick = ended.as_ref().is_ok_and(|ended| ended.took <= LIMIT);
            assert!(is_quick, "{program} {}: {ended:?}", path.display());
        }
    }
}
