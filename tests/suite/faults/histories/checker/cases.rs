//! Tests of the checker with histories written by hand: it accepts the good ones, and names the
//! rule that a bad one breaks.

use libc::{EBUSY, EEXIST, EIO, ENOENT, ENOSPC};

use super::Rule::{
    Errors, FirstComeFirstServed, FreeIsClaimable, HeldIsHeld, NothingStale, OneHolder, TokensRise,
};
use super::{Rule, check};
use crate::faults::histories::history::Answer::{Done, Listed, Refused, Served};
use crate::faults::histories::history::{Answer, Call, History, Lease, Life, Operation};

const EXISTS: Answer = Refused(EEXIST);

fn create(name: &str) -> Call {
    Call::Create(name.into())
}

fn unlink(name: &str) -> Call {
    Call::Unlink(name.into())
}

fn join(name: &str) -> Call {
    Call::Join(name.into())
}

fn wait(name: &str) -> Call {
    Call::Await(name.into())
}

fn leave(name: &str) -> Call {
    Call::Leave(name.into())
}

fn gone(name: &str) -> Call {
    Call::Gone(name.into())
}

fn token(name: &str) -> Call {
    Call::Token(name.into())
}

fn rename(from: &str, to: &str) -> Call {
    Call::Rename {
        from: from.into(),
        to: to.into(),
        replaces: false,
    }
}

fn give(name: &str, to: &str) -> Call {
    Call::Give {
        name: name.into(),
        to: to.into(),
    }
}

fn limit(name: &str, nanos: u64) -> Call {
    Call::Limit {
        name: name.into(),
        nanos,
    }
}

fn listed(leases: &[(&str, &str, u64)]) -> Answer {
    let lease = |(name, session, token): &(&str, &str, u64)| Lease {
        name: (*name).to_owned(),
        session: (*session).to_owned(),
        token: *token,
    };
    Listed(leases.iter().map(lease).collect())
}

impl History {
    /// Processes 1 to 4 of sessions s1 to s4, which live to the end.
    fn written() -> Self {
        let mut history = Self::default();
        for process in 1..=4 {
            let life = Life {
                session: format!("s{process}"),
                start: 0,
                killed: 1000,
                gone: 1000,
            };
            history.lives.insert(process, life);
        }
        history
    }

    fn op(mut self, process: u32, call: Call, asked: u64, told: u64, answer: Answer) -> Self {
        self.operations.push(Operation {
            process,
            call,
            asked,
            told: Some((told, answer)),
        });
        self
    }

    /// An operation that its process did not live to see the end of.
    fn cut(mut self, process: u32, call: Call, asked: u64) -> Self {
        self.operations.push(Operation {
            process,
            call,
            asked,
            told: None,
        });
        self
    }

    fn dies(mut self, process: u32, killed: u64, gone: u64) -> Self {
        let life = self.lives.get_mut(&process).unwrap();
        (life.killed, life.gone) = (killed, gone);
        self
    }

    /// Another process of the session of one before it.
    fn again(mut self, process: u32, of: u32, start: u64) -> Self {
        let session = self.lives[&of].session.clone();
        let life = self.lives.get_mut(&process).unwrap();
        (life.session, life.start) = (session, start);
        self
    }

    fn full(mut self, from: u64, to: u64) -> Self {
        self.full.push((from, to));
        self
    }

    #[track_caller]
    fn passes(self) {
        let (findings, _) = check(&self, 0);
        assert!(findings.is_empty(), "{findings:#?}");
    }

    #[track_caller]
    fn breaks(self, rule: Rule) {
        let (findings, _) = check(&self, 0);
        assert!(!findings.is_empty(), "nothing was found");
        let others = findings.iter().filter(|finding| finding.rule != rule);
        assert_eq!(others.count(), 0, "{findings:#?}");
    }
}

fn h() -> History {
    History::written()
}

#[test]
fn a_name_goes_from_one_to_the_next() {
    h().op(1, create("x"), 10, 20, Done)
        .op(2, create("x"), 30, 40, EXISTS)
        .op(1, unlink("x"), 50, 60, Done)
        .op(2, create("x"), 55, 58, Done)
        .op(2, unlink("x"), 70, 80, Done)
        .passes();
}

