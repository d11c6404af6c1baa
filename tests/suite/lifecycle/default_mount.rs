//! `claimfs mount` without a directory, and `--if-needed`.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::{CLAIMFS, Guard, can_mount, children, plain, root_or_skip, text, wait_until};

/// A machine of a test's own: a mount namespace without claimfs, with an empty `/run` and
/// `/var/lib`, a user 4242 (which fusermount3 looks for) and a `/dev/fuse` for everybody, and a pid
/// namespace whose processes end with it.
struct Machine {
    init: u32,
    _unshare: Guard,
}

/// Prepares the namespaces. Mounts of tests that run at the same time are left.
const BEGIN: &str = "
    for dir in /run /var/lib /srv; do mount -t tmpfs -o mode=755 claimfs-test $dir; done
    grep -o '[^ ]* / /[^ ]* .* - fuse.claimfs ' /proc/self/mountinfo | cut -d' ' -f3 |
        while read -r dir; do umount -l \"$(printf \"$dir\")\"; done
    mknod /run/fuse c 10 229 && chmod 666 /run/fuse && mount --bind /run/fuse /dev/fuse
    { cat /etc/passwd; echo user:x:4242:4242::/run/user/4242/home:/bin/sh; } > /run/passwd
    mount --bind /run/passwd /etc/passwd
    mkdir -p /run/user/4242/home && chown -R 4242:4242 /run/user/4242 && chmod 700 /run/user/4242
    echo begun
    exec sleep infinity";

/// The words before a command of a user with a login, and of one without.
const LOGIN: &str = "setpriv --reuid=4242 --regid=4242 --clear-groups \
    env HOME=/run/user/4242/home XDG_RUNTIME_DIR=/run/user/4242";
const BARE: &str = "setpriv --reuid=4242 --regid=4242 --clear-groups env HOME=/run/user/4242/home";

impl Machine {
    fn new() -> Option<Self> {
        if !can_mount() || !root_or_skip("make a mount namespace") {
            return None;
        }
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        unshare.args(["sh", "-ec", BEGIN]).stdout(Stdio::piped());
        let mut unshare = Guard::spawn(unshare.current_dir("/"));
        assert_eq!(unshare.line(), "begun");
        let init = children(unshare.0.id())[0];
        Some(Self {
            init,
            _unshare: unshare,
        })
    }

    /// What a script does there, with the program as `$claimfs`.
    fn sh(&self, script: &str) -> (i32, String, String) {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--pid"]);
        command.args(["--", "sh", "-c", script]);
        plain(&mut command);
        command.env_remove("XDG_RUNTIME_DIR");
        command.env_remove("XDG_STATE_HOME");
        command.env_remove("CLAIMFS_MOUNT");
        command.env("claimfs", CLAIMFS).current_dir("/");
        text(&command.output().unwrap())
    }

    /// What a command of these words does, which must succeed.
    fn done(&self, words: &str) -> String {
        let (code, out, err) = self.sh(words);
        assert_eq!((code, &*err), (0, ""), "{words}: {out}");
        out
    }

    /// The sentence with which it refuses.
    fn refused(&self, words: &str) -> String {
        let (code, out, err) = self.sh(words);
        assert_eq!((code, &*out), (3, ""), "{words}: {err}");
        err
    }

    /// The results of twenty that run at once, each as its code and its words, sorted.
    fn twenty(&self, words: &str) -> Vec<String> {
        let script = format!(
            "for n in $(seq 20); do (said=$({words} 2>&1); echo \"$? $said\") & done; wait"
        );
        let mut all: Vec<String> = self.done(&script).lines().map(str::to_owned).collect();
        all.sort();
        assert_eq!(all.len(), 20, "{all:?}");
        all
    }

    /// The directories of its mounts.
    fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", self.init)).unwrap();
        let lines = table
            .lines()
            .filter(|line| line.contains(" - fuse.claimfs "));
        lines
            .map(|line| line.split(' ').nth(4).unwrap().to_owned())
            .collect()
    }

    /// Kills the processes of the mount with this state directory, and waits for their end.
    fn kill(&self, state: &str) {
        self.done(&format!(
            "kill -9 $(cat {state}/lock) $(cat {state}/serving)"
        ));
        let is_dead = || self.sh(&format!("flock -n {state}/serving true")).0 == 0;
        wait_until("the server is gone", is_dead);
    }
}

const ROOTS: &str = "/var/lib/claimfs/run-claims";
const USERS: &str = "/run/user/4242/home/.local/state/claimfs/run-user-4242-claims";

