//! `cargo bench --bench scale`: whether a claim costs the same however much is held and however
//! many wait, live by deadlines or read `events` (`curves.rs`), how long a listing takes, what a
//! lease takes of memory, what the death of a session with 100,000 leases costs, and what eight
//! clients get done at once. Targets are ratios where they can be, taken in turn in one run. The
//! charts are `target/bench/scale*.svg`.
#![allow(
    unsafe_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

#[allow(dead_code)]
#[path = "chart.rs"]
mod chart;
#[path = "common.rs"]
mod common;
#[path = "crowds.rs"]
mod crowds;
#[path = "curves.rs"]
mod curves;
#[allow(dead_code)]
#[path = "measure.rs"]
mod measure;
#[path = "null.rs"]
mod null;
#[allow(dead_code)]
#[path = "people.rs"]
mod people;
#[path = "../support/mod.rs"]
mod support;
#[path = "watch.rs"]
mod watch;

use common::{Server, mount, pin, unpin};
use measure::Target::{AtLeast, AtMost, Told};
use measure::{
    c_path, claim, claim_and_release, heading, line, median, memory, micros, number, quantile, time,
};
use null::Floor;
use people::{Helper, lease};

const BATCHES: usize = 25;
const CALLS: u32 = 400;
const SIZES: [usize; 4] = [10, 1000, 10_000, 100_000];
/// With this variable, the last curve goes on to a million leases, which takes minutes.
const MILLION: &str = "CLAIMFS_BENCH_MILLION";
const MANY: usize = 100_000;

/// The bound of the cost of claiming with many leases, relative to that with few.
const LIMIT: f64 = 1.3;

/// A mount with so many leases of one session.
struct Crowded {
    server: Server,
    crowd: Helper,
    count: usize,
}

impl Crowded {
    fn new(count: usize) -> Self {
        let server = mount();
        let crowd = Helper::start("crowd", "crowd", &server.mount());
        let mut crowded = Self {
            server,
            crowd,
            count: 0,
        };
        crowded.grow(count);
        crowded
    }

    /// The longest that a claim took, in microseconds.
    fn grow(&mut self, count: usize) -> f64 {
        let order = format!("{} {count}", self.count);
        self.count = count;
        self.crowd.ask(&order)
    }
}

/// What claiming costs on each of two mounts, in turn: the medians of a claim with its release, and
/// of a contended claim.
fn beside(mounts: [&Path; 2], contended: &str) -> [[f64; 2]; 2] {
    let mut figures = [const { [const { Vec::new() }; 2] }; 2];
    for _ in 0..BATCHES {
        for (index, mount) in mounts.iter().enumerate() {
            let free = c_path(&mount.join("claims/free"));
            let held = c_path(&mount.join("claims").join(contended));
            figures[0][index].push(time(CALLS, || claim_and_release(&free)));
            figures[1][index].push(time(CALLS, || assert!(!claim(&held))));
        }
    }
    figures.map(|pair| pair.map(|mut figures| median(&mut figures)))
}

fn by_leases() {
    let few = Crowded::new(SIZES[0]);
    let mut many = Crowded::new(SIZES[0]);
    let mut costs = Vec::new();
    let million = std::env::var_os(MILLION).map(|_| 10 * MANY);
    for size in SIZES.into_iter().chain(million) {
        let longest = many.grow(size);
        let mounts = [few.server.mount(), many.server.mount()];
        let [pair, contended] = beside([&mounts[0], &mounts[1]], &lease(0));
        let what = format!("claim + release beside {size} leases, to that beside 10");
        line(&what, pair[1] / pair[0], AtMost(LIMIT));
        let what = format!("contended claim beside {size} leases, to that beside 10");
        line(&what, contended[1] / contended[0], AtMost(LIMIT));
        line("  claim + release beside 10, microseconds", pair[0], Told);
        line(
            "  contended claim beside 10, microseconds",
            contended[0],
            Told,
        );
        if longest > 0.0 {
            line(
                "  longest claim until then, milliseconds",
                longest / 1e3,
                Told,
            );
        }
        // In terms of the first, so that the points are of one curve although the machine was not.
        costs.push((
            size as f64,
            [pair[1] / pair[0], contended[1] / contended[0]],
        ));
    }
    let title = "What claiming costs beside so many leases, to what it costs beside 10";
    let series = ["claim + release", "contended claim"];
    let svg = chart::curves(title, series, LIMIT, &costs);
    println!("{}", chart::write("scale.svg", &svg).display());
}

