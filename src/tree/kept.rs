//! The snapshots that descriptors read. The first read renders one, and later reads go on with it.
//!
//! Promises: the snapshots are bounded for each uid and in all, but for the newest one. A text that
//! several descriptors read is in memory once, and is freed when the last of them is closed.
//!
//! Does not know: the content of the snapshots.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Weak};

use crate::core::NodeId;

/// The largest size of the snapshots of one uid, and of all, in bytes.
const UID_MAX: usize = 32 << 20;
const ALL_MAX: usize = 128 << 20;

/// The largest number of snapshots of one uid.
const COUNT_MAX: usize = 4096;

/// The snapshots, by the handles of the descriptors that read them.
#[derive(Debug, Default)]
pub(super) struct Kept {
    by_handle: HashMap<NodeId, Reader>,
    /// The handles whose text was dropped, for lack of space.
    lost: HashSet<NodeId>,
    /// The part of each uid.
    by_uid: HashMap<u32, Share>,
    bytes: usize,
    next: u64,
    /// The newest text of `leases`, if it is still read, and the event that it reflects.
    leases: Option<(u64, Weak<str>)>,
}

#[derive(Debug)]
struct Reader {
    uid: u32,
    order: u64,
    text: Arc<str>,
    /// The bytes that count for this reader: 0 if they count for another reader of the same text.
    charge: usize,
}

#[derive(Debug, Default)]
struct Share {
    /// In the order in which they came.
    handles: BTreeMap<u64, NodeId>,
    bytes: usize,
}

impl Kept {
    pub(super) fn get(&self, fh: NodeId) -> Option<Arc<str>> {
        self.by_handle
            .get(&fh)
            .map(|reader| Arc::clone(&reader.text))
    }

    /// Whether a descriptor has or had a text.
    pub(super) fn has_begun(&self, fh: NodeId) -> bool {
        self.by_handle.contains_key(&fh) || self.lost.contains(&fh)
    }

    /// Whether the text of a descriptor was dropped, for lack of space.
    pub(super) fn is_lost(&self, fh: NodeId) -> bool {
        self.lost.contains(&fh)
    }

    /// Forgets a descriptor that is closed.
    pub(super) fn close(&mut self, fh: NodeId) {
        self.remove(fh);
        self.lost.remove(&fh);
    }

    /// Keeps a text for a descriptor. If there is too much, the oldest snapshots of the uid, or of
    /// the uid with the most, are dropped. Their readers get ESTALE.
    pub(super) fn keep(&mut self, fh: NodeId, uid: u32, text: &Arc<str>) {
        self.close(fh);
        let is_known = Arc::strong_count(text) > 1
            && self
                .by_handle
                .values()
                .any(|reader| Arc::ptr_eq(&reader.text, text));
        let charge = if is_known { 0 } else { text.len() };
        self.next += 1;
        let order = self.next;
        let reader = Reader {
            uid,
            order,
            text: Arc::clone(text),
            charge,
        };
        self.by_handle.insert(fh, reader);
        self.bytes += charge;
        let share = self.by_uid.entry(uid).or_default();
        share.bytes += charge;
        share.handles.insert(order, fh);
        while let Some(oldest) = self.over(uid) {
            self.remove(oldest);
            self.lost.insert(oldest);
        }
    }

    /// The handle whose text must be dropped, if there is too much. Never the newest one, which is
    /// of this uid.
    fn over(&self, uid: u32) -> Option<NodeId> {
        let share = self.by_uid.get(&uid)?;
        let uid = if share.bytes > UID_MAX || share.handles.len() > COUNT_MAX {
            uid
        } else if self.bytes > ALL_MAX {
            let others = self.by_uid.iter();
            let others = others.filter(|(other, share)| **other != uid || share.handles.len() > 1);
            *others.max_by_key(|(_, share)| share.bytes)?.0
        } else {
            return None;
        };
        let handles = &self.by_uid.get(&uid)?.handles;
        let (order, fh) = handles.first_key_value()?;
        (*order != self.next).then_some(*fh)
    }

