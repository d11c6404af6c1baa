//! `claimfs hook`: what an agent's event comes to, and the guard of git's commits.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::sessions::agents::stand_in::Programs;
use crate::support::{CLAIMFS, Guard, Mount, TempDir, is_over, parsed, plain, text, wait_until};

/// The reason of what a hook reserves.
const REASON: &str = "edit, by claimfs hook";

/// A project with a mount, and sessions that live.
struct Project {
    mount: Mount,
    dir: TempDir,
    shells: Vec<Guard>,
}

impl Project {
    fn new(sessions: &[&str]) -> Option<Self> {
        let mount = Mount::new()?;
        let dir = TempDir::new();
        fs::create_dir_all(dir.path().join("app/src")).unwrap();
        let shells = sessions.iter().map(|id| session(&mount, id)).collect();
        Some(Self { mount, dir, shells })
    }

    fn app(&self) -> PathBuf {
        fs::canonicalize(self.dir.path()).unwrap().join("app")
    }

    /// The name of the reservation of a path of the project.
    fn name(&self, path: &str) -> String {
        format!("paths{}/{path}", self.app().display())
    }

    /// The hook of a session, which is told this text.
    fn told(&self, id: &str, text: &[u8], prepare: impl FnOnce(&mut Command)) -> Said {
        let mut hook = self.mount.claimfs(&["hook"]);
        hook.env("CLAIMFS_SESSION", id).current_dir(self.app());
        prepare(&mut hook);
        tell(&mut hook, text)
    }

    fn event(&self, name: &str, path: &str) -> Value {
        json!({
            "session_id": "0b5e", "hook_event_name": name, "cwd": self.app(),
            "tool_name": "Edit", "tool_input": { "file_path": path },
        })
    }

    fn on(&self, id: &str, name: &str, path: &str) -> Said {
        let event = self.event(name, path).to_string();
        self.told(id, event.as_bytes(), |_| {})
    }

    fn edits(&self, id: &str, path: &str) -> Said {
        self.on(id, "PreToolUse", path)
    }

    /// All reservations, by their paths in the project.
    fn reserved(&self) -> Vec<String> {
        let list = self.mount.run("find paths -type f | sort");
        let base = format!("{}/", self.name("").trim_end_matches('/'));
        let lines = list.lines();
        lines
            .map(|line| line.strip_prefix(&base).unwrap_or(line).to_owned())
            .collect()
    }
}

/// The exit code, standard output and standard error.
type Said = (i32, String, String);

fn silent() -> Said {
    (0, String::new(), String::new())
}

fn tell(hook: &mut Command, event: &[u8]) -> Said {
    hook.stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut hook = hook.spawn().unwrap();
    // It may have ended before it has read all.
    _ = hook.stdin.take().unwrap().write_all(event);
    text(&hook.wait_with_output().unwrap())
}

/// A process of a session, so that this outlives its hooks.
fn session(mount: &Mount, id: &str) -> Guard {
    let mut shell = mount.sh("echo > claims/$CLAIMFS_SESSION; echo; exec sleep 600");
    shell.env("CLAIMFS_SESSION", id).stdout(Stdio::piped());
    let mut shell = Guard::spawn(&mut shell);
    assert_eq!(shell.line(), "");
    shell
}

/// One line, from claimfs.
fn is_one_line(err: &str) -> bool {
    err.starts_with("claimfs: ") && err.ends_with('\n') && err.lines().count() == 1
}

