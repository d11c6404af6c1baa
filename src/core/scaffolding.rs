//! Scaffolding: the directories below `paths/`. They are nobody's lease and only contain
//! reservations.
//!
//! Promises: each reservation has all directories above it. A directory goes only while it is
//! empty: once it was not used for [`Limits::idle`] and not looked up for [`SEEN`], or before that
//! if there are too many. A number never stands for a second directory.
//!
//! Does not know: who holds a reservation, files, clocks. The time since boot is an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{COUNT_END, Name, Refusal, Token};

/// A directory that was looked up does not go for so long: the kernel may not ask for it again in
/// that time.
pub const SEEN: Duration = Duration::from_secs(1);

/// An empty directory that was used stays for so long, however many there are.
const USED: Duration = Duration::from_secs(1);

/// There may be so many times as many directories as empty ones, if there are no leases.
const UNRESERVED: usize = 4;

/// So many directories a server may make without a record, since its disk is full.
const SKIPPED: u64 = 65_536;

/// The number of `paths/` itself.
pub const TOP: u64 = 0;

/// The limits of the directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long an empty directory stays that nobody uses.
    pub idle: Duration,
    /// The largest number of empty directories.
    pub empty: usize,
    /// The largest number of empty directories of each uid except root.
    pub empty_of_uid: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60),
            empty: 16_384,
            empty_of_uid: 4096,
        }
    }
}

#[derive(Clone, Debug)]
struct Dir {
    /// The directory above.
    up: u64,
    name: Arc<str>,
    /// The uid in whose share it counts. `None` if an earlier server knew it.
    uid: Option<u32>,
    used: Duration,
    seen: Duration,
    /// The number of its open descriptors.
    opens: u32,
    /// The same, as the journal has it: right while the directory is empty, or once it was not 0.
    noted: u32,
    /// How many of them are older than this server.
    inherited: u32,
    dirs: BTreeMap<Arc<str>, u64>,
    /// The same directories, in the order in which they were made.
    order: BTreeMap<u64, Arc<str>>,
    files: BTreeSet<Token>,
}

impl Dir {
    fn new(up: u64, name: &str) -> Self {
        Self {
            up,
            name: Arc::from(name),
            uid: None,
            used: Duration::ZERO,
            seen: Duration::ZERO,
            opens: 0,
            noted: 0,
            inherited: 0,
            dirs: BTreeMap::new(),
            order: BTreeMap::new(),
            files: BTreeSet::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.dirs.is_empty() && self.files.is_empty()
    }

    fn is_idle(&self) -> bool {
        self.is_empty() && self.opens == 0
    }
}

/// A directory, as a journal has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plank {
    /// Its number.
    pub number: u64,
    /// The number of the directory above it.
    pub up: u64,
    /// Its name there.
    pub name: String,
    /// The number of its open descriptors, if that matters to the next server.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub opens: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Plank {
    /// True if it is no directory inside itself, and its number is in the range of its kind.
    pub fn is_sound(&self) -> bool {
        self.up < self.number && self.number < COUNT_END
    }
}

/// All directories below `paths/`.
#[derive(Clone, Debug)]
pub struct Scaffolding {
    dirs: BTreeMap<u64, Dir>,
    next: u64,
    /// The empty directories that nobody has open, in the order of their last use.
    idle: BTreeSet<(Duration, u64)>,
    /// The same for each uid.
    idle_of: HashMap<u32, BTreeSet<(Duration, u64)>>,
    /// The number of directories in the share of each uid.
    shares: HashMap<u32, usize>,
    limits: Limits,
}

impl Default for Scaffolding {
    fn default() -> Self {
        let top = Dir::new(TOP, "");
        Self {
            dirs: BTreeMap::from([(TOP, top)]),
            next: TOP + 1,
            idle: BTreeSet::new(),
            idle_of: HashMap::new(),
            shares: HashMap::new(),
            limits: Limits::default(),
        }
    }
}

impl Scaffolding {
    /// The directories that an earlier server had, in the order of their numbers.
    pub fn of(planks: &[Plank], next: u64) -> Self {
        let mut all = Self::default();
        for plank in planks.iter().filter(|plank| plank.is_sound()) {
            all.add(plank);
        }
        all.next = all.next.max(next.min(COUNT_END));
        all
    }

    /// Takes over the directories of an earlier server: all count as used now. Numbers that it may
    /// have given without a record are not given again.
    pub fn resume(&mut self, now: Duration) {
        self.next = self.next.saturating_add(SKIPPED);
        let all: Vec<u64> = self.dirs.keys().copied().collect();
        for dir in all {
            self.change(dir, |dir| {
                dir.used = dir.used.max(now);
                dir.inherited = dir.opens;
            });
        }
    }

