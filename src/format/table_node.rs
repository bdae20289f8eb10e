//! A node of a segment table: a header and as many entries as fit one block.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::arrays::{Array, Entry};

const MAGIC: u32 = u32::from_le_bytes(*b"TNOD");

/// First 16 bytes of a table node. With the checksum in the parent, it makes every node of the file
/// distinct, so that a misdirected write is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct NodeHeader {
    magic: u32,
    array: u8,
    /// Height above the segments: 1 for nodes whose entries are segments.
    level: u8,
    reserved: u16,
    /// Position among the nodes of its level.
    index: u64,
}

const HEADER_BYTES: usize = size_of::<NodeHeader>();
const _: () = assert!(HEADER_BYTES == 16);

/// Entries per table node of `block_bytes` bytes.
pub(crate) fn fanout(block_bytes: usize) -> u64 {
    ((block_bytes - HEADER_BYTES) / size_of::<Entry>()) as u64
}

/// Levels of table nodes above `segments` segments: 0 if the root's entry is the only segment
/// itself.
pub(crate) fn height(segments: u64, fanout: u64) -> u8 {
    let mut height = 0;
    let mut reach = 1u64;
    while reach < segments {
        reach = reach.saturating_mul(fanout);
        height += 1;
    }
    height
}

/// Writes a node into `block`, whose length is the store's block size.
pub(crate) fn encode(block: &mut [u8], array: Array, level: u8, index: u64, entries: &[Entry]) {
    let header = NodeHeader { magic: MAGIC, array: array as u8, level, reserved: 0, index };
    block[..HEADER_BYTES].copy_from_slice(header.as_bytes());
    let end = HEADER_BYTES + size_of_val(entries);
    block[HEADER_BYTES..end].copy_from_slice(entries.as_bytes());
    block[end..].fill(0);
}

/// The entries of a node, if the header is that of the node asked for.
pub(crate) fn decode(
    block: &[u8],
    array: Array,
    level: u8,
    index: u64,
) -> Result<Vec<Entry>, &'static str> {
    let expected = NodeHeader { magic: MAGIC, array: array as u8, level, reserved: 0, index };
    if block.len() < HEADER_BYTES || block[..HEADER_BYTES] != *expected.as_bytes() {
        return Err("table node of another array, level or place");
    }
    let end = HEADER_BYTES + fanout(block.len()) as usize * size_of::<Entry>();
    if block[end..].iter().any(|&b| b != 0) {
        return Err("reserved bytes of a table node are not zero");
    }
    let entries = block[HEADER_BYTES..end].chunks_exact(size_of::<Entry>());
    Ok(entries
        .map(|bytes| Entry::read_from_bytes(bytes).expect("a chunk has the size of an entry"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_4_kib_node_holds_170_entries() {
        assert_eq!(fanout(4096), 170);
        assert_eq!(fanout(128), 4);
    }

    #[test]
    fn heights() {
        let of = |segments| height(segments, 4);
        assert_eq!([0, 1, 2, 4, 5, 16, 17, 65].map(of), [0, 0, 1, 1, 2, 2, 3, 4]);
        assert_eq!(height(u64::MAX, 4), 32);
    }

    /// Nodes stacked upon nodes until one is left: as many levels as `height` says, for every table
    /// up to a size.
    #[test]
    fn heights_are_those_of_tables_built_from_below() {
        for block_bytes in [128, 256, 512, 4096] {
            let fanout = fanout(block_bytes);
            for segments in 1..20_000u64 {
                let (mut width, mut levels) = (segments, 0);
                while width > 1 {
                    width = width.div_ceil(fanout);
                    levels += 1;
                }
                assert_eq!(height(segments, fanout), levels, "{segments} by {fanout}");
            }
            assert_eq!(height(0, fanout), 0);
        }
    }

    /// As many entries as fit behind the header, for every block size that a store may have.
    #[test]
    fn entries_fill_a_block() {
        for block_bytes in (7..=16).map(|log| 1usize << log) {
            let mut entries = 0;
            while HEADER_BYTES + (entries + 1) * size_of::<Entry>() <= block_bytes {
                entries += 1;
            }
            assert_eq!(fanout(block_bytes), entries as u64);
        }
    }

    /// Every bit of a node is checked here or is part of an entry.
    #[test]
    fn each_bit_of_a_node_counts() {
        let entries: Vec<Entry> =
            (1..=4).map(|i| Entry { address: i, birth: i, crc: i as u32, bytes: 9 }).collect();
        let mut block = vec![0; 128];
        encode(&mut block, Array::Links, 2, 7, &entries);
        for bit in 0..128 * 8 {
            let mut changed = block.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let is_entry =
                (HEADER_BYTES..HEADER_BYTES + 4 * size_of::<Entry>()).contains(&(bit / 8));
            match decode(&changed, Array::Links, 2, 7) {
                Ok(found) => assert!(is_entry && found != entries, "bit {bit}"),
                Err(_) => assert!(!is_entry, "bit {bit}"),
            }
        }
    }

    #[test]
    fn round_trip_and_rejections() {
        let entries: Vec<Entry> =
            (1..=4).map(|i| Entry { address: i, birth: i, crc: i as u32, bytes: 9 }).collect();
        let mut block = vec![0xFF; 128];
        encode(&mut block, Array::Links, 2, 7, &entries);
        assert_eq!(decode(&block, Array::Links, 2, 7).unwrap(), entries);
        assert!(decode(&block, Array::Counts, 2, 7).is_err());
        assert!(decode(&block, Array::Links, 1, 7).is_err());
        assert!(decode(&block, Array::Links, 2, 6).is_err());
        block[127] = 1;
        assert!(decode(&block, Array::Links, 2, 7).is_err());
        assert!(decode(&block[..8], Array::Links, 2, 7).is_err());
    }
}
