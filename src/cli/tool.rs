//! Shared by the verbs: finding the mount, reading its files, printing.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, thread};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Failure;
use crate::core::content::{self, REASON, REASON_MAX};
use crate::core::{Name, PATH_BYTES_MAX, PATH_LEVELS_MAX, Refusal, SessionId, printable};
use crate::mount::{default_mount, resolve_existing};
use crate::render;
use crate::sys::ids::effective_uid;
use crate::sys::mountinfo::{self, FS_TYPE};

/// Prints a line on standard output, for the process that started this one, which may be gone. The
/// answers of verbs are in `output`.
pub(super) fn say(text: &str) {
    _ = writeln!(io::stdout().lock(), "{text}");
}

/// Whether [`complain`] prints JSON.
static COMPLAINS_IN_JSON: AtomicBool = AtomicBool::new(false);

/// Makes JSON of all that is said on standard error from now on: for a verb whose standard output
/// is its command's.
pub(super) fn complain_in_json() {
    COMPLAINS_IN_JSON.store(true, Relaxed);
}

/// Prints a line on standard error.
pub(super) fn complain(text: &str) {
    complain_of(text, &Value::Null);
}

/// Prints a line on standard error, and with JSON also the record that it is about.
pub(super) fn complain_of(text: &str, record: &Value) {
    let line = if COMPLAINS_IN_JSON.load(Relaxed) {
        let mut message = json!({ "message": text });
        if !record.is_null() {
            message["record"] = record.clone();
        }
        render::line(&message)
    } else {
        format!("claimfs: {text}\n")
    };
    _ = io::stderr().lock().write_all(line.as_bytes());
}

/// The directory that `$CLAIMFS_MOUNT` names.
pub(super) fn variable() -> Option<PathBuf> {
    let dir = env::var_os("CLAIMFS_MOUNT").filter(|dir| !dir.is_empty());
    dir.map(PathBuf::from)
}

/// The root of a mount.
#[derive(Clone, Debug)]
pub(super) struct Mount(PathBuf);

impl Mount {
    /// `--mount DIR`, else `$CLAIMFS_MOUNT`, else the only claimfs mount of this mount namespace.
    pub(super) fn find(named: Option<&Path>) -> Result<Self, Failure> {
        let named = named.map(Path::to_path_buf);
        if let Some(dir) = named.or_else(variable) {
            return Self::at(dir);
        }
        let unreadable = |error| Failure::unavailable(format!("/proc/self/mountinfo: {error}"));
        let mounts = default_mount::candidates().map_err(unreadable)?;
        let list = |mounts: &[mountinfo::Mount]| -> String {
            let lines = mounts
                .iter()
                .map(|mount| format!("\n  {}", mount.dir.display()));
            lines.collect()
        };
        if let [mount] = mounts.as_slice() {
            return Self::at(mount.dir.clone());
        }
        let open = admitting(mounts.clone());
        match open.as_slice() {
            [] if mounts.is_empty() => {
                let others = mountinfo::ours().map_err(unreadable)?;
                Err(Failure::unavailable(if others.is_empty() {
                    String::from(
                        "no claimfs is mounted here; mount one with 'claimfs mount', or name one with --mount DIR",
                    )
                } else {
                    format!(
                        "the claimfs that are mounted here are other users', and root uses none of those unless it is named; mount \
                         one with 'claimfs mount', or name one with --mount DIR:{}",
                        list(&others)
                    )
                }))
            }
            [] => Err(Failure::unavailable(format!(
                "the claimfs that are mounted here are other users' and admit nobody else; mount one with 'claimfs mount', or \
                 have one mounted with --allow-other:{}",
                list(&mounts)
            ))),
            [mount] => Self::at(mount.dir.clone()),
            several => Err(Failure::unavailable(format!(
                "several claimfs are mounted here; name one with --mount DIR or $CLAIMFS_MOUNT:{}",
                list(several)
            ))),
        }
    }

