use std::fs;
use std::process::Command;

use super::tree;
use crate::support::{Mount, TempDir, plain, skip, text};

/// A script in the mount, as another session than that of the reservations: its exit code, and what
/// it prints and says.
fn stranger(mount: &Mount, script: &str) -> (i32, String, String) {
    let mut command = mount.sh(script);
    command.env("CLAIMFS_SESSION", "stranger");
    text(&command.output().unwrap())
}

fn is_there(tool: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {tool}")])
        .output()
        .unwrap();
    if !found.status.success() {
        skip(&format!("{tool} is not installed"));
    }
    found.status.success()
}

#[test]
fn shells_make_directories_and_reserve() {
    let Some(mount) = Mount::new() else { return };
    let script = "
        mkdir -p paths/w/a/b && mkdir -p paths/w/a/b
        : > paths/w/a/b/f && echo reserved
        (set -C; : > paths/w/a/b/f) 2> /dev/null || echo refused
        mkdir -p paths/w/a/b/f/g 2> /dev/null || echo below
        (: > paths/w/a) 2> /dev/null || echo above
        echo text > paths/w/a/b/f; cat paths/w/a/b/f
        cp /etc/hostname paths/w/copy && echo copied
        touch paths/w/touched && echo touched
        realpath paths/w/../w/a/b/f | sed s,$PWD/,,
        rmdir paths/w/a/b 2> /dev/null || echo kept
        rm -r paths/w/a 2> /dev/null; find paths -type f | sort";
    let (code, out, said) = text(
        &mount
            .sh(script)
            .env("CLAIMFS_SESSION", "me")
            .output()
            .unwrap(),
    );
    let lines: Vec<&str> = out.lines().collect();
    let expected = [
        "reserved",
        "refused",
        "below",
        "above",
        "text",
        "copied",
        "touched",
        "paths/w/a/b/f",
        "kept",
        "paths/w/copy",
        "paths/w/touched",
    ];
    assert_eq!((code, lines), (0, expected.to_vec()), "{said}");
}

#[test]
fn moving_a_large_file_here_fails_before_it_is_deleted() {
    let Some(mount) = Mount::new() else { return };
    let temp = TempDir::new();
    let file = temp.path().join("file");
    mount.run("mkdir paths/w");
    for (size, code) in [(4097, 1), (4096, 0)] {
        fs::write(&file, vec![b'x'; size]).unwrap();
        let (seen, _, said) = stranger(&mount, &format!("mv {} paths/w/{size}", file.display()));
        assert_eq!(seen, code, "{said}");
        assert_eq!(file.exists(), code == 1);
    }
}

/// What strangers do, with `$M` the mount: none of it takes a reservation.
const STRANGERS: &[&str] = &[
    "rm -rf paths/w paths/v",
    "rm -rf paths/*",
    "find paths -delete",
    "find paths -empty -delete",
    "find paths -type f -exec truncate -s 0 {} +",
    "rsync -r --delete /var/empty/ paths/",
    "busybox rm -rf paths",
    "python3 -c \"import shutil; shutil.rmtree('paths', ignore_errors=True)\"",
    "node -e \"require('fs').rmSync('paths', {recursive: true, force: true})\"",
    "mv paths/w /tmp/claimfs-never",
    "mv paths/w/a/f paths/w/g",
    "chmod -R 777 paths; chown -R 0:0 paths",
    "for f in paths/w/a/*; do : > $f; done",
    "tar cf /dev/null --remove-files paths",
    "git init -q paths/w",
];

#[test]
fn strangers_take_nothing() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    mount.run("mkdir -p paths/w/a paths/v");
    let control = me.open("control", libc::O_WRONLY).unwrap();
    me.write(control, "{\"reserve\":[\"/w/a/f\",\"/v/g\",\"/w/h\"]}\n")
        .unwrap();
    let held = mount.read("leases");
    for script in STRANGERS {
        stranger(&mount, script);
        let files: Vec<String> = tree(&mount);
        let files: Vec<&String> = files.iter().filter(|path| !path.ends_with('/')).collect();
        for path in ["v/g", "w/a/f", "w/h"] {
            assert!(
                files.iter().any(|there| *there == path),
                "{script}: {files:?}"
            );
        }
        let now = mount.read("leases");
        let ours = |text: &str| -> Vec<String> {
            let lines = text
                .lines()
                .filter(|line| line.contains("\"session\":\"me\""));
            lines.map(String::from).collect()
        };
        assert_eq!(ours(&now), ours(&held), "{script}");
    }
}

