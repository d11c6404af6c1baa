//! Words of a command line: a time or a name, flock(1)'s options, names with `/`, exit codes.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{CLAIMFS, Guard, Mount, TempDir, text, wait_until};

/// The output of a verb that runs in the session `w`.
fn run(mount: &Mount, arguments: &[&str]) -> (i32, String, String) {
    let mut command = mount.claimfs(arguments);
    text(
        &command
            .env("CLAIMFS_SESSION", "w")
            .stdin(Stdio::null())
            .output()
            .unwrap(),
    )
}

const NAME: &str = "echo $CLAIMFS_CLAIM";

#[test]
fn a_time_after_wait_is_the_limit_if_there_is_a_name_besides() {
    let Some(mount) = Mount::new() else { return };
    let name = |arguments: &[&str]| {
        let (code, out, err) = run(&mount, &[arguments, &["--", "sh", "-c", NAME]].concat());
        assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
        out.trim_end().to_owned()
    };
    for (arguments, claim) in [
        (&["run", "--wait", "5", "x"][..], "x"),
        (&["run", "--wait", "0.5", "x"], "x"),
        (&["run", "--wait", "5m", "-m", "why", "x"], "x"),
        (&["run", "--wait", "5", "-E", "75", "x"], "x"),
        (&["run", "x", "--wait", "5"], "x"),
        (&["run", "--any", "a@1..2", "--wait", "5"], "a@1"),
        (&["run", "--wait", "5", "--any=a@1..2"], "a@1"),
        (&["run", "--wait", "8080"], "8080"),
        (&["run", "-m", "why", "--wait", "8080"], "8080"),
        (&["run", "--wait", "server"], "server"),
        (&["run", "--wait", "server-1h"], "server-1h"),
    ] {
        assert_eq!(name(arguments), claim, "{arguments:?}");
    }
    let mut first = mount.actor(Some("first"));
    first.claim("x").unwrap();
    let began = Instant::now();
    let (code, _, err) = run(&mount, &["run", "--wait", "0.3", "x", "--", "true"]);
    assert!(code == 1 && err.ends_with("; waited in vain\n"), "{err}");
    assert!(began.elapsed() >= Duration::from_millis(300));
    let (code, _, err) = run(&mount, &["claim", "--wait", "0.1", "x"]);
    assert!(code == 1 && err.ends_with("; waited in vain\n"), "{err}");
    assert_eq!(run(&mount, &["claim", "x", "--wait", "0.1"]).0, 1);
    assert!(
        run(&mount, &["claim", "--wait", "8080"])
            .1
            .starts_with("claims/8080: taken")
    );
    // Without `--` the command could begin at either word.
    for arguments in [
        &["run", "--wait", "5", "x", "true"][..],
        &["run", "--wait", "5", "true"],
    ] {
        let (code, out, err) = run(&mount, arguments);
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(
            err.contains("'5': the time to wait, or the name? Put '--' before"),
            "{err}"
        );
    }
    assert_eq!(run(&mount, &["run", "--wait", "5"]).0, 2);
    // The words of the command are its own.
    for words in [
        &["--wait", "5"][..],
        &["--wait", "5", "--", "y"],
        &["-w", "5"],
    ] {
        let (code, out, err) = run(&mount, &[&["run", "own", "echo"], words].concat());
        assert_eq!(
            (code, out.trim_end()),
            (0, words.join(" ").as_str()),
            "{err}"
        );
    }
}

