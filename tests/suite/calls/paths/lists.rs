use libc::{EBUSY, EFBIG, EINVAL, ENAMETOOLONG, EPERM};
use serde_json::{Value, json};

use super::tree;
use crate::support::{Actor, Answer, Mount};

/// Writes a line to `control`.
fn order(by: &mut Actor, line: &Value) -> Answer<()> {
    let fd = by.open("control", libc::O_WRONLY)?;
    let written = by.write(fd, &format!("{line}\n"));
    by.close(fd)?;
    written.map(|_| ())
}

#[test]
fn a_list_of_claims_is_taken_whole_or_not_at_all() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    order(&mut me, &json!({"claim": ["b", "a"], "reason": "both"})).unwrap();
    for name in ["a", "b"] {
        let record = mount.record(name).unwrap();
        assert_eq!(
            (&record["session"], &record["reason"]),
            (&json!("me"), &json!("both"))
        );
    }
    let token = mount.token("a");
    // What is ours is done already, and keeps its token and its reason.
    order(&mut me, &json!({"claim": ["a", "c", "a"]})).unwrap();
    assert_eq!(mount.token("a"), token);
    assert_eq!(mount.record("a").unwrap()["reason"], "both");
    assert_eq!(order(&mut other, &json!({"claim": ["d", "a"]})), Err(EBUSY));
    assert_eq!(
        order(&mut other, &json!({"release": ["d", "a"]})),
        Err(EBUSY)
    );
    assert_eq!(mount.claims(), ["a", "b", "c"]);
    // Absent is done already, and a directory goes if it is empty.
    me.mkdir("claims/dir").unwrap();
    order(&mut me, &json!({"release": ["a", "none", "dir"]})).unwrap();
    assert_eq!(mount.claims(), ["b", "c"]);
    order(&mut other, &json!({"claim": ["a", "d"]})).unwrap();
}

#[test]
fn a_list_of_paths_is_taken_whole_and_overlaps_collapse() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    let paths = json!({"reserve": ["/w/a/b", "w/a", "/w/a/c", "/w/d"], "reason": "build"});
    order(&mut me, &paths).unwrap();
    assert_eq!(tree(&mount), ["w/", "w/a", "w/d"]);
    assert_eq!(mount.record("paths/w/a").unwrap()["reason"], "build");
    // Below one's own nothing more is needed.
    let token = mount.token("paths/w/a");
    order(&mut me, &json!({"reserve": ["/w/a/b/c", "/w/a"]})).unwrap();
    assert_eq!(
        (tree(&mount), mount.token("paths/w/a")),
        (vec!["w/".into(), "w/a".into(), "w/d".into()], token)
    );
    // Another stands in the way: at, below and above it. Nothing is taken.
    for path in ["/w/a", "/w/a/x", "/w"] {
        let refused = order(&mut other, &json!({"reserve": ["/v/x", path]}));
        assert_eq!(refused, Err(EBUSY), "{path}");
    }
    assert_eq!(tree(&mount).len(), 3);
    // A reservation takes the place of one's own below it, and of empty directories.
    me.mkdir("paths/w/empty").unwrap();
    me.mkdir("paths/w/empty/too").unwrap();
    order(&mut me, &json!({"reserve": ["/w/empty"]})).unwrap();
    assert_eq!(
        order(&mut other, &json!({"unreserve": ["/w/a"]})),
        Err(EBUSY)
    );
    order(&mut other, &json!({"unreserve": ["/w/a/x", "/w", "/none"]})).unwrap();
    assert_eq!(tree(&mount), ["w/", "w/a", "w/d", "w/empty"]);
    // Giving a directory back gives back all that is ours below it.
    order(&mut other, &json!({"reserve": ["/w/others"]})).unwrap();
    order(&mut me, &json!({"unreserve": ["/w"]})).unwrap();
    assert_eq!(tree(&mount), ["w/", "w/others"]);
    order(&mut other, &json!({"unreserve": ["/w"]})).unwrap();
    order(&mut me, &json!({"reserve": ["/w"]})).unwrap();
    assert_eq!(tree(&mount), ["w"]);
}