#[test]
fn two_holders() {
    h().op(1, create("x"), 10, 20, Done)
        .op(2, create("x"), 15, 30, Done)
        .breaks(OneHolder);
    // The very same process, twice.
    h().op(1, create("x"), 10, 20, Done)
        .op(1, create("x"), 30, 40, Done)
        .breaks(OneHolder);
    // A short one within a long one, after another short one.
    h().op(1, create("x"), 10, 20, Done)
        .op(2, create("x"), 30, 40, Done)
        .op(2, unlink("x"), 50, 60, Done)
        .op(3, create("x"), 70, 80, Done)
        .breaks(OneHolder);
    // Of a name that was renamed to, linked, given, or waited for.
    h().op(1, create("x"), 10, 20, Done)
        .op(2, create("y"), 10, 20, Done)
        .op(1, rename("x", "y"), 30, 40, Done)
        .breaks(OneHolder);
    let link = Call::Link {
        from: "x".into(),
        to: "y".into(),
    };
    h().op(1, create("x"), 10, 20, Done)
        .op(2, create("y"), 10, 20, Done)
        .op(1, link, 30, 40, Done)
        .breaks(OneHolder);
    h().op(1, create("x"), 10, 20, Done)
        .op(1, give("x", "s2"), 30, 40, Done)
        .op(3, create("x"), 50, 60, Done)
        .breaks(OneHolder);
    h().op(1, create("x"), 10, 20, Done)
        .op(2, join("x"), 30, 31, Done)
        .op(2, wait("x"), 32, 40, Served)
        .breaks(OneHolder);
}

#[test]
fn a_holder_that_is_being_killed_may_be_dead() {
    h().op(1, create("x"), 10, 20, Done)
        .dies(1, 30, 50)
        .op(2, create("x"), 25, 35, Done)
        .passes();
    h().op(1, create("x"), 10, 20, Done)
        .dies(1, 30, 50)
        .op(2, create("x"), 25, 49, EXISTS)
        .op(2, create("x"), 50, 55, EXISTS)
        .op(2, create("x"), 56, 58, Done)
        .passes();
    // Killed only after the other was told.
    h().op(1, create("x"), 10, 20, Done)
        .op(2, create("x"), 25, 29, Done)
        .dies(1, 30, 50)
        .breaks(OneHolder);
}

#[test]
fn a_name_that_nobody_holds_is_refused() {
    h().op(1, create("x"), 10, 20, EXISTS)
        .breaks(FreeIsClaimable);
    h().op(1, create("x"), 10, 20, Done)
        .op(1, unlink("x"), 30, 40, Done)
        .op(2, create("x"), 41, 50, EXISTS)
        .breaks(FreeIsClaimable);
    // The moment of proof.
    h().op(1, create("x"), 10, 20, Done)
        .dies(1, 30, 50)
        .op(2, create("x"), 51, 60, EXISTS)
        .breaks(FreeIsClaimable);
    // Its pid and its session are another's by then.
    h().op(1, create("x"), 10, 20, Done)
        .dies(1, 30, 50)
        .again(2, 1, 55)
        .op(2, create("x"), 60, 70, EXISTS)
        .breaks(FreeIsClaimable);
    h().op(1, create("x"), 10, 20, Done)
        .op(1, rename("x", "y"), 30, 40, EXISTS)
        .breaks(FreeIsClaimable);
    // A claim that was renamed away.
    h().op(1, create("x"), 10, 20, Done)
        .op(1, rename("x", "y"), 30, 40, Done)
        .op(2, create("y"), 50, 60, EXISTS)
        .op(2, create("x"), 70, 80, EXISTS)
        .breaks(FreeIsClaimable);
    // A client that has left the queue, and has seen that it has.
    h().op(1, join("x"), 10, 20, Done)
        .op(1, leave("x"), 30, 40, Done)
        .op(1, gone("x"), 41, 50, Done)
        .op(2, create("x"), 51, 60, EXISTS)
        .breaks(FreeIsClaimable);
}

#[test]
fn a_name_that_somebody_may_hold_may_be_refused() {
    h().cut(1, create("x"), 10)
        .dies(1, 30, 50)
        .op(2, create("x"), 40, 60, EXISTS)
        .passes();
    h().op(1, join("x"), 10, 20, Done)
        .op(1, leave("x"), 30, 40, Done)
        .op(2, create("x"), 41, 45, EXISTS)
        .op(1, gone("x"), 41, 50, Done)
        .passes();
    // It may be in the middle of being given.
    h().op(1, create("x"), 10, 20, Done)
        .cut(1, give("x", "s2"), 25)
        .dies(1, 30, 50)
        .op(3, create("x"), 60, 70, EXISTS)
        .op(2, Call::Look, 80, 90, listed(&[("x", "s2", 2)]))
        .op(2, unlink("x"), 100, 110, Done)
        .passes();
    // Given to a session that has another process by then, and once more in the middle of a death.
    h().op(1, create("x"), 10, 20, Done)
        .op(1, give("x", "s2"), 25, 30, Done)
        .dies(2, 40, 50)
        .op(1, create("x"), 51, 60, Done)
        .cut(1, give("x", "s2"), 61)
        .dies(1, 65, 70)
        .again(3, 2, 55)
        .op(3, Call::Look, 80, 90, listed(&[("x", "s2", 3)]))
        .op(3, token("x"), 91, 95, Answer::Token(3))
        .op(3, unlink("x"), 100, 110, Done)
        .passes();
}

