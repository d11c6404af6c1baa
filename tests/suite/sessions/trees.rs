//! Makers and their parents on a real mount, ended in every order and in every way, with the server
//! killed in between.
//!
//! `CLAIMFS_TEST_TREES_SECONDS` says for how long, and `CLAIMFS_TEST_TREES_SEED` with which
//! numbers.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::dice::Dice;
use crate::support::memory::clock;
use crate::support::{Guard, Mount, TempDir, number, plain, wait_until};

/// A terminal with a parent, which starts a maker and waits for it, and then for its own end.
const TERMINAL: &str = r#"
sh -c '
    exec 4<> "$2"
    sh -c "set -C; : > \"claims/\$0\" || exit 9; echo made \$\$; read -r line < \"\$1\"; exit 3" "$1" "$3" &
    wait $!
    echo waited
    read -r line <&4
    exit 0
' sh "$@" &
echo parent $!
wait $!
echo gone
read -r line
"#;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Exit,
    Kill,
}

/// What becomes of the tree: who ends how, in this order, and before which of it the server is
/// killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Plan {
    maker: End,
    parent: End,
    parent_first: bool,
    /// Before the first end, between the two, or after both; or not at all.
    server: usize,
    /// Nobody looks between an end and the death of the server.
    unseen: bool,
}

struct Tree {
    terminal: Guard,
    output: BufReader<ChildStdout>,
    parent: i32,
    maker: i32,
    fifos: [PathBuf; 2],
}

fn fifo(path: PathBuf) -> PathBuf {
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    path
}

