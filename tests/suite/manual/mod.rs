//! Runs every block of every page of the manual, `src/manual/*.md`.
//!
//! A fenced block with the info string of a language is a program. It runs by itself in a fresh
//! mount, which is its working directory and `$CLAIMFS_MOUNT`; `claimfs` and the scripts of
//! `mount-scripts/` are in `$PATH`. It must exit with 0 within 20 s. Shells run with `-e`, so a
//! command that fails in the middle fails the block. `$HOME` is an empty directory, and so is
//! `$XDG_RUNTIME_DIR`. The commands of the reader (`STAND_INS`) do nothing. Blocks of `text`,
//! `ini`, `json`, `toml` or `yaml` are not run.
//!
//! A comment on the line before a block says what is particular about it:
//!
//! | comment | meaning |
//! |---|---|
//! | `<!-- not run: REASON -->` | it cannot be run by a test, and why |
//! | `<!-- needs: WORD… -->` | programs, `root`, or `root-tree`: a root directory, as `$ROOT` |
//! | `<!-- machine -->`, `<!-- machine: WORD… -->` | it runs on a machine of its own, without a mount: see `machine` |
//!
//! `machine` needs the same words as `needs`. It is run by root, as pid 1 of a pid namespace, in
//! the repository, with an `/etc`, `/run`, `/usr` and `/var/lib` that are thrown away, without any
//! mount that was made before.

mod agents;
mod languages;
mod pages;
mod run;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::can_mount;

/// Blocks that run at the same time.
const WORKERS: usize = 4;

#[test]
fn every_page_of_the_manual_has_the_form_that_this_test_reads() {
    let faults: Vec<String> = pages::all()
        .iter()
        .flat_map(|page| page.faults.iter().cloned())
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_block_of_the_manual_does_its_work() {
    if !can_mount() {
        return;
    }
    let blocks: Vec<pages::Block> = pages::all()
        .into_iter()
        .flat_map(|page| page.blocks)
        .collect();
    // CLAIMFS_TEST_MANUAL=languages.md:12 runs one block, languages.md a page.
    let only = std::env::var("CLAIMFS_TEST_MANUAL").unwrap_or_default();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(block) = blocks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if block.place().starts_with(&only)
                        && let Err(failure) = run::run(block)
                    {
                        let failure = format!("src/manual/{}: {failure}", block.place());
                        failures.lock().unwrap().push(failure);
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The runner itself: each fault of a page, and each way to fail, is found.
#[test]
fn a_page_with_a_fault_is_not_passed_over() {
    for (text, fault) in [
        (
            "# A\n\nB.\n\n```\nls\n```\n",
            "a.md:5: a block without an info string",
        ),
        (
            "# A\n\nB.\n\n```shell\nls\n```\n",
            "a.md:5: an unknown info string: shell",
        ),
        (
            "# A\n\nB.\n\n<!-- not run: -->\n```sh\nls\n```\n",
            "a.md:5: not run, without a reason",
        ),
        (
            "# A\n\nB.\n\n<!-- not run: x -->\n\n```sh\nls\n```\n",
            "a.md:5: a comment that no block follows",
        ),
        (
            "# A\n\nB.\n\n<!-- needs: -->\n```sh\nls\n```\n",
            "a.md:5: a need without a word",
        ),
        (
            "# A\n\nB.\n\n```sh\nls\n",
            "a.md:5: a block that does not end",
        ),
        (
            "# A\n\nB.\n\n    ls\n",
            "a.md:5: an indented block: fence it",
        ),
        (
            "A\n",
            "a.md:1: a page begins with '# Title', an empty line and a sentence",
        ),
        (
            "# A\n\n## B\n",
            "a.md:1: a page begins with '# Title', an empty line and a sentence",
        ),
    ] {
        assert_eq!(pages::page("a.md", text).faults, [fault], "{text}");
    }
    let wide = format!("# A\n\nB.\n\n```sh\n{}\n```\n", "x".repeat(101));
    assert_eq!(
        pages::page("a.md", &wide).faults,
        ["a.md:6: wider than 100 columns"]
    );
    let good = "# A\n\nB.\n\n- c\n\n  ```sh\n  ls\n    cat\n  ```\n\n<!-- not run: it ends the machine -->\n```sh\nhalt\n```\n";
    let page = pages::page("a.md", good);
    assert_eq!(page.faults, [""; 0]);
    let seen: Vec<(usize, &str, bool)> = page
        .blocks
        .iter()
        .map(|block| (block.line, block.code.as_str(), block.reason.is_some()))
        .collect();
    assert_eq!(seen, [(7, "ls\n  cat\n", false), (13, "halt\n", true)]);
}

#[test]
fn a_block_that_fails_is_not_passed_over() {
    if !can_mount() {
        return;
    }
    let run = |language: &str, code: &str| {
        let text = format!("# A\n\nB.\n\n```{language}\n{code}\n```\n");
        run::run(&pages::page("a.md", &text).blocks[0])
    };
    assert_eq!(
        run(
            "sh",
            "set -C; echo > claims/x; cat \"$CLAIMFS_MOUNT/claims/x\""
        ),
        Ok(())
    );
    let failure = run("sh", "echo said; false; true").unwrap_err();
    assert!(
        failure.contains("exit status: 1") && failure.contains("said"),
        "{failure}"
    );
    for (language, code) in [
        ("bash", "false"),
        ("python", "open('claims/x', 'r')"),
        ("c", "int main(void) { return 1; }"),
        ("c", "no program"),
    ] {
        assert!(run(language, code).is_err(), "{language}: {code}");
    }
}
