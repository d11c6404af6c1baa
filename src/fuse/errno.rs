//! The errno of each refusal: one match, without a wildcard.
//!
//! Does not know: why a request is refused.

use fuser::Errno;

use crate::core::Refusal;

/// EBUSY means one thing only: another live session holds the name.
pub(super) fn errno(refusal: Refusal) -> Errno {
    match refusal {
        Refusal::Exists => Errno::EEXIST,
        Refusal::Busy => Errno::EBUSY,
        Refusal::NotFound => Errno::ENOENT,
        // The kernel looks the name up again when OPEN answers this, and then creates it.
        Refusal::Lost => Errno::ESTALE,
        Refusal::BadName | Refusal::Invalid => Errno::EINVAL,
        Refusal::LongName => Errno::ENAMETOOLONG,
        Refusal::NotPermitted => Errno::EPERM,
        Refusal::Denied => Errno::EACCES,
        Refusal::Full => Errno::ENOSPC,
        Refusal::Quota => Errno::EDQUOT,
        Refusal::TooLarge => Errno::EFBIG,
        Refusal::TooDeep => Errno::E2BIG,
        Refusal::Shortage => Errno::ENFILE,
        Refusal::NoAttribute => Errno::ENODATA,
        Refusal::Unsupported => Errno::EOPNOTSUPP,
        Refusal::IsDirectory => Errno::EISDIR,
        Refusal::NotDirectory => Errno::ENOTDIR,
        Refusal::NotEmpty => Errno::ENOTEMPTY,
        Refusal::CrossDevice => Errno::EXDEV,
        Refusal::Interrupted => Errno::EINTR,
        Refusal::Unsettled => Errno::EAGAIN,
        Refusal::Failed => Errno::EIO,
    }
}

pub(super) fn errno_name(errno: Errno) -> &'static str {
    match errno.code() {
        libc::EEXIST => "EEXIST",
        libc::EBUSY => "EBUSY",
        libc::ENOENT => "ENOENT",
        libc::ESTALE => "ESTALE",
        libc::EINVAL => "EINVAL",
        libc::ENAMETOOLONG => "ENAMETOOLONG",
        libc::EPERM => "EPERM",
        libc::EACCES => "EACCES",
        libc::ENOSPC => "ENOSPC",
        libc::EDQUOT => "EDQUOT",
        libc::EINTR => "EINTR",
        libc::EFBIG => "EFBIG",
        libc::E2BIG => "E2BIG",
        libc::ENFILE => "ENFILE",
        libc::ENODATA => "ENODATA",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::EISDIR => "EISDIR",
        libc::ENOTDIR => "ENOTDIR",
        libc::ENOTEMPTY => "ENOTEMPTY",
        libc::EXDEV => "EXDEV",
        libc::EAGAIN => "EAGAIN",
        _ => "EIO",
    }
}
