//! The command line: what each verb prints and exits with, on a real mount.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{
    CLAIMFS, Guard, Mount, TempDir, can_mount, plain, root_or_skip, text, wait_until,
};

fn run(command: &mut Command) -> (i32, String, String) {
    text(&command.stdin(Stdio::null()).output().unwrap())
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// `claimfs …` run by a script that goes on, as a user's script does: what the command did must outlive it.
fn in_script(mount: &Mount, session: Option<&str>, command: &str) -> Guard {
    let mut script = mount.sh(&format!("\"$claimfs\" {command}; echo \"exit $?\"; read x"));
    script
        .env("claimfs", CLAIMFS)
        .env("CLAIMFS_MOUNT", &mount.dir);
    if let Some(session) = session {
        script.env("CLAIMFS_SESSION", session);
    }
    Guard::spawn(script.stdin(Stdio::piped()).stdout(Stdio::piped()))
}

#[test]
fn claim_takes_a_name_for_the_script_that_runs_it() {
    let Some(mount) = Mount::new() else { return };
    let mut script = in_script(&mount, None, "claim repo");
    let line = script.line();
    let session = format!("sid-{}-uid-{}", script.0.id(), unsafe { libc::geteuid() });
    assert_eq!(
        line,
        format!("claims/repo: taken by session {session}, token 1")
    );
    assert_eq!(script.line(), "exit 0");
    assert_eq!(mount.record("repo").unwrap()["session"], session.as_str());
    drop(script);
    assert_eq!(mount.claims(), [""; 0]);
}

#[test]
fn claim_of_anothers_name_says_who_holds_it() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.actor(Some("w1"));
    holder.claim("repo").unwrap();
    let (code, out, err) = run(mount
        .claimfs(&["claim", "repo"])
        .env("CLAIMFS_SESSION", "w2"));
    assert_eq!((code, out.as_str()), (1, ""));
    let start = format!(
        "claimfs: claims/repo: held by session w1 (pid {}, suite-",
        holder.pid()
    );
    assert!(err.starts_with(&start), "{err}");
    assert!(
        err.ends_with(") for 0 s; see 'claimfs show repo'\n"),
        "{err}"
    );
    let (code, out, _) = run(mount
        .claimfs(&["claim", "--json", "repo"])
        .env("CLAIMFS_SESSION", "w2"));
    assert_eq!((code, json(&out)["session"].clone()), (1, "w1".into()));
    holder.kill();
    let (code, out, _) = run(mount
        .claimfs(&["claim", "--json", "repo"])
        .env("CLAIMFS_SESSION", "w2"));
    assert_eq!((code, json(&out)["session"].clone()), (0, "w2".into()));
}

#[test]
fn claim_is_idempotent_for_a_session_of_its_own() {
    let Some(mount) = Mount::new() else { return };
    let mut script = in_script(&mount, Some("w1"), "claim repo; \"$claimfs\" claim repo");
    assert_eq!(script.line(), "claims/repo: taken by session w1, token 1");
    assert_eq!(
        script.line(),
        "claims/repo: held already by session w1, token 1"
    );
    assert_eq!(script.line(), "exit 0");
}

#[test]
fn claim_of_a_name_of_ones_own_terminal_session_is_refused() {
    let Some(mount) = Mount::new() else { return };
    let mut script = in_script(&mount, None, "claim repo && \"$claimfs\" claim repo 2>&1");
    assert!(
        script
            .line()
            .starts_with("claims/repo: taken by session sid-")
    );
    let line = script.line();
    assert!(
        line.contains("claims/repo: held by your own terminal session (pid "),
        "{line}"
    );
    assert_eq!(script.line(), "exit 1");
}

#[test]
fn regression_a_registration_in_a_terminals_session_is_not_for_all_of_it() {
    let Some(mount) = Mount::new() else { return };
    // The terminal's shell claims from a POSIX session of its own, which registers it; then two of its scripts contend.
    let text = "setsid --wait \"$claimfs\" claim bar; sh -c '\"$claimfs\" claim x; echo $?; :'; \
                sh -c '\"$claimfs\" claim x 2>&1; echo $?; :'; read x";
    let mut script = mount.sh(text);
    script
        .env("claimfs", CLAIMFS)
        .env("CLAIMFS_MOUNT", &mount.dir);
    let mut script = Guard::spawn(script.stdin(Stdio::piped()).stdout(Stdio::piped()));
    assert!(
        script
            .line()
            .starts_with("claims/bar: taken by session sid-")
    );
    assert!(script.line().starts_with("claims/x: taken by session sid-"));
    assert_eq!(script.line(), "0");
    assert!(
        script
            .line()
            .contains("claims/x: held by your own terminal session")
    );
    assert_eq!(script.line(), "1");
}

