//! Checks whether a history is one of leases. It knows nothing of the mount but what the clients
//! wrote down, and nothing of its code but the promises of the manual.
//!
//! `holds.rs` derives from the answers who holds a name and when. It knows two intervals of each
//! lease: in one it is certainly held, in the other it may be. A rule is broken only if no order of
//! events within these intervals satisfies it.

mod cases;
mod holds;
mod line;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use libc::{EBUSY, EEXIST, EIO, EISDIR, ENOENT, ENOSPC, ENOTDIR, ENOTEMPTY, EPERM};

use self::holds::{Hold, Holds};
use super::history::{Answer, Call, History, Operation, place};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Two holders of a name at a time.
    OneHolder,
    /// Of two grants, the later has the higher token, and none has that of another.
    TokensRise,
    /// A name that nobody can hold is not refused.
    FreeIsClaimable,
    /// Waiters are served in the order in which they took their places, and nobody comes between.
    FirstComeFirstServed,
    /// Nothing is shown as held by who cannot hold it.
    NothingStale,
    /// A claim is shown as held, and its holder can use it and release it.
    HeldIsHeld,
    /// No other error than those that are promised; of a full disk only when it is full.
    Errors,
}

/// A violation, with a name and an interval.
#[derive(Debug)]
pub struct Finding {
    pub rule: Rule,
    pub name: Option<String>,
    pub at: (u64, u64),
    pub what: String,
}

/// Checks a history, all of whose tokens must be higher than one: what is wrong with it, and the
/// highest token.
pub fn check(history: &History, newest: u64) -> (Vec<Finding>, u64) {
    let mut findings = Vec::new();
    let mut holds = Holds::of(history, &mut findings);
    listings(history, &mut holds, &mut findings);
    one_holder(&holds.all, &mut findings);
    refusals(history, &holds.all, &mut findings);
    line::first_come_first_served(history, &holds, &mut findings);
    let newest = tokens(&holds.all, newest, &mut findings);
    findings.sort_by_key(|finding| finding.at);
    (findings, newest)
}

/// The holds of each name; those of reservations that overlap are together.
fn by_name(holds: &[Hold]) -> BTreeMap<&str, Vec<&Hold>> {
    let mut names: BTreeMap<&str, Vec<&Hold>> = BTreeMap::new();
    for hold in holds {
        names.entry(place(&hold.name)).or_default().push(hold);
    }
    names
}

fn one_holder(holds: &[Hold], findings: &mut Vec<Finding>) {
    for (name, mut holds) in by_name(holds) {
        holds.retain(|hold| hold.certain.0 < hold.certain.1);
        holds.sort_by_key(|hold| hold.certain);
        let mut longest: Option<&Hold> = None;
        for hold in holds {
            if let Some(other) = longest.filter(|other| hold.certain.0 < other.certain.1) {
                findings.push(Finding {
                    rule: Rule::OneHolder,
                    name: Some(name.to_owned()),
                    at: (hold.certain.0, hold.certain.1.min(other.certain.1)),
                    what: format!("{name} has two holders: {other} and {hold}"),
                });
            }
            longest = longest
                .into_iter()
                .chain([hold])
                .max_by_key(|hold| hold.certain.1);
        }
    }
}

