//! The binary form of values, as a journal records them.
//!
//! ```text
//! number       7 bits a byte, the lowest first; all but the last byte have the bit 0x80
//! text, bytes  the length, then the bytes
//! list, map    the number of elements, then each; a sorted one in its order
//! option       0, or 1 and the value
//! record       its fields, one after the other
//! variants     the variant's tag, then its fields
//! time         seconds since 1970, zigzag (0, -1, 1, -2, …), then nanoseconds
//! ```
//!
//! Each type lists its parts once, in a [`record`] or [`variants`], and both directions are made
//! from that list. A tag is never used again for something else. A record never changes either: a
//! variant with other fields is another variant with another tag, and a table with other parts is a
//! journal of another version.
//!
//! Promises: a value is read as it was written. Reading any other bytes gives a value or fails, and
//! neither panics nor takes more memory than a fixed multiple of the bytes. The beginning of a
//! value that breaks off is told apart from bytes that begin no value.
//!
//! Does not know: frames, or which values are recorded.

mod event;
mod values;
mod vocabulary;

use std::sync::Arc;

pub use self::event::{read_events, write_events};

/// Why bytes are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// They may begin a value, and break off.
    Short,
    /// They begin no value. A sentence.
    Wrong(&'static str),
}

/// A value that can be written and read.
pub trait Encode: Sized {
    /// Appends the value.
    fn write(&self, to: &mut Vec<u8>);

    /// Reads a value.
    fn read(from: &mut Reader) -> Result<Self, Flaw>;

    /// Appends several values, without their number.
    fn write_each(values: &[Self], to: &mut Vec<u8>) {
        for value in values {
            value.write(to);
        }
    }

    /// Reads so many values.
    fn read_each(count: usize, from: &mut Reader) -> Result<Vec<Self>, Flaw> {
        let mut values = Vec::with_capacity(from.room_for::<Self>(count));
        for _ in 0..count {
            values.push(Self::read(from)?);
        }
        Ok(values)
    }
}

/// Bytes that are read from the beginning to the end.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The length that the bytes have, or will have once they are complete.
    end: usize,
    /// The newest command name. Many values in a row have the same.
    newest: Option<Arc<str>>,
}

const PAST_END: Flaw = Flaw::Wrong("a length in it leads past its end");

impl<'a> Reader<'a> {
    /// Reads from all of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::of_length(bytes, bytes.len())
    }

    /// Reads from the first `length` bytes, of which some at the end may be missing.
    pub fn of_length(bytes: &'a [u8], length: usize) -> Self {
        Self {
            bytes: bytes.get(..length).unwrap_or(bytes),
            at: 0,
            end: length,
            newest: None,
        }
    }

    /// The number of bytes that are left, with those that are missing.
    pub fn left(&self) -> usize {
        self.end.saturating_sub(self.at)
    }

    /// The next bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Flaw> {
        if count > self.left() {
            return Err(PAST_END);
        }
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..count));
        let taken = taken.ok_or(Flaw::Short)?;
        self.at += count;
        Ok(taken)
    }

    /// The next byte.
    pub fn byte(&mut self) -> Result<u8, Flaw> {
        match self.bytes.get(self.at) {
            Some(byte) => {
                self.at += 1;
                Ok(*byte)
            }
            None if self.left() == 0 => Err(PAST_END),
            None => Err(Flaw::Short),
        }
    }

    /// A number.
    pub fn number(&mut self) -> Result<u64, Flaw> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(first.into());
        }
        let mut number = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            let shifted = bits << shift;
            if shifted >> shift != bits || byte == 0 {
                return Err(Flaw::Wrong("a number in it has another form"));
            }
            number |= shifted;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Flaw::Wrong("a number in it is too long"))
    }

    /// The number of elements that follow, or of bytes. Each takes at least one byte.
    pub fn count(&mut self) -> Result<usize, Flaw> {
        let count = usize::try_from(self.number()?).map_err(|_| PAST_END)?;
        if count > self.left() {
            return Err(PAST_END);
        }
        Ok(count)
    }

    /// Text.
    pub fn text(&mut self) -> Result<&'a str, Flaw> {
        let count = self.count()?;
        let bytes = self.take(count)?;
        std::str::from_utf8(bytes).map_err(|_| Flaw::Wrong("a text in it is no UTF-8"))
    }

    /// Text that the values before often have, too.
    fn shared_text(&mut self) -> Result<Arc<str>, Flaw> {
        let text = self.text()?;
        match &self.newest {
            Some(newest) if **newest == *text => Ok(Arc::clone(newest)),
            _ => Ok(Arc::clone(self.newest.insert(Arc::from(text)))),
        }
    }

    /// For how many of `count` values to make room at once: at most as much memory as a multiple of
    /// the bytes that are there.
    pub fn room_for<T>(&self, count: usize) -> usize {
        let there = self.bytes.len().saturating_sub(self.at);
        count.min(16 * there / size_of::<T>().max(1))
    }
}

/// Appends a number.
pub fn write_number(mut number: u64, to: &mut Vec<u8>) {
    while number >= 0x80 {
        to.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    to.push(number.to_le_bytes()[0]);
}

/// Appends the number of elements, or of bytes.
pub fn write_count(count: usize, to: &mut Vec<u8>) {
    write_number(count as u64, to);
}

/// Appends text.
pub fn write_text(text: &str, to: &mut Vec<u8>) {
    write_count(text.len(), to);
    to.extend_from_slice(text.as_bytes());
}

/// The binary form of a struct: its fields, in this order.
macro_rules! record {
    ($of:ident { $($field:ident),* $(,)? }) => {
        impl $crate::core::encoding::Encode for $of {
            fn write(&self, to: &mut Vec<u8>) {
                let Self { $($field),* } = self;
                $($crate::core::encoding::Encode::write($field, to);)*
            }

            fn read(
                from: &mut $crate::core::encoding::Reader,
            ) -> Result<Self, $crate::core::encoding::Flaw> {
                $(let $field = $crate::core::encoding::Encode::read(from)?;)*
                Ok(Self { $($field),* })
            }
        }
    };
}

/// The binary form of an enum: the tag of a variant, and its fields, in this order.
macro_rules! variants {
    ($of:ident {
        $($tag:literal => $variant:ident
            $({ $($field:ident),* $(,)? })?
            $(( $($part:ident),* ))?
        ),* $(,)?
    }) => {
        impl $crate::core::encoding::Encode for $of {
            fn write(&self, to: &mut Vec<u8>) {
                match self {
                    $(Self::$variant $({ $($field),* })? $(( $($part),* ))? => {
                        to.push($tag);
                        $($($crate::core::encoding::Encode::write($field, to);)*)?
                        $($($crate::core::encoding::Encode::write($part, to);)*)?
                    })*
                }
            }

            fn read(
                from: &mut $crate::core::encoding::Reader,
            ) -> Result<Self, $crate::core::encoding::Flaw> {
                match from.byte()? {
                    $($tag => {
                        $($(let $field = $crate::core::encoding::Encode::read(from)?;)*)?
                        $($(let $part = $crate::core::encoding::Encode::read(from)?;)*)?
                        Ok(Self::$variant $({ $($field),* })? $(( $($part),* ))?)
                    })*
                    _ => Err($crate::core::encoding::Flaw::Wrong(concat!(
                        "it has a variant of ",
                        stringify!($of),
                        " that this claimfs does not know",
                    ))),
                }
            }
        }
    };
}

pub(crate) use {record, variants};

#[cfg(test)]
mod tests;
