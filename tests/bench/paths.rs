//! `cargo bench --bench paths`: a reservation with its release beside a claim with its release, a
//! hundred paths in one line of `control`, and both beside ten and beside 100,000 reservations. All
//! of it is pinned to one CPU and measured in turn in one run; medians of the rounds.
#![allow(
    unsafe_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout
)]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

#[allow(dead_code)]
#[path = "calls.rs"]
mod calls;
#[path = "common.rs"]
mod common;
#[path = "../support/mod.rs"]
mod support;

use calls::{c_path, claim_and_release, time};
use common::Server;

const ROUNDS: usize = 15;
const CALLS: u32 = 400;
const MANY: usize = 100_000;
const FEW: usize = 10;
/// The directories above the reservation that is timed.
const LEVELS: usize = 9;

fn line(dir: &Path, key: &str, paths: &[String]) {
    let mut control = OpenOptions::new()
        .write(true)
        .open(dir.join("control"))
        .unwrap();
    let line = serde_json::json!({ key: paths }).to_string() + "\n";
    control.write_all(line.as_bytes()).unwrap();
}

/// A mount on which so many paths are reserved, 100 in each directory.
fn mount(reserved: usize) -> Server {
    let server = common::mount();
    let dir = server.mount();
    let paths: Vec<String> = (0..reserved)
        .map(|at| format!("/held/{}/{at}", at / 100))
        .collect();
    for some in paths.chunks(250) {
        line(&dir, "reserve", some);
    }
    fs::create_dir_all(dir.join("paths").join(deep())).unwrap();
    server
}

fn deep() -> String {
    ["level"; LEVELS].join("/")
}

fn median(took: &mut [f64]) -> f64 {
    took.sort_by(f64::total_cmp);
    took[took.len() / 2]
}

fn main() {
    if !Path::new("/dev/fuse").exists() {
        println!("SKIP: there is no /dev/fuse");
        return;
    }
    common::pin();
    let mounts = [mount(FEW), mount(MANY)];
    let hundred: Vec<String> = (0..100)
        .map(|at| format!("/{}/line/{at}", deep()))
        .collect();
    let mut took = [const { [const { Vec::new() }; 3] }; 2];
    for _ in 0..ROUNDS {
        for (server, took) in mounts.iter().zip(&mut took) {
            let dir = server.mount();
            let claim = c_path(&dir, "claims/free");
            let path = c_path(&dir, &format!("paths/{}/free", deep()));
            took[0].push(time(CALLS, || claim_and_release(&claim)));
            took[1].push(time(CALLS, || claim_and_release(&path)));
            let start = Instant::now();
            line(&dir, "reserve", &hundred);
            took[2].push(start.elapsed().as_secs_f64() * 1e6);
            line(&dir, "unreserve", &hundred);
        }
    }
    let [mut few, mut many] = took;
    let few: Vec<f64> = few.iter_mut().map(|took| median(took)).collect();
    let many: Vec<f64> = many.iter_mut().map(|took| median(took)).collect();
    println!(
        "pinned to one CPU, {ROUNDS} rounds, microseconds: beside {FEW}, beside {MANY} reservations"
    );
    let rows = [
        "claim and release",
        "reserve and release, 10 levels",
        "reserve 100 in a line",
    ];
    for (at, what) in rows.into_iter().enumerate() {
        println!("{what:32} {:>9.1} {:>9.1}", few[at], many[at]);
    }
    let ratio = |what: &str, is: f64, most: f64| {
        let reached = if is <= most { "reached" } else { "missed" };
        println!("{what:56} {is:>6.2} <= {most} {reached}");
    };
    ratio("a reservation, of a claim", few[1] / few[0], 1.3);
    ratio("100 paths in a line, ms", few[2] / 1e3, 3.0);
    ratio(
        "a reservation beside 100,000, of one beside 10",
        many[1] / few[1],
        1.3,
    );
    ratio("100 paths in a line, the same", many[2] / few[2], 1.3);
}
