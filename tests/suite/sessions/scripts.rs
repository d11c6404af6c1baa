//! Scripts of one terminal, in each shell: however one claims and however it dies, its claim is
//! where the manual says.
//!
//! A terminal is a bash that leads a POSIX session; it starts the scripts, sends them their signals
//! and waits for them. `CLAIMFS_TEST_SCRIPTS=all` plays each shell with each construct, way to
//! claim and way to die; the tests otherwise play each shell with each of these once.

mod prompt;
mod shells;
mod terminal;

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use crate::support::{Mount, TempDir, compiled, is_root, skip, wait_until};
use shells::{CONSTRUCTS, Case, DEATHS, Death, Kind, SHELLS, Shell, WAYS, maker_script, written};
use terminal::{Memory, Terminal};

/// A mount, and a directory for the scripts, where the programs of the tests are too.
struct Stage {
    mount: Mount,
    temp: TempDir,
}

impl Stage {
    fn new() -> Option<Self> {
        let missing = shells::missing();
        if !missing.is_empty() {
            skip(&format!("not installed: {}", missing.join(", ")));
            return None;
        }
        let stage = Self {
            // lockfile and dotlockfile are of a group of their own, and the latter begins with a
            // dotted name.
            mount: Mount::with(&["--allow-other", "--dotfiles"])?,
            temp: TempDir::new(),
        };
        compiled(&stage.temp, "scripts/probe.c");
        Some(stage)
    }

    fn terminal(&self, name: &str) -> Terminal {
        Terminal::start(&self.mount, self.temp.path(), name)
    }
}

/// The pid of the process that holds a lease.
fn holder(record: &Value) -> Option<u32> {
    let bound = record.get("bound_pid");
    let pid = bound.or(record.get("pid"))?.as_u64()?;
    u32::try_from(pid).ok()
}

/// The state of a thread that plays cases.
struct Lane<'a> {
    stage: &'a Stage,
    terminal: Terminal,
    memory: Option<&'a Memory>,
}

