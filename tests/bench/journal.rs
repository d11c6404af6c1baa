//! `cargo bench --bench journal`: what a claim takes of the journal, and how long it takes to read
//! 100,000 leases back.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};
use std::{env, fs};

use claimfs::core::{
    Command, Creation, Member, Moment, Name, Process, Root, Rule, SessionId, Shape,
};
use claimfs::handoff::Handoff;
use claimfs::journal::Log;
use claimfs::journal::{self, Disk, Recovered};
use claimfs::process::Boot;

const LEASES: usize = 100_000;

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
    disk.applied(&recovered.table, &mut Handoff::default);
}

fn read(dir: &Path, boot: &Boot) -> (Recovered, Duration) {
    let start = Instant::now();
    let recovered = journal::read(dir, boot, 2 * LEASES, false).unwrap();
    (recovered, start.elapsed())
}

fn size(dir: &Path) -> u64 {
    fs::metadata(dir.join("journal")).unwrap().len()
}

fn main() {
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
    for number in 1..LEASES {
        run(&mut disk, &mut recovered, &claim(number));
    }
    let took = start.elapsed().as_secs_f64();
    println!(
        "{LEASES} claims in the core with the journal: {:.1} us each",
        took * 1e6 / LEASES as f64
    );
    let length = size(&dir);
    let (_, took) = read(&dir, &boot);
    println!("read back, mostly event by event: {length} bytes in {took:.2?}");
    drop(Disk::begin(&dir, boot.clone(), &recovered, &Handoff::new("2")).unwrap());
    let length = size(&dir);
    let (_, took) = read(&dir, &boot);
    println!("read back, written anew: {length} bytes in {took:.2?}");
    fs::remove_dir_all(&dir).unwrap();
}
