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

/// Each language that is installed: the program that takes the name at once, and the one that
/// waits.
fn programs(temps: &mut Vec<TempDir>) -> Vec<(String, [Command; 2])> {
    let pages = pages::all();
    let blocks = pages.iter().flat_map(|page| &page.blocks);
    let blocks: Vec<&Block> = blocks
        .filter(|block| block.page == "languages.md")
        .collect();
    let (pairs, rest) = blocks.as_chunks::<2>();
    assert!(rest.is_empty(), "each language has two programs");
    let mut prepared = |block: &Block| {
        let temp = TempDir::new();
        let mut command = run::command(block, temp.path()).unwrap();
        run::environment(&mut command, temp.path());
        temps.push(temp);
        command
    };
    let mut programs = Vec::new();
    for [one, two] in pairs {
        assert_eq!(one.language, two.language, "languages.md:{}", two.line);
        if run::is_possible(one) {
            programs.push((one.language.clone(), [prepared(one), prepared(two)]));
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
    for (language, [mut program, _]) in programs(&mut temps) {
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
    let mut programs = programs(&mut temps);
    let count = programs.len();
    let mut wait = |mount: &Mount| -> Vec<(String, Child)> {
        let started = programs.iter_mut().map(|(language, [_, program])| {
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
    // The holder lives: none has the name, and none is left in the queue.
    let mut second = holder(&mount);
    let start = Instant::now();
    for (language, child) in wait(&mount) {
        let output = child.wait_with_output().unwrap();
        assert!(!output.status.success(), "{language}: {output:?}");
        assert!(
            start.elapsed() >= LIMIT,
            "{language}: {:?}",
            start.elapsed()
        );
    }
    assert_eq!(waiters(&mount), 0);
    assert_eq!(mount.session_of("x").as_deref(), Some("holder"));
    second.kill();
    let leases = fs::read_to_string(mount.path("leases")).unwrap();
    assert!(leases.contains("\"leases\":0"), "{leases}");
    drop(temps);
}
