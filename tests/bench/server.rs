//! A server that the bench has started, with a directory of its own, and ends.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::in_own_session;

pub struct Server {
    child: Child,
    pub dir: PathBuf,
}

impl Server {
    /// None if there is no such program.
    pub fn start(
        name: &str,
        parent: &Path,
        command: impl FnOnce(&Path) -> Command,
    ) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("claimfs-bench-{name}-{}-{count}", process::id()));
        fs::create_dir(&dir).unwrap();
        match in_own_session(&mut command(&dir)).spawn() {
            Ok(child) => Some(Self { child, dir }),
            Err(error) => {
                fs::remove_dir(&dir).unwrap();
                assert_eq!(
                    error.kind(),
                    std::io::ErrorKind::NotFound,
                    "{name}: {error}"
                );
                None
            }
        }
    }

    pub fn wait_until(&self, is_ready: impl Fn(&Path) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_ready(&self.dir) {
            assert!(Instant::now() < deadline, "it does not answer");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        _ = fs::remove_dir_all(&self.dir);
    }
}

/// A port that nobody had a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
