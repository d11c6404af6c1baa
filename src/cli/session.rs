//! `claimfs session run|ls|end`

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::columns::{self, SCREEN};
use super::output;
use super::tool::{self, Mount};
use super::{Exit, Failure, child};
use crate::sys::terminal;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Run a command as a session of its own, and pass its exit code through
    Run(Run),
    /// List the live sessions
    Ls(Ls),
    /// End a session and release all that it holds
    End(End),
}

#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// The session's id [default: one that no live session has]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Print messages on standard error as JSON: standard output is the command's
    #[arg(long)]
    json: bool,
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    command: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Ls {
    /// Print the sessions as JSON, a line each
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct End {
    /// The session's id
    id: String,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        match &self.verb {
            Verb::Run(run) => run.run(mount),
            Verb::Ls(ls) => ls.run(mount),
            Verb::End(end) => end.run(mount),
        }
    }
}

impl Run {
    fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        if self.json {
            tool::complain_in_json();
        }
        let mount = Mount::find(mount)?;
        let id = match &self.id {
            Some(id) => {
                let id = tool::session_id(id)?.as_str().to_owned();
                register(&mount, &id, false).map_err(|error| Self::unregistered(&id, &error))?;
                id
            }
            None => Self::register_new(&mount)?,
        };
        let signals = child::keep_signals();
        let mut command = child::command(&self.command)?;
        command.env("CLAIMFS_SESSION", &id);
        let mut child = child::spawn(&mut command, &signals)?;
        let status = child::supervise(&mut child, &signals, |_| {})?;
        Ok(Exit::Child(child::code(status)))
    }

    /// Registers this process as a new session.
    pub(super) fn register_new(mount: &Mount) -> Result<String, Failure> {
        let pid = process::id();
        for count in 0_u32.. {
            let id = if count == 0 {
                format!("run-{pid}")
            } else {
                format!("run-{pid}-{count}")
            };
            match register(mount, &id, true) {
                Ok(()) => return Ok(id),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Self::unregistered(&id, &error)),
            }
        }
        Err(Failure::unavailable(
            "no session id is free; give one with --id",
        ))
    }

    fn unregistered(id: &str, error: &io::Error) -> Failure {
        let (exit, text) = match error.kind() {
            io::ErrorKind::PermissionDenied => (
                Exit::Held,
                format!(
                    "sessions/{id}: not yours to join: it is a live session of another user or sandbox, or the mount \
                     cannot see this process; see 'claimfs whoami', or choose another with --id"
                ),
            ),
            _ => (Exit::Unavailable, format!("sessions/{id}: {error}")),
        };
        Failure { exit, text }
    }
}

/// Registers this process as a root of a session.
pub(super) fn register(mount: &Mount, id: &str, new: bool) -> io::Result<()> {
    let path = mount.path(&["sessions", id]);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .create_new(new)
        .open(path)?;
    write!(file, "{}", process::id())
}

impl Ls {
    fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let mount = Mount::find(mount)?;
        let mut rows = Vec::new();
        let now = SystemTime::now();
        for session in sessions(&mount)? {
            if self.json {
                if !output::list_json(&session)? {
                    return Ok(Exit::Done);
                }
                continue;
            }
            let roots = session["roots"].as_array().map_or(&[][..], Vec::as_slice);
            let first = roots.first().unwrap_or(&Value::Null);
            let more = roots.len().saturating_sub(1);
            let more = if more == 0 {
                String::new()
            } else {
                format!(" +{more}")
            };
            let leases = session["leases"].as_array().map_or(0, Vec::len);
            rows.push(vec![
                tool::field(&session, "id"),
                tool::field(&session, "rule"),
                if roots.is_empty() {
                    // It lives by its deadline.
                    String::from("-")
                } else {
                    format!(
                        "{} {}{more}",
                        tool::field(first, "pid"),
                        tool::field(first, "command")
                    )
                },
                leases.to_string(),
                tool::ago(&session, "since", now),
            ]);
        }
        if self.json {
            return Ok(Exit::Done);
        }
        if rows.is_empty() {
            tool::complain("no session is live");
            return Ok(Exit::Done);
        }
        let heading = ["SESSION", "RULE", "ROOTS", "LEASES", "AGE"];
        let lines = if io::stdout().is_terminal() {
            columns::fitted(
                &heading,
                &rows,
                terminal::size().map_or(SCREEN, |size| size.0),
            )
        } else {
            columns::aligned(&heading, &rows)
        };
        output::list_line(&lines.join("\n"))?;
        Ok(Exit::Done)
    }
}

fn sessions(mount: &Mount) -> Result<Vec<Value>, Failure> {
    let dir = mount.path(&["sessions"]);
    let failed = |error: io::Error| Failure::unavailable(format!("{}: {error}", dir.display()));
    let mut sessions = Vec::new();
    for entry in fs::read_dir(&dir).map_err(failed)? {
        // A session that ended after the listing is skipped.
        let text = fs::read_to_string(entry.map_err(failed)?.path()).unwrap_or_default();
        sessions.extend(serde_json::from_str::<Value>(&text));
    }
    Ok(sessions)
}

impl End {
    fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let id = tool::session_id(&self.id)?;
        let mount = Mount::find(mount)?;
        let ended = mount.control(&json!({ "end": id.as_str() }));
        let ended = ended.or_else(|error| match error.kind() {
            // Older servers do not know this command. They end a session when its file is removed.
            io::ErrorKind::InvalidInput => fs::remove_file(mount.path(&["sessions", id.as_str()])),
            _ => Err(error),
        });
        match ended {
            Ok(()) => {
                let value = json!({ "session": id.as_str(), "ended": true });
                output::done_quietly(self.json, &format!("sessions/{id}: ended"), &value)?;
                Ok(Exit::Done)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let sentence = format!("sessions/{id}: no live session; see 'claimfs session ls'");
                let value = json!({ "session": id.as_str(), "ended": false });
                output::done_quietly(self.json, &sentence, &value)?;
                Err(Failure::absent(sentence))
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(Failure::held(format!(
                    "sessions/{id}: another user's, or outside of this sandbox; only that user and root end it, from \
                     where its processes are or from above"
                )))
            }
            Err(error) => Err(mount.failed(&["sessions", id.as_str()], &error)),
        }
    }
}
