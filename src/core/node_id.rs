//! Inode numbers and handles, as the kernel sees them.
//!
//! Promises: a number belongs to one kind of object, and no two objects share a number. All ranges
//! are here, and the bounds of the numbers in a journal follow from them.
//!
//! Does not know: which of these objects exist.

use serde::{Deserialize, Serialize};

use super::{Ino, SessionKey, WaiterId};

/// Makes the enum and the list of its variants from one list.
macro_rules! fixed {
    ($($(#[$about:meta])* $file:ident,)*) => {
        /// A file or directory that exists as long as the mount.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Fixed {
            $($(#[$about])* $file,)*
        }

        impl Fixed {
            /// All of them, in the order of their numbers from 1 on: 1 is the root of any FUSE
            /// filesystem.
            pub const ALL: &[Self] = &[$(Self::$file,)*];
        }
    };
}

// A new one comes last: the kernel keeps these numbers while servers and versions change.
fixed! {
    /// The mount itself.
    Root,
    /// `README`.
    Readme,
    /// `claims/`.
    Claims,
    /// `sessions/`.
    Sessions,
    /// `self`.
    Own,
    /// `leases`.
    Leases,
    /// `control`.
    Control,
    /// `metrics`.
    Metrics,
    /// `queue/`.
    Queue,
    /// `waiters`.
    Waiters,
    /// `events`.
    Events,
    /// `paths/`.
    Paths,
    /// `history`.
    History,
}

/// An inode number or a handle, by its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub enum NodeId {
    /// A fixed file, as inode and as the handle of a directory.
    Fixed(Fixed),
    /// A claim or an entry inside one, as inode and as the handle of a descriptor for writing.
    Claim(Ino),
    /// A file in `sessions/`, as inode.
    Session(SessionKey),
    /// A file in `sessions/` that is open for writing, as handle, and as inode until it has
    /// registered something.
    Registration(u64),
    /// The handle of a text that was rendered for its reader.
    Text(u64),
    /// A file in `queue/`, as inode.
    QueueFile(u64),
    /// The handle of a reader of `queue/` that waits, or waited.
    Waiter(WaiterId),
    /// The handle of a reader of `queue/` whose session held the name already.
    Seated(u64),
    /// The handle of a reader of `events`.
    Reader(u64),
    /// A name that has gone, as only the inotify helper sees it.
    Tombstone(u64),
    /// A directory below `paths/`.
    Scaffold(u64),
}

/// The first inode of a claim. All below are for fixed files.
pub const FIRST_INO: u64 = 1024;
const SESSION: u64 = 1 << 40;
const REGISTRATION: u64 = 1 << 41;
const TEXT: u64 = 1 << 42;
const QUEUE_FILE: u64 = 1 << 43;
const WAITER: u64 = 1 << 44;
const SEATED: u64 = WAITER + (1 << 43);
const READER: u64 = 1 << 45;
const TOMBSTONE: u64 = 1 << 46;
const SCAFFOLD: u64 = 1 << 47;
const END: u64 = 1 << 48;

/// No inode of a claim has this number or a higher one.
pub const INO_END: u64 = SESSION;
/// No session has this key or a higher one.
pub const KEY_END: u64 = REGISTRATION - SESSION;
/// No waiter has this number or a higher one.
pub const WAITER_END: u64 = SEATED - WAITER;
/// No handle that a server counts has this number or a higher one.
pub const COUNT_END: u64 = TEXT - REGISTRATION;

const _: () = {
    assert!((Fixed::ALL.len() as u64) < FIRST_INO);
    let starts = [
        FIRST_INO,
        SESSION,
        REGISTRATION,
        TEXT,
        QUEUE_FILE,
        WAITER,
        SEATED,
        READER,
        TOMBSTONE,
        SCAFFOLD,
        END,
    ];
    let mut at = 1;
    while at < starts.len() {
        assert!(starts[at - 1] < starts[at]);
        at += 1;
    }
    // Each counter starts at 0 and fits into its range.
    assert!(COUNT_END <= TEXT - REGISTRATION && COUNT_END <= QUEUE_FILE - TEXT);
    assert!(COUNT_END <= READER - SEATED && COUNT_END <= SCAFFOLD - TOMBSTONE);
    assert!(COUNT_END <= END - SCAFFOLD);
    let mut at = 0;
    while at < Fixed::ALL.len() {
        assert!(Fixed::ALL[at] as usize == at);
        at += 1;
    }
};

impl NodeId {
    /// The root of the mount.
    pub const ROOT: Self = Self::Fixed(Fixed::Root);

    /// The object with this number. `None` if no object can have it.
    pub fn of(number: u64) -> Option<Self> {
        Some(match number {
            0 => return None,
            1..FIRST_INO => {
                let at = usize::try_from(number - 1).ok()?;
                Self::Fixed(*Fixed::ALL.get(at)?)
            }
            FIRST_INO..SESSION => Self::Claim(Ino(number)),
            SESSION..REGISTRATION => Self::Session(SessionKey(number - SESSION)),
            REGISTRATION..TEXT => Self::Registration(number - REGISTRATION),
            TEXT..QUEUE_FILE => Self::Text(number - TEXT),
            QUEUE_FILE..WAITER => Self::QueueFile(number - QUEUE_FILE),
            WAITER..SEATED => Self::Waiter(WaiterId(number - WAITER)),
            SEATED..READER => Self::Seated(number - SEATED),
            READER..TOMBSTONE => Self::Reader(number - READER),
            TOMBSTONE..SCAFFOLD => Self::Tombstone(number - TOMBSTONE),
            SCAFFOLD..END => Self::Scaffold(number - SCAFFOLD),
            END.. => return None,
        })
    }

    /// Its number.
    pub fn number(self) -> u64 {
        match self {
            Self::Fixed(fixed) => fixed as u64 + 1,
            Self::Claim(ino) => ino.0,
            Self::Session(key) => SESSION + key.0,
            Self::Registration(count) => REGISTRATION + count,
            Self::Text(count) => TEXT + count,
            Self::QueueFile(count) => QUEUE_FILE + count,
            Self::Waiter(waiter) => WAITER + waiter.0,
            Self::Seated(count) => SEATED + count,
            Self::Reader(reader) => READER + reader,
            Self::Tombstone(count) => TOMBSTONE + count,
            Self::Scaffold(count) => SCAFFOLD + count,
        }
    }

    /// True for a handle on which its reader waits.
    pub fn is_stream(self) -> bool {
        matches!(self, Self::Waiter(_) | Self::Seated(_) | Self::Reader(_))
    }
}

impl TryFrom<u64> for NodeId {
    type Error = &'static str;

    fn try_from(number: u64) -> Result<Self, Self::Error> {
        Self::of(number).ok_or("the number of nothing")
    }
}

impl From<NodeId> for u64 {
    fn from(node: NodeId) -> Self {
        node.number()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Fixed, INO_END, Ino, KEY_END, NodeId, READER, SEATED, SESSION, SessionKey, WAITER,
        WAITER_END, WaiterId,
    };

    #[test]
    fn each_number_is_of_one_thing_at_the_edges_of_all_ranges() {
        let first_and_last = [
            (NodeId::Fixed(Fixed::Root), 1),
            (NodeId::Fixed(Fixed::Events), 11),
            (NodeId::Fixed(Fixed::Paths), 12),
            (NodeId::Fixed(Fixed::History), 13),
            (NodeId::Claim(Ino(1024)), 1024),
            (NodeId::Claim(Ino(INO_END - 1)), SESSION - 1),
            (NodeId::Session(SessionKey(0)), 1 << 40),
            (NodeId::Session(SessionKey(KEY_END - 1)), (1 << 41) - 1),
            (NodeId::Registration(0), 1 << 41),
            (NodeId::Text(0), 1 << 42),
            (NodeId::QueueFile(0), 1 << 43),
            (NodeId::Waiter(WaiterId(0)), WAITER),
            (NodeId::Waiter(WaiterId(WAITER_END - 1)), SEATED - 1),
            (NodeId::Seated(0), SEATED),
            (NodeId::Seated((1 << 43) - 1), READER - 1),
            (NodeId::Reader(0), 1 << 45),
            (NodeId::Tombstone(0), 1 << 46),
            (NodeId::Tombstone((1 << 46) - 1), (1 << 47) - 1),
            (NodeId::Scaffold(0), 1 << 47),
            (NodeId::Scaffold((1 << 47) - 1), (1 << 48) - 1),
        ];
        for (node, number) in first_and_last {
            assert_eq!(node.number(), number, "{node:?}");
            assert_eq!(NodeId::of(number), Some(node), "{number}");
        }
        for nothing in [0, 14, 1023, 1 << 48, u64::MAX] {
            assert_eq!(NodeId::of(nothing), None, "{nothing}");
        }
    }
}