    fn at(dir: PathBuf) -> Result<Self, Failure> {
        if dir.join("claims").is_dir() && dir.join("leases").exists() {
            let other = [dir.clone(), dir.join("claims")];
            if let Some(other) = other.iter().find(|dir| is_of_another(dir)) {
                return Err(Failure::unavailable(format!(
                    "{}: it has the files of a claimfs, but is of another file system, which lies over it or is a copy: \
                     a file here is no claim; 'claimfs doctor {}' says the remedy",
                    other.display(),
                    dir.display()
                )));
            }
            return Ok(Self(dir));
        }
        Err(Failure::unavailable(no_mount(&dir)))
    }

    /// The path of a file of the mount.
    pub(super) fn path(&self, parts: &[&str]) -> PathBuf {
        parts
            .iter()
            .fold(self.0.clone(), |path, part| path.join(part))
    }

    /// The text of a file of the mount.
    pub(super) fn read(&self, parts: &[&str]) -> Result<String, Failure> {
        fs::read_to_string(self.path(parts)).map_err(|error| self.failed(parts, &error))
    }

    /// The failure for a file of the mount that cannot be used.
    /// Fails if the mount is not at its directory any more, where a name that is held looks free.
    pub(super) fn check_there(&self) -> Result<(), Failure> {
        match fs::metadata(self.path(&["claims"])) {
            Ok(_) => Ok(()),
            Err(_) => Err(Failure::unavailable(format!(
                "the mount has ended: {}",
                ended(&self.0)
            ))),
        }
    }

    pub(super) fn failed(&self, parts: &[&str], error: &io::Error) -> Failure {
        if is_ended(error) {
            return Failure::unavailable(format!("the mount has ended: {}", ended(&self.0)));
        }
        let path = self.path(parts);
        Failure::unavailable(format!(
            "{}: {error}; see 'claimfs doctor {}'",
            printable(&path.display().to_string()),
            self.0.display()
        ))
    }

    /// The names of the files in a directory of the mount.
    pub(super) fn entries(&self, dir: &str) -> Result<Vec<String>, Failure> {
        let failed = |error: io::Error| self.failed(&[dir], &error);
        let entries = fs::read_dir(self.path(&[dir])).map_err(failed)?;
        let names = entries.map(|entry| {
            let name = entry.map_err(failed)?.file_name();
            Ok(name.to_string_lossy().into_owned())
        });
        names.collect()
    }

    /// Writes a command to `control`.
    pub(super) fn control(&self, command: &Value) -> io::Result<()> {
        let mut control = OpenOptions::new()
            .write(true)
            .open(self.path(&["control"]))?;
        control.write_all(format!("{command}\n").as_bytes())
    }

    /// The content of `self`.
    pub(super) fn whoami(&self) -> Result<Value, Failure> {
        let text = self.read(&["self"])?;
        serde_json::from_str(&text).map_err(|error| self.failed(&["self"], &error.into()))
    }

    /// The records of all leases, oldest first.
    pub(super) fn leases(&self) -> Result<Vec<Value>, Failure> {
        let text = self.read(&["leases"])?;
        let records = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(records
            .filter(|record| record.get("name").is_some())
            .collect())
    }

