//! Process scope in the pure core: the process that creates a claim holds it; when it has exited,
//! its parent does; when it is killed, the name is free.
//!
//! The expected holder is found without links, orders and times. From the process that claimed, go
//! up and skip those that exited. The first that lives holds the claim; if one was killed, or there
//! is no further one, the name is free.

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use claimfs::core::table::Table;
use claimfs::core::{
    Above, Command, Ending, Event, Kin, Member, Moment, Process, Refusal, Root, Rule, Scope, What,
};

use crate::core::model::{claim, creation, id, name, process};
use crate::core::woken;
use crate::support::dice::Dice;

/// Exited, killed, or alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Lives,
    Exits,
    Killed,
}

fn ending(fate: Fate) -> Option<Ending> {
    match fate {
        Fate::Lives => None,
        Fate::Exits => Some(Ending::Exited(3)),
        Fate::Killed => Some(Ending::Killed(9)),
    }
}

/// A caller of a terminal: the processes from the topmost down to it.
pub(super) fn member(chain: &[Process]) -> Member {
    let mut above = Above::Nobody;
    let mut roots = Vec::new();
    for process in chain {
        roots.push(Root {
            process: *process,
            command: Arc::from("sh"),
            started: UNIX_EPOCH,
            registered: false,
            environ: 0,
            above,
        });
        above = Above::Process(*process);
    }
    let kin = |process: &Process| Kin {
        process: *process,
        pid: process.pid,
    };
    Member {
        id: id("sid-7-uid-1000"),
        rule: Rule::Posix,
        scope: Scope::Process,
        heir: None,
        uid: 1000,
        pidns: 0,
        sandbox: 0,
        roots,
        lineage: chain.iter().rev().map(kin).collect(),
        pid: chain.last().unwrap().pid,
        command: Arc::from("sh"),
    }
}

fn now() -> Moment {
    Moment {
        wall: UNIX_EPOCH,
        boot: Duration::from_secs(1),
    }
}

/// A table, and the journal that it could be made of again.
struct World {
    table: Table,
    events: Vec<Event>,
}

impl World {
    fn new() -> Self {
        Self {
            table: Table::new(1000),
            events: Vec::new(),
        }
    }

    fn run(&mut self, command: &Command) -> Result<Vec<What>, Refusal> {
        let events = self.table.decide(command, now())?;
        woken::apply(&mut self.table, &events).unwrap();
        self.table.check().unwrap();
        self.events.extend(events.iter().cloned());
        Ok(events.into_iter().map(|event| event.what).collect())
    }

    fn claim(&mut self, of: &str, by: &Member) -> Result<Vec<What>, Refusal> {
        self.run(&claim(of, by))
    }

    fn release(&mut self, of: &str, by: &Member) -> Result<Vec<What>, Refusal> {
        self.run(&Command::Release {
            name: name(of).into(),
            directory: false,
            by,
        })
    }

    fn died(&mut self, process: Process, ending: Option<Ending>) -> Vec<What> {
        self.run(&Command::Died { process, ending }).unwrap()
    }

    fn holder(&self, of: &str) -> Option<u32> {
        let lease = self.table.lease(&name(of))?;
        let holder = self.table.holder(self.table.inode(lease.ino)?);
        Some(holder.unwrap().pid)
    }

    /// The server is killed: the table is made of the journal again, or of itself as it is written
    /// down whole.
    fn restart(&mut self, is_whole: bool) {
        let again = if is_whole {
            let text = serde_json::to_string(&self.table).unwrap();
            let read: Table = serde_json::from_str(&text).unwrap();
            read.completed(1000)
        } else {
            let mut table = Table::new(1000);
            for event in &self.events {
                table.apply(event);
            }
            table
        };
        assert!(again == self.table, "recovered it is another");
        self.table = again;
    }
}

/// Every order of so many things.
fn orders(of: &[usize]) -> Vec<Vec<usize>> {
    if of.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (at, first) in of.iter().enumerate() {
        let mut rest = of.to_vec();
        rest.remove(at);
        for mut order in orders(&rest) {
            order.insert(0, *first);
            all.push(order);
        }
    }
    all
}

/// A terminal's shell, a script of it, a part of that with a command below it, and another command
/// of the script.
const PARENTS: [Option<usize>; 5] = [None, Some(0), Some(1), Some(2), Some(1)];
const CLAIMS: [&str; 5] = ["a", "b", "c", "d", "e"];

fn tree(number: usize) -> Process {
    process(10 + u32::try_from(number).unwrap())
}

