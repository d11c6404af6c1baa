//! The binary form of names, numbers, processes and the parts of leases.
//!
//! Does not know: what they are parts of.

use super::{Encode, Flaw, Reader, record, variants, write_count, write_number, write_text};
use crate::core::scaffolding::Plank;
use crate::core::{
    Above, Attributes, Binding, Change, Creation, Deadline, Ino, Label, Name, NodeId, Outcome,
    Predecessor, Process, Root, Rule, SessionId, SessionKey, Shape, Token, WaiterId,
};

impl Encode for Name {
    fn write(&self, to: &mut Vec<u8>) {
        write_text(self.as_str(), to);
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        Self::recorded(from.text()?).map_err(|_| Flaw::Wrong("a name in it is no name of a claim"))
    }
}

impl Encode for SessionId {
    fn write(&self, to: &mut Vec<u8>) {
        write_text(self.as_str(), to);
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        let text = from.text()?;
        Self::new(text.as_bytes()).map_err(|_| Flaw::Wrong("an id in it is no id of a session"))
    }
}

impl Encode for Label {
    fn write(&self, to: &mut Vec<u8>) {
        write_count(self.as_bytes().len(), to);
        to.extend_from_slice(self.as_bytes());
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        let count = from.count()?;
        Self::new(from.take(count)?).map_err(|_| Flaw::Wrong("a name in it is no name of a file"))
    }
}

macro_rules! ids {
    ($($of:ident),*) => {
        $(impl Encode for $of {
            fn write(&self, to: &mut Vec<u8>) {
                write_number(self.0, to);
            }

            fn read(from: &mut Reader) -> Result<Self, Flaw> {
                from.number().map(Self)
            }
        })*
    };
}

ids!(Token, Ino, SessionKey, WaiterId);

impl Encode for NodeId {
    fn write(&self, to: &mut Vec<u8>) {
        write_number(self.number(), to);
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        Self::of(from.number()?).ok_or(Flaw::Wrong("a number of a file in it is that of nothing"))
    }
}

impl Encode for Outcome {
    fn write(&self, to: &mut Vec<u8>) {
        // A request that is sent again does not need the rest.
        let Self {
            fh,
            ino,
            seat,
            is_new: _,
        } = self;
        fh.write(to);
        ino.write(to);
        seat.write(to);
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        Ok(Self {
            fh: Encode::read(from)?,
            ino: Encode::read(from)?,
            seat: Encode::read(from)?,
            is_new: false,
        })
    }
}

record!(Process { pid, start, pidfs });
record!(Root {
    process,
    command,
    started,
    registered,
    environ,
    above
});
variants!(Above {
    0 => Unknown,
    1 => Nobody,
    2 => Process(process),
});
variants!(Rule {
    1 => Registered,
    2 => Variable,
    3 => Agent,
    4 => Sandbox,
    5 => Posix,
    6 => Remote,
});
record!(Deadline { ttl, until });
record!(Binding {
    process,
    passes,
    from
});
record!(Predecessor { pid, command, exit });
variants!(Shape {
    0 => File,
    1 => Directory,
    2 => Symlink(target),
});
record!(Creation {
    shape,
    mode,
    uid,
    gid
});
variants!(Change {
    0 => Write { offset, data },
    1 => Append { data },
    2 => Resize { size },
    3 => Attributes(attributes),
    4 => Tag { name, value },
});
record!(Attributes { mode, atime, mtime });
record!(Plank {
    number,
    up,
    name,
    opens
});
