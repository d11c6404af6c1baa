//! `claimfs doctor`

mod layer;
mod project;
mod reach;
mod state;

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::layer::Layer;
use super::output;
use super::real_path::PATH_MAP;
use super::tool;
use super::{Exit, Failure};
use crate::core::printable;
use crate::mount::state_dir::StateDir;
use crate::mount::{holder, resolve_existing};
use crate::render::metrics::STATUS_OVERFLOWS;
use crate::supervisor::device::DEVICE;
use crate::sys::ids::effective_uid;
use crate::sys::mountinfo::{self, FS_TYPE, Mount};
use crate::sys::pidfd::has_pidfs;

/// A mount that takes longer to answer counts as wedged.
const PATIENCE: Duration = Duration::from_secs(3);

/// The first kernels with pidfds; and with pidfs and FUSE_NOTIFY_RESEND, which sends unanswered
/// requests again when a server dies.
const PIDFD: (u32, u32) = (5, 3);
const RESEND: (u32, u32) = (6, 9);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Look at this place alone: a mount, a directory in it, or what may hide one
    dir: Option<PathBuf>,
    /// Print the findings as JSON, a line each
    #[arg(long)]
    json: bool,
}

/// The findings: each a line with its remedy.
struct Report {
    as_json: bool,
    is_bad: bool,
    /// Why a finding could not be printed.
    unwritten: Option<Failure>,
}

impl Report {
    fn ok(&mut self, check: &str, text: &str) {
        self.find("ok", check, text);
    }

    /// A finding that keeps nobody from claiming.
    fn note(&mut self, check: &str, text: &str) {
        self.find("note", check, text);
    }

    fn bad(&mut self, check: &str, text: &str) {
        self.is_bad = true;
        self.find("bad", check, text);
    }

    /// A finding that prevents mounting. It matters only if nothing is mounted.
    fn lacks(&mut self, has_mount: bool, check: &str, text: &str) {
        if has_mount {
            self.note(check, text);
        } else {
            self.bad(check, text);
        }
    }

    /// Prints a finding: how bad it is, which check found it, and a sentence.
    fn find(&mut self, finding: &str, check: &str, text: &str) {
        let printed = if self.as_json {
            output::list_json(&json!({ "finding": finding, "check": check, "text": text }))
        } else {
            output::list_line(&format!("{finding:<6}{}", printable(text)))
        };
        if let Err(failure) = printed {
            self.unwritten.get_or_insert(failure);
        }
    }
}

impl Arguments {
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let mut report = Report {
            as_json: self.json,
            is_bad: false,
            unwritten: None,
        };
        let asked = self.dir.as_deref().or(mount);
        // Without a place, that of the variable is looked at beside all mounts.
        let variable = asked.is_none().then(tool::variable).flatten();
        let resolved = asked.map(|dir| resolve_existing(dir).unwrap_or_else(|_| dir.to_owned()));
        let unreadable = |error| Failure::unavailable(format!("/proc/self/mountinfo: {error}"));
        let all = mountinfo::all().map_err(unreadable)?;
        // A place within a mount means that mount.
        let around = resolved
            .as_deref()
            .map(mountinfo::holding)
            .transpose()
            .map_err(unreadable)?;
        let around = around.flatten().filter(|mount| mount.fs_type == FS_TYPE);
        let wanted = around.map(|mount| mount.dir).or_else(|| resolved.clone());
        let is_wanted = |mount: &&Mount| wanted.as_ref().is_none_or(|dir| mount.dir == *dir);
        let ours = all.iter().filter(|mount| mount.fs_type == FS_TYPE);
        let ours: Vec<&Mount> = ours.filter(is_wanted).collect();
        let layers = layers(resolved.as_deref(), variable.as_deref());
        check_kernel(&mut report);
        check_device(&mut report, !ours.is_empty());
        project::check(&mut report);
        for layer in &layers {
            report.bad("layer", &layer.sentence());
        }
        if ours.is_empty() && layers.is_empty() {
            report.bad("mount", &no_mount(resolved.as_deref()));
        }
        let at_variable = variable.as_deref().map(resolve_existing);
        let named = wanted.or_else(|| at_variable?.ok());
        let usable = reach::check_mounts(&mut report, &all, &ours, named.as_deref());
        if let Some(dir) = variable {
            reach::check_variable(&mut report, &dir);
        }
        if !usable {
            reach::check_namespaces(&mut report, &all);
        }
        if let Some(failure) = report.unwritten {
            return Err(failure);
        }
        Ok(if report.is_bad {
            Exit::Unavailable
        } else {
            Exit::Done
        })
    }
}