#[test]
fn an_edit_reserves_its_file_until_the_turn_ends() {
    let Some(mut project) = Project::new(&["one", "two"]) else {
        return;
    };
    assert_eq!(project.edits("one", "src/new dir/a.rs"), silent());
    let record = project.mount.record(&project.name("src/new dir/a.rs"));
    let record = record.unwrap();
    assert_eq!(
        (&record["session"], &record["reason"]),
        (&"one".into(), &REASON.into())
    );
    assert_eq!(
        project.edits("one", "src/new dir/a.rs"),
        silent(),
        "its own"
    );
    let (code, out, err) = project.edits("two", "src/new dir/a.rs");
    assert_eq!((code, out.as_str()), (2, ""));
    let path = format!("{}/src/new dir/a.rs", project.app().display());
    for part in [
        format!("{path}: reserved by session one since 2"),
        format!(" s ago, who says \"{REASON}\""),
        format!("claimfs reserve --wait=60 '{path}' -m '{REASON}'"),
    ] {
        assert!(is_one_line(&err) && err.contains(&part), "{part}: {err}");
    }
    // The command of the message waits, and what it takes is given back as if the hook had.
    let (_, command) = err.trim_end().rsplit_once("edit it: ").unwrap();
    let mut waits = Command::new("sh");
    plain(&mut waits);
    let path = format!(
        "{}:/usr/bin:/bin",
        Path::new(CLAIMFS).parent().unwrap().display()
    );
    waits.args(["-c", command]).env("PATH", path);
    waits
        .env("CLAIMFS_MOUNT", &project.mount.dir)
        .env("CLAIMFS_SESSION", "two");
    let mut waits = Guard::spawn(waits.stdout(Stdio::null()));
    assert_eq!(project.on("one", "SubagentStop", ""), silent());
    let mut subagent = project.event("Stop", "");
    subagent["agent_id"] = "a1".into();
    let subagent = subagent.to_string();
    assert_eq!(project.told("one", subagent.as_bytes(), |_| {}), silent());
    assert_eq!(
        project.reserved(),
        ["src/new dir/a.rs"],
        "a subagent's end is not its agent's"
    );
    assert_eq!(project.on("one", "Stop", ""), silent());
    wait_until("it has the file", || waits.0.try_wait().unwrap().is_some());
    assert_eq!(
        project
            .mount
            .session_of(&project.name("src/new dir/a.rs"))
            .unwrap(),
        "two"
    );
    assert_eq!(project.edits("two", "src/new dir/a.rs"), silent());
    assert_eq!(project.on("two", "SessionEnd", ""), silent());
    assert_eq!(project.reserved(), [""; 0]);
    // A death gives back at once.
    assert_eq!(project.edits("one", "src/b"), silent());
    drop(project.shells.remove(0));
    assert_eq!(project.edits("two", "src/b"), silent());
}

#[test]
fn what_the_agent_itself_reserved_stays_its_own() {
    let Some(project) = Project::new(&["one", "two"]) else {
        return;
    };
    let verb = |words: &[&str]| {
        let mut verb = project.mount.claimfs(words);
        verb.env("CLAIMFS_SESSION", "one")
            .current_dir(project.app());
        let (code, _, err) = text(&verb.output().unwrap());
        assert_eq!((code, err.as_str()), (0, ""), "{words:?}");
    };
    verb(&["reserve", "src/mine"]);
    assert_eq!(project.edits("one", "src/mine"), silent());
    // Covered by its own: nothing more is taken.
    verb(&["reserve", "doc"]);
    assert_eq!(project.edits("one", "doc/a/b"), silent());
    // Taken over from the hook, with and without a reason.
    for path in ["src/kept", "src/kept too", "src/edited"] {
        assert_eq!(project.edits("one", path), silent());
    }
    verb(&["reserve", "src/kept"]);
    verb(&["reserve", "src/kept too", "-m", "all day"]);
    assert_eq!(project.edits("one", "src/kept"), silent());
    assert_eq!(project.on("one", "Stop", ""), silent());
    assert_eq!(
        project.reserved(),
        ["doc", "src/kept", "src/kept too", "src/mine"]
    );
    let record = project.mount.record(&project.name("src/kept too")).unwrap();
    assert_eq!(record["reason"], "all day");
    let (code, _, err) = project.edits("two", "doc/a/b");
    let part = format!(
        "reserved, as a part of {}/doc, by session one",
        project.app().display()
    );
    assert!(
        code == 2 && err.contains(&part) && err.contains("without a reason"),
        "{err}"
    );
    let (code, _, err) = project.edits("two", "src");
    assert!(code == 2 && err.contains("reserved in part ("), "{err}");
    // After a tool, only its own file, and only if a hook reserved it.
    assert_eq!(project.edits("one", "src/x"), silent());
    assert_eq!(project.edits("one", "src/y"), silent());
    assert_eq!(project.on("one", "PostToolUse", "src/x"), silent());
    assert_eq!(project.on("one", "PostToolUse", "src/mine"), silent());
    assert_eq!(project.on("two", "PostToolUse", "src/y"), silent());
    assert_eq!(
        project.reserved(),
        ["doc", "src/kept", "src/kept too", "src/mine", "src/y"]
    );
}

