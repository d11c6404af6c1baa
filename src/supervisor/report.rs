//! The lines that a server writes to its standard output, which its supervisor reads.
//!
//! Promises: the words never change. An upgrade replaces the server and not the supervisor, so a
//! new server reports to a supervisor from before; and after an upgrade back a new supervisor reads
//! the reports of an older server.

/// A report of a server to its supervisor. Each is one line: a word, a space, and the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// Something was lost, as a sentence.
    Lost(String),
    /// The server answers requests from now on. The kernel has these capabilities on the
    /// connection.
    Ready(u64),
    /// A request has reached the server.
    Asked,
    /// The server has answered a request.
    Answered,
    /// The server cannot begin, for this reason.
    Failed(String),
    /// The journal is not of this connection, or missing: nobody knows what is held.
    Unknown,
    /// Something has left the state directory, and the server has mended what is its own.
    Touched,
    /// A program that was only started to prove that it can serve (`--prove`) has done so.
    Proved,
}

impl Report {
    /// The line, without its end.
    pub(crate) fn to_line(&self) -> String {
        let one_line = |text: &str| text.replace('\n', " ");
        match self {
            Self::Lost(what) => format!("lost {}", one_line(what)),
            Self::Ready(capabilities) => format!("ready {capabilities}"),
            Self::Asked => String::from("asked "),
            Self::Answered => String::from("answered "),
            Self::Failed(why) => format!("failed {}", one_line(why)),
            Self::Unknown => String::from("unknown "),
            Self::Touched => String::from("touched "),
            Self::Proved => String::from("proved"),
        }
    }

    /// The report that a line is; `None` for a line that is none, as a later version may write.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "lost" => Some(Self::Lost(rest.to_owned())),
            "ready" => rest.parse().ok().map(Self::Ready),
            "asked" => Some(Self::Asked),
            "answered" => Some(Self::Answered),
            "failed" => Some(Self::Failed(rest.to_owned())),
            "unknown" => Some(Self::Unknown),
            "touched" => Some(Self::Touched),
            "proved" if rest.is_empty() => Some(Self::Proved),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Report;

    #[test]
    fn each_report_is_the_line_that_it_always_was() {
        for (line, report) in [
            ("lost the journal", Report::Lost("the journal".into())),
            ("ready 549755813888", Report::Ready(1 << 39)),
            ("asked ", Report::Asked),
            ("answered ", Report::Answered),
            ("failed no: room", Report::Failed("no: room".into())),
            ("unknown ", Report::Unknown),
            ("touched ", Report::Touched),
            ("proved", Report::Proved),
        ] {
            assert_eq!(report.to_line(), line);
            assert_eq!(Report::parse(line), Some(report));
        }
        assert_eq!(Report::Lost("a\nb".into()).to_line(), "lost a b");
        for other in ["", "ready", "ready x", "hello", "Ready 1", "proved by x"] {
            assert_eq!(Report::parse(other), None, "{other}");
        }
    }
}
