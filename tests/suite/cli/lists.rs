//! `--any LIST` and `--all LIST` of `claim` and `run`.
//!
//! `CLAIMFS_TEST_LISTS=1000` lets so many processes take part where many compete.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{Actor, Guard, Mount, TempDir, number, parsed, text, wait_until};

/// The output of a verb that runs in the session `session`.
fn run(mount: &Mount, session: &str, arguments: &[&str]) -> (i32, String, String) {
    let mut command = mount.claimfs(arguments);
    text(&command.env("CLAIMFS_SESSION", session).output().unwrap())
}

/// The same, which must succeed: its standard output.
fn done(mount: &Mount, session: &str, arguments: &[&str]) -> String {
    let (code, out, err) = run(mount, session, arguments);
    assert_eq!(code, 0, "{arguments:?}: {err}");
    out
}

/// A command that goes on, and whose standard output is read.
fn start(mount: &Mount, session: &str, arguments: &[&str]) -> Guard {
    let mut command = mount.claimfs(arguments);
    command.env("CLAIMFS_SESSION", session);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    Guard::spawn(command.stderr(Stdio::piped()))
}

/// Its end, and its words on standard error.
fn ended(mut guard: Guard) -> (std::process::ExitStatus, String) {
    let mut status = None;
    wait_until("it ends", || {
        status = guard.0.try_wait().unwrap();
        status.is_some()
    });
    let status = status.unwrap();
    let mut said = String::new();
    let mut stderr = guard.0.stderr.take().unwrap();
    std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
    (status, said)
}

fn waits(mount: &Mount) -> usize {
    mount.read("waiters").lines().count()
}

fn holder(mount: &Mount, names: &[&str]) -> Actor {
    let mut holder = mount.actor(Some("holder"));
    for name in names {
        holder.claim(name).unwrap();
    }
    holder
}

/// The processes that compete.
fn competitors() -> usize {
    usize::try_from(number("CLAIMFS_TEST_LISTS", 100)).unwrap()
}

#[test]
fn a_list_is_of_at_most_256_names_without_leading_zeros_and_each_counts_once() {
    let Some(mount) = Mount::new() else { return };
    let echo = ["--", "sh", "-c", "echo $CLAIMFS_CLAIM"];
    let lists = |lists: &[&str]| {
        let mut arguments = vec!["run"];
        arguments.extend(lists.iter().copied());
        run(&mount, "w", &[&arguments[..], &echo].concat())
    };
    let taken: [(&[&str], &str); 13] = [
        (&["--any", "claims/n@1-2"], "n@1-2"),
        (&["--any", "lib@1.2"], "lib@1.2"),
        (&["--any", "day@2024-01-02"], "day@2024-01-02"),
        (&["--any", "me@host-1"], "me@host-1"),
        (&["--any", "n@1..256"], "n@1"),
        (&["--any", "n@1..256", "--any", "n@1..256"], "n@1"),
        (&["--any=n@255..510"], "n@255"),
        (&["--any", "n@0..3"], "n@0"),
        (&["--any", "n@5..5"], "n@5"),
        (&["--any", "z", "--any", "a"], "z"),
        (&["--any", "a@b..c"], "a@b..c"),
        (&["--any", "a..b"], "a..b"),
        (
            &["--all", "z", "--all", "a@1..2", "--all", "z", "--wait"],
            "a@1 a@2 z",
        ),
    ];
    for (arguments, claim) in taken {
        let (code, out, err) = lists(arguments);
        assert_eq!((code, out.trim()), (0, claim), "{arguments:?}: {err}");
    }
    let wrong: [(&[&str], &str); 17] = [
        (
            &["--any", "n@1-2"],
            "no range; write it as 'n@1..2', or as 'claims/n@1-2' if ",
        ),
        (&["--any", "z", "--any", "n@1:2"], "write it as 'n@1..2'"),
        (&["--all", "n@3\u{2026}4"], "write it as 'n@3..4'"),
        (&["--any", "n@1..257"], "at most 256"),
        (&["--any", "n@1..256", "--any", "x"], "at most 256"),
        (&["--all", "n@1..18446744073709551615"], "at most 256"),
        (&["--any", "n@1..99999999999999999999"], "no range"),
        (&["--any", "n@01..3"], "leading zeros"),
        (&["--any", "n@1..03"], "leading zeros"),
        (&["--any", "n@00..3"], "leading zeros"),
        (&["--any", "n@4..1"], "no range"),
        (&["--any", "n@1.."], "no range"),
        (&["--any", "n@..4"], "no range"),
        (&["--any", "n@1..2..3"], "no range"),
        (&["--any", "a/b"], "'claimfs reserve a/b'"),
        (&["--any", ""], "no name"),
        (&["--any", "x", "--all", "y"], "cannot be used with"),
    ];
    for (arguments, says) in wrong {
        let (code, out, err) = lists(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains(says), "{arguments:?}: {err}");
    }
    assert_eq!(run(&mount, "w", &["claim", "x", "--any", "y"]).0, 2);
    assert_eq!(run(&mount, "w", &["claim", "x", "--all", "y"]).0, 2);
    assert_eq!(run(&mount, "w", &["claim"]).0, 2);
    // A name beside a list, or a command without the two dashes.
    for words in [
        &["x", "--any", "y", "--", "true"][..],
        &["--any", "y", "x", "--", "true"],
        &["--any", "y", "true"],
        &["--any", "y", "--"],
        &["--any", "y"],
    ] {
        assert_eq!(
            run(&mount, "w", &[&["run"], words].concat()).0,
            2,
            "{words:?}"
        );
    }
    assert_eq!(mount.claims(), [""; 0]);
}

