//! Reading files: the content of claims, and snapshots that are rendered at the first read.
//!
//! Promises: a text is one snapshot for all reads of a descriptor, from its start on, unless that
//! is open for writing. A server that takes over goes on with the same text, or answers ESTALE if
//! that was not kept. The spool is not used under the store's lock.
//!
//! Does not know: how a record is formatted.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Tree, first_name, guard};
use crate::core::content;
use crate::core::{Fixed, Ino, NodeId, Refusal, Subject};
use crate::logging::limited;
use crate::render::{self, Record};
use crate::store::{Caller, Principal, Store};
use crate::sys::thread::yielding;

/// So many leases are formatted after what others ask for.
const MANY: usize = 1000;

/// The content of `README`.
const MANUAL: &str = include_str!("../manual/mount.txt");

impl Tree {
    /// Whether the first read of an inode may take long: it renders the whole table or a whole
    /// session, or reads all processes above the caller.
    pub(crate) fn is_long(ino: NodeId) -> bool {
        match ino {
            NodeId::Session(_) => true,
            NodeId::Fixed(file) => match file {
                Fixed::Leases | Fixed::Waiters | Fixed::History | Fixed::Own => true,
                Fixed::Root
                | Fixed::Readme
                | Fixed::Claims
                | Fixed::Sessions
                | Fixed::Control
                | Fixed::Metrics
                | Fixed::Queue
                | Fixed::Events
                | Fixed::Paths => false,
            },
            _ => false,
        }
    }

