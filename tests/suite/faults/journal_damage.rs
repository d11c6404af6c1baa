//! Damage to a journal of this boot: it is refused, or no grant to a living holder is lost.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use claimfs::core::failure::Failure;
use claimfs::core::table::Table;
use claimfs::core::{Change, Command as Ask, Creation, Member, NodeId, Shape};
use claimfs::handoff::{Handoff, Note};
use claimfs::journal::Log;
use claimfs::journal::{self, Disk, JOURNAL_MAX, Live, Recovered, Source};
use claimfs::process::Boot;
use libc::EEXIST;

use crate::core::model::{claim, member, name, process};
use crate::lifecycle::journal::{another, boot, framed, now, payloads};
use crate::support::{CLAIMFS, Mount, TempDir, is_root, program, root_or_skip, text, wait_until};

/// A journal that a server of this boot has written, and where its frames end.
struct Written {
    dir: TempDir,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    table: Table,
}

/// Carries an order out, as the store does it.
fn run(disk: &mut Disk, table: &mut Table, ask: &Ask) {
    let events = table.decide(ask, now(1)).unwrap();
    disk.append(&events, None).unwrap();
    for event in &events {
        table.apply(event);
    }
    disk.compact_if_due(table, Live::default()).unwrap();
}

fn creation() -> Creation {
    Creation {
        shape: Shape::File,
        mode: 0o600,
        uid: 0,
        gid: 0,
    }
}

impl Written {
    /// Two sessions with some grants each, a body, a release, a place in a line that becomes a
    /// grant, a deadline; the last frame is a grant.
    fn new() -> Self {
        let dir = TempDir::new();
        let recovered = journal::read(dir.path(), &boot(), 99, false).unwrap();
        let connection = Handoff::new("connection");
        let mut disk = Disk::begin(dir.path(), boot(), &recovered, &connection).unwrap();
        let mut table = recovered.table;
        let length = || fs::metadata(dir.path().join("journal")).unwrap().len() as usize;
        let mut ends = vec![length()];
        let (one, two): (Member, Member) =
            (member("w1", &[process(1)]), member("w2", &[process(2)]));
        let release = |of: &str, by| Ask::Release {
            name: name(of).into(),
            directory: false,
            by,
        };
        for ask in [
            claim("a", &one),
            claim("b", &two),
            Ask::Queue {
                name: name("a"),
                by: &two,
                creation: creation(),
            },
            release("a", &one),
            claim("c", &one),
        ] {
            run(&mut disk, &mut table, &ask);
            ends.push(length());
        }
        let ino = table.lease(&name("c")).unwrap().ino;
        let data = b"\"body\" \xFF\n}".to_vec();
        let change = Change::Append { data };
        let by = &one;
        run(&mut disk, &mut table, &Ask::Alter { ino, by, change });
        ends.push(length());
        let ttl = Some(Duration::from_secs(1 << 20));
        run(&mut disk, &mut table, &Ask::Limit { ino, by, ttl });
        ends.push(length());
        let note = Note::Closed {
            fh: NodeId::Seated(7),
        };
        disk.note(&note, None).unwrap();
        ends.push(length());
        run(&mut disk, &mut table, &claim("last", &two));
        ends.push(length());
        drop(disk);
        let bytes = fs::read(dir.path().join("journal")).unwrap();
        assert_eq!(table.lease_count(), 4);
        Self {
            dir,
            bytes,
            ends,
            table,
        }
    }

    /// A directory with these bytes as its journal, if there are any, and `tokens` of this boot.
    fn with(&self, bytes: Option<&[u8]>) -> TempDir {
        let dir = TempDir::new();
        if let Some(bytes) = bytes {
            fs::write(dir.path().join("journal"), bytes).unwrap();
        }
        fs::copy(self.dir.path().join("tokens"), dir.path().join("tokens")).unwrap();
        dir
    }

    /// Whether every lease is there, with its token and its holder.
    fn is_held(&self, recovered: &Recovered) -> bool {
        let of = |table: &Table, name| {
            let (lease, inode, session) = table.last(name)?;
            let alive = session.is_alive().then(|| session.id.clone());
            Some((lease.token, lease.ino, inode.holder, alive))
        };
        let mut leases = self.table.leases(claimfs::core::Token(0));
        recovered.same_boot
            && leases.all(|(name, _)| of(&self.table, name) == of(&recovered.table, name))
    }

