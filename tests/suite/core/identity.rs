//! Whose lease is it, in the pure core: rules 1, 2 and 5 of the design on a made-up tree of
//! processes, sentence by sentence, also while the tree changes.
//!
//! A [`Tree`] is a map of pids. A test may set a hook, which runs before each read of a process and
//! may change the tree as a dying or forking process would.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use claimfs::core::agents::Agent;
use claimfs::core::identity::{
    Ancestry, Facts, Marked, SESSION_VARIABLES, Sight, Variable, View, ancestry,
};
use claimfs::core::{Member, Process, Refusal, Rule, SessionId, Standing};

pub const UID: u32 = 1000;
/// The mount's own pid namespace.
const HOST: u64 = 0;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Look {
    Facts(u32),
    Variable(u32),
    Marks(u32),
}

type Hook = Box<dyn FnMut(&Tree, Look)>;

#[derive(Default)]
pub struct Tree {
    pub facts: RefCell<HashMap<u32, Facts>>,
    pub variables: RefCell<HashMap<u32, Variable>>,
    /// The agents that are known: none, unless a test is about them.
    pub agents: Vec<Agent>,
    marked: RefCell<HashMap<u32, Marked>>,
    hook: RefCell<Option<Hook>>,
    looks: Cell<usize>,
}

impl View for Tree {
    fn facts(&self, pid: u32) -> Sight<Facts> {
        self.look(Look::Facts(pid));
        let facts = self.facts.borrow().get(&pid).cloned();
        facts.map_or(Sight::Gone, Sight::Seen)
    }

    fn variable(&self, process: &Process, task: Option<u32>) -> Sight<Variable> {
        let task = task.unwrap_or(process.pid);
        self.look(Look::Variable(task));
        let facts = self.facts.borrow();
        if facts
            .get(&process.pid)
            .is_none_or(|facts| facts.process != *process)
        {
            return Sight::Gone;
        }
        let variables = self.variables.borrow();
        Sight::Seen(
            variables
                .get(&task)
                .cloned()
                .unwrap_or(Variable::Unreadable),
        )
    }

    fn agents(&self) -> &[Agent] {
        &self.agents
    }

    fn marks(&self, process: &Process, task: Option<u32>) -> Sight<Marked> {
        let task = task.unwrap_or(process.pid);
        self.look(Look::Marks(task));
        let facts = self.facts.borrow();
        if facts
            .get(&process.pid)
            .is_none_or(|facts| facts.process != *process)
        {
            return Sight::Gone;
        }
        match self.variables.borrow().get(&task) {
            None | Some(Variable::Unreadable) => Sight::Hidden,
            Some(_) => Sight::Seen(self.marked.borrow().get(&task).cloned().unwrap_or_default()),
        }
    }
}

impl Tree {
    /// Pid 1 and, below it, a shell of each pid given, each the child of the one before: a
    /// terminal, with the first shell as the leader of the POSIX session.
    pub fn chain(pids: &[u32]) -> Self {
        let tree = Self::default();
        tree.add(1, 0);
        tree.edit(1, |init| (init.uid, init.sid) = (0, 1));
        let mut parent = 1;
        for pid in pids {
            tree.add(*pid, parent);
            tree.edit(*pid, |facts| facts.sid = pids[0]);
            parent = *pid;
        }
        tree
    }

    pub fn add(&self, pid: u32, parent: u32) {
        let process = Process {
            pid,
            start: u64::from(pid) * 10,
            pidfs: u64::from(pid) + 5000,
        };
        let facts = Facts {
            process,
            parent,
            sid: pid,
            uid: UID,
            pidns: HOST,
            local_pid: pid,
            command: Arc::from("sh"),
            program: Arc::from("sh"),
            started: UNIX_EPOCH,
            adopted: false,
            environ: 0,
        };
        self.facts.borrow_mut().insert(pid, facts);
        self.variables.borrow_mut().insert(pid, Variable::Unset);
    }

    pub fn edit(&self, pid: u32, change: impl FnOnce(&mut Facts)) {
        change(self.facts.borrow_mut().get_mut(&pid).unwrap());
    }

    pub fn call(&self, pid: u32, command: &str) {
        self.edit(pid, |facts| {
            facts.command = Arc::from(command);
            facts.program = Arc::from(command);
        });
    }

    /// Each of the pids carries the first session variable with this value.
    pub fn set(&self, pids: &[u32], value: impl AsRef<[u8]>) {
        for pid in pids {
            let variable = Variable::Set {
                name: Arc::from(SESSION_VARIABLES[0]),
                value: value.as_ref().to_vec(),
            };
            self.variables.borrow_mut().insert(*pid, variable);
        }
    }

    /// Each of the pids carries these variables of agents.
    pub fn mark(&self, pids: &[u32], marks: &[(&str, &str)]) {
        let mark = |(name, value): &(&str, &str)| (Arc::from(*name), value.as_bytes().to_vec());
        let marks: Marked = marks.iter().map(mark).collect();
        for pid in pids {
            self.marked.borrow_mut().insert(*pid, marks.clone());
        }
    }

    pub fn hide(&self, pid: u32) {
        self.variables
            .borrow_mut()
            .insert(pid, Variable::Unreadable);
    }

    /// A process is gone, and its children are pid 1's.
    pub fn kill(&self, pid: u32) {
        self.facts.borrow_mut().remove(&pid);
        self.variables.borrow_mut().remove(&pid);
        for facts in self.facts.borrow_mut().values_mut() {
            if facts.parent == pid {
                facts.parent = 1;
            }
        }
    }

