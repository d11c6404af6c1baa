//! `claimfs mount [DIR]`

mod making;
mod settings;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use serde_json::json;

pub(super) use self::settings::Settings;
use super::{Exit, Failure};
use super::{output, remount, tool};
use crate::mount::state_dir::StateDir;
use crate::mount::{default_mount, holder, resolve_dir};
use crate::sys::mountinfo::{self, FS_TYPE, Mount};
use crate::sys::terminal;

// Each is a switch of the command line.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Stay, and log to standard error (RUST_LOG says how much)
    #[arg(short, long)]
    foreground: bool,
    /// Say so on standard output, and on it only, when the mount answers or why it does not
    #[arg(long, hide = true)]
    announce: bool,
    /// Succeed also if claimfs is mounted already: there, or without DIR anywhere you can use it
    #[arg(long)]
    if_needed: bool,
    /// Print an object: "mount" is the directory, "made" is false if it was mounted already
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

impl Arguments {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let settings = &self.settings;
        if settings.options.iter().any(|option| option == "remount") {
            if let Some(switch) = settings.switches()?.next() {
                return Err(Failure::usage(format!(
                    "--{switch}: not changed by a remount; unmount, and mount with it"
                )));
            }
            let dir = match &settings.dir {
                Some(dir) => dir.clone(),
                None => default_mount::dir("mount")?,
            };
            return remount::run(&dir, &settings.options, self.json);
        }
        if self.announce {
            let plan = settings.plan(resolve_dir(&settings.dir()?)?)?;
            terminal::leave().map_err(|error| Failure::unavailable(format!("setsid: {error}")))?;
            std::env::set_current_dir("/")
                .map_err(|error| Failure::unavailable(format!("/: {error}")))?;
            // The process that started this has handed its turn over.
            let turn = io::stdin().as_fd().try_clone_to_owned();
            let turn = turn.map_err(|error| Failure::unavailable(format!("stdin: {error}")))?;
            return self.supervise(&plan, &File::from(turn));
        }
        match self.place()? {
            Place::There(mount) => self.found(&mount),
            Place::Free(dir) => self.make(dir),
        }
    }

    /// Where to mount, if there is need to.
    fn place(&self) -> Result<Place, Failure> {
        if let Some(dir) = &self.settings.dir {
            return Ok(Place::Free(resolve_dir(dir)?));
        }
        let dir = default_mount::dir("mount");
        let dir_there = dir.as_deref().ok();
        let is_there = dir_there.is_some_and(|dir| mountinfo::on(dir).is_ok_and(is_claimfs));
        let other = if is_there {
            None
        } else {
            default_mount::elsewhere(dir_there)
                .map_err(|error| Failure::unavailable(format!("/proc/self/mountinfo: {error}")))?
        };
        match other {
            Some(mount) if self.if_needed => Ok(Place::There(mount)),
            Some(mount) => Err(Failure::unavailable(format!(
                "{}: a claimfs that you can use is mounted here already; use it, or give a directory for another one, whose \
                 claims are apart, as in 'claimfs mount DIR'",
                mount.dir.display()
            ))),
            None => {
                let dir = resolve_dir(&dir?)?;
                if self.settings.admits_others() {
                    default_mount::check_reachable(&dir)?;
                }
                Ok(Place::Free(dir))
            }
        }
    }

    /// Says which mount there is already.
    fn found(&self, mount: &Mount) -> Result<Exit, Failure> {
        let dir = mount.dir.display();
        if self.settings.admits_others() && !mount.has("allow_other") {
            tool::complain(&format!(
                "{dir}: mounted without --allow-other, so it admits nobody else; to admit others, unmount it, and mount again"
            ));
        }
        let state_dir = StateDir::of(mount);
        if holder::is_without_supervisor(&state_dir) {
            tool::complain(&format!(
                "{dir}: its supervisor has died: should its server die too, the mount dies with it; {}",
                tool::again(mount)
            ));
        }
        let sentence = format!("claimfs: mounted on {dir} already");
        let value = json!({"mount": mount.dir.to_string_lossy(), "made": false});
        output::done(self.json, &sentence, &value)?;
        Ok(Exit::Done)
    }
}

/// Where to mount.
enum Place {
    /// Nowhere: this mount is there already.
    There(Mount),
    /// On this directory.
    Free(PathBuf),
}

fn is_claimfs(mount: Option<Mount>) -> bool {
    mount.is_some_and(|mount| mount.fs_type == FS_TYPE)
}
