//! The fixed records of the data arrays. Field meanings are in `format-spec.md`; the invariants T1
//! to T7 that they serve are in [`crate::tree`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// "No slot" in an index, "no parent" at the root.
pub(crate) const NONE: u32 = u32::MAX;

/// A range of slots or of node numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u32,
    pub(crate) count: u32,
}

macro_rules! record {
    ($(#[$doc:meta])* $name:ident $bytes:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub(crate) struct $name { $($(#[$field_doc])* pub(crate) $field: $type,)* }
        const _: () = assert!(size_of::<$name>() == $bytes);
    };
}

record! {
    /// Which node the slots from `start` up to the next row's `start` were written for. Sorted by
    /// `start`.
    OwnerRow 8 { start: u32, owner: u32, }
}

record! {
    /// What seldom changes about a node.
    NodeRow 16 {
        /// Node number of the parent; `NONE` at the root. Smaller than the node's own number.
        parent: u32,
        /// Live points below when the subtree was last built.
        built: u32,
        /// Rows with s > 0 that the bucket may hold if the node is flat; 0 if it is not (T6).
        flat_capacity: u32,
        /// The level l (T2, T3).
        level: i16,
        reserved: u16,
    }
}

record! {
    /// Where a node's children and points lay when they were last written as a whole.
    LinkRow 24 {
        /// First node of the first block of children.
        child_start: u32,
        /// Nodes in that block.
        child_count: u32,
        /// First slot of the primary range: first twins, then bucket rows.
        slot_start: u32,
        twin_count: u32,
        bucket_count: u32,
        /// At least the canonical distance from the center to every point of the node's own bucket
        /// (T5).
        own_radius: f32,
    }
}

impl LinkRow {
    /// Twins and bucket rows, which lie side by side.
    pub(crate) fn own_slots(&self) -> Range {
        Range { start: self.slot_start, count: self.twin_count.saturating_add(self.bucket_count) }
    }
}

record! {
    /// What most batches change about the nodes they add to: counts, and where later rows lie.
    /// Apart from the links, so that those are not copied.
    CountRow 16 {
        /// Live points of the subtree.
        live: u32,
        /// Slots of the subtree, if they are one range that begins at the node's `slot_start`;
        /// else 0.
        span: u32,
        /// First of this node's rows in `runs`.
        run_start: u32,
        run_count: u16,
        /// See the `COUNT_*` constants.
        flags: u16,
    }
}

/// Some twin of the node differs from its center in value, although s = 0.
pub(crate) const COUNT_UNEQUAL_TWINS: u16 = 1;

record! {
    /// A later range of a node: slots of its bucket or twins, or a block of children.
    RunRow 12 { start: u32, count: u32, kind: u32, }
}

/// `RunRow::kind`: node numbers.
pub(crate) const RUN_CHILDREN: u32 = 0;
/// `RunRow::kind`: slots of the bucket.
pub(crate) const RUN_BUCKET: u32 = 1;
/// `RunRow::kind`: slots of the twin list.
pub(crate) const RUN_TWINS: u32 = 2;

record! {
    /// A sorted run of the id index, oldest first.
    IndexRunRow 24 {
        /// First of the run's rows in `index_pieces`.
        piece_start: u64,
        piece_count: u64,
        /// Ids in the run.
        entries: u64,
    }
}

record! {
    /// A stretch of a run: ids from `first_id` on.
    IndexPieceRow 40 {
        first_id: u64,
        /// Dense: rows of `index_slots`, one for each id from `first_id` on, `NONE` for holes.
        /// Sparse: number of ids.
        count: u64,
        /// First row in `index_slots`.
        slot_start: u64,
        /// First row in `index_keys`, which a dense piece does not use.
        key_start: u64,
        /// 0 dense, 1 sparse.
        sparse: u32,
        reserved: u32,
    }
}

record! {
    /// Space that the commit took out of use. It may be written again by the commit after the next.
    FreedRow 16 { address: u64, bytes: u64, }
}
