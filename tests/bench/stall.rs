//! `cargo bench --bench stall`: how long a claim waits while 100,000 leases are held, and the
//! journal is compacted, the leases are listed, `metrics` is read and a session of 50,000 more
//! dies. By the server's own clock, from reading a request to writing its answer, and by the
//! client's.
//! `CLAIMFS_BENCH_LEASES=1000000` says of how many.
#![allow(
    unsafe_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

#[path = "common.rs"]
mod common;
#[allow(dead_code)]
#[path = "measure.rs"]
mod measure;
#[allow(dead_code)]
#[path = "people.rs"]
mod people;
#[path = "../support/mod.rs"]
mod support;

use common::{Server, mount_with};
use measure::Target::{AtLeast, AtMost, Told};
use measure::{c_path, claim, heading, line, memory, micros, number, release};
use people::Helper;

/// How often a name is claimed and released: `CLAIMFS_BENCH_PAIRS` says otherwise.
const PAIRS: usize = 100_000;

/// The pauses of those who list, and of one who writes bodies: all else is to have its turn too.
const LOOK: Duration = Duration::from_millis(20);
const WRITE: Duration = Duration::from_millis(1);

/// The samples of a histogram by the upper bounds of its buckets, in milliseconds.
fn buckets(metrics: &str, name: &str) -> BTreeMap<u64, u64> {
    let begin = format!("{name}_bucket{{le=\"");
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(&begin));
    let samples = lines.map(|line| {
        let (bound, count) = line.split_once("\"} ").unwrap();
        let bound = bound.parse::<f64>().unwrap();
        let micros = if bound.is_finite() { bound * 1e6 } else { 1e12 };
        (micros.round() as u64, count.parse().unwrap())
    });
    samples.collect()
}

/// The bound of the bucket below which 99.99 % of what came between two readings lies, in
/// milliseconds.
fn bound(before: &str, after: &str, name: &str) -> f64 {
    let (before, after) = (buckets(before, name), buckets(after, name));
    let came = |bound: &u64| after[bound] - before[bound];
    let all = came(after.keys().last().unwrap()) as f64;
    let within = after
        .keys()
        .find(|bound| came(bound) as f64 >= 0.9999 * all);
    *within.unwrap() as f64 / 1e3
}

/// What listers do until they are stopped: how often each did.
fn look(server: &Server, stop: &AtomicBool) -> [u32; 3] {
    let mount = server.mount();
    let mut counts = [0; 3];
    thread::scope(|scope| {
        let parts = ["claims", "leases", "metrics"].into_iter().zip(&mut counts);
        for (what, count) in parts {
            let path = mount.join(what);
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    *count += u32::from(if what == "claims" {
                        fs::read_dir(&path).unwrap().count() > 0
                    } else {
                        read(&path)
                    });
                    thread::sleep(LOOK);
                }
            });
        }
    });
    counts
}

/// Reads a file to its end: whether that came. A text that is longer than all that is kept for a
/// uid may go before it was read.
fn read(path: &Path) -> bool {
    match fs::read(path) {
        Ok(text) => !text.is_empty(),
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
            false
        }
    }
}

/// Writes bodies, which the journal keeps until it is written anew. How often it was meanwhile.
fn rewrite(server: &Server, stop: &AtomicBool) -> u32 {
    let (body, path) = (vec![b'x'; 60_000], server.mount().join("claims/body"));
    let journal = server.state().join("journal");
    let inode = || fs::metadata(&journal).map_or(0, |metadata| metadata.ino());
    let (mut last, mut count) = (inode(), 0);
    while !stop.load(Relaxed) {
        fs::write(&path, &body).unwrap();
        thread::sleep(WRITE);
        let now = inode();
        if now != last {
            (last, count) = (now, count + 1);
        }
    }
    count
}

