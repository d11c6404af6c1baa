//! A filesystem that protects nothing: names in a map, the same mount options, the same fuser, and
//! as many threads as are fastest. It is the floor of this transport: what claimfs takes on top is
//! what claimfs costs.

use std::collections::HashMap;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::common::in_own_session;

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyCreate, ReplyEmpty, ReplyEntry, Request,
    Session, SessionACL,
};

const TTL: Duration = Duration::ZERO;

#[derive(Default)]
struct Null {
    names: Mutex<HashMap<Vec<u8>, u64>>,
    newest: AtomicU64,
}

fn attr(ino: u64) -> FileAttr {
    let now: SystemTime = UNIX_EPOCH;
    let is_root = ino == 1;
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: now,
        mtime: now,
        ctime: now,
        crtime: now,
        kind: if is_root {
            FileType::Directory
        } else {
            FileType::RegularFile
        },
        perm: if is_root { 0o1777 } else { 0o644 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Null {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for wish in claimfs::fuse::WISHES {
            _ = config.add_capabilities(wish);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.names.lock().unwrap().get(name.as_encoded_bytes()) {
            Some(ino) => reply.entry(&TTL, &attr(*ino), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attr(ino.0));
    }

    fn create(
        &self,
        _: &Request,
        _: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let ino = 2 + self.newest.fetch_add(1, Relaxed);
        let name = name.as_encoded_bytes().to_vec();
        self.names.lock().unwrap().insert(name, ino);
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH;
        reply.created(&TTL, &attr(ino), Generation(0), FileHandle(ino), flags);
    }

    fn unlink(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        match self.names.lock().unwrap().remove(name.as_encoded_bytes()) {
            Some(_) => reply.ok(),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }
}

/// Mounts it on a directory, says so on standard output, and serves it until it is unmounted.
fn serve(dir: &Path, threads: usize) {
    let options = claimfs::supervisor::device::Options::default();
    let device = claimfs::supervisor::device::mount(dir, Path::new("null"), &options).unwrap();
    let mut config = fuser::Config::default();
    config.n_threads = Some(threads);
    let session = Session::from_fd(Null::default(), device, SessionACL::Owner, config).unwrap();
    println!("ready");
    session.run().unwrap();
}

/// Serves it, if this process is to.
pub fn play() -> bool {
    let mut words = env::args().skip_while(|word| word != "null").skip(1);
    let (Some(dir), Some(threads)) = (words.next(), words.next()) else {
        return false;
    };
    serve(Path::new(&dir), threads.parse().unwrap());
    true
}

/// It, in a process of its own. It is unmounted when this is dropped.
pub struct Floor {
    child: Child,
    pub dir: PathBuf,
}

impl Floor {
    /// With so many threads: for one client, one is faster, as none has to be woken while the other
    /// goes to sleep; for several, two.
    pub fn mount(threads: usize) -> Self {
        let dir = env::temp_dir().join(format!("claimfs-bench-null-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let mut server = Command::new(env::current_exe().unwrap());
        server.arg("null").arg(&dir).arg(threads.to_string());
        server.stdout(Stdio::piped());
        in_own_session(&mut server);
        let mut child = server.spawn().unwrap();
        let mut word = [0; 6];
        child.stdout.take().unwrap().read_exact(&mut word).unwrap();
        Self { child, dir }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(&self.dir).status();
        _ = self.child.kill();
        _ = self.child.wait();
        _ = fs::remove_dir(&self.dir);
    }
}
