//! The proc connector: a netlink socket on which the kernel tells a privileged listener of every
//! process that is created, execs or exits, with its wait status (`include/uapi/linux/cn_proc.h`;
//! since Linux 2.6.15).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::{CONNECTOR, SocketAddrNetlink};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recvfrom, send, socket_with,
};

/// The longest datagram that is read whole; the kernel's are 76 bytes long.
const DATAGRAM: usize = 4096;

/// `CN_IDX_PROC` and `CN_VAL_PROC`, of which the first is the multicast group too.
const GROUP: u32 = 1;
const LISTEN: u32 = 1;

/// The lengths of `struct nlmsghdr` and of `struct cn_msg`, and where the data of an event begin in
/// `struct proc_event`.
const NETLINK: usize = 16;
const MESSAGE: usize = 20;
const DATA: usize = 16;

/// `NLMSG_DONE`, the type of all that connectors send.
const DONE: u16 = 3;

/// `proc_event.what`.
const FORK: u32 = 1;
const EXEC: u32 = 2;
const EXIT: u32 = 0x8000_0000;

/// A socket on which the kernel tells of processes.
#[derive(Debug)]
pub(crate) struct ProcEvents(OwnedFd);

impl ProcEvents {
    /// Subscribes, with so many bytes of buffer. Without the right to do so, or in a namespace of
    /// its own, it may succeed and nothing ever comes.
    pub(crate) fn subscribe(buffer: usize) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (family, kind) = (AddressFamily::NETLINK, SocketType::DGRAM);
        let socket = socket_with(family, kind, flags, Some(CONNECTOR))?;
        set_socket_recv_buffer_size_force(&socket, buffer)?;
        // The kernel chooses the port.
        bind(&socket, &SocketAddrNetlink::new(0, GROUP))?;
        send(&socket, &subscription(), SendFlags::empty())?;
        Ok(Self(socket))
    }

    /// The messages of the next datagram; none if it is not from the kernel. `WouldBlock` if there
    /// is none, and ENOBUFS once after messages were lost.
    pub(crate) fn receive(&self) -> io::Result<Vec<Change>> {
        let mut buffer = [MaybeUninit::uninit(); DATAGRAM];
        let ((datagram, _), _, from) = recvfrom(&self.0, &mut buffer, RecvFlags::empty())?;
        let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
        let is_from_kernel = from.is_none_or(|from| from.pid() == 0);
        Ok(if is_from_kernel {
            parse(datagram)
        } else {
            Vec::new()
        })
    }
}

impl AsFd for ProcEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `PROC_CN_MCAST_LISTEN`.
fn subscription() -> Vec<u8> {
    const LENGTH: usize = NETLINK + MESSAGE + 4;
    let mut message = Vec::with_capacity(LENGTH);
    message.extend(u32::try_from(LENGTH).unwrap_or_default().to_ne_bytes());
    message.extend(DONE.to_ne_bytes());
    // Flags, sequence and sender: the port of the socket.
    message.extend([0; 10]);
    message.extend(GROUP.to_ne_bytes());
    message.extend(LISTEN.to_ne_bytes());
    // Sequence and acknowledgement; then the length of what follows, and flags.
    message.extend([0; 8]);
    message.extend(4u16.to_ne_bytes());
    message.extend([0; 2]);
    message.extend(LISTEN.to_ne_bytes());
    message
}

/// A message of the kernel about a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A task was created: a process, if both numbers are the same, else a thread.
    Forked {
        /// The new task.
        task: u32,
        /// Its process.
        process: u32,
    },
    /// A process runs another program, in what is now its only thread.
    Executed {
        /// The process.
        process: u32,
    },
    /// A task has exited; all of a process that ends together have the same status.
    Exited {
        /// The task.
        task: u32,
        /// Its process.
        process: u32,
        /// The wait status.
        status: i32,
    },
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

/// The messages in a datagram, without those that are cut off or of another kind.
fn parse(mut datagram: &[u8]) -> Vec<Change> {
    let mut changes = Vec::new();
    while let Some(length) = number(datagram, 0) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(message) = datagram.get(..length).filter(|_| length >= NETLINK) else {
            break;
        };
        changes.extend(change(message));
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    changes
}