/// Claims and releases a name: what each call took, in milliseconds.
fn bystander(mount: &Path) -> Vec<f64> {
    let pairs = number_in("CLAIMFS_BENCH_PAIRS", PAIRS);
    let path = c_path(&mount.join("claims/bystander"));
    let mut took = Vec::with_capacity(2 * pairs);
    let timed = |call: &dyn Fn()| {
        let start = Instant::now();
        call();
        micros(start.elapsed()) / 1e3
    };
    for _ in 0..pairs {
        took.push(timed(&|| assert!(claim(&path))));
        took.push(timed(&|| release(&path)));
    }
    took.sort_by(f64::total_cmp);
    took
}

fn main() {
    if people::is_helper() {
        return;
    }
    if !Path::new("/dev/fuse").exists() {
        println!("SKIP: there is no /dev/fuse");
        return;
    }
    let leases = number_in("CLAIMFS_BENCH_LEASES", 100_000);
    let most = if leases > 100_000 { 100.0 } else { 20.0 };
    let dying = leases / 2;
    let server = mount_with(&std::env::temp_dir(), &["--max-leases", "3000000"]);
    let mount = server.mount();
    heading();
    let mut crowd = Helper::start("host", "crowd", &mount);
    let mut doomed = Helper::start("host", "doomed", &mount);
    let growing = crowd.ask(&format!("0 {leases}")) / 1e3;
    doomed.ask(&format!("{leases} {}", leases + dying));
    let metrics = || fs::read_to_string(mount.join("metrics")).unwrap();
    let [_, pid] = server.pids();
    let (held, before, stop) = (memory(pid), metrics(), AtomicBool::new(false));
    let (took, rewritten, looked, swept) = thread::scope(|scope| {
        let rewritten = scope.spawn(|| rewrite(&server, &stop));
        let looked = scope.spawn(|| look(&server, &stop));
        let took = scope.spawn(|| bystander(&mount));
        thread::sleep(Duration::from_millis(500));
        doomed.kill();
        let took = took.join().unwrap();
        let swept = number(&mount.join("metrics"), "claimfs_reaps_total ");
        stop.store(true, Relaxed);
        (
            took,
            rewritten.join().unwrap(),
            looked.join().unwrap(),
            swept,
        )
    });
    let after = metrics();
    let longest = number_of(&after, "claimfs_longest_answer_seconds ") * 1e3;
    let answers = bound(&before, &after, "claimfs_answer_duration_seconds");
    let last = |part: f64| took[((took.len() as f64 * part) as usize).min(took.len() - 1)];
    line("leases held", leases as f64, Told);
    line(
        "an answer by the server's clock: p99.99 below, ms",
        answers,
        AtMost(most),
    );
    line(
        "an answer by the server's clock: longest, ms",
        longest,
        AtMost(most),
    );
    line("a call by the client's clock: median, ms", last(0.5), Told);
    line(
        "a call by the client's clock: p99.99, ms",
        last(0.9999),
        Told,
    );
    line("a call by the client's clock: longest, ms", last(1.0), Told);
    line(
        "  before the journal was written anew beside the claims, ms",
        555.0,
        Told,
    );
    line(
        "  longest line of 100 claims while they were claimed, ms",
        growing,
        Told,
    );
    line(
        "  times the journal was written anew",
        f64::from(rewritten),
        AtLeast(1.0),
    );
    for (what, count) in ["ls", "leases", "metrics"].into_iter().zip(looked) {
        line(
            &format!("  times {what} was read"),
            f64::from(count),
            if leases > 100_000 { Told } else { AtLeast(1.0) },
        );
    }
    line(
        "  leases of the dead session recorded meanwhile",
        swept as f64,
        Told,
    );
    line(
        "  memory a lease before, bytes",
        held / (leases + dying) as f64,
        Told,
    );
    line(
        "  memory after it, to before",
        memory(pid) / held,
        AtMost(1.5),
    );
}

fn number_of(metrics: &str, word: &str) -> f64 {
    let mut lines = metrics.lines();
    let rest = lines.find_map(|line| line.strip_prefix(word));
    rest.map_or(0.0, |rest| rest.parse().unwrap())
}

fn number_in(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |number| number.parse().unwrap())
}
