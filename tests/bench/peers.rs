//! `cargo bench --bench peers`: a refused claim, and a claim with its release, beside what else one
//! may lock with: a filesystem that protects nothing, a tmpfs, flock(2), a round trip to another
//! process, Redis and etcd. All of them are pinned to one CPU and measured in turn in one run; the
//! figures are medians of the rounds.
//!
//! `mount-scripts/bench-peers` installs the servers; what is missing is named. The chart is
//! `target/bench/peers.svg`.
#![allow(
    unsafe_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout
)]

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process;
use std::{env, io};

#[path = "calls.rs"]
mod calls;
#[allow(dead_code)]
#[path = "chart.rs"]
mod chart;
#[path = "common.rs"]
mod common;
#[path = "etcd.rs"]
mod etcd;
#[path = "fresh.rs"]
mod fresh;
#[path = "null.rs"]
mod null;
#[path = "redis.rs"]
mod redis;
#[path = "server.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;

use calls::{Control, Echo, c_path, claim_and_release, contended, time};
use etcd::Etcd;
use fresh::fresh;
use null::Floor;
use redis::Redis;

const ROUNDS: usize = 11;
/// Calls in a round, and of those that take a hundred times as long.
const CALLS: u32 = 500;
const FEW: u32 = 50;

/// The calls that are timed.
#[derive(Clone, Copy)]
enum Call {
    Contended,
    Pair,
}
use Call::{Contended, Pair};

/// One way to lock, and what each of its calls took in each round, in microseconds.
struct Peer<'a> {
    name: String,
    calls: u32,
    call: Box<dyn FnMut(Call) + 'a>,
    took: [Vec<f64>; 2],
}

impl<'a> Peer<'a> {
    fn new(name: &str, calls: u32, call: impl FnMut(Call) + 'a) -> Self {
        Self {
            name: name.to_owned(),
            calls,
            call: Box::new(call),
            took: [Vec::new(), Vec::new()],
        }
    }

    fn round(&mut self) {
        for call in [Contended, Pair] {
            self.took[call as usize].push(time(self.calls, || (self.call)(call)));
        }
    }

    fn median(&self, call: Call) -> f64 {
        median(&self.took[call as usize])
    }
}

fn median(took: &[f64]) -> f64 {
    let mut took = took.to_vec();
    took.sort_by(f64::total_cmp);
    took[took.len() / 2]
}

/// open(2), close(2) and unlink(2) in a directory in which `held` is held.
fn files<'a>(name: &str, dir: &Path) -> Peer<'a> {
    let (held, free) = (c_path(dir, "held"), c_path(dir, "free"));
    Peer::new(name, CALLS, move |call| match call {
        Contended => contended(&held),
        Pair => claim_and_release(&free),
    })
}

/// One write to `control`, which is open, for each call.
fn control<'a>(mount: &Path) -> Peer<'a> {
    let control = Control::open(mount);
    Peer::new("claimfs, control is open", CALLS, move |call| match call {
        Contended => control.contended(),
        Pair => control.pair(),
    })
}

/// flock(2) of a file that is open already.
fn flock<'a>(dir: &Path) -> Peer<'a> {
    let open = |name: &str| File::create(dir.join(name)).unwrap();
    let (holder, other, free) = (open("flock-held"), open("flock-held"), open("flock-free"));
    let flock = |file: &File, how| unsafe { libc::flock(file.as_raw_fd(), how) };
    let exclusive = libc::LOCK_EX | libc::LOCK_NB;
    assert_eq!(flock(&holder, exclusive), 0);
    Peer::new("flock on tmpfs, file open already", CALLS, move |call| {
        // It is held for as long as the holder is open.
        let _holder = &holder;
        match call {
            Contended => {
                assert_eq!(flock(&other, exclusive), -1);
                let error = io::Error::last_os_error().raw_os_error();
                assert_eq!(error, Some(libc::EWOULDBLOCK));
            }
            Pair => {
                assert_eq!(flock(&free, exclusive), 0);
                assert_eq!(flock(&free, libc::LOCK_UN), 0);
            }
        }
    })
}

/// One round trip beside a refused claim, two beside a claim and its release.
fn ping_pong<'a>() -> Peer<'a> {
    let mut echo = Echo::start();
    Peer::new("unix socket, bare round trips: 1, 2", CALLS, move |call| {
        echo.ping();
        if matches!(call, Pair) {
            echo.ping();
        }
    })
}

fn redis<'a>(redis: &Redis, how: &str) -> [Peer<'a>; 2] {
    let (mut unix, mut tcp) = (
        redis::Client::new(redis.unix()),
        redis::Client::new(redis.tcp()),
    );
    [
        Peer::new(
            &format!("Redis, unix socket{how}"),
            CALLS,
            move |call| match call {
                Contended => unix.contended(),
                Pair => unix.pair(),
            },
        ),
        Peer::new(&format!("Redis, TCP{how}"), CALLS, move |call| match call {
            Contended => tcp.contended(),
            Pair => tcp.pair(),
        }),
    ]
}

fn etcd<'a>(etcd: &Etcd, place: &str) -> [Peer<'a>; 2] {
    let (mut kept, mut fresh) = (etcd.client(), etcd.client());
    [
        Peer::new(
            &format!("etcd {place}, its lease kept"),
            FEW,
            move |call| match call {
                Contended => kept.contended(),
                Pair => kept.pair(),
            },
        ),
        Peer::new(
            &format!("etcd {place}, a lease each time"),
            FEW,
            move |call| match call {
                Contended => fresh.contended(),
                Pair => fresh.pair_with_lease(),
            },
        ),
    ]
}

/// Gone when it is dropped.
struct Shm(PathBuf);

