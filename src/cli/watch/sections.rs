//! The sections of a screen: each a table under a heading, in the lines that it gets.
//!
//! Does not know: what the lines say.

use crate::cli::columns;

/// A line of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A lease, as cells.
    Lease(Vec<String>),
    /// More about the lease above it.
    Under(String),
    /// A heading of the leases below it.
    Over(String),
}

/// A section.
#[derive(Debug)]
pub(super) struct Section {
    /// The names of its columns.
    pub heading: Vec<String>,
    /// Its lines, the most interesting first.
    pub lines: Vec<Line>,
    /// The number of leases that have no line here: more than any screen shows.
    pub more: usize,
    /// How many of its leases are waited for: the first ones.
    pub waited: usize,
}

impl Section {
    /// The number of lines that it has with its heading.
    pub(super) fn wants(&self) -> usize {
        match self.lines.len() {
            0 => 0,
            lines => lines + self.more + 1,
        }
    }

    /// Its first lines, and how many leases are left out, in at most `room` lines.
    pub(super) fn lines(mut self, room: usize, width: usize) -> Vec<String> {
        let all = self.leases() + self.more;
        if room == 0 || self.lines.is_empty() {
            return Vec::new();
        }
        if room == 1 {
            return vec![format!("… {all} leases")];
        }
        let is_whole = self.wants() <= room;
        // A heading above nothing says less than a lease.
        let has_heading = is_whole || room > 2;
        // Without the heading and the line that counts the rest.
        let fits = if is_whole { room } else { room - 1 };
        self.lines.truncate(fits - usize::from(has_heading));
        let hidden = all - self.leases();
        let waited = self.waited.saturating_sub(self.leases());
        let mut lines = self.table(width);
        lines.drain(..usize::from(!has_heading));
        if !is_whole {
            lines.push(match waited {
                0 => format!("… and {hidden} more"),
                _ => format!("… and {hidden} more, {waited} of them waited for"),
            });
        }
        lines
    }

    /// Its last lines, in at most `room` with the heading.
    pub(super) fn newest(mut self, room: usize) -> Vec<String> {
        let keep = room.saturating_sub(1);
        if keep == 0 || self.lines.is_empty() {
            return Vec::new();
        }
        let over = self.lines.len().saturating_sub(keep);
        self.lines.drain(..over);
        self.table(usize::MAX)
    }

    fn leases(&self) -> usize {
        let is_lease = |line: &&Line| matches!(line, Line::Lease(_));
        self.lines.iter().filter(is_lease).count()
    }

    /// The heading and all lines. A column in which no cell says anything is left out.
    fn table(self, width: usize) -> Vec<String> {
        let cells = |line: &Line| match line {
            Line::Lease(cells) => Some(cells.clone()),
            _ => None,
        };
        let mut rows: Vec<Vec<String>> = self.lines.iter().filter_map(cells).collect();
        let mut heading = self.heading;
        for column in (0..heading.len()).rev() {
            let says = |row: &Vec<String>| row.get(column).is_some_and(|cell| !cell.is_empty());
            if !rows.is_empty() && !rows.iter().any(says) {
                heading.remove(column);
                for row in &mut rows {
                    row.remove(column);
                }
            }
        }
        let heading: Vec<&str> = heading.iter().map(String::as_str).collect();
        let mut leases = columns::fitted(&heading, &rows, width).into_iter();
        let mut lines: Vec<String> = leases.next().into_iter().collect();
        for line in self.lines {
            match line {
                Line::Lease(_) => lines.extend(leases.next()),
                Line::Under(text) | Line::Over(text) => lines.push(text),
            }
        }
        lines
    }
}

/// How many lines claims and paths get, of which each wants so many, if events want some too. A
/// quarter is kept for events. The others share the rest equally, but the `urgent` first lines of
/// the claims get two thirds of it.
pub(super) fn shares(
    room: usize,
    (claims, urgent): (usize, usize),
    paths: usize,
    events: usize,
) -> (usize, usize) {
    let kept = events.min(room / 4);
    // A heading alone says nothing.
    let kept = if kept < 2 { 0 } else { kept };
    let rest = room - kept;
    let share = (rest / 2).max(urgent.min(rest * 2 / 3));
    let claims = claims.min(share.max(rest.saturating_sub(paths)));
    (claims, paths.min(rest - claims))
}

#[cfg(test)]
mod tests {
    use super::{Line, Section, shares};

    #[test]
    fn sections_share_the_lines_and_none_takes_all() {
        for (room, claims, paths, events, expected) in [
            (20, (4, 0), 4, 4, (4, 4)),
            (20, (300, 0), 0, 0, (20, 0)),
            (20, (300, 0), 300, 50, (7, 8)),
            (20, (300, 9), 300, 50, (9, 6)),
            (20, (300, 200), 300, 50, (10, 5)),
            (20, (300, 0), 3, 50, (12, 3)),
            (20, (3, 3), 300, 50, (3, 12)),
            (20, (3, 3), 3, 50, (3, 3)),
            // A heading and an event are the least.
            (9, (300, 0), 0, 50, (7, 0)),
            (5, (300, 0), 300, 50, (2, 3)),
            (1, (300, 0), 300, 50, (0, 1)),
            (1, (300, 5), 0, 50, (1, 0)),
            (0, (300, 5), 300, 50, (0, 0)),
        ] {
            let shares = shares(room, claims, paths, events);
            assert_eq!(shares, expected, "{room} {claims:?} {paths} {events}");
        }
    }

    #[test]
    fn a_column_in_which_nothing_is_said_is_left_out_and_the_rest_is_counted() {
        let row = |name: &str| Line::Lease(vec![name.into(), String::new(), "1m".into()]);
        let section = || Section {
            heading: ["CLAIM", "LEFT", "AGE"].map(String::from).to_vec(),
            lines: vec![
                row("a"),
                Line::Under("  waits: 1. w".into()),
                row("b"),
                row("c"),
            ],
            more: 0,
            waited: 1,
        };
        assert_eq!(
            section().lines(5, 80),
            [
                "CLAIM  AGE",
                "a      1m",
                "  waits: 1. w",
                "b      1m",
                "c      1m"
            ]
        );
        assert_eq!(
            section().lines(4, 80),
            ["CLAIM  AGE", "a      1m", "  waits: 1. w", "… and 2 more"]
        );
        assert_eq!(section().lines(2, 80), ["a      1m", "… and 2 more"]);
        let mut several = section();
        several.waited = 3;
        let rest = several.lines(2, 80).pop();
        assert_eq!(
            rest.unwrap_or_default(),
            "… and 2 more, 2 of them waited for"
        );
        let mut longer = section();
        longer.more = 70;
        assert_eq!(longer.wants(), 75);
        let rest = longer.lines(5, 80).pop();
        assert_eq!(rest.unwrap_or_default(), "… and 71 more");
        assert_eq!(section().lines(1, 80), ["… 3 leases"]);
        assert_eq!(section().lines(0, 80), [""; 0]);
    }
}