fn chain(number: usize) -> Vec<Process> {
    let mut chain: Vec<Process> = std::iter::successors(Some(number), |at| PARENTS[*at])
        .map(tree)
        .collect();
    chain.reverse();
    chain
}

/// The holder of the claims of a process: see the head of this file.
fn expected(maker: usize, fates: [Fate; 5]) -> Option<u32> {
    let mut at = Some(maker);
    while let Some(number) = at {
        match fates[number] {
            Fate::Lives => return Some(tree(number).pid),
            Fate::Killed => return None,
            Fate::Exits => at = PARENTS[number],
        }
    }
    None
}

#[test]
fn the_order_of_deaths_and_the_moments_of_looking_change_nothing() {
    let mut histories = 0;
    for mut number in 0..243 {
        let mut fates = [Fate::Lives; 5];
        for fate in &mut fates {
            *fate = [Fate::Lives, Fate::Exits, Fate::Killed][number % 3];
            number /= 3;
        }
        let dead: Vec<usize> = (0..5).filter(|at| fates[*at] != Fate::Lives).collect();
        for order in orders(&dead) {
            let mut world = World::new();
            for (number, of) in CLAIMS.iter().enumerate() {
                world.claim(of, &member(&chain(number))).unwrap();
            }
            let mut known = [Fate::Lives; 5];
            for at in &order {
                known[*at] = fates[*at];
                world.died(tree(*at), ending(fates[*at]));
                for (number, of) in CLAIMS.iter().enumerate() {
                    let seen = world.holder(of);
                    assert_eq!(seen, expected(number, known), "{of} {fates:?} {order:?}");
                }
            }
            if histories % 16 == 0 {
                world.restart(false);
                world.restart(true);
            }
            while world.table.wants_sweep() {
                world.run(&Command::Sweep { limit: 2 }).unwrap();
            }
            if fates.iter().all(|fate| *fate != Fate::Lives) {
                let nameless: Vec<_> = world.table.nameless().collect();
                for ino in nameless {
                    world.run(&Command::Forget { ino }).unwrap();
                }
                assert_eq!(world.table.remembered(), 0, "{fates:?} {order:?}");
            }
            histories += 1;
        }
    }
    assert_eq!(histories, 6_331);
}

/// How it goes with one process of a small machine.
#[derive(Clone, Debug)]
struct Life {
    process: Process,
    /// As the kernel has it: nobody once that has died.
    parent: Option<usize>,
    /// As it was when this first became a root.
    link: Option<usize>,
    is_root: bool,
    fate: Fate,
    is_told: bool,
}

/// A machine with one terminal, as the kernel has it and as the table is told of it.
struct Machine {
    lives: Vec<Life>,
    /// The process that claimed, until the name is released.
    claims: BTreeMap<String, usize>,
    world: World,
}

impl Machine {
    fn chain(&self, number: usize) -> Vec<usize> {
        let up = |at: &usize| self.lives[*at].parent;
        let mut chain: Vec<usize> = std::iter::successors(Some(number), up).collect();
        chain.reverse();
        chain
    }

    fn member(&self, number: usize) -> Member {
        let chain = self.chain(number);
        let chain: Vec<Process> = chain.iter().map(|at| self.lives[*at].process).collect();
        member(&chain)
    }

    fn holder(&self, maker: usize) -> Option<usize> {
        let mut at = Some(maker);
        while let Some(number) = at {
            let life = &self.lives[number];
            match life.fate {
                Fate::Killed if life.is_told => return None,
                Fate::Exits if life.is_told => at = life.link,
                _ => return Some(number),
            }
        }
        None
    }

    /// A new root is linked to the process above it as that is then.
    fn enter(&mut self, number: usize) {
        for at in self.chain(number) {
            let parent = self.lives[at].parent;
            let life = &mut self.lives[at];
            if !std::mem::replace(&mut life.is_root, true) {
                life.link = parent;
            }
        }
    }

    fn tell(&mut self, number: usize) {
        let life = &mut self.lives[number];
        if life.fate != Fate::Lives && !life.is_told {
            life.is_told = true;
            let (process, ending) = (life.process, ending(life.fate));
            self.world.died(process, ending);
        }
    }

    fn check(&self, seed: u64) {
        for (of, maker) in &self.claims {
            let expected = self.holder(*maker).map(|at| self.lives[at].process.pid);
            assert_eq!(self.world.holder(of), expected, "{of}, seed {seed}");
        }
    }
}

