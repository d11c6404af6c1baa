//! Reservations in a small world: three sessions, four paths of which some overlap, and every
//! sequence of up to six steps. After each event no two holders overlap, whatever is dead, expired
//! or given away. And scaffolding: which directory goes, and when.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, UNIX_EPOCH};

use claimfs::core::scaffolding::{Limits, Plank, Scaffolding, TOP};
use claimfs::core::table::Table;
use claimfs::core::{
    Asker, COUNT_END, Command, Ending, Event, Member, Moment, Name, Process, Refusal, Token, What,
};
use std::sync::Arc;

use crate::core::model::{creation, member};

const PATHS: [&str; 4] = ["p/q", "p/q/r", "p/q/s", "p/t"];
const IDS: [&str; 3] = ["a", "b", "c"];
const DEPTH: usize = 6;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// By creating a file.
    Create(usize, usize),
    /// By a line, with the next path too.
    Take(usize, usize),
    Release(usize, usize),
    /// With all below it.
    Drop(usize, usize),
    Give(usize, usize, usize),
    GiveBelow(usize, usize, usize),
    Break(usize, usize),
    Expire(usize),
    Dies(usize),
    Sweep,
}

#[derive(Clone, Default)]
struct State {
    steps: Vec<Step>,
    events: Vec<Event>,
    lives: [u64; 3],
    /// The holders by the events alone.
    held: BTreeMap<Name, Token>,
}

fn path(at: usize) -> Name {
    Name::path(PATHS[at].as_bytes()).unwrap()
}

fn now(seconds: u64) -> Moment {
    Moment {
        wall: UNIX_EPOCH,
        boot: Duration::from_secs(seconds),
    }
}

fn steps() -> Vec<Step> {
    let mut steps = vec![Step::Sweep];
    for who in 0..IDS.len() {
        for at in 0..PATHS.len() {
            steps.extend([
                Step::Create(who, at),
                Step::Take(who, at),
                Step::Release(who, at),
                Step::Drop(who, at),
                Step::Break(who, at),
            ]);
            let to = (who + 1) % IDS.len();
            steps.extend([Step::Give(who, at, to), Step::GiveBelow(who, at, to)]);
        }
        steps.push(Step::Dies(who));
    }
    steps.extend((0..PATHS.len()).map(Step::Expire));
    steps
}

impl State {
    fn table(&self) -> Table {
        let mut table = Table::new(10);
        for event in &self.events {
            table.apply(event);
        }
        table
    }

    fn process(&self, who: usize) -> Process {
        let pid = 10 + who as u32;
        Process {
            pid,
            start: self.lives[who],
            pidfs: self.lives[who],
        }
    }

    fn member(&self, who: usize) -> Member {
        member(IDS[who], &[self.process(who)])
    }

