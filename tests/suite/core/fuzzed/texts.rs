//! The texts of `/proc`. The first byte selects the file; the rest is its text, or the part of it
//! that a process can choose.

use std::os::unix::ffi::OsStrExt;

use claimfs::process::proc::{Stat, Status, script, variables};
use claimfs::sys::mountinfo;

pub fn run(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else {
        return;
    };
    match which % 8 {
        0 => _ = Stat::parse(rest),
        1 => stat_of(rest),
        2 => _ = Status::parse(&String::from_utf8_lossy(rest)),
        3 => status_of(rest),
        4 => environ(rest),
        5 => command_line(rest),
        6 => {
            for mount in mountinfo::parse(rest) {
                assert!(mount.dir.as_os_str().len() < rest.len());
                assert!(mount.source.as_os_str().len() < rest.len());
                _ = mount.is_read_only();
            }
        }
        _ => mount_on(rest),
    }
}

/// A process may call itself anything (`PR_SET_NAME`, prctl(2)), and is still who it is.
fn stat_of(command: &[u8]) {
    let mut line = b"4242 (".to_vec();
    line.extend(command);
    line.extend(b") S 77 4242 41 34816 4300 4194304 100 0 0 0 1 2 0 0 20 0 1 0 987654 8192000 200");
    line.extend(b" 18446744073709551615 1 2 3 0 0 0 0 4096 65536 0 0 0 17 1 0 0 0 0 0 5 6 7 8 9 140000000000000 11 0\n");
    let stat = Stat::parse(&line).unwrap();
    assert_eq!(stat.command, String::from_utf8_lossy(command));
    assert_eq!((stat.parent, stat.sid, stat.start), (77, 41, 987_654));
    assert_eq!(stat.environ, 140_000_000_000_000);
}

/// The kernel escapes line breaks and backslashes in the name alone (`proc_task_name`,
/// fs/proc/array.c).
fn status_of(command: &[u8]) {
    let name = String::from_utf8_lossy(command);
    let name = name.replace('\\', "\\\\").replace('\n', "\\n");
    let text = format!(
        "Name:\t{name}\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t4242\nNgid:\t0\nPid:\t4243\nPPid:\t77\nTracerPid:\t0\n\
         Uid:\t1000\t1001\t1002\t1003\nGid:\t5\t6\t7\t8\nFDSize:\t64\nGroups:\t\nNStgid:\t4242\t7\nNSpid:\t4243\t8\nKthread:\t0\n\
         SigQ:\t0/6\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000010000\nSigBlk:\t0000000000000000\n"
    );
    let status = Status::parse(&text).unwrap();
    assert_eq!((status.tgid, status.uid), (4242, 1001));
    assert_eq!(status.local_pids, [4243, 8]);
    assert!(!status.kernel && !status.doomed);
}

/// The first line of the data is the variable's name, the rest the environment.
fn environ(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let name = parts.next().unwrap_or_default();
    let environ = parts.next().unwrap_or_default();
    let Ok(name) = std::str::from_utf8(name) else {
        return;
    };
    if name.is_empty() || name.contains(['=', '\0']) {
        return;
    }
    let mut naive = None;
    for entry in environ.split(|byte| *byte == 0) {
        let equals = entry.iter().position(|byte| *byte == b'=');
        if let Some(equals) = equals
            && &entry[..equals] == name.as_bytes()
        {
            naive = naive.or(Some(&entry[equals + 1..]));
        }
    }
    let mut found = variables(environ).filter(|(found, _)| *found == name.as_bytes());
    assert_eq!(found.next().map(|(_, value)| value), naive);
}

fn command_line(words: &[u8]) {
    if let Some(name) = script(words) {
        assert!(!name.contains(['/', '\0']), "{name:?}");
        let mut parts = words.windows(name.len().max(1));
        let there = parts.any(|part| part == name.as_bytes());
        assert!(there || name.is_empty(), "{name:?}");
    }
}

/// The kernel escapes white space and backslashes in names (`mangle`, `fs/proc_namespace.c`).
fn mount_on(name: &[u8]) {
    let name: Vec<u8> = name.iter().copied().filter(|byte| *byte != 0).collect();
    let mut escaped = Vec::new();
    for byte in &name {
        if b" \t\n\\#".contains(byte) {
            escaped.extend(format!("\\{byte:03o}").into_bytes());
        } else {
            escaped.push(*byte);
        }
    }
    let mut line = b"36 35 0:98 /".to_vec();
    line.extend(&escaped);
    line.extend(b" /mnt/");
    line.extend(&escaped);
    line.extend(b" rw,noatime shared:1 - fuse.claimfs ");
    line.extend(&escaped);
    line.extend(b" ro,user_id=0\n");
    let mounts = mountinfo::parse(&line);
    assert_eq!(mounts.len(), 1);
    let (dir, source) = (&mounts[0].dir, &mounts[0].source);
    assert_eq!(dir.as_os_str().as_bytes(), [b"/mnt/", &name[..]].concat());
    assert_eq!(source.as_os_str().as_bytes(), name);
    assert_eq!(
        (&*mounts[0].fs_type, &*mounts[0].device),
        ("fuse.claimfs", "0:98")
    );
    assert!(mounts[0].is_read_only());
}
