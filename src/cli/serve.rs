//! `claimfs serve`, which the supervisor of a mount starts on the connection that it holds: not for people.

use std::io::{self, Write};

use super::mount::Settings;
use super::{Exit, Failure, tool};
use crate::logging;
use crate::mount::Problem;
use crate::process::call_this;
use crate::server::{Link, Report};
use crate::supervisor::program::PROVED;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The connection: the descriptor is standard input
    #[arg(long, value_name = "NONCE", default_value = "")]
    connection: String,
    /// What the kernel has said that it can do, on a connection that has begun
    #[arg(long, value_name = "BITS")]
    capabilities: Option<u64>,
    /// Only read what the state directory remembers
    #[arg(long)]
    prove: bool,
    #[command(flatten)]
    settings: Settings,
}

impl Arguments {
    pub fn run(self) -> Result<Exit, Failure> {
        // The supervisor starts what it holds open, and that has no name of its own.
        call_this("claimfs");
        // The mount may not be touched before it is served: its path is taken as it is.
        let plan = self.settings.plan(self.settings.dir())?;
        let unavailable = |Problem(text)| Failure::unavailable(text);
        if self.prove {
            plan.prove(&self.connection).map_err(unavailable)?;
            tool::say(PROVED);
            return Ok(Exit::Done);
        }
        logging::begin(&plan.log_file(), self.settings.log_bytes());
        let link = Link {
            nonce: self.connection,
            capabilities: self.capabilities,
        };
        let served = plan.serve(&link, |report| match report {
            Report::Lost(what) => say("lost", what),
            Report::Ready(capabilities) => say("ready", &capabilities.to_string()),
            Report::Asked => say("asked", ""),
            Report::Answered => say("answered", ""),
        });
        served
            .inspect_err(|Problem(text)| say("failed", text))
            .map(|()| Exit::Done)
            .map_err(unavailable)
    }
}

/// A line for the supervisor, which may be gone.
fn say(word: &str, rest: &str) {
    let line = format!("{word} {}\n", rest.replace('\n', " "));
    let mut stdout = io::stdout().lock();
    _ = stdout
        .write_all(line.as_bytes())
        .and_then(|()| stdout.flush());
}
