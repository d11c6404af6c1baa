//! The options of the verbs that may wait for a name: `--wait[=TIME]`, and those of flock(1).
//!
//! After `--wait` a word may be the time, or the name: [`joined`] decides it before the arguments
//! are parsed.

use std::collections::HashSet;
use std::ffi::OsString;

use super::Failure;
use super::queue::Patience;
use crate::core::printable;

#[derive(Debug, clap::Args)]
pub(super) struct Waiting {
    /// Wait if another holds it, for no longer than TIME [such as 30s; 0 is not at all]
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    #[arg(conflicts_with_all = ["nonblock", "timeout"])]
    wait: Option<String>,
    /// Do not wait, which is the default [as of flock(1)]
    #[arg(short, long, alias = "nb", conflicts_with = "timeout")]
    nonblock: bool,
    /// Wait, for no longer than this [as of flock(1); such as 0.5]
    #[arg(short = 'w', long, value_name = "SECONDS")]
    timeout: Option<String>,
}

impl Waiting {
    /// How long to wait.
    pub(super) fn patience(&self) -> Result<Patience, Failure> {
        match (&self.wait, &self.timeout) {
            (Some(time), _) if time.is_empty() => Ok(Patience::Endless),
            (Some(time), _) | (None, Some(time)) => Patience::limit(time),
            (None, None) => Ok(Patience::None),
        }
    }

    /// The argument that means the same.
    pub(super) fn argument(&self) -> Option<String> {
        match (&self.wait, &self.timeout) {
            (Some(time), _) if time.is_empty() => Some(String::from("--wait")),
            (Some(time), _) | (None, Some(time)) => Some(format!("--wait={time}")),
            (None, None) => None,
        }
    }
}

/// A word behind `--wait`: as an argument of this command line.
struct Candidate {
    /// Where it is.
    at: usize,
    /// Whether a word before it is a name, or a list is given.
    has_name: bool,
}

/// The command line with each `--wait TIME` as `--wait=TIME`.
///
/// A word that is a time is the limit if there is a name besides: a word before it, one after it
/// and before `--`, or a list. Else it is the name. Without `--`, the command of `run` could begin
/// at either word, so that is an error.
pub(super) fn joined(words: Vec<OsString>, root: &clap::Command) -> Result<Vec<OsString>, Failure> {
    let at = verb_at(&words, root);
    let verb = words.get(at).and_then(|word| word.to_str());
    let Some(verb @ ("run" | "claim" | "reserve")) = verb else {
        return Ok(words);
    };
    let command = root.find_subcommand(verb);
    let valued = command.map(self::valued).unwrap_or_default();
    let end = words.iter().skip(at).position(|word| word == "--");
    let end = end.map(|end| at + end);
    let range = (at + 1, end.unwrap_or(words.len()));
    let Some(candidate) = candidate(&words, range, verb == "run", &valued) else {
        return Ok(words);
    };
    let rest = &words[candidate.at + 1..end.unwrap_or(words.len())];
    // The words of `claim` and `reserve` behind `--` are names, too.
    let more = end.filter(|_| verb != "run").unwrap_or(words.len()) + 1;
    let has_name = candidate.has_name || has_name(rest, &valued) || more < words.len();
    if end.is_none() && verb == "run" && (has_name || candidate.at + 1 < words.len()) {
        let time = printable(&words[candidate.at].to_string_lossy());
        return Err(Failure::usage(format!(
            "'{time}': the time to wait, or the name? Put '--' before the command: 'claimfs run --wait {time} NAME -- \
             COMMAND', or 'claimfs run --wait {time} -- COMMAND' for the name {time}"
        )));
    }
    let mut words = words;
    if has_name {
        let time = words.remove(candidate.at);
        words[candidate.at - 1].push("=");
        words[candidate.at - 1].push(time);
    }
    Ok(words)
}

/// The verb of a command line.
pub(super) fn verb<'a>(words: &'a [OsString], root: &clap::Command) -> Option<&'a OsString> {
    words.get(verb_at(words, root))
}

/// The place of the verb: options of the command itself may come before it.
fn verb_at(words: &[OsString], root: &clap::Command) -> usize {
    let valued = valued(root);
    let mut at = 1;
    while let Some(option) = words.get(at).filter(|word| is_option(word)) {
        at += 1 + usize::from(takes_next(option, &valued));
    }
    at
}

/// The first word behind `--wait` that is a time, before the words of a command.
fn candidate(
    words: &[OsString],
    (from, to): (usize, usize),
    has_command: bool,
    valued: &HashSet<OsString>,
) -> Option<Candidate> {
    let mut has_name = false;
    let mut at = from;
    while at < to {
        let word = &words[at];
        if word == "--wait" && words[..to].get(at + 1).is_some_and(is_time) {
            let at = at + 1;
            return Some(Candidate { at, has_name });
        }
        // The command begins here, and the words from here on are its own.
        if has_command && has_name && !is_option(word) {
            return None;
        }
        has_name |= !is_option(word) || is_list(word);
        at += 1 + usize::from(takes_next(word, valued));
    }
    None
}

/// Whether one of these words is a name, or gives a list.
fn has_name(words: &[OsString], valued: &HashSet<OsString>) -> bool {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        if !is_option(word) || is_list(word) {
            return true;
        }
        at += 1 + usize::from(takes_next(word, valued));
    }
    false
}

/// The options of a command that take the next word as their value.
fn valued(command: &clap::Command) -> HashSet<OsString> {
    let options = command.get_arguments().filter(|argument| {
        argument.get_action().takes_values() && !argument.is_require_equals_set()
    });
    let mut valued = HashSet::new();
    for option in options {
        let long = option.get_long_and_visible_aliases().unwrap_or_default();
        valued.extend(long.iter().map(|long| format!("--{long}").into()));
        valued.extend(option.get_short().map(|short| format!("-{short}").into()));
    }
    valued
}

/// Whether the value of an option is the next word. Short options may be joined: `-nE 75`.
fn takes_next(word: &OsString, valued: &HashSet<OsString>) -> bool {
    let text = word.to_string_lossy();
    let Some(letters) = text.strip_prefix('-').filter(|rest| !rest.starts_with('-')) else {
        return valued.contains(word);
    };
    let first = letters.find(|letter| valued.contains(&OsString::from(format!("-{letter}"))));
    first.is_some_and(|at| letters[at..].chars().count() == 1)
}

fn is_option(word: &OsString) -> bool {
    word.len() > 1 && word.as_encoded_bytes().starts_with(b"-")
}

fn is_list(word: &OsString) -> bool {
    let word = word.to_string_lossy();
    ["--any", "--all"].iter().any(|list| {
        let rest = word.strip_prefix(list);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}

fn is_time(word: &OsString) -> bool {
    word.to_str()
        .is_some_and(|text| Patience::limit(text).is_ok())
}
