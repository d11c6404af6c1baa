//! Taking a name and waiting for it: shared by `claim`, `run` and `wait`.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::slice;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::Failure;
use super::columns;
use super::interrupt::Interrupt;
use super::tool::{self, Mount};
use crate::core::{Name, content, printable};
use crate::render::ring;
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
        Err(error) => Err(refused(name, &error)),
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
/// only one is read.
pub(super) fn wait_any(
    mount: &Mount,
    names: &[Name],
    until: Option<Instant>,
    interrupt: Option<&Interrupt>,
) -> Result<Waited, Failure> {
    let mut queues: Vec<File> = Vec::with_capacity(names.len());
    for name in names {
        let path = mount.path(&["queue", name.as_str()]);
        queues.push(File::open(path).map_err(|error| refused(name, &error))?);
    }
    let mut status = Status::new();
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let second = Duration::from_secs(1);
        let fds = queues.iter().map(AsFd::as_fd);
        let fds: Vec<_> = fds.chain(interrupt.map(AsFd::as_fd)).collect();
        let timeout = left.map_or(second, |left| left.min(second));
        let ready = wait_any_readable(&fds, Some(timeout));
        let ready = ready.map_err(|error| refused(&names[0], &error))?;
        for place in &ready {
            match queues.get(*place) {
                Some(queue) if is_granted(queue, &names[*place])? => {
                    return Ok(Waited::Granted(*place));
                }
                Some(_) => {}
                None => return Ok(Waited::Stopped),
            }
        }
        if ready.is_empty() && left.is_some_and(|left| left.is_zero()) {
            return Ok(Waited::InVain);
        }
        status.show(mount, names)?;
    }
}

/// Whether the claim is ours, read from a descriptor in its queue.
fn is_granted(mut queue: &File, name: &Name) -> Result<bool, Failure> {
    let mut buffer = [0; 1024];
    match queue.read(&mut buffer) {
        Ok(0) => Ok(true),
        // Ignore the progress line: the status says more.
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(refused(name, &error)),
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
    let mut status = Status::new();
    let mut buffer = [0; 8192];
    while mount.lease(name)?.is_some() {
        status.show(mount, slice::from_ref(name))?;
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
    /// The ring that was shown last, in words.
    ring: Option<String>,
}

impl Status {
    fn new() -> Self {
        Self {
            on_terminal: io::stderr().is_terminal(),
            shown: false,
            ring: None,
        }
    }

    /// Shows who holds the first of these names that is held.
    fn show(&mut self, mount: &Mount, names: &[Name]) -> Result<(), Failure> {
        if !self.on_terminal {
            return Ok(());
        }
        let mut held = None;
        for name in names {
            held = mount.lease(name)?.map(|record| (name, record));
            if held.is_some() {
                break;
            }
        }
        let Some((name, record)) = held else {
            return Ok(());
        };
        let more = match names.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let all = mount.waiters()?;
        let is_own = |waiter: &Value| waiter["pid"] == std::process::id();
        let queue = all.iter().filter(|waiter| waiter["claim"] == name.as_str());
        let queue: Vec<&Value> = queue.collect();
        let own = queue.iter().position(|waiter| is_own(waiter));
        let place = own.map_or_else(String::new, |own| {
            format!("you are {} of {} for ", own + 1, queue.len())
        });
        let mut text = format!(
            "{place}claims/{name}{more}: held by {} ({}) for {}",
            tool::field(&record, "session"),
            tool::living(mount, &record).map_or_else(
                || String::from("by its deadline"),
                |holder| format!(
                    "pid {}, {}",
                    tool::field(&holder, "pid"),
                    tool::field(&holder, "command")
                ),
            ),
            tool::ago(&record, "acquired_at", SystemTime::now()),
        );
        let mut own = all.iter().filter(|waiter| is_own(waiter));
        self.show_ring(own.find_map(ring::sentence));
        self.shown = true;
        // A line that wraps could not be erased.
        columns::clip(&mut text, columns::SCREEN - 1);
        _ = write!(io::stderr().lock(), "\r\x1b[K{text}");
        Ok(())
    }

    /// Shows a ring in lines of its own, which stay, unless it was shown already.
    fn show_ring(&mut self, ring: Option<String>) {
        if let Some(ring) = &ring
            && self.ring.as_ref() != Some(ring)
        {
            _ = write!(io::stderr().lock(), "\r\x1b[K");
            tool::complain(ring);
        }
        self.ring = ring;
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
pub(super) fn refused(name: &Name, error: &io::Error) -> Failure {
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
        Some(libc::EFBIG) => Failure::usage(
            "these names are more than 64 KiB together, which is too long for one step: use --wait",
        ),
        Some(libc::ESTALE) => Failure::held(format!(
            "claims/{name}: your session ended while it waited; see 'claimfs whoami'"
        )),
        _ => Failure::unavailable(format!("claims/{name}: {error}")),
    }
}
