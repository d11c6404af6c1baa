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
    let reserved = "paths/else/x\npaths/home/me/app/src\n";
    assert_eq!(mount.run("find paths -type f | sort"), reserved);
    for map in ["x", "/a", "/a=b", "/none=/else:", "/a=/b:/a=/c"] {
        for verb in ["reserve", "unreserve"] {
            let mut verb = command(&mount, "one", &dir, &[verb, "/none/y"]);
            let (code, out, err) = text(&verb.env("CLAIMFS_PATH_MAP", map).output().unwrap());
            assert_eq!((code, out.as_str()), (2, ""), "{map}: {err}");
            assert!(err.starts_with("claimfs: CLAIMFS_PATH_MAP: '"), "{err}");
        }
    }
    assert_eq!(mount.run("find paths -type f | sort"), reserved);
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

/// A mount with two sessions, and a folder in which `one` has reserved `src/deep` and `docs/a` to
/// `docs/g`, for a reason.
fn reserved() -> Option<(Mount, TempDir, String, [Guard; 2])> {
    let mount = Mount::new()?;
    let dir = TempDir::new();
    let here = fs::canonicalize(dir.path()).unwrap();
    let here = here.to_str().unwrap().to_owned();
    let sessions = [session(&mount, "one"), session(&mount, "two")];
    let docs = ["a", "b", "c", "d", "e", "f", "g"].map(|name| format!("docs/{name}"));
    let words: Vec<&str> = docs.iter().map(String::as_str).collect();
    let words = [&["reserve", "-m", "why not", "src/deep"], &words[..]].concat();
    assert_eq!(verb(&mount, "one", &dir, &words).0, 0);
    Some((mount, dir, here, sessions))
}

#[test]
fn regression_show_and_break_of_a_path_say_what_covers_it_and_what_is_below_it() {
    let Some((mount, dir, here, [one, _])) = reserved() else {
        return;
    };
    let two = |words: &[&str]| verb(&mount, "two", &dir, words);
    let pid = one.0.id();
    // The one that made it has exited: the session's living process is named.
    let holder = format!("session one (pid {pid}, sh)");
    let (absolute, name) = (
        format!("{here}/src/deep/x"),
        format!("paths{here}/src/deep/x"),
    );
    for path in ["./src/deep/x", &absolute, &name] {
        let (code, out, _) = two(&["show", path]);
        let first = format!(
            "{absolute}: reserved as a part of {here}/src/deep:\nclaim    paths{here}/src/deep\n"
        );
        assert!(code == 0 && out.starts_with(&first), "{out}");
        let (code, out, _) = two(&["show", "--json", path]);
        let record: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &record["session"]), (0, &"one".into()));
        assert_eq!(record["name"], format!("paths{here}/src/deep"));
        assert_eq!(two(&["show", "-q", path]).0, 1);
        assert_eq!(verb(&mount, "one", &dir, &["show", "-q", path]).0, 0);
        let (code, out, err) = two(&["break", path]);
        assert_eq!((code, out.as_str()), (4, ""));
        let says = format!("{absolute}: reserved, as a part of {here}/src/deep, by {holder} for ");
        assert!(err.contains(&says), "{err}");
        assert!(
            err.ends_with(&format!(
                "'claimfs break paths{here}/src/deep' frees all of that\n"
            )),
            "{err}"
        );
    }
    let (code, out, _) = two(&["show", "./docs"]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(code, 0);
    assert_eq!(
        lines[0],
        format!("{here}/docs: not reserved itself; 7 below it:")
    );
    for (line, name) in lines[1..6].iter().zip(["a", "b", "c", "d", "e"]) {
        let says = format!("  {here}/docs/{name}: reserved by {holder} for ");
        assert!(
            line.starts_with(&says) && line.ends_with(", who says \"why not\""),
            "{out}"
        );
    }
    assert_eq!(lines[6..], ["  and 2 more; see 'claimfs ls'"]);
    assert_eq!(two(&["show", "--json", "./docs"]).1.lines().count(), 7);
    assert_eq!(two(&["show", "-q", "./docs"]).0, 1, "another has a part");
    assert_eq!(verb(&mount, "one", &dir, &["show", "-q", "./docs"]).0, 4);
    let (code, out, err) = two(&["break", "./docs"]);
    assert_eq!((code, out.as_str()), (4, ""));
    assert!(
        err.contains("break what is below it one by one:\n"),
        "{err}"
    );
    assert!(
        err.contains("docs/e: reserved by") && !err.contains("docs/f"),
        "{err}"
    );
    let (code, out, _) = two(&["break", "--json", "."]);
    let broken: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, broken["below"].as_array().unwrap().len()), (4, 8));
    // Beside them nothing is reserved.
    for path in ["./src/deeper", "./doc", "/no/such"] {
        assert_eq!(two(&["show", "-q", path]).0, 4, "{path}");
        assert!(two(&["show", path]).2.ends_with(": free\n"), "{path}");
    }
    let (code, out, _) = two(&["break", "./src/deep"]);
    let says = format!("paths{here}/src/deep: taken from {holder}, which lives\n");
    assert_eq!((code, out), (0, says));
    assert!(mount.record(&format!("paths{here}/src/deep")).is_none());
    assert_eq!(mount.run("find paths -type f").lines().count(), 7);
}

