//! The errno of each refusal: one match, without a wildcard.
//!
//! Does not know: why a request is refused.

use fuser::Errno;

use crate::core::Refusal;

/// The errno, and its name in `metrics`. EBUSY means one thing only: another live session holds the
/// name.
pub(super) fn errno(refusal: Refusal) -> (Errno, &'static str) {
    match refusal {
        Refusal::Exists => (Errno::EEXIST, "EEXIST"),
        Refusal::Busy => (Errno::EBUSY, "EBUSY"),
        Refusal::NotFound => (Errno::ENOENT, "ENOENT"),
        // The kernel looks the name up again when OPEN answers this, and then creates it.
        Refusal::Lost => (Errno::ESTALE, "ESTALE"),
        Refusal::BadName | Refusal::Invalid => (Errno::EINVAL, "EINVAL"),
        Refusal::LongName => (Errno::ENAMETOOLONG, "ENAMETOOLONG"),
        Refusal::NotPermitted => (Errno::EPERM, "EPERM"),
        Refusal::Denied => (Errno::EACCES, "EACCES"),
        Refusal::Full => (Errno::ENOSPC, "ENOSPC"),
        Refusal::Quota => (Errno::EDQUOT, "EDQUOT"),
        Refusal::TooLarge => (Errno::EFBIG, "EFBIG"),
        Refusal::TooDeep => (Errno::E2BIG, "E2BIG"),
        Refusal::Shortage => (Errno::ENFILE, "ENFILE"),
        Refusal::NoAttribute => (Errno::ENODATA, "ENODATA"),
        Refusal::Unsupported => (Errno::EOPNOTSUPP, "EOPNOTSUPP"),
        Refusal::IsDirectory => (Errno::EISDIR, "EISDIR"),
        Refusal::NotDirectory => (Errno::ENOTDIR, "ENOTDIR"),
        Refusal::NotEmpty => (Errno::ENOTEMPTY, "ENOTEMPTY"),
        Refusal::CrossDevice => (Errno::EXDEV, "EXDEV"),
        Refusal::Interrupted => (Errno::EINTR, "EINTR"),
        Refusal::Unsettled => (Errno::EAGAIN, "EAGAIN"),
        Refusal::Failed => (Errno::EIO, "EIO"),
    }
}
