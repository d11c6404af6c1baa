//! Descriptors on the files of the mount: what they read as, and what is written to them.
//!
//! Promises: what is read from one descriptor from its start on is one picture of one moment, and a registration that
//! is refused registers nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::control::ControlCommand;
use super::descriptors::{Descriptor, Registration};
use super::{
    Attr, Handle, MANUAL, Opened, REGISTRATION_MAX, Tree, Unwritten, first_name, guard, node_attr,
};
use crate::core::content;
use crate::core::identity::Ancestry;
use crate::core::{
    Change, Command, Creation, Fixed, Ino, Name, NodeId, Refusal, SessionId, Shape, Subject,
};
use crate::logging::limited;
use crate::render::{self, Record, SessionRecord};
use crate::store::{Caller, Principal};

/// How many commands one write to `control` may have (EFBIG past it): others wait for it.
const COMMANDS_MAX: usize = 16;

impl Tree {
    /// Creates a file: a claim, or a registration in `sessions/`.
    pub fn create(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &[u8],
        mode: u16,
        exclusive: bool,
        truncate: bool,
    ) -> Result<(Attr, Handle), Refusal> {
        if parent == NodeId::Fixed(Fixed::Sessions) {
            let id = SessionId::new(name)?;
            if exclusive && self.session(&id, |_, _| ()).is_some() {
                return Err(Refusal::Exists);
            }
            let handle = self.registration(caller, id, exclusive, false)?;
            return Ok((self.attr(handle.fh)?, handle));
        }
        let creation = Creation {
            shape: Shape::File,
            mode,
            uid: caller.uid,
            gid: caller.gid,
        };
        let place = self.place(parent, name)?;
        let flags = (exclusive, truncate);
        let who = self.store.principal(caller)?;
        self.store
            .create(&who, place, creation, flags, |ino, node, is_new| {
                if is_new && node.child.is_none() {
                    let unwritten = Unwritten {
                        writers: 1,
                        lock_refused: false,
                    };
                    guard(&self.unwritten).insert(ino, unwritten);
                }
                (node_attr(ino, node), Handle::of_claim(NodeId::Claim(ino)))
            })
    }

    /// Opens a file; that its mode admits the caller was checked.
    pub fn open(
        &self,
        caller: Caller,
        ino: NodeId,
        write: bool,
        truncate: bool,
    ) -> Result<Handle, Refusal> {
        let fixed = match ino {
            NodeId::Claim(ino) => return self.open_claim(caller, ino, write, truncate),
            NodeId::Session(_) if write || truncate => {
                let id = self
                    .session_file(ino, |session| session.id.clone())
                    .ok_or(Refusal::Lost)?;
                // To open a session that is there and write nothing changes nothing: so does touch(1).
                return self.registration(caller, id, false, true);
            }
            // Root passes every mode, but these are not for writing.
            NodeId::QueueFile(_) if write => return Err(Refusal::Denied),
            NodeId::QueueFile(_) => return self.open_queue(caller, ino),
            NodeId::Fixed(fixed) => fixed,
            _ => return Ok(self.text()),
        };
        match fixed {
            Fixed::Root | Fixed::Claims | Fixed::Sessions | Fixed::Queue => {
                Err(Refusal::IsDirectory)
            }
            Fixed::Control => Ok(self.text()),
            _ if write => Err(Refusal::Denied),
            Fixed::Events => Ok(self.open_events(caller)),
            _ => Ok(self.text()),
        }
    }

    fn open_claim(
        &self,
        caller: Caller,
        ino: Ino,
        write: bool,
        truncate: bool,
    ) -> Result<Handle, Refusal> {
        if write || truncate {
            let who = self.store.principal(caller)?;
            self.store.open_to_write(&who, ino, truncate)?;
        } else {
            self.store.open_to_read(ino)?;
        }
        // One that only reads may read the record, which changes by itself: it gets a snapshot of it.
        let fh = if write {
            NodeId::Claim(ino)
        } else {
            self.text().fh
        };
        if write && let Some(unwritten) = guard(&self.unwritten).get_mut(&ino) {
            unwritten.writers += 1;
        }
        let opened = Opened::Claim;
        Ok(Handle { fh, opened })
    }

