//! Waiting for many descriptors at once (epoll(7)).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData};

pub(crate) use rustix::event::epoll::EventFlags as Interest;

/// How many events one call of [`Epoll::wait`] returns at most.
pub(crate) const BATCH: usize = 64;

/// A set of descriptors to wait for, each under a number.
#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    /// An empty set.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Adds a descriptor.
    pub(crate) fn add(&self, fd: &impl AsFd, interest: Interest, id: u64) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, EventData::new_u64(id), interest)?)
    }

    /// Changes the events that a descriptor is waited for. One that is not there has been removed.
    pub(crate) fn modify(&self, fd: &impl AsFd, interest: Interest, id: u64) {
        _ = epoll::modify(&self.0, fd, EventData::new_u64(id), interest);
    }

    /// Removes a descriptor, if it is there.
    pub(crate) fn remove(&self, fd: &impl AsFd) {
        _ = epoll::delete(&self.0, fd);
    }

    /// Sleeps until something has happened, and returns the numbers of the descriptors.
    pub(crate) fn wait(&self) -> io::Result<impl Iterator<Item = u64> + Clone + use<>> {
        self.wait_for(None)
    }

    /// The numbers of the descriptors to which something has happened by now. Those that are left
    /// out come first the next time.
    pub(crate) fn look(&self) -> io::Result<impl Iterator<Item = u64> + Clone + use<>> {
        self.wait_for(Some(&Timespec::default()))
    }

    fn wait_for(
        &self,
        timeout: Option<&Timespec>,
    ) -> io::Result<impl Iterator<Item = u64> + Clone + use<>> {
        let mut space = [MaybeUninit::<Event>::uninit(); BATCH];
        let mut ids = [0; BATCH];
        let (events, _) = epoll::wait(&self.0, &mut space, timeout)?;
        let count = events.len();
        for (id, event) in ids.iter_mut().zip(events) {
            *id = event.data.u64();
        }
        Ok(ids.into_iter().take(count))
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
