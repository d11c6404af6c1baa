//! The process behind `support::Actor`. It reads requests for system calls from its standard input,
//! a JSON object a line, and answers there with what they return. It makes them directly, so that
//! no library hides an errno.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![allow(missing_docs, clippy::too_many_lines)]

use std::ffi::CString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::{env, fs, thread};

use claimfs::core::identity::Sight;
use claimfs::process::{Processes, Search};
use serde_json::{Value, json};

/// The last argument of an image that an exec made: it answers the call for that exec.
const AGAIN: &str = "again";

fn main() {
    // Not in the first thread, which a request may end.
    thread::spawn(serve).join().unwrap();
}

fn serve() {
    let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    if env::args().any(|word| word == AGAIN) {
        writeln!(&stream, "{{}}").unwrap();
    }
    let mut requests = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while requests.read_line(&mut line).unwrap() > 0 {
        let request: Value = serde_json::from_str(&line).unwrap();
        let answer = match perform(&request) {
            Ok(value) => json!({ "ok": value }),
            Err(error) => json!({ "errno": error.raw_os_error().unwrap_or(-1) }),
        };
        writeln!(&stream, "{answer}").unwrap();
        line.clear();
    }
}

fn path(request: &Value, key: &str) -> CString {
    CString::new(request[key].as_str().unwrap()).unwrap()
}

fn int(request: &Value, key: &str) -> i64 {
    request[key].as_i64().unwrap()
}

fn result(value: i64) -> io::Result<Value> {
    if value < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(json!(value))
    }
}

