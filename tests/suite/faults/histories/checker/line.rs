//! Checks that names are granted in the order in which the places in their queue were taken.

use std::collections::HashMap;

use super::holds::{Holds, Wait};
use super::{Finding, Rule};
use crate::faults::histories::history::{Answer, Call, History};

/// Somebody who was granted a name: from the queue, or by a create that comes between.
struct Winner {
    /// When it asked first.
    asked: u64,
    /// When it was told that the name is its own.
    told: u64,
    token: Option<u64>,
    process: u32,
}

pub fn first_come_first_served(history: &History, holds: &Holds, findings: &mut Vec<Finding>) {
    let mut winners: HashMap<&str, Vec<Winner>> = HashMap::new();
    let mut lines: HashMap<&str, Vec<&Wait>> = HashMap::new();
    for wait in &holds.waits {
        lines.entry(&wait.name).or_default().push(wait);
        if let Some(hold) = wait.served.map(|hold| &holds.all[hold]) {
            winners.entry(&wait.name).or_default().push(Winner {
                asked: wait.joined.0,
                told: hold.granted.1,
                token: hold.token,
                process: wait.process,
            });
        }
    }
    for operation in &history.operations {
        if let (Call::Create(name), Some((told, Answer::Done))) = (&operation.call, &operation.told)
        {
            let made = |hold: &&super::Hold| {
                hold.process == operation.process && hold.granted == (operation.asked, *told)
            };
            winners.entry(name).or_default().push(Winner {
                asked: operation.asked,
                told: *told,
                token: holds.all.iter().find(made).and_then(|hold| hold.token),
                process: operation.process,
            });
        }
    }
    for (name, waits) in lines {
        for winner in winners.get(name).into_iter().flatten() {
            for wait in &waits {
                if overtakes(winner, wait, holds) && !history.is_full(winner.asked, winner.told) {
                    findings.push(Finding {
                        rule: Rule::FirstComeFirstServed,
                        name: Some(name.to_owned()),
                        at: (winner.told, winner.told),
                        what: format!(
                            "process {} asked for {name} at {} us, and was granted it by {} us; process {} was in line before \
                             that, from {} us on",
                            winner.process,
                            winner.asked / 1000,
                            winner.told / 1000,
                            wait.process,
                            wait.joined.1 / 1000,
                        ),
                    });
                }
            }
        }
    }
}

/// Whether a name was granted while a client with an earlier place was still in the queue.
fn overtakes(winner: &Winner, wait: &Wait, holds: &Holds) -> bool {
    if wait.joined.1 >= winner.asked {
        return false;
    }
    let Some(hold) = wait.served.map(|hold| &holds.all[hold]) else {
        // Had it been served before, it would have held the name until it left.
        return wait.left > winner.told;
    };
    match (hold.token, winner.token) {
        (Some(earlier), Some(later)) => earlier > later,
        // Had it been served before, it would hold the name still.
        _ => hold.certain.1 > winner.told,
    }
}
