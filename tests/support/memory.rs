//! A clock and memory that several processes of a test share.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// `CLOCK_MONOTONIC` in nanoseconds.
pub fn clock() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Maps a file as a value that all processes share, and makes the file if it is not there.
///
/// SAFETY: zeros are a value of `T`, and only atomics change it.
pub unsafe fn map<T>(file: &Path) -> &'static T {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    let file = options.open(file).unwrap();
    let size = size_of::<T>();
    file.set_len(size as u64).unwrap();
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let (none, fd) = (std::ptr::null_mut(), file.as_raw_fd());
    unsafe {
        let at = libc::mmap(none, size, access, libc::MAP_SHARED, fd, 0);
        assert_ne!(at, libc::MAP_FAILED, "{}", io::Error::last_os_error());
        &*at.cast::<T>()
    }
}
