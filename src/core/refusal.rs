//! The reasons to refuse a command.
//!
//! Does not know: the errno of each, which `fuse/errno.rs` decides.

/// The reason to refuse a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The name is taken, and the caller asked for a new one.
    Exists,
    /// Another live session holds it.
    Busy,
    /// No such claim, session or file.
    NotFound,
    /// The lease behind this descriptor was lost.
    Lost,
    /// A name that the name rule refuses.
    BadName,
    /// A name of more than 255 bytes.
    LongName,
    /// An argument without meaning here.
    Invalid,
    /// Not permitted: another uid, another namespace, or something that nobody may change.
    NotPermitted,
    /// The mode bits do not permit it.
    Denied,
    /// A limit on a number is reached.
    Full,
    /// The quota of the caller's uid is reached.
    Quota,
    /// A limit on a size is exceeded.
    TooLarge,
    /// More processes above the caller, or larger environments, than are read.
    TooDeep,
    /// The server has no file descriptors or no memory left.
    Shortage,
    /// No extended attribute of that name.
    NoAttribute,
    /// The operation does not exist for this file.
    Unsupported,
    /// It is a directory, and a file is needed.
    IsDirectory,
    /// It is a file, and a directory is needed.
    NotDirectory,
    /// The directory has entries.
    NotEmpty,
    /// A move or link across the edge of a directory claim, which counts as a filesystem of its
    /// own.
    CrossDevice,
    /// Nothing has happened yet. The caller may handle signals and ask again.
    Interrupted,
    /// The processes above the caller changed faster than they could be read.
    Unsettled,
    /// The system below claimfs failed. Nothing was granted.
    Failed,
}
