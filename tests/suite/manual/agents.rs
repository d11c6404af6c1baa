//! The table of known agents in `agents.md` is the one of the code.

use std::collections::BTreeSet;
use std::path::Path;

use claimfs::core::agents;

#[test]
fn every_known_agent_has_a_row_with_its_marks_and_no_other() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manual/agents.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, table) = page.split_once("| agent |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    // The words in backticks of a row, without their order.
    let words = |row: &str| -> BTreeSet<String> {
        let words = row.split('`').skip(1).step_by(2);
        words.map(str::to_owned).collect()
    };
    let shown: BTreeSet<_> = table.lines().skip(2).map(words).collect();
    let known = agents::known().into_iter().map(|agent| {
        let variables = agent.values.into_iter().chain(agent.marks);
        let all = variables.chain(agent.pid).chain(agent.programs);
        all.chain([agent.name]).map(String::from).collect()
    });
    assert_eq!(shown, known.collect::<BTreeSet<BTreeSet<String>>>());
}