#[test]
fn a_machine_on_which_processes_come_claim_and_go_agrees_with_the_table() {
    let (mut passed, mut freed, mut refused) = (0, 0, 0);
    for seed in 1..=3000 {
        let mut dice = Dice::new(seed);
        let mut machine = Machine {
            lives: vec![Life {
                process: process(100),
                parent: None,
                link: None,
                is_root: false,
                fate: Fate::Lives,
                is_told: false,
            }],
            claims: BTreeMap::new(),
            world: World::new(),
        };
        for _ in 0..100 {
            let count = machine.lives.len();
            let number = dice.below(count);
            let lives = machine.lives[number].fate == Fate::Lives;
            match dice.below(10) {
                0..=2 if lives && count < 12 => machine.lives.push(Life {
                    process: process(100 + u32::try_from(count).unwrap()),
                    parent: Some(number),
                    link: None,
                    is_root: false,
                    fate: Fate::Lives,
                    is_told: false,
                }),
                3..=5 if lives => {
                    let of = format!("n{}", dice.below(4));
                    let by = machine.member(number);
                    let is_free = match machine.claims.get(&of) {
                        Some(maker) => machine.holder(*maker).is_none(),
                        None => true,
                    };
                    let seen = machine.world.claim(&of, &by).map(|_| ());
                    let expected = if is_free {
                        Ok(())
                    } else {
                        Err(Refusal::Exists)
                    };
                    assert_eq!(seen, expected, "{of}, seed {seed}");
                    if is_free {
                        machine.enter(number);
                        machine.claims.insert(of, number);
                    } else {
                        refused += 1;
                    }
                }
                6 if lives => {
                    let of = format!("n{}", dice.below(4));
                    let by = machine.member(number);
                    let holder = machine
                        .claims
                        .get(&of)
                        .and_then(|maker| machine.holder(*maker));
                    let is_below = holder.is_some_and(|at| machine.chain(number).contains(&at));
                    let expected = match holder {
                        None => Err(Refusal::NotFound),
                        Some(_) if is_below => Ok(()),
                        Some(_) => Err(Refusal::Busy),
                    };
                    let seen = machine.world.release(&of, &by).map(|_| ());
                    assert_eq!(seen, expected, "{of} by {number}, seed {seed}");
                    if seen.is_ok() {
                        machine.claims.remove(&of);
                    }
                }
                7 if lives && (number > 0 || dice.below(20) == 0) => {
                    let fate = [Fate::Exits, Fate::Killed][dice.below(2)];
                    machine.lives[number].fate = fate;
                    for life in &mut machine.lives {
                        life.parent = life.parent.filter(|parent| *parent != number);
                    }
                }
                8 => machine.tell(number),
                9 => machine.world.restart(dice.below(2) == 0),
                _ => {}
            }
            machine.check(seed);
        }
        for number in 0..machine.lives.len() {
            machine.tell(number);
        }
        machine.check(seed);
        for event in &machine.world.events {
            passed += usize::from(matches!(event.what, What::Passed { .. }));
            freed += usize::from(matches!(event.what, What::Reaped { .. }));
        }
    }
    assert!(
        passed > 1000 && freed > 500 && refused > 1000,
        "{passed} {freed} {refused}"
    );
}

#[test]
fn a_zombie_of_which_nobody_can_tell_how_it_ended_is_stood_for_by_its_parent() {
    let mut world = World::new();
    let (shell, script, part) = (process(10), process(20), process(30));
    let whole = [shell, script, part];
    world.claim("x", &member(&whole)).unwrap();
    assert_eq!(world.died(part, None), []);
    assert!(world.table.leave_unsettled(&part));
    // Nothing is written down, and the script may act on it; its siblings may not.
    let other = member(&[shell, process(40)]);
    assert_eq!(world.holder("x"), Some(20));
    assert_eq!(world.claim("x", &other), Err(Refusal::Exists));
    assert_eq!(world.release("x", &other), Err(Refusal::Busy));
    assert_eq!(world.release("x", &member(&[shell])), Err(Refusal::Busy));
    world
        .table
        .decide(&claim("y", &member(&[shell, script])), now())
        .unwrap();
    // Somebody has waited for it: it was killed after all.
    world.died(part, Some(Ending::Killed(9)));
    assert_eq!(world.holder("x"), None);
    world.claim("x", &other).unwrap();
}

