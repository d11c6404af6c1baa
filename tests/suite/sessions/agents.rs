//! Coding agents, with real processes: stand-ins that start their commands exactly as the agents
//! do. With `CLAIMFS_TEST_TABLE=1` each says in a row of a table, on standard error, what held.

pub mod stand_in;

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};
use std::{env, fs};

use serde_json::Value;

use self::stand_in::{Agent, CLAUDE, CODEX, GEMINI, Kind, MYSTERY, OPENCODE, Programs};
use crate::support::{
    Actor, CLAIMFS, Guard, Mount, TempDir, children, is_over, plain, root_or_skip, skip, text,
    wait_until,
};

/// The properties of an agent.
#[derive(Debug, PartialEq)]
struct Held {
    across_calls: bool,
    against_others: bool,
    freed_on_death: bool,
}

impl Held {
    const ALL: Self = Self {
        across_calls: true,
        against_others: true,
        freed_on_death: true,
    };

    fn tell(&self, name: &str, rule: &str, seconds: Duration) {
        static HEAD: Once = Once::new();
        if env::var("CLAIMFS_TEST_TABLE").as_deref() != Ok("1") {
            return;
        }
        let yes = |held: bool| if held { "yes" } else { "no" };
        // Past the harness, which keeps what passing tests print.
        HEAD.call_once(|| {
            let head = "| agent | rule | held across calls | refused to others | freed on death | seconds |\n|---|---|---|---|---|---|";
            _ = writeln!(io::stderr(), "{head}");
        });
        let row = format!(
            "| {name} | {rule} | {} | {} | {} | {:.4} |\n",
            yes(self.across_calls),
            yes(self.against_others),
            yes(self.freed_on_death),
            seconds.as_secs_f64()
        );
        _ = io::stderr().write_all(row.as_bytes());
    }
}

const CLAIM: &str = "set -C; echo mine > claims/x";

/// The life of a claim of an agent's, beside a second instance of it and another agent. What it
/// comes to in the end, and how long after the agent's death another had it.
fn life(mount: &Mount, agent: &mut Agent, others: &mut [Agent]) -> (Held, Duration) {
    agent.says(CLAIM);
    // The call is over, with its shell and all processes between that and the agent.
    let mut across_calls = mount.session_of("x").is_some();
    if across_calls {
        // It reads what it wrote; to create again opens, unless exclusively.
        across_calls &= agent.says("cat claims/x") == "mine";
        across_calls &= agent.does("echo again > claims/x; cat claims/x | grep -qx again");
        across_calls &= !agent.does(CLAIM);
        across_calls &= agent.does("echo > claims/x && grep -q '\"name\":\"x\"' claims/x");
    }
    let mut against_others = across_calls;
    for other in others.iter_mut().filter(|_| across_calls) {
        let (code, _, err) = other.call(CLAIM);
        assert!(code == 0 || err.contains("overwrite existing"), "{err}");
        against_others &= code != 0;
        for script in [
            "echo theirs > claims/x",
            "rm -f claims/x",
            "mv claims/x claims/y",
        ] {
            let (code, _, err) = other.call(script);
            assert!(code == 0 || err.contains("resource busy"), "{err}");
            against_others &= code != 0;
        }
    }
    // Released in a call of its own, and free to others at once.
    if across_calls {
        agent.says("rm claims/x");
        assert_eq!(mount.session_of("x"), None);
        others[0].says(&format!("{CLAIM} && rm claims/x"));
    }
    agent.says(CLAIM);
    let held = mount.session_of("x").is_some();
    let mut free = mount.actor(Some("next"));
    let mut freed_on_death = false;
    agent.kill();
    let dead = Instant::now();
    while !freed_on_death && dead.elapsed() < Duration::from_secs(20) {
        freed_on_death = free.claim("x").is_ok();
    }
    let seconds = dead.elapsed();
    let held = Held {
        across_calls: across_calls && held,
        against_others,
        freed_on_death,
    };
    (held, seconds)
}

/// A mount that knows agents.
fn mount(options: &[&str]) -> Option<Mount> {
    let mut mount = Mount::unmounted()?;
    mount.knows_agents = true;
    mount.start(options);
    Some(mount)
}

