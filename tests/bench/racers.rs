//! `cargo bench --bench racers`: the race that everybody loses. Eight processes are released
//! together on a fresh name, and on a name whose holder has just died. How often does exactly one
//! of them win, how often do two believe that they hold it, how often does nobody get it? On
//! claimfs, and by the usual ways on a tmpfs beside it.
//!
//! `RACERS_ROUNDS=50 cargo bench --bench racers -- 'kill -0' filelock` is shorter: only clients
//! with such names, and fewer rounds. `.ci/run` installs the libraries; what is missing is named.
#![allow(
    unsafe_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout
)]

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{env, process};

#[path = "common.rs"]
mod common;
#[path = "play.rs"]
mod play;
#[path = "race.rs"]
mod race;
#[path = "../support/mod.rs"]
mod support;

use race::{Answer, BASH, Client, DASH, PYTHON, Race, racer};

macro_rules! installed {
    ($path:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/", $path)
    };
}

static RAW: Client = Client {
    name: "raw open(2), O_EXCL",
    probe: &["true"],
    words: &["/proc/self/exe"],
    named: true,
    ..DASH
};
static PIDFILE: Client = Client {
    name: "sh: pid file, kill -0, rm, set -C",
    words: &["dash", racer!("racer.sh"), "pidfile"],
    named: true,
    ..DASH
};
static FILELOCK: Client = Client {
    name: "Python filelock: SoftFileLock",
    probe: &[installed!("venv/bin/python"), "-c", "import filelock"],
    words: &[
        installed!("venv/bin/python"),
        racer!("racer.py"),
        "filelock",
    ],
    nests: true,
    ..DASH
};
static PROPER_LOCKFILE: Client = Client {
    name: "node proper-lockfile",
    probe: &["node", "-e", "require('proper-lockfile')"],
    words: &["node", racer!("racer.js")],
    variables: &[("NODE_PATH", installed!("usr/share/nodejs"))],
    named: true,
    ..DASH
};
static NOCLOBBER: Client = DASH;
static NOCLOBBER_OF_BASH: Client = BASH;
static OPEN: Client = PYTHON;

/// How one round in which the name had a holder goes.
#[derive(Clone, Copy)]
struct Stale {
    /// How long a racer tries for it.
    patience: Duration,
    /// Whether what the dead left is made as old as it must be to count as stale.
    aged: bool,
    /// One of so many rounds, where each takes long.
    of_rounds: usize,
    remark: &'static str,
}

const ONCE: Stale = Stale {
    patience: Duration::ZERO,
    aged: false,
    of_rounds: 1,
    remark: "",
};
/// It breaks a stale lock in one try and takes it in a later one.
const POLLS: Stale = Stale {
    patience: Duration::from_millis(200),
    ..ONCE
};
const FOR_A_SECOND: Stale = Stale {
    patience: Duration::from_secs(1),
    of_rounds: 10,
    remark: ", for 1 s after the death",
    ..ONCE
};
const AGED: Stale = Stale {
    aged: true,
    remark: ", once its 2 s are over",
    ..ONCE
};

const ROWS: [(&Client, bool, Stale); 12] = [
    (&NOCLOBBER, true, ONCE),
    (&NOCLOBBER_OF_BASH, true, ONCE),
    (&OPEN, true, ONCE),
    (&RAW, true, ONCE),
    (&PIDFILE, true, ONCE),
    (&FILELOCK, true, POLLS),
    (&PROPER_LOCKFILE, true, ONCE),
    (&NOCLOBBER, false, ONCE),
    (&PIDFILE, false, ONCE),
    (&FILELOCK, false, POLLS),
    (&PROPER_LOCKFILE, false, FOR_A_SECOND),
    (&PROPER_LOCKFILE, false, AGED),
];

/// Rounds with exactly one winner, with more, with none; and what went wrong besides.
#[derive(Default)]
struct Count {
    one: usize,
    more: usize,
    none: usize,
    complaints: BTreeMap<String, usize>,
}

