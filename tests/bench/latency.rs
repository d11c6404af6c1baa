//! `cargo bench`: what a lookup, a contended claim, and a claim with its release cost, beside the same calls on a bare
//! tmpfs (no protection at all) and a ping-pong over a unix socket (two switches between processes: the floor of any
//! server). Everything is pinned to one CPU and measured in turn in one run; the figures are medians.
#![allow(
    unsafe_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout
)]

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{env, fs, io};

#[path = "common.rs"]
mod common;
#[path = "null.rs"]
mod null;

use common::{mount, mount_with_state, pin};

const ROUNDS: usize = 15;
const CALLS: u32 = 2000;

fn c_path(dir: &Path, name: &str) -> CString {
    CString::new(dir.join(name).to_str().unwrap()).unwrap()
}

const EXCLUSIVE: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;

fn lookup(path: &CString) {
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    assert_eq!(unsafe { libc::lstat(path.as_ptr(), &raw mut stat) }, 0);
}

fn contended(path: &CString) {
    assert_eq!(unsafe { libc::open(path.as_ptr(), EXCLUSIVE, 0o644) }, -1);
    assert_eq!(
        io::Error::last_os_error().raw_os_error(),
        Some(libc::EEXIST)
    );
}

fn claim_and_release(path: &CString) {
    unsafe {
        let fd = libc::open(path.as_ptr(), EXCLUSIVE, 0o644);
        assert!(fd >= 0);
        libc::close(fd);
        assert_eq!(libc::unlink(path.as_ptr()), 0);
    }
}

/// Microseconds a call.
fn time(mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS {
        call();
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS)
}

fn echo() {
    let mut stream = io::stdin();
    let mut byte = [0];
    // Standard input is the socket; it is written to through its own descriptor.
    while stream.read(&mut byte).unwrap() == 1 {
        assert_eq!(unsafe { libc::write(0, byte.as_ptr().cast(), 1) }, 1);
    }
}

/// The null filesystem, in a process of its own.
struct Floor {
    child: std::process::Child,
    dir: PathBuf,
}

impl Floor {
    fn mount() -> Self {
        let dir = env::temp_dir().join(format!("claimfs-bench-null-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let mut server = Command::new(env::current_exe().unwrap());
        server.arg("null").arg(&dir).stdout(Stdio::piped());
        let mut child = server.spawn().unwrap();
        let mut word = [0; 6];
        child.stdout.take().unwrap().read_exact(&mut word).unwrap();
        Self { child, dir }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(&self.dir).status();
        _ = self.child.kill();
        _ = self.child.wait();
        _ = fs::remove_dir(&self.dir);
    }
}

fn main() {
    if env::args().any(|argument| argument == "echo") {
        return echo();
    }
    let mut words = env::args().skip_while(|word| word != "null");
    if let Some(dir) = words.nth(1) {
        return null::serve(Path::new(&dir));
    }
    if !Path::new("/dev/fuse").exists() {
        println!("SKIP: there is no /dev/fuse");
        return;
    }
    pin();
    let server = mount();
    let claims = server.dir.join("mount/claims");
    let other = mount_with_state(Path::new("/dev/shm"));
    let in_memory = c_path(&other.dir.join("mount/claims"), "free");
    let floor = Floor::mount();
    fs::write(floor.dir.join("held"), "").unwrap_or_default();
    let plain = PathBuf::from(format!("/dev/shm/claimfs-bench-{}", std::process::id()));
    fs::create_dir(&plain).unwrap();
    fs::write(plain.join("held"), "\n").unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut echo = Command::new(env::current_exe().unwrap());
    let mut echo = echo
        .arg("echo")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    let mut ping = || {
        ours.write_all(b"x").unwrap();
        ours.read_exact(&mut [0]).unwrap();
    };

    let rows = ["lookup", "contended claim", "claim + release"];
    let mut figures = vec![Vec::new(); 11];
    for _ in 0..ROUNDS {
        for (column, dir) in [&claims, &plain].into_iter().enumerate() {
            let (held, free) = (c_path(dir, "held"), c_path(dir, "free"));
            figures[column].push(time(|| lookup(&held)));
            figures[2 + column].push(time(|| contended(&held)));
            figures[4 + column].push(time(|| claim_and_release(&free)));
        }
        let (held, free) = (c_path(&floor.dir, "held"), c_path(&floor.dir, "free"));
        figures[8].push(time(|| lookup(&held)));
        figures[9].push(time(|| contended(&held)));
        figures[10].push(time(|| claim_and_release(&free)));
        figures[6].push(time(&mut ping));
        figures[7].push(time(|| claim_and_release(&in_memory)));
    }
    echo.kill().unwrap();
    echo.wait().unwrap();
    fs::remove_dir_all(&plain).unwrap();

    let medians: Vec<f64> = figures
        .into_iter()
        .map(|mut figures| {
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        })
        .collect();
    let ping = medians[6];
    println!(
        "pinned to one CPU, median of {ROUNDS} rounds of {CALLS} calls, in microseconds a call"
    );
    println!(
        "{:16} {:>9} {:>9} {:>9} {:>15} {:>20}",
        "", "claimfs", "null", "tmpfs", "claimfs / null", "claimfs / ping-pong"
    );
    for (index, row) in rows.iter().enumerate() {
        let (ours, tmpfs) = (medians[2 * index], medians[2 * index + 1]);
        let null = medians[8 + index];
        println!(
            "{row:16} {ours:9.2} {null:9.2} {tmpfs:9.2} {:>15.2} {:>20.2}",
            ours / null,
            ours / ping
        );
    }
    println!("{:16} {ping:9.2}", "unix ping-pong");
    println!(
        "claim + release with --state-dir on tmpfs: {:.2}, and so {:.2} of that on {}",
        medians[7],
        medians[7] / medians[4],
        env::temp_dir().display()
    );
}
