//! The FUSE side: decode a request, call the tree, reply.
//!
//! Promises: every request is answered, with EIO if its handler panics. A panic elsewhere ends this
//! server, and the next one answers. One match turns refusals into errnos. Handlers ask the tree
//! whether the uid rules permit a request, since the mount has no `default_permissions`: with it
//! the kernel would ask for the attributes of the directory again after each create.
//!
//! Does not know: who is alive, who holds which lease, `/proc`, journals.

mod convert;
mod errno;
mod pending;
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
    descriptor, file_attr, file_type, moment, node, open_flags, permission_bits, ttl, wants,
    xattr_name,
};
use self::errno::errno;
use self::pending::PendingReplies;
use self::workers::Workers;
use crate::core::{Attributes, NAME_MAX, NodeId, Outcome, Refusal, Shape};
use crate::handoff;
use crate::logging::limited;
use crate::render::metrics::Metrics;
use crate::store::Caller;
use crate::tree::control::ControlCommand;
use crate::tree::permissions::{AttrChange, EXECUTE, READ, Times, WRITE};
use crate::tree::{Attr, Opened, Tree};

/// The number of threads on which fuser calls handlers.
pub(crate) const FUSER_THREADS: usize = 1;

/// The number of workers for requests that change something.
const COMMAND_WORKERS: usize = 1;

// The reply cache is right for exactly so many threads that carry out requests.
const _: () = assert!(FUSER_THREADS + COMMAND_WORKERS == handoff::THREADS);

/// The number of workers for long reads. With two, one uid's read does not delay another's.
const READ_WORKERS: usize = 2;

/// `F_UNLCK` of fcntl(2). The type of libc's constant differs between platforms.
const UNLOCK: i32 = 2;

