//! Waiting in the queue of a name: first come, first served, and nobody between.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libc::{EACCES, EAGAIN, EBUSY, EEXIST, EINVAL, ENOENT, ESTALE};
use libc::{O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, SIGCONT, SIGSTOP};
use serde_json::{Value, json};

use crate::support::{Actor, Guard, Mount, names, text, wait_until};

/// Reads until the end: what was said until then.
fn to_the_end(actor: &mut Actor, fd: i64) -> Vec<String> {
    let mut said = Vec::new();
    loop {
        let text = actor.read(fd).unwrap();
        if text.is_empty() {
            return said;
        }
        said.push(text);
    }
}

fn stand(actor: &mut Actor, name: &str) -> i64 {
    actor.open(&format!("queue/{name}"), O_RDONLY).unwrap()
}

/// The sessions that wait for a name, first come first.
fn line(mount: &Mount, name: &str) -> Vec<String> {
    let lines = mount.read("waiters");
    let records = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of = records.filter(|record| record["claim"] == name);
    of.map(|record| record["session"].as_str().unwrap().to_owned())
        .collect()
}

/// A mount on which `holder` holds x, and actors of further sessions.
fn held<const N: usize>(sessions: [&str; N]) -> Option<(Mount, Actor, [Actor; N])> {
    let mount = Mount::new()?;
    let mut first = mount.actor(Some("holder"));
    first.claim("x").unwrap();
    let others = sessions.map(|session| mount.actor(Some(session)));
    Some((mount, first, others))
}

#[test]
fn first_come_first_served() {
    let Some((mount, mut first, mut waiters)) = held(["a", "b", "c"]) else {
        return;
    };
    let fds = waiters.each_mut().map(|waiter| stand(waiter, "x"));
    assert_eq!(line(&mount, "x"), ["a", "b", "c"]);
    assert_eq!(mount.record("x").unwrap()["waiters"], 3);
    let waiters_of = |actor: &mut Actor| actor.getxattr("claims/x", "user.claimfs.waiters");
    assert_eq!(waiters_of(&mut first).unwrap(), "3");
    let before = mount.record("x").unwrap()["token"].as_u64().unwrap();
    first.unlink("claims/x").unwrap();
    for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
        assert_eq!(mount.session_of("x").unwrap(), name);
        assert_eq!(first.claim("x"), Err(EEXIST));
        to_the_end(&mut waiters[index], fds[index]);
        assert_eq!(
            waiters[index].read(fds[index]).unwrap(),
            "",
            "the end stays the end"
        );
        waiters[index].unlink("claims/x").unwrap();
    }
    assert!(mount.record("x").is_none());
    assert_eq!(mount.read("waiters"), "");
    first.claim("x").unwrap();
    assert_eq!(mount.record("x").unwrap()["token"], before + 4);
    assert_eq!(mount.record("x").unwrap().get("waiters"), None);
}

#[test]
fn while_it_waits_a_reader_is_told_each_second_who_holds_the_name() {
    let Some((_mount, mut first, [mut a, mut b])) = held(["a", "b"]) else {
        return;
    };
    // A session of one process is told so with the first line.
    let note = |session: &str| {
        format!(
            "note: session {session} is this command alone, so claims/x will end with it; \
             set the variable for the whole script, or register that: echo $$ > sessions/{session}\n"
        )
    };
    let (fd, later) = (stand(&mut a, "x"), stand(&mut b, "x"));
    let start = Instant::now();
    let said = a.read(fd).unwrap();
    let said = said.strip_prefix(&note("a")).unwrap();
    let held = format!(
        "you are 1 of 2 for x: held by holder (pid {}, actor",
        first.pid()
    );
    assert!(start.elapsed() < Duration::from_millis(1500));
    assert!(said.starts_with(&held) && said.ends_with(" s\n"), "{said}");
    let behind = b.read(later).unwrap();
    assert!(behind.starts_with(&note("b")) && behind.contains("\nyou are 2 of 2 for x: "));
    assert!(a.read(fd).unwrap().starts_with("you are 1 of 2 for x: "));
    first.unlink("claims/x").unwrap();
    assert_eq!(to_the_end(&mut a, fd), [""; 0]);
}

