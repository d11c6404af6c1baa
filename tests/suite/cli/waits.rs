//! The words of a command that waits, where standard error is a pipe, and when the mount ends.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::{Guard, Mount, TempDir, parsed, text, wait_until};

/// A command of this session whose standard error is piped in place of its output.
fn start(mount: &Mount, session: &str, words: &[&str]) -> Guard {
    let mut command = mount.claimfs(words);
    command.env("CLAIMFS_SESSION", session);
    piped(&mut command)
}

fn piped(command: &mut Command) -> Guard {
    let (reader, writer) = std::io::pipe().unwrap();
    command.stdin(Stdio::null());
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut guard = Guard::spawn(command);
    // The ends of the command itself are the last ones.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    guard.0.stdout = Some(std::os::fd::OwnedFd::from(reader).into());
    guard
}

/// The exit code, and the lines that are left.
fn ended(mut guard: Guard) -> (i32, String) {
    let mut status = None;
    wait_until("it ends", || {
        status = guard.0.try_wait().unwrap();
        status.is_some()
    });
    let mut said = String::new();
    let mut stdout = guard.0.stdout.take().unwrap();
    std::io::Read::read_to_string(&mut stdout, &mut said).unwrap();
    (status.unwrap().code().unwrap_or(-1), said)
}

/// A session that lives on: a shell whose commands it is.
fn shell(mount: &Mount, session: &str, script: &str) -> Guard {
    let mut shell = mount.sh(&format!("{script}\necho ready; read -r line; :"));
    shell.env("CLAIMFS_SESSION", session);
    let mut shell = Guard::spawn(shell.stdin(Stdio::piped()).stdout(Stdio::piped()));
    assert_eq!(shell.line(), "ready");
    shell
}

#[test]
fn in_a_pipe_one_line_says_who_is_waited_for() {
    let Some(mount) = Mount::new() else { return };
    let holder = shell(&mount, "holder", "echo > claims/x");
    let pid = holder.0.id();
    let says =
        format!("claimfs: waiting for claims/x: held by session holder (pid {pid}, sh) for ");
    let mut waiting = Vec::new();
    for (place, words) in [
        &["run", "x", "--wait", "--", "true"][..],
        &["claim", "x", "--wait"],
        &["wait", "x"],
    ]
    .into_iter()
    .enumerate()
    {
        let session = format!("w{place}");
        // Somebody whom the claim outlives.
        let root = shell(&mount, &session, ":  > claims/root-$CLAIMFS_SESSION");
        let mut waits = start(&mount, &session, words);
        let line = waits.line();
        assert!(line.starts_with(&says), "{words:?}: {line}");
        assert!(line.contains("; see 'claimfs show x'"), "{line}");
        let own = format!("; you are {0} of {0}", place + 1);
        assert_eq!(line.ends_with(&own), words[0] != "wait", "{line}");
        waiting.push((root, waits));
    }
    drop(holder);
    for (root, waits) in waiting {
        let (code, said) = ended(waits);
        assert_eq!(code, 0, "{said}");
        // It waited for the same holder all the time, or for the next one within 30 s.
        assert!(!said.contains("waiting"), "{said}");
        drop(root);
    }
    // With JSON it is an object, with the record.
    let _holder = shell(&mount, "holder", "echo > claims/y");
    let json = ["run", "--json", "y", "--wait=50ms", "--", "true"];
    let mut waits = start(&mount, "w", &json);
    let said = parsed(&waits.line());
    assert_eq!(said["record"]["session"], "holder");
    let message = said["message"].as_str().unwrap();
    assert!(
        message.starts_with("waiting for claims/y: held by"),
        "{message}"
    );
    assert_eq!(ended(waits).0, 1);
    // Who does not wait, or has it at once, does not say that it waits.
    for words in [
        &["run", "y", "--", "true"][..],
        &["run", "y", "-w", "0", "--", "true"],
        &["wait", "y", "-w", "0"],
        &["run", "free", "--wait", "--", "true"],
    ] {
        let (_, said) = ended(start(&mount, "w", words));
        assert!(!said.contains("waiting for"), "{words:?}: {said}");
    }
}

