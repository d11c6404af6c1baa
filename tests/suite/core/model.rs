//! The rules of the table one by one, in the pure core. All of them at once, at random, are in
//! `reference.rs`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use claimfs::core::table::Table;
use claimfs::core::{
    Asker, Change, Command, Creation, Ino, Member, Moment, Name, Process, Refusal, Root, Rule,
    SessionId, Token, What,
};

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

pub fn id(text: &str) -> SessionId {
    SessionId::new(text.as_bytes()).unwrap()
}

fn at(seconds: usize) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds as u64)
}

fn now(seconds: usize) -> Moment {
    Moment {
        wall: at(seconds),
        boot: Duration::from_secs(seconds as u64),
    }
}

fn root(process: Process, registered: bool) -> Root {
    Root {
        process,
        command: Arc::from("sh"),
        started: UNIX_EPOCH,
        registered,
        environ: 0,
        above: claimfs::core::Above::Unknown,
    }
}

/// The session that rule 1 gives the descendants of a process, and whether the process itself was
/// registered in it.
fn registration<'a>(table: &'a Table, process: &Process) -> Option<(&'a SessionId, bool)> {
    let mut found = None;
    table.standings(process, &mut |standing| {
        if standing.registered || (standing.rule == Rule::Registered && found.is_none()) {
            found = Some((standing.id, standing.registered));
        }
    });
    found
}

pub fn creation(uid: u32) -> Creation {
    Creation {
        shape: claimfs::core::Shape::File,
        mode: 0o644,
        uid,
        gid: uid,
    }
}

pub fn process(pid: u32) -> Process {
    Process {
        pid,
        start: u64::from(pid) * 10,
        pidfs: u64::from(pid) + 5000,
    }
}

fn asker(uid: u32, pidns: u64, chain: &[Process]) -> Asker<'_> {
    Asker {
        uid,
        pidns,
        chain,
        command: Arc::from("sh"),
    }
}

pub fn member(session: &str, roots: &[Process]) -> Member {
    Member {
        id: id(session),
        rule: Rule::Variable,
        uid: 1000,
        pidns: 0,
        sandbox: 0,
        scope: claimfs::core::Scope::Session,
        heir: None,
        roots: roots.iter().map(|process| root(*process, false)).collect(),
        lineage: roots
            .iter()
            .rev()
            .map(|process| claimfs::core::Kin {
                process: *process,
                pid: process.pid,
            })
            .collect(),
        pid: roots.last().unwrap().pid,
        command: Arc::from("sh"),
    }
}

fn registrant(session: &str, process: Process) -> Member {
    let mut member = member(session, &[process]);
    member.rule = Rule::Registered;
    member.roots[0].registered = true;
    member
}

pub fn claim<'a>(of: &str, by: &'a Member) -> Command<'a> {
    Command::Claim {
        name: name(of).into(),
        by,
        creation: creation(by.uid),
        exclusive: true,
        truncate: false,
    }
}

fn rename<'a>(from: &str, to: &str, noreplace: bool, by: &'a Member) -> Command<'a> {
    Command::Rename {
        from: name(from).into(),
        to: name(to).into(),
        noreplace,
        by,
    }
}

/// Decides, applies, and says what happened.
fn run(table: &mut Table, command: &Command) -> Result<Vec<What>, Refusal> {
    let events = table.decide(command, now(1))?;
    for event in &events {
        table.apply(event);
    }
    Ok(events.into_iter().map(|event| event.what).collect())
}

fn died(table: &mut Table, process: Process) -> Vec<What> {
    run(
        table,
        &Command::Died {
            process,
            ending: Some(claimfs::core::Ending::Exited(0)),
        },
    )
    .unwrap()
}

