//! A hash map that grows in small steps.
//!
//! A hash map moves all that it has when it doubles, or when it makes room of what was removed, and
//! hashes each key for that: 100,000 names take tens of milliseconds. This one has its entries in
//! parts, which do so one at a time.
//!
//! Does not know: what it maps.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::iter::Flatten;
use std::slice;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The number of parts.
const PARTS: usize = 64;

/// A map of keys to values.
#[derive(Clone, Debug)]
pub(super) struct Parts<K, V> {
    maps: Vec<HashMap<K, V>>,
    /// For the part of a key. Each part has a hasher of its own.
    hasher: RandomState,
    len: usize,
}

impl<K, V> Default for Parts<K, V> {
    fn default() -> Self {
        Self {
            maps: (0..PARTS).map(|_| HashMap::new()).collect(),
            hasher: RandomState::new(),
            len: 0,
        }
    }
}

impl<K, V> Parts<K, V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> Flatten<slice::Iter<'_, HashMap<K, V>>> {
        self.maps.iter().flatten()
    }

    pub(super) fn clear(&mut self) {
        for part in &mut self.maps {
            part.clear();
        }
        self.len = 0;
    }
}

impl<K: Eq + Hash, V> Parts<K, V> {
    /// An empty map with room for so many.
    pub(super) fn with_capacity(count: usize) -> Self {
        let mut all = Self::default();
        if count > PARTS {
            for part in &mut all.maps {
                part.reserve(count.div_ceil(PARTS));
            }
        }
        all
    }

    /// The index of the part that has a key.
    fn at<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        usize::from(self.hasher.hash_one(key).to_le_bytes()[0]) % PARTS
    }

    fn part<Q: Hash + ?Sized>(&self, key: &Q) -> Option<&HashMap<K, V>> {
        self.maps.get(self.at(key))
    }

    fn part_mut<Q: Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut HashMap<K, V>> {
        let at = self.at(key);
        self.maps.get_mut(at)
    }

    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.part(key)?.get(key)
    }

    pub(super) fn get_key_value<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        self.part(key)?.get_key_value(key)
    }

    /// The value before.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let before = self.part_mut(&key)?.insert(key, value);
        self.len += usize::from(before.is_none());
        before
    }

    pub(super) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let removed = self.part_mut(key)?.remove(key)?;
        self.len -= 1;
        Some(removed)
    }
}

impl<K: Eq + Hash, V: PartialEq> PartialEq for Parts<K, V> {
    fn eq(&self, other: &Self) -> bool {
        let mut all = self.iter();
        self.len == other.len && all.all(|(key, value)| other.get(key) == Some(value))
    }
}

impl<K: Eq + Hash, V: Eq> Eq for Parts<K, V> {}

impl<'a, K, V> IntoIterator for &'a Parts<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Flatten<slice::Iter<'a, HashMap<K, V>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: Eq + Hash, V> FromIterator<(K, V)> for Parts<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut all = Self::default();
        for (key, value) in entries {
            all.insert(key, value);
        }
        all
    }
}

impl<K: Serialize, V: Serialize> Serialize for Parts<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, K, V> Deserialize<'de> for Parts<K, V>
where
    K: Deserialize<'de> + Eq + Hash,
    V: Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all = HashMap::<K, V>::deserialize(deserializer)?;
        Ok(all.into_iter().collect())
    }
}
