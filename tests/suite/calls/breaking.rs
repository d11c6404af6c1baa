//! Taking a name from a holder that lives: by its uid or root, of the lease that is meant and no
//! other.

use std::process::Stdio;

use libc::{EINVAL, ENOENT, ESTALE, O_CREAT, O_EXCL, O_RDWR, O_WRONLY};

use crate::support::{Mount, root_or_skip, text};

#[test]
fn a_lease_is_broken_by_its_token_and_its_descriptors_are_stale() {
    let Some(mount) = Mount::new() else { return };
    let (mut holder, mut me) = (mount.actor(Some("holder")), mount.actor(Some("me")));
    let fd = holder.open("claims/x", O_RDWR | O_CREAT | O_EXCL).unwrap();
    holder.write(fd, "body").unwrap();
    let broken = |me: &mut crate::support::Actor, token: &str| {
        me.setxattr("claims/x", "user.claimfs.break", token, 0)
    };
    let current = mount.token("x");
    assert_eq!(broken(&mut me, &(current + 1).to_string()), Err(ESTALE));
    assert_eq!(broken(&mut me, "soon"), Err(EINVAL));
    assert_eq!(mount.claims(), ["x"]);
    broken(&mut me, &current.to_string()).unwrap();
    assert_eq!(mount.claims(), [""; 0]);
    assert_eq!(holder.pwrite(fd, "late", 0), Err(ESTALE));
    assert_eq!(holder.unlink("claims/x"), Err(ENOENT));
    me.claim("x").unwrap();
    assert!(mount.token("x") > current);
    assert!(
        mount.path("sessions/holder").exists(),
        "the session lives on"
    );
    let log = mount.log();
    let said = format!(
        "broken claims/x: uid {} (pid {}, ",
        unsafe { libc::geteuid() },
        me.pid()
    );
    assert!(
        log.contains(&said) && log.contains("took it from session holder (pid "),
        "{log}"
    );
    assert!(mount.read("metrics").contains("claimfs_breaks_total 1\n"));
}

#[test]
fn control_breaks_symlinks_and_one_name_of_several_too() {
    let Some(mount) = Mount::new() else { return };
    let (mut holder, mut me) = (mount.actor(Some("holder")), mount.actor(Some("me")));
    holder.symlink("target", "claims/s").unwrap();
    holder.claim("a").unwrap();
    holder.link("claims/a", "claims/b").unwrap();
    holder.mkdir("claims/d").unwrap();
    let control = me.open("control", O_WRONLY).unwrap();
    let line = |name: &str, token: u64| format!("{{\"break\":\"{name}\",\"token\":{token}}}\n");
    assert_eq!(me.write(control, &line("s", 99)), Err(ESTALE));
    assert_eq!(me.write(control, &line("none", 1)), Err(ENOENT));
    assert_eq!(me.write(control, "{\"break\":\"s\"}\n"), Err(EINVAL));
    assert_eq!(me.write(control, &line(".x", 1)), Err(EINVAL));
    let (first, second) = (line("s", mount.token("s")), line("b", mount.token("b")));
    me.write(control, &format!("{first}{second}")).unwrap();
    assert_eq!(mount.claims(), ["a", "d"]);
    assert_eq!(holder.stat("claims/a").unwrap()["nlink"], 1);
    me.write(control, &line("d", mount.token("d"))).unwrap();
    assert_eq!(mount.claims(), ["a"]);
}

#[test]
fn the_command_breaks_what_is_held_and_says_what_is_free() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.actor(Some("w1"));
    holder.claim("x").unwrap();
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", holder.pid())).unwrap();
    let (code, out, _) = text(&mount.claimfs(&["break", "x"]).output().unwrap());
    assert_eq!(
        (code, out),
        (
            0,
            format!(
                "claims/x: taken from session w1 (pid {}, {}), which lives\n",
                holder.pid(),
                comm.trim_end()
            )
        )
    );
    assert_eq!(
        text(&mount.claimfs(&["break", "x"]).output().unwrap()),
        (
            4,
            String::new(),
            String::from("claimfs: claims/x: free already; there is nothing to break\n")
        )
    );
    assert_eq!(
        text(&mount.claimfs(&["break", ".x"]).output().unwrap()).0,
        2
    );
}

#[test]
fn only_its_uid_and_root_break_a_lease() {
    if !root_or_skip("become another user") {
        return;
    }
    let Some(mount) = Mount::with(&["--allow-other"]) else {
        return;
    };
    let mut root = mount.actor(Some("r1"));
    root.claim("x").unwrap();
    let line = format!(
        "echo '{{\"break\":\"x\",\"token\":{}}}' > control",
        mount.token("x")
    );
    // dash's own echo calls every failed write an I/O error.
    let quoted = line
        .replace('\'', "'\\''")
        .replace("> control", "| cat > control");
    let user = format!("setpriv --reuid 4242 --regid 4242 --clear-groups sh -c '{quoted}'");
    let (code, _, err) = text(&mount.sh(&user).stdin(Stdio::null()).output().unwrap());
    assert!(
        code != 0 && err.contains("Operation not permitted"),
        "{err}"
    );
    assert_eq!(mount.claims(), ["x"]);
    mount.run(&line);
    assert_eq!(mount.claims(), [""; 0]);
}