/// The events in a word each: what happened to which name.
fn words(events: &[What]) -> Vec<String> {
    let word = |what: &What| match what {
        What::SessionStarted { id, .. } => format!("started {id}"),
        What::Joined { root, .. } if root.registered => format!("registered {}", root.process.pid),
        What::Joined { root, .. } => format!("joined {}", root.process.pid),
        What::Prolonged { .. } => "prolonged".into(),
        What::Passed { from, to, .. } => format!("passed {} {}", from.pid, to.pid),
        What::Left { process, .. } => format!("left {}", process.pid),
        What::SessionEnded { why, .. } => format!("over {why:?}"),
        What::Claimed { name, .. } => format!("claimed {name}"),
        What::Released { name, .. } => format!("released {name}"),
        What::Reaped { name, .. } => format!("reaped {name}"),
        What::Altered { .. } => "altered".into(),
        What::Broken { name, .. } => format!("broken {name}"),
        What::Bound { binding, .. } => format!("bound {}", binding.process.pid),
        What::Expired { name, .. } => format!("expired {name}"),
        What::Handed { name, .. } => format!("handed {name}"),
        What::Limited { deadline, .. } => format!("limited {:?}", deadline.map(|d| d.until)),
        What::Queued { name, .. } => format!("queued {name}"),
        What::Granted { name, .. } => format!("granted {name}"),
        What::Accepted { .. } => "accepted".into(),
        What::LeftQueue { .. } => "left the line".into(),
        What::Linked { .. } => "linked".into(),
        What::Unlinked { .. } => "unlinked".into(),
        What::Forgotten { .. } => "forgotten".into(),
    };
    events.iter().map(word).collect()
}

fn token(table: &Table, of: &str) -> Token {
    table.lease(&name(of)).unwrap().token
}

fn ino(table: &Table, of: &str) -> Ino {
    table.lease(&name(of)).unwrap().ino
}

fn holder(table: &Table, of: &str) -> Option<String> {
    let inode = table.inode(table.lease(&name(of))?.ino)?;
    let session = table.session_by_key(inode.holder)?;
    Some(session.id.as_str().into())
}

#[test]
fn a_recycled_pid_is_another_process() {
    let recycled = [
        Process {
            start: 9999,
            ..process(10)
        },
        // In the same clock tick, told apart by its pidfd alone.
        Process {
            pidfs: 9999,
            ..process(10)
        },
    ];
    for again in recycled {
        let mut table = Table::new(10);
        run(
            &mut table,
            &Command::Join {
                exclusive: false,
                by: &registrant("old", process(10)),
            },
        )
        .unwrap();
        run(&mut table, &claim("x", &member("old", &[process(10)]))).unwrap();
        assert_eq!(registration(&table, &process(10)), Some((&id("old"), true)));
        assert_eq!(registration(&table, &again), None);
        assert!(!table.depends_on(&again));

        // Nobody has said yet that the old one is dead: on doubt, hold.
        let stranger = member("new", &[again]);
        assert_eq!(
            run(&mut table, &claim("x", &stranger)),
            Err(Refusal::Exists)
        );
        run(&mut table, &claim("y", &stranger)).unwrap();
        assert_eq!(
            words(&died(&mut table, process(10))),
            ["left 10", "over Died"]
        );
        assert_eq!(holder(&table, "x"), None);
        assert_eq!(holder(&table, "y").unwrap(), "new");

        run(&mut table, &claim("x", &stranger)).unwrap();
        assert_eq!(died(&mut table, process(10)), []);
        assert_eq!(holder(&table, "x").unwrap(), "new");
        died(&mut table, again);
        assert_eq!(table.lease_count(), 0);
    }
}