    fn hook(&self, hook: impl FnMut(&Tree, Look) + 'static) {
        *self.hook.borrow_mut() = Some(Box::new(hook));
    }

    /// Once, before the first such look, the tree changes.
    pub fn before(&self, look: Look, change: impl FnOnce(&Tree) + 'static) {
        let mut change = Some(change);
        self.hook(move |tree, now| {
            if now == look
                && let Some(change) = change.take()
            {
                change(tree);
            }
        });
    }

    fn look(&self, look: Look) {
        self.looks.set(self.looks.get() + 1);
        let hook = self.hook.take();
        if let Some(mut hook) = hook {
            hook(self, look);
            *self.hook.borrow_mut() = Some(hook);
        }
    }

    pub fn ancestry(&self, pid: u32) -> Ancestry {
        ancestry(self, Some(pid), pid, UID).unwrap()
    }

    /// The answer for a process, with these registrations: pid, session, and whether it was
    /// registered itself.
    pub fn member(&self, pid: u32, registered: &[(u32, &str, bool)]) -> Result<Member, Refusal> {
        member(&self.ancestry(pid), registered)
    }

    /// The session, the rule and the pids of the roots, topmost first.
    pub fn answer(&self, pid: u32, registered: &[(u32, &str, bool)]) -> Answer {
        answer(&self.member(pid, registered).unwrap())
    }
}

pub type Answer = (String, Rule, Vec<u32>);

pub fn member(ancestry: &Ancestry, registered: &[(u32, &str, bool)]) -> Result<Member, Refusal> {
    let registered: Vec<_> = registered
        .iter()
        .map(|(pid, session, itself)| (*pid, id(session), *itself))
        .collect();
    ancestry.member(|process, show| {
        for (_, id, registered) in registered.iter().filter(|(pid, ..)| *pid == process.pid) {
            show(Standing {
                id,
                rule: Rule::Registered,
                registered: *registered,
                environ: 0,
            });
        }
    })
}

/// The answer for a process, where processes are roots of sessions: pid, session, its rule, and by
/// which exec.
fn standing(tree: &Tree, pid: u32, roots: &[(u32, &str, Rule, u64)]) -> Answer {
    let roots: Vec<_> = roots
        .iter()
        .map(|(pid, session, rule, environ)| (*pid, id(session), *rule, *environ))
        .collect();
    let member = tree.ancestry(pid).member(|process, show| {
        for (_, id, rule, environ) in roots.iter().filter(|(pid, ..)| *pid == process.pid) {
            show(Standing {
                id,
                rule: *rule,
                registered: false,
                environ: *environ,
            });
        }
    });
    answer(&member.unwrap())
}

pub fn id(text: &str) -> SessionId {
    SessionId::new(text.as_bytes()).unwrap()
}

pub fn answer(member: &Member) -> Answer {
    (member.id.as_str().into(), member.rule, roots(member))
}

pub fn roots(member: &Member) -> Vec<u32> {
    let pids = member.roots.iter().map(|root| root.process.pid);
    pids.collect()
}

pub fn says(session: &str, rule: Rule, roots: &[u32]) -> Answer {
    (session.into(), rule, roots.to_vec())
}

// Rule 1.

#[test]
fn the_nearest_registered_ancestor_or_self_decides() {
    let tree = Tree::chain(&[10, 20, 30, 40]);
    let (far, near, own) = ((10, "far", true), (30, "near", true), (40, "own", true));
    let expected = says("far", Rule::Registered, &[10, 20, 30, 40]);
    assert_eq!(tree.answer(40, &[far]), expected);
    let expected = says("near", Rule::Registered, &[30, 40]);
    assert_eq!(tree.answer(40, &[far, near]), expected);
    let expected = says("own", Rule::Registered, &[40]);
    assert_eq!(tree.answer(40, &[far, near, own]), expected);
    // A registration below the caller, or beside it, is not its session.
    let expected = says("far", Rule::Registered, &[10, 20]);
    assert_eq!(tree.answer(20, &[far, near, own]), expected);
}

#[test]
fn a_root_that_was_not_registered_itself_answers_rule_1_too() {
    // The registered process is gone, or far above: its claimants' children still belong to the
    // session.
    let tree = Tree::chain(&[10, 20, 30]);
    let expected = says("w", Rule::Registered, &[20, 30]);
    assert_eq!(tree.answer(30, &[(20, "w", false)]), expected);
}

#[test]
fn a_claim_registers_nobody() {
    let tree = Tree::chain(&[10, 20]);
    tree.set(&[10, 20], "w");
    for registered in [&[][..], &[(10, "r", true)], &[(20, "r", true)]] {
        let member = tree.member(20, registered).unwrap();
        assert!(member.roots.iter().all(|root| !root.registered));
    }
}

#[test]
fn the_member_names_its_caller_and_the_namespace_of_its_topmost_root() {
    let tree = Tree::chain(&[10, 20, 30]);
    tree.call(30, "flock");
    for (pid, local) in [(20, 1), (30, 2)] {
        tree.edit(pid, |facts| (facts.pidns, facts.local_pid) = (7, local));
    }
    let member = tree.member(30, &[(10, "w", true)]).unwrap();
    assert_eq!((member.pid, &*member.command), (30, "flock"));
    assert_eq!((member.uid, member.pidns), (UID, HOST));
    assert_eq!(tree.member(30, &[(20, "w", true)]).unwrap().pidns, 7);
    let root = &member.roots[2];
    assert_eq!((root.process.start, root.process.pidfs), (300, 5030));
    assert_eq!(&*root.command, "flock");
}

