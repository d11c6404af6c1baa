//! Whose lease is it, in the pure core: rules 3 and 4 of the design on a made-up tree of processes
//! (`identity.rs`). With real processes: `sessions/agents.rs`.

use claimfs::core::agents;
use claimfs::core::identity::ancestry;
use claimfs::core::{Refusal, Rule};

use crate::core::identity::{Answer, Look, Tree, UID, answer, member, says};

/// The variables of a conversation of Claude Code whose agent is this process.
fn claude<'a>(session: &'a str, pid: &'a str) -> [(&'a str, &'a str); 3] {
    [
        ("CLAUDECODE", "1"),
        ("CLAUDE_CODE_SESSION_ID", session),
        ("CLAUDE_PID", pid),
    ]
}

const GEMINI: [(&str, &str); 1] = [("GEMINI_CLI", "1")];

/// A chain of processes, of which some run these programs; all agents are known.
fn chain(pids: &[u32], programs: &[(u32, &str)]) -> Tree {
    let mut tree = Tree::chain(pids);
    tree.agents = agents::known();
    for (pid, program) in programs {
        tree.call(*pid, program);
    }
    tree
}

/// The session of the agent that is this process; of what it has left behind, the topmost.
fn of(name: &str, pid: u32, roots: &[u32]) -> Answer {
    let id = format!("{name}-{pid}-{}-uid-{UID}", pid * 10);
    says(&id, Rule::Agent, roots)
}

/// The answer of rule 5 below a terminal.
fn terminal(roots: &[u32]) -> Answer {
    says("sid-10-uid-1000", Rule::Posix, roots)
}

// Rule 3: how one is found.

#[test]
fn an_agent_is_the_parent_of_the_topmost_process_that_carries_its_variable() {
    // 10 is a terminal's shell, 20 the agent, 30 and 40 a command of its and what that runs.
    for agent in agents::known() {
        for variable in agent.values.iter().chain(&agent.marks) {
            let tree = chain(&[10, 20, 30, 40], &[(20, "node")]);
            tree.mark(&[30, 40], &[(variable, "1")]);
            let expected = of(&agent.name, 20, &[20, 30, 40]);
            assert_eq!(tree.answer(40, &[]), expected, "{variable}");
            let expected = of(&agent.name, 20, &[20, 30]);
            assert_eq!(tree.answer(30, &[]), expected, "{variable}");
            // Itself it does not carry it, nor do those above it.
            assert_eq!(tree.answer(20, &[]), terminal(&[10, 20]), "{variable}");
            assert_eq!(tree.answer(10, &[]), terminal(&[10]), "{variable}");
        }
    }
}

#[test]
fn an_agent_is_known_by_its_program_whatever_its_commands_carry() {
    for agent in agents::known() {
        for program in &agent.programs {
            let tree = chain(&[10, 20, 30, 40], &[(20, program)]);
            let expected = of(&agent.name, 20, &[20, 30, 40]);
            assert_eq!(tree.answer(40, &[]), expected, "{program}");
            // The agent's own process is the agent too: the shell of crush runs in it.
            let expected = of(&agent.name, 20, &[20]);
            assert_eq!(tree.answer(20, &[]), expected, "{program}");
            tree.call(20, &format!("{program}-like"));
            assert_eq!(tree.answer(40, &[]).1, Rule::Posix, "{program}");
        }
    }
}

#[test]
fn a_program_is_also_the_script_that_an_interpreter_runs() {
    let tree = chain(&[10, 20, 30], &[]);
    tree.edit(20, |facts| {
        facts.command = "node".into();
        facts.program = "gemini".into();
    });
    assert_eq!(tree.answer(30, &[]), of("gemini-cli", 20, &[20, 30]));
}

