//! Deadlines, which the holder renews, and leases that their holder hands to another session.

use std::fs;
use std::time::{Duration, Instant, UNIX_EPOCH};

use claimfs::core::content::{TTL_MAX, ttl};
use libc::{EBUSY, EINVAL, ENODATA, ENOENT, EOPNOTSUPP, EPERM, ESTALE};
use libc::{O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};
use serde_json::{Value, json};

use crate::support::{Actor, Answer, Mount, root_or_skip, text, wait_until};

const TTL: &str = "user.claimfs.ttl";

/// A call: what it is, of which claim, and itself.
type Call = (
    &'static str,
    &'static str,
    Box<dyn Fn(&mut Actor) -> Answer<()>>,
);

/// Takes a name, and writes a body in one call.
fn put(actor: &mut Actor, name: &str, body: &str) -> i64 {
    let path = format!("claims/{name}");
    let fd = actor.open(&path, O_RDWR | O_CREAT | O_EXCL).unwrap();
    actor.write(fd, body).unwrap();
    fd
}

fn control(actor: &mut Actor, command: &Value) -> Answer<()> {
    let fd = actor.open("control", O_WRONLY).unwrap();
    let written = actor.write(fd, &format!("{command}\n"));
    actor.close(fd).unwrap();
    written.map(drop)
}

fn left(mount: &Mount, name: &str) -> f64 {
    mount.record(name).unwrap()["expires_in"].as_f64().unwrap()
}

#[test]
fn a_lease_with_a_deadline_ends_by_itself_and_not_before() {
    let Some(mount) = Mount::new() else { return };
    let (mut me, mut other) = (mount.actor(Some("me")), mount.actor(Some("other")));
    let before = Instant::now();
    let fd = put(&mut me, "x", "{\"ttl\": \"400ms\"}\n");
    let record = mount.record("x").unwrap();
    assert_eq!(record["ttl"], 0.4);
    assert!(record["expires_in"].as_f64().unwrap() <= 0.4);
    assert_eq!(mount.read("claims/x"), "{\"ttl\": \"400ms\"}\n");
    wait_until("the deadline passes", || {
        other
            .claim("x")
            .map_err(|e| assert_eq!(e, libc::EEXIST))
            .is_ok()
    });
    assert!(before.elapsed() >= Duration::from_millis(400));
    assert_eq!(me.pread(fd, 1, 0), Err(ESTALE));
    assert_eq!(me.pwrite(fd, "late", 0), Err(ESTALE));
    assert_eq!(me.unlink("claims/x"), Err(EBUSY));
    assert_eq!(mount.record("x").unwrap()["session"], "other");
    assert!(mount.path("sessions/me").exists(), "the session lives on");
    let log = mount.log();
    assert!(
        log.contains("expired claims/x: session me did not renew it for 0.400 s; token 1"),
        "{log}"
    );
    assert!(mount.read("metrics").contains("claimfs_expiries_total 1\n"));
}

#[test]
fn nobody_has_to_ask_for_a_lease_to_expire() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    for name in ["x", "y"] {
        put(&mut me, name, "{\"ttl\":0.05}");
    }
    me.link("claims/x", "claims/z").unwrap();
    wait_until("the log tells of all three", || {
        let log = mount.log();
        ["x", "y", "z"]
            .iter()
            .all(|name| log.contains(&format!("expired claims/{name}: ")))
    });
    assert_eq!(mount.claims(), [""; 0]);
}

