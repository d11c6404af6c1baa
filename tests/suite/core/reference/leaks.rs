//! Random commands of every kind, with directories and what is in them: nothing panics, the table's
//! counts are right, a replay of the events is the same table, and once every process is dead
//! nothing is left.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use claimfs::core::content::INSIDE_MAX;
use claimfs::core::table::Table;
use claimfs::core::{
    Asker, Attributes, Change, Command, Creation, Due, Event, FIRST_INO, Ino, Label, Member,
    Moment, NOWHERE, Name, Place, Process, RemoteSession, Rule, SessionId, Shape, Token, WaiterId,
    What,
};

use crate::core::model::{member, name, process};
use crate::support::dice::Dice;

const NAMES: [&str; 5] = ["a", "b", "c", ".s", "d"];
const LABELS: [&[u8]; 4] = [b"k", b"l", b".m", b"\xff"];

struct World {
    dice: Dice,
    table: Table,
    events: Vec<Event>,
    next_pid: u32,
    alive: Vec<(SessionId, Process)>,
    now: u64,
    /// Inodes that a descriptor keeps.
    open: Vec<Ino>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            dice: Dice::new(seed),
            table: Table::new(12),
            events: Vec::new(),
            next_pid: 100,
            alive: Vec::new(),
            now: 1,
            open: Vec::new(),
        }
    }

    fn run(&mut self, command: &Command) -> bool {
        let now = Moment {
            wall: UNIX_EPOCH + Duration::from_secs(self.now),
            boot: Duration::from_secs(self.now),
        };
        let Ok(events) = self.table.decide(command, now) else {
            return false;
        };
        let mut nameless = Vec::new();
        for event in events {
            match &event.what {
                What::Released { name, .. } => nameless.extend(self.at(&name.clone().into())),
                What::Unlinked { dir, label } => nameless.extend(self.at(&Place::Inside {
                    dir: *dir,
                    label: label.clone(),
                })),
                _ => {}
            }
            self.table.apply(&event);
            self.events.push(event);
        }
        for ino in nameless {
            self.forget(ino);
        }
        true
    }

    fn at(&self, place: &Place) -> Option<Ino> {
        match place {
            Place::Claim(name) => self.table.last(name).map(|(lease, ..)| lease.ino),
            Place::Inside { dir, label } => self.table.entry(*dir, label),
        }
    }

    /// As the store does: what has no name and is not open is forgotten, and perhaps the claim that
    /// it was in.
    fn forget(&mut self, ino: Ino) {
        if !self.table.is_nameless(ino) || self.open.contains(&ino) {
            return;
        }
        let claim = self.table.node(ino).map(|node| node.claim);
        self.run(&Command::Forget { ino });
        if let Some(claim) = claim.filter(|claim| *claim != ino) {
            self.forget(claim);
        }
    }

    fn by(&mut self) -> Member {
        if self.alive.len() < 3 || self.dice.below(12) == 0 {
            let id = SessionId::new(self.dice.pick(&[b"w1", b"w2", b"w3"])).unwrap();
            self.next_pid += 1;
            self.alive.push((id, process(self.next_pid)));
        }
        let (id, root) = self.dice.pick(&self.alive);
        let mut by = member(id.as_str(), &[root]);
        by.rule = self.dice.pick(&[Rule::Variable, Rule::Posix]);
        by
    }

    fn ino(&mut self) -> Ino {
        let newest = self.events.len() as u64;
        Ino(FIRST_INO + self.dice.below(newest.min(60) as usize + 1) as u64)
    }

    fn recent(&mut self) -> Ino {
        let inos = self
            .events
            .iter()
            .rev()
            .filter_map(|event| match &event.what {
                What::Claimed { ino, .. } | What::Linked { ino, .. } | What::Handed { ino, .. } => {
                    Some(*ino)
                }
                _ => None,
            });
        let recent: Vec<Ino> = inos.take(12).collect();
        if recent.is_empty() {
            self.ino()
        } else {
            self.dice.pick(&recent)
        }
    }

    fn waiter(&mut self) -> WaiterId {
        let newest = self
            .events
            .iter()
            .rev()
            .find_map(|event| match &event.what {
                What::Queued { waiter, .. } => Some(waiter.0),
                _ => None,
            });
        WaiterId(
            newest
                .unwrap_or(1)
                .saturating_sub(self.dice.below(6) as u64),
        )
    }

    /// A name, and a session without processes, or another's.
    fn named(&mut self) -> (Name, RemoteSession) {
        let id = SessionId::new(self.dice.pick(&[b"n1", b"n2", b"w1"])).unwrap();
        let (uid, gid) = (self.dice.pick(&[1000, 1000, 1001]), 1000);
        let name = name(self.dice.pick(&["a", "b", "c", "d"]));
        (
            name,
            RemoteSession {
                id,
                uid,
                pidns: NOWHERE,
                gid,
            },
        )
    }

    fn place(&mut self) -> Place {
        if self.dice.below(2) == 0 {
            let raw = self.dice.pick(&NAMES);
            return Name::with_scratch(raw.as_bytes()).unwrap().into();
        }
        let label = Label::new(self.dice.pick(&LABELS)).unwrap();
        let dir = self.recent();
        Place::Inside { dir, label }
    }

    fn creation(&mut self) -> Creation {
        let symlink = Shape::Symlink(Arc::from(&b"somewhere"[..]));
        let shapes = [Shape::File, Shape::Directory, Shape::Directory, symlink];
        Creation {
            shape: self.dice.pick(&shapes),
            mode: 0o644,
            uid: 1000,
            gid: 1000,
        }
    }

    fn change(&mut self, by: &Member) -> Change {
        let pid = by.pid.to_string();
        let bodies: [&[u8]; 6] = [
            b"{\"ttl\":3}",
            b"{\"session\":\"w2\"}",
            b"{\"session\":\"w3\",\"ttl\":\"5s\"}",
            b"",
            b" ",
            pid.as_bytes(),
        ];
        let data = self.dice.pick(&bodies).to_vec();
        let offset = self.dice.pick(&[0, 0, 7, INSIDE_MAX as u64 / 2]);
        match self.dice.below(6) {
            0 | 1 => Change::Write { offset: 0, data },
            2 => Change::Write { offset, data },
            3 => Change::Append { data },
            4 => Change::Resize { size: offset },
            _ => Change::Attributes(Attributes {
                mtime: Some(UNIX_EPOCH),
                ..Attributes::default()
            }),
        }
    }

    fn step(&mut self) {
        self.now += self.dice.below(2) as u64;
        let by = &self.by();
        let ino = self.recent();
        match self.dice.below(28) {
            0..6 => {
                let (name, creation) = (self.place(), self.creation());
                let (exclusive, truncate) = (self.dice.below(2) == 0, self.dice.below(2) == 0);
                self.run(&Command::Claim {
                    name,
                    by,
                    creation,
                    exclusive,
                    truncate,
                });
            }
            6..8 => {
                let change = self.change(by);
                self.run(&Command::Alter { ino, by, change });
            }
            8..10 => {
                let (name, directory) = (self.place(), self.dice.below(2) == 0);
                self.run(&Command::Release {
                    name,
                    directory,
                    by,
                });
            }
            10..13 => {
                let (from, to) = (self.place(), self.place());
                let noreplace = self.dice.below(3) == 0;
                self.run(&Command::Rename {
                    from,
                    to,
                    noreplace,
                    by,
                });
            }
            13 => {
                let name = self.place();
                self.run(&Command::Link { ino, name, by });
            }
            14 => {
                let (one, other) = (self.place(), self.place());
                self.run(&Command::Exchange { one, other, by });
            }
            15 => {
                let ttl = self.dice.pick(&[None, Some(Duration::from_secs(4))]);
                self.run(&Command::Limit { ino, by, ttl });
            }
            16 => {
                let to = self.dice.pick(&self.alive).0;
                self.run(&Command::Give { ino, to, by });
            }
            17 => {
                let due = self.table.next_deadline();
                self.run(&Command::Expire {
                    due: due.map_or(Due::Claim(ino), |(_, due)| due),
                });
            }
            18 => {
                let name = name(self.dice.pick(&["a", "b", "c", "d"]));
                let token = self
                    .table
                    .lease(&name)
                    .map_or(Token(1), |lease| lease.token);
                let by = Asker {
                    uid: 1000,
                    pidns: 0,
                    chain: &[],
                    command: Arc::from("sh"),
                };
                self.run(&Command::Break { name, token, by });
            }
            26 => {
                let (name, by) = self.named();
                let ttl = Duration::from_secs(self.dice.pick(&[2, 5]));
                self.run(&Command::Hold { name, by: &by, ttl });
            }
            27 => {
                let (name, by) = self.named();
                self.run(&Command::Yield { name, by: &by });
            }
            22..24 => {
                let name = name(self.dice.pick(&["a", "b", "c", "d"]));
                let creation = Creation {
                    shape: Shape::File,
                    ..self.creation()
                };
                self.run(&Command::Queue { name, by, creation });
            }
            24 => {
                let waiter = self.waiter();
                self.run(&Command::Accept { waiter });
            }
            25 => {
                let waiter = self.waiter();
                self.run(&Command::Leave { waiter });
            }
            19 => {
                if self.table.node(ino).is_some() {
                    self.open.push(ino);
                }
            }
            20 => {
                if let Some(ino) = self.open.pop() {
                    self.forget(ino);
                }
            }
            _ => {
                let index = self.dice.below(self.alive.len());
                let (_, process) = self.alive.swap_remove(index);
                self.run(&Command::Died {
                    process,
                    ending: Some(claimfs::core::Ending::Exited(0)),
                });
                let limit = self.dice.below(4);
                self.run(&Command::Sweep { limit });
            }
        }
    }

    /// Names with waiters are held, and the counts in a claim are those of the entries below it.
    fn check(&self) {
        for name in self.table.queued_names() {
            assert!(
                self.table.lease(name).is_some(),
                "{name} is waited for and free"
            );
            let sessions = self.table.queue(name).map(|(_, waiter)| waiter.key);
            for key in sessions {
                assert!(self.table.session_by_key(key).unwrap().is_alive());
            }
        }
        for name in NAMES {
            let name = Name::with_scratch(name.as_bytes()).unwrap();
            let Some(lease) = self.table.lease(&name) else {
                continue;
            };
            let below = self.table.inode(lease.ino).unwrap().below();
            let (mut entries, mut reached) = (0, Vec::new());
            let mut dirs = vec![lease.ino];
            while let Some(dir) = dirs.pop() {
                for (_, _, ino) in self.table.node(dir).unwrap().content().entries().after(0) {
                    entries += 1;
                    let node = self.table.node(ino).unwrap();
                    assert_eq!(node.claim, lease.ino);
                    if node.content().shape == Shape::Directory {
                        dirs.push(ino);
                        assert_eq!(node.child.unwrap().dir, dir);
                    }
                    reached.push(ino);
                }
            }
            reached.sort_unstable();
            for ino in &below.inodes {
                let links = reached.iter().filter(|there| *there == ino).count();
                assert_eq!(self.table.node(*ino).unwrap().links() as usize, links);
                assert!(
                    links > 0 || self.open.contains(ino),
                    "nameless and not open"
                );
            }
            reached.dedup();
            assert!(reached.iter().all(|ino| below.inodes.contains(ino)));
            let inodes = below
                .inodes
                .iter()
                .map(|ino| self.table.node(*ino).unwrap());
            let bytes: usize = inodes.map(|node| node.content().weight()).sum();
            assert_eq!((below.entries, below.bytes), (entries, bytes));
        }
    }
}