#[test]
fn regression_a_range_without_a_list_is_refused_and_no_name() {
    let Some(mount) = Mount::new() else { return };
    for words in [
        &["claim", "build@1..2"][..],
        &["run", "build@1..2", "--", "true"],
        &["wait", "build@1..2"],
        &["claim", "build@1.."],
        &["claim", "build@..4"],
    ] {
        let (code, out, err) = run(&mount, "w", words);
        assert_eq!((code, out.as_str()), (2, ""), "{words:?}: {err}");
        let range = words[1];
        let way_out = format!(
            "'{range}': a range, and this takes one name: 'claimfs claim' and 'claimfs run' take one of several names with \
             '--any {range}' and all of them with '--all {range}'; a claim that is called so is 'claims/{range}'"
        );
        assert!(err.contains(&way_out), "{err}");
    }
    assert_eq!(mount.claims(), [""; 0]);
    let mut root = mount.actor(Some("w"));
    root.claim("root").unwrap();
    done(&mount, "w", &["claim", "claims/build@1..2"]);
    assert_eq!(mount.claims(), ["build@1..2", "root"]);
    // What is there is shown and given back without more ado.
    assert!(done(&mount, "w", &["show", "build@1..2"]).contains("build@1..2"));
    done(&mount, "w", &["release", "build@1..2"]);
    done(&mount, "w", &["wait", "claims/build@1..2"]);
    for name in ["build@a..b", "build@1.2", "a..b", "@", "b@1..2x"] {
        done(&mount, "w", &["claim", name]);
    }
}

#[test]
fn claim_any_takes_the_first_free_name_once_and_says_who_has_them() {
    let Some(mount) = Mount::new() else { return };
    let mut first = holder(&mount, &["b@1"]);
    let any = ["claim", "--any", "b@1..3", "-m", "tests", "--ttl", "1h"];
    let out = done(&mount, "w", &any);
    assert_eq!(out, "claims/b@2: taken by session w, token 2\n");
    let record = mount.record("b@2").unwrap();
    assert_eq!(
        (&record["reason"], &record["ttl"]),
        (&"tests".into(), &3600.into())
    );
    // One that is free is not taken beside it.
    first.unlink("claims/b@1").unwrap();
    let out = done(&mount, "w", &any);
    assert_eq!(out, "claims/b@2: held already by session w, token 2\n");
    assert_eq!(mount.claims(), ["b@2"]);
    let out = done(&mount, "w", &["claim", "--json", "--any", "b@2..3"]);
    assert_eq!(parsed(&out)["token"], 2);

    for name in ["b@1", "b@3", "c", "d"] {
        first.claim(name).unwrap();
    }
    let (code, out, err) = run(&mount, "v", &["claim", "--any", "b@1..3"]);
    assert_eq!((code, out.as_str()), (1, ""));
    let lines: Vec<&str> = err.lines().collect();
    for (line, says) in lines.iter().zip(["holder", "w", "holder"]) {
        assert!(
            line.contains(&format!(": held by session {says} (pid ")),
            "{err}"
        );
    }
    assert_eq!(lines.len(), 3, "{err}");
    let many = ["claim", "--any", "b@1..3", "--any", "c", "--any", "d"];
    let (code, _, err) = run(&mount, "v", &many);
    let last = "claimfs: and 2 more names are held by others; see 'claimfs ls'";
    assert_eq!(
        (code, err.lines().count(), err.lines().last()),
        (1, 4, Some(last))
    );
    let (code, _, err) = run(&mount, "v", &[&many[..], &["--wait=100ms"]].concat());
    assert!(code == 1 && err.contains("; waited in vain\n"), "{err}");
    let (code, _, _) = run(
        &mount,
        "v",
        &["run", "-E", "75", "--any", "c", "--any", "d", "--", "true"],
    );
    assert_eq!(code, 75);
    assert_eq!(mount.read("waiters"), "");
}

