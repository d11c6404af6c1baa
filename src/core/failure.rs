//! Why something fails: a sentence that names the thing, the reason and the way out, and the exit
//! code that scripts look at.

use std::fmt;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: held by another, or timed out.
    Held,
    /// 2: the arguments make no sense.
    Usage,
    /// 3: no mount, or not available; or nobody outlives the command to hold the claim.
    Unavailable,
    /// The exit code of a child process.
    Child(u8),
}

impl Exit {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Held => 1,
            Self::Usage => 2,
            Self::Unavailable => 3,
            Self::Child(code) => code,
        }
    }
}

/// Why something fails: a sentence, and the exit code of a command that fails for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The sentence.
    pub text: String,
}

impl Failure {
    /// Another session holds the thing.
    pub fn held(text: impl Into<String>) -> Self {
        Self::new(Exit::Held, text)
    }

    /// The arguments make no sense.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    /// There is no mount, or it cannot do it.
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self::new(Exit::Unavailable, text)
    }

    fn new(exit: Exit, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { exit, text }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}
