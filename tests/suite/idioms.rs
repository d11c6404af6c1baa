//! Lock idioms as shells and coreutils use them: acquire, contend from another session, release, die.
//!
//! Each holder and each contender is a process in a POSIX session of its own, as two terminals are.

use std::process::{Command, Stdio};

use crate::support::{Guard, Mount, text};

/// How a client takes `claims/x`, as a script for a shell, and how it gives it back.
struct Idiom {
    name: &'static str,
    shell: &'static str,
    take: &'static str,
    give: &'static str,
}

const fn idiom(
    name: &'static str,
    shell: &'static str,
    take: &'static str,
    give: &'static str,
) -> Idiom {
    Idiom {
        name,
        shell,
        take,
        give,
    }
}

const RM: &str = "rm claims/x";

const IDIOMS: [Idiom; 13] = [
    idiom("noclobber", "dash", "set -C; echo $$ > claims/x", RM),
    idiom("noclobber", "bash", "set -C; echo $$ > claims/x", RM),
    idiom("noclobber", "busybox sh", "set -C; echo $$ > claims/x", RM),
    idiom(
        "noclobber",
        "zsh",
        "setopt noclobber; echo $$ > claims/x",
        RM,
    ),
    idiom("noclobber", "ksh", "set -C; echo $$ > claims/x", RM),
    idiom("noclobber", "mksh", "set -C; echo $$ > claims/x", RM),
    idiom("noclobber", "tcsh", "set noclobber; echo $$ > claims/x", RM),
    idiom("mkdir", "sh", "mkdir claims/x", "rmdir claims/x"),
    idiom(
        "ln",
        "sh",
        "echo $$ > claims/t.$$ && ln claims/t.$$ claims/x; s=$?; rm claims/t.$$; (exit $s)",
        RM,
    ),
    idiom("ln -s", "sh", "ln -s pid:$$ claims/x", RM),
    idiom(
        "mv -n",
        "sh",
        "echo $$ > claims/t.$$ && mv -n claims/t.$$ claims/x && [ ! -e claims/t.$$ ]",
        RM,
    ),
    idiom(
        "dd",
        "sh",
        "echo $$ | dd of=claims/x conv=excl status=none",
        RM,
    ),
    idiom(
        "python",
        "python3",
        "open('claims/x', 'x').write('me')",
        "import os; os.remove('claims/x')",
    ),
];

/// A command that runs a script in a client, in a POSIX session of its own.
fn client(mount: &Mount, idiom: &Idiom, script: &str) -> Option<Command> {
    let mut words = idiom.shell.split(' ');
    let program = words.next()?;
    let there = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .is_ok();
    if !there {
        // Every client that is a test's has its package in .ci/run.
        crate::support::skip(&format!("{program} is not installed"));
        return None;
    }
    let mut command = Command::new(program);
    command
        .args(words)
        .arg("-c")
        .arg(script)
        .current_dir(&mount.dir)
        .stdin(Stdio::null());
    crate::support::plain(&mut command);
    Some(command)
}

/// The script that takes the lock and then lives on, in the same process.
fn holding(idiom: &Idiom) -> String {
    let take = idiom.take;
    match idiom.shell {
        "python3" => format!("{take}; print('held', flush=True); import time; time.sleep(60)"),
        "tcsh" => format!("{take} && echo held && sleep 60"),
        _ => format!("{{ {take}; }} && echo held && sleep 60"),
    }
}

fn each(check: impl Fn(&Mount, &Idiom)) {
    let Some(mount) = Mount::new() else { return };
    for idiom in &IDIOMS {
        if client(&mount, idiom, "").is_some() {
            check(&mount, idiom);
            assert_eq!(mount.claims(), [""; 0], "{} {}", idiom.shell, idiom.name);
        }
    }
}

fn hold(mount: &Mount, idiom: &Idiom) -> Guard {
    let mut holder = client(mount, idiom, &holding(idiom)).unwrap();
    let mut holder = Guard::spawn(holder.stdout(Stdio::piped()));
    assert_eq!(holder.line(), "held", "{} {}", idiom.shell, idiom.name);
    holder
}

fn refused(mount: &Mount, idiom: &Idiom) {
    let (code, _, err) = text(&client(mount, idiom, idiom.take).unwrap().output().unwrap());
    let busy = err.contains("exist") || err.is_empty() && idiom.name == "mv -n";
    assert!(
        code != 0 && busy,
        "{} {}: exit {code}, {err}",
        idiom.shell,
        idiom.name
    );
}

#[test]
fn who_contends_is_refused_in_the_clients_own_words_and_changes_nothing() {
    each(|mount, idiom| {
        let holder = hold(mount, idiom);
        let record = mount.record("x").unwrap();
        refused(mount, idiom);
        assert_eq!(mount.record("x").unwrap(), record);
        drop_group(holder);
    });
}

#[test]
fn who_dies_leaves_no_lock() {
    each(|mount, idiom| {
        drop_group(hold(mount, idiom));
        // The parent has waited: the first try succeeds.
        let script = format!(
            "{}{}{}",
            idiom.take,
            if idiom.shell == "python3" { "\n" } else { "; " },
            idiom.give
        );
        let (code, _, err) = text(&client(mount, idiom, &script).unwrap().output().unwrap());
        assert_eq!(code, 0, "{} {}: {err}", idiom.shell, idiom.name);
    });
}

#[test]
fn who_releases_makes_room_for_the_next() {
    each(|mount, idiom| {
        let separator = if idiom.shell == "python3" { "\n" } else { "; " };
        for _ in 0..3 {
            let script = format!("{}{separator}{}", idiom.take, idiom.give);
            let (code, _, err) = text(&client(mount, idiom, &script).unwrap().output().unwrap());
            assert_eq!(code, 0, "{} {}: {err}", idiom.shell, idiom.name);
        }
    });
}

/// Kills the whole process group, which is the client and what it sleeps with, and waits for the client.
fn drop_group(mut holder: Guard) {
    let group = holder.0.id() as i32;
    assert_eq!(unsafe { libc::kill(-group, libc::SIGKILL) }, 0);
    holder.0.wait().unwrap();
    // What it had started dies with it, but nobody waits for that here.
    crate::support::wait_until(
        "the group is gone",
        || unsafe { libc::kill(-group, 0) } != 0,
    );
}

#[test]
fn mktemp_makes_names_of_its_own() {
    let Some(mount) = Mount::new() else { return };
    let out = mount.run("f=$(mktemp -p claims) && d=$(mktemp -d -p claims 'a b,XXXXXX') && ls -d \"$f\" \"$d\" && rm \"$f\" && rmdir \"$d\"");
    assert_eq!(out.lines().count(), 2);
}
