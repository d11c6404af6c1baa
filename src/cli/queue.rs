//! Taking a name and waiting for it: shared by `claim`, `run` and `wait`.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::Failure;
use super::tool::{self, Mount};
use crate::core::Name;
use crate::sys::poll::wait_readable;

/// How long to wait for a name that another holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Not at all.
    None,
    /// At most this long.
    For(Duration),
    /// As long as it takes.
    Endless,
}

impl Patience {
    /// Parses `--wait[=TIME]`.
    pub(super) fn of(wait: Option<&str>) -> Result<Self, Failure> {
        match wait {
            None => Ok(Self::None),
            Some("") => Ok(Self::Endless),
            Some(time) => tool::ttl(time).map(Self::For),
        }
    }

    /// The time at which to give up.
    pub(super) fn end(self) -> Option<Instant> {
        match self {
            Self::None => Some(Instant::now()),
            Self::For(time) => Instant::now().checked_add(time),
            Self::Endless => None,
        }
    }
}

/// Creates the claim. False if anybody holds it, this process included.
pub(super) fn create(mount: &Mount, name: &Name) -> Result<bool, Failure> {
    let path = mount.path(&["claims", name.as_str()]);
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(refused(name, &error)),
    }
}

/// Waits in the queue until the claim is ours. False if time runs out before.
pub(super) fn wait(mount: &Mount, name: &Name, until: Option<Instant>) -> Result<bool, Failure> {
    let mut queue =
        File::open(mount.path(&["queue", name.as_str()])).map_err(|error| refused(name, &error))?;
    let mut status = Status::new();
    let mut buffer = [0; 1024];
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let second = Duration::from_secs(1);
        let readable = wait_readable(&queue, Some(left.map_or(second, |left| left.min(second))));
        if readable.map_err(|error| refused(name, &error))? {
            match queue.read(&mut buffer) {
                Ok(0) => return Ok(true),
                // Ignore the progress line: the status below says more.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(refused(name, &error)),
            }
        } else if left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        status.show(mount, name)?;
    }
}

/// Waits until nobody holds the name. False if time runs out before.
pub(super) fn until_free(
    mount: &Mount,
    name: &Name,
    until: Option<Instant>,
) -> Result<bool, Failure> {
    let path = mount.path(&["events"]);
    let failed = |error: io::Error| Failure::unavailable(format!("events: {error}"));
    let mut events = File::open(path).map_err(failed)?;
    let mut status = Status::new();
    let mut buffer = [0; 8192];
    while mount.lease(name)?.is_some() {
        status.show(mount, name)?;
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        let second = Duration::from_secs(1);
        if wait_readable(&events, Some(left.map_or(second, |left| left.min(second))))
            .map_err(failed)?
        {
            // Any event will do: the loop checks the name again.
            match events.read(&mut buffer) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(failed(error));
                }
                _ => {}
            }
        }
    }
    Ok(true)
}

/// The status line on a terminal. Nothing is printed elsewhere.
struct Status {
    on_terminal: bool,
    shown: bool,
}

impl Status {
    fn new() -> Self {
        Self {
            on_terminal: io::stderr().is_terminal(),
            shown: false,
        }
    }

    fn show(&mut self, mount: &Mount, name: &Name) -> Result<(), Failure> {
        if !self.on_terminal {
            return Ok(());
        }
        let Some(record) = mount.lease(name)? else {
            return Ok(());
        };
        let mut text = format!(
            "claims/{name}: held by {} (pid {}, {}) for {}",
            tool::field(&record, "session"),
            tool::field(&record, "pid"),
            tool::field(&record, "command"),
            tool::ago(&record, "acquired_at", SystemTime::now()),
        );
        let waiters: Vec<Value> = mount
            .waiters()?
            .into_iter()
            .filter(|waiter| waiter["claim"] == name.as_str())
            .collect();
        let own = waiters
            .iter()
            .position(|waiter| waiter["pid"] == std::process::id());
        if let Some(own) = own {
            _ = fmt::Write::write_fmt(
                &mut text,
                format_args!("; you are {} of {}", own + 1, waiters.len()),
            );
        }
        self.shown = true;
        // A line that wraps could not be erased.
        let text: String = text.chars().take(79).collect();
        _ = write!(io::stderr().lock(), "\r\x1b[K{text}");
        Ok(())
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        if self.shown {
            _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// Why a name cannot be taken, other than that another holds it.
fn refused(name: &Name, error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::EPERM) => Failure::held(format!(
            "claims/{name}: your session id belongs to another user, or to another sandbox; see 'claimfs whoami'"
        )),
        Some(libc::ENOSPC) => Failure::unavailable(format!(
            "claims/{name}: no room for another lease: release some, mount with a larger --max-leases, or make room on the disk of \
             the state directory, if its log says that the journal cannot be written"
        )),
        Some(libc::EDQUOT) => Failure::unavailable(format!(
            "claims/{name}: your user has as many leases, sessions or places in queues as one may have: release some, or mount with a \
             larger --max-per-uid"
        )),
        Some(libc::ESTALE) => Failure::held(format!(
            "claims/{name}: your session ended while it waited; see 'claimfs whoami'"
        )),
        _ => Failure::unavailable(format!("claims/{name}: {error}")),
    }
}
