//! Attacks by strangers, and their outcome: those rows of the manual's tables that are tested
//! nowhere else.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Instant;

use libc::{EDQUOT, EPERM, O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_WRONLY};

use crate::support::{Actor, Guard, Mount, text, wait_until};

const USER: u32 = 4242;

fn user(mount: &Mount, uid: u32, session: &str) -> Actor {
    Actor::start(mount, Some(session), |command| {
        command.uid(uid).gid(uid);
    })
}

#[test]
fn a_uid_has_its_share_and_no_more_and_keeps_nobody_from_theirs() {
    let Some(mount) = Mount::shared(&["--max-leases", "10", "--max-per-uid", "4"]) else {
        return;
    };
    let mut greedy = user(&mount, USER, "greedy");
    for number in 0..4 {
        greedy.claim(&number.to_string()).unwrap();
    }
    let flags = O_WRONLY | O_CREAT | O_EXCL;
    assert_eq!(greedy.open("claims/4", flags), Err(EDQUOT));
    assert_eq!(greedy.mkdir("claims/4"), Err(EDQUOT));
    assert_eq!(greedy.link("claims/0", "claims/4"), Err(EDQUOT));
    assert_eq!(greedy.open("queue/4", O_RDONLY), Err(EDQUOT));
    // A change that needs no more room than before is not refused.
    greedy.rename("claims/0", "claims/4", 0).unwrap();
    greedy.unlink("claims/4").unwrap();
    greedy.claim("0").unwrap();
    // Another session of the same uid has no share of its own; each other uid has; and root has all
    // there is.
    let mut again = user(&mount, USER, "again");
    assert_eq!(again.open("claims/5", flags), Err(EDQUOT));
    let mut other = user(&mount, USER + 1, "other");
    for name in ["a", "b"] {
        other.claim(name).unwrap();
    }
    let mut root = mount.actor(Some("root"));
    for name in ["c", "d", "e", "f"] {
        root.claim(name).unwrap();
    }
    assert_eq!(root.claim("g"), Err(libc::ENOSPC));
    // With the dead goes their share.
    greedy.kill();
    for number in 0..4 {
        again.claim(&number.to_string()).unwrap();
    }
    root.unlink("claims/f").unwrap();
    assert_eq!(again.open("claims/5", flags), Err(EDQUOT));
    // A name that is freed goes to the next waiter, also if that has enough.
    let mut waiting = user(&mount, USER, "waiting");
    let fd = waiting.open("queue/c", O_RDONLY).unwrap();
    root.unlink("claims/c").unwrap();
    while !waiting.read(fd).unwrap().is_empty() {}
    assert_eq!(mount.record("c").unwrap()["session"], "waiting");
}

#[test]
fn sessions_and_places_in_lines_are_shared_out_too() {
    let Some(mount) = Mount::shared(&["--max-per-uid", "3"]) else {
        return;
    };
    let mut root = mount.actor(Some("root"));
    root.claim("x").unwrap();
    let mut greedy: Vec<Actor> = (0..4)
        .map(|n| user(&mount, USER, &format!("g{n}")))
        .collect();
    let places: Vec<_> = greedy
        .iter_mut()
        .map(|actor| actor.open("queue/x", O_RDONLY | O_NONBLOCK))
        .collect();
    assert!(places[..3].iter().all(Result::is_ok), "{places:?}");
    assert_eq!(
        places[3],
        Err(EDQUOT),
        "the fourth session, and the fourth place"
    );
    assert_eq!(greedy[0].open("queue/y", O_RDONLY).map(|_| ()), Ok(()));
    assert_eq!(greedy[0].open("queue/x", O_RDONLY), Err(EDQUOT));
    assert_eq!(
        greedy[3].open("claims/z", O_WRONLY | O_CREAT | O_EXCL),
        Err(EDQUOT)
    );
    let mut other = user(&mount, USER + 1, "other");
    other.open("queue/x", O_RDONLY | O_NONBLOCK).unwrap();
    other.claim("z").unwrap();
}

#[test]
fn names_that_are_only_looked_at_in_the_queue_are_forgotten_and_cost_nobody_their_turn() {
    let Some(mount) = Mount::shared(&[]) else {
        return;
    };
    let mut root = mount.actor(Some("root"));
    root.claim("n0").unwrap();
    let mut waiting = user(&mount, USER + 1, "waiting");
    let fd = waiting.open("queue/n0", O_RDONLY).unwrap();
    waiting.stat("queue/n1").unwrap();
    let mut curious = user(&mount, USER, "curious");
    for number in 0..17_000 {
        curious.stat(&format!("queue/n{number}")).unwrap();
    }
    let journal = fs::metadata(mount.state.join("journal")).unwrap().len();
    assert!(journal < 6 << 20, "{journal}");
    // The kernel looks up forgotten names again, and open files stay as they are.
    assert_eq!(waiting.fstat(fd).unwrap()["size"], 4096);
    let other = waiting.open("queue/n1", O_RDONLY).unwrap();
    while !waiting.read(other).unwrap().is_empty() {}
    root.unlink("claims/n0").unwrap();
    while !waiting.read(fd).unwrap().is_empty() {}
    assert_eq!(mount.record("n0").unwrap()["session"], "waiting");
}

