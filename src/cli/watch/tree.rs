//! Paths as a tree, in few lines: what paths have in common is a heading above them.
//!
//! Does not know: what is at a path, or how wide a line may be.

/// A line of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Branch {
    /// How far it is indented.
    pub depth: usize,
    /// Its part of the path: from the heading above it on. That of a directory that is only a
    /// heading ends with `/`.
    pub label: String,
    /// The number that came with the path; `None` for a heading.
    pub number: Option<usize>,
}

/// A path as its components, and its number.
type Path<'a> = (Vec<&'a str>, usize);

/// The lines of these paths, sorted.
pub(super) fn branches<'a>(paths: &[(&'a str, usize)]) -> Vec<Branch> {
    let split = |(path, number): &(&'a str, usize)| {
        let components = path.split('/').filter(|part| !part.is_empty());
        (components.collect(), *number)
    };
    let mut paths: Vec<Path> = paths.iter().map(split).collect();
    paths.sort();
    let mut lines = Vec::new();
    add(&mut lines, &paths, 0, 0);
    lines
}

/// Adds the lines of sorted paths whose first `from` components are in the headings above.
fn add(lines: &mut Vec<Branch>, paths: &[Path], from: usize, depth: usize) {
    let by_next = paths.chunk_by(|(one, _), (next, _)| one.get(from) == next.get(from));
    for group in by_next {
        let Some(((first, number), others)) = group.split_first() else {
            continue;
        };
        // Sorted paths have in common what the first and the last have.
        let last = others.last().map_or(first, |(last, _)| last);
        let same = first
            .iter()
            .zip(last)
            .take_while(|(one, other)| one == other);
        let to = same.count();
        let mut label = first.get(from..to).unwrap_or_default().join("/");
        if depth == 0 {
            label.insert(0, '/');
        }
        let (number, below) = if first.len() == to {
            (Some(*number), others)
        } else {
            label.push('/');
            (None, group)
        };
        lines.push(Branch {
            depth,
            label,
            number,
        });
        add(lines, below, to, depth + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::branches;

    fn drawn(paths: &[&str]) -> Vec<String> {
        let numbered: Vec<(&str, usize)> = paths.iter().copied().zip(0..).collect();
        let lines = branches(&numbered).into_iter();
        let line = |branch: super::Branch| {
            let number = branch.number.map_or(String::new(), |of| format!(" {of}"));
            format!("{}{}{number}", "  ".repeat(branch.depth), branch.label)
        };
        lines.map(line).collect()
    }

    #[test]
    fn the_common_directory_is_a_heading_and_one_path_alone_is_a_line() {
        assert_eq!(
            drawn(&["/home/me/app/src/main.rs"]),
            ["/home/me/app/src/main.rs 0"]
        );
        assert_eq!(
            drawn(&[
                "/home/me/app/src/main.rs",
                "/home/me/app/docs/a.md",
                "/home/me/app/src/lib.rs",
                "/srv/data",
            ]),
            [
                "/home/me/app/",
                "  docs/a.md 1",
                "  src/",
                "    lib.rs 2",
                "    main.rs 0",
                "/srv/data 3",
            ]
        );
    }

    #[test]
    fn a_directory_that_is_reserved_is_above_what_is_reserved_in_it() {
        assert_eq!(
            drawn(&["/a/b/c/d", "/a/b", "/a/b/x"]),
            ["/a/b 1", "  c/d 0", "  x 2"]
        );
        // A name that begins with another is no path below it.
        assert_eq!(
            drawn(&["/a/b", "/a/bc", "/a/b/x"]),
            ["/a/", "  b 0", "    x 2", "  bc 1"]
        );
    }

    #[test]
    fn no_path_and_the_root_itself_are_no_fault() {
        assert_eq!(drawn(&[]), [""; 0]);
        assert_eq!(drawn(&["/", "/a"]), ["/ 0", "/a 1"]);
    }
}
