//! `cargo bench --bench waiting`: from the end of a lease to the next waiter running, beside
//! flock(2) on tmpfs, where the kernel itself wakes the next. Everything is pinned to one CPU;
//! medians and 99th percentiles of one run.
#![allow(
    unsafe_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout
)]

#[path = "common.rs"]
mod common;
#[path = "../support/mod.rs"]
mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use support::Guard;

const ROUNDS: usize = 400;

/// A shell that takes a name with `take`, says so, and sleeps as the holder.
fn hold(dir: &Path, take: &str) -> Child {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{take} && echo held && exec sleep 600")]);
    shell.current_dir(dir).stdout(Stdio::piped());
    let mut shell = shell.env("CLAIMFS_SESSION", "first").spawn().unwrap();
    let mut line = String::new();
    let out = shell.stdout.take().unwrap();
    BufReader::new(out).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    shell
}

fn until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::sleep(Duration::from_micros(200));
    }
}

/// Whether somebody waits for x.
fn waits(dir: &Path) -> bool {
    !fs::read(dir.join("waiters")).unwrap().is_empty()
}

/// A thread that waits for x by poll(2): it sends the moment at which it had it.
fn poller(dir: &Path) -> mpsc::Receiver<Instant> {
    let mut line = File::open(dir.join("queue/x")).unwrap();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 999];
        loop {
            let mut poll = libc::pollfd {
                fd: line.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            assert_eq!(unsafe { libc::poll(&raw mut poll, 1, -1) }, 1);
            if line.read(&mut buffer).unwrap() == 0 {
                sender.send(Instant::now()).unwrap();
                return;
            }
        }
    });
    receiver
}

fn cat(dir: &Path) -> Child {
    let mut cat = Command::new("cat");
    cat.arg("queue/x").current_dir(dir).stdout(Stdio::null());
    cat.spawn().unwrap()
}

/// A process of a session of its own that takes x when it is asked to, and releases it when it is
/// asked again. A name that this process holds is its own: it would not wait for it.
const HOLDER: &str = "
import os, sys
for line in sys.stdin:
    if line == 'claim\\n':
        os.close(os.open('claims/x', os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        print('held', flush=True)
    else:
        os.unlink('claims/x')
";

struct Holder(Guard);

impl Holder {
    fn new(dir: &Path) -> Self {
        let mut python = Command::new("python3");
        python.args(["-c", HOLDER]).current_dir(dir);
        python.env("CLAIMFS_SESSION", "other");
        python.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(Guard::spawn(&mut python))
    }

    fn say(&mut self, word: &str) {
        let stdin = self.0.0.stdin.as_mut().unwrap();
        writeln!(stdin, "{word}").unwrap();
    }

    fn claim(&mut self) {
        self.say("claim");
        assert_eq!(self.0.line(), "held");
    }
}

fn release(dir: &Path) {
    fs::remove_file(dir.join("claims/x")).unwrap();
}

fn lock(file: &File) -> i32 {
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }
}

/// From the unlocking of a flock to the next who waits for it, a thread as above.
fn flock(file: &Path) -> Duration {
    let (own, other) = (File::create(file).unwrap(), File::open(file).unwrap());
    assert_eq!(lock(&own), 0);
    let (sender, receiver) = mpsc::channel();
    let (ready, is_ready) = mpsc::channel();
    thread::spawn(move || {
        ready.send(unsafe { libc::gettid() }).unwrap();
        assert_eq!(lock(&other), 0);
        sender.send(Instant::now()).unwrap();
    });
    let task = is_ready.recv().unwrap();
    let state = format!("/proc/self/task/{task}/wchan");
    until(|| fs::read_to_string(&state).is_ok_and(|wchan| wchan.contains("lock")));
    let start = Instant::now();
    unsafe { libc::flock(own.as_raw_fd(), libc::LOCK_UN) };
    receiver.recv().unwrap() - start
}

fn report(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |percent: usize| took[took.len() * percent / 100].as_secs_f64() * 1e6;
    println!("{what:48} {:>8.0} {:>8.0}", at(50), at(99));
}

fn main() {
    if !Path::new("/dev/fuse").exists() {
        println!("SKIP: there is no /dev/fuse");
        return;
    }
    common::pin();
    let server = common::mount();
    let dir = server.mount();
    let plain = format!("/dev/shm/claimfs-bench-{}", std::process::id());
    let mut other = Holder::new(&dir);
    let mut took = vec![Vec::new(); 5];
    for _ in 0..ROUNDS {
        other.claim();
        let granted = poller(&dir);
        until(|| waits(&dir));
        let start = Instant::now();
        other.say("release");
        took[0].push(granted.recv().unwrap() - start);
        release(&dir);

        other.claim();
        let mut waiting = cat(&dir);
        until(|| waits(&dir));
        let start = Instant::now();
        other.say("release");
        waiting.wait().unwrap();
        took[1].push(start.elapsed());
        release(&dir);

        let mut holder = hold(&dir, "set -C; echo > claims/x");
        let granted = poller(&dir);
        until(|| waits(&dir));
        let start = Instant::now();
        holder.kill().unwrap();
        took[2].push(granted.recv().unwrap() - start);
        holder.wait().unwrap();
        release(&dir);

        let mut holder = hold(&dir, "set -C; echo > claims/x");
        let mut waiting = cat(&dir);
        until(|| waits(&dir));
        let start = Instant::now();
        holder.kill().unwrap();
        waiting.wait().unwrap();
        took[3].push(start.elapsed());
        holder.wait().unwrap();
        release(&dir);

        took[4].push(flock(Path::new(&plain)));
    }
    fs::remove_file(&plain).unwrap();
    println!("pinned to one CPU, {ROUNDS} rounds, microseconds: median, 99th percentile");
    let rows = [
        "unlink(2) by another to the next, by poll",
        "unlink(2) by another to the end of the next cat",
        "SIGKILL of the holder to the next, by poll",
        "SIGKILL of the holder to the end of the next cat",
        "flock on tmpfs: unlock to the next",
    ];
    for (what, took) in rows.into_iter().zip(took) {
        report(what, took);
    }
}