#[test]
fn texts_that_are_begun_and_not_read_do_not_fill_the_state_directory() {
    let Some(mount) = Mount::shared(&[]) else {
        return;
    };
    let mut root = mount.actor(Some("root"));
    for number in 0..200 {
        root.claim(&number.to_string()).unwrap();
    }
    let mut greedy = user(&mount, USER, "greedy");
    for _ in 0..900 {
        let fd = greedy.open("leases", O_RDONLY).unwrap();
        greedy.pread(fd, 1, 0).unwrap();
    }
    let texts = fs::read_dir(mount.state.join("texts")).unwrap();
    let kept: u64 = texts
        .map(|text| text.unwrap().metadata().unwrap().len())
        .sum();
    assert!((1 << 20..=16 << 20).contains(&kept), "{kept}");
}

#[test]
fn a_sandbox_does_not_speak_for_a_session_without_processes_outside_of_it() {
    let Some(mount) = Mount::shared(&[]) else {
        return;
    };
    let user = "setpriv --reuid 4242 --regid 4242 --clear-groups";
    let claim = "echo '{\"claim\":\"x\",\"session\":\"box\",\"seconds\":600}' > control";
    mount.run(&format!("{user} sh -c \"$(cat <<'EOT'\n{claim}\nEOT\n)\""));
    let release = "echo '{\"release\":\"x\",\"session\":\"box\"}' > control";
    for line in [release, claim] {
        let script = format!(
            "unshare --pid --fork --kill-child {user} sh -c \"$(cat <<'EOT'\n{line}\nEOT\n)\""
        );
        let (code, _, err) = text(&mount.sh(&script).output().unwrap());
        assert!(code != 0 && err.contains("error"), "{code}: {err}");
    }
    assert_eq!(mount.record("x").unwrap()["session"], "box");
    mount.run(&format!(
        "{user} sh -c \"$(cat <<'EOT'\n{release}\nEOT\n)\""
    ));
    assert!(mount.record("x").is_none());
}

#[test]
fn a_name_reaches_no_terminal_and_no_record_as_it_is() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me\u{1b}[31m"));
    let long = format!("{}\u{1b}]0;x\u{7}", "n".repeat(249));
    assert_eq!(long.len(), 255);
    let names = [
        "new\nline",
        "\u{1b}[2J\u{1b}[H",
        "\"quote\"",
        "tab\t\r\u{8}",
        "\u{202e}rtl",
        "\u{9b}31m\u{7f}\u{61c}",
        &long,
    ];
    let mut events = mount.actor(Some("reader"));
    let fd = events.open("events", O_RDONLY).unwrap();
    for name in names {
        me.claim(name).unwrap();
    }
    let mut waiter = mount.actor(Some("waiter"));
    waiter.open("queue/new\nline", O_RDONLY).unwrap();
    let too_long = format!("claims/{}", "\u{1b}".repeat(256));
    let refused = me.open(&too_long, O_WRONLY | O_CREAT);
    assert_eq!(refused, Err(libc::ENAMETOOLONG));
    // Bytes that are no text are no name.
    let script = "printf x > \"claims/$(printf 'a\\377b')\"";
    let output = mount.sh(script).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("Invalid argument"));
    let mut said = String::new();
    while !said.contains("nnnn") {
        said += &events.read(fd).unwrap();
    }
    for file in ["leases", "waiters", "metrics", "self"] {
        said += &mount.read(file);
    }
    said += &mount.run("cat claims/*; cat sessions/*");
    for arguments in [
        &["ls"][..],
        &["show", "new\nline"],
        &["claim", "new\nline"],
        &["claim", "\u{1b}[2J\u{1b}[H"],
        &["release", "new\nline"],
        &["break", "nothing\u{1b}"],
        &["session", "ls"],
    ] {
        let (_, out, err) = text(&mount.claimfs(arguments).output().unwrap());
        said += &(out + &err);
    }
    drop(me);
    wait_until("the log says so", || {
        mount.log().contains("reaped claims/nnnn")
    });
    said += &mount.log();
    let turns = |c: char| "\u{202e}\u{61c}".contains(c);
    let loose = |c: char| (c.is_control() && c != '\n') || turns(c);
    assert!(!said.contains(loose), "{said:?}");
    for line in said.lines().filter(|line| line.starts_with('{')) {
        assert!(
            serde_json::from_str::<serde_json::Value>(line).is_ok(),
            "{line:?}"
        );
    }
    assert!(!said.lines().any(|line| line.starts_with("line")), "{said}");
}

