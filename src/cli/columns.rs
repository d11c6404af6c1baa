//! Tables for people: cells in columns that a terminal has room for.
//!
//! Promises: a text counts for at least as many columns as a terminal uses for it, so that nothing
//! is wider than it may be.

use std::ops::RangeInclusive;

/// The width of a screen, in columns, where it is not known.
pub(super) const SCREEN: usize = 80;

/// The narrowest that a column is made: less than most of its cells say nothing.
const NARROW: usize = 8;

/// A cell that says nothing, which still counts as a word.
pub(super) const NOTHING: &str = "-";

/// The space between two columns.
const GAP: usize = 2;

/// Characters that a terminal shows in two columns: wide and fullwidth ones (Unicode Standard
/// Annex 11), and blocks in which only some are, such as the symbols that have emoji.
const WIDE: [RangeInclusive<char>; 18] = [
    '\u{1100}'..='\u{115f}',
    '\u{231a}'..='\u{232a}',
    '\u{23e9}'..='\u{23f3}',
    '\u{25fd}'..='\u{25fe}',
    '\u{2600}'..='\u{27bf}',
    '\u{2b1b}'..='\u{2b55}',
    '\u{2e80}'..='\u{303e}',
    '\u{3041}'..='\u{a4cf}',
    '\u{a960}'..='\u{a97f}',
    '\u{ac00}'..='\u{d7a3}',
    '\u{f900}'..='\u{faff}',
    '\u{fe10}'..='\u{fe19}',
    '\u{fe30}'..='\u{fe6f}',
    '\u{ff00}'..='\u{ff60}',
    '\u{ffe0}'..='\u{ffe6}',
    '\u{16fe0}'..='\u{1b2ff}',
    '\u{1d300}'..='\u{1faff}',
    '\u{20000}'..='\u{3fffd}',
];

/// Marks that a terminal shows on the character before.
const MARKS: [RangeInclusive<char>; 9] = [
    '\u{300}'..='\u{36f}',
    '\u{483}'..='\u{489}',
    '\u{591}'..='\u{5bd}',
    '\u{64b}'..='\u{65f}',
    '\u{1ab0}'..='\u{1ace}',
    '\u{1dc0}'..='\u{1dff}',
    '\u{20d0}'..='\u{20f0}',
    '\u{3099}'..='\u{309a}',
    '\u{fe20}'..='\u{fe2f}',
];

/// The number of columns that a text takes, at most.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

fn columns(c: char) -> usize {
    let is_in = |ranges: &[RangeInclusive<char>]| ranges.iter().any(|range| range.contains(&c));
    match c {
        '\u{20}'..='\u{7e}' => 1,
        _ if is_in(&MARKS) => 0,
        _ if is_in(&WIDE) => 2,
        _ => 1,
    }
}

/// Truncates a text to a number of columns, visibly.
pub(super) fn clip(text: &mut String, room: usize) {
    if width(text) <= room {
        return;
    }
    let mut left = room.saturating_sub(1);
    let end = text.char_indices().find(|(_, c)| {
        let fits = columns(*c) <= left;
        left = left.saturating_sub(columns(*c));
        !fits
    });
    text.truncate(end.map_or(text.len(), |(at, _)| at));
    if room > 0 {
        text.push('…');
    }
}

/// The end of a text, in so many columns: of a path it says most.
pub(super) fn tail(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let starts = text.char_indices().map(|(at, _)| at).skip(1);
    let mut ends = starts.filter_map(|at| text.get(at..));
    let end = ends.find(|end| width(end) < room).unwrap_or_default();
    format!("…{end}")
}

/// Truncates a name in its middle, visibly: its end says most of it, the file name of a path.
fn clip_name(text: &mut String, room: usize) {
    if width(text) <= room {
        return;
    }
    let left = room.saturating_sub(1);
    let mut head = START.min(left / 4);
    let mut tail = left - head;
    let begin = text.char_indices().find(|(_, c)| {
        let fits = columns(*c) <= head;
        head = head.saturating_sub(columns(*c));
        !fits
    });
    let begin = begin.map_or(text.len(), |(at, _)| at);
    let end = text.char_indices().rev().find(|(_, c)| {
        let fits = columns(*c) <= tail;
        tail = tail.saturating_sub(columns(*c));
        !fits
    });
    let end = end.map_or(0, |(at, c)| at + c.len_utf8());
    text.replace_range(begin..end.max(begin), if room > 0 { "…" } else { "" });
}

/// The most of the beginning of a truncated name that is shown, in columns: `paths/`.
const START: usize = 6;

/// Rows under a heading, each column as wide as its widest cell.
pub(super) fn aligned(heading: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    lines(heading, rows, None)
}

/// Rows under a heading, in lines that have at most this many columns: the widest are truncated,
/// names, which are in the first column, in their middle. Columns that say nothing are left out
/// before.
pub(super) fn fitted(heading: &[&str], rows: &[Vec<String>], room: usize) -> Vec<String> {
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let heading = heading.get(column).map_or(0, |cell| width(cell));
        cells
            .map(|cell| width(cell))
            .max()
            .unwrap_or(0)
            .max(heading)
    };
    let gaps = GAP * heading.len().saturating_sub(1);
    let whole = (0..heading.len()).map(widest).sum::<usize>() + gaps;
    if whole <= room || rows.is_empty() {
        return lines(heading, rows, Some(room));
    }
    let says = |column: usize| {
        let mut cells = rows.iter().filter_map(|row| row.get(column));
        column == 0 || cells.any(|cell| cell != NOTHING)
    };
    let kept: Vec<usize> = (0..heading.len()).filter(|column| says(*column)).collect();
    let keep = |row: &Vec<String>| kept.iter().filter_map(|at| row.get(*at).cloned()).collect();
    let heading: Vec<&str> = kept
        .iter()
        .filter_map(|at| heading.get(*at).copied())
        .collect();
    let rows: Vec<Vec<String>> = rows.iter().map(keep).collect();
    lines(&heading, &rows, Some(room))
}

