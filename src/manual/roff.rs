//! The manual as man pages: roff with the macros of man(7), in ASCII.

use std::fmt::Write as _;

use super::Page;
use super::markdown::{Block, Cell, Span, parse};
use super::plain;

/// The widest table that is kept in columns.
const TABLE_WIDTH: usize = 72;

/// A man page of several pages of the manual, each a section of it.
pub fn man_page(section: u8, about: &str, pages: &[&Page], see_also: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut out = format!(
        ".TH CLAIMFS {section} \"\" \"claimfs {version}\" \"claimfs manual\"\n.SH NAME\nclaimfs \\- {}\n",
        escaped(about)
    );
    for page in pages {
        out.push_str(&render(page.text));
    }
    _ = write!(out, ".SH SEE ALSO\n{}\n", escaped(see_also));
    out
}

/// The sections of a page.
pub fn render(markdown: &str) -> String {
    let mut out = String::new();
    for block in parse(markdown) {
        add(&mut out, &block);
    }
    out
}

fn add(out: &mut String, block: &Block) {
    match block {
        Block::Heading(1, spans) => {
            let title = escaped(&plain::inline(spans).to_uppercase());
            _ = writeln!(out, ".SH {}", quoted(&title));
        }
        Block::Heading(_, spans) => {
            let title = escaped(&plain::inline(spans));
            _ = writeln!(out, ".SS {}", quoted(&title));
        }
        Block::Paragraph(spans) => {
            out.push_str(".PP\n");
            text_line(out, &inline(spans));
        }
        Block::Item(depth, number, spans) => {
            let mark = number.map_or(String::from("\\(bu"), |number| format!("{number}."));
            (0..*depth).for_each(|_| out.push_str(".RS 4\n"));
            _ = writeln!(out, ".IP {} 4", quoted(&mark));
            text_line(out, &inline(spans));
            (0..*depth).for_each(|_| out.push_str(".RE\n"));
        }
        Block::Code(lines) => as_it_is(out, lines),
        Block::Table(head, rows) => {
            if let Some(lines) = plain::columns(head, rows, TABLE_WIDTH) {
                as_it_is(out, &lines);
            } else {
                terms(out, head, rows);
            }
        }
    }
}

/// Lines that are neither filled nor broken.
fn as_it_is(out: &mut String, lines: &[String]) {
    out.push_str(".PP\n.RS 4\n.nf\n");
    for line in lines {
        if line.is_empty() {
            // mandoc complains of empty lines, also here.
            out.push_str("\\&\n");
        } else {
            text_line(out, &escaped(line));
        }
    }
    out.push_str(".fi\n.RE\n");
}

/// A wide table: the first cell of a row is the term, the others follow, each after its head.
fn terms(out: &mut String, head: &[Cell], rows: &[Vec<Cell>]) {
    for row in rows {
        let mut cells = head.iter().zip(row);
        out.push_str(".TP\n");
        text_line(
            out,
            &cells
                .next()
                .map(|(_, term)| inline(term))
                .unwrap_or_default(),
        );
        let mut is_first = true;
        for (head, cell) in cells.filter(|(_, cell)| !cell.is_empty()) {
            if !is_first {
                out.push_str(".br\n");
            }
            is_first = false;
            let head = plain::inline(head);
            if row.len() > 2 && !head.is_empty() {
                text_line(
                    out,
                    &format!("\\fI{}\\fR: {}", escaped(&head), inline(cell)),
                );
            } else {
                text_line(out, &inline(cell));
            }
        }
        if is_first {
            out.push_str("\\&\n");
        }
    }
}

/// A line of text, which must not be taken for a macro. It may not be empty.
fn text_line(out: &mut String, text: &str) {
    if text.starts_with(['.', '\'']) || text.is_empty() {
        out.push_str("\\&");
    }
    out.push_str(text);
    out.push('\n');
}

/// An argument of a macro.
fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn inline(spans: &[Span]) -> String {
    let parts = spans.iter().map(|span| match span {
        Span::Text(text) => escaped(text),
        Span::Code(text) => format!("\\fB{}\\fR", escaped(text)),
        Span::Bold(spans) => format!("\\fB{}\\fR", escaped(&plain::inline(spans))),
        Span::Link(spans, target) => {
            let text = plain::inline(spans);
            escaped(&plain::with_target(&text, target))
        }
    });
    parts.collect()
}

/// Text in ASCII, in which no character has a meaning to roff.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '\'' => out.push_str("\\(aq"),
            '`' => out.push_str("\\(ga"),
            '^' => out.push_str("\\(ha"),
            '~' => out.push_str("\\(ti"),
            '"' => out.push_str("\\(dq"),
            _ => push_ascii(&mut out, c),
        }
    }
    out
}

/// A page that is roff already, in ASCII.
pub fn in_ascii(page: &str) -> String {
    let mut out = String::new();
    page.chars().for_each(|c| push_ascii(&mut out, c));
    out
}

/// Adds a character. Some are drawn with others, since no terminal may lack them.
fn push_ascii(out: &mut String, c: char) {
    match c {
        '…' => out.push_str("..."),
        '│' | '├' => out.push('|'),
        '└' => out.push_str("\\(ga"),
        '─' => out.push_str("\\-"),
        _ if c.is_ascii() => out.push(c),
        _ => _ = write!(out, "\\[u{:04X}]", u32::from(c)),
    }
}
