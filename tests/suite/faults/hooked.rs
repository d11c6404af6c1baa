//! Stand-ins for coding agents that know nothing of claimfs. Their settings call `claimfs hook`,
//! and no edit is lost: in one tree, each command in a shell of its own POSIX session, also while
//! agents are killed and started again.
//!
//! An agent reads a file, thinks, and edits it. Its edit tool is Claude Code's: it refuses a file
//! that was changed since it was read, and the agent reads it again. An update is a line that is
//! added to what was read, so a lost one is a line that is missing.
//!
//! `CLAIMFS_TEST_HOOKED_RUNS` is how many runs there are at length, with a kill every 5 s;
//! `CLAIMFS_TEST_HOOK=true` sets another hook, to compare.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::sessions::agents::stand_in::Programs;
use crate::support::{CLAIMFS, Guard, Mount, TempDir, number, plain, wait_until};

const AGENTS: usize = 5;
const FILES: usize = 3;

/// An agent that makes one update of each file in `$FILES`, in that order, in one turn. A refusal
/// is waited for a while, and then the turn is given up and begun again, as a person's prompt does.
/// One that was killed looks first what it has done. Hooks are started by the agent itself: a
/// subshell of it would pass for an agent of its own.
const AGENT: &str = r#"
command() { setsid -w sh -c "$1"; }
event() {
    local event
    printf -v event '{"session_id":"s","hook_event_name":"%s","tool_name":"Edit","tool_input":{"file_path":"%s"},"cwd":"%s"}' \
        "$1" "$2" "$TREE"
    command "$HOOK" > /dev/null 2>> "$OUT/said.$AGENT" <<< "$event"
}
update() {
    grep -qx "$AGENT" "$TREE/$1" && return
    read=$(command "cat $TREE/$1")
    sleep "$THINK"
    event PreToolUse "$TREE/$1"
    code=$?
    [ $code != 2 ] || return 2
    [ $code = 0 ] || echo "$code" >> "$OUT/failures"
    now=$(cat "$TREE/$1")
    if [ "$read" != "$now" ]; then
        echo "$1" >> "$OUT/stale.$AGENT"
        return 1
    fi
    sleep 0.02
    printf '%s\n' "$read" "$AGENT" > "$TREE/.$AGENT.$1" && mv "$TREE/.$AGENT.$1" "$TREE/$1"
    echo "$1" >> "$OUT/edits"
}
event SessionStart
for file in $FILES; do
    refusals=0
    until update "$file"; do
        [ $? != 2 ] || refusals=$((refusals + 1))
        if [ $refusals = 5 ]; then
            refusals=0
            event Stop
        fi
        sleep "0.$((RANDOM % 20 + 10))"
    done
done
event Stop
event SessionEnd
: > "$OUT/done.$AGENT"
"#;

/// A run's times, and which hook it uses.
struct Course<'a> {
    think: &'a str,
    kill_every: Option<Duration>,
    hook: &'a str,
}

/// The updates that were kept, those that were made, and the kills.
#[derive(Debug, PartialEq)]
struct Result {
    kept: usize,
    made: usize,
    kills: usize,
}

fn agent(mount: &Mount, temp: &Path, programs: &Programs, at: usize, course: &Course) -> Guard {
    // Each in another order.
    let files: Vec<String> = (0..FILES)
        .map(|file| format!("f{}", (at + file) % FILES))
        .collect();
    let mut agent = Command::new(programs.shell("claude"));
    plain(&mut agent);
    agent.args(["-c", AGENT]).stdin(Stdio::null());
    agent
        .env("CLAIMFS_MOUNT", &mount.dir)
        .env("AGENT", format!("agent{at}"))
        .env("FILES", files.join(" "))
        .env("HOOK", course.hook)
        .env("OUT", temp.join("out"))
        .env("THINK", course.think)
        .env("TREE", temp.join("tree"))
        .current_dir(temp.join("tree"));
    Guard::spawn(&mut agent)
}