#[test]
fn writes_and_utimes_of_the_holder_renew_it_and_nothing_else_does() {
    let Some(mount) = Mount::new() else { return };
    let (mut me, mut other) = (mount.actor(Some("me")), mount.actor(Some("other")));
    let fd = put(&mut me, "x", "{\"ttl\":\"1h\"}");
    me.mkdir("claims/d").unwrap();
    me.setxattr("claims/d", TTL, "1h", 0).unwrap();
    let append = me.open("claims/x", O_WRONLY | O_APPEND).unwrap();

    let renewing: [Call; 9] = [
        (
            "write",
            "x",
            Box::new(move |me| me.pwrite(fd, " ", 20).map(drop)),
        ),
        (
            "append",
            "x",
            Box::new(move |me| me.write(append, " ").map(drop)),
        ),
        ("truncate", "x", Box::new(|me| me.truncate("claims/x", 14))),
        ("utimes", "x", Box::new(|me| me.utimes("claims/x", 5, 6))),
        (
            "open with O_TRUNC",
            "x",
            Box::new(|me| {
                let fd = me.open("claims/x", O_WRONLY | O_TRUNC)?;
                me.close(fd)
            }),
        ),
        (
            "utimes of a directory",
            "d",
            Box::new(|me| me.utimes("claims/d", 5, 6)),
        ),
        ("mkdir inside", "d", Box::new(|me| me.mkdir("claims/d/sub"))),
        (
            "utimes inside",
            "d",
            Box::new(|me| me.utimes("claims/d/sub", 5, 6)),
        ),
        ("rmdir inside", "d", Box::new(|me| me.rmdir("claims/d/sub"))),
    ];
    for (how, name, call) in renewing {
        let before = left(&mount, name);
        wait_until("some time passes", || left(&mount, name) < before - 0.02);
        let start = Instant::now();
        call(&mut me).unwrap();
        let left = left(&mount, name);
        let least = 3600.0 - start.elapsed().as_secs_f64() - 0.01;
        assert!(left > least, "{how} renews");
    }
    let path = "claims/x";
    let looking: [Call; 5] = [
        ("chmod", "x", Box::new(|me| me.chmod(path, 0o600))),
        (
            "reading",
            "x",
            Box::new(|me| me.open(path, O_RDONLY).and_then(|fd| me.close(fd))),
        ),
        (
            "opening for writing",
            "x",
            Box::new(|me| me.open(path, O_RDWR).and_then(|fd| me.close(fd))),
        ),
        (
            "setxattr",
            "x",
            Box::new(|me| me.setxattr(path, "user.note", "n", 0)),
        ),
        ("stat", "x", Box::new(|me| me.stat(path).map(drop))),
    ];
    for (how, name, call) in looking {
        let before = left(&mount, name);
        call(&mut me).unwrap();
        assert!(left(&mount, name) <= before, "{how} does not");
    }
    let before = left(&mount, "x");
    assert_eq!(other.utimes(path, 1, 1), Err(EBUSY));
    assert_eq!(other.truncate(path, 0), Err(EBUSY));
    assert_eq!(other.setxattr(path, TTL, "2h", 0), Err(EBUSY));
    assert_eq!(
        control(&mut other, &json!({"ttl": "x", "seconds": 1})),
        Err(EBUSY)
    );
    assert!(left(&mount, "x") <= before);
}

