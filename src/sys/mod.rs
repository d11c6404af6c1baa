//! Facilities of the kernel, one file each.
//!
//! Deliberately ignorant of: everything of claimfs.

pub mod mountinfo;