    /// The records of all waiters.
    pub(super) fn waiters(&self) -> Result<Vec<Value>, Failure> {
        let text = self.read(&["waiters"])?;
        let records = text.lines();
        Ok(records
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }

    /// An attribute of a file of the mount that is JSON, if it has it.
    pub(super) fn attribute(&self, parts: &[&str], attribute: &str) -> Option<Value> {
        let mut text = Vec::with_capacity(ATTRIBUTE_MAX);
        let spare = rustix::buffer::spare_capacity(&mut text);
        rustix::fs::getxattr(self.path(parts), attribute, spare).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Whether the mount lets this process change a lease: another user's session, or another
    /// sandbox's, may have the same id. Of a claim that is no regular file it does not say.
    pub(super) fn lets_change(&self, record: &Value) -> bool {
        let name = record["name"].as_str().unwrap_or_default();
        let path = match Name::listed(name.as_bytes()) {
            Ok(name) if name.is_path() => self.path(&[name.as_str()]),
            _ => self.path(&["claims", name]),
        };
        let is_file = fs::symlink_metadata(&path).is_ok_and(|there| there.is_file());
        !is_file || OpenOptions::new().write(true).open(&path).is_ok()
    }

    /// Sets the reason for a claim of this process.
    pub(super) fn give_reason(&self, name: &Name, reason: Option<&str>) -> Result<(), Failure> {
        let Some(reason) = reason else {
            return Ok(());
        };
        let path = self.path(&["claims", name.as_str()]);
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(path, REASON, reason.as_bytes(), flags).map_err(|error| {
            Failure::unavailable(format!(
                "claims/{name}: held, but without the reason: {}",
                io::Error::from(error)
            ))
        })
    }

    /// The record of a reservation: an attribute of its file.
    fn reservation(&self, name: &Name) -> Result<Option<Value>, Failure> {
        let parts = [name.as_str()];
        let record = self.attribute(&parts, RECORD);
        if record.is_some() {
            return Ok(record);
        }
        match fs::symlink_metadata(self.path(&parts)) {
            Err(error) if is_ended(&error) => Err(self.failed(&parts, &error)),
            _ => Ok(None),
        }
    }

    /// The record of one lease: an attribute of its file in `queue/`, so that its cost does not
    /// depend on how many leases there are.
    pub(super) fn lease(&self, name: &Name) -> Result<Option<Value>, Failure> {
        if name.is_path() {
            return self.reservation(name);
        }
        if let Some(record) = self.attribute(&["queue", name.as_str()], RECORD) {
            return Ok(Some(record));
        }
        // Free, or the server is of a claimfs that does not show records there.
        let claim = fs::symlink_metadata(self.path(&["claims", name.as_str()]));
        if claim.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Ok(None);
        }
        let mut records = self.leases()?.into_iter();
        Ok(records.find(|record| record["name"] == name.as_str()))
    }
}

/// True if this error means that the server and the supervisor of a mount are both dead, or that it
/// was unmounted.
pub(super) fn is_ended(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOTCONN | libc::ECONNABORTED)
    )
}

/// The attribute of a file in `queue/` that is the record of the lease of its name.
const RECORD: &str = "user.claimfs.record";

/// The longest value of an attribute (`XATTR_SIZE_MAX` of Linux), in bytes.
const ATTRIBUTE_MAX: usize = 64 * 1024;

/// `f_type` of a FUSE file system (`include/uapi/linux/magic.h`).
const FUSE: u64 = 0x6573_5546;

/// Whether a directory is known to be of a file system that is not FUSE.
fn is_of_another(dir: &Path) -> bool {
    rustix::fs::statfs(dir).is_ok_and(|there| u64::try_from(there.f_type) != Ok(FUSE))
}

/// How long a mount may take to answer whether it admits this process.
const PATIENCE: Duration = Duration::from_secs(3);

/// The mounts that do not refuse this process. A mount that is dead or does not answer may be the
/// right one.
fn admitting(mounts: Vec<mountinfo::Mount>) -> Vec<mountinfo::Mount> {
    let asked: Vec<_> = mounts
        .into_iter()
        .map(|mount| {
            let (sender, denied) = mpsc::channel();
            let dir = mount.dir.clone();
            thread::spawn(move || sender.send(mountinfo::is_denied(&dir)));
            (mount, denied)
        })
        .collect();
    let until = Instant::now() + PATIENCE;
    let is_denied = |denied: &mpsc::Receiver<bool>| {
        let left = until.saturating_duration_since(Instant::now());
        denied.recv_timeout(left).unwrap_or(false)
    };
    let admit = asked.into_iter().filter(|(_, denied)| !is_denied(denied));
    admit.map(|(mount, _)| mount).collect()
}

