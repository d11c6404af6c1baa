//! `claimfs run NAME -- CMD`
//!
//! The lease belongs to a session of its own, whose roots are this process and CMD. It ends when
//! both have ended, so a `kill -9` of this process does not free a name that CMD still uses.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{self, Child};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::Value;

use super::queue::{self, Patience};
use super::tool::{self, Mount};
use super::{Exit, Failure, child, session};
use crate::core::Name;
use crate::sys::poll::Polled;
use crate::sys::signals;

/// CMD has this long to end after it was told that its lease is lost.
const GRACE: Duration = Duration::from_secs(5);

/// Give up after this many tries if the name is freed and taken again each time.
const ATTEMPTS: usize = 100;

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
pub(super) struct Arguments {
    /// The name to hold while the command runs
    name: String,
    /// Stand in line if another holds it, for no longer than TIME [such as 30s]
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    wait: Option<String>,
    /// The reason, which 'claimfs show' and refusals show to others [at most 256 bytes]
    #[arg(short, long = "reason", value_name = "TEXT")]
    message: Option<String>,
    /// Signal for the command if the lease is lost
    #[arg(long, value_name = "WHAT", default_value = "term")]
    on_loss: OnLoss,
    /// The exit code if another holds the name
    #[arg(short = 'E', long, value_name = "CODE", default_value_t = 1)]
    conflict_exit_code: u8,
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    command: Vec<OsString>,
}

impl Arguments {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let name = tool::claim_name(&self.name)?;
        let patience = Patience::of(self.wait.as_deref())?;
        tool::check_reason(self.message.as_deref())?;
        let mount = Mount::find(mount)?;
        let events = File::open(mount.path(&["events"]))
            .map_err(|error| Failure::unavailable(format!("events: {error}")))?;
        let id = session::Run::register_new(&mount)?;
        if let Some(record) = take(&mount, &name, patience)? {
            tool::complain(&tool::held_by(&name, &record));
            return Ok(Exit::Child(self.conflict_exit_code));
        }
        // Signals are for CMD from here on, so block them before the first thread starts.
        let signals = child::keep_signals();
        let record = mount.lease(&name)?.unwrap_or_default();
        if record["session"] != id.as_str() {
            return Err(Failure::held(format!(
                "claims/{name}: lost as soon as it was taken"
            )));
        }
        let token = tool::field(&record, "token");
        mount.give_reason(&name, self.message.as_deref())?;

        let mut command = child::command(&self.entering(&mount, &id)?)?;
        command
            .env("CLAIMFS_SESSION", &id)
            .env("CLAIMFS_CLAIM", name.as_str())
            .env("CLAIMFS_TOKEN", &token);
        let mut running = child::spawn(&mut command, &signals)?;
        let lost = Arc::new(AtomicBool::new(false));
        if self.on_loss != OnLoss::Ignore {
            let own = Own {
                mount: mount.clone(),
                name: name.clone(),
                record: record.clone(),
            };
            let lost = Arc::clone(&lost);
            thread::spawn(move || watch(events, &own, &lost));
        }
        let mut is_warned = false;
        let ended = child::supervise(&mut running, &signals, |running| {
            if lost.load(SeqCst) {
                self.lose(running, &name, &mut is_warned);
            }
        })?;
        // Release the lease, so that it is not reaped a moment later.
        let own = Own {
            mount,
            name,
            record,
        };
        if own.is_held() {
            _ = fs::remove_file(own.mount.path(&["claims", own.name.as_str()]));
        }
        Ok(Exit::Child(child::code(ended)))
    }

    /// The command line of `claimfs enter`, which joins the session and then executes the command.
    fn entering(&self, mount: &Mount, id: &str) -> Result<Vec<OsString>, Failure> {
        let mut words = vec![super::program()?];
        words.extend(["enter", "--mount"].map(OsString::from));
        words.push(mount.path(&[]).into_os_string());
        words.extend([id, "--"].map(OsString::from));
        words.extend(self.command.iter().cloned());
        Ok(words)
    }

    /// The lease is lost: the first call sends SIGTERM, the second SIGKILL.
    fn lose(&self, running: &Child, name: &Name, is_warned: &mut bool) {
        if *is_warned || self.on_loss == OnLoss::Kill {
            tool::complain(&format!("claims/{name}: lost; the command gets SIGKILL"));
            _ = signals::send(running.id(), libc::SIGKILL);
            return;
        }
        *is_warned = true;
        tool::complain(&format!(
            "claims/{name}: lost; the command gets SIGTERM, and SIGKILL in {} s",
            GRACE.as_secs()
        ));
        _ = signals::send(running.id(), libc::SIGTERM);
        thread::spawn(|| {
            thread::sleep(GRACE);
            _ = signals::send(process::id(), child::NUDGE);
        });
    }
}

/// Takes the name, waiting in its queue if requested. `None` if it is ours, else the record of its
/// holder.
fn take(mount: &Mount, name: &Name, patience: Patience) -> Result<Option<Value>, Failure> {
    let until = patience.end();
    for _ in 0..ATTEMPTS {
        if queue::create(mount, name)? {
            return Ok(None);
        }
        if patience != Patience::None {
            if queue::wait(mount, name, until)? {
                return Ok(None);
            }
            return Ok(Some(mount.lease(name)?.unwrap_or_default()));
        }
        if let Some(record) = mount.lease(name)? {
            return Ok(Some(record));
        }
    }
    Err(Failure::held(format!(
        "claims/{name}: taken and freed by others all the time; try again with --wait"
    )))
}

/// The lease, as it was when it was taken.
struct Own {
    mount: Mount,
    name: Name,
    record: Value,
}

impl Own {
    /// True if this same lease is still held. If the mount cannot be read, assume it is.
    fn is_held(&self) -> bool {
        let Ok(record) = self.mount.lease(&self.name) else {
            return true;
        };
        let same = |key| record.as_ref().map(|record| &record[key]) == Some(&self.record[key]);
        same("session") && same("token") && same("acquired_at")
    }

    /// True if an event means the loss of the lease. A release does not: CMD may release its own
    /// lease.
    fn is_lost_by(&self, event: &Value) -> bool {
        let token = &self.record["token"];
        let ours = event["claim"] == self.name.as_str();
        match event["event"].as_str() {
            Some("reaped" | "expired" | "broken") => ours && event["token"] == *token,
            Some("handed") => ours && event["was_token"] == *token,
            Some("session_ended") => event["session"] == self.record["session"],
            // Events were missed, and the loss may be among them.
            None if event.get("missed").is_some() => !self.is_held(),
            _ => false,
        }
    }
}

/// Reads events until the lease is lost, and wakes the main thread then.
fn watch(events: File, own: &Own, lost: &AtomicBool) {
    for line in BufReader::new(Polled(events)).lines() {
        let Ok(line) = line else { return };
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        if own.is_lost_by(&event) {
            lost.store(true, SeqCst);
            _ = signals::send(process::id(), child::NUDGE);
            return;
        }
    }
}