#[test]
fn tokens() {
    let grants = |first, second| {
        h().op(1, create("x"), 10, 20, Done)
            .op(1, token("x"), 21, 22, Answer::Token(first))
            .op(2, create("y"), 21, 30, Done)
            .op(2, token("y"), 31, 32, Answer::Token(second))
    };
    grants(1, 2).passes();
    grants(2, 1).breaks(TokensRise);
    grants(1, 1).breaks(TokensRise);
    // At the same time, either may be the first.
    h().op(1, create("x"), 10, 30, Done)
        .op(1, token("x"), 31, 32, Answer::Token(8))
        .op(2, create("y"), 20, 25, Done)
        .op(2, token("y"), 31, 32, Answer::Token(7))
        .passes();
    // A lease keeps its token.
    grants(1, 2)
        .op(1, token("x"), 40, 41, Answer::Token(3))
        .breaks(TokensRise);
    grants(1, 2)
        .op(
            3,
            Call::Look,
            40,
            41,
            listed(&[("x", "s1", 1), ("y", "s2", 3)]),
        )
        .breaks(TokensRise);
    // Those of a history before were higher.
    assert_eq!(check(&grants(7, 8), 6).1, 8);
    assert_eq!(check(&grants(7, 8), 7).0[0].rule, TokensRise);
}

#[test]
fn a_line_is_served_in_its_order() {
    let line = || {
        h().op(1, create("q"), 10, 20, Done)
            .op(2, join("q"), 30, 31, Done)
            .op(3, join("q"), 32, 33, Done)
            .op(1, unlink("q"), 40, 50, Done)
    };
    line()
        .op(2, wait("q"), 34, 45, Served)
        .op(2, unlink("q"), 60, 70, Done)
        .op(3, wait("q"), 34, 75, Served)
        .passes();
    // LIFO: both are told in the end, and one was told while the other was in the queue.
    line()
        .op(3, wait("q"), 34, 45, Served)
        .op(3, unlink("q"), 60, 70, Done)
        .op(2, wait("q"), 34, 75, Served)
        .breaks(FirstComeFirstServed);
    // The one before is never told, though it stays.
    line()
        .op(3, wait("q"), 34, 45, Served)
        .op(3, unlink("q"), 60, 70, Done)
        .op(2, leave("q"), 80, 81, Done)
        .breaks(FirstComeFirstServed);
    // A late answer does not hide it: the tokens show who was first.
    line()
        .op(3, wait("q"), 34, 100, Served)
        .op(3, token("q"), 101, 102, Answer::Token(5))
        .op(2, wait("q"), 34, 90, Served)
        .op(2, token("q"), 91, 92, Answer::Token(6))
        .op(2, unlink("q"), 93, 99, Done)
        .breaks(FirstComeFirstServed);
}

#[test]
fn who_is_not_in_line_any_more_or_not_yet_is_not_served() {
    let line = || h().op(1, create("q"), 10, 20, Done);
    line()
        .op(2, join("q"), 30, 31, Done)
        .op(3, join("q"), 32, 33, Done)
        .dies(2, 35, 38)
        .op(1, unlink("q"), 40, 50, Done)
        .op(3, wait("q"), 34, 45, Served)
        .passes();
    line()
        .op(2, join("q"), 30, 31, Done)
        .op(3, join("q"), 32, 33, Done)
        .op(2, leave("q"), 35, 36, Done)
        .op(1, unlink("q"), 40, 50, Done)
        .op(3, wait("q"), 34, 45, Served)
        .passes();
    // Both came at the same time.
    line()
        .op(2, join("q"), 30, 32, Done)
        .op(3, join("q"), 31, 33, Done)
        .op(1, unlink("q"), 40, 50, Done)
        .op(3, wait("q"), 34, 45, Served)
        .op(3, unlink("q"), 60, 70, Done)
        .op(2, wait("q"), 34, 75, Served)
        .passes();
}

