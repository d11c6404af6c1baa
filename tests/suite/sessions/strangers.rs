//! Processes that a script started and that have no part in its claims: workers and agents with
//! sessions of their own, and orphans.

use std::process::{Command, Stdio};

use crate::sessions::agents::stand_in::{Agent, CLAUDE, Programs};
use crate::support::{Actor, Guard, Mount, wait_until};

const BUSY: &str = "Device or resource busy";

/// A POSIX session whose shell runs `script`, and lives on until its standard input ends.
fn terminal(mount: &Mount, script: &str) -> Guard {
    Guard::spawn(
        mount
            .sh(&format!("{script}\nread end"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped()),
    )
}

#[test]
fn a_worker_that_a_shell_starts_is_a_stranger_to_what_the_shell_holds() {
    let Some(mount) = Mount::new() else { return };
    let mut terminal = terminal(
        &mount,
        "exec 2>&1 9<&0; set -C; : > claims/x
         CLAIMFS_SESSION=w1 rm claims/x
         CLAIMFS_SESSION=w1 sh -c ': >> claims/x'
         CLAIMFS_SESSION=w1 sh -c 'mv claims/x claims/y'
         CLAIMFS_SESSION=w1 sh -c ': > claims/worker; read end' <&9 &
         until [ -e claims/worker ]; do [ -e README ] || exit 9; done
         rm claims/worker; echo >> claims/worker
         sh -c 'rm claims/x' && echo mine",
    );
    for _ in 0..5 {
        let line = terminal.line();
        assert!(line.contains(BUSY), "{line}");
    }
    assert_eq!(terminal.line(), "mine");
    assert_eq!(mount.claims(), ["worker"]);
}

#[test]
fn an_agent_that_a_shell_starts_is_a_stranger_to_what_the_shell_holds() {
    let Some(mut mount) = Mount::unmounted() else {
        return;
    };
    mount.knows_agents = true;
    mount.start(&[]);
    let programs = Programs::new();
    let mut shell = Command::new("bash");
    let script = "set -C; : > claims/x; \"$0\" \"$@\"; :";
    shell.args(["-c", script, &programs.actor(CLAUDE.program)]);
    let mut actor = Actor::run_by(shell, &mount, None, |shell| {
        shell.stderr(Stdio::null());
    });
    // It answers: so it is there.
    actor.stat("claims/x").unwrap();
    let shell = actor.pid();
    let pid = crate::support::children(shell)[0];
    let mut agent = Agent::at(actor, pid, &programs, &CLAUDE);
    assert_eq!(agent.identity().1, "agent");
    for script in ["rm claims/x", ": >> claims/x", "mv claims/x claims/y"] {
        let (code, _, err) = agent.call(script);
        assert!(code != 0 && err.contains(BUSY), "{script}: {err}");
    }
    assert_eq!(agent.actor.unlink("claims/x"), Err(libc::EBUSY));
    assert_eq!(agent.actor.claim("x"), Err(libc::EEXIST));
    agent.says("set -C; : > claims/y");
    assert_eq!(mount.pid_of("x"), Some(u64::from(shell)));
    // The agent is killed, and its shell, which has waited for it, exits: each frees what was its
    // own.
    agent.kill();
    wait_until("all is free", || mount.claims().is_empty());
}

#[test]
fn a_holder_that_leaves_the_session_keeps_its_rights_and_its_children_have_none() {
    let Some(mount) = Mount::new() else { return };
    let script = "import os, subprocess
for name in 'x', 'y':
    os.close(os.open(f'claims/{name}', os.O_WRONLY | os.O_CREAT | os.O_EXCL))
os.setsid()
print(subprocess.run(['rm', 'claims/x'], stderr=subprocess.PIPE, text=True).stderr, end='')
os.close(os.open('claims/x', os.O_WRONLY))
os.unlink('claims/x')
print('done')";
    let mut terminal = mount.sh("python3 -c \"$1\"; ls claims; rm claims/y; read end");
    terminal
        .args(["sh", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut terminal = Guard::spawn(&mut terminal);
    assert!(terminal.line().contains(BUSY));
    assert_eq!(terminal.line(), "done");
    // It has exited: its parent, which never left, has what it was left.
    assert_eq!(terminal.line(), "y");
    wait_until("the terminal removes it", || mount.claims().is_empty());
}

#[test]
fn an_orphan_has_no_part_in_what_others_hold_and_keeps_its_own() {
    let Some(mount) = Mount::new() else { return };
    // It is of the terminal's session still. The process between it and the terminal has exited, or
    // was killed.
    for (end, passes) in [("exit", true), ("kill -KILL $$", false)] {
        let orphan = "set -C; : > claims/own; : > claims/kept
            until [ \"$(sed 's/.*) . \\([0-9]*\\) .*/\\1/' /proc/$$/stat)\" != $parent ]; do [ -e README ] || exit 9; done
            rm claims/x; rm claims/own && echo own; until [ -e claims/go ]; do [ -e README ] || exit 9; done";
        let between = format!(
            "parent=$$; export parent; sh -c \"$1\" &
             until [ -e claims/kept ]; do [ -e README ] || exit 9; done; {end}"
        );
        let script = "exec 2>&1; set -C; : > claims/x; sh -c \"$1\" sh \"$2\"; echo >&2; read end";
        let mut terminal = mount.sh(script);
        terminal
            .args(["sh", &between, orphan])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut terminal = Guard::spawn(&mut terminal);
        let mut said = Vec::new();
        while said.last().is_none_or(|line| line != "own") {
            said.push(terminal.line());
        }
        assert!(said.iter().any(|line| line.contains(BUSY)), "{said:?}");
        let own = u64::from(terminal.0.id());
        assert_eq!(mount.pid_of("x"), Some(own), "{end}");
        let orphan = mount.pid_of("kept").unwrap();
        assert_ne!(orphan, own, "{end}");
        // It exits: if all above it have exited, its claim is the terminal's.
        let mut go = mount.actor(Some("go"));
        go.claim("go").unwrap();
        wait_until("the orphan is gone", || {
            !std::path::Path::new(&format!("/proc/{orphan}")).exists()
        });
        assert_eq!(mount.pid_of("kept"), passes.then_some(own), "{end}");
        drop((terminal, go));
        wait_until("all is over", || mount.claims().is_empty());
    }
}
