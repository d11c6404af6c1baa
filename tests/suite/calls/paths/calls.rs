use libc::{
    EBUSY, EEXIST, EFBIG, EILSEQ, EINVAL, EISDIR, ENAMETOOLONG, ENODATA, ENOENT, ENOTDIR, EPERM,
    O_CREAT, O_DIRECTORY, O_EXCL, O_RDONLY, O_TRUNC, O_WRONLY,
};
use serde_json::json;

use super::tree;
use crate::support::{Actor, Answer, Mount};

const EXCLUSIVE: i32 = O_CREAT | O_EXCL | O_WRONLY;

fn reserve(by: &mut Actor, path: &str) -> Answer<()> {
    let fd = by.open(&format!("paths/{path}"), EXCLUSIVE)?;
    by.close(fd)
}

fn dirs(by: &mut Actor, path: &str) {
    let mut at = String::from("paths");
    for label in path.split('/') {
        at = format!("{at}/{label}");
        match by.mkdir(&at) {
            Ok(()) | Err(EEXIST) => {}
            Err(errno) => panic!("{at}: {errno}"),
        }
    }
}

#[test]
fn a_file_covers_its_path_and_all_below_it() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    dirs(&mut me, "home/me/app/src");
    dirs(&mut other, "home/me/app/src");
    reserve(&mut me, "home/me/app/src/lexer.rs").unwrap();
    let name = "paths/home/me/app/src/lexer.rs";
    assert_eq!(mount.session_of(name).unwrap(), "me");
    for by in [&mut me, &mut other] {
        // The file itself, below it, and above it.
        assert_eq!(reserve(by, "home/me/app/src/lexer.rs"), Err(EEXIST));
        assert_eq!(by.mkdir(name), Err(EEXIST));
        assert_eq!(reserve(by, "home/me/app/src/lexer.rs/x"), Err(ENOTDIR));
        assert_eq!(by.mkdir(&format!("{name}/x")), Err(ENOTDIR));
        for above in ["paths/home/me/app/src", "paths/home"] {
            assert_eq!(by.open(above, EXCLUSIVE), Err(EEXIST));
            assert_eq!(by.open(above, O_WRONLY | O_CREAT), Err(EISDIR));
            assert_eq!(by.mknod(above), Err(EEXIST));
        }
        // Its neighbours are free.
        let beside = format!("home/me/app/src/{}", by.pid());
        reserve(by, &beside).unwrap();
        by.unlink(&format!("paths/{beside}")).unwrap();
    }
    // Its holder opens it again, and nobody else.
    let fd = me.open(name, O_WRONLY | O_CREAT | O_TRUNC).unwrap();
    me.close(fd).unwrap();
    assert_eq!(other.open(name, O_WRONLY | O_CREAT), Err(EBUSY));
    assert_eq!(other.unlink(name), Err(EBUSY));
    assert!(mount.read(name).contains("\"session\":\"me\""));
    assert!(
        other
            .getxattr(name, "user.claimfs.record")
            .unwrap()
            .contains(name)
    );
    me.unlink(name).unwrap();
    reserve(&mut other, "home/me/app/src/lexer.rs").unwrap();
    // A name that is like another's up to its end is not below it.
    reserve(&mut me, "home/me/app/src/lexer.rs.orig").unwrap();
    reserve(&mut me, "home/me/app/src/lexer").unwrap();
}

#[test]
fn the_death_of_a_holder_frees_the_whole_tree_at_the_first_try() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    dirs(&mut me, "w/a/b");
    for path in ["w/a/b/1", "w/a/b/2", "w/a/3"] {
        reserve(&mut me, path).unwrap();
    }
    assert_eq!(other.unlink("paths/w/a/3"), Err(EBUSY));
    let pid = me.pid();
    me.kill();
    reserve(&mut other, "w/a/b/2").unwrap();
    let events = mount.run("cat leases");
    assert!(!events.contains(&format!("\"pid\":{pid},")), "{events}");
    let control = "echo '{\"reserve\":[\"/w/a\"]}' > control";
    assert_ne!(mount.sh(control).status().unwrap().code(), Some(0));
    other.kill();
    mount.run(control);
}

