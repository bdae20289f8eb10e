//! Where a column's changed segments and table nodes will lie: planned first, written when all
//! space is reserved.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::column::{Written, WrittenColumn};
use super::database::Database;
use super::table::TableUpdate;
use crate::arena::Piece;
use crate::arena::free_space::FreeSpace;
use crate::format::arrays::{ArrayRoot, Class, Entry};
use crate::format::checksum::Origin;
use crate::values::error::{CommitError, ReadError};

/// A column with a place for everything of it that a commit writes.
pub(super) struct Placement<C> {
    pub(super) column: C,
    /// Changed segments: number to address.
    pub(super) segments: BTreeMap<u64, u64>,
    pub(super) update: TableUpdate,
}

impl<C: WrittenColumn> Placement<C> {
    /// Finds room for the segments `changed` and for the table nodes above them and above those
    /// that were written early; of these, what has changed since gives its space back. `replaced`
    /// is told what the table that the column had before refers to and the new one will not.
    pub(super) fn new(
        column: C,
        changed: Vec<u64>,
        space: &mut FreeSpace,
        replaced: impl FnMut(Entry),
    ) -> Result<Self, ReadError> {
        let spec = column.table().spec;
        let rows = column.rows();
        let early: Vec<(u64, Written)> =
            column.written().into_iter().flatten().map(|(&s, &place)| (s, place)).collect();
        for (segment, place) in &early {
            if changed.binary_search(segment).is_ok() {
                space.free(place.address, place.bytes as u64);
            }
        }
        let mut above: Vec<u64> =
            changed.iter().copied().chain(early.iter().map(|e| e.0)).collect();
        above.sort_unstable();
        above.dedup();
        let segments: BTreeMap<u64, u64> = changed
            .iter()
            .map(|&s| {
                let bytes = spec.stored_bytes(spec.rows_in(s, rows));
                (s, space.allocate(bytes, spec.class))
            })
            .collect();
        let update = TableUpdate::plan(
            column.table().clone(),
            rows,
            above.into_iter(),
            || space.allocate(spec.block_bytes, Class::Topology),
            replaced,
        )?;
        Ok(Placement { column, segments, update })
    }

    /// Where the changed segments will lie: address and length.
    pub(super) fn places(&self) -> impl Iterator<Item = (u64, u64)> {
        let (spec, rows) = (self.column.table().spec, self.column.rows());
        let bytes = move |segment| spec.stored_bytes(spec.rows_in(segment, rows)) as u64;
        self.segments.iter().map(move |(&segment, &address)| (address, bytes(segment)))
    }

    /// Bytes that [`Placement::write`] will write.
    pub(super) fn planned_bytes(&self) -> u64 {
        let spec = self.column.table().spec;
        let rows = self.column.rows();
        let segments = self.segments.keys();
        let segments: u64 =
            segments.map(|&s| spec.stored_bytes(spec.rows_in(s, rows)) as u64).sum();
        segments + self.update.planned_nodes() * spec.block_bytes as u64
    }

    /// Writes the segments and the table nodes, and returns the new root.
    pub(super) fn write(&self, db: &Database, commit: u64) -> Result<ArrayRoot, CommitError> {
        let Placement { column, segments, update } = self;
        let spec = column.table().spec;
        let mut pieces: Vec<Piece<'_>> = segments
            .iter()
            .map(|(&segment, &address)| {
                let stored = spec.stored_bytes(spec.rows_in(segment, column.rows()));
                Piece { address, bytes: column.bytes(segment), stored }
            })
            .collect();
        let numbers: Vec<u64> = segments.keys().copied().collect();
        let checksums: Vec<u32> = pieces
            .par_iter()
            .zip(&numbers)
            .with_min_len(16)
            .map(|(piece, &segment)| {
                let origin = Origin::segment(spec.array, segment);
                origin.checksum(commit, piece.bytes, piece.stored)
            })
            .collect();
        let early = column.written().into_iter().flatten();
        let early = early.map(|(&segment, written)| (segment, written.entry()));
        // What has changed since it was written early comes later, and wins.
        let now = segments.keys().zip(&pieces).zip(checksums).map(|((&segment, piece), crc)| {
            let bytes = piece.stored as u32;
            (segment, Entry { address: piece.address, birth: commit, crc, bytes })
        });
        let entries = early.chain(now).collect();
        let mut nodes = Vec::new();
        let root = update.encode(commit, entries, |address, block| nodes.push((address, block)))?;
        pieces.extend(nodes.iter().map(|(address, block)| Piece {
            address: *address,
            bytes: block,
            stored: block.len(),
        }));
        db.arena.write_pieces(pieces)?;
        Ok(root)
    }
}