impl Count {
    fn add(&mut self, answers: &[Answer], complaints: Vec<String>) {
        match answers
            .iter()
            .filter(|answer| **answer == Answer::Won)
            .count()
        {
            0 => self.none += 1,
            1 => self.one += 1,
            _ => self.more += 1,
        }
        let failures = answers.iter().filter_map(|answer| match answer {
            Answer::Failed(text) => Some(text.clone()),
            _ => None,
        });
        for text in failures.chain(complaints) {
            // Names and numbers apart, it is the same each time.
            let text = text.replace(|letter: char| letter.is_ascii_digit(), "#");
            *self.complaints.entry(text).or_default() += 1;
        }
    }

    fn cell(&self) -> String {
        format!("{} / {} / {}", self.one, self.more, self.none)
    }
}

/// A directory on tmpfs, gone when this is dropped.
struct Shm(PathBuf);

impl Shm {
    fn new(what: &str) -> Self {
        let path = format!("/dev/shm/claimfs-bench-{what}-{}", process::id());
        fs::create_dir(&path).unwrap();
        Self(path.into())
    }

    /// Removes what a round has left: each is to begin like the first.
    fn clear(&self) {
        for entry in fs::read_dir(&self.0).unwrap() {
            let path = entry.unwrap().path();
            _ = fs::remove_dir(&path).or_else(|_| fs::remove_file(&path));
        }
    }
}

impl Drop for Shm {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn age(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let then = SystemTime::now() - Duration::from_secs(10);
        let times = FileTimes::new().set_modified(then);
        let file = File::open(entry.unwrap().path()).unwrap();
        file.set_times(times).unwrap();
    }
}

/// Both kinds of rounds of a client in a directory.
fn measure(
    client: &'static Client,
    dir: &Path,
    clear: impl Fn(),
    stale: Stale,
    rounds: usize,
) -> [Count; 2] {
    let scratch = Shm::new("gates");
    let mut race = Race::start(client, dir, &scratch.0);
    let [mut fresh, mut dead] = [Count::default(), Count::default()];
    for round in 0..rounds {
        let answers = race.run(&format!("n{round}"), Duration::ZERO);
        fresh.add(&answers, race.end());
        clear();
    }
    for _ in 0..(rounds / stale.of_rounds).max(1) {
        race.die_holding("x");
        if stale.aged {
            age(dir);
        }
        let answers = race.run("x", stale.patience);
        dead.add(&answers, race.end());
        clear();
    }
    [fresh, dead]
}

fn main() {
    if play::play() {
        return;
    }
    if !Path::new("/dev/fuse").exists() {
        println!("SKIP: there is no /dev/fuse");
        return;
    }
    let rounds = env::var("RACERS_ROUNDS").map_or(1000, |rounds| rounds.parse().unwrap());
    // An agent above this bench would be everybody's session.
    let server = common::mount_with(&env::temp_dir(), &["--no-agents"]);
    let claims = server.mount().join("claims");
    let tmpfs = Shm::new("racers");
    println!(
        "{rounds} rounds each, {} racers: rounds with one winner / two or more / nobody\n",
        race::RACERS
    );
    println!("| client | where | a fresh name | a dead holder's name |");
    println!("|---|---|---|---|");
    let (mut missing, mut complaints) = (Vec::new(), Vec::new());
    // Cargo says '--bench' too.
    let only: Vec<String> = env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    for (client, ours, stale) in ROWS {
        if !only.is_empty() && !only.iter().any(|part| client.name.contains(part)) {
            continue;
        }
        let place = if ours { "claimfs" } else { "tmpfs" };
        if !client.is_installed() {
            missing.push(format!("{} on {place}", client.name));
            continue;
        }
        let [fresh, dead] = if ours {
            measure(client, &claims, || {}, stale, rounds)
        } else {
            measure(client, &tmpfs.0, || tmpfs.clear(), stale, rounds)
        };
        let name = format!("{}{}", client.name, stale.remark);
        println!("| {name} | {place} | {} | {} |", fresh.cell(), dead.cell());
        for (text, count) in fresh.complaints.into_iter().chain(dead.complaints) {
            complaints.push(format!("{name} on {place}: {count} times {text}"));
        }
    }
    println!();
    for name in missing {
        println!("not installed, and so not measured: {name}");
    }
    for complaint in complaints {
        println!("neither won nor lost: {complaint}");
    }
}
