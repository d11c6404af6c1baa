//! `claimfs doctor`: it finds the fault and names the remedy.

use std::process::Command;

use crate::lifecycle::machine::{LOGIN, Machine};
use crate::support::{CLAIMFS, Mount, TempDir, plain, root_or_skip, text};

fn doctor(mount: &Mount) -> (i32, String) {
    let (code, out, err) = text(&mount.claimfs(&["doctor"]).arg(&mount.dir).output().unwrap());
    assert_eq!(err, "");
    (code, out)
}

fn has(out: &str, kind: &str, words: &[&str]) -> bool {
    let lines = out.lines().filter(|line| line.starts_with(kind));
    lines
        .clone()
        .any(|line| words.iter().all(|word| line.contains(word)))
}

#[test]
fn a_mount_that_is_well_is_well() {
    let Some(mount) = Mount::new() else { return };
    let mut command = mount.claimfs(&["doctor"]);
    command.arg(&mount.dir).env("CLAIMFS_SESSION", "w1");
    let (code, out, _) = text(&command.output().unwrap());
    assert_eq!(code, 0, "{out}");
    assert!(!has(&out, "bad", &[]), "{out}");
    let dir = mount.dir.to_str().unwrap();
    assert!(has(&out, "ok", &[dir, "answers"]), "{out}");
    assert!(
        has(&out, "ok", &[dir, "you are session w1 (variable: "]),
        "{out}"
    );
    assert!(
        has(&out, "ok", &["Linux "]) || has(&out, "note", &["Linux "]),
        "{out}"
    );
}

#[test]
fn in_a_sandbox_paths_may_be_others() {
    if !root_or_skip("make a pid namespace") {
        return;
    }
    let Some(mount) = Mount::new() else { return };
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", CLAIMFS, "doctor"]);
    plain(command.arg(&mount.dir));
    let note = ["claimfs reserve", "set CLAIMFS_PATH_MAP=INSIDE=OUTSIDE"];
    let (_, out, _) = text(&command.output().unwrap());
    assert!(has(&out, "note", &note), "{out}");
    let (_, out, _) = text(&command.env("CLAIMFS_PATH_MAP", "").output().unwrap());
    assert!(!has(&out, "note", &note), "{out}");
    assert!(!has(&doctor(&mount).1, "note", &note));
}

#[test]
fn a_project_that_is_a_mount_point_may_have_another_path_elsewhere() {
    if !root_or_skip("bind a folder") {
        return;
    }
    let Some(mount) = Mount::new() else { return };
    let temp = TempDir::new();
    for dir in ["app/.git", "app/src", "work"] {
        std::fs::create_dir_all(temp.path().join(dir)).unwrap();
    }
    let at = |dir: &str, map: Option<&str>| {
        let script = "mount --bind app work && cd \"$0\" && exec \"$1\" doctor \"$2\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, dir, CLAIMFS]);
        plain(command.arg(&mount.dir).current_dir(temp.path()));
        command.envs(map.map(|map| ("CLAIMFS_PATH_MAP", map)));
        text(&command.output().unwrap())
    };
    let work = std::fs::canonicalize(temp.path()).unwrap().join("work");
    let work = work.to_str().unwrap();
    let note = [
        ": a mount point",
        &format!("set CLAIMFS_PATH_MAP={work}=PATH"),
    ];
    assert!(has(&at("work/src", None).1, "note", &note));
    assert!(!has(&at("app/src", None).1, "note", &note));
    let map = format!("{work}=/home/me/app");
    assert!(!has(&at("work", Some(&map)).1, "note", &note));
    let (code, out, _) = at("app", Some("/x"));
    assert!(
        code == 3 && has(&out, "bad", &["'/x' is not SEEN=SHARED"]),
        "{out}"
    );
}

