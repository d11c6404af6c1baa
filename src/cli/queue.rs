//! Taking a name and waiting for it: shared by `claim`, `run` and `wait`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::slice;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Failure;
use super::interrupt::Interrupt;
use super::status::Status;
use super::tool::{self, Mount};
use crate::core::{Name, content, printable};
use crate::sys::poll::{wait_any_readable, wait_readable};

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
    /// Parses the time after which to give up: 0 is not to wait.
    pub(super) fn limit(text: &str) -> Result<Self, Failure> {
        if text
            .trim()
            .parse::<f64>()
            .is_ok_and(|seconds| seconds == 0.0)
        {
            return Ok(Self::None);
        }
        content::ttl(text).map(Self::For).ok_or_else(|| {
            Failure::usage(format!(
                "'{}': no time to wait; write it like 30s, 5m, 0.5 or '1h 30m': 0, or from 1ms to 100 years",
                printable(text)
            ))
        })
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
        Err(error) => Err(refused(mount, name, &error)),
    }
}

/// How a wait in queues ended.
pub(super) enum Waited {
    /// The name at this place is ours.
    Granted(usize),
    /// Time ran out before.
    InVain,
    /// A signal arrived before.
    Stopped,
}

/// Waits in the queues of all these names at once until one of them is ours, and leaves the others.
/// Closing a descriptor that was granted its name and not read to its end passes the grant on, so
/// only one is read. `told` is the record of the holder that the caller of this was told of.
pub(super) fn wait_any(
    mount: &Mount,
    names: &[Name],
    until: Option<Instant>,
    interrupt: Option<&Interrupt>,
    told: Option<&Value>,
) -> Result<Waited, Failure> {
    let mut queues: Vec<File> = Vec::with_capacity(names.len());
    for name in names {
        let path = mount.path(&["queue", name.as_str()]);
        queues.push(File::open(path).map_err(|error| refused(mount, name, &error))?);
    }
    let mut status = Status::new(mount, names);
    if let Some(record) = told {
        status.told(record);
    }
    // A name that is free by now is not waited for.
    let mut pause = Duration::ZERO;
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let fds = queues.iter().map(AsFd::as_fd);
        let fds: Vec<_> = fds.chain(interrupt.map(AsFd::as_fd)).collect();
        let timeout = left.map_or(pause, |left| left.min(pause));
        pause = Duration::from_secs(1);
        let ready = wait_any_readable(&fds, Some(timeout));
        let ready = ready.map_err(|error| refused(mount, &names[0], &error))?;
        for place in &ready {
            match queues.get(*place) {
                Some(queue) if is_granted(mount, queue, &names[*place])? => {
                    return Ok(Waited::Granted(*place));
                }
                Some(_) => {}
                None => return Ok(Waited::Stopped),
            }
        }
        if ready.is_empty() && left.is_some_and(|left| left.is_zero()) {
            return Ok(Waited::InVain);
        }
        status.show()?;
    }
}

/// Whether the claim is ours, read from a descriptor in its queue.
fn is_granted(mount: &Mount, mut queue: &File, name: &Name) -> Result<bool, Failure> {
    let mut buffer = [0; 1024];
    match queue.read(&mut buffer) {
        Ok(0) => Ok(true),
        // Ignore the progress line: the status says more.
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(refused(mount, name, &error)),
    }
}

/// Waits until nobody holds the name. False if time runs out before.
pub(super) fn until_free(
    mount: &Mount,
    name: &Name,
    until: Option<Instant>,
) -> Result<bool, Failure> {
    let path = mount.path(&["events"]);
    let failed = |error: io::Error| mount.failed(&["events"], &error);
    let mut events = File::open(path).map_err(failed)?;
    let mut status = Status::new(mount, slice::from_ref(name));
    let mut buffer = [0; 8192];
    while mount.lease(name)?.is_some() {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        status.show()?;
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

/// Why a name cannot be taken, other than that another holds it.
pub(super) fn refused(mount: &Mount, name: &Name, error: &io::Error) -> Failure {
    match error.raw_os_error() {
        _ if tool::is_ended(error) => {
            let why = mount.failed(&["queue", name.as_str()], error).text;
            Failure::unavailable(format!("claims/{name}: not taken: {why}"))
        }
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
        Some(libc::EFBIG) => Failure::usage(
            "these names are more than 64 KiB together, which is too long for one step: use --wait",
        ),
        Some(libc::ESTALE) => Failure::held(format!(
            "claims/{name}: your session ended while it waited; see 'claimfs whoami'"
        )),
        _ => Failure::unavailable(format!("claims/{name}: {error}; see 'claimfs doctor'")),
    }
}
