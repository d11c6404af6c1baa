//! Files in `claims/`, and the fixed files of the mount, with raw system calls: contents, times,
//! attributes, names, renames, and descriptors that outlive a lease. `me` and `other` are two
//! sessions. The errno of each call is in `table.rs`.

use libc::{
    EBUSY, EEXIST, EFBIG, EINVAL, EISDIR, ENAMETOOLONG, ENODATA, ENOENT, ENOSPC, ENOTTY,
    EOPNOTSUPP, EPERM, ESTALE, O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_WRONLY,
    RENAME_NOREPLACE,
};
use serde_json::{Value, json};

use crate::support::Mount;

const BODY_MAX: usize = 64 * 1024;

#[test]
fn anybody_may_look() {
    let Some((_mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    let fd = me.open("claims/x", O_WRONLY | O_CREAT | O_EXCL).unwrap();
    me.write(fd, "hello").unwrap();
    let fd = other.open("claims/x", O_RDONLY).unwrap();
    assert_eq!(other.pread(fd, 100, 0).unwrap(), "hello");
    assert_eq!(other.pread(fd, 3, 1).unwrap(), "ell");
    assert_eq!(other.pread(fd, 100, 5).unwrap(), "");
    let stat = other.stat("claims/x").unwrap();
    assert_eq!(
        (stat["size"].clone(), stat["nlink"].clone()),
        (json!(5), json!(1))
    );
    assert_eq!(stat["mode"], json!(libc::S_IFREG | 0o644));
}

#[test]
fn a_holder_changes_size_mode_and_attributes() {
    let Some((_mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    let fd = me.open("claims/x", O_RDWR | O_CREAT | O_EXCL).unwrap();
    me.write(fd, "body").unwrap();
    me.ftruncate(fd, 2).unwrap();
    assert_eq!(me.pread(fd, 9, 0).unwrap(), "bo");
    me.truncate("claims/x", 4).unwrap();
    assert_eq!(me.pread(fd, 9, 0).unwrap(), "bo\0\0");
    me.chmod("claims/x", 0o600).unwrap();
    assert_eq!(
        me.stat("claims/x").unwrap()["mode"],
        json!(libc::S_IFREG | 0o600)
    );
    me.fsync(fd).unwrap();
    me.setxattr("claims/x", "user.note", "mine", 0).unwrap();
    assert_eq!(other.getxattr("claims/x", "user.note").unwrap(), "mine");
    me.call(
        "removexattr",
        json!({ "path": "claims/x", "name": "user.note" }),
    )
    .unwrap();
    assert_eq!(other.getxattr("claims/x", "user.note"), Err(ENODATA));
}

#[test]
fn a_write_through_a_descriptor_that_another_session_got_is_refused() {
    let Some((mount, mut me, _)) = Mount::with_two() else {
        return;
    };
    // The descriptor is inherited over an exec into another session.
    let fd = me.open("claims/x", O_RDWR | O_CREAT | O_EXCL).unwrap();
    me.write(fd, "body").unwrap();
    me.call("exec", json!({ "session": "third" })).unwrap();
    assert_eq!(me.write(fd, "gone"), Err(EBUSY));
    assert_eq!(me.ftruncate(fd, 0), Err(EBUSY));
    assert_eq!(mount.read("claims/x"), "body");
}

#[test]
fn times_are_kept_as_set_and_moved_by_nothing_but_writes() {
    let Some((_mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    let fd = me.open("claims/x", O_RDWR | O_CREAT | O_EXCL).unwrap();
    let future = 4_102_444_800_123_456_789;
    me.utimes("claims/x", 1_000_000_001, future).unwrap();
    let look = other.open("claims/x", O_RDONLY).unwrap();
    other.pread(look, 10, 0).unwrap();
    me.chmod("claims/x", 0o640).unwrap();
    let stat = me.fstat(fd).unwrap();
    assert_eq!(
        (stat["atime"].clone(), stat["mtime"].clone()),
        (json!(1_000_000_001), json!(future))
    );
    me.write(fd, "x").unwrap();
    let stat = me.fstat(fd).unwrap();
    assert_eq!(stat["atime"], 1_000_000_001);
    assert!(stat["mtime"].as_i64().unwrap() < future);
}

#[test]
fn writes_land_where_they_are_put() {
    let Some((mount, mut me, _)) = Mount::with_two() else {
        return;
    };
    let fd = me.open("claims/x", O_RDWR | O_CREAT | O_EXCL).unwrap();
    assert_eq!(me.write(fd, "abc").unwrap(), 3);
    assert_eq!(me.write(fd, "def").unwrap(), 3);
    assert_eq!(me.pwrite(fd, "X", 1).unwrap(), 1);
    assert_eq!(me.pwrite(fd, "Z", 8).unwrap(), 1);
    assert_eq!(mount.read("claims/x"), "aXcdef\0\0Z");
    let append = me.open("claims/x", O_WRONLY | O_APPEND).unwrap();
    me.write(append, "1").unwrap();
    me.write(fd, "4").unwrap();
    me.write(append, "2").unwrap();
    assert_eq!(mount.read("claims/x"), "aXcdef4\0Z12");
}

#[test]
fn a_body_has_at_most_64_kib() {
    let Some((_mount, mut me, _)) = Mount::with_two() else {
        return;
    };
    let fd = me.open("claims/x", O_RDWR | O_CREAT | O_EXCL).unwrap();
    let full = "x".repeat(BODY_MAX);
    assert_eq!(me.write(fd, &full).unwrap(), BODY_MAX as i64);
    assert_eq!(me.pread(fd, BODY_MAX + 1, 0).unwrap(), full);
    assert_eq!(me.write(fd, "y"), Err(EFBIG));
    assert_eq!(me.pwrite(fd, "yy", BODY_MAX as i64 - 1), Err(EFBIG));
    assert_eq!(me.ftruncate(fd, BODY_MAX as i64 + 1), Err(EFBIG));
    assert_eq!(me.pwrite(fd, "y", i64::from(u32::MAX)), Err(EFBIG));
    assert_eq!(me.fstat(fd).unwrap()["size"], BODY_MAX);
    assert_eq!(me.pread(fd, 2, BODY_MAX as i64 - 2).unwrap(), "xx");
    me.ftruncate(fd, 0).unwrap();
    assert_eq!(me.pwrite(fd, &"z".repeat(BODY_MAX + 1), 0), Err(EFBIG));
    assert_eq!(me.fstat(fd).unwrap()["size"], 0);
    me.ftruncate(fd, BODY_MAX as i64).unwrap();
}

#[test]
fn a_table_has_at_most_as_many_leases_as_it_was_told() {
    let Some(mount) = Mount::with(&["--max-leases", "3"]) else {
        return;
    };
    let mut me = mount.actor(Some("me"));
    let mut other = mount.actor(Some("other"));
    for name in ["a", "b", "c"] {
        me.claim(name).unwrap();
    }
    assert_eq!(me.claim("d"), Err(ENOSPC));
    assert_eq!(other.claim("d"), Err(ENOSPC));
    assert_eq!(mount.claims(), ["a", "b", "c"]);
    assert!(
        !mount.path("sessions/other").exists(),
        "a refused claim starts no session"
    );
    me.rename("claims/a", "claims/d", 0).unwrap();
    me.unlink("claims/d").unwrap();
    other.claim("e").unwrap();
    // A holder's death makes room at once.
    me.kill();
    for name in ["f", "g"] {
        other.claim(name).unwrap();
    }
    assert_eq!(other.claim("h"), Err(ENOSPC));
}

#[test]
fn a_blank_body_reads_as_the_record_and_any_other_as_written() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    let fd = me.open("claims/x", O_RDWR | O_CREAT | O_EXCL).unwrap();
    for blank in ["", "\n", " \t\r\n"] {
        me.ftruncate(fd, 0).unwrap();
        me.pwrite(fd, blank, 0).unwrap();
        let text = mount.read("claims/x");
        let record: Value = serde_json::from_str(&text).unwrap();
        assert!(
            text.ends_with("}\n") && text.lines().count() == 1,
            "{text:?}"
        );
        assert_eq!(record["name"], "x");
        assert_eq!(record["session"], "me");
        assert_eq!(record["pid"], me.pid());
        assert_eq!(record["uid"], unsafe { libc::geteuid() });
        assert!(record["token"].as_u64().unwrap() > 0);
        assert!(record["acquired_at"].as_str().unwrap().ends_with('Z'));
        assert_eq!(mount.record("x").unwrap(), record, "the same in leases");
        assert_eq!(
            me.fstat(fd).unwrap()["size"],
            blank.len(),
            "st_size is the written size"
        );
        // In pieces, as a small buffer reads it.
        let look = other.open("claims/x", O_RDONLY).unwrap();
        let (head, tail) = (
            other.pread(look, 10, 0).unwrap(),
            other.pread(look, 4096, 10).unwrap(),
        );
        assert_eq!(format!("{head}{tail}"), text);
    }
    for body in ["0", " x ", "\0", "{}\n"] {
        me.ftruncate(fd, 0).unwrap();
        me.pwrite(fd, body, 0).unwrap();
        assert_eq!(mount.read("claims/x"), body);
    }
}

#[test]
fn the_record_is_also_extended_attributes() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    me.claim("x").unwrap();
    let record = mount.record("x").unwrap();
    for (key, value) in record.as_object().unwrap() {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        assert_eq!(
            other
                .getxattr("claims/x", &format!("user.claimfs.{key}"))
                .unwrap(),
            text
        );
    }
    let list = other
        .call("listxattr", json!({ "path": "claims/x" }))
        .unwrap();
    assert_eq!(
        list.as_str().unwrap().split_terminator('\0').count(),
        record.as_object().unwrap().len()
    );
    assert_eq!(
        other.getxattr("claims/x", "user.claimfs.nonsense"),
        Err(ENODATA)
    );
    assert_eq!(
        other.getxattr("claims/x", "security.selinux"),
        Err(EOPNOTSUPP)
    );
    assert_eq!(
        me.setxattr("claims/x", "trusted.a", "b", 0),
        Err(EOPNOTSUPP)
    );
    assert_eq!(
        me.setxattr("claims/x", "user.claimfs.name", "other", 0),
        Err(EPERM)
    );
    assert_eq!(
        other.setxattr("claims/x", "user.claimfs.session", "other", 0),
        Err(EBUSY)
    );
    me.setxattr("claims/x", "user.a", "b", libc::XATTR_CREATE)
        .unwrap();
    assert_eq!(
        me.setxattr("claims/x", "user.a", "c", libc::XATTR_CREATE),
        Err(EEXIST)
    );
    assert_eq!(
        me.setxattr("claims/x", "user.b", "c", libc::XATTR_REPLACE),
        Err(ENODATA)
    );
    // At the edge: names and values together have 4096 bytes.
    me.setxattr(
        "claims/x",
        "user.z",
        &"v".repeat(4096 - "user.ab".len() - "user.z".len()),
        0,
    )
    .unwrap();
    assert_eq!(me.setxattr("claims/x", "user.y", "", 0), Err(ENOSPC));
}

#[test]
fn names_follow_the_rule() {
    let Some((mount, mut me, _)) = Mount::with_two() else {
        return;
    };
    for name in [".hidden", "a\\b", "..x"] {
        assert_eq!(me.claim(name), Err(EINVAL), "{name:?}");
        assert_eq!(
            me.stat(&format!("claims/{name}")),
            Err(ENOENT),
            "to look at it is no error"
        );
    }
    assert_eq!(me.claim(&"n".repeat(256)), Err(ENAMETOOLONG));
    assert_eq!(me.rename("claims/x", "claims/.y", 0), Err(ENOENT));
    assert_eq!(me.claim(""), Err(EISDIR));
    assert_eq!(me.claim(".."), Err(EEXIST), "that is the directory above");
    assert_eq!(mount.claims(), [""; 0]);
    let raw = std::ffi::CString::new(b"claims/\xff".to_vec()).unwrap();
    let full = std::ffi::CString::new(
        [mount.dir.to_str().unwrap().as_bytes(), b"/", raw.as_bytes()].concat(),
    )
    .unwrap();
    let fd = unsafe { libc::open(full.as_ptr(), O_CREAT | O_EXCL | O_WRONLY, 0o600) };
    assert_eq!(
        (fd, std::io::Error::last_os_error().raw_os_error()),
        (-1, Some(EINVAL))
    );
    let longest = "ñ".repeat(127) + "n";
    for name in [
        "a b",
        "a,b|c:d@e",
        "…",
        "-",
        "x.lock",
        longest.as_str(),
        "new\nline",
        "\u{1b}[31m",
    ] {
        me.claim(name).unwrap();
        assert_eq!(mount.record(name).unwrap()["name"], name);
        assert_eq!(
            me.rename(&format!("claims/{name}"), "claims/.y", 0),
            Err(EINVAL)
        );
        me.unlink(&format!("claims/{name}")).unwrap();
    }
}

#[test]
fn tokens_rise_and_inode_numbers_are_never_used_again() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    let (mut token, mut inodes) = (0, Vec::new());
    for round in 0..50 {
        let actor = if round % 2 == 0 { &mut me } else { &mut other };
        actor.claim("x").unwrap();
        let next = mount.record("x").unwrap()["token"].as_u64().unwrap();
        assert!(next > token);
        token = next;
        let ino = actor.stat("claims/x").unwrap()["ino"].as_u64().unwrap();
        assert!(!inodes.contains(&ino));
        inodes.push(ino);
        actor.unlink("claims/x").unwrap();
    }
}

#[test]
fn rename_takes_a_free_name_and_gives_up_the_old_one() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    for flags in [0, RENAME_NOREPLACE] {
        let fd = me.open("claims/a", O_RDWR | O_CREAT | O_EXCL).unwrap();
        me.write(fd, "body").unwrap();
        let before = (
            mount.record("a").unwrap(),
            me.stat("claims/a").unwrap()["ino"].clone(),
        );
        me.rename("claims/a", "claims/b", flags).unwrap();
        assert_eq!(mount.claims(), ["b"]);
        assert_eq!(mount.read("claims/b"), "body");
        assert_eq!(
            me.stat("claims/b").unwrap()["ino"],
            before.1,
            "the inode goes along"
        );
        assert!(
            mount.record("b").unwrap()["token"].as_u64() > before.0["token"].as_u64(),
            "a grant has a new token"
        );
        assert_eq!(me.pwrite(fd, "still", 0).unwrap(), 5);
        other.claim("a").unwrap();
        other.unlink("claims/a").unwrap();
        me.unlink("claims/b").unwrap();
    }
}

#[test]
fn rename_onto_ones_own_replaces_it() {
    let Some((mount, mut me, _)) = Mount::with_two() else {
        return;
    };
    let old = me.open("claims/b", O_RDWR | O_CREAT | O_EXCL).unwrap();
    me.write(old, "old").unwrap();
    let fd = me.open("claims/a", O_RDWR | O_CREAT | O_EXCL).unwrap();
    me.write(fd, "new").unwrap();
    assert_eq!(
        me.rename("claims/a", "claims/b", RENAME_NOREPLACE),
        Err(EEXIST)
    );
    me.rename("claims/a", "claims/b", 0).unwrap();
    assert_eq!(mount.claims(), ["b"]);
    assert_eq!(mount.read("claims/b"), "new");
    // The descriptor of the replaced file goes on as on any filesystem.
    assert_eq!(me.pread(old, 9, 0).unwrap(), "old");
    assert_eq!(me.pwrite(old, "!", 3).unwrap(), 1);
    assert_eq!(me.fstat(old).unwrap()["nlink"], 0);
    me.rename("claims/b", "claims/b", 0).unwrap();
    assert_eq!(mount.claims(), ["b"]);
}

#[test]
fn rename_leads_neither_into_sessions_nor_out_of_it() {
    let Some((mount, mut me, _)) = Mount::with_two() else {
        return;
    };
    me.claim("mine").unwrap();
    let before = mount.read("leases");
    assert_eq!(me.rename("claims/mine", "sessions/mine", 0), Err(EPERM));
    assert_eq!(me.rename("sessions/me", "claims/me", 0), Err(EPERM));
    assert_eq!(mount.read("leases"), before);
}

#[test]
fn after_its_own_unlink_a_descriptor_behaves_as_on_tmpfs() {
    let Some((_mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    let fd = me.open("claims/x", O_RDWR | O_CREAT | O_EXCL).unwrap();
    me.write(fd, "body").unwrap();
    me.unlink("claims/x").unwrap();
    other.claim("x").unwrap();
    assert_eq!(me.pread(fd, 9, 0).unwrap(), "body");
    assert_eq!(me.pwrite(fd, "B", 0).unwrap(), 1);
    me.ftruncate(fd, 2).unwrap();
    me.fsync(fd).unwrap();
    let stat = me.fstat(fd).unwrap();
    assert_eq!(
        (stat["nlink"].clone(), stat["size"].clone()),
        (json!(0), json!(2))
    );
    // A blank body without a name has no record to read as.
    me.ftruncate(fd, 0).unwrap();
    assert_eq!(me.pread(fd, 9, 0).unwrap(), "");
    me.close(fd).unwrap();
}

#[test]
fn a_descriptor_of_a_lost_lease_answers_estale() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    let fd = other.open("claims/x", O_RDWR | O_CREAT | O_EXCL).unwrap();
    other.write(fd, "body").unwrap();
    let look = me.open("claims/x", O_RDONLY).unwrap();
    // The holder's session is ended, and the holder lives on.
    mount.end_session("other");
    assert_eq!(other.pwrite(fd, "late", 0), Err(ESTALE));
    assert_eq!(other.pread(fd, 9, 0), Err(ESTALE));
    assert_eq!(other.ftruncate(fd, 0), Err(ESTALE));
    assert_eq!(other.fsync(fd), Err(ESTALE));
    assert_eq!(other.fstat(fd), Err(ESTALE));
    assert_eq!(me.pread(look, 9, 0), Err(ESTALE));
    other.close(fd).unwrap();
    me.claim("x").unwrap();
    assert_eq!(
        me.pread(look, 9, 0),
        Err(ESTALE),
        "also when the name is held again"
    );
}

#[test]
fn a_descriptor_of_a_dead_holder_answers_estale() {
    let Some((_mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    let fd = other.open("claims/x", O_RDWR | O_CREAT | O_EXCL).unwrap();
    other.write(fd, "body").unwrap();
    let look = me.open("claims/x", O_RDONLY).unwrap();
    other.kill();
    assert_eq!(me.pread(look, 9, 0), Err(ESTALE));
}

#[test]
fn the_fixed_files_are_what_they_are() {
    let Some((mount, mut me, _)) = Mount::with_two() else {
        return;
    };
    assert_eq!(
        crate::support::names(&mount.dir),
        [
            "README", "claims", "control", "history", "leases", "metrics", "paths", "queue",
            "self", "sessions", "waiters"
        ]
    );
    for (name, mode) in [("claims", 0o1777), ("sessions", 0o1777), (".", 0o555)] {
        assert_eq!(me.stat(name).unwrap()["mode"], json!(libc::S_IFDIR | mode));
    }
    for name in ["README", "leases", "metrics", "self"] {
        assert_eq!(me.stat(name).unwrap()["size"], 0);
        assert!(!mount.read(name).is_empty());
        // Read in full in pieces of any size, as one snapshot.
        let fd = me.open(name, O_RDONLY).unwrap();
        let (head, tail) = (
            me.pread(fd, 7, 0).unwrap(),
            me.pread(fd, 1 << 17, 7).unwrap(),
        );
        assert_eq!(head.len(), 7);
        assert!(tail.ends_with('\n'));
    }
    assert!(me.unlink("README").is_err() && me.unlink("claims").is_err());
    assert!(me.open("new", O_CREAT | O_WRONLY).is_err());
    assert_eq!(me.open("claims", O_WRONLY), Err(EISDIR));
    let control = me.open("control", O_WRONLY).unwrap();
    assert_eq!(me.write(control, "nonsense\n"), Err(EINVAL));
    assert_eq!(me.write(control, "{\"nothing\":1}\n"), Err(EINVAL));
}

#[test]
fn what_is_not_a_file_is_refused() {
    let Some((mount, mut me, _)) = Mount::with_two() else {
        return;
    };
    for kind in [libc::S_IFIFO, libc::S_IFSOCK, libc::S_IFCHR] {
        let made = me.call("mknod", json!({ "path": "claims/x", "mode": kind | 0o600 }));
        assert_eq!(made.map(|_| ()), Err(EPERM));
    }
    let fd = me.open("claims/x", O_RDWR | O_CREAT | O_EXCL).unwrap();
    assert_eq!(
        me.call("isatty", json!({ "fd": fd })).map(|_| ()),
        Err(ENOTTY)
    );
    assert_eq!(
        me.call("flock", json!({ "fd": fd, "operation": libc::LOCK_EX }))
            .map(|_| ()),
        Err(EOPNOTSUPP)
    );
    assert_eq!(
        me.call(
            "chown",
            json!({ "path": "claims/x", "uid": 4242, "gid": 4242 })
        )
        .map(|_| ()),
        Err(EPERM)
    );
    let locks = json!({ "fd": fd, "operation": libc::LOCK_SH | libc::LOCK_NB });
    assert_eq!(me.call("flock", locks).map(|_| ()), Err(EOPNOTSUPP));
    assert_eq!(
        me.call("setlk", json!({ "fd": fd })).map(|_| ()),
        Err(EOPNOTSUPP)
    );
    let said = mount
        .log()
        .matches("a flock or fcntl lock was refused")
        .count();
    assert_eq!(said, 1, "the log says why, once");
    assert_eq!(mount.claims(), ["x"]);
}

#[test]
fn fallocate_sets_the_size_and_nothing_aside() {
    let Some((_mount, mut me, _)) = Mount::with_two() else {
        return;
    };
    let fd = me.open("claims/x", O_RDWR | O_CREAT | O_EXCL).unwrap();
    me.write(fd, "body").unwrap();
    let mut allocate = |mode: i32, offset: i64, length: i64| {
        let arguments = json!({ "fd": fd, "mode": mode, "offset": offset, "length": length });
        let allocated = me.call("fallocate", arguments).map(|_| ());
        allocated.map(|()| me.fstat(fd).unwrap()["size"].as_i64().unwrap())
    };
    let full = BODY_MAX as i64;
    assert_eq!(allocate(0, 0, 2), Ok(4));
    assert_eq!(allocate(0, 2, 6), Ok(8));
    assert_eq!(allocate(libc::FALLOC_FL_KEEP_SIZE, 0, full), Ok(8));
    assert_eq!(allocate(libc::FALLOC_FL_KEEP_SIZE, 1, full), Err(EFBIG));
    assert_eq!(allocate(0, 1, full), Err(EFBIG));
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    assert_eq!(allocate(punch, 0, 2), Err(EOPNOTSUPP));
    assert_eq!(allocate(0, 0, full), Ok(full));
    assert_eq!(me.pread(fd, 8, 0).unwrap(), "body\0\0\0\0");
}
