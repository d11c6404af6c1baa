//! The names that `claim` and `run` take: one, one of several, or several at once.

use std::collections::HashSet;

use super::Failure;
use super::tool;
use crate::core::{Name, printable};

/// The largest number of names in a list.
const NAMES_MAX: usize = 256;

#[derive(Debug, clap::Args)]
pub(super) struct Lists {
    /// Take one of these names, the first that is free: a name or a range such as build@1..4
    /// [may be given again; at most 256 names]
    #[arg(long, value_name = "LIST", conflicts_with = "all")]
    any: Vec<String>,
    /// Take all of these names or none; with --wait one after another, sorted
    #[arg(long, value_name = "LIST")]
    all: Vec<String>,
}

/// The names to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// One of them, the first that is free.
    Any(Vec<Name>),
    /// All of them, sorted.
    All(Vec<Name>),
}

impl Lists {
    /// Whether one was given.
    pub(super) fn is_given(&self) -> bool {
        !self.any.is_empty() || !self.all.is_empty()
    }

    /// The arguments that give these lists.
    pub(super) fn arguments(&self) -> Vec<String> {
        let any = self.any.iter().map(|list| format!("--any={list}"));
        let all = self.all.iter().map(|list| format!("--all={list}"));
        any.chain(all).collect()
    }

    /// The names to take: this one, or those of the lists.
    pub(super) fn wanted(&self, name: Option<&str>) -> Result<Wanted, Failure> {
        match name {
            Some(name) => Ok(Wanted::Any(vec![tool::single_name(name)?])),
            None if self.all.is_empty() => Ok(Wanted::Any(names(&self.any)?)),
            None => {
                let mut names = names(&self.all)?;
                names.sort_unstable();
                Ok(Wanted::All(names))
            }
        }
    }
}

impl Wanted {
    /// The names.
    pub(super) fn names(&self) -> &[Name] {
        match self {
            Self::Any(names) | Self::All(names) => names,
        }
    }
}

/// The names of these lists in their order, each once.
fn names(lists: &[String]) -> Result<Vec<Name>, Failure> {
    let (mut names, mut known) = (Vec::new(), HashSet::new());
    for list in lists {
        for text in expanded(list)? {
            let name = tool::claim_name(&text)?;
            if known.insert(name.clone()) {
                names.push(name);
            }
        }
    }
    if names.len() > NAMES_MAX {
        return Err(too_many());
    }
    Ok(names)
}

fn too_many() -> Failure {
    Failure::usage(format!(
        "too many names: a list has at most {NAMES_MAX} of them"
    ))
}

/// The names of a list: those of the range `NAME@A..B`, else the text itself.
fn expanded(list: &str) -> Result<Vec<String>, Failure> {
    let Some((stem, from, to)) = range(list) else {
        return match near_range(list) {
            Some(meant) => Err(Failure::usage(format!(
                "'{0}': no range; write it as '{1}', or as 'claims/{0}' if that is the name of one claim",
                printable(list),
                printable(&meant)
            ))),
            None => Ok(vec![list.to_owned()]),
        };
    };
    let bounds = number(from).zip(number(to));
    let Some((from, to)) = bounds.filter(|(from, to)| from <= to) else {
        return Err(Failure::usage(format!(
            "'{}': no range; write it like build@1..4, from the smaller number to the larger, without \
             leading zeros",
            printable(list)
        )));
    };
    if to - from >= NAMES_MAX as u64 {
        return Err(too_many());
    }
    let names = (from..=to).map(|number| format!("{stem}@{number}"));
    Ok(names.collect())
}

/// Whether a text has the form of a range, sound or not. `claims/` before it says that it has none.
pub(super) fn is_range(text: &str) -> bool {
    !text.starts_with("claims/") && range(text).is_some()
}

/// The parts of `NAME@A..B`, which may be no numbers.
fn range(text: &str) -> Option<(&str, &str, &str)> {
    let (stem, numbers) = text.rsplit_once('@')?;
    let (from, to) = numbers.split_once("..")?;
    let mut characters = numbers.chars();
    let is_range = characters.all(|c| c.is_ascii_digit() || c == '.');
    is_range.then_some((stem, from, to))
}

/// The range that was meant by two numbers with another sign between them, such as `build@1-4`.
fn near_range(text: &str) -> Option<String> {
    if text.starts_with("claims/") {
        return None;
    }
    let (stem, numbers) = text.rsplit_once('@')?;
    let is_digit = |c: char| c.is_ascii_digit();
    let (from, rest) = numbers.split_at(numbers.find(|c| !is_digit(c))?);
    let sign = rest.trim_end_matches(is_digit);
    let to = rest.strip_prefix(sign)?;
    let is_meant = ["-", "--", "\u{2013}", "\u{2026}", ":", ",", "~"].contains(&sign);
    (is_meant && !from.is_empty() && !to.is_empty()).then(|| format!("{stem}@{from}..{to}"))
}

/// A number without leading zeros.
fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}