impl Lane<'_> {
    /// Fails with the difference, if there is one.
    fn expect<T: Copy + PartialEq + std::fmt::Debug>(
        what: &str,
        got: T,
        want: T,
    ) -> Result<(), String> {
        if got == want {
            return Ok(());
        }
        Err(format!("{what}: {got:?}, not {want:?}"))
    }

    fn holder(&self, name: &str) -> Option<u32> {
        holder(&self.stage.mount.record(name)?)
    }

    /// Nobody but the script that holds the name can do anything with it: neither another script,
    /// nor the terminal.
    fn is_taken(&mut self, name: &str, kind: Kind) -> Result<(), String> {
        let calls = match kind {
            Kind::File => "EEXIST EBUSY EBUSY EBUSY",
            Kind::Directory => "EEXIST EISDIR EBUSY EBUSY",
            Kind::Symlink => "EEXIST ELOOP EBUSY EBUSY",
        };
        let said = self.terminal.ask(&format!(
            "sh -c '\"$PROBE\" others \"$1\"; :' sh {name} < /dev/null"
        ))?;
        Self::expect("another script", said.trim(), calls)?;
        let said = self
            .terminal
            .ask(&format!("again {name}; claim {name}; echo"))?;
        let words: &[&str] = match kind {
            Kind::File => &["Device or resource busy", "cannot overwrite existing file"],
            Kind::Directory => &["Is a directory"],
            Kind::Symlink => &["Too many levels of symbolic links"],
        };
        if !words.iter().all(|word| said.contains(word)) {
            return Err(format!("the terminal: {said:?}"));
        }
        Ok(())
    }

    /// Starts the script of a case, until it has claimed: its pid and the name.
    fn begin(&mut self, case: &Case, tag: &str) -> Result<(u32, String), String> {
        let dir = self.stage.temp.path();
        written(dir, case, tag);
        let pid = self.terminal.begin(case.shell, &format!("{tag}.script"))?;
        let name = match fs::read_to_string(dir.join(format!("{tag}.name"))) {
            Ok(path) => path.trim().rsplit('/').next().unwrap().to_owned(),
            Err(_) => tag.to_owned(),
        };
        Ok((pid, name))
    }

    fn play(&mut self, case: &Case, tag: &str) -> Result<(), String> {
        let (script, name) = self.begin(case, tag)?;
        if case.construct.name == "pipeline" {
            // ksh waits for the last part of it alone.
            wait_until("all parts of the pipeline have ended", || {
                self.holder(&name) == Some(script)
            });
        }
        Self::expect("the holder", self.holder(&name), Some(script))?;
        self.is_taken(&name, case.way.kind)?;
        Self::expect("the holder after that", self.holder(&name), Some(script))?;
        let ends = match case.death {
            Death::Exit(code) => format!("echo {code} >&7"),
            Death::Signal(signal) => format!("kill -{signal} {script}"),
            Death::Memory => {
                self.memory.unwrap().hold(script);
                "echo oom >&7".to_owned()
            }
        };
        let take = "sh -c '\"$PROBE\" take \"$1\"; :' sh";
        let ended = format!("{ends}; ended {script}; {take} {name} < /dev/null");
        let said = self.terminal.ask(&ended)?;
        let (code, said) = said.trim().split_once(' ').unwrap_or(("none", &said));
        if let Some(want) = case.status() {
            Self::expect("the status", code, &want.to_string())?;
        }
        if !case.passes() {
            return Self::expect("the next", said.trim(), "done done");
        }
        Self::expect("a script after the exit", said.trim(), "EEXIST")?;
        let terminal = self.terminal.pid();
        Self::expect("the heir", self.holder(&name), Some(terminal))?;
        let remove = if case.way.kind == Kind::File {
            format!("again {name}; rm {name}; echo $?")
        } else {
            format!("rm -d {name}; echo $?")
        };
        Self::expect("the terminal", self.terminal.ask(&remove)?.trim(), "0")?;
        Self::expect("after its rm", self.holder(&name), None)
    }

    /// The process of a script that has claimed is killed, while the script lives and waits for it.
    fn play_maker(&mut self, shell: &'static Shell, tag: &str) -> Result<(), String> {
        let dir = self.stage.temp.path();
        fs::write(dir.join(format!("{tag}.script")), maker_script(shell, tag)).unwrap();
        let inner = format!("{}\nread word <&7\n", shells::claim(shell, &WAYS[0], tag));
        fs::write(dir.join(format!("{tag}.claim")), inner).unwrap();
        let script = self.terminal.begin(shell, &format!("{tag}.script"))?;
        wait_until("it has claimed", || self.holder(tag).is_some());
        let maker = self.holder(tag).unwrap();
        if maker == script {
            return Err("the script itself is the maker".to_owned());
        }
        self.is_taken(tag, Kind::File)?;
        let said = self.terminal.ask(&format!(
            "kill -KILL {maker}; hear; \"$PROBE\" take {tag} < /dev/null; echo 0 >&7; ended {script}"
        ))?;
        Self::expect("the killed maker", said.trim(), "reaped\ndone done 0")
    }
}

/// Plays cases on as many threads as there are processors, at most four: what was wrong, a line
/// each.
fn play_all<T: Sync>(
    stage: &Stage,
    memory: Option<&Memory>,
    cases: &[T],
    play: impl Fn(&mut Lane, &T, &str) -> Result<(), String> + Sync,
    say: impl Fn(&T) -> String + Sync,
) -> Vec<String> {
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = thread::available_parallelism()
        .map_or(2, usize::from)
        .min(4);
    let start = Instant::now();
    thread::scope(|scope| {
        for number in 0..threads {
            let (next, wrong, play, say) = (&next, &wrong, &play, &say);
            scope.spawn(move || {
                let terminal = || stage.terminal(&format!("terminal{number}"));
                let mut lane = Lane {
                    stage,
                    terminal: terminal(),
                    memory,
                };
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(at) else { break };
                    if let Err(error) = play(&mut lane, case, &format!("c{at}")) {
                        let told = lane.terminal.complaints();
                        let report = format!("{}: {error}; {told}", say(case));
                        wrong.lock().unwrap().push(report);
                        // The leftovers of this case must not disturb the next.
                        lane.terminal = terminal();
                    }
                }
            });
        }
    });
    println!("{} cases in {:?}", cases.len(), start.elapsed());
    wrong.into_inner().unwrap()
}

