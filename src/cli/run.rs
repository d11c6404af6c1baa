//! `claimfs run NAME -- CMD`, also with one of several names, or all of them
//!
//! The lease belongs to a session of its own, whose roots are this process and CMD. It ends when
//! both have ended, so a `kill -9` of this process does not free a name that CMD still uses.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{self, Child};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::Value;

use super::names::Lists;
use super::take::{self, Taker, Took};
use super::tool::{self, Mount};
use super::waiting::Waiting;
use super::{Exit, Failure, child, session};
use crate::core::Name;
use crate::sys::poll::Polled;
use crate::sys::signals;

/// CMD has this long to end after it was told that its lease is lost.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnLoss {
    /// SIGTERM, and SIGKILL 5 s later
    Term,
    /// SIGKILL at once
    Kill,
    /// Nothing
    Ignore,
}

#[derive(Debug, clap::Args)]
#[command(override_usage = USAGE)]
pub(super) struct Arguments {
    /// The name to hold while the command runs
    #[arg(required_unless_present_any = ["any", "all"])]
    name: Option<OsString>,
    #[command(flatten)]
    lists: Lists,
    #[command(flatten)]
    waiting: Waiting,
    /// The reason, which 'claimfs show' and refusals show to others [at most 256 bytes]
    #[arg(short, long = "reason", value_name = "TEXT")]
    message: Option<String>,
    /// Signal for the command if the lease is lost
    #[arg(long, value_name = "WHAT", default_value = "term")]
    on_loss: OnLoss,
    /// The exit code if another holds the name [as of flock(1); 0 to 255]
    #[arg(short = 'E', long, value_name = "CODE", default_value_t = 1)]
    conflict_exit_code: u8,
    /// Print messages on standard error as JSON, and the records of what was taken: standard output
    /// is the command's
    #[arg(long)]
    json: bool,
    /// The command and its arguments
    #[arg(
        required_unless_present_any = ["any", "all"],
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    command: Vec<OsString>,
}

const USAGE: &str = "claimfs run [OPTIONS] <NAME> -- <CMD>...
       claimfs run [OPTIONS] <--any <LIST>|--all <LIST>> -- <CMD>...";

impl Arguments {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let (name, words) = self.words()?;
        let wanted = self.lists.wanted(name)?;
        let patience = self.waiting.patience()?;
        if self.json {
            tool::complain_in_json();
        }
        tool::check_reason(self.message.as_deref())?;
        let mount = Mount::find(mount)?;
        let events = File::open(mount.path(&["events"]))
            .map_err(|error| mount.failed(&["events"], &error))?;
        // Before it is of a session of its own.
        let caller = mount.whoami().ok();
        let id = session::Run::register_new(&mount)?;
        let taker = Taker {
            mount: &mount,
            is_own: &|record| record["session"] == id.as_str(),
            caller: caller.as_ref(),
            pid: None,
            patience,
            interrupt: None,
        };
        let took = taker.take(&wanted).map_err(|mut failure| {
            if failure.exit == Exit::Held {
                failure.exit = Exit::Child(self.conflict_exit_code);
            }
            failure
        })?;
        let names = match took {
            Took::Names(names) => names,
            Took::Held(held) => {
                let caller = caller.as_ref();
                take::say_held(&held, |name, record| {
                    take::held(&mount, caller, name, record)
                });
                return Ok(Exit::Child(self.conflict_exit_code));
            }
            Took::InVain(held) => {
                take::say_held(&held, |name, record| take::in_vain(&mount, name, record));
                return Ok(Exit::Child(self.conflict_exit_code));
            }
            Took::Stopped => return Ok(Exit::Held),
        };
        let own = Arc::new(Own::of(&mount, &id, names)?);
        self.hold(&own, &id, words, events)
    }

    /// Runs the command for as long as the leases are held, and releases them.
    fn hold(
        &self,
        own: &Arc<Own>,
        id: &str,
        words: Vec<OsString>,
        events: File,
    ) -> Result<Exit, Failure> {
        let mount = &own.mount;
        // Signals are for CMD from here on, so block them before the first thread starts.
        let signals = child::keep_signals();
        for (name, _) in &own.leases {
            mount.give_reason(name, self.message.as_deref())?;
        }
        if self.json {
            own.show();
        }
        let mut command = child::command(&entering(mount, id, words)?)?;
        command
            .env("CLAIMFS_SESSION", id)
            .env("CLAIMFS_CLAIM", own.names())
            .env("CLAIMFS_TOKEN", own.tokens());
        let mut running = child::spawn(&mut command, &signals)?;
        if self.on_loss != OnLoss::Ignore {
            let own = Arc::clone(own);
            thread::spawn(move || watch(events, &own));
        }
        let mut is_warned = false;
        let ended = child::supervise(&mut running, &signals, |running| {
            if let Some(name) = own.lost.get() {
                self.lose(running, name, &mut is_warned);
            }
        })?;
        own.release();
        Ok(Exit::Child(child::code(ended)))
    }

    /// The name, and the words of the command. With a list there is no name: then the first word
    /// was taken for one.
    fn words(&self) -> Result<(Option<&str>, Vec<OsString>), Failure> {
        let all = self.name.iter().chain(&self.command);
        if !self.lists.is_given() {
            let name = self.name.as_ref().and_then(|name| name.to_str());
            let name =
                name.ok_or_else(|| Failure::usage("the name is not UTF-8; choose one that is"))?;
            let after = env::args_os().skip_while(|word| word != "--").skip(1);
            if after.count() > self.command.len() {
                return Err(Failure::usage(
                    "there is no NAME before '--': 'claimfs run NAME -- COMMAND'",
                ));
            }
            return Ok((Some(name), self.command.clone()));
        }
        // The command line says whether a word is a name or of the command.
        let after = env::args_os().skip_while(|word| word != "--").skip(1);
        let words: Vec<OsString> = all.cloned().collect();
        if words.is_empty() {
            return Err(child::nothing_to_run());
        }
        if after.count() != words.len() {
            return Err(Failure::usage(
                "with --any or --all there is no NAME, and '--' comes before the command: 'claimfs run --any LIST -- COMMAND'",
            ));
        }
        Ok((None, words))
    }

    /// The lease is lost: the first call sends SIGTERM, the second SIGKILL.
    fn lose(&self, running: &Child, name: &Name, is_warned: &mut bool) {
        if *is_warned || self.on_loss == OnLoss::Kill {
            tool::complain(&format!(
                "claims/{name}: lost; the command gets SIGKILL; 'claimfs log {name}' says why"
            ));
            _ = signals::send(running.id(), libc::SIGKILL);
            return;
        }
        *is_warned = true;
        tool::complain(&format!(
            "claims/{name}: lost; the command gets SIGTERM, and SIGKILL in {} s; 'claimfs log {name}' says why",
            GRACE.as_secs()
        ));
        _ = signals::send(running.id(), libc::SIGTERM);
        thread::spawn(|| {
            thread::sleep(GRACE);
            _ = signals::send(process::id(), child::NUDGE);
        });
    }
}