#[test]
fn a_restarted_id_inherits_nothing() {
    let mut table = Table::new(10);
    let (old, new) = (member("w", &[process(10)]), member("w", &[process(20)]));
    run(&mut table, &claim("x", &old)).unwrap();
    run(&mut table, &claim("y", &old)).unwrap();
    let (lost, key) = (ino(&table, "x"), table.session(&id("w")).unwrap().key);
    died(&mut table, process(10));

    let events = run(&mut table, &claim("x", &new)).unwrap();
    let expected = ["started w", "joined 20", "reaped x", "claimed x"];
    assert_eq!(words(&events), expected);
    let session = table.session(&id("w")).unwrap();
    assert!(session.key > key);
    assert_eq!(session.leases.len(), 1);
    assert_eq!(session.roots, [root(process(20), false)]);

    // The old descriptor is no way in, and the other name is nobody's.
    let truncate = Command::Reclaim {
        ino: lost,
        by: &new,
        truncate: true,
    };
    assert_eq!(run(&mut table, &truncate), Err(Refusal::Lost));
    assert_eq!(holder(&table, "y"), None);
    let release = Command::Release {
        directory: false,
        name: name("y").into(),
        by: &new,
    };
    assert_eq!(run(&mut table, &release), Err(Refusal::NotFound));
    assert_ne!(ino(&table, "x"), lost);
    // A later sweep frees the leases of the old session alone.
    let swept = run(&mut table, &Command::Sweep { limit: 10 }).unwrap();
    assert_eq!(words(&swept), ["reaped y"]);
    assert_eq!(holder(&table, "x").unwrap(), "w");
}

#[test]
fn a_session_is_joined_by_its_own_uid_and_namespace_or_by_a_related_tree() {
    let mut table = Table::new(10);
    run(&mut table, &claim("x", &member("w", &[process(10)]))).unwrap();
    let mut foreign = member("w", &[process(20)]);
    foreign.uid = 1001;
    let mut boxed = member("w", &[process(30)]);
    boxed.pidns = 7;
    for by in [&foreign, &boxed] {
        let before = table.seq();
        assert_eq!(run(&mut table, &claim("y", by)), Err(Refusal::NotPermitted));
        assert_eq!(
            run(
                &mut table,
                &Command::Join {
                    exclusive: false,
                    by
                }
            ),
            Err(Refusal::NotPermitted)
        );
        // Of a name that is held, another session is told what anybody is.
        assert_eq!(run(&mut table, &claim("x", by)), Err(Refusal::Exists));
        let reclaim = Command::Reclaim {
            ino: ino(&table, "x"),
            by,
            truncate: true,
        };
        assert_eq!(run(&mut table, &reclaim), Err(Refusal::Busy));
        let release = Command::Release {
            directory: false,
            name: name("x").into(),
            by,
        };
        assert_eq!(run(&mut table, &release), Err(Refusal::Busy));
        assert_eq!(table.seq(), before, "a refusal changes nothing");
    }

    // A sandbox below a root of the session; from then on its own processes are roots, and related
    // by themselves.
    let mut below = member("w", &[process(10), process(30)]);
    below.pidns = 7;
    run(&mut table, &claim("y", &below)).unwrap();
    run(&mut table, &claim("z", &boxed)).unwrap();
    // An unrelated tree of the same uid and namespace gains that tree's roots.
    let events = run(&mut table, &claim("u", &member("w", &[process(40)]))).unwrap();
    assert_eq!(words(&events), ["joined 40", "claimed u"]);
    assert_eq!(table.session_count(), 1);
    assert_eq!(table.session(&id("w")).unwrap().leases.len(), 4);

    // Another uid stays out even if it is related, and even if it is root.
    foreign.roots = vec![root(process(10), false)];
    for uid in [1001, 0] {
        foreign.uid = uid;
        let refused = run(&mut table, &claim("v", &foreign));
        assert_eq!(refused, Err(Refusal::NotPermitted));
    }
}