fn tokens(holds: &[Hold], before: u64, findings: &mut Vec<Finding>) -> u64 {
    let known = holds.iter().filter_map(|hold| Some((hold.token?, hold)));
    let mut known: Vec<(u64, &Hold)> = known.collect();
    let mut report = |hold: &Hold, what: String| {
        findings.push(Finding {
            rule: Rule::TokensRise,
            name: Some(hold.name.clone()),
            at: hold.granted,
            what,
        });
    };
    let mut seen: HashMap<u64, &Hold> = HashMap::new();
    for (token, hold) in &known {
        if let Some(other) = seen.insert(*token, hold) {
            report(hold, format!("{hold} has the token of {other}"));
        }
        if *token <= before {
            report(
                hold,
                format!("{hold}, but {before} was granted long before"),
            );
        }
    }
    // The highest token of what was granted before a moment, for each moment.
    known.sort_by_key(|(_, hold)| hold.granted.0);
    let mut ended = known.clone();
    ended.sort_by_key(|(_, hold)| hold.granted.1);
    let (mut ended, mut highest) = (ended.iter().peekable(), None::<(u64, &Hold)>);
    for (token, hold) in &known {
        while let Some(next) = ended.next_if(|(_, other)| other.granted.1 < hold.granted.0) {
            if highest.is_none_or(|(token, _)| next.0 > token) {
                highest = Some(*next);
            }
        }
        if let Some((_, other)) = highest.filter(|(other, _)| other > token) {
            report(hold, format!("{hold} was granted after {other}"));
        }
    }
    known.iter().map(|known| known.0).max().unwrap_or(before)
}

/// What `leases` shows is held by who may hold it, all that is certainly held is shown, and tokens
/// stay what they are.
fn listings(history: &History, holds: &mut Holds, findings: &mut Vec<Finding>) {
    let mut by_lease: HashMap<(String, String), Vec<usize>> = HashMap::new();
    for (index, hold) in holds.all.iter().enumerate() {
        let session = history.lives[&hold.process].session.clone();
        let key = (hold.name.clone(), session);
        by_lease.entry(key).or_default().push(index);
    }
    for operation in &history.operations {
        let Some((told, Answer::Listed(listed))) = &operation.told else {
            continue;
        };
        let (asked, told) = (operation.asked, *told);
        let mut report = |rule, name: &str, what| {
            findings.push(Finding {
                rule,
                name: Some(name.to_owned()),
                at: (asked, told),
                what,
            });
        };
        for lease in listed {
            let key = (lease.name.clone(), lease.session.clone());
            let candidates = by_lease.get(&key).map_or(&[][..], Vec::as_slice);
            let possible = candidates.iter().copied().filter(|index| {
                let hold = &holds.all[*index];
                hold.possible.0 <= told && asked <= hold.possible.1
            });
            let possible: Vec<usize> = possible.collect();
            match possible[..] {
                [] => report(
                    Rule::NothingStale,
                    &lease.name,
                    format!("{lease:?} is shown, but cannot be held any more, or yet"),
                ),
                [index] => {
                    let hold = &mut holds.all[index];
                    if *hold.token.get_or_insert(lease.token) != lease.token {
                        let what = format!("{lease:?} is shown, but this is {hold}");
                        report(Rule::TokensRise, &lease.name, what);
                    }
                }
                _ => {}
            }
        }
        let kept = holds
            .all
            .iter()
            .filter(|hold| hold.certain.0 < asked && told < hold.certain.1);
        for hold in kept {
            let session = &history.lives[&hold.process].session;
            let is_listed = |name: &str| {
                let mut same = listed.iter().filter(|lease| lease.name == name);
                same.any(|lease| lease.session == *session)
            };
            if !is_listed(&hold.name) {
                let what = format!("{hold} is not among {listed:?}");
                report(Rule::HeldIsHeld, &hold.name, what);
            }
        }
    }
}