#[test]
fn a_program_with_a_long_name_is_known_by_what_the_kernel_shows_of_it() {
    let tree = |command: &str| {
        let mut tree = chain(&[10, 20, 30], &[(20, command)]);
        tree.agents.retain(|agent| agent.name == "aider");
        tree.agents[0].programs = vec!["an-agent-with-a-name".into()];
        tree.answer(30, &[])
    };
    assert_eq!(tree("an-agent-with-a"), of("aider", 20, &[20, 30]));
    assert_eq!(tree("an-agent-with"), terminal(&[10, 20, 30]));
    assert_eq!(tree("an-agent-with-b"), terminal(&[10, 20, 30]));
}

#[test]
fn an_agent_that_is_the_first_process_of_a_container_is_known_by_its_program() {
    let tree = chain(&[20, 30], &[(1, "claude")]);
    tree.edit(1, |init| init.uid = UID);
    tree.mark(&[20, 30], &claude("one", "1"));
    let expected = of("claude-code", 1, &[1, 20, 30]);
    assert_eq!(tree.answer(30, &[]), expected);
    // A process that it has adopted is still its own.
    tree.edit(20, |call| call.adopted = true);
    assert_eq!(tree.answer(30, &[]), expected);
    // Any other first process is nobody's agent.
    tree.call(1, "sh");
    assert_eq!(tree.answer(30, &[]), of("claude-code", 20, &[20, 30]));
}

#[test]
fn the_id_of_an_agent_or_a_sandbox_is_its_own_uids() {
    for (id, refused) in [
        ("claude-code-30-300-uid-1001", true),
        ("sandbox-4026532179-uid-1001", true),
        ("sid-7-uid-1001", true),
        ("claude-code-30-300-uid-1000", false),
        ("sandbox-4026532179-uid-1000", false),
        ("my-uid-1001", false),
        ("team-7-uid-1001", false),
        ("claude-code-30-300", false),
    ] {
        let tree = Tree::chain(&[10, 20]);
        tree.set(&[10, 20], id);
        let refusal = tree.member(20, &[]).err();
        assert_eq!(refusal, refused.then_some(Refusal::NotPermitted), "{id}");
    }
}

#[test]
fn calls_of_one_agent_are_one_session_whatever_the_conversation_is_called() {
    // The value changes with /clear; it finds the agent and is not the session.
    let tree = chain(&[10, 20], &[(20, "claude")]);
    for (call, session) in [(30, "one"), (40, "one"), (50, "two")] {
        tree.add(call, 20);
        tree.mark(&[call], &claude(session, "20"));
        let expected = of("claude-code", 20, &[20, call]);
        assert_eq!(tree.answer(call, &[]), expected);
    }
}

#[test]
fn two_agents_of_a_terminal_are_two_sessions() {
    let tree = chain(&[10, 20, 30], &[(20, "codex")]);
    tree.mark(&[30], &[("CODEX_THREAD_ID", "a")]);
    tree.add(40, 10);
    tree.call(40, "codex");
    tree.add(50, 40);
    tree.mark(&[50], &[("CODEX_THREAD_ID", "b")]);
    assert_eq!(tree.answer(30, &[]), of("codex", 20, &[20, 30]));
    assert_eq!(tree.answer(50, &[]), of("codex", 40, &[40, 50]));
}

#[test]
fn crush_is_its_own_ancestor_and_its_external_commands_are_of_the_same_session() {
    let tree = chain(&[10, 20, 30], &[(20, "crush")]);
    tree.mark(&[30], &[("CRUSH", "1")]);
    assert_eq!(tree.answer(20, &[]), of("crush", 20, &[20]));
    assert_eq!(tree.answer(30, &[]), of("crush", 20, &[20, 30]));
}

#[test]
fn of_two_agents_in_one_process_the_one_that_poses_as_another_is_meant() {
    let tree = chain(&[10, 20, 30], &[(20, "node")]);
    tree.mark(
        &[30],
        &[("AMP_CURRENT_THREAD_ID", "T-1"), ("CLAUDECODE", "1")],
    );
    assert_eq!(tree.answer(30, &[]), of("amp", 20, &[20, 30]));
}