// Rules 1 and 2.

#[test]
fn of_rules_1_and_2_the_one_whose_root_is_nearer_decides() {
    let tree = Tree::chain(&[10, 20, 30, 40]);
    tree.set(&[30, 40], "var");
    let expected = says("var", Rule::Variable, &[30, 40]);
    assert_eq!(tree.answer(40, &[(20, "reg", true)]), expected);
    assert_eq!(tree.answer(40, &[(10, "reg", true)]), expected);
    let expected = says("reg", Rule::Registered, &[40]);
    assert_eq!(tree.answer(40, &[(40, "reg", true)]), expected);

    tree.set(&[10, 20], "var");
    let expected = says("reg", Rule::Registered, &[20, 30, 40]);
    assert_eq!(tree.answer(40, &[(20, "reg", true)]), expected);
}

#[test]
fn a_tie_goes_to_the_process_that_was_registered_itself() {
    let tree = Tree::chain(&[10, 20, 30]);
    tree.set(&[20, 30], "var");
    let expected = says("reg", Rule::Registered, &[20, 30]);
    assert_eq!(tree.answer(30, &[(20, "reg", true)]), expected);
    tree.set(&[20], "other");
    let expected = says("reg", Rule::Registered, &[30]);
    assert_eq!(tree.answer(30, &[(30, "reg", true)]), expected);
}

#[test]
fn a_root_that_only_claimed_loses_the_tie_to_what_it_was_execd_with() {
    let tree = Tree::chain(&[10, 20, 30]);
    tree.set(&[20, 30], "var");
    let expected = says("var", Rule::Variable, &[20, 30]);
    assert_eq!(tree.answer(30, &[(20, "reg", false)]), expected);
    tree.set(&[20], "other");
    let expected = says("var", Rule::Variable, &[30]);
    assert_eq!(tree.answer(30, &[(30, "reg", false)]), expected);
    // Without a variable there is no tie.
    let tree = Tree::chain(&[10, 20, 30]);
    let expected = says("reg", Rule::Registered, &[30]);
    assert_eq!(tree.answer(30, &[(30, "reg", false)]), expected);
}

// Rule 2.

#[test]
fn the_root_of_a_variable_is_the_topmost_process_of_an_unbroken_chain() {
    let tree = Tree::chain(&[10, 20, 30, 40]);
    tree.set(&[40], "w");
    assert_eq!(tree.answer(40, &[]), says("w", Rule::Variable, &[40]));
    tree.set(&[20, 30], "w");
    let expected = says("w", Rule::Variable, &[20, 30, 40]);
    assert_eq!(tree.answer(40, &[]), expected);
    // The value in a process further above makes no difference.
    tree.variables.borrow_mut().insert(30, Variable::Unset);
    assert_eq!(tree.answer(40, &[]), says("w", Rule::Variable, &[40]));
}

#[test]
fn the_chain_is_of_the_same_value_whichever_variable_says_so() {
    let tree = Tree::chain(&[10, 20]);
    tree.set(&[20], "w");
    for name in &SESSION_VARIABLES[1..] {
        let variable = Variable::Set {
            name: Arc::from(*name),
            value: b"w".to_vec(),
        };
        tree.variables.borrow_mut().insert(10, variable);
        assert_eq!(tree.answer(20, &[]), says("w", Rule::Variable, &[10, 20]));
        assert_eq!(tree.answer(10, &[]), says("w", Rule::Variable, &[10]));
        let ancestry = tree.ancestry(10);
        assert_eq!(ancestry.variable(), Some((*name, &b"w"[..])));
    }
}

#[test]
fn a_changed_value_breaks_the_chain() {
    let tree = Tree::chain(&[10, 20, 30, 40]);
    tree.set(&[10, 20, 40], "outer");
    tree.set(&[30], "inner");
    let expected = says("outer", Rule::Variable, &[40]);
    assert_eq!(tree.answer(40, &[]), expected);
    assert_eq!(tree.answer(30, &[]), says("inner", Rule::Variable, &[30]));
    let expected = says("outer", Rule::Variable, &[10, 20]);
    assert_eq!(tree.answer(20, &[]), expected);
}

#[test]
fn a_variable_that_the_caller_does_not_carry_is_not_its_own() {
    let tree = Tree::chain(&[10, 20, 30]);
    tree.set(&[10, 20], "w");
    let (_, rule, _) = tree.answer(30, &[]);
    assert_eq!(rule, Rule::Posix);
    assert_eq!(tree.ancestry(30).variable(), None);
}

#[test]
fn an_unreadable_environment_takes_the_parents_answer() {
    // The caller's own.
    let tree = Tree::chain(&[10, 20, 30, 40]);
    tree.set(&[10, 20, 30], "w");
    tree.hide(40);
    let expected = says("w", Rule::Variable, &[10, 20, 30, 40]);
    assert_eq!(tree.answer(40, &[]), expected);
    // Two of them in a row, and one amid the chain.
    tree.hide(30);
    assert_eq!(tree.answer(40, &[]), expected);
    tree.set(&[40], "w");
    assert_eq!(tree.answer(40, &[]), expected);
    // The parent's answer is that there is none.
    let tree = Tree::chain(&[10, 20, 30]);
    tree.set(&[10], "w");
    tree.hide(30);
    assert_eq!(tree.answer(30, &[]).1, Rule::Posix);
    // It has the other answer, so it is no part of this chain.
    tree.set(&[10], "other");
    tree.hide(20);
    tree.set(&[30], "w");
    assert_eq!(tree.answer(30, &[]), says("w", Rule::Variable, &[30]));
    // Nobody's can be read.
    tree.hide(10);
    tree.hide(30);
    assert_eq!(tree.answer(30, &[]).1, Rule::Posix);
}

