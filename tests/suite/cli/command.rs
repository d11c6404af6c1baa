//! `claimfs run`, and the other verbs that wait and watch.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Guard, Mount, text, wait_until};

/// The output of a verb that runs in the session `session`.
fn run(mount: &Mount, session: &str, arguments: &[&str]) -> (i32, String, String) {
    let mut command = mount.claimfs(arguments);
    text(&command.env("CLAIMFS_SESSION", session).output().unwrap())
}

fn start(mount: &Mount, arguments: &[&str]) -> Guard {
    let mut command = mount.claimfs(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    Guard::spawn(&mut command)
}

/// Breaks a lease as root or its user does.
fn take_away(mount: &Mount, name: &str) {
    let (code, _, err) = run(mount, "breaker", &["break", name]);
    assert_eq!(code, 0, "{err}");
}

fn code(child: &mut Child) -> Option<i32> {
    child.wait().unwrap().code()
}

#[test]
fn run_holds_the_name_for_as_long_as_the_command_runs() {
    let Some(mount) = Mount::new() else { return };
    let script = "echo $CLAIMFS_CLAIM $CLAIMFS_TOKEN; cat claims/x; read -r line; exit 7";
    let mut command = mount.claimfs(&["run", "x", "--", "sh", "-c", script]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = Guard::spawn(&mut command);
    assert_eq!(running.line(), "x 1");
    let record: Value = serde_json::from_str(&running.line()).unwrap();
    assert_eq!(
        (&record["name"], &record["token"]),
        (&json!("x"), &json!(1))
    );
    let id = record["session"].as_str().unwrap();
    assert_eq!(id, format!("run-{}", running.0.id()));
    let session: Value = serde_json::from_str(&mount.read(&format!("sessions/{id}"))).unwrap();
    assert_eq!(
        session["roots"].as_array().unwrap().len(),
        2,
        "the wrapper and the command"
    );

    let (code, _, err) = run(&mount, "other", &["run", "x", "--", "echo", "never"]);
    assert_eq!(code, 1);
    assert!(
        err.starts_with(&format!("claimfs: claims/x: held by session {id} (pid ")),
        "{err}"
    );
    let (code, out, _) = run(
        &mount,
        "other",
        &["run", "-E", "75", "x", "--", "echo", "never"],
    );
    assert_eq!((code, out.as_str()), (75, ""));

    drop(running.0.stdin.take());
    assert_eq!(running.0.wait().unwrap().code(), Some(7));
    assert!(mount.record("x").is_none());
    let released = "claimfs_releases_total 1\n";
    assert!(mount.read("metrics").contains(released));
}

#[test]
fn regression_run_ends_when_its_command_does_and_not_with_the_next_event() {
    let Some(mount) = Mount::new() else { return };
    let began = Instant::now();
    for _ in 0..16 {
        let (code, _, err) = run(&mount, "me", &["run", "x", "--", "true"]);
        assert_eq!((code, err.as_str()), (0, ""));
    }
    // A thread that waited in a read of `events` kept half of them for the second that such a read
    // takes.
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[test]
fn run_passes_on_how_the_command_ends_and_what_it_is_told() {
    let Some(mount) = Mount::new() else { return };
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -KILL $$", 137)] {
        assert_eq!(
            run(&mount, "w", &["run", "x", "--", "sh", "-c", script]).0,
            code
        );
    }
    let (code, _, err) = run(&mount, "w", &["run", "x", "--", "no/such/command"]);
    assert_eq!(
        (code, err.as_str()),
        (
            127,
            "claimfs: no/such/command: No such file or directory (os error 2)\n"
        )
    );
    assert_eq!(run(&mount, "w", &["run", "x", "--", "/dev/null"]).0, 126);
    assert_eq!(run(&mount, "w", &["run", "a/b", "--", "true"]).0, 2);
    assert_eq!(run(&mount, "w", &["run", "x"]).0, 2);
    let mut running = start(
        &mount,
        &[
            "run",
            "x",
            "--",
            "sh",
            "-c",
            "trap 'echo told; exit 3' USR1; echo up; while :; do sleep 0.05; done",
        ],
    );
    assert_eq!(running.line(), "up");
    unsafe { libc::kill(running.0.id() as i32, libc::SIGUSR1) };
    assert_eq!(running.line(), "told");
    assert_eq!(code_of(&mut running), Some(3));
    assert!(mount.record("x").is_none());
}

fn code_of(guard: &mut Guard) -> Option<i32> {
    code(&mut guard.0)
}

#[test]
fn kill_of_the_wrapper_does_not_free_what_the_command_uses() {
    let Some(mount) = Mount::new() else { return };
    let mut running = start(
        &mount,
        &["run", "x", "--", "sh", "-c", "echo $$; exec sleep 60"],
    );
    let command: i32 = running.line().parse().unwrap();
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    assert!(mount.session_of("x").unwrap().starts_with("run-"));
    let (code, _, _) = run(&mount, "other", &["run", "x", "--", "true"]);
    assert_eq!(code, 1);
    unsafe { libc::kill(command, libc::SIGKILL) };
    wait_until("the command is dead", || mount.record("x").is_none());
}

#[test]
fn a_command_whose_lease_is_lost_is_ended() {
    let Some(mount) = Mount::new() else { return };
    let told = "trap 'echo told; exit 5' TERM; echo up; while :; do sleep 0.05; done";
    let deaf = "trap 'echo told' TERM; echo up; while :; do sleep 0.05; done";

    let mut running = start(&mount, &["run", "x", "--", "sh", "-c", told]);
    assert_eq!(running.line(), "up");
    take_away(&mount, "x");
    assert_eq!(running.line(), "told");
    assert_eq!(code_of(&mut running), Some(5));

    let mut running = start(
        &mount,
        &["run", "x", "--on-loss=kill", "--", "sh", "-c", deaf],
    );
    assert_eq!(running.line(), "up");
    let start_of_loss = Instant::now();
    take_away(&mount, "x");
    assert_eq!(code_of(&mut running), Some(137));
    assert!(start_of_loss.elapsed() < Duration::from_secs(4));

    let mut running = start(&mount, &["run", "x", "--", "sh", "-c", deaf]);
    assert_eq!(running.line(), "up");
    let start_of_loss = Instant::now();
    take_away(&mount, "x");
    assert_eq!(running.line(), "told");
    // The next one has it meanwhile, which is not its to release.
    let mut next = mount.actor(Some("next"));
    next.claim("x").unwrap();
    assert_eq!(code_of(&mut running), Some(137));
    let took = start_of_loss.elapsed();
    assert!(
        took >= Duration::from_secs(5) && took < Duration::from_secs(9),
        "{took:?}"
    );
    assert_eq!(mount.session_of("x").as_deref(), Some("next"));
    next.unlink("claims/x").unwrap();

    let mut running = start(
        &mount,
        &[
            "run",
            "x",
            "--on-loss",
            "ignore",
            "--",
            "sh",
            "-c",
            "echo up; sleep 0.5; exit 6",
        ],
    );
    assert_eq!(running.line(), "up");
    take_away(&mount, "x");
    assert_eq!(code_of(&mut running), Some(6));

    // So is a handover, by any process of its session.
    let mut other = mount.actor(Some("other"));
    other.claim("own").unwrap();
    // It is ready to be told before it gives its lease away.
    let ready = |ask: &str| told.replace("while", &format!("echo '{ask}' > claims/x; while"));
    let hands = ready("{\"session\":\"other\"}");
    let mut running = start(&mount, &["run", "x", "--", "sh", "-c", &hands]);
    assert_eq!(
        (running.line(), running.line()),
        ("up".into(), "told".into())
    );
    assert_eq!(code_of(&mut running), Some(5));
    assert_eq!(mount.session_of("x").as_deref(), Some("other"));
    other.unlink("claims/x").unwrap();

    // Its own releases and renames are not reported.
    let own = "rm claims/x; sleep 0.3; exit 8";
    let mut running = start(&mount, &["run", "x", "--", "sh", "-c", own]);
    assert_eq!(code_of(&mut running), Some(8));
    // An expiry is a loss.
    let short = ready("{\"ttl\":\"100ms\"}");
    let mut running = start(&mount, &["run", "x", "--", "sh", "-c", &short]);
    assert_eq!(
        (running.line(), running.line()),
        ("up".into(), "told".into())
    );
    assert_eq!(code_of(&mut running), Some(5));
}

#[test]
fn run_and_claim_stand_in_line_with_wait() {
    let Some(mount) = Mount::new() else { return };
    let mut first = mount.actor(Some("first"));
    first.claim("x").unwrap();
    let start_of_wait = Instant::now();
    let (code, _, err) = run(
        &mount,
        "w",
        &["run", "x", "--wait=300ms", "--", "echo", "never"],
    );
    assert!(
        code == 1 && start_of_wait.elapsed() >= Duration::from_millis(300),
        "{err}"
    );
    let (code, out, err) = run(&mount, "w", &["claim", "x", "--wait=0.2s"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.contains("held by session first") && err.ends_with("; waited in vain\n"),
        "{err}"
    );
    assert_eq!(mount.read("waiters"), "");
    assert_eq!(run(&mount, "w", &["claim", "x", "--wait=soon"]).0, 2);

    let mut run_first = start(
        &mount,
        &[
            "run",
            "x",
            "--wait",
            "--",
            "sh",
            "-c",
            "echo one; cat claims/x",
        ],
    );
    wait_until("it waits", || mount.read("waiters").lines().count() == 1);
    let mut second = mount.claimfs(&["claim", "x", "--wait=20s"]);
    second.env("CLAIMFS_SESSION", "w").stdout(Stdio::piped());
    let mut second = Guard::spawn(&mut second);
    wait_until("both wait", || mount.read("waiters").lines().count() == 2);
    first.unlink("claims/x").unwrap();
    assert_eq!(run_first.line(), "one");
    assert_eq!(code_of(&mut run_first), Some(0));
    assert_eq!(second.line(), "claims/x: taken by session w, token 3");
    assert_eq!(code_of(&mut second), Some(0));
    // This test is the parent of that command, and the session's root.
    assert_eq!(mount.session_of("x").as_deref(), Some("w"));
    let (code, out, _) = run(&mount, "w", &["claim", "x", "--wait"]);
    assert_eq!(
        (code, out.as_str()),
        (0, "claims/x: held already by session w, token 3\n")
    );
}

#[test]
fn wait_waits_until_nobody_holds_the_name_and_takes_nothing() {
    let Some(mount) = Mount::new() else { return };
    assert_eq!(
        run(&mount, "w", &["wait", "x"]),
        (0, String::new(), String::new())
    );
    let mut first = mount.actor(Some("first"));
    first.claim("x").unwrap();
    let (code, _, err) = run(&mount, "w", &["wait", "x", "--timeout", "200ms"]);
    assert!(code == 1 && err.ends_with("; waited in vain\n"), "{err}");
    let mut waiting = start(&mount, &["wait", "x"]);
    assert!(waiting.0.try_wait().unwrap().is_none());
    first.kill();
    assert_eq!(code_of(&mut waiting), Some(0));
    assert!(mount.record("x").is_none());
}

#[test]
fn give_hands_over_and_says_why_not() {
    let Some(mount) = Mount::new() else { return };
    let mut other = mount.actor(Some("other"));
    other.claim("own").unwrap();
    assert_eq!(run(&mount, "w", &["claim", "x"]).0, 0);
    let cases = [
        (
            ["give", "own", "w"],
            1,
            "claimfs: claims/own: held by session other (pid ",
        ),
        (
            ["give", "free", "w"],
            4,
            "claimfs: claims/free: free; there is nothing to hand over\n",
        ),
        (
            ["give", "x", "nobody"],
            4,
            "claimfs: claims/x: no live session nobody to hand it to; see 'claimfs session ls'\n",
        ),
        (["give", "x", "a/b"], 2, "claimfs: 'a/b': no session id; "),
    ];
    for (arguments, code, says) in cases {
        let (seen, _, err) = run(&mount, "w", &arguments);
        assert_eq!(seen, code);
        assert!(err.starts_with(says), "{err}");
    }
    assert_eq!(
        run(&mount, "w", &["give", "x", "other"]).1,
        "claims/x: handed to session other, token 3\n"
    );
    assert_eq!(mount.session_of("x").as_deref(), Some("other"));
    // The attribute does the same.
    assert_eq!(
        other.setxattr("claims/x", "user.claimfs.session", "a/b", 0),
        Err(libc::EINVAL)
    );
    assert_eq!(
        other.setxattr("claims/x", "user.claimfs.session", "nobody", 0),
        Err(libc::ENOENT)
    );
    other
        .setxattr("claims/x", "user.claimfs.session", "w", 0)
        .unwrap();
    assert_eq!(mount.session_of("x").as_deref(), Some("w"));
}

#[test]
fn events_are_sentences_or_json() {
    let Some(mount) = Mount::new() else { return };
    let mut json = start(&mount, &["events", "-f", "--json"]);
    let mut words = start(&mount, &["events", "--follow"]);
    let mut one = start(&mount, &["events"]);
    let mut me = mount.actor(Some("me"));
    let reads = |command: &Guard| {
        let open = fs::read_dir(format!("/proc/{}/fd", command.0.id())).unwrap();
        let mut open = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        open.any(|path| path.ends_with("events"))
    };
    for command in [&json, &words, &one] {
        wait_until("it reads", || reads(command));
    }
    me.mkdir("claims/x").unwrap();
    me.rmdir("claims/x").unwrap();
    wait_until("who wants one has seen one", || {
        one.0.try_wait().unwrap().is_some()
    });
    let mut seen: Value = serde_json::from_str(&json.line()).unwrap();
    while seen["event"] != "claimed" {
        seen = serde_json::from_str(&json.line()).unwrap();
    }
    assert_eq!(
        (&seen["claim"], &seen["session"]),
        (&json!("x"), &json!("me"))
    );
    let mut line = words.line();
    while !line.contains("claimed") {
        line = words.line();
    }
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(&cells[1..5], ["claimed", "x", "me", "token"], "{line}");
    assert!(cells[0].ends_with('Z') && cells[0].len() == "12:34:56.789Z".len());
}

#[test]
fn ls_watch_is_plain_where_there_is_no_terminal() {
    let Some(mount) = Mount::new() else { return };
    let mut watching = start(&mount, &["ls", "--watch"]);
    assert_eq!(
        (watching.line(), watching.line()),
        ("nothing is held".into(), String::new())
    );
    let mut me = mount.actor(Some("me"));
    me.claim("repo").unwrap();
    let line = loop {
        let line = watching.line();
        if line.starts_with("repo") {
            break line;
        }
    };
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(
        (cells[0], cells[1], *cells.last().unwrap()),
        ("repo", "me", "-"),
        "{line}"
    );
}

#[test]
fn the_terminal_is_told_who_holds_it_for_how_long_and_ones_place() {
    let Some(mount) = Mount::new() else { return };
    let mut first = mount.actor(Some("first"));
    first.claim("repo").unwrap();
    let typescript = mount.state.join("typescript");
    let command = format!(
        "{} --mount {} claim repo --wait",
        crate::support::CLAIMFS,
        mount.dir.display()
    );
    let mut script = std::process::Command::new("script");
    script
        .args(["-qfec", &command])
        .arg(&typescript)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    script.env("CLAIMFS_SESSION", "w");
    let mut script = Guard::spawn(&mut script);
    let seen = || fs::read_to_string(&typescript).unwrap_or_default();
    wait_until("it says so", || seen().contains("you are 1 of 1 for "));
    let text = seen();
    assert!(
        text.contains("\r\u{1b}[Kyou are 1 of 1 for claims/repo: held by first (pid "),
        "{text:?}"
    );
    first.unlink("claims/repo").unwrap();
    assert_eq!(code_of(&mut script), Some(0));
    assert!(
        seen().contains("\r\u{1b}[Kclaims/repo: taken by session w, token 2"),
        "{:?}",
        seen()
    );
}

#[test]
fn regression_the_end_of_a_session_is_a_loss_too_and_what_others_took_is_left_to_them() {
    let Some(mount) = Mount::new() else { return };
    let told = "trap 'echo told; exit 5' TERM; echo up; while :; do sleep 0.05; done";
    let mut running = start(&mount, &["run", "x", "--", "sh", "-c", told]);
    assert_eq!(running.line(), "up");
    let id = mount.session_of("x").unwrap();
    assert_eq!(run(&mount, "w", &["session", "end", &id]).0, 0);
    assert_eq!(running.line(), "told");
    assert_eq!(code_of(&mut running), Some(5));

    // The worker that started it takes the name meanwhile: it is not for 'run' to give back.
    let mut command = mount.claimfs(&[
        "run",
        "x",
        "--on-loss=ignore",
        "--",
        "sh",
        "-c",
        "echo up; read -r line; true",
    ]);
    command
        .env("CLAIMFS_SESSION", "w")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut running = Guard::spawn(&mut command);
    assert_eq!(running.line(), "up");
    let id = mount.session_of("x").unwrap();
    assert_eq!(run(&mount, "w", &["session", "end", &id]).0, 0);
    let mut worker = mount.actor(Some("w"));
    worker.claim("x").unwrap();
    drop(running.0.stdin.take());
    assert_eq!(code_of(&mut running), Some(0));
    assert_eq!(mount.session_of("x").as_deref(), Some("w"));
}

#[test]
fn regression_a_command_does_not_start_once_its_lease_is_lost() {
    let Some(mount) = Mount::new() else { return };
    let (code, out, err) = run(&mount, "other", &["enter", "gone", "--", "echo", "never"]);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    let mut command = mount.claimfs(&["enter", "gone", "--", "echo", "never"]);
    command.env("CLAIMFS_CLAIM", "x").env("CLAIMFS_TOKEN", "1");
    let (code, out, err) = text(&command.output().unwrap());
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(
        err,
        "claimfs: claims/x: lost before the command was started\n"
    );
}
