//! Whose lease is it, with real processes: each sentence of the rules 1, 2 and 5, and the directory
//! `sessions/`.

use std::fs;
use std::process::Stdio;

use libc::{EBUSY, EEXIST, EINVAL, EPERM, O_CREAT, O_EXCL, O_RDONLY, O_TRUNC, O_WRONLY};
use serde_json::Value;

use crate::support::{Guard, Mount, parsed, root_or_skip, wait_until};

fn session_of(mount: &Mount, claim: &str) -> Value {
    mount
        .record(claim)
        .map_or(Value::Null, |record| record["session"].clone())
}

/// The pids of a session's roots.
fn roots(mount: &Mount, id: &str) -> Vec<u64> {
    let session = parsed(&mount.read(&format!("sessions/{id}")));
    session["roots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|root| root["pid"].as_u64().unwrap())
        .collect()
}

/// A script that goes on until it is killed: its lines come one by one.
fn script(mount: &Mount, session: Option<&str>, text: &str) -> Guard {
    let mut command = mount.sh(text);
    if let Some(session) = session {
        command.env("CLAIMFS_SESSION", session);
    }
    Guard::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))
}

// Rule 2: session variables.

#[test]
fn the_variable_names_the_session() {
    let Some(mount) = Mount::new() else { return };
    for variable in [
        "CLAIMFS_SESSION",
        "LOOOP_SESSION_ID",
        "BABYSIT_SESSION_ID",
        "GT_SESSION",
    ] {
        let output = mount
            .sh("cat self; echo > claims/x; cat claims/x")
            .env(variable, "w1")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (me, record) = text.split_once('\n').unwrap();
        let me = parsed(me);
        assert_eq!(
            (me["session"].clone(), me["rule"].clone()),
            ("w1".into(), "variable".into())
        );
        assert!(
            me["why"]
                .as_str()
                .unwrap()
                .contains(&format!("{variable}=w1"))
        );
        assert_eq!(parsed(record)["session"], "w1");
    }
    // The first of them that is set counts.
    let mut both = mount.sh("cat self");
    let output = both
        .env("GT_SESSION", "late")
        .env("LOOOP_SESSION_ID", "early")
        .output()
        .unwrap();
    assert_eq!(
        parsed(std::str::from_utf8(&output.stdout).unwrap())["session"],
        "early"
    );
}

#[test]
fn a_variable_can_be_added() {
    let Some(mount) = Mount::with(&["--session-var", "MY_WORKER"]) else {
        return;
    };
    let output = mount
        .sh("cat self")
        .env("MY_WORKER", "w7")
        .output()
        .unwrap();
    assert_eq!(
        parsed(std::str::from_utf8(&output.stdout).unwrap())["session"],
        "w7"
    );
}

#[test]
fn a_value_that_is_no_id_is_einval_and_never_another_rule() {
    let Some(mount) = Mount::new() else { return };
    for value in ["", ".hidden", "..", "a/b", "a\\b", &"n".repeat(256)] {
        let mut actor = mount.actor(Some(value));
        assert_eq!(actor.claim("x"), Err(EINVAL), "{value:?}");
        assert_eq!(actor.open("claims/x", O_WRONLY | O_CREAT), Err(EINVAL));
        // Looking never fails for it.
        let me = actor
            .call("cat", serde_json::json!({ "path": "self" }))
            .unwrap();
        let me = parsed(me.as_str().unwrap());
        assert!(me["session"].is_null());
        assert!(me["why"].as_str().unwrap().contains("no valid session id"));
        mount.actor(Some("w1")).claim("x").unwrap();
        actor.stat("claims/x").map(|_| ()).unwrap_or_default();
    }
    assert_eq!(mount.claims(), [""; 0]);
}

#[test]
fn a_child_that_is_run_with_another_value_is_another_session() {
    let Some(mount) = Mount::new() else { return };
    let text = "echo > claims/a
        (CLAIMFS_SESSION=w2; export CLAIMFS_SESSION; echo > claims/b; sh -c 'echo > claims/c; echo done; read x; :'; :); :";
    let mut worker = script(&mount, Some("w1"), text);
    assert_eq!(worker.line(), "done");
    // A forked shell that redirects still shows the environment that its image was started with.
    assert_eq!(session_of(&mount, "b"), "w1");
    assert_eq!(
        (session_of(&mount, "a"), session_of(&mount, "c")),
        ("w1".into(), "w2".into())
    );
}

