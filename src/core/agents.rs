//! The known coding agents: a table.
//!
//! An agent runs each command of a conversation in fresh processes, mostly a shell that exits a
//! second later. Its own process therefore holds their claims. It is found by the variables that it
//! sets in their environments, and by the name of its program. An agent sets its variables on its
//! children and not on itself, so it is the parent of the topmost process that carries one. A
//! variable that declares a pid names it directly.
//!
//! The order matters where one agent poses as another, as `amp` does: if one process matches two,
//! the first row wins. An interpreter that runs an agent's script is known by
//! `process/proc.rs`.
//!
//! Variables that editors set in their terminals (`ROO_ACTIVE`, `CLINE_ACTIVE`,
//! `WINDSURF_CASCADE_TERMINAL`, `COPILOT_AGENT`) are left out: the process above these terminals is
//! the editor, which all of its windows share. `AGENT`, `AI_AGENT` and `TERM_PROGRAM` are left out
//! since many programs set them.

use std::borrow::Cow;

type Text = Cow<'static, str>;

/// An agent and its marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// The first part of its session ids.
    pub name: Text,
    /// Variables whose value differs between conversations.
    pub values: Vec<Text>,
    /// Variables whose value is the same in all conversations.
    pub marks: Vec<Text>,
    /// The variable that declares its own pid.
    pub pid: Option<Text>,
    /// Names of its program: `/proc/PID/comm`, or the script's name for an interpreter.
    pub programs: Vec<Text>,
}

/// A row of the table.
struct Row {
    name: &'static str,
    values: &'static [&'static str],
    marks: &'static [&'static str],
    pid: Option<&'static str>,
    programs: &'static [&'static str],
}

const ROWS: [Row; 14] = [
    // Its own binary sets AGENT_THREAD_ID and AMP_CURRENT_THREAD_ID on commands, and CLAUDECODE=1
    // for programs that check for that (ascorbic/am-i-vibing#73).
    Row {
        name: "amp",
        values: &["AMP_CURRENT_THREAD_ID", "AGENT_THREAD_ID"],
        marks: &[],
        pid: None,
        programs: &["amp"],
    },
    // CLAUDE_CODE_SESSION_ID is on commands since 2.1.132 and absent from the main process
    // (anthropics/claude-code#63758), and changes with /clear and /resume; CLAUDECODE=1 (#47018);
    // CLAUDE_PID (code.claude.com/docs/en/env-vars); comm `claude` (#74417).
    Row {
        name: "claude-code",
        values: &["CLAUDE_CODE_SESSION_ID"],
        marks: &["CLAUDECODE"],
        pid: Some("CLAUDE_PID"),
        programs: &["claude"],
    },
    // CODEX_THREAD_ID: openai/codex, codex-rs/protocol/src/shell_environment.rs. A helper runs each
    // command. It is the codex binary too (codex-rs/arg0/src/lib.rs,
    // linux-sandbox/src/linux_run_main.rs), and carries the variable as the command does.
    Row {
        name: "codex",
        values: &["CODEX_THREAD_ID"],
        marks: &[],
        pid: None,
        programs: &["codex"],
    },
    // COPILOT_AGENT_SESSION_ID, COPILOT_LOADER_PID: measured on 1.0.55; the loader is the parent of
    // the application.
    Row {
        name: "copilot",
        values: &["COPILOT_AGENT_SESSION_ID"],
        marks: &["COPILOT_CLI"],
        pid: Some("COPILOT_LOADER_PID"),
        programs: &["copilot"],
    },
    // A fork of opencode, which keeps the form of its variables.
    Row {
        name: "kilo",
        values: &[],
        marks: &["KILO"],
        pid: Some("KILO_PID"),
        programs: &["kilo"],
    },
    // OPENCODE=1 and OPENCODE_PID: anomalyco/opencode, packages/opencode/src/index.ts.
    Row {
        name: "opencode",
        values: &[],
        marks: &["OPENCODE"],
        pid: Some("OPENCODE_PID"),
        programs: &["opencode", ".opencode"],
    },
    // QWEN_CODE_SESSION_ID: QwenLM/qwen-code, services/shellContextEnv.ts.
    Row {
        name: "qwen-code",
        values: &["QWEN_CODE_SESSION_ID"],
        marks: &["QWEN_CODE"],
        pid: None,
        programs: &["qwen"],
    },
    // GEMINI_CLI=1: google-gemini/gemini-cli, packages/core/src/services/shellExecutionService.ts,
    // docs/tools/shell.md.
    Row {
        name: "gemini-cli",
        values: &[],
        marks: &["GEMINI_CLI"],
        pid: None,
        programs: &["gemini"],
    },
    // AGENT_SESSION_ID: aaif-goose/goose,
    // crates/goose/src/agents/platform_extensions/developer/shell.rs; GOOSE_TERMINAL: its docs.
    Row {
        name: "goose",
        values: &["AGENT_SESSION_ID"],
        marks: &["GOOSE_TERMINAL"],
        pid: None,
        programs: &["goose", "goosed"],
    },
    // CURSOR_AGENT=1: microsoft/vscode#316267; CURSOR_CONVERSATION_ID: measured in its shell.
    // CURSOR_TRACE_ID is in users' terminals too.
    Row {
        name: "cursor",
        values: &["CURSOR_CONVERSATION_ID"],
        marks: &["CURSOR_AGENT"],
        pid: None,
        programs: &["cursor-agent"],
    },
    // CRUSH=1 on external commands, while its shell is in its own process: charmbracelet/crush,
    // internal/shell/shell.go and run.go.
    Row {
        name: "crush",
        values: &[],
        marks: &["CRUSH"],
        pid: None,
        programs: &["crush"],
    },
    // KIRO_SESSION_ID: measured on kiro-cli 2.6 (dynatrace-oss/dtctl#282); comm from
    // KIRO_AGENT_PATH (vercel/vercel#16092).
    Row {
        name: "kiro",
        values: &["KIRO_SESSION_ID"],
        marks: &[],
        pid: None,
        programs: &["kiro-cli-chat", "qchat"],
    },
    // AUGMENT_AGENT=1: its documentation; ascorbic/am-i-vibing#73.
    Row {
        name: "auggie",
        values: &[],
        marks: &["AUGMENT_AGENT"],
        pid: None,
        programs: &["auggie"],
    },
    // Sets no variable on purpose (Aider-AI/aider, aider/run_cmd.py). A console script has its own
    // name as comm.
    Row {
        name: "aider",
        values: &[],
        marks: &[],
        pid: None,
        programs: &["aider"],
    },
];

/// The agents that are recognised without configuration.
pub fn known() -> Vec<Agent> {
    let owned = |names: &[&'static str]| names.iter().map(|name| Cow::Borrowed(*name)).collect();
    let agent = |row: &Row| Agent {
        name: Cow::Borrowed(row.name),
        values: owned(row.values),
        marks: owned(row.marks),
        pid: row.pid.map(Cow::Borrowed),
        programs: owned(row.programs),
    };
    ROWS.iter().map(agent).collect()
}