#[test]
fn paths_that_are_not_the_projects_are_passed_over() {
    let Some(project) = Project::new(&["one"]) else {
        return;
    };
    let app = project.app();
    fs::create_dir_all(app.join(".git/info")).unwrap();
    fs::create_dir(app.with_file_name("beside")).unwrap();
    symlink("../beside", app.join("link")).unwrap();
    symlink(&project.mount.dir, app.join("claims")).unwrap();
    let mount = project.mount.dir.display();
    for path in [
        ".git/index",
        "src/../.git/x",
        "sub/.git",
        "../app2/x",
        "/etc/none",
        "claims/claims/x",
        &format!("{mount}/paths/x"),
    ] {
        assert_eq!(project.edits("one", path), silent(), "{path}");
    }
    assert_eq!(project.reserved(), [""; 0]);
    // Through a symlink it is the file that it leads to, also outside.
    symlink("src/real", app.join("alias")).unwrap();
    assert_eq!(project.edits("one", "alias"), silent());
    assert_eq!(project.edits("one", "link/x"), silent());
    let beside = app.with_file_name("beside");
    let beside = format!("paths{}/x", beside.display());
    assert_eq!(project.reserved(), ["src/real", &beside]);
    // The project is that of the variable, wherever the agent has gone.
    let mut event = project.event("PreToolUse", "/etc/none");
    event["cwd"] = "/usr".into();
    event["tool_input"]["file_path"] = json!(app.join("src/far"));
    let far = event.to_string();
    assert_eq!(project.told("one", far.as_bytes(), |_| {}), silent());
    assert!(!project.reserved().contains(&"src/far".to_owned()));
    let set = |hook: &mut Command| _ = hook.env("CLAUDE_PROJECT_DIR", &app);
    assert_eq!(project.told("one", far.as_bytes(), set), silent());
    assert!(project.reserved().contains(&"src/far".to_owned()));
}

#[test]
fn worktrees_do_not_disturb_each_other() {
    let Some(project) = Project::new(&["one", "two"]) else {
        return;
    };
    let app = project.app();
    let script = "git init -q . && git -c user.name=a -c user.email=a commit -q --allow-empty -m x
        git worktree add -q ../other";
    let mut git = Command::new("sh");
    git.args(["-ec", script]).current_dir(&app);
    assert!(git.status().unwrap().success());
    assert_eq!(project.edits("one", "src/a"), silent());
    let mut event = project.event("PreToolUse", "src/a");
    event["cwd"] = json!(app.with_file_name("other"));
    let event = event.to_string();
    let set = |hook: &mut Command| _ = hook.env("CLAUDE_PROJECT_DIR", &app);
    assert_eq!(project.told("two", event.as_bytes(), set), silent());
    assert_eq!(project.reserved().len(), 2);
}

#[test]
fn several_files_of_a_patch_are_reserved_together_or_not_at_all() {
    let Some(project) = Project::new(&["one", "two"]) else {
        return;
    };
    let mut event = project.event("PreToolUse", "");
    event["tool_name"] = "apply_patch".into();
    event["tool_input"] = json!({ "command": "*** Begin Patch\n*** Update File: a\n*** Move to: b\n*** Add File: c\n" });
    let event = event.to_string();
    assert_eq!(project.edits("two", "c"), silent());
    let (code, _, err) = project.told("one", event.as_bytes(), |_| {});
    assert!(
        code == 2 && err.contains("/c: reserved by session two"),
        "{err}"
    );
    assert_eq!(project.reserved(), ["c"]);
    assert_eq!(project.on("two", "Stop", ""), silent());
    assert_eq!(project.told("one", event.as_bytes(), |_| {}), silent());
    assert_eq!(project.reserved(), ["a", "b", "c"]);
}

