//! Second users on an `--allow-other` mount: the uid rules, as on any sticky directory, before the
//! rules of leases.

use std::os::unix::process::CommandExt;
use std::process::Stdio;

use crate::support::{Actor, Mount, root_or_skip, text};

const USER: u32 = 4242;

/// A script run by another user: its exit code, output and complaints.
fn user(mount: &Mount, session: &str, script: &str) -> (i32, String, String) {
    let mut command = mount.sh(script);
    command
        .uid(USER)
        .gid(USER)
        .env("CLAIMFS_SESSION", session)
        .stdin(Stdio::null());
    text(&command.output().unwrap())
}

fn complains(mount: &Mount, session: &str, script: &str, complaint: &str) {
    let (code, _, err) = user(mount, session, script);
    assert!(
        code != 0 && err.contains(complaint),
        "{script}: exit {code}, {err}"
    );
}

#[test]
fn each_user_claims_and_releases_its_own() {
    let Some(mount) = Mount::shared(&[]) else {
        return;
    };
    let script = "umask 027; set -C; echo > claims/x && stat -c '%u %g %a' claims/x && cat claims/x && rm claims/x";
    let (code, out, err) = user(&mount, "u1", script);
    assert_eq!(
        (code, out.lines().next()),
        (0, Some("4242 4242 640")),
        "{err}"
    );
    assert!(out.contains("\"uid\":4242"), "{out}");
}

#[test]
fn nobody_touches_anothers_claim() {
    let Some(mount) = Mount::shared(&[]) else {
        return;
    };
    let mut root = mount.actor(Some("r1"));
    let fd = root
        .open_mode(
            "claims/x",
            libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
            0o644,
        )
        .unwrap();
    root.write(fd, "body").unwrap();
    let before = mount.record("x");
    complains(&mount, "u1", "set -C; echo > claims/x", "File exists");
    complains(&mount, "u1", "rm -f claims/x", "Operation not permitted");
    complains(&mount, "u1", "echo > claims/x", "Permission denied");
    complains(&mount, "u1", "echo >> claims/x", "Permission denied");
    complains(
        &mount,
        "u1",
        "mv claims/x claims/y",
        "Operation not permitted",
    );
    complains(
        &mount,
        "u1",
        "echo > claims/u; mv -f claims/u claims/x",
        "Operation not permitted",
    );
    complains(
        &mount,
        "u1",
        "chmod 777 claims/x",
        "Operation not permitted",
    );
    complains(
        &mount,
        "u1",
        "touch -d 2001-01-01 claims/x",
        "Permission denied",
    );
    complains(&mount, "u1", "touch claims/x", "Permission denied");
    complains(&mount, "u1", "truncate -s 0 claims/x", "Permission denied");
    complains(
        &mount,
        "u1",
        "chown 4242 claims/x",
        "Operation not permitted",
    );
    assert_eq!(mount.record("x"), before);
    assert_eq!(
        user(&mount, "u1", "cat claims/x").1,
        "body",
        "anybody may look"
    );
    // The mode says what it says elsewhere; who holds the name is no secret.
    root.chmod("claims/x", 0o600).unwrap();
    complains(&mount, "u1", "cat claims/x", "Permission denied");
    assert!(
        user(&mount, "u1", "cat leases")
            .1
            .contains("\"session\":\"r1\"")
    );
    // Even where the mode admits the user, the lease is not theirs.
    root.chmod("claims/x", 0o666).unwrap();
    complains(
        &mount,
        "u1",
        "truncate -s 0 claims/x",
        "Device or resource busy",
    );
    complains(&mount, "u1", "touch claims/x", "Device or resource busy");
    assert_eq!(mount.read("claims/x"), "body");
}