/// All that is asked of an agent that is known.
fn holds(kind: &Kind, stranger: &Kind) {
    let Some(mount) = mount(&[]) else { return };
    let programs = Programs::new();
    let start = |kind| Agent::start(&mount, &programs, kind);
    let (mut agent, second, third) = (start(kind), start(kind), start(stranger));
    let (session, rule) = agent.identity();
    let own = format!("{}-{}-", kind.name, agent.pid);
    assert!(session.starts_with(&own), "{session}, not {own}…");
    assert_eq!(rule, "agent");
    let (held, seconds) = life(&mount, &mut agent, &mut [second, third]);
    held.tell(kind.name, &rule, seconds);
    assert_eq!(held, Held::ALL);
}

fn has_bwrap() -> bool {
    let output = Command::new("bwrap")
        .args([
            "--unshare-pid",
            "--dev-bind",
            "/",
            "/",
            "--proc",
            "/proc",
            "true",
        ])
        .output();
    let works = output.is_ok_and(|output| output.status.success());
    if !works {
        skip("bubblewrap is not installed, or may not make a sandbox here");
    }
    works
}

#[test]
fn claude_code_holds_what_its_calls_claim() {
    holds(&CLAUDE, &GEMINI);
}

#[test]
fn codex_holds_what_its_calls_claim_in_their_sandboxes() {
    if has_bwrap() {
        holds(&CODEX, &CLAUDE);
    }
}

#[test]
fn gemini_holds_what_its_calls_claim_though_it_is_a_script() {
    holds(&GEMINI, &OPENCODE);
}

#[test]
fn opencode_holds_what_its_calls_claim() {
    holds(&OPENCODE, &CLAUDE);
}

/// A worker of looop's, below the session leader that exports its variable.
fn looop<'a>(mount: &Mount, programs: &'a Programs, session: &str, kind: &'a Kind) -> Agent<'a> {
    let mut leader = Command::new("bash");
    let script = format!("export LOOOP_SESSION_ID={session}; \"$0\" \"$@\"; :");
    leader.args(["-c", &script, &programs.actor(kind.program)]);
    // The leader complains when its worker is killed.
    let mut actor = Actor::run_by(leader, mount, None, |leader| {
        leader.stderr(Stdio::null());
    });
    // It answers: so it is there.
    actor.stat("claims").unwrap();
    let worker = children(actor.pid())[0];
    Agent::at(actor, worker, programs, kind)
}

#[test]
fn a_worker_of_looop_holds_what_its_calls_claim() {
    let Some(mount) = mount(&[]) else { return };
    let programs = Programs::new();
    // It does not matter whether the worker is a known agent: rule 2 comes first.
    for (name, kind) in [
        ("looop, any worker", &MYSTERY),
        ("looop, claude-code", &CLAUDE),
    ] {
        let mut agent = looop(&mount, &programs, "worker-1", kind);
        let second = looop(&mount, &programs, "worker-2", kind);
        let third = Agent::start(&mount, &programs, &GEMINI);
        let expected = ("worker-1".to_owned(), "variable".to_owned());
        assert_eq!(agent.identity(), expected);
        let leader = agent.actor.pid();
        agent.says("set -C; echo > claims/y");
        let session: Value = serde_json::from_str(&mount.read("sessions/worker-1")).unwrap();
        let roots = session["roots"].as_array().unwrap();
        let is_root = |pid: u32| roots.iter().any(|root| root["pid"] == pid);
        assert!(is_root(agent.pid) && !is_root(leader), "{session}");
        agent.says("rm claims/y");
        let (held, seconds) = life(&mount, &mut agent, &mut [second, third]);
        held.tell(name, "variable", seconds);
        assert_eq!(held, Held::ALL);
    }
}