#[test]
fn what_is_wrong_with_the_call_is_one_line_and_exit_code_1() {
    let Some(project) = Project::new(&["one"]) else {
        return;
    };
    let (long, most) = (" ".repeat(1024 * 1024 - 1), " ".repeat(1024 * 1024 - 2));
    let empty = project.event("PreToolUse", "").to_string();
    let outside = project.event("PreToolUse", "none/../x").to_string();
    for event in [
        "",
        "no JSON",
        "{}",
        "[1]",
        &format!("{{}}{long}"),
        &empty,
        &outside,
        r#"{"hook_event_name":"PreToolUse","tool_name":"Edit"}"#,
        r#"{"hook_event_name":"PreToolUse","tool_name":"Edit","tool_input":{"file_path":"a"},"cwd":"b\u001b[2J"}"#,
    ] {
        for required in ["", "1"] {
            let set = |hook: &mut Command| _ = hook.env("CLAIMFS_REQUIRE", required);
            let (code, out, err) = project.told("one", event.as_bytes(), set);
            assert_eq!((code, out.as_str()), (1, ""), "{err}");
            assert!(is_one_line(&err) && !err.contains('\x1b'), "{err:?}");
        }
    }
    assert_eq!(
        project
            .told("one", format!("{{}}{most}").as_bytes(), |_| {})
            .0,
        1
    );
    let last = r#"{"hook_event_name":"x"}"#;
    let fits = format!("{last}{}", " ".repeat(1024 * 1024 - last.len()));
    assert_eq!(project.told("one", fits.as_bytes(), |_| {}), silent());
    for words in [
        &["hook", "--bogus"][..],
        &["hook", "x"],
        &["--mount", "/x", "hook", "-z"],
    ] {
        let (code, out, err) = text(&project.mount.claimfs(words).output().unwrap());
        assert_eq!((code, out.as_str()), (1, ""), "{words:?}");
        assert!(
            is_one_line(&err) && err.contains("claimfs hook --help"),
            "{err}"
        );
    }
    let map = |hook: &mut Command| {
        hook.env("CLAIMFS_PATH_MAP", "/a")
            .env("CLAIMFS_REQUIRE", "1");
    };
    let event = project.event("PreToolUse", "a").to_string();
    let (code, _, err) = project.told("one", event.as_bytes(), map);
    assert!(code == 1 && is_one_line(&err), "{err}");
    let (code, out, _) = text(&project.mount.claimfs(&["hook", "--help"]).output().unwrap());
    assert!(code == 0 && out.contains("pre-commit"), "{out}");
    assert_eq!(project.reserved(), [""; 0]);
}

#[test]
fn unknown_tools_and_events_are_passed_over_without_a_mount_too() {
    let Some(project) = Project::new(&[]) else {
        return;
    };
    let mut event = project.event("PreToolUse", "a");
    for tool in ["Read", "Bash", "mcp__x__edit", "\u{1b}"] {
        event["tool_name"] = tool.into();
        let event = event.to_string();
        assert_eq!(project.told("one", event.as_bytes(), |_| {}), silent());
    }
    assert_eq!(project.on("one", "PreCompact", ""), silent());
}

#[test]
fn what_would_end_with_the_hook_is_not_reserved() {
    let Some(project) = Project::new(&[]) else {
        return;
    };
    let event = project.event("PreToolUse", "a").to_string();
    let run = |words: &[&str], id: Option<&str>, required: &str| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        plain(&mut command);
        command
            .env("CLAIMFS_MOUNT", &project.mount.dir)
            .current_dir(project.app());
        command.env("CLAIMFS_REQUIRE", required);
        command.envs(id.map(|id| ("CLAIMFS_SESSION", id)));
        tell(&mut command, event.as_bytes())
    };
    let shell = format!("{CLAIMFS} hook");
    for words in [
        &[CLAIMFS, "hook"][..],
        &["setsid", "-w", CLAIMFS, "hook"],
        &["timeout", "9", "sh", "-c", &shell],
        &["sh", "-c", &shell],
        &["bash", "-c", &format!("true; {shell}")],
    ] {
        for id in [None, Some("brief")] {
            let (code, _, err) = run(words, id, "");
            assert_eq!(code, 1, "{words:?}: {err}");
            assert!(
                is_one_line(&err) && err.contains("'claimfs session run -- AGENT'"),
                "{err}"
            );
            assert_eq!(run(words, id, "1").0, 2);
        }
    }
    assert_eq!(project.reserved(), [""; 0]);
    // A script that goes on holds it as its session. Without one it would pass to the terminal.
    for (id, expected) in [(None, 1), (Some("script"), 0)] {
        let script = format!("{shell} || exit; find \"$CLAIMFS_MOUNT/paths\" -type f; :");
        let (code, out, err) = run(&["sh", "-c", &script], id, "");
        assert_eq!((code, err.is_empty()), (expected, expected == 0), "{err}");
        assert_eq!(out.trim_end().ends_with("app/a"), expected == 0, "{out}");
    }
    assert_eq!(project.reserved(), [""; 0]);
}

