//! The files of `/proc`, read and parsed (proc(5)). A field that cannot be parsed counts as absent.

use std::borrow::Cow;
use std::fs;
use std::io::{self, Read};
use std::sync::Arc;

/// The longest file that is read, in bytes. The arguments and the environment of a program have
/// 6 MiB together at most (execve(2)).
const READ_MAX: u64 = 8 << 20;

/// Most files are shorter than this, in bytes.
const USUAL: usize = 4096;

/// A whole file of `/proc`, which does not tell its size. Most are read by one call: if it leaves
/// room in the buffer, that was all.
fn read(path: &str) -> io::Result<Vec<u8>> {
    read_at_most(path, READ_MAX)
}

/// The same. `FileTooLarge` if it has more bytes than that.
fn read_at_most(path: &str, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; USUAL];
    let mut file = fs::File::open(path)?;
    let length = loop {
        match file.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            length => break length?,
        }
    };
    bytes.truncate(length);
    if length == USUAL {
        file.take(most).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// How many threads are tried at most for the environment of a process whose leader has exited. A
/// thread that has none is exiting itself.
const THREADS_MAX: usize = 64;

/// The environment of a task as of its last exec; `FileTooLarge` if it has more bytes than that. It
/// reads as empty for a process whose leader has exited: then the other threads are tried, until
/// one still has memory. A task that waits for an answer (`waits`) has memory.
pub(super) fn environ(task: u32, waits: bool, most: usize) -> io::Result<Vec<u8>> {
    let most = READ_MAX.min(most as u64);
    // A task without memory has no address of an environment in its stat either.
    let has_memory = |path: &str| {
        let stat = read(&format!("{path}/stat")).ok();
        stat.and_then(|text| Stat::parse(&text).map(|stat| stat.environ != 0))
            .unwrap_or(false)
    };
    let path = format!("/proc/{task}");
    let own = read_at_most(&format!("{path}/environ"), most)?;
    if !own.is_empty() || waits || has_memory(&path) {
        return Ok(own);
    }
    let threads = fs::read_dir(format!("{path}/task"))?.flatten();
    for entry in threads.take(THREADS_MAX) {
        let path = format!("{path}/task/{}", entry.file_name().to_string_lossy());
        match read_at_most(&format!("{path}/environ"), most) {
            Ok(other) if !other.is_empty() || has_memory(&path) => return Ok(other),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Err(error),
            _ => {}
        }
    }
    Ok(own)
}

/// The variables in an environment, and their values. If a name is there several times, the first
/// counts (getenv(3)).
pub fn variables(environ: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let entries = environ.split(|byte| *byte == 0);
    entries.filter_map(|entry| {
        let at = entry.iter().position(|byte| *byte == b'=')?;
        Some((&entry[..at], &entry[at + 1..]))
    })
}

/// Programs that run scripts, by the beginnings of their command names. Node calls its first thread
/// `MainThread`.
const INTERPRETERS: [&str; 6] = ["node", "MainThread", "bun", "deno", "python", "pypy"];

/// Whether a command runs scripts.
pub(super) fn is_interpreter(command: &str) -> bool {
    INTERPRETERS.iter().any(|name| command.starts_with(name))
}

/// The program of a process: its command, or the name of the script if that is an interpreter.
pub(super) fn program(pid: u32, command: &str) -> Arc<str> {
    let script = || {
        is_interpreter(command).then_some(())?;
        let words = read(&format!("/proc/{pid}/cmdline")).ok()?;
        script(&words)
    };
    script().unwrap_or_else(|| Arc::from(command))
}

/// The name of the script in a command line: its first word that is no option, without directory
/// and ending.
pub fn script(words: &[u8]) -> Option<Arc<str>> {
    let mut words = words.split(|byte| *byte == 0).skip(1);
    let script = words.find(|word| !word.starts_with(b"-") && !word.is_empty())?;
    let name = std::str::from_utf8(script).ok()?.rsplit('/').next()?;
    let ends = [".js", ".mjs", ".cjs", ".py"];
    let stem = ends.iter().find_map(|end| name.strip_suffix(end));
    Some(Arc::from(stem.unwrap_or(name)))
}

/// The fields of `/proc/PID/stat` (proc(5)).
#[derive(Debug)]
pub struct Stat<'a> {
    /// The command name, which the process can choose.
    pub command: Cow<'a, str>,
    /// The pid of its parent.
    pub parent: u32,
    /// The POSIX session; 0 if it has no number in this pid namespace.
    pub sid: u32,
    flags: u32,
    /// When it started, in clock ticks since boot.
    pub start: u64,
    /// The address of the environment of the last exec; 0 for readers who may not trace it.
    pub environ: u64,
    /// The wait status of a zombie; 0 for readers who may not trace it.
    pub status: i32,
    state: u8,
}

impl Stat<'static> {
    /// The stat of a process, without its command.
    pub(super) fn read(pid: u32) -> io::Result<Self> {
        let text = read(&format!("/proc/{pid}/stat"))?;
        let stat = Stat::parse(&text).ok_or(io::ErrorKind::InvalidData)?;
        let command = Cow::Borrowed("");
        Ok(Self { command, ..stat })
    }
}

