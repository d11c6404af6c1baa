//! The answer to an event: an exit code, and what is printed. It is made in a copy of the process
//! that prints it, and sent as JSON.

use serde::{Deserialize, Serialize};

use super::FAILED;

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) code: u8,
    /// For standard output.
    pub(super) said: String,
    /// For standard error: lines.
    pub(super) complaint: String,
}

impl Answer {
    /// Nothing to say: the tool may run.
    pub(super) fn silence() -> Self {
        Self::default()
    }

    pub(super) fn saying(said: String) -> Self {
        Self {
            said,
            ..Self::default()
        }
    }

    pub(super) fn failed(why: impl Into<String>) -> Self {
        Self::coded(FAILED, why)
    }

    pub(super) fn coded(code: u8, complaint: impl Into<String>) -> Self {
        Self {
            code,
            complaint: complaint.into(),
            ..Self::default()
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}
