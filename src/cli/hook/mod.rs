//! `claimfs hook`: what the settings of a coding agent call for each of its events, and
//! `claimfs hook pre-commit`, which git calls.
//!
//! Promises: the agent never waits longer than [`LIMIT`] for a mount. A copy of this process is
//! the only one that touches it, and is left behind if it hangs. Exit code 2, which blocks a tool,
//! is a refusal; every failure is 1, which only shows a line.
//!
//! Does not know: what an event asks for (`core/hook.rs`).

mod answer;
mod edit;
mod find;
mod pre_commit;

use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, process};

use serde_json::Value;

use self::answer::Answer;
use super::tool;
use super::{Exit, Failure};
use crate::core::hook::{self, Asked, EVENT_MAX};
use crate::core::printable;
use crate::sys::child::in_copy;

/// How long a mount may take to answer.
const LIMIT: Duration = Duration::from_secs(2);

/// Makes refusals of the failures of the mount, if it is set.
const REQUIRE: &str = "CLAIMFS_REQUIRE";

/// The exit code of a refusal, which blocks the tool.
const REFUSED: u8 = 2;

/// The exit code of a failure, which an agent shows and passes over.
const FAILED: u8 = 1;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Check the staged files of a commit for git, instead of an agent's event
    #[arg(value_enum, value_name = "pre-commit", hide_possible_values = true)]
    git: Option<Git>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Git {
    PreCommit,
}

impl Arguments {
    #[allow(clippy::unnecessary_wraps)]
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let answer = match self.git {
            None => on_event(mount),
            Some(Git::PreCommit) => pre_commit::run(mount),
        };
        Ok(answer.give())
    }
}

/// The exit code for wrong arguments: 1, as 2 would block the agent's tool. It says the first line
/// of what is wrong with them.
pub(super) fn misused(error: &str) -> Exit {
    let line = error.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    tool::complain(&format!(
        "{}; see 'claimfs hook --help'",
        printable(line.trim_end_matches(':'))
    ));
    Exit::Child(FAILED)
}

fn on_event(mount: Option<&Path>) -> Answer {
    let asked = read_event().and_then(|text| hook::asked(&text));
    let asked = match asked {
        Ok(Asked::Nothing) => return Answer::silence(),
        Ok(asked) => asked,
        Err(why) => return Answer::failed(why),
    };
    let may_refuse = matches!(asked, Asked::Reserve(_)) && is_required();
    let errand = Errand::here();
    let mut answer = within_limit(may_refuse.then_some(REFUSED), FAILED, || {
        edit::answer(mount, &asked, &errand)
    });
    // An agent is told one line; some failures list mounts.
    answer.complaint = answer.complaint.replace('\n', " ");
    answer
}

/// Does the work in a copy of this process, and turns the failures of the mount into refusals of
/// the exit code `required`, if there is one. Without, they end with the code `failed`.
fn within_limit(
    required: Option<u8>,
    failed: u8,
    work: impl FnOnce() -> Result<Answer, Trouble>,
) -> Answer {
    let code = required.unwrap_or(failed);
    let stated = |why: &str| {
        let set = if required.is_some() {
            format!("; refused, as {REQUIRE} is set")
        } else {
            String::new()
        };
        Answer::coded(code, format!("{why}{set}"))
    };
    let work = || {
        let answer = work().unwrap_or_else(|trouble| match trouble {
            Trouble::NoMount(_) if required.is_none() => Answer::silence(),
            Trouble::NoMount(None) => stated(NO_MOUNT),
            Trouble::NoMount(Some(dir)) => stated(&format!(
                "{0}: no claimfs is mounted there; mount it with 'claimfs mount {0}'",
                printable(&dir.to_string_lossy())
            )),
            Trouble::Input(failure) => Answer::coded(failed, failure.text),
            Trouble::Failed(failure) => stated(&failure.text),
        });
        answer.encode()
    };
    match in_copy(LIMIT, work) {
        Ok(Some(bytes)) => Answer::decode(&bytes)
            .unwrap_or_else(|| stated("the copy of this process that asks the mount has ended")),
        Ok(None) => stated(&format!(
            "the mount does not answer within {} s, so nothing is reserved or given back; see 'claimfs doctor'",
            LIMIT.as_secs()
        )),
        Err(error) => stated(&format!("no copy of this process: {error}")),
    }
}

/// The processes that end with this hook: itself, and those above it that only run it, such as a
/// shell's `-c 'claimfs hook'`, or `timeout 5 claimfs hook`.
struct Errand(Vec<u32>);

impl Errand {
    fn here() -> Self {
        let own = words(process::id());
        let mut pids = vec![process::id()];
        let mut above = Some(parent_id());
        while let Some(pid) = above.filter(|pid| pids.len() < ERRAND_MAX && runs(*pid, &own)) {
            pids.push(pid);
            above = parent(pid);
        }
        Self(pids)
    }

    fn has(&self, pid: &Value) -> bool {
        let pid = pid.as_u64();
        pid.is_some_and(|pid| self.0.iter().any(|own| u64::from(*own) == pid))
    }
}

/// The most processes of an errand.
const ERRAND_MAX: usize = 8;

/// True if a process only runs the command of these words.
fn runs(pid: u32, own: &[String]) -> bool {
    let words = words(pid);
    let mut rest = words.iter().skip(1);
    let is_shells = rest.any(|word| word.starts_with('-') && word.ends_with('c'))
        && rest.next().is_some_and(|command| hook::is_call(command));
    is_shells || words.len() > own.len() && words.ends_with(own)
}

fn words(pid: u32) -> Vec<String> {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = text.strip_suffix(b"\0").unwrap_or(&text);
    let words = text.split(|byte| *byte == 0);
    words
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

/// The parent of a process: the second field behind its name, in parentheses, in `stat`.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

const NO_MOUNT: &str = "no claimfs is mounted here; mount one with 'claimfs mount'";

/// Why the mount is of no use.
enum Trouble {
    /// There is none that this user could use, or none on the directory that was named.
    NoMount(Option<PathBuf>),
    /// It was not asked, as the event or the environment makes no sense.
    Input(Failure),
    /// It has a fault, or refuses for another reason than a holder.
    Failed(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn is_required() -> bool {
    env::var_os(REQUIRE).is_some_and(|value| !value.is_empty() && value != "0")
}

fn read_event() -> Result<Vec<u8>, String> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(String::from(
            "an agent calls this, with an event as JSON on standard input; see 'claimfs help agents'",
        ));
    }
    let mut text = Vec::new();
    let mut bounded = stdin.lock().take(EVENT_MAX as u64 + 1);
    bounded
        .read_to_end(&mut text)
        .map_err(|error| format!("the event cannot be read: {error}"))?;
    if text.len() > EVENT_MAX {
        return Err(format!("the event has more than {EVENT_MAX} bytes"));
    }
    Ok(text)
}

impl Answer {
    /// Prints it: the exit code.
    fn give(&self) -> Exit {
        // The agent may not read it; the exit code is what counts.
        _ = io::stdout().lock().write_all(self.said.as_bytes());
        for line in self.complaint.lines() {
            tool::complain(line);
        }
        Exit::Child(self.code)
    }
}
