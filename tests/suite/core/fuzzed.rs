//! The bodies of the fuzz targets (`tests/fuzz`), run over the corpus of each and over inputs that
//! once failed.
//!
//! No input panics, and each accepted input has the properties that its body asserts.

mod attributes;
mod body;
mod control;
mod journal;
mod names;
mod texts;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

/// Runs a body over every file of its corpus.
fn over_the_corpus(target: &str, run: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let Ok(files) = fs::read_dir(dir.join(target)) else {
        crate::support::skip("the corpus is not part of the package");
        return;
    };
    let mut count = 0;
    for file in files {
        let path = file.unwrap().path();
        let data = fs::read(&path).unwrap();
        assert!(
            catch_unwind(|| run(&data)).is_ok(),
            "{}: see above",
            path.display()
        );
        count += 1;
    }
    assert!(count > 0, "{target}: no corpus");
}

#[test]
fn journals() {
    over_the_corpus("journal", journal::run);
}

#[test]
fn bodies() {
    over_the_corpus("body", body::run);
}

#[test]
fn control_lines() {
    over_the_corpus("control", control::run);
}

#[test]
fn names() {
    over_the_corpus("names", names::run);
}

#[test]
fn attributes() {
    over_the_corpus("attributes", attributes::run);
}

#[test]
fn texts_of_proc() {
    over_the_corpus("texts", texts::run);
}

// Regressions.

#[test]
fn a_pid_was_cut_in_half() {
    body::run(b"\t\t\t\t\t\t\t\t\t\t\t\t\t9\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t925\x7f9\x0c5");
}

#[test]
fn a_record_had_control_characters() {
    for name in ["\u{7f}", "\u{9b}31m", "\u{202e}", "\u{61c}"] {
        names::run(name.as_bytes());
    }
}

#[test]
fn a_session_was_not_there_that_held_a_name() {
    journal::run(
        b"\x82\x02\x4c\x7e\x16\xfc\xbf\x36\xbe\xed\x13\x00\xb0\x8f\x00\x00\x11\x68\x7f\x03\xf8\x6d\x08\x02\x31\xe4\x13\x00\x82\x13\x05\x02\x2a\x0e\x11\x01\xea\xf9\x02\x03\xcb\x3d",
    );
}
