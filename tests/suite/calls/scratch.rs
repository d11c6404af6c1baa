//! Names with a leading dot, where the mount admits them: scratch files of their session, and no
//! leases.

use libc::{EBUSY, EEXIST, EINVAL, ENAMETOOLONG, ENODATA, ENOENT, ESTALE};
use libc::{O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_WRONLY, RENAME_NOREPLACE};
use serde_json::json;

use crate::support::{Mount, names, text, wait_until};

fn with_dotfiles() -> Option<Mount> {
    Mount::with(&["--dotfiles"])
}

#[test]
fn a_leading_dot_is_refused_unless_the_mount_admits_it() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    assert_eq!(me.claim(".x"), Err(EINVAL));
    assert_eq!(me.mkdir("claims/.x"), Err(EINVAL));
    assert_eq!(me.symlink("y", "claims/.x"), Err(EINVAL));
    me.claim("x").unwrap();
    assert_eq!(me.link("claims/x", "claims/.x"), Err(EINVAL));
    assert_eq!(me.rename("claims/x", "claims/.x", 0), Err(EINVAL));
    assert_eq!(me.stat("claims/.x"), Err(ENOENT));
}

#[test]
fn a_scratch_file_is_a_file_and_no_lease() {
    let Some(mount) = with_dotfiles() else { return };
    let (mut me, mut other) = (mount.actor(Some("me")), mount.actor(Some("other")));
    let fd = me.open("claims/.x", O_RDWR | O_CREAT | O_EXCL).unwrap();
    me.mkdir("claims/.d").unwrap();
    me.mkdir("claims/.d/sub").unwrap();
    me.symlink("me@host.1:2", "claims/.#lock").unwrap();
    me.claim("x").unwrap();

    assert_eq!(names(&mount.path("claims")), [".#lock", ".d", ".x", "x"]);
    assert_eq!(mount.read("claims/.x"), "", "blank, not a record");
    assert_eq!(mount.run("wc -l < leases"), "2\n");
    let session: serde_json::Value = serde_json::from_str(&mount.read("sessions/me")).unwrap();
    assert_eq!(session["leases"], json!(["x"]));
    assert_eq!(me.getxattr("claims/.x", "user.claimfs.token"), Err(ENODATA));
    assert_eq!(
        me.setxattr("claims/.x", "user.claimfs.break", "1", 0),
        Err(ESTALE)
    );
    assert!(mount.read("metrics").contains("claimfs_grants_total 1\n"));

    let busy = [
        other.unlink("claims/.x"),
        other.rmdir("claims/.d"),
        other.mkdir("claims/.d/more"),
        other.open("claims/.x", O_WRONLY).map(drop),
        other.rename("claims/.x", "claims/.y", 0),
        other.link("claims/.x", "claims/y"),
        other.truncate("claims/.x", 0),
    ];
    assert_eq!(busy, [Err(EBUSY); 7]);
    assert_eq!(
        other.symlink("other@host.3:4", "claims/.#lock"),
        Err(EEXIST)
    );
    other.open("claims/.x", O_RDONLY).unwrap();
    me.write(fd, "text").unwrap();
    me.unlink("claims/.x").unwrap();
    assert_eq!(names(&mount.path("claims")), [".#lock", ".d", "x"]);
    assert!(mount.read("metrics").contains("claimfs_releases_total 0\n"));
}

#[test]
fn a_scratch_file_becomes_a_claim_by_link_and_by_rename() {
    let Some(mount) = with_dotfiles() else { return };
    let (mut me, mut other) = (mount.actor(Some("me")), mount.actor(Some("other")));
    let fd = me.open("claims/.t", O_RDWR | O_CREAT | O_EXCL).unwrap();
    me.write(fd, "me\n").unwrap();
    me.link("claims/.t", "claims/x").unwrap();
    assert_eq!(me.stat("claims/x").unwrap()["nlink"], 2);
    assert_eq!(mount.record("x").unwrap()["session"], "me");
    assert_eq!(me.getxattr("claims/.t", "user.claimfs.name").unwrap(), "x");
    me.unlink("claims/.t").unwrap();
    assert_eq!(mount.read("claims/x"), "me\n");

    let mut another = |name: &str| {
        let fd = other.open("claims/.o", O_RDWR | O_CREAT | O_EXCL).unwrap();
        other.close(fd).unwrap();
        let linked = other.link("claims/.o", &format!("claims/{name}"));
        let renamed = other.rename("claims/.o", &format!("claims/{name}"), RENAME_NOREPLACE);
        (linked, renamed)
    };
    assert_eq!(another("x"), (Err(EEXIST), Err(EEXIST)));
    other
        .rename("claims/.o", "claims/y", RENAME_NOREPLACE)
        .unwrap();
    assert_eq!(mount.record("y").unwrap()["session"], "other");
    other.rename("claims/y", "claims/.y", 0).unwrap();
    assert!(mount.record("y").is_none());
    assert_eq!(names(&mount.path("claims")), [".y", "x"]);
}

#[test]
fn a_scratch_file_goes_with_its_session() {
    let Some(mount) = with_dotfiles() else { return };
    let (mut me, mut other) = (mount.actor(Some("me")), mount.actor(Some("other")));
    other.claim(".x").unwrap();
    other.mkdir("claims/.d").unwrap();
    other.kill();
    me.claim(".x").unwrap();
    assert_eq!(names(&mount.path("claims")), [".x"]);
    wait_until("all is swept", || !mount.path("sessions/other").exists());
    assert!(!mount.log().contains("reaped"), "{}", mount.log());
}

#[test]
fn dot_names_follow_the_rule_but_for_the_dot() {
    let Some(mount) = with_dotfiles() else { return };
    let mut me = mount.actor(Some("me"));
    for (name, errno) in [(".a\\b", EINVAL), ("...", EINVAL), ("a\\b", EINVAL)] {
        assert_eq!(me.claim(name), Err(errno), "{name}");
    }
    me.claim(&format!(".{}", "x".repeat(254))).unwrap();
    assert_eq!(
        me.claim(&format!(".{}", "x".repeat(255))),
        Err(ENAMETOOLONG)
    );
    me.claim("..x").unwrap();
    // Where leases are spoken of, there are none of that name.
    let (code, _, _) = text(&mount.claimfs(&["claim", ".y"]).output().unwrap());
    assert_eq!(code, 2);
    let (code, _, _) = text(&mount.claimfs(&["show", "..x"]).output().unwrap());
    assert_eq!(code, 2);
}
