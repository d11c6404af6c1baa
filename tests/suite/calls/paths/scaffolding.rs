use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use libc::{
    EDQUOT, ENOENT, ENOTDIR, ESTALE, O_CREAT, O_DIRECTORY, O_EXCL, O_PATH, O_RDONLY, O_WRONLY,
};

use super::tree;
use crate::support::{Actor, Guard, Mount, skip, wait_until};

const EXCLUSIVE: i32 = O_CREAT | O_EXCL | O_WRONLY;

/// Empty directories go once they are unused for so many milliseconds, and not looked up for a
/// second.
const SHORT: [&str; 2] = ["--directories-stay", "20"];

fn exists(mount: &Mount, path: &str) -> bool {
    tree(mount).iter().any(|there| there == path)
}

/// Waits until a directory has gone, without looking it up.
fn wait_gone(mount: &Mount, path: &str) {
    let (above, label) = path
        .trim_end_matches('/')
        .rsplit_once('/')
        .unwrap_or((".", path));
    let above = mount.path("paths").join(above);
    let label = label.trim_end_matches('/');
    wait_until(path, || {
        let entries = fs::read_dir(&above).into_iter().flatten().flatten();
        !entries.into_iter().any(|entry| entry.file_name() == label)
    });
}

#[test]
fn an_empty_directory_goes_and_a_used_one_stays() {
    let Some(mount) = Mount::with(&SHORT) else {
        return;
    };
    let mut me = mount.actor(Some("me"));
    mount.run("mkdir -p paths/a/b/c paths/open paths/held");
    let fd = me.open("paths/open", O_RDONLY | O_DIRECTORY).unwrap();
    let file = me.open("paths/held/x", EXCLUSIVE).unwrap();
    me.close(file).unwrap();
    // From the lowest on, each once it is empty.
    wait_gone(&mount, "a");
    assert_eq!(tree(&mount), ["held/", "held/x", "open/"]);
    me.close(fd).unwrap();
    wait_gone(&mount, "open");
    me.unlink("paths/held/x").unwrap();
    wait_gone(&mount, "held");
    assert_eq!(me.open("paths/held/x", EXCLUSIVE), Err(ENOENT));
}

#[test]
fn a_directory_stays_for_its_time_after_its_last_use() {
    let Some(mount) = Mount::with(&["--directories-stay", "1500"]) else {
        return;
    };
    let mut me = mount.actor(Some("me"));
    me.mkdir("paths/a").unwrap();
    // Each use counts anew: the directory outlives several of its times.
    let began = std::time::Instant::now();
    while began.elapsed().as_millis() < 4000 {
        let fd = me.open("paths/a/x", EXCLUSIVE).unwrap();
        me.close(fd).unwrap();
        me.unlink("paths/a/x").unwrap();
    }
    wait_gone(&mount, "a");
}

#[test]
fn who_stands_in_a_directory_that_has_gone_is_told_so_and_enters_it_again() {
    let Some(mount) = Mount::with(&SHORT) else {
        return;
    };
    let mut me = mount.actor(Some("me"));
    me.mkdir("paths/a").unwrap();
    let path_only = me.open("paths/a", O_PATH).unwrap();
    let beside = format!("/proc/self/fd/{path_only}/x");
    // A working directory is no descriptor.
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(
        "cd paths/a && echo in && read go; true > x; echo $?; cd $M/paths && mkdir -p a && cd a && true > y; echo $?",
    );
    shell
        .env("M", &mount.dir)
        .current_dir(&mount.dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut shell = Guard::spawn(&mut shell);
    assert_eq!(shell.line(), "in");
    wait_gone(&mount, "a");
    // As where a directory is removed on any filesystem, once the kernel knows that it has gone.
    let is_gone = |answer| matches!(answer, Err(ESTALE | ENOENT));
    assert!(is_gone(me.open(&beside, EXCLUSIVE)));
    assert!(is_gone(me.open(&beside, O_WRONLY | O_CREAT)));
    // A directory of the same name is another.
    me.mkdir("paths/a").unwrap();
    assert!(is_gone(me.open(&beside, EXCLUSIVE)));
    writeln!(shell.0.stdin.as_mut().unwrap(), "go").unwrap();
    assert_ne!(shell.line(), "0");
    assert_eq!(shell.line(), "0");
}

#[test]
fn who_stands_in_a_directory_stands_there_after_the_death_of_the_server_and_an_upgrade() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    mount.run("mkdir -p paths/w/empty/deep");
    let dir = me
        .open("paths/w/empty/deep", O_RDONLY | O_DIRECTORY)
        .unwrap();
    let path_only = me.open("paths/w/empty", O_PATH).unwrap();
    let fd = me.open("paths/w/f", EXCLUSIVE).unwrap();
    me.close(fd).unwrap();
    let mut number = 0;
    let mut stands = |me: &mut Actor| {
        number += 1;
        for fd in [dir, path_only] {
            let file = format!("/proc/self/fd/{fd}/f{number}");
            let file_fd = me.open(&file, EXCLUSIVE).unwrap();
            me.close(file_fd).unwrap();
            me.unlink(&file).unwrap();
            let below = format!("/proc/self/fd/{fd}/d{number}");
            me.mkdir(&below).unwrap();
        }
    };
    stands(&mut me);
    mount.kill_server();
    stands(&mut me);
    let upgraded = mount
        .claimfs(&["upgrade"])
        .arg(&mount.dir)
        .output()
        .unwrap();
    assert!(upgraded.status.success(), "{upgraded:?}");
    stands(&mut me);
    let all = tree(&mount);
    for path in ["w/f", "w/empty/deep/d1/", "w/empty/deep/d3/", "w/empty/d2/"] {
        assert!(all.iter().any(|there| there == path), "{path}: {all:?}");
    }
}

