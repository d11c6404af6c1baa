//! `cargo bench --bench liveness`: that a name is free once its dead holder has been waited for,
//! how soon the next waiter runs, that nothing runs while nothing happens, and that claims and
//! releases leave nothing behind in memory or on disk.
#![allow(
    unsafe_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss
)]

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::mpsc;
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

use common::{mount, pin};
use measure::Target::{AtMost, Told};
use measure::{
    c_path, claim, claim_and_release, heading, line, median, memory, micros, quantile, release,
    size, switches,
};
use people::{Helper, Holder, end};

const DEATHS: usize = 10_000;
const GRANTS: usize = 1000;
const IDLE: Duration = Duration::from_secs(60);
const MILLION: usize = 1_000_000;
const MIB: f64 = 1024.0 * 1024.0;

/// From waitpid(2) to the claim.
fn deaths(mount: &Path) {
    let holder = Holder::new(mount, "dying", "x");
    let name = c_path(&mount.join("claims/x"));
    let (mut took, mut refused) = (Vec::new(), 0);
    for _ in 0..DEATHS {
        end(holder.start());
        let start = Instant::now();
        let granted = claim(&name);
        took.push(micros(start.elapsed()));
        if granted {
            release(&name);
        } else {
            refused += 1;
        }
    }
    let what = "claims refused right after waitpid of the holder, of 10000";
    line(what, f64::from(refused), AtMost(0.0));
    line(
        "  such a claim: median, microseconds",
        median(&mut took),
        Told,
    );
    line(
        "  such a claim: p99, microseconds",
        quantile(&mut took, 990),
        Told,
    );
}

fn until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::sleep(Duration::from_micros(200));
    }
}

/// How many wait.
fn waiters(mount: &Path) -> usize {
    let lines = fs::read_to_string(mount.join("waiters")).unwrap();
    lines.lines().count()
}

/// Reads a file in `queue/` until it ends, in poll(2) or in read(2) while there is nothing.
fn wait(mut line: File, polls: bool) {
    let mut buffer = [0; 999];
    loop {
        let mut poll = libc::pollfd {
            fd: line.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        if polls {
            assert_eq!(unsafe { libc::poll(&raw mut poll, 1, -1) }, 1);
        }
        if line.read(&mut buffer).unwrap() == 0 {
            return;
        }
    }
}

/// From the kill of a holder to the next waiter, a thread of this process.
fn grants(mount: &Path, polls: bool) {
    let holder = Holder::new(mount, "dying", "x");
    let mut took = Vec::new();
    let (order, orders) = mpsc::channel::<File>();
    let (sender, granted) = mpsc::channel();
    let waiter = thread::spawn(move || {
        sender
            .send((Instant::now(), unsafe { libc::gettid() }))
            .unwrap();
        for line in orders {
            wait(line, polls);
            sender.send((Instant::now(), 0)).unwrap();
        }
    });
    let (_, task) = granted.recv().unwrap();
    // Where the kernel says it, until it sleeps in the call.
    let sleeps = if polls { "poll" } else { "request_wait" };
    let place = format!("/proc/self/task/{task}/wchan");
    let is_asleep =
        || fs::read_to_string(&place).map_or(true, |place| place == "0" || place.contains(sleeps));
    for _ in 0..GRANTS {
        let pid = holder.start();
        order
            .send(File::open(mount.join("queue/x")).unwrap())
            .unwrap();
        until(|| waiters(mount) > 0 && is_asleep());
        let start = Instant::now();
        assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
        let (at, _) = granted.recv().unwrap();
        took.push(micros(at - start) / 1e3);
        assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
        fs::remove_file(mount.join("claims/x")).unwrap();
    }
    drop(order);
    waiter.join().unwrap();
    let way = if polls { "poll(2)" } else { "read(2)" };
    let what = format!("SIGKILL of the holder to the next, in {way}: median of 1000, milliseconds");
    line(&what, median(&mut took), AtMost(1.0));
    let what = format!("SIGKILL of the holder to the next, in {way}: p99, milliseconds");
    line(&what, quantile(&mut took, 990), AtMost(10.0));
}

/// The processes that run while 1,000 leases are held and ten wait.
fn idle(polls: bool, length: Duration) {
    let server = mount();
    let mount = server.mount();
    let mut crowd = Helper::start("crowd", "crowd", &mount);
    crowd.ask("0 1000");
    for number in 0..10 {
        let name = people::lease(number);
        let line = File::open(mount.join("queue").join(name)).unwrap();
        thread::spawn(move || wait(line, polls));
    }
    until(|| waiters(&mount) == 10);
    // The work that this has caused.
    thread::sleep(Duration::from_secs(2));
    let [supervisor, own] = server.pids();
    let before = [supervisor, own].map(switches);
    thread::sleep(length);
    let after = [supervisor, own].map(switches);
    let seconds = length.as_secs();
    let way = if polls { "poll(2)" } else { "read(2)" };
    let target = if polls { AtMost(0.0) } else { Told };
    let what = format!("switches to the server in {seconds} s, 1000 leases, 10 wait in {way}");
    line(&what, (after[1] - before[1]) as f64, target);
    let what = format!("switches to the supervisor in {seconds} s, the same");
    line(&what, (after[0] - before[0]) as f64, target);
    // The waiters are granted what they wait for, and end.
    crowd.kill();
    until(|| waiters(&mount) == 0);
}

/// A million claims and releases, of so many names.
fn growth(names: usize) {
    let server = mount();
    let mount = server.mount();
    let [_, pid] = server.pids();
    let run = |from: usize, to: usize| {
        let mut largest = 0;
        for number in from..to {
            let name = format!("name-{:07}", number % names);
            claim_and_release(&c_path(&mount.join("claims").join(name)));
            if number % 5000 == 0 {
                largest = largest.max(size(&server.state()));
            }
        }
        largest as f64 / MIB
    };
    let first = run(0, 10_000);
    let before = memory(pid);
    let largest = run(10_000, 10_000 + MILLION);
    let grown = (memory(pid) - before) / MIB;
    let what = format!("memory grown by 1000000 claims and releases of {names} names, MiB");
    line(&what, grown, AtMost(1.0));
    line("  before, MiB", before / MIB, Told);
    line(
        "  the state directory at its largest, MiB",
        largest,
        AtMost(first.max(8.0)),
    );
}

fn main() {
    if people::is_helper() {
        return;
    }
    if !Path::new("/dev/fuse").exists() {
        println!("SKIP: there is no /dev/fuse");
        return;
    }
    let words = std::env::args().skip(1);
    let wanted: Vec<String> = words.filter(|word| !word.starts_with('-')).collect();
    let is_wanted = |part: &str| wanted.is_empty() || wanted.iter().any(|word| word == part);
    heading();
    pin();
    if is_wanted("deaths") {
        let server = mount();
        deaths(&server.mount());
    }
    if is_wanted("grants") {
        for polls in [false, true] {
            let server = mount();
            grants(&server.mount(), polls);
        }
    }
    if is_wanted("idle") {
        idle(true, IDLE);
        idle(false, IDLE / 3);
    }
    if is_wanted("growth") {
        growth(1000);
        growth(MILLION);
    }
}
