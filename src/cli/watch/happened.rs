//! The newest events, from `history` and then from `events`.
//!
//! Promises: an event that is in both counts once.

use std::collections::VecDeque;

use serde_json::Value;

/// The number of events that are kept: more than a screen has lines.
const KEPT: usize = 200;

/// The newest events that are about names.
#[derive(Debug, Default)]
pub(super) struct Happened {
    newest: VecDeque<Value>,
    /// The beginning of a line whose end is not read yet.
    begun: Vec<u8>,
    /// The number of the newest event of all.
    seq: Option<u64>,
}

impl Happened {
    /// The last events of a history.
    pub(super) fn since(history: &str) -> Self {
        let mut happened = Self::default();
        happened.read(history.as_bytes());
        happened.begun.clear();
        happened
    }

    /// Adds what was read of a stream of lines.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        self.begun.extend_from_slice(bytes);
        let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') else {
            return;
        };
        let rest = self.begun.split_off(end + 1);
        let whole = std::mem::replace(&mut self.begun, rest);
        let lines = whole.split(|byte| *byte == b'\n');
        let lines = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        for event in lines {
            let seq = event["seq"].as_u64();
            if seq.is_some() && seq <= self.seq {
                continue;
            }
            self.seq = seq.or(self.seq);
            if is_about_names(&event) {
                self.newest.push_back(event);
            }
            if self.newest.len() > KEPT {
                self.newest.pop_front();
            }
        }
    }

    /// The newest events, oldest first.
    pub(super) fn newest(&self) -> Vec<Value> {
        self.newest.iter().cloned().collect()
    }
}

/// Whether an event is about names, or says that events are missing. Sessions come and go.
fn is_about_names(event: &Value) -> bool {
    ["claim", "claims", "missed"]
        .iter()
        .any(|key| event.get(key).is_some())
}

#[cfg(test)]
mod tests {
    use super::{Happened, KEPT};

    fn line(seq: u64) -> String {
        format!("{{\"seq\":{seq},\"event\":\"claimed\",\"claim\":\"x{seq}\"}}\n")
    }

    fn names(happened: &Happened) -> Vec<String> {
        let newest = happened.newest();
        let name = |event: &serde_json::Value| event["claim"].as_str().unwrap_or("-").to_owned();
        newest.iter().map(name).collect()
    }

    #[test]
    fn an_event_of_history_and_stream_counts_once_and_lines_may_come_in_pieces() {
        let mut happened = Happened::since(&[line(1), line(2)].concat());
        let (two, three) = (line(2), line(3));
        happened.read(two.as_bytes());
        let (start, end) = three.split_at(7);
        happened.read(start.as_bytes());
        assert_eq!(names(&happened), ["x1", "x2"]);
        happened.read(end.as_bytes());
        happened.read(b"{\"missed\":7}\nnothing\n{\"seq\":9,\"event\":\"session_started\"}\n");
        assert_eq!(names(&happened), ["x1", "x2", "x3", "-"]);
    }

    #[test]
    fn only_the_newest_are_kept() {
        let lines: Vec<String> = (1..=1000).map(line).collect();
        let happened = Happened::since(&lines.concat());
        assert_eq!(happened.newest().len(), KEPT);
        assert_eq!(names(&happened).last().map(String::as_str), Some("x1000"));
    }
}