    /// Reads a range of a file and passes the bytes to `show`.
    pub(crate) fn read<R>(
        &self,
        caller: Caller,
        ino: NodeId,
        fh: NodeId,
        offset: u64,
        size: usize,
        show: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Refusal> {
        let kept = guard(&self.kept);
        if offset > 0 && kept.is_lost(fh) {
            return Err(Refusal::Lost);
        }
        let text = kept.get(fh).filter(|_| offset > 0);
        drop(kept);
        if text.is_none()
            && let NodeId::Claim(ino) = ino
        {
            return self.read_claim(caller, ino, fh, offset, size, show);
        }
        let begun = match text {
            None => self.begun(fh, offset)?,
            text => text,
        };
        let text = if let Some(text) = begun {
            text
        } else {
            let text = self.render(caller, ino)?;
            self.keep(caller, fh, &text, size);
            text
        };
        Ok(show(content::slice(text.as_bytes(), offset, size)))
    }

    /// Whether a read at an offset goes on with a text that was rendered before.
    pub(crate) fn is_begun(&self, fh: NodeId, offset: u64) -> bool {
        offset > 0 && (self.is_older(fh) || guard(&self.kept).has_begun(fh))
    }

    /// Whether a read shows something other than the bytes that the file's size counts.
    pub(crate) fn is_rendered(&self, ino: NodeId, fh: NodeId) -> bool {
        match ino {
            NodeId::Claim(_) if fh.is_stream() => true,
            NodeId::Claim(ino) => {
                let is_blank = self.node(ino, |_, node| node.content().is_blank());
                is_blank.unwrap_or(false)
            }
            _ => true,
        }
    }

    fn read_claim<R>(
        &self,
        caller: Caller,
        ino: Ino,
        fh: NodeId,
        offset: u64,
        size: usize,
        show: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Refusal> {
        let now = Store::now().boot;
        let begun = self.begun(fh, offset)?;
        // The content is shown under the lock, without a copy. A record is shown after it.
        let read = self.node(ino, |table, node| {
            let name = first_name(table, node).filter(|_| node.content().is_blank());
            let Some(name) = name else {
                return Ok(show(content::slice(node.content().body(), offset, size)));
            };
            let text = begun.unwrap_or_else(|| Arc::from(render::lease_line(table, name, now)));
            Err((show, text))
        });
        let (show, text) = match read.ok_or(Refusal::Lost)? {
            Ok(shown) => return Ok(shown),
            Err(record) => record,
        };
        let shown = show(content::slice(text.as_bytes(), offset, size));
        if matches!(fh, NodeId::Text(_)) {
            self.keep(caller, fh, &text, size);
        }
        Ok(shown)
    }

    /// Keeps the text that a descriptor reads. If its first read does not take all of it, the spool
    /// keeps it for the next server too.
    fn keep(&self, caller: Caller, fh: NodeId, text: &Arc<str>, size: usize) {
        if text.len() > size {
            self.spool.keep(fh, text);
        }
        guard(&self.kept).keep(fh, caller.uid, text);
    }

    /// The text that an earlier server began to show on a descriptor. Empty if its first read took
    /// all of it. ESTALE if it was not kept.
    fn begun(&self, fh: NodeId, offset: u64) -> Result<Option<Arc<str>>, Refusal> {
        if offset == 0 || !self.is_older(fh) {
            return Ok(None);
        }
        let text = self.spool.find(fh)?;
        Ok(Some(Arc::from(text.unwrap_or_default())))
    }

    /// Whether a descriptor that reads a text was opened on an earlier server.
    pub(super) fn is_older(&self, fh: NodeId) -> bool {
        matches!(fh, NodeId::Text(count) if count < self.oldest_handle)
    }

    fn render(&self, caller: Caller, ino: NodeId) -> Result<Arc<str>, Refusal> {
        Ok(Arc::from(match ino {
            NodeId::Fixed(Fixed::Readme) => String::from(MANUAL),
            NodeId::Fixed(Fixed::Own) => self.render_self(caller),
            NodeId::Fixed(Fixed::Leases) => return self.render_leases(),
            NodeId::Fixed(Fixed::History) => self.render_history()?,
            NodeId::Fixed(Fixed::Waiters) => {
                let waiters = self.store.read(Subject::Nothing, render::waiters);
                render::waiter_lines(&waiters)
            }
            NodeId::Fixed(Fixed::Metrics) => {
                self.metrics.render(&self.store.gauges(), SystemTime::now())
            }
            NodeId::Session(key) => {
                let id = self
                    .session_file(ino, |session| session.id.clone())
                    .ok_or(Refusal::Lost)?;
                let shown = self.store.session_record(&id, key);
                // Formatted after the store's lock is released.
                render::line(&shown.ok_or(Refusal::Lost)?.json())
            }
            // Directories, files that are only written, and streams.
            NodeId::Fixed(
                Fixed::Root
                | Fixed::Claims
                | Fixed::Sessions
                | Fixed::Control
                | Fixed::Queue
                | Fixed::Events
                | Fixed::Paths,
            )
            | NodeId::Claim(_)
            | NodeId::Registration(_)
            | NodeId::Text(_)
            | NodeId::QueueFile(_)
            | NodeId::Waiter(_)
            | NodeId::Seated(_)
            | NodeId::Reader(_)
            | NodeId::Tombstone(_)
            | NodeId::Scaffold(_) => String::new(),
        }))
    }

    /// The content of `leases`. Its first line names the event that the other lines, a lease each,
    /// reflect.
    fn render_leases(&self) -> Result<Arc<str>, Refusal> {
        let known = |seq| guard(&self.kept).leases(seq);
        let (seq, records) = match self.store.snapshot(known) {
            Ok(text) => return Ok(text),
            Err(snapshot) => snapshot,
        };
        let format = || {
            let is_shown = |record: &&Record| !record.name.is_scratch();
            let shown: Vec<&Record> = records.iter().filter(is_shown).collect();
            let now = Store::now().boot;
            let mut text = format!("{{\"seq\":{seq},\"leases\":{}}}\n", shown.len());
            for record in shown {
                text.push_str(&render::line(&record.json(now)));
            }
            Arc::from(text)
        };
        // Formatted after the store's lock is released.
        let text: Arc<str> = if records.len() < MANY {
            format()
        } else {
            yielding("leases", format).map_err(|_| Refusal::Shortage)?
        };
        guard(&self.kept).has_leases(seq, &text);
        Ok(text)
    }

    /// The newest events. EIO if they cannot be read.
    fn render_history(&self) -> Result<String, Refusal> {
        // Formatted after the store's lock is released.
        self.store.history().render().map_err(|error| {
            limited!(
                None,
                log::Level::Error,
                "the history cannot be read: {error}"
            );
            Refusal::Failed
        })
    }

    fn render_self(&self, caller: Caller) -> String {
        let who = self.store.principal(caller);
        let ancestry = match who
            .as_ref()
            .map_err(|refusal| *refusal)
            .and_then(Principal::ancestry)
        {
            Ok(ancestry) => ancestry,
            Err(refusal) => return render::unseen(caller.uid, refusal),
        };
        let member = self.store.member(ancestry);
        let parent = self
            .store
            .parent_ancestry(ancestry)
            .and_then(|ancestry| self.store.member(&ancestry));
        let found = member.as_ref().ok().and_then(|member| {
            self.session(&member.id, |table, session| {
                table.admits(member).then(|| session.roots.clone())
            })
        });
        let (is_foreign, roots) = (found == Some(None), found.flatten());
        render::identity(
            ancestry,
            member.as_ref().ok(),
            parent.as_ref().ok(),
            roots.as_deref(),
            self.store.source().as_str(),
            is_foreign,
        )
    }
}
