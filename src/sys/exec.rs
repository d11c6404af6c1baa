//! Which program a process runs: whether it has had an exec since it was looked at last, and to
//! which POSIX session it belongs (`process_vm_readv(2)`, getsid(2)).
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};

/// How many bytes the kernel chooses.
const LENGTH: usize = 16;

/// The bytes that the kernel has chosen at random for the last exec of a process, and where it has
/// put them (`AT_RANDOM` of getauxval(3)). Another exec puts others at another address. A program
/// may write other bytes there: then it is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed {
    at: usize,
    bytes: [u8; LENGTH],
}

impl Seed {
    /// That of a process, as of some moment while this runs. `None` if it cannot be read, for which
    /// one must be allowed to trace the process, or if it would prove nothing.
    pub(crate) fn read(pid: u32) -> Option<Self> {
        /// There are about 25 entries of two words each.
        const LONGEST: usize = 2048;
        const WORD: usize = size_of::<usize>();
        /// `AT_RANDOM` of `include/uapi/linux/auxvec.h`.
        const RANDOM: usize = 25;
        let mut vector = Vec::new();
        let file = File::open(format!("/proc/{pid}/auxv")).ok()?;
        file.take(LONGEST as u64).read_to_end(&mut vector).ok()?;
        // Those of a program with shorter words mean nothing here, and are not found.
        let mut words = vector.chunks_exact(WORD).map(|word| {
            let mut bytes = [0; WORD];
            bytes.copy_from_slice(word);
            usize::from_ne_bytes(bytes)
        });
        let at = loop {
            if let (RANDOM, at) = (words.next()?, words.next()?) {
                break at;
            }
        };
        let bytes = peek(pid, at)?;
        // A program may have wiped them, as others have that do so.
        let (first, last) = bytes.split_at(LENGTH / 2);
        let is_random = [first, last]
            .iter()
            .all(|half| half.iter().any(|byte| *byte != 0));
        is_random.then_some(Self { at, bytes })
    }

    /// Whether a process has had no exec since this was read. False if that cannot be found out.
    pub(crate) fn is_of(&self, pid: u32) -> bool {
        peek(pid, self.at) == Some(self.bytes)
    }
}

/// Bytes in the memory of a process.
fn peek(pid: u32, at: usize) -> Option<[u8; LENGTH]> {
    let pid = libc::pid_t::try_from(pid).ok()?;
    let mut bytes = [0; LENGTH];
    let here = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: LENGTH,
    };
    let there = libc::iovec {
        iov_base: std::ptr::without_provenance_mut(at),
        iov_len: LENGTH,
    };
    // SAFETY: the kernel writes at most `LENGTH` bytes to `bytes`, which lives across the call, and
    // reads the memory of another process, or refuses to. rustix has no safe call for it.
    let length = unsafe { libc::process_vm_readv(pid, &raw const here, 1, &raw const there, 1, 0) };
    (usize::try_from(length) == Ok(LENGTH)).then_some(bytes)
}

/// The POSIX session of a process, 0 if it has no number in this pid namespace.
pub(crate) fn posix_session(pid: u32) -> io::Result<u32> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: it takes no pointer. That of rustix takes 0 for a number that no session has.
    let session = unsafe { libc::getsid(pid) };
    u32::try_from(session).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::{Command, Stdio};

    use super::{Seed, posix_session};

    #[test]
    fn a_seed_is_of_one_exec_of_one_process() {
        let own = std::process::id();
        let seed = Seed::read(own).unwrap();
        assert!(seed.is_of(own));
        assert_eq!(Seed::read(own), Some(seed));
        // It has exec'd once when it is started, and once more when it has read a line.
        let mut child = Command::new("sh");
        let mut child = child
            .args(["-c", "echo; read -r line; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut byte = [0];
        let mut answer = || std::io::Read::read_exact(&mut stdout, &mut byte).unwrap();
        let mut say = || std::io::Write::write_all(&mut stdin, b"\n").unwrap();
        answer();
        let before = Seed::read(child.id()).unwrap();
        assert!(before.is_of(child.id()) && !seed.is_of(child.id()));
        say();
        // cat(1) answers.
        say();
        answer();
        let after = Seed::read(child.id()).unwrap();
        assert!(!before.is_of(child.id()) && after.is_of(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!after.is_of(child.id()) && Seed::read(child.id()).is_none());
    }

    #[test]
    fn a_session_is_the_one_that_proc_shows() {
        let stat = std::fs::read("/proc/self/stat").unwrap();
        let stat = crate::process::proc::Stat::parse(&stat).unwrap();
        assert_eq!(posix_session(std::process::id()).unwrap(), stat.sid);
        assert!(posix_session(u32::MAX).is_err());
    }
}
