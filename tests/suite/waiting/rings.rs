//! Waiters that wait for each other: `waiters` and the progress lines name the ring. A ring is no
//! error, since another process of a session may release a name.

use std::fs;
use std::process::Stdio;

use libc::O_RDONLY;
use serde_json::{Value, json};

use crate::support::{Actor, CLAIMFS, Guard, Mount, parsed, wait_until};

/// Sessions that hold a, b, c and so on, each its own name.
fn holders(mount: &Mount, names: &[&str]) -> Vec<Actor> {
    let holder = |name: &&str| {
        let mut holder = mount.actor(Some(&format!("S{name}")));
        holder.claim(name).unwrap();
        holder
    };
    names.iter().map(holder).collect()
}

fn wait(actor: &mut Actor, name: &str) -> i64 {
    actor.open(&format!("queue/{name}"), O_RDONLY).unwrap()
}

/// The record of the waiter of a session for a name.
fn waiter(mount: &Mount, session: &str, name: &str) -> Value {
    let lines = mount.read("waiters");
    let mut records = lines.lines().map(parsed);
    let record = records.find(|record| record["claim"] == name && record["session"] == session);
    record.unwrap_or_default()
}

/// The ring in such a record: sessions, and the names that they wait for.
fn ring(mount: &Mount, session: &str, name: &str) -> Vec<(String, String)> {
    let record = waiter(mount, session, name);
    let text = |link: &Value, key: &str| link[key].as_str().unwrap().to_owned();
    let links = record["ring"].as_array().into_iter().flatten();
    links
        .map(|link| (text(link, "session"), text(link, "name")))
        .collect()
}

/// Reads progress lines until one names a ring, which may take a second more than the first line.
fn told_of_ring(actor: &mut Actor, fd: i64) -> String {
    let mut said = String::new();
    wait_until("a progress line names the ring", || {
        said = actor.read(fd).unwrap();
        said.contains("; a ring: ")
    });
    said
}

fn pairs<const N: usize>(links: [(&str, &str); N]) -> Vec<(String, String)> {
    let pair = |(session, name): (&str, &str)| (session.to_owned(), name.to_owned());
    links.map(pair).to_vec()
}

#[test]
fn a_ring_of_two_is_named_in_waiters_and_in_progress_lines() {
    let Some(mount) = Mount::new() else { return };
    let mut holders = holders(&mount, &["a", "b"]);
    let first = wait(&mut holders[0], "b");
    assert!(waiter(&mount, "Sa", "b").get("ring").is_none());
    let said = holders[0].read(first).unwrap();
    assert!(
        said.contains("\nyou are 1 of 1 for b: held by ") && !said.contains("ring"),
        "{said}"
    );
    let second = wait(&mut holders[1], "a");
    assert_eq!(ring(&mount, "Sa", "b"), pairs([("Sa", "b"), ("Sb", "a")]));
    assert_eq!(ring(&mount, "Sb", "a"), pairs([("Sb", "a"), ("Sa", "b")]));
    let link = &waiter(&mount, "Sa", "b")["ring"][1];
    assert_eq!(
        *link,
        json!({ "session": "Sb", "pid": holders[1].pid(), "name": "a" })
    );
    let said = told_of_ring(&mut holders[0], first);
    assert!(
        said.ends_with(
            " s; a ring: you wait for b, which Sb holds, which waits for a, which you hold\n"
        ),
        "{said}"
    );
    assert!(told_of_ring(&mut holders[1], second).contains("you wait for a, which Sa holds"));
    // Another process of the session releases, and there is no ring any more.
    let mut same = mount.actor(Some("Sb"));
    same.unlink("claims/b").unwrap();
    assert_eq!(holders[0].read(first).unwrap(), "");
    assert!(waiter(&mount, "Sb", "a").get("ring").is_none());
    let said = holders[1].read(second).unwrap();
    assert!(!said.contains("ring"), "a second ago it was one: {said}");
}

#[test]
fn a_ring_of_three_is_named_in_its_order() {
    let Some(mount) = Mount::new() else { return };
    let mut holders = holders(&mount, &["a", "b", "c"]);
    let mut outside = mount.actor(Some("outside"));
    wait(&mut outside, "a");
    let fd = wait(&mut holders[0], "b");
    wait(&mut holders[1], "c");
    assert_eq!(ring(&mount, "Sa", "b"), pairs([]));
    wait(&mut holders[2], "a");
    assert_eq!(
        ring(&mount, "Sb", "c"),
        pairs([("Sb", "c"), ("Sc", "a"), ("Sa", "b")])
    );
    assert_eq!(ring(&mount, "outside", "a"), pairs([]));
    let said = told_of_ring(&mut holders[0], fd);
    assert!(
        said.contains(
            "; a ring: you wait for b, which Sb holds, which waits for c, which Sc holds, \
             which waits for a, which you hold\n"
        ),
        "{said}"
    );
}

#[test]
fn two_scripts_of_a_terminal_are_told_apart_by_their_processes() {
    let Some(mount) = Mount::new() else { return };
    // Each script holds a name, and says so before it waits for the other's.
    let script = "one() { set -C; echo > claims/$1; set +C; until [ -e claims/$2 ]; do :; done
        cat queue/$2; }; one a b & one b a & wait";
    let mut command = mount.sh(script);
    let _script = Guard::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()));
    wait_until("both wait", || mount.read("waiters").lines().count() == 2);
    let session = mount.session_of("a").unwrap();
    assert_eq!(mount.session_of("b").unwrap(), session);
    let links = ring(&mount, &session, "a");
    assert_eq!(
        links,
        pairs([(&session, "a"), (&session, "b")]),
        "{}",
        mount.read("waiters")
    );
}

#[test]
fn a_command_that_waits_says_on_its_terminal_that_it_is_in_a_ring() {
    let Some(mount) = Mount::new() else { return };
    let mut holders = holders(&mount, &["a", "b"]);
    wait(&mut holders[1], "a");
    let typescript = mount.state.join("typescript");
    let command = format!("{CLAIMFS} --mount {} claim b --wait", mount.dir.display());
    let mut script = std::process::Command::new("script");
    script
        .args(["-qfec", &command])
        .arg(&typescript)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .env("CLAIMFS_SESSION", "Sa");
    let _script = Guard::spawn(&mut script);
    let seen = || fs::read_to_string(&typescript).unwrap_or_default();
    wait_until("it says so", || seen().contains("a ring: "));
    let says = "claimfs: a ring: you wait for b, which Sb holds, which waits for a, which you hold";
    assert!(seen().contains(says), "{:?}", seen());
}
