//! A server that is killed in the middle of a call: the users of the mount notice nothing.

use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use libc::{O_APPEND, O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};
use serde_json::{Value, json};

use crate::faults::full_disk::Small;
use crate::support::{
    Actor, Answer, CLAIMFS, Guard, Mount, TempDir, names, root_or_skip, skip, wait_until,
};

/// Kills the server when it begins so many calls of a kind: strace(1) counts them.
struct Trap {
    strace: Child,
    server: u32,
}

impl Trap {
    /// `writev` answers a request, `pwrite64` appends to the journal.
    fn set(mount: &Mount, call: &str, when: u32) -> Option<Self> {
        let server = mount.pid();
        let mut command = Command::new("strace");
        command.args(["-f", "-e", &format!("trace={call}"), "-e"]);
        command.arg(format!("inject={call}:signal=KILL:when={when}"));
        command.args(["-p", &server.to_string()]);
        let strace = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let Ok(mut strace) = strace else {
            skip("strace is not installed");
            return None;
        };
        let mut said = BufReader::new(strace.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.contains("attached"), "{line}");
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Some(Self { strace, server })
    }

    /// Whether it has gone off.
    fn has_killed(&self, mount: &Mount) -> bool {
        mount.server() != Some(self.server)
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        // The kernel lets go of what it traces. To let go itself, strace waits for the first thread
        // of a server that it has just killed, which ends after others that strace has to wait for.
        _ = self.strace.kill();
        _ = self.strace.wait();
    }
}

type Act = fn(&mut Actor) -> Vec<Answer<Value>>;

fn unit(answer: Answer<()>) -> Answer<Value> {
    answer.map(|()| Value::Null)
}

/// Opens, writes each text, and closes.
fn file(actor: &mut Actor, path: &str, flags: i32, texts: &[&str]) -> Vec<Answer<Value>> {
    let fd = match actor.open(path, flags) {
        Ok(fd) => fd,
        Err(errno) => return vec![Err(errno)],
    };
    let mut answers: Vec<Answer<Value>> = Vec::new();
    for text in texts {
        answers.push(actor.write(fd, text).map(Value::from));
    }
    answers.push(unit(actor.close(fd)));
    answers
}

