//! What a body asks of claimfs: the pid-file idiom, and the JSON bodies `{"session":"w1"}` and `{"ttl":"30s"}`.
//!
//! Deliberately ignorant of: who wrote it, and whether it is granted. A body that asks for nothing is only text.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use serde_json::Value;

use crate::core::SessionId;

/// The longest time that a lease can be given: a hundred years.
pub const TTL_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The shortest: shorter ones could not be renewed in time by anybody.
const TTL_MIN: Duration = Duration::from_millis(1);

/// What a JSON body that asks for something has, and nothing else.
const KEYS: [&str; 3] = ["session", "ttl", "reason"];

/// As far a JSON body is looked at, in bytes.
const JSON_MAX: usize = 4096;

/// What a body asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// To end with the process of this pid.
    Pid(u32),
    /// What a JSON object asks for: one of the two at least.
    Terms {
        /// To be held by this session.
        session: Option<SessionId>,
        /// To be held for so long.
        ttl: Option<Duration>,
    },
}

impl Ask {
    /// What a body asks for, if anything.
    pub fn of(body: &[u8]) -> Option<Self> {
        match body.iter().find(|byte| !byte.is_ascii_whitespace())? {
            b'{' if body.len() <= JSON_MAX => {
                let body: Value = serde_json::from_slice(body).ok()?;
                // A copy of a record, which tools that rewrite files make, asks for nothing.
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
                let asks = session.is_some() || ttl.is_some();
                asks.then_some(Self::Terms { session, ttl })
            }
            _ => pid(body).map(Self::Pid),
        }
    }
}

/// The pid that stands in the first line. White space around it is admitted: UUCP pads its lock files (FHS 3.0, 5.9).
fn pid(body: &[u8]) -> Option<u32> {
    let line = body.split(|byte| *byte == b'\n').next()?.trim_ascii();
    let digits = !line.is_empty() && line.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(line).ok().filter(|_| digits)?;
    text.parse().ok().filter(|pid| *pid != 0)
}

/// A time to live as people write it: `30s`, `1h 30m`, `2d`, `250ms`, or a number of seconds; from 1 ms to a hundred years.
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