#[test]
fn who_holds_the_name_itself_is_told_before_it_waits() {
    let Some(mount) = Mount::new() else { return };
    let holder = shell(&mount, "me", "echo > claims/x");
    let pid = holder.0.id();
    let says =
        format!("claimfs: claims/x: you hold it yourself, by session me (pid {pid}, sh), so ");
    for words in [
        &["run", "x", "--wait", "--", "true"][..],
        &["wait", "x"],
        &["run", "--any", "x", "--wait", "--", "true"],
        &["run", "--all", "a", "--all", "x", "--wait", "--", "true"],
    ] {
        let mut waits = start(&mount, "me", words);
        let line = waits.line();
        assert!(line.starts_with(&says), "{words:?}: {line}");
        let way_out = "; 'claimfs release x' gives it back; this waits until then";
        assert!(line.ends_with(way_out), "{line}");
        assert!(waits.0.try_wait().unwrap().is_none(), "it waits");
    }
    let (code, said) = ended(start(&mount, "me", &["run", "x", "--", "true"]));
    assert!(code == 1 && said.starts_with(&says), "{said}");
    let (_, said) = ended(start(&mount, "w", &["run", "x", "--", "true"]));
    assert!(said.contains("held by session me (pid "), "{said}");
    // Another process of the session gives it back.
    let waits = start(&mount, "me", &["run", "x", "--wait", "--", "true"]);
    wait_until("it waits", || !mount.read("waiters").is_empty());
    let release = ended(start(&mount, "me", &["release", "x"]));
    assert_eq!(release.0, 0, "{}", release.1);
    assert_eq!(ended(waits).0, 0);
}

#[test]
fn who_waits_for_a_path_says_so_and_for_whom() {
    let Some(mount) = Mount::new() else { return };
    let dir = TempDir::new();
    let real = std::fs::canonicalize(dir.path()).unwrap();
    let real = real.to_str().unwrap();
    let holder = shell(
        &mount,
        "holder",
        &format!("mkdir -p paths{real}/a; : > paths{real}/a/x"),
    );
    let _root = shell(&mount, "w", ":  > claims/root");
    let pid = holder.0.id();
    let mut waiting = Vec::new();
    for words in [["reserve", "--wait"], ["wait", "-w1h"]] {
        let mut waits = start(&mount, "w", &[&words[..], &[&format!("{real}/a")]].concat());
        let says = format!(
            "claimfs: waiting for {real}/a: reserved in part ({real}/a/x) by session holder (pid {pid}, sh) for "
        );
        let line = waits.line();
        assert!(line.starts_with(&says), "{words:?}: {line}");
        waiting.push(waits);
    }
    drop(holder);
    for waits in waiting {
        assert_eq!(ended(waits).0, 0);
    }
}

#[test]
fn regression_who_waits_is_told_that_the_mount_has_ended_and_how_to_mount_it_again() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let _holder = shell(
        &mount,
        "holder",
        "echo > claims/x; mkdir -p paths/srv; : > paths/srv/x",
    );
    let _root = shell(&mount, "w", ":  > claims/root");
    let waits = [
        &["run", "x", "--wait", "--", "true"][..],
        &["claim", "x", "--wait"],
        &["wait", "x"],
        &["wait", "/srv/x"],
        &["wait", "paths/srv"],
        &["reserve", "/srv", "--wait"],
        &["events", "-f"],
    ];
    let waits = waits.map(|words| (words, start(&mount, "w", words)));
    wait_until("both are in the queue", || {
        mount.read("waiters").lines().count() == 2
    });
    mount.kill();
    for (words, waits) in waits {
        let (code, said) = ended(waits);
        let dir = mount.dir.display();
        let way_out = format!(
            "the mount has ended: {dir}: the server of this mount is gone; mount it again with 'claimfs mount {dir}'\n"
        );
        assert!(
            code == 3 && said.ends_with(&way_out),
            "{words:?}: {code} {said}"
        );
    }
    // So do those that come later.
    for words in [&["show", "/srv/x"][..], &["log", "x"], &["show", "x"]] {
        let mut command = mount.claimfs(words);
        let (code, _, err) = text(&command.current_dir("/").output().unwrap());
        assert!(
            code == 3 && err.contains("gone; mount it again"),
            "{words:?}: {err}"
        );
    }
}

#[test]
fn regression_a_name_is_not_free_because_its_mount_was_detached() {
    let Some(mount) = Mount::new() else { return };
    let _holder = shell(&mount, "holder", "echo > claims/x");
    let waits = [&["wait", "x"][..], &["wait", "x", "--timeout", "9s"]];
    let waits = waits.map(|words| (words, start(&mount, "w", words)));
    wait_until("all wait", || {
        let opened = |process: &Guard| {
            let files = fs::read_dir(format!("/proc/{}/fd", process.0.id())).unwrap();
            let mut files = files
                .flatten()
                .filter_map(|file| fs::read_link(file.path()).ok());
            files.any(|file| file.ends_with("events"))
        };
        waits.iter().all(|(_, process)| opened(process))
    });
    crate::support::unmount(&mount.dir);
    for (words, wait) in waits {
        let (code, said) = ended(wait);
        assert!(
            code == 3 && said.contains("the mount has ended"),
            "{words:?}: {code} {said}"
        );
    }
}
