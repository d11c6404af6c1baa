//! The FUSE side: decode a request, call the tree, reply.
//!
//! Promises: every request is answered, with EIO if its handler panics; one match turns refusals into errnos; and the
//! uid rules are enforced here, since the mount has no `default_permissions` (it would ask for the attributes of the
//! directory again after each create).
//!
//! Deliberately ignorant of: who is alive, who holds what, `/proc`, journals.

mod convert;
mod errno;
mod pending;
mod permit;
mod workers;

use std::cell::Cell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLock, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};

use self::convert::{
    LISTING_TTL, LONG_LISTING, answer_attr, answer_empty, answer_entry, answer_xattr, caller,
    descriptor, file_attr, file_type, moment, node, open_flags, permission_bits, tag_name, ttl,
};
use self::errno::{errno, errno_name};
use self::pending::PendingReplies;
use self::permit::{EXECUTE, READ, WRITE, owns, wants};
use self::workers::Workers;
use crate::core::{Attributes, NAME_MAX, NodeId, Outcome, Refusal, Shape};
use crate::logging::limited;
use crate::store::Caller;
use crate::tree::{Attr, Opened, Tree};

/// How many threads carry out what only looks: one uid's look does not keep another's waiting.
const LOOKS: usize = 2;

/// `F_UNLCK` of fcntl(2), whose type differs from one platform to the next.
const UNLOCK: i32 = 2;

