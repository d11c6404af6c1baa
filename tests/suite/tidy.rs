//! The form of the repository's own files: width, length, words, layers.
//!
//! These tests read text. They know Rust only as rustfmt writes it.

use std::fs;
use std::path::{Path, PathBuf};

/// The widest line of a comment or of a document, in characters.
const WIDTH: usize = 100;

/// The longest function, in lines from `fn` to its closing brace.
const LENGTH: usize = 70;

/// A snippet that users paste, one line an item: its lines are counted, not measured.
const SNIPPET: &str = "mount-scripts/AGENTS.md";

/// The folders of `src`, top layer first: each may use those after it.
const LAYERS: [&str; 18] = [
    "main",
    "cli",
    "server",
    "mount",
    "fuse",
    "tree",
    "store",
    "journal",
    "events",
    "handoff",
    "render",
    "inotify",
    "supervisor",
    "process",
    "logging",
    "sys",
    "core",
    "manual",
];

/// The parts of the standard library that `core` may use: data, and nothing that acts.
const PURE: [&str; 17] = [
    "any",
    "array",
    "ascii",
    "borrow",
    "char",
    "cmp",
    "collections",
    "convert",
    "fmt",
    "hash",
    "iter",
    "mem",
    "num",
    "ops",
    "slice",
    "str",
    "string",
];

/// Of two more parts, the items that `core` may use.
const PURE_ITEMS: [(&str, &[&str]); 2] = [
    ("sync", &["Arc", "OnceLock"]),
    ("time", &["Duration", "SystemTime", "UNIX_EPOCH"]),
];

/// The crates that `core` may use. `jiff` reads a time to live; its clock is not used.
const PURE_CRATES: [&str; 3] = ["serde", "serde_json", "jiff"];

/// Calls that read a clock or write somewhere, on types and macros that need no import.
const IMPURE: [&str; 10] = [
    "SystemTime::now",
    "Instant",
    ".elapsed(",
    "Timestamp::now",
    "Zoned::now",
    "print!",
    "println!",
    "eprint!",
    "eprintln!",
    "dbg!",
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository.
struct Text {
    /// Its path in the repository.
    path: String,
    text: String,
}

impl Text {
    fn is_rust(&self) -> bool {
        has_extension(&self.path, "rs")
    }

    /// The manual is Markdown too.
    fn is_markdown(&self) -> bool {
        has_extension(&self.path, "md") || self.path == "src/manual/mount.txt"
    }

    /// The lines that people read: comments, or a document. Code is replaced by empty lines.
    fn prose(&self) -> Vec<String> {
        let mut is_fenced = false;
        let lines = self.text.lines().map(|line| {
            let prose = self.comment(line).unwrap_or_default();
            let is_fence = prose.trim_start().starts_with("```");
            let is_code = is_fenced || is_fence || prose.starts_with("    ") && self.is_markdown();
            is_fenced ^= is_fence;
            if is_code {
                String::new()
            } else {
                prose.to_owned()
            }
        });
        lines.collect()
    }

    /// The text of a line that is a comment, or any line of a document.
    fn comment<'a>(&self, line: &'a str) -> Option<&'a str> {
        if self.is_markdown() {
            return Some(line);
        }
        let line = line.trim_start();
        let marks: &[&str] = if self.is_rust() {
            &["//!", "///", "//"]
        } else {
            &["#"]
        };
        let is_interpreter = line.starts_with("#!") && !self.is_rust();
        let rest = marks.iter().find_map(|mark| line.strip_prefix(mark));
        rest.filter(|_| !is_interpreter)
    }

    /// Without comments, and without the tests at the end of a file.
    fn code(&self) -> Vec<&str> {
        let lines: Vec<_> = self.text.lines().collect();
        let tests = lines.windows(4).position(|lines| {
            lines[0] == "#[cfg(test)]" && lines.iter().any(|line| line.starts_with("mod "))
        });
        let lines = lines.into_iter().take(tests.unwrap_or(usize::MAX));
        let code = lines.map(|line| {
            if line.trim_start().starts_with("//") {
                return "";
            }
            line.split_once(" // ").map_or(line, |(code, _)| code)
        });
        code.collect()
    }
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|found| found == extension)
}