    /// Opens a directory. One of a claim's lives on, without a name, as long as it is open.
    pub fn open_directory(&self, ino: NodeId) -> Result<NodeId, Refusal> {
        if let NodeId::Claim(ino) = ino {
            self.store.open_to_read(ino)?;
        }
        Ok(ino)
    }

    /// A handle for a text that is made at the first read.
    fn text(&self) -> Handle {
        Handle {
            fh: NodeId::Text(self.next_handle.fetch_add(1, Relaxed)),
            opened: Opened::Text,
        }
    }

    fn registration(
        &self,
        caller: Caller,
        id: SessionId,
        exclusive: bool,
        written: bool,
    ) -> Result<Handle, Refusal> {
        let ancestry = Arc::clone(self.store.principal(caller)?.ancestry()?);
        let fh = NodeId::Registration(self.next_handle.fetch_add(1, Relaxed));
        let open = Descriptor::Registration(Registration {
            id,
            ancestry,
            written,
            exclusive,
        });
        self.descriptors.open(caller, fh, open);
        Ok(Handle {
            fh,
            opened: Opened::Text,
        })
    }

    /// Bytes of a file, handed to `show`.
    pub fn read<R>(
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
        let text = if let Some(text) = text.or_else(|| self.begun(fh, offset)) {
            text
        } else {
            let text = self.render(caller, ino)?;
            self.keep(caller, fh, &text, size);
            text
        };
        Ok(show(content::slice(text.as_bytes(), offset, size)))
    }

    /// Whether a descriptor has the text from which it reads at an offset, or had it.
    pub fn is_begun(&self, fh: NodeId, offset: u64) -> bool {
        offset > 0 && (self.is_older(fh) || guard(&self.kept).has_begun(fh))
    }

    /// Whether a file reads as something else than the bytes that its size counts.
    pub fn is_rendered(&self, ino: NodeId, fh: NodeId) -> bool {
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
        let now = self.store.now().boot;
        let shown = self.node(ino, |table, node| {
            let name = first_name(table, node).filter(|_| node.content().is_blank());
            let Some(name) = name else {
                return show(content::slice(node.content().body(), offset, size));
            };
            let begun = self.begun(fh, offset);
            let text = begun.unwrap_or_else(|| Arc::from(render::lease_line(table, name, now)));
            let shown = show(content::slice(text.as_bytes(), offset, size));
            if matches!(fh, NodeId::Text(_)) {
                self.keep(caller, fh, &text, size);
            }
            shown
        });
        shown.ok_or(Refusal::Lost)
    }

    /// Keeps what a descriptor reads as: for a server after this one too, if its first read does not take all of it.
    fn keep(&self, caller: Caller, fh: NodeId, text: &Arc<str>, size: usize) {
        if text.len() > size {
            self.spool.keep(fh, text);
        }
        guard(&self.kept).keep(fh, caller.uid, text);
    }

    /// The text that a server before this one has begun to show: it goes on as it was, and ends where that is not known.
    fn begun(&self, fh: NodeId, offset: u64) -> Option<Arc<str>> {
        let begun = offset > 0 && self.is_older(fh);
        begun.then(|| Arc::from(self.spool.find(fh).unwrap_or_default()))
    }

    /// Whether a descriptor that reads a text was opened on a server before this one.
    fn is_older(&self, fh: NodeId) -> bool {
        matches!(fh, NodeId::Text(count) if count < self.oldest_handle)
    }