#[test]
fn regression_a_path_is_given_back_and_waited_for_by_its_path_or_its_name() {
    let Some((mount, dir, here, [one, _two])) = reserved() else {
        return;
    };
    let by = |id: &str, words: &[&str]| verb(&mount, id, &dir, words);
    let count = || mount.run("find paths -type f").lines().count();
    let holder = format!("session one (pid {}, sh)", one.0.id());
    let (code, out, err) = by("two", &["release", "./docs/a"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains(&format!("docs/a: held by {holder}")), "{err}");
    let (code, _, err) = by("two", &["wait", "./docs/a/below", "-w", "20ms"]);
    assert!(code == 1 && err.contains("; waited in vain"), "{err}");
    assert!(
        err.contains(&format!("as a part of {here}/docs/a, by {holder}")),
        "{err}"
    );
    let (code, _, err) = by("two", &["wait", &format!("paths{here}"), "-w", "0"]);
    assert!(code == 1 && err.contains("reserved in part ("), "{err}");
    // One's own are not waited for.
    for path in ["./docs/a", "./docs", "./src/deep/x"] {
        assert_eq!(by("one", &["wait", path, "-w", "0"]).0, 0);
    }
    // That very one goes, not those below.
    let (code, _, err) = by("one", &["release", "./docs"]);
    assert_eq!((code, count()), (0, 8));
    assert!(
        err.contains("docs: not reserved itself; 'claimfs unreserve "),
        "{err}"
    );
    let (code, _, err) = by("one", &["release", "./docs/a/x"]);
    assert_eq!((code, count()), (0, 8));
    assert!(
        err.contains(&format!(
            "'claimfs release paths{here}/docs/a' gives back all of that"
        )),
        "{err}"
    );
    let (code, out, err) = by("one", &["release", "./docs/a", "--json"]);
    assert_eq!((code, err.as_str(), count()), (0, "", 7));
    assert!(out.contains("\"released\":true"), "{out}");
    let name = format!("paths{here}/docs/b");
    assert_eq!(
        (by("one", &["release", &name]), count()),
        ((0, String::new(), String::new()), 6)
    );
    let (code, out, _) = by("one", &["release", &name, "--json"]);
    assert!(code == 0 && out.contains("\"released\":false"), "{out}");
    assert_eq!(by("one", &["release", &name, "--session", "x"]).0, 2);
    // It ends with its holder.
    let mut waits = command(&mount, "two", &dir, &["wait", "./docs", "--json"]);
    let mut waits = Guard::spawn(waits.stdout(Stdio::piped()));
    assert!(waits.0.try_wait().unwrap().is_none());
    drop(one);
    assert!(waits.line().contains("\"session\":null"));
    wait_until("it ends", || waits.0.try_wait().unwrap().is_some());
}

#[test]
fn regression_a_path_is_translated_for_show_as_for_reserve() {
    let Some(mount) = Mount::new() else { return };
    let dir = TempDir::new();
    let _one = session(&mount, "one");
    let mapped = |words: &[&str]| {
        let mut command = command(&mount, "one", &dir, words);
        let output = command.env("CLAIMFS_PATH_MAP", "/none=/home/me").output();
        text(&output.unwrap())
    };
    assert_eq!(mapped(&["reserve", "/none/app"]).0, 0);
    assert_eq!(mapped(&["show", "-q", "/none/app/src"]).0, 0);
    assert_eq!(mapped(&["show", "-q", "paths/home/me/app"]).0, 0);
    assert_eq!(mapped(&["release", "/none/app"]).0, 0);
    assert_eq!(mount.run("find paths -type f"), "");
}
