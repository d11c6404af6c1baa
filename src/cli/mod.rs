//! The command line: arguments in, exit code out. All verbs about leases, sessions and events are
//! plain file calls on a mount, which a shell could make too; others (`mount`, `umount`, `upgrade`,
//! `doctor`) use the layers below.
//!
//! Does not know: the store, or any rule. It reads about leases from the files of the mount.
// Comments on arguments are help text, which would print backticks.
#![allow(clippy::doc_markdown)]

mod break_;
mod child;
mod claim;
mod columns;
mod completions;
mod covering;
mod doctor;
mod enter;
mod events;
mod give;
mod help;
mod hook;
mod interrupt;
mod log;
mod ls;
mod man;
mod mount;
mod names;
mod notify;
mod output;
mod queue;
mod real_path;
mod release;
mod remount;
mod reserve;
mod run;
mod serve;
mod session;
mod setup;
mod show;
mod status;
mod take;
mod tool;
mod umount;
mod upgrade;
mod wait;
mod waiting;
mod watch;
mod whoami;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::core::failure::{Exit, Failure};

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Leases as files: a name in claims/ is yours exactly while you live.
#[derive(Debug, Parser)]
#[command(version, term_width = 80, after_help = after(), disable_help_subcommand = true)]
struct Arguments {
    /// The mount to use [default: $CLAIMFS_MOUNT, else the only one there is]
    #[arg(long, value_name = "DIR")]
    mount: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

/// The arguments of a verb that uses a mount.
#[derive(Debug, clap::Args)]
struct On<A: clap::Args> {
    #[command(flatten)]
    arguments: A,
    /// The mount to use [default: $CLAIMFS_MOUNT, else the only one there is]
    #[arg(long, global = true, value_name = "DIR")]
    mount: Option<PathBuf>,
}

/// The end of the help: exit codes, and what programs may rely on.
fn after() -> String {
    let codes = Exit::TABLE.iter();
    let codes: Vec<String> = codes
        .map(|(code, meaning)| format!("  {code} {meaning}\n"))
        .collect();
    format!("Exit codes:\n{}{AFTER}", codes.concat())
}

const AFTER: &str = "\
'run' and 'session run' else end with the exit code of their command.

With --json a verb prints one object a line. Its fields keep their names and
meanings in later versions, which may add fields. Sentences may change.

All but mount, umount, upgrade and doctor are plain file calls:
'cat MOUNT/README' says which.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Mount on a directory, and serve it in the background
    Mount(mount::Arguments),
    /// Unmount a directory
    Umount(umount::Arguments),
    /// Let the claimfs that is installed now serve a mount, without unmounting it
    Upgrade(upgrade::Arguments),
    /// Take a name: 0 if it is ours now or was already, 1 if another holds it,
    /// 3 if nobody outlives this command, so that it would be free at once
    Claim(On<claim::Arguments>),
    /// Give a name back: 0 also if it is free already
    #[command(alias = "unclaim")]
    Release(On<release::Arguments>),
    /// Free a name whose holder is alive but stuck: its user or root
    Break(On<break_::Arguments>),
    /// Hand a name to another live session
    Give(On<give::Arguments>),
    /// Reserve files and directories before you change them: 1 if another has
    /// one of them, or a part of it
    Reserve(On<reserve::Reserve>),
    /// Give reserved paths back: 0 also if they are free already
    Unreserve(On<reserve::Unreserve>),
    /// Answer an event of a coding agent, which its settings call this for:
    /// reserve the files of an edit. Exit code 2 is a refusal, 1 a failure
    Hook(On<hook::Arguments>),
    /// Print the settings with which an agent or git calls 'claimfs hook'
    Setup(On<setup::Arguments>),
    /// Wait until nobody holds a name, without taking it
    Wait(On<wait::Arguments>),
    /// Hold a name for as long as a command runs, also if this is killed
    Run(On<run::Arguments>),
    /// Print what happens, as it happens
    Events(On<events::Arguments>),
    /// Print what happened to a name, or to all, and why: the last 10,000 events
    Log(On<log::Arguments>),
    /// List who holds what
    Ls(On<ls::Arguments>),
    /// Show who holds a name, from whom, who is next, and when it is free
    Show(On<show::Arguments>),
    /// Say which session this is, why, and what its claims end with
    Whoami(On<whoami::Arguments>),
    /// Run a command as a session, list sessions, end one
    Session(On<session::Arguments>),
    /// Look for what is wrong, here or with a mount, and say the remedy
    Doctor(On<doctor::Arguments>),
    /// Look at a mount that may not answer
    #[command(hide = true)]
    DoctorLook(doctor::Look),
    /// Join a session and become a command
    #[command(hide = true)]
    Enter(On<enter::Arguments>),
    /// Serve a connection that a supervisor holds
    #[command(hide = true)]
    Serve(serve::Arguments),
    /// Tell watchers of what has gone
    #[command(hide = true)]
    Notify(notify::Arguments),
    /// Print a completion script for a shell
    Completions(completions::Arguments),
    /// Show a page of the manual; without a topic, list them
    Help(help::Arguments),
    /// Write the man pages
    #[command(hide = true)]
    Man(man::Arguments),
    /// Print the words that a shell completes
    #[command(hide = true)]
    Complete(On<completions::Complete>),
}