#[test]
fn a_claim_does_not_die_with_the_command_that_made_it() {
    let Some(mount) = Mount::new() else { return };
    // The variable is on the command alone, so the command alone would be the session's root.
    let cases = [
        ("claim a", "CLAIMFS_SESSION=w1 "),
        ("claim --session w1 a", ""),
        // A POSIX session of its own: as resolved from its parent.
        ("claim a", "setsid --wait "),
    ];
    for (command, before) in cases {
        let mut script = mount.sh(&format!("{before}\"$claimfs\" {command}; echo $?; read x"));
        script
            .env("claimfs", CLAIMFS)
            .env("CLAIMFS_MOUNT", &mount.dir);
        let mut script = Guard::spawn(script.stdin(Stdio::piped()).stdout(Stdio::piped()));
        assert!(
            script.line().starts_with("claims/a: taken by session "),
            "{before}{command}"
        );
        assert_eq!(script.line(), "0");
        let record = mount.record("a").unwrap();
        if before.starts_with("setsid") {
            assert!(record["session"].as_str().unwrap().starts_with("sid-"));
        } else {
            assert_eq!(record["session"], "w1");
        }
        assert_eq!(mount.actor(Some("w2")).claim("a"), Err(libc::EEXIST));
        drop(script);
        wait_until("the script's death frees it", || mount.claims().is_empty());
    }
}

#[test]
fn release_gives_back_and_is_content_with_what_is_free() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.actor(Some("w1"));
    holder.claim("repo").unwrap();
    for verb in ["release", "unclaim"] {
        let (code, _, err) = run(mount.claimfs(&[verb, "repo"]).env("CLAIMFS_SESSION", "w2"));
        assert_eq!(code, 1);
        assert!(
            err.contains("claims/repo: held by session w1 (pid "),
            "{err}"
        );
        assert_eq!(
            run(&mut mount.claimfs(&[verb, "free"])),
            (0, String::new(), String::new())
        );
    }
    let (code, ..) = run(mount
        .claimfs(&["release", "repo"])
        .env("CLAIMFS_SESSION", "w1"));
    assert_eq!((code, mount.claims().len()), (0, 0));
}

#[test]
fn ls_and_show_say_who_holds_what() {
    let Some(mount) = Mount::new() else { return };
    assert_eq!(
        run(&mut mount.claimfs(&["ls"])),
        (0, String::new(), String::new())
    );
    let mut holder = mount.actor(Some("w1"));
    holder.claim("a").unwrap();
    holder.claim("evil\u{1b}[31m\n").unwrap();
    let (code, out, _) = run(&mut mount.claimfs(&["ls"]));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((code, lines.len()), (0, 3), "{out}");
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["CLAIM", "SESSION", "PID", "COMMAND", "HELD", "FOR"]
    );
    assert!(lines[1].starts_with("a "), "{out}");
    assert!(
        lines[2].starts_with("evil\\u{1b}[31m\\n "),
        "no name reaches the terminal as it is: {out}"
    );
    let (code, out, _) = run(&mut mount.claimfs(&["ls", "--json"]));
    assert_eq!(
        (
            code,
            out.lines()
                .map(json)
                .map(|record| record["token"].clone())
                .collect()
        ),
        (0, vec![1.into(), 2.into()])
    );
    let (code, out, _) = run(&mut mount.claimfs(&["show", "a"]));
    assert!(
        code == 0
            && out.contains("session  w1\n")
            && out.contains(&format!(
                "token    1\nalive    pid {}, suite-",
                holder.pid()
            )),
        "{out}"
    );
    let (code, out, _) = run(&mut mount.claimfs(&["show", "--json", "a"]));
    assert_eq!((code, json(&out)), (0, mount.record("a").unwrap()));
    let (code, out, err) = run(&mut mount.claimfs(&["show", "b"]));
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (0, "", "claimfs: claims/b: free\n")
    );
}

