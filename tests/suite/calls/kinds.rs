//! Claims that are directories, symlinks, nodes and further names of a file: each acquires, refuses
//! and releases by the rules that a created file follows.

use std::fs;
use std::os::unix::fs::symlink;

use libc::{EBUSY, EEXIST, EINVAL, EISDIR, ELOOP, ENOENT, ENOTDIR, EPERM, ESTALE};
use libc::{O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_WRONLY, RENAME_EXCHANGE, RENAME_NOREPLACE};
use serde_json::json;

use crate::support::{Actor, Answer, Mount, text};

type Take = fn(&mut Actor, &str) -> Answer<()>;

/// Every call that takes a name, and nothing but the name.
const TAKES: [(&str, Take); 5] = [
    ("create", |actor, name| actor.claim(name)),
    ("mkdir", |actor, name| {
        actor.mkdir(&format!("claims/{name}"))
    }),
    ("symlink", |actor, name| {
        actor.symlink("no/such/target", &format!("claims/{name}"))
    }),
    ("mknod", |actor, name| {
        actor.mknod(&format!("claims/{name}"))
    }),
    ("link", |actor, name| {
        // From a temporary name, as its users do.
        let temporary = format!("claims/tmp-{name}-{}", actor.pid());
        actor.mknod(&temporary)?;
        let linked = actor.link(&temporary, &format!("claims/{name}"));
        actor.unlink(&temporary)?;
        linked
    }),
];

fn release(actor: &mut Actor, name: &str) -> Answer<()> {
    let path = format!("claims/{name}");
    actor.unlink(&path).or_else(|errno| {
        if errno == EISDIR {
            actor.rmdir(&path)
        } else {
            Err(errno)
        }
    })
}

#[test]
fn each_way_to_take_a_name_refuses_whatever_way_it_was_taken() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    for (_, take) in TAKES {
        for (how, again) in TAKES {
            take(&mut me, "x").unwrap();
            let record = mount.record("x").unwrap();
            assert_eq!(record["session"], "me");
            assert_eq!(again(&mut other, "x"), Err(EEXIST), "{how}");
            assert_eq!(again(&mut me, "x"), Err(EEXIST), "{how}, by its own holder");
            assert_eq!(release(&mut other, "x"), Err(EBUSY));
            assert_eq!(mount.record("x").unwrap(), record);
            release(&mut me, "x").unwrap();
            assert!(mount.record("x").is_none());
        }
    }
    assert_eq!(mount.claims(), [""; 0]);
}

#[test]
fn each_way_to_take_a_name_takes_it_from_the_dead() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    for (held, take) in TAKES {
        for (how, again) in TAKES {
            let mut dead = mount.actor(Some("dead"));
            take(&mut dead, "x").unwrap();
            dead.kill();
            again(&mut me, "x").unwrap_or_else(|errno| panic!("{how} after {held}: {errno}"));
            assert_eq!(mount.record("x").unwrap()["session"], "me");
            release(&mut me, "x").unwrap();
        }
    }
}

#[test]
fn a_directory_claim_is_a_directory() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    me.mkdir("claims/d").unwrap();
    let stat = other.stat("claims/d").unwrap();
    assert_eq!(
        (stat["mode"].clone(), stat["nlink"].clone()),
        (json!(libc::S_IFDIR | 0o755), json!(2))
    );
    assert!(
        fs::read_dir(mount.path("claims/d"))
            .unwrap()
            .next()
            .is_none()
    );
    assert_eq!(other.rmdir("claims/d"), Err(EBUSY));
    assert_eq!(other.utimes("claims/d", 1, 1), Err(EBUSY));
    // proper-lockfile's heartbeat.
    me.utimes("claims/d", 5, 4_102_444_800_123_456_789).unwrap();
    assert_eq!(
        other.stat("claims/d").unwrap()["mtime"],
        json!(4_102_444_800_123_456_789_i64)
    );
    assert_eq!(me.unlink("claims/d"), Err(EISDIR));
    assert_eq!(me.open("claims/d", O_WRONLY), Err(EISDIR));
    assert_eq!(me.open("claims/d", O_WRONLY | O_CREAT), Err(EISDIR));
    assert_eq!(me.open("claims/d/x", O_RDONLY), Err(ENOENT));
    assert_eq!(me.link("claims/d", "claims/e"), Err(EPERM));
    me.claim("f").unwrap();
    assert_eq!(me.rmdir("claims/f"), Err(ENOTDIR));
    assert_eq!(me.rename("claims/f", "claims/d", 0), Err(EISDIR));
    assert_eq!(me.rename("claims/d", "claims/f", 0), Err(ENOTDIR));
    me.rename("claims/d", "claims/e", 0).unwrap();
    me.rmdir("claims/e").unwrap();
    assert_eq!(
        me.mkdir("claims"),
        Err(EEXIST),
        "filelock and fasteners make sure of the directory itself"
    );
}

