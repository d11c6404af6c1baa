//! The ranges of numbers: what a journal may contain, and the edge at which no new ones are given
//! out.

use std::time::UNIX_EPOCH;

use claimfs::core::table::Table;
use claimfs::core::{
    Event, FIRST_INO, Fixed, INO_END, Ino, KEY_END, NodeId, Refusal, Rule, SessionKey, Token,
    WAITER_END, WaiterId, What,
};
use claimfs::handoff::{Handoff, Note, Open, Reading};
use serde_json::{Value, json};

use super::model::{claim, creation, id, member, name, process};

fn event(what: What) -> Event {
    Event {
        seq: 1,
        at: UNIX_EPOCH,
        what,
    }
}

fn claimed(ino: u64, token: u64) -> Event {
    event(What::Claimed {
        name: name("x"),
        token: Token(token),
        key: SessionKey(1),
        ino: Ino(ino),
        created: None,
        pid: 1,
        command: "sh".into(),
        maker: None,
    })
}

fn queued(waiter: u64) -> Event {
    event(What::Queued {
        name: name("x"),
        waiter: WaiterId(waiter),
        key: SessionKey(1),
        creation: creation(1000),
        pid: 1,
        command: "sh".into(),
        maker: None,
    })
}

fn started(key: u64) -> Event {
    event(What::SessionStarted {
        key: SessionKey(key),
        id: id("w1"),
        uid: 1000,
        pidns: 0,
        rule: Rule::Variable,
    })
}

#[test]
fn an_event_has_numbers_of_their_own_kinds_only() {
    let largest = (1 << 62) - 1;
    for valid in [
        claimed(FIRST_INO, 1),
        claimed(INO_END - 1, largest),
        queued(WAITER_END - 1),
        started(KEY_END - 1),
    ] {
        assert!(valid.has_valid_numbers(), "{valid:?}");
    }
    for invalid in [
        // A fixed file, the first file in sessions/, a token past all.
        claimed(FIRST_INO - 1, 1),
        claimed(INO_END, 1),
        claimed(FIRST_INO, largest + 1),
        queued(WAITER_END),
        started(KEY_END),
    ] {
        assert!(!invalid.has_valid_numbers(), "{invalid:?}");
    }
}

#[test]
fn a_descriptor_has_a_number_of_its_kind_only() {
    let (file, reader) = (NodeId::QueueFile(1), NodeId::Reader(1));
    let (seated, waiter) = (NodeId::Seated(1), NodeId::Waiter(WaiterId(1)));
    let (text, claim) = (NodeId::Text(1), NodeId::Claim(Ino(FIRST_INO)));
    let fixed = NodeId::Fixed(Fixed::Events);
    let reading = || Open::Reading(Reading::default());
    let opened = |fh, open| Note::Opened { fh, open };
    let granted = |number| Open::Granted {
        waiter: WaiterId(number),
        key: SessionKey(1),
        name: name("x"),
        token: None,
    };
    for right in [
        opened(reader, reading()),
        opened(seated, Open::Seated),
        opened(waiter, Open::Seated),
        opened(waiter, granted(1)),
        Note::Forgotten { ino: file },
        Note::Polled { fh: waiter, kh: 7 },
        Note::Closed { fh: seated },
        Note::Closed {
            fh: NodeId::Registration(1),
        },
    ] {
        assert_eq!(right.check(), Ok(()), "{right:?}");
    }
    for wrong in [
        opened(waiter, reading()),
        opened(text, reading()),
        opened(reader, Open::Seated),
        opened(waiter, granted(2)),
        Note::Forgotten { ino: claim },
        Note::Polled { fh: file, kh: 7 },
        Note::Closed { fh: fixed },
    ] {
        assert!(wrong.check().is_err(), "{wrong:?}");
    }
}

#[test]
fn what_is_written_of_a_connection_is_checked_too() {
    let with = |part: &str, value: Value| {
        let mut handoff = serde_json::to_value(Handoff::new("a")).unwrap();
        handoff[part] = value;
        serde_json::from_value::<Handoff>(handoff)
            .map_err(|error| error.to_string())
            .and_then(|handoff| handoff.check())
    };
    let number = |node: NodeId| node.number().to_string();
    let (file, claim) = (
        number(NodeId::QueueFile(1)),
        number(NodeId::Claim(Ino(1024))),
    );
    let seated = number(NodeId::Seated(1));
    assert_eq!(with("files", json!({ file.clone(): "x" })), Ok(()));
    assert_eq!(with("open", json!({ seated.clone(): "Seated" })), Ok(()));
    assert_eq!(with("pollers", json!({ seated.clone(): 7 })), Ok(()));
    for (part, wrong) in [
        ("files", json!({ claim.clone(): "x" })),
        ("open", json!({ file.clone(): "Seated" })),
        ("pollers", json!({ claim: 7 })),
        ("pollers", json!({ "0": 7 })),
        ("files", json!({ u64::MAX.to_string(): "x" })),
    ] {
        assert!(with(part, wrong.clone()).is_err(), "{part}: {wrong}");
    }
}

#[test]
fn near_the_end_of_a_range_nothing_new_is_granted_and_everything_can_be_given_back() {
    let left = 1 << 24;
    let now = claimfs::core::Moment {
        wall: UNIX_EPOCH,
        boot: std::time::Duration::ZERO,
    };
    let by = member("w1", &[process(10)]);
    let mut table = Table::new(9);
    for event in table.decide(&claim("x", &by), now).unwrap() {
        table.apply(&event);
    }
    for (field, end) in [
        ("next_ino", INO_END),
        ("next_key", KEY_END),
        ("next_waiter", WAITER_END),
    ] {
        let at = |next: u64| {
            let mut written = serde_json::to_value(&table).unwrap();
            written[field] = json!(next);
            let read: Table = serde_json::from_value(written).unwrap();
            let read = read.completed(9);
            read.check().unwrap();
            read
        };
        let (before, past) = (at(end - left - 1), at(end - left));
        assert!(before.decide(&claim("y", &by), now).is_ok(), "{field}");
        let refused = past.decide(&claim("y", &by), now);
        assert_eq!(refused.unwrap_err(), Refusal::Full, "{field}");
        let release = claimfs::core::Command::Release {
            name: name("x").into(),
            directory: false,
            by: &by,
        };
        assert!(past.decide(&release, now).is_ok(), "{field}");
        let mut written = serde_json::to_value(&table).unwrap();
        written[field] = json!(end + 1);
        let read: Table = serde_json::from_value(written).unwrap();
        assert!(read.completed(9).check().is_err(), "{field}");
    }
}