#[test]
fn an_unreadable_process_at_the_top_belongs_to_the_answer_above_it() {
    // 10 says nothing, so neither does 20; the chain of 30 is its own.
    let tree = Tree::chain(&[10, 20, 30, 40]);
    tree.hide(20);
    tree.set(&[30, 40], "w");
    let expected = says("w", Rule::Variable, &[30, 40]);
    assert_eq!(tree.answer(40, &[]), expected);
}

#[test]
fn the_environment_of_the_caller_is_asked_of_its_thread() {
    // The leader of the thread group has exited: its environment is unreadable, the thread's is
    // not.
    let tree = Tree::chain(&[10, 20]);
    tree.hide(20);
    tree.set(&[25], "w");
    let ancestry = ancestry(&tree, Some(25), 20, UID).unwrap();
    let expected = says("w", Rule::Variable, &[20]);
    assert_eq!(answer(&member(&ancestry, &[]).unwrap()), expected);
}

#[test]
fn an_invalid_value_is_einval_and_never_another_rule() {
    let long = [b'x'; 256];
    let values: [&[u8]; 11] = [
        b"",
        b".",
        b"..",
        b".x",
        b"a/b",
        b"/",
        b"a\\b",
        b"a\0b",
        b"\xff\xfe",
        b"caf\xe9",
        &long,
    ];
    for value in values {
        let tree = Tree::chain(&[10, 20, 30]);
        tree.set(&[20, 30], value);
        let text = String::from_utf8_lossy(value);
        assert_eq!(tree.member(30, &[]), Err(Refusal::Invalid), "{text}");
        // Neither what is registered farther above, nor what lies below it.
        assert_eq!(
            tree.member(30, &[(10, "reg", true)]),
            Err(Refusal::Invalid),
            "{text}"
        );
        // Looking never fails for identity: the walk is there, and says what the variable holds.
        assert_eq!(tree.ancestry(30).variable().unwrap().1, value);
        // A registered root that is nearer comes first, and is asked nothing else.
        let expected = says("reg", Rule::Registered, &[30]);
        assert_eq!(tree.answer(30, &[(30, "reg", true)]), expected);
    }
    for value in ["x".repeat(255), "a.b".into(), "ü 1".into(), " ".into()] {
        let tree = Tree::chain(&[10]);
        tree.set(&[10], &value);
        assert_eq!(tree.answer(10, &[]), says(&value, Rule::Variable, &[10]));
    }
}

#[test]
fn an_unreadable_caller_below_an_invalid_value_is_refused_like_its_parent() {
    let tree = Tree::chain(&[10, 20, 30]);
    tree.set(&[20], "a/b");
    tree.hide(30);
    assert_eq!(tree.member(30, &[]), Err(Refusal::Invalid));
}

// Rule 5.

#[test]
fn a_posix_session_is_its_number_and_the_uid() {
    let tree = Tree::chain(&[10, 20, 30]);
    let expected = says("sid-10-uid-1000", Rule::Posix, &[10, 20, 30]);
    assert_eq!(tree.answer(30, &[]), expected);
    // Its roots end where the number changes.
    for pid in [20, 30] {
        tree.edit(pid, |facts| facts.sid = 20);
    }
    let expected = says("sid-20-uid-1000", Rule::Posix, &[20, 30]);
    assert_eq!(tree.answer(30, &[]), expected);
    assert_eq!(tree.answer(10, &[]).0, "sid-10-uid-1000");
    // Another uid in the same terminal is another session.
    tree.edit(30, |facts| facts.uid = 0);
    let ancestry = ancestry(&tree, Some(30), 30, 0).unwrap();
    let expected = says("sid-20-uid-0", Rule::Posix, &[30]);
    assert_eq!(answer(&member(&ancestry, &[]).unwrap()), expected);
}

#[test]
fn a_posix_session_keeps_its_id_when_its_leader_is_dead() {
    let tree = Tree::chain(&[10, 20, 30]);
    tree.kill(10);
    let expected = says("sid-10-uid-1000", Rule::Posix, &[20, 30]);
    assert_eq!(tree.answer(30, &[]), expected);
    // Its siblings of the same terminal have the same.
    tree.add(40, 1);
    tree.edit(40, |facts| facts.sid = 10);
    let expected = says("sid-10-uid-1000", Rule::Posix, &[40]);
    assert_eq!(tree.answer(40, &[]), expected);
}

// Roots.

#[test]
fn roots_are_the_topmost_process_and_all_down_to_the_claimant() {
    let tree = Tree::chain(&[10, 20, 30, 40, 50]);
    let registered = [(20, "w", true)];
    let expected = says("w", Rule::Registered, &[20, 30, 40, 50]);
    assert_eq!(tree.answer(50, &registered), expected);
    // A sibling's chain is another one.
    tree.add(60, 30);
    let expected = says("w", Rule::Registered, &[20, 30, 60]);
    assert_eq!(tree.answer(60, &registered), expected);
}