#[test]
fn walkers_read_all_and_stop_nowhere() {
    let Some(mount) = Mount::new() else { return };
    let mut me = mount.actor(Some("me"));
    let control = me.open("control", libc::O_WRONLY).unwrap();
    me.write(control, "{\"reserve\":[\"/w/a/f\",\"/w/b c/g\"]}\n")
        .unwrap();
    let all = "paths\npaths/w\npaths/w/a\npaths/w/a/f\npaths/w/b c\npaths/w/b c/g\n";
    assert_eq!(mount.run("find paths | sort"), all);
    let listed = mount.run("ls -R paths");
    assert!(listed.contains("paths/w/b c:\ng\n"), "{listed}");
    assert_eq!(mount.run("find paths -type f | wc -l"), "2\n");
    assert_eq!(
        mount.run("grep -rl '\"session\":\"me\"' paths | sort"),
        "paths/w/a/f\npaths/w/b c/g\n"
    );
    assert_eq!(
        mount.run("tar cf - paths 2> /dev/null | tar tf - | sort | head -2"),
        "paths/\npaths/w/\n"
    );
    if is_there("rg") {
        assert_eq!(
            mount.run("rg -l --hidden session paths | sort"),
            "paths/w/a/f\npaths/w/b c/g\n"
        );
    }
    if is_there("git") {
        // A repository around the mount sees no change in it.
        let (code, said, _) = stranger(&mount, "git init -q --template= paths/w 2>&1");
        assert!(
            code != 0 && said.contains("Operation not permitted"),
            "{said}"
        );
        let (code, said, _) = stranger(&mount, "cd paths/w/a && git status 2>&1");
        assert!(code != 0 && said.contains("not a git repository"), "{said}");
        assert!(
            tree(&mount)
                .iter()
                .filter(|path| !path.ends_with('/'))
                .count()
                >= 2
        );
    }
}

#[test]
fn python_and_node_make_what_they_make_anywhere() {
    let Some(mount) = Mount::new() else { return };
    let python = "python3 -c \"
import os
os.makedirs('paths/py/a/b')
os.makedirs('paths/py/a/b', exist_ok=True)
open('paths/py/a/b/f', 'x').close()
try: open('paths/py/a/b/f', 'x')
except FileExistsError: print('held')
try: os.makedirs('paths/py/a/b/f/g', exist_ok=True)
except NotADirectoryError: print('below')
try: open('paths/py/a', 'w')
except IsADirectoryError: print('above')
os.remove('paths/py/a/b/f')
\"";
    assert_eq!(mount.run(python), "held\nbelow\nabove\n");
    if is_there("node") {
        let node = "node -e \"
const fs = require('fs');
fs.mkdirSync('paths/js/a/b', {recursive: true});
fs.mkdirSync('paths/js/a/b', {recursive: true});
fs.writeFileSync('paths/js/a/b/f', '', {flag: 'wx'});
try { fs.writeFileSync('paths/js/a/b/f', '', {flag: 'wx'}) } catch (e) { console.log(e.code) }
try { fs.mkdirSync('paths/js/a/b/f/g', {recursive: true}) } catch (e) { console.log(e.code) }
console.log(fs.realpathSync('paths/js/a/../a/b/f').endsWith('paths/js/a/b/f'))
\"";
        assert_eq!(mount.run(node), "EEXIST\nENOTDIR\ntrue\n");
    }
}

#[test]
fn who_makes_directories_beside_who_removes_empty_ones_is_never_refused() {
    let Some(mount) = Mount::new() else { return };
    let mut cleaner =
        mount.sh("while :; do find paths -mindepth 1 -empty -delete 2> /dev/null; done");
    let cleaner = crate::support::Guard::spawn(&mut cleaner);
    let maker = "python3 -c \"
import os
for at in range(150):
    os.makedirs(f'paths/w/{at % 7}/x/{at}', exist_ok=True)
    open(f'paths/w/{at % 7}/x/{at}/f', 'x').close()
    os.remove(f'paths/w/{at % 7}/x/{at}/f')
print('done')
\"";
    let mut command = mount.sh(maker);
    plain(&mut command);
    assert_eq!(
        text(&command.output().unwrap()),
        (0, "done\n".into(), String::new())
    );
    drop(cleaner);
}
