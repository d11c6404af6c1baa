//! `claimfs completions SHELL`

use std::io::{self, Write};

use super::Exit;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The shell to print the script for
    shell: clap_complete::Shell,
}

impl Arguments {
    pub(super) fn run(&self) -> Exit {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::command(), "claimfs", &mut script);
        _ = io::stdout().lock().write_all(&script);
        Exit::Done
    }
}
