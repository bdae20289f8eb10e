//! The logical arrays: their numbers, names, classes and rows, and how rows fall into segments.
//!
//! Everything in a store is a row of one of these arrays. A row never straddles two segments.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::rows;
use super::tag_row::TagRow;
use super::version_row::VersionRow;

/// The parts of the header that say how arrays lie in segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) dim: u32,
    pub(crate) block_bytes: u32,
    pub(crate) topology_segment_bytes: u32,
    pub(crate) coordinate_segment_bytes: u32,
}

/// Which of the two segment sizes an array uses, and which chunks of the file it is carved from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Topology,
    Coordinates,
}

macro_rules! arrays {
    ($($number:literal $variant:ident $name:literal $class:ident $row_bytes:expr;)*) => {
        /// A logical array. The number is its identity in the file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub(crate) enum Array { $($variant = $number,)* }

        impl Array {
            /// Every array, by number.
            pub(crate) const ALL: [Array; DATA_ARRAYS + STATE_ARRAYS] = [$(Array::$variant,)*];

            /// The name used in messages and in `format-spec.md`.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Array::$variant => $name,)* }
            }

            fn class(self) -> Class {
                match self { $(Array::$variant => Class::$class,)* }
            }

            fn row_bytes(self, dim: u32) -> usize {
                let row_of_floats = 4 * dim as usize;
                match self { $(Array::$variant => ($row_bytes)(row_of_floats),)* }
            }
        }
    };
}

/// Boxes of a row of the array of boxes, one to a lane of the kernels that read them.
pub(crate) const BOX_GROUP: usize = 16;

/// Bytes of a fixed record, in the form the table below wants.
const fn fixed<T>(_row_of_floats: usize) -> usize {
    size_of::<T>()
}

arrays! {
    0  Coordinates  "coordinates"  Coordinates |floats| floats;
    1  Ids          "ids"          Topology fixed::<u64>;
    2  Tombstones   "tombstones"   Topology fixed::<u64>;
    3  Owners       "owners"       Topology fixed::<rows::OwnerRow>;
    4  Centers      "centers"      Coordinates |floats| floats;
    5  Radii        "radii"        Topology fixed::<f32>;
    6  Nodes        "nodes"        Topology fixed::<rows::NodeRow>;
    7  Links        "links"        Topology fixed::<rows::LinkRow>;
    8  Counts       "counts"       Topology fixed::<rows::CountRow>;
    9  Runs         "runs"         Topology fixed::<rows::RunRow>;
    10 LevelCounts  "level_counts" Topology fixed::<u64>;
    11 IndexRuns    "index_runs"   Topology fixed::<rows::IndexRunRow>;
    12 IndexPieces  "index_pieces" Topology fixed::<rows::IndexPieceRow>;
    13 IndexKeys    "index_keys"   Topology fixed::<u64>;
    14 IndexSlots   "index_slots"  Topology fixed::<u32>;
    15 Boxes        "boxes"        Topology |floats| 2 * BOX_GROUP * floats;
    16 Versions     "versions"     Topology fixed::<VersionRow>;
    17 FreeMap      "free_map"     Topology fixed::<u64>;
    18 Freed        "freed"        Topology fixed::<rows::FreedRow>;
    19 Tags         "tags"         Topology fixed::<TagRow>;
}

/// Number of arrays that a version roots: 0 up to and including `Boxes`.
pub(crate) const DATA_ARRAYS: usize = 16;

/// Number of arrays that a commit slot roots: `Versions`, `FreeMap`, `Freed`, `Tags`.
pub(crate) const STATE_ARRAYS: usize = 4;

/// How one array lies in segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArraySpec {
    pub(crate) array: Array,
    pub(crate) class: Class,
    pub(crate) row_bytes: usize,
    pub(crate) rows_per_segment: u64,
    pub(crate) block_bytes: usize,
}

impl Geometry {
    pub(crate) fn spec(&self, array: Array) -> ArraySpec {
        let class = array.class();
        let row_bytes = array.row_bytes(self.dim);
        let segment_bytes = match class {
            Class::Topology => self.topology_segment_bytes,
            Class::Coordinates => self.coordinate_segment_bytes,
        } as usize;
        ArraySpec {
            array,
            class,
            row_bytes,
            // A row longer than the segment size gets a segment of its own.
            rows_per_segment: (segment_bytes / row_bytes).max(1) as u64,
            block_bytes: self.block_bytes as usize,
        }
    }
}