/// Each refusal has its reason.
fn refusals(history: &History, holds: &[Hold], findings: &mut Vec<Finding>) {
    // For each name, who may hold it from when on, and until when any of those so far may.
    let mut spans: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for (name, holds) in by_name(holds) {
        let mut all: Vec<(u64, u64)> = holds.iter().map(|hold| hold.possible).collect();
        all.sort_unstable();
        let mut latest = 0;
        for span in &mut all {
            latest = latest.max(span.1);
            span.1 = latest;
        }
        spans.insert(name, all);
    }
    let is_held = |name: &str, from: u64, to: u64| {
        let all = spans.get(place(name)).map_or(&[][..], Vec::as_slice);
        let begun = all.partition_point(|span| span.0 <= to);
        begun > 0 && all[begun - 1].1 >= from
    };
    for operation in &history.operations {
        let Some((told, Answer::Refused(errno))) = operation.told else {
            continue;
        };
        let (asked, call) = (operation.asked, &operation.call);
        let (wanted, held_by_another): (Option<&str>, &[i32]) = match call {
            // The directory has gone, or what is now a reservation was none when it was made.
            Call::Create(name) if name.starts_with("paths/") && errno == ENOENT => continue,
            Call::Create(name) if name.starts_with("paths/") => (Some(name), &[EEXIST, ENOTDIR]),
            Call::Reserve(name) => (Some(name), &[EBUSY]),
            Call::Create(name) | Call::Mkdir(name) | Call::Link { to: name, .. } => {
                (Some(name), &[EEXIST])
            }
            Call::Rename { to, replaces, .. } => {
                let kinds: &[i32] = &[EBUSY, EISDIR, ENOTDIR, ENOTEMPTY];
                (Some(to), if *replaces { kinds } else { &[EEXIST] })
            }
            // A claim that is not certainly held may be gone; `holds.rs` checks the others.
            Call::Unlink(_) | Call::Rmdir(_) | Call::Token(_) | Call::Limit { .. } => {
                (None, &[ENOENT, EBUSY])
            }
            // The receiver has died, or was never heard of.
            Call::Give { .. } => (None, &[ENOENT, EPERM]),
            _ => (None, &[]),
        };
        let grants = !matches!(
            call,
            Call::Unlink(_) | Call::Rmdir(_) | Call::Leave(_) | Call::Token(_) | Call::Look
        );
        let of_full_disk = [ENOSPC, EIO].contains(&errno) && grants && history.is_full(asked, told);
        let rule = if of_full_disk {
            None
        } else if !held_by_another.contains(&errno) {
            Some(Rule::Errors)
        } else {
            let is_free = wanted.is_some_and(|name| !is_held(name, asked, told));
            is_free.then_some(Rule::FreeIsClaimable)
        };
        if let Some(rule) = rule {
            let error = std::io::Error::from_raw_os_error(errno);
            let name = call.name().map(str::to_owned);
            findings.push(Finding {
                rule,
                at: (asked, told),
                what: format!("process {}: {call:?}: {error}", operation.process),
                name,
            });
        }
    }
}

/// The operations on a name shortly before and after, a line each, and the faults of that time.
pub fn surroundings(history: &History, finding: &Finding) -> String {
    const AROUND: u64 = 50_000_000;
    const LINES: usize = 40;
    let (from, to) = (
        finding.at.0.saturating_sub(AROUND),
        finding.at.1.min(finding.at.0 + 20 * AROUND) + AROUND,
    );
    let about = |of: &&Operation| {
        let name = finding.name.as_deref();
        let told = of.told.as_ref().map_or(u64::MAX, |told| told.0);
        let is_near = of.asked <= to && told >= from;
        let is_itself = of.call == Call::Look && (of.asked, told) == finding.at;
        is_itself || is_near && name.is_none_or(|name| of.call.concerns(name))
    };
    let mut lines: Vec<(u64, String)> = history
        .operations
        .iter()
        .filter(about)
        .map(|of| {
            let session = &history.lives[&of.process].session;
            let told = of.told.as_ref().map_or("never".to_owned(), |(at, answer)| {
                format!("{answer:?} at {} us", at / 1000)
            });
            let line = format!("{} ({session}) {:?}: {told}", of.process, of.call);
            (of.asked, line)
        })
        .collect();
    let faults = history.faults.iter().cloned();
    lines.extend(faults.filter(|(at, _)| (from..to).contains(at)));
    lines.sort();
    // The nearest ones.
    let middle = lines.partition_point(|(at, _)| *at < finding.at.0);
    let first = middle.saturating_sub(LINES / 2);
    let mut text = String::new();
    for (at, line) in lines.iter().skip(first).take(LINES) {
        _ = writeln!(text, "    {} us: {line}", at / 1000);
    }
    text
}