impl Shm {
    fn new() -> Self {
        let path = PathBuf::from(format!("/dev/shm/claimfs-bench-{}", process::id()));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("held"), "\n").unwrap();
        Self(path)
    }
}

impl Drop for Shm {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// A figure beside what it is to be at most.
fn target(what: &str, figure: f64, limit: f64) {
    let verdict = if figure <= limit {
        "reached"
    } else {
        "NOT reached"
    };
    println!("{what:66} {figure:8.2}  at most {limit:5.2}: {verdict}");
}

fn main() {
    if calls::play() || null::play() || fresh::play() {
        return;
    }
    if !Path::new("/dev/fuse").exists() {
        println!("SKIP: there is no /dev/fuse");
        return;
    }
    // Processes that start from here on inherit it.
    common::pin();
    let server = common::mount();
    let claims = server.mount().join("claims");
    let floor = Floor::mount(1);
    fs::write(floor.dir.join("held"), "").unwrap_or_default();
    let shm = Shm::new();
    let on_disk = env::temp_dir();
    let [bare, appending] = [false, true].map(Redis::start);
    let [etcd_on_disk, etcd_in_memory] = [&on_disk, Path::new("/dev/shm")].map(Etcd::start);

    let mut peers = vec![
        files("claimfs", &claims),
        control(&server.mount()),
        files("null", &floor.dir),
        files("tmpfs, no protection", &shm.0),
        flock(&shm.0),
        ping_pong(),
    ];
    let mut missing = Vec::new();
    match (&bare, &appending) {
        (Some(bare), Some(appending)) => {
            peers.extend(redis(bare, ""));
            peers.extend(redis(appending, ", appendonly everysec"));
        }
        _ => missing.push("Redis (redis-server)"),
    }
    match (&etcd_on_disk, &etcd_in_memory) {
        (Some(on_disk), Some(in_memory)) => {
            peers.extend(etcd(on_disk, "on disk"));
            peers.extend(etcd(in_memory, "on tmpfs"));
        }
        _ => missing.push("etcd (etcd-server)"),
    }

    let mut firsts = [const { Vec::new() }; 3];
    for round in 0..=ROUNDS {
        peers.iter_mut().for_each(Peer::round);
        for call in 0..FEW {
            let session = format!("fresh-{round}-{call}");
            firsts[0].push(fresh(&claims, None));
            firsts[1].push(fresh(&claims, Some(&session)));
            firsts[2].push(fresh(&floor.dir, None));
        }
        if round == 0 {
            // The first warms up.
            for peer in &mut peers {
                peer.took = Default::default();
            }
            firsts = Default::default();
        }
    }
    report(&peers, &missing);
    targets(&peers, &firsts.map(|took| median(&took)));
}

fn find<'a, 'b>(peers: &'a [Peer<'b>], name: &str) -> Option<&'a Peer<'b>> {
    peers.iter().find(|peer| peer.name == name)
}

fn report(peers: &[Peer], missing: &[&str]) {
    println!(
        "pinned to one CPU, microseconds a call and how often that of null: median of {ROUNDS} rounds of {CALLS} calls (etcd: {FEW})"
    );
    // The figures include all else that runs.
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    println!("load average: {}\n", load.split(' ').next().unwrap());
    println!("| | refused claim | / null | claim + release | / null |");
    println!("|---|---:|---:|---:|---:|");
    let null = find(peers, "null").unwrap();
    let mut rows = Vec::new();
    for peer in peers {
        let [refused, pair] = [Contended, Pair].map(|call| peer.median(call));
        println!(
            "| {} | {refused:.2} | {:.2} | {pair:.2} | {:.2} |",
            peer.name,
            refused / null.median(Contended),
            pair / null.median(Pair)
        );
        rows.push((peer.name.clone(), [Some(refused), Some(pair)]));
    }
    println!();
    for name in missing {
        println!(
            "not installed, and so not measured: {name}; mount-scripts/bench-peers installs it"
        );
    }
    let title = "Microseconds a call, everything on one CPU";
    let svg = chart::bars(title, ["refused claim", "claim + release"], &rows);
    chart::write("peers.svg", &svg);
}

/// What claimfs is to reach. `firsts` are claims with their releases by processes that have just
/// been started.
fn targets(peers: &[Peer], firsts: &[f64; 3]) {
    let [ours, null] = ["claimfs", "null"].map(|name| find(peers, name).unwrap());
    let over = |call: Call, name: &str| {
        let other = find(peers, name)?;
        Some(ours.median(call) / other.median(call))
    };
    let refused = ours.median(Contended) / null.median(Contended);
    target("refused claim, of null", refused, 1.15);
    let pair = ours.median(Pair) / null.median(Pair);
    target(
        "claim + release by a process seen before, of null",
        pair,
        1.25,
    );
    let [same, own, floor] = firsts;
    println!(
        "claim + release by a fresh process: {same:.2} us, in a session of its own {own:.2}, on null {floor:.2}"
    );
    target("the same by a fresh process, of null", same / floor, 2.0);
    target(
        "the same by a fresh process in a session of its own, of null",
        own / floor,
        2.0,
    );
    let others = [
        (
            "refused claim, of Redis over a unix socket",
            Contended,
            "Redis, unix socket",
            1.0,
        ),
        (
            "claim + release, of Redis over TCP",
            Pair,
            "Redis, TCP",
            1.0,
        ),
        (
            "claim + release, of etcd on disk, its lease kept",
            Pair,
            "etcd on disk, its lease kept",
            0.05,
        ),
        (
            "claim + release, of etcd on tmpfs, its lease kept",
            Pair,
            "etcd on tmpfs, its lease kept",
            0.05,
        ),
    ];
    for (what, call, name, limit) in others {
        match over(call, name) {
            Some(figure) => target(what, figure, limit),
            None => println!("{what:66} not measured"),
        }
    }
}
