//! The directories below `paths/`, under the store's lock: they follow the reservations.
//!
//! Promises: a directory that is made by a call is in the journal before the kernel is told of it.
//! It is removed before the reservation that takes its place is answered.
//!
//! Does not know: which reservations are granted.

use std::collections::HashSet;
use std::time::Duration;

use super::{Caller, Inner, Store};
use crate::core::scaffolding::{Limits, Scaffolding, TOP};
use crate::core::table::{Inode, Lease, Table};
use crate::core::{Name, Refusal, Subject, Token};
use crate::handoff::Note;
use crate::inotify::Removal;
use crate::process;

/// The largest number of directories that go before the store is unlocked for others.
const TURN: usize = 256;

/// A directory or a reservation below `paths/`.
pub(crate) enum Spot<'a> {
    /// A directory, by its number, and the number of directories in it.
    Directory(u64, usize),
    /// A reservation.
    Reservation(&'a Lease, &'a Inode),
}

impl Store {
    /// Sets the limits of the directories.
    pub(crate) fn limit_scaffolding(&self, limits: Limits) {
        self.lock().handoff.scaffolding.limit(limits);
    }

    /// Shows the directories.
    pub(crate) fn scaffolding<R>(&self, show: impl FnOnce(&Scaffolding) -> R) -> R {
        show(&self.lock().handoff.scaffolding)
    }

    /// Shows what is at a name in a directory, if its holder lives. ENOENT if nothing is; see
    /// [`Scaffolding::name`].
    pub(crate) fn look_up<R>(
        &self,
        dir: u64,
        label: &[u8],
        show: impl FnOnce(Spot) -> R,
    ) -> Result<R, Refusal> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let text = std::str::from_utf8(label);
        let found = text
            .ok()
            .and_then(|label| inner.handoff.scaffolding.get(dir, label));
        if let Some(found) = found {
            let scaffolding = &mut inner.handoff.scaffolding;
            scaffolding.seen(found, process::now().boot);
            let inside = scaffolding.directories(found).unwrap_or_default();
            return Ok(show(Spot::Directory(found, inside)));
        }
        let name = inner.handoff.scaffolding.name(dir, label)?;
        inner.check(Subject::Name(name.as_str()), None);
        let lease = inner.table.lease(&name).ok_or(Refusal::NotFound)?;
        let inode = inner.table.inode(lease.ino).ok_or(Refusal::NotFound)?;
        Ok(show(Spot::Reservation(lease, inode)))
    }

    /// Makes a directory. EEXIST if the name is taken; EDQUOT and ENOSPC if there are too many.
    pub(crate) fn make_directory(
        &self,
        caller: Caller,
        dir: u64,
        label: &[u8],
    ) -> Result<u64, Refusal> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let plank = inner.handoff.scaffolding.plan(dir, label)?;
        let name = inner.handoff.scaffolding.name(dir, label)?;
        inner.check(Subject::Name(name.as_str()), None);
        if inner.table.lease(&name).is_some() {
            return Err(Refusal::Exists);
        }
        let scaffolding = &mut inner.handoff.scaffolding;
        let share = scaffolding.share(caller.uid);
        let unreserved = 4 * scaffolding.limits().empty_of_uid;
        inner
            .table
            .check_directories(caller.uid, share + 1, unreserved)?;
        let now = process::now().boot;
        scaffolding.used(dir, now);
        if let Some(oldest) = scaffolding.make_room(caller.uid, dir, now)? {
            inner.dismantle(oldest, false);
        }
        let number = plank.number;
        inner.note_surely(Note::Scaffold(plank), caller)?;
        inner.own(number, caller.uid);
        Ok(number)
    }

    /// Counts a descriptor of a directory. ESTALE if that is gone.
    pub(crate) fn open_directory(&self, dir: u64) -> Result<(), Refusal> {
        let mut inner = self.lock();
        inner.handoff.scaffolding.opened(dir)?;
        inner.note_opens(dir);
        Ok(())
    }

    /// Counts a descriptor of a directory as closed. `is_older` than this server?
    pub(crate) fn close_directory(&self, dir: u64, is_older: bool) {
        let mut inner = self.lock();
        inner.handoff.scaffolding.closed(dir, is_older);
        inner.note_opens(dir);
        inner.set_alarm();
    }

    /// Shows the live reservations in a directory after a token, until `show` returns false.
    pub(crate) fn reservations(
        &self,
        dir: u64,
        after: Token,
        mut show: impl FnMut(&Table, &Name, &Lease, &Inode) -> bool,
    ) {
        let mut inner = self.lock();
        let mut last = after;
        loop {
            let mut rest = inner.handoff.scaffolding.files_after(dir, last);
            let Some(token) = rest.next() else { return };
            drop(rest);
            last = token;
            let Some(name) = inner.table.name(token).cloned() else {
                continue;
            };
            inner.check(Subject::Name(name.as_str()), None);
            if let Some(lease) = inner.table.lease(&name)
                && let Some(inode) = inner.table.inode(lease.ino)
                && !show(&inner.table, &name, lease, inode)
            {
                return;
            }
        }
    }
}

