//! Makes a mount: one process at a time, which has its turn until the mount answers.
//!
//! Does not know: whether there is need of one, which `mount.rs` finds out.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use super::Arguments;
use crate::cli::{Exit, Failure, output, program, tool};
use crate::logging;
use crate::mount::default_mount::counts;
use crate::mount::holder;
use crate::mount::state_dir::{Lock, StateDir};
use crate::mount::{Plan, usable_on};
use crate::supervisor::Notice;
use crate::sys::mountinfo::Mount;

/// The line that a supervisor in the background prints once requests are answered; before it come
/// lines about what was lost, and instead of it the reason why there is no mount.
const READY: &str = "ready";
const LOST: &str = "lost: ";

impl Arguments {
    /// Mounts on a directory, unless it is there. Only one process at a time does this for a state
    /// directory: it looks, mounts, and has its turn until the mount answers.
    pub(super) fn make(&self, dir: PathBuf) -> Result<Exit, Failure> {
        if let Some(mount) = self.there(&dir)? {
            return self.found(&mount);
        }
        let plan = self.settings.plan(dir)?;
        // A second look, since it may have been mounted in the middle of the first.
        if let Err(failure) = plan.inspect().or_else(|_| plan.inspect()) {
            // It may have been mounted meanwhile.
            let there = self.there(&plan.dir)?;
            return there.map_or(Err(failure), |mount| self.found(&mount));
        }
        plan.state_dir.make()?;
        let turn = plan.state_dir.take(Lock::Mounting)?;
        if let Some(mount) = self.there(&plan.dir)? {
            return self.found(&mount);
        }
        if self.foreground {
            return self.supervise(&plan, &turn);
        }
        self.start(&plan, turn)
    }

    /// The usable claimfs on the directory, if that is enough. Another file system there is an
    /// error, unless the directory was given and a mount was asked for whatever is there; so is a
    /// claimfs with its state elsewhere than was asked for, and another user's for root, who named
    /// none.
    fn there(&self, dir: &Path) -> Result<Option<Mount>, Failure> {
        if !self.if_needed && self.settings.dir.is_some() {
            return Ok(None);
        }
        let mount = usable_on(dir)?;
        let named = self.settings.dir.is_some();
        if let Some(mount) = mount.as_ref().filter(|mount| !named && !counts(mount)) {
            return Err(Failure::unavailable(format!(
                "{}: the mount of uid {}, which root uses only if it is named; give another directory, or unmount it with \
                 'claimfs umount {0}'",
                dir.display(),
                mount.owner().unwrap_or_default()
            )));
        }
        let mount = mount.filter(|_| self.if_needed);
        if let (Some(mount), Some(asked)) = (&mount, &self.settings.state_dir)
            && !holder::same_place(&mount.source, StateDir::at(asked)?.path())
        {
            return Err(Failure::unavailable(format!(
                "{}: the claimfs that is mounted here has its state in {}, not in {}; use it without --state-dir, or unmount it \
                 with 'claimfs umount {0}'",
                dir.display(),
                mount.source.display(),
                asked.display()
            )));
        }
        Ok(mount)
    }

    /// Mounts and stays. `turn` is the lock of whoever makes the mount, and ends once that answers.
    pub(super) fn supervise(&self, plan: &Plan, turn: &File) -> Result<Exit, Failure> {
        logging::begin(&plan.state_dir.log(), self.settings.log_bytes());
        let announce = self.announce;
        let notify_all = |notice| match notice {
            Notice::Ready => {
                if announce {
                    tool::say(READY);
                }
                // In the background it fails where a person gave another standard input.
                _ = turn.unlock();
                if let Err(error) = notify("READY=1") {
                    log::warn!("systemd is not told that the mount is ready: {error}");
                }
            }
            Notice::Lost(what) if announce => tool::say(&format!("{LOST}{what}")),
            Notice::Lost(_) => {}
            Notice::Upgraded(result) => {
                let why = result.err().map_or(String::new(), |failure| failure.text);
                if why.is_empty() {
                    log::info!("upgraded");
                } else {
                    log::error!("no upgrade: {why}");
                }
                if let Err(error) = plan.state_dir.write_upgraded(&why) {
                    log::warn!("{}: {error}", plan.state_dir.upgraded().display());
                }
            }
        };
        let words = self.settings.words(plan)?;
        let program = PathBuf::from(program()?);
        plan.supervise(program, words, notify_all)
            .inspect_err(|failure| {
                if announce {
                    tool::say(&failure.text);
                }
            })?;
        Ok(Exit::Done)
    }

    /// Starts this command again in the background, and waits until its mount answers.
    fn start(&self, plan: &Plan, turn: File) -> Result<Exit, Failure> {
        plan.check(&mut tool::complain)?;
        let log = plan.state_dir.log();
        let open = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&log);
        let stderr =
            open.map_err(|error| Failure::unavailable(format!("{}: {error}", log.display())))?;
        let mut supervisor = Command::new(program()?);
        supervisor.args(["mount", "--foreground", "--announce"]);
        if self.settings.repair {
            supervisor.arg("--repair");
        }
        // As its standard input, the lock of this turn stays with it should this process be killed.
        supervisor
            .args(self.settings.words(plan)?)
            .stdin(turn)
            .stdout(Stdio::piped())
            .stderr(stderr);
        let mut supervisor = supervisor
            .spawn()
            .map_err(|error| Failure::unavailable(format!("claimfs: {error}")))?;
        let mut word = String::new();
        if let Some(stdout) = supervisor.stdout.take() {
            let mut said = BufReader::new(stdout);
            _ = said.read_line(&mut word);
            while let Some(lost) = word.strip_prefix(LOST) {
                tool::complain(lost.trim_end());
                word.clear();
                _ = said.read_line(&mut word);
            }
        }
        match word.trim_end() {
            READY => self.answers(plan, &log),
            "" => Err(Failure::unavailable(format!(
                "{}: the server ended before it had mounted; its log is {}",
                plan.dir.display(),
                log.display()
            ))),
            text => Err(Failure::unavailable(text)),
        }
    }

    fn answers(&self, plan: &Plan, log: &Path) -> Result<Exit, Failure> {
        let dir = plan.dir.display();
        fs::read(plan.dir.join("README")).map_err(|error| {
            Failure::unavailable(format!(
                "{dir}: mounted, but it does not answer: {error}; its log is {}",
                log.display()
            ))
        })?;
        let sentence = format!("claimfs: mounted on {dir}; its log is {}", log.display());
        let (dir, log) = (plan.dir.to_string_lossy(), log.to_string_lossy());
        let value = json!({"mount": dir, "made": true, "log": log});
        output::done(self.json, &sentence, &value)?;
        Ok(Exit::Done)
    }
}

/// Notifies the service manager, if there is one, as `sd_notify(3)` does.
fn notify(state: &str) -> io::Result<()> {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    sender.send_to_addr(state.as_bytes(), &address).map(|_| ())
}
