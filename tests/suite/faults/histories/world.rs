//! The mount, its clients, and the state of things that the nemesis changes.

use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::history::{Call, History, Life, Operation, leases};
use super::shared::{SLOTS, Shared, is_in_terminal};
use crate::faults::full_disk::Small;
use crate::faults::kills::process;
use crate::support::dice::Dice;
use crate::support::memory::clock;
use crate::support::{Guard, Mount, TempDir, wait_until};

/// The process that is recorded as the caller where the nemesis itself reads.
const OBSERVER: u32 = 0;

pub struct Client {
    number: u32,
    process: Guard,
    stopped_until: Option<Instant>,
}

// Fields are dropped in this order: the users of the mount, the mount, the disk below it.
pub struct World {
    pub load: Option<(Vec<Guard>, Instant)>,
    clients: Vec<Client>,
    pub mount: Mount,
    pub small: Option<Small>,
    pub full_until: Option<Instant>,
    pub shared: &'static Shared,
    pub history: History,
    pub dice: Dice,
    /// There is a supervisor, which starts another server when one dies.
    pub is_kept: bool,
    /// In a pid namespace of its own, where pids can be chosen.
    pub is_inside: bool,
    /// Why the wall clock of the server cannot be moved.
    pub no_clock: Option<String>,
    /// Violations that are in no history.
    pub complaints: Vec<String>,
    numbers: u32,
    pub memory: TempDir,
}

impl World {
    pub fn new(
        mount: Mount,
        small: Option<Small>,
        memory: TempDir,
        seed: u64,
        is_inside: bool,
    ) -> Self {
        Self {
            load: None,
            clients: Vec::new(),
            mount,
            small,
            full_until: None,
            shared: Shared::open(memory.path().join("shared")),
            history: History::default(),
            dice: Dice::new(seed),
            is_kept: false,
            is_inside,
            no_clock: None,
            complaints: Vec::new(),
            numbers: OBSERVER,
            memory,
        }
    }

    pub fn complain(&mut self, what: String) {
        self.complaints.push(what);
    }

    fn file(&self, number: u32) -> PathBuf {
        self.memory.path().join(format!("client-{number}"))
    }

    /// Starts a client, in a session of its own or in one of that number: its pid.
    pub fn start(&mut self, slot: usize, session: Option<u64>) -> u32 {
        self.numbers += 1;
        let number = self.numbers;
        let session = session.unwrap_or(u64::from(number));
        self.shared.sessions[slot].store(session, SeqCst);
        self.shared.state[slot].store(0, SeqCst);
        let mut life = Life {
            session: self.shared.session(slot),
            start: clock(),
            killed: u64::MAX,
            gone: u64::MAX,
        };
        let mut command = process(&self.mount, "histories");
        command
            .arg(self.file(number))
            .arg(self.memory.path().join("shared"))
            .arg(slot.to_string())
            .arg(self.dice.roll().to_string());
        if !is_in_terminal(slot) {
            command.env("CLAIMFS_SESSION", &life.session);
        }
        let client = Client {
            number,
            process: Guard::spawn(&mut command),
            stopped_until: None,
        };
        let pid = client.process.0.id();
        if is_in_terminal(slot) {
            self.shared.sessions[slot].store(pid.into(), SeqCst);
            life.session = self.shared.session(slot);
        }
        self.history.lives.insert(number, life);
        if slot < self.clients.len() {
            self.clients[slot] = client;
        } else {
            self.clients.push(client);
        }
        pid
    }

    fn life(&mut self, slot: usize) -> &mut Life {
        let number = self.clients[slot].number;
        self.history.lives.get_mut(&number).unwrap()
    }

    /// From now on it may be dead.
    pub fn send_kill(&mut self, slot: usize) {
        self.life(slot).killed = clock();
        self.clients[slot].process.0.kill().unwrap();
    }

    /// And from now on it is gone: no read shows it.
    pub fn record_loss(&mut self, slot: usize) {
        let status = self.clients[slot].process.0.wait().unwrap();
        self.life(slot).gone = clock();
        if std::os::unix::process::ExitStatusExt::signal(&status) != Some(libc::SIGKILL) {
            let number = self.clients[slot].number;
            self.complain(format!("client {number} has ended by itself: {status}"));
        }
    }

