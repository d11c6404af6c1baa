//! `claimfs claim NAME`, or one of several names, or all of them

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::Path;
use std::process::{self, Command};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::interrupt::Interrupt;
use super::names::{Lists, Wanted};
use super::output;
use super::queue::Patience;
use super::take::{self, Taker, Took};
use super::tool::{self, Mount};
use super::waiting::Waiting;
use super::{Exit, Failure};
use crate::core::{Name, SessionId};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The name to take
    #[arg(required_unless_present_any = ["any", "all"], conflicts_with_all = ["any", "all"])]
    name: Option<String>,
    #[command(flatten)]
    lists: Lists,
    /// The session to take it for [default: the one that 'claimfs whoami' prints]
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Free it after this time [such as 30s or 1h] unless you renew it: 'touch' it, or write to it
    #[arg(long, value_name = "TIME")]
    ttl: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
    /// The reason, which 'claimfs show' and refusals show to others [at most 256 bytes]
    #[arg(short, long = "reason", value_name = "TEXT")]
    message: Option<String>,
    /// Print the lease's record as JSON, whoever holds it
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let wanted = self.lists.wanted(self.name.as_deref())?;
        let ttl = self.ttl.as_deref().map(tool::ttl).transpose()?;
        let patience = self.waiting.patience()?;
        tool::check_reason(self.message.as_deref())?;
        if let Some(id) = &self.session {
            let id = tool::session_id(id)?;
            let there = Mount::find(mount)?;
            if is_unseen(&there.whoami()?) {
                return self.claim_unseen(&there, &wanted, &id, ttl);
            }
            return Err(self.exec_for(&id.as_str().into(), mount));
        }
        let mount = Mount::find(mount)?;
        let me = identity(&mount)?;
        if patience == Patience::None {
            let held = held_elsewhere(&mount, &wanted, &me)?;
            if !held.is_empty() {
                return self.held(&held, |name, record| others(&mount, name, &me, record));
            }
        }
        let me = lasting(&mount, &ends(&wanted), me)?;
        // Waiting for the second name, it gives back the first if it is asked to end.
        let waits = patience != Patience::None && matches!(wanted, Wanted::All(_));
        let interrupt = waits.then(Interrupt::new).transpose();
        let interrupt = interrupt.map_err(|error| Failure::unavailable(error.to_string()))?;
        let taker = Taker {
            mount: &mount,
            is_own: &|record| is_own(&me, record) && mount.lets_change(record),
            caller: Some(&me),
            pid: Some(&me["pid"]),
            patience,
            interrupt: interrupt.as_ref(),
        };
        match taker.take(&wanted)? {
            Took::Names(names) => self.took(&mount, &names, ttl, &me),
            Took::Held(held) => self.held(&held, |name, record| others(&mount, name, &me, record)),
            Took::InVain(held) => {
                self.held(&held, |name, record| take::in_vain(&mount, name, record))
            }
            Took::Stopped => Ok(interrupt.map_or(Exit::Held, |interrupt| interrupt.end())),
        }
    }

    /// Sets the terms of the claims that are ours, and prints them.
    fn took(
        &self,
        mount: &Mount,
        names: &[(Name, bool)],
        ttl: Option<Duration>,
        me: &Value,
    ) -> Result<Exit, Failure> {
        for (name, _) in names {
            self.set_terms(mount, name, ttl)?;
        }
        for (name, is_new) in names {
            let how = if *is_new { "taken" } else { "held already" };
            self.say_taken(name, mount.lease(name)?.as_ref(), how, me)?;
        }
        Ok(Exit::Done)
    }

    /// Sets the deadline and the reason of the claim that was taken.
    fn set_terms(&self, mount: &Mount, name: &Name, ttl: Option<Duration>) -> Result<(), Failure> {
        limit(mount, name, ttl)?;
        mount.give_reason(name, self.message.as_deref())
    }

    /// Takes the name for a session without processes, since the mount cannot see this one.
    fn claim_unseen(
        &self,
        mount: &Mount,
        wanted: &Wanted,
        id: &SessionId,
        ttl: Option<Duration>,
    ) -> Result<Exit, Failure> {
        match wanted.names() {
            _ if self.message.is_some() => Err(Failure::usage(NO_REASON)),
            [name] => self.hold(mount, name, id, ttl),
            _ => Err(Failure::usage(NO_LIST)),
        }
    }

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
                self.say_taken(name, record.as_ref(), "taken", &Value::Null)?;
                Ok(Exit::Done)
            }
            Err(error) => match mount.lease(name)? {
                Some(record) if error.raw_os_error() == Some(libc::EBUSY) => {
                    let held = [(name.clone(), record)];
                    self.held(&held, |name, record| tool::held_by(mount, name, record))
                }
                _ => Err(mount.failed(&["claims", name.as_str()], &error)),
            },
        }
    }

    /// Executes this command again with the session variable set, since the mount reads the
    /// environment of the exec.
    fn exec_for(&self, id: &OsString, mount: Option<&Path>) -> Failure {
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
        again.args(self.waiting.argument());
        if let Some(ttl) = &self.ttl {
            again.arg("--ttl").arg(ttl);
        }
        if let Some(message) = &self.message {
            again.arg(format!("--reason={message}"));
        }
        again.args(self.lists.arguments());
        let error = again.arg("--").args(&self.name).exec();
        Failure::unavailable(format!(
            "cannot start again for session {}: {error}",
            id.display()
        ))
    }

    fn say_taken(
        &self,
        name: &Name,
        record: Option<&Value>,
        how: &str,
        me: &Value,
    ) -> Result<(), Failure> {
        let Some(record) = record else {
            // It was lost in the meantime.
            let sentence = format!("claims/{name}: {how}, and free again meanwhile");
            return output::done(self.json, &sentence, &tool::nobody(name));
        };
        let (session, token) = (tool::field(record, "session"), tool::field(record, "token"));
        let whose = outlives(me).map_or_else(String::new, |whose| format!("; {whose}"));
        let sentence = format!("claims/{name}: {how} by session {session}, token {token}{whose}");
        output::done(self.json, &sentence, record)
    }

    fn held(
        &self,
        held: &[(Name, Value)],
        text: impl Fn(&Name, &Value) -> String,
    ) -> Result<Exit, Failure> {
        take::say_held(held, text);
        for (name, record) in held {
            let sentence = format!("claims/{name}: not taken");
            output::done_quietly(self.json, &sentence, record)?;
        }
        Ok(Exit::Held)
    }
}

