//! Waiters that are killed just as they are granted the name: it is theirs, or the next one's.
//!
//! `CLAIMFS_TEST_GRANTS=1000` plays so many rounds.

use std::process::Stdio;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::dice::Dice;
use crate::support::{Guard, Mount, children, wait_until};

/// How many rounds are played at once, each of a name and a terminal of its own.
const LANES: u32 = 4;

fn rounds() -> u32 {
    let rounds = std::env::var("CLAIMFS_TEST_GRANTS");
    rounds.map_or(200, |rounds| rounds.parse().unwrap())
}

/// A script that waits in the queue and says what its cat came to. It gives the name back when it
/// is told to.
fn waiter(mount: &Mount, name: &str) -> Guard {
    let script = format!(
        "timeout 30 cat queue/{name} > /dev/null; echo $?; read word; rm claims/{name}; echo $?"
    );
    let mut command = mount.sh(&script);
    // The shell says of a killed cat that it was killed.
    command.stderr(Stdio::null());
    Guard::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))
}

/// The cat of a waiter, once it waits in the queue.
fn cat(mount: &Mount, waiter: &Guard, name: &str, place: usize) -> i32 {
    wait_until("it stands in line", || {
        let waiters = mount.read("waiters");
        let claim = format!("\"claim\":\"{name}\"");
        waiters.lines().filter(|line| line.contains(&claim)).count() == place
    });
    let timeout = children(waiter.0.id())[0];
    children(timeout)[0] as i32
}

fn give(waiter: &mut Guard) {
    let stdin = waiter.0.stdin.as_mut().unwrap();
    std::io::Write::write_all(stdin, b"go\n").unwrap();
    assert_eq!(waiter.line(), "0", "it held the name, and removed it");
}

/// Plays a round: whether the first waiter had the name.
fn round(mount: &Mount, name: &str, number: u32) -> bool {
    let mut before = waiter(mount, name);
    assert_eq!(before.line(), "0", "it is free");
    let mut first = waiter(mount, name);
    let victim = cat(mount, &first, name, 1);
    let mut second = waiter(mount, name);
    cat(mount, &second, name, 2);
    // Before the grant, or up to 5 ms after it began.
    let delay = Duration::from_micros(Dice::new(number.into()).below(5000) as u64);
    let (pid, start) = (victim, Instant::now());
    let killer = thread::spawn(move || {
        while start.elapsed() < delay {
            std::hint::spin_loop();
        }
        unsafe { libc::kill(pid, libc::SIGKILL) };
    });
    give(&mut before);
    killer.join().unwrap();
    let has_it = match first.line().as_str() {
        "0" => true,
        // timeout(1) exits so if its command was killed.
        "137" => false,
        other => panic!("round {number}: {other}"),
    };
    if has_it {
        let own = u64::from(first.0.id());
        assert_eq!(mount.pid_of(name), Some(own), "round {number}");
        give(&mut first);
    }
    assert_eq!(second.line(), "0", "round {number}: the next has it");
    let own = u64::from(second.0.id());
    assert_eq!(mount.pid_of(name), Some(own), "round {number}");
    give(&mut second);
    assert_eq!(mount.pid_of(name), None, "round {number}");
    has_it
}

#[test]
fn a_waiter_that_is_killed_as_it_is_granted_the_name_has_it_or_the_next_one_has() {
    let Some(mount) = Mount::new() else { return };
    let count = Mutex::new([0_u32; 2]);
    thread::scope(|scope| {
        for lane in 0..LANES {
            let (mount, count) = (&mount, &count);
            scope.spawn(move || {
                for number in (0..rounds()).filter(|number| number % LANES == lane) {
                    let has_it = round(mount, &format!("x{lane}"), number);
                    count.lock().unwrap()[usize::from(has_it)] += 1;
                }
            });
        }
    });
    let [next, first] = count.into_inner().unwrap();
    println!("{first} had the name before they were killed, of {next} the next one had it");
    // Otherwise the kills are not where the grants are.
    assert!(first > 0 && next > 0, "{first} {next}");
    assert_eq!(mount.claims(), [""; 0]);
    assert_eq!(mount.read("waiters"), "");
}
