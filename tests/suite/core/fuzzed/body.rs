//! Requests in the body of a claim, written in one piece and in several.

use std::time::{Duration, UNIX_EPOCH};

use claimfs::core::content::{Ask, BODY_MAX, Content, TTL_MAX, ttl};
use claimfs::core::{Change, Creation, Shape};

pub fn run(data: &[u8]) {
    if let Some(ask) = Ask::of(data) {
        is_possible(&ask, data);
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(time) = ttl(text)
    {
        is_in_bounds(time);
        let millis = format!("{}ms", time.as_millis());
        let again = ttl(&millis).unwrap();
        assert_eq!(again.as_millis(), time.as_millis(), "{text:?}");
    }
    in_pieces(data);
}

fn is_in_bounds(time: Duration) {
    assert!(
        time >= Duration::from_millis(1) && time <= TTL_MAX,
        "{time:?}"
    );
}

fn is_possible(ask: &Ask, body: &[u8]) {
    match ask {
        Ask::Pid(pid) => {
            assert_ne!(*pid, 0);
            let line = body.split(|byte| *byte == b'\n').next().unwrap();
            let line = std::str::from_utf8(line).unwrap().trim();
            assert_eq!(line.trim_start_matches('0'), pid.to_string());
        }
        Ask::Terms {
            session,
            ttl,
            reason,
        } => {
            assert!(session.is_some() || ttl.is_some() || reason.is_some());
            assert!(body.len() <= 4096 && body.trim_ascii_start()[0] == b'{');
            ttl.iter().copied().for_each(is_in_bounds);
        }
    }
}

/// Each piece is its first byte, which says where it is written, and some of the bytes after that.
/// The request after a write is the one in the whole body.
fn in_pieces(data: &[u8]) {
    let creation = Creation {
        shape: Shape::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
    };
    let mut content = Content::new(creation, BODY_MAX, UNIX_EPOCH);
    let mut naive: Vec<u8> = Vec::new();
    let mut rest = data;
    while let [how, tail @ ..] = rest {
        let (piece, after) = tail.split_at(tail.len().min(usize::from(how % 32)));
        rest = after;
        let data = piece.to_vec();
        let change = match how >> 5 {
            0..4 => Change::Append { data },
            4 => Change::Write { offset: 0, data },
            5 => Change::Write {
                offset: naive.len() as u64 / 2,
                data,
            },
            6 => Change::Resize {
                size: naive.len() as u64 / 2,
            },
            _ => Change::Write {
                offset: u64::MAX - u64::from(*how % 32),
                data,
            },
        };
        let Ok(()) = content.check(&change) else {
            assert!(how >> 5 == 7, "{change:?}");
            continue;
        };
        match &change {
            Change::Append { data } => naive.extend(data),
            Change::Write { offset, data } if !data.is_empty() => {
                let offset = usize::try_from(*offset).unwrap();
                naive.resize(naive.len().max(offset + data.len()), 0);
                naive[offset..offset + data.len()].copy_from_slice(data);
            }
            Change::Resize { size } => naive.truncate(usize::try_from(*size).unwrap()),
            _ => {}
        }
        let (ask, weight) = (content.ask_after(&change), content.weight_after(&change));
        content.apply(&change, UNIX_EPOCH);
        assert_eq!(content.body(), naive);
        assert_eq!(weight, naive.len());
        if let Some(ask) = ask {
            assert_eq!(Ask::of(&naive), Some(ask));
        }
    }
}