#[test]
fn a_directory_is_the_same_for_all_and_no_call_removes_it() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    me.mkdir("paths/a").unwrap();
    for by in [&mut me, &mut other] {
        assert_eq!(by.mkdir("paths/a"), Err(EEXIST));
        assert_eq!(by.rmdir("paths/a"), Err(EBUSY));
        assert_eq!(by.unlink("paths/a"), Err(EISDIR));
        assert_eq!(by.rmdir("paths/none"), Err(ENOENT));
        let stat = by.stat("paths/a").unwrap();
        assert_eq!(stat["mode"], json!(0o041_777), "{stat}");
        // Its mode and its times stay.
        by.chmod("paths/a", 0o700).unwrap();
        by.utimes("paths/a", 1, 1).unwrap();
        assert_eq!(by.stat("paths/a").unwrap(), stat);
        assert_eq!(by.getxattr("paths/a", "user.claimfs.session"), Err(ENODATA));
        assert_eq!(by.setxattr("paths/a", "user.mine", "x", 0), Err(EPERM));
    }
    assert!(mount.read("leases").contains("\"leases\":0"));
}

#[test]
fn a_reservation_has_one_name_and_is_a_file() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    dirs(&mut me, "w/a");
    reserve(&mut me, "w/f").unwrap();
    me.claim("x").unwrap();
    let before = tree(&mount);
    for by in [&mut me, &mut other] {
        assert_eq!(by.symlink("x", "paths/w/l"), Err(EPERM));
        assert_eq!(by.link("paths/w/f", "paths/w/l"), Err(EPERM));
        assert_eq!(by.link("paths/w/f", "claims/l"), Err(EPERM));
        assert_eq!(by.link("claims/x", "paths/w/l"), Err(EPERM));
        for to in ["paths/w/g", "claims/g", "paths/g"] {
            assert_eq!(by.rename("paths/w/f", to, 0), Err(EPERM), "{to}");
            assert_eq!(by.rename("claims/x", "paths/w/g", 0), Err(EPERM));
        }
        assert_eq!(by.rename("paths/w/a", "paths/w/b", 0), Err(EPERM));
        assert_eq!(
            by.rename("paths/w/f", "claims/x", libc::RENAME_EXCHANGE),
            Err(EPERM)
        );
        assert_eq!(
            by.rename("paths/w/f", "paths/w/a", libc::RENAME_EXCHANGE),
            Err(EPERM)
        );
    }
    assert_eq!(tree(&mount), before);
    assert_eq!(mount.claims(), ["x"]);
}

#[test]
fn a_body_fits_up_to_its_edge() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    me.mkdir("paths/w").unwrap();
    let fd = me.open("paths/w/f", EXCLUSIVE).unwrap();
    assert_eq!(me.write(fd, &"x".repeat(4096)).unwrap(), 4096);
    assert_eq!(me.pwrite(fd, "x", 4096), Err(EFBIG));
    assert_eq!(me.ftruncate(fd, 4097), Err(EFBIG));
    assert_eq!(mount.read("paths/w/f"), "x".repeat(4096));
}

