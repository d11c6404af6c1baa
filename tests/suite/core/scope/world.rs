//! A terminal, two scripts of it and two names: every sequence of so many steps, each a command of
//! anybody's or a death.
//!
//! Beside the table goes a reference that says the seven sentences of the manual naively: lists
//! that are searched.

use std::collections::HashSet;

use claimfs::core::{Command, Ending, Refusal, What};

use super::{World, member};
use crate::core::model::{creation, name, process};

const NAMES: [&str; 2] = ["x", "y"];
const TERMINAL: usize = 0;
const DEPTH: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Claim(usize, usize),
    Release(usize, usize),
    /// To the other name.
    Rename(usize, usize),
    Queue(usize, usize),
    Exits(usize),
    Killed(usize),
}

fn steps() -> Vec<Step> {
    let mut steps = Vec::new();
    for who in 0..3 {
        for name in 0..2 {
            steps.extend([
                Step::Claim(who, name),
                Step::Release(who, name),
                Step::Rename(who, name),
                Step::Queue(who, name),
            ]);
        }
        steps.extend([Step::Exits(who), Step::Killed(who)]);
    }
    steps
}

/// The living, the holders and the waiters.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
struct Reference {
    dead: [bool; 3],
    holders: [Option<usize>; 2],
    /// First come, first served.
    lines: [Vec<usize>; 2],
}

impl Reference {
    /// Itself, or a script of the terminal that holds it.
    fn may_change(&self, who: usize, name: usize) -> Result<(), Refusal> {
        match self.holders[name] {
            None => Err(Refusal::NotFound),
            Some(holder) if holder == who || (holder == TERMINAL && !self.dead[TERMINAL]) => Ok(()),
            Some(_) => Err(Refusal::Busy),
        }
    }

    fn step(&mut self, step: Step) -> Result<(), Refusal> {
        match step {
            Step::Claim(who, name) => {
                if self.holders[name].is_some() {
                    return Err(Refusal::Exists);
                }
                self.holders[name] = Some(who);
            }
            Step::Release(who, name) => {
                self.may_change(who, name)?;
                self.holders[name] = None;
            }
            Step::Rename(who, name) => {
                self.may_change(who, name)?;
                if self.holders[1 - name].is_some() {
                    self.may_change(who, 1 - name)?;
                }
                self.holders[1 - name] = self.holders[name].take();
            }
            Step::Queue(who, name) => match self.holders[name] {
                None => self.holders[name] = Some(who),
                // The holder and its children are told that they have it.
                Some(_) if self.may_change(who, name).is_ok() => {}
                Some(_) => self.lines[name].push(who),
            },
            // The claims of a script pass to the terminal, if that lives.
            Step::Exits(who) => {
                let heir = Some(TERMINAL).filter(|_| who != TERMINAL && !self.dead[TERMINAL]);
                self.dies(who, heir);
            }
            Step::Killed(who) => self.dies(who, None),
        }
        for name in 0..2 {
            if self.holders[name].is_none() && !self.lines[name].is_empty() {
                self.holders[name] = Some(self.lines[name].remove(0));
            }
        }
        Ok(())
    }

    fn dies(&mut self, who: usize, heir: Option<usize>) {
        self.dead[who] = true;
        for holder in &mut self.holders {
            *holder = if *holder == Some(who) { heir } else { *holder };
        }
        for line in &mut self.lines {
            let places = line
                .iter()
                .filter_map(|place| if *place == who { heir } else { Some(*place) });
            *line = places.collect();
        }
    }
}

/// The same step, of the table.
fn perform(world: &mut World, reference: &Reference, step: Step) -> Result<(), Refusal> {
    let number = |who: usize| process(10 + u32::try_from(who).unwrap());
    let by = |who: usize| {
        if who == TERMINAL || reference.dead[TERMINAL] {
            member(&[number(who)])
        } else {
            member(&[number(TERMINAL), number(who)])
        }
    };
    let done = match step {
        Step::Claim(who, at) => world.claim(NAMES[at], &by(who)),
        Step::Release(who, at) => world.release(NAMES[at], &by(who)),
        Step::Rename(who, at) => world.run(&Command::Rename {
            from: name(NAMES[at]).into(),
            to: name(NAMES[1 - at]).into(),
            noreplace: false,
            by: &by(who),
        }),
        Step::Queue(who, at) => world.run(&Command::Queue {
            name: name(NAMES[at]),
            by: &by(who),
            creation: creation(1000),
        }),
        Step::Exits(who) => Ok(world.died(number(who), Some(Ending::Exited(0)))),
        Step::Killed(who) => Ok(world.died(number(who), Some(Ending::Killed(15)))),
    };
    // Each reads at once that it is its turn.
    for what in done? {
        if let What::Granted { waiter, .. } = what {
            world.run(&Command::Accept { waiter })?;
        }
    }
    let nameless: Vec<_> = world.table.nameless().collect();
    for ino in nameless {
        world.run(&Command::Forget { ino })?;
    }
    Ok(())
}

fn same(world: &World, reference: &Reference, path: &[Step]) {
    for (at, of) in NAMES.iter().enumerate() {
        let expected = reference.holders[at].map(|who| 10 + u32::try_from(who).unwrap());
        assert_eq!(world.holder(of), expected, "{of} after {path:?}");
        let name = name(of);
        let line = world.table.queue(&name);
        let line: Vec<u32> = line.map(|(_, place)| place.maker.unwrap().pid).collect();
        let expected = reference.lines[at]
            .iter()
            .map(|who| 10 + u32::try_from(*who).unwrap());
        assert_eq!(line, expected.collect::<Vec<_>>(), "{of} after {path:?}");
    }
}

fn replay(path: &[Step]) -> (World, Reference) {
    let (mut world, mut reference) = (World::new(), Reference::default());
    for step in path {
        perform(&mut world, &reference, *step).unwrap();
        reference.step(*step).unwrap();
    }
    (world, reference)
}

#[test]
fn every_sequence_of_five_steps_of_a_terminal_and_two_scripts_is_as_the_manual_has_it() {
    let steps = steps();
    let mut newest: Vec<Vec<Step>> = vec![Vec::new()];
    let mut seen = HashSet::from([Reference::default()]);
    let mut transitions = 0;
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for path in newest {
            for step in &steps {
                let (Step::Claim(who, _)
                | Step::Release(who, _)
                | Step::Rename(who, _)
                | Step::Queue(who, _)
                | Step::Exits(who)
                | Step::Killed(who)) = *step;
                let (mut world, mut reference) = replay(&path);
                if reference.dead[who] {
                    continue;
                }
                let mut path = path.clone();
                path.push(*step);
                let before = reference.clone();
                let is = perform(&mut world, &before, *step);
                assert_eq!(is, reference.step(*step), "{path:?}");
                if is.is_err() {
                    continue;
                }
                same(&world, &reference, &path);
                transitions += 1;
                if seen.insert(reference) {
                    world.restart(false);
                    world.restart(true);
                    next.push(path);
                }
            }
        }
        newest = next;
    }
    // Another rule makes another world: look at what has changed, and say it here.
    assert_eq!((seen.len(), transitions), (774, 4_456));
}
