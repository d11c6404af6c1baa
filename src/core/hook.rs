//! The hooks of coding agents: what an event asks for.
//!
//! An agent starts `claimfs hook` for each of its events and writes the event as JSON to its
//! standard input. The form is Claude Code's, which others have taken over with names of their
//! own. Facts about it are from the public documentation: code.claude.com/docs/en/hooks,
//! geminicli.com/docs/hooks/reference, cursor.com/docs/hooks, and of Codex
//! codex-rs/core/src/hook_runtime.rs.
//!
//! Promises: an event of an unknown name, and an unknown tool, ask for nothing. So do events of a
//! subagent, but for its edits: it is a part of its agent's session, whose turn goes on.
//!
//! Does not know: files, mounts, or how the answer reaches the agent.

use serde_json::Value;

use super::printable;

/// The longest event that is read, in bytes.
pub const EVENT_MAX: usize = 1024 * 1024;

/// The reason of a hook's reservations, which are given back when the turn ends.
pub const REASON: &str = "edit, by claimfs hook";

/// The request that is in an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is about nothing that anybody could reserve.
    Nothing,
    /// A session starts: the agent may be told what happens to its edits.
    Introduction,
    /// A tool is about to write these files.
    Reserve(Files),
    /// A tool has written these files.
    GiveBack(Files),
    /// A turn or the session is over.
    GiveAllBack,
}

/// The files of a tool's call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The directory that relative paths start from, absolute.
    pub cwd: String,
    /// The paths as the agent has them.
    pub paths: Vec<String>,
}

/// A tool that writes files, and the field of its input that names them.
const TOOLS: [(&str, Field); 15] = [
    // Claude Code.
    ("Edit", Field::Path),
    ("MultiEdit", Field::Path),
    ("Write", Field::Path),
    ("NotebookEdit", Field::Path),
    // Codex.
    ("apply_patch", Field::Patch),
    // Gemini CLI.
    ("write_file", Field::Path),
    ("replace", Field::Path),
    // OpenCode.
    ("edit", Field::Path),
    ("multiedit", Field::Path),
    ("write", Field::Path),
    ("patch", Field::Patch),
    // Cursor.
    ("StrReplace", Field::Path),
    ("TabWrite", Field::Path),
    ("EditNotebook", Field::Path),
    ("Delete", Field::Path),
];

#[derive(Clone, Copy)]
enum Field {
    Path,
    Patch,
}

/// The fields that name a file, and those that have a patch.
const PATHS: [&str; 4] = ["file_path", "notebook_path", "filePath", "path"];
const PATCHES: [&str; 4] = ["command", "input", "patch", "patchText"];

/// The lines of a patch of Codex that name a file.
const MARKS: [&str; 4] = [
    "*** Add File: ",
    "*** Update File: ",
    "*** Delete File: ",
    "*** Move to: ",
];

/// Reads an event. The error is why it is none: a sentence for a person.
pub fn asked(text: &[u8]) -> Result<Asked, String> {
    let event: Value =
        serde_json::from_slice(text).map_err(|error| format!("the event is no JSON: {error}"))?;
    if !event.is_object() {
        return Err(String::from("the event is no JSON object"));
    }
    let name = required(&event, "hook_event_name")?;
    let is_subagent = match &event["agent_id"] {
        Value::Null => false,
        Value::String(id) => !id.is_empty(),
        _ => return Err(String::from("the event's agent_id is no text")),
    };
    Ok(match name {
        "PreToolUse" | "preToolUse" | "BeforeTool" => {
            files(&event)?.map_or(Asked::Nothing, Asked::Reserve)
        }
        "PostToolUse" | "postToolUse" | "AfterTool" | "PostToolUseFailure" => {
            files(&event)?.map_or(Asked::Nothing, Asked::GiveBack)
        }
        _ if is_subagent => Asked::Nothing,
        "SessionStart" | "sessionStart" => Asked::Introduction,
        "Stop" | "stop" | "AfterAgent" | "SessionEnd" | "sessionEnd" => Asked::GiveAllBack,
        _ => Asked::Nothing,
    })
}

