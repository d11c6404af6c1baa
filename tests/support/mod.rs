//! The code that the suite, the benches and the other test binaries share: mounts and processes
//! that clean up after themselves, also when a test panics.
//!
//! Each test has a mount of its own, so they run side by side. Run one with `cargo test NAME`. A
//! test that cannot run here reports SKIP and why on standard error; with `CI=true` that is a
//! failure.
// Each binary uses a part of it.
#![allow(dead_code)]
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]

pub mod dice;
pub mod memory;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs};

use claimfs::core::agents;
use serde_json::{Value, json};

pub const CLAIMFS: &str = env!("CARGO_BIN_EXE_claimfs");

/// The program that mounts: another one if this variable names it, such as the static binary.
pub fn program_under_test() -> PathBuf {
    env::var_os("CLAIMFS_TEST_PROGRAM").map_or(CLAIMFS.into(), PathBuf::from)
}

/// Set where servers are to keep nothing of what they read of processes.
pub const UNCACHED: &str = "CLAIMFS_TEST_UNCACHED";

/// How long a condition that must come true may take on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const SESSION_VARIABLES: [&str; 4] = [
    "CLAIMFS_SESSION",
    "LOOOP_SESSION_ID",
    "BABYSIT_SESSION_ID",
    "GT_SESSION",
];

/// Says that a test does not run, past the harness, which keeps what passing tests print. Fails it
/// in CI.
pub fn skip(reason: &str) {
    assert_ne!(
        env::var("CI").as_deref(),
        Ok("true"),
        "SKIP is a failure in CI: {reason}"
    );
    _ = writeln!(io::stderr(), "SKIP: {reason}");
}

pub fn is_root() -> bool {
    unsafe { libc::geteuid() == 0 }
}

/// Whether a test that needs root may run.
pub fn root_or_skip(why: &str) -> bool {
    if !is_root() {
        skip(&format!("only root can {why}"));
    }
    is_root()
}

/// Waits for a condition, and fails if it does not come true.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// The number in an environment variable, or else the default.
pub fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// A helper program of `tests/programs`, an example of the package.
///
/// `cargo test` builds the examples, but `cargo test --test NAME` does not: so the first call in
/// each process builds them, which takes Cargo a moment if they are up to date.
pub fn program(name: &str) -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        // This is target/PROFILE/deps/NAME-HASH.
        let binary = env::current_exe().unwrap();
        let [target, profile] = [3, 2].map(|level| binary.ancestors().nth(level).unwrap());
        let name = match profile.file_name().unwrap().to_str().unwrap() {
            "debug" => "dev",
            name => name,
        };
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--quiet",
            "--offline",
            "--examples",
            "--profile",
            name,
        ]);
        cargo.arg("--target-dir").arg(target);
        let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output();
        let output = output.expect("cargo, which builds tests/programs");
        assert!(output.status.success(), "{:?}", text(&output));
        profile.join("examples")
    });
    dir.join(name)
}

/// The directory of what `mount-scripts/package` has built, if there is one to test.
pub fn packages() -> Option<PathBuf> {
    env::var_os("CLAIMFS_TEST_PACKAGES").map(PathBuf::from)
}

