//! Signals (signal(7)): sending them, and taking them one by one instead of being interrupted.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{Signal, kill_process};

/// `si_code` of a signal that the kernel sends (sigaction(2)).
const SI_KERNEL: i32 = 0x80;

/// Sends a signal to a process: to this one, to a child that has not been waited for yet, or to one
/// that has a lock. ESRCH if there is none.
pub(crate) fn send(pid: u32, signal: i32) -> io::Result<()> {
    let pid = super::pid(pid).ok_or(Errno::SRCH)?;
    let signal = Signal::from_named_raw(signal).ok_or(Errno::INVAL)?;
    Ok(kill_process(pid, signal)?)
}

/// Keeps the pid of a child that has ended until it is waited for, as is the default. This process
/// may have been started with SIGCHLD ignored, and the pids would be used again.
pub(crate) fn expect_children() {
    // SAFETY: the default action takes no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Whether this process ignores a signal, as `nohup` makes it ignore SIGHUP.
pub(crate) fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the call changes nothing, and `action`, for which zeroes are valid, outlives it.
    let action = unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}

/// Signals that are blocked until [`Signals::wait`] takes them, in this thread and those that it
/// starts from now on.
#[derive(Clone, Copy)]
pub(crate) struct Signals {
    blocked: libc::sigset_t,
    before: libc::sigset_t,
}

impl Signals {
    /// Blocks these signals.
    pub(crate) fn block(signals: &[i32]) -> Self {
        let mut blocked = MaybeUninit::<libc::sigset_t>::zeroed();
        let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: sigemptyset initialises the set that the other calls use; both sets outlive the
        // calls.
        unsafe {
            libc::sigemptyset(blocked.as_mut_ptr());
            for signal in signals {
                libc::sigaddset(blocked.as_mut_ptr(), *signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, blocked.as_ptr(), before.as_mut_ptr());
            Self {
                blocked: blocked.assume_init(),
                before: before.assume_init(),
            }
        }
    }

    /// Starts a command with the signals blocked that were so when this process began; it would
    /// inherit those of this process otherwise.
    pub(crate) fn unblock_in(self, command: &mut Command) {
        let before = self.before;
        // SAFETY: the closure makes one system call, which may be made between fork and exec, on a
        // set that it owns.
        unsafe {
            command.pre_exec(move || {
                libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
                Ok(())
            });
        }
    }

    /// Ends this process by a signal that [`Signals::wait`] has taken. Returns if the signal was
    /// blocked when this process began.
    pub(crate) fn end_by(&self, signal: i32) {
        // SAFETY: the set is initialised, and outlives the call.
        unsafe {
            libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const self.before,
                std::ptr::null_mut(),
            );
        }
        _ = send(std::process::id(), signal);
    }

    /// Stops this process by a signal that [`Signals::wait`] has taken. Returns once it goes on,
    /// the SIGCONT taken; at once if it is in an orphaned process group, which nobody could
    /// continue.
    #[allow(clippy::unused_self, reason = "the signals must be blocked")]
    pub(crate) fn stop_by(&self, signal: i32) {
        let set = |signal| {
            let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
            // SAFETY: sigemptyset initialises the set, which outlives the calls.
            unsafe {
                libc::sigemptyset(set.as_mut_ptr());
                libc::sigaddset(set.as_mut_ptr(), signal);
                set.assume_init()
            }
        };
        let (stop, go_on) = (set(signal), set(libc::SIGCONT));
        let at_once = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the sets and the time are initialised, and outlive the calls. The signal is sent
        // to this thread, which stops before the mask is changed again.
        unsafe {
            libc::raise(signal);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const stop, std::ptr::null_mut());
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const stop, std::ptr::null_mut());
            libc::sigtimedwait(&raw const go_on, std::ptr::null_mut(), &raw const at_once);
        }
    }

    /// Sleeps until one of them arrives. Returns its number, and whether the kernel itself sent it:
    /// a terminal's go to the whole foreground, children included.
    pub(crate) fn wait(&self) -> (i32, bool) {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        loop {
            // SAFETY: the set is initialised, and `info`, for which zeroes are valid, outlives the
            // call.
            let (signal, info) = unsafe {
                let signal = libc::sigwaitinfo(&raw const self.blocked, info.as_mut_ptr());
                (signal, info.assume_init())
            };
            if signal > 0 {
                return (signal, info.si_code == SI_KERNEL);
            }
        }
    }
}
