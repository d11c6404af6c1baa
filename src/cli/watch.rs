//! `claimfs ls --watch`: who holds what and who waits, and what happened last, on one screen.
//!
//! Reads the mount when `events` says something. Some changes are no events (a renewed deadline, a
//! reason, a waiter that goes), so it also reads once a second while anything is held.

mod frame;
mod happened;
mod screen;
mod sections;
mod tree;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};

use self::frame::Snapshot;
use self::happened::Happened;
use self::screen::Screen;
use super::tool::Mount;
use super::{Exit, Failure, columns, ls, output};
use crate::sys::poll::{is_readable, wait_any_readable, wait_readable};
use crate::sys::terminal;

/// The time from one look at the mount to the next is at least this long.
const PAUSE: Duration = Duration::from_millis(100);

/// And this many times as long as the look itself took: large mounts are looked at less often.
const PAUSES: u32 = 4;

/// How often the ages of leases are shown again.
const TICK: Duration = Duration::from_secs(1);

/// How long a mount may be gone until this ends. Before Linux 6.9 the mount is made again if
/// a server dies.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often a mount that is gone is looked for.
const AGAIN: Duration = Duration::from_millis(200);

/// At most this many bytes of events are read at once.
const CHUNK: usize = 1 << 16;

/// At most this many chunks before the next look: the others are there then.
const CHUNKS: usize = 64;

/// Shows the leases after each change: on a terminal in place, else one table after the other.
pub(super) fn run(mount: &Mount, on_terminal: bool) -> Result<Exit, Failure> {
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if on_terminal && !is_dumb {
        on_screen(mount)
    } else {
        as_text(mount)
    }
}

/// One table after the other, each as it is where there is no terminal.
fn as_text(mount: &Mount) -> Result<Exit, Failure> {
    let failed = |error: io::Error| mount.failed(&["events"], &error);
    let mut events = File::open(mount.path(&["events"])).map_err(failed)?;
    let mut buffer = vec![0; CHUNK];
    let mut before = None;
    loop {
        let records = mount.leases()?;
        if before.as_ref() != Some(&records) {
            let rows = ls::rows(mount, &records)?;
            if !output::list(&table(&rows))? {
                return Ok(Exit::Done);
            }
            before = Some(records);
        }
        if !wait_for_reader(&events).map_err(failed)? {
            return Ok(Exit::Done);
        }
        read_some(&mut events, &mut buffer).map_err(failed)?;
    }
}

/// Waits for an event. False if standard output is a pipe whose reader has gone.
fn wait_for_reader(events: &File) -> io::Result<bool> {
    let stdout = io::stdout();
    if !terminal::is_pipe() {
        return wait_readable(events, None);
    }
    let ready = wait_any_readable(&[events.as_fd(), stdout.as_fd()], None)?;
    Ok(!ready.contains(&1))
}

/// The table where there is no terminal, and an empty line.
fn table(rows: &[Vec<String>]) -> String {
    let mut lines = columns::aligned(&ls::HEADING, rows);
    if rows.is_empty() {
        lines = vec![ls::NOTHING.to_owned()];
    }
    lines.extend([String::new(), String::new()]);
    lines.join("\n")
}

/// Reads what there is. Nothing if a signal came in between.
fn read_some(events: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    match events.read(buffer) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        read => read,
    }
}

