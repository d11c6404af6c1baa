//! Standard output: JSON on each verb, and what follows if it cannot be written.

use std::fs::{File, OpenOptions};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{CLAIMFS, Mount, parsed, text};

/// The output of a verb that runs in the session `w`.
fn run(mount: &Mount, arguments: &[&str]) -> (i32, String, String) {
    let mut command = mount.claimfs(arguments);
    text(
        &command
            .env("CLAIMFS_SESSION", "w")
            .stdin(Stdio::null())
            .output()
            .unwrap(),
    )
}

/// The exit code and standard error of a verb with this standard output.
fn into(mount: &Mount, out: impl Into<Stdio>, arguments: &[&str]) -> (i32, String) {
    let mut command = mount.claimfs(arguments);
    command.env("CLAIMFS_SESSION", "w").stdin(Stdio::null());
    let child = command.stdout(out).stderr(Stdio::piped()).spawn().unwrap();
    let (code, _, err) = text(&child.wait_with_output().unwrap());
    (code, err)
}

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// A pipe that nobody reads.
fn broken() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn what_was_done_is_said_if_standard_output_cannot_be_written() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.actor(Some("w"));
    holder.claim("own").unwrap();
    let mut other = mount.actor(Some("other"));
    other.claim("theirs").unwrap();
    for (arguments, done) in [
        (&["claim", "x"][..], "claims/x: taken by session w, token "),
        (
            &["claim", "x"],
            "claims/x: held already by session w, token ",
        ),
        (&["claim", "--json", "theirs"], "claims/theirs: not taken"),
        (
            &["give", "x", "other"],
            "claims/x: handed to session other, token ",
        ),
        (&["break", "x"], "claims/x: taken from session other (pid "),
        (&["release", "--json", "own"], "claims/own: given back"),
        (&["release", "--json", "own"], "claims/own: free already"),
        (&["wait", "--json", "own"], "claims/own: free"),
        (
            &["reserve", "/srv/app"],
            "/srv/app: reserved by session w, token ",
        ),
        (&["unreserve", "--json", "/srv/app"], "/srv/app: given back"),
        (
            &["session", "end", "--json", "other"],
            "sessions/other: ended",
        ),
    ] {
        let (code, err) = into(&mount, full(), arguments);
        assert_eq!(code, 3, "{arguments:?}: {err}");
        let last = err.lines().last().unwrap();
        assert!(last.starts_with(&format!("claimfs: {done}")), "{err}");
        let why = "; but standard output cannot be written: No space left on device (os error 28); make room, or";
        assert!(last.contains(why), "{err}");
    }
    // It was done all the same.
    assert_eq!(mount.claims(), [""; 0]);
    for arguments in [
        &["ls"][..],
        &["whoami"],
        &["whoami", "--json"],
        &["show", "--json", "own"],
        &["doctor", mount.dir.to_str().unwrap()],
        &["completions", "bash"],
        &["complete", "mounts"],
        &["--help"],
        &["help", "run"],
        &["--version"],
    ] {
        holder.claim("own").ok();
        let (code, err) = into(&mount, full(), arguments);
        assert_eq!(code, 3, "{arguments:?}: {err}");
        assert!(
            err.contains("claimfs: standard output cannot be written: "),
            "{err}"
        );
    }
}

#[test]
fn a_reader_that_has_gone_ends_a_listing_and_is_told_what_was_done() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.actor(Some("w"));
    holder.claim("own").unwrap();
    for arguments in [
        &["ls"][..],
        &["ls", "--json"],
        &["ls", "--watch"],
        &["show", "own"],
        &["session", "ls"],
        &["session", "ls", "--json"],
        &["whoami"],
        &["doctor", mount.dir.to_str().unwrap()],
        &["completions", "zsh"],
        &["--help"],
    ] {
        let end = (0, String::new());
        assert_eq!(into(&mount, broken(), arguments), end, "{arguments:?}");
    }
    let (code, err) = into(&mount, broken(), &["claim", "x"]);
    assert!(
        code == 3 && err.contains("taken by session w, token 2; but standard output"),
        "{err}"
    );
}

