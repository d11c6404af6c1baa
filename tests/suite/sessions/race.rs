//! Processes that die, stop, and come back with the same pid: never two holders, never a stale
//! lock.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use libc::{EBUSY, EEXIST, O_CREAT, O_WRONLY};

use crate::racers::{self, Answer, Client, RACERS, Race};
use crate::support::{
    CLAIMFS, Mount, TempDir, plain, program, root_or_skip, skip, unmount, wait_until,
};

fn state(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().chars().next().unwrap()
}

fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

#[test]
fn once_its_parent_has_waited_for_it_a_dead_holders_name_is_free_1000_of_1000_times() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    let mut free = 0;
    for round in 0..1000 {
        let mut holder = mount.sh("set -C; : > claims/x && kill -9 $$");
        let status = holder
            .env("CLAIMFS_SESSION", format!("holder-{round}"))
            .status()
            .unwrap();
        assert_eq!(
            status.code(),
            None,
            "the holder got the claim and was killed"
        );
        free += i32::from(me.claim("x") == Ok(()));
        me.unlink("claims/x").unwrap();
    }
    assert_eq!(free, 1000);
}

#[test]
fn all_that_a_dead_holder_held_is_free_at_once() {
    let Some(mount) = Mount::new() else { return };
    let (mut holder, mut me) = (mount.actor(Some("holder")), mount.actor(Some("me")));
    let names: Vec<String> = (0..2000).map(|index| format!("n{index}")).collect();
    for name in &names {
        holder.claim(name).unwrap();
    }
    holder.kill();
    for name in names.iter().rev() {
        me.claim(name).unwrap();
    }
    assert_eq!(mount.claims().len(), names.len());
    wait_until("every lease is recorded as gone", || {
        mount
            .read("metrics")
            .contains("\nclaimfs_reaps_total 2000\n")
    });
    // The log says it in one line, and tells of a hundred.
    let log = mount.log();
    assert!(log.contains("session holder is over, and its 2000 claims are free; 'events' tells of each, and this log of the last 100"), "{log}");
    assert_eq!(log.matches("reaped claims/").count(), 100, "{log}");
}

#[test]
fn the_dead_hold_nothing_that_anybody_sees() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.actor(Some("holder"));
    holder.claim("x").unwrap();
    assert_eq!(mount.claims(), ["x"]);
    holder.kill();
    assert_eq!(mount.claims(), [""; 0]);
    assert!(mount.record("x").is_none());
    assert!(!mount.path("claims/x").exists());
    assert!(!mount.path("sessions/holder").exists());
    assert!(
        fs::read_dir(mount.path("sessions"))
            .unwrap()
            .next()
            .is_none()
    );
}

#[test]
fn a_reap_is_logged_in_a_sentence() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.actor(Some("w1"));
    holder.claim("repo").unwrap();
    let pid = holder.pid();
    holder.kill();
    // Nobody asks: the log shows that the death was seen all the same.
    wait_until("the reap is logged", || mount.log().contains("reaped"));
    let log = mount.log();
    let line = log.lines().find(|line| line.contains("reaped")).unwrap();
    // It was held for less than a second: perhaps the variable was set for a single command.
    assert!(line.contains("WARN"), "{line}");
    assert!(line.ends_with("set it for the whole script"), "{line}");
    assert!(
        line.contains(&format!("reaped claims/repo: session w1 (pid {pid}, ")),
        "{line}"
    );
    assert!(
        line.contains("it held the claim for 0.") || line.contains("it held the claim for 1."),
        "{line}"
    );
}

#[test]
fn a_zombie_is_dead_before_its_parent_waits_for_it() {
    let Some(mount) = Mount::new() else { return };
    let (mut holder, mut me) = (mount.actor(Some("holder")), mount.actor(Some("me")));
    holder.claim("x").unwrap();
    assert_eq!(me.claim("x"), Err(EEXIST));
    holder.signal(libc::SIGKILL);
    // The whole of it: while another of its threads is on its way out, a leader that has exited
    // proves nothing.
    wait_until("the holder is a zombie", || {
        threads(holder.pid()) == 1 && state(holder.pid()) == 'Z'
    });
    me.claim("x").unwrap();
    assert_eq!(state(holder.pid()), 'Z');
}

#[test]
fn a_process_whose_first_thread_has_exited_lives_while_another_does() {
    let Some(mount) = Mount::new() else { return };
    let (mut holder, mut me) = (mount.actor(Some("holder")), mount.actor(Some("me")));
    holder.claim("x").unwrap();
    holder.call("leader_exit", serde_json::json!({})).unwrap();
    assert_eq!(state(holder.pid()), 'Z');
    assert_eq!(me.claim("x"), Err(EEXIST));
    assert_eq!(me.open("claims/x", O_WRONLY | O_CREAT), Err(EBUSY));
    // The thread that is left is the same process of the same session.
    assert!(holder.open("claims/x", O_WRONLY | O_CREAT).is_ok());
    holder.claim("y").unwrap();
    assert_eq!(mount.record("y").unwrap()["session"], "holder");
    holder.kill();
    me.claim("x").unwrap();
    me.claim("y").unwrap();
}

