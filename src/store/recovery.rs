//! Recovery: a server takes up what another has left.

use super::Store;
use crate::core::identity::Ancestry;
use crate::core::{Command, Ino, Process, SessionKey, WaiterId};
use crate::handoff::Note;
use crate::logging::limited;
use crate::process::Watch;

impl Store {
    /// A process that is still there, and those above it, as if it had made a request.
    pub fn ancestry_again(&self, process: &Process, uid: u32) -> Option<Ancestry> {
        let ancestry = self.processes.ancestry(None, process.pid, uid).ok()?;
        (ancestry.caller().process == *process).then_some(ancestry)
    }

    /// Goes on with a connection: what is open on it was opened on another server.
    pub fn take_over(&self) {
        let mut inner = self.lock();
        inner.inherited = inner.table.next_ino();
        inner.note(Note::TakenOver, None);
    }

    /// Takes up what was recovered: ends what ended meanwhile, and watches who lives. `same_boot` says whether any process of
    /// then may be alive, and `same_connection` whether any descriptor may be: if not, nobody waits, and nothing is open.
    pub fn recover(&self, same_boot: bool, same_connection: bool) {
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
        inner.set_alarm();
        self.processes.wake();
    }
}
