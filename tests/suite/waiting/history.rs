//! `history`: the last 10,000 events, for who comes later.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Guard, Mount, parsed, text, wait_until};

fn history(mount: &Mount) -> Vec<Value> {
    mount.read("history").lines().map(parsed).collect()
}

/// What `claimfs log NAME` says, without the times and the numbers of processes and tokens.
fn told(mount: &Mount, name: &str) -> Vec<String> {
    let (code, out, errors) = text(&mount.claimfs(&["log", name]).output().unwrap());
    assert_eq!((code, errors.as_str()), (0, ""));
    let without_time = out.lines().map(|line| line.split_once("  ").unwrap().1);
    let is_number = |word: &str| word.chars().all(|c| c.is_ascii_digit());
    let lines = without_time.map(|line| {
        let words = line.split(' ').map(|word| {
            let bare = word.trim_end_matches(',');
            if !bare.is_empty() && is_number(bare) {
                word.replace(bare, "N")
            } else if word.starts_with("sid-") {
                String::from("sid")
            } else {
                word.to_owned()
            }
        });
        words.collect::<Vec<_>>().join(" ")
    });
    lines.collect()
}

#[test]
fn who_lost_a_claim_learns_when_why_and_to_whom() {
    let Some(mount) = Mount::new() else { return };
    let mut worker = mount.actor(Some("w1"));
    worker.claim("broken").unwrap();
    worker.claim("given").unwrap();
    worker.claim("back").unwrap();
    let token = mount.token("broken");
    mount.run(&format!(
        "echo '{{\"break\":\"broken\",\"token\":{token}}}' > control; rm claims/back || true"
    ));
    mount.run(
        "CLAIMFS_SESSION=w2 sh -c 'set -C; echo > claims/killed; echo > claims/other; kill -9 $$' || true
         setsid -w sh -c 'set -C; echo > claims/alone'
         sh -c 'set -C; echo $$ > claims/tied'
         echo '{\"claim\":\"late\",\"session\":\"remote\",\"seconds\":0.001}' > control",
    );
    wait_until("the deadline passes", || mount.record("late").is_none());
    let own = |name: &str| told(&mount, name);
    assert_eq!(
        own("broken"),
        [
            "claimed by pid N (actor), session w1, token N",
            "broken by pid N (sh), uid 0; pid N (actor), session w1, lost it"
        ]
    );
    assert_eq!(
        own("killed"),
        [
            "claimed by pid N (sh), session w2, token N",
            "free: all processes of session w2, which held it, have ended"
        ]
    );
    assert_eq!(
        own("alone"),
        [
            "claimed by pid N (sh), session sid token N",
            "free: pid N (sh), which held it, exited, and no process above it could have it"
        ]
    );
    assert_eq!(
        own("tied"),
        [
            "claimed by pid N (sh), session sid token N",
            "free: pid N (sh), which it was tied to, ended"
        ]
    );
    assert_eq!(
        own("late").last().unwrap().split(';').next().unwrap(),
        "free: its time was over"
    );
    assert_eq!(
        own("back"),
        ["claimed by pid N (actor), session w1, token N"]
    );
    let (code, out, errors) = text(&mount.claimfs(&["log", "nobody"]).output().unwrap());
    assert_eq!((code, out.as_str()), (0, ""));
    assert_eq!(errors, "claimfs: claims/nobody: nothing in the history\n");
    // The whole is the same as the events, and ends.
    let all = text(&mount.claimfs(&["log", "--json"]).output().unwrap()).1;
    assert_eq!(all, mount.read("history"));
    assert!(mount.run("ls").lines().any(|name| name == "history"));
}

#[test]
fn a_pass_and_a_signal_are_told_with_the_processes() {
    let Some(mount) = Mount::new() else { return };
    let script = "sh -c 'set -C; echo > claims/one; echo > claims/two; exit 3'; kill -9 $$";
    let mut killed = mount.sh(&format!(
        "setsid -w sh -c \"{}\"",
        script.replace('$', "\\$")
    ));
    killed
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    for name in ["one", "two"] {
        assert_eq!(
            told(&mount, name),
            [
                "claimed by pid N (sh), session sid token N",
                "pid N (sh) exited with N, so pid N (sh) holds it, with N others",
                "free: pid N (sh), which held it, was killed by signal N"
            ]
        );
    }
}