#[test]
fn whatever_frees_the_name_the_next_in_line_has_it_at_once() {
    type End = fn(&Mount, &mut Actor);
    let ends: [(&str, End); 7] = [
        ("rm", |_, first| first.unlink("claims/x").unwrap()),
        ("mv", |_, first| {
            first.rename("claims/x", "claims/y", 0).unwrap();
        }),
        ("SIGKILL", |_, first| first.kill()),
        ("end", |mount, _| mount.end_session("holder")),
        ("break", |mount, _| {
            let token = mount.record("x").unwrap()["token"].clone();
            let command = json!({"break": "x", "token": token});
            fs::write(mount.path("control"), command.to_string()).unwrap();
        }),
        ("ttl", |mount, first| {
            first
                .setxattr("claims/x", "user.claimfs.ttl", "50ms", 0)
                .unwrap();
            let gone = || mount.session_of("x").is_some_and(|holder| holder == "a");
            wait_until("the deadline passes", gone);
        }),
        ("rename of another onto it, and away", |_, first| {
            first.claim("z").unwrap();
            first.rename("claims/z", "claims/x", 0).unwrap();
            first.unlink("claims/x").unwrap();
        }),
    ];
    for (how, end) in ends {
        let Some((mount, mut first, [mut a, mut racer])) = held(["a", "racer"]) else {
            return;
        };
        let fd = stand(&mut a, "x");
        end(&mount, &mut first);
        assert_eq!(racer.claim("x"), Err(EEXIST), "{how}");
        assert_eq!(mount.session_of("x").as_deref(), Some("a"), "{how}");
        to_the_end(&mut a, fd);
        let claim = a.open("claims/x", O_RDWR).unwrap();
        a.write(claim, "mine").unwrap();
        a.unlink("claims/x").unwrap();
    }
}

#[test]
fn no_racer_comes_between_two_hundred_times() {
    let Some((mount, mut first, [mut a, mut racer])) = held(["a", "racer"]) else {
        return;
    };
    for round in 0..200 {
        let fd = stand(&mut a, "x");
        // It tries as fast as it can while the name changes hands.
        racer.send("claim_until_busy", json!({"path": "claims/x", "times": 40}));
        first.unlink("claims/x").unwrap();
        to_the_end(&mut a, fd);
        assert_eq!(racer.receive().unwrap(), 0, "round {round}: it was granted");
        a.close(fd).unwrap();
        // And back again, by the queue too.
        let back = stand(&mut first, "x");
        a.unlink("claims/x").unwrap();
        to_the_end(&mut first, back);
        first.close(back).unwrap();
    }
    assert_eq!(mount.session_of("x").as_deref(), Some("holder"));
}

#[test]
fn a_free_name_is_granted_at_once_and_ones_own_is_ones_own() {
    let Some(mount) = Mount::new() else { return };
    let (mut a, mut helper) = (mount.actor(Some("a")), mount.actor(Some("a")));
    helper.claim("other").unwrap();
    let fd = stand(&mut a, "x");
    assert_eq!(mount.session_of("x").as_deref(), Some("a"));
    assert_eq!(a.read(fd).unwrap(), "");
    let again = stand(&mut a, "x");
    assert_eq!(a.read(again).unwrap(), "");
    a.close(again).unwrap();
    a.close(fd).unwrap();
    assert_eq!(mount.session_of("x").as_deref(), Some("a"));
    let token = mount.record("x").unwrap()["token"].clone();
    let again = stand(&mut helper, "x");
    assert_eq!(helper.read(again).unwrap(), "");
    assert_eq!(mount.record("x").unwrap()["token"], token);
}

#[test]
fn in_a_terminals_session_one_script_waits_for_the_other() {
    let Some(mount) = Mount::new() else { return };
    let script = "set -C; echo > claims/x; timeout 1.2 cat queue/x > /dev/null; echo $?; (sleep 0.3; rm claims/x) & \
                  timeout 10 cat queue/x > /dev/null; echo $?; wait";
    assert_eq!(
        mount.run(&format!("setsid -w sh -c '{script}'")),
        "124\n0\n"
    );
}