#[test]
fn a_zombie_from_which_nothing_can_pass_is_dead_however_it_ended() {
    let mut world = World::new();
    world.claim("x", &member(&[process(10)])).unwrap();
    let words = world.died(process(10), None);
    assert!(
        matches!(words[..], [What::Left { .. }, What::SessionEnded { .. }]),
        "{words:?}"
    );
    assert_eq!(world.holder("x"), None);
}

#[test]
fn sigpipe_counts_as_an_exit_and_a_core_dump_is_no_other_signal() {
    for (status, expected) in [
        (0x0000, Some(10)),
        (0x0300, Some(10)),
        (0x000d, Some(10)),
        (0x0009, None),
        (0x008b, None),
        (0x000f, None),
    ] {
        let mut world = World::new();
        let (shell, script) = (process(10), process(20));
        world.claim("x", &member(&[shell, script])).unwrap();
        world.died(script, Some(Ending::of_status(status)));
        assert_eq!(world.holder("x"), expected, "{status:#x}");
    }
    assert_eq!(Ending::of_status(0x8b), Ending::Killed(11));
}

#[test]
fn a_hundred_thousand_leases_of_one_process_pass_in_one_event() {
    let mut table = Table::new(200_000);
    let (shell, script) = (process(10), process(20));
    let by = member(&[shell, script]);
    for number in 0..100_000 {
        let of = format!("n{number}");
        for event in table.decide(&claim(&of, &by), now()).unwrap() {
            table.apply(&event);
        }
    }
    let died = Command::Died {
        process: script,
        ending: Some(Ending::Exited(0)),
    };
    let events = table.decide(&died, now()).unwrap();
    assert!(matches!(
        events.iter().map(|event| &event.what).collect::<Vec<_>>()[..],
        [What::Passed { .. }, What::Left { .. }]
    ));
    for event in &events {
        table.apply(event);
    }
    let holder = |of: &str| {
        let ino = table.lease(&name(of)).unwrap().ino;
        table.holder(table.inode(ino).unwrap())
    };
    assert_eq!([holder("n0"), holder("n99999")], [Some(shell); 2]);
    table.check().unwrap();
}

#[test]
fn what_waits_in_line_is_granted_to_the_process_that_opened_the_file_or_to_whom_that_passed_it() {
    let queue = |of: &str, by: &Member| Command::Queue {
        name: name(of),
        by: Box::leak(Box::new(by.clone())),
        creation: creation(1000),
    };
    let (shell, script, cat) = (process(10), process(20), process(30));
    let holder = member(&[shell, process(40)]);
    // The reader is killed while it waits: nobody waits any more.
    let mut world = World::new();
    world.claim("x", &holder).unwrap();
    world
        .run(&queue("x", &member(&[shell, script, cat])))
        .unwrap();
    let next = member(&[shell, process(50)]);
    world.run(&queue("x", &next)).unwrap();
    world.died(cat, Some(Ending::Killed(9)));
    assert_eq!(world.table.queue_length(&name("x")), 1);
    world.release("x", &holder).unwrap();
    assert_eq!(world.holder("x"), Some(50));
    // It has exited, and somebody else has the file open: its parent waits.
    let mut world = World::new();
    world.claim("x", &holder).unwrap();
    world
        .run(&queue("x", &member(&[shell, script, cat])))
        .unwrap();
    world.died(cat, Some(Ending::Exited(0)));
    world.restart(false);
    world.restart(true);
    world.release("x", &holder).unwrap();
    assert_eq!(world.holder("x"), Some(20));
    // The holder is killed: the next has it in the same step.
    let mut world = World::new();
    world.claim("x", &holder).unwrap();
    world.run(&queue("x", &next)).unwrap();
    world.died(process(40), Some(Ending::Killed(9)));
    assert_eq!(world.holder("x"), Some(50));
    // The holder's own script and its children are told that they have it; further down, one waits.
    let below = member(&[shell, process(40), process(41)]);
    let further = member(&[shell, process(40), process(41), process(42)]);
    let mut world = World::new();
    world.claim("x", &holder).unwrap();
    assert_eq!(world.run(&queue("x", &below)).unwrap(), []);
    assert!(!world.run(&queue("x", &further)).unwrap().is_empty());
}

