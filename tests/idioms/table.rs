//! The clients on claimfs and on a tmpfs, side by side: for a person to read, so nothing is
//! asserted.
//!
//! `CLAIMFS_TEST_TABLE=1 cargo test --test idioms table -- --nocapture` prints it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{env, fs, process, thread};

use crate::clients::{ALL, Client};
use crate::stages::Place;
use crate::support::Mount;

/// When a lock counts as never free again.
const NEVER: Duration = Duration::from_secs(3);

/// A directory of a test's own on a tmpfs: each Linux has one there.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new("/dev/shm").join(format!("claimfs-test-{}-{count}", process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn table_of_claimfs_beside_tmpfs() {
    if env::var_os("CLAIMFS_TEST_TABLE").is_none() {
        // Past the harness, which keeps what passing tests print.
        _ = writeln!(io::stderr(), "no table: CLAIMFS_TEST_TABLE is not set");
        return;
    }
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        // Most of the time goes by in waiting for locks that nobody gets.
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(client) = ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(row) = row(client) {
                        rows.lock().unwrap().push((client.name, row));
                    }
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap();
    rows.sort_by_key(|(name, _)| ALL.iter().position(|client| client.name == *name));
    println!("| client | contend: claimfs | tmpfs | crash, seconds: claimfs | tmpfs |");
    println!("|---|---|---|---|---|");
    for (name, [claimfs, tmpfs]) in rows {
        println!(
            "| {} | {} | {} | {} | {} |",
            name.trim_end(),
            claimfs.0,
            tmpfs.0,
            claimfs.1,
            tmpfs.1
        );
    }
}

fn row(client: &Client) -> Option<[(String, String); 2]> {
    if !client.installed() {
        return None;
    }
    let mount = Mount::with(client.options)?;
    let tmpfs = Tmpfs::new();
    let cells = |place: &Place| {
        let contend = place.contend(client);
        let contend = contend.and_then(|holder| place.release(client, holder));
        let crash = match place.crash(client, NEVER) {
            Ok(Some(took)) => Ok(format!("{:.3}", took.as_secs_f64())),
            Ok(None) => Ok("never".to_owned()),
            Err(problem) => Err(problem),
        };
        (cell(contend.map(|()| "busy".to_owned())), cell(crash))
    };
    let claims = mount.path("claims");
    Some([
        cells(&Place::new(&claims, Some(&mount))),
        cells(&Place::new(&tmpfs.0, None)),
    ])
}

/// A cell is one line, the last as that is where an error is named. The whole problem is what the
/// client's test says.
fn cell(result: Result<String, String>) -> String {
    let text = result.unwrap_or_else(|problem| problem);
    text.trim_end()
        .lines()
        .last()
        .unwrap_or_default()
        .to_owned()
}