    /// A server of this boot reads such bytes: whether it refuses them. If not, nothing is lost.
    fn is_refused(&self, bytes: &[u8], what: &str) -> bool {
        let source = Source {
            path: Path::new("journal"),
            bytes,
            size: bytes.len() as u64,
            began: Some("this-boot"),
        };
        match journal::replay(source, &boot(), 99, false) {
            Ok(recovered) => {
                assert!(self.is_held(&recovered), "{what}: a grant is lost");
                false
            }
            Err(Failure { text: why, .. }) => {
                assert!(why.contains("'claimfs mount --repair'"), "{what}: {why}");
                true
            }
        }
    }
}

#[test]
fn every_single_bit_that_flips_is_refused_or_loses_no_grant() {
    let written = Written::new();
    assert!(!written.is_refused(&written.bytes, "untouched"));
    let mut bytes = written.bytes.clone();
    let mut refused = 0;
    for bit in 0..8 * bytes.len() {
        bytes[bit / 8] ^= 1 << (bit % 8);
        refused += usize::from(written.is_refused(&bytes, &format!("bit {bit}")));
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    let flips = 8 * bytes.len();
    println!(
        "{flips} single-bit flips of a journal of {} bytes in {} frames: {refused} refused, {} \
         without loss",
        bytes.len(),
        written.ends.len(),
        flips - refused
    );
    assert_eq!(refused, flips);
}

#[test]
fn every_single_bit_that_flips_in_tokens_is_refused_or_loses_no_grant() {
    let written = Written::new();
    let path = written.dir.path().join("tokens");
    let mut tokens = fs::read(&path).unwrap();
    let mut refused = 0;
    for bit in 0..8 * tokens.len() {
        tokens[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &tokens).unwrap();
        match journal::read(written.dir.path(), &boot(), 99, false) {
            Ok(recovered) => {
                assert!(written.is_held(&recovered), "bit {bit}");
                assert!(recovered.table.next_token() >= written.table.next_token());
            }
            Err(Failure { text: why, .. }) => {
                assert!(why.contains("'claimfs mount --repair'"), "{why}");
                refused += 1;
            }
        }
        tokens[bit / 8] ^= 1 << (bit % 8);
    }
    println!(
        "{} single-bit flips of tokens: {refused} refused",
        8 * tokens.len()
    );
}

#[test]
fn every_byte_that_goes_or_comes_twice_is_refused_or_loses_no_grant() {
    let written = Written::new();
    let bytes = &written.bytes;
    let (mut refused, mut cuts) = (0, 0);
    for at in 0..bytes.len() {
        let mut other = bytes.clone();
        other.remove(at);
        // The last byte may never have been written.
        if other == bytes[..other.len()] {
            cuts += 1;
        } else {
            refused += usize::from(written.is_refused(&other, &format!("without byte {at}")));
        }
        let mut other = bytes.clone();
        other.insert(at, bytes[at]);
        refused += usize::from(written.is_refused(&other, &format!("byte {at} twice")));
    }
    println!(
        "{} bytes removed or doubled: {refused} refused",
        2 * bytes.len() - cuts
    );
    assert!(cuts <= 3 && refused + 3 >= 2 * bytes.len() - cuts);
}

#[test]
fn a_journal_cut_at_any_byte_is_its_whole_frames_or_refused_as_empty() {
    let written = Written::new();
    let refused = |bytes| {
        let dir = written.with(Some(bytes));
        journal::read(dir.path(), &boot(), 99, false).is_err()
    };
    let head = written.ends[0];
    for cut in 0..written.bytes.len() {
        assert_eq!(refused(&written.bytes[..cut]), cut < head, "cut at {cut}");
    }
}

#[test]
fn sectors_of_zeros_and_bytes_behind_the_end_are_refused() {
    let written = Written::new();
    for at in (0..written.bytes.len()).step_by(64) {
        let mut other = written.bytes.clone();
        let end = other.len().min(at + 512);
        other[at..end].fill(0);
        assert!(written.is_refused(&other, &format!("zeros from {at}")));
    }
    let random: Vec<u8> = (0..5000_u32).map(|at| (at * at / 7 + 3) as u8).collect();
    let frame = &written.bytes[written.ends[0]..written.ends[1]];
    let head = &written.bytes[..written.ends[0]];
    for behind in [&[0; 4][..], &[0; 5000], &random, frame, head, b"{\"a\":1}"] {
        let other = [&written.bytes, behind].concat();
        assert!(written.is_refused(&other, "bytes behind the end"));
    }
}

/// Files that are no journal, in its place: the kind as the message calls it.
fn put(path: &Path, what: &str) {
    _ = fs::remove_file(path);
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    match what {
        "a fifo" => assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0),
        "a directory" => fs::create_dir(path).unwrap(),
        "a symbolic link" => symlink("/dev/zero", path).unwrap(),
        "a socket" => drop(UnixListener::bind(path).unwrap()),
        "a device" => {
            let zero = libc::makedev(1, 5);
            let made = unsafe { libc::mknod(name.as_ptr(), libc::S_IFCHR | 0o600, zero) };
            assert_eq!(made, 0);
        }
        "it belongs to uid 4711" => {
            fs::write(path, "").unwrap();
            std::os::unix::fs::chown(path, Some(4711), None).unwrap();
        }
        "it is missing" => {}
        "it is empty" => fs::write(path, "").unwrap(),
        _ => unreachable!("{what}"),
    }
}