#[test]
fn a_deadline_is_an_attribute_and_a_command() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    me.claim("x").unwrap();
    me.symlink("nowhere", "claims/s").unwrap();
    assert_eq!(me.getxattr("claims/x", TTL), Err(ENODATA));
    me.setxattr("claims/x", TTL, "1h 30m", 0).unwrap();
    assert_eq!(me.getxattr("claims/x", TTL).unwrap(), "5400");
    let left: f64 = me
        .getxattr("claims/x", "user.claimfs.expires_in")
        .unwrap()
        .parse()
        .unwrap();
    assert!(left > 5390.0 && left <= 5400.0);
    for bad in [
        "",
        "0",
        "-1s",
        "soon",
        "1 fortnight",
        "876001h",
        "inf",
        "NaN",
        "1e300",
    ] {
        assert_eq!(me.setxattr("claims/x", TTL, bad, 0), Err(EINVAL), "{bad}");
    }
    me.link("claims/x", "claims/y").unwrap();
    assert_eq!(mount.record("y").unwrap()["ttl"], 5400);
    me.call("removexattr", json!({"path": "claims/x", "name": TTL}))
        .unwrap();
    assert_eq!(mount.record("y").unwrap().get("ttl"), None);

    control(&mut me, &json!({"ttl": "s", "seconds": 7.5})).unwrap();
    assert_eq!(mount.record("s").unwrap()["ttl"], 7.5);
    control(&mut me, &json!({"ttl": "s", "seconds": null})).unwrap();
    assert_eq!(mount.record("s").unwrap().get("ttl"), None);
    for bad in [
        json!(0),
        json!(-1),
        json!("30s"),
        json!(1e300),
        json!(0.0001),
    ] {
        assert_eq!(
            control(&mut me, &json!({"ttl": "s", "seconds": bad})),
            Err(EINVAL)
        );
    }
    assert_eq!(control(&mut me, &json!({"ttl": "s"})), Err(EINVAL));
    assert_eq!(
        control(&mut me, &json!({"ttl": "none", "seconds": 1})),
        Err(ENOENT)
    );
    me.mkdir("claims/d").unwrap();
    me.mkdir("claims/d/sub").unwrap();
    assert_eq!(me.setxattr("claims/d/sub", TTL, "1h", 0), Err(EOPNOTSUPP));

    // A body without a valid deadline is only text.
    for (number, body) in [
        "{\"ttl\":\"soon\"}",
        "{\"ttl\":0}",
        "{\"ttl\":",
        "[\"ttl\",1]",
        "ttl: 1s",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("t{number}");
        put(&mut me, &name, body);
        assert_eq!(mount.record(&name).unwrap().get("ttl"), None, "{body}");
        assert_eq!(mount.read(&format!("claims/{name}")), *body);
    }
    assert_eq!(ttl("876000h"), Some(TTL_MAX));
    assert_eq!(ttl("876000h 1s"), None);
    assert_eq!(ttl("1ms"), Some(Duration::from_millis(1)));
    assert_eq!(ttl("1d 2h"), Some(Duration::from_secs(26 * 3600)));
    assert_eq!(ttl("1w"), Some(Duration::from_secs(7 * 86_400)));
    assert_eq!(ttl("0.9ms"), None);
}

#[test]
fn the_command_takes_a_claim_with_a_deadline() {
    let Some(mount) = Mount::new() else { return };
    let run = |arguments: &[&str]| {
        let mut command = mount.claimfs(arguments);
        text(&command.env("CLAIMFS_SESSION", "w").output().unwrap())
    };
    // The session is this process, whose environment the variable is not in: so it is registered.
    let (code, out, err) = run(&["claim", "x", "--ttl", "90s", "--json"]);
    assert_eq!(code, 0, "{err}");
    let record: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(record["ttl"], 90);
    let (_, out, _) = run(&["show", "x"]);
    assert!(
        out.contains("expires  in 89.") && out.contains(" s, if not renewed (90 s)"),
        "{out}"
    );
    let (code, _, err) = run(&["claim", "y", "--ttl", "soon"]);
    assert_eq!(
        (code, err.as_str()),
        (
            2,
            "claimfs: 'soon': no time; write it like 30s, 5m or '1h 30m', from 1ms to 100 years\n"
        )
    );
    assert_eq!(mount.claims(), ["x"]);
    let (code, _, _) = run(&["claim", "x", "--ttl", "2h"]);
    assert_eq!(code, 0);
    assert_eq!(mount.record("x").unwrap()["ttl"], 7200);
    let (code, _, _) = run(&["claim", "z", "--session", "v", "--ttl", "1h"]);
    assert_eq!(
        (code, mount.record("z").unwrap()["ttl"].clone()),
        (0, json!(3600))
    );
}

