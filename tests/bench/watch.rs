//! The inotify events of a directory.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::measure::c_path;

/// How long nothing comes before it is over.
const QUIET: Duration = Duration::from_secs(5);

pub struct Told {
    pub names: usize,
    pub last: Option<Instant>,
}

/// Counts the names that go and that begin like this, until none has gone for a while after one
/// has.
pub fn start(dir: &Path, prefix: &'static str) -> JoinHandle<Told> {
    let mut inotify = unsafe {
        let fd = libc::inotify_init1(libc::IN_CLOEXEC);
        assert!(fd >= 0);
        assert!(libc::inotify_add_watch(fd, c_path(dir).as_ptr(), libc::IN_DELETE) >= 0);
        File::from_raw_fd(fd)
    };
    thread::spawn(move || {
        let (mut told, mut buffer) = (
            Told {
                names: 0,
                last: None,
            },
            vec![0_u8; 65_536],
        );
        loop {
            let mut poll = libc::pollfd {
                fd: inotify.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            let ready = unsafe { libc::poll(&raw mut poll, 1, 1000) };
            if told.last.is_some_and(|last| last.elapsed() > QUIET) {
                return told;
            }
            if ready == 1 {
                let length = inotify.read(&mut buffer).unwrap();
                let names = count(&buffer[..length], prefix.as_bytes());
                if names > 0 {
                    told.names += names;
                    told.last = Some(Instant::now());
                }
            }
        }
    })
}

/// inotify(7): each event has 16 bytes, the last four of which say how long the name is that
/// follows.
fn count(mut events: &[u8], prefix: &[u8]) -> usize {
    let mut names = 0;
    while let Some((head, rest)) = events.split_first_chunk::<16>() {
        let length = u32::from_ne_bytes(*head.last_chunk().unwrap());
        let (name, rest) = rest.split_at(length.try_into().unwrap());
        names += usize::from(name.starts_with(prefix));
        events = rest;
    }
    names
}