fn kinds() -> Vec<&'static str> {
    let mut kinds = vec!["a fifo", "a directory", "a symbolic link", "a socket"];
    if is_root() {
        kinds.extend(["a device", "it belongs to uid 4711"]);
    }
    kinds
}

#[test]
fn what_is_no_journal_is_refused_at_once_and_set_aside_by_a_repair() {
    let written = Written::new();
    for what in kinds().into_iter().chain(["it is missing", "it is empty"]) {
        let dir = written.with(Some(&written.bytes));
        let path = dir.path().join("journal");
        put(&path, what);
        let Err(Failure { text: why, .. }) = journal::read(dir.path(), &boot(), 99, false) else {
            panic!("{what}: served");
        };
        let (kind, way) = (why.contains(what), "'claimfs mount --repair'");
        assert!(kind && why.contains(way) && why.contains("alive"), "{why}");

        // Every holder of an earlier boot is dead.
        let later = Boot {
            id: "a-later-boot".into(),
            pidns: 7,
        };
        let recovered = journal::read(dir.path(), &later, 99, false).unwrap();
        assert_eq!(recovered.table.lease_count(), 0);
        assert!(recovered.table.next_token() > 1 << 16);

        let repaired = journal::read(dir.path(), &boot(), 99, true).unwrap();
        let lost = repaired.lost.as_deref().unwrap();
        assert!(lost.contains(what) && lost.contains("lost"), "{lost}");
        assert!(lost.contains("alive") || what == "it is empty", "{lost}");
        assert!(repaired.table.next_token() > 1 << 16);
        drop(Disk::begin(dir.path(), boot(), &repaired, &another()).unwrap());
        let is_aside = fs::symlink_metadata(dir.path().join("journal.corrupt.0")).is_ok();
        assert_eq!(is_aside, what != "it is missing", "{what}");
        assert!(path.symlink_metadata().unwrap().is_file());
        let again = journal::read(dir.path(), &boot(), 99, false).unwrap();
        assert!(again.same_boot && again.lost.is_none());
    }
}

#[test]
fn tokens_that_are_no_such_file_are_refused_and_a_repair_keeps_all_leases() {
    let written = Written::new();
    for what in kinds().into_iter().chain(["it is empty"]) {
        let dir = written.with(Some(&written.bytes));
        put(&dir.path().join("tokens"), what);
        let Err(Failure { text: why, .. }) = journal::read(dir.path(), &boot(), 99, false) else {
            panic!("{what}: served");
        };
        assert!(why.contains("/tokens: "), "{why}");
        assert!(why.contains("'claimfs mount --repair'"), "{why}");
        let repaired = journal::read(dir.path(), &boot(), 99, true).unwrap();
        assert!(written.is_held(&repaired));
        drop(Disk::begin(dir.path(), boot(), &repaired, &another()).unwrap());
        assert!(fs::symlink_metadata(dir.path().join("tokens.corrupt.0")).is_ok());
        let again = journal::read(dir.path(), &boot(), 99, false).unwrap();
        assert!(written.is_held(&again) && again.lost.is_none());
    }
}