/// The preparation, and the calls during which the server is killed.
const ACTS: [(&str, Act, Act); 34] = [
    (
        "create",
        |_| vec![],
        |actor| file(actor, "claims/a", O_CREAT | O_EXCL | O_RDWR, &["x"]),
    ),
    (
        "create or open",
        |_| vec![],
        |actor| file(actor, "claims/a", O_CREAT | O_TRUNC | O_WRONLY, &[]),
    ),
    ("empty", body, |actor| {
        file(actor, "claims/a", O_TRUNC | O_WRONLY, &[])
    }),
    ("append", body, |actor| {
        file(actor, "claims/a", O_APPEND | O_WRONLY, &["one", "two"])
    }),
    ("write", body, |actor| {
        file(actor, "claims/a", O_WRONLY, &["one", "two"])
    }),
    (
        "mknod",
        |_| vec![],
        |actor| vec![unit(actor.mknod("claims/a"))],
    ),
    (
        "mkdir",
        |_| vec![],
        |actor| vec![unit(actor.mkdir("claims/a"))],
    ),
    (
        "symlink",
        |_| vec![],
        |actor| vec![unit(actor.symlink("to", "claims/a"))],
    ),
    ("link", body, |actor| {
        vec![unit(actor.link("claims/a", "claims/b"))]
    }),
    ("unlink", body, |actor| vec![unit(actor.unlink("claims/a"))]),
    ("unlink what is open", body, |actor| {
        let fd = actor.open("claims/a", O_RDWR).unwrap();
        let mut answers = vec![unit(actor.unlink("claims/a"))];
        answers.push(actor.pread(fd, 9, 0).map(Value::from));
        answers.push(actor.write(fd, "more").map(Value::from));
        answers.push(actor.pread(fd, 9, 0).map(Value::from));
        answers.push(unit(actor.close(fd)));
        answers
    }),
    ("rmdir", dir, |actor| vec![unit(actor.rmdir("claims/d"))]),
    ("rename", body, |actor| {
        vec![unit(actor.rename("claims/a", "claims/b", 0))]
    }),
    ("rename onto", two, |actor| {
        vec![unit(actor.rename("claims/a", "claims/b", 0))]
    }),
    ("rename, no replacing", body, |actor| {
        let flags = libc::RENAME_NOREPLACE;
        vec![unit(actor.rename("claims/a", "claims/b", flags))]
    }),
    ("exchange", two, |actor| {
        let flags = libc::RENAME_EXCHANGE;
        vec![unit(actor.rename("claims/a", "claims/b", flags))]
    }),
    ("truncate", body, |actor| {
        vec![unit(actor.truncate("claims/a", 1))]
    }),
    ("chmod", body, |actor| {
        vec![unit(actor.chmod("claims/a", 0o600))]
    }),
    ("setxattr, new", body, |actor| {
        let flags = libc::XATTR_CREATE;
        vec![unit(actor.setxattr("claims/a", "user.x", "1", flags))]
    }),
    ("deadline", body, |actor| {
        vec![unit(actor.setxattr(
            "claims/a",
            "user.claimfs.ttl",
            "100s",
            0,
        ))]
    }),
    ("give", body, |actor| {
        vec![unit(actor.setxattr(
            "claims/a",
            "user.claimfs.session",
            "other",
            0,
        ))]
    }),
    ("commands", two, |actor| {
        let text = "{\"ttl\":\"a\",\"seconds\":100}\n{\"give\":\"a\",\"to\":\"other\"}\n{\"give\":\"b\",\"to\":\"other\"}\n";
        file(actor, "control", O_WRONLY, &[text])
    }),
    (
        "register",
        |_| vec![],
        |actor| file(actor, "sessions/w", O_CREAT | O_EXCL | O_WRONLY, &["\n"]),
    ),
    (
        "register twice",
        |_| vec![],
        |actor| {
            let flags = O_CREAT | O_EXCL | O_WRONLY;
            file(actor, "sessions/w", flags, &["\n", "\n"])
        },
    ),
    (
        "end",
        |actor| file(actor, "sessions/w", O_CREAT | O_WRONLY, &["\n"]),
        |actor| vec![unit(actor.unlink("sessions/w"))],
    ),
    (
        "queue",
        |_| vec![],
        |actor| {
            let fd = actor.open("queue/a", O_RDONLY).unwrap();
            let mut answers = Vec::new();
            while let Ok(text) = actor.read(fd)
                && !text.is_empty()
            {}
            answers.push(unit(actor.close(fd)));
            answers
        },
    ),
    (
        "queue, and leave",
        |_| vec![],
        |actor| {
            let fd = actor.open("queue/taken", O_RDONLY | O_NONBLOCK).unwrap();
            // A new server may not know that this waiter is alone, so the answer is not determined.
            actor.poll(fd, 0).unwrap();
            vec![unit(actor.close(fd))]
        },
    ),
    (
        "events",
        |_| vec![],
        |actor| {
            let fd = actor.open("events", O_RDONLY).unwrap();
            actor.mkdir("claims/a").unwrap();
            let mut text = String::new();
            while !text.contains("\"claim\":\"a\"") || !text.ends_with('\n') {
                let some = actor.call("read", json!({ "fd": fd, "size": 50 }));
                text += some.unwrap_or_default().as_str().unwrap_or_default();
            }
            let whole = |line: &str| serde_json::from_str::<Value>(line).is_ok();
            let claimed = text.matches("\"claim\":\"a\"").count();
            let answers = vec![Ok(json!([text.lines().all(whole), claimed]))];
            actor.close(fd).unwrap();
            answers
        },
    ),
    (
        "paths: directories",
        |_| vec![],
        |actor| {
            // They stay when the actor has gone.
            let dir = format!("paths/{}", actor.pid());
            let inside = format!("{dir}/inside");
            let made = [&dir, &dir, &inside].map(|dir| unit(actor.mkdir(dir)));
            made.into()
        },
    ),
    ("paths: create", work, |actor| {
        file(actor, "paths/work/f", O_CREAT | O_EXCL | O_WRONLY, &["x"])
    }),
    ("lists", work, |actor| {
        let lines = [
            r#"{"reserve":["/work/a/b","/work/c"],"reason":"both"}"#,
            r#"{"reserve":["/work/a"]}"#,
            r#"{"unreserve":["/work/c"]}"#,
            r#"{"claim":["a","b"]}"#,
            r#"{"release":["a"]}"#,
        ];
        file(actor, "control", O_WRONLY, &lines)
    }),
    ("inside: create", dir, |actor| {
        file(actor, "claims/d/f", O_CREAT | O_EXCL | O_WRONLY, &["x"])
    }),
    ("inside: link and unlink", dir, |actor| {
        let link = actor.link("claims/d/e", "claims/d/f");
        vec![unit(link), unit(actor.unlink("claims/d/e"))]
    }),
    ("inside: rename", dir, |actor| {
        vec![unit(actor.rename("claims/d/e", "claims/d/f", 0))]
    }),
];