/// Runs the command that this process was called with.
pub fn main() -> ExitCode {
    let words = match waiting::joined(std::env::args_os().collect(), &command()) {
        Ok(words) => words,
        Err(failure) => return end(Err(failure)).into(),
    };
    let is_hook = waiting::verb(&words, &command()).is_some_and(|verb| verb == "hook");
    let Arguments { mount, verb } = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) if is_hook && error.use_stderr() => {
            return hook::misused(&error.to_string()).into();
        }
        Err(help) => return explain(&help).into(),
    };
    end(dispatch(mount.as_deref(), verb)).into()
}

/// Prints the help that was asked for, or why the arguments make no sense.
fn explain(help: &clap::Error) -> Exit {
    let printed = help.print();
    if help.use_stderr() {
        return Exit::Usage;
    }
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            end(Err(output::unwritten("", &error)))
        }
        _ => Exit::Done,
    }
}

/// Says why a command failed, if it did.
fn end(result: Result<Exit, Failure>) -> Exit {
    result.unwrap_or_else(|failure| {
        tool::complain(&failure.text);
        failure.exit
    })
}

fn dispatch(mount: Option<&Path>, verb: Verb) -> Result<Exit, Failure> {
    match verb {
        Verb::Mount(arguments) => alone(mount, || arguments.run()),
        Verb::Umount(arguments) => alone(mount, || arguments.run()),
        Verb::Upgrade(arguments) => alone(mount, || arguments.run()),
        Verb::Serve(arguments) => alone(mount, || arguments.run()),
        Verb::Claim(on) => on.run(mount, claim::Arguments::run),
        Verb::Release(on) => on.run(mount, release::Arguments::run),
        Verb::Break(on) => on.run(mount, break_::Arguments::run),
        Verb::Give(on) => on.run(mount, give::Arguments::run),
        Verb::Reserve(on) => on.run(mount, reserve::Reserve::run),
        Verb::Unreserve(on) => on.run(mount, reserve::Unreserve::run),
        Verb::Hook(on) => on.run(mount, hook::Arguments::run),
        Verb::Setup(on) => on.run(mount, setup::Arguments::run),
        Verb::Wait(on) => on.run(mount, wait::Arguments::run),
        Verb::Run(on) => on.run(mount, run::Arguments::run),
        Verb::Events(on) => on.run(mount, events::Arguments::run),
        Verb::Doctor(on) => on.run(mount, doctor::Arguments::run),
        Verb::DoctorLook(arguments) => alone(mount, || Ok(arguments.run())),
        Verb::Enter(on) => on.run(mount, enter::Arguments::run),
        Verb::Notify(arguments) => alone(mount, || arguments.run()),
        Verb::Log(on) => on.run(mount, log::Arguments::run),
        Verb::Ls(on) => on.run(mount, ls::Arguments::run),
        Verb::Show(on) => on.run(mount, show::Arguments::run),
        Verb::Whoami(on) => on.run(mount, whoami::Arguments::run),
        Verb::Session(on) => on.run(mount, session::Arguments::run),
        Verb::Complete(on) => on.run(mount, completions::Complete::run),
        Verb::Completions(arguments) => alone(mount, || arguments.run()),
        Verb::Help(arguments) => alone(mount, || arguments.run()),
        Verb::Man(arguments) => alone(mount, || arguments.run()),
    }
}

impl<A: clap::Args> On<A> {
    /// Runs a verb on the mount that was named behind it or, else, before it.
    fn run(
        &self,
        before: Option<&Path>,
        verb: impl FnOnce(&A, Option<&Path>) -> Result<Exit, Failure>,
    ) -> Result<Exit, Failure> {
        verb(&self.arguments, self.mount.as_deref().or(before))
    }
}

/// Runs a verb that uses no mount, or takes its directory as an argument.
fn alone(
    mount: Option<&Path>,
    verb: impl FnOnce() -> Result<Exit, Failure>,
) -> Result<Exit, Failure> {
    match mount {
        None => verb(),
        Some(dir) => Err(Failure::usage(format!(
            "--mount {}: does nothing for this command; leave it out, and give a directory as the argument where it \
             takes one",
            dir.display()
        ))),
    }
}

/// The arguments of all commands, for the help and the completions.
fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// The path of this program, to execute it again.
fn program() -> Result<OsString, Failure> {
    let program = std::env::current_exe();
    program
        .map(PathBuf::into_os_string)
        .map_err(|error| Failure::unavailable(format!("/proc/self/exe: {error}")))
}
