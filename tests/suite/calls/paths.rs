//! `paths/`: a file there reserves its path and all below it, and directories are nobody's.

/// Raw calls, limits and refusals.
mod calls;
/// Several names in one line of `control`.
mod lists;
/// The life of directories, and who stands in them.
mod scaffolding;
/// Real tools, as their users call them.
mod tools;

use crate::support::Mount;

/// All files and directories below `paths/`, with a `/` after directories.
fn tree(mount: &Mount) -> Vec<String> {
    let found = mount
        .run("cd paths && find . -mindepth 1 -type d -printf '%P/\\n' -o -type f -printf '%P\\n'");
    let mut found: Vec<String> = found.lines().map(String::from).collect();
    found.sort();
    found
}