fn run(course: &Course) -> Option<Result> {
    let mut mount = Mount::unmounted()?;
    mount.knows_agents = true;
    mount.start(&[]);
    let (temp, programs) = (TempDir::in_memory(), Programs::new());
    let (out, tree) = (temp.path().join("out"), temp.path().join("tree"));
    fs::create_dir(&out).unwrap();
    fs::create_dir(&tree).unwrap();
    for file in 0..FILES {
        fs::write(tree.join(format!("f{file}")), "head\n").unwrap();
    }
    let start = |at: usize| agent(&mount, temp.path(), &programs, at, course);
    let is_done = |at: usize| out.join(format!("done.agent{at}")).exists();
    let mut agents: Vec<Guard> = (0..AGENTS).map(start).collect();
    let (began, mut kills) = (Instant::now(), 0);
    let mut next = course.kill_every;
    while !(0..AGENTS).all(is_done) {
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "the agents do not end"
        );
        if next.is_some_and(|next| began.elapsed() >= next) {
            let at = (0..AGENTS)
                .map(|step| (kills + step) % AGENTS)
                .find(|at| !is_done(*at));
            if let Some(at) = at {
                // Its session is over, and its commands are left alone.
                agents[at].0.kill().unwrap();
                agents[at].0.wait().unwrap();
                agents[at] = start(at);
                kills += 1;
            }
            next = next
                .zip(course.kill_every)
                .map(|(next, every)| next + every);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for agent in &mut agents {
        assert!(agent.0.wait().unwrap().success());
    }
    let mut kept = 0;
    for file in 0..FILES {
        let text = fs::read_to_string(tree.join(format!("f{file}"))).unwrap();
        for at in 0..AGENTS {
            let own = format!("agent{at}");
            let count = text.lines().filter(|line| *line == own).count();
            assert!(count <= 1, "{text}");
            kept += count;
        }
    }
    let failures = fs::read_to_string(out.join("failures")).unwrap_or_default();
    assert_eq!(failures, "", "hooks that failed");
    let made = fs::read_to_string(out.join("edits"))
        .unwrap()
        .lines()
        .count();
    wait_until("all is given back", || {
        !mount.read("leases").contains("\"name\"")
    });
    println!(
        "{kept} of {} kept, {kills} kills, {:?}",
        AGENTS * FILES,
        began.elapsed()
    );
    Some(Result { kept, made, kills })
}

fn hook() -> String {
    env::var("CLAIMFS_TEST_HOOK").unwrap_or_else(|_| format!("{CLAIMFS} hook"))
}

#[test]
fn five_agents_that_know_nothing_of_claimfs_lose_no_update() {
    let hook = hook();
    let quick = Course {
        think: "0.05",
        kill_every: None,
        hook: &hook,
    };
    let killed = Course {
        kill_every: Some(Duration::from_millis(700)),
        ..quick
    };
    for course in [quick, killed] {
        let Some(result) = run(&course) else { return };
        assert_eq!(result.kept, AGENTS * FILES, "{result:?}");
        assert!(
            course.kill_every.is_none() || result.kills > 0,
            "{result:?}"
        );
    }
    // At length.
    let kill_every = Some(Duration::from_secs(5));
    for _ in 0..number("CLAIMFS_TEST_HOOKED_RUNS", 0) {
        let course = Course {
            think: "0.7",
            kill_every,
            hook: &hook,
        };
        let result = run(&course).unwrap();
        assert!(
            result.kept == AGENTS * FILES && result.kills > 0,
            "{result:?}"
        );
    }
}

/// The stand-ins themselves: without a hook they lose updates, so that the test above can fail.
#[test]
fn without_a_hook_the_same_agents_lose_updates() {
    let course = Course {
        think: "0.05",
        kill_every: None,
        hook: "true",
    };
    let mut lost = false;
    for _ in 0..10 {
        let Some(result) = run(&course) else { return };
        lost |= result.kept < result.made;
        if lost {
            break;
        }
    }
    assert!(lost, "no update was lost in ten runs");
}
