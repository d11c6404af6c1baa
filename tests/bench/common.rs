//! A mount for a bench.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::{env, fs};

const CLAIMFS: &str = env!("CARGO_BIN_EXE_claimfs");

/// Ends what was started, also on a panic.
pub struct Server {
    child: Child,
    pub dir: PathBuf,
    holder: Option<Child>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut holder) = self.holder.take() {
            _ = holder.kill();
            _ = holder.wait();
        }
        _ = Command::new(CLAIMFS)
            .arg("umount")
            .arg("--lazy")
            .arg(self.dir.join("mount"))
            .status();
        _ = self.child.wait();
        _ = fs::remove_dir_all(&self.dir);
    }
}

#[allow(dead_code)]
impl Server {
    pub fn mount(&self) -> PathBuf {
        self.dir.join("mount")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// The pids of the supervisor and of the server.
    pub fn pids(&self) -> [u32; 2] {
        ["lock", "serving"].map(|file| {
            let pid = fs::read_to_string(self.state().join(file)).unwrap();
            pid.split_whitespace().next().unwrap().parse().unwrap()
        })
    }
}

/// A server of its own, as that of claimfs is one: Linux shares the processors out between POSIX sessions before it does between the
/// processes of one (`autogroup`, sched(7)).
#[allow(dead_code)]
pub fn in_own_session(command: &mut Command) -> &mut Command {
    unsafe {
        command.pre_exec(|| match libc::setsid() {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        })
    }
}

/// Everything on one CPU: waking another costs more than what is measured.
#[allow(dead_code)]
pub fn pin() {
    pin_to(0);
}

/// This process, and whatever it starts from now on, on one CPU.
pub fn pin_to(cpu: usize) {
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        assert_eq!(
            libc::sched_setaffinity(0, size_of_val(&set), &raw const set),
            0
        );
    }
}

/// This process, and whatever it starts from now on, on all CPUs.
#[allow(dead_code)]
pub fn unpin() {
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for cpu in 0..8 * size_of_val(&set) {
            libc::CPU_SET(cpu, &mut set);
        }
        assert_eq!(
            libc::sched_setaffinity(0, size_of_val(&set), &raw const set),
            0
        );
    }
}

static MOUNTS: AtomicU32 = AtomicU32::new(0);

/// A mount on which `claims/held` is held.
#[allow(dead_code)]
pub fn mount() -> Server {
    mount_with_state(&env::temp_dir())
}

/// The same, with its state directory below another.
#[allow(dead_code)]
pub fn mount_with_state(parent: &Path) -> Server {
    mount_with(parent, &[])
}

/// The same, with options.
pub fn mount_with(parent: &Path, options: &[&str]) -> Server {
    let number = MOUNTS.fetch_add(1, Relaxed);
    let dir = parent.join(format!(
        "claimfs-bench-mount-{}-{number}",
        std::process::id()
    ));
    fs::create_dir(&dir).unwrap();
    let mut command = Command::new(CLAIMFS);
    command
        .args(["mount", "--foreground", "--announce", "--state-dir"])
        .arg(dir.join("state"))
        .args(options)
        .arg(dir.join("mount"));
    // A bench that is killed leaves no mount behind.
    unsafe {
        command.pre_exec(
            || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            },
        );
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut word = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut word)
        .unwrap();
    let mut server = Server {
        child,
        dir,
        holder: None,
    };
    assert_eq!(word, "ready\n");
    let mut holder = Command::new("sh");
    holder
        .args([
            "-c",
            "set -C; echo > claims/held; echo; exec sleep infinity",
        ])
        .env("CLAIMFS_SESSION", "holder");
    let mut holder = holder
        .current_dir(server.dir.join("mount"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(holder.stdout.take().unwrap())
        .read_line(&mut word)
        .unwrap();
    server.holder = Some(holder);
    server
}