/// A directory of a test's own.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        Self::below(&env::temp_dir())
    }

    /// On tmpfs, where the system has one.
    pub fn in_memory() -> Self {
        let shm = Path::new("/dev/shm");
        Self::below(if shm.is_dir() { shm } else { Path::new("/tmp") })
    }

    pub fn below(parent: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("claimfs-test-{}-{count}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// A mount with its server in a child process.
pub struct Mount {
    pub dir: PathBuf,
    pub state: PathBuf,
    /// The program that mounts.
    pub program: PathBuf,
    /// Whether it knows coding agents: one may be above these tests.
    pub knows_agents: bool,
    /// Whether it ends when the thread ends that starts it.
    pub ends_with_thread: bool,
    pub log: PathBuf,
    supervisor: Option<Child>,
    _temp: TempDir,
}

impl Mount {
    /// Mounts, or says why that cannot be done here.
    pub fn new() -> Option<Self> {
        Self::with(&[])
    }

    pub fn with(options: &[&str]) -> Option<Self> {
        let mut mount = Self::unmounted()?;
        mount.start(options);
        Some(mount)
    }

    /// A mount that [`Mount::start`] mounts.
    pub fn unmounted() -> Option<Self> {
        can_mount().then(|| Self::at(TempDir::new()))
    }

    /// The same, with all of its files in this directory.
    pub fn at(temp: TempDir) -> Self {
        let (dir, state) = (temp.path().join("mount"), temp.path().join("state"));
        Self {
            dir,
            state,
            program: program_under_test(),
            knows_agents: false,
            ends_with_thread: false,
            log: temp.path().join("log"),
            supervisor: None,
            _temp: temp,
        }
    }

    /// Starts a server, again if need be.
    pub fn start(&mut self, options: &[&str]) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap();
        let mut command = Command::new(&self.program);
        command
            .args(["mount", "--foreground", "--announce", "--state-dir"])
            .arg(&self.state)
            .args(options)
            .args((!self.knows_agents).then_some("--no-agents"))
            .args(env::var_os(UNCACHED).map(|_| "--without-caches"));
        command
            .arg(&self.dir)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        if self.ends_with_thread {
            unsafe {
                command.pre_exec(|| {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                    Ok(())
                });
            }
        }
        let mut supervisor = command.spawn().unwrap();
        let said = BufReader::new(supervisor.stdout.take().unwrap());
        let mut lines = said.lines().map_while(Result::ok);
        let word = lines.find(|line| !line.starts_with("lost: "));
        self.supervisor = Some(supervisor);
        assert_eq!(word.as_deref(), Some("ready"), "{}", self.log());
    }

    /// The process that holds the mount.
    pub fn supervisor(&self) -> u32 {
        self.supervisor.as_ref().unwrap().id()
    }

    /// The process that answers: another after each death.
    pub fn server(&self) -> Option<u32> {
        let supervisor = self.supervisor.as_ref()?.id();
        children(supervisor).into_iter().find(|pid| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).any(|word| word == b"serve")
        })
    }

    pub fn pid(&self) -> u32 {
        self.server().unwrap()
    }

    /// Kills the server, which is no more than a stall, and waits until it is gone.
    pub fn kill_server(&self) {
        let server = self.pid();
        assert_eq!(unsafe { libc::kill(server as i32, libc::SIGKILL) }, 0);
        wait_until("the server is gone", || self.server() != Some(server));
    }

    /// The log of the server.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The names under `claims/`.
    pub fn claims(&self) -> Vec<String> {
        names(&self.path("claims"))
    }

    /// The record of a claim, from `leases`.
    pub fn record(&self, name: &str) -> Option<Value> {
        let text = self.read("leases");
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .find(|record: &Value| record["name"] == name)
    }

    /// The token of a claim, which must be held.
    pub fn token(&self, name: &str) -> u64 {
        self.record(name).unwrap()["token"].as_u64().unwrap()
    }

    /// The session that holds a claim, if one does.
    pub fn session_of(&self, name: &str) -> Option<String> {
        Some(self.record(name)?["session"].as_str().unwrap().to_owned())
    }

    /// The process that holds a claim, if one does.
    pub fn pid_of(&self, name: &str) -> Option<u64> {
        self.record(name)?["pid"].as_u64()
    }

    /// A mount, and actors of the sessions `me` and `other`.
    pub fn with_two() -> Option<(Self, Actor, Actor)> {
        let mount = Self::new()?;
        let (me, other) = (mount.actor(Some("me")), mount.actor(Some("other")));
        Some((mount, me, other))
    }

    /// A mount that admits other users, or none if these tests cannot become one.
    pub fn shared(options: &[&str]) -> Option<Self> {
        if !root_or_skip("become another user") {
            return None;
        }
        Self::with(&[&["--allow-other"], options].concat())
    }

    /// A process in a POSIX session of its own, with a session variable if one is given.
    pub fn actor(&self, session: Option<&str>) -> Actor {
        Actor::start(self, session, |_| {})
    }

    /// A shell script in the mount, in a POSIX session of its own and with no session variable.
    pub fn sh(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).current_dir(&self.dir);
        plain(&mut command);
        command
    }

    /// The standard output of such a script, which must succeed.
    pub fn run(&self, script: &str) -> String {
        let output = self.sh(script).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Ends a session on purpose, also another's.
    pub fn end_session(&self, id: &str) {
        fs::write(self.path("control"), json!({ "end": id }).to_string()).unwrap();
    }

    pub fn claimfs(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program_under_test());
        command
            .args(arguments)
            .current_dir(&self.dir)
            .env("CLAIMFS_MOUNT", &self.dir);
        plain(&mut command);
        command
    }

    /// Kills the supervisor, and waits for it.
    pub fn kill_supervisor(&mut self) {
        let mut supervisor = self.supervisor.take().unwrap();
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
    }

    /// Waits until the supervisor has ended by itself: its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.supervisor.take()?.wait().unwrap().code()
    }

    /// Ends supervisor and server as SIGTERM does, and waits for them.
    pub fn stop(&mut self) -> Option<i32> {
        let mut supervisor = self.supervisor.take()?;
        unsafe { libc::kill(supervisor.id() as i32, libc::SIGTERM) };
        supervisor.wait().unwrap().code()
    }

    /// Kills the supervisor, and then the server, and waits for both: the mount is dead then.
    pub fn kill(&mut self) {
        let server = self.server();
        self.kill_supervisor();
        if let Some(server) = server {
            unsafe { libc::kill(server as i32, libc::SIGKILL) };
            wait_until("the server is gone", || is_over(server));
        }
    }
}