#[test]
fn the_limit_counts_live_leases_only() {
    let mut table = Table::new(2);
    let (a, b) = (member("a", &[process(10)]), member("b", &[process(20)]));
    run(&mut table, &claim("x", &a)).unwrap();
    run(&mut table, &claim("y", &a)).unwrap();
    assert_eq!(run(&mut table, &claim("z", &b)), Err(Refusal::Full));
    assert_eq!(
        table.session_count(),
        1,
        "nobody who is refused starts a session"
    );
    // A full table still tells who holds a name, renames, and re-claims.
    assert_eq!(run(&mut table, &claim("x", &b)), Err(Refusal::Exists));
    run(&mut table, &rename("x", "w", false, &a)).unwrap();
    let again = Command::Claim {
        name: name("w").into(),
        by: &a,
        creation: creation(1000),
        exclusive: false,
        truncate: false,
    };
    assert_eq!(run(&mut table, &again), Ok(vec![]));

    // Not swept, and yet out of the way.
    died(&mut table, process(10));
    assert!(table.wants_sweep());
    assert_eq!(table.lease_count(), 0);
    run(&mut table, &claim("z", &b)).unwrap();
    run(&mut table, &claim("w", &b)).unwrap();
    assert_eq!(run(&mut table, &claim("v", &b)), Err(Refusal::Full));
    run(&mut table, &Command::Sweep { limit: 10 }).unwrap();
    assert_eq!(table.lease_count(), 2);
    let release = Command::Release {
        directory: false,
        name: name("z").into(),
        by: &b,
    };
    run(&mut table, &release).unwrap();
    run(&mut table, &claim("v", &b)).unwrap();
}

#[test]
fn only_its_uid_and_root_end_a_session() {
    for (uid, may) in [(1001, false), (1000, true), (0, true)] {
        let mut table = Table::new(10);
        run(&mut table, &claim("x", &member("w", &[process(10)]))).unwrap();
        let end = |id| Command::End {
            id,
            by: asker(uid, 0, &[]),
        };
        assert_eq!(run(&mut table, &end(id("v"))), Err(Refusal::NotFound));
        let ended = run(&mut table, &end(id("w")));
        if !may {
            assert_eq!(ended, Err(Refusal::NotPermitted));
            assert_eq!(holder(&table, "x").unwrap(), "w");
            continue;
        }
        assert_eq!(words(&ended.unwrap()), ["over Ended"]);
        assert_eq!(run(&mut table, &end(id("w"))), Err(Refusal::NotFound));
        assert_eq!(holder(&table, "x"), None);
        assert!(!table.depends_on(&process(10)));
        // Released, not reaped: nobody is proven dead.
        let swept = run(&mut table, &Command::Sweep { limit: 10 }).unwrap();
        assert_eq!(words(&swept), ["released x"]);
        assert_eq!(died(&mut table, process(10)), []);
    }
}

#[test]
fn a_process_is_registered_in_one_session_at_a_time() {
    let mut table = Table::new(10);
    let (first, second) = (registrant("a", process(10)), registrant("b", process(10)));
    run(
        &mut table,
        &Command::Join {
            exclusive: false,
            by: &first,
        },
    )
    .unwrap();
    assert_eq!(
        run(
            &mut table,
            &Command::Join {
                exclusive: false,
                by: &first
            }
        ),
        Ok(vec![])
    );
    // Each holds something, or it would be over without its only process.
    run(&mut table, &claim("x", &first)).unwrap();
    run(
        &mut table,
        &Command::Join {
            exclusive: false,
            by: &second,
        },
    )
    .unwrap();
    run(&mut table, &claim("y", &second)).unwrap();
    assert_eq!(registration(&table, &process(10)), Some((&id("b"), true)));
    let registered =
        |table: &Table, session| table.session(&id(session)).unwrap().roots[0].registered;
    assert!(!registered(&table, "a") && registered(&table, "b"));
    // And back again: the newest registration counts.
    run(
        &mut table,
        &Command::Join {
            exclusive: false,
            by: &first,
        },
    )
    .unwrap();
    assert_eq!(registration(&table, &process(10)), Some((&id("a"), true)));
    assert!(registered(&table, "a") && !registered(&table, "b"));
    // It is still a root of both, and both go with it.
    let events = died(&mut table, process(10));
    assert_eq!(
        words(&events),
        ["left 10", "over Died", "left 10", "over Died"]
    );
    assert_eq!(table.session_count(), 0);
    assert_eq!(registration(&table, &process(10)), None);
}

