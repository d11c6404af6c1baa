//! The pages as blocks, and the faults of their form. Nothing is run here.

use std::fs;
use std::path::Path;

/// The widest line of a block, in characters.
const WIDTH: usize = 100;

/// The info strings of programs.
const PROGRAMS: [&str; 8] = ["sh", "bash", "fish", "python", "js", "go", "rust", "c"];

/// The info strings of what is no program.
const TEXTS: [&str; 5] = ["text", "ini", "json", "toml", "yaml"];

pub struct Page {
    pub blocks: Vec<Block>,
    /// Each with its file and line.
    pub faults: Vec<String>,
}

/// A program in a page.
pub struct Block {
    /// The name of its file.
    pub page: String,
    /// The line of its fence.
    pub line: usize,
    pub language: String,
    pub code: String,
    /// Why it is not run.
    pub reason: Option<String>,
    /// The words of `needs` and `machine`.
    pub needs: Vec<String>,
    /// Whether it runs on a machine of its own.
    pub is_alone: bool,
}

impl Block {
    pub fn place(&self) -> String {
        format!("{}:{}", self.page, self.line)
    }
}

/// Every page of the directory.
pub fn all() -> Vec<Page> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manual");
    let mut names: Vec<String> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|end| end == "md"))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no pages in {}", dir.display());
    let read = |name: &String| page(name, &fs::read_to_string(dir.join(name)).unwrap());
    names.iter().map(read).collect()
}

/// A comment before a block.
#[derive(Clone, Copy, PartialEq)]
enum Word {
    NotRun,
    Needs,
    Machine,
}

/// A comment with a meaning for these tests, and the rest of it.
fn comment(line: &str) -> Option<(Word, &str)> {
    let text = line.trim().strip_prefix("<!--")?.strip_suffix("-->")?;
    let (word, rest) = text.split_once(':').unwrap_or((text, ""));
    let word = match word.trim() {
        "not run" => Word::NotRun,
        "needs" => Word::Needs,
        "machine" => Word::Machine,
        _ => return None,
    };
    Some((word, rest.trim()))
}

pub fn page(name: &str, text: &str) -> Page {
    let lines: Vec<&str> = text.lines().collect();
    let mut page = Page {
        blocks: Vec::new(),
        faults: Vec::new(),
    };
    let mut faults = Vec::new();
    if !begins_well(&lines) {
        faults.push((
            1,
            "a page begins with '# Title', an empty line and a sentence".to_owned(),
        ));
    }
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        if line.trim_start().starts_with("```") {
            let Some(length) = lines[at + 1..].iter().position(|end| end.trim() == "```") else {
                faults.push((at + 1, "a block that does not end".to_owned()));
                break;
            };
            let inside = &lines[at + 1..at + 1 + length];
            let before = at.checked_sub(1).and_then(|before| comment(lines[before]));
            match block(name, at + 1, line, inside, before) {
                Ok(block) => page.blocks.extend(block),
                Err(fault) => faults.push(fault),
            }
            let wide = inside.iter().position(|line| line.chars().count() > WIDTH);
            faults.extend(wide.map(|line| (at + line + 2, format!("wider than {WIDTH} columns"))));
            at += length + 1;
        } else if comment(line).is_some() {
            let next = lines.get(at + 1).copied().unwrap_or_default();
            if !next.trim_start().starts_with("```") {
                faults.push((at + 1, "a comment that no block follows".to_owned()));
            }
        } else if line.starts_with("    ") && at > 0 && lines[at - 1].is_empty() {
            faults.push((at + 1, "an indented block: fence it".to_owned()));
        }
        at += 1;
    }
    page.faults = faults
        .iter()
        .map(|(line, fault)| format!("{name}:{line}: {fault}"))
        .collect();
    page
}

fn begins_well(lines: &[&str]) -> bool {
    let [title, empty, sentence, ..] = lines else {
        return false;
    };
    let is_prose = !sentence.is_empty() && !sentence.starts_with(['#', '|', '-', '<', ' ']);
    title.starts_with("# ") && empty.is_empty() && is_prose && !sentence.starts_with("```")
}

/// The block that begins with a fence in this line, none if it is no program, or its fault.
fn block(
    page: &str,
    line: usize,
    fence: &str,
    inside: &[&str],
    before: Option<(Word, &str)>,
) -> Result<Option<Block>, (usize, String)> {
    let indentation = fence.len() - fence.trim_start().len();
    let language = fence.trim().trim_start_matches('`');
    if language.is_empty() {
        return Err((line, "a block without an info string".to_owned()));
    }
    match before {
        Some((Word::NotRun, "")) => {
            return Err((line - 1, "not run, without a reason".to_owned()));
        }
        Some((Word::Needs, "")) => return Err((line - 1, "a need without a word".to_owned())),
        _ => {}
    }
    if TEXTS.contains(&language) {
        return Ok(None);
    }
    if !PROGRAMS.contains(&language) {
        return Err((line, format!("an unknown info string: {language}")));
    }
    let code = inside.iter().map(|line| {
        let spaces = line.len() - line.trim_start().len();
        format!("{}\n", &line[spaces.min(indentation)..])
    });
    let reason = before.filter(|(word, _)| *word == Word::NotRun);
    let needs = before.filter(|(word, _)| *word != Word::NotRun);
    let words = needs.map_or("", |(_, rest)| rest).split_whitespace();
    Ok(Some(Block {
        page: page.to_owned(),
        line,
        language: language.to_owned(),
        code: code.collect(),
        reason: reason.map(|(_, reason)| reason.to_owned()),
        needs: words.map(str::to_owned).collect(),
        is_alone: before.is_some_and(|(word, _)| word == Word::Machine),
    }))
}
