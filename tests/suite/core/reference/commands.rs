//! Operations of the reference as commands to the table.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use claimfs::core::{
    Asker, Change, Command, Creation, Kin, Member, Process, Refusal, RemoteSession, Root, Rule,
    SessionId, Shape, Token,
};

use super::words::{self, Answer, Caller, Op};
use super::world::World;

pub fn errno(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Exists => "EEXIST",
        Refusal::Busy => "EBUSY",
        Refusal::NotFound => "ENOENT",
        Refusal::Lost => "ESTALE",
        Refusal::NotPermitted => "EPERM",
        Refusal::Full => "ENOSPC",
        Refusal::Quota => "EDQUOT",
        Refusal::NoAttribute => "ENODATA",
        Refusal::NotDirectory => "ENOTDIR",
        Refusal::IsDirectory => "EISDIR",
        _ => "another",
    }
}

pub fn process((pid, life): words::Process) -> Process {
    // A pid comes back in another life, at times in the same clock tick.
    let (start, pidfs) = (100 + life / 2, life);
    Process { pid, start, pidfs }
}

pub fn member(by: &Caller, id: SessionId, registered: bool) -> Member {
    let process = process(by.me);
    let rule = if by.terminal {
        Rule::Posix
    } else {
        Rule::Variable
    };
    let root = Root {
        process,
        command: Arc::from("sh"),
        started: UNIX_EPOCH,
        registered,
        environ: 0,
        above: claimfs::core::Above::Unknown,
    };
    let pid = process.pid;
    Member {
        id,
        rule,
        uid: by.uid,
        pidns: 0,
        sandbox: 0,
        scope: claimfs::core::Scope::Session,
        heir: None,
        roots: vec![root],
        lineage: vec![Kin { process, pid }],
        pid,
        command: Arc::from("sh"),
    }
}

impl World {
    /// The command, or what the kernel answers by itself where the name does not exist.
    pub(super) fn command<'a>(
        &self,
        op: Op,
        by: &'a Member,
        chain: &'a [Process],
        named: &'a RemoteSession,
    ) -> Answer<Command<'a>> {
        let name = |name: u8| self.names[name as usize].clone();
        let ino = |of: u8| {
            let lease = self.table.lease(&self.names[of as usize]);
            lease.map(|lease| lease.ino).ok_or("ENOENT")
        };
        let creation = Creation {
            shape: Shape::File,
            mode: 0o644,
            uid: by.uid,
            gid: by.uid,
        };
        let asker = Asker {
            uid: by.uid,
            pidns: 0,
            chain,
            command: Arc::from("sh"),
        };
        let change = Change::Write {
            offset: 0,
            data: b"x".to_vec(),
        };
        Ok(match op {
            Op::Claim(_, of, exclusive, truncate) => Command::Claim {
                name: name(of).into(),
                by,
                creation,
                exclusive,
                truncate,
            },
            Op::Open(_, of, truncate) => {
                let ino = ino(of)?;
                Command::Reclaim { ino, by, truncate }
            }
            Op::Write(_, of) => {
                let ino = ino(of)?;
                Command::Alter { ino, by, change }
            }
            Op::WriteTo(_, at) => {
                let ino = self.open[at as usize].2;
                Command::Alter { ino, by, change }
            }
            Op::Release(_, of) => Command::Release {
                name: name(of).into(),
                directory: false,
                by,
            },
            Op::Rename(_, from, to, noreplace) => Command::Rename {
                from: name(from).into(),
                to: name(to).into(),
                noreplace,
                by,
            },
            Op::Exchange(_, one, other) => Command::Exchange {
                one: name(one).into(),
                other: name(other).into(),
                by,
            },
            Op::Link(_, of, new) => Command::Link {
                ino: ino(of)?,
                name: name(new).into(),
                by,
            },
            Op::Limit(_, of, ttl) => Command::Limit {
                ino: ino(of)?,
                by,
                ttl: (ttl > 0).then_some(Duration::from_secs(ttl)),
            },
            Op::Give(_, of, to) => Command::Give {
                ino: ino(of)?,
                to: self.ids[to as usize].clone(),
                by,
            },
            Op::Break(_, of, is_stale) => {
                let lease = self.table.lease(&self.names[of as usize]);
                let token = lease.map_or(1, |lease| lease.token.0);
                Command::Break {
                    name: name(of),
                    token: Token(token - u64::from(is_stale)),
                    by: asker,
                }
            }
            Op::Join(_, _, exclusive) => Command::Join { exclusive, by },
            Op::End(_, id) => Command::End {
                id: self.ids[id as usize].clone(),
                by: asker,
            },
            Op::EndOwn(_, id) => Command::EndOwn {
                id: self.ids[id as usize].clone(),
                by: Some(by),
            },
            Op::Queue(_, of) => Command::Queue {
                name: name(of),
                by,
                creation,
            },
            Op::Hold(_, of, ttl) => Command::Hold {
                name: name(of),
                by: named,
                ttl: Duration::from_secs(ttl),
            },
            Op::Yield(_, of) => Command::Yield {
                name: name(of),
                by: named,
            },
            Op::Take(_, one, other) => Command::Take {
                names: vec![name(one), name(other)],
                by,
                creation,
                reason: None,
            },
            Op::Drop(_, one, other) => Command::Drop {
                names: vec![name(one), name(other)],
                by,
            },
            Op::GiveBelow(_, of, to) => Command::GiveBelow {
                path: name(of),
                to: self.ids[to as usize].clone(),
                by,
            },
            _ => unreachable!("{op:?} is asked by nobody"),
        })
    }
}