fn by_sessions() {
    let (few, many) = (mount(), mount());
    let mut nurseries =
        [&few, &many].map(|server| Helper::start("nursery", "nursery", &server.mount()));
    nurseries[0].ask("0 10");
    nurseries[1].ask("0 10000");
    let sessions = number(&many.mount().join("metrics"), "claimfs_sessions ");
    assert!(sessions >= 10_000, "{sessions} sessions");
    let mounts = [few.mount(), many.mount()];
    let [pair, contended] = beside([&mounts[0], &mounts[1]], "sleeper-3");
    let what = "claim + release beside 10000 sessions with a lease each, to that beside 10";
    line(what, pair[1] / pair[0], AtMost(LIMIT));
    let what = "contended claim beside 10000 sessions, to that beside 10";
    line(what, contended[1] / contended[0], AtMost(LIMIT));
    line("  claim + release beside 10, microseconds", pair[0], Told);
    line(
        "  contended claim beside 10, microseconds",
        contended[0],
        Told,
    );
}

/// As `ls -l` does it: each entry is asked for when it is read.
fn walk(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).unwrap();
    let seen = entries.map(|entry| fs::symlink_metadata(entry.unwrap().path()).unwrap());
    seen.count()
}

fn ls(dir: &Path) -> usize {
    let out = Command::new("ls").arg("-l").arg(dir).output().unwrap();
    assert!(out.status.success());
    // The first line is the total.
    String::from_utf8(out.stdout).unwrap().lines().count() - 1
}

fn listing(claims: &Path, plain: &Path) {
    for what in ["getdents and lstat", "ls -l"] {
        let mut figures = [const { Vec::new() }; 2];
        for _ in 0..5 {
            for (dir, figures) in [claims, plain].into_iter().zip(&mut figures) {
                let start = Instant::now();
                let seen = if what == "ls -l" { ls(dir) } else { walk(dir) };
                assert!(seen >= MANY, "{seen} entries of {}", dir.display());
                figures.push(micros(start.elapsed()) / 1e6);
            }
        }
        let [ours, tmpfs] = figures.map(|mut figures| median(&mut figures));
        line(
            &format!("{what} of {MANY} leases, to tmpfs"),
            ours / tmpfs,
            AtMost(2.5),
        );
        line("  on tmpfs, seconds", tmpfs, Told);
    }
}

fn memory_and_listing() {
    let mut crowded = Crowded::new(0);
    let [_, server] = crowded.server.pids();
    let before = memory(server);
    crowded.grow(MANY);
    let each = (memory(server) - before) / MANY as f64;
    line(
        "memory of the server a lease, of 100000, bytes",
        each,
        AtMost(600.0),
    );
    let plain = PathBuf::from(format!("/dev/shm/claimfs-bench-{}", std::process::id()));
    fs::create_dir(&plain).unwrap();
    for number in 0..MANY {
        fs::write(plain.join(lease(number)), "").unwrap();
    }
    listing(&crowded.server.mount().join("claims"), &plain);
    fs::remove_dir_all(&plain).unwrap();
    crowded.grow(10 * MANY);
    let each = (memory(server) - before) / (10 * MANY) as f64;
    line(
        "memory of the server a lease, of 1000000, bytes",
        each,
        AtMost(600.0),
    );
}

/// A client that claims and releases all the time: when each began, and what it took in
/// microseconds.
fn bystander(mount: &Path, stop: &AtomicBool) -> Vec<(Instant, f64)> {
    let path = c_path(&mount.join("claims/bystander"));
    let mut calls = Vec::new();
    while !stop.load(Relaxed) {
        let start = Instant::now();
        claim_and_release(&path);
        calls.push((start, micros(start.elapsed())));
    }
    calls
}

/// What somebody gets who claims a name of each hundred at once.
fn heirs() {
    let mut crowded = Crowded::new(MANY);
    let mount = crowded.server.mount();
    crowded.crowd.kill();
    let mut refused = 0;
    // A stride that is prime to their number meets no name twice.
    let sample = (0..1000).map(|number| lease((number * 77_773 + 12_345) % MANY));
    let mut took: Vec<f64> = sample
        .map(|name| {
            let path = c_path(&mount.join("claims").join(name));
            let start = Instant::now();
            refused += u32::from(!claim(&path));
            micros(start.elapsed())
        })
        .collect();
    let what = "names refused at the first try after the death of their session, of 1000";
    line(what, f64::from(refused), AtMost(0.0));
    line("  a try: median, microseconds", median(&mut took), Told);
    line("  a try: p99, microseconds", quantile(&mut took, 990), Told);
}

