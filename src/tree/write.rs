//! Writing to files: the content of claims, commands in `control`, registrations.
//!
//! Does not know: who may do what. The uid rules were checked before, and the store has all others.

use super::Tree;
use super::control::{self, ControlCommand};
use super::guard;
use super::registering::REGISTRATION_MAX;
use crate::core::{Change, Command, Fixed, Name, NodeId, Refusal};
use crate::store::{Arrival, Caller};

impl Tree {
    /// Whether an inode is that of `control`. A write to it may wait for the disk.
    pub(crate) fn is_control(ino: NodeId) -> bool {
        ino == NodeId::Fixed(Fixed::Control)
    }

    /// Notes the arrival of a write to `control` that is carried out later.
    pub(crate) fn arrive(&self, uid: u32, data: &[u8]) -> Arrival {
        let data = data.to_vec();
        self.store.arrive(uid, move || control::concerns(&data))
    }

    /// Writes to a file that was opened for it.
    pub(crate) fn write(
        &self,
        caller: Caller,
        ino: NodeId,
        fh: NodeId,
        offset: u64,
        data: &[u8],
        append: bool,
    ) -> Result<(), Refusal> {
        match ino {
            NodeId::Fixed(Fixed::Control) => self.control(caller, ControlCommand::lines(data)?),
            NodeId::Claim(ino) => {
                guard(&self.unwritten).remove(&ino);
                let data = data.to_vec();
                let change = if append {
                    Change::Append { data }
                } else {
                    Change::Write { offset, data }
                };
                self.alter(caller, ino, change)
            }
            _ if data.len() > REGISTRATION_MAX => Err(Refusal::TooLarge),
            _ => self.register(fh, data, Some(caller)),
        }
    }

    /// Carries out commands up to the first that is refused.
    pub(crate) fn control(
        &self,
        caller: Caller,
        commands: Vec<Result<ControlCommand, Refusal>>,
    ) -> Result<(), Refusal> {
        for (step, command) in (0..).zip(commands) {
            let caller = Caller { step, ..caller };
            // A write that is sent again goes on after the last line that was carried out.
            if self.outcome(caller).is_some() {
                self.store.sync()?;
                continue;
            }
            self.carry_out(caller, command?)?;
        }
        Ok(())
    }

    fn carry_out(&self, caller: Caller, command: ControlCommand) -> Result<(), Refusal> {
        let inode = |name: &Name| {
            let ino = self.lease(name.as_str(), |lease, _| lease.ino);
            ino.ok_or(Refusal::NotFound)
        };
        match command {
            ControlCommand::Claim { name, session, ttl } => {
                let who = self.store.principal(caller)?;
                let by = &who.remote(session);
                self.store.execute(&who, &Command::Hold { name, by, ttl })?;
                self.store.sync()
            }
            ControlCommand::Release { name, session } => {
                let who = self.store.principal(caller)?;
                let by = &who.remote(session);
                self.store.execute(&who, &Command::Yield { name, by })?;
                Ok(())
            }
            ControlCommand::Take { names, reason } => self.take(caller, names, reason),
            ControlCommand::Drop { names } => self.give_up(caller, names),
            ControlCommand::Break { name, token } => self.break_lease(caller, name, token),
            ControlCommand::Give { name, to } => match inode(&name) {
                Err(Refusal::NotFound) if name.is_path() => self.give_below(caller, name, to),
                ino => self.give(caller, ino?, to),
            },
            ControlCommand::Limit { name, ttl } => self.limit(caller, inode(&name)?, ttl),
            ControlCommand::End { session: id } => {
                let who = self.store.principal(caller)?;
                let chain = who.chain();
                let by = who.asker(&chain);
                self.store.execute(&who, &Command::End { id, by })?;
                Ok(())
            }
        }
    }
}
