//! Rings of waiters in the pure core, beside a search that tries every way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, UNIX_EPOCH};

use claimfs::core::table::{RING_MAX, Table};
use claimfs::core::{Command, Member, Moment, Process, WaiterId, What};

use crate::core::model::{claim, creation, member, name, process};
use crate::core::scope;
use crate::support::dice::Dice;

/// A table that is told what happens.
struct World(Table);

impl World {
    fn new() -> Self {
        Self(Table::new(100_000))
    }

    fn run(&mut self, command: &Command) -> Vec<What> {
        let now = Moment {
            wall: UNIX_EPOCH,
            boot: Duration::from_secs(1),
        };
        let events = self.0.decide(command, now).unwrap();
        for event in &events {
            self.0.apply(event);
        }
        events.into_iter().map(|event| event.what).collect()
    }

    fn claim(&mut self, of: &str, by: &Member) {
        self.run(&claim(of, by));
    }

    fn queue(&mut self, of: &str, by: &Member) -> WaiterId {
        let queue = Command::Queue {
            name: name(of),
            by,
            creation: creation(1000),
        };
        let waiter = self.run(&queue).into_iter().find_map(|what| match what {
            What::Queued { waiter, .. } => Some(waiter),
            _ => None,
        });
        waiter.unwrap()
    }

    /// The names that the waiters of a ring wait for, if this one is in a ring.
    fn ring(&self, of: WaiterId) -> Option<Vec<String>> {
        let ring = self.0.rings().of(of)?;
        assert!(ring.is_whole && self.0.is_still(&ring));
        let names = ring.waiters.iter();
        let names = names.map(|waiter| self.0.waits_for(*waiter).unwrap().0.to_string());
        Some(names.collect())
    }
}

fn session(number: usize) -> Member {
    member(&format!("s{number}"), &[process(100 + number as u32)])
}

#[test]
fn a_ring_of_sessions_is_seen_by_each_of_its_waiters_and_by_nobody_else() {
    let mut world = World::new();
    let sessions: Vec<Member> = (0..4).map(session).collect();
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        world.claim(name, &sessions[number]);
    }
    let first = world.queue("b", &sessions[0]);
    let outside = world.queue("a", &sessions[3]);
    assert_eq!(world.ring(first), None, "its holder waits for nothing");
    let second = world.queue("c", &sessions[1]);
    let third = world.queue("a", &sessions[2]);
    let seen = |waiter| world.ring(waiter).unwrap_or_default();
    assert_eq!(seen(first), ["b", "c", "a"]);
    assert_eq!(seen(second), ["c", "a", "b"]);
    assert_eq!(seen(third), ["a", "b", "c"]);
    assert_eq!(
        seen(outside),
        [""; 0],
        "it waits for a ring and is not in it"
    );
    world.run(&Command::Leave { waiter: second });
    assert_eq!((world.ring(first), world.ring(third)), (None, None));
}

#[test]
fn a_ring_of_processes_goes_through_those_above_who_wait() {
    let shell = process(10);
    let scripts = [process(20), process(30)];
    let script = |number: usize| scope::member(&[shell, scripts[number]]);
    let reader = |number: usize, pid: u32| scope::member(&[shell, scripts[number], process(pid)]);
    let mut world = World::new();
    world.claim("a", &script(0));
    world.claim("b", &script(1));
    // Both are of one terminal: only the processes tell them apart.
    let first = world.queue("b", &reader(0, 21));
    assert_eq!(world.ring(first), None);
    let other = world.queue("a", &scope::member(&[shell, process(40)]));
    assert_eq!((world.ring(first), world.ring(other)), (None, None));
    let second = world.queue("a", &reader(1, 31));
    assert_eq!(world.ring(first).unwrap(), ["b", "a"]);
    assert_eq!(world.ring(second).unwrap(), ["a", "b"]);
    assert_eq!(world.ring(other), None);
    // Its own ancestor's name is no ring of several.
    let mut world = World::new();
    world.claim("a", &script(0));
    let own = scope::member(&[shell, scripts[0], process(21), process(22)]);
    let own = world.queue("a", &own);
    assert_eq!(world.ring(own), None);
}

