//! `claimfs setup`: settings that are printed, written into those of a user, and taken out again.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::{CLAIMFS, TempDir, names, parsed, plain, text};

type Said = (i32, String, String);

fn setup(dir: &Path, words: &[&str]) -> Said {
    let mut setup = Command::new(CLAIMFS);
    plain(&mut setup);
    setup.arg("setup").args(words).current_dir(dir);
    setup
        .env("HOME", dir.join("home"))
        .env_remove("CLAUDE_CONFIG_DIR");
    // Named, since a mount of this machine would be found.
    setup.env("CLAIMFS_MOUNT", "/run/claims");
    text(&setup.output().unwrap())
}

#[test]
fn the_settings_of_claude_code_are_merged_and_taken_out_again() {
    let temp = TempDir::new();
    let dir = temp.path();
    let file = dir.join(".claude/settings.json");
    let (code, shown, err) = setup(dir, &["claude-code"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(!file.exists());
    assert_eq!(setup(dir, &["claude-code", "--write"]).0, 0);
    assert_eq!(
        fs::read_to_string(&file)
            .unwrap()
            .parse::<serde_json::Value>()
            .unwrap(),
        parsed(&shown)
    );
    assert_eq!(names(&dir.join(".claude")), ["settings.json"]);
    // A file of the user's, behind a symlink, that others may not read.
    let (real, theirs) = (
        dir.join("real.json"),
        "{\n    \"z\": 1,\n    \"a\": [\n        \"é\"\n    ]\n}\n",
    );
    fs::write(&real, theirs).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    fs::remove_file(&file).unwrap();
    symlink("../real.json", &file).unwrap();
    assert_eq!(setup(dir, &["claude-code", "--write"]).0, 0);
    let written = fs::read_to_string(&real).unwrap();
    let keys: Vec<String> = parsed(&written)
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(keys[..2], ["z", "a"]);
    assert_eq!(parsed(&written)["hooks"], parsed(&shown)["hooks"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert!(file.is_symlink() && mode(&real) == 0o640);
    let backup = dir.join("real.json.before-claimfs");
    assert_eq!(fs::read_to_string(&backup).unwrap(), theirs);
    assert_eq!(mode(&backup), 0o640);
    let (code, out, _) = setup(dir, &["claude-code", "--write"]);
    assert!(
        code == 0 && out.contains("as it should be already"),
        "{out}"
    );
    assert_eq!(
        setup(dir, &["claude-code", "--write", "--until", "session"]).0,
        0
    );
    assert!(parsed(&fs::read_to_string(&real).unwrap())["hooks"]["Stop"].is_null());
    assert_eq!(setup(dir, &["claude-code", "--remove"]).0, 0);
    assert_eq!(fs::read_to_string(&real).unwrap(), theirs);
    // Each backup is kept, and no other file is left.
    let left = names(dir);
    let left: Vec<&String> = left
        .iter()
        .filter(|name| name.starts_with("real"))
        .collect();
    assert_eq!(left.len(), 4, "{left:?}");
    assert_eq!(setup(dir, &["claude-code", "--user", "--write"]).0, 0);
    assert!(dir.join("home/.claude/settings.json").exists());
}

#[test]
fn a_settings_file_that_does_not_parse_is_left_alone() {
    let temp = TempDir::new();
    let file = temp.path().join(".claude/settings.json");
    fs::create_dir(temp.path().join(".claude")).unwrap();
    for text in [
        "{ // mine\n}",
        "{\"a\":1,}",
        "[]",
        "{\"hooks\":\"x\"}",
        "\"\u{1b}\"",
    ] {
        fs::write(&file, text).unwrap();
        for word in ["--write", "--remove"] {
            if word == "--remove" && text.contains("hooks") {
                continue;
            }
            let (code, out, err) = setup(temp.path(), &["claude-code", word]);
            assert_eq!((code, out.as_str()), (2, ""), "{text}: {err}");
            assert!(
                err.contains("settings.json: ") && err.contains("left as it is"),
                "{err}"
            );
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
    }
    fs::write(&file, b"{\"\xff\":1}").unwrap();
    assert_eq!(setup(temp.path(), &["claude-code", "--write"]).0, 2);
    assert_eq!(names(&temp.path().join(".claude")), ["settings.json"]);
}

#[test]
fn the_guard_of_git_is_put_where_git_looks_and_taken_out_again() {
    let temp = TempDir::new();
    let dir = temp.path();
    let (code, _, err) = setup(dir, &["git", "--write"]);
    assert!(
        code == 2 && err.contains("not in a git repository"),
        "{err}"
    );
    let git = |words: &[&str]| {
        let mut git = Command::new("git");
        assert!(git.args(words).current_dir(dir).status().unwrap().success());
    };
    git(&["init", "-q", "."]);
    let file = dir.join(".git/hooks/pre-commit");
    assert_eq!(setup(dir, &["git", "--write"]).0, 0);
    assert_eq!(fs::read_to_string(&file).unwrap(), setup(dir, &["git"]).1);
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o111,
        0o111
    );
    assert_eq!(setup(dir, &["git", "--remove"]).0, 0);
    assert!(!file.exists());
    git(&["config", "core.hooksPath", "my hooks"]);
    let (file, theirs) = (
        dir.join("my hooks/pre-commit"),
        "#!/bin/sh\nexec lint \"$@\"\n",
    );
    fs::create_dir(dir.join("my hooks")).unwrap();
    fs::write(&file, theirs).unwrap();
    let (code, _, err) = setup(dir, &["git", "--write"]);
    assert!(code == 2 && err.contains("not executable"), "{err}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(setup(dir, &["git", "--write"]).0, 0);
    let written = fs::read_to_string(&file).unwrap();
    assert!(written.find("claimfs hook pre-commit").unwrap() < written.find("exec lint").unwrap());
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o700
    );
    assert_eq!(setup(dir, &["git", "--write"]).0, 0);
    assert_eq!(fs::read_to_string(&file).unwrap(), written);
    assert_eq!(setup(dir, &["git", "--remove"]).0, 0);
    assert_eq!(fs::read_to_string(&file).unwrap(), theirs);
    fs::write(&file, "#!/usr/bin/python3\n").unwrap();
    assert_eq!(setup(dir, &["git", "--write"]).0, 2);
    for words in [
        &["git", "--user"][..],
        &["git", "--until", "edit"],
        &["git", "--write", "--remove"],
        &["x"],
        &[],
    ] {
        assert_eq!(setup(dir, words).0, 2, "{words:?}");
    }
}