#[test]
fn variables_that_many_set_name_no_agent() {
    let tree = chain(&[10, 20, 30], &[]);
    let marks = [
        ("AGENT", "amp"),
        ("AI_AGENT", "claude-code"),
        ("CURSOR_TRACE_ID", "x"),
        ("COPILOT_AGENT", "1"),
        ("CODEX_COMPANION_SESSION_ID", "x"),
        ("CLAUDECODE_", "1"),
    ];
    tree.mark(&[30], &marks);
    assert_eq!(tree.answer(30, &[]), terminal(&[10, 20, 30]));
}

// Rule 3: nested agents.

/// 20 is an agent, 30 a command of its, 40 an agent that this runs, 50 a command of that, 60 what
/// this runs.
const NESTED: [u32; 6] = [10, 20, 30, 40, 50, 60];

#[test]
fn of_nested_agents_the_nearest_is_meant() {
    let tree = chain(&NESTED, &[(20, "node"), (40, "node")]);
    let (outer, inner) = (claude("outer", "20"), claude("inner", "40"));
    tree.mark(&[30, 40], &outer);
    tree.mark(&[50, 60], &inner);
    assert_eq!(tree.answer(60, &[]), of("claude-code", 40, &[40, 50, 60]));
    assert_eq!(tree.answer(30, &[]), of("claude-code", 20, &[20, 30]));
}

#[test]
fn nested_agents_of_one_constant_marker_are_told_apart_by_their_programs() {
    let both = [
        ("gemini-cli", "gemini", GEMINI[0]),
        ("claude-code", "claude", ("CLAUDECODE", "1")),
        ("opencode", "opencode", ("OPENCODE", "1")),
        ("crush", "crush", ("CRUSH", "1")),
    ];
    for (name, program, mark) in both {
        // As a script, its command is that of its interpreter.
        for command in [program, "node", "MainThread"] {
            let tree = chain(&NESTED, &[(20, program), (40, program)]);
            for pid in [20, 40] {
                tree.edit(pid, |facts| facts.command = command.into());
            }
            tree.mark(&[30, 40, 50, 60], &[mark]);
            assert_eq!(tree.answer(60, &[]), of(name, 40, &[40, 50, 60]));
            assert_eq!(tree.answer(40, &[]), of(name, 40, &[40]));
            assert_eq!(tree.answer(30, &[]), of(name, 20, &[20, 30]));
        }
    }
}

#[test]
fn nested_agents_of_one_constant_marker_and_no_program_are_the_outer_one() {
    // Nothing tells them apart: on doubt, hold.
    let tree = chain(&NESTED, &[(20, "node"), (40, "node")]);
    tree.mark(&[30, 40, 50, 60], &GEMINI);
    let expected = of("gemini-cli", 20, &[20, 30, 40, 50, 60]);
    assert_eq!(tree.answer(60, &[]), expected);
}

#[test]
fn a_nested_agent_and_what_it_starts_in_its_own_environment_are_one_session() {
    // 40 carries what the outer one gave its commands, and so do the servers that it starts, which
    // is 50.
    let (of_claude, qwen) = (
        claude("outer", "20"),
        [("QWEN_CODE", "1"), ("QWEN_CODE_SESSION_ID", "outer")],
    );
    for (name, program, marks) in [
        ("claude-code", "claude", &of_claude[..]),
        ("qwen-code", "qwen", &qwen),
    ] {
        let tree = chain(&NESTED, &[(20, program), (40, program)]);
        tree.mark(&[30, 40, 50, 60], marks);
        assert_eq!(tree.answer(60, &[]), of(name, 40, &[40, 50, 60]));
        assert_eq!(tree.answer(40, &[]), of(name, 40, &[40]));
    }
}

