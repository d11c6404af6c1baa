#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Encode, Flaw, Reader, write_number};
use crate::core::{Name, SessionId, Shape};

/// Writes a value and reads it back. Each proper prefix breaks off, and is wrong once it is known
/// to be all.
fn is_same<T: Encode + PartialEq + Debug>(value: &T) {
    let mut bytes = Vec::new();
    value.write(&mut bytes);
    let mut from = Reader::new(&bytes);
    assert_eq!(T::read(&mut from).as_ref(), Ok(value));
    assert_eq!(from.left(), 0, "{value:?}");
    for cut in 0..bytes.len() {
        let begun = T::read(&mut Reader::of_length(&bytes[..cut], bytes.len()));
        assert_eq!(begun, Err(Flaw::Short), "{value:?} at {cut}");
        let short = T::read(&mut Reader::new(&bytes[..cut]));
        assert!(matches!(short, Err(Flaw::Wrong(_))), "{value:?} at {cut}");
    }
}

fn is_wrong<T: Encode + PartialEq + Debug>(bytes: &[u8]) {
    let read = T::read(&mut Reader::of_length(bytes, 1 << 40));
    assert!(matches!(read, Err(Flaw::Wrong(_))), "{bytes:?}: {read:?}");
}

#[test]
fn values_are_read_as_they_were_written() {
    for shift in 0..64 {
        for number in [1 << shift, (1 << shift) - 1, u64::MAX << shift] {
            is_same(&number);
        }
    }
    is_same(&(u16::MAX, u32::MAX));
    is_same(&Some(String::from("\u{e4}\0")));
    is_same(&(Arc::<str>::from("sh"), Arc::<str>::from("sh")));
    is_same(&BTreeMap::from([(1_u64, vec![7_u8; 300]), (2, vec![])]));
    is_same(&BTreeSet::from([1_u64, 1 << 63]));
    is_same(&HashMap::<String, bool>::from([(String::new(), true)]));
    is_same(&Shape::Symlink(Arc::from(&b"a\xFF"[..])));
    is_same(&Duration::new(u64::MAX, 999_999_999));
    let seconds = Duration::from_secs;
    for time in [
        UNIX_EPOCH,
        UNIX_EPOCH + Duration::new(1_795_000_000, 1),
        UNIX_EPOCH - Duration::new(3, 999_999_999),
        UNIX_EPOCH.checked_add(seconds(i64::MAX as u64)).unwrap(),
        UNIX_EPOCH.checked_sub(seconds(i64::MAX as u64)).unwrap(),
    ] {
        is_same::<SystemTime>(&time);
    }
    is_same(&Name::new(&[b'n'; 255]).unwrap());
    is_same(&Name::path(b"/home/me").unwrap());
    is_same(&SessionId::new(b"w1").unwrap());
}

#[test]
fn anything_else_is_wrong() {
    // Numbers: of another form, of 65 bits, without an end.
    is_wrong::<u64>(&[0x80, 0]);
    is_wrong::<u64>(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2]);
    is_wrong::<u64>(&[0xFF; 11]);
    is_wrong::<u32>(&[0x80, 0x80, 0x80, 0x80, 0x10]);
    is_wrong::<bool>(&[2]);
    is_wrong::<Option<u64>>(&[2, 1]);
    is_wrong::<Shape>(&[3]);
    is_wrong::<String>(&[1, 0xFF]);
    is_wrong::<Name>(&[1, b'/']);
    is_wrong::<Name>(&[0]);
    is_wrong::<SessionId>(&[2, b'.', b'x']);
    is_wrong::<BTreeSet<u64>>(&[2, 1, 1]);
    is_wrong::<BTreeMap<u64, bool>>(&[2, 2, 1, 1, 1]);
    is_wrong::<HashMap<u64, bool>>(&[2, 1, 1, 1, 0]);
    let mut nanos = vec![0];
    write_number(1_000_000_000, &mut nanos);
    is_wrong::<Duration>(&nanos);
    is_wrong::<SystemTime>(&nanos);
    let mut far = Vec::new();
    write_number(u64::MAX, &mut far);
    far.push(0);
    let read = SystemTime::read(&mut Reader::new(&far));
    assert!(read.is_ok() || matches!(read, Err(Flaw::Wrong(_))));
}

#[test]
fn a_length_that_leads_past_the_end_takes_no_memory() {
    type Map = HashMap<u64, Vec<u64>>;
    let mut bytes = Vec::new();
    write_number(1 << 39, &mut bytes);
    let length = 1 << 40;
    assert_eq!(
        Map::read(&mut Reader::of_length(&bytes, length)),
        Err(Flaw::Short)
    );
    assert_eq!(
        Vec::<u64>::read(&mut Reader::of_length(&bytes, length)),
        Err(Flaw::Short)
    );
    let text = String::read(&mut Reader::of_length(&bytes, length));
    assert_eq!(text, Err(Flaw::Short));
    is_wrong::<Vec<u8>>(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]);
    assert!(matches!(
        Vec::<u64>::read(&mut Reader::new(&bytes)),
        Err(Flaw::Wrong(_))
    ));
}
