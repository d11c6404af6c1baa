//! The racer that is a process of our own.

use std::env;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;

/// Plays the role in `RACER_ROLE`, a racer or a holder that dies, with nothing but system calls.
/// False if there is none.
pub fn play() -> bool {
    let Ok(role) = env::var("RACER_ROLE") else {
        return false;
    };
    let create = |name: &str| {
        let path = CString::new(name).unwrap();
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        match unsafe { libc::open(path.as_ptr(), flags, 0o644) } {
            -1 => Err(io::Error::last_os_error()),
            fd => {
                assert_eq!(unsafe { libc::close(fd) }, 0);
                Ok(())
            }
        }
    };
    if role == "hold" {
        create(&env::var("RACER_NAME").unwrap()).unwrap();
        unsafe { libc::raise(libc::SIGKILL) };
    }
    let say = |word: &str| {
        let line = format!("{word}\n");
        let count = unsafe { libc::write(0, line.as_ptr().cast(), line.len()) };
        assert_eq!(usize::try_from(count).unwrap(), line.len());
    };
    say("ready");
    let mut lines = io::stdin().lines();
    while let Some(Ok(line)) = lines.next() {
        let mut words = line.split(' ');
        let (gate, name) = (words.next().unwrap(), words.next().unwrap());
        say("at");
        drop(File::open(gate).unwrap());
        let result = create(name);
        match &result {
            Ok(()) => say("won"),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => say("lost"),
            Err(error) => say(&format!("failed: {error}")),
        }
        lines.next();
        if result.is_ok() {
            fs::remove_file(name).unwrap();
        }
        say("ended");
    }
    true
}