#[test]
fn the_holder_keeps_its_rights_in_another_session_and_its_children_do_not() {
    let (shell, script) = (process(10), process(20));
    let mut world = World::new();
    world.claim("x", &member(&[shell, script])).unwrap();
    let elsewhere = |chain: &[Process]| Member {
        id: id("sid-20-uid-1000"),
        ..member(chain)
    };
    let mut child = elsewhere(&[script, process(30)]);
    child.lineage.extend(member(&[shell]).lineage);
    assert_eq!(world.release("x", &child), Err(Refusal::Busy));
    let mut other_uid = elsewhere(&[script]);
    other_uid.uid = 1001;
    assert_eq!(world.release("x", &other_uid), Err(Refusal::Busy));
    // A claim that it renames stays in the session that made it.
    let rename = Command::Rename {
        from: name("x").into(),
        to: name("y").into(),
        noreplace: false,
        by: &elsewhere(&[script]),
    };
    world.run(&rename).unwrap();
    assert_eq!(world.holder("y"), Some(20));
    world.died(script, Some(Ending::Exited(0)));
    assert_eq!(world.holder("y"), Some(10));
}

#[test]
fn a_pid_in_the_body_binds_to_the_writer_and_below_and_to_nobody_above() {
    let (shell, script, command) = (process(10), process(20), process(30));
    let write = |world: &mut World, by: &Member, text: &str| {
        let ino = world.table.lease(&name("x")).unwrap().ino;
        let change = claimfs::core::Change::Write {
            offset: 0,
            data: text.as_bytes().to_vec(),
        };
        world.run(&Command::Alter { ino, by, change }).unwrap()
    };
    let by = member(&[shell, script]);
    for fate in [Fate::Exits, Fate::Killed] {
        let mut world = World::new();
        world.claim("x", &by).unwrap();
        write(&mut world, &by, "20\n");
        assert_eq!(world.release("x", &member(&[shell])), Err(Refusal::Busy));
        // A command that the script runs may release it.
        let below = member(&[shell, script, command]);
        let release = Command::Release {
            name: name("x").into(),
            directory: false,
            by: &below,
        };
        world.table.decide(&release, now()).unwrap();
        world.died(script, ending(fate));
        assert_eq!(world.holder("x"), None, "{fate:?}");
    }
    // In a sandbox it is the writer's pid or its parent's, and never 1.
    let in_sandbox = |chain: &[Process]| Member {
        rule: Rule::Sandbox,
        sandbox: 77,
        pidns: 77,
        id: id("sandbox-77-uid-1000"),
        ..member(chain)
    };
    let init = process(1);
    for (chain, text, binds) in [
        (&[init, shell, script][..], "20", true),
        (&[init, shell, script], "10", true),
        (&[init, shell, script, command], "10", false),
        (&[init, shell], "1", false),
        (&[init], "1", false),
    ] {
        let by = in_sandbox(chain);
        let mut world = World::new();
        world.claim("x", &by).unwrap();
        let events = write(&mut world, &by, text);
        let is_bound = events.iter().any(|what| matches!(what, What::Bound { .. }));
        assert_eq!(is_bound, binds, "{text} by {:?}", by.pid);
    }
}

/// How a script makes a process of it claim: the processes below the script, and how each ends by
/// itself.
const CONSTRUCTS: [(&str, &[&str]); 14] = [
    ("the script itself", &[]),
    ("( )", &["subshell"]),
    ("$( )", &["subshell"]),
    ("pipeline", &["subshell"]),
    ("background job", &["job"]),
    ("xargs", &["xargs"]),
    ("find -exec", &["find"]),
    ("timeout", &["timeout"]),
    ("make", &["make", "recipe"]),
    ("parallel", &["parallel", "job"]),
    ("nohup", &["job"]),
    ("trap and set -e", &[]),
    ("coproc", &["coprocess"]),
    (
        "a function in a subshell in a subshell",
        &["subshell", "subshell"],
    ),
];

/// Ways to claim: whether a command of its own does it, which exits then, or the shell itself.
const WAYS: [(&str, bool); 9] = [
    (">", false),
    ("mkdir", true),
    ("ln", true),
    ("mv -n", true),
    ("mktemp", true),
    ("lockfile", true),
    ("dotlockfile", true),
    ("shlock", true),
    ("queue", true),
];

/// Ways to end: a wait status.
const ENDS: [(&str, i32); 8] = [
    ("KILL", 0x09),
    ("TERM", 0x0f),
    ("INT", 0x02),
    ("HUP", 0x01),
    ("SEGV, with a core", 0x8b),
    ("out of memory", 0x09),
    ("exit 0", 0x0000),
    ("exit 3", 0x0300),
];