#[test]
fn an_agent_is_told_at_the_start_what_happens_to_its_edits() {
    let Some(project) = Project::new(&["one"]) else {
        return;
    };
    let (code, out, err) = project.on("one", "SessionStart", "");
    assert_eq!((code, err.as_str()), (0, ""));
    let output = &parsed(&out)["hookSpecificOutput"];
    assert_eq!(output["hookEventName"], "SessionStart");
    let context = output["additionalContext"].as_str().unwrap();
    assert!(context.contains("(id one)"), "{context}");
}

#[test]
fn without_a_mount_the_agent_goes_on_unless_one_is_required() {
    let Some(mut project) = Project::new(&["one"]) else {
        return;
    };
    let event = project.event("PreToolUse", "a").to_string();
    let stop = project.event("Stop", "").to_string();
    let none = project.dir.path().join("none");
    let at = |dir: &Path, event: &str, required: &str| {
        let set = |hook: &mut Command| {
            _ = hook
                .env("CLAIMFS_MOUNT", dir)
                .env("CLAIMFS_REQUIRE", required);
        };
        project.told("one", event.as_bytes(), set)
    };
    assert_eq!(at(&none, &event, ""), silent());
    assert_eq!(at(&none, &event, "0"), silent());
    let (code, _, err) = at(&none, &event, "1");
    assert!(
        code == 2 && is_one_line(&err) && err.contains("/none: no claimfs is mounted there"),
        "{err}"
    );
    // It would keep the agent from stopping.
    assert_eq!(at(&none, &stop, "1"), silent());

    // A server that does not answer: the limit, and what hangs is gone or left behind.
    let (supervisor, server) = (project.mount.supervisor(), project.mount.pid());
    let signal = |signal| unsafe {
        libc::kill(supervisor as i32, signal);
        libc::kill(server as i32, signal);
    };
    signal(libc::SIGSTOP);
    let dir = project.mount.dir.clone();
    for (event, required, expected) in [(&event, "", 1), (&event, "1", 2), (&stop, "1", 1)] {
        let began = Instant::now();
        let (code, out, err) = at(&dir, event, required);
        let took = began.elapsed();
        assert_eq!((code, out.as_str()), (expected, ""), "{err}");
        assert!(
            is_one_line(&err) && err.contains("does not answer within 2 s"),
            "{err}"
        );
        assert!(
            (Duration::from_secs(2)..Duration::from_secs(6)).contains(&took),
            "{took:?}"
        );
    }
    signal(libc::SIGCONT);
    assert_eq!(at(&dir, &event, ""), silent());

    project.mount.kill();
    let at = |event: &str, required: &str| {
        let set = |hook: &mut Command| _ = hook.env("CLAIMFS_REQUIRE", required);
        project.told("one", event.as_bytes(), set)
    };
    for (event, required, expected) in [(&event, "", 1), (&event, "1", 2), (&stop, "1", 1)] {
        let (code, _, err) = at(event, required);
        assert_eq!(code, expected, "{err}");
        assert!(
            is_one_line(&err) && err.contains("the server of this mount is gone"),
            "{err}"
        );
    }
}

