//! The table "What each call does" of the manual: each call on a name that is free, stale, held by
//! the caller, and held by another session. A refusal changes nothing.

use libc::{
    EBUSY, EEXIST, ENOENT, O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY,
    RENAME_EXCHANGE, RENAME_NOREPLACE,
};
use serde_json::{Value, json};

use crate::support::{Actor, Answer, Mount};

use Call::{
    Chmod, Exchange, Getxattr, LinkFrom, LinkTo, Mkdir, Mknod, Open, Readdir, Readlink,
    Removexattr, RenameAway, RenameOnto, RenameOverMine, Rmdir, Setxattr, Stat, Symlink, Truncate,
    Unlink, Utimes,
};
use Outcome::{Emptied, Granted, Linked, Moved, Refused, Released, Replaced, Unchanged};
use Shape::{Directory, File, Link};

/// A call on `claims/x`. The caller also holds `claims/mine`, which some calls are about.
#[derive(Clone, Copy, Debug)]
enum Call {
    /// open(2) with these flags.
    Open(i32),
    Mkdir,
    Symlink,
    Mknod,
    /// link(2) of `mine` to `x`.
    LinkTo,
    /// Of `x` to `y`.
    LinkFrom,
    /// renameat2(2) of `mine` to `x`, with these flags.
    RenameOnto(u32),
    /// Of `x` to `y`, with these flags.
    RenameAway(u32),
    /// Of `x` to `mine`.
    RenameOverMine,
    Exchange,
    Stat,
    Getxattr,
    Readdir,
    Readlink,
    Truncate,
    Chmod,
    Utimes,
    Setxattr,
    Removexattr,
    Unlink,
    Rmdir,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// The caller holds `x` by a new grant.
    Granted,
    /// The call succeeds, and every lease is as it was.
    Unchanged,
    /// The same, and the file is empty.
    Emptied,
    /// `x` is the file that was `mine`.
    Replaced,
    /// `x` is free, and its file has another name.
    Moved,
    /// `x` is as it was, and `y` is a name of it.
    Linked,
    /// `x` is free, and another session can claim it.
    Released,
    /// An errno, and nothing has changed.
    Refused(i32),
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    File,
    Directory,
    Link,
}

/// What `x` is where it is held, the call, and what comes of it: on a name that is free or stale,
/// on one that the caller holds, and on one that another session holds.
type Row = (Shape, Call, Outcome, Outcome, Outcome);

const EXCLUSIVE: i32 = O_CREAT | O_EXCL;
const NONE: Outcome = Refused(ENOENT);
const BUSY: Outcome = Refused(EBUSY);
const EXISTS: Outcome = Refused(EEXIST);

