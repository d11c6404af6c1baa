//! Extended attributes: those of the record, those that are commands, and those of the holder.
//!
//! Does not know: who may set them. The uid rules were checked before, and the store has all
//! others.

use std::time::Duration;

use super::{Tree, first_name};
use crate::core::content;
use crate::core::{Change, Name, NodeId, Refusal, SessionId, Subject, Token};
use crate::render;
use crate::store::{Caller, Store};

/// Set to the token of a lease, takes the name from its holder.
const BREAK: &str = "user.claimfs.break";

/// Set to the id of a session, gives it the claim.
const SESSION: &str = "user.claimfs.session";

/// The time to live of a claim.
const TTL: &str = "user.claimfs.ttl";

/// The meaning of a change of an extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Take the claim that has this token from its holder.
    Break(Token),
    /// Set or remove the deadline of the claim.
    Limit(Option<Duration>),
    /// Give the claim to another session.
    Give(SessionId),
    /// Store the attribute, as any filesystem does.
    Keep(Change),
}

impl Setting {
    /// Reads the new value of an attribute; `None` removes it. EOPNOTSUPP outside `user.`.
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

impl Tree {
    /// All extended attributes of a node: those of the record, then those that the holder set. A
    /// file in `queue/` has those of the record of its name.
    pub(crate) fn xattrs(&self, ino: NodeId) -> Result<Vec<(String, Vec<u8>)>, Refusal> {
        let now = Store::now().boot;
        match ino {
            NodeId::Claim(ino) => {
                let xattrs = self.node(ino, |table, node| {
                    let name = first_name(table, node);
                    // There is no file in `queue/` for a reservation.
                    let tags = |name: &Name| {
                        if name.is_path() {
                            render::queue_tags(table, name, now)
                        } else {
                            render::tags(table, name, now)
                        }
                    };
                    let record = name.map(tags);
                    let mut xattrs = record.unwrap_or_default();
                    // The record shows the reason.
                    let own = node.content().tags().iter();
                    let own = own.filter(|(name, _)| *name != content::REASON);
                    xattrs.extend(own.map(|(name, value)| (name.clone(), value.clone())));
                    xattrs
                });
                xattrs.ok_or(Refusal::Lost)
            }
            NodeId::QueueFile(_) => {
                let name = self.queued_name(ino).ok_or(Refusal::Lost)?;
                let xattrs = self.store.read(Subject::Name(name.as_str()), |table| {
                    let lease = table.lease(&name);
                    lease.map(|_| render::queue_tags(table, &name, now))
                });
                Ok(xattrs.unwrap_or_default())
            }
            // ESTALE if it is gone: then the kernel looks up its path again.
            NodeId::Scaffold(dir) => self.directory_attr(dir).map(|_| Vec::new()),
            NodeId::Session(_) => {
                let xattrs = self.session_file(ino, render::session_tags);
                xattrs.ok_or(Refusal::Lost)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Sets an extended attribute, or removes it if `value` is `None`. [`Setting`] lists the
    /// commands among them. EOPNOTSUPP outside `user.`.
    pub(crate) fn set_xattr(
        &self,
        caller: Caller,
        ino: NodeId,
        name: &str,
        value: Option<&[u8]>,
    ) -> Result<(), Refusal> {
        if let NodeId::Scaffold(dir) = ino {
            return match Setting::parse(name, value)? {
                Setting::Give(to) => self.give_directory(caller, dir, to),
                _ => Err(Refusal::NotPermitted),
            };
        }
        let NodeId::Claim(ino) = ino else {
            return Err(Refusal::Unsupported);
        };
        match Setting::parse(name, value)? {
            Setting::Break(token) => {
                // The token says which of the file's names is meant.
                let broken = self.node(ino, |table, node| {
                    let names = node.inode.names.iter();
                    let mut names = names.filter(|known| node.child.is_none() && **known == token);
                    let broken = names.find_map(|known| table.name(*known));
                    broken.filter(|name| !name.is_scratch()).cloned()
                });
                let broken = broken.flatten().ok_or(Refusal::Lost)?;
                self.break_lease(caller, broken, token)
            }
            Setting::Limit(ttl) => self.limit(caller, ino, ttl),
            Setting::Give(to) => self.give(caller, ino, to),
            Setting::Keep(change) => self.alter(caller, ino, change),
        }
    }
}
