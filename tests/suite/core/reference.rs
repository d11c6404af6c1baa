//! Random commands to the table, beside a reference that was written from the manual (`rules.rs`).
//! After each step both show the same, refusals included; a replay of the journal is the same
//! table, wherever the server dies; a name has one holder, and tokens rise; and once every process
//! is dead nothing is left.
//!
//! The reference knows claims that are files, and reservations; after each event no two of these
//! overlap. `leaks.rs` adds directories with what is in them,
//! symlinks and scratch names, and checks the invariants of the table instead.
//!
//! A failure prints the shortest sequence that fails, ready to be pasted as a test at the end of
//! this file. `CLAIMFS_TEST_SEED=N` is another seed.

mod commands;
mod leaks;
mod rules;
mod same;
mod words;
mod world;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{catch_unwind, resume_unwind};
use std::time::Instant;

use proptest::collection::vec;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use self::same::Outcome;
use self::words::{IDS, NAMES, Op, PEOPLE};
use self::world::World;

/// How many leases there may be, and how many of each thing a uid may have: hardly any, or as many
/// as anybody takes here.
const LIMITS: [(usize, usize); 2] = [(4, 3), (50, 50)];

/// The answers that there were.
type Answers = BTreeSet<&'static str>;

/// How many steps the tests take at least.
const STEPS: usize = 1_000_000;
const ON_DISK: usize = 10_000;

/// Each kind of step as often as its weight says.
fn op((kind, who, name, other, number): (u32, u8, u8, u8, u8)) -> Op {
    let (id, to) = (other % IDS.len() as u8, other % NAMES.len() as u8);
    let (one, two) = (number.is_multiple_of(2), number % 4 < 2);
    let (few, many) = (u64::from(number % 4), u64::from(number));
    let kinds = [
        (14, Op::Claim(who, name, one, two)),
        (6, Op::Release(who, name)),
        (7, Op::Queue(who, name)),
        (7, Op::Kill(who, one)),
        (7, Op::Rename(who, name, to, number.is_multiple_of(3))),
        (3, Op::Exchange(who, name, to)),
        (4, Op::Link(who, name, to)),
        (3, Op::Write(who, name)),
        (5, Op::Open(who, name, one)),
        (4, Op::WriteTo(who, many)),
        (3, Op::Close(many)),
        (4, Op::Limit(who, name, few)),
        (5, Op::Wait(few, one)),
        (5, Op::Give(who, name, id)),
        (3, Op::Break(who, name, number.is_multiple_of(5))),
        (3, Op::Join(who, id, number.is_multiple_of(3))),
        (1, Op::End(who, id)),
        (1, Op::EndOwn(who, id)),
        (2, Op::Accept(many)),
        (3, Op::Leave(many)),
        (4, Op::Hold(who, name, 1 + few)),
        (2, Op::Yield(who, name)),
        (7, Op::Take(who, name, to)),
        (3, Op::Drop(who, name, to)),
        (2, Op::GiveBelow(who, name, id)),
        (2, Op::Tell),
        (1, Op::Stop(who, number < 64)),
        (2, Op::Sweep(few)),
        (2, Op::Crash),
        (2, Op::Tear(many)),
        (1, Op::Remount),
        (1, Op::Reboot),
    ];
    let all: u32 = kinds.iter().map(|(weight, _)| weight).sum();
    let mut left = kind * all / KINDS;
    for (weight, op) in kinds {
        match left.checked_sub(weight) {
            Some(rest) => left = rest,
            None => return op,
        }
    }
    unreachable!("the weights are of one sum")
}

const KINDS: u32 = 1 << 12;

/// Does these steps, and then all that leaves nothing. What was answered, or what went wrong.
fn replay(limits: (usize, usize), on_disk: bool, ops: &[Op]) -> Outcome<Answers> {
    let mut world = World::new(limits, on_disk);
    for (at, op) in ops.iter().enumerate() {
        let failed = |what| format!("step {at}, {op:?}: {what}");
        world.step(*op).map_err(failed)?;
    }
    let end = world.end().map(|()| world.answers);
    end.map_err(|what| format!("in the end: {what}"))
}