#[test]
fn a_symlink_claim_is_read_verbatim_and_never_followed() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    for target in [
        "no/such/target",
        "user@host.4242:1700000000",
        "/etc/hostname",
        "ü \n",
        "x",
    ] {
        me.symlink(target, "claims/s").unwrap();
        assert_eq!(
            fs::read_link(mount.path("claims/s"))
                .unwrap()
                .to_str()
                .unwrap(),
            target
        );
        let stat = other.stat("claims/s").unwrap();
        assert_eq!(
            (stat["mode"].clone(), stat["size"].clone()),
            (json!(libc::S_IFLNK | 0o777), json!(target.len()))
        );
        if crate::support::is_root() {
            assert_eq!(other.open("claims/s", O_RDONLY), Err(ELOOP));
            assert_eq!(other.open("claims/s", O_WRONLY | O_CREAT), Err(ELOOP));
        }
        assert_eq!(
            other.open("claims/s", O_WRONLY | O_CREAT | O_EXCL),
            Err(EEXIST)
        );
        assert!(symlink("elsewhere", mount.path("claims/s")).is_err());
        assert_eq!(other.unlink("claims/s"), Err(EBUSY));
        me.unlink("claims/s").unwrap();
    }
}

#[test]
fn a_further_name_is_a_lease_of_its_own_on_the_same_file() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    let fd = me.open("claims/a", O_RDWR | O_CREAT | O_EXCL).unwrap();
    me.link("claims/a", "claims/b").unwrap();
    // Exact at once under both names, as liblockfile, procmail and shlock compare them.
    let (a, b, open) = (
        me.stat("claims/a").unwrap(),
        other.stat("claims/b").unwrap(),
        me.fstat(fd).unwrap(),
    );
    assert_eq!((&a, &a), (&b, &open));
    assert_eq!(a["nlink"], 2);
    let token = |name: &str| mount.record(name).unwrap()["token"].as_u64().unwrap();
    assert!(token("b") > token("a"));
    me.write(fd, "body").unwrap();
    assert_eq!(mount.read("claims/b"), "body");
    assert_eq!(other.link("claims/a", "claims/c"), Err(EBUSY));
    assert_eq!(other.unlink("claims/b"), Err(EBUSY));
    other.claim("theirs").unwrap();
    assert_eq!(me.link("claims/a", "claims/theirs"), Err(EEXIST));
    assert_eq!(me.link("claims/none", "claims/c"), Err(ENOENT));
    assert_eq!(me.link("README", "claims/c"), Err(EPERM));
    assert_eq!(me.link("claims/a", "sessions/c"), Err(EPERM));
    assert_eq!(me.link("claims/a", "claims/.c"), Err(EINVAL));
    // rename(2) onto another name of the same file does nothing.
    me.rename("claims/a", "claims/b", 0).unwrap();
    assert_eq!(me.stat("claims/a").unwrap()["nlink"], 2);
    me.unlink("claims/a").unwrap();
    assert_eq!(me.fstat(fd).unwrap()["nlink"], 1);
    assert_eq!(other.claim("a"), Ok(()));
    assert_eq!(mount.read("claims/b"), "body");
    me.unlink("claims/b").unwrap();
    assert_eq!(me.fstat(fd).unwrap()["nlink"], 0);
    assert_eq!(me.pread(fd, 9, 0).unwrap(), "body");
}

#[test]
fn all_names_of_a_dead_holders_file_are_free() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    other.claim("a").unwrap();
    other.link("claims/a", "claims/b").unwrap();
    let look = me.open("claims/b", O_RDONLY).unwrap();
    other.kill();
    me.claim("b").unwrap();
    assert_eq!(me.pread(look, 9, 0), Err(ESTALE));
    assert_eq!(mount.claims(), ["b"]);
    me.claim("a").unwrap();
    assert_eq!(me.stat("claims/a").unwrap()["nlink"], 1);
}

