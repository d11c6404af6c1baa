//! The settings of Claude Code that call `claimfs hook`, and their place in the text of a settings
//! file.
//!
//! Does not know: files.

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value, json};

use crate::cli::Failure;
use crate::core::hook;

/// When a file that was edited is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Until {
    /// Once the tool has run
    Edit,
    /// At the end of the agent's turn
    Turn,
    /// At the end of the session
    Session,
}

/// The tools of Claude Code that write files.
const TOOLS: &str = "Edit|MultiEdit|Write|NotebookEdit";

const HOOK: &str = "claimfs hook";

/// Mounts first, if nothing is mounted.
const START: &str = "claimfs mount --if-needed > /dev/null 2>&1; claimfs hook";

/// The same where the settings name the mount.
const START_NAMED: &str =
    "claimfs mount --if-needed \"$CLAIMFS_MOUNT\" > /dev/null 2>&1; claimfs hook";

const LIST: &str = "/sandbox/filesystem/allowWrite";

/// The settings: the hooks, and the mount for the sandbox of Bash. Its variable only if the caller
/// has named the mount, since else all find it.
pub(super) fn settings(dir: &str, is_named: bool, until: Until) -> Value {
    let mut hooks = Map::new();
    let mut call = |event: &str, group: Value| _ = hooks.insert(event.into(), json!([group]));
    let start = if is_named { START_NAMED } else { START };
    call("SessionStart", group(None, start, 20));
    call("PreToolUse", group(Some(TOOLS), HOOK, 10));
    if until == Until::Edit {
        call("PostToolUse", group(Some(TOOLS), HOOK, 10));
        call("PostToolUseFailure", group(Some(TOOLS), HOOK, 10));
    }
    if until != Until::Session {
        call("Stop", group(None, HOOK, 10));
    }
    call("SessionEnd", group(None, HOOK, 10));
    let mut settings = Map::new();
    if is_named {
        settings.insert("env".into(), json!({ "CLAIMFS_MOUNT": dir }));
    }
    settings.insert(
        "sandbox".into(),
        json!({ "filesystem": { "allowWrite": [dir] } }),
    );
    settings.insert("hooks".into(), Value::Object(hooks));
    Value::Object(settings)
}

/// A group of an event's hooks: for some tools, or for all that happens.
fn group(matcher: Option<&str>, command: &str, timeout: u32) -> Value {
    let mut group = Map::new();
    if let Some(matcher) = matcher {
        group.insert("matcher".into(), json!(matcher));
    }
    let hook = json!({ "type": "command", "command": command, "timeout": timeout });
    group.insert("hooks".into(), json!([hook]));
    Value::Object(group)
}

/// A settings file with ours in it, also if others of ours were in it.
pub(super) fn with(text: Option<&str>, ours: &Value) -> Result<Option<String>, Failure> {
    let (mut settings, indent) = parsed(text)?;
    let before = settings.clone();
    let wanted = ours["hooks"].as_object().cloned().unwrap_or_default();
    let hooks = object(&mut settings, "hooks")?;
    for (event, groups) in hooks.iter_mut() {
        if wanted
            .get(event)
            .is_none_or(|wanted| !contains(groups, wanted))
        {
            take_out(groups);
        }
    }
    hooks.retain(|event, groups| *groups != json!([]) || wanted.contains_key(event));
    for (event, wanted) in wanted {
        let groups = hooks.entry(event).or_insert_with(|| json!([]));
        if contains(groups, &wanted) {
            continue;
        }
        let groups = groups.as_array_mut().ok_or_else(|| misshapen("hooks"))?;
        groups.extend(wanted.as_array().cloned().unwrap_or_default());
    }
    if let Some(dir) = ours["env"]["CLAIMFS_MOUNT"].as_str() {
        object(&mut settings, "env")?.insert("CLAIMFS_MOUNT".into(), json!(dir));
    }
    let sandbox = object(&mut settings, "sandbox")?;
    let sandbox = sandbox.entry("filesystem").or_insert_with(|| json!({}));
    let sandbox = sandbox
        .as_object_mut()
        .ok_or_else(|| misshapen("sandbox.filesystem"))?;
    let allowed = sandbox.entry("allowWrite").or_insert_with(|| json!([]));
    let allowed = allowed
        .as_array_mut()
        .ok_or_else(|| misshapen("sandbox.filesystem.allowWrite"))?;
    for dir in ours
        .pointer(LIST)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if !allowed.contains(dir) {
            allowed.push(dir.clone());
        }
    }
    result(text, &before, &settings, &indent)
}