/// The files that the event's tool writes; `None` for a tool that is not known to write.
fn files(event: &Value) -> Result<Option<Files>, String> {
    let tool = required(event, "tool_name")?;
    let Some((_, field)) = TOOLS.iter().find(|(name, _)| *name == tool) else {
        return Ok(None);
    };
    let input = &event["tool_input"];
    let given = |keys: &[&str]| keys.iter().find_map(|key| input[*key].as_str());
    let paths: Vec<String> = match field {
        Field::Path => {
            let path = given(&PATHS).ok_or_else(|| lacks("tool_input.file_path"))?;
            vec![path.to_owned()]
        }
        Field::Patch => patched(given(&PATCHES).ok_or_else(|| lacks("tool_input.command"))?),
    };
    if let Some(path) = paths
        .iter()
        .find(|path| path.is_empty() || path.contains('\0'))
    {
        return Err(format!("'{}' is no path", printable(path)));
    }
    // Cursor may name its folders instead.
    let folder = event["workspace_roots"][0].as_str();
    let cwd = event["cwd"].as_str().or(folder);
    let cwd = cwd.ok_or_else(|| lacks("cwd"))?;
    if !cwd.starts_with('/') || cwd.contains('\0') {
        return Err(format!(
            "the event's cwd '{}' is no absolute path",
            printable(cwd)
        ));
    }
    let cwd = cwd.to_owned();
    Ok((!paths.is_empty()).then_some(Files { cwd, paths }))
}

/// The files that a patch of Codex names, each once.
fn patched(patch: &str) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    for line in patch.lines() {
        let named = MARKS.iter().find_map(|mark| line.strip_prefix(mark));
        if let Some(path) = named.map(str::trim_end)
            && !paths.iter().any(|there| there == path)
        {
            paths.push(path.to_owned());
        }
    }
    paths
}

fn required<'a>(event: &'a Value, key: &str) -> Result<&'a str, String> {
    event[key].as_str().ok_or_else(|| lacks(key))
}

fn lacks(key: &str) -> String {
    format!("the event has no {key}, or it is no text")
}