#[test]
fn of_different_agents_the_nearest_is_meant_in_either_order() {
    let (thread, session) = (("CODEX_THREAD_ID", "t"), ("CLAUDE_CODE_SESSION_ID", "s"));
    for programs in [["codex", "claude"], ["node", "node"]] {
        let tree = chain(&NESTED, &[(20, programs[0]), (40, programs[1])]);
        tree.mark(&[30, 40], &[thread]);
        tree.mark(&[50, 60], &[thread, session, ("CLAUDE_PID", "40")]);
        assert_eq!(tree.answer(60, &[]), of("claude-code", 40, &[40, 50, 60]));
        assert_eq!(tree.answer(30, &[]), of("codex", 20, &[20, 30]));

        let tree = chain(&NESTED, &[(20, programs[1]), (40, programs[0])]);
        tree.mark(&[30, 40], &[session, ("CLAUDE_PID", "20")]);
        tree.mark(&[50, 60], &[session, ("CLAUDE_PID", "20"), thread]);
        assert_eq!(tree.answer(60, &[]), of("codex", 40, &[40, 50, 60]));
        assert_eq!(tree.answer(30, &[]), of("claude-code", 20, &[20, 30]));
    }
}

#[test]
fn an_agent_that_sets_nothing_is_the_nearest_below_one_that_does() {
    let tree = chain(&NESTED, &[(20, "claude"), (40, "aider")]);
    tree.mark(&[30, 40, 50, 60], &claude("outer", "20"));
    assert_eq!(tree.answer(60, &[]), of("aider", 40, &[40, 50, 60]));
    assert_eq!(tree.answer(40, &[]), of("aider", 40, &[40]));
}

// Rule 3: helpers.

/// 20 is Codex, 30 its helper for a command, 40 and 50 the monitor and the init of the sandbox, 60
/// the command.
fn helped() -> Tree {
    let names = [20, 30, 40, 50].map(|pid| (pid, "codex"));
    let tree = chain(&NESTED, &names);
    tree.mark(&[30, 40, 50, 60], &[("CODEX_THREAD_ID", "t")]);
    for (pid, local) in [(50, 1), (60, 2)] {
        tree.edit(pid, |facts| (facts.pidns, facts.local_pid) = (7, local));
    }
    tree
}

#[test]
fn a_helper_that_is_called_like_the_agent_and_carries_its_variable_is_not_the_agent() {
    let tree = helped();
    let expected = of("codex", 20, &[20, 30, 40, 50, 60]);
    assert_eq!(tree.answer(60, &[]), expected);
    // A patch that the agent applies itself is the agent's too.
    assert_eq!(tree.answer(30, &[]), of("codex", 20, &[20, 30]));
    tree.call(30, "codex-linux-san");
    assert_eq!(tree.answer(60, &[]), expected);
}

#[test]
fn helpers_whose_environment_is_unreadable_are_not_the_agent_either() {
    // Codex makes itself undumpable (openai/codex#4521), so that only root reads the environment of
    // what runs its binary.
    let tree = helped();
    for pid in [20, 30, 40, 50] {
        tree.hide(pid);
    }
    let expected = of("codex", 20, &[20, 30, 40, 50, 60]);
    assert_eq!(tree.answer(60, &[]), expected);
    assert_eq!(tree.answer(30, &[]), of("codex", 20, &[20, 30]));
    assert_eq!(tree.answer(20, &[]), of("codex", 20, &[20]));
}

#[test]
fn a_nested_agent_of_another_thread_is_no_helper() {
    for hidden in [&[][..], &[20, 40]] {
        let tree = chain(&NESTED, &[(20, "codex"), (40, "codex")]);
        tree.mark(&[30, 40], &[("CODEX_THREAD_ID", "outer")]);
        tree.mark(&[50, 60], &[("CODEX_THREAD_ID", "inner")]);
        for pid in hidden {
            tree.hide(*pid);
        }
        assert_eq!(tree.answer(60, &[]), of("codex", 40, &[40, 50, 60]));
        assert_eq!(tree.answer(30, &[]), of("codex", 20, &[20, 30]));
    }
}

// Rule 3: declared pids.

#[test]
fn a_declared_pid_names_the_agent_where_it_is_a_live_ancestor() {
    // 20 is the agent; 30 wraps its commands, and carries nothing.
    let tree = chain(&[10, 20, 30, 40], &[(20, "node")]);
    tree.mark(&[40], &claude("s", "20"));
    let expected = of("claude-code", 20, &[20, 30, 40]);
    assert_eq!(tree.answer(40, &[]), expected);
}

