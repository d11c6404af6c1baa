//! A client: it takes names, uses what it holds and gives it up, at random, and knows what each
//! call must answer.

mod own;
mod wanted;

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;

use libc::{EEXIST, ENODATA, ENOENT, O_CREAT, O_EXCL, O_RDONLY, O_WRONLY};

use crate::shared::{OWN, Shared, WANTED};
use crate::support::dice::Dice;
use crate::support::memory::clock;
use crate::world::{Body, World};

/// The result of a system call, or its errno.
type Answer<T> = Result<T, i32>;

pub struct Client {
    shared: &'static Shared,
    file: PathBuf,
    slot: usize,
    incarnation: u64,
    session: String,
    registrations: u32,
    dice: Dice,
    world: World,
    /// A descriptor that is kept open on a file, which may have lost its name meanwhile.
    kept: Option<(i32, u64)>,
    /// The wanted name that it holds.
    held: Option<usize>,
    trail: VecDeque<String>,
    written: u64,
}

/// Works until the test is over.
pub fn serve(file: &Path, seed: u64, incarnation: u64) {
    let mut client = Client {
        shared: Shared::open(file),
        file: file.into(),
        slot: (incarnation & 0xFF) as usize,
        incarnation,
        session: std::env::var("CLAIMFS_SESSION").unwrap(),
        registrations: 0,
        dice: Dice::new(seed),
        world: World::default(),
        kept: None,
        held: None,
        trail: VecDeque::new(),
        written: 0,
    };
    client.live();
}

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn contended(path: &str) -> Option<usize> {
    path.strip_prefix("claims/n")?.parse().ok()
}

fn errno(code: i32) -> String {
    match code {
        0 => String::from("success"),
        code => io::Error::from_raw_os_error(code).to_string(),
    }
}

impl Client {
    fn live(&mut self) {
        if self.dice.below(2) == 0 {
            self.register();
        }
        while self.shared.stop.load(SeqCst) == 0 {
            match self.dice.below(400) {
                0..70 if self.held.is_none() => self.take(),
                70..130 if self.held.is_some() => self.give_up(),
                130..145 => self.poke(),
                145..147 => {
                    self.clear();
                    self.register();
                }
                147..165 => self.control(),
                _ => self.change(),
            }
        }
        let all: Vec<String> = self.world.names.keys().cloned().collect();
        for path in &all {
            self.verify(path);
        }
        self.clear();
    }

    fn fail(&self, what: &str) -> ! {
        let trail: Vec<&str> = self.trail.iter().map(String::as_str).collect();
        let (incarnation, session) = (self.incarnation >> 8, &self.session);
        let text = format!(
            "client {}.{incarnation} ({session}): {what}\n  {}",
            self.slot,
            trail.join("\n  ")
        );
        self.shared.fail(&self.file, text);
        std::process::exit(1);
    }

    /// Makes a call, and counts how long it took if it is not one that waits for others.
    fn attempt(&mut self, what: &str, call: impl FnOnce() -> i64) -> Answer<i64> {
        let start = clock();
        let result = call();
        let error = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        let took = clock() - start;
        if !what.starts_with("wait") {
            self.shared.took(took);
        }
        let answer = if result < 0 { Err(error) } else { Ok(result) };
        let said = errno(answer.err().unwrap_or(0));
        let at = self.shared.now() / 1000;
        self.trail
            .push_back(format!("{at} us: {what}: {said} after {} us", took / 1000));
        if self.trail.len() > 16 {
            self.trail.pop_front();
        }
        answer
    }

    /// Makes a call that must answer just this.
    fn expect(&mut self, what: &str, want: i32, call: impl FnOnce() -> i64) -> i64 {
        let answer = self.attempt(what, call);
        let got = answer.err().unwrap_or(0);
        if got != want {
            self.fail(&format!("{what}: {}, expected {}", errno(got), errno(want)));
        }
        answer.unwrap_or(-1)
    }

    fn same<T: PartialEq + std::fmt::Debug>(&self, what: &str, got: &T, want: &T) {
        if got != want {
            self.fail(&format!("{what} is {got:?}, expected {want:?}"));
        }
    }

    // Looking.

    fn open(&mut self, path: &str, flags: i32, want: i32) -> i32 {
        let file = c(path);
        self.expect(&format!("open({path}, {flags:#x})"), want, || unsafe {
            i64::from(libc::open(file.as_ptr(), flags, 0o644))
        }) as i32
    }