#[test]
fn who_closes_leaves_the_line_at_once() {
    let Some((mount, mut first, [mut a, mut b, mut c])) = held(["a", "b", "c"]) else {
        return;
    };
    let fd = stand(&mut a, "x");
    stand(&mut b, "x");
    let last = stand(&mut c, "x");
    a.close(fd).unwrap();
    wait_until("a has left", || line(&mount, "x") == ["b", "c"]);
    b.kill();
    wait_until("b has left", || line(&mount, "x") == ["c"]);
    first.unlink("claims/x").unwrap();
    to_the_end(&mut c, last);
}

#[test]
fn a_grant_that_nobody_came_to_know_of_passes_on() {
    let Some((mount, mut first, [mut a, mut b])) = held(["a", "b"]) else {
        return;
    };
    let (fd, next) = (stand(&mut a, "x"), stand(&mut b, "x"));
    first.unlink("claims/x").unwrap();
    assert_eq!(mount.session_of("x").as_deref(), Some("a"));
    a.close(fd).unwrap();
    to_the_end(&mut b, next);
    assert_eq!(mount.session_of("x").as_deref(), Some("b"));
    assert!(mount.path("sessions/a").exists());
}

#[test]
fn who_is_dying_in_its_read_is_passed_over() {
    let Some((mount, mut first, [mut b])) = held(["b"]) else {
        return;
    };
    let events = fs::File::open(mount.path("events")).unwrap();
    // Its session lives on without the reader.
    let mut script = mount.sh("cat queue/x & echo $!; wait; echo gone; read -r line");
    script
        .env("CLAIMFS_SESSION", "a")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut script = Guard::spawn(&mut script);
    let reader: i32 = script.line().parse().unwrap();
    wait_until("it stands in line", || line(&mount, "x") == ["a"]);
    let next = stand(&mut b, "x");
    let parked = || {
        let stack = fs::read_to_string(format!("/proc/{reader}/wchan"));
        stack.is_ok_and(|wchan| wchan.contains("fuse") || wchan.contains("request_wait"))
    };
    wait_until("its read is parked", parked);
    assert_eq!(unsafe { libc::kill(reader, libc::SIGKILL) }, 0);
    first.unlink("claims/x").unwrap();
    to_the_end(&mut b, next);
    drop(events);
    let log = mount.read("metrics");
    // To the holder and to b, and to nobody else.
    assert!(log.contains("claimfs_grants_total 2\n"), "{log}");
}

#[test]
fn a_waiter_whose_session_is_over_is_passed_over() {
    let Some((mount, mut first, [mut a, mut b, mut c])) = held(["a", "b", "c"]) else {
        return;
    };
    let (fd, stopped, last) = (stand(&mut a, "x"), stand(&mut b, "x"), stand(&mut c, "x"));
    mount.end_session("a");
    assert_eq!(line(&mount, "x"), ["b", "c"]);
    let mut answer = a.read(fd);
    while answer.is_ok() {
        answer = a.read(fd);
    }
    assert_eq!(answer, Err(ESTALE));
    // A stopped process is alive: it keeps its turn.
    b.signal(SIGSTOP);
    first.unlink("claims/x").unwrap();
    assert_eq!(mount.session_of("x").as_deref(), Some("b"));
    b.signal(SIGCONT);
    to_the_end(&mut b, stopped);
    b.kill();
    to_the_end(&mut c, last);
}

#[test]
fn a_reader_in_a_shell_ends_within_a_second_of_its_signal() {
    let Some((mount, _first, [])) = held([]) else {
        return;
    };
    for signal in ["TERM", "INT", "HUP", "KILL"] {
        let start = Instant::now();
        let out = mount.run(&format!(
            "timeout -s {signal} 0.2 cat queue/x > /dev/null; echo $?"
        ));
        let code = if signal == "KILL" { "137\n" } else { "124\n" };
        assert_eq!(out, code);
        assert!(
            start.elapsed() < Duration::from_millis(1900),
            "{signal}: {:?}",
            start.elapsed()
        );
    }
    assert_eq!(mount.read("waiters"), "");
}

