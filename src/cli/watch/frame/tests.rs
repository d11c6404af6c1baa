use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Snapshot, add_hint, lines, shown};
use crate::cli::columns::width;

/// The time of all frames here, in seconds since 1970: 12:00:00Z of a day.
const NOW: u64 = 1_764_590_400;

fn moment(ago: u64) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW - ago);
    Timestamp::try_from(at).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
}

/// A lease of a session, held for so many seconds.
fn lease(name: &str, session: &str, token: u64, ago: u64) -> Value {
    json!({
        "name": name, "session": session, "token": token, "pid": 1000 + token, "command": "bash",
        "uid": 1000, "acquired_at": moment(ago), "holder": format!("{} bash", 1000 + token),
    })
}

fn waiter(name: &str, place: u64, session: &str, ago: u64) -> Value {
    json!({
        "claim": name, "place": place, "session": session, "pid": 2000 + place, "command": "cat",
        "uid": 1000, "since": moment(ago),
    })
}

fn claimed(name: &str, session: &str, ago: u64) -> Value {
    json!({
        "seq": 1, "at": moment(ago), "event": "claimed", "claim": name, "session": session,
        "token": 7, "pid": 77, "command": "bash",
    })
}

fn snapshot(records: Vec<Value>, waiters: Vec<Value>, events: Vec<Value>) -> Snapshot {
    Snapshot {
        mount: String::from("/run/claims"),
        records,
        waiters,
        events,
        fault: None,
    }
}

/// A frame of this many columns and lines, which it never exceeds.
fn drawn(snapshot: &Snapshot, columns: usize, height: usize) -> Vec<String> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    let lines = lines(snapshot, (columns, height), now);
    assert!(lines.len() <= height, "{lines:#?}");
    for line in &lines {
        assert!(width(line) < columns.max(1), "{line:?}: {lines:#?}");
    }
    lines
}

fn many() -> Snapshot {
    let claim = |at: u64| lease(&format!("job-{at:03}"), &format!("w{at}"), at, 1000 - at);
    let path = |at: u64| {
        let name = format!("paths/home/me/app/src/module-{}/file-{at}.rs", at % 7);
        lease(&name, "w1", 1000 + at, 60)
    };
    let records = (1..=300).map(claim).chain((1..=40).map(path));
    let events = (1..=99).map(|at| claimed(&format!("job-{at:03}"), "w1", 99 - at));
    let waiters = (1..=9).map(|place| waiter("job-007", place, &format!("q{place}"), 90 - place));
    snapshot(records.collect(), waiters.collect(), events.collect())
}

#[test]
fn nothing_is_held() {
    let empty = snapshot(vec![], vec![], vec![]);
    assert_eq!(drawn(&empty, 80, 24), ["nothing is held in /run/claims"]);
    let after = snapshot(vec![], vec![], vec![claimed("x", "w1", 5)]);
    let yesterday = snapshot(vec![], vec![], vec![claimed("x", "w1", 86_400)]);
    assert_eq!(
        drawn(&yesterday, 80, 24)[3],
        "2025-11-30T12:00Z x: claimed by session w1, pid 77 (bash)"
    );
    assert_eq!(
        drawn(&after, 80, 24)[1..],
        [
            "",
            "LAST EVENTS",
            "11:59:55Z x: claimed by session w1, pid 77 (bash)"
        ]
    );
}