/// The children of a process, whichever of its threads made them.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let lists =
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    let text: String = lists.collect();
    text.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// Whether a process has exited, with all of its threads, though nobody may have waited for it.
pub fn is_over(pid: u32) -> bool {
    unsafe {
        let pidfd = libc::syscall(libc::SYS_pidfd_open, pid, 0) as i32;
        if pidfd < 0 {
            return io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
        }
        let mut poll = libc::pollfd {
            fd: pidfd,
            events: libc::POLLIN,
            revents: 0,
        };
        let exited = libc::poll(&raw mut poll, 1, 0) == 1;
        libc::close(pidfd);
        exited
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let server = self.server();
        if let Some(mut supervisor) = self.supervisor.take() {
            unsafe { libc::kill(supervisor.id() as i32, libc::SIGTERM) };
            let deadline = Instant::now() + Duration::from_secs(5);
            while Instant::now() < deadline && matches!(supervisor.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(1));
            }
            _ = supervisor.kill();
            _ = supervisor.wait();
        }
        if let Some(server) = server.filter(|server| !is_over(*server)) {
            unsafe { libc::kill(server as i32, libc::SIGKILL) };
        }
        unmount(&self.dir);
        if std::thread::panicking() {
            _ = writeln!(io::stderr(), "--- log of the server:\n{}---", self.log());
        }
    }
}

/// Unmounts what may still be mounted there.
pub fn unmount(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // As the kernel writes it: proc(5).
    let shown = dir.to_str().unwrap().replace(' ', "\\040");
    if mounts
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(&shown))
    {
        let tool = if is_root() {
            ["umount", "-l"]
        } else {
            ["fusermount3", "-uz"]
        };
        _ = Command::new(tool[0])
            .arg(tool[1])
            .arg(dir)
            .stderr(Stdio::null())
            .status();
    }
}

pub fn can_mount() -> bool {
    let able = Path::new("/dev/fuse").exists();
    if !able {
        skip("there is no /dev/fuse");
    }
    let helper = is_root() || Command::new("fusermount3").arg("-V").output().is_ok();
    if able && !helper {
        skip("this is not root, and fusermount3 is not installed");
    }
    able && helper
}

/// A POSIX session of its own and no session variable or agent's variable, whatever the tests were
/// started from.
pub fn plain(command: &mut Command) {
    for name in SESSION_VARIABLES {
        command.env_remove(name);
    }
    for agent in agents::known() {
        let names = agent.values.iter().chain(&agent.marks).chain(&agent.pid);
        names.for_each(|name| _ = command.env_remove(&**name));
    }
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            Ok(())
        });
    }
}

