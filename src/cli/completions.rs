//! `claimfs completions SHELL`

use super::output;
use super::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The shell to print the script for
    shell: clap_complete::Shell,
}

impl Arguments {
    pub(super) fn run(&self) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::command(), "claimfs", &mut script);
        output::list(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Done)
    }
}
