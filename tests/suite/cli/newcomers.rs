//! Faults that newcomers met.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::support::{CLAIMFS, Mount, TempDir, parsed, root_or_skip, text};

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
    // It is told that the id is not its own, rather than that its session lives.
    let (code, out, _) = user(&["whoami"]);
    assert!(
        code == 0 && out.contains("a live session that you are not of has this id"),
        "{out}"
    );
    assert_eq!(out.lines().count(), 1, "{out}");
    let me = parsed(&user(&["whoami", "--json"]).1);
    assert_eq!((&me["live"], &me["foreign"]), (&false.into(), &true.into()));
    let (code, _, err) = user(&["claim", "free"]);
    assert!(
        code == 1 && err.contains("belongs to another user"),
        "{err}"
    );
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

#[test]
fn regression_a_session_that_lives_by_its_deadline_has_no_pid_0() {
    let Some(mount) = Mount::new() else { return };
    mount.run(r#"echo '{"claim":"x","session":"far","seconds":600}' > control"#);
    let run = |words: &[&str]| {
        let mut command = mount.claimfs(words);
        let (code, out, err) = text(&command.env("CLAIMFS_SESSION", "w").output().unwrap());
        assert!(!format!("{out}{err}").contains("pid 0"), "{out}{err}");
        (code, out + &err)
    };
    let until = |text: &str, before: &str| {
        let at = text.split_once(before).unwrap_or_else(|| panic!("{text}"));
        let (at, rest) = at.1.split_once(", unless it is renewed").unwrap();
        assert!(
            at.len() == "2026-01-01T00:00:00Z".len() && at.ends_with('Z'),
            "{text}"
        );
        rest.to_owned()
    };
    until(
        &run(&["show", "x"]).1,
        "process  none, uid 0; until ".replace('0', &uid()).as_str(),
    );
    for words in [
        &["run", "x", "--", "true"][..],
        &["wait", "x", "-w", "0"],
        &["release", "x"],
        &["run", "x", "--wait=10ms", "--", "true"],
    ] {
        let (code, said) = run(words);
        assert_eq!(code, 1, "{words:?}");
        until(&said, "held by session far (no process; until ");
    }
    let line = mount.run("CLAIMFS_SESSION=w timeout -s KILL 3 head -n1 queue/x");
    assert!(
        line.is_empty() || line.contains("held by far (no process) for "),
        "{line}"
    );
    assert!(run(&["session", "ls"]).1.contains(" -  "));
    let (code, said) = run(&["break", "x"]);
    assert_eq!(code, 0);
    until(&said, "taken from session far (no process; until ");
    let (_, said) = run(&["log", "x"]);
    assert!(
        said.contains("claimed by no process, session far"),
        "{said}"
    );
}

fn uid() -> String {
    unsafe { libc::getuid() }.to_string()
}