/// The message for a mount that has ended. Its directory may still be in the kernel's cache.
fn ended(dir: &Path) -> String {
    let there = resolve_existing(dir).and_then(|dir| {
        let there = mountinfo::on(&dir);
        there.map_err(|error| Failure::unavailable(error.to_string()))
    });
    match there.ok().flatten() {
        Some(mount) if mount.fs_type == FS_TYPE => server_gone(dir, &mount),
        _ => no_mount(dir),
    }
}

fn server_gone(dir: &Path, mount: &mountinfo::Mount) -> String {
    let (dir, again) = (dir.display(), again(mount));
    format!("{dir}: the server of this mount is gone; {again}")
}

/// The message for a directory that is not a usable mount.
pub(super) fn no_mount(dir: &Path) -> String {
    const OTHER: &str =
        "name one with --mount DIR, or mount one on an empty directory with 'claimfs mount DIR'";
    let shown = dir.display();
    let resolved = resolve_existing(dir).unwrap_or_else(|_| dir.to_owned());
    let around = mountinfo::holding(&resolved).ok().flatten();
    let around = around.filter(|mount| mount.fs_type == FS_TYPE);
    let metadata = match (fs::metadata(dir), &around) {
        (Err(error), Some(mount)) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            return server_gone(dir, mount);
        }
        (Err(error), Some(mount)) if error.kind() == io::ErrorKind::PermissionDenied => {
            return denied(mount);
        }
        (Err(error), _) if error.kind() == io::ErrorKind::PermissionDenied => {
            return format!(
                "{shown}: {error}; have the directories above it opened to you, or name another with --mount DIR"
            );
        }
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => {
            return format!("{shown}: {error}; mount one with 'claimfs mount {shown}'");
        }
        (Err(error), _) => return format!("{shown}: {error}; {OTHER}"),
        (Ok(metadata), _) => metadata,
    };
    if let Some((mount, hider)) = mountinfo::hidden_on(&resolved).ok().flatten()
        && around.is_none()
    {
        return hidden_by(&mount, &hider);
    }
    let is_mine = effective_uid() == 0 || metadata.uid() == effective_uid();
    let is_empty = fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
    match around {
        Some(mount) if mount.root != Path::new("/") => format!(
            "{shown}: only {} of a claimfs is mounted on {}; bind the whole mount, or name it with --mount DIR",
            mount.root.display(),
            mount.dir.display()
        ),
        Some(mount) if mount.dir != resolved => format!(
            "{shown}: in the claimfs on {0}; name that with '--mount {0}'",
            mount.dir.display()
        ),
        _ if !metadata.is_dir() => format!("{shown}: not a directory; {OTHER}"),
        _ if is_mine && is_empty => {
            format!("{shown}: not a claimfs mount; mount one with 'claimfs mount {shown}'")
        }
        _ => format!("{shown}: not a claimfs mount; {OTHER}"),
    }
}

/// How to revive a mount whose server or supervisor is dead. Only the user who mounted it has its
/// state.
pub(super) fn again(mount: &mountinfo::Mount) -> String {
    let dir = mount.dir.display();
    let admits = if mount.has("allow_other") {
        "--allow-other "
    } else {
        ""
    };
    match mount.owner().filter(|owner| *owner != effective_uid()) {
        Some(owner) => format!(
            "have uid {owner}, who mounted it, mount it again with 'claimfs mount {admits}{dir}'"
        ),
        None => format!("mount it again with 'claimfs mount {admits}{dir}'"),
    }
}

/// The message for a mount that does not admit this process.
pub(super) fn denied(mount: &mountinfo::Mount) -> String {
    let owner = mount.owner();
    let owner = owner.map_or(String::from("another user"), |uid| {
        format!("another user (uid {uid})")
    });
    format!(
        "{}: the mount of {owner}, which admits nobody else; have it mounted with --allow-other, or mount one of your own on another \
         directory",
        mount.dir.display()
    )
}

