//! Who is woken: every waiter whose turn has come in whatever way, and nobody else. The worlds of
//! the other modules check it after each step.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use claimfs::core::table::{Table, Turn};
use claimfs::core::{
    Asker, Command, Ending, Event, Member, Moment, Name, Rule, SessionKey, WaiterId,
};

use super::model::{claim, creation, id, member, name, process};
use super::scope::member as of_terminal;

/// Those who wait.
pub struct Waiters(Vec<(WaiterId, SessionKey, Name)>);

impl Waiters {
    /// As it is before some events.
    pub fn of(table: &Table) -> Self {
        let waiting = table.waiters().filter_map(|waiter| {
            let (name, _) = table.waits_for(waiter)?;
            Some((waiter, table.waiter(waiter)?.key, name.clone()))
        });
        let waiting =
            waiting.filter(|(waiter, key, name)| table.turn(*waiter, *key, name) == Turn::Waits);
        Self(waiting.collect())
    }

    /// Whether these of them are woken by rights, with the table as it is after the events.
    pub fn check(&self, after: &Table, woken: &[WaiterId]) -> Result<(), String> {
        for (waiter, key, name) in &self.0 {
            let turn = after.turn(*waiter, *key, name);
            if (turn == Turn::Waits) == woken.contains(waiter) {
                let number = waiter.0;
                return Err(format!(
                    "{number} is {turn:?} for {name}, woken are {woken:?}"
                ));
            }
        }
        Ok(())
    }
}

/// Applies the events of a decision, and checks whom they wake.
pub fn apply(table: &mut Table, events: &[Event]) -> Result<Vec<WaiterId>, String> {
    let before = Waiters::of(table);
    let effects = events.iter().map(|event| table.apply(event));
    let woken: Vec<WaiterId> = effects.flat_map(|effects| effects.woken).collect();
    before.check(table, &woken)?;
    Ok(woken)
}

struct World(Table);

impl World {
    /// Who is woken by a command.
    fn woken(&mut self, command: &Command) -> Vec<u64> {
        let now = Moment {
            wall: UNIX_EPOCH,
            boot: Duration::from_secs(1),
        };
        let events = self.0.decide(command, now).unwrap();
        let mut woken = apply(&mut self.0, &events).unwrap();
        woken.sort_unstable();
        woken.dedup();
        woken.into_iter().map(|waiter| waiter.0).collect()
    }

    fn queue(&mut self, of: &str, by: &Member) {
        let queue = Command::Queue {
            name: name(of),
            by,
            creation: creation(by.uid),
        };
        assert_eq!(self.woken(&queue), [] as [u64; 0]);
    }

    fn release(&mut self, of: &str, by: &Member) -> Vec<u64> {
        self.woken(&Command::Release {
            name: name(of).into(),
            directory: false,
            by,
        })
    }

    fn give(&mut self, of: &str, to: &str, by: &Member) -> Vec<u64> {
        let ino = self.0.lease(&name(of)).unwrap().ino;
        self.woken(&Command::Give {
            ino,
            to: id(to),
            by,
        })
    }
}

/// A shell of a terminal, and a script of it.
fn script(number: u32) -> Member {
    of_terminal(&[process(10), process(number)])
}

#[test]
fn of_a_line_of_one_terminal_each_release_wakes_the_next_alone() {
    let mut world = World(Table::new(100));
    world.woken(&claim("x", &script(11)));
    for number in 12..42 {
        world.queue("x", &script(number));
    }
    for (waiter, number) in (1..31).zip(11..41) {
        assert_eq!(world.release("x", &script(number)), [waiter]);
    }
    assert_eq!(world.0.queue_length(&name("x")), 0);
}

#[test]
fn a_script_that_is_killed_wakes_the_next_alone_and_one_that_exits_nobody() {
    let mut world = World(Table::new(100));
    world.woken(&claim("x", &script(11)));
    for number in 12..15 {
        world.queue("x", &script(number));
    }
    let died = |number, ending| Command::Died {
        process: process(number),
        ending: Some(ending),
    };
    // The claim passes to the shell, and the place of a script too.
    assert_eq!(world.woken(&died(11, Ending::Exited(0))), [] as [u64; 0]);
    assert_eq!(world.woken(&died(13, Ending::Exited(0))), [] as [u64; 0]);
    assert_eq!(world.release("x", &of_terminal(&[process(10)])), [1]);
    // The shell, for which 13 has waited, and then 14.
    assert_eq!(world.woken(&died(12, Ending::Killed(9))), [2]);
    assert_eq!(world.release("x", &of_terminal(&[process(10)])), [3]);
}

#[test]
fn all_waiters_of_a_session_by_variable_are_woken_when_it_gets_the_name() {
    let mut world = World(Table::new(100));
    let (a, b) = (member("a", &[process(1)]), member("b", &[process(2)]));
    let c = member("c", &[process(3)]);
    for (first, given) in [(1, false), (6, true)] {
        world.woken(&claim("x", &a));
        for by in [&b, &c, &b, &c, &b] {
            world.queue("x", by);
        }
        let woken = if given {
            world.give("x", "b", &a)
        } else {
            world.release("x", &a)
        };
        let of_b = [0, 2, 4].map(|number| first + number);
        assert_eq!(woken, of_b);
        // So are they if the holder gives the name on, since they hold it too.
        for waiter in of_b {
            let waiter = WaiterId(waiter);
            world.woken(&Command::Accept { waiter });
            world.woken(&Command::Leave { waiter });
        }
        assert_eq!(world.release("x", &b), [first + 1, first + 3]);
        for waiter in [first + 1, first + 3].map(WaiterId) {
            world.woken(&Command::Accept { waiter });
            world.woken(&Command::Leave { waiter });
        }
        assert_eq!(world.release("x", &c), [] as [u64; 0]);
    }
}

#[test]
fn what_is_renamed_to_a_name_with_a_queue_wakes_those_that_hold_it_now() {
    let mut world = World(Table::new(100));
    let a = member("a", &[process(1)]);
    let breaker = [process(1)];
    for (holder, of_a) in [(member("a", &[process(1)]), true), (script(11), false)] {
        let mut registered = holder.clone();
        if of_a {
            registered.rule = Rule::Variable;
        }
        world.woken(&claim("from", &registered));
        world.woken(&claim("to", &registered));
        let other = if of_a { script(12) } else { a.clone() };
        world.queue("to", &other);
        // The holder gets the other name in place of its own: nobody waits for less.
        let rename = Command::Rename {
            from: name("from").into(),
            to: name("to").into(),
            noreplace: false,
            by: &registered,
        };
        assert_eq!(world.woken(&rename), [] as [u64; 0]);
        let token = world.0.lease(&name("to")).unwrap().token;
        let broken = world.woken(&Command::Break {
            name: name("to"),
            token,
            by: Asker {
                uid: 0,
                pidns: 0,
                chain: &breaker,
                command: Arc::from("sh"),
            },
        });
        assert_eq!(broken.len(), 1);
        world.release("to", &other);
    }
}