#[test]
fn a_list_up_to_its_edges() {
    let Some((mount, mut me, _)) = Mount::with_two() else {
        return;
    };
    let numbered =
        |count: usize| -> Vec<String> { (0..count).map(|at| format!("w/{at}")).collect() };
    order(&mut me, &json!({"reserve": numbered(256)})).unwrap();
    order(&mut me, &json!({"unreserve": numbered(256)})).unwrap();
    for key in ["reserve", "unreserve"] {
        assert_eq!(order(&mut me, &json!({key: numbered(257)})), Err(EFBIG));
    }
    let claims = |count: usize| -> Vec<String> { (0..count).map(|at| at.to_string()).collect() };
    for key in ["claim", "release"] {
        order(&mut me, &json!({key: claims(256)})).unwrap();
        assert_eq!(order(&mut me, &json!({key: claims(257)})), Err(EFBIG));
    }
    // 64 KiB a line.
    for (length, expected) in [(64 * 1024, Ok(())), (64 * 1024 + 1, Err(EFBIG))] {
        let paths = json!({"reserve": ["/w/x"], "pad": ""}).to_string().len();
        let line = json!({"reserve": ["/w/x"], "pad": "x".repeat(length - paths)});
        assert_eq!(line.to_string().len(), length);
        assert_eq!(order(&mut me, &line), expected);
    }
    for (reason, expected) in [("x".repeat(256), Ok(())), ("x".repeat(257), Err(EFBIG))] {
        let line = json!({"reserve": ["/w/y"], "reason": reason});
        assert_eq!(order(&mut me, &line), expected);
    }
    let before = tree(&mount);
    for path in [
        "", "/", "//", "/w/", "/w//x", "/w/./x", "/w/../x", ".", "..", "/w/\0",
    ] {
        for key in ["reserve", "unreserve"] {
            let refused = order(&mut me, &json!({key: ["/w/z", path]}));
            assert_eq!(refused, Err(EINVAL), "{path:?}");
        }
    }
    for line in [
        json!({"reserve": []}),
        json!({"reserve": "w/x"}),
        json!({"reserve": [1]}),
        json!({"reserve": ["/w/z"], "reason": 1}),
        json!({"claim": ["a/b"]}),
        json!({"claim": [".x"]}),
        // What would be ignored.
        json!({"claim": ["a"], "session": "w1", "seconds": 5}),
        json!({"release": ["a"], "token": 1}),
        json!({"claim": ["a"], "reserve": ["/w/z"]}),
        json!({"reserve": ["/w/z"], "release": "a"}),
    ] {
        assert_eq!(order(&mut me, &line), Err(EINVAL), "{line}");
    }
    let deep = vec!["d"; 65].join("/");
    let long = ["n".repeat(256)].join("/");
    let full = format!(
        "{}/{}",
        vec!["n".repeat(255); 15].join("/"),
        "n".repeat(257)
    );
    for path in [deep, long, full] {
        assert_eq!(
            order(&mut me, &json!({"reserve": [path]})),
            Err(ENAMETOOLONG)
        );
    }
    assert_eq!(tree(&mount), before);
}

#[test]
fn a_line_replaces_gives_up_and_gives_so_many_reservations_and_no_more() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    other.claim("receives").unwrap();
    let paths: Vec<String> = (0..1025)
        .map(|at| format!("/w/{}/{at}", at / 100))
        .collect();
    for some in paths.chunks(256) {
        order(&mut me, &json!({"reserve": some})).unwrap();
    }
    let lines = [
        json!({"reserve": ["/w"]}),
        json!({"unreserve": ["/w"]}),
        json!({"unreserve": ["/w/0", "/w/1", "/v", "/w"]}),
        json!({"give": "paths/w", "to": "other"}),
    ];
    for line in &lines {
        assert_eq!(order(&mut me, line), Err(EFBIG), "{line}");
    }
    // Whoever holds nothing there is refused at the first.
    assert_eq!(order(&mut other, &lines[0]), Err(EBUSY));
    assert!(mount.read("leases").starts_with("{\"seq\":"));
    assert_eq!(mount.read("leases").matches("paths/w").count(), 1025);
    // What others have there does not matter to who has little.
    order(&mut other, &json!({"reserve": ["/w/other"]})).unwrap();
    order(&mut other, &lines[1]).unwrap();
    assert_eq!(mount.read("leases").matches("paths/w").count(), 1025);
    me.unlink("paths/w/0/0").unwrap();
    order(&mut me, &lines[3]).unwrap();
    assert_eq!(order(&mut me, &lines[0]), Err(EBUSY));
    order(&mut other, &lines[0]).unwrap();
    assert_eq!(tree(&mount), ["w"]);
}

