//! Mounts of other users: which one the command takes, and what it says.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use crate::support::{CLAIMFS, Mount, TempDir, plain, root_or_skip, text};

const USER: [&str; 4] = ["setpriv", "--reuid=1001", "--regid=1001", "--clear-groups"];

/// A script as uid 1001, or as root, in a mount namespace that has these mounts alone.
fn sh(user: bool, mounts: &[&Mount], script: &str) -> (i32, String, String) {
    // Ignore the mounts of tests that run at the same time.
    let alone = r#"keep=$1; shift
        grep -o '[^ ]* / /[^ ]* .* - fuse.claimfs ' /proc/self/mountinfo | cut -d' ' -f3 | while read -r dir; do
            dir=$(printf "$(printf '%s' "$dir" | sed 's/%/%%/g')")
            case " $keep " in *" $dir "*) ;; *) umount -l "$dir" ;; esac
        done
        exec "$@""#;
    let keep: Vec<&str> = mounts
        .iter()
        .map(|mount| mount.dir.to_str().unwrap())
        .collect();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", alone, "sh", &keep.join(" ")]);
    if user {
        command.args(USER);
    }
    command.args(["sh", "-c", script]);
    plain(&mut command);
    command.env("claimfs", CLAIMFS).env_remove("CLAIMFS_MOUNT");
    command.env("CLAIMFS_SESSION", "w1");
    text(&command.current_dir("/").output().unwrap())
}

/// A directory that everybody may enter, as the mounts' are.
fn open(mount: &Mount) -> &Mount {
    let parent = mount.dir.parent().unwrap();
    fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
    mount
}

#[test]
fn a_mount_that_the_caller_cannot_enter_does_not_count_and_of_two_that_answer_none_is_chosen() {
    if !root_or_skip("be another user") {
        return;
    }
    let (Some(public), Some(private), Some(second)) = (
        Mount::with(&["--allow-other"]),
        Mount::new(),
        Mount::with(&["--allow-other"]),
    ) else {
        return;
    };
    let [public, private, second] = [&public, &private, &second].map(open);
    let claim = "\"$claimfs\" claim x";
    let (code, _, err) = sh(true, &[public, private], claim);
    assert_eq!(code, 0, "{err}");
    assert!(
        public
            .record("x")
            .is_none_or(|record| record["uid"] == 1001)
    );
    // Root may enter both.
    let (code, _, err) = sh(false, &[public, private], claim);
    assert!(
        code == 3 && err.contains("several claimfs are mounted here"),
        "{err}"
    );
    for mount in [public, private] {
        assert!(err.contains(mount.dir.to_str().unwrap()), "{err}");
    }
    let (code, _, err) = sh(true, &[public, private, second], claim);
    let shown = |mount: &Mount| err.contains(mount.dir.to_str().unwrap());
    assert!(
        code == 3 && shown(public) && shown(second) && !shown(private),
        "{err}"
    );
    // A dead one may be the one that is meant.
    let mut dead = Mount::with(&["--allow-other"]).unwrap();
    open(&dead);
    dead.kill();
    let (code, _, err) = sh(true, &[public, &dead], claim);
    assert!(
        code == 3 && err.contains("several claimfs are mounted here"),
        "{err}"
    );
    // None is left.
    let private_too = Mount::new().unwrap();
    let (code, _, err) = sh(true, &[private, open(&private_too)], claim);
    assert!(
        code == 3
            && err.contains("are other users' and admit nobody else")
            && err.contains("--allow-other"),
        "{err}"
    );
    // The scripts find the same one.
    let lib = concat!(env!("CARGO_MANIFEST_DIR"), "/mount-scripts/claims-lib.sh");
    let script = format!("operands=0 usage=; set -- --; . {lib}; echo $mount");
    let (code, out, err) = sh(true, &[public, private], &script);
    assert_eq!(
        (code, out.trim()),
        (0, public.dir.to_str().unwrap()),
        "{err}"
    );
    assert_eq!(sh(true, &[public, second], &script).0, 3);
    assert_eq!(sh(true, &[private], &script).0, 3);
}

