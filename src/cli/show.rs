//! `claimfs show NAME`, or a path

use std::path::Path;
use std::time::SystemTime;

use serde_json::Value;

use super::covering;
use super::output;
use super::tool::{self, Mount};
use super::{Exit, Failure};
use crate::core::Name;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The name to show; or a path, such as /home/me/app or ./src, with what is reserved above and
    /// below it
    name: String,
    /// Print the record as JSON: of a path that which covers it or, else, those below it
    #[arg(long)]
    json: bool,
    /// Print nothing: 0 if it is held by us, 1 by another, 4 if it is free. A path is held by
    /// another also if that has a part of it
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
}

impl Arguments {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let name = tool::lease_name(&self.name)?;
        let mount = Mount::find(mount)?;
        let held = if name.is_path() {
            covering::covering(&mount, &name)?
        } else {
            mount.lease(&name)?.map(|record| (name.clone(), record))
        };
        if self.quiet {
            return quiet(&mount, &name, held.as_ref().map(|(_, record)| record));
        }
        let Some((by, record)) = held else {
            return self.free(&mount, &name);
        };
        if self.json {
            output::list_json(&record)?;
            return Ok(Exit::Done);
        }
        if by != name {
            output::list_line(&format!(
                "{}: reserved as a part of {}:",
                covering::shown(&name),
                covering::shown(&by)
            ))?;
        }
        let name = by;
        let roots = tool::roots(&mount, record["session"].as_str().unwrap_or_default());
        let mut lines = holder_lines(&name, &record, &roots);
        lines.extend(term_lines(&record));
        lines.extend(waiter_lines(&mount, &name, &record)?);
        lines.extend(end_lines(&record, &roots));
        output::list_line(&lines.join("\n"))?;
        Ok(Exit::Done)
    }

    /// Nobody holds it, or covers it. Others may have parts of a path.
    fn free(&self, mount: &Mount, name: &Name) -> Result<Exit, Failure> {
        let below = if name.is_path() {
            covering::below(mount, name)?
        } else {
            Vec::new()
        };
        if below.is_empty() {
            if self.json {
                output::list_json(&tool::nobody(name))?;
            } else {
                tool::complain(&format!("{}: free", name.file()));
            }
            return Ok(Exit::Done);
        }
        if self.json {
            for (_, record) in &below {
                if !output::list_json(record)? {
                    break;
                }
            }
            return Ok(Exit::Done);
        }
        let (path, count) = (covering::shown(name), below.len());
        let mut lines = vec![format!("{path}: not reserved itself; {count} below it:")];
        let below = covering::below_lines(mount, &below).into_iter();
        lines.extend(below.map(|line| format!("  {line}")));
        output::list_line(&lines.join("\n"))?;
        Ok(Exit::Done)
    }
}

/// Whose a lease is, as an exit code.
fn quiet(mount: &Mount, name: &Name, record: Option<&Value>) -> Result<Exit, Failure> {
    let Some(record) = record else {
        let names = std::slice::from_ref(name);
        let is_clear =
            !name.is_path() || covering::obstacles(mount, names, &mount.whoami()?)?.is_none();
        return Ok(if is_clear { Exit::Absent } else { Exit::Held });
    };
    Ok(if tool::is_ours(mount, &mount.whoami()?, record) {
        Exit::Done
    } else {
        Exit::Held
    })
}

/// The claim and its holder.
fn holder_lines(name: &Name, record: &Value, roots: &[Value]) -> Vec<String> {
    let cell = |key| tool::field(record, key);
    let is_process = record["scope"] == "process" || record.get("bound_pid").is_some();
    if record["pid"] == 0 {
        return vec![
            format!("claim    {name}"),
            format!("session  {}", cell("session")),
            format!(
                "process  none, uid {}; {}",
                cell("uid"),
                tool::until(record)
            ),
            format!("why      {}", cell("why")),
        ];
    }
    let is_alive = roots.is_empty() || roots.iter().any(|root| root["pid"] == record["pid"]);
    let (who, how) = match (is_process, is_alive) {
        (true, _) => ("holder ", ""),
        (false, true) => ("process", ""),
        (false, false) => ("maker  ", ", which has ended"),
    };
    let mut lines = vec![
        format!("claim    {name}"),
        format!("session  {}", cell("session")),
        format!(
            "{who}  pid {}, {}, uid {}{how}",
            cell("pid"),
            cell("command"),
            cell("uid")
        ),
    ];
    // 'claimfs run' has taken it, and another root is the command that it runs.
    let runs = tool::living_of(roots, record).filter(|_| is_alive && !is_process);
    if let Some(command) = runs.filter(|command| command["pid"] != record["pid"]) {
        lines.push(format!("for      {}", tool::process(&command)));
    }
    if record.get("from_pid").is_some() {
        let how = match &record["from_exit"] {
            Value::Null => String::from("which has ended, so it passed on"),
            code => format!("which exited with {code}, so it passed on"),
        };
        let (pid, command) = (cell("from_pid"), cell("from_command"));
        lines.push(format!("from     pid {pid}, {command}, {how}"));
    }
    if record.get("why").is_some() {
        lines.push(format!("why      {}", cell("why")));
    }
    lines
}

