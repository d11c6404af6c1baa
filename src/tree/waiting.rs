//! Descriptors that are waited on: `queue/NAME`, which ends once its reader holds the name, and
//! `events`.
//!
//! Promises: a read has an answer or has none yet, and never sleeps. A reader that is told that it
//! holds a name does hold it. If a descriptor is closed before its reader is told, the next waiter
//! gets the name.
//!
//! Does not know: how a reply is delayed until there is an answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering::Relaxed;

use super::attr::STREAM_SIZE;
use super::descriptors::Descriptor;
use super::{Attr, Handle, Opened, Tree, guard};
use crate::core::table::Turn;
use crate::core::{Name, NodeId, Outcome, Refusal, SessionId, SessionKey, Token, WaiterId};
use crate::handoff::Note;
use crate::store::{Caller, Seat};

/// The files of `queue/` that the kernel knows. There is one for every name, and none is listed.
#[derive(Debug, Default)]
pub(super) struct QueueFiles {
    by_name: HashMap<Name, NodeId>,
    by_ino: BTreeMap<NodeId, QueueFile>,
    newest: u64,
}

#[derive(Debug)]
struct QueueFile {
    name: Name,
    /// The number of lookups that the kernel has not forgotten.
    told: u64,
}

/// The result of a lookup.
struct Told {
    ino: NodeId,
    is_new: bool,
    /// The file that was dropped for it, for lack of space.
    forgotten: Option<NodeId>,
}

/// The largest number of files of `queue/`.
const FILES_MAX: usize = 16_384;

/// A descriptor of a file in `queue/`.
#[derive(Debug)]
pub(super) struct Waiting {
    /// `None` once its reader was told that it holds the name.
    waiter: Option<(WaiterId, SessionKey)>,
    /// The name. `None` if the session holds it without a place in the queue.
    name: Option<Name>,
    /// The token of a grant of which an earlier server was to tell the reader.
    token: Option<Token>,
    /// The bytes that it reads before it waits again.
    text: Vec<u8>,
    /// The bytes that come before the first progress line.
    note: Vec<u8>,
}

impl Waiting {
    /// A descriptor whose session holds the name without a place in the queue.
    pub(super) fn seated() -> Self {
        Self {
            waiter: None,
            name: None,
            token: None,
            text: Vec::new(),
            note: Vec::new(),
        }
    }

    /// Whether its reader holds the name without a place in the queue.
    pub(super) fn is_seated(&self) -> bool {
        self.name.is_none()
    }

    /// A descriptor whose reader waits, or was granted the name.
    pub(super) fn in_queue(waiter: WaiterId, key: SessionKey, name: Name) -> Self {
        Self {
            waiter: Some((waiter, key)),
            name: Some(name),
            token: None,
            text: Vec::new(),
            note: Vec::new(),
        }
    }

    /// A descriptor whose reader was told by an earlier server that it holds the name, or was to be
    /// told when that server ended.
    pub(super) fn accepted(
        waiter: WaiterId,
        key: SessionKey,
        name: Name,
        token: Option<Token>,
    ) -> Self {
        Self {
            token,
            ..Self::in_queue(waiter, key, name)
        }
    }
}

/// The note for the reader of a file in `queue/` whose session ends with the reader.
fn note_for_only_root(session: &SessionId, name: &Name) -> Vec<u8> {
    let note = format!(
        "note: session {session} is this command alone, so claims/{name} will end with it; \
         set the variable for the whole script, or register that: echo $$ > sessions/{session}\n"
    );
    note.into_bytes()
}

impl QueueFiles {
    /// Counts a lookup of a name. If there are too many files, the oldest is dropped: its next open
    /// gets ESTALE, and the kernel looks it up again.
    fn told(&mut self, name: Name) -> Told {
        if let Some(ino) = self.by_name.get(&name).copied() {
            if let Some(file) = self.by_ino.get_mut(&ino) {
                file.told += 1;
            }
            return Told {
                ino,
                is_new: false,
                forgotten: None,
            };
        }
        let forgotten = if self.by_ino.len() >= FILES_MAX {
            self.by_ino.pop_first()
        } else {
            None
        };
        if let Some((_, file)) = &forgotten {
            self.by_name.remove(&file.name);
        }
        self.newest += 1;
        let ino = NodeId::QueueFile(self.newest);
        self.by_name.insert(name.clone(), ino);
        self.by_ino.insert(ino, QueueFile { name, told: 1 });
        Told {
            ino,
            is_new: true,
            forgotten: forgotten.map(|(ino, _)| ino),
        }
    }