/// True if a path is a directory or is below it. Both are absolute, and `/` is above all.
pub fn is_within(path: &str, dir: &str) -> bool {
    let dir = dir.trim_end_matches('/');
    let rest = path.strip_prefix(dir);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// True if a path leads through a `.git`, below one of these directories.
pub fn is_of_git(path: &str, dirs: &[&str]) -> bool {
    dirs.iter().any(|dir| {
        let rest = is_within(path, dir).then(|| path.get(dir.trim_end_matches('/').len()..));
        let mut parts = rest.flatten().unwrap_or_default().split('/');
        parts.any(|part| part == ".git")
    })
}

/// True for a shell command whose last part is `claimfs hook`, by whatever path, with its options.
pub fn is_call(command: &str) -> bool {
    let last = command.trim_end().trim_end_matches(';');
    let last = last.rsplit([';', '&', '|', '\n']).next();
    let mut words = last.unwrap_or_default().split_whitespace();
    if words.clone().next() == Some("exec") {
        words.next();
    }
    let program = words.next().unwrap_or_default().trim_matches(['"', '\'']);
    let program = program.rsplit('/').next().unwrap_or_default();
    program == "claimfs" && words.next() == Some("hook")
}

/// A word for a shell: quoted, if that is necessary.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+@%,=:".contains(c);
    if !word.is_empty() && !word.starts_with('-') && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", printable(word).replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::{Asked, Files, asked, is_call, is_of_git, is_within, quoted};

    fn files(paths: &[&str]) -> Files {
        Files {
            cwd: "/p".to_owned(),
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }
    }

    fn event(text: &str) -> Asked {
        asked(text.as_bytes()).unwrap()
    }

    #[test]
    fn an_edit_asks_for_its_files() {
        for (tool, key) in [
            ("Edit", "file_path"),
            ("NotebookEdit", "notebook_path"),
            ("write_file", "file_path"),
            ("edit", "filePath"),
        ] {
            for (name, asks) in [
                ("PreToolUse", Asked::Reserve(files(&["a/b"]))),
                ("BeforeTool", Asked::Reserve(files(&["a/b"]))),
                ("preToolUse", Asked::Reserve(files(&["a/b"]))),
                ("PostToolUse", Asked::GiveBack(files(&["a/b"]))),
            ] {
                let text = format!(
                    r#"{{"hook_event_name":"{name}","tool_name":"{tool}","tool_input":{{"{key}":"a/b"}},"cwd":"/p","agent_id":"sub"}}"#
                );
                assert_eq!(event(&text), asks);
            }
        }
        let text = r#"{"hook_event_name":"PreToolUse","tool_name":"apply_patch","cwd":"/p","tool_input":{"command":
            "*** Begin Patch\n*** Update File: a\n*** Move to: b\n@@\n-x\n+*** Add File: no\n*** Update File: a\n*** Delete File: c d\n*** End Patch"}}"#;
        let asks = Asked::Reserve(files(&["a", "b", "c d"]));
        assert_eq!(event(text), asks);
    }

    #[test]
    fn other_events_ask_for_what_they_are() {
        let named = |name: &str| event(&format!(r#"{{"hook_event_name":"{name}"}}"#));
        assert_eq!(named("SessionStart"), Asked::Introduction);
        for name in ["Stop", "stop", "AfterAgent", "SessionEnd"] {
            assert_eq!(named(name), Asked::GiveAllBack);
            // A subagent's turn is a part of the agent's.
            let text = format!(r#"{{"hook_event_name":"{name}","agent_id":"a1"}}"#);
            assert_eq!(event(&text), Asked::Nothing);
        }
        for name in ["SubagentStop", "Notification", "", "\\u0000"] {
            assert_eq!(named(name), Asked::Nothing);
        }
        let cursor = r#"{"hook_event_name":"preToolUse","tool_name":"Write","tool_input":{"file_path":"a"},"workspace_roots":["/p"]}"#;
        assert_eq!(event(cursor), Asked::Reserve(files(&["a"])));
        let read = r#"{"hook_event_name":"PreToolUse","tool_name":"Read","tool_input":7}"#;
        assert_eq!(event(read), Asked::Nothing);
    }

    #[test]
    fn what_is_no_event_is_refused_with_a_sentence() {
        for (text, says) in [
            ("", "the event is no JSON: "),
            ("{", "the event is no JSON: "),
            ("[]", "the event is no JSON object"),
            ("{}", "the event has no hook_event_name"),
            (
                r#"{"hook_event_name":1}"#,
                "the event has no hook_event_name",
            ),
            (
                r#"{"hook_event_name":"Stop","agent_id":1}"#,
                "the event's agent_id is no text",
            ),
            (
                r#"{"hook_event_name":"PreToolUse"}"#,
                "the event has no tool_name",
            ),
            (
                r#"{"hook_event_name":"PreToolUse","tool_name":"Edit","cwd":"/p"}"#,
                "the event has no tool_input.file_path",
            ),
            (
                r#"{"hook_event_name":"PreToolUse","tool_name":"Edit","tool_input":{"file_path":"a"}}"#,
                "the event has no cwd",
            ),
            (
                r#"{"hook_event_name":"PreToolUse","tool_name":"Edit","tool_input":{"file_path":"a"},"cwd":"\u001bp"}"#,
                "the event's cwd '\\u{1b}p' is no absolute path",
            ),
            (
                r#"{"hook_event_name":"PreToolUse","tool_name":"Edit","tool_input":{"file_path":""},"cwd":"/p"}"#,
                "'' is no path",
            ),
            (
                r#"{"hook_event_name":"PreToolUse","tool_name":"Edit","tool_input":{"file_path":"a\u0000"},"cwd":"/p"}"#,
                "'a\\u{0}' is no path",
            ),
        ] {
            let error = asked(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(says), "{text}: {error}");
        }
        let deep = "[".repeat(100_000);
        assert!(asked(deep.as_bytes()).is_err());
        assert!(asked(b"\xff").is_err());
    }

    #[test]
    fn directories_are_compared_by_components() {
        assert!(is_within("/a/b", "/a/") && is_within("/a", "/a") && is_within("/a", "/"));
        assert!(!is_within("/ab", "/a") && !is_within("/", "/a"));
        assert!(is_of_git("/a/.git/x", &["/a"]) && is_of_git("/a/s/.git", &["/b", "/a"]));
        assert!(!is_of_git("/.git/a/x", &["/.git/a"]) && !is_of_git("/a/.gitignore", &["/a"]));
    }

    #[test]
    fn a_command_that_calls_the_hook_is_known_by_its_last_part() {
        for command in [
            "claimfs hook",
            "claimfs mount --if-needed > /dev/null 2>&1; claimfs hook",
            "/usr/bin/claimfs hook --mount /x;",
            "\"/x/claimfs\" hook",
            "true && exec claimfs hook",
        ] {
            assert!(is_call(command), "{command}");
        }
        for command in ["", "say claimfs hook", "claimfs ls", "claimfs hook; say it"] {
            assert!(!is_call(command), "{command}");
        }
    }

    #[test]
    fn a_word_is_quoted_for_a_shell_if_need_be() {
        assert_eq!(quoted("/a/b.rs"), "/a/b.rs");
        assert_eq!(quoted("/a b"), "'/a b'");
        assert_eq!(quoted("/a'b;$x"), r"'/a'\''b;$x'");
        assert_eq!(quoted("/a\nb"), r"'/a\nb'");
        assert_eq!(quoted("-n"), "'-n'");
    }
}