fn kill(pid: i32, signal: i32) {
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

impl Tree {
    fn grow(mount: &Mount, place: &TempDir, round: usize, name: &str) -> Self {
        let fifo = |who: &str| fifo(place.path().join(format!("{who}-{round}")));
        let fifos = [fifo("parent"), fifo("maker")];
        let mut command = Command::new("sh");
        command.args(["-c", TERMINAL, "sh", name]).args(&fifos);
        plain(&mut command);
        command.current_dir(&mount.dir);
        // A shell says there that a child of it was killed.
        command.stderr(Stdio::null());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut terminal = Guard::spawn(&mut command);
        let output = BufReader::new(terminal.0.stdout.take().unwrap());
        let mut tree = Self {
            terminal,
            output,
            parent: 0,
            maker: 0,
            fifos,
        };
        let number = |line: &str| line.split(' ').nth(1).unwrap().parse().unwrap();
        for _ in 0..2 {
            let line = tree.line();
            let is_parent = line.starts_with("parent ");
            *(if is_parent {
                &mut tree.parent
            } else {
                &mut tree.maker
            }) = number(&line);
        }
        tree
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Ends the maker, and returns once somebody has waited for it, or nobody will.
    fn end_maker(&mut self, how: End, has_parent: bool) {
        match how {
            End::Exit => {
                let fifo = OpenOptions::new().write(true).open(&self.fifos[1]);
                writeln!(fifo.unwrap(), "end").unwrap();
            }
            End::Kill => kill(self.maker, libc::SIGKILL),
        }
        if has_parent {
            assert_eq!(self.line(), "waited");
            return;
        }
        // Its adopter may leave it a zombie.
        let maker = self.maker;
        wait_until("the maker is dead", || {
            let stat = fs::read_to_string(format!("/proc/{maker}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    }

    fn end_parent(&mut self, how: End) {
        match how {
            // While it waits for the maker it reads nothing: this signal counts as an exit.
            End::Exit => kill(self.parent, libc::SIGPIPE),
            End::Kill => kill(self.parent, libc::SIGKILL),
        }
        assert_eq!(self.line(), "gone");
    }
}

fn holder(mount: &Mount, name: &str) -> Option<u32> {
    let leases = mount.read("leases");
    let mut records = leases
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let record = records.find(|record| record["name"] == name)?;
    record["pid"].as_u64().map(|pid| pid as u32)
}

fn kill_server(mount: &Mount) {
    let before = mount.server().unwrap();
    assert_eq!(unsafe { libc::kill(before as i32, libc::SIGKILL) }, 0);
    wait_until("another server", || {
        mount.server().is_some_and(|server| server != before)
    });
    // It answers once it has recovered.
    _ = fs::metadata(mount.path("claims/nobody"));
}

/// All sessions are looked at, with each of their processes.
fn look(mount: &Mount) {
    for entry in fs::read_dir(mount.path("sessions")).unwrap().flatten() {
        _ = fs::read_to_string(entry.path());
    }
}

/// Plays a plan, and looks who holds the name at the end.
fn play(mount: &Mount, place: &TempDir, round: usize, plan: Plan) {
    let name = format!("x{round}");
    let mut tree = Tree::grow(mount, place, round, &name);
    assert_eq!(holder(mount, &name), Some(tree.maker as u32), "{plan:?}");
    let mut is_lost = [false; 2];
    for moment in 0..3 {
        if plan.server == moment {
            // Of who died the server may have seen nothing.
            is_lost = [0, 1].map(|at| plan.unseen && moment > at);
            kill_server(mount);
        }
        match moment {
            0 if plan.parent_first => tree.end_parent(plan.parent),
            0 => tree.end_maker(plan.maker, true),
            1 if plan.parent_first => tree.end_maker(plan.maker, false),
            1 => tree.end_parent(plan.parent),
            _ => {}
        }
        if !plan.unseen && moment < 2 {
            look(mount);
            holder(mount, &name);
        }
    }
    let terminal = Some(tree.terminal.0.id());
    let expected = |maker, parent| match (maker, parent) {
        (End::Exit, End::Exit) => terminal,
        _ => None,
    };
    // Its status may be lost, which counts as an exit.
    let [maker_is_lost, parent_is_lost] = if plan.parent_first {
        [is_lost[1], is_lost[0]]
    } else {
        is_lost
    };
    let ends = |end, is_lost| {
        if is_lost {
            vec![end, End::Exit]
        } else {
            vec![end]
        }
    };
    let mut allowed = Vec::new();
    for maker in ends(plan.maker, maker_is_lost) {
        for parent in ends(plan.parent, parent_is_lost) {
            allowed.push(expected(maker, parent));
        }
    }
    let seen = holder(mount, &name);
    assert!(
        allowed.contains(&seen),
        "{plan:?}: {seen:?}, and not of {allowed:?}"
    );
    let path = mount.path("claims").join(name);
    let create = || OpenOptions::new().write(true).create_new(true).open(&path);
    if seen.is_some() {
        let refused = create().map_err(|error| error.kind());
        assert_eq!(refused.unwrap_err(), ErrorKind::AlreadyExists, "{plan:?}");
        let error = fs::remove_file(&path).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY), "{plan:?}");
        tree.terminal.0.kill().unwrap();
        tree.terminal.0.wait().unwrap();
    }
    // At the first try.
    create().unwrap();
    fs::remove_file(&path).unwrap();
}

#[test]
fn makers_and_parents_end_in_every_order_and_the_server_is_killed_in_between() {
    let Some(mount) = Mount::new() else { return };
    let seconds = Duration::from_secs(number("CLAIMFS_TEST_TREES_SECONDS", 8));
    let seed = number("CLAIMFS_TEST_TREES_SEED", clock());
    eprintln!("CLAIMFS_TEST_TREES_SEED={seed}");
    let mut dice = Dice::new(seed);
    let place = TempDir::new();
    let mut rounds: BTreeMap<Plan, usize> = BTreeMap::new();
    let (start, mut round) = (Instant::now(), 0);
    while start.elapsed() < seconds || round < 64 {
        let is_kept = mount.server().is_some();
        let end = |dice: &mut Dice| [End::Exit, End::Kill][dice.below(2)];
        let plan = Plan {
            maker: end(&mut dice),
            parent: end(&mut dice),
            parent_first: dice.below(2) == 0,
            server: if is_kept { dice.below(4) } else { 3 },
            unseen: dice.below(2) == 0,
        };
        play(&mount, &place, round, plan);
        *rounds.entry(plan).or_default() += 1;
        round += 1;
    }
    eprintln!(
        "trees: {round} rounds, {} plans of 64, seed {seed}",
        rounds.len()
    );
}
