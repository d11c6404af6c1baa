//! Why something fails: a sentence that names the thing, the reason and the way out, and the exit
//! code that scripts look at.

use std::fmt;

/// Makes the enum of exit codes and, from its documentation, the table that `claimfs --help`
/// prints.
macro_rules! exits {
    ($($(#[doc = $line:literal])+ $name:ident = $code:literal,)+) => {
        /// How a command ends.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Exit {
            $($(#[doc = $line])+ $name,)+
            /// The exit code of a child process.
            Child(u8),
        }

        impl Exit {
            /// Each exit code of claimfs itself, and its meaning.
            pub const TABLE: &[(u8, &str)] = &[$(($code, concat!($($line),+))),+];

            /// The exit code.
            pub fn code(self) -> u8 {
                match self {
                    $(Self::$name => $code,)+
                    Self::Child(code) => code,
                }
            }
        }
    };
}

exits! {
    /// done
    Done = 0,
    /// held by another, or the time ran out
    Held = 1,
    /// usage: the arguments make no sense, and nothing was done
    Usage = 2,
    /// no mount, or unavailable; output that could not be written
    Unavailable = 3,
    /// not there: no such claim or session
    Absent = 4,
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

    /// There is no such claim or session.
    pub fn absent(text: impl Into<String>) -> Self {
        Self::new(Exit::Absent, text)
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
