//! One lease is read alone: the attributes of `queue/NAME`, and the commands that read them.

use std::process::{Command, Stdio};

use libc::{ENODATA, EOPNOTSUPP};

use crate::support::{CLAIMFS, Mount, TempDir, parsed, plain, skip, text};

const RECORD: &str = "user.claimfs.record";

#[test]
fn the_file_of_a_name_in_queue_carries_the_attributes_of_its_lease() {
    let Some(mount) = Mount::new() else { return };
    let (mut holder, mut other) = (mount.actor(Some("w1")), mount.actor(None));
    for free in [RECORD, "user.claimfs.token", "user.claimfs.session"] {
        assert_eq!(other.getxattr("queue/x", free), Err(ENODATA), "{free}");
    }
    // A symlink can carry no attribute of its own.
    for make in ["file", "directory", "symlink"] {
        match make {
            "file" => holder.claim("x").unwrap(),
            "directory" => holder.mkdir("claims/x").unwrap(),
            _ => holder.symlink("to", "claims/x").unwrap(),
        }
        let record = mount.record("x").unwrap();
        let shown = other.getxattr("queue/x", RECORD).unwrap();
        assert_eq!(parsed(&shown), record, "{make}");
        let token = other.getxattr("queue/x", "user.claimfs.token").unwrap();
        assert_eq!(token, record["token"].to_string(), "{make}");
        let session = other.getxattr("queue/x", "user.claimfs.session").unwrap();
        assert_eq!(session, "w1", "{make}");
        match make {
            "directory" => holder.rmdir("claims/x").unwrap(),
            _ => holder.unlink("claims/x").unwrap(),
        }
        assert_eq!(other.getxattr("queue/x", RECORD), Err(ENODATA), "{make}");
    }
    assert_eq!(
        holder.setxattr("queue/x", "user.claimfs.ttl", "30s", 0),
        Err(EOPNOTSUPP),
        "they are there to be read"
    );
}

#[test]
fn a_file_in_sessions_carries_the_living_roots_of_the_session() {
    let Some(mount) = Mount::new() else { return };
    let (mut one, mut two) = (mount.actor(Some("w1")), mount.actor(Some("w1")));
    one.claim("x").unwrap();
    two.claim("y").unwrap();
    let mut roots = || {
        let roots = parsed(&two.getxattr("sessions/w1", "user.claimfs.roots").unwrap());
        let pids = roots
            .as_array()
            .unwrap()
            .iter()
            .map(|root| root["pid"].as_u64());
        pids.collect::<Option<Vec<u64>>>().unwrap()
    };
    let (first, both) = (u64::from(one.pid()), roots());
    assert!(both.contains(&first) && both.len() >= 2, "{both:?}");
    one.kill();
    let left = roots();
    assert!(!left.contains(&first) && !left.is_empty(), "{left:?}");
}

#[test]
fn an_attribute_of_a_dead_holder_is_gone_at_once() {
    let Some(mount) = Mount::new() else { return };
    let mut other = mount.actor(None);
    for round in 0..50 {
        let mut holder = mount.actor(Some(&format!("w{round}")));
        holder.claim("x").unwrap();
        assert!(other.getxattr("queue/x", RECORD).is_ok());
        holder.kill();
        assert_eq!(other.getxattr("queue/x", RECORD), Err(ENODATA));
    }
}

#[test]
fn commands_about_one_name_do_not_read_all_leases() {
    if Command::new("strace").arg("-V").output().is_err() {
        skip("strace is not installed");
        return;
    }
    let Some(mount) = Mount::new() else { return };
    let (mut holder, mut own) = (mount.actor(Some("w1")), mount.actor(Some("w2")));
    holder.claim("x").unwrap();
    own.claim("mine").unwrap();
    let temp = TempDir::new();
    let log = temp.path().join("log");
    for (arguments, code) in [
        (&["show", "x"][..], 0),
        (&["show", "free"], 0),
        (&["claim", "x"], 1),
        (&["claim", "mine"], 0),
        (&["claim", "new"], 0),
        (&["claim", "x", "--wait=20ms"], 1),
        (&["run", "x", "--", "true"], 1),
        (&["run", "other", "--", "true"], 0),
        (&["wait", "free"], 0),
    ] {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", "trace=openat", "-o"]);
        command.arg(&log).arg(CLAIMFS);
        plain(command.arg("--mount").arg(&mount.dir).args(arguments));
        command.env("CLAIMFS_SESSION", "w2").stdin(Stdio::null());
        let (exit, out, err) = text(&command.output().unwrap());
        assert_eq!(exit, code, "{arguments:?}: {out}{err}");
        let calls = std::fs::read_to_string(&log).unwrap();
        assert!(calls.contains("openat"), "{arguments:?}: {calls}");
        for all in ["/leases\"", "/sessions/w1\""] {
            assert!(!calls.contains(all), "{arguments:?}: {calls}");
        }
    }
}
