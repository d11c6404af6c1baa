//! The stages that each client passes, on any filesystem.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::clients::{Client, LOCK_CLIENT};
use crate::process::Process;
use crate::support::{Mount, PATIENCE, TempDir, names, plain, program, root_or_skip, skip};

/// A directory for locks, and a place elsewhere for what a client needs besides.
pub struct Place<'a> {
    pub locks: &'a Path,
    pub scratch: TempDir,
    pub mount: Option<&'a Mount>,
}

/// Why a stage is not as it must be, with what the clients said.
type Checked<T> = Result<T, String>;

impl<'a> Place<'a> {
    pub fn new(locks: &'a Path, mount: Option<&'a Mount>) -> Self {
        Self {
            locks,
            scratch: TempDir::new(),
            mount,
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = match words[0] {
            LOCK_CLIENT => Command::new(program(LOCK_CLIENT)),
            word => Command::new(word),
        };
        command
            .args(&words[1..])
            .current_dir(self.locks)
            .env("SCRATCH", self.scratch.path())
            .env("HOME", self.scratch.path())
            .env("LC_ALL", "C");
        command
    }

    fn play(&self, client: &Client, role: &str) -> Process {
        let mut command = self.command(client.words);
        command
            .arg(role)
            .env("TAKE", client.take)
            .env("GIVE", client.give)
            .envs(client.variables.iter().copied());
        Process::spawn(&mut command)
    }

    fn hold(&self, client: &Client) -> Checked<Process> {
        let mut holder = self.play(client, "hold");
        if holder.says("held", PATIENCE) {
            Ok(holder)
        } else {
            Err(format!("the holder got nothing: {}", holder.text))
        }
    }

    /// All there is to see of an entry.
    fn look(&self, name: &str) -> Checked<Entry> {
        let path = self.locks.join(name);
        let meta = fs::symlink_metadata(&path).map_err(|error| format!("{name}: {error}"))?;
        let body = if meta.is_symlink() {
            let target = fs::read_link(&path).map_err(|error| format!("{name}: {error}"))?;
            target.into_os_string().into_encoded_bytes()
        } else if meta.is_dir() {
            names(&path).join("\n").into_bytes()
        } else {
            fs::read(&path).map_err(|error| format!("{name}: {error}"))?
        };
        Ok(Entry {
            inode: meta.ino(),
            mode: meta.mode(),
            links: meta.nlink(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            body,
            record: self.mount.and_then(|mount| record(mount, name)),
        })
    }

    /// A contender is refused in the client's own words, and changes nothing.
    pub fn contend(&self, client: &Client) -> Checked<Process> {
        let holder = self.hold(client)?;
        let (before, there) = (self.look(client.entry)?, names(self.locks));
        let mut other = self.play(client, "try");
        let code = other.exit();
        let text = &other.text;
        let (busy, says) = client.busy;
        let own = if says.is_empty() {
            text.is_empty()
        } else {
            text.contains(says)
        };
        if code != Some(busy) || !own {
            return Err(format!("the contender's answer is {code:?}: {text}"));
        }
        let (after, left) = (self.look(client.entry)?, names(self.locks));
        if before != after || there != left {
            return Err(format!(
                "a contender changed {before:?} among {there:?} to {after:?} among {left:?}"
            ));
        }
        Ok(holder)
    }

    /// A release frees the lock for the next client, though the holder lives on.
    pub fn release(&self, client: &Client, mut holder: Process) -> Checked<()> {
        holder.tell("release");
        if !holder.says("released", PATIENCE) {
            return Err(format!("the holder did not release: {}", holder.text));
        }
        let mut other = self.play(client, "try");
        match other.exit() {
            Some(0) => Ok(()),
            code => Err(format!("after the release: {code:?}, {}", other.text)),
        }
    }

    /// How long after the SIGKILL of the holder and its process group a contender that waits has
    /// the lock: None is longer than the patience given.
    pub fn crash(&self, client: &Client, patience: Duration) -> Checked<Option<Duration>> {
        let mut holder = self.hold(client)?;
        let mut other = self.play(client, "wait");
        if !other.says("busy", PATIENCE) {
            return Err(format!("the contender was not refused: {}", other.text));
        }
        let killed = Instant::now();
        holder.kill();
        if !other.says("got", patience) {
            return if other.ended {
                Err(format!("the contender gave up: {}", other.text))
            } else {
                Ok(None)
            };
        }
        let took = killed.elapsed();
        match other.exit() {
            Some(0) => Ok(Some(took)),
            code => Err(format!("the contender then: {code:?}, {}", other.text)),
        }
    }
}

#[derive(Debug, PartialEq)]
struct Entry {
    inode: u64,
    mode: u32,
    links: u64,
    size: u64,
    modified: (i64, i64),
    body: Vec<u8>,
    record: Option<Value>,
}

/// The record of a lease, without what it says of who lives: that the process that made the lock
/// has ended is told once it is known.
fn record(mount: &Mount, name: &str) -> Option<Value> {
    let mut record = mount.record(name)?;
    if let Some(record) = record.as_object_mut() {
        for key in ["alive_pid", "alive_command", "why"] {
            record.remove(key);
        }
    }
    Some(record)
}

impl Client {
    /// Whether it is installed; says so if it is not. Every client has its package in `.ci/run`.
    pub fn installed(&self) -> bool {
        let mut command = Command::new(self.probe[0]);
        command.args(&self.probe[1..]);
        command.envs(self.variables.iter().copied());
        plain(&mut command);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let there = command.status().is_ok_and(|status| status.success());
        if !there {
            skip(&format!("{}: {:?} fails", self.name, self.probe));
        }
        there
    }
}

/// The whole of it, in a mount of its own.
pub fn check(client: &Client) {
    if !client.installed() {
        return;
    }
    if client.options.contains(&"--allow-other") && !root_or_skip("always admit others") {
        return;
    }
    let Some(mount) = Mount::with(client.options) else {
        return;
    };
    let locks = mount.path("claims");
    let place = Place::new(&locks, Some(&mount));
    let name = client.name;
    let holder = match place.contend(client) {
        Ok(holder) => holder,
        Err(problem) => panic!("{name}: {problem}"),
    };
    if let Err(problem) = place.release(client, holder) {
        panic!("{name}: {problem}");
    }
    // Not even what was put aside outlives its session.
    assert_eq!(mount.claims(), [""; 0], "{name}, after the release");
    match place.crash(client, PATIENCE) {
        Ok(Some(took)) => assert!(took < Duration::from_secs(1), "{name}: {took:?}"),
        Ok(None) => panic!("{name}: nobody got the lock of the holder that was killed"),
        Err(problem) => panic!("{name}: {problem}"),
    }
    assert_eq!(mount.claims(), [""; 0], "{name}, after the crash");
}
