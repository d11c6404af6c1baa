//! The programs of `languages.md` where another holds the name: the first of each language is
//! refused and says who it is; the second waits its turn, and no longer than it says.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::pages::{self, Block};
use super::run;
use crate::support::{Actor, Mount, TempDir, wait_until};

/// The time for which the programs of the page wait.
const LIMIT: Duration = Duration::from_secs(10);

/// The program of each language that is installed: the one that takes the name at once, or the one
/// that waits. The directories are theirs.
fn programs(waits: bool, temps: &mut Vec<TempDir>) -> Vec<(String, Command)> {
    let pages = pages::all();
    let blocks = pages.iter().flat_map(|page| &page.blocks);
    let blocks: Vec<&Block> = blocks
        .filter(|block| block.page == "languages.md")
        .collect();
    let (pairs, rest) = blocks.as_chunks::<2>();
    assert!(rest.is_empty(), "each language has two programs");
    let mut programs = Vec::new();
    for [one, two] in pairs {
        assert_eq!(one.language, two.language, "languages.md:{}", two.line);
        if run::is_possible(one) {
            let (block, temp) = (if waits { two } else { one }, TempDir::new());
            let mut command = run::command(block, temp.path()).unwrap();
            run::environment(&mut command, temp.path());
            programs.push((block.language.clone(), command));
            temps.push(temp);
        }
    }
    programs
}

fn start(command: &mut Command, mount: &Mount) -> Child {
    command
        .current_dir(&mount.dir)
        .env("CLAIMFS_MOUNT", &mount.dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn holder(mount: &Mount) -> Actor {
    let mut holder = mount.actor(Some("holder"));
    holder.claim("x").unwrap();
    holder
}

fn waiters(mount: &Mount) -> usize {
    mount.read("waiters").lines().count()
}

#[test]
fn a_program_of_each_language_is_refused_and_says_who_holds_the_name() {
    let Some(mount) = Mount::new() else { return };
    let mut temps = Vec::new();
    let mut holder = holder(&mount);
    for (language, mut program) in programs(false, &mut temps) {
        let output = start(&mut program, &mount).wait_with_output().unwrap();
        assert!(!output.status.success(), "{language}: {output:?}");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains("holder"), "{language}: {said}");
    }
    assert_eq!(mount.session_of("x").as_deref(), Some("holder"));
    // None of them has left anything behind.
    holder.kill();
    assert_eq!(mount.claims(), [""; 0]);
}

#[test]
fn a_program_of_each_language_waits_its_turn_and_no_longer_than_it_says() {
    let Some(mount) = Mount::new() else { return };
    let mut temps = Vec::new();
    let mut programs = programs(true, &mut temps);
    let count = programs.len();
    let mut wait = |mount: &Mount| -> Vec<(String, Child)> {
        let started = programs.iter_mut().map(|(language, program)| {
            let child = start(program, mount);
            (language.clone(), child)
        });
        started.collect()
    };
    // The holder dies: each has the name in its turn, and gives it back.
    let mut first = holder(&mount);
    let waiting = wait(&mount);
    wait_until("all wait", || waiters(&mount) == count);
    first.kill();
    for (language, child) in waiting {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{language}: {output:?}");
    }
    assert_eq!((mount.claims(), waiters(&mount)), (Vec::new(), 0));
    // The holder lives: all wait for as long as they say, none has the name, and none stays in the
    // queue.
    let mut second = holder(&mount);
    let start = Instant::now();
    let waiting = wait(&mount);
    wait_until("all wait again", || waiters(&mount) == count);
    loop {
        let seen = waiters(&mount);
        if start.elapsed() >= LIMIT {
            break;
        }
        assert_eq!(seen, count, "one gave up after {:?}", start.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    wait_until("all have given up", || waiters(&mount) == 0);
    for (language, child) in waiting {
        let output = child.wait_with_output().unwrap();
        assert!(!output.status.success(), "{language}: {output:?}");
    }
    assert_eq!(mount.session_of("x").as_deref(), Some("holder"));
    second.kill();
    let leases = fs::read_to_string(mount.path("leases")).unwrap();
    assert!(leases.contains("\"leases\":0"), "{leases}");
    drop(temps);
}