    fn render(&self, caller: Caller, ino: NodeId) -> Result<Arc<str>, Refusal> {
        Ok(Arc::from(match ino {
            NodeId::Fixed(Fixed::Readme) => String::from(MANUAL),
            NodeId::Fixed(Fixed::Own) => self.render_self(caller),
            NodeId::Fixed(Fixed::Leases) => return Ok(self.render_leases()),
            NodeId::Fixed(Fixed::Waiters) => {
                let waiters = self.store.read(Subject::Nothing, render::waiters);
                render::waiter_lines(&waiters)
            }
            NodeId::Fixed(Fixed::Metrics) => {
                let (leases, sessions) = self.store.read(Subject::Nothing, |table| {
                    (table.lease_count(), table.session_count())
                });
                let source = self.store.source().as_str();
                let overflows = self.store.status_overflows();
                self.metrics.render(leases, sessions, source, overflows)
            }
            NodeId::Session(key) => {
                let id = self
                    .session_file(ino, |session| session.id.clone())
                    .ok_or(Refusal::Lost)?;
                let shown = self.session(&id, |table, session| {
                    (session.key == key).then(|| SessionRecord::of(table, session))
                });
                // What takes time is done once everybody else may go on.
                render::line(&shown.flatten().ok_or(Refusal::Lost)?.json())
            }
            _ => String::new(),
        }))
    }

    /// The first line names the event sequence that the other lines, a lease each, reflect.
    fn render_leases(&self) -> Arc<str> {
        let mut records = Vec::new();
        let known = |seq| guard(&self.kept).leases(seq);
        let snapshot = self.store.snapshot(known, |table, name| {
            if !name.is_scratch() {
                records.extend(Record::of(table, name));
            }
        });
        let seq = match snapshot {
            Ok(text) => return text,
            Err(seq) => seq,
        };
        // What takes time is done once everybody else may go on.
        let now = self.store.now().boot;
        let mut text = format!("{{\"seq\":{seq},\"leases\":{}}}\n", records.len());
        for record in records {
            text.push_str(&render::line(&record.json(now)));
        }
        let text = Arc::from(text);
        guard(&self.kept).has_leases(seq, &text);
        text
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
        let id = member.as_ref().map(|member| member.id.clone()).ok();
        let roots = id.and_then(|id| self.session(&id, |_, session| session.roots.clone()));
        render::identity(
            ancestry,
            member.as_ref().ok(),
            parent.as_ref().ok(),
            roots.as_deref(),
            self.store.source().as_str(),
        )
    }

    /// Writes to a file that was opened for it.
    pub fn write(
        &self,
        caller: Caller,
        ino: NodeId,
        fh: NodeId,
        offset: u64,
        data: &[u8],
        append: bool,
    ) -> Result<(), Refusal> {
        match ino {
            NodeId::Fixed(Fixed::Control) => self.control(caller, data),
            NodeId::Claim(ino) => {
                guard(&self.unwritten).remove(&ino);
                let data = data.to_vec();
                let change = if append {
                    Change::Append { data }
                } else {
                    Change::Write { offset, data }
                };
                self.alter(caller, ino, change)
            }
            _ if data.len() > REGISTRATION_MAX => Err(Refusal::TooLarge),
            _ => self.register(fh, data, Some(caller)),
        }
    }

    /// Commands, a JSON object a line. The first that is refused ends it, and says why by its errno.
    fn control(&self, caller: Caller, data: &[u8]) -> Result<(), Refusal> {
        let text = std::str::from_utf8(data).map_err(|_| Refusal::Invalid)?;
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        if lines.clone().count() > COMMANDS_MAX {
            return Err(Refusal::TooLarge);
        }
        for (step, line) in (0..).zip(lines) {
            let caller = Caller { step, ..caller };
            // A write that is sent again goes on where it was interrupted.
            if self.outcome(caller).is_some() {
                self.store.sync()?;
                continue;
            }
            self.obey(caller, ControlCommand::parse(line)?)?;
        }
        Ok(())
    }

