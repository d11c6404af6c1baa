//! Racers over one small tree of paths, through files and through `control`: a referee outside of
//! the mount sees no two holders of paths that overlap, while racers and servers are killed.
//!
//! `CLAIMFS_TEST_OVERLAPS_SECONDS` is for how long, and `CLAIMFS_TEST_OVERLAPS_SEED` the seed.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Guard, Mount, TempDir, number, plain, wait_until};

const RACERS: usize = 8;

fn racer(mount: &Mount, temp: &TempDir, at: usize, seed: u64) -> Guard {
    let mut command = Command::new("python3");
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/suite/faults/overlaps.py"
    );
    let (marks, last) = (temp.path().join("marks"), temp.path().join("last"));
    command
        .arg(script)
        .arg(&mount.dir)
        .arg(marks)
        .arg(seed.to_string())
        .arg(last);
    plain(&mut command);
    command.env("CLAIMFS_SESSION", format!("racer{at}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    Guard::spawn(&mut command)
}

#[test]
fn no_two_hold_paths_that_overlap() {
    let Some(mount) = Mount::with(&["--directories-stay", "300"]) else {
        return;
    };
    let temp = TempDir::in_memory();
    fs::create_dir(temp.path().join("marks")).unwrap();
    let time = Duration::from_secs(number("CLAIMFS_TEST_OVERLAPS_SECONDS", 8));
    let seed = number("CLAIMFS_TEST_OVERLAPS_SEED", 1);
    let mut next = seed * 1000;
    let mut start = |at: usize| {
        next += 1;
        racer(&mount, &temp, at, next)
    };
    let mut racers: Vec<Guard> = (0..RACERS).map(&mut start).collect();
    let began = Instant::now();
    let mut turn = 0;
    while began.elapsed() < time {
        std::thread::sleep(Duration::from_millis(250));
        turn += 1;
        for racer in &mut racers {
            if let Some(status) = racer.0.try_wait().unwrap() {
                let mut said = String::new();
                racer
                    .0
                    .stdout
                    .take()
                    .unwrap()
                    .read_to_string(&mut said)
                    .unwrap();
                panic!("seed {seed}: {status}, {said}");
            }
        }
        if turn % 4 == 0 {
            mount.kill_server();
        } else {
            let at = turn % RACERS;
            racers[at] = start(at);
        }
    }
    fs::write(temp.path().join("last"), "").unwrap();
    let mut rounds = 0;
    for mut racer in racers {
        let said = racer.line();
        let status = racer.0.wait().unwrap();
        assert!(status.success(), "seed {seed}: {status}, {said}");
        rounds += said.parse::<usize>().unwrap();
    }
    println!("{rounds} rounds of those that were not killed, {turn} kills, seed {seed}");
    assert!(rounds > RACERS);
    assert_eq!(mount.run("find paths -type f"), "");
    wait_until("the directories to go", || mount.run("ls paths").is_empty());
}
