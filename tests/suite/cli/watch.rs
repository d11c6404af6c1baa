//! `claimfs ls --watch` on a terminal, and in a pipe.

use std::fs;
use std::io::Write;
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
        let command = format!("{CLAIMFS} ls --watch & echo $! > $PID; {then} wait $!");
        Self::running(mount, &command, Stdio::null())
    }

    /// In the foreground of a shell with job control, with keys. `then` goes on once it has stopped
    /// or ended.
    fn with_keys(mount: &Mount, then: &str) -> Option<Self> {
        let command = format!(
            "set -m; sh -c 'echo $$ > $PID; exec {CLAIMFS} ls --watch'; echo \"code $?\"; \
             stty -a; {then}"
        );
        Self::running(mount, &command, Stdio::piped())
    }

    fn running(mount: &Mount, command: &str, stdin: Stdio) -> Option<Self> {
        if Command::new("script").arg("--version").output().is_err() {
            skip("script(1) is not installed");
            return None;
        }
        let (typescript, pid) = (mount.state.join("typescript"), mount.state.join("pid"));
        let command = format!("stty cols 80 rows 24; {command}");
        let mut script = Command::new("script");
        plain(&mut script);
        script
            .args(["-qfec", &command])
            .arg(&typescript)
            .env("CLAIMFS_MOUNT", &mount.dir)
            .env("TERM", "xterm")
            .env("SHELL", "/bin/bash")
            .env("PID", &pid)
            .stdin(stdin)
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

    /// Presses keys.
    fn press(&mut self, keys: &str) {
        let keyboard = self.script.0.stdin.as_mut().unwrap();
        keyboard.write_all(keys.as_bytes()).unwrap();
        keyboard.flush().unwrap();
    }

    /// Waits until the terminal has got a text.
    fn gets(&self, what: &str) {
        wait_until(what, || self.seen().contains(what));
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

/// Whether the terminal was as shells leave it when `stty -a` printed this.
fn is_as_before(stty: &str) -> bool {
    let has = |word: &str| {
        stty.split([' ', ';', '\r', '\n'])
            .any(|other| other == word)
    };
    has("icanon") && has("echo") && has("isig")
}

#[test]
fn q_quits_and_other_keys_are_neither_shown_nor_obeyed() {
    let Some(mount) = Mount::new() else { return };
    let Some(mut terminal) = Terminal::with_keys(&mount, "") else {
        return;
    };
    terminal.shows("nothing is held in ");
    let title = terminal.lines().swap_remove(0);
    assert!(title.ends_with("  q quits"), "{title:?}");
    terminal.press("\u{1b}[Babc\r\r\r\r");
    let mut holder = mount.actor(Some("w1"));
    holder.claim("x").unwrap();
    terminal.shows("x: claimed by session w1");
    let seen = terminal.seen();
    for echo in ["^[[B", "abc", "\u{1b}[J\r\n"] {
        assert!(!seen.contains(echo), "{echo:?} in {seen:?}");
    }
    terminal.press("q");
    terminal.gets("code 0\r\n");
    let (_, seen) = terminal.end();
    let (screen, after) = seen.rsplit_once(LEFT).unwrap();
    assert!(screen.contains(ENTERED) && is_as_before(after), "{after}");
}

#[test]
fn a_stopped_watch_gives_the_terminal_back_and_takes_it_again_in_the_foreground() {
    let Some(mount) = Mount::new() else { return };
    let go = mount.state.join("go");
    let then = format!(
        "until [ -e {} ]; do sleep 0.02; done; echo goes on; fg; echo \"then $?\"; stty -a",
        go.display()
    );
    let Some(mut terminal) = Terminal::with_keys(&mount, &then) else {
        return;
    };
    terminal.shows("nothing is held in ");
    terminal.press("\u{1a}");
    terminal.gets("code 148\r\n");
    terminal.gets(" echoke");
    let seen = terminal.seen();
    let (_, after) = seen.rsplit_once(LEFT).unwrap();
    // Nothing more comes from it, which waits for the foreground.
    assert!(is_as_before(after) && !after.contains('\u{1b}'), "{seen:?}");
    let mut holder = mount.actor(Some("w1"));
    holder.claim("x").unwrap();
    fs::write(&go, "").unwrap();
    terminal.gets("goes on\r\n");
    terminal.shows("x: claimed by session w1");
    let seen = terminal.seen();
    let (_, again) = seen.rsplit_once("goes on").unwrap();
    assert!(
        again.contains(ENTERED) && !again.contains(LEFT),
        "{again:?}"
    );
    terminal.press("\u{1b}[Bq");
    terminal.gets("then 0\r\n");
    let (_, seen) = terminal.end();
    let (_, after) = seen.rsplit_once(LEFT).unwrap();
    assert!(!seen.contains("^[[B") && is_as_before(after), "{seen:?}");
}

#[test]
fn a_signal_that_ends_it_gives_back_the_mode_of_the_terminal() {
    // A shell ends with a job that SIGINT has ended.
    for signal in [libc::SIGTERM, libc::SIGHUP] {
        let Some(mount) = Mount::new() else { return };
        let Some(terminal) = Terminal::with_keys(&mount, "") else {
            return;
        };
        terminal.shows("q quits");
        terminal.signal(signal);
        terminal.gets(" echoke");
        let (_, seen) = terminal.end();
        let (_, after) = seen.rsplit_once(LEFT).unwrap();
        let code = format!("code {}\r\n", 128 + signal);
        assert!(after.contains(&code) && is_as_before(after), "{after:?}");
    }
}

#[test]
fn the_screen_names_the_same_holder_as_the_table() {
    let Some(mount) = Mount::new() else { return };
    let script = "$0 claim x && read line; :";
    let mut session = mount.claimfs(&["session", "run", "--", "sh", "-c", script, CLAIMFS]);
    let _session = Guard::spawn(session.stdin(Stdio::piped()).stdout(Stdio::null()));
    let table = || text(&mount.claimfs(&["ls"]).output().unwrap()).1;
    wait_until("it is held", || table().contains(" sh "));
    let cells = table();
    let mut cells = cells.lines().last().unwrap().split("  ");
    let holder = cells.find(|cell| cell.ends_with(" sh")).unwrap();
    let Some(terminal) = Terminal::watching(&mount, "") else {
        return;
    };
    terminal.shows(&format!("  {holder}  "));
}
