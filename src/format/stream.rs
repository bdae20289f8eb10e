//! The frames of a backup stream: see `format-spec.md`, section "Backup streams".
//!
//! Each frame carries a checksum over itself and the checksum of the frame before it, so that a
//! stream that was cut, reordered or put together from two is seen, not only one whose bytes are
//! wrong.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::header::Header;

pub(crate) const STREAM_MAGIC: [u8; 8] = *b"TREEBACK";
pub(crate) const STREAM_VERSION: u32 = 1;

/// What a frame holds.
pub(crate) const FRAME_BEGIN: u32 = 1;
/// A version row, and the version that the segments behind it change.
pub(crate) const FRAME_VERSION: u32 = 2;
/// A segment of the version before.
pub(crate) const FRAME_SEGMENT: u32 = 3;
/// All tags.
pub(crate) const FRAME_TAGS: u32 = 4;
/// The end of the stream.
pub(crate) const FRAME_END: u32 = 5;

/// Before each payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct FrameHead {
    pub(crate) kind: u32,
    /// Of the checksum of the frame before (0 at first), then `kind`, `bytes` and the payload.
    pub(crate) crc: u32,
    /// Length of the payload.
    pub(crate) bytes: u64,
}

const _: () = assert!(size_of::<FrameHead>() == 16);

impl FrameHead {
    /// The head of a frame behind one whose checksum is `before`. The payload is given in parts.
    pub(crate) fn new(kind: u32, payload: &[&[u8]], before: u32) -> Self {
        let bytes = payload.iter().map(|part| part.len() as u64).sum();
        let mut head = FrameHead { kind, crc: 0, bytes };
        head.crc = head.checksum(payload, before);
        head
    }

    pub(crate) fn checksum(&self, payload: &[&[u8]], before: u32) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&before.to_le_bytes());
        hasher.update(&self.kind.to_le_bytes());
        hasher.update(&self.bytes.to_le_bytes());
        payload.iter().for_each(|part| hasher.update(part));
        hasher.finalize()
    }
}

/// Payload of [`FRAME_BEGIN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Begin {
    pub(crate) magic: [u8; 8],
    pub(crate) stream_version: u32,
    pub(crate) reserved: u32,
    /// The version that the receiver must have; 0 for a stream that needs none.
    pub(crate) base: u64,
    /// The lineage of the commit that made that version.
    pub(crate) base_lineage: [u8; 16],
    /// The last version of the stream.
    pub(crate) newest: u64,
    pub(crate) header: Header,
}

const _: () = assert!(size_of::<Begin>() == 176);

/// First part of the payload of [`FRAME_SEGMENT`]; the rows follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct SegmentHead {
    pub(crate) array: u64,
    pub(crate) segment: u64,
}