#[test]
fn a_claimant_below_a_registered_root_is_a_root_but_not_registered() {
    let mut table = Table::new(10);
    run(
        &mut table,
        &Command::Join {
            exclusive: false,
            by: &registrant("w", process(10)),
        },
    )
    .unwrap();
    run(
        &mut table,
        &claim("x", &member("w", &[process(10), process(20)])),
    )
    .unwrap();
    assert_eq!(registration(&table, &process(10)), Some((&id("w"), true)));
    assert_eq!(registration(&table, &process(20)), Some((&id("w"), false)));
    // A claim by what was registered does not take that back.
    died(&mut table, process(10));
    assert_eq!(holder(&table, "x").unwrap(), "w");
    assert_eq!(registration(&table, &process(20)), Some((&id("w"), false)));
    died(&mut table, process(20));
    assert_eq!(holder(&table, "x"), None);

    // Roots of a session that nobody registered answer no rule 1.
    run(&mut table, &claim("x", &member("v", &[process(30)]))).unwrap();
    assert_eq!(registration(&table, &process(30)), None);
}

#[test]
fn a_session_lives_while_one_of_its_roots_does() {
    let mut table = Table::new(10);
    let tree = [process(10), process(20), process(30)];
    run(&mut table, &claim("x", &member("w", &tree))).unwrap();
    assert_eq!(words(&died(&mut table, process(20))), ["left 20"]);
    assert_eq!(words(&died(&mut table, process(10))), ["left 10"]);
    assert_eq!(died(&mut table, process(10)), []);
    // An orphan of it whose chain is gone joins it by its id.
    run(&mut table, &claim("y", &member("w", &[process(40)]))).unwrap();
    assert_eq!(words(&died(&mut table, process(30))), ["left 30"]);
    assert_eq!(holder(&table, "x").unwrap(), "w");
    assert_eq!(
        words(&died(&mut table, process(40))),
        ["left 40", "over Died"]
    );
    assert_eq!(table.lease_count(), 0);
}

#[test]
fn a_stale_name_is_reaped_and_granted_in_one_decision() {
    let mut table = Table::new(10);
    run(&mut table, &claim("x", &member("old", &[process(10)]))).unwrap();
    let (before, lost) = (token(&table, "x"), ino(&table, "x"));
    died(&mut table, process(10));
    let events = run(&mut table, &claim("x", &member("new", &[process(20)]))).unwrap();
    let expected = ["started new", "joined 20", "reaped x", "claimed x"];
    assert_eq!(words(&events), expected);
    assert!(matches!(&events[2], What::Reaped { token, .. } if *token == before));
    assert!(matches!(&events[3], What::Claimed { token, created: Some(_), .. } if *token > before));
    assert_eq!(holder(&table, "x").unwrap(), "new");
    assert!(table.inode(lost).is_none());
    assert!(!table.wants_sweep());
}

