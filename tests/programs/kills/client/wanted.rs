//! Names that others want too: taking one, waiting for one, giving one up, and touching what is
//! another's.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libc::{EBUSY, EEXIST, EISDIR, ELOOP, ENOENT, ENOTDIR, O_CREAT, O_RDONLY, O_WRONLY};

use super::{Client, c, errno};
use crate::shared::{OWN, SLOTS, WANTED};
use crate::support::memory::clock;
use crate::world::Body;

/// How long a client may wait in the queue, in nanoseconds, when nobody holds a name for more than
/// a few calls.
const PATIENCE: u64 = 20_000_000_000;

/// How long after the grant one may be told, when a blocking read is answered once a second in any
/// case.
const LATE: Duration = Duration::from_secs(5);

impl Client {
    pub(super) fn take(&mut self) {
        let name = self.dice.below(WANTED);
        let path = format!("claims/n{name}");
        self.shared.suitors[name][self.slot].store(self.incarnation, SeqCst);
        self.shared.suits[name].fetch_add(1, SeqCst);
        let before = self.shared.suit(name, self.slot);
        let own = format!("claims/p{}-{}", self.slot, self.dice.below(OWN));
        let is_file =
            matches!(self.world.at(&own), Some(node) if matches!(node.body, Body::File(_)));
        let has = self.world.at(&own).is_some();
        let way = self.dice.below(10);
        let taken = match way {
            4 if is_file => {
                let (old, new) = (c(&own), c(&path));
                let linked = self.attempt(&format!("link({own}, {path})"), || unsafe {
                    i64::from(libc::link(old.as_ptr(), new.as_ptr()))
                });
                linked.map(|_| {
                    let node = self.world.names[&own];
                    self.world.names.insert(path.clone(), node);
                })
            }
            5 | 6 if has => {
                let flags = if way == 5 { libc::RENAME_NOREPLACE } else { 0 };
                let renamed = self.call_rename(&own, &path, flags);
                renamed.map(|_| self.world.rename(&own, &path, self.kept_node()))
            }
            7 => {
                let file = c(&path);
                let opened = self.attempt(&format!("open or create {path}"), || unsafe {
                    i64::from(libc::open(file.as_ptr(), O_WRONLY | O_CREAT, 0o644))
                });
                opened.map(|fd| {
                    self.world.insert(&path, Body::File(Vec::new()));
                    self.close(fd as i32);
                })
            }
            8 | 9 => {
                self.wait(name, way == 8);
                self.world.insert(&path, Body::File(Vec::new()));
                Ok(())
            }
            _ => self.make(&path, way % 4),
        };
        match taken {
            Ok(()) => self.is_granted(&path),
            Err(error) => {
                let exclusive = way != 6 && way != 7 || way == 6 && !has;
                let refusals: &[i32] = if exclusive {
                    &[EEXIST]
                } else {
                    &[EBUSY, EISDIR, ENOTDIR, ELOOP]
                };
                self.is_refused(name, before, error, refusals);
                self.shared.suitors[name][self.slot].store(0, SeqCst);
            }
        }
    }

    /// A refusal is right if it is one of these and somebody else may have held the name at the
    /// time.
    fn is_refused(&mut self, name: usize, before: (bool, u64), error: i32, refusals: &[i32]) {
        let after = self.shared.suit(name, self.slot);
        let what = errno(error);
        if !refusals.contains(&error) {
            self.fail(&format!(
                "claims/n{name} was refused: {what}, expected {refusals:?}"
            ));
        }
        if !before.0 && before.1 == after.1 {
            self.fail(&format!("{what}, but nobody holds claims/n{name}"));
        }
    }

