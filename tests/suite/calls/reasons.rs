//! The reason for a claim, in the words of its holder.

use libc::{EBUSY, EFBIG, EINVAL, ENODATA, EPERM, O_CREAT, O_WRONLY};

use crate::support::{Mount, text};

const REASON: &str = "user.claimfs.reason";

#[test]
fn the_holder_gives_a_reason_and_the_record_shows_it() {
    let Some(mount) = Mount::new() else { return };
    let (mut holder, mut other) = (mount.actor(Some("w1")), mount.actor(None));
    holder.claim("x").unwrap();
    holder.mkdir("claims/d").unwrap();
    let shown = |name: &str| mount.record(name).unwrap()["reason"].clone();
    for name in ["x", "d"] {
        let path = format!("claims/{name}");
        assert!(shown(name).is_null());
        assert_eq!(other.getxattr(&path, REASON), Err(ENODATA));
        holder.setxattr(&path, REASON, "nightly build", 0).unwrap();
        assert_eq!(shown(name), "nightly build");
        for path in [path.clone(), format!("queue/{name}")] {
            assert_eq!(other.getxattr(&path, REASON).unwrap(), "nightly build");
        }
        assert_eq!(other.setxattr(&path, REASON, "mine", 0), Err(EBUSY));
        assert_eq!(shown(name), "nightly build");
    }
    // A blank body reads as the record.
    assert!(
        mount
            .read("claims/x")
            .contains("\"reason\":\"nightly build\"")
    );
    // It is shown once.
    let listed = mount.run(
        "python3 -c \"import os; print(os.listxattr('claims/x').count('user.claimfs.reason'))\"",
    );
    assert_eq!(listed, "1\n");
    mount.kill_server();
    assert_eq!(shown("x"), "nightly build");
    holder
        .call(
            "removexattr",
            serde_json::json!({ "path": "claims/x", "name": REASON }),
        )
        .unwrap();
    assert!(shown("x").is_null());
    let again = holder.call(
        "removexattr",
        serde_json::json!({ "path": "claims/x", "name": REASON }),
    );
    assert_eq!(again, Err(ENODATA));
    // An entry inside a claim is no lease, and the other fields of a record are as they are.
    let fd = holder.open("claims/d/f", O_CREAT | O_WRONLY).unwrap();
    holder.close(fd).unwrap();
    assert_eq!(holder.setxattr("claims/d/f", REASON, "x", 0), Err(EPERM));
    assert_eq!(
        holder.setxattr("claims/x", "user.claimfs.pid", "1", 0),
        Err(EPERM)
    );
}

#[test]
fn a_reason_has_256_bytes_of_utf_8_at_most() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.actor(Some("w1"));
    holder.claim("x").unwrap();
    let shown = || mount.record("x").unwrap()["reason"].clone();
    let (fits, is_long) = ("ü".repeat(128), "ü".repeat(128) + "x");
    holder.setxattr("claims/x", REASON, &fits, 0).unwrap();
    assert_eq!(shown(), fits);
    assert_eq!(holder.setxattr("claims/x", REASON, &is_long, 0), Err(EFBIG));
    let fd = holder.open("claims/x", O_WRONLY).unwrap();
    let body = |reason: &str| serde_json::json!({ "reason": reason }).to_string();
    assert_eq!(holder.pwrite(fd, &body(&is_long), 0), Err(EFBIG));
    assert_eq!(
        (shown(), mount.read("claims/x").contains("\"token\"")),
        (fits.clone().into(), true)
    );
    holder.pwrite(fd, &body("short"), 0).unwrap();
    assert_eq!(shown(), "short");
    // What the body says is as it was written.
    assert_eq!(mount.read("claims/x"), body("short"));
    let invalid = "import os
