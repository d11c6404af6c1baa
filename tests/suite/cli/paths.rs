//! `claimfs reserve` and `claimfs unreserve`: real paths, who has one, and waiting.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::support::{Guard, Mount, TempDir, text, wait_until};

/// A verb of the session `id`, in a directory: exit code, output, complaints.
fn verb(mount: &Mount, id: &str, dir: &TempDir, words: &[&str]) -> (i32, String, String) {
    text(&command(mount, id, dir, words).output().unwrap())
}

fn command(mount: &Mount, id: &str, dir: &TempDir, words: &[&str]) -> Command {
    let mut command = mount.claimfs(words);
    command.current_dir(dir.path());
    command.env("CLAIMFS_SESSION", id);
    command
}

/// A process of a session, so that this outlives its commands.
fn session(mount: &Mount, id: &str) -> Guard {
    let mut shell = mount.sh("echo > claims/$CLAIMFS_SESSION; echo; exec sleep 600");
    shell.env("CLAIMFS_SESSION", id).stdout(Stdio::piped());
    let mut shell = Guard::spawn(&mut shell);
    assert_eq!(shell.line(), "");
    shell
}

#[test]
fn real_paths_are_reserved_and_refusals_say_who_has_them_and_why() {
    let Some(mount) = Mount::new() else { return };
    let dir = TempDir::new();
    let here = fs::canonicalize(dir.path()).unwrap();
    let here = here.to_str().unwrap();
    fs::create_dir_all(dir.path().join("src/deep")).unwrap();
    symlink("src/deep", dir.path().join("link")).unwrap();
    let (_one, _two) = (session(&mount, "one"), session(&mount, "two"));
    let (code, out, err) = verb(
        &mount,
        "one",
        &dir,
        &["reserve", "link/x", "./new/../y", "-m", "why not"],
    );
    // `new` does not exist, so that `..` leads nowhere.
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    let (code, out, err) = verb(
        &mount,
        "one",
        &dir,
        &["reserve", "link/x", "y z", "-m", "why not"],
    );
    assert_eq!((code, err.as_str()), (0, ""));
    for path in ["src/deep/x", "y z"] {
        assert!(
            out.contains(&format!("{here}/{path}: reserved by session one, token ")),
            "{out}"
        );
        let record = mount.record(&format!("paths{here}/{path}")).unwrap();
        assert_eq!(
            (&record["session"], &record["reason"]),
            (&"one".into(), &"why not".into())
        );
    }
    // Below one's own nothing more is needed.
    let (code, out, _) = verb(&mount, "one", &dir, &["reserve", "link/x/below"]);
    assert_eq!(code, 0);
    assert!(
        out.contains(&format!("reserved already, as a part of {here}/src/deep/x")),
        "{out}"
    );
    for (path, says) in [
        (
            "src/deep/x",
            format!("{here}/src/deep/x: reserved by session one (pid "),
        ),
        (
            "link/x/in",
            format!(
                "{here}/src/deep/x/in: reserved, as a part of {here}/src/deep/x, by session one (pid "
            ),
        ),
        (
            "src",
            format!("{here}/src: reserved in part ({here}/src/deep/x) by session one (pid "),
        ),
    ] {
        let (code, out, err) = verb(&mount, "two", &dir, &["reserve", "free", path]);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(
            err.contains(&says) && err.contains(", who says \"why not\"; see 'claimfs show paths"),
            "{err}"
        );
    }
    assert!(mount.record(&format!("paths{here}/free")).is_none());
    let name = format!("paths{here}/src/deep/x");
    let (code, out, _) = verb(&mount, "two", &dir, &["show", &name]);
    assert!(
        code == 0 && out.contains("reason   \"why not\", as the holder says"),
        "{out}"
    );
    let (code, _, err) = verb(&mount, "two", &dir, &["unreserve", "src/deep/x"]);
    assert!(
        code == 1 && err.contains("reserved by session one"),
        "{err}"
    );
    // Giving back a part of one's own gives back nothing, and says so.
    let (code, _, err) = verb(&mount, "one", &dir, &["unreserve", "link/x/below"]);
    assert!(
        code == 0 && err.contains("still reserved, as a part of"),
        "{err}"
    );
    let (code, out, err) = verb(&mount, "one", &dir, &["unreserve", ".", "none"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
    assert_eq!(mount.run("find paths -type f"), "");
    // What is wrong with the words is said before anything is taken.
    let long = "x".repeat(257);
    for words in [
        &["reserve"][..],
        &["reserve", "/"],
        &["reserve", "-m", &long, "a"],
        &["reserve", "--wait=x", "a"],
    ] {
        let (code, out, err) = verb(&mount, "two", &dir, words);
        assert_eq!((code, out.as_str()), (2, ""), "{words:?}: {err}");
    }
}

#[test]
fn the_map_of_a_sandbox_translates_paths() {
    let Some(mount) = Mount::new() else { return };
    let dir = TempDir::new();
    let here = fs::canonicalize(dir.path()).unwrap();
    let _one = session(&mount, "one");
    let mut reserve = command(&mount, "one", &dir, &["reserve", "src", "/none/x"]);
    let map = format!("/none=/else:{}=/home/me/app", here.display());
    let (code, _, err) = text(&reserve.env("CLAIMFS_PATH_MAP", map).output().unwrap());
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        mount.run("find paths -type f | sort"),
        "paths/else/x\npaths/home/me/app/src\n"
    );
}

#[test]
fn who_waits_for_a_path_has_it_once_all_that_was_in_its_way_is_free() {
    let Some(mount) = Mount::new() else { return };
    let dir = TempDir::new();
    let (one, _two) = (session(&mount, "one"), session(&mount, "two"));
    let reserve =
        |id: &str, words: &[&str]| verb(&mount, id, &dir, &[&["reserve"], words].concat());
    assert_eq!(reserve("one", &["a/x", "a/y"]).0, 0);
    let (code, _, err) = reserve("two", &["a", "--wait=20ms"]);
    assert!(code == 1 && err.contains("waited in vain"), "{err}");
    let mut waits = command(&mount, "two", &dir, &["reserve", "a", "--wait"]);
    let mut waits = Guard::spawn(waits.stdout(Stdio::piped()));
    assert_eq!(verb(&mount, "one", &dir, &["unreserve", "a/x"]).0, 0);
    assert!(waits.0.try_wait().unwrap().is_none());
    // The death of the holder frees the rest.
    drop(one);
    assert!(waits.line().contains("a: reserved by session two"));
    wait_until("it ends", || waits.0.try_wait().unwrap().is_some());
}

#[test]
fn nothing_is_reserved_for_who_is_alone() {
    let Some(mount) = Mount::new() else { return };
    let dir = TempDir::new();
    let mut shell = Command::new("setsid");
    shell
        .arg("-w")
        .arg(crate::support::CLAIMFS)
        .args(["reserve", "x"]);
    crate::support::plain(&mut shell);
    shell
        .current_dir(dir.path())
        .env("CLAIMFS_MOUNT", &mount.dir);
    let (code, out, err) = text(&shell.output().unwrap());
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
    assert!(
        err.contains("nothing reserved, as nobody in its session outlives"),
        "{err}"
    );
    assert_eq!(mount.run("find paths -type f"), "");
}

#[test]
fn regression_what_several_processes_have_parts_of_is_refused_with_a_reason() {
    let Some(mount) = Mount::new() else { return };
    let dir = TempDir::new();
    // The outer shell has one, the inner another; then one that is tied to the outer shell.
    let script = "
        \"$CLAIMFS\" reserve /d/x > /dev/null
        sh -c '\"$CLAIMFS\" reserve /d/y > /dev/null; \"$CLAIMFS\" reserve /d; echo $?; :'
        mkdir -p \"$CLAIMFS_MOUNT/paths/t\"
        echo $$ > \"$CLAIMFS_MOUNT/paths/t/x\"
        \"$CLAIMFS\" reserve /t; echo $?";
    let mut shell = mount.sh(script);
    shell
        .current_dir(dir.path())
        .env("CLAIMFS_MOUNT", &mount.dir);
    let (code, out, err) = text(
        &shell
            .env("CLAIMFS", crate::support::CLAIMFS)
            .output()
            .unwrap(),
    );
    assert_eq!((code, out.as_str()), (0, "1\n1\n"), "{err}");
    for path in ["/d", "/t"] {
        let says = format!("claimfs: {path}: several processes of your session have parts of it");
        assert!(err.contains(&says), "{err}");
    }
}
