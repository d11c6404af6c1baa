//! Events on disk: checksummed frames after a snapshot of the table, and reserved tokens.
//!
//! ```text
//! journal  frame: the version                          compaction writes a new file: see `copy`
//!          frame: a snapshot of the table
//!          frame: the events of one decision           appended before they are applied
//!          …
//! tokens   the highest token that may be granted       written with fsync, a block of tokens ahead
//!
//! frame    length u32, checksum u32 of length and payload (CRC-32), payload: see `entry`
//! ```
//!
//! A journal of an older version goes on in it until a server answers: should that server fail, the
//! program from before takes over again, and must be able to read it. Then it is written again in
//! the newest version, which an older program refuses by its number.
//!
//! Promises: a decision is recorded whole or not at all. A journal of this boot is served only if
//! every frame in it is whole, but for a torn last frame, which was never answered. All other
//! damage is refused, as is a missing journal if `tokens` says that a server began here in this
//! boot. Space is reserved for the event that frees each lease, so a full disk refuses claims but
//! no release.
//!
//! Before the next write, the remains of a torn write become part of an empty frame, so that they
//! never look like damage. Truncating them would give up the space behind them, which another
//! program may take.
//!
//! A claim whose holder dies with the machine needs no fsync, nor does the compaction of a journal
//! that holds only such claims: a killed server loses nothing that it wrote. Each deadline of a
//! remote session is synced, since these sessions outlive the machine.
//!
//! Does not know: the rules, or who is alive. Of an event it knows how much space to reserve for
//! the event that undoes it, and whether it must survive a loss of power.

mod copy;
mod disk;
mod entry;
mod file;
mod frame;
mod history;
mod recovery;

use std::fs::File;
use std::io;

pub(crate) use self::copy::LEFT_MAX;
pub use self::copy::{Copy, Live, Place};
pub use self::disk::Disk;
pub use self::entry::{Entry, Format, entry, snapshot};
use self::frame::PAYLOAD_MAX;
pub(crate) use self::history::{HISTORY, History, Snapshot};
pub use self::recovery::{Recovered, Source, read, replay};
use crate::core::Event;
use crate::core::table::Table;
use crate::handoff::{Handoff, Note, Sent};

/// Records events before they are applied.
pub trait Log: Send {
    /// Appends the events of one decision, all or none, and the request that it answers, if any. An
    /// error refuses the decision.
    fn append(&mut self, events: &[Event], sent: Option<Sent>) -> io::Result<()>;

    /// The files to sync before the caller is answered, if an event was appended that must survive
    /// a loss of power. A compaction syncs its own file.
    fn unsynced(&mut self) -> io::Result<Vec<File>>;

    /// Appends a fact about a connection that no event states.
    fn note(&mut self, note: &Note, sent: Option<Sent>) -> io::Result<()>;

    /// Whether the journal is still the one in its directory.
    fn is_in_place(&self) -> bool;

    /// Writes all into the directory again, which may be another one at the same path. A journal
    /// that is there is set aside.
    fn rewrite(&mut self, table: &Table, handoff: &Handoff) -> io::Result<()>;

    /// How long the journal is, in bytes.
    fn length(&self) -> u64;

    /// Called once this server answers, and no older program takes over from it any more.
    fn settled(&mut self) {}

    /// The same, and the size of all events that would free everything.
    fn reach(&self) -> (u64, u64);

    /// Whether the journal is due to be compacted, after the appended events were applied to this
    /// table.
    fn is_due(&mut self, table: &Table) -> bool;

    /// Begins to write a new journal: see [`struct@Copy`]. `table` is what it says now.
    fn begin_copy(&mut self, table: &Table, live: Live, place: Place) -> io::Result<Copy>;

    /// Completes a copy. From now on each frame is written to both. Whether the copy has something
    /// that must survive a loss of power and came after its table.
    fn mirror(&mut self, copy: &mut Copy) -> io::Result<bool>;

    /// Goes on with a copy. Returns the old file, which takes a while to close.
    fn switch(&mut self, copy: &mut Copy) -> io::Result<File>;

    /// Goes on without a copy that failed.
    fn give_up(&mut self, copy: &Copy);
}

/// The longest journal, in bytes, that is written or served.
pub const JOURNAL_MAX: u64 = 1 << 33;

// A journal is compacted at three times the size of its table, which is one frame.
const _: () = assert!(JOURNAL_MAX >= 4 * PAYLOAD_MAX as u64);

/// The name of the journal in a state directory.
pub(crate) const JOURNAL: &str = "journal";

/// The name of the file that says which tokens are reserved.
pub(crate) const RESERVED: &str = "tokens";
