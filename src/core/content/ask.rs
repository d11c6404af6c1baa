//! Requests in the body of a claim: the pid-file idiom, and the JSON bodies `{"session":"w1"}` and
//! `{"ttl":"30s"}`.
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
    /// At least one of the two.
    Terms {
        /// Hand the claim to this session.
        session: Option<SessionId>,
        /// Hold the claim for this long.
        ttl: Option<Duration>,
    },
}

impl Ask {
    /// The request in a body, if any.
    pub fn of(body: &[u8]) -> Option<Self> {
        match body.iter().find(|byte| !byte.is_ascii_whitespace())? {
            b'{' if body.len() <= JSON_MAX => {
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
                let asks = session.is_some() || ttl.is_some();
                asks.then_some(Self::Terms { session, ttl })
            }
            _ => pid(body).map(Self::Pid),
        }
    }
}

/// The pid in the first line. White space around it is allowed: UUCP pads its lock files (FHS 3.0,
/// 5.9).
fn pid(body: &[u8]) -> Option<u32> {
    let line = body.split(|byte| *byte == b'\n').next()?.trim_ascii();
    let digits = !line.is_empty() && line.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(line).ok().filter(|_| digits)?;
    text.parse().ok().filter(|pid| *pid != 0)
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
