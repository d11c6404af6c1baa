//! Requests in the body of a claim: the pid-file idiom, and the JSON bodies `{"session":"w1"}`,
//! `{"ttl":"30s"}` and `{"reason":"nightly build"}`.
//!
//! Does not know: who wrote the body, or whether the request is granted. A body without a request
//! is only text.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use serde_json::Value;

use crate::core::SessionId;

/// The longest TTL: a hundred years.
pub const TTL_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The shortest TTL. Nobody could renew a shorter one in time.
const TTL_MIN: Duration = Duration::from_millis(1);

/// The keys of a JSON request. An object with other keys is none.
const KEYS: [&str; 3] = ["session", "ttl", "reason"];

/// The longest JSON request in bytes.
const JSON_MAX: usize = 4096;

/// A request in a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// End with the process of this pid.
    Pid(u32),
    /// At least one of the three.
    Terms {
        /// Hand the claim to this session.
        session: Option<SessionId>,
        /// Hold the claim for this long.
        ttl: Option<Duration>,
        /// Show this reason in the record. It may be too long.
        reason: Option<String>,
    },
}

impl Ask {
    /// The request in a body, if any.
    pub fn of(body: &[u8]) -> Option<Self> {
        Self::after(body, 0, &[])
    }

    /// The request in a body after a write. Copies no more than a JSON request may have, and reads
    /// no more than the bytes that decide.
    pub(super) fn after(body: &[u8], offset: usize, data: &[u8]) -> Option<Self> {
        let body = Body::after(body, offset, data);
        match body.bytes().find(|byte| !byte.is_ascii_whitespace())? {
            b'{' if body.len() <= JSON_MAX => terms(&body.bytes().collect::<Vec<u8>>()),
            _ => pid(body.bytes()).map(Self::Pid),
        }
    }
}

/// A body after a write, without a copy.
struct Body<'a> {
    /// The bytes before the written ones.
    head: &'a [u8],
    /// The number of zeros between the old end and the written bytes.
    gap: usize,
    /// The written bytes.
    data: &'a [u8],
    /// The bytes after them.
    tail: &'a [u8],
}

impl<'a> Body<'a> {
    fn after(body: &'a [u8], offset: usize, data: &'a [u8]) -> Self {
        let end = offset.saturating_add(data.len());
        Self {
            head: &body[..offset.min(body.len())],
            gap: offset.saturating_sub(body.len()),
            data,
            tail: &body[end.min(body.len())..],
        }
    }

    fn len(&self) -> usize {
        self.head.len() + self.gap + self.data.len() + self.tail.len()
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        let gap = std::iter::repeat_n(0, self.gap);
        let head = self.head.iter().copied().chain(gap);
        head.chain(self.data.iter().chain(self.tail).copied())
    }
}

fn terms(body: &[u8]) -> Option<Ask> {
    let body: Value = serde_json::from_slice(body).ok()?;
    // A copy of a record, which tools that rewrite files make, is no request.
    let is_ask = |key: &String| KEYS.contains(&key.as_str());
    if !body.as_object()?.keys().all(is_ask) {
        return None;
    }
    let session = body.get("session").and_then(Value::as_str);
    let session = session.and_then(|id| SessionId::new(id.as_bytes()).ok());
    let ttl = match body.get("ttl") {
        Some(Value::String(text)) => ttl(text),
        Some(Value::Number(seconds)) => ttl(&seconds.to_string()),
        _ => None,
    };
    let reason = body.get("reason").and_then(Value::as_str);
    let reason = reason.map(String::from);
    let asks = session.is_some() || ttl.is_some() || reason.is_some();
    asks.then_some(Ask::Terms {
        session,
        ttl,
        reason,
    })
}

/// The pid in the first line, which may be padded with white space: UUCP pads its lock files (FHS
/// 3.0, 5.9). Reads up to the first byte that decides.
fn pid(body: impl Iterator<Item = u8>) -> Option<u32> {
    let line = body.take_while(|byte| *byte != b'\n');
    let line = line.skip_while(u8::is_ascii_whitespace);
    let (mut pid, mut is_over) = (0_u32, false);
    for byte in line {
        match byte {
            b'0'..=b'9' if !is_over => {
                pid = pid.checked_mul(10)?.checked_add(u32::from(byte - b'0'))?;
            }
            _ if byte.is_ascii_whitespace() => is_over = true,
            _ => return None,
        }
    }
    (pid != 0).then_some(pid)
}

/// Parses a TTL: `30s`, `1h 30m`, `2d`, `250ms`, or a number of seconds; from 1 ms to a hundred
/// years.
pub fn ttl(text: &str) -> Option<Duration> {
    let text = text.trim();
    let ttl = if let Ok(seconds) = text.parse::<f64>() {
        Duration::try_from_secs_f64(seconds).ok()?
    } else {
        let span: Span = text.parse().ok()?;
        let days = SpanRelativeTo::days_are_24_hours();
        Duration::try_from(span.to_duration(days).ok()?).ok()?
    };
    (TTL_MIN..=TTL_MAX).contains(&ttl).then_some(ttl)
}
