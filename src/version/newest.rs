//! The newest commit that a handle knows of.

use crate::arena::sync::RwLock;
use crate::format::slot::CommitSlot;

/// It never goes back: threads of one handle may find commits in any order.
pub(super) struct Newest(RwLock<CommitSlot>);

impl Newest {
    pub(super) fn new(slot: CommitSlot) -> Self {
        Newest(RwLock::new(slot))
    }

    pub(super) fn get(&self) -> CommitSlot {
        *self.0.read().expect("no holder panics")
    }

    /// Goes on to `slot`, unless another thread has got further. Calls `before` first, so that
    /// whoever gets a commit finds its bytes readable.
    pub(super) fn publish(&self, slot: CommitSlot, before: impl FnOnce()) {
        let mut newest = self.0.write().expect("no holder panics");
        if slot.commit >= newest.commit {
            before();
            *newest = slot;
        }
    }
}
