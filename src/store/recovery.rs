//! The first steps of a server, after the journal was read.
//!
//! Does not know: how the table was recovered.

use super::Store;
use crate::core::identity::Ancestry;
use crate::core::{Command, Ino, Process, SessionKey, WaiterId};
use crate::handoff::Note;
use crate::logging::limited;
use crate::process::Watch;

impl Store {
    /// The ancestry of a process that made a request to an earlier server. `None` if it is gone.
    pub(crate) fn ancestry_again(&self, process: &Process, uid: u32) -> Option<Ancestry> {
        let ancestry = self.processes.ancestry(None, process.pid, uid).ok()?;
        (ancestry.caller().process == *process).then_some(ancestry)
    }

    /// Takes over a connection whose descriptors were opened on an earlier server.
    pub(crate) fn take_over(&self) {
        let mut inner = self.lock();
        inner.inherited = inner.table.next_ino();
        inner.note(Note::TakenOver, None);
    }

    /// Watches the processes of the recovered table, and records the death of those that are gone.
    /// None is alive unless this is the `same_boot`. No descriptor is open, and nobody waits,
    /// unless this is the `same_connection`.
    pub(crate) fn recover(&self, same_boot: bool, same_connection: bool) {
        let mut inner = self.lock();
        let processes = inner.table.processes();
        let processes: Vec<(Process, u64)> = processes
            .map(|(process, environ)| (*process, environ))
            .collect();
        for (process, environ) in processes {
            let watched = if same_boot {
                self.processes.watch(&process, environ)
            } else {
                Ok(Watch::Dead)
            };
            match watched {
                Ok(Watch::Watched) => {}
                Ok(Watch::Dead) => inner.died(process),
                Err(error) => limited!(
                    None,
                    log::Level::Error,
                    "pid {} cannot be watched: {error}; what depends on it stays held",
                    process.pid
                ),
            }
        }
        if !same_connection {
            let waiters: Vec<WaiterId> = inner.table.waiters().collect();
            for waiter in waiters {
                inner.commit_own(&Command::Leave { waiter });
            }
            let nameless: Vec<Ino> = inner.table.nameless().collect();
            for ino in nameless {
                inner.forget(ino);
            }
        }
        if !same_boot {
            let sessions = inner.table.sessions(SessionKey(0));
            let keys: Vec<SessionKey> = sessions.map(|session| session.key).collect();
            for key in keys {
                inner.commit_own(&Command::Restart { key });
            }
        }
        inner.resume_scaffolding();
        self.processes.wake();
    }
}