#[test]
fn pid_1_is_never_a_root_of_those_below_it() {
    for rule in [Rule::Registered, Rule::Variable, Rule::Posix] {
        let tree = Tree::chain(&[10, 20]);
        // As in a container: everything is of one uid and one POSIX session.
        tree.edit(1, |init| init.uid = UID);
        for pid in [1, 10, 20] {
            tree.edit(pid, |facts| facts.sid = 1);
        }
        let mut registered = vec![];
        match rule {
            Rule::Registered => registered.push((1, "w", true)),
            Rule::Variable => tree.set(&[1, 10, 20], "w"),
            Rule::Posix | Rule::Remote | Rule::Agent | Rule::Sandbox => {}
        }
        let session = if rule == Rule::Posix {
            "sid-1-uid-1000"
        } else {
            "w"
        };
        let expected = says(session, rule, &[10, 20]);
        assert_eq!(tree.answer(20, &registered), expected);
    }
}

#[test]
fn pid_1_as_the_caller_roots_itself() {
    let tree = Tree::chain(&[]);
    tree.edit(1, |init| init.uid = UID);
    let expected = says("sid-1-uid-1000", Rule::Posix, &[1]);
    assert_eq!(tree.answer(1, &[]), expected);
    tree.set(&[1], "w");
    assert_eq!(tree.answer(1, &[]), says("w", Rule::Variable, &[1]));
    let expected = says("r", Rule::Registered, &[1]);
    assert_eq!(tree.answer(1, &[(1, "r", true)]), expected);
}

#[test]
fn what_a_process_calls_itself_proves_nothing() {
    let plain = Tree::chain(&[10, 20, 30, 40]);
    for command in [
        "systemd",
        "init",
        "tini",
        "dumb-init",
        "catatonit",
        "docker-init",
        "conmon",
        "containerd-shim",
        "s6-svscan",
        "runsvdir",
        "claimfs",
        "(sd-pam)",
    ] {
        let tree = Tree::chain(&[10, 20, 30, 40]);
        tree.call(20, command);
        assert_eq!(tree.answer(40, &[]), plain.answer(40, &[]), "{command}");
        assert_eq!(registered(&tree, 40, b"20"), Ok(20), "{command}");
        let by_registration = tree.answer(40, &[(10, "r", true)]);
        assert_eq!(
            by_registration,
            says("r", Rule::Registered, &[10, 20, 30, 40])
        );
        tree.set(&[10, 20, 30, 40], "w");
        let expected = says("w", Rule::Variable, &[10, 20, 30, 40]);
        assert_eq!(tree.answer(40, &[]), expected, "{command}");
    }
}

#[test]
fn a_root_stays_of_its_session_whatever_it_writes_over_its_environment() {
    let by_place = says("sid-10-uid-1000", Rule::Posix, &[10, 20, 30]);
    let tree = Tree::chain(&[10, 20, 30, 40]);
    for (pid, exec) in [(10, 1), (20, 2), (30, 3), (40, 3)] {
        tree.edit(pid, |facts| facts.environ = exec);
    }
    // 30 claimed for w, whose root is 20, and is of w whatever its environment says now, and so is
    // 40, its copy.
    let roots = [(20, "w", Rule::Variable, 2), (30, "w", Rule::Variable, 3)];
    for now in [None, Some("other")] {
        if let Some(value) = now {
            tree.set(&[20, 30, 40], value);
        }
        let expected = says("w", Rule::Variable, &[20, 30]);
        assert_eq!(standing(&tree, 30, &roots), expected, "{now:?}");
        let expected = says("w", Rule::Variable, &[20, 30, 40]);
        assert_eq!(standing(&tree, 40, &roots), expected, "{now:?}");
    }
    // Without a variable when it claimed, it carries none that it writes there later.
    let roots = [(30, "sid-10-uid-1000", Rule::Posix, 3)];
    assert_eq!(standing(&tree, 30, &roots), by_place);
    let roots = [
        (30, "claude-code-20-200-uid-1000", Rule::Agent, 3),
        (20, "claude-code-20-200-uid-1000", Rule::Agent, 2),
    ];
    let expected = says("claude-code-20-200-uid-1000", Rule::Agent, &[20, 30]);
    assert_eq!(standing(&tree, 30, &roots), expected);
    // Of a registered session it stays too, though it writes another's variable.
    let roots = [
        (10, "r", Rule::Registered, 1),
        (30, "r", Rule::Registered, 3),
    ];
    let (session, rule, _) = standing(&tree, 30, &roots);
    assert_eq!((&*session, rule), ("r", Rule::Registered));
}

#[test]
fn a_root_that_execs_is_of_what_it_was_execd_with() {
    let tree = Tree::chain(&[10, 20, 30]);
    tree.edit(30, |facts| facts.environ = 4);
    let roots = [(30, "w", Rule::Variable, 3)];
    tree.set(&[30], "other");
    let expected = says("other", Rule::Variable, &[30]);
    assert_eq!(standing(&tree, 30, &roots), expected);
    // With no variable at all it is still a root of w, and of nothing else that anybody said.
    let tree = Tree::chain(&[10, 20, 30]);
    tree.edit(30, |facts| facts.environ = 4);
    let expected = says("w", Rule::Variable, &[30]);
    assert_eq!(standing(&tree, 30, &roots), expected);
    // A child that was exec'd is no copy.
    tree.add(40, 30);
    tree.edit(40, |facts| (facts.sid, facts.environ) = (10, 5));
    let roots = [(30, "w", Rule::Variable, 4)];
    assert_eq!(standing(&tree, 40, &roots).1, Rule::Posix);
}

