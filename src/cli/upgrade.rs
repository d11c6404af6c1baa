//! `claimfs upgrade DIR`

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Exit, Failure, output, tool};
use crate::mount::holder;
use crate::mount::state_dir::{Lock, StateDir};
use crate::sys::signals;

/// How long an upgrade may take in total.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print an object: "mount" is the directory
    #[arg(long)]
    json: bool,
    /// Where claimfs is mounted
    dir: PathBuf,
}

impl Arguments {
    pub(super) fn run(&self) -> Result<Exit, Failure> {
        let (dir, mount) = tool::mounted_on(&self.dir)?;
        let shown = dir.display();
        let state_dir = StateDir::of(&mount);
        let path = state_dir.lock(Lock::Supervisor);
        let denied = |error: &io::Error| {
            let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
            let owner = mount.owner().filter(|_| is_denied)?;
            let text = format!("{shown}: uid {owner} mounted it; that user or root can upgrade it");
            Some(Failure::unavailable(text))
        };
        let unreadable = |error: io::Error| {
            denied(&error)
                .unwrap_or_else(|| Failure::unavailable(format!("{}: {error}", path.display())))
        };
        let supervisor = holder::pid_in(&path).map_err(unreadable)?;
        // The pid is the supervisor's while it holds the lock.
        let Some(supervisor) = supervisor.filter(|_| holder::is_locked(&path)) else {
            return Err(Failure::unavailable(format!(
                "{shown}: the supervisor of this mount has died; 'claimfs mount {shown}' makes the mount anew"
            )));
        };
        let upgraded = state_dir.upgraded();
        _ = fs::remove_file(&upgraded);
        signals::send(supervisor, libc::SIGHUP).map_err(|error| {
            denied(&error).unwrap_or_else(|| {
                Failure::unavailable(format!(
                    "{shown}: its supervisor (pid {supervisor}): {error}"
                ))
            })
        })?;
        let until = Instant::now() + PATIENCE;
        loop {
            match fs::read_to_string(&upgraded) {
                Ok(why) if why.is_empty() => {
                    let value = json!({"mount": dir.to_string_lossy(), "upgraded": true});
                    output::done_quietly(self.json, &format!("{shown}: upgraded"), &value)?;
                    return Ok(Exit::Done);
                }
                Ok(why) => return Err(Failure::unavailable(format!("{shown}: {why}"))),
                Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
                Err(_) => {
                    return Err(Failure::unavailable(format!(
                        "{shown}: its supervisor (pid {supervisor}) does not say what came of it; its log may"
                    )));
                }
            }
        }
    }
}