try: os.setxattr('claims/x', 'user.claimfs.reason', b'\\xff')
except OSError as e: print(e.errno)";
    let mut invalid = mount.sh(&format!("python3 -c \"{invalid}\""));
    invalid.env("CLAIMFS_SESSION", "w1");
    let (_, errno, said) = text(&invalid.output().unwrap());
    assert_eq!(errno, format!("{EINVAL}\n"), "{said}");
    assert_eq!(shown(), "short");
}

#[test]
fn a_reason_passes_with_its_claim_and_is_not_given_away() {
    let Some(mount) = Mount::new() else { return };
    let (mut giver, mut taker) = (mount.actor(Some("w1")), mount.actor(Some("w2")));
    taker.claim("theirs").unwrap();
    let shown = |name: &str| mount.record(name).unwrap()["reason"].clone();
    for (body, expected) in [
        (None, serde_json::Value::Null),
        (Some(r#"{"session":"w2"}"#), serde_json::Value::Null),
        (
            Some(r#"{"session":"w2","reason":"yours now"}"#),
            "yours now".into(),
        ),
    ] {
        giver.claim("x").unwrap();
        giver.setxattr("claims/x", REASON, "mine", 0).unwrap();
        match body {
            None => giver
                .setxattr("claims/x", "user.claimfs.session", "w2", 0)
                .unwrap(),
            Some(body) => {
                let fd = giver.open("claims/x", O_WRONLY).unwrap();
                giver.pwrite(fd, body, 0).unwrap();
                giver.close(fd).unwrap();
            }
        }
        assert_eq!(mount.session_of("x").as_deref(), Some("w2"), "{body:?}");
        assert_eq!(shown("x"), expected, "{body:?}");
        taker.unlink("claims/x").unwrap();
    }
    // Under process scope it goes to the parent with the claim.
    let script = "python3 -c \"import os
open('claims/y', 'x').close()
os.setxattr('claims/y', 'user.claimfs.reason', b'why')\"
        cat claims/y";
    assert!(mount.run(script).contains("\"reason\":\"why\""));
}

#[test]
fn the_verbs_take_a_reason_and_show_it_as_the_words_of_the_holder() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.claimfs(&["run", "-m", "nightly\u{1b}[31m build", "x", "--", "cat"]);
    let mut holder = crate::support::Guard::spawn(
        holder
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped()),
    );
    crate::support::wait_until("it is taken", || {
        mount
            .record("x")
            .is_some_and(|record| !record["reason"].is_null())
    });
    let (code, _, refused) = text(&mount.claimfs(&["claim", "x"]).output().unwrap());
    assert_eq!(code, 1, "{refused}");
    let quoted = "\"nightly\\u{1b}[31m build\"";
    assert!(refused.contains(&format!("who says {quoted}")), "{refused}");
    let (_, shown, _) = text(&mount.claimfs(&["show", "x"]).output().unwrap());
    assert!(
        shown.contains(&format!("reason   {quoted}, as the holder says\n")),
        "{shown}"
    );
    drop(holder.0.stdin.take());
    crate::support::wait_until("it is free", || mount.record("x").is_none());
    let claim = "claimfs claim -m 'why not' y > /dev/null
        python3 -c \"import os; print(os.getxattr('claims/y', 'user.claimfs.reason').decode())\"";
    let mut shell = mount.sh(claim);
    let path = std::path::Path::new(crate::support::CLAIMFS)
        .parent()
        .unwrap();
    let path = format!("{}:{}", path.display(), std::env::var("PATH").unwrap());
    let (_, out, complaint) = text(
        &shell
            .env("PATH", path)
            .env("CLAIMFS_MOUNT", &mount.dir)
            .output()
            .unwrap(),
    );
    assert_eq!(out, "why not\n", "{complaint}");
    let long = "x".repeat(257);
    let (code, _, refused) = text(
        &mount
            .claimfs(&["claim", "-m", &long, "z"])
            .output()
            .unwrap(),
    );
    assert!(code == 2 && refused.contains("257 bytes"), "{refused}");
    assert!(mount.record("z").is_none());
}
