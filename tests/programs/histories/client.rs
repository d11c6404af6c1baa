//! A client: it takes names, uses them and gives them up at random, in plain file calls, and writes
//! down what it was told. It judges nothing.
//!
//! The first letter of a name is its kind: `a` is for all ways to take a name but waiting, `q` is
//! waited for in the queue, `t` has a deadline, `g` is given away. Those below `paths/` are
//! reservations, two of which overlap.

use std::ffi::CString;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::sleep;
use std::time::Duration;
use std::{env, fs};

use libc::{O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_WRONLY};

use crate::history::{Answer, Call, Lease, Recorder, leases, whole};
use crate::shared::{HOLDS, SLOTS, Shared, WAITS, in_terminal, is_in_terminal};
use crate::support::dice::Dice;
use crate::support::memory::clock;

/// A claim that this client believes to be its own.
struct Held {
    name: String,
    is_directory: bool,
    /// It has, or had, another name, so an attribute of the file does not speak of this one.
    is_linked: bool,
    /// When it may be over.
    until: Option<u64>,
}

struct Client {
    shared: &'static Shared,
    slot: usize,
    session: String,
    recorder: Recorder,
    dice: Dice,
    held: Vec<Held>,
}

/// Works until the test is over.
pub fn serve(file: &Path, shared: &Path, slot: usize, seed: u64) {
    let mut client = Client {
        shared: Shared::open(shared),
        slot,
        session: env::var("CLAIMFS_SESSION")
            .unwrap_or_else(|_| in_terminal(std::process::id().into())),
        recorder: Recorder::new(file),
        dice: Dice::new(seed),
        held: Vec::new(),
    };
    client.live();
}

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn claim(name: &str) -> CString {
    if name.starts_with("paths/") {
        return c(name);
    }
    c(&format!("claims/{name}"))
}

/// Writes a line to `control`.
fn order(line: &str) -> Answer {
    unsafe {
        let fd = libc::open(c"control".as_ptr(), O_WRONLY);
        let written = answer(libc::write(fd, line.as_ptr().cast(), line.len()) as i64);
        libc::close(fd);
        written
    }
}

/// The result of a system call, as an answer.
fn answer(result: impl Into<i64>) -> Answer {
    if result.into() < 0 {
        Answer::Refused(io::Error::last_os_error().raw_os_error().unwrap_or(-1))
    } else {
        Answer::Done
    }
}

/// The number behind `"token":` in a record.
fn token_in(record: &[u8]) -> Option<u64> {
    let record: Lease = serde_json::from_slice(record).ok()?;
    Some(record.token)
}

impl Client {
    fn live(&mut self) {
        while self.shared.stop.load(SeqCst) == 0 {
            match (self.held.len(), self.dice.below(20)) {
                (_, 0) => self.look(),
                (0, _) => self.take(),
                (1, 1..5) => self.take_at_once(),
                _ => self.use_one(),
            }
            self.show();
            if self.dice.below(3) == 0 {
                sleep(Duration::from_micros(self.dice.below(3000) as u64));
            }
        }
        self.give_up_all();
        // Once nobody gives any more, what was given to it meanwhile is found.
        self.shared.idle.fetch_add(1, SeqCst);
        while self.shared.idle.load(SeqCst) < SLOTS as u64 {
            sleep(Duration::from_millis(1));
        }
        self.look();
        self.give_up_all();
    }

    fn give_up_all(&mut self) {
        while !self.held.is_empty() {
            self.give_up(0);
        }
    }

    fn show(&self) {
        let holds = u64::from(!self.held.is_empty());
        self.shared.state[self.slot].store(holds * HOLDS, SeqCst);
    }

    fn one_of(&mut self, letter: char, count: usize) -> String {
        format!("{letter}{}", self.dice.below(count))
    }

    fn holds(&self, name: &str) -> bool {
        self.held.iter().any(|held| held.name == name)
    }

    fn is_granted(&mut self, name: &str, is_directory: bool) {
        self.held.push(Held {
            name: name.to_owned(),
            is_directory,
            is_linked: false,
            until: None,
        });
        self.show();
    }

    fn take(&mut self) {
        if self.dice.below(5) < 3 {
            return self.take_at_once();
        }
        let name = self.one_of('q', 2);
        self.wait(&name);
    }

    fn take_at_once(&mut self) {
        let name = match self.dice.below(12) {
            10.. => return self.reserve(),
            0..5 => self.one_of('a', 4),
            5 | 6 => self.one_of('q', 2),
            7 | 8 => self.one_of('t', 2),
            _ => self.one_of('g', 2),
        };
        if self.holds(&name) {
            return;
        }
        if self.dice.below(4) == 0 && name.starts_with('a') {
            let file = claim(&name);
            let mkdir = || answer(unsafe { libc::mkdir(file.as_ptr(), 0o755) });
            if self.recorder.record(Call::Mkdir(name.clone()), mkdir) == Answer::Done {
                self.is_granted(&name, true);
            }
            return;
        }
        self.create(&name);
        if name.starts_with('t') && self.holds(&name) {
            self.limit(&name);
        }
    }