/// Since when and on what terms it is held.
fn term_lines(record: &Value) -> Vec<String> {
    let cell = |key| tool::field(record, key);
    let held = tool::ago(record, "acquired_at", SystemTime::now());
    let mut lines = vec![
        format!("since    {} ({held})", cell("acquired_at")),
        format!("token    {}", cell("token")),
    ];
    if let Some(reason) = tool::reason(record) {
        lines.push(format!("reason   {reason}, as the holder says"));
    }
    if record.get("expires_in").is_some() {
        let (left, ttl) = (cell("expires_in"), cell("ttl"));
        lines.push(format!("expires  in {left} s, if not renewed ({ttl} s)"));
    }
    lines
}

/// The number of waiters that are shown one by one.
const SHOWN: usize = 10;

/// Those who wait for it, each with its place.
fn waiter_lines(mount: &Mount, name: &Name, record: &Value) -> Result<Vec<String>, Failure> {
    if !record["waiters"].is_u64() {
        return Ok(Vec::new());
    }
    let (all, now) = (mount.waiters()?, SystemTime::now());
    let queue = all.iter().filter(|waiter| waiter["claim"] == name.as_str());
    let queue: Vec<&Value> = queue.collect();
    let line = |waiter: &&Value| {
        let session = match &waiter["session"] {
            Value::Null => String::new(),
            _ => format!("{}, ", tool::field(waiter, "session")),
        };
        format!(
            "waits    {} of {}: {session}pid {}, {}, for {}",
            tool::field(waiter, "place"),
            queue.len(),
            tool::field(waiter, "pid"),
            tool::field(waiter, "command"),
            tool::ago(waiter, "since", now)
        )
    };
    let mut lines: Vec<String> = queue.iter().take(SHOWN).map(line).collect();
    match queue.len().saturating_sub(SHOWN) {
        0 => {}
        more => lines.push(format!(
            "waits    and {more} more; see the file waiters of the mount"
        )),
    }
    Ok(lines)
}

/// Who has it next, and when it is free.
fn end_lines(record: &Value, roots: &[Value]) -> Vec<String> {
    if record.get("bound_pid").is_some() {
        let pid = tool::field(record, "bound_pid");
        return vec![format!("free     when pid {pid} ends, in any way")];
    }
    if let Some(holder) = roots.iter().find(|root| is_maker(root, record)) {
        return successor_lines(holder, roots);
    }
    // The process that claimed may have exited. Show the processes that keep the session alive.
    let alive = roots.iter().map(|root| {
        let (pid, command) = (tool::field(root, "pid"), tool::field(root, "command"));
        format!("alive    pid {pid}, {command}")
    });
    alive.collect()
}

/// True if this process holds the lease under process scope.
fn is_maker(root: &Value, record: &Value) -> bool {
    record["scope"] == "process" && root["pid"] == record["pid"]
}

/// The processes that a lease under process scope will pass to, as lines.
fn successor_lines(holder: &Value, roots: &[Value]) -> Vec<String> {
    let by_pid = |pid: &Value| roots.iter().find(|root| root["pid"] == *pid);
    let next = |root: &&Value| by_pid(&root["next_pid"]);
    let all: Vec<&Value> = std::iter::successors(Some(holder), next)
        .take(roots.len())
        .collect();
    let successors = all.get(1..).unwrap_or_default();
    let mut lines: Vec<String> = successors
        .iter()
        .map(|root| {
            let (pid, command) = (tool::field(root, "pid"), tool::field(root, "command"));
            format!("next     pid {pid}, {command}, once the one before exits")
        })
        .collect();
    lines.push(match successors.last() {
        Some(last) => format!(
            "free     once {} exits, or as soon as its holder is killed",
            tool::process(last)
        ),
        None => String::from("free     once the holder exits or is killed"),
    });
    lines
}
