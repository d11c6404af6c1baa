//! Crowds: many who wait in one line, many lines, many sessions with a deadline, many readers of
//! `events`. Each is a process that does what it is told a line at a time, as those of `people` do.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::{Path, PathBuf};
use std::{env, thread};

use crate::measure::{c_path, claim, median, release};
use crate::people::{Helper, lease};

/// It is told numbers, and answers one.
type Crowd = Box<dyn FnMut(&[usize]) -> f64>;

/// If this process is to be a crowd, it is, and that is all it does.
pub fn is_helper() -> bool {
    let mut words = env::args().skip_while(|word| word != "part").skip(1);
    let (Some(part), Some(dir)) = (words.next(), words.next().map(PathBuf::from)) else {
        return false;
    };
    let mut crowd: Crowd = match part.as_str() {
        "terminal" | "terminals" => {
            let mut line = Line::new(&dir, part == "terminals");
            Box::new(move |order| line.obey(order))
        }
        "descriptors" => Box::new(move |order| descriptors(&dir, order)),
        "lines" => {
            let mut open = Vec::new();
            Box::new(move |order| {
                let places = (open.len()..order[0])
                    .map(|number| File::open(dir.join("queue").join(lease(number))).unwrap());
                open.extend(places.collect::<Vec<_>>());
                0.0
            })
        }
        "remote" => Box::new(move |order| remote(&dir, order[0]..order[1])),
        "readers" => Box::new(move |order| {
            for _ in order[0]..order[1] {
                read(&dir);
            }
            0.0
        }),
        _ => return false,
    };
    raise_limit();
    for order in io::stdin().lines() {
        let order = order.unwrap();
        let numbers: Vec<usize> = order.split(' ').map(|word| word.parse().unwrap()).collect();
        println!("{}", crowd(&numbers));
    }
    true
}

/// A crowd in a POSIX session of its own, and in no other.
pub fn start(part: &str, dir: &Path) -> Helper {
    Helper::start_in_terminal(part, dir)
}

fn raise_limit() {
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
}

/// Microseconds of the monotonic clock.
fn now() -> f64 {
    unsafe {
        let mut now: libc::timespec = std::mem::zeroed();
        assert_eq!(libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now), 0);
        now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3
    }
}

fn pipe() -> [File; 2] {
    let mut pipe = [0; 2];
    unsafe {
        assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
        pipe.map(|fd| File::from_raw_fd(fd))
    }
}

/// Processes that wait in one line, each of which takes its place at the end again once it has
/// had the name.
struct Line {
    queue: CString,
    name: CString,
    /// Each is the first of a session of its own.
    apart: bool,
    count: usize,
    orders: [File; 2],
    moments: [File; 2],
}

/// What a waiter says: that it has its place, that it has the name, and that it releases that.
const PLACE: u8 = 0;
const GRANT: u8 = 1;
const RELEASE: u8 = 2;

impl Line {
    fn new(dir: &Path, apart: bool) -> Self {
        Self {
            queue: c_path(&dir.join("queue/baton")),
            name: c_path(&dir.join("claims/baton")),
            apart,
            count: 0,
            orders: pipe(),
            moments: pipe(),
        }
    }

    /// A line of so many beside the holder, and the median of so many handoffs.
    fn obey(&mut self, order: &[usize]) -> f64 {
        while self.count <= order[0] {
            let is_first = self.count == 0;
            self.join();
            self.expect(PLACE);
            if is_first {
                self.expect(GRANT);
            }
            self.count += 1;
        }
        let mut took: Vec<f64> = (0..order[1]).map(|_| self.hand_on()).collect();
        if took.is_empty() {
            0.0
        } else {
            median(&mut took)
        }
    }

    fn expect(&mut self, what: u8) -> f64 {
        let (said, at) = self.hear();
        assert_eq!(said, what);
        at
    }

    fn hear(&mut self) -> (u8, f64) {
        let mut said = [0; 9];
        self.moments[0].read_exact(&mut said).unwrap();
        (said[0], f64::from_le_bytes(said[1..].try_into().unwrap()))
    }

    /// From the release to the next, once the one that had it waits again.
    fn hand_on(&mut self) -> f64 {
        self.orders[1].write_all(b".").unwrap();
        let mut at = [0.0; 3];
        for _ in 0..3 {
            let (said, moment) = self.hear();
            at[usize::from(said)] = moment;
        }
        at[usize::from(GRANT)] - at[usize::from(RELEASE)]
    }

    fn join(&self) {
        unsafe {
            let pid = libc::fork();
            assert!(pid >= 0);
            if pid == 0 {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if self.apart {
                    libc::setsid();
                }
                self.wait();
            }
        }
    }