#[test]
fn three_leases_have_all_there_is_to_say_at_80_columns() {
    let mut deploy = lease("deploy", "w1", 1, 200);
    deploy["reason"] = json!("a migration\u{1b}[2J");
    deploy["ttl"] = json!(600);
    deploy["expires_in"] = json!(599.5);
    let mut mine = lease("lint", "7-1000", 2, 10);
    mine["scope"] = json!("process");
    let path = lease("paths/srv/app", "w2", 3, 4000);
    let waiters = vec![waiter("deploy", 1, "w2", 12), waiter("deploy", 2, "w3", 4)];
    let events = vec![claimed("lint", "7-1000", 10)];
    let three = snapshot(vec![deploy, mine, path], waiters, events);
    assert_eq!(
        drawn(&three, 80, 24),
        [
            "2 claims, 1 reservation, 2 waiters in /run/claims",
            "",
            "CLAIM   SESSION  HOLDER     AGE  LEFT  REASON",
            "deploy  w1       1001 bash  3m   9m    a migration\\u{1b}[2J",
            "  waits: 1. w2 12s, 2. w3 4s",
            "lint    7-1000   1002 bash  10s",
            "",
            "PATH      SESSION  HOLDER     AGE",
            "/srv/app  w2       1003 bash  1h6m",
            "",
            "LAST EVENTS",
            "11:59:50Z lint: claimed by session 7-1000, pid 77 (bash)",
        ]
    );
    // A narrow pane has one column for who it is.
    assert_eq!(
        drawn(&three, 40, 10),
        [
            "2 claims, 1 reservation, 2 waiters in …",
            "CLAIM   SESSION  AGE  LEFT  REASON",
            "deploy  w1       3m   9m    a migratio…",
            "  waits: 1. w2 12s, 2. w3 4s",
            "lint    7-1000   10s",
            "PATH      SESSION  AGE",
            "/srv/app  w2       1h6m",
            "LAST EVENTS",
            "11:59:50Z lint: claimed by session 7-1…",
        ]
    );
}

#[test]
fn of_300_leases_those_that_are_waited_for_or_end_soon_come_first_and_the_rest_is_counted() {
    let mut many = many();
    for (at, left) in [(20, 9.0), (21, 3.5), (22, 500.0)] {
        many.records[at]["ttl"] = json!(2000);
        many.records[at]["expires_in"] = json!(left);
    }
    let lines = drawn(&many, 80, 24);
    assert_eq!(
        lines[0],
        "300 claims, 40 reservations, 9 waiters in /run/claims"
    );
    let claims = lines.iter().skip_while(|line| !line.starts_with("CLAIM"));
    let claims: Vec<&String> = claims.take_while(|line| !line.is_empty()).collect();
    let names = claims
        .iter()
        .map(|line| line.split(' ').next().unwrap_or_default());
    assert_eq!(
        names.collect::<Vec<&str>>(),
        ["CLAIM", "job-007", "", "job-022", "job-021", "job-300", "…"],
        "{lines:#?}"
    );
    assert!(
        claims[2].starts_with("  waits: 1. q1 1m, 2. q2 1m, ") && claims[2].ends_with(" more"),
        "{lines:#?}"
    );
    assert_eq!(claims[6], "… and 296 more");
    // The newest reservations, below what their paths have in common.
    let paths = lines.iter().skip_while(|line| !line.starts_with("PATH"));
    let paths: Vec<&String> = paths.take_while(|line| !line.is_empty()).collect();
    assert_eq!(*paths[1], "/home/me/app/src/", "{lines:#?}");
    assert!(paths[2].starts_with("  module-") && paths[2].contains("w1 "));
    assert!(paths.last().is_some_and(|line| line.starts_with("… and ")));
    // The newest events, the last at the end.
    assert!(
        lines
            .last()
            .is_some_and(|line| line.contains("job-099: claimed")),
        "{lines:#?}"
    );
    assert_eq!(lines.len(), 24);
}

#[test]
fn a_deadline_that_is_renewed_in_time_is_not_near() {
    let lease = |name: &str, token: u64, left: f64| {
        let mut lease = lease(name, "w1", token, 100);
        lease["ttl"] = json!(30);
        lease["expires_in"] = json!(left);
        lease
    };
    let records = vec![lease("late", 1, 7.0), lease("renewed", 2, 20.0)];
    let lines = drawn(&snapshot(records, vec![], vec![]), 80, 24);
    assert!(lines[3].starts_with("late ") && lines[4].starts_with("renewed "));
    assert!(
        lines[3].ends_with(" 7s") && lines[4].ends_with(" 20s"),
        "{lines:#?}"
    );
}

#[test]
fn a_ring_is_said_once_at_the_top() {
    let link = |session: &str, name: &str| json!({ "session": session, "pid": 5, "name": name });
    let (one, other) = (link("w1", "y"), link("w2", "x"));
    let mut waiters = vec![waiter("x", 1, "w2", 9), waiter("y", 1, "w1", 8)];
    waiters[0]["ring"] = json!([other, one]);
    waiters[1]["ring"] = json!([one, other]);
    let records = vec![lease("x", "w1", 1, 20), lease("y", "w2", 2, 20)];
    let lines = drawn(&snapshot(records, waiters, vec![]), 80, 24);
    assert_eq!(
        lines[..2],
        [
            "2 claims, 2 waiters in /run/claims",
            "a ring: w2 waits for x of w1, who waits for y of w2"
        ]
    );
    assert!(!lines[2..].iter().any(|line| line.contains("ring")));
}

