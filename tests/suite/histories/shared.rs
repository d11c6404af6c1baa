//! What all processes of the test see: a file in memory, mapped by each of them. It steers them, and proves nothing.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};

/// The clients.
pub const SLOTS: usize = 8;

/// A client holds something.
pub const HOLDS: u64 = 1;
/// A client stands in line.
pub const WAITS: u64 = 2;

#[repr(C)]
pub struct Shared {
    /// Seconds that the wall clock of the server is ahead of the machine's. `clock.c` reads this, at the very beginning.
    pub ahead: AtomicI64,
    /// The clients are to give up what they hold, and end.
    pub stop: AtomicU64,
    /// How many clients have given up all that they knew of, and give nothing to others any more.
    pub idle: AtomicU64,
    /// [`HOLDS`] and [`WAITS`] of each client.
    pub state: [AtomicU64; SLOTS],
    /// The number of the session of each client.
    pub sessions: [AtomicU64; SLOTS],
}

impl Shared {
    /// Makes the file, or opens it if it is there.
    pub fn open(file: impl AsRef<OsStr>) -> &'static Self {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let file = options.open(file.as_ref()).unwrap();
        let size = size_of::<Self>();
        file.set_len(size as u64).unwrap();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let (none, fd) = (std::ptr::null_mut(), file.as_raw_fd());
        // Zeros are a value of it, and it is nothing but atomics.
        unsafe {
            let at = libc::mmap(none, size, access, libc::MAP_SHARED, fd, 0);
            assert_ne!(at, libc::MAP_FAILED, "{}", io::Error::last_os_error());
            &*at.cast::<Self>()
        }
    }

    /// The session of a client.
    pub fn session(&self, slot: usize) -> String {
        format!("c{}", self.sessions[slot].load(SeqCst))
    }
}