/// In place, until a signal ends this or the mount is gone for good.
fn on_screen(mount: &Mount) -> Result<Exit, Failure> {
    let mut source = Source::open(mount)?;
    let taken = Screen::take();
    let mut screen = taken.map_err(|error| output::unwritten("", &error))?;
    let mut snapshot = source.look()?;
    let mut gone: Option<Instant> = None;
    loop {
        let size = Screen::size();
        if gone.is_none() {
            source.name_holders(&mut snapshot, size.1);
        }
        let mut lines = frame::lines(&snapshot, size, SystemTime::now());
        if screen.reads_keys() {
            frame::add_hint(&mut lines, size.0);
        }
        if !screen.paint(&lines)? {
            return Ok(Exit::Done);
        }
        if !source.wait(&mut screen, !snapshot.records.is_empty(), gone.is_some())? {
            // Only its size has changed.
            continue;
        }
        let looked = source.look_again(gone.is_some());
        match looked {
            Ok(seen) => (snapshot, gone) = (seen, None),
            Err(failure) => {
                let since = *gone.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    return Err(ended(mount).unwrap_or(failure));
                }
                snapshot.fault = Some(String::from("the mount does not answer; as it was last:"));
            }
        }
    }
}

/// Why a mount cannot be used any more, and the way out.
fn ended(mount: &Mount) -> Option<Failure> {
    Mount::find(Some(&mount.path(&[]))).err()
}

/// A mount that is watched.
struct Source<'a> {
    mount: &'a Mount,
    events: File,
    happened: Happened,
    /// How long the last look took.
    took: Duration,
}

impl<'a> Source<'a> {
    fn open(mount: &'a Mount) -> Result<Self, Failure> {
        let failed = |error: io::Error| mount.failed(&["events"], &error);
        // Opened before the history is read, so that no event is missed.
        let events = File::open(mount.path(&["events"])).map_err(failed)?;
        // Older servers have none.
        let history = mount.read(&["history"]).unwrap_or_default();
        Ok(Self {
            mount,
            events,
            happened: Happened::since(&history),
            took: Duration::ZERO,
        })
    }

    /// The present state.
    fn look(&mut self) -> Result<Snapshot, Failure> {
        let began = Instant::now();
        let records = self.mount.leases()?;
        let is_waited_for = records.iter().any(|record| record["waiters"].is_u64());
        let waiters = if is_waited_for {
            self.mount.waiters()?
        } else {
            Vec::new()
        };
        self.took = began.elapsed();
        Ok(Snapshot {
            mount: self.mount.path(&[]).display().to_string(),
            records,
            waiters,
            events: self.happened.newest(),
            fault: None,
        })
    }

    /// The present state, after the new events. A mount that was gone is opened again.
    fn look_again(&mut self, was_gone: bool) -> Result<Snapshot, Failure> {
        if was_gone {
            *self = Self::open(self.mount)?;
        }
        let began = Instant::now();
        let read = self.read_events();
        read.map_err(|error| self.mount.failed(&["events"], &error))?;
        let seen = self.look()?;
        self.took = began.elapsed();
        Ok(seen)
    }

    /// Adds the holders of leases that a screen of so many lines may show.
    fn name_holders(&mut self, snapshot: &mut Snapshot, height: usize) {
        let began = Instant::now();
        let shown = frame::shown(snapshot, height);
        ls::name_holders(self.mount, &mut snapshot.records, &shown);
        self.took += began.elapsed();
    }

    fn read_events(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        for _ in 0..CHUNKS {
            if !is_readable(&self.events) {
                break;
            }
            let read = read_some(&mut self.events, &mut buffer)?;
            self.happened.read(buffer.get(..read).unwrap_or_default());
        }
        Ok(())
    }

    /// Waits until the mount is worth a look; false if the screen is to be painted again before.
    fn wait(&self, screen: &mut Screen, ticks: bool, is_gone: bool) -> Result<bool, Failure> {
        let failed = |error: io::Error| self.mount.failed(&["events"], &error);
        let pause = if is_gone { AGAIN } else { PAUSE };
        let pause = pause.max(self.took * PAUSES);
        wait_readable(screen, Some(pause)).map_err(failed)?;
        if screen.has_changed() {
            return Ok(false);
        }
        if is_gone {
            return Ok(true);
        }
        let tick = ticks.then(|| TICK.saturating_sub(pause));
        wait_any_readable(&[self.events.as_fd(), screen.as_fd()], tick).map_err(failed)?;
        Ok(!screen.has_changed())
    }
}
