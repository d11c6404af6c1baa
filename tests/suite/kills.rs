//! Clients that notice nothing: eight processes claim, write, rename, wait in line and die at random, while the server is
//! killed again and again. What each of them is told must be what a server that lives for ever would tell it.
//!
//! Each client (`client.rs`) knows what it holds, to the byte (`world.rs`), and who else may hold what it wants
//! (`shared.rs`); readers of `events` (`reader.rs`) hear of all of it. `CLAIMFS_TEST_KILLS_SECONDS` says for how long, and
//! `CLAIMFS_TEST_KILLS_SEED` with which numbers.

mod client;
mod reader;
pub mod shared;
mod world;

use std::env;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::thread::sleep;
use std::time::{Duration, Instant};

use self::shared::{Dice, SLOTS, Shared, clock};
use crate::support::{Guard, Mount, TempDir, plain, wait_until};

/// This very binary, as another process of the test; it does not outlive the thread that starts it.
pub fn process(mount: &Mount, test: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
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
        let seed = (self.seed ^ self.incarnations.wrapping_mul(0x9E37_79B9_7F4A_7C15)) | 1;
        let mut command = process(self.mount, "kills::client::serve");
        let incarnation = self.incarnations << 8 | slot as u64;
        command
            .env("CLAIMFS_TEST_KILLS", self.file)
            .env("CLAIMFS_TEST_KILLS_SEED", seed.to_string())
            .env("CLAIMFS_TEST_KILLS_INCARNATION", incarnation.to_string())
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

pub fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |text| text.parse().unwrap())
}

fn run(has_nemesis: bool) {
    let Some(mount) = Mount::new() else { return };
    let memory = TempDir::in_memory();
    let file = memory.path().join("shared");
    let shared = Shared::open(&file);
    shared.start.store(clock(), SeqCst);
    let seed = number("CLAIMFS_TEST_KILLS_SEED", clock());
    let seconds = Duration::from_secs(number("CLAIMFS_TEST_KILLS_SECONDS", 15));

    let mut readers = ["", "polls"].map(|how| {
        let mut command = process(&mount, "kills::reader::serve");
        if !how.is_empty() {
            command.env("CLAIMFS_TEST_KILLS_POLLS", how);
        }
        Guard::spawn(command.env("CLAIMFS_TEST_KILLS_READER", &file))
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

    let mut dice = Dice(seed | 1);
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
            // Two live on: nobody's death ends it if they are forgotten in a line.
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
