//! The inside of a directory claim: it behaves as on tmpfs, its holder alone changes it, it is
//! bounded, and it goes with the claim.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use libc::{EBUSY, EEXIST, EFBIG, EISDIR, ENAMETOOLONG, ENOSPC, ENOTEMPTY, ESTALE, EXDEV};
use libc::{O_CREAT, O_DIRECTORY, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};
use libc::{RENAME_EXCHANGE, RENAME_NOREPLACE};

use crate::support::dice::Dice;
use crate::support::{Actor, Mount, TempDir, names};

fn put(actor: &mut Actor, path: &str, text: &str) {
    let fd = actor.open(path, O_WRONLY | O_CREAT | O_EXCL).unwrap();
    actor.write(fd, text).unwrap();
    actor.close(fd).unwrap();
}

#[test]
fn the_holder_alone_changes_what_is_inside_and_anyone_reads_it() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    me.mkdir("claims/d").unwrap();
    put(&mut me, "claims/d/f", "mine\n");
    me.mkdir("claims/d/sub").unwrap();
    me.symlink("no/where", "claims/d/s").unwrap();
    me.link("claims/d/f", "claims/d/sub/g").unwrap();

    assert_eq!(mount.read("claims/d/sub/g"), "mine\n");
    assert_eq!(names(&mount.path("claims/d")), ["f", "s", "sub"]);
    assert_eq!(
        fs::read_link(mount.path("claims/d/s")).unwrap(),
        Path::new("no/where")
    );

    let busy = [
        other.open("claims/d/f", O_WRONLY).map(drop),
        other.open("claims/d/f", O_RDONLY | O_TRUNC).map(drop),
        other
            .open("claims/d/new", O_WRONLY | O_CREAT | O_EXCL)
            .map(drop),
        other.mkdir("claims/d/new"),
        other.symlink("x", "claims/d/new"),
        other.mknod("claims/d/new"),
        other.link("claims/d/f", "claims/d/new"),
        other.unlink("claims/d/f"),
        other.unlink("claims/d/s"),
        other.rmdir("claims/d/sub"),
        other.rename("claims/d/f", "claims/d/new", 0),
        other.rename("claims/d/f", "claims/d/s", RENAME_EXCHANGE),
        other.rename("claims/d", "claims/e", 0),
        other.truncate("claims/d/f", 0),
        other.chmod("claims/d/f", 0o600),
        other.chmod("claims/d/sub", 0o700),
        other.utimes("claims/d/f", 1, 1),
        other.utimes("claims/d/sub", 1, 1),
        other.setxattr("claims/d/f", "user.x", "y", 0),
        other.rmdir("claims/d"),
    ];
    assert_eq!(busy, [Err(EBUSY); 20]);
    assert_eq!(other.mkdir("claims/d/sub"), Err(EEXIST));
    assert_eq!(names(&mount.path("claims/d")), ["f", "s", "sub"]);
    assert_eq!(mount.read("claims/d/f"), "mine\n");
    assert_eq!(mount.run("wc -l < leases"), "2\n");

    assert_eq!(me.rmdir("claims/d"), Err(ENOTEMPTY));
    assert_eq!(me.unlink("claims/d"), Err(EISDIR));
    assert_eq!(mount.record("d").unwrap()["session"], "me");
}

#[test]
fn a_claim_goes_with_all_that_is_inside_it() {
    let Some(mount) = Mount::new() else { return };
    let mut dead = mount.actor(Some("dead"));
    dead.mkdir("claims/d").unwrap();
    dead.mkdir("claims/d/sub").unwrap();
    put(&mut dead, "claims/d/sub/f", "mine");
    let mut other = mount.actor(Some("other"));
    let file = other.open("claims/d/sub/f", O_RDONLY).unwrap();
    let dir = other.open("claims/d/sub", O_RDONLY | O_DIRECTORY).unwrap();
    dead.kill();

    other.mkdir("claims/d").unwrap();
    assert_eq!(names(&mount.path("claims/d")), [""; 0]);
    assert_eq!(other.pread(file, 4, 0), Err(ESTALE));
    assert_eq!(other.fstat(dir), Err(ESTALE));
    other.mkdir("claims/d/sub").unwrap();
    other.rmdir("claims/d/sub").unwrap();
    other.rmdir("claims/d").unwrap();
    assert_eq!(mount.claims(), [""; 0]);
}

