//! A map by name that grows in small steps.
//!
//! A hash map moves all that it has when it doubles, and reads each key for that: 100,000 names
//! take tens of milliseconds. This one has its entries in parts, which double one at a time.
//!
//! Does not know: what a name has.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::core::Name;

/// The number of parts.
const PARTS: usize = 64;

/// The parts go by the last bytes of a name, in which names differ most.
const LAST: usize = 8;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct ByName<V> {
    parts: Vec<HashMap<Name, V>>,
    len: usize,
}

impl<V> Default for ByName<V> {
    fn default() -> Self {
        Self {
            parts: (0..PARTS).map(|_| HashMap::new()).collect(),
            len: 0,
        }
    }
}

/// The part of a name (FNV-1a). Names that are chosen to be in one part cost no more than one map.
fn part(name: &str) -> usize {
    let mut sum = 0xCBF2_9CE4_8422_2325_u64;
    for byte in name.bytes().rev().take(LAST) {
        sum = (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    }
    usize::from((sum >> 32).to_le_bytes()[0]) % PARTS
}

impl<V> ByName<V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, name: &(impl AsRef<str> + ?Sized)) -> Option<&V> {
        let name = name.as_ref();
        self.parts.get(part(name))?.get(name)
    }

    pub(super) fn get_key_value(&self, name: &(impl AsRef<str> + ?Sized)) -> Option<(&Name, &V)> {
        let name = name.as_ref();
        self.parts.get(part(name))?.get_key_value(name)
    }

    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, more: usize) {
        for part in &mut self.parts {
            part.reserve(more.div_ceil(PARTS));
        }
    }

    /// The value before.
    pub(super) fn insert(&mut self, name: Name, value: V) -> Option<V> {
        let before = self.parts.get_mut(part(name.as_str()))?.insert(name, value);
        self.len += usize::from(before.is_none());
        before
    }

    pub(super) fn remove(&mut self, name: &Name) -> Option<V> {
        let removed = self.parts.get_mut(part(name.as_str()))?.remove(name)?;
        self.len -= 1;
        Some(removed)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Name, &V)> {
        self.parts.iter().flatten()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Name> {
        self.parts.iter().flat_map(HashMap::keys)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.parts.iter().flat_map(HashMap::values)
    }
}

impl<V: Serialize> Serialize for ByName<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for ByName<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut all = Self::default();
        for (name, value) in HashMap::<Name, V>::deserialize(deserializer)? {
            all.insert(name, value);
        }
        Ok(all)
    }
}