    /// Decides and applies. Checks each event by itself.
    fn run(&mut self, table: &mut Table, command: &Command, at: Moment) -> Result<(), Refusal> {
        for event in table.decide(command, at)? {
            match &event.what {
                What::Claimed { name, token, .. } => {
                    assert_eq!(
                        self.held.insert(name.clone(), *token),
                        None,
                        "{:?}",
                        self.steps
                    );
                }
                What::Handed { name, token, .. } => {
                    assert!(
                        self.held.insert(name.clone(), *token).is_some(),
                        "{:?}",
                        self.steps
                    );
                }
                What::Released { name, .. }
                | What::Reaped { name, .. }
                | What::Expired { name, .. }
                | What::Broken { name, .. } => {
                    assert!(
                        self.held.remove(name).is_some(),
                        "{:?}: {event:?}",
                        self.steps
                    );
                }
                _ => {}
            }
            for one in self.held.keys() {
                let other = self.held.keys().find(|other| other.is_below(one));
                assert_eq!(other, None, "{:?}: below {one}", self.steps);
            }
            table.apply(&event);
            self.events.push(event);
        }
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), Refusal> {
        self.steps.push(step);
        let mut table = self.table();
        let ino = |table: &Table, at: usize| table.lease(&path(at)).map(|lease| lease.ino);
        let table = &mut table;
        let lost = Refusal::NotFound;
        match step {
            Step::Create(who, at) => {
                let (by, creation) = (&self.member(who), creation(0));
                let (name, exclusive, truncate) = (path(at).into(), true, false);
                let claim = Command::Claim {
                    name,
                    by,
                    creation,
                    exclusive,
                    truncate,
                };
                self.run(table, &claim, now(1))
            }
            Step::Take(who, at) => {
                let (by, creation) = (&self.member(who), creation(0));
                let names = vec![path(at), path((at + 1) % PATHS.len())];
                let take = Command::Take {
                    names,
                    by,
                    creation,
                    reason: None,
                };
                self.run(table, &take, now(1))
            }
            Step::Release(who, at) => {
                let (by, name) = (&self.member(who), path(at).into());
                self.run(
                    table,
                    &Command::Release {
                        name,
                        directory: false,
                        by,
                    },
                    now(1),
                )
            }
            Step::Drop(who, at) => {
                let (by, names) = (&self.member(who), vec![path(at)]);
                self.run(table, &Command::Drop { names, by }, now(1))
            }
            Step::Give(who, at, to) => {
                let (by, to) = (&self.member(who), self.member(to).id);
                let ino = ino(table, at).ok_or(lost)?;
                self.run(table, &Command::Give { ino, to, by }, now(1))
            }
            Step::GiveBelow(who, at, to) => {
                let (by, to) = (&self.member(who), self.member(to).id);
                self.run(
                    table,
                    &Command::GiveBelow {
                        path: path(at),
                        to,
                        by,
                    },
                    now(1),
                )
            }
            Step::Break(who, at) => {
                let chain = [self.process(who)];
                let token = table.lease(&path(at)).ok_or(lost)?.token;
                let by = Asker {
                    uid: 0,
                    pidns: 0,
                    chain: &chain,
                    command: Arc::from("sh"),
                };
                self.run(
                    table,
                    &Command::Break {
                        name: path(at),
                        token,
                        by,
                    },
                    now(1),
                )
            }
            Step::Expire(at) => {
                let ino = ino(table, at).ok_or(lost)?;
                let who = (0..IDS.len()).find(|who| {
                    let inode = table.inode(ino);
                    inode.is_some_and(|inode| table.holds(&self.member(*who), inode))
                });
                let (by, ttl) = (&self.member(who.ok_or(lost)?), Some(Duration::from_secs(1)));
                self.run(table, &Command::Limit { ino, by, ttl }, now(1))?;
                let due = claimfs::core::Due::Claim(ino);
                self.run(table, &Command::Expire { due }, now(2))
            }
            Step::Dies(who) => {
                let (process, ending) = (self.process(who), Some(Ending::of_status(9)));
                self.lives[who] += 1;
                self.run(table, &Command::Died { process, ending }, now(1))
            }
            Step::Sweep => self.run(table, &Command::Sweep { limit: 1 }, now(1)),
        }
    }

    /// The state without its numbers: who holds each path, and who lives.
    fn shape(&self) -> String {
        let table = self.table();
        table.check().unwrap();
        let held = (0..PATHS.len()).map(|at| {
            let last = table
                .last(&path(at))
                .map(|(_, _, session)| session.id.to_string());
            (last, table.lease(&path(at)).is_some())
        });
        let live = IDS.map(|id| {
            let id = claimfs::core::SessionId::new(id.as_bytes()).unwrap();
            table.session(&id).is_some()
        });
        format!("{:?} {live:?}", held.collect::<Vec<_>>())
    }
}