/// The claimfs mounted on a directory, dead or alive, and its canonical path.
pub(super) fn mounted_on(dir: &Path) -> Result<(PathBuf, mountinfo::Mount), Failure> {
    let dir = resolve_existing(dir)?;
    let there = mountinfo::on(&dir)
        .map_err(|error| Failure::unavailable(format!("/proc/self/mountinfo: {error}")))?;
    let Some(mount) = there.filter(|mount| mount.fs_type == FS_TYPE) else {
        let around = mountinfo::holding(&dir).ok().flatten();
        let around = around.filter(|mount| mount.fs_type == FS_TYPE);
        let remedy = around.map_or(String::new(), |mount| {
            format!(
                "; it is in the one on {0}, so name {0}",
                mount.dir.display()
            )
        });
        let hidden = mountinfo::hidden_on(&dir).ok().flatten();
        return Err(Failure::unavailable(match hidden {
            Some((mount, hider)) => hidden_by(&mount, &hider),
            None => format!("{}: no claimfs is mounted here{remedy}", dir.display()),
        }));
    };
    Ok((dir, mount))
}

/// The message for a claimfs that another mount hides.
pub(super) fn hidden_by(mount: &mountinfo::Mount, hider: &mountinfo::Mount) -> String {
    let (dir, over) = (mount.dir.display(), hider.dir.display());
    format!(
        "{dir}: a claimfs is mounted here, but hidden by {} on {over}, which was mounted later; take that away with 'umount {over}', or \
         mount it elsewhere",
        hider.fs_type
    )
}

/// Parses the name of a claim: `NAME`, or `claims/NAME` as messages write it.
pub(super) fn claim_name(text: &str) -> Result<Name, Failure> {
    let name = text.strip_prefix("claims/").unwrap_or(text);
    Name::new(name.as_bytes()).map_err(|refusal| {
        if refusal == Refusal::BadName && name.contains('/') {
            no_path(text)
        } else {
            bad_word("name", text, refusal)
        }
    })
}

/// Parses the name of a claim that is not of a list: a range is refused, since it would be the name
/// of a single claim. `claims/build@1..4` is that name.
pub(super) fn single_name(text: &str) -> Result<Name, Failure> {
    if super::names::is_range(text) {
        let shown = printable(text);
        return Err(Failure::usage(format!(
            "'{shown}': a range, and this takes one name: 'claimfs claim' and 'claimfs run' take one of several names \
             with '--any {shown}' and all of them with '--all {shown}'; a claim that is called so is 'claims/{shown}'"
        )));
    }
    claim_name(text)
}

/// Parses the name of a lease, as `leases` has it: that of a claim, or `paths/` and a path; or the
/// path of a reservation, beginning with `/`, `./` or `../`, as `reserve` takes it.
pub(super) fn lease_name(text: &str) -> Result<Name, Failure> {
    if text.starts_with("paths/") {
        return Name::listed(text.as_bytes()).map_err(|refusal| bad_path(text, refusal));
    }
    let is_path = ["/", "./", "../"]
        .iter()
        .any(|start| text.starts_with(start));
    if is_path || text == "." || text == ".." {
        let mut names = super::real_path::names(&[PathBuf::from(text)])?;
        return names.pop().ok_or_else(|| no_path(text));
    }
    claim_name(text)
}

/// Parses the id of a session.
pub(super) fn session_id(text: &str) -> Result<SessionId, Failure> {
    SessionId::new(text.as_bytes()).map_err(|refusal| bad_word("session id", text, refusal))
}

/// Parses a TTL.
pub(super) fn ttl(text: &str) -> Result<Duration, Failure> {
    content::ttl(text).ok_or_else(|| {
        let shown = printable(text);
        Failure::usage(format!(
            "'{shown}': no time; write it like 30s, 5m or '1h 30m', from 1ms to 100 years"
        ))
    })
}

/// Why a path is no name, and what to do.
fn no_path(text: &str) -> Failure {
    let path = text.strip_prefix("paths");
    let path = path.filter(|rest| rest.starts_with('/')).unwrap_or(text);
    Failure::usage(format!(
        "'{}': a name has no '/'; for a file or a directory there is 'claimfs reserve {}'; 'show', 'wait', \
         'release' and 'break' take a path that begins with '/' or './'",
        printable(text),
        printable(path)
    ))
}