fn play_cases(cases: &[Case]) {
    let Some(stage) = Stage::new() else { return };
    let needs_memory = cases.iter().any(|case| case.death == Death::Memory);
    let memory = if needs_memory {
        let Some(memory) = Memory::new() else {
            return skip("no cgroup with a memory controller can be made here");
        };
        Some(memory)
    } else {
        None
    };
    let play = |lane: &mut Lane, case: &Case, tag: &str| lane.play(case, tag);
    let wrong = play_all(&stage, memory.as_ref(), cases, play, Case::to_string);
    let count = wrong.len();
    assert!(wrong.is_empty(), "{count} wrong:\n{}", wrong.join("\n"));
    // A core was written, where the kernel writes them here: the status had the bit 0x80.
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let dumps = cases.iter().any(|case| case.death == Death::Signal("SEGV"));
    if dumps && !pattern.starts_with(['/', '|']) {
        let complaints = fs::read_dir(stage.temp.path()).unwrap().filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_str().unwrap().starts_with("core")
        });
        assert!(complaints.count() > 0, "no core was dumped");
    }
}

/// Everything with everything, if that is asked for.
fn the_whole_product() -> bool {
    std::env::var("CLAIMFS_TEST_SCRIPTS").as_deref() == Ok("all")
}

fn cases(mut select: impl FnMut(&Case) -> bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for shell in &SHELLS {
        for construct in CONSTRUCTS.iter().filter(|construct| construct.is_in(shell)) {
            for way in &WAYS {
                for death in DEATHS {
                    let case = Case {
                        shell,
                        construct,
                        way,
                        death,
                    };
                    if case.is_possible() && (is_root() || death != Death::Memory) {
                        cases.push(case);
                    }
                }
            }
        }
    }
    cases.retain(|case| select(case));
    cases
}

#[test]
fn however_a_script_claims_it_holds_the_name_until_it_dies() {
    let mut at = 0;
    play_cases(&cases(|case| {
        // Half of them are killed, the other half exits.
        let end = [Death::Signal("KILL"), Death::Exit(0)];
        let is_one = case.construct.name == "itself" && end.contains(&case.death);
        at += usize::from(is_one);
        is_one && at.is_multiple_of(2) == (at / 2).is_multiple_of(2)
    }));
}

#[test]
fn however_a_script_dies_its_claim_is_where_the_manual_says() {
    play_cases(&cases(|case| {
        case.construct.name == "itself" && case.way.name == ">"
    }));
}

#[test]
fn whatever_of_a_script_has_claimed_the_script_holds_it() {
    let mut turn = 0;
    let mut last = "";
    let mut seen = 0;
    play_cases(&cases(|case| {
        if case.construct.name == "itself" {
            return false;
        }
        // Another way to claim and to die for each.
        if last != case.construct.name {
            (last, seen) = (case.construct.name, 0);
            turn += 1;
        }
        seen += 1;
        let all = WAYS.len() * DEATHS.len();
        seen == 1 + (turn * 13) % (all - DEATHS.len())
    }));
}

#[test]
fn a_killed_part_of_a_script_frees_what_it_claimed_while_the_script_lives() {
    let Some(stage) = Stage::new() else { return };
    let shells: Vec<&'static Shell> = SHELLS.iter().collect();
    let play = |lane: &mut Lane, shell: &&'static Shell, tag: &str| lane.play_maker(shell, tag);
    let wrong = play_all(&stage, None, &shells, play, |shell| shell.name.to_owned());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_shell_with_every_construct_way_to_claim_and_way_to_die() {
    if the_whole_product() {
        play_cases(&cases(|_| true));
    }
}
