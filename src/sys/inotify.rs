//! Files that leave a directory (inotify(7)).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
use rustix::io::Errno;

use super::poll::wait_readable;

/// A watch on a directory: it reports that files leave it, and that it goes itself.
#[derive(Debug)]
pub(crate) struct Departures(OwnedFd);

impl Departures {
    /// Watches a directory from now on.
    pub(crate) fn of(dir: &Path) -> io::Result<Self> {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let flags = WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        add_watch(&inotify, dir, flags)?;
        Ok(Self(inotify))
    }

    /// Waits until one of these files has left the directory, or the directory has gone.
    pub(crate) fn wait(&self, files: &[&str]) -> io::Result<()> {
        let itself = ReadFlags::DELETE_SELF
            | ReadFlags::MOVE_SELF
            | ReadFlags::IGNORED
            | ReadFlags::QUEUE_OVERFLOW
            | ReadFlags::UNMOUNT;
        loop {
            wait_readable(&self.0, None)?;
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut events = Reader::new(&self.0, &mut buffer);
            loop {
                match events.next() {
                    Ok(event) => {
                        let left = event.file_name();
                        let is_it = |file: &&str| {
                            left.is_some_and(|left| left.to_bytes() == file.as_bytes())
                        };
                        if event.events().intersects(itself) || files.iter().any(is_it) {
                            return Ok(());
                        }
                    }
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}