    /// The kernel forgets a number of lookups of an inode. Whether it has forgotten all of them.
    fn forget(&mut self, ino: NodeId, times: u64) -> bool {
        let Some(file) = self.by_ino.get_mut(&ino) else {
            return false;
        };
        file.told = file.told.saturating_sub(times);
        if file.told > 0 {
            return false;
        }
        self.by_name.remove(&file.name);
        self.by_ino.remove(&ino);
        true
    }

    /// Restores the files that the kernel knows from an earlier server. The number of lookups is
    /// unknown, so the first forget removes the file.
    pub(super) fn resume(&mut self, files: BTreeMap<NodeId, Name>) {
        for (ino, name) in files {
            if let NodeId::QueueFile(count) = ino {
                self.newest = self.newest.max(count);
            }
            self.by_name.insert(name.clone(), ino);
            self.by_ino.insert(ino, QueueFile { name, told: 0 });
        }
    }
}

impl Tree {
    /// The file of a name in `queue/`.
    pub(super) fn queue_file(&self, name: Name) -> Attr {
        let told = guard(&self.queue_files).told(name.clone());
        let ino = told.ino;
        if let Some(ino) = told.forgotten {
            self.store.note(Note::Forgotten { ino });
        }
        if told.is_new {
            self.store.note(Note::Told { ino, name });
        }
        self.queue_file_attr(ino)
    }

    pub(super) fn queue_file_attr(&self, ino: NodeId) -> Attr {
        Attr {
            size: STREAM_SIZE,
            ..self.virtual_file(ino, 0o444)
        }
    }

    /// The kernel forgets a number of lookups of an inode.
    pub(crate) fn forget(&self, ino: NodeId, times: u64) {
        match ino {
            NodeId::Claim(ino) => self.store.forgotten(ino),
            NodeId::QueueFile(_) => {
                let is_forgotten = guard(&self.queue_files).forget(ino, times);
                if is_forgotten {
                    self.store.note(Note::Forgotten { ino });
                }
            }
            _ => {}
        }
    }

    /// Opens a file in `queue/`: takes a place in the queue of its name.
    pub(super) fn open_queue(&self, caller: Caller, ino: NodeId) -> Result<Handle, Refusal> {
        let name = self.queued_name(ino).ok_or(Refusal::Lost)?;
        let Seat { waiter, alone } = self.store.queue(&self.store.principal(caller)?, &name)?;
        let note = alone.map(|session| note_for_only_root(&session, &name));
        let note = note.unwrap_or_default();
        let (fh, waiting) = if let Some((waiter, key)) = waiter {
            (NodeId::Waiter(waiter), Waiting::in_queue(waiter, key, name))
        } else {
            let count = self.next_handle.fetch_add(1, Relaxed);
            (NodeId::Seated(count), Waiting::seated())
        };
        let descriptor = Descriptor::queue(Waiting { note, ..waiting });
        self.descriptors.open(caller, fh, descriptor);
        Ok(Handle {
            fh,
            opened: Opened::Stream,
        })
    }

    /// The name of a file in `queue/`.
    pub(super) fn queued_name(&self, ino: NodeId) -> Option<Name> {
        let files = guard(&self.queue_files);
        files.by_ino.get(&ino).map(|file| file.name.clone())
    }

    /// The descriptor that a request opened when it was sent first.
    pub(crate) fn reopened(&self, caller: Caller, ino: NodeId, outcome: Outcome) -> Handle {
        let seat = outcome.seat.map(|(waiter, _)| NodeId::Waiter(waiter));
        if let Some(fh) = seat
            && let Ok(who) = self.store.principal(caller)
            && let Some(session) = self.store.alone(&who)
            && let Some(waiting) = self.descriptors.waiting(fh)
        {
            let mut waiting = guard(&waiting);
            if let Some(name) = &waiting.name {
                waiting.note = note_for_only_root(&session, name);
            }
        }
        match outcome.fh.or(seat) {
            Some(fh) => Handle {
                fh,
                opened: match fh {
                    NodeId::Waiter(_) | NodeId::Seated(_) => Opened::Stream,
                    _ => Opened::Text,
                },
            },
            None => Handle::of_claim(ino),
        }
    }