#[test]
fn whoami_says_which_session_and_why() {
    let Some(mount) = Mount::new() else { return };
    let (code, out, _) = run(mount.claimfs(&["whoami"]).env("CLAIMFS_SESSION", "w1"));
    assert_eq!(
        (code, out.as_str()),
        (
            0,
            "w1 (variable: your environment has CLAIMFS_SESSION=w1; it is this command alone, so what it claims ends with it)\n"
        )
    );
    let (code, out, _) = run(mount
        .claimfs(&["whoami", "--json"])
        .env("CLAIMFS_SESSION", "w1"));
    assert_eq!((code, json(&out)["rule"].clone()), (0, "variable".into()));
    for verb in [&["whoami"][..], &["claim", "x"]] {
        let (code, _, err) = run(mount.claimfs(verb).env("CLAIMFS_SESSION", "a/b"));
        assert_eq!(code, 2);
        assert!(
            err.contains("CLAIMFS_SESSION=a/b is no valid session id"),
            "{err}"
        );
    }
}

#[test]
fn session_run_is_a_session_and_passes_its_childs_end_through() {
    let Some(mount) = Mount::new() else { return };
    let inside = "echo > claims/x; cat claims/x; cat self; exit 7";
    let (code, out, err) =
        run(&mut mount.claimfs(&["session", "run", "--id", "w1", "--", "sh", "-c", inside]));
    assert_eq!(code, 7, "{err}");
    let lines: Vec<Value> = out.lines().map(json).collect();
    assert_eq!(
        (lines[0]["session"].clone(), lines[1]["session"].clone()),
        ("w1".into(), "w1".into())
    );
    assert_eq!(mount.claims(), [""; 0], "it ends with the command");
    let (code, ..) = run(&mut mount.claimfs(&["session", "run", "--", "sh", "-c", "kill -9 $$"]));
    assert_eq!(code, 128 + 9);
    let (code, out, _) = run(&mut mount.claimfs(&["session", "run", "sh", "-c", "cat self"]));
    assert!(
        code == 0 && json(&out)["session"].as_str().unwrap().starts_with("run-"),
        "{out}"
    );
    let (code, _, err) = run(&mut mount.claimfs(&["session", "run", "--", "/no/such/command"]));
    assert!(code == 127 && err.contains("/no/such/command"), "{err}");
    assert_eq!(
        run(&mut mount.claimfs(&["session", "run", "--id", ".x", "--", "true"])).0,
        2
    );
}

#[test]
fn session_run_passes_signals_on() {
    let Some(mount) = Mount::new() else { return };
    let inside = "trap 'exit 42' TERM; echo ready; while :; do read x; done";
    let mut command = mount.claimfs(&["session", "run", "--id", "w1", "--", "sh", "-c", inside]);
    let mut guard = Guard::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    assert_eq!(guard.line(), "ready");
    assert_eq!(unsafe { libc::kill(guard.0.id() as i32, libc::SIGTERM) }, 0);
    // The shell runs its trap once its read returns.
    drop(guard.0.stdin.take());
    assert_eq!(guard.0.wait().unwrap().code(), Some(42));
}

#[test]
fn session_ls_and_end() {
    let Some(mount) = Mount::new() else { return };
    assert_eq!(
        run(&mut mount.claimfs(&["session", "ls"])),
        (0, String::new(), String::new())
    );
    let mut holder = mount.actor(Some("w1"));
    holder.claim("a").unwrap();
    let (code, out, _) = run(&mut mount.claimfs(&["session", "ls"]));
    let cells: Vec<&str> = out.lines().nth(1).unwrap().split_whitespace().collect();
    let pid = holder.pid().to_string();
    assert_eq!(
        (code, &cells[..3], cells[4]),
        (0, &["w1", "variable", pid.as_str()][..], "1"),
        "{out}"
    );
    let (code, out, _) = run(&mut mount.claimfs(&["session", "ls", "--json"]));
    assert_eq!(
        (code, json(&out)["leases"].clone()),
        (0, serde_json::json!(["a"]))
    );
    assert_eq!(run(&mut mount.claimfs(&["session", "end", "w1"])).0, 0);
    assert_eq!(mount.claims(), [""; 0]);
    assert_eq!(
        run(&mut mount.claimfs(&["session", "end", "w1"])).0,
        0,
        "it has ended"
    );
}

#[test]
fn bad_names_are_usage_errors_that_say_the_rule() {
    let Some(mount) = Mount::new() else { return };
    for verb in ["claim", "release", "show"] {
        for name in ["", "..", ".x", "a/b", "a\\b", "../x"] {
            let (code, _, err) = run(&mut mount.claimfs(&[verb, "--", name]));
            assert_eq!(code, 2, "{verb} {name}");
            assert!(
                err.contains("it may not be empty, start with '.', or contain"),
                "{err}"
            );
        }
        let (code, _, err) = run(&mut mount.claimfs(&[verb, &"n".repeat(256)]));
        assert!(code == 2 && err.contains("at most 255 bytes"), "{err}");
    }
    assert_eq!(run(&mut mount.claimfs(&["claim"])).0, 2);
    assert_eq!(run(&mut mount.claimfs(&["nonsense"])).0, 2);
}