/// One message, with its `struct nlmsghdr`.
fn change(message: &[u8]) -> Option<Change> {
    let is_event = half(message, 4)? == DONE
        && number(message, NETLINK)? == GROUP
        && number(message, NETLINK + 4)? == LISTEN;
    let length = half(message, NETLINK + 16)?;
    let event = message.get(NETLINK + MESSAGE..)?;
    let event = event.get(..length.into()).filter(|_| is_event)?;
    let field = |index: usize| number(event, DATA + 4 * index);
    Some(match number(event, 0)? {
        FORK => Change::Forked {
            task: field(2)?,
            process: field(3)?,
        },
        EXEC => Change::Executed { process: field(1)? },
        EXIT => Change::Exited {
            task: field(0)?,
            process: field(1)?,
            status: field(2)?.cast_signed(),
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as the kernel sends it: `struct nlmsghdr`, `struct cn_msg`, `struct proc_event`.
    fn message(what: u32, fields: [u32; 6]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |number: u32| bytes.extend(number.to_ne_bytes());
        put(76);
        // NLMSG_DONE, no flags; sequence; the kernel.
        put(3);
        put(7);
        put(0);
        // CN_IDX_PROC, CN_VAL_PROC; sequence; no acknowledgement; 40 bytes.
        for number in [1, 1, 7, 0, 40] {
            put(number);
        }
        // The processor, and the time.
        for number in [what, 1, 0, 0] {
            put(number);
        }
        fields.into_iter().for_each(put);
        bytes
    }

    const EXITED: [u32; 6] = [12, 10, 0x0300, 17, 1, 1];

    #[test]
    fn messages_are_read_as_the_kernel_writes_them() {
        let fork = message(FORK, [1, 1, 12, 10, 0, 0]);
        let exec = message(EXEC, [10, 10, 0, 0, 0, 0]);
        let exit = message(EXIT, EXITED);
        let (task, process) = (12, 10);
        let exited = Change::Exited {
            task,
            process,
            status: 0x300,
        };
        assert_eq!(parse(&fork), [Change::Forked { task, process }]);
        assert_eq!(parse(&exec), [Change::Executed { process }]);
        assert_eq!(parse(&exit), [exited]);
        let all = [fork, exec, exit].concat();
        assert_eq!(
            parse(&all),
            [
                Change::Forked { task, process },
                Change::Executed { process },
                exited
            ]
        );
    }

    #[test]
    fn a_message_that_is_cut_off_or_of_another_kind_says_nothing() {
        let exit = message(EXIT, EXITED);
        for length in 0..exit.len() {
            assert_eq!(parse(&exit[..length]), [], "{length} bytes");
        }
        let changed = |at: usize, value: u8| {
            let mut other = exit.clone();
            other[at] = value;
            parse(&other)
        };
        let little =
            |at: usize, value: u8| cfg!(target_endian = "big") || changed(at, value).is_empty();
        // Longer and shorter than it is, no length at all, and one that leads nowhere.
        for length in [0, 1, 15, 16, 35, 36, 60, 63, 77, 255] {
            assert!(little(0, length), "{length}");
        }
        assert!(little(4, 2), "an error");
        assert!(little(16, 2), "another connector");
        assert!(little(20, 2), "another value of it");
        for length in [0, 1, 16, 27, 41, 255] {
            assert!(little(32, length), "{length} bytes of event");
        }
        // PROC_EVENT_NONE is the answer to the subscription; UID, PTRACE and COREDUMP tell nothing
        // that is asked for.
        for what in [0, 4, 0x100, 0x4000_0000, 0x8000_0001] {
            assert_eq!(parse(&message(what, EXITED)), []);
        }
        // The bytes behind a message of another kind are read; garbage behind a good one does
        // no harm.
        let mut both = message(0, EXITED);
        both.extend(&exit);
        both.extend([0; 3]);
        assert_eq!(parse(&both).len(), 1);
    }
}