#[test]
fn without_a_directory_root_mounts_at_run_claims_and_unmounts_that_alone() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let said = machine.done("umask 077; $claimfs mount");
    assert_eq!(
        said,
        format!("claimfs: mounted on /run/claims; its log is {ROOTS}/log\n")
    );
    assert_eq!(machine.mounts(), ["/run/claims"]);
    machine.done("$claimfs run job -- true");
    let made = machine.done("$claimfs mount --json /srv/other");
    assert_eq!(
        made,
        "{\"mount\":\"/srv/other\",\"made\":true,\"log\":\"/var/lib/claimfs/srv-other/log\"}\n",
        "a directory that is given is mounted on beside another mount"
    );
    let out = machine.done("$claimfs umount --json");
    assert_eq!(out, "{\"mount\":\"/run/claims\",\"unmounted\":true}\n");
    assert_eq!(machine.mounts(), ["/srv/other"]);
    assert_eq!(
        machine.done("stat -c %a /run/claims"),
        "755\n",
        "whatever the umask"
    );
    assert_eq!(
        machine.refused("$claimfs umount"),
        "claimfs: /run/claims: no claimfs is mounted here; give the directory to unmount: /srv/other\n"
    );
    assert_eq!(machine.mounts(), ["/srv/other"]);
}

#[test]
fn without_a_directory_a_user_mounts_in_the_runtime_directory_which_has_to_be_theirs() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let out = machine.done(&format!("{LOGIN} $claimfs mount --json"));
    assert_eq!(
        out,
        format!("{{\"mount\":\"/run/user/4242/claims\",\"made\":true,\"log\":\"{USERS}/log\"}}\n")
    );
    assert_eq!(machine.mounts(), ["/run/user/4242/claims"]);
    machine.done(&format!("{LOGIN} $claimfs umount"));
    assert!(machine.mounts().is_empty());
    for (runtime, why) in [
        ("", "XDG_RUNTIME_DIR is not set"),
        ("XDG_RUNTIME_DIR=", "XDG_RUNTIME_DIR is not set"),
        (
            "XDG_RUNTIME_DIR=run",
            "XDG_RUNTIME_DIR=run: not an absolute path",
        ),
        (
            "XDG_RUNTIME_DIR=/srv",
            "XDG_RUNTIME_DIR=/srv: owned by uid 0, and you are 4242",
        ),
        (
            "XDG_RUNTIME_DIR=/none",
            "XDG_RUNTIME_DIR=/none: No such file",
        ),
    ] {
        for verb in ["mount", "umount"] {
            let err = machine.refused(&format!("{BARE} {runtime} $claimfs {verb}"));
            let remedy = format!("as in 'claimfs {verb} DIR'\n");
            assert!(err.contains(why) && err.ends_with(&remedy), "{err}");
        }
    }
    let err = machine.refused(&format!("{LOGIN} $claimfs mount --allow-other"));
    assert!(
        err.contains("/run/user/4242 is closed to others; give a directory"),
        "{err}"
    );
    assert!(machine.mounts().is_empty());
}

#[test]
fn a_mount_that_the_caller_can_use_elsewhere_is_named_and_none_is_made() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.done("$claimfs mount --allow-other");
    for user in [LOGIN, BARE] {
        let err = machine.refused(&format!("{user} $claimfs mount"));
        assert!(
            err.starts_with("claimfs: /run/claims: a claimfs that you can use is mounted here already; use it, or give"),
            "{err}"
        );
        let found = "{\"mount\":\"/run/claims\",\"made\":false}\n";
        assert_eq!(
            machine.done(&format!("{user} $claimfs mount --if-needed --json")),
            found
        );
    }
    assert_eq!(machine.mounts(), ["/run/claims"]);
    // A mount that admits root alone is none for a user.
    machine.done("$claimfs umount && $claimfs mount");
    machine.done(&format!("{LOGIN} $claimfs mount --if-needed"));
    assert_eq!(machine.mounts(), ["/run/claims", "/run/user/4242/claims"]);
    let err = machine.refused(&format!("{LOGIN} $claimfs mount --if-needed /run/claims"));
    assert!(err.contains("by uid 0, for that user alone"), "{err}");
    // Nor does a dead one count.
    machine.done(&format!(
        "{LOGIN} $claimfs umount && $claimfs umount && $claimfs mount /srv/dead"
    ));
    machine.kill("/var/lib/claimfs/srv-dead");
    machine.done("$claimfs mount");
    assert_eq!(machine.mounts(), ["/srv/dead", "/run/claims"]);
}