    fn remove(&mut self, fh: NodeId) {
        let Some(reader) = self.by_handle.remove(&fh) else {
            return;
        };
        let mut charge = reader.charge;
        if charge > 0 && Arc::strong_count(&reader.text) > 1 {
            // Another reader has the same text: the bytes count for that one now.
            let mut others = self.by_handle.values_mut();
            if let Some(other) = others.find(|other| Arc::ptr_eq(&other.text, &reader.text)) {
                other.charge = charge;
                let share = self.by_uid.entry(other.uid).or_default();
                share.bytes += charge;
                self.bytes += charge;
            }
        }
        charge = charge.min(self.bytes);
        self.bytes -= charge;
        if let Some(share) = self.by_uid.get_mut(&reader.uid) {
            share.bytes = share.bytes.saturating_sub(reader.charge);
            share.handles.remove(&reader.order);
            if share.handles.is_empty() {
                self.by_uid.remove(&reader.uid);
            }
        }
    }

    /// The text of `leases` that reflects this event, if it is still read.
    pub(super) fn leases(&self, seq: u64) -> Option<Arc<str>> {
        let (of, text) = self.leases.as_ref()?;
        text.upgrade().filter(|_| *of == seq)
    }

    pub(super) fn has_leases(&mut self, seq: u64, text: &Arc<str>) {
        self.leases = Some((seq, Arc::downgrade(text)));
    }
}

#[cfg(test)]
mod tests {
    use super::{ALL_MAX, Arc, Kept, NodeId, UID_MAX};

    fn has(kept: &Kept, fh: u64) -> bool {
        kept.get(NodeId::Text(fh)).is_some()
    }

    fn text(length: usize) -> Arc<str> {
        Arc::from("x".repeat(length))
    }

    #[test]
    fn each_uid_has_its_share_and_its_newest_text_whatever_its_size() {
        let mut kept = Kept::default();
        kept.keep(NodeId::Text(1), 1000, &text(UID_MAX / 2));
        kept.keep(NodeId::Text(2), 1000, &text(UID_MAX / 2));
        assert!(has(&kept, 1) && has(&kept, 2), "as much as may be");
        kept.keep(NodeId::Text(3), 1000, &text(1));
        assert!(
            !has(&kept, 1) && has(&kept, 2) && has(&kept, 3),
            "the oldest goes"
        );
        kept.keep(NodeId::Text(4), 1000, &text(2 * UID_MAX));
        assert!(
            has(&kept, 4) && !has(&kept, 2) && !has(&kept, 3),
            "the newest stays"
        );
        kept.keep(NodeId::Text(5), 1001, &text(UID_MAX));
        assert!(has(&kept, 4) && has(&kept, 5), "another's share is its own");
        assert!(kept.is_lost(NodeId::Text(1)) && !kept.is_lost(NodeId::Text(5)));
        for fh in 1..=5 {
            kept.close(NodeId::Text(fh));
        }
        assert_eq!(
            (kept.bytes, kept.by_uid.len(), kept.by_handle.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn all_together_have_a_bound() {
        let mut kept = Kept::default();
        for uid in 0..20 {
            kept.keep(NodeId::Text(u64::from(uid) * 2), uid, &text(UID_MAX / 4));
            kept.keep(
                NodeId::Text(u64::from(uid) * 2 + 1),
                uid,
                &text(UID_MAX / 4),
            );
            assert!(kept.bytes <= ALL_MAX, "{}", kept.bytes);
            assert!(has(&kept, u64::from(uid) * 2 + 1));
        }
    }

    #[test]
    fn a_text_that_many_read_is_counted_once() {
        let mut kept = Kept::default();
        let shared = text(UID_MAX);
        for fh in 0..100 {
            kept.keep(
                NodeId::Text(fh),
                1000 + u32::try_from(fh % 2).unwrap(),
                &shared,
            );
        }
        assert_eq!(kept.bytes, UID_MAX);
        for fh in 0..99 {
            assert!(has(&kept, fh));
            kept.close(NodeId::Text(fh));
            assert_eq!(kept.bytes, UID_MAX);
        }
        kept.close(NodeId::Text(99));
        assert_eq!(kept.bytes, 0);
    }
}