#[test]
fn a_json_body_hands_the_lease_to_a_live_session() {
    let Some(mount) = Mount::new() else { return };
    let (mut me, mut w1) = (mount.actor(Some("me")), mount.actor(Some("w1")));
    w1.claim("own").unwrap();
    let fd = put(&mut me, "x", "");
    me.link("claims/x", "claims/y").unwrap();
    let (x, y) = (mount.token("x"), mount.token("y"));
    me.write(fd, "{\"session\":\"w1\"}\n").unwrap();
    for name in ["x", "y"] {
        let record = mount.record(name).unwrap();
        assert_eq!(record["session"], "w1");
        assert_eq!(record["pid"], w1.pid());
    }
    assert!(mount.token("x") > y && mount.token("y") > y && x < y);
    assert_eq!(mount.read("claims/y"), "{\"session\":\"w1\"}\n");
    assert_eq!(me.pread(fd, 1, 0), Err(ESTALE));
    assert_eq!(me.pwrite(fd, "late", 0), Err(ESTALE));
    assert_eq!(me.unlink("claims/x"), Err(EBUSY));
    assert_eq!(me.open("claims/x", O_WRONLY), Err(EBUSY));
    // It is the receiver's like any other: a heartbeat hands nothing on.
    w1.utimes("claims/x", 1, 1).unwrap();
    let own = w1.open("claims/x", O_WRONLY | O_APPEND).unwrap();
    w1.write(own, " \n").unwrap();
    assert_eq!(
        w1.stat("claims/x").unwrap()["ino"],
        w1.stat("claims/y").unwrap()["ino"]
    );
    w1.unlink("claims/y").unwrap();
    assert!(
        mount
            .log()
            .contains("handed claims/x: session me gave it to session w1; token ")
    );
    assert!(
        mount
            .read("metrics")
            .contains("claimfs_handovers_total 2\n")
    );
    w1.kill();
    me.claim("x").unwrap();
}

#[test]
fn a_body_that_names_no_session_it_may_act_for_is_text() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    let mut dead = mount.actor(Some("dead"));
    dead.claim("d").unwrap();
    dead.kill();
    for (number, id) in ["nobody", "dead", "../me", "me"].iter().enumerate() {
        let name = format!("x{number}");
        let body = format!("{{\"session\":\"{id}\",\"name\":\"x\"}}");
        put(&mut me, &name, &body);
        assert_eq!(mount.record(&name).unwrap()["session"], "me");
        assert_eq!(mount.read(&format!("claims/{name}")), body);
    }
    assert!(
        mount
            .read("metrics")
            .contains("claimfs_handovers_total 0\n")
    );
}

#[test]
fn control_gives_a_lease_with_all_that_is_inside_it() {
    let Some(mount) = Mount::new() else { return };
    let (mut me, mut w1) = (mount.actor(Some("me")), mount.actor(Some("w1")));
    w1.claim("own").unwrap();
    me.mkdir("claims/d").unwrap();
    me.mkdir("claims/d/sub").unwrap();
    me.setxattr("claims/d", TTL, "1h", 0).unwrap();
    me.symlink("nowhere", "claims/s").unwrap();
    let give = |name: &str, to: &str| json!({"give": name, "to": to});
    assert_eq!(control(&mut me, &give("d", "nobody")), Err(ENOENT));
    assert_eq!(control(&mut me, &give("none", "w1")), Err(ENOENT));
    assert_eq!(control(&mut me, &give("d", "a/b")), Err(EINVAL));
    assert_eq!(control(&mut me, &json!({"give": "d"})), Err(EINVAL));
    assert_eq!(control(&mut w1, &give("d", "w1")), Err(EBUSY));
    control(&mut me, &give("d", "w1")).unwrap();
    control(&mut me, &give("s", "w1")).unwrap();
    control(&mut w1, &give("d", "w1")).unwrap();
    assert_eq!(mount.record("s").unwrap()["session"], "w1");
    assert_eq!(mount.record("d").unwrap()["ttl"], 3600);
    assert_eq!(
        fs::read_link(mount.path("claims/s")).unwrap().to_str(),
        Some("nowhere")
    );
    assert_eq!(me.mkdir("claims/d/more"), Err(EBUSY));
    assert_eq!(me.utimes("claims/d/sub", 1, 1), Err(EBUSY));
    w1.mkdir("claims/d/sub/deeper").unwrap();
    w1.rename("claims/d/sub", "claims/d/top", 0).unwrap();
    w1.rmdir("claims/d/top/deeper").unwrap();
    w1.rmdir("claims/d/top").unwrap();
    w1.rmdir("claims/d").unwrap();
}