#[test]
fn every_way_through_a_small_world_of_paths_keeps_them_apart() {
    let mut seen = HashSet::new();
    let mut newest = vec![State::default()];
    let (mut done, mut refused) = (0, HashSet::new());
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for state in &newest {
            for step in steps() {
                let mut after = state.clone();
                match after.step(step) {
                    Ok(()) => done += 1,
                    Err(refusal) => {
                        refused.insert(format!("{refusal:?}"));
                    }
                }
                if seen.insert(after.shape()) {
                    next.push(after);
                }
            }
        }
        newest = next;
    }
    println!("{} states, {done} steps, refused: {refused:?}", seen.len());
    for refusal in ["Busy", "Exists", "NotDirectory", "IsDirectory", "NotFound"] {
        assert!(refused.contains(refusal), "{refusal}");
    }
}

// Scaffolding.

const SECOND: Duration = Duration::from_secs(1);

fn make(all: &mut Scaffolding, up: u64, label: &str, uid: u32, now: Duration) -> u64 {
    let plank = all.plan(up, label.as_bytes()).unwrap();
    all.add(&plank);
    all.own(plank.number, uid, now);
    plank.number
}

#[test]
fn a_directory_goes_once_it_is_empty_unused_and_not_looked_up() {
    let mut all = Scaffolding::default();
    let a = make(&mut all, TOP, "a", 7, SECOND);
    let b = make(&mut all, a, "b", 7, SECOND);
    let minute = all.limits().idle;
    assert_eq!(all.next_due(), Some(SECOND + minute));
    assert!(all.due(minute, 9).is_empty());
    // The lowest first. To look at it is no use of it, but puts it off by a second.
    all.seen(b, minute + SECOND);
    assert!(all.due(minute + SECOND, 9).is_empty());
    assert_eq!(all.due(minute + 2 * SECOND, 9), [b]);
    all.opened(b).unwrap();
    assert_eq!((all.due(2 * minute, 9), all.next_due()), (vec![], None));
    all.closed(b, false);
    // A descriptor from before this server, which is not counted.
    all.closed(b, true);
    assert_eq!(all.due(2 * minute, 9), [b]);
    let name = Name::path(b"a/b/f").unwrap();
    all.put(&name, Token(1), 2 * minute);
    assert_eq!(all.next_due(), None);
    all.take(&name, Token(1), 3 * minute);
    assert_eq!(all.next_due(), Some(4 * minute));
    all.remove(b);
    // The one above was used long before, and goes at once.
    assert_eq!(all.due(3 * minute, 9), [a]);
    all.remove(a);
    assert!(all.is_empty() && all.share(7) == 0);
}

#[test]
fn too_many_empty_directories_make_room_or_are_refused() {
    let limits = Limits {
        idle: 60 * SECOND,
        empty: 6,
        empty_of_uid: 3,
    };
    let mut all = Scaffolding::default();
    all.limit(limits);
    let first = make(&mut all, TOP, "7-0", 7, SECOND);
    for at in 1..3 {
        make(&mut all, TOP, &format!("7-{at}"), 7, 2 * SECOND);
    }
    // Of a uid: its own oldest goes, once it is a second old.
    assert_eq!(all.make_room(7, TOP, SECOND * 3 / 2), Err(Refusal::Quota));
    assert_eq!(all.make_room(7, TOP, 2 * SECOND), Ok(Some(first)));
    // A walker does not keep it.
    all.seen(first, 2 * SECOND);
    assert_eq!(all.make_room(7, TOP, 2 * SECOND), Ok(Some(first)));
    assert_eq!(all.make_room(8, TOP, 2 * SECOND), Ok(None));
    for at in 0..3 {
        make(&mut all, TOP, &format!("0-{at}"), 0, 2 * SECOND);
    }
    // Of all: the oldest of anybody.
    assert_eq!(all.make_room(8, TOP, SECOND), Err(Refusal::Full));
    assert_eq!(all.make_room(0, TOP, 2 * SECOND), Ok(Some(first)));
    // One that contains something is no empty one.
    all.put(&Name::path(b"7-0/f").unwrap(), Token(1), 2 * SECOND);
    assert_eq!(all.make_room(7, TOP, 2 * SECOND), Ok(None));
}

