//! Stand-ins for coding agents: each starts its commands exactly as that agent does. A stand-in is
//! an actor with the agent's name, and makes its calls when a test asks for them.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::support::{Actor, Mount, TempDir, is_over, program, wait_until};

/// The command and the environment of a call of the agent with this pid, in its n-th conversation.
pub type Call = fn(&Programs, u32, u32) -> (Vec<String>, HashMap<&'static str, String>);

/// An agent to stand in for.
pub struct Kind {
    pub name: &'static str,
    /// The name of its process; a script, if it has an interpreter.
    pub program: &'static str,
    pub interpreter: Option<&'static str>,
    pub call: Call,
}

pub const CLAUDE: Kind = Kind {
    name: "claude-code",
    program: "claude",
    interpreter: None,
    call: |_, pid, conversation| {
        let env = [
            ("CLAUDECODE", "1".to_owned()),
            ("CLAUDE_CODE_ENTRYPOINT", "cli".to_owned()),
            ("CLAUDE_CODE_SESSION_ID", format!("0b5e-{conversation}")),
            ("CLAUDE_PID", pid.to_string()),
        ];
        (shell(), env.into())
    },
};

/// Each command is run by a helper, which is the same program, in a sandbox of its own.
pub const CODEX: Kind = Kind {
    name: "codex",
    program: "codex",
    interpreter: None,
    call: |programs, _, conversation| {
        let sandbox = "bwrap --new-session --die-with-parent --unshare-pid --proc /proc --dev-bind / / bash -c \"$0\"; exit $?";
        let helper = programs.shell("codex");
        let env = [("CODEX_THREAD_ID", format!("019a-{conversation}"))];
        (vec![helper, "-c".into(), sandbox.into()], env.into())
    },
};

pub const GEMINI: Kind = Kind {
    name: "gemini-cli",
    program: "gemini",
    interpreter: Some("node"),
    call: |_, _, _| (shell(), [("GEMINI_CLI", "1".to_owned())].into()),
};

pub const OPENCODE: Kind = Kind {
    name: "opencode",
    program: "opencode",
    interpreter: None,
    call: |_, pid, _| {
        let env = [
            ("OPENCODE", "1".to_owned()),
            ("AGENT", "1".to_owned()),
            ("OPENCODE_PID", pid.to_string()),
        ];
        (shell(), env.into())
    },
};

/// One that nobody has heard of.
pub const MYSTERY: Kind = Kind {
    name: "mystery",
    program: "mystery",
    interpreter: None,
    call: |_, pid, conversation| {
        let env = [
            ("MYSTERY_THREAD", format!("m-{conversation}")),
            ("MYSTERY_PID", pid.to_string()),
        ];
        (shell(), env.into())
    },
};

fn shell() -> Vec<String> {
    vec!["bash".into(), "-c".into()]
}

/// Programs by the names of agents: actors, and shells.
pub struct Programs(TempDir);

impl Programs {
    pub fn new() -> Self {
        let programs = Self(TempDir::new());
        for dir in ["actor", "shell"] {
            fs::create_dir(programs.0.path().join(dir)).unwrap();
        }
        programs
    }

    pub fn link(&self, dir: &str, name: &str, target: &Path) -> String {
        let link = self.0.path().join(dir).join(name);
        _ = symlink(target, &link);
        link.to_str().unwrap().to_owned()
    }

    pub fn actor(&self, name: &str) -> String {
        self.link("actor", name, &program("actor"))
    }

    pub fn shell(&self, name: &str) -> String {
        self.link("shell", name, Path::new("/bin/bash"))
    }

    /// A shell loop that runs until [`Programs::tell`] is called with this word, or the test is
    /// over.
    pub fn until(&self, word: &str) -> String {
        let dir = self.0.path().display();
        format!("until [ -e {dir}/{word} ] || [ ! -d {dir} ]; do :; done")
    }

    pub fn tell(&self, word: &str) {
        fs::write(self.0.path().join(word), "").unwrap();
    }

    /// A file for scripts to say something by.
    pub fn file(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }
}

/// A living agent.
pub struct Agent<'a> {
    pub actor: Actor,
    /// Its own process, which the actor's is above if it runs under a supervisor.
    pub pid: u32,
    kind: &'a Kind,
    programs: &'a Programs,
    conversation: u32,
}

impl<'a> Agent<'a> {
    pub fn start(mount: &Mount, programs: &'a Programs, kind: &'a Kind) -> Self {
        let own = programs.actor(kind.program);
        let command = match kind.interpreter {
            None => Command::new(own),
            Some(interpreter) => {
                let mut command = Command::new(programs.actor(interpreter));
                command.arg(own);
                command
            }
        };
        let actor = Actor::run_by(command, mount, None, |_| {});
        let pid = actor.pid();
        Self::at(actor, pid, programs, kind)
    }

    pub fn at(actor: Actor, pid: u32, programs: &'a Programs, kind: &'a Kind) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        Self {
            actor,
            pid,
            kind,
            programs,
            conversation: COUNT.fetch_add(1, Ordering::Relaxed),
        }
    }

    pub fn request(&self, script: &str, wait: bool) -> Value {
        let (mut words, env) = (self.kind.call)(self.programs, self.pid, self.conversation);
        words.push(script.to_owned());
        // Of the sandbox's helper, Codex wants the death to follow its own.
        let dies = self.kind.name == "codex";
        json!({ "words": words, "env": env, "session": true, "dies": dies, "wait": wait })
    }

    /// Runs a command in a call of its own: its exit code, what it prints and what it complains of.
    pub fn call(&mut self, script: &str) -> (i64, String, String) {
        let request = self.request(script, true);
        let answer = self.actor.call("run", request).unwrap();
        let text = |key: &str| answer[key].as_str().unwrap().trim_end().to_owned();
        (answer["code"].as_i64().unwrap(), text("out"), text("err"))
    }

    /// Starts a call, and does not wait for it.
    pub fn begin(&mut self, script: &str) -> u32 {
        let request = self.request(script, false);
        let pid = self.actor.call("run", request).unwrap();
        pid.as_u64().unwrap() as u32
    }

    pub fn does(&mut self, script: &str) -> bool {
        self.call(script).0 == 0
    }

    /// A call that must succeed: what it prints.
    pub fn says(&mut self, script: &str) -> String {
        let (code, out, err) = self.call(script);
        assert_eq!(code, 0, "{}: {script}: {out}{err}", self.kind.name);
        out
    }

    /// The session and the rule that one of its calls has.
    pub fn identity(&mut self) -> (String, String) {
        let me: Value = serde_json::from_str(&self.says("cat self")).unwrap();
        let text = |key: &str| me[key].as_str().unwrap_or("none").to_owned();
        (text("session"), text("rule"))
    }

    /// Kills the agent itself, and waits until it is dead.
    pub fn kill(&mut self) {
        if self.pid == self.actor.pid() {
            self.actor.kill();
        } else {
            assert_eq!(unsafe { libc::kill(self.pid as i32, libc::SIGKILL) }, 0);
            wait_until("the agent is dead", || is_over(self.pid));
        }
    }
}