#[test]
fn exec_into_another_session_claims_for_that_one_and_keeps_the_old_ones_leases() {
    let Some(mount) = Mount::new() else { return };
    let mut actor = mount.actor(Some("w1"));
    actor.claim("a").unwrap();
    actor
        .call("exec", serde_json::json!({ "session": "w2" }))
        .unwrap();
    actor.claim("b").unwrap();
    assert_eq!(
        (session_of(&mount, "a"), session_of(&mount, "b")),
        ("w1".into(), "w2".into())
    );
    // On doubt, hold: the process that claimed for w1 lives.
    assert_eq!(actor.unlink("claims/a"), Err(EBUSY));
    assert_eq!(mount.actor(Some("w3")).claim("a"), Err(EEXIST));
    actor.kill();
    assert_eq!(mount.claims(), [""; 0]);
}

#[test]
fn a_process_that_has_just_had_an_exec_with_another_value_is_the_root_of_what_its_children_claim() {
    let Some(mount) = Mount::new() else { return };
    for round in 0..10 {
        // The shell has been looked at by then, as the parent of a caller.
        let text = format!(
            "cat self > /dev/null
             exec env CLAIMFS_SESSION=other sh -c 'sh -c \"echo > claims/x{round}; :\"; cat claims/x{round}; :'"
        );
        let record = parsed(&mount.run(&text));
        assert_eq!(record["session"], "other", "round {round}");
    }
}

#[test]
fn the_session_of_a_command_is_the_same_at_once_and_later() {
    let Some(mount) = Mount::new() else { return };
    let text = "cat self; cat self; sleep 0.2; cat self; :";
    let words = ["run", "a", "--", "env", "CLAIMFS_SESSION=other", "sh", "-c"];
    let mut command = mount.claimfs(&words);
    let (_, told, _) = crate::support::text(&command.arg(text).output().unwrap());
    let told: Vec<Value> = told.lines().map(parsed).collect();
    let sessions: Vec<&Value> = told.iter().map(|me| &me["session"]).collect();
    assert_eq!(sessions.len(), 3);
    assert!(sessions[0].as_str().unwrap().starts_with("run-"));
    assert!(
        sessions.iter().all(|session| *session == sessions[0]),
        "{sessions:?}"
    );
}

#[test]
fn the_topmost_process_of_the_chain_is_the_root_and_everyone_down_to_the_claimant() {
    let Some(mount) = Mount::new() else { return };
    let mut worker = script(
        &mount,
        Some("w1"),
        "sh -c 'echo > claims/x; echo $PPID $$; read x; :'; :",
    );
    let line = worker.line();
    let pids: Vec<u64> = line.split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids[0], u64::from(worker.0.id()));
    assert_eq!(
        roots(&mount, "w1"),
        pids,
        "the test above it does not carry the variable"
    );
}

#[test]
fn an_id_that_an_unrelated_tree_joins_lives_as_long_as_either() {
    let Some(mount) = Mount::new() else { return };
    let (mut one, mut two) = (mount.actor(Some("w1")), mount.actor(Some("w1")));
    one.claim("a").unwrap();
    assert_eq!(roots(&mount, "w1"), [u64::from(one.pid())]);
    // Looking adds no root.
    let fd = two.open("claims/a", O_RDONLY).unwrap();
    two.pread(fd, 10, 0).unwrap();
    assert_eq!(roots(&mount, "w1"), [u64::from(one.pid())]);
    two.claim("b").unwrap();
    assert_eq!(
        roots(&mount, "w1"),
        [u64::from(one.pid()), u64::from(two.pid())]
    );
    // They are one session: each may do what the other may.
    two.unlink("claims/a").unwrap();
    two.claim("a").unwrap();
    one.kill();
    assert_eq!(mount.claims(), ["a", "b"]);
    assert_eq!(roots(&mount, "w1"), [u64::from(two.pid())]);
    two.kill();
    assert_eq!(mount.claims(), [""; 0]);
}

#[test]
fn a_restarted_id_does_not_inherit() {
    let Some(mount) = Mount::new() else { return };
    let mut old = mount.actor(Some("w1"));
    old.claim("x").unwrap();
    let token = mount.record("x").unwrap()["token"].as_u64();
    old.kill();
    let mut new = mount.actor(Some("w1"));
    new.claim("y").unwrap();
    assert_eq!(mount.claims(), ["y"]);
    new.claim("x").unwrap();
    assert!(mount.record("x").unwrap()["token"].as_u64() > token);
}

