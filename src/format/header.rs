//! The static header: what never changes after a store is made. Two copies, each alone in its page.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::arrays::Geometry;
use super::checksum::crc32;
use super::{PAGE_BYTES, page};
use crate::values::options::MAX_DIM;
use crate::values::options::{CreateOptions, Metric};

/// First eight bytes of every store.
pub(crate) const MAGIC: [u8; 8] = *b"TREERING";

/// The format that this release reads and writes.
pub(crate) const FORMAT_VERSION: u32 = 2;

/// The header record: see `format-spec.md`, section "Header".
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) magic: [u8; 8],
    pub(crate) format_version: u32,
    pub(crate) header_bytes: u32,
    pub(crate) features_compatible: u64,
    pub(crate) features_read_only: u64,
    pub(crate) features_incompatible: u64,
    pub(crate) lineage: [u8; 16],
    pub(crate) created_ns: u64,
    pub(crate) seed: u64,
    pub(crate) dim: u32,
    pub(crate) metric: u32,
    pub(crate) leaf_capacity: u32,
    pub(crate) block_bytes: u32,
    pub(crate) topology_segment_bytes: u32,
    pub(crate) coordinate_segment_bytes: u32,
    pub(crate) reserved: [u8; 28],
    pub(crate) crc: u32,
}

const _: () = assert!(size_of::<Header>() == 128);

/// Why a page is not a usable header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderDefect {
    /// The magic bytes are missing.
    Foreign,
    /// Checksum, reserved bytes or a field outside its range.
    Damaged(&'static str),
    /// An older layout, which an older release reads.
    Old { format_version: u32 },
    /// Bits outside the known masks, or a newer layout.
    Unknown { mask: u64, read_only_would_do: bool },
}

impl Header {
    pub(crate) fn new(options: &CreateOptions, lineage: [u8; 16], created_ns: u64) -> Self {
        let mut header = Header {
            magic: MAGIC,
            format_version: FORMAT_VERSION,
            header_bytes: size_of::<Header>() as u32,
            features_compatible: 0,
            features_read_only: 0,
            features_incompatible: 0,
            lineage,
            created_ns,
            seed: options.seed,
            dim: options.dim as u32,
            metric: match options.metric {
                Metric::Euclidean => 0,
            },
            leaf_capacity: options.leaf_capacity,
            block_bytes: options.block_bytes,
            topology_segment_bytes: options.topology_segment_bytes,
            coordinate_segment_bytes: options.coordinate_segment_bytes,
            reserved: [0; 28],
            crc: 0,
        };
        header.crc = header.checksum();
        header
    }

    fn checksum(&self) -> u32 {
        crc32(&self.as_bytes()[..size_of::<Header>() - 4])
    }

    /// The header's page as it is written.
    pub(crate) fn encode(&self) -> [u8; PAGE_BYTES] {
        page(self.as_bytes())
    }

    /// Reads and checks a header page. Unknown read-only features are refused only if `writing`.
    pub(crate) fn decode(bytes: &[u8; PAGE_BYTES], writing: bool) -> Result<Self, HeaderDefect> {
        let (header, rest) =
            Header::read_from_prefix(bytes).expect("a page is longer than the header record");
        if header.magic != MAGIC {
            return Err(HeaderDefect::Foreign);
        }
        if header.crc != header.checksum() {
            return Err(HeaderDefect::Damaged("checksum"));
        }
        if header.format_version < FORMAT_VERSION {
            return Err(HeaderDefect::Old { format_version: header.format_version });
        }
        if header.format_version > FORMAT_VERSION || header.features_incompatible != 0 {
            return Err(HeaderDefect::Unknown {
                mask: header.features_incompatible,
                read_only_would_do: false,
            });
        }
        if header.features_read_only != 0 && writing {
            return Err(HeaderDefect::Unknown {
                mask: header.features_read_only,
                read_only_would_do: true,
            });
        }
        if header.header_bytes != size_of::<Header>() as u32 {
            return Err(HeaderDefect::Damaged("header_bytes"));
        }
        if header.reserved != [0; 28] || rest.iter().any(|&b| b != 0) {
            return Err(HeaderDefect::Damaged("reserved bytes are not zero"));
        }
        if header.dim as usize > MAX_DIM || header.options().is_none() {
            return Err(HeaderDefect::Damaged("geometry is out of range"));
        }
        Ok(header)
    }