#[test]
fn a_lease_is_not_handed_to_another_uid() {
    if !root_or_skip("be two users") {
        return;
    }
    let Some(mount) = Mount::with(&["--allow-other"]) else {
        return;
    };
    let mut user = Actor::start(&mount, Some("user"), |command| {
        use std::os::unix::process::CommandExt;
        command.uid(4242).gid(4242);
    });
    user.claim("theirs").unwrap();
    let mut me = mount.actor(Some("me"));
    put(&mut me, "x", "{\"session\":\"user\"}");
    assert_eq!(mount.record("x").unwrap()["session"], "me");
    assert_eq!(
        control(&mut me, &json!({"give": "x", "to": "user"})),
        Err(EPERM)
    );
}

/// The rules alone: a table, and a clock that is told.
fn at(boot: u64) -> claimfs::core::Moment {
    claimfs::core::Moment {
        wall: UNIX_EPOCH,
        boot: Duration::from_secs(boot),
    }
}

#[test]
fn regression_a_deadline_that_passes_after_the_session_is_over_keeps_nobody_busy() {
    let Some(mount) = Mount::new() else { return };
    // Each dies at about its deadline. A reaper that spins would sweep nothing any more.
    let script = "import os, sys, time\nfd = os.open('claims/' + sys.argv[1], os.O_CREAT | os.O_EXCL | os.O_WRONLY)\n\
                  os.write(fd, b'{\"ttl\":0.03}')\ntime.sleep(0.0298)\nos.kill(os.getpid(), 9)";
    for number in 0..25 {
        let name = format!("x{number}");
        let mut python = std::process::Command::new("python3");
        python
            .args(["-c", script, &name])
            .current_dir(&mount.dir)
            .env("CLAIMFS_SESSION", &name);
        python.status().unwrap();
    }
    wait_until("all of them are swept", || {
        mount.read("metrics").contains("claimfs_sessions 0\n")
    });
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", mount.pid())).unwrap();
        let rest = stat.rsplit(')').next().unwrap();
        let fields: Vec<u64> = rest
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|f| f.parse().unwrap())
            .collect();
        fields[0] + fields[1]
    };
    let before = ticks();
    std::thread::sleep(Duration::from_millis(500));
    assert!(ticks() - before < 20, "it spins");
}

