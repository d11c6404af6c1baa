//! The command line: the output and the exit code of each verb, on a real mount.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{
    CLAIMFS, Guard, Mount, TempDir, can_mount, parsed, plain, root_or_skip, text, wait_until,
};

fn run(command: &mut Command) -> (i32, String, String) {
    text(&command.stdin(Stdio::null()).output().unwrap())
}

/// `claimfs …` run by a script that goes on, as a user's script does: what the command did must
/// outlive it.
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
        format!(
            "claims/repo: taken by session {session}, token 1; it is pid {} (sh)'s now, and free when that exits",
            script.0.id()
        )
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
        "claimfs: claims/repo: held by session w1 (pid {}, actor",
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
    assert_eq!((code, parsed(&out)["session"].clone()), (1, "w1".into()));
    holder.kill();
    let (code, out, _) = run(mount
        .claimfs(&["claim", "--json", "repo"])
        .env("CLAIMFS_SESSION", "w2"));
    assert_eq!((code, parsed(&out)["session"].clone()), (0, "w2".into()));
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

/// A script in the mount that runs `$claimfs`, with what it says on standard error among the rest.
fn script(mount: &Mount, text: &str) -> String {
    let mut command = mount.sh(&format!("exec 2>&1; {text}"));
    command
        .env("claimfs", CLAIMFS)
        .env("CLAIMFS_MOUNT", &mount.dir);
    let output = command.stdin(Stdio::null()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_second_claim_by_the_same_script_is_held_already_and_registers_nothing() {
    let Some(mount) = Mount::new() else { return };
    let said = script(
        &mount,
        "\"$claimfs\" claim x; echo $?; \"$claimfs\" claim x; echo $?; ls sessions; cat sessions/*",
    );
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines[0].starts_with("claims/x: taken by session sid-"),
        "{said}"
    );
    assert!(
        lines[2].starts_with("claims/x: held already by session sid-"),
        "{said}"
    );
    assert_eq!((lines[1], lines[3], lines.len()), ("0", "0", 6), "{said}");
    assert!(lines[4].starts_with("sid-") && !lines[5].contains("\"registered\":true"));
}

#[test]
fn of_two_scripts_of_one_terminal_one_has_the_name_and_the_other_is_told_who() {
    let Some(mount) = Mount::new() else { return };
    let said = script(
        &mount,
        "sh -c '\"$claimfs\" claim x; exec sleep 1000' & until [ -e claims/x ]; do :; done; echo $!
        sh -c '\"$claimfs\" claim x; echo $?; \"$claimfs\" release x; echo $?; :'
        kill -9 $!; wait; sh -c '\"$claimfs\" claim x; echo $?; :'",
    );
    let numbers = said.lines().filter_map(|line| line.parse::<u32>().ok());
    let (pids, codes): (Vec<u32>, Vec<u32>) = numbers.partition(|number| *number > 3);
    let pid = pids[0];
    let held = format!(
        "claimfs: claims/x: held by pid {pid} (sh), another process of this terminal or sandbox, for 0 s; see 'claimfs show x'"
    );
    assert!(said.contains(&held), "{said}");
    let kept = format!("claimfs: claims/x: held by pid {pid} (sh, session sid-");
    assert!(said.contains(&kept), "{said}");
    assert_eq!(codes, [1, 1, 0], "{said}");
    assert!(said.contains("claims/x: taken by session sid-"), "{said}");
    assert!(said.contains(", token 2; it is pid "), "{said}");
}

#[test]
fn claim_tells_a_script_of_a_process_above_it_that_has_the_name() {
    let Some(mount) = Mount::new() else { return };
    let said = script(
        &mount,
        "echo > claims/x; echo $$; sh -c '\"$claimfs\" claim x; echo $?; :'",
    );
    let lines: Vec<&str> = said.lines().collect();
    let held = format!(
        "claimfs: claims/x: held by pid {} (sh), a process above this script, for 0 s; see 'claimfs show x'",
        lines[0]
    );
    assert_eq!((lines[1], lines[2]), (held.as_str(), "1"), "{said}");
}

#[test]
fn claim_in_a_posix_session_of_its_own_takes_nothing_and_says_the_way_out() {
    let Some(mount) = Mount::new() else { return };
    let said = script(
        &mount,
        "setsid --wait \"$claimfs\" claim x; echo $?; ls claims sessions",
    );
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines[0].starts_with(
            "claimfs: claims/x: not taken, as nobody in its session outlives this command"
        ),
        "{said}"
    );
    assert!(
        lines[0].contains("'claimfs run x -- COMMAND'") && lines[0].contains("--session ID"),
        "{said}"
    );
    assert_eq!(
        lines[1..],
        ["3", "claims:", "", "sessions:"],
        "nothing is taken"
    );
    // The ways out.
    let said = script(
        &mount,
        "setsid --wait \"$claimfs\" run x -- ls claims; \
         setsid --wait sh -c '\"$claimfs\" claim x; ls claims'; \
         setsid --wait \"$claimfs\" claim x --session w1; cat claims/x",
    );
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines[0], lines[2]), ("x", "x"), "{said}");
    assert!(said.lines().last().unwrap().contains("\"session\":\"w1\""));
}

