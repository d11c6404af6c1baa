//! `claimfs man DIR`: writes the man pages, for packages.
//!
//! claimfs.1 and one page a command come from the arguments, claimfs.5 and claimfs.7 from the
//! manual.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Exit, Failure};
use crate::manual::{PAGES, Page, roff};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The directory to write to, which is made if need be
    dir: PathBuf,
}

const FILES: &str = "the files of a mount of claimfs: leases, queues, reservations";
const MANUAL: &str = "sessions, sandboxes, agents, recipes and operations of claimfs";

impl Arguments {
    pub(super) fn run(&self) -> Result<Exit, Failure> {
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |error| Failure::unavailable(format!("{path}: {error}"))
        };
        fs::create_dir_all(&self.dir).map_err(failed(&self.dir))?;
        clap_mangen::generate_to(super::command(), &self.dir).map_err(failed(&self.dir))?;
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
}
