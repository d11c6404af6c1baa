//! `cargo bench --bench guard`: whether claims have become slower. It compares a few calls with the
//! same calls on a filesystem that protects nothing, and with round trips to another process, all
//! of them pinned to one CPU and measured in turn in one run. It fails if one of these ratios is
//! worse than the stored one by more than a bound.
//!
//! `CLAIMFS_GUARD_BOUND=2` fails only what takes twice as long, for machines that are busy with
//! other things. `CLAIMFS_GUARD_STORE=1` stores the ratios of this run in `tests/bench/guard.txt`.
#![allow(
    unsafe_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, process};

#[path = "calls.rs"]
mod calls;
#[path = "common.rs"]
mod common;
#[path = "fresh.rs"]
mod fresh;
#[path = "null.rs"]
mod null;
#[path = "../support/mod.rs"]
mod support;

use calls::{Control, Echo, c_path, claim_and_release, contended, time};
use fresh::fresh;
use null::Floor;

const ROUNDS: usize = 21;
const CALLS: u32 = 200;
/// A fresh process takes a hundred times as long.
const FRESH: u32 = 20;

/// A ratio may be worse by so much than the stored one.
const BOUND: f64 = 1.1;

/// The stored ratios: a build, what was measured and the ratio, a line each.
const STORED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/guard.txt");

/// Unoptimised code is compared with such code.
const BUILD: &str = if cfg!(debug_assertions) {
    "dev"
} else {
    "release"
};

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The ratios of this run, each the median of those of the rounds.
fn measure() -> Vec<(&'static str, f64)> {
    common::pin();
    let server = common::mount();
    let (claims, floor) = (server.mount().join("claims"), Floor::mount(1));
    fs::write(floor.dir.join("held"), "").unwrap_or_default();
    let [ours, null] = [&claims, &floor.dir].map(|dir| (c_path(dir, "held"), c_path(dir, "free")));
    let (control, mut echo) = (Control::open(&server.mount()), Echo::start());
    let whats = [
        "refused claim / null",
        "claim + release / null",
        "claim + release / two round trips",
        "claim + release by control / two round trips",
        "claim + release by a fresh process / null",
    ];
    let mut ratios = [const { Vec::new() }; 5];
    for round in 0..=ROUNDS {
        let trips = time(CALLS, || {
            echo.ping();
            echo.ping();
        });
        let refused = [&ours, &null].map(|(held, _)| time(CALLS, || contended(held)));
        let pair = [&ours, &null].map(|(_, free)| time(CALLS, || claim_and_release(free)));
        let written = time(CALLS, || control.pair());
        let firsts = [&claims, &floor.dir].map(|dir| {
            let mut firsts: Vec<f64> = (0..FRESH).map(|_| fresh(dir, None)).collect();
            median(&mut firsts)
        });
        // The first warms up.
        if round > 0 {
            let found = [
                refused[0] / refused[1],
                pair[0] / pair[1],
                pair[0] / trips,
                written / trips,
                firsts[0] / firsts[1],
            ];
            for (ratios, ratio) in ratios.iter_mut().zip(found) {
                ratios.push(ratio);
            }
        }
    }
    let medians = ratios.map(|mut ratios| median(&mut ratios));
    whats.into_iter().zip(medians).collect()
}

/// The stored ratios of one build.
fn stored(build: &str) -> BTreeMap<String, f64> {
    let text = fs::read_to_string(STORED).unwrap();
    let line = |line: &str| {
        let (line_of, rest) = line.split_once(": ")?;
        let (what, ratio) = rest.rsplit_once(' ')?;
        (line_of == build).then(|| (what.trim().to_owned(), ratio.parse().unwrap()))
    };
    text.lines().filter_map(line).collect()
}

fn store(ratios: &[(&str, f64)]) {
    let mut text = String::new();
    for build in ["dev", "release"] {
        let kept = stored(build);
        let new = ratios
            .iter()
            .map(|(what, ratio)| ((*what).to_owned(), *ratio));
        let all = if build == BUILD { new.collect() } else { kept };
        for (what, ratio) in all {
            writeln!(text, "{build}: {what} {ratio:.2}").unwrap();
        }
    }
    fs::write(STORED, text).unwrap();
}

fn main() {
    if calls::play() || null::play() || fresh::play() {
        return;
    }
    if !Path::new("/dev/fuse").exists() {
        println!("SKIP: there is no /dev/fuse");
        return;
    }
    let ratios = measure();
    if env::var_os("CLAIMFS_GUARD_STORE").is_some() {
        store(&ratios);
    }
    let bound = env::var("CLAIMFS_GUARD_BOUND");
    let bound = bound.map_or(BOUND, |bound| bound.parse().unwrap());
    let stored = stored(BUILD);
    println!("{:48} {:>6} {:>7}", BUILD, "ratio", "stored");
    let mut is_slower = false;
    for (what, ratio) in ratios {
        let before = stored.get(what).copied().unwrap_or(f64::INFINITY);
        let verdict = match ratio / before {
            change if change > bound => "SLOWER",
            change if change < 1.0 / BOUND => "faster: store it",
            _ => "",
        };
        is_slower |= verdict == "SLOWER";
        println!("{what:48} {ratio:6.2} {before:7.2} {verdict}");
    }
    if is_slower {
        println!("slower than stored by more than {bound} times; see {STORED}");
        process::exit(1);
    }
}