#[test]
fn a_variable_on_the_command_alone_registers_its_parent_and_says_so() {
    let Some(mount) = Mount::new() else { return };
    let said = script(
        &mount,
        "echo $$; echo > claims/old; CLAIMFS_SESSION=w1 \"$claimfs\" claim old; echo $?; ls sessions
        CLAIMFS_SESSION=w1 \"$claimfs\" claim x; echo $?; CLAIMFS_SESSION=w1 \"$claimfs\" claim x; echo $?
        \"$claimfs\" claim old; echo $?; \"$claimfs\" session end w1; ls claims; \"$claimfs\" claim old",
    );
    let lines: Vec<&str> = said.lines().collect();
    let pid = lines[0];
    let from_before = format!(
        "claimfs: claims/old: held by pid {pid} (sh), which is above this command but took it for session sid-{pid}-uid-{uid}, not for \
         w1: it is free when that exits; to free it now: 'claimfs break old'",
        uid = unsafe { libc::geteuid() }
    );
    assert_eq!((lines[1], lines[2]), (from_before.as_str(), "1"), "{said}");
    assert!(
        lines[3].starts_with("sid-"),
        "no shell is registered for a refusal: {said}"
    );
    let registered = format!(
        "claimfs: this shell (pid {pid}) is session w1 from now on; 'claimfs session end w1' ends that"
    );
    assert_eq!(
        lines[4..8],
        [
            registered.as_str(),
            "claims/x: taken by session w1, token 2",
            "0",
            "claims/x: held already by session w1, token 2"
        ],
        "{said}"
    );
    assert_eq!(lines[9..11], [from_before.as_str(), "1"], "{said}");
    assert_eq!(
        lines[11], "old",
        "what the session held has ended with it: {said}"
    );
    assert!(lines[12].starts_with("claims/old: held already by session sid-"));
}