/// File systems that show a claimfs mount without being one: at the given place, or at the working
/// directory, at the place that the variable names, and at every mount that could show one.
fn layers(asked: Option<&Path>, variable: Option<&Path>) -> Vec<Layer> {
    if let Some(asked) = asked {
        return layer::around(asked).into_iter().collect();
    }
    let named = variable.map(|dir| resolve_existing(dir).unwrap_or_else(|_| dir.to_owned()));
    let places = layer::here().into_iter().chain(named);
    let nearby = places.filter_map(|place| layer::around(&place));
    let mut layers: Vec<Layer> = Vec::new();
    for layer in nearby.chain(layer::seen()) {
        if !layers.contains(&layer) {
            layers.push(layer);
        }
    }
    layers
}

/// The message for a place, or a system, without a mount.
fn no_mount(asked: Option<&Path>) -> String {
    const REMEDY: &str = "mount one with 'claimfs mount', or, in a sandbox, bind one from outside";
    let Some(dir) = asked else {
        return format!("no claimfs is mounted here; {REMEDY}");
    };
    let shown = dir.display();
    match fs::metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            format!(
                "{shown}: {error}; have the directories above it opened to you, or name another"
            )
        }
        _ => format!("{shown}: no claimfs is mounted here; {REMEDY}"),
    }
}

fn check_kernel(report: &mut Report) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let mut number = || numbers.next().and_then(Result::ok).unwrap_or(0);
    let version = (number(), number());
    if version < PIDFD {
        report.bad("kernel", &format!(
            "Linux {release}: claimfs tells the dead from the living by pidfds, which came with 5.3; use a newer kernel"
        ));
    } else if version < RESEND {
        report.note("kernel", &format!(
            "Linux {release}: the death of a server is noticed, since what it had not answered is not sent again before 6.9"
        ));
    } else {
        report.ok(
            "kernel",
            &format!("Linux {release}: the death of a server is a stall, and no more"),
        );
    }
    if has_pidfs() {
        report.ok(
            "pidfs",
            "pidfs: no process is ever taken for one that had its pid before",
        );
    } else {
        report.note(
            "pidfs",
            "no pidfs (6.9 on): processes of the same pid are told apart by when they started",
        );
    }
}

fn check_device(report: &mut Report, has_mount: bool) {
    match OpenOptions::new().read(true).write(true).open(DEVICE) {
        Ok(_) => report.ok("device", &format!("{DEVICE} can be opened")),
        Err(error) => {
            let remedy = if error.kind() == io::ErrorKind::NotFound {
                "load the module with 'modprobe fuse', or give the container the device"
            } else {
                "mount as root, or as a user who may open it"
            };
            report.lacks(
                has_mount,
                "device",
                &format!("{DEVICE}: {error}; to mount, {remedy}"),
            );
        }
    }
    if effective_uid() == 0 {
        report.ok("device", "root mounts by itself, also with --allow-other");
        return;
    }
    match fusermount() {
        Some(true) => report.ok("device", "fusermount3 is there, to mount without root"),
        Some(false) => report.lacks(has_mount, "device", "fusermount3 is not setuid root, so it mounts nothing; install it anew ('apt install --reinstall fuse3')",
        ),
        None => report.lacks(has_mount, "device", "fusermount3 is not installed, without which only root mounts; 'apt install fuse3'",
        ),
    }
    let config = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if config.lines().any(|line| line.trim() == "user_allow_other") {
        report.ok(
            "device",
            "user_allow_other stands in /etc/fuse.conf, so --allow-other is for everybody",
        );
    } else {
        report.note("device", 
            "--allow-other is for root alone; to allow it to others, put a line 'user_allow_other' into /etc/fuse.conf",
        );
    }
}

