//! The log: where its lines are written, and how many there may be.
//!
//! Promises: whatever users do, the lines about each uid (`limited!`) are bounded, as are all lines
//! together, and a line says how many were left out; debug lines are not. The log file in the state
//! directory is bounded in size. Nothing here waits for another process, unless standard error,
//! which is the log in the foreground, is a pipe to one.
//!
//! Does not know: what the lines say.

mod file;
mod limit;

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use env_logger::{Builder, Env, Target};
use log::{Level, Log, Metadata, Record};

pub(crate) use self::file::BYTES_MAX;
use self::file::LogFile;
use self::limit::Limits;
pub(crate) use self::limit::UID;

/// The targets of this program's lines begin with this; the others are of libraries.
const OURS: &str = "claimfs";

static LOGGER: OnceLock<Logger> = OnceLock::new();

static COUNTED: Mutex<Counted> = Mutex::new(Counted {
    limits: Limits::new(),
    is_reporting: false,
});

/// Logs a line that can be repeated without end: `limited!(UID, LEVEL, FORMAT, …)`. The uid is that
/// of the user who causes it, `None` if it is not known. All other lines are written by the macros
/// of [`log`].
macro_rules! limited {
    ($uid:expr, $level:expr, $($text:tt)+) => {{
        let level: log::Level = $level;
        if $crate::logging::admits($uid, level) {
            log::log!(level, $($text)+);
        }
    }};
}
pub(crate) use limited;

struct Counted {
    limits: Limits,
    /// A thread runs that reports how many lines were left out.
    is_reporting: bool,
}

struct Logger {
    lines: env_logger::Logger,
    /// The log file in the state directory, if the lines go there.
    file: Option<Shared>,
}

/// The file, for the logger and for [`follow`].
#[derive(Clone)]
struct Shared(Arc<Mutex<LogFile>>);

/// Logs to standard error, at the level that `RUST_LOG` sets. If standard error is the log at this
/// path, the file is bounded to so many bytes.
pub(crate) fn begin(path: &Path, bytes: u64) {
    let mut builder = Builder::from_env(Env::default().default_filter_or("info"));
    let file = LogFile::behind_stderr(path, bytes);
    let file = file.map(|file| Shared(Arc::new(Mutex::new(file))));
    if let Some(file) = &file {
        builder.target(Target::Pipe(Box::new(file.clone())));
    }
    let lines = builder.build();
    let level = lines.filter();
    let logger = LOGGER.get_or_init(|| Logger { lines, file });
    if log::set_logger(logger).is_ok() {
        log::set_max_level(level);
    }
}

/// Makes standard error, which children inherit, the log that is at its path now.
pub(crate) fn follow() {
    if let Some(file) = LOGGER.get().and_then(|logger| logger.file.as_ref()) {
        file.lock().follow();
    }
}

/// Whether there is room for a line that a user causes; if not it is counted. Lines of a lower
/// level than usual are never left out.
pub(crate) fn admits(uid: Option<u32>, level: Level) -> bool {
    level <= log::max_level()
        && (level > Level::Info || count(|limits, now| limits.admits(uid, now)))
}

/// Asks the limits. If they refuse, a thread will report it.
fn count(ask: impl FnOnce(&mut Limits, Duration) -> bool) -> bool {
    let mut counted = counted();
    if ask(&mut counted.limits, now()) {
        return true;
    }
    let is_reporting = std::mem::replace(&mut counted.is_reporting, true);
    drop(counted);
    if !is_reporting {
        // Started only now, so that it inherits the blocked signals that this process waits for.
        let thread = thread::Builder::new().name(String::from("log"));
        if thread.spawn(report).is_err() {
            self::counted().is_reporting = false;
        }
    }
    false
}

/// Reports how many lines were left out, until there are no more.
fn report() {
    loop {
        let now = now();
        let mut counted = counted();
        let due = counted.limits.take_due(now);
        let next = counted.limits.next_due();
        counted.is_reporting = !due.is_empty() || next.is_some();
        if !counted.is_reporting {
            return;
        }
        drop(counted);
        for left_out in due {
            if let Some(logger) = LOGGER.get() {
                logger.lines.log(
                    &Record::builder()
                        .level(Level::Warn)
                        .target(module_path!())
                        .args(format_args!("{left_out}"))
                        .build(),
                );
            }
        }
        if let Some(next) = next {
            thread::sleep(next.saturating_sub(now));
        }
    }
}

fn counted() -> MutexGuard<'static, Counted> {
    COUNTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time since the first call.
fn now() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.lines.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if !self.lines.matches(record) {
            return;
        }
        // The lines of libraries are about requests, which users cause.
        let is_ours = record.target().starts_with(OURS);
        if (is_ours || admits(None, record.level()))
            && (record.level() > Level::Info || count(Limits::admits_any))
        {
            self.lines.log(record);
        }
    }

    fn flush(&self) {}
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, LogFile> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Shared {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lock().append(line).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