    fn obey(&self, caller: Caller, command: ControlCommand) -> Result<(), Refusal> {
        let inode = |name: &Name| {
            let ino = self.lease(name.as_str(), |lease, _| lease.ino);
            ino.ok_or(Refusal::NotFound)
        };
        match command {
            ControlCommand::Claim { name, session, ttl } => {
                let who = self.store.principal(caller)?;
                let by = &who.remote(session);
                self.store.execute(&who, &Command::Hold { name, by, ttl })?;
                self.store.sync()
            }
            ControlCommand::Release { name, session } => {
                let who = self.store.principal(caller)?;
                let by = &who.remote(session);
                self.store.execute(&who, &Command::Yield { name, by })?;
                Ok(())
            }
            ControlCommand::Break { name, token } => self.break_lease(caller, name, token),
            ControlCommand::Give { name, to } => self.give(caller, inode(&name)?, to),
            ControlCommand::Limit { name, ttl } => self.limit(caller, inode(&name)?, ttl),
            ControlCommand::End { session: id } => {
                let who = self.store.principal(caller)?;
                let chain = who.chain();
                let by = who.asker(&chain);
                self.store.execute(&who, &Command::End { id, by })?;
                Ok(())
            }
        }
    }

    pub(super) fn register(
        &self,
        fh: NodeId,
        body: &[u8],
        caller: Option<Caller>,
    ) -> Result<(), Refusal> {
        // Whatever comes of it, this file was not left empty.
        let open = self.descriptors.update(fh, |open| open.written = true);
        let open = open.ok_or(Refusal::Lost)?;
        self.join(&open.ancestry, open.id, body, open.exclusive, caller)?;
        self.registered(fh);
        Ok(())
    }

    /// Registers a session, or a further root of one: see [`Ancestry::register`] for `body`, and
    /// `caller` for the request that asks for it, if it is one that may be sent again.
    fn join(
        &self,
        ancestry: &Arc<Ancestry>,
        id: SessionId,
        body: &[u8],
        exclusive: bool,
        caller: Option<Caller>,
    ) -> Result<(), Refusal> {
        let by = &ancestry.register(id, body)?;
        let ancestry = Arc::clone(ancestry);
        let who = match caller {
            Some(caller) => Principal::new(caller, Some(ancestry)),
            None => Principal::of_ancestry(ancestry),
        };
        self.store.execute(&who, &Command::Join { exclusive, by })?;
        Ok(())
    }

    /// A descriptor has registered its session: from here on it is its own that is there.
    pub fn registered(&self, fh: NodeId) {
        self.descriptors.update(fh, |open| open.exclusive = false);
    }

    /// A descriptor is closed that might have written to a claim.
    fn close_unwritten(&self, ino: Ino) {
        let mut all = guard(&self.unwritten);
        let Some(unwritten) = all.get_mut(&ino) else {
            return;
        };
        unwritten.writers = unwritten.writers.saturating_sub(1);
        if unwritten.writers == 0 {
            let withdraws = unwritten.lock_refused;
            all.remove(&ino);
            drop(all);
            if withdraws {
                self.store.withdraw(ino);
            }
        }
    }

    /// A descriptor is closed for good. A file in `sessions/` that was created and left empty registers here, since
    /// only now it is certain that no pid follows (a shell closes a copy of the descriptor before it writes).
    pub fn release(&self, caller: Caller, ino: NodeId, fh: NodeId) {
        if self.spool.has(fh) || self.is_older(fh) {
            self.spool.forget(fh);
        }
        if let NodeId::Claim(ino) = ino {
            if fh == NodeId::Claim(ino) {
                self.close_unwritten(ino);
            }
            self.store.close(ino);
        }
        match fh {
            NodeId::Text(_) => guard(&self.kept).close(fh),
            NodeId::Registration(_) => self.close_registration(caller, fh),
            fh if fh.is_stream() => self.close_stream(fh),
            _ => {}
        }
    }

    fn close_registration(&self, caller: Caller, fh: NodeId) {
        guard(&self.kept).close(fh);
        self.descriptors.close(fh, |descriptor| {
            if let Descriptor::Registration(open) = descriptor
                && !open.written
                && self.outcome(caller).is_none()
            {
                let (id, exclusive) = (open.id.clone(), open.exclusive);
                let joined = self.join(&open.ancestry, id, b"", exclusive, Some(caller));
                if let Err(refusal) = joined {
                    limited!(
                        Some(caller.uid),
                        log::Level::Warn,
                        "sessions/{}: not registered, since the file was left empty and {refusal:?}",
                        open.id
                    );
                }
            }
        });
    }
}