#[test]
fn exchange_swaps_two_of_ones_own_and_nothing_else() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    let body = |actor: &mut Actor, name: &str, text: &str| {
        let fd = actor
            .open(&format!("claims/{name}"), O_WRONLY | O_CREAT | O_EXCL)
            .unwrap();
        actor.write(fd, text).unwrap();
    };
    body(&mut me, "a", "first");
    body(&mut me, "b", "second");
    body(&mut other, "theirs", "third");
    let before = (
        mount.record("a").unwrap()["token"].as_u64(),
        mount.record("b").unwrap()["token"].as_u64(),
    );
    me.rename("claims/a", "claims/b", RENAME_EXCHANGE).unwrap();
    assert_eq!(
        (mount.read("claims/a"), mount.read("claims/b")),
        ("second".into(), "first".into())
    );
    let after = (
        mount.record("a").unwrap()["token"].as_u64(),
        mount.record("b").unwrap()["token"].as_u64(),
    );
    assert!(
        after.0 > before.1 && after.1 > before.1,
        "both are granted anew: {before:?} {after:?}"
    );
    let leases = mount.read("leases");
    assert_eq!(
        me.rename("claims/a", "claims/theirs", RENAME_EXCHANGE),
        Err(EBUSY)
    );
    assert_eq!(
        me.rename("claims/theirs", "claims/a", RENAME_EXCHANGE),
        Err(EBUSY)
    );
    assert_eq!(
        me.rename("claims/a", "claims/none", RENAME_EXCHANGE),
        Err(ENOENT)
    );
    assert_eq!(
        me.rename("claims/a", "claims/b", RENAME_EXCHANGE | RENAME_NOREPLACE),
        Err(EINVAL)
    );
    assert_eq!(mount.read("leases"), leases);
    // A directory and a file change places too.
    me.mkdir("claims/d").unwrap();
    me.rename("claims/a", "claims/d", RENAME_EXCHANGE).unwrap();
    assert_eq!(mount.read("claims/d"), "second");
    me.rmdir("claims/a").unwrap();
}

#[test]
fn the_limit_counts_every_name() {
    let Some(mount) = Mount::with(&["--max-leases", "2"]) else {
        return;
    };
    let mut me = mount.actor(Some("me"));
    me.mkdir("claims/d").unwrap();
    me.claim("a").unwrap();
    assert_eq!(me.link("claims/a", "claims/b"), Err(libc::ENOSPC));
    assert_eq!(me.symlink("t", "claims/s"), Err(libc::ENOSPC));
    me.rename("claims/a", "claims/b", 0).unwrap();
    me.rename("claims/b", "claims/d", RENAME_EXCHANGE).unwrap();
}

#[test]
fn a_name_that_was_made_for_a_kernel_lock_alone_goes_when_it_is_closed() {
    let Some((mount, mut me, _)) = Mount::with_two() else {
        return;
    };
    me.claim("anchor").unwrap();
    // In a session that lives on, which would hold what the script leaves.
    let left = |script: &str| {
        let mut command = mount.sh(script);
        let (_, out, err) = text(&command.env("CLAIMFS_SESSION", "me").output().unwrap());
        assert!(err.contains("not supported"), "{script}: {out}{err}");
        let mut left = mount.claims();
        left.retain(|name| name != "anchor");
        left
    };
    let python = |body: &str| left(&format!("python3 -c \"\nimport fcntl, os\n{body}\n\""));
    let none: [&str; 0] = [];
    // As flock(1) and others do: they make the file, and the lock says everything.
    assert_eq!(left("flock -n claims/x true"), none);
    let open = "f = os.open('claims/x', os.O_CREAT | os.O_RDWR)";
    for lock in [
        "flock(f, fcntl.LOCK_EX)",
        "lockf(f, fcntl.LOCK_EX)",
        "lockf(f, fcntl.LOCK_SH, 1)",
    ] {
        assert_eq!(python(&format!("{open}\nfcntl.{lock}")), none, "{lock}");
    }
    // Where several descriptors may write to it, with the last of them.
    let again = "os.close(os.open('claims/x', os.O_RDWR))";
    let refused = "try: fcntl.flock(f, fcntl.LOCK_EX)\nexcept OSError: pass";
    let there = "assert os.path.exists('claims/x')\nfcntl.flock(f, fcntl.LOCK_EX)";
    assert_eq!(
        python(&format!("{open}\n{again}\n{refused}\n{again}\n{there}")),
        none
    );
    // A file that was written to, has another name or was there before is an ordinary claim.
    let lock = "fcntl.flock(f, fcntl.LOCK_EX)";
    assert_eq!(python(&format!("{open}\nos.write(f, b'1')\n{lock}")), ["x"]);
    assert_eq!(python(&format!("{open}\n{lock}")), ["x"], "it was there");
    me.unlink("claims/x").unwrap();
    let link = "os.link('claims/x', 'claims/y')";
    assert_eq!(python(&format!("{open}\n{link}\n{lock}")), ["x", "y"]);
}
