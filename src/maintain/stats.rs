//! What a version holds and what the file spends on it.

use crate::format::arrays::{Array, DATA_ARRAYS, Entry};
use crate::format::version_row::VersionRow;
use crate::tree::columns::Tree;
use crate::values::error::ReadError;
use crate::values::ids::VersionId;
use crate::values::options::Metric;
use crate::version::database::Database;
use crate::version::table::{Table, Visit};

/// Figures of one version and of the file. `live_bytes + pinned_bytes + reclaimable_bytes =
/// file_bytes`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// The version asked about.
    pub version: VersionId,
    /// Points held, deleted ones included.
    pub points: u64,
    /// Points not deleted.
    pub live: u64,
    /// The dimension.
    pub dim: usize,
    /// The distance.
    pub metric: Metric,
    /// Levels that have nodes.
    pub height: u64,
    /// Nodes of the tree.
    pub nodes: u64,
    /// CRC-32 over the checksums of all segments of the version. Versions that hold the same bytes
    /// have the same one, in whatever file: a received version has that of the version sent.
    pub checksum: u32,
    /// Length of the file that the newest commit needs.
    pub file_bytes: u64,
    /// Bytes of the version, of the store state and of the file's preamble.
    pub live_bytes: u64,
    /// Bytes of the version that no other version refers to: what its expiry would free.
    pub unique_bytes: u64,
    /// Bytes of the version that other versions refer to as well.
    pub shared_bytes: u64,
    /// Bytes that only other versions refer to. They are kept because those versions are.
    pub pinned_bytes: u64,
    /// Bytes inside the file that nothing refers to; later commits use them.
    pub reclaimable_bytes: u64,
}

/// Figures of the version described by `row`. Reads the version's segment tables, not its segments.
pub(crate) fn stats(db: &Database, row: &VersionRow, tree: &Tree) -> Result<Stats, ReadError> {
    let mut nodes = 0;
    let mut height = 0;
    for level in 0..tree.level_counts.len() {
        let count = tree.level_counts.get(level)?;
        nodes = u64::saturating_add(nodes, count);
        height += (count > 0) as u64;
    }
    let data = Array::ALL[..DATA_ARRAYS].iter().map(|&array| db.data_table(array, &row.roots));
    let Sizes { bytes: data_bytes, checksum } = sizes_of(data)?;
    let Sizes { bytes: state_bytes, .. } = db.with_newest(|slot| {
        sizes_of(Array::ALL[DATA_ARRAYS..].iter().map(|&array| db.state_table(slot, array)))
    })?;
    let live_bytes = crate::format::DATA_START + state_bytes + data_bytes;
    let unique = db.unique_bytes_of(row.version)?;
    let (used, reclaimable_bytes) = db.space()?;
    Ok(Stats {
        version: VersionId(row.version),
        points: row.held,
        live: row.points,
        dim: tree.dim,
        metric: Metric::Euclidean,
        height,
        nodes,
        checksum,
        file_bytes: used + reclaimable_bytes,
        live_bytes,
        unique_bytes: unique,
        shared_bytes: data_bytes - unique.min(data_bytes),
        pinned_bytes: used.saturating_sub(live_bytes),
        reclaimable_bytes,
    })
}

struct Sizes {
    /// Of all nodes and segments.
    bytes: u64,
    /// Of the segments: where they belong and what is in them, not where they lie.
    checksum: u32,
}

/// Sizes of some tables, which have nothing in common.
fn sizes_of(tables: impl Iterator<Item = Table>) -> Result<Sizes, ReadError> {
    let mut bytes = 0;
    let mut checksum = crc32fast::Hasher::new();
    for table in tables {
        let mut problem = None;
        let mut add = |entry: &Entry, visit| {
            bytes += entry.bytes as u64;
            if let Visit::Segment(segment) = visit {
                checksum.update(&(table.spec.array as u64).to_le_bytes());
                checksum.update(&segment.to_le_bytes());
                let content = visit.origin(table.spec.array).content_checksum(entry);
                checksum.update(&content.to_le_bytes());
            }
            true
        };
        table.walk(&mut add, &mut |e| problem = Some(e));
        if let Some(e) = problem {
            return Err(e);
        }
    }
    Ok(Sizes { bytes, checksum: checksum.finalize() })
}