#[test]
fn paths_that_are_nested_are_a_tree_and_a_long_one_shows_its_end() {
    let long = format!("paths/srv/{}/the-end.rs", "d".repeat(200));
    let records = vec![
        lease("paths/home/me/app/src/main.rs", "w1", 1, 20),
        lease("paths/home/me/app/src/lib.rs", "w2", 2, 20),
        lease("paths/home/me/app/docs", "w1", 3, 20),
        lease("paths/home/me/app/docs/ページ.md", "w1", 4, 20),
        lease(&long, "w3", 5, 20),
    ];
    let lines = drawn(&snapshot(records, vec![], vec![]), 80, 24);
    let first = |line: &String| {
        let end = line.find("  w").unwrap_or(line.len());
        line.get(..end).unwrap_or_default().trim_end().to_owned()
    };
    let tree: Vec<String> = lines.iter().skip(2).map(first).collect();
    assert_eq!(
        tree[1..6],
        [
            "/home/me/app/",
            "  docs",
            "    ページ.md",
            "  src/",
            "    lib.rs",
        ]
    );
    assert!(
        tree[7].starts_with("…d") && tree[7].ends_with("d/the-end.rs"),
        "{lines:#?}"
    );
}

#[test]
fn any_size_and_any_text_make_a_snapshot_that_fits() {
    let mut many = many();
    many.records[3]["name"] = json!("日本語の名前".repeat(14));
    many.records[4]["reason"] = json!("e\u{301}".repeat(128));
    many.records[5]["session"] = json!("\u{202e}x".repeat(100));
    many.waiters[0]["session"] = json!("ж".repeat(255));
    many.fault = Some(String::from("the mount does not answer"));
    for columns in [0, 1, 2, 10, 40, 80, 300] {
        for height in [0, 1, 2, 3, 5, 10, 24, 100, 500] {
            drawn(&many, columns, height);
        }
    }
    many.fault = None;
    let lines = drawn(&many, 40, 10);
    assert!(
        lines.iter().any(|line| line.starts_with("job-007 ")),
        "{lines:#?}"
    );
    assert!(
        lines.iter().any(|line| line.contains("file-")),
        "{lines:#?}"
    );
    assert!(lines.iter().all(|line| !line.contains('\u{202e}')));
}

#[test]
fn a_narrow_pane_shows_processes_where_all_leases_are_held_by_one() {
    let mut lint = lease("lint", "7-1000", 2, 10);
    lint["scope"] = json!("process");
    let of_process = snapshot(vec![lint], vec![], vec![]);
    assert_eq!(
        drawn(&of_process, 40, 10)[1..],
        ["CLAIM  HOLDER     AGE", "lint   1002 bash  10s"]
    );
}

#[test]
fn a_holder_that_is_not_known_is_no_column() {
    let mut lease = lease("deploy", "w1", 1, 10);
    lease["holder"] = Value::Null;
    assert_eq!(
        drawn(&snapshot(vec![lease], vec![], vec![]), 80, 10)[1..],
        ["CLAIM   SESSION  AGE", "deploy  w1       10s"]
    );
}

#[test]
fn how_to_leave_is_said_at_the_right_of_the_first_line_where_there_is_room() {
    let hinted = |columns: usize| {
        let mut lines = vec![String::from("nothing is held"), String::from("x")];
        add_hint(&mut lines, columns);
        assert!(lines.iter().all(|line| width(line) < columns));
        lines.swap_remove(0)
    };
    assert_eq!(hinted(30), "nothing is held       q quits");
    assert_eq!(hinted(25), "nothing is held  q quits");
    assert_eq!(hinted(24), "nothing is held");
    add_hint(&mut [], 80);
}

#[test]
fn the_leases_that_a_screen_may_show_are_the_first_claims_and_the_first_reservations() {
    let many = many();
    let mut tokens: Vec<u64> = shown(&many, 3).into_iter().collect();
    tokens.sort_unstable();
    // That which is waited for, and the newest.
    assert_eq!(tokens, [7, 299, 300, 1038, 1039, 1040]);
}