#[test]
fn a_mount_that_is_dead_or_unkept_or_stopped_is_named_with_its_remedy() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let dir = mount.dir.to_str().unwrap().to_owned();
    let (supervisor, server) = (mount.supervisor() as i32, mount.pid() as i32);
    for pid in [supervisor, server] {
        unsafe { libc::kill(pid, libc::SIGSTOP) };
    }
    let (code, out) = doctor_elsewhere(&mount);
    for pid in [supervisor, server] {
        unsafe { libc::kill(pid, libc::SIGCONT) };
    }
    assert!(
        code == 3 && has(&out, "bad", &[&dir, "is stopped", "kill -CONT"]),
        "{out}"
    );
    mount.kill_supervisor();
    let (code, out) = doctor(&mount);
    assert!(
        code == 3 && has(&out, "bad", &["its supervisor has died", "claimfs mount"]),
        "{out}"
    );
    mount.start(&[]);
    mount.kill();
    let (code, out) = doctor_elsewhere(&mount);
    assert!(
        code == 3
            && has(
                &out,
                "bad",
                &[&dir, "dead", "claimfs mount", "claimfs umount"]
            ),
        "{out}"
    );
}

/// From a directory that answers.
fn doctor_elsewhere(mount: &Mount) -> (i32, String) {
    let mut command = Command::new(CLAIMFS);
    command.arg("doctor").arg(&mount.dir).current_dir("/");
    plain(&mut command);
    let (code, out, _) = text(&command.output().unwrap());
    (code, out)
}

#[test]
fn a_bind_that_is_read_only_or_a_part_is_explained() {
    if !root_or_skip("bind a mount") {
        return;
    }
    let Some(mount) = Mount::new() else { return };
    let temp = TempDir::new();
    // In a mount namespace of its own, so that nothing of it is left behind.
    let inside = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]);
        plain(&mut command);
        command
            .env("claimfs", CLAIMFS)
            .env("from", &mount.dir)
            .env("to", temp.path())
            .current_dir("/");
        let (code, out, _) = text(&command.output().unwrap());
        (code, out)
    };
    let (code, out) = inside(
        "mount --bind $from $to; mount -o remount,bind,ro $to; \"$claimfs\" doctor $to; code=$?; (: > $to/claims/x); exit $code",
    );
    assert!(
        code == 3 && has(&out, "bad", &["read-only", "EROFS", "bwrap --bind"]),
        "{out}"
    );
    assert_eq!(mount.claims(), [""; 0]);
    let (code, out) = inside("mount --bind $from/claims $to; \"$claimfs\" doctor $to");
    assert!(
        code == 3
            && has(
                &out,
                "bad",
                &["only /claims of the mount", "bind the whole mount"]
            ),
        "{out}"
    );
    let (code, out) = inside("\"$claimfs\" doctor $to");
    assert!(
        code == 3
            && has(
                &out,
                "bad",
                &["no claimfs is mounted here", "'claimfs mount'"]
            ),
        "{out}"
    );
    // Without the device, and without the helper, what is mounted is as well as before.
    let (code, out) = inside("mount --bind /dev/null /dev/fuse; \"$claimfs\" doctor $from");
    assert_eq!(code, 0, "{out}");
    let without = "mount -t tmpfs none /dev; \"$claimfs\" doctor";
    let (code, out) = inside(&format!("{without} $from"));
    assert!(
        code == 0 && has(&out, "note", &["/dev/fuse: No such file", "modprobe fuse"]),
        "{out}"
    );
    let (code, out) = inside(&format!("{without} $to"));
    assert!(
        code == 3 && has(&out, "bad", &["/dev/fuse: No such file", "modprobe fuse"]),
        "{out}"
    );
}

#[test]
fn another_user_is_told_whose_mount_it_is() {
    if !root_or_skip("be another user") {
        return;
    }
    let Some(mount) = Mount::new() else { return };
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "sh",
        "-c",
    ]);
    command.args(["PATH=/nowhere exec \"$0\" doctor \"$1\"", CLAIMFS]);
    plain(&mut command);
    let output = command.arg(&mount.dir).current_dir("/").output().unwrap();
    let (_, out, _) = text(&output);
    assert!(
        has(
            &out,
            "bad",
            &["another user", "admits nobody else", "--allow-other"]
        ),
        "{out}"
    );
    assert!(
        has(
            &out,
            "note",
            &["fusermount3 is not installed", "apt install fuse3"]
        ),
        "{out}"
    );
}

