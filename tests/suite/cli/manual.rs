//! The pages of the manual as plain text and as man pages.

use std::fs;
use std::path::Path;
use std::process::Command;

use claimfs::manual::{PAGES, plain, roff};

use crate::support::{CLAIMFS, TempDir, names, skip, text};

fn help(words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(CLAIMFS);
    command.arg("help").args(words).env("COLUMNS", "80");
    text(&command.output().unwrap())
}

#[test]
fn every_file_of_the_manual_is_a_topic() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manual");
    let files = names(&dir);
    let mut files: Vec<&str> = files
        .iter()
        .filter_map(|file| file.strip_suffix(".md"))
        .collect();
    let mut topics: Vec<&str> = PAGES.iter().map(|page| page.topic).collect();
    files.sort_unstable();
    topics.sort_unstable();
    assert_eq!(files, topics);
    for page in PAGES {
        for link in page.text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            let is_there = target.contains("://") || dir.join(target).exists();
            assert!(is_there, "{}: {target}", page.topic);
        }
    }
}

#[test]
fn help_shows_each_topic_in_80_columns() {
    for page in PAGES {
        let (code, out, err) = help(&[page.topic]);
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.starts_with(&page.text[2..].lines().next().unwrap().to_uppercase()));
        for line in out.lines() {
            // Code is as it was written, and a word is not broken.
            let is_long = line.chars().count() > 80;
            let is_code = line.starts_with("    ") || line.trim_start().split(' ').count() == 1;
            assert!(!is_long || is_code, "{}: {line}", page.topic);
            assert!(
                !line.contains("**") && !line.contains("]("),
                "{}: {line}",
                page.topic
            );
        }
    }
}

#[test]
fn help_lists_topics_and_commands_and_shows_the_help_of_a_command() {
    let (code, out, _) = help(&[]);
    assert_eq!(code, 0);
    for word in ["semantics ", "security ", "claim ", "mount ", "help "] {
        let begins = |line: &str| line.trim_start().starts_with(word);
        assert!(out.lines().any(begins), "{word}: {out}");
    }
    for words in [&["run"][..], &["session", "run"]] {
        let mut command = Command::new(CLAIMFS);
        command.args(words).arg("--help").env("COLUMNS", "80");
        assert_eq!(help(words), text(&command.output().unwrap()));
    }
    let (code, out, err) = help(&["nothing"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(
        err.contains("\"nothing\"") && err.contains("semantics, "),
        "{err}"
    );
}

const SAMPLE: &str = "\
# Name - title

Some `co-de`, **bold** text and
a [link](https://a.b/c) to [a page](paths.md#x).
<!-- a comment -->

- one
  goes on
- two

3. three

| a | b |
|---|---|
| `x|y` | it's |

```sh
.echo 'a\\n'

ls
```
";

#[test]
fn a_page_becomes_plain_text() {
    let expected = "\
NAME - TITLE

Some co-de, bold text and a link (https://a.b/c) to a page.

- one goes on
- two
3. three

a    b
---  ----
x|y  it's

    .echo 'a\\n'

    ls
";
    assert_eq!(plain::render(SAMPLE), expected);
    // A table that is too wide: a paragraph a row.
    let wide = format!(
        "| a | b | c |\n|---|---|---|\n| x | y | {} |\n",
        "z ".repeat(50)
    );
    let rendered = plain::render(&wide);
    let z = |count| vec!["z"; count].join(" ");
    let (first, rest) = (z(36), z(14));
    assert_eq!(
        rendered,
        format!("x\n    b: y\n    c: {first} z\n    {}\n", &rest[2..])
    );
}

#[test]
fn a_page_becomes_roff() {
    let expected = "\
.SH \"NAME \\- TITLE\"
.PP
Some \\fBco\\-de\\fR, \\fBbold\\fR text and a link (https://a.b/c) to a page.
.IP \"\\(bu\" 4
one goes on
.IP \"\\(bu\" 4
two
.IP \"3.\" 4
three
.PP
.RS 4
.nf
a    b
\\-\\-\\-  \\-\\-\\-\\-
x|y  it\\(aqs
.fi
.RE
.PP
.RS 4
.nf
\\&.echo \\(aqa\\en\\(aq
\\&
ls
.fi
.RE
";
    assert_eq!(roff::render(SAMPLE), expected);
}

/// Runs a formatter on a page. It must say nothing.
fn check(program: &str, arguments: &[&str], page: &Path) -> bool {
    let mut command = Command::new(program);
    let Ok(output) = command.args(arguments).arg(page).output() else {
        return false;
    };
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.is_empty(),
        "{}: {said}",
        page.display()
    );
    true
}

#[test]
fn the_man_pages_are_well_formed() {
    let temp = TempDir::new();
    let dir = temp.path().join("man");
    let output = Command::new(CLAIMFS).arg("man").arg(&dir).output().unwrap();
    assert_eq!(text(&output), (0, String::new(), String::new()));
    let pages = names(&dir);
    for page in [
        "claimfs.1",
        "claimfs-run.1",
        "claimfs-session-end.1",
        "claimfs.5",
        "claimfs.7",
    ] {
        assert!(pages.iter().any(|name| name == page), "{page}: {pages:?}");
    }
    assert!(
        !pages.iter().any(|name| name == "claimfs-serve.1"),
        "hidden: {pages:?}"
    );
    let (mut groff, mut mandoc) = (true, true);
    for name in &pages {
        let page = dir.join(name);
        let source = fs::read_to_string(&page).unwrap();
        assert!(
            source.lines().any(|line| line.starts_with(".TH ")),
            "{name}"
        );
        let is_fine = |line: &str| !line.starts_with('\'') || line.starts_with("'\\\"");
        assert!(source.lines().all(is_fine), "{name}");
        groff &= check("groff", &["-man", "-Tascii", "-ww", "-z"], &page);
        mandoc &= check("mandoc", &["-Tlint", "-Werror"], &page);
    }
    for (program, is_there) in [("groff", groff), ("mandoc", mandoc)] {
        if !is_there {
            skip(&format!("{program} is not installed"));
        }
    }
    for page in PAGES {
        let source = fs::read_to_string(dir.join(format!("claimfs.{}", page.section))).unwrap();
        let title = plain::render(page.text).lines().next().unwrap().to_owned();
        assert!(source.contains(&format!(".SH \"{title}\"")), "{title}");
    }
}