    /// The number of the next directory.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Sets the limits.
    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The limits.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// True if there is no directory but `paths/`.
    pub fn is_empty(&self) -> bool {
        self.dirs.len() == 1
    }

    /// The number of directories, without `paths/`.
    pub fn len(&self) -> usize {
        self.dirs.len() - 1
    }

    /// The number of directories in the share of a uid.
    pub fn share(&self, uid: u32) -> usize {
        self.shares.get(&uid).copied().unwrap_or_default()
    }

    /// The most directories of a uid that are not due to its leases. Root has a share too.
    pub fn unreserved(&self, uid: u32) -> usize {
        let empty = match uid {
            0 => self.limits.empty,
            _ => self.limits.empty_of_uid,
        };
        UNRESERVED * empty
    }

    /// True if there is a directory of this number.
    pub fn has(&self, dir: u64) -> bool {
        self.dirs.contains_key(&dir)
    }

    /// The number of directories in a directory. `None` if that is gone.
    pub fn directories(&self, dir: u64) -> Option<usize> {
        Some(self.dirs.get(&dir)?.dirs.len())
    }

    /// The uid that made a directory, if this server knows it.
    pub fn uid(&self, dir: u64) -> Option<u32> {
        self.dirs.get(&dir)?.uid
    }

    /// The directory above a directory.
    pub fn up(&self, dir: u64) -> Option<u64> {
        Some(self.dirs.get(&dir)?.up)
    }

    /// The path of a directory, from `/` on and without a first `/`. `None` if it is gone.
    pub fn path(&self, dir: u64) -> Option<String> {
        let mut labels = Vec::new();
        let mut at = dir;
        while at != TOP {
            let dir = self.dirs.get(&at)?;
            labels.push(&*dir.name);
            at = dir.up;
        }
        labels.reverse();
        self.has(dir).then(|| labels.join("/"))
    }

    /// The name of a reservation in a directory, whether it exists or not. ESTALE if the directory
    /// is gone; else as [`Name::path`].
    pub fn name(&self, dir: u64, label: &[u8]) -> Result<Name, Refusal> {
        if label.contains(&b'/') {
            return Err(Refusal::BadName);
        }
        let path = self.path(dir).ok_or(Refusal::Lost)?;
        if dir == TOP {
            return Name::path(label);
        }
        Name::path(&[path.as_bytes(), b"/", label].concat())
    }

    /// A directory in a directory.
    pub fn get(&self, dir: u64, label: &str) -> Option<u64> {
        self.dirs.get(&dir)?.dirs.get(label).copied()
    }

    /// The directory of a path.
    pub fn find(&self, name: &Name) -> Option<u64> {
        let mut labels = name.as_path()?.split('/');
        labels.try_fold(TOP, |dir, label| self.get(dir, label))
    }