#[test]
fn things_under_the_names_of_new_files_are_neither_followed_nor_waited_for() {
    for what in ["a fifo", "a symbolic link", "a socket"] {
        let dir = TempDir::new();
        let victim = dir.path().join("victim");
        fs::write(&victim, "whole").unwrap();
        for new in ["journal.new", "tokens.new"] {
            put(&dir.path().join(new), what);
        }
        if what == "a symbolic link" {
            fs::remove_file(dir.path().join("journal.new")).unwrap();
            symlink(&victim, dir.path().join("journal.new")).unwrap();
        }
        let recovered = journal::read(dir.path(), &boot(), 99, false).unwrap();
        drop(Disk::begin(dir.path(), boot(), &recovered, &another()).unwrap());
        assert!(
            journal::read(dir.path(), &boot(), 99, false)
                .unwrap()
                .same_boot
        );
        assert_eq!(fs::read_to_string(&victim).unwrap(), "whole");
    }
}

#[test]
fn a_journal_of_this_boot_is_of_this_boot_whatever_tokens_says() {
    let written = Written::new();
    for tokens in [None, Some("65536 another-boot\n"), Some("65536\n")] {
        for (tail, refused) in [(&b""[..], false), (b"xx", false), (&[0; 50], true)] {
            let dir = written.with(Some(&[&written.bytes, tail].concat()));
            let path = dir.path().join("tokens");
            match tokens {
                Some(tokens) => fs::write(path, tokens).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
            match journal::read(dir.path(), &boot(), 99, false) {
                Ok(recovered) => assert!(written.is_held(&recovered) && !refused, "{tokens:?}"),
                Err(Failure { text: why, .. }) => assert!(refused, "{tokens:?}: {why}"),
            }
        }
    }
}

#[test]
fn an_older_journal_that_is_put_back_is_refused() {
    let written = Written::new();
    let dir = written.with(Some(&written.bytes));
    fs::write(dir.path().join("tokens"), "65536 a-later-boot\n").unwrap();
    let later = Boot {
        id: "a-later-boot".into(),
        pidns: 7,
    };
    let Err(Failure { text: why, .. }) = journal::read(dir.path(), &later, 99, false) else {
        panic!("what was claimed in this boot is not in it");
    };
    assert!(
        why.contains("in an earlier boot") && why.contains("--repair"),
        "{why}"
    );
    let repaired = journal::read(dir.path(), &later, 99, true).unwrap();
    assert!(repaired.lost.is_some() && repaired.table.next_token() > 1 << 16);
}

#[test]
fn a_journal_that_is_too_long_is_refused_and_its_holes_take_no_memory() {
    let written = Written::new();
    for (length, why_not) in [
        (JOURNAL_MAX, "corrupt at byte"),
        (JOURNAL_MAX + 1, "no journal is longer"),
        (1 << 40, "no journal is longer"),
    ] {
        let dir = written.with(Some(&written.bytes));
        let path = dir.path().join("journal");
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(length).unwrap();
        let begun = Instant::now();
        let Err(Failure { text: why, .. }) = journal::read(dir.path(), &boot(), 99, false) else {
            panic!("{length}: served");
        };
        assert!(why.contains(why_not) && why.contains("--repair"), "{why}");
        let repaired = journal::read(dir.path(), &boot(), 99, true).unwrap();
        assert!(written.is_held(&repaired) && repaired.lost.is_some());
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
    // The last frame says that it takes 2 GB, and there are as many.
    let dir = written.with(Some(&written.bytes));
    let path = dir.path().join("journal");
    let mut bytes = written.bytes.clone();
    bytes[written.ends[written.ends.len() - 2] + 3] |= 0x40;
    fs::write(&path, &bytes).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(1 << 32).unwrap();
    assert!(journal::read(dir.path(), &boot(), 99, false).is_err());
    let peak = fs::read_to_string("/proc/self/status").unwrap();
    let peak = peak
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let peak: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(peak < 1 << 20, "{peak} kB");
}

#[test]
fn what_a_killed_write_has_left_becomes_part_of_a_frame_before_the_next_is_written() {
    let written = Written::new();
    let (head, second) = (written.ends[0], written.ends[1]);
    let long = "\\\"}".repeat(5000);
    let mut long_frame = framed(&format!("{{\"events\":[],\"x\":\"{long}\"}}"));
    long_frame.pop();
    let mut tails: Vec<&[u8]> = (1..second - head)
        .map(|cut| &written.bytes[head..head + cut])
        .collect();
    tails.push(&long_frame);
    tails.push(&long_frame[..9000]);
    tails.push(b"xx");
    for tail in tails {
        let dir = written.with(Some(&[&written.bytes, tail].concat()));
        let recovered = journal::read(dir.path(), &boot(), 99, false).unwrap();
        assert!(written.is_held(&recovered) && recovered.lost.is_none());
        let connection = recovered.handoff.clone();
        let mut disk = Disk::begin(dir.path(), boot(), &recovered, &connection).unwrap();
        let mut table = recovered.table;
        let by = &member("w3", &[process(3)]);
        run(&mut disk, &mut table, &claim("next", by));
        run(&mut disk, &mut table, &claim("more", by));
        drop(disk);
        // To its last byte it is whole frames now: none that is shorter lies over a longer one.
        let bytes = fs::read(dir.path().join("journal")).unwrap();
        let frames = payloads(&bytes);
        let length: usize = frames.iter().map(|payload| 8 + payload.len()).sum();
        assert_eq!(length, bytes.len(), "{} bytes were left", tail.len());
        let again = journal::read(dir.path(), &boot(), 99, false).unwrap();
        assert!(again.table == table && written.is_held(&again));
    }
}

#[test]
fn remains_behind_a_shorter_frame_as_older_releases_left_them_are_refused_in_a_sentence() {
    let written = Written::new();
    let whole = written.bytes.len();
    let torn = framed(&format!("{{\"events\":[],\"x\":\"{}\"}}", "y".repeat(500)));
    let mut bytes = [&written.bytes[..], &torn[..400]].concat();
    let frame = written.bytes[written.ends[0]..written.ends[1]].to_vec();
    let note = framed("{\"note\":{\"Closed\":{\"fh\":7}}}");
    assert!(note.len() < 400 && frame.len() > 8);
    bytes[whole..whole + note.len()].copy_from_slice(&note);
    assert!(written.is_refused(&bytes, "remains"));
}

#[test]
fn an_entry_with_a_part_that_is_not_known_is_refused() {
    let written = Written::new();
    let unheard = framed("{\"unheard\":[]}");
    assert!(written.is_refused(&[&written.bytes[..], &unheard].concat(), "unheard"));
    let nothing = framed("{}");
    assert!(!written.is_refused(&[&written.bytes[..], &nothing].concat(), "nothing"));
}

// With real mounts.

const QUICK: Duration = Duration::from_secs(2);

/// `claimfs mount`: its exit code and what it says, within two seconds.
fn mount_again(mount: &Mount) -> (i32, String) {
    let mut command = Command::new(CLAIMFS);
    command
        .args(["mount", "--no-agents", "--state-dir"])
        .args([&mount.state, &mount.dir])
        .stdin(Stdio::null());
    let begun = Instant::now();
    let (code, _, err) = text(&command.output().unwrap());
    assert!(begun.elapsed() < QUICK, "{err}");
    (code, err)
}

/// Server and supervisor are killed beside a holder that lives, something is done to the state
/// directory, and it is mounted again: refused in a sentence, and not if it is to be repaired.
fn is_refused_until_repaired(what: &str, damage: impl Fn(&Path)) {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let mut holder = mount.actor(Some("holder"));
    holder.claim("first").unwrap();
    holder.claim("x").unwrap();
    let token = mount.record("x").unwrap()["token"].as_u64().unwrap();
    mount.kill();
    damage(&mount.state);
    let (code, err) = mount_again(&mount);
    assert_eq!(code, 3, "{what}: {err}");
    assert!(err.contains("'claimfs mount --repair'"), "{what}: {err}");
    assert_eq!(err.trim_end().lines().count(), 1, "{err}");
    assert!(!mount.dir.join("claims").exists());
    mount.start(&["--repair"]);
    let mut other = mount.actor(Some("other"));
    assert!(mount.log().contains("lost"), "{what}: {}", mount.log());
    other.claim("new").unwrap();
    let next = mount.record("new").unwrap()["token"].as_u64().unwrap();
    assert!(next > token, "{what}: {next}");
}

fn journal(state: &Path, change: impl FnOnce(&mut Vec<u8>, usize)) {
    let path = state.join("journal");
    let mut bytes = fs::read(&path).unwrap();
    let (mut at, mut last) = (0, 0);
    while at < bytes.len() {
        last = at;
        at += 8 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    }
    change(&mut bytes, last);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_mount_refuses_a_flipped_bit_of_the_last_frame() {
    is_refused_until_repaired("payload", |state| {
        journal(state, |bytes, last| bytes[last + 20] ^= 1);
    });
    is_refused_until_repaired("last byte", |state| {
        journal(state, |bytes, _| *bytes.last_mut().unwrap() ^= 4);
    });
    is_refused_until_repaired("length", |state| {
        journal(state, |bytes, last| bytes[last + 1] ^= 1);
    });
    is_refused_until_repaired("high byte of the length", |state| {
        journal(state, |bytes, last| bytes[last + 3] ^= 0x04);
    });
    is_refused_until_repaired("checksum", |state| {
        journal(state, |bytes, last| bytes[last + 5] ^= 0x10);
    });
}

#[test]
fn a_mount_refuses_a_journal_that_is_damaged_elsewhere_or_goes_on_with_something_else() {
    is_refused_until_repaired("middle", |state| {
        journal(state, |bytes, last| bytes[last / 2] ^= 4);
    });
    is_refused_until_repaired("zeros behind", |state| {
        journal(state, |bytes, _| bytes.extend([0; 5000]));
    });
    is_refused_until_repaired("garbage behind", |state| {
        journal(state, |bytes, _| bytes.extend(b"garbage ".repeat(600)));
    });
    is_refused_until_repaired("a hole of a terabyte behind", |state| {
        let file = OpenOptions::new().write(true).open(state.join("journal"));
        file.unwrap().set_len(1 << 40).unwrap();
    });
}

#[test]
fn a_mount_refuses_an_empty_or_missing_journal() {
    is_refused_until_repaired("empty", |state| {
        File::create(state.join("journal")).unwrap();
    });
    is_refused_until_repaired("missing", |state| {
        fs::remove_file(state.join("journal")).unwrap();
    });
}

#[test]
fn a_mount_refuses_at_once_what_is_no_journal_of_ours() {
    for what in kinds() {
        is_refused_until_repaired(what, |state| put(&state.join("journal"), what));
    }
}

#[test]
fn a_mount_refuses_where_all_that_remembers_is_gone_but_the_dead_mount() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let mut holder = mount.actor(Some("holder"));
    holder.claim("x").unwrap();
    mount.kill();
    for name in ["journal", "tokens"] {
        fs::remove_file(mount.state.join(name)).unwrap();
    }
    let (code, err) = mount_again(&mount);
    assert!(
        code == 3 && err.contains("'claimfs mount --repair'"),
        "{err}"
    );
    mount.start(&["--repair"]);
    mount.actor(Some("other")).claim("x").unwrap();
}

#[test]
fn a_mount_refuses_tokens_that_are_no_such_file() {
    for what in ["a fifo", "a directory", "a symbolic link"] {
        is_refused_until_repaired(what, |state| put(&state.join("tokens"), what));
    }
}

#[test]
fn a_mount_goes_on_if_nothing_of_its_journal_is_damaged() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let mut holder = mount.actor(Some("holder"));
    holder.claim("x").unwrap();
    let token = mount.record("x").unwrap()["token"].clone();
    let tokens = "65536 00000000-0000-0000-0000-000000000000\n";
    let append = |state: &Path, bytes: &[u8]| {
        let file = OpenOptions::new().append(true).open(state.join("journal"));
        file.unwrap().write_all(bytes).unwrap();
    };
    let left_by_a_kill =
        |state: &Path| append(state, b"\xC8\x00\x00\x00abcd{\"events\":[{\"seq\":9");
    let undamaged: [&dyn Fn(&Path); 5] = [
        &|_| {},
        &left_by_a_kill,
        &|state| append(state, b"xx"),
        &|state| fs::remove_file(state.join("tokens")).unwrap(),
        &|state| fs::write(state.join("tokens"), tokens).unwrap(),
    ];
    for change in undamaged {
        mount.kill();
        change(&mount.state);
        mount.start(&[]);
        let mut other = mount.actor(Some("other"));
        assert_eq!(other.claim("x"), Err(EEXIST));
        assert_eq!(mount.record("x").unwrap()["token"], token);
    }
    drop(holder);
    wait_until("its holder has died", || mount.record("x").is_none());
}

#[test]
fn a_mount_goes_on_behind_what_a_killed_server_has_left_of_a_frame() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = mount.actor(Some("holder"));
    holder.claim("x").unwrap();
    for _ in 0..3 {
        let torn = framed(&format!("{{\"events\":[],\"x\":\"{}\"}}", "y".repeat(9000)));
        let server = mount.pid() as i32;
        unsafe { libc::kill(server, libc::SIGSTOP) };
        let file = OpenOptions::new()
            .append(true)
            .open(mount.state.join("journal"));
        file.unwrap().write_all(&torn[..8000]).unwrap();
        mount.kill_server();
        holder.claim("y").unwrap();
        holder.unlink("claims/y").unwrap();
    }
    mount.kill_server();
    let mut other = mount.actor(Some("other"));
    assert_eq!(other.claim("x"), Err(EEXIST));
    other.claim("y").unwrap();
}