#[test]
fn whoever_has_adopted_a_process_is_no_root_of_it() {
    let tree = Tree::chain(&[10, 20, 30, 40]);
    tree.set(&[10, 20, 30, 40], "w");
    tree.edit(30, |facts| facts.adopted = true);
    let expected = says("w", Rule::Variable, &[30, 40]);
    assert_eq!(tree.answer(40, &[]), expected);
    tree.edit(40, |facts| facts.adopted = true);
    assert_eq!(tree.answer(40, &[]), says("w", Rule::Variable, &[40]));
    // Those that it bore itself descend from it.
    tree.add(50, 20);
    tree.set(&[50], "w");
    let expected = says("w", Rule::Variable, &[10, 20, 50]);
    assert_eq!(tree.answer(50, &[]), expected);
}

#[test]
fn processes_of_another_uid_are_no_roots_and_hide_what_is_above_them() {
    let tree = Tree::chain(&[10, 20, 30, 40]);
    tree.edit(20, |facts| facts.uid = 0);
    tree.set(&[10, 20, 30, 40], "w");
    let expected = says("w", Rule::Variable, &[30, 40]);
    assert_eq!(
        tree.answer(40, &[(10, "r", true), (20, "s", true)]),
        expected
    );
    let tree = Tree::chain(&[10, 20, 30, 40]);
    tree.edit(20, |facts| facts.uid = 0);
    let expected = says("sid-10-uid-1000", Rule::Posix, &[30, 40]);
    assert_eq!(
        tree.answer(40, &[(10, "r", true), (20, "s", true)]),
        expected
    );
}

#[test]
fn an_orphan_whose_chain_is_gone_has_its_id_and_roots_itself() {
    let tree = Tree::chain(&[10, 20, 30]);
    tree.set(&[10, 20, 30], "w");
    tree.kill(20);
    tree.edit(30, |facts| facts.adopted = true);
    assert_eq!(tree.answer(30, &[]), says("w", Rule::Variable, &[30]));
    // Rule 1 has nothing above it any more, unless it was a root itself.
    let (registered, derived) = ((10, "r", true), (30, "r", false));
    let tree = Tree::chain(&[10, 20, 30]);
    tree.kill(20);
    assert_eq!(tree.answer(30, &[registered]).1, Rule::Posix);
    let expected = says("r", Rule::Registered, &[30]);
    assert_eq!(tree.answer(30, &[registered, derived]), expected);
}

// A tree that changes while it is read.

#[test]
fn a_walk_that_meets_a_vanished_process_starts_again() {
    let tree = Tree::chain(&[10, 20, 30]);
    tree.set(&[10, 20, 30], "w");
    tree.before(Look::Facts(20), |tree| tree.kill(20));
    assert_eq!(tree.answer(30, &[]), says("w", Rule::Variable, &[30]));

    // Farther up, and twice.
    let tree = Tree::chain(&[10, 20, 30, 40]);
    tree.set(&[10, 20, 30, 40], "w");
    tree.hook(|tree, look| match look {
        Look::Facts(10) if tree.facts.borrow().contains_key(&10) => tree.kill(10),
        Look::Facts(20) if !tree.facts.borrow().contains_key(&10) => tree.kill(20),
        _ => {}
    });
    assert_eq!(tree.answer(40, &[]), says("w", Rule::Variable, &[30, 40]));
}

#[test]
fn a_walk_that_meets_a_parent_younger_than_its_child_starts_again() {
    // The parent dies, and its pid is another's by the time that it is looked at.
    let tree = Tree::chain(&[10, 20, 30]);
    tree.set(&[30], "w");
    tree.before(Look::Facts(20), |tree| {
        tree.kill(20);
        tree.add(20, 1);
        tree.edit(20, |facts| facts.process.start = 301);
        tree.set(&[20], "w");
    });
    assert_eq!(tree.answer(30, &[]), says("w", Rule::Variable, &[30]));
    // One that was started in the same tick may well be its parent.
    let tree = Tree::chain(&[10, 20, 30]);
    tree.edit(20, |facts| facts.process.start = 300);
    let expected = says("sid-10-uid-1000", Rule::Posix, &[10, 20, 30]);
    assert_eq!(tree.answer(30, &[]), expected);
}

#[test]
fn a_younger_process_of_another_uid_is_no_parent_either() {
    let tree = Tree::chain(&[10, 20, 30]);
    tree.set(&[10, 20, 30], "w");
    let looked = std::rc::Rc::new(Cell::new(0));
    let count = looked.clone();
    tree.hook(move |tree, look| {
        count.set(count.get() + usize::from(look == Look::Facts(30)));
        if look == Look::Facts(20) && count.get() == 1 {
            tree.edit(20, |facts| (facts.uid, facts.process.start) = (0, 301));
        } else if count.get() == 2 {
            tree.edit(20, |facts| (facts.uid, facts.process.start) = (UID, 200));
        }
    });
    let expected = says("w", Rule::Variable, &[10, 20, 30]);
    assert_eq!(tree.answer(30, &[]), expected);
    assert_eq!(looked.get(), 2);
}