    /// Waits in the queue of a name until the name is granted.
    fn wait(&mut self, name: usize, polls: bool) {
        let fd = self.open(&format!("queue/n{name}"), O_RDONLY, 0);
        let start = clock();
        loop {
            if polls {
                let mut poll = libc::pollfd {
                    fd,
                    events: libc::POLLIN,
                    revents: 0,
                };
                let at = &raw mut poll;
                let timeout = (PATIENCE / 1_000_000) as i32;
                let ready = self.expect(&format!("wait for n{name} by poll"), 0, || unsafe {
                    i64::from(libc::poll(at, 1, timeout))
                });
                if ready == 0 {
                    let is_late = unsafe { libc::poll(at, 1, 0) } == 1;
                    self.fail(&format!(
                        "n{name}: a poller was not served; ready by now: {is_late}"
                    ));
                }
            }
            let mut buffer = [0_u8; 4096];
            let at = buffer.as_mut_ptr().cast();
            let what = format!("wait for n{name} by read");
            let count = self.expect(&what, 0, || unsafe { libc::read(fd, at, 4096) as i64 });
            let text = String::from_utf8_lossy(&buffer[..count as usize]);
            let (note, told) = ("note: session ", format!(" for n{name}: held by "));
            match text.as_ref() {
                "" => break,
                line if !line.ends_with('\n')
                    || !line.starts_with(note) && !line.contains(&told) =>
                {
                    self.fail(&format!("queue/n{name} says {line:?}"));
                }
                line if clock() - start > PATIENCE => {
                    self.fail(&format!("waited in vain for n{name}: {line}"));
                }
                _ => {}
            }
        }
        // A poll(2) that nobody wakes looks once more when its time is up, so it is not enough that
        // it ends.
        let claim = self.stat(&format!("claims/n{name}"), 0);
        let granted = Duration::new(claim.st_ctime as u64, claim.st_ctime_nsec as u32);
        let late = SystemTime::now().duration_since(UNIX_EPOCH + granted);
        if late.is_ok_and(|late| late > LATE) {
            self.fail(&format!(
                "n{name}: polls: {polls}; told long after it was granted"
            ));
        }
        self.shared.waits.fetch_add(1, SeqCst);
        self.close(fd);
    }

    /// Gives up the wanted name, one way or another.
    pub(super) fn give_up(&mut self) {
        let Some(name) = self.held else { return };
        let path = format!("claims/n{name}");
        self.verify(&path);
        if self.dice.below(3) == 0 {
            return self.break_all(&[path]);
        }
        let own = self.name("claims");
        if self.dice.below(3) == 0 && own != path && self.world.at(&own).is_none() {
            return self.rename(&path, &own, 0);
        }
        for child in self.world.below(&path).iter().rev() {
            while self.world.at(child).is_some() {
                self.remove(child);
            }
        }
        while self.held.is_some() {
            self.remove(&path);
        }
    }

    /// Tries to change what is another's.
    pub(super) fn poke(&mut self) {
        let name = self.dice.below(WANTED);
        let other = (self.slot + 1 + self.dice.below(SLOTS - 1)) % SLOTS;
        let is_private = self.dice.below(2) == 0;
        if !is_private && self.held == Some(name) {
            return;
        }
        let path = if is_private {
            format!("claims/p{other}-{}", self.dice.below(OWN))
        } else {
            format!("claims/n{name}")
        };
        let (file, before) = (c(&path), self.shared.suit(name, self.slot));
        let way = self.dice.below(3);
        let what = ["unlink", "open to write", "rename away"][way];
        let loot = c(&format!("claims/loot-{}", self.slot));
        let done = self.attempt(&format!("{what} {path}"), || unsafe {
            i64::from(match way {
                0 => libc::unlink(file.as_ptr()),
                1 => libc::open(file.as_ptr(), O_WRONLY),
                _ => libc::rename(file.as_ptr(), loot.as_ptr()),
            })
        });
        let error = done.err().unwrap_or(0);
        let refusals = [EBUSY, ENOENT, EISDIR, ELOOP];
        if !refusals.contains(&error) {
            self.fail(&format!(
                "{what} of {path}, which is another's: {}",
                errno(error)
            ));
        }
        if !is_private && error != ENOENT {
            self.is_refused(name, before, error, &refusals);
        }
    }
}