#[test]
fn the_one_who_waits_for_any_takes_one_grant_and_passes_the_others_on() {
    let Some(mount) = Mount::new() else { return };
    let mut first = holder(&mount, &["a", "b", "c"]);
    let wait = ["claim", "--any", "a", "--any", "b", "--wait"];
    let mut waiting = start(&mount, "w", &wait);
    wait_until("it waits for both", || waits(&mount) == 2);
    let next = start(
        &mount,
        "v",
        &["claim", "--any", "b", "--any", "c", "--wait"],
    );
    wait_until("so does the next", || waits(&mount) == 4);
    // It is granted both before it can read either.
    unsafe { libc::kill(waiting.0.id() as i32, libc::SIGSTOP) };
    let stat = format!("/proc/{}/stat", waiting.0.id());
    wait_until("it is stopped", || {
        let stat = fs::read_to_string(&stat).unwrap();
        stat.contains(") T ")
    });
    first.unlink("claims/b").unwrap();
    first.unlink("claims/a").unwrap();
    assert_eq!(mount.session_of("a").as_deref(), Some("w"));
    assert_eq!(mount.session_of("b").as_deref(), Some("w"));
    unsafe { libc::kill(waiting.0.id() as i32, libc::SIGCONT) };
    assert!(
        waiting
            .line()
            .starts_with("claims/a: taken by session w, token ")
    );
    assert!(ended(waiting).0.success());
    let (status, said) = ended(next);
    assert!(status.success(), "{said}");
    assert_eq!(mount.session_of("b").as_deref(), Some("v"), "passed on");
    assert_eq!(mount.session_of("c").as_deref(), Some("holder"));
    assert_eq!(mount.read("waiters"), "");
}

#[test]
fn those_who_wait_for_any_permit_have_it_in_the_order_of_their_coming() {
    let Some(mount) = Mount::new() else { return };
    let mut first = holder(&mount, &["p@1", "p@2", "p@3", "p@4"]);
    let permit = ["run", "--any", "p@1..4", "--wait", "--", "sh", "-c"];
    let work = "echo $CLAIMFS_CLAIM; read -r line; true";
    let mut waiting = Vec::new();
    for count in 1..=6 {
        waiting.push(start(&mount, "w", &[&permit[..], &[work]].concat()));
        wait_until("it waits in all queues", || waits(&mount) == 4 * count);
    }
    for (place, name) in ["p@3", "p@1", "p@4", "p@2"].into_iter().enumerate() {
        first.unlink(&format!("claims/{name}")).unwrap();
        wait_until("one of them has it", || waits(&mount) == 4 * (5 - place));
        assert_eq!(waiting[place].line(), name);
    }
    for (before, next, name) in [(2, 4, "p@4"), (0, 5, "p@3")] {
        drop(waiting[before].0.stdin.take());
        wait_until("the next one has it", || waits(&mount) == 4 * (5 - next));
        assert_eq!(waiting[next].line(), name);
    }
    for mut command in waiting {
        drop(command.0.stdin.take());
        assert!(ended(command).0.success());
    }
    assert_eq!(mount.claims(), [""; 0]);
}

/// Says which names a command holds to a referee that knows nothing of claimfs: locks in a folder,
/// which the kernel drops when the command ends in any way. A name that another command has as well
/// is a fault.
const REFEREE: &str = "
    fd=3
    for name in $CLAIMFS_CLAIM; do
        eval \"exec $fd> $referee/$name\"
        flock -n $fd || echo $name >> $referee/faults
        fd=$((fd + 1))
    done
    echo $CLAIMFS_CLAIM >> $referee/done
    sleep 0.01 3>&- 4>&- 5>&-
    case $number in *7) kill -9 $PPID $$;; esac";