/// True if fusermount3 is setuid; `None` if it is not installed.
fn fusermount() -> Option<bool> {
    let path = std::env::var_os("PATH")?;
    let mut files = std::env::split_paths(&path).map(|dir| dir.join("fusermount3"));
    let found = files.find_map(|file| fs::metadata(file).ok())?;
    Some(found.permissions().mode() & 0o4000 != 0)
}

/// Checks a mount that can be reached by its path. Whether the caller can use it; `None` if it
/// admits other users only.
fn check_mount(report: &mut Report, mount: &Mount) -> Option<bool> {
    let dir = mount.dir.display();
    let start = Instant::now();
    let me = match ask(&mount.dir) {
        Answer::Is(me) => me,
        Answer::Dead if StateDir::of(mount).is_without_journal() => {
            report.bad("mount", &format!(
                "{dir}: dead, and its journal is missing, so nobody knows what is held; once all who claimed here are gone, \
                 begin with nothing held by 'claimfs mount --repair {dir}'"
            ));
            return Some(false);
        }
        Answer::Dead => {
            report.bad("mount", &format!(
                "{dir}: dead: its server and its supervisor are gone; {}, or take it away with 'claimfs umount {dir}'",
                tool::again(mount)
            ));
            return Some(false);
        }
        Answer::Silent => {
            report.bad("mount", &reach::silent(mount));
            return Some(false);
        }
        Answer::Denied => return None,
        Answer::Part if mount.root == Path::new("/") => {
            report.bad("mount", &format!(
                "{dir}: a claimfs is mounted here, but its files are not to be seen; see 'findmnt {dir}' for what else is"
            ));
            return Some(false);
        }
        Answer::Part => {
            report.bad("mount", &format!(
                "{dir}: only {} of the mount is bound here, without 'self', 'queue' and 'control'; bind the whole mount",
                mount.root.display()
            ));
            return Some(false);
        }
    };
    let millis = start.elapsed().as_millis();
    report.ok("mount", &format!("{dir}: answers, within {millis} ms"));
    if mount.is_read_only() {
        report.bad("mount", &format!(
            "{dir}: read-only, so that claiming answers EROFS; bind it writable (bwrap --bind, not --ro-bind), or mount it without 'ro'"
        ));
    }
    check_supervisor(report, mount);
    if !mount.has("nosymfollow") {
        report.note("mount", &format!(
            "{dir}: symlinks are followed here: 'set -C; echo > claims/x' through a dangling one writes its target; \
             mount as root to have that refused"
        ));
    }
    reach::check_parts(report, mount);
    check_session(report, &mount.dir, &me);
    check_endings(report, &mount.dir, &me);
    state::check(report, mount);
    Some(true)
}

/// Checks that the server knows how processes end. Without that, claims work, but are held for
/// longer.
fn check_endings(report: &mut Report, dir: &Path, me: &Value) {
    let shown = dir.display();
    match tool::field(me, "status_from").as_str() {
        "pidfd" => report.ok("endings", &format!(
            "{shown}: how a process ended is known from its pidfd"
        )),
        "proc connector" => report.ok("endings", &format!(
            "{shown}: how a process ended is known from the proc connector"
        )),
        "none" => report.note("endings", &format!(
            "{shown}: how a process ended is not known, so without a session of its own all of a terminal, or of a sandbox, \
             holds what any of it claims; use Linux 6.15, or mount as root outside of all containers, with CAP_NET_ADMIN"
        )),
        // Older servers have no such field.
        _ => {}
    }
    let metrics = fs::read_to_string(dir.join("metrics")).unwrap_or_default();
    let mut lines = metrics.lines().filter_map(|line| line.split_once(' '));
    let counted = lines.find(|(name, _)| *name == STATUS_OVERFLOWS);
    if let Some((_, count)) = counted.filter(|(_, count)| *count != "0") {
        report.note("endings", &format!(
            "{shown}: {count} times more processes ended than the server could read of, and counted as exited: what those of \
             them held that were killed went to their parents; look at 'leases', use Linux 6.15, or give the server more of \
             the processor"
        ));
    }
}

