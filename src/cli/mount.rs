//! `claimfs mount DIR`

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::{Exit, Failure};
use super::{remount, tool};
use crate::core::SessionId;
use crate::core::agents::{self, Agent};
use crate::core::identity::SESSION_VARIABLES;
use crate::logging;
use crate::mount::{DEFAULT_MAX_LEASES, Plan, Problem, default_state_dir, resolve_dir};
use crate::process::{Search, leave_terminal};
use crate::supervisor::{Told, device};

/// The longest name of an agent, in bytes: pid and time of its process are put behind it.
const AGENT_NAME_MAX: usize = 64;

/// What comes before what was lost, on that.
const LOST: &str = "lost: ";

/// The file in the state directory that says what came of an upgrade: nothing if all is well.
pub const UPGRADED: &str = "upgraded";

/// What a supervisor in the background says on its standard output once requests are answered.
const READY: &str = "ready";

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Stay, and log to standard error (RUST_LOG says how much)
    #[arg(short, long)]
    foreground: bool,
    /// Say so on standard output, and on it only, when the mount answers or why it does not
    #[arg(long, hide = true)]
    announce: bool,
    #[command(flatten)]
    settings: Settings,
}

/// What a mount is like: for its supervisor and for each of its servers.
// Each is a switch of the command line.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, clap::Args)]
pub struct Settings {
    /// Where the log and the state are kept
    /// [default: /var/lib/claimfs/… for root, $XDG_STATE_HOME/claimfs/… else]
    #[arg(long, value_name = "DIR", verbatim_doc_comment)]
    state_dir: Option<PathBuf>,
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
    /// How many leases, sessions and places in lines each user but root may have at once [default: half of --max-leases]
    #[arg(long, value_name = "N")]
    max_per_uid: Option<usize>,
    /// Set a damaged or missing journal aside, with what was claimed in the part that is lost
    #[arg(long)]
    repair: bool,
    /// Admit names with a leading dot as scratch files, which some lock programs need: no leases, gone with their session
    #[arg(long)]
    dotfiles: bool,
    /// Take the mount away and make it anew when a server dies, as on kernels before 6.9
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
    /// Mount options as mount(8) gives them: allow_other, dotfiles, nonempty, noexec, ro;
    /// remount with ro, rw, nosuid, nodev or noexec changes a mount that is there
    #[arg(short, value_name = "OPTS", value_delimiter = ',')]
    options: Vec<String>,
    /// The directory to mount on; it is made if it does not exist
    dir: PathBuf,
}

impl Arguments {
    pub fn run(self) -> Result<Exit, Failure> {
        let problem = |Problem(text)| Failure::unavailable(text);
        let settings = &self.settings;
        if settings.options.iter().any(|option| option == "remount") {
            if let Some(switch) = settings.switches().next() {
                return Err(Failure::usage(format!(
                    "{switch}: not changed by a remount; unmount, and mount with it"
                )));
            }
            return remount::run(&settings.dir, &settings.options);
        }
        let dir = resolve_dir(&self.settings.dir).map_err(problem)?;
        let plan = self.settings.plan(dir)?;
        if !self.foreground {
            return self.start(&plan);
        }
        if self.announce {
            leave_terminal().map_err(|error| Failure::unavailable(format!("setsid: {error}")))?;
            std::env::set_current_dir("/")
                .map_err(|error| Failure::unavailable(format!("/: {error}")))?;
        }
        logging::begin(&plan.log_file(), self.settings.log_bytes());
        let announce = self.announce;
        let upgraded = plan.state_dir.join(UPGRADED);
        let tell = |told| match told {
            Told::Ready => {
                if announce {
                    tool::say(READY);
                }
                if let Err(error) = notify("READY=1") {
                    log::warn!("systemd is not told that the mount is ready: {error}");
                }
            }
            Told::Lost(what) if announce => tool::say(&format!("{LOST}{what}")),
            Told::Lost(_) => {}
            Told::Upgraded(result) => {
                let text = result.err().unwrap_or_default();
                if text.is_empty() {
                    log::info!("upgraded");
                } else {
                    log::error!("no upgrade: {text}");
                }
                let new = upgraded.with_extension("new");
                let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &upgraded));
                if let Err(error) = written {
                    log::warn!("{}: {error}", upgraded.display());
                }
            }
        };
        let words = self.settings.words(&plan);
        let kept = plan.supervise(PathBuf::from(super::program()?), words, tell);
        kept.map(|()| Exit::Done).map_err(|Problem(text)| {
            if announce {
                tool::say(&text);
            }
            Failure::unavailable(text)
        })
    }

    /// Starts this command again in the background, and waits until its mount answers.
    fn start(&self, plan: &Plan) -> Result<Exit, Failure> {
        let problem = |Problem(text)| Failure::unavailable(text);
        plan.check(&mut tool::complain).map_err(problem)?;
        plan.make_state_dir().map_err(problem)?;
        let log = plan.log_file();
        let open = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&log);
        let stderr =
            open.map_err(|error| Failure::unavailable(format!("{}: {error}", log.display())))?;
        let mut supervisor = Command::new(super::program()?);
        supervisor.args(["mount", "--foreground", "--announce"]);
        if self.settings.repair {
            supervisor.arg("--repair");
        }
        supervisor
            .args(self.settings.words(plan))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let mut supervisor = supervisor
            .spawn()
            .map_err(|error| Failure::unavailable(format!("claimfs: {error}")))?;
        let mut word = String::new();
        if let Some(stdout) = supervisor.stdout.take() {
            let mut said = BufReader::new(stdout);
            _ = said.read_line(&mut word);
            while let Some(lost) = word.strip_prefix(LOST) {
                tool::complain(lost.trim_end());
                word.clear();
                _ = said.read_line(&mut word);
            }
        }
        match word.trim_end() {
            READY => answers(plan, &log),
            "" => Err(Failure::unavailable(format!(
                "{}: the server ended before it had mounted; its log is {}",
                plan.dir.display(),
                log.display()
            ))),
            text => Err(Failure::unavailable(text)),
        }
    }
}

