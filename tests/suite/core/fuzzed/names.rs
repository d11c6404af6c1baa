//! Names of claims, sessions and entries, and how they are shown. The first line of the data is a
//! name, the rest a command.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use claimfs::core::table::Table;
use claimfs::core::{
    Command, Creation, Label, Member, Moment, Name, Process, Refusal, Root, Rule, SessionId, Shape,
    printable,
};
use claimfs::render::{self, EventRecord};
use serde_json::Value;

pub fn run(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0xFF);
    let raw = parts.next().unwrap_or_default();
    let command = String::from_utf8_lossy(parts.next().unwrap_or_default());
    for raw in [raw, data] {
        admitted(raw);
    }
    if let (Ok(name), Ok(id)) = (Name::new(raw), SessionId::new(raw)) {
        is_fit_to_show(&format!("{name}"));
        is_fit_to_show(&id.to_string());
        shown(&name, id, &command);
    }
}

/// The rule, in other words than its code.
fn admitted(raw: &[u8]) {
    let fits = raw.len() <= 255;
    let plain = |raw: &[u8]| {
        let bad = raw.iter().any(|byte| [0, b'/', b'\\'].contains(byte));
        !raw.is_empty() && raw[0] != b'.' && !bad && std::str::from_utf8(raw).is_ok()
    };
    let wants = match (fits, plain(raw)) {
        (false, _) => Err(Refusal::LongName),
        (true, false) => Err(Refusal::BadName),
        (true, true) => Ok(raw.to_vec()),
    };
    let bytes = |text: &str| text.as_bytes().to_vec();
    assert_eq!(Name::new(raw).map(|name| bytes(name.as_str())), wants);
    assert_eq!(SessionId::new(raw).map(|id| bytes(id.as_str())), wants);

    let dots = raw.iter().take_while(|byte| **byte == b'.').count();
    let scratch = Name::with_scratch(raw);
    assert_eq!(scratch.is_ok(), fits && plain(&raw[dots..]));
    if let Ok(scratch) = scratch {
        assert_eq!(
            (scratch.as_str().as_bytes(), scratch.is_scratch()),
            (raw, dots > 0)
        );
        same_again(&scratch);
    }

    let label = Label::new(raw);
    let bad = raw.is_empty() || raw == b"." || raw == b"..";
    let bad = bad || raw.iter().any(|byte| [0, b'/'].contains(byte));
    assert_eq!(label.is_ok(), fits && !bad);
    if let Ok(label) = label {
        assert_eq!(label.as_bytes(), raw);
        same_again(&label);
    }
}

/// It is the same once it was written and read as the journal does.
fn same_again<T>(it: &T)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let text = serde_json::to_string(it).unwrap();
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), *it);
}

/// No terminal is led astray by it: no control characters, neither of ASCII nor of Unicode, and
/// nothing that turns the direction of writing or cannot be seen.
fn is_fit_to_show(text: &str) {
    for c in text.chars() {
        let number = u32::from(c);
        let control = number < 0x20 || (0x7F..0xA0).contains(&number);
        let turns = "\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}";
        let unseen = "\u{200b}\u{200c}\u{200d}\u{2028}\u{2029}\u{2060}\u{feff}";
        assert!(
            !control && !turns.contains(c) && !unseen.contains(c),
            "U+{number:04X} in {text:?}"
        );
    }
}

fn shown(name: &Name, id: SessionId, command: &str) {
    is_fit_to_show(&printable(command));
    let process = Process {
        pid: 42,
        start: 42,
        pidfs: 42,
    };
    let command: Arc<str> = Arc::from(command);
    let root = Root {
        process,
        command: Arc::clone(&command),
        started: UNIX_EPOCH,
        registered: true,
        environ: 0,
        above: claimfs::core::Above::Unknown,
    };
    let by = &Member {
        id,
        rule: Rule::Registered,
        uid: 1000,
        pidns: 0,
        sandbox: 0,
        scope: claimfs::core::Scope::Session,
        heir: None,
        roots: vec![root],
        lineage: Vec::new(),
        pid: 42,
        command,
    };
    let creation = Creation {
        shape: Shape::File,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
    };
    let claim = Command::Claim {
        name: name.clone().into(),
        by,
        creation,
        exclusive: true,
        truncate: false,
    };
    let now = Moment {
        wall: UNIX_EPOCH,
        boot: Duration::ZERO,
    };
    let mut table = Table::new(9);
    for event in table.decide(&claim, now).unwrap() {
        if let Some(line) = EventRecord::of(&table, &event).map(|record| record.line()) {
            is_one_object(&line);
        }
        table.apply(&event);
    }
    let record = is_one_object(&render::lease_line(&table, name, now.boot));
    assert_eq!(record["name"], name.as_str());
    assert_eq!(record["session"], by.id.as_str());
    assert_eq!(record["command"], *by.command);
    for (_, value) in render::tags(&table, name, now.boot) {
        assert!(!value.is_empty() || by.command.is_empty());
    }
}

fn is_one_object(line: &str) -> Value {
    let line = line.strip_suffix('\n').unwrap();
    is_fit_to_show(line);
    serde_json::from_str(line).unwrap()
}
