//! A mount for a bench.
#![allow(dead_code)]

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, io};

use crate::support::{Guard, Mount, TempDir};

/// A mount on which `claims/held` is held. It ends when it is dropped, also on a panic.
pub struct Server {
    _holder: Guard,
    mount: Mount,
}

impl Server {
    pub fn mount(&self) -> PathBuf {
        self.mount.dir.clone()
    }

    pub fn state(&self) -> PathBuf {
        self.mount.state.clone()
    }

    /// The pids of the supervisor and of the server.
    pub fn pids(&self) -> [u32; 2] {
        [self.mount.supervisor(), self.mount.pid()]
    }
}

/// A server of its own, as that of claimfs is one: Linux divides the processors between POSIX
/// sessions before it divides them between the processes of one (`autogroup`, sched(7)).
pub fn in_own_session(command: &mut Command) -> &mut Command {
    unsafe {
        command.pre_exec(|| match libc::setsid() {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        })
    }
}

/// Everything on one CPU: waking another costs more than what is measured.
pub fn pin() {
    pin_to(0);
}

/// This process, and all that it starts from now on, on one CPU.
pub fn pin_to(cpu: usize) {
    run_on([cpu]);
}

/// This process, and all that it starts from now on, on all CPUs.
pub fn unpin() {
    run_on(0..8 * size_of::<libc::cpu_set_t>());
}

fn run_on(cpus: impl IntoIterator<Item = usize>) {
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for cpu in cpus {
            libc::CPU_SET(cpu, &mut set);
        }
        let size = size_of_val(&set);
        assert_eq!(libc::sched_setaffinity(0, size, &raw const set), 0);
    }
}

/// A mount for a bench, with its files in the system's temporary directory.
pub fn mount() -> Server {
    mount_with_state(&env::temp_dir())
}

/// The same, with its files below another directory.
pub fn mount_with_state(parent: &Path) -> Server {
    mount_with(parent, &[])
}

/// The same, with options.
pub fn mount_with(parent: &Path, options: &[&str]) -> Server {
    let mut mount = Mount::at(TempDir::below(parent));
    // As users mount it, except that it ends with the bench and that nobody reads its log.
    mount.knows_agents = true;
    mount.ends_with_thread = true;
    mount.log = "/dev/null".into();
    mount.start(options);
    let mut holder = mount.sh("set -C; echo > claims/held; echo; exec sleep infinity");
    holder.env("CLAIMFS_SESSION", "holder");
    let mut holder = Guard::spawn(holder.stdout(Stdio::piped()));
    assert_eq!(holder.line(), "");
    Server {
        _holder: holder,
        mount,
    }
}