/// A settings file without ours, and without what is empty then.
pub(super) fn without(text: Option<&str>, ours: &Value) -> Result<Option<String>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let (mut settings, indent) = parsed(Some(text))?;
    let before = settings.clone();
    let dir = ours.pointer(LIST).and_then(|list| list.get(0)).cloned();
    let variable = settings.get("env").and_then(|env| env.get("CLAIMFS_MOUNT"));
    let variable = variable.cloned();
    let dirs: Vec<Value> = dir.into_iter().chain(variable.clone()).collect();
    if let Some(hooks) = settings.get_mut("hooks").and_then(Value::as_object_mut) {
        let mut emptied = false;
        hooks.retain(|_, groups| {
            let took = take_out(groups);
            let stays = !took || *groups != json!([]);
            emptied |= !stays;
            stays
        });
        if emptied && hooks.is_empty() {
            settings.remove("hooks");
        }
    }
    if let Some(allowed) = settings.get_mut("sandbox").and_then(|sandbox| {
        sandbox
            .get_mut("filesystem")?
            .get_mut("allowWrite")?
            .as_array_mut()
    }) {
        let count = allowed.len();
        allowed.retain(|dir| !dirs.contains(dir));
        if allowed.len() < count && allowed.is_empty() {
            prune(&mut settings, &["sandbox", "filesystem", "allowWrite"]);
        }
    }
    if variable.is_some() && variable.as_ref() == ours.pointer("/env/CLAIMFS_MOUNT") {
        prune(&mut settings, &["env", "CLAIMFS_MOUNT"]);
    }
    result(Some(text), &before, &settings, &indent)
}

/// Removes what is at this place, and the objects above that are empty then.
fn prune(settings: &mut Map<String, Value>, place: &[&str]) {
    let [key, rest @ ..] = place else { return };
    if rest.is_empty() {
        settings.shift_remove(*key);
        return;
    }
    if let Some(Value::Object(inner)) = settings.get_mut(*key) {
        prune(inner, rest);
        if inner.is_empty() {
            settings.shift_remove(*key);
        }
    }
}

/// Takes our commands out of an event's groups, and the groups that are empty then. False if there
/// are none.
fn take_out(groups: &mut Value) -> bool {
    let mut took = false;
    let Some(groups) = groups.as_array_mut() else {
        return false;
    };
    groups.retain_mut(|group| {
        let Some(hooks) = group.get_mut("hooks").and_then(Value::as_array_mut) else {
            return true;
        };
        let count = hooks.len();
        hooks.retain(|call| !hook::is_call(call["command"].as_str().unwrap_or_default()));
        took |= hooks.len() < count;
        hooks.len() == count || !hooks.is_empty()
    });
    took
}

/// True if all of these groups are among an event's.
fn contains(groups: &Value, wanted: &Value) -> bool {
    let wanted = wanted.as_array().into_iter().flatten();
    let there = groups.as_array().map_or(&[][..], Vec::as_slice);
    wanted.into_iter().all(|group| there.contains(group))
}

fn object<'a>(
    settings: &'a mut Map<String, Value>,
    key: &str,
) -> Result<&'a mut Map<String, Value>, Failure> {
    let value = settings.entry(key).or_insert_with(|| json!({}));
    value.as_object_mut().ok_or_else(|| misshapen(key))
}

fn misshapen(key: &str) -> Failure {
    Failure::usage(format!(
        "its {key} has another form than Claude Code's settings; it is left as it is, so correct it first"
    ))
}

/// The settings and how they are indented.
fn parsed(text: Option<&str>) -> Result<(Map<String, Value>, String), Failure> {
    let text = text.unwrap_or_default();
    let mut lines = text.lines().skip(1);
    let indent = lines.find(|line| !line.trim().is_empty()).unwrap_or("  ");
    let indent = &indent[..indent.len() - indent.trim_start().len()];
    let indent = if indent.is_empty() { "  " } else { indent };
    if text.trim().is_empty() {
        return Ok((Map::new(), indent.to_owned()));
    }
    let left = "it is left as it is, so correct it first";
    match serde_json::from_str(text) {
        Ok(Value::Object(settings)) => Ok((settings, indent.to_owned())),
        Ok(_) => Err(Failure::usage(format!("no JSON object; {left}"))),
        Err(error) => Err(Failure::usage(format!("no JSON: {error}; {left}"))),
    }
}