#[test]
fn programs_poll_and_are_interrupted_at_once() {
    let Some((mount, mut first, [mut a])) = held(["a"]) else {
        return;
    };
    let fd = stand(&mut a, "x");
    assert!(!a.poll(fd, 0).unwrap());
    a.send("poll", json!({"fd": fd, "timeout": 20_000}));
    first.unlink("claims/x").unwrap();
    let start = Instant::now();
    assert_eq!(a.receive().unwrap(), 1);
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(a.read(fd).unwrap(), "");
    assert!(a.poll(fd, 0).unwrap(), "the end is readable");

    let wait = "import os, select, sys\nfd = os.open('queue/x', os.O_RDONLY)\nprint('waits', flush=True)\n\
                poller = select.epoll()\npoller.register(fd, select.EPOLLIN)\nprint(poller.poll(20))";
    let mut python = Command::new("python3");
    python
        .args(["-c", wait])
        .current_dir(&mount.dir)
        .stdout(Stdio::piped());
    python.env("CLAIMFS_SESSION", "python");
    let mut python = Guard::spawn(&mut python);
    assert_eq!(python.line(), "waits");
    let wchan = format!("/proc/{}/wchan", python.0.id());
    wait_until("it polls", || {
        fs::read_to_string(&wchan).is_ok_and(|wchan| wchan.contains("poll"))
    });
    let start = Instant::now();
    unsafe { libc::kill(python.0.id() as i32, libc::SIGINT) };
    python.0.wait().unwrap();
    assert!(
        start.elapsed() < Duration::from_millis(700),
        "{:?}",
        start.elapsed()
    );
    wait_until("it has left", || mount.read("waiters").is_empty());
}

#[test]
fn without_waiting_it_is_eagain() {
    let Some((_mount, mut first, [mut a])) = held(["a"]) else {
        return;
    };
    let fd = a.open("queue/x", O_RDONLY | O_NONBLOCK).unwrap();
    assert_eq!(a.read(fd), Err(EAGAIN));
    first.unlink("claims/x").unwrap();
    assert_eq!(a.read(fd).unwrap(), "");
}

#[test]
fn queue_lists_nothing_and_has_a_file_for_every_name() {
    let Some((mount, _first, [mut a])) = held(["a"]) else {
        return;
    };
    assert_eq!(mount.run("ls -a queue"), ".\n..\n");
    assert_eq!(
        mount.run("grep -r nothing queue claims/..//queue; echo $?"),
        "1\n"
    );
    let stat = a.stat("queue/any name").unwrap();
    assert_eq!(
        (stat["mode"].clone(), stat["size"].clone()),
        (json!(libc::S_IFREG | 0o444), json!(4096))
    );
    assert_eq!(a.stat("queue/.x"), Err(ENOENT));
    assert_eq!(a.open("queue/x", O_WRONLY), Err(EACCES));
    assert_eq!(a.open("queue/x", O_RDWR), Err(EACCES));
    assert_eq!(a.open("queue/x", O_RDONLY | O_CREAT | O_EXCL), Err(EEXIST));
    assert_eq!(a.unlink("queue/x"), Err(libc::EPERM));
    assert_eq!(a.rename("claims/x", "queue/x", 0), Err(libc::EPERM));
    assert_eq!(mount.read("waiters"), "", "looking joins nobody");
    let mut bad = mount.actor(Some("a/b"));
    assert_eq!(bad.open("queue/x", O_RDONLY), Err(EINVAL));
}

#[test]
fn a_lease_that_is_handed_over_keeps_its_line() {
    let Some((mount, mut first, [mut a, mut b])) = held(["a", "b"]) else {
        return;
    };
    b.claim("own").unwrap();
    let fd = stand(&mut a, "x");
    fs::write(mount.path("control"), "{}").unwrap_err();
    let control = first.open("control", O_WRONLY).unwrap();
    first
        .write(control, "{\"give\":\"x\",\"to\":\"b\"}")
        .unwrap();
    assert_eq!(line(&mount, "x"), ["a"]);
    assert_eq!(first.unlink("claims/x"), Err(EBUSY));
    b.unlink("claims/x").unwrap();
    to_the_end(&mut a, fd);
}

