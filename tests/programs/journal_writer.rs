//! `journal_writer DIR` reads the journal in DIR and writes it from the start, as a new server
//! does. `journal_writer DIR settled` goes on with it, as the next server of a mount does, and
//! answers. `journal_writer DIR CLAIM…` goes on with it, copies it as a compaction does, and
//! appends a claim after each step: it prints each that it has appended. Tests interrupt it at each
//! system call.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![allow(missing_docs, clippy::too_many_lines)]

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use claimfs::core::table::Table;
use claimfs::core::{
    Above, Command, Creation, Member, Moment, Name, Process, Root, Rule, Scope, SessionId, Shape,
};
use claimfs::handoff::Handoff;
use claimfs::journal::{self, Disk, Live, Log, Place, Recovered};
use claimfs::process::Boot;

fn main() -> ExitCode {
    let dir = PathBuf::from(env::args_os().nth(1).unwrap());
    // As `suite/lifecycle/journal.rs` writes it.
    let boot = Boot {
        id: "this-boot".into(),
        pidns: 7,
    };
    let recovered = journal::read(&dir, &boot, 99, false).unwrap();
    let words: Vec<String> = env::args().skip(2).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Disk::begin(&dir, boot, &recovered, &Handoff::new("another")).map(|_| ()),
        ["settled"] => settle(&dir, boot, &recovered),
        _ => compact(&dir, boot, recovered, &words),
    };
    ExitCode::from(u8::from(done.is_err()))
}

fn settle(dir: &Path, boot: Boot, recovered: &Recovered) -> io::Result<()> {
    let mut disk = Disk::begin(dir, boot, recovered, &recovered.handoff)?;
    disk.settled();
    // The stream of a server has the lines. If it cannot be written again, it goes on as it is.
    let live = Live {
        lines: recovered.handoff.lines.clone(),
        lines_from: recovered.handoff.lines_from,
        ..Live::default()
    };
    _ = disk.compact_if_due(&recovered.table, live);
    Ok(())
}

fn compact(dir: &Path, boot: Boot, recovered: Recovered, claims: &[String]) -> io::Result<()> {
    let mut disk = Disk::begin(dir, boot, &recovered, &recovered.handoff)?;
    let mut table = recovered.table;
    let mut claims = claims.iter();
    let mut claim = |disk: &mut Disk, table: &mut Table| {
        let Some(name) = claims.next() else {
            return Ok(());
        };
        let events = table.decide(&claim(name), NOW).unwrap();
        disk.append(&events, None)?;
        println!("{name}");
        for event in &events {
            table.apply(event);
        }
        io::Result::Ok(())
    };
    let mut copy = disk.begin_copy(&table, Live::default(), Place::Kept)?;
    claim(&mut disk, &mut table)?;
    // A copy that fails is given up, and the old journal goes on.
    let mut steps = || {
        copy.write(&|| true)?;
        claim(&mut disk, &mut table)?;
        copy.follow(disk.length())?;
        claim(&mut disk, &mut table)?;
        disk.mirror(&mut copy)?;
        claim(&mut disk, &mut table)?;
        copy.sync(true)?;
        claim(&mut disk, &mut table)?;
        disk.switch(&mut copy)
    };
    let switched = steps();
    if switched.is_err() {
        disk.give_up(&copy);
    }
    drop(copy);
    claim(&mut disk, &mut table)?;
    claim(&mut disk, &mut table)?;
    switched.map(|_| ())
}

const NOW: Moment = Moment {
    wall: UNIX_EPOCH,
    boot: Duration::from_secs(99),
};

/// A claim by a session of a process of its own.
fn claim(name: &str) -> Command<'static> {
    let process = Process {
        pid: 4711,
        start: 4711,
        pidfs: 4711,
    };
    let by = Member {
        id: SessionId::new(b"writer").unwrap(),
        rule: Rule::Variable,
        uid: 1000,
        pidns: 0,
        sandbox: 0,
        scope: Scope::Session,
        heir: None,
        roots: vec![Root {
            process,
            command: Arc::from("writer"),
            started: UNIX_EPOCH,
            registered: false,
            environ: 0,
            above: Above::Unknown,
        }],
        lineage: Vec::new(),
        pid: process.pid,
        command: Arc::from("writer"),
    };
    let creation = Creation {
        shape: Shape::File,
        mode: 0o600,
        uid: 1000,
        gid: 1000,
    };
    Command::Claim {
        name: Name::new(name.as_bytes()).unwrap().into(),
        by: Box::leak(Box::new(by)),
        creation,
        exclusive: true,
        truncate: false,
    }
}