#[test]
fn a_declared_pid_that_is_no_live_ancestor_counts_for_nothing() {
    let tree = chain(&[10, 20, 30, 40], &[(20, "node")]);
    // Beside it, and below it.
    tree.add(50, 10);
    tree.add(60, 40);
    let garbage = [
        "99",
        "50",
        "60",
        "1",
        "0",
        "-20",
        "",
        "20x",
        "x",
        " 20",
        "4294967316",
    ];
    for pid in garbage {
        tree.mark(&[30, 40], &claude("s", pid));
        let expected = of("claude-code", 20, &[20, 30, 40]);
        assert_eq!(tree.answer(40, &[]), expected, "{pid:?}");
    }
}

#[test]
fn a_declared_pid_does_not_name_what_carries_it() {
    // A pid is a number of the declarer's namespace. In the sandbox of a command, that number is
    // some other process: here the agent is pid 2 of its container, and the shell pid 2 of the
    // sandbox that it runs commands in.
    let tree = chain(&NESTED, &[(20, "node")]);
    for (pid, namespace, local) in [
        (10, 7, 1),
        (20, 7, 2),
        (30, 7, 3),
        (40, 8, 1),
        (50, 8, 2),
        (60, 8, 3),
    ] {
        tree.edit(pid, |facts| {
            (facts.pidns, facts.local_pid) = (namespace, local);
        });
    }
    tree.mark(&[30, 40, 50, 60], &claude("s", "2"));
    let expected = of("claude-code", 20, &[20, 30, 40, 50, 60]);
    assert_eq!(tree.answer(60, &[]), expected);
}

#[test]
fn a_nearer_process_of_its_program_outweighs_the_pid_that_the_outer_agent_declares() {
    // One measured Claude Code hands on the CLAUDE_PID of the agent that it is nested in.
    let tree = chain(&NESTED, &[(20, "claude"), (40, "claude")]);
    tree.mark(&[30, 40], &claude("outer", "20"));
    tree.mark(&[50, 60], &claude("inner", "20"));
    assert_eq!(tree.answer(60, &[]), of("claude-code", 40, &[40, 50, 60]));
    // And where only the markers that all have are set.
    tree.mark(
        &[30, 40, 50, 60],
        &[("CLAUDECODE", "1"), ("CLAUDE_PID", "20")],
    );
    assert_eq!(tree.answer(60, &[]), of("claude-code", 40, &[40, 50, 60]));
}

// Rule 3: when the agent is gone.

#[test]
fn what_an_agent_has_left_behind_never_takes_pid_1_for_it() {
    for init_uid in [0, UID] {
        let tree = chain(&[10, 20, 30, 40], &[(20, "claude")]);
        tree.edit(1, |init| init.uid = init_uid);
        tree.mark(&[30, 40], &claude("s", "20"));
        tree.kill(20);
        let ancestry = tree.ancestry(40);
        assert!(ancestry.is_left_behind());
        let expected = of("claude-code", 30, &[30, 40]);
        assert_eq!(answer(&member(&ancestry, &[]).unwrap()), expected);
        // Even if that is what the variable says.
        tree.mark(&[30, 40], &claude("s", "1"));
        assert_eq!(tree.answer(40, &[]), expected);
    }
}

#[test]
fn what_an_agent_has_left_behind_never_takes_a_subreaper_for_it() {
    for declared in ["20", "15"] {
        for name in ["systemd", "tini", "supervisor"] {
            let tree = chain(&[15, 20, 30, 40], &[(15, name), (20, "claude")]);
            tree.mark(&[30, 40], &claude("s", declared));
            tree.kill(20);
            tree.edit(30, |job| (job.parent, job.adopted) = (15, true));
            let (session, rule, roots) = tree.answer(40, &[]);
            assert_eq!((rule, roots), (Rule::Agent, vec![30, 40]), "{name}");
            if declared == "20" {
                assert_eq!(session, "claude-code-30-300-uid-1000", "{name}");
            }
        }
    }
}