impl<'a> Stat<'a> {
    /// Parses the file. The command is in parentheses and may contain some, so that the last one
    /// ends it.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let open = text.iter().position(|byte| *byte == b'(')?;
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let command = String::from_utf8_lossy(text.get(open + 1..close)?);
        // The state, field 3 of the file, follows the command; a single space comes before each
        // field.
        let mut fields = text[close + 1..].split(|byte| *byte == b' ').skip(1);
        let state = fields.next()?.first().copied().unwrap_or(0);
        Some(Self {
            command,
            parent: number(fields.next()?)?,
            sid: fields.nth(1).and_then(number).unwrap_or(0),
            flags: fields.nth(2).and_then(number).unwrap_or(0),
            start: number(fields.nth(12)?)?,
            environ: fields.nth(27).and_then(number).unwrap_or(0),
            status: fields
                .nth(1)
                .and_then(number::<u32>)
                .map_or(0, u32::cast_signed),
            state,
        })
    }
}

impl Stat<'_> {
    /// It is dead, and has not been waited for.
    pub(super) fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    /// It is a kernel thread: `PF_KTHREAD` of `include/linux/sched.h`.
    pub(super) fn is_kernel(&self) -> bool {
        self.flags & 0x0020_0000 != 0
    }

    /// Its last exec has randomised the address space: `PF_RANDOMIZE` of the same file.
    pub(super) fn is_random(&self) -> bool {
        self.flags & 0x0040_0000 != 0
    }
}

fn number<T: TryFrom<u64>>(digits: &[u8]) -> Option<T> {
    let mut number: u64 = 0;
    for digit in digits.trim_ascii_end() {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    T::try_from(number).ok().filter(|_| !digits.is_empty())
}

/// The fields of `/proc/PID/status` (proc(5)).
#[derive(Debug, Default)]
pub struct Status {
    /// The pid of the task's process.
    pub tgid: u32,
    /// Its effective uid.
    pub uid: u32,
    /// Its pids, from the one in the reader's pid namespace down to the one in its own.
    pub local_pids: Vec<u32>,
    /// It is a kernel thread.
    pub kernel: bool,
    /// A signal is pending that ends it.
    pub doomed: bool,
}

/// Signals that end no process by default: SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU,
/// SIGURG, SIGWINCH.
const HARMLESS: u64 = 1 << 16 | 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 27;

impl Status {
    pub(super) fn read(task: u32) -> io::Result<Self> {
        let text = read(&format!("/proc/{task}/status"))?;
        Self::parse(&String::from_utf8_lossy(&text)).ok_or(io::ErrorKind::InvalidData.into())
    }

    /// Parses the file; `None` if a line that counts cannot be parsed.
    pub fn parse(text: &str) -> Option<Self> {
        let mut status = Self::default();
        let (mut pending, mut spared, mut over) = (0, HARMLESS, false);
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let mut numbers = value.split_ascii_whitespace().map(str::parse::<u32>);
            match key {
                "Tgid" => status.tgid = numbers.next()?.ok()?,
                // Real, effective, saved, file system.
                "Uid" => status.uid = numbers.nth(1)?.ok()?,
                "NSpid" => status.local_pids = numbers.filter_map(Result::ok).collect(),
                // Signals stay pending for the dead.
                "State" => over = value.trim_start().starts_with(['Z', 'X']),
                "SigPnd" | "ShdPnd" => pending |= u64::from_str_radix(value.trim(), 16).ok()?,
                "SigBlk" | "SigIgn" | "SigCgt" => {
                    spared |= u64::from_str_radix(value.trim(), 16).ok()?;
                }
                "Kthread" => status.kernel = value.trim() == "1",
                _ => {}
            }
        }
        status.doomed = !over && pending & !spared != 0;
        (status.tgid != 0).then_some(status)
    }
}

#[cfg(test)]
mod tests {
    use super::{Stat, script};

    #[test]
    fn a_script_is_the_first_word_that_is_no_option() {
        for (words, name) in [
            (
                &b"node\0--no-warnings=DEP0040\0/usr/local/bin/gemini\0-p\0hi\0"[..],
                Some("gemini"),
            ),
            (b"python3\0/opt/venv/bin/aider\0", Some("aider")),
            (b"node\0/opt/cli.mjs\0", Some("cli")),
            (b"python3\0", None),
            (b"", None),
            (b"node\0-\0\xff\xfe\0", None),
        ] {
            assert_eq!(script(words).as_deref(), name, "{words:?}");
        }
    }

    #[test]
    fn a_command_may_contain_parentheses_and_spaces() {
        let line = b"42 (a) (b c)) S 7 42 41 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 2 3";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(
            (&*stat.command, stat.parent, stat.sid, stat.start),
            ("a) (b c)", 7, 41, 987_654)
        );
    }

    #[test]
    fn what_is_no_stat_line_is_nothing() {
        for line in [&b""[..], b"1", b"1 (x", b")(", b"1 (x) S", b"1 (x) S a b c"] {
            assert!(Stat::parse(line).is_none(), "{line:?}");
        }
    }
}