#[test]
fn a_stopped_holder_is_alive() {
    let Some(mount) = Mount::new() else { return };
    let (mut holder, mut me) = (mount.actor(Some("holder")), mount.actor(Some("me")));
    holder.claim("x").unwrap();
    holder.signal(libc::SIGSTOP);
    wait_until("the holder is stopped", || state(holder.pid()) == 'T');
    assert_eq!(me.claim("x"), Err(EEXIST));
    assert_eq!(me.open("claims/x", O_WRONLY | O_CREAT), Err(EBUSY));
    assert_eq!(me.unlink("claims/x"), Err(EBUSY));
    holder.signal(libc::SIGCONT);
    assert_eq!(holder.claim("x"), Err(EEXIST), "its own, still");
    holder.signal(libc::SIGSTOP);
    wait_until("the holder is stopped", || state(holder.pid()) == 'T');
    holder.kill();
    me.claim("x").unwrap();
}

static DASH: Client = racers::DASH;
static BASH: Client = racers::BASH;
static PYTHON: Client = racers::PYTHON;

/// `tests/programs/racer.rs`.
fn raw() -> &'static Client {
    static RAW: OnceLock<Client> = OnceLock::new();
    RAW.get_or_init(|| {
        let program = program("racer").into_os_string().into_string().unwrap();
        let program: &'static str = program.leak();
        Client {
            name: "raw open(2), O_EXCL",
            probe: &["true"],
            words: vec![program].leak(),
            named: true,
            ..racers::DASH
        }
    })
}

/// Eight racers on fresh names and on those of holders that have just died: `cargo bench --bench
/// racers` has more rounds, and what comes of it elsewhere.
fn race(client: &'static Client, rounds: usize) {
    if !client.is_installed() {
        return skip(&format!("{} is not installed", client.name));
    }
    let Some(mount) = Mount::new() else { return };
    let scratch = TempDir::in_memory();
    let mut race = Race::start(client, &mount.path("claims"), scratch.path());
    for round in 0..2 * rounds {
        // Every other round the name is a dead holder's.
        let name = if round % 2 == 0 {
            format!("fresh-{round}")
        } else {
            race.die_holding("x");
            "x".to_owned()
        };
        let answers = race.run(&name, Duration::ZERO);
        let winners: Vec<usize> = (0..RACERS)
            .filter(|index| answers[*index] == Answer::Won)
            .collect();
        assert_eq!(winners.len(), 1, "{name} in round {round}: {answers:?}");
        let lost = answers.iter().filter(|answer| **answer == Answer::Lost);
        assert_eq!(
            lost.count(),
            RACERS - 1,
            "{name} in round {round}: {answers:?}"
        );
        let record = mount.record(&name).unwrap();
        assert_eq!(record["pid"], race.pid(winners[0]), "in round {round}");
        assert_eq!(race.end(), [""; 0]);
        assert_eq!(mount.claims(), [""; 0]);
    }
}

#[test]
fn of_eight_racers_in_sh_exactly_one_wins() {
    race(&DASH, 100);
}

#[test]
fn of_eight_racers_in_bash_exactly_one_wins() {
    race(&BASH, 100);
}

#[test]
fn of_eight_racers_in_python_exactly_one_wins() {
    race(&PYTHON, 100);
}

#[test]
fn of_eight_racers_with_bare_system_calls_exactly_one_wins() {
    race(raw(), 100);
}

/// In a pid namespace of its own the next pid can be chosen, so that a dead holder's is in use
/// again at once.
const RECYCLE: &str = r#"
"$claimfs" mount --state-dir "$1/state" "$1/mount" > "$1/out" && cd "$1/mount" || exit 1
server=$(cat "$1/state/lock")
# The first death of all makes the server start a helper, which would take the pid that is to be used again.
CLAIMFS_SESSION=w0 sh -c 'echo > claims/first'
until grep -qs notify /proc/[0-9]*/cmdline; do :; done
for stop in no yes; do
    CLAIMFS_SESSION=w1 sh -c 'set -C; echo > claims/x; exec sleep 60' & pid=$!
    # Until the holder is no longer in a request, which nobody would answer while the server is stopped.
    comm=; until [ "$comm" = sleep ]; do read -r comm < /proc/$pid/comm; done
    # Stopped, the server can have seen nothing of the death before the pid is in use again.
    [ $stop = no ] || kill -STOP $server
    kill -9 $pid; wait $pid 2> /dev/null
    echo $((pid - 1)) > /proc/sys/kernel/ns_last_pid
    CLAIMFS_SESSION=w1 sleep 60 & new=$!
    [ $stop = no ] || kill -CONT $server
    echo "recycled $((new == pid))"
    CLAIMFS_SESSION=w2 sh -c 'set -C; echo > claims/x && echo granted'
    kill $new; wait $new 2> /dev/null
    [ ! -e claims/x ] && echo "free again"
done
cd / && "$claimfs" umount "$1/mount"
"#;