#[test]
fn ids_and_reasons_of_others_are_escaped() {
    let id = "one\u{1b}[2J\u{202e}";
    let Some(project) = Project::new(&[id, "two"]) else {
        return;
    };
    let app = project.app().display().to_string();
    let reason = "\u{1b}]0;x\u{7}\nclaimfs: all is well\u{202e}";
    let line = json!({ "reserve": [format!("{app}/a")], "reason": reason });
    fs::write(project.dir.path().join("line"), format!("{line}\n")).unwrap();
    let mut script = project.mount.sh("cat \"$LINE\" > control");
    script
        .env("CLAIMFS_SESSION", id)
        .env("LINE", project.dir.path().join("line"));
    assert!(script.status().unwrap().success());
    let (code, _, err) = project.edits("two", "a");
    assert_eq!(code, 2);
    assert!(is_one_line(&err), "{err:?}");
    assert!(
        !err.chars()
            .any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'),
        "{err:?}"
    );
    assert!(
        err.contains(r#"who says "\u{1b}]0;x\u{7}\nclaimfs: all is well\u{202e}""#),
        "{err}"
    );
    assert!(
        err.contains(r"by session one\u{1b}[2J\u{202e} since"),
        "{err}"
    );
}

#[test]
fn an_agent_that_is_known_by_its_name_alone_holds_what_its_hooks_reserve() {
    let Some(mut mount) = Mount::unmounted() else {
        return;
    };
    mount.knows_agents = true;
    mount.start(&[]);
    let programs = Programs::new();
    let dir = TempDir::new();
    let event = |name: &str| {
        let input = json!({ "file_path": "src/a" });
        json!({ "hook_event_name": name, "tool_name": "Write", "tool_input": input, "cwd": dir.path() })
    };
    // No variable, and each hook in a shell of its own POSIX session.
    let script = format!(
        "hook() {{ setsid -w sh -c '{CLAIMFS} hook' <<< \"$1\"; }}
         hook '{}' || exit 9; grep '\"name\"' \"$CLAIMFS_MOUNT/leases\"; read -r line; hook '{}'; echo $?; read -r line",
        event("PreToolUse"),
        event("Stop"),
    );
    let start = || {
        let mut agent = Command::new(programs.shell("claude"));
        plain(&mut agent);
        agent.args(["-c", &script]).env("CLAIMFS_MOUNT", &mount.dir);
        agent
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Guard::spawn(&mut agent)
    };
    let mut one = start();
    let record = parsed(&one.line());
    let session = record["session"].as_str().unwrap().to_owned();
    assert!(
        session.starts_with(&format!("claude-code-{}-", one.0.id())),
        "{record}"
    );
    assert_eq!(record["reason"], REASON);
    let mut two = start();
    wait_until("it is refused", || two.0.try_wait().unwrap().is_some());
    assert_eq!(two.0.wait().unwrap().code(), Some(9));
    // In the middle of its edit.
    one.0.kill().unwrap();
    one.0.wait().unwrap();
    let mut three = start();
    assert!(three.line().contains("\"claude-code-"));
    writeln!(three.0.stdin.as_mut().unwrap()).unwrap();
    assert_eq!(three.line(), "0");
    assert!(!mount.read("leases").contains("\"name\""));
}

#[test]
fn in_a_sandbox_the_paths_are_those_of_the_host_by_the_map() {
    let Some(project) = Project::new(&[]) else {
        return;
    };
    let bwrap = Command::new("bwrap")
        .args(["--dev-bind", "/", "/", "true"])
        .status();
    if !bwrap.is_ok_and(|status| status.success()) {
        crate::support::skip("bubblewrap is not installed, or may not make a sandbox here");
        return;
    }
    let app = project.app().display().to_string();
    let mount = project.mount.dir.display().to_string();
    let map = format!("/work={app}");
    let event = r#"{"hook_event_name":"PreToolUse","tool_name":"Edit","tool_input":{"file_path":"/work/src/new/a"},"cwd":"/work"}"#;
    let run = |script: &str| {
        let mut bwrap = Command::new("bwrap");
        plain(&mut bwrap);
        bwrap.args(["--unshare-pid", "--die-with-parent", "--dev-bind", "/", "/"]);
        bwrap.args(["--proc", "/proc", "--tmpfs", "/tmp", "--dir", "/work"]);
        bwrap.args(["--bind", &app, "/work", "--bind", &mount, "/tmp/claims"]);
        bwrap.args(["--ro-bind", CLAIMFS, "/tmp/claimfs", "--chdir", "/work"]);
        bwrap.args(["--setenv", "CLAIMFS_MOUNT", "/tmp/claims"]);
        bwrap.args(["--setenv", "CLAIMFS_PATH_MAP", &map, "sh", "-c", script]);
        tell(&mut bwrap, event.as_bytes())
    };
    // The sandbox holds it, until it ends.
    let script = "/tmp/claimfs hook && find /tmp/claims/paths -type f; :";
    let (code, out, err) = run(script);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, format!("/tmp/claims/paths{app}/src/new/a\n"));
    assert_eq!(project.reserved(), [""; 0]);
    // The holder is outside, by the other path.
    let _one = session(&project.mount, "one");
    assert_eq!(project.edits("one", "src/new/a"), silent());
    let (code, _, err) = run("/tmp/claimfs hook");
    assert_eq!(code, 2, "{err}");
    assert!(
        err.contains("/work/src/new/a: reserved by session one"),
        "{err}"
    );
    assert!(err.contains("--wait=60 /work/src/new/a "), "{err}");
}