#[test]
fn an_unknown_agent_that_starts_sessions_holds_nothing_until_it_is_told_of() {
    let programs = Programs::new();
    let start = |mount: &Mount, kind| Agent::start(mount, &programs, kind);
    // Nothing is known here, so that an agent which these tests run below does not answer.
    let Some(plain) = Mount::new() else { return };
    let (mut agent, other) = (start(&plain, &MYSTERY), start(&plain, &MYSTERY));
    let (session, rule) = agent.identity();
    assert!(session.starts_with("sid-"), "{session}");
    let (held, seconds) = life(&plain, &mut agent, &mut [other]);
    held.tell("unknown", &rule, seconds);
    // Each call is a POSIX session of its own, and what it claims is free when it ends: visibly so.
    let expected = Held {
        across_calls: false,
        against_others: false,
        freed_on_death: true,
    };
    assert_eq!(held, expected);

    let ways = [
        "name=mystery,session-var=MYSTERY_THREAD,pid-var=MYSTERY_PID,comm=mystery",
        "name=mystery,session-var=MYSTERY_THREAD",
        "name=mystery,mark=MYSTERY_THREAD,pid-var=MYSTERY_PID",
        "comm=mystery,name=mystery",
    ];
    for (way, no_agents) in ways.into_iter().zip([false, true, true, false]) {
        let Some(mut told) = Mount::unmounted() else {
            return;
        };
        told.knows_agents = !no_agents;
        told.start(&["--agent", way]);
        // It is still told of it after a restart.
        told.kill_server();
        let (mut agent, second) = (start(&told, &MYSTERY), start(&told, &MYSTERY));
        let third = start(&told, &CLAUDE);
        let (session, rule) = agent.identity();
        let own = format!("mystery-{}-", agent.pid);
        assert!(session.starts_with(&own), "{way}: {session}, not {own}…");
        let (held, seconds) = life(&told, &mut agent, &mut [second, third]);
        held.tell(&format!("unknown, --agent '{way}'"), &rule, seconds);
        assert_eq!(held, Held::ALL, "{way}");
    }
}

#[test]
fn an_unknown_agent_whose_calls_share_its_posix_session_holds_what_they_claim() {
    let Some(mount) = Mount::new() else { return };
    let programs = Programs::new();
    let start = |kind| Agent::start(&mount, &programs, kind);
    let (mut agent, mut other) = (start(&MYSTERY), start(&MYSTERY));
    let call = |agent: &mut Agent, script: &str| {
        let mut request = agent.request(script, true);
        request["session"] = false.into();
        agent.actor.call("run", request).unwrap()["code"] == 0
    };
    assert!(call(&mut agent, CLAIM));
    assert!(call(&mut agent, "echo again > claims/x"));
    assert!(!call(&mut other, "echo theirs > claims/x"));
    assert!(!call(&mut other, "rm -f claims/x"));
    agent.kill();
    assert!(call(&mut other, CLAIM));
}

// Processes that outlive their call.

#[test]
fn parallel_calls_of_an_agent_are_one_session() {
    let kinds = [CLAUDE, CODEX, GEMINI, OPENCODE];
    let bwrap = has_bwrap();
    for kind in kinds.iter().filter(|kind| bwrap || kind.name != "codex") {
        let Some(mount) = mount(&[]) else { return };
        let programs = Programs::new();
        let mut agent = Agent::start(&mount, &programs, kind);
        // Each claims, waits until the other has, and writes what the other holds.
        let script = |own: &str, other: &str| {
            format!(
                "set -C; : > claims/{own}; set +C; until [ -e claims/{other} ] || [ ! -d claims ]; do :; done
                 echo by {own} > claims/{other} && echo > claims/{own}-done"
            )
        };
        let calls = [
            agent.begin(&script("a", "b")),
            agent.begin(&script("b", "a")),
        ];
        wait_until("both calls are done", || {
            calls.iter().all(|pid| is_over(*pid))
        });
        assert_eq!(mount.claims(), ["a", "a-done", "b", "b-done"]);
        assert_eq!(mount.read("claims/a"), "by b\n");
        // Of one exclusive create, one of them has it.
        let script = "set -C; echo > claims/once && echo > claims/won-$$";
        let calls = [agent.begin(script), agent.begin(script)];
        wait_until("both calls are done", || {
            calls.iter().all(|pid| is_over(*pid))
        });
        let won = mount
            .claims()
            .iter()
            .filter(|name| name.starts_with("won"))
            .count();
        assert_eq!(won, 1, "{}", kind.name);
        agent.kill();
        wait_until("all is free", || mount.claims().is_empty());
    }
}

