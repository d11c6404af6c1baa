//! `claimfs serve`, which the supervisor of a mount starts on the connection that it holds: not for
//! people.

use std::io::{self, Write};

use super::mount::Settings;
use super::{Exit, Failure, tool};
use crate::logging;
use crate::server::Link;
use crate::supervisor::report::Report;
use crate::supervisor::{MOUNTED_AT, RESTARTS};
use crate::sys::thread::name_process;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The connection: the descriptor is standard input
    #[arg(long, value_name = "NONCE", default_value = "")]
    connection: String,
    /// The capabilities of the kernel, on a connection that has begun
    #[arg(long, value_name = "BITS")]
    capabilities: Option<u64>,
    /// Only read what the state directory remembers
    #[arg(long)]
    prove: bool,
    #[command(flatten)]
    settings: Settings,
}

impl Arguments {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        // The supervisor starts a program by its descriptor, which has no name of its own.
        name_process("claimfs");
        // The path is taken as it is: nothing may touch the mount before it is served.
        let plan = self.settings.plan(self.settings.dir()?)?;
        if self.prove {
            plan.prove(&self.connection)?;
            tool::say(&Report::Proved.to_line());
            return Ok(Exit::Done);
        }
        logging::begin(&plan.state_dir.log(), self.settings.log_bytes());
        let link = Link {
            nonce: self.connection,
            capabilities: self.capabilities,
            restarts: told(RESTARTS),
            mounted_at: told(MOUNTED_AT),
        };
        plan.serve(&link, |report| send(&report))
            .inspect_err(|failure| send(&Report::Failed(failure.text.clone())))?;
        Ok(Exit::Done)
    }
}

/// A number that the supervisor tells in the environment.
fn told(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Sends a report to the supervisor, which may be gone.
fn send(report: &Report) {
    let line = report.to_line() + "\n";
    let mut stdout = io::stdout().lock();
    _ = stdout
        .write_all(line.as_bytes())
        .and_then(|()| stdout.flush());
}