#[test]
fn a_directory_claim_is_renamed_with_what_is_inside_but_nothing_crosses_its_edge() {
    let Some((mount, mut me, _other)) = Mount::with_two() else {
        return;
    };
    me.mkdir("claims/tmp").unwrap();
    put(&mut me, "claims/tmp/f", "mine");
    me.rename("claims/tmp", "claims/lock", RENAME_NOREPLACE)
        .unwrap();
    assert_eq!(mount.read("claims/lock/f"), "mine");
    assert_eq!(mount.record("lock").unwrap()["session"], "me");

    me.mkdir("claims/e").unwrap();
    put(&mut me, "claims/x", "claim");
    assert_eq!(me.rename("claims/e", "claims/lock", 0), Err(ENOTEMPTY));
    let crossing = [
        me.rename("claims/lock/f", "claims/y", 0),
        me.rename("claims/lock/f", "claims/e/f", 0),
        me.rename("claims/x", "claims/e/x", 0),
        me.rename("claims/x", "claims/lock/f", 0),
        me.rename("claims/x", "claims/lock/f", RENAME_EXCHANGE),
        me.link("claims/lock/f", "claims/y"),
        me.link("claims/lock/f", "claims/e/f"),
        me.link("claims/x", "claims/e/x"),
    ];
    assert_eq!(crossing, [Err(EXDEV); 8]);
    me.rename("claims/lock", "claims/e", 0).unwrap();
    assert_eq!(mount.claims(), ["e", "x"]);
    assert_eq!(mount.read("claims/e/f"), "mine");
    // mv(1) copies where it cannot rename.
    assert_eq!(
        mount.run("mkdir claims/p claims/q; echo > claims/p/f; mv claims/p/f claims/q; ls claims/p claims/q; rm -r claims/p claims/q"),
        "claims/p:\n\nclaims/q:\nf\n"
    );
}

#[test]
fn what_is_open_without_a_name_is_a_file_still() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    me.mkdir("claims/d").unwrap();
    put(&mut me, "claims/d/f", "text");
    let fd = me.open("claims/d/f", O_RDWR).unwrap();
    let dir = me.open("claims/d", O_RDONLY | O_DIRECTORY).unwrap();
    me.unlink("claims/d/f").unwrap();
    me.pwrite(fd, "next", 0).unwrap();
    me.rmdir("claims/d").unwrap();
    assert_eq!(me.pread(fd, 9, 0).unwrap(), "next");
    assert_eq!(me.fstat(fd).unwrap()["nlink"], 0);
    assert!(me.fstat(dir).is_ok());
    other.mkdir("claims/d").unwrap();
    assert_eq!(me.pread(fd, 9, 0).unwrap(), "next");
    me.close(fd).unwrap();
    me.close(dir).unwrap();
    assert_eq!(names(&mount.path("claims/d")), [""; 0]);
}