#[test]
fn rings_are_those_that_a_search_finds() {
    let (mut rings, mut long) = (0, 0);
    for seed in 0..400 {
        let mut dice = Dice::new(seed);
        let mut world = World::new();
        let count = 2 + dice.below(8);
        let sessions: Vec<Member> = (0..count).map(session).collect();
        let mut holders = BTreeMap::new();
        for number in 0..count + 3 {
            let holder = dice.below(count);
            world.claim(&format!("n{number}"), &sessions[holder]);
            holders.insert(format!("n{number}"), holder);
        }
        let mut waits = Vec::new();
        for _ in 0..=dice.below(2 * count) {
            let of = format!("n{}", dice.below(count + 3));
            let by = dice.below(count);
            if holders[&of] != by {
                waits.push((world.queue(&of, &sessions[by]), by, of));
            }
        }
        for (waiter, by, of) in &waits {
            // All that the holder waits for, in any number of steps.
            let mut reached = BTreeSet::from([holders[of]]);
            loop {
                let more = waits.iter().filter(|(_, by, _)| reached.contains(by));
                let more: BTreeSet<usize> = more.map(|(_, _, of)| holders[of]).collect();
                if more.is_subset(&reached) {
                    break;
                }
                reached.extend(more);
            }
            let ring = world.ring(*waiter);
            assert_eq!(ring.is_some(), reached.contains(by), "seed {seed}");
            let Some(ring) = ring else { continue };
            rings += 1;
            long += usize::from(ring.len() > 3);
            assert_eq!(ring[0], *of, "seed {seed}");
            let waiters = world.0.rings().of(*waiter).unwrap().waiters;
            for (at, name) in ring.iter().enumerate() {
                let next = waiters[(at + 1) % ring.len()];
                let next = waits.iter().find(|(waiter, ..)| *waiter == next).unwrap();
                assert_eq!(holders[name], next.1, "seed {seed}: {ring:?}");
            }
        }
    }
    assert!(rings > 300 && long > 30, "{rings} {long}");
}

#[test]
fn to_find_all_rings_costs_as_much_as_there_are_waiters() {
    /// The best of three times, so that another test beside it counts less.
    fn time(look: impl Fn()) -> Duration {
        let once = || {
            let began = Instant::now();
            look();
            began.elapsed()
        };
        (0..3).map(|_| once()).min().unwrap()
    }
    // Twenty times as many take 20 to 40 times as long, and would take 400 times as long if each
    // looked at all others. First a ring of all, then a terminal in which all wait for the name of
    // the topmost shell.
    let ring = |count: usize| {
        let mut world = World::new();
        let sessions: Vec<Member> = (0..count).map(session).collect();
        for (number, session) in sessions.iter().enumerate() {
            world.claim(&format!("n{number}"), session);
        }
        for (number, session) in sessions.iter().enumerate() {
            world.queue(&format!("n{}", (number + 1) % count), session);
        }
        world
    };
    let terminal = |count: usize| {
        let mut world = World::new();
        let shell = process(1);
        world.claim("x", &scope::member(&[shell]));
        for number in 0..count as u32 {
            let below: [Process; 2] = [process(10 + 2 * number), process(11 + 2 * number)];
            world.queue("x", &scope::member(&[shell, below[0], below[1]]));
        }
        world
    };
    let all = |world: &World| {
        let rings = world.0.rings();
        world
            .0
            .waiters()
            .filter_map(|waiter| rings.of(waiter))
            .collect::<Vec<_>>()
    };
    let large = ring(10_000);
    let found = all(&large);
    assert_eq!(found.len(), 10_000);
    let is_cut = |ring: &claimfs::core::table::Ring| {
        !ring.is_whole && (1..=RING_MAX).contains(&ring.waiters.len())
    };
    assert!(found.iter().all(is_cut), "a long ring is named in part");
    let small = ring(500);
    let (large, small) = (time(|| _ = all(&large)), time(|| _ = all(&small)));
    assert!(large < small * 120, "{large:?} {small:?}");
    let (large, small) = (terminal(4_000), terminal(200));
    assert_eq!(all(&large).len(), 0);
    let (large, small) = (time(|| _ = all(&large)), time(|| _ = all(&small)));
    assert!(large < small * 120, "{large:?} {small:?}");
}