    fn say(&self, what: u8, at: f64) {
        let mut said = [what; 9];
        said[1..].copy_from_slice(&at.to_le_bytes());
        (&self.moments[1]).write_all(&said).unwrap();
    }

    /// In a child. It ends with its parent.
    fn wait(&self) -> ! {
        let mut buffer = [0_u8; 999];
        loop {
            let line = unsafe { libc::open(self.queue.as_ptr(), libc::O_RDONLY) };
            assert!(line >= 0);
            self.say(PLACE, now());
            await_end(line, &mut buffer);
            self.say(GRANT, now());
            unsafe { libc::close(line) };
            (&self.orders[0]).read_exact(&mut buffer[..1]).unwrap();
            let at = now();
            release(&self.name);
            self.say(RELEASE, at);
        }
    }
}

fn await_end(line: i32, buffer: &mut [u8]) {
    loop {
        let mut poll = libc::pollfd {
            fd: line,
            events: libc::POLLIN,
            revents: 0,
        };
        let count = unsafe {
            libc::poll(&raw mut poll, 1, -1);
            libc::read(line, buffer.as_mut_ptr().cast(), buffer.len())
        };
        match count {
            0 => return,
            // The mount is gone, and the bench with it.
            ..0 => unsafe { libc::_exit(1) },
            _ => {}
        }
    }
}

/// A line of so many descriptors of this process, all of them polled: the median from its release
/// to the next one, of so many.
fn descriptors(dir: &Path, order: &[usize]) -> f64 {
    let (count, handoffs) = (order[0], order[1]);
    let name = c_path(&dir.join("claims/baton"));
    let mut took = Vec::new();
    while took.len() < handoffs {
        // It would not wait for a name of its own.
        let mut pipes = pipe();
        let holder = unsafe { libc::fork() };
        if holder == 0 {
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::setsid();
            }
            assert!(claim(&name));
            pipes[1].write_all(b".").unwrap();
            loop {
                unsafe { libc::pause() };
            }
        }
        pipes[0].read_exact(&mut [0]).unwrap();
        let epoll = unsafe { libc::epoll_create1(0) };
        let open: Vec<File> = (0..count).map(|_| polled(dir, epoll)).collect();
        unsafe {
            assert_eq!(libc::kill(holder, libc::SIGKILL), 0);
            assert_eq!(libc::waitpid(holder, std::ptr::null_mut(), 0), holder);
        }
        let mut start = now();
        for (at, mut line) in open.into_iter().enumerate() {
            let mut event = libc::epoll_event { events: 0, u64: 0 };
            let fd = line.as_raw_fd();
            loop {
                let count = unsafe { libc::epoll_wait(epoll, &raw mut event, 1, -1) };
                assert_eq!((count, event.u64), (1, id(fd)));
                if line.read(&mut [0; 999]).unwrap() == 0 {
                    break;
                }
            }
            if at > 0 {
                took.push(now() - start);
            }
            drop(line);
            if took.len() >= handoffs {
                break;
            }
            start = now();
            release(&name);
        }
        unsafe { libc::close(epoll) };
        _ = unsafe { libc::unlink(name.as_ptr()) };
    }
    median(&mut took)
}

fn id(fd: i32) -> u64 {
    u64::from(fd.cast_unsigned())
}

fn polled(dir: &Path, epoll: i32) -> File {
    let line = File::open(dir.join("queue/baton")).unwrap();
    let mut event = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: id(line.as_raw_fd()),
    };
    let fd = line.as_raw_fd();
    let added = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
    assert_eq!(added, 0);
    line
}

/// Claims names through `control` for sessions with a deadline, one each.
fn remote(dir: &Path, numbers: std::ops::Range<usize>) -> f64 {
    let mut control = OpenOptions::new()
        .write(true)
        .open(dir.join("control"))
        .unwrap();
    let numbers: Vec<usize> = numbers.collect();
    for some in numbers.chunks(16) {
        let lines = some.iter().map(|number| {
            format!(
                "{{\"claim\":\"remote-{number}\",\"session\":\"far-{number}\",\"seconds\":80000}}\n"
            )
        });
        let lines: String = lines.collect();
        assert_eq!(control.write(lines.as_bytes()).unwrap(), lines.len());
    }
    0.0
}

/// A thread that reads `events` for ever.
fn read(dir: &Path) {
    let mut events = File::open(dir.join("events")).unwrap();
    let reader = thread::Builder::new().stack_size(64 * 1024);
    let reader = reader.spawn(move || {
        let mut buffer = vec![0; 4096];
        while events.read(&mut buffer).is_ok() {}
    });
    reader.unwrap();
}
