//! Conversion between the kernel's values and those of the tree: attributes, times, cache timeouts,
//! and the replies that several handlers share.
//!
//! Does not know: what the values mean to anybody else.

use std::ffi::OsStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, OpenAccMode, OpenFlags,
    ReplyAttr, ReplyEmpty, ReplyEntry, ReplyXattr, Request, TimeOrNow,
};

use crate::core::scaffolding::SEEN;
use crate::core::{NodeId, Refusal};
use crate::store::Caller;
use crate::tree::permissions::{READ, WRITE};
use crate::tree::{Attr, Handle, Kind, Opened};

/// How long the kernel may cache a fixed file.
pub(super) const FIXED_TTL: Duration = Duration::from_secs(3600);
/// The kernel caches no lease, or `set -C` would refuse a dead name until the timeout.
const LEASE_TTL: Duration = Duration::ZERO;
/// How long the kernel may cache an entry of a long listing with attributes, so that `ls -l` does
/// not ask for each of very many names again. For that time `set -C` refuses a name whose holder
/// has died since the listing.
pub(super) const LISTING_TTL: Duration = Duration::from_millis(20);
/// How long the kernel may cache a directory below `paths/`, so that it does not ask for each level
/// of a path again and again. For that time it may take a reservation that has replaced a directory
/// for the directory.
const DIRECTORY_TTL: Duration = Duration::from_millis(20);
const _: () = assert!(DIRECTORY_TTL.as_millis() < SEEN.as_millis());
/// A listing is long if there are more leases than this.
pub(super) const LONG_LISTING: usize = 1024;

pub(super) fn caller(request: &Request) -> Caller {
    Caller {
        task: request.pid(),
        uid: request.uid(),
        gid: request.gid(),
        request: request.unique().0,
        step: 0,
        arrived: None,
    }
}

/// The node of the kernel's inode number. ESTALE if it is none.
pub(super) fn node(ino: INodeNo) -> Result<NodeId, Refusal> {
    NodeId::of(ino.0).ok_or(Refusal::Lost)
}

/// The descriptor of the kernel's file handle. ESTALE if it is none.
pub(super) fn descriptor(handle: FileHandle) -> Result<NodeId, Refusal> {
    NodeId::of(handle.0).ok_or(Refusal::Lost)
}

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Symlink => FileType::Symlink,
    }
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.number()),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: attr.atime,
        mtime: attr.mtime,
        ctime: attr.ctime,
        crtime: attr.ctime,
        kind: file_type(attr.kind),
        perm: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

pub(super) fn ttl(attr: &Attr) -> &'static Duration {
    match attr.ino {
        _ if attr.is_fixed() => &FIXED_TTL,
        NodeId::Scaffold(_) => &DIRECTORY_TTL,
        _ => &LEASE_TTL,
    }
}

/// Direct I/O, since a read may show more than the file's size. A claim needs no FLUSH.
pub(super) fn open_flags(handle: Handle) -> FopenFlags {
    let more = match handle.opened {
        Opened::Claim => FopenFlags::FOPEN_NOFLUSH,
        Opened::Text => FopenFlags::empty(),
        Opened::Stream => FopenFlags::FOPEN_NONSEEKABLE | FopenFlags::FOPEN_STREAM,
    };
    FopenFlags::FOPEN_DIRECT_IO | more
}

pub(super) fn moment(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => before_epoch(time).unwrap_or(time),
        TimeOrNow::Now => SystemTime::now(),
    }
}

/// Corrects a time before 1970, whose nanoseconds fuser 0.18 subtracts instead of adding them (see
/// its `time.rs`).
pub(super) fn before_epoch(time: SystemTime) -> Option<SystemTime> {
    let before = UNIX_EPOCH.duration_since(time).ok()?;
    let nanos = Duration::from_nanos(u64::from(before.subsec_nanos()));
    UNIX_EPOCH
        .checked_sub(before.checked_sub(nanos)?)?
        .checked_add(nanos)
}

/// The permission bits that an open(2) with these flags needs.
pub(super) fn wants(flags: OpenFlags) -> u8 {
    let mode = match flags.acc_mode() {
        OpenAccMode::O_RDONLY => READ,
        OpenAccMode::O_WRONLY => WRITE,
        OpenAccMode::O_RDWR => READ | WRITE,
    };
    if flags.0 & libc::O_TRUNC == 0 {
        mode
    } else {
        mode | WRITE
    }
}

pub(super) fn permission_bits(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0)
}

/// The name of an extended attribute. EOPNOTSUPP if it is not UTF-8.
pub(super) fn xattr_name(name: &OsStr) -> Result<&str, Refusal> {
    name.to_str().ok_or(Refusal::Unsupported)
}

/// Answers getxattr(2) and listxattr(2): the length alone if `size` is 0, ERANGE if it is too
/// small.
pub(super) fn answer_xattr(result: Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    match result {
        Ok(value) => match u32::try_from(value.len()) {
            Ok(length) if size == 0 => reply.size(length),
            Ok(length) if length <= size => reply.data(&value),
            _ => reply.error(Errno::ERANGE),
        },
        Err(errno) => reply.error(errno),
    }
}

pub(super) fn answer_entry(result: Result<Attr, Errno>, reply: ReplyEntry) {
    match result {
        Ok(attr) => reply.entry(ttl(&attr), &file_attr(&attr), Generation(0)),
        Err(errno) => reply.error(errno),
    }
}

pub(super) fn answer_empty(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

pub(super) fn answer_attr(result: Result<Attr, Errno>, reply: ReplyAttr) {
    match result {
        Ok(attr) => reply.attr(ttl(&attr), &file_attr(&attr)),
        Err(errno) => reply.error(errno),
    }
}