#[test]
fn a_directory_does_not_go_for_one_that_is_made_in_it() {
    let (idle, now) = (60 * SECOND, 9 * SECOND);
    let mut all = Scaffolding::default();
    all.limit(Limits {
        idle,
        empty: 2,
        empty_of_uid: 1,
    });
    let mut deepest = make(&mut all, TOP, "a", 7, SECOND);
    for _ in 0..5 {
        // It takes the place of the one above, which is not empty any more.
        assert_eq!(all.make_room(7, deepest, now), Ok(None));
        deepest = make(&mut all, deepest, "d", 7, SECOND);
    }
    assert_eq!(all.make_room(7, TOP, now), Ok(Some(deepest)));
    let other = make(&mut all, TOP, "b", 8, SECOND);
    // In another's directory it counts for the maker, in all it does not.
    assert_eq!(all.make_room(7, other, now), Ok(Some(deepest)));
    assert_eq!(all.make_room(9, other, now), Ok(None));
    assert_eq!(all.make_room(9, TOP, now), Ok(Some(deepest)));
}

#[test]
fn what_a_journal_says_of_directories_makes_a_tree_or_nothing() {
    let plank = |number, up, name: &str| Plank {
        number,
        up,
        name: name.into(),
        opens: 0,
    };
    let planks = [
        plank(1, TOP, "a"),
        plank(2, 1, "b"),
        // Of nothing, of itself, above itself, a second of that name, and past all numbers.
        plank(4, 3, "c"),
        plank(5, 5, "d"),
        plank(6, 7, "e"),
        plank(8, 1, "b"),
        plank(COUNT_END, TOP, "f"),
    ];
    let mut all = Scaffolding::of(&planks, 3);
    let paths = |all: &Scaffolding| -> Vec<_> {
        all.tree(TOP)
            .into_iter()
            .map(|(_, name)| name.to_string())
            .collect()
    };
    assert_eq!(paths(&all), ["paths/a/b", "paths/a"]);
    all.resume(5 * SECOND);
    assert_eq!(all.next_due(), Some(5 * SECOND + all.limits().idle));
    // No number is given twice, also not one that was given without a record.
    let again = all.plan(TOP, b"g").unwrap().number;
    assert!(again > 8 + 1000, "{again}");
    let written: Vec<Plank> = all.planks().collect();
    let read = Scaffolding::of(&written, all.next());
    assert_eq!((paths(&read), read.next()), (paths(&all), all.next()));
}

#[test]
fn an_open_descriptor_of_an_empty_directory_is_recorded_and_kept_by_the_next_server() {
    let mut all = Scaffolding::default();
    let a = make(&mut all, TOP, "a", 7, SECOND);
    let name = Name::path(b"a/f").unwrap();
    let note = |all: &mut Scaffolding| {
        let opens = all.to_note(a);
        opens.inspect(|opens| all.noted(a, *opens))
    };
    // While something is in it, it does not matter.
    all.put(&name, Token(1), SECOND);
    all.opened(a).unwrap();
    all.opened(a).unwrap();
    assert_eq!(note(&mut all), None);
    all.take(&name, Token(1), SECOND);
    assert_eq!((note(&mut all), note(&mut all)), (Some(2), None));
    all.put(&name, Token(2), SECOND);
    all.closed(a, false);
    assert_eq!(note(&mut all), Some(1));
    all.take(&name, Token(2), SECOND);
    let planks: Vec<Plank> = all.planks().collect();
    let mut next = Scaffolding::of(&planks, all.next());
    next.resume(SECOND);
    assert!(next.due(200 * SECOND, 9).is_empty());
    // The server that goes on has another one too; an older one is counted down once.
    next.opened(a).unwrap();
    next.closed(a, true);
    next.closed(a, true);
    assert!(next.due(200 * SECOND, 9).is_empty());
    next.closed(a, false);
    assert_eq!(next.due(200 * SECOND, 9), [a]);
}
