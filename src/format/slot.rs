//! The commit slot, which makes a commit visible, and the hint, which proves that it was durable.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::arrays::{ArrayRoot, STATE_ARRAYS};
use super::checksum::crc32;
use super::{PAGE_BYTES, page};
use crate::values::seeded_bug::SeededBug;

const SLOT_MAGIC: [u8; 8] = *b"TREESLOT";
const HINT_MAGIC: [u8; 8] = *b"TREEHINT";

/// The slot record: see `format-spec.md`, section "Commit slot".
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct CommitSlot {
    pub(crate) magic: [u8; 8],
    pub(crate) commit: u64,
    /// Lineage of the store: the header's.
    pub(crate) store_lineage: [u8; 16],
    /// Lineage of this commit: random.
    pub(crate) commit_lineage: [u8; 16],
    /// Length of the file that this commit needs.
    pub(crate) file_bytes: u64,
    /// Time of the commit in nanoseconds since 1970.
    pub(crate) time_ns: u64,
    /// Number of the newest version; also the number of rows of `versions`.
    pub(crate) newest_version: u64,
    /// Roots of `versions`, `free_map`, `freed`, `tags`.
    pub(crate) roots: [ArrayRoot; STATE_ARRAYS],
    /// Number of the oldest version that is retained; 0 if there are none.
    pub(crate) oldest_version: u64,
    /// The saved rule of retention: how many of the newest versions it keeps, and for how long; 0
    /// for neither.
    pub(crate) keep_last: u64,
    pub(crate) keep_for_ns: u64,
    /// The first commit that this slot made visible: the commit itself, unless several shared their
    /// syncs.
    pub(crate) first_commit: u64,
    pub(crate) reserved: [u8; 20],
    pub(crate) crc: u32,
}

const _: () = assert!(size_of::<CommitSlot>() == 256);

impl CommitSlot {
    /// A slot with its magic, and the checksum still to be set.
    pub(crate) fn blank() -> Self {
        CommitSlot {
            magic: SLOT_MAGIC,
            commit: 0,
            store_lineage: [0; 16],
            commit_lineage: [0; 16],
            file_bytes: 0,
            time_ns: 0,
            newest_version: 0,
            roots: [ArrayRoot::default(); STATE_ARRAYS],
            oldest_version: 0,
            keep_last: 0,
            keep_for_ns: 0,
            first_commit: 0,
            reserved: [0; 20],
            crc: 0,
        }
    }

    fn checksum(&self) -> u32 {
        crc32(&self.as_bytes()[..size_of::<CommitSlot>() - 4])
    }

    /// The slot with its checksum set.
    pub(crate) fn sealed(mut self) -> Self {
        self.crc = self.checksum();
        self
    }

    /// The slot's page as it is written.
    pub(crate) fn encode(&self) -> [u8; PAGE_BYTES] {
        page(self.as_bytes())
    }

    /// The slot in `bytes`, if it is intact and belongs to the store.
    pub(crate) fn decode(bytes: &[u8; PAGE_BYTES], store_lineage: [u8; 16]) -> Option<Self> {
        let (slot, rest) =
            CommitSlot::read_from_prefix(bytes).expect("a page is longer than the slot record");
        let intact = slot.magic == SLOT_MAGIC
            && (slot.crc == slot.checksum() || SeededBug::AcceptTornSlot.is_planted())
            && slot.store_lineage == store_lineage
            && slot.reserved == [0; 20]
            && rest.iter().all(|&b| b == 0);
        intact.then_some(slot)
    }
}

/// Written without a sync after a commit was acknowledged: if it is there, both syncs of the commit
/// have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Hint {
    magic: [u8; 8],
    pub(crate) commit: u64,
    store_lineage: [u8; 16],
    reserved: [u8; 28],
    crc: u32,
}

const _: () = assert!(size_of::<Hint>() == 64);

impl Hint {
    pub(crate) fn new(commit: u64, store_lineage: [u8; 16]) -> Self {
        let mut hint = Hint { magic: HINT_MAGIC, commit, store_lineage, reserved: [0; 28], crc: 0 };
        hint.crc = hint.checksum();
        hint
    }

