//! The pid-file idiom: in a terminal's session, which all of its scripts share, a claim that says
//! its pid is the claim of that process.

use std::process::Stdio;

use claimfs::core::content::Ask;

use crate::support::{Guard, Mount, wait_until};

/// A terminal: a POSIX session whose leader runs `script` and lives on.
fn terminal(mount: &Mount, script: &str) -> Guard {
    Guard::spawn(
        mount
            .sh(&format!("{script}; read end"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped()),
    )
}

#[test]
fn a_pid_is_read_whole_or_not_at_all() {
    let spaces = " ".repeat(30);
    for (body, pid) in [
        (format!("{spaces}4242\n"), Some(4242)),
        (format!("4242{spaces}\nhost\n"), Some(4242)),
        (format!("9{spaces} 25\n"), None),
        (format!("9{spaces} of host\n"), None),
    ] {
        assert_eq!(Ask::of(body.as_bytes()), pid.map(Ask::Pid), "{body:?}");
    }
}

#[test]
fn a_lease_lives_exactly_as_long_as_the_script_whose_pid_it_says() {
    let Some(mount) = Mount::new() else { return };
    let inner = "sh -c 'set -C; echo $$ > claims/deploy; cat leases; exit 0'";
    let mut terminal = terminal(
        &mount,
        &format!("echo > claims/shared; {inner}; set -C; echo > claims/deploy && echo free"),
    );
    let _head = terminal.line();
    assert!(terminal.line().contains("\"name\":\"shared\""));
    let record: serde_json::Value = serde_json::from_str(&terminal.line()).unwrap();
    assert_eq!(
        (record["name"].clone(), record["bound_pid"].clone()),
        ("deploy".into(), record["pid"].clone())
    );
    // The terminal's shell has waited for its script, and claims the name on the first try,
    // although it lives on.
    assert_eq!(terminal.line(), "free");
    assert_eq!(mount.claims(), ["deploy", "shared"]);
    wait_until("the reap is logged", || {
        mount.log().contains("reaped claims/deploy")
    });
    let log = mount.log();
    assert!(
        log.contains(&format!(
            ": process {}, to which its pid file binds it, is dead; it held",
            record["pid"]
        )),
        "{log}"
    );
}

#[test]
fn neither_other_scripts_nor_the_terminal_may_and_what_is_below_the_script_may() {
    let Some(mount) = Mount::new() else { return };
    let holder = "sh -c 'set -C; echo $$ > claims/x; sh -c \"echo \\$PPID >> claims/x\"; exec sleep 60' & pid=$!";
    let script = format!(
        "{holder}; until [ \"$(wc -l < claims/x 2>/dev/null)\" = 2 ]; do :; done; echo child
         sh -c 'echo stolen > claims/x' 2>&1; sh -c 'rm -f claims/x' 2>&1; sh -c 'mv claims/x claims/y' 2>&1
         {{ echo more >> claims/x; }} 2>&1; kill $pid; wait $pid; set -C; echo > claims/x && echo free"
    );
    let mut terminal = terminal(&mount, &script);
    assert_eq!(terminal.line(), "child", "what is below the holder may");
    for _ in 0..4 {
        let line = terminal.line();
        assert!(line.contains("Device or resource busy"), "{line}");
    }
    // It was killed, and the terminal has waited for it.
    assert_eq!(terminal.line(), "free");
}

#[test]
fn a_pid_that_is_not_ones_own_or_above_is_text() {
    let Some(mount) = Mount::new() else { return };
    // A stranger's pid, one that is nobody's, one in the second line, and what is no pid.
    let mut stranger = mount.actor(Some("stranger"));
    stranger.claim("other").unwrap();
    for (body, pid) in [
        (format!("{}", stranger.pid()), true),
        ("4194305".to_owned(), false),
        ("host\\n$$".to_owned(), false),
        ("$$x".to_owned(), false),
        ("-1".to_owned(), false),
        ("0".to_owned(), false),
    ] {
        let mut terminal = terminal(&mount, &format!("printf \"{body}\" > claims/x; echo done"));
        assert_eq!(terminal.line(), "done");
        let record = mount.record("x").unwrap();
        assert!(record.get("bound_pid").is_none(), "{body}: {record}");
        if pid {
            assert_eq!(mount.read("claims/x"), body, "it is kept as text");
        }
    }
}

#[test]
fn in_a_session_of_its_own_a_pid_is_text() {
    let Some(mount) = Mount::new() else { return };
    let mut worker = mount.sh("sh -c 'echo $$ > claims/x; :'; echo done; read end");
    worker
        .env("CLAIMFS_SESSION", "w1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut worker = Guard::spawn(&mut worker);
    assert_eq!(worker.line(), "done");
    let record = mount.record("x").unwrap();
    assert!(
        record.get("bound_pid").is_none() && record["session"] == "w1",
        "{record}"
    );
}

#[test]
fn padded_pids_bind_too_and_so_do_those_of_ancestors() {
    let Some(mount) = Mount::new() else { return };
    // As HDB UUCP pads them, and as liblockfile writes them: without a newline.
    for format in ["%10d\\n", "%d", "%d\\nhost\\n"] {
        let script = format!("sh -c 'printf \"{format}\" $PPID > claims/x'; echo $$");
        let mut terminal = terminal(&mount, &script);
        let pid: u64 = terminal.line().parse().unwrap();
        assert_eq!(mount.record("x").unwrap()["bound_pid"], pid, "{format}");
        drop(terminal);
        assert_eq!(mount.claims(), [""; 0]);
    }
}

#[test]
fn all_names_of_a_bound_file_end_with_its_process() {
    let Some(mount) = Mount::new() else { return };
    let inner = "sh -c 'echo $$ > claims/a; ln claims/a claims/b; mv claims/a claims/c; :'";
    let mut terminal = terminal(
        &mount,
        &format!("echo > claims/kept; {inner}; ls claims; echo end"),
    );
    assert_eq!(
        (terminal.line(), terminal.line()),
        ("kept".to_owned(), "end".to_owned())
    );
}