/// A reservation that has a token from now on, or no longer.
#[derive(Clone, Debug)]
pub(super) enum Shift {
    Put(Name, Token),
    Take(Name, Token),
}

impl Inner {
    /// Counts a directory that a uid has just made in its share.
    fn own(&mut self, dir: u64, uid: u32) {
        let now = process::now().boot;
        self.handoff.scaffolding.own(dir, uid, now);
        self.set_alarm();
    }

    /// Records the number of descriptors of a directory, if the next server must know it.
    fn note_opens(&mut self, number: u64) {
        if let Some(opens) = self.handoff.scaffolding.to_note(number) {
            self.note(Note::Standing { number, opens }, None);
        }
    }

    /// Lets the directories follow the reservations. `uid` is that of the caller.
    pub(super) fn shift(&mut self, shifts: Vec<Shift>, uid: u32) {
        for shift in shifts {
            match shift {
                Shift::Put(name, token) => self.put(&name, token, uid),
                Shift::Take(name, token) => {
                    let now = process::now().boot;
                    if let Some(dir) = self.handoff.scaffolding.take(&name, token, now) {
                        self.note_opens(dir);
                    }
                }
            }
        }
    }

    /// Makes the directories above a reservation, and removes those in its place.
    fn put(&mut self, name: &Name, token: Token, uid: u32) {
        if let Some(dir) = self.handoff.scaffolding.find(name) {
            self.dismantle(dir, true);
        }
        let path = name.as_path().unwrap_or_default();
        let mut labels: Vec<&str> = path.split('/').collect();
        labels.pop();
        let mut at = TOP;
        for label in labels {
            if let Some(dir) = self.handoff.scaffolding.get(at, label) {
                at = dir;
                continue;
            }
            let Ok(plank) = self.handoff.scaffolding.plan(at, label.as_bytes()) else {
                return;
            };
            at = plank.number;
            self.note(Note::Scaffold(plank), None);
            self.own(at, uid);
        }
        let now = process::now().boot;
        self.handoff.scaffolding.put(name, token, now);
    }

    /// Removes a directory, and all below it. Watchers of the one above may be told.
    fn dismantle(&mut self, dir: u64, is_told: bool) {
        let path = self.handoff.scaffolding.path(dir).filter(|_| is_told);
        if let Some(name) = path.and_then(|path| Name::path(path.as_bytes()).ok()) {
            self.vanished.push(Removal {
                name,
                is_directory: true,
                uid: self.handoff.scaffolding.uid(dir).unwrap_or_default(),
            });
        }
        self.note(Note::Dismantled { number: dir }, None);
    }

    /// Removes directories that nobody uses any more. Whether there are more.
    pub(super) fn remove_unused(&mut self) -> bool {
        let due = self.handoff.scaffolding.due(process::now().boot, TURN);
        for dir in &due {
            self.dismantle(*dir, true);
        }
        due.len() == TURN
    }

    /// When the reaper must look for directories that nobody uses any more. It may be early: it is
    /// put off only once it has passed.
    pub(super) fn scaffolding_alarm(&mut self) -> Option<Duration> {
        let due = self.handoff.scaffolding.next_due();
        let is_ahead = |alarm: &Duration| *alarm > process::now().boot;
        let known = self.scaffolding_due.filter(is_ahead);
        self.scaffolding_due = match (due, known) {
            (Some(due), Some(known)) => Some(due.min(known)),
            (due, _) => due,
        };
        self.scaffolding_due
    }

    /// Takes over the directories of an earlier server, and makes those that reservations need.
    pub(super) fn resume_scaffolding(&mut self) {
        self.handoff.scaffolding.resume(process::now().boot);
        let names = self.table.paths();
        let names: Vec<(Name, Token)> = names.collect();
        for (name, token) in names {
            self.put(&name, token, 0);
        }
        self.set_alarm();
    }

    /// EDQUOT if the uid may not have the directories that reservations of these names need.
    pub(super) fn check_directories(&self, names: &[Name], uid: u32) -> Result<(), Refusal> {
        let scaffolding = &self.handoff.scaffolding;
        // A path below a reservation needs no directory.
        let bare = names
            .iter()
            .filter(|name| self.table.covering(name).is_none());
        let missing: HashSet<&str> = bare.flat_map(|name| scaffolding.missing(name)).collect();
        let missing = missing.len();
        if missing == 0 {
            return Ok(());
        }
        self.table
            .check_share(uid, scaffolding.share(uid) + missing)
    }
}
