//! `claimfs ls` on a terminal of 80 columns, and its cells.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::{CLAIMFS, Guard, Mount, plain, skip, text, wait_until};

/// What a terminal of this many columns shows of a command: the lines of its standard output.
fn on_terminal(mount: &Mount, columns: u32, arguments: &str) -> Option<Vec<String>> {
    if Command::new("script").arg("--version").output().is_err() {
        skip("script(1) is not installed");
        return None;
    }
    let mut script = Command::new("script");
    let command = format!("stty cols {columns} rows 24; exec {CLAIMFS} {arguments}");
    script
        .args(["-qfec", &command, "/dev/null"])
        .env("CLAIMFS_MOUNT", &mount.dir);
    plain(&mut script);
    let (code, out, err) = text(&script.stdin(Stdio::null()).output().unwrap());
    assert_eq!(code, 0, "{out}{err}");
    Some(
        out.lines()
            .map(|line| line.trim_end_matches('\r').to_owned())
            .collect(),
    )
}

#[test]
fn lines_have_80_columns_whatever_the_names_are_and_all_of_them_in_a_pipe() {
    let Some(mount) = Mount::new() else { return };
    let id = "s".repeat(255);
    let mut holder = mount.actor(Some(&id));
    let (long, wide) = ("n".repeat(255), "日本語の名前".repeat(14));
    for name in [long.as_str(), &wide, "short"] {
        holder.claim(name).unwrap();
    }
    let reason = format!("{}.", "because ".repeat(31));
    holder
        .setxattr(&format!("claims/{long}"), "user.claimfs.reason", &reason, 0)
        .unwrap();
    let Some(lines) = on_terminal(&mount, 80, "ls") else {
        return;
    };
    assert_eq!(lines.len(), 4, "{lines:?}");
    for line in &lines {
        // Of these texts each character that is not ASCII is wide, but for the ellipsis.
        let columns = line
            .chars()
            .map(|c| if c.is_ascii() || c == '…' { 1 } else { 2 });
        assert!(columns.sum::<usize>() <= 80, "{line}");
    }
    assert!(
        lines[1].contains("n…n") && lines[3].starts_with("short "),
        "{lines:?}"
    );
    assert!(
        lines[2].starts_with('日') && lines[2].contains('…'),
        "{lines:?}"
    );
    assert!(lines[1].contains("because"), "{lines:?}");
    assert!(on_terminal(&mount, 300, "ls").unwrap()[3].len() > 80);
    // In full: in a pipe, and with --wide.
    let (_, out, _) = text(&mount.claimfs(&["ls"]).output().unwrap());
    for text in [
        out,
        on_terminal(&mount, 80, "ls --wide").unwrap().join("\n"),
    ] {
        for full in [&long, &wide, &id, &reason] {
            assert!(text.contains(full.as_str()), "{text}");
        }
    }
}

#[test]
fn ls_shows_the_living_holder_the_reason_the_time_left_and_who_waits() {
    let Some(mount) = Mount::new() else { return };
    let mut root = mount.actor(Some("w1"));
    root.claim("other").unwrap();
    // A process of the session claims, and exits: the record has its pid.
    let dead =
        "touch claims/x; echo '{\"ttl\":\"1h\",\"reason\":\"a migration\"}' > claims/x; echo $$";
    let output = mount
        .sh(dead)
        .env("CLAIMFS_SESSION", "w1")
        .output()
        .unwrap();
    let dead = text(&output).1.trim().to_owned();
    assert_ne!(mount.pid_of("x").unwrap(), u64::from(root.pid()));
    let waiter = |session: &str| {
        let mut command = mount.claimfs(&["claim", "x", "--wait"]);
        command.env("CLAIMFS_SESSION", session).stdin(Stdio::null());
        Guard::spawn(command.stdout(Stdio::piped()))
    };
    let _first = waiter("w2");
    wait_until("one waits", || mount.read("waiters").lines().count() == 1);
    let _second = waiter("w3");
    wait_until("two wait", || mount.read("waiters").lines().count() == 2);
    let (_, out, _) = text(&mount.claimfs(&["ls"]).output().unwrap());
    let line = out.lines().find(|line| line.starts_with("x ")).unwrap();
    let holder = format!(" {} actor", root.pid());
    assert!(line.contains(&holder) && !line.contains(&dead), "{out}");
    for cell in [" 59m ", " 1. w2, 2. w3 ", " a migration"] {
        assert!(line.contains(cell), "{cell}: {out}");
    }
    let (_, out, _) = text(&mount.claimfs(&["show", "x"]).output().unwrap());
    let lines: Vec<&str> = out
        .lines()
        .filter(|line| line.starts_with("waits "))
        .collect();
    assert!(
        lines[0].starts_with("waits    1 of 2: w2, pid ")
            && lines[1].starts_with("waits    2 of 2: w3, pid "),
        "{out}"
    );
}

#[test]
fn regression_the_file_name_of_a_long_path_is_readable() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.actor(Some("a-session-with-a-long-id"));
    let dir = "paths/home/somebody/projects/a-project/with/a/long/way/to/src";
    mount.run(&format!("mkdir -p {dir}"));
    let path = format!("{dir}/lexer.rs");
    let fd = holder.open(&path, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY);
    holder.close(fd.unwrap()).unwrap();
    let Some(lines) = on_terminal(&mount, 80, "ls") else {
        return;
    };
    let cell = lines[1].split_whitespace().next().unwrap();
    assert!(cell.starts_with("pa") && cell.contains('…'), "{lines:?}");
    assert!(cell.ends_with("/src/lexer.rs"), "{lines:?}");
}

#[test]
fn regression_the_holder_of_a_run_is_its_command() {
    let Some(mount) = Mount::new() else { return };
    let mut command = mount.claimfs(&["run", "x", "--", "sleep", "600"]);
    let run = Guard::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()));
    let wrapper = run.0.id();
    let shown = |words: &[&str]| text(&mount.claimfs(words).output().unwrap());
    wait_until("the command runs", || {
        let (_, out, _) = shown(&["session", "ls"]);
        out.contains(" +1")
    });
    let sessions = mount.run("cat sessions/*");
    let session = crate::support::parsed(&sessions);
    let child = session["roots"][1]["pid"].as_u64().unwrap();
    let comm = || fs::read_to_string(format!("/proc/{child}/comm")).unwrap();
    wait_until("it is executed", || comm() == "sleep\n");
    let (_, out, _) = shown(&["ls"]);
    assert!(out.contains(&format!(" {child} sleep ")), "{out}");
    let (_, out, _) = shown(&["show", "x"]);
    assert!(
        out.contains(&format!("process  pid {wrapper}, claimfs, ")),
        "{out}"
    );
    assert!(
        out.contains(&format!("for      pid {child} (sleep)\n")),
        "{out}"
    );
    let mut refused = mount.claimfs(&["run", "x", "--", "true"]);
    let (code, _, err) = text(&refused.output().unwrap());
    let says = format!("held by session run-{wrapper} (pid {child}, sleep) for ");
    assert!(code == 1 && err.contains(&says), "{err}");
    let line = mount.sh("CLAIMFS_SESSION=w timeout -s KILL 3 head -n1 queue/x");
    let line = { line }.output().unwrap();
    let (_, out, _) = text(&line);
    let says = format!("for x: held by run-{wrapper} (pid {child}, sleep) for ");
    assert!(out.contains(&says), "{out}");
    // It is a process of this test's session that ends them.
    unsafe { libc::kill(child as i32, libc::SIGKILL) };
}