/// A mount, and a script in a mount namespace of its own that finds it as $from, an empty directory
/// as $to and another as $tmp.
fn over(script: &str) -> Option<(i32, String)> {
    let mount = Mount::new()?;
    let temp = TempDir::new();
    for name in ["to", "tmp"] {
        std::fs::create_dir(temp.path().join(name)).unwrap();
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", script]);
    plain(&mut command);
    command
        .env("claimfs", CLAIMFS)
        .env("from", &mount.dir)
        .env("to", temp.path().join("to"))
        .env("tmp", temp.path().join("tmp"));
    let (code, out, err) = text(&command.current_dir("/").output().unwrap());
    assert_eq!(err, "");
    Some((code, out.replace(temp.path().to_str().unwrap(), "TEMP")))
}

const OVERLAY: &str = "mount -t tmpfs none $tmp; mkdir $tmp/u $tmp/w; \
                       mount -t overlay o -o lowerdir=$from,upperdir=$tmp/u,workdir=$tmp/w $to;";

#[test]
fn an_overlay_over_a_mount_is_found_from_inside_by_its_place_and_among_all_mounts() {
    if !root_or_skip("mount an overlay") {
        return;
    }
    let is_found = |out: &str| {
        has(
            out,
            "bad",
            &[
                "TEMP/to: overlay lies over a claimfs",
                "keeps nobody out",
                "bind the mount itself",
            ],
        )
    };
    for look in [
        "cd $to/claims; \"$claimfs\" doctor",
        "\"$claimfs\" doctor $to",
        "\"$claimfs\" doctor $to/claims",
        "\"$claimfs\" doctor",
        "CLAIMFS_MOUNT=$to \"$claimfs\" --mount $to doctor",
    ] {
        let Some((code, out)) = over(&format!("{OVERLAY} {look}")) else {
            return;
        };
        assert!(code == 3 && is_found(&out), "{look}: {out}");
        assert!(!out.contains("no claimfs is mounted here"), "{look}: {out}");
    }
    // Over the mount's own directory, and over a part of it.
    let itself = OVERLAY.replace("$to", "$from");
    let (code, out) = over(&format!("{itself} \"$claimfs\" doctor $from")).unwrap();
    assert!(
        code == 3 && has(&out, "bad", &["overlay lies over a claimfs"]),
        "{out}"
    );
    let part = OVERLAY.replace("$from", "$from/claims");
    let (code, out) = over(&format!("{part} \"$claimfs\" doctor")).unwrap();
    assert!(code == 3 && is_found(&out), "{out}");
}

#[test]
fn a_daemon_between_a_mount_and_its_callers_is_found() {
    if !root_or_skip("mount by bindfs") || Command::new("bindfs").arg("-V").output().is_err() {
        return;
    }
    let is_found = |out: &str, place: &str| {
        let said = format!("{place}: fuse (as bindfs makes it");
        has(
            out,
            "bad",
            &[&said, "sees a daemon", "bind the mount itself"],
        )
    };
    for look in ["$to", "$to/queue", ""] {
        let script = format!(
            "bindfs $from $to; \"$claimfs\" doctor {look} || code=$?; umount $to; exit $code"
        );
        let Some((code, out)) = over(&script) else {
            return;
        };
        assert!(code == 3 && is_found(&out, "TEMP/to"), "{look}: {out}");
    }
    // A mount below what is shown.
    let script =
        "bindfs $(dirname $from) $to; \"$claimfs\" doctor || code=$?; umount $to; exit $code";
    let (code, out) = over(script).unwrap();
    assert!(
        code == 3 && has(&out, "bad", &["TEMP/to/", "sees a daemon"]),
        "{out}"
    );
}

#[test]
fn a_copy_of_a_mount_is_no_mount() {
    let Some((code, out)) = over(
        "mkdir $to/claims; for name in leases self control; do : > $to/$name; done; \"$claimfs\" doctor $to/claims",
    ) else {
        return;
    };
    assert!(
        code == 3
            && has(
                &out,
                "bad",
                &["TEMP/to: has the files of a claimfs, but is ", "no claim"]
            ),
        "{out}"
    );
}

#[test]
fn a_directory_in_a_mount_stands_for_the_mount() {
    let Some(mount) = Mount::new() else { return };
    let mut command = mount.claimfs(&["doctor"]);
    let (code, out, _) = text(&command.arg(mount.path("claims")).output().unwrap());
    assert!(code == 0 && has(&out, "ok", &["answers"]), "{out}");
}

/// What a command of these words finds on a machine, and its exit code.
fn found(machine: &Machine, words: &str) -> (i32, String) {
    let (code, out, err) = machine.sh(words);
    assert_eq!(err, "", "{words}");
    (code, out)
}

#[test]
fn without_a_place_that_of_the_variable_is_looked_at_beside_all_mounts() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.done(
        "$claimfs mount; mkdir -p /srv/copy/claims /srv/empty /srv/up /srv/work /srv/over
         for name in leases self control; do : > /srv/copy/$name; done
         mount -t overlay o -o lowerdir=/run/claims,upperdir=/srv/up,workdir=/srv/work /srv/over",
    );
    for (place, words) in [
        (
            "/srv/copy",
            "/srv/copy: has the files of a claimfs, but is tmpfs",
        ),
        (
            "/srv/empty",
            "CLAIMFS_MOUNT=/srv/empty: not a claimfs mount",
        ),
        ("/srv/none", "CLAIMFS_MOUNT=/srv/none: No such file"),
        ("/srv/over", "/srv/over: overlay lies over a claimfs"),
        (
            "/run/claims/claims",
            "CLAIMFS_MOUNT=/run/claims/claims: in the claimfs on /run/claims",
        ),
    ] {
        let (code, out) = found(&machine, &format!("CLAIMFS_MOUNT={place} $claimfs doctor"));
        assert!(code == 3 && has(&out, "bad", &[words]), "{place}: {out}");
        assert!(has(&out, "ok", &["/run/claims: answers"]), "{place}: {out}");
    }
    machine.done("umount /srv/over");
    let (code, out) = found(&machine, "CLAIMFS_MOUNT=/run/claims $claimfs doctor");
    let said = "CLAIMFS_MOUNT=/run/claims: commands use this mount alone";
    assert!(code == 0 && has(&out, "ok", &[said]), "{out}");
    machine.done("mount -t tmpfs over /run/claims");
    let (code, out) = found(&machine, "CLAIMFS_MOUNT=/run/claims $claimfs doctor");
    let hidden = ["CLAIMFS_MOUNT=/run/claims: a claimfs is mounted here, but hidden by tmpfs"];
    assert!(code == 3 && has(&out, "bad", &hidden), "{out}");
}

