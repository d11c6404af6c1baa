//! Reads the part of Markdown that the manual uses: headings, paragraphs, lists, fenced code,
//! tables, and within lines code, bold text and links. Comments (`<!-- … -->`, a line each) are
//! left out.

/// A part of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// A heading, and how deep it is: 1 for the title.
    Heading(usize, Vec<Span>),
    /// A paragraph.
    Paragraph(Vec<Span>),
    /// An item of a list: how deep it is nested, its number if it has one, and its text.
    Item(usize, Option<u32>, Vec<Span>),
    /// Fenced code, a string a line.
    Code(Vec<String>),
    /// A table: its head, and its rows.
    Table(Vec<Cell>, Vec<Vec<Cell>>),
}

/// A cell of a table.
pub type Cell = Vec<Span>;

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// Plain text.
    Text(String),
    /// Code in backticks.
    Code(String),
    /// Bold text.
    Bold(Vec<Span>),
    /// A link: its text, and its target.
    Link(Vec<Span>, String),
}

/// The blocks of a page.
pub fn parse(text: &str) -> Vec<Block> {
    let mut parser = Parser::default();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("```") {
            parser.end();
            let depth = line.len() - trimmed.len();
            let code = lines.by_ref().take_while(|line| line.trim_start() != "```");
            let code = code.map(|line| unindented(line, depth).to_owned());
            parser.blocks.push(Block::Code(code.collect()));
        } else if trimmed.is_empty() || trimmed.starts_with("<!--") {
            parser.end();
        } else if let Some((level, heading)) = heading(line) {
            parser.end();
            parser.blocks.push(Block::Heading(level, spans(heading)));
        } else if trimmed.starts_with('|') {
            parser.end();
            let mut rows = vec![cells(line)];
            while let Some(row) = lines.next_if(|line| line.trim_start().starts_with('|')) {
                rows.push(cells(row));
            }
            let mut rows = rows.into_iter();
            let head = rows.next().unwrap_or_default();
            // The second row only draws the line below the head.
            parser
                .blocks
                .push(Block::Table(head, rows.skip(1).collect()));
        } else if let Some((number, item)) = item(trimmed) {
            parser.end();
            let depth = (line.len() - trimmed.len()) / 2;
            parser.open = Some((Open::Item(depth, number), item.to_owned()));
        } else {
            parser.line(trimmed);
        }
    }
    parser.end();
    parser.blocks
}

#[derive(Clone, Copy)]
enum Open {
    Paragraph,
    Item(usize, Option<u32>),
}

/// The blocks that have been read, and the one that the next line may belong to.
#[derive(Default)]
struct Parser {
    blocks: Vec<Block>,
    open: Option<(Open, String)>,
}

impl Parser {
    fn line(&mut self, line: &str) {
        if let Some((_, text)) = &mut self.open {
            text.push(' ');
            text.push_str(line);
        } else {
            self.open = Some((Open::Paragraph, line.to_owned()));
        }
    }

    fn end(&mut self) {
        let Some((open, text)) = self.open.take() else {
            return;
        };
        let spans = spans(&text);
        self.blocks.push(match open {
            Open::Paragraph => Block::Paragraph(spans),
            Open::Item(depth, number) => Block::Item(depth, number, spans),
        });
    }
}

fn unindented(line: &str, depth: usize) -> &str {
    let spaces = line.len() - line.trim_start_matches(' ').len();
    &line[spaces.min(depth)..]
}

fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.len() - line.trim_start_matches('#').len();
    let text = line[level..].strip_prefix(' ')?;
    (level > 0).then_some((level, text))
}

fn item(line: &str) -> Option<(Option<u32>, &str)> {
    if let Some(text) = line.strip_prefix("- ") {
        return Some((None, text));
    }
    let (number, text) = line.split_once(". ")?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    Some((Some(number.parse().ok().filter(|_| is_number)?), text))
}

/// The cells of a row. A bar within backticks, or after a backslash, divides nothing.
fn cells(row: &str) -> Vec<Cell> {
    let row = row.trim().trim_start_matches('|');
    let row = row.strip_suffix('|').unwrap_or(row);
    let (mut cells, mut is_code, mut is_escaped) = (vec![String::new()], false, false);
    for c in row.chars() {
        is_code ^= c == '`';
        if c == '|' && !is_code && !is_escaped {
            cells.push(String::new());
        } else if let Some(cell) = cells.last_mut() {
            if is_escaped && c == '|' {
                cell.pop();
            }
            cell.push(c);
        }
        is_escaped = c == '\\';
    }
    cells.iter().map(|cell| spans(cell.trim())).collect()
}

/// The parts of a line.
pub fn spans(text: &str) -> Vec<Span> {
    let mut found = Vec::new();
    let (mut plain, mut rest) = (String::new(), text);
    while let Some(c) = rest.chars().next() {
        if let Some((span, after)) = span(rest) {
            if !plain.is_empty() {
                found.push(Span::Text(std::mem::take(&mut plain)));
            }
            found.push(span);
            rest = after;
        } else {
            plain.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    if !plain.is_empty() {
        found.push(Span::Text(plain));
    }
    found
}

/// The span that a text begins with, if that is more than plain text, and what follows it.
fn span(text: &str) -> Option<(Span, &str)> {
    if let Some(code) = text.strip_prefix('`') {
        let (code, after) = code.split_once('`')?;
        return Some((Span::Code(code.to_owned()), after));
    }
    if let Some(bold) = text.strip_prefix("**") {
        let (bold, after) = bold.split_once("**")?;
        return Some((Span::Bold(spans(bold)), after));
    }
    let (shown, after) = text.strip_prefix('[')?.split_once("](")?;
    let (target, after) = after.split_once(')')?;
    let is_one = !shown.contains(['[', ']']);
    is_one.then(|| (Span::Link(spans(shown), target.to_owned()), after))
}