#[test]
fn a_first_start_that_is_interrupted_at_any_system_call_is_not_refused_afterwards() {
    if Command::new("strace").arg("-V").output().is_err() {
        crate::support::skip("strace is not installed");
        return;
    }
    let written = Written::new();
    let mut interrupted = 0;
    for earlier in [false, true] {
        for call in ["openat", "write", "fallocate", "fsync", "rename", "linkat"] {
            for when in 1..50 {
                let dir = TempDir::new();
                if earlier {
                    // An earlier boot has left these, and the journal is damaged.
                    let bytes = String::from_utf8_lossy(&written.bytes).replace("this", "that");
                    fs::write(dir.path().join("journal"), bytes).unwrap();
                    fs::write(dir.path().join("tokens"), "65536 that-boot\n").unwrap();
                }
                let mut strace = Command::new("strace");
                strace.args(["-f", "-qq", "-o", "/dev/null", "-P"]);
                strace.arg(dir.path());
                for file in ["journal", "journal.new", "tokens", "tokens.new"] {
                    strace.arg("-P").arg(dir.path().join(file));
                }
                strace.arg("-e");
                strace.arg(format!("inject={call}:signal=KILL:when={when}"));
                strace.arg(program("journal_writer")).arg(dir.path());
                let done = strace.output().unwrap().status.success();
                let read = journal::read(dir.path(), &boot(), 99, false);
                if let Err(Failure { text: why, .. }) = read {
                    panic!("{call} {when}, of an earlier boot: {earlier}: {why}");
                }
                if done {
                    break;
                }
                interrupted += 1;
            }
        }
    }
    assert!(interrupted >= 10, "{interrupted}");
}