#[test]
fn a_walk_that_never_settles_ends() {
    // A parent that is never there, one that is always too young, and a caller that nobody sees.
    let tree = Tree::chain(&[10, 20, 30]);
    tree.facts.borrow_mut().remove(&20);
    assert_eq!(
        ancestry(&tree, Some(30), 30, UID).err(),
        Some(Refusal::Unsettled)
    );
    assert!(tree.looks.get() >= 20, "it was tried more than a few times");
    let tree = Tree::chain(&[10, 20, 30]);
    tree.edit(20, |facts| facts.process.start = 301);
    assert_eq!(
        ancestry(&tree, Some(30), 30, UID).err(),
        Some(Refusal::Unsettled)
    );
    let tree = Tree::chain(&[10]);
    assert_eq!(
        ancestry(&tree, Some(99), 99, UID).err(),
        Some(Refusal::Unsettled)
    );
    // Two that call each other their parent are no tree, whatever they are.
    let tree = Tree::chain(&[10, 20]);
    tree.edit(10, |facts| facts.parent = 20);
    assert_eq!(
        ancestry(&tree, Some(20), 20, UID).err(),
        Some(Refusal::Unsettled)
    );
}

#[test]
fn a_walk_whose_process_vanishes_before_its_environment_is_read_starts_again() {
    // The caller's own environment cannot be read, so its parent's answer counts. That parent dies:
    // nobody knows any more what it was, but the grandparent's session, of another name, is
    // certainly not it.
    let tree = Tree::chain(&[10, 20, 30]);
    tree.set(&[10], "stranger");
    tree.set(&[20], "w");
    tree.hide(30);
    assert_eq!(tree.answer(30, &[]).0, "w");
    tree.before(Look::Variable(20), |tree| tree.kill(20));
    assert_eq!(
        tree.answer(30, &[]),
        says("sid-10-uid-1000", Rule::Posix, &[30])
    );
}

#[test]
fn an_environment_is_that_of_the_process_that_was_walked() {
    // As above, but the pid is another's by the time that the environment is read.
    let tree = Tree::chain(&[10, 20, 30]);
    tree.set(&[20], "w");
    tree.hide(30);
    tree.before(Look::Variable(20), |tree| {
        tree.kill(20);
        tree.add(20, 1);
        tree.edit(20, |facts| facts.process.start = 301);
        tree.set(&[20], "stranger");
    });
    assert_eq!(
        tree.answer(30, &[]),
        says("sid-10-uid-1000", Rule::Posix, &[30])
    );
}

// Registering.

fn registered(tree: &Tree, pid: u32, body: &[u8]) -> Result<u32, Refusal> {
    let member = tree.ancestry(pid).register(id("w"), body)?;
    assert_eq!((member.id.as_str(), member.rule), ("w", Rule::Registered));
    assert_eq!((member.pid, member.uid), (pid, UID));
    assert_eq!(member.roots.len(), 1);
    assert!(member.roots[0].registered);
    Ok(member.roots[0].process.pid)
}

#[test]
fn a_registration_names_the_caller_or_a_process_above_it() {
    let tree = Tree::chain(&[10, 20, 30]);
    for pid in [10, 20, 30] {
        for body in [format!("{pid}"), format!("{pid}\n"), format!(" {pid}\r\n")] {
            assert_eq!(registered(&tree, 30, body.as_bytes()), Ok(pid));
        }
    }
    // Below it, beside it, not there at all.
    tree.add(40, 30);
    tree.add(50, 20);
    for body in ["40", "50", "99", "0"] {
        let answer = registered(&tree, 30, body.as_bytes());
        assert_eq!(answer, Err(Refusal::NotPermitted), "{body}");
    }
}

#[test]
fn a_registration_in_a_sandbox_uses_the_pids_of_the_sandbox() {
    // 20 is the init of a sandbox, and 30 its child; 3 is also a pid outside, and above them.
    let tree = Tree::chain(&[3, 20, 30]);
    for (pid, local) in [(20, 1), (30, 3)] {
        tree.edit(pid, |facts| (facts.pidns, facts.local_pid) = (7, local));
    }
    assert_eq!(registered(&tree, 30, b"3"), Ok(30));
    assert_eq!(registered(&tree, 30, b"1"), Ok(20));
    let member = tree.ancestry(30).register(id("w"), b"1").unwrap();
    assert_eq!(member.pidns, 7);
    for body in ["20", "30"] {
        let answer = registered(&tree, 30, body.as_bytes());
        assert_eq!(answer, Err(Refusal::NotPermitted), "{body}");
    }
    assert_eq!(registered(&tree, 3, b"3"), Ok(3));
    // The number is never that of a process outside, even where none inside has it.
    tree.edit(30, |facts| facts.local_pid = 2);
    assert_eq!(registered(&tree, 30, b"3"), Err(Refusal::NotPermitted));
}

#[test]
fn a_registration_of_pid_1_or_another_uid_is_refused() {
    let tree = Tree::chain(&[10, 20, 30, 40]);
    tree.edit(1, |init| init.uid = UID);
    assert_eq!(registered(&tree, 40, b"1"), Err(Refusal::NotPermitted));
    assert_eq!(registered(&tree, 40, b"30"), Ok(30));
    // Themselves they may.
    assert_eq!(registered(&tree, 1, b"1"), Ok(1));
    tree.edit(30, |facts| facts.uid = 0);
    assert_eq!(registered(&tree, 40, b"30"), Err(Refusal::NotPermitted));
    assert_eq!(registered(&tree, 40, b"10"), Err(Refusal::NotPermitted));
}

