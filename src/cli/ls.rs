//! `claimfs ls`

use std::path::Path;
use std::time::SystemTime;

use super::tool::{self, Mount};
use super::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print the records as JSON, a line each
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let records = Mount::find(mount)?.leases()?;
        if self.json {
            for record in &records {
                tool::say(&record.to_string());
            }
            return Ok(Exit::Done);
        }
        let now = SystemTime::now();
        let rows: Vec<Vec<String>> = records
            .iter()
            .map(|record| {
                let cell = |key| tool::field(record, key);
                vec![
                    cell("name"),
                    cell("session"),
                    cell("pid"),
                    cell("command"),
                    tool::ago(record, "acquired_at", now),
                ]
            })
            .collect();
        tool::table(&["CLAIM", "SESSION", "PID", "COMMAND", "HELD FOR"], &rows);
        Ok(Exit::Done)
    }
}