#[test]
fn show_says_who_holds_from_whom_who_is_next_and_when_it_is_free() {
    let Some(mount) = Mount::new() else { return };
    let said = script(
        &mount,
        "echo $$; sh -c 'echo $$; \"$claimfs\" claim x; \"$claimfs\" show x; exit 7'
        \"$claimfs\" show x; echo $$ > claims/y; \"$claimfs\" show y",
    );
    let lines: Vec<&str> = said.lines().collect();
    let (shell, script) = (lines[0], lines[1]);
    assert!(
        lines[2].ends_with(&format!(
            ", token 1; it is pid {script} (sh)'s now, its parent's when that exits, and free when pid {shell} (sh) does"
        )),
        "{said}"
    );
    for line in [
        &format!("holder   pid {script}, sh, uid "),
        ", claimfs, which exited with 0, so it passed on\n",
        &format!("next     pid {shell}, sh, once the one before exits\n"),
        &format!("free     once pid {shell} (sh) exits, or as soon as its holder is killed\n"),
        &format!("holder   pid {shell}, sh, uid "),
        &format!("from     pid {script}, sh, which exited with 7, so it passed on\n"),
        "free     once the holder exits or is killed\n",
        &format!("free     when pid {shell} ends, in any way\n"),
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn whoami_says_the_scope_and_what_a_claim_ends_with() {
    let Some(mount) = Mount::new() else { return };
    let said = script(
        &mount,
        "echo $$; \"$claimfs\" whoami; sh -c 'echo $$; \"$claimfs\" whoami; :'; setsid --wait \"$claimfs\" whoami",
    );
    let lines: Vec<&str> = said.lines().collect();
    let (shell, script) = (lines[0], lines[3]);
    assert_eq!(
        lines[2],
        format!(
            "process scope: what 'claimfs claim' takes here is pid {shell} (sh)'s, and free when that exits or is killed"
        )
    );
    assert_eq!(
        lines[5],
        format!(
            "process scope: what 'claimfs claim' takes here is pid {script} (sh)'s, its parent's when that exits, and free when pid \
             {shell} (sh) exits or its holder is killed"
        )
    );
    assert_eq!(
        lines[7],
        "process scope: what this command claims would be free once it exits"
    );
}

#[test]
fn events_tells_in_words_how_a_claim_passed_on() {
    let Some(mount) = Mount::new() else { return };
    let mut command = mount.claimfs(&["events", "--follow"]);
    let mut events = Guard::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()));
    // The reader is there once it tells of something.
    let mut actor = mount.actor(Some("w1"));
    wait_until("the events are read", || {
        actor.claim("seen").is_ok() && actor.unlink("claims/seen").is_ok() && {
            let mut poll = libc::pollfd {
                fd: std::os::fd::AsRawFd::as_raw_fd(events.0.stdout.as_ref().unwrap()),
                events: libc::POLLIN,
                revents: 0,
            };
            unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
        }
    });
    let said = script(
        &mount,
        "echo $$; \"$claimfs\" claim x; sh -c 'echo > claims/y; kill -9 $$'; ls claims",
    );
    let shell = said.lines().next().unwrap();
    let mut next = |word: &str| loop {
        let line = events.line();
        if line.contains(word) {
            break line;
        }
    };
    let passed = next("passed ");
    let to = format!("(claimfs) that exited with 0, to pid {shell} (sh)");
    assert!(passed.ends_with(&to), "{passed}");
    let reaped = next("reaped ");
    assert!(
        reaped.ends_with("token 3, killed by signal 9") || reaped.ends_with("killed by signal 9"),
        "{reaped}"
    );
}