fn bad_path(text: &str, refusal: Refusal) -> Failure {
    let shown = printable(text);
    Failure::usage(match refusal {
        Refusal::LongName => format!(
            "'{shown}': too long; a path has at most {PATH_BYTES_MAX} bytes, {PATH_LEVELS_MAX} levels, and 255 bytes in each"
        ),
        _ => format!(
            "'{shown}': no reservation; write it as 'claimfs ls' does, such as paths/home/me/app: 'claimfs reserve' makes one"
        ),
    })
}

fn bad_word(what: &str, text: &str, refusal: Refusal) -> Failure {
    let shown = printable(text);
    Failure::usage(match refusal {
        Refusal::LongName => {
            format!("'{shown}': a {what} has at most 255 bytes; choose a shorter one")
        }
        _ => format!(
            "'{shown}': no {what}; it may not be empty, start with '.', or contain '/' or '\\'"
        ),
    })
}

/// A field of a record as text for a terminal.
pub(super) fn field(record: &Value, key: &str) -> String {
    match &record[key] {
        Value::String(text) => printable(text),
        Value::Null => String::from("?"),
        other => other.to_string(),
    }
}

/// The age of a time in a record, in seconds.
pub(super) fn age(record: &Value, key: &str, now: SystemTime) -> Option<u64> {
    let since = record[key].as_str()?.parse::<Timestamp>().ok()?;
    let age = now.duration_since(SystemTime::from(since));
    Some(age.unwrap_or_default().as_secs())
}

