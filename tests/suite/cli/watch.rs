//! `claimfs ls --watch` on a terminal, and in a pipe.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{CLAIMFS, Guard, Mount, plain, skip, text, wait_until};

/// What a terminal gets first and last: its other screen, and back.
const ENTERED: &str = "\u{1b}[?1049h";
const LEFT: &str = "\u{1b}[?25h\u{1b}[?1049l";

/// The beginning of a frame.
const HOME: &str = "\u{1b}[H";

/// A terminal of 80 columns and 24 lines on which the mount is watched.
struct Terminal {
    script: Guard,
    typescript: PathBuf,
    pid: PathBuf,
}

impl Terminal {
    /// `then` goes on in the shell that has started it in the background.
    fn watching(mount: &Mount, then: &str) -> Option<Self> {
        if Command::new("script").arg("--version").output().is_err() {
            skip("script(1) is not installed");
            return None;
        }
        let (typescript, pid) = (mount.state.join("typescript"), mount.state.join("pid"));
        let command = format!(
            "stty cols 80 rows 24; {CLAIMFS} ls --watch & echo $! > {}; {then} wait $!",
            pid.display()
        );
        let mut script = Command::new("script");
        plain(&mut script);
        script
            .args(["-qfec", &command])
            .arg(&typescript)
            .env("CLAIMFS_MOUNT", &mount.dir)
            .env("TERM", "xterm")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let script = Guard::spawn(&mut script);
        let terminal = Self {
            script,
            typescript,
            pid,
        };
        wait_until("it paints", || terminal.seen().contains(HOME));
        Some(terminal)
    }

    /// All that the terminal got.
    fn seen(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.typescript).unwrap_or_default()).into_owned()
    }

    /// The lines of the last frame.
    fn lines(&self) -> Vec<String> {
        let seen = self.seen();
        let frame = seen.rsplit(HOME).next().unwrap_or_default();
        let plain = frame.replace("\u{1b}[K", "").replace("\u{1b}[J", "");
        plain
            .lines()
            .map(|line| line.trim_end_matches('\r').to_owned())
            .collect()
    }

    fn shows(&self, what: &str) {
        wait_until(what, || self.lines().iter().any(|line| line.contains(what)));
    }

    fn signal(&self, signal: i32) {
        let pid: i32 = fs::read_to_string(&self.pid)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// The exit code of the shell.
    fn end(mut self) -> (i32, String) {
        let status = self.script.0.wait().unwrap();
        (status.code().unwrap_or(-1), self.seen())
    }
}

#[test]
fn the_screen_shows_changes_by_events_and_the_terminal_is_given_back() {
    let Some(mount) = Mount::new() else { return };
    let Some(terminal) = Terminal::watching(&mount, "") else {
        return;
    };
    terminal.shows("nothing is held in ");
    let mut holder = mount.actor(Some("w1"));
    holder.claim(&"日".repeat(80)).unwrap();
    terminal.shows("日…");
    mount.run("mkdir -p paths/srv/app && : > paths/srv/app/a && : > paths/srv/app/b");
    terminal.shows("/srv/app/");
    let seen = terminal.seen();
    assert!(seen.contains(ENTERED), "{seen:?}");
    // Nothing is cleared between frames, and none scrolls.
    assert_eq!(seen.matches("\u{1b}[2J").count(), 1, "{seen:?}");
    assert!(!seen.contains("\u{1b}[J\r\n"), "{seen:?}");
    terminal.signal(libc::SIGTERM);
    let (code, seen) = terminal.end();
    assert_eq!(code, 128 + libc::SIGTERM);
    let end = seen.rfind(LEFT).expect("it leaves");
    assert!(!seen[end..].contains(HOME), "{seen:?}");
}

#[test]
fn who_waits_is_shown_and_who_left_is_not() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.actor(Some("w1"));
    holder.claim("x").unwrap();
    let Some(terminal) = Terminal::watching(&mount, "") else {
        return;
    };
    let mut command = mount.claimfs(&["claim", "x", "--wait"]);
    command.env("CLAIMFS_SESSION", "w2").stdin(Stdio::null());
    let waiter = Guard::spawn(command.stderr(Stdio::null()));
    terminal.shows("  waits: 1. w2 ");
    terminal.shows("x: waited for by session w2");
    // No event says this.
    drop(waiter);
    wait_until("it is gone", || {
        !terminal.lines().iter().any(|line| line.contains("waits: "))
    });
}