#[test]
fn regression_a_grant_that_the_session_makes_use_of_is_not_taken_back() {
    type Use = fn(&mut Actor);
    let uses: [Use; 3] = [
        |b| {
            let fd = stand(b, "x");
            to_the_end(b, fd);
        },
        |b| b.open("claims/x", O_WRONLY | O_CREAT).map(drop).unwrap(),
        |b| b.utimes("claims/x", 1, 1).unwrap(),
    ];
    for make_use in uses {
        let Some((mount, mut first, [mut a, mut b, mut c])) = held(["w1", "w1", "c"]) else {
            return;
        };
        b.claim("own").unwrap();
        let (unread, _next) = (stand(&mut a, "x"), stand(&mut c, "x"));
        first.unlink("claims/x").unwrap();
        make_use(&mut b);
        assert_eq!(a.read(unread).unwrap(), "", "it is its session's");
        a.kill();
        assert_eq!(mount.session_of("x").as_deref(), Some("w1"));
    }
}

#[test]
fn regression_who_dies_in_anothers_descriptor_is_not_told_and_the_living_are() {
    let Some((mount, mut first, [mut b])) = held(["b"]) else {
        return;
    };
    // The shell opens, its child reads and is ended in its read; the shell then closes.
    let script = "exec 3<queue/x; echo $$; sh -c 'echo $$; exec cat <&3' ; exec 3<&-; echo closed; read -r line; \
                  sh -c 'exec 3<queue/x; cat <&3 > /dev/null & echo $$; echo $!; wait' & read -r line";
    let mut script = mount.sh(script);
    script
        .env("CLAIMFS_SESSION", "a")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut script = Guard::spawn(&mut script);
    script.line();
    let reader: i32 = script.line().parse().unwrap();
    let wchan = format!("/proc/{reader}/wchan");
    let parked = || fs::read_to_string(&wchan).is_ok_and(|wchan| wchan.contains("request_wait"));
    wait_until("its read is parked", || {
        parked() && line(&mount, "x") == ["a"]
    });
    unsafe { libc::kill(reader, libc::SIGTERM) };
    let next = stand(&mut b, "x");
    first.unlink("claims/x").unwrap();
    while script.line() != "closed" {}
    to_the_end(&mut b, next);
    assert_eq!(mount.session_of("x").as_deref(), Some("b"));

    // Another shell opens and dies; that nobody has waited for it does not strike the cat that
    // reads.
    b.unlink("claims/x").unwrap();
    first.claim("x").unwrap();
    std::io::Write::write_all(script.0.stdin.as_mut().unwrap(), b"go\n").unwrap();
    let (opener, cat) = (script.line(), script.line());
    let parked = || {
        let wchan = fs::read_to_string(format!("/proc/{cat}/wchan"));
        wchan.is_ok_and(|wchan| wchan.contains("request_wait"))
    };
    wait_until("it reads", || parked() && line(&mount, "x") == ["a"]);
    unsafe { libc::kill(opener.parse().unwrap(), libc::SIGKILL) };
    let state = |pid: &str| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    wait_until("it is a zombie", || state(&opener).contains(") Z "));
    first.unlink("claims/x").unwrap();
    wait_until("the cat ends", || !parked());
    assert_eq!(mount.session_of("x").as_deref(), Some("a"));
    assert_eq!(mount.read("waiters"), "");
}

#[test]
fn regression_pollers_of_edges_are_told_of_each() {
    let Some((mount, mut first, [])) = held([]) else {
        return;
    };
    let script = r"
import os, select
queue, events = (os.open(name, os.O_RDONLY | os.O_NONBLOCK) for name in ('queue/x', 'events'))
poller = select.epoll()
for fd in queue, events:
    poller.register(fd, select.EPOLLIN | select.EPOLLET)
print('waits', flush=True)
ended = False
while not ended:
    for fd, _ in poller.poll():
        try:
            while True:
                data = os.read(fd, 4096)
                if not data:
                    ended = True
                    break
                if fd == events:
                    print(data.decode(), end='', flush=True)
        except BlockingIOError:
            pass
print('ended', flush=True)
";
    let mut python = Command::new("python3");
    python
        .args(["-c", script])
        .current_dir(&mount.dir)
        .env("CLAIMFS_SESSION", "edges");
    let mut python = Guard::spawn(python.stdout(Stdio::piped()));
    assert_eq!(python.line(), "waits");
    for name in ["a", "b", "c"] {
        first.claim(name).unwrap();
        while !python.line().contains(&format!("\"claim\":\"{name}\"")) {}
    }
    first.unlink("claims/x").unwrap();
    while python.line() != "ended" {}
}