#[test]
fn each_construct_with_each_way_to_claim_and_each_way_to_end_is_as_the_manual_has_it() {
    let mut count = 0;
    for (construct, below) in CONSTRUCTS {
        for (way, is_command) in WAYS {
            for (end, status) in ENDS {
                let what = format!("{construct}, {way}, {end}");
                let number = |at: usize| process(20 + u32::try_from(at).unwrap());
                let (terminal, other) = (process(10), member(&[process(10), process(90)]));
                // The script and what is below it, down to the process that claims.
                let mut tree: Vec<Process> = (0..=below.len()).map(number).collect();
                if is_command {
                    tree.push(number(tree.len()));
                }
                let chain: Vec<Process> = [&[terminal][..], &tree].concat();
                let mut world = World::new();
                world.claim("x", &member(&chain)).unwrap();
                // All that is below the script is done.
                for process in tree[1..].iter().rev() {
                    world.died(*process, Some(Ending::Exited(0)));
                }
                assert_eq!(world.holder("x"), Some(20), "{what}");
                assert_eq!(world.claim("x", &other), Err(Refusal::Exists), "{what}");
                assert_eq!(world.release("x", &other), Err(Refusal::Busy), "{what}");
                let above = member(&[terminal]);
                assert_eq!(world.release("x", &above), Err(Refusal::Busy), "{what}");
                // And then the script itself.
                world.died(tree[0], Some(Ending::of_status(status)));
                let is_exit = end.starts_with("exit");
                let expected = is_exit.then_some(10);
                assert_eq!(world.holder("x"), expected, "{what}");
                assert_eq!(world.claim("x", &other).is_ok(), !is_exit, "{what}");
                count += 1;
            }
        }
    }
    assert_eq!(count, 14 * 9 * 8);
}

/// The events as a claimfs of before wrote them: without makers, and without what roots are linked
/// to.
fn without_makers(events: &[Event]) -> Vec<Event> {
    fn strip(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(fields) => {
                fields.remove("maker");
                fields.remove("above");
                fields.values_mut().for_each(strip);
            }
            serde_json::Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let stripped = events.iter().map(|event| {
        let mut value = serde_json::to_value(event).unwrap();
        strip(&mut value);
        serde_json::from_value(value).unwrap()
    });
    stripped.collect()
}

#[test]
fn leases_of_a_journal_without_makers_keep_the_old_rule_and_new_ones_follow_the_new() {
    let (shell, script, other) = (process(10), process(20), process(30));
    let mut before = World::new();
    before.claim("old", &member(&[shell, script])).unwrap();
    before.claim("kept", &member(&[shell, script])).unwrap();
    let mut world = World::new();
    world.events = without_makers(&before.events);
    for event in &world.events {
        world.table.apply(event);
    }
    world.table.check().unwrap();
    // Of the whole terminal, as it was.
    world.release("old", &member(&[shell, other])).unwrap();
    // A new one is the process's, and passes by way of those that were roots before.
    world.claim("new", &member(&[shell, script])).unwrap();
    let refused = world.release("new", &member(&[shell, other]));
    assert_eq!(refused, Err(Refusal::Busy));
    world.restart(false);
    world.restart(true);
    world.died(script, Some(Ending::Exited(0)));
    assert_eq!(world.holder("new"), Some(10));
    world.died(shell, Some(Ending::Killed(9)));
    assert_eq!(world.holder("new"), None);
    // The script of before keeps its terminal's session alive no more, so that is over with the
    // last of its processes.
    world.died(other, Some(Ending::Exited(0)));
    assert!(world.table.lease(&name("kept")).is_none());
}

#[test]
fn in_a_sandbox_it_passes_to_the_first_process_at_last_also_what_was_started_from_outside() {
    let (init, script, entered) = (process(11), process(20), process(30));
    let heir = |chain: &[Process]| {
        let mut by = member(chain);
        by.roots[0].above = Above::Process(init);
        by.heir = Some(Root {
            above: Above::Nobody,
            ..member(&[init]).roots[0].clone()
        });
        by
    };
    let mut world = World::new();
    world.claim("x", &member(&[init, script])).unwrap();
    world.claim("y", &heir(&[entered])).unwrap();
    world.died(script, Some(Ending::Exited(0)));
    world.died(entered, Some(Ending::Exited(0)));
    assert_eq!([world.holder("x"), world.holder("y")], [Some(11); 2]);
    world.died(init, Some(Ending::Exited(0)));
    assert_eq!([world.holder("x"), world.holder("y")], [None; 2]);
    // Killed, it passes nothing.
    let mut world = World::new();
    world.claim("y", &heir(&[entered])).unwrap();
    world.died(entered, Some(Ending::Killed(9)));
    assert_eq!(world.holder("y"), None);
}
