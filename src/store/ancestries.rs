//! A cache of ancestries, by the thread of the caller.
//!
//! Does not know: how an ancestry is read, or what follows from it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Caller;
use crate::core::Refusal;
use crate::core::identity::Ancestry;
use crate::process::Processes;

/// Reuse a cached ancestry for at most this long. Its facts about the processes above the caller
/// may have been as old when they were read, so an exec by an ancestor goes unnoticed for 50 ms at
/// most.
const AGE_MAX: Duration = Duration::from_millis(25);

/// The largest number of ancestries in the cache.
const COUNT_MAX: usize = 1024;

/// Each ancestry has the time at which its reading began.
#[derive(Default)]
pub(super) struct Ancestries(Mutex<HashMap<u32, (Instant, Arc<Ancestry>)>>);

impl Ancestries {
    /// The caller and the processes above it. EPERM for one that the mount cannot see.
    pub(super) fn get(
        &self,
        processes: &Processes,
        caller: Caller,
    ) -> Result<Arc<Ancestry>, Refusal> {
        if caller.task == 0 {
            return Err(Refusal::NotPermitted);
        }
        let known = self.lock().get(&caller.task).cloned();
        if let Some((start, ancestry)) = known
            && start.elapsed() < AGE_MAX
            && ancestry.uid() == caller.uid
            && processes.is_unchanged(caller.task, ancestry.chain())
        {
            return Ok(ancestry);
        }
        let pid = processes.of_task(caller.task)?;
        let start = Instant::now();
        let ancestry = Arc::new(processes.ancestry(Some(caller.task), pid, caller.uid)?);
        let mut kept = self.lock();
        if kept.len() >= COUNT_MAX {
            kept.clear();
        }
        kept.insert(caller.task, (start, Arc::clone(&ancestry)));
        Ok(ancestry)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, (Instant, Arc<Ancestry>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