#[test]
fn the_mount_is_named_or_the_only_one() {
    let Some(mount) = Mount::new() else { return };
    let temp = TempDir::new();
    let other = temp.path().to_str().unwrap();
    let dir = mount.dir.to_str().unwrap();
    let (code, _, err) = run(mount.claimfs(&["ls"]).env("CLAIMFS_MOUNT", other));
    assert_eq!(
        (
            code,
            err.contains("not a claimfs mount; mount one with 'claimfs mount")
        ),
        (3, true),
        "{err}"
    );
    assert_eq!(
        run(mount
            .claimfs(&["--mount", dir, "ls"])
            .env("CLAIMFS_MOUNT", other))
        .0,
        0
    );
    assert_eq!(
        run(mount
            .claimfs(&["ls", "--mount", dir])
            .env("CLAIMFS_MOUNT", other))
        .0,
        0
    );
    let (code, _, err) = run(&mut mount.claimfs(&["ls", "--mount", "/no/such/dir"]));
    assert_eq!(
        (code, err.contains("/no/such/dir: No such file")),
        (3, true),
        "{err}"
    );
    // Other tests have mounts of their own; in a mount namespace of one's own there are just these.
    if !root_or_skip("make a mount namespace") {
        return;
    }
    let alone = |script: &str| -> Output {
        let mut command = Command::new("unshare");
        let clean = "awk '$3 ~ /claimfs/ && $2 != ENVIRON[\"keep\"] { print $2 }' /proc/mounts | sed 's/\\\\040/ /g' | tr '\\n' '\\0' | xargs -0 -r umount -l;";
        command.args(["--mount", "sh", "-c", &format!("{clean} {script}")]);
        plain(&mut command);
        command
            .env("claimfs", CLAIMFS)
            .env("keep", dir)
            .env("second", other)
            .current_dir("/")
            .output()
            .unwrap()
    };
    assert_eq!(
        text(&alone("\"$claimfs\" ls")),
        (0, String::new(), String::new())
    );
    let (code, _, err) = text(&alone("umount -l $keep; \"$claimfs\" ls"));
    assert_eq!(
        (
            code,
            err.contains("no claimfs is mounted here; mount one with")
        ),
        (3, true),
        "{err}"
    );
    let (code, _, err) = text(&alone("mount --bind $keep $second; \"$claimfs\" ls"));
    assert_eq!(code, 3);
    assert!(
        err.contains("several claimfs") && err.contains(dir) && err.contains(other),
        "{err}"
    );
}

#[test]
fn regression_a_claim_is_held_by_a_script_whose_posix_session_began_outside_of_the_pid_namespace() {
    if !root_or_skip("make a pid namespace") || !can_mount() {
        return;
    }
    let temp = TempDir::new();
    // setsid as CI systems do: the command has a POSIX session to itself, and its parent's has no number here.
    let script = "\"$claimfs\" mount --state-dir state mount 2>/dev/null; cd mount
        sh -c 'cat self; setsid -w \"$claimfs\" claim own; \"$claimfs\" ls'; ls claims; cd ..
        \"$claimfs\" umount mount";
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
        ])
        .args(["-c", &format!("mkdir mount; {script}")])
        .current_dir(temp.path())
        .env("claimfs", CLAIMFS)
        .env("CLAIMFS_MOUNT", temp.path().join("mount"));
    plain(&mut command);
    let (code, out, err) = text(&command.output().unwrap());
    assert!(out.contains("{\"session\":\"outside-"), "{out}{err}");
    assert!(
        out.contains("claims/own: taken by session outside-"),
        "{code} {out}{err}"
    );
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let Some(mount) = Mount::new() else { return };
    let (code, _, err) = run(mount
        .sh("\"$claimfs\" completions bash | head -n 1 >&2")
        .env("claimfs", CLAIMFS));
    assert_eq!(code, 0);
    assert!(!err.contains("panicked"), "{err}");
}

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, out, _) = run(Command::new(CLAIMFS).args(["completions", shell]));
        assert!(
            code == 0 && out.contains("claimfs") && out.contains("umount"),
            "{shell}"
        );
    }
    assert_eq!(
        run(Command::new(CLAIMFS).args(["completions", "nonsense"])).0,
        2
    );
}