#[test]
fn root_is_refused_by_the_lease_and_not_by_the_mode() {
    let Some(mount) = Mount::shared(&[]) else {
        return;
    };
    let mut command = mount.sh("umask 077; echo > claims/x; echo done; read x");
    command
        .uid(USER)
        .gid(USER)
        .env("CLAIMFS_SESSION", "u1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut holder = crate::support::Guard::spawn(&mut command);
    assert_eq!(holder.line(), "done");
    let mut root = mount.actor(Some("r1"));
    assert!(root.open("claims/x", libc::O_RDONLY).is_ok());
    assert_eq!(root.open("claims/x", libc::O_WRONLY), Err(libc::EBUSY));
    assert_eq!(root.unlink("claims/x"), Err(libc::EBUSY));
    // Root may end the session of anybody.
    assert_eq!(root.unlink("sessions/u1"), Err(libc::EBUSY));
    mount.end_session("u1");
    assert_eq!(mount.claims(), [""; 0]);
}

#[test]
fn nobody_joins_or_ends_anothers_session() {
    let Some(mount) = Mount::shared(&[]) else {
        return;
    };
    let mut root = mount.actor(Some("r1"));
    root.claim("x").unwrap();
    complains(
        &mount,
        "r1",
        "set -C; echo > claims/y",
        "Operation not permitted",
    );
    complains(&mount, "u1", "rm -f sessions/r1", "Device or resource busy");
    complains(
        &mount,
        "u1",
        "env echo '{\"end\":\"r1\"}' > control",
        "Operation not permitted",
    );
    complains(&mount, "u1", "echo $$ > sessions/r1", "Permission denied");
    complains(&mount, "r1", "rm -f claims/x", "Operation not permitted");
    assert_eq!(mount.claims(), ["x"]);
    assert_eq!(user(&mount, "u1", "cat sessions/r1").0, 0);
    // A process of another uid above the caller is no root of the caller's session.
    let (code, out, err) = user(&mount, "u2", "echo > claims/z; cat sessions/u2");
    let session: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, session["roots"].as_array().unwrap().len()),
        (0, 1),
        "the shell alone: {out}{err}"
    );
    assert_eq!(session["uid"], USER);
}

#[test]
fn the_rest_is_read_only() {
    let Some(mount) = Mount::shared(&[]) else {
        return;
    };
    for name in ["README", "leases", "self", "metrics"] {
        complains(&mount, "u1", &format!("echo > {name}"), "Permission denied");
        complains(&mount, "u1", &format!("rm -f {name}"), "Permission denied");
        assert_eq!(user(&mount, "u1", &format!("cat {name}")).0, 0);
    }
    complains(&mount, "u1", "echo > new", "Permission denied");
    complains(&mount, "u1", "mkdir new", "Permission denied");
    complains(&mount, "u1", "cat control", "Permission denied");
    assert!(
        mount.sh("echo > README").output().unwrap().stderr.len() > 1,
        "not even root writes the manual"
    );
}

#[test]
fn a_private_mount_is_its_owners_alone() {
    if !root_or_skip("become another user") {
        return;
    }
    let Some(mount) = Mount::new() else { return };
    let mut command = std::process::Command::new("cat");
    command.arg(mount.path("README")).uid(USER).gid(USER);
    let (code, _, err) = text(&command.output().unwrap());
    assert!(code != 0 && err.contains("Permission denied"), "{err}");
}

#[test]
fn a_sandbox_does_not_end_the_sessions_outside_of_it() {
    let Some(mount) = Mount::shared(&[]) else {
        return;
    };
    let mut command = mount.sh("echo > claims/x; echo done; read x");
    command.uid(USER).gid(USER).env("CLAIMFS_SESSION", "u1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = crate::support::Guard::spawn(&mut command);
    assert_eq!(holder.line(), "done");
    let user = "setpriv --reuid 4242 --regid 4242 --clear-groups";
    let end = "sh -c \"env echo '{\\\"end\\\":\\\"u1\\\"}' > control\"";
    for (what, why) in [
        ("rm -f sessions/u1", "Device or resource busy"),
        (end, "Operation not permitted"),
    ] {
        let inside = format!("unshare --pid --fork --kill-child {user} {what}");
        let (_, _, err) = text(&mount.sh(&inside).output().unwrap());
        assert!(err.contains(why), "{err}");
    }
    assert_eq!(mount.claims(), ["x"]);
    mount.run(&format!("{user} {end}"));
    assert_eq!(mount.claims(), [""; 0]);
}

#[test]
fn regression_a_directory_that_others_may_not_search_hides_what_is_in_it() {
    let Some(mount) = Mount::shared(&[]) else {
        return;
    };
    let mut me = mount.actor(Some("me"));
    me.mkdir("claims/private").unwrap();
    me.chmod("claims/private", 0o700).unwrap();
    me.mkdir("claims/private/sub").unwrap();
    me.chmod("claims/private/sub", 0o755).unwrap();
    let mut user = Actor::start(&mount, Some("user"), |command| {
        command.uid(USER).gid(USER);
    });
    assert_eq!(user.stat("claims/private/sub"), Err(libc::EACCES));
    assert_eq!(user.stat("claims/private/none"), Err(libc::EACCES));
    assert!(user.stat("claims/private").is_ok());
    me.chmod("claims/private", 0o711).unwrap();
    assert!(user.stat("claims/private/sub").is_ok());
}