const UNSEEN: &str = "the mount cannot see this process, and so not whether it lives: claim for a session that lives by a deadline, \
     with --session ID --ttl TIME, and claim again before it ends";

const NO_REASON: &str =
    "a claim for a session that lives by a deadline has no reason: leave -m out";

const NO_LIST: &str = "a claim for a session that lives by a deadline is of one name at a time";

/// The message for claims that would end with this command.
fn ends(wanted: &Wanted) -> String {
    let names: Vec<&Name> = wanted.names().iter().collect();
    let again = match wanted {
        Wanted::Any(names) if names.len() == 1 => names[0].to_string(),
        Wanted::Any(_) => String::from("--any LIST"),
        Wanted::All(_) => String::from("--all LIST"),
    };
    format!(
        "{}: not taken, as nobody in its session outlives this command (setsid, sudo, ssh and script start one) and \
         the claim would end with it. Hold it while a command runs: 'claimfs run {again} -- COMMAND'. Or claim it in a script \
         that goes on there, or for a session that does: --session ID",
        take::listed(&names)
    )
}

/// True if the mount cannot see this process.
fn is_unseen(me: &Value) -> bool {
    me["session"].is_null() && me["pid"].is_null()
}

/// True if this command holds a lease already: its session does or, under process scope, this
/// process or its parent. A process further up may be another script.
fn is_own(me: &Value, record: &Value) -> bool {
    if record["session"] != me["session"] {
        return false;
    }
    let holder = match &record["bound_pid"] {
        Value::Null => &record["pid"],
        bound => bound,
    };
    if me["scope"] == "process" {
        return *holder == me["pid"] || *holder == me["then"][0]["pid"];
    }
    // Also false if this script is registered in a terminal's session, since other scripts share
    // that.
    let id = SessionId::new(me["session"].as_str().unwrap_or_default().as_bytes());
    me["rule"] != "posix" && id.is_ok_and(|id| id.posix_uid().is_none())
}

