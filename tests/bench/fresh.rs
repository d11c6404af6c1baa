//! A claim by a process that has just been started.

use std::env;
use std::path::Path;
use std::process::{self, Command};

use crate::calls::{c_path, claim_and_release, time};

/// The variable that makes a process of this bench one that claims a path once, and says how many
/// microseconds it took.
const FRESH: &str = "CLAIMFS_BENCH_FRESH";

/// Is that process, if this is to be it.
pub fn play() -> bool {
    let Some(path) = env::var_os(FRESH) else {
        return false;
    };
    let path = c_path(Path::new(&path), "free");
    // The first of such calls loads code, here and in libc; that is no cost of a filesystem.
    let elsewhere = c_path(
        Path::new("/dev/shm"),
        &format!("claimfs-bench-{}", process::id()),
    );
    claim_and_release(&elsewhere);
    println!("{}", time(1, || claim_and_release(&path)));
    true
}

/// A claim with its release by a process that has just been started, in the session of this bench
/// or in one of its own.
pub fn fresh(dir: &Path, session: Option<&str>) -> f64 {
    let mut command = Command::new(env::current_exe().unwrap());
    command.env(FRESH, dir);
    if let Some(session) = session {
        command.env("CLAIMFS_SESSION", session);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().parse().unwrap()
}