    fn close(&mut self, fd: i32) {
        self.expect("close", 0, || i64::from(unsafe { libc::close(fd) }));
    }

    fn read(&mut self, path: &str) -> Vec<u8> {
        let fd = self.open(path, O_RDONLY, 0);
        let bytes = self.read_on(fd, path);
        self.close(fd);
        bytes
    }

    fn read_on(&mut self, fd: i32, path: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let mut buffer = vec![0_u8; 16384];
            let (at, offset) = (buffer.as_mut_ptr().cast(), bytes.len() as i64);
            let count = self.expect(&format!("pread({path}, {offset})"), 0, || unsafe {
                libc::pread(fd, at, 16384, offset) as i64
            });
            if count == 0 {
                return bytes;
            }
            bytes.extend_from_slice(&buffer[..count as usize]);
        }
    }

    fn stat(&mut self, path: &str, want: i32) -> libc::stat {
        let (file, mut stat) = (c(path), unsafe { std::mem::zeroed() });
        let at = &raw mut stat;
        self.expect(&format!("lstat({path})"), want, || unsafe {
            i64::from(libc::lstat(file.as_ptr(), at))
        });
        stat
    }

    fn tag(&mut self, path: &str, name: &str, want: i32) -> String {
        let (file, key, mut buffer) = (c(path), c(name), [0_u8; 256]);
        let at = buffer.as_mut_ptr().cast();
        let what = format!("getxattr({path}, {name})");
        let count = self.expect(&what, want, || unsafe {
            libc::lgetxattr(file.as_ptr(), key.as_ptr(), at, 256) as i64
        });
        String::from_utf8_lossy(&buffer[..count.max(0) as usize]).into_owned()
    }

    /// Compares what is at a path with what the model says.
    fn verify(&mut self, path: &str) {
        let Some(node) = self.world.at(path).cloned() else {
            // A wanted name that is not one's own is anybody's.
            if contended(path).is_none() {
                self.stat(path, ENOENT);
            }
            return;
        };
        let stat = self.stat(path, 0);
        let nlink = self.world.nlink(path);
        self.same(&format!("nlink of {path}"), &stat.st_nlink, &nlink);
        if let Some(mode) = node.mode {
            self.same(&format!("mode of {path}"), &(stat.st_mode & 0o777), &mode);
        }
        let kind = match &node.body {
            Body::File(body) => {
                self.verify_body(path, body, stat.st_size as usize);
                libc::S_IFREG
            }
            Body::Directory => {
                let name =
                    |entry: io::Result<DirEntry>| Ok(entry?.file_name().into_string().unwrap());
                let names = fs::read_dir(path).and_then(|list| list.map(name).collect());
                let mut names: Vec<String> = names.unwrap_or_else(|error: io::Error| {
                    self.fail(&format!("readdir({path}): {error}"))
                });
                names.sort();
                self.same(
                    &format!("list of {path}"),
                    &names,
                    &self.world.children(path),
                );
                libc::S_IFDIR
            }
            Body::Symlink(target) => {
                let (file, mut buffer) = (c(path), [0_u8; 256]);
                let at = buffer.as_mut_ptr().cast();
                let count = self.expect(&format!("readlink({path})"), 0, || unsafe {
                    libc::readlink(file.as_ptr(), at, 256) as i64
                });
                let got = &buffer[..count as usize];
                self.same(&format!("target of {path}"), &got, &target.as_bytes());
                libc::S_IFLNK
            }
        };
        let got = stat.st_mode & libc::S_IFMT;
        self.same(&format!("kind of {path}"), &got, &kind);
        if !matches!(node.body, Body::Symlink(_)) {
            let want = if node.tag.is_some() { 0 } else { ENODATA };
            let tag = self.tag(path, "user.k", want);
            self.same("user.k", &tag, &node.tag.unwrap_or_default());
        }
        if is_claim(path) {
            self.token(path, false);
        }
    }

    fn verify_body(&mut self, path: &str, body: &[u8], size: usize) {
        self.same(&format!("size of {path}"), &size, &body.len());
        let got = self.read(path);
        // A blank claim reads as its record.
        if body.is_empty() && is_claim(path) {
            let mine = format!("\"session\":\"{}\"", self.session);
            let text = String::from_utf8_lossy(&got);
            if !text.contains(&mine) {
                self.fail(&format!("record of {path} is {text:?}"));
            }
        } else {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            self.same(&format!("body of {path}"), &text(&got), &text(body));
        }
    }

    /// The token of a name, which rises from grant to grant, and else is what it was.
    fn token(&mut self, path: &str, is_new: bool) -> u64 {
        let node = self.world.names[path];
        let is_symlink = matches!(self.world.nodes[&node].body, Body::Symlink(_));
        let text = if self.world.links(node) == 1 && !is_symlink {
            self.tag(path, "user.claimfs.token", 0)
        } else {
            let leases = String::from_utf8(self.read("leases")).unwrap();
            let (name, session) = (&path[7..], &self.session);
            let start = format!("{{\"name\":\"{name}\",\"session\":\"{session}\",\"token\":");
            let rest = leases.lines().find_map(|line| line.strip_prefix(&start));
            let rest = rest.unwrap_or_else(|| self.fail(&format!("no {start} in {leases}")));
            rest[..rest.find(',').unwrap()].to_owned()
        };
        let token: u64 = text.parse().unwrap();
        let own =
            || WANTED + self.slot * OWN + path["claims/p0-".len()..].parse::<usize>().unwrap();
        let number = contended(path).unwrap_or_else(own);
        let before = self.shared.token[number].fetch_max(token, SeqCst);
        if is_new && token <= before || !is_new && token != before {
            self.fail(&format!("token {token} of {path} after {before}"));
        }
        self.shared.granted.insert(token);
        token
    }

    // The names that other clients want too.

    /// A name is this client's.
    fn is_granted(&mut self, path: &str) {
        if let Some(name) = contended(path).filter(|name| self.held != Some(*name)) {
            let word = &self.shared.owner[name];
            let owner = word.load(SeqCst);
            let killed = self.shared.killed[(owner & 0xFF) as usize].load(SeqCst);
            let free = owner == 0 || killed >= owner;
            if !free
                || word
                    .compare_exchange(owner, self.incarnation, SeqCst, SeqCst)
                    .is_err()
            {
                let (slot, incarnation) = (owner & 0xFF, owner >> 8);
                self.fail(&format!(
                    "{path} was granted twice: client {slot}.{incarnation} holds it"
                ));
            }
            self.held = Some(name);
        }
        if is_claim(path) {
            self.shared.grants.fetch_add(1, SeqCst);
            self.token(path, true);
        }
    }

    /// A name is about to be given up.
    fn is_leaving(&mut self, path: &str) {
        if let Some(name) = contended(path) {
            let word = &self.shared.owner[name];
            let taken = word.compare_exchange(self.incarnation, 0, SeqCst, SeqCst);
            if let Err(owner) = taken {
                self.fail(&format!("{path} was granted to {owner:#x} meanwhile"));
            }
        }
    }

    fn has_left(&mut self, path: &str) {
        if let Some(name) = contended(path) {
            self.held = None;
            self.shared.suitors[name][self.slot].store(0, SeqCst);
        }
    }

    fn kept_node(&self) -> Option<u64> {
        self.kept.map(|(_, node)| node)
    }

    // Sessions.

    /// Gives up all that it holds.
    fn clear(&mut self) {
        self.close_kept();
        let all: Vec<String> = self.world.names.keys().rev().cloned().collect();
        for path in all {
            while self.world.at(&path).is_some() {
                self.remove(&path);
            }
            self.verify(&path);
        }
    }

    /// Becomes another session.
    fn register(&mut self) {
        self.registrations += 1;
        let number = self.incarnation >> 8;
        let id = format!("r{}-{number}-{}", self.slot, self.registrations);
        let path = format!("sessions/{id}");
        let fd = self.open(&path, O_WRONLY | O_CREAT | O_EXCL, 0);
        let line = format!("{}\n", std::process::id());
        let (at, size) = (line.as_ptr().cast(), line.len());
        self.expect(&format!("write({path}, {line:?})"), 0, || unsafe {
            libc::write(fd, at, size) as i64
        });
        self.close(fd);
        self.session = id;
        let me = String::from_utf8(self.read("self")).unwrap();
        if !me.starts_with(&format!("{{\"session\":\"{}\"", self.session)) {
            self.fail(&format!(
                "registered as {}, but self says {me}",
                self.session
            ));
        }
        self.open(&path, O_WRONLY | O_CREAT | O_EXCL, EEXIST);
    }
}

/// Whether a path is that of a claim, and not of what is inside one.
fn is_claim(path: &str) -> bool {
    path.matches('/').count() == 1
}