#[test]
fn each_limit_holds_at_its_edge() {
    let Some(mount) = Mount::new() else { return };
    let claim = |name: &str| {
        let dir = mount.path("claims").join(name);
        fs::create_dir(&dir).unwrap();
        dir
    };
    let errno = |result: io::Result<()>| result.unwrap_err().raw_os_error().unwrap();

    // 16 levels, also by rename.
    let mut deep = claim("deep");
    let top = deep.clone();
    for level in 1..=16 {
        deep = deep.join(level.to_string());
        fs::create_dir(&deep).unwrap();
    }
    assert_eq!(errno(fs::create_dir(deep.join("17"))), ENOSPC);
    assert_eq!(errno(File::create_new(deep.join("17")).map(drop)), ENOSPC);
    fs::create_dir_all(top.join("a/b")).unwrap();
    let fourteen = deep.parent().unwrap().parent().unwrap();
    let (from, to) = (top.join("a"), fourteen.parent().unwrap().join("a"));
    fs::rename(&from, &to).unwrap();
    fs::rename(&to, fourteen.join("a")).unwrap();
    fs::rename(fourteen.join("a"), &from).unwrap();
    assert_eq!(
        errno(fs::rename(&from, fourteen.join("15/a"))),
        ENOSPC,
        "two levels below the fifteenth"
    );

    // 4,096 entries, wherever they are; a name that goes makes room.
    let many = claim("many");
    fs::create_dir(many.join("sub")).unwrap();
    for entry in 1..4096 {
        let dir = if entry % 2 == 0 {
            many.join("sub")
        } else {
            many.clone()
        };
        fs::hard_link(many.join("1"), dir.join(entry.to_string()))
            .or_else(|_| File::create_new(dir.join(entry.to_string())).map(drop))
            .unwrap();
    }
    assert_eq!(errno(File::create_new(many.join("more")).map(drop)), ENOSPC);
    assert_eq!(
        errno(fs::hard_link(many.join("1"), many.join("more"))),
        ENOSPC
    );
    assert_eq!(names(&many).len(), 2049);
    assert_eq!(fs::metadata(many.join("1")).unwrap().nlink(), 4095);
    fs::remove_file(many.join("sub/2")).unwrap();
    symlink("x", many.join("more")).unwrap();

    // 1 MiB, of one file and of all.
    let full = claim("full");
    let one = File::create_new(full.join("one")).unwrap();
    assert_eq!(errno(one.write_all_at(b"x", 1 << 20)), EFBIG);
    assert_eq!(errno(one.set_len((1 << 20) + 1)), EFBIG);
    one.write_all_at(&vec![b'x'; 1 << 20], 0).unwrap();
    let two = File::create_new(full.join("two")).unwrap();
    assert_eq!(errno((&two).write_all(b"y")), ENOSPC);
    assert_eq!(errno(symlink("y", full.join("s"))), ENOSPC);
    one.set_len((1 << 20) - 3).unwrap();
    (&two).write_all(b"yy").unwrap();
    symlink("y", full.join("s")).unwrap();
    assert_eq!(errno((&two).write_all(b"y")), ENOSPC);
    fs::remove_file(full.join("one")).unwrap();
    assert_eq!(errno((&two).write_all(b"y")), ENOSPC, "it is open still");
    drop(one);
    crate::support::wait_until("what is closed has gone", || (&two).write_all(b"y").is_ok());

    let long = "x".repeat(255);
    File::create_new(full.join(&long)).unwrap();
    assert_eq!(
        errno(File::create_new(full.join(format!("{long}x"))).map(drop)),
        ENAMETOOLONG
    );
}