/// The new text; the old one if the settings say the same.
fn result(
    text: Option<&str>,
    before: &Map<String, Value>,
    settings: &Map<String, Value>,
    indent: &str,
) -> Result<Option<String>, Failure> {
    if let Some(text) = text.filter(|_| before == settings) {
        return Ok(Some(text.to_owned()));
    }
    shown(settings, indent).map(Some)
}

/// JSON as settings files have it.
pub(super) fn shown(settings: &impl Serialize, indent: &str) -> Result<String, Failure> {
    let mut text = Vec::new();
    let formatter = PrettyFormatter::with_indent(indent.as_bytes());
    let mut serializer = Serializer::with_formatter(&mut text, formatter);
    let written = settings.serialize(&mut serializer);
    written.map_err(|error| Failure::unavailable(error.to_string()))?;
    text.push(b'\n');
    String::from_utf8(text).map_err(|error| Failure::unavailable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{Until, settings, with, without};

    fn ours() -> Value {
        settings("/run/claims", false, Until::Turn)
    }

    /// A file after writing; writing again changes nothing.
    fn written(text: Option<&str>, ours: &Value) -> String {
        let new = with(text, ours).unwrap().unwrap();
        assert_eq!(with(Some(&new), ours).unwrap().as_ref(), Some(&new));
        new
    }

    #[test]
    fn the_example_is_what_is_printed() {
        let example = include_str!("../../../mount-scripts/claude-code-hook.json");
        assert_eq!(super::shown(&ours(), "  ").unwrap(), example);
    }

    #[test]
    fn what_was_written_is_taken_out_again_and_nothing_else() {
        for text in [
            "{\n    \"model\": \"x\",\n    \"hooks\": {\n        \"PreToolUse\": [\n            {\n                \"matcher\": \"Bash\",\n                \"hooks\": []\n            }\n        ]\n    },\n    \"a\": 1\n}\n",
            "{\n\t\"sandbox\": {\n\t\t\"filesystem\": {\n\t\t\t\"allowWrite\": [\n\t\t\t\t\"/x\"\n\t\t\t]\n\t\t}\n\t},\n\t\"z\": {}\n}\n",
            "{\n  \"hooks\": {\n    \"Stop\": [\n      {\n        \"hooks\": [\n          {\n            \"type\": \"command\",\n            \"command\": \"say claimfs hook\"\n          }\n        ]\n      }\n    ]\n  },\n  \"b\": true\n}\n",
        ] {
            for named in [false, true] {
                let ours = settings("/run/claims", named, Until::Turn);
                let new = written(Some(text), &ours);
                assert_ne!(new, text);
                let back = without(Some(&new), &ours).unwrap().unwrap();
                assert_eq!(back, text);
            }
        }
        let new = written(None, &ours());
        assert_eq!(without(Some(&new), &ours()).unwrap().unwrap(), "{}\n");
        assert_eq!(without(None, &ours()).unwrap(), None);
        // Nothing of ours: also its odd form stays.
        assert_eq!(
            without(Some("{ \"a\":1}"), &ours()).unwrap().unwrap(),
            "{ \"a\":1}"
        );
    }

    #[test]
    fn other_settings_of_ours_are_replaced() {
        let longer = settings("/run/claims", false, Until::Edit);
        let text = written(None, &longer);
        assert!(text.contains("\"PostToolUse\""));
        assert_eq!(written(Some(&text), &ours()), written(None, &ours()));
    }

    #[test]
    fn what_does_not_parse_or_has_another_form_is_refused() {
        for text in [
            "{",
            "// a comment\n{}",
            "[]",
            "{\"hooks\":[]}",
            "{\"hooks\":{\"Stop\":{}}}",
            "{\"sandbox\":1}",
            "{\"sandbox\":{\"filesystem\":{\"allowWrite\":\"/x\"}}}",
        ] {
            let failure = with(Some(text), &ours()).unwrap_err();
            assert!(failure.text.contains("left as it is"), "{text}: {failure}");
        }
    }
}