#[test]
fn regression_exchange_goes_on_watching_the_process_that_a_claim_is_bound_to() {
    let Some(mount) = Mount::new() else { return };
    // The child, in a session of its own, binds x to its parent, and exchanges it; then the parent
    // dies.
    let script = r"
import os, time
r, w = os.pipe()
if os.fork() == 0:
    os.setsid()
    fd = os.open('claims/x', os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.write(fd, str(os.getppid()).encode())
    os.close(os.open('claims/y', os.O_CREAT | os.O_EXCL))
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.renameat2(-100, b'claims/x', -100, b'claims/y', 2) == 0, ctypes.get_errno()
    os.write(w, b'.')
    print(os.getpid(), flush=True)
    os.close(1)
    time.sleep(30)
    os._exit(0)
os.read(r, 1)
os.kill(os.getpid(), 9)
";
    let mut command = std::process::Command::new("python3");
    command
        .args(["-c", script])
        .current_dir(&mount.dir)
        .stdout(std::process::Stdio::piped());
    crate::support::plain(&mut command);
    let mut parent = crate::support::Guard::spawn(&mut command);
    let child: i32 = parent.line().parse().unwrap();
    parent.0.wait().unwrap();
    // y, which has the inode that is bound; not x, whose session lives.
    let claims = mount.claims();
    unsafe { libc::kill(child, libc::SIGKILL) };
    assert_eq!(claims, ["x"]);
}

#[test]
fn regression_who_only_looks_neither_renews_nor_writes_by_what_is_open_without_a_name() {
    let Some(mount) = Mount::new() else { return };
    let (mut me, mut other) = (mount.actor(Some("me")), mount.actor(Some("other")));
    me.mkdir("claims/d").unwrap();
    me.mkdir("claims/d/sub").unwrap();
    let fd = me.open("claims/d/f", O_RDWR | O_CREAT | O_EXCL).unwrap();
    me.write(fd, "mine").unwrap();
    let theirs = other.open("claims/d/f", O_RDONLY).unwrap();
    me.unlink("claims/d/f").unwrap();
    me.pwrite(fd, "MINE", 0).unwrap();
    let link = format!("/proc/{}/fd/{theirs}", other.pid());
    assert_eq!(other.open(&link, O_WRONLY), Err(EBUSY));
    assert_eq!(other.truncate(&link, 0), Err(EBUSY));
    assert_eq!(other.pread(theirs, 4, 0).unwrap(), "MINE");
}

#[test]
fn regression_a_session_that_is_dead_is_handed_nothing_though_nobody_has_looked() {
    use crate::core::model::{claim, member, name, process};
    use claimfs::core::table::Table;
    use claimfs::core::{Change, Command};

    // The table believes what it is told, so the store looks at the receiver of each handover that
    // is decided.
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    let server = mount.pid() as i32;
    for round in 0..30 {
        let id = format!("w{round}");
        let mut dead = mount.actor(Some(&id));
        dead.claim(&id).unwrap();
        let fd = put(&mut me, "x", "");
        // Stopped, the server can have seen nothing of the death when it is asked to hand over.
        unsafe { libc::kill(server, libc::SIGSTOP) };
        dead.kill();
        let text = format!("{{\"session\":\"{id}\"}}");
        me.send("write", json!({"fd": fd, "text": text}));
        unsafe { libc::kill(server, libc::SIGCONT) };
        me.receive().unwrap();
        assert_eq!(mount.record("x").unwrap()["session"], "me", "round {round}");
        me.unlink("claims/x").unwrap();
        me.close(fd).unwrap();
    }
    let mut table = Table::new(9);
    let (giver, receiver) = (member("a", &[process(100)]), member("b", &[process(200)]));
    for (of, by) in [("x", &giver), ("y", &receiver)] {
        for event in table.decide(&claim(of, by), at(1)).unwrap() {
            table.apply(&event);
        }
    }
    let ino = table.lease(&name("x")).unwrap().ino;
    let data = b"{\"session\":\"b\"}".to_vec();
    let change = Change::Append { data };
    let handed = table
        .decide(
            &Command::Alter {
                ino,
                by: &giver,
                change,
            },
            at(1),
        )
        .unwrap();
    assert_eq!(handed.len(), 2);
}

#[test]
fn regression_a_claim_that_expires_reads_as_one_record_in_whatever_pieces() {
    let Some(mount) = Mount::new() else { return };
    let (mut me, mut other) = (mount.actor(Some("me")), mount.actor(Some("other")));
    put(&mut me, "x", "\n");
    me.setxattr("claims/x", TTL, "1h", 0).unwrap();
    let fd = other.open("claims/x", O_RDONLY).unwrap();
    let mut text = other.pread(fd, 40, 0).unwrap();
    // The record has grown by then.
    me.utimes("claims/x", 1, 1).unwrap();
    let line = me.open("queue/x", O_RDONLY).unwrap();
    let mut waiter = mount.actor(Some("waiter"));
    waiter.open("queue/x", O_RDONLY).unwrap();
    me.close(line).unwrap();
    loop {
        let piece = other.pread(fd, 40, text.len() as i64).unwrap();
        if piece.is_empty() {
            break;
        }
        text.push_str(&piece);
    }
    let record: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&record["ttl"], record.get("waiters")),
        (&json!(3600), None)
    );
    // A read from offset 0 renders it again.
    let again: Value = serde_json::from_str(&other.pread(fd, 4096, 0).unwrap()).unwrap();
    assert_eq!(again["waiters"], 1);
}

