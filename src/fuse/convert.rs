//! Between the kernel's values and ours: attributes, times, how long things may be remembered, and the answers that are
//! alike.

use std::ffi::OsStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyEmpty,
    ReplyEntry, ReplyXattr, Request, TimeOrNow,
};

use crate::core::{NodeId, Refusal};
use crate::store::Caller;
use crate::tree::{Attr, Handle, Kind, Opened};

/// How long the kernel may remember a fixed file.
pub(super) const FIXED_TTL: Duration = Duration::from_secs(3600);
/// How long it may remember a lease: not at all, or `set -C` would refuse a dead name until it had run out.
const LEASE_TTL: Duration = Duration::ZERO;
/// How long it may remember what it read in a long listing with attributes, since `ls -l` would ask for each of very
/// many names again. Until then `set -C` refuses a name that was listed and whose holder has died since.
pub(super) const LISTING_TTL: Duration = Duration::from_millis(20);
/// From how many leases on a listing is long.
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

/// The node that the kernel means. ESTALE for a number of nothing.
pub(super) fn node(ino: INodeNo) -> Result<NodeId, Refusal> {
    NodeId::of(ino.0).ok_or(Refusal::Lost)
}

/// The descriptor that the kernel means. ESTALE for a number of nothing.
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
    if attr.is_fixed() {
        &FIXED_TTL
    } else {
        &LEASE_TTL
    }
}

/// Direct I/O, since what a file reads as may be longer than its size. A claim needs no FLUSH.
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

/// fuser 0.18 reads the nanoseconds of a time before 1970 as if they went backwards: `time.rs` there says so.
pub(super) fn before_epoch(time: SystemTime) -> Option<SystemTime> {
    let before = UNIX_EPOCH.duration_since(time).ok()?;
    let nanos = Duration::from_nanos(u64::from(before.subsec_nanos()));
    UNIX_EPOCH
        .checked_sub(before.checked_sub(nanos)?)?
        .checked_add(nanos)
}

pub(super) fn permission_bits(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0)
}

/// Text of an extended attribute's name; what is no UTF-8 is no name of ours.
pub(super) fn tag_name(name: &OsStr) -> Result<&str, Refusal> {
    name.to_str().ok_or(Refusal::Unsupported)
}

/// getxattr(2) and listxattr(2): the size alone if no room is given, ERANGE if too little is.
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
