//! The shells, and how a script of each claims, lives and ends.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

pub struct Shell {
    pub name: &'static str,
    pub words: &'static [&'static str],
}

pub const SHELLS: [Shell; 6] = [
    shell("bash", &["bash"]),
    shell("dash", &["dash"]),
    shell("zsh", &["zsh"]),
    shell("ksh", &["ksh"]),
    shell("fish", &["fish"]),
    shell("busybox", &["busybox", "sh"]),
];

const fn shell(name: &'static str, words: &'static [&'static str]) -> Shell {
    Shell { name, words }
}

impl Shell {
    fn is_fish(&self) -> bool {
        self.name == "fish"
    }
}

/// The kind of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
}

/// A way to claim: `N` stands for the name. Each but the first is a command of its own, the same in
/// each shell.
pub struct Way {
    pub name: &'static str,
    command: &'static str,
    pub kind: Kind,
    /// The body says the pid of the script, and so binds the lease to that.
    is_bound: bool,
}

const fn way(name: &'static str, command: &'static str, kind: Kind) -> Way {
    Way {
        name,
        command,
        kind,
        is_bound: false,
    }
}

pub const WAYS: [Way; 10] = [
    way(">", "set -C; : > claims/N", Kind::File),
    way("mkdir", "mkdir claims/N", Kind::Directory),
    way(
        "ln",
        "touch claims/N.t && ln claims/N.t claims/N && rm claims/N.t",
        Kind::File,
    ),
    way("ln -s", "ln -s nowhere/N claims/N", Kind::Symlink),
    way(
        "mv -n",
        "touch claims/N.t && mv -n claims/N.t claims/N",
        Kind::File,
    ),
    way("mktemp", "mktemp claims/N.XXXXXX > N.name", Kind::File),
    way("lockfile", "lockfile -r 0 claims/N", Kind::File),
    way("dotlockfile", "dotlockfile -l -r 0 claims/N", Kind::File),
    Way {
        is_bound: true,
        ..way("shlock", "\"$SHLOCK\" -p \"$P\" -f claims/N", Kind::File)
    },
    way("queue", "cat queue/N > /dev/null", Kind::File),
];

/// A way to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    Signal(&'static str),
    /// There is no memory left for it.
    Memory,
    Exit(i32),
}

pub const DEATHS: [Death; 8] = [
    Death::Signal("KILL"),
    Death::Signal("TERM"),
    Death::Signal("INT"),
    Death::Signal("HUP"),
    // With a core.
    Death::Signal("SEGV"),
    Death::Memory,
    Death::Exit(0),
    Death::Exit(3),
];

/// Shells that make an exit of a signal, with the construct that brings them to it ("" is any), and
/// the code.
const EXITS: [(&str, &str, &str, i32); 4] = [
    ("zsh", "", "HUP", 1),
    // ksh runs the trap, and exits with the number of the signal, or with 1 where that interrupts
    // what it does.
    ("ksh", "trap and set -e", "TERM", 15),
    ("ksh", "trap and set -e", "INT", 1),
    ("ksh", "trap and set -e", "HUP", 1),
];

/// The part of a script that makes the claim.
pub struct Construct {
    pub name: &'static str,
    /// Its text in POSIX shells: `CLAIM` stands for the commands, `SHELL` for the shell, `FILE` for
    /// a file with the commands.
    posix: &'static str,
    /// The same in fish; empty where that has none.
    fish: &'static str,
    /// The only shells that have it, if not all.
    only: &'static [&'static str],
}

const fn construct(name: &'static str, posix: &'static str, fish: &'static str) -> Construct {
    Construct {
        name,
        posix,
        fish,
        only: &[],
    }
}

