//! Shared by the benches of scale and of liveness: calls, quantiles, what the kernel says
//! of a process, and a table of targets.

use std::ffi::CString;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

pub const EXCLUSIVE: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;

pub fn c_path(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

/// Claims a name and closes it. Whether it was granted; an error other than EEXIST is a panic.
pub fn claim(path: &CString) -> bool {
    let fd = unsafe { libc::open(path.as_ptr(), EXCLUSIVE, 0o644) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "{path:?}");
        return false;
    }
    unsafe { libc::close(fd) };
    true
}

pub fn release(path: &CString) {
    assert_eq!(unsafe { libc::unlink(path.as_ptr()) }, 0, "{path:?}");
}

pub fn claim_and_release(path: &CString) {
    assert!(claim(path));
    release(path);
}

/// Microseconds a call, of so many.
pub fn time(calls: u32, mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        call();
    }
    micros(start.elapsed()) / f64::from(calls)
}

pub fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}

/// The value below which so many of a thousand lie.
pub fn quantile(figures: &mut [f64], thousandths: usize) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[(figures.len() * thousandths / 1000).min(figures.len() - 1)]
}

pub fn median(figures: &mut [f64]) -> f64 {
    quantile(figures, 500)
}

/// The bound of a figure.
#[derive(Clone, Copy)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// It is only told.
    Told,
}

pub fn heading() {
    println!("{:76} {:>12} {:>10}", "what", "figure", "target");
}

/// A line of the table.
pub fn line(what: &str, figure: f64, target: Target) {
    let (target, reached) = match target {
        Target::AtMost(most) => (format!("<= {most}"), Some(figure <= most)),
        Target::AtLeast(least) => (format!(">= {least}"), Some(figure >= least)),
        Target::Told => (String::new(), None),
    };
    let verdict = match reached {
        Some(true) => "reached",
        Some(false) => "NOT REACHED",
        None => "",
    };
    println!("{what:76} {figure:12.2} {target:>10} {verdict}");
}

/// A number in a file of `/proc` or of the mount, after this word at the beginning of a line.
pub fn number(file: &Path, word: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let rest = text.lines().find_map(|line| line.strip_prefix(word));
    let number = rest.and_then(|rest| rest.split_whitespace().next());
    number.unwrap().parse().unwrap()
}

/// The memory of a process that is its own and no file's, in bytes.
pub fn memory(pid: u32) -> f64 {
    let kib = number(Path::new(&format!("/proc/{pid}/status")), "RssAnon:");
    kib as f64 * 1024.0
}

/// How often the tasks of a process have been given a CPU and lost it again.
pub fn switches(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = tasks.map(|task| task.unwrap().path().join("status"));
    status
        .map(|status| {
            number(&status, "voluntary_ctxt_switches:")
                + number(&status, "nonvoluntary_ctxt_switches:")
        })
        .sum()
}

/// The bytes of the files of a directory.
pub fn size(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).unwrap();
    // One may be renamed meanwhile.
    let sizes = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len()));
    sizes.sum()
}