/// The JSON value of a text.
pub fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub fn text(output: &Output) -> (i32, String, String) {
    let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code().unwrap_or(-1),
        utf8(&output.stdout),
        utf8(&output.stderr),
    )
}

/// A process that makes the system calls that a test asks it for: `tests/programs/actor.rs`. It is
/// killed when it is dropped.
pub struct Actor {
    child: Child,
    stream: BufReader<UnixStream>,
}

/// The result of a system call, or its errno.
pub type Answer<T> = Result<T, i32>;

impl Actor {
    pub fn start(mount: &Mount, session: Option<&str>, prepare: impl FnOnce(&mut Command)) -> Self {
        Self::run_by(Command::new(program("actor")), mount, session, prepare)
    }

    /// One that this command runs.
    pub fn run_by(
        mut command: Command,
        mount: &Mount,
        session: Option<&str>,
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        plain(&mut command);
        command.current_dir(&mount.dir);
        command
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null());
        if let Some(session) = session {
            command.env("CLAIMFS_SESSION", session);
        }
        prepare(&mut command);
        Self {
            child: command.spawn().unwrap(),
            stream: BufReader::new(ours),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks for a call and does not wait for what it returns.
    pub fn send(&mut self, call: &str, arguments: Value) {
        let mut request = arguments;
        request["call"] = json!(call);
        writeln!(self.stream.get_mut(), "{request}").unwrap();
    }

    pub fn receive(&mut self) -> Answer<Value> {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let answer: Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("the actor said {line:?}"));
        match answer["errno"].as_i64() {
            Some(errno) => Err(errno as i32),
            None => Ok(answer["ok"].clone()),
        }
    }

    pub fn call(&mut self, call: &str, arguments: Value) -> Answer<Value> {
        self.send(call, arguments);
        self.receive()
    }

    fn unit(&mut self, call: &str, arguments: Value) -> Answer<()> {
        self.call(call, arguments).map(|_| ())
    }

    /// open(2) with mode 0644: the descriptor.
    pub fn open(&mut self, path: &str, flags: i32) -> Answer<i64> {
        self.open_mode(path, flags, 0o644)
    }

    pub fn open_mode(&mut self, path: &str, flags: i32, mode: u32) -> Answer<i64> {
        let fd = self.call(
            "open",
            json!({ "path": path, "flags": flags, "mode": mode }),
        )?;
        Ok(fd.as_i64().unwrap())
    }

    pub fn close(&mut self, fd: i64) -> Answer<()> {
        self.unit("close", json!({ "fd": fd }))
    }

    /// `set -C; : > claims/NAME`: creates exclusively, and closes.
    pub fn claim(&mut self, name: &str) -> Answer<()> {
        let fd = self.open(
            &format!("claims/{name}"),
            libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL,
        )?;
        self.close(fd)
    }

    /// The same by a path that leads to another mount than that of its working directory.
    pub fn claim_at(&mut self, path: &Path) {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        let fd = self.open(path.to_str().unwrap(), flags).unwrap();
        self.close(fd).unwrap();
    }

    pub fn write(&mut self, fd: i64, text: &str) -> Answer<i64> {
        self.call("write", json!({ "fd": fd, "text": text }))
            .map(|count| count.as_i64().unwrap())
    }

    pub fn pwrite(&mut self, fd: i64, text: &str, offset: i64) -> Answer<i64> {
        self.call(
            "pwrite",
            json!({ "fd": fd, "text": text, "offset": offset }),
        )
        .map(|count| count.as_i64().unwrap())
    }

    /// Bytes from an offset on, as text.
    /// read(2): at most 4 KiB of what comes next.
    pub fn read(&mut self, fd: i64) -> Answer<String> {
        let text = self.call("read", json!({ "fd": fd, "size": 4096 }))?;
        Ok(text.as_str().unwrap().to_owned())
    }