#[test]
fn a_claim_does_not_die_with_the_command_that_made_it() {
    let Some(mount) = Mount::new() else { return };
    // The variable is on the command alone, so the command alone would be the session's root.
    let cases = [
        ("claim a", "CLAIMFS_SESSION=w1 "),
        ("claim --session w1 a", ""),
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
        assert_eq!(record["session"], "w1");
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
        (0, String::new(), "claimfs: nothing is held\n".into())
    );
    let mut holder = mount.actor(Some("w1"));
    holder.claim("a").unwrap();
    holder.claim("evil\u{1b}[31m\n").unwrap();
    let (code, out, _) = run(&mut mount.claimfs(&["ls"]));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((code, lines.len()), (0, 3), "{out}");
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        [
            "CLAIM", "SESSION", "HOLDER", "AGE", "LEFT", "WAITERS", "REASON"
        ]
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
                .map(parsed)
                .map(|record| record["token"].clone())
                .collect()
        ),
        (0, vec![1.into(), 2.into()])
    );
    let (code, out, _) = run(&mut mount.claimfs(&["show", "a"]));
    assert!(
        code == 0
            && out.contains("session  w1\n")
            && out.contains(&format!("token    1\nalive    pid {}, actor", holder.pid())),
        "{out}"
    );
    let (code, out, _) = run(&mut mount.claimfs(&["show", "--json", "a"]));
    assert_eq!((code, parsed(&out)), (0, mount.record("a").unwrap()));
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
            "w1 (variable: your environment has CLAIMFS_SESSION=w1; it is this command alone, so what it claims ends with it)\n\
             session scope: what one process of it claims, all of it holds, until the last of them exits\n"
        )
    );
    let (code, out, _) = run(mount
        .claimfs(&["whoami", "--json"])
        .env("CLAIMFS_SESSION", "w1"));
    assert_eq!((code, parsed(&out)["rule"].clone()), (0, "variable".into()));
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
    let lines: Vec<Value> = out.lines().map(parsed).collect();
    assert_eq!(
        (lines[0]["session"].clone(), lines[1]["session"].clone()),
        ("w1".into(), "w1".into())
    );
    assert_eq!(mount.claims(), [""; 0], "it ends with the command");
    let (code, ..) = run(&mut mount.claimfs(&["session", "run", "--", "sh", "-c", "kill -9 $$"]));
    assert_eq!(code, 128 + 9);
    let (code, out, _) = run(&mut mount.claimfs(&["session", "run", "sh", "-c", "cat self"]));
    assert!(
        code == 0
            && parsed(&out)["session"]
                .as_str()
                .unwrap()
                .starts_with("run-"),
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
        (0, String::new(), "claimfs: no session is live\n".into())
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
        (code, parsed(&out)["leases"].clone()),
        (0, serde_json::json!(["a"]))
    );
    assert_eq!(run(&mut mount.claimfs(&["session", "end", "w1"])).0, 0);
    assert_eq!(mount.claims(), [""; 0]);
    assert_eq!(
        run(&mut mount.claimfs(&["session", "end", "w1"])),
        (
            4,
            String::new(),
            "claimfs: sessions/w1: no live session; see 'claimfs session ls'\n".into()
        ),
        "it has ended"
    );
}

#[test]
fn bad_names_are_usage_errors_that_say_the_rule() {
    let Some(mount) = Mount::new() else { return };
    for verb in ["claim", "release", "show"] {
        for name in ["", "..", ".x", "a\\b", "claims/", "claims/.x"] {
            // A path, which may be reserved.
            if name == ".." && verb != "claim" {
                continue;
            }
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
        (0, String::new(), "claimfs: nothing is held\n".into())
    );
    let (code, _, err) = text(&alone("umount -l $keep; \"$claimfs\" ls"));
    assert_eq!(
        (
            code,
            err.contains("no claimfs is mounted here; mount one with 'claimfs mount', or ")
        ),
        (3, true),
        "{err}"
    );
    // A bind of it is no second one.
    assert_eq!(
        text(&alone("mount --bind $keep $second; \"$claimfs\" ls")),
        (0, String::new(), "claimfs: nothing is held\n".into())
    );
}

#[test]
fn regression_a_claim_is_held_by_a_script_whose_posix_session_began_outside_of_the_pid_namespace() {
    if !root_or_skip("make a pid namespace") || !can_mount() {
        return;
    }
    let temp = TempDir::new();
    // The command's POSIX session has no number here. A CI system's setsid gives it one to itself.
    let script = "\"$claimfs\" mount --state-dir state mount 2>/dev/null; cd mount
        sh -c 'cat self; \"$claimfs\" claim own; \"$claimfs\" ls; setsid -w \"$claimfs\" claim x; echo exit $?'; ls claims; cd ..
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
        out.contains("claims/own: taken by session outside-") && out.contains("exit 3\n"),
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
