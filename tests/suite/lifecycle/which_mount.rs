//! Which mount counts: of several of one file system, of hidden ones, of other users', and of those
//! that are there already. And who is told what when one ends.

use std::path::Path;

use super::machine::{LOGIN, Machine, ROOTS};

/// Allows users to admit others, and mounts for the user on `/srv/u`.
const USERS_SHARED: &str = "echo user_allow_other > /run/fuse.conf &&
    mount --bind /run/fuse.conf /etc/fuse.conf && mkdir /srv/u && chown 4242 /srv/u";

#[test]
fn binds_of_a_mount_are_that_mount() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.done("$claimfs mount && mkdir /srv/b && mount --bind /run/claims /srv/b");
    let found = machine.done("$claimfs run job -- $claimfs show job");
    assert!(found.contains("job"), "{found}");
    let err = machine.refused("mkdir /srv/c; $claimfs --mount /srv/c ls");
    assert!(err.contains("not a claimfs mount"), "{err}");
    // The default place counts, though the other path is shorter.
    let err = machine.refused("$claimfs mount /srv/b/claims/x");
    assert!(err.contains("/srv/b"), "{err}");
    let lib = format!(
        "{}/mount-scripts/claims-unshare",
        env!("CARGO_MANIFEST_DIR")
    );
    assert_eq!(machine.done(&format!("{lib} -- cat /claims/waiters")), "");
    // Another file system is a second mount.
    machine.done("$claimfs mount /srv/other");
    let err = machine.refused("$claimfs ls");
    let list = "several claimfs are mounted here; name one with --mount DIR or $CLAIMFS_MOUNT:\n  \
                /run/claims\n  /srv/other\n";
    assert!(err.ends_with(list), "{err}");
}

#[test]
fn a_directory_in_a_claimfs_is_no_place_for_a_mount() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.done("$claimfs mount");
    for words in ["mount", "mount --if-needed"] {
        for dir in ["claims/x", "paths/x", "claims", "sessions"] {
            let err = machine.refused(&format!("$claimfs {words} /run/claims/{dir}"));
            let why = "in the claimfs that is mounted on /run/claims, where directories are claims";
            assert!(err.contains(why), "{err}");
        }
    }
    assert_eq!(
        machine.done("ls /run/claims/claims /run/claims/paths | grep x || true"),
        ""
    );
    assert_eq!(machine.mounts(), ["/run/claims"]);
}

#[test]
fn root_uses_no_other_users_mount_unless_it_is_named() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.done(USERS_SHARED);
    machine.done(&format!("{LOGIN} $claimfs mount --allow-other /srv/u"));
    let err = machine.refused("$claimfs ls");
    assert!(
        err.contains("root uses none of those unless it is named") && err.contains("/srv/u"),
        "{err}"
    );
    let lib = format!(
        "{}/mount-scripts/claims-unshare",
        env!("CARGO_MANIFEST_DIR")
    );
    machine.refused(&format!("{lib} -- cat /claims/waiters"));
    machine.done("$claimfs ls --json --mount /srv/u && CLAIMFS_MOUNT=/srv/u $claimfs ls --json");
    // Root of a user namespace alone may be the one who mounted it.
    machine.done("unshare --user --map-root-user $claimfs ls --json");
    let (code, out, _) = machine.sh("$claimfs doctor");
    let why = "bad   /srv/u: the mount of uid 4242, which root uses only if it is named";
    assert!(code == 3 && out.contains(why), "{out}");
    assert_eq!(machine.sh("$claimfs doctor /srv/u").0, 0);
    // So it does not stand in the way of root's own, and is none.
    for words in ["mount", "mount --if-needed"] {
        let made = machine.done(&format!("$claimfs {words}"));
        assert!(
            made.starts_with("claimfs: mounted on /run/claims; "),
            "{made}"
        );
        machine.done("$claimfs run job -- test -e /run/claims/claims/job");
        let (code, out, _) = machine.sh("$claimfs doctor");
        assert!(
            code == 0 && out.contains(&why.replace("bad ", "note")),
            "{out}"
        );
        machine.done("$claimfs umount");
    }
    machine.done("rmdir /run/claims && ln -s /srv/u /run/claims");
    let err = machine.refused("$claimfs mount --if-needed");
    assert!(
        err.contains("the mount of uid 4242, which root uses only if"),
        "{err}"
    );
}

#[test]
fn a_mount_that_is_hidden_is_said_to_be_so_and_by_what() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine
        .done("$claimfs mount /srv/a/b 2> /dev/null || { mkdir /srv/a; $claimfs mount /srv/a/b; }");
    for over in ["/srv/a/b", "/srv/a"] {
        machine.done(&format!("mount -t tmpfs over {over}"));
        let why = format!(
            "/srv/a/b: a claimfs is mounted here, but hidden by tmpfs on {over}, which was mounted later; \
             take that away with 'umount {over}', or mount it elsewhere\n"
        );
        for place in ["", "/srv/a/b"] {
            let (code, out, _) = machine.sh(&format!("$claimfs doctor {place}"));
            assert!(code == 3 && out.contains(&format!("bad   {why}")), "{out}");
        }
        machine.done("mkdir -p /srv/a/b");
        for words in ["umount /srv/a/b", "ls --mount /srv/a/b"] {
            let err = machine.refused(&format!("$claimfs {words}"));
            assert_eq!(err, format!("claimfs: {why}"));
        }
        machine.refused("$claimfs ls");
        machine.done(&format!("umount {over}"));
    }
    // The same mount is elsewhere in reach: it does no harm.
    machine.done("mkdir /srv/c && mount --bind /srv/a/b /srv/c && mount -t tmpfs over /srv/a/b");
    let (code, out, _) = machine.sh("$claimfs doctor");
    assert!(
        code == 0 && out.contains("note  /srv/a/b: a claimfs is mounted"),
        "{out}"
    );
    machine.done("$claimfs run job -- true");
}

