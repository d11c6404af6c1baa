//! The null filesystem, in a process of its own.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use crate::null;

pub struct Floor {
    child: Child,
    pub dir: PathBuf,
}

/// If this process is to serve it, it does until that is unmounted.
pub fn is_server() -> bool {
    let mut words = env::args().skip_while(|word| word != "null");
    let dir = words.nth(1);
    if let Some(dir) = &dir {
        null::serve(Path::new(dir));
    }
    dir.is_some()
}

impl Floor {
    pub fn mount() -> Self {
        let dir = env::temp_dir().join(format!("claimfs-bench-null-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let mut server = Command::new(env::current_exe().unwrap());
        server.arg("null").arg(&dir).stdout(Stdio::piped());
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
