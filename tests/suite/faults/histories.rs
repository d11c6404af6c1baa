//! Histories, in the manner of Jepsen. Real processes (`tests/programs/histories`) record their
//! requests and the answers, while a nemesis picks from an array of faults (`nemesis.rs`).
//! Afterwards a checker (`checker.rs`) proves from these records that the promises of leases were
//! kept, or shows where they were not.
//!
//! `CLAIMFS_TEST_HISTORIES_SECONDS` is the duration, and `CLAIMFS_TEST_HISTORIES_SEED` the seed.
//! The seed decides which faults are injected, but not how the system reacts: the same seed does
//! not give the same history.

mod checker;
// The clients use the rest.
#[allow(dead_code)]
#[path = "../../programs/histories/history.rs"]
mod history;
mod nemesis;
#[path = "../../programs/histories/shared.rs"]
mod shared;
mod world;

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use self::checker::{check, surroundings};
use self::nemesis::{FAULTS, Outcome};
use self::world::World;
use crate::support::memory::clock;
use crate::support::{Guard, Mount, TempDir, can_mount, is_root, number, plain, skip};

/// How long clients work before they give up all they hold and what they wrote down is judged.
const ROUND: Duration = Duration::from_secs(10);

/// The name of the shell that is the first process of the pid namespace made for this test.
const INIT: &str = "claimfs-histories";

/// Whether the shell [`INIT`] is this process's parent.
fn is_in_namespace() -> bool {
    let words = std::fs::read("/proc/1/cmdline").unwrap_or_default();
    std::os::unix::process::parent_id() == 1
        && words.split(|byte| *byte == 0).nth(3) == Some(INIT.as_bytes())
}

#[test]
fn under_every_fault_what_is_told_is_what_leases_are() {
    if is_in_namespace() || !is_root() {
        return run(is_in_namespace());
    }
    if !can_mount() {
        return;
    }
    // Only in a pid namespace of its own can a test reuse a pid. Its first process is a shell,
    // which reaps, and runs this test again.
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["sh", "-c", "\"$@\"; exit $?", INIT]);
    command.arg(env::current_exe().unwrap());
    command.arg(concat!(
        "faults::histories::",
        "under_every_fault_what_is_told_is_what_leases_are"
    ));
    command.args(["--exact", "--nocapture", "--test-threads=1"]);
    plain(&mut command);
    // Pids are small numbers there, so names made of them need a directory of their own.
    let place = TempDir::in_memory();
    command.env("TMPDIR", place.path());
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let output = command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut test = Guard::spawn(output.stderr(Stdio::piped()));
    for line in BufReader::new(test.0.stderr.take().unwrap()).lines() {
        eprintln!("{}", line.unwrap());
    }
    assert!(test.0.wait().unwrap().success(), "see above");
}

fn run(is_inside: bool) {
    let seed = number("CLAIMFS_TEST_HISTORIES_SEED", clock());
    let seconds = Duration::from_secs(number("CLAIMFS_TEST_HISTORIES_SECONDS", 10));
    eprintln!("CLAIMFS_TEST_HISTORIES_SEED={seed}");
    let memory = TempDir::new();
    let Some(mut mount) = Mount::unmounted() else {
        return;
    };
    let small = nemesis::small();
    std::fs::create_dir(&mount.dir).unwrap_or_default();
    if let Some(small) = &small {
        mount.state = small.0.path().join("state");
    }
    let program = memory.path().join("claimfs");
    let mut world = World::new(mount, small, memory, seed, is_inside);
    let clock = world.memory.path().join("shared");
    match nemesis::movable(&program, world.memory.path(), &clock) {
        Ok(()) => world.mount.program = program,
        Err(why) => world.no_clock = Some(why),
    }
    world.mount.start(&[]);
    world.is_kept = world.mount.server().is_some();
    if world.no_clock.is_none() {
        world.no_clock = nemesis::moves(&world).err();
    }

    let (mut operations, mut newest) = (BTreeMap::new(), 0);
    let mut faults = Faults::default();
    let start = Instant::now();
    while start.elapsed() < seconds {
        let until = Instant::now() + ROUND.min(seconds.saturating_sub(start.elapsed()));
        world.begin();
        while Instant::now() < until {
            faults.strike(&mut world);
            let next = Instant::now() + Duration::from_millis(world.dice.below(120) as u64);
            while Instant::now() < next.min(until) {
                world.relieve(false);
                sleep(Duration::from_millis(1));
            }
            assert!(world.are_well(), "a client has ended by itself");
        }
        world.end();
        for operation in &world.history.operations {
            *operations.entry(operation.kind()).or_insert(0) += 1;
        }
        let (findings, highest) = check(&world.history, newest);
        newest = highest;
        let complaints = &world.complaints;
        if !findings.is_empty() || !complaints.is_empty() {
            for finding in findings.iter().take(20) {
                eprintln!("{:?}: {}", finding.rule, finding.what);
                eprintln!("{}", surroundings(&world.history, finding));
            }
            let findings = findings.len();
            panic!("seed {seed}: {findings} findings, {complaints:?}");
        }
        assert_eq!(world.mount.claims(), [""; 0], "seed {seed}");
        assert_eq!(world.mount.read("waiters"), "", "seed {seed}");
    }
    let seconds = start.elapsed().as_secs_f64();
    let all: u64 = operations.values().sum();
    eprintln!("{seconds:.1} s, {all} operations, {newest} is the newest token, 0 findings");
    eprintln!("operations: {operations:?}");
    faults.print();
}

/// How often each came about, and why one did not.
#[derive(Default)]
struct Faults {
    counts: [u64; FAULTS.len()],
    impossible: BTreeMap<&'static str, String>,
}

impl Faults {
    fn strike(&mut self, world: &mut World) {
        let index = world.dice.below(FAULTS.len());
        let (fault, at) = (&FAULTS[index], clock());
        match (fault.inject)(world) {
            Outcome::Injected => {
                self.counts[index] += 1;
                world.history.faults.push((at, fault.name.to_owned()));
            }
            Outcome::Nobody => {}
            Outcome::Impossible(why) => _ = self.impossible.insert(fault.name, why),
        }
    }

    fn print(&self) {
        let counts = FAULTS.iter().zip(&self.counts);
        let counts: Vec<String> = counts
            .map(|(fault, count)| format!("{}: {count}", fault.name))
            .collect();
        eprintln!("faults: {}", counts.join(", "));
        let never = FAULTS
            .iter()
            .zip(&self.counts)
            .filter(|(_, count)| **count == 0);
        for (fault, _) in never.filter(|(fault, _)| !self.impossible.contains_key(fault.name)) {
            eprintln!(
                "'{}' came about never: nobody was there at the time",
                fault.name
            );
        }
        for (fault, why) in &self.impossible {
            skip(&format!("the fault '{fault}': {why}"));
        }
    }
}
