//! `cargo bench --bench floods`: what a claim with its release costs a bystander while one other
//! process floods the mount, beside what it costs in peace. The flood has one CPU and the bystander
//! the other; the server runs where it likes. Medians of one run.
#![allow(
    unsafe_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout
)]

use std::ffi::CString;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

#[path = "common.rs"]
mod common;
#[path = "../support/mod.rs"]
mod support;

use common::{mount, pin_to};

const CALLS: usize = 3000;

const FLOODS: [(&str, &str); 8] = [
    (
        "one claim, written to",
        "fd = os.open('claims/f', os.O_CREAT | os.O_WRONLY)\nwhile True: os.pwrite(fd, b'x' * 4096, 0)",
    ),
    (
        "names",
        "while True:\n    for j in range(500): os.close(os.open('claims/f%d' % j, os.O_CREAT | os.O_EXCL))\n    \
         for j in range(500): os.unlink('claims/f%d' % j)",
    ),
    (
        "sessions",
        "i = 0\nwhile True:\n    i += 1\n    fd = os.open('sessions/f%d' % (i % 50), os.O_CREAT | os.O_WRONLY)\n    \
         os.write(fd, str(os.getpid()).encode())\n    os.close(fd)",
    ),
    (
        "places in a line",
        "while True: os.close(os.open('queue/held', os.O_RDONLY))",
    ),
    (
        "control: renewals",
        "line = b'{\"claim\":\"f\",\"session\":\"flood2\",\"seconds\":60}\\n'\nfd = os.open('control', os.O_WRONLY)\n\
         while True: os.write(fd, line)",
    ),
    (
        "control: claims",
        "def say(text):\n    os.write(fd, text)\nfd = os.open('control', os.O_WRONLY)\nwhile True:\n    \
         say(b'{\"claim\":\"g\",\"session\":\"flood3\",\"seconds\":60}\\n')\n    say(b'{\"release\":\"g\",\"session\":\"flood3\"}\\n')",
    ),
    (
        "readers of events",
        "while True: os.close(os.open('events', os.O_RDONLY | os.O_NONBLOCK))",
    ),
    (
        "reads of leases, 1000 held",
        "for j in range(1000): os.close(os.open('claims/f%d' % j, os.O_CREAT | os.O_EXCL))\nwhile True: open('leases').read()",
    ),
];

/// Ends a flood, also on a panic.
struct Flood(Child);

impl Drop for Flood {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn main() {
    if !std::path::Path::new("/dev/fuse").exists() {
        println!("SKIP: there is no /dev/fuse");
        return;
    }
    let server = mount();
    let dir = server.mount();
    let path = CString::new(dir.join("claims/by").to_str().unwrap()).unwrap();
    pin_to(1);
    let measure = || {
        let claim = || unsafe {
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
            let start = Instant::now();
            let fd = libc::open(path.as_ptr(), flags, 0o644);
            assert!(fd >= 0);
            libc::close(fd);
            assert_eq!(libc::unlink(path.as_ptr()), 0);
            start.elapsed().as_secs_f64() * 1e6
        };
        (0..CALLS).map(|_| claim()).collect::<Vec<f64>>()
    };
    measure();
    let (mut in_peace, mut flooded) = (Vec::new(), Vec::new());
    for (what, flood) in FLOODS {
        in_peace.extend(measure());
        let script = format!(
            "import os\nos.sched_setaffinity(0, {{0}})\nprint('begun', flush=True)\n{flood}"
        );
        let mut command = Command::new("python3");
        command
            .args(["-c", &script])
            .current_dir(&dir)
            .env("CLAIMFS_SESSION", "flood");
        let mut flood = Flood(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut word = String::new();
        BufReader::new(flood.0.stdout.take().unwrap())
            .read_line(&mut word)
            .unwrap();
        measure();
        flooded.push((what, measure()));
        drop(flood);
    }
    // Where the threads run makes a difference of three in peace, which lasts for a while: before
    // each flood it is another.
    let (usual, usual_tail) = quantiles(in_peace);
    println!(
        "claim + release of a bystander, microseconds: median and p99 of {CALLS}, and the median to that in peace"
    );
    println!("{:28} {:>9} {:>9} {:>7}", "flood", "median", "p99", "ratio");
    println!(
        "{:28} {usual:9.1} {usual_tail:9.1} {:7.2}",
        "none, before each", 1.0
    );
    for (what, times) in flooded {
        let (median, tail) = quantiles(times);
        println!("{what:28} {median:9.1} {tail:9.1} {:7.2}", median / usual);
    }
}

fn quantiles(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() * 99 / 100])
}