    pub fn pid(&self, slot: usize) -> u32 {
        self.clients[slot].process.0.id()
    }

    /// Whether a client that was killed is over already.
    pub fn has_died(&mut self, slot: usize) -> bool {
        let is_over = self.clients[slot].process.0.try_wait().unwrap().is_some();
        if is_over {
            self.life(slot).gone = clock();
        }
        is_over
    }

    pub fn look(&mut self) {
        let look = self.begin_look().join().unwrap();
        self.history.operations.push(look);
    }

    /// Asks for the leases, and does not wait for the answer.
    pub fn begin_look(&self) -> JoinHandle<Operation> {
        let path = self.mount.path("leases");
        let asked = clock();
        thread::spawn(move || {
            let answer = leases(path.to_str().unwrap());
            Operation {
                process: OBSERVER,
                call: Call::Look,
                asked,
                told: Some((clock(), answer)),
            }
        })
    }

    pub fn stop(&mut self, slot: usize, until: Instant) {
        self.signal(slot, libc::SIGSTOP);
        self.clients[slot].stopped_until = Some(until);
    }

    fn signal(&self, slot: usize, signal: i32) {
        let pid = self.clients[slot].process.0.id() as i32;
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Ends the faults that last for a time, if it is over or all of it is.
    pub fn relieve(&mut self, all: bool) {
        let over =
            |until: Option<Instant>| until.is_some_and(|until| all || Instant::now() > until);
        for slot in 0..self.clients.len() {
            if over(self.clients[slot].stopped_until) {
                self.clients[slot].stopped_until = None;
                self.signal(slot, libc::SIGCONT);
            }
        }
        if over(self.full_until.take_if(|until| over(Some(*until)))) {
            let small = self.small.as_ref().unwrap();
            std::fs::remove_file(small.0.path().join("fill")).unwrap();
            self.history.full.last_mut().unwrap().1 = clock();
            let word = "the state directory has room again".to_owned();
            self.history.faults.push((clock(), word));
        }
        self.load.take_if(|load| over(Some(load.1)));
        if all {
            self.shared.ahead.store(0, SeqCst);
        }
    }

    pub fn begin(&mut self) {
        let _ = std::mem::take(&mut self.history);
        self.shared.stop.store(0, SeqCst);
        self.shared.idle.store(0, SeqCst);
        // The nemesis looks from outside of any session of the clients.
        let life = Life {
            session: "observer".to_owned(),
            start: 0,
            killed: u64::MAX,
            gone: u64::MAX,
        };
        self.history.lives.insert(OBSERVER, life);
        for slot in 0..SLOTS {
            self.start(slot, None);
        }
    }

    /// Whether all clients are there, as they are to be until they are told to stop.
    pub fn are_well(&mut self) -> bool {
        let mut processes = self.clients.iter_mut().map(|client| &mut client.process.0);
        processes.all(|process| process.try_wait().unwrap().is_none())
    }

    /// Lets the clients give up what they hold, and takes in what they wrote.
    pub fn end(&mut self) {
        self.relieve(true);
        self.shared.stop.store(1, SeqCst);
        let mut left: Vec<usize> = (0..self.clients.len()).collect();
        wait_until("every client gives up what it holds and ends", || {
            left.retain(|slot| {
                let status = self.clients[*slot].process.0.try_wait().unwrap();
                if let Some(status) = status.filter(|status| !status.success()) {
                    panic!("a client has ended: {status}");
                }
                status.is_none()
            });
            thread::sleep(Duration::from_millis(1));
            left.is_empty()
        });
        let numbers: Vec<u32> = self.history.lives.keys().copied().collect();
        for number in numbers.into_iter().filter(|number| *number != OBSERVER) {
            let file = self.file(number);
            self.history.read(number, &file);
            std::fs::remove_file(file).unwrap_or_default();
            let last = self.history.last_word(number).unwrap_or(0);
            let life = self.history.lives.get_mut(&number).unwrap();
            if life.killed == u64::MAX {
                (life.killed, life.gone) = (last.max(life.start), clock());
            }
        }
        self.clients.clear();
    }
}
