//! `mount-scripts/try-it`, the demonstration of the README, in all places where it may be started.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use serde_json::Value;

use crate::support::{CLAIMFS, TempDir, can_mount, plain, root_or_skip, skip, text, unmount};

/// The script's path.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/mount-scripts/try-it");

/// What the script says if these words run it, in a POSIX session of its own and without a
/// terminal; it must succeed.
pub fn play(before: &[&str], prepare: impl FnOnce(&mut Command)) -> Option<String> {
    if !can_mount() {
        return None;
    }
    let temp = TempDir::new();
    let dir = temp.path().join("claims-demo");
    let mut words: Vec<String> = before.iter().map(|word| (*word).to_owned()).collect();
    let story = format!("exec '{SCRIPT}' '{}' 2>&1", dir.display());
    if words.last().is_some_and(|word| word == "COMMAND") {
        words.pop();
        words.push(story);
        words.push(String::from("/dev/null"));
    } else {
        words.extend(["sh", "-c", &story].map(String::from));
    }
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    plain(&mut command);
    command.env("CLAIMFS", CLAIMFS);
    prepare(&mut command);
    let output = command.output().unwrap();
    unmount(&dir);
    let said = String::from_utf8(output.stdout).unwrap().replace('\r', "");
    assert!(output.status.success(), "{said}");
    let state = said.split_once("--state-dir ").unwrap().1;
    let state = state.split(' ').next().unwrap();
    assert!(
        !dir.exists() && !Path::new(state).exists(),
        "it cleans up after itself: {said}"
    );
    Some(said)
}

/// The records that the story shows: of the script that is killed, and of the next.
fn records(said: &str) -> Vec<Value> {
    let lines = said.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Checks the story as it is told of two scripts that name no session.
pub fn assert_told(said: &str) {
    let commands: Vec<&str> = said.lines().filter(|line| line.starts_with("$ ")).collect();
    assert_eq!(
        commands.len(),
        8,
        "each command is printed before its result: {said}"
    );
    let claimfs = commands
        .iter()
        .filter(|command| command.contains("claimfs "));
    assert_eq!(claimfs.count(), 2, "mount and umount: {said}");
    assert!(
        !said.contains("CLAIMFS_SESSION"),
        "nobody names a session: {said}"
    );
    assert_contended(said);
    let records = records(said);
    assert_eq!(
        records[0]["session"], records[1]["session"],
        "they are of one session: {said}"
    );
    assert_ne!(records[0]["pid"], records[1]["pid"]);
    for record in &records {
        assert_eq!(record["scope"], "process", "{said}");
    }
}

/// The second was refused, and had the name at the first try once the first was killed.
fn assert_contended(said: &str) {
    let refused = said.matches("cannot create claims/repo: File exists");
    assert_eq!(refused.count(), 1, "{said}");
    let tokens: Vec<Value> = records(said)
        .iter()
        .map(|record| record["token"].clone())
        .collect();
    assert_eq!(tokens, [1, 2], "{said}");
}

/// Whether the tool is there that a story is run by.
fn has(tool: &str) -> bool {
    let there = Path::new("/usr/bin").join(tool).exists() || Path::new("/bin").join(tool).exists();
    if !there {
        skip(&format!("{tool} is not installed"));
    }
    there
}

#[test]
fn in_a_terminal_two_scripts_contend_without_naming_themselves() {
    if !has("script") {
        return;
    }
    let before = ["script", "--quiet", "--return", "--command", "COMMAND"];
    let Some(said) = play(&before, |_| {}) else {
        return;
    };
    assert_told(&said);
}

#[test]
fn in_a_job_without_a_terminal_the_story_is_the_same() {
    let Some(said) = play(&["setsid", "--wait"], |_| {}) else {
        return;
    };
    assert_told(&said);
}

#[test]
fn as_the_first_process_of_a_container_the_story_is_the_same() {
    if !root_or_skip("make a pid namespace") {
        return;
    }
    let before = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let Some(said) = play(&before, |_| {}) else {
        return;
    };
    assert_told(&said);
}

#[test]
fn below_an_agent_it_says_that_the_agent_holds_and_names_the_workers() {
    let Some(said) = play(&["setsid", "--wait"], |command| {
        command
            .env("CLAUDECODE", "1")
            .env("CLAUDE_CODE_SESSION_ID", "conversation");
    }) else {
        return;
    };
    assert!(
        said.contains("# You are below claude-code: the agent is the holder"),
        "{said}"
    );
    assert_contended(&said);
    let sessions: Vec<Value> = records(&said)
        .iter()
        .map(|record| record["session"].clone())
        .collect();
    assert_eq!(sessions, ["w1", "w2"], "{said}");
}

/// A first `rustc` of this version and a `cargo` that only says what it is called with: the code
/// and the errors of the script, which builds nothing.
fn with_rust(version: &str) -> (i32, String) {
    let temp = TempDir::new();
    let write = |name: &str, script: String| {
        let path = temp.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    write("rustc", format!("echo 'rustc {version} (abc 2026-01-01)'"));
    let cargo = "case $1 in metadata) echo '{\"target_directory\":\"/none\"}' ;; \
         build) echo \"cargo $*\" >&2; exit 9 ;; esac";
    write(
        "cargo",
        if version.is_empty() {
            String::from("exit 1")
        } else {
            cargo.into()
        },
    );
    let mut script = Command::new(SCRIPT);
    script.env_remove("CLAIMFS");
    let path = format!("{}:{}", temp.path().display(), env::var("PATH").unwrap());
    let output = script
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (code, out, err) = text(&output);
    if code == 9 {
        assert_eq!(
            out,
            "Building claimfs in /none: one or two minutes the first time. cargo shows how far it is.\n"
        );
        assert!(!err.contains("--quiet"), "{err}");
    }
    (code, err)
}

#[test]
fn it_says_in_a_sentence_that_rustc_is_too_old_or_missing_before_it_builds() {
    if !can_mount() {
        return;
    }
    for version in ["1.88.0", "1.9.9", "0.99.0"] {
        let (code, err) = with_rust(version);
        assert_eq!(code, 3, "{err}");
        assert_eq!(
            err,
            format!(
                "try-it: building claimfs needs Rust 1.89 or later, and here is {version}; run 'rustup update stable'\n"
            )
        );
    }
    let (code, err) = with_rust("");
    assert_eq!(code, 3, "{err}");
    assert!(
        err.contains("needs Rust 1.89 or later, and there is none here; install it"),
        "{err}"
    );
    for version in ["1.89.0", "1.100.0-nightly", "2.0.0"] {
        let (code, err) = with_rust(version);
        assert!(
            code == 9 && err.starts_with("cargo build --profile quick "),
            "{version}: {err}"
        );
    }
}
