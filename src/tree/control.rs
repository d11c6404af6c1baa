//! What is asked of claimfs in words: by a line in `control`, and by an extended attribute.
//!
//! Deliberately ignorant of: who asks, and whether it is granted.

use std::time::Duration;

use serde_json::Value;

use crate::core::content;
use crate::core::{Change, Name, Refusal, SessionId, Token};
use crate::store::Concerns;

/// The attribute that, set to the token of a lease, takes the name from its holder.
const BREAK: &str = "user.claimfs.break";

/// The attribute that hands a claim to another session.
const SESSION: &str = "user.claimfs.session";

/// The attribute that gives a claim a deadline.
const TTL: &str = "user.claimfs.ttl";

/// A line in `control`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlCommand {
    /// Take a claim for a session without processes.
    Claim {
        /// Which.
        name: Name,
        /// The session.
        session: SessionId,
        /// How long the session lives from now on.
        ttl: Duration,
    },
    /// Give up a claim of such a session.
    Release {
        /// Which.
        name: Name,
        /// The session.
        session: SessionId,
    },
    /// Take a claim from its holder.
    Break {
        /// Which.
        name: Name,
        /// The token that it was granted with.
        token: Token,
    },
    /// Hand a claim to another session.
    Give {
        /// Which.
        name: Name,
        /// To whom.
        to: SessionId,
    },
    /// Give a claim a deadline, or none.
    Limit {
        /// Which.
        name: Name,
        /// How long it is held from each renewal on.
        ttl: Option<Duration>,
    },
    /// End a session, with all that it holds.
    End {
        /// Which.
        session: SessionId,
    },
}

impl ControlCommand {
    /// What a line says, a JSON object. EINVAL if that is nothing; a name or an id that can be none is what it is elsewhere.
    pub fn parse(line: &str) -> Result<Self, Refusal> {
        let line: Value = serde_json::from_str(line).map_err(|_| Refusal::Invalid)?;
        let name = |key: &str| {
            let name = line.get(key).and_then(Value::as_str);
            name.map(|name| Name::new(name.as_bytes())).transpose()
        };
        let id = |key: &str| {
            let id = line.get(key).and_then(Value::as_str);
            SessionId::new(id.ok_or(Refusal::Invalid)?.as_bytes())
        };
        let seconds = || match line.get("seconds") {
            Some(Value::Number(seconds)) => content::ttl(&seconds.to_string()),
            _ => None,
        };
        if let Some(name) = name("claim")? {
            let ttl = seconds().ok_or(Refusal::Invalid)?;
            let session = id("session")?;
            Ok(Self::Claim { name, session, ttl })
        } else if let Some(name) = name("release")? {
            let session = id("session")?;
            Ok(Self::Release { name, session })
        } else if let Some(name) = name("break")? {
            let token = line.get("token").and_then(Value::as_u64);
            let token = Token(token.ok_or(Refusal::Invalid)?);
            Ok(Self::Break { name, token })
        } else if let Some(name) = name("give")? {
            let to = id("to")?;
            Ok(Self::Give { name, to })
        } else if let Some(name) = name("ttl")? {
            let ttl = match line.get("seconds") {
                Some(Value::Null) => None,
                _ => Some(seconds().ok_or(Refusal::Invalid)?),
            };
            Ok(Self::Limit { name, ttl })
        } else if line.get("end").is_some() {
            let session = id("end")?;
            Ok(Self::End { session })
        } else {
            Err(Refusal::Invalid)
        }
    }
}

/// What the lines of a write to `control` name.
pub fn concerns(data: &[u8]) -> Concerns {
    let mut concerns = Concerns::default();
    let text = std::str::from_utf8(data).unwrap_or_default();
    for order in text
        .lines()
        .filter_map(|line| ControlCommand::parse(line).ok())
    {
        let (name, session) = match order {
            ControlCommand::Claim { name, session, .. }
            | ControlCommand::Release { name, session } => (Some(name), Some(session)),
            ControlCommand::Break { name, .. }
            | ControlCommand::Give { name, .. }
            | ControlCommand::Limit { name, .. } => (Some(name), None),
            ControlCommand::End { session } => (None, Some(session)),
        };
        concerns.names.extend(name);
        concerns.sessions.extend(session);
    }
    concerns
}

/// An extended attribute that is set or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Take the claim that has this token from its holder.
    Break(Token),
    /// Give the claim a deadline, or none.
    Limit(Option<Duration>),
    /// Hand the claim to another session.
    Give(SessionId),
    /// Keep it, as any filesystem does.
    Keep(Change),
}

impl Setting {
    /// What an attribute asks for by its value, or by being removed. EOPNOTSUPP outside `user.`.
    pub fn parse(name: &str, value: Option<&[u8]>) -> Result<Self, Refusal> {
        let text = value.and_then(|value| std::str::from_utf8(value).ok());
        match name {
            BREAK => {
                let token = text.and_then(|token| token.trim().parse().ok());
                token
                    .map(|token| Self::Break(Token(token)))
                    .ok_or(Refusal::Invalid)
            }
            TTL if value.is_none() => Ok(Self::Limit(None)),
            TTL => {
                let ttl = text.and_then(content::ttl);
                ttl.map(|ttl| Self::Limit(Some(ttl)))
                    .ok_or(Refusal::Invalid)
            }
            SESSION => SessionId::new(value.ok_or(Refusal::NotPermitted)?).map(Self::Give),
            _ if name.starts_with("user.") => Ok(Self::Keep(Change::Tag {
                name: String::from(name),
                value: value.map(<[u8]>::to_vec),
            })),
            _ => Err(Refusal::Unsupported),
        }
    }
}