    /// The options that the header records; `None` if one is out of range.
    fn options(&self) -> Option<CreateOptions> {
        if self.metric != 0 {
            return None;
        }
        let options = CreateOptions::new(self.dim as usize)
            .leaf_capacity(self.leaf_capacity)
            .block_bytes(self.block_bytes)
            .topology_segment_bytes(self.topology_segment_bytes)
            .coordinate_segment_bytes(self.coordinate_segment_bytes)
            .seed(self.seed);
        options.check().ok().map(|()| options)
    }

    pub(crate) fn geometry(&self) -> Geometry {
        Geometry {
            dim: self.dim,
            block_bytes: self.block_bytes,
            topology_segment_bytes: self.topology_segment_bytes,
            coordinate_segment_bytes: self.coordinate_segment_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header::new(&CreateOptions::new(3), [7; 16], 1)
    }

    fn resealed(change: impl FnOnce(&mut Header)) -> [u8; PAGE_BYTES] {
        let mut header = header();
        change(&mut header);
        header.crc = header.checksum();
        header.encode()
    }

    #[test]
    fn round_trip() {
        assert_eq!(Header::decode(&header().encode(), true), Ok(header()));
    }

    /// With a checksum that fits: a changed bit is refused, or gives a header that says something
    /// else and is one that could have been written. None is ignored.
    #[test]
    fn each_bit_of_a_header_counts() {
        use std::mem::offset_of;
        let good = header();
        let refused = [
            offset_of!(Header, magic)..offset_of!(Header, features_compatible),
            offset_of!(Header, features_read_only)..offset_of!(Header, lineage),
            offset_of!(Header, reserved)..size_of::<Header>(),
        ];
        let mut accepted = 0;
        for (byte, mut changed) in crate::format::with_one_bit_changed(&good) {
            if byte < offset_of!(Header, crc) {
                changed.crc = changed.checksum();
            }
            let found = Header::decode(&changed.encode(), true);
            if refused.iter().any(|bytes| bytes.contains(&byte)) {
                assert!(found.is_err(), "byte {byte}");
            }
            if let Ok(found) = found {
                accepted += 1;
                assert!(found == changed && found != good, "byte {byte}");
                let options = found.options().expect("checked");
                let mut again = Header::new(&options, found.lineage, found.created_ns);
                again.features_compatible = found.features_compatible;
                again.crc = again.checksum();
                assert_eq!(again, found, "byte {byte}");
            }
        }
        // Lineage, time, seed and known flags, all of whose values are good, and some of the
        // geometry.
        assert!(accepted > 8 * (8 + 16 + 8 + 8), "{accepted}");
    }

    #[test]
    fn each_rejection() {
        let mut foreign = header().encode();
        foreign[0] = b'X';
        assert_eq!(Header::decode(&foreign, false), Err(HeaderDefect::Foreign));
        let mut flipped = header().encode();
        flipped[60] ^= 1;
        assert_eq!(Header::decode(&flipped, false), Err(HeaderDefect::Damaged("checksum")));
        let mut tail = header().encode();
        tail[4000] = 1;
        assert!(matches!(Header::decode(&tail, false), Err(HeaderDefect::Damaged(_))));
        for page in [
            resealed(|h| h.reserved[3] = 1),
            resealed(|h| h.dim = 0),
            resealed(|h| h.dim = 70_000),
            resealed(|h| h.metric = 9),
            resealed(|h| h.leaf_capacity = 0),
            resealed(|h| h.block_bytes = 100),
            resealed(|h| h.topology_segment_bytes = 5),
            resealed(|h| h.coordinate_segment_bytes = 0),
            resealed(|h| h.header_bytes = 64),
        ] {
            assert!(matches!(Header::decode(&page, false), Err(HeaderDefect::Damaged(_))));
        }
        let newer = resealed(|h| h.format_version = 3);
        assert!(matches!(Header::decode(&newer, false), Err(HeaderDefect::Unknown { .. })));
        let older = resealed(|h| h.format_version = 1);
        assert_eq!(Header::decode(&older, false), Err(HeaderDefect::Old { format_version: 1 }));
        let incompatible = resealed(|h| h.features_incompatible = 4);
        assert_eq!(
            Header::decode(&incompatible, false),
            Err(HeaderDefect::Unknown { mask: 4, read_only_would_do: false })
        );
        let read_only = resealed(|h| h.features_read_only = 2);
        assert!(Header::decode(&read_only, false).is_ok());
        assert_eq!(
            Header::decode(&read_only, true),
            Err(HeaderDefect::Unknown { mask: 2, read_only_would_do: true })
        );
        assert!(Header::decode(&resealed(|h| h.features_compatible = 1), true).is_ok());
    }
}