#[test]
fn another_pid_namespace_may_not_join_and_a_descendant_of_a_root_may() {
    if !root_or_skip("make a pid namespace") {
        return;
    }
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.actor(Some("w1"));
    holder.claim("x").unwrap();
    let inner = "unshare --pid --fork --kill-child";
    let stranger = mount
        .sh(&format!(
            "{inner} env CLAIMFS_SESSION=w1 sh -c 'set -C; echo > claims/y'"
        ))
        .output()
        .unwrap();
    let complaint = String::from_utf8(stranger.stderr).unwrap();
    assert!(complaint.contains("Operation not permitted"), "{complaint}");
    assert_eq!(mount.claims(), ["x"]);
    let related =
        format!("echo > claims/a; {inner} sh -c 'set -C; echo > claims/b; echo done; read x'; :");
    let mut related = script(&mount, Some("w2"), &related);
    assert_eq!(related.line(), "done");
    assert_eq!(session_of(&mount, "b"), "w2");
}

// Rule 1: registered sessions.

#[test]
fn a_registered_script_and_its_children_are_one_session() {
    let Some(mount) = Mount::new() else { return };
    let text = "echo $$ > sessions/w1; echo > claims/a; sh -c 'echo > claims/b; cat self'; cat self; read x";
    let mut worker = script(&mount, None, text);
    for _ in 0..2 {
        let me = parsed(&worker.line());
        assert_eq!(
            (me["session"].clone(), me["rule"].clone()),
            ("w1".into(), "registered".into())
        );
    }
    assert_eq!(
        (session_of(&mount, "a"), session_of(&mount, "b")),
        ("w1".into(), "w1".into())
    );
    drop(worker);
    assert_eq!(mount.claims(), [""; 0]);
    assert!(!mount.path("sessions/w1").exists());
}

#[test]
fn of_registration_and_variable_the_nearer_root_decides() {
    let Some(mount) = Mount::new() else { return };
    // The variable's root is further up than the registered script.
    let text = "sh -c 'echo $$ > sessions/near; echo > claims/a; CLAIMFS_SESSION=nearest sh -c \"echo > claims/b; \
                echo done; read x; :\"; :'; :";
    let mut worker = script(&mount, Some("far"), text);
    assert_eq!(worker.line(), "done");
    assert_eq!(
        (session_of(&mount, "a"), session_of(&mount, "b")),
        ("near".into(), "nearest".into())
    );
    drop(worker);
    // On a tie what was registered counts: the script asked for it.
    let mut worker = script(
        &mount,
        Some("inherited"),
        "echo $$ > sessions/asked; echo > claims/c; echo done; read x",
    );
    assert_eq!(worker.line(), "done");
    assert_eq!(session_of(&mount, "c"), "asked");
}

#[test]
fn a_blank_registration_is_the_session_leaders() {
    let Some(mount) = Mount::new() else { return };
    for blank in ["echo > sessions/w1", ": > sessions/w1", "touch sessions/w1"] {
        let text = format!(
            "sh -c '{blank}; :'; until [ -e sessions/w1 ]; do :; done; echo > claims/a; echo done; read x"
        );
        let mut worker = script(&mount, None, &text);
        assert_eq!(worker.line(), "done");
        assert_eq!(session_of(&mount, "a"), "w1", "{blank}");
        assert!(roots(&mount, "w1").contains(&u64::from(worker.0.id())));
        drop(worker);
        assert!(!mount.path("sessions/w1").exists());
    }
}