#[test]
fn what_is_left_behind_below_another_agent_is_not_that_ones() {
    // The inner agent is gone; the outer one is a subreaper, and adopts.
    let tree = chain(&NESTED, &[(20, "node"), (40, "node")]);
    tree.mark(&[30, 40], &GEMINI);
    tree.mark(&[50, 60], &[GEMINI[0], ("CODEX_THREAD_ID", "t")]);
    tree.kill(40);
    tree.edit(50, |job| (job.parent, job.adopted) = (20, true));
    assert_eq!(tree.answer(60, &[]), of("codex", 50, &[50, 60]));
}

#[test]
fn another_uid_ends_the_chain_and_is_no_agent() {
    // sudo, say, between the agent and what it runs.
    let tree = chain(&[10, 20, 30, 40], &[(20, "claude"), (30, "sudo")]);
    tree.mark(&[30, 40], &claude("s", "20"));
    tree.edit(20, |facts| facts.uid = 0);
    tree.edit(30, |facts| facts.uid = 0);
    assert_eq!(tree.answer(40, &[]), of("claude-code", 40, &[40]));
    // One that says nothing is of no agent.
    tree.mark(&[40], &[]);
    assert_eq!(tree.answer(40, &[]), terminal(&[40]));
}

// Rule 3: environments that cannot be read.

#[test]
fn an_unreadable_environment_is_what_its_parents_is() {
    for hidden in [&[60][..], &[50], &[50, 60], &[40, 50]] {
        let tree = chain(&NESTED, &[(20, "node")]);
        tree.mark(&[30, 40, 50, 60], &claude("s", "20"));
        for pid in hidden {
            tree.hide(*pid);
        }
        let expected = of("claude-code", 20, &[20, 30, 40, 50, 60]);
        assert_eq!(tree.answer(60, &[]), expected, "{hidden:?}");
        tree.mark(&[30, 40, 50, 60], &GEMINI);
        let expected = of("gemini-cli", 20, &[20, 30, 40, 50, 60]);
        assert_eq!(tree.answer(60, &[]), expected, "{hidden:?}");
    }
}

#[test]
fn where_nothing_can_be_read_programs_still_name_the_nearest_agent() {
    let tree = chain(&NESTED, &[(20, "claude"), (40, "claude")]);
    for pid in NESTED {
        tree.hide(pid);
    }
    assert_eq!(tree.answer(60, &[]), of("claude-code", 40, &[40, 50, 60]));
    tree.call(20, "node");
    tree.call(40, "node");
    assert_eq!(tree.answer(60, &[]), terminal(&NESTED));
}

#[test]
fn an_agent_that_vanishes_while_it_is_looked_for_is_looked_for_again() {
    let tree = chain(&[10, 20, 30], &[(20, "node")]);
    tree.mark(&[30], &claude("s", "20"));
    tree.before(Look::Marks(20), |tree| tree.kill(20));
    assert_eq!(tree.answer(30, &[]), of("claude-code", 30, &[30]));
}

// The order of the rules.

#[test]
fn rules_1_and_2_come_before_rule_3() {
    let tree = chain(&[10, 20, 30, 40], &[(20, "claude")]);
    tree.mark(&[30, 40], &claude("s", "20"));
    let expected = says("w", Rule::Registered, &[10, 20, 30, 40]);
    assert_eq!(tree.answer(40, &[(10, "w", true)]), expected);
    tree.set(&[10, 20, 30, 40], "v");
    let expected = says("v", Rule::Variable, &[10, 20, 30, 40]);
    assert_eq!(tree.answer(40, &[]), expected);
    // Nor does an agent help out where a variable is no id.
    tree.set(&[40], "a/b");
    assert_eq!(tree.member(40, &[]), Err(Refusal::Invalid));
}