/// The age of a time in a record: `12 s`, `5 min`, `3 h 20 min`, `4 d 2 h`.
pub(super) fn ago(record: &Value, key: &str, now: SystemTime) -> String {
    let Some(seconds) = age(record, key, now) else {
        return String::from("?");
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min"),
        3600..86400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// The message for a name that another holds.
///
/// Under process scope it names a process, since the caller may be of the same session.
pub(super) fn held_by(mount: &Mount, name: &Name, record: &Value) -> String {
    let time = ago(record, "acquired_at", SystemTime::now());
    let why = reason(record).map_or_else(String::new, |reason| format!(", who says {reason}"));
    let survivor = match record.get("why") {
        Some(_) => format!("; {}", field(record, "why")),
        None => String::new(),
    };
    format!(
        "{}: held by {} for {time}{why}{survivor}; see 'claimfs show {name}'",
        name.file(),
        holder(mount, record)
    )
}

/// The holder of a lease and its living process: under process scope a process, since its session
/// may be the caller's.
pub(super) fn holder(mount: &Mount, record: &Value) -> String {
    let session = field(record, "session");
    let living = living(mount, record).unwrap_or_else(|| record.clone());
    let is_process = record["scope"] == "process" || record.get("bound_pid").is_some();
    let pid = field(&living, "pid");
    match living["command"].as_str().map(printable) {
        _ if !has_process(&living) => format!("session {session} (no process; {})", until(record)),
        None => format!("pid {pid} (session {session})"),
        Some(command) if is_process => format!("pid {pid} ({command}, session {session})"),
        Some(command) => format!("session {session} (pid {pid}, {command})"),
    }
}

/// False for the pid of a session that lives by its deadline.
fn has_process(record: &Value) -> bool {
    record["pid"] != 0
}

/// Until when a lease of a session without processes is held.
pub(super) fn until(record: &Value) -> String {
    let left = record["expires_in"].as_f64();
    let left = left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let until = left.and_then(|left| SystemTime::now().checked_add(left));
    let until = until.and_then(|until| Timestamp::try_from(until).ok());
    until.map_or_else(
        || String::from("until its deadline"),
        |until| format!("until {until:.0}, unless it is renewed"),
    )
}

/// Refuses a reason that no claim may have, before anything is taken.
pub(super) fn check_reason(reason: Option<&str>) -> Result<(), Failure> {
    match reason {
        Some(reason) if reason.len() > REASON_MAX => Err(Failure::usage(format!(
            "the reason has {} bytes, and {REASON_MAX} at most fit: shorten it",
            reason.len()
        ))),
        _ => Ok(()),
    }
}

/// The reason in a record, quoted, without control characters: the words of the holder.
pub(super) fn reason(record: &Value) -> Option<String> {
    let reason = record.get("reason")?.as_str()?;
    Some(format!("\"{}\"", printable(reason)))
}

/// A process in a record, as every message names it. Its command may be unknown.
pub(super) fn process(process: &Value) -> String {
    let pid = field(process, "pid");
    match &process["command"] {
        _ if !has_process(process) => String::from("no process"),
        Value::Null => format!("pid {pid}"),
        _ => format!("pid {pid} ({})", field(process, "command")),
    }
}

/// The attribute of a file in `sessions/` that has the roots of the session.
const ROOTS: &str = "user.claimfs.roots";

/// The roots of a session: the processes that keep it alive. Empty if it has ended, or lives by a
/// deadline.
pub(super) fn roots(mount: &Mount, id: &str) -> Vec<Value> {
    if let Some(roots) = mount.attribute(&["sessions", id], ROOTS) {
        return roots.as_array().cloned().unwrap_or_default();
    }
    let text = mount.read(&["sessions", id]).unwrap_or_default();
    let session: Value = serde_json::from_str(&text).unwrap_or_default();
    session["roots"].as_array().cloned().unwrap_or_default()
}

/// The living process of a lease, with `pid` and `command`: the holder; under session scope the
/// process that claimed, or else a root of its session, and a command rather than the claimfs that
/// runs it. `None` if the session lives by a deadline.
pub(super) fn living(mount: &Mount, record: &Value) -> Option<Value> {
    let id = record["session"].as_str().unwrap_or_default();
    living_of(&roots(mount, id), record)
}

/// As [`living`], with the roots of the session that holds the lease.
pub(super) fn living_of(roots: &[Value], record: &Value) -> Option<Value> {
    let by_pid = |pid: &Value| roots.iter().find(|root| root["pid"] == *pid);
    match record.get("bound_pid") {
        Some(bound) => Some(by_pid(bound).cloned().unwrap_or_else(|| {
            let is_maker = record["pid"] == *bound;
            let command = record["command"].as_str().filter(|_| is_maker);
            json!({ "pid": bound, "command": command })
        })),
        None if record["scope"] == "process" => Some(record.clone()),
        None => {
            let maker = by_pid(&record["pid"]);
            let mut commands = maker.into_iter().chain(roots);
            let command = commands.find(|root| root["command"] != "claimfs");
            command.or(maker).or(roots.first()).cloned()
        }
    }
}

/// True if the caller has a lease, by the content of `self`: its session holds it or, under process
/// scope, this process or one above it.
pub(super) fn is_ours(mount: &Mount, me: &Value, record: &Value) -> bool {
    is_of(me, record) && mount.lets_change(record)
}

/// As [`is_ours`], for a caller that was of another session when its `self` was read.
pub(super) fn is_of(me: &Value, record: &Value) -> bool {
    let is_same = !me["session"].is_null() && record["session"] == me["session"];
    if !is_same || me["foreign"] == true {
        return false;
    }
    let holder = record.get("bound_pid").unwrap_or(&record["pid"]);
    let above = me["then"].as_array().map_or(&[][..], Vec::as_slice);
    let is_above = above.iter().any(|next| next["pid"] == *holder);
    me["scope"] != "process" || *holder == me["pid"] || is_above
}

/// A name that nobody holds, as an object.
pub(super) fn nobody(name: &Name) -> Value {
    json!({ "name": name.as_str(), "session": null })
}

/// Seconds in as few characters as `--ttl` takes: `12s`, `5m`, `3h20m`, `4d2h`.
pub(super) fn short(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m"),
        3600..86400 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}