#[test]
fn an_overlay_whose_parts_are_named_through_symlinks_is_found() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.done(
        "$claimfs mount; mkdir /srv/up /srv/work /srv/over; ln -s /run /srv/link
         mount -t overlay o -o lowerdir=/srv/link/claims/claims,upperdir=/srv/up,workdir=/srv/work /srv/over",
    );
    let (code, out) = found(&machine, "$claimfs doctor /srv/over");
    let said = "/srv/over: overlay lies over a claimfs";
    assert!(code == 3 && has(&out, "bad", &[said]), "{out}");
}

#[test]
fn where_no_mount_can_be_used_that_is_a_fault_and_the_one_out_of_reach_is_named() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.done("$claimfs mount");
    let denied = [
        "/run/claims: the mount of another user (uid 0)",
        "mount one of your own",
    ];
    let (code, out) = found(&machine, &format!("{LOGIN} $claimfs doctor"));
    assert!(code == 3 && has(&out, "bad", &denied), "{out}");
    machine.done(&format!("{LOGIN} $claimfs mount"));
    let (code, out) = found(&machine, &format!("{LOGIN} $claimfs doctor"));
    assert!(code == 0 && has(&out, "note", &denied), "{out}");
    machine.done(&format!("{LOGIN} $claimfs umount; $claimfs umount"));
    // In another mount namespace alone.
    machine.done(
        "unshare --mount sh -c '$claimfs mount && touch /srv/made && exec sleep 1000' > /srv/said 2>&1 &
         until [ -e /srv/made ]; do :; done",
    );
    let (code, out) = found(&machine, "$claimfs doctor");
    assert!(
        code == 3 && has(&out, "bad", &["no claimfs is mounted here"]),
        "{out}"
    );
    let note = [
        "/run/claims: a claimfs is mounted here in another mount namespace",
        "nsenter --target",
    ];
    assert!(has(&out, "note", &note), "{out}");
    machine.done("$claimfs mount /srv/own");
    let (code, out) = found(&machine, "$claimfs doctor");
    assert!(code == 0 && !has(&out, "note", &note), "{out}");
}

