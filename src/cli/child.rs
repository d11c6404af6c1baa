//! Running a command: its signals, its end.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

use super::{Exit, Failure};
use crate::process::{Signals, signal};

/// The signals that are passed on to the child. A terminal sends its own to both.
const PASSED_ON: [i32; 6] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// What a thread of ours sends to wake [`supervise`]: nobody else has a use for it here.
pub const NUDGE: i32 = libc::SIGALRM;

/// Keeps the signals that [`supervise`] takes, in this thread and those that it starts from now on.
pub fn keep_signals() -> Signals {
    let mut kept = PASSED_ON.to_vec();
    kept.extend([libc::SIGCHLD, NUDGE]);
    Signals::keep(&kept)
}

/// The command that these words are.
pub fn command(words: &[OsString]) -> Result<Command, Failure> {
    let [program, arguments @ ..] = words else {
        return Err(Failure::usage("no command to run"));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// Starts a command with the signals that this process was born with. 127 if there is none, 126 if it cannot be run.
pub fn spawn(command: &mut Command, signals: &Signals) -> Result<Child, Failure> {
    signals.unkept_in(command);
    command.spawn().map_err(|error| unstarted(command, &error))
}

/// Why a command could not be started, with the exit code that shells have for it.
pub fn unstarted(command: &Command, error: &io::Error) -> Failure {
    let code = if error.kind() == io::ErrorKind::NotFound {
        127
    } else {
        126
    };
    Failure {
        exit: Exit::Child(code),
        text: format!("{}: {error}", command.get_program().display()),
    }
}

/// Waits for the child, and passes signals on to it until then; a nudge is for `nudged`.
pub fn supervise(
    child: &mut Child,
    signals: &Signals,
    mut nudged: impl FnMut(&Child),
) -> Result<ExitStatus, Failure> {
    loop {
        match signals.wait() {
            (libc::SIGCHLD, _) => {
                let ended = child.try_wait();
                let ended = ended.map_err(|error| Failure::unavailable(error.to_string()))?;
                if let Some(status) = ended {
                    return Ok(status);
                }
            }
            (NUDGE, _) => nudged(child),
            // The terminal has told the child too.
            (_, true) => {}
            // Not waited for yet, so its pid is still its own.
            (other, false) => _ = signal(child.id(), other),
        }
    }
}

/// A child's end as a shell tells it: its exit code, or 128 and the signal.
pub fn code(status: ExitStatus) -> u8 {
    let signal = status.signal().map(|signal| 128 + signal);
    status
        .code()
        .or(signal)
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(255)
}