#[test]
fn components_and_paths_up_to_their_edges() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    me.mkdir("paths/w").unwrap();
    for label in [
        " ",
        "a b",
        "new\nline",
        "Größe",
        ".git",
        "...",
        "%2F",
        "a\\b",
        "\"",
        "-",
        "~",
        "日本",
    ] {
        let name = format!("w/{label}");
        reserve(&mut me, &name).unwrap_or_else(|errno| panic!("{label:?}: {errno}"));
        let record = mount.record(&format!("paths/{name}"));
        assert_eq!(record.unwrap()["session"], "me", "{label:?}");
        me.unlink(&format!("paths/{name}")).unwrap();
    }
    for (long, expected) in [(255, Ok(())), (256, Err(ENAMETOOLONG))] {
        let name = format!("w/{}", "n".repeat(long));
        assert_eq!(reserve(&mut me, &name), expected, "{long}");
        assert!(me.mkdir(&format!("paths/{name}")).is_err());
    }
    // No UTF-8: nothing of that name can exist, and nothing is made.
    let odd = mount.run("python3 -c \"\nimport os\nfor call in (lambda p: os.close(os.open(p, os.O_CREAT | os.O_EXCL | os.O_WRONLY)), os.mkdir):\n    try: call(b'paths/w/\\xff')\n    except OSError as e: print(e.errno)\"");
    assert_eq!(odd, format!("{EINVAL}\n{EINVAL}\n"), "not {EILSEQ}");
    // 64 levels, the reservation included.
    let deep = |levels: usize| vec!["d"; levels].join("/");
    dirs(&mut me, &deep(63));
    reserve(&mut me, &format!("{}/f", deep(63))).unwrap();
    me.mkdir(&format!("paths/{}", deep(64))).unwrap();
    let deepest = format!("paths/{}", deep(64));
    assert_eq!(
        me.open(&format!("{deepest}/f"), EXCLUSIVE),
        Err(ENAMETOOLONG)
    );
    assert_eq!(me.mkdir(&format!("{deepest}/d")), Err(ENAMETOOLONG));
    // 4,096 bytes, by openat(2) below a directory: the path of no call is as long.
    let script = r"
import os, errno
def down(fd, label):
    try: os.mkdir(label, dir_fd=fd)
    except FileExistsError: pass
    return os.open(label, os.O_DIRECTORY, dir_fd=fd)
fd = os.open('paths', os.O_DIRECTORY)
for _ in range(15): fd = down(fd, 'n' * 255)
# 15 * 256 = 3,840 bytes, and 256 are left.
fd = down(fd, 'n' * 100)
for length in (155, 156):
    try:
        os.close(os.open('f' * length, os.O_CREAT | os.O_EXCL | os.O_WRONLY, dir_fd=fd))
        print(length, 'done')
    except OSError as e: print(length, errno.errorcode[e.errno])
";
    let edge = mount.run(&format!("python3 -c \"{}\"", script.replace('"', "\\\"")));
    assert_eq!(edge, "155 done\n156 ENAMETOOLONG\n");
}

#[test]
fn only_root_reserves_what_would_stop_everybody() {
    let Some(mount) = Mount::shared(&[]) else {
        return;
    };
    let mut root = mount.actor(Some("root"));
    let mut user = Actor::start(&mount, Some("user"), |command| {
        std::os::unix::process::CommandExt::uid(command, 4242);
    });
    assert_eq!(user.open("paths/home", EXCLUSIVE), Err(EPERM));
    user.mkdir("paths/home").unwrap();
    assert_eq!(user.rmdir("paths/home"), Err(EBUSY));
    reserve(&mut user, "home/me").unwrap();
    assert_eq!(user.open("paths/opt", O_WRONLY | O_CREAT), Err(EPERM));
    let fd = root.open("paths/opt", EXCLUSIVE).unwrap();
    root.close(fd).unwrap();
    assert_eq!(user.mkdir("paths/opt/x"), Err(ENOTDIR));
    assert_eq!(tree(&mount), ["home/", "home/me", "opt"]);
}

#[test]
fn listings_go_on_while_directories_go_and_come() {
    let Some(mount) = Mount::with(&["--directories-stay", "200", "--allow-other"]) else {
        return;
    };
    let mut me = mount.actor(Some("me"));
    me.mkdir("paths/w").unwrap();
    reserve(&mut me, "w/kept").unwrap();
    for at in 0..200 {
        me.mkdir(&format!("paths/w/{at}")).unwrap();
        reserve(&mut me, &format!("w/f{at}")).unwrap();
    }
    let dir = me.open("paths/w", O_RDONLY | O_DIRECTORY).unwrap();
    let mut gone = false;
    // What is there all the time is in each listing, once.
    while !gone {
        let listed = mount.run("ls -f paths/w");
        for at in 0..200 {
            let file = format!("f{at}");
            assert_eq!(listed.lines().filter(|line| **line == file).count(), 1);
        }
        assert_eq!(listed.lines().filter(|line| *line == "kept").count(), 1);
        let left = listed.lines().filter(|line| line.parse::<u32>().is_ok());
        gone = left.count() == 0;
    }
    me.close(dir).unwrap();
}