    /// Whether a descriptor is readable by now, or within so many milliseconds.
    pub fn poll(&mut self, fd: i64, timeout: i32) -> Answer<bool> {
        let ready = self.call("poll", json!({ "fd": fd, "timeout": timeout }))?;
        Ok(ready == 1)
    }

    pub fn pread(&mut self, fd: i64, size: usize, offset: i64) -> Answer<String> {
        let text = self.call("pread", json!({ "fd": fd, "size": size, "offset": offset }))?;
        Ok(text.as_str().unwrap().to_owned())
    }

    pub fn stat(&mut self, path: &str) -> Answer<Value> {
        self.call("stat", json!({ "path": path }))
    }

    pub fn fstat(&mut self, fd: i64) -> Answer<Value> {
        self.call("fstat", json!({ "fd": fd }))
    }

    pub fn truncate(&mut self, path: &str, size: i64) -> Answer<()> {
        self.unit("truncate", json!({ "path": path, "size": size }))
    }

    pub fn ftruncate(&mut self, fd: i64, size: i64) -> Answer<()> {
        self.unit("ftruncate", json!({ "fd": fd, "size": size }))
    }

    pub fn chmod(&mut self, path: &str, mode: u32) -> Answer<()> {
        self.unit("chmod", json!({ "path": path, "mode": mode }))
    }

    /// utimensat(2): times of access and modification in nanoseconds.
    pub fn utimes(&mut self, path: &str, atime: i64, mtime: i64) -> Answer<()> {
        self.unit(
            "utimes",
            json!({ "path": path, "atime": atime, "mtime": mtime }),
        )
    }

    pub fn fsync(&mut self, fd: i64) -> Answer<()> {
        self.unit("fsync", json!({ "fd": fd }))
    }

    pub fn unlink(&mut self, path: &str) -> Answer<()> {
        self.unit("unlink", json!({ "path": path }))
    }

    pub fn mkdir(&mut self, path: &str) -> Answer<()> {
        self.unit("mkdir", json!({ "path": path }))
    }

    pub fn rmdir(&mut self, path: &str) -> Answer<()> {
        self.unit("rmdir", json!({ "path": path }))
    }

    pub fn symlink(&mut self, target: &str, path: &str) -> Answer<()> {
        self.unit("symlink", json!({ "from": target, "to": path }))
    }

    pub fn link(&mut self, from: &str, to: &str) -> Answer<()> {
        self.unit("link", json!({ "from": from, "to": to }))
    }

    /// mknod(2) of a regular file.
    pub fn mknod(&mut self, path: &str) -> Answer<()> {
        self.unit(
            "mknod",
            json!({ "path": path, "mode": libc::S_IFREG | 0o644 }),
        )
    }

    pub fn rename(&mut self, from: &str, to: &str, flags: u32) -> Answer<()> {
        self.unit("rename", json!({ "from": from, "to": to, "flags": flags }))
    }

    pub fn getxattr(&mut self, path: &str, name: &str) -> Answer<String> {
        let value = self.call("getxattr", json!({ "path": path, "name": name }))?;
        Ok(value.as_str().unwrap().to_owned())
    }

    pub fn setxattr(&mut self, path: &str, name: &str, value: &str, flags: i32) -> Answer<()> {
        self.unit(
            "setxattr",
            json!({ "path": path, "name": name, "value": value, "flags": flags }),
        )
    }

    /// Kills the process and waits for it, as its parent.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: i32) {
        assert_eq!(unsafe { libc::kill(self.pid() as i32, signal) }, 0);
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A child that is killed when it is dropped.
pub struct Guard(pub Child);

impl Guard {
    pub fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// A line of its standard output, which must be piped.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        let stdout = self.0.stdout.as_mut().unwrap();
        let mut byte = [0];
        while stdout.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// A C program of `tests/suite/sessions`, compiled.
pub fn compiled(temp: &TempDir, source: &str) -> PathBuf {
    let program = temp.path().join("program");
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/suite/sessions")
        .join(source);
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-pthread", "-o"]).arg(&program).arg(source);
    let output = cc.output().unwrap();
    assert!(output.status.success(), "{:?}", text(&output));
    program
}
