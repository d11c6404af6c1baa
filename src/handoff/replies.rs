//! The reply cache: the outcomes of requests that were carried out and may not be answered.
//!
//! Promises: an outcome is kept until it is certain that the kernel has the answer.
//!
//! Does not know: what the requests ask for.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::core::Outcome;

/// The bit of a request's number that says that the kernel sends it again (`FUSE_UNIQUE_RESEND`,
/// Linux 6.9).
pub const AGAIN: u64 = 1 << 63;

/// The number of threads that carry out requests, one request at a time each: the one on which
/// fuser calls handlers, and the worker to which it hands commands. `fuse` asserts that it has as
/// many.
pub const THREADS: usize = 2;

/// The number of a request, and of a part of it if it asks for several things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(pub u64, pub u32);

/// A request, or a part of one, on the thread that carries it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Key, u64, bool)", into = "(Key, u64, bool)")]
pub struct Sent {
    /// Its number.
    pub key: Key,
    /// The kernel sends it again.
    pub again: bool,
    /// The number of the thread, unique among all servers of the connection.
    pub thread: u64,
}

impl From<(Key, u64, bool)> for Sent {
    fn from((key, thread, again): (Key, u64, bool)) -> Self {
        Self { key, again, thread }
    }
}

impl From<Sent> for (Key, u64, bool) {
    fn from(sent: Sent) -> Self {
        (sent.key, sent.thread, sent.again)
    }
}

/// The outcomes of requests that may be sent again.
#[derive(Clone, Debug, Default)]
pub(super) struct ReplyCache {
    pub done: BTreeMap<Key, Outcome>,
    /// The parts of its newest request that each thread has carried out.
    pub newest: BTreeMap<u64, Vec<Key>>,
    /// The threads of this server that have carried out a request which is not sent again.
    pub past: BTreeSet<u64>,
}

impl ReplyCache {
    /// The outcome of a request, if it was carried out and its answer may not have arrived.
    pub(super) fn outcome(&self, key: Key) -> Option<Outcome> {
        self.done.get(&key).copied()
    }

    /// Notes that a thread has carried out a request. Its earlier requests are answered by now. The
    /// kernel sends requests again before all others, so once each thread of this server has
    /// carried out a new one, all requests of earlier servers are answered too.
    pub(super) fn carried_out(&mut self, sent: Sent, outcome: Outcome) {
        let newest = self.newest.entry(sent.thread).or_default();
        if newest.first().is_some_and(|before| before.0 != sent.key.0) {
            for answered in newest.drain(..) {
                self.done.remove(&answered);
            }
        }
        newest.push(sent.key);
        self.done.insert(sent.key, outcome);
        if !sent.again && self.past.insert(sent.thread) && self.past.len() == THREADS {
            let past = &self.past;
            self.newest.retain(|thread, _| past.contains(thread));
            let newest: BTreeSet<Key> = self.newest.values().flatten().copied().collect();
            self.done.retain(|known, _| newest.contains(known));
        }
    }

    /// Notes that another server has taken over: none of its threads has carried anything out.
    pub(super) fn taken_over(&mut self) {
        self.past.clear();
    }
}

/// A map as a list of pairs, since the keys of JSON are strings.
pub(super) mod pairs {
    use serde::{Deserializer, Serializer};

    use super::{BTreeMap, Cow, Deserialize, Key, Outcome};

    pub(crate) fn serialize<S: Serializer>(
        map: &BTreeMap<Key, Outcome>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Cow<'static, BTreeMap<Key, Outcome>>, D::Error> {
        let pairs = Vec::<(Key, Outcome)>::deserialize(deserializer)?;
        Ok(Cow::Owned(pairs.into_iter().collect()))
    }
}