impl ArraySpec {
    /// Segments that `rows` rows occupy.
    pub(crate) fn segments(&self, rows: u64) -> u64 {
        rows.div_ceil(self.rows_per_segment)
    }

    /// Rows in segment `segment` of an array of `rows` rows.
    pub(crate) fn rows_in(&self, segment: u64, rows: u64) -> u64 {
        rows.saturating_sub(segment.saturating_mul(self.rows_per_segment))
            .min(self.rows_per_segment)
    }

    /// Bytes stored for a segment with `rows` used rows: whole blocks.
    pub(crate) fn stored_bytes(&self, rows: u64) -> usize {
        (rows as usize * self.row_bytes).next_multiple_of(self.block_bytes)
    }
}

/// A pointer to a segment or table node: where it lies, which commit wrote it, and what it must
/// contain.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(crate) struct Entry {
    /// Byte offset in the file; 0 for "nothing".
    pub(crate) address: u64,
    /// Number of the commit that wrote the child.
    pub(crate) birth: u64,
    /// CRC-32 of the child's stored bytes.
    pub(crate) crc: u32,
    /// Stored bytes of the child.
    pub(crate) bytes: u32,
}

const _: () = assert!(size_of::<Entry>() == 24);

/// The root of an array's segment table: its topmost entry, and how many rows there are. The height
/// of the table follows from the rows.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(crate) struct ArrayRoot {
    pub(crate) entry: Entry,
    pub(crate) rows: u64,
}

const _: () = assert!(size_of::<ArrayRoot>() == 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_split_into_data_and_state() {
        for (i, array) in Array::ALL.iter().enumerate() {
            assert_eq!(*array as usize, i);
        }
        assert_eq!(Array::ALL.len(), DATA_ARRAYS + STATE_ARRAYS);
        assert_eq!(Array::Versions as usize, DATA_ARRAYS);
    }

    #[test]
    fn long_rows_get_a_segment_of_their_own() {
        let geometry = Geometry {
            dim: 100,
            block_bytes: 128,
            topology_segment_bytes: 128,
            coordinate_segment_bytes: 256,
        };
        let spec = geometry.spec(Array::Coordinates);
        assert_eq!((spec.rows_per_segment, spec.stored_bytes(1)), (1, 512));
        assert_eq!(geometry.spec(Array::Versions).stored_bytes(1), 1024);
        let ids = geometry.spec(Array::Ids);
        assert_eq!((ids.segments(17), ids.rows_in(0, 17), ids.rows_in(1, 17)), (2, 16, 1));
    }

    /// Exhaustive over small geometries: rows laid out one by one say what the formulas must.
    #[test]
    fn rows_fall_into_segments_as_laid_out_one_by_one() {
        let mut seen = 0;
        for dim in [1, 2, 3, 5, 8, 31, 32, 33, 64, 65] {
            for block_bytes in [128, 256, 512] {
                for blocks in 1..=3 {
                    let geometry = Geometry {
                        dim,
                        block_bytes,
                        topology_segment_bytes: blocks * block_bytes,
                        coordinate_segment_bytes: (4 - blocks) * block_bytes,
                    };
                    for array in Array::ALL {
                        check_layout(&geometry.spec(array));
                        seen += 1;
                    }
                }
            }
        }
        assert_eq!(seen, 10 * 3 * 3 * Array::ALL.len());
    }

    fn check_layout(spec: &ArraySpec) {
        let what = format!("{spec:?}");
        assert!(spec.rows_per_segment > 0, "{what}");
        // Rows in each segment, as one row after the other arrives.
        let mut laid: Vec<u64> = Vec::new();
        for rows in 0..=3 * spec.rows_per_segment.min(70) {
            assert_eq!(spec.segments(rows), laid.len() as u64, "{what}");
            for (segment, &there) in laid.iter().enumerate() {
                assert_eq!(spec.rows_in(segment as u64, rows), there, "{what}");
                let stored = spec.stored_bytes(there);
                let needed = there as usize * spec.row_bytes;
                let fits = stored >= needed && stored < needed + spec.block_bytes;
                assert!(fits && stored.is_multiple_of(spec.block_bytes), "{what}");
            }
            for beyond in [laid.len() as u64, laid.len() as u64 + 1, u64::MAX] {
                assert_eq!(spec.rows_in(beyond, rows), 0, "{what}");
            }
            match laid.last_mut() {
                Some(last) if *last < spec.rows_per_segment => *last += 1,
                _ => laid.push(1),
            }
        }
        assert_eq!(spec.stored_bytes(0), 0);
    }
}