#[test]
fn the_hook_leaves_no_process_behind_that_holds_the_agents_pipes() {
    let Some(project) = Project::new(&["one"]) else {
        return;
    };
    let (supervisor, server) = (project.mount.supervisor(), project.mount.pid());
    for pid in [supervisor, server] {
        unsafe { libc::kill(pid as i32, libc::SIGSTOP) };
    }
    // `tell` reads to the end of the pipes: it would wait for a copy that had them.
    let (code, _, _) = project.edits("one", "a");
    assert_eq!(code, 1);
    for pid in [supervisor, server] {
        unsafe { libc::kill(pid as i32, libc::SIGCONT) };
        assert!(!is_over(pid));
    }
    wait_until("nothing is reserved by who was left", || {
        project.reserved().is_empty()
    });
}

/// A repository with a guard, in which these sessions commit.
fn commit(project: &Project, id: &str, words: &str) -> Said {
    let mut git = Command::new("sh");
    plain(&mut git);
    let script = format!("git {words}; exit $?");
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", Path::new(CLAIMFS).parent().unwrap().display());
    git.args(["-c", &script])
        .env("PATH", path)
        .current_dir(project.app());
    git.env("CLAIMFS_SESSION", id)
        .env("CLAIMFS_MOUNT", &project.mount.dir);
    for who in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{who}_NAME"), "a")
            .env(format!("GIT_{who}_EMAIL"), "a@b");
    }
    text(&git.output().unwrap())
}

#[test]
fn a_commit_of_what_another_has_reserved_is_refused_and_names_it() {
    let Some(mut project) = Project::new(&["one", "two"]) else {
        return;
    };
    let app = project.app();
    assert_eq!(commit(&project, "two", "init -q .").0, 0);
    let setup = |words: &[&str]| {
        let mut setup = project.mount.claimfs(&[&["setup", "git"], words].concat());
        text(&setup.current_dir(&app).output().unwrap())
    };
    assert_eq!(setup(&["--write"]).0, 0);
    for file in ["a", "b c", "src/d", "src/e"] {
        fs::write(app.join(file), "1").unwrap();
    }
    symlink("../nowhere", app.join("link")).unwrap();
    assert_eq!(commit(&project, "two", "add -A").0, 0);
    assert_eq!(commit(&project, "two", "commit -qm first").0, 0);
    assert_eq!(project.edits("one", "b c"), silent());
    assert_eq!(project.edits("one", "src"), silent());
    assert_eq!(project.edits("two", "a"), silent());
    for file in ["a", "b c", "src/d"] {
        fs::write(app.join(file), "2").unwrap();
    }
    let (code, _, err) = commit(&project, "two", "commit -qam second");
    assert_eq!(code, 1, "{err}");
    let shown = app.display();
    assert!(
        err.contains(&format!(
            "claimfs: {shown}/b c: reserved by session one since "
        )),
        "{err}"
    );
    assert!(
        err.contains(&format!(
            "{shown}/src/d: reserved, as a part of {shown}/src, by session one"
        )),
        "{err}"
    );
    assert!(!err.contains("/a: ") && !err.contains("/src/e: "), "{err}");
    // A part of it, a rename by both names, and the holder itself.
    assert_eq!(commit(&project, "two", "commit -qm part a").0, 0);
    assert_eq!(commit(&project, "one", "commit -qam mine").0, 0);
    let (code, _, err) = commit(&project, "two", "mv src/e e");
    assert_eq!(code, 0, "{err}");
    assert_eq!(commit(&project, "two", "commit -qm moved").0, 1);
    assert_eq!(commit(&project, "two", "commit -qm moved --no-verify").0, 0);
    // Failures are said, and do not stop a commit, unless a mount is required.
    fs::write(app.join("b c"), "3").unwrap();
    project.mount.kill();
    let (code, _, err) = commit(&project, "two", "commit -qam dead");
    assert!(
        code == 0 && err.contains("the server of this mount is gone"),
        "{err}"
    );
    let mut guard = project.mount.claimfs(&["hook", "pre-commit"]);
    guard.current_dir(&app).env("CLAIMFS_REQUIRE", "1");
    fs::write(app.join("b c"), "4").unwrap();
    assert_eq!(commit(&project, "two", "add -A").0, 0);
    assert_eq!(text(&guard.output().unwrap()).0, 1);
}
