//! The bytes of the file as plain records, described in `format-spec.md`.
//!
//! No I/O and no unsafe code. Every record is a `repr(C)` struct without padding in which any bit
//! pattern is a value, so reading one cannot fail; the functions that accept a record check its
//! fields and never panic. Integers are little-endian, which is also the only byte order of the
//! machines that this crate builds on.

#[cfg(target_endian = "big")]
compile_error!("treering maps little-endian records directly and needs a little-endian machine");

pub(crate) mod arrays;
pub(crate) mod checksum;
pub(crate) mod header;
pub(crate) mod rows;
pub(crate) mod slot;
pub(crate) mod stream;
pub(crate) mod table_node;
pub(crate) mod tag_row;
pub(crate) mod version_row;

/// Size of the header, slot and hint records with their padding, whatever the store's own block
/// size.
pub(crate) const PAGE_BYTES: usize = 4096;

/// The largest unit of a medium that a torn write may damage as a whole: each page of the preamble
/// lies alone in one.
const UNIT_BYTES: u64 = 65_536;

/// Distance between the two copies of the header and of each slot.
pub(crate) const COPY_DISTANCE: u64 = 6 * UNIT_BYTES;

/// Where segments and table nodes begin: behind the preamble's two halves of six units each.
pub(crate) const DATA_START: u64 = 2 * COPY_DISTANCE;

/// Number of commits whose slots are kept: commit `c` lies in place `c % SLOT_RING`.
pub(crate) const SLOT_RING: u64 = 4;

/// The last number of a commit. No store comes near it; beyond, numbers would begin anew, and a
/// commit be taken for an older one.
pub(crate) const LAST_COMMIT: u64 = 1 << 62;

/// Offset of the hint page, behind the first copies of the slots.
pub(crate) const HINT_OFFSET: u64 = (1 + SLOT_RING) * UNIT_BYTES;

/// Offset of copy 0 or 1 of the slot of a commit.
pub(crate) fn slot_offset(commit: u64, copy: u64) -> u64 {
    copy * COPY_DISTANCE + (1 + commit % SLOT_RING) * UNIT_BYTES
}

/// Records of which one bit is other than in `record`, each with the byte that it is in.
#[cfg(test)]
pub(crate) fn with_one_bit_changed<T>(record: &T) -> impl Iterator<Item = (usize, T)>
where
    T: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable,
{
    let bytes = record.as_bytes().to_vec();
    (0..8 * bytes.len()).map(move |bit| {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        (bit / 8, T::read_from_bytes(&changed).expect("the length is that of the record"))
    })
}

/// A record padded with zeros to a whole page.
pub(crate) fn page(record: &[u8]) -> [u8; PAGE_BYTES] {
    let mut page = [0; PAGE_BYTES];
    page[..record.len()].copy_from_slice(record);
    page
}