#[test]
fn only_the_caller_and_its_ancestors_can_be_registered() {
    let Some(mount) = Mount::new() else { return };
    let (mut me, stranger) = (mount.actor(None), mount.actor(None));
    let fd = me
        .open("sessions/w1", O_WRONLY | O_CREAT | O_TRUNC)
        .unwrap();
    assert_eq!(me.write(fd, &format!("{}\n", stranger.pid())), Err(EPERM));
    assert_eq!(
        me.write(fd, "1\n"),
        Err(EPERM),
        "pid 1 is above everyone, and no root"
    );
    assert_eq!(me.write(fd, "0"), Err(EPERM));
    for text in ["bash", "-1", "12 34", "99999999999999", "0x10"] {
        assert_eq!(me.write(fd, text), Err(EINVAL), "{text}");
    }
    assert_eq!(me.write(fd, &" ".repeat(65)), Err(libc::EFBIG));
    assert!(
        !mount.path("sessions/w1").exists(),
        "what is refused registers nothing"
    );
    let parent = std::process::id();
    assert_eq!(
        me.write(fd, &parent.to_string()).unwrap(),
        parent.to_string().len() as i64
    );
    assert_eq!(roots(&mount, "w1"), [u64::from(parent)]);
    me.close(fd).unwrap();
    for (name, errno) in [
        (".x", EINVAL),
        ("a\\b", EINVAL),
        (&"n".repeat(256)[..], libc::ENAMETOOLONG),
    ] {
        assert_eq!(
            me.open(&format!("sessions/{name}"), O_WRONLY | O_CREAT),
            Err(errno)
        );
    }
    assert_eq!(
        me.open("sessions/w1", O_WRONLY | O_CREAT | O_EXCL),
        Err(EEXIST)
    );
    mount.end_session("w1");
}

#[test]
fn a_session_file_says_all_of_it() {
    let Some(mount) = Mount::new() else { return };
    let mut worker = script(
        &mount,
        None,
        "echo $$ > sessions/w1; echo > claims/a; echo > claims/b; echo done; read x",
    );
    assert_eq!(worker.line(), "done");
    let session = parsed(&mount.read("sessions/w1"));
    assert_eq!(session["id"], "w1");
    assert_eq!(session["uid"], unsafe { libc::geteuid() });
    assert_eq!(session["rule"], "registered");
    assert_eq!(session["leases"], serde_json::json!(["a", "b"]));
    assert!(session["since"].as_str().unwrap().ends_with('Z'));
    let root = &session["roots"][0];
    assert_eq!(
        (root["pid"].clone(), root["command"].clone()),
        (worker.0.id().into(), "sh".into())
    );
    assert!(root["started_at"].as_str().unwrap() <= session["since"].as_str().unwrap());
    assert_eq!(root["registered"], true);
    assert_eq!(crate::support::names(&mount.path("sessions")), ["w1"]);
}

#[test]
fn removing_a_session_releases_all_that_it_holds() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.actor(Some("w1"));
    holder.claim("a").unwrap();
    holder.claim("b").unwrap();
    assert_eq!(
        mount.actor(Some("w2")).unlink("sessions/w1"),
        Err(libc::EBUSY)
    );
    assert_eq!(mount.claims(), ["a", "b"]);
    holder.unlink("sessions/w1").unwrap();
    assert_eq!(mount.claims(), [""; 0]);
    assert!(!mount.path("sessions/w1").exists());
    mount.actor(Some("w2")).claim("a").unwrap();
    // Its processes live on, and may start it again.
    holder.claim("b").unwrap();
    assert_eq!(session_of(&mount, "b"), "w1");
    assert_eq!(holder.unlink("sessions/w9"), Err(libc::ENOENT));
    wait_until("the releases are counted", || {
        mount.read("metrics").contains("claimfs_releases_total 2\n")
    });
}

// Rule 5: the POSIX session.

#[test]
fn without_anything_else_it_is_the_posix_session() {
    let Some(mount) = Mount::new() else { return };
    let mut worker = script(
        &mount,
        None,
        "sh -c 'set -C; echo > claims/a; cat self'; echo x > claims/a; cat self; read x",
    );
    let uid = unsafe { libc::geteuid() };
    let id = format!("sid-{}-uid-{uid}", worker.0.id());
    for _ in 0..2 {
        let me = parsed(&worker.line());
        assert_eq!(
            (me["session"].clone(), me["rule"].clone()),
            (id.clone().into(), "posix".into())
        );
    }
    assert_eq!(session_of(&mount, "a"), id.as_str());
    assert!(roots(&mount, &id).contains(&u64::from(worker.0.id())));
    let mut other = mount.actor(None);
    assert_eq!(other.claim("a"), Err(EEXIST));
    drop(worker);
    other.claim("a").unwrap();
}