    fn checksum(&self) -> u32 {
        crc32(&self.as_bytes()[..size_of::<Hint>() - 4])
    }

    pub(crate) fn encode(&self) -> [u8; PAGE_BYTES] {
        page(self.as_bytes())
    }

    /// The hint in `bytes`; `None` if it is missing, torn or of another store, all of which are
    /// harmless.
    pub(crate) fn decode(bytes: &[u8; PAGE_BYTES], store_lineage: [u8; 16]) -> Option<Self> {
        let (hint, rest) =
            Hint::read_from_prefix(bytes).expect("a page is longer than the hint record");
        let intact = hint.magic == HINT_MAGIC
            && hint.crc == hint.checksum()
            && hint.store_lineage == store_lineage
            && hint.reserved == [0; 28]
            && rest.iter().all(|&b| b == 0);
        intact.then_some(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_round_trip_and_rejections() {
        let mut slot = CommitSlot::blank();
        slot.commit = 5;
        slot.store_lineage = [3; 16];
        let slot = slot.sealed();
        let page = slot.encode();
        assert_eq!(CommitSlot::decode(&page, [3; 16]), Some(slot));
        assert_eq!(CommitSlot::decode(&page, [4; 16]), None);
        for byte in 0..PAGE_BYTES {
            let mut damaged = page;
            damaged[byte] ^= 1 << (byte % 8);
            assert_eq!(CommitSlot::decode(&damaged, [3; 16]), None, "byte {byte}");
        }
    }

    /// With a checksum that fits: a changed bit is refused, or is one of a field that says
    /// something. None is ignored.
    #[test]
    fn each_bit_of_a_slot_counts() {
        use std::mem::offset_of;
        let mut slot = CommitSlot::blank();
        (slot.commit, slot.store_lineage) = (5, [3; 16]);
        let slot = slot.sealed();
        let bytes = |start: usize, len: usize| start..start + len;
        let refused = [
            bytes(offset_of!(CommitSlot, magic), 8),
            bytes(offset_of!(CommitSlot, store_lineage), 16),
            bytes(offset_of!(CommitSlot, reserved), slot.reserved.len()),
        ];
        let crc = offset_of!(CommitSlot, crc);
        for (byte, changed) in crate::format::with_one_bit_changed(&slot) {
            let sealed = if byte < crc { changed.sealed() } else { changed };
            let found = CommitSlot::decode(&sealed.encode(), [3; 16]);
            let is_refused = byte >= crc || refused.iter().any(|bytes| bytes.contains(&byte));
            let expected = (!is_refused).then_some(sealed);
            assert!(found == expected && found != Some(slot), "byte {byte}");
        }
    }

    #[test]
    fn each_bit_of_a_hint_counts() {
        use std::mem::offset_of;
        let hint = Hint::new(9, [1; 16]);
        let crc = offset_of!(Hint, crc);
        let commit = offset_of!(Hint, commit)..offset_of!(Hint, store_lineage);
        for (byte, mut changed) in crate::format::with_one_bit_changed(&hint) {
            if byte < crc {
                changed.crc = changed.checksum();
            }
            let found = Hint::decode(&changed.encode(), [1; 16]);
            let expected = commit.contains(&byte).then_some(changed);
            assert!(found == expected && found != Some(hint), "byte {byte}");
        }
    }

    #[test]
    fn hint_round_trip_and_rejections() {
        let hint = Hint::new(9, [1; 16]);
        assert_eq!(Hint::decode(&hint.encode(), [1; 16]), Some(hint));
        assert_eq!(Hint::decode(&hint.encode(), [2; 16]), None);
        for byte in 0..PAGE_BYTES {
            let mut damaged = hint.encode();
            damaged[byte] ^= 1 << (byte % 8);
            assert_eq!(Hint::decode(&damaged, [1; 16]), None, "byte {byte}");
        }
    }
}
