//! Serde formats for values that JSON has no notation for: bytes that may not be text, and times.
//!
//! Does not know: which values are written, or where.

/// Bytes as a string if they are text, otherwise as a NUL and hexadecimal digits. Text that begins
/// with a NUL is written in digits too.
pub mod bytes {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    /// For `serialize_with`.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.starts_with('\0') => serializer.serialize_str(text),
            _ => serializer.serialize_str(&digits(bytes)),
        }
    }

    fn digits(bytes: &[u8]) -> String {
        let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
        let mut text = String::with_capacity(1 + 2 * bytes.len());
        text.push('\0');
        for byte in bytes {
            text.push(digit(byte >> 4));
            text.push(digit(byte & 15));
        }
        text
    }

    /// For `deserialize_with`, into any type made from bytes.
    pub fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: From<Vec<u8>>,
    {
        let text = String::deserialize(deserializer)?;
        let Some(digits) = text.strip_prefix('\0') else {
            return Ok(T::from(text.into_bytes()));
        };
        let pairs = digits.as_bytes().chunks(2);
        let byte = |pair: &[u8]| {
            let pair = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(pair, 16).ok()
        };
        let bytes: Option<Vec<u8>> = pairs.map(byte).collect();
        bytes
            .map(T::from)
            .ok_or_else(|| D::Error::custom("no hexadecimal digits after a NUL"))
    }
}

/// A part that most values lack. A part that is not there is written as its default, and a default
/// is read as one that is not there.
pub mod boxed {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// For `serialize_with`.
    pub fn serialize<T, S>(part: &Option<Box<T>>, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: Default + Serialize,
        S: Serializer,
    {
        match part {
            Some(part) => part.serialize(serializer),
            None => T::default().serialize(serializer),
        }
    }

    /// For `deserialize_with`.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<Box<T>>, D::Error>
    where
        T: Default + PartialEq + Deserialize<'de>,
        D: Deserializer<'de>,
    {
        let part = T::deserialize(deserializer)?;
        Ok((part != T::default()).then(|| Box::new(part)))
    }
}

/// Bytes as an element of another type.
#[derive(serde::Serialize, serde::Deserialize)]
struct Bytes(#[serde(with = "bytes")] Vec<u8>);

/// Bytes, or none.
pub mod maybe_bytes {
    use super::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// For `serialize_with`.
    pub fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.clone().map(Bytes).serialize(serializer)
    }

    /// For `deserialize_with`.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let bytes = Option::<Bytes>::deserialize(deserializer)?;
        Ok(bytes.map(|bytes| bytes.0))
    }
}

/// Bytes by their names.
pub mod named_bytes {
    use std::collections::BTreeMap;

    use super::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    /// For `serialize_with`.
    pub fn serialize<S: Serializer>(
        map: &BTreeMap<String, Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.iter().map(|(name, bytes)| (name, Bytes(bytes.clone()))))
    }

    /// For `deserialize_with`.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, Vec<u8>>, D::Error> {
        let map = BTreeMap::<String, Bytes>::deserialize(deserializer)?;
        Ok(map
            .into_iter()
            .map(|(name, bytes)| (name, bytes.0))
            .collect())
    }
}

/// A time as seconds and nanoseconds since 1970. Times before 1970 and far in the future work too.
pub mod moment {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// For `serialize_with`.
    pub fn serialize<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        pair(*at).serialize(serializer)
    }

    /// For `deserialize_with`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        time(Deserialize::deserialize(deserializer)?)
            .ok_or_else(|| D::Error::custom("no moment that there can be"))
    }

    /// Rounded down, so that the nanoseconds count forward before 1970 too.
    pub(in crate::core) fn pair(at: SystemTime) -> (i64, u32) {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        match at.duration_since(UNIX_EPOCH) {
            Ok(after) => (seconds(after), after.subsec_nanos()),
            Err(before) => {
                let before = before.duration();
                match before.subsec_nanos() {
                    0 => (-seconds(before), 0),
                    nanos => (-seconds(before) - 1, 1_000_000_000 - nanos),
                }
            }
        }
    }

    pub(in crate::core) fn time((seconds, nanos): (i64, u32)) -> Option<SystemTime> {
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let base = if seconds < 0 {
            UNIX_EPOCH.checked_sub(whole)
        } else {
            UNIX_EPOCH.checked_add(whole)
        };
        base?.checked_add(Duration::new(0, nanos.min(999_999_999)))
    }
}

/// A time, or none.
pub mod maybe_moment {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::moment;

    /// For `serialize_with`.
    pub fn serialize<S: Serializer>(
        at: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(moment::pair).serialize(serializer)
    }

    /// For `deserialize_with`.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let pair = Option::deserialize(deserializer)?;
        Ok(pair.and_then(moment::time))
    }
}