/// The message for a name that another holds: the holder, and what to do.
fn others(mount: &Mount, name: &Name, me: &Value, record: &Value) -> String {
    let (pid, command) = (tool::field(record, "pid"), tool::field(record, "command"));
    // Under process scope, not all live roots of the session are above this command.
    let above = if me["scope"] == "process" {
        "then"
    } else {
        "roots"
    };
    let above = me[above].as_array().map_or(&[][..], Vec::as_slice);
    // Valid only if the mount sees the same pids as this process.
    let is_parent = me["pid"] == process::id() && record["pid"] == parent_id();
    let is_above = is_parent || above.iter().any(|root| root["pid"] == record["pid"]);
    if record["session"] != me["session"] && is_above {
        return format!(
            "claims/{name}: held by pid {pid} ({command}), which is above this command but took it for session {}, not for {}: it is \
             free when that exits; to free it now: 'claimfs break {name}'",
            tool::field(record, "session"),
            tool::field(me, "session")
        );
    }
    if record["session"] == me["session"] && me["scope"] == "session" && me["rule"] != "posix" {
        return format!(
            "claims/{name}: held by session {} of another user or another sandbox, which has the id of yours; choose \
             another id, as by $CLAIMFS_SESSION",
            tool::field(me, "session")
        );
    }
    if record["session"] == me["session"] && me["scope"] == "session" {
        return format!(
            "claims/{name}: held by your own terminal session (pid {pid}, {command}), whose scripts all share it; \
             give them sessions of their own with 'claimfs session run' or $CLAIMFS_SESSION"
        );
    }
    if record["session"] == me["session"] {
        let time = tool::ago(record, "acquired_at", SystemTime::now());
        let which = if is_above {
            "a process above this script"
        } else {
            "another process of this terminal or sandbox"
        };
        return format!(
            "claims/{name}: held by pid {pid} ({command}), {which}, for {time}; see 'claimfs show {name}'"
        );
    }
    tool::held_by(mount, name, record)
}

/// Under process scope: the process that holds the claim after this command, and the one whose end
/// frees it.
pub(super) fn outlives(me: &Value) -> Option<String> {
    let next = &me["then"][0];
    let last = tool::field(me, "ends_with");
    let next = next.is_object().then(|| tool::process(next))?;
    Some(if next == last {
        format!("it is {next}'s now, and free when that exits")
    } else {
        format!("it is {next}'s now, its parent's when that exits, and free when {last} does")
    })
}

/// Sets the deadline of the claim that was taken.
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

/// The content of `self`, for a process that can claim.
pub(super) fn identity(mount: &Mount) -> Result<Value, Failure> {
    let me = mount.whoami()?;
    if is_unseen(&me) {
        return Err(Failure::usage(UNSEEN));
    }
    if me["session"].is_null() {
        return Err(Failure::usage(format!(
            "no session: {}",
            tool::field(&me, "why")
        )));
    }
    Ok(me)
}

/// The leases for which a claim is refused, if this process would have to register a shell before
/// it could claim: a refused claim must not create a session.
fn held_elsewhere(
    mount: &Mount,
    wanted: &Wanted,
    me: &Value,
) -> Result<Vec<(Name, Value)>, Failure> {
    let mut held = Vec::new();
    if me["alone"] != true {
        return Ok(held);
    }
    // The session that the shell would get.
    let posix = me["rule"] == "posix" && me["scope"] != "process";
    let own = &me[if posix { "parent_session" } else { "session" }];
    for name in wanted.names() {
        let record = mount.lease(name)?;
        let record = record.filter(|record| record["session"] != *own);
        held.extend(record.map(|record| (name.clone(), record)));
    }
    if matches!(wanted, Wanted::Any(names) if held.len() < names.len()) {
        held.clear();
    }
    Ok(held)
}

/// The content of `self`, after making sure that the claim does not end with this command: if this
/// process would be the only root of its session, its parent is registered as one. `ends` is the
/// message if that is not possible.
pub(super) fn lasting(mount: &Mount, ends: &str, me: Value) -> Result<Value, Failure> {
    if me["scope"] == "process" {
        return if me["alone"] == true {
            Err(Failure::unavailable(ends))
        } else {
            Ok(me)
        };
    }
    // The claim is refused, and says so.
    if me["foreign"] == true {
        return Ok(me);
    }
    let pid = u64::from(process::id());
    let alone = me["roots"]
        .as_array()
        .is_some_and(|roots| roots.iter().all(|root| root["pid"] == me["pid"]));
    if !alone {
        return Ok(me);
    }
    let id = me["session"].as_str().unwrap_or_default();
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
    let registered = register().map_err(|error| {
        Failure::unavailable(format!(
            "session {id} would end with this command (pid {pid}), and its parent (pid {parent}) cannot be registered: \
             {error}; run it from a shell that lives on"
        ))
    });
    registered?;
    tool::complain(&format!(
        "this shell (pid {parent}) is session {id} from now on; 'claimfs session end {id}' ends that"
    ));
    mount.whoami()
}
