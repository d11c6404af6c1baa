//! What `mount-scripts/package` builds, the published crate, and what installs of either.
//!
//! `CLAIMFS_PROFILE=quick mount-scripts/package DIR` builds them in a minute or two, and
//! `CLAIMFS_TEST_PACKAGES=DIR` has them tested, as in `.ci/run`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::machine::{LOGIN, Machine};
use crate::cli::try_it;
use crate::support::{TempDir, can_mount, packages, root_or_skip, skip, text};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The static binary and the package.
fn built() -> Option<(PathBuf, PathBuf)> {
    let Some(dir) = packages() else {
        skip(
            "CLAIMFS_TEST_PACKAGES does not say where 'mount-scripts/package DIR' has built packages",
        );
        return None;
    };
    let mut paths = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let package = paths.find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    Some((dir.join("claimfs"), package.unwrap()))
}

/// What a command prints, which must succeed.
fn run(words: &[&str], paths: &[&Path]) -> String {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(paths).current_dir("/");
    let (code, out, err) = text(&command.output().unwrap());
    assert_eq!(code, 0, "{words:?}: {err}");
    out
}

/// The paths below a directory that are no directories, but for dpkg's own.
fn files(root: &Path) -> BTreeSet<String> {
    let list = run(&["find", "-L"], &[root]);
    let paths = list.lines().map(|path| {
        path.strip_prefix(root.to_str().unwrap())
            .unwrap()
            .to_owned()
    });
    paths
        .filter(|path| !path.starts_with("/var/lib/dpkg") && !path.starts_with("/var/log"))
        .filter(|path| !root.join(&path[1.min(path.len())..]).is_dir())
        .collect()
}

/// An empty Debian tree, which has dpkg's directories and merged `/usr`.
fn tree(temp: &TempDir) -> PathBuf {
    let root = temp.path().join("root");
    for dir in [
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "etc",
        "dev",
        "proc",
        "tmp",
        "var/lib/dpkg/info",
        "var/lib/dpkg/updates",
    ] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for dir in ["bin", "sbin", "lib"] {
        std::os::unix::fs::symlink(format!("usr/{dir}"), root.join(dir)).unwrap();
        // Of another package: else dpkg would remove the directory, too.
        fs::write(root.join("usr").join(dir).join("other"), "").unwrap();
    }
    for file in ["status", "available"] {
        fs::write(root.join("var/lib/dpkg").join(file), "").unwrap();
    }
    root
}

#[test]
fn the_package_is_installed_in_a_fresh_tree_mounts_there_and_leaves_nothing_when_it_is_removed() {
    if !root_or_skip("install a package") || !can_mount() {
        return;
    }
    let Some((_, package)) = built() else {
        return;
    };
    let temp = TempDir::new();
    let root = tree(&temp);
    let before = files(&root);
    let dpkg = |words: &[&str], paths: &[&Path]| {
        let root = format!("--root={}", root.display());
        let words: Vec<&str> = ["dpkg", &root]
            .iter()
            .copied()
            .chain(words.iter().copied())
            .collect();
        run(&words, paths)
    };
    dpkg(&["--install"], &[&package]);
    let installed = files(&root);
    for file in [
        "/usr/bin/claimfs",
        "/usr/sbin/mount.fuse.claimfs",
        "/usr/lib/systemd/system/claimfs@.service",
        "/usr/lib/systemd/user/claimfs.service",
        "/usr/share/bash-completion/completions/claimfs",
        "/usr/share/zsh/vendor-completions/_claimfs",
        "/usr/share/fish/vendor_completions.d/claimfs.fish",
        "/usr/share/doc/claimfs/AGENTS.md",
        "/usr/share/doc/claimfs/README.md",
        "/usr/share/doc/claimfs/copyright",
    ] {
        assert!(installed.contains(file), "{file} is not in {installed:?}");
    }
    for page in [
        "1/claimfs.1",
        "1/claimfs-run.1",
        "5/claimfs.5",
        "7/claimfs.7",
    ] {
        let page = format!("/usr/share/man/man{page}.gz");
        assert!(installed.contains(&page), "{page}");
    }
    // It depends on nothing.
    let fields = run(&["dpkg-deb", "--field"], &[&package]);
    assert!(
        !fields.contains("Depends:") && fields.contains("Recommends: fuse3"),
        "{fields}"
    );
    let version = format!("claimfs {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        run(
            &[
                "chroot",
                root.to_str().unwrap(),
                "/usr/bin/claimfs",
                "--version"
            ],
            &[]
        ),
        version
    );
    // There is no library, no shell and no other program in this tree.
    let script = r#"set -e
        mount --bind /dev "$1/dev"; mount -t proc proc "$1/proc"
        chroot "$1" /usr/bin/claimfs mount /tmp/claims
        chroot "$1" /usr/bin/claimfs run --mount /tmp/claims job -- /usr/bin/claimfs show --mount /tmp/claims job
        chroot "$1" /usr/bin/claimfs umount /tmp/claims"#;
    let told = run(&["unshare", "--mount", "sh", "-c", script, "sh"], &[&root]);
    assert!(told.contains("job") && told.contains("claimfs"), "{told}");
    remove_while_it_is_mounted(&root);
    fs::remove_dir_all(root.join("var/lib/claimfs")).unwrap();
    dpkg(&["--purge", "claimfs"], &[]);
    assert_eq!(files(&root), before);
    assert!(
        !root.join("usr/share/doc").exists(),
        "nor are there empty directories"
    );
}