#[test]
fn what_an_earlier_boot_has_not_synced_is_passed_over_and_other_damage_of_it_set_aside() {
    let written = Written::new();
    let later = Boot {
        id: "a-later-boot".into(),
        pidns: 7,
    };
    let last = written.ends[written.ends.len() - 2];
    let zeros = [&written.bytes[..last], &[0; 4096]].concat();
    let dir = written.with(Some(&zeros));
    let recovered = journal::read(dir.path(), &later, 99, false).unwrap();
    assert!(!recovered.same_boot && recovered.lost.is_none());
    assert_eq!(recovered.table.lease_count(), 3);
    let mut middle = written.bytes.clone();
    middle[written.ends[2] + 20] ^= 1;
    let dir = written.with(Some(&middle));
    let recovered = journal::read(dir.path(), &later, 99, false).unwrap();
    assert!(recovered.lost.is_some() && recovered.table.next_token() > 1 << 16);
}

#[test]
fn a_journal_of_another_user_is_refused() {
    if !root_or_skip("give a file away") {
        return;
    }
    let written = Written::new();
    let dir = written.with(Some(&written.bytes));
    let path = dir.path().join("journal");
    std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
    let Err(Failure { text: why, .. }) = journal::read(dir.path(), &boot(), 99, false) else {
        panic!("whoever owns it may write to it");
    };
    assert!(why.contains("it belongs to uid 4711"), "{why}");
    std::os::unix::fs::chown(&path, Some(0), None).unwrap();
    let recovered = journal::read(dir.path(), &boot(), 99, false).unwrap();
    assert!(written.is_held(&recovered));
}
