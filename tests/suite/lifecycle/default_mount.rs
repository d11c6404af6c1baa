//! `claimfs mount` without a directory, and `--if-needed`.

use super::machine::{BARE, LOGIN, Machine, ROOTS, USERS};

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