/// Starts commands that hold names of these lists, of which every tenth is killed with its wrapper
/// while it holds them.
fn compete(
    mount: &Mount,
    referee: &Path,
    count: usize,
    lists: impl Fn(usize) -> Vec<String>,
) -> Vec<Child> {
    let start = |number: usize| -> Child {
        let mut command: Command = mount.claimfs(&["run"]);
        command
            .args(lists(number))
            .args(["--wait", "--", "sh", "-c", REFEREE]);
        command
            .env("referee", referee)
            .env("number", number.to_string());
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    (0..count).map(start).collect()
}

/// Waits for all of them: how many ended in each way.
fn ends(children: Vec<Child>) -> BTreeMap<i32, usize> {
    let mut ends = BTreeMap::new();
    for mut child in children {
        let mut status = None;
        wait_until("nobody is left behind", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        let status = status.unwrap();
        let end = status.code().unwrap_or_else(|| -status.signal().unwrap());
        *ends.entry(end).or_default() += 1;
    }
    ends
}

fn lines(referee: &TempDir, file: &str) -> Vec<String> {
    let text = fs::read_to_string(referee.path().join(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn of_many_commands_at_most_four_have_a_permit_and_none_is_lost_with_the_killed() {
    let Some(mount) = Mount::new() else { return };
    let (referee, count) = (TempDir::new(), competitors());
    let mut first = holder(&mount, &["p@1", "p@2", "p@3", "p@4"]);
    let any = |_| ["--any", "p@1..4"].map(String::from).to_vec();
    let mut children = compete(&mount, referee.path(), count, any);
    wait_until("all wait for all", || waits(&mount) == 4 * count);
    // Some are killed while they wait.
    let killed = count / 10;
    for child in children.iter_mut().step_by(10) {
        child.kill().unwrap();
    }
    for name in ["p@1", "p@2", "p@3", "p@4"] {
        first.unlink(&format!("claims/{name}")).unwrap();
    }
    let sevenths = (0..count).filter(|number| number % 10 == 7).count();
    let ends = ends(children);
    assert_eq!(lines(&referee, "faults"), [""; 0]);
    assert_eq!(lines(&referee, "done").len(), count - killed, "{ends:?}");
    let expected = BTreeMap::from([(0, count - killed - sevenths), (-9, killed + sevenths)]);
    assert_eq!(ends, expected);
    wait_until("the killed hold nothing", || mount.claims().is_empty());
    assert_eq!(mount.read("waiters"), "");
    // No permit is lost: four fresh ones get all.
    let echo = ["run", "--all", "p@1..4", "--wait=5s", "--", "true"];
    done(&mount, "w", &echo);
}

#[test]
fn commands_that_wait_for_overlapping_sets_all_have_their_turn() {
    let Some(mount) = Mount::new() else { return };
    let (referee, count) = (TempDir::new(), competitors() * 6 / 10);
    // Three of six names, given in an order of each one's own.
    let all = |number: usize| {
        let names = [
            number % 6,
            (number + 1 + number / 6 % 2) % 6,
            (number + 3 + number % 3) % 6,
        ];
        names.map(|name| format!("--all=n{name}")).to_vec()
    };
    let children = compete(&mount, referee.path(), count, all);
    let ends = ends(children);
    assert_eq!(lines(&referee, "faults"), [""; 0]);
    assert_eq!(lines(&referee, "done").len(), count, "{ends:?}");
    let sevenths = (0..count).filter(|number| number % 10 == 7).count();
    assert_eq!(
        ends,
        BTreeMap::from([(0, count - sevenths), (-9, sevenths)])
    );
    wait_until("the killed hold nothing", || mount.claims().is_empty());
}

#[test]
fn claim_all_says_what_it_holds_meanwhile_and_gives_it_back_when_it_gives_up() {
    let Some(mount) = Mount::new() else { return };
    let mut first = holder(&mount, &["c"]);
    // The session lives on with this process.
    let mut root = mount.actor(Some("w"));
    root.claim("a").unwrap();
    let all = [
        "claim", "--all", "c", "--all", "b", "--all", "a", "-m", "three",
    ];
    let held = "; waiting, and holding claims/a, claims/b meanwhile\n";

    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let waiting = start(&mount, "w", &[&all[..], &["--wait"]].concat());
        wait_until("it waits for the last", || waits(&mount) == 1);
        assert_eq!(mount.claims(), ["a", "b", "c"]);
        unsafe { libc::kill(waiting.0.id() as i32, signal) };
        let (status, said) = ended(waiting);
        assert_eq!(status.signal(), Some(signal), "{said}");
        assert!(
            said.starts_with("claimfs: claims/c: held by session holder (pid "),
            "{said}"
        );
        assert!(said.ends_with(held), "{said}");
        assert_eq!(mount.claims(), ["a", "c"], "what it held before it keeps");
        assert_eq!(mount.read("waiters"), "");
    }
    let (code, out, err) = run(&mount, "w", &[&all[..], &["--wait=100ms"]].concat());
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(
        err.contains(held) && err.ends_with("; waited in vain\n"),
        "{err}"
    );
    assert_eq!(mount.claims(), ["a", "c"]);

    let mut waiting = start(&mount, "w", &[&all[..], &["--wait"]].concat());
    wait_until("it waits for the last", || waits(&mount) == 1);
    first.unlink("claims/c").unwrap();
    let said = [(); 3].map(|()| waiting.line());
    assert!(said[0].starts_with("claims/a: held already by session w, token "));
    assert!(said[1].starts_with("claims/b: taken by session w, token "));
    assert!(said[2].starts_with("claims/c: taken by session w, token "));
    assert!(ended(waiting).0.success());
    for name in ["a", "b", "c"] {
        assert_eq!(mount.record(name).unwrap()["reason"], "three");
    }
}

#[test]
fn run_all_tells_its_command_all_names_and_tokens_and_ends_it_when_one_is_lost() {
    let Some(mount) = Mount::new() else { return };
    let told = "trap 'echo told; exit 5' TERM; echo $CLAIMFS_CLAIM $CLAIMFS_TOKEN
        while :; do sleep 0.05; done";
    let all = [
        "run", "--all", "b", "--all", "a", "--wait", "--", "sh", "-c", told,
    ];
    let mut running = start(&mount, "w", &all);
    let said = running.line();
    assert_eq!(
        said,
        format!("a b {} {}", mount.token("a"), mount.token("b"))
    );
    assert_eq!(run(&mount, "breaker", &["break", "b"]).0, 0);
    assert_eq!(running.line(), "told");
    let (status, said) = ended(running);
    assert_eq!(status.code(), Some(5));
    assert!(
        said.contains("claims/b: lost; the command gets SIGTERM"),
        "{said}"
    );
    assert_eq!(mount.claims(), [""; 0]);
    // A name may contain spaces.
    let spaces = ["run", "--all", "x y", "--all", "z", "--wait", "--", "true"];
    done(&mount, "w", &spaces);
}

#[test]
fn all_without_wait_takes_all_or_nothing_and_says_who_has_what() {
    let Some(mount) = Mount::new() else { return };
    let mut first = holder(&mount, &["b", "d"]);
    let mut root = mount.actor(Some("w"));
    root.claim("a").unwrap();
    let all = [
        "claim", "--all", "c", "--all", "b", "--all", "a", "-m", "three", "--ttl", "1h",
    ];
    let (code, out, err) = run(&mount, "w", &all);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.starts_with("claimfs: claims/b: held by session holder (pid "),
        "{err}"
    );
    assert_eq!((err.lines().count(), mount.claims().len()), (1, 3), "{err}");
    let echo = [
        "run", "-E", "75", "--all", "c", "--all", "b", "--all", "d", "--", "echo", "never",
    ];
    let (code, out, err) = run(&mount, "w", &echo);
    assert_eq!(
        (code, out.as_str(), err.lines().count()),
        (75, "", 2),
        "{err}"
    );
    assert_eq!(mount.claims(), ["a", "b", "d"]);

    first.unlink("claims/b").unwrap();
    let said = done(&mount, "w", &all);
    let said: Vec<&str> = said.lines().collect();
    assert!(
        said[0].starts_with("claims/a: held already by session w, token "),
        "{said:?}"
    );
    for (line, name) in said[1..].iter().zip(["b", "c"]) {
        assert!(line.starts_with(&format!("claims/{name}: taken by session w, token ")));
        let record = mount.record(name).unwrap();
        assert_eq!(
            (&record["reason"], &record["ttl"]),
            (&"three".into(), &3600.into())
        );
    }
    let said = done(&mount, "w", &all);
    assert_eq!(
        said.matches(": held already by session w, token ").count(),
        3
    );
    let said = done(
        &mount,
        "v",
        &[
            "run",
            "--all",
            "n@1..256",
            "--",
            "sh",
            "-c",
            "echo $CLAIMFS_CLAIM",
        ],
    );
    assert_eq!(said.split(' ').count(), 256);
}