#[test]
fn the_options_of_flock_work() {
    let Some(mount) = Mount::new() else { return };
    let mut first = mount.actor(Some("first"));
    first.claim("x").unwrap();
    let code = |options: &[&str]| {
        let began = Instant::now();
        let arguments = [&["run"], options, &["x", "--", "echo", "ran"]].concat();
        let (code, out, _) = run(&mount, &arguments);
        assert_eq!(out, "", "{options:?}");
        (code, began.elapsed() >= Duration::from_millis(250))
    };
    for (options, expected) in [
        (&["-n"][..], (1, false)),
        (&["--nonblock"], (1, false)),
        (&["--nb"], (1, false)),
        (&["-n", "-E", "75"], (75, false)),
        (&["-nE75"], (75, false)),
        (&["-w", "0.25"], (1, true)),
        (&["-w0.25", "-E", "0"], (0, true)),
        (
            &["--timeout", "0.25", "--conflict-exit-code", "255"],
            (255, true),
        ),
        (&["-w", "0"], (1, false)),
        (&["--wait=0"], (1, false)),
        (&["-w", "0.001"], (1, false)),
        // What makes no sense takes nothing.
        (&["-E", "256"], (2, false)),
        (&["-E", "-1"], (2, false)),
        (&["-w", "0.0001"], (2, false)),
        (&["-w", "soon"], (2, false)),
        (&["-w", "36501d"], (2, false)),
        (&["-n", "-w", "1"], (2, false)),
        (&["--wait", "-n"], (2, false)),
        (&["--wait=1", "-w", "1"], (2, false)),
    ] {
        assert_eq!(code(options), expected, "{options:?}");
    }
    assert_eq!(run(&mount, &["claim", "-n", "x"]).0, 1);
    assert_eq!(run(&mount, &["claim", "-w", "0.1", "x"]).0, 1);
    assert_eq!(run(&mount, &["wait", "-w", "0", "x"]).0, 1);
    let mut command = mount.claimfs(&["run", "-w", "36500d", "x", "--", "echo", "ran"]);
    let mut waiting = Guard::spawn(command.stdout(Stdio::piped()));
    wait_until("it waits", || mount.read("waiters").lines().count() == 1);
    first.unlink("claims/x").unwrap();
    assert_eq!(waiting.line(), "ran");
}

#[test]
fn claims_and_a_name_is_that_name_and_another_path_is_for_reserve() {
    let Some(mount) = Mount::new() else { return };
    let (code, out, err) = run(&mount, &["claim", "claims/x"]);
    assert!(
        code == 0 && out.starts_with("claims/x: taken by session w"),
        "{out}{err}"
    );
    assert_eq!(run(&mount, &["show", "--quiet", "claims/x"]).0, 0);
    assert_eq!(run(&mount, &["release", "claims/x"]).0, 0);
    assert_eq!(mount.claims(), [""; 0]);
    let command = ["run", "--any", "claims/a@1..2", "--", "sh", "-c", NAME];
    assert_eq!(run(&mount, &command).1, "a@1\n");
    for verb in ["claim", "release", "wait", "show", "break"] {
        for name in ["a/b", "../x", "/srv/app", "claims/a/b", "./x", "/"] {
            let (code, _, err) = run(&mount, &[verb, name]);
            if verb != "claim" && name.starts_with(['.', '/']) {
                let expected = match (name, verb) {
                    ("/", _) => 2,
                    (_, "break") => 4,
                    _ => 0,
                };
                assert_eq!(code, expected, "a path: {verb} {name}: {err}");
                continue;
            }
            assert_eq!(code, 2, "{verb} {name}");
            let way_out = format!(
                "'{name}': a name has no '/'; for a file or a directory there is 'claimfs reserve {name}'"
            );
            assert!(err.contains(&way_out), "{err}");
        }
    }
    let (code, _, err) = run(&mount, &["run", "src/main.rs", "--", "true"]);
    assert!(
        code == 2 && err.contains("claimfs reserve src/main.rs"),
        "{err}"
    );
    // A reservation is shown and broken by its name or path, but not claimed by its name.
    let (code, _, err) = run(&mount, &["claim", "paths/srv/app"]);
    assert!(
        code == 2 && err.contains("'claimfs reserve /srv/app'"),
        "{err}"
    );
    assert_eq!(run(&mount, &["show", "paths/srv/app"]).0, 0);
    let (code, _, err) = run(&mount, &["show", "paths//srv"]);
    assert!(
        code == 2 && err.contains("no reservation; write it as 'claimfs ls' does"),
        "{err}"
    );
}

