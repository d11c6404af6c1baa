//! The log: how many lines there are about whom, how large its file becomes, and that it goes where
//! logrotate leaves it.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{
    CLAIMFS, TempDir, can_mount, children, names, plain, root_or_skip, text, unmount, wait_until,
};

const USER: u32 = 4242;

/// How much a flood by one uid may let the log grow, in bytes and within [`FLOOD`]: 120 lines, and
/// 10 a second, of 1.5 KB at most.
const GROWTH: u64 = 400 * 1024;

/// How long the flood goes on, in seconds.
const FLOOD: u64 = 3;

/// A mount in the background, which logs to its state directory.
struct Background {
    temp: TempDir,
    dir: PathBuf,
    log: PathBuf,
}

impl Background {
    fn mount(options: &[&str]) -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let temp = TempDir::new();
        let (dir, log) = (temp.path().join("mount"), temp.path().join("state/log"));
        let background = Self { temp, dir, log };
        let mut command = Command::new(CLAIMFS);
        command
            .args(["mount", "--no-agents", "--state-dir"])
            .arg(background.state())
            .args(options)
            .arg(&background.dir)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null());
        plain(&mut command);
        let (code, _, err) = text(&command.output().unwrap());
        assert_eq!(code, 0, "{err}");
        Some(background)
    }

    fn state(&self) -> PathBuf {
        self.temp.path().join("state")
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A claim whose holder is dead at once, which the log says.
    fn die_with(&self, name: &str) {
        let mut command = Command::new("sh");
        let script = format!("echo > claims/{name}");
        command.args(["-c", &script]).current_dir(&self.dir);
        plain(&mut command);
        assert!(command.status().unwrap().success());
    }

    /// The same, and waits until a file says so.
    fn die_in(&self, file: &Path, name: &str) {
        self.die_with(name);
        wait_until(&format!("{}: {name}", file.display()), || {
            let log = fs::read_to_string(file).unwrap_or_default();
            log.contains(&format!("reaped claims/{name}:"))
        });
    }

    fn supervisor(&self) -> u32 {
        let lock = fs::read_to_string(self.state().join("lock")).unwrap();
        lock.trim().parse().unwrap()
    }

    fn server(&self) -> Option<u32> {
        children(self.supervisor()).first().copied()
    }

    /// Kills the server, of which the supervisor says that another takes over, and the next one
    /// that it does.
    fn kill_server(&self) {
        let server = self.server().unwrap();
        assert_eq!(unsafe { libc::kill(server as i32, libc::SIGKILL) }, 0);
        wait_until("another server answers", || {
            self.server().is_some_and(|next| next != server) && self.dir.join("README").exists()
        });
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        unmount(&self.dir);
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn what_one_uid_lets_the_log_say_is_bounded_and_the_rest_is_counted() {
    if !root_or_skip("act as another user") {
        return;
    }
    let Some(mount) = Background::mount(&["--allow-other"]) else {
        return;
    };
    fs::set_permissions(mount.temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let before = fs::metadata(&mount.log).unwrap().len();
    // Sessions that claim a hundred names each that are long to write, and die.
    let flood = "
import os, sys, time
end = time.time() + float(sys.argv[2]); n = 0
while time.time() < end:
    pid = os.fork()
    if pid == 0:
        os.setsid()
        for i in range(100):
            name = sys.argv[1] + '/claims/' + ('%d-%d' % (n, i)).ljust(250, '\\x07')
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os._exit(0)
    os.waitpid(pid, 0); n += 1
print(n)";
    let mut python = Command::new("python3");
    python
        .args(["-c", flood])
        .arg(&mount.dir)
        .arg(FLOOD.to_string());
    plain(&mut python);
    let start = Instant::now();
    let flood = python
        .uid(USER)
        .gid(USER)
        .current_dir("/")
        .output()
        .unwrap();
    let (code, sessions, err) = text(&flood);
    assert_eq!(code, 0, "{err}");
    let sessions: u64 = sessions.trim().parse().unwrap();
    assert!(sessions > 10, "no flood");
    let sentence = format!("uid {USER}: ");
    let left_out = || -> u64 {
        let log = mount.log();
        let told = log.lines().filter_map(|line| line.split_once(&*sentence));
        let told = told.filter(|(_, rest)| rest.ends_with("left out"));
        told.map(|(_, rest)| {
            let count = rest.split(' ').next().unwrap().replace(',', "");
            count.parse::<u64>().unwrap()
        })
        .sum()
    };
    let reaped = || mount.log().matches("reaped claims/").count() as u64;
    wait_until("each line is there or counted", || {
        reaped() + left_out() == sessions * 100
    });
    let seconds = start.elapsed().as_secs() + 1;
    let lines = reaped();
    assert!(lines <= 120 + 10 * seconds, "{lines} lines in {seconds} s");
    let grown = fs::metadata(&mount.log).unwrap().len() - before;
    let bound = GROWTH + seconds.saturating_sub(FLOOD) * 10 * 1500;
    assert!(grown < bound, "{grown} bytes in {seconds} s");
    // Root's lines have room of their own.
    mount.die_in(&mount.log, "of-root");
}

#[test]
fn a_log_past_its_bound_is_moved_aside_once_and_no_line_is_lost() {
    const BYTES: u64 = 8192;
    let Some(mount) = Background::mount(&["--log-bytes", "8192"]) else {
        return;
    };
    let before = mount.state().join("log.1");
    let mut count = 0;
    while !before.exists() {
        mount.die_with(&format!("n{count}"));
        count += 1;
        assert!(count < 500, "the log is not moved aside");
    }
    mount.die_in(&mount.log, "last");
    let both = || fs::read_to_string(&before).unwrap() + &mount.log();
    for name in 0..count {
        let said = both().matches(&format!("reaped claims/n{name}:")).count();
        assert_eq!(said, 1, "n{name}");
    }
    assert!(both().contains("mounted on"), "the first line, too");
    // The supervisor and the next server go on in the same file.
    mount.kill_server();
    wait_until("the supervisor and the next server log", || {
        both().matches("another server takes over").count() == 1
            && both().contains("the server ended (signal: 9 (SIGKILL)); another takes over")
    });
    for process in [mount.supervisor(), mount.server().unwrap()] {
        let stderr = fs::read_link(format!("/proc/{process}/fd/2")).unwrap();
        assert!(stderr == mount.log, "{}", stderr.display());
    }
    let first = fs::read(&before).unwrap();
    while fs::read(&before).unwrap() == first {
        mount.die_with(&format!("m{count}"));
        count += 1;
        assert!(count < 1000, "the log is not moved aside again");
    }
    for file in [&before, &mount.log] {
        assert_eq!(mode(file), 0o600);
        assert!(fs::metadata(file).unwrap().len() <= BYTES);
    }
    let logs = names(&mount.state());
    let logs: Vec<_> = logs.iter().filter(|name| name.starts_with("log")).collect();
    assert_eq!(logs, ["log", "log.1"]);
}

#[test]
fn a_log_that_logrotate_moves_or_truncates_is_followed() {
    let Some(mount) = Background::mount(&[]) else {
        return;
    };
    mount.die_in(&mount.log, "first");
    let moved = mount.temp.path().join("log-20260101");
    fs::rename(&mount.log, &moved).unwrap();
    mount.die_in(&mount.log, "second");
    assert_eq!(mode(&mount.log), 0o600);
    assert!(!mount.log().contains("claims/first"));
    mount.kill_server();
    wait_until("the supervisor and the next server follow", || {
        let log = mount.log();
        log.contains("; another takes over") && log.contains("another server takes over")
    });
    assert!(!fs::read_to_string(&moved).unwrap().contains("takes over"));
    // As `create` in its configuration does.
    fs::rename(&mount.log, &moved).unwrap();
    File::create(&mount.log).unwrap();
    mount.die_in(&mount.log, "third");
    // As `copytruncate` does.
    let log = fs::OpenOptions::new().write(true).open(&mount.log);
    log.unwrap().set_len(0).unwrap();
    mount.die_in(&mount.log, "fourth");
    assert!(mount.log().starts_with('['), "it begins at its beginning");
    // One that cannot be followed is not, and nobody waits for it.
    fs::remove_file(&mount.log).unwrap();
    let fifo = Command::new("mkfifo").arg(&mount.log).status().unwrap();
    assert!(fifo.success());
    mount.die_with("lost");
    let start = Instant::now();
    assert!(mount.dir.join("claims").exists() && start.elapsed() < Duration::from_secs(5));
    fs::remove_file(&mount.log).unwrap();
    mount.die_in(&mount.log, "fifth");
}

#[test]
fn the_log_follows_a_state_directory_that_is_made_again() {
    let Some(mount) = Background::mount(&[]) else {
        return;
    };
    fs::rename(mount.state(), mount.temp.path().join("moved")).unwrap();
    wait_until("the state directory", || {
        mount.state().join("journal").exists()
    });
    mount.die_in(&mount.log, "x");
}

#[test]
fn nothing_is_written_into_a_directory_of_others_in_the_place_of_the_state_directory() {
    let Some(mount) = Background::mount(&[]) else {
        return;
    };
    let others = mount.temp.path().join("others");
    fs::create_dir(&others).unwrap();
    fs::set_permissions(&others, fs::Permissions::from_mode(0o777)).unwrap();
    let path = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap();
    let (from, to) = (path(&others), path(&mount.state()));
    let (here, swap) = (libc::AT_FDCWD, libc::RENAME_EXCHANGE);
    let swapped = unsafe { libc::renameat2(here, from.as_ptr(), here, to.as_ptr(), swap) };
    assert_eq!(swapped, 0);
    wait_until("the sentence in the log", || {
        let log = fs::read_to_string(others.join("log")).unwrap_or_default();
        log.contains("others may write to the state directory")
    });
    mount.die_in(&others.join("log"), "x");
    assert_eq!(names(&mount.state()), [""; 0]);
    fs::remove_dir(mount.state()).unwrap();
    wait_until("the state directory", || {
        mount.state().join("journal").exists()
    });
    mount.die_in(&mount.log, "y");
}