#[test]
fn nobody_comes_between() {
    let line = || {
        h().op(1, create("q"), 10, 20, Done)
            .op(2, join("q"), 30, 31, Done)
            .op(1, unlink("q"), 40, 50, Done)
            .op(3, create("q"), 45, 55, Done)
            .op(3, unlink("q"), 60, 70, Done)
            .op(2, wait("q"), 32, 65, Served)
    };
    line().breaks(FirstComeFirstServed);
    // While nothing can be written down, nobody's turn comes.
    line().full(35, 48).passes();
}

#[test]
fn what_is_shown_is_held() {
    let held = || h().op(1, create("x"), 10, 20, Done);
    held()
        .op(2, Call::Look, 15, 18, listed(&[("x", "s1", 1)]))
        .op(2, Call::Look, 30, 40, listed(&[("x", "s1", 1)]))
        .passes();
    held()
        .op(1, unlink("x"), 30, 40, Done)
        .op(2, Call::Look, 35, 45, listed(&[]))
        .op(2, Call::Look, 41, 45, listed(&[("x", "s1", 1)]))
        .breaks(NothingStale);
    held()
        .dies(1, 30, 40)
        .op(2, Call::Look, 41, 45, listed(&[("x", "s1", 1)]))
        .breaks(NothingStale);
    // Nobody gave it to that one.
    held()
        .op(2, Call::Look, 5, 50, listed(&[("x", "s2", 1)]))
        .breaks(NothingStale);
}

#[test]
fn what_is_held_is_held() {
    let held = || h().op(1, create("x"), 10, 20, Done);
    held()
        .op(2, Call::Look, 30, 40, listed(&[]))
        .breaks(HeldIsHeld);
    held()
        .op(1, unlink("x"), 30, 40, Refused(ENOENT))
        .breaks(HeldIsHeld);
    held()
        .op(1, token("x"), 30, 40, Refused(EBUSY))
        .breaks(HeldIsHeld);
    h().op(1, unlink("x"), 30, 40, Done).breaks(HeldIsHeld);
    // A gift is held by the other, who may not know.
    held()
        .op(1, give("x", "s2"), 30, 40, Done)
        .op(2, Call::Look, 50, 60, listed(&[]))
        .breaks(HeldIsHeld);
    held()
        .op(1, give("x", "s2"), 30, 40, Done)
        .dies(2, 45, 48)
        .op(3, Call::Look, 50, 60, listed(&[]))
        .op(3, create("x"), 61, 62, Done)
        .passes();
}

#[test]
fn a_deadline_ends_a_lease_neither_early_nor_late() {
    let held = || {
        h().op(1, create("t"), 10, 20, Done)
            .op(1, limit("t", 100), 30, 40, Done)
    };
    // It may pass from 130 on, and has passed at 140.
    held().op(2, create("t"), 120, 131, Done).passes();
    held()
        .op(2, create("t"), 120, 140, EXISTS)
        .op(1, unlink("t"), 125, 150, Refused(ENOENT))
        .passes();
    held().op(2, create("t"), 120, 129, Done).breaks(OneHolder);
    held()
        .op(2, create("t"), 141, 150, EXISTS)
        .breaks(FreeIsClaimable);
    held()
        .op(1, unlink("t"), 110, 120, Refused(ENOENT))
        .breaks(HeldIsHeld);
}

#[test]
fn errors() {
    h().op(1, create("x"), 10, 20, Refused(ENOSPC))
        .full(5, 12)
        .passes();
    h().op(1, create("x"), 10, 20, Refused(EIO))
        .full(15, 90)
        .passes();
    h().op(1, create("x"), 10, 20, Refused(ENOSPC))
        .full(21, 90)
        .breaks(Errors);
    h().op(1, join("x"), 10, 20, Refused(EBUSY)).breaks(Errors);
    // A full disk refuses no release, and makes no second holder.
    h().op(1, create("x"), 1, 2, Done)
        .op(1, unlink("x"), 10, 20, Refused(ENOSPC))
        .full(5, 90)
        .op(2, create("x"), 30, 40, Done)
        .breaks_all(&[Errors, HeldIsHeld]);
    h().op(1, create("x"), 1, 2, Done)
        .op(2, create("x"), 30, 40, Done)
        .full(5, 90)
        .breaks(OneHolder);
}

impl History {
    #[track_caller]
    fn breaks_all(self, rules: &[Rule]) {
        let (findings, _) = check(&self, 0);
        for rule in rules {
            assert!(
                findings.iter().any(|finding| finding.rule == *rule),
                "{findings:#?}"
            );
        }
    }
}