fn perform(request: &Value) -> io::Result<Value> {
    let fd = request["fd"].as_i64().unwrap_or(-1) as i32;
    let call = request["call"].as_str().unwrap();
    unsafe {
        match call {
            "open" => {
                let (flags, mode) = (
                    int(request, "flags") as i32,
                    int(request, "mode") as libc::mode_t,
                );
                result(i64::from(libc::open(
                    path(request, "path").as_ptr(),
                    flags,
                    mode,
                )))
            }
            "mknod" => {
                let mode = int(request, "mode") as libc::mode_t;
                result(i64::from(libc::mknod(
                    path(request, "path").as_ptr(),
                    mode,
                    0,
                )))
            }
            "close" => result(i64::from(libc::close(fd))),
            "write" | "pwrite" => {
                let text = request["text"].as_str().unwrap();
                let (at, length) = (text.as_ptr().cast(), text.len());
                result(match request["offset"].as_i64() {
                    Some(offset) => libc::pwrite(fd, at, length, offset) as i64,
                    None => libc::write(fd, at, length) as i64,
                })
            }
            "read" => {
                let mut buffer = vec![0_u8; int(request, "size") as usize];
                let count = libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) as i64;
                result(count)?;
                buffer.truncate(count as usize);
                Ok(json!(String::from_utf8_lossy(&buffer)))
            }
            "claim_until_busy" => {
                // How many of so many exclusive creates were granted.
                let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
                let file = path(request, "path");
                let tries =
                    (0..int(request, "times")).map(|_| libc::open(file.as_ptr(), flags, 0o644));
                Ok(json!(tries.filter(|fd| *fd >= 0).count()))
            }
            "poll" => {
                let mut poll = libc::pollfd {
                    fd,
                    events: libc::POLLIN,
                    revents: 0,
                };
                let timeout = int(request, "timeout") as i32;
                result(i64::from(libc::poll(&raw mut poll, 1, timeout)))
            }
            "pread" => {
                let mut buffer = vec![0_u8; int(request, "size") as usize];
                let count = libc::pread(
                    fd,
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    int(request, "offset"),
                ) as i64;
                result(count)?;
                buffer.truncate(count as usize);
                Ok(json!(String::from_utf8_lossy(&buffer)))
            }
            "stat" | "fstat" => {
                let mut stat: libc::stat = std::mem::zeroed();
                result(i64::from(match call {
                    "stat" => libc::lstat(path(request, "path").as_ptr(), &raw mut stat),
                    _ => libc::fstat(fd, &raw mut stat),
                }))?;
                let nanos = |seconds: i64, nanos: i64| seconds * 1_000_000_000 + nanos;
                Ok(json!({
                    "ino": stat.st_ino, "size": stat.st_size, "mode": stat.st_mode, "nlink": stat.st_nlink,
                    "uid": stat.st_uid, "gid": stat.st_gid,
                    "atime": nanos(stat.st_atime, stat.st_atime_nsec),
                    "mtime": nanos(stat.st_mtime, stat.st_mtime_nsec),
                }))
            }
            "truncate" => result(i64::from(libc::truncate(
                path(request, "path").as_ptr(),
                int(request, "size"),
            ))),
            "ftruncate" => result(i64::from(libc::ftruncate(fd, int(request, "size")))),
            "chmod" => result(i64::from(libc::chmod(
                path(request, "path").as_ptr(),
                int(request, "mode") as libc::mode_t,
            ))),
            "chown" => {
                let (uid, gid) = (int(request, "uid") as u32, int(request, "gid") as u32);
                result(i64::from(libc::chown(
                    path(request, "path").as_ptr(),
                    uid,
                    gid,
                )))
            }
            "utimes" => {
                let time = |key| {
                    let nanos = int(request, key);
                    libc::timespec {
                        tv_sec: nanos.div_euclid(1_000_000_000),
                        tv_nsec: nanos.rem_euclid(1_000_000_000),
                    }
                };
                let times = [time("atime"), time("mtime")];
                result(i64::from(libc::utimensat(
                    libc::AT_FDCWD,
                    path(request, "path").as_ptr(),
                    times.as_ptr(),
                    0,
                )))
            }
            "utimes_seconds" => {
                let time = libc::timespec {
                    tv_sec: int(request, "seconds"),
                    tv_nsec: 1,
                };
                let (file, times) = (path(request, "path"), [time, time]);
                result(i64::from(libc::utimensat(
                    libc::AT_FDCWD,
                    file.as_ptr(),
                    times.as_ptr(),
                    0,
                )))
            }
            "fallocate" => {
                let (mode, length) = (int(request, "mode") as i32, int(request, "length"));
                result(i64::from(libc::fallocate(
                    fd,
                    mode,
                    int(request, "offset"),
                    length,
                )))
            }
            "fsync" => result(i64::from(libc::fsync(fd))),
            "mkdir" => result(i64::from(libc::mkdir(
                path(request, "path").as_ptr(),
                0o755,
            ))),
            "rmdir" => result(i64::from(libc::rmdir(path(request, "path").as_ptr()))),
            "symlink" | "link" => {
                let (from, to) = (path(request, "from"), path(request, "to"));
                result(i64::from(match call {
                    "symlink" => libc::symlink(from.as_ptr(), to.as_ptr()),
                    _ => libc::link(from.as_ptr(), to.as_ptr()),
                }))
            }
            "unlink" => result(i64::from(libc::unlink(path(request, "path").as_ptr()))),
            "rename" => {
                let (from, to) = (path(request, "from"), path(request, "to"));
                let flags = int(request, "flags") as u32;
                result(i64::from(libc::renameat2(
                    libc::AT_FDCWD,
                    from.as_ptr(),
                    libc::AT_FDCWD,
                    to.as_ptr(),
                    flags,
                )))
            }
            "getxattr" | "listxattr" => {
                let mut buffer = [0_u8; 4096];
                let (file, at) = (path(request, "path"), buffer.as_mut_ptr());
                let count = if call == "getxattr" {
                    libc::getxattr(
                        file.as_ptr(),
                        path(request, "name").as_ptr(),
                        at.cast(),
                        buffer.len(),
                    )
                } else {
                    libc::listxattr(file.as_ptr(), at.cast(), buffer.len())
                };
                result(count as i64)?;
                Ok(json!(String::from_utf8_lossy(&buffer[..count as usize])))
            }
            "setxattr" => {
                let value = request["value"].as_str().unwrap();
                let (file, name) = (path(request, "path"), path(request, "name"));
                let flags = int(request, "flags") as i32;
                result(i64::from(libc::setxattr(
                    file.as_ptr(),
                    name.as_ptr(),
                    value.as_ptr().cast(),
                    value.len(),
                    flags,
                )))
            }
            "removexattr" => {
                let (file, name) = (path(request, "path"), path(request, "name"));
                result(i64::from(libc::removexattr(file.as_ptr(), name.as_ptr())))
            }
            "flock" => result(i64::from(libc::flock(fd, int(request, "operation") as i32))),
            "setlk" => {
                let mut lock: libc::flock = std::mem::zeroed();
                lock.l_type = libc::F_WRLCK as i16;
                result(i64::from(libc::fcntl(fd, libc::F_SETLK, &raw const lock)))
            }
            "isatty" => result(i64::from(libc::isatty(fd)) - 1),
            _ => process(call, request),
        }
    }
}

