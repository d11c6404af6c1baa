//! The guard of git's commits: lines in the `pre-commit` hook of a repository.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::Failure;

const SHEBANG: &str = "#!/bin/sh\n";

/// The first and the last of our lines.
const BEGIN: &str = "# >>> claimfs: refuse a commit of files that another has reserved\n";
const END: &str = "# <<< claimfs\n";

/// A machine without claimfs commits as before.
const GUARD: &str =
    "if command -v claimfs > /dev/null; then claimfs hook pre-commit || exit 1; fi\n";

/// The interpreters in whose scripts the lines mean what they say.
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ksh", "zsh", "mksh"];

pub(super) fn script() -> String {
    format!("{SHEBANG}{BEGIN}{GUARD}{END}")
}

/// The `pre-commit` hook of this repository, where `core.hooksPath` says.
pub(super) fn hook_file() -> Result<PathBuf, Failure> {
    let mut git = Command::new("git");
    git.args(["rev-parse", "--git-path", "hooks/pre-commit"]);
    let output = git.output();
    let output = output.map_err(|error| Failure::unavailable(format!("git: {error}")))?;
    if !output.status.success() {
        return Err(Failure::usage(
            "this directory is not in a git repository; go to one",
        ));
    }
    let path = output.stdout;
    let path = path.strip_suffix(b"\n").unwrap_or(&path);
    Ok(PathBuf::from(OsStr::from_bytes(path)))
}

/// Refuses a hook that git does not run, since the guard would not run either, and to change that
/// would run what somebody has switched off.
pub(super) fn check(file: &Path) -> Result<(), Failure> {
    let Ok(there) = fs::metadata(file) else {
        return Ok(());
    };
    if there.permissions().mode() & 0o111 == 0 {
        return Err(Failure::usage(format!(
            "{0}: not executable, so git does not run it; 'chmod +x {0}', or remove it",
            file.display()
        )));
    }
    Ok(())
}

/// A hook with our lines: behind its first line, as scripts may end anywhere.
pub(super) fn with(text: Option<&str>) -> Result<Option<String>, Failure> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(Some(script()));
    };
    let ours = format!("{BEGIN}{GUARD}{END}");
    if text.contains(&ours) {
        return Ok(Some(text.to_owned()));
    }
    let text = without(Some(text)).unwrap_or_default();
    let end = text.find('\n').map_or(text.len(), |at| at + 1);
    let (first, rest) = text.split_at(end);
    if !is_shell(first) {
        return Err(Failure::usage(
            "no script of a shell; it is left as it is, so have it run 'claimfs hook pre-commit', and end if that fails",
        ));
    }
    let line = if first.ends_with('\n') { "" } else { "\n" };
    Ok(Some(format!("{first}{line}{ours}{rest}")))
}

/// A hook without our lines; none if there are no others.
pub(super) fn without(text: Option<&str>) -> Option<String> {
    let text = text?;
    let Some(from) = text.find(BEGIN) else {
        return Some(text.to_owned());
    };
    let Some(length) = text[from..].find(END) else {
        return Some(text.to_owned());
    };
    let rest = [&text[..from], &text[from + length + END.len()..]].concat();
    (rest != SHEBANG).then_some(rest)
}

/// True if the first line of a script names a shell: `#!/bin/sh -e`, `#!/usr/bin/env bash`.
fn is_shell(line: &str) -> bool {
    let Some(words) = line.strip_prefix("#!") else {
        return false;
    };
    let mut words = words.split_whitespace();
    let base = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
    let program = words.next().map(base).unwrap_or_default();
    let program = match program.as_str() {
        "env" => words.find(|word| !word.starts_with('-')).map(base),
        _ => Some(program),
    };
    program.is_some_and(|program| SHELLS.contains(&program.as_str()))
}

#[cfg(test)]
mod tests {
    use super::{is_shell, script, with, without};

    #[test]
    fn the_guard_comes_first_and_goes_without_a_trace() {
        for text in [
            "#!/bin/sh\nexec lint\n",
            "#!/usr/bin/env -S bash -e\nexit 0",
            "#!/bin/sh",
        ] {
            let new = with(Some(text)).unwrap().unwrap();
            let first = new.find("claimfs hook pre-commit").unwrap();
            assert!(new.find("exec").is_none_or(|at| first < at), "{new}");
            assert_eq!(with(Some(&new)).unwrap().as_ref(), Some(&new));
            let back = without(Some(&new));
            if text != "#!/bin/sh" {
                assert_eq!(back.as_deref(), Some(text));
            }
            assert_eq!(without(Some(text)).as_deref(), Some(text));
        }
        assert_eq!(with(None).unwrap(), Some(script()));
        assert_eq!(without(Some(&script())), None);
        assert_eq!(without(None), None);
    }

    #[test]
    fn a_hook_that_is_no_script_of_a_shell_is_refused() {
        for text in ["#!/usr/bin/python3\n", "echo\n", "\x7fELF", "#!\n"] {
            assert!(with(Some(text)).is_err(), "{text}");
        }
        assert!(is_shell("#!/bin/bash -eu\n") && is_shell("#! /usr/bin/env sh\n"));
    }
}
