//! The settings of a mount, and the command line that hands them to its supervisor and servers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::core::SessionId;
use crate::core::agents::{self, Agent};
use crate::core::failure::Failure;
use crate::core::identity::SESSION_VARIABLES;
use crate::core::scaffolding::Limits;
use crate::logging;
use crate::mount::state_dir::StateDir;
use crate::mount::{DEFAULT_MAX_LEASES, Plan};
use crate::process::Search;
use crate::supervisor::device;

/// The longest name of an agent, in bytes: the pid and start time of its process are appended to
/// it.
const AGENT_NAME_MAX: usize = 64;

/// The settings of a mount, for its supervisor and for each of its servers.
///
/// They are given on the command line of each, since an upgrade may start a server of another
/// version. [`Settings::words`] makes that command line from the serialised settings, so that none
/// can be forgotten: a field is the option of its name.
// Each is a switch of the command line.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug, PartialEq, clap::Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) struct Settings {
    /// Where the log and the state are kept
    /// [default: /var/lib/claimfs/… for root, $XDG_STATE_HOME/claimfs/… else]
    // A path may be no text, which serde_json cannot carry.
    #[arg(long, value_name = "DIR", verbatim_doc_comment)]
    #[serde(skip)]
    pub(super) state_dir: Option<PathBuf>,
    /// Admit every user, not only the one who mounts
    #[arg(long)]
    allow_other: bool,
    /// A further environment variable that names a session
    #[arg(long, value_name = "NAME")]
    session_var: Vec<String>,
    /// A further coding agent: name=…,session-var=…,mark=…,pid-var=…,comm=…
    #[arg(long, value_name = "AGENT")]
    agent: Vec<String>,
    /// Know no coding agents but those given by --agent
    #[arg(long)]
    no_agents: bool,
    /// How many leases there may be at once
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_LEASES)]
    max_leases: usize,
    /// How many leases, sessions and places in queues each user but root may have at once [default:
    /// half of --max-leases]
    #[arg(long, value_name = "N")]
    max_per_uid: Option<usize>,
    /// Set a damaged or missing journal aside, with what was claimed in the part that is lost
    // Done once, by the first server.
    #[arg(long)]
    #[serde(skip)]
    pub(super) repair: bool,
    /// Admit names with a leading dot as scratch files, which some lock programs need: no leases,
    /// gone with their session
    #[arg(long)]
    dotfiles: bool,
    /// Take the mount away and make it again when a server dies, as on kernels before 6.9
    #[arg(long, hide = true)]
    without_resend: bool,
    /// Read everything of each process each time
    #[arg(long, hide = true)]
    without_caches: bool,
    /// Where to look for how processes ended: pidfd, connector, connector:BYTES of its buffer, none
    #[arg(long, value_name = "SOURCE", hide = true)]
    endings: Option<Search>,
    /// How long the log may be, in bytes
    #[arg(long, value_name = "BYTES", hide = true)]
    log_bytes: Option<u64>,
    /// How long an empty directory below paths/ stays that nobody uses, in milliseconds
    #[arg(long, value_name = "MS", hide = true)]
    directories_stay: Option<u64>,
    /// How many empty directories there may be below paths/, and of each user but root
    #[arg(long, value_name = "N", hide = true)]
    max_directories: Option<usize>,
    /// Mount options as mount(8) gives them: allow_other, dotfiles, nonempty, noexec, ro;
    /// remount with ro, rw, nosuid, nodev or noexec changes a mount that is there
    #[arg(short, value_name = "OPTS", value_delimiter = ',')]
    #[serde(skip)]
    pub(super) options: Vec<String>,
    /// The directory to mount on; it is made if it does not exist
    /// [default: /run/claims for root, $XDG_RUNTIME_DIR/claims else]
    #[arg(verbatim_doc_comment)]
    #[serde(skip)]
    pub(super) dir: Option<PathBuf>,
}

