//! Standard output: a sentence or one JSON object, and what follows if it cannot be written.
//!
//! Promises: an answer that could not be written in full is exit code 3 and a sentence that says
//! what was done all the same. Only a listing may lose its reader (EPIPE): it ends then.

use std::io::{self, Write};

use serde_json::Value;

use super::Failure;
use crate::render;

/// Prints text of a listing. False if its reader has gone (EPIPE): there is nothing left to do.
pub(super) fn list(text: &str) -> Result<bool, Failure> {
    written(write(text))
}

/// Whether a listing that was written still has its reader.
pub(super) fn written(result: io::Result<()>) -> Result<bool, Failure> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(unwritten("", &error)),
    }
}

/// Prints one line of a listing: false if its reader has gone.
pub(super) fn list_line(text: &str) -> Result<bool, Failure> {
    list(&format!("{text}\n"))
}

/// Prints one object of a listing, in one line: false if its reader has gone.
pub(super) fn list_json(value: &Value) -> Result<bool, Failure> {
    list(&render::line(value))
}

/// Prints what a verb has done: a sentence or, as JSON, this object. The sentence is a part of the
/// error if it cannot be written.
pub(super) fn done(as_json: bool, sentence: &str, value: &Value) -> Result<(), Failure> {
    let text = if as_json {
        render::line(value)
    } else {
        format!("{sentence}\n")
    };
    write(&text).map_err(|error| unwritten(sentence, &error))
}

/// As [`done`], for a verb that prints nothing unless JSON is wanted.
pub(super) fn done_quietly(as_json: bool, sentence: &str, value: &Value) -> Result<(), Failure> {
    if as_json {
        done(true, sentence, value)
    } else {
        Ok(())
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// The message for output that could not be written, after what was done.
pub(super) fn unwritten(done: &str, error: &io::Error) -> Failure {
    let way_out = "make room, or send it elsewhere";
    Failure::unavailable(if done.is_empty() {
        format!("standard output cannot be written: {error}; {way_out}")
    } else {
        format!("{done}; but standard output cannot be written: {error}; {way_out}")
    })
}
