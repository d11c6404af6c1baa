//! A listing in pieces, beside commands of all kinds: it is what was held when it began.

use claimfs::core::table::{Past, Table};
use claimfs::core::{Command, Ending, Event, Member, Name, Scope, Token};

use super::model::{claim, id, member, name, process};
use crate::lifecycle::journal::now;
use crate::support::dice::Dice;

/// What is held, by token: who looks at the table at once.
fn held(table: &Table) -> Vec<(Token, Name)> {
    let leases = table.leases(Token(0));
    leases
        .map(|(name, lease)| (lease.token, name.clone()))
        .collect()
}

/// Four sessions, two of them under process scope, with two processes each.
struct World {
    table: Table,
    people: Vec<Member>,
    pids: u32,
    dice: Dice,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            table: Table::new(999),
            people: Vec::new(),
            pids: 0,
            dice: Dice::new(seed),
        };
        world.people = (0..8).map(|number| world.born(number)).collect();
        world
    }

    /// A new process of a session. Nothing is above it, so what it holds passes to nobody.
    fn born(&mut self, number: usize) -> Member {
        self.pids += 1;
        let mut member = member(&format!("w{}", number / 2), &[process(self.pids)]);
        if number >= 4 {
            member.scope = Scope::Process;
        }
        member
    }

    /// A random command, and what is told of its events before they are applied.
    fn step(&mut self, tell: &mut dyn FnMut(&Table, &Event)) {
        let who = self.dice.below(self.people.len());
        let by = self.people[who].clone();
        let of = format!("n{}", self.dice.below(12));
        let lease = self.table.lease(&name(&of)).map(|lease| lease.ino);
        let command = match self.dice.below(9) {
            0..=3 => claim(&of, &by),
            4 => Command::Release {
                name: name(&of).into(),
                directory: false,
                by: &by,
            },
            5 if lease.is_some() => Command::Give {
                ino: lease.unwrap(),
                to: id(&format!("w{}", self.dice.below(4))),
                by: &by,
            },
            6 => {
                self.people[who] = self.born(who);
                Command::Died {
                    process: by.roots[0].process,
                    ending: Some(Ending::Unknown),
                }
            }
            7 if lease.is_some() => Command::Link {
                ino: lease.unwrap(),
                name: name(&format!("m{}", self.dice.below(3))).into(),
                by: &by,
            },
            _ => Command::Sweep { limit: 1 },
        };
        let events = self.table.decide(&command, now(1)).unwrap_or_default();
        for event in &events {
            tell(&self.table, event);
            self.table.apply(event);
        }
    }
}

#[test]
fn a_listing_in_pieces_is_what_was_held_when_it_began() {
    let (mut kept_any, mut gone_any) = (0, 0);
    for seed in 0..3000 {
        let mut world = World::new(seed);
        for _ in 0..40 {
            world.step(&mut |_, _| {});
        }
        let expected = held(&world.table);
        let mut past = Past::of(&world.table);
        let mut seen: Vec<(Token, Name)> = Vec::new();
        loop {
            let mut kept = Vec::new();
            for _ in 0..world.dice.below(8) {
                world.step(&mut |table, event| {
                    kept.extend(
                        past.before(table, event)
                            .into_iter()
                            .map(|name| (token(table, &name), name)),
                    );
                });
            }
            kept_any += kept.len();
            seen.extend(kept);
            let table = &world.table;
            let piece = 1 + world.dice.below(4);
            let has_more = past.show(table, piece, |name| {
                seen.push((token(table, name), name.clone()));
            });
            if !has_more {
                break;
            }
        }
        seen.sort();
        gone_any += usize::from(held(&world.table) != expected);
        assert_eq!(seen, expected, "seed {seed}");
    }
    assert!(kept_any > 1000 && gone_any > 1000, "{kept_any} {gone_any}");
}

/// The token of a name, also if its lease is over and not swept yet.
fn token(table: &Table, name: &Name) -> Token {
    table.last(name).unwrap().0.token
}
