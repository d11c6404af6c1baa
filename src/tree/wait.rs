//! Descriptors that one waits on: `queue/NAME`, which ends once the name is the reader's, and `events`.
//!
//! Promises: a read either has an answer or has none yet, and never sleeps; who is told that a name is its own has it;
//! and a descriptor that is closed before it was told gives its turn to the next.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

use super::{Attr, EVENT_HANDLE, Handle, Opened, QUEUE_HANDLE, QUEUE_INO, Tree, guard};
use crate::lease::{Name, Refusal, SessionKey, WaiterId};
use crate::news::Ring;
use crate::record;
use crate::store::{Caller, Seat, Turn};

/// The files of `queue/` that the kernel knows of. There is one for every name, and none is listed.
#[derive(Debug, Default)]
pub(super) struct QueueFiles {
    by_name: HashMap<Name, u64>,
    by_ino: HashMap<u64, (Name, u64)>,
    newest: u64,
}

/// A descriptor of a file in `queue/`.
#[derive(Debug)]
pub(super) struct Waiting {
    /// `None` once its turn has come, and it knows.
    waiter: Option<(WaiterId, SessionKey)>,
    name: Name,
    /// What it reads before it waits on.
    text: Vec<u8>,
}

impl QueueFiles {
    /// The inode of a name, which the kernel is told of once more.
    fn told(&mut self, name: Name) -> u64 {
        let ino = *self.by_name.entry(name.clone()).or_insert_with(|| {
            self.newest += 1;
            QUEUE_INO + self.newest
        });
        self.by_ino.entry(ino).or_insert((name, 0)).1 += 1;
        ino
    }

    fn forget(&mut self, ino: u64, times: u64) {
        if let Some((name, told)) = self.by_ino.get_mut(&ino) {
            *told = told.saturating_sub(times);
            if *told == 0 {
                self.by_name.remove(name);
                self.by_ino.remove(&ino);
            }
        }
    }
}

impl Tree {
    /// The file of a name in `queue/`.
    pub(super) fn queue_file(&self, name: Name) -> Attr {
        let ino = guard(&self.queue_files).told(name);
        self.virtual_file(ino, 0o444)
    }

    pub(super) fn queue_attr(&self, ino: u64) -> Option<Attr> {
        let known = guard(&self.queue_files).by_ino.contains_key(&ino);
        known.then(|| self.virtual_file(ino, 0o444))
    }

    /// The kernel forgets what it was told of an inode, so many times.
    pub fn forget(&self, ino: u64, times: u64) {
        if (QUEUE_INO..QUEUE_HANDLE).contains(&ino) {
            guard(&self.queue_files).forget(ino, times);
        }
    }

    /// Stands in line for the name of a file in `queue/`.
    pub(super) fn open_queue(&self, caller: Caller, ino: u64) -> Result<Handle, Refusal> {
        let files = guard(&self.queue_files);
        let name = files.by_ino.get(&ino).map(|(name, _)| name.clone());
        drop(files);
        let name = name.ok_or(Refusal::Lost)?;
        let Seat { waiter, alone } = self.store.queue(caller, &name)?;
        let text = alone.map_or_else(String::new, |session| {
            format!(
                "note: session {session} is this command alone, so claims/{name} will end with it; \
                 set the variable for the whole script, or register that: echo $$ > sessions/{session}\n"
            )
        });
        let fh = QUEUE_HANDLE
            + waiter.map_or_else(
                || (1 << 43) + self.next_handle.fetch_add(1, Relaxed),
                |(waiter, _)| waiter.0,
            );
        let text = text.into_bytes();
        guard(&self.waiting).insert(fh, Waiting { waiter, name, text });
        Ok(Handle {
            fh,
            opened: Opened::Stream,
        })
    }

    pub(super) fn open_events(&self) -> Handle {
        Handle {
            fh: EVENT_HANDLE + self.news.open(),
            opened: Opened::Text,
        }
    }

    /// Whether a descriptor is one that one waits on.
    pub fn is_stream(fh: u64) -> bool {
        fh >= QUEUE_HANDLE
    }

    /// What a waiting read gets: `None` as long as there is nothing. `tick` says that it has waited long enough, and that
    /// its reader is to have a chance to see its signals: a progress line in `queue/`, EINTR in `events`.
    pub fn read_stream(
        &self,
        task: u32,
        fh: u64,
        offset: u64,
        size: usize,
        tick: bool,
    ) -> Option<Result<Vec<u8>, Refusal>> {
        if fh >= EVENT_HANDLE {
            let read = self.news.read(fh - EVENT_HANDLE, offset, size).map(Ok);
            return read.or(tick.then_some(Err(Refusal::Interrupted)));
        }
        let mut waiting = guard(&self.waiting);
        let Some(open) = waiting.get_mut(&fh) else {
            return Some(Err(Refusal::Lost));
        };
        if open.text.is_empty() {
            let Some((waiter, key)) = open.waiter else {
                return Some(Ok(Vec::new()));
            };
            match self.store.turn(waiter, key, &open.name) {
                // It will not live to see it: its descriptor's end gives its turn to the next.
                Turn::Granted | Turn::Held if self.store.is_doomed(task) => {
                    return Some(Err(Refusal::Interrupted));
                }
                Turn::Granted if self.store.accept(waiter) => {
                    open.waiter = None;
                    return Some(Ok(Vec::new()));
                }
                Turn::Held => {
                    self.store.leave(waiter);
                    open.waiter = None;
                    return Some(Ok(Vec::new()));
                }
                Turn::Granted | Turn::Over => return Some(Err(Refusal::Lost)),
                Turn::Waits { .. } if !tick => return None,
                Turn::Waits {
                    holder,
                    since,
                    before,
                } => open.text = record::progress(&open.name, &holder, since, before).into_bytes(),
            }
        }
        let rest = open.text.split_off(size.min(open.text.len()));
        Some(Ok(std::mem::replace(&mut open.text, rest)))
    }

    /// Whether a read would have an answer now.
    pub fn is_ready(&self, fh: u64) -> bool {
        if fh >= EVENT_HANDLE {
            return self.news.is_ready(fh - EVENT_HANDLE);
        }
        let waiting = guard(&self.waiting);
        let Some(open) = waiting.get(&fh) else {
            return true;
        };
        let waits =
            |(waiter, key)| matches!(self.store.turn(waiter, key, &open.name), Turn::Waits { .. });
        !open.text.is_empty() || !open.waiter.is_some_and(waits)
    }

    pub(super) fn close_stream(&self, fh: u64) {
        if fh >= EVENT_HANDLE {
            self.news.close(fh - EVENT_HANDLE);
            return;
        }
        let closed = guard(&self.waiting).remove(&fh);
        if let Some((waiter, _)) = closed.and_then(|open| open.waiter) {
            self.store.leave(waiter);
        }
    }

    /// Whether what rang concerns a descriptor.
    pub fn concerns(ring: &Ring, fh: u64) -> bool {
        if fh >= EVENT_HANDLE {
            ring.lines
        } else {
            ring.waiters.contains(&WaiterId(fh - QUEUE_HANDLE))
        }
    }

    /// What has just happened.
    pub fn news(&self) -> &crate::news::News {
        &self.news
    }
}