#[test]
fn only_root_reserves_a_path_of_one_component_in_a_list_too() {
    let Some(mount) = Mount::shared(&[]) else {
        return;
    };
    let mut user = Actor::start(&mount, Some("user"), |command| {
        std::os::unix::process::CommandExt::uid(command, 4242);
    });
    assert_eq!(
        order(&mut user, &json!({"reserve": ["/home/me", "/home"]})),
        Err(EPERM)
    );
    assert_eq!(order(&mut user, &json!({"reserve": ["/home"]})), Err(EPERM));
    order(&mut user, &json!({"reserve": ["/home/me"]})).unwrap();
    assert_eq!(tree(&mount), ["home/", "home/me"]);
}

#[test]
fn a_directory_is_given_with_all_below_it_or_not_at_all() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    let mut heir = mount.actor(Some("heir"));
    heir.claim("heirloom").unwrap();
    order(
        &mut me,
        &json!({"reserve": ["/w/a", "/w/b/c", "/w/d"], "reason": "mine"}),
    )
    .unwrap();
    order(&mut other, &json!({"reserve": ["/w/e"]})).unwrap();
    let give = |path: &str| json!({"give": path, "to": "heir"});
    assert_eq!(order(&mut me, &give("paths/w")), Err(EBUSY));
    assert_eq!(mount.session_of("paths/w/a").unwrap(), "me");
    order(&mut other, &json!({"unreserve": ["/w/e"]})).unwrap();
    let token = mount.token("paths/w/b/c");
    order(&mut me, &give("paths/w")).unwrap();
    for path in ["paths/w/a", "paths/w/b/c", "paths/w/d"] {
        let record = mount.record(path).unwrap();
        assert_eq!(record["session"], "heir");
        assert!(record["reason"].is_null(), "{record}");
    }
    assert!(mount.token("paths/w/b/c") > token);
    assert_eq!(order(&mut me, &give("paths/w")), Err(EBUSY));
    assert_eq!(order(&mut me, &give("paths/none")), Err(libc::ENOENT));
    // By the attribute of the directory too.
    order(&mut me, &json!({"reserve": ["/v/a", "/v/b"]})).unwrap();
    me.setxattr("paths/v", "user.claimfs.session", "heir", 0)
        .unwrap();
    assert_eq!(mount.session_of("paths/v/b").unwrap(), "heir");
    assert_eq!(
        tree(&mount),
        ["v/", "v/a", "v/b", "w/", "w/a", "w/b/", "w/b/c", "w/d"]
    );
}

#[test]
fn terms_and_breaking_are_those_of_leases() {
    let Some((mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    order(&mut me, &json!({"reserve": ["/w/a", "/w/b"]})).unwrap();
    let name = "paths/w/a";
    order(&mut me, &json!({"ttl": name, "seconds": 600})).unwrap();
    assert!(mount.record(name).unwrap()["expires_in"].as_f64().unwrap() > 500.0);
    assert_eq!(
        order(&mut other, &json!({"ttl": name, "seconds": 1})),
        Err(EBUSY)
    );
    let token = mount.token(name);
    order(&mut other, &json!({"break": name, "token": token})).unwrap();
    assert_eq!(tree(&mount), ["w/", "w/b"]);
    // A reservation that expires is free at once, and so is all below it.
    order(&mut me, &json!({"ttl": "paths/w/b", "seconds": 0.001})).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1));
    other.mkdir("paths/w/b").unwrap();
    order(&mut other, &json!({"reserve": ["/w/b/c"]})).unwrap();
}