/// Removes the package in the tree while two of its mounts are there, one of which is in use. For
/// that a shell is put there, and taken away again.
fn remove_while_it_is_mounted(root: &Path) {
    let script = r#"set -e
        cd "$1"
        cp "$(command -v busybox)" usr/bin/busybox
        ldd usr/bin/busybox | grep -o '/[^ ]*' | sort -u > tmp/libraries
        while read -r library; do mkdir -p ".${library%/*}"; cp "$library" ".$library"; done < tmp/libraries
        for tool in sh sed timeout sleep; do ln -s busybox "usr/bin/$tool"; done
        mount --bind /dev dev; mount -t proc proc proc
        chroot . claimfs mount /tmp/free > tmp/said
        chroot . claimfs mount /tmp/held > tmp/said
        chroot . claimfs run --mount /tmp/held job -- sleep 1000 & run=$!
        until [ -e tmp/held/claims/job ]; do :; done
        dpkg --root="$1" --remove claimfs | grep '^claimfs:'
        # Its server is started again by the program that is open.
        [ ! -e usr/bin/claimfs ]
        kill -9 "$(cat var/lib/claimfs/tmp-held/serving)"
        grep -c '"name":"job"' tmp/held/leases
        kill $run; wait $run || true
        umount tmp/held
        until flock -n var/lib/claimfs/tmp-held/lock true; do :; done
        umount --lazy dev proc
        for tool in sh sed timeout sleep busybox; do rm "usr/bin/$tool"; done
        while read -r library; do rm ".$library"; done < tmp/libraries
        rmdir -p --ignore-fail-on-non-empty lib64 usr/lib/*-linux-gnu || true
        rm -r tmp/*"#;
    let said = run(&["unshare", "--mount", "sh", "-c", script, "sh"], &[root]);
    assert_eq!(
        said,
        "claimfs: /tmp/free: unmounted, since nothing was held or open there\n\
         claimfs: /tmp/held: still mounted: it serves on until 'umount /tmp/held' or the next boot, and what is held there stays held\n\
         1\n"
    );
}

#[test]
fn before_a_removal_a_mount_that_is_free_is_unmounted_and_any_other_is_left() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.done("mkdir /run/bin && ln -s $claimfs /run/bin/claimfs");
    let prerm = format!(
        "PATH=/run/bin:$PATH {}/mount-scripts/prerm",
        env!("CARGO_MANIFEST_DIR")
    );
    assert_eq!(machine.done(&format!("{prerm} remove")), "");
    machine.done(&format!("$claimfs mount && {LOGIN} $claimfs mount"));
    let left = |dir: &str| {
        format!(
            "claimfs: {dir}: still mounted: it serves on until 'umount {dir}' or the next boot, and what is held there stays held\n"
        )
    };
    let user = left("/run/user/4242/claims");
    for hold in [
        "$claimfs run --mount /run/claims job -- env",
        "cd /run/claims &&",
    ] {
        let said = machine.done(&format!("{hold} {prerm} remove"));
        assert_eq!(said, left("/run/claims") + &user);
    }
    assert_eq!(machine.done(&format!("{prerm} upgrade")), "");
    assert_eq!(machine.mounts().len(), 2);
    machine.done("$claimfs mount '/srv/a b%20'");
    let said = machine.done(&format!("{prerm} remove"));
    let free = |dir| format!("claimfs: {dir}: unmounted, since nothing was held or open there\n");
    assert_eq!(said, free("/run/claims") + &user + &free("/srv/a b%20"));
    assert_eq!(machine.mounts(), ["/run/user/4242/claims"]);
}

#[test]
fn the_static_binary_needs_no_library_and_tells_the_story() {
    let Some((program, _)) = built() else {
        return;
    };
    let headers = run(&["readelf", "--program-headers", "--wide"], &[&program]);
    assert!(!headers.contains("INTERP"), "{headers}");
    let Some(said) = try_it::play(&["setsid", "--wait"], |command| {
        command.env("CLAIMFS", &program);
    }) else {
        return;
    };
    try_it::assert_told(&said);
}

#[test]
fn the_published_crate_is_small_and_has_no_corpus() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["package", "--list", "--allow-dirty", "--offline"]);
    let output = cargo
        .current_dir(repository())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (code, list, err) = text(&output);
    assert_eq!(code, 0, "{err}");
    assert!(list.lines().any(|file| file == "src/main.rs"), "{list}");
    let corpus = list
        .lines()
        .find(|file| file.contains("corpus/") || file.starts_with(".ci"));
    assert_eq!(corpus, None);
    let size = |file: &str| fs::metadata(repository().join(file)).map_or(0, |there| there.len());
    for file in list.lines() {
        assert!(size(file) <= 64 * 1024, "{file} has {} bytes", size(file));
    }
    let all: u64 = list.lines().map(size).sum();
    assert!(all <= 4 * 1024 * 1024, "{all} bytes");
}