/// What somebody gets who claims something else meanwhile.
fn death() {
    let mut crowded = Crowded::new(MANY);
    let mount = crowded.server.mount();
    let metrics = mount.join("metrics");
    let watch = watch::start(&mount.join("claims"), "lease-");
    let stop = AtomicBool::new(false);
    let (mut calls, begun, start, died, swept) = thread::scope(|scope| {
        let calls = scope.spawn(|| bystander(&mount, &stop));
        thread::sleep(Duration::from_secs(1));
        let begun = Instant::now();
        thread::sleep(Duration::from_secs(1));
        let start = Instant::now();
        crowded.crowd.kill();
        let died = Instant::now();
        while number(&metrics, "claimfs_reaps_total ") < MANY as u64 {
            thread::sleep(Duration::from_millis(2));
        }
        let swept = Instant::now();
        thread::sleep(Duration::from_secs(2));
        stop.store(true, Relaxed);
        (calls.join().unwrap(), begun, start, died, swept)
    });
    let seconds = (swept - died).as_secs_f64();
    line(
        "death of 100000 leases until all are recorded, seconds",
        seconds,
        AtMost(2.0),
    );
    let mut part = |from: Instant, to: Instant| -> [f64; 2] {
        let within = calls.iter_mut().filter(|(at, _)| *at >= from && *at < to);
        let mut took: Vec<f64> = within.map(|(_, took)| *took).collect();
        [median(&mut took), quantile(&mut took, 990)]
    };
    let before = part(begun, start);
    let during = part(died, swept);
    let after = part(swept, swept + Duration::from_secs(2));
    for (index, which) in ["median", "p99"].into_iter().enumerate() {
        let what = format!("a bystander's claim + release meanwhile, to before: {which}");
        line(&what, during[index] / before[index], AtMost(2.0));
        line("  before, microseconds", before[index], Told);
        let what = "  while inotify is told, to before";
        line(what, after[index] / before[index], Told);
    }
    let told = watch.join().unwrap();
    line("  names that inotify is told of", told.names as f64, Told);
    if let Some(last) = told.last {
        line(
            "  the last of them, seconds after the death",
            (last - died).as_secs_f64(),
            Told,
        );
    }
}

fn concurrent() {
    let (server, floor) = (mount(), Floor::mount(2));
    let dirs = [server.mount().join("claims"), floor.dir.clone()];
    let mut clients = dirs.map(|dir| {
        let client = |number| {
            let name = format!("client-{number}");
            Helper::start("client", &name, &dir.join(&name))
        };
        (0..8).map(client).collect::<Vec<Helper>>()
    });
    let mut figures = [const { Vec::new() }; 2];
    for _ in 0..BATCHES {
        for (clients, figures) in clients.iter_mut().zip(&mut figures) {
            for client in clients.iter_mut() {
                client.tell("500");
            }
            figures.push(clients.iter_mut().map(Helper::answer).sum::<f64>());
        }
    }
    let [ours, null] = figures.map(|mut figures| median(&mut figures));
    let what = "8 clients at once, claims + releases a second, to the null filesystem";
    line(what, ours / null, AtLeast(0.8));
    line("  of claimfs", ours, Told);
}

fn main() {
    if crowds::is_helper() || people::is_helper() || null::play() {
        return;
    }
    if !Path::new("/dev/fuse").exists() {
        println!("SKIP: there is no /dev/fuse");
        return;
    }
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let is_wanted = |part: &str| wanted.is_empty() || wanted.iter().any(|word| word == part);
    heading();
    if is_wanted("concurrent") {
        concurrent();
    }
    if is_wanted("memory") {
        memory_and_listing();
    }
    pin();
    if is_wanted("leases") {
        by_leases();
    }
    if is_wanted("sessions") {
        by_sessions();
    }
    curves::all(is_wanted);
    unpin();
    // Last, as watchers are told for minutes.
    if is_wanted("death") {
        heirs();
        death();
    }
}