/// The command line of `claimfs enter`, which joins the session and then executes the command.
fn entering(mount: &Mount, id: &str, command: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let mut words = vec![super::program()?];
    words.extend(["enter", "--mount"].map(OsString::from));
    words.push(mount.path(&[]).into_os_string());
    words.extend([id, "--"].map(OsString::from));
    words.extend(command);
    Ok(words)
}

/// The leases, as they were when they were taken.
struct Own {
    mount: Mount,
    leases: Vec<(Name, Value)>,
    /// The first that was lost.
    lost: OnceLock<Name>,
}

impl Own {
    /// The leases that a session has just taken.
    fn of(mount: &Mount, id: &str, names: Vec<(Name, bool)>) -> Result<Self, Failure> {
        let mut leases = Vec::new();
        for (name, _) in names {
            let record = mount.lease(&name)?.unwrap_or_default();
            if record["session"] != id {
                return Err(Failure::held(format!(
                    "claims/{name}: lost as soon as it was taken"
                )));
            }
            leases.push((name, record));
        }
        Ok(Self {
            mount: mount.clone(),
            leases,
            lost: OnceLock::new(),
        })
    }

    /// The names, separated by spaces.
    fn names(&self) -> String {
        let names = self.leases.iter().map(|(name, _)| name.as_str());
        names.collect::<Vec<_>>().join(" ")
    }

    /// Their tokens, separated by spaces.
    fn tokens(&self) -> String {
        let tokens = self.leases.iter();
        let tokens = tokens.map(|(_, record)| tool::field(record, "token"));
        tokens.collect::<Vec<_>>().join(" ")
    }

    /// True if this same lease is still held. If the mount cannot be read, assume it is.
    fn is_held(&self, name: &Name, taken: &Value) -> bool {
        let Ok(record) = self.mount.lease(name) else {
            return true;
        };
        let same = |key| record.as_ref().map(|record| &record[key]) == Some(&taken[key]);
        same("session") && same("token") && same("acquired_at")
    }

    /// Says as JSON what was taken.
    fn show(&self) {
        for (name, record) in &self.leases {
            tool::complain_of(&format!("claims/{name}: taken"), record);
        }
    }

    /// Releases the leases, so that they are not reaped a moment later.
    fn release(&self) {
        for (name, record) in &self.leases {
            if self.is_held(name, record) {
                _ = fs::remove_file(self.mount.path(&["claims", name.as_str()]));
            }
        }
    }

    /// True if an event means the loss of a lease. A release does not: CMD may release its own
    /// lease.
    fn is_lost_by(&self, event: &Value, name: &Name, record: &Value) -> bool {
        let token = &record["token"];
        let ours = event["claim"] == name.as_str();
        match event["event"].as_str() {
            Some("reaped" | "expired" | "broken") => ours && event["token"] == *token,
            Some("handed") => ours && event["was_token"] == *token,
            Some("session_ended") => event["session"] == record["session"],
            // Events were missed, and the loss may be among them.
            None if event.get("missed").is_some() => !self.is_held(name, record),
            _ => false,
        }
    }
}

/// Reads events until a lease is lost, and wakes the main thread then.
fn watch(events: File, own: &Own) {
    for line in BufReader::new(Polled(events)).lines() {
        let Ok(line) = line else { return };
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        let mut leases = own.leases.iter();
        let lost = leases.find(|(name, record)| own.is_lost_by(&event, name, record));
        if let Some((name, _)) = lost {
            _ = own.lost.set(name.clone());
            _ = signals::send(process::id(), child::NUDGE);
            return;
        }
    }
}