/// The requests about the process itself.
fn process(call: &str, request: &Value) -> io::Result<Value> {
    match call {
        "cat" => Ok(json!(fs::read_to_string(
            request["path"].as_str().unwrap()
        )?)),
        "readdir" => Ok(json!(
            fs::read_dir(request["path"].as_str().unwrap())?.count()
        )),
        "readlink" => Ok(json!(
            fs::read_link(request["path"].as_str().unwrap())?.to_string_lossy()
        )),
        "run" => run(request),
        // Becomes another program image, with another value of the variable, and goes on serving.
        "exec" => {
            let mut command = Command::new(env::current_exe()?);
            command
                .args(env::args_os().skip(1))
                .arg(AGAIN)
                .env("CLAIMFS_SESSION", request["session"].as_str().unwrap());
            Err(command.exec())
        }
        // The first thread of the process exits, this one lives on: what pthread_exit(3) in main
        // does.
        "leader_exit" => unsafe {
            extern "C" fn exit_thread(_: i32) {
                unsafe { libc::syscall(libc::SYS_exit, 0) };
            }
            let handler: extern "C" fn(i32) = exit_thread;
            libc::signal(libc::SIGUSR1, handler as libc::sighandler_t);
            libc::syscall(
                libc::SYS_tgkill,
                libc::getpid(),
                libc::getpid(),
                libc::SIGUSR1,
            );
            let stat = format!("/proc/{}/stat", std::process::id());
            while !fs::read_to_string(&stat)?.contains(") Z ") {
                thread::yield_now();
            }
            Ok(Value::Null)
        },
        "look_when_short" => look_when_short(),
        _ => panic!("no such call: {call}"),
    }
}

/// Runs a command as agents do, and waits for it: its exit code and what it says. Or does not wait,
/// and says its pid.
fn run(request: &Value) -> io::Result<Value> {
    let word = |word: &Value| word.as_str().unwrap().to_owned();
    let words: Vec<String> = request["words"]
        .as_array()
        .unwrap()
        .iter()
        .map(word)
        .collect();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    for (name, value) in request["env"].as_object().unwrap() {
        command.env(name, word(value));
    }
    let (session, dies) = (request["session"] == true, request["dies"] == true);
    unsafe {
        command.pre_exec(move || {
            if session {
                libc::setsid();
            }
            if dies {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            }
            Ok(())
        });
    }
    command.stdin(Stdio::null());
    if request["wait"] == false {
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        return Ok(json!(child.id()));
    }
    let output = command.output()?;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    Ok(json!({ "code": output.status.code().unwrap_or(-1), "out": out, "err": err }))
}

/// What becomes of a living process, the one above this, when there is one descriptor left to look
/// at it with, or none.
fn look_when_short() -> io::Result<Value> {
    let pid = std::os::unix::process::parent_id();
    let new = || {
        Processes::new(
            vec!["CLAIMFS_SESSION".into()],
            vec![],
            true,
            Search::default(),
        )
    };
    // The second has nothing that it could give back.
    let (known, other) = (new()?, new()?);
    let Sight::Seen(facts) = known.facts(pid) else {
        panic!("the test is there")
    };
    let limit = libc::rlimit {
        rlim_cur: 64,
        rlim_max: 64,
    };
    assert_eq!(
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) },
        0
    );
    let mut all = Vec::new();
    while let Ok(file) = fs::File::open("/dev/null") {
        all.push(file);
    }
    all.pop();
    let one_left = other
        .watch(&facts.process, 0)
        .map_or("error".to_owned(), |watch| format!("{watch:?}"));
    // It says that it is short of descriptors, or has given back enough of them; never that
    // something has changed.
    while let Ok(file) = fs::File::open("/dev/null") {
        all.push(file);
    }
    let ancestry = known.ancestry(None, pid, facts.uid);
    let settled = matches!(ancestry, Ok(_) | Err(claimfs::core::Refusal::Shortage));
    all.clear();
    let relieved = other
        .watch(&facts.process, 0)
        .map_or("error".to_owned(), |watch| format!("{watch:?}"));
    Ok(json!([settled, one_left, relieved]))
}