#[test]
fn a_nohup_job_keeps_its_lease_past_the_logout() {
    let Some(mount) = Mount::new() else { return };
    let job = "sh -c 'echo > claims/x; exec sleep 60'";
    let text = format!(
        "nohup {job} > /dev/null 2>&1 & until [ -e claims/x ]; do :; done; cat claims/x; cat self"
    );
    let output = mount.sh(&text).stdout(Stdio::piped()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (record, me) = text.split_once('\n').unwrap();
    let (record, me) = (parsed(record), parsed(me));
    assert_eq!(record["session"], me["session"]);
    // The shell is gone, its waiting parent has seen it, and the job is an orphan.
    let pid = record["pid"].as_u64().unwrap();
    let mut other = mount.actor(None);
    assert_eq!(other.claim("x"), Err(EEXIST));
    assert_eq!(roots(&mount, record["session"].as_str().unwrap()), [pid]);
    assert_eq!(unsafe { libc::kill(pid as i32, libc::SIGKILL) }, 0);
    wait_until("the job's death frees the name", || {
        other.claim("x").is_ok()
    });
}

#[test]
fn a_claimant_whose_ancestors_die_meanwhile_is_resolved_all_the_same() {
    let Some(mount) = Mount::new() else { return };
    // Each claims while the shell above it exits: the walk meets a parent that vanishes, and starts
    // again.
    let text = "for i in 1 2 3 4 5 6 7 8 9 10; do
            (sh -c \"(sh -c 'set -C; echo > claims/x$i; exec sleep 60' & ) & exit\" &)
        done";
    for round in 0..5 {
        let session = format!("w{round}");
        let status = mount
            .sh(text)
            .env("CLAIMFS_SESSION", &session)
            .status()
            .unwrap();
        assert!(status.success());
        wait_until("all ten have claimed", || mount.claims().len() == 10);
        for record in mount.read("leases").lines().skip(1).map(parsed) {
            assert_eq!(record["session"], session.as_str());
            assert_eq!(
                unsafe { libc::kill(record["pid"].as_u64().unwrap() as i32, libc::SIGKILL) },
                0
            );
        }
        wait_until("all ten are dead", || mount.claims().is_empty());
    }
}

#[test]
fn a_thread_claims_for_its_process() {
    let Some(mount) = Mount::new() else { return };
    // The actor makes its calls in a thread that is not the first one.
    let mut actor = mount.actor(Some("w1"));
    actor.claim("x").unwrap();
    assert_eq!(mount.record("x").unwrap()["pid"], actor.pid());
    assert_eq!(roots(&mount, "w1"), [u64::from(actor.pid())]);
}

#[test]
fn self_lists_the_processes_that_a_lease_would_live_by() {
    let Some(mount) = Mount::new() else { return };
    let mut worker = script(
        &mount,
        Some("w1"),
        "cat self; read x; echo > claims/x; cat self; read x",
    );
    let before = parsed(&worker.line());
    assert_eq!(
        (before["live"].clone(), before["command"].clone()),
        (false.into(), "cat".into())
    );
    let pids = |me: &Value| {
        me["roots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|root| root["pid"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(pids(&before), [worker.0.id().into(), before["pid"].clone()]);
    assert!(
        fs::read_dir(mount.path("sessions"))
            .unwrap()
            .next()
            .is_none(),
        "to look starts no session"
    );
    std::io::Write::write_all(worker.0.stdin.as_mut().unwrap(), b"\n").unwrap();
    let after = parsed(&worker.line());
    assert_eq!(after["live"], true);
}

// Regressions that a review found.

#[test]
fn regression_a_refused_registration_registers_nothing_when_it_is_closed() {
    let Some(mount) = Mount::new() else { return };
    let text =
        "echo 999999 > sessions/bad; echo junk > sessions/bad; cat self; ls sessions; echo end";
    let output = mount.sh(text).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (me, rest) = text.split_once('\n').unwrap();
    assert_eq!(parsed(me)["rule"], "posix");
    assert_eq!(rest, "end\n");
}

#[test]
fn regression_an_exclusive_registration_is_granted_once() {
    let Some(mount) = Mount::new() else { return };
    let (mut one, mut two) = (mount.actor(None), mount.actor(None));
    let flags = O_WRONLY | O_CREAT | O_EXCL;
    let (first, second) = (
        one.open("sessions/w", flags).unwrap(),
        two.open("sessions/w", flags).unwrap(),
    );
    one.write(first, &one.pid().to_string()).unwrap();
    assert_eq!(two.write(second, &two.pid().to_string()), Err(EEXIST));
    two.close(second).unwrap();
    assert_eq!(roots(&mount, "w"), [u64::from(one.pid())]);
    // Its own session is no obstacle to a second word about it.
    one.write(first, &one.pid().to_string()).unwrap();
}
