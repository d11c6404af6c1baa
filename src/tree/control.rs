//! The commands in `control`: how a line is read, and which names and sessions it concerns.
//!
//! Does not know: who asks, and whether it is granted.

use std::time::Duration;

use serde_json::Value;

use crate::core::content::{self, REASON_MAX};
use crate::core::{Name, Refusal, SessionId, Token};
use crate::store::Concerns;

/// The most names or paths that a line may list (EFBIG past it).
pub const LISTED_MAX: usize = 256;

/// The longest line with a list, in bytes (EFBIG past it).
pub const LINE_MAX: usize = 64 * 1024;

/// The most commands that one write to `control` may have (EFBIG past it), since others wait for
/// it.
const COMMANDS_MAX: usize = 16;

/// Commands with at most this many names are carried out at once, while all others wait.
const QUICK_MAX: usize = 8;

/// A command: a line in `control`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlCommand {
    /// Take a claim for a session without processes.
    Claim {
        /// The name.
        name: Name,
        /// The session.
        session: SessionId,
        /// How long the session lives from now on, unless it renews.
        ttl: Duration,
    },
    /// Give up a claim of such a session.
    Release {
        /// The name.
        name: Name,
        /// The session.
        session: SessionId,
    },
    /// Take several names for the session of the writer, all or none.
    Take {
        /// The names, of claims or of reservations.
        names: Vec<Name>,
        /// The reason for each.
        reason: Option<String>,
    },
    /// Give up several names of that session, all or none.
    Drop {
        /// The names, of claims or of reservations.
        names: Vec<Name>,
    },
    /// Take a claim from its holder.
    Break {
        /// The name.
        name: Name,
        /// The token that it was granted with.
        token: Token,
    },
    /// Hand a claim to another session.
    Give {
        /// The name.
        name: Name,
        /// The session that gets it.
        to: SessionId,
    },
    /// Set or remove the deadline of a claim.
    Limit {
        /// The name.
        name: Name,
        /// How long it is held after each renewal.
        ttl: Option<Duration>,
    },
    /// End a session and release everything that it holds.
    End {
        /// The session.
        session: SessionId,
    },
}

impl ControlCommand {
    /// Reads the lines of a write. EINVAL if it is no text, EFBIG if there are too many.
    pub(crate) fn lines(data: &[u8]) -> Result<Vec<Result<Self, Refusal>>, Refusal> {
        let text = std::str::from_utf8(data).map_err(|_| Refusal::Invalid)?;
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        if lines.clone().count() > COMMANDS_MAX {
            return Err(Refusal::TooLarge);
        }
        Ok(lines.map(Self::parse).collect())
    }

    /// Whether it takes no longer than a call on a file: a few claims of one's own session, which
    /// wait for no disk.
    pub(crate) fn is_quick(&self) -> bool {
        let (Self::Take { names, .. } | Self::Drop { names }) = self else {
            return false;
        };
        names.len() <= QUICK_MAX && !names.iter().any(Name::is_path)
    }

    /// Reads a line, a JSON object. EINVAL if it is no command, EFBIG if it lists too much. An
    /// invalid name or id is refused as anywhere else.
    pub fn parse(line: &str) -> Result<Self, Refusal> {
        let length = line.len();
        let line: Value = serde_json::from_str(line).map_err(|_| Refusal::Invalid)?;
        if let Some(listing) = Self::listing(&line, length)? {
            return Ok(listing);
        }
        let text = |key: &str| line.get(key).and_then(Value::as_str).map(str::as_bytes);
        let name = |key: &str| text(key).map(Name::new).transpose();
        let listed = |key: &str| text(key).map(Name::listed).transpose();
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
        } else if let Some(name) = listed("break")? {
            let token = line.get("token").and_then(Value::as_u64);
            let token = Token(token.ok_or(Refusal::Invalid)?);
            Ok(Self::Break { name, token })
        } else if let Some(name) = listed("give")? {
            let to = id("to")?;
            Ok(Self::Give { name, to })
        } else if let Some(name) = listed("ttl")? {
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

    /// Reads a line that lists names or paths. `None` if it does not; `length` is that of the line.
    fn listing(line: &Value, length: usize) -> Result<Option<Self>, Refusal> {
        type Rule = fn(&[u8]) -> Result<Name, Refusal>;
        let lists: [(&str, Rule, bool); 4] = [
            ("claim", Name::new, true),
            ("release", Name::new, false),
            ("reserve", Name::path, true),
            ("unreserve", Name::path, false),
        ];
        let found = lists.into_iter().find_map(|(key, rule, takes)| {
            let list = line.get(key)?.as_array()?;
            Some((list, rule, takes))
        });
        let Some((list, rule, takes)) = found else {
            return Ok(None);
        };
        // Another command, or something that would be ignored.
        let known = |key: &String| ["claim", "release", "reserve", "unreserve"].contains(&&**key);
        let keys = line.as_object().into_iter().flat_map(|line| line.keys());
        let ignored = ["session", "seconds", "to", "token"];
        if keys.filter(|key| known(key)).count() > 1
            || ignored.iter().any(|key| line.get(key).is_some())
        {
            return Err(Refusal::Invalid);
        }
        if list.len() > LISTED_MAX || length > LINE_MAX {
            return Err(Refusal::TooLarge);
        }
        if list.is_empty() {
            return Err(Refusal::Invalid);
        }
        let name = |name: &Value| rule(name.as_str().ok_or(Refusal::Invalid)?.as_bytes());
        let names = list.iter().map(name).collect::<Result<Vec<_>, _>>()?;
        let reason = match line.get("reason") {
            None | Some(Value::Null) => None,
            Some(Value::String(reason)) if reason.len() > REASON_MAX => {
                return Err(Refusal::TooLarge);
            }
            Some(Value::String(reason)) => Some(reason.clone()),
            Some(_) => return Err(Refusal::Invalid),
        };
        Ok(Some(if takes {
            Self::Take { names, reason }
        } else {
            Self::Drop { names }
        }))
    }
}

/// The names and sessions in the lines of a write to `control`.
pub(crate) fn concerns(data: &[u8]) -> Concerns {
    let mut concerns = Concerns::default();
    let text = std::str::from_utf8(data).unwrap_or_default();
    let lines = text.lines();
    for command in lines.filter_map(|line| ControlCommand::parse(line).ok()) {
        let (name, session) = match command {
            ControlCommand::Take { names, .. } | ControlCommand::Drop { names } => {
                concerns.names.extend(names);
                continue;
            }
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
