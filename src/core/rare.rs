//! Parts that most values have nothing in.
//!
//! Promises: such a part takes the room of a pointer where it is as it begins, and is written down, compared and used as if it were there.
//!
//! Deliberately ignorant of: what it is a part of.

use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What such a part is like at the beginning.
pub trait Blank: Default + PartialEq + 'static {
    /// One that everybody may look at.
    fn blank() -> &'static Self;
}

/// A part that is boxed once it is changed.
#[derive(Clone, Debug)]
pub struct Rare<T>(Option<Box<T>>);

impl<T: Blank> Rare<T> {
    /// The part to change, unless it is as it began.
    pub fn changed(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }
}

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Blank> Deref for Rare<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or_else(|| T::blank())
    }
}

impl<T: Blank> DerefMut for Rare<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

impl<T: Blank> PartialEq for Rare<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Blank + Eq> Eq for Rare<T> {}

impl<T: Blank + Serialize> Serialize for Rare<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de, T: Blank + Deserialize<'de>> Deserialize<'de> for Rare<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let part = T::deserialize(deserializer)?;
        let is_blank = part == *T::blank();
        Ok(Self((!is_blank).then(|| Box::new(part))))
    }
}