impl Settings {
    /// The plan that they describe, for a directory given by its canonical path.
    pub(in crate::cli) fn plan(&self, dir: PathBuf) -> Result<Plan, Failure> {
        let state_dir = match &self.state_dir {
            Some(state_dir) => StateDir::at(state_dir)?,
            None => StateDir::default_of(&dir)?,
        };
        let mut variables: Vec<Arc<str>> = SESSION_VARIABLES.map(Arc::from).to_vec();
        for name in &self.session_var {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(Failure::usage(format!(
                    "--session-var '{name}': no name of an environment variable"
                )));
            }
            variables.push(Arc::from(name.as_str()));
        }
        // Agents from the command line come first.
        let told: Result<Vec<Agent>, Failure> = self.agent.iter().map(|text| agent(text)).collect();
        let known = (!self.no_agents).then(agents::known);
        let agents = told?
            .into_iter()
            .chain(known.into_iter().flatten())
            .collect();
        let options = device::Options {
            allow_other: self.allow_other,
            ..device::Options::default()
        };
        let mut plan = Plan {
            dir,
            state_dir,
            variables,
            agents,
            max_leases: self.max_leases,
            max_per_uid: 0,
            repair: self.repair,
            dotfiles: self.dotfiles,
            nonempty: false,
            without_resend: self.without_resend,
            without_caches: self.without_caches,
            endings: self.endings.unwrap_or_default(),
            scaffolding: self.scaffolding(),
            options,
        };
        for option in &self.options {
            apply(&mut plan, option)?;
        }
        plan.max_per_uid = self.max_per_uid.unwrap_or(plan.max_leases.div_ceil(2));
        Ok(plan)
    }

    fn scaffolding(&self) -> Limits {
        let usual = Limits::default();
        Limits {
            idle: self
                .directories_stay
                .map_or(usual.idle, Duration::from_millis),
            empty: self.max_directories.unwrap_or(usual.empty),
            empty_of_uid: self
                .max_directories
                .map_or(usual.empty_of_uid, |most| most.div_ceil(4)),
        }
    }

    /// The directory, as it was given.
    pub(in crate::cli) fn dir(&self) -> Result<PathBuf, Failure> {
        let dir = self.dir.clone();
        dir.ok_or_else(|| Failure::usage("no directory is given; this is not for people"))
    }

    pub(super) fn admits_others(&self) -> bool {
        self.allow_other || self.options.iter().any(|option| option == "allow_other")
    }

    /// How long the log in the state directory may be.
    pub(in crate::cli) fn log_bytes(&self) -> u64 {
        self.log_bytes.unwrap_or(logging::BYTES_MAX)
    }

    /// The switches that were given, but for a repair, which is done once.
    pub(super) fn switches(&self) -> Result<impl Iterator<Item = String>, Failure> {
        let given = self.serialised()?.into_iter();
        let given = given.filter(|(_, value)| *value == Value::Bool(true));
        Ok(given.map(|(switch, _)| switch))
    }

    /// The options and their values, but for the paths and those of `-o`.
    fn serialised(&self) -> Result<Map<String, Value>, Failure> {
        match serde_json::to_value(self) {
            Ok(Value::Object(options)) => Ok(options),
            Ok(_) => Ok(Map::new()),
            Err(error) => Err(Failure::unavailable(error.to_string())),
        }
    }

    /// The same settings as a command line for supervisor and servers, which find the directories
    /// as they were resolved here.
    pub(super) fn words(&self, plan: &Plan) -> Result<Vec<OsString>, Failure> {
        let state_dir = plan.state_dir.path();
        let mut words: Vec<OsString> = vec!["--state-dir".into(), state_dir.into()];
        for (name, value) in &self.serialised()? {
            push_option(&mut words, name, value);
        }
        let options = self.options.iter().map(String::as_str);
        // It was relative to the directory that the command was started in.
        let options = options.filter(|option| !option.starts_with("state_dir="));
        let options: Vec<&str> = options.collect();
        if !options.is_empty() {
            words.extend(["-o".into(), options.join(",").into()]);
        }
        words.extend(["--".into(), plan.dir.clone().into()]);
        Ok(words)
    }
}

/// Adds an option to a command line: a switch for true, and one option for each of several values.
fn push_option(words: &mut Vec<OsString>, name: &str, value: &Value) {
    match value {
        Value::Null | Value::Bool(false) => {}
        Value::Bool(true) => words.push(format!("--{name}").into()),
        Value::Array(values) => values
            .iter()
            .for_each(|value| push_option(words, name, value)),
        Value::String(text) => words.extend([format!("--{name}").into(), text.into()]),
        other => words.extend([format!("--{name}").into(), other.to_string().into()]),
    }
}