    /// Takes a path, one at a time.
    fn reserve(&mut self) {
        if self.held.iter().any(|held| held.name.starts_with("paths/")) {
            return;
        }
        let name = ["paths/h/p/q", "paths/h/r", "paths/h/p"][self.dice.below(3)];
        // Where a directory may be, its existence says nothing of a holder.
        if name != "paths/h/p" && self.dice.below(2) == 0 {
            _ = fs::create_dir_all(Path::new(name).parent().unwrap());
            return self.create(name);
        }
        let line = format!("{{\"reserve\":[\"{}\"]}}\n", &name["paths".len()..]);
        let reserve = || order(&line);
        if self
            .recorder
            .record(Call::Reserve(name.to_owned()), reserve)
            == Answer::Done
        {
            self.is_granted(name, false);
            // For a moment the kernel may take it for the directory that it has replaced.
            self.held.last_mut().unwrap().is_linked = true;
        }
    }

    fn create(&mut self, name: &str) {
        let (file, mut fd) = (claim(name), -1);
        let created = self.recorder.record(Call::Create(name.to_owned()), || {
            fd = unsafe { libc::open(file.as_ptr(), O_RDWR | O_CREAT | O_EXCL, 0o644) };
            answer(fd)
        });
        if created != Answer::Done {
            return;
        }
        self.is_granted(name, false);
        if self.dice.below(2) == 0 {
            // The record, through the very descriptor that the grant gave.
            let read = || {
                let mut record = vec![0_u8; 4096];
                let count = unsafe { libc::pread(fd, record.as_mut_ptr().cast(), 4096, 0) };
                record.truncate(count.max(0) as usize);
                token_in(&record).map_or_else(|| answer(count as i64), Answer::Token)
            };
            self.recorder.record(Call::Token(name.to_owned()), read);
        }
        unsafe { libc::close(fd) };
    }

    fn limit(&mut self, name: &str) {
        let millis = 2 + self.dice.below(60) as u64;
        let (file, key, value) = (claim(name), c"user.claimfs.ttl", format!("{millis}ms"));
        let nanos = millis * 1_000_000;
        let call = Call::Limit {
            name: name.to_owned(),
            nanos,
        };
        let asked = clock();
        let done = self.recorder.record(call, || {
            let (at, size) = (value.as_ptr().cast(), value.len());
            answer(unsafe { libc::setxattr(file.as_ptr(), key.as_ptr(), at, size, 0) })
        });
        if done == Answer::Done {
            let held = self.held.iter_mut().find(|held| held.name == name);
            held.unwrap().until = Some(asked + nanos);
        }
    }

    fn use_one(&mut self) {
        let index = self.dice.below(self.held.len());
        let name = self.held[index].name.clone();
        let held = &self.held[index];
        let is_whole = !held.is_linked && held.until.is_none();
        if name.starts_with('q') && self.dice.below(2) == 0 {
            // The line grows meanwhile.
            sleep(Duration::from_micros(self.dice.below(6000) as u64));
        }
        match (&name[..1], self.dice.below(12)) {
            (_, 0 | 1) if is_whole => self.token(&name),
            ("a", 2 | 3) => self.rename(index),
            ("a", 4) if !held.is_directory => self.link(index),
            ("g", 2..8) => self.give(index),
            ("t", 2..10) => {
                // It does not matter whether it expires or is given up at about that time.
                if held.until.is_some_and(|until| clock() > until) && self.dice.below(2) == 0 {
                    self.held.swap_remove(index);
                }
            }
            _ => self.give_up(index),
        }
    }

    fn token(&mut self, name: &str) {
        let (file, key) = (claim(name), c"user.claimfs.token");
        let read = || {
            let mut value = vec![0_u8; 64];
            let at = value.as_mut_ptr().cast();
            let count = unsafe { libc::getxattr(file.as_ptr(), key.as_ptr(), at, 64) };
            value.truncate(count.max(0) as usize);
            let number = String::from_utf8_lossy(&value).parse();
            number.map_or_else(|_| answer(count as i64), Answer::Token)
        };
        self.recorder.record(Call::Token(name.to_owned()), read);
    }

    fn give_up(&mut self, index: usize) {
        let held = self.held.swap_remove(index);
        let (file, name) = (claim(&held.name), held.name);
        if name.starts_with("paths/") && held.is_linked {
            let line = format!("{{\"unreserve\":[\"{}\"]}}\n", &name["paths".len()..]);
            self.recorder.record(Call::Unlink(name), || order(&line));
        } else if held.is_directory {
            let rmdir = || answer(unsafe { libc::rmdir(file.as_ptr()) });
            self.recorder.record(Call::Rmdir(name), rmdir);
        } else {
            let unlink = || answer(unsafe { libc::unlink(file.as_ptr()) });
            self.recorder.record(Call::Unlink(name), unlink);
        }
    }