#[test]
fn a_background_job_is_of_its_agents_session_after_its_call_and_after_its_agent() {
    let Some(mount) = mount(&[]) else { return };
    for kind in [&CLAUDE, &GEMINI, &OPENCODE] {
        let programs = Programs::new();
        let mut agent = Agent::start(&mount, &programs, kind);
        let (go, end, told) = (
            programs.until("go"),
            programs.until("end"),
            programs.file("told"),
        );
        // It claims while its call is there, and again when only its agent is, and when nobody is.
        agent.says(&format!(
            "(echo > claims/job; echo $BASHPID > {told}
              {go}; echo > claims/later
              {end}) < /dev/null > /dev/null 2>&1 &
             until [ -s {told} ]; do :; done; echo > claims/call"
        ));
        let job: u32 = fs::read_to_string(&told).unwrap().trim().parse().unwrap();
        let session = mount.session_of("job");
        assert_eq!(mount.session_of("call"), session);
        let own = format!("{}-{}-", kind.name, agent.pid);
        assert!(session.as_ref().unwrap().starts_with(&own), "{session:?}");
        // In the next call the agent has the claims of the job.
        agent.says("echo by the next > claims/job");
        agent.kill();
        // The job is a root, so the session goes on: on doubt, hold.
        programs.tell("go");
        wait_until("the job claims", || mount.path("claims/later").exists());
        assert_eq!(mount.session_of("later"), session, "{}", kind.name);
        let text = mount.read(&format!("sessions/{}", session.unwrap()));
        let live: Value = serde_json::from_str(&text).unwrap();
        let mut roots = live["roots"].as_array().unwrap().iter();
        assert!(
            roots.all(|root| root["pid"] == job),
            "only the job lives: {text}"
        );
        let mut next = Agent::start(&mount, &programs, kind);
        assert!(!next.does("set -C; echo > claims/call"));
        assert!(!next.does("rm -f claims/job"));
        programs.tell("end");
        wait_until("the job is over", || is_over(job));
        assert_eq!(mount.claims(), [""; 0]);
    }
}