fn lines(heading: &[&str], rows: &[Vec<String>], room: Option<usize>) -> Vec<String> {
    let heading: Vec<String> = heading.iter().map(|cell| (*cell).to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&heading).chain(rows).collect();
    let widest = |column: usize| {
        let cells = lines.iter().map(|line| width(&line[column]));
        cells.max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..heading.len()).map(widest).collect();
    if let Some(room) = room {
        shrink(&mut widths, room);
    }
    let pad = |line: &&Vec<String>| {
        let mut text = String::new();
        for (column, (cell, room)) in line.iter().zip(&widths).enumerate() {
            let mut cell = cell.clone();
            if column == 0 {
                clip_name(&mut cell, *room);
            } else {
                clip(&mut cell, *room);
            }
            text.push_str(&cell);
            text.extend(std::iter::repeat_n(' ', room + GAP - width(&cell)));
        }
        let mut text = text.trim_end().to_owned();
        clip(&mut text, room.unwrap_or(usize::MAX));
        text
    };
    lines.iter().map(pad).collect()
}

/// Takes from the widest column until all fit, or none is wide.
fn shrink(widths: &mut [usize], room: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    let mut over = (widths.iter().sum::<usize>() + gaps).saturating_sub(room);
    while over > 0 {
        let widest = widths.iter_mut().max();
        let Some(widest) = widest.filter(|widest| **widest > NARROW) else {
            return;
        };
        *widest -= 1;
        over -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{clip, clip_name, fitted, width};

    #[test]
    fn wide_characters_count_for_two_columns_and_marks_for_none() {
        for (text, columns) in [
            ("build", 5),
            ("日本語", 6),
            ("한국어", 6),
            ("ﾊﾝｶｸ", 4),
            ("Ａ", 2),
            ("e\u{301}", 1),
            ("🦀", 2),
            // The sign that makes an emoji of it makes it wide.
            ("ℹ\u{fe0f}", 2),
            ("𠀀", 2),
            ("Ж…", 2),
        ] {
            assert_eq!(width(text), columns, "{text}");
        }
    }

    #[test]
    fn a_text_that_is_truncated_never_takes_more_columns_than_there_are() {
        for (room, clipped) in [
            (7, "日本語"),
            (6, "日本語"),
            (5, "日本…"),
            (4, "日…"),
            (1, "…"),
            (0, ""),
        ] {
            let mut text = String::from("日本語");
            clip(&mut text, room);
            assert_eq!(text, clipped);
        }
    }

    #[test]
    fn a_name_is_truncated_in_its_middle_and_its_end_stays_readable() {
        for (name, room, clipped) in [
            (
                "paths/srv/app/src/lexer.rs",
                26,
                "paths/srv/app/src/lexer.rs",
            ),
            (
                "paths/srv/app/src/lexer.rs",
                25,
                "paths/…v/app/src/lexer.rs",
            ),
            ("paths/srv/app/src/lexer.rs", 12, "pa…/lexer.rs"),
            ("paths/日本/日本.rs", 12, "pa…/日本.rs"),
            ("paths/日本/日本.rs", 10, "pa…日本.rs"),
            ("abc", 2, "…c"),
            ("abc", 1, "…"),
            ("abc", 0, ""),
        ] {
            let mut text = String::from(name);
            clip_name(&mut text, room);
            assert_eq!(text, clipped);
            assert!(width(&text) <= room);
        }
    }

    #[test]
    fn a_column_that_says_nothing_is_left_out_only_if_there_is_no_room() {
        let row = |cells: [&str; 4]| cells.map(String::from).to_vec();
        let rows = [
            row(["paths/srv/app/lexer.rs", "w1", "-", "-"]),
            row(["-", "w2", "-", "why"]),
        ];
        let heading = ["CLAIM", "SESSION", "LEFT", "REASON"];
        assert_eq!(
            fitted(&heading, &rows, 45),
            [
                "CLAIM                   SESSION  LEFT  REASON",
                "paths/srv/app/lexer.rs  w1       -     -",
                "-                       w2       -     why",
            ]
        );
        assert_eq!(
            fitted(&heading, &rows, 44),
            [
                "CLAIM                   SESSION  REASON",
                "paths/srv/app/lexer.rs  w1       -",
                "-                       w2       why",
            ]
        );
        let names = [row(["-", "-", "-", "-"])];
        assert_eq!(fitted(&heading, &names, 10), ["CLAIM", "-"]);
    }

    #[test]
    fn lines_fit_whatever_the_cells_are() {
        let cell = |text: &str| text.repeat(100);
        let rows = [
            vec![cell("n"), cell("日"), String::from("1m")],
            vec![String::from("x"); 3],
        ];
        for room in [80, 40, 10, 3] {
            let lines = fitted(&["CLAIM", "SESSION", "AGE"], &rows, room);
            assert!(lines.iter().all(|line| width(line) <= room), "{lines:?}");
        }
        let lines = fitted(&["CLAIM", "SESSION", "AGE"], &rows, 80);
        assert!(
            lines[1].ends_with("1m") && width(&lines[1]) >= 79,
            "{lines:?}"
        );
    }
}
