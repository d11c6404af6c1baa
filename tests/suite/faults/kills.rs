//! Clients that notice nothing: eight processes claim, write, rename, wait in queues and die at
//! random, while the server is killed again and again. Each
//! must get the answers of a server that never dies.
//!
//! The clients are processes of `tests/programs/kills`. Each knows what it holds, to the byte, and
//! who else may hold what it wants (`shared.rs`); readers of `events` check every line.
//! `CLAIMFS_TEST_KILLS_SECONDS` is for how long, and `CLAIMFS_TEST_KILLS_SEED` the seed.

// The clients use the rest.
#[allow(dead_code)]
#[path = "../../programs/kills/shared.rs"]
mod shared;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::thread::sleep;
use std::time::{Duration, Instant};

use self::shared::{SLOTS, Shared};
use crate::support::dice::Dice;
use crate::support::memory::clock;
use crate::support::{Guard, Mount, TempDir, number, plain, program, wait_until};

/// A helper program in the mount. It does not outlive the thread that starts it.
pub fn process(mount: &Mount, name: &str) -> Command {
    let mut command = Command::new(program(name));
    plain(&mut command);
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command
        .current_dir(&mount.dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// The eight, and those of them that came after one that was killed.
struct Clients<'a> {
    mount: &'a Mount,
    shared: &'static Shared,
    file: &'a Path,
    seed: u64,
    incarnations: u64,
    alive: Vec<Guard>,
}

impl Clients<'_> {
    fn start(&mut self, slot: usize) -> Guard {
        self.incarnations += 1;
        let seed = Dice::new(self.seed ^ self.incarnations).roll();
        let mut command = process(self.mount, "kills");
        let incarnation = self.incarnations << 8 | slot as u64;
        command
            .arg("client")
            .arg(self.file)
            .args([seed, incarnation].map(|number| number.to_string()))
            .env("CLAIMFS_SESSION", format!("c{slot}-{}", self.incarnations));
        self.shared.born[slot].store(incarnation, SeqCst);
        Guard::spawn(&mut command)
    }

    /// Kills a client and starts another in its place.
    fn kill(&mut self, slot: usize) {
        let incarnation = self.shared.born[slot].load(SeqCst);
        // From here on it may be dead, and what it holds another's.
        self.shared.killed[slot].store(incarnation, SeqCst);
        let client = &mut self.alive[slot].0;
        client.kill().unwrap();
        client.wait().unwrap();
        // And from here on it holds nothing.
        for name in &self.shared.suitors {
            name[slot].store(0, SeqCst);
        }
        self.alive[slot] = self.start(slot);
    }

    /// A client that has ended before it was told to has failed.
    fn look(&mut self) {
        for client in &mut self.alive {
            if let Some(status) = client.0.try_wait().unwrap() {
                let failures = Shared::failures(self.file);
                panic!(
                    "seed {}: a client has ended: {status}\n{failures}",
                    self.seed
                );
            }
        }
        self.check();
    }

    fn check(&self) {
        let failures = Shared::failures(self.file);
        let has_failed = self.shared.failed.load(SeqCst) != 0;
        assert!(!has_failed, "seed {}: {failures}", self.seed);
    }

    /// Tells all that it is over, and waits for them.
    fn stop(&mut self) {
        self.shared.stop.store(1, SeqCst);
        let mut left: Vec<usize> = (0..SLOTS).collect();
        wait_until("every client gives up what it holds and ends", || {
            left.retain(|slot| {
                let status = self.alive[*slot].0.try_wait().unwrap();
                status.is_none_or(|status| !status.success())
            });
            self.check();
            sleep(Duration::from_millis(1));
            left.is_empty()
        });
    }
}

/// Kills the server now and then, if there is one that is started again: how often it has.
struct Nemesis {
    on: bool,
    last: u32,
    kills: u32,
    next: Instant,
}

impl Nemesis {
    fn strike(&mut self, mount: &Mount, dice: &mut Dice) {
        if !self.on || Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + Duration::from_millis(50 + dice.below(450) as u64);
        let server = mount.server().filter(|server| *server != self.last);
        let Some(server) = server else { return };
        if unsafe { libc::kill(server as i32, libc::SIGKILL) } == 0 {
            self.kills += 1;
            self.last = server;
        }
    }
}

fn run(has_nemesis: bool) {
    let Some(mount) = Mount::new() else { return };
    let memory = TempDir::in_memory();
    let file = memory.path().join("shared");
    let shared = Shared::open(&file);
    shared.start.store(clock(), SeqCst);
    let seed = number("CLAIMFS_TEST_KILLS_SEED", clock());
    let seconds = Duration::from_secs(number("CLAIMFS_TEST_KILLS_SECONDS", 15));

    let mut readers = ["blocks", "polls"].map(|how| {
        let mut command = process(&mount, "kills");
        Guard::spawn(command.arg("reader").arg(&file).arg(how))
    });
    wait_until("both read events", || shared.reading.load(SeqCst) == 2);
    let mut clients = Clients {
        mount: &mount,
        shared,
        file: &file,
        seed,
        incarnations: 0,
        alive: Vec::new(),
    };
    for slot in 0..SLOTS {
        let client = clients.start(slot);
        clients.alive.push(client);
    }

    let mut dice = Dice::new(seed);
    let start = Instant::now();
    let (mut deaths, mut next_death) = (0, start);
    let mut nemesis = Nemesis {
        on: has_nemesis,
        last: 0,
        kills: 0,
        next: start,
    };
    while start.elapsed() < seconds {
        nemesis.strike(&mount, &mut dice);
        if Instant::now() >= next_death {
            // Two live on: if a queue forgets them, no death hides it.
            clients.kill(2 + dice.below(SLOTS - 2));
            deaths += 1;
            next_death = Instant::now() + Duration::from_millis(200 + dice.below(200) as u64);
        }
        clients.look();
        sleep(Duration::from_millis(5));
    }
    clients.stop();

    // All is given up: nothing is left that anybody holds or waits for.
    assert_eq!(mount.read("waiters"), "", "seed {seed}");
    assert_eq!(mount.claims(), [""; 0], "seed {seed}");
    mount.actor(Some("the-end")).claim("the-end").unwrap();
    wait_until("both readers of events are told of the end", || {
        clients.check();
        let ended = |reader: &mut Guard| reader.0.try_wait().unwrap().is_some();
        readers.iter_mut().all(ended)
    });
    clients.check();
    let last = shared.token.iter().map(|token| token.load(SeqCst)).max();
    for (told, missed) in shared.told.iter().zip(&shared.missed) {
        let (untold, missed) = (
            shared.granted.missing_in(told, last.unwrap_or(0)),
            missed.load(SeqCst),
        );
        assert!(
            untold <= missed,
            "seed {seed}: of {untold} grants events says nothing, though it says {missed} lines are missed"
        );
    }
    let count = |of: &std::sync::atomic::AtomicU64| of.load(SeqCst);
    eprintln!(
        "{:.1} s: {} kills of the server, {} calls, {deaths} deaths, {} grants, {} waits served; a call took up to \
         {} us (p50), {} us (p99), {} us (p99.9), {} us (all)",
        start.elapsed().as_secs_f64(),
        nemesis.kills,
        count(&shared.operations),
        count(&shared.grants),
        count(&shared.waits),
        shared.stall(500),
        shared.stall(990),
        shared.stall(999),
        count(&shared.longest),
    );
    assert!(nemesis.kills > 0 || !has_nemesis || mount.server().is_none());
}

#[test]
fn eight_clients_notice_nothing_when_the_server_is_killed_again_and_again() {
    run(true);
}