#[test]
fn a_registration_of_whoever_adopted_is_refused() {
    let tree = Tree::chain(&[10, 20, 30]);
    tree.edit(30, |facts| facts.adopted = true);
    assert_eq!(registered(&tree, 30, b"30"), Ok(30));
    assert_eq!(registered(&tree, 30, b"20"), Err(Refusal::NotPermitted));
}

#[test]
fn a_registration_that_is_no_pid_is_invalid() {
    let tree = Tree::chain(&[10, 20, 30]);
    let bodies: [&[u8]; 9] = [
        b"w1",
        b"30x",
        b"-30",
        b"30 20",
        b"30\n20\n",
        b"30.0",
        b"0x1e",
        b"4294967296",
        b"\xff30",
    ];
    for body in bodies {
        let text = String::from_utf8_lossy(body);
        assert_eq!(registered(&tree, 30, body), Err(Refusal::Invalid), "{text}");
    }
}

#[test]
fn a_blank_registration_is_of_the_leader_of_the_posix_session() {
    let tree = Tree::chain(&[10, 20, 30]);
    for body in ["", "\n", " \t\r\n"] {
        assert_eq!(registered(&tree, 30, body.as_bytes()), Ok(10));
        assert_eq!(registered(&tree, 10, body.as_bytes()), Ok(10));
    }
    // Not the topmost shell, but the one that leads.
    for pid in [20, 30] {
        tree.edit(pid, |facts| facts.sid = 20);
    }
    assert_eq!(registered(&tree, 30, b""), Ok(20));

    // In a sandbox too, where the number is the mount's.
    for (pid, local) in [(20, 1), (30, 2)] {
        tree.edit(pid, |facts| (facts.pidns, facts.local_pid) = (7, local));
    }
    assert_eq!(registered(&tree, 30, b""), Ok(20));
    // A sandbox without a session of its own has its leader outside, and so is the session's
    // namespace.
    for pid in [20, 30] {
        tree.edit(pid, |facts| facts.sid = 10);
    }
    let member = tree.ancestry(30).register(id("w"), b"").unwrap();
    assert_eq!((roots(&member), member.pidns), (vec![10], HOST));
}

#[test]
fn a_blank_registration_whose_leader_is_gone_is_refused() {
    let tree = Tree::chain(&[10, 20, 30]);
    tree.kill(10);
    assert_eq!(registered(&tree, 30, b"\n"), Err(Refusal::NotPermitted));
    // Another uid's, as after su(1), and pid 1's, as in a container.
    let tree = Tree::chain(&[10, 20, 30]);
    tree.edit(10, |facts| facts.uid = 0);
    assert_eq!(registered(&tree, 30, b"\n"), Err(Refusal::NotPermitted));
    let tree = Tree::chain(&[10, 20]);
    tree.edit(1, |init| init.uid = UID);
    for pid in [1, 10, 20] {
        tree.edit(pid, |facts| facts.sid = 1);
    }
    assert_eq!(registered(&tree, 20, b"\n"), Err(Refusal::NotPermitted));
}

/// The holders, from the caller on, as process after process exits.
fn heirs(member: &Member) -> Vec<u32> {
    let mut heirs = Vec::new();
    let roots = || member.heir.iter().chain(&member.roots);
    let mut at = member.roots.last();
    while let Some(above) = at.and_then(|root| root.above.process()) {
        heirs.push(above.pid);
        at = roots().find(|root| root.process == above);
    }
    heirs
}

#[test]
fn what_passes_goes_up_to_the_first_process_of_the_terminal_and_to_pid_1_if_it_is_that() {
    let tree = Tree::chain(&[100, 200, 300]);
    assert_eq!(heirs(&tree.member(300, &[]).unwrap()), [200, 100]);
    assert_eq!(heirs(&tree.member(100, &[]).unwrap()), [0; 0]);
    // Not to pid 1 of another session, nor to another user's of the same.
    tree.edit(1, |init| init.sid = 100);
    assert_eq!(heirs(&tree.member(300, &[]).unwrap()), [200, 100]);
    tree.edit(1, |init| init.uid = UID);
    assert_eq!(heirs(&tree.member(300, &[]).unwrap()), [200, 100, 1]);
    // Nothing passes where somebody has said what the session is.
    tree.set(&[200, 300], "w1");
    assert_eq!(heirs(&tree.member(300, &[]).unwrap()), [0; 0]);
}

#[test]
fn a_command_that_is_run_as_another_user_of_the_terminal_has_no_parent_that_outlives_it() {
    // A shell, sudo, and its command.
    let tree = Tree::chain(&[100, 200, 300]);
    tree.edit(100, |shell| shell.uid = UID + 1);
    let sudo = tree.facts.borrow()[&200].process;
    assert!(tree.ancestry(300).is_errand(&sudo));
    // A script that sudo runs outlives its own commands.
    let tree = Tree::chain(&[100, 200, 300, 400]);
    tree.edit(100, |shell| shell.uid = UID + 1);
    let script = tree.facts.borrow()[&300].process;
    assert!(!tree.ancestry(400).is_errand(&script));
    // What a daemon of another user has started in a session of its own is no errand of it.
    tree.edit(100, |daemon| daemon.sid = 100);
    for pid in [200, 300, 400] {
        tree.edit(pid, |facts| facts.sid = 200);
    }
    let sudo = tree.facts.borrow()[&200].process;
    assert!(!tree.ancestry(300).is_errand(&sudo));
}
