//! Running a command: its signals and its exit code.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

use super::{Exit, Failure};
use crate::sys::signals::{self, Signals};

/// The signals that are passed on to the child. A terminal sends its signals to both.
const PASSED_ON: [i32; 6] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// The signal that a thread of ours sends to wake [`supervise`].
pub(super) const NUDGE: i32 = libc::SIGALRM;

/// Blocks the signals that [`supervise`] takes, in this thread and those that it starts from now
/// on.
pub(super) fn keep_signals() -> Signals {
    let mut kept = PASSED_ON.to_vec();
    kept.extend([libc::SIGCHLD, NUDGE]);
    Signals::block(&kept)
}

/// The command that these words are.
pub(super) fn command(words: &[OsString]) -> Result<Command, Failure> {
    let [program, arguments @ ..] = words else {
        return Err(nothing_to_run());
    };
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// The failure without a command.
pub(super) fn nothing_to_run() -> Failure {
    Failure::usage("no command to run; put one behind '--', such as '-- make'")
}

/// Starts a command with the signal mask that this process began with. The exit code is 127 if
/// there is no such command, 126 if it cannot be run.
pub(super) fn spawn(command: &mut Command, signals: &Signals) -> Result<Child, Failure> {
    signals.unblock_in(command);
    command.spawn().map_err(|error| unstarted(command, &error))
}

/// Why a command could not be started, with the exit code of shells for that.
pub(super) fn unstarted(command: &Command, error: &io::Error) -> Failure {
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

/// Waits for the child, and passes signals on to it until then; [`NUDGE`] calls `nudged`.
pub(super) fn supervise(
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
            // The terminal has sent it to the child too.
            (_, true) => {}
            // The child has not been waited for, so that its pid is still its own.
            (other, false) => _ = signals::send(child.id(), other),
        }
    }
}

/// The exit code of a child as shells have it: its own, or 128 plus the signal.
pub(super) fn code(status: ExitStatus) -> u8 {
    let signal = status.signal().map(|signal| 128 + signal);
    status
        .code()
        .or(signal)
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(255)
}
