//! The invariants of every table, checked on its serialized form.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

const FIRST_INO: u64 = 1024;
const BODY_MAX: u64 = 64 * 1024;
const INSIDE_MAX: u64 = 1024 * 1024;

pub fn check(table: &Value) {
    counters(table);
    leases(table);
    sessions(table);
    lines(table);
    insides(table);
}

fn map<'a>(value: &'a Value, key: &str) -> &'a Map<String, Value> {
    value[key].as_object().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn numbers(value: &Value) -> BTreeSet<u64> {
    let all = value.as_array().unwrap();
    let set: BTreeSet<u64> = all.iter().map(number).collect();
    assert_eq!(set.len(), all.len(), "twice: {value}");
    set
}

/// The members of a map whose keys are numbers.
fn by_number<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (u64, &'a Value)> {
    let members = map(value, key).iter();
    members.map(|(key, value)| (key.parse().unwrap(), value))
}

/// The next numbers were never given out.
fn counters(table: &Value) {
    let next = |key: &str| number(&table[key]);
    for lease in map(table, "leases").values() {
        assert!(number(&lease["token"]) < next("next_token"));
    }
    for (ino, _) in by_number(table, "inodes").chain(by_number(table, "children")) {
        assert!((FIRST_INO..next("next_ino")).contains(&ino));
    }
    for (key, _) in by_number(table, "sessions") {
        assert!(key < next("next_key"));
    }
    for line in map(table, "lines").values() {
        for waiter in line.as_object().unwrap().keys() {
            assert!(waiter.parse::<u64>().unwrap() < next("next_waiter"));
        }
    }
    assert!(next("next_waiter") > 0);
}

/// A name has one lease, and a lease one holder.
fn leases(table: &Value) {
    let mut tokens = BTreeMap::new();
    for lease in map(table, "leases").values() {
        let (token, ino) = (number(&lease["token"]), number(&lease["ino"]));
        assert!(tokens.insert(token, ino).is_none(), "token {token} twice");
    }
    let mut known = BTreeMap::new();
    let mut held: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for (ino, inode) in by_number(table, "inodes") {
        let names = numbers(&inode["names"]);
        known.extend(names.iter().map(|token| (*token, ino)));
        held.entry(number(&inode["holder"]))
            .or_default()
            .extend(names);
    }
    assert_eq!(known, tokens);
    for (key, session) in by_number(table, "sessions") {
        let theirs = held.remove(&key).unwrap_or_default();
        assert_eq!(numbers(&session["leases"]), theirs, "session {key}");
    }
    assert!(held.values().all(BTreeSet::is_empty), "{held:?}");
}

/// A session that is not over lives by a process or a deadline; one that is over has leases to be
/// swept and nothing else.
fn sessions(table: &Value) {
    let mut ids = BTreeSet::new();
    for (key, session) in by_number(table, "sessions") {
        assert_eq!(number(&session["key"]), key);
        let roots = session["roots"].as_array().unwrap();
        if session["over"].is_null() {
            assert!(!roots.is_empty() || !session["deadline"].is_null());
            assert!(ids.insert(session["id"].as_str().unwrap()), "{session}");
            let mut processes: Vec<&Value> = roots.iter().map(|root| &root["process"]).collect();
            processes.sort_by_cached_key(ToString::to_string);
            assert!(processes.windows(2).all(|two| two[0] != two[1]));
        } else {
            assert!(roots.is_empty() && !session["leases"].as_array().unwrap().is_empty());
            assert!(session["waiters"].as_array().unwrap().is_empty());
        }
    }
}