impl Settings {
    /// What they come to, for a directory given by its canonical path.
    pub fn plan(&self, dir: PathBuf) -> Result<Plan, Failure> {
        let problem = |Problem(text)| Failure::unavailable(text);
        let state_dir = match &self.state_dir {
            Some(state_dir) => absolute(state_dir)?,
            None => default_state_dir(&dir).map_err(problem)?,
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
        // Those that one is told of come first.
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
            options,
        };
        for option in &self.options {
            apply(&mut plan, option)?;
        }
        plan.max_per_uid = self.max_per_uid.unwrap_or(plan.max_leases.div_ceil(2));
        Ok(plan)
    }

    /// The directory, as it was given.
    pub fn dir(&self) -> PathBuf {
        self.dir.clone()
    }

    /// How long the log in the state directory may be.
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes.unwrap_or(logging::BYTES_MAX)
    }

    /// The switches that were given, but for a repair, which is done once.
    fn switches(&self) -> impl Iterator<Item = &'static str> {
        let switches = [
            (self.allow_other, "--allow-other"),
            (self.dotfiles, "--dotfiles"),
            (self.no_agents, "--no-agents"),
            (self.without_resend, "--without-resend"),
            (self.without_caches, "--without-caches"),
        ];
        let given = switches.into_iter().filter(|(is_given, _)| *is_given);
        given.map(|(_, switch)| switch)
    }

    /// The same settings as words of a command line, but for a repair, which is done once.
    fn words(&self, plan: &Plan) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["--state-dir".into(), plan.state_dir.clone().into()];
        words.extend(["--max-leases".into(), self.max_leases.to_string().into()]);
        if let Some(most) = self.max_per_uid {
            words.extend(["--max-per-uid".into(), most.to_string().into()]);
        }
        if let Some(bytes) = self.log_bytes {
            words.extend(["--log-bytes".into(), bytes.to_string().into()]);
        }
        if let Some(search) = self.endings {
            words.extend(["--endings".into(), search.to_string().into()]);
        }
        words.extend(self.switches().map(Into::into));
        for agent in &self.agent {
            words.extend(["--agent".into(), agent.into()]);
        }
        for name in &self.session_var {
            words.extend(["--session-var".into(), name.into()]);
        }
        if !self.options.is_empty() {
            words.extend(["-o".into(), self.options.join(",").into()]);
        }
        words.extend(["--".into(), plan.dir.clone().into()]);
        words
    }
}

/// Tells the service manager, if there is one, as sd_notify(3) does.
fn notify(state: &str) -> io::Result<()> {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    sender.send_to_addr(state.as_bytes(), &address).map(|_| ())
}

fn answers(plan: &Plan, log: &Path) -> Result<Exit, Failure> {
    let dir = plan.dir.display();
    fs::read(plan.dir.join("README")).map_err(|error| {
        Failure::unavailable(format!(
            "{dir}: mounted, but it does not answer: {error}; its log is {}",
            log.display()
        ))
    })?;
    _ = writeln!(
        io::stdout().lock(),
        "claimfs: mounted on {dir}; its log is {}",
        log.display()
    );
    Ok(Exit::Done)
}

fn absolute(dir: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(dir).map_err(|error| Failure::usage(format!("{}: {error}", dir.display())))
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

/// One option of `-o`. Those that are so anyway, and those that only fstab(5) is read for, are taken in silence.
fn apply(plan: &mut Plan, option: &str) -> Result<(), Failure> {
    let (key, value) = option.split_once('=').unwrap_or((option, ""));
    match key {
        "allow_other" => plan.options.allow_other = true,
        "dotfiles" => plan.dotfiles = true,
        "noexec" => plan.options.noexec = true,
        "ro" => plan.options.read_only = true,
        "nonempty" => plan.nonempty = true,
        "state_dir" if !value.is_empty() => plan.state_dir = absolute(Path::new(value))?,
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
