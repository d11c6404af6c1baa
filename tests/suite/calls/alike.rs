//! A claim is a file: the same calls on one and on a file of tmpfs answer alike, but for a blank
//! one, which reads as its record.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::{F_OK, R_OK, W_OK, X_OK};
use libc::{O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_RDONLY, O_RDWR, O_WRONLY};
use libc::{SEEK_CUR, SEEK_END, SEEK_SET};

use crate::support::{Mount, TempDir};

/// The answers of the calls on one directory.
struct Probe<'a> {
    dir: &'a Path,
    said: Vec<String>,
}

impl Probe<'_> {
    fn path(&self, name: &str) -> CString {
        CString::new(self.dir.join(name).as_os_str().as_bytes()).unwrap()
    }

    fn say(&mut self, what: &str, result: i64) -> i64 {
        let errno = io::Error::last_os_error().raw_os_error();
        let answer = if result < 0 {
            format!("errno {}", errno.unwrap())
        } else {
            result.to_string()
        };
        self.said.push(format!("{what}: {answer}"));
        result
    }

    fn open(&self, name: &str, flags: i32) -> i32 {
        let fd = unsafe { libc::open(self.path(name).as_ptr(), flags, 0o640) };
        assert!(fd >= 0, "{name}: {}", io::Error::last_os_error());
        fd
    }

    fn write(&mut self, fd: i32, text: &str) {
        let count = unsafe { libc::write(fd, text.as_ptr().cast(), text.len()) };
        self.say(&format!("write {text:?}"), count as i64);
    }

    fn pwrite(&mut self, fd: i32, text: &str, at: i64) {
        let count = unsafe { libc::pwrite(fd, text.as_ptr().cast(), text.len(), at) };
        self.say(&format!("pwrite {text:?} at {at}"), count as i64);
    }

    fn seek(&mut self, fd: i32, by: i64, whence: i32) {
        let at = unsafe { libc::lseek(fd, by, whence) };
        self.say(&format!("lseek {by} from {whence}"), at);
    }

    /// read(2) at the position of the descriptor.
    fn read(&mut self, fd: i32, size: usize) {
        let mut buffer = vec![0_u8; size];
        let count = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), size) };
        let count = self.say(&format!("read {size}"), count as i64);
        buffer.truncate(usize::try_from(count).unwrap_or(0));
        self.said.push(format!("{buffer:?}"));
    }

    fn stat(&mut self, name: &str) {
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        let done = unsafe { libc::lstat(self.path(name).as_ptr(), &raw mut stat) };
        self.say(&format!("lstat {name}"), done.into());
        self.said.push(format!(
            "mode {:o} nlink {} size {} uid {} gid {}",
            stat.st_mode, stat.st_nlink, stat.st_size, stat.st_uid, stat.st_gid
        ));
    }

    /// Maps the first page, and says what stands in its first bytes.
    fn map(fd: i32, protection: i32, flags: i32) -> Option<String> {
        let length = 4096;
        let at = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, fd, 0) };
        if at == libc::MAP_FAILED {
            return None;
        }
        let bytes = unsafe { std::slice::from_raw_parts(at.cast::<u8>(), 16) }.to_vec();
        unsafe { libc::munmap(at, length) };
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn bytes(probe: &mut Probe) {
    let fd = probe.open("f", O_RDWR | O_CREAT | O_EXCL);
    probe.write(fd, "hello, world\n");
    for (by, whence) in [(0, SEEK_CUR), (-3, SEEK_END), (7, SEEK_SET), (2, SEEK_CUR)] {
        probe.seek(fd, by, whence);
        probe.read(fd, 3);
    }
    for (by, whence) in [(-1, SEEK_SET), (-99, SEEK_CUR), (5, SEEK_END), (1, 99)] {
        probe.seek(fd, by, whence);
    }
    probe.read(fd, 9);
    // It stands past the end by now: the gap is zeros.
    probe.write(fd, "gap");
    probe.stat("f");
    probe.seek(fd, 10, SEEK_SET);
    probe.read(fd, 99);
    probe.pwrite(fd, "HE", 0);
    probe.pwrite(fd, "x", -1);
    probe.pwrite(fd, "", 500);
    probe.stat("f");
    for size in [4, 40, 8] {
        let done = unsafe { libc::ftruncate(fd, size) };
        probe.say(&format!("ftruncate {size}"), done.into());
        probe.stat("f");
        probe.seek(fd, 0, SEEK_SET);
        probe.read(fd, 99);
    }
    let done = unsafe { libc::ftruncate(fd, -1) };
    probe.say("ftruncate -1", done.into());
    for (mode, offset, length) in [(0, 0, 30), (0, 10, 5), (1, 0, 60), (0, 0, 0), (0, -1, 5)] {
        let done = unsafe { libc::fallocate(fd, mode, offset, length) };
        probe.say(&format!("fallocate {mode} {offset} {length}"), done.into());
        probe.stat("f");
    }
    unsafe { libc::close(fd) };
}