fn body(actor: &mut Actor) -> Vec<Answer<Value>> {
    file(actor, "claims/a", O_CREAT | O_WRONLY, &["body"])
}

fn two(actor: &mut Actor) -> Vec<Answer<Value>> {
    body(actor);
    file(actor, "claims/b", O_CREAT | O_WRONLY, &["b"])
}

fn dir(actor: &mut Actor) -> Vec<Answer<Value>> {
    vec![
        unit(actor.mkdir("claims/d")),
        unit(actor.mknod("claims/d/e")),
    ]
}

/// A directory for reservations, which may be there already.
fn work(actor: &mut Actor) -> Vec<Answer<Value>> {
    _ = actor.mkdir("paths/work");
    vec![]
}

/// All that the mount shows but pids, times and inode numbers; tokens from the oldest on.
fn snapshot(mount: &Mount) -> Vec<String> {
    let mut lines = names(&mount.path("sessions"));
    lines.push(mount.read("waiters"));
    let leases = mount.read("leases");
    let mut first = None;
    for line in leases.lines().skip(1) {
        let lease: Value = serde_json::from_str(line).unwrap();
        let token = lease["token"].as_u64().unwrap();
        let first = *first.get_or_insert(token);
        let deadline = lease.as_object().unwrap().len();
        lines.push(format!(
            "{} {} +{} {deadline}",
            lease["name"],
            lease["session"],
            token - first
        ));
    }
    lines.push(mount.run(
        "find claims/* paths/work ! -name other ! -name taken | sort | while read f; do stat -c '%n %A %h %s' \"$f\"; [ ! -s \"$f\" ] || cat \"$f\"; \
         getfattr -h -n user.x \"$f\" 2>/dev/null; done; :",
    ));
    lines
}

/// Does one thing with a fresh actor, whose session and claims go with it; the snapshot afterwards,
/// and whether the trap went off.
fn perform(
    mount: &Mount,
    act: &(&str, Act, Act),
    trap: Option<(&str, u32)>,
) -> Option<(Vec<Answer<Value>>, Vec<String>, bool)> {
    // Renewed each time, so that tokens are counted from here.
    let mut other = mount.actor(Some("other"));
    other.mkdir("claims/other").unwrap();
    other.mkdir("claims/taken").unwrap();
    let mut actor = mount.actor(Some("me"));
    act.1(&mut actor);
    let trap = match trap {
        Some((call, when)) => Some(Trap::set(mount, call, when)?),
        None => None,
    };
    let answers = act.2(&mut actor);
    // A close that is not waited for.
    sleep(Duration::from_millis(10));
    let has_killed = trap.as_ref().is_some_and(|trap| trap.has_killed(mount));
    drop(trap);
    let seen = snapshot(mount);
    actor.kill();
    other.kill();
    wait_until("nothing is left", || {
        mount.claims().is_empty() && names(&mount.path("sessions")).is_empty()
    });
    Some((answers, seen, has_killed))
}