fn rename(from: &Path, to: &Path, flags: u32) -> io::Result<()> {
    let c = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap();
    let (from, to) = (c(from), c(to));
    let cwd = libc::AT_FDCWD;
    if unsafe { libc::renameat2(cwd, from.as_ptr(), cwd, to.as_ptr(), flags) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether a path leads through a symlink, which the mount follows nowhere.
fn follows(dir: &Path, path: &Path, also_the_last: bool) -> bool {
    let is_symlink =
        |path: &Path| fs::symlink_metadata(dir.join(path)).is_ok_and(|m| m.is_symlink());
    path.ancestors()
        .skip(usize::from(!also_the_last))
        .any(is_symlink)
}

/// One random call on a directory, the same for each directory that is handed in. What it answered.
fn step(dice: &mut Dice, dirs: &[PathBuf; 2]) -> [String; 2] {
    let labels = ["a", "b", ".c", "d e", "f\\"];
    let mut path = || {
        let mut path = PathBuf::new();
        for _ in 0..=dice.below(3) {
            path.push(labels[dice.below(labels.len())]);
        }
        path
    };
    let (one, other) = (path(), path());
    let (call, at) = (dice.below(15), dice.below(20));
    let opens = matches!(call, 11 | 13 | 14);
    if follows(&dirs[1], &one, opens) || follows(&dirs[1], &other, false) {
        return [String::new(), String::new()];
    }
    let perform = |dir: &PathBuf| {
        let (path, second) = (dir.join(&one), dir.join(&other));
        let result: io::Result<String> = match call {
            0 => File::create_new(&path).map(|_| String::new()),
            1 | 2 => fs::create_dir(&path).map(|()| String::new()),
            3 => symlink(&other, &path).map(|()| String::new()),
            4 => fs::hard_link(&path, &second).map(|()| String::new()),
            5 => fs::remove_file(&path).map(|()| String::new()),
            6 => fs::remove_dir(&path).map(|()| String::new()),
            7 | 8 => rename(&path, &second, 0).map(|()| String::new()),
            9 => rename(&path, &second, RENAME_NOREPLACE).map(|()| String::new()),
            10 => rename(&path, &second, RENAME_EXCHANGE).map(|()| String::new()),
            11 => File::options()
                .write(true)
                .open(&path)
                .and_then(|file| file.write_all_at(b"bytes", at as u64))
                .map(|()| String::new()),
            12 => fs::read_link(&path).map(|target| format!("{}", target.display())),
            13 => fs::read(&path).map(|bytes| format!("{bytes:?}")),
            _ => fs::write(&path, "new").map(|()| String::new()),
        };
        let answer = result.map_err(|error| error.raw_os_error());
        format!("{call} {} {}: {answer:?}", one.display(), other.display())
    };
    [perform(&dirs[0]), perform(&dirs[1])]
}

/// All that there is to see of a directory.
fn snapshot(dir: &Path, out: &mut Vec<String>) {
    for name in names(dir) {
        let path = dir.join(name);
        let meta = fs::symlink_metadata(&path).unwrap();
        let size = if meta.is_dir() { 0 } else { meta.len() };
        let bytes = if meta.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        let label = path.file_name().unwrap();
        let (mode, nlink) = (meta.mode(), meta.nlink());
        out.push(format!(
            "{} {mode:o} {nlink} {size} {bytes:?}",
            label.display()
        ));
        if meta.is_dir() {
            snapshot(&path, out);
            out.push("end".into());
        }
    }
}

#[test]
fn inside_it_behaves_as_the_systems_own_filesystem_does() {
    let Some(mount) = Mount::new() else { return };
    let plain = TempDir::in_memory();
    let dirs = [mount.path("claims/d"), plain.path().join("d")];
    for round in 0..6_u64 {
        for dir in &dirs {
            fs::create_dir(dir).unwrap();
        }
        let mut dice = Dice::new(round);
        for number in 0..1500 {
            let [here, there] = step(&mut dice, &dirs);
            assert_eq!(here, there, "round {round}, step {number}");
            if number % 50 == 0 {
                let (mut a, mut b) = (Vec::new(), Vec::new());
                snapshot(&dirs[0], &mut a);
                snapshot(&dirs[1], &mut b);
                assert_eq!(a, b, "round {round}, step {number}");
            }
        }
        for dir in &dirs {
            fs::remove_dir_all(dir).unwrap();
        }
    }
    assert_eq!(mount.claims(), [""; 0]);
}

#[test]
fn tools_find_their_way_inside() {
    let Some(mount) = Mount::new() else { return };
    let out = mount.run(
        "mkdir -p claims/d/sub/deeper && echo one > claims/d/sub/deeper/f && touch claims/d/.hidden && \
         find claims | sort && (cd claims/d/sub && cat deeper/f && ls -a .. && pwd -P | sed 's/.*claims/claims/') && \
         rm -r claims/d && ls -a claims",
    );
    assert_eq!(
        out,
        "claims\nclaims/d\nclaims/d/.hidden\nclaims/d/sub\nclaims/d/sub/deeper\nclaims/d/sub/deeper/f\none\n.\n..\n\
         .hidden\nsub\nclaims/d/sub\n.\n..\n"
    );
}

#[test]
fn bytes_that_are_no_text_are_a_name_inside() {
    let Some(mount) = Mount::new() else { return };
    let odd = std::ffi::OsStr::from_bytes(b"\xff\n\x1b[31m");
    fs::create_dir(mount.path("claims/e")).unwrap();
    let path = mount.path("claims/e").join(odd);
    fs::write(&path, "x").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"x");
    let listed = fs::read_dir(mount.path("claims/e")).unwrap();
    let listed: Vec<_> = listed.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(listed, [odd]);
}
