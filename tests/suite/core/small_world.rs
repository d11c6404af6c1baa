//! Every state of a small world: two names, three sessions of a process each, and
//! every sequence of up to six steps, each a command of anybody's or a death at any point between.
//! A dead process comes back with its pid and its id.
//!
//! Of the sequences that lead to the same state, one is continued. Two states
//! are the same if they differ only in the numbers of tokens, inodes, sessions and places, of which
//! only the order counts, and in the naming of sessions and names.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use claimfs::core::table::Table;
use claimfs::core::{
    Asker, Command, Event, Ino, Member, Moment, Name, Process, Refusal, Token, WaiterId, What,
};

use crate::core::model::{claim, creation, member, name};
use crate::core::woken;

const NAMES: [&str; 2] = ["x", "y"];
const IDS: [&str; 3] = ["a", "b", "c"];
const DEPTH: usize = 6;

#[derive(Clone, Copy, Debug)]
enum Step {
    Claim(usize, usize),
    Release(usize, usize),
    /// To the other name.
    Rename(usize, usize),
    Break(usize, usize),
    Queue(usize, usize),
    /// To which session.
    Give(usize, usize, usize),
    Dies(usize),
}

/// How a state was come to, as the journal has it, and who is who.
#[derive(Clone, Default)]
struct State {
    path: Vec<Step>,
    events: Vec<Event>,
    /// How often each has died.
    lives: [u64; 3],
    /// The owner of each place in a queue that nobody has left.
    places: Vec<(WaiterId, usize)>,
}

/// A state without its numbers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Shape {
    /// Of each name: whose it is, whether that lives, and its place in the order of tokens.
    names: [Option<(usize, bool, usize)>; 2],
    /// Both names were one session's that is over.
    together: bool,
    live: [bool; 3],
    /// Each place, oldest first: whose, the name it waits for, and the name that it was granted, if
    /// it still has it.
    places: Vec<(usize, Option<usize>, Option<usize>)>,
}

impl Shape {
    /// The least of all that it is with the sessions and the names called otherwise.
    fn canonical(&self) -> Self {
        let orders = [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ];
        let all = orders
            .iter()
            .flat_map(|who| [0, 1].map(|swap| self.renamed(who, swap)));
        all.min().unwrap()
    }

    fn renamed(&self, to: &[usize; 3], swap: usize) -> Self {
        let whose =
            |at: usize| self.names[at ^ swap].map(|(who, lives, rank)| (to[who], lives, rank));
        let other = |name: Option<usize>| name.map(|name| name ^ swap);
        let mut live = [false; 3];
        for who in 0..3 {
            live[to[who]] = self.live[who];
        }
        let places = self.places.iter();
        let places = places.map(|(who, waits, granted)| (to[*who], other(*waits), other(*granted)));
        Self {
            names: [whose(0), whose(1)],
            together: self.together,
            live,
            places: places.collect(),
        }
    }
}

fn steps() -> Vec<Step> {
    let mut steps = Vec::new();
    for who in 0..3 {
        for name in 0..2 {
            steps.extend([
                Step::Claim(who, name),
                Step::Release(who, name),
                Step::Rename(who, name),
                Step::Break(who, name),
                Step::Queue(who, name),
            ]);
            let others = (0..3).filter(|to| *to != who);
            steps.extend(others.map(|to| Step::Give(who, name, to)));
        }
        steps.push(Step::Dies(who));
    }
    steps
}

fn now() -> Moment {
    Moment {
        wall: UNIX_EPOCH,
        boot: Duration::from_secs(1),
    }
}

fn replay(events: &[Event]) -> Table {
    let mut table = Table::new(10);
    for event in events {
        table.apply(event);
    }
    table
}

/// The table as it is written down whole, and read.
fn copy(snapshot: &str) -> Table {
    let read: Table = serde_json::from_str(snapshot).unwrap();
    read.completed(10)
}

impl State {
    fn process(&self, who: usize) -> Process {
        let (pid, life) = (10 + who as u32, self.lives[who]);
        Process {
            pid,
            start: 100,
            pidfs: life,
        }
    }

    fn member(&self, who: usize) -> Member {
        member(IDS[who], &[self.process(who)])
    }