const fn coproc(posix: &'static str, only: &'static [&'static str]) -> Construct {
    Construct {
        only,
        ..construct("coproc", posix, "")
    }
}

const XARGS: &str = "echo x | xargs -I% SHELL FILE";
const FIND: &str = "find . -maxdepth 0 -exec SHELL FILE ';'";
const TIMEOUT: &str = "timeout 60 SHELL FILE";
const MAKE: &str = "printf 'all:\\n\\t@SHELL FILE\\n' > FILE.make\nmake -s -f FILE.make";
const PARALLEL: &str = "parallel --will-cite -j 1 ::: 'SHELL FILE'";
const NOHUP: &str = "nohup SHELL FILE > /dev/null 2>&1";

pub const CONSTRUCTS: [Construct; 15] = [
    construct("itself", "CLAIM", "CLAIM"),
    construct("( )", "( CLAIM )", ""),
    construct("$( )", "x=$( CLAIM )", "set x (CLAIM)"),
    construct(
        "pipeline",
        "echo x | { CLAIM; echo x; } | cat > /dev/null",
        "echo x | begin; CLAIM; echo x; end | cat > /dev/null",
    ),
    construct(
        "background job",
        "{ CLAIM; } &\nwait $!",
        "SHELL FILE &\nwait",
    ),
    construct("xargs", XARGS, XARGS),
    construct("find -exec", FIND, FIND),
    construct("timeout", TIMEOUT, TIMEOUT),
    construct("make", MAKE, MAKE),
    construct("parallel", PARALLEL, PARALLEL),
    construct("nohup", NOHUP, NOHUP),
    construct(
        "trap and set -e",
        "set -e\ntrap 'echo bye > /dev/null' EXIT\nCLAIM",
        "trap 'echo bye > /dev/null' EXIT\nCLAIM",
    ),
    coproc("coproc { CLAIM; }\nwait $!", &["bash"]),
    coproc("coproc { CLAIM; }\nwait $!", &["zsh"]),
    coproc("{ CLAIM; } |&\nwait $!", &["ksh"]),
];

impl Construct {
    pub fn is_in(&self, shell: &Shell) -> bool {
        let is_there = !shell.is_fish() || !self.fish.is_empty();
        is_there && (self.only.is_empty() || self.only.contains(&shell.name))
    }
}

/// A script and how it ends.
pub struct Case {
    pub shell: &'static Shell,
    pub construct: &'static Construct,
    pub way: &'static Way,
    pub death: Death,
}

impl Case {
    /// A fish that reads goes on when it is interrupted.
    pub fn is_possible(&self) -> bool {
        !(self.shell.is_fish() && self.death == Death::Signal("INT"))
    }

    /// The code that the shell makes of this signal.
    fn exits(&self) -> Option<i32> {
        let Death::Signal(signal) = self.death else {
            return None;
        };
        let is_it = |(shell, construct, name, _): &&(&str, &str, &str, i32)| {
            *shell == self.shell.name
                && *name == signal
                && (construct.is_empty() || *construct == self.construct.name)
        };
        EXITS.iter().find(is_it).map(|exit| exit.3)
    }

    /// Its `$?` in the terminal.
    pub fn status(&self) -> Option<i32> {
        match self.death {
            Death::Exit(code) => Some(code),
            Death::Memory => Some(128 + libc::SIGKILL),
            Death::Signal(signal) => self.exits().or(Some(128 + number(signal))),
        }
    }

    /// Whether the terminal has the name in the end.
    pub fn passes(&self) -> bool {
        let is_exit = matches!(self.death, Death::Exit(_)) || self.exits().is_some();
        is_exit && !self.way.is_bound
    }
}

fn number(signal: &str) -> i32 {
    match signal {
        "KILL" => libc::SIGKILL,
        "TERM" => libc::SIGTERM,
        "INT" => libc::SIGINT,
        "HUP" => libc::SIGHUP,
        "SEGV" => libc::SIGSEGV,
        _ => panic!("{signal}"),
    }
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let (shell, construct, way) = (self.shell.name, self.construct.name, self.way.name);
        write!(formatter, "{shell}, {construct}, {way}, {:?}", self.death)
    }
}

/// The commands that claim a name.
pub fn claim(shell: &Shell, way: &Way, name: &str) -> String {
    if shell.is_fish() && way.name == ">" {
        return format!("true >? claims/{name}");
    }
    // Only a path has it, or a name that is to be made.
    way.command
        .replace("/N", &format!("/{name}"))
        .replace(" N.", &format!(" {name}."))
}

/// Writes the files of a case: `TAG.script` and, for what is run by other programs, `TAG.claim`.
pub fn written(dir: &Path, case: &Case, tag: &str) {
    let shell = case.shell;
    let claim = claim(shell, case.way, tag);
    let text = if shell.is_fish() {
        case.construct.fish
    } else {
        case.construct.posix
    };
    let text = text
        .replace("SHELL", &shell.words.join(" "))
        .replace("FILE", &format!("{tag}.claim"))
        .replace("CLAIM", &claim);
    let (head, tail) = if shell.is_fish() {
        ("set -x P $fish_pid", FISH_TAIL)
    } else {
        ("P=$$; export P", POSIX_TAIL)
    };
    fs::write(dir.join(format!("{tag}.claim")), format!("{claim}\n")).unwrap();
    fs::write(
        dir.join(format!("{tag}.script")),
        format!("{head}\n{text}\n{tail}"),
    )
    .unwrap();
}

const POSIX_TAIL: &str = "echo claimed
read -r word
if [ \"$word\" = oom ]; then x=xxxxxxxx; while :; do x=$x$x; done; fi
exit \"$word\"
";

const FISH_TAIL: &str = "echo claimed
read word
if test $word = oom; set x xxxxxxxx; while true; set x $x$x; end; end
exit $word
";

/// A script that says so when a part of it, which claims, has ended.
pub fn maker_script(shell: &Shell, name: &str) -> String {
    let part = if shell.is_fish() {
        format!("fish {name}.claim &\n")
    } else {
        let claim = claim(shell, &WAYS[0], name);
        format!("( {claim}; read -r word <&7 ) &\n")
    };
    let tail = if shell.is_fish() {
        FISH_TAIL
    } else {
        POSIX_TAIL
    };
    format!(
        "{part}echo claimed\nwait\n{}",
        tail.replace("claimed", "reaped")
    )
}

/// The shlock of INN, which is taken from its package, and where its libraries are.
pub fn shlock() -> (&'static str, &'static str) {
    (
        concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/target/clients/usr/lib/news/bin/shlock"
        ),
        concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/usr/lib/news"),
    )
}

/// The programs that the scripts use and that are not installed.
pub fn missing() -> Vec<&'static str> {
    let mut programs = vec![
        "bash",
        "dash",
        "zsh",
        "ksh",
        "fish",
        "busybox",
        "lockfile",
        "dotlockfile",
        "make",
        "parallel",
    ];
    programs.push(shlock().0);
    let is_missing = |program: &&str| {
        let found = Command::new("sh")
            .args(["-c", "command -v \"$1\"", "sh", program])
            .output();
        !found.unwrap().status.success()
    };
    programs.into_iter().filter(is_missing).collect()
}