const TABLE: [Row; 43] = [
    // Calls that take a name. `Open` with `EXCLUSIVE` is below.
    (File, Mkdir, Granted, EXISTS, EXISTS),
    (File, Symlink, Granted, EXISTS, EXISTS),
    (File, Mknod, Granted, EXISTS, EXISTS),
    (File, LinkTo, Granted, EXISTS, EXISTS),
    (File, RenameOnto(RENAME_NOREPLACE), Granted, EXISTS, EXISTS),
    (Directory, Mkdir, Granted, EXISTS, EXISTS),
    (Link, Symlink, Granted, EXISTS, EXISTS),
    // Opens for writing that take a name, or are an idempotent re-claim.
    (File, Open(O_WRONLY | O_CREAT), Granted, Unchanged, BUSY),
    (File, Open(O_RDWR | O_CREAT), Granted, Unchanged, BUSY),
    (
        File,
        Open(O_WRONLY | O_CREAT | O_TRUNC),
        Granted,
        Emptied,
        BUSY,
    ),
    (File, Open(O_WRONLY | O_TRUNC), NONE, Emptied, BUSY),
    (File, Open(O_RDWR | O_TRUNC), NONE, Emptied, BUSY),
    (File, Open(O_RDONLY | O_TRUNC), NONE, Emptied, BUSY),
    (File, RenameOnto(0), Granted, Replaced, BUSY),
    (File, Exchange, NONE, Replaced, BUSY),
    // Anybody may look. The kernel drops O_CREAT where the name exists.
    (File, Open(O_RDONLY), NONE, Unchanged, Unchanged),
    (
        File,
        Open(O_RDONLY | O_CREAT),
        Granted,
        Unchanged,
        Unchanged,
    ),
    (File, Stat, NONE, Unchanged, Unchanged),
    (Directory, Stat, NONE, Unchanged, Unchanged),
    (Link, Stat, NONE, Unchanged, Unchanged),
    (File, Getxattr, NONE, Unchanged, Unchanged),
    (Directory, Getxattr, NONE, Unchanged, Unchanged),
    (Directory, Readdir, NONE, Unchanged, Unchanged),
    (Link, Readlink, NONE, Unchanged, Unchanged),
    // Opens for writing that take nothing.
    (File, Open(O_WRONLY), NONE, Unchanged, BUSY),
    (File, Open(O_RDWR), NONE, Unchanged, BUSY),
    (File, Open(O_WRONLY | O_APPEND), NONE, Unchanged, BUSY),
    // Changes.
    (File, Truncate, NONE, Emptied, BUSY),
    (File, Chmod, NONE, Unchanged, BUSY),
    (File, Utimes, NONE, Unchanged, BUSY),
    (File, Setxattr, NONE, Unchanged, BUSY),
    (File, Removexattr, NONE, Unchanged, BUSY),
    (Directory, Chmod, NONE, Unchanged, BUSY),
    (Directory, Utimes, NONE, Unchanged, BUSY),
    (File, RenameAway(0), NONE, Moved, BUSY),
    (File, RenameAway(RENAME_NOREPLACE), NONE, Moved, BUSY),
    (Directory, RenameAway(0), NONE, Moved, BUSY),
    (File, RenameOverMine, NONE, Moved, BUSY),
    (File, LinkFrom, NONE, Linked, BUSY),
    // Releases.
    (File, Unlink, NONE, Released, BUSY),
    (Link, Unlink, NONE, Released, BUSY),
    (Directory, Rmdir, NONE, Released, BUSY),
    (Link, RenameAway(0), NONE, Moved, BUSY),
];

fn exclusive_opens() -> impl Iterator<Item = Row> {
    let more = [
        0,
        O_TRUNC,
        libc::O_NOFOLLOW,
        libc::O_NONBLOCK,
        libc::O_NOCTTY,
        libc::O_CLOEXEC,
    ];
    let flags = [O_RDONLY, O_WRONLY, O_RDWR]
        .into_iter()
        .flat_map(move |access| more.map(|more| access | EXCLUSIVE | more));
    flags.map(|flags| (File, Open(flags), Granted, EXISTS, EXISTS))
}

const X: &str = "claims/x";
const Y: &str = "claims/y";
const MINE: &str = "claims/mine";

fn perform(actor: &mut Actor, call: Call) -> Answer<()> {
    let mut ask = |call: &str, arguments: Value| actor.call(call, arguments).map(|_| ());
    match call {
        Open(flags) => {
            let fd = actor.open(X, flags)?;
            actor.close(fd)
        }
        Mkdir => actor.mkdir(X),
        Symlink => actor.symlink("no/such/target", X),
        Mknod => actor.mknod(X),
        LinkTo => actor.link(MINE, X),
        LinkFrom => actor.link(X, Y),
        RenameOnto(flags) => actor.rename(MINE, X, flags),
        RenameAway(flags) => actor.rename(X, Y, flags),
        RenameOverMine => actor.rename(X, MINE, 0),
        Exchange => actor.rename(MINE, X, RENAME_EXCHANGE),
        Stat => actor.stat(X).map(|_| ()),
        Getxattr => actor.getxattr(X, "user.claimfs.token").map(|_| ()),
        Readdir => ask("readdir", json!({ "path": X })),
        Readlink => ask("readlink", json!({ "path": X })),
        Truncate => actor.truncate(X, 0),
        Chmod => actor.chmod(X, 0o700),
        Utimes => actor.utimes(X, 1, 1),
        Setxattr => actor.setxattr(X, "user.other", "text", 0),
        Removexattr => ask("removexattr", json!({ "path": X, "name": "user.note" })),
        Unlink => actor.unlink(X),
        Rmdir => actor.rmdir(X),
    }
}