    /// Decides and applies; what happened, unless it is refused.
    fn run(&mut self, table: &mut Table, command: &Command) -> Result<Vec<Event>, Refusal> {
        let events = table.decide(command, now())?;
        if let Err(why) = woken::apply(table, &events) {
            panic!("{why} after {:?}", self.path);
        }
        self.events.extend(events.iter().cloned());
        Ok(events)
    }

    /// The state after a step, with its table, unless nothing comes of it.
    fn after(&self, step: Step, table: &Table) -> Option<(Self, Table)> {
        let (Step::Claim(who, _)
        | Step::Release(who, _)
        | Step::Rename(who, _)
        | Step::Break(who, _)
        | Step::Queue(who, _)
        | Step::Give(who, ..)
        | Step::Dies(who)) = step;
        let by = &self.member(who);
        let chain = [self.process(who)];
        let of = |at: usize| name(NAMES[at]);
        let ino = |at: usize| table.lease(&of(at)).map(|lease| lease.ino);
        let command = match step {
            Step::Claim(_, at) => claim(NAMES[at], by),
            Step::Release(_, at) => Command::Release {
                name: of(at).into(),
                directory: false,
                by,
            },
            Step::Rename(_, at) => Command::Rename {
                from: of(at).into(),
                to: of(1 - at).into(),
                noreplace: false,
                by,
            },
            Step::Break(_, at) => Command::Break {
                name: of(at),
                token: table.lease(&of(at))?.token,
                by: Asker {
                    uid: 1000,
                    pidns: 0,
                    chain: &chain,
                    command: Arc::from("sh"),
                },
            },
            Step::Queue(_, at) => Command::Queue {
                name: of(at),
                by,
                creation: creation(1000),
            },
            Step::Give(_, at, to) => Command::Give {
                ino: ino(at)?,
                to: self.member(to).id,
                by,
            },
            Step::Dies(_) => Command::Died {
                process: chain[0],
                ending: Some(claimfs::core::Ending::Exited(0)),
            },
        };
        let events = table.decide(&command, now()).ok()?;
        if events.is_empty() {
            return None;
        }
        let mut state = self.clone();
        state.path.push(step);
        let mut table = replay(&state.events);
        state.run(&mut table, &command).unwrap();
        let queued = events.iter().find_map(|event| match &event.what {
            What::Queued { waiter, .. } => Some((*waiter, who)),
            _ => None,
        });
        state.places.extend(queued);
        if let Step::Dies(who) = step {
            state.lives[who] += 1;
            let gone = |place: &(WaiterId, usize)| place.1 == who;
            for (waiter, _) in state
                .places
                .extract_if(.., |place| gone(place))
                .collect::<Vec<_>>()
            {
                state.run(&mut table, &Command::Leave { waiter }).unwrap();
            }
        }
        state.forget(&mut table);
        Some((state, table))
    }

    /// Nothing is open in this world.
    fn forget(&mut self, table: &mut Table) {
        let nameless: Vec<Ino> = table.nameless().collect();
        for ino in nameless {
            self.run(table, &Command::Forget { ino }).unwrap();
        }
    }

    fn shape(&self, table: &Table) -> Shape {
        let names = NAMES.map(name);
        let last = names.each_ref().map(|name| table.last(name));
        let tokens = last.map(|last| last.map(|(lease, ..)| lease.token));
        let shape = |at: usize| {
            let (_, _, session) = last[at]?;
            let who = IDS.iter().position(|id| *id == session.id.as_str())?;
            let rank = usize::from(tokens[at] > tokens[1 - at]);
            Some((who, session.is_alive(), rank))
        };
        let keys = last.map(|last| last.map(|(_, _, session)| session.key));
        let at = |name: &Name| names.iter().position(|there| there == name);
        let places = self.places.iter().map(|(waiter, who)| {
            let waits = table.waits_for(*waiter).and_then(|(name, _)| at(name));
            let granted = table.granted(*waiter).and_then(|(name, _)| at(name));
            (*who, waits, granted)
        });
        Shape {
            names: [shape(0), shape(1)],
            together: keys[0] == keys[1],
            live: [0, 1, 2].map(|who| table.session(&self.member(who).id).is_some()),
            places: places.collect(),
        }
    }

