//! The calls that the benches time: calls on a path, and a round trip to another process.

use std::env;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

pub fn c_path(dir: &Path, name: &str) -> CString {
    CString::new(dir.join(name).to_str().unwrap()).unwrap()
}

const EXCLUSIVE: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;

#[allow(dead_code)]
pub fn lookup(path: &CString) {
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    assert_eq!(unsafe { libc::lstat(path.as_ptr(), &raw mut stat) }, 0);
}

pub fn contended(path: &CString) {
    assert_eq!(unsafe { libc::open(path.as_ptr(), EXCLUSIVE, 0o644) }, -1);
    assert_eq!(
        io::Error::last_os_error().raw_os_error(),
        Some(libc::EEXIST)
    );
}

pub fn claim_and_release(path: &CString) {
    unsafe {
        let fd = libc::open(path.as_ptr(), EXCLUSIVE, 0o644);
        assert!(fd >= 0);
        libc::close(fd);
        assert_eq!(libc::unlink(path.as_ptr()), 0);
    }
}

/// `control` of a mount, which is open.
#[allow(dead_code)]
pub struct Control(File);

#[allow(dead_code)]
impl Control {
    pub fn open(mount: &Path) -> Self {
        let control = File::options().write(true).open(mount.join("control"));
        Self(control.unwrap())
    }

    pub fn contended(&self) {
        let refused = (&self.0).write(br#"{"claim":["held"]}"#);
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EBUSY));
    }

    pub fn pair(&self) {
        for line in [r#"{"claim":["free"]}"#, r#"{"release":["free"]}"#] {
            assert_eq!((&self.0).write(line.as_bytes()).unwrap(), line.len());
        }
    }
}

/// Microseconds a call.
pub fn time(calls: u32, mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        call();
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
}

/// A process that sends back each byte: two switches between processes, the floor of any server.
pub struct Echo {
    child: Child,
    stream: UnixStream,
}

impl Echo {
    pub fn start() -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut child = Command::new(env::current_exe().unwrap());
        child.arg("echo").stdin(Stdio::from(OwnedFd::from(theirs)));
        Self {
            child: child.spawn().unwrap(),
            stream: ours,
        }
    }

    pub fn ping(&mut self) {
        self.stream.write_all(b"x").unwrap();
        self.stream.read_exact(&mut [0]).unwrap();
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Is that process, if this is to be it.
pub fn play() -> bool {
    let is_it = env::args().any(|word| word == "echo");
    if is_it {
        let mut stream = io::stdin();
        let mut byte = [0];
        // Standard input is the socket; it is written to through its own descriptor.
        while stream.read(&mut byte).unwrap() == 1 {
            assert_eq!(unsafe { libc::write(0, byte.as_ptr().cast(), 1) }, 1);
        }
    }
    is_it
}
