//! The binary form of a table: all that is not an index.
//!
//! Does not know: where a table is written, or whether what was read is sound.

use std::collections::{BTreeMap, HashMap};

use super::parts::Parts;
use super::{Below, Child, Inode, Lease, Lost, Session, Table, Waiter};
use crate::core::encoding::{Encode, Flaw, Reader, record, write_count};
use crate::core::{Ino, Name, Token};

impl Table {
    /// Appends the table.
    pub fn write(&self, to: &mut Vec<u8>) {
        for number in [
            self.seq,
            self.next_token,
            self.next_ino,
            self.next_key,
            self.next_waiter,
        ] {
            number.write(to);
        }
        self.sessions.write(to);
        self.write_leases(to);
        self.inodes.write(to);
        self.children.write(to);
        self.queues.write(to);
        self.granted.write(to);
    }

    /// Reads a table, with its indexes, and sets its limit of leases.
    pub fn read(from: &mut Reader, max_leases: usize) -> Result<Self, Flaw> {
        let mut table = Self::new(max_leases);
        for number in [
            &mut table.seq,
            &mut table.next_token,
            &mut table.next_ino,
            &mut table.next_key,
            &mut table.next_waiter,
        ] {
            *number = from.number()?;
        }
        table.sessions = BTreeMap::read(from)?;
        table.read_leases(from)?;
        table.read_inodes(from)?;
        table.children = BTreeMap::read(from)?;
        table.queues = BTreeMap::read(from)?;
        table.granted = HashMap::read(from)?;
        table.index();
        Ok(table)
    }

    /// Writes the leases in the order of their grants, in which they are indexed the fastest.
    fn write_leases(&self, to: &mut Vec<u8>) {
        write_count(self.leases.len(), to);
        if self.names.len() != self.leases.len() {
            // Its indexes are missing.
            for (name, lease) in &self.leases {
                name.write(to);
                lease.write(to);
            }
            return;
        }
        let names = self.names.after(Token(0)).map(|(_, name)| name);
        let leases = names.filter_map(|name| Some((name, self.leases.get(name)?)));
        for (name, lease) in leases {
            name.write(to);
            lease.write(to);
        }
    }

    fn read_leases(&mut self, from: &mut Reader) -> Result<(), Flaw> {
        let count = from.count()?;
        self.leases = Parts::with_capacity(from.room_for::<(Name, Lease)>(count));
        for _ in 0..count {
            let (name, lease) = (Name::read(from)?, Lease::read(from)?);
            self.names.insert(lease.token, name.clone());
            if self.leases.insert(name, lease).is_some() {
                return Err(Flaw::Wrong("a name in it is held twice"));
            }
        }
        Ok(())
    }

    /// Indexes each inode at once, while it is in the processor's cache.
    fn read_inodes(&mut self, from: &mut Reader) -> Result<(), Flaw> {
        let count = from.count()?;
        let mut inodes = BTreeMap::new();
        for _ in 0..count {
            let (ino, mut inode) = (Ino::read(from)?, Box::<Inode>::read(from)?);
            self.index_inode(ino, &mut inode);
            if inodes.insert(ino, inode).is_some() {
                return Err(Flaw::Wrong("an inode in it is there twice"));
            }
        }
        self.inodes = inodes;
        Ok(())
    }
}

record!(Lease {
    token,
    ino,
    since,
    pid,
    command
});
record!(Child {
    claim,
    dir,
    links,
    content
});
record!(Below {
    inodes,
    entries,
    bytes
});
record!(Lost {
    process,
    command,
    signal,
    leases
});
record!(Waiter {
    key,
    since,
    creation,
    pid,
    command,
    maker
});
record!(Session {
    key,
    id,
    uid,
    pidns,
    rule,
    since,
    roots,
    deadline,
    leases,
    waiters,
    lost,
    over,
    ended_by,
});

impl Encode for Inode {
    fn write(&self, to: &mut Vec<u8>) {
        let Self {
            holder,
            names,
            bound,
            deadline,
            content,
            below,
        } = self;
        holder.write(to);
        names.write(to);
        bound.write(to);
        deadline.write(to);
        content.write(to);
        below.write(to);
    }

    fn read(from: &mut Reader) -> Result<Self, Flaw> {
        let holder = Encode::read(from)?;
        let names = Encode::read(from)?;
        let bound = Encode::read(from)?;
        let deadline = Encode::read(from)?;
        let content = Encode::read(from)?;
        let below = Option::<Box<Below>>::read(from)?;
        Ok(Self {
            holder,
            names,
            bound,
            deadline,
            content,
            below: below.filter(|below| **below != Below::default()),
        })
    }
}
