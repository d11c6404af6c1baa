//! The descriptors that stand for something: one table of one enum, and the one place that tells the
//! journal of them.
//!
//! Promises: what the next server on this connection must know of a descriptor is recorded when it is
//! opened, whenever that changes, and when it is closed.
//!
//! Does not know: what is read from a descriptor, or written to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::guard;
use super::waiting::Waiting;
use crate::core::identity::Ancestry;
use crate::core::{NodeId, SessionId};
use crate::events::EventStream;
use crate::handoff::{Handoff, Note, Open, Position, Reading};
use crate::store::{Caller, Store};

/// A file in `sessions/` that is open for writing.
#[derive(Clone)]
pub(super) struct Registration {
    pub id: SessionId,
    pub ancestry: Arc<Ancestry>,
    /// Something was written to it, whatever came of it; or it was there before, so that it registers
    /// nothing unless something is written.
    pub written: bool,
    /// `O_EXCL`: it must not register a session that is there by then.
    pub exclusive: bool,
}

/// What a descriptor stands for.
#[derive(Clone)]
pub(super) enum Descriptor {
    /// A file in `sessions/`.
    Registration(Registration),
    /// A file in `queue/`. Its readers wait for each other, and nobody else does.
    Queue(Arc<Mutex<Waiting>>),
    /// `events`, from this position on when it was opened.
    Events(Position),
}

impl Descriptor {
    pub(super) fn queue(waiting: Waiting) -> Self {
        Self::Queue(Arc::new(Mutex::new(waiting)))
    }

    /// What the next server must know of it, unless that follows from the table.
    fn record(&self) -> Option<Open> {
        match self {
            Self::Registration(open) => Some(Open::Registering {
                id: open.id.clone(),
                process: open.ancestry.caller().process,
                uid: open.ancestry.uid(),
                exclusive: open.exclusive,
                written: open.written,
            }),
            Self::Queue(waiting) => guard(waiting).is_seated().then_some(Open::Seated),
            Self::Events(at) => Some(Open::Reading(Reading {
                from: *at,
                to: *at,
                ..Reading::default()
            })),
        }
    }
}

/// The descriptors of one connection.
pub(super) struct Descriptors {
    store: Arc<Store>,
    open: Mutex<HashMap<NodeId, Descriptor>>,
}

impl Descriptors {
    pub(super) fn new(store: Arc<Store>) -> Self {
        let open = Mutex::default();
        Self { store, open }
    }

    /// Takes up what the descriptors of a connection stood for.
    pub(super) fn resume(&self, handoff: Handoff, stream: &EventStream) {
        let mut readers = Vec::new();
        for (fh, open) in handoff.open {
            let descriptor = match open {
                Open::Registering {
                    id,
                    process,
                    uid,
                    exclusive,
                    written,
                } => {
                    // Of one that is gone nothing can be registered any more.
                    let Some(ancestry) = self.store.ancestry_again(&process, uid) else {
                        self.store.note(Note::Closed { fh });
                        continue;
                    };
                    Descriptor::Registration(Registration {
                        id,
                        ancestry: Arc::new(ancestry),
                        written,
                        exclusive,
                    })
                }
                Open::Seated => Descriptor::queue(Waiting::seated()),
                Open::Granted { waiter, key, name } => {
                    Descriptor::queue(Waiting::in_queue(waiter, key, name))
                }
                Open::Reading(reading) => {
                    let at = reading.to;
                    if let NodeId::Reader(reader) = fh {
                        readers.push((reader, reading));
                    }
                    Descriptor::Events(at)
                }
            };
            guard(&self.open).insert(fh, descriptor);
        }
        for (waiter, key, name) in self.store.seats() {
            let waiting = Descriptor::queue(Waiting::in_queue(waiter, key, name));
            guard(&self.open).insert(NodeId::Waiter(waiter), waiting);
        }
        if !readers.is_empty() {
            stream.resume(handoff.lines, handoff.lines_from, readers);
        }
    }

    /// A descriptor was opened by a request: should that be sent again, its answer is the same.
    pub(super) fn open(&self, caller: Caller, fh: NodeId, descriptor: Descriptor) {
        if let Some(open) = descriptor.record() {
            self.store.opened(caller, Note::Opened { fh, open });
        }
        guard(&self.open).insert(fh, descriptor);
    }

    pub(super) fn get(&self, fh: NodeId) -> Option<Descriptor> {
        guard(&self.open).get(&fh).cloned()
    }

    pub(super) fn registration(&self, fh: NodeId) -> Option<Registration> {
        match self.get(fh)? {
            Descriptor::Registration(open) => Some(open),
            Descriptor::Queue(_) | Descriptor::Events(_) => None,
        }
    }

    pub(super) fn waiting(&self, fh: NodeId) -> Option<Arc<Mutex<Waiting>>> {
        match self.get(fh)? {
            Descriptor::Queue(waiting) => Some(waiting),
            Descriptor::Registration(_) | Descriptor::Events(_) => None,
        }
    }

    /// Changes what a registration will do, and returns it as it is then.
    pub(super) fn update(
        &self,
        fh: NodeId,
        change: impl FnOnce(&mut Registration),
    ) -> Option<Registration> {
        let mut all = guard(&self.open);
        let Some(Descriptor::Registration(open)) = all.get_mut(&fh) else {
            return None;
        };
        let before = (open.written, open.exclusive);
        change(open);
        let (open, is_changed) = (open.clone(), before != (open.written, open.exclusive));
        drop(all);
        if is_changed {
            self.record(fh, &Descriptor::Registration(open.clone()));
        }
        Some(open)
    }

    /// A reader of `events` has read on.
    pub(super) fn read_on(&self, fh: NodeId, reading: Reading) {
        let open = Open::Reading(reading);
        self.store.note(Note::Opened { fh, open });
    }

    /// The reader of a file in `queue/` holds the name in another way, and reads to the end.
    pub(super) fn seated(&self, fh: NodeId) {
        self.record(fh, &Descriptor::queue(Waiting::seated()));
    }

    fn record(&self, fh: NodeId, descriptor: &Descriptor) {
        if let Some(open) = descriptor.record() {
            self.store.note(Note::Opened { fh, open });
        }
    }

    /// A descriptor is closed. What it stood for is settled by `last`, before the journal forgets it.
    pub(super) fn close(&self, fh: NodeId, last: impl FnOnce(Descriptor)) {
        let Some(descriptor) = guard(&self.open).remove(&fh) else {
            return;
        };
        last(descriptor);
        self.store.note(Note::Closed { fh });
    }
}
