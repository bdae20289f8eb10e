//! CRC-32 (IEEE) as the format uses it, and the checksum of a stored piece.
//!
//! The checksum of a piece covers what the piece is as well as its bytes: a write that went to the
//! wrong place, or one of an earlier commit, does not pass for it even where the bytes themselves
//! would.

use super::arrays::{Array, Entry};
use crate::values::error::Place;

const SEED_BYTES: usize = 24;

/// Checksum of `bytes`.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// What a stored piece is: a segment or a table node of an array, written by a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) array: Array,
    /// 0 for a segment, else the level of a table node.
    pub(crate) level: u8,
    /// Position among the pieces of its level.
    pub(crate) index: u64,
}

impl Origin {
    /// A segment.
    pub(crate) fn segment(array: Array, segment: u64) -> Self {
        Origin { array, level: 0, index: segment }
    }

    /// Checksum of the piece that commit `birth` writes: of array, level, index and birth, of
    /// `bytes`, and of zeros up to `stored` bytes.
    pub(crate) fn checksum(&self, birth: u64, bytes: &[u8], stored: usize) -> u32 {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.seed(birth));
        hasher.update(bytes);
        let mut rest = stored - bytes.len();
        while rest > 0 {
            let step = rest.min(ZEROS.len());
            hasher.update(&ZEROS[..step]);
            rest -= step;
        }
        hasher.finalize()
    }

    /// Checksum of the stored bytes alone, from that of the piece: the same for the same bytes,
    /// whatever commit wrote them.
    pub(crate) fn content_checksum(&self, entry: &Entry) -> u32 {
        // The checksum of A and B is that of A, carried over as many zeros as B is long, plus that
        // of B.
        self.checksum_of(entry.birth, 0, entry.bytes) ^ entry.crc
    }

    /// Checksum of a piece whose `stored` bytes have a checksum that is known.
    pub(crate) fn checksum_of(&self, birth: u64, content: u32, stored: u32) -> u32 {
        let seed = crc32(&self.seed(birth));
        let mut whole = crc32fast::Hasher::new_with_initial_len(seed, SEED_BYTES as u64);
        whole.combine(&crc32fast::Hasher::new_with_initial_len(content, stored.into()));
        whole.finalize()
    }

    fn seed(&self, birth: u64) -> [u8; SEED_BYTES] {
        let mut seed = [0; SEED_BYTES];
        (seed[0], seed[1]) = (self.array as u8, self.level);
        seed[8..16].copy_from_slice(&self.index.to_le_bytes());
        seed[16..].copy_from_slice(&birth.to_le_bytes());
        seed
    }

    /// Where the piece lies, for messages.
    pub(crate) fn place(&self, entry: &Entry) -> Place {
        let (array, address) = (self.array.name(), entry.address);
        match self.level {
            0 => Place::Segment { array, segment: self.index, address },
            _ => Place::TableNode { array, address },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_ieee_polynomial() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_piece_is_its_bytes_its_place_and_its_birth() {
        let origin = Origin { array: Array::Links, level: 2, index: 5 };
        let seed =
            [&[7, 2, 0, 0, 0, 0, 0, 0][..], &[5, 0, 0, 0, 0, 0, 0, 0], &[9, 0, 0, 0, 0, 0, 0, 0]];
        let whole = [&seed.concat()[..], b"ab", &[0; 8998]].concat();
        let sum = origin.checksum(9, b"ab", 9000);
        assert_eq!(sum, crc32(&whole));
        assert_ne!(sum, origin.checksum(8, b"ab", 9000));
        let entry = Entry { address: 1, birth: 9, crc: sum, bytes: 9000 };
        let alone = [&b"ab"[..], &[0; 8998]].concat();
        assert_eq!(origin.content_checksum(&entry), crc32(&alone));
        assert_eq!(origin.checksum_of(9, crc32(&alone), 9000), sum);
        for other in [
            Origin { array: Array::Counts, ..origin },
            Origin { level: 1, ..origin },
            Origin { index: 6, ..origin },
        ] {
            assert_ne!(sum, other.checksum(9, b"ab", 9000));
        }
    }
}
