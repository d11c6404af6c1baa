//! `claimfs man DIR`: writes the man pages, for packages.
//!
//! claimfs.1 and one page a command come from the arguments, claimfs.5 and claimfs.7 from the
//! manual.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::{Exit, Failure};
use crate::manual::{PAGES, Page, roff};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The directory to write to, which is made if need be
    dir: PathBuf,
}

const FILES: &str = "the files of a mount of claimfs: leases, queues, reservations";
const MANUAL: &str = "sessions, sandboxes, agents, recipes and operations of claimfs";

const SEE_ALSO: &str = ".SH SEE ALSO\nclaimfs(1), claimfs(5), claimfs(7)\n";

impl Arguments {
    pub(super) fn run(&self) -> Result<Exit, Failure> {
        fs::create_dir_all(&self.dir).map_err(failed(&self.dir))?;
        let mut command = super::command();
        // Gives each command its full name.
        command.build();
        self.write_commands(&command)?;
        for (section, about, see_also) in [
            (5, FILES, "claimfs(1), claimfs(7)"),
            (7, MANUAL, "claimfs(1), claimfs(5)"),
        ] {
            let pages = PAGES.iter().filter(|page| page.section == section);
            let pages: Vec<&Page> = pages.collect();
            let path = self.dir.join(format!("claimfs.{section}"));
            let text = roff::man_page(section, about, &pages, see_also);
            fs::write(&path, text).map_err(failed(&path))?;
        }
        Ok(Exit::Done)
    }

    /// Writes the page of a command, and those of the commands below it.
    fn write_commands(&self, command: &clap::Command) -> Result<(), Failure> {
        let page = clap_mangen::Man::new(command.clone());
        let path = self.dir.join(page.get_filename());
        let mut text = Vec::new();
        page.render(&mut text).map_err(failed(&path))?;
        let text = roff::in_ascii(&String::from_utf8_lossy(&text));
        fs::write(&path, text + SEE_ALSO).map_err(failed(&path))?;
        let shown = |command: &&clap::Command| !command.is_hide_set();
        let mut commands = command.get_subcommands().filter(shown);
        commands.try_for_each(|command| self.write_commands(command))
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::unavailable(format!("{path}: {error}"))
}
