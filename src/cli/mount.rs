//! `claimfs mount DIR`

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::tool;
use super::{Exit, Failure};
use crate::identity::SESSION_VARIABLES;
use crate::keeper;
use crate::mount::{DEFAULT_MAX_LEASES, Plan, Problem, default_state_dir, resolve_dir};
use crate::process::leave_terminal;

/// What a server in the background says on its standard output once requests are answered.
const READY: &str = "ready";

// Each is a switch of the command line.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Stay, and log to standard error (RUST_LOG says how much)
    #[arg(short, long)]
    foreground: bool,
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
    /// How many leases there may be at once
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_LEASES)]
    max_leases: usize,
    /// Set a corrupt journal aside, with what was claimed in the part that is lost
    #[arg(long)]
    repair: bool,
    /// Admit names with a leading dot as scratch files, which some lock programs need: no leases, gone with their session
    #[arg(long)]
    dotfiles: bool,
    /// Mount options as mount(8) gives them: allow_other, dotfiles, nonempty, noexec, ro
    #[arg(short, value_name = "OPTS", value_delimiter = ',')]
    options: Vec<String>,
    /// Say so on standard output, and on it only, when the mount answers or why it does not
    #[arg(long, hide = true)]
    announce: bool,
    /// The directory to mount on; it is made if it does not exist
    dir: PathBuf,
}

impl Arguments {
    pub fn run(self) -> Result<Exit, Failure> {
        let plan = self.plan()?;
        if !self.foreground {
            return self.start(&plan);
        }
        if self.announce {
            leave_terminal().map_err(|error| Failure::unavailable(format!("setsid: {error}")))?;
            std::env::set_current_dir("/")
                .map_err(|error| Failure::unavailable(format!("/: {error}")))?;
        }
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
        let announce = self.announce;
        let served = plan.serve(|| {
            if announce {
                tool::say(READY);
            }
            if let Err(error) = notify("READY=1") {
                log::warn!("systemd is not told that the mount is ready: {error}");
            }
        });
        match served {
            Ok(()) => Ok(Exit::Done),
            Err(Problem(text)) => {
                if announce {
                    tool::say(&text);
                }
                Err(Failure::unavailable(text))
            }
        }
    }

    fn plan(&self) -> Result<Plan, Failure> {
        let problem = |Problem(text)| Failure::unavailable(text);
        let dir = resolve_dir(&self.dir).map_err(problem)?;
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
        let options = keeper::Options {
            allow_other: self.allow_other,
            ..keeper::Options::default()
        };
        let mut plan = Plan {
            dir,
            state_dir,
            variables,
            max_leases: self.max_leases,
            repair: self.repair,
            dotfiles: self.dotfiles,
            nonempty: false,
            options,
        };
        for option in &self.options {
            apply(&mut plan, option)?;
        }
        Ok(plan)
    }

    /// Starts this command again in the background, and waits until its mount answers.
    fn start(&self, plan: &Plan) -> Result<Exit, Failure> {
        let problem = |Problem(text)| Failure::unavailable(text);
        plan.check().map_err(problem)?;
        plan.make_state_dir().map_err(problem)?;
        let log = plan.log_file();
        let open = OpenOptions::new().create(true).append(true).open(&log);
        let stderr =
            open.map_err(|error| Failure::unavailable(format!("{}: {error}", log.display())))?;
        let mut server = Command::new(super::program()?);
        server
            .arg("mount")
            .arg("--foreground")
            .arg("--announce")
            .arg("--state-dir")
            .arg(&plan.state_dir);
        server.arg("--max-leases").arg(self.max_leases.to_string());
        if self.allow_other {
            server.arg("--allow-other");
        }
        if self.repair {
            server.arg("--repair");
        }
        if self.dotfiles {
            server.arg("--dotfiles");
        }
        for name in &self.session_var {
            server.arg("--session-var").arg(name);
        }
        if !self.options.is_empty() {
            server.arg("-o").arg(self.options.join(","));
        }
        server
            .arg("--")
            .arg(&plan.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let mut server = server
            .spawn()
            .map_err(|error| Failure::unavailable(format!("claimfs: {error}")))?;
        let mut word = String::new();
        if let Some(stdout) = server.stdout.take() {
            _ = BufReader::new(stdout).read_line(&mut word);
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
