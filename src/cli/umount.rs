//! `claimfs umount [DIR]`

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::{Exit, Failure, output, tool};
use crate::mount::state_dir::StateDir;
use crate::mount::takeover::Leaving;
use crate::mount::{default_mount, holder, is_dead};
use crate::supervisor::device;
use crate::sys::ids::effective_uid;
use crate::sys::mountinfo::{self, Mount};

/// How long to wait for the server to end by itself after the unmounting.
const PATIENCE: Duration = Duration::from_secs(1);

/// A mount that is busy for longer than this is in use: its own helper, which tells inotify of
/// names that have gone, keeps it busy for less than a millisecond at a time.
const BUSY: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Unmount also if it is in use: it vanishes at once, and ends with its last user
    #[arg(short, long)]
    lazy: bool,
    /// Print an object: "mount" is the directory
    #[arg(long)]
    json: bool,
    /// Where claimfs is mounted
    /// [default: /run/claims for root, $XDG_RUNTIME_DIR/claims else]
    #[arg(verbatim_doc_comment)]
    dir: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn run(&self) -> Result<Exit, Failure> {
        let (dir, mount) = match &self.dir {
            Some(dir) => tool::mounted_on(dir)?,
            None => default()?,
        };
        let shown = dir.display();
        // A mount that has lost its server need not be spared if it is busy.
        let dead = is_dead(&dir);
        if dead && !self.lazy && StateDir::of(&mount).is_without_journal() {
            return Err(Failure::unavailable(format!(
                "{shown}: dead, and its journal is missing; whoever claimed here may be alive, and only this mount says so; \
                 once they are gone, begin with nothing held by 'claimfs mount --repair {shown}', or take it away with \
                 'claimfs umount --lazy {shown}'"
            )));
        }
        let leaving = Leaving::look(&mount)
            .map_err(|error| Failure::unavailable(format!("/proc/self/mountinfo: {error}")))?;
        if !dead {
            self.announce(&dir, &leaving);
        }
        device::unmount_patiently(&dir, self.lazy || dead, BUSY).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::EBUSY) => Failure::held(busy(&mount)),
                _ => Failure::unavailable(format!(
                    "{shown}: cannot be unmounted: {}",
                    explain(&error, &mount)
                )),
            }
        })?;
        if self.lazy || leaving.end(PATIENCE) {
            // Where others have the mount, its processes go on.
            if !self.lazy && leaving.here.is_empty() && leaving.beside.is_empty() {
                StateDir::of(&mount).forget_pids();
            }
            let value = json!({"mount": dir.to_string_lossy(), "unmounted": true});
            output::done_quietly(self.json, &format!("{shown}: unmounted"), &value)?;
            return Ok(Exit::Done);
        }
        Err(Failure::unavailable(format!(
            "{shown}: unmounted, but its server does not end, not even by SIGKILL; its log is {}",
            StateDir::of(&mount).log().display()
        )))
    }

    /// Warns about the effects on processes that have the mount elsewhere, before they happen.
    fn announce(&self, dir: &Path, leaving: &Leaving) {
        let shown = dir.display();
        if !leaving.here.is_empty() {
            let here: Vec<String> = leaving
                .here
                .iter()
                .map(|dir| dir.display().to_string())
                .collect();
            tool::complain(&format!(
                "{shown}: the same claims are mounted on {}, too, where they stay until that is unmounted",
                here.join(", ")
            ));
        }
        if leaving.beside.is_empty() || !leaving.is_end() {
            return;
        }
        let who = holder::list(&leaving.beside);
        let becomes = if self.lazy {
            format!("they keep it until they end, or until 'claimfs mount {shown}' is run again")
        } else {
            String::from(
                "it ends there as well: they get ENOTCONN ('Transport endpoint is not connected') until they are started again",
            )
        };
        tool::complain(&format!(
            "{shown}: other mount namespaces have this mount, too: {who}; {becomes}"
        ));
    }
}

/// The message for a mount that is in use, with those of its users that can be seen.
fn busy(mount: &Mount) -> String {
    let shown = mount.dir.display();
    let all = mountinfo::all().unwrap_or_default();
    if let Some(inner) = all.iter().find(|inner| inner.parent == mount.id) {
        return format!(
            "{shown}: in use, since {} is mounted in it; unmount that first with 'umount {0}'",
            inner.dir.display()
        );
    }
    let users = holder::users(mount);
    let who = match users.len() {
        0 => String::from("a process that cannot be seen from here"),
        _ => holder::list(&users),
    };
    format!(
        "{shown}: in use, by an open file or a working directory of {who}; leave it, or detach it with \
         'claimfs umount --lazy {shown}'"
    )
}

/// The caller's default mount. Another mount is never ended unless it is named.
fn default() -> Result<(PathBuf, Mount), Failure> {
    let dir = default_mount::dir("umount")?;
    tool::mounted_on(&dir).map_err(|_| {
        let others = mountinfo::ours().unwrap_or_default();
        let others: Vec<String> = others
            .iter()
            .map(|other| other.dir.display().to_string())
            .collect();
        let remedy = match others.len() {
            0 => String::new(),
            _ => format!("; give the directory to unmount: {}", others.join(", ")),
        };
        let dir = dir.display();
        Failure::unavailable(format!("{dir}: no claimfs is mounted here{remedy}"))
    })
}

/// Why a mount cannot be unmounted, and the way out.
fn explain(error: &io::Error, mount: &Mount) -> String {
    let me = effective_uid();
    match mount.owner().filter(|owner| me != 0 && *owner != me) {
        Some(owner) => format!("uid {owner} mounted it; that user or root can unmount it"),
        None if error.kind() == io::ErrorKind::NotFound => String::from(
            "only root may unmount without fusermount3, which is not installed; install it ('apt install fuse3') or unmount as root",
        ),
        None => error.to_string(),
    }
}