/// A script of a terminal, fifty threads of another script that wait for its name, and how often
/// each of those has slept when the first has the name.
const FIFTY: &str = r"
import os, select, threading
r, w = os.pipe()
holder_ready, ready = os.pipe()
if os.fork() == 0:
    os.close(os.open('claims/x', os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    os.write(ready, b'.')
    os.read(r, 1)
    os.unlink('claims/x')
    os.read(r, 1)
os.read(holder_ready, 1)
tasks, got = [], threading.Event()
def wait(fd):
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    tasks.append(threading.get_native_id())
    poller.poll()
    got.set()
    threading.Event().wait()
for _ in range(50):
    fd = os.open('queue/x', os.O_RDONLY)
    threading.Thread(target=wait, args=(fd,), daemon=True).start()
def status(task, word):
    with open(f'/proc/self/task/{task}/status') as lines:
        return next(line.split()[1] for line in lines if line.startswith(word))
def place(task):
    with open(f'/proc/self/task/{task}/wchan') as where:
        return where.read()
def slept():
    return [int(status(task, 'voluntary')) for task in tasks]
while len(tasks) < 50 or not all('poll' in place(task) for task in tasks):
    pass
before = slept()
os.write(w, b'.')
got.wait()
# Whoever was told too is polling again by now: the server answers in order.
os.stat('claims')
woken = [is_now - was for was, is_now in zip(before, slept())]
print(sum(times > 0 for times in woken), flush=True)
os.write(w, b'.')
os._exit(0)
";

#[test]
fn of_fifty_of_a_terminal_a_release_wakes_the_next_alone() {
    let Some(mount) = Mount::new() else { return };
    let place = fs::read_to_string("/proc/self/wchan").unwrap_or_default();
    if !crate::support::is_root() || place.is_empty() {
        return crate::support::skip("the kernel does not show where a thread sleeps");
    }
    let mut python = Command::new("python3");
    python.args(["-c", FIFTY]).current_dir(&mount.dir);
    crate::support::plain(&mut python);
    let mut python = Guard::spawn(python.stdout(Stdio::piped()));
    assert_eq!(python.line(), "1");
}

#[test]
fn many_lines_whose_holder_and_waiter_die_together_hold_nobody_up() {
    let Some(mount) = Mount::new() else { return };
    let script = r"
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
for number in range(5000):
    if sys.argv[1] == 'hold':
        os.close(os.open(f'claims/n{number}', os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    else:
        os.open(f'queue/n{number}', os.O_RDONLY)
print('done', flush=True)
# Killed, a waiter is dying until its read is answered.
if sys.argv[1] == 'wait':
    os.read(os.open('queue/n0', os.O_RDONLY), 1)
os.read(0, 1)
";
    let start = |part: &str| {
        let mut python = Command::new("python3");
        python.args(["-c", script, part]).current_dir(&mount.dir);
        python.env("CLAIMFS_SESSION", part).stdin(Stdio::piped());
        let mut python = Guard::spawn(python.stdout(Stdio::piped()));
        assert_eq!(python.line(), "done");
        python
    };
    let holder = start("hold");
    let both = [start("wait"), holder];
    let reads = format!("/proc/{}/wchan", both[0].0.id());
    wait_until("it reads", || {
        let place = fs::read_to_string(&reads).unwrap();
        place == "0" || place.contains("request_wait")
    });
    let before = ticks(&mount);
    for python in &both {
        unsafe { libc::kill(python.0.id() as i32, libc::SIGKILL) };
    }
    drop(both);
    wait_until("all are free", || {
        mount.read("waiters").is_empty() && names(&mount.dir.join("claims")).is_empty()
    });
    // To decide again for each that is dying took a hundred times as long.
    let cost = ticks(&mount) - before;
    assert!(cost < 400, "{cost} hundredths of a second");
}

#[test]
fn regression_pollers_learn_that_their_session_is_over() {
    let Some((mount, _first, [mut a])) = held(["a"]) else {
        return;
    };
    let fd = stand(&mut a, "x");
    a.read(fd).unwrap();
    a.send("poll", json!({"fd": fd, "timeout": 15_000}));
    let start = Instant::now();
    mount.end_session("a");
    assert_eq!(a.receive().unwrap(), 1);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(a.read(fd), Err(ESTALE));
}

#[test]
fn regression_who_waits_for_what_its_session_is_given_waits_no_longer() {
    let Some((mount, mut first, [mut a, mut b])) = held(["a", "b"]) else {
        return;
    };
    let (fd, behind) = (stand(&mut a, "x"), stand(&mut b, "x"));
    a.read(fd).unwrap();
    let control = first.open("control", O_WRONLY).unwrap();
    a.send("poll", json!({"fd": fd, "timeout": 15_000}));
    first
        .write(control, "{\"give\":\"x\",\"to\":\"a\"}")
        .unwrap();
    assert_eq!(a.receive().unwrap(), 1);
    assert_eq!(a.read(fd).unwrap(), "");
    assert_eq!(line(&mount, "x"), ["b"]);
    a.unlink("claims/x").unwrap();
    to_the_end(&mut b, behind);
}

#[test]
fn a_thousand_wait_and_each_gets_it_once_in_order() {
    let Some((mount, mut first, [])) = held([]) else {
        return;
    };
    // One process with a thousand descriptors, in a terminal's session, where each waits for the
    // other.
    let script = r"
import os, resource, select
resource.setrlimit(resource.RLIMIT_NOFILE, (2048, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
fds = [os.open('queue/x', os.O_RDONLY) for _ in range(1000)]
poller = select.epoll()
for fd in fds:
    poller.register(fd, select.EPOLLIN)
print('waits', flush=True)
input()
order = []
while len(order) < 1000:
    ready = [fd for fd, _ in poller.poll()]
    assert len(ready) == 1, ready
    assert os.read(ready[0], 999) == b''
    order.append(ready[0])
    poller.unregister(ready[0])
    os.close(ready[0])
    os.remove('claims/x')
assert order == fds
print('done')
";
    let mut python = Command::new("python3");
    python.args(["-c", script]).current_dir(&mount.dir);
    crate::support::plain(&mut python);
    let mut python = Guard::spawn(python.stdin(Stdio::piped()).stdout(Stdio::piped()));
    assert_eq!(python.line(), "waits");
    assert_eq!(mount.read("waiters").lines().count(), 1000);
    assert_eq!(mount.record("x").unwrap()["waiters"], 1000);
    std::io::Write::write_all(python.0.stdin.as_mut().unwrap(), b"go\n").unwrap();
    first.unlink("claims/x").unwrap();
    assert_eq!(python.line(), "done");
    assert!(mount.record("x").is_none());
    let (_, out, _) = text(&mount.claimfs(&["ls"]).output().unwrap());
    assert_eq!(out, "");
}

/// The processor time that the server has used, in hundredths of a second: utime and stime of
/// `/proc/PID/stat`.
fn ticks(mount: &Mount) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", mount.pid())).unwrap();
    let rest = stat.rsplit(')').next().unwrap();
    let fields = rest.split_whitespace().skip(11).take(2);
    fields.map(|field| field.parse::<u64>().unwrap()).sum()
}

#[test]
fn a_thousand_cats_cost_a_tenth_of_a_processor_at_most_and_pollers_nothing() {
    let Some((mount, _first, [])) = held([]) else {
        return;
    };
    let seconds = 4;
    let mut cats = Vec::new();
    for _ in 0..1000 {
        let mut cat = Command::new("cat");
        cat.arg("queue/x")
            .current_dir(&mount.dir)
            .env("CLAIMFS_SESSION", "many");
        cats.push(Guard::spawn(cat.stdin(Stdio::null()).stdout(Stdio::null())));
    }
    wait_until("all stand in line", || {
        mount.read("waiters").lines().count() == 1000
    });
    let before = ticks(&mount);
    std::thread::sleep(Duration::from_secs(seconds));
    let cats_cost = ticks(&mount) - before;
    // All at once: each ends with its tick.
    for cat in &cats {
        unsafe { libc::kill(cat.0.id() as i32, libc::SIGKILL) };
    }
    drop(cats);
    wait_until("all have left", || mount.read("waiters").is_empty());

    let script = r"
import os, resource, select
resource.setrlimit(resource.RLIMIT_NOFILE, (2048, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
poller = select.epoll()
for _ in range(1000):
    fd = os.open('queue/x', os.O_RDONLY)
    poller.register(fd, select.EPOLLIN)
print('waits', flush=True)
poller.poll()
";
    let mut python = Command::new("python3");
    python
        .args(["-c", script])
        .current_dir(&mount.dir)
        .env("CLAIMFS_SESSION", "many");
    let mut python = Guard::spawn(python.stdout(Stdio::piped()));
    assert_eq!(python.line(), "waits");
    let before = ticks(&mount);
    std::thread::sleep(Duration::from_secs(1));
    let pollers_cost = ticks(&mount) - before;
    assert!(
        cats_cost <= seconds * 10,
        "{cats_cost} hundredths in {seconds} s"
    );
    // One for the last of the calls that were counted late.
    assert!(pollers_cost <= 1, "{pollers_cost} hundredths");
}

/// As busybox's cat does: sendfile(2), or splice(2), into a pipe goes past direct I/O.
#[test]
fn a_reader_that_splices_waits_as_any_other() {
    let Some((mount, mut first, [mut a])) = held(["a"]) else {
        return;
    };
    let fd = first.open("claims/x", O_WRONLY).unwrap();
    first.write(fd, "\n").unwrap();
    first.close(fd).unwrap();
    let splice = "import os, sys
def copy(name, call):
    file = os.open(name, os.O_RDONLY)
    reader, writer = os.pipe()
    try:
        return call(file, writer)
    except OSError as error:
        return error.strerror
for name in sys.argv[1:]:
    print(name, copy(name, lambda file, pipe: os.sendfile(pipe, file, None, 65536)),
          copy(name, lambda file, pipe: os.splice(file, pipe, 65536)))";
    let output = Command::new("python3")
        .args(["-c", splice, "queue/x", "events", "claims/x", "queue/x"])
        .current_dir(&mount.dir)
        .output()
        .unwrap();
    let (_, said, err) = text(&output);
    for line in said.lines() {
        assert!(
            line.ends_with(" Invalid argument Invalid argument"),
            "{said}"
        );
    }
    assert_eq!(said.lines().count(), 4, "{said}{err}");
    // Nor does a stat in between change that.
    a.stat("queue/x").unwrap();
    let wait = "busybox cat queue/x | cat; [ -e claims/x ]";
    let mut waiter = mount.sh(wait);
    let mut waiter = Guard::spawn(waiter.stdout(Stdio::piped()));
    assert!(waiter.line().starts_with("you are 1 of "));
    first.unlink("claims/x").unwrap();
    assert!(waiter.0.wait().unwrap().success());
}

#[test]
fn regression_a_session_that_was_told_that_it_holds_a_name_keeps_it_when_another_leaves() {
    let Some((mount, mut holder, mut first)) = Mount::with_two() else {
        return;
    };
    let mut second = mount.actor(Some("other"));
    holder.claim("x").unwrap();
    let granted = stand(&mut first, "x");
    let shared = stand(&mut second, "x");
    holder.unlink("claims/x").unwrap();
    // The grant is the first one's, which has not read it, and so the session's.
    assert_eq!(second.read(shared).unwrap(), "");
    first.close(granted).unwrap();
    assert_eq!(mount.session_of("x").as_deref(), Some("other"));
    second.unlink("claims/x").unwrap();
    assert!(mount.record("x").is_none());
}