/// An agent as it is described on the command line.
fn agent(text: &str) -> Result<Agent, Failure> {
    let wrong = |why: &str| Failure::usage(format!("--agent '{text}': {why}"));
    let mut agent = Agent {
        name: "".into(),
        values: Vec::new(),
        marks: Vec::new(),
        pid: None,
        programs: Vec::new(),
    };
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if value.is_empty() || value.contains(['=', '\0']) {
            return Err(wrong(&format!("'{part}' is not KEY=VALUE")));
        }
        let value = std::borrow::Cow::Owned(value.to_owned());
        match key {
            "name" => agent.name = value,
            "session-var" => agent.values.push(value),
            "mark" => agent.marks.push(value),
            "pid-var" => agent.pid = Some(value),
            "comm" => agent.programs.push(value),
            _ => {
                return Err(wrong(&format!(
                    "there is no '{key}'; see 'claimfs mount --help'"
                )));
            }
        }
    }
    if SessionId::new(agent.name.as_bytes()).is_err() || agent.name.len() > AGENT_NAME_MAX {
        return Err(wrong("it has no name that can be part of a session's"));
    }
    if agent.values.is_empty() && agent.marks.is_empty() && agent.programs.is_empty() {
        return Err(wrong(
            "nothing says how it is recognised: session-var, mark or comm",
        ));
    }
    Ok(agent)
}

/// Applies one option of `-o`. Those that always hold, and those that only matter in fstab(5), are
/// accepted in silence.
fn apply(plan: &mut Plan, option: &str) -> Result<(), Failure> {
    let (key, value) = option.split_once('=').unwrap_or((option, ""));
    match key {
        "allow_other" => plan.options.allow_other = true,
        "dotfiles" => plan.dotfiles = true,
        "noexec" => plan.options.noexec = true,
        "ro" => plan.options.read_only = true,
        "nonempty" => plan.nonempty = true,
        "state_dir" if !value.is_empty() => plan.state_dir = StateDir::at(Path::new(value))?,
        "session_var" if !value.is_empty() => plan.variables.push(Arc::from(value)),
        "max_leases" => {
            plan.max_leases = value
                .parse()
                .map_err(|_| Failure::usage(format!("-o max_leases={value}: not a number")))?;
        }
        "" | "rw" | "exec" | "nosuid" | "nodev" | "suid" | "dev" | "nosymfollow" | "defaults"
        | "auto" | "noauto" | "user" | "nouser" | "users" | "nofail" | "_netdev" | "noatime"
        | "relatime" => {}
        _ if key.starts_with("x-") => {}
        _ => {
            return Err(Failure::usage(format!(
                "-o {option}: no such option; see 'claimfs mount --help'"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn parsed(words: &[OsString]) -> Settings {
        let line = std::iter::once(OsString::from("claimfs")).chain(words.iter().cloned());
        Line::try_parse_from(line).unwrap().settings
    }

    fn settings() -> Settings {
        let mut path = OsString::from("/tmp/no ");
        path.push(std::ffi::OsStr::from_bytes(b"text\xff"));
        // Every field has a value of its own here: a new one is to be added to this test.
        Settings {
            state_dir: Some(PathBuf::from(&path).join("state")),
            allow_other: true,
            session_var: vec!["ONE".into(), "TWO".into()],
            agent: vec!["name=a,mark=A".into(), "name=b,comm=b".into()],
            no_agents: true,
            max_leases: 7,
            max_per_uid: Some(3),
            repair: false,
            dotfiles: true,
            without_resend: true,
            without_caches: true,
            endings: Some("connector:4096".parse().unwrap()),
            log_bytes: Some(9),
            directories_stay: Some(5),
            max_directories: Some(6),
            options: vec!["noexec".into(), "max_leases=8".into()],
            dir: Some(PathBuf::from(&path).join("mount")),
        }
    }

    #[test]
    fn a_server_gets_all_settings() {
        let settings = settings();
        let plan = settings.plan(settings.dir().unwrap()).unwrap();
        assert_eq!(parsed(&settings.words(&plan).unwrap()), settings);
        let (mount, state) = (OsString::from("/m"), OsString::from("/s"));
        let few = parsed(&["--state-dir".into(), state, mount]);
        let plan = few.plan(few.dir().unwrap()).unwrap();
        let words = few.words(&plan).unwrap();
        let usual = ["--state-dir", "/s", "--max-leases", "1048576", "--", "/m"];
        assert_eq!(words, usual);
        assert_eq!(parsed(&words), few);
    }

    #[test]
    fn a_repair_is_the_first_servers_alone_and_directories_are_resolved_once() {
        let mut settings = settings();
        settings.repair = true;
        settings.options = vec!["state_dir=relative".into(), "ro".into()];
        let plan = settings.plan(PathBuf::from("/m")).unwrap();
        let again = parsed(&settings.words(&plan).unwrap());
        let state = std::env::current_dir().unwrap().join("relative");
        assert_eq!(again.state_dir, Some(state));
        assert_eq!(again.options, ["ro"]);
        assert!(!again.repair);
    }
}
