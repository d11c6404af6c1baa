//! The manual as plain text of 80 columns, for terminals and pipes.

use super::markdown::{Block, Cell, Span, parse};

/// The widest line, apart from code, which stays as it is.
const WIDTH: usize = 80;

/// How far code, and all but the first cell of a row, are indented.
const INDENT: &str = "    ";

/// A page as plain text.
pub fn render(markdown: &str) -> String {
    let mut out = String::new();
    let mut was_item = false;
    for block in parse(markdown) {
        let is_item = matches!(block, Block::Item(..));
        let is_apart = !(is_item && was_item);
        if is_apart && !out.is_empty() {
            out.push('\n');
        }
        was_item = is_item;
        add(&mut out, &block);
    }
    out
}

fn add(out: &mut String, block: &Block) {
    match block {
        Block::Heading(level, spans) => {
            let heading = inline(spans);
            let heading = if *level == 1 {
                heading.to_uppercase()
            } else {
                heading
            };
            line(out, &heading);
            if *level == 2 {
                line(out, &"-".repeat(heading.chars().count()));
            }
        }
        Block::Paragraph(spans) => wrap(out, "", "", &inline(spans)),
        Block::Item(depth, number, spans) => {
            let mark = number.map_or(String::from("- "), |number| format!("{number}. "));
            let first = format!("{}{mark}", "  ".repeat(*depth));
            wrap(out, &first, &" ".repeat(first.len()), &inline(spans));
        }
        Block::Code(code) => {
            for text in code {
                line(out, format!("{INDENT}{text}").trim_end());
            }
        }
        Block::Table(head, rows) => {
            if let Some(lines) = columns(head, rows, WIDTH) {
                for text in &lines {
                    line(out, text);
                }
            } else {
                terms(out, head, rows);
            }
        }
    }
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

/// The text of a line, without its marks. The page of a link is one word, other targets follow.
pub fn inline(spans: &[Span]) -> String {
    let parts = spans.iter().map(|span| match span {
        Span::Text(text) | Span::Code(text) => text.clone(),
        Span::Bold(spans) => inline(spans),
        Span::Link(spans, target) => with_target(&inline(spans), target),
    });
    parts.collect()
}

/// The text of a link, and its target unless that is a page of the manual or the text itself.
pub(super) fn with_target(text: &str, target: &str) -> String {
    if is_page(target) || text == target {
        text.to_owned()
    } else {
        format!("{text} ({target})")
    }
}

/// Whether a link leads within the manual.
fn is_page(target: &str) -> bool {
    let file = target.split('#').next().unwrap_or_default();
    let topic = file.strip_suffix(".md");
    topic.is_some_and(|topic| !topic.contains('/'))
}

/// Adds a text that is broken between words: what its first line and the others begin with.
pub fn wrap(out: &mut String, first: &str, next: &str, text: &str) {
    let mut current = first.to_owned();
    let mut is_begun = false;
    for word in text.split_whitespace() {
        let width = current.chars().count() + usize::from(is_begun) + word.chars().count();
        if is_begun && width > WIDTH {
            line(out, current.trim_end());
            next.clone_into(&mut current);
            is_begun = false;
        }
        if is_begun {
            current.push(' ');
        }
        current.push_str(word);
        is_begun = true;
    }
    line(out, current.trim_end());
}

/// A table in columns, if none of its lines is wider than this.
pub(super) fn columns(head: &[Cell], rows: &[Vec<Cell>], width: usize) -> Option<Vec<String>> {
    let all: Vec<Vec<String>> = std::iter::once(head)
        .chain(rows.iter().map(Vec::as_slice))
        .map(|row| row.iter().map(|cell| inline(cell)).collect())
        .collect();
    let widest = |column: usize| {
        let cells = all.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(widest).collect();
    if widths.iter().sum::<usize>() + 2 * widths.len() > width + 2 {
        return None;
    }
    let lines = all.iter().map(|row| {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    let mut lines: Vec<String> = lines.collect();
    let rules = widths.iter().map(|width| "-".repeat(*width));
    lines.insert(1, rules.collect::<Vec<_>>().join("  "));
    Some(lines)
}

/// A wide table: the first cell of a row, and below it the others, each after its head.
fn terms(out: &mut String, head: &[Cell], rows: &[Vec<Cell>]) {
    for (number, row) in rows.iter().enumerate() {
        if number > 0 {
            out.push('\n');
        }
        let mut cells = head.iter().zip(row);
        if let Some((_, term)) = cells.next() {
            wrap(out, "", "  ", &inline(term));
        }
        for text in cells.filter_map(|(head, cell)| detail(head, cell, head_is_shown(row))) {
            wrap(out, INDENT, INDENT, &text);
        }
    }
}

/// A row of two cells needs no head to be understood.
fn head_is_shown(row: &[Cell]) -> bool {
    row.len() > 2
}

/// A further cell of a row in words, if it has any.
fn detail(head: &[Span], cell: &[Span], is_shown: bool) -> Option<String> {
    let (head, text) = (inline(head), inline(cell));
    if text.is_empty() {
        return None;
    }
    let is_shown = is_shown && !head.is_empty();
    Some(if is_shown {
        format!("{head}: {text}")
    } else {
        text
    })
}