/// The number of a POSIX session whose processes have all left it is given out again, while one of
/// them lives and holds.
const REUSED_SID: &str = r#"
"$claimfs" mount --state-dir "$1/state" "$1/mount" > "$1/out" && cd "$1/mount" || exit 1
sh -c 'exec setsid sh -c "sh -c \"echo > claims/x; exec setsid sleep 60\" & while :; do :; done"' & leader=$!
comm=; until [ "$comm" = sleep ]; do
    holder=$(sed -n 's/.*"pid":\([0-9]*\).*/\1/p' claims/x 2> /dev/null)
    [ -z "$holder" ] || read -r comm < /proc/$holder/comm
done
kill -9 $leader; wait $leader 2> /dev/null
cat claims/x > "$1/record"
echo $((leader - 1)) > /proc/sys/kernel/ns_last_pid
sh -c 'exec setsid sh -c "cat self > $1/self; rm -f claims/x; echo > claims/x" sh "$1"' sh "$1" 2> "$1/refused" & stranger=$!
wait $stranger
echo "reused $((stranger == leader))"
grep -c "Operation not permitted" "$1/refused"
cmp "$1/record" claims/x && echo "held still"
kill $holder
until [ ! -e claims/x ]; do :; done
sh -c 'exec setsid sh -c "set -C; echo > claims/x && echo granted"'
cd / && "$claimfs" umount "$1/mount"
"#;

#[test]
fn regression_a_reused_session_number_is_not_the_holders_terminal() {
    let Some(text) = in_pid_namespace(REUSED_SID) else {
        return;
    };
    assert_eq!(text, "reused 1\n2\nheld still\ngranted\n");
}

/// Runs a script in a pid namespace of its own, with a directory as its argument: what it printed.
fn in_pid_namespace(script: &str) -> Option<String> {
    let able =
        root_or_skip("make a pid namespace and choose pids in it") && crate::support::can_mount();
    let temp = able.then(TempDir::new)?;
    let mut command = Command::new("timeout");
    command.args([
        "60",
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    command.args(["sh", "-c", script, "sh"]).arg(temp.path());
    plain(&mut command);
    let output = command
        .env("claimfs", CLAIMFS)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    unmount(&temp.path().join("mount"));
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_recycled_pid_is_not_the_dead_holder() {
    let Some(text) = in_pid_namespace(RECYCLE) else {
        return;
    };
    assert_eq!(text, "recycled 1\ngranted\nfree again\n".repeat(2));
}

/// A server that may have few descriptors open. Each claimant is the child of a shell that carries
/// the same variable.
const SHORTAGE: &str = r#"
ulimit -n 64
"$claimfs" mount --state-dir "$1/state" "$1/mount" > "$1/out" && cd "$1/mount" || exit 1
i=0; while [ $i -lt 60 ]; do
    i=$((i + 1))
    CLAIMFS_SESSION=w$i sh -c 'sh -c "set -C; echo > claims/$1 && echo \$\$ > $2/got.$1; exec sleep 60" sh "$1" "$2" &
        until grep -q sleep /proc/$!/comm; do :; done' sh n$i "$1" 2> /dev/null
done
held=0; lost=0
for got in "$1"/got.*; do
    if [ -e "claims/${got##*.}" ]; then held=$((held + 1)); else lost=$((lost + 1)); fi
done
echo "some held: $((held > 5)), all held: $((held < 60)), lost: $lost"
kill $(sed -n 's/.*"pid":\([0-9]*\).*/\1/p' leases)
until [ -z "$(ls claims)" ]; do :; done
i=0; while [ $i -lt 200 ]; do i=$((i + 1)); cat self > /dev/null || echo "self fails"; done
sh -c 'set -C; echo > claims/x && echo granted'
cd / && "$claimfs" umount "$1/mount"
"#;

#[test]
fn regression_what_cannot_be_looked_at_for_want_of_descriptors_is_neither_dead_nor_unreadable() {
    let Some(mount) = Mount::new() else { return };
    let mut actor = mount.actor(None);
    let told = actor
        .call("look_when_short", serde_json::json!({}))
        .unwrap();
    // Its environment is not called unreadable, which would make it its parent's; it is not called
    // dead; and with descriptors again it is what it was.
    assert_eq!(told, serde_json::json!([true, "error", "Watched"]));
}

#[test]
fn a_session_without_a_number_in_this_namespace_has_an_id_of_its_own() {
    // The first process here came from a POSIX session outside, whose number nobody here can see.
    let script = r#""$claimfs" mount --state-dir "$1/state" "$1/mount" > "$1/out" && cd "$1/mount" || exit 1
        cut -d' ' -f6 /proc/$$/stat; echo > claims/x; sed -n 's/.*"session":"\([a-z]*\)-.*/\1/p' claims/x
        cd / && "$claimfs" umount "$1/mount""#;
    let Some(text) = in_pid_namespace(script) else {
        return;
    };
    assert_eq!(text, "0\noutside\n");
}

#[test]
fn regression_a_shortage_of_descriptors_is_no_proof_of_death() {
    let Some(text) = in_pid_namespace(SHORTAGE) else {
        return;
    };
    assert_eq!(text, "some held: 1, all held: 1, lost: 0\ngranted\n");
}