#[test]
fn what_is_inside_a_claim_leads_nowhere() {
    let Some(mount) = Mount::new() else { return };
    let outside = mount.state.join("secret");
    fs::write(&outside, "secret").unwrap();
    let mut me = mount.actor(Some("me"));
    me.mkdir("claims/d").unwrap();
    // Symlinks are text to the server; what follows them does so by its own rights, and on this
    // mount the kernel refuses.
    me.symlink(outside.to_str().unwrap(), "claims/d/s").unwrap();
    me.symlink("../../../../../../etc/passwd", "claims/d/up")
        .unwrap();
    for path in ["claims/d/s", "claims/d/up"] {
        assert_eq!(me.open(path, O_RDONLY), Err(libc::ELOOP), "nosymfollow");
        assert!(me.open(path, O_WRONLY | O_CREAT).is_err());
    }
    for (path, errno) in [
        ("claims/d/..", libc::EEXIST),
        ("claims/d/.", libc::EEXIST),
        ("claims/..", libc::EEXIST),
    ] {
        assert_eq!(me.mkdir(path), Err(errno), "{path}");
    }
    me.mkdir("claims/d/sub").unwrap();
    // Neither out of the claim nor into itself.
    assert_eq!(
        me.rename("claims/d/sub", "claims/d/sub/x", 0),
        Err(libc::EINVAL)
    );
    assert_eq!(me.rename("claims/d/sub", "claims/out", 0), Err(libc::EXDEV));
    assert_eq!(me.link("claims/d/s", "claims/out"), Err(libc::EXDEV));
    let mut other = mount.actor(Some("other"));
    assert_eq!(
        other.symlink("/etc/passwd", "claims/d/mine"),
        Err(libc::EBUSY)
    );
    assert_eq!(fs::read_to_string(&outside).unwrap(), "secret");
    assert_eq!(mount.claims(), ["d"]);
}

/// A process that does what it is told with its own memory and name, and then claims.
const POSER: &str = r"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def overwrite(old, new):
    # What /proc/PID/environ shows is this process's own memory.
    fields = open('/proc/self/stat').read().rsplit(')', 1)[1].split()
    start, end = int(fields[47]), int(fields[48])
    memory = open('/proc/self/mem', 'r+b', buffering=0)
    memory.seek(start)
    text = memory.read(end - start)
    assert old in text and len(old) == len(new)
    memory.seek(start + text.index(old))
    memory.write(new)
if sys.argv[1] == 'environ':
    overwrite(b'CLAIMFS_SESSION=mine', b'CLAIMFS_SESSION=root')
if sys.argv[1] == 'comm':
    libc.prctl(15, b'root\x1b) S 1 1')
if sys.argv[1] == 'hidden':
    assert libc.prctl(4, 0, 0, 0, 0) == 0
try:
    os.close(os.open('claims/' + sys.argv[2], os.O_CREAT | os.O_EXCL))
    print('granted', flush=True)
except OSError as e:
    print(e.errno, flush=True)
sys.stdin.read()
";

fn poser(
    mount: &Mount,
    how: &str,
    name: &str,
    prepare: impl FnOnce(&mut std::process::Command),
) -> Guard {
    let mut command = mount.sh("exec python3 -c \"$POSER\" \"$HOW\" \"$NAME\"");
    command
        .env("POSER", POSER)
        .env("HOW", how)
        .env("NAME", name);
    command.env("CLAIMFS_SESSION", "mine").uid(USER).gid(USER);
    prepare(&mut command);
    Guard::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))
}

#[test]
fn a_process_that_changes_what_it_looks_like_gets_no_further_than_its_uid() {
    let Some(mount) = Mount::shared(&[]) else {
        return;
    };
    let mut root = mount.actor(Some("root"));
    root.claim("theirs").unwrap();
    // Its environment now says that it is root's session: that is another uid's.
    assert_eq!(
        poser(&mount, "environ", "a", |_| {}).line(),
        EPERM.to_string()
    );
    // Its name is anything that it likes, and is only shown, without what would reach a terminal.
    let mut named = poser(&mount, "comm", "b", |_| {});
    assert_eq!(named.line(), "granted");
    let record = mount.record("b").unwrap();
    assert_eq!(record["session"], "mine");
    let (_, out, _) = text(&mount.claimfs(&["ls"]).output().unwrap());
    assert!(
        !out.contains('\u{1b}') && out.contains("\\u{1b}) S 1 1"),
        "{out}"
    );
    drop(named);
    wait_until("it goes with its process", || mount.record("b").is_none());
    // One that nobody may look into is what its parent is, and is watched all the same.
    let mut hidden = poser(&mount, "hidden", "c", |_| {});
    assert_eq!(hidden.line(), "granted");
    drop(hidden);
    wait_until("it goes with its process", || mount.record("c").is_none());
    // A huge environment is read, and costs nobody else.
    let mut huge = poser(&mount, "none", "d", |command| {
        for number in 0..20 {
            command.env(format!("A{number:02}"), "x".repeat(100_000));
        }
    });
    assert_eq!(huge.line(), "granted");
    assert_eq!(mount.record("d").unwrap()["session"], "mine");
    assert_eq!(mount.claims(), ["d", "theirs"]);
}