#[test]
fn of_twenty_at_once_that_need_a_mount_one_makes_it_and_all_succeed() {
    let Some(machine) = Machine::new() else {
        return;
    };
    for (user, dir, state) in [
        ("", "/run/claims", ROOTS),
        (LOGIN, "/run/user/4242/claims", USERS),
    ] {
        let already = format!("0 claimfs: mounted on {dir} already");
        let mut all = vec![already; 19];
        all.push(format!(
            "0 claimfs: mounted on {dir}; its log is {state}/log"
        ));
        let words = format!("{user} $claimfs mount --if-needed");
        assert_eq!(machine.twenty(&words), all);
        assert_eq!(machine.mounts(), [dir]);
        // One takes a dead mount over.
        machine.kill(state);
        assert_eq!(machine.twenty(&words), all);
        assert_eq!(machine.mounts(), [dir]);
        machine.done(&format!("{user} $claimfs umount"));
    }
    assert_eq!(
        machine
            .done("$claimfs mount --if-needed /srv/x; $claimfs mount --if-needed /srv/x")
            .lines()
            .count(),
        2,
        "a directory that is given is looked at, too"
    );
    assert_eq!(machine.mounts(), ["/srv/x"]);
}

#[test]
fn of_twenty_at_once_that_make_a_mount_one_does_and_the_others_say_the_same_sentence() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let all = machine.twenty("$claimfs mount");
    assert_eq!(
        all[0],
        format!("0 claimfs: mounted on /run/claims; its log is {ROOTS}/log")
    );
    let refused = "3 claimfs: /run/claims: claimfs is already mounted here; use it, or unmount it with \
         'claimfs umount /run/claims'";
    assert_eq!(all[1..], [refused; 19]);
    assert_eq!(machine.mounts(), ["/run/claims"]);
}

#[test]
fn where_something_else_is_mounted_there_is_no_mount_and_twenty_say_so() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.done("mkdir /run/claims && mount -t tmpfs other /run/claims");
    let refused = "3 claimfs: /run/claims: tmpfs, not claimfs, is mounted here; unmount it with \
         'umount /run/claims', or give another directory";
    for words in [
        "$claimfs mount --if-needed",
        "$claimfs mount",
        "$claimfs mount --if-needed /run/claims",
    ] {
        assert_eq!(machine.twenty(words), [refused; 20]);
    }
    machine.done(
        "umount /run/claims && $claimfs mount /srv/x && mount --bind /srv/x/claims /run/claims",
    );
    let err = machine.refused("$claimfs mount --if-needed /run/claims");
    assert!(
        err.contains("only a part of a claimfs is mounted here"),
        "{err}"
    );
}

#[test]
fn the_turn_of_a_mount_that_is_made_ends_with_its_makers() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.done("$claimfs mount");
    let lock = format!("{ROOTS}/mounting");
    machine.done(&format!("flock -n {lock} true"));
    machine.done("$claimfs umount");
    // Whoever has the turn is waited for.
    let script = format!(
        "flock {lock} sh -c 'echo > /run/taken; while [ -e /run/taken ]; do sleep 0.01; done' &
         until [ -e /run/taken ]; do sleep 0.01; done
         $claimfs mount --if-needed > /run/said & mount=$!
         sleep 0.3; kill -0 $mount && ! [ -s /run/said ] && rm /run/taken && wait"
    );
    machine.done(&script);
    assert_eq!(machine.mounts(), ["/run/claims"]);
}

#[test]
fn remount_and_upgrade_print_an_object_if_they_are_asked_to() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.done("$claimfs mount");
    assert_eq!(
        machine.done("$claimfs mount --json -o remount,ro"),
        "{\"mount\":\"/run/claims\",\"remounted\":true}\n"
    );
    assert_eq!(
        machine.done("$claimfs upgrade --json /run/claims"),
        "{\"mount\":\"/run/claims\",\"upgraded\":true}\n"
    );
}

#[test]
fn a_mount_without_allow_other_is_enough_but_the_caller_is_told() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.done("$claimfs mount");
    let (code, _, err) = machine.sh("$claimfs mount --if-needed --allow-other");
    assert_eq!(code, 0);
    assert!(
        err.contains("mounted without --allow-other, so it admits nobody else"),
        "{err}"
    );
}
