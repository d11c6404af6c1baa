//! `claimfs claim NAME`

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::Path;
use std::process::{self, Command};
use std::time::Duration;

use serde_json::{Value, json};

use super::line::{self, Patience};
use super::tool::{self, Mount};
use super::{Exit, Failure};
use crate::lease::{Name, SessionId};

/// How often a name that is free whenever it is looked at, and taken whenever it is claimed, is tried again.
const ATTEMPTS: usize = 100;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The name to take
    name: String,
    /// The session to take it for [default: the one that 'claimfs whoami' prints]
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Free it after this time [such as 30s or 1h] unless you renew it: 'touch' it, or write to it
    #[arg(long, value_name = "TIME")]
    ttl: Option<String>,
    /// Stand in line if another holds it, for no longer than TIME [such as 30s]
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    wait: Option<String>,
    /// Print the lease's record as JSON, whoever holds it
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let name = tool::claim_name(&self.name)?;
        let ttl = self.ttl.as_deref().map(tool::ttl).transpose()?;
        let patience = Patience::of(self.wait.as_deref())?;
        if let Some(id) = &self.session {
            let id = tool::session_id(id)?;
            let there = Mount::find(mount)?;
            if is_unseen(&there.whoami()?) {
                return self.hold(&there, &name, &id, ttl);
            }
            return Err(self.speak_for(&id.as_str().into(), mount));
        }
        let mount = Mount::find(mount)?;
        let me = own_session(&mount)?;
        let until = patience.end();
        for _ in 0..ATTEMPTS {
            if line::create(&mount, &name)? {
                limit(&mount, &name, ttl)?;
                let record = mount.lease(&name)?;
                return Ok(self.taken(&name, record.as_ref(), "taken"));
            }
            // Free again since: another try.
            let Some(record) = mount.lease(&name)? else {
                continue;
            };
            // Also where this very script is registered in it: the others that share it are not.
            let shared = SessionId::new(me["session"].as_str().unwrap_or_default().as_bytes());
            let shared = me["rule"] == "posix" || shared.is_ok_and(|id| id.posix_uid().is_some());
            let own = record["session"] == me["session"];
            if !own || shared {
                if patience == Patience::None {
                    let text = if own {
                        shares(&name, &record)
                    } else {
                        tool::held_by(&name, &record)
                    };
                    return Ok(self.held(&record, &text));
                }
                if !line::stand(&mount, &name, until)? {
                    let record = mount.lease(&name)?.unwrap_or(record);
                    let text = format!("{}; waited in vain", tool::held_by(&name, &record));
                    return Ok(self.held(&record, &text));
                }
                limit(&mount, &name, ttl)?;
                let record = mount.lease(&name)?;
                return Ok(self.taken(&name, record.as_ref(), "taken"));
            }
            limit(&mount, &name, ttl)?;
            let record = mount.lease(&name)?.unwrap_or(record);
            return Ok(self.taken(&name, Some(&record), "held already"));
        }
        Err(Failure::held(format!(
            "claims/{name}: taken and freed by others all the time; try again"
        )))
    }

    /// Takes the name for a session without processes, since the mount cannot see any of ours.
    fn hold(
        &self,
        mount: &Mount,
        name: &Name,
        id: &SessionId,
        ttl: Option<Duration>,
    ) -> Result<Exit, Failure> {
        let ttl = ttl.ok_or_else(|| Failure::usage(UNSEEN))?;
        let seconds = ttl.as_secs_f64();
        let command = json!({ "claim": name.as_str(), "session": id.as_str(), "seconds": seconds });
        match mount.control(&command) {
            Ok(()) => {
                let record = mount.lease(name)?;
                Ok(self.taken(name, record.as_ref(), "taken"))
            }
            Err(error) => match mount.lease(name)? {
                Some(record) if error.raw_os_error() == Some(libc::EBUSY) => {
                    Ok(self.held(&record, &tool::held_by(name, &record)))
                }
                _ => Err(Failure::unavailable(format!("claims/{name}: {error}"))),
            },
        }
    }

    /// Starts this command again as if the variable had been set for it: its environment is what the mount reads.
    fn speak_for(&self, id: &OsString, mount: Option<&Path>) -> Failure {
        let mut again = match super::program() {
            Ok(program) => Command::new(program),
            Err(failure) => return failure,
        };
        again.env("CLAIMFS_SESSION", id);
        if let Some(mount) = mount {
            again.arg("--mount").arg(mount);
        }
        again.arg("claim");
        if self.json {
            again.arg("--json");
        }
        if let Some(wait) = &self.wait {
            again.arg(if wait.is_empty() {
                String::from("--wait")
            } else {
                format!("--wait={wait}")
            });
        }
        if let Some(ttl) = &self.ttl {
            again.arg("--ttl").arg(ttl);
        }
        let error = again.arg("--").arg(&self.name).exec();
        Failure::unavailable(format!(
            "cannot start again for session {}: {error}",
            id.display()
        ))
    }

    fn taken(&self, name: &Name, record: Option<&Value>, how: &str) -> Exit {
        match record {
            Some(record) if self.json => tool::say_json(record),
            Some(record) => {
                let (session, token) =
                    (tool::field(record, "session"), tool::field(record, "token"));
                tool::say(&format!(
                    "claims/{name}: {how} by session {session}, token {token}"
                ));
            }
            None => tool::say_json(&json!({ "name": name.as_str() })),
        }
        Exit::Done
    }

    fn held(&self, record: &Value, text: &str) -> Exit {
        if self.json {
            tool::say_json(record);
        }
        tool::complain(text);
        Exit::Held
    }
}