#[test]
fn each_verb_answers_in_json() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.actor(Some("w"));
    holder.claim("own").unwrap();
    let mut other = mount.actor(Some("other"));
    other.claim("theirs").unwrap();
    let answer = |arguments: &[&str], code: i32| {
        let (seen, out, err) = run(&mount, &[arguments, &["--json"]].concat());
        assert_eq!(seen, code, "{arguments:?}: {out}{err}");
        out.lines().map(parsed).collect::<Vec<Value>>()
    };
    let nobody = |name: &str| vec![json!({ "name": name, "session": null })];
    let holds = |answer: &[Value], session: &str| {
        assert_eq!(answer.len(), 1);
        assert_eq!(answer[0]["session"], session, "{answer:?}");
        assert!(answer[0]["token"].is_u64() && answer[0]["pid"].is_u64());
    };
    assert_eq!(answer(&["show", "x"], 0), nobody("x"));
    assert_eq!(answer(&["wait", "x"], 0), nobody("x"));
    holds(&answer(&["wait", "theirs", "--timeout", "0"], 1), "other");
    holds(&answer(&["claim", "x"], 0), "w");
    holds(&answer(&["claim", "theirs"], 1), "other");
    holds(&answer(&["release", "theirs"], 1), "other");
    holds(&answer(&["give", "x", "other"], 0), "other");
    let broken = answer(&["break", "x"], 0);
    holds(&broken, "other");
    assert_eq!(broken[0]["broken"], true);
    assert_eq!(
        answer(&["break", "x"], 4),
        [json!({ "name": "x", "broken": false })]
    );
    assert_eq!(
        answer(&["release", "own"], 0),
        [json!({ "name": "own", "released": true })]
    );
    assert_eq!(
        answer(&["release", "own"], 0),
        [json!({ "name": "own", "released": false })]
    );
    holds(&answer(&["reserve", "/srv/app"], 0), "w");
    assert_eq!(
        answer(&["unreserve", "/srv/app"], 0),
        nobody("paths/srv/app")
    );
    assert_eq!(answer(&["ls"], 0).len(), 1);
    assert_eq!(answer(&["whoami"], 0)[0]["session"], "w");
    let findings = answer(&["doctor", mount.dir.to_str().unwrap()], 0);
    let says = |finding: &Value| {
        finding["text"].is_string()
            && finding["check"].is_string()
            && ["ok", "note"].contains(&finding["finding"].as_str().unwrap())
    };
    assert!(
        findings.len() > 3 && findings.iter().all(says),
        "{findings:?}"
    );
    assert!(findings.iter().any(|finding| finding["check"] == "session"));
    let ended = |ended: bool| vec![json!({ "session": "other", "ended": ended })];
    assert_eq!(answer(&["session", "end", "other"], 0), ended(true));
    assert_eq!(answer(&["session", "end", "other"], 4), ended(false));
}

#[test]
fn run_leaves_standard_output_to_its_command_and_its_messages_are_json() {
    let Some(mount) = Mount::new() else { return };
    let (code, out, err) = run(&mount, &["run", "--json", "x", "--", "echo", "hello"]);
    assert_eq!((code, out.as_str()), (0, "hello\n"));
    let taken = parsed(&err);
    assert_eq!(taken["message"], "claims/x: taken");
    assert_eq!(
        (&taken["record"]["name"], &taken["record"]["token"]),
        (&json!("x"), &json!(1))
    );
    let mut other = mount.actor(Some("other"));
    other.claim("x").unwrap();
    let (code, out, err) = run(&mount, &["run", "--json", "x", "--", "echo", "hello"]);
    assert_eq!((code, out.as_str()), (1, ""));
    let held = parsed(&err);
    assert_eq!(held["record"]["session"], "other");
    assert!(
        held["message"]
            .as_str()
            .unwrap()
            .starts_with("claims/x: held by session other")
    );
    let run_nothing = ["session", "run", "--json", "--", "/no/such/command"];
    let (code, _, err) = run(&mount, &run_nothing);
    assert_eq!(code, 127);
    assert!(
        parsed(&err)["message"]
            .as_str()
            .unwrap()
            .starts_with("/no/such/command: ")
    );
    // The program itself is a command, too.
    let inside = ["run", "y", "--", CLAIMFS, "show", "--json", "y"];
    assert_eq!(parsed(&run(&mount, &inside).1)["name"], "y");
}