#[test]
fn rule_3_comes_before_rule_4_and_rule_4_before_rule_5() {
    let tree = sandbox();
    tree.mark(&[30, 40, 50], &[("CODEX_THREAD_ID", "t")]);
    assert_eq!(tree.answer(50, &[]), of("codex", 20, &[20, 30, 40, 50]));
    // An agent in the sandbox, and one below which the sandbox is, though nothing of its is inside.
    let tree = sandbox();
    tree.mark(&[50], &[("CODEX_THREAD_ID", "t")]);
    assert_eq!(tree.answer(50, &[]), of("codex", 40, &[40, 50]));
    let tree = sandbox();
    tree.call(20, "claude");
    let expected = of("claude-code", 20, &[20, 30, 40, 50]);
    assert_eq!(tree.answer(50, &[]), expected);
    let tree = sandbox();
    assert_eq!(tree.answer(50, &[]), inside(7, &[30, 40, 50]));
    assert_eq!(tree.answer(20, &[]), terminal(&[10, 20]));
}

// Rule 4.

/// 30 is the init of a sandbox with the processes 40 and 50.
fn sandbox() -> Tree {
    let tree = chain(&[10, 20, 30, 40, 50], &[]);
    for (pid, local) in [(30, 1), (40, 2), (50, 3)] {
        tree.edit(pid, |facts| (facts.pidns, facts.local_pid) = (7, local));
    }
    tree
}

fn inside(namespace: u64, roots: &[u32]) -> Answer {
    let session = format!("sandbox-{namespace}-uid-{UID}");
    says(&session, Rule::Sandbox, roots)
}

#[test]
fn a_sandbox_is_its_inits_although_that_adopts() {
    for init in ["sh", "bwrap", "tini", "systemd"] {
        let tree = sandbox();
        tree.call(30, init);
        assert_eq!(tree.answer(50, &[]), inside(7, &[30, 40, 50]), "{init}");
        // An orphan in it is its init's, and known as adopted by now.
        tree.kill(40);
        tree.edit(50, |orphan| (orphan.parent, orphan.adopted) = (30, true));
        assert_eq!(tree.answer(50, &[]), inside(7, &[30, 50]), "{init}");
        assert_eq!(tree.answer(30, &[]), inside(7, &[30]), "{init}");
    }
}

#[test]
fn whoever_has_adopted_within_a_sandbox_is_no_root() {
    let tree = sandbox();
    tree.edit(50, |facts| facts.adopted = true);
    let (session, rule, roots) = tree.answer(50, &[]);
    assert_eq!(
        (&*session, rule, roots),
        ("sandbox-7-uid-1000", Rule::Sandbox, vec![50])
    );
}

#[test]
fn a_process_that_has_entered_a_sandbox_is_of_its_session_and_roots_itself() {
    // 60 is nsenter(1), outside; 70 its child, inside.
    let tree = sandbox();
    tree.add(60, 10);
    tree.add(70, 60);
    tree.edit(70, |facts| (facts.pidns, facts.local_pid) = (7, 4));
    assert_eq!(tree.answer(70, &[]), inside(7, &[70]));
    assert_eq!(tree.answer(60, &[]).1, Rule::Posix);
}

#[test]
fn of_nested_sandboxes_the_innermost_is_meant() {
    let tree = sandbox();
    for (pid, parent, local) in [(60, 50, 1), (70, 60, 2)] {
        tree.add(pid, parent);
        tree.edit(pid, |facts| (facts.pidns, facts.local_pid) = (8, local));
    }
    assert_eq!(tree.answer(70, &[]), inside(8, &[60, 70]));
    assert_eq!(tree.answer(50, &[]), inside(7, &[30, 40, 50]));
}

#[test]
fn each_uid_has_a_session_of_its_own_in_a_sandbox() {
    // The init is another's, and hides what is above it.
    let tree = sandbox();
    tree.edit(30, |init| init.uid = 0);
    assert_eq!(tree.answer(50, &[]), inside(7, &[40, 50]));
    let ancestry = ancestry(&tree, Some(30), 30, 0).unwrap();
    let expected = says("sandbox-7-uid-0", Rule::Sandbox, &[30]);
    assert_eq!(answer(&member(&ancestry, &[]).unwrap()), expected);
}