    /// Notes that the kernel has a descriptor.
    pub(crate) fn confirmed(&self, fh: NodeId) {
        let waiting = self.descriptors.waiting(fh);
        let waiter = waiting.and_then(|waiting| guard(&waiting).waiter);
        if let Some((waiter, _)) = waiter {
            self.store.note(Note::Confirmed { waiter });
        }
    }

    pub(super) fn open_events(&self, caller: Caller) -> Handle {
        let (reader, at) = self.stream.open();
        let fh = NodeId::Reader(reader);
        self.descriptors.open(caller, fh, Descriptor::Events(at));
        Handle {
            fh,
            opened: Opened::Text,
        }
    }

    /// The answer to a read. `None` if it has to wait. With `tick` it has waited long enough, and
    /// is answered so that its reader sees its signals: with a progress line in `queue/`, with
    /// EINTR in `events`.
    pub(crate) fn read_stream(
        &self,
        task: u32,
        fh: NodeId,
        offset: u64,
        size: usize,
        tick: bool,
    ) -> Option<Result<Vec<u8>, Refusal>> {
        if let NodeId::Reader(reader) = fh {
            let Some(read) = self.stream.read(reader, offset, size) else {
                return tick.then_some(Err(Refusal::Interrupted));
            };
            self.descriptors.read_on(fh, read.reading);
            return Some(Ok(read.bytes));
        }
        let Some(waiting) = self.descriptors.waiting(fh) else {
            return Some(Err(Refusal::Lost));
        };
        let mut open = guard(&waiting);
        let open = &mut *open;
        if open.text.is_empty() {
            let (Some((waiter, key)), Some(name)) = (open.waiter, &open.name) else {
                return Some(Ok(Vec::new()));
            };
            if open
                .token
                .is_some_and(|token| self.store.has_token(name, token))
            {
                open.waiter = None;
                return Some(Ok(Vec::new()));
            }
            match self.store.turn_to_tell(task, waiter, key, name) {
                // The reader is dying. When its descriptor is closed, the next waiter gets the
                // name.
                Turn::Granted | Turn::Held if self.store.is_doomed(task) => {
                    return Some(Err(Refusal::Interrupted));
                }
                Turn::Granted if self.store.accept(waiter) => {
                    open.waiter = None;
                    return Some(Ok(Vec::new()));
                }
                Turn::Held => {
                    // Before the place is given up: if this server is killed between the two, the
                    // next one must not answer that the place is lost.
                    self.descriptors.seated(fh);
                    self.store.leave(waiter);
                    open.waiter = None;
                    return Some(Ok(Vec::new()));
                }
                Turn::Granted | Turn::Over => return Some(Err(Refusal::Lost)),
                Turn::Waits if !tick => return None,
                Turn::Waits => {
                    // It is told soon of what has happened meanwhile.
                    let progress = self.store.progress(waiter)?;
                    open.text = std::mem::take(&mut open.note);
                    open.text.extend_from_slice(progress.line().as_bytes());
                }
            }
        }
        let rest = open.text.split_off(size.min(open.text.len()));
        Some(Ok(std::mem::replace(&mut open.text, rest)))
    }

    /// Whether a descriptor is ready: in `queue/` once a read would not wait, apart from progress
    /// lines.
    pub(crate) fn is_ready(&self, fh: NodeId) -> bool {
        if let NodeId::Reader(reader) = fh {
            return self.stream.is_ready(reader);
        }
        let Some(waiting) = self.descriptors.waiting(fh) else {
            return true;
        };
        let open = guard(&waiting);
        let waits =
            |((waiter, key), name)| matches!(self.store.turn(waiter, key, name), Turn::Waits);
        !open.waiter.zip(open.name.as_ref()).is_some_and(waits)
    }

    pub(super) fn close_stream(&self, fh: NodeId) {
        self.descriptors.close(fh, |descriptor| match descriptor {
            Descriptor::Queue(waiting) => {
                let waiter = guard(&waiting).waiter;
                if let Some((waiter, _)) = waiter {
                    self.store.leave(waiter);
                }
            }
            Descriptor::Events(_) => {
                if let NodeId::Reader(reader) = fh {
                    self.stream.close(reader);
                }
            }
            Descriptor::Registration(_) => {}
        });
    }

    /// The event stream.
    pub(crate) fn stream(&self) -> &crate::events::EventStream {
        &self.stream
    }
}
