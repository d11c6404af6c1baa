//! A reader of `events` for the whole run: every line is whole and in order, and missing lines are
//! announced.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use serde_json::Value;

use crate::shared::Shared;

/// The state of each name and of each session by the lines so far: its token, or key, or that there
/// is none.
#[derive(Default)]
struct Story {
    seq: u64,
    there: HashMap<String, Option<u64>>,
    missed: u64,
    over: bool,
}

/// Reads until the end of the test, blocking or with poll(2).
pub fn serve(file: &Path, polls: bool) {
    let shared = Shared::open(file);
    if let Err(what) = read(shared, polls) {
        let how = if polls { "polls" } else { "blocks" };
        shared.fail(file, format!("the reader of events that {how}: {what}"));
    }
}

fn read(shared: &Shared, polls: bool) -> Result<(), String> {
    let flags = if polls { libc::O_NONBLOCK } else { 0 };
    let fd = unsafe { libc::open(c"events".as_ptr(), libc::O_RDONLY | flags) };
    if fd < 0 {
        return Err(format!("open: {}", std::io::Error::last_os_error()));
    }
    shared.reading.fetch_add(1, SeqCst);
    let mut buffer = vec![0_u8; 1 << 17];
    let mut story = Story::default();
    while !story.over {
        let mut poll = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        if polls && unsafe { libc::poll(&raw mut poll, 1, 60_000) } < 1 {
            return Err(String::from("poll: nothing for a minute"));
        }
        let count = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
        if count < 0 {
            let error = std::io::Error::last_os_error();
            // Blocking reads are interrupted once a second, and who polls may find that there is
            // nothing after all.
            let expected = if polls { libc::EAGAIN } else { libc::EINTR };
            if error.raw_os_error() == Some(expected) {
                continue;
            }
            return Err(format!("read: {error}"));
        }
        let text = std::str::from_utf8(&buffer[..count as usize]).unwrap();
        if !text.ends_with('\n') {
            return Err(format!("a torn line: {text:?}"));
        }
        for line in text.lines() {
            story
                .hear(line, |token| shared.told[usize::from(polls)].insert(token))
                .map_err(|why| format!("{why}: {line}"))?;
        }
        shared.missed[usize::from(polls)].store(story.missed, SeqCst);
    }
    Ok(())
}

impl Story {
    fn hear(&mut self, line: &str, told: impl Fn(u64)) -> Result<(), String> {
        let event: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if let Some(missed) = event["missed"].as_u64() {
            self.missed += missed;
            self.there.clear();
            return Ok(());
        }
        let seq = event["seq"].as_u64().ok_or("no seq")?;
        if seq <= self.seq {
            return Err(format!("seq does not rise after {}", self.seq));
        }
        self.seq = seq;
        let text = |key: &str| event[key].as_str().ok_or(format!("no {key}"));
        let word = text("event")?;
        let (thing, number) = if word.starts_with("session_") {
            (format!("session {}", text("session")?), &event["key"])
        } else {
            (format!("claims/{}", text("claim")?), &event["token"])
        };
        let number = number.as_u64();
        let before = self.there.get(&thing).copied();
        // Of what nothing was said yet there is nothing, unless lines were missed.
        let before = before.or((self.missed == 0).then_some(None));
        let after = match word {
            "queued" | "left_queue" => return Ok(()),
            "granted" => {
                let is_own = before.is_none_or(|there| there == number);
                return is_own.then_some(()).ok_or(format!("after {before:?}"));
            }
            "claimed" | "session_started" if before.is_none_or(|there| there.is_none()) => number,
            "released" | "reaped" | "expired" | "broken" | "session_ended"
                if before.is_none_or(|there| there == number) =>
            {
                None
            }
            _ => return Err(format!("something was not told before, after {before:?}")),
        };
        if word == "claimed" {
            told(number.ok_or("no token")?);
            self.over = thing == "claims/the-end";
        }
        self.there.insert(thing, after);
        Ok(())
    }
}