#[test]
fn the_remedy_for_another_users_mount_is_one_that_helps() {
    if !root_or_skip("be another user") {
        return;
    }
    let Some(mut mount) = Mount::new() else {
        return;
    };
    open(&mount);
    let dir = mount.dir.to_str().unwrap().to_owned();
    let cases = [
        (
            "ls",
            "the mount of another user (uid 0), which admits nobody else",
        ),
        (
            "--mount $dir ls",
            "the mount of another user (uid 0), which admits nobody else",
        ),
        (
            "umount $dir",
            "uid 0 mounted it; that user or root can unmount it",
        ),
        (
            "upgrade $dir",
            "uid 0 mounted it; that user or root can upgrade it",
        ),
        (
            "mount $dir",
            "by uid 0, for that user alone; name another directory, or have that user or root unmount it",
        ),
    ];
    for (words, said) in cases {
        let script = format!(
            "export HOME=/tmp; \"$claimfs\" {}",
            words.replace("$dir", &dir)
        );
        let (code, _, err) = sh(true, &[&mount], &script);
        assert!(code == 3 && err.contains(said), "{words}: {err}");
        assert!(
            !err.contains(&format!("claimfs mount {dir}")),
            "{words}: {err}"
        );
        assert!(
            !err.contains(&format!("claimfs umount {dir}")),
            "{words}: {err}"
        );
    }
    mount.stop();
    mount.start(&["--allow-other"]);
    mount.kill();
    for words in ["ls", "doctor"] {
        let (code, out, err) = sh(true, &[&mount], &format!("\"$claimfs\" {words}"));
        assert!(
            code == 3
                && format!("{out}{err}")
                    .contains("have uid 0, who mounted it, mount it again with 'claimfs mount"),
            "{words}: {out}{err}"
        );
    }
    let (_, _, err) = sh(false, &[&mount], "\"$claimfs\" ls");
    assert!(
        err.contains(&format!(
            "; mount it again with 'claimfs mount --allow-other {dir}'"
        )),
        "{err}"
    );
}

#[test]
fn the_remedy_for_a_directory_that_is_no_mount_is_one_that_helps() {
    if !root_or_skip("be another user") {
        return;
    }
    let Some(mount) = Mount::with(&["--allow-other"]) else {
        return;
    };
    open(&mount);
    let temp = TempDir::new();
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = |name: &str| temp.path().join(name);
    for name in ["empty", "full/x", "mine", "closed/x"] {
        fs::create_dir_all(path(name)).unwrap();
    }
    chown(path("mine"), Some(1001), None).unwrap();
    fs::set_permissions(path("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(path("file"), "").unwrap();
    let here = |dir: &Path| format!("mount one with 'claimfs mount {}'", dir.display());
    let other = String::from(
        "name one with --mount DIR, or mount one on an empty directory with 'claimfs mount DIR'",
    );
    let in_it = format!("name that with '--mount {}'", mount.dir.display());
    let cases = [
        (false, path("empty"), here(&path("empty"))),
        (true, path("empty"), other.clone()),
        (true, path("mine"), here(&path("mine"))),
        (false, path("full"), other.clone()),
        (false, path("file"), format!("not a directory; {other}")),
        (false, path("file/x"), other),
        (false, path("none"), here(&path("none"))),
        (
            true,
            path("closed/x"),
            String::from("have the directories above it opened to you"),
        ),
        (true, mount.path("claims"), in_it.clone()),
        (true, mount.path("leases"), in_it),
    ];
    for (user, dir, said) in cases {
        let script = format!("\"$claimfs\" --mount {} ls", dir.display());
        let (code, _, err) = sh(user, &[&mount], &script);
        assert!(code == 3 && err.contains(&said), "{}: {err}", dir.display());
    }
    for verb in ["umount", "upgrade"] {
        let script = format!("\"$claimfs\" {verb} {}", mount.path("claims").display());
        let (code, _, err) = sh(false, &[&mount], &script);
        let said = format!("it is in the one on {0}, so name {0}", mount.dir.display());
        assert!(code == 3 && err.contains(&said), "{err}");
    }
}