/// Claims a name with a file of this text and with an attribute, or with a directory or symlink.
fn hold(actor: &mut Actor, path: &str, shape: Shape, text: &str) {
    match shape {
        File => {
            let fd = actor.open(path, O_WRONLY | EXCLUSIVE).unwrap();
            actor.write(fd, text).unwrap();
            actor.close(fd).unwrap();
            actor.setxattr(path, "user.note", "text", 0).unwrap();
        }
        Directory => actor.mkdir(path).unwrap(),
        Link => actor.symlink(text, path).unwrap(),
    }
}

/// All that shows of the claims: the leases, and the attributes and the text of `x`. The first line
/// of `leases` has the number of the newest event, which may be the last one about a dead session.
fn picture(mount: &Mount, other: &mut Actor) -> (Vec<String>, Answer<Value>, Option<String>) {
    let text = std::fs::read_to_string(mount.path(X)).ok();
    let leases = mount.read("leases");
    let leases = leases.lines().skip(1).map(String::from).collect();
    (leases, other.stat(X), text)
}

fn check(mount: &Mount, other: &mut Actor, outcome: Outcome, before: Option<&Value>) {
    let record = mount.record("x");
    let is_mine = |name: &str| mount.record(name).unwrap()["session"] == "me";
    let token = |record: &Value| record["token"].as_u64().unwrap();
    let size = |other: &mut Actor| other.stat(X).unwrap()["size"].clone();
    match outcome {
        Granted => {
            assert!(is_mine("x"));
            assert!(before.is_none_or(|before| token(record.as_ref().unwrap()) > token(before)));
        }
        Unchanged => assert_eq!(record.as_ref(), before),
        Emptied => {
            assert_eq!(record.as_ref(), before);
            assert_eq!(size(other), 0);
        }
        Replaced => {
            assert!(is_mine("x"));
            assert_eq!(mount.read(X), "mine");
        }
        Moved => {
            assert_eq!(record, None);
            assert!(mount.claims() == ["mine"] || is_mine("y"));
        }
        Linked => {
            assert_eq!(record.as_ref(), before);
            assert!(is_mine("y"));
            assert_eq!(other.stat(X).unwrap()["nlink"], 2);
        }
        Released => {
            assert_eq!(record, None);
            other.claim("x").unwrap();
        }
        Refused(_) => {}
    }
}

/// Gives up every name, whoever of the two holds it.
fn clear(mount: &Mount, me: &mut Actor, other: &mut Actor) {
    for name in mount.claims() {
        let path = format!("claims/{name}");
        for actor in [&mut *me, &mut *other] {
            _ = actor.unlink(&path);
            _ = actor.rmdir(&path);
        }
    }
    assert_eq!(mount.claims(), [""; 0]);
}

#[test]
fn each_call_does_what_the_table_of_the_manual_says() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    for (shape, call, free, own, others) in exclusive_opens().chain(TABLE) {
        let columns = [
            ("free", free),
            ("stale", free),
            ("own", own),
            ("another's", others),
        ];
        for (state, outcome) in columns {
            let cell = format!("{call:?} on a {shape:?} that is {state}");
            hold(&mut me, MINE, File, "mine");
            match state {
                "stale" => {
                    let mut dead = mount.actor(Some("dead"));
                    hold(&mut dead, X, shape, "body");
                    dead.kill();
                }
                "own" => hold(&mut me, X, shape, "body"),
                "another's" => hold(&mut other, X, shape, "body"),
                _ => {}
            }
            let is_held = ["own", "another's"].contains(&state);
            let (before, record) = (picture(&mount, &mut other), mount.record("x"));
            let answer = perform(&mut me, call);
            match outcome {
                Refused(errno) => {
                    assert_eq!(answer, Err(errno), "{cell}");
                    assert_eq!(picture(&mount, &mut other), before, "{cell}");
                }
                _ => assert_eq!(answer, Ok(()), "{cell}"),
            }
            check(
                &mount,
                &mut other,
                outcome,
                record.as_ref().filter(|_| is_held),
            );
            if let RenameOnto(_) = call {
                let is_left = mount.claims().contains(&"mine".to_owned());
                assert_eq!(is_left, answer.is_err(), "{cell}: the source");
            }
            clear(&mount, &mut me, &mut other);
        }
    }
}
