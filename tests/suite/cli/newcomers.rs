//! Faults that newcomers met.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::support::{CLAIMFS, Mount, TempDir, root_or_skip, text};

#[test]
fn regression_a_command_without_a_name_before_it_is_not_run() {
    let Some(mount) = Mount::new() else { return };
    let output = mount.claimfs(&["run", "--", "true", "x"]).output().unwrap();
    let (code, out, err) = text(&output);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("there is no NAME before '--'"), "{err}");
    assert!(mount.claims().is_empty());
    let output = mount
        .claimfs(&["run", "x", "--", "echo", "--", "y"])
        .output();
    let (code, out, _) = text(&output.unwrap());
    assert_eq!((code, out.as_str()), (0, "-- y\n"));
}

#[test]
fn regression_a_time_after_wait_is_the_limit_of_reserve_too() {
    let Some(mount) = Mount::new() else { return };
    let temp = TempDir::new();
    let (held, free) = (temp.path().join("held"), temp.path().join("free"));
    let reserve = |session: &str, words: &[&str]| {
        let mut command = mount.claimfs(&[]);
        command.arg("reserve").args(words).current_dir(temp.path());
        let output = command.env("CLAIMFS_SESSION", session).output().unwrap();
        text(&output)
    };
    let mut other = mount.actor(Some("other"));
    let name = format!("paths{}", held.display());
    let parent = format!("paths{}", temp.path().display());
    mount.run(&format!("mkdir -p {parent}"));
    let fd = other
        .open(&name, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY)
        .unwrap();
    other.close(fd).unwrap();
    for words in [&["--wait", "0.2s", "held"], &["held", "--wait", "0.2s"]] {
        let (code, _, err) = reserve("me", words);
        assert_eq!(code, 1, "{err}");
        assert!(err.contains("held"), "{err}");
    }
    let (code, _, err) = reserve("me", &["--wait", "1s", "free"]);
    assert_eq!((code, err.as_str()), (0, ""));
    // Nothing of the name of the time was reserved.
    let leases = mount.read("leases");
    assert!(
        !leases.contains("1s\"") && !leases.contains("0.2s\""),
        "{leases}"
    );
    assert!(leases.contains(&format!("paths{}", free.display())) || err.is_empty());
}

#[test]
fn regression_a_claim_of_another_user_with_the_same_session_id_is_not_ours() {
    if !root_or_skip("be two users") {
        return;
    }
    let Some(mount) = Mount::shared(&[]) else {
        return;
    };
    let mut holder = mount.actor(Some("w"));
    holder.claim("k").unwrap();
    let user = |words: &[&str]| {
        let mut command = mount.claimfs(words);
        command.env("CLAIMFS_SESSION", "w").uid(4242);
        text(&command.output().unwrap())
    };
    for words in [&["claim", "k"][..], &["claim", "--all", "k"]] {
        let (code, out, err) = user(words);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains("another user or another sandbox"), "{err}");
    }
    assert_eq!(user(&["show", "--quiet", "k"]).0, 1);
    // A process of the same session is told that it has it.
    let mut own = mount.claimfs(&["claim", "k"]);
    assert_eq!(
        own.env("CLAIMFS_SESSION", "w").status().unwrap().code(),
        Some(0)
    );
}

#[test]
fn regression_a_file_on_another_file_system_over_the_mount_is_no_claim() {
    if !root_or_skip("mount over a mount") {
        return;
    }
    let Some(mount) = Mount::new() else { return };
    let temp = TempDir::new();
    let (dir, of) = (mount.dir.display(), temp.path().display());
    let over = [
        format!("mount -t tmpfs tmpfs {dir}/claims"),
        format!(
            "mount -t tmpfs tmpfs {of} && cd {of} && mkdir u w l l/claims && touch l/leases &&
             mount -t overlay -o lowerdir=l,upperdir=u,workdir=w overlay {dir}"
        ),
    ];
    for over in over {
        let script = format!(
            "{over} || exit 9
             for verb in 'claim x' 'run x -- true' 'ls' 'reserve /usr/x'; do
                 '{CLAIMFS}' --mount {dir} $verb && exit 8
                 [ $? = 3 ] || exit 7
             done"
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        let (code, out, err) = text(&command.output().unwrap());
        assert_eq!(code, 0, "{out}{err}");
        assert_eq!(err.matches("lies over it or is a copy").count(), 4, "{err}");
    }
    assert!(mount.claims().is_empty());
}