#[test]
fn a_state_directory_that_was_removed_and_cannot_be_written_again_is_named() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.done(
        "ln -s /var/lib /srv/lib && $claimfs mount && $claimfs mount --state-dir /srv/lib/b /srv/b",
    );
    for (dir, state) in [
        ("/run/claims", "/var/lib/claimfs/run-claims"),
        ("/srv/b", "/srv/lib/b"),
    ] {
        let bad = |words: &[&str]| {
            let (code, out) = found(&machine, &format!("$claimfs doctor {dir}"));
            assert_eq!(code == 3, has(&out, "bad", words), "{out}");
            code == 3
        };
        assert!(!bad(&[]));
        // A file in its place.
        machine.done(&format!(
            "exec 2> /dev/null; rm -r {state}; until echo > {state}; do rm -r {state}; done"
        ));
        let said = format!("{dir}: its state directory {state} was removed, and its server (pid ");
        let remedy = format!("'mkdir -m 700 {state}'");
        assert!(bad(&[&said, &remedy]), "{state}");
        machine.done(&format!("rm {state} && mkdir -m 700 {state}"));
        crate::support::wait_until("it is written again", || !bad(&[]));
    }
}

#[test]
fn a_disk_that_is_nearly_full_and_one_that_is_full_are_named() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.done(
        "mkdir /srv/disk; mount -t tmpfs -o mode=700,size=65m disk /srv/disk
         $claimfs mount --state-dir /srv/disk",
    );
    let (code, out) = found(&machine, "$claimfs doctor");
    assert!(code == 0 && !out.contains("free on this disk"), "{out}");
    machine.done("head -c 4M /dev/zero > /srv/disk/some");
    let (code, out) = found(&machine, "$claimfs doctor");
    let note = [
        "/srv/disk: only 60 MiB are free on this disk",
        "'history' stays in memory",
    ];
    assert!(code == 0 && has(&out, "note", &note), "{out}");
    machine.done("head -c 99M /dev/zero > /srv/disk/all 2> /dev/null || true");
    let (code, out) = found(&machine, "$claimfs doctor");
    let bad = ["/srv/disk: the disk is full: new claims on /run/claims are refused"];
    assert!(code == 3 && has(&out, "bad", &bad), "{out}");
    machine.done("rm /srv/disk/all /srv/disk/some");
}

#[test]
fn a_file_system_over_a_part_of_a_mount_is_named() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.done("\"$claimfs\" mount > /dev/null 2>&1; mount -t tmpfs none /run/claims/claims");
    let (code, out) = found(&machine, "\"$claimfs\" doctor");
    assert!(
        code == 3
            && has(
                &out,
                "bad",
                &["/run/claims/claims", "tmpfs", "'umount /run/claims/claims'"]
            ),
        "{out}"
    );
    machine.done("umount /run/claims/claims");
    let (code, out) = found(&machine, "cd /run/claims; \"$claimfs\" doctor");
    assert!(code == 0 && !out.contains("a mount point"), "{out}");
}