#[test]
fn it_outlives_servers_and_the_mount_and_ends_at_10000_events() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let names: Vec<String> = (0..250).map(|number| format!("n{number}")).collect();
    let list = |verb: &str| json!({ verb: names }).to_string();
    let (take, free) = (list("claim"), list("release"));
    // The same process writes both lines, or the second would be another's.
    let rounds = |count: u32| {
        mount.run(&format!(
            "i=0; while [ $i -lt {count} ]; do
                 echo '{take}' > control; echo '{free}' > control; i=$((i + 1)); done"
        ));
        wait_until("the shell's session has ended", || {
            history(&mount).last().unwrap()["event"] == "session_ended"
        });
    };
    rounds(1);
    let first = history(&mount);
    let claimed = |event: &&Value| event["event"] == "claimed";
    assert_eq!(first.iter().filter(claimed).count(), 250);
    mount.kill_server();
    assert_eq!(history(&mount), first);
    rounds(60);
    let before = history(&mount);
    assert_eq!(before.len(), 10_000);
    let numbers: Vec<u64> = before
        .iter()
        .map(|event| event["seq"].as_u64().unwrap())
        .collect();
    assert!(numbers.is_sorted_by(|a, b| a < b));
    let newest = before.iter().rfind(|event| event["claim"].is_string());
    assert_eq!(newest.unwrap()["event"], "released");
    wait_until("the journal was compacted meanwhile", || {
        fs::metadata(mount.state.join("history")).unwrap().len() > 1 << 20
    });
    mount.kill_server();
    assert_eq!(history(&mount), before);
    mount.stop();
    mount.start(&[]);
    assert_eq!(history(&mount), before);
}

#[test]
fn it_tells_who_ended_a_session_and_who_gave_up_waiting() {
    let Some(mount) = Mount::new() else { return };
    let mut worker = mount.actor(Some("w1"));
    worker.claim("lost").unwrap();
    let (code, ..) = text(&mount.claimfs(&["session", "end", "w1"]).output().unwrap());
    assert_eq!(code, 0);
    wait_until("the end", || mount.record("lost").is_none());
    assert_eq!(
        told(&mount, "lost"),
        [
            "claimed by pid N (actor), session w1, token N",
            "free: session w1 was ended by pid N (claimfs), uid 0; pid N (actor) lost it"
        ]
    );
    let ended = history(&mount).into_iter();
    let mut ended = ended.filter(|event| event["event"] == "session_ended");
    let ended = ended.find(|event| event["session"] == "w1").unwrap();
    assert_eq!(
        (&ended["why"], &ended["by"]["uid"]),
        (&json!("ended"), &json!(0))
    );

    // Nobody claims it: who waited gives up.
    let mut holder = mount.actor(Some("w2"));
    holder.claim("busy").unwrap();
    let wait = ["run", "--wait=0.05s", "busy", "--", "true"];
    let (code, ..) = text(&mount.claimfs(&wait).output().unwrap());
    assert_eq!(code, 1);
    let told = told(&mount, "busy");
    assert!(
        told[1].starts_with("waited for by pid N (claimfs), session run-"),
        "{told:?}"
    );
    assert!(told[2].ends_with(", waits no longer"), "{told:?}");
}

#[test]
fn a_record_says_why_a_claim_is_held_whose_claimer_has_ended() {
    let Some(mount) = Mount::new() else { return };
    let mut worker = mount.sh(
        "(set -C; echo > claims/x); sh -c 'set -C; echo > claims/y; echo $PPID > claims/z'; echo; read -r _",
    );
    worker
        .env("CLAIMFS_SESSION", "w1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let worker = Guard::spawn(&mut worker);
    wait_until("the claimer has ended", || {
        mount
            .record("y")
            .is_some_and(|record| record.get("why").is_some())
    });
    let record = mount.record("y").unwrap();
    assert_eq!(record["rule"], "variable");
    assert_eq!(record["alive_pid"], worker.0.id());
    assert_eq!(record["alive_command"], "sh");
    let (pid, alive) = (&record["pid"], worker.0.id());
    let why = format!(
        "pid {pid} has ended, and session w1 holds it (by a session variable): pid {alive} (sh) is alive; \
         free when the session ends, or by 'claimfs break y'"
    );
    assert_eq!(record["why"], why);
    assert_eq!(parsed(&mount.read("claims/y")), record);
    // A refusal says it too, and the way out works.
    let (code, _, refusal) = text(&mount.claimfs(&["claim", "y"]).output().unwrap());
    assert_eq!(code, 1);
    assert!(refusal.contains(&why), "{refusal}");
    assert_eq!(
        mount.claimfs(&["break", "y"]).status().unwrap().code(),
        Some(0)
    );
    assert!(mount.record("y").is_none());
}
