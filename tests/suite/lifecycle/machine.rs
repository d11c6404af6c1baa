//! A machine of a test's own, for mounts in places that a whole machine shares.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::{CLAIMFS, Guard, can_mount, children, plain, root_or_skip, text, wait_until};

/// A machine of a test's own: a mount namespace without claimfs, with an empty `/run` and
/// `/var/lib`, a user 4242 (which fusermount3 looks for) and a `/dev/fuse` for everybody, and a pid
/// namespace whose processes end with it.
pub struct Machine {
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
pub const LOGIN: &str = "setpriv --reuid=4242 --regid=4242 --clear-groups \
    env HOME=/run/user/4242/home XDG_RUNTIME_DIR=/run/user/4242";
pub const BARE: &str =
    "setpriv --reuid=4242 --regid=4242 --clear-groups env HOME=/run/user/4242/home";

impl Machine {
    pub fn new() -> Option<Self> {
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
    pub fn sh(&self, script: &str) -> (i32, String, String) {
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
    pub fn done(&self, words: &str) -> String {
        let (code, out, err) = self.sh(words);
        assert_eq!((code, &*err), (0, ""), "{words}: {out}");
        out
    }

    /// The sentence with which it refuses.
    pub fn refused(&self, words: &str) -> String {
        let (code, out, err) = self.sh(words);
        assert_eq!((code, &*out), (3, ""), "{words}: {err}");
        err
    }

    /// The results of twenty that run at once, each as its code and its words, sorted.
    pub fn twenty(&self, words: &str) -> Vec<String> {
        let script = format!(
            "for n in $(seq 20); do (said=$({words} 2>&1); echo \"$? $said\") & done; wait"
        );
        let mut all: Vec<String> = self.done(&script).lines().map(str::to_owned).collect();
        all.sort();
        assert_eq!(all.len(), 20, "{all:?}");
        all
    }

    /// The directories of its mounts.
    pub fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", self.init)).unwrap();
        let lines = table
            .lines()
            .filter(|line| line.contains(" - fuse.claimfs "));
        lines
            .map(|line| line.split(' ').nth(4).unwrap().to_owned())
            .collect()
    }

    /// Kills the processes of the mount with this state directory, and waits for their end.
    pub fn kill(&self, state: &str) {
        self.done(&format!(
            "kill -9 $(cat {state}/lock) $(cat {state}/serving)"
        ));
        let is_dead = || self.sh(&format!("flock -n {state}/serving true")).0 == 0;
        wait_until("the server is gone", is_dead);
    }
}

/// The state directory of the default mount of root, and of the user.
pub const ROOTS: &str = "/var/lib/claimfs/run-claims";
pub const USERS: &str = "/run/user/4242/home/.local/state/claimfs/run-user-4242-claims";
