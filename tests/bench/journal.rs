//! `cargo bench --bench journal`: what a claim takes of the journal, how long it takes to read
//! leases back, and how long a call waits whose server is killed. `BENCH_LEASES=1000000` measures
//! with so many leases, too.
#![allow(
    unsafe_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss
)]

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};
use std::{env, fs};

#[path = "common.rs"]
mod common;
#[allow(dead_code)]
#[path = "measure.rs"]
mod measure;
#[path = "../support/mod.rs"]
mod support;

use claimfs::core::{
    Command, Creation, Member, Moment, Name, Process, Root, Rule, SessionId, Shape,
};
use claimfs::handoff::Handoff;
use claimfs::journal::Log;
use claimfs::journal::{self, Disk, Live, Recovered};
use claimfs::process::Boot;

use common::{Server, mount_with};
use measure::Target::{AtMost, Told};
use measure::{c_path, heading, line, median, micros};
use support::Guard;

/// The limit of the tables.
const LEASES_MAX: usize = 1 << 21;

const SIZES: [usize; 2] = [1000, 100_000];

/// How often a server is killed.
const KILLS: usize = 9;

/// The number of sessions in the last measurement.
const SESSIONS: usize = 1000;

/// The longest that a call may wait for another server, in milliseconds, for so many leases.
const STALLS: [(usize, f64); 3] = [(1000, 20.0), (100_000, 100.0), (1_000_000, 1000.0)];

fn member() -> Member {
    let process = Process {
        pid: 4242,
        start: 123_456,
        pidfs: 98_765,
    };
    let root = Root {
        process,
        command: Arc::from("worker"),
        started: UNIX_EPOCH,
        registered: false,
        environ: 0,
        above: claimfs::core::Above::Unknown,
    };
    Member {
        id: SessionId::new(b"w1").unwrap(),
        rule: Rule::Variable,
        uid: 1000,
        pidns: 0,
        sandbox: 0,
        scope: claimfs::core::Scope::Session,
        heir: None,
        roots: vec![root],
        lineage: Vec::new(),
        pid: process.pid,
        command: Arc::from("worker"),
    }
}

fn name(number: usize) -> Name {
    Name::new(format!("claim-{number}").as_bytes()).unwrap()
}

fn run(disk: &mut Disk, recovered: &mut Recovered, command: &Command) {
    let now = Moment {
        wall: UNIX_EPOCH + Duration::from_secs(1_795_000_000),
        boot: Duration::from_secs(1000),
    };
    let events = recovered.table.decide(command, now).unwrap();
    disk.append(&events, None).unwrap();
    for event in &events {
        recovered.table.apply(event);
    }
    disk.compact_if_due(&recovered.table, Live::default())
        .unwrap();
}

fn read(dir: &Path, boot: &Boot) -> (Recovered, Duration) {
    let start = Instant::now();
    let recovered = journal::read(dir, boot, LEASES_MAX, false).unwrap();
    (recovered, start.elapsed())
}

fn size(dir: &Path) -> u64 {
    fs::metadata(dir.join("journal")).unwrap().len()
}

fn main() {
    let more = env::var("BENCH_LEASES")
        .ok()
        .map(|more| more.parse().unwrap());
    let sizes: Vec<usize> = SIZES.into_iter().chain(more).collect();
    for leases in &sizes {
        in_the_core(*leases);
    }
    if Path::new("/dev/fuse").exists() {
        heading();
        for leases in sizes {
            killed(leases);
        }
        killed_beside_sessions();
    }
}

/// Writes a journal and reads it back, without a mount.
fn in_the_core(leases: usize) {
    let dir = env::temp_dir().join(format!("claimfs-bench-journal-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    let boot = Boot::current().unwrap();
    let (mut recovered, _) = read(&dir, &boot);
    let mut disk = Disk::begin(&dir, boot.clone(), &recovered, &Handoff::new("1")).unwrap();
    let by = &member();
    let creation = Creation {
        shape: Shape::File,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
    };
    let claim = |number| Command::Claim {
        name: name(number).into(),
        by,
        creation: creation.clone(),
        exclusive: true,
        truncate: false,
    };
    run(&mut disk, &mut recovered, &claim(0));
    let before = size(&dir);
    run(&mut disk, &mut recovered, &claim(1));
    let per_claim = size(&dir) - before;
    let release = Command::Release {
        name: name(1).into(),
        directory: false,
        by,
    };
    run(&mut disk, &mut recovered, &release);
    let per_pair = size(&dir) - before;
    println!("a claim takes {per_claim} bytes, a claim and its release {per_pair}");

    let start = Instant::now();
    for number in 1..leases {
        run(&mut disk, &mut recovered, &claim(number));
    }
    let took = start.elapsed().as_secs_f64();
    println!(
        "{leases} claims in the core with the journal: {:.1} us each",
        took * 1e6 / leases as f64
    );
    read_back(&dir, &boot, "mostly event by event");
    drop(Disk::begin(&dir, boot.clone(), &recovered, &Handoff::new("2")).unwrap());
    read_back(&dir, &boot, "written anew");
    fs::remove_dir_all(&dir).unwrap();
}

fn read_back(dir: &Path, boot: &Boot, how: &str) {
    let mut times: Vec<f64> = (0..5)
        .map(|_| read(dir, boot).1.as_secs_f64() * 1e3)
        .collect();
    let (length, took) = (size(dir), median(&mut times));
    println!("read back, {how}: {length} bytes in {took:.1} ms");
}

/// How long a call waits whose server is killed, with so many leases of one session.
fn killed(leases: usize) {
    let most = leases + 10;
    let server = mount_with(&env::temp_dir(), &["--max-leases", &most.to_string()]);
    let claims = server.mount().join("claims");
    for number in 1..leases {
        assert!(measure::claim(&c_path(&claims.join(number.to_string()))));
    }
    let target = STALLS.iter().find(|(of, _)| *of >= leases);
    let target = target.map_or(Told, |(_, most)| AtMost(*most));
    line(
        &format!("SIGKILL of the server to the next answer, {leases} leases, ms"),
        median(&mut stalls(&server)),
        target,
    );
}

/// The same with a lease of each of many sessions.
fn killed_beside_sessions() {
    let server = mount_with(&env::temp_dir(), &[]);
    let dir = server.mount();
    let holders = (0..SESSIONS).map(|number| {
        let mut holder = std::process::Command::new("sh");
        let script = format!("set -C; echo > claims/{number}; echo; exec sleep infinity");
        holder.args(["-c", &script]).current_dir(&dir);
        holder.env("CLAIMFS_SESSION", format!("s{number}"));
        let mut holder = Guard::spawn(holder.stdout(Stdio::piped()));
        assert_eq!(holder.line(), "");
        holder
    });
    let holders: Vec<Guard> = holders.collect();
    line(
        &format!("SIGKILL of the server to the next answer, {SESSIONS} sessions, ms"),
        median(&mut stalls(&server)),
        AtMost(STALLS[0].1),
    );
    drop(holders);
}

/// Milliseconds from the death of a server to the next answer.
fn stalls(server: &Server) -> Vec<f64> {
    let held = server.mount().join("claims/held");
    let stalls = (0..KILLS).map(|_| {
        let [_, pid] = server.pids();
        let start = Instant::now();
        assert_eq!(unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) }, 0);
        assert!(fs::symlink_metadata(&held).is_ok());
        micros(start.elapsed()) / 1e3
    });
    stalls.collect()
}
