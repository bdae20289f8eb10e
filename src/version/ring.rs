//! The pages that are kept twice or more, as they are read: headers, the ring of slots, the hint.
//!
//! Not here: which commit a store then has, see [`super::recovery`].
//!
//! R1: a page that the device cannot read is damage of that copy and of nothing else. R2: a place
//! of the ring is *in doubt* if nobody can say whether the newest commit lies there: one of its
//! copies cannot be read and the other does not hold a slot; or both are damaged, which the hint
//! would explain, and the hint cannot be read.

use crate::arena::storage::{Storage, read_twice};
use crate::format::slot::{CommitSlot, Hint};
use crate::format::{HINT_OFFSET, PAGE_BYTES, SLOT_RING, slot_offset};
use crate::values::error::StorageError;

/// A page that was read, or what the device said instead.
pub(super) type Page = Result<[u8; PAGE_BYTES], String>;

/// Reads a page. What is not the device's word on these bytes is an error.
pub(super) fn read_page(storage: &dyn Storage, offset: u64) -> Result<Page, StorageError> {
    let mut page = [0; PAGE_BYTES];
    match read_twice(storage, &mut page, offset) {
        Ok(()) => Ok(Ok(page)),
        Err(e) if e.is_unreadable() => Ok(Err(e.source.to_string())),
        Err(e) => Err(e),
    }
}

/// One of the two copies of a slot.
#[expect(clippy::large_enum_variant, reason = "two at a time, on the stack, and never kept")]
pub(super) enum SlotCopy {
    Intact(CommitSlot),
    /// All zeros: no commit has used the place yet.
    Blank,
    Damaged,
    Unreadable(String),
}

impl SlotCopy {
    /// The copy that lies in the place of `commit`.
    pub(super) fn read(
        storage: &dyn Storage,
        lineage: [u8; 16],
        commit: u64,
        copy: u64,
    ) -> Result<Self, StorageError> {
        let page = match read_page(storage, slot_offset(commit, copy))? {
            Ok(page) => page,
            Err(why) => return Ok(SlotCopy::Unreadable(why)),
        };
        Ok(match CommitSlot::decode(&page, lineage) {
            Some(slot) if slot.commit % SLOT_RING == commit % SLOT_RING => SlotCopy::Intact(slot),
            None if page.iter().all(|&byte| byte == 0) => SlotCopy::Blank,
            _ => SlotCopy::Damaged,
        })
    }
}

/// What the ring and the hint say.
pub(super) struct Ring {
    /// Every commit of which a copy of the slot is intact, newest first.
    pub(super) slots: Vec<CommitSlot>,
    /// The commit that the hint names.
    pub(super) hint: Option<u64>,
    /// What the device said of a place that is in doubt (R2), if there is one.
    pub(super) doubt: Option<String>,
}

impl Ring {
    pub(super) fn read(storage: &dyn Storage, lineage: [u8; 16]) -> Result<Self, StorageError> {
        // Before the slots: beside a busy writer these may then be newer than the hint, never
        // older.
        let (hint, silent) = match read_page(storage, HINT_OFFSET)? {
            Ok(page) => (Hint::decode(&page, lineage).map(|hint| hint.commit), None),
            Err(why) => (None, Some(why)),
        };
        let (mut slots, mut doubt) = (Vec::new(), None);
        for place in 0..SLOT_RING {
            let [first, second] = [0, 1].map(|copy| SlotCopy::read(storage, lineage, place, copy));
            match (first?, second?) {
                (SlotCopy::Intact(one), SlotCopy::Intact(other)) => slots.extend([one, other]),
                (SlotCopy::Intact(slot), _) | (_, SlotCopy::Intact(slot)) => slots.push(slot),
                (SlotCopy::Blank, _) | (_, SlotCopy::Blank) => {}
                (SlotCopy::Unreadable(why), _) | (_, SlotCopy::Unreadable(why)) => {
                    doubt = Some(why);
                }
                (SlotCopy::Damaged, SlotCopy::Damaged) => doubt = doubt.or_else(|| silent.clone()),
            }
        }
        slots.sort_by_key(|slot| std::cmp::Reverse(slot.commit));
        slots.dedup_by_key(|slot| slot.commit);
        Ok(Ring { slots, hint, doubt })
    }
}