#[test]
fn rename_takes_the_new_name_before_it_releases_the_old_one() {
    let mut table = Table::new(10);
    let (me, other) = (
        member("me", &[process(10)]),
        member("other", &[process(20)]),
    );
    run(&mut table, &claim("x", &me)).unwrap();
    let (first, file) = (token(&table, "x"), ino(&table, "x"));

    // Onto a free name.
    let events = run(&mut table, &rename("x", "y", false, &me)).unwrap();
    assert_eq!(words(&events), ["claimed y", "released x"]);
    assert!(matches!(&events[1], What::Released { token, .. } if *token == first));
    assert!(token(&table, "y") > first);
    assert_eq!(ino(&table, "y"), file, "the inode stays");
    assert!(matches!(&events[0], What::Claimed { created: None, .. }));

    // Onto one's own: what was there goes first, and its inode is nameless but not lost.
    run(&mut table, &claim("z", &me)).unwrap();
    let replaced = ino(&table, "z");
    assert_eq!(
        run(&mut table, &rename("y", "z", true, &me)),
        Err(Refusal::Exists)
    );
    let events = run(&mut table, &rename("y", "z", false, &me)).unwrap();
    assert_eq!(words(&events), ["released z", "claimed z", "released y"]);
    assert_eq!(ino(&table, "z"), file);
    assert_eq!(table.inode(replaced).unwrap().names, []);

    // Onto itself: nothing.
    assert_eq!(run(&mut table, &rename("z", "z", false, &me)), Ok(vec![]));
    assert_eq!(
        run(&mut table, &rename("z", "z", true, &me)),
        Err(Refusal::Exists)
    );

    // Onto what a dead session left.
    run(&mut table, &claim("w", &other)).unwrap();
    assert_eq!(
        run(&mut table, &rename("z", "w", false, &me)),
        Err(Refusal::Busy)
    );
    assert_eq!(
        run(&mut table, &rename("w", "q", false, &me)),
        Err(Refusal::Busy)
    );
    assert_eq!(
        run(&mut table, &rename("w", "z", false, &me)),
        Err(Refusal::Busy)
    );
    assert_eq!(
        run(&mut table, &rename("q", "z", false, &me)),
        Err(Refusal::NotFound)
    );
    died(&mut table, process(20));
    assert_eq!(
        run(&mut table, &rename("w", "q", false, &me)),
        Err(Refusal::NotFound)
    );
    let events = run(&mut table, &rename("z", "w", true, &me)).unwrap();
    assert_eq!(words(&events), ["reaped w", "claimed w", "released z"]);
    assert_eq!(table.lease_count(), 1);
}

#[test]
fn a_released_file_stays_until_it_is_forgotten_and_a_lost_one_does_not() {
    let mut table = Table::new(10);
    let me = member("me", &[process(10)]);
    run(&mut table, &claim("x", &me)).unwrap();
    run(&mut table, &claim("y", &me)).unwrap();
    let (released, lost) = (ino(&table, "x"), ino(&table, "y"));
    // A file that has a name is not forgotten.
    assert_eq!(
        run(&mut table, &Command::Forget { ino: released }),
        Ok(vec![])
    );
    let release = Command::Release {
        directory: false,
        name: name("x").into(),
        by: &me,
    };
    run(&mut table, &release).unwrap();
    died(&mut table, process(10));
    assert!(table.inode(lost).is_none());

    // The descriptor of an unlinked file works on, whatever became of its session.
    let alter = |ino| Command::Alter {
        ino,
        by: &me,
        change: Change::Append {
            data: b"more".to_vec(),
        },
    };
    run(&mut table, &alter(released)).unwrap();
    assert_eq!(table.inode(released).unwrap().content.body(), b"more");
    assert_eq!(run(&mut table, &alter(lost)), Err(Refusal::Lost));
    let forgotten = run(&mut table, &Command::Forget { ino: released }).unwrap();
    assert_eq!(words(&forgotten), ["forgotten"]);
    assert_eq!(run(&mut table, &alter(released)), Err(Refusal::Lost));
    assert_eq!(
        run(&mut table, &Command::Forget { ino: released }),
        Ok(vec![])
    );
}

#[test]
fn sweeping_writes_down_at_most_so_many_and_all_in_the_end() {
    let mut table = Table::new(10);
    for (session, pid) in [("a", 10), ("b", 20)] {
        for of in ["1", "2", "3"] {
            let by = member(session, &[process(pid)]);
            run(&mut table, &claim(&format!("{session}{of}"), &by)).unwrap();
        }
    }
    died(&mut table, process(10));
    let end = Command::End {
        id: id("b"),
        by: asker(1000, 0, &[]),
    };
    run(&mut table, &end).unwrap();
    let mut gone = Vec::new();
    while table.wants_sweep() {
        let swept = run(&mut table, &Command::Sweep { limit: 4 }).unwrap();
        assert!(!swept.is_empty() && swept.len() <= 4);
        gone.extend(words(&swept));
    }
    gone.sort();
    let expected = [
        "reaped a1",
        "reaped a2",
        "reaped a3",
        "released b1",
        "released b2",
        "released b3",
    ];
    assert_eq!(gone, expected);
    assert_eq!(run(&mut table, &Command::Sweep { limit: 4 }), Ok(vec![]));
}