const UNSEEN: &str = "the mount cannot see this process, and so not whether it lives: claim for a session that lives by a deadline, \
     with --session ID --ttl TIME, and claim again before it ends";

/// Whether the mount cannot see this process.
fn is_unseen(me: &Value) -> bool {
    me["session"].is_null() && me["pid"].is_null()
}

/// The sentence for a name that another script of one's own terminal holds.
fn shares(name: &Name, record: &Value) -> String {
    format!(
        "claims/{name}: held by your own terminal session (pid {}, {}), whose scripts all share it; \
         give them sessions of their own with 'claimfs session run' or $CLAIMFS_SESSION",
        tool::field(record, "pid"),
        tool::field(record, "command"),
    )
}

/// Gives the claim that was taken its deadline.
fn limit(mount: &Mount, name: &Name, ttl: Option<Duration>) -> Result<(), Failure> {
    let Some(ttl) = ttl else {
        return Ok(());
    };
    let command = json!({ "ttl": name.as_str(), "seconds": ttl.as_secs_f64() });
    mount.control(&command).map_err(|error| {
        Failure::unavailable(format!(
            "claims/{name}: taken, but without a deadline: {error}; try again, or give it back with 'claimfs release {name}'"
        ))
    })
}

/// What `self` says, after it was made sure that the session does not end with this command: if this process would be
/// its only root, its parent is registered as one first.
fn own_session(mount: &Mount) -> Result<Value, Failure> {
    let me = mount.whoami()?;
    if is_unseen(&me) {
        return Err(Failure::usage(UNSEEN));
    }
    let Some(id) = me["session"].as_str() else {
        return Err(Failure::usage(format!(
            "no session: {}",
            tool::field(&me, "why")
        )));
    };
    let pid = u64::from(process::id());
    let alone = me["roots"]
        .as_array()
        .is_some_and(|roots| roots.iter().all(|root| root["pid"] == me["pid"]));
    if !alone {
        return Ok(me);
    }
    let id = if me["rule"] == "posix" {
        me["parent_session"].as_str().unwrap_or(id)
    } else {
        id
    };
    let path = mount.path(&["sessions", id]);
    let parent = parent_id();
    let register = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        write!(file, "{parent}")
    };
    register().map_err(|error| {
        Failure::unavailable(format!(
            "session {id} would end with this command (pid {pid}), and its parent (pid {parent}) cannot be registered: \
             {error}; run it from a shell that lives on"
        ))
    })?;
    mount.whoami()
}
