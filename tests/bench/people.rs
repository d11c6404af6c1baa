//! Processes that hold leases, for the benches of scale and of liveness. All of them end with the
//! bench.

use std::ffi::CString;
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;
use std::{env, io};

use crate::measure::{EXCLUSIVE, c_path, claim, claim_and_release, micros};

/// A process of this program in a session of its own, which does what it is told a line at a time
/// and answers each with a line.
pub struct Helper {
    child: Child,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Helper {
    /// One that plays a part in a directory.
    pub fn start(part: &str, session: &str, dir: &Path) -> Self {
        Self::spawn(part, dir, |command| {
            command.env("CLAIMFS_SESSION", session);
        })
    }

    /// One that is known by its POSIX session.
    pub fn start_in_terminal(part: &str, dir: &Path) -> Self {
        Self::spawn(part, dir, |command| {
            crate::common::in_own_session(command);
        })
    }

    fn spawn(part: &str, dir: &Path, known_by: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["part", part]).arg(dir);
        for variable in crate::support::SESSION_VARIABLES {
            command.env_remove(variable);
        }
        known_by(&mut command);
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, answers }
    }

    pub fn tell(&mut self, order: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{order}").unwrap();
    }

    pub fn answer(&mut self) -> f64 {
        self.answers.next().unwrap().unwrap().parse().unwrap()
    }

    pub fn ask(&mut self, order: &str) -> f64 {
        self.tell(order);
        self.answer()
    }

    /// Ends it by SIGKILL, and waits until it is dead.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// If this process is to play a part, it does, and that is all it does.
pub fn is_helper() -> bool {
    let mut words = env::args().skip_while(|word| word != "part").skip(1);
    let (Some(part), Some(dir)) = (words.next(), words.next().map(PathBuf::from)) else {
        return false;
    };
    let mut sleepers = Vec::new();
    for order in io::stdin().lines() {
        let order = order.unwrap();
        let answer = match part.as_str() {
            "crowd" => grow(&dir, &order),
            "host" => grow_by_lines(&dir, &order),
            "client" => work(&dir, &order),
            "nursery" => sleep(&dir, &order, &mut sleepers),
            part => panic!("{part}: no such part"),
        };
        println!("{answer}");
    }
    for sleeper in sleepers {
        end(sleeper);
    }
    true
}

/// The number of names in a line.
const LINE: usize = 100;

/// The name of a lease of the crowd's.
pub fn lease(number: usize) -> String {
    format!("lease-{number:07}")
}

fn range(order: &str) -> std::ops::Range<usize> {
    let mut numbers = order.split(' ').map(|word| word.parse().unwrap());
    numbers.next().unwrap()..numbers.next().unwrap()
}

/// Claims the names of these numbers: the longest that one took, in microseconds.
fn grow(dir: &Path, order: &str) -> f64 {
    let mut longest = 0.0;
    for number in range(order) {
        let path = c_path(&dir.join("claims").join(lease(number)));
        let start = Instant::now();
        assert!(claim(&path));
        longest = f64::max(longest, micros(start.elapsed()));
    }
    longest
}

/// The same by lines in `control`, which is faster.
fn grow_by_lines(dir: &Path, order: &str) -> f64 {
    let names: Vec<String> = range(order).map(lease).collect();
    let mut longest = 0.0;
    for part in names.chunks(LINE) {
        let line = format!("{{\"claim\":[\"{}\"]}}", part.join("\",\""));
        let start = Instant::now();
        std::fs::write(dir.join("control"), line).unwrap();
        longest = f64::max(longest, micros(start.elapsed()));
    }
    longest
}

/// Claims and releases one name for so many milliseconds: how often in a second.
fn work(path: &Path, order: &str) -> f64 {
    let path = c_path(path);
    let length = f64::from(order.parse::<u32>().unwrap()) * 1e3;
    let (start, mut count) = (Instant::now(), 0_u32);
    while micros(start.elapsed()) < length {
        claim_and_release(&path);
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

/// Brings so many processes to life that each have a session and a lease.
fn sleep(mount: &Path, order: &str, sleepers: &mut Vec<i32>) -> f64 {
    let numbers = range(order);
    for number in numbers.clone() {
        let name = format!("sleeper-{number}");
        sleepers.push(Holder::new(mount, &name, &name).start());
    }
    numbers.len() as f64
}

/// What a forked process does that registers a session of its own, and claims a name for it.
pub struct Holder {
    session: CString,
    lease: CString,
}

impl Holder {
    pub fn new(mount: &Path, session: &str, lease: &str) -> Self {
        Self {
            session: c_path(&mount.join("sessions").join(session)),
            lease: c_path(&mount.join("claims").join(lease)),
        }
    }

    /// Its pid, once it holds the name. It sleeps then, and dies with the thread that made it.
    pub fn start(&self) -> i32 {
        let mut pipe = [0; 2];
        unsafe {
            assert_eq!(libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC), 0);
            let pid = libc::fork();
            assert!(pid >= 0);
            if pid == 0 {
                self.hold(pipe[1]);
            }
            libc::close(pipe[1]);
            let mut byte = 0_u8;
            let count = libc::read(pipe[0], (&raw mut byte).cast(), 1);
            libc::close(pipe[0]);
            assert_eq!((count, byte), (1, b'.'), "a holder has failed");
            pid
        }
    }

    /// In the child of a process that may have more threads: nothing but system calls.
    unsafe fn hold(&self, pipe: i32) -> ! {
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            let mut digits = [b'0'; 10];
            let mut pid = libc::getpid();
            for digit in digits.iter_mut().rev() {
                *digit += u8::try_from(pid % 10).unwrap_or(0);
                pid /= 10;
            }
            let session = libc::open(self.session.as_ptr(), libc::O_WRONLY | libc::O_CREAT, 0o644);
            let written = libc::write(session, digits.as_ptr().cast(), digits.len());
            libc::close(session);
            let lease = libc::open(self.lease.as_ptr(), EXCLUSIVE, 0o644);
            libc::close(lease);
            if written == 10 && lease >= 0 {
                libc::write(pipe, b".".as_ptr().cast(), 1);
            } else {
                libc::write(pipe, b"!".as_ptr().cast(), 1);
            }
            libc::close(pipe);
            loop {
                libc::pause();
            }
        }
    }
}

/// Kills a forked process, and waits until it is dead.
pub fn end(pid: i32) {
    unsafe {
        assert_eq!(libc::kill(pid, libc::SIGKILL), 0);
        assert_eq!(libc::waitpid(pid, std::ptr::null_mut(), 0), pid);
    }
}
