//! Extended attributes: pairs of a name and a value, each ended by a NUL; a name that ends the data
//! is removed.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use claimfs::core::content::{
    BODY_MAX, Content, REASON, REASON_MAX, RECORD_TAGS, TAGS_MAX, TTL_MAX,
};
use claimfs::core::{Change, Creation, Refusal, Shape};
use claimfs::tree::xattrs::Setting;

pub fn run(data: &[u8]) {
    let creation = Creation {
        shape: Shape::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
    };
    let mut content = Content::new(creation, BODY_MAX, UNIX_EPOCH);
    let mut naive: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut parts = data.split(|byte| *byte == 0);
    while let Some(name) = parts.next() {
        let value = parts.next();
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        match Setting::parse(name, value) {
            Ok(Setting::Keep(change)) => keep(&mut content, &mut naive, name, value, &change),
            Ok(Setting::Break(token)) => {
                let text = std::str::from_utf8(value.unwrap()).unwrap().trim();
                let digits = text.trim_start_matches('+').trim_start_matches('0');
                assert_eq!(digits, token.0.to_string().trim_start_matches('0'));
            }
            Ok(Setting::Limit(ttl)) => {
                assert_eq!(ttl.is_some(), value.is_some());
                let bounds = Duration::from_millis(1)..=TTL_MAX;
                assert!(ttl.is_none_or(|ttl| bounds.contains(&ttl)), "{ttl:?}");
            }
            Ok(Setting::Give(to)) => assert_eq!(to.as_str().as_bytes(), value.unwrap()),
            Err(Refusal::Unsupported) => assert!(!name.starts_with("user."), "{name:?}"),
            Err(
                Refusal::Invalid | Refusal::BadName | Refusal::LongName | Refusal::NotPermitted,
            ) => assert!(name.starts_with(RECORD_TAGS), "{name:?}"),
            Err(refusal) => panic!("{name:?} {value:?}: {refusal:?}"),
        }
    }
}

fn keep(
    content: &mut Content,
    naive: &mut BTreeMap<String, Vec<u8>>,
    name: &str,
    value: Option<&[u8]>,
    change: &Change,
) {
    let mut after = naive.clone();
    let was_there = match value {
        Some(value) => after.insert(name.to_owned(), value.to_vec()).is_some(),
        None => after.remove(name).is_some(),
    };
    let is_reason = name == REASON;
    let size: usize = after
        .iter()
        .filter(|(name, _)| *name != REASON)
        .map(|(name, value)| name.len() + value.len())
        .sum();
    match content.check(change) {
        Ok(()) => {
            assert!(size <= TAGS_MAX && (is_reason || !name.starts_with(RECORD_TAGS)));
            let text = value.map_or(Ok(""), std::str::from_utf8);
            assert!(!is_reason || text.is_ok_and(|text| text.len() <= REASON_MAX));
            let weight = content.weight_after(change);
            content.apply(change, UNIX_EPOCH);
            assert_eq!(content.weight(), weight);
            *naive = after;
        }
        Err(Refusal::NotPermitted) => assert!(!is_reason && name.starts_with(RECORD_TAGS)),
        Err(Refusal::TooLarge) => assert!(is_reason && value.unwrap().len() > REASON_MAX),
        Err(Refusal::Invalid) => {
            assert!(is_reason && std::str::from_utf8(value.unwrap()).is_err());
        }
        Err(Refusal::NoAttribute) => assert!(value.is_none() && !was_there),
        Err(Refusal::Full) => assert!(size > TAGS_MAX),
        Err(refusal) => panic!("{name:?}: {refusal:?}"),
    }
    assert_eq!(content.tags(), naive);
}
