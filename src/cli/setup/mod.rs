//! `claimfs setup claude-code|git`: the settings with which an agent or git calls `claimfs hook`.
//!
//! Promises: a file that does not parse is left as it is. A file that is changed is replaced in one
//! step, keeps its mode, and is kept beside the new one as it was.

mod claude_code;
mod git;
mod replace;

use std::env;
use std::path::{Path, PathBuf};

use super::output;
use super::tool;
use super::{Exit, Failure};
use crate::mount::default_mount;
use crate::sys::mountinfo;

use self::claude_code::Until;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Whose settings
    #[arg(value_enum)]
    of: Of,
    /// Put them into the settings file of this directory, or as a hook of this repository
    #[arg(long, conflicts_with = "remove")]
    write: bool,
    /// Take them out again, and nothing else
    #[arg(long)]
    remove: bool,
    /// The settings of the user, for all projects, instead of this directory's [claude-code]
    #[arg(long)]
    user: bool,
    /// When a file that was edited is given back [claude-code]
    #[arg(long, value_enum, default_value = "turn", conflicts_with = "remove")]
    until: Until,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Of {
    ClaudeCode,
    Git,
}

impl Arguments {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        match self.of {
            Of::ClaudeCode => self.claude_code(mount),
            Of::Git if self.user || self.until != Until::Turn => Err(Failure::usage(
                "--user and --until are for claude-code; a hook of git is the repository's",
            )),
            Of::Git if mount.is_some() => Err(Failure::usage(
                "--mount: the guard finds the mount when it runs; set $CLAIMFS_MOUNT for it where there are several",
            )),
            Of::Git => self.git(),
        }
    }

    fn claude_code(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let (dir, is_named) = directory(mount)?;
        let ours = claude_code::settings(&dir, is_named, self.until);
        if !self.write && !self.remove {
            let text = claude_code::shown(&ours, "  ")?;
            return printed(&text);
        }
        let file = if self.user {
            user_settings()?
        } else {
            PathBuf::from(".claude/settings.json")
        };
        replace::file(&file, 0o644, |text| {
            if self.remove {
                claude_code::without(text, &ours)
            } else {
                claude_code::with(text, &ours)
            }
        })?
        .say(&file, self.remove);
        Ok(Exit::Done)
    }

    fn git(&self) -> Result<Exit, Failure> {
        if !self.write && !self.remove {
            return printed(&git::script());
        }
        let file = git::hook_file()?;
        if !self.remove {
            git::check(&file)?;
        }
        replace::file(&file, 0o755, |text| {
            if self.remove {
                Ok(git::without(text))
            } else {
                git::with(text)
            }
        })?
        .say(&file, self.remove);
        Ok(Exit::Done)
    }
}

/// The directory of the mount for settings, and whether the caller names it: `--mount`, else
/// `$CLAIMFS_MOUNT`, else the only mount that there is, else the default one.
fn directory(mount: Option<&Path>) -> Result<(String, bool), Failure> {
    let variable = env::var_os("CLAIMFS_MOUNT").filter(|dir| !dir.is_empty());
    let named = mount
        .map(Path::to_path_buf)
        .or_else(|| variable.map(PathBuf::from));
    let is_named = named.is_some();
    let found = || match mountinfo::ours().unwrap_or_default().as_slice() {
        [only] => only.dir.clone(),
        _ => default_mount::dir("setup").unwrap_or_else(|_| default_mount::OF_ROOT.into()),
    };
    let dir = named.unwrap_or_else(found);
    let dir = std::path::absolute(&dir)
        .map_err(|error| Failure::usage(format!("{}: {error}", dir.display())))?;
    match dir.into_os_string().into_string() {
        Ok(dir) => Ok((dir, is_named)),
        Err(dir) => Err(Failure::usage(format!(
            "{}: not UTF-8, as settings must be",
            dir.display()
        ))),
    }
}

/// The settings of Claude Code for all projects of the user.
fn user_settings() -> Result<PathBuf, Failure> {
    let variable = |name: &str| env::var_os(name).filter(|dir| !dir.is_empty());
    let dir = variable("CLAUDE_CONFIG_DIR").map(PathBuf::from);
    let home = || Some(PathBuf::from(variable("HOME")?).join(".claude"));
    let dir = dir.or_else(home).ok_or_else(|| {
        Failure::usage("HOME is not set, so there is no user's settings file; set it")
    })?;
    Ok(dir.join("settings.json"))
}

fn printed(text: &str) -> Result<Exit, Failure> {
    output::list(text)?;
    Ok(Exit::Done)
}

impl replace::Done {
    fn say(&self, file: &Path, removes: bool) {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let shown = crate::core::printable(&file.display().to_string());
        let done = if removes { "taken out" } else { "written" };
        tool::say(&match self {
            Self::Same if removes => format!("{shown}: nothing of claimfs is in it"),
            Self::Same => format!("{shown}: as it should be already"),
            Self::New => format!("{shown}: written"),
            Self::Gone(backup) => format!("{shown}: removed; it was {}", backup.display()),
            Self::Changed(backup) => {
                format!("{shown}: {done}; the file before is {}", backup.display())
            }
        });
    }
}