thread_local! {
    static HANDLING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is in a handler. A panic there is caught and answered.
pub(crate) fn is_handling() -> bool {
    HANDLING.get()
}

/// The filesystem that fuser drives.
pub(crate) struct ClaimFs {
    tree: Arc<Tree>,
    metrics: Arc<Metrics>,
    pending: Arc<PendingReplies>,
    /// For requests that change something and may wait for the disk. See [`handoff::THREADS`].
    commands: Workers,
    /// For reads that take long.
    reads: Workers,
    /// For parts of listings that take long. The kernel keeps all who create in that directory
    /// waiting for one, so that none may wait behind a read.
    listings: Workers,
    has_refused_lock: AtomicBool,
    /// The capabilities that the kernel offers when the connection begins.
    offered: Arc<AtomicU64>,
    /// The number of requests that were begun, up to two. At the second, one was answered.
    begun: AtomicU8,
    first: Box<dyn Fn(bool) + Send + Sync>,
}

impl ClaimFs {
    /// Serves a tree. Starts the threads for pending replies and for long requests. Calls `first`
    /// when the first request has come, and again when one was answered.
    pub(crate) fn new(
        tree: Tree,
        first: impl Fn(bool) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let tree = Arc::new(tree);
        Ok(Self {
            pending: PendingReplies::start(Arc::clone(&tree))?,
            commands: Workers::start("commands", COMMAND_WORKERS)?,
            reads: Workers::start("reads", READ_WORKERS)?,
            listings: Workers::start("listings", 1)?,
            metrics: Arc::clone(tree.metrics()),
            tree,
            has_refused_lock: AtomicBool::new(false),
            offered: Arc::default(),
            begun: AtomicU8::new(0),
            first: Box::new(first),
        })
    }

    /// The capabilities that the kernel offers: 0 until the connection begins.
    pub(crate) fn offered(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.offered)
    }

    /// Begins to measure a request that was just read.
    fn timed(&self) -> Timed {
        Timed {
            metrics: Arc::clone(&self.metrics),
            start: Instant::now(),
            is_long: false,
        }
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

    /// Runs a handler: counts it and its refusal, and turns a refusal into an errno, a panic into
    /// EIO.
    fn run<T>(&self, handler: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Errno> {
        self.begin();
        run(&self.tree, handler)
    }

    /// Has workers carry out and answer a long request, while this thread serves others.
    fn hand_on(&self, to: &Workers, uid: u32, job: impl FnOnce(&Tree) + Send + 'static) {
        self.begin();
        let tree = Arc::clone(&self.tree);
        to.run(uid, move || job(&tree));
        // For the supervisor, a request that waits for a worker counts as answered.
        self.begin();
    }

    /// Answers a part of a listing: at once, or on a worker while much is left to sweep.
    fn list(&self, request: &Request, ino: INodeNo, list: impl FnOnce(&Tree) + Send + 'static) {
        let timed = self.timed();
        if node(ino).is_ok_and(|ino| self.tree.is_littered(ino)) {
            let timed = timed.long();
            self.hand_on(&self.listings, request.uid(), |tree| {
                list(tree);
                drop(timed);
            });
        } else {
            self.begin();
            list(&self.tree);
        }
    }

    /// Runs a handler that changes something. If the request is sent again and was carried out
    /// before, calls `again` with its outcome instead, to answer it.
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

    /// The node that a request created when it was sent first.
    fn made(&self, outcome: Outcome) -> Result<Attr, Refusal> {
        let ino = outcome.ino.map(NodeId::Claim);
        self.tree.attr(ino.or(outcome.fh).ok_or(Refusal::Lost)?)
    }

    /// Runs a handler that changes nothing. Its refusals are not counted: ENOENT is an answer.
    fn look<T>(&self, handler: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Errno> {
        self.begin();
        attempt(handler).map_err(|refusal| errno(refusal).0)
    }

    /// Logs once why kernel locks are refused here.
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

    /// Creates a claim without opening it. EPERM for a kind of file that cannot be one.
    fn make(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        shape: Option<Shape>,
        mode: u32,
        reply: ReplyEntry,
    ) {
        let _timed = self.timed();
        let caller = caller(request);
        let make = || {
            self.tree.permit_entry(caller, node(parent)?)?;
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
        let _timed = self.timed();
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
            self.tree.permit_entry(caller, node(parent)?)?;
            self.tree
                .permit_removal(caller, node(parent)?, name.as_bytes())?;
            self.tree
                .remove(caller, node(parent)?, name.as_bytes(), directory)
        };
        self.change(caller, |_| Ok(()), remove)
    }
}

/// See [`ClaimFs::run`].
fn run<T>(tree: &Tree, handler: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Errno> {
    attempt(handler).map_err(|refusal| {
        let (errno, name) = errno(refusal);
        tree.metrics().refused(name);
        errno
    })
}

/// Calls a handler.
fn attempt<T>(handler: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
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
    result
}

/// A request that was read. Counts the time until this is dropped, after its answer was written.
struct Timed {
    metrics: Arc<Metrics>,
    start: Instant,
    is_long: bool,
}

impl Timed {
    /// The same request, handed to a worker.
    fn long(self) -> Self {
        let mut timed = self;
        timed.is_long = true;
        timed
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.metrics.served(self.start.elapsed(), self.is_long);
    }
}

/// The capabilities that are requested from the kernel.
pub const WISHES: [InitFlags; 6] = [
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    // Requested so that locks reach the server, which refuses them: else the kernel grants them.
    InitFlags::FUSE_POSIX_LOCKS,
    InitFlags::FUSE_FLOCK_LOCKS,
];

impl Filesystem for ClaimFs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.offered.store(config.capabilities().bits(), Relaxed);
        // Each is optional: kernels that lack one are too old for the mount anyway (`limits.md`).
        for wish in WISHES {
            if let Err(missing) = config.add_capabilities(wish) {
                log::debug!("the kernel lacks {missing:?}");
            }
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _timed = self.timed();
        let name = name.as_bytes();
        let found = if self.tree.is_notifier(request.pid()) {
            self.look(|| self.tree.tombstone(node(parent)?, name))
        } else {
            self.look(|| {
                // Without `default_permissions` the kernel does not check search permission.
                self.tree.permit(caller(request), node(parent)?, EXECUTE)?;
                self.tree.lookup(node(parent)?, name)
            })
        };
        match found {
            Ok(attr) => reply.entry(ttl(&attr), &file_attr(&attr), Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let _timed = self.timed();
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
        let _timed = self.timed();
        let caller = caller(request);
        let result = self.run(|| {
            let times = match (atime, mtime) {
                (None, None) => Times::Kept,
                (None | Some(TimeOrNow::Now), None | Some(TimeOrNow::Now)) => Times::Now,
                _ => Times::Given,
            };
            let change = AttrChange {
                mode: mode.is_some(),
                size: size.is_some() && handle.is_none(),
                times,
                uid,
                gid,
            };
            self.tree.permit_change(caller, node(ino)?, change)?;
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
        let _timed = self.timed();
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
        // A lease is a regular file, a directory or a symlink.
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
        let _timed = self.timed();
        let caller = caller(request);
        let link = || {
            self.tree.permit_entry(caller, node(parent)?)?;
            self.tree
                .link(caller, node(ino)?, node(parent)?, name.as_bytes())
        };
        answer_entry(
            self.change(caller, |_| self.tree.attr(node(ino)?), link),
            reply,
        );
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _timed = self.timed();
        let remove = || answer_empty(self.remove(request, parent, name, true), reply);
        self.pending.serving(remove);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _timed = self.timed();
        let remove = || answer_empty(self.remove(request, parent, name, false), reply);
        self.pending.serving(remove);
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
        let _timed = self.timed();
        let caller = caller(request);
        let rename = || {
            self.tree.permit_entry(caller, node(parent)?)?;
            self.tree.permit_entry(caller, node(new_parent)?)?;
            self.tree
                .permit_removal(caller, node(parent)?, name.as_bytes())?;
            self.tree
                .permit_removal(caller, node(new_parent)?, new_name.as_bytes())?;
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
        let rename = || answer_empty(self.change(caller, |_| Ok(()), rename), reply);
        self.pending.serving(rename);
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
        let _timed = self.timed();
        let caller = caller(request);
        let create = || {
            self.tree.permit_entry(caller, node(parent)?)?;
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
        let _timed = self.timed();
        let caller = caller(request);
        let open = || {
            let wants = wants(flags);
            self.tree.permit(caller, node(ino)?, wants)?;
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
        let (Ok(ino), Ok(fh)) = (node(ino), descriptor(handle)) else {
            return reply.error(Errno::ESTALE);
        };
        // A read without an owner comes from the page cache, for splice(2), sendfile(2) and
        // mmap(2). These ignore direct I/O and would cut the text at the file's size. Programs that
        // are refused here use read(2) instead, as on procfs.
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
            // For the supervisor, a pending reply counts as an answer.
            self.begin();
            return;
        }
        let (caller, timed) = (caller(request), self.timed());
        let read = move |tree: &Tree| {
            let read = || tree.read(caller, ino, fh, offset, size, <[u8]>::to_vec);
            match run(tree, read) {
                Ok(bytes) => reply.data(&bytes),
                Err(errno) => reply.error(errno),
            }
        };
        if Tree::is_long(ino) && !self.tree.is_begun(fh, offset) {
            let timed = timed.long();
            self.hand_on(&self.reads, caller.uid, |tree| {
                read(tree);
                drop(timed);
            });
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
        let (Ok(ino), Ok(fh)) = (node(ino), descriptor(handle)) else {
            return reply.error(Errno::ESTALE);
        };
        let append = flags.0 & libc::O_APPEND != 0;
        let (caller, timed) = (caller(request), self.timed());
        let written = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let answer = move |result| match result {
            Ok(()) => reply.written(written),
            Err(errno) => reply.error(errno),
        };
        if !Tree::is_control(ino) {
            let again = |_| {
                self.tree.registered(fh);
                Ok(())
            };
            let write = || self.tree.write(caller, ino, fh, offset, data, append);
            answer(self.change(caller, again, write));
            return;
        }
        // A write to `control` finds out itself which of its commands were carried out.
        let commands = ControlCommand::lines(data);
        let is_quick = |command: &Result<ControlCommand, Refusal>| {
            command.as_ref().map_or(true, ControlCommand::is_quick)
        };
        if commands
            .as_ref()
            .map_or(true, |all| all.iter().all(is_quick))
        {
            answer(self.run(|| self.tree.control(caller, commands?)));
            return;
        }
        let arrival = self.tree.arrive(caller.uid, data);
        let caller = Caller {
            arrived: Some(arrival.at),
            ..caller
        };
        let timed = timed.long();
        self.hand_on(&self.commands, caller.uid, move |tree| {
            answer(run(tree, || tree.control(caller, commands?)));
            drop((arrival, timed));
        });
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
        self.pending
            .serving(|| self.close(request, ino, handle, reply));
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
        // A file that nobody waits on is always ready, as on any filesystem.
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
        let _timed = self.timed();
        match self.run(|| self.tree.attr(node(ino)?)) {
            Ok(_) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let _timed = self.timed();
        let caller = caller(request);
        match self.run(|| {
            self.tree.permit(caller, node(ino)?, READ)?;
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
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.list(request, ino, move |tree| {
            let list = || {
                tree.list(node(ino)?, offset, |entry| {
                    !reply.add(
                        INodeNo(entry.attr.ino.number()),
                        entry.offset,
                        file_type(entry.attr.kind),
                        OsStr::from_bytes(entry.name),
                    )
                })
            };
            match run(tree, list) {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.list(request, ino, move |tree| {
            let list = || {
                let long = tree.usage().0 > LONG_LISTING;
                tree.list(node(ino)?, offset, |entry| {
                    let attr = file_attr(&entry.attr);
                    let is_claim = matches!(entry.attr.ino, NodeId::Claim(_) | NodeId::Session(_));
                    let ttl = if long && is_claim {
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
            match run(tree, list) {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (used, max) = self.tree.usage();
        let (files, free) = (max as u64, max.saturating_sub(used) as u64);
        let longest = u32::try_from(NAME_MAX).unwrap_or(u32::MAX);
        // Each claim counts as one block, so blocks and inodes run out when names do.
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
        let _timed = self.timed();
        let caller = caller(request);
        let set = || {
            let name = xattr_name(name)?;
            self.tree.permit(caller, node(ino)?, WRITE)?;
            let there = self
                .tree
                .xattrs(node(ino)?)?
                .iter()
                .any(|(known, _)| known == name);
            match flags {
                libc::XATTR_CREATE if there => Err(Refusal::Exists),
                libc::XATTR_REPLACE if !there => Err(Refusal::NoAttribute),
                _ => self.tree.set_xattr(caller, node(ino)?, name, Some(value)),
            }
        };
        answer_empty(self.change(caller, |_| Ok(()), set), reply);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _timed = self.timed();
        let result = self.look(|| {
            let name = xattr_name(name)
                .ok()
                .filter(|name| name.starts_with("user."))
                .ok_or(Refusal::Unsupported)?;
            let found = self
                .tree
                .xattrs(node(ino)?)?
                .into_iter()
                .find(|(known, _)| known == name);
            found.map(|(_, value)| value).ok_or(Refusal::NoAttribute)
        });
        answer_xattr(result, size, reply);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _timed = self.timed();
        let result = self.look(|| {
            let xattrs = self.tree.xattrs(node(ino)?)?;
            Ok(xattrs
                .into_iter()
                .flat_map(|(name, _)| [name.into_bytes(), vec![0]].concat())
                .collect())
        });
        answer_xattr(result, size, reply);
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _timed = self.timed();
        let caller = caller(request);
        let remove = || {
            self.tree.permit(caller, node(ino)?, WRITE)?;
            self.tree
                .set_xattr(caller, node(ino)?, xattr_name(name)?, None)
        };
        answer_empty(self.change(caller, |_| Ok(()), remove), reply);
    }

    fn access(&self, request: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let _timed = self.timed();
        let wants = u8::try_from(mask.bits() & 7).unwrap_or(7);
        match self.look(|| self.tree.permit(caller(request), node(ino)?, wants)) {
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
        let _timed = self.timed();
        let result = self.run(|| {
            let attr = self.tree.attr(node(ino)?)?;
            let end = offset.saturating_add(length);
            match mode {
                // Nothing is allocated before it is written: only the size changes.
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
        // The kernel unlocks each file that it closes. Only taking a lock is refused.
        if typ == UNLOCK {
            reply.ok();
        } else {
            self.refuse_lock(ino);
            reply.error(Errno::EOPNOTSUPP);
        }
    }
}
