//! The binary form of numbers, strings, times and collections.
//!
//! Does not know: what they are values of.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Encode, Flaw, Reader, write_count, write_number, write_text};
use crate::core::wire::moment;

impl Encode for bool {
    fn write(&self, to: &mut Vec<u8>) {
        to.push(u8::from(*self));
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        match from.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Flaw::Wrong("a yes or no in it is neither")),
        }
    }
}

impl Encode for u8 {
    fn write(&self, to: &mut Vec<u8>) {
        to.push(*self);
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        from.byte()
    }

    fn write_each(values: &[Self], to: &mut Vec<u8>) {
        to.extend_from_slice(values);
    }

    fn read_each(count: usize, from: &mut Reader) -> Result<Vec<Self>, Flaw> {
        from.take(count).map(<[u8]>::to_vec)
    }
}

macro_rules! numbers {
    ($($of:ty),*) => {
        $(impl Encode for $of {
            #[allow(clippy::cast_lossless, reason = "there is no `From<usize>`")]
            fn write(&self, to: &mut Vec<u8>) {
                write_number(*self as u64, to);
            }

            fn read(from: &mut Reader) -> Result<Self, Flaw> {
                let number = from.number()?;
                Self::try_from(number).map_err(|_| Flaw::Wrong("a number in it is too large"))
            }
        })*
    };
}

numbers!(u16, u32, u64, usize);

impl Encode for String {
    fn write(&self, to: &mut Vec<u8>) {
        write_text(self, to);
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        from.text().map(String::from)
    }
}

/// A command name.
impl Encode for Arc<str> {
    fn write(&self, to: &mut Vec<u8>) {
        write_text(self, to);
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        from.shared_text()
    }
}

impl Encode for Arc<[u8]> {
    fn write(&self, to: &mut Vec<u8>) {
        write_count(self.len(), to);
        to.extend_from_slice(self);
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        let count = from.count()?;
        from.take(count).map(Arc::from)
    }
}

impl Encode for Duration {
    fn write(&self, to: &mut Vec<u8>) {
        write_number(self.as_secs(), to);
        write_number(self.subsec_nanos().into(), to);
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        let seconds = from.number()?;
        Ok(Self::new(seconds, nanos(from)?))
    }
}

fn nanos(from: &mut Reader) -> Result<u32, Flaw> {
    let nanos = u32::read(from)?;
    if nanos >= 1_000_000_000 {
        return Err(Flaw::Wrong("a time in it has too many nanoseconds"));
    }
    Ok(nanos)
}

impl Encode for SystemTime {
    fn write(&self, to: &mut Vec<u8>) {
        let (seconds, nanos) = moment::pair(*self);
        write_number(((seconds << 1) ^ (seconds >> 63)).cast_unsigned(), to);
        write_number(nanos.into(), to);
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        let number = from.number()?;
        let seconds = (number >> 1).cast_signed() ^ -(number & 1).cast_signed();
        let time = moment::time((seconds, nanos(from)?));
        time.ok_or(Flaw::Wrong("a time in it is none that there can be"))
    }
}

impl<T: Encode> Encode for Option<T> {
    fn write(&self, to: &mut Vec<u8>) {
        self.is_some().write(to);
        if let Some(value) = self {
            value.write(to);
        }
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        bool::read(from)?.then(|| T::read(from)).transpose()
    }
}

impl<T: Encode> Encode for Box<T> {
    fn write(&self, to: &mut Vec<u8>) {
        (**self).write(to);
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        T::read(from).map(Self::new)
    }
}

impl<T: Encode> Encode for Arc<T> {
    fn write(&self, to: &mut Vec<u8>) {
        (**self).write(to);
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        T::read(from).map(Self::new)
    }
}

impl<A: Encode, B: Encode> Encode for (A, B) {
    fn write(&self, to: &mut Vec<u8>) {
        self.0.write(to);
        self.1.write(to);
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        Ok((A::read(from)?, B::read(from)?))
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn write(&self, to: &mut Vec<u8>) {
        write_count(self.len(), to);
        T::write_each(self, to);
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        let count = from.count()?;
        T::read_each(count, from)
    }
}

impl<T: Encode> Encode for VecDeque<T> {
    fn write(&self, to: &mut Vec<u8>) {
        write_count(self.len(), to);
        for value in self {
            value.write(to);
        }
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        Vec::read(from).map(Self::from)
    }
}

const NOT_SORTED: Flaw = Flaw::Wrong("the keys of a map in it are not in their order");

impl<T: Encode + Ord> Encode for BTreeSet<T> {
    fn write(&self, to: &mut Vec<u8>) {
        write_count(self.len(), to);
        for value in self {
            value.write(to);
        }
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        let values = Vec::<T>::read(from)?;
        let is_sorted = values.windows(2).all(|two| two[0] < two[1]);
        // Built in one go, since it is sorted.
        is_sorted
            .then(|| values.into_iter().collect())
            .ok_or(NOT_SORTED)
    }
}

impl<K: Encode + Ord, V: Encode> Encode for BTreeMap<K, V> {
    fn write(&self, to: &mut Vec<u8>) {
        write_count(self.len(), to);
        for (key, value) in self {
            key.write(to);
            value.write(to);
        }
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        let pairs = Vec::<(K, V)>::read(from)?;
        let is_sorted = pairs.windows(2).all(|two| two[0].0 < two[1].0);
        is_sorted
            .then(|| pairs.into_iter().collect())
            .ok_or(NOT_SORTED)
    }
}

impl<K, V, S> Encode for HashMap<K, V, S>
where
    K: Encode + Eq + Hash,
    V: Encode,
    S: BuildHasher + Default,
{
    fn write(&self, to: &mut Vec<u8>) {
        write_count(self.len(), to);
        for (key, value) in self {
            key.write(to);
            value.write(to);
        }
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        let count = from.count()?;
        let mut map = Self::with_capacity_and_hasher(from.room_for::<(K, V)>(count), S::default());
        for _ in 0..count {
            let (key, value) = (K::read(from)?, V::read(from)?);
            if map.insert(key, value).is_some() {
                return Err(Flaw::Wrong("a key of a map in it is there twice"));
            }
        }
        Ok(map)
    }
}
