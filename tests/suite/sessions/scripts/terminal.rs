//! A terminal for the tests to type in: a bash that leads a POSIX session, and answers on a socket.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::shells::{Shell, shlock};
use crate::support::{Mount, plain};

/// The first lines of each terminal. Monitor mode is for what bash does at a prompt: its jobs do
/// not ignore SIGINT. A script reads what it is to do from descriptor 7 and says on 8 that it has
/// claimed.
const PROFILE: &str = r#"
set -m
set -C
ulimit -c unlimited
rm -f "$WORK/$LANE.go" "$WORK/$LANE.said"
mkfifo "$WORK/$LANE.go" "$WORK/$LANE.said"
exec 7<> "$WORK/$LANE.go" 8<> "$WORK/$LANE.said"
begin() {
    (cd "$WORK" && exec "$@") <&7 >&8 2>> "$WORK/$LANE.err" &
    echo $!
    hear
}
hear() { read -r -t 20 -u 8 word; echo "$word"; }
ended() { wait "$1" 2>> "$WORK/$LANE.err"; echo -n "$? "; }
again() { { : >> "$1"; } 2>&1; }
claim() { { : > "$1"; } 2>&1; }
"#;

pub struct Terminal {
    child: Child,
    stream: BufReader<UnixStream>,
    complaints: PathBuf,
}

impl Terminal {
    /// One whose working directory is that of the claims, and whose scripts run in `work`.
    pub fn start(mount: &Mount, work: &Path, name: &str) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let theirs = OwnedFd::from(theirs);
        for dir in ["claims", "queue"] {
            _ = std::os::unix::fs::symlink(mount.path(dir), work.join(dir));
        }
        let complaints = work.join(format!("{name}.err"));
        let errors = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&complaints)
            .unwrap();
        let mut command = Command::new("bash");
        plain(command.args(["--norc", "--noprofile"]));
        let (lock, library) = shlock();
        command
            .current_dir(mount.path("claims"))
            .env("HOME", work)
            .env("WORK", work)
            .env("LANE", name)
            .env("PROBE", work.join("program"))
            .env("SHLOCK", lock)
            .env("LD_LIBRARY_PATH", library)
            .stdin(Stdio::from(theirs.try_clone().unwrap()))
            .stdout(Stdio::from(theirs))
            .stderr(errors);
        let child = command.spawn().unwrap();
        drop(command);
        let stream = BufReader::new(ours);
        let mut terminal = Self {
            child,
            stream,
            complaints,
        };
        terminal.ask(PROFILE).unwrap();
        terminal
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types a command: what it prints.
    pub fn ask(&mut self, command: &str) -> Result<String, String> {
        let typed = writeln!(self.stream.get_mut(), "{command}\necho =end");
        typed.map_err(|error| format!("the terminal has ended: {error}"))?;
        let mut said = String::new();
        loop {
            let start = said.len();
            let read = self.stream.read_line(&mut said);
            match read {
                Ok(count) if count > 0 => {}
                other => return Err(format!("{command}: {said:?}, and then {other:?}")),
            }
            if said[start..].ends_with("=end\n") {
                let end = said.len() - "=end\n".len();
                said.truncate(end);
                return Ok(said);
            }
        }
    }

    /// Starts a script, and waits until it says that it has claimed: its pid.
    pub fn begin(&mut self, shell: &Shell, script: &str) -> Result<u32, String> {
        let words = shell.words.join(" ");
        let said = self.ask(&format!("begin {words} {script}"))?;
        let (pid, word) = said.trim().split_once('\n').unwrap_or((said.trim(), ""));
        if word != "claimed" {
            return Err(format!("{script} has not claimed: {said:?}"));
        }
        Ok(pid.parse().unwrap())
    }

    /// The last that its standard error has.
    pub fn complaints(&self) -> String {
        let text = fs::read(&self.complaints).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().rev().take(2).collect();
        lines.join(" | ")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Its scripts too: each is the leader of a process group, so they are found by their
        // session.
        for pid in of_session(self.pid()) {
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn of_session(leader: u32) -> Vec<i32> {
    let processes = fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| unsafe { libc::getsid(*pid) } == leader as i32 && *pid != leader as i32)
        .collect()
}

/// A cgroup that has too little memory.
pub struct Memory(PathBuf);

impl Memory {
    pub fn new() -> Option<Self> {
        let name = format!("claimfs-test-{}", std::process::id());
        let tries = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        for (root, limit) in tries {
            let dir = Path::new(root).join(&name);
            if fs::create_dir(&dir).is_err() {
                continue;
            }
            let memory = Self(dir);
            if fs::write(memory.0.join(limit), "24000000").is_ok() {
                return Some(memory);
            }
        }
        None
    }

    pub fn hold(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        _ = fs::remove_dir(&self.0);
    }
}