#[test]
fn everything_at_random_counts_right_replays_alike_and_leaves_nothing() {
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..400 {
        let mut world = World::new(seed);
        for _ in 0..250 {
            world.step();
            world.check();
            assert_eq!(world.table.check(), Ok(()));
        }
        let mut again = Table::new(12);
        for event in &world.events {
            let text = serde_json::to_string(event).unwrap();
            let read: Event = serde_json::from_str(&text).unwrap();
            assert_eq!(read, *event, "{text}");
            again.apply(&read);
            let what = format!("{:?}", event.what);
            kinds.insert(what.split([' ', '(']).next().unwrap().to_owned());
        }
        assert!(
            again == world.table,
            "seed {seed}: a replay is another table"
        );
        // And so it is once it was written down and read.
        let text = serde_json::to_string(&world.table).unwrap();
        let read: Table = serde_json::from_str(&text).unwrap();
        assert!(
            read.completed(12) == world.table,
            "seed {seed}: written down it is another"
        );
        for (_, process) in std::mem::take(&mut world.alive) {
            world.run(&Command::Died {
                process,
                ending: Some(claimfs::core::Ending::Exited(0)),
            });
        }
        world.now += 100;
        let expire = |world: &mut World| {
            while let Some((_, due)) = world.table.next_deadline() {
                world.run(&Command::Expire { due });
            }
        };
        while world.table.wants_sweep() {
            world.run(&Command::Sweep { limit: 3 });
        }
        expire(&mut world);
        while world.table.wants_sweep() {
            world.run(&Command::Sweep { limit: 3 });
        }
        while let Some(ino) = world.open.pop() {
            world.forget(ino);
        }
        // Every descriptor is closed in the end.
        for waiter in (1..=world.waiter().0 + 6).map(WaiterId) {
            world.run(&Command::Leave { waiter });
        }
        assert_eq!(
            world.table.remembered(),
            0,
            "seed {seed}: {:?}",
            world.table
        );
    }
    let all = [
        "Accepted",
        "Altered",
        "Bound",
        "Broken",
        "Claimed",
        "Expired",
        "Forgotten",
        "Granted",
        "Handed",
        "Joined",
        "Left",
        "LeftQueue",
        "Limited",
        "Linked",
        "Prolonged",
        "Queued",
        "Reaped",
        "Released",
        "SessionEnded",
        "SessionStarted",
        "Unlinked",
    ];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), all);
}