/// What one process does without end; each is to cost the others little.
const FLOODS: [(&str, &str); 6] = [
    (
        "one claim",
        "fd = os.open('claims/f', os.O_CREAT | os.O_WRONLY)\nwhile True: os.pwrite(fd, b'x' * 4096, 0)",
    ),
    (
        "names",
        "i = 0\nwhile True:\n    i += 1\n    os.close(os.open('claims/f%d' % i, os.O_CREAT | os.O_EXCL))\n    if i % 500 == 0:\n        for j in range(i - 499, i + 1): os.unlink('claims/f%d' % j)",
    ),
    (
        "sessions",
        "i = 0\nwhile True:\n    i += 1\n    fd = os.open('sessions/f%d' % (i % 50), os.O_CREAT | os.O_WRONLY)\n    os.write(fd, str(os.getpid()).encode())\n    os.close(fd)",
    ),
    (
        "queue",
        "while True: os.close(os.open('queue/held', os.O_RDONLY))",
    ),
    (
        "events",
        "while True:\n    fd = os.open('events', os.O_RDONLY | os.O_NONBLOCK)\n    os.close(fd)",
    ),
    ("leases", "while True: open('leases').read()"),
];

#[test]
fn while_one_floods_the_others_are_served() {
    let Some(mount) = Mount::shared(&[]) else {
        return;
    };
    let mut holder = mount.actor(Some("holder"));
    holder.claim("held").unwrap();
    let mut bystander = user(&mount, USER + 1, "bystander");
    let mut usual = |rounds: u32| {
        let mut times: Vec<u128> = (0..rounds)
            .map(|_| {
                let start = Instant::now();
                bystander.claim("by").unwrap();
                bystander.unlink("claims/by").unwrap();
                start.elapsed().as_micros()
            })
            .collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    usual(100);
    for (what, flood) in FLOODS {
        let before = usual(300);
        let mut command = mount.sh("exec python3 -c \"$FLOOD\"");
        command.env(
            "FLOOD",
            format!("import os\nprint('begun', flush=True)\n{flood}"),
        );
        command
            .env("CLAIMFS_SESSION", "flood")
            .uid(USER)
            .gid(USER)
            .stdout(Stdio::piped());
        let mut flood = Guard::spawn(&mut command);
        assert_eq!(flood.line(), "begun");
        let during = usual(300);
        drop(flood);
        if std::env::var_os("CLAIMFS_TEST_TABLE").is_some() {
            let percent = 100 * during / before;
            eprintln!("| {what} | {before} | {during} | {percent} % |");
        }
        // Other tests run meanwhile: what is held here is that nobody waits for the flood to end.
        assert!(
            during < 20 * before + 5000,
            "{what}: {before} us, then {during} us"
        );
    }
}

/// How long the processor has worked for a process, in clock ticks (proc(5)).
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ');
    fields
        .skip(11)
        .take(2)
        .map(|n| n.parse::<u64>().unwrap())
        .sum()
}

#[test]
fn regression_a_process_of_many_threads_without_an_environment_costs_no_more_than_another() {
    // Each claim looked into every thread for an environment, which none had.
    const CLAIMS: u64 = 50;
    let Some(mount) = Mount::new() else { return };
    let script = "
import os, sys, threading
gate = threading.Event()
threading.stack_size(65536)
for number in range(int(sys.argv[1])):
    threading.Thread(target=gate.wait, daemon=True).start()
for number in range(int(sys.argv[2])):
    os.close(os.open('claims/x', os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    os.unlink('claims/x')
os._exit(0)
";
    let server = mount.server().unwrap_or_else(|| mount.pid());
    let cost = |threads: u64| {
        let before = ticks(server);
        let mut python = std::process::Command::new("python3");
        python.args(["-c", script, &threads.to_string(), &CLAIMS.to_string()]);
        // The only lookup there is that of the program.
        let status = python.env_clear().current_dir(&mount.dir).status().unwrap();
        assert!(status.success());
        ticks(server) - before
    };
    // A tick is 10 ms: 100 calls made 150 of them.
    let (alone, many) = (cost(1), cost(3000));
    assert!(
        many <= alone + 20,
        "{alone} ticks alone, {many} with threads"
    );
}
