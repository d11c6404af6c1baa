//! The journal on a full disk: leases are kept, names can still be freed, and service resumes once
//! there is space.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use claimfs::core::table::Table;
use claimfs::core::{Command as Ask, Creation, Shape};
use claimfs::journal::Log;
use claimfs::journal::{self, Disk, Live};
use libc::ENOSPC;

use crate::core::model::{claim, member, name, process};
use crate::lifecycle::journal::{another, boot, now};
use crate::support::{CLAIMFS, Mount, TempDir, names, root_or_skip, text, unmount};

/// A directory on a filesystem of its own, of so many kilobytes.
pub struct Small(pub TempDir);

impl Small {
    pub fn new(kilobytes: u32) -> Self {
        let dir = TempDir::new();
        let size = format!("size={kilobytes}k");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "claimfs-test"])
            .arg(dir.path())
            .status();
        assert!(status.unwrap().success());
        Self(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn regression_on_a_full_disk_no_directory_is_made_that_the_next_server_would_not_know() {
    if !root_or_skip("mount a small filesystem") {
        return;
    }
    let Some(mut mount) = Mount::unmounted() else {
        return;
    };
    let small = Small::new(1024);
    mount.state = small.0.path().join("state");
    mount.start(&[]);
    let mut me = mount.actor(Some("me"));
    me.mkdir("paths/w").unwrap();
    let fill = fs::File::create(small.0.path().join("fill")).unwrap();
    while (&fill).write_all(&[b'x'; 4096]).is_ok() {}
    while (&fill).write_all(b"x").is_ok() {}
    let dirs = |count: u32| -> Vec<String> { (0..count).map(|at| at.to_string()).collect() };
    let made = (0..100_000).take_while(|at| me.mkdir(&format!("paths/w/{at}")).is_ok());
    let made = made.count() as u32;
    assert_eq!(me.mkdir("paths/w/more"), Err(ENOSPC));
    let listed = || {
        let mut listed = names(&mount.path("paths/w"));
        listed.sort_by_key(|name| name.parse::<u32>().unwrap());
        listed
    };
    assert_eq!(listed(), dirs(made));
    mount.kill_server();
    assert_eq!(listed(), dirs(made));
    // Processes that other tests are starting may have it open for a moment, and its room with it.
    fill.set_len(0).unwrap();
    fs::remove_file(small.0.path().join("fill")).unwrap();
    me.mkdir(&format!("paths/w/{made}")).unwrap();
    assert_eq!(listed(), dirs(made + 1));
}

#[test]
fn on_a_full_disk_claims_are_refused_releases_go_on_and_service_resumes() {
    if !root_or_skip("mount a small filesystem") || !crate::support::can_mount() {
        return;
    }
    let small = Small::new(2048);
    let (state, temp) = (small.0.path().join("state"), TempDir::new());
    let dir = temp.path().join("mount");
    let mount = |arguments: &[&str]| {
        let mut command = Command::new(CLAIMFS);
        command
            .arg("mount")
            .arg("--state-dir")
            .arg(&state)
            .args(arguments)
            .arg(&dir);
        text(&command.output().unwrap())
    };
    assert_eq!(mount(&[]).0, 0);
    let script = r"
import errno, os
held, refused = [], None
for i in range(100000):
    try:
        os.close(os.open('claims/n%d' % i, os.O_CREAT | os.O_EXCL))
        held.append(i)
    except OSError as e:
        refused = e.errno
        break
print(refused, len(held) > 100, len(os.listdir('claims')) == len(held))
fill = open(os.environ['STATE'] + '/fill', 'wb', buffering=0)
try:
    while True:
        fill.write(b'x' * 4096)
except OSError as e:
    print(e.errno)
# Every single one can be released, and some that wait get theirs.
for i in held:
    os.remove('claims/n%d' % i)
print(os.listdir('claims'))
try:
    os.close(os.open('claims/again', os.O_CREAT | os.O_EXCL))
    print('granted, in what the others left')
except OSError as e:
    print(e.errno)
fill.truncate(0)
os.remove(os.environ['STATE'] + '/fill')
for i in range(50):
    os.close(os.open('claims/m%d' % i, os.O_CREAT | os.O_EXCL))
print('resumed')
";
    let mut python = Command::new("python3");
    python
        .args(["-c", script])
        .current_dir(&dir)
        .env("STATE", &state)
        .env("CLAIMFS_SESSION", "w");
    let (code, out, err) = text(&python.output().unwrap());
    // This waits until its supervisor has let go of the state directory.
    let umount = Command::new(CLAIMFS).arg("umount").arg(&dir).status();
    assert!(umount.unwrap().success());
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(lines[0], format!("{ENOSPC} True True"), "{out}");
    assert_eq!(
        (lines[1], lines[2], *lines.last().unwrap()),
        ("28", "[]", "resumed"),
        "{out}"
    );
    // Nothing was granted that was not recorded, and nothing is torn.
    assert_eq!(mount(&[]).0, 0);
    unmount(&dir);
    let file = fs::File::open(state.join("journal")).unwrap();
    let mut head = [0; 9];
    file.read_exact_at(&mut head, 0).unwrap();
    assert_eq!(head[8], b'{');
}

#[test]
fn regression_a_full_disk_refuses_no_release_when_the_next_in_line_needs_new_tokens() {
    if !root_or_skip("mount a small filesystem") {
        return;
    }
    let small = Small::new(8192);
    let dir = small.0.path();
    let recovered = journal::read(dir, &boot(), 1, false).unwrap();
    let mut disk = Disk::begin(dir, boot(), &recovered, &another()).unwrap();
    let mut table = recovered.table;
    let (by, next) = (&member("w1", &[process(1)]), &member("w2", &[process(2)]));
    let mut run = |table: &mut Table, ask: &Ask| {
        let events = table.decide(ask, now(1)).unwrap();
        disk.append(&events, None).unwrap();
        for event in &events {
            table.apply(event);
        }
        disk.compact_if_due(table, Live::default()).unwrap();
    };
    let release = Ask::Release {
        name: name("x").into(),
        directory: false,
        by,
    };
    // As many as a new journal sets aside.
    for _ in 1..65_536 {
        run(&mut table, &claim("x", by));
        run(&mut table, &release);
        let nameless: Vec<_> = table.nameless().collect();
        for ino in nameless {
            run(&mut table, &Ask::Forget { ino });
        }
    }
    run(&mut table, &claim("x", by));
    let creation = Creation {
        shape: Shape::File,
        mode: 0o600,
        uid: 0,
        gid: 0,
    };
    let queue = Ask::Queue {
        name: name("x"),
        by: next,
        creation,
    };
    run(&mut table, &queue);
    fill(dir);
    run(&mut table, &release);
    assert_eq!(table.lease(&name("x")).unwrap().token.0, 65_537);
}

#[test]
fn regression_on_a_full_disk_a_new_server_has_the_room_that_the_one_before_has_set_aside() {
    if !root_or_skip("mount a small filesystem") {
        return;
    }
    let small = Small::new(8192);
    let dir = small.0.path();
    let by = &member("w1", &[process(1)]);
    let mut table = {
        let recovered = journal::read(dir, &boot(), 9999, false).unwrap();
        let mut disk = Disk::begin(dir, boot(), &recovered, &another()).unwrap();
        let mut table = recovered.table;
        for number in 0..500 {
            let events = table.decide(&claim(&format!("n{number}"), by), now(1));
            let events = events.unwrap();
            disk.append(&events, None).unwrap();
            for event in &events {
                table.apply(event);
            }
        }
        table
    };
    fill(dir);
    let recovered = journal::read(dir, &boot(), 9999, false).unwrap();
    assert!(recovered.table == table);
    let mut disk = Disk::begin(dir, boot(), &recovered, &another()).unwrap();
    // Something else takes the space that the journal has given back.
    fill(dir);
    for number in 0..500 {
        let release = Ask::Release {
            name: name(&format!("n{number}")).into(),
            directory: false,
            by,
        };
        let events = table.decide(&release, now(1)).unwrap();
        disk.append(&events, None).unwrap();
        for event in &events {
            table.apply(event);
        }
    }
}

/// Writes until there is no room left.
pub fn fill(dir: &Path) {
    let mut options = OpenOptions::new();
    let mut file = options
        .create(true)
        .append(true)
        .open(dir.join("fill"))
        .unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
}