    fn rename(&mut self, index: usize) {
        let (from, to) = (self.held[index].name.clone(), self.one_of('a', 4));
        if self.holds(&to) {
            return;
        }
        let replaces = self.dice.below(2) == 0;
        let flags = if replaces { 0 } else { libc::RENAME_NOREPLACE };
        let (old, new, at) = (claim(&from), claim(&to), libc::AT_FDCWD);
        let call = Call::Rename {
            from,
            to: to.clone(),
            replaces,
        };
        let renamed = self.recorder.record(call, || {
            answer(unsafe { libc::renameat2(at, old.as_ptr(), at, new.as_ptr(), flags) })
        });
        if renamed == Answer::Done {
            self.held[index].name = to;
        }
    }

    fn link(&mut self, index: usize) {
        let (from, to) = (self.held[index].name.clone(), self.one_of('a', 4));
        if self.holds(&to) {
            return;
        }
        let (old, new) = (claim(&from), claim(&to));
        let call = Call::Link {
            from,
            to: to.clone(),
        };
        let linked = self.recorder.record(call, || {
            answer(unsafe { libc::link(old.as_ptr(), new.as_ptr()) })
        });
        if linked == Answer::Done {
            self.is_granted(&to, false);
            // Any of its names may be another's by then that this client had linked before.
            self.held.last_mut().unwrap().is_linked = true;
            self.held[index].is_linked = true;
        }
    }

    fn give(&mut self, index: usize) {
        let other = (self.slot + 1 + self.dice.below(SLOTS - 1)) % SLOTS;
        let to = self.shared.session(other);
        let name = self.held[index].name.clone();
        if to == self.session || is_in_terminal(other) {
            return;
        }
        let line = format!("{{\"give\":\"{name}\",\"to\":\"{to}\"}}\n");
        let given = self
            .recorder
            .record(Call::Give { name, to }, || order(&line));
        if given == Answer::Done {
            self.held.swap_remove(index);
        }
    }

    /// Reads `leases`, and takes for its own what was given to it.
    fn look(&mut self) {
        let Answer::Listed(all) = self.recorder.record(Call::Look, || leases("leases")) else {
            return;
        };
        for lease in all {
            let is_given = lease.name.starts_with('g') && lease.session == self.session;
            if is_given && !self.holds(&lease.name) {
                self.is_granted(&lease.name, false);
            }
        }
    }

    /// Waits in the queue until it is served, or gives up.
    fn wait(&mut self, name: &str) {
        let (file, mut fd) = (c(&format!("queue/{name}")), -1);
        self.shared.state[self.slot].fetch_or(WAITS, SeqCst);
        let joined = self.recorder.record(Call::Join(name.to_owned()), || {
            fd = unsafe { libc::open(file.as_ptr(), O_RDONLY) };
            answer(fd)
        });
        if joined != Answer::Done {
            return;
        }
        let (polls, mut patience) = (self.dice.below(2) == 0, 1 + self.dice.below(8));
        while patience > 0 && self.shared.stop.load(SeqCst) == 0 {
            let timeout = if polls {
                self.dice.below(150) as i32
            } else {
                -1
            };
            let read = || await_turn(fd, timeout);
            match self.recorder.record(Call::Await(name.to_owned()), read) {
                Answer::Served => {
                    unsafe { libc::close(fd) };
                    return self.is_granted(name, false);
                }
                Answer::Noted => {}
                _ => patience -= 1,
            }
        }
        let leave = || answer(unsafe { libc::close(fd) });
        self.recorder.record(Call::Leave(name.to_owned()), leave);
        // The kernel tells of a close by itself, later: until then it may be this client's turn.
        let (about, mine) = (
            format!("\"name\":\"{name}\""),
            format!("\"session\":\"{}\"", self.session),
        );
        let is_there = |file: &str| {
            let text = whole(file).unwrap_or_else(|_| format!("{about}{mine}"));
            text.lines()
                .any(|line| line.contains(&about) && line.contains(&mine))
        };
        let gone = || {
            while is_there("waiters") || is_there("leases") {
                sleep(Duration::from_micros(100));
            }
            Answer::Done
        };
        self.recorder.record(Call::Gone(name.to_owned()), gone);
    }
}

/// What a descriptor of `queue/NAME` says next; with a timeout, only if poll(2) finds it readable
/// by then.
fn await_turn(fd: i32, timeout: i32) -> Answer {
    if timeout >= 0 {
        let mut poll = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        match unsafe { libc::poll(&raw mut poll, 1, timeout) } {
            0 => return Answer::Waiting,
            1 => {}
            result => return answer(result),
        }
    }
    let mut text = vec![0_u8; 4096];
    let count = unsafe { libc::read(fd, text.as_mut_ptr().cast(), 4096) };
    match count {
        0 => Answer::Served,
        1.. if text.starts_with(b"waiting ") => Answer::Waiting,
        1.. => Answer::Noted,
        _ => answer(count as i64),
    }
}
