//! Lines in `control`, and registrations of sessions.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use claimfs::core::content::TTL_MAX;
use claimfs::core::identity::{Facts, Sight, Variable, View, ancestry};
use claimfs::core::{Name, Process, Refusal, SessionId};
use claimfs::tree::control::ControlCommand;
use serde_json::json;

/// Two lines at most differ by this after they were written with seconds as a number.
const ROUNDING: Duration = Duration::from_micros(1);

pub fn run(data: &[u8]) {
    registration(data);
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for line in text.lines() {
        match ControlCommand::parse(line) {
            Ok(order) => is_written_as_it_is_read(&order),
            Err(Refusal::Invalid | Refusal::BadName | Refusal::LongName | Refusal::TooLarge) => {}
            Err(refusal) => panic!("{line:?}: {refusal:?}"),
        }
    }
}

fn is_written_as_it_is_read(order: &ControlCommand) {
    let line = match order {
        ControlCommand::Claim { name, session, ttl } => {
            json!({"claim": name, "session": session, "seconds": ttl.as_secs_f64()})
        }
        ControlCommand::Release { name, session } => json!({"release": name, "session": session}),
        ControlCommand::Take { names, reason } => {
            let mut line = json!({ (list(names, ["claim", "reserve"])): shown(names) });
            if let Some(reason) = reason {
                line["reason"] = json!(reason);
            }
            line
        }
        ControlCommand::Drop { names } => {
            json!({ (list(names, ["release", "unreserve"])): shown(names) })
        }
        ControlCommand::Break { name, token } => json!({"break": name, "token": token}),
        ControlCommand::Give { name, to } => json!({"give": name, "to": to}),
        ControlCommand::Limit { name, ttl } => {
            json!({"ttl": name, "seconds": ttl.map(|ttl| ttl.as_secs_f64())})
        }
        ControlCommand::End { session } => json!({ "end": session }),
    };
    let again = ControlCommand::parse(&line.to_string()).unwrap();
    let (one, other) = (without_ttl(order.clone()), without_ttl(again));
    assert_eq!(one.0, other.0);
    assert_eq!(one.1.is_some(), other.1.is_some());
    if let (Some(one), Some(other)) = (one.1, other.1) {
        assert!(one.abs_diff(other) <= ROUNDING, "{one:?} {other:?}");
        assert!(one >= Duration::from_millis(1) && one <= TTL_MAX, "{one:?}");
    }
}

/// The key of a list: of claims, or of paths.
fn list(names: &[Name], keys: [&'static str; 2]) -> &'static str {
    keys[usize::from(names[0].is_path())]
}

fn shown(names: &[Name]) -> Vec<&str> {
    let shown = |name| Name::as_path(name).unwrap_or(name.as_str());
    names.iter().map(shown).collect()
}

/// A control command with any time made the same, and that time.
fn without_ttl(order: ControlCommand) -> (ControlCommand, Option<Duration>) {
    let any = Duration::from_secs(1);
    match order {
        ControlCommand::Claim { name, session, ttl } => (
            ControlCommand::Claim {
                name,
                session,
                ttl: any,
            },
            Some(ttl),
        ),
        ControlCommand::Limit { name, ttl } => (ControlCommand::Limit { name, ttl: None }, ttl),
        other => (other, None),
    }
}

const UID: u32 = 1000;
const SHELL: u32 = 4242;
const SCRIPT: u32 = 4343;

/// A shell, which leads its POSIX session, and a script below it.
struct Two;

impl View for Two {
    fn facts(&self, pid: u32) -> Sight<Facts> {
        let parent = match pid {
            SHELL => 0,
            SCRIPT => SHELL,
            _ => return Sight::Gone,
        };
        Sight::Seen(Facts {
            process: Process {
                pid,
                start: pid.into(),
                pidfs: pid.into(),
            },
            parent,
            sid: SHELL,
            uid: UID,
            pidns: 0,
            local_pid: pid,
            command: Arc::from("sh"),
            program: Arc::from("sh"),
            started: UNIX_EPOCH,
            adopted: false,
            environ: 0,
        })
    }

    fn variable(&self, _: &Process, _: Option<u32>) -> Sight<Variable> {
        Sight::Seen(Variable::Unset)
    }
}

/// Whatever is written to a file in `sessions/`: the one process that it names is registered, or
/// none.
fn registration(body: &[u8]) {
    let ancestry = ancestry(&Two, Some(SCRIPT), SCRIPT, UID).unwrap();
    match ancestry.register(SessionId::new(b"w1").unwrap(), body) {
        Ok(member) => {
            assert_eq!(member.roots.len(), 1);
            let text = std::str::from_utf8(body).unwrap().trim();
            let pid = member.roots[0].process.pid;
            let digits = text.trim_start_matches(['+', '0']);
            assert!(digits == pid.to_string() || (text.is_empty() && pid == SHELL));
        }
        Err(Refusal::Invalid | Refusal::NotPermitted) => {}
        Err(refusal) => panic!("{body:?}: {refusal:?}"),
    }
}
