//! `claimfs reserve PATH…` and `claimfs unreserve PATH…`

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::claim::{identity, lasting, outlives};
use super::covering::{Changes, covering, held, is_own, obstacles, shown};
use super::output;
use super::queue::Patience;
use super::real_path::names;
use super::status::Notes;
use super::tool::{self, Mount};
use super::waiting::Waiting;
use super::{Exit, Failure};
use crate::core::content;
use crate::core::{Name, hook};

#[derive(Debug, clap::Args)]
pub(super) struct Reserve {
    /// The files and directories: a directory is reserved with all below it
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    waiting: Waiting,
    /// The reason, which 'claimfs show' and refusals show to others [at most 256 bytes]
    #[arg(short, long = "reason", value_name = "TEXT")]
    message: Option<String>,
    /// Print the records of the reservations as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Unreserve {
    /// The files and directories to give back, with all that is yours below them
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print as JSON what covers each path now: the record of a reservation, or nobody
    #[arg(long)]
    json: bool,
}

impl Reserve {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        tool::check_reason(self.message.as_deref())?;
        let patience = self.waiting.patience()?;
        let names = names(&self.paths)?;
        let mount = Mount::find(mount)?;
        let me = lasting(&mount, ENDS, identity(&mount)?)?;
        let mut command = json!({ "reserve": listed(&names) });
        if let Some(reason) = &self.message {
            command["reason"] = json!(reason);
        }
        let end = patience.end();
        let mut changes = Changes::open(&mount)?;
        let mut notes = Notes::new();
        for attempt in 1.. {
            match mount.control(&command) {
                Ok(()) => return self.done(&mount, &names, &me),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(refused(&mount, &names, &error)),
            }
            if patience != Patience::None && notes.is_due() {
                let obstacle = obstacles(&mount, &names, &me)?;
                // It went meanwhile.
                if obstacle.is_none() && attempt == 1 {
                    continue;
                }
                let text = obstacle.as_ref().map_or_else(
                    || format!("{}: {PARTS}", shown(&names[0])),
                    |obstacle| obstacle.text.clone(),
                );
                let record = obstacle.map_or(Value::Null, |obstacle| obstacle.record);
                notes.waiting(&text, &record);
            }
            if patience == Patience::None || !changes.wait(end)? {
                let obstacles = obstacles(&mount, &names, &me)?;
                let waited = if patience == Patience::None {
                    ""
                } else {
                    "; waited in vain"
                };
                return Err(Failure::held(match obstacles {
                    // It went meanwhile.
                    None if patience == Patience::None && attempt < ATTEMPTS => continue,
                    None => format!("{}: {PARTS}{waited}", shown(&names[0])),
                    Some(obstacle) => format!("{}{waited}", obstacle.text),
                }));
            }
        }
        Err(Failure::held(format!(
            "{}: taken and freed by others all the time; try again, or wait with --wait",
            shown(&names[0])
        )))
    }

    fn done(&self, mount: &Mount, names: &[Name], me: &Value) -> Result<Exit, Failure> {
        let whose = outlives(me).map_or_else(String::new, |whose| format!("; {whose}"));
        for name in names {
            let Some((by, record)) = covering(mount, name)? else {
                continue;
            };
            if by == *name {
                self.keep(mount, name, &record);
            }
            let (session, token) = (
                tool::field(&record, "session"),
                tool::field(&record, "token"),
            );
            let path = shown(name);
            let sentence = if by == *name {
                format!("{path}: reserved by session {session}, token {token}{whose}")
            } else {
                format!("{path}: reserved already, as a part of {}", shown(&by))
            };
            output::done(self.json, &sentence, &record)?;
        }
        Ok(Exit::Done)
    }
}

impl Reserve {
    /// Replaces the reason of a reservation that a hook made, so that it is no longer given back
    /// when the turn ends.
    fn keep(&self, mount: &Mount, name: &Name, record: &Value) {
        let wanted = self.message.as_deref();
        if record["reason"] != hook::REASON || wanted == Some(hook::REASON) {
            return;
        }
        let path = mount.path(&[name.as_str()]);
        // It is reserved in any case.
        _ = match wanted {
            Some(reason) => {
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::setxattr(path, content::REASON, reason.as_bytes(), flags)
            }
            None => rustix::fs::removexattr(path, content::REASON),
        };
    }
}

impl Unreserve {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let names = names(&self.paths)?;
        let mount = Mount::find(mount)?;
        match mount.control(&json!({ "unreserve": listed(&names) })) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                let me = mount.whoami()?;
                let obstacle = names.iter().find_map(|name| {
                    let held = covering(&mount, name).ok().flatten();
                    held.filter(|(by, record)| by == name && !is_own(&me, record))
                });
                // Its holder gave it back in the meantime.
                if let Some((name, record)) = obstacle {
                    let held = held(&mount, &name, &name, &record);
                    output::done_quietly(self.json, &held, &record)?;
                    return Err(Failure::held(held));
                }
            }
            Err(error) => return Err(refused(&mount, &names, &error)),
        }
        for name in &names {
            self.say_given(&mount, name)?;
        }
        Ok(Exit::Done)
    }

    /// Says of a path that was given back what covers it still.
    fn say_given(&self, mount: &Mount, name: &Name) -> Result<(), Failure> {
        let sentence = format!("{}: given back", shown(name));
        let Some((by, record)) = covering(mount, name)? else {
            return output::done_quietly(self.json, &sentence, &tool::nobody(name));
        };
        if by != *name && is_own(&mount.whoami()?, &record) {
            tool::complain(&format!(
                "{}: still reserved, as a part of {1}: 'claimfs unreserve {1}'",
                shown(name),
                shown(&by)
            ));
        }
        output::done_quietly(self.json, &sentence, &record)
    }
}

/// The message for a reservation that would end with this command.
const ENDS: &str = "nothing reserved, as nobody in its session outlives this command (setsid, sudo, ssh and script start one) and \
     the reservation would end with it. Reserve in a script that goes on, or give its commands one session: \
     'claimfs session run -- COMMAND', or the same $CLAIMFS_SESSION for all";

/// Give up after this many tries that are refused with nobody in the way.
pub(super) const ATTEMPTS: usize = 10;

/// The message for what is refused though all that is in the way is the caller's.
pub(super) const PARTS: &str = "several processes of your session have parts of it, or one that its reservation is tied to; \
     reserve it there, or give the parts back first";

pub(super) fn listed(names: &[Name]) -> Vec<&str> {
    names.iter().filter_map(Name::as_path).collect()
}

pub(super) fn refused(mount: &Mount, names: &[Name], error: &io::Error) -> Failure {
    let is_top = |name: &&Name| name.as_path().is_some_and(|path| !path.contains('/'));
    let top = names.iter().find(is_top);
    let top = top.filter(|_| error.raw_os_error() == Some(libc::EPERM));
    let path = top.or(names.first()).map_or_else(String::new, shown);
    let why = match error.raw_os_error() {
        Some(libc::EPERM) => {
            "only root may reserve a directory right below '/', which would stop everybody"
        }
        Some(libc::EFBIG) => {
            "more than 256 paths, 64 KiB of them, or 1,024 reservations below; name fewer, or give those below back first"
        }
        Some(libc::EDQUOT) => "more than your user may have at once; give others back",
        Some(libc::ENOSPC) => {
            "no room for more leases, or none on the disk of the state directory; see 'claimfs doctor'"
        }
        _ => return mount.failed(&["control"], error),
    };
    Failure::unavailable(format!("{path}: {why}"))
}