/// A waiter stands in one line, and its session knows.
fn lines(table: &Value) {
    let mut waiters: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let mut all = BTreeSet::new();
    for line in map(table, "lines").values() {
        let line = line.as_object().unwrap();
        assert!(!line.is_empty());
        for (waiter, place) in line {
            let waiter = waiter.parse().unwrap();
            assert!(all.insert(waiter), "waiter {waiter} twice");
            let theirs = waiters.entry(number(&place["key"])).or_default();
            theirs.insert(waiter);
        }
    }
    for (waiter, _) in by_number(table, "granted") {
        assert!(all.insert(waiter), "waiter {waiter} twice");
    }
    for (key, session) in by_number(table, "sessions") {
        let theirs = waiters.remove(&key).unwrap_or_default();
        assert_eq!(numbers(&session["waiters"]), theirs, "session {key}");
    }
    assert!(waiters.is_empty(), "{waiters:?}");
}

/// The counts of entries inside claims are right, and their directories are a tree.
fn insides(table: &Value) {
    let mut links: BTreeMap<u64, u64> = BTreeMap::new();
    let mut claims: BTreeMap<u64, Inside> = BTreeMap::new();
    let children: BTreeMap<u64, &Value> = by_number(table, "children").collect();
    for (ino, child) in &children {
        let inside = claims.entry(number(&child["claim"])).or_default();
        inside.inodes.insert(*ino);
        inside.bytes += weight(&child["content"], INSIDE_MAX);
    }
    for (ino, inode) in by_number(table, "inodes") {
        assert!(!children.contains_key(&ino));
        weight(&inode["content"], BODY_MAX);
        let inside = claims.entry(ino).or_default();
        let mut seen = BTreeSet::new();
        let names = inode["names"].as_array().unwrap();
        assert!(!names.is_empty() || is_bare(&inode["content"]));
        let mut directories = vec![&inode["content"]];
        let unlinked = inside.inodes.iter().map(|ino| children[ino]);
        let unlinked = unlinked.filter(|child| number(&child["links"]) == 0);
        assert!(unlinked.map(|child| &child["content"]).all(is_bare));
        while let Some(content) = directories.pop() {
            let is_directory = content["shape"] == "Directory";
            let mut below = 0;
            let mut labels = BTreeSet::new();
            for (cookie, entry) in by_number(&content["entries"], "by_cookie") {
                let ino = number(&entry[1]);
                assert!(is_directory && inside.inodes.contains(&ino));
                assert!(cookie > 0 && cookie <= number(&content["entries"]["next"]));
                assert!(labels.insert(entry[0].as_str().unwrap()));
                inside.entries += 1;
                *links.entry(ino).or_default() += 1;
                let content = &children[&ino]["content"];
                if content["shape"] == "Directory" {
                    below += 1;
                    assert!(seen.insert(ino), "directory {ino} has two names");
                    directories.push(content);
                }
            }
            assert_eq!(number(&content["entries"]["directories"]), below);
        }
        let below = &inode["below"];
        assert_eq!(numbers(&below["inodes"]), inside.inodes);
        assert_eq!(number(&below["entries"]), inside.entries);
        assert_eq!(number(&below["bytes"]), inside.bytes);
        claims.remove(&ino);
    }
    assert!(claims.is_empty(), "of no claim");
    for (ino, child) in children {
        let links = links.get(&ino).copied().unwrap_or_default();
        assert_eq!(number(&child["links"]), links, "inode {ino}");
    }
}

fn is_bare(content: &Value) -> bool {
    map(&content["entries"], "by_cookie").is_empty()
}

#[derive(Default)]
struct Inside {
    inodes: BTreeSet<u64>,
    entries: u64,
    bytes: u64,
}

/// How many bytes a content takes: what is no text stands there in digits, behind a NUL.
fn weight(content: &Value, room: u64) -> u64 {
    let length = |text: &Value| {
        let text = text.as_str().unwrap();
        let digits = text.strip_prefix('\0');
        digits.map_or(text.len(), |digits| digits.len().div_ceil(2)) as u64
    };
    let body = length(&content["body"]);
    assert!(number(&content["room"]) <= room && body <= room);
    assert!(body == 0 || content["shape"] == "File");
    let target = content["shape"].get("Symlink").map_or(0, length);
    let tags = content["tags"].as_object().unwrap().iter();
    let tags = tags.map(|(name, value)| name.len() as u64 + length(value));
    body + target + tags.sum::<u64>()
}
