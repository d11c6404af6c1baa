//! The reads that wait, by descriptor and by the time at which they are answered at the latest.
//!
//! Promises: to find those of a descriptor, or those that are due, costs as much as they are many.
//!
//! Does not know: what a read is, or its answer.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Instant;

use crate::core::NodeId;

/// Reads, each with the time until which it may wait.
#[derive(Debug)]
pub(super) struct Reads<R> {
    /// Several threads may read the same descriptor.
    by_fh: BTreeMap<NodeId, Vec<(Instant, R)>>,
    /// The descriptors of reads that are due then.
    by_time: BTreeMap<Instant, BTreeSet<NodeId>>,
}

impl<R> Default for Reads<R> {
    fn default() -> Self {
        Self {
            by_fh: BTreeMap::new(),
            by_time: BTreeMap::new(),
        }
    }
}

impl<R> Reads<R> {
    /// Adds a read. Whether it is due before all others.
    pub(super) fn add(&mut self, fh: NodeId, until: Instant, read: R) -> bool {
        let is_first = self.next().is_none_or(|next| until < next);
        self.by_fh.entry(fh).or_default().push((until, read));
        self.by_time.entry(until).or_default().insert(fh);
        is_first
    }

    /// The time of the read that is due next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first_key_value().map(|(until, _)| *until)
    }

    /// The descriptors with a read that is due by now.
    pub(super) fn due(&self, now: Instant) -> Vec<NodeId> {
        let due = self.by_time.range(..=now);
        due.flat_map(|(_, all)| all).copied().collect()
    }

    /// The descriptors of this range that are read.
    pub(super) fn within(&self, range: RangeInclusive<NodeId>) -> Vec<NodeId> {
        self.by_fh.range(range).map(|(fh, _)| *fh).collect()
    }

    /// Removes all reads of a descriptor.
    pub(super) fn take(&mut self, fh: NodeId) -> Vec<(Instant, R)> {
        let reads = self.by_fh.remove(&fh).unwrap_or_default();
        for (until, _) in &reads {
            if let Some(all) = self.by_time.get_mut(until) {
                all.remove(&fh);
                if all.is_empty() {
                    self.by_time.remove(until);
                }
            }
        }
        reads
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Reads;
    use crate::core::{NodeId, WaiterId};

    #[test]
    fn reads_are_found_by_descriptor_and_by_time() {
        let start = Instant::now();
        let at = |beat: u32| start + Duration::from_millis(250) * beat;
        let waiter = |number| NodeId::Waiter(WaiterId(number));
        let mut reads = Reads::default();
        let added = [
            (waiter(1), 2),
            (waiter(2), 1),
            (NodeId::Reader(5), 1),
            (waiter(1), 3),
            (NodeId::Reader(6), 4),
        ];
        let first = added.map(|(fh, beat)| reads.add(fh, at(beat), (fh, beat)));
        assert_eq!(first, [true, true, false, false, false]);
        assert_eq!(reads.next(), Some(at(1)));
        assert_eq!(reads.due(at(0)), []);
        assert_eq!(reads.due(at(1)), [waiter(2), NodeId::Reader(5)]);
        let all = NodeId::Reader(0)..=NodeId::Reader(u64::MAX);
        assert_eq!(
            reads.within(all.clone()),
            [NodeId::Reader(5), NodeId::Reader(6)]
        );
        let taken = reads.take(waiter(1));
        assert_eq!(taken, [(at(2), (waiter(1), 2)), (at(3), (waiter(1), 3))]);
        assert_eq!(reads.take(waiter(1)), []);
        assert_eq!(reads.due(at(9)).len(), 3);
        for fh in reads.due(at(9)) {
            assert_eq!(reads.take(fh).len(), 1);
        }
        assert_eq!((reads.next(), reads.within(all).len()), (None, 0));
        assert!(reads.by_fh.is_empty() && reads.by_time.is_empty());
    }
}
