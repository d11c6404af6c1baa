//! `claimfs help [TOPIC | VERB]`: the manual, page by page, as plain text on standard output.

use super::{Exit, Failure, output};
use crate::manual::{PAGES, Page, plain};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A topic of the manual, or a command [default: list both]
    #[arg(value_name = "TOPIC")]
    words: Vec<String>,
}

impl Arguments {
    pub(super) fn run(&self) -> Result<Exit, Failure> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let text = match words[..] {
            [] => overview(),
            [topic] if Page::of(topic).is_some() => {
                Page::of(topic).map(|page| plain::render(page.text))
            }
            _ => of_verb(&words),
        };
        let text = text.ok_or_else(|| {
            let topics: Vec<&str> = PAGES.iter().map(|page| page.topic).collect();
            Failure::usage(format!(
                "there is no command and no topic {:?}: the topics are {}; 'claimfs --help' lists the commands",
                words.join(" "),
                topics.join(", ")
            ))
        })?;
        output::list(&text)?;
        Ok(Exit::Done)
    }
}

/// The commands and the topics.
fn overview() -> Option<String> {
    let mut text = of_verb(&[])?;
    text.push_str("\nTopics of the manual, for 'claimfs help TOPIC':\n");
    for page in PAGES {
        let first = format!("  {:<16} ", page.topic);
        plain::wrap(&mut text, &first, &" ".repeat(first.len()), &page.summary());
    }
    Some(text)
}

/// The help of a command, of which these are the words: the same as its `--help`.
fn of_verb(words: &[&str]) -> Option<String> {
    let root = super::command();
    let mut found = &root;
    for word in words {
        found = found.find_subcommand(word)?;
    }
    let line = ["claimfs"].into_iter().chain(words.iter().copied());
    let help = super::command().try_get_matches_from(line.chain(["--help"]));
    Some(format!("{}\n", help.err()?.to_string().trim_end()))
}