/// Every file of text below a path of the repository.
fn files(below: &str) -> Vec<Text> {
    let mut to_do = vec![repository().join(below)];
    let mut found = Vec::new();
    while let Some(path) = to_do.pop() {
        if path.is_dir() {
            let is_read = |path: &PathBuf| !path.ends_with("target") && !path.ends_with("corpus");
            let entries = fs::read_dir(&path).unwrap();
            let entries = entries.map(|entry| entry.unwrap().path());
            to_do.extend(entries.filter(is_read));
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(repository()).unwrap();
            let path = path.to_str().unwrap().to_owned();
            found.push(Text { path, text });
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(!found.is_empty(), "nothing in {below}");
    found
}

fn sources() -> Vec<Text> {
    let files = files("src").into_iter();
    files.filter(Text::is_rust).collect()
}

/// Fails with all faults, not only the first.
fn assert_none(faults: &[String], rule: &str) {
    let count = faults.len();
    assert!(faults.is_empty(), "{rule}; {count}:\n{}", faults.join("\n"));
}

/// A line without the addresses of its links, which cannot be broken.
fn without_addresses(line: &str) -> String {
    let mut rest = line;
    let mut kept = String::new();
    while let Some((before, link)) = rest.split_once("](") {
        kept.push_str(before);
        kept.push(']');
        rest = link.split_once(')').map_or("", |(_, after)| after);
    }
    kept.push_str(rest);
    let words = kept.split(' ').filter(|word| !word.contains("://"));
    words.collect::<Vec<_>>().join(" ")
}

/// Not measured: tables (lines that begin with `|`), code (fenced by three backticks or, in
/// Markdown, indented by four spaces), the addresses of links, and [`SNIPPET`]. Of a script or a
/// source file, only lines that are nothing but a comment.
#[test]
fn no_comment_and_no_document_is_wider_than_100_columns() {
    let mut faults = Vec::new();
    for below in ["src", "tests", "mount-scripts", "README.md", "CHANGELOG.md"] {
        for file in files(below) {
            let is_checked = file.is_rust() || file.is_markdown() || below == "mount-scripts";
            if !is_checked || file.path == SNIPPET {
                continue;
            }
            let lines = file.text.lines().zip(file.prose()).zip(1..);
            for ((line, prose), number) in lines {
                let is_prose = !prose.is_empty() && !prose.trim_start().starts_with('|');
                let width = without_addresses(line).chars().count();
                if is_prose && width > WIDTH {
                    faults.push(format!("{}:{number}: {width}", file.path));
                }
            }
        }
    }
    assert_none(&faults, "comments and documents have 100 columns");
}

/// The name of the function that begins in a line.
fn function(line: &str) -> Option<&str> {
    let (before, after) = line.trim_start().split_once("fn ")?;
    let is_word = |word: &str| {
        let word = word.split('(').next().unwrap_or_default();
        ["pub", "const", "async", "unsafe", "extern", "\"C\""].contains(&word)
    };
    let name = after.split(['(', '<']).next()?;
    let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_') && !name.is_empty();
    let is_function = before.split_whitespace().all(is_word) && is_name;
    is_function.then_some(name)
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

#[test]
fn no_function_is_longer_than_70_lines() {
    let mut faults = Vec::new();
    for file in sources() {
        let code = file.code();
        for (at, line) in code.iter().enumerate() {
            let Some(name) = function(line) else {
                continue;
            };
            // It ends in its own line, or where a line of the same depth ends it.
            let is_end =
                |end: &&str| indentation(end) == indentation(line) && (end.ends_with(['}', ';']));
            let length = code[at..].iter().position(is_end).unwrap_or(0) + 1;
            if length > LENGTH {
                let number = at + 1;
                faults.push(format!("{}:{number}: {name}: {length}", file.path));
            }
        }
    }
    assert_none(&faults, "functions have at most 70 lines");
}

/// A word or phrase of the list, in small letters unless it begins a sentence.
struct Banned {
    phrase: String,
    begins: bool,
}

impl Banned {
    /// A sentence is a line's worth of words, joined by single spaces.
    fn is_in(&self, sentence: &str) -> bool {
        if self.begins {
            let rest = sentence.strip_prefix(&self.phrase);
            return rest.is_some_and(|rest| rest.starts_with(' ')) && !sentence.ends_with('?');
        }
        let sentence = sentence.to_lowercase();
        sentence.match_indices(&self.phrase).any(|(at, found)| {
            let (before, after) = (&sentence[..at], &sentence[at + found.len()..]);
            let is_in_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
            !before.ends_with(is_in_word) && !after.starts_with(is_in_word)
        })
    }
}

fn banned() -> Vec<Banned> {
    let list = repository().join("tests/suite/tidy/banned-words.txt");
    let list = fs::read_to_string(list).unwrap();
    let phrases = list
        .lines()
        .map(|line| line.split('#').next().unwrap().trim())
        .filter(|phrase| !phrase.is_empty());
    let banned = phrases.map(|phrase| match phrase.strip_prefix('^') {
        Some(word) => Banned {
            phrase: word.to_owned(),
            begins: true,
        },
        None => Banned {
            phrase: phrase.to_lowercase(),
            begins: false,
        },
    });
    banned.collect()
}

/// The sentences of a file's prose, each with the number of the line in which its paragraph
/// begins. A row of a table is a sentence, without a beginning.
fn sentences(file: &Text) -> Vec<(usize, String)> {
    let mut paragraphs: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    for (prose, number) in file.prose().iter().zip(1..) {
        let line = prose.trim();
        let item = line.strip_prefix("- ").or_else(|| numbered(line));
        let is_alone = line.starts_with(['|', '#']);
        let text = match item {
            Some(text) => text,
            None if is_alone => &format!("… {line}"),
            None => line,
        };
        match paragraphs.last_mut() {
            Some((_, paragraph)) if is_open && item.is_none() && !is_alone => {
                paragraph.push(' ');
                paragraph.push_str(text);
            }
            _ if line.is_empty() => {}
            _ => paragraphs.push((number, text.to_owned())),
        }
        is_open = !line.is_empty() && !is_alone;
    }
    let sentences = paragraphs.into_iter().flat_map(|(number, paragraph)| {
        // Code in backticks is quoted, not said.
        let outside = paragraph.split('`').step_by(2);
        let text = outside.collect::<Vec<_>>().join("`");
        let split = text.replace(". ", ".\n").replace("? ", "?\n");
        let sentences = split.lines().map(str::to_owned).collect::<Vec<_>>();
        sentences
            .into_iter()
            .map(move |sentence| (number, sentence))
    });
    sentences.collect()
}

/// The text of an item of a numbered list.
fn numbered(line: &str) -> Option<&str> {
    let (number, text) = line.split_once(". ")?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(text)
}

#[test]
fn comments_and_documents_have_none_of_the_banned_words() {
    let banned = banned();
    assert!(banned.len() > 20);
    let mut faults = Vec::new();
    for below in ["src", "README.md", "mount-scripts"] {
        for file in files(below) {
            for (number, sentence) in sentences(&file) {
                for banned in banned.iter().filter(|banned| banned.is_in(&sentence)) {
                    let (path, phrase) = (&file.path, &banned.phrase);
                    faults.push(format!("{path}:{number}: {phrase:?}: {sentence}"));
                }
            }
        }
    }
    assert_none(&faults, "see tests/suite/tidy/banned-words.txt");
}

/// The paths after a root such as `crate::`: their first two parts, also of those in braces.
fn uses(code: &str, root: &str) -> Vec<(String, String)> {
    let is_in_word = |c: char| c.is_alphanumeric() || c == '_';
    let roots = code.match_indices(root);
    let roots = roots.filter(|(at, _)| !code[..*at].ends_with(|c| is_in_word(c) || c == ':'));
    let mut uses = Vec::new();
    for (at, _) in roots {
        for path in branches(&code[at + root.len()..]) {
            let (first, rest) = path.split_once("::").unwrap_or((&path, ""));
            let seconds = if rest.is_empty() {
                vec![String::new()]
            } else {
                branches(rest)
            };
            let seconds = seconds.into_iter().map(|second| {
                let part = second.split(|c| !is_in_word(c)).next();
                (first.trim().to_owned(), part.unwrap_or_default().to_owned())
            });
            uses.extend(seconds);
        }
    }
    uses
}

/// The parts of a list in braces that the text begins with, or its one path.
fn branches(text: &str) -> Vec<String> {
    let Some(list) = text.strip_prefix('{') else {
        let is_part = |c: char| c.is_alphanumeric() || "_:".contains(c);
        let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
        // A list further in belongs to the path.
        let list = text[end..]
            .strip_prefix('{')
            .filter(|_| text[..end].ends_with("::"));
        let inside = list.map_or(0, |list| inside(list).len() + 2);
        return vec![text[..end + inside].to_owned()];
    };
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for c in inside(list).chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(c);
    }
    let parts = parts.into_iter().map(|part| part.trim().to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

/// The text up to the brace that closes it.
fn inside(text: &str) -> &str {
    let mut depth = 1;
    let end = text.find(|c| {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        depth == 0
    });
    &text[..end.unwrap_or(text.len())]
}

#[test]
fn paths_are_read_with_and_without_braces() {
    let code = "use crate::core::{Name, table::{Table}};\nuse crate::{sys, process::known};\nlet a = crate::render::line(b);";
    let found = uses(code, "crate::");
    let expected = [
        ("core", "Name"),
        ("core", "table"),
        ("sys", ""),
        ("process", "known"),
        ("render", "line"),
    ];
    let expected = expected.map(|(one, other)| (one.to_owned(), other.to_owned()));
    assert_eq!(found, expected);
}

/// Where in [`LAYERS`] a file is; the root of the library is in none.
fn layer(path: &str) -> Option<usize> {
    let folder = path.strip_prefix("src/")?.split('/').next()?;
    let folder = folder.strip_suffix(".rs").unwrap_or(folder);
    let layer = LAYERS.iter().position(|layer| *layer == folder);
    assert!(layer.is_some() || folder == "lib", "{path} is in no layer");
    layer
}

#[test]
fn each_folder_uses_only_folders_below_it() {
    let mut faults = Vec::new();
    for file in sources() {
        let Some(own) = layer(&file.path) else {
            continue;
        };
        let code = file.code().join("\n");
        let root = if own == 0 { "claimfs::" } else { "crate::" };
        for (used, _) in uses(&code, root) {
            let is_below = LAYERS.iter().skip(own).any(|layer| *layer == used);
            if !is_below {
                faults.push(format!("{} uses {used}", file.path));
            }
        }
    }
    assert_none(&faults, "a layer uses lower ones only");
}

/// The crates that `Cargo.toml` names.
fn crates() -> Vec<String> {
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let (_, after) = manifest.split_once("[dependencies]\n").unwrap();
    let lines = after.lines().take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_")));
    names.collect()
}

#[test]
fn core_has_no_files_clocks_or_threads() {
    let crates = crates();
    assert!(crates.contains(&String::from("fuser")));
    let is_impure = |part: &str, item: &str| {
        let items = PURE_ITEMS.iter().find(|(known, _)| *known == part);
        let is_pure = items.map_or(PURE.contains(&part), |(_, items)| items.contains(&item));
        !is_pure
    };
    let mut faults = Vec::new();
    for file in sources() {
        if !file.path.starts_with("src/core/") {
            continue;
        }
        let code = file.code().join("\n");
        for (part, item) in uses(&code, "std::") {
            if is_impure(&part, &item) {
                faults.push(format!("{} uses std::{part}::{item}", file.path));
            }
        }
        let others = crates
            .iter()
            .filter(|name| !PURE_CRATES.contains(&name.as_str()));
        for other in others {
            if !uses(&code, &format!("{other}::")).is_empty() {
                faults.push(format!("{} uses the crate {other}", file.path));
            }
        }
        for call in IMPURE.iter().filter(|call| code.contains(**call)) {
            faults.push(format!("{} calls {call}", file.path));
        }
    }
    assert_none(&faults, "core has data and rules only");
}
