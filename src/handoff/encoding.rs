//! The binary form of a connection, and of notes.
//!
//! Does not know: frames.

use super::replies::ReplyCache;
use super::{Descriptors, Handoff, Key, Note, Open, Position, Reading, Sent};
use crate::core::encoding::{Encode, Flaw, Reader, record, variants};
use crate::core::scaffolding::{Plank, Scaffolding};

impl Encode for Key {
    fn write(&self, to: &mut Vec<u8>) {
        let Self(number, part) = self;
        number.write(to);
        part.write(to);
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        Ok(Self(Encode::read(from)?, Encode::read(from)?))
    }
}

record!(Sent { key, again, thread });
record!(Position { offset, seq, skip });
record!(Reading {
    from,
    to,
    rest,
    missed,
    again,
    last
});

variants!(Open {
    1 => Registering { id, process, uid, exclusive, written },
    2 => Seated,
    3 => Granted { waiter, key, name, token },
    4 => Reading(reading),
});

variants!(Note {
    1 => Told { ino, name },
    2 => Forgotten { ino },
    3 => Scaffold(plank),
    4 => Standing { number, opens },
    5 => Dismantled { number },
    6 => Opened { fh, open },
    7 => Polled { fh, kh },
    8 => Closed { fh },
    9 => Confirmed { waiter },
    10 => TakenOver,
    11 => Began { nonce },
});

record!(Descriptors {
    files,
    open,
    unconfirmed,
    pollers
});
record!(ReplyCache { done, newest, past });

impl Encode for Handoff {
    fn write(&self, to: &mut Vec<u8>) {
        let Self {
            nonce,
            lives,
            descriptors,
            lines,
            lines_from,
            scaffolding,
            replies,
        } = self;
        nonce.write(to);
        lives.write(to);
        descriptors.write(to);
        lines.write(to);
        lines_from.write(to);
        scaffolding.planks().collect::<Vec<_>>().write(to);
        scaffolding.next().write(to);
        replies.write(to);
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        let (nonce, lives) = (Encode::read(from)?, Encode::read(from)?);
        let descriptors = Encode::read(from)?;
        let (kept, first) = (Encode::read(from)?, Encode::read(from)?);
        let (planks, next) = (Vec::<Plank>::read(from)?, Encode::read(from)?);
        Ok(Self {
            nonce,
            lives,
            descriptors,
            lines: kept,
            lines_from: first,
            scaffolding: Scaffolding::of(&planks, next),
            replies: Encode::read(from)?,
        })
    }
}