#[test]
fn regression_descriptors_inside_a_directory_that_was_given_are_lost_too() {
    let Some(mount) = Mount::new() else { return };
    let (mut me, mut w1) = (mount.actor(Some("me")), mount.actor(Some("w1")));
    w1.claim("own").unwrap();
    me.mkdir("claims/d").unwrap();
    me.mkdir("claims/d/sub").unwrap();
    let fd = me
        .open("claims/d/sub/f", O_RDWR | O_CREAT | O_EXCL)
        .unwrap();
    me.write(fd, "text").unwrap();
    me.link("claims/d/sub/f", "claims/d/g").unwrap();
    let orphan = me.open("claims/d/o", O_RDWR | O_CREAT | O_EXCL).unwrap();
    me.unlink("claims/d/o").unwrap();
    let before = me.stat("claims/d/g").unwrap()["ino"].clone();
    control(&mut me, &json!({"give": "d", "to": "w1"})).unwrap();
    for lost in [fd, orphan] {
        assert_eq!(me.pread(lost, 4, 0), Err(ESTALE));
        assert_eq!(me.pwrite(lost, "late", 0), Err(ESTALE));
        me.close(lost).unwrap();
    }
    assert_eq!(mount.read("claims/d/sub/f"), "text");
    let now = w1.stat("claims/d/g").unwrap();
    assert_eq!(
        (now["nlink"].clone(), now["ino"] == before),
        (json!(2), false)
    );
    assert_eq!(now["ino"], w1.stat("claims/d/sub/f").unwrap()["ino"]);
    w1.unlink("claims/d/g").unwrap();
    w1.unlink("claims/d/sub/f").unwrap();
    w1.rmdir("claims/d/sub").unwrap();
    w1.rmdir("claims/d").unwrap();
}

/// The wall clock cannot be moved here without moving it for everybody: the core is asked, which is
/// told the time.
#[test]
fn a_jump_of_the_wall_clock_changes_nothing() {
    use crate::core::model::{claim, member, name, process};
    use claimfs::core::table::Table;
    use claimfs::core::{Command, Due, Moment, What};

    let mut table = Table::new(9);
    let by = member("w1", &[process(100)]);
    let moment = |wall: u64, boot: u64| Moment {
        wall: UNIX_EPOCH + Duration::from_secs(wall),
        boot: Duration::from_secs(boot),
    };
    let run = |table: &mut Table, command: &Command, now| -> Vec<What> {
        let events = table.decide(command, now).unwrap();
        for event in &events {
            table.apply(event);
        }
        events.into_iter().map(|event| event.what).collect()
    };
    run(&mut table, &claim("x", &by), moment(1_000_000, 50));
    let ino = table.lease(&name("x")).unwrap().ino;
    let ttl = Some(Duration::from_secs(30));
    let by = &by;
    run(
        &mut table,
        &Command::Limit { ino, by, ttl },
        moment(1_000_000, 50),
    );
    for (wall, boot) in [(2_000_000_000, 60), (0, 70), (1_000_031, 79)] {
        assert_eq!(
            run(
                &mut table,
                &Command::Expire {
                    due: Due::Claim(ino)
                },
                moment(wall, boot)
            ),
            []
        );
    }
    let events = run(
        &mut table,
        &Command::Expire {
            due: Due::Claim(ino),
        },
        moment(0, 80),
    );
    assert!(matches!(events.as_slice(), [What::Expired { .. }]));
    assert!(table.lease(&name("x")).is_none());
}