    /// The paths of the directories above a path that do not exist.
    pub fn missing<'a>(&self, name: &'a Name) -> impl Iterator<Item = &'a str> {
        let path = name.as_path().unwrap_or_default();
        let (mut at, mut depth) = (Some(TOP), 0);
        for label in path.split('/') {
            at = at.and_then(|dir| self.get(dir, label));
            if at.is_none() {
                break;
            }
            depth += 1;
        }
        let ends = path.match_indices('/').map(|(end, _)| end).skip(depth);
        ends.map(move |end| &path[..end])
    }

    /// The directories in a directory after one of them, in the order of their numbers.
    pub fn dirs_after(&self, dir: u64, after: u64) -> impl Iterator<Item = (u64, &str)> {
        let order = self.dirs.get(&dir).map(|dir| &dir.order);
        let after = after.saturating_add(1);
        let dirs = order
            .into_iter()
            .flat_map(move |order| order.range(after..));
        dirs.map(|(number, name)| (*number, &**name))
    }

    /// The tokens of the reservations in a directory after a token.
    pub fn files_after(&self, dir: u64, after: Token) -> impl Iterator<Item = Token> {
        let files = self.dirs.get(&dir).map(|dir| &dir.files);
        let after = Token(after.0 + 1);
        files
            .into_iter()
            .flat_map(move |files| files.range(after..))
            .copied()
    }

    /// The directory that [`Scaffolding::add`] would make. EEXIST if it is there; see
    /// [`Scaffolding::name`].
    pub fn plan(&self, dir: u64, label: &[u8]) -> Result<Plank, Refusal> {
        let name = self.name(dir, label)?;
        let path = name.as_path().unwrap_or_default();
        let label = path.rsplit('/').next().unwrap_or_default();
        if self.get(dir, label).is_some() {
            return Err(Refusal::Exists);
        }
        if self.next >= COUNT_END {
            return Err(Refusal::Full);
        }
        Ok(Plank {
            number: self.next,
            up: dir,
            name: label.to_owned(),
            opens: 0,
        })
    }

    /// Adds a directory, which is in nobody's share and was never used. Nothing happens if the one
    /// above is gone or has one of that name.
    pub fn add(&mut self, plank: &Plank) {
        self.next = self.next.max(plank.number.saturating_add(1));
        if self.get(plank.up, &plank.name).is_some() || self.has(plank.number) {
            return;
        }
        let mut dir = Dir::new(plank.up, &plank.name);
        (dir.opens, dir.noted) = (plank.opens, plank.opens);
        let name = Arc::clone(&dir.name);
        let is_added = self.change(plank.up, |up| {
            up.order.insert(plank.number, Arc::clone(&name));
            up.dirs.insert(name, plank.number);
        });
        if is_added {
            self.dirs.insert(plank.number, dir);
            self.index(plank.number, true);
        }
    }

    /// Counts a directory in the share of a uid. It was used just now.
    pub fn own(&mut self, dir: u64, uid: u32, now: Duration) {
        let is_nobodys = self.dirs.get(&dir).is_some_and(|dir| dir.uid.is_none());
        self.change(dir, |dir| {
            dir.uid = dir.uid.or(Some(uid));
            dir.used = dir.used.max(now);
        });
        if is_nobodys && dir != TOP {
            *self.shares.entry(uid).or_default() += 1;
        }
    }

    /// Removes a directory, and all below it.
    pub fn remove(&mut self, dir: u64) {
        if dir == TOP {
            return;
        }
        self.index(dir, false);
        let Some(gone) = self.dirs.remove(&dir) else {
            return;
        };
        if let Some(share) = gone.uid.and_then(|uid| self.shares.get_mut(&uid)) {
            *share = share.saturating_sub(1);
        }
        if let Some(uid) = gone.uid.filter(|uid| self.share(*uid) == 0) {
            self.shares.remove(&uid);
        }
        self.change(gone.up, |up| {
            up.dirs.remove(&gone.name);
            up.order.remove(&dir);
        });
        for below in gone.dirs.into_values() {
            self.remove(below);
        }
    }

    /// All directories, each after the one above it.
    pub fn planks(&self) -> impl Iterator<Item = Plank> {
        // A directory is younger than the one above it.
        let dirs = self.dirs.iter().filter(|(number, _)| **number != TOP);
        dirs.map(|(number, dir)| Plank {
            number: *number,
            up: dir.up,
            name: String::from(&*dir.name),
            opens: dir.noted,
        })
    }

    /// A directory and all below it, the lowest first, with their paths.
    pub fn tree(&self, top: u64) -> Vec<(u64, Name)> {
        let mut found = vec![top];
        let mut at = 0;
        while let Some(dir) = found.get(at).and_then(|dir| self.dirs.get(dir)) {
            found.extend(dir.dirs.values());
            at += 1;
        }
        let named = found.iter().rev().filter_map(|dir| {
            let path = self.path(*dir).filter(|path| !path.is_empty())?;
            Some((*dir, Name::path(path.as_bytes()).ok()?))
        });
        named.collect()
    }

    /// A reservation has this token from now on. The directory above it counts as used.
    pub fn put(&mut self, name: &Name, token: Token, now: Duration) {
        self.with_parent(name, now, |dir| _ = dir.files.insert(token));
    }

    /// A reservation no longer has this token.
    /// Returns its directory.
    pub fn take(&mut self, name: &Name, token: Token, now: Duration) -> Option<u64> {
        self.with_parent(name, now, |dir| _ = dir.files.remove(&token))
    }

    fn with_parent(
        &mut self,
        name: &Name,
        now: Duration,
        change: impl FnOnce(&mut Dir),
    ) -> Option<u64> {
        let path = name.as_path().unwrap_or_default();
        let (above, _) = path.rsplit_once('/').unwrap_or_default();
        let mut labels = above.split('/').filter(|label| !label.is_empty());
        let dir = labels.try_fold(TOP, |dir, label| self.get(dir, label))?;
        self.change(dir, |dir| {
            dir.used = dir.used.max(now);
            change(dir);
        });
        Some(dir)
    }

    /// A directory was used: something was made in it, or opened for writing.
    pub fn used(&mut self, dir: u64, now: Duration) {
        self.change(dir, |dir| dir.used = dir.used.max(now));
    }

    /// A directory was looked up.
    pub fn seen(&mut self, dir: u64, now: Duration) {
        if let Some(dir) = self.dirs.get_mut(&dir) {
            dir.seen = dir.seen.max(now);
        }
    }

    /// A directory was opened. ESTALE if it is gone.
    pub fn opened(&mut self, dir: u64) -> Result<(), Refusal> {
        let is_there = self.change(dir, |dir| dir.opens = dir.opens.saturating_add(1));
        is_there.then_some(()).ok_or(Refusal::Lost)
    }

    /// A descriptor of a directory was closed. `is_older` than this server, it counts only if the
    /// earlier server has recorded it.
    pub fn closed(&mut self, dir: u64, is_older: bool) {
        self.change(dir, |dir| {
            if !is_older || dir.inherited > 0 {
                dir.opens = dir.opens.saturating_sub(1);
                dir.inherited -= u32::from(is_older);
            }
        });
    }

    /// The number of open descriptors of a directory, if it must be recorded: an empty directory
    /// stays while it has any, also on the next server.
    pub fn to_note(&self, dir: u64) -> Option<u32> {
        let dir = self.dirs.get(&dir)?;
        let matters = dir.is_empty() || dir.noted > 0;
        (matters && dir.noted != dir.opens).then_some(dir.opens)
    }

    /// The journal has the number of open descriptors of a directory.
    pub fn noted(&mut self, dir: u64, opens: u32) {
        self.change(dir, |dir| (dir.opens, dir.noted) = (opens, opens));
    }

    /// Changes a directory. False if it is gone.
    fn change(&mut self, dir: u64, change: impl FnOnce(&mut Dir)) -> bool {
        self.index(dir, false);
        let there = self.dirs.get_mut(&dir).map(change).is_some();
        self.index(dir, true);
        there
    }

    /// Adds an idle directory to the order of their uses, or removes it.
    fn index(&mut self, number: u64, is_added: bool) {
        let dir = self.dirs.get(&number).filter(|_| number != TOP);
        let Some(dir) = dir.filter(|dir| dir.is_idle()) else {
            return;
        };
        let (entry, uid) = ((dir.used, number), dir.uid);
        if is_added {
            self.idle.insert(entry);
            if let Some(uid) = uid {
                self.idle_of.entry(uid).or_default().insert(entry);
            }
            return;
        }
        self.idle.remove(&entry);
        if let Some(uid) = uid
            && let Some(idle) = self.idle_of.get_mut(&uid)
        {
            idle.remove(&entry);
            if idle.is_empty() {
                self.idle_of.remove(&uid);
            }
        }
    }

    /// Makes room for an empty directory of a uid in another directory: the one that must go for
    /// it, if any. ENOSPC if there are too many that were used just now, EDQUOT if these are of the
    /// uid.
    pub fn make_room(&self, uid: u32, up: u64, now: Duration) -> Result<Option<u64>, Refusal> {
        // The one above will not be empty any more, so it counts for the new one, and stays.
        let above = self.dirs.get(&up).filter(|dir| up != TOP && dir.is_idle());
        let replaces = |is: bool| usize::from(is);
        let oldest = |idle: &BTreeSet<(Duration, u64)>, otherwise| {
            let mut others = idle.iter().filter(|(_, dir)| *dir != up);
            match others.next() {
                Some((used, dir)) if *used + USED <= now => Ok(Some(*dir)),
                _ => Err(otherwise),
            }
        };
        let is_own = above.is_some_and(|above| above.uid == Some(uid));
        let own = self.idle_of.get(&uid).filter(|_| uid != 0);
        if let Some(own) = own
            && own.len() - replaces(is_own) >= self.limits.empty_of_uid
        {
            return oldest(own, Refusal::Quota);
        }
        if self.idle.len() - replaces(above.is_some()) >= self.limits.empty {
            return oldest(&self.idle, Refusal::Full);
        }
        Ok(None)
    }

    /// When a directory may be due to go. It may be looked up until then.
    pub fn next_due(&self) -> Option<Duration> {
        let (used, number) = self.idle.first()?;
        let seen = self.dirs.get(number)?.seen;
        Some((*used + self.limits.idle).max(seen + SEEN))
    }

    /// At most `limit` directories that are due to go.
    pub fn due(&self, now: Duration, limit: usize) -> Vec<u64> {
        let idle = self.idle.iter();
        let idle = idle.take_while(|(used, _)| *used + self.limits.idle <= now);
        let is_unseen = |dir: &Dir| dir.seen + SEEN <= now;
        let due = idle.filter(|(_, number)| self.dirs.get(number).is_some_and(is_unseen));
        due.map(|(_, number)| *number).take(limit).collect()
    }
}