#[test]
fn under_process_scope_a_reservation_passes_to_the_parent_and_ends_with_a_kill() {
    let Some(mount) = Mount::new() else { return };
    let script = "
        mkdir -p paths/w
        sh -c ': > paths/w/passed; echo \"{\\\"reserve\\\":[\\\"/w/listed/x\\\"]}\" > control'
        grep -c \"\\\"pid\\\":$$,.*from_pid\" leases
        rm paths/w/passed && echo released
        sh -c ': > paths/w/killed; kill -9 $$' 2> /dev/null
        (set -C; : > paths/w/killed) && echo free
        find paths -type f | sort";
    let (code, out, err) = crate::support::text(&mount.sh(script).output().unwrap());
    let expected = "2\nreleased\nfree\npaths/w/killed\npaths/w/listed/x\n";
    assert_eq!((code, out.as_str()), (0, expected), "{err}");
    crate::support::wait_until("the shell's end", || tree(&mount) == ["w/", "w/listed/"]);
}

#[test]
fn events_tell_of_each_reservation_that_comes_and_goes() {
    let Some((_mount, mut me, mut other)) = Mount::with_two() else {
        return;
    };
    let events = me.open("events", libc::O_RDONLY).unwrap();
    order(&mut other, &json!({"reserve": ["/w/a/b", "/w/c"]})).unwrap();
    order(&mut other, &json!({"reserve": ["/w/a"]})).unwrap();
    order(&mut other, &json!({"unreserve": ["/w/c"]})).unwrap();
    other.kill();
    let mut seen = String::new();
    while seen.matches("reaped").count() < 1 {
        seen += &me.read(events).unwrap();
    }
    let seen: Vec<(String, String)> = seen
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|event| {
            let word = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            (word("event"), word("claim"))
        })
        .collect();
    let expected = [
        ("claimed", "paths/w/a/b"),
        ("claimed", "paths/w/c"),
        ("released", "paths/w/a/b"),
        ("claimed", "paths/w/a"),
        ("released", "paths/w/c"),
        ("reaped", "paths/w/a"),
    ];
    let of_paths = seen.iter().filter(|(_, claim)| claim.starts_with("paths/"));
    let of_paths: Vec<(&str, &str)> = of_paths
        .map(|(event, claim)| (&**event, &**claim))
        .collect();
    let starts = |(event, claim): &(&str, &str)| {
        (
            event.trim_start_matches("claim_").to_owned(),
            (*claim).to_owned(),
        )
    };
    let of_paths: Vec<_> = of_paths.iter().map(starts).collect();
    let expected: Vec<_> = expected.iter().map(starts).collect();
    assert_eq!(of_paths, expected);
}

#[test]
fn regression_a_child_does_not_take_its_parents_reservations_with_it() {
    let Some(mount) = Mount::new() else { return };
    // The parent reserves a file; a child of it the directory, which is the parent's then.
    let script = "
        mkdir -p paths/w/d
        : > paths/w/d/x
        (echo '{\"reserve\":[\"/w/d\"]}' > control; exec sh -c 'kill -9 $$') 2> /dev/null
        find paths -type f
        grep -c \"\\\"pid\\\":$$,\" paths/w/d
        (set -C; : > paths/w/d) 2> /dev/null || echo held
        rm paths/w/d
        # Of what several processes have, no one reservation is made.
        : > paths/w/1
        (: > paths/w/2; echo '{\"reserve\":[\"/w\"]}' > control || echo busy) 2> /dev/null
        (echo '{\"reserve\":[\"/w\"]}' > control && find paths -type f)";
    let (code, out, err) = crate::support::text(&mount.sh(script).output().unwrap());
    let expected = "paths/w/d\n1\nheld\nbusy\npaths/w\n";
    assert_eq!((code, out.as_str()), (0, expected), "{err}");
}
