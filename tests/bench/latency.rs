//! `cargo bench`: what a lookup, a contended claim, and a claim with its release cost, beside the
//! same calls on a bare tmpfs (no protection at all) and a ping-pong over a unix socket (two
//! switches between processes: the floor of any server). Everything is pinned to one CPU and
//! measured in turn in one run; the figures are medians.
#![allow(
    unsafe_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout
)]

use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "calls.rs"]
mod calls;
#[path = "common.rs"]
mod common;
#[path = "null.rs"]
mod null;
#[path = "../support/mod.rs"]
mod support;

use calls::{Echo, c_path, claim_and_release, contended, lookup, time};
use common::{mount, mount_with_state, pin};
use null::Floor;

const ROUNDS: usize = 15;
const CALLS: u32 = 2000;

fn main() {
    if calls::play() || null::play() {
        return;
    }
    if !Path::new("/dev/fuse").exists() {
        println!("SKIP: there is no /dev/fuse");
        return;
    }
    pin();
    let server = mount();
    let claims = server.mount().join("claims");
    let other = mount_with_state(Path::new("/dev/shm"));
    let in_memory = c_path(&other.mount().join("claims"), "free");
    let floor = Floor::mount(1);
    fs::write(floor.dir.join("held"), "").unwrap_or_default();
    let plain = PathBuf::from(format!("/dev/shm/claimfs-bench-{}", std::process::id()));
    fs::create_dir(&plain).unwrap();
    fs::write(plain.join("held"), "\n").unwrap();
    let mut echo = Echo::start();

    let rows = ["lookup", "contended claim", "claim + release"];
    let mut figures = vec![Vec::new(); 11];
    for _ in 0..ROUNDS {
        for (column, dir) in [&claims, &plain].into_iter().enumerate() {
            let (held, free) = (c_path(dir, "held"), c_path(dir, "free"));
            figures[column].push(time(CALLS, || lookup(&held)));
            figures[2 + column].push(time(CALLS, || contended(&held)));
            figures[4 + column].push(time(CALLS, || claim_and_release(&free)));
        }
        let (held, free) = (c_path(&floor.dir, "held"), c_path(&floor.dir, "free"));
        figures[8].push(time(CALLS, || lookup(&held)));
        figures[9].push(time(CALLS, || contended(&held)));
        figures[10].push(time(CALLS, || claim_and_release(&free)));
        figures[6].push(time(CALLS, || echo.ping()));
        figures[7].push(time(CALLS, || claim_and_release(&in_memory)));
    }
    fs::remove_dir_all(&plain).unwrap();

    let medians: Vec<f64> = figures
        .into_iter()
        .map(|mut figures| {
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        })
        .collect();
    let ping = medians[6];
    println!(
        "pinned to one CPU, median of {ROUNDS} rounds of {CALLS} calls, in microseconds a call"
    );
    println!(
        "{:16} {:>9} {:>9} {:>9} {:>15} {:>20}",
        "", "claimfs", "null", "tmpfs", "claimfs / null", "claimfs / ping-pong"
    );
    for (index, row) in rows.iter().enumerate() {
        let (ours, tmpfs) = (medians[2 * index], medians[2 * index + 1]);
        let null = medians[8 + index];
        println!(
            "{row:16} {ours:9.2} {null:9.2} {tmpfs:9.2} {:>15.2} {:>20.2}",
            ours / null,
            ours / ping
        );
    }
    println!("{:16} {ping:9.2}", "unix ping-pong");
    println!(
        "claim + release with --state-dir on tmpfs: {:.2}, and so {:.2} of that on {}",
        medians[7],
        medians[7] / medians[4],
        env::temp_dir().display()
    );
}