#[test]
fn show_quiet_is_0_for_us_1_for_another_and_4_for_nobody() {
    let Some(mount) = Mount::new() else { return };
    let quiet = |session: &str| {
        let mut command = mount.claimfs(&["show", "--quiet", "x"]);
        text(&command.env("CLAIMFS_SESSION", session).output().unwrap())
    };
    let silent = |code| (code, String::new(), String::new());
    assert_eq!(quiet("w1"), silent(4));
    assert_eq!(run(&mount, &["show", "x"]).0, 0, "without it, it is 0");
    let mut holder = mount.actor(Some("w1"));
    holder.claim("x").unwrap();
    assert_eq!(quiet("w1"), silent(0));
    assert_eq!(quiet("w2"), silent(1));
    // Under process scope: for the script that holds it and what it starts, and for no other.
    let script =
        "set -C; echo > claims/y; $claimfs show -q y; echo $?; sh -c '$claimfs show -q y; echo $?'
        setsid -w $claimfs show -q y; echo $?";
    let mut script = mount.sh(script);
    script
        .env("claimfs", CLAIMFS)
        .env("CLAIMFS_MOUNT", &mount.dir);
    let (_, out, err) = text(&script.stdin(Stdio::null()).output().unwrap());
    assert_eq!(out, "0\n0\n1\n", "{err}");
}

#[test]
fn what_is_not_there_is_4_and_the_help_lists_each_code() {
    let Some(mount) = Mount::new() else { return };
    for (arguments, said) in [
        (
            &["break", "x"][..],
            "claims/x: free already; there is nothing to break",
        ),
        (
            &["break", "paths/srv/x"],
            "paths/srv/x: free already; there is nothing to break",
        ),
        (
            &["session", "end", "x"],
            "sessions/x: no live session; see 'claimfs session ls'",
        ),
        (
            &["give", "x", "w1"],
            "claims/x: free; there is nothing to hand over",
        ),
    ] {
        let (code, out, err) = run(&mount, arguments);
        assert_eq!(
            (code, out.as_str(), err),
            (4, "", format!("claimfs: {said}\n"))
        );
    }
    let (_, help, _) = run(&mount, &["--help"]);
    let codes = help.split_once("Exit codes:\n").unwrap().1.lines();
    let codes: Vec<&str> = codes.take(5).map(str::trim).collect();
    for (code, line) in codes.iter().enumerate() {
        assert!(line.starts_with(&format!("{code} ")), "{help}");
    }
    assert!(codes[4].contains("not there"), "{help}");
    assert!(
        help.contains("With --json a verb prints one object a line."),
        "{help}"
    );
}

#[test]
fn a_mount_is_named_only_where_it_does_something() {
    let Some(mount) = Mount::new() else { return };
    let dir = mount.dir.to_str().unwrap();
    for arguments in [
        &["ls", "--mount", dir][..],
        &["--mount", dir, "ls"],
        &["session", "--mount", dir, "ls"],
        &["session", "ls", "--mount", dir],
        &["run", "--mount", dir, "x", "--", "true"],
        &["run", "--mount", dir, "--wait", "5", "x", "--", "true"],
        &["--mount", dir, "run", "--wait", "5", "x", "--", "true"],
    ] {
        let mut command = mount.claimfs(arguments);
        command.env("CLAIMFS_MOUNT", "/no/such/mount");
        let (code, _, err) = text(&command.output().unwrap());
        assert_eq!(code, 0, "{arguments:?}: {err}");
    }
    let temp = TempDir::new();
    let other = temp.path().join("other");
    let other = other.to_str().unwrap();
    for arguments in [
        &["--mount", dir, "mount", other][..],
        &["mount", "--mount", dir, other],
        &["--mount", dir, "completions", "bash"],
        &["--mount", dir, "umount", other],
    ] {
        let (code, out, err) = run(&mount, arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains("--mount"), "{err}");
    }
    assert!(!temp.path().join("other").exists());
}