#[test]
fn a_background_job_that_claims_first_as_an_orphan_is_a_session_of_its_own() {
    let Some(mount) = mount(&[]) else { return };
    let programs = Programs::new();
    let mut agent = Agent::start(&mount, &programs, &CLAUDE);
    let (end, told) = (programs.until("end"), programs.file("told"));
    agent.says(&format!(
        "echo > claims/x; call=$$
         (while [ -d /proc/$call ]; do :; done; echo > claims/job; echo mine > claims/x; echo $? > {told}
          {end}) < /dev/null > /dev/null 2>&1 &"
    ));
    wait_until("the job has claimed", || {
        fs::read_to_string(&told).is_ok_and(|text| !text.is_empty())
    });
    let (job, own) = (mount.record("job").unwrap(), mount.session_of("x"));
    let pid = job["pid"].as_u64().unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Elsewhere, what has adopted it is not to be told from an agent (prctl(2),
    // PR_SET_CHILD_SUBREAPER).
    if stat.rsplit(')').next().unwrap().split(' ').nth(2) == Some("1") {
        assert_eq!(
            job["session"],
            format!("claude-code-{pid}-{}-uid-{}", start_of(&stat), job["uid"])
        );
    }
    // Its agent lives, and is not above it any more: nobody can tell that it is its own.
    assert_ne!(job["session"].as_str(), own.as_deref());
    assert_ne!(fs::read_to_string(&told).unwrap(), "0\n");
    assert!(!agent.does("rm -f claims/job"));
    agent.kill();
    assert_eq!(mount.claims(), ["job"]);
    programs.tell("end");
    wait_until("the job is over", || mount.claims().is_empty());
}

/// When a process has started, in its stat.
fn start_of(stat: &str) -> &str {
    stat.rsplit(')').next().unwrap().split(' ').nth(20).unwrap()
}

#[test]
fn a_background_job_that_has_claimed_nothing_keeps_nothing() {
    let Some(mount) = mount(&[]) else { return };
    let programs = Programs::new();
    let mut agent = Agent::start(&mount, &programs, &CLAUDE);
    let (end, told) = (programs.until("end"), programs.file("told"));
    agent.says(&format!(
        "({end}) < /dev/null > /dev/null 2>&1 & echo $! > {told}; echo > claims/x"
    ));
    let job: u32 = fs::read_to_string(&told).unwrap().trim().parse().unwrap();
    agent.kill();
    assert!(!is_over(job));
    assert_eq!(mount.claims(), [""; 0]);
    programs.tell("end");
    wait_until("the job is over", || is_over(job));
}

#[test]
fn a_call_that_goes_on_when_its_agent_is_killed_keeps_what_it_claimed() {
    // The script works on, so what it claimed for that is not free.
    let Some(mount) = mount(&[]) else { return };
    let programs = Programs::new();
    let mut agent = Agent::start(&mount, &programs, &CLAUDE);
    let end = programs.until("end");
    let call = agent.begin(&format!("echo > claims/x; {end}"));
    wait_until("the call has claimed", || mount.path("claims/x").exists());
    agent.kill();
    let mut next = Agent::start(&mount, &programs, &CLAUDE);
    assert!(!next.does(CLAIM));
    programs.tell("end");
    wait_until("the call is over", || is_over(call));
    next.says(CLAIM);
}

#[test]
fn the_sandboxes_of_codex_die_with_it() {
    if !has_bwrap() {
        return;
    }
    let Some(mount) = mount(&[]) else { return };
    let programs = Programs::new();
    let mut agent = Agent::start(&mount, &programs, &CODEX);
    agent.begin("echo > claims/x; while :; do :; done");
    wait_until("the call has claimed", || mount.path("claims/x").exists());
    agent.kill();
    let mut next = Agent::start(&mount, &programs, &CODEX);
    wait_until("its claim is free", || next.does(CLAIM));
}

// Agents in agents.

#[test]
fn of_nested_agents_the_nearest_holds() {
    let Some(mount) = mount(&[]) else { return };
    let programs = Programs::new();
    let script = programs.file("gemini");
    fs::write(&script, "export GEMINI_CLI=1; setsid -w bash -c \"$1\"; :").unwrap();
    let in_claude = format!(
        "{} -c 'export CLAUDECODE=1 CLAUDE_CODE_SESSION_ID=inner CLAUDE_PID=$$; echo $$; setsid -w bash -c \"$0\"; :'",
        programs.shell("claude")
    );
    let in_gemini = format!("echo none; {} {script}", programs.shell("node"));
    for outer in [&CLAUDE, &GEMINI, &OPENCODE] {
        for (name, inner) in [("claude-code", &in_claude), ("gemini-cli", &in_gemini)] {
            let mut agent = Agent::start(&mount, &programs, outer);
            agent.says(CLAIM);
            let text = agent.says(&format!(
                "{inner} 'cat self; set -C; echo > claims/x; rm -f claims/x; echo > claims/inner; :'"
            ));
            let (pid, me) = text.split_once('\n').unwrap();
            let me: Value = serde_json::from_str(me).unwrap();
            let session = me["session"].as_str().unwrap();
            let own = agent.identity().0;
            assert!(session.starts_with(&format!("{name}-")), "{me}");
            assert_ne!(session, own, "{} in {}", name, outer.name);
            assert!(pid == "none" || session.contains(pid), "{pid}: {session}");
            // It was refused the outer one's, and its own has gone with it.
            assert_eq!(mount.claims(), ["x"]);
            assert_eq!(mount.session_of("x"), Some(own));
            agent.says("rm claims/x");
        }
    }
}

#[test]
fn a_registered_session_and_a_variable_come_before_the_agent() {
    let Some(mount) = mount(&[]) else { return };
    let programs = Programs::new();
    let mut agent = Agent::start(&mount, &programs, &CLAUDE);
    let me = agent.says("echo $$ > sessions/w1; cat self; :");
    assert!(
        me.contains("\"session\":\"w1\"") && me.contains("registered"),
        "{me}"
    );
    let me = agent.says("CLAIMFS_SESSION=w2 sh -c 'cat self; :'");
    assert!(
        me.contains("\"session\":\"w2\"") && me.contains("variable"),
        "{me}"
    );
    assert_eq!(agent.identity().1, "agent");
}

// Rule 4.

#[test]
fn a_sandbox_holds_what_is_claimed_in_it_until_its_init_is_dead() {
    if !has_bwrap() {
        return;
    }
    // No agent is known, whatever these tests are run by.
    let Some(mount) = Mount::new() else { return };
    let sandbox = |name: &str| {
        let command = format!(
            "exec bwrap --unshare-pid --proc /proc --dev-bind / / bash -c '
                setsid -w sh -c \"set -C; echo > claims/{name}\"; echo $?
                while read line; do setsid -w sh -c \"$line\"; echo $?; done'"
        );
        let mut command = mount.sh(&command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut guard = Guard::spawn(command.stderr(Stdio::null()));
        assert_eq!(guard.line(), "0");
        guard
    };
    let (mut one, mut two) = (sandbox("a"), sandbox("b"));
    let ask = |guard: &mut Guard, script: &str| {
        writeln!(guard.0.stdin.as_mut().unwrap(), "{script}").unwrap();
        guard.line()
    };
    assert_eq!(ask(&mut one, "echo more > claims/a"), "0");
    assert_ne!(ask(&mut two, "rm -f claims/a"), "0");
    let rule = &mount.record("a").unwrap()["session"];
    assert!(rule.as_str().unwrap().starts_with("sandbox-"), "{rule}");
    // With bwrap itself, its monitor, the init in the sandbox does not die: it has no
    // die-with-parent.
    let init = children(one.0.id())[0];
    assert_eq!(unsafe { libc::kill(init as i32, libc::SIGKILL) }, 0);
    wait_until("the sandbox is gone", || is_over(one.0.id()));
    assert_eq!(mount.claims(), ["b"]);
    assert_eq!(ask(&mut two, "rm claims/b"), "0");
}

#[test]
fn users_in_one_sandbox_do_not_keep_each_other_out() {
    if !root_or_skip("be two users") || !has_bwrap() {
        return;
    }
    let Some(mount) = Mount::with(&["--allow-other"]) else {
        return;
    };
    let script = "bwrap --unshare-pid --proc /proc --dev-bind / / bash -c '
        set -C; echo > claims/root && setpriv --reuid 1234 --clear-groups sh -c \"set -C; echo > claims/other && cat claims/other\"; :'";
    let record: Value = serde_json::from_str(&mount.run(script)).unwrap();
    let session = record["session"].as_str().unwrap();
    assert!(session.ends_with("-uid-1234"), "{session}");
}

// The command line.

#[test]
fn without_agents_a_call_is_what_its_processes_come_to() {
    let Some(mount) = Mount::new() else { return };
    let programs = Programs::new();
    for kind in [&CLAUDE, &GEMINI, &OPENCODE] {
        let mut agent = Agent::start(&mount, &programs, kind);
        assert_eq!(agent.identity().1, "posix", "{}", kind.name);
        agent.says(CLAIM);
        assert_eq!(mount.claims(), [""; 0], "its call is over");
    }
}

#[test]
fn an_agent_that_is_badly_described_is_bad_usage() {
    let temp = TempDir::new();
    let long = format!("name={},comm=x", "n".repeat(65));
    let cases = [
        ("", "'' is not KEY=VALUE"),
        ("mystery", "'mystery' is not KEY=VALUE"),
        ("name=", "'name=' is not KEY=VALUE"),
        ("name=m,comm=a=b", "'comm=a=b' is not KEY=VALUE"),
        ("name=m,,comm=x", "'' is not KEY=VALUE"),
        (
            "name=m,program=x",
            "there is no 'program'; see 'claimfs mount --help'",
        ),
        ("comm=x", "it has no name that can be part of a session's"),
        (
            "name=a/b,comm=x",
            "it has no name that can be part of a session's",
        ),
        (
            "name=.m,comm=x",
            "it has no name that can be part of a session's",
        ),
        (&long, "it has no name that can be part of a session's"),
        (
            "name=m",
            "nothing says how it is recognised: session-var, mark or comm",
        ),
        (
            "name=m,pid-var=P",
            "nothing says how it is recognised: session-var, mark or comm",
        ),
    ];
    for (agent, sentence) in cases {
        for place in [&["--foreground"][..], &[]] {
            let mut command = Command::new(CLAIMFS);
            command.arg("mount").args(place).args(["--agent", agent]);
            command.arg(temp.path().join("mount"));
            plain(&mut command);
            let output = command.env("XDG_STATE_HOME", temp.path()).output().unwrap();
            let expected = format!("claimfs: --agent '{agent}': {sentence}\n");
            assert_eq!(text(&output), (2, String::new(), expected));
        }
    }
    assert!(!temp.path().join("claimfs").exists(), "nothing was begun");
}
