//! The open descriptors that have a state: one table of one enum. All notes about them are made
//! here.
//!
//! Promises: the state that the next server on this connection needs is recorded when a descriptor
//! is opened, when the state changes, and when it is closed.
//!
//! Does not know: the bytes that are read from a descriptor, or written to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::guard;
use super::waiting::Waiting;
use crate::core::identity::Ancestry;
use crate::core::{NodeId, SessionId};
use crate::handoff::{Handoff, Note, Open, Position, Reading};
use crate::store::{Caller, Store};

/// A file in `sessions/` that is open for writing.
#[derive(Clone)]
pub(super) struct Registration {
    pub id: SessionId,
    pub ancestry: Arc<Ancestry>,
    /// Closing it registers nothing: something was written to it, even if that was refused, or the
    /// session existed before.
    pub written: bool,
    /// `O_EXCL`: it must not register a session that exists by then.
    pub exclusive: bool,
}

/// The state of a descriptor.
#[derive(Clone)]
pub(super) enum Descriptor {
    /// A file in `sessions/`.
    Registration(Registration),
    /// A file in `queue/`. Only its own readers wait for this lock.
    Queue(Arc<Mutex<Waiting>>),
    /// `events`, and the position at which it was opened.
    Events(Position),
}

impl Descriptor {
    pub(super) fn queue(waiting: Waiting) -> Self {
        Self::Queue(Arc::new(Mutex::new(waiting)))
    }

    /// The state that the next server needs. `None` if that follows from the table.
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

/// The descriptors that are open, by handle.
pub(super) struct Descriptors {
    store: Arc<Store>,
    /// Taken last. The lock of a file in `queue/` is not taken under it.
    open: Mutex<HashMap<NodeId, Descriptor>>,
}

impl Descriptors {
    pub(super) fn new(store: Arc<Store>) -> Self {
        let open = Mutex::default();
        Self { store, open }
    }

    /// Restores the descriptors that were open on an earlier server.
    pub(super) fn resume(&self, handoff: Handoff) {
        for (fh, open) in handoff.descriptors.open {
            let descriptor = match open {
                Open::Registering {
                    id,
                    process,
                    uid,
                    exclusive,
                    written,
                } => {
                    // A process that is gone cannot register anything any more.
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
                Open::Granted {
                    waiter,
                    key,
                    name,
                    token,
                } => Descriptor::queue(Waiting::accepted(waiter, key, name, token)),
                Open::Reading(reading) => Descriptor::Events(reading.to),
            };
            guard(&self.open).insert(fh, descriptor);
        }
        for (waiter, key, name) in self.store.seats() {
            let waiting = Descriptor::queue(Waiting::in_queue(waiter, key, name));
            guard(&self.open).insert(NodeId::Waiter(waiter), waiting);
        }
    }

    /// Adds a descriptor that a request opened, and records the outcome of the request.
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

    /// Changes a registration, and returns it as it is then.
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

    /// Records the new position of a reader of `events`.
    pub(super) fn read_on(&self, fh: NodeId, reading: Reading) {
        let open = Open::Reading(reading);
        self.store.note(Note::Opened { fh, open });
    }

    /// Records that the reader of a file in `queue/` holds the name in another way.
    pub(super) fn seated(&self, fh: NodeId) {
        self.record(fh, &Descriptor::queue(Waiting::seated()));
    }

    fn record(&self, fh: NodeId, descriptor: &Descriptor) {
        if let Some(open) = descriptor.record() {
            self.store.note(Note::Opened { fh, open });
        }
    }

    /// Closes a descriptor. `last` ends its state before the journal forgets it.
    pub(super) fn close(&self, fh: NodeId, last: impl FnOnce(Descriptor)) {
        let Some(descriptor) = guard(&self.open).remove(&fh) else {
            return;
        };
        last(descriptor);
        self.store.note(Note::Closed { fh });
    }
}