#[test]
fn a_session_that_holds_nothing_is_over_when_its_only_process_registers_elsewhere() {
    let mut table = Table::new(10);
    for round in 0..100 {
        let by = registrant(&format!("s{round}"), process(10));
        let exclusive = true;
        run(&mut table, &Command::Join { exclusive, by: &by }).unwrap();
        assert_eq!(table.session_count(), 1);
        // The id is taken now, for a caller that insists on a new one.
        let again = run(&mut table, &Command::Join { exclusive, by: &by });
        assert_eq!(again.map(|_| ()), Err(Refusal::Exists));
    }
}

#[test]
fn a_terminals_session_makes_nobody_registered_who_is_not() {
    let mut table = Table::new(10);
    let mut by = member("sid-10-uid-1000", &[process(10), process(20)]);
    by.rule = Rule::Posix;
    run(&mut table, &claim("x", &by)).unwrap();
    let exclusive = false;
    let by = registrant("sid-10-uid-1000", process(20));
    run(&mut table, &Command::Join { exclusive, by: &by }).unwrap();
    assert_eq!(registration(&table, &process(20)), Some((&by.id, true)));
    assert_eq!(registration(&table, &process(10)), None);
}

#[test]
fn a_sandbox_ends_its_own_sessions_and_none_outside() {
    let end = |table: &mut Table, pidns, chain: &[Process]| {
        let (id, uid) = (id("w"), 1000);
        let end = Command::End {
            id,
            by: asker(uid, pidns, chain),
        };
        run(table, &end).map(|_| ())
    };
    let start = |pidns| {
        let mut table = Table::new(10);
        let mut by = member("w", &[process(10)]);
        by.pidns = pidns;
        run(&mut table, &claim("x", &by)).unwrap();
        table
    };
    assert_eq!(
        end(&mut start(0), 7, &[process(30)]),
        Err(Refusal::NotPermitted)
    );
    assert_eq!(
        end(&mut start(8), 7, &[process(30)]),
        Err(Refusal::NotPermitted)
    );
    assert_eq!(end(&mut start(7), 7, &[process(30)]), Ok(()));
    assert_eq!(end(&mut start(7), 0, &[process(30)]), Ok(()));
    assert_eq!(
        end(&mut start(0), 7, &[process(30), process(10)]),
        Ok(()),
        "it descends from a root"
    );
}

#[test]
fn a_create_that_meets_its_own_claim_empties_it_if_it_is_to_truncate() {
    // Two creates of one session that both found the name free: the kernel sends CREATE for each.
    let mut table = Table::new(10);
    let by = member("w", &[process(10)]);
    run(&mut table, &claim("x", &by)).unwrap();
    let ino = table.lease(&name("x")).unwrap().ino;
    let change = Change::Append {
        data: b"body".to_vec(),
    };
    run(
        &mut table,
        &Command::Alter {
            ino,
            by: &by,
            change,
        },
    )
    .unwrap();
    for (truncate, size) in [(false, 4), (true, 0)] {
        let again = Command::Claim {
            name: name("x").into(),
            by: &by,
            creation: creation(1000),
            exclusive: false,
            truncate,
        };
        run(&mut table, &again).unwrap();
        assert_eq!(table.inode(ino).unwrap().content.size(), size);
    }
}

#[test]
fn what_an_ended_session_left_is_of_the_share_of_who_takes_it() {
    let mut table = Table::new(10);
    table.limit_each(2);
    run(&mut table, &claim("x", &member("a", &[process(10)]))).unwrap();
    let end = Command::End {
        id: id("a"),
        by: asker(1000, 0, &[]),
    };
    run(&mut table, &end).unwrap();
    assert!(table.wants_sweep());
    let by = member("b", &[process(20)]);
    run(&mut table, &claim("y", &by)).unwrap();
    run(&mut table, &claim("z", &by)).unwrap();
    assert_eq!(run(&mut table, &claim("x", &by)), Err(Refusal::Quota));
}