thread_local! {
    static HANDLING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a handler, whose panic is caught and answered.
pub fn is_handling() -> bool {
    HANDLING.get()
}

/// The filesystem that fuser drives.
pub struct ClaimFs {
    tree: Arc<Tree>,
    pending: Arc<PendingReplies>,
    /// What changes something and may wait for the disk. One thread, as each that answers such requests has its part in the
    /// reply cache: see [`crate::handoff::THREADS`].
    commands: Workers,
    /// What only looks, and takes long.
    looks: Workers,
    has_refused_lock: AtomicBool,
    /// What the kernel can do, as it says when the connection begins.
    offered: Arc<AtomicU64>,
    /// How many requests were begun, up to two: at the second, one is answered.
    begun: AtomicU8,
    first: Box<dyn Fn(bool) + Send + Sync>,
}

impl ClaimFs {
    /// Serves a tree, and starts the threads that serve those who wait and do what takes long. `first` is called when a request has come, and once more when
    /// one is answered.
    pub fn new(tree: Tree, first: impl Fn(bool) + Send + Sync + 'static) -> io::Result<Self> {
        let tree = Arc::new(tree);
        Ok(Self {
            pending: PendingReplies::start(Arc::clone(&tree))?,
            commands: Workers::start("commands", 1, false)?,
            looks: Workers::start("looks", LOOKS, true)?,
            tree,
            has_refused_lock: AtomicBool::new(false),
            offered: Arc::default(),
            begun: AtomicU8::new(0),
            first: Box::new(first),
        })
    }

    /// What the kernel can do, once it has said so.
    pub fn offered(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.offered)
    }

    fn begin(&self) {
        if self.begun.load(Relaxed) < 2 {
            match self.begun.fetch_add(1, Relaxed) {
                0 => (self.first)(false),
                1 => (self.first)(true),
                _ => {}
            }
        }
    }

    /// Runs a handler: counts it, turns its refusal into an errno, and a panic into EIO.
    fn run<T>(&self, handler: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Errno> {
        self.begin();
        run(&self.tree, handler)
    }

    /// Has a request that takes long carried out and answered by others, while this thread serves.
    fn hand_on(&self, to: &Workers, uid: u32, job: impl FnOnce(&Tree) + Send + 'static) {
        self.begin();
        let tree = Arc::clone(&self.tree);
        to.run(uid, move || job(&tree));
        // That it waits is an answer too, as far as whoever watches this server is concerned.
        self.begin();
    }

    /// Runs a handler that changes something, unless its request is one that is sent again and was carried out: then what is left is to
    /// answer it.
    fn change<T>(
        &self,
        caller: Caller,
        again: impl FnOnce(Outcome) -> Result<T, Refusal>,
        handler: impl FnOnce() -> Result<T, Refusal>,
    ) -> Result<T, Errno> {
        match self.tree.outcome(caller) {
            Some(outcome) => self.look(|| again(outcome)),
            None => self.run(handler),
        }
    }

    /// The node that a request made when it was sent first.
    fn made(&self, outcome: Outcome) -> Result<Attr, Refusal> {
        let ino = outcome.ino.map(NodeId::Claim);
        self.tree.attr(ino.or(outcome.fh).ok_or(Refusal::Lost)?)
    }

    /// Runs a handler that only looks: that there is nothing to see is no refusal.
    fn look<T>(&self, handler: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Errno> {
        self.begin();
        look(&self.tree, handler)
    }

    /// Says once why there are no kernel locks here, to whoever reads the log.
    fn refuse_lock(&self, ino: INodeNo) {
        if let Ok(ino) = node(ino) {
            self.tree.lock_refused(ino);
        }
        if !self.has_refused_lock.swap(true, Relaxed) {
            log::warn!(
                "a flock or fcntl lock was refused (EOPNOTSUPP): the file under it could be reaped and made anew, so it \
                 would exclude nobody; such locks need no claimfs, since they die with their process on any filesystem"
            );
        }
    }

    /// Makes a claim that is not opened; EPERM for what cannot be one.
    fn make(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        shape: Option<Shape>,
        mode: u32,
        reply: ReplyEntry,
    ) {
        let caller = caller(request);
        let make = || {
            self.permit(caller, parent, WRITE | EXECUTE)?;
            let shape = shape.ok_or(Refusal::NotPermitted)?;
            let mode = permission_bits(mode);
            self.tree
                .make(caller, node(parent)?, name.as_bytes(), shape, mode)
        };
        answer_entry(
            self.change(caller, |outcome| self.made(outcome), make),
            reply,
        );
    }

    fn close(&self, request: &Request, ino: INodeNo, handle: FileHandle, reply: ReplyEmpty) {
        let closed = self.look(|| {
            let (ino, fh) = (node(ino)?, descriptor(handle)?);
            self.pending.close(fh);
            self.tree.release(caller(request), ino, fh);
            Ok(())
        });
        answer_empty(closed, reply);
    }

    fn remove(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        directory: bool,
    ) -> Result<(), Errno> {
        let caller = caller(request);
        if self.tree.is_notifier(caller.task) {
            return self.look(|| self.tree.remove_tombstone(node(parent)?, name.as_bytes()));
        }
        let remove = || {
            self.permit(caller, parent, WRITE | EXECUTE)?;
            self.permit_removal(caller, parent, name)?;
            self.tree
                .remove(caller, node(parent)?, name.as_bytes(), directory)
        };
        self.change(caller, |_| Ok(()), remove)
    }
}

/// See [`ClaimFs::run`].
fn run<T>(tree: &Tree, handler: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Errno> {
    look(tree, handler).inspect_err(|errno| tree.metrics().refused(errno_name(*errno)))
}

/// See [`ClaimFs::look`].
fn look<T>(tree: &Tree, handler: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Errno> {
    let start = Instant::now();
    HANDLING.set(true);
    let result = catch_unwind(AssertUnwindSafe(handler)).unwrap_or_else(|_| {
        limited!(
            None,
            log::Level::Error,
            "a handler panicked; its caller is told EIO"
        );
        Err(Refusal::Failed)
    });
    HANDLING.set(false);
    tree.metrics().served(start.elapsed());
    result.map_err(errno)
}

/// What is asked of the kernel.
pub const WISHES: [InitFlags; 6] = [
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    // Asked for so that they can be refused: the kernel would otherwise grant them on its own.
    InitFlags::FUSE_POSIX_LOCKS,
    InitFlags::FUSE_FLOCK_LOCKS,
];

impl Filesystem for ClaimFs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.offered.store(config.capabilities().bits(), Relaxed);
        // Each is a gain where the kernel has it; nothing depends on any but the truncation, which OPEN decides on.
        for wish in WISHES {
            if let Err(missing) = config.add_capabilities(wish) {
                log::debug!("the kernel lacks {missing:?}");
            }
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.as_bytes();
        let found = if self.tree.is_notifier(request.pid()) {
            self.look(|| self.tree.tombstone(node(parent)?, name))
        } else {
            self.look(|| {
                // The kernel asks nobody whether a caller may search a directory of ours.
                self.permit(caller(request), parent, EXECUTE)?;
                self.tree.lookup(node(parent)?, name)
            })
        };
        match found {
            Ok(attr) => reply.entry(ttl(&attr), &file_attr(&attr), Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer_attr(self.look(|| self.tree.attr(node(ino)?)), reply);
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let caller = caller(request);
        let result = self.run(|| {
            let attr = self.tree.attr(node(ino)?)?;
            // To the present, utimensat(2) lets whoever may write; to any other time, and chmod, only the owner.
            let present = matches!(
                (atime, mtime),
                (None | Some(TimeOrNow::Now), None | Some(TimeOrNow::Now))
            );
            if mode.is_some() || !present {
                owns(&attr, caller)?;
            }
            let touches = atime.is_some() || mtime.is_some();
            if size.is_some() && handle.is_none() || present && touches && caller.uid != attr.uid {
                self.permit(caller, ino, WRITE)?;
            }
            // A claim's owner is its holder's; it does not change hands by chown.
            if uid.is_some_and(|uid| uid != attr.uid) || gid.is_some_and(|gid| gid != attr.gid) {
                return Err(Refusal::NotPermitted);
            }
            let mode = mode.map(permission_bits);
            let attributes = Attributes {
                mode,
                atime: atime.map(moment),
                mtime: mtime.map(moment),
            };
            self.tree.set_attr(caller, node(ino)?, size, attributes)
        });
        answer_attr(result, reply);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.look(|| self.tree.target(node(ino)?)) {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(errno),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        // A lease is a regular file, a directory or a symlink, and nothing else.
        let shape = (mode & libc::S_IFMT == libc::S_IFREG).then_some(Shape::File);
        self.make(request, parent, name, shape, mode & !umask, reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        self.make(
            request,
            parent,
            name,
            Some(Shape::Directory),
            mode & !umask,
            reply,
        );
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let shape = Shape::Symlink(Arc::from(target.as_os_str().as_bytes()));
        self.make(request, parent, name, Some(shape), 0o777, reply);
    }

    fn link(
        &self,
        request: &Request,
        ino: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let caller = caller(request);
        let link = || {
            self.permit(caller, parent, WRITE | EXECUTE)?;
            self.tree
                .link(caller, node(ino)?, node(parent)?, name.as_bytes())
        };
        answer_entry(
            self.change(caller, |_| self.tree.attr(node(ino)?), link),
            reply,
        );
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty(self.remove(request, parent, name, true), reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty(self.remove(request, parent, name, false), reply);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let caller = caller(request);
        let rename = || {
            self.permit(caller, parent, WRITE | EXECUTE)?;
            self.permit(caller, new_parent, WRITE | EXECUTE)?;
            self.permit_removal(caller, parent, name)?;
            self.permit_removal(caller, new_parent, new_name)?;
            let (from, to) = (
                (node(parent)?, name.as_bytes()),
                (node(new_parent)?, new_name.as_bytes()),
            );
            match flags {
                RenameFlags::RENAME_EXCHANGE => self.tree.exchange(caller, from, to),
                RenameFlags::RENAME_NOREPLACE => self.tree.rename(caller, from, to, true),
                flags if flags.is_empty() => self.tree.rename(caller, from, to, false),
                _ => Err(Refusal::Invalid),
            }
        };
        answer_empty(self.change(caller, |_| Ok(()), rename), reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let caller = caller(request);
        let create = || {
            self.permit(caller, parent, WRITE | EXECUTE)?;
            let mode = permission_bits(mode & !umask);
            let (exclusive, truncate) = (flags & libc::O_EXCL != 0, flags & libc::O_TRUNC != 0);
            let name = name.as_bytes();
            self.tree
                .create(caller, node(parent)?, name, mode, exclusive, truncate)
        };
        let again = |outcome| {
            let attr = self.made(outcome)?;
            Ok((attr, self.tree.reopened(caller, attr.ino, outcome)))
        };
        match self.change(caller, again, create) {
            Ok((attr, handle)) => {
                let fh = FileHandle(handle.fh.number());
                reply.created(
                    ttl(&attr),
                    &file_attr(&attr),
                    Generation(0),
                    fh,
                    open_flags(handle),
                );
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let caller = caller(request);
        let open = || {
            let wants = wants(flags);
            self.permit(caller, ino, wants)?;
            self.tree.open(
                caller,
                node(ino)?,
                wants & WRITE != 0,
                flags.0 & libc::O_TRUNC != 0,
            )
        };
        let again = |outcome| Ok(self.tree.reopened(caller, node(ino)?, outcome));
        match self.change(caller, again, open) {
            Ok(handle) => {
                reply.opened(FileHandle(handle.fh.number()), open_flags(handle));
                if handle.opened == Opened::Stream {
                    self.tree.confirmed(handle.fh);
                }
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (ino, fh) = match (node(ino), descriptor(handle)) {
            (Ok(ino), Ok(fh)) => (ino, fh),
            _ => return reply.error(Errno::ESTALE),
        };
        // Only the page cache asks on nobody's behalf: for splice(2), sendfile(2) and mmap(2), which know nothing of direct I/O.
        // It would cut the text at the size. Who is refused here reads instead, as on procfs.
        if owner.is_none() && self.tree.is_rendered(ino, fh) {
            reply.error(Errno::EINVAL);
            return;
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if fh.is_stream() {
            let may_wait = flags.0 & libc::O_NONBLOCK == 0;
            self.begin();
            self.pending
                .read(request.pid(), fh, offset, size, may_wait, reply);
            // That it waits is an answer too, as far as whoever watches this server is concerned.
            self.begin();
            return;
        }
        let caller = caller(request);
        let read = move |tree: &Tree| {
            let read = || tree.read(caller, ino, fh, offset, size, <[u8]>::to_vec);
            match run(tree, read) {
                Ok(bytes) => reply.data(&bytes),
                Err(errno) => reply.error(errno),
            }
        };
        if Tree::is_long(ino) && !self.tree.is_begun(fh, offset) {
            self.hand_on(&self.looks, caller.uid, read);
        } else {
            self.begin();
            read(&self.tree);
        }
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (ino, fh) = match (node(ino), descriptor(handle)) {
            (Ok(ino), Ok(fh)) => (ino, fh),
            _ => return reply.error(Errno::ESTALE),
        };
        let append = flags.0 & libc::O_APPEND != 0;
        let caller = caller(request);
        let written = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let write = move |tree: &Tree, caller: Caller, data: &[u8]| {
            tree.write(caller, ino, fh, offset, data, append)
        };
        let answer = move |result| match result {
            Ok(()) => reply.written(written),
            Err(errno) => reply.error(errno),
        };
        if Tree::is_control(ino) {
            // What asks for several things knows itself how far it has come.
            let (data, arrival) = (data.to_vec(), self.tree.arrive(caller.uid, data));
            let caller = Caller {
                arrived: Some(arrival.at),
                ..caller
            };
            self.hand_on(&self.commands, caller.uid, move |tree| {
                answer(run(tree, || write(tree, caller, &data)));
                drop(arrival);
            });
        } else {
            let again = |_| {
                self.tree.registered(fh);
                Ok(())
            };
            answer(self.change(caller, again, || write(&self.tree, caller, data)));
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.close(request, ino, handle, reply);
    }

    fn forget(&self, _: &Request, ino: INodeNo, times: u64) {
        if let Ok(ino) = node(ino) {
            self.tree.forget(ino, times);
        }
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        notifier: PollNotifier,
        _: PollEvents,
        flags: PollFlags,
        reply: ReplyPoll,
    ) {
        // What never waits is always ready, as on any filesystem.
        let always = PollEvents::POLLIN | PollEvents::POLLRDNORM;
        let Some(fh) = descriptor(handle).ok().filter(|fh| fh.is_stream()) else {
            reply.poll(always | PollEvents::POLLOUT | PollEvents::POLLWRNORM);
            return;
        };
        let schedule = flags.contains(PollFlags::FUSE_POLL_SCHEDULE_NOTIFY);
        let is_ready = self.pending.poll(fh, schedule.then_some(notifier));
        reply.poll(if is_ready {
            always
        } else {
            PollEvents::empty()
        });
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.run(|| self.tree.attr(node(ino)?)) {
            Ok(_) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let caller = caller(request);
        match self.run(|| {
            self.permit(caller, ino, READ)?;
            self.tree.open_directory(node(ino)?)
        }) {
            Ok(fh) => reply.opened(FileHandle(fh.number()), FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        }
    }

    fn releasedir(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.close(request, ino, handle, reply);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let list = || {
            self.tree.list(node(ino)?, offset, |entry| {
                !reply.add(
                    INodeNo(entry.attr.ino.number()),
                    entry.offset,
                    file_type(entry.attr.kind),
                    OsStr::from_bytes(entry.name),
                )
            })
        };
        match self.run(list) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let list = || {
            let long = self.tree.usage().0 > LONG_LISTING;
            self.tree.list(node(ino)?, offset, |entry| {
                let attr = file_attr(&entry.attr);
                let ttl = if long && !entry.attr.is_fixed() {
                    &LISTING_TTL
                } else {
                    ttl(&entry.attr)
                };
                !reply.add(
                    attr.ino,
                    entry.offset,
                    OsStr::from_bytes(entry.name),
                    ttl,
                    &attr,
                    Generation(0),
                )
            })
        };
        match self.run(list) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (used, max) = self.tree.usage();
        let (files, free) = (max as u64, max.saturating_sub(used) as u64);
        let longest = u32::try_from(NAME_MAX).unwrap_or(u32::MAX);
        // A claim's body counts as one block, so that neither blocks nor inodes look full before names run out.
        reply.statfs(files, free, free, files, free, 4096, longest, 4096);
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let caller = caller(request);
        let set = || {
            let name = tag_name(name)?;
            self.permit(caller, ino, WRITE)?;
            let there = self
                .tree
                .tags(node(ino)?)?
                .iter()
                .any(|(known, _)| known == name);
            match flags {
                libc::XATTR_CREATE if there => Err(Refusal::Exists),
                libc::XATTR_REPLACE if !there => Err(Refusal::NoAttribute),
                _ => self.tree.set_tag(caller, node(ino)?, name, Some(value)),
            }
        };
        answer_empty(self.change(caller, |_| Ok(()), set), reply);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let result = self.look(|| {
            let name = tag_name(name)
                .ok()
                .filter(|name| name.starts_with("user."))
                .ok_or(Refusal::Unsupported)?;
            let found = self
                .tree
                .tags(node(ino)?)?
                .into_iter()
                .find(|(known, _)| known == name);
            found.map(|(_, value)| value).ok_or(Refusal::NoAttribute)
        });
        answer_xattr(result, size, reply);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let result = self.look(|| {
            let tags = self.tree.tags(node(ino)?)?;
            Ok(tags
                .into_iter()
                .flat_map(|(name, _)| [name.into_bytes(), vec![0]].concat())
                .collect())
        });
        answer_xattr(result, size, reply);
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let caller = caller(request);
        let remove = || {
            self.permit(caller, ino, WRITE)?;
            self.tree.set_tag(caller, node(ino)?, tag_name(name)?, None)
        };
        answer_empty(self.change(caller, |_| Ok(()), remove), reply);
    }

    fn access(&self, request: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let wants = u8::try_from(mask.bits() & 7).unwrap_or(7);
        match self.look(|| self.permit(caller(request), ino, wants)) {
            Ok(_) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let result = self.run(|| {
            let attr = self.tree.attr(node(ino)?)?;
            let end = offset.saturating_add(length);
            match mode {
                // A body takes no room before it is written: there is nothing to set aside but its size.
                0 if end > attr.size => {
                    let attributes = Attributes::default();
                    self.tree
                        .set_attr(caller(request), node(ino)?, Some(end), attributes)
                }
                libc::FALLOC_FL_KEEP_SIZE if end > self.tree.room(node(ino)?)? => {
                    Err(Refusal::TooLarge)
                }
                0 | libc::FALLOC_FL_KEEP_SIZE => Ok(attr),
                _ => Err(Refusal::Unsupported),
            }
        });
        answer_empty(result.map(|_| ()), reply);
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn getlk(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: LockOwner,
        _: u64,
        _: u64,
        _: i32,
        _: u32,
        reply: ReplyLock,
    ) {
        self.refuse_lock(ino);
        reply.error(Errno::EOPNOTSUPP);
    }

    fn setlk(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: LockOwner,
        _: u64,
        _: u64,
        typ: i32,
        _: u32,
        _: bool,
        reply: ReplyEmpty,
    ) {
        // The kernel unlocks whatever it closes; only taking a lock is refused.
        if typ == UNLOCK {
            reply.ok();
        } else {
            self.refuse_lock(ino);
            reply.error(Errno::EOPNOTSUPP);
        }
    }
}