fn appending(probe: &mut Probe) {
    let a = probe.open("a", O_WRONLY | O_APPEND | O_CREAT | O_EXCL);
    let b = probe.open("a", O_RDWR | O_APPEND);
    probe.write(a, "one ");
    probe.write(b, "two ");
    probe.write(a, "three ");
    // As pwrite(2) says under BUGS: with O_APPEND it appends, whatever the offset.
    probe.pwrite(a, "four", 0);
    probe.seek(b, 0, SEEK_CUR);
    probe.seek(b, 0, SEEK_SET);
    probe.read(b, 99);
    probe.read(a, 9);
    let done = unsafe { libc::fcntl(a, libc::F_SETFL, 0) };
    probe.say("no O_APPEND from now on", done.into());
    probe.seek(a, 0, SEEK_SET);
    probe.write(a, "ONE");
    probe.seek(b, 0, SEEK_SET);
    probe.read(b, 99);
    unsafe { (libc::close(a), libc::close(b)) };
}

fn syncing_and_asking(probe: &mut Probe) {
    let fd = probe.open("s", O_RDWR | O_CREAT | O_EXCL);
    let dir = probe.open(".", O_RDONLY | O_DIRECTORY);
    unsafe {
        for (what, fd) in [("file", fd), ("directory", dir)] {
            probe.say(&format!("fsync {what}"), libc::fsync(fd).into());
            probe.say(&format!("fdatasync {what}"), libc::fdatasync(fd).into());
        }
        let mut termios: libc::termios = std::mem::zeroed();
        let asked = libc::ioctl(fd, libc::TCGETS, &raw mut termios);
        probe.say("TCGETS", asked.into());
        probe.say("isatty", libc::isatty(fd).into());
        for mode in [F_OK, R_OK, W_OK, X_OK, R_OK | W_OK] {
            for name in ["s", ".", "none"] {
                let may = libc::access(probe.path(name).as_ptr(), mode);
                probe.say(&format!("access {name} {mode}"), may.into());
            }
        }
        probe.say("chmod", libc::fchmod(fd, 0o4751).into());
        probe.stat("s");
        let may = libc::access(probe.path("s").as_ptr(), X_OK);
        probe.say("access s to execute", may.into());
        let (uid, gid) = (libc::getuid(), libc::getgid());
        probe.say("chown to oneself", libc::fchown(fd, uid, gid).into());
        probe.say(
            "chown to nobody in particular",
            libc::fchown(fd, u32::MAX, u32::MAX).into(),
        );
        let mut fs: libc::statfs = std::mem::zeroed();
        probe.say("fstatfs", libc::fstatfs(fd, &raw mut fs).into());
        probe.said.push(format!(
            "names {}, room {}",
            fs.f_namelen,
            fs.f_bavail > 0 && fs.f_ffree > 0
        ));
        libc::close(fd);
        libc::close(dir);
    }
}

#[test]
fn the_same_calls_answer_as_on_tmpfs() {
    let Some(mount) = Mount::new() else { return };
    let plain = TempDir::in_memory();
    for calls in [bytes, appending, syncing_and_asking] {
        let [here, there] = [mount.path("claims"), plain.path().to_path_buf()].map(|dir| {
            let mut probe = Probe {
                dir: &dir,
                said: Vec::new(),
            };
            calls(&mut probe);
            probe.said
        });
        assert_eq!(here, there);
    }
}

#[test]
fn a_claim_is_mapped_privately_and_shared_mapping_is_enodev() {
    let Some(mount) = Mount::new() else { return };
    let dir = mount.path("claims");
    let mut probe = Probe {
        dir: &dir,
        said: Vec::new(),
    };
    let fd = probe.open("f", O_RDWR | O_CREAT | O_EXCL);
    probe.write(fd, "what was written");
    let (read, write) = (libc::PROT_READ, libc::PROT_WRITE);
    let text = Some(String::from("what was written"));
    assert_eq!(Probe::map(fd, read, libc::MAP_PRIVATE), text);
    assert_eq!(Probe::map(fd, read | write, libc::MAP_PRIVATE), text);
    probe.pwrite(fd, "this", 0);
    assert_eq!(
        Probe::map(fd, read, libc::MAP_PRIVATE).as_deref(),
        Some("this was written")
    );
    assert_eq!(Probe::map(fd, read | write, libc::MAP_SHARED), None);
    assert_eq!(
        io::Error::last_os_error().raw_os_error(),
        Some(libc::ENODEV)
    );
    unsafe { libc::close(fd) };
    // Another process, which only looks, maps it too.
    let file = File::open(dir.join("f")).unwrap();
    assert_eq!(
        Probe::map(file.as_raw_fd(), read, libc::MAP_PRIVATE).as_deref(),
        Some("this was written")
    );
}
