//! File descriptors: how many there may be, and how they are handed over.
#![allow(unsafe_code)]

use std::io::{self, IoSliceMut};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::{DupFlags, dup3};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many descriptors this process may have open.
pub(crate) fn limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

/// Raises the limit of open descriptors as far as this process may: each root of a session is one.
pub(crate) fn raise_limit() -> io::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// Whether an error says that there are no more descriptors or no more memory, and nothing else.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)
    )
}

/// Receives one descriptor, close-on-exec, as an `SCM_RIGHTS` message (unix(7)); `None` if there is
/// none in the message.
pub(crate) fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0_u8; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut byte)];
    recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    }))
}

/// A pair of connected sockets, close-on-exec, that keep the borders between messages.
pub(crate) fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(socketpair(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// Makes the descriptor number of `old`, which stays open, a duplicate of `new`, close-on-exec.
pub(crate) fn replace(old: &impl AsFd, new: &impl AsFd) -> io::Result<()> {
    // SAFETY: the number is open while `old` is borrowed, and stays so; its owner closes it, since
    // this second one is never dropped.
    let old = unsafe { OwnedFd::from_raw_fd(old.as_fd().as_raw_fd()) };
    Ok(dup3(new, &mut ManuallyDrop::new(old), DupFlags::CLOEXEC)?)
}