fn each_act_at_each(call: &str) {
    let Some(mount) = Mount::new() else { return };
    let mut wrong = Vec::new();
    for act in &ACTS {
        let (answers, seen, _) = perform(&mount, act, None).unwrap();
        for when in 1..40 {
            let Some((answer, snapshot, has_killed)) = perform(&mount, act, Some((call, when)))
            else {
                return;
            };
            if !has_killed {
                break;
            }
            if answer != answers || snapshot != seen {
                wrong.push(format!(
                    "{}, killed at the {when}. {call}: {answer:?} for {answers:?}, {snapshot:#?} for {seen:#?}",
                    act.0
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_server_that_is_killed_before_any_of_its_answers_is_not_noticed() {
    each_act_at_each("writev");
}

#[test]
fn a_server_that_is_killed_before_any_of_its_appends_is_not_noticed() {
    each_act_at_each("pwrite64");
}

/// In a terminal's session it is the script that holds a name, not the session: that its `cat` was
/// granted the name is told by the grant.
#[test]
fn regression_a_reader_whose_grant_was_recorded_by_a_killed_server_is_told_of_it() {
    let Some(mount) = Mount::new() else { return };
    let cat = "cat queue/a > /dev/null";
    // Here the shell has opened the file, and a child reads it.
    let passed = "exec 3< queue/a; cat <&3 > /dev/null";
    for (read, call) in [(cat, "writev"), (cat, "pwrite64"), (passed, "writev")] {
        for when in 1..40 {
            let script = format!("{read}; echo $?; cat claims/a | grep -c '\"name\":\"a\"'");
            let mut command = mount.sh(&format!("read go; {script}; read end"));
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut reader = Guard::spawn(&mut command);
            let Some(trap) = Trap::set(&mount, call, when) else {
                return;
            };
            let stdin = reader.0.stdin.as_mut().unwrap();
            stdin.write_all(b"go\n").unwrap();
            let answers = [reader.line(), reader.line()];
            let has_killed = trap.has_killed(&mount);
            drop(trap);
            assert_eq!(answers, ["0", "1"], "{read}, killed at the {when}. {call}");
            let own = u64::from(reader.0.id());
            assert_eq!(mount.pid_of("a"), Some(own), "{read}: {when}. {call}");
            drop(reader);
            wait_until("the name is free", || mount.claims().is_empty());
            if !has_killed {
                assert!(when > 2, "{when}. {call}");
                break;
            }
        }
    }
}

#[test]
fn sigterm_unmounts_also_while_one_server_takes_over_from_another() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    unsafe { libc::kill(mount.pid() as i32, libc::SIGKILL) };
    let supervisor = mount.supervisor();
    unsafe { libc::kill(supervisor as i32, libc::SIGTERM) };
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until && !crate::support::is_over(supervisor) {
        sleep(Duration::from_millis(5));
    }
    assert!(
        crate::support::is_over(supervisor),
        "the signal was lost: {}",
        mount.log()
    );
    assert_eq!(mount.stop(), Some(0));
}

#[test]
fn a_keeper_neither_of_whose_programs_can_serve_gives_up_the_mount() {
    let Some(mount) = Mount::new() else { return };
    // At once: the server puts back what is removed from it bit by bit.
    let (gone, supervisor) = (TempDir::new(), mount.supervisor());
    fs::rename(&mount.state, gone.path().join("state")).unwrap();
    unsafe { libc::kill(supervisor as i32, libc::SIGHUP) };
    wait_until("no upgrade is tried", || {
        mount.log().contains("no upgrade: ")
    });
    assert!(mount.path("claims").is_dir(), "the server goes on");
    unsafe { libc::kill(mount.pid() as i32, libc::SIGKILL) };
    let until = Instant::now() + Duration::from_secs(15);
    while Instant::now() < until && !crate::support::is_over(supervisor) {
        sleep(Duration::from_millis(5));
    }
    assert!(crate::support::is_over(supervisor), "{}", mount.log());
}

#[test]
fn a_server_that_finds_no_journal_grants_nothing_that_is_held() {
    let Some(mount) = Mount::new() else { return };
    let (mut holder, mut rival) = (mount.actor(Some("holder")), mount.actor(Some("rival")));
    holder.claim("a").unwrap();
    fs::remove_file(mount.state.join("journal")).unwrap();
    mount.kill_server();
    assert!(rival.claim("a").is_err(), "two hold it");
}

#[test]
fn a_place_is_kept_by_whoever_has_its_descriptor_also_if_its_opener_has_gone() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.actor(Some("holder"));
    holder.mkdir("claims/x").unwrap();
    let script = "sh -c 'exec 3<queue/x; (cat <&3 > /dev/null && echo granted >> \"$0\") & exit' \"$0\"; sleep 60";
    let said = mount.state.join("said");
    let mut waiter = mount.sh("exec sh -c \"$SCRIPT\" \"$SAID\"");
    waiter
        .env("CLAIMFS_SESSION", "waiter")
        .env("SCRIPT", script)
        .env("SAID", &said);
    let _waiter = crate::support::Guard::spawn(&mut waiter);
    wait_until("it waits", || mount.read("waiters").contains("waiter"));
    sleep(Duration::from_millis(100));
    mount.kill_server();
    holder.rmdir("claims/x").unwrap();
    wait_until("it is told", || {
        fs::read_to_string(&said).is_ok_and(|text| text == "granted\n")
    });
}

#[test]
fn what_is_read_in_several_reads_is_one_picture_also_over_a_restart() {
    let Some(mount) = Mount::new() else { return };
    let mut actor = mount.actor(Some("me"));
    actor.mkdir("claims/a").unwrap();
    for name in ["leases", "sessions/me", "metrics"] {
        let fd = actor.open(name, O_RDONLY).unwrap();
        let first = actor.read(fd).unwrap();
        mount.kill_server();
        actor
            .mkdir(&format!("claims/{}", name.replace('/', "-")))
            .unwrap();
        let mut text = first.clone();
        loop {
            let more = actor.read(fd).unwrap();
            if more.is_empty() {
                break;
            }
            text += &more;
        }
        // Each line once, the last one whole, and nothing of what came after the first read.
        let mut lines: Vec<&str> = text.lines().collect();
        let count = lines.len();
        lines.sort_unstable();
        lines.dedup();
        assert!(
            text.ends_with('\n') && lines.len() == count,
            "{name}: {text}"
        );
        let is_short = first.len() < 4096;
        assert!(
            name == "metrics" || is_short && text == first,
            "{name}: {text}"
        );
        assert!(
            name != "metrics" || text.contains("claimfs_leases 3\n"),
            "{text}"
        );
    }
}

/// Claims so many names that `leases` has more than 1 MiB, and opens it and reads its beginning.
fn long_leases(mount: &Mount) -> (Actor, fs::File, String) {
    let mut actor = mount.actor(Some("me"));
    let padding = "x".repeat(200);
    for part in 0..16 {
        let names: Vec<String> = (0..256)
            .map(|at| format!("{part}-{at}-{padding}"))
            .collect();
        let line = serde_json::json!({ "claim": names }).to_string();
        let fd = actor.open("control", libc::O_WRONLY).unwrap();
        actor.write(fd, &line).unwrap();
        actor.close(fd).unwrap();
    }
    let whole = mount.read("leases");
    assert!(whole.len() > 1 << 20);
    let mut leases = fs::File::open(mount.path("leases")).unwrap();
    let mut first = [0; 4096];
    leases.read_exact(&mut first).unwrap();
    assert_eq!(first, whole.as_bytes()[..4096]);
    (actor, leases, whole)
}

#[test]
fn a_text_of_more_than_a_mebibyte_is_read_to_its_end_although_the_server_is_killed() {
    let Some(mount) = Mount::new() else { return };
    let (_actor, mut leases, whole) = long_leases(&mount);
    mount.kill_server();
    let mut rest = String::new();
    leases.read_to_string(&mut rest).unwrap();
    assert!(
        rest == whole[4096..],
        "{} bytes of {}",
        rest.len(),
        whole.len() - 4096
    );
    drop(leases);
    wait_until("nothing is kept", || {
        names(&mount.state.join("texts")).is_empty()
    });
}

#[test]
fn a_text_that_could_not_be_kept_has_no_early_end() {
    if !root_or_skip("mount a small filesystem") {
        return;
    }
    let Some(mut mount) = Mount::unmounted() else {
        return;
    };
    // Less than the room that is left to the journal.
    let small = Small::new(32 << 10);
    mount.state = small.0.path().join("state");
    mount.start(&[]);
    let (_actor, mut leases, _) = long_leases(&mount);
    mount.kill_server();
    let rest = leases.read_to_string(&mut String::new());
    assert_eq!(rest.unwrap_err().raw_os_error(), Some(libc::ESTALE));
    // From its start it is another text.
    leases.rewind().unwrap();
    assert!(leases.read(&mut [0; 4096]).unwrap() > 0);
    drop(leases);
    wait_until("nothing is kept", || {
        names(&mount.state.join("texts")).is_empty()
    });
}

#[test]
fn a_journal_does_not_grow_with_each_server_that_is_killed() {
    let Some(mount) = Mount::new() else { return };
    let journal = mount.state.join("journal");
    for _ in 0..12 {
        mount.run("for i in $(seq 250); do mkdir claims/a; rmdir claims/a; done");
        mount.kill_server();
    }
    let size = fs::metadata(&journal).unwrap().len();
    assert!(size < 900_000, "{size} bytes for an empty table");
}

#[test]
fn a_mount_that_is_refused_ends_no_other() {
    let (Some(mut orphan), Some(other)) = (Mount::new(), Mount::new()) else {
        return;
    };
    let server = orphan.pid();
    unsafe { libc::kill(orphan.supervisor() as i32, libc::SIGKILL) };
    let mut command = Command::new(CLAIMFS);
    command
        .arg("mount")
        .arg("--state-dir")
        .args([&orphan.state, &other.dir]);
    let refused = command.stderr(Stdio::null()).status().unwrap();
    assert!(!refused.success());
    let is_over = crate::support::is_over(server);
    unsafe { libc::kill(server as i32, libc::SIGKILL) };
    orphan.stop();
    assert!(!is_over, "the orphan of another directory was ended");
}