/// What is left of a sequence that fails when no step can be left out. Proptest leaves steps out
/// before it makes them simpler, and many can be left out only then.
fn shortest(mut ops: Vec<Op>, fails: impl Fn(&[Op]) -> bool) -> Vec<Op> {
    while let Some(fewer) = (0..ops.len()).find_map(|at| {
        let fewer = [&ops[..at], &ops[at + 1..]].concat();
        fails(&fewer).then_some(fewer)
    }) {
        ops = fewer;
    }
    ops
}

/// Random sequences, until there were so many steps.
fn explore(thread: u64, steps: usize, on_disk: bool) -> (usize, Answers) {
    let seed = std::env::var("CLAIMFS_TEST_SEED").ok();
    let seed: u64 = seed.map_or(1, |seed| {
        seed.parse().expect("CLAIMFS_TEST_SEED is a number")
    });
    let (people, names) = (PEOPLE.len() as u8, NAMES.len() as u8);
    let step = (0..KINDS, 0..people, 0..names, 0..u8::MAX, 0..u8::MAX).prop_map(op);
    let sequence = (0..LIMITS.len(), vec(step, 0..600));
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..].copy_from_slice(&(thread + 1).to_le_bytes());
    let config = Config {
        cases: u32::MAX,
        failure_persistence: None,
        max_shrink_iters: 1 << 20,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::XorShift, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let done = RefCell::new((0, Answers::new()));
    while done.borrow().0 < steps {
        let tree = sequence.new_tree(&mut runner).unwrap();
        let run = runner.run_one(tree, |(limits, ops)| {
            let answers = replay(LIMITS[limits], on_disk, &ops).map_err(TestCaseError::fail)?;
            let mut done = done.borrow_mut();
            done.0 += ops.len();
            done.1.extend(answers);
            Ok(())
        });
        if let Err(TestError::Fail(why, (limits, ops))) = run {
            let fails = |ops: &[Op]| {
                let outcome = catch_unwind(|| replay(LIMITS[limits], on_disk, ops));
                !matches!(outcome, Ok(Ok(_)))
            };
            let ops = shortest(ops, fails);
            let lines = ops.iter().map(|op| format!("        Op::{op:?},\n"));
            let ops = lines.collect::<Vec<_>>().concat();
            panic!(
                "seed {seed}: {why}\n\n#[test]\nfn regression_() {{\n    let ops = [\n{ops}    ];\n    \
                 replay(LIMITS[{limits}], {on_disk}, &ops).unwrap();\n}}"
            );
        }
        run.unwrap();
    }
    done.into_inner()
}

#[test]
fn a_million_random_steps_do_to_the_table_what_the_readme_says() {
    let began = Instant::now();
    let explore = |thread| std::thread::spawn(move || explore(thread, STEPS / 2, false));
    let explorers = [0, 1].map(explore).map(std::thread::JoinHandle::join);
    let explored = explorers.map(|there| there.unwrap_or_else(|why| resume_unwind(why)));
    let steps = explored[0].0 + explored[1].0;
    println!("{steps} steps in {:?}", began.elapsed());
    assert!(steps >= STEPS);
    // Without this, a run whose steps are all refused would pass.
    let all = [
        "EBUSY", "EDQUOT", "EEXIST", "EISDIR", "ENODATA", "ENOENT", "ENOSPC", "ENOTDIR", "EPERM",
        "ESTALE", "done",
    ];
    for (_, answers) in explored {
        assert_eq!(answers, Answers::from(all));
    }
}

#[test]
fn random_steps_do_the_same_where_the_journal_is_a_file_that_is_cut() {
    let (steps, _) = explore(2, ON_DISK, true);
    println!("{steps} steps with a journal on disk");
    assert!(steps >= ON_DISK);
}

// Regressions.

#[test]
fn regression_a_name_that_an_ended_session_left_is_of_the_share_of_who_takes_it() {
    let ops = [
        Op::Claim(0, 0, true, true),
        Op::End(0, 0),
        Op::Claim(2, 1, true, true),
        Op::Claim(2, 2, true, true),
        Op::Claim(2, 3, true, true),
        Op::Claim(2, 0, true, true),
    ];
    let answers = replay(LIMITS[0], false, &ops).unwrap();
    assert!(answers.contains("EDQUOT"));
}