#[test]
fn another_size_of_the_terminal_is_another_frame() {
    let Some(mount) = Mount::new() else { return };
    let go = mount.state.join("go");
    let then = format!(
        "until [ -e {} ]; do sleep 0.02; done; stty cols 40 rows 10;",
        go.display()
    );
    let mut holder = mount.actor(Some("w1"));
    for name in 0..30 {
        holder.claim(&format!("n{name}")).unwrap();
    }
    let Some(terminal) = Terminal::watching(&mount, &then) else {
        return;
    };
    wait_until("it is high", || terminal.lines().len() == 24);
    fs::write(&go, "").unwrap();
    wait_until("it is low", || terminal.lines().len() == 10);
    let lines = terminal.lines();
    assert!(
        lines.iter().all(|line| line.chars().count() < 40),
        "{lines:?}"
    );
    assert!(
        lines.iter().any(|line| line.starts_with("… and ")),
        "{lines:?}"
    );
}

#[test]
fn a_server_that_dies_is_survived_also_if_the_mount_is_made_anew() {
    for options in [&[][..], &["--without-resend"]] {
        let Some(mount) = Mount::with(options) else {
            return;
        };
        let Some(terminal) = Terminal::watching(&mount, "") else {
            return;
        };
        terminal.shows("nothing is held");
        mount.kill_server();
        wait_until("it answers again", || {
            fs::read(mount.path("leases")).is_ok()
        });
        let mut holder = mount.actor(Some("w1"));
        holder.claim("after").unwrap();
        terminal.shows("after  w1 ");
        terminal.signal(libc::SIGINT);
        terminal.signal(libc::SIGTERM);
        assert!(terminal.end().1.contains(LEFT));
    }
}

#[test]
fn a_mount_that_is_gone_for_good_is_said_below_the_screen() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let Some(terminal) = Terminal::watching(&mount, "") else {
        return;
    };
    terminal.shows("nothing is held");
    let dir = mount.dir.display().to_string();
    assert_eq!(mount.stop(), Some(0));
    let (code, seen) = terminal.end();
    assert_eq!(code, 3, "{seen}");
    assert!(
        seen.contains("the mount does not answer; as it was last:"),
        "{seen:?}"
    );
    let said = seen.rsplit(LEFT).next().unwrap();
    assert!(
        said.contains(&format!(
            "claimfs: {dir}: not a claimfs mount; mount one with"
        )),
        "{said:?}"
    );
}

#[test]
fn a_flood_of_events_is_painted_ten_times_a_second_at_most() {
    let Some(mount) = Mount::new() else { return };
    let Some(terminal) = Terminal::watching(&mount, "") else {
        return;
    };
    terminal.shows("nothing is held");
    let frames = || terminal.seen().matches(HOME).count();
    let mut holder = mount.actor(Some("w1"));
    let (before, began) = (frames(), Instant::now());
    let mut claims = 0;
    while began.elapsed() < Duration::from_secs(2) {
        holder.claim("x").unwrap();
        holder.unlink("claims/x").unwrap();
        claims += 1;
    }
    holder.claim("last").unwrap();
    terminal.shows("last ");
    let most = began.elapsed().as_millis() / 100 + 2;
    let frames = frames() - before;
    assert!(
        claims > 100 && frames as u128 <= most,
        "{frames} of {most}, {claims} claims"
    );
    assert!(frames > 2, "{frames}");
}

#[test]
fn a_pipe_has_tables_and_ends_with_its_reader_though_nothing_happens() {
    let Some(mount) = Mount::new() else { return };
    let mut command = Command::new("bash");
    plain(&mut command);
    command
        .args(["-c", "$0 ls --watch | head -n 1; echo ${PIPESTATUS[0]}"])
        .arg(CLAIMFS)
        .env("CLAIMFS_MOUNT", &mount.dir)
        .stdin(Stdio::null());
    let (_, out, err) = text(&command.output().unwrap());
    assert_eq!(out, "nothing is held\n0\n", "{err}");
}
