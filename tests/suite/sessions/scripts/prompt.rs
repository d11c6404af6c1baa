//! Typed at a prompt: an interactive shell in a real terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Mount, plain, wait_until};

/// A terminal with an interactive bash in it.
struct Prompt {
    master: File,
    child: Child,
    said: String,
}

impl Prompt {
    fn new(mount: &Mount) -> Self {
        let (mut master, mut slave) = (0, 0);
        let none = std::ptr::null_mut();
        let opened = unsafe {
            libc::openpty(
                &raw mut master,
                &raw mut slave,
                none,
                none.cast(),
                none.cast(),
            )
        };
        assert_eq!(opened, 0);
        let (master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        let mut command = Command::new("bash");
        command
            .args(["--norc", "--noprofile", "-i"])
            .current_dir(&mount.dir)
            .env("PS1", "")
            .env("TERM", "dumb")
            .stdin(Stdio::from(slave.try_clone().unwrap()))
            .stdout(Stdio::from(slave.try_clone().unwrap()))
            .stderr(Stdio::from(slave));
        plain(&mut command);
        unsafe {
            command.pre_exec(|| {
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        unsafe {
            libc::fcntl(
                std::os::fd::AsRawFd::as_raw_fd(&master),
                libc::F_SETFL,
                libc::O_NONBLOCK,
            )
        };
        let child = command.spawn().unwrap();
        let mut prompt = Self {
            master,
            child,
            said: String::new(),
        };
        // Its own echo of what is typed would be taken for an answer.
        prompt.types("stty -echo; echo so$((20 + 3))far", "so23far");
        prompt
    }

    /// Types a line, and waits until the terminal shows this.
    fn types(&mut self, line: &str, until: &str) {
        self.said.clear();
        writeln!(self.master, "{line}").unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.said.contains(until) {
            assert!(Instant::now() < deadline, "{line}: {:?}", self.said);
            let mut buffer = [0; 4096];
            match self.master.read(&mut buffer) {
                Ok(count) => self.said += &String::from_utf8_lossy(&buffer[..count]),
                Err(_) => std::thread::yield_now(),
            }
        }
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn what_is_claimed_at_a_prompt_stays_until_the_terminal_ends() {
    let Some(mount) = Mount::new() else { return };
    let mut prompt = Prompt::new(&mount);
    prompt.types(
        "set -C; : > claims/builtin && mkdir claims/command && cat queue/line && echo do$((1))ne",
        "do1ne",
    );
    let own = u64::from(prompt.child.id());
    assert_eq!(mount.claims(), ["builtin", "command", "line"]);
    for name in mount.claims() {
        let record = mount.record(&name).unwrap();
        assert_eq!(record["pid"], own, "{record}");
    }
    // A script of it is told that the name is taken, and one of another terminal can do nothing.
    prompt.types(
        "sh -c ': > claims/command'; sh -c 'mkdir claims/command'; echo do$((2))ne",
        "do2ne",
    );
    assert!(prompt.said.contains("File exists"), "{}", prompt.said);
    let mut other = Prompt::new(&mount);
    other.types(
        "rm claims/builtin; rmdir claims/command; echo do$((3))ne",
        "do3ne",
    );
    let busy = other.said.matches("Device or resource busy").count();
    assert_eq!(busy, 2, "{}", other.said);
    // The same shell gives back what it has.
    prompt.types(
        "rm claims/builtin; rmdir claims/command; echo do$((4))ne",
        "do4ne",
    );
    assert_eq!(mount.claims(), ["line"]);
    other.types(
        ": > claims/builtin; mkdir claims/command; echo do$((5))ne",
        "do5ne",
    );
    assert_eq!(mount.claims(), ["builtin", "command", "line"]);
    // One terminal is closed, the other is left by `exit`.
    writeln!(prompt.master, "exit").unwrap();
    prompt.child.wait().unwrap();
    assert_eq!(mount.claims(), ["builtin", "command"]);
    let Prompt { master, .. } = &other;
    let hung_up = unsafe { libc::kill(other.child.id() as i32, libc::SIGHUP) };
    assert_eq!(hung_up, 0, "{master:?}");
    other.child.wait().unwrap();
    wait_until("all is free", || mount.claims().is_empty());
}