#[test]
fn a_directory_that_somebody_has_open_stays_also_on_the_next_server() {
    let Some(mount) = Mount::with(&SHORT) else {
        return;
    };
    let mut me = mount.actor(Some("me"));
    for dir in ["open", "left"] {
        me.mkdir(&format!("paths/{dir}")).unwrap();
    }
    let dir = me.open("paths/open", O_RDONLY | O_DIRECTORY).unwrap();
    mount.kill_server();
    wait_gone(&mount, "left");
    let inside = format!("/proc/self/fd/{dir}/f");
    let fd = me.open(&inside, EXCLUSIVE).unwrap();
    me.close(fd).unwrap();
    me.unlink(&inside).unwrap();
    me.close(dir).unwrap();
    wait_gone(&mount, "open");
}

#[test]
fn a_path_is_in_turn_directory_reservation_and_directory() {
    let Some(mount) = Mount::new() else { return };
    let (mut me, mut other) = (mount.actor(Some("me")), mount.actor(Some("other")));
    me.mkdir("paths/w").unwrap();
    let control = me.open("control", O_WRONLY).unwrap();
    for at in 0..60 {
        other.mkdir("paths/w/x").unwrap();
        let inside = other.open("paths/w/x", O_PATH).unwrap();
        me.write(control, "{\"reserve\":[\"/w/x\"]}\n").unwrap();
        let inner = other.open(&format!("/proc/self/fd/{inside}/y"), EXCLUSIVE);
        assert!(
            matches!(inner, Err(ESTALE | ENOENT | ENOTDIR)),
            "{at}: {inner:?}"
        );
        // The kernel may take it for a directory for a second; to make something in it fails.
        let below = other.open("paths/w/x/y", EXCLUSIVE);
        assert_eq!(below, Err(ENOTDIR), "{at}");
        other.close(inside).unwrap();
        assert!(mount.read("paths/w/x").contains("\"session\":\"me\""));
        me.write(control, "{\"unreserve\":[\"/w/x\"]}\n").unwrap();
    }
}