#[test]
fn if_needed_says_that_the_supervisor_is_dead_and_that_the_state_is_another() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.done("$claimfs mount");
    let err = machine.refused("$claimfs mount --if-needed --state-dir /srv/state /run/claims");
    let why = format!("has its state in {ROOTS}, not in /srv/state");
    assert!(err.contains(&why), "{err}");
    machine.done(&format!(
        "$claimfs mount --if-needed --state-dir {ROOTS} /run/claims"
    ));
    machine.done(&format!(
        "kill -9 $(cat {ROOTS}/lock); until flock -n {ROOTS}/lock true; do :; done"
    ));
    let (code, out, err) = machine.sh("$claimfs mount --if-needed");
    assert_eq!(
        (code, &*out),
        (0, "claimfs: mounted on /run/claims already\n")
    );
    assert_eq!(
        err,
        "claimfs: /run/claims: its supervisor has died: should its server die too, the mount dies with it; \
         mount it again with 'claimfs mount /run/claims'\n"
    );
    machine.done("$claimfs mount && $claimfs mount --if-needed");
}

/// Puts the mount helper among the system's, and the program on the path.
const HELPER: &str = "mkdir /run/helper && ln -s $claimfs /run/helper/claimfs &&
    cp $helper /run/helper/mount.fuse.claimfs &&
    mount -t overlay helper -o lowerdir=/run/helper:/usr/sbin /usr/sbin";

#[test]
fn a_line_of_fstab_that_is_mounted_already_is_left_alone() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let helper = Path::new(env!("CARGO_MANIFEST_DIR")).join("mount-scripts/mount.fuse.claimfs");
    machine.done(&format!("helper={}; {HELPER}", helper.display()));
    let mount = "mount";
    for source in [ROOTS, "claims"] {
        machine.done(&format!(
            "echo '{source} /run/claims fuse.claimfs allow_other,nofail 0 0' > /run/fstab &&
             mkdir -p /run/claims && mount --bind /run/fstab /etc/fstab"
        ));
        let made = machine.done(&format!("{mount} -a"));
        assert!(
            made.starts_with("claimfs: mounted on /run/claims; "),
            "{made}"
        );
        let again = machine.done(&format!("{mount} -a && {mount} /run/claims"));
        let already = "claimfs: mounted on /run/claims already\n";
        // By the state directory mount(8) sees it itself; else the helper does.
        let times = if source == ROOTS { 1 } else { 2 };
        assert_eq!(again, already.repeat(times), "{source}");
        assert_eq!(machine.mounts(), ["/run/claims"]);
        machine.done("$claimfs umount && umount /etc/fstab");
    }
    let other = format!("{mount} -t fuse.claimfs /srv/state /run/claims");
    let (code, _, err) = machine.sh(&format!("$claimfs mount && {other}"));
    assert!(code == 3 && err.contains("not in /srv/state"), "{err}");
}

#[test]
fn after_an_unmount_no_lock_names_a_process() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let kill = format!("kill $(cat {ROOTS}/lock) && until flock -n {ROOTS}/lock true; do :; done");
    let kills = format!("kill -9 $(cat {ROOTS}/lock {ROOTS}/serving); $claimfs umount");
    let lone = format!("kill -9 $(cat {ROOTS}/lock); $claimfs umount");
    for end in [
        "$claimfs umount",
        "umount /run/claims",
        &kill,
        &kills,
        &lone,
    ] {
        machine.done(&format!("$claimfs mount && [ -s {ROOTS}/lock ] && {end}"));
        let emptied =
            format!("until ! [ -s {ROOTS}/lock ] && ! [ -s {ROOTS}/serving ]; do :; done");
        let (code, ..) = machine.sh(&format!("timeout 20 sh -c '{emptied}'"));
        assert_eq!(code, 0, "{end}");
    }
}

#[test]
fn an_unmount_of_what_is_in_use_names_who_uses_it() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.done("$claimfs mount");
    let script = "
        (cd /run/claims/claims && exec sleep 101) & one=$!
        sleep 102 < /run/claims/README & two=$!
        for pid in $one $two; do
            until [ \"$(cat /proc/$pid/comm)\" = sleep ]; do :; done
        done
        $claimfs umount 2>&1; echo $?; echo $one $two; kill $one $two";
    let out = machine.done(script);
    let lines: Vec<&str> = out.lines().collect();
    let (one, two) = lines[2].split_once(' ').unwrap();
    let said = format!(
        "claimfs: /run/claims: in use, by an open file or a working directory of pid {one} (sleep), pid {two} (sleep); \
         leave it, or detach it with 'claimfs umount --lazy /run/claims'"
    );
    assert_eq!(lines[..2], [&*said, "1"]);
    // At most five are named.
    let many = "cd /run/claims; for n in 1 2 3 4 5 6 7; do sleep 103 & all=\"$all $!\"; done
        cd /; $claimfs umount 2>&1; kill $all";
    let out = machine.done(many);
    assert_eq!(
        out.matches("(sleep)").count() + out.matches("(sh)").count(),
        5,
        "{out}"
    );
    assert!(out.contains(" and 2 more; leave it"), "{out}");
    // A mount in it goes with its claim, and so with who holds that.
    let inner = "mkdir /run/claims/claims/x && mount -t tmpfs in /run/claims/claims/x &&
        $claimfs umount 2>&1; echo $?; umount /run/claims/claims/x && $claimfs umount";
    assert_eq!(
        machine.done(inner),
        "claimfs: /run/claims: in use, since /run/claims/claims/x is mounted in it; unmount that first with \
         'umount /run/claims/claims/x'\n1\n"
    );
}