    /// Invariants of the events alone: a name is granted only when nobody has it, and tokens
    /// rise.
    fn check_events(&self) {
        let mut holders: [Option<Token>; 2] = [None; 2];
        let mut newest = Token(0);
        for event in &self.events {
            let (name, was, is) = match &event.what {
                What::Claimed { name, token, .. } => (name, None, Some(*token)),
                What::Handed {
                    name, was, token, ..
                } => (name, Some(*was), Some(*token)),
                What::Released { name, token }
                | What::Reaped { name, token, .. }
                | What::Broken { name, token, .. } => (name, Some(*token), None),
                _ => continue,
            };
            let at = usize::from(name.as_str() == NAMES[1]);
            assert_eq!(holders[at], was, "{event:?} after {:?}", self.path);
            assert!(is.is_none_or(|is| is > newest), "{:?}", self.path);
            newest = is.unwrap_or(newest);
            holders[at] = is;
        }
    }

    /// The names that anybody can take, and those that nobody can.
    fn check_names(&self, table: &Table) {
        for at in NAMES {
            let holder = table
                .last(&name(at))
                .filter(|_| table.lease(&name(at)).is_some());
            let holder = holder.map(|(.., session)| session.id.clone());
            for who in 0..3 {
                let by = self.member(who);
                let seen = table.decide(&claim(at, &by), now()).map(|_| ());
                let expected = holder.as_ref().map_or(Ok(()), |_| Err(Refusal::Exists));
                assert_eq!(seen, expected, "{at} by {} after {:?}", by.id, self.path);
                let release = Command::Release {
                    name: name(at).into(),
                    directory: false,
                    by: &by,
                };
                let seen = table.decide(&release, now()).map(|_| ());
                let expected = match &holder {
                    None => Err(Refusal::NotFound),
                    Some(holder) if *holder == by.id => Ok(()),
                    Some(_) => Err(Refusal::Busy),
                };
                assert_eq!(seen, expected, "{at} by {} after {:?}", by.id, self.path);
            }
            // The holder lives, and so do the waiters; and a name with waiters is held.
            let name = name(at);
            let waits: Vec<_> = table.queue(&name).map(|(_, waiter)| waiter.key).collect();
            assert!(waits.is_empty() || holder.is_some(), "{:?}", self.path);
            for key in waits {
                assert!(table.session_by_key(key).unwrap().is_alive());
            }
        }
    }

    /// Once all are dead, and what they left is swept, nothing remains.
    fn check_end(&self) {
        let (mut state, mut table) = (self.clone(), replay(&self.events));
        for who in 0..3 {
            let process = state.process(who);
            state
                .run(
                    &mut table,
                    &Command::Died {
                        process,
                        ending: Some(claimfs::core::Ending::Exited(0)),
                    },
                )
                .unwrap();
        }
        assert_eq!(table.lease_count(), 0, "after {:?}", self.path);
        for (waiter, _) in std::mem::take(&mut state.places) {
            state.run(&mut table, &Command::Leave { waiter }).unwrap();
        }
        state.run(&mut table, &Command::Sweep { limit: 9 }).unwrap();
        state.forget(&mut table);
        assert_eq!(table.remembered(), 0, "after {:?}", self.path);
    }
}

#[test]
fn every_sequence_of_six_steps_of_three_sessions_and_two_names_keeps_the_promises() {
    let began = std::time::Instant::now();
    let steps = steps();
    let first = State::default();
    let mut seen = HashSet::from([first.shape(&replay(&[])).canonical()]);
    let (mut transitions, mut newest) = (0, vec![first]);
    let mut sizes = vec![1];
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for state in newest {
            let table = replay(&state.events);
            let snapshot = serde_json::to_string(&table).unwrap();
            for step in &steps {
                let Some((after, is)) = state.after(*step, &table) else {
                    continue;
                };
                transitions += 1;
                if !seen.insert(after.shape(&is).canonical()) {
                    continue;
                }
                let mut again = copy(&snapshot);
                for event in &after.events[state.events.len()..] {
                    again.apply(event);
                }
                assert!(again == is, "replayed it is another after {:?}", after.path);
                after.check_events();
                after.check_names(&is);
                after.check_end();
                next.push(after);
            }
        }
        sizes.push(next.len());
        newest = next;
    }
    println!(
        "{} states ({sizes:?}), {transitions} transitions in {:?}",
        seen.len(),
        began.elapsed()
    );
    // Another rule makes another world: look at what has changed, and say it here.
    assert_eq!((seen.len(), transitions), (11_006, 41_929));
}