#[test]
fn watchers_see_directories_and_reservations_go() {
    let Some(mount) = Mount::with(&SHORT) else {
        return;
    };
    let mut command = Command::new("inotifywait");
    if Command::new("inotifywait").arg("--help").output().is_err() {
        skip("inotifywait is not installed");
        return;
    }
    let (mut me, mut other) = (mount.actor(Some("me")), mount.actor(Some("other")));
    me.mkdir("paths/w").unwrap();
    command.args(["-m", "--format", "%e %f", "-e", "create,delete", "paths/w"]);
    command
        .current_dir(&mount.dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut watcher = Guard::spawn(&mut command);
    let ready = BufReader::new(watcher.0.stderr.take().unwrap());
    assert!(
        ready
            .lines()
            .map(Result::unwrap)
            .any(|line| line == "Watches established.")
    );
    let fd = other.open("paths/w/kept", EXCLUSIVE).unwrap();
    other.close(fd).unwrap();
    assert_eq!(watcher.line(), "CREATE kept");
    other.mkdir("paths/w/d").unwrap();
    assert_eq!(watcher.line(), "CREATE,ISDIR d");
    assert_eq!(watcher.line(), "DELETE,ISDIR d");
    let fd = me.open("paths/w/f", EXCLUSIVE).unwrap();
    me.close(fd).unwrap();
    assert_eq!(watcher.line(), "CREATE f");
    me.kill();
    assert_eq!(watcher.line(), "DELETE f");
    // By a line in `control`, too.
    mount.run("CLAIMFS_SESSION=lines sh -c 'echo \"{\\\"reserve\\\":[\\\"/w/l\\\"]}\" > control; sleep 0.1; echo \"{\\\"unreserve\\\":[\\\"/w/l\\\"]}\" > control'");
    assert_eq!(watcher.line(), "DELETE l");
}

#[test]
fn a_flood_of_directories_is_bounded_and_leaves_others_alone() {
    let options = ["--max-directories", "400", "--directories-stay", "600000"];
    let Some(mount) = Mount::shared(&options) else {
        return;
    };
    let by_uid = |uid: u32| {
        Actor::start(&mount, None, |command| {
            std::os::unix::process::CommandExt::uid(command, uid);
        })
    };
    let (mut flood, mut user) = (by_uid(4242), by_uid(4243));
    // To look at all of them for ever keeps none.
    let mut walker = mount.sh("while :; do find paths > /dev/null 2>&1; done");
    let _walker = Guard::spawn(&mut walker);
    user.mkdir("paths/mine").unwrap();
    flood.mkdir("paths/f").unwrap();
    // A quarter of all for one uid. Past it, its own oldest goes, once it is a second old.
    for at in 0..300 {
        let made = flood.mkdir(&format!("paths/f/{at}"));
        assert!(matches!(made, Ok(()) | Err(EDQUOT)), "{at}: {made:?}");
    }
    let few = || tree(&mount).len() <= 106;
    assert!(few());
    user.mkdir("paths/mine/too").unwrap();
    wait_until("room", || flood.mkdir("paths/f/more") == Ok(()));
    assert!(exists(&mount, "mine/too/"));
    assert!(!exists(&mount, "f/0/"));
    assert!(few());
}

#[test]
fn a_tree_of_directories_without_reservations_is_bounded_too() {
    // 4 empty directories of a uid, and 4 times as many in all.
    let Some(mount) = Mount::shared(&["--max-directories", "16"]) else {
        return;
    };
    let mut user = Actor::start(&mount, Some("user"), |command| {
        std::os::unix::process::CommandExt::uid(command, 4242);
    });
    let mut at = String::from("paths");
    for level in 0..16 {
        at += "/d";
        assert_eq!(user.mkdir(&at), Ok(()), "{level}");
    }
    assert_eq!(user.mkdir(&format!("{at}/d")), Err(EDQUOT));
    // A reservation may have all directories above it.
    let fd = user.open(&format!("{at}/f"), EXCLUSIVE).unwrap();
    user.close(fd).unwrap();
    user.mkdir(&format!("{at}/d")).unwrap();
}

#[test]
fn directories_count_for_the_share_of_who_makes_them_however_deep() {
    let Some(mount) = Mount::shared(&["--max-per-uid", "20"]) else {
        return;
    };
    let by_uid = |uid: u32| {
        Actor::start(&mount, Some("user"), |command| {
            std::os::unix::process::CommandExt::uid(command, uid);
        })
    };
    let mut bomb = by_uid(4242);
    let mut at = String::from("paths");
    for level in 0..20 {
        at += "/d";
        assert_eq!(bomb.mkdir(&at), Ok(()), "{level}");
    }
    at += "/d";
    assert_eq!(bomb.mkdir(&at), Err(EDQUOT));
    let control = bomb.open("control", O_WRONLY).unwrap();
    let line = |path: &str| format!("{{\"reserve\":[\"{path}\"]}}\n");
    assert_eq!(bomb.write(control, &line("/e/f/g")), Err(EDQUOT));
    // Where there are directories, a reservation needs none.
    bomb.write(control, &line("/d/d/d/x")).unwrap();
    let mut root = mount.actor(Some("root"));
    root.mkdir("paths/e").unwrap();
    root.mkdir("paths/e/f").unwrap();
}
