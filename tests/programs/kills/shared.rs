//! The memory that all processes of the test share: a file that each of them maps.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::support::memory::{clock, map};

/// The clients.
pub const SLOTS: usize = 8;
/// The names that all of them want.
pub const WANTED: usize = 6;
/// The names that each of them has for itself.
pub const OWN: usize = 6;
/// Tokens that are told apart. A server that was killed leaves 65,536 of them unused; pages that
/// nobody touches cost nothing.
const TOKENS: usize = 1 << 30;

/// A set of tokens.
#[repr(C)]
pub struct Tokens([AtomicU64; TOKENS / 64]);

impl Tokens {
    pub fn insert(&self, token: u64) {
        self.0[token as usize / 64].fetch_or(1 << (token % 64), SeqCst);
    }

    /// How many up to `last` are missing in another set.
    pub fn missing_in(&self, other: &Self, last: u64) -> u64 {
        let words = self.0.iter().zip(&other.0).take(last as usize / 64 + 1);
        let held = words.map(|(one, other)| (one.load(SeqCst), other));
        let held = held.filter(|(word, _)| *word != 0);
        held.map(|(word, other)| u64::from((word & !other.load(SeqCst)).count_ones()))
            .sum()
    }
}

/// Each number is 0 at first. A client is known by its incarnation, which is never 0.
#[repr(C)]
pub struct Shared {
    /// `CLOCK_MONOTONIC` at the start, in nanoseconds.
    pub start: AtomicU64,
    /// The clients are to give up what they hold, and end.
    pub stop: AtomicU64,
    /// Somebody has failed: the rest does not matter any more.
    pub failed: AtomicU64,
    /// Readers of `events` that have opened it.
    pub reading: AtomicU64,
    /// The newest incarnation of each client.
    pub born: [AtomicU64; SLOTS],
    /// The newest incarnation of each client that was marked before it was killed.
    pub killed: [AtomicU64; SLOTS],
    /// The incarnation that knows that it holds a wanted name, with its client's number in the low
    /// byte.
    pub owner: [AtomicU64; WANTED],
    /// Which incarnations may hold a wanted name, or be granted it any moment, and how often one
    /// came to be among them.
    pub suitors: [[AtomicU64; SLOTS]; WANTED],
    pub suits: [AtomicU64; WANTED],
    /// The highest token of each name, the wanted ones first.
    pub token: [AtomicU64; WANTED + SLOTS * OWN],
    pub operations: AtomicU64,
    pub grants: AtomicU64,
    pub waits: AtomicU64,
    /// How many calls took at least 2^n microseconds and less than twice that, and the longest of
    /// all.
    pub stalls: [AtomicU64; 32],
    pub longest: AtomicU64,
    /// Lines that a reader of `events` was told it had missed.
    pub missed: [AtomicU64; 2],
    pub granted: Tokens,
    pub told: [Tokens; 2],
}

fn failures(file: &Path) -> PathBuf {
    file.with_extension("failures")
}

impl Shared {
    /// Makes the file, or opens it if it is there.
    pub fn open(file: &Path) -> &'static Self {
        // It is nothing but atomics.
        unsafe { map(file) }
    }

    /// Writes down what went wrong, for the test to say.
    pub fn fail(&self, file: &Path, what: impl Display) {
        let line = format!("at {} us: {what}\n", self.now() / 1000);
        let mut options = OpenOptions::new();
        let options = options.create(true).append(true);
        let mut log: File = options.open(failures(file)).unwrap();
        log.write_all(line.as_bytes()).unwrap();
        self.failed.store(1, SeqCst);
    }

    pub fn failures(file: &Path) -> String {
        fs::read_to_string(failures(file)).unwrap_or_default()
    }

    /// Nanoseconds from the start.
    pub fn now(&self) -> u64 {
        clock() - self.start.load(SeqCst)
    }

    /// Whether a name may be held by another than the client of this number, and how often it had a
    /// new suitor.
    pub fn suit(&self, name: usize, slot: usize) -> (bool, u64) {
        let others = self.suitors[name].iter().enumerate();
        let is_wanted = others
            .filter(|(other, _)| *other != slot)
            .any(|(_, suitor)| suitor.load(SeqCst) != 0);
        (is_wanted, self.suits[name].load(SeqCst))
    }

    /// Counts a call that took so many nanoseconds.
    pub fn took(&self, nanos: u64) {
        let micros = (nanos / 1000).max(1);
        self.operations.fetch_add(1, SeqCst);
        self.stalls[(micros.ilog2() as usize).min(31)].fetch_add(1, SeqCst);
        self.longest.fetch_max(micros, SeqCst);
    }

    /// The time in microseconds, up to the next power of two, that so many of a thousand calls
    /// stayed below.
    pub fn stall(&self, of_thousand: u64) -> u64 {
        let counts = self.stalls.each_ref().map(|count| count.load(SeqCst));
        let all: u64 = counts.iter().sum();
        let mut below = 0;
        let bucket = counts.iter().position(|count| {
            below += count;
            below * 1000 >= all * of_thousand
        });
        2 << bucket.unwrap_or(31)
    }
}
