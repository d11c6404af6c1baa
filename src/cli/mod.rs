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
mod completions;
mod doctor;
mod enter;
mod events;
mod give;
mod help;
mod interrupt;
mod ls;
mod man;
mod mount;
mod names;
mod notify;
mod queue;
mod release;
mod remount;
mod reserve;
mod run;
mod serve;
mod session;
mod show;
mod take;
mod tool;
mod umount;
mod upgrade;
mod wait;
mod whoami;

use std::ffi::OsString;
use std::path::PathBuf;
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
#[command(version, term_width = 80, after_help = AFTER, disable_help_subcommand = true)]
struct Arguments {
    /// The mount to use [default: $CLAIMFS_MOUNT, else the only one there is]
    #[arg(long, global = true, value_name = "DIR")]
    mount: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

const AFTER: &str = "\
Exit codes: 0 done, 1 held by another, 2 usage, 3 no mount or unavailable.
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
    Claim(claim::Arguments),
    /// Give a name back: 0 also if it is free already
    #[command(alias = "unclaim")]
    Release(release::Arguments),
    /// Free a name whose holder is alive but stuck: its user or root
    Break(break_::Arguments),
    /// Hand a name to another live session
    Give(give::Arguments),
    /// Reserve files and directories before you change them: 1 if another has
    /// one of them, or a part of it
    Reserve(reserve::Reserve),
    /// Give reserved paths back: 0 also if they are free already
    Unreserve(reserve::Unreserve),
    /// Wait until nobody holds a name, without taking it
    Wait(wait::Arguments),
    /// Hold a name for as long as a command runs, also if this is killed
    Run(run::Arguments),
    /// Print what happens, as it happens
    Events(events::Arguments),
    /// List who holds what
    Ls(ls::Arguments),
    /// Show who holds a name, from whom, who is next, and when it is free
    Show(show::Arguments),
    /// Say which session this is, why, and what its claims end with
    Whoami(whoami::Arguments),
    /// Run a command as a session, list sessions, end one
    #[command(subcommand)]
    Session(session::Verb),
    /// Look for what is wrong, here or with a mount, and say the remedy
    Doctor(doctor::Arguments),
    /// Look at a mount that may not answer
    #[command(hide = true)]
    DoctorLook(doctor::Look),
    /// Join a session and become a command
    #[command(hide = true)]
    Enter(enter::Arguments),
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
}

/// Runs the command that this process was called with.
pub fn main() -> ExitCode {
    let Arguments { mount, verb } = Arguments::parse();
    let mount = mount.as_deref();
    let result = match verb {
        Verb::Mount(arguments) => arguments.run(),
        Verb::Umount(arguments) => arguments.run(),
        Verb::Upgrade(arguments) => arguments.run(),
        Verb::Serve(arguments) => arguments.run(),
        Verb::Claim(arguments) => arguments.run(mount),
        Verb::Release(arguments) => arguments.run(mount),
        Verb::Break(arguments) => arguments.run(mount),
        Verb::Give(arguments) => arguments.run(mount),
        Verb::Reserve(arguments) => arguments.run(mount),
        Verb::Unreserve(arguments) => arguments.run(mount),
        Verb::Wait(arguments) => arguments.run(mount),
        Verb::Run(arguments) => arguments.run(mount),
        Verb::Events(arguments) => arguments.run(mount),
        Verb::Doctor(arguments) => arguments.run(mount),
        Verb::DoctorLook(arguments) => Ok(arguments.run()),
        Verb::Enter(arguments) => arguments.run(mount),
        Verb::Notify(arguments) => arguments.run(),
        Verb::Ls(arguments) => arguments.run(mount),
        Verb::Show(arguments) => arguments.run(mount),
        Verb::Whoami(arguments) => arguments.run(mount),
        Verb::Session(verb) => verb.run(mount),
        Verb::Completions(arguments) => Ok(arguments.run()),
        Verb::Help(arguments) => arguments.run(),
        Verb::Man(arguments) => arguments.run(),
    };
    result
        .unwrap_or_else(|failure| {
            tool::complain(&failure.text);
            failure.exit
        })
        .into()
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