/// The state directory may be out of sight, which is no fault.
fn check_supervisor(report: &mut Report, mount: &Mount) {
    let dir = mount.dir.display();
    if holder::is_without_supervisor(&StateDir::of(mount)) {
        report.bad("supervisor", &format!(
            "{dir}: its supervisor has died: should its server die too, the mount dies with it; {}",
            tool::again(mount)
        ));
    }
}

fn check_session(report: &mut Report, dir: &Path, me: &Value) {
    let dir = dir.display();
    let why = tool::field(me, "why");
    if me["session"].is_null() {
        report.bad("session", &format!("{dir}: no session: {why}"));
        return;
    }
    let (session, rule) = (tool::field(me, "session"), tool::field(me, "rule"));
    report.ok(
        "session",
        &format!("{dir}: you are session {session} ({rule}: {why})"),
    );
    // Another pid namespace than the mount's: so probably other paths, too.
    if me["pid"] != process::id() && std::env::var_os(PATH_MAP).is_none() {
        report.note("session", &format!(
            "{dir}: in a sandbox the same file may have another path, and 'claimfs reserve' compares paths: \
             if so, set {PATH_MAP}=INSIDE=OUTSIDE"
        ));
    }
}

enum Answer {
    Is(Value),
    Dead,
    Silent,
    Denied,
    Part,
}

/// Reads `self` of a mount, with a time limit.
fn ask(dir: &Path) -> Answer {
    let output = probe([dir.as_os_str()].into_iter());
    match output.as_deref().map(str::trim) {
        None => Answer::Silent,
        Some("dead") => Answer::Dead,
        Some("denied") => Answer::Denied,
        Some("part") => Answer::Part,
        Some(_) => fs::read_to_string(dir.join("self"))
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .map_or(Answer::Silent, Answer::Is),
    }
}

/// The output of another process that checks a place, if it comes in time. A process that is stuck
/// in a wedged mount cannot be killed.
fn probe<'a>(words: impl Iterator<Item = &'a OsStr>) -> Option<String> {
    let mut look = Command::new("/proc/self/exe");
    look.arg("doctor-look").args(words).stdin(Stdio::piped());
    let mut child = look.stdout(Stdio::piped()).spawn().ok()?;
    let (sender, output) = mpsc::channel();
    let stdout = child.stdout.take();
    thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.map(|mut pipe| pipe.read_to_string(&mut text));
        _ = sender.send(read.map(|_| text).unwrap_or_default());
    });
    let Ok(text) = output.recv_timeout(PATIENCE) else {
        _ = child.kill();
        return None;
    };
    _ = child.wait();
    Some(text)
}

/// The arguments of that process: check a mount, or find which of several directories has the files
/// of one.
#[derive(Debug, clap::Args)]
pub(super) struct Look {
    #[arg(long)]
    tree: bool,
    dirs: Vec<PathBuf>,
}

impl Look {
    pub(super) fn run(&self) -> Exit {
        if self.tree {
            if let Some(at) = self.dirs.iter().position(|dir| layer::is_tree(dir)) {
                tool::say(&format!("{} {at}", layer::TREE));
            }
            return Exit::Done;
        }
        for dir in &self.dirs {
            tool::say(match fs::read(dir.join("self")) {
                Ok(_) => "alive",
                Err(error) if error.kind() == io::ErrorKind::NotFound => "part",
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => "denied",
                Err(_) => "dead",
            });
        }
        Exit::Done
    }
}
